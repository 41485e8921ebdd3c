//! Objectives from the command line: the same numbers as the daemon's, and documents that other tools take.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::{Daemon, Setup};
use crate::support::prometheus::{Prometheus, promtool, repository, selectors};
use crate::support::{Scratch, block_on, wait_for};

const DATA: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
    [channels.loop]
    type = "memory"
    [dependencies.carrier]
    delivered = "99.9%"
    [defaults]
    muted = true
    every = "250ms"
    deadline = "100ms"
    budget = "80ms"
    objective = { delivered = "90%", in_budget = "80%", window = "3d" }
"#;

const PROBES: &str = r#"
    [[journey]]
    name = "lost"
    step = [{ send = "loop", text = "{{ token }}", copies = "0" }, { receive = "loop" }]

    [[journey]]
    name = "sms"
    matrix = { region = ["eu"] }
    depends_on = ["carrier", "lost"]
    step = [{ send = "loop", text = "{{ token }}" }, { receive = "loop" }]
"#;

async fn slo(daemon: &Daemon, more: &[&str]) -> crate::support::command::Ended {
    journeyman(daemon.directory(), &[&["slo", "--config", "journeyman.toml"], more].concat()).await
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The counts of a journey as the daemon's API gives them.
async fn counts(daemon: &Daemon, journey: &str) -> Value {
    let (_, body) = daemon.get(&format!("/api/v1/journeys/{journey}")).await;
    parsed(&body)["journey"]["slo"].clone()
}

#[test]
fn the_command_shows_what_the_daemon_knows_beside_it_and_after_it() {
    block_on(async {
        let mut daemon = Setup::new("slo").start(CONFIG, PROBES).await;
        wait_for("some runs", DATA, async || {
            let [good, failed] = [counts(&daemon, "sms[eu]").await, counts(&daemon, "lost").await];
            (good["counts"]["good"].as_u64()? > 3 && failed["counts"]["failed"].as_u64()? > 3).then_some(())
        })
        .await;
        let before = counts(&daemon, "lost").await;
        let ended = slo(&daemon, &["lost", "--format", "json"]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let shown = parsed(&ended.stdout)["journeys"][0].clone();
        let after = counts(&daemon, "lost").await;
        let failed = |slo: &Value| slo["counts"]["failed"].as_u64().unwrap();
        assert!((failed(&before)..=failed(&after)).contains(&failed(&shown["slo"])), "{before} {shown} {after}");
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());

        let ended = slo(&daemon, &["--format", "json"]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let shown = parsed(&ended.stdout);
        let [lost, sms] = [0, 1].map(|at| shown["journeys"][at].clone());
        assert!(failed(&lost["slo"]) >= failed(&after));
        assert_eq!(lost["slo"]["delivered"]["achieved"], 0.0);
        assert_eq!(sms["slo"]["delivered"]["achieved"], 1.0);
        let product = sms["composition"]["product"].as_f64().unwrap();
        assert_eq!((product, &sms["composition"]["reading"]), (0.0, &"coincide".into()));

        let text = slo(&daemon, &[]).await.stdout;
        for part in [
            "lost, over 3d",
            "delivered: 0 % of 90 %, ",
            "sms[eu], over 3d",
            "depends on: carrier 99.9 % (promised), lost 0 % (measured)",
            "budget left",
            "next refund",
            "more arrives: their failures coincide",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let unknown = slo(&daemon, &["smss"]).await;
        assert_eq!(unknown.code, 64, "{}", unknown.stderr);
        assert!(unknown.stderr.contains("no journey is named `smss`; there are: "));
        std::fs::remove_file(daemon.store_path()).unwrap();
        let gone = slo(&daemon, &[]).await;
        assert_eq!(gone.code, 74, "{}", gone.stderr);
        assert!(gone.stderr.contains("the daemon makes it at its first start"), "{}", gone.stderr);
    });
}

/// The whole runs once an hour, and its parts all the time.
#[test]
fn what_is_composed_of_others_follows_their_runs() {
    block_on(async {
        let whole = "[[journey]]\nname = \"whole\"\nevery = \"1h\"\ndepends_on = [\"lost\"]\n\
                     step = [{ send = \"loop\", text = \"{{ token }}\" }, { receive = \"loop\" }]\n";
        let daemon = Setup::new("slo-whole").start(CONFIG, &format!("{PROBES}{whole}")).await;
        wait_for("the part's share in the whole's composition", DATA, async || {
            let (_, body) = daemon.get("/api/v1/journeys/whole").await;
            (parsed(&body)["journey"]["composition"]["product"] == 0.0).then_some(())
        })
        .await;
        let labels = [("journey", "whole")];
        assert_eq!(daemon.metric("journeyman_slo_composed_ratio", &labels).await, Some(0.0));
    });
}

const PROMISES: &str = r#"
    [channels.loop]
    type = "memory"
    [defaults]
    muted = true
    every = "1m"
    [[journey]]
    name = "sms"
    objective = { delivered = "99.9%", in_budget = "99%", window = "30d" }
    budget = "5s"
    step = [{ send = "loop" }]
    [[journey]]
    name = "Mail_Round.Trip"
    matrix = { region = ["eu-west"] }
    objective = { delivered = "99%", calendar = "quarter", timezone = "Europe/Paris", start = 2026-02-01 }
    step = [{ send = "loop" }]
    [[journey]]
    name = "hourly"
    objective = { delivered = "90%", window = "28d" }
    every = "1h"
    step = [{ send = "loop" }]
    [[journey]]
    name = "promises-nothing"
    step = [{ send = "loop" }]
"#;

async fn exported(scratch: &Scratch, format: &str) -> String {
    scratch.write("journeyman.toml", PROMISES);
    let ended = journeyman(scratch.path(), &["slo", "--config", "journeyman.toml", "--format", format]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "no store is needed");
    ended.stdout
}

#[test]
fn objectives_are_openslo_documents() {
    block_on(async {
        let text = exported(&Scratch::new("openslo"), "openslo").await;
        let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{error}:\n{text}")))
            .collect();
        let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["DataSource", "Service", "SLO", "SLO", "SLO", "SLO"]);
        for document in &documents {
            assert_eq!(document["apiVersion"], "openslo/v1");
            let name = document["metadata"]["name"].as_str().unwrap();
            let is_dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(is_dns) && name.len() <= 63, "{name}");
        }
        for slo in &documents[2..] {
            let spec = &slo["spec"];
            assert_eq!((&spec["service"], &spec["budgetingMethod"]), (&"journeyman".into(), &"Occurrences".into()));
            let ratio = &spec["indicator"]["spec"]["ratioMetric"];
            assert_eq!(ratio["counter"], true);
            for part in ["good", "total"] {
                let source = &ratio[part]["metricSource"];
                assert_eq!(source["metricSourceRef"], documents[0]["metadata"]["name"]);
                let query = source["spec"]["query"].as_str().unwrap();
                assert_eq!(selectors(query).len(), 1, "{query}");
            }
            let window = &spec["timeWindow"][0];
            assert_eq!(window["isRolling"] == true, window["calendar"].is_null());
        }
        assert_eq!(documents[2]["spec"]["objectives"][0]["target"], 0.999);
        let calendar = &documents[4];
        assert_eq!(calendar["metadata"]["name"], "mail-round-trip-eu-west--delivered");
        let window = serde_json::json!([{
            "duration": "1Q",
            "isRolling": false,
            "calendar": { "startTime": "2026-02-01 00:00:00", "timeZone": "Europe/Paris" },
        }]);
        assert_eq!(calendar["spec"]["timeWindow"], window);
    });
}

/// A minute of the test's time is a slot of `sms`: good but for some minutes after half a day.
fn series(failures: u32) -> String {
    let count = |outcome: &str, values: String| {
        format!(
            "      - series: 'journeyman_runs_total{{journey=\"sms\", outcome=\"{outcome}\"}}'\n        values: '{values}'\n"
        )
    };
    count("good", format!("0+1x720 720x{failures} 721+1x120"))
        + &count("failed", format!("0x720 1+1x{} {failures}x120", failures - 1))
        + &count("slow", "0x900".to_owned())
}

#[test]
fn burn_alerts_fire_at_the_count_that_is_more_than_chance() {
    block_on(async {
        let scratch = Scratch::new("sloth");
        let rules = exported(&scratch, "sloth").await;
        let parsed: Value = serde_yaml_ng::from_str(&rules).unwrap_or_else(|error| panic!("{error}:\n{rules}"));
        let alerts = |journey: &str| {
            let groups = parsed["groups"].as_array().unwrap().iter();
            let all = groups.flat_map(|group| group["rules"].as_array().unwrap());
            all.filter(|rule| rule["alert"].is_string() && rule["labels"]["sloth_id"] == journey)
                .map(|rule| rule["expr"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let sms = alerts("journeyman-sms-delivered");
        assert_eq!(sms.len(), 3, "6 h, 1 d and 3 d, and no hour: {sms:?}");
        for (expression, parts) in sms.iter().zip([
            ["ratio_rate6h", "ratio_rate30m", "> (6 * 0.001)", "[6h])) > 5.5)"],
            ["ratio_rate1d", "ratio_rate2h", "> (3 * 0.001)", "[1d])) > 8.5)"],
            ["ratio_rate3d", "ratio_rate6h", "> (1 * 0.001)", "[3d])) > 8.5)"],
        ]) {
            assert!(parts.iter().all(|part| expression.contains(part)), "{expression}: {parts:?}");
        }
        let hourly = alerts("journeyman-hourly-delivered");
        assert!(
            hourly.iter().any(|alert| alert.contains("> (2.8 * 0.1)")),
            "28 d have factors of their own: {hourly:?}"
        );
        assert!(!rules.contains("ratio_rate5m") && rules.contains("There is no tier of 1 h"));
        let place = scratch.write("rules.yml", &rules);
        let Some(checked) = promtool(&["check", "rules", &place.display().to_string()], "") else { return };
        checked.unwrap_or_else(|said| panic!("promtool check rules: {said}"));

        // Five failures in six hours may be chance at 99.9 %, and are 0.0139 of the runs: over the threshold of 0.006 all the same.
        for (failures, fires) in [(5, false), (8, true)] {
            let test = format!(
                "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{}    promql_expr_test:\n      - expr: count(ALERTS{{alertstate=\"firing\", sloth_id=\"journeyman-sms-delivered\", long_window=\"6h\"}}) or vector(0)\n        eval_time: 12h10m\n        exp_samples:\n          - value: {}\n",
                series(failures),
                u8::from(fires)
            );
            let place = scratch.write("test.yml", &test);
            let Some(result) = promtool(&["test", "rules", &place.display().to_string()], "") else { return };
            result.unwrap_or_else(|said| panic!("{failures} failures: {said}\n{test}"));
        }
    });
}

#[test]
fn every_rule_gives_data_when_prometheus_scrapes_the_daemon() {
    block_on(async {
        let setup = Setup::new("slo-prometheus");
        let scraping = std::fs::read_to_string(repository("config/prometheus/prometheus.yml")).unwrap();
        let scraping = scraping.replace("127.0.0.1:9464", &setup.http_address().to_string()).replace(": 15s", ": 1s");
        let scratch = setup.directory().to_owned();
        let scraping = setup.write("prometheus.yml", &scraping);
        setup.write("journeyman.rules.yml", "groups: []\n");
        let mut daemon = setup.start(CONFIG, PROBES).await;
        let rules = slo(&daemon, &["--format", "sloth"]).await;
        assert_eq!(rules.code, 0, "{}", rules.stderr);
        std::fs::write(scratch.join("journeyman.rules.yml"), &rules.stdout).unwrap();
        let Some(prometheus) = Prometheus::start(&scraping).await else { return };
        let rules = prometheus.rules().await;
        assert!(rules.len() > 40, "there are only {}", rules.len());
        for rule in &rules {
            let (name, id) = (rule["name"].as_str().unwrap(), &rule["labels"]["sloth_id"]);
            if rule["type"] != "recording" {
                continue;
            }
            let query = format!("{name}{{sloth_id={id}}}");
            wait_for(&query, DATA, async || {
                prometheus.query(&query).await.into_iter().find(|(_, value)| !value.is_nan())
            })
            .await;
        }
        for rule in prometheus.rules().await {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        let errors =
            |journey: &str| format!("slo:sli_error:ratio_rate30m{{sloth_id=\"journeyman-{journey}-delivered\"}}");
        assert_eq!(prometheus.query(&errors("lost")).await[0].1, 1.0);
        assert_eq!(prometheus.query(&errors("sms[eu]")).await[0].1, 0.0);
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}
