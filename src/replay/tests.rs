use std::time::Duration;

use super::*;
use crate::journey::AlertPolicy;
use crate::journey::schedule::Schedule;
use crate::time::later;

const MINUTE: Duration = Duration::from_secs(60);

fn at(minute: u32) -> Timestamp {
    later(Timestamp::from_second(1_790_000_000).unwrap(), MINUTE * minute)
}

fn journey(name: &str, down_after: u32) -> Arc<Journey> {
    Arc::new(Journey {
        name: name.into(),
        schedule: Schedule::every(MINUTE, name),
        budget: None,
        deadline: Duration::from_secs(30),
        late: Duration::from_secs(300),
        objective: None,
        alert: AlertPolicy {
            down_after,
            confirm: Vec::new(),
            partial: false,
            drift: true,
            flapping: true,
            slow_after: 3,
            recover_after: 2,
            remind: None,
        },
        notify: vec!["people".into()],
        owner: None,
        runbook: None,
        labels: Default::default(),
        depends_on: Vec::new(),
        fingerprint: String::new(),
        muted: false,
        critical: false,
        steps: Vec::new(),
        maintenance: Vec::new(),
        unavailable: None,
        vantage: None,
        defined_at: "here:1".to_owned(),
    })
}

/// When people were told what, a run a minute.
fn play(verdicts: &str, down_after: u32) -> Vec<(u32, NotifyReason, String)> {
    played(Replay::new(&[journey("sms", down_after)], None, Vec::new(), ResourceKind::ALL, at(0)), verdicts)
}

fn played(mut replay: Replay, verdicts: &str) -> Vec<(u32, NotifyReason, String)> {
    let mut told = Vec::new();
    for (minute, verdict) in (0..).zip(verdicts.chars()) {
        let (slot, now) = (at(minute), at(minute));
        let happened = match verdict {
            'm' => Happened::Without { slot, verdict: Verdict::Unknown, is_missed: true },
            's' => Happened::Without { slot, verdict: Verdict::Unknown, is_missed: false },
            other => {
                let verdict = if other == 'f' { Verdict::Failed } else { Verdict::Good };
                let sample = Sample { slot, verdict, cause: None, is_confirmation: false };
                Happened::Run { sample, latency: Duration::ZERO, blamed: None }
            }
        };
        told.extend(replay.take("sms", happened, now));
    }
    let minute = |at: Timestamp| crate::time::between(self::at(0), at).as_secs() as u32 / 60;
    told.into_iter().map(|told| (minute(told.at), told.reason, told.said)).collect()
}

#[test]
fn people_are_told_once_and_of_the_end() {
    let told = play("ggffffgg", 3);
    let said = |text: &str| text.to_owned();
    assert_eq!(
        told,
        [
            (4, NotifyReason::First, said("3 failed runs in a row (down_after = 3)")),
            (7, NotifyReason::Resolved, said("well again"))
        ]
    );
    assert_eq!(play("ggffffgg", 4)[0].0, 5);
    assert_eq!(play("ggffffgg", 5), []);
}

#[test]
fn what_was_silenced_is_silent_again() {
    let silence = |from, until| Silence {
        id: "s".to_owned(),
        matchers: vec![crate::control::Matcher::equals("journey", "sms")],
        from: at(from),
        until: at(until),
        until_resolved: false,
        exclude_from_slo: false,
        pauses: false,
        reason: "a release".to_owned(),
        author: "ada".to_owned(),
    };
    let told = |silence| {
        let replay = Replay::new(&[journey("sms", 3)], None, Vec::new(), ResourceKind::ALL, at(0));
        played(replay.silenced(vec![silence]), "ggfffffffgg")
    };
    assert_eq!(told(silence(0, 60)), []);
    let after: Vec<_> = told(silence(0, 7)).into_iter().map(|told| (told.0, told.1)).collect();
    assert_eq!(after, [(7, NotifyReason::First), (10, NotifyReason::Resolved)], "at the silence's end");
    assert_eq!(told(silence(20, 60))[0].0, 4, "not before it begins");
}

#[test]
fn silence_is_stale_unless_we_were_not_there() {
    assert_eq!(play("ggsssss", 3).first().map(|told| (told.0, told.1)), Some((3, NotifyReason::First)));
    assert_eq!(play("ggmmmmmmg", 3), []);
}

#[test]
fn what_is_unknown_is_left_out() {
    let mut replay = Replay::new(&[journey("sms", 1)], None, Vec::new(), ResourceKind::ALL, at(0));
    let sample = Sample { slot: at(1), verdict: Verdict::Failed, cause: None, is_confirmation: false };
    assert_eq!(replay.take("mail", Happened::Run { sample, latency: Duration::ZERO, blamed: None }, at(1)), []);
    assert_eq!(replay.take("sms", Happened::Run { sample, latency: Duration::ZERO, blamed: None }, at(2)).len(), 1);
    assert!(replay.alerts("sms").is_some_and(|alerts| alerts.health.phase.is_firing()));
}

#[test]
fn two_replays_are_compared_line_by_line() {
    let told = |minute, reason, severity| Told {
        at: at(minute),
        notifier: "people".into(),
        reason,
        severity,
        subject: "sms".to_owned(),
        journey: Some("sms".into()),
        detectors: BTreeSet::new(),
        said: String::new(),
        incident: String::new(),
    };
    let (first, resolved) = (NotifyReason::First, NotifyReason::Resolved);
    let comparison = comparison::Comparison {
        from: at(0),
        until: at(7 * 1_440),
        runs: 10,
        journeys: vec!["sms".into(), "mail".into()],
        present: vec![
            told(1, first, Severity::Critical),
            told(3, resolved, Severity::Critical),
            told(9, first, Severity::Warning),
        ],
        changed: Some(vec![told(2, first, Severity::Critical), told(3, resolved, Severity::Critical)]),
    };
    use comparison::Side::{Both, Changed, Present};
    let sides: Vec<_> = comparison.lines().into_iter().map(|(side, told)| (side, told.at)).collect();
    assert_eq!(sides, [(Present, at(1)), (Changed, at(2)), (Both, at(3)), (Present, at(9))]);
    let [present, changed] = comparison.counts()["sms"];
    assert_eq!((present.pages, present.tickets, present.resolved), (1, 1, 1));
    assert_eq!((changed.pages, changed.tickets, changed.resolved), (1, 0, 1));
    assert_eq!(comparison.counts()["mail"], [comparison::Counts::default(); 2], "it was quiet, and is named");
    assert_eq!(comparison.pages_a_week(), [1.0, 1.0]);
}

/// A run each five minutes: of eight days a day and a half is slower by half.
#[test]
fn drift_is_told_as_the_daemon_tells_it() {
    let every = MINUTE * 5;
    let play = |drift: bool| {
        let mut journey = Journey::clone(&journey("sms", 3));
        (journey.schedule, journey.alert.drift) = (Schedule::every(every, "sms"), drift);
        let mut replay = Replay::new(&[Arc::new(journey)], None, Vec::new(), ResourceKind::ALL, at(0));
        let mut told = Vec::new();
        for nth in 0..288 * 8 {
            let slot = later(at(0), every * nth);
            let is_slow = (288 * 5..288 * 13 / 2).contains(&nth);
            let latency = Duration::from_millis(u64::from(nth * 7 % 40) + if is_slow { 180 } else { 100 });
            let sample = Sample { slot, verdict: Verdict::Good, cause: None, is_confirmation: false };
            told.extend(replay.take("sms", Happened::Run { sample, latency, blamed: None }, later(slot, latency)));
        }
        told
    };
    let told = play(true);
    assert_eq!(told.iter().map(|told| told.reason).collect::<Vec<_>>(), [NotifyReason::First, NotifyReason::Resolved]);
    assert_eq!((told[0].severity, told[0].detectors.clone()), (Severity::Warning, [Detector::Drift].into()));
    assert!(told[0].said.contains("in the same hours of 5 days before"), "{}", told[0].said);
    // Half of the last six hours must be slow for the median to be, and nearly as much of them well again.
    let hours: Vec<_> = told.iter().map(|told| crate::time::between(at(0), told.at).as_secs() / 3_600).collect();
    assert_eq!(hours, [123, 159]);
    assert_eq!(play(false), []);
}
