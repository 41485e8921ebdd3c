//! The wall clock is set while somebody waits: a wait is as long as it was, whatever the clock says.

use std::time::Duration;

use crate::delivery::Worker;
use crate::time::Now;

/// A wall clock that differs by this much from where the monotonic clock says it should be has stepped.
const STEP: Duration = Duration::from_secs(1);

impl Worker {
    /// Moves what the notifier asked us to wait for along with the wall clock.
    pub(super) fn notice_clock_step(&mut self, now: Now) {
        let step = now.wall.duration_since(self.reference.wall_at(now.mono));
        self.reference = now;
        if step.unsigned_abs() >= STEP {
            self.hold = self.hold.and_then(|until| until.saturating_add(step).ok());
        }
    }
}
