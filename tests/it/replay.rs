//! The recorded runs tell again what the daemon told, and what it would have told with another policy.

use std::path::Path;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use journeyman::app::replay::replay;
use journeyman::config;
use journeyman::control::{Matcher, Silence};
use journeyman::incident::NotifyReason;
use journeyman::time::between;
use serde_json::Value;

use crate::support::command::{journeyman, run};
use crate::support::daemon::{Daemon, Setup};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, server_binary, wait_for};

const BOUND: Duration = Duration::from_secs(30);

/// What the daemon owes or has told: reason, incident, whom. An incident's id is made of its journey and its first bad slot.
fn owed(store: &Path) -> Vec<(String, String, String)> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(store, flags).expect("the store opens");
    let mut rows =
        store.prepare("SELECT notification, incident, notifier FROM outbox ORDER BY created, id").expect("a statement");
    let row = |row: &rusqlite::Row<'_>| {
        let notification: Value = serde_json::from_str(&row.get::<_, String>(0)?).expect("it is JSON");
        let reason = notification["reason"].as_str().expect("it has a reason").to_owned();
        Ok((reason, row.get(1)?, row.get(2)?))
    };
    rows.query_map([], row).expect("rows").map(|row| row.expect("a row")).collect()
}

async fn runs(daemon: &Daemon, outcome: &str) -> f64 {
    daemon.metric("journeyman_runs_total", &[("outcome", outcome)]).await.unwrap_or(0.0)
}

async fn wait_for_more(daemon: &Daemon, outcome: &str, more: f64) {
    let before = runs(daemon, outcome).await;
    wait_for("more runs", BOUND, async || (runs(daemon, outcome).await >= before + more).then_some(())).await;
}

async fn replayed(directory: &Path, more: &[&str]) -> Value {
    let mut arguments = vec!["replay", "--config", "journeyman.toml", "--from", "1h", "--format", "json"];
    arguments.extend(more);
    let ended = journeyman(directory, &arguments).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn told(list: &Value) -> Vec<(String, String, String)> {
    let text = |told: &Value, key: &str| told[key].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
    let told = list.as_array().expect("a list").iter();
    told.map(|told| (text(told, "reason"), text(told, "incident"), text(told, "notifier"))).collect()
}

#[test]
fn a_recorded_history_tells_again_what_the_daemon_told() {
    block_on(async {
        let target = Target::start(1).await;
        let config = "[notifiers.people]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n";
        let probes = |down_after: u32| {
            format!(
                "[[journey]]\nname = \"loop\"\nevery = \"250ms\"\ndeadline = \"20s\"\nnotify = [\"people\"]\n\
                 alert = {{ down_after = {down_after}, partial = false }}\n\
                 [[journey.step]]\nrequest = \"{}/0\"\nexpect = [{{ status = 204 }}]\n",
                target.url()
            )
        };
        let daemon = Setup::new("replay").start(config, &probes(4)).await;
        for mode in [Mode::Well, Mode::Fails, Mode::Well, Mode::Fails, Mode::Well] {
            target.set_all(mode);
            wait_for_more(&daemon, if mode == Mode::Well { "good" } else { "failed" }, 8.0).await;
        }
        let wanted: Vec<_> = ["first", "resolved", "first", "resolved"].map(str::to_owned).into();
        let expected = wait_for("two incidents", BOUND, async || {
            Some(owed(daemon.store_path())).filter(|owed| owed.len() >= wanted.len())
        })
        .await;
        assert_eq!(expected.iter().map(|owed| owed.0.clone()).collect::<Vec<_>>(), wanted);

        // Beside the daemon, which goes on.
        let directory = daemon.directory();
        let same = replayed(directory, &[]).await;
        assert_eq!(told(&same["present"]), expected);
        assert!(same["changed"].is_null());
        assert_eq!(same["counts"]["loop"][0]["pages"], 2);

        std::fs::write(directory.join("patient.toml"), probes(900)).unwrap();
        let patient = replayed(directory, &["--policy", "patient.toml", "--journey", "loop"]).await;
        assert_eq!(told(&patient["present"]), expected, "the present is as it was");
        assert_eq!(told(&patient["changed"]), [], "nothing failed 900 times in a row");
        std::fs::write(directory.join("hasty.toml"), probes(1)).unwrap();
        let hasty = replayed(directory, &["--policy", "hasty.toml"]).await;
        let at = |list: &str| hasty[list][0]["at"].as_str().expect("a time").to_owned();
        assert!(at("changed") < at("present"), "{hasty:#}");
        assert_eq!(hasty["changed"][0]["said"], "1 failed runs in a row (down_after = 1)");

        let text = journeyman(directory, &["replay", "--config", "journeyman.toml", "--policy", "patient.toml"]).await;
        assert!(text.stdout.contains("2 -> 0") && text.stdout.contains("\n- 20"), "{}", text.stdout);

        // From within the second incident on: it had begun before, and only its end is news.
        let time = |nth: usize| -> Timestamp { same["present"][nth]["at"].as_str().unwrap().parse().unwrap() };
        let (from, now) = (time(2) + 1.millisecond(), time(3) + 1.second());
        let length = between(from, now);
        let (plan, _) = config::load(&directory.join("journeyman.toml")).expect("it was run");
        let late = replay(&plan, None, &[], length, now, &mut |_| {}).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(
            late.present.iter().map(|told| (told.at, told.reason)).collect::<Vec<_>>(),
            [(time(3), NotifyReason::Resolved)]
        );

        // As if somebody had known of the first.
        let silence = Silence {
            id: "s".to_owned(),
            matchers: vec![Matcher::equals("journey", "loop")],
            from: time(0) - 1.second(),
            until: time(1) + 1.millisecond(),
            until_resolved: false,
            exclude_from_slo: false,
            pauses: false,
            reason: "a release".to_owned(),
            author: "ada".to_owned(),
        };
        let store = rusqlite::Connection::open(daemon.store_path()).unwrap();
        store.busy_timeout(BOUND).unwrap();
        let state = serde_json::to_string(&silence).unwrap();
        store.execute("INSERT INTO silence VALUES (?, ?, ?)", ("s", silence.until.as_millisecond(), state)).unwrap();
        assert_eq!(told(&replayed(directory, &[]).await["present"]), expected[2..]);
    });
}

#[test]
fn what_cannot_be_replayed_is_said() {
    block_on(async {
        let target = Target::start(1).await;
        let probe = |name: &str, policy: &str| {
            format!(
                "[[journey]]\nname = \"{name}\"\nevery = \"250ms\"\nmuted = true\nalert = {{ {policy} }}\n\
                 [[journey.step]]\nrequest = \"{}/0\"\n",
                target.url()
            )
        };
        let daemon = Setup::new("replay").start("", &probe("loop", "")).await;
        let directory = daemon.directory();
        let bad = async |more: &[&str]| {
            let mut arguments = vec!["replay", "--config", "journeyman.toml"];
            arguments.extend(more);
            let ended = journeyman(directory, &arguments).await;
            (ended.code, ended.stderr)
        };
        let (code, said) = bad(&["--journey", "pool"]).await;
        assert!(code == 64 && said.contains("no journey is named `pool`; there are: loop"), "{said}");
        std::fs::write(directory.join("other.toml"), probe("other", "down_after = 2")).unwrap();
        let (code, said) = bad(&["--policy", "other.toml"]).await;
        assert!(code == 64 && said.contains("no journey is named `other`"), "{said}");
        std::fs::write(directory.join("wrong.toml"), probe("loop", "down_aftr = 2")).unwrap();
        let (code, said) = bad(&["--policy", "wrong.toml"]).await;
        assert!(code == 78 && said.contains("wrong.toml:5:") && said.contains("down_after"), "{said}");
        let (code, said) = bad(&["--from", "soon"]).await;
        assert!(code == 64 && said.contains("`soon` is not a duration"), "{said}");
    });
}

/// Half a million runs take a while: on a terminal it is seen how far that is, and in a pipe nothing is.
#[test]
fn on_a_terminal_it_is_seen_how_far_it_is() {
    let Some(script) = server_binary("script", "bsdutils") else { return };
    block_on(async {
        let target = Target::start(1).await;
        let probes = format!(
            "[[journey]]\nname = \"loop\"\nevery = \"1s\"\nmuted = true\n[[journey.step]]\nrequest = \"{}/0\"\n",
            target.url()
        );
        let mut daemon = Setup::new("replay-long").start("", &probes).await;
        wait_for_more(&daemon, "good", 1.0).await;
        daemon.kill().await;
        let store = rusqlite::Connection::open(daemon.store_path()).unwrap();
        let fill = "INSERT OR IGNORE INTO run SELECT journey, slot - at * 1000, outcome, latency, late_by
            FROM (SELECT * FROM run LIMIT 1), (WITH RECURSIVE a(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM a WHERE at < 500000)
            SELECT at FROM a)";
        let filled = store.execute(fill, []).unwrap();
        assert!(filled > 400_000, "{filled}");
        drop(store);
        let directory = daemon.directory();
        let piped = journeyman(directory, &["replay", "--config", "journeyman.toml"]).await;
        assert_eq!((piped.code, piped.stderr.as_str()), (0, ""), "{piped:#?}");
        let mut command = tokio::process::Command::new(script);
        let program = format!("{} replay --config journeyman.toml", env!("CARGO_BIN_EXE_journeyman"));
        command.args(["--quiet", "--return", "--command", &program, "/dev/null"]).current_dir(directory);
        let shown = run(command).await;
        assert_eq!(shown.code, 0, "{shown:#?}");
        assert!(shown.stdout.matches("\rreplaying  ▕").count() >= 2, "{shown:#?}");
        let (_, last) = shown.stdout.rsplit_once("\r\u{1b}[K").expect("what was drawn is wiped off");
        let steady = |text: &str| text.lines().skip(1).map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(steady(last), steady(&piped.stdout), "and the result is the same");
    });
}
