//! What `journeyman check` found, for editors and CI.

use serde_json::{Value, json};

use crate::config::problem::Place;
use crate::config::{Plan, Problem, Severity};

/// The problems of a configuration, and what is in it if it was accepted.
pub fn as_json(file: &str, plan: Option<&Plan>, problems: &[Problem]) -> Value {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    json!({
        "file": file,
        "accepted": plan.is_some(),
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
        "notes": count(Severity::Note),
        "journeys": plan.map(|plan| plan.journeys.iter().map(|journey| &*journey.name).collect::<Vec<_>>()),
        "channels": plan.map(|plan| plan.channels.keys().collect::<Vec<_>>()),
        "notifiers": plan.map(|plan| plan.notifiers.keys().collect::<Vec<_>>()),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn problem(problem: &Problem) -> Value {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut value = place(&problem.place);
    value["severity"] = json!(severity);
    value["message"] = json!(problem.message);
    value["help"] = json!(problem.hints);
    if let Some((other, label)) = &problem.also {
        value["also"] = place(other);
        value["also"]["message"] = json!(label);
    }
    value
}

/// Lines and columns count from 1, columns in characters; the end is the first place behind it.
fn place(place: &Place) -> Value {
    let (line, column) = (place.line(), place.column());
    let text = place.text();
    let last = text.rsplit('\n').next().unwrap_or_default().chars().count();
    let (more, end) = match text.matches('\n').count() {
        0 => (0, column + last),
        more => (more, last + 1),
    };
    json!({ "file": place.source().name(), "line": line, "column": column, "end_line": line + more, "end_column": end })
}
