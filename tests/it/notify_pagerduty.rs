//! The PagerDuty notifier against a fake that holds to PagerDuty's documents, and every way in which it refuses, stalls and breaks.

use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::detect::Severity;
use journeyman::incident::NotifyReason;
use journeyman::notifier::pagerduty::{Action, Event, Pagerduty, PagerdutySettings, open};
use journeyman::notifier::{Delivery, Notifier as _, NotifyError};
use journeyman::secret::{Redactor, Secret};

use crate::support::fake_pagerduty::{FakePagerduty, ROUTING_KEY, Status};
use crate::support::hook::{Answer, status, too_many};
use crate::support::notices::{delivery, noon};
use crate::support::{block_on, free_port, wait_for};

fn pagerduty_at(url: String) -> Pagerduty {
    let redactor = Redactor::new();
    let routing_key = Secret::new(ROUTING_KEY.to_owned(), &redactor);
    let settings = PagerdutySettings { routing_key, url: Secret::new(url, &Redactor::new()) };
    open(settings, redactor, Clock::derived(noon())).expect("sound settings")
}

fn first() -> Delivery {
    delivery(NotifyReason::First, 1)
}

#[test]
fn an_incident_is_one_alert_from_its_first_notice_to_its_last() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        let pagerduty = pagerduty_at(fake.url());
        let mut warning = first();
        let notification = &mut warning.notification;
        notification.incident.worst = Severity::Warning;
        // What is not known is left out.
        (notification.report, notification.owner) = (None, None);
        (notification.link, notification.runbook) = (None, None);
        let receipt = pagerduty.notify(&warning).await.unwrap();
        assert_eq!((receipt.id.as_str(), receipt.place.as_str()), ("7f3a2c01d2e4", "127.0.0.1"));
        assert!(
            receipt.said.starts_with("202 Accepted {") && receipt.said.contains("Event processed"),
            "{}",
            receipt.said
        );
        pagerduty.notify(&delivery(NotifyReason::Worse, 2)).await.unwrap();
        pagerduty.notify(&delivery(NotifyReason::Repeat, 3)).await.unwrap();
        let alerts = fake.alerts();
        assert_eq!(
            (alerts.len(), alerts[0].status, alerts[0].triggers.len()),
            (1, Status::Triggered, 3),
            "{alerts:#?}"
        );
        let severities: Vec<_> = alerts[0].triggers.iter().map(|trigger| &trigger["severity"]).collect();
        assert_eq!(severities, ["warning", "critical", "critical"]);

        let event = Event { action: Action::Acknowledge, ..Event::of(&first()) };
        pagerduty.send(&event).await.unwrap();
        assert_eq!(fake.alerts()[0].status, Status::Acknowledged);

        // What was about this very incident before does not open it again.
        pagerduty.notify(&delivery(NotifyReason::Resolved, 4)).await.unwrap();
        pagerduty
            .notify(&Delivery { attempt: 2, is_ambiguous: true, ..delivery(NotifyReason::Resolved, 4) })
            .await
            .unwrap();
        let mut other = first();
        other.notification.incident.id = "0badcafe".to_owned();
        pagerduty.notify(&other).await.unwrap();
        let found: Vec<_> = fake.alerts().into_iter().map(|alert| (alert.dedup_key, alert.status)).collect();
        assert_eq!(found, [("7f3a2c01d2e4".to_owned(), Status::Resolved), ("0badcafe".to_owned(), Status::Triggered)]);
    });
}

#[test]
fn who_is_woken_sees_what_is_wrong_and_where_to_look() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        let instead_of = Some(("oncall".to_owned(), "invalid_auth".to_owned()));
        pagerduty_at(fake.url()).notify(&Delivery { instead_of, ..first() }).await.unwrap();
        let request = fake.requests().remove(0);
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(request.header("user-agent").unwrap().starts_with("journeyman/"));
        let event = request.json();
        let payload = &event["payload"];
        let summary = payload["summary"].as_str().unwrap();
        assert!(summary.starts_with("DOWN sms-round-trip · "), "{summary}");
        assert_eq!(payload["source"], "sms-round-trip");
        assert_eq!(payload["component"], "arrive");
        assert_eq!(payload["group"], "team-messaging");
        assert_eq!(payload["class"], "down");
        assert_eq!(payload["timestamp"], "2026-03-14T12:00:00Z");
        let details = &payload["custom_details"];
        assert_eq!(details["Labels"], "tier=1");
        assert_eq!(details["Instead of"], "oncall: invalid_auth");
        assert!(details["Waterfall"].as_str().unwrap().contains("submit"), "{details}");
        assert_eq!(event["client_url"], "https://probes.example.net/journeys/sms-round-trip");
        assert_eq!(event["links"][0]["href"], "https://wiki.example.net/sms?a=1&b=2");
    });
}

#[test]
fn an_end_says_no_more_than_it_must() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        pagerduty_at(fake.url()).notify(&delivery(NotifyReason::Resolved, 2)).await.unwrap();
        let expected = serde_json::json!({
            "routing_key": ROUTING_KEY, "event_action": "resolve", "dedup_key": "7f3a2c01d2e4",
        });
        assert_eq!(fake.requests()[0].json(), expected);
    });
}

#[test]
fn no_notice_is_too_large_to_be_taken() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        // Written as six bytes each.
        let endless = "\u{1}".repeat(300_000);
        let mut delivery = first();
        let notification = &mut delivery.notification;
        notification.incident.id = "i".repeat(300);
        notification.labels = (0..500).map(|n| (format!("label-{n}"), endless[..2_000].to_owned())).collect();
        notification.report.as_mut().unwrap().steps[1].detail = Some(endless.clone());
        notification.report.as_mut().unwrap().steps[1].name = endless.as_str().into();
        for text in [&mut notification.subject, &mut notification.decision] {
            text.clone_from(&endless);
        }
        for text in
            [&mut notification.owner, &mut notification.objective, &mut notification.link, &mut notification.runbook]
        {
            *text = Some(endless.clone());
        }
        delivery.instead_of = Some(("slack".to_owned(), endless.clone()));
        let receipt = pagerduty_at(fake.url()).notify(&delivery).await.unwrap();
        assert_eq!(receipt.id, fake.alerts()[0].dedup_key);
        assert_eq!(fake.alerts()[0].triggers[0]["summary"].as_str().unwrap().chars().count(), 1_024);
    });
}

#[test]
fn the_answer_decides_what_happens_next() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        let pagerduty = pagerduty_at(fake.url());
        let notify = async |answer| {
            fake.then(answer);
            pagerduty.notify(&first()).await
        };
        for (retry_after, seconds) in
            [(Some("1"), 1), (Some("30"), 30), (Some("0"), 0), (None, 30), (Some("soon"), 30), (Some("86400"), 3_600)]
        {
            let error = notify(too_many(retry_after)).await.unwrap_err();
            assert!(
                matches!(&error, NotifyError::After { wait, .. } if wait.as_secs() == seconds),
                "{retry_after:?}: {error:?}"
            );
        }
        for line in ["500 Oops", "501 No", "502 Bad Gateway", "503 Away", "504 Late", "408 Slow"] {
            let error = notify(status(line)).await.unwrap_err();
            assert!(matches!(&error, NotifyError::Backoff(_)), "{line}: {error:?}");
        }
        for (line, hint) in [
            ("400 Bad Request", "check `routing_key`"),
            ("402 Pay", "check `routing_key`"),
            ("403 Forbidden", "check `routing_key`"),
            ("404 Not Found", "check `url`"),
            ("410 Gone", "check `url`"),
            ("413 Too Large", "takes no such event"),
            ("302 Elsewhere", "not followed"),
            ("200 OK", "not PagerDuty's 202"),
        ] {
            let error = notify(status(line)).await.unwrap_err();
            assert!(matches!(&error, NotifyError::Never(text) if text.contains(hint)), "{line}: {error:?}");
        }
        assert_eq!(fake.alerts().len(), 0);
        // A body that breaks off after 202 is still a yes.
        let broken = Answer::Raw("HTTP/1.1 202 Accepted\r\ncontent-length: 1000\r\n\r\n{\"status\"".to_owned());
        notify(broken).await.unwrap();
        assert_eq!(fake.requests().len(), 6 + 6 + 8 + 1, "one request an attempt");
    });
}

#[test]
fn a_key_that_pagerduty_does_not_know_is_not_tried_again_and_not_shown() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        let redactor = Redactor::new();
        let routing_key = Secret::new("s3cr3t".to_owned(), &redactor);
        let settings = PagerdutySettings { routing_key, url: Secret::new(fake.url(), &Redactor::new()) };
        let pagerduty = open(settings, redactor, Clock::derived(noon())).unwrap();
        let mut delivery = first();
        delivery.notification.decision = "because of s3cr3t".to_owned();
        let error = pagerduty.notify(&delivery).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Never(text) if text.contains("should be 32 characters")), "{error:?}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
        let event = fake.requests()[0].json();
        assert_eq!(event["routing_key"], "s3cr3t");
        assert!(!event["payload"].to_string().contains("s3cr3t"), "{event}");
    });
}

#[test]
fn an_event_that_was_taken_without_our_learning_of_it_opens_nothing_twice() {
    block_on(async {
        let fake = FakePagerduty::start([Answer::WellAndClose]).await;
        let pagerduty = pagerduty_at(fake.url());
        let error = pagerduty.notify(&first()).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Ambiguous(_)), "{error:?}");
        pagerduty.notify(&Delivery { attempt: 2, is_ambiguous: true, ..first() }).await.unwrap();
        let alerts = fake.alerts();
        assert_eq!((alerts.len(), alerts[0].triggers.len()), (1, 2), "{alerts:#?}");

        let error = pagerduty_at(format!("http://127.0.0.1:{}/", free_port())).notify(&first()).await.unwrap_err();
        assert!(matches!(&error, NotifyError::Backoff(text) if text.contains("refused")), "{error:?}");
    });
}

#[tokio::test]
async fn a_server_that_never_answers_is_doubt_after_ten_seconds() {
    journeyman::tls::init();
    let fake = FakePagerduty::start([Answer::Hang]).await;
    let clock = Clock::system();
    let (pagerduty, delivery) = (pagerduty_at(fake.url()), first());
    let pausing = async {
        let has_read = async || (!fake.requests().is_empty()).then_some(());
        wait_for("the request", Duration::from_secs(10), has_read).await;
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(pagerduty.notify(&delivery), pausing);
    assert!(
        matches!(&answer, Err(NotifyError::Ambiguous(text)) if text.contains("no answer within 10s")),
        "{answer:?}"
    );
    assert!((10..12).contains(&clock.now().mono.0.as_secs()));
}

#[test]
fn the_proof_says_what_it_does_not_prove_and_tells_nobody() {
    block_on(async {
        let fake = FakePagerduty::start([]).await;
        let words = pagerduty_at(fake.url()).prove().await.unwrap();
        assert!(words.contains("answers GET with 404") && words.contains("only a real event can show"), "{words}");
        assert_eq!(fake.alerts().len(), 0);
        assert!(fake.requests().iter().all(|request| request.head.starts_with("GET ") && request.body.is_empty()));
        let nobody = pagerduty_at(format!("http://127.0.0.1:{}/", free_port())).prove().await;
        assert!(matches!(nobody, Err(NotifyError::Backoff(_))), "{nobody:?}");
    });
}
