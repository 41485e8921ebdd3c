//! Objectives as Prometheus rules in the form that Sloth generates: <https://sloth.dev>. Its dashboards work on them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::openslo::{duration, quoted};
use crate::cli::promql::{selected, share};
use crate::journey::Journey;
use crate::journey::objective::{Objective, PeriodUnit, Window};
use crate::slo::{Sli, gate};

const HEAD: &str = "\
# Rules for Journeyman's objectives in the form that Sloth generates, from the counters of the runs.
#
# Burn alerts look at a long and at a short window, a twelfth of it; the factor is derived from the objective's window: 6 h that
# spend 5 % of the budget, 1 d and 3 d that spend 10 % (Google SRE workbook, table 5-8), and never less than 1, which is no overspending.
# There is no tier of 1 h with 5 m: a probe each minute runs 5 times in 5 minutes and 60 times in an hour. One failure in 5 runs is
# 20 %, which is over every threshold and says nothing; of 99.9 % a single failure in an hour would already wake somebody.
# For the same reason each alert asks for as many failures as are more than chance: the first count whose one-sided 95 %
# Clopper-Pearson lower bound is above the threshold, and three at least.
#
# Counters know neither calendars nor what came late: the daemon's own numbers (journeyman_slo_*) are exact.
groups:
";

/// Long window, short window, share of the budget that the long one may spend, severity.
const TIERS: [(u64, u64, f64, &str); 3] =
    [(6 * 3_600, 30 * 60, 0.05, "page"), (86_400, 2 * 3_600, 0.10, "ticket"), (3 * 86_400, 6 * 3_600, 0.10, "ticket")];
/// Fewer failures are never a trend.
const LEAST_FAILURES: u64 = 3;
/// Calendars are counted from here, so that the output is the same every day: the first Monday of 2026.
const REFERENCE: Timestamp = Timestamp::constant(1_767_571_200, 0);

/// Three groups for each promise: what was measured, what it means for the objective, whom to tell.
pub(super) fn sloth<'a>(journeys: impl Iterator<Item = &'a Arc<Journey>>) -> String {
    let mut out = HEAD.to_owned();
    for journey in journeys {
        let Some(objective) = &journey.objective else { continue };
        let in_budget = objective.in_budget.map(|share| (Sli::InBudget, share));
        for (sli, target) in std::iter::once((Sli::Delivered, objective.delivered)).chain(in_budget) {
            out += &Promise::new(journey, objective, sli, target).rules();
        }
    }
    out
}

/// One objective of one journey.
struct Promise<'a> {
    journey: &'a Journey,
    sli: Sli,
    target: f64,
    window: Duration,
    /// The labels by which Sloth's dashboards find it.
    id: String,
}

/// A pair of windows whose factor can be reached.
struct Tier {
    long: Duration,
    short: Duration,
    factor: f64,
    failures: u64,
    severity: &'static str,
}

impl<'a> Promise<'a> {
    fn new(journey: &'a Journey, objective: &Objective, sli: Sli, target: f64) -> Promise<'a> {
        const DAY: Duration = Duration::from_secs(86_400);
        let window = match &objective.window {
            Window::Rolling(length) => *length,
            Window::Calendar(period) => match period.unit {
                PeriodUnit::Week => DAY * 7,
                PeriodUnit::Month => DAY * 30,
                PeriodUnit::Quarter => DAY * 90,
            },
        };
        Promise { journey, sli, target, window, id: format!("journeyman-{}-{}", journey.name, sli.as_str()) }
    }

    /// The tiers that this objective's window and schedule have a use for.
    fn tiers(&self) -> Vec<Tier> {
        let tier = |(long, short, spends, severity): (u64, u64, f64, &'static str)| {
            let (long, short) = (Duration::from_secs(long), Duration::from_secs(short));
            let factor = (spends * self.window.as_secs_f64() / long.as_secs_f64()).max(1.0);
            let runs = self.journey.schedule.count(REFERENCE, long);
            let failures = gate(runs, factor * (1.0 - self.target))?.max(LEAST_FAILURES);
            (long <= self.window && failures <= runs).then_some(Tier { long, short, factor, failures, severity })
        };
        TIERS.into_iter().filter_map(tier).collect()
    }

    fn labels(&self, more: &[(&str, &str)]) -> String {
        let (name, sli) = (&*self.journey.name, self.sli.as_str());
        let slo = format!("{name}-{sli}");
        let own = [
            ("journey", name),
            ("sli", sli),
            ("sloth_id", &self.id),
            ("sloth_service", "journeyman"),
            ("sloth_slo", &slo),
        ];
        let all = own.iter().chain(more);
        all.map(|(name, value)| format!("          {name}: {}\n", quoted(value))).collect()
    }

    fn record(&self, name: &str, expression: &str, more: &[(&str, &str)]) -> String {
        format!("      - record: {name}\n        expr: {}\n        labels:\n{}", quoted(expression), self.labels(more))
    }

    fn runs(&self, outcomes: &str, window: &str) -> String {
        format!("sum(increase({}[{window}]))", share(&self.journey.name, outcomes))
    }

    fn errors(&self, window: &str) -> String {
        // Without runs there is no share, and no zero to be divided by.
        format!("{} / ({} > 0)", self.runs(self.sli.bad(), window), self.runs(selected(), window))
    }

    fn measured(&self, window: &str) -> String {
        format!("slo:sli_error:ratio_rate{window}{{sloth_id=\"{}\", sloth_window=\"{window}\"}}", self.id)
    }

    fn rules(&self) -> String {
        let tiers = self.tiers();
        let whole = duration(self.window);
        let mut windows: Vec<_> = tiers.iter().flat_map(|tier| [tier.short, tier.long]).collect();
        windows.sort();
        windows.dedup();
        let mut windows: Vec<_> = windows.into_iter().map(duration).filter(|window| *window != whole).collect();
        windows.push(whole.clone());
        let group = |kind: &str| format!("  - name: sloth-slo-{kind}-{}\n    rules:\n", self.id);
        let mut out = group("sli-recordings");
        for window in &windows {
            let name = format!("slo:sli_error:ratio_rate{window}");
            out += &self.record(&name, &self.errors(window), &[("sloth_window", window)]);
        }
        out += &group("meta-recordings");
        // The difference of two decimal shares is rarely the decimal that it stands for.
        let budget = &crate::cli::round(1.0 - self.target, 12);
        let left = format!("1 - {} / {budget}", self.measured(&whole));
        let days = format!("vector({})", self.window.as_secs_f64() / 86_400.0);
        let shortest = windows.first().unwrap_or(&whole);
        let mode = [("sloth_mode", "journeyman"), ("sloth_version", env!("CARGO_PKG_VERSION"))];
        let burn = |window: &str| format!("{} / {budget}", self.measured(window));
        for (name, expression) in [
            ("slo:objective:ratio", format!("vector({})", self.target)),
            ("slo:error_budget:ratio", format!("vector({budget})")),
            ("slo:time_period:days", days),
            ("slo:current_burn_rate:ratio", burn(shortest)),
            ("slo:period_burn_rate:ratio", burn(&whole)),
            ("slo:period_error_budget_remaining:ratio", left),
        ] {
            // An objective of 100 % has no budget to have a share of.
            if self.target < 1.0 || !expression.contains('/') {
                out += &self.record(name, &expression, &[]);
            }
        }
        out += &self.record("sloth_slo_info", "vector(1)", &mode);
        if tiers.is_empty() {
            let _ = writeln!(
                out,
                "  # {}: its window is too short, or its runs too few, for burn to be told from chance.",
                self.id
            );
            return out;
        }
        out += &group("alerts");
        for tier in &tiers {
            out += &self.alert(tier, budget);
        }
        out
    }

    fn alert(&self, tier: &Tier, budget: &str) -> String {
        let (long, short) = (duration(tier.long), duration(tier.short));
        let factor = crate::cli::round(tier.factor, 4);
        let above = |window: &str| format!("({} > ({factor} * {budget}))", self.measured(window));
        // An increase is extrapolated, and rarely whole.
        let failures = tier.failures as f64 - 0.5;
        let expression = format!(
            "{} and ignoring (sloth_window) {} and on () ({} > {failures})",
            above(&short),
            above(&long),
            self.runs(self.sli.bad(), &long)
        );
        let summary = format!(
            "Journey {} spends its error budget ({}) {factor} times too fast over {long} and {short}",
            self.journey.name,
            self.sli.as_str()
        );
        format!(
            "      - alert: JourneyBudgetBurns\n        expr: {}\n        labels:\n{}        annotations:\n          summary: {}\n",
            quoted(&expression),
            self.labels(&[("sloth_severity", tier.severity), ("severity", tier.severity), ("long_window", &long)]),
            quoted(&summary)
        )
    }
}
