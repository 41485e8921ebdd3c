//! Scripted timelines: what opens it, what closes it, what decides nothing; and the mistakes that other breakers have made.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
/// No call takes longer.
const LIMIT: Duration = Duration::from_secs(10);
/// Neither early nor late.
const EVEN: f64 = 0.5;

fn at(seconds: f64) -> Mono {
    Mono(HOUR + Duration::from_secs_f64(seconds))
}

fn sample(seconds: f64, cause: &'static str) -> Sample {
    Sample { at: at(seconds), cause, tag: format!("at {seconds}").into() }
}

/// A breaker with its script.
struct Script(Breaker);

impl Script {
    fn new(settings: Settings) -> Script {
        Script(Breaker::new(settings))
    }

    fn try_admit(&mut self, seconds: f64, need: Need, who: u64) -> Result<Ticket, Refused> {
        self.0.admit(need, who, LIMIT, at(seconds), EVEN)
    }

    fn admit(&mut self, seconds: f64) -> Ticket {
        self.try_admit(seconds, Need::Usual, 1).unwrap()
    }

    fn end(&mut self, seconds: f64, ticket: Ticket, verdict: Verdict) {
        let cause = if verdict == Verdict::Worked { OK } else { "unreachable" };
        self.0.end(ticket, verdict, sample(seconds, cause), EVEN);
    }

    /// A call that is over at once, if it may be made.
    fn call(&mut self, seconds: f64, who: u64, verdict: Verdict) -> State {
        if let Ok(ticket) = self.try_admit(seconds, Need::Usual, who) {
            self.end(seconds, ticket, verdict);
        }
        self.0.state()
    }

    fn fail(&mut self, seconds: f64) -> State {
        self.call(seconds, 1, FAILED)
    }

    fn work(&mut self, seconds: f64) -> State {
        self.call(seconds, 1, Verdict::Worked)
    }

    /// Open since `seconds`, for 15 s.
    fn opened(seconds: f64) -> Script {
        let mut script = Script::new(Settings::NOTIFIER);
        for _ in 0..3 {
            script.fail(seconds);
        }
        assert_eq!((script.0.state(), script.0.open_until()), (State::Open, Some(at(seconds + 15.0))));
        script
    }

    fn refused(&mut self, seconds: f64) -> bool {
        self.try_admit(seconds, Need::Usual, 1).is_err()
    }
}

const FAILED: Verdict = Verdict::Failed { after: None };

#[test]
fn three_failures_in_a_row_open_it_and_a_success_between_them_does_not_count_them() {
    let mut script = Script::new(Settings::NOTIFIER);
    for second in [0.0, 1.0] {
        assert_eq!(script.fail(second), State::Closed);
    }
    assert_eq!(script.work(2.0), State::Closed);
    for second in [3.0, 4.0] {
        assert_eq!(script.fail(second), State::Closed);
    }
    assert_eq!(script.call(4.5, 1, Verdict::Ignored), State::Closed, "it neither counts nor forgives");
    assert_eq!(script.fail(5.0), State::Open);
    let transition = script.0.transitions().next_back().unwrap();
    assert_eq!((transition.from, transition.to, transition.at), (State::Closed, State::Open, at(5.0)));
    assert_eq!(transition.why, "3 failures in a row, the last: unreachable");
    assert_eq!(transition.samples.len(), 7);
    assert_eq!(&*transition.samples[6].tag, "at 5");
}

#[test]
fn half_of_ten_calls_within_two_minutes_open_it_and_nine_do_not() {
    let mut script = Script::new(Settings::NOTIFIER);
    for second in 0..9 {
        script.call(f64::from(second) * 10.0, 1, if second % 2 == 0 { FAILED } else { Verdict::Worked });
    }
    assert_eq!(script.0.state(), State::Closed, "nine calls");
    assert_eq!(script.work(85.0), State::Closed, "a success opens nothing");
    assert_eq!(script.fail(90.0), State::Open, "6 of 11");
    let why = &script.0.transitions().next_back().unwrap().why;
    assert_eq!(why, "6 of 11 calls within 2m failed, the last: unreachable");

    let mut script = Script::new(Settings::NOTIFIER);
    for second in 0..60 {
        script.call(f64::from(second) * 14.0, 1, if second % 2 == 0 { FAILED } else { Verdict::Worked });
    }
    assert_eq!(script.0.state(), State::Closed, "never ten within two minutes");
}

/// A blip that is over within seconds would be made longer by an open breaker, and what one caller meets alone is its own.
#[test]
fn a_channel_opens_by_failures_of_several_callers_that_last() {
    let mut script = Script::new(Settings::CHANNEL);
    for n in 0..40 {
        assert_eq!(script.call(f64::from(n) * 0.1, u64::from(n % 2 == 0), FAILED), State::Closed);
    }
    assert_eq!(script.call(5.0, 2, FAILED), State::Open);

    let mut script = Script::new(Settings::CHANNEL);
    for n in 0..500 {
        assert_eq!(script.call(f64::from(n), 7, FAILED), State::Closed, "one caller alone");
    }
    assert_eq!(script.call(500.0, 8, FAILED), State::Open);

    let mut script = Script::new(Settings::CHANNEL);
    for second in [0.0, 0.5, 2.0] {
        script.0.witness(FAILED, sample(second, "reader"), EVEN);
    }
    assert_eq!(script.0.state(), State::Closed);
    script.0.witness(FAILED, sample(6.5, "reader"), EVEN);
    assert_eq!(script.0.state(), State::Open, "a reader speaks for all of them");
}

#[test]
fn it_is_open_three_times_longer_each_time_up_to_ten_minutes_and_spread_by_a_fifth() {
    let mut script = Script::opened(0.0);
    let mut now = 0.0;
    for length in [15.0, 45.0, 135.0, 405.0, 600.0, 600.0] {
        assert_eq!(script.0.open_until(), Some(at(now + length)));
        assert!(script.refused(now + length - 0.1));
        now += length;
        assert_eq!(script.fail(now), State::Open);
    }
    let settings = Settings::NOTIFIER;
    for (chance, seconds) in [(0.0, 12.0), (0.5, 15.0), (1.0, 18.0)] {
        assert_eq!(settings.open_for(0, chance), Duration::from_secs_f64(seconds));
    }
    assert_eq!(settings.open_for(u32::MAX, 1.0), Duration::from_secs(720));
}

#[test]
fn it_is_open_longer_when_asked_to() {
    let mut script = Script::opened(0.0);
    let trial = script.admit(15.0);
    script.end(16.0, trial, Verdict::Failed { after: Some(HOUR) });
    assert_eq!(script.0.open_until(), Some(at(3_616.0)));
    assert!(script.refused(3_615.0) && !script.refused(3_616.0));
}

#[test]
fn two_successes_close_it_and_the_next_time_begins_with_fifteen_seconds_again() {
    let mut script = Script::opened(0.0);
    assert_eq!(script.fail(15.0), State::Open);
    assert_eq!(script.work(60.0), State::HalfOpen);
    assert_eq!(script.work(60.1), State::Closed);
    assert_eq!(script.0.left_closed(), None);
    for second in [61.0, 62.0, 63.0] {
        script.fail(second);
    }
    assert_eq!((script.0.open_until(), script.0.left_closed()), (Some(at(78.0)), Some(at(63.0))));
}

#[test]
fn a_success_and_then_a_failure_do_not_close_it() {
    let mut script = Script::opened(0.0);
    assert_eq!(script.work(15.0), State::HalfOpen);
    assert_eq!(script.fail(15.1), State::Open);
    assert_eq!(script.0.left_closed(), Some(at(0.0)), "it was never closed");
    assert_eq!(script.work(61.0), State::HalfOpen, "successes are counted anew");
}

#[test]
fn whoever_has_to_try_goes_through_and_changes_nothing_about_the_time() {
    let mut script = Script::opened(0.0);
    for second in [2.0, 4.0, 6.0] {
        let ticket = script.try_admit(second, Need::Owed, 1).unwrap();
        assert!(script.refused(second), "it is the trial, and others wait for it");
        let beside = script.try_admit(second, Need::Owed, 2).unwrap();
        let begun = script.try_admit(second, Need::Begun, 3).unwrap();
        script.end(second, beside, Verdict::Worked);
        script.end(second, begun, Verdict::Worked);
        assert_eq!(script.0.state(), State::HalfOpen, "the trial decides");
        script.end(second, ticket, FAILED);
        assert_eq!((script.0.state(), script.0.open_until()), (State::Open, Some(at(15.0))));
    }
    let ticket = script.try_admit(8.0, Need::Owed, 1).unwrap();
    script.end(8.0, ticket, Verdict::Worked);
    assert_eq!(script.work(8.1), State::Closed, "the second may be anybody's");
}

#[test]
fn a_reader_that_is_back_lets_the_next_one_try_at_once() {
    let mut script = Script::opened(0.0);
    script.0.witness(FAILED, sample(1.0, "reader"), EVEN);
    assert!(script.refused(2.0));
    script.0.witness(Verdict::Worked, sample(3.0, OK), EVEN);
    assert_eq!(script.0.state(), State::Open, "it closes nothing");
    assert_eq!(script.work(3.0), State::HalfOpen);
}

fn order(to: Force) -> Option<Order> {
    let until = "2026-11-21T18:00:00Z".parse().unwrap();
    Some(Order { to, by: "ada".to_owned(), reason: "migration".to_owned(), until })
}

#[test]
fn what_somebody_wants_holds_until_its_end_and_no_longer_than_a_day() {
    let mut script = Script::new(Settings::NOTIFIER);
    script.0.obey(order(Force::Open), at(60.0), at(0.0));
    assert_eq!(script.0.state(), State::ForcedOpen);
    assert_eq!(script.0.left_closed(), Some(at(0.0)));
    assert!(script.try_admit(59.0, Need::Owed, 1).is_err(), "nobody is asked to try");
    assert_eq!(script.0.deadline(), Some(at(60.0)));
    assert_eq!(script.work(60.0), State::Closed);
    let whys: Vec<_> = script.0.transitions().map(|transition| transition.why.as_str()).collect();
    assert_eq!(whys, ["ada wants it open: migration", "the time for which somebody wanted it otherwise is over"]);

    script.0.obey(order(Force::Closed), at(1e6), at(61.0));
    assert_eq!(script.0.order().unwrap().1, at(61.0 + 86_400.0));
    for second in 62..80 {
        assert_eq!(script.fail(f64::from(second)), State::ForcedClosed);
    }
    script.0.obey(None, at(0.0), at(90.0));
    assert_eq!(script.fail(91.0), State::Closed, "nothing was counted");
}

#[test]
fn who_only_observes_lets_everything_through_and_shows_what_would_be() {
    let mut script = Script::new(Settings { observes: true, ..Settings::NOTIFIER });
    for second in 0..30 {
        script.fail(f64::from(second) / 10.0);
    }
    assert_eq!((script.0.state(), script.0.would_be()), (State::ObserveOnly, State::Open));
    assert!(!script.refused(3.0));
    assert_eq!(script.work(18.0), State::ObserveOnly);
    script.work(18.1);
    assert_eq!(script.0.would_be(), State::Closed);
    let to: Vec<_> = script.0.transitions().map(|transition| transition.to).collect();
    assert_eq!(to, [State::Open, State::HalfOpen, State::Closed]);

    let mut script = Script::opened(0.0);
    script.0.obey(order(Force::Observe), at(60.0), at(1.0));
    assert!(!script.refused(2.0));
    assert_eq!(script.0.would_be(), State::Open, "it goes on from where it was");
    script.0.pass_time(at(60.0), EVEN);
    assert_eq!(script.0.state(), State::Open);
}

#[test]
fn an_order_takes_the_trial_under_way_with_it() {
    for force in [Force::Open, Force::Closed] {
        let mut script = Script::opened(0.0);
        let trial = script.admit(15.0);
        script.0.obey(order(force), at(20.0), at(16.0));
        script.end(17.0, trial, FAILED);
        assert_eq!(script.work(20.0), State::Closed, "{force:?}");
    }
}

#[test]
fn memory_is_bounded_however_much_happens() {
    let mut script = Script::new(Settings::NOTIFIER);
    for n in 0..10_000u32 {
        script.call(f64::from(n), 1, if n % 7 < 4 { FAILED } else { Verdict::Worked });
    }
    assert_eq!((script.0.samples().count(), script.0.transitions().count()), (SAMPLES, TRANSITIONS));
    assert!(script.0.transitions().all(|transition| transition.samples.len() <= SAMPLES));
    assert!(script.0.changes() > TRANSITIONS as u64);
}

#[test]
fn time_that_seems_to_go_back_changes_nothing() {
    let mut script = Script::opened(100.0);
    assert!(script.refused(1.0), "two callers need not come in the order of their clocks");
    assert_eq!(script.0.open_until(), Some(at(115.0)));
    let trial = script.admit(115.0);
    script.end(114.0, trial, FAILED);
    assert_eq!(script.0.open_until(), Some(at(160.0)), "the trial was made in its time");
}

#[test]
fn a_breaker_that_was_open_before_a_restart_is_open() {
    let mut script = Script::new(Settings::NOTIFIER);
    script.0.resume_open(at(30.0), at(0.0));
    assert_eq!((script.0.state(), script.0.left_closed()), (State::Open, Some(at(0.0))));
    assert!(script.refused(29.0));
    script.work(30.0);
    assert_eq!(script.work(30.1), State::Closed);
}

/// opossum #57: half-open let every call through.
#[test]
fn half_open_lets_one_through_at_a_time() {
    let mut script = Script::opened(0.0);
    let trial = script.admit(15.0);
    for _ in 0..100 {
        assert!(script.refused(16.0));
    }
    script.end(17.0, trial, Verdict::Worked);
    let _second = script.admit(17.0);
    assert!(script.refused(17.0));
}

/// opossum #119: with few calls in the window it returned early, and a failed trial did not open it again.
#[test]
fn a_failed_trial_opens_it_however_few_calls_there_were() {
    let mut script = Script::opened(0.0);
    let trial = script.admit(10_000.0);
    script.end(10_000.0, trial, FAILED);
    assert_eq!((script.0.state(), script.0.open_until()), (State::Open, Some(at(10_045.0))));
}

/// opossum #276: an error that was filtered out ended the trial, and left the circuit half-open for ever.
#[test]
fn a_trial_that_says_nothing_makes_room_for_the_next() {
    let mut script = Script::opened(0.0);
    for n in 0..10 {
        assert_eq!(script.call(15.0 + f64::from(n), 1, Verdict::Ignored), State::HalfOpen);
    }
    script.work(30.0);
    assert_eq!(script.work(31.0), State::Closed);
}

/// opossum #385: failures that came together cancelled the timer that would have made it half-open.
#[test]
fn failures_that_come_together_open_it_once_and_its_time_stays() {
    let mut script = Script::new(Settings::NOTIFIER);
    let calls: Vec<_> = (0..50).map(|_| script.admit(0.0)).collect();
    for (n, ticket) in (0..).zip(calls) {
        script.end(1.0 + f64::from(n) / 10.0, ticket, FAILED);
    }
    assert_eq!((script.0.changes(), script.0.open_until()), (1, Some(at(16.2))));
    assert!(!script.refused(16.2));
}

/// opossum #388: under load, what had begun before the circuit closed opened it again.
#[test]
fn what_had_begun_before_it_closed_does_not_open_it() {
    let mut script = Script::new(Settings::NOTIFIER);
    let before: Vec<_> = (0..20).map(|_| script.admit(0.0)).collect();
    for second in [1.0, 2.0, 3.0] {
        script.fail(second);
    }
    let begun: Vec<_> = (0..20).map(|_| script.try_admit(4.0, Need::Begun, 1).unwrap()).collect();
    script.work(18.0);
    assert_eq!(script.work(18.0), State::Closed);
    for ticket in before.into_iter().chain(begun) {
        script.end(19.0, ticket, FAILED);
    }
    assert_eq!(script.fail(19.0), State::Closed);
    assert_eq!(script.fail(19.0), State::Closed);
    assert_eq!(script.fail(19.0), State::Open, "what began after it does");
}

/// opossum #484, and Polly: a call from before the trip that succeeded in half-open closed the circuit.
#[test]
fn a_success_from_before_the_trip_never_closes_it() {
    let mut script = Script::new(Settings::NOTIFIER);
    let before: Vec<_> = (0..10).map(|_| script.admit(0.0)).collect();
    for second in [1.0, 2.0, 3.0] {
        script.fail(second);
    }
    let _trial = script.admit(18.0);
    for ticket in before {
        script.end(19.0, ticket, Verdict::Worked);
        assert_eq!(script.0.state(), State::HalfOpen);
    }
}

/// resilience4j #903: the leave of a trial whose caller was cancelled never came back.
#[test]
fn a_trial_that_is_given_up_has_failed_and_its_leave_is_free() {
    let mut script = Script::opened(0.0);
    let trial = script.admit(15.0);
    script.0.cancel(trial, "token".into(), at(16.0), EVEN);
    assert_eq!((script.0.state(), script.0.open_until()), (State::Open, Some(at(61.0))));
    script.work(61.0);
    assert_eq!(script.work(61.0), State::Closed);

    let mut closed = Script::new(Settings::NOTIFIER);
    for second in 0..20 {
        let ticket = closed.admit(f64::from(second));
        closed.0.cancel(ticket, "token".into(), at(f64::from(second)), EVEN);
    }
    assert_eq!(closed.0.state(), State::Closed, "that a run was cut says nothing of the system");
}

/// resilience4j #935: a trial that never ended held its leave for ever.
#[test]
fn a_trial_without_an_answer_ends_at_its_deadline() {
    let mut script = Script::opened(0.0);
    let trial = script.admit(15.0);
    assert_eq!(script.0.deadline(), Some(at(25.0)));
    assert!(script.refused(24.9));
    script.0.pass_time(at(25.0), EVEN);
    assert_eq!((script.0.state(), script.0.open_until()), (State::Open, Some(at(70.0))));
    script.end(26.0, trial, Verdict::Worked);
    assert_eq!(script.0.state(), State::Open, "its answer comes too late to say anything");
}

/// resilience4j #2093: in half-open, an error that does not count kept its leave.
#[test]
fn calls_that_do_not_count_keep_no_leave() {
    let mut script = Script::opened(0.0);
    script.work(15.0);
    for n in 0..100 {
        script.call(16.0 + f64::from(n), 1, Verdict::Ignored);
    }
    assert_eq!(script.work(200.0), State::Closed, "and the success before them still counts");
}
