//! Notices to tell: one incident of the journey `sms-round-trip`, with a failed run and the last good one before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use journeyman::alert::Subject;
use journeyman::detect::{Detector, Severity};
use journeyman::incident::{Incident, NotifyReason, Root};
use journeyman::journey::outcome::{Cause, Outcome};
use journeyman::journey::report::{Phase, Report, StepReport, StepStatus};
use journeyman::journey::seen::{Seen, What};
use journeyman::journey::token::Token;
use journeyman::notice::{Notification, delivery_id};
use journeyman::notifier::Delivery;

/// When the notices are decided.
pub fn noon() -> Timestamp {
    "2026-03-14T12:00:00Z".parse().expect("a timestamp")
}

/// A step that began `at` milliseconds after the first and took `took`.
pub fn step(name: &str, verb: &str, channel: &str, at: u64, took: u64, status: StepStatus) -> StepReport {
    StepReport {
        channel: Some(channel.into()),
        at: Duration::from_millis(at),
        took: Duration::from_millis(took),
        ..StepReport::new(name, verb.to_owned(), status)
    }
}

/// The run that decided it: sent, never received.
pub fn failed_run() -> Report {
    let mut submit = step("submit", "send", "gateway", 0, 12, StepStatus::Passed);
    submit.ack = Some("202".to_owned());
    submit.phases = vec![Phase { name: "connect".to_owned(), took: Duration::from_millis(3) }];
    submit.seen = vec![Seen::new(What::Peer, "192.0.2.8:443"), Seen::new(What::Server, "nginx/1.25")];
    let mut arrive = step("arrive", "receive", "inbound", 0, 60_000, StepStatus::Failed);
    arrive.detail = Some("not received within 60s".to_owned());
    Report {
        journey: "sms-round-trip".into(),
        token: Token::from_bits(0x0195_93f0_0000_0001_0000_0000_0000_0007),
        slot: "2026-03-14T11:59:00Z".parse().expect("a timestamp"),
        started: "2026-03-14T11:59:00.2Z".parse().expect("a timestamp"),
        outcome: Outcome::Failed { step: "arrive".into(), cause: Cause::NotReceived },
        latency: Duration::from_secs(60),
        lateness: Duration::from_millis(200),
        steps: vec![submit, arrive],
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

/// The last good run before.
pub fn good_run() -> Report {
    let latency = Duration::from_millis(2_400);
    let mut submit = step("submit", "send", "gateway", 0, 11, StepStatus::Passed);
    submit.seen = vec![Seen::new(What::Peer, "192.0.2.7:443"), Seen::new(What::Server, "nginx/1.25")];
    Report {
        token: Token::from_bits(0x0195_93e0_0000_0001_0000_0000_0000_0003),
        slot: "2026-03-14T11:56:00Z".parse().expect("a timestamp"),
        started: "2026-03-14T11:56:00Z".parse().expect("a timestamp"),
        outcome: Outcome::Good { latency },
        latency,
        lateness: Duration::ZERO,
        steps: vec![submit, step("arrive", "receive", "inbound", 0, 2_400, StepStatus::Passed)],
        ..failed_run()
    }
}

/// Notice number `sequence` of the incident.
pub fn notification(reason: NotifyReason, sequence: u32) -> Notification {
    Notification {
        reason,
        incident: Incident {
            detectors: BTreeSet::from([Detector::Down]),
            severity: Severity::Critical,
            worst: Severity::Critical,
            sequence,
            bad_runs: 3,
            members: 1,
            firing: 1,
            ..Incident::new(
                "7f3a2c01d2e4".to_owned(),
                "2026-03-14T11:57:00Z".parse().expect("a timestamp"),
                Root::Alone(Subject::Journey("sms-round-trip".into())),
            )
        },
        at: noon(),
        subject: "sms-round-trip".to_owned(),
        members: Vec::new(),
        news: Vec::new(),
        is_whole: false,
        handed_over: None,
        owner: Some("team-messaging".to_owned()),
        runbook: Some("https://wiki.example.net/sms?a=1&b=2".to_owned()),
        labels: BTreeMap::from([("tier".to_owned(), "1".to_owned())]),
        location: Some("london-1".to_owned()),
        budget: Some(Duration::from_secs(10)),
        deadline: Some(Duration::from_secs(60)),
        decision: "3 or more failed runs in a row (down_after = 3)".to_owned(),
        report: Some(failed_run()),
        last_good: Some(good_run()),
        objective: Some("99.2% delivered of 99.5% over 30d".to_owned()),
        link: Some("https://probes.example.net/journeys/sms-round-trip".to_owned()),
        ack_link: None,
        run_link: None,
        mark: None,
    }
}

/// Its first attempt by notifier `ops-mail`.
pub fn delivery(reason: NotifyReason, sequence: u32) -> Delivery {
    Delivery {
        id: delivery_id("7f3a2c01d2e4", sequence, &"ops-mail".into()),
        attempt: 1,
        is_ambiguous: false,
        notification: notification(reason, sequence),
        root: None,
        instead_of: None,
    }
}
