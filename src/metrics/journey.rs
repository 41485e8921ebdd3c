//! A journey's numbers. There are thousands of journeys, and a series of the registry costs as much as all that is kept here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Phase;
use crate::journey::outcome::{Outcome, Verdict};
use crate::journey::report::{Report, StepStatus};
use crate::journey::{Journey, Name};
use crate::metrics::histogram::{Edges, Histogram};
use crate::metrics::seconds;
use crate::slo::{BURNS, Budget, Composition, SloStatus};

/// What runs are counted as. One that turns out to be late was counted as failed.
pub(super) const OUTCOMES: [Verdict; 5] =
    [Verdict::Good, Verdict::Slow, Verdict::Failed, Verdict::Unknown, Verdict::Excluded];

/// What is exposed of a journey. `None` is not.
#[derive(Default)]
pub(super) struct Numbers {
    /// From where it is seen, if that is not from where the others are: nowhere, if the text is empty.
    pub(super) seen_from: Option<Box<str>>,
    /// The configuration has it no more.
    pub(super) is_gone: bool,
    pub(super) runs: [u64; OUTCOMES.len()],
    /// By outcome and cause, in their order; few are ever seen of most journeys.
    pub(super) causes: Vec<(Verdict, &'static str, u64)>,
    pub(super) duration: Histogram,
    pub(super) steps: Vec<(Name, Took)>,
    pub(super) budget: Option<f64>,
    pub(super) budget_ratio: Option<f64>,
    pub(super) last_run: f64,
    pub(super) last_success: f64,
    pub(super) stale_after: Option<f64>,
    pub(super) alert_state: u8,
    pub(super) slis: Box<[Sli]>,
    pub(super) coverage: Option<f64>,
    pub(super) composed: Option<f64>,
}

/// How often a step passed, and how long that took. A histogram of each step would be most of an exposition; which runs were long, and
/// where, the pages and the API show exactly.
#[derive(Clone, Default)]
pub(super) struct Took {
    pub(super) sum: f64,
    pub(super) count: u64,
}

/// One of a journey's objectives.
pub(super) struct Sli {
    pub(super) name: &'static str,
    pub(super) objective: f64,
    pub(super) standing: Option<Standing>,
}

/// Where an objective stands.
pub(super) struct Standing {
    pub(super) achieved: f64,
    pub(super) uncorrected: f64,
    pub(super) interval: (f64, f64),
    pub(super) left: f64,
    pub(super) left_seconds: f64,
    pub(super) refund: f64,
    pub(super) exhaustion: f64,
    pub(super) burn: [f64; BURNS],
}

impl Numbers {
    /// The journey is defined like this from here on. What was counted goes on, also that of a journey that was gone.
    pub(super) fn define(&mut self, journey: &Journey) {
        let mut before = std::mem::take(&mut self.steps);
        let mut of =
            |name: &Name| before.iter_mut().find(|(step, _)| step == name).map(|(_, known)| std::mem::take(known));
        self.steps = journey.steps.iter().map(|step| (step.name.clone(), of(&step.name).unwrap_or_default())).collect();
        self.is_gone = false;
        let place = || journey.seen_from(None).unwrap_or_default().into();
        self.seen_from = journey.vantage.is_some().then(place);
        self.budget = journey.budget.map(|budget| budget.as_secs_f64());
        // Half of what is known of the last run is about another budget.
        self.budget_ratio = self.budget_ratio.filter(|_| journey.budget.is_some());
        self.alert_state = 0;
        let sli = |name, objective| Sli { name, objective, standing: None };
        let slis = |objective: &crate::journey::Objective| {
            let in_budget = objective.in_budget.map(|share| sli("in_budget", share));
            [Some(sli("delivered", objective.delivered)), in_budget].into_iter().flatten().collect()
        };
        self.slis = journey.objective.as_ref().map(slis).unwrap_or_default();
        self.coverage = None;
    }

    fn count(&mut self, outcome: &Outcome, by: u64) {
        let (verdict, cause) = (outcome.verdict(), outcome.label());
        if let Some(at) = OUTCOMES.iter().position(|known| *known == verdict) {
            self.runs[at] += by;
        }
        if cause.is_empty() {
            return;
        }
        match self.causes.binary_search_by_key(&(verdict, cause), |(verdict, cause, _)| (*verdict, *cause)) {
            Ok(at) => self.causes[at].2 += by,
            Err(at) => {
                self.causes.reserve_exact(1);
                self.causes.insert(at, (verdict, cause, by));
            }
        }
    }
}

impl Standing {
    fn new(budget: &Budget, uncorrected: Option<&Budget>) -> Standing {
        Standing {
            achieved: budget.achieved.unwrap_or(f64::NAN),
            uncorrected: uncorrected.unwrap_or(budget).achieved.unwrap_or(f64::NAN),
            interval: budget.interval.unwrap_or((f64::NAN, f64::NAN)),
            left: budget.left_share(),
            left_seconds: budget.left_time().as_secs_f64(),
            refund: budget.next_refund.map_or(0.0, seconds),
            exhaustion: budget.exhausted_at.map_or(0.0, seconds),
            burn: budget.burn,
        }
    }
}

/// Whoever panics while it holds the numbers leaves each of them right.
pub(super) fn lock(numbers: &Mutex<Numbers>) -> MutexGuard<'_, Numbers> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A journey's handle.
pub struct JourneyMetrics {
    pub(super) edges: Arc<Edges>,
    pub(super) numbers: Arc<Mutex<Numbers>>,
}

impl JourneyMetrics {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        lock(&self.numbers)
    }

    /// A run ended.
    pub fn observe(&self, report: &Report, budget: Option<Duration>, now: Timestamp) {
        let mut numbers = self.numbers();
        numbers.count(&report.outcome, 1);
        numbers.last_run = seconds(now);
        if let Some(latency) = report.outcome.latency() {
            numbers.duration.record(latency.as_secs_f64(), &self.edges);
            numbers.last_success = seconds(now);
            if let Some(budget) = budget {
                numbers.budget_ratio = Some(latency.as_secs_f64() / budget.as_secs_f64());
            }
        }
        for step in &report.steps {
            if !matches!(step.status, StepStatus::Passed | StepStatus::Slow) {
                continue;
            }
            // A run that began before a reload may tell of steps that are no more.
            if let Some((_, took)) = numbers.steps.iter_mut().find(|(name, _)| *name == step.name) {
                took.sum += step.took.as_secs_f64();
                took.count += 1;
            }
        }
    }

    /// Another journey's run ended that is a part of this one.
    pub fn heard(&self, is_success: bool, now: Timestamp) {
        let mut numbers = self.numbers();
        numbers.last_run = seconds(now);
        if is_success {
            numbers.last_success = seconds(now);
        }
    }

    /// How long the journey may be without a verdict.
    pub fn set_stale_after(&self, stale_after: Duration) {
        self.numbers().stale_after = Some(stale_after.as_secs_f64());
    }

    /// Slots went by without a run.
    pub fn without_run(&self, outcome: &Outcome, slots: u64) {
        self.numbers().count(outcome, slots);
    }

    /// The alert and the objective as they stand.
    pub fn set_state(&self, phase: Phase, slo: Option<&SloStatus>) {
        let mut numbers = self.numbers();
        numbers.alert_state = match phase {
            Phase::Ok => 0,
            Phase::Suspect => 1,
            Phase::Recovering => 2,
            Phase::Firing => 3,
        };
        let Some(status) = slo.filter(|_| !numbers.slis.is_empty()) else { return };
        let without = status.without_corrections.as_deref();
        let delivered = (Some(&status.delivered), without.map(|score| &score.delivered));
        let in_budget = (status.in_budget.as_ref(), without.and_then(|score| score.in_budget.as_ref()));
        for (sli, (budget, uncorrected)) in numbers.slis.iter_mut().zip([delivered, in_budget]) {
            if let Some(budget) = budget {
                sli.standing = Some(Standing::new(budget, uncorrected));
            }
        }
        numbers.coverage = Some(status.coverage);
    }

    /// What its dependencies would make of it.
    pub fn set_composition(&self, composition: Option<&Composition>) {
        self.numbers().composed = composition.and_then(|composition| composition.product);
    }
}
