//! Telling people while the store does not write: what is owed is kept in memory, in order, and the store is told all that it missed when
//! it takes that again.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::board::BEAT;
use crate::delivery::heard::Heard;
use crate::delivery::{DIRECT, Worker};
use crate::store::{Change, OutboxRow};

/// What the store is told of a notice that it may not even have: others could be told of the beginning, and never of the end.
pub(super) fn whole(row: &OutboxRow) -> [Change; 2] {
    let state = Change::Outbox { id: row.id.clone(), state: row.state.clone() };
    [Change::Owe { row: Box::new(row.clone()) }, state]
}

impl Worker {
    /// Whether the store may not know where a notice stands.
    pub(super) fn is_known_better(&self, id: &str) -> bool {
        self.unrecorded.contains_key(id) || self.in_memory.iter().any(|row| row.id == id)
    }

    /// Tells the store what it has missed, and goes by it again: from then on a notice waits for those before it, wherever they stood. It
    /// is not asked with every round, because a store that does not write may take its time to say so.
    pub(super) async fn hand_back(&mut self) {
        let now = self.clock.now().mono;
        if self.in_memory.is_empty() && self.unrecorded.is_empty() || self.is_store_failing && now < self.hand_back_at {
            return;
        }
        self.hand_back_at = now + BEAT;
        let missed = self.unrecorded.values().chain(&self.in_memory);
        if self.record(missed.flat_map(whole).collect()).await == Duration::ZERO {
            self.unrecorded.clear();
            self.in_memory.clear();
        }
    }

    /// The store is another daemon's, with all that is owed there. What was told while it was out of reach is known to what stands in
    /// for it, so that a last word finds its thread.
    pub(super) fn go_with_spare(&mut self) {
        let Some(spare) = self.spare.take() else { return };
        self.store = spare;
        self.heard = Heard::default();
        self.is_store_failing = false;
        self.in_memory.clear();
    }

    /// The oldest notice of each incident in memory: those of an incident stay in order.
    pub(super) fn first_in_memory(&self) -> impl Iterator<Item = &OutboxRow> {
        let mut seen = HashSet::new();
        self.in_memory.iter().filter(move |row| seen.insert(&row.incident))
    }

    /// The first notice in memory whose time has come.
    pub(super) fn due_in_memory(&mut self, now: Timestamp) -> Option<OutboxRow> {
        let due = self.first_in_memory().find(|row| row.state.is_due(now))?;
        let id = due.id.clone();
        let at = self.in_memory.iter().position(|row| row.id == id)?;
        self.in_memory.remove(at)
    }

    pub(super) fn remember(&mut self, row: OutboxRow) {
        if self.in_memory.len() >= DIRECT {
            tracing::error!(notifier = %self.name, delivery = row.id, "too many notices wait for a store that does not write");
        } else {
            self.in_memory.push_back(row);
        }
    }

    /// The store does not write, so a row that it has would be its next one for ever: all that it owes is told from memory.
    pub(super) async fn take_over(&mut self) {
        for row in &*self.owed_by_store().await {
            if !self.is_known_better(&row.id) {
                self.remember(row.clone());
            }
        }
    }
}
