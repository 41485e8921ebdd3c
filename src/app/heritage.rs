//! What whoever ran journeys before us left in the store: runs that were begun, and messages that were acknowledged.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::app::store_failure;
use crate::config::Plan;
use crate::exit::Failure;
use crate::journey::message::Arrival;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::token::Token;
use crate::journey::{Journey, Name};
use crate::ledger::{Entry, Settled};
use crate::runner::resume::{self, Left};
use crate::runner::switchboard::Switchboard;
use crate::store::{Change, Store};

/// What is to be gone on with.
#[derive(Default)]
pub(super) struct Heritage {
    /// The runs, oldest slots first.
    pub(super) left: Vec<Left>,
    arrivals: Vec<Arrival>,
    known: Vec<(Token, Entry)>,
}

/// What was found in the store.
pub(super) struct Found {
    pub(super) unfinished: Vec<Checkpoint>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) known: Vec<(Token, Entry)>,
}

impl Heritage {
    /// Reads it. What nobody can go on with is settled.
    pub(super) async fn read(plan: &Plan, store: &Arc<dyn Store>) -> Result<Heritage, Failure> {
        let failed = |error| store_failure(plan, &error);
        let found = Found {
            unfinished: store.unfinished().await.map_err(failed)?,
            arrivals: store.arrivals().await.map_err(failed)?,
            known: store.ledger().await.map_err(failed)?,
        };
        let (heritage, gone) = Heritage::of(found, &plan.journeys);
        if !gone.is_empty() {
            store.apply(gone).await.map_err(failed)?;
        }
        Ok(heritage)
    }

    /// What was found, for these journeys, and what settles the runs of those that are no more.
    pub(super) fn of(found: Found, journeys: &[Arc<Journey>]) -> (Heritage, Vec<Change>) {
        let Found { unfinished, arrivals, known } = found;
        let seen = known.iter().map(|(_, entry)| entry.recorded).chain(arrivals.iter().map(|arrival| arrival.at.wall));
        let resume::Heritage { left, gone } = resume::sort(unfinished, journeys, seen);
        if !gone.is_empty() {
            tracing::info!(runs = gone.len(), "runs of journeys that are no more are forgotten");
        }
        let settled = gone.into_iter().map(|token| Change::Settle { token, how: Settled::Missing }).collect();
        (Heritage { left, arrivals, known }, settled)
    }

    /// What every token in the ledger is from here on: a message for one whose run nobody goes on with is late.
    pub(super) fn known(&mut self) -> impl Iterator<Item = (Token, Entry)> + use<> {
        let left: HashSet<_> = self.left.iter().map(|left| left.checkpoint.token).collect();
        std::mem::take(&mut self.known).into_iter().map(move |(token, mut entry)| {
            if !left.contains(&token) {
                entry.settled = entry.settled.or(Some(Settled::Missing));
            }
            (token, entry)
        })
    }

    /// What the runs wait for is expected, readers are asked to `look_back` as far as it takes, and what was acknowledged is seen
    /// again. Gives what no run waits for.
    pub(super) fn hand_to(
        &mut self,
        switchboard: &Switchboard,
        mut look_back: impl FnMut(&Name, Timestamp),
    ) -> Vec<Arrival> {
        for left in &self.left {
            switchboard.take_up(left);
            left.journey.receivers().iter().for_each(|name| look_back(name, left.since()));
        }
        let mut before = Vec::new();
        for arrival in std::mem::take(&mut self.arrivals) {
            match switchboard.missed_by(&arrival) {
                // Its run looks into its mailbox before it says that nothing came.
                Some((_, true)) => drop(switchboard.arrive(arrival)),
                _ => before.push(arrival),
            }
        }
        before
    }
}
