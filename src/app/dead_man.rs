//! The switches outside, fed from the tail of the own journey: what they are told, and what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::network::NETWORK;
use crate::app::watcher::{LOOP, STORE};
use crate::board::{BEAT, Board, JourneyStatus};
use crate::boots::Boot;
use crate::clock::Clock;
use crate::config::Plan;
use crate::dead_man::{Caller, DeadManSettings, Pace, Signal};
use crate::delivery;
use crate::journey::outcome::Verdict;
use crate::journey::{Name, own};
use crate::metrics::{DeadManMetrics, Metrics, seconds};
use crate::notifier::null::Tail;
use crate::store::Store;
use crate::time::{Now, between, later};

/// A switch that has not heard from us for so many intervals has called somebody.
const MISSED: u32 = 3;

/// What `/health` calls the journeys without which all is not well.
const REQUIRED: &str = "dead man requires";

/// How the journeys stand that are required.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Required {
    /// The last run of each has passed. So it is, too, where none is required.
    Passed,
    /// One of them has not run, or its last run says nothing: nobody is told that all is well, nor that it is not.
    Unproven(String),
    /// One of them has failed: that is told.
    Failed(String),
}

impl Required {
    /// Of each journey with its last run, if there is one: what it came to, in words too, and whether it is long ago.
    fn of<'a>(last: impl Iterator<Item = (&'a Name, Option<(Verdict, String, bool)>)>) -> Required {
        let mut standing = Required::Passed;
        for (name, last) in last {
            match last {
                Some((Verdict::Failed | Verdict::Late, said, _)) => {
                    return Required::Failed(format!("`{name}`, which is required, failed: {said}"));
                }
                Some((Verdict::Good | Verdict::Slow, _, false)) => {}
                Some((Verdict::Good | Verdict::Slow, _, true)) => {
                    standing = Required::Unproven(format!("`{name}`, which is required, passed too long ago"));
                }
                Some((Verdict::Unknown | Verdict::Excluded, said, _)) => {
                    standing = Required::Unproven(format!("of `{name}`, which is required, nothing is known: {said}"));
                }
                None => standing = Required::Unproven(format!("`{name}`, which is required, has not run yet")),
            }
        }
        standing
    }

    fn said(&self) -> &str {
        match self {
            Required::Passed => "each has passed",
            Required::Unproven(said) | Required::Failed(said) => said,
        }
    }
}

/// The switches outside, fed from the tail of the own journey.
pub(super) struct DeadMan {
    settings: DeadManSettings,
    caller: Caller,
    pace: Pace,
    tails: watch::Receiver<Option<Tail>>,
    metrics: Vec<DeadManMetrics>,
    store: Arc<dyn Store>,
    board: Arc<Board>,
    clock: Clock,
    /// Who is told instead of each notifier.
    fallbacks: BTreeMap<Name, Option<Name>>,
    fingerprint: String,
    boot: Boot,
}

impl DeadMan {
    /// The switches of the plan, if it has any.
    ///
    /// # Errors
    /// In words: why nobody can be called.
    pub(super) fn open(
        plan: &Plan,
        tails: watch::Receiver<Option<Tail>>,
        boot: &Boot,
        metrics: &Metrics,
        store: &Arc<dyn Store>,
        board: &Arc<Board>,
        clock: Clock,
    ) -> Result<Option<DeadMan>, String> {
        let Some(settings) = plan.watcher.dead_man.clone() else { return Ok(None) };
        let now = clock.now();
        for at in 1..=settings.switches.len() {
            let name = component(at);
            board.set_component(&name, true, false, "was not called yet", now.wall);
            board.expect_work(&name, settings.every * MISSED, now.mono);
        }
        Ok(Some(DeadMan {
            caller: Caller::new(plan.redactor.clone(), random_uuid()?)?,
            pace: Pace::new(settings.every),
            metrics: (1..=settings.switches.len()).map(|at| metrics.dead_man(&at.to_string())).collect(),
            fallbacks: plan.notifiers.iter().map(|(name, planned)| (name.clone(), planned.fallback.clone())).collect(),
            fingerprint: plan.parts.fingerprint().to_owned(),
            boot: boot.clone(),
            settings,
            tails,
            store: store.clone(),
            board: board.clone(),
            clock,
        }))
    }

    /// Calls until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut is_tail = false;
        loop {
            let now = self.clock.now();
            let required = self.required(now.wall);
            self.show_required(&required, now.wall);
            let failed = matches!(required, Required::Failed(_)).then(|| required.said().to_owned());
            let trouble = failed.or_else(|| self.trouble(now));
            let is_well = is_tail && required == Required::Passed;
            if let Some(signal) = self.pace.next(is_well, trouble.is_some(), now.mono) {
                self.pace.said(signal, now.mono);
                let call = self.call(signal, trouble.as_deref());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = call => {}
                }
            }
            is_tail = tokio::select! {
                () = stop.cancelled() => return,
                changed = self.tails.changed() => {
                    if changed.is_err() {
                        stop.cancelled().await;
                        return;
                    }
                    self.tails.borrow_and_update().as_ref().is_some_and(Tail::is_whole)
                }
                () = self.clock.sleep_until(self.clock.now().mono + BEAT) => false,
            };
        }
    }

    async fn call(&self, signal: Signal, trouble: Option<&str>) {
        let body = self.body(signal, trouble).await;
        let calls = self.settings.switches.iter().map(|switch| self.caller.call(switch, signal, body.clone()));
        let answers = join_all(calls).await;
        let now = self.clock.now();
        for ((answer, metrics), at) in answers.into_iter().zip(&self.metrics).zip(1..) {
            let name = component(at);
            match answer {
                Ok(()) => {
                    self.board.set_component(&name, true, false, said(signal), now.wall);
                    if signal == Signal::Success {
                        self.board.worked(&name, now);
                        metrics.last_success.set(seconds(now.wall));
                    }
                }
                Err(why) => {
                    tracing::error!(switch = at, %why, "a dead man's switch did not take a call");
                    self.board.set_component(&name, false, false, why, now.wall);
                    metrics.failures.increment(1);
                }
            }
        }
    }

    /// Whether the journeys that are required have passed.
    fn required(&self, now: Timestamp) -> Required {
        let last = |name: &Name| {
            let status = self.board.journey(name)?;
            let last = status.last.clone()?;
            let is_stale = age(&status, now).is_none_or(|age| age >= stale_after(&status, now));
            let verdict = last.beneath.unwrap_or_else(|| last.outcome.verdict());
            Some((verdict, last.verdict_line(), is_stale))
        };
        Required::of(self.settings.requires.iter().map(|name| (name, last(name))))
    }

    fn show_required(&self, required: &Required, now: Timestamp) {
        if !self.settings.requires.is_empty() {
            self.board.set_component(REQUIRED, *required == Required::Passed, false, required.said(), now);
        }
    }

    /// What is wrong that those who are told of everything else may not hear of.
    fn trouble(&self, now: Now) -> Option<String> {
        let components = self.board.components(now.mono, now.wall);
        let bad = |name: &str| components.get(name).filter(|part| !part.ok);
        if let Some(store) = bad(STORE) {
            return Some(format!("the store fails: {}", store.cause.as_deref().unwrap_or_default()));
        }
        if let Some(crashing) = bad(LOOP) {
            return Some(format!("crash loop: {}", crashing.detail));
        }
        if let Some(network) = bad(NETWORK) {
            return Some(network.detail.clone());
        }
        let is_bad = |name: &Name| bad(&delivery::component(name)).is_some_and(|part| part.critical);
        let exhausted = self.fallbacks.keys().find(|name| self.chain(name).iter().all(is_bad))?;
        Some(format!("notices for `{exhausted}` reach nobody: it fails, and so does whoever is told instead"))
    }

    /// The notifier, and who is told instead of it.
    fn chain(&self, first: &Name) -> Vec<Name> {
        let next = |name: &Name| self.fallbacks.get(name).cloned().flatten();
        std::iter::successors(Some(first.clone()), next).take(self.fallbacks.len()).collect()
    }

    async fn body(&self, signal: Signal, trouble: Option<&str>) -> String {
        let now = self.clock.now();
        let journeys = self.board.journeys();
        let ages: Vec<_> =
            journeys.iter().map(|status| (age(status, now.wall), stale_after(status, now.wall))).collect();
        let fresh = ages.iter().filter(|(age, limit)| age.is_some_and(|age| age < *limit)).count();
        let oldest = ages.iter().filter_map(|(age, _)| *age).max();
        let owed = self.store.outbox_summary().await.ok();
        let outbox = owed.map(|owed| {
            let others = owed.iter().filter(|summary| !own::is_own(&summary.notifier));
            others
                .filter_map(|summary| summary.oldest)
                .min()
                .map_or(0.0, |oldest| between(oldest, now.wall).as_secs_f64())
        });
        let body = json!({
            "signal": match signal { Signal::Start => "start", Signal::Success => "success", Signal::Fail => "fail" },
            "trouble": trouble.map_or(Value::Null, Value::from),
            "journeys_enabled": journeys.len(),
            "journeys_fresh": fresh,
            "oldest_verdict_age_seconds": oldest.map(|age| age.as_secs_f64()),
            "outbox_age_seconds": outbox,
            "configuration": self.fingerprint,
            "version": env!("CARGO_PKG_VERSION"),
            "boot": self.boot.id,
            "uptime_seconds": now.mono.0.as_secs(),
        });
        body.to_string()
    }
}

fn component(switch: usize) -> String {
    format!("dead man {switch}")
}

fn said(signal: Signal) -> &'static str {
    match signal {
        Signal::Start => "told that the daemon has started",
        Signal::Success => "told that all is well",
        Signal::Fail => "told that something is wrong",
    }
}

/// How long ago the journey's last verdict is.
fn age(status: &JourneyStatus, now: Timestamp) -> Option<Duration> {
    let last = status.last.as_ref()?;
    Some(between(later(last.started, last.latency), now))
}

fn stale_after(status: &JourneyStatus, now: Timestamp) -> Duration {
    status.journey.schedule.interval(now) * 2 + status.journey.deadline
}

/// A random UUID (RFC 9562, version 4): what Healthchecks takes for a run.
fn random_uuid() -> Result<String, String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_what_is_not_known_is_withheld_and_only_a_fresh_pass_is_one() {
        let names = ["a".into(), "b".into()];
        let of = |last: [Option<(Verdict, bool)>; 2]| {
            let last = last.map(|last| last.map(|(verdict, is_stale)| (verdict, "so".to_owned(), is_stale)));
            Required::of(names.iter().zip(last))
        };
        let passed = Some((Verdict::Good, false));
        assert_eq!(Required::of(std::iter::empty()), Required::Passed, "none is required");
        assert_eq!(of([passed, Some((Verdict::Slow, false))]), Required::Passed);
        for verdict in [Verdict::Failed, Verdict::Late] {
            assert!(matches!(of([None, Some((verdict, false))]), Required::Failed(said) if said.contains("`b`")));
            assert!(matches!(of([Some((verdict, true)), passed]), Required::Failed(_)));
        }
        let unproven =
            [None, Some((Verdict::Unknown, false)), Some((Verdict::Excluded, false)), Some((Verdict::Good, true))];
        for last in unproven {
            assert!(matches!(of([last, passed]), Required::Unproven(said) if said.contains("`a`")));
        }
    }
}
