//! Where an objective stands: what was achieved and how sure that is, what budget is left, how fast it goes, when it comes back.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::objective::{Objective, Window};
use crate::journey::outcome::{Verdict, labelled};
use crate::slo::history::Kept;
use crate::slo::{BURN_WINDOWS, Counts, History, Sli, clopper_pearson, wilson};
use crate::time::{between, later};

/// The objective's window and each of [`BURN_WINDOWS`].
pub const BURNS: usize = BURN_WINDOWS.len() + 1;
/// Below this coverage a status says nothing.
pub const SUFFICIENT_COVERAGE: f64 = 0.9;

labelled! {
    /// What can be said about an objective.
    Standing {
        /// It is kept: the whole interval lies above it.
        Met = "met",
        /// It is not kept: the whole interval lies below it.
        Missed = "missed",
        /// The interval straddles it: with so few runs it may be chance on either side.
        NotEnoughRuns = "not_enough_runs",
        /// Too many slots have no verdict.
        Insufficient = "insufficient",
    }
}

/// An error budget, in runs and in time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// The objective, in `0..=1`.
    pub objective: f64,
    /// What can be said about it.
    pub standing: Standing,
    /// Runs with a verdict.
    pub valid: u64,
    /// The share achieved, in `0..=1`; `None` before the first valid run.
    pub achieved: Option<f64>,
    /// A 95 % Wilson score interval around it.
    pub interval: Option<(f64, f64)>,
    /// What the share would be if every unknown slot had been bad, and if every one had been good.
    pub bounds: Option<(f64, f64)>,
    /// What a whole window's budget is, in runs.
    pub total: f64,
    /// Runs spent so far.
    pub spent: u64,
    /// What a whole window's budget is, in time.
    #[serde(with = "crate::time::micros")]
    pub total_time: Duration,
    /// Time spent so far: each bad run claims the time until the next one.
    #[serde(with = "crate::time::micros")]
    pub spent_time: Duration,
    /// Burn over the objective's window and over each of [`BURN_WINDOWS`]; 1 spends exactly the budget.
    pub burn: [f64; BURNS],
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

    /// What is left, in time; none when overspent.
    pub fn left_time(&self) -> Duration {
        self.total_time.saturating_sub(self.spent_time)
    }

    /// The 95 % Clopper-Pearson interval around what was achieved. Worked out when asked for: it costs more than all the rest.
    pub fn exact_interval(&self) -> Option<(f64, f64)> {
        clopper_pearson(self.valid - self.spent, self.valid)
    }
}

/// One view of a window: with maintenance left out, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What its slots sum to.
    pub counts: Counts,
    /// Share of slots that should have a verdict and have one, in `0..=1`.
    pub coverage: f64,
    /// The *delivered* objective.
    pub delivered: Budget,
    /// The *in budget* objective.
    pub in_budget: Option<Budget>,
}

/// Where an objective stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloStatus {
    /// How long the window is.
    #[serde(with = "crate::time::micros")]
    pub window: Duration,
    /// The window in words.
    pub window_name: String,
    /// Its first moment, and its end: now for a rolling window, the end of the period for a calendar's.
    pub bounds: (Timestamp, Timestamp),
    /// What its slots sum to.
    pub counts: Counts,
    /// Share of slots that should have a verdict and have one, in `0..=1`.
    pub coverage: f64,
    /// The mean time between slots of the window.
    #[serde(with = "crate::time::micros")]
    pub interval: Duration,
    /// The *delivered* objective.
    pub delivered: Budget,
    /// The *in budget* objective.
    pub in_budget: Option<Budget>,
    /// The same without any corrections: every run in maintenance as what it was. `None` while that is no other.
    pub without_corrections: Option<Box<Score>>,
}

impl SloStatus {
    /// Whether enough slots have a verdict to judge.
    pub fn is_sufficient(&self) -> bool {
        is_sufficient(self.coverage, &self.counts)
    }

    /// What is left of a budget as time.
    pub fn left_time(&self, budget: &Budget) -> Duration {
        budget.left_time()
    }

    /// The budgets by what they are of.
    pub fn budgets(&self) -> impl Iterator<Item = (Sli, &Budget)> {
        std::iter::once((Sli::Delivered, &self.delivered))
            .chain(self.in_budget.as_ref().map(|budget| (Sli::InBudget, budget)))
    }
}

fn is_sufficient(coverage: f64, counts: &Counts) -> bool {
    coverage >= SUFFICIENT_COVERAGE && counts.valid() > 0
}

/// Where `objective` stands at `now`, for a schedule that has `slots` slots in the window that now lies in.
/// [`History::advance`] must have been called for `now`.
pub fn status(history: &History, objective: &Objective, slots: u64, now: Timestamp) -> SloStatus {
    let view = View { history, objective, slots: slots.max(1), now, length: objective.window.length(now) };
    let Score { counts, coverage, delivered, in_budget } = view.score(true);
    let without_corrections = history.windows[0].tally.is_corrected().then(|| Box::new(view.score(false)));
    SloStatus {
        window: view.length,
        window_name: objective.window.to_string(),
        bounds: objective.window.bounds(now),
        counts,
        coverage,
        interval: view.length / u32::try_from(view.slots).unwrap_or(u32::MAX),
        delivered,
        in_budget,
        without_corrections,
    }
}

/// What a score is made from.
struct View<'a> {
    history: &'a History,
    objective: &'a Objective,
    /// Slots of the whole window.
    slots: u64,
    now: Timestamp,
    length: Duration,
}

impl View<'_> {
    fn kept(&self) -> &Kept {
        &self.history.windows[0]
    }

    fn score(&self, is_corrected: bool) -> Score {
        let counts = self.kept().tally.counts(is_corrected);
        let seen = counts.valid() + counts.unknown;
        let coverage = if seen > 0 { counts.valid() as f64 / seen as f64 } else { 0.0 };
        let budget = |sli, share| self.budget(sli, share, &counts, coverage, is_corrected);
        Score {
            counts,
            coverage,
            delivered: budget(Sli::Delivered, self.objective.delivered),
            in_budget: self.objective.in_budget.map(|share| budget(Sli::InBudget, share)),
        }
    }

    fn budget(&self, sli: Sli, share: f64, counts: &Counts, coverage: f64, is_corrected: bool) -> Budget {
        let is_bad = |verdict| sli.is_bad(verdict, self.objective.late_is_good);
        let bad_of = |counts: &Counts| counts.bad(sli, self.objective.late_is_good);
        let (valid, spent) = (counts.valid(), bad_of(counts));
        let (good, seen) = (valid - spent, valid + counts.unknown);
        let mut burn = [0.0; BURNS];
        for (burn, kept) in burn.iter_mut().zip(&self.history.windows) {
            let counts = kept.tally.counts(is_corrected);
            *burn = burn_rate(bad_of(&counts), counts.valid(), share);
        }
        let total = (1.0 - share) * self.slots.saturating_sub(counts.excluded) as f64;
        let excluded = self.kept().tally.time(is_corrected, |verdict| verdict == Verdict::Excluded);
        let interval = wilson(good, valid);
        let spent_time = self.kept().tally.time(is_corrected, is_bad) + self.open_time(is_bad, is_corrected);
        let oldest = self.history.oldest(is_corrected, is_bad);
        Budget {
            objective: share,
            standing: standing(interval, share, is_sufficient(coverage, counts)),
            valid,
            achieved: (valid > 0).then(|| good as f64 / valid as f64),
            interval,
            bounds: (seen > 0).then(|| (good as f64 / seen as f64, (good + counts.unknown) as f64 / seen as f64)),
            total,
            spent,
            total_time: self.length.saturating_sub(excluded).mul_f64(1.0 - share),
            spent_time,
            burn,
            next_refund: oldest.and_then(|slot| self.refund(slot)),
            exhausted_at: self.exhausted(total, spent, burn[BURNS - 1]),
        }
    }

    /// What the last slot has claimed so far, if it was bad: nobody knows yet when the next one comes.
    fn open_time(&self, is_bad: impl Fn(Verdict) -> bool, is_corrected: bool) -> Duration {
        let last = self.history.last().filter(|(slot, verdict, excluded)| {
            *slot > self.kept().tail && is_bad(*verdict) && !(is_corrected && *excluded)
        });
        let since = last.and_then(|(slot, ..)| Timestamp::from_millisecond(slot).ok());
        since.map_or(Duration::ZERO, |since| between(since, self.now))
    }

    /// When the oldest slot that spends budget leaves the window. A calendar gives all of it back at once.
    fn refund(&self, oldest: i64) -> Option<Timestamp> {
        match &self.objective.window {
            Window::Rolling(length) => Some(later(Timestamp::from_millisecond(oldest).ok()?, *length)),
            Window::Calendar(period) => Some(period.bounds(self.now).1),
        }
    }

    /// When nothing is left at the rate of the last three days, if that is before the window has gone by.
    fn exhausted(&self, total: f64, spent: u64, burn: f64) -> Option<Timestamp> {
        let left = total - spent as f64;
        let spent_a_second = burn * total / self.length.as_secs_f64();
        let until_end = match &self.objective.window {
            Window::Rolling(length) => length.as_secs_f64(),
            Window::Calendar(period) => between(self.now, period.bounds(self.now).1).as_secs_f64(),
        };
        let seconds = if left > 0.0 && spent_a_second > 0.0 { left / spent_a_second } else { return None };
        (seconds < until_end).then(|| later(self.now, Duration::from_secs_f64(seconds)))
    }
}

fn standing(interval: Option<(f64, f64)>, objective: f64, is_sufficient: bool) -> Standing {
    match interval {
        Some(_) if !is_sufficient => Standing::Insufficient,
        None => Standing::Insufficient,
        Some((low, _)) if low > objective => Standing::Met,
        Some((_, high)) if high < objective => Standing::Missed,
        Some(_) => Standing::NotEnoughRuns,
    }
}

/// (bad ÷ valid) ÷ (1 − objective); zero before the first valid run.
pub(super) fn burn_rate(bad: u64, valid: u64, objective: f64) -> f64 {
    match (valid, bad) {
        (0, _) | (_, 0) => 0.0,
        // An objective of 100 % has no budget: any failure burns without bound, capped so that it can be drawn.
        _ if objective >= 1.0 => f64::MAX,
        _ => bad as f64 / valid as f64 / (1.0 - objective),
    }
}
