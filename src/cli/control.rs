//! What people ask of the running daemon from the command line: to acknowledge and to silence. It says what came of it, and until
//! when.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ask::Daemon;
use crate::cli::{AckArguments, Format, SilenceArguments};
use crate::config::not_there;
use crate::exit::{self, Failure};
use crate::text::visible_line;
use crate::time::Human;

/// Names in a sentence at most.
const NAMED: usize = 5;

/// `journeyman incidents`
///
/// # Errors
/// The daemon does not answer.
pub async fn incidents(daemon: &Daemon, all: bool, format: Format, now: Timestamp) -> Result<String, Failure> {
    let limit = if all { "1000" } else { "200" };
    let mut answer = daemon.read(&["incidents"], &[("limit", limit)]).await?;
    if let (Some(list), false) = (answer["incidents"].as_array_mut(), all) {
        list.retain(|incident| incident["open"] == true);
    }
    let list = answer["incidents"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text if list.is_empty() && all => "there has been no incident\n".to_owned(),
        Format::Text if list.is_empty() => "no incident is open\n".to_owned(),
        Format::Text => list.iter().map(|incident| incident_line(incident, now)).collect(),
    })
}

/// `2b09461e35f5  critical  sms-round-trip  for 12m  4 bad runs  acknowledged by ada until 18:00 UTC`
fn incident_line(incident: &Value, now: Timestamp) -> String {
    let lasted = |since: Timestamp, until: Timestamp| Human(crate::time::between(since, until));
    let lasted = match (time(&incident["since"]), time(&incident["resolved"])) {
        (Some(since), Some(resolved)) => format!("over after {}", lasted(since, resolved)),
        (Some(since), None) => format!("for {}", lasted(since, now)),
        (None, _) => String::new(),
    };
    let mut line = format!(
        "{}  {:<8}  {}  {lasted}",
        text(&incident["id"]),
        text(&incident["severity"]),
        text(&incident["subject"]),
    );
    // Those of an error budget are the journey's own.
    match incident["bad_runs"].as_u64() {
        Some(0) | None => {}
        Some(1) => line += "  1 bad run",
        Some(runs) => line += &format!("  {runs} bad runs"),
    }
    if incident["members"].as_u64().is_some_and(|members| members > 1) {
        line += &format!("  {} members", incident["members"]);
    }
    if incident["acked"].is_object() {
        line += &format!("  acknowledged by {}{}", text(&incident["acked"]["by"]), until(&incident["acked"]["until"]));
    }
    if let Some(quiet) = incident["quiet"].as_str() {
        line += &format!("  {quiet}");
    }
    line + "\n"
}

/// `journeyman ack`
///
/// # Errors
/// There is no such incident; the daemon refuses, or does not answer.
pub async fn acknowledge(daemon: &Daemon, asked: &AckArguments, by: &str, format: Format) -> Result<String, Failure> {
    let (id, beside) = find(daemon, &asked.incident).await?;
    let body = json!({ "by": by, "for": asked.lasts });
    let answer = daemon.change(Method::POST, &["incidents", &id, "ack"], &[], Some(body)).await?;
    let incident = &answer["incident"];
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text => {
            let until = until(&incident["acked"]["until"]);
            let ends = if until.is_empty() { "it gets worse or is over" } else { "then, unless it gets worse before" };
            let subject = text(&incident["subject"]);
            format!(
                "{by} looks after {subject} (incident {id}){until}\nnobody is reminded or called in until {ends}\n{beside}"
            )
        }
    })
}

/// `journeyman unack`
///
/// # Errors
/// There is no such incident; the daemon refuses, or does not answer.
pub async fn unacknowledge(daemon: &Daemon, incident: &str, by: &str, format: Format) -> Result<String, Failure> {
    let (id, beside) = find(daemon, incident).await?;
    let answer = daemon.change(Method::DELETE, &["incidents", &id, "ack"], &[("by", by)], None).await?;
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text => format!(
            "nobody looks after {} (incident {id}) any more: people are reminded again\n{beside}",
            text(&answer["incident"]["subject"])
        ),
    })
}

/// `journeyman silence`
///
/// # Errors
/// It is no silence that can be; the daemon refuses, or does not answer.
pub async fn silence(daemon: &Daemon, asked: &SilenceArguments, by: &str, format: Format) -> Result<String, Failure> {
    let body = json!({
        "matchers": asked.matchers,
        "for": asked.lasts,
        "reason": asked.reason,
        "author": by,
        "until_resolved": asked.until_resolved,
        "exclude_from_slo": asked.exclude_from_slo,
    });
    let answer = daemon.change(Method::POST, &["silences"], &[], Some(body)).await?;
    let silence = &answer["silence"];
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text => format!(
            "silenced{}: {}\n{}\nends earlier with `journeyman unsilence {}`\n",
            until(&silence["until"]),
            matchers(silence),
            about(silence),
            text(&silence["id"])
        ),
    })
}

/// `journeyman silences`
///
/// # Errors
/// The daemon does not answer.
pub async fn silences(daemon: &Daemon, format: Format) -> Result<String, Failure> {
    let answer = daemon.read(&["silences"], &[]).await?;
    let list = answer["silences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |silence: &Value| {
        let mut line = format!(
            "{}  {}{}  by {}: {}",
            text(&silence["id"]),
            matchers(silence),
            until(&silence["until"]),
            text(&silence["author"]),
            text(&silence["reason"])
        );
        for (key, word) in [
            ("until_resolved", "or until it is over"),
            ("exclude_from_slo", "not counted for objectives"),
            ("pauses", "not run: a pause"),
        ] {
            if silence[key] == true {
                line += &format!(" ({word})");
            }
        }
        line + "\n"
    };
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text if list.is_empty() => "nothing is silenced\n".to_owned(),
        Format::Text => list.iter().map(line).collect(),
    })
}

/// `journeyman unsilence`
///
/// # Errors
/// There is no such silence; the daemon refuses, or does not answer.
pub async fn unsilence(daemon: &Daemon, id: &str, format: Format) -> Result<String, Failure> {
    let answer = daemon.change(Method::DELETE, &["silences", id], &[], None).await?;
    Ok(match format {
        Format::Json => pretty(&answer),
        Format::Text => format!("silence {id} has ended; people are told at once of what fires\n"),
    })
}

/// The id of an incident, from itself or from the name of a journey that is in one: with its health, or else with its budget. What
/// there is to say of the one that was not chosen comes with it.
async fn find(daemon: &Daemon, named: &str) -> Result<(String, String), Failure> {
    if let Some(answer) = daemon.find(&["journeys", named]).await? {
        let (health, budget) = (&answer["journey"]["incident"]["id"], &answer["journey"]["budget_incident"]);
        return match (health.as_str(), budget.as_str()) {
            (Some(health), Some(budget)) if health != budget => {
                let beside = format!("its error budget fires as well, and is incident {budget}\n");
                Ok((health.to_owned(), beside))
            }
            (Some(id), _) | (None, Some(id)) => Ok((id.to_owned(), String::new())),
            (None, None) => Err(Failure::new(exit::USAGE, format!("`{named}` has no open incident"))),
        };
    }
    match daemon.find(&["incidents", named]).await? {
        Some(answer) if answer["incident"]["open"] == true => Ok((named.to_owned(), String::new())),
        Some(_) => Err(Failure::new(exit::USAGE, format!("incident {named} is over"))),
        None => {
            let help = "`journeyman incidents` lists the open ones";
            let names = daemon.journeys().await?;
            let said = not_there("incident and no journey", named, names.iter().map(String::as_str));
            Err(Failure::new(exit::USAGE, format!("{said}\n  help: {help}")))
        }
    }
}

fn about(silence: &Value) -> String {
    let names: Vec<_> = silence["journeys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match names.len() {
        0 => "no journey is like that now".to_owned(),
        1..=NAMED => format!("this is about {}", names.join(", ")),
        count => format!("this is about {count} journeys: {}, …", names[..NAMED].join(", ")),
    }
}

fn matchers(silence: &Value) -> String {
    let matchers = silence["matchers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    matchers.collect::<Vec<_>>().join(", ")
}

/// ` until 2026-11-21 18:00 UTC`, or nothing.
pub(super) fn until(value: &Value) -> String {
    time(value).map_or(String::new(), |at| at.strftime(" until %Y-%m-%d %H:%M:%S UTC").to_string())
}

pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Text for a terminal: names and reasons come from anywhere, and must not move its cursor.
pub(super) fn text(value: &Value) -> String {
    visible_line(value.as_str().unwrap_or("?")).into_owned()
}

pub(super) fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}
