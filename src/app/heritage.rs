//! What the process before us left in the store: runs that it began, and messages that it had acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::app::channels::Opened;
use crate::app::store_failure;
use crate::config::Plan;
use crate::exit::Failure;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::token::Token;
use crate::ledger::{Entry, Settled};
use crate::runner::resume::{self, Left};
use crate::runner::switchboard::Switchboard;
use crate::store::{Change, Store};

/// What is to be gone on with.
pub(super) struct Heritage {
    /// The runs, oldest slots first.
    pub(super) left: Vec<Left>,
    arrivals: Vec<Arrival>,
    known: Vec<(Token, Entry)>,
}

impl Heritage {
    /// Reads it. What nobody can go on with is settled.
    pub(super) async fn read(plan: &Plan, store: &Arc<dyn Store>) -> Result<Heritage, Failure> {
        let failed = |error| store_failure(plan, &error);
        let found = store.unfinished().await.map_err(failed)?;
        let arrivals = store.arrivals().await.map_err(failed)?;
        let known = store.ledger().await.map_err(failed)?;
        let seen = known.iter().map(|(_, entry)| entry.recorded).chain(arrivals.iter().map(|arrival| arrival.at.wall));
        let resume::Heritage { left, gone } = resume::sort(found, &plan.journeys, seen);
        if !gone.is_empty() {
            tracing::info!(runs = gone.len(), "runs of journeys that are no more are forgotten");
            let settled = gone.into_iter().map(|token| Change::Settle { token, how: Settled::Missing });
            store.apply(settled.collect()).await.map_err(failed)?;
        }
        Ok(Heritage { left, arrivals, known })
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

    /// Before any reader begins: what the runs wait for is expected, readers look back as far as it takes, and what was
    /// acknowledged is seen again. Gives what no run waits for.
    pub(super) fn hand_to(&mut self, switchboard: &Switchboard, channels: &mut BTreeMap<Name, Opened>) -> Vec<Arrival> {
        for left in &self.left {
            switchboard.take_up(left);
            for name in left.journey.receivers() {
                if let Some(channel) = channels.get_mut(&name) {
                    channel.look_back(left.since());
                }
            }
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
