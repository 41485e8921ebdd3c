//! What every store must do, as tests that each implementation runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::alert::Phase;
use crate::boots::KEPT;
use crate::breaker::Force;
use crate::control::Matcher;
use crate::detect::{Detectors, Severity};
use crate::drill::{Fault, WITHIN};
use crate::incident::{NotifyReason, Root};
use crate::journey::Objective;
use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy};
use crate::journey::token::Mint;
use crate::notice::delivery_id;
use crate::slo::{History, status};
use crate::time::later;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn report(slot: i64, outcome: Outcome) -> Report {
    Report {
        journey: "sms".into(),
        token: Mint::new([1; 32], slot as u32).issue(at(slot)),
        slot: at(slot),
        started: at(slot),
        latency: outcome.latency().unwrap_or_default(),
        outcome,
        lateness: Duration::from_millis(1),
        steps: Vec::new(),
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

pub(crate) fn good(slot: i64) -> Report {
    report(slot, Outcome::Good { latency: Duration::from_micros(1_234) })
}

pub(super) fn failed(slot: i64) -> Report {
    report(slot, Outcome::Failed { step: "arrive".into(), cause: Cause::NotReceived })
}

fn incident() -> Incident {
    Incident {
        severity: Severity::Critical,
        worst: Severity::Critical,
        sequence: 1,
        bad_runs: 3,
        members: 1,
        firing: 1,
        ..Incident::new("abc".into(), at(0), Root::Alone(Subject::Journey("sms".into())))
    }
}

pub(crate) fn row(incident_id: &str, sequence: u32, notifier: &str, created: i64) -> OutboxRow {
    let notifier: Name = notifier.into();
    OutboxRow {
        id: delivery_id(incident_id, sequence, &notifier),
        incident: incident_id.to_owned(),
        sequence,
        notifier,
        instead_of: None,
        created: at(created),
        notification: Notification {
            reason: NotifyReason::First,
            incident: incident(),
            at: at(created),
            subject: "sms".into(),
            members: Vec::new(),
            news: Vec::new(),
            is_whole: false,
            handed_over: None,
            owner: None,
            runbook: None,
            labels: BTreeMap::new(),
            location: None,
            budget: None,
            deadline: None,
            decision: "because".into(),
            report: None,
            last_good: None,
            objective: None,
            link: None,
            ack_link: None,
            run_link: None,
            mark: None,
        },
        state: OutboxState::pending(at(created)),
    }
}

fn owe(row: OutboxRow) -> Change {
    Change::Owe { row: Box::new(row) }
}

fn sent(row: &OutboxRow, receipt: &str) -> Change {
    let receipt = Receipt { id: receipt.into(), place: "C1".into(), said: "ok".into(), is_root: false };
    let state = OutboxState { status: OutboxStatus::Sent, receipt: Some(receipt), ..row.state.clone() };
    Change::Outbox { id: row.id.clone(), state }
}

/// Runs every case; `open` gives the same store each time it is called, as after a restart.
pub(crate) async fn all(open: impl AsyncFn() -> Arc<dyn Store>) {
    keeps_what_it_confirmed(&open).await;
    gives_rows_in_order(&open).await;
    says_when_the_outbox_is_another(&open).await;
    a_lease_that_was_left_is_ambiguous(&open).await;
    a_new_notice_takes_the_incidents_dead_ones_along(&open).await;
    forgets_only_what_is_old(&open).await;
    adds_up_what_is_spent(&open).await;
    keeps_what_maintenance_was(&open).await;
    gives_latencies_of_windows(&open).await;
    keeps_evidence_that_no_slot_has(&open).await;
    keeps_runs_until_they_have_ended(&open).await;
    keeps_what_was_acknowledged_until_something_followed(&open).await;
    remembers_its_starts(&open).await;
    keeps_drills(&open).await;
    owes_the_own_row_anew(&open).await;
    lists_go_on_where_they_ended(&open).await;
    relays_nothing_alone(&open).await;
}

async fn relays_nothing_alone(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let run = checkpoint("alone", 70_000);
    let relay =
        Change::Relay { journey: "alone".into(), ended: Some(run.token), document: "x".to_owned(), is_belated: false };
    for change in [relay, Change::Heard { writer: "other".to_owned(), number: 1 }] {
        let refused = store.apply(vec![expected(&run), change]).await;
        assert!(matches!(refused, Err(StoreError::Unshared)), "{refused:?}");
    }
    assert!(!store.ledger().await.unwrap().iter().any(|(token, _)| *token == run.token), "nothing of the batch");
    store.close().await.unwrap();
}

/// A run that waits for a message of this journey's since `slot`.
pub(crate) fn checkpoint(journey: &str, slot: i64) -> Checkpoint {
    let (token, time) = (Mint::new([9; 32], slot as u32).issue(at(slot)), at(slot).to_string());
    let text = serde_json::json!({
        "journey": journey, "fingerprint": "0a1b", "token": token, "slot": time, "purpose": "slot", "at": time,
        "made": time, "started": time, "lived": 0, "place": "begun", "steps": [], "path": 0, "failure": null,
        "is_slow": false, "unknown": null,
    });
    serde_json::from_value(text).unwrap()
}

pub(crate) fn expected(checkpoint: &Checkpoint) -> Change {
    let (slot, keep_until) = (checkpoint.slot, crate::time::later(checkpoint.slot, Duration::from_secs(600)));
    let entry = Entry { journey: checkpoint.journey.clone(), slot, recorded: slot, keep_until, settled: None };
    Change::Expect { token: checkpoint.token, entry }
}

async fn keeps_runs_until_they_have_ended(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let (second, first) = (checkpoint("left", 50_060), checkpoint("left", 50_000));
    let begun = |checkpoint: &Checkpoint| Change::Begun { checkpoint: Box::new(checkpoint.clone()) };
    store.apply([&second, &first].into_iter().flat_map(|run| [expected(run), begun(run)]).collect()).await.unwrap();
    let mut waits = second.clone();
    (waits.at, waits.keys) = (at(50_070), vec![("in".into(), "k1".to_owned())]);
    store.apply(vec![Change::Waits { checkpoint: Box::new(waits.clone()) }]).await.unwrap();
    drop(store);
    let store = open().await;
    assert_eq!(store.unfinished().await.unwrap(), [first.clone(), waits.clone()], "in the order of their slots");
    let later = Retention { runs_before: at(99_000), good_evidence_before: at(99_000), ledger_before: at(99_000) };
    store.forget(later).await.unwrap();
    assert_eq!(store.ledger().await.unwrap().len(), 2, "a run that goes on needs its entry");
    for (run, how) in [(&first, Settled::Missing), (&second, Settled::Arrived)] {
        store.apply(vec![Change::Settle { token: run.token, how }]).await.unwrap();
    }
    store.apply(vec![Change::Waits { checkpoint: Box::new(waits) }]).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), [], "one that has ended does not wait again");
    store.forget(later).await.unwrap();
    assert_eq!(store.ledger().await.unwrap(), []);
    store.close().await.unwrap();
}

async fn keeps_what_was_acknowledged_until_something_followed(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let runs = [60_000, 60_060, 60_120].map(|slot| checkpoint("called", slot));
    let [waiting, missing, arrived] = &runs;
    let settle = |run: &Checkpoint, how| Change::Settle { token: run.token, how };
    let settled = [settle(missing, Settled::Missing), settle(arrived, Settled::Arrived)];
    store.apply(runs.iter().map(expected).chain(settled).collect()).await.unwrap();
    let stranger = checkpoint("stranger", 61_000);
    let call = |run: &Checkpoint, body: &str| {
        let stamp = crate::time::Now { wall: at(60_130), mono: crate::time::Mono(Duration::from_secs(9)) };
        let arrival = Arrival { channel: "in".into(), at: stamp, message: crate::journey::message::Message::new(body) };
        Change::Arrived { token: run.token, arrival: Box::new(arrival) }
    };
    let calls = [(waiting, "one"), (missing, "late"), (arrived, "copy"), (&stranger, "nobody's"), (waiting, "two")];
    store.apply(calls.into_iter().map(|(run, body)| call(run, body)).collect()).await.unwrap();
    drop(store);
    let store = open().await;
    let bodies = async || -> Vec<String> {
        let kept = store.arrivals().await.unwrap();
        assert!(kept.iter().all(|kept| (kept.at.wall, kept.at.mono) == (at(60_130), crate::time::Mono::default())));
        kept.iter().map(|kept| kept.message.text().into_owned()).collect()
    };
    assert_eq!(bodies().await, ["one", "late", "two"], "in order, and no copy of what a run had");
    store.apply(vec![settle(waiting, Settled::Arrived)]).await.unwrap();
    assert_eq!(bodies().await, ["late"]);
    let later = Retention { runs_before: at(0), good_evidence_before: at(0), ledger_before: at(99_000) };
    store.forget(later).await.unwrap();
    assert!(bodies().await.is_empty(), "nobody knows any more whose it was");
}

async fn keeps_drills(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let drill = |id: &str, journey: &str, started: i64| {
        let order =
            crate::drill::Order { journey: journey.into(), fault: Fault::Drop, within: WITHIN, by: "ada".to_owned() };
        Record::new(id.to_owned(), &order, "inbox".into(), at(started))
    };
    let (mut first, second, other) = (drill("d1", "sms", 100), drill("d2", "sms", 200), drill("d3", "mail", 150));
    let put = |record: &Record| Change::Drill { record: Box::new(record.clone()) };
    first.open = Some(Box::new(row("abc", 1, "slack", 0).notification));
    store.apply([&first, &second, &other].map(put).into()).await.unwrap();
    assert_eq!(store.drill("d1".to_owned()).await.unwrap(), Some(first.clone()), "with what is to be ended");
    first.open = None;
    first.end(crate::drill::Verdict::Passed, "all went well".to_owned(), at(160));
    store.apply(vec![put(&first)]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open().await;
    let all = [second.clone(), other, first.clone()];
    assert_eq!(store.drills(None, 99).await.unwrap(), all, "newest first");
    assert_eq!(store.drills(Some("sms".into()), 1).await.unwrap(), [second], "of one journey");
    assert_eq!(store.drill("d9".to_owned()).await.unwrap(), None);
    let later = Retention { runs_before: at(161), good_evidence_before: at(0), ledger_before: at(0) };
    store.forget(later).await.unwrap();
    assert_eq!(store.drills(None, 99).await.unwrap(), all[..2], "one that has not ended is kept");
    store.close().await.unwrap();
}

async fn remembers_its_starts(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    assert_eq!(store.boots().await.unwrap(), []);
    let boot = |id: i64, alive: i64, ended| Boot { id, started: at(id * 100), alive: at(alive), ended };
    let kept = KEPT as i64;
    let all = (1..=kept + 5).map(|id| Change::Boot { boot: boot(id, id * 100, false) });
    store.apply(all.collect()).await.unwrap();
    store.apply(vec![Change::Boot { boot: boot(kept + 5, 9_999, true) }]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let boots = open().await.boots().await.unwrap();
    assert_eq!(boots.len(), KEPT);
    assert_eq!(boots.first(), Some(&boot(kept + 5, 9_999, true)), "the last word about it");
    assert_eq!(boots.last(), Some(&boot(6, 600, false)));
}

async fn owes_the_own_row_anew(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let own = |created: i64| row("own", 1, "own", created);
    for created in [10, 20] {
        store.apply(vec![Change::Own { row: Box::new(own(created)) }]).await.unwrap();
        let Due::Row(found) = store.next_due("own".into(), at(60)).await.unwrap() else { panic!("it must be due") };
        assert_eq!(found.created, at(created));
        store.apply(vec![sent(&found, "1")]).await.unwrap();
        assert_eq!(store.next_due("own".into(), at(60)).await.unwrap(), Due::Nothing);
    }
    let rows = store.outbox(Some(OutboxStatus::Sent), None, 99).await.unwrap();
    assert_eq!(rows.iter().filter(|row| &*row.notifier == "own").count(), 1);
    store.close().await.unwrap();
}

async fn gives_latencies_of_windows(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let took = |slot: i64| Duration::from_micros(slot.unsigned_abs());
    let outcome = |slot: i64| match slot % 50 {
        0 => Outcome::Good { latency: took(slot) },
        10 => Outcome::Slow { latency: took(slot) },
        20 => Outcome::Failed { step: "arrive".into(), cause: Cause::NotReceived },
        30 => Outcome::Unknown { why: UnknownWhy::NotReady },
        _ => Outcome::Excluded { why: ExcludedWhy::Maintenance },
    };
    let run = |name: &str, slot: i64| {
        let report = Report { journey: name.into(), latency: took(slot), ..report(slot, outcome(slot)) };
        Change::Run { report: Box::new(report), keep_evidence: false }
    };
    let mut runs: Vec<_> = (1..=30).map(|nth| run("paced", nth * 10)).collect();
    runs.push(run("other", 100));
    runs.extend([0, 1, 2].map(|day| run("daily", day * 86_400 + 50)));
    runs.push(Change::Amend { journey: "paced".into(), slot: at(120), late_by: Duration::from_secs(9) });
    store.apply(runs).await.unwrap();
    let latencies = async |name: &str, windows: &[(i64, i64)], limit| {
        let windows = windows.iter().map(|(from, until)| (at(*from), at(*until))).collect();
        let found = store.latencies(name.into(), windows, limit).await.unwrap();
        let told = |ran: &Ran| {
            assert_eq!(ran.latency, took(ran.slot.as_second() - at(0).as_second()));
            (ran.slot.as_second() - at(0).as_second(), ran.verdict)
        };
        found.iter().map(|window| window.iter().map(told).collect()).collect::<Vec<Vec<_>>>()
    };
    // The end is in, the beginning is not, and what is unknown or excluded is nobody's latency.
    let found = latencies("paced", &[(100, 170), (400, 500), (0, 50)], 9).await;
    let [good, slow, failed] = [Verdict::Good, Verdict::Slow, Verdict::Failed];
    let expected = [vec![(170, failed), (160, slow), (150, good), (120, Verdict::Late), (110, slow)], Vec::new()];
    assert_eq!(found[..2], expected);
    assert_eq!(found[2], [(50, good), (20, failed), (10, slow)]);
    assert_eq!(latencies("paced", &[(0, 300), (0, 100)], 1).await, [vec![(300, good)], vec![(100, good)]], "the last");
    assert_eq!(latencies("nobody", &[(0, 300)], 9).await, [Vec::new()]);
    let days = async |name: &str, until| store.days(name.into(), at(0), at(until)).await.unwrap();
    let counts = Counts { good: 6, slow: 6, failed: 5, late: 1, unknown: 6, excluded: 6 };
    let [of_one, of_two, none] = [days("paced", 301).await, days("daily", 2 * 86_400).await, days("paced", 10).await];
    assert_eq!(of_one.iter().map(|day| day.counts).collect::<Vec<_>>(), [counts]);
    assert!(of_one[0].start <= at(10) && of_one[0].start > at(10 - 86_400), "{of_one:?}");
    assert_eq!(of_two.iter().map(|day| day.counts.good).collect::<Vec<_>>(), [1, 1], "the end is not in");
    assert_eq!(of_two[1].start, later(of_two[0].start, Duration::from_secs(86_400)));
    assert_eq!(none, [], "the end is not in");
    store.close().await.unwrap();
}

async fn keeps_what_maintenance_was(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let now = at(86_400);
    let mut history = History::new(Duration::from_secs(86_400), [], now);
    let mut changes: Vec<_> = (1..60).filter_map(|n| history.observe(at(n * 60), Verdict::Good)).collect();
    changes.extend((60..90).filter_map(|n| history.observe_excluded(at(n * 60), Verdict::Failed)));
    changes.extend(history.amend(at(70 * 60)));
    let mut run = report(70 * 60, Outcome::Excluded { why: ExcludedWhy::Maintenance });
    run.journey = "kept".into();
    run.beneath = Some(Verdict::Failed);
    let late_by = Duration::from_secs(5);
    let store = open().await;
    store
        .apply(vec![
            Change::Spans { journey: "kept".into(), changes },
            Change::Run { report: Box::new(run.clone()), keep_evidence: true },
            Change::Amend { journey: "kept".into(), slot: at(70 * 60), late_by },
        ])
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open().await;
    let saved = store.journey("kept".into()).await.unwrap();
    let told: Vec<_> = saved.spans.iter().map(|span| (span.verdict, span.count, span.excluded)).collect();
    let failed = |count| (Verdict::Failed, count, true);
    assert_eq!(told, [(Verdict::Good, 59, false), failed(10), (Verdict::Late, 1, true), failed(19)]);
    let objective =
        Objective { delivered: 0.99, in_budget: None, window: Duration::from_secs(86_400).into(), late_is_good: false };
    let rebuilt = History::new(Duration::from_secs(86_400), saved.spans, now);
    history.advance(now);
    let [was, is] = [&history, &rebuilt].map(|history| status(history, &objective, 1_440, now));
    assert_eq!(was, is, "the store holds what memory holds");
    assert_eq!((is.delivered.spent, is.without_corrections.unwrap().delivered.spent), (0, 30));
    assert_eq!(store.report(run.token).await.unwrap(), Some(run));
    let runs = store.runs("kept".into(), None, 9).await.unwrap();
    assert_eq!((runs[0].verdict, runs[0].late_by), (Verdict::Excluded, Some(late_by)), "late, and still excluded");
    store.close().await.unwrap();
}

async fn keeps_evidence_that_no_slot_has(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let mut asked = good(7_200);
    asked.journey = "asked".into();
    store.apply(vec![Change::Evidence { report: Box::new(asked.clone()) }]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open().await;
    assert_eq!(store.report(asked.token).await.unwrap(), Some(asked.clone()));
    assert_eq!(store.runs("asked".into(), None, 9).await.unwrap(), []);
    let saved = store.journey("asked".into()).await.unwrap();
    assert_eq!((saved.spans, saved.last_good), (Vec::new(), Some(asked)));
    store.close().await.unwrap();
}

async fn keeps_what_it_confirmed(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let key = store.key().await.unwrap();
    let (first, second) = (good(0), failed(60));
    let span = Span { start: at(0).as_millisecond(), step: 60_000, count: 2, verdict: Verdict::Good, excluded: false };
    let entry = Entry { journey: "sms".into(), slot: at(60), recorded: at(60), keep_until: at(900), settled: None };
    let health = AlertState { phase: Phase::Firing, incident: Some("abc".to_owned()), ..AlertState::default() };
    let detectors = Detectors { failed: 3, ..Detectors::default() };
    let alerts = JourneyAlerts { detectors, health: health.clone(), ..JourneyAlerts::default() };
    let state = Some(Box::new(incident()));
    let channel = Subject::Channel("orders".into());
    let silence = Silence {
        id: "s1".to_owned(),
        matchers: vec![Matcher::parse("tier=gold").unwrap(), Matcher::journeys("sms-*").unwrap()],
        from: at(0),
        until: at(600),
        until_resolved: true,
        exclude_from_slo: false,
        pauses: false,
        reason: "upgrade".to_owned(),
        author: "ann".to_owned(),
    };
    let incident_row = IncidentRow {
        id: "abc".into(),
        subject: "sms".into(),
        since: at(60),
        resolved: None,
        severity: "critical".into(),
        detectors: vec!["down".into()],
        summary: "not received".into(),
        bad_runs: 3,
        members: 1,
    };
    store
        .apply(vec![
            Change::Expect { token: second.token, entry: entry.clone() },
            Change::Run { report: Box::new(first.clone()), keep_evidence: true },
            Change::Run { report: Box::new(second.clone()), keep_evidence: true },
            Change::Spans { journey: "sms".into(), changes: vec![SpanChange::Put(span)] },
            Change::Alert { journey: "sms".into(), state: Box::new(alerts.clone()) },
            Change::Condition { subject: channel.clone(), state: Box::new(health.clone()) },
            Change::Incident { row: incident_row.clone(), open: state, journeys: vec!["sms".into(), "other".into()] },
            Change::Silence { silence: Box::new(silence.clone()) },
        ])
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);

    let store = open().await;
    assert_eq!(store.key().await.unwrap(), key, "the key is made once");
    let saved = store.journey("sms".into()).await.unwrap();
    assert_eq!((saved.spans, saved.alerts, saved.last_good), (vec![span], alerts, Some(first.clone())));
    assert_eq!(store.conditions().await.unwrap(), [(channel, health)]);
    assert_eq!(store.open_incidents().await.unwrap(), [incident()]);
    assert_eq!(store.silences().await.unwrap(), [silence]);
    assert_eq!(store.incident("abc".into()).await.unwrap(), Some(incident_row.clone()));
    assert_eq!(store.incident("ab".into()).await.unwrap(), None);
    assert_eq!(store.incidents(Some("other".into()), None, 9).await.unwrap().len(), 1);
    assert_eq!(store.incidents(Some("third".into()), None, 9).await.unwrap().len(), 0);
    assert_eq!(store.ledger().await.unwrap(), [(second.token, entry)]);
    assert_eq!(store.report(second.token).await.unwrap(), Some(second.clone()));
    let late_by = Duration::from_secs(5);
    store
        .apply(vec![
            Change::Amend { journey: "sms".into(), slot: at(60), late_by },
            Change::Settle { token: second.token, how: Settled::Arrived },
            Change::Spans { journey: "sms".into(), changes: vec![SpanChange::Delete(span.start)] },
            Change::Incident {
                row: IncidentRow { resolved: Some(at(90)), summary: String::new(), ..incident_row },
                open: None,
                journeys: Vec::new(),
            },
            Change::Unsilence { id: "s1".to_owned() },
        ])
        .await
        .unwrap();
    assert!(store.open_incidents().await.unwrap().is_empty());
    assert!(store.silences().await.unwrap().is_empty());
    let runs = store.runs("sms".into(), None, 10).await.unwrap();
    let told: Vec<_> = runs.iter().map(|run| (run.slot, run.verdict, run.why.as_str(), run.late_by)).collect();
    let expected = [(at(60), Verdict::Late, "not_received", Some(late_by)), (at(0), Verdict::Good, "", None)];
    assert_eq!(told, expected);
    assert_eq!(runs[1].latency, Duration::from_micros(1_234));
    assert_eq!(store.ledger().await.unwrap()[0].1.settled, Some(Settled::Arrived));
    assert!(store.journey("sms".into()).await.unwrap().spans.is_empty());
    let incidents = store.incidents(None, None, 10).await.unwrap();
    assert_eq!((incidents[0].resolved, incidents[0].summary.as_str()), (Some(at(90)), "not received"));
    store.close().await.unwrap();
}

/// In parts of two, each row once and in the same order, also of those that have one time.
async fn lists_go_on_where_they_ended(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let incident = |id: &str, since| IncidentRow {
        id: id.into(),
        subject: "parts".into(),
        since: at(since),
        resolved: Some(at(since + 60)),
        severity: "warning".into(),
        detectors: Vec::new(),
        summary: String::new(),
        bad_runs: 1,
        members: 1,
    };
    let incidents = [("p1", 70_000), ("p2", 70_000), ("p3", 70_000), ("p4", 69_000), ("p5", 71_000)];
    let incidents = incidents.map(|(id, since)| Change::Incident {
        row: incident(id, since),
        open: None,
        journeys: vec!["parts".into()],
    });
    let owed = [("p1", 1), ("p2", 1), ("p2", 2), ("p3", 1), ("p4", 1)]
        .map(|(id, sequence)| row(id, sequence, "parts", 70_000));
    let owed = owed.map(|row| Change::Owe { row: Box::new(row) });
    let runs = [1, 2, 3].map(|nth| {
        let report =
            Report { journey: "parts".into(), ..report(70_000 + nth, Outcome::Good { latency: Duration::ZERO }) };
        Change::Run { report: Box::new(report), keep_evidence: false }
    });
    store.apply(incidents.into_iter().chain(owed).chain(runs).collect()).await.unwrap();

    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let part = store.incidents(Some("parts".into()), after, 2).await.unwrap();
        let Some(last) = part.last() else { break };
        after = Some(last.id.clone());
        parts.extend(part);
    }
    assert_eq!(parts, store.incidents(Some("parts".into()), None, 99).await.unwrap());
    assert_eq!(parts.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["p5", "p3", "p2", "p1", "p4"]);

    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let part = store.outbox(None, after, 2).await.unwrap();
        let Some(last) = part.last() else { break };
        after = Some(last.id.clone());
        parts.extend(part.into_iter().map(|row| row.id));
    }
    let whole: Vec<_> = store.outbox(None, None, 9_999).await.unwrap().into_iter().map(|row| row.id).collect();
    assert!(whole.len() > 5);
    assert_eq!(parts, whole);

    let slots = async |before| {
        let runs = store.runs("parts".into(), before, 2).await.unwrap();
        runs.iter().map(|run| run.slot).collect::<Vec<_>>()
    };
    assert_eq!(slots(None).await, [at(70_003), at(70_002)]);
    assert_eq!(slots(Some(at(70_002))).await, [at(70_001)]);
    assert_eq!(slots(Some(at(70_001))).await, []);
    store.close().await.unwrap();
}

async fn adds_up_what_is_spent(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let spent = |day: &str, journey: &str, messages| Spent {
        channel: "sms".into(),
        day: day.parse().unwrap(),
        journey: journey.into(),
        messages,
    };
    let store = open().await;
    let [yesterday, today] = ["2026-09-20", "2026-09-21"];
    let all = [spent(yesterday, "sms", 7), spent(today, "sms", 2), spent(today, "a:b[eu]", 1), spent(today, "sms", 3)];
    for spent in all {
        store.apply(vec![Change::Spend { spent }]).await.unwrap();
    }
    drop(store);
    let store = open().await;
    let mut found = store.spent().await.unwrap();
    found.sort_by_key(|spent| (spent.day, spent.journey.clone()));
    assert_eq!(found, [spent(yesterday, "sms", 7), spent(today, "a:b[eu]", 1), spent(today, "sms", 5)]);
    let now: Timestamp = "2026-09-24T00:00:00Z".parse().unwrap();
    let forget = Retention { runs_before: at(0), good_evidence_before: at(0), ledger_before: now };
    let key = store.key().await.unwrap();
    store.forget(forget).await.unwrap();
    assert_eq!(store.spent().await.unwrap().len(), 2, "today's, as every zone has it, stays");
    store.forget(Retention { ledger_before: "2026-09-25T00:00:00Z".parse().unwrap(), ..forget }).await.unwrap();
    assert_eq!(store.spent().await.unwrap(), []);
    assert_eq!(store.key().await.unwrap(), key, "what is kept beside it stays");
}

/// A store that says how its outbox stands says so after every change, and the next word is not known before.
async fn says_when_the_outbox_is_another(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let mut known = Vec::from_iter(store.outbox_edition());
    let mut is_new = |store: &Arc<dyn Store>| match store.outbox_edition() {
        Some(edition) if known.contains(&edition) => false,
        edition => {
            known.extend(edition);
            true
        }
    };
    let notice = row("i1", 1, "slack", 0);
    let own = OutboxRow { id: "own.1.slack".to_owned(), incident: "own".to_owned(), ..notice.clone() };
    let dead = OutboxState { status: OutboxStatus::Dead, ..notice.state.clone() };
    let changes = [
        owe(notice.clone()),
        Change::Own { row: Box::new(own.clone()) },
        Change::Combine { row: Box::new(notice.clone()), superseded: vec![own.id] },
        Change::Outbox { id: notice.id.clone(), state: dead },
    ];
    for change in changes {
        store.apply(vec![change.clone()]).await.unwrap();
        assert!(is_new(&store), "{change:?}");
    }
    store.revive("slack".into(), at(1)).await.unwrap();
    assert!(is_new(&store));
    let retention = Retention { runs_before: at(0), good_evidence_before: at(0), ledger_before: at(0) };
    store.forget(retention).await.unwrap();
    assert!(is_new(&store));
}

async fn gives_rows_in_order(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let (first, second, other) = (row("i1", 1, "slack", 0), row("i1", 2, "slack", 10), row("i2", 1, "slack", 5));
    let mail = row("i1", 1, "mail", 0);
    let rows = [&first, &second, &other, &mail].map(|row| owe(row.clone()));
    store.apply(rows.to_vec()).await.unwrap();
    store.apply(vec![owe(first.clone())]).await.unwrap();
    assert_eq!(store.outbox(None, None, 10).await.unwrap().len(), 4, "what is owed already is not owed twice");
    let due = async |now| store.next_due("slack".into(), at(now)).await.unwrap();
    assert_eq!(due(20).await, Due::Row(Box::new(first.clone())));
    let ids = async |incident: Option<&str>| {
        let rows = store.undelivered("slack".into(), incident.map(str::to_owned)).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some("i1")).await, [&*first.id, &second.id]);
    assert_eq!(ids(None).await, [&*first.id, &other.id, &second.id]);
    // The first must wait; the second of its incident waits behind it, the other incident does not.
    let waiting = OutboxState { not_before: at(100), attempt: 1, ..first.state.clone() };
    store.apply(vec![Change::Outbox { id: first.id.clone(), state: waiting }]).await.unwrap();
    assert_eq!(due(20).await, Due::Row(Box::new(other.clone())));
    store.apply(vec![sent(&other, "ts2")]).await.unwrap();
    assert_eq!(due(20).await, Due::At(at(100)));
    assert!(matches!(due(100).await, Due::Row(row) if row.id == first.id));
    store.apply(vec![sent(&first, "ts1")]).await.unwrap();
    assert_eq!(due(100).await, Due::Row(Box::new(second.clone())));
    let root = store.root_receipt("i1".into(), "slack".into()).await.unwrap();
    assert_eq!(root.map(|receipt| receipt.id).as_deref(), Some("ts1"));
    // What took the place of an earlier message stands for the incident from then on; of two such the later one.
    for sequence in 2..=4 {
        let mut moved = row("i2", sequence, "slack", 6);
        store.apply(vec![owe(moved.clone())]).await.unwrap();
        let receipt = Receipt { id: format!("ts2-{sequence}"), is_root: sequence < 4, ..Receipt::default() };
        moved.state = OutboxState { status: OutboxStatus::Sent, receipt: Some(receipt), ..moved.state };
        store.apply(vec![Change::Outbox { id: moved.id, state: moved.state }]).await.unwrap();
    }
    let root = store.root_receipt("i2".into(), "slack".into()).await.unwrap();
    assert_eq!(root.map(|receipt| receipt.id).as_deref(), Some("ts2-3"));
    let dead = OutboxState { status: OutboxStatus::Dead, ..second.state.clone() };
    store.apply(vec![Change::Outbox { id: second.id.clone(), state: dead.clone() }]).await.unwrap();
    assert_eq!(due(100).await, Due::Nothing);
    let summary = store.outbox_summary().await.unwrap();
    let slack = summary.iter().find(|summary| &*summary.notifier == "slack").unwrap();
    assert_eq!((slack.pending, slack.dead, slack.oldest), (0, 1, None));
    let [overtaken, newer] = [1, 2].map(|sequence| row("i3", sequence, "slack", 7));
    store.apply(vec![owe(overtaken.clone()), owe(newer.clone())]).await.unwrap();
    store.apply(vec![Change::Outbox { id: overtaken.id.clone(), state: dead.clone() }]).await.unwrap();
    assert_eq!(ids(Some("i3")).await, [&*overtaken.id, &newer.id], "what was given up is untold as well");
    assert_eq!(ids(None).await, [&*newer.id], "and not open");
    store.apply(vec![sent(&newer, "ts3")]).await.unwrap();
    assert_eq!(store.revive("slack".into(), at(200)).await.unwrap(), 1);
    assert_eq!(ids(None).await, [&*second.id], "what came after it was told: it would be out of order");
    assert!(matches!(due(200).await, Due::Row(row) if row.id == second.id));
    assert_eq!(store.outbox(Some(OutboxStatus::Sent), None, 10).await.unwrap().len(), 6);
    store.apply(vec![Change::Hold { notifier: "slack".into(), until: at(500) }]).await.unwrap();
    let wanted = |to, reason: &str| Order { to, by: "ada".into(), reason: reason.into(), until: at(900) };
    let [channel, notifier] = [Guarded::Channel("orders".into()), Guarded::Notifier("slack".into())];
    for (what, order) in [
        (&channel, Some(wanted(Force::Open, "first"))),
        (&channel, Some(wanted(Force::Observe, "second: with \"quotes\""))),
        (&notifier, Some(wanted(Force::Closed, "taken back"))),
        (&notifier, None),
    ] {
        store.apply(vec![Change::Order { what: what.clone(), order: order.map(Box::new) }]).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = open().await;
    let orders = store.orders().await.unwrap();
    assert_eq!(orders, [(channel, wanted(Force::Observe, "second: with \"quotes\""))]);
    assert_eq!(store.hold("slack".into()).await.unwrap(), Some(at(500)));
    assert_eq!(store.hold("mail".into()).await.unwrap(), None);
    store.close().await.unwrap();
}

async fn a_lease_that_was_left_is_ambiguous(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let row = row("i3", 1, "pager", 0);
    let leased = OutboxState { status: OutboxStatus::Leased, attempt: 1, ..row.state.clone() };
    let change = Change::Outbox { id: row.id.clone(), state: leased };
    store.apply(vec![owe(row.clone()), change]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open().await;
    let Due::Row(found) = store.next_due("pager".into(), at(10)).await.unwrap() else { panic!("it must be due") };
    assert_eq!((found.state.status, found.state.attempt), (OutboxStatus::Ambiguous, 1));
    store.close().await.unwrap();
}

async fn a_new_notice_takes_the_incidents_dead_ones_along(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let (first, resolved, other) = (row("i4", 1, "chat", 0), row("i4", 2, "chat", 60), row("i5", 1, "chat", 0));
    let given_up = |row: &OutboxRow| {
        let state = OutboxState { status: OutboxStatus::Dead, attempt: 3, ..row.state.clone() };
        Change::Outbox { id: row.id.clone(), state }
    };
    let (dead, other_dead) = (given_up(&first), given_up(&other));
    store.apply(vec![owe(first.clone()), owe(other.clone()), dead.clone(), other_dead]).await.unwrap();
    store.apply(vec![owe(first.clone())]).await.unwrap();
    assert_eq!(store.next_due("chat".into(), at(60)).await.unwrap(), Due::Nothing, "owed already is not owed anew");
    store.apply(vec![owe(resolved.clone())]).await.unwrap();
    let Due::Row(found) = store.next_due("chat".into(), at(60)).await.unwrap() else { panic!("it must be due") };
    assert_eq!((found.id, found.state.attempt), (first.id, 0));
    store.apply(vec![dead]).await.unwrap();
    let Due::Row(found) = store.next_due("chat".into(), at(60)).await.unwrap() else { panic!("it must be due") };
    assert_eq!(found.id, resolved.id, "one that is given up again holds nobody up");
    assert_eq!(store.outbox(Some(OutboxStatus::Dead), None, 9).await.unwrap().len(), 2);
    store.apply(vec![sent(&resolved, "1.1")]).await.unwrap();
    store.close().await.unwrap();
}

async fn forgets_only_what_is_old(open: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = open().await;
    let runs = [good(1_000), failed(1_060), good(2_000)];
    let changes = runs.iter().map(|report| Change::Run { report: Box::new(report.clone()), keep_evidence: true });
    store.apply(changes.collect()).await.unwrap();
    let before = store.outbox(Some(OutboxStatus::Pending), None, 99).await.unwrap().len();
    let retention = Retention { runs_before: at(1_050), good_evidence_before: at(1_500), ledger_before: at(10_000) };
    store.forget(retention).await.unwrap();
    let left: Vec<_> = store.runs("sms".into(), None, 99).await.unwrap().iter().map(|run| run.slot).collect();
    assert_eq!(left, [at(2_000), at(1_060)]);
    assert!(store.report(runs[1].token).await.unwrap().is_some());
    assert!(store.report(runs[0].token).await.unwrap().is_none());
    assert!(store.ledger().await.unwrap().is_empty());
    assert_eq!(
        store.outbox(Some(OutboxStatus::Pending), None, 99).await.unwrap().len(),
        before,
        "what is owed stays owed"
    );
    store.close().await.unwrap();
}
