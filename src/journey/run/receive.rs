//! Receiving: which arrivals are a step's, when it has enough of them, and what it means that it has not.

use jiff::Timestamp;

use crate::journey::expect::{Comparison, Expectation, Expected, Predicate, Query, View, cut_at};
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::StepStatus;
use crate::journey::run::{Action, Activity, Arrived, EXCERPT, READER_GRACE, Run, Sent, State};
use crate::journey::template::Scope;
use crate::journey::value::Value;
use crate::journey::{Receive, Step, Verb};
use crate::time::{Human, Mono, Now};

impl Run {
    pub(super) fn receive_timed_out(&mut self, index: usize, until: Mono, now: Now, actions: &mut Vec<Action>) {
        let journey = self.journey.clone();
        let Verb::Receive(receive) = &journey.steps[index].verb else { return };
        let sent = self.sends.get(&receive.since).copied();
        let from = sent.map_or(until, |sent| sent.started);
        self.place_receive(index, from, until);
        let copies = self.arrivals_of(index, receive, until).len();
        let (cause, detail) = match (sent, copies) {
            (Some(Sent { uncertain: true, .. }), 0) => {
                (Cause::Uncertain, "the send had no clear answer, and nothing arrived".to_owned())
            }
            (_, 0) => (Cause::NotReceived, format!("not received within {}", Human(until.since(from)))),
            (_, n) => (Cause::NotReceived, format!("only {n} of the expected copies arrived")),
        };
        self.fail(index, cause, detail);
        self.begin(index + 1, now, actions);
    }

    fn place_receive(&mut self, index: usize, from: Mono, to: Mono) {
        let origin = self.started.map_or(from, |started| started.mono);
        self.steps[index].at = from.since(origin);
        self.steps[index].took = to.since(from);
    }

    /// If the step in hand is a receive that has what it waits for, judges it and goes on.
    pub(super) fn resume_receive(&mut self, now: Now, actions: &mut Vec<Action>) {
        let State::Working { index, activity: Activity::Receiving { until }, .. } = &self.state else { return };
        let (index, until) = (*index, *until);
        let journey = self.journey.clone();
        let step = &journey.steps[index];
        let Verb::Receive(receive) = &step.verb else { return };
        let mine = self.arrivals_of(index, receive, until);
        if mine.len() < wanted_copies(step) {
            if now.mono > until + READER_GRACE {
                self.receive_timed_out(index, until, now, actions);
            }
            return;
        }
        let sent = self.sends.get(&receive.since).copied();
        let last = mine[wanted_copies(step) - 1];
        let arrived = self.arrivals[last].at;
        let from = sent.map_or(arrived.mono, |sent| sent.started);
        self.place_receive(index, from, arrived.mono);
        let copies = mine.len() as u32;
        self.used.extend(mine.into_iter().map(|at| (at, index)));
        let message = self.arrivals[last].message.clone();
        self.steps[index].hops = message.hops.clone();
        self.steps[index].excerpt = Some(cut_at(&message.text(), EXCERPT));
        let view = View { message: &message, latency: Some(self.steps[index].took), copies, now: now.wall };
        match self.judge(index, step, view) {
            Ok(()) => self.pass(index, now, actions),
            Err((cause, detail)) => {
                self.fail(index, cause, detail);
                self.begin(index + 1, now, actions);
            }
        }
    }

    /// The arrivals by `until` that are this receive's: on its channel, through its filter, used by no step before it.
    fn arrivals_of(&self, index: usize, receive: &Receive, until: Mono) -> Vec<usize> {
        let is_mine = |at: usize, arrived: &Arrived| {
            arrived.channel == receive.channel
                && arrived.at.mono <= until
                && self.used.get(&at).is_none_or(|user| *user == index)
                && passes(&receive.filter, &arrived.message, arrived.at.wall, &self.scope)
        };
        self.arrivals.iter().enumerate().filter(|(at, arrived)| is_mine(*at, arrived)).map(|(at, _)| at).collect()
    }

    /// A copy that came after its receive had passed still breaks `copies`.
    pub(super) fn recount_copies(&mut self, now: Now) {
        if self.failure.is_some() {
            return;
        }
        let journey = self.journey.clone();
        for (index, step) in journey.steps.iter().enumerate() {
            let Verb::Receive(receive) = &step.verb else { continue };
            let has_passed =
                matches!(self.steps[index].status, StepStatus::Passed | StepStatus::Slow | StepStatus::Warned);
            if !has_passed || !step.expect.iter().any(|expectation| matches!(expectation.query, Query::Copies)) {
                continue;
            }
            let copies = self.arrivals_of(index, receive, now.mono);
            let Some(first) = copies.first() else { continue };
            let message = self.arrivals[*first].message.clone();
            let view = View {
                message: &message,
                latency: Some(self.steps[index].took),
                copies: copies.len() as u32,
                now: now.wall,
            };
            if let Err((cause, detail)) = self.judge(index, step, view) {
                self.fail(index, cause, detail);
            }
        }
    }
}

/// Whether a message fulfils all of these.
fn passes(filter: &[Expectation], message: &Message, at: Timestamp, scope: &Scope) -> bool {
    filter.iter().all(|expectation| expectation.check(View::of(message, at), Some(scope)).passed)
}

/// How many copies a receive waits for: what `copies` expects, or one.
fn wanted_copies(step: &Step) -> usize {
    let wanted = step.expect.iter().find_map(|expectation| match (&expectation.query, &expectation.predicate) {
        (
            Query::Copies,
            Predicate::Compare(Comparison::Equals | Comparison::AtLeast, Expected::Fixed(Value::Number(n))),
        ) => n.to_string().parse::<usize>().ok(),
        _ => None,
    });
    wanted.unwrap_or(1).max(1)
}
