//! `journeyman explain`: the story of one run in words, from what the store kept of it and from where its journey was written.

mod steps;
mod why;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::config::Plan;
use crate::config::places::Places;
use crate::journey::compare::{Change, changes, healthy};
use crate::journey::outcome::{Outcome, Verdict};
use crate::journey::report::Report;
use crate::ledger::Settled;
use crate::store::story::{Left, Story};
use crate::text::visible_line;
use crate::time::{Human, between};

/// What a story is told with.
pub struct Telling<'a> {
    /// The configuration as it is now.
    pub plan: &'a Plan,
    /// Where its journeys were written.
    pub places: &'a Places,
    /// When it is told.
    pub now: Timestamp,
    /// Whether the terminal has colours.
    pub color: bool,
}

/// The story of a run, printed.
pub fn explain(story: &Story, telling: &Telling<'_>, format: Format) -> String {
    match format {
        Format::Json => format!("{:#}\n", as_json(story, telling)),
        Format::Text => match &story.left {
            Left::Report(report) => of_report(story, report, telling),
            Left::Begun { made, alive } => head(story, "has begun, and has not ended") + &begun(*made, *alive, telling),
            Left::Entry { recorded, settled } => of_entry(story, *recorded, *settled, telling),
        },
    }
}

fn of_report(story: &Story, report: &Report, telling: &Telling<'_>) -> String {
    let mut text = head(story, &report.verdict_line());
    when(&mut text, story, report, telling);
    text.push_str("\nWhat happened\n");
    text.push_str(&steps::told(report));
    if let Some(note) = &report.note {
        line(&mut text, 1, note);
    }
    why::why(&mut text, report, telling);
    beside_the_last_good(&mut text, story, report);
    text.push_str(&told(story, telling.now));
    text
}

/// The journey, the run, and what became of it.
fn head(story: &Story, what: &str) -> String {
    format!("{}: run {}\n{}\n", visible_line(&story.journey), story.token, visible_line(what))
}

fn when(text: &mut String, story: &Story, report: &Report, telling: &Telling<'_>) {
    text.push_str("\nWhen\n");
    let late = match report.lateness.as_millis() {
        0..=999 => String::new(),
        _ => format!(", {} after its slot", Human(report.lateness)),
    };
    let ago = Human(between(report.started, telling.now));
    line(text, 1, &format!("for the slot {}; it began {}{late}, {ago} ago", at(report.slot), clock(report.started)));
    let by = |name: &str, what: &str| if what.is_empty() { String::new() } else { format!("{name} {what}") };
    let (version, definition) = (by("version", &report.version), by("definition", &report.configuration));
    let by: Vec<_> = [version, definition].into_iter().filter(|part| !part.is_empty()).collect();
    if !by.is_empty() {
        line(text, 1, &format!("by {}", by.join(", ")));
    }
    if let Some(late) = story.row.as_ref().and_then(|row| row.late_by) {
        line(text, 1, &format!("its message came after all, {} after the deadline", Human(late)));
    }
}

/// What the last good run did otherwise.
fn beside_the_last_good(text: &mut String, story: &Story, report: &Report) {
    let is_good = report.outcome.verdict() == Verdict::Good;
    let Some(good) = story.last_good.as_ref() else {
        if !is_good {
            text.push_str("\nThe last good run\n");
            line(text, 1, "none before this one is kept");
        }
        return;
    };
    let _ = writeln!(text, "\nThe last good run, {} before: {}", Human(between(good.slot, report.slot)), good.token);
    for sentence in steps::otherwise(good, report) {
        line(text, 1, &sentence);
    }
    let changed = changes(good, report);
    for change in &changed {
        line(text, 1, &format!("changed since: {change}"));
    }
    if changed.is_empty() && !is_good {
        line(text, 1, "nothing else that was seen has changed since");
    }
    // What was never reached stands above.
    for sound in healthy(report).iter().filter(|line| !is_good && !line.starts_with("never reached")) {
        line(text, 1, &format!("in order: {sound}"));
    }
}

/// The incidents, and who was told.
fn told(story: &Story, now: Timestamp) -> String {
    let mut text = String::new();
    for (incident, notices) in &story.incidents {
        let lasted = match incident.resolved {
            Some(resolved) => format!("over after {}", Human(between(incident.since, resolved))),
            None => format!("open for {}", Human(between(incident.since, now))),
        };
        let _ =
            writeln!(text, "\nIncident {}: {}, {}", incident.id, incident.severity, visible_line(&incident.subject));
        let by =
            if incident.detectors.is_empty() { String::new() } else { format!(", {}", incident.detectors.join(", ")) };
        line(&mut text, 1, &format!("since {}, {lasted}; {} bad runs{by}", at(incident.since), incident.bad_runs));
        if notices.is_empty() {
            line(&mut text, 1, "nobody was told");
        }
        for notice in notices {
            let shows = notice.notification.report.as_ref().is_some_and(|report| report.token == story.token);
            let state = &notice.state;
            let mut sentence = format!(
                "{}  {}: {}, {}",
                clock(notice.created),
                notice.notifier,
                notice.notification.reason.as_str(),
                state.status
            );
            if let Some(receipt) = &state.receipt {
                let _ = write!(sentence, " ({})", receipt.said);
            } else if let Some(error) = &state.error {
                let _ = write!(sentence, " after {} attempts: {error}", state.attempt);
            }
            if shows {
                sentence.push_str("; it shows this run");
            }
            line(&mut text, 1, &sentence);
        }
    }
    if story.incidents.is_empty() {
        text.push_str("\nIt belongs to no incident, and nobody was told.\n");
    }
    text
}

/// A run that has left no report yet.
fn begun(made: Timestamp, alive: Option<Timestamp>, telling: &Telling<'_>) -> String {
    let mut text = String::from("\nWhen\n");
    line(&mut text, 1, &format!("it began {}, {} ago", at(made), Human(between(made, telling.now))));
    if let Some(alive) = alive {
        let ago = Human(between(alive, telling.now));
        line(&mut text, 1, &format!("the daemon is known to have lived {ago} ago; a new one goes on with the run"));
    }
    text
}

/// A run whose evidence is not kept, or not yet.
fn of_entry(story: &Story, recorded: Timestamp, settled: Option<Settled>, telling: &Telling<'_>) -> String {
    let verdict = story.row.as_ref().map(|row| match &*row.why {
        "" => format!("{} in {}", row.verdict, Human(row.latency)),
        why => format!("{} ({why})", row.verdict),
    });
    let what = match (verdict, settled) {
        (Some(verdict), _) => verdict,
        (None, Some(Settled::Arrived)) => "its message arrived".to_owned(),
        (None, Some(Settled::Missing)) => "its message did not arrive".to_owned(),
        (None, None) => "it has not ended, and nobody can go on with it".to_owned(),
    };
    let mut text = head(story, &what);
    text.push_str("\nWhen\n");
    let ago = Human(between(recorded, telling.now));
    line(&mut text, 1, &format!("for the slot {}; it sent {}, {ago} ago", at(story.slot), clock(recorded)));
    line(&mut text, 1, "its evidence is not kept: that of good runs is, now and then");
    text + &told(story, telling.now)
}

fn as_json(story: &Story, telling: &Telling<'_>) -> Value {
    let mut value = json!({
        "run": story.token.to_string(),
        "journey": story.journey,
        "slot": story.slot,
        "late_by_seconds": story.row.as_ref().and_then(|row| row.late_by).map(|late| late.as_secs_f64()),
        "incidents": story.incidents.iter().map(|(incident, notices)| {
            let mut value = json!(incident);
            value["notices"] = notices.iter().map(|notice| json!({
                "id": notice.id,
                "at": notice.created,
                "notifier": notice.notifier,
                "reason": notice.notification.reason,
                "status": notice.state.status,
                "error": notice.state.error,
                "receipt": notice.state.receipt,
            })).collect();
            value
        }).collect::<Vec<_>>(),
    });
    match &story.left {
        Left::Begun { made, alive } => value["begun"] = json!({ "made": made, "daemon_lived_at": alive }),
        Left::Entry { recorded, settled } => value["recorded"] = json!({ "at": recorded, "settled": settled }),
        Left::Report(report) => {
            value["verdict"] = json!(report.outcome.verdict());
            value["summary"] = json!(report.verdict_line());
            value["report"] = json!(report);
            let changed: Option<Vec<Change>> = story.last_good.as_ref().map(|good| changes(good, report));
            value["last_good"] = json!(story.last_good.as_ref().map(|good| good.token.to_string()));
            value["changed"] = json!(changed);
            value["written"] = json!(why::place(report, telling).map(|(_, place)| json!({
                "file": place.source().name(),
                "line": place.line(),
                "column": place.column(),
            })));
            if let Outcome::Failed { step, .. } = &report.outcome {
                value["failed_step"] = json!(step);
            }
        }
    }
    value
}

/// One line of the story. What it says may come from anywhere.
fn line(text: &mut String, depth: usize, said: &str) {
    let _ = writeln!(text, "{:indent$}{}", "", visible_line(said), indent = depth * 2);
}

fn at(moment: Timestamp) -> String {
    moment.strftime("%a %Y-%m-%d %H:%M:%S UTC").to_string()
}

fn clock(moment: Timestamp) -> String {
    moment.strftime("%H:%M:%S%.3f").to_string()
}
