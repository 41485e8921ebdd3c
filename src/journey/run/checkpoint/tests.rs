//! Scripted restarts: where a run was left, how long nobody was there, what is found then, and what the run makes of it.

use super::*;
use crate::journey::expect::{Comparison, JsonPath, Query};
use crate::journey::outcome::Outcome;
use crate::journey::report::Report;
use crate::journey::run::tests::{Stage, expect, failed, journey, now, receive, request, send, step};
use crate::journey::run::{Event, Reply};
use crate::journey::value::Value;
use crate::journey::{Poll, Receive, Step};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A clock of another process: the wall goes on, and its own time began anew a second before the run is gone on with at `woke`.
#[derive(Clone, Copy)]
struct Anew {
    woke: u64,
}

impl Anew {
    fn now(self, millis: u64) -> Now {
        Now { wall: now(millis).wall, mono: Mono(Duration::from_millis(1_000 + millis - self.woke)) }
    }
}

/// A run that another process goes on with.
struct Second {
    run: Run,
    clock: Anew,
    actions: Vec<Action>,
}

impl Second {
    /// Goes on at `woke` with what `stage` is at `left`; by then the other process was at work until `alive`.
    fn of(stage: &Stage, left: u64, alive: u64, woke: u64) -> Second {
        let kept = stage.run.checkpoint(Purpose::Slot, now(left)).expect("there is something to go on with");
        let text = serde_json::to_string(&kept).unwrap();
        let read: Checkpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(read, kept, "{text}");
        assert!(read.fits(stage.run.journey()));
        let clock = Anew { woke };
        let mut run = Run::resume(stage.run.journey.clone(), read, now(alive).wall, clock.now(woke), 2);
        let actions = run.step(Event::Begin, clock.now(woke));
        assert!(
            matches!(actions[..], [Action::AwaitReady(_)]),
            "receivers are proven before anything else: {actions:?}"
        );
        Second { run, clock, actions }
    }

    fn event(&mut self, millis: u64, event: Event) -> &mut Self {
        self.actions = self.run.step(event, self.clock.now(millis));
        self
    }

    fn ready(&mut self, millis: u64) -> &mut Self {
        self.event(millis, Event::Ready)
    }

    /// What is pushed to the receiver while nobody is there is gone.
    fn blind(&mut self, millis: u64) -> &mut Self {
        let why = "the daemon was restarted".to_owned();
        self.event(millis, Event::Gap { channel: "inbound".into(), fault: UnknownWhy::Restart, why })
    }

    fn arrival(&mut self, millis: u64, message: Message) -> &mut Self {
        let at = self.clock.now(millis);
        self.event(millis, Event::Arrived { channel: "inbound".into(), message: Arc::new(message), at })
    }

    /// One that the process before had acknowledged.
    fn journalled(&mut self, stamp: u64, millis: u64, body: &str) -> &mut Self {
        let at = Now { wall: now(stamp).wall, mono: Mono::default() };
        self.event(millis, Event::Arrived { channel: "inbound".into(), message: Arc::new(Message::new(body)), at })
    }

    fn answer(&mut self, from: u64, to: u64, body: &str) -> &mut Self {
        let mut message = Message::new(body);
        message.status = Some(200);
        let (started, finished) = (self.clock.now(from), self.clock.now(to));
        let reply = Reply { started, finished, ack: "200".to_owned(), message: Some(message), phases: Vec::new() };
        self.event(to, Event::Answered(Box::new(Ok(reply))))
    }

    /// When its timer is due, in milliseconds of the script.
    fn due(&self) -> u64 {
        let due = self.run.deadline().expect("a timer is wanted").0;
        due.as_millis() as u64 + self.clock.woke - 1_000
    }

    fn timer(&mut self) -> &mut Self {
        let due = self.due();
        self.event(due, Event::Timer)
    }

    fn report(&mut self) -> Report {
        match self.actions.pop() {
            Some(Action::Finish(report)) => *report,
            other => panic!("not finished: {other:?}"),
        }
    }
}

/// Sent at 0 ms, acknowledged at 100 ms; budget 5 s, deadline 60 s.
fn waiting() -> Stage {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    stage.answer(0, 100, 200, "");
    assert!(matches!(stage.actions[..], [Action::Keep]), "its wait is worth keeping: {:?}", stage.actions);
    stage
}

fn stored(millis: u64, body: &str) -> Message {
    let mut message = Message::new(body);
    message.stored = Some(now(millis).wall);
    message
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: UnknownWhy::Restart }
}

fn captured(mut step: Step, name: &str) -> Step {
    step.capture = vec![(name.to_owned(), Query::Json(JsonPath::parse("$.id").unwrap()))];
    step
}

#[test]
fn every_state_is_read_back_as_it_was_written() {
    let mut fan_out =
        Stage::started(journey(vec![captured(send(), "sid"), receive(), receive_again(), request("ask")]));
    let mut states = vec![fan_out.run.checkpoint(Purpose::Slot, now(1))];
    fan_out.answer(0, 100, 200, r#"{"id":"7"}"#);
    states.push(fan_out.run.checkpoint(Purpose::Confirmation, now(100)));
    fan_out.arrival(200, 201, "first");
    states.push(fan_out.run.checkpoint(Purpose::Asked { by: "ada".to_owned() }, now(300)));
    let why = "lost".to_owned();
    fan_out.event(350, Event::Gap { channel: "inbound".into(), fault: UnknownWhy::NotReady, why });
    states.push(fan_out.run.checkpoint(Purpose::Repetition, now(360)));
    fan_out.arrival(400, 401, "second");
    states.push(fan_out.run.checkpoint(Purpose::Slot, now(402)));
    assert!(matches!(states[4].as_ref().unwrap().place, Place::Acting { index: 3 }));

    let mut paused = Stage::started(journey(vec![step("calm", Verb::Pause(seconds(3))), send(), receive()]));
    states.push(paused.run.checkpoint(Purpose::Slot, now(5)));
    assert!(matches!(states[5].as_ref().unwrap().place, Place::Pausing { index: 0, .. }));
    let mut ask = request("ask");
    ask.poll = Some(Poll { every: seconds(1), within: seconds(30) });
    ask.expect = vec![expect(Query::Status, Comparison::Equals, Value::from(200))];
    let mut polling = Stage::started(journey(vec![send(), ask, receive()]));
    polling.answer(0, 10, 200, "");
    states.push(polling.run.checkpoint(Purpose::Slot, now(11)));
    polling.answer(11, 20, 404, "");
    states.push(polling.run.checkpoint(Purpose::Slot, now(21)));
    assert!(matches!(states[7].as_ref().unwrap().place, Place::Polling { index: 1, .. }));

    for state in states {
        let state = state.expect("there is something to go on with");
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), state, "{text}");
    }
    let simple = serde_json::to_string(&waiting().run.checkpoint(Purpose::Slot, now(100))).unwrap();
    assert!(simple.len() < 1_024, "a small row: {simple}");

    assert!(Stage::new(journey(vec![send(), receive()])).run.checkpoint(Purpose::Slot, now(0)).is_none(), "not begun");
    paused.event(10, Event::Cancelled);
    assert!(paused.run.checkpoint(Purpose::Slot, now(10)).is_none(), "over");
}

fn receive_again() -> Step {
    step("again", Verb::Receive(Receive { channel: "inbound".into(), since: 0, filter: Vec::new(), key: None }))
}

#[test]
fn what_is_left_to_wait_is_never_more_and_never_less_than_nothing() {
    let cases = [
        // left, woke, due: the deadline is at 60 s, and its reader has 5 ms.
        (100, 2_000, 60_005),
        (30_000, 59_900, 59_900 + 2_000),
        (30_000, 90_000, 90_000 + 2_000),
    ];
    for (left, woke, due) in cases {
        let mut second = Second::of(&waiting(), left, left, woke);
        second.ready(woke);
        assert_eq!(second.due(), due, "left at {left}, woken at {woke}");
    }
    // The wall clock was set back by 20 s meanwhile: what was left then is what is left now.
    let mut second = Second::of(&waiting(), 30_000, 30_000, 10_000);
    second.ready(10_000);
    assert_eq!(second.due(), 10_000 + 30_005);
}

#[test]
fn a_message_that_came_before_the_end_has_its_own_time() {
    // The deadline has passed meanwhile.
    for woke in [9_000, 90_000] {
        let mut second = Second::of(&waiting(), 100, 100, woke);
        let report = second.blind(woke).ready(woke).journalled(700, woke, "hello").report();
        assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(700) });
        assert_eq!(report.steps[1].status, StepStatus::Passed, "nothing about it is in doubt");
    }
}

#[test]
fn over_a_restart_latency_is_an_interval_and_only_what_is_proven_slow_is() {
    let mut second = Second::of(&waiting(), 100, 2_100, 9_000);
    let report = second.ready(9_000).arrival(9_500, Message::new("hello")).report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(2_100) }, "it took that at least");
    let said = report.steps[1].summary();
    assert_eq!(said, "measured over a restart: it took at least 2.1s and at most 9.5s");
    assert_eq!(report.steps[1].status, StepStatus::Warned);

    // Its reader was quicker than the run.
    let mut second = Second::of(&waiting(), 100, 2_100, 9_000);
    let report = second.arrival(8_900, Message::new("hello")).ready(9_000).report();
    assert_eq!(report.outcome.latency(), Some(Duration::from_millis(2_100)));

    let mut second = Second::of(&waiting(), 100, 6_000, 9_000);
    let report = second.ready(9_000).arrival(9_500, Message::new("hello")).report();
    assert_eq!(report.outcome, Outcome::Slow { latency: Duration::from_millis(6_000) });
}

#[test]
fn the_systems_own_time_is_proof_as_far_as_it_is_possible() {
    let cases = [(4_000, 4_000), (6_000, 6_000), (50, 2_100), (99_000, 9_500)];
    for (claimed, latency) in cases {
        let mut second = Second::of(&waiting(), 100, 2_100, 9_000);
        let report = second.ready(9_000).arrival(9_500, stored(claimed, "hello")).report();
        assert_eq!(report.outcome.latency(), Some(Duration::from_millis(latency)), "stored at {claimed}");
    }
}

#[test]
fn what_came_in_time_is_in_time_however_late_it_is_seen() {
    // Nobody was there when the deadline passed.
    let mut second = Second::of(&waiting(), 100, 50_000, 90_000);
    let report = second.ready(90_000).arrival(91_000, stored(58_000, "hello")).report();
    assert_eq!(report.outcome.latency(), Some(seconds(58)));
    let mut second = Second::of(&waiting(), 100, 50_000, 90_000);
    second.ready(90_000).arrival(91_000, stored(61_000, "hello"));
    assert_eq!(second.timer().report().outcome, failed("arrive", Cause::NotReceived), "it came too late");
}

#[test]
fn that_nothing_came_proves_loss_only_where_what_comes_is_kept() {
    let mut second = Second::of(&waiting(), 100, 100, 2_000);
    second.ready(2_000).event(59_000, Event::Timer);
    assert!(second.actions.is_empty(), "not yet");
    assert_eq!(second.timer().report().outcome, failed("arrive", Cause::NotReceived));

    let mut second = Second::of(&waiting(), 100, 100, 2_000);
    let report = second.blind(2_000).ready(2_000).timer().report();
    assert_eq!(report.outcome, unknown());
    assert!(report.note.unwrap().contains("the daemon was restarted"));

    // The wait was over before the process was.
    let mut second = Second::of(&waiting(), 60_001, 60_001, 62_000);
    assert_eq!(second.blind(62_000).ready(62_000).timer().report().outcome, failed("arrive", Cause::NotReceived));

    let mut second = Second::of(&waiting(), 100, 100, 2_000);
    let not_ready = Event::NotReady { channel: "inbound".into(), why: "no broker".to_owned(), is_known_down: true };
    second.event(7_000, not_ready);
    let report = second.timer().report();
    assert_eq!(report.outcome, Outcome::Unknown { why: UnknownWhy::NotReady });
}

#[test]
fn a_send_that_may_have_left_is_proven_by_its_arrival_and_by_nothing_else() {
    let begun = || Stage::started(journey(vec![send(), receive()]));
    let mut second = Second::of(&begun(), 50, 50, 2_000);
    let report = second.blind(2_000).ready(2_000).arrival(2_500, Message::new("hello")).report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
    assert_eq!(report.steps[0].status, StepStatus::Warned);
    assert!(report.steps[0].summary().contains("nobody knows whether it left"));
    let mut second = Second::of(&begun(), 50, 50, 2_000);
    second.ready(2_000);
    assert_eq!(second.due(), 60_005, "counted from when it was to be sent");
    assert_eq!(second.timer().report().outcome, unknown(), "perhaps nothing was sent");
}

#[test]
fn what_was_asked_before_the_first_send_is_not_asked_again() {
    let mut tidy = request("tidy");
    tidy.always = true;
    let stage = Stage::started(journey(vec![request("login"), send_after(), receive_since(1), tidy]));
    let mut second = Second::of(&stage, 50, 50, 2_000);
    second.ready(2_000);
    assert!(matches!(&second.actions[0], Action::Perform { .. }), "clean-up is left to do: {:?}", second.actions);
    let report = second.answer(2_000, 2_010, "").report();
    assert_eq!(report.outcome, unknown());
    let done: Vec<_> = report.steps.iter().map(|step| step.status).collect();
    assert_eq!(done, [StepStatus::Skipped, StepStatus::Skipped, StepStatus::Skipped, StepStatus::Passed]);
}

fn send_after() -> Step {
    Step { name: "submit".into(), ..send() }
}

fn receive_since(since: usize) -> Step {
    step("arrive", Verb::Receive(Receive { channel: "inbound".into(), since, filter: Vec::new(), key: None }))
}

#[test]
fn a_step_after_a_wait_that_was_cut_is_not_done_twice() {
    let mut tidy = request("tidy");
    tidy.always = true;
    let mut stage = Stage::started(journey(vec![send(), receive(), request("confirm"), tidy]));
    stage.answer(0, 100, 200, "");
    stage.arrival(200, 201, "hello");
    assert!(stage.actions.iter().any(|action| matches!(action, Action::Keep)), "{:?}", stage.actions);
    let mut second = Second::of(&stage, 250, 250, 2_000);
    second.ready(2_000);
    let report = second.answer(2_000, 2_010, "").report();
    assert_eq!((&report.outcome, report.steps[2].status), (&unknown(), StepStatus::Warned));
    assert_eq!(report.steps[3].status, StepStatus::Passed, "clean-up runs whatever happened");

    // A second message may have left: its arrival says so.
    let steps = vec![
        send(),
        receive(),
        Step { name: "more".into(), ..send() },
        Step { name: "there".into(), ..receive_since(2) },
    ];
    let mut stage = Stage::started(journey(steps));
    stage.answer(0, 100, 200, "");
    stage.arrival(200, 201, "hello");
    let mut second = Second::of(&stage, 250, 250, 2_000);
    let report = second.ready(2_000).arrival(2_100, Message::new("and more")).report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
}

#[test]
fn what_begins_after_a_restart_has_its_whole_time_and_is_measured_by_one_clock() {
    let steps = vec![
        send(),
        receive(),
        Step { name: "more".into(), ..send() },
        Step { name: "there".into(), ..receive_since(2) },
    ];
    let mut stage = Stage::started(journey(steps));
    stage.answer(0, 100, 200, "");
    // Nobody is there for two minutes; the message has waited.
    let mut second = Second::of(&stage, 10_000, 10_000, 130_000);
    second.ready(130_000).arrival(130_500, stored(11_000, "hello"));
    assert!(matches!(&second.actions[0], Action::Perform { outgoing, .. } if outgoing.timeout >= seconds(9)));
    second.answer(130_600, 130_700, "");
    assert!(second.due() >= 130_600 + 48_000, "{}", second.due());
    let report = second.arrival(131_000, Message::new("and more")).report();
    assert_eq!(report.steps[3].took, Duration::from_millis(400));
    assert_eq!((report.steps[3].status, report.steps[3].detail.as_deref()), (StepStatus::Passed, None));
}

#[test]
fn what_had_come_is_not_counted_again_when_it_is_handed_out_again() {
    let mut twice = receive();
    twice.expect = vec![expect(Query::Copies, Comparison::Equals, Value::from(2))];
    let mut stage = Stage::started(journey(vec![send(), twice]));
    stage.answer(0, 100, 200, "");
    stage.arrival(200, 201, "hello");
    let mut second = Second::of(&stage, 300, 300, 2_000);
    second.ready(2_000).arrival(2_100, Message::new("hello"));
    assert!(second.actions.is_empty(), "the one of before");
    let report = second.arrival(2_200, Message::new("hello")).report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
}

#[test]
fn secrets_are_hidden_in_what_is_shown_and_never_written_in_what_is_used() {
    let redact = |text: &str| text.contains("hunter2").then(|| text.replace("hunter2", "•••"));
    let mut stage = Stage::started(journey(vec![captured(send(), "sid"), receive(), receive_again()]));
    stage.answer(0, 100, 200, r#"{"id":"7","echo":"hunter2"}"#);
    stage.arrival(200, 201, "hunter2 came");
    let kept = stage.run.checkpoint(Purpose::Slot, now(300)).unwrap();
    assert!(serde_json::to_string(&kept).unwrap().contains("hunter2"));
    let clean = kept.redacted(redact).expect("it can be written");
    assert!(!serde_json::to_string(&clean).unwrap().contains("hunter2"));

    let mut stage = Stage::started(journey(vec![captured(send(), "sid"), receive()]));
    stage.answer(0, 100, 200, r#"{"id":"hunter2"}"#);
    assert_eq!(stage.run.checkpoint(Purpose::Slot, now(300)).unwrap().redacted(redact), None);
}
