//! Stopping with much in flight and much owed: quickly, and nothing is forgotten.

use std::fmt::Write as _;
use std::time::Duration;

use journeyman::clock::Clock;

use super::system::System;
use super::{BOUND, HOOK, check_slots, configuration, kept_waiting, store, verdict};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{Answer, FakeSlack, TOKEN};
use crate::support::table::Table;
use crate::support::{block_on, wait_for};

const RUNS: i64 = 200;
const ALERTS: i64 = 50;

async fn laden(slack: &FakeSlack) -> Daemon {
    slack.add_channel("C0STOP", "stop", true);
    slack.script("chat.postMessage", std::iter::repeat_n(Answer::Hang, 10_000));
    let main = format!(
        "max_runs = 1000\n[alerting]\ngroup_by = []\ndigest_after = 1000\n[channels.loop]\ntype = \"memory\"\nmax_in_flight = 1000\n\
         [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"C0STOP\"\napi_url = \"{}\"\n",
        slack.url()
    );
    let mut probes = String::new();
    for n in 0..RUNS {
        let _ = writeln!(
            probes,
            "[[journey]]\nname = \"waits-{n}\"\nevery = \"2s\"\ndeadline = \"10m\"\nmuted = true\n\
             step = [{{ send = \"loop\", text = \"{{{{ token }}}}\", delay = \"9m\" }}, {{ receive = \"loop\" }}]"
        );
    }
    for n in 0..ALERTS {
        let _ = writeln!(
            probes,
            "[[journey]]\nname = \"fails-{n}\"\nevery = \"2s\"\ndeadline = \"1s\"\nnotify = [\"chat\"]\n\
             alert = {{ down_after = 1 }}\nstep = [{{ request = \"http://127.0.0.1:1/\" }}]"
        );
    }
    let setup = Setup::new("stop");
    setup.write("token", TOKEN);
    let daemon = setup.start(&main, &probes).await;
    wait_for("all to be under way, and owed", BOUND, async || {
        let (left, owed) = (count(&daemon, WAITING), count(&daemon, OWED));
        (left == RUNS && owed >= ALERTS).then_some(())
    })
    .await;
    daemon
}

const WAITING: &str = "SELECT count(*) FROM unfinished WHERE state LIKE '%receiving%'";
const OWED: &str = "SELECT count(*) FROM outbox WHERE status IN ('pending', 'leased', 'ambiguous')";

fn count(daemon: &Daemon, sql: &str) -> i64 {
    store(daemon).query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn two_hundred_runs_and_fifty_alerts_are_all_there_after_a_stop() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let mut daemon = laden(&slack).await;
        let clock = Clock::system();
        let began = clock.now().mono;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let drained = clock.now().mono.since(began);
        assert!(drained < Duration::from_secs(20), "{drained:?}");
        let (left, owed) = (count(&daemon, WAITING), count(&daemon, OWED));
        assert!(left == RUNS && owed >= ALERTS, "{left} runs, {owed} notices");

        daemon.start_again().await;
        wait_for("all to be under way again", BOUND, async || {
            (daemon.metric("journeyman_runs_in_flight", &[]).await? >= RUNS as f64).then_some(())
        })
        .await;
        assert!(count(&daemon, OWED) >= ALERTS);
        daemon.signal("TERM");
        wait_for("the drain to begin", BOUND, async || {
            (daemon.log().matches("stopping: no new runs").count() == 2).then_some(())
        })
        .await;
        let began = clock.now().mono;
        daemon.signal("TERM");
        assert_eq!(daemon.wait_for_exit().await, 128 + 15, "{}", daemon.log());
        let at_once = clock.now().mono.since(began);
        assert!(at_once < Duration::from_secs(1), "{at_once:?}");
        assert_eq!(count(&daemon, WAITING), RUNS);
        check_slots(&daemon, 2_000);

        let mut table = Table::new("restart", "t21", &["T21, stopping", "figure"]);
        table.row(&[&"runs in flight, alerts owed", &format!("{RUNS}, {owed}; Slack hangs")]);
        table.row(&[&"SIGTERM to the end", &format!("{drained:.1?}; all on disk")]);
        table.row(&[&"a second SIGTERM to the end", &format!("{at_once:.0?}; all on disk")]);
    });
}

#[test]
fn killed_in_the_drain_and_stopped_in_order_a_run_goes_on_all_the_same() {
    block_on(async {
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, HOOK, "hook", "30s");
        let mut table = Table::new("restart", "drain", &["case", "came to"]);
        for is_killed in [true, false] {
            let mut daemon = Setup::new("restart").start(&main, &probes).await;
            let hook = daemon.hook_url("/hook");
            let taken = system.take().await;
            kept_waiting(&daemon, taken.token).await;
            daemon.signal("TERM");
            wait_for("the drain to begin", BOUND, async || daemon.log().contains("stopping: no new").then_some(()))
                .await;
            match is_killed {
                true => daemon.kill().await,
                false => assert_eq!(daemon.wait_for_exit().await, 0, "{}", daemon.log()),
            }
            daemon.start_again().await;
            assert!(system.call(&hook, &taken.token.to_string()).await);
            let verdict = verdict(&daemon, taken.token).await;
            assert!(["good", "slow"].contains(&verdict.as_str()), "{verdict}\n{}", daemon.log());
            let case = if is_killed { "killed in the drain" } else { "stopped in order" };
            table.row(&[&format!("{case}, and the call came after the start"), &verdict]);
            daemon.kill().await;
            while system.try_take().is_some() {}
        }
    });
}

/// What is sent and not yet answered cannot be left to anyone.
#[test]
fn a_run_that_acts_has_ten_seconds_and_is_unknown_then() {
    block_on(async {
        let mut system = System::start().await;
        system.hold_answers(true);
        let main = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n{HOOK}", system.url());
        let probes = "[[journey]]\nname = \"trip\"\nevery = \"1s\"\ndeadline = \"5m\"\nmuted = true\n\
            step = [{ send = \"web\", path = \"/0\", text = \"{{ token }}\", timeout = \"4m\" }, { receive = \"hook\" }]\n";
        let mut daemon = Setup::new("restart").start(&main, probes).await;
        let taken = system.take().await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        assert_eq!(verdict(&daemon, taken.token).await, "unknown(shutdown)", "{}", daemon.log());
        assert!(daemon.log().contains("cutting runs"));
    });
}
