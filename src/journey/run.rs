//! One run as a machine: events in, actions out, no clock and no socket.
//!
//! `Preparing` (receivers proven ready) → `Recording` (token on disk) → the steps in order → the `always` steps → `Done`.
//! Latencies are differences of stamps that the edges took; the machine never measures.

pub mod checkpoint;
mod judge;
mod progress;
mod receive;
mod sight;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::journey::expect::{Query, cut};
use crate::journey::message::Message;
use crate::journey::outcome::{Cause, Outcome, UnknownWhy};
use crate::journey::report::{Phase, Report, StepStatus};
use crate::journey::run::checkpoint::{Resumed, is_from_before};
use crate::journey::run::progress::{Progress, Sent};
pub(crate) use crate::journey::run::receive::wanted_copies;
pub use crate::journey::run::sight::{SendSight, Sight};
use crate::journey::seen::{Seen, keep};
use crate::journey::template::{Medium, Scope};
use crate::journey::token::Token;
use crate::journey::{Act, Journey, Name, Outgoing, Step, Verb};
use crate::time::{Human, Mono, Now};

/// A step that sets no limit of its own waits this long for an acknowledgement or a response.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// After a receive's limit, how long its reader's stamp may take to reach us. An arrival counts by its stamp, not by this.
const READER_GRACE: Duration = Duration::from_millis(5);
/// After a send's or request's limit, how long the channel has to say what it knows: which phase it was in, and whether the
/// message may have been taken. Only a channel that says nothing is answered for.
const CHANNEL_GRACE: Duration = Duration::from_millis(100);
/// Evidence keeps this much of a payload.
const EXCERPT: usize = 1_024;

/// What a channel answers to a send or a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Just before the first byte left.
    pub started: Now,
    /// When the acknowledgement or response was complete.
    pub finished: Now,
    /// Which acknowledgement it was: `socket`, `confirm`, `202`, `250 queued as …`.
    pub ack: String,
    /// The response, where there is one.
    pub message: Option<Message>,
    /// The parts of the time between.
    pub phases: Vec<Phase>,
}

/// A send or request that did not succeed. A value: this is what the monitor is for.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Just before the first byte left, or would have left.
    pub started: Now,
    /// When it was known.
    pub finished: Now,
    /// What kind of failure.
    pub cause: Cause,
    /// What happened, for people.
    pub detail: String,
    /// The message may have been taken all the same.
    pub uncertain: bool,
    /// The parts of the time between, as far as it got.
    pub phases: Vec<Phase>,
}

/// What happens to a run.
#[derive(Debug)]
pub enum Event {
    /// It begins.
    Begin,
    /// Every receiving channel is proven ready.
    Ready,
    /// What a channel met: for the step in hand, or before the first one for what is received there. Told before the
    /// [`Event::Answered`] or [`Event::Timer`] that ends the step.
    Met {
        /// Which.
        channel: Name,
        /// What.
        seen: Vec<Seen>,
    },
    /// A receiving channel is not.
    NotReady {
        /// Which.
        channel: Name,
        /// Why, for people.
        why: String,
        /// The channel's own alert has fired: the journey is blocked, not unknown.
        is_known_down: bool,
    },
    /// A receiving channel was away while the run waited, and what came meanwhile may have passed unseen. Told before the
    /// [`Event::Timer`] that would call the message lost.
    Gap {
        /// Which.
        channel: Name,
        /// Through what fault of ours.
        fault: UnknownWhy,
        /// Why, for people.
        why: String,
    },
    /// The token is on disk.
    Recorded,
    /// It could not be written.
    NotRecorded {
        /// Why.
        why: String,
    },
    /// The send or request in hand ended.
    Answered(Box<Result<Reply, Fault>>),
    /// A message of this run arrived.
    Arrived {
        /// Where.
        channel: Name,
        /// What.
        message: Arc<Message>,
        /// When its bytes were there.
        at: Now,
    },
    /// The time that [`Run::deadline`] gave has come.
    Timer,
    /// The process is stopping.
    Cancelled,
}

/// What a run asks for.
#[derive(Debug)]
#[must_use]
pub enum Action {
    /// Prove these channels ready: answer with [`Event::Ready`] or [`Event::NotReady`].
    AwaitReady(Vec<Name>),
    /// Put the token on disk: answer with [`Event::Recorded`] or [`Event::NotRecorded`].
    Record,
    /// Send, ask or look: answer with [`Event::Answered`].
    Perform {
        /// Through which channel.
        channel: Name,
        /// What.
        outgoing: Box<Outgoing>,
        /// What to do with it.
        act: Act,
    },
    /// Give up the send or request in hand; no answer is wanted any more.
    Abandon,
    /// From here on, messages whose channel `key` has this value are this run's too.
    Expect {
        /// On which channel.
        channel: Name,
        /// The key's value.
        key: String,
    },
    /// It waits from here on, or acts after a wait: what it would take to go on with it is worth keeping. No answer is wanted.
    Keep,
    /// The run is over.
    Finish(Box<Report>),
}

#[derive(Debug)]
enum Activity {
    /// A send or request is on its way.
    Performing { attempt_limit: Mono },
    /// A poll waits for its next attempt.
    Between { next: Mono },
    /// A receive waits.
    Receiving { until: Mono },
    /// A pause.
    Pausing { until: Mono },
}

#[derive(Debug)]
enum State {
    Preparing,
    Recording,
    /// The step at `index` is under way since `began`.
    Working {
        index: usize,
        began: Mono,
        activity: Activity,
    },
    Done,
}

/// A payload's SHA-256.
type Digest = [u8; 32];

struct Arrived {
    channel: Name,
    message: Arc<Message>,
    at: Now,
    /// It was there at `at`, and not before this. Both are one but for what may have come between two processes.
    earliest: Mono,
    /// The receive step that it counted for.
    used_by: Option<usize>,
}

/// One execution of a journey.
pub struct Run {
    journey: Arc<Journey>,
    token: Token,
    slot: Timestamp,
    scope: Scope,
    state: State,
    /// When the first step really began; the deadline counts from here.
    started: Option<Now>,
    steps: Vec<Progress>,
    /// What was sent, where a step wants to know whether it arrived unchanged.
    payloads: BTreeMap<usize, Digest>,
    arrivals: Vec<Arrived>,
    /// Receiving channels that were away, and why.
    gaps: BTreeMap<Name, (UnknownWhy, String)>,
    /// The keys that are expected.
    keys: Vec<(Name, String)>,
    /// Where each receive of a fault-uncertain send stands.
    path: Duration,
    failure: Option<(Name, Cause)>,
    is_slow: bool,
    unknown: Option<(UnknownWhy, String)>,
    /// A wait of it was worth keeping.
    has_waited: bool,
    /// It began in another process.
    resumed: Option<Box<Resumed>>,
}

impl Run {
    /// A run of `journey` for `slot`. `seed` decides what its templates draw.
    pub fn new(journey: Arc<Journey>, token: Token, slot: Timestamp, now: Now, seed: u64) -> Run {
        let steps = journey.steps.iter().map(|_| Progress::none()).collect();
        Run {
            token,
            slot,
            scope: Scope::new(token, journey.name.clone(), now.wall, seed),
            state: State::Preparing,
            started: None,
            steps,
            payloads: BTreeMap::new(),
            arrivals: Vec::new(),
            gaps: BTreeMap::new(),
            keys: Vec::new(),
            path: Duration::ZERO,
            failure: None,
            is_slow: false,
            unknown: None,
            has_waited: false,
            resumed: None,
            journey,
        }
    }

    /// What it runs.
    pub fn journey(&self) -> &Journey {
        &self.journey
    }

    /// Its token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The slot that it runs for.
    pub fn slot(&self) -> Timestamp {
        self.slot
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        self.due().map(|due| self.outside(due))
    }

    /// The same on the run's own clock.
    fn due(&self) -> Option<Mono> {
        match &self.state {
            State::Preparing | State::Recording | State::Done => None,
            State::Working { index, activity, .. } => Some(match activity {
                Activity::Performing { attempt_limit } => *attempt_limit + CHANNEL_GRACE,
                Activity::Between { next } => *next,
                Activity::Receiving { until } => (*until + READER_GRACE).max(self.patience(*index)),
                Activity::Pausing { until } => *until,
            }),
        }
    }

    /// Takes one event; says what to do.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let before = self.mark();
        self.take(event, self.local(now), &mut actions);
        if self.is_worth_keeping(before) {
            self.has_waited = true;
            actions.push(Action::Keep);
        }
        actions
    }

    /// `now` is on the run's own clock.
    fn take(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match (&self.state, event) {
            (State::Done, _) => {}
            (_, Event::Cancelled) => {
                self.give_up(UnknownWhy::Shutdown, "the daemon was stopping".to_owned());
                self.finish(now, actions);
            }
            (_, Event::Arrived { channel, message, at }) => {
                if self.is_handed_out_again(&channel, &message) {
                    return;
                }
                let (stamp, at) = (at, self.local(at));
                let earliest = if is_from_before(stamp) { at.mono } else { self.earliest(&message, at) };
                self.arrivals.push(Arrived { channel, message, at, earliest, used_by: None });
                self.resume_receive(now, actions);
            }
            (State::Working { index, .. }, Event::Met { channel, seen }) => {
                let index = *index;
                if self.journey.steps[index].verb.channel() == Some(&channel) {
                    seen.into_iter().for_each(|one| keep(&mut self.steps[index].evidence().seen, one));
                }
            }
            (State::Preparing | State::Recording, Event::Met { channel, seen }) => {
                let steps = self.journey.steps.iter().zip(&mut self.steps);
                for (step, report) in steps {
                    if matches!(&step.verb, Verb::Receive(receive) if receive.channel == channel) {
                        report.evidence().seen.clone_from(&seen);
                    }
                }
            }
            (State::Preparing, Event::Begin) => {
                let receivers = self.journey.receivers();
                if receivers.is_empty() {
                    self.state = State::Recording;
                    self.record_or_start(now, actions);
                } else {
                    actions.push(Action::AwaitReady(receivers));
                }
            }
            (State::Preparing, Event::Ready) if self.resumed.is_some() => self.take_up(now, actions),
            (State::Preparing, Event::Ready) => {
                self.state = State::Recording;
                self.record_or_start(now, actions);
            }
            (State::Preparing, Event::NotReady { why, .. }) if self.resumed.is_some() => {
                // What it waits for may come all the same, and is taken then; that it does not proves nothing.
                for channel in self.journey.receivers() {
                    self.gaps.insert(channel, (UnknownWhy::NotReady, why.clone()));
                }
                self.take_up(now, actions);
            }
            (State::Preparing, Event::NotReady { channel, why, is_known_down }) => {
                if is_known_down {
                    self.block(&channel, &why);
                } else {
                    self.give_up(UnknownWhy::NotReady, format!("channel `{channel}` was not ready to receive: {why}"));
                }
                self.finish(now, actions);
            }
            (State::Recording, Event::Recorded) => self.begin(0, now, actions),
            (State::Recording, Event::NotRecorded { why }) => {
                self.give_up(UnknownWhy::Storage, format!("the token could not be stored, so nothing was sent: {why}"));
                self.finish(now, actions);
            }
            (State::Working { activity: Activity::Performing { .. }, .. }, Event::Answered(mut answer)) => {
                let (started, finished) = match &mut *answer {
                    Ok(reply) => (&mut reply.started, &mut reply.finished),
                    Err(fault) => (&mut fault.started, &mut fault.finished),
                };
                (*started, *finished) = (self.local(*started), self.local(*finished));
                self.answered(*answer, now, actions);
            }
            (State::Preparing | State::Working { .. }, Event::Gap { channel, fault, why }) => {
                self.gaps.insert(channel, (fault, why));
            }
            (State::Working { .. }, Event::Timer) => self.timer(now, actions),
            // An answer to an abandoned attempt, or a repeated event of an earlier state: too late to matter.
            (
                State::Preparing | State::Recording | State::Working { .. },
                Event::Begin
                | Event::Ready
                | Event::NotReady { .. }
                | Event::Gap { .. }
                | Event::Recorded
                | Event::NotRecorded { .. }
                | Event::Answered(_)
                | Event::Timer,
            ) => {}
        }
    }

    /// A run that only asks and never waits for a message of its own has nothing to put in the ledger.
    fn record_or_start(&mut self, now: Now, actions: &mut Vec<Action>) {
        let is_awaited = self.journey.steps.iter().any(|step| matches!(step.verb, Verb::Receive(_)));
        if is_awaited { actions.push(Action::Record) } else { self.begin(0, now, actions) }
    }

    fn hard_stop(&self, now: Now) -> Mono {
        self.started.unwrap_or(now).mono + self.journey.deadline + self.away()
    }

    /// Begins the first step from `index` on that is to run, or ends the run.
    fn begin(&mut self, from: usize, now: Now, actions: &mut Vec<Action>) {
        for index in from..self.journey.steps.len() {
            let journey = self.journey.clone();
            let step = &journey.steps[index];
            if (self.failure.is_some() || self.unknown.is_some()) && !step.always {
                continue;
            }
            self.started.get_or_insert(now);
            match step.when.as_ref().map(|when| when.holds(&self.scope)).transpose() {
                Ok(None | Some(true)) => {}
                Ok(Some(false)) => {
                    self.steps[index].evidence().detail = Some("`when` did not hold".to_owned());
                    continue;
                }
                Err(error) => {
                    self.fail(index, Cause::Mismatch, format!("`when` could not be rendered: {error}"));
                    continue;
                }
            }
            self.steps[index].at = now.mono.since(self.started.unwrap_or(now).mono);
            match self.enter(index, step, now, actions) {
                Ok(activity) => {
                    self.state = State::Working { index, began: now.mono, activity };
                    if matches!(step.verb, Verb::Receive(_)) {
                        self.resume_receive(now, actions);
                    }
                    return;
                }
                Err(detail) => self.fail(index, Cause::Mismatch, detail),
            }
        }
        self.finish(now, actions);
    }

    fn enter(&mut self, index: usize, step: &Step, now: Now, actions: &mut Vec<Action>) -> Result<Activity, String> {
        let limit = self.limit(step, now);
        match &step.verb {
            Verb::Send(_) | Verb::Request(_) | Verb::Check(_) | Verb::Exec(_) => {
                self.perform(index, step, now, actions)
            }
            Verb::Receive(receive) => {
                if let Some(key) = &receive.key {
                    let key = key.render(&self.scope, Medium::Plain).map_err(|error| format!("`key`: {error}"))?;
                    self.keys.push((receive.channel.clone(), key.clone()));
                    actions.push(Action::Expect { channel: receive.channel.clone(), key });
                }
                let from_send = match (step.timeout, self.sent(receive.since)) {
                    (Some(timeout), Some(sent)) => (sent.started + timeout).min(self.hard_stop(now)),
                    _ => limit,
                };
                // What was sent before nobody was there is not waited for longer because of that.
                let until = match self.is_across(receive.since) && !step.always {
                    true => from_send.min(self.hard_stop(now) - self.away()),
                    false => from_send,
                };
                Ok(Activity::Receiving { until })
            }
            Verb::Pause(length) => Ok(Activity::Pausing { until: (now.mono + *length).min(limit) }),
        }
    }

    /// When the step must be over. Clean-up has its own time: it must run even when the deadline has passed.
    fn limit(&self, step: &Step, now: Now) -> Mono {
        let own = match &step.verb {
            Verb::Receive(_) | Verb::Pause(_) | Verb::Exec(_) => self.journey.deadline,
            _ => STEP_TIMEOUT,
        };
        let limit = now.mono + step.timeout.unwrap_or(own);
        if step.always { limit } else { limit.min(self.hard_stop(now)) }
    }

    fn perform(&mut self, index: usize, step: &Step, now: Now, actions: &mut Vec<Action>) -> Result<Activity, String> {
        let Some((act, draft)) = step.verb.act() else {
            return Err(format!("a `{}` step asks nothing of a channel", step.verb.as_str()));
        };
        let attempt_limit = self.limit(step, now);
        let outgoing = draft
            .render(&self.scope, self.token, attempt_limit.since(now.mono))
            .map_err(|error| format!("could not be rendered: {error}"))?;
        if act == Act::Send {
            // Until the channel says when it really began; an arrival may be quicker than the acknowledgement.
            let sent = Sent { started: now.mono, path: self.path, uncertain: false };
            self.steps[index].sent = Some(Box::new(sent));
            if self.journey.steps.iter().any(|step| step.expect.iter().any(|e| matches!(e.query, Query::Intact))) {
                self.payloads.insert(index, Sha256::digest(&outgoing.body).into());
            }
        }
        actions.push(Action::Perform { channel: draft.channel.clone(), outgoing: Box::new(outgoing), act });
        Ok(Activity::Performing { attempt_limit })
    }

    fn sent(&self, step: usize) -> Option<Sent> {
        self.steps[step].sent.as_deref().copied()
    }

    fn working(&self) -> Option<(usize, Mono)> {
        match &self.state {
            State::Working { index, began, .. } => Some((*index, *began)),
            _ => None,
        }
    }

    fn answered(&mut self, answer: Result<Reply, Fault>, now: Now, actions: &mut Vec<Action>) {
        let Some((index, began)) = self.working() else { return };
        let journey = self.journey.clone();
        let step = &journey.steps[index];
        let (started, finished) = match &answer {
            Ok(reply) => (reply.started, reply.finished),
            Err(fault) => (fault.started, fault.finished),
        };
        self.stamp_start(index, started, began);
        let is_first_attempt = self.steps[index].took == Duration::ZERO;
        let origin = self.started.unwrap_or(started).mono;
        if is_first_attempt {
            self.steps[index].at = started.mono.since(origin);
        }
        self.steps[index].took = finished.mono.since(origin + self.steps[index].at);
        let result = match answer {
            Ok(reply) => self.judge_reply(index, step, reply),
            Err(fault) => self.judge_fault(index, step, fault),
        };
        match (result, step.poll) {
            (Ok(()), _) => self.pass(index, now, actions),
            (Err((cause, _)), Some(poll)) if cause != Cause::Blocked && self.may_poll_again(began, poll, step, now) => {
                self.state =
                    State::Working { index, began, activity: Activity::Between { next: now.mono + poll.every } };
            }
            (Err((cause, detail)), _) => {
                self.fail(index, cause, detail);
                self.begin(index + 1, now, actions);
            }
        }
    }

    /// The edge knows when the first byte left; waiting for a permit or a rate limit before that is not the system's time.
    fn stamp_start(&mut self, index: usize, started: Now, began: Mono) {
        if self.steps[..index].iter().all(|step| step.status == StepStatus::Skipped)
            && self.started.is_some_and(|at| at.mono == began)
            && self.steps[index].took == Duration::ZERO
        {
            self.started = Some(started);
        }
        if let Some(sent) = &mut self.steps[index].sent {
            sent.started = started.mono;
        }
    }

    fn may_poll_again(&self, began: Mono, poll: crate::journey::Poll, step: &Step, now: Now) -> bool {
        let next = now.mono + poll.every;
        next <= began + poll.within && (step.always || next < self.hard_stop(now))
    }

    /// The step in hand passed: puts it on the critical path and goes on.
    fn pass(&mut self, index: usize, now: Now, actions: &mut Vec<Action>) {
        let journey = self.journey.clone();
        let step = &journey.steps[index];
        let has_receive = journey
            .steps
            .iter()
            .any(|other| matches!(&other.verb, Verb::Receive(receive) if receive.since == index && !other.always));
        let took = self.steps[index].took;
        if !step.always {
            match &step.verb {
                // The arrival is what counts; it may well be quicker than the acknowledgement.
                Verb::Send(_) if has_receive => {}
                Verb::Send(_) | Verb::Request(_) | Verb::Check(_) | Verb::Exec(_) => self.path += took,
                Verb::Receive(receive) => {
                    let from = self.sent(receive.since).map_or(Duration::ZERO, |sent| sent.path);
                    self.path = self.path.max(from + took);
                }
                Verb::Pause(_) => {}
            }
        }
        if self.steps[index].status == StepStatus::Skipped {
            let is_over = step.budget.is_some_and(|budget| took > budget) && !step.always;
            self.is_slow |= is_over;
            self.steps[index].status = match (is_over, self.steps[index].has_warning()) {
                (true, _) => StepStatus::Slow,
                (false, true) => StepStatus::Warned,
                (false, false) => StepStatus::Passed,
            };
        }
        self.begin(index + 1, now, actions);
    }

    fn fail(&mut self, index: usize, cause: Cause, detail: String) {
        let step = &self.journey.steps[index];
        let is_warning = step.soft || step.always;
        self.steps[index].status = if is_warning { StepStatus::Warned } else { StepStatus::Failed };
        self.steps[index].evidence().detail = Some(detail);
        if !is_warning {
            self.failure.get_or_insert((step.name.clone(), cause));
        }
    }

    fn timer(&mut self, now: Now, actions: &mut Vec<Action>) {
        let State::Working { index, began, activity } = &self.state else { return };
        let (index, began) = (*index, *began);
        if self.due().is_some_and(|due| now.mono < due) {
            return;
        }
        let journey = self.journey.clone();
        match activity {
            Activity::Pausing { .. } => {
                self.steps[index].took = now.mono.since(began);
                self.pass(index, now, actions);
            }
            Activity::Between { .. } => match self.perform(index, &journey.steps[index], now, actions) {
                Ok(activity) => self.state = State::Working { index, began, activity },
                Err(detail) => {
                    self.fail(index, Cause::Mismatch, detail);
                    self.begin(index + 1, now, actions);
                }
            },
            Activity::Performing { .. } => {
                actions.push(Action::Abandon);
                let started = self.sent(index).map_or(began, |sent| sent.started);
                let waited = now.mono.since(started);
                let fault = Fault {
                    started: Now { wall: now.wall_at(started), mono: started },
                    finished: now,
                    cause: Cause::Unreachable,
                    detail: format!("no answer within {}", Human(waited)),
                    uncertain: true,
                    phases: Vec::new(),
                };
                self.answered(Err(fault), now, actions);
            }
            Activity::Receiving { until } => {
                let until = *until;
                self.receive_timed_out(index, until, now, actions);
            }
        }
    }

    fn give_up(&mut self, why: UnknownWhy, detail: String) {
        self.unknown.get_or_insert((why, detail));
    }

    fn block(&mut self, channel: &Name, why: &str) {
        let is_of = |step: &Step| step.verb.channel() == Some(channel);
        let index = self.journey.steps.iter().position(is_of).unwrap_or(0);
        self.fail(index, Cause::Blocked, format!("channel `{channel}` is down: {why}"));
    }

    fn finish(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.recount_copies(now);
        self.state = State::Done;
        let latency = self.path;
        let is_over = self.journey.budget.is_some_and(|budget| latency > budget);
        let outcome = match (&self.unknown, &self.failure) {
            (Some((why, _)), _) => Outcome::Unknown { why: *why },
            (None, Some((step, cause))) => Outcome::Failed { step: step.clone(), cause: *cause },
            (None, None) if self.is_slow || is_over => Outcome::Slow { latency },
            (None, None) => Outcome::Good { latency },
        };
        let steps = std::mem::take(&mut self.steps).into_iter().zip(&self.journey.steps);
        let steps = steps.map(|(progress, step)| progress.into_report(step)).collect();
        actions.push(Action::Finish(Box::new(Report {
            journey: self.journey.name.clone(),
            token: self.token,
            slot: self.slot,
            started: self.started.unwrap_or(now).wall,
            outcome,
            latency,
            lateness: crate::time::between(self.slot, self.scope.now()),
            steps,
            beneath: None,
            note: self.unknown.take().map(|(_, note)| cut(&note)),
            configuration: self.journey.fingerprint.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })));
    }
}

#[cfg(test)]
mod tests;
