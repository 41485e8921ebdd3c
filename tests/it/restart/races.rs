//! Calls that come when nobody expects them: before their send is over, twice, late, from nobody, while we stop.

use std::time::Duration;

use journeyman::journey::token::{Mint, Token};
use serde_json::json;

use super::system::System;
use super::{BOUND, HOOK, configuration, kept_waiting, store, verdict, verdicts};
use crate::support::daemon::{Daemon, Setup};
use crate::support::table::Table;
use crate::support::{block_on, wait_for};

async fn arrivals(daemon: &Daemon, kind: &str) -> f64 {
    daemon.metric("journeyman_arrivals_total", &[("kind", kind)]).await.unwrap_or(0.0)
}

async fn counted(daemon: &Daemon, kind: &str, at_least: f64) {
    let what = format!("{at_least} arrivals that are {kind}");
    wait_for(&what, BOUND, async || (arrivals(daemon, kind).await >= at_least).then_some(())).await;
}

#[test]
fn a_call_is_what_it_is_whenever_it_comes() {
    block_on(async {
        let mut table = Table::new("restart", "t23", &["T23, a call that comes", "came to"]);
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, HOOK, "hook", "4s");
        let mut daemon = Setup::new("races").start(&main, &probes).await;
        let hook = daemon.hook_url("/hook");

        system.hold_answers(true);
        let taken = system.take().await;
        assert!(system.call(&hook, &taken.token.to_string()).await, "a token is expected before it is sent");
        system.hold_answers(false);
        let early = verdict(&daemon, taken.token).await;
        assert_eq!(early, "good", "{}", daemon.log());
        table.row(&[&"before its send was answered", &early]);

        let before = arrivals(&daemon, "duplicate").await;
        assert!(system.call(&hook, &taken.token.to_string()).await);
        counted(&daemon, "duplicate", before + 1.0).await;
        table.row(&[&"a second time", &"duplicate, counted; the verdict stays"]);

        let taken = system.take().await;
        assert_eq!(verdict(&daemon, taken.token).await, "failed(not_received)", "{}", daemon.log());
        assert!(system.call(&hook, &taken.token.to_string()).await);
        wait_for("the run to be late", BOUND, async || {
            verdicts(&daemon, "trip").iter().any(|(_, verdict)| verdict == "late(not_received)").then_some(())
        })
        .await;
        table.row(&[&"after its deadline", &"late(not_received)"]);

        let stranger = Mint::new([7; 32], 1).issue(taken.token.issued());
        let forged = Token::from_bits(taken.token.bits() ^ 1);
        for (token, kind) in [(stranger, "foreign"), (forged, "forged")] {
            assert!(system.call(&hook, &token.to_string()).await);
            counted(&daemon, kind, 1.0).await;
            table.row(&[&format!("with a {kind} token"), &"counted, and nothing is kept"]);
        }
        let kept: i64 = store(&daemon).query_row("SELECT count(*) FROM arrival", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 0, "what something followed from, and what nobody would miss, is not kept");

        while system.try_take().is_some() {}
        let taken = system.take().await;
        kept_waiting(&daemon, taken.token).await;
        daemon.signal("TERM");
        wait_for("the drain to begin", BOUND, async || daemon.log().contains("stopping: no new").then_some(())).await;
        assert!(system.call(&hook, &taken.token.to_string()).await);
        assert_eq!(daemon.wait_for_exit().await, 0, "{}", daemon.log());
        let stopping = verdict(&daemon, taken.token).await;
        assert!(["good", "slow"].contains(&stopping.as_str()), "{stopping}\n{}", daemon.log());
        table.row(&[&"while we stop", &stopping]);
        assert!(!system.call(&hook, "nobody is there").await);
    });
}

/// A late call that was answered, and the daemon killed before anything followed from it, is told after the start.
#[test]
fn a_late_call_outlives_whoever_took_it() {
    block_on(async {
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, HOOK, "hook", "1s");
        let mut daemon = Setup::new("races").start(&main, &probes).await;
        let taken = system.take().await;
        assert_eq!(verdict(&daemon, taken.token).await, "failed(not_received)");
        daemon.kill().await;
        // As the call left it, of which nothing has followed: the daemon is quicker than any signal.
        let arrival = json!({
            "channel": "hook",
            "at": { "wall": taken.token.issued().to_string(), "mono": { "secs": 5, "nanos": 0 } },
            "message": { "body": { "text": taken.token.to_string() } },
        });
        let journal = rusqlite::Connection::open(daemon.store_path()).unwrap();
        let row = rusqlite::params![taken.token.bits().to_be_bytes(), arrival.to_string()];
        journal.execute("INSERT INTO arrival (token, message) VALUES (?, ?)", row).unwrap();
        drop(journal);
        daemon.start_again().await;
        wait_for("the run to be late", Duration::from_secs(20), async || {
            (verdict(&daemon, taken.token).await == "late(not_received)").then_some(())
        })
        .await;
    });
}
