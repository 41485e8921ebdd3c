//! Receiving: which arrivals are a step's, when it has enough of them, and what it means that it has not.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::journey::expect::{Comparison, Expectation, Expected, Predicate, Query, View, cut_at};
use crate::journey::message::{Message, Part, Trouble};
use crate::journey::outcome::{Cause, UnknownWhy};
use crate::journey::report::StepStatus;
use crate::journey::run::progress::Sent;
use crate::journey::run::{Action, Activity, Arrived, EXCERPT, Run, State};
use crate::journey::template::Scope;
use crate::journey::value::Value;
use crate::journey::{Receive, Step, Verb};
use crate::time::{Human, Mono, Now};

impl Run {
    pub(super) fn receive_timed_out(&mut self, index: usize, until: Mono, now: Now, actions: &mut Vec<Action>) {
        let journey = self.journey.clone();
        let Verb::Receive(receive) = &journey.steps[index].verb else { return };
        let sent = self.sent(receive.since);
        let from = sent.map_or(until, |sent| sent.started);
        self.place_receive(index, from, until);
        let tally = self.tally(&self.arrivals_of(index, receive, until));
        if let Some((fault, detail)) = self.why_unseen(receive, until, tally.seen()) {
            self.steps[index].status = StepStatus::Warned;
            self.steps[index].evidence().detail = Some(detail.clone());
            self.give_up(fault, detail);
            return self.begin(index + 1, now, actions);
        }
        let (cause, detail) = match (sent, tally.seen()) {
            (Some(Sent { uncertain: true, .. }), 0) => {
                (Cause::Uncertain, "the send had no clear answer, and nothing arrived".to_owned())
            }
            (_, 0) => (Cause::NotReceived, format!("not received within {}", Human(until.since(from)))),
            _ => (Cause::NotReceived, tally.missing()),
        };
        self.fail(index, cause, detail);
        self.begin(index + 1, now, actions);
    }

    /// The fault of ours through which the message may have come and not been seen, if there is one.
    fn why_unseen(&self, receive: &Receive, until: Mono, seen: u32) -> Option<(UnknownWhy, String)> {
        let channel = &receive.channel;
        if seen == 0 && self.is_unsure(receive.since) {
            let detail = "the daemon ended while it was sending, and nothing arrived: perhaps nothing was sent";
            return Some((UnknownWhy::Restart, detail.to_owned()));
        }
        let (fault, why) = self.gaps.get(channel)?;
        // What was sent after a restart is not missed by it, nor what was no longer waited for before it.
        if *fault == UnknownWhy::Restart && (!self.is_across(receive.since) || self.is_before_gap(until)) {
            return None;
        }
        let detail = format!(
            "channel `{channel}` was away while the message was waited for, so nobody knows whether it came: {why}"
        );
        Some((*fault, detail))
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
        let Some(last) = self.completed_by(step, &mine) else {
            if self.due().is_some_and(|due| now.mono > due) {
                self.receive_timed_out(index, until, now, actions);
            }
            return;
        };
        let sent = self.sent(receive.since);
        let arrived = self.came(receive.since, &self.arrivals[last]);
        let from = sent.map_or(arrived, |sent| sent.started);
        self.place_receive(index, from, arrived);
        let across = self.across(from, arrived, &self.arrivals[last]);
        let copies = self.tally(&mine).copies();
        let is_in_order = self.is_in_order(receive, last);
        for at in mine {
            self.arrivals[at].used_by = Some(index);
        }
        let message = self.arrivals[last].message.clone();
        let evidence = self.steps[index].evidence();
        evidence.hops = message.hops.clone();
        evidence.excerpt = Some(cut_at(&message.text(), EXCERPT));
        evidence.detail = across;
        let is_intact = self.is_intact(receive.since, &message);
        let latency = Some(self.steps[index].took);
        let view = View { message: &message, latency, copies, is_in_order, is_intact, now: now.wall };
        match self.judge_arrival(index, step, view) {
            Ok(()) => self.pass(index, now, actions),
            Err((cause, detail)) => {
                self.fail(index, cause, detail);
                self.begin(index + 1, now, actions);
            }
        }
    }

    /// When it came, as far as that can be said of what this send brought.
    fn came(&self, send: usize, arrived: &Arrived) -> Mono {
        if self.is_across(send) { arrived.earliest } else { arrived.at.mono }
    }

    fn is_intact(&self, send: usize, message: &Message) -> Option<bool> {
        self.payloads.get(&send).map(|sent| sent[..] == Sha256::digest(&message.body)[..])
    }

    /// The arrivals by `until` that are this receive's: on its channel, through its filter, used by no step before it.
    fn arrivals_of(&self, index: usize, receive: &Receive, until: Mono) -> Vec<usize> {
        let is_mine = |arrived: &Arrived| {
            arrived.channel == receive.channel
                && self.came(receive.since, arrived) <= until
                && arrived.used_by.is_none_or(|user| user == index)
                && passes(&receive.filter, &arrived.message, arrived.at.wall, &self.scope)
        };
        self.arrivals.iter().enumerate().filter(|(_, arrived)| is_mine(arrived)).map(|(at, _)| at).collect()
    }

    fn tally(&self, arrivals: &[usize]) -> Tally {
        let mut tally = Tally::default();
        for at in arrivals {
            tally.add(self.arrivals[*at].message.part);
        }
        tally
    }

    /// The arrival with which all copies of every part were there that the step waits for, or the first that stands for a failure:
    /// what comes after it cannot make it good.
    fn completed_by(&self, step: &Step, mine: &[usize]) -> Option<usize> {
        let wanted = wanted_copies(step);
        let mut tally = Tally::default();
        mine.iter().copied().find(|at| {
            let message = &self.arrivals[*at].message;
            tally.add(message.part);
            trouble(step, message).is_some() || tally.is_complete(wanted)
        })
    }

    /// Whether the messages of this run that came on this channel came in the order of their sends, as far as is known.
    fn is_in_order(&self, receive: &Receive, mine: usize) -> bool {
        self.arrivals.iter().enumerate().all(|(other, arrived)| {
            let Some(step) = arrived.used_by else { return true };
            let Verb::Receive(before) = &self.journey.steps[step].verb else { return true };
            let is_comparable = before.channel == receive.channel && before.since != receive.since;
            !is_comparable || (before.since < receive.since) == (other < mine)
        })
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
                latency: Some(self.steps[index].took),
                copies: self.tally(&copies).copies(),
                is_in_order: self.is_in_order(receive, *first),
                is_intact: self.is_intact(receive.since, &message),
                ..View::of(&message, now.wall)
            };
            if let Err((cause, detail)) = self.judge_arrival(index, step, view) {
                self.fail(index, cause, detail);
            }
        }
    }
}

/// How many copies of which parts have arrived. A message that says nothing of parts is the only one.
#[derive(Default)]
struct Tally {
    of: u32,
    copies: BTreeMap<u32, u32>,
}

impl Tally {
    fn add(&mut self, part: Option<Part>) {
        let Part { index, of } = part.unwrap_or(Part { index: 0, of: 1 });
        self.of = self.of.max(of).max(1);
        *self.copies.entry(index).or_default() += 1;
    }

    fn is_complete(&self, wanted: u32) -> bool {
        self.copies.len() >= self.of.max(1) as usize && self.copies.values().all(|copies| *copies >= wanted)
    }

    /// The most that came of any part.
    fn copies(&self) -> u32 {
        self.copies.values().copied().max().unwrap_or(0)
    }

    fn seen(&self) -> u32 {
        self.copies.values().sum()
    }

    fn missing(&self) -> String {
        match self.of {
            0 | 1 => format!("only {} of the expected copies arrived", self.seen()),
            of => {
                let missing: Vec<_> =
                    (0..of).filter(|part| !self.copies.contains_key(part)).map(|part| part.to_string()).collect();
                format!("{} of {of} parts arrived; missing: {}", self.copies.len(), missing.join(", "))
            }
        }
    }
}

/// The failure that a message stands for, unless the step asks for the very thing.
pub(super) fn trouble<'a>(step: &Step, message: &'a Message) -> Option<&'a Trouble> {
    let trouble = message.trouble.as_deref()?;
    (!step.expect.iter().any(|expectation| expectation.query.asks_about(trouble.cause))).then_some(trouble)
}

/// Whether a message fulfils all of these.
fn passes(filter: &[Expectation], message: &Message, at: Timestamp, scope: &Scope) -> bool {
    filter.iter().all(|expectation| expectation.check(View::of(message, at), Some(scope)).passed)
}

/// How many copies a receive waits for: what `copies` expects, or one.
pub(crate) fn wanted_copies(step: &Step) -> u32 {
    let wanted = step.expect.iter().find_map(|expectation| match (&expectation.query, &expectation.predicate) {
        (
            Query::Copies,
            Predicate::Compare(Comparison::Equals | Comparison::AtLeast, Expected::Fixed(Value::Number(n))),
        ) => n.to_string().parse::<u32>().ok(),
        _ => None,
    });
    wanted.unwrap_or(1).max(1)
}
