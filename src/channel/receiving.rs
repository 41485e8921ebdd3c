//! What every reader does: connect, prove itself ready, read, and begin again when the connection ends.

use std::time::Duration;

use crate::channel::{Listener, Readiness, seen};
use crate::time::Human;

/// Connects by `open` and reads by `read` until told to stop. Ready from the end of `open` to the end of `read`; both say in
/// words why they ended. `read` ends with `Ok` only when told to stop.
pub(crate) async fn keep_receiving<S, O, R>(
    listener: &Listener,
    mut open: impl FnMut() -> O,
    mut read: impl FnMut(S) -> R,
) where
    O: Future<Output = Result<S, String>>,
    R: Future<Output = Result<(), String>>,
{
    let mut failures = 0;
    loop {
        let ended = tokio::select! {
            biased;
            () = listener.stop.cancelled() => return,
            opened = async {
                seen::forget();
                open().await
            } => match opened {
                Ok(subscription) => {
                    tracing::info!(channel = %listener.channel, "receiving");
                    failures = 0;
                    listener.readiness.send_replace(Readiness::Ready);
                    // Not cut short: it heeds `stop` by itself, and says goodbye.
                    read(subscription).await
                }
                Err(why) => Err(why),
            },
        };
        let Err(why) = ended else { return };
        let pause = backoff(failures, fastrand::f64());
        failures += 1;
        tracing::warn!(channel = %listener.channel, %why, retry_in = %Human(pause), "cannot receive");
        listener.readiness.send_replace(Readiness::Down { why });
        tokio::select! {
            biased;
            () = listener.stop.cancelled() => return,
            () = async {
                // Whoever asks for it, a server that is down is not called again at once.
                tokio::time::sleep(pause.min(LEAST_PAUSE)).await;
                listener.nudge.notified().await;
            } => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Says that the channel cannot receive, and why, until told to stop: for settings that lack what receiving needs.
pub(crate) async fn never_receives(listener: &Listener, why: &str) {
    listener.readiness.send_replace(Readiness::Down { why: why.to_owned() });
    listener.stop.cancelled().await;
}

/// Between two attempts of one reader.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// How long to wait after so many failures in a row: 0.5 s, then three times as long each time, at most a minute; spread by
/// a quarter either way, so that many daemons do not come back to a restarted broker together.
fn backoff(failures: u32, chance: f64) -> Duration {
    let seconds = (0.5 * 3f64.powi(failures.min(10) as i32)).min(60.0);
    Duration::from_secs_f64(seconds * (0.75 + chance / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_connection_met_is_forgotten() {
        use std::sync::Arc;

        use crate::channel::seen::{Notes, note};
        use crate::journey::seen::{What, find};
        let (arrivals, _taken) = tokio::sync::mpsc::channel(1);
        let listener = Listener {
            channel: "orders".into(),
            clock: crate::clock::Clock::system(),
            arrivals,
            journal: Default::default(),
            since: None,
            readiness: tokio::sync::watch::channel(Readiness::Starting).0,
            mint: Arc::new(crate::journey::token::Mint::new([1; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: tokio_util::sync::CancellationToken::new(),
        };
        let notes = Notes::default();
        let mut attempt = 0;
        let open = || {
            attempt += 1;
            let what = if attempt == 1 { What::Banner } else { What::Peer };
            async move {
                note(what, "met");
                Ok::<_, String>(what)
            }
        };
        let read = |what| {
            let stop = &listener.stop;
            async move {
                if what == What::Banner {
                    return Err("it ended".to_owned());
                }
                stop.cancel();
                Ok(())
            }
        };
        notes.over(keep_receiving(&listener, open, read)).await;
        let seen = notes.seen();
        assert_eq!((find(&seen, What::Banner), find(&seen, What::Peer)), (None, Some("met")));
    }

    #[test]
    fn pauses_grow_by_three_up_to_a_minute_and_are_spread() {
        let pauses: Vec<_> = (0..7).map(|failures| backoff(failures, 0.5).as_secs_f64()).collect();
        assert_eq!(pauses, [0.5, 1.5, 4.5, 13.5, 40.5, 60.0, 60.0]);
        assert_eq!(backoff(0, 0.0), Duration::from_millis(375));
        assert_eq!(backoff(u32::MAX, 1.0), Duration::from_secs(75));
    }
}
