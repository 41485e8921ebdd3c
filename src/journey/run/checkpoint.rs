//! What is needed to go on with a run when the process that began it has ended, and going on with it.
//!
//! No monotonic clock spans two processes, so a checkpoint counts every time from the run's beginning, and says what the wall
//! clock showed when it was made. Whoever goes on adds the wall-clock time since; it can only shorten what is left to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::message::Message;
use crate::journey::outcome::{Cause, UnknownWhy};
use crate::journey::report::StepStatus;
use crate::journey::run::progress::{Progress, Sent};
use crate::journey::run::{Action, Activity, Arrived, Digest, Run, State};
use crate::journey::template::Scope;
use crate::journey::token::Token;
use crate::journey::{Journey, Name, Verb};
use crate::time::{Human, Mono, Now, between};

/// What had come while nobody read has been handed over so long after the receivers were ready again.
pub const LOOK_BACK: Duration = Duration::from_secs(2);
/// A run that has received more than this is not kept: its row would no longer be small.
const MOST_RECEIVED: usize = 64 * 1_024;

/// What a run is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A slot of its journey.
    Slot,
    /// To confirm the failure of a slot's run.
    Confirmation,
    /// To stand in for a run of which a restart left nothing to know.
    Repetition,
    /// Somebody asked for it.
    Asked {
        /// Who.
        by: String,
    },
}

/// A run as the next process finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose run.
    pub journey: Name,
    /// By which definition it runs.
    pub fingerprint: String,
    /// Its token.
    pub token: Token,
    /// Its slot.
    pub slot: Timestamp,
    /// What it is for.
    pub purpose: Purpose,
    /// When this was so.
    pub at: Timestamp,
    /// When the run was made.
    pub made: Timestamp,
    /// When its first step began.
    started: Timestamp,
    /// How long that was ago. All other times count from there.
    #[serde(with = "crate::time::micros")]
    lived: Duration,
    place: Place,
    steps: Vec<Progress>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    captures: BTreeMap<String, String>,
    /// The keys by which its arrivals are known, beside the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<(Name, String)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    payloads: BTreeMap<usize, Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arrivals: Vec<Landed>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    gaps: BTreeMap<Name, (UnknownWhy, String)>,
    #[serde(with = "crate::time::micros")]
    path: Duration,
    failure: Option<(Name, Cause)>,
    is_slow: bool,
    unknown: Option<(UnknownWhy, String)>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// The token is on disk; what comes before the first wait may have been done, or not.
    Begun,
    /// A receive waits.
    Receiving { index: usize, began: Mono, until: Mono },
    /// A pause.
    Pausing { index: usize, began: Mono, until: Mono },
    /// A poll is made again and again.
    Polling { index: usize, began: Mono, next: Mono },
    /// A step after a wait is under way.
    Acting { index: usize },
}

/// A message that had come.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Landed {
    channel: Name,
    message: Message,
    at: Mono,
    wall: Timestamp,
    earliest: Mono,
    used_by: Option<usize>,
}

impl PartialEq for Landed {
    fn eq(&self, other: &Landed) -> bool {
        let whole = |landed: &Landed| (landed.at, landed.wall, landed.earliest, landed.used_by);
        self.channel == other.channel && whole(self) == whole(other) && is_same(&self.message, &other.message)
    }
}

/// Whether another process took this stamp: on our monotonic clock it has no time.
pub(super) fn is_from_before(at: Now) -> bool {
    at.mono == Mono::default()
}

/// Whether two messages are one that was handed out twice.
fn is_same(one: &Message, other: &Message) -> bool {
    one.part == other.part && one.body == other.body
}

/// What is different for a run that is gone on with. Its own clock is the process's and `shift`.
#[derive(Debug)]
pub(super) struct Resumed {
    shift: Duration,
    /// On the run's own clock, as all that follows: the last sign of the process before.
    from: Mono,
    /// When it was gone on with.
    to: Mono,
    /// When the receivers were ready, or we no longer waited for them.
    ready: Mono,
    place: Place,
    /// Sends of which nobody knows whether they left.
    unsure: BTreeSet<usize>,
    /// Arrivals of before, by their place, that were not handed out again yet.
    left: BTreeSet<usize>,
}

impl Checkpoint {
    /// Whether the journey is still what the run began with.
    pub fn fits(&self, journey: &Journey) -> bool {
        self.fingerprint == journey.fingerprint && self.steps.len() == journey.steps.len()
    }

    /// Takes secrets out of what is only shown; `None` if one is in what is used, so that this must not be written down.
    pub fn redacted(mut self, redact: impl Fn(&str) -> Option<String>) -> Option<Checkpoint> {
        let used = self.captures.values().chain(self.keys.iter().map(|(_, key)| key));
        if used.into_iter().any(|text| redact(text).is_some()) {
            return None;
        }
        let received: usize = self.arrivals.iter().map(|landed| landed.message.body.len()).sum();
        if received > MOST_RECEIVED {
            return None;
        }
        let apply = |text: &mut String| {
            if let Some(clean) = redact(text) {
                *text = clean;
            }
        };
        self.steps.iter_mut().for_each(|step| step.redact(&redact));
        self.arrivals.iter_mut().for_each(|landed| landed.message.redact(&redact));
        self.gaps.values_mut().for_each(|(_, said)| apply(said));
        if let Some((_, said)) = &mut self.unknown {
            apply(said);
        }
        Some(self)
    }
}

impl Run {
    /// What somebody would need to go on with it from here; `None` if there is nothing to go on with.
    pub fn checkpoint(&self, purpose: Purpose, now: Now) -> Option<Checkpoint> {
        let now = self.local(now);
        let started = self.started.unwrap_or(now);
        let since = |at: Mono| Mono(at.since(started.mono));
        let place = match &self.state {
            State::Preparing | State::Done => return None,
            State::Recording => Place::Begun,
            State::Working { index, began, activity } => {
                let (index, began) = (*index, since(*began));
                match activity {
                    Activity::Receiving { until } => Place::Receiving { index, began, until: since(*until) },
                    Activity::Pausing { until } => Place::Pausing { index, began, until: since(*until) },
                    Activity::Between { next } => Place::Polling { index, began, next: since(*next) },
                    Activity::Performing { .. } if self.journey.steps[index].poll.is_some() => {
                        Place::Polling { index, began, next: since(now.mono) }
                    }
                    Activity::Performing { .. } if self.has_waited => Place::Acting { index },
                    Activity::Performing { .. } => Place::Begun,
                }
            }
        };
        let step = |progress: &Progress| {
            let sent = progress.sent.as_deref().map(|sent| Box::new(Sent { started: since(sent.started), ..*sent }));
            Progress { sent, ..progress.clone() }
        };
        let landed = |arrived: &Arrived| Landed {
            channel: arrived.channel.clone(),
            message: Message::clone(&arrived.message),
            at: since(arrived.at.mono),
            wall: arrived.at.wall,
            earliest: since(arrived.earliest),
            used_by: arrived.used_by,
        };
        Some(Checkpoint {
            journey: self.journey.name.clone(),
            fingerprint: self.journey.fingerprint.clone(),
            token: self.token,
            slot: self.slot,
            purpose,
            at: now.wall,
            made: self.scope.now(),
            started: started.wall,
            lived: now.mono.since(started.mono),
            place,
            steps: self.steps.iter().map(step).collect(),
            captures: self.scope.captures().clone(),
            keys: self.keys.clone(),
            payloads: self.payloads.clone(),
            arrivals: self.arrivals.iter().map(landed).collect(),
            gaps: self.gaps.clone(),
            path: self.path,
            failure: self.failure.clone(),
            is_slow: self.is_slow,
            unknown: self.unknown.clone(),
        })
    }

    /// The run of a checkpoint that [fits](Checkpoint::fits). The process before was seen to live at `alive`. It begins with
    /// [`Event::Begin`](crate::journey::run::Event::Begin), as every run does.
    pub fn resume(journey: Arc<Journey>, kept: Checkpoint, alive: Timestamp, now: Now, seed: u64) -> Run {
        let shift = kept.lived + between(kept.at, now.wall);
        let origin = now.mono;
        let at = |offset: Mono| origin + offset.0;
        let to = origin + shift;
        let from = (origin + kept.lived + between(kept.at, alive)).min(to);
        let step = |progress: Progress| {
            let sent = progress.sent.map(|sent| Box::new(Sent { started: at(sent.started), ..*sent }));
            Progress { sent, ..progress }
        };
        let arrived = |landed: Landed| Arrived {
            channel: landed.channel,
            message: Arc::new(landed.message),
            at: Now { wall: landed.wall, mono: at(landed.at) },
            earliest: at(landed.earliest),
            used_by: landed.used_by,
        };
        let place = match kept.place {
            Place::Receiving { index, began, until } => Place::Receiving { index, began: at(began), until: at(until) },
            Place::Pausing { index, began, until } => Place::Pausing { index, began: at(began), until: at(until) },
            Place::Polling { index, began, next } => Place::Polling { index, began: at(began), next: at(next) },
            place @ (Place::Begun | Place::Acting { .. }) => place,
        };
        let left = (0..kept.arrivals.len()).collect();
        // What was drawn before is not drawn again.
        let scope = Scope::new(kept.token, journey.name.clone(), kept.made, seed).with_captures(kept.captures);
        Run {
            token: kept.token,
            slot: kept.slot,
            scope,
            state: State::Preparing,
            started: Some(Now { wall: kept.started, mono: origin }),
            steps: kept.steps.into_iter().map(step).collect(),
            payloads: kept.payloads,
            arrivals: kept.arrivals.into_iter().map(arrived).collect(),
            gaps: kept.gaps,
            keys: kept.keys,
            path: kept.path,
            failure: kept.failure,
            is_slow: kept.is_slow,
            unknown: kept.unknown,
            has_waited: true,
            resumed: Some(Box::new(Resumed { shift, from, to, ready: to, place, unsure: BTreeSet::new(), left })),
            journey,
        }
    }

    /// Whether it only waits, so that another process can go on with it as well.
    pub fn is_waiting(&self) -> bool {
        let State::Working { activity, .. } = &self.state else { return false };
        let is_kept = self.journey.steps.iter().any(|step| matches!(step.verb, Verb::Receive(_)));
        is_kept && !matches!(activity, Activity::Performing { .. })
    }

    /// Where it stands, as far as it matters to whoever would go on with it.
    pub(super) fn mark(&self) -> Option<(usize, bool)> {
        let State::Working { index, activity, .. } = &self.state else { return None };
        let is_acting = matches!(activity, Activity::Performing { .. }) && self.journey.steps[*index].poll.is_none();
        Some((*index, is_acting))
    }

    /// Whether it stands elsewhere than `before`, where somebody could go on with it. What it was gone on with from is kept
    /// already, with the time at which that was so.
    pub(super) fn is_worth_keeping(&self, before: Option<(usize, bool)>) -> bool {
        let mark = self.mark();
        let is_taken_up = self.resumed.is_some() && before.is_none();
        mark.is_some() && mark != before && !is_taken_up && (self.has_waited || self.is_waiting())
    }

    /// `at` on the run's own clock.
    pub(super) fn local(&self, at: Now) -> Now {
        let (Some(resumed), Some(started)) = (&self.resumed, self.started) else { return at };
        let mono = match is_from_before(at) {
            true => (started.mono + between(started.wall, at.wall)).min(resumed.to),
            false => at.mono + resumed.shift,
        };
        Now { mono, ..at }
    }

    /// `at`, which is on the run's own clock, on the process's.
    pub(super) fn outside(&self, at: Mono) -> Mono {
        self.resumed.as_ref().map_or(at, |resumed| at - resumed.shift)
    }

    /// How long nobody was there: no step that begins afterwards has less time for it.
    pub(super) fn away(&self) -> Duration {
        self.resumed.as_ref().map_or(Duration::ZERO, |resumed| resumed.to.since(resumed.from))
    }

    /// Until when nothing is said not to have come to this step. Where nothing was kept, there is only to be taken what was
    /// acknowledged before.
    pub(super) fn patience(&self, index: usize) -> Mono {
        let channel = self.journey.steps[index].verb.channel();
        let is_blind = channel.is_some_and(|channel| self.gaps.contains_key(channel));
        let looks = if is_blind { Duration::ZERO } else { LOOK_BACK };
        self.resumed.as_ref().map_or(Mono::default(), |resumed| resumed.ready + looks)
    }

    /// Whether what this send brings may have come while nobody was there.
    pub(super) fn is_across(&self, send: usize) -> bool {
        let sent = self.steps[send].sent.as_deref();
        self.resumed.as_ref().is_some_and(|resumed| sent.is_some_and(|sent| sent.started < resumed.to))
    }

    /// Whether a wait until then ended before nobody was there.
    pub(super) fn is_before_gap(&self, until: Mono) -> bool {
        self.resumed.as_ref().is_some_and(|resumed| until <= resumed.from)
    }

    /// Whether nobody knows if this send left.
    pub(super) fn is_unsure(&self, send: usize) -> bool {
        self.resumed.as_ref().is_some_and(|resumed| resumed.unsure.contains(&send))
    }

    /// The least that can be said of when a message came that this process saw `at`, on the run's own clock.
    pub(super) fn earliest(&self, message: &Message, at: Now) -> Mono {
        let (Some(resumed), Some(started)) = (&self.resumed, self.started) else { return at.mono };
        // The system's clock is not ours; it proves nothing beyond what is possible.
        let stored = message.stored.map(|stored| started.mono + between(started.wall, stored));
        stored.unwrap_or(resumed.from).max(resumed.from).min(at.mono)
    }

    /// Whether the message is one that had come before, and was handed out again because nobody had acknowledged it.
    pub(super) fn is_handed_out_again(&mut self, channel: &Name, message: &Message) -> bool {
        let Some(resumed) = &mut self.resumed else { return false };
        let arrivals = &self.arrivals;
        let again = resumed.left.iter().copied().find(|at| {
            let before = &arrivals[*at];
            before.channel == *channel && is_same(&before.message, message)
        });
        again.is_some_and(|at| resumed.left.remove(&at))
    }

    /// What the evidence says of an arrival that may have come while nobody was there.
    pub(super) fn across(&self, from: Mono, earliest: Mono, arrived: &Arrived) -> Option<String> {
        if earliest == arrived.at.mono {
            return None;
        }
        let [least, most] = [earliest, arrived.at.mono].map(|at| Human(at.since(from)));
        Some(match arrived.message.stored {
            Some(_) => format!("measured over a restart, by the system's own clock: seen after {most}"),
            None => format!("measured over a restart: it took at least {least} and at most {most}"),
        })
    }

    /// The receivers are ready, or will not be soon: goes on where the run was left.
    pub(super) fn take_up(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(resumed) = &mut self.resumed else { return };
        resumed.ready = now.mono;
        let place = resumed.place;
        match place {
            Place::Begun => self.take_up_begun(now, actions),
            Place::Receiving { index, began, until } => {
                self.state = State::Working { index, began, activity: Activity::Receiving { until } };
                self.resume_receive(now, actions);
            }
            Place::Pausing { index, began, until } => {
                self.state = State::Working { index, began, activity: Activity::Pausing { until } };
            }
            Place::Polling { index, began, next } => {
                self.state = State::Working { index, began, activity: Activity::Between { next } };
            }
            Place::Acting { index } => self.take_up_act(index, now, actions),
        }
    }

    /// Nothing that an answer would have held is known. If the message left all the same, its arrival says so.
    fn take_up_begun(&mut self, now: Now, actions: &mut Vec<Action>) {
        let journey = self.journey.clone();
        let first = journey.steps.iter().position(|step| matches!(step.verb, Verb::Receive(_))).unwrap_or(0);
        let only_sends = journey.steps[..first].iter().all(|step| {
            matches!(step.verb, Verb::Send(_) | Verb::Pause(_)) && step.capture.is_empty() && step.when.is_none()
        });
        if !only_sends {
            self.give_up(UnknownWhy::Restart, "the daemon ended before the run had sent all that it sends".to_owned());
            // Only clean-up is left to do.
            return self.begin(0, now, actions);
        }
        for index in 0..first {
            if matches!(journey.steps[index].verb, Verb::Send(_)) {
                self.doubt(index);
            }
        }
        self.begin(first, now, actions);
    }

    /// The step was under way. What only looks is done again; a message may have left.
    fn take_up_act(&mut self, index: usize, now: Now, actions: &mut Vec<Action>) {
        let journey = self.journey.clone();
        let step = &journey.steps[index];
        let cut = format!("the daemon ended in the middle of `{}`, and nobody knows whether it was done", step.name);
        match &step.verb {
            Verb::Check(_) => return self.begin(index, now, actions),
            Verb::Send(_) if step.capture.is_empty() && self.is_awaited(index) => self.doubt(index),
            _ if step.always => self.fail(index, Cause::Uncertain, cut),
            _ => {
                self.steps[index].status = StepStatus::Warned;
                self.steps[index].evidence().detail = Some(cut.clone());
                self.give_up(UnknownWhy::Restart, cut);
            }
        }
        self.begin(index + 1, now, actions);
    }

    fn doubt(&mut self, index: usize) {
        let started = self.steps[index].sent.as_deref().map(|sent| sent.started);
        let started = started.or(self.started.map(|started| started.mono)).unwrap_or_default();
        self.steps[index].sent = Some(Box::new(Sent { started, path: self.path, uncertain: true }));
        self.steps[index].status = StepStatus::Warned;
        let detail = "the daemon ended while this was being sent, and nobody knows whether it left";
        self.steps[index].evidence().detail = Some(detail.to_owned());
        if let Some(resumed) = &mut self.resumed {
            resumed.unsure.insert(index);
        }
    }
}

#[cfg(test)]
mod tests;
