//! Objectives as OpenSLO v1: <https://github.com/OpenSLO/OpenSLO>.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::promql::{selected, share};
use crate::journey::Journey;
use crate::journey::objective::{Objective, Period, PeriodUnit, Window};
use crate::slo::Sli;

const HEAD: &str = "\
# Objectives of Journeyman's journeys, as OpenSLO v1. They are counted here from the counters that Prometheus keeps; the daemon counts
# exactly, also what came late or while Prometheus was not there: journeyman_slo_achieved_ratio.
apiVersion: openslo/v1
kind: DataSource
metadata:
  name: journeyman-prometheus
spec:
  type: Prometheus
  connectionDetails:
    url: http://127.0.0.1:9090
---
apiVersion: openslo/v1
kind: Service
metadata:
  name: journeyman
  displayName: Journeyman
spec:
  description: Journeys through real systems, end to end.
";

/// One SLO for each promise.
pub(super) fn openslo<'a>(journeys: impl Iterator<Item = &'a Arc<Journey>>) -> String {
    let mut out = HEAD.to_owned();
    let mut names = BTreeSet::new();
    for journey in journeys {
        let Some(objective) = &journey.objective else { continue };
        let in_budget = objective.in_budget.map(|share| (Sli::InBudget, share));
        for (sli, target) in std::iter::once((Sli::Delivered, objective.delivered)).chain(in_budget) {
            let name = unique(&format!("{}-{}", journey.name, sli.as_str()), &mut names);
            // Writing to a string cannot fail.
            let _ = write!(out, "---\n{}", slo(journey, objective, sli, target, &name));
        }
    }
    out
}

fn slo(journey: &Journey, objective: &Objective, sli: Sli, target: f64, name: &str) -> String {
    let (good, all) = (share(&journey.name, sli.good()), share(&journey.name, selected()));
    let what = match sli {
        Sli::Delivered => "delivered, right, by the deadline",
        Sli::InBudget => "delivered, right, within the budget",
    };
    let mut out = format!(
        "apiVersion: openslo/v1
kind: SLO
metadata:
  name: {name}
  displayName: {display}
spec:
  description: {description}
  service: journeyman
  indicator:
    metadata:
      name: {name}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            metricSourceRef: journeyman-prometheus
            type: Prometheus
            spec:
              query: {good}
        total:
          metricSource:
            metricSourceRef: journeyman-prometheus
            type: Prometheus
            spec:
              query: {all}
  timeWindow:
",
        display = quoted(&format!("{} {}", journey.name, sli.as_str().replace('_', " "))),
        description = quoted(&format!("Of all runs of {} with a verdict, those {what}.", journey.name)),
        good = quoted(&format!("sum({good})")),
        all = quoted(&format!("sum({all})")),
    );
    match &objective.window {
        Window::Rolling(length) => {
            let _ = writeln!(out, "    - duration: {}\n      isRolling: true", duration(*length));
        }
        Window::Calendar(period) => out += &calendar(period),
    }
    let _ = write!(
        out,
        "  budgetingMethod: Occurrences\n  objectives:\n    - displayName: {}\n      target: {target}\n",
        quoted(sli.as_str())
    );
    out
}

fn calendar(period: &Period) -> String {
    let duration = match period.unit {
        PeriodUnit::Week => "1w",
        PeriodUnit::Month => "1M",
        PeriodUnit::Quarter => "1Q",
    };
    format!(
        "    - duration: {duration}
      isRolling: false
      calendar:
        startTime: \"{} 00:00:00\"
        timeZone: {}
",
        period.start,
        quoted(period.zone.iana_name().unwrap_or("UTC"))
    )
}

/// In the largest unit that it is a whole number of. OpenSLO knows none under a minute.
pub(super) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.iter().find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{}m", seconds.div_ceil(60)), |(size, unit)| format!("{}{unit}", seconds / size))
}

/// A name as Kubernetes has them: 63 lower-case letters, digits and `-`. No two are the same.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let plain = plain.trim_matches('-');
    let mut number = 1;
    loop {
        let end = if number == 1 { String::new() } else { format!("-{number}") };
        let cut = plain.get(..plain.len().min(63 - end.len())).unwrap_or(plain).trim_matches('-');
        let candidate = format!("{cut}{end}");
        if taken.insert(candidate.clone()) {
            return candidate;
        }
        number += 1;
    }
}

/// A YAML string. JSON's are among them.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
