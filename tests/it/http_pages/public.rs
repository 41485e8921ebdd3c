//! What everybody may see, and what nobody sees there.

use std::sync::Arc;

use journeyman::clock::Clock;
use journeyman::control::Matcher;
use journeyman::control::status_page::{Component, StatusPage};
use journeyman::gate::{Door, Web};

use super::stage::{HOSTILE, LEAKED, Stage, fill};
use super::{get, text};
use crate::support::{Scratch, block_on};

fn part(title: &str, journeys: &[&str]) -> Component {
    let journeys = journeys.iter().map(|text| Matcher::parse(text).expect("a matcher")).collect();
    Component { title: title.to_owned(), group: None, journeys }
}

fn page() -> StatusPage {
    StatusPage {
        title: "Example services".to_owned(),
        about: None,
        components: vec![
            part("Text messages", &["sms-*"]),
            part("Orders & more", &["order-pipeline", "checkout-api[us]"]),
            part("Partners", &["partner-*"]),
            part("Nothing", &["nobody"]),
        ],
    }
}

#[test]
fn everybody_sees_the_titles_and_nobody_a_name_or_any_evidence() {
    block_on(async {
        let stage = Stage::published(page(), Door::default()).await;
        fill(&stage).await;
        let answer = get(&stage, "/status").await;
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        let page = answer.text().await.unwrap();
        for told in
            ["Example services", "Something does not work as it should", "Text messages", "✗ outage", "✓ operational"]
        {
            assert!(page.contains(told), "{told}: {page}");
        }
        assert!(page.contains("Text messages</bdi>: not working") && page.contains("97.66"), "{page}");
        let badges = ["state", "uptime", "latency"].map(|what| format!("/badge/Text%20messages/{what}.svg"));
        let mut all = page;
        for badge in &badges {
            let answer = get(&stage, badge).await;
            assert_eq!(answer.headers()["content-type"], "image/svg+xml");
            all += &answer.text().await.unwrap();
        }
        for word in
            ["sms", "round-trip", "order-pipeline", "checkout", "partner-0", "not_received", "not received", "zrh-1"]
        {
            assert!(!all.contains(word), "`{word}` is nobody's business: {all}");
        }
        for word in
            [LEAKED, HOSTILE, "<script", "slack-ops", "gateway", "inbound", "5d1c09a7be21", "monitor.example.net"]
        {
            assert!(!all.contains(word), "`{word}` is nobody's business: {all}");
        }
        stage.stop().await;
    });
}

#[test]
fn badges_say_how_a_part_is_and_there_are_none_of_others() {
    block_on(async {
        let stage = Stage::published(page(), Door::default()).await;
        fill(&stage).await;
        for (badge, word) in [
            ("Text%20messages/state.svg", "Text messages: outage"),
            ("Orders%20&%20more/state.svg", "Orders &amp; more: degraded"),
            ("Partners/state.svg", "Partners: operational"),
            ("Nothing/state.svg", "Nothing: unknown"),
            ("Nothing/uptime.svg", "Nothing: no runs"),
            ("Partners/latency.svg", "Partners: no runs"),
            ("Text%20messages/uptime.svg", " % in 90 d"),
            ("Text%20messages/latency.svg", "Text messages: 1."),
        ] {
            let drawn = text(&stage, &format!("/badge/{badge}")).await;
            assert!(drawn.contains(word) && drawn.contains("</svg>"), "{badge}: {drawn}");
        }
        for other in ["sms-round-trip/state.svg", "Partners/evidence.svg", "partner-00/state.svg", "Other/uptime.svg"] {
            assert_eq!(get(&stage, &format!("/badge/{other}")).await.status(), 404, "{other}");
        }
        stage.stop().await;
    });
}

#[test]
fn without_a_status_page_there_is_nothing_at_its_addresses() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        for path in ["/status", "/badge/Text%20messages/state.svg", "/badge/sms-round-trip/state.svg"] {
            assert_eq!(get(&stage, path).await.status(), 404, "{path}");
        }
        stage.stop().await;
    });
}

#[test]
fn the_password_of_the_listener_is_not_asked_for_what_everybody_may_see() {
    block_on(async {
        let scratch = Scratch::new("published");
        let hash = bcrypt::hash("lovelace", 4).unwrap();
        let file = scratch.write("web.yml", &format!("basic_auth_users:\n  ada: {hash}\n"));
        let web = Some(Arc::new(Web::open(&file, Clock::system()).unwrap()));
        let stage = Stage::published(page(), Door { web, ..Door::default() }).await;
        for (path, status) in [
            ("/status", 200),
            ("/badge/Partners/state.svg", 200),
            ("/static/style.css", 200),
            ("/", 401),
            ("/status/", 401),
            ("/incidents", 401),
            ("/metrics", 401),
            ("/api/v1/journeys", 401),
        ] {
            assert_eq!(get(&stage, path).await.status(), status, "{path}");
        }
        stage.stop().await;
    });
}

#[test]
fn the_history_is_looked_up_once_a_minute_however_many_come() {
    block_on(async {
        let stage = Stage::published(page(), Door::default()).await;
        assert!(text(&stage, "/status").await.contains("no runs yet"));
        fill(&stage).await;
        let page = text(&stage, "/status").await;
        assert!(
            page.contains("✗ outage") && !page.contains("% delivered"),
            "the state is new, the history is not: {page}"
        );
        stage.stop().await;
    });
}
