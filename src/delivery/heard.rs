//! What the store has said of a notifier's rows, so that it is asked again only when it may have others.

use std::sync::Arc;

use jiff::Timestamp;

use crate::delivery::Worker;
use crate::store::{Due, OutboxRow, OutboxSummary, StoreError};

/// What holds for one edition of the outbox.
#[derive(Default)]
pub(super) struct Heard {
    edition: Option<u64>,
    next: Option<Next>,
    owed: Option<Arc<[OutboxRow]>>,
    summary: Option<Option<OutboxSummary>>,
}

#[derive(Clone, Copy)]
enum Next {
    Nothing,
    At(Timestamp),
}

impl Worker {
    /// What is known and still holds.
    fn heard(&mut self) -> &mut Heard {
        // Looked at before anything is asked: a change that comes between makes the answer old, and never one of before it new.
        let edition = self.store.outbox_edition();
        if edition.is_none() || edition != self.heard.edition {
            self.heard = Heard { edition, ..Heard::default() };
        }
        &mut self.heard
    }

    /// The next row, if its time has come. A row is told, and not kept.
    pub(super) async fn next_due(&mut self, now: Timestamp) -> Result<Due, StoreError> {
        match self.heard().next {
            Some(Next::Nothing) => return Ok(Due::Nothing),
            Some(Next::At(at)) if at > now => return Ok(Due::At(at)),
            _ => {}
        }
        let due = self.store.next_due(self.name.clone(), now).await?;
        self.heard.next = match &due {
            Due::Nothing => Some(Next::Nothing),
            Due::At(at) => Some(Next::At(*at)),
            Due::Row(_) => None,
        };
        Ok(due)
    }

    /// What the store knows to be owed through this notifier, oldest first; nothing, if it does not say.
    pub(super) async fn owed_by_store(&mut self) -> Arc<[OutboxRow]> {
        if let Some(owed) = &self.heard().owed {
            return owed.clone();
        }
        let Ok(owed) = self.store.undelivered(self.name.clone(), None).await else { return Arc::default() };
        self.heard.owed.insert(owed.into()).clone()
    }

    /// The same in numbers; the inner `None` is a notifier that has never had a row.
    pub(super) async fn summary(&mut self) -> Result<Option<OutboxSummary>, StoreError> {
        if let Some(summary) = &self.heard().summary {
            return Ok(summary.clone());
        }
        let summaries = self.store.outbox_summary().await?;
        let mine = summaries.into_iter().find(|summary| summary.notifier == self.name);
        Ok(self.heard.summary.insert(mine).clone())
    }
}
