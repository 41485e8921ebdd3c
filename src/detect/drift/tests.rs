use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// Of a journey that runs as often, the last sixty runs are those of six hours.
const INTERVAL: Duration = Duration::from_secs(360);
const HOUR: Duration = Duration::from_secs(3_600);

fn now() -> Timestamp {
    "2026-09-21T14:20:00Z".parse().unwrap()
}

/// A run for each interval of each window; what it came to and how many milliseconds it took is asked for by day and minute.
fn windows(hours: &Hours, every: Duration, run: impl Fn(u32, u32) -> (Verdict, u64)) -> Vec<Vec<Ran>> {
    let count = (hours.length.as_secs() / every.as_secs()) as u32;
    let window = |(day, (_, until)): (u32, (Timestamp, Timestamp))| {
        let runs = (0..count).map(|nth| {
            let (verdict, latency) = run(day, count - 1 - nth);
            Ran { slot: earlier(until, every * nth), verdict, latency: Duration::from_millis(latency) }
        });
        runs.collect()
    };
    (0..).zip(hours.windows()).map(window).collect()
}

/// 100 to 139 ms, spread alike over every window.
fn spread(nth: u32) -> u64 {
    100 + u64::from(nth * 7 % 40)
}

fn over_six_hours(run: impl Fn(u32, u32) -> (Verdict, u64)) -> Option<Measured> {
    let hours = Hours::before(now(), INTERVAL);
    hours.measure(&windows(&hours, INTERVAL, run))
}

#[track_caller]
fn measured(run: impl Fn(u32, u32) -> u64) -> Measured {
    over_six_hours(|day, nth| (Verdict::Good, run(day, nth))).expect("enough runs")
}

#[test]
fn the_last_sixty_runs_of_six_hours_at_least_and_a_day_at_most() {
    let length = |seconds| Hours::before(now(), Duration::from_secs(seconds)).length;
    assert_eq!([1, 60, 300, 900, 3_600].map(length), [HOUR * 6, HOUR * 6, HOUR * 6, HOUR * 15, DAY]);
    let windows = Hours::before(now(), INTERVAL).windows();
    assert_eq!(windows.len(), 8);
    let told: Vec<_> =
        [0, 1, 7].iter().map(|day| windows[*day]).map(|(from, until)| format!("{from} {until}")).collect();
    assert_eq!(
        told,
        [
            "2026-09-21T08:20:00Z 2026-09-21T14:20:00Z",
            "2026-09-20T08:20:00Z 2026-09-20T14:20:00Z",
            "2026-09-14T08:20:00Z 2026-09-14T14:20:00Z"
        ]
    );
}

#[test]
fn slower_than_in_the_same_hours_is_found_and_said() {
    let found = measured(|day, nth| if day == 0 { spread(nth) * 3 / 2 } else { spread(nth) });
    assert!(found.is_proven() && !found.is_over(), "{found:?}");
    assert_eq!((found.days, found.window), (7, HOUR * 6));
    assert_eq!(
        found.said(),
        "median 178ms, against 118ms in the same hours of 7 days before (50 % slower; 100 % of pairs slower, p < 0.001)"
    );
    let doubtful = Measured { p: 0.0421, ..found }.said();
    assert!(doubtful.ends_with("p = 0.042)"), "{doubtful}");
}

#[test]
fn alike_is_no_drift() {
    let found = measured(|_, nth| spread(nth));
    assert!((found.effect - 0.5).abs() < 1e-12 && !found.is_proven() && found.is_over(), "{found:?}");
    let faster = measured(|day, nth| spread(nth) / if day == 0 { 2 } else { 1 });
    assert!(faster.effect < 0.01 && faster.p > 0.999 && !faster.is_proven() && faster.is_over(), "{faster:?}");
}

#[test]
fn what_is_slower_by_little_calls_nobody() {
    // 12 to 13 ms; 12 to 21 ms, which is much for so few; a second to 1.19 s: all of them without any doubt.
    for (before, after) in [(12, 13), (12, 21), (1_000, 1_190)] {
        let found = measured(|day, _| if day == 0 { after } else { before });
        assert!(found.effect > 0.99 && found.p < DOUBT && !found.is_proven(), "{found:?}");
    }
    for (before, after) in [(12, 22), (1_000, 1_200)] {
        assert!(measured(|day, _| if day == 0 { after } else { before }).is_proven());
    }
    // Back to nearly what it was, where everything is nearly the same: every pair is slower, and it is over.
    for (before, after, is_over) in [(1_000, 1_099, true), (1_000, 1_100, false), (12, 16, true), (12, 17, false)] {
        assert_eq!(measured(|day, _| if day == 0 { after } else { before }).is_over(), is_over, "{after}");
    }
}

/// Of 60 against 420, so many of the last runs are slower than all before, the others as they are.
#[test]
fn it_fires_above_seven_tenths_and_ends_below_six() {
    let found = |slow: u32| measured(|day, nth| if day == 0 && nth < slow { 900 } else { 100 });
    // One slow run moves the effect by 1 ÷ 120.
    assert!((found(12).effect - 0.6).abs() < 1e-12 && (found(24).effect - 0.7).abs() < 1e-12);
    // The median is what it was until half are slow: what is asked for here is the effect alone.
    let with_median = |slow| Measured { median: Duration::from_millis(900), is_weekly: false, ..found(slow) };
    assert!(!with_median(24).is_proven() && with_median(25).is_proven());
    assert!(with_median(11).is_over() && !with_median(12).is_over());
    assert!(!found(25).is_proven() && found(25).is_over(), "the median is as it was");
    assert!(!Measured { p: DOUBT, ..with_median(25) }.is_proven(), "that may be chance");
}

#[test]
fn too_little_says_nothing() {
    let slower = |day: u32| if day == 0 { 200 } else { 100 };
    let only = |recent: u32, days: u32| {
        over_six_hours(|day, nth| {
            let is_there = if day == 0 { nth < recent } else { day <= days };
            (if is_there { Verdict::Good } else { Verdict::Failed }, slower(day))
        })
    };
    assert_eq!(only(19, 7), None);
    assert!(only(20, 7).unwrap().is_proven());
    assert_eq!(only(60, 2), None);
    assert!(only(60, 3).unwrap().is_proven());
    assert_eq!(Hours::before(now(), INTERVAL).measure(&vec![Vec::new(); 8]), None);
    // Half of a day is enough of it, less is not: other hours are not the same hours.
    let hours = Hours::before(now(), INTERVAL);
    let half = |kept: usize| {
        let mut windows = windows(&hours, INTERVAL, |day, _| (Verdict::Good, slower(day)));
        windows[1..].iter_mut().for_each(|day| day.truncate(kept));
        hours.measure(&windows).map(|found| found.days)
    };
    assert_eq!([29, 30].map(half), [None, Some(7)]);
}

#[test]
fn what_failed_is_left_out_and_bad_hours_are_none_to_compare_with() {
    // A failed run in fifteen took no time at all, or for ever.
    let latency = |day, nth| {
        if nth % 15 == 0 {
            60_000
        } else if day == 0 {
            200
        } else {
            100
        }
    };
    let failing = |nth| if nth % 15 == 0 { Verdict::Failed } else { Verdict::Good };
    let found = over_six_hours(|day, nth| (failing(nth), latency(day, nth))).unwrap();
    assert_eq!(
        (found.median, found.before, found.effect),
        (Duration::from_millis(200), Duration::from_millis(100), 1.0)
    );
    // Four days had an incident: slow in all of the hours, which is none of what it was before.
    let slow = |day| if (1..=4).contains(&day) { (Verdict::Slow, 5_000) } else { (Verdict::Good, latency(day, 1)) };
    let found = over_six_hours(|day, _| slow(day)).unwrap();
    assert_eq!((found.before, found.days), (Duration::from_millis(100), 3));
    // A tenth of an hour's runs may be bad. The window begins with six runs of one hour, and has ten of the next.
    let bad = |which: &[u32]| {
        let verdict = |nth: u32| if which.contains(&nth) { Verdict::Slow } else { Verdict::Good };
        let hours = Hours::before(now(), INTERVAL);
        good_hours(&windows(&hours, INTERVAL, |_, nth| (verdict(nth), 100))[1]).len()
    };
    assert_eq!([&[][..], &[8], &[8, 9], &[0]].map(bad), [60, 60, 50, 54]);
    // Slow runs of the last hours were delivered, and count.
    let over = over_six_hours(|day, _| if day == 0 { (Verdict::Slow, 300) } else { (Verdict::Good, 100) }).unwrap();
    assert_eq!(over.median, Duration::from_millis(300));
}

/// Days that differ by as much as a fifth: what is slower by half is one of them, what is slower by a trend over the days is not.
#[test]
fn what_differs_from_day_to_day_must_be_stuck_out_of() {
    let days = [0, 250, 200, 250, 200, 250, 200, 250];
    let among = |latency: u64| measured(|day, _| if day == 0 { latency } else { days[day as usize] });
    // Each day is the other one by ln 1.25, so one of them is off by that ÷ √2: 0.158. Four times that is a factor of 1.88.
    assert!((among(400).swing - 1.25f64.ln() / 2f64.sqrt()).abs() < 1e-9);
    assert!(among(400).effect > 0.99 && !among(400).is_proven() && !among(460).is_proven() && among(480).is_proven());
    let trend = measured(|day, nth| spread(nth) * 1_000 / (1_000 + 80 * u64::from(day)));
    assert!(trend.swing < 0.06 && trend.is_proven(), "{trend:?}");
}

#[test]
fn a_rhythm_of_a_week_is_no_drift() {
    let monday = |week_ago: u64| measured(|day, _| [300, 100, 100, 100, 100, 100, 100, week_ago][day as usize]);
    assert!(monday(100).is_proven() && monday(250).is_proven());
    assert!(monday(251).is_weekly && !monday(251).is_proven() && !monday(300).is_proven());
    assert!(!monday(300).is_over(), "what fires already does not end by that");
}

fn slow() -> Measured {
    measured(|day, nth| if day == 0 { spread(nth) * 2 } else { spread(nth) })
}

fn after(length: Duration) -> Timestamp {
    later(now(), length)
}

#[test]
fn it_keeps_what_it_found_between_the_two_thresholds() {
    let between = Measured { effect: 0.65, ..slow() };
    let mut drift = Drift::default();
    drift.take(between, now());
    assert_eq!(drift, Drift::default(), "nothing is kept of what does not fire");
    drift.take(slow(), after(EVERY));
    drift.take(between, after(EVERY * 2));
    assert_eq!(drift.found, Some(Found { since: after(EVERY), at: after(EVERY * 2), measured: between }));
    drift.take(Measured { effect: 0.59, ..between }, after(EVERY * 3));
    assert_eq!(drift, Drift::default());
}

#[test]
fn what_something_else_made_slow_must_leave_the_window_first() {
    let mut drift = Drift::default();
    drift.trouble(now());
    drift.take(slow(), after(MINUTE * 359));
    assert_eq!(drift.found, None);
    drift.take(slow(), after(MINUTE * 360));
    assert!(drift.found.is_some() && drift.troubled.is_none());
    // What fires goes on.
    drift.trouble(after(HOUR * 7));
    drift.take(slow(), after(HOUR * 7));
    assert_eq!(drift.found.map(|found| found.since), Some(after(HOUR * 6)));
}

#[test]
fn without_measurements_it_ends_after_a_day() {
    let mut drift = Drift::default();
    assert_eq!(drift.deadline(), None);
    drift.take(slow(), now());
    assert_eq!(drift.deadline(), Some(after(DAY)));
    drift.expire(after(DAY - MINUTE));
    assert!(drift.found.is_some());
    // While we were not there, nothing could be measured.
    drift.resume(after(DAY * 3));
    drift.expire(after(DAY * 3));
    assert_eq!(drift.found.map(|found| found.since), Some(now()));
    drift.expire(after(DAY * 4));
    assert_eq!(drift.found, None);
    drift.resume(after(DAY * 4));
    assert_eq!(drift, Drift::default());
}

#[test]
fn it_is_the_same_after_it_was_saved() {
    let mut drift = Drift::default();
    drift.take(slow(), now());
    drift.trouble(after(MINUTE));
    let saved = serde_json::to_string(&drift).unwrap();
    assert_eq!(serde_json::from_str::<Drift>(&saved).unwrap(), drift);
    assert_eq!(serde_json::from_str::<Drift>("{}").unwrap(), Drift::default());
}
