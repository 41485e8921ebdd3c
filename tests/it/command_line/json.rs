//! `--format json`: each verb prints one document, with the keys that the page says and no others.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::command::{Ended, journeyman};
use crate::support::daemon::Setup;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: std::time::Duration = std::time::Duration::from_secs(30);

/// The keys that the table of docs/command-line.md says of this; those with a `?` may be missing.
fn documented(what: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md"))
        .expect("it is there");
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{what}` | "))).map(str::to_owned);
    let row = row.unwrap_or_else(|| panic!("docs/command-line.md has no row for the JSON of `{what}`"));
    let keys: Vec<_> = row.split('`').skip(1).step_by(2).collect();
    let is_there = |key: &&&str| !key.ends_with('?');
    let must = keys.iter().filter(is_there).map(|key| (*key).to_owned()).collect();
    (must, keys.iter().map(|key| key.trim_end_matches('?').to_owned()).collect())
}

/// One document that is as the page says; it may be one of a list.
fn holds(what: &str, ended: &Ended) -> Value {
    let document: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{what}: {error}: {ended:#?}"));
    let one = document.as_array().and_then(|list| list.first()).unwrap_or(&document);
    let keys: BTreeSet<String> = one.as_object().expect("an object").keys().cloned().collect();
    let (must, may) = documented(what);
    assert!(must.is_subset(&keys) && keys.is_subset(&may), "{what}: {keys:?}");
    document
}

#[test]
fn each_verb_prints_the_document_that_the_page_says() {
    block_on(async {
        let target = Target::start(3).await;
        let setup = Setup::new("json");
        setup.write("admin", "the-token");
        setup.write("gatus.yaml", "endpoints:\n  - name: a\n    url: http://127.0.0.1/\n    conditions: [\"[STATUS] == 200\", \"[IP] == 1\"]\n");
        let config = format!(
            "[http]\nadmin_token = {{ file = \"admin\" }}\n\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
             [notifiers.ops]\ntype = \"webhook\"\nurl = \"{}/2\"\n",
            target.url(),
            target.url()
        );
        let probes = "[[journey]]\nname = \"orders\"\nevery = \"200ms\"\nnotify = [\"ops\"]\nobjective = { delivered = \"99%\" }\n\
                      alert = { down_after = 2 }\nstep = [{ request = \"web\", path = \"/0\" }]\n\
                      [[journey]]\nname = \"rare\"\nevery = \"1h\"\nmuted = true\nstep = [{ request = \"web\", path = \"/1\" }]\n";
        let daemon = setup.start(&config, probes).await;
        target.set(0, Mode::Fails);
        wait_for("an incident", SOON, async || {
            daemon.get("/api/v1/incidents").await.1.contains("\"open\":true").then_some(())
        })
        .await;
        let ask = async |arguments: &[&str]| journeyman(daemon.directory(), arguments).await;
        let configured = async |what: &str, arguments: &[&str], code: i32| {
            let ended = ask(&[arguments, &["--format", "json", "--config", "journeyman.toml"]].concat()).await;
            assert_eq!(ended.code, code, "{what}: {ended:#?}");
            holds(what, &ended)
        };
        let silence = &["silence", "orders", "--for", "1h", "--reason", "x"][..];
        let verbs: &[(&str, &[&str], i32)] = &[
            ("check", &["check"], 0),
            ("check", &["check", "--connect"], 0),
            ("once", &["once", "orders"], 2),
            ("once", &["once", "--all"], 2),
            ("status", &["status"], 0),
            ("runs", &["runs", "orders"], 0),
            ("explain", &["explain", "orders"], 0),
            ("slo", &["slo"], 0),
            ("replay", &["replay"], 0),
            ("incidents", &["incidents"], 0),
            ("ack", &["ack", "orders"], 0),
            ("unack", &["unack", "orders"], 0),
            ("silence", silence, 0),
            ("silences", &["silences"], 0),
            ("pause", &["pause", "orders"], 0),
            ("resume", &["resume", "orders"], 0),
            ("rerun", &["rerun", "rare"], 0),
            ("rerun --wait", &["rerun", "orders", "--wait"], 2),
            ("drill --list", &["drill", "--list"], 0),
            ("breaker", &["breaker", "web"], 0),
            ("breaker … STATE", &["breaker", "web", "closed", "--for", "1m", "--reason", "x"], 0),
            ("reload", &["reload"], 0),
            ("notify preview", &["notify", "preview", "--out", "notices"], 0),
            ("notify test", &["notify", "test", "ops"], 0),
            ("health", &["health"], 0),
        ];
        for (what, arguments, code) in verbs {
            configured(what, arguments, *code).await;
        }
        let id =
            configured("silences", &["silences"], 0).await["silences"][0]["id"].as_str().expect("an id").to_owned();
        configured("unsilence", &["unsilence", &id], 0).await;
        let written = configured("notify preview", &["notify", "preview", "--out", "notices"], 0).await;
        let written = written["files"].as_array().expect("a list").clone();
        assert!(
            !written.is_empty() && written.iter().all(|file| daemon.directory().join(file.as_str().unwrap()).exists())
        );

        let init = ["init", "--yes", "--dir", "new", "--send", "http://127.0.0.1:1/", "--format", "json"];
        let made = holds("init", &ask(&init).await);
        assert_eq!(
            (&made["journey"], made["files"][0].as_str()),
            (&"127.0.0.1".into(), Some("new/config/journeyman.toml"))
        );
        assert_eq!(made["has_to_call_us"], false);
        let taken = ask(&["import", "gatus", "gatus.yaml", "--format", "json"]).await;
        assert_eq!((taken.code, taken.stderr.as_str()), (65, ""), "{taken:#?}");
        let taken = holds("import", &taken);
        assert_eq!((&taken["whole"], &taken["notes"][0]["left_out"]), (&false.into(), &true.into()), "{taken}");
        assert!(taken["toml"].as_str().is_some_and(|text| text.contains("[[journey]]")), "{taken}");
        let dashboards = holds("dashboards", &ask(&["dashboards", "grafana", "--format", "json"]).await);
        assert!(dashboards["files"].as_array().is_some_and(|files| files.len() > 3), "{dashboards}");

        // What does not work is said in words, and by the exit code.
        let unknown = ask(&["notify", "test", "opps", "--format", "json", "--config", "journeyman.toml"]).await;
        assert_eq!((unknown.code, unknown.stdout.as_str()), (64, ""), "{unknown:#?}");
        assert!(unknown.stderr.contains("no notifier is named `opps`; did you mean `ops`?"), "{unknown:#?}");
        target.set(2, Mode::Throttles);
        let refused = ask(&["notify", "test", "ops", "--format", "json", "--config", "journeyman.toml"]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (69, ""), "{refused:#?}");
        let mut daemon = daemon;
        daemon.kill().await;
        let gone = journeyman(daemon.directory(), &["health", "--format", "json", "--config", "journeyman.toml"]).await;
        assert_eq!(gone.code, 1, "{gone:#?}");
        let gone = holds("health", &gone);
        assert!(gone["ready"] == false && gone["why"].is_string(), "{gone}");
    });
}

/// Whatever can print a document has a row.
#[test]
fn every_verb_with_a_format_has_its_document_on_the_page() {
    use clap::CommandFactory;
    let command = journeyman::cli::Arguments::command();
    let has_format = |command: &clap::Command| command.get_arguments().any(|argument| argument.get_id() == "format");
    let mut counted = 0;
    for verb in command.get_subcommands() {
        let name = verb.get_name().to_owned();
        let below = verb.get_subcommands().filter(|below| has_format(below));
        let names = below.map(|below| format!("{name} {}", below.get_name()));
        for name in names.chain(has_format(verb).then(|| name.clone())) {
            documented(&name);
            counted += 1;
        }
    }
    assert!(counted >= 25, "{counted}");
}
