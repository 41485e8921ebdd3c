//! Where an objective stands.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::Objective;
use crate::journey::outcome::Verdict;
use crate::slo::{Counts, History, wilson};
use crate::time::later;

/// An error budget, in runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// The objective, in `0..=1`.
    pub objective: f64,
    /// The share achieved, in `0..=1`; `None` before the first valid run.
    pub achieved: Option<f64>,
    /// A 95 % Wilson score interval around it.
    pub interval: Option<(f64, f64)>,
    /// What a whole window's budget is.
    pub total: f64,
    /// Spent so far.
    pub spent: u64,
    /// Burn over the objective's window and over each of [`BURN_WINDOWS`]; 1 spends exactly the budget.
    pub burn: [f64; 4],
    /// When spent budget next comes back.
    pub next_refund: Option<Timestamp>,
    /// When the budget is used up if the last three days go on.
    pub exhausted_at: Option<Timestamp>,
}

impl Budget {
    /// What is left, in runs; negative when overspent.
    pub fn left(&self) -> f64 {
        self.total - self.spent as f64
    }

    /// What is left as a share of the budget; negative when overspent.
    pub fn left_share(&self) -> f64 {
        if self.total > 0.0 { self.left() / self.total } else { 0.0 }
    }
}

/// Where an objective stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloStatus {
    /// The window.
    #[serde(with = "crate::time::micros")]
    pub window: Duration,
    /// What its slots sum to.
    pub counts: Counts,
    /// Share of slots that should have a verdict and have one, in `0..=1`.
    pub coverage: f64,
    /// The mean time between slots of the window, to put runs into minutes.
    #[serde(with = "crate::time::micros")]
    pub interval: Duration,
    /// The *delivered* objective.
    pub delivered: Budget,
    /// The *in budget* objective.
    pub in_budget: Option<Budget>,
}

/// Below this coverage a status says nothing.
pub const SUFFICIENT_COVERAGE: f64 = 0.9;

impl SloStatus {
    /// Whether enough slots have a verdict to judge.
    pub fn is_sufficient(&self) -> bool {
        self.coverage >= SUFFICIENT_COVERAGE && self.counts.valid() > 0
    }

    /// What is left of a budget as time: each run stands for one interval.
    pub fn left_time(&self, budget: &Budget) -> Duration {
        self.interval.mul_f64(budget.left().max(0.0))
    }
}

/// Where `objective` stands at `now`, for a schedule that has `slots` slots a window. [`History::advance`] must have been
/// called for `now`.
pub fn status(history: &History, objective: &Objective, slots: u64, now: Timestamp) -> SloStatus {
    let counts = history.windows[0].counts;
    let slots = slots.max(1);
    let total_slots = slots.saturating_sub(counts.excluded);
    let seen = counts.valid() + counts.unknown;
    let budget = |share: f64, good: fn(&Counts) -> u64, spends: fn(Verdict) -> bool| {
        let bad = |counts: &Counts| counts.valid() - good(counts);
        let mut burn = [0.0; 4];
        for (burn, window) in burn.iter_mut().zip(&history.windows) {
            *burn = burn_rate(bad(&window.counts), window.counts.valid(), share);
        }
        let total = (1.0 - share) * total_slots as f64;
        let left = total - bad(&counts) as f64;
        let spent_a_second = burn[3] * total / objective.window.as_secs_f64();
        let seconds_left = if left > 0.0 && spent_a_second > 0.0 { Some(left / spent_a_second) } else { None };
        Budget {
            objective: share,
            achieved: (counts.valid() > 0).then(|| good(&counts) as f64 / counts.valid() as f64),
            interval: wilson(good(&counts), counts.valid()),
            total,
            spent: bad(&counts),
            burn,
            next_refund: history.next_refund(spends),
            exhausted_at: seconds_left
                .filter(|seconds| *seconds < objective.window.as_secs_f64())
                .map(|seconds| later(now, Duration::from_secs_f64(seconds))),
        }
    };
    SloStatus {
        window: objective.window,
        counts,
        coverage: if seen > 0 { counts.valid() as f64 / seen as f64 } else { 0.0 },
        interval: objective.window / u32::try_from(slots).unwrap_or(u32::MAX),
        delivered: budget(objective.delivered, Counts::delivered, |verdict| {
            matches!(verdict, Verdict::Failed | Verdict::Late)
        }),
        in_budget: objective.in_budget.map(|share| {
            budget(
                share,
                |counts| counts.good,
                |verdict| matches!(verdict, Verdict::Slow | Verdict::Failed | Verdict::Late),
            )
        }),
    }
}

/// (bad ÷ valid) ÷ (1 − objective); zero before the first valid run.
fn burn_rate(bad: u64, valid: u64, objective: f64) -> f64 {
    match (valid, bad) {
        (0, _) | (_, 0) => 0.0,
        // An objective of 100 % has no budget: any failure burns without bound, capped so that it can be drawn.
        _ if objective >= 1.0 => f64::MAX,
        _ => bad as f64 / valid as f64 / (1.0 - objective),
    }
}
