//! A board and a store with something of everything on them, served on a port of loopback.
#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::alert::{Phase as AlertPhase, Subject};
use journeyman::board::{Board, ChannelStatus, Docket, JourneyStatus, OpenIncident, Permits, STRIP_CELLS, Strip};
use journeyman::channel::Readiness;
use journeyman::clock::Clock;
use journeyman::commands::Callback;
use journeyman::control::status_page::StatusPage;
use journeyman::control::{Ack, Matcher, Silence};
use journeyman::detect::{Detector, Finding, Severity};
use journeyman::gate::Door;
use journeyman::http::{STORE_COMPONENT, Views, serve};
use journeyman::incident::{Incident, Member, NotifyReason, Root, Told};
use journeyman::journey::expect::Check;
use journeyman::journey::message::Hop;
use journeyman::journey::outcome::{Cause, Outcome, UnknownWhy, Verdict};
use journeyman::journey::report::{Phase, Report, StepStatus};
use journeyman::journey::schedule::Schedule;
use journeyman::journey::seen::{Seen, What};
use journeyman::journey::token::Token;
use journeyman::journey::trace_url::TraceUrl;
use journeyman::journey::{AlertPolicy, Journey, Objective};
use journeyman::metrics::Metrics;
use journeyman::notice::Notification;
use journeyman::notifier::Receipt;
use journeyman::secret::{Redactor, Secret};
use journeyman::slo::{History, status};
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Change, IncidentRow, OutboxRow, OutboxState, OutboxStatus, Store};
use journeyman::time::{earlier, later};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::Scratch;
use crate::support::notices::step;

/// Begins a script, closes what it stands in, and turns its end around.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script> \"quoted\" & 'more' \u{202e}gpj.exe";
/// A secret that leaked into evidence.
pub(crate) const LEAKED: &str = "xoxb-7-very-secret";

pub(crate) struct Stage {
    pub(crate) url: String,
    pub(crate) board: Arc<Board>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinSet<std::io::Result<()>>,
    _scratch: Scratch,
}

impl Stage {
    /// With an empty board, and an empty store on disk.
    pub(crate) async fn new(admin_token: Option<&str>) -> Stage {
        let scratch = Scratch::new("pages");
        let store = Arc::new(Sqlite::open(&scratch.path().join("state.db")).unwrap());
        Stage::over(store, scratch, admin_token, None, Door::default(), None).await
    }

    /// With this door before it.
    pub(crate) async fn behind(door: Door, admin_token: Option<&str>) -> Stage {
        let scratch = Scratch::new("pages");
        let store = Arc::new(Sqlite::open(&scratch.path().join("state.db")).unwrap());
        Stage::over(store, scratch, admin_token, None, door, None).await
    }

    /// With somebody who takes Slack's calls.
    pub(crate) async fn taking_calls(callback: Arc<dyn Callback>) -> Stage {
        let scratch = Scratch::new("pages");
        let store = Arc::new(Sqlite::open(&scratch.path().join("state.db")).unwrap());
        Stage::over(store, scratch, None, Some(callback), Door::default(), None).await
    }

    /// With a store that answers nothing but faults.
    pub(crate) async fn without_store() -> Stage {
        Stage::over(Arc::new(super::gone::Gone), Scratch::new("pages"), None, None, Door::default(), None).await
    }

    /// With a page for everybody, behind this door.
    pub(crate) async fn published(status_page: StatusPage, door: Door) -> Stage {
        let scratch = Scratch::new("pages");
        let store = Arc::new(Sqlite::open(&scratch.path().join("state.db")).unwrap());
        Stage::over(store, scratch, None, None, door, Some(status_page)).await
    }

    async fn over(
        store: Arc<dyn Store>,
        scratch: Scratch,
        admin_token: Option<&str>,
        slack: Option<Arc<dyn Callback>>,
        door: Door,
        status_page: Option<StatusPage>,
    ) -> Stage {
        journeyman::tls::init();
        let clock = Clock::derived(start());
        let board = Arc::new(Board::default());
        board.set_component(STORE_COMPONENT, true, true, "took the last commit", start());
        let redactor = Redactor::new();
        redactor.add(LEAKED);
        let ready = Arc::new(AtomicBool::new(true));
        let stop = CancellationToken::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let callbacks = journeyman::commands::Callbacks::default();
        callbacks.replace(slack);
        let views = Views {
            board: board.clone(),
            store: store.clone(),
            metrics: Arc::new(Metrics::new(&[], None)),
            clock,
            door,
            admin_token: admin_token.map(|token| Secret::new(token.to_owned(), &redactor)),
            redactor,
            public_url: Some("https://monitor.example.net/".parse().unwrap()),
            trace_url: TraceUrl::parse("https://logs.example.net/?q={{ trace_id }}").ok(),
            status_page,
            location: Some("zrh-1".to_owned()),
            commands: journeyman::commands::channel().0,
            slack: Arc::new(callbacks),
            drills: None,
            reloads: Some(journeyman::commands::reloads().0),
            ready: ready.clone(),
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, views, stop.clone()));
        Stage { url, board, store, ready, clock, stop, serving, _scratch: scratch }
    }

    /// Stops the server; it must end by itself.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.serving.join_next()).await;
        ended.expect("the server ends when told to").expect("it was serving").expect("it did not panic").unwrap();
    }
}

pub(crate) fn start() -> Timestamp {
    "2026-11-21T07:41:03Z".parse().unwrap()
}

pub(crate) fn ago(seconds: u64) -> Timestamp {
    earlier(start(), Duration::from_secs(seconds))
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn journey(name: &str) -> Journey {
    Journey {
        name: name.into(),
        schedule: Schedule::every(Duration::from_secs(60), name),
        budget: Some(Duration::from_secs(5)),
        deadline: Duration::from_secs(60),
        late: Duration::from_secs(600),
        objective: Some(Objective {
            delivered: 0.995,
            in_budget: Some(0.99),
            window: Duration::from_secs(30 * 86_400).into(),
            late_is_good: false,
        }),
        alert: AlertPolicy {
            down_after: 3,
            confirm: Vec::new(),
            partial: true,
            drift: true,
            flapping: true,
            slow_after: 5,
            recover_after: 2,
            remind: Some(Duration::from_secs(4 * 3_600)),
        },
        notify: vec!["slack-ops".into(), "mail-ops".into()],
        owner: Some("messaging".to_owned()),
        runbook: Some("https://wiki.example.net/runbooks/sms".to_owned()),
        labels: BTreeMap::from([("tier".to_owned(), "1".to_owned())]),
        depends_on: Vec::new(),
        muted: false,
        critical: false,
        steps: Vec::new(),
        maintenance: Vec::new(),
        unavailable: None,
        vantage: None,
        defined_at: "probes/sms.toml:2".to_owned(),
        fingerprint: String::new(),
    }
}

fn passed(expectation: &str) -> Check {
    Check { expectation: expectation.to_owned(), found: None, passed: true, soft: false, cause: None }
}

/// A run whose message went out and came back after `latency`.
pub(crate) fn good(journey: &str, slot: Timestamp, latency: Duration) -> Report {
    let phase = |name: &str, took| Phase { name: name.to_owned(), took };
    let mut submit = step("submit", "send", "gateway", 0, 84, StepStatus::Passed);
    submit.ack = Some("202 Accepted".to_owned());
    submit.phases = vec![
        phase("dns", millis(3)),
        phase("connect", millis(11)),
        phase("tls", millis(22)),
        phase("first_byte", millis(47)),
        phase("body", millis(1)),
    ];
    submit.checks = vec![passed("status equals 202"), passed("json $.status one_of [\"queued\", \"sent\"]")];
    submit.seen = vec![
        Seen::new(What::Peer, "192.0.2.7:443"),
        Seen::new(What::Server, &format!("gate/{} {LEAKED} {HOSTILE}", slot.as_second())),
    ];
    submit.excerpt = Some(format!("{{\"sid\":\"SM1\",\"status\":\"queued\",\"auth\":\"{LEAKED}\"}}"));
    let mut arrive = step("arrive", "receive", "inbound", 0, latency.as_millis() as u64, StepStatus::Passed);
    arrive.hops = vec![Hop { name: "smsc".to_owned(), took: latency / 3 }];
    arrive.checks = vec![passed("body contains the token"), passed("copies equals 1")];
    arrive.excerpt = Some("From=%2B41790000000&Body=probe".to_owned());
    Report {
        journey: journey.into(),
        token: token(journey, slot),
        slot,
        started: later(slot, millis(4)),
        outcome: Outcome::Good { latency },
        latency,
        lateness: millis(4),
        steps: vec![submit, arrive],
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

pub(crate) fn slow(journey: &str, slot: Timestamp, latency: Duration) -> Report {
    let mut report = good(journey, slot, latency);
    report.outcome = Outcome::Slow { latency };
    report.steps[1].status = StepStatus::Slow;
    report.steps[1].detail = Some("over the budget of 5s".to_owned());
    report
}

pub(crate) fn failed(journey: &str, slot: Timestamp, cause: Cause) -> Report {
    let mut report = good(journey, slot, Duration::from_secs(60));
    report.outcome = Outcome::Failed { step: "arrive".into(), cause };
    let arrive = &mut report.steps[1];
    arrive.status = StepStatus::Failed;
    arrive.detail = Some("not received within 60s".to_owned());
    arrive.checks.clear();
    arrive.hops.clear();
    arrive.excerpt = None;
    if cause == Cause::Mismatch {
        arrive.detail = None;
        arrive.checks = vec![Check {
            expectation: "json $.amount equals \"12.50\"".to_owned(),
            found: Some(HOSTILE.to_owned()),
            passed: false,
            soft: false,
            cause: Some(cause),
        }];
        arrive.excerpt = Some(format!("{{\"amount\": \"{HOSTILE}\"}}\r\n"));
    }
    let mut tidy = step("tidy", "request", "gateway", 0, 0, StepStatus::Passed);
    tidy.status = StepStatus::Skipped;
    report.steps.push(tidy);
    report
}

pub(crate) fn unknown(journey: &str, slot: Timestamp) -> Report {
    let mut report = good(journey, slot, Duration::ZERO);
    report.outcome = Outcome::Unknown { why: UnknownWhy::NotReady };
    report.note = Some("channel inbound: not subscribed yet".to_owned());
    report.steps.clear();
    report
}

fn token(journey: &str, slot: Timestamp) -> Token {
    let hash = journey.bytes().fold(7u128, |hash, byte| hash.wrapping_mul(131).wrapping_add(u128::from(byte)));
    Token::from_bits((slot.as_millisecond() as u128) << 80 | (hash & ((1 << 80) - 1)))
}

pub(crate) fn incident(id: &str, since: Timestamp, detector: Detector, told: Option<Timestamp>) -> Incident {
    let told = told.map(|at| ("slack-ops".into(), Told { at, severity: detector.severity() }));
    Incident {
        detectors: BTreeSet::from([detector]),
        severity: detector.severity(),
        worst: detector.severity(),
        sequence: u32::from(told.is_some()),
        told: told.into_iter().collect(),
        bad_runs: 4,
        members: 1,
        firing: 1,
        ..Incident::new(id.to_owned(), since, Root::Alone(Subject::Journey("sms-round-trip".into())))
    }
}

/// Nothing is wrong.
pub(crate) const CALM: (AlertPhase, Option<Incident>) = (AlertPhase::Ok, None);

/// A journey's status whose slots of three days ended with what `verdict` says of the minute, counted back from now.
pub(crate) fn shown(
    journey: Journey,
    (phase, incident): (AlertPhase, Option<Incident>),
    last: Option<Report>,
    verdict: impl Fn(u64) -> Verdict,
) -> JourneyStatus {
    let mut history = History::new(Duration::from_secs(30 * 86_400), [], start());
    for minute in (0..3 * 1_440).rev() {
        history.observe(ago(minute * 60), verdict(minute));
    }
    history.advance(start());
    let cell = Duration::from_secs(1_800);
    let strip = Strip::new((0..STRIP_CELLS).map(|at| {
        let until = earlier(start(), cell * (STRIP_CELLS - 1 - at) as u32);
        history.counts(earlier(until, cell), until)
    }));
    let objective = journey.objective.clone();
    JourneyStatus {
        slo: objective.map(|objective| Arc::new(status(&history, &objective, 43_200, start()))),
        composition: None,
        budget_incident: None,
        phase,
        findings: incident
            .iter()
            .flat_map(|incident| incident.detectors.iter())
            .map(|detector| Finding::new(*detector, "as it was found"))
            .collect(),
        incident: incident.map(Arc::new),
        last_good: last.is_some().then(|| Arc::new(good(&journey.name, ago(540), millis(1_180)))),
        last: last.map(Arc::new),
        strip,
        at: start(),
        journey: Arc::new(journey),
    }
}

/// A notice about `report`, as the outbox keeps it.
pub(crate) fn notice(incident: &Incident, report: &Report, notifier: &str, state: OutboxState) -> OutboxRow {
    OutboxRow {
        id: format!("{}.1.{notifier}", incident.id),
        incident: incident.id.clone(),
        sequence: 1,
        notifier: notifier.into(),
        instead_of: None,
        created: ago(125),
        notification: Notification {
            reason: NotifyReason::First,
            incident: incident.clone(),
            at: ago(125),
            subject: report.journey.to_string(),
            members: Vec::new(),
            news: Vec::new(),
            is_whole: false,
            handed_over: None,
            owner: None,
            runbook: None,
            labels: BTreeMap::new(),
            location: None,
            budget: Some(Duration::from_secs(5)),
            deadline: Some(Duration::from_secs(60)),
            decision: "3 failed runs in a row (down_after = 3)".to_owned(),
            report: Some(report.clone()),
            last_good: None,
            objective: None,
            link: None,
            ack_link: None,
            run_link: None,
            mark: None,
        },
        state,
    }
}

/// Something of everything: each state, channels, incidents past and present, notices in every condition.
pub(crate) async fn fill(stage: &Stage) {
    let (board, store) = (&stage.board, &stage.store);
    let usual = |_: u64| Verdict::Good;
    let outage = incident("5d1c09a7be21", ago(305), Detector::Down, Some(ago(125)));
    let last = failed("sms-round-trip", ago(65), Cause::NotReceived);
    let phase = (AlertPhase::Firing, Some(outage.clone()));
    board.set_journey(shown(journey("sms-round-trip"), phase, Some(last.clone()), |minute| match minute {
        0..5 | 700..703 => Verdict::Failed,
        300..320 => Verdict::Slow,
        1_000..1_060 => Verdict::Unknown,
        _ => Verdict::Good,
    }));
    let mut crawling = journey("order-pipeline");
    crawling.owner = Some("commerce".to_owned());
    let slowness = incident("0c77a1f2d3e4", ago(1_500), Detector::Slow, Some(ago(1_200)));
    let phase = (AlertPhase::Firing, Some(slowness.clone()));
    let last_slow = slow("order-pipeline", ago(41), millis(7_340));
    board.set_journey(shown(crawling, phase, Some(last_slow.clone()), |minute| match minute {
        0..25 => Verdict::Slow,
        _ => Verdict::Good,
    }));
    let mut silent = journey("mail-round-trip");
    silent.muted = true;
    let silence = incident("aa10bb20cc30", ago(900), Detector::Stale, None);
    let phase = (AlertPhase::Firing, Some(silence));
    board.set_journey(shown(silent, phase, Some(unknown("mail-round-trip", ago(60))), |minute| match minute {
        0..600 => Verdict::Unknown,
        _ => Verdict::Good,
    }));
    let phase = (AlertPhase::Suspect, None);
    let mismatched = failed("checkout-api[eu]", ago(8), Cause::Mismatch);
    board.set_journey(shown(journey("checkout-api[eu]"), phase, Some(mismatched), usual));
    let mut critical = journey("checkout-api[us]");
    critical.critical = true;
    let swift = good("checkout-api[us]", ago(12), millis(231));
    board.set_journey(shown(critical, CALM, Some(swift), usual));
    let phase = (AlertPhase::Recovering, Some(incident("77aa66bb55cc", ago(600), Detector::Down, Some(ago(400)))));
    board.set_journey(shown(journey("push gateway"), phase, Some(good("push gateway", ago(21), millis(912))), usual));
    let mut planned = journey("kafka-events");
    planned.unavailable = Some("this build has no `kafka` channel".to_owned());
    planned.objective = None;
    let mut waiting = shown(planned, CALM, None, usual);
    waiting.strip = Strip::default();
    board.set_journey(waiting);
    let mut hostile = journey(HOSTILE);
    hostile.owner = Some("<b>\"owner\"</b>".to_owned());
    hostile.runbook = Some("javascript:alert(1)".to_owned());
    hostile.labels = BTreeMap::from([("<i>".to_owned(), "\" onload=\"alert(1)".to_owned())]);
    board.set_journey(shown(hostile, CALM, Some(good(HOSTILE, ago(3), millis(431))), usual));
    for number in 0..12 {
        let name = format!("partner-{number:02}");
        let mut calm = journey(&name);
        calm.owner = None;
        board.set_journey(shown(calm, CALM, Some(good(&name, ago(number * 5), millis(300 + number * 311))), usual));
    }

    let acked = Ack {
        by: HOSTILE.to_owned(),
        at: ago(60),
        until: Some(later(start(), Duration::from_secs(3_600))),
        note: None,
    };
    let member = Member {
        subject: Subject::Journey(HOSTILE.into()),
        said: format!("{HOSTILE} {LEAKED}"),
        since: ago(305),
        ended: None,
    };
    let open = OpenIncident {
        incident: Incident { acked: Some(acked), quiet: Some(format!("silenced: {HOSTILE}")), ..outage.clone() },
        members: vec![member],
    };
    let silence = Silence {
        id: "5a1ence5".to_owned(),
        matchers: vec![Matcher::equals("journey", HOSTILE), Matcher::journeys("sms-*").unwrap()],
        from: ago(600),
        until: later(start(), Duration::from_secs(600)),
        until_resolved: true,
        exclude_from_slo: false,
        pauses: false,
        reason: format!("{HOSTILE} {LEAKED}"),
        author: HOSTILE.to_owned(),
    };
    let docket = Docket { open: [(outage.id.clone(), Arc::new(open))].into(), silences: vec![silence] };
    board.update_docket(|shown| *shown = docket);

    for (name, kind, readiness) in [
        ("gateway", "http", None),
        ("inbound", "webhook", Some(Readiness::Ready)),
        ("mailbox", "imap", Some(Readiness::Down { why: "connection refused by 10.0.0.7:993".to_owned() })),
        ("orders", "amqp", Some(Readiness::Starting)),
    ] {
        let last_fault = (name == "mailbox").then(|| (ago(31), format!("login as probe failed: {LEAKED} is wrong")));
        let last_success = (name != "orders").then(|| ago(9));
        let status = ChannelStatus {
            kind,
            readiness,
            last_fault,
            last_success,
            rate: (kind == "http").then_some(5.0),
            permits: Permits::new(Arc::new(tokio::sync::Semaphore::new(64))),
            ..ChannelStatus::default()
        };
        board.set_channel(&name.into(), status);
    }

    let mut chance = fastrand::Rng::with_seed(7);
    let mut changes = Vec::new();
    for minute in (1..220u64).rev() {
        let slot = ago(minute * 60 + 5);
        let latency = millis(900 + chance.u64(0..900) + if chance.u8(0..20) == 0 { 2_500 } else { 0 });
        let report = match minute {
            1..5 | 61 => failed("sms-round-trip", slot, Cause::NotReceived),
            30..34 => slow("sms-round-trip", slot, latency + millis(5_000)),
            90..95 => unknown("sms-round-trip", slot),
            _ => good("sms-round-trip", slot, latency),
        };
        let keep_evidence = minute % 7 == 1 || minute < 40;
        changes.push(Change::Run { report: Box::new(report), keep_evidence });
    }
    let evidence =
        [failed("checkout-api[eu]", ago(8), Cause::Mismatch), good("checkout-api[eu]", ago(68), millis(250))];
    changes.extend(evidence.map(|report| Change::Run { report: Box::new(report), keep_evidence: true }));
    changes.push(Change::Amend { journey: "sms-round-trip".into(), slot: ago(61 * 60 + 5), late_by: millis(95_000) });
    let row = |id: &str, journey: &str, since, resolved, severity: Severity, detector: Detector, summary: &str| {
        let (id, severity, summary) = (id.to_owned(), severity.as_str().to_owned(), summary.to_owned());
        let detectors = vec![detector.as_str().to_owned()];
        let subject = journey.to_owned();
        let row = IncidentRow { id, subject, since, resolved, severity, detectors, summary, bad_runs: 4, members: 1 };
        Change::Incident { row, open: None, journeys: vec![journey.into()] }
    };
    changes.push(row(
        "5d1c09a7be21",
        "sms-round-trip",
        ago(305),
        None,
        Severity::Critical,
        Detector::Down,
        "failed (not_received) at step `arrive`: not received within 60s",
    ));
    changes.push(row(
        "11aa22bb33cc",
        "sms-round-trip",
        ago(42_300),
        Some(ago(41_900)),
        Severity::Critical,
        Detector::Down,
        HOSTILE,
    ));
    let sent = OutboxState {
        status: OutboxStatus::Sent,
        attempt: 1,
        receipt: Some(Receipt {
            id: "1763710738.000100".to_owned(),
            place: "C024BE91L".to_owned(),
            said: "ok".to_owned(),
            is_root: true,
        }),
        ..OutboxState::pending(ago(124))
    };
    let retried = OutboxState {
        attempt: 3,
        not_before: later(start(), Duration::from_secs(27)),
        error: Some(format!("mail.example.net:587 said 451 4.7.1 greylisted, {LEAKED}")),
        ..OutboxState::pending(ago(33))
    };
    let dead = OutboxState {
        status: OutboxStatus::Dead,
        attempt: 1,
        error: Some("Slack said channel_not_found: invite the app to the channel".to_owned()),
        ..OutboxState::pending(ago(1_190))
    };
    changes.push(Change::Owe { row: Box::new(notice(&outage, &last, "slack-ops", sent)) });
    changes.push(Change::Owe { row: Box::new(notice(&outage, &last, "mail-ops", retried)) });
    changes.push(Change::Owe { row: Box::new(notice(&slowness, &last_slow, "slack-shop", dead)) });
    store.apply(changes).await.unwrap();
}
