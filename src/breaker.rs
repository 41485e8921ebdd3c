//! The breaker: whether a system that has failed is called again. One machine for channels and notifiers, pure and of constant size.
//!
//! `closed → open → half-open → closed`. Time is monotonic, and chance is an argument. A call takes a ticket and gives it back with
//! what came of it; a ticket from before the last change decides nothing any more. What is refused here was never sent, and whoever
//! asks says so: a breaker hides no evidence, it names the cause once.

mod count;
mod order;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::breaker::count::{Streak, Window};
use crate::time::{Human, Mono};

pub use order::{Force, Guarded, LONGEST_ORDER, Order};

/// What a breaker goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// So many failures in a row open it.
    pub failures: u32,
    /// If they are spread over so long, as the failures of the share below: what lasts no longer is a blip, and would be made longer
    /// by an open breaker.
    pub over: Duration,
    /// It takes failures of more than one caller: what only one meets is its own.
    pub needs_many: bool,
    /// So large a share of failures opens it as well,
    pub share: f64,
    /// of so many calls,
    pub calls: u32,
    /// within so long.
    pub within: Duration,
    /// It is open for so long,
    pub open: Duration,
    /// each time so many times longer,
    pub factor: u32,
    /// up to this;
    pub longest: Duration,
    /// spread by this share either way.
    pub jitter: f64,
    /// So many successes close it.
    pub successes: u32,
    /// It refuses nothing, and only shows what it would do.
    pub observes: bool,
}

impl Settings {
    /// Of a channel that several journeys share.
    pub const CHANNEL: Settings = Settings { over: Duration::from_secs(5), needs_many: true, ..Settings::NOTIFIER };

    /// Of a notifier.
    pub const NOTIFIER: Settings = Settings {
        failures: 3,
        over: Duration::ZERO,
        needs_many: false,
        share: 0.5,
        calls: 10,
        within: Duration::from_secs(120),
        open: Duration::from_secs(15),
        factor: 3,
        longest: Duration::from_secs(600),
        jitter: 0.2,
        successes: 2,
        observes: false,
    };

    /// How long it is open after `level` trials failed in a row, `chance` in `0..1` spreading it.
    fn open_for(&self, level: u32, chance: f64) -> Duration {
        let full = self.open.saturating_mul(self.factor.saturating_pow(level)).min(self.longest);
        full.mul_f64(1.0 + self.jitter * (2.0 * chance.clamp(0.0, 1.0) - 1.0))
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// Nothing goes through but what has to.
    Open,
    /// One call at a time goes through, to see.
    HalfOpen,
    /// Somebody wants nothing to go through.
    ForcedOpen,
    /// Somebody wants everything to go through.
    ForcedClosed,
    /// Everything goes through; it only shows what it would do.
    ObserveOnly,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::ForcedClosed, State::ObserveOnly];

    /// Its stable text form.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::ForcedOpen => "forced_open",
            State::ForcedClosed => "forced_closed",
            State::ObserveOnly => "observe_only",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half open",
            State::ForcedOpen => "forced open",
            State::ForcedClosed => "forced closed",
            State::ObserveOnly => "only observing",
        }
    }

    /// Whether calls are refused in it.
    pub fn refuses(self) -> bool {
        matches!(self, State::Open | State::HalfOpen | State::ForcedOpen)
    }
}

/// How much a call wants to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// If it may.
    Usual,
    /// It has gone without for too long, or is the one that keeps trying: it is the trial, or goes beside the one under way.
    Owed,
    /// What it belongs to has begun, and is not to be left half done.
    Begun,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The system was there, whatever it said.
    Worked,
    /// It was not.
    Failed {
        /// It asked not to be called for so long.
        after: Option<Duration>,
    },
    /// Nothing is known of the system: nothing was sent, or it wants fewer calls.
    Ignored,
}

/// What was seen of a call, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it ended.
    pub at: Mono,
    /// What came of it: `ok`, or a cause.
    pub cause: &'static str,
    /// Which call it was: a run's token, a delivery's id.
    pub tag: Arc<str>,
}

/// That a breaker changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Mono,
    /// From what.
    pub from: State,
    /// To what.
    pub to: State,
    /// Why, for people.
    pub why: String,
    /// The last calls before.
    pub samples: Vec<Sample>,
}

/// Leave for one call. It is to be given back by [`Breaker::end`] or [`Breaker::cancel`].
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    id: u64,
    epoch: u64,
    who: u64,
}

/// No leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Until then at least, as far as is known; a trial may be under way.
    pub until: Mono,
}

/// A caller that speaks for all of them.
pub const EVERYBODY: u64 = u64::MAX;
/// The cause of a call that worked.
pub const OK: &str = "ok";
/// So many calls are remembered,
const SAMPLES: usize = 10;
/// and so many changes.
const TRANSITIONS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open {
        until: Mono,
    },
    /// `until` is until when it would have been open.
    HalfOpen {
        until: Mono,
        successes: u32,
        trial: Option<Trial>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    id: u64,
    deadline: Mono,
}

/// A breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    phase: Phase,
    forced: Option<(Order, Mono)>,
    /// Tickets of an earlier one decide nothing.
    epoch: u64,
    issued: u64,
    /// Trials that failed in a row.
    level: u32,
    streak: Streak,
    window: Window,
    /// When it last ceased to be closed.
    left: Option<Mono>,
    samples: VecDeque<Sample>,
    transitions: VecDeque<Transition>,
    counts: [u64; State::ALL.len()],
    /// Time does not go back, in whatever order callers come.
    last: Mono,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: Settings) -> Breaker {
        Breaker {
            settings,
            phase: Phase::Closed,
            forced: None,
            epoch: 0,
            issued: 0,
            level: 0,
            streak: Streak::default(),
            window: Window::default(),
            left: None,
            samples: VecDeque::with_capacity(SAMPLES),
            transitions: VecDeque::with_capacity(TRANSITIONS),
            counts: [0; State::ALL.len()],
            last: Mono::default(),
        }
    }

    /// Open until then, as it was left by the process before.
    pub fn resume_open(&mut self, until: Mono, now: Mono) {
        self.left = Some(now);
        self.change(Phase::Open { until }, now, "it was open when the daemon stopped".to_owned());
    }

    /// Whether it only observes, from now on.
    pub fn set_observes(&mut self, observes: bool) {
        self.settings.observes = observes;
    }

    /// Whether a call may go through; `who` is who calls, and `limit` how long it may take at most.
    ///
    /// # Errors
    /// It may not.
    pub fn admit(&mut self, need: Need, who: u64, limit: Duration, now: Mono, chance: f64) -> Result<Ticket, Refused> {
        let now = self.pass_time(now, chance);
        self.issued += 1;
        let trial = Some(Trial { id: self.issued, deadline: now + limit });
        let force = self.force();
        if force == Some(Force::Open) {
            return Err(Refused { until: self.forced.as_ref().map_or(now, |(_, until)| *until) });
        }
        let must = need != Need::Usual || force.is_some();
        match &mut self.phase {
            Phase::Closed => {}
            Phase::Open { until } if now >= *until || need == Need::Owed => {
                let (until, why) = (*until, if now >= *until { "it is time to try" } else { "one has to try" });
                self.change(Phase::HalfOpen { until, successes: 0, trial }, now, why.to_owned());
            }
            Phase::HalfOpen { trial: under_way @ None, .. } => *under_way = trial,
            Phase::Open { .. } | Phase::HalfOpen { .. } if must => {}
            Phase::Open { until } | Phase::HalfOpen { until, .. } => return Err(Refused { until: *until }),
        }
        Ok(Ticket { id: self.issued, epoch: self.epoch, who })
    }

    /// Takes what came of a call.
    pub fn end(&mut self, ticket: Ticket, verdict: Verdict, sample: Sample, chance: f64) {
        let now = self.pass_time(sample.at, chance);
        let cause = sample.cause;
        self.remember(sample);
        if ticket.epoch != self.epoch {
            return;
        }
        match &mut self.phase {
            Phase::Closed => self.count(verdict, ticket.who, cause, now, chance),
            Phase::HalfOpen { successes, trial, .. } if trial.is_some_and(|trial| trial.id == ticket.id) => {
                *trial = None;
                match verdict {
                    Verdict::Ignored => {}
                    Verdict::Failed { after } => self.reopen(after, format!("the trial failed: {cause}"), now, chance),
                    Verdict::Worked => {
                        *successes += 1;
                        if *successes >= self.settings.successes {
                            self.close(now);
                        }
                    }
                }
            }
            // Beside the trial: what it saw is remembered, and the trial decides.
            Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
    }

    /// Takes that a call was given up. Its leave is free again; a trial that nobody waited for has failed.
    pub fn cancel(&mut self, ticket: Ticket, tag: Arc<str>, now: Mono, chance: f64) {
        let is_trial = matches!(&self.phase, Phase::HalfOpen { trial: Some(trial), .. } if trial.id == ticket.id);
        let verdict = if is_trial { Verdict::Failed { after: None } } else { Verdict::Ignored };
        self.end(ticket, verdict, Sample { at: now, cause: "given_up", tag }, chance);
    }

    /// Takes what was seen beside all calls, by somebody who speaks for all callers: a reader that lost its connection, or has it
    /// again. What works for it may at once be tried by others.
    pub fn witness(&mut self, verdict: Verdict, sample: Sample, chance: f64) {
        let now = self.pass_time(sample.at, chance);
        let (cause, is_ordered) = (sample.cause, self.is_ordered());
        self.remember(sample);
        match &mut self.phase {
            Phase::Closed if !is_ordered => self.count(verdict, EVERYBODY, cause, now, chance),
            Phase::Open { until } if verdict == Verdict::Worked => *until = now.min(*until),
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
    }

    /// Takes what somebody wants of it from now on; `None` is that it goes by itself. `until` is when that ends.
    pub fn obey(&mut self, order: Option<Order>, until: Mono, now: Mono) {
        let now = self.pass_time(now, 0.5);
        let until = until.min(now + LONGEST_ORDER);
        match order {
            Some(order) => {
                let why = format!("{} wants it {}: {}", order.by, order.to, order.reason);
                let next = if order.to == Force::Observe && !self.is_ordered() { self.phase } else { Phase::Closed };
                let from = self.state();
                self.forced = Some((order, until));
                self.enter(next, now);
                self.take_down(from, self.state(), now, why);
            }
            None if self.forced.is_some() => self.set_free(now, "nobody wants it otherwise any more"),
            None => {}
        }
    }

    /// Lets time pass: orders end, and a trial that gives no answer has failed. Gives the time.
    pub fn pass_time(&mut self, now: Mono, chance: f64) -> Mono {
        let now = now.max(self.last);
        self.last = now;
        if self.forced.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.set_free(now, "the time for which somebody wanted it otherwise is over");
        }
        if matches!(self.phase, Phase::HalfOpen { trial: Some(trial), .. } if trial.deadline <= now) {
            self.reopen(None, "the trial gave no answer in time".to_owned(), now, chance);
        }
        now
    }

    fn set_free(&mut self, now: Mono, why: &str) {
        let (from, next) = (self.state(), if self.is_ordered() { Phase::Closed } else { self.phase });
        self.forced = None;
        self.enter(next, now);
        self.take_down(from, self.state(), now, why.to_owned());
    }

    fn count(&mut self, verdict: Verdict, who: u64, cause: &str, now: Mono, chance: f64) {
        let Verdict::Failed { after } = verdict else {
            if verdict == Verdict::Worked {
                self.streak = Streak::default();
                self.window.add(false, who, now, self.settings.within);
            }
            return;
        };
        self.streak.add(who, now);
        self.window.add(true, who, now, self.settings.within);
        let is_streak = self.streak.is_enough(&self.settings, now);
        let (calls, failures) = self.window.sum(now, self.settings.within);
        let why = if is_streak {
            format!("{} failures in a row, the last: {cause}", self.streak.count())
        } else if self.window.is_enough(&self.settings, now) {
            format!("{failures} of {calls} calls within {} failed, the last: {cause}", Human(self.settings.within))
        } else {
            return;
        };
        self.level = 0;
        self.left = Some(now);
        self.open(after, why, now, chance);
    }

    /// Whoever had to try before its time changes nothing about that time.
    fn reopen(&mut self, after: Option<Duration>, why: String, now: Mono, chance: f64) {
        match self.phase {
            Phase::HalfOpen { until, .. } if now < until => {
                let until = until.max(now + after.unwrap_or_default());
                self.change(Phase::Open { until }, now, why);
            }
            _ => {
                self.level = self.level.saturating_add(1);
                self.open(after, why, now, chance);
            }
        }
    }

    fn open(&mut self, after: Option<Duration>, why: String, now: Mono, chance: f64) {
        let length = self.settings.open_for(self.level, chance).max(after.unwrap_or_default());
        self.change(Phase::Open { until: now + length }, now, why);
    }

    fn close(&mut self, now: Mono) {
        let why = format!("{} calls in a row worked", self.settings.successes);
        self.change(Phase::Closed, now, why);
    }

    fn change(&mut self, phase: Phase, now: Mono, why: String) {
        let from = self.would_be();
        self.enter(phase, now);
        self.take_down(from, self.would_be(), now, why);
    }

    fn enter(&mut self, phase: Phase, now: Mono) {
        // The trial that begins belongs to what it is to decide.
        self.epoch += u64::from(!matches!(phase, Phase::HalfOpen { .. }));
        self.phase = phase;
        (self.streak, self.window) = Default::default();
        self.left = match (self.force(), phase) {
            (Some(Force::Open), _) => self.left.or(Some(now)),
            (_, Phase::Closed) => None,
            (_, Phase::Open { .. } | Phase::HalfOpen { .. }) => self.left,
        };
    }

    fn take_down(&mut self, from: State, to: State, now: Mono, why: String) {
        self.counts[to as usize] += 1;
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        let samples = self.samples.iter().cloned().collect();
        self.transitions.push_back(Transition { at: now, from, to, why, samples });
    }

    fn remember(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    fn force(&self) -> Option<Force> {
        let observes = self.settings.observes.then_some(Force::Observe);
        self.forced.as_ref().map(|(order, _)| order.to).or(observes)
    }

    /// Whether somebody decides for it, so that it counts nothing.
    fn is_ordered(&self) -> bool {
        matches!(self.force(), Some(Force::Open | Force::Closed))
    }
}

#[cfg(test)]
mod tests;
