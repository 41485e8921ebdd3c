use super::*;
use crate::detect::burn::{PAIRS, Tally, fires};
use crate::slo::is_above;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn rules() -> Rules {
    let policy = AlertPolicy {
        down_after: 3,
        confirm: Vec::new(),
        partial: true,
        drift: true,
        flapping: true,
        slow_after: 3,
        recover_after: 2,
        remind: None,
    };
    Rules { policy, stale_after: Duration::from_secs(150), allowed: 0.001 }
}

fn take(detectors: &mut Detectors, minute: i64, verdict: Verdict, cause: Option<Cause>, rules: &Rules) -> Vec<Finding> {
    let now = at(minute * 60);
    detectors.take(Sample { slot: now, verdict, cause, is_confirmation: false }, rules, now);
    detectors.look(rules, now)
}

/// The minutes at which each detector began and ended to fire.
fn play(verdicts: &str, rules: &Rules) -> Vec<(i64, Detector, bool)> {
    let mut detectors = Detectors::default();
    let mut firing: BTreeSet<Detector> = BTreeSet::new();
    let mut told = Vec::new();
    for (minute, verdict) in (0..).zip(verdicts.chars()) {
        let (verdict, cause) = match verdict {
            'g' => (Verdict::Good, None),
            's' => (Verdict::Slow, None),
            'd' => (Verdict::Failed, Some(Cause::Duplicate)),
            _ => (Verdict::Failed, Some(Cause::NotReceived)),
        };
        let found: BTreeSet<_> =
            take(&mut detectors, minute, verdict, cause, rules).into_iter().map(|f| f.detector).collect();
        told.extend(found.difference(&firing).map(|detector| (minute, *detector, true)));
        told.extend(firing.difference(&found).map(|detector| (minute, *detector, false)));
        firing = found;
    }
    told
}

#[test]
fn failures_in_a_row_are_down() {
    assert_eq!(
        play("ggffgfffgg", &rules()),
        [
            (5, Detector::Partial, true),
            (7, Detector::Down, true),
            (7, Detector::Partial, false),
            // Five of six were lost: no outage, and two good runs do not prove its end.
            (9, Detector::Partial, true),
            (9, Detector::Down, false)
        ]
    );
    let no_partial = Rules { policy: AlertPolicy { partial: false, flapping: true, ..rules().policy }, ..rules() };
    assert_eq!(play("ggffgfffgg", &no_partial), [(7, Detector::Down, true), (9, Detector::Down, false)]);
}

#[test]
fn a_failed_run_and_its_failed_confirmations_are_down() {
    let confirm = vec![Duration::from_secs(10), Duration::from_secs(30)];
    // As it is for journeys that run every two minutes or less often: one confirmation that fails is not a second failed run.
    let rules = Rules { policy: AlertPolicy { confirm, down_after: 2, ..rules().policy }, ..rules() };
    let mut detectors = Detectors::default();
    let failed = |is_confirmation| Sample { slot: at(0), verdict: Verdict::Failed, cause: None, is_confirmation };
    detectors.take(failed(false), &rules, at(0));
    detectors.take(failed(true), &rules, at(10));
    assert!(detectors.look(&rules, at(10)).is_empty());
    detectors.take(failed(true), &rules, at(40));
    let said = detectors.look(&rules, at(40));
    assert_eq!(said[0].detector, Detector::Down);
    detectors = Detectors::default();
    detectors.take(failed(false), &rules, at(0));
    detectors.take(failed(true), &rules, at(10));
    detectors.take(failed(false), &rules, at(300));
    assert_eq!(detectors.look(&rules, at(300))[0].detector, Detector::Down, "two of its slots");
    detectors = Detectors::default();
    detectors.take(failed(false), &rules, at(0));
    detectors.take(Sample { verdict: Verdict::Good, ..failed(true) }, &rules, at(10));
    assert!(detectors.look(&rules, at(10)).is_empty());
    assert_eq!((detectors.failed, detectors.confirmed), (0, 0));
}

#[test]
fn one_wrong_message_is_told_and_good_runs_end_it() {
    assert_eq!(play("gdggg", &rules()), [(1, Detector::Integrity, true), (3, Detector::Integrity, false)]);
}

#[test]
fn a_share_that_is_lost_is_found_and_its_end_needs_as_much_proof() {
    // Every third run fails: never three in a row.
    let verdicts = format!("{}{}{}", "g".repeat(50), "fgg".repeat(5), "g".repeat(40));
    let told = play(&verdicts, &rules());
    assert_eq!(told[0], (56, Detector::Partial, true), "at the third failure");
    assert_eq!(told[1].1, Detector::Partial);
    let ended = told[1].0;
    // Five of thirteen is a sixth at least (0.177 by Wilson): 32 successes in a row are rarer than one in 500; the last failure was
    // at 62.
    assert_eq!(ended, 94);
}

#[test]
fn a_row_of_failures_amid_a_loss_does_not_end_it() {
    // Two good runs end the row. Half of all is lost all the same.
    let verdicts = format!("{}{}fff{}{}", "g".repeat(50), "fg".repeat(8), "gf".repeat(8), "g".repeat(80));
    let told = play(&verdicts, &rules());
    assert_eq!(told.iter().filter(|(_, detector, fires)| *detector == Detector::Down && *fires).count(), 1);
    let last_bad = verdicts.rfind('f').unwrap() as i64;
    for minute in 55..last_bad {
        let fires = |wanted| told.iter().rev().find(|(at, found, _)| *at <= minute && *found == wanted);
        let is_firing = [Detector::Down, Detector::Partial].iter().any(|one| fires(*one).is_some_and(|(_, _, on)| *on));
        assert!(is_firing, "at {minute}: {told:?}");
    }
    assert!(told.last().is_some_and(|(_, detector, fires)| *detector == Detector::Partial && !*fires), "{told:?}");
}

#[test]
fn an_outage_ends_with_two_good_runs_however_long_it_was() {
    for failed in [3, 50, 500] {
        let verdicts = format!("ggg{}gg", "f".repeat(failed));
        let told = play(&verdicts, &rules());
        assert_eq!(told.last(), Some(&(failed as i64 + 4, Detector::Down, false)), "{told:?}");
    }
}

#[test]
fn a_blip_now_and_then_is_no_loss() {
    let verdicts = format!("{}f", "g".repeat(300)).repeat(5);
    assert_eq!(play(&verdicts, &rules()), []);
}

#[test]
fn unknown_runs_are_no_evidence() {
    let mut detectors = Detectors::default();
    let rules = rules();
    for minute in 0..9 {
        let unknown = Sample { slot: at(minute * 60), verdict: Verdict::Unknown, cause: None, is_confirmation: false };
        detectors.take(unknown, &rules, at(minute * 60));
    }
    assert_eq!(detectors, Detectors::default());
}

#[test]
fn a_healthy_journeys_state_stays_the_same() {
    let (rules, mut detectors) = (rules(), Detectors::default());
    for minute in 0..5 {
        let _ = take(&mut detectors, minute, Verdict::Good, None, &rules);
    }
    let before = Detectors { heard: None, ..detectors.clone() };
    let _ = take(&mut detectors, 5, Verdict::Good, None, &rules);
    assert_eq!(Detectors { heard: None, ..detectors }, before);
}

/// The exact column of the table in research: the first number of failures whose one-sided 95 % lower bound is above the burn.
#[test]
fn the_gate_gives_the_published_integers() {
    let first = |runs: u64, rate: f64| (1..=runs).find(|bad| is_above(*bad, runs, rate)).unwrap_or(0);
    // 1 min, 99 %: 6 h × 6, 1 d × 3, 3 d × 1.
    assert_eq!((first(360, 0.06), first(1_440, 0.03), first(4_320, 0.01)), (30, 55, 55));
    // 1 min, 99.9 %.
    assert_eq!((first(360, 0.006), first(1_440, 0.003), first(4_320, 0.001)), (6, 9, 9));
    // 5 min, 99 %; 5 min, 99.9 %.
    assert_eq!((first(72, 0.06), first(288, 0.03), first(864, 0.01)), (9, 15, 15));
    assert_eq!((first(72, 0.006), first(288, 0.003), first(864, 0.001)), (3, 4, 4));
    assert_eq!((first(60, 0.144), first(60, 0.0144)), (14, 4));
}

#[test]
fn both_windows_must_burn() {
    let pair = &PAIRS[0];
    let (long, short) = (Tally { bad: 10, valid: 360 }, Tally { bad: 2, valid: 30 });
    assert!(fires(pair, long, short, 0.001));
    assert!(!fires(pair, long, Tally { bad: 0, valid: 30 }, 0.001), "it is over");
    assert!(!fires(pair, Tally { bad: 5, valid: 360 }, short, 0.001), "that may be chance");
    assert!(!fires(pair, Tally { bad: 360, valid: 360 }, short, 0.2), "no rate is above 1");
}

fn drifted(effect: f64) -> Measured {
    Measured {
        effect,
        p: 1e-9,
        median: Duration::from_millis(412),
        before: Duration::from_millis(268),
        swing: 0.02,
        is_weekly: false,
        days: 7,
        window: Duration::from_secs(3_600),
    }
}

fn found(detectors: &mut Detectors, rules: &Rules, minute: i64) -> Vec<Detector> {
    detectors.look(rules, at(minute * 60)).into_iter().map(|finding| finding.detector).collect()
}

#[test]
fn drift_is_a_warning_while_good_runs_go_on() {
    let (rules, mut detectors) = (rules(), Detectors::default());
    let _ = take(&mut detectors, 0, Verdict::Good, None, &rules);
    detectors.measured(drifted(0.86), at(60));
    let findings = detectors.look(&rules, at(60));
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning));
    assert!(findings[0].said.contains("(54 % slower; 86 % of pairs slower, p < 0.001)"), "{findings:?}");
    assert!(is_only_drift(&findings) && detectors.firing.contains(&Detector::Drift));
    assert_eq!(detectors.since(), Some(at(60)));
    // A run now and then that fails is neither more of it nor its end.
    let told: Vec<_> = (2..9)
        .map(|minute| {
            let verdict = if minute == 4 { Verdict::Failed } else { Verdict::Good };
            take(&mut detectors, minute, verdict, None, &rules).iter().map(|f| f.detector).collect::<Vec<_>>()
        })
        .collect();
    assert!(told.iter().all(|told| told == &[Detector::Drift]), "{told:?}");
    assert_eq!(detectors.bad_since, None, "what failed then is over");
    detectors.measured(drifted(0.55), at(9 * 60));
    assert_eq!(found(&mut detectors, &rules, 9), []);
}

#[test]
fn drift_says_nothing_beside_what_says_more() {
    let (rules, mut detectors) = (rules(), Detectors::default());
    detectors.measured(drifted(0.86), at(0));
    for minute in 0..3 {
        let _ = take(&mut detectors, minute, Verdict::Failed, None, &rules);
    }
    assert_eq!(found(&mut detectors, &rules, 2), [Detector::Down]);
    for minute in 3..6 {
        let _ = take(&mut detectors, minute, Verdict::Slow, None, &rules);
    }
    assert_eq!(found(&mut detectors, &rules, 5), [Detector::Slow]);
    for minute in 6..8 {
        let _ = take(&mut detectors, minute, Verdict::Good, None, &rules);
    }
    assert_eq!(found(&mut detectors, &rules, 7), [Detector::Drift], "it was there before, and still is");
    assert_eq!(found(&mut detectors, &rules, 11), [Detector::Stale]);
}

#[test]
fn what_an_outage_left_behind_is_no_drift() {
    let (rules, mut detectors) = (rules(), Detectors::default());
    for (minute, verdict) in (0..).zip("sssgg".chars()) {
        let verdict = if verdict == 's' { Verdict::Slow } else { Verdict::Good };
        let _ = take(&mut detectors, minute, verdict, None, &rules);
    }
    // It was slow for the last time at 3: what is measured within an hour of that may be nothing else.
    for (minute, expected) in [(20, false), (62, false), (63, true)] {
        let _ = take(&mut detectors, minute, Verdict::Good, None, &rules);
        detectors.measured(drifted(0.86), at(minute * 60));
        assert_eq!(found(&mut detectors, &rules, minute).contains(&Detector::Drift), expected, "at {minute}");
    }
}

#[test]
fn drift_that_nobody_wants_to_hear_of_and_drift_that_nobody_measures() {
    let no_drift = Rules { policy: AlertPolicy { drift: false, ..rules().policy }, ..rules() };
    let mut detectors = Detectors::default();
    detectors.measured(drifted(0.86), at(0));
    assert_eq!(found(&mut detectors, &no_drift, 0), []);
    assert_eq!(detectors, Detectors { heard: detectors.heard, ..Detectors::default() });
    let rules = Rules { stale_after: Duration::from_secs(30 * 86_400), ..rules() };
    detectors.measured(drifted(0.86), at(0));
    assert_eq!(found(&mut detectors, &rules, 1_439), [Detector::Drift]);
    let saved = serde_json::to_string(&detectors).unwrap();
    let mut restored: Detectors = serde_json::from_str(&saved).unwrap();
    assert_eq!(detectors.deadline(&rules), Some(at(86_400)));
    assert_eq!(found(&mut detectors, &rules, 1_440), []);
    restored.resume(at(90_000));
    assert_eq!(found(&mut restored, &rules, 1_500), [Detector::Drift], "nothing could be measured while nothing ran");
}
