use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn found(detector: Detector) -> Look {
    Look { findings: vec![Finding::new(detector, "so")], since: Some(at(0)), ..Look::default() }
}

#[test]
fn every_transition() {
    let mut alert = AlertState::default();
    let suspicious = Look { is_suspicious: true, since: Some(at(0)), is_bad_run: true, ..Look::default() };
    assert_eq!(alert.settle(suspicious, at(1)), Transition::None);
    assert_eq!((alert.phase, alert.since, alert.bad_runs), (Phase::Suspect, Some(at(0)), 1));
    assert_eq!(alert.settle(Look::default(), at(2)), Transition::None);
    assert_eq!(alert, AlertState::default());
    assert_eq!(alert.settle(found(Detector::Slow), at(3)), Transition::Fired);
    assert_eq!(alert.settle(found(Detector::Slow), at(4)), Transition::None);
    assert_eq!(alert.settle(found(Detector::Down), at(5)), Transition::Changed);
    assert_eq!(alert.severity(), Some(Severity::Critical));
    assert_eq!(alert.settle(Look { is_good: true, ..found(Detector::Down) }, at(6)), Transition::None);
    assert_eq!(alert.phase, Phase::Recovering);
    assert_eq!(alert.settle(Look::default(), at(7)), Transition::Ended);
    assert_eq!((alert.phase, alert.ended.len(), alert.findings.len()), (Phase::Ok, 1, 0));
}

#[test]
fn subjects_are_what_they_are_written_as() {
    let all = [
        Subject::Journey("sms[eu]".into()),
        Subject::Budget("sms".into()),
        Subject::Channel("orders".into()),
        Subject::Daemon("delivery ops-mail".into()),
    ];
    for subject in all {
        assert_eq!(Subject::from(&*subject.to_string()), subject);
    }
}

#[test]
fn an_incident_never_begins_before_the_end_of_the_one_before() {
    let mut alert = AlertState::default();
    assert_eq!(alert.settle(found(Detector::Down), at(10)), Transition::Fired);
    assert_eq!(alert.since, Some(at(0)));
    assert_eq!(alert.settle(Look::default(), at(20)), Transition::Ended);
    // The loss is still proven from where it began.
    assert_eq!(alert.settle(found(Detector::Partial), at(30)), Transition::Fired);
    assert_eq!(
        alert.since,
        Some(at(30)),
        "the same beginning would be the same incident, of which people know the end"
    );
}
