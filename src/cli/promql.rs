//! Runs of a journey as Prometheus counts them.

use crate::slo::Sli;

/// The counter of a journey's runs with these outcomes.
pub(super) fn share(journey: &str, outcomes: &str) -> String {
    format!("journeyman_runs_total{{journey=\"{journey}\", outcome=~\"{outcomes}\"}}")
}

/// Outcomes that are a verdict about the watched system.
pub(super) fn selected() -> &'static str {
    "good|slow|failed"
}

impl Sli {
    /// Outcomes that fulfil it.
    pub(super) fn good(self) -> &'static str {
        match self {
            Sli::Delivered => "good|slow",
            Sli::InBudget => "good",
        }
    }

    /// Outcomes that spend its budget.
    pub(super) fn bad(self) -> &'static str {
        match self {
            Sli::Delivered => "failed",
            Sli::InBudget => "slow|failed",
        }
    }
}
