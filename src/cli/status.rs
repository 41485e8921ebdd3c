//! `journeyman status`: the daemon at a glance, the most urgent first.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::ask::Daemon;
use crate::cli::control::{pretty, text, time, until};
use crate::cli::{Format, StatusArguments};
use crate::clock::Clock;
use crate::exit::Failure;
use crate::time::{Human, between};

/// The states of journeys as the API has them, the most urgent first.
const STATES: [&str; 7] = ["down", "slow", "stale", "suspect", "recovering", "unknown", "ok"];
/// `--watch` looks again after so long.
const EVERY: Duration = Duration::from_secs(2);
/// To the upper left, and nothing below it any more.
const HOME: &str = "\u{1b}[H\u{1b}[J";

/// Prints how all journeys are; with `--watch` again and again, until stopped.
///
/// # Errors
/// The daemon does not answer.
pub async fn status(
    daemon: &Daemon,
    asked: &StatusArguments,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let home = if asked.watch && std::io::stdout().is_terminal() { HOME } else { "" };
    loop {
        let text = look(daemon, asked, clock.now().wall).await?;
        let mut out = std::io::stdout();
        let shown = out.write_all(format!("{home}{text}").as_bytes()).and_then(|()| out.flush());
        // Nobody looks on any more.
        if !asked.watch || shown.is_err() {
            return Ok(());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = clock.sleep_until(clock.now().mono + EVERY) => {}
        }
    }
}

async fn look(daemon: &Daemon, asked: &StatusArguments, now: Timestamp) -> Result<String, Failure> {
    let query: Vec<_> = asked.find.iter().map(|text| ("q", text.as_str())).collect();
    let answer = daemon.read(&["journeys"], &query).await?;
    Ok(match asked.asking.format {
        Format::Json => pretty(&answer),
        Format::Text => told(&answer, now),
    })
}

fn told(answer: &Value, now: Timestamp) -> String {
    let journeys = answer["journeys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = journeys.iter().map(|journey| text(&journey["name"]).chars().count()).max().unwrap_or(0).min(50);
    let mut out = String::new();
    let mut counts = Vec::new();
    for state in STATES {
        let these: Vec<_> = journeys.iter().filter(|journey| journey["state"] == state).collect();
        if these.is_empty() {
            continue;
        }
        counts.push(format!("{} {state}", these.len()));
        out += &format!("{state}\n");
        for journey in these {
            out += &format!("  {:width$}  {}\n", text(&journey["name"]), line(journey, now));
        }
    }
    match counts.is_empty() {
        true => "no journey is like that\n".to_owned(),
        false => format!("{out}\n{}\n", counts.join(", ")),
    }
}

fn line(journey: &Value, now: Timestamp) -> String {
    let ago = |at: Timestamp| format!("{} ago", Human(between(at, now)));
    let mut parts = Vec::new();
    if let Some(since) = time(&journey["incident"]["since"]) {
        let acked =
            journey["incident"]["acked"]["by"].as_str().map_or(String::new(), |by| format!(", {by} looks after it"));
        parts.push(format!("for {}{acked}", Human(between(since, now))));
    }
    match (journey["last_run"]["summary"].as_str(), time(&journey["last_run"]["ended"])) {
        (Some(_), Some(ended)) => parts.push(format!("{}, {}", text(&journey["last_run"]["summary"]), ago(ended))),
        _ => parts.push("no run yet".to_owned()),
    }
    if journey["state"] != "ok"
        && let Some(good) = time(&journey["last_good"])
    {
        parts.push(format!("last good {}", ago(good)));
    }
    if let Some(incident) = journey["budget_incident"].as_str() {
        parts.push(format!("its error budget fires: incident {incident}"));
    }
    if journey["maintenance"].is_string() {
        parts.push(format!("in maintenance: {}", text(&journey["maintenance"])));
    }
    if journey["paused"].is_string() {
        parts.push(format!("paused{}", until(&journey["paused"])));
    }
    if journey["muted"] == true {
        parts.push("muted".to_owned());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_most_urgent_come_first() {
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let run = |summary: &str, ended| json!({ "summary": summary, "ended": at(ended) });
        let answer = json!({ "journeys": [
            { "name": "mail", "state": "ok", "last_run": run("good in 12ms", 50), "muted": true, "paused": at(3600) },
            { "name": "new", "state": "unknown", "last_run": null },
            { "name": "sms-round-trip", "state": "down", "last_good": at(-60), "budget_incident": "547ddd80025c", "last_run": run("failed (auth)\u{7}", 55),
              "incident": { "since": at(0), "acked": { "by": "ada" } } },
        ] });
        let expected = "\
down
  sms-round-trip  for 1m, ada looks after it; failed (auth)⟨U+0007⟩, 5s ago; last good 2m ago; its error budget fires: incident 547ddd80025c
unknown
  new             no run yet
ok
  mail            good in 12ms, 10s ago; paused until 2026-09-21 15:13:20 UTC; muted

1 down, 1 unknown, 1 ok
";
        assert_eq!(told(&answer, at(60)), expected);
        assert_eq!(told(&json!({ "journeys": [] }), at(0)), "no journey is like that\n");
    }
}
