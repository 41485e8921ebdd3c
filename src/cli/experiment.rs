//! `journeyman experiment`: what can be said, and what is printed of an experiment.

mod charts;
pub mod html;
pub mod live;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use url::Url;

use crate::cli::{ConfigArgument, Format};
use crate::experiment::account::{Quantiles, Tally};
use crate::experiment::bounds::Standing;
use crate::experiment::compare::{Change, claims, numbers};
use crate::experiment::report::Report;
use crate::text::{visible, visible_line};
use crate::time::Human;

/// Of the messages that something is wrong with, so many are listed in a terminal.
const LISTED: usize = 10;

/// Which experiment, against what, and where its report goes.
#[derive(Clone, Debug, clap::Args)]
pub struct ExperimentArguments {
    /// The experiment
    #[arg(value_name = "FILE", required_unless_present = "undo")]
    pub file: Option<PathBuf>,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgument,
    /// Against which of its targets; may be left out if it has only one
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Ask nobody: every phase that waits for a hand on the switch goes on as if it had been there
    #[arg(long)]
    pub yes: bool,
    /// Only undo what an experiment before has left cut
    #[arg(long, conflicts_with_all = ["file", "target", "html", "json", "compare", "grafana"])]
    pub undo: bool,
    /// Write the report as a page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the report as JSON, to compare another with it later
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Say what is fixed, worse and the same since this report, as `--json` wrote it
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Note its parts in this Grafana, with the token of its `[grafana]`
    #[arg(long, value_name = "URL")]
    pub grafana: Option<Url>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// A report for people or for programs; held against another, if there is one.
pub fn print_report(report: &Report, before: Option<&Report>, format: Format) -> String {
    match format {
        Format::Text => visible(&text(report, before)).into_owned(),
        Format::Json => {
            let mut document = json!(report);
            if let Some(before) = before {
                document["compared"] = json!(claims(before, report));
            }
            format!("{document:#}\n")
        }
    }
}

fn text(report: &Report, before: Option<&Report>) -> String {
    let Report { name, target, journey, tally, .. } = report;
    let mut text = format!("{name}  {}", verdict(report));
    let took = Human(crate::time::between(report.started, report.ended));
    let permission = report.permission.as_deref().map(|who| format!(" (allowed by {who})")).unwrap_or_default();
    let _ = writeln!(text, "\nagainst {target}{permission}, journey {journey}, {took} from {:.0}\n", report.started);
    let width = report.hypothesis.iter().map(|judged| judged.bound.chars().count()).max().unwrap_or(0);
    for judged in &report.hypothesis {
        let _ = writeln!(text, "{} {:width$}  {}", mark(judged.standing), judged.bound, judged.found);
    }
    text.push('\n');
    text += &table(report);
    let extra = extras(tally);
    if !extra.is_empty() {
        let _ = writeln!(text, "\n{extra}");
    }
    if !report.acts.is_empty() {
        text += "\nwhat was done\n";
    }
    for act in &report.acts {
        let sign = if act.is_ok { "✓" } else { "✗" };
        let result = act.result.as_deref().map(|result| format!(": {}", visible_line(result))).unwrap_or_default();
        let (at, took) = (act.at.as_secs_f64(), Human(act.took));
        let _ = writeln!(text, "{sign} {at:7.1}s  {}: {} ({took}){result}", act.phase, visible_line(&act.what));
    }
    if !report.messages.is_empty() {
        let _ = writeln!(text, "\nmessages that something is wrong with: {}", report.messages.len());
    }
    for message in report.messages.iter().take(LISTED) {
        let copies = if message.copies > 0 { format!(", {} copies too many", message.copies) } else { String::new() };
        let why = message.why.as_deref().map(|why| format!(": {}", visible_line(why))).unwrap_or_default();
        let _ = writeln!(text, "  {:.3}  {}  {}{copies}{why}", message.sent, message.token, message.fate);
    }
    if let Some(before) = before {
        text += &compared(before, report);
    }
    text
}

/// What it came to, in a line.
pub fn verdict(report: &Report) -> String {
    let why = report.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("{}{why}", report.ending.words())
}

fn mark(standing: Standing) -> &'static str {
    match standing {
        Standing::Held => "✓",
        Standing::Broken => "✗",
        Standing::Unclear => "?",
    }
}

/// A row for each part, and one for the whole.
fn table(report: &Report) -> String {
    const HEADS: [&str; 12] =
        ["", "for", "due", "on time", "late", "lost", "refused", "twice", "order", "p50", "p99", "max"];
    let mut rows = vec![HEADS.map(str::to_owned)];
    for part in &report.phases {
        rows.push(row(&part.name, Human(part.to.saturating_sub(part.from)).to_string(), &part.tally));
    }
    rows.push(row("all", Human(crate::time::between(report.started, report.ended)).to_string(), &report.tally));
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 12] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(name: &str, took: String, tally: &Tally) -> [String; 12] {
    let latency = |of: fn(Quantiles) -> std::time::Duration| {
        tally.latency.map_or_else(|| "-".to_owned(), |latency| Human(of(latency)).to_string())
    };
    [
        name.to_owned(),
        took,
        tally.due.to_string(),
        tally.on_time.to_string(),
        tally.late.to_string(),
        tally.lost.to_string(),
        tally.refused.to_string(),
        tally.duplicate.to_string(),
        tally.reordered.to_string(),
        latency(|of| of.p50),
        latency(|of| of.p99),
        latency(|of| of.max),
    ]
}

/// What is seldom there, and must be said if it is.
fn extras(tally: &Tally) -> String {
    let all = [
        (tally.wrong, "came, and not as they should be"),
        (tally.uncertain, "had no clear answer when they were sent, and never came"),
        (tally.unseen, "may have come while the receiver was away"),
        (tally.unsent, "could not be sent, through a fault of ours"),
        (tally.late_sends, "were sent more than 100 ms after they were due"),
        (tally.strangers, "arrivals are no message of this experiment"),
    ];
    let said = all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    said.collect::<Vec<_>>().join("\n")
}

fn compared(before: &Report, now: &Report) -> String {
    let mut text = format!("\nagainst the report of {:.0}\n", before.started);
    for row in claims(before, now) {
        let sign = match row.change {
            Change::Fixed => "✓",
            Change::Worse => "✗",
            Change::Same | Change::New | Change::Gone => " ",
        };
        let none = || "-".to_owned();
        let (then, found) = (row.before.unwrap_or_else(none), row.now.unwrap_or_else(none));
        let _ = writeln!(text, "{sign} {:5}  {}: {then} -> {found}", row.change.as_str(), row.what);
    }
    for (name, then, found) in numbers(before, now).into_iter().filter(|(_, then, found)| then != found) {
        let _ = writeln!(text, "         {name}: {then} -> {found}");
    }
    text
}
