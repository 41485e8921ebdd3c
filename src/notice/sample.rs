//! A notice of an incident that never was: for previews, tests of a notifier, and to try templates on.

use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Subject;
use crate::control::Ack;
use crate::detect::{Detector, Severity};
use crate::incident::root::Resource;
use crate::incident::{Incident, Member, NotifyReason, Root};
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::{Phase, Report, StepReport, StepStatus};
use crate::journey::token::Token;
use crate::notice::{Mark, Notification};
use crate::time::later;

/// When the first bad slot was, in the calendar of the sample.
const SINCE: Timestamp = Timestamp::constant(1_773_489_420, 0);
/// From one notice to the next.
const APART: Duration = Duration::from_secs(900);
/// What every test says.
const WORDS: &str = "TEST: nothing is wrong";
/// A journey's own text in a test is no longer, in characters.
const OWN_TEXT: usize = 200;

/// The notice of that reason, in the incident's course: first, worse, updated, repeat, resolved.
pub fn sample(reason: NotifyReason) -> Notification {
    let sequence = match reason {
        NotifyReason::First => 1,
        NotifyReason::Worse => 2,
        NotifyReason::Updated => 3,
        NotifyReason::Repeat => 4,
        NotifyReason::Resolved => 5,
    };
    let at = later(SINCE, Duration::from_secs(150) + APART * (sequence - 1));
    let is_over = reason == NotifyReason::Resolved;
    let firing = match reason {
        NotifyReason::First => 2,
        NotifyReason::Worse | NotifyReason::Updated | NotifyReason::Repeat => 3,
        NotifyReason::Resolved => 0,
    };
    let news: &[&str] = match reason {
        NotifyReason::First | NotifyReason::Repeat | NotifyReason::Resolved => &[],
        NotifyReason::Worse => &["invoice-mail is slow as well", "the certificate of mail.shop.example has changed"],
        NotifyReason::Updated => &["ada acknowledged it"],
    };
    let said = "3 of 3 journeys through it fail, 12 of 12 others do not (p < 0.001)";
    let resolution = "3 good runs in a row (recover_after = 3)";
    let incident = Incident {
        detectors: [Detector::Down].into(),
        severity: Severity::Critical,
        worst: Severity::Critical,
        sequence,
        bad_runs: 3 * sequence,
        members: if reason == NotifyReason::First { 2 } else { 3 },
        firing,
        acked: (sequence > 2).then(|| Ack {
            by: "ada".to_owned(),
            at: later(SINCE, APART * 2),
            until: None,
            note: None,
        }),
        first_told: Some(later(SINCE, Duration::from_secs(150))),
        ..Incident::new(
            "7f3a2c01d2e4".to_owned(),
            SINCE,
            Root::Shared { resource: Resource::Channel("inbox".into()), said: said.to_owned() },
        )
    };
    let link = |deed: &str| {
        (!is_over).then(|| format!("https://probes.example.net/{deed}/{deed}.7f3a2c01d2e4.1773575970.{:032}", 0))
    };
    Notification {
        reason,
        at,
        subject: incident.title(),
        members: members(&incident, is_over.then_some(at)),
        incident,
        news: news.iter().map(|line| (*line).to_owned()).collect(),
        owner: Some("team-checkout".to_owned()),
        runbook: Some("https://wiki.example.net/runbooks/mail?for=checkout".to_owned()),
        labels: [("tier".to_owned(), "1".to_owned()), ("region".to_owned(), "eu".to_owned())].into(),
        location: Some("london-1".to_owned()),
        budget: Some(Duration::from_secs(10)),
        deadline: Some(Duration::from_secs(60)),
        decision: if is_over { resolution } else { said }.to_owned(),
        report: Some(if is_over { good(at, 9) } else { failed(at) }),
        last_good: Some(good(later(SINCE, Duration::ZERO), 3)),
        objective: Some("99.20% delivered of 99.5% over 30d; budget left: 38 runs, 19h".to_owned()),
        link: Some("https://probes.example.net/incidents".to_owned()),
        ack_link: link("ack"),
        run_link: link("run"),
        mark: None,
        is_whole: false,
        handed_over: None,
    }
}

fn members(incident: &Incident, ended: Option<Timestamp>) -> Vec<Member> {
    let all = [
        ("checkout-mail", "1 failed run and 2 failed confirmations after it", 0),
        ("password-reset", "3 failed runs in a row (down_after = 3)", 60),
        ("invoice-mail", "3 slow runs in a row (slow_after = 3)", 840),
    ];
    let member = |(name, said, after): (&str, &str, u64)| Member {
        subject: Subject::Journey(name.into()),
        said: if ended.is_some() { "well again".to_owned() } else { said.to_owned() },
        since: later(SINCE, Duration::from_secs(after)),
        ended,
    };
    all.into_iter().take(incident.members as usize).map(member).collect()
}

fn step(name: &str, verb: &str, channel: &str, at: u64, took: u64, words: &str) -> StepReport {
    StepReport {
        channel: Some(channel.into()),
        at: Duration::from_millis(at),
        took: Duration::from_millis(took),
        ack: Some(words.to_owned()).filter(|words| !words.is_empty()),
        ..StepReport::new(name, verb.to_owned(), StepStatus::Passed)
    }
}

fn good(at: Timestamp, number: u128) -> Report {
    let latency = Duration::from_millis(6_120);
    let phase = |name: &str, took| Phase { name: name.to_owned(), took: Duration::from_millis(took) };
    let mut order = step("order", "request", "shop", 0, 184, "201 Created");
    order.phases = vec![phase("connect", 12), phase("tls", 31), phase("first_byte", 136)];
    Report {
        journey: "checkout-mail".into(),
        token: Token::from_bits(0x0195_93e0_0000_0001_0000_0000_0000_0000 + number),
        slot: at,
        started: at,
        outcome: Outcome::Good { latency },
        latency,
        lateness: Duration::from_millis(2),
        steps: vec![
            order,
            step("event", "receive", "orders", 184, 416, "orders.created, partition 3"),
            step("mail", "receive", "inbox", 184, 5_936, ""),
            step("tidy", "check", "inbox", 6_120, 48, ""),
        ],
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

fn failed(at: Timestamp) -> Report {
    let mut report = good(at, 7);
    report.steps[0].took = Duration::from_millis(201);
    report.steps[1].took = Duration::from_millis(388);
    let mail = &mut report.steps[2];
    (mail.status, mail.took) = (StepStatus::Failed, Duration::from_secs(60));
    mail.detail = Some("not received within 60s; the mailbox was read, 4 other mails came".to_owned());
    let tidy = &mut report.steps[3];
    (tidy.status, tidy.at, tidy.took) = (StepStatus::Skipped, Duration::from_secs(60), Duration::ZERO);
    report.latency = Duration::from_secs(60);
    report.outcome = Outcome::Failed { step: "mail".into(), cause: Cause::NotReceived };
    report
}

/// The same, clearly marked, for a test of a notifier: nobody must get up for it.
pub fn test_notice(at: Timestamp, by: &str) -> Notification {
    // Made from the time, so that each test is an incident of its own for the other side.
    let decision = format!("{WORDS}; `journeyman notify test` was run {by}");
    test(at, format!("test{:x}", at.as_second()), Subject::Daemon("test notice".into()), decision)
}

/// What a journey sends that proves that people can be told: every text of it carries the run's token. `text` is what the journey says
/// itself.
pub fn test_alarm(at: Timestamp, token: Token, text: &str) -> Notification {
    let own: String = text.trim().chars().take(OWN_TEXT).collect();
    let own = if own.is_empty() { String::new() } else { format!(" ({own})") };
    let decision = format!("{WORDS}: this proves that people can be told{own}; {token}");
    test(at, token.to_string(), Subject::Daemon("test alarm".into()), decision)
}

fn test(at: Timestamp, id: String, subject: Subject, decision: String) -> Notification {
    let incident = Incident {
        severity: Severity::Warning,
        worst: Severity::Warning,
        sequence: 1,
        ..Incident::new(id, at, Root::Alone(subject))
    };
    Notification {
        reason: NotifyReason::First,
        subject: incident.title(),
        incident,
        at,
        members: Vec::new(),
        news: Vec::new(),
        owner: None,
        runbook: None,
        labels: Default::default(),
        location: None,
        budget: None,
        deadline: None,
        decision,
        report: None,
        last_good: None,
        objective: None,
        link: None,
        ack_link: None,
        run_link: None,
        mark: Some(Mark::Test),
        is_whole: false,
        handed_over: None,
    }
}
