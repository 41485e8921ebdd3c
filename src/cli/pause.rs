//! `journeyman pause` and `resume`: journeys that are not run for a time. A pause is a silence whose slots are not run, so it
//! outlives a restart and ends by itself.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ask::Daemon;
use crate::cli::control::{pretty, text, time, until};
use crate::cli::{Format, PauseArguments};
use crate::config::some_of;
use crate::exit::Failure;

/// `journeyman pause`: each journey by a pause of its own, so that each can be resumed by itself.
///
/// # Errors
/// There is no such journey, and nothing was paused; the daemon refuses, or does not answer.
pub async fn pause(daemon: &Daemon, asked: &PauseArguments, by: &str, format: Format) -> Result<String, Failure> {
    let journeys = known(daemon, &asked.journeys).await?;
    let (mut pauses, mut said) = (Vec::new(), String::new());
    for journey in &journeys {
        let body = json!({
            "matchers": [format!("journey={journey}")],
            "for": asked.lasts,
            "reason": asked.reason,
            "author": by,
            "pauses": true,
        });
        let answer = daemon.change(Method::POST, &["silences"], &[], Some(body)).await?;
        let stands = daemon.read(&["journeys", journey], &[]).await?["journey"]["paused"].clone();
        let (asked_until, stands_until) = (time(&answer["silence"]["until"]), time(&stands));
        let longer = if stands_until > asked_until { ", as somebody wanted before" } else { "" };
        said += &format!("{journey} is not run{}{longer}\n", until(&stands));
        pauses.push(answer["silence"].clone());
    }
    Ok(match format {
        Format::Json => pretty(&json!({ "paused": pauses })),
        Format::Text => format!("{said}runs again earlier with `journeyman resume {}`\n", journeys.join(" ")),
    })
}

/// `journeyman resume`: ends the pauses that keep these journeys from being run.
///
/// # Errors
/// There is no such journey, and nothing was resumed; the daemon refuses, or does not answer.
pub async fn resume(daemon: &Daemon, journeys: &[String], format: Format) -> Result<String, Failure> {
    let journeys = known(daemon, journeys).await?;
    let silences = daemon.read(&["silences"], &[]).await?;
    let silences = silences["silences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pauses: Vec<_> = silences.iter().filter(|silence| silence["pauses"] == true).collect();
    let keeps = |pause: &Value, journey: &str| about(pause).contains(&journey);
    let ending = pauses.iter().filter(|pause| journeys.iter().any(|journey| keeps(pause, journey)));
    let ending: Vec<&Value> = ending.copied().collect();
    for pause in &ending {
        let id = pause["id"].as_str().unwrap_or_default();
        daemon.change(Method::DELETE, &["silences", id], &[], None).await?;
    }
    let mut said = String::new();
    for journey in &journeys {
        let by = ending.iter().filter(|pause| keeps(pause, journey));
        let by: Vec<_> = by.map(|pause| format!("{}: {}", text(&pause["author"]), text(&pause["reason"]))).collect();
        said += &match by.is_empty() {
            true => format!("{journey} was not paused\n"),
            false => format!("{journey} is run again; it was paused by {}\n", by.join(", and by ")),
        };
    }
    // A pause of a label or a pattern is about more than was named.
    let others: BTreeSet<_> =
        ending.iter().flat_map(|pause| about(pause)).filter(|name| !journeys.iter().any(|own| own == name)).collect();
    if !others.is_empty() {
        let others: Vec<_> = others.into_iter().collect();
        said += &format!("so are others that the same pause was about: {}\n", some_of(&others));
    }
    Ok(match format {
        Format::Json => pretty(&json!({ "ended": ending })),
        Format::Text => said,
    })
}

/// The journeys that are named, each once; all of them are there.
async fn known(daemon: &Daemon, named: &[String]) -> Result<Vec<String>, Failure> {
    let mut journeys = Vec::new();
    for name in named {
        if !journeys.contains(name) {
            daemon.has(name).await?;
            journeys.push(name.clone());
        }
    }
    Ok(journeys)
}

/// The journeys that a silence is about now.
fn about(silence: &Value) -> Vec<&str> {
    silence["journeys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
