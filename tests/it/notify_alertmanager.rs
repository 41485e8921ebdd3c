//! The Alertmanager notifier against the real one, which tells a webhook of ours; its refusals against a scripted server.

use std::process::Command;
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::detect::Severity;
use journeyman::incident::NotifyReason;
use journeyman::notifier::alertmanager::{Alertmanager, AlertmanagerSettings, open};
use journeyman::notifier::{Delivery, Notifier as _, NotifyError};
use journeyman::secret::{HeaderText, Redactor, Secret};
use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::fake_pagerduty::{FakePagerduty, ROUTING_KEY, Status};
use crate::support::hook::{Answer, Hook, json, status, too_many};
use crate::support::target::{Mode, Target};
use crate::support::{alertmanager, block_on, free_port, notices, server_binary, wait_for};

const SOON: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);

fn notifier_with(urls: &[String], expires_after: Duration) -> Alertmanager {
    let redactor = Redactor::new();
    let urls = urls.iter().map(|url| Secret::new(url.clone(), &Redactor::new())).collect();
    let token = Secret::new("Bearer s3cr3t-token".to_owned(), &redactor);
    let headers = vec![("X-Key".to_owned(), HeaderText::Secret(token))];
    let settings = AlertmanagerSettings { urls, headers, resend_every: Duration::from_secs(60), expires_after };
    open(settings, redactor, Clock::system()).expect("sound settings")
}

fn notifier(urls: &[String]) -> Alertmanager {
    notifier_with(urls, HOUR)
}

/// A notice that is decided now.
fn delivery(reason: NotifyReason, sequence: u32) -> Delivery {
    let mut delivery = notices::delivery(reason, sequence);
    delivery.notification.at = Clock::system().now().wall;
    delivery
}

/// The status, severity and incident of each alert that Alertmanager told its webhook of.
fn told(hook: &Hook) -> Vec<(String, String, String)> {
    let documents: Vec<_> = hook.requests().iter().map(|request| request.json()).collect();
    let alerts = documents.iter().flat_map(|document| document["alerts"].as_array().expect("it tells of alerts"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    alerts
        .map(|alert| (word(&alert["status"]), word(&alert["labels"]["severity"]), word(&alert["labels"]["incident"])))
        .collect()
}

async fn wait_until_told(hook: &Hook, status: &str, severity: &str) {
    wait_for(&format!("{status} {severity} at the webhook"), SOON, async || {
        told(hook).iter().any(|(found, worst, _)| found == status && worst == severity).then_some(())
    })
    .await;
}

#[test]
fn what_fires_is_seen_by_all_who_look_and_gone_when_it_is_over() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        let notifier = notifier(&[server.url()]);
        let mut first = delivery(NotifyReason::First, 1);
        let labels = [("9 lives-é", "✓ \"quoted\""), ("severity", "none"), ("empty", "")];
        first.notification.labels.extend(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
        first.notification.decision = "Bearer s3cr3t-token".to_owned();
        let receipt = notifier.notify(&first).await.unwrap();
        assert_eq!((receipt.id.as_str(), receipt.place), ("7f3a2c01d2e4", server.address().to_string()));
        assert_eq!(receipt.said, "200 OK");

        let alerts = server.wait_for_alerts("the alert", |alerts| alerts.len() == 1).await;
        let expected = serde_json::json!({
            "alertname": "JourneymanIncident", "incident": "7f3a2c01d2e4", "severity": "critical", "subject": "sms-round-trip",
            "owner": "team-messaging", "location": "london-1", "tier": "1", "_9_lives__": "✓ \"quoted\"", "journey_severity": "none",
        });
        assert_eq!(alerts[0]["labels"], expected);
        let annotations = &alerts[0]["annotations"];
        assert!(annotations["summary"].as_str().unwrap().starts_with("DOWN sms-round-trip · "), "{annotations}");
        assert!(annotations["description"].as_str().unwrap().contains("Failed step: arrive"), "{annotations}");
        assert!(!annotations.to_string().contains("s3cr3t"), "{annotations}");
        assert_eq!(
            (&annotations["detectors"], &annotations["runbook"]),
            (&"down".into(), &"https://wiki.example.net/sms?a=1&b=2".into())
        );
        assert_eq!(alerts[0]["startsAt"], "2026-03-14T11:57:00.000Z");
        assert_eq!(alerts[0]["generatorURL"], "https://probes.example.net/journeys/sms-round-trip");

        let amtool = server_binary("amtool", "prometheus-alertmanager").expect("it comes with the server");
        let mut command = Command::new(amtool);
        command.args(["alert", "query", "incident=7f3a2c01d2e4", "--output=json", "--alertmanager.url", &server.url()]);
        let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(printed.contains("JourneymanIncident") && printed.contains("sms-round-trip"), "{printed}");

        wait_until_told(&hook, "firing", "critical").await;
        let mut last = delivery(NotifyReason::Resolved, 2);
        last.notification.labels = first.notification.labels;
        notifier.notify(&last).await.unwrap();
        server.wait_for_alerts("no alert", <[_]>::is_empty).await;
        wait_until_told(&hook, "resolved", "critical").await;
        assert_eq!(told(&hook).len(), 2, "once that it began, once that it is over: {:?}", told(&hook));
    });
}

#[test]
fn what_gets_worse_or_is_relabelled_stays_one_alert() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        let notifier = notifier(&[server.url()]);
        let mut warning = delivery(NotifyReason::First, 1);
        warning.notification.incident.worst = Severity::Warning;
        notifier.notify(&warning).await.unwrap();
        // Another place sees the same incident: that is its own.
        let mut elsewhere = warning.clone();
        elsewhere.notification.location = Some("lagos-1".to_owned());
        notifier.notify(&elsewhere).await.unwrap();
        wait_until_told(&hook, "firing", "warning").await;

        notifier.notify(&delivery(NotifyReason::Worse, 2)).await.unwrap();
        let faces = |alerts: &[Value]| {
            let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            let mut faces: Vec<_> = alerts
                .iter()
                .map(|alert| (label(alert, "location"), label(alert, "severity"), label(alert, "tier")))
                .collect();
            faces.sort();
            faces
        };
        let face =
            |location: &str, severity: &str, tier: &str| (location.to_owned(), severity.to_owned(), tier.to_owned());
        let lagos = face("lagos-1", "warning", "1");
        let expected = [lagos.clone(), face("london-1", "critical", "1")];
        server.wait_for_alerts("the worse one alone", |alerts| faces(alerts) == expected).await;
        wait_until_told(&hook, "firing", "critical").await;

        // The journey's labels are edited between two notices.
        let mut relabelled = delivery(NotifyReason::Repeat, 3);
        relabelled.notification.labels.insert("tier".to_owned(), "2".to_owned());
        notifier.notify(&relabelled).await.unwrap();
        let expected = [lagos.clone(), face("london-1", "critical", "2")];
        server.wait_for_alerts("the relabelled one alone", |alerts| faces(alerts) == expected).await;
        // And before the last.
        notifier.notify(&delivery(NotifyReason::Resolved, 4)).await.unwrap();
        server.wait_for_alerts("lagos alone", |alerts| faces(alerts) == [lagos.clone()]).await;
    });
}

#[test]
fn what_is_not_told_again_expires_and_what_was_forgotten_comes_back() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(mut server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        let first = delivery(NotifyReason::First, 1);
        let standing = [first.notification.clone()];
        // Killed, it has lost its alerts and not its silences.
        let notifier = notifier(&[server.url()]);
        notifier.notify(&first).await.unwrap();
        wait_until_told(&hook, "firing", "critical").await;
        let alerts = server.wait_for_alerts("the alert", |alerts| alerts.len() == 1).await;
        server.kill();
        assert!(matches!(notifier.retell(&standing).await, Err(NotifyError::Backoff(_))));
        server.start_again().await;
        assert_eq!(
            server.alerts().await,
            Vec::<Value>::new(),
            "Alertmanager keeps no alerts; if it does now, much is simpler"
        );
        notifier.retell(&standing).await.unwrap();
        let again = server.wait_for_alerts("the alert again", |alerts| alerts.len() == 1).await;
        assert_eq!(again[0]["labels"], alerts[0]["labels"]);
        assert_ne!(again[0]["endsAt"], alerts[0]["endsAt"], "its end is later now");

        // The end that it was told last is when it takes the alert for over.
        let short = notifier_with(&[server.url()], Duration::from_millis(1_500));
        let mut other = first.clone();
        other.notification.incident.id = "0badcafe".to_owned();
        short.notify(&other).await.unwrap();
        server.wait_for_alerts("both", |alerts| alerts.len() == 2).await;
        server.wait_for_alerts("the first alone", |alerts| alerts.len() == 1).await;
        wait_for("the resolution that nobody decided", SOON, async || {
            told(&hook).iter().any(|(status, _, incident)| status == "resolved" && incident == "0badcafe").then_some(())
        })
        .await;
    });
}

#[test]
fn a_silence_there_is_no_matter_here() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        server.silence("subject", "sms-round-trip").await;
        let notifier = notifier(&[server.url()]);
        for (reason, sequence) in [(NotifyReason::First, 1), (NotifyReason::Repeat, 2)] {
            notifier.notify(&delivery(reason, sequence)).await.unwrap();
        }
        server
            .wait_for_alerts("the silenced alert", |alerts| {
                alerts.len() == 1 && alerts[0]["status"]["state"] == "suppressed"
            })
            .await;
        notifier.notify(&delivery(NotifyReason::Resolved, 3)).await.unwrap();
        server.wait_for_alerts("no alert", <[_]>::is_empty).await;
        assert_eq!(told(&hook), []);
    });
}

#[test]
fn one_instance_of_a_cluster_is_enough_and_the_proof_wants_all() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let pair = notifier(&[nobody.clone(), server.url()]);
        let receipt = pair.notify(&delivery(NotifyReason::First, 1)).await.unwrap();
        assert_eq!(receipt.place, server.address().to_string());
        assert!(
            receipt.said.starts_with("200 OK; posting to ") && receipt.said.contains("no connection"),
            "{}",
            receipt.said
        );
        pair.retell(&[delivery(NotifyReason::First, 1).notification]).await.unwrap();
        server.wait_for_alerts("the alert", |alerts| alerts.len() == 1).await;
        let error = pair.prove().await.unwrap_err();
        assert!(error.to_string().contains("no connection"), "{error}");
        let words = notifier(&[server.url()]).prove().await.unwrap();
        assert!(
            words.contains(&format!("{} is Alertmanager 0.", server.address())) && words.contains("disabled"),
            "{words}"
        );

        let none = notifier(&[nobody.clone(), nobody]).notify(&delivery(NotifyReason::First, 1)).await.unwrap_err();
        assert!(matches!(&none, NotifyError::Backoff(text) if text.matches("no connection").count() == 2), "{none:?}");
        let error = notifier(&[hook.url("")]).prove().await.unwrap_err();
        assert!(matches!(&error, NotifyError::Never(text) if text.contains("is no Alertmanager")), "{error:?}");
    });
}

#[test]
fn the_answer_decides_what_happens_next() {
    block_on(async {
        let hook = Hook::start([]).await;
        let url = hook.url("").replace("http://", "http://probe:s3cr3t-password@");
        let alone = notifier(&[url.clone() + "/am/"]);
        let notify = async |answer| {
            hook.then(answer);
            alone.notify(&delivery(NotifyReason::First, 1)).await
        };
        for line in ["500 Oops", "502 Bad Gateway", "503 Away", "504 Late", "408 Slow"] {
            let error = notify(status(line)).await.unwrap_err();
            assert!(matches!(&error, NotifyError::Backoff(_)), "{line}: {error:?}");
        }
        for (line, hint) in [
            ("400 Bad Request", ""),
            ("401 Unauthorized", "check `headers`"),
            ("404 Not Found", "check `url`"),
            ("302 Go", "not followed"),
        ] {
            let error = notify(status(line)).await.unwrap_err();
            assert!(matches!(&error, NotifyError::Never(text) if text.contains(hint)), "{line}: {error:?}");
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        assert!(matches!(notify(Answer::Close).await, Err(NotifyError::Ambiguous(_))));
        assert!(matches!(notify(too_many(None)).await, Err(NotifyError::Backoff(_))));
        assert!(matches!(notify(too_many(Some("soon"))).await, Err(NotifyError::Backoff(_))));
        let receipt = notify(json("200 OK", &"s3cr3t-token".into())).await.unwrap();
        assert_eq!(receipt.said, "200 OK \"•••\"");
        let request = hook.requests().pop().unwrap();
        assert!(request.head.starts_with("POST /am/api/v2/alerts HTTP/1.1"), "{}", request.head);
        assert_eq!(request.header("x-key"), Some("Bearer s3cr3t-token"));
        assert_eq!(request.header("authorization"), Some("Basic cHJvYmU6czNjcjN0LXBhc3N3b3Jk"));

        // Who does not say what it has is told all the same.
        hook.then(status("403 Forbidden"));
        alone.notify(&delivery(NotifyReason::Resolved, 2)).await.unwrap();
        let heads: Vec<_> = hook.requests().iter().rev().take(2).map(|request| request.head.clone()).collect();
        assert!(heads[1].starts_with("GET /am/api/v2/alerts?filter=incident%3D%227f3a2c01d2e4%22&"), "{heads:?}");

        // Nothing goes to an instance before its time, whatever becomes of the other.
        let other = Hook::start([status("500 Oops"), status("500 Oops")]).await;
        let pair = notifier(&[url, other.url("")]);
        let before = hook.requests().len();
        hook.then(too_many(Some("30")));
        for _ in 0..2 {
            let error = pair.notify(&delivery(NotifyReason::First, 1)).await.unwrap_err();
            assert!(matches!(&error, NotifyError::Backoff(_)), "{error:?}");
        }
        pair.retell(&[delivery(NotifyReason::First, 1).notification]).await.unwrap();
        assert_eq!((hook.requests().len() - before, other.requests().len()), (1, 3));
        let held = notifier(&[hook.url("")]);
        hook.then(too_many(Some("30")));
        for _ in 0..2 {
            let error = held.notify(&delivery(NotifyReason::First, 1)).await.unwrap_err();
            assert!(
                matches!(&error, NotifyError::After { wait, .. } if (28..=30).contains(&wait.as_secs())),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_failing_journey_is_an_alert_at_both_until_it_is_well_again() {
    block_on(async {
        let hook = Hook::start([]).await;
        let Some(mut server) = alertmanager::Alertmanager::start(&hook.url("/")).await else { return };
        let pagerduty = FakePagerduty::start([too_many(Some("1")), Answer::WellAndClose]).await;
        let target = Target::start(1).await;
        let setup = Setup::new("alarms");
        setup.write("routing-key", ROUTING_KEY);
        let config = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
             [notifiers.pager]\ntype = \"pagerduty\"\nrouting_key = {{ file = \"routing-key\" }}\nurl = \"{}\"\n\
             [notifiers.alerts]\ntype = \"alertmanager\"\nurl = \"{}\"\nresend_every = \"1s\"\n",
            target.url(),
            pagerduty.url(),
            server.url(),
        );
        let probes = "[[journey]]\nname = \"shop\"\nevery = \"1s\"\ndeadline = \"15s\"\nnotify = [\"pager\", \"alerts\"]\n\
             labels = { team = \"web\" }\nalert = { down_after = 1, recover_after = 1, remind = \"never\" }\n\
             step = [{ request = \"web\", path = \"/0\" }]";
        let mut daemon = setup.start(&config, probes).await;
        target.set_all(Mode::Fails);

        let is_shop = |alerts: &[Value]| alerts.len() == 1 && alerts[0]["labels"]["subject"] == "shop";
        let alerts = server.wait_for_alerts("the alert", is_shop).await;
        assert_eq!(
            (&alerts[0]["labels"]["team"], &alerts[0]["labels"]["severity"]),
            (&"web".into(), &"critical".into())
        );
        let open = wait_for("PagerDuty's alert", SOON, async || {
            let alerts = pagerduty.alerts();
            alerts.first().is_some_and(|alert| alert.triggers.len() == 2).then_some(alerts)
        })
        .await;
        assert_eq!(open.len(), 1, "a 429, one that it took unheard, and its repetition: {open:#?}");
        assert_eq!(
            alerts[0]["labels"]["incident"], *open[0].dedup_key,
            "the same incident has the same name everywhere"
        );
        wait_until_told(&hook, "firing", "critical").await;

        // Neither a restart of Alertmanager nor one of ours ends what goes on.
        server.kill();
        server.start_again().await;
        server.wait_for_alerts("the alert again", is_shop).await;
        daemon.kill().await;
        server.kill();
        server.start_again().await;
        daemon.start_again().await;
        server.wait_for_alerts("the alert after both", is_shop).await;

        target.set_all(Mode::Well);
        server.wait_for_alerts("no alert", <[_]>::is_empty).await;
        wait_until_told(&hook, "resolved", "critical").await;
        wait_for("the end at PagerDuty", SOON, async || {
            (pagerduty.alerts()[0].status == Status::Resolved).then_some(())
        })
        .await;
        assert_eq!(pagerduty.alerts().len(), 1);
        assert!(!daemon.log().contains(ROUTING_KEY));
    });
}
