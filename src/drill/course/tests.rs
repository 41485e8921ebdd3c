use proptest::prelude::*;

use super::*;
use crate::journey::outcome::Verdict as Run;

const WITHIN: Duration = Duration::from_secs(60);

fn at(second: u64) -> Mono {
    Mono(Duration::from_secs(second))
}

fn ran(verdict: Run, injected: u64, second: u64) -> Ran<'static> {
    Ran { verdict, said: "so it went", injected, at: at(second) }
}

/// A drill whose fault was put in at second 10.
fn faulty(confirm: &[u64]) -> Course {
    let mut course = Course::new(WITHIN, confirm.iter().copied().map(Duration::from_secs).collect());
    course.ran(ran(Run::Good, 0, 10));
    assert_eq!(course.stage(), Stage::Faulty);
    course
}

fn verdict(course: &Course) -> Option<Verdict> {
    course.end().map(|(verdict, _)| verdict)
}

#[test]
fn a_drill_that_goes_all_the_way_passes_and_says_how_long_each_part_took() {
    let mut course = faulty(&[]);
    assert!(matches!(course.next(), Next::Run { is_faulty: true, is_confirmation: false, .. }));
    course.ran(ran(Run::Failed, 1, 12));
    course.alerted(at(13));
    assert_eq!(course.next(), Next::Wait { until: at(70) });
    course.saw_alert(at(15));
    assert!(matches!(course.next(), Next::Run { is_faulty: false, .. }), "the fault is taken away first");
    course.ran(ran(Run::Good, 0, 16));
    course.cleared();
    assert_eq!(course.next(), Next::Wait { until: at(75) });
    course.saw_end(at(18));
    assert_eq!((course.next(), verdict(&course)), (Next::End, Some(Verdict::Passed)));
    let times = [course.detected(), course.told(), course.resolved()].map(|took| took.unwrap().as_secs());
    assert_eq!((times, course.counted()), ([3, 5, 3], (3, 1)));
}

#[test]
fn a_fault_that_left_no_trace_is_not_tested_and_never_passed() {
    let mut course = Course::new(WITHIN, Vec::new());
    course.ran(ran(Run::Failed, 0, 10));
    assert_eq!(verdict(&course), Some(Verdict::NotTested), "what is ill before shows nothing");
    for (run, injected) in [(Run::Good, 1), (Run::Failed, 0), (Run::Good, 0)] {
        let mut course = faulty(&[]);
        course.ran(ran(run, injected, 12));
        assert_eq!(verdict(&course), Some(Verdict::NotTested));
        course.alerted(at(13));
        course.saw_alert(at(14));
        assert_eq!(verdict(&course), Some(Verdict::NotTested), "and nothing changes that");
    }
}

#[test]
fn a_failed_run_is_confirmed_as_the_policy_has_it() {
    let mut course = faulty(&[10, 30]);
    let next = |course: &Course| match course.next() {
        Next::Run { is_confirmation, at, .. } => (is_confirmation, at.0.as_millis()),
        other => panic!("{other:?}"),
    };
    course.ran(ran(Run::Failed, 1, 12));
    assert_eq!(next(&course), (true, 22_000));
    course.ran(ran(Run::Failed, 1, 23));
    assert_eq!(next(&course), (true, 53_000));
    course.ran(ran(Run::Failed, 1, 54));
    assert_eq!(next(&course), (false, 54_500), "all are made: the next one is a slot of its own");
    let mut course = faulty(&[10]);
    course.ran(ran(Run::Slow, 1, 12));
    assert_eq!(next(&course), (false, 12_500), "what is slow is not confirmed");
}

#[test]
fn each_part_has_its_time_and_what_is_late_has_failed_and_says_what_was_missing() {
    let mut course = faulty(&[]);
    course.ran(ran(Run::Failed, 1, 12));
    course.expire(at(69), "");
    assert_eq!(verdict(&course), None);
    course.expire(at(70), "");
    let (found, why) = course.end().unwrap();
    assert_eq!((found, why.contains("1 of 1 runs under the fault were bad")), (Verdict::Failed, true), "{why}");

    let mut course = faulty(&[]);
    course.ran(ran(Run::Failed, 1, 12));
    course.alerted(at(13));
    course.expire(at(70), "slack said: channel_not_found");
    assert!(course.end().unwrap().1.contains("channel_not_found"));
    course.saw_alert(at(71));
    assert_eq!(verdict(&course), Some(Verdict::Failed), "too late is too late");

    let mut course = faulty(&[]);
    course.ran(ran(Run::Failed, 1, 12));
    course.alerted(at(13));
    course.saw_alert(at(20));
    course.expire(at(79), "");
    assert_eq!(verdict(&course), None, "healing has a time of its own");
    course.expire(at(80), "");
    assert_eq!(verdict(&course), Some(Verdict::Failed));
}

#[derive(Clone, Debug)]
enum Happens {
    Ran(Run, u64),
    Alerted,
    SawAlert,
    Cleared,
    SawEnd,
    Time,
    Abort,
}

fn happens() -> impl Strategy<Value = Happens> {
    let run = prop_oneof![
        Just(Run::Good),
        Just(Run::Slow),
        Just(Run::Failed),
        Just(Run::Late),
        Just(Run::Unknown),
        Just(Run::Excluded)
    ];
    prop_oneof![
        4 => (run, 0u64..3).prop_map(|(run, injected)| Happens::Ran(run, injected)),
        2 => Just(Happens::Alerted),
        2 => Just(Happens::SawAlert),
        2 => Just(Happens::Cleared),
        2 => Just(Happens::SawEnd),
        1 => Just(Happens::Time),
        1 => Just(Happens::Abort),
    ]
}

proptest! {
    /// Whatever happens in whichever order: what passed had its fault put in, was bad under it, was told, and was over, in time.
    #[test]
    fn only_what_went_all_the_way_passes(all in proptest::collection::vec((happens(), 0u64..20), 0..40)) {
        let mut course = Course::new(WITHIN, vec![Duration::from_secs(10)]);
        let (mut second, mut ended) = (0, None);
        let (mut injected, mut bad) = (0, 0);
        for (happens, after) in all {
            second += after;
            let stage = course.stage();
            match happens {
                Happens::Ran(run, times) => {
                    if stage == Stage::Faulty && times > 0 && matches!(run, Run::Slow | Run::Failed | Run::Late) {
                        (injected, bad) = (injected + times, bad + 1);
                    }
                    course.ran(ran(run, times, second));
                }
                // Nobody decides that before a run was bad.
                Happens::Alerted if bad > 0 => course.alerted(at(second)),
                Happens::Alerted => {}
                Happens::SawAlert => course.saw_alert(at(second)),
                Happens::Cleared => course.cleared(),
                Happens::SawEnd => course.saw_end(at(second)),
                Happens::Time => course.expire(at(second), "nothing"),
                Happens::Abort => course.finish(Verdict::Aborted, "somebody wanted it".to_owned()),
            }
            prop_assert_eq!(course.next() == Next::End, course.end().is_some());
            if let Some(before) = &ended {
                prop_assert_eq!(before, &course.end().map(|(verdict, why)| (verdict, why.to_owned())), "the last word");
            }
            if let Some((verdict, why)) = course.end() {
                ended = Some(Some((verdict, why.to_owned())));
            }
            if verdict(&course) == Some(Verdict::Passed) {
                prop_assert!(injected > 0 && bad > 0);
                prop_assert!(course.detected() <= course.told() && course.told() < Some(WITHIN));
                prop_assert!(course.resolved().is_some_and(|took| took < WITHIN));
            }
        }
    }
}
