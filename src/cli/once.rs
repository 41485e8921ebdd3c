//! One run, printed: what became of it, and what is not as it was when it last went well.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::Format;
use crate::journey::compare::{Change, changes};
use crate::journey::outcome::Verdict;
use crate::journey::report::{Report, waterfall};
use crate::text::visible;
use crate::time::{Human, between};

/// One run, printed; what has changed since `last_good` as well, if there is one.
pub fn print_run(report: &Report, last_good: Option<&Report>, format: Format) -> String {
    let compared = last_good.map(|good| (good, changes(good, report)));
    match format {
        Format::Json => {
            let mut value = json!(report);
            if let Some((good, changed)) = compared {
                value["last_good"] = json!(good.started);
                value["changed"] = json!(changed);
            }
            format!("{value:#}\n")
        }
        Format::Text => visible(&format!(
            "{}  {}\n\n{}\n{}run   {}\ntrace {}\n",
            report.journey,
            report.verdict_line(),
            waterfall(report, None, 32),
            compared.map_or(String::new(), |(good, changed)| since(good, report, &changed)),
            report.token,
            report.token.trace_id()
        ))
        .into_owned(),
    }
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
