//! Whether this daemon has its store alone, or is one of several.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::app::lead::{Ground, Lead, Ready, Shown};
#[cfg(feature = "postgres")]
use crate::app::member::Member;
use crate::app::reload::Live;
use crate::app::tasks::Tasks;
use crate::commands::Callbacks;
use crate::config::Plan;
use crate::evaluator::Handover;
use crate::exit::Failure;
use crate::scheduler::Observation;
use crate::store::Store;

/// That the lease of a shared store is ours.
#[cfg(feature = "postgres")]
pub(super) use crate::store::postgres::Fence as Won;
/// Nobody wins what nobody shares.
#[cfg(not(feature = "postgres"))]
pub(super) use std::convert::Infallible as Won;

/// Its place among the daemons of its store.
pub(super) enum Place {
    /// There is no other.
    Alone(Option<Box<Whole>>),
    /// One of several.
    #[cfg(feature = "postgres")]
    Shared(Box<Member>),
}

/// All that a daemon needs that is alone, until it is put to work.
pub(super) struct Whole {
    pub(super) ready: Ready,
    pub(super) observed: mpsc::Receiver<Observation>,
    pub(super) shown: Shown,
}

impl Place {
    /// How many crashes in a row came before this start, as far as that is known.
    pub(super) fn crashes(&self) -> usize {
        match self {
            Place::Alone(whole) => whole.as_ref().map_or(0, |whole| whole.ready.crashes()),
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.crashes(),
        }
    }

    /// Puts to work what decides, or what tells the daemon that does.
    pub(super) fn spawn(
        &mut self,
        plan: &Plan,
        ground: &Ground,
        callbacks: Arc<Callbacks>,
        tasks: &mut Tasks,
    ) -> Result<Option<Lead>, Failure> {
        match self {
            Place::Alone(whole) => Ok(whole.take().map(|whole| {
                let Whole { ready, observed, shown } = *whole;
                shown.spawn(plan, ground, &ready, tasks);
                ready.spawn(ground, callbacks, observed, tasks)
            })),
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.spawn(plan, ground, tasks),
        }
    }

    /// That it is our turn to decide. Whoever is alone decides from the start.
    pub(super) async fn won(&mut self) -> Won {
        match self {
            Place::Alone(_) => std::future::pending().await,
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.won().await,
        }
    }

    /// Decides from now on.
    ///
    /// # Errors
    /// The store, or something that cannot be built.
    #[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "nobody wins"))]
    pub(super) async fn take_over(&mut self, won: Won, live: &mut Live, tasks: &mut Tasks) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.take_over(won, live, tasks).await,
            Place::Alone(_) => {
                let _ = (won, live, tasks);
                Ok(())
            }
        }
    }

    /// Another daemon decides: what it does not know is said, and each incident that it will never speak of has a last word.
    #[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "nobody is there"))]
    pub(super) async fn concede(&mut self, handovers: mpsc::Sender<Handover>, store: &Arc<dyn Store>) {
        match self {
            Place::Alone(_) => {
                let _ = (handovers, store);
            }
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.concede(handovers, store).await,
        }
    }

    /// Nothing new is taken.
    pub(super) fn begin_to_stop(&self) {
        match self {
            Place::Alone(_) => {}
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.begin_to_stop(),
        }
    }

    /// Leaves it to others, who go on from these slots.
    #[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "nobody is there"))]
    pub(super) async fn leave(self, counted: Timestamp) {
        match self {
            Place::Alone(_) => {
                let _ = counted;
            }
            #[cfg(feature = "postgres")]
            Place::Shared(member) => member.leave(counted).await,
        }
    }
}
