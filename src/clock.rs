//! The one place that reads clocks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::time::{Mono, Now, later};

/// Gives a [`Now`] on demand. Cheap to copy; every copy shares the same origin, so monotonic times compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall: Wall,
}

/// Where wall-clock time comes from.
#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    /// From the monotonic clock, for tests that move time.
    Derived(Timestamp),
    /// The same, and somebody sets it.
    Steered(Timestamp, &'static Steering),
}

/// How a wall clock goes wrong, for tests that try what comes of that.
#[derive(Debug, Default)]
pub struct Steering {
    /// It is ahead by so many milliseconds.
    pub ahead: AtomicI64,
    /// It gains so many microseconds a second; a million less than nothing, and it stands still.
    pub gains: AtomicI64,
}

impl Steering {
    fn wall(&self, start: Timestamp, elapsed: Duration) -> Timestamp {
        let elapsed = elapsed.as_micros() as i64;
        let gained = i128::from(elapsed) * i128::from(self.gains.load(Ordering::Relaxed)) / 1_000_000;
        let micros = elapsed + gained as i64 + self.ahead.load(Ordering::Relaxed) * 1_000;
        start.saturating_add(jiff::SignedDuration::from_micros(micros)).unwrap_or(Timestamp::MAX)
    }
}

impl Clock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read the monotonic clock")]
    pub fn system() -> Self {
        Clock { origin: Instant::now(), wall: Wall::System }
    }

    /// A wall clock that starts at `start` and moves only with tokio's (possibly paused) clock.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read the monotonic clock")]
    pub fn derived(start: Timestamp) -> Self {
        Clock { origin: Instant::now(), wall: Wall::Derived(start) }
    }

    /// As [`Clock::derived`], with a wall clock that `steering` makes step, stand still, or go too fast.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read the monotonic clock")]
    pub fn steered(start: Timestamp, steering: &'static Steering) -> Self {
        Clock { origin: Instant::now(), wall: Wall::Steered(start, steering) }
    }

    /// Both clocks, now.
    #[expect(clippy::disallowed_methods, reason = "the lawful place to read both clocks")]
    pub fn now(&self) -> Now {
        let elapsed = self.origin.elapsed();
        let wall = match self.wall {
            Wall::System => Timestamp::now(),
            Wall::Derived(start) => later(start, elapsed),
            Wall::Steered(start, steering) => steering.wall(start, elapsed),
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
