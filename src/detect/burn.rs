//! Budget burn over two windows at once (Google SRE workbook, "Alerting on SLOs"), with an exact gate for few runs.
//!
//! The one-hour pair of the workbook is left out: at one run a minute and 99.9 % it means that any failed run pages. The gate asks
//! whether the failures of the long window could be chance at the burn that is looked for: their one-sided 95 % lower bound
//! (Clopper and Pearson, 1934) must be above it.

use std::time::Duration;

use jiff::Timestamp;

use crate::detect::{Detector, Finding, Severity};
use crate::slo::{Budget, History, SloStatus, is_above};
use crate::time::{Human, between};

/// A pair of windows and the burn that fires it.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The long window: the burn has lasted.
    pub long: Duration,
    /// The short one: it still goes on.
    pub short: Duration,
    /// How many times faster than the objective allows.
    pub factor: f64,
}

const DAY: Duration = Duration::from_secs(86_400);

/// The pairs, the fastest first.
pub const PAIRS: [Pair; 3] = [
    Pair { long: Duration::from_secs(6 * 3_600), short: Duration::from_secs(1_800), factor: 6.0 },
    Pair { long: DAY, short: Duration::from_secs(2 * 3_600), factor: 3.0 },
    Pair { long: Duration::from_secs(3 * 86_400), short: Duration::from_secs(6 * 3_600), factor: 1.0 },
];

/// Fewer failures than these say nothing.
const LEAST_FAILURES: u64 = 3;
/// Used up within this is worth getting up for.
const SOON: Duration = DAY;

/// Bad and valid runs of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Runs that spend budget.
    pub bad: u64,
    /// Runs with a verdict.
    pub valid: u64,
}

impl Tally {
    fn rate(self) -> f64 {
        if self.valid == 0 { 0.0 } else { self.bad as f64 / self.valid as f64 }
    }
}

/// Whether a pair fires: both windows burn faster than its factor, and that is no chance.
pub fn fires(pair: &Pair, long: Tally, short: Tally, allowed: f64) -> bool {
    let threshold = pair.factor * allowed;
    threshold < 1.0
        && long.bad >= LEAST_FAILURES
        && short.rate() > threshold
        && long.rate() > threshold
        && is_above(long.bad, long.valid, threshold)
}

/// What is wrong with a journey's budget. `fired` is what fired before, for its hysteresis.
pub fn findings(history: &History, status: &SloStatus, exhausted_before: bool, now: Timestamp) -> Vec<Finding> {
    let budget = &status.delivered;
    if budget.objective >= 1.0 || !status.is_sufficient() {
        return Vec::new();
    }
    let allowed = 1.0 - budget.objective;
    let tally = |length| {
        let counts = history.window(length);
        Tally { bad: counts.valid() - counts.delivered(), valid: counts.valid() }
    };
    let mut findings = Vec::new();
    for pair in &PAIRS {
        let (long, short) = (tally(pair.long), tally(pair.short));
        if fires(pair, long, short, allowed) {
            let said = format!(
                "budget burns {:.1} times too fast: {} of {} runs failed in {}, {} of {} in the last {} (fires at {} times; no chance at 95 %)",
                long.rate() / allowed,
                long.bad,
                long.valid,
                Human(pair.long),
                short.bad,
                short.valid,
                Human(pair.short),
                pair.factor
            );
            findings.push(Finding::new(Detector::Budget, said));
            break;
        }
    }
    findings.extend(exhausted(status, budget, exhausted_before, now));
    findings
}

/// Five points must be back before it counts as no longer exhausted: one refund and one failure are not two incidents.
const BACK: f64 = 0.05;

fn exhausted(status: &SloStatus, budget: &Budget, before: bool, now: Timestamp) -> Option<Finding> {
    // Below ten runs of budget one failure is a tenth of it: the load-time lint has said so.
    let left = budget.left_share();
    let is_gone = budget.spent >= LEAST_FAILURES && (left <= 0.0 || (before && left < BACK));
    if is_gone {
        let said = format!(
            "the error budget is used up: {} bad runs, {:.1} allowed in {}",
            budget.spent,
            budget.total,
            Human(status.window)
        );
        return Some(Finding::new(Detector::Exhausted, said));
    }
    let until = budget
        .exhausted_at
        .filter(|_| budget.burn.last().is_some_and(|burn| *burn > 1.0) && budget.spent >= LEAST_FAILURES)?;
    let within = between(now, until);
    (within < SOON).then(|| Finding {
        detector: Detector::Exhausted,
        severity: Severity::Critical,
        said: format!(
            "the error budget will be used up in {} at the rate of the last {}",
            Human(within),
            Human(DAY * 3)
        ),
    })
}
