//! The listener for people and machines: its routes, what its pages let through, and what they hold back.

mod gone;
mod public;
mod routes;
pub(crate) mod stage;
mod whole;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journeyman::board::{ChannelStatus, STUCK};
use journeyman::channel::Readiness;
use journeyman::commands::{Callback, Denial};
use journeyman::http::STORE_COMPONENT;
use journeyman::journey::outcome::{Cause, Verdict};
use reqwest::{Client, Response, StatusCode};
use stage::{HOSTILE, LEAKED, Stage, fill, good, journey, millis, shown};

use crate::support::{block_on, wait_for};

/// Set to any value, the test named `show` serves the filled pages until its standard input ends.
const SHOW: &str = "JOURNEYMAN_SHOW_PAGES";
const SOON: Duration = Duration::from_secs(20);

async fn get(stage: &Stage, path: &str) -> Response {
    Client::new().get(format!("{}{path}", stage.url)).send().await.expect("the server answers")
}

async fn text(stage: &Stage, path: &str) -> String {
    get(stage, path).await.text().await.expect("the answer is whole")
}

async fn json(stage: &Stage, path: &str) -> serde_json::Value {
    let text = text(stage, path).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every page there is, of the filled stage.
async fn pages(stage: &Stage) -> Vec<String> {
    let mut pages: Vec<String> = [
        "/",
        "/?state=down",
        "/?q=partner",
        "/incidents",
        "/alerts/outbox",
        "/channels",
        "/report",
        "/drills",
        "/?group=tier&owner=messaging&label=tier%3D1",
        "/incidents/5d1c09a7be21",
        "/incidents/11aa22bb33cc",
        "/incidents/none",
        "/ack/none",
        "/nowhere",
        "/runs/none",
        "/journeys/none",
    ]
    .map(str::to_owned)
    .to_vec();
    for journey in stage.board.journeys() {
        pages.push(format!("/journeys/{}", encoded(&journey.journey.name)));
        pages.extend(journey.last.as_ref().map(|report| format!("/runs/{}", report.token)));
    }
    assert!(pages.len() > 40, "{}", pages.len());
    pages
}

#[test]
fn what_came_from_outside_is_escaped_and_redacted_on_every_page() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let mut seen = String::new();
        for path in pages(&stage).await {
            let page = text(&stage, &path).await;
            assert!(!page.contains("<script>alert"), "{path} lets a script in");
            assert!(!page.contains("<b>\"owner") && !page.contains("\" onload="), "{path} lets markup in");
            assert!(!page.contains("href=\"javascript:"), "{path} makes a link of a script");
            assert!(!page.contains('\u{202e}'), "{path} lets text be turned around");
            assert!(!page.contains(LEAKED), "{path} shows a secret");
            seen += &page;
        }
        for shown in [
            "&lt;script&gt;alert(1)&lt;&#x2f;script&gt; &quot;quoted&quot; &amp; &#x27;more&#x27; ⟨U+202E⟩gpj.exe",
            "•••",
        ] {
            assert!(seen.contains(shown), "{shown} is on none of the pages");
        }
        for path in [
            "/api/v1/incidents/5d1c09a7be21",
            "/api/v1/silences",
            "/api/v1/journeys",
            "/api/v1/outbox",
            "/health",
            &format!("/api/v1/journeys/{}", encoded(HOSTILE)),
        ] {
            assert!(!text(&stage, path).await.contains(LEAKED), "{path} shows a secret");
        }
        stage.stop().await;
    });
}

#[test]
fn every_page_keeps_the_policy() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        for path in pages(&stage).await {
            let answer = get(&stage, &path).await;
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            let policy = header("content-security-policy");
            for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
                assert!(policy.contains(rule), "{path}: {policy}");
            }
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert_eq!(header("cache-control"), "no-store");
            assert!(header("content-type").starts_with("text/html"), "{path}");
            let page = answer.text().await.unwrap();
            for banned in [" style=", "<style", " onclick=", "http://", "<iframe"] {
                assert!(!page.contains(banned), "{path} has {banned}");
            }
            assert_eq!(page.matches("<script").count(), 1, "{path}");
            assert!(page.contains("<noscript><meta http-equiv=\"refresh\"") && page.ends_with("</html>"), "{path}");
            for file in page.split('"').filter(|text| text.starts_with("/static/")) {
                let answer = get(&stage, file).await;
                assert_eq!(answer.status(), 200, "{file}");
                assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"), "{file}");
            }
        }
        stage.stop().await;
    });
}

#[test]
fn the_status_page_says_who_was_told() {
    block_on(async {
        let stage = Stage::new(None).await;
        let quiet = text(&stage, "/").await;
        assert!(quiet.contains("No journeys are defined") && quiet.contains("No notice has been owed yet"), "{quiet}");
        fill(&stage).await;
        let page = text(&stage, "/").await;
        assert!(page.contains("4 of 20 journeys have an open incident"), "{page}");
        assert!(page.contains("1 notice was given up and 1 waits: not everyone was told."), "{page}");
        assert!(page.contains("Muted: nobody is told."), "{page}");
        let places =
            ["sms-round-trip", "order-pipeline", "mail-round-trip", "checkout-api[eu]", "push gateway", "kafka-events"];
        let table = page.split("<table class=\"journeys\">").nth(1).unwrap();
        let found: Vec<_> = places.iter().map(|name| table.find(name).unwrap()).collect();
        assert!(found.is_sorted(), "the most urgent first: {found:?}");
        let down = text(&stage, "/?state=down").await;
        assert!(down.contains("<th scope=row>") && !down.contains("partner-03"), "{down}");
        let searched = text(&stage, "/?q=PARTNER-03").await;
        assert!(searched.contains("partner-03") && !searched.contains("partner-04"), "{searched}");
        stage.stop().await;
    });
}

#[test]
fn a_journey_is_found_by_any_name_and_its_run_by_its_token() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        assert!(text(&stage, "/journeys/checkout-api%5Beu%5D").await.contains("<bdi>checkout-api[eu]</bdi>"));
        assert!(text(&stage, "/journeys/push%20gateway").await.contains("<bdi>push gateway</bdi>"));
        let page = text(&stage, "/journeys/sms-round-trip").await;
        for told in [
            "Down after 3 failed runs in a row",
            "not received within 60s",
            "Latency of the last 200 runs",
            "id=m-failed",
            "Budget left over the window: ",
        ] {
            assert!(page.contains(told), "{told}: {page}");
        }
        let link = page.split("href=\"").find(|text| text.starts_with("/runs/")).unwrap().split('"').next().unwrap();
        let run = text(&stage, link).await;
        assert!(run.contains("Trace id") && run.contains("good run of"), "{run}");
        stage.stop().await;
    });
}

#[test]
fn a_thousand_journeys_fit_a_page() {
    block_on(async {
        let stage = Stage::new(None).await;
        let model = shown(journey("model"), stage::CALM, Some(good("model", stage::ago(20), millis(900))), |minute| {
            // The worst for size: something else every half an hour.
            [Verdict::Good, Verdict::Failed, Verdict::Slow, Verdict::Unknown][(minute / 30) as usize % 4]
        });
        for number in 0..1_000 {
            let mut status = model.clone();
            status.journey = journey(&format!("integration-{number:04}-round-trip")).into();
            stage.board.set_journey(status);
        }
        let page = text(&stage, "/").await;
        assert_eq!(page.matches("<th scope=row>").count(), 1_000);
        assert!(page.len() < 1 << 20, "{} bytes", page.len());
        stage.stop().await;
    });
}

#[test]
fn metrics_have_their_type() {
    block_on(async {
        let stage = Stage::new(None).await;
        let answer = get(&stage, "/metrics").await;
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(answer.text().await.unwrap().contains("journeyman_build_info{"));
        stage.stop().await;
    });
}

/// On one thread, where tokio's clock can be moved.
#[tokio::test]
async fn liveness_is_our_loops_and_nothing_else() {
    let stage = Stage::new(None).await;
    let readiness = Some(Readiness::Down { why: "connection refused".to_owned() });
    let down = ChannelStatus { kind: "amqp", readiness, ..ChannelStatus::default() };
    stage.board.set_channel(&"orders".into(), down);
    stage.board.set_component(STORE_COMPONENT, false, true, "disk full", stage::start());
    let pulse = stage.board.pulse("scheduler", stage.clock.now().mono);
    assert_eq!(get(&stage, "/live").await.status(), 200);
    tokio::time::pause();
    tokio::time::advance(STUCK).await;
    tokio::time::resume();
    let answer = get(&stage, "/live").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.text().await.unwrap(), "{\"live\":false,\"stuck\":[\"scheduler\"]}\n");
    assert!(text(&stage, "/ready").await.contains("loop scheduler is stuck"));
    pulse.beat(stage.clock.now().mono);
    assert_eq!(get(&stage, "/live").await.status(), 200);
    stage.stop().await;
}

#[test]
fn readiness_wants_all_three() {
    block_on(async {
        let stage = Stage::new(None).await;
        assert_eq!(get(&stage, "/ready").await.status(), 200);
        stage.ready.store(false, Ordering::Release);
        let answer = get(&stage, "/ready").await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().await.unwrap().contains("still starting"));
        stage.ready.store(true, Ordering::Release);
        stage.board.set_component(STORE_COMPONENT, false, true, format!("disk full {LEAKED}"), stage::start());
        let body = json(&stage, "/ready").await;
        assert_eq!(body["reasons"], serde_json::json!(["store: disk full •••"]));
        stage.stop().await;
    });
}

#[test]
fn health_tells_part_by_part_and_fails_for_a_critical_one() {
    block_on(async {
        let stage = Stage::new(None).await;
        stage.board.set_component("reload", false, false, "probes/a.toml:3: unknown key", stage::start());
        let answer = get(&stage, "/health").await;
        assert_eq!(answer.status(), 200);
        let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&body["status"], &body["location"]), (&"degraded".into(), &"zrh-1".into()));
        assert_eq!(body["components"]["reload"]["detail"], "probes/a.toml:3: unknown key");
        assert!(text(&stage, "/").await.contains("Journeyman itself is not well"));
        stage.board.set_component(STORE_COMPONENT, false, true, "disk full", stage::start());
        assert_eq!(get(&stage, "/health").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(json(&stage, "/api/v1/health").await["status"], "failing");
        stage.stop().await;
    });
}

#[test]
fn events_tell_of_a_change_and_end_with_the_server() {
    block_on(async {
        let stage = Stage::new(None).await;
        let mut answer = get(&stage, "/events").await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut got = String::new();
        let mut read_until = async |wanted: &str| {
            let reading = async {
                while !got.contains(wanted) {
                    let bytes = answer.chunk().await.unwrap().expect("the stream goes on");
                    got += &String::from_utf8_lossy(&bytes);
                }
            };
            tokio::time::timeout(SOON, reading).await.unwrap_or_else(|_| panic!("waited for {wanted}"));
            got.clone()
        };
        assert!(!read_until("event: hello").await.contains("change"));
        for _ in 0..5 {
            stage.board.set_journey(shown(journey("one"), stage::CALM, None, |_| Verdict::Good));
        }
        // Told at once or together, by their last; never as five.
        let told = read_until("data: 5\n").await;
        assert!(told.contains("event: change") && told.matches("event: change").count() <= 2, "{told}");
        stage.stop.cancel();
        let ended = async { while answer.chunk().await.unwrap().is_some() {} };
        tokio::time::timeout(SOON, ended).await.expect("the stream ends, and in order");
        stage.stop().await;
    });
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    block_on(async {
        let stage = Stage::new(None).await;
        let address = stage.url.strip_prefix("http://").unwrap();
        let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut answer);
        tokio::time::timeout(SOON, closed).await.expect("the server closes it").unwrap();
        stage.stop().await;
    });
}

#[test]
fn dead_notices_come_back_when_asked_for() {
    block_on(async {
        let stage = Stage::new(Some("the-admin-token")).await;
        fill(&stage).await;
        let url = format!("{}/api/v1/outbox/slack-shop/retry", stage.url);
        let answer = Client::new().post(url).bearer_auth("the-admin-token").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "{\"revived\":1}\n");
        assert_eq!(json(&stage, "/api/v1/outbox?status=dead").await["notices"], serde_json::json!([]));
        stage.stop().await;
    });
}

#[test]
fn a_store_that_is_gone_costs_its_part_of_the_page() {
    block_on(async {
        let stage = Stage::without_store().await;
        let last = Some(good("one", stage::ago(5), millis(900)));
        stage.board.set_journey(shown(journey("one"), stage::CALM, last, |_| Verdict::Good));
        let page = text(&stage, "/").await;
        assert!(page.contains("<bdi>one</bdi>") && page.contains("Whether notices went out is not known"), "{page}");
        let page = text(&stage, "/journeys/one").await;
        assert!(page.contains("the disk has left") && page.contains("202 Accepted"), "{page}");
        for path in ["/incidents", "/alerts/outbox"] {
            assert!(text(&stage, path).await.contains("Not everything can be shown"), "{path}");
        }
        let answer = get(&stage, "/api/v1/incidents").await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = answer.text().await.unwrap();
        assert_eq!(body, "{\"error\":\"the store cannot be read: the disk has left\"}\n");
        stage.stop().await;
    });
}

#[test]
fn the_api_keeps_its_shape() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        assert_eq!(json(&stage, "/api/v1/journeys/none").await["error"], "no journey has this name");
        assert_eq!(json(&stage, "/api/v1/nothing").await["error"], "There is no such page.");
        for unreadable in ["/api/v1/outbox?status=lost", "/api/v1/incidents?limit=many", "/api/v1/journeys/%FF"] {
            let answer = get(&stage, unreadable).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{unreadable}");
            assert!(answer.text().await.unwrap().starts_with("{\"error\":\""), "{unreadable}");
        }
        let listed = json(&stage, "/api/v1/journeys?state=down").await;
        assert_eq!(listed["journeys"].as_array().unwrap().len(), 1);
        let mut one = json(&stage, "/api/v1/journeys/sms-round-trip").await;
        assert_eq!(one["journey"]["last_24_hours"].as_array().unwrap().len(), 48);
        one["journey"]["last_24_hours"] = one["journey"]["last_24_hours"][47].take();
        // When it runs next depends on the moment of the question.
        one["journey"]["next_slot"].take();
        let golden = include_str!("http_pages/journey.json");
        let pretty = serde_json::to_string_pretty(&one).unwrap();
        assert_eq!(pretty.trim(), golden.trim(), "{pretty}");
        let runs = json(&stage, "/api/v1/journeys/sms-round-trip/runs?limit=3").await;
        assert_eq!(runs["runs"].as_array().unwrap().len(), 3);
        let token = runs["runs"][0]["token"].as_str().unwrap();
        let run = json(&stage, &format!("/api/v1/runs/{token}")).await;
        assert_eq!(
            (&run["run"]["verdict"], &run["run"]["why"]),
            (&"failed".into(), &Cause::NotReceived.as_str().into())
        );
        let incidents = json(&stage, "/api/v1/incidents").await;
        assert_eq!(incidents["incidents"][0]["open"], true);
        let outbox = json(&stage, "/api/v1/outbox").await;
        assert_eq!(outbox["notifiers"].as_array().unwrap().len(), 3);
        assert_eq!(outbox["notices"].as_array().unwrap().len(), 3);
        stage.stop().await;
    });
}

/// For a look in a browser: `JOURNEYMAN_SHOW_PAGES=1 cargo test --features full show -- --nocapture`.
#[test]
fn show() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let is_up = async || get(&stage, "/").await.status().is_success().then_some(());
        wait_for("the status page", SOON, is_up).await;
        if std::env::var_os(SHOW).is_some() {
            println!("{}", stage.url);
            let until_end = || std::io::stdin().read_to_end(&mut Vec::new());
            tokio::task::spawn_blocking(until_end).await.unwrap().unwrap();
        }
        stage.stop().await;
    });
}

/// Knows whoever sends the right signature; takes two calls.
#[derive(Default)]
struct Gate(std::sync::Mutex<Vec<Vec<u8>>>);

impl Callback for Gate {
    fn called(&self, header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Result<(), Denial> {
        let is_signed = header("x-slack-signature").as_deref() == Some("v0=right");
        let mut taken = self.0.lock().expect("no panic while held");
        match body {
            _ if !is_signed => Err(Denial::Forged("wrong signature")),
            b"" => Err(Denial::Unreadable("nothing")),
            _ if taken.len() == 2 => Err(Denial::Busy),
            body => {
                taken.push(body.to_vec());
                Ok(())
            }
        }
    }
}

#[test]
fn slacks_calls_are_handed_over_as_they_came() {
    block_on(async {
        let gate = Arc::new(Gate::default());
        let stage = Stage::taking_calls(gate.clone()).await;
        let call = |signatures: &'static [&'static str], body: Vec<u8>| {
            let mut request = Client::new().post(format!("{}/slack/interactions", stage.url)).body(body);
            for signature in signatures {
                request = request.header("x-slack-signature", *signature);
            }
            async move { request.send().await.unwrap().status().as_u16() }
        };
        let body = || b"payload=%7B%22a%22%3A+1%7D&\xff".to_vec();
        for forged in [&[][..], &["v0=wrong"], &["v0=right", "v0=right"], &["v0=right", "v0=wrong"]] {
            assert_eq!(call(forged, body()).await, 401, "{forged:?}");
        }
        assert_eq!(call(&["v0=right"], Vec::new()).await, 400);
        assert_eq!(call(&["v0=right"], vec![b'x'; 256 * 1024 + 1]).await, 413);
        assert_eq!(call(&["v0=right"], body()).await, 200);
        assert_eq!(call(&["v0=right"], vec![b'x'; 256 * 1024]).await, 200);
        assert_eq!(call(&["v0=right"], body()).await, 503);
        assert_eq!(gate.0.lock().unwrap()[0], body(), "not a byte is changed, for all are signed");
        stage.stop().await;
    });
}
