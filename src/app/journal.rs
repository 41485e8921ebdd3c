//! Puts arrivals on disk before whoever sent them hears that they are here, and hands them on at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::channel::journal::Noted;
use crate::journey::message::Arrival;
use crate::journey::token::Token;
use crate::runner::Runner;
use crate::store::Change;

/// A store that takes so long says no: whoever calls us gives up soon after.
const WITHIN: Duration = Duration::from_secs(2);
/// Arrivals on their way to the disk at once; more wait to be read.
const AT_ONCE: usize = 1_024;
/// What is handed over while we stop may take this long.
const LAST: Duration = Duration::from_secs(1);

/// Whose run of another daemon an arrival may be for.
pub(super) fn elsewhere(runner: &Runner, arrival: &Arrival) -> Option<Token> {
    runner.store.is_shared().then(|| runner.switchboard.missed_elsewhere(arrival)).flatten()
}

/// Puts an arrival on disk, without what is secret in it; whether it is there.
pub(super) fn write<'a>(
    runner: &'a Runner,
    token: Token,
    arrival: &Arrival,
) -> impl Future<Output = bool> + Send + use<'a> {
    let mut arrival = Box::new(arrival.clone());
    arrival.message.redact(|text| runner.redactor.redact(text));
    let written = runner.write(vec![Change::Arrived { token, arrival }]);
    async { tokio::time::timeout(WITHIN, written).await.is_ok_and(|done| done.is_ok()) }
}

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
                let here = runner.switchboard.missed_by(&arrival);
                match here.or_else(|| Some((elsewhere(runner, &arrival)?, false))) {
                    None => {
                        let _ = safe.send(true);
                    }
                    Some((token, is_waited_for)) => {
                        let written = write(runner, token, &arrival);
                        writing.push(async move {
                            let is_written = written.await;
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
