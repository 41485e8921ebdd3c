use super::*;
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::Phase;
use crate::journey::token::Token;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn step(name: &str, verb: &str, status: StepStatus, seen: &[(What, &str)]) -> StepReport {
    StepReport {
        channel: Some("gateway".into()),
        took: Duration::from_millis(1_200),
        seen: seen.iter().map(|(what, is)| Seen::new(*what, is)).collect(),
        ..StepReport::new(name, verb.to_owned(), status)
    }
}

fn run(steps: Vec<StepReport>) -> Report {
    Report {
        journey: "sms".into(),
        token: Token::from_bits(7),
        slot: at("2026-03-14T12:00:00Z"),
        started: at("2026-03-14T12:00:00Z"),
        outcome: Outcome::Failed { step: "submit".into(), cause: Cause::Rejected },
        latency: Duration::ZERO,
        lateness: Duration::ZERO,
        steps,
        beneath: None,
        note: None,
        configuration: "1a2b".to_owned(),
        version: "1.0.0".to_owned(),
    }
}

fn sent(seen: &[(What, &str)]) -> Report {
    run(vec![step("submit", "send", StepStatus::Passed, seen)])
}

fn told(was: &Report, is: &Report) -> Vec<String> {
    changes(was, is).iter().map(Change::to_string).collect()
}

#[test]
fn only_what_both_saw_and_differs_is_a_change() {
    use What::{Banner, Peer, Server};
    let was = sent(&[(Peer, "10.0.0.1:25"), (Banner, "mx ready"), (Server, "Postfix")]);
    let is = sent(&[(Peer, "10.0.0.2:25"), (Banner, "mx ready")]);
    assert_eq!(told(&was, &is), ["peer of submit: 10.0.0.1:25 → 10.0.0.2:25"]);
    assert_eq!(told(&was, &was), [""; 0]);
    let is = sent(&[]);
    assert_eq!(told(&was, &is), [""; 0], "a run that met nothing has seen no change");
    assert_eq!(told(&is, &was), [""; 0], "nor has one after a run that met nothing");
}

#[test]
fn another_channel_under_the_same_step_is_not_compared() {
    let was = sent(&[(What::Peer, "10.0.0.1:25")]);
    let mut is = sent(&[(What::Peer, "10.0.0.2:25")]);
    is.steps[0].channel = Some("other".into());
    assert_eq!(told(&was, &is), [""; 0]);
}

#[test]
fn an_edit_and_another_monitor_come_first_and_what_is_not_known_does_not_differ() {
    let was = sent(&[(What::Peer, "a")]);
    let mut is = sent(&[(What::Peer, "b")]);
    (is.configuration, is.version) = ("3c4d".to_owned(), "1.1.0".to_owned());
    let expected =
        ["Journeyman's version: 1.0.0 → 1.1.0", "the journey's definition: 1a2b → 3c4d", "peer of submit: a → b"];
    assert_eq!(told(&was, &is), expected);
    (is.configuration, is.version) = Default::default();
    assert_eq!(told(&was, &is), ["peer of submit: a → b"]);
}

#[test]
fn what_several_steps_saw_through_one_channel_is_told_once() {
    let run_with = |peer: &str| {
        let seen = [(What::Peer, peer)];
        let mut other = step("elsewhere", "send", StepStatus::Passed, &seen);
        other.channel = Some("other".into());
        run(vec![
            step("submit", "send", StepStatus::Passed, &seen),
            step("look", "check", StepStatus::Passed, &seen),
            other,
        ])
    };
    let expected = ["peer of submit: a → b", "peer of elsewhere: a → b"];
    assert_eq!(told(&run_with("a"), &run_with("b")), expected);
}

#[test]
fn what_differs_every_time_is_no_change() {
    use What::{Addresses, Banner, Server};
    let same = [
        (
            Banner,
            "mx.example.org ESMTP Exim 4.96 Sat, 21 Nov 2026 13:46:00 +0000",
            "mx.example.org ESMTP Exim 4.96 Sun, 22 Nov 2026 08:01:59 +0000",
        ),
        (
            Banner,
            "mx.google.com ESMTP 5b1f17b1804b1-43435f2 - gsmtp",
            "mx.google.com ESMTP a640c23a62f3a-b7654c1 - gsmtp",
        ),
        (Banner, "ready at 2026-11-21T13:46:00Z", "ready at 2026-11-22T13:46:00Z"),
        (Addresses, "10.0.0.1, 10.0.0.2, 10.0.0.3", "10.0.0.2, 10.0.0.3, 10.0.0.4"),
    ];
    for (what, was, is) in same {
        assert_eq!(told(&sent(&[(what, was)]), &sent(&[(what, is)])), [""; 0], "{was} / {is}");
    }
    let other = [
        (Banner, "mx ESMTP Exim 4.96", "mx ESMTP Exim 4.97"),
        (Banner, "mx1.eu-west-1a.example.org ready", "mx1.eu-west-1b.example.org ready"),
        (Banner, "mx ESMTP 21", "mx ESMTP 22"),
        (Banner, "Exim 4.96 Sat, 21 Nov 2026 13:46:00 +0000", "Postfix Sat, 21 Nov 2026 13:46:00 +0000"),
        (Server, "NATS 2.10 5b1f17b1804b1", "NATS 2.10 a640c23a62f3a"),
        (Addresses, "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        (Addresses, "10.0.0.1", "10.0.0.1, 10.0.0.2"),
        (Addresses, "10.0.0.1, 10.0.0.2", "10.0.0.3, 10.0.0.4"),
    ];
    for (what, was, is) in other {
        assert_eq!(told(&sent(&[(what, was)]), &sent(&[(what, is)])).len(), 1, "{was} / {is}");
    }
}

#[test]
fn a_certificate_that_stayed_is_told_when_its_end_comes_near() {
    let certificate = [(What::Certificate, "until 2026-03-20T12:00:00Z, serial 1, from A")];
    let at_time = |time: &str| Report { started: at(time), ..sent(&certificate) };
    let cases: &[(&str, &str, &[&str])] = &[
        ("2026-03-01T00:00:00Z", "2026-03-13T00:00:00Z", &[]),
        ("2026-03-13T11:00:00Z", "2026-03-13T12:00:00Z", &["certificate of submit: valid for 7d1h → valid for 7d"]),
        ("2026-03-14T00:00:00Z", "2026-03-18T00:00:00Z", &[]),
        ("2026-03-19T00:00:00Z", "2026-03-19T12:00:00Z", &["certificate of submit: valid for 1d12h → valid for 1d"]),
        (
            "2026-03-20T11:59:00Z",
            "2026-03-20T12:03:00Z",
            &["certificate of submit: valid for 1m → expired 3m ago (2026-03-20T12:00:00Z)"],
        ),
        ("2026-03-20T12:03:00Z", "2026-03-20T12:09:00Z", &[]),
    ];
    for (was, is, expected) in cases {
        assert_eq!(told(&at_time(was), &at_time(is)), *expected, "{was} / {is}");
    }
}

fn phases(names: &[&str]) -> Vec<Phase> {
    names.iter().map(|name| Phase { name: (*name).to_owned(), took: Duration::ZERO }).collect()
}

#[test]
fn what_is_healthy_ends_at_the_failed_hop_and_names_what_was_never_reached() {
    let mut submit = step("submit", "send", StepStatus::Passed, &[]);
    submit.phases = phases(&["dns", "connect", "tls", "greeting", "login", "envelope", "content"]);
    submit.ack = Some("250 2.0.0 Ok: queued as 4XyZ".to_owned());
    let ask = StepReport { ack: Some("200 OK".to_owned()), ..step("ask", "request", StepStatus::Slow, &[]) };
    let arrive = step("arrive", "receive", StepStatus::Failed, &[(What::Peer, "10.0.0.9:993")]);
    let mut skipped = step("maybe", "send", StepStatus::Skipped, &[]);
    skipped.detail = Some("`when` did not hold".to_owned());
    let read = step("read", "receive", StepStatus::Skipped, &[]);
    let tidy = step("tidy", "request", StepStatus::Passed, &[]);
    let warned = step("soft", "check", StepStatus::Warned, &[]);
    let report = run(vec![submit, warned, ask, arrive, skipped, read, tidy]);
    let expected = [
        "submit: name resolved, TCP connected, TLS ok, greeted, authenticated, accepted as 250 2.0.0 Ok: queued as 4XyZ",
        "ask: answered 200 OK",
        "arrive: its reader was connected to 10.0.0.9:993",
        "never reached: read",
    ];
    assert_eq!(healthy(&report), expected);
}

#[test]
fn of_the_failed_step_only_what_was_behind_it_is_healthy() {
    let failed = |names: &[&str], ack: Option<&str>, seen: &[(What, &str)]| {
        let mut submit = step("submit", "send", StepStatus::Failed, seen);
        (submit.phases, submit.ack) = (phases(names), ack.map(str::to_owned));
        healthy(&run(vec![submit]))
    };
    assert_eq!(failed(&[], None, &[]), [""; 0]);
    assert_eq!(failed(&["dns"], None, &[]), [""; 0], "the name was not resolved");
    assert_eq!(failed(&["dns", "connect", "tls"], None, &[]), ["submit: name resolved, TCP connected"]);
    let refused = failed(&["dns", "connect", "login"], None, &[(What::Peer, "a"), (What::Banner, "mx")]);
    assert_eq!(refused, ["submit: name resolved, TCP connected, greeted"]);
    let certificate = (What::Certificate, "until 2026-03-20T12:00:00Z, serial 1, from A");
    let not_trusted = failed(&[], None, &[(What::Peer, "a"), certificate]);
    assert_eq!(not_trusted, ["submit: TCP connected"], "a certificate that was shown was not taken yet");
    let said_no = failed(&["dns", "connect", "tls"], Some("500 Internal Server Error"), &[]);
    assert_eq!(said_no, ["submit: name resolved, TCP connected, TLS ok"]);
}

#[test]
fn a_notice_has_both_and_only_about_what_is_not_well() {
    let good = sent(&[(What::Peer, "a")]);
    let bad = sent(&[(What::Peer, "b")]);
    let expected =
        [("Changed", "peer of submit: a → b".to_owned()), ("Checked", "submit: TCP connected, done".to_owned())];
    assert_eq!(facts(Some(&good), Some(&bad)), expected);
    assert_eq!(facts(None, Some(&bad)), expected[1..]);
    let well = Report { outcome: Outcome::Good { latency: Duration::ZERO }, ..bad.clone() };
    assert_eq!(facts(Some(&good), Some(&well)), []);
    assert_eq!(facts(Some(&good), None), []);
}

#[test]
fn many_changes_are_counted_and_long_ones_cut() {
    let run_of = |value: &str| {
        let steps = (0..12).map(|number| {
            let mut step = step(&format!("s{number}"), "send", StepStatus::Passed, &[(What::Server, value)]);
            step.channel = Some(format!("c{number}").as_str().into());
            step
        });
        run(steps.collect())
    };
    let facts = facts(Some(&run_of("a")), Some(&run_of(&"b".repeat(200))));
    let (_, changed) = &facts[0];
    assert!(changed.ends_with("; and 4 more"), "{changed}");
    assert!(changed.len() < 8 * 250, "{}", changed.len());
}

#[test]
fn a_report_from_before_is_still_read() {
    let mut document = serde_json::to_value(sent(&[(What::Peer, "a")])).unwrap();
    assert_eq!(document["steps"][0]["seen"], serde_json::json!([{ "what": "peer", "is": "a" }]));
    document.as_object_mut().unwrap().remove("configuration");
    document.as_object_mut().unwrap().remove("version");
    document["steps"][0].as_object_mut().unwrap().remove("seen");
    let old: Report = serde_json::from_value(document).unwrap();
    assert!(old.steps[0].seen.is_empty() && old.version.is_empty() && old.configuration.is_empty());
    assert_eq!(told(&old, &sent(&[(What::Peer, "a")])), [""; 0]);
}

#[test]
fn what_was_met_is_redacted_as_all_evidence_is() {
    let mut report = sent(&[(What::Banner, "mx hunter2 ready")]);
    report.redact(|text| text.contains("hunter2").then(|| text.replace("hunter2", "•••")));
    assert_eq!(find(&report.steps[0].seen, What::Banner), Some("mx ••• ready"));
}
