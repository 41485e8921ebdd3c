use super::*;
use crate::journey::outcome::{ExcludedWhy, UnknownWhy};
use crate::journey::seen::{Seen, certificate};
use crate::journey::token::Token;

const PEER: &str = "192.0.2.7:993";
const DAYS: i64 = DAY as i64;
const TWO_WEEKS: Option<Duration> = Some(CERTIFICATE_WARNING);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn step(status: StepStatus, seen: &[(What, &str)]) -> StepReport {
    StepReport {
        channel: Some("mail".into()),
        detail: Some("421 4.7.0 too many".to_owned()),
        seen: seen.iter().map(|(what, is)| Seen::new(*what, is)).collect(),
        ..StepReport::new("submit", "send", status)
    }
}

fn report(outcome: Outcome) -> Report {
    Report {
        journey: "mail".into(),
        token: Token::from_bits(1),
        slot: at(0),
        started: at(0),
        outcome,
        latency: Duration::ZERO,
        lateness: Duration::ZERO,
        steps: Vec::new(),
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

fn good() -> Report {
    report(Outcome::Good { latency: Duration::ZERO })
}

fn failed(cause: Cause) -> Report {
    report(Outcome::Failed { step: "submit".into(), cause })
}

/// A run at this second is told to slow down.
fn slow_down(channel: &mut ChannelDetectors, second: i64) -> Vec<Detector> {
    channel.take(&failed(Cause::Throttled), &step(StepStatus::Failed, &[]), at(second));
    found(channel, second)
}

/// A run at this second meets a certificate of `peer` that ends at `until`.
fn meet(channel: &mut ChannelDetectors, second: i64, peer: &str, until: i64, serial: &str) -> bool {
    let told = certificate(at(until), serial, "Example CA");
    let step = step(StepStatus::Passed, &[(What::Peer, peer), (What::Certificate, &told)]);
    channel.take(&good(), &step, at(second))
}

fn found(channel: &mut ChannelDetectors, second: i64) -> Vec<Detector> {
    channel.look(TWO_WEEKS, at(second)).into_iter().map(|finding| finding.detector).collect()
}

fn said(channel: &mut ChannelDetectors, second: i64) -> Vec<(Severity, String)> {
    channel.look(TWO_WEEKS, at(second)).into_iter().map(|finding| (finding.severity, finding.said)).collect()
}

#[test]
fn three_times_within_ten_minutes_is_throttled_and_one_moment_is_one_time() {
    let table: [(&[i64], bool); 7] = [
        (&[0, 30], false),
        (&[0, 30, 60], true),
        (&[0, 29, 58], false),
        (&[0, 1, 2, 3, 4, 5, 29], false),
        (&[0, 299, 599], true),
        (&[0, 300, 600], false),
        // The last three count.
        (&[0, 300, 600, 700], true),
    ];
    for (seconds, fires) in table {
        let mut channel = ChannelDetectors::default();
        let last = seconds.iter().map(|second| slow_down(&mut channel, *second)).last().unwrap();
        assert_eq!(!last.is_empty(), fires, "{seconds:?}");
    }
}

#[test]
fn being_throttled_is_over_after_ten_minutes_without_it() {
    let mut channel = ChannelDetectors::default();
    for second in [0, 60, 120] {
        slow_down(&mut channel, second);
    }
    // Also what is too near to the last to count keeps it from being calm.
    assert_eq!(slow_down(&mut channel, 130), [Detector::Throttled]);
    assert_eq!(channel.deadline(TWO_WEEKS, at(130)), Some(at(730)));
    assert_eq!(found(&mut channel, 729), [Detector::Throttled]);
    assert_eq!(found(&mut channel, 730), []);
    assert_eq!(channel, ChannelDetectors::default(), "nothing of it is held against the time after it");
}

#[test]
fn the_words_are_the_systems_and_change_no_oftener_than_they_count() {
    let mut channel = ChannelDetectors::default();
    let words = |channel: &mut ChannelDetectors, second: i64, words: &str| {
        let step = step(StepStatus::Passed, &[(What::Throttled, words)]);
        let is_new = channel.take(&good(), &step, at(second));
        (is_new, said(channel, second).pop())
    };
    words(&mut channel, 0, "for 1s");
    words(&mut channel, 30, "for 2s");
    let told = "we were made to slow down 3 times and more, 30s apart, within 10m; last: for 3s";
    assert_eq!(words(&mut channel, 60, "for 3s"), (true, Some((Severity::Warning, told.to_owned()))));
    assert_eq!(words(&mut channel, 61, "for 4s"), (false, Some((Severity::Warning, told.to_owned()))));
    assert_eq!(words(&mut channel, 90, "for 5s").1.unwrap().1, told.replace("for 3s", "for 5s"));
}

#[test]
fn who_was_made_to_slow_down_is_told_by_the_cause_or_by_the_receipt() {
    let (none, receipt): (&[_], &[_]) = (&[], &[(What::Throttled, "for 1s")]);
    let unknown = || report(Outcome::Unknown { why: UnknownWhy::NotReady });
    let table = [
        (failed(Cause::Throttled), step(StepStatus::Failed, none), Some("421 4.7.0 too many")),
        (failed(Cause::Throttled), StepReport { name: "other".into(), ..step(StepStatus::Passed, none) }, None),
        (failed(Cause::Refused), step(StepStatus::Failed, none), None),
        (good(), step(StepStatus::Passed, receipt), Some("for 1s")),
        // Its reader was asked to wait, so it was not ready.
        (unknown(), step(StepStatus::Skipped, receipt), Some("for 1s")),
        (report(Outcome::Excluded { why: ExcludedWhy::Maintenance }), step(StepStatus::Failed, receipt), None),
    ];
    for (report, step, words) in table {
        assert_eq!(made_slow(&report, &step).as_deref(), words, "{report:?} {step:?}");
    }
}

#[test]
fn a_certificate_is_told_of_by_what_is_left_of_it() {
    let until = 40 * DAYS;
    let table = [
        (14 * DAYS, None),
        (14 * DAYS - 1, Some((Severity::Warning, "expires in 13 days"))),
        (6 * DAYS, Some((Severity::Warning, "expires in 6 days"))),
        (2 * DAYS + 1, Some((Severity::Warning, "expires in 2 days"))),
        (2 * DAYS, Some((Severity::Warning, "expires in 48 hours"))),
        (DAYS, Some((Severity::Warning, "expires in 24 hours"))),
        (DAYS - 1, Some((Severity::Critical, "expires in 23 hours"))),
        (3_600, Some((Severity::Critical, "expires in 1 hour"))),
        (3_599, Some((Severity::Critical, "expires within the hour"))),
        (0, Some((Severity::Critical, "has expired"))),
        (-DAYS, Some((Severity::Critical, "has expired"))),
    ];
    for (left, expected) in table {
        let mut channel = ChannelDetectors::default();
        meet(&mut channel, until - left, PEER, until, "0a1b");
        let whole =
            |words| format!("the certificate of {PEER} {words} (2026-12-28 11:06 UTC): serial 0a1b, from Example CA");
        let expected: Vec<_> = expected.into_iter().map(|(severity, words)| (severity, whole(words))).collect();
        assert_eq!(said(&mut channel, until - left), expected, "{left} s are left");
        assert_eq!(channel.look(None, at(until - left)), [], "never");
    }
    let mut channel = ChannelDetectors::default();
    meet(&mut channel, 0, PEER, 20 * DAYS, "1");
    assert_eq!(channel.look(Some(Duration::from_secs(20 * DAY + 1)), at(0)).len(), 1, "as the channel's own key says");
}

#[test]
fn five_hundred_journeys_that_see_it_are_one_finding_and_a_later_one_ends_it() {
    let mut channel = ChannelDetectors::default();
    assert!(meet(&mut channel, 0, PEER, 6 * DAYS, "1"));
    for second in 1..500 {
        assert!(!meet(&mut channel, second, PEER, 6 * DAYS, "1"), "nothing is to be looked at anew");
    }
    assert_eq!(found(&mut channel, 500), [Detector::Certificate]);
    assert!(meet(&mut channel, 600, PEER, 96 * DAYS, "2"));
    assert_eq!(found(&mut channel, 600), []);
    // A reader's connection that is older than the renewal.
    assert!(!meet(&mut channel, 601, PEER, 6 * DAYS, "1"));
    assert_eq!(found(&mut channel, 601), []);
    // The renewal was undone: nobody has seen the later one for long.
    assert!(meet(&mut channel, 601 + 6 * 3_600, PEER, 6 * DAYS, "1"));
    assert_eq!(found(&mut channel, 601 + 6 * 3_600), [Detector::Certificate]);
}

#[test]
fn of_several_addresses_the_first_to_expire_counts_until_it_is_renewed_or_gone() {
    let mut channel = ChannelDetectors::default();
    meet(&mut channel, 0, "192.0.2.1:9093", 90 * DAYS, "1");
    meet(&mut channel, 1, "192.0.2.2:9093", 6 * DAYS, "2");
    meet(&mut channel, 2, "192.0.2.1:9093", 90 * DAYS, "1");
    assert!(said(&mut channel, 3)[0].1.starts_with("the certificate of 192.0.2.2:9093 expires in 5 days"));
    assert_eq!(channel.certificate_until(), Some(at(6 * DAYS)));
    assert!(!meet(&mut channel, 6 * 3_600, "192.0.2.1:9093", 90 * DAYS, "1"));
    assert!(meet(&mut channel, 6 * 3_600 + 1, "192.0.2.1:9093", 90 * DAYS, "1"), "the other is gone");
    assert_eq!(found(&mut channel, 6 * 3_600 + 1), []);
    for n in 0..100 {
        meet(&mut channel, 8 * 3_600 + n, &format!("192.0.2.{n}:443"), 90 * DAYS, "4");
    }
    assert_eq!(channel.certificates.len(), PEERS);
    assert!(channel.certificates.contains_key("192.0.2.99:443"));
}

#[test]
fn what_was_found_before_a_restart_stands_until_there_is_evidence_of_its_kind() {
    let of = |detector| Finding::new(detector, "as it was");
    let all = [of(Detector::ChannelDown), of(Detector::Throttled), of(Detector::Certificate)];
    let resumed_with = |reader, breaker| {
        let mut channel = ChannelDetectors::default();
        channel.resume(&all, Sides { reader, breaker }, at(0));
        channel
    };
    let resumed = |receives| resumed_with(receives, false);
    let (down, throttled, certificate) = (Detector::ChannelDown, Detector::Throttled, Detector::Certificate);
    assert_eq!(resumed(true).look(TWO_WEEKS, at(0)), all);
    assert_eq!(found(&mut resumed(false), 0), [throttled, certificate], "nobody reads it any more");
    assert_eq!(resumed(true).look(None, at(0)).len(), 2, "nobody wants to hear of its certificate any more");

    let mut channel = resumed(true);
    channel.read(None);
    assert_eq!(found(&mut channel, 1), [throttled, certificate]);
    let mut channel = resumed(true);
    channel.read(Some("refused".to_owned()));
    assert_eq!(said(&mut channel, 1)[0], (Severity::Critical, "refused".to_owned()));

    // Its reader and its breaker may both have found it: it stands until both have spoken.
    let mut channel = resumed_with(true, true);
    channel.read(None);
    assert_eq!(found(&mut channel, 1), [down, throttled, certificate]);
    channel.broke(None);
    assert_eq!(found(&mut channel, 1), [throttled, certificate]);
    let mut channel = resumed_with(false, true);
    channel.broke(Some("it is open".to_owned()));
    assert_eq!(said(&mut channel, 1)[0].1, "it is open");
    channel.read(Some("refused".to_owned()));
    assert_eq!(said(&mut channel, 1)[0].1, "refused; it is open");

    assert_eq!(resumed(true).deadline(TWO_WEEKS, at(0)), Some(at(600)));
    assert_eq!(found(&mut resumed(true), 599), [down, throttled, certificate]);
    assert_eq!(found(&mut resumed(true), 600), [down, certificate]);

    let mut channel = resumed(true);
    assert!(!channel.take(&failed(Cause::Tls), &step(StepStatus::Failed, &[(What::Peer, PEER)]), at(1)));
    assert_eq!(found(&mut channel, 1), [down, throttled, certificate], "a handshake that failed shows nothing");
    assert!(meet(&mut channel, 2, PEER, 6 * DAYS, "1"));
    let words: Vec<_> = said(&mut channel, 2).into_iter().map(|(_, said)| said).collect();
    assert!(words.iter().any(|said| said.contains("expires in 5 days")), "as it is seen now: {words:?}");
    assert_eq!(words.len(), 3);
    let mut channel = resumed(true);
    meet(&mut channel, 2, PEER, 96 * DAYS, "2");
    assert_eq!(found(&mut channel, 2), [down, throttled]);
    let mut channel = resumed(true);
    assert!(channel.take(&good(), &step(StepStatus::Passed, &[(What::Peer, PEER)]), at(1)));
    assert_eq!(found(&mut channel, 1), [down, throttled], "it speaks no TLS any more");
}

#[test]
fn an_address_that_speaks_no_tls_any_more_has_no_certificate() {
    let mut channel = ChannelDetectors::default();
    meet(&mut channel, 0, PEER, 6 * DAYS, "1");
    assert!(!channel.take(&good(), &step(StepStatus::Passed, &[]), at(1)), "a step that met nobody");
    assert_eq!(found(&mut channel, 1), [Detector::Certificate]);
    assert!(channel.take(&good(), &step(StepStatus::Passed, &[(What::Peer, PEER)]), at(2)));
    assert_eq!(found(&mut channel, 2), []);
}

/// Whoever looks only when the deadline says so sees every change, not later than the deadline's tick.
#[test]
fn no_change_of_words_is_missed_between_deadlines() {
    let mut channel = ChannelDetectors::default();
    meet(&mut channel, 0, PEER, 16 * DAYS + 1_234, "1");
    let (mut now, mut shown, mut looks) = (at(0), channel.look(TWO_WEEKS, at(0)), 0);
    while let Some(next) = channel.deadline(TWO_WEEKS, now) {
        assert!(next > now);
        let before = earlier(next, TICK * 2);
        if before > now {
            assert_eq!(channel.look(TWO_WEEKS, before), shown, "it changed before {next}");
        }
        let seen = channel.look(TWO_WEEKS, next);
        assert_ne!(seen, shown, "nothing changed at {next}");
        (now, shown, looks) = (next, seen, looks + 1);
    }
    // Days from 13 to 2, hours from 47 to 1, the last hour, the end.
    assert_eq!(looks, 12 + 47 + 1 + 1);
    assert!(shown[0].said.contains("has expired"));
}
