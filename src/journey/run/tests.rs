//! Scripted runs: what arrives when, and what the run makes of it.

use super::*;
use crate::journey::Receive;
use crate::journey::expect::Query;
use crate::journey::expect::{Comparison, Expectation, Expected, JsonPath, Predicate};
use crate::journey::message::{Part, Trouble};
use crate::journey::schedule::Schedule;
use crate::journey::seen::What;
use crate::journey::template::Template;
use crate::journey::token::Mint;
use crate::journey::value::Value;
use crate::journey::{AlertPolicy, Draft, JsonTemplate, Payload, Poll};

pub(super) fn now(millis: u64) -> Now {
    Now {
        wall: Timestamp::from_millisecond(1_790_000_000_000 + millis as i64).unwrap(),
        mono: Mono(Duration::from_millis(millis)),
    }
}

pub(super) fn expect(query: Query, comparison: Comparison, value: Value) -> Expectation {
    let predicate = Predicate::Compare(comparison, Expected::Fixed(value));
    Expectation { query, predicate, message: None, soft: false }
}

pub(super) fn step(name: &str, verb: Verb) -> Step {
    Step {
        name: name.into(),
        verb,
        budget: None,
        timeout: None,
        always: false,
        soft: false,
        when: None,
        expect: Vec::new(),
        capture: Vec::new(),
        poll: None,
    }
}

pub(super) fn draft(channel: &str) -> Draft {
    let known = ["sid".to_owned()].into();
    let token = JsonTemplate::Text(Template::parse("probe {{ token }}", &known).unwrap());
    Draft {
        channel: channel.into(),
        payload: Payload::Json(JsonTemplate::Object(vec![("text".to_owned(), token)])),
        ..Draft::default()
    }
}

pub(super) fn send() -> Step {
    step("submit", Verb::Send(Box::new(draft("gateway"))))
}

pub(super) fn receive() -> Step {
    step("arrive", Verb::Receive(Receive { channel: "inbound".into(), since: 0, filter: Vec::new(), key: None }))
}

pub(super) fn request(name: &str) -> Step {
    step(name, Verb::Request(Box::new(draft("gateway"))))
}

pub(super) fn journey(steps: Vec<Step>) -> Journey {
    Journey {
        name: "sms".into(),
        schedule: Schedule::every(Duration::from_secs(60), "sms"),
        budget: Some(Duration::from_secs(5)),
        deadline: Duration::from_secs(60),
        late: Duration::from_secs(600),
        objective: None,
        alert: AlertPolicy {
            down_after: 3,
            confirm: Vec::new(),
            partial: true,
            drift: true,
            flapping: true,
            slow_after: 3,
            recover_after: 2,
            remind: None,
        },
        notify: Vec::new(),
        owner: None,
        runbook: None,
        labels: Default::default(),
        depends_on: Vec::new(),
        muted: false,
        critical: false,
        steps,
        maintenance: Vec::new(),
        unavailable: None,
        vantage: None,
        defined_at: String::new(),
        fingerprint: String::new(),
    }
}

/// A run on a script. Begun, ready and recorded at 0 ms unless a test says otherwise.
pub(super) struct Stage {
    pub(super) run: Run,
    pub(super) actions: Vec<Action>,
}

impl Stage {
    pub(super) fn new(journey: Journey) -> Stage {
        let token = Mint::new([1; 32], 0).issue(now(0).wall);
        let mut run = Run::new(Arc::new(journey), token, now(0).wall, now(0), 1);
        let actions = run.step(Event::Begin, now(0));
        Stage { run, actions }
    }

    pub(super) fn started(journey: Journey) -> Stage {
        let mut stage = Stage::new(journey);
        if matches!(stage.actions[..], [Action::AwaitReady(_)]) {
            stage.event(0, Event::Ready);
            assert!(matches!(stage.actions[..], [Action::Record]), "the token is recorded before anything is sent");
            stage.event(0, Event::Recorded);
        }
        stage
    }

    pub(super) fn event(&mut self, millis: u64, event: Event) -> &mut Self {
        self.actions = self.run.step(event, now(millis));
        self
    }

    /// The channel's answer: it began at `from`, ended at `to`.
    pub(super) fn answer(&mut self, from: u64, to: u64, status: u16, body: &str) -> &mut Self {
        let mut message = Message::new(body);
        message.status = Some(status);
        let reply = Reply {
            started: now(from),
            finished: now(to),
            ack: status.to_string(),
            message: Some(message),
            phases: Vec::new(),
        };
        self.event(to, Event::Answered(Box::new(Ok(reply))))
    }

    pub(super) fn fault(&mut self, from: u64, to: u64, cause: Cause, uncertain: bool) -> &mut Self {
        let detail = "it broke".to_owned();
        let fault = Fault { started: now(from), finished: now(to), cause, detail, uncertain, phases: Vec::new() };
        self.event(to, Event::Answered(Box::new(Err(fault))))
    }

    /// A message stamped at `stamp`, seen at `seen`.
    pub(super) fn arrival(&mut self, stamp: u64, seen: u64, body: &str) -> &mut Self {
        let event = Event::Arrived { channel: "inbound".into(), message: Arc::new(Message::new(body)), at: now(stamp) };
        self.event(seen, event)
    }

    /// Lets the timer that the run asked for fire.
    pub(super) fn timer(&mut self) -> &mut Self {
        let due = self.run.deadline().expect("a timer is wanted").0.as_millis() as u64;
        self.event(due, Event::Timer)
    }

    pub(super) fn report(&mut self) -> Report {
        match self.actions.pop() {
            Some(Action::Finish(report)) => *report,
            other => panic!("not finished: {other:?}"),
        }
    }
}

pub(super) fn failed(step: &str, cause: Cause) -> Outcome {
    Outcome::Failed { step: step.into(), cause }
}

fn lost(channel: &str, why: &str) -> Event {
    Event::Gap { channel: channel.into(), fault: UnknownWhy::NotReady, why: why.to_owned() }
}

fn met(channel: &str, what: What, is: &str) -> Event {
    Event::Met { channel: channel.into(), seen: vec![Seen::new(what, is)] }
}

#[test]
fn what_was_met_belongs_to_the_step_in_hand_and_what_readers_met_to_their_receives() {
    let steps = vec![send(), receive(), request("ask")];
    let token = Mint::new([1; 32], 0).issue(now(0).wall);
    let journey = Journey { fingerprint: "1a2b3c".to_owned(), ..journey(steps) };
    let mut run = Run::new(Arc::new(journey), token, now(0).wall, now(0), 1);
    let _ = run.step(Event::Begin, now(0));
    let _ = run.step(met("inbound", What::Banner, "reader"), now(0));
    let _ = run.step(met("gateway", What::Banner, "nobody's"), now(0));
    let _ = run.step(Event::Ready, now(0));
    let _ = run.step(Event::Recorded, now(0));
    let _ = run.step(met("gateway", What::Peer, "first"), now(1));
    let _ = run.step(met("gateway", What::Peer, "second"), now(1));
    let _ = run.step(met("gateway", What::Server, "nginx"), now(1));
    let _ = run.step(met("inbound", What::Server, "another's"), now(1));
    let actions = run.step(Event::Cancelled, now(2));
    let Some(Action::Finish(report)) = actions.into_iter().last() else { panic!("it is over") };
    let seen = |index: usize| -> Vec<(What, String)> {
        report.steps[index].seen.iter().map(|seen| (seen.what, seen.is.to_string())).collect()
    };
    assert_eq!(seen(0), [(What::Peer, "second".to_owned()), (What::Server, "nginx".to_owned())]);
    assert_eq!(seen(1), [(What::Banner, "reader".to_owned())]);
    assert_eq!(seen(2), []);
    assert_eq!((report.configuration.as_str(), report.version.as_str()), ("1a2b3c", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_round_trip_is_measured_from_the_send_to_the_readers_stamp() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let [Action::Perform { outgoing, .. }] = &stage.actions[..] else { panic!("{:?}", stage.actions) };
    assert!(String::from_utf8_lossy(&outgoing.body).contains(&stage.run.token.to_string()));
    // 30 ms passed until the send began (a rate limit), 20 ms until it was acknowledged; it was there at 1,030 ms, seen at 1,100.
    let report = stage.answer(30, 50, 202, "").arrival(1_030, 1_100, "hi").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(1_000) });
    assert_eq!(report.steps[1].took, Duration::from_millis(1_000));
    assert_eq!(report.steps[0].took, Duration::from_millis(20));
    assert_eq!(report.steps[0].at, Duration::ZERO);
}

#[test]
fn an_arrival_may_be_quicker_than_the_acknowledgement() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.arrival(10, 10, "hi").answer(0, 500, 202, "").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(10) });
}

#[test]
fn over_the_budget_is_slow_and_so_is_a_step_over_its_own() {
    let report =
        Stage::started(journey(vec![send(), receive()])).answer(0, 5, 202, "").arrival(5_001, 5_001, "").report();
    assert_eq!(report.outcome, Outcome::Slow { latency: Duration::from_millis(5_001) });
    let tight = Step { budget: Some(Duration::from_millis(100)), ..receive() };
    let report = Stage::started(journey(vec![send(), tight])).answer(0, 5, 202, "").arrival(101, 101, "").report();
    assert_eq!(report.outcome, Outcome::Slow { latency: Duration::from_millis(101) });
    assert_eq!(report.steps[1].status, StepStatus::Slow);
}

#[test]
fn exactly_at_the_deadline_is_in_time_also_if_we_see_it_a_moment_later() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").arrival(60_000, 60_004, "hi").report();
    assert_eq!(report.outcome, Outcome::Slow { latency: Duration::from_secs(60) });
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").arrival(60_001, 60_004, "hi").timer().report();
    assert_eq!(report.outcome, failed("arrive", Cause::NotReceived));
}

#[test]
fn what_does_not_come_is_not_received() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").timer().report();
    assert_eq!(report.outcome, failed("arrive", Cause::NotReceived));
    assert_eq!(report.steps[1].detail.as_deref(), Some("not received within 1m"));
}

#[test]
fn a_send_that_is_refused_fails_there_and_later_steps_are_not_reached() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 503, "").report();
    assert_eq!(report.outcome, failed("submit", Cause::Rejected));
    assert_eq!(report.steps[1].status, StepStatus::Skipped);
    let report = Stage::started(journey(vec![send(), receive()])).fault(0, 5, Cause::Unreachable, false).report();
    assert_eq!(report.outcome, failed("submit", Cause::Unreachable));
}

#[test]
fn an_uncertain_send_is_decided_by_what_arrives() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.fault(0, 900, Cause::Unreachable, true).arrival(950, 950, "hi").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(950) });
    assert_eq!(report.steps[0].status, StepStatus::Warned);
    let report =
        Stage::started(journey(vec![send(), receive()])).fault(0, 900, Cause::Unreachable, true).timer().report();
    assert_eq!(report.outcome, failed("arrive", Cause::Uncertain));
    let report = Stage::started(journey(vec![send()])).fault(0, 900, Cause::Unreachable, true).report();
    assert_eq!(report.outcome, failed("submit", Cause::Uncertain), "nothing else can tell");
}

#[test]
fn a_send_without_an_answer_is_abandoned_at_its_limit() {
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    stage.timer();
    assert!(matches!(stage.actions[..], [Action::Abandon, Action::Keep]), "{:?}", stage.actions);
    let report = stage.arrival(10_500, 10_500, "hi").report();
    assert!(matches!(report.outcome, Outcome::Slow { .. }), "{:?}", report.outcome);
}

#[test]
fn what_comes_is_checked() {
    let to = expect(Query::Form("To".into()), Comparison::Equals, Value::from("+44"));
    let checked = Step { expect: vec![to], ..receive() };
    let good =
        Stage::started(journey(vec![send(), checked.clone()])).answer(0, 5, 202, "").arrival(9, 9, "To=%2B44").report();
    assert!(matches!(good.outcome, Outcome::Good { .. }));
    let report =
        Stage::started(journey(vec![send(), checked])).answer(0, 5, 202, "").arrival(9, 9, "To=%2B49").report();
    assert_eq!(report.outcome, failed("arrive", Cause::Mismatch));
    assert_eq!(report.steps[1].detail.as_deref(), Some("form \"To\" equals \"+44\", found \"+49\""));
}

#[test]
fn a_copy_that_comes_before_the_run_ends_is_a_duplicate() {
    let once = Step { expect: vec![expect(Query::Copies, Comparison::Equals, Value::from(1))], ..receive() };
    let mut stage = Stage::started(journey(vec![send(), once.clone(), request("after")]));
    stage.answer(0, 5, 202, "").arrival(9, 9, "hi").arrival(11, 11, "hi");
    let report = stage.answer(10, 20, 200, "").report();
    assert_eq!(report.outcome, failed("arrive", Cause::Duplicate));
    let twice = Step { expect: vec![expect(Query::Copies, Comparison::Equals, Value::from(2))], ..receive() };
    let mut stage = Stage::started(journey(vec![send(), twice]));
    let report = stage.answer(0, 5, 202, "").arrival(9, 9, "hi").arrival(15, 15, "hi").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(15) });
}

/// The receipts of a text in two parts: one that failed is the answer, whatever comes of the other.
#[test]
fn an_arrival_that_stands_for_a_failure_settles_its_step_at_once() {
    use crate::journey::message::{Part, Trouble};
    let message = |index, cause: Option<Cause>| {
        let mut message = Message::new("");
        message.part = Some(Part { index, of: 2 });
        message.trouble = cause.map(|cause| Box::new(Trouble { cause, detail: "undeliverable".to_owned() }));
        message
    };
    let arrive = |stage: &mut Stage, millis: u64, message: Message| {
        let event = Event::Arrived { channel: "inbound".into(), message: Arc::new(message), at: now(millis) };
        stage.event(millis, event);
    };
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    stage.answer(0, 5, 202, "");
    arrive(&mut stage, 7, message(0, Some(Cause::Rejected)));
    assert_eq!(stage.report().outcome, failed("arrive", Cause::Rejected));
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    stage.answer(0, 5, 202, "");
    arrive(&mut stage, 7, message(0, None));
    arrive(&mut stage, 9, message(1, None));
    assert_eq!(stage.report().outcome, Outcome::Good { latency: Duration::from_millis(9) });
}

#[test]
fn filters_tell_messages_of_one_channel_apart() {
    let of = |kind: &str, name: &str| {
        let filter = vec![expect(Query::Form("kind".into()), Comparison::Equals, Value::from(kind))];
        step(name, Verb::Receive(Receive { channel: "inbound".into(), since: 0, filter, key: None }))
    };
    let mut stage = Stage::started(journey(vec![send(), of("sms", "arrive"), of("receipt", "receipt")]));
    stage.answer(0, 5, 202, "").arrival(7, 7, "kind=receipt");
    let report = stage.arrival(30, 30, "kind=sms").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(30) });
    assert_eq!(report.steps[2].took, Duration::from_millis(7), "its own stamp counts, though it was asked for later");
}

#[test]
fn captures_are_used_and_a_missing_one_fails_where_it_is_taken() {
    let sid = Query::Json(JsonPath::parse("$.sid").unwrap());
    let submit = Step { capture: vec![("sid".to_owned(), sid)], ..send() };
    let mut look = request("look");
    let Verb::Request(draft) = &mut look.verb else { panic!() };
    draft.path = Some(Template::parse("/{{ sid }}", &["sid".to_owned()].into()).unwrap());
    let mut stage = Stage::started(journey(vec![submit.clone(), look.clone()]));
    stage.answer(0, 5, 202, r#"{"sid":"SM 1"}"#);
    let [Action::Perform { outgoing, act: Act::Request, .. }] = &stage.actions[..] else {
        panic!("{:?}", stage.actions)
    };
    assert_eq!(outgoing.path.as_deref(), Some("/SM%201"));
    let report = Stage::started(journey(vec![submit, look])).answer(0, 5, 202, "{}").report();
    assert_eq!(report.outcome, failed("submit", Cause::Mismatch));
}

#[test]
fn a_poll_goes_on_until_it_holds_or_its_time_is_over() {
    let poll = Some(Poll { every: Duration::from_millis(500), within: Duration::from_secs(2) });
    let done = expect(Query::Body, Comparison::Equals, Value::from("done"));
    let polled = Step { poll, expect: vec![done], ..request("receipt") };
    let mut stage = Stage::started(journey(vec![polled.clone()]));
    stage.answer(0, 10, 200, "queued").timer().answer(510, 520, 200, "queued").timer();
    let report = stage.answer(1_020, 1_030, 200, "done").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(1_030) });
    let mut stage = Stage::started(journey(vec![polled]));
    for attempt in 0..3 {
        stage.answer(attempt * 510, attempt * 510 + 10, 200, "queued").timer();
    }
    let report = stage.answer(1_530, 1_540, 200, "queued").report();
    assert_eq!(report.outcome, failed("receipt", Cause::Mismatch));
}

#[test]
fn clean_up_runs_whatever_happened_and_only_warns() {
    let tidy = Step { always: true, ..request("tidy") };
    let mut stage = Stage::started(journey(vec![send(), receive(), tidy.clone()]));
    stage.answer(0, 5, 202, "").timer();
    assert!(matches!(stage.actions[..], [Action::Perform { .. }, Action::Keep]), "{:?}", stage.actions);
    let report = stage.answer(60_010, 60_020, 500, "").report();
    assert_eq!(report.outcome, failed("arrive", Cause::NotReceived));
    assert_eq!(report.steps[2].status, StepStatus::Warned);
    let mut stage = Stage::started(journey(vec![send(), receive(), tidy]));
    stage.answer(0, 5, 202, "").arrival(9, 9, "");
    let report = stage.answer(10, 9_000, 204, "").report();
    assert_eq!(
        report.outcome,
        Outcome::Good { latency: Duration::from_millis(9) },
        "clean-up is not the system's latency"
    );
}

#[test]
fn soft_steps_warn_and_conditions_skip() {
    let soft = Step { soft: true, ..request("extra") };
    let never = Step { when: Some(Template::literal("false")), ..request("never") };
    let mut stage = Stage::started(journey(vec![soft, never, request("main")]));
    stage.answer(0, 5, 500, "");
    let report = stage.answer(6, 10, 200, "").report();
    assert!(matches!(report.outcome, Outcome::Good { .. }));
    let statuses: Vec<_> = report.steps.iter().map(|step| step.status).collect();
    assert_eq!(statuses, [StepStatus::Warned, StepStatus::Skipped, StepStatus::Passed]);
}

#[test]
fn soft_expectations_warn() {
    let created = Expectation { soft: true, ..expect(Query::Status, Comparison::Equals, Value::from(201)) };
    let lax = Step { expect: vec![created], ..request("lax") };
    let report = Stage::started(journey(vec![lax])).answer(0, 5, 200, "").report();
    assert!(matches!(report.outcome, Outcome::Good { .. }));
    assert_eq!(report.steps[0].status, StepStatus::Warned);
}

#[test]
fn a_report_says_how_late_after_its_slot_the_run_was_made() {
    let token = Mint::new([1; 32], 0).issue(now(0).wall);
    let mut run = Run::new(Arc::new(journey(vec![request("main")])), token, now(0).wall, now(40), 1);
    let _ = run.step(Event::Begin, now(50));
    let report = Stage { actions: run.step(Event::Cancelled, now(60)), run }.report();
    assert_eq!(report.lateness, Duration::from_millis(40));
}

#[test]
fn pauses_wait_and_count_in_no_latency() {
    let pause = step("wait", Verb::Pause(Duration::from_secs(2)));
    let mut stage = Stage::started(journey(vec![request("first"), pause, request("second")]));
    stage.answer(0, 10, 200, "").timer();
    let report = stage.answer(2_010, 2_030, 200, "").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(30) });
}

#[test]
fn not_ready_is_unknown_and_known_down_is_blocked() {
    let not_ready =
        |is_known_down| Event::NotReady { channel: "inbound".into(), why: "no broker".into(), is_known_down };
    let report = Stage::new(journey(vec![send(), receive()])).event(0, not_ready(false)).report();
    assert_eq!(report.outcome, Outcome::Unknown { why: UnknownWhy::NotReady });
    assert!(report.note.unwrap().contains("no broker"));
    let report = Stage::new(journey(vec![send(), receive()])).event(0, not_ready(true)).report();
    assert_eq!(report.outcome, failed("arrive", Cause::Blocked));
}

#[test]
fn what_a_receiver_may_have_missed_is_unknown_and_what_it_saw_counts() {
    let gap = || lost("inbound", "connection lost");
    let tidy = Step { always: true, ..request("tidy") };
    let mut stage = Stage::started(journey(vec![send(), receive(), request("receipt"), tidy]));
    stage.answer(0, 5, 202, "").event(59_999, gap()).timer();
    let is_only_clean_up = matches!(stage.actions[..], [Action::Perform { .. }, Action::Keep]);
    assert!(is_only_clean_up, "{:?}", stage.actions);
    let report = stage.answer(60_010, 60_020, 204, "").report();
    assert_eq!(report.outcome, Outcome::Unknown { why: UnknownWhy::NotReady });
    assert!(report.note.unwrap().contains("connection lost"));
    assert_eq!(report.steps[2].status, StepStatus::Skipped);

    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").event(100, gap()).arrival(200, 200, "hi").report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(200) });
    let elsewhere = lost("other", "lost");
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").event(100, elsewhere).timer().report();
    assert_eq!(report.outcome, failed("arrive", Cause::NotReceived));
}

/// An arrival that is one of several parts, or that stands for a failure.
fn special(millis: u64, change: impl FnOnce(&mut Message)) -> Event {
    let mut message = Message::new("hi");
    change(&mut message);
    Event::Arrived { channel: "inbound".into(), message: Arc::new(message), at: now(millis) }
}

#[test]
fn every_part_must_come_and_each_part_once() {
    let part = |millis, index| special(millis, |message| message.part = Some(Part { index, of: 3 }));
    let once = || Step { expect: vec![expect(Query::Copies, Comparison::Equals, Value::from(1))], ..receive() };
    let mut stage = Stage::started(journey(vec![send(), once()]));
    stage.answer(0, 5, 202, "").event(10, part(10, 2)).event(20, part(20, 0));
    assert!(stage.actions.is_empty(), "{:?}", stage.actions);
    let report = stage.event(30, part(30, 1)).report();
    assert_eq!(report.outcome, Outcome::Good { latency: Duration::from_millis(30) });

    let mut stage = Stage::started(journey(vec![send(), once()]));
    let report = stage.answer(0, 5, 202, "").event(10, part(10, 2)).event(20, part(20, 2)).timer().report();
    assert_eq!(report.outcome, failed("arrive", Cause::NotReceived));
    assert_eq!(report.steps[1].detail.as_deref(), Some("1 of 3 parts arrived; missing: 0, 1"));

    let mut stage = Stage::started(journey(vec![send(), once()]));
    stage.answer(0, 5, 202, "").event(10, part(10, 0)).event(11, part(11, 0)).event(20, part(20, 1));
    let report = stage.event(30, part(30, 2)).report();
    assert_eq!(report.outcome, failed("arrive", Cause::Duplicate));
}

#[test]
fn an_arrival_that_stands_for_a_failure_is_one_unless_the_step_asks_for_it() {
    let spam = |message: &mut Message| {
        let detail = "it is in the folder `Junk`".to_owned();
        message.trouble = Some(Box::new(Trouble { cause: Cause::Misrouted, detail }));
        message.facts.insert("folder", Value::from("Junk"));
    };
    let mut stage = Stage::started(journey(vec![send(), receive()]));
    let report = stage.answer(0, 5, 202, "").event(10, special(10, spam)).report();
    assert_eq!(report.outcome, failed("arrive", Cause::Misrouted));
    assert_eq!(report.steps[1].detail.as_deref(), Some("it is in the folder `Junk`"));
    let to_spam = expect(Query::Fact("folder"), Comparison::Equals, Value::from("Junk"));
    let mut stage = Stage::started(journey(vec![send(), Step { expect: vec![to_spam], ..receive() }]));
    let report = stage.answer(0, 5, 202, "").event(10, special(10, spam)).report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
}

#[test]
fn what_arrives_changed_is_altered_and_what_overtakes_is_reordered() {
    let intact = expect(Query::Intact, Comparison::Equals, Value::Bool(true));
    let steps = vec![send(), Step { expect: vec![intact], ..receive() }];
    let mut stage = Stage::started(journey(steps.clone()));
    let [Action::Perform { outgoing, .. }] = &stage.actions[..] else { panic!("{:?}", stage.actions) };
    let sent = String::from_utf8(outgoing.body.clone()).unwrap();
    let report = stage.answer(0, 5, 202, "").arrival(10, 10, &sent).report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
    let mut stage = Stage::started(journey(steps));
    let report = stage.answer(0, 5, 202, "").arrival(10, 10, &sent.replace("text", "Text")).report();
    assert_eq!(report.outcome, failed("arrive", Cause::Altered));

    let nth = |name: &str, since, n: &str| {
        let filter = vec![expect(Query::Body, Comparison::Equals, Value::from(n))];
        let in_order = expect(Query::Order, Comparison::Equals, Value::Bool(true));
        let receive = Receive { channel: "inbound".into(), since, filter, key: None };
        Step { expect: vec![in_order], ..step(name, Verb::Receive(receive)) }
    };
    let steps = || {
        let second = step("submit again", Verb::Send(Box::new(draft("gateway"))));
        vec![send(), second, nth("first", 0, "1"), nth("second", 1, "2")]
    };
    let mut stage = Stage::started(journey(steps()));
    let report = stage.answer(0, 5, 202, "").answer(5, 9, 202, "").arrival(10, 10, "1").arrival(11, 11, "2").report();
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
    let mut stage = Stage::started(journey(steps()));
    let report = stage.answer(0, 5, 202, "").answer(5, 9, 202, "").arrival(10, 10, "2").arrival(11, 11, "1").report();
    assert_eq!(report.outcome, failed("second", Cause::Reordered));
}

#[test]
fn a_token_that_cannot_be_stored_sends_nothing() {
    let mut stage = Stage::new(journey(vec![send(), receive()]));
    let report = stage.event(0, Event::Ready).event(1, Event::NotRecorded { why: "disk full".into() }).report();
    assert_eq!(report.outcome, Outcome::Unknown { why: UnknownWhy::Storage });
}

#[test]
fn stopping_makes_a_run_unknown_wherever_it_is() {
    let mut stages = [Stage::new(journey(vec![send(), receive()])), Stage::started(journey(vec![send(), receive()]))];
    for stage in &mut stages {
        let report = stage.event(7, Event::Cancelled).report();
        assert_eq!(report.outcome, Outcome::Unknown { why: UnknownWhy::Shutdown });
        assert!(stage.event(8, Event::Timer).actions.is_empty(), "what is done stays done");
    }
}

#[test]
fn a_journey_that_receives_nothing_needs_no_ledger() {
    let stage = Stage::new(journey(vec![request("look")]));
    assert!(matches!(stage.actions[..], [Action::Perform { act: Act::Request, .. }]), "{:?}", stage.actions);
}

#[test]
fn an_answer_that_its_channel_calls_a_failure_is_one_unless_the_step_asks_for_the_status() {
    let trouble = |detail: &str| {
        Some(Box::new(crate::journey::message::Trouble { cause: Cause::Exec, detail: detail.to_owned() }))
    };
    let run = |step: Step, message: Message| {
        let mut stage = Stage::started(journey(vec![step]));
        let (started, finished) = (now(0), now(9));
        let reply = Reply { started, finished, ack: "said".to_owned(), message: Some(message), phases: Vec::new() };
        stage.event(9, Event::Answered(Box::new(Ok(reply)))).report()
    };
    let message = |status| {
        let mut message = Message::new("");
        message.status = Some(status);
        message
    };
    let failure = || {
        let mut message = message(3);
        message.trouble = trouble("lost");
        message
    };
    let report = run(request("look"), failure());
    assert_eq!(report.outcome, failed("look", Cause::Exec));
    assert_eq!(report.steps[0].detail.as_deref(), Some("lost"));
    let asks =
        |code| Step { expect: vec![expect(Query::Status, Comparison::Equals, Value::from(code))], ..request("look") };
    assert!(matches!(run(asks(3), failure()).outcome, Outcome::Good { .. }));
    assert_eq!(run(asks(0), failure()).outcome, failed("look", Cause::Exec), "not what HTTP makes of a 3");

    let warning = || {
        let mut message = message(1);
        message.warning = trouble("slow");
        message
    };
    let report = run(request("look"), warning());
    assert!(matches!(report.outcome, Outcome::Good { .. }), "{:?}", report.outcome);
    assert_eq!((report.steps[0].status, report.steps[0].detail.as_deref()), (StepStatus::Warned, Some("slow")));
    let tight = Step { budget: Some(Duration::from_millis(5)), ..request("look") };
    assert!(matches!(run(tight, warning()).outcome, Outcome::Slow { .. }), "a warning hides no slowness");
    assert_eq!(run(asks(0), warning()).outcome, failed("look", Cause::Exec));
}
