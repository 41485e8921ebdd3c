//! Watches a channel's breaker and its pace: shows them, and says when the breaker is open, when people are to be told, and when it is
//! over.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::breaker::Guarded;
use crate::clock::Clock;
use crate::runner::gate::Gate;
use crate::runner::open::OpenChannel;
use crate::scheduler::Observation;
use crate::time::Mono;

/// Until `stop`.
pub(super) async fn watch(
    open: Arc<OpenChannel>,
    board: Arc<Board>,
    observations: mpsc::Sender<Observation>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut lever = open.gate().map(Gate::lever);
    // Nothing yet: the daemon before may have told that it was down, and only a call that works says that it is not.
    let mut said = None;
    if let Some(gate) = open.gate() {
        gate.show();
    }
    loop {
        let mut next = open.slowness().1;
        if let Some(gate) = open.gate() {
            let look = gate.look();
            next = next.into_iter().chain(look.next).min();
            open.set_breaker_down(look.trouble.is_some());
            board.set_breaker(&Guarded::Channel(open.name.clone()), look.status, clock.now().wall);
            // If it only observes since a reload, the evaluator knows that.
            let standing = open.refuses().then_some((look.is_open, look.trouble.is_some()));
            said = said.filter(|_| standing.is_some());
            if look.is_known && said != standing {
                said = standing;
                let channel = open.name.clone();
                let breaking = Observation::Breaking { channel, is_open: look.is_open, trouble: look.trouble };
                // The evaluator outlives this task; if it is gone, so is whoever could be told.
                let _ = observations.send(breaking).await;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = open.changed() => {}
            Some(Ok(())) = async { Some(lever.as_mut()?.changed().await) } => {}
            () = until(clock, next) => {}
        }
    }
}

async fn until(clock: Clock, at: Option<Mono>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
