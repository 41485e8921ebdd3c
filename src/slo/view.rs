//! Where an objective stands, as the API and the command line give it to programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::journey::Journey;
use crate::slo::{BURN_NAMES, Budget, Composition, Counts, Score, SloStatus, Standing};

/// Where a journey's objective stands, with what its dependencies say about it.
#[derive(Clone, Debug)]
pub struct JourneySlo {
    /// The journey.
    pub journey: Arc<Journey>,
    /// Where its objective stands.
    pub status: SloStatus,
    /// Its share beside what its dependencies would make of it.
    pub composition: Option<Composition>,
}

/// Where an objective stands.
#[derive(Clone, Debug, Serialize)]
pub struct SloView {
    window: String,
    window_seconds: f64,
    from: Timestamp,
    until: Timestamp,
    counts: Counts,
    coverage: f64,
    /// Whether enough slots have a verdict to judge.
    sufficient: bool,
    delivered: BudgetView,
    in_budget: Option<BudgetView>,
    /// With every run in maintenance counted as what it was; null while that is no other.
    without_corrections: Option<ScoreView>,
}

/// The same window, seen another way.
#[derive(Clone, Debug, Serialize)]
struct ScoreView {
    counts: Counts,
    coverage: f64,
    delivered: BudgetView,
    in_budget: Option<BudgetView>,
}

/// An error budget.
#[derive(Clone, Debug, Serialize)]
struct BudgetView {
    objective: f64,
    standing: Standing,
    valid_runs: u64,
    achieved: Option<f64>,
    /// The 95 % Wilson interval around it.
    interval: Option<(f64, f64)>,
    /// The 95 % Clopper-Pearson interval; only where one journey is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_interval: Option<(f64, f64)>,
    /// With all unknown slots bad, and with all of them good.
    bounds: Option<(f64, f64)>,
    total_runs: f64,
    spent_runs: u64,
    /// Negative when overspent, as is the share.
    left_runs: f64,
    left_share: f64,
    total_seconds: f64,
    spent_seconds: f64,
    left_seconds: f64,
    /// By window; null where an objective of 100 % lets any failure burn without bound.
    burn_rate: BTreeMap<&'static str, Option<f64>>,
    next_refund: Option<Timestamp>,
    exhausted_at: Option<Timestamp>,
}

impl SloView {
    /// What is cheap to say: for lists.
    pub fn new(slo: &SloStatus) -> SloView {
        SloView::with(slo, false)
    }

    /// With the exact interval, too.
    pub fn exact(slo: &SloStatus) -> SloView {
        SloView::with(slo, true)
    }

    fn with(slo: &SloStatus, is_exact: bool) -> SloView {
        let budget = |budget: &Budget| BudgetView::new(budget, is_exact);
        let score = |score: &Score| ScoreView {
            counts: score.counts,
            coverage: tidy(score.coverage),
            delivered: budget(&score.delivered),
            in_budget: score.in_budget.as_ref().map(budget),
        };
        SloView {
            window: slo.window_name.clone(),
            window_seconds: slo.window.as_secs_f64(),
            from: slo.bounds.0,
            until: slo.bounds.1,
            counts: slo.counts,
            coverage: tidy(slo.coverage),
            sufficient: slo.is_sufficient(),
            delivered: budget(&slo.delivered),
            in_budget: slo.in_budget.as_ref().map(budget),
            without_corrections: slo.without_corrections.as_deref().map(score),
        }
    }
}

impl BudgetView {
    fn new(budget: &Budget, is_exact: bool) -> BudgetView {
        let pair = |pair: Option<(f64, f64)>| pair.map(|(low, high)| (tidy(low), tidy(high)));
        let names = std::iter::once("window").chain(BURN_NAMES);
        BudgetView {
            objective: budget.objective,
            standing: budget.standing,
            valid_runs: budget.valid,
            achieved: budget.achieved.map(tidy),
            interval: pair(budget.interval),
            exact_interval: pair(if is_exact { budget.exact_interval() } else { None }),
            bounds: pair(budget.bounds),
            total_runs: tidy(budget.total),
            spent_runs: budget.spent,
            left_runs: tidy(budget.left()),
            left_share: tidy(budget.left_share()),
            total_seconds: tidy(budget.total_time.as_secs_f64()),
            spent_seconds: tidy(budget.spent_time.as_secs_f64()),
            left_seconds: tidy(budget.left_time().as_secs_f64()),
            burn_rate: names.zip(budget.burn.map(|burn| (burn < f64::MAX).then(|| tidy(burn)))).collect(),
            next_refund: budget.next_refund,
            exhausted_at: budget.exhausted_at,
        }
    }
}

/// Without the noise of binary fractions: nobody means 216.0000000000002 runs.
fn tidy(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}
