//! Whether somebody waits for a message: a reader that is told of what comes, and late or never, asks more often while one is awaited.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::time::Mono;

/// Nobody asks more often.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// A message that took twenty times as long is seen by a twentieth of that too late.
const SHARE: u32 = 20;

/// The runs that wait for messages of a channel.
#[derive(Clone, Debug, Default)]
pub struct Awaits(Arc<watch::Sender<Waits>>);

/// What the channel's reader sees of them. By default, nobody ever waits.
#[derive(Clone, Debug)]
pub struct Awaited(watch::Receiver<Waits>);

/// One run that waits, until it is dropped.
#[derive(Debug)]
pub struct Waiting(Arc<watch::Sender<Waits>>);

#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    runs: usize,
    /// When the last of them began to.
    since: Mono,
}

impl Awaits {
    /// A run waits from now on.
    pub fn begin(&self, now: Mono) -> Waiting {
        self.0.send_modify(|waits| *waits = Waits { runs: waits.runs + 1, since: now });
        Waiting(self.0.clone())
    }

    /// For the reader.
    pub fn awaited(&self) -> Awaited {
        Awaited(self.0.subscribe())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|waits| waits.runs = waits.runs.saturating_sub(1));
    }
}

impl Default for Awaited {
    fn default() -> Awaited {
        Awaits::default().awaited()
    }
}

impl Awaited {
    /// How long a reader waits before it asks again; `None` while nobody waits for anything. The longer the last run has waited, the
    /// longer: what is reported is too long by a twentieth at most, or by 20 ms.
    pub fn pause(&self, now: Mono) -> Option<Duration> {
        let Waits { runs, since } = *self.0.borrow();
        (runs > 0).then(|| (now.since(since) / SHARE).max(LEAST_PAUSE))
    }

    /// Returns when another run waits, or one does no longer.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody ever will.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    #[test]
    fn a_reader_asks_while_somebody_waits_and_less_often_the_longer_the_last_has_waited() {
        let awaits = Awaits::default();
        let awaited = awaits.awaited();
        assert_eq!(awaited.pause(at(1_000)), None);
        let first = awaits.begin(at(1_000));
        assert_eq!(awaited.pause(at(1_000)), Some(LEAST_PAUSE));
        assert_eq!(awaited.pause(at(1_400)), Some(LEAST_PAUSE));
        assert_eq!(awaited.pause(at(21_000)), Some(Duration::from_secs(1)));
        let second = awaits.begin(at(21_000));
        assert_eq!(awaited.pause(at(21_000)), Some(LEAST_PAUSE));
        drop(first);
        assert_eq!(awaited.pause(at(31_000)), Some(Duration::from_millis(500)));
        drop(second);
        assert_eq!(awaited.pause(at(31_000)), None);
    }

    #[test]
    fn a_reader_is_woken_by_who_begins_to_wait() {
        let awaits = Awaits::default();
        let mut awaited = awaits.awaited();
        assert!(awaited.changed().now_or_never().is_none());
        let _waiting = awaits.begin(at(0));
        assert!(awaited.changed().now_or_never().is_some());
        assert!(awaited.changed().now_or_never().is_none());
        assert!(Awaited::default().changed().now_or_never().is_none());
    }
}
