//! A journey that became slow within its budget: a warning, once, which ends when it is as fast again. Over crashes and restarts.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::journey::outcome::Outcome;
use journeyman::journey::report::Report;
use journeyman::journey::token::Mint;
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Change, Store};
use journeyman::time::earlier;
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};
use crate::support::hook::Hook;
use crate::support::{block_on, wait_for};

const BOUND: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const SLOW: i64 = 412_000;
const USUAL: i64 = 268_000;

/// Eight hours of runs a minute on each of the last eight days; those of today were slow.
async fn write_history(store: &Path, now: Timestamp) {
    const JOURNEYS: [&str; 2] = ["quiet", "orders"];
    let store = Sqlite::open(store).expect("the store opens");
    let mint = Mint::new(store.key().await.expect("a key"), 1);
    for day in 0..8 {
        let run = |journey: &str, minute: u32| {
            let slot = earlier(now, DAY * day + MINUTE * minute + Duration::from_secs(1));
            let latency = Duration::from_micros(if day == 0 { SLOW } else { USUAL } as u64);
            Report {
                journey: journey.into(),
                token: mint.issue(slot),
                slot,
                started: slot,
                latency,
                outcome: Outcome::Good { latency },
                lateness: Duration::ZERO,
                steps: Vec::new(),
                beneath: None,
                note: None,
                configuration: String::new(),
                version: String::new(),
            }
        };
        let runs = JOURNEYS.iter().flat_map(|journey| (0..480).map(move |minute| run(journey, minute)));
        let changes = runs.map(|report| Change::Run { report: Box::new(report), keep_evidence: false });
        store.apply(changes.collect()).await.expect("it is written");
    }
    store.close().await.expect("it closes");
}

fn is_as_usual_again(store: &Path) {
    let store = rusqlite::Connection::open(store).expect("the store opens");
    let changed =
        store.execute("UPDATE run SET latency = ?2 WHERE latency = ?1", [SLOW, USUAL]).expect("it is written");
    assert!(changed >= 900, "{changed}");
}

fn notices(hook: &Hook) -> Vec<Value> {
    hook.requests().iter().map(|request| request.json()).collect()
}

async fn notice(hook: &Hook, count: usize) -> Value {
    wait_for("a notice", BOUND, async || notices(hook).get(count - 1).cloned()).await
}

async fn journey(daemon: &Daemon) -> Value {
    let (_, body) = daemon.get("/api/v1/journeys/orders").await;
    serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{error}: {body}"))["journey"].clone()
}

#[test]
fn slower_than_in_the_days_before_is_a_warning_until_it_is_not() {
    block_on(async {
        let hook = Hook::start([]).await;
        let setup = Setup::new("drift");
        write_history(setup.store_path(), Clock::system().now().wall).await;
        let config = format!(
            "[channels.loop]\ntype = \"memory\"\n[notifiers.people]\ntype = \"webhook\"\nurl = \"{}\"\n\
             [defaults]\nevery = \"1m\"\nbudget = \"5s\"\nnotify = [\"people\"]\n",
            hook.url("/in")
        );
        // The first journey would be measured first, if anybody wanted to hear of it.
        let journey_of = |name: &str, alert: &str| {
            format!(
                "[[journey]]\nname = \"{name}\"\n{alert}\n\
                 step = [{{ send = \"loop\", text = \"{{{{ token }}}}\" }}, {{ receive = \"loop\" }}]\n"
            )
        };
        let probes = journey_of("quiet", "alert = { drift = false }") + &journey_of("orders", "");
        let mut daemon = setup.start(&config, &probes).await;
        let first = notice(&hook, 1).await;
        assert_eq!(
            (&first["reason"], &first["incident"]["severity"]),
            (&"first".into(), &"warning".into()),
            "{first:#}"
        );
        let said = "median 412ms, against 268ms in the same hours of 7 days before (54 % slower; ";
        assert!(first.to_string().contains(said), "{first:#}");
        let shown = async || Some(journey(&daemon).await).filter(|shown| shown["state"] == "slow");
        let shown = wait_for("the page", BOUND, shown).await;
        assert_eq!(shown["incident"]["detectors"], serde_json::json!(["drift"]));

        // A crash forgets nothing and tells nothing twice, once it is on disk that it was told.
        wait_for("the receipt on disk", BOUND, async || {
            daemon.metric("journeyman_outbox_pending", &[]).await.filter(|owed| *owed == 0.0)
        })
        .await;
        daemon.kill().await;
        daemon.start_again().await;
        assert_eq!(journey(&daemon).await["state"], "slow");
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        assert_eq!(notices(&hook).len(), 1);

        is_as_usual_again(daemon.store_path());
        daemon.start_again().await;
        let over = notice(&hook, 2).await;
        assert_eq!(
            (&over["reason"], &over["incident"]["id"]),
            (&"resolved".into(), &first["incident"]["id"]),
            "{over:#}"
        );
        assert!(over.to_string().contains("nothing that was found holds any more"), "{over:#}");
        assert!(journey(&daemon).await["incident"].is_null());
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}
