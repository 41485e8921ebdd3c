//! The one place that reads clocks.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::time::{Mono, Now, later};

/// Gives a [`Now`] on demand. Cheap to copy; every copy shares the same origin, so monotonic times compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// With `None` the wall clock is the system's; otherwise it is derived from the monotonic clock, for tests that move time.
    start: Option<Timestamp>,
}

impl Clock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read the monotonic clock")]
    pub fn system() -> Self {
        Clock { origin: Instant::now(), start: None }
    }

    /// A wall clock that starts at `start` and moves only with tokio's (possibly paused) clock.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read the monotonic clock")]
    pub fn derived(start: Timestamp) -> Self {
        Clock { origin: Instant::now(), start: Some(start) }
    }

    /// Both clocks, now.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read both clocks")]
    pub fn now(&self) -> Now {
        let elapsed = self.origin.elapsed();
        let wall = match self.start {
            None => Timestamp::now(),
            Some(start) => later(start, elapsed),
        };
        Now { wall, mono: Mono(elapsed) }
    }

    /// Sleeps until monotonic `at`; returns at once if that has passed.
    pub fn sleep_until(&self, at: Mono) -> Sleep {
        tokio::time::sleep_until(self.instant(at))
    }

    /// `at` as a tokio instant, for timers.
    pub fn instant(&self, at: Mono) -> Instant {
        // A deadline centuries away must not overflow the platform's instant.
        self.origin.checked_add(at.0).unwrap_or_else(|| self.origin + Duration::from_secs(86_400 * 365 * 30))
    }
}
