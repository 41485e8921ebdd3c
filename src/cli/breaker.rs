//! `journeyman breaker`: how a breaker stands, and what somebody wants of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ask::Daemon;
use crate::cli::control::{pretty, text, time};
use crate::cli::{BreakerArguments, Format, WantedState};
use crate::config::not_there;
use crate::exit::{self, Failure};

/// `journeyman breaker`
///
/// # Errors
/// There is no such breaker; the daemon refuses, or does not answer.
pub async fn breaker(daemon: &Daemon, asked: &BreakerArguments, by: &str, format: Format) -> Result<String, Failure> {
    let path = [if asked.notifier { "notifiers" } else { "channels" }, &asked.name, "breaker"];
    let Some(answer) = daemon.find(&path).await? else { return Err(not_one(daemon, asked).await?) };
    let Some(wanted) = asked.state else {
        return Ok(match format {
            Format::Json => pretty(&answer),
            Format::Text => shown(&answer["breaker"]),
        });
    };
    let mut body = json!({ "state": wanted.as_str(), "by": by });
    if wanted != WantedState::Auto {
        (body["reason"], body["for"]) = (json!(asked.reason), json!(asked.lasts));
    }
    let answer = daemon.change(Method::POST, &path, &[], Some(body)).await?;
    let order = &answer["ordered"]["order"];
    let name = &asked.name;
    Ok(match (format, wanted) {
        (Format::Json, _) => pretty(&answer),
        (Format::Text, WantedState::Auto) => format!("the breaker of {name} goes by itself again\n"),
        (Format::Text, _) => {
            let until = time(&order["until"]).map(|at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
            let what = match wanted {
                WantedState::Open => "nothing goes through it",
                WantedState::Closed => "everything goes through it, and nothing is counted",
                WantedState::Observe | WantedState::Auto => {
                    "everything goes through it; it only shows what it would do"
                }
            };
            format!(
                "the breaker of {name} is as {by} wants it until {}: {what}\nearlier with `journeyman breaker {name} auto{}`\n",
                until.unwrap_or_default(),
                if asked.notifier { " --notifier" } else { "" }
            )
        }
    })
}

/// There is no such breaker; perhaps one that was meant.
async fn not_one(daemon: &Daemon, asked: &BreakerArguments) -> Result<Failure, Failure> {
    let kind = if asked.notifier { "notifier" } else { "channel" };
    let all = daemon.read(&["breakers"], &[]).await?;
    let of_kind = all["breakers"].as_array().into_iter().flatten().filter(|breaker| breaker["kind"] == kind);
    let names: Vec<_> = of_kind.map(|breaker| text(&breaker["name"])).collect();
    Ok(Failure::new(
        exit::USAGE,
        not_there(&format!("{kind} with a breaker"), &asked.name, names.iter().map(String::as_str)),
    ))
}

/// How it stands, its last changes, and the calls before the last of them.
fn shown(breaker: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let clock = |value: &Value| time(value).map_or(String::new(), |at| at.strftime("%H:%M:%S").to_string());
    let mut said = format!("{} {}: {}\n", text(&breaker["kind"]), text(&breaker["name"]), text(&breaker["summary"]));
    for change in list(&breaker["changes"]) {
        let [from, to, why] = ["from", "to", "why"].map(|key| text(&change[key]));
        said += &format!("  {}  {from} → {to}: {why}\n", clock(&change["at"]));
    }
    let calls = list(&breaker["calls"]);
    if !calls.is_empty() {
        said += "last calls:\n";
    }
    for call in calls {
        said += &format!("  {}  {}  {}\n", clock(&call["at"]), text(&call["came"]), text(&call["tag"]));
    }
    said
}
