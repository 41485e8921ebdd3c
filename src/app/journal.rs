//! Puts arrivals on disk before whoever sent them hears that they are here, and hands them on at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::channel::journal::Noted;
use crate::journey::message::Arrival;
use crate::runner::Runner;
use crate::store::Change;

/// A store that takes so long says no: whoever calls us gives up soon after.
const WITHIN: Duration = Duration::from_secs(2);
/// Arrivals on their way to the disk at once; more wait to be read.
const AT_ONCE: usize = 1_024;
/// What is handed over while we stop may take this long.
const LAST: Duration = Duration::from_secs(1);

/// Works until nobody hands anything over any more. Only what somebody would miss is written: a message of a stranger's costs nothing.
pub(super) async fn keep(
    runner: Arc<Runner>,
    (mut noted, arrivals): (mpsc::Receiver<Noted>, mpsc::Sender<Arrival>),
    stop: CancellationToken,
) {
    let runner = &*runner;
    let mut writing = FuturesUnordered::new();
    let mut last = std::pin::pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    });
    loop {
        tokio::select! {
            biased;
            Some(()) = writing.next(), if !writing.is_empty() => {}
            next = noted.recv(), if writing.len() < AT_ONCE => {
                let Some(Noted { arrival, safe }) = next else { break };
                match runner.switchboard.missed_by(&arrival) {
                    None => {
                        let _ = safe.send(true);
                    }
                    Some((token, is_waited_for)) => {
                        let mut arrival = Box::new(arrival.clone());
                        arrival.message.redact(|text| runner.redactor.redact(text));
                        writing.push(async move {
                            let written = runner.store.apply(vec![Change::Arrived { token, arrival }]);
                            let is_written = tokio::time::timeout(WITHIN, written).await.is_ok_and(|done| done.is_ok());
                            // A run that waits has it. To ask for it again would make a second copy of it.
                            let _ = safe.send(is_written || is_waited_for);
                        });
                    }
                }
                // Whoever matches may have stopped already; then the next start does.
                let _ = arrivals.send(arrival).await;
            }
            () = &mut last => break,
        }
    }
    let _ = tokio::time::timeout(LAST, async { while writing.next().await.is_some() {} }).await;
    drop(arrivals);
    stop.cancelled().await;
}
