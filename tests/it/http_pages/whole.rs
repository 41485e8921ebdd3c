//! What each page must tell whoever comes to it at three in the morning.

use std::time::Duration;

use journeyman::journey::outcome::Verdict;
use journeyman::journey::report::Report;

use super::stage::{CALM, Stage, ago, fill, good, journey, millis, shown};
use super::{get, text};
use crate::support::block_on;

/// Where texts stand in a page; each must be there, after the one before.
fn in_order(page: &str, texts: &[&str]) {
    let mut rest = page;
    for text in texts {
        let (_, after) = rest.split_once(text).unwrap_or_else(|| panic!("`{text}` is not there, or too early: {page}"));
        rest = after;
    }
}

#[test]
fn the_overview_has_groups_and_is_filtered_without_script() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        assert!(!text(&stage, "/").await.contains("class=\"group\""), "nobody has a label `group`");
        for (name, group) in [("alpha", "Shop"), ("beta", "Mail")] {
            let mut one = journey(name);
            one.labels.insert("group".to_owned(), group.to_owned());
            let last = Some(good(name, ago(5), millis(900)));
            stage.board.set_journey(shown(one, CALM, last, |_| Verdict::Good));
        }
        let page = text(&stage, "/").await;
        let table = page.split("<table class=\"journeys\">").nth(1).unwrap();
        // Groups of equal urgency by name; those without the label last, however urgent.
        in_order(table, &["<bdi>Mail</bdi>", "beta", "<bdi>Shop</bdi>", "alpha", "without group", "sms-round-trip"]);
        let flat = text(&stage, "/?group=-").await;
        assert!(!flat.contains("class=\"group\""), "{flat}");
        let by_owner = text(&stage, "/?group=owner&q=o").await;
        in_order(by_owner.split("<table class=\"journeys\">").nth(1).unwrap(), &["commerce", "order-pipeline"]);
        let shop = text(&stage, "/?label=group%3DShop").await;
        let rows = |page: &str| page.matches("<th scope=row>").count();
        assert!(rows(&shop) == 1 && shop.contains("<bdi>alpha</bdi>"), "{shop}");
        assert_eq!(rows(&text(&stage, "/?label=group").await), 2);
        assert_eq!(rows(&text(&stage, "/?owner=commerce&state=slow").await), 1);
        assert_eq!(rows(&text(&stage, "/?owner=&label=&q=&state=&group=").await), 22, "what a form leaves empty");
        let links = text(&stage, "/?owner=commerce&q=a%26b").await;
        assert!(links.contains("href=\"/?state=down&amp;q=a%26b&amp;owner=commerce\""), "{links}");
        stage.stop().await;
    });
}

#[test]
fn a_thousand_journeys_are_rendered_in_time() {
    block_on(async {
        let stage = Stage::new(None).await;
        let model = shown(journey("model"), CALM, Some(good("model", ago(20), millis(900))), |minute| {
            [Verdict::Good, Verdict::Failed, Verdict::Slow][(minute / 30) as usize % 3]
        });
        for number in 0..1_000 {
            let mut status = model.clone();
            let mut one = journey(&format!("integration-{number:04}-round-trip"));
            one.labels.insert("group".to_owned(), format!("group-{}", number % 20));
            status.journey = one.into();
            stage.board.set_journey(status);
        }
        text(&stage, "/").await;
        let mut took = Vec::new();
        for _ in 0..5 {
            let began = stage.clock.now().mono;
            assert_eq!(text(&stage, "/").await.matches("<th scope=row>").count(), 1_000);
            took.push(stage.clock.now().mono.since(began));
        }
        let least = took.into_iter().min().unwrap();
        eprintln!("a page of 1000 journeys: {least:?}");
        // 0.3 s is what is promised of a build with optimisation; others run where much else does.
        let bound = if cfg!(debug_assertions) { Duration::from_secs(5) } else { millis(300) };
        assert!(least < bound, "{least:?}");
        stage.stop().await;
    });
}

#[test]
fn a_journey_tells_what_its_runs_came_to_and_goes_back_in_time() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let page = text(&stage, "/journeys/sms-round-trip").await;
        in_order(
            &page,
            &["p50 1", "p95 ", "What the last 200 runs came to", "good", "not_received", "Where the time goes"],
        );
        assert!(page.contains("by hops") && page.contains("<bdi>smsc</bdi>") && page.contains("the rest"), "{page}");
        assert!(page.contains("rel=\"next\"") && !page.contains("rel=\"prev\""), "{page}");
        let slots = |page: &str| {
            let table = page.split("<table class=\"runs\">").nth(1).and_then(|rest| rest.split("</table>").next());
            let slots = table.unwrap_or_default().split("datetime=").skip(1).filter_map(|rest| rest.split('>').next());
            slots.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut all = slots(&page);
        assert_eq!(all.len(), 50);
        for number in 2..=5 {
            all.extend(slots(&text(&stage, &format!("/journeys/sms-round-trip?page={number}")).await));
        }
        assert_eq!(all.len(), 219, "all that were run");
        assert!(all.is_sorted_by(|a, b| a > b), "newest first, each once");
        let beyond = text(&stage, "/journeys/sms-round-trip?page=6").await;
        assert!(beyond.contains("There are no runs so far back"), "{beyond}");
        assert_eq!(get(&stage, "/journeys/sms-round-trip?page=99999999").await.status(), 200);
        stage.stop().await;
    });
}

#[test]
fn a_run_links_to_its_logs() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let report: Report = good("checkout-api[us]", ago(12), millis(231));
        let page = text(&stage, &format!("/runs/{}", report.token)).await;
        let link = format!("href=\"https:&#x2f;&#x2f;logs.example.net&#x2f;?q={}\"", report.token.trace_id());
        assert!(page.contains(&link), "{link}: {page}");
        stage.stop().await;
    });
}

#[test]
fn an_incident_tells_who_was_told_when_and_with_which_receipt() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let page = text(&stage, "/incidents/5d1c09a7be21").await;
        let told = [
            "What happened",
            "the first bad slot",
            "mail-ops is to be told (first); attempt 3 said: mail.example.net:587 said 451",
            "slack-ops was told (first)",
            "1763710738.000100",
            "C024BE91L",
            "looks after it",
        ];
        in_order(&page, &told);
        let list = text(&stage, "/incidents").await;
        assert!(list.contains("<svg class=timeline") && list.contains("2 incidents; critical ones"), "{list}");
        stage.stop().await;
    });
}

#[test]
fn a_channel_tells_what_stands_in_the_way() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let page = text(&stage, "/channels").await;
        in_order(
            &page,
            &["gateway", "0 of 64 calls now", "at most 5&#x2f;s", "mailbox", "connection refused by 10.0.0.7:993"],
        );
        assert!(page.contains("login as probe failed: ••• is wrong"), "{page}");
        stage.stop().await;
    });
}

#[test]
fn a_report_is_of_a_month() {
    block_on(async {
        let stage = Stage::new(None).await;
        fill(&stage).await;
        let page = text(&stage, "/report?q=sms").await;
        // 219 runs of some 29 000 slots since the first of the month: nothing can be said.
        in_order(
            &page,
            &["Objectives in November 2026", "The month is not over", "0 kept", "sms-round-trip", "99.5", "unknown"],
        );
        assert!(page.contains("month=2026-10&amp;q=sms") && !page.contains("month=2026-12"), "{page}");
        let october = text(&stage, "/report?month=2026-10").await;
        assert!(october.contains("October 2026") && !october.contains("The month is not over"), "{october}");
        assert_eq!(get(&stage, "/report?month=soon").await.status(), 400);
        let gone = Stage::without_store().await;
        gone.board.set_journey(shown(journey("one"), CALM, None, |_| Verdict::Good));
        assert!(text(&gone, "/report").await.contains("Not everything can be shown"));
        gone.stop().await;
        stage.stop().await;
    });
}

#[test]
fn without_a_token_there_is_nothing_to_press() {
    block_on(async {
        for (token, forms) in [(None, 0), (Some("the-admin-token"), 3)] {
            let stage = Stage::new(token).await;
            fill(&stage).await;
            let page = text(&stage, "/journeys/partner-00").await;
            assert_eq!(page.matches("<form method=\"post\"").count(), forms, "{page}");
            assert!(!page.contains("the-admin-token"));
            stage.stop().await;
        }
    });
}
