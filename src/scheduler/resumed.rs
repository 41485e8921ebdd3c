//! Runs that the process before began: each in its journey's own turn, told in the order of their slots. One of which nothing can be
//! known any more is made again, once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use super::{Hands, Observation, Scheduler, Turn, confirm, end_turn};
use crate::control::AskedRun;
use crate::journey::outcome::{Outcome, UnknownWhy};
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Purpose;
use crate::journey::{Journey, Name};
use crate::runner::Order;
use crate::runner::resume::Left;

impl Scheduler {
    /// Goes on with what the process before left behind.
    pub(super) fn take_up(&mut self) {
        let left = std::mem::take(&mut self.left);
        self.go_on_with(left);
    }

    /// Goes on with runs that somebody else began, each in its journey's turn.
    pub(super) fn go_on_with(&mut self, left: Vec<Left>) {
        let mut by_journey: BTreeMap<Name, Vec<Left>> = BTreeMap::new();
        for left in left {
            by_journey.entry(left.journey.name.clone()).or_default().push(left);
        }
        for (name, left) in by_journey {
            let Some(entry) = self.entries.iter().find(|entry| entry.journey.name == name) else { continue };
            tracing::info!(journey = %name, runs = left.len(), "going on with what the process before left");
            for run in left.iter().filter_map(asked) {
                self.board.set_asked(run);
            }
            Turn::hold(&entry.turn);
            let (hands, journey, turn) = (entry.hands.clone(), entry.journey.clone(), entry.turn.clone());
            let is_free = !self.spending.is_limited(&name);
            let runs = hands.runs.clone();
            runs.spawn(async move {
                if go_on(&hands, &journey, &turn, left, is_free).await {
                    end_turn(&hands, &journey, &turn).await;
                }
            });
        }
    }
}

fn asked(left: &Left) -> Option<AskedRun> {
    let Purpose::Asked { by } = &left.checkpoint.purpose else { return None };
    let (token, at) = (left.checkpoint.token, left.checkpoint.slot);
    Some(AskedRun { journey: left.journey.name.clone(), token, by: by.clone(), at })
}

/// Goes on with a journey's runs, and tells how they end; `false` if one is left to the next process. They take no permits: they
/// had them, and what most of them still do is wait.
async fn go_on(hands: &Hands, journey: &Arc<Journey>, turn: &Mutex<Turn>, left: Vec<Left>, is_free: bool) -> bool {
    let runs = left.into_iter().map(|left| async move {
        let (purpose, asked) = (left.checkpoint.purpose.clone(), asked(&left));
        (purpose, asked, hands.go_on(left).await)
    });
    hands.metrics.in_flight.increment(runs.len() as f64);
    let ended = join_all(runs).await;
    hands.metrics.in_flight.decrement(ended.len() as f64);
    let (mut has_news, mut is_lost) = (None, None);
    for (purpose, asked, report) in ended {
        // What is left, and what came after it, is told by the next process: slots count in their order.
        let Some(report) = report else { return false };
        let slot = report.slot;
        let told = match (purpose, asked) {
            (Purpose::Slot, _) => {
                is_lost = (report.outcome == Outcome::Unknown { why: UnknownWhy::Restart }).then_some(slot);
                has_news = hands.tell_first_failure(turn, report, is_free, Observation::Finished).await.then_some(slot);
                continue;
            }
            (Purpose::Asked { .. }, Some(run)) => Observation::Asked { report: Box::new(report), run },
            (Purpose::Repetition, _) => Observation::Repeated(Box::new(report)),
            (Purpose::Confirmation | Purpose::Asked { .. }, _) => Observation::Confirmed(Box::new(report)),
        };
        let _ = hands.observations.send(told).await;
    }
    if let Some(slot) = is_lost.filter(|_| is_free && !hands.closing.is_cancelled()) {
        let Some(repeated) = repeat(hands, journey, slot).await else { return false };
        has_news = hands.tell_first_failure(turn, repeated, is_free, Observation::Repeated).await.then_some(slot);
    }
    if let Some(slot) = has_news {
        confirm(hands, journey, slot).await;
    }
    true
}

/// One run in the place of one of which a restart left nothing to know. `None` if it is left to the next process.
async fn repeat(hands: &Hands, journey: &Arc<Journey>, slot: jiff::Timestamp) -> Option<Report> {
    let _permits = hands.permits.wait(journey.critical).await;
    tracing::info!(journey = %journey.name, %slot, "running again what a restart left unknown");
    let order = hands.runner.order(journey.clone(), slot);
    hands.make(Order { purpose: Purpose::Repetition, ..order }).await
}

impl Hands {
    /// Goes on with a run, whatever comes between. `None` if it is left to the next process.
    async fn go_on(&self, left: Left) -> Option<Report> {
        let (journey, token, slot) = (left.journey.clone(), left.checkpoint.token, left.checkpoint.slot);
        self.whatever_comes(journey, token, slot, self.runner.resume(left, self.ends())).await
    }
}

impl Turn {
    /// Takes the turn, which nobody has yet.
    fn hold(turn: &Mutex<Turn>) {
        turn.lock().unwrap_or_else(PoisonError::into_inner).is_running = true;
    }
}
