//! Who watches the watcher: the monitor's own journey, the switches outside that it feeds, and what both say when a part breaks.

#![expect(clippy::unwrap_used, reason = "what a test cannot read is a failed test")]

mod boots;
mod observer;
mod preflight;
mod watchdog;

use std::collections::BTreeSet;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};
use crate::support::hook::{Hook, Request, status};
use crate::support::proxy::Proxy;
use crate::support::table::Table;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// The product's promise: any part that breaks is shown to be bad by then.
const BAD_WITHIN: Duration = Duration::from_secs(15);
/// What a poll and a busy machine add to it.
const SLACK: Duration = Duration::from_secs(5);
/// Whoever knows it can call in the daemon's place.
const KEY: &str = "5b1e0b6e-canary-4711-8c3f";
/// Quicker than anyone would have it: the journey every second, the switch every other.
const QUICK: &str = "[self_journey]\nevery = \"1s\"\n";
const EVERY: Duration = Duration::from_secs(2);
const JOURNEY: &str = "
    [[journey]]
    name = \"loop\"
    every = \"500ms\"
    deadline = \"5s\"
    step = [{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }, { name = \"in\", receive = \"loop\" }]";
const LOOP: &str = "[channels.loop]\ntype = \"memory\"\n";

/// A switch outside.
async fn switch(setup: &Setup) -> (Hook, String) {
    let hook = Hook::start([]).await;
    setup.write("switch", &hook.url(&format!("/ping/{KEY}")));
    (hook, format!("{QUICK}[dead_man]\nurl = {{ file = \"switch\" }}\nevery = \"2s\"\n"))
}

/// The calls of one kind that a switch took: ``, `/start`, `/fail`.
fn calls(hook: &Hook, suffix: &str) -> Vec<Request> {
    let is_it = |request: &Request| request.head.starts_with(&format!("POST /ping/{KEY}{suffix}?rid="));
    hook.requests().into_iter().filter(is_it).collect()
}

async fn alive(hook: &Hook) {
    let before = calls(hook, "").len();
    wait_for("calls that all is well", SOON, async || (calls(hook, "").len() >= before + 2).then_some(())).await;
}

async fn health(daemon: &Daemon) -> (StatusCode, Value) {
    let (status, text) = daemon.get("/health").await;
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Waits until a part is as it should be; how long that took.
async fn until_part(daemon: &Daemon, part: &str, ok: bool, bound: Duration) -> (Duration, Value) {
    let clock = Clock::system();
    let began = clock.now().mono;
    let found = wait_for(&format!("{part} to be {ok}"), bound, async || {
        let (_, health) = health(daemon).await;
        let found = health["components"][part].clone();
        (found["ok"] == ok).then_some(found)
    })
    .await;
    (clock.now().mono.since(began), found)
}

#[test]
fn the_own_journey_goes_all_the_way_and_only_its_tail_says_that_all_is_well() {
    block_on(async {
        let setup = Setup::new("own");
        let (hook, watched) = switch(&setup).await;
        let daemon = setup.start(&format!("{watched}{LOOP}"), JOURNEY).await;
        alive(&hook).await;

        let starts = calls(&hook, "/start");
        assert_eq!(starts.len(), 1, "one life of the daemon");
        let first: Value = starts[0].json();
        assert_eq!((&first["signal"], &first["boot"]), (&"start".into(), &1.into()));
        let last: Value = calls(&hook, "").pop().unwrap().json();
        assert_eq!(last["signal"], "success");
        assert_eq!((&last["journeys_enabled"], &last["journeys_fresh"]), (&1.into(), &1.into()), "{last}");
        assert!(last["oldest_verdict_age_seconds"].as_f64().unwrap() < 5.0, "{last}");
        assert_eq!(last["outbox_age_seconds"], 0.0);
        assert_eq!(last["configuration"].as_str().unwrap().len(), 12);
        let rid = |request: &Request| request.head.split_once("rid=").unwrap().1[..36].to_owned();
        assert!(calls(&hook, "").iter().chain(&starts).all(|request| rid(request) == rid(&starts[0])), "one run");

        let (answer, health) = health(&daemon).await;
        assert_eq!((answer, &health["status"]), (StatusCode::OK, &"ok".into()), "{health:#}");
        let parts = &health["components"];
        for part in ["loop scheduler", "loop evaluator", "loop delivery", "loop switchboard", "loop store", "store"] {
            assert!(
                parts[part]["age_seconds"].as_f64().unwrap() < parts[part]["limit_seconds"].as_f64().unwrap(),
                "{part}"
            );
            assert_eq!(parts[part]["critical"], true);
        }
        for part in ["self-journey", "dead man 1", "channel loop"] {
            assert!(parts[part]["last_success"].is_string(), "{part}: {health:#}");
        }
        assert!(
            parts["configuration"]["detail"].as_str().unwrap().starts_with(last["configuration"].as_str().unwrap())
        );
        assert_eq!(parts["boots"]["detail"], "start 1");

        // Nobody's journey, nobody's notice.
        let (_, journeys) = daemon.get("/api/v1/journeys").await;
        assert!(!journeys.contains("journeyman\""), "{journeys}");
        let (_, outbox) = daemon.get("/api/v1/outbox").await;
        assert_eq!(serde_json::from_str::<Value>(&outbox).unwrap()["notices"], serde_json::json!([]));
        let (_, page) = daemon.get("/").await;
        assert!(page.contains("All 1 journeys are well") && page.contains("its own journey"), "{page}");
        assert_eq!(daemon.get("/journeys/journeyman").await.0, StatusCode::OK);
        let runs = [("journey", "journeyman"), ("outcome", "good")];
        assert!(daemon.metric("journeyman_runs_total", &runs).await.unwrap() >= 1.0);
        for family in ["self_journey_last_success", "dead_man_last_success"] {
            let at = daemon.metric(&format!("journeyman_{family}_timestamp_seconds"), &[]).await.unwrap();
            assert!(Clock::system().now().wall.as_second() as f64 - at < 30.0, "{family}");
        }
        assert_eq!(daemon.metric("journeyman_dead_man_failures_total", &[("switch", "1")]).await, Some(0.0));
        assert!(!daemon.log().contains(KEY) && !daemon.get("/health").await.1.contains(KEY));
    });
}

#[test]
fn strangers_do_not_get_in_by_the_own_door() {
    block_on(async {
        let setup = Setup::new("door");
        let door = setup.hook_url("/.journeyman/own");
        let daemon = setup.start(QUICK, "").await;
        until_part(&daemon, "self-journey", true, SOON).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(&door).bearer_auth("guess").body("{}").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn without_a_listener_it_goes_through_memory() {
    block_on(async {
        let setup = Setup::new("memory");
        let config = format!(
            "probes = []\n[http]\nlisten = \"{}\"\n[store]\nurl = \"sqlite:{}\"\n{QUICK}",
            setup.http_address(),
            setup.store_path().display()
        );
        setup.write("journeyman.toml", &config);
        let daemon = setup.start_as_written().await;
        wait_for("a whole round", SOON, async || {
            let last = daemon.metric("journeyman_self_journey_last_success_timestamp_seconds", &[]).await?;
            (last > 0.0).then_some(())
        })
        .await;
    });
}

/// From a fault until the last call that all is well, once there was none for three intervals.
async fn silent(hook: &Hook) -> Duration {
    let clock = Clock::system();
    let began = clock.now().mono;
    let (mut count, mut last) = (calls(hook, "").len(), began);
    wait_for("silence", SOON * 2, async || {
        let (now, found) = (clock.now().mono, calls(hook, "").len());
        if found > count {
            (count, last) = (found, now);
        }
        (now.since(last) >= EVERY * 3).then_some(())
    })
    .await;
    last.since(began)
}

#[test]
fn whatever_ends_us_the_switch_outside_hears_nothing_more() {
    block_on(async {
        let mut table = Table::new("watcher", "1-silence", &["fault", "last call that all is well after it, s"]);
        let mut row = |fault: &str, silent: Duration| {
            table.row(&[&fault, &format!("{:.1}", silent.as_secs_f64())]);
            assert!(silent <= EVERY + SLACK, "{fault}: {silent:?}");
        };
        let setup = Setup::new("silence");
        let (hook, watched) = switch(&setup).await;
        let hooks = Proxy::start(setup.hooks_address()).await;
        let public = format!("[hooks]\npublic_url = \"http://{}\"\n", hooks.address());
        let mut daemon = setup.start(&format!("\n{public}{watched}{LOOP}"), JOURNEY).await;

        alive(&hook).await;
        daemon.signal("STOP");
        row("SIGSTOP", silent(&hook).await);
        daemon.signal("CONT");
        alive(&hook).await;
        hooks.refuse(true);
        row("our own door is shut to the world", silent(&hook).await);
        let (_, part) = until_part(&daemon, "self-journey", false, BAD_WITHIN + SLACK).await;
        assert!(part["cause"].as_str().unwrap().contains("limit"), "{part}");
        // A verdict that it did not get there is passed on as well, and says nothing of the kind.
        let before = calls(&hook, "").len();
        let failed = [("journey", "journeyman"), ("outcome", "failed")];
        wait_for("failed rounds", SOON * 2, async || {
            daemon.metric("journeyman_runs_total", &failed).await.filter(|runs| *runs >= 2.0)
        })
        .await;
        assert_eq!((silent(&hook).await, calls(&hook, "").len()), (Duration::ZERO, before));
        hooks.refuse(false);
        alive(&hook).await;
        until_part(&daemon, "self-journey", true, SOON).await;
        daemon.kill().await;
        row("SIGKILL", silent(&hook).await);
    });
}

#[test]
fn a_switch_that_refuses_is_shown_and_not_stormed() {
    block_on(async {
        let setup = Setup::new("refusing");
        let hook = Hook::start_with([], |_| status("500 Internal Server Error")).await;
        setup.write("switch", &hook.url(&format!("/ping/{KEY}")));
        let watched = format!("{QUICK}[dead_man]\nurls = [{{ file = \"switch\" }}]\nevery = \"2s\"\n");
        let daemon = setup.start(&watched, "").await;
        let clock = Clock::system();
        let began = clock.now().mono;
        let (_, part) = until_part(&daemon, "dead man 1", false, SOON).await;
        assert!(part["cause"].as_str().unwrap().contains("500"), "{part}");
        assert_eq!(part["critical"], false);
        wait_for("five calls", SOON, async || (calls(&hook, "").len() >= 5).then_some(())).await;
        let took = clock.now().mono.since(began);
        assert!(took >= EVERY * 3, "five calls within {took:?}");
        let failures = daemon.metric("journeyman_dead_man_failures_total", &[("switch", "1")]).await.unwrap();
        assert!(failures >= 5.0);
        assert!(!daemon.log().contains(KEY) && !daemon.get("/health").await.1.contains(KEY), "{}", daemon.log());
    });
}

#[test]
fn the_switch_hears_at_once_of_a_store_that_fails_and_of_notices_that_reach_nobody() {
    block_on(async {
        let mut table = Table::new("watcher", "2-fail", &["fault", "until /fail, s"]);
        let setup = Setup::new("fail");
        let (hook, watched) = switch(&setup).await;
        let nowhere = Hook::start_with([], |_| status("404 Not Found")).await;
        let notifiers = format!(
            "[notifiers.first]\ntype = \"webhook\"\nurl = \"{0}\"\nfallback = \"second\"\n\
             [notifiers.second]\ntype = \"webhook\"\nurl = \"{0}\"\n",
            nowhere.url("/")
        );
        let target = Target::start(1).await;
        let down = format!(
            "
            [[journey]]
            name = \"down\"
            every = \"500ms\"
            notify = [\"first\"]
            alert = {{ down_after = 1, flapping = false }}
            step = [{{ request = \"{}/0\" }}]",
            target.url()
        );
        let store = setup.store_path().to_owned();
        let daemon = setup.start(&format!("{watched}{LOOP}{notifiers}"), &format!("{JOURNEY}{down}")).await;
        alive(&hook).await;
        assert!(calls(&hook, "/fail").is_empty());

        let clock = Clock::system();
        let fail = async |fault: &str, table: &mut Table| {
            let (before, began) = (calls(&hook, "/fail").len(), clock.now().mono);
            wait_for(fault, SOON, async || (calls(&hook, "/fail").len() > before).then_some(())).await;
            let took = clock.now().mono.since(began);
            table.row(&[&fault, &format!("{:.1}", took.as_secs_f64())]);
            let trouble: Value = calls(&hook, "/fail").pop().unwrap().json();
            trouble["trouble"].as_str().unwrap().to_owned()
        };
        // Nobody else may write: as good as a disk that says no.
        let lock = Connection::open(&store).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let trouble = fail("the store takes no commits", &mut table).await;
        assert!(trouble.contains("the store fails"), "{trouble}");
        let (took, part) = until_part(&daemon, "store", false, BAD_WITHIN + SLACK).await;
        assert!(took <= BAD_WITHIN + SLACK, "{part}");
        lock.execute_batch("ROLLBACK").unwrap();
        until_part(&daemon, "store", true, SOON).await;
        wait_for("the storage notice to be given up", SOON, async || daemon.log().contains("given up").then_some(()))
            .await;

        target.set(0, Mode::Fails);
        let trouble = fail("every notifier of a chain refuses", &mut table).await;
        assert!(trouble.contains("reach nobody"), "{trouble}");
        let (answer, health) = health(&daemon).await;
        assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health["components"]["notifier first"]["ok"], false, "{health:#}");
    });
}
