//! One message a second: what Slack takes in one channel, whether it is posted or edited.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::time::Mono;

/// From one message to the next. <https://docs.slack.dev/apis/web-api/rate-limits>
const GAP: Duration = Duration::from_secs(1);

/// Whose turn it is.
pub(super) struct Pace {
    clock: Clock,
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    /// The next message goes out no earlier.
    next: Mono,
    /// Slack asked for no edits until then.
    edits: Mono,
}

impl Pace {
    /// One that has seen no message yet.
    pub(super) fn new(clock: Clock) -> Pace {
        Pace { clock, turns: Mutex::default() }
    }

    /// Waits until the next message may go out. A turn that was given is used up, also if its caller goes away.
    pub(super) async fn turn(&self) {
        let at = {
            let mut turns = self.lock();
            let at = turns.next.max(self.clock.now().mono);
            turns.next = at + GAP;
            at
        };
        self.clock.sleep_until(at).await;
    }

    /// Slack wants no edits for so long. What is posted has a limit of its own.
    pub(super) fn hold_edits(&self, wait: Duration) {
        self.lock().edits = self.clock.now().mono + wait;
    }

    /// Whether Slack has not asked for fewer edits.
    pub(super) fn may_edit(&self) -> bool {
        self.lock().edits <= self.clock.now().mono
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
