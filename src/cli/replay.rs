//! What a replay found, printed.

use std::fmt::Write as _;

use crate::cli::Format;
use crate::replay::comparison::{Comparison, Side};
use crate::time::{Human, between};

/// A replay for people or for programs.
pub fn print_replay(comparison: &Comparison, format: Format) -> String {
    match format {
        Format::Json => {
            let mut value = serde_json::json!(comparison);
            value["counts"] = serde_json::json!(comparison.counts());
            value["pages_a_week"] = serde_json::json!(comparison.pages_a_week());
            format!("{value:#}\n")
        }
        Format::Text => text(comparison),
    }
}

fn text(comparison: &Comparison) -> String {
    let Comparison { from, until, runs, journeys, changed, .. } = comparison;
    let is_compared = changed.is_some();
    let mut text = format!(
        "{} until {}: {runs} runs of {} {}\n\n",
        Human(between(*from, *until)),
        until.strftime("%Y-%m-%d %H:%M UTC"),
        journeys.len(),
        if journeys.len() == 1 { "journey" } else { "journeys" },
    );
    let counts = comparison.counts();
    let width = counts.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("journey".len());
    let heads = ["pages", "tickets", "repeats", "resolved"];
    let _ = write!(text, "{:width$}", "journey");
    for head in heads {
        let _ = write!(text, "  {head:>12}");
    }
    text.push('\n');
    for (name, [present, changed]) in &counts {
        let _ = write!(text, "{name:width$}");
        let pairs = [
            (present.pages, changed.pages),
            (present.tickets, changed.tickets),
            (present.repeats, changed.repeats),
            (present.resolved, changed.resolved),
        ];
        for (present, changed) in pairs {
            let cell = if is_compared { format!("{present} -> {changed}") } else { present.to_string() };
            let _ = write!(text, "  {cell:>12}");
        }
        text.push('\n');
    }
    let [present, changed] = comparison.pages_a_week();
    let _ = match is_compared {
        true => writeln!(text, "\npages a week: {present:.2} -> {changed:.2}"),
        false => writeln!(text, "\npages a week: {present:.2}"),
    };
    let lines = comparison.lines();
    if is_compared && !lines.is_empty() {
        text.push_str("\n- only as configured now, + only as changed\n");
    } else if !lines.is_empty() {
        text.push('\n');
    }
    for (side, told) in lines {
        let mark = match side {
            Side::Both => ' ',
            Side::Present => '-',
            Side::Changed => '+',
        };
        let at = told.at.strftime("%Y-%m-%d %H:%M:%S");
        let (reason, severity) = (told.reason.as_str(), told.severity.as_str());
        let _ =
            writeln!(text, "{mark} {at}  {reason:8}  {severity:8}  {}  {}  {}", told.notifier, told.subject, told.said);
    }
    text
}
