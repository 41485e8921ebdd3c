//! `journeyman drill`: has the running daemon rehearse an outage, and waits for what it comes to.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ask::Daemon;
use crate::cli::control::{pretty, text, time};
use crate::cli::{DrillArguments, Format};
use crate::clock::Clock;
use crate::drill::{Stage, Verdict};
use crate::exit::{self, Failure};
use crate::time::Human;

/// The daemon is asked this often how far it is.
const EVERY: Duration = Duration::from_millis(500);
/// The exit code of a drill that failed.
const FAILED: u8 = 1;
/// Of one whose fault left no trace.
const NOT_TESTED: u8 = 3;
/// Of one that something real had precedence over.
const ABORTED: u8 = 4;

/// What is to be printed, and the exit code: of a drill, or the drills that were made. `seen` is told how far it is.
///
/// # Errors
/// There is no such journey; the daemon refuses, or does not answer.
pub async fn drill(
    daemon: &Daemon,
    asked: &DrillArguments,
    by: &str,
    clock: Clock,
    seen: impl Fn(&str),
) -> Result<(String, u8), Failure> {
    if asked.list {
        return list(daemon, asked).await.map(|text| (text, 0));
    }
    let (Some(journey), Some(fault)) = (&asked.journey, &asked.fault) else {
        let why = "name a journey and a fault, as in `journeyman drill sms --fault drop`; `--list` shows those that were made";
        return Err(Failure::new(exit::USAGE, why));
    };
    daemon.has(journey).await?;
    let within = asked.within.map(|within| format!("{}ms", within.as_millis()));
    let body = json!({ "journey": journey, "fault": fault.to_string(), "within": within, "by": by });
    let mut drill = daemon.change(Method::POST, &["drills"], &[], Some(body)).await?["drill"].clone();
    let id = drill["id"].as_str().unwrap_or_default().to_owned();
    let mut stage = None;
    while drill["ended"].is_null() {
        let now = drill["stage"].as_str().and_then(|stage| stage.parse().ok());
        if let Some(now) = now.filter(|now| stage != Some(*now)) {
            stage = Some(now);
            seen(&words(now, &drill));
        }
        clock.sleep_until(clock.now().mono + EVERY).await;
        drill = match daemon.find(&["drills", &id]).await? {
            Some(found) => found["drill"].clone(),
            None => {
                let why = format!("drill {id} has left nothing behind: the daemon was stopped before it began");
                return Err(Failure::new(exit::UNAVAILABLE, why));
            }
        };
    }
    let verdict = verdict(&drill);
    let code = match verdict {
        Some(Verdict::Passed) => 0,
        Some(Verdict::NotTested) => NOT_TESTED,
        Some(Verdict::Aborted) => ABORTED,
        Some(Verdict::Failed) | None => FAILED,
    };
    let told = match asked.asking.format {
        Format::Json => pretty(&json!({ "drill": drill })),
        Format::Text => {
            let said = verdict.map_or("?", Verdict::words);
            format!("{said}: {} under `{}`: {}\n", text(&drill["journey"]), text(&drill["fault"]), text(&drill["why"]))
        }
    };
    Ok((told, code))
}

fn verdict(drill: &Value) -> Option<Verdict> {
    drill["verdict"].as_str()?.parse().ok()
}

/// How far it is, for people who wait.
fn words(stage: Stage, drill: &Value) -> String {
    match stage {
        Stage::Proving => "a run without a fault: it must be well".to_owned(),
        Stage::Faulty => format!("`{}` is in: waiting for the alert to be decided", text(&drill["fault"])),
        Stage::Telling => {
            format!(
                "decided{}: waiting for it to come in at `{}`",
                after(&drill["detect_seconds"]),
                text(&drill["read_back"])
            )
        }
        Stage::Healing => format!("told{}: the fault is out, waiting for it to be well", after(&drill["tell_seconds"])),
        Stage::Closing => "well again: waiting for that to come in".to_owned(),
        Stage::Ended => "ended".to_owned(),
    }
}

fn after(seconds: &Value) -> String {
    let took = seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    took.map_or(String::new(), |took| format!(" after {}", Human(took)))
}

async fn list(daemon: &Daemon, asked: &DrillArguments) -> Result<String, Failure> {
    let of: Vec<_> = asked.journey.iter().map(|journey| ("journey", journey.as_str())).collect();
    let answer = daemon.read(&["drills"], &of).await?;
    let drills = answer["drills"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |drill: &Value| {
        let began = time(&drill["started"]).map_or(String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let came =
            verdict(drill).map_or_else(|| format!("… {}", text(&drill["stage"])), |verdict| verdict.words().to_owned());
        format!("{began}  {}  {}  {came}  {}\n", text(&drill["journey"]), text(&drill["fault"]), text(&drill["why"]))
    };
    Ok(match asked.asking.format {
        Format::Json => pretty(&answer),
        Format::Text if drills.is_empty() => "there has been no drill yet\n".to_owned(),
        Format::Text => drills.iter().map(line).collect(),
    })
}
