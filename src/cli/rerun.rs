//! `journeyman rerun`: has the running daemon run a journey now, and waits for what it comes to.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::ask::Daemon;
use crate::cli::control::text;
use crate::cli::{Format, RerunArguments, exit_code_of};
use crate::clock::Clock;
use crate::exit::{self, Failure};
use crate::journey::outcome::Verdict;

/// The daemon is asked this often whether the run has ended.
const EVERY: Duration = Duration::from_millis(500);

/// What is to be printed, and the exit code.
///
/// # Errors
/// There is no such journey; the daemon refuses, or does not answer.
pub async fn rerun(daemon: &Daemon, asked: &RerunArguments, by: &str, clock: Clock) -> Result<(String, u8), Failure> {
    daemon.has(&asked.journey).await?;
    let path = ["journeys", &asked.journey, "run"];
    let answer = daemon.change(Method::POST, &path, &[], Some(json!({ "by": by }))).await?;
    let run = answer["asked"].clone();
    let token = run["token"].as_str().unwrap_or_default().to_owned();
    if !asked.wait {
        let text = match asked.asking.format {
            Format::Json => format!("{answer:#}\n"),
            Format::Text => begun(&run, by),
        };
        return Ok((text, 0));
    }
    let ended = loop {
        let found = daemon.find(&["runs", &token]).await?;
        match found {
            Some(found) if found["run"].is_object() => break found,
            Some(_) => clock.sleep_until(clock.now().mono + EVERY).await,
            None => {
                let why = format!("run {token} has left nothing behind: the daemon was stopped before it began");
                return Err(Failure::new(exit::UNAVAILABLE, why));
            }
        }
    };
    let verdict = ended["run"]["verdict"].as_str().and_then(|verdict| verdict.parse().ok());
    let text = match asked.asking.format {
        Format::Json => format!("{ended:#}\n"),
        Format::Text => format!("{}  {}\nrun   {token}\n", asked.journey, text(&ended["run"]["summary"])),
    };
    Ok((text, exit_code_of(verdict.unwrap_or(Verdict::Unknown))))
}

fn begun(run: &Value, by: &str) -> String {
    let (journey, token) = (text(&run["journey"]), text(&run["token"]));
    let first = match text(&run["by"]) {
        first if first == by => String::new(),
        first => format!(" ({first} asked for it already)"),
    };
    let page = run["page"].as_str().map_or(String::new(), |page| format!("\n{page}"));
    format!("{journey} is run again: run {token}{first}{page}\n")
}
