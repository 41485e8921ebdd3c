//! Runs that the process before began and did not end: which of them somebody can go on with, and from where.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::journey::run::checkpoint::{Checkpoint, Purpose};
use crate::journey::token::Token;
use crate::journey::{Journey, Name};
use crate::ledger::Entry;
use crate::runner::mailbox::Mailbox;
use crate::runner::switchboard::Switchboard;
use crate::time::{earlier, later};

/// Systems keep what waits for us at least for so long: queues of our own go an hour after their last reader.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30 * 60);
/// What a process has done so long before its last sign of life is on disk, or known to the systems that it spoke with.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// A system's clock may be so far from ours.
const SKEW: Duration = Duration::from_secs(5);

/// A run that another process began and did not end.
pub struct Left {
    /// What it runs.
    pub journey: Arc<Journey>,
    /// From where it is gone on with.
    pub checkpoint: Checkpoint,
    pub(super) mailbox: Arc<Mailbox>,
    /// The other process did its work until then at least.
    pub(super) alive: Timestamp,
}

impl Left {
    /// What came after this may be what it waits for.
    pub fn since(&self) -> Timestamp {
        earlier(self.checkpoint.made, SKEW)
    }
}

/// What the process before left behind.
#[derive(Default)]
pub struct Heritage {
    /// The runs to go on with, oldest slots first.
    pub left: Vec<Left>,
    /// Those of journeys that are no more.
    pub gone: Vec<Token>,
}

/// What is to be done about the runs that were found unfinished. `seen` are times at which the process before was at work.
pub fn sort(found: Vec<Checkpoint>, journeys: &[Arc<Journey>], seen: impl IntoIterator<Item = Timestamp>) -> Heritage {
    let by_name: HashMap<&Name, &Arc<Journey>> = journeys.iter().map(|journey| (&journey.name, journey)).collect();
    let last = found.iter().map(|checkpoint| checkpoint.at).chain(seen).max().unwrap_or(Timestamp::MIN);
    let alive = earlier(last, ON_ITS_WAY);
    let mut heritage = Heritage::default();
    for checkpoint in found {
        match by_name.get(&checkpoint.journey) {
            Some(journey) => {
                let alive = alive.max(checkpoint.at);
                let journey = Arc::clone(journey);
                heritage.left.push(Left { journey, checkpoint, mailbox: Arc::default(), alive });
            }
            None => heritage.gone.push(checkpoint.token),
        }
    }
    heritage
}

impl Switchboard {
    /// Expects what the run waits for, before anything can come.
    pub fn take_up(&self, left: &Left) {
        let Left { journey, checkpoint, mailbox, .. } = left;
        let entry = Entry {
            journey: journey.name.clone(),
            slot: checkpoint.slot,
            recorded: checkpoint.made,
            keep_until: later(checkpoint.made, journey.deadline + journey.late),
            settled: None,
        };
        self.expect(checkpoint.token, entry, mailbox.clone());
        for (channel, key) in &checkpoint.keys {
            self.expect_key(channel, key.clone(), checkpoint.token);
        }
    }
}

/// The slots that somebody still goes on with, by journey.
pub fn waiting_slots(left: &[Left]) -> HashMap<Name, Vec<Timestamp>> {
    let mut slots: HashMap<Name, Vec<Timestamp>> = HashMap::new();
    for Left { journey, checkpoint, .. } in left.iter().filter(|left| left.checkpoint.purpose == Purpose::Slot) {
        slots.entry(journey.name.clone()).or_default().push(checkpoint.slot);
    }
    slots
}
