//! Failures as they come, and policies that make calls of them. Chance is seeded: the same figures every time.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use journeyman::config;
use journeyman::detect::{Detector, Sample, Severity};
use journeyman::incident::NotifyReason;
use journeyman::incident::root::ResourceKind;
use journeyman::journey::Journey;
use journeyman::journey::outcome::{Cause, Verdict};
use journeyman::replay::{Happened, Replay, Told};
use journeyman::time::later;

/// What a policy does with a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Somebody gets up: something is down, or loses messages.
    pub(crate) pages: u32,
    /// Somebody gets up because of the budget.
    pub(crate) budget_pages: u32,
    /// Somebody looks at it today.
    pub(crate) tickets: u32,
    /// What somebody was told of is over.
    pub(crate) resolved: u32,
}

/// Something that sees one run after another.
pub(crate) trait Policy {
    /// Takes the run of this slot.
    fn run(&mut self, slot: Timestamp, failed: bool) -> Calls;
    /// The runs that confirm a failure, so long after it.
    fn confirmations(&self) -> Vec<Duration> {
        Vec::new()
    }
    /// Takes the run that confirms the one of this slot.
    fn confirm(&mut self, _slot: Timestamp, _failed: bool, _now: Timestamp) -> Calls {
        Calls::default()
    }
}

/// How often it runs, and what it promises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Seconds between slots.
    pub(crate) every: u64,
    /// The objective, as it is written.
    pub(crate) objective: &'static str,
}

/// What the daemon would do.
pub(crate) struct Ours {
    replay: Replay,
    confirm: Vec<Duration>,
}

impl Ours {
    /// With the defaults of the configuration, and these confirmations.
    pub(crate) fn new(schedule: Schedule, confirm: &[u64]) -> Ours {
        let Schedule { every, objective } = schedule;
        let text = format!(
            "[notifiers.people]\ntype = \"webhook\"\nurl = \"https://alerts.example.org/\"\n\
             [[journey]]\nname = \"j\"\nevery = \"{every}s\"\nnotify = [\"people\"]\nobjective = {{ delivered = \"{objective}\" }}\n\
             [[journey.step]]\nrequest = \"https://www.example.org/\"\n"
        );
        let (plan, _) = config::load_text("bench.toml", &text, &[], std::path::Path::new("."))
            .unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
        let mut journey: Journey = (*plan.journeys[0]).clone();
        let confirm: Vec<_> = confirm.iter().map(|seconds| Duration::from_secs(*seconds)).collect();
        journey.alert.confirm.clone_from(&confirm);
        // Verdicts are the matter here; latencies have a model of their own.
        journey.alert.drift = false;
        let journeys = [Arc::new(journey)];
        Ours { replay: Replay::new(&journeys, None, Vec::new(), ResourceKind::ALL, start()), confirm }
    }

    /// What people were told, for whoever wants more than its number.
    pub(crate) fn told(&mut self, slot: Timestamp, failed: bool, is_confirmation: bool, now: Timestamp) -> Vec<Told> {
        let (verdict, cause) = if failed { (Verdict::Failed, Some(Cause::NotReceived)) } else { (Verdict::Good, None) };
        let sample = Sample { slot, verdict, cause, is_confirmation };
        self.replay.take("j", Happened::Run { sample, latency: Duration::ZERO, blamed: None }, now)
    }
}

impl Policy for Ours {
    fn run(&mut self, slot: Timestamp, failed: bool) -> Calls {
        calls(self.told(slot, failed, false, slot))
    }

    fn confirmations(&self) -> Vec<Duration> {
        let is_firing = self.replay.alerts("j").is_some_and(|alerts| alerts.health.phase.is_firing());
        if is_firing { Vec::new() } else { self.confirm.clone() }
    }

    fn confirm(&mut self, slot: Timestamp, failed: bool, now: Timestamp) -> Calls {
        calls(self.told(slot, failed, true, now))
    }
}

fn calls(told: Vec<Told>) -> Calls {
    let mut calls = Calls::default();
    for told in told {
        let is_health = told.detectors.contains(&Detector::Down) || told.detectors.contains(&Detector::Partial);
        match told.reason {
            NotifyReason::First | NotifyReason::Worse if told.severity == Severity::Critical && is_health => {
                calls.pages += 1;
            }
            NotifyReason::First | NotifyReason::Worse if told.severity == Severity::Critical => calls.budget_pages += 1,
            NotifyReason::First => calls.tickets += 1,
            NotifyReason::Resolved => calls.resolved += 1,
            NotifyReason::Worse | NotifyReason::Repeat | NotifyReason::Updated => {}
        }
    }
    calls
}

/// Where virtual time begins.
pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("it is in range")
}

/// The share of failed confirmations after a failure that was only a blip.
const REPEATS: f64 = 0.2;

/// One policy's life: slots one after another.
pub(crate) struct World<'a> {
    policy: &'a mut dyn Policy,
    every: Duration,
    slot: Timestamp,
    rng: Rng,
}

impl<'a> World<'a> {
    /// Begins.
    pub(crate) fn new(policy: &'a mut dyn Policy, schedule: Schedule, seed: u64) -> World<'a> {
        World { policy, every: Duration::from_secs(schedule.every), slot: start(), rng: Rng::with_seed(seed) }
    }

    /// The next slot, which fails with this probability: `blip` of its own, `loss` because something is broken. Gives whether it
    /// failed, what followed, and how long after the slot.
    pub(crate) fn step(&mut self, blip: f64, loss: f64) -> (bool, Calls, Duration) {
        self.slot = later(self.slot, self.every);
        let is_lost = self.rng.f64() < loss;
        let failed = is_lost || self.rng.f64() < blip;
        let mut calls = self.policy.run(self.slot, failed);
        let mut after = Duration::ZERO;
        if failed && calls == Calls::default() {
            for wait in self.policy.confirmations() {
                let again = self.rng.f64() < if is_lost { loss.max(REPEATS) } else { REPEATS };
                calls = self.policy.confirm(self.slot, again, later(self.slot, wait));
                after = wait;
                if !again || calls.pages > 0 {
                    break;
                }
            }
        }
        (failed, calls, after)
    }
}

/// A count over so many stretches of thirty days.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// How often it happened.
    pub(crate) count: u64,
    /// In how many times thirty days.
    pub(crate) months: f64,
}

impl Rate {
    /// A month's.
    pub(crate) fn a_month(self) -> f64 {
        self.count as f64 / self.months
    }

    /// The 95 % interval of a Poisson rate, by Byar's approximation.
    pub(crate) fn interval(self) -> (f64, f64) {
        let bound = |k: f64, z: f64| k * (1.0 - 1.0 / (9.0 * k) + z / (3.0 * k.sqrt())).powi(3);
        let low = if self.count == 0 { 0.0 } else { bound(self.count as f64, -1.96) };
        (low / self.months, bound(self.count as f64 + 1.0, 1.96) / self.months)
    }
}

/// What a healthy system with blips leads to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Healthy {
    /// Calls for nothing.
    pub(crate) pages: Rate,
    /// Calls because of the budget.
    pub(crate) budget_pages: Rate,
    /// Tickets.
    pub(crate) tickets: Rate,
}

/// Lives through so many days in which nothing is broken.
pub(crate) fn healthy(policy: &mut dyn Policy, schedule: Schedule, blip: f64, days: u64, seed: u64) -> Healthy {
    let mut world = World::new(policy, schedule, seed);
    let mut healthy = Healthy::default();
    for _ in 0..days * 86_400 / schedule.every {
        let (_, calls, _) = world.step(blip, 0.0);
        healthy.pages.count += u64::from(calls.pages);
        healthy.budget_pages.count += u64::from(calls.budget_pages);
        healthy.tickets.count += u64::from(calls.tickets);
    }
    for rate in [&mut healthy.pages, &mut healthy.budget_pages, &mut healthy.tickets] {
        rate.months = days as f64 / 30.0;
    }
    healthy
}

/// From what is broken to the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detection {
    /// From the first slot in which it was broken.
    pub(crate) after: Duration,
    /// Runs after the first that failed.
    pub(crate) runs: u64,
}

/// Blips while nothing is broken, in trials of detection.
const BLIPS: f64 = 0.0005;

/// Breaks after a healthy day of blips; gives when somebody was called, unless nobody was within `patience`. `is_ticket` is to take
/// any call.
pub(crate) fn detect(
    policy: &mut dyn Policy,
    schedule: Schedule,
    loss: f64,
    patience: Duration,
    is_ticket: bool,
    seed: u64,
) -> Option<Detection> {
    let mut world = World::new(policy, schedule, seed);
    for _ in 0..86_400 / schedule.every {
        world.step(BLIPS, 0.0);
    }
    let mut since_failure: Option<u64> = None;
    for slot in 0..(patience.as_secs() / schedule.every) as u32 {
        let (failed, calls, after) = world.step(BLIPS, loss);
        since_failure = since_failure.map(|runs| runs + 1).or(failed.then_some(0));
        if calls.pages > 0 || is_ticket && calls.tickets + calls.budget_pages > 0 {
            let after = Duration::from_secs(schedule.every) * slot + after;
            return Some(Detection { after, runs: since_failure.unwrap_or(0) });
        }
    }
    None
}

/// From the last bad slot to the message that it is over, after it was broken for `hours`.
pub(crate) fn recover(
    policy: &mut dyn Policy,
    schedule: Schedule,
    loss: f64,
    hours: u64,
    seed: u64,
) -> Option<Duration> {
    let mut world = World::new(policy, schedule, seed);
    let mut open = 0;
    let mut last_bad = 0;
    for slot in 0..(hours * 3_600 / schedule.every) as i64 {
        let (failed, calls, _) = world.step(0.0, loss);
        last_bad = if failed { slot } else { last_bad };
        open += calls.pages + calls.budget_pages + calls.tickets;
        open = open.saturating_sub(calls.resolved);
    }
    let told = (hours * 3_600 / schedule.every) as i64;
    // The budget's own incident may go on for weeks; of health it is the first message that it is over.
    for slot in told..told + (7 * 86_400 / schedule.every) as i64 {
        let (_, calls, _) = world.step(0.0, 0.0);
        if open > 0 && calls.resolved > 0 {
            return Some(Duration::from_secs(schedule.every) * (slot - last_bad) as u32);
        }
    }
    None
}

/// What is broken for `days`, so many slots in a row at a time: how often somebody is called, told that it is over, and sent a ticket.
pub(crate) fn endure(
    policy: &mut dyn Policy,
    schedule: Schedule,
    pattern: &dyn Fn(u64) -> f64,
    days: u64,
    seed: u64,
) -> Calls {
    let mut world = World::new(policy, schedule, seed);
    let mut sum = Calls::default();
    for slot in 0..days * 86_400 / schedule.every {
        let (_, calls, _) = world.step(0.0, pattern(slot));
        sum.pages += calls.pages;
        sum.budget_pages += calls.budget_pages;
        sum.tickets += calls.tickets;
        sum.resolved += calls.resolved;
    }
    sum
}

/// The median and the 90th percentile.
pub(crate) fn quantiles<T: Copy + Ord>(mut values: Vec<T>) -> Option<(T, T)> {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 - 1.0) * share).round().max(0.0) as usize).copied();
    Some((at(0.5)?, at(0.9)?))
}
