//! Test alarms: on their way from a journey to the very worker that tells people, and the answer.
//!
//! A test takes the notifier's own lane - its credentials, template, pace, hold and breaker - and not the outbox: there it would be
//! tried again for hours, handed to a fallback that hides the fault, and told after the journey has long had its verdict. One
//! attempt, one answer; what is forgotten with the process is only a test. That the outbox works is the own journey's to prove.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::journey::Name;
use crate::notice::Notification;

/// Tests that wait for one notifier at most.
const QUEUE: usize = 8;

/// A test alarm with where its answer goes; whoever asked may be gone, and then nobody is told.
#[derive(Debug)]
pub struct Alarm {
    /// What to tell.
    pub notification: Notification,
    /// What became of it.
    pub answer: oneshot::Sender<Result<Taken, NotTaken>>,
}

/// The other side took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What identifies the message there.
    pub id: String,
    /// Where it is.
    pub place: String,
    /// What the other side said, for people.
    pub said: String,
}

/// Nobody was told, or it is not certain that somebody was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotTaken {
    /// What kind of failure.
    pub why: Why,
    /// What happened, for people.
    pub detail: String,
}

/// Why a test alarm was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody tells people through this notifier here and now.
    Nobody,
    /// The notifier's breaker is open: real notices wait, too.
    Blocked,
    /// The notifier asked to be left alone for a time.
    Throttled,
    /// It said no, and will say so again.
    Refused,
    /// It was not reached, or is ill.
    Unreachable,
    /// It may have been taken all the same.
    Uncertain,
}

/// The lanes of all notifiers, by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<RwLock<BTreeMap<Name, mpsc::Sender<Alarm>>>>);

impl Alarms {
    /// Tests of this notifier come out here, from now on; whoever took them before hears of no more.
    pub fn answer_for(&self, notifier: &Name) -> mpsc::Receiver<Alarm> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(notifier.clone(), sender);
        receiver
    }

    /// Nobody tells people through this notifier any more.
    pub fn dismiss(&self, notifier: &Name) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(notifier);
    }

    /// Tells people through this notifier that this is a test, in one attempt.
    ///
    /// # Errors
    /// They were not told, or perhaps not.
    pub async fn ring(&self, notifier: &Name, notification: Notification) -> Result<Taken, NotTaken> {
        let nobody = |detail: String| NotTaken { why: Why::Nobody, detail };
        let lane = self.0.read().unwrap_or_else(PoisonError::into_inner).get(notifier).cloned();
        let Some(lane) = lane else { return Err(nobody(format!("nobody tells people through `{notifier}`"))) };
        let (answer, answered) = oneshot::channel();
        if lane.try_send(Alarm { notification, answer }).is_err() {
            return Err(nobody(format!(
                "`{notifier}` takes no test now: {QUEUE} wait already, or it is being replaced"
            )));
        }
        answered.await.unwrap_or_else(|_| Err(nobody(format!("`{notifier}` is being replaced"))))
    }
}
