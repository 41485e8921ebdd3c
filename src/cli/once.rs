//! Runs, printed: what became of each, and what is not as it was when it last went well.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::RunFormat;
use crate::cli::junit::junit;
use crate::journey::compare::{Change, changes};
use crate::journey::outcome::Verdict;
use crate::journey::report::{Report, waterfall};
use crate::text::{visible, visible_line};
use crate::time::{Human, between};

/// Colours, as terminals number them.
const RED: &str = "1;31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// A run, and the last good one before it.
pub type Ran = (Report, Option<Report>);

/// Runs as a document for programs; `None` for people, who read each as it ends. `is_list` says that several might have been
/// asked for: then it is a list, however many there are.
pub fn print_runs(runs: &[Ran], is_list: bool, format: RunFormat) -> Option<String> {
    match format {
        RunFormat::Text => None,
        RunFormat::Junit => Some(junit(runs)),
        RunFormat::Json => {
            let all: Vec<_> = runs.iter().map(as_json).collect();
            let document = if is_list { json!(all) } else { all.into_iter().next().unwrap_or_default() };
            Some(format!("{document:#}\n"))
        }
    }
}

/// One run for people; what has changed since `last_good` as well, if there is one. With `color`, for a terminal that takes it.
pub fn print_run(report: &Report, last_good: Option<&Report>, color: bool) -> String {
    let changed = last_good.map_or(String::new(), |good| since(good, report, &changes(good, report)));
    let paint = |text: &str, code: Option<&str>| match code.filter(|_| color) {
        Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        None => text.to_owned(),
    };
    let verdict = match report.outcome.verdict() {
        Verdict::Good => Some(GREEN),
        Verdict::Slow => Some(YELLOW),
        Verdict::Failed | Verdict::Late => Some(RED),
        Verdict::Unknown | Verdict::Excluded => None,
    };
    // What servers say is made harmless first: the colours are ours alone.
    let (journey, said) = (visible_line(&report.journey), visible_line(&report.verdict_line()).into_owned());
    let mut text = format!("{journey}  {}\n\n", paint(&said, verdict));
    for line in visible(&waterfall(report, None, 32)).lines() {
        let end = line.chars().next().map_or(0, char::len_utf8);
        text += &format!("{}{}\n", paint(&line[..end], mark(&line[..end])), &line[end..]);
    }
    let (token, trace) = (report.token, report.token.trace_id());
    text + &visible(&format!("\n{changed}run   {token}\ntrace {trace}\n"))
}

/// The colour of a step's mark.
fn mark(sign: &str) -> Option<&'static str> {
    match sign {
        "✓" => Some(GREEN),
        "◔" | "!" => Some(YELLOW),
        "✗" => Some(RED),
        _ => None,
    }
}

/// Several runs in a line: `3 good, 1 failed`.
pub fn summary(runs: &[Ran]) -> String {
    let count = |verdict: Verdict| runs.iter().filter(|(report, _)| report.outcome.verdict() == verdict).count();
    let counts = Verdict::ALL.iter().map(|verdict| (count(*verdict), verdict)).filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, verdict)| format!("{count} {verdict}")).collect();
    format!("{}\n", counts.join(", "))
}

fn as_json((report, last_good): &Ran) -> Value {
    let mut value = json!(report);
    if let Some(good) = last_good {
        value["last_good"] = json!(good.started);
        value["changed"] = json!(changes(good, report));
    }
    value
}

/// What has changed, a line each. That nothing has is worth a line where something is wrong.
fn since(good: &Report, report: &Report, changed: &[Change]) -> String {
    let ago = Human(between(good.started, report.started));
    if changed.is_empty() {
        return match report.outcome.verdict() {
            Verdict::Good => String::new(),
            _ => format!("nothing that was seen has changed since the last good run, {ago} ago\n\n"),
        };
    }
    let mut text = format!("changed since the last good run, {ago} ago:\n");
    for change in changed {
        let _ = writeln!(text, "  {change}");
    }
    text + "\n"
}
