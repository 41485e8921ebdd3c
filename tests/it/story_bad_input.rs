//! What people and strangers get wrong, against the real daemon: bad files, bad arguments, taken places, hostile callers; and how
//! it stops. Each end has its exit code and words that say what to do.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::journey::token::{Mint, Token};
use reqwest::StatusCode;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::command::{Ended, journeyman, run};
use crate::support::daemon::{Daemon, Setup};
use crate::support::{Scratch, block_on, free_port, wait_for};

/// What waits for something that takes milliseconds on an idle machine.
const BOUND: Duration = Duration::from_secs(30);
/// Webhook counters are copied into the registry every five seconds.
const UPKEEP: Duration = Duration::from_secs(20);
/// Journeys of this file that are not to run while it is tested.
const NEVER: &str = "cron = \"0 0 29 2 *\"";

/// Everything that is wrong with these is to be said at once.
const BAD_DAEMON: &str = r#"
probes = ["probes/*.toml"]

[http]
listen = "LISTEN"
prot   = 9464

[hooks]
listen = "HOOKS"

[store]
url = "sqlite:state/journeyman.db"

[channels.shop]
type    = "htttp"
url     = "http://127.0.0.1:1/orders"

[channels.done]
type   = "webhook"
path   = "order-done"
verify = { scheme = "bearer", secret = { file = "secrets/not-there" } }

[notifiers.oncall]
type     = "email"
smtp     = "http://mail.example.net"
from     = "nobody in particular"
to       = ["ops@example.net"]
fallback = "nobody"
"#;
const BAD_PROBE: &str = r#"
[[journey]]
name     = "order"
every    = "30 seconds"
deadline = "20s"
notify   = ["onkall"]

  [[journey.step]]
  send = "shop"
  json = { id = "{{ tokn }}" }

  [[journey.step]]
  receive = "dome"
  expect  = [{ json = "$.[", equals = 1 }]

[[journey]]
name     = "checkout"
every    = "30s"
budget   = "1m"
deadline = "20s"
step     = [{ request = "http://127.0.0.1:1/" }]
"#;

#[test]
fn a_bad_configuration_ends_with_78_says_everything_at_once_and_nothing_is_applied() {
    block_on(async {
        // Whoever tried to bind them would end with 69.
        let taken = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [http, hooks] = taken.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
        let scratch = Scratch::new("bad-config");
        scratch.write("journeyman.toml", &BAD_DAEMON.replace("LISTEN", &http).replace("HOOKS", &hooks));
        scratch.write("probes/order.toml", BAD_PROBE);
        let before = files(scratch.path());

        let arguments = [vec!["run", "--config", "journeyman.toml"], vec!["check", "--config", "journeyman.toml"]];
        for arguments in arguments {
            let ended = journeyman(scratch.path(), &arguments).await;
            assert_eq!(ended.code, 78, "{ended:#?}");
            for (place, problem) in [
                ("journeyman.toml:6:1", "`prot`"),
                ("journeyman.toml:15:11", "htttp"),
                ("journeyman.toml:20:10", "path"),
                ("journeyman.toml:21:", "secrets/not-there"),
                ("journeyman.toml:25:12", "smtp"),
                ("journeyman.toml:26:12", "nobody in particular"),
                ("journeyman.toml:28:12", "nobody"),
                ("probes/order.toml:4:12", "30 seconds"),
                ("probes/order.toml:6:13", "onkall"),
                ("probes/order.toml:10:", "tokn"),
                ("probes/order.toml:13:13", "dome"),
                ("probes/order.toml:14:", "$.["),
                ("probes/order.toml:19:12", "longer than the deadline"),
            ] {
                assert!(ended.stderr.contains(place), "{place} ({problem}) is not in\n{}", ended.stderr);
                assert!(ended.stderr.contains(problem), "{problem} is not in\n{}", ended.stderr);
            }
            assert!(ended.stderr.contains("oncall"), "what was probably meant:\n{}", ended.stderr);
            assert_eq!(ended.stdout, "");
        }
        assert_eq!(files(scratch.path()), before, "nothing was made");
    });
}

#[test]
fn a_wrong_command_line_ends_with_64_and_says_what_is_right() {
    block_on(async {
        let scratch = Scratch::new("usage");
        let words = |ended: &Ended| assert_eq!((ended.code, ended.stdout.as_str()), (64, ""), "{ended:#?}");
        let flag = journeyman(scratch.path(), &["run", "--confg", "journeyman.toml"]).await;
        words(&flag);
        assert!(flag.stderr.contains("'--confg'") && flag.stderr.contains("'--config'"), "{}", flag.stderr);
        let command = journeyman(scratch.path(), &["chekc"]).await;
        words(&command);
        assert!(command.stderr.contains("'chekc'") && command.stderr.contains("'check'"), "{}", command.stderr);
        let format = journeyman(scratch.path(), &["once", "order", "--format", "yaml"]).await;
        words(&format);
        assert!(format.stderr.contains("text, json"), "{}", format.stderr);

        let help = journeyman(scratch.path(), &["--help"]).await;
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{help:#?}");
        assert!(["run", "check", "once", "demo", "health"].iter().all(|word| help.stdout.contains(word)), "{help:#?}");

        // The file that is looked for when none is named is named in the answer.
        let none = journeyman(scratch.path(), &["run"]).await;
        assert_eq!(none.code, 78, "{none:#?}");
        assert!(none.stderr.contains("config/journeyman.toml"), "{}", none.stderr);
        assert_eq!(files(scratch.path()), BTreeSet::new());
    });
}

#[test]
fn a_port_that_is_taken_ends_with_69_and_says_which_and_whose() {
    block_on(async {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        for (key, ports) in [("http", [address.port(), free_port()]), ("hooks", [free_port(), address.port()])] {
            let scratch = Scratch::new("port-taken");
            let [http, hooks] = ports;
            scratch.write(
                "journeyman.toml",
                &format!("[http]\nlisten = \"127.0.0.1:{http}\"\n[hooks]\nlisten = \"127.0.0.1:{hooks}\"\n"),
            );
            let ended = journeyman(scratch.path(), &["run", "--config", "journeyman.toml"]).await;
            assert_eq!(ended.code, 69, "{ended:#?}");
            for part in [&address.to_string(), &format!("`{key}.listen`"), "help: is another journeyman running?"] {
                assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
            }
        }
    });
}

#[test]
fn a_store_that_cannot_be_made_ends_with_73_and_says_where() {
    block_on(async {
        let scratch = Scratch::new("read-only");
        let (http, hooks) = (free_port(), free_port());
        let config = format!(
            "[http]\nlisten = \"127.0.0.1:{http}\"\n[hooks]\nlisten = \"127.0.0.1:{hooks}\"\n\
             [store]\nurl = \"sqlite:state/journeyman.db\"\n"
        );
        scratch.write("journeyman.toml", &config);
        let state = scratch.path().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o555)).unwrap();
        // Root writes where it likes.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let mut command = if is_root {
            let mut command = tokio::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", env!("CARGO_BIN_EXE_journeyman")]);
            command
        } else {
            tokio::process::Command::new(env!("CARGO_BIN_EXE_journeyman"))
        };
        command.args(["run", "--config", "journeyman.toml"]).current_dir(scratch.path());
        let ended = run(command).await;
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(ended.code, 73, "{ended:#?}");
        for part in ["state/journeyman.db", "Permission denied", "help: is the directory there, ours to write"] {
            assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
        }
        assert_eq!(files(&state), BTreeSet::new());
    });
}

#[test]
fn a_store_in_use_ends_the_second_daemon_with_75_and_leaves_the_first_alone() {
    block_on(async {
        let first = Daemon::start("", &idle_journey()).await;
        let second = Scratch::new("second");
        let ports = (free_port(), free_port());
        let config = format!(
            "[http]\nlisten = \"127.0.0.1:{}\"\n[hooks]\nlisten = \"127.0.0.1:{}\"\n[store]\nurl = \"sqlite:{}\"\n",
            ports.0,
            ports.1,
            first.store_path().display()
        );
        second.write("journeyman.toml", &config);
        let ended = journeyman(second.path(), &["run", "--config", "journeyman.toml"]).await;
        assert_eq!(ended.code, 75, "{ended:#?}");
        for part in ["in use by another process", "is another journeyman running on this store?"] {
            assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
        }
        let (status, body) = first.get("/ready").await;
        assert_eq!(status, StatusCode::OK, "{body}");
    });
}

/// A journey whose runs take longer than any drain.
const ENDLESS: &str = r#"
[[journey]]
name     = "endless"
every    = "500ms"
deadline = "5m"
step = [
  { name = "out", send = "loop", text = "{{ token }}", delay = "4m" },
  { name = "in", receive = "loop" },
]
"#;
const LOOP: &str = "[channels.loop]\ntype = \"memory\"\n";

#[test]
fn sigterm_drains_within_20_s_and_a_run_that_waits_goes_on_afterwards() {
    block_on(async {
        let mut daemon = Daemon::start(LOOP, ENDLESS).await;
        wait_for_run(&daemon).await;
        let clock = Clock::system();
        let began = clock.now().mono;
        daemon.signal("TERM");
        // While it drains it still answers, and says that it is not ready.
        wait_for("/ready to say no", BOUND, async || {
            let (status, body) = daemon.try_get("/ready").await.ok()?;
            (status == StatusCode::SERVICE_UNAVAILABLE).then_some(body)
        })
        .await;
        assert_eq!(daemon.wait_for_exit().await, 0, "{}", daemon.log());
        let took = clock.now().mono.since(began);
        assert!(took < Duration::from_secs(20), "{took:?}");

        daemon.start_again().await;
        wait_for_run(&daemon).await;
        assert!(daemon.log().contains("going on with what the process before left"), "{}", daemon.log());
        let (_, body) = daemon.get("/api/v1/journeys/endless/runs").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["runs"].as_array().unwrap().len(), 0, "it has no verdict yet: {body:#}");
    });
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    block_on(async {
        let mut daemon = Daemon::start(LOOP, ENDLESS).await;
        wait_for_run(&daemon).await;
        daemon.signal("TERM");
        wait_for("the drain to begin", BOUND, async || daemon.log().contains("stopping: no new runs").then_some(()))
            .await;
        let clock = Clock::system();
        let began = clock.now().mono;
        daemon.signal("TERM");
        assert_eq!(daemon.wait_for_exit().await, 128 + 15, "{}", daemon.log());
        let took = clock.now().mono.since(began);
        // The drain alone would take longer, because of the run under way; and it would end with 0.
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

async fn wait_for_run(daemon: &Daemon) {
    wait_for("a run under way", BOUND, async || {
        let in_flight = daemon.metric("journeyman_runs_in_flight", &[]).await?;
        (in_flight > 0.0).then_some(())
    })
    .await;
}

const HOOKS: &str = r#"
[channels.signed]
type     = "webhook"
path     = "/signed"
max_body = 1024
verify   = { scheme = "hmac", secret = { file = "hook-key" } }

[channels.bearer]
type     = "webhook"
path     = "/bearer"
max_body = 1024
verify   = { scheme = "bearer", secret = { file = "hook-token" } }
"#;
const HOOK_KEY: &str = "key-that-signs-2b7e1516";
const HOOK_TOKEN: &str = "token-that-opens-ae2a6abf";

#[test]
fn strangers_calls_are_refused_and_counted_and_leave_nothing_behind() {
    block_on(async {
        let setup = Setup::new("strangers");
        setup.write("hook-key", HOOK_KEY);
        setup.write("hook-token", HOOK_TOKEN);
        let probes = format!(
            "[[journey]]\nname = \"idle\"\n{NEVER}\nstep = [{{ send = \"out\", text = \"{{{{ token }}}}\" }}, \
             {{ receive = \"signed\" }}, {{ receive = \"bearer\" }}]\n"
        );
        let daemon = setup.start(&format!("[channels.out]\ntype = \"memory\"\n{HOOKS}"), &probes).await;
        let client = reqwest::Client::builder().no_proxy().timeout(BOUND).build().unwrap();
        let post = |path: &str| client.post(daemon.hook_url(path));
        let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

        let large = "x".repeat(1025);
        assert_eq!(status(post("/signed").body(large.clone())).await, 413);
        assert_eq!(status(post("/bearer").bearer_auth(HOOK_TOKEN).body(large)).await, 413);
        assert_eq!(status(post("/signed").body("unsigned")).await, 401);
        assert_eq!(status(post("/signed").header("x-signature", "0".repeat(64)).body("forged")).await, 401);
        assert_eq!(status(post("/bearer").bearer_auth("wrong").body("{}")).await, 401);
        assert_eq!(status(client.delete(daemon.hook_url("/bearer"))).await, 405);
        assert_eq!(status(post("/elsewhere").body("{}")).await, 404);

        // These have the key to the door, and no message that anyone waits for.
        let now = Clock::system().now().wall;
        let foreign = Mint::new([9; 32], 0).issue(now);
        let forged = Token::from_bits(ours(&daemon, now).bits() ^ 1);
        let orphan = ours(&daemon, now);
        for body in [foreign.to_string(), forged.to_string(), orphan.to_string(), "no token at all".to_owned()] {
            assert_eq!(status(post("/bearer").bearer_auth(HOOK_TOKEN).body(body)).await, 200);
        }

        for (channel, result, count) in [
            ("signed", "too_large", 1.0),
            ("signed", "refused_signature", 2.0),
            ("signed", "accepted", 0.0),
            ("bearer", "too_large", 1.0),
            ("bearer", "refused_signature", 1.0),
            ("bearer", "wrong_method", 1.0),
            ("bearer", "accepted", 4.0),
        ] {
            let labels = [("channel", channel), ("result", result)];
            wait_for(&format!("{count} {result} at {channel}"), UPKEEP, async || {
                (daemon.metric("journeyman_webhook_requests_total", &labels).await == Some(count)).then_some(())
            })
            .await;
        }
        let metrics = daemon.metrics().await;
        for (kind, count) in
            [("foreign", 1.0), ("forged", 1.0), ("orphan", 1.0), ("unmatched", 1.0), ("expected", 0.0), ("late", 0.0)]
        {
            let found = daemon.metric("journeyman_arrivals_total", &[("channel", "bearer"), ("kind", kind)]).await;
            assert_eq!(found, Some(count), "{kind}\n{metrics}");
            let none = daemon.metric("journeyman_arrivals_total", &[("channel", "signed"), ("kind", kind)]).await;
            assert_eq!(none, Some(0.0), "{kind}\n{metrics}");
        }
        for state in ["expected", "settled"] {
            assert_eq!(daemon.metric("journeyman_ledger_tokens", &[("state", state)]).await, Some(0.0), "{metrics}");
        }
        for table in ["ledger", "run", "evidence", "incident", "outbox"] {
            let count = store(&daemon).query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
            assert_eq!(count, Ok(0), "{table}");
        }
        assert!(!daemon.log().contains("WARN") && !daemon.log().contains("ERROR"), "{}", daemon.log());
    });
}

/// A token that the daemon itself would have issued: with its installation's key.
fn ours(daemon: &Daemon, at: Timestamp) -> Token {
    let key = store(daemon).query_row("SELECT value FROM meta", [], |row| row.get(0)).expect("it has a key");
    Mint::new(key, 0).issue(at)
}

fn store(daemon: &Daemon) -> Connection {
    Connection::open_with_flags(daemon.store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the store can be read")
}

fn idle_journey() -> String {
    format!("[[journey]]\nname = \"idle\"\n{NEVER}\nstep = [{{ request = \"http://127.0.0.1:1/\" }}]\n")
}

/// Every file and directory below `directory`.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path.display().to_string());
    }
    found
}
