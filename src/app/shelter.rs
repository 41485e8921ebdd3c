//! What a daemon keeps for itself while the store that it shares is out of reach: a store of its own, and what it could not say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::app::outset::Facts;
use crate::exit::{self, Failure};
use crate::store::spool::{Disk, LIMITS, Queue};
use crate::store::sqlite::{REST, Sqlite};
use crate::store::{Retention, Store, StoreError};
use crate::time::earlier;

/// The store of its own, in the directory.
const STORE: &str = "alone.db";
/// What it could not say.
const UNSAID: &str = "unsaid.db";
/// What was told in an outage is of interest for so long after it.
const KEEP: Duration = Duration::from_secs(2 * 86_400);

/// Opened.
pub(super) struct Shelter {
    /// Where a daemon that is cut off decides and tells.
    pub(super) store: Arc<dyn Store>,
    /// Where what it could not say is, if it is to outlive the process.
    pub(super) disk: Option<Disk>,
    /// What a process before this one could not say.
    pub(super) left: Queue,
    /// What a process before this one kept to begin without the store; or why that is of no use.
    pub(super) kept: Result<Option<Facts>, String>,
    /// Removed with the process.
    _passing: Option<Passing>,
}

/// A directory that ends with its owner.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        // What is left of it says nothing to anybody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Shelter {
    /// Opens it in `directory`; without one, in a place that nothing outlives the process in.
    ///
    /// # Errors
    /// The disk says no, or another process has it.
    pub(super) async fn open(directory: Option<&Path>, now: Timestamp) -> Result<Shelter, Failure> {
        let (path, passing) = match directory {
            Some(directory) => (directory.to_owned(), None),
            None => {
                let mut chance = [0u8; 8];
                getrandom::fill(&mut chance)
                    .map_err(|error| Failure::new(exit::SOFTWARE, format!("no randomness: {error}")))?;
                let name = format!("journeyman-{}-{:016x}", std::process::id(), u64::from_be_bytes(chance));
                let path = std::env::temp_dir().join(name);
                (path.clone(), Some(Passing(path)))
            }
        };
        let failed = |error: StoreError| {
            let hint = "a daemon that is cut off from the store keeps what it sees there: is the directory ours to write, and no other \
                        daemon's? `store.spool` says where it is";
            let code = match error {
                StoreError::InUse(_) => exit::TEMPORARY,
                _ => exit::CANNOT_CREATE,
            };
            Failure::new(code, format!("spool {}: {error}\n  help: {hint}", path.display()))
        };
        let (at, is_kept) = (path.clone(), passing.is_none());
        let opened = tokio::task::spawn_blocking(move || {
            let store = Sqlite::open_resting(&at.join(STORE), REST)?;
            let unsaid = is_kept.then(|| Disk::open(&at.join(UNSAID), LIMITS)).transpose()?;
            let kept = if is_kept { Facts::read(&at) } else { Ok(None) };
            Ok((store, unsaid, kept))
        });
        let opened =
            opened.await.map_err(|error| Failure::new(exit::SOFTWARE, format!("opening the spool: {error}")))?;
        let (store, unsaid, kept) = opened.map_err(failed)?;
        let before = earlier(now, KEEP);
        let retention = Retention { runs_before: before, good_evidence_before: before, ledger_before: now };
        if let Err(error) = store.forget(retention).await {
            tracing::warn!(%error, "what is old in the spool could not be forgotten");
        }
        let (disk, left) = match unsaid {
            Some((disk, left)) => (Some(disk), left),
            None => (None, Queue::new(LIMITS)),
        };
        if let Err(why) = &kept {
            tracing::warn!(why, "what was kept to begin without the store is of no use");
        }
        Ok(Shelter { store: Arc::new(store), disk, left, kept, _passing: passing })
    }
}
