//! What a daemon sees that does not decide, said to the one that does: through the store that they share, in its order, and once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::evaluator::Evaluator;
use crate::scheduler::Observation;
use crate::store::postgres::{Relayed, Share};
use crate::store::{Change, Store, StoreError};

/// Observations that are said together at most.
const TOGETHER: usize = 1_024;
/// A store that said no is asked again this often.
const RETRY: Duration = Duration::from_secs(1);
/// While the store says no, so many observations wait in memory; the oldest go first beyond that.
const KEPT: usize = 100_000;
/// Whoever decides asks for what the others saw this often.
const LISTEN: Duration = Duration::from_millis(100);
/// What it asks for at once.
const HEARD: i64 = 1_024;
/// What is not on its way to the one that decides, on the board.
const COMPONENT: &str = "relay";

/// Where it is asked that all that was seen is said; answered when it is.
pub(super) type Flush = oneshot::Sender<()>;

/// Says what this daemon sees.
pub(super) struct Relay {
    pub(super) store: Arc<dyn Store>,
    pub(super) observed: mpsc::Receiver<Observation>,
    pub(super) flushes: mpsc::Receiver<Flush>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
    /// Seen, and not said yet.
    pub(super) unsaid: VecDeque<Change>,
}

impl Relay {
    /// Until nobody sees anything any more; or until `stop`, and gives what is still to be seen to whoever takes over.
    pub(super) async fn run(
        mut self,
        pulse: Arc<Pulse>,
        stop: CancellationToken,
        over: oneshot::Sender<mpsc::Receiver<Observation>>,
    ) {
        let mut seen = Vec::with_capacity(TOGETHER);
        loop {
            let now = self.clock.now().mono;
            pulse.beat(now);
            let mut flush = None;
            let until = now + if self.unsaid.is_empty() { BEAT } else { RETRY };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                received = self.observed.recv_many(&mut seen, TOGETHER) => if received == 0 { break },
                Some(asked) = self.flushes.recv() => flush = Some(asked),
                () = self.clock.sleep_until(until) => {}
            }
            if flush.is_some() {
                // All that was seen before it was asked is here.
                while let Ok(observation) = self.observed.try_recv() {
                    seen.push(observation);
                }
            }
            self.note(&mut seen);
            let is_said = self.say().await;
            if let Some(flush) = flush.filter(|_| is_said) {
                let _ = flush.send(());
            }
        }
        // What is not said by now is lost to whoever decides: its slots are unknown.
        self.say().await;
        self.board.remove_component(COMPONENT);
        let _ = over.send(self.observed);
    }

    fn note(&mut self, seen: &mut Vec<Observation>) {
        for observation in seen.drain(..) {
            match change(&observation) {
                Some(change) => self.unsaid.push_back(change),
                None => tracing::debug!(?observation, "kept to ourselves"),
            }
        }
        let excess = self.unsaid.len().saturating_sub(KEPT);
        if excess > 0 {
            self.unsaid.drain(..excess);
            tracing::error!(excess, "the store has been away for too long: what was seen first is lost");
        }
    }

    /// Whether all of it is said.
    async fn say(&mut self) -> bool {
        while !self.unsaid.is_empty() {
            let together: Vec<_> = self.unsaid.iter().take(TOGETHER).cloned().collect();
            let count = together.len();
            let said = match self.store.apply(together).await {
                // Some of it is another daemon's by now: the rest is said by itself.
                Err(StoreError::Moved(_)) if count > 1 => self.say_one_by_one(count).await,
                Err(StoreError::Moved(journey)) => {
                    tracing::info!(journey, "seen too late: another daemon runs it");
                    self.unsaid.pop_front();
                    Ok(())
                }
                Ok(()) => {
                    self.unsaid.drain(..count);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            let now = self.clock.now().wall;
            match said {
                Ok(()) => self.board.set_component(COMPONENT, true, false, "what is seen is said", now),
                Err(error) => {
                    let said = format!("{} observations wait: {error}", self.unsaid.len());
                    self.board.set_component(COMPONENT, false, false, said, now);
                    return false;
                }
            }
        }
        true
    }

    async fn say_one_by_one(&mut self, count: usize) -> Result<(), StoreError> {
        let mut moved = 0;
        for _ in 0..count {
            let Some(change) = self.unsaid.front() else { break };
            match self.store.apply(vec![change.clone()]).await {
                Ok(()) => {}
                Err(StoreError::Moved(_)) => moved += 1,
                Err(error) => return Err(error),
            }
            self.unsaid.pop_front();
        }
        tracing::info!(observations = moved, "seen too late: other daemons run these journeys");
        Ok(())
    }
}

/// What whoever decides has to hear of it; nothing of what is about this daemon alone.
fn change(observation: &Observation) -> Option<Change> {
    let journey = match observation {
        Observation::TakenUp { journeys, .. } => journeys.first(),
        other => other.journey(),
    };
    let ended = match observation {
        Observation::Finished(report)
        | Observation::Confirmed(report)
        | Observation::Repeated(report)
        | Observation::Asked { report, .. } => Some(report.token),
        _ => None,
    };
    let document = serde_json::to_string(observation).ok()?;
    Some(Change::Relay { journey: journey?.clone(), ended, document })
}

/// What another daemon saw.
fn heard(Relayed { writer, number, document }: Relayed) -> Observation {
    let unread = |error: &serde_json::Error| {
        tracing::warn!(writer, number, %error, "what another daemon saw cannot be read: is it of another version?");
    };
    let what = serde_json::from_str(&document).inspect_err(unread).ok().map(Box::new);
    Observation::Elsewhere { writer, number, what }
}

/// Takes up all that was said before anybody listened.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn catch_up(share: &Share, evaluator: &mut Evaluator) -> Result<(), StoreError> {
    loop {
        let said = share.relayed(HEARD).await?;
        let is_last = i64::try_from(said.len()).unwrap_or(HEARD) < HEARD;
        evaluator.catch_up(said.into_iter().map(heard)).await;
        if is_last {
            return Ok(());
        }
    }
}

/// Hands on what the other daemons saw, until `stop`.
pub(super) async fn listen(
    share: Arc<Share>,
    observations: mpsc::Sender<Observation>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut is_failing = false;
    loop {
        let said = tokio::select! {
            () = stop.cancelled() => return,
            said = share.relayed(HEARD) => said,
        };
        let wait = match said {
            Ok(said) => {
                is_failing = false;
                let is_all = i64::try_from(said.len()).unwrap_or(HEARD) < HEARD;
                for relayed in said {
                    if observations.send(heard(relayed)).await.is_err() {
                        return stop.cancelled().await;
                    }
                }
                match is_all {
                    false => Duration::ZERO,
                    // Nobody says anything, but for what one said that is gone.
                    true if !share.has_others() => RETRY,
                    true => LISTEN,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "what other daemons see cannot be read");
                }
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep_until(clock.now().mono + wait) => {}
        }
    }
}
