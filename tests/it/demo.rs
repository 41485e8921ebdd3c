//! `journeyman demo` as people start it: where what it prints leads to.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Process, START, Scratch, block_on, wait_for};

/// What the demo promises.
const PROMISED: Duration = Duration::from_secs(120);
const DRILLED: &str = "order-pipeline";

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The address that the demo prints beside this word.
async fn printed(log: &Path, word: &str) -> String {
    wait_for(&format!("the demo to say where its {word} is"), START, async || {
        let said = said(log);
        let line = said.lines().find_map(|line| line.trim_start().strip_prefix(word))?;
        Some(line.trim().to_owned()).filter(|url| url.starts_with("http://"))
    })
    .await
}

async fn get(url: &str) -> Option<String> {
    reqwest::get(url).await.ok()?.text().await.ok()
}

async fn list(url: &str, of: &str) -> Vec<Value> {
    let text = get(url).await.unwrap_or_default();
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"));
    answer[of].as_array().unwrap_or_else(|| panic!("{url} has no `{of}`: {text}")).clone()
}

#[test]
fn within_two_minutes_a_drill_has_passed_and_it_told_nobody_of_an_outage() {
    block_on(async {
        let scratch = Scratch::new("demo");
        let log = scratch.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_journeyman"));
        let command = command.arg("demo").env("TMPDIR", scratch.path()).current_dir(scratch.path());
        let mut demo = Process::start("journeyman demo", command, &log);
        let drills = printed(&log, "drills").await;
        let inbox = printed(&log, "alert inbox").await;
        let page = wait_for("a drill that passed", PROMISED, async || {
            get(&drills).await.filter(|page| page.contains("✓ passed"))
        })
        .await;
        assert!(page.contains(&format!("<bdi>{DRILLED}</bdi>")) && page.contains("by <bdi>schedule</bdi>"), "{page}");

        let api = format!("{}api/v1", drills.trim_end_matches("drills"));
        let notices = list(&format!("{api}/outbox"), "notices").await;
        let is_drill = |notice: &&Value| notice["incident"].as_str().is_some_and(|id| id.starts_with("drill-"));
        let (rehearsed, real): (Vec<_>, Vec<_>) = notices.iter().partition(is_drill);
        assert!(
            rehearsed.len() >= 2 && rehearsed.iter().all(|notice| notice["notifier"] == "drill-mail"),
            "{notices:#?}"
        );
        assert!(real.iter().all(|notice| notice["notifier"] != "drill-mail"), "{notices:#?}");
        let incidents = list(&format!("{api}/incidents"), "incidents").await;
        assert!(!serde_json::to_string(&incidents).expect("it is JSON").contains(DRILLED), "{incidents:#?}");
        let inbox = get(&inbox).await.expect("the inbox is there");
        assert!(inbox.contains("drills@demo.invalid") && inbox.contains(">DRILL "), "{inbox}");

        demo.signal("TERM");
        assert_eq!(demo.wait_for_exit(START).await, 0, "{}", said(&log));
    });
}
