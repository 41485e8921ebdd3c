//! Telling people while the store does not write: what is owed is kept in memory, in order, and what became of it is told to the
//! store when it takes that again.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::delivery::{DIRECT, Worker};
use crate::store::{Change, OutboxRow, OutboxState};

/// A notice that is told although the store cannot record it.
pub(super) struct InMemory {
    pub(super) row: OutboxRow,
    /// The store has the row. Otherwise it may come to have it later, as one that nobody was told of.
    pub(super) is_stored: bool,
}

impl Worker {
    /// Where a notice stands, if the store has not been told.
    pub(super) fn known_better(&self, id: &str) -> Option<OutboxState> {
        let in_memory = || self.in_memory.iter().find(|kept| kept.row.id == id).map(|kept| kept.row.state.clone());
        self.unrecorded.get(id).cloned().or_else(in_memory)
    }

    /// Tells the store where a notice stands; if it takes that, it is what counts again.
    pub(super) async fn catch_up(&mut self, id: String, state: OutboxState) -> Duration {
        let wait = self.record(vec![Change::Outbox { id: id.clone(), state }]).await;
        if wait == Duration::ZERO {
            self.unrecorded.remove(&id);
            self.in_memory.retain(|kept| kept.row.id != id);
        }
        wait
    }

    /// The oldest notice of each incident in memory: those of an incident stay in order.
    pub(super) fn first_in_memory(&self) -> impl Iterator<Item = &InMemory> {
        let mut seen = HashSet::new();
        self.in_memory.iter().filter(move |kept| seen.insert(&kept.row.incident))
    }

    /// The first notice in memory whose time has come.
    pub(super) fn due_in_memory(&mut self, now: Timestamp) -> Option<InMemory> {
        let due = self.first_in_memory().find(|kept| kept.row.state.is_due(now))?;
        let id = due.row.id.clone();
        let at = self.in_memory.iter().position(|kept| kept.row.id == id)?;
        self.in_memory.remove(at)
    }

    pub(super) fn remember(&mut self, row: OutboxRow, is_stored: bool) {
        if self.in_memory.len() >= DIRECT {
            tracing::error!(notifier = %self.name, delivery = row.id, "too many notices wait for a store that does not write");
        } else {
            self.in_memory.push_back(InMemory { row, is_stored });
        }
    }

    /// The store does not write, so a row that it has would be its next one for ever: all that it owes is told from memory.
    pub(super) async fn take_over(&mut self) {
        for row in &*self.owed_by_store().await {
            if self.known_better(&row.id).is_none() {
                self.remember(row.clone(), true);
            }
        }
    }
}
