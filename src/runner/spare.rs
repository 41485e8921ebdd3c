//! Where what a run leaves on disk goes while the store that daemons share is out of reach: without it nothing could be sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::runner::Runner;
use crate::store::{Change, Store, StoreError};
use crate::time::Mono;

/// A store that said no is asked again this often, by one run: that one may wait for as long as a connection takes.
const AGAIN: Duration = Duration::from_secs(5);

/// A store that takes so long says no: slots do not wait for it.
const WITHIN: Duration = Duration::from_secs(2);

/// A store of this daemon alone, for want of the one that it shares.
pub struct Spare {
    store: Arc<dyn Store>,
    clock: Clock,
    /// The shared one said no, and is not asked before.
    not_before: Mutex<Option<Mono>>,
}

impl Spare {
    /// Nothing is wrong yet.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Spare {
        Spare { store, clock, not_before: Mutex::default() }
    }

    /// Whether the shared store is to be asked. If it is in doubt, this is who does, and others do not meanwhile.
    fn may_ask(&self) -> bool {
        let now = self.clock.now().mono;
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        match *not_before {
            None => true,
            Some(at) if now < at => false,
            Some(_) => {
                *not_before = Some(now + AGAIN);
                true
            }
        }
    }

    fn note(&self, is_away: bool) {
        let next = is_away.then(|| self.clock.now().mono + AGAIN);
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl Runner {
    /// Makes durable what a run needs: in the store, or where that is out of reach, in what stands in for it.
    ///
    /// # Errors
    /// Neither could write it, or another daemon runs the journey.
    pub async fn write(&self, batch: Vec<Change>) -> Result<(), StoreError> {
        let Some(spare) = &self.spare else { return self.store.apply(batch).await };
        if spare.may_ask() {
            let written = tokio::time::timeout(WITHIN, self.store.apply(batch.clone())).await;
            match written {
                // Slow is not away. If it is written after all, it is so in two places, which harms nobody.
                Err(_) => {}
                Ok(Err(StoreError::Unwritable(_))) => spare.note(true),
                Ok(written) => {
                    spare.note(false);
                    return written;
                }
            }
        }
        spare.store.apply(batch).await
    }
}
