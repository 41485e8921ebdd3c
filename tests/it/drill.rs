//! Drills on a real daemon: each fault is detected, told, read back and over; what cannot be told fails loudly; what left no trace is not tested;
//! what is real has precedence; a crash leaves nothing behind; and nothing of it is a real journey's.

#![expect(clippy::unwrap_used, reason = "what a test cannot read is a failed test")]

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::support::command::{Ended, journeyman};
use crate::support::daemon::{Daemon, Setup};
#[cfg(feature = "slack")]
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::hook::{Hook, status};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, free_port, wait_for};

const SOON: Duration = Duration::from_secs(60);
const ADMIN: &str = "the-admin-token";

/// Where people are told, and where that is read back: the daemon's own listener.
fn main(setup: &Setup, notifier: &str) -> String {
    setup.write("admin", ADMIN);
    format!(
        "[http]
        admin_token = {{ file = \"admin\" }}
        [drill]
        read_back = \"seen\"
        within = \"30s\"
        [channels.loop]
        type = \"memory\"
        [channels.seen]
        type = \"webhook\"
        path = \"/seen\"
        verify = {{ scheme = \"none\" }}
        [notifiers.oncall]
        type = \"webhook\"
        url = \"{notifier}\"\n"
    )
}

/// One that sends a message and sees much of it; one that sends two and wants them in order and in time.
const PROBES: &str = "
    [[journey]]
    name = \"orders\"
    every = \"1s\"
    deadline = \"900ms\"
    notify = [\"oncall\"]
    objective = { delivered = \"90%\", window = \"1h\" }
    alert = { down_after = 2, recover_after = 2 }
    step = [
      { name = \"out\", send = \"loop\", text = \"order {{ token }} of 42 pounds\" },
      { name = \"in\", receive = \"loop\", expect = [{ copies = 1 }, { body = { contains = \"42 pounds\" } }] },
      { name = \"for copies\", pause = \"50ms\" },
    ]
    [[journey]]
    name = \"pair\"
    every = \"24h\"
    deadline = \"2500ms\"
    notify = [\"oncall\"]
    alert = { down_after = 1, recover_after = 1 }
    step = [
      { name = \"first\", send = \"loop\", text = \"first {{ token }}\" },
      { name = \"second\", send = \"loop\", text = \"second {{ token }}\" },
      { name = \"saw first\", receive = \"loop\", since = \"first\", filter = [{ body = { contains = \"first\" } }], expect = [{ order = true }], timeout = \"800ms\" },
      { name = \"saw second\", receive = \"loop\", since = \"second\", filter = [{ body = { contains = \"second\" } }], expect = [{ order = true }], timeout = \"800ms\" },
    ]
    [[journey]]
    name = \"blunt\"
    every = \"24h\"
    deadline = \"4s\"
    notify = [\"oncall\"]
    alert = { down_after = 1 }
    step = [{ send = \"loop\", text = \"{{ token }}\" }, { receive = \"loop\" }]";

async fn drill(daemon: &Daemon, arguments: &[&str]) -> Ended {
    let config = daemon.directory().join("journeyman.toml");
    let all = [&["drill"], arguments, &["--config", config.to_str().unwrap()]].concat();
    journeyman(daemon.directory(), &all).await
}

async fn api(daemon: &Daemon, path: &str) -> Value {
    let (_, text) = daemon.get(path).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// What the daemon answers to a drill that is asked for.
async fn ask(daemon: &Daemon, token: Option<&str>, body: &Value) -> (StatusCode, Value) {
    let url = format!("{}/api/v1/drills", daemon.http_url());
    let mut request = Client::new().request(Method::POST, url).body(body.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

/// The drill of this id, once it holds this.
async fn until(daemon: &Daemon, id: &Value, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/drills/{}", id.as_str().unwrap());
    wait_for(&format!("the drill to be {what}"), SOON, async || {
        let drill = api(daemon, &path).await["drill"].clone();
        assert!(what == "ended" || drill["ended"].is_null(), "{drill}");
        holds(&drill).then_some(drill)
    })
    .await
}

/// Nothing that is counted, kept or shown of a journey knows of a drill.
async fn assert_nothing_happened(daemon: &Daemon, journey: &str) {
    assert_eq!(daemon.runs(journey, "failed", "").await, 0.0);
    assert_eq!(daemon.metric("journeyman_alert_state", &[("journey", journey)]).await, Some(0.0));
    assert_eq!(api(daemon, "/api/v1/incidents").await["incidents"], json!([]));
    let found = api(daemon, &format!("/api/v1/journeys/{journey}/runs?limit=200")).await;
    let is_good = |run: &Value| ["good", "unknown"].contains(&run["verdict"].as_str().unwrap());
    assert!(found["runs"].as_array().unwrap().iter().all(is_good), "{found}");
}

#[test]
fn each_fault_is_detected_told_read_back_and_over_and_no_number_of_the_journey_knows_of_it() {
    block_on(async {
        let setup = Setup::new("drill-faults");
        let hook = setup.hook_url("/seen");
        let config = main(&setup, &hook);
        let daemon = setup.start(&config, PROBES).await;
        wait_for("runs of the real journey", SOON, async || {
            (daemon.runs("orders", "good", "").await >= 2.0).then_some(())
        })
        .await;
        let quiet = async || api(&daemon, "/api/v1/journeys/pair").await["journey"]["slo"].clone();
        let before = quiet().await;
        let faults = [
            ("orders", "drop"),
            ("orders", "delay=2s"),
            ("orders", "duplicate"),
            ("orders", "corrupt"),
            ("orders", "refuse"),
            ("pair", "throttle=1/s"),
            ("pair", "reorder"),
        ];
        for (journey, fault) in faults {
            let ended = drill(&daemon, &[journey, "--fault", fault]).await;
            assert_eq!(ended.code, 0, "{fault}: {ended:?}\n{}", daemon.log());
            assert!(
                ended.stdout.starts_with(&format!("passed: {journey} under `{fault}`: detected after")),
                "{ended:?}"
            );
            let progress = ["a run without a fault", "waiting for it to come in at `seen`", "the fault is out"];
            assert!(progress.iter().any(|words| ended.stderr.contains(words)), "{ended:?}");
        }
        assert_eq!(quiet().await, before);
        assert_nothing_happened(&daemon, "orders").await;

        let drills = api(&daemon, "/api/v1/drills").await["drills"].as_array().unwrap().clone();
        assert_eq!(drills.len(), faults.len());
        for found in &drills {
            let seconds = |key: &str| found[key].as_f64().unwrap();
            assert!(seconds("detect_seconds") <= seconds("tell_seconds") && seconds("resolve_seconds") > 0.0);
            assert!(found["injected"].as_u64().unwrap() > 0 && found["notifiers"] == json!(["oncall"]), "{found}");
        }
        let notices = api(&daemon, "/api/v1/outbox").await["notices"].as_array().unwrap().clone();
        assert_eq!(notices.len(), faults.len() * 2, "{notices:?}");
        let metric = async |name: &str, labels: &[(&str, &str)]| daemon.metric(name, labels).await;
        let passed = [("journey", "orders"), ("result", "passed")];
        assert_eq!(metric("journeyman_drills_total", &passed).await, Some(5.0));
        let last = metric("journeyman_drill_last_success_timestamp_seconds", &[("journey", "orders")]).await;
        assert!(last.is_some_and(|last| last > 1.7e9), "{last:?}");
        let (_, page) = daemon.get("/drills").await;
        assert!(page.contains("delay=2s") && page.contains("✓ passed"), "{page}");
        let list = drill(&daemon, &["--list"]).await;
        assert_eq!((list.code, list.stdout.lines().count()), (0, faults.len()), "{list:?}");
        let list = drill(&daemon, &["pair", "--list", "--format", "json"]).await;
        assert_eq!(serde_json::from_str::<Value>(&list.stdout).unwrap()["drills"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn the_notices_of_a_drill_say_first_what_they_are_and_last_that_it_is_over() {
    block_on(async {
        let setup = Setup::new("drill-notices");
        let hook = Hook::start([]).await;
        let seen = setup.hook_url("/seen");
        let config = main(&setup, &seen)
            + &format!("[notifiers.other]\ntype = \"webhook\"\nurl = \"{}\"\nfallback = \"oncall\"\n", hook.url("/in"));
        let config = config.replace("within = \"30s\"", "within = \"30s\"\n        notify = [\"other\", \"oncall\"]");
        let daemon = setup.start(&config, PROBES).await;
        let ended = drill(&daemon, &["orders", "--fault", "drop", "--by", "ada", "--format", "json"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        wait_for("both notices at the other", SOON, async || (hook.requests().len() >= 2).then_some(())).await;
        let [first, last] = [0, 1].map(|nth| hook.requests()[nth].json());
        for notice in [&first, &last] {
            assert!(notice["headline"].as_str().unwrap().starts_with("DRILL "), "{notice}");
            assert_eq!((&notice["drill"], &notice["subject"]), (&json!(true), &json!("orders")));
            assert!(notice["incident"]["id"].as_str().unwrap().starts_with("drill-"));
            assert_eq!(notice["links"]["acknowledge"], Value::Null, "there is nothing to look after");
        }
        assert_eq!((&first["reason"], &last["reason"]), (&json!("first"), &json!("resolved")));
        assert_eq!((&first["state"], &last["state"]), (&json!("DOWN"), &json!("WELL AGAIN")));
        let facts = first["facts"].to_string();
        assert!(facts.contains("2 failed runs in a row") && facts.contains("`drop` was put in for ada"), "{facts}");
        assert_ne!(first["report"]["token"], last["report"]["token"], "each is known by a token of its own");
    });
}

#[test]
fn a_notifier_that_takes_nothing_fails_the_drill_loudly() {
    block_on(async {
        let setup = Setup::new("drill-broken");
        let config = main(&setup, &format!("http://127.0.0.1:{}/", free_port()));
        let daemon = setup.start(&config, PROBES).await;
        let ended = drill(&daemon, &["blunt", "--fault", "refuse", "--within", "4s"]).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        let said = "failed: blunt under `refuse`: the alert was not seen within 4s of the fault: `oncall`:";
        assert!(ended.stdout.starts_with(said), "{}", ended.stdout);
        assert!(ended.stdout.contains("127.0.0.1"), "why it was not told: {}", ended.stdout);
        let failed = [("journey", "blunt"), ("result", "failed")];
        assert_eq!(daemon.metric("journeyman_drills_total", &failed).await, Some(1.0));
        assert_eq!(daemon.metric("journeyman_drill_last_success_timestamp_seconds", &[]).await, Some(0.0), "never");
    });
}

#[test]
fn one_that_is_taken_and_never_comes_in_fails_and_the_receipt_is_told() {
    block_on(async {
        let setup = Setup::new("drill-elsewhere");
        // It answers 204, and nobody reads it back.
        let hook = Hook::start([status("204 No Content")]).await;
        let config = main(&setup, &hook.url("/in"));
        let daemon = setup.start(&config, PROBES).await;
        let ended = drill(&daemon, &["blunt", "--fault", "refuse", "--within", "4s"]).await;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.stdout.contains("`oncall` took it") && ended.stdout.contains("did not come in at `seen`"),
            "{ended:?}"
        );
        wait_for("that it is over", SOON, async || {
            hook.requests().iter().any(|request| request.json()["reason"] == "resolved").then_some(())
        })
        .await;
    });
}

#[test]
fn a_fault_that_left_no_trace_is_not_tested_and_never_green() {
    block_on(async {
        let setup = Setup::new("drill-untested");
        let hook = setup.hook_url("/seen");
        let config = main(&setup, &hook) + "[channels.shop]\ntype = \"http\"\nurl = \"http://127.0.0.1:9\"\n";
        let probes = format!(
            "{PROBES}
            [[journey]]
            name = \"ill\"
            every = \"24h\"
            deadline = \"2s\"
            notify = [\"oncall\"]
            alert = {{ down_after = 1 }}
            step = [{{ request = \"shop\" }}]"
        );
        let daemon = setup.start(&config, &probes).await;
        for (journey, fault, why) in [
            ("blunt", "corrupt", "the journey does not see this fault"),
            ("blunt", "delay=10ms", "the journey does not see this fault"),
            // One message alone is overtaken by none.
            ("blunt", "reorder", "the fault found nothing to act on"),
            ("ill", "refuse", "without a fault a run is not good either"),
        ] {
            let ended = drill(&daemon, &[journey, "--fault", fault]).await;
            assert_eq!(ended.code, 3, "{fault}: {ended:?}");
            assert!(ended.stdout.starts_with("not tested: ") && ended.stdout.contains(why), "{fault}: {ended:?}");
        }
        assert_eq!(api(&daemon, "/api/v1/outbox").await["notices"], json!([]), "nobody was told anything");
        assert_eq!(daemon.metric("journeyman_drill_last_success_timestamp_seconds", &[]).await, Some(0.0), "never");
        let (_, page) = daemon.get("/drills").await;
        assert!(page.contains("not tested") && !page.contains("✓ passed"), "{page}");
    });
}

#[test]
fn what_cannot_be_made_is_refused_in_words() {
    block_on(async {
        let setup = Setup::new("drill-refused");
        let hook = setup.hook_url("/seen");
        let config = main(&setup, &hook);
        let probes = format!(
            "{PROBES}\n[[journey]]\nname = \"muted\"\nmuted = true\nevery = \"24h\"\nstep = [{{ send = \"loop\", text = \"x\" }}]"
        );
        let daemon = setup.start(&config, &probes).await;
        let order = |journey: &str, fault: &str| json!({ "journey": journey, "fault": fault });
        assert_eq!(ask(&daemon, None, &order("blunt", "drop")).await.0, StatusCode::UNAUTHORIZED);
        for (body, expected, why) in [
            (order("gone", "drop"), StatusCode::NOT_FOUND, "no journey is named `gone`"),
            (order("blunt", "loss"), StatusCode::BAD_REQUEST, "`loss` is no fault"),
            (order("muted", "drop"), StatusCode::BAD_REQUEST, "nobody would be told"),
            (
                json!({ "journey": "blunt", "fault": "drop", "within": "4s" }),
                StatusCode::BAD_REQUEST,
                "shows only after 4s",
            ),
            (
                json!({ "journey": "blunt", "fault": "refuse", "within": "2h" }),
                StatusCode::BAD_REQUEST,
                "an hour at most",
            ),
            (json!({ "journey": "blunt" }), StatusCode::BAD_REQUEST, "`fault` is missing"),
        ] {
            let (status, answer) = ask(&daemon, Some(ADMIN), &body).await;
            assert_eq!(status, expected, "{body}: {answer}");
            assert!(answer["error"].as_str().unwrap().contains(why), "{body}: {answer}");
        }
        let (status, begun) = ask(&daemon, Some(ADMIN), &order("blunt", "drop")).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        let (status, answer) = ask(&daemon, Some(ADMIN), &order("blunt", "refuse")).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("a drill of `blunt` is under way"), "{answer}");
    });
}

#[test]
fn without_a_place_to_read_back_there_is_no_drill() {
    block_on(async {
        let setup = Setup::new("drill-none");
        setup.write("admin", ADMIN);
        let config = "[http]\nadmin_token = { file = \"admin\" }\n[channels.loop]\ntype = \"memory\"\n\
            [notifiers.oncall]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n";
        let daemon = setup.start(config, PROBES).await;
        let ended = drill(&daemon, &["blunt", "--fault", "drop"]).await;
        assert_eq!(ended.code, 64, "{ended:?}");
        assert!(ended.stderr.contains("[drill] read_back"), "{ended:?}");
        assert!(daemon.get("/drills").await.1.contains("None can be made now"));
    });
}

#[test]
fn a_real_outage_ends_the_drill_and_is_told_as_one() {
    block_on(async {
        let setup = Setup::new("drill-real");
        let hook = Hook::start([]).await;
        let target = Target::start(1).await;
        let config =
            main(&setup, &hook.url("/in")) + &format!("[channels.shop]\ntype = \"http\"\nurl = \"{}\"\n", target.url());
        let probes = "
            [[journey]]
            name = \"shop\"
            every = \"500ms\"
            budget = \"300ms\"
            deadline = \"5s\"
            notify = [\"oncall\"]
            alert = { down_after = 2, slow_after = 50 }
            step = [{ request = \"shop\", path = \"/0\", expect = [{ status = 204 }] }]";
        let daemon = setup.start(&config, probes).await;
        wait_for("good runs", SOON, async || (daemon.runs("shop", "good", "").await >= 2.0).then_some(())).await;
        // Slow for as long as it takes: the real outage comes first.
        let (_, begun) = ask(&daemon, Some(ADMIN), &json!({ "journey": "shop", "fault": "delay=1s" })).await;
        let id = begun["drill"]["id"].clone();
        until(&daemon, &id, "faulty", |drill| drill["stage"] == "faulty").await;
        target.set_all(Mode::Fails);
        let ended = until(&daemon, &id, "ended", |drill| !drill["ended"].is_null()).await;
        assert_eq!(ended["verdict"], "aborted", "{ended}");
        assert!(ended["why"].as_str().unwrap().contains("has a real incident"), "{ended}");
        let told = wait_for("the real notice", SOON, async || {
            hook.requests().iter().map(|request| request.json()).find(|notice| notice["reason"] == "first")
        })
        .await;
        assert_eq!((&told["drill"], &told["state"]), (&Value::Null, &json!("DOWN")), "{told}");
        let (status, answer) = ask(&daemon, Some(ADMIN), &json!({ "journey": "shop", "fault": "refuse" })).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("that has precedence"), "{answer}");
    });
}

#[test]
fn a_crash_leaves_nothing_faulty_and_the_next_start_tells_that_it_is_over() {
    block_on(async {
        let setup = Setup::new("drill-crash");
        let hook = setup.hook_url("/seen");
        // It is not well again for long enough to be killed before.
        let probes = PROBES.replace("recover_after = 2", "recover_after = 40");
        let config = main(&setup, &hook);
        let mut daemon = setup.start(&config, &probes).await;
        let (_, begun) = ask(&daemon, Some(ADMIN), &json!({ "journey": "orders", "fault": "refuse" })).await;
        let id = begun["drill"]["id"].clone();
        until(&daemon, &id, "healing", |drill| drill["stage"] == "healing").await;
        daemon.kill().await;
        daemon.start_again().await;
        let ended = until(&daemon, &id, "ended", |drill| !drill["ended"].is_null()).await;
        assert_eq!(
            (&ended["verdict"], &ended["why"]),
            (&json!("aborted"), &json!("the daemon ended in the middle of it"))
        );
        let notices = wait_for("both notices to be sent", SOON, async || {
            let notices = api(&daemon, "/api/v1/outbox").await["notices"].as_array().unwrap().clone();
            (notices.len() == 2 && notices.iter().all(|notice| notice["status"] == "sent")).then_some(notices)
        })
        .await;
        assert_eq!(notices[0]["reason"], "resolved", "{notices:?}");
        wait_for("runs of the real journey", SOON, async || {
            (daemon.runs("orders", "good", "").await >= 3.0).then_some(())
        })
        .await;
        assert_nothing_happened(&daemon, "orders").await;
        // A drill after it is as good as any.
        let again = drill(&daemon, &["blunt", "--fault", "refuse"]).await;
        assert_eq!(again.code, 0, "{again:?}");
    });
}

#[test]
fn the_calendar_makes_drills_one_after_the_other() {
    block_on(async {
        let setup = Setup::new("drill-calendar");
        let hook = setup.hook_url("/seen");
        let schedule = "within = \"30s\"\n        schedule = \"* * * * *\"\n        timezone = \"Europe/London\"\n        \
            journeys = [\"blunt\", \"pair\"]\n        faults = [\"refuse\"]";
        let config = main(&setup, &hook).replace("within = \"30s\"", schedule);
        let daemon = setup.start(&config, PROBES).await;
        let drills = wait_for("two drills by the calendar", Duration::from_secs(100), async || {
            let drills = api(&daemon, "/api/v1/drills").await["drills"].as_array().unwrap().clone();
            let ended = drills.iter().filter(|drill| drill["verdict"] == "passed").count();
            (ended >= 2).then_some(drills)
        })
        .await;
        assert!(drills.iter().all(|drill| drill["by"] == "schedule"), "{drills:?}");
    });
}

#[test]
fn a_reload_takes_up_what_is_said_of_drills() {
    block_on(async {
        let setup = Setup::new("drill-reload");
        let hook = setup.hook_url("/seen");
        let with = format!("reload_on_change = false\n{}", main(&setup, &hook));
        let section = "[drill]\n        read_back = \"seen\"\n        within = \"30s\"\n";
        let without = with.replace(section, "");
        assert_ne!(with, without);
        let daemon = setup.start(&without, PROBES).await;
        let written = std::fs::read_to_string(daemon.directory().join("journeyman.toml")).unwrap();
        let reload = async |drill: &str| {
            std::fs::write(daemon.directory().join("journeyman.toml"), format!("{written}\n{drill}")).unwrap();
            let url = format!("{}/api/v1/reload", daemon.http_url());
            let answer = Client::new().request(Method::POST, url).bearer_auth(ADMIN).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert!(status == StatusCode::OK && text.contains("tables: drill"), "{status}: {text}");
        };
        let refused = drill(&daemon, &["blunt", "--fault", "refuse"]).await;
        assert!(refused.code == 64 && refused.stderr.contains("[drill] read_back"), "{refused:?}");

        // There is one now, and a calendar.
        let calendar = "schedule = \"* * * * *\"\njourneys = [\"blunt\"]\nfaults = [\"refuse\"]\n";
        reload(&format!("{section}{calendar}")).await;
        assert!(!daemon.get("/drills").await.1.contains("None can be made now"));
        wait_for("a drill by the calendar", Duration::from_secs(100), async || {
            let drills = api(&daemon, "/api/v1/drills").await["drills"].as_array().unwrap().clone();
            drills.iter().any(|drill| drill["by"] == "schedule" && drill["verdict"] == "passed").then_some(())
        })
        .await;

        // Another bound, and none any more.
        reload(&section.replace("30s", "3s")).await;
        let refused = drill(&daemon, &["blunt", "--fault", "drop"]).await;
        assert!(refused.code != 0 && refused.stderr.contains("3s were granted"), "{refused:?}");
        reload("").await;
        let refused = drill(&daemon, &["blunt", "--fault", "refuse"]).await;
        assert!(refused.code == 64 && refused.stderr.contains("[drill] read_back"), "{refused:?}");
    });
}

#[cfg(feature = "slack")]
#[test]
fn a_drill_is_read_back_from_slack() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let setup = Setup::new("drill-slack");
        setup.write("token", TOKEN);
        let bot = format!("token = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n", slack.url());
        let config = main(&setup, "http://127.0.0.1:9/")
            .replace(
                "type = \"webhook\"\n        path = \"/seen\"\n        verify = { scheme = \"none\" }",
                &format!("type = \"slack\"\npoll = \"1s\"\n{bot}"),
            )
            .replace("type = \"webhook\"\n        url = \"http://127.0.0.1:9/\"", &format!("type = \"slack\"\n{bot}"));
        let daemon = setup.start(&config, PROBES).await;
        let ended = drill(&daemon, &["blunt", "--fault", "refuse"]).await;
        assert_eq!(ended.code, 0, "{ended:?}\n{}", daemon.log());
        let posted: Vec<_> =
            slack.requests().into_iter().filter(|request| request.method == "chat.postMessage").collect();
        assert_eq!(posted.len(), 2);
        for request in &posted {
            assert!(request.arguments["text"].as_str().unwrap().starts_with("DRILL "), "{:?}", request.arguments);
            assert!(!request.arguments.to_string().contains("journeyman_ack"), "there is nothing to look after");
        }
    });
}

#[cfg(feature = "imap")]
#[test]
fn a_drill_is_read_back_from_the_mailbox() {
    use crate::support::certificate::Certificate;
    use crate::support::dovecot::{Dovecot, PASSWORD};
    use crate::support::postfix::Postfix;

    block_on(async {
        let setup = Setup::new("drill-mail");
        let scratch = crate::support::Scratch::new("drill-mail-tls");
        let certificate = Certificate::new(&scratch, &["127.0.0.1"]);
        let Some(dovecot) = Dovecot::start().await else { return };
        let Some(postfix) = Postfix::start_before(&dovecot, &certificate).await else { return };
        setup.write("password", PASSWORD);
        let inbox = format!(
            "type = \"imap\"\nurl = \"imap://127.0.0.1:{}\"\nusername = \"inbox@example.test\"\npassword = {{ file = \"password\" }}",
            dovecot.imap
        );
        let mail = format!(
            "type = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"journeyman@example.test\"\nto = [\"inbox@example.test\"]",
            postfix.port()
        );
        let config = main(&setup, "http://127.0.0.1:9/")
            .replace("type = \"webhook\"\n        path = \"/seen\"\n        verify = { scheme = \"none\" }", &inbox)
            .replace("type = \"webhook\"\n        url = \"http://127.0.0.1:9/\"", &mail);
        let daemon = setup.start(&config, PROBES).await;
        let ended = drill(&daemon, &["orders", "--fault", "corrupt"]).await;
        assert_eq!(ended.code, 0, "{ended:?}\n{}", daemon.log());
    });
}
