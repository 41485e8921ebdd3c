//! The story of a run, of a daemon that runs and of one that was killed.

use std::time::Duration;

use journeyman::journey::token::Token;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::fake_smtp::FakeSmtp;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const BOUND: Duration = Duration::from_secs(25);

const PROBES: &str = r#"[[journey]]
name   = "shop"
every  = "300ms"
notify = ["ops"]
alert  = { down_after = 2 }

  [[journey.step]]
  name    = "ask"
  request = "system"
  path    = "/0"
  expect  = [
    { latency = { less_than = "20s" } },
    { status = 204, message = "the shop answers" },
  ]

  [[journey.step]]
  name  = "after"
  pause = "1ms"

[[journey]]
name     = "waits"
every    = "1s"
deadline = "1h"
muted    = true
step     = [{ send = "box", delay = "50m" }, { receive = "box" }]
"#;

#[test]
fn a_run_is_told_with_the_line_that_decided_also_when_its_daemon_was_killed() {
    block_on(async {
        let target = Target::start(1).await;
        let people = FakeSmtp::start().await;
        let config = format!(
            "[channels.box]\ntype = \"memory\"\n[channels.system]\ntype = \"http\"\nurl = \"{}\"\n\
             [notifiers.ops]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"a@example.net\"\nto = [\"b@example.net\"]\n",
            target.url(),
            people.port()
        );
        let mut daemon = Setup::new("explain").start(&config, PROBES).await;
        let good = [("journey", "shop"), ("outcome", "good")];
        wait_for("a good run", BOUND, async || {
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 2.0)
        })
        .await;
        target.set(0, Mode::Fails);
        people.wait_for_mail("a notice", |taken| taken.mail.part("text/plain").text().contains("DOWN shop")).await;
        let directory = daemon.directory().to_owned();
        let run = async |arguments: &[&str]| {
            journeyman(&directory, &[arguments, &["--config", "journeyman.toml"]].concat()).await
        };
        let told = run(&["explain", "shop"]).await;
        daemon.kill().await;
        let killed = run(&["explain", "shop"]).await;
        for told in [&told, &killed] {
            assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{told:#?}");
            let text = &told.stdout;
            for part in [
                "failed (rejected) at step `ask`: the shop answers (status equals 204), found 500\n",
                "for the slot ",
                "✗ ask: asked `system` at 127.0.0.1:",
                "answered `500 Internal Server Error` after ",
                "✓ latency less_than 20s",
                "✗ the shop answers (status equals 204), found 500",
                "· after: it was not reached",
                "note: this was expected\n",
                "--> probes.toml:13:5\n",
                "13 |     { status = 204, message = \"the shop answers\" },\n",
                "|     ^^^^^^^^",
                "The last good run, ",
                "ask: asked `system`",
                ": critical, shop\n",
                " bad runs, down\n",
                "ops: first, sent (",
            ] {
                assert!(text.contains(part), "`{part}` is not in\n{text}");
            }
        }
        let json: Value = serde_json::from_str(&run(&["explain", "shop", "--format", "json"]).await.stdout).unwrap();
        assert_eq!(json["written"], serde_json::json!({ "file": "probes.toml", "line": 13, "column": 5 }), "{json:#}");
        assert_eq!((&json["verdict"], &json["failed_step"]), (&"failed".into(), &"ask".into()));
        assert_eq!(json["incidents"][0]["notices"][0]["status"], "sent", "{json:#}");
        assert!(json["last_good"].is_string());

        // A run that was under way when the daemon was killed.
        let store = rusqlite::Connection::open(daemon.store_path()).unwrap();
        let token: [u8; 16] = store.query_row("SELECT token FROM unfinished", [], |row| row.get(0)).unwrap();
        let token = Token::from_bits(u128::from_be_bytes(token)).to_string();
        let begun = run(&["explain", &token]).await;
        assert!(begun.stdout.starts_with(&format!("waits: run {token}\nhas begun, and has not ended\n")), "{begun:#?}");
        assert!(begun.stdout.contains("a new one goes on with the run"), "{begun:#?}");

        let runs = run(&["runs", "shop", "--outcome", "good", "--limit", "1", "--format", "json"]).await;
        let runs: Value = serde_json::from_str(&runs.stdout).unwrap();
        assert_eq!((runs["runs"].as_array().map(Vec::len), &runs["runs"][0]["verdict"]), (Some(1), &"good".into()));
        let good = json["last_good"].as_str().unwrap();
        let good = run(&["explain", good]).await;
        assert!(good.stdout.contains("\ngood in ") && !good.stdout.contains("Where that is written"), "{good:#?}");
        assert!(good.stdout.contains("It belongs to no incident"), "{good:#?}");

        for (named, why) in [
            ("jm00000000000000000000000001", "the store knows nothing of run"),
            ("shp", "no run and no journey is named `shp`; did you mean `shop`?"),
        ] {
            let refused = run(&["explain", named]).await;
            assert!(refused.code == 64 && refused.stderr.contains(why), "{refused:#?}");
        }
        let refused = run(&["runs", "shp"]).await;
        assert!(
            refused.code == 64 && refused.stderr.contains("no journey is named `shp`; did you mean `shop`?"),
            "{refused:#?}"
        );
    });
}
