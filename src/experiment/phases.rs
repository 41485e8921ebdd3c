//! The order of things in an experiment, as a machine: events in, actions out, no clock and no process.
//!
//! `Idle` → `Steady` → for each phase: asked for, cut, proven, lasting, healed → `Draining` → `Done`. Whatever happens on the way,
//! each fault that was begun is undone once, and the end comes after that.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::experiment::report::Ending;
use crate::time::{Human, Mono};

/// A hand on the switch is waited for so long; what is not wanted by then is not wanted.
pub const ASK_WITHIN: Duration = Duration::from_secs(600);

/// The order of things, as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// For so long nothing is cut, and the hypothesis must hold.
    pub steady: Option<Duration>,
    /// One after the other.
    pub phases: Vec<Phase>,
    /// After the last one, what is on its way has so long.
    pub drain: Duration,
}

impl Script {
    /// The longest that traffic can go on, hands on switches and slow commands apart.
    pub fn longest(&self) -> Duration {
        let phases = self.phases.iter().map(|phase| phase.proof.unwrap_or_default() + phase.longest);
        self.steady.unwrap_or_default() + phases.sum::<Duration>() + self.drain
    }
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What it is called.
    pub name: String,
    /// A person is asked before it.
    pub asks: bool,
    /// It does something that is to be undone.
    pub acts: bool,
    /// That this took effect must be seen within so long.
    pub proof: Option<Duration>,
    /// It lasts so long from then on.
    pub least: Duration,
    /// After that it is over as soon as it may be, but for `longest`.
    pub looks: bool,
    /// It lasts no longer than this.
    pub longest: Duration,
    /// What it did is undone at the end of the phase of this number: its own, or a later one.
    pub until: usize,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The channels are open, and traffic can begin.
    Begin,
    /// The time that [`Machine::deadline`] gave has come.
    Timer,
    /// Whether the hypothesis held before anything was cut: why not, if not.
    Judged(Result<(), String>),
    /// Whether a person wants the phase.
    Answered(bool),
    /// What a phase does is done, or could not be.
    Acted(Result<(), String>),
    /// It was seen that it took effect.
    Proved,
    /// The phase may be over.
    Over,
    /// The fault of this phase is undone, or nobody could.
    Undone(usize, Result<(), String>),
    /// Everything that was on its way is here.
    AllHere,
    /// A bound that ends the experiment was passed, or it cannot go on.
    Abort(String),
    /// Somebody wants it to end.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Send, until told to stop.
    StartTraffic,
    /// Send no more.
    StopTraffic,
    /// This part of the experiment begins.
    Enter(Stage),
    /// Look whether the hypothesis holds so far: answer with [`Event::Judged`].
    Judge,
    /// Ask for a hand on the switch of this phase: answer with [`Event::Answered`].
    Ask(usize),
    /// Do what this phase does: answer with [`Event::Acted`].
    Act(usize),
    /// Look until it took effect: answer with [`Event::Proved`].
    Prove(usize),
    /// Look until it may be over: answer with [`Event::Over`].
    Look(usize),
    /// No answer is wanted any more to what was asked for before, and what runs for it is to end.
    Quiet,
    /// Undo what this phase did: answer with [`Event::Undone`].
    Undo(usize),
    /// The end.
    Finish(Finished),
}

/// A part of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before anything is cut.
    Steady,
    /// A phase.
    Phase(usize),
    /// After the last one.
    Drain,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// [`Ending::Held`] if everything was done that was to be done; whether the hypothesis held is another question.
    pub ending: Ending,
    /// Why it came to nothing, if it did.
    pub why: Option<String>,
    /// What was still to come has had its time, or has come.
    pub is_drained: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Steady {
        until: Mono,
    },
    Judging,
    Asking {
        phase: usize,
        until: Mono,
    },
    Acting {
        phase: usize,
    },
    Proving {
        phase: usize,
        until: Mono,
    },
    Lasting {
        phase: usize,
        since: Mono,
        may_end: bool,
    },
    /// Waits for what is being undone.
    Healing {
        then: Then,
    },
    Draining {
        until: Mono,
    },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Phase(usize),
    Drain,
    Finish,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    script: Script,
    state: State,
    /// Faults that were begun, and nobody was told to undo.
    standing: BTreeSet<usize>,
    /// Somebody is at it.
    undoing: BTreeSet<usize>,
    verdict: Option<(Ending, String)>,
}

impl Machine {
    /// A machine that has not begun.
    pub fn new(script: Script) -> Machine {
        Machine { script, state: State::Idle, standing: BTreeSet::new(), undoing: BTreeSet::new(), verdict: None }
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Idle | State::Judging | State::Acting { .. } | State::Healing { .. } | State::Done => None,
            State::Steady { until }
            | State::Asking { until, .. }
            | State::Proving { until, .. }
            | State::Draining { until } => Some(*until),
            State::Lasting { phase, since, .. } => {
                let phase = &self.script.phases[*phase];
                // What may be over already has nothing to wait for but its least.
                Some(*since + if phase.looks && !self.may_end() { phase.longest } else { phase.least })
            }
        }
    }

    /// Whether nothing has gone wrong, and bounds that end it are still of interest.
    pub fn is_under_way(&self) -> bool {
        self.verdict.is_none() && !matches!(self.state, State::Idle | State::Draining { .. } | State::Done)
    }

    /// Whether it waits for what is on its way.
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    fn may_end(&self) -> bool {
        matches!(self.state, State::Lasting { may_end: true, .. })
    }

    /// Takes one event; says what to do, in this order.
    pub fn step(&mut self, event: Event, now: Mono) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(event, now, &mut actions);
        actions
    }

    fn take(&mut self, event: Event, now: Mono, actions: &mut Vec<Action>) {
        match (self.state.clone(), event) {
            (State::Done, _) => {}
            (_, Event::Undone(phase, result)) => self.undone(phase, result, now, actions),
            (State::Idle, Event::Begin) => {
                actions.push(Action::StartTraffic);
                match self.script.steady {
                    Some(steady) => {
                        actions.push(Action::Enter(Stage::Steady));
                        self.state = State::Steady { until: now + steady };
                    }
                    None => self.enter(0, now, actions),
                }
            }
            (State::Idle, Event::Stop | Event::Abort(_)) => {
                self.blame(Ending::Aborted, "it was stopped before it began".to_owned());
                self.finish(false, actions);
            }
            (State::Draining { .. }, Event::Stop) => {
                self.blame(Ending::Aborted, "it was stopped while messages were on their way".to_owned());
                self.finish(false, actions);
            }
            (State::Draining { .. }, Event::AllHere) => self.finish(true, actions),
            (State::Draining { until }, Event::Timer) if now >= until => self.finish(true, actions),
            (State::Healing { then }, Event::Stop) => {
                self.blame(Ending::Aborted, "it was stopped".to_owned());
                self.wind_down(Then::Finish, !matches!(then, Then::Phase(_)), now, actions);
            }
            (State::Healing { then: Then::Phase(_) }, Event::Abort(why)) => {
                self.blame(Ending::Aborted, why);
                self.wind_down(Then::Drain, false, now, actions);
            }
            (_, Event::Stop) => self.end(Ending::Aborted, "it was stopped".to_owned(), Then::Finish, now, actions),
            (State::Healing { .. } | State::Draining { .. }, Event::Abort(_)) => {}
            (_, Event::Abort(why)) => self.end(Ending::Aborted, why, Then::Drain, now, actions),
            (State::Steady { until }, Event::Timer) if now >= until => {
                self.state = State::Judging;
                actions.push(Action::Judge);
            }
            (State::Judging, Event::Judged(Ok(()))) => self.enter(0, now, actions),
            (State::Judging, Event::Judged(Err(why))) => {
                let why = format!("the hypothesis did not hold before anything was cut: {why}");
                self.end(Ending::NotTested, why, Then::Drain, now, actions);
            }
            (State::Asking { phase, .. }, Event::Answered(true)) => self.act(phase, now, actions),
            (State::Asking { phase, .. }, Event::Answered(false)) => {
                let why = format!("phase `{}` was not wanted", self.script.phases[phase].name);
                self.end(Ending::Aborted, why, Then::Drain, now, actions);
            }
            (State::Asking { phase, until }, Event::Timer) if now >= until => {
                let name = &self.script.phases[phase].name;
                let why = format!("nobody said within {} that phase `{name}` may begin", Human(ASK_WITHIN));
                self.end(Ending::Aborted, why, Then::Drain, now, actions);
            }
            (State::Acting { phase }, Event::Acted(Ok(()))) => self.prove(phase, now, actions),
            (State::Acting { phase }, Event::Acted(Err(why))) => {
                let why = format!("what phase `{}` does could not be done: {why}", self.script.phases[phase].name);
                self.end(Ending::NotTested, why, Then::Drain, now, actions);
            }
            (State::Proving { phase, .. }, Event::Proved) => self.last(phase, now, actions),
            (State::Proving { phase, until }, Event::Timer) if now >= until => {
                let Phase { name, proof, .. } = &self.script.phases[phase];
                let within = Human(proof.unwrap_or_default());
                let why = format!("phase `{name}` took no effect: its proof was not seen within {within}");
                self.end(Ending::NotTested, why, Then::Drain, now, actions);
            }
            (State::Lasting { phase, since, .. }, Event::Over) => {
                self.state = State::Lasting { phase, since, may_end: true };
                self.last_on(phase, now, actions);
            }
            (State::Lasting { phase, .. }, Event::Timer) => self.last_on(phase, now, actions),
            // An answer that nobody waits for any more, or a timer that came early.
            (
                State::Idle
                | State::Steady { .. }
                | State::Judging
                | State::Asking { .. }
                | State::Acting { .. }
                | State::Proving { .. }
                | State::Lasting { .. }
                | State::Healing { .. }
                | State::Draining { .. },
                Event::Begin
                | Event::Timer
                | Event::Judged(_)
                | Event::Answered(_)
                | Event::Acted(_)
                | Event::Proved
                | Event::Over
                | Event::AllHere,
            ) => {}
        }
    }

    fn enter(&mut self, phase: usize, now: Mono, actions: &mut Vec<Action>) {
        match self.script.phases.get(phase) {
            None => self.wind_down(Then::Drain, false, now, actions),
            Some(Phase { asks: true, .. }) => {
                self.state = State::Asking { phase, until: now + ASK_WITHIN };
                actions.push(Action::Ask(phase));
            }
            Some(_) => self.act(phase, now, actions),
        }
    }

    fn act(&mut self, phase: usize, now: Mono, actions: &mut Vec<Action>) {
        actions.push(Action::Enter(Stage::Phase(phase)));
        if self.script.phases[phase].acts {
            self.standing.insert(phase);
            self.state = State::Acting { phase };
            actions.push(Action::Act(phase));
        } else {
            self.prove(phase, now, actions);
        }
    }

    fn prove(&mut self, phase: usize, now: Mono, actions: &mut Vec<Action>) {
        match self.script.phases[phase].proof {
            Some(within) => {
                self.state = State::Proving { phase, until: now + within };
                actions.push(Action::Prove(phase));
            }
            None => self.last(phase, now, actions),
        }
    }

    fn last(&mut self, phase: usize, now: Mono, actions: &mut Vec<Action>) {
        self.state = State::Lasting { phase, since: now, may_end: false };
        if self.script.phases[phase].looks {
            actions.push(Action::Look(phase));
        }
    }

    /// Ends the phase if its time is over, or it may be and it has lasted long enough.
    fn last_on(&mut self, phase: usize, now: Mono, actions: &mut Vec<Action>) {
        if self.deadline().is_some_and(|due| now < due) {
            return;
        }
        let Phase { looks, .. } = self.script.phases[phase];
        if looks {
            actions.push(Action::Quiet);
        }
        let over: Vec<_> =
            self.standing.iter().copied().filter(|fault| self.script.phases[*fault].until <= phase).collect();
        if over.is_empty() {
            return self.enter(phase + 1, now, actions);
        }
        self.state = State::Healing { then: Then::Phase(phase + 1) };
        self.undo(over, actions);
    }

    fn undo(&mut self, faults: Vec<usize>, actions: &mut Vec<Action>) {
        // The last that was done is the first that is undone.
        for fault in faults.into_iter().rev() {
            self.standing.remove(&fault);
            self.undoing.insert(fault);
            actions.push(Action::Undo(fault));
        }
    }

    fn undone(&mut self, phase: usize, result: Result<(), String>, now: Mono, actions: &mut Vec<Action>) {
        if !self.undoing.remove(&phase) {
            return;
        }
        if let Err(why) = result {
            let why = format!("what phase `{}` did could not be undone: {why}", self.script.phases[phase].name);
            // Nothing is worse than this.
            self.verdict = Some((Ending::Stuck, why));
            if matches!(self.state, State::Healing { then: Then::Phase(_) }) {
                return self.wind_down(Then::Drain, false, now, actions);
            }
        }
        self.heal_on(now, actions);
    }

    fn heal_on(&mut self, now: Mono, actions: &mut Vec<Action>) {
        let State::Healing { then } = self.state else { return };
        if !self.undoing.is_empty() {
            return;
        }
        match then {
            Then::Phase(phase) => self.enter(phase, now, actions),
            Then::Drain => {
                actions.push(Action::Enter(Stage::Drain));
                self.state = State::Draining { until: now + self.script.drain };
            }
            Then::Finish => self.finish(false, actions),
        }
    }

    /// Ends it before its time: at once, whatever it waits for.
    fn end(&mut self, ending: Ending, why: String, then: Then, now: Mono, actions: &mut Vec<Action>) {
        self.blame(ending, why);
        actions.push(Action::Quiet);
        self.wind_down(then, false, now, actions);
    }

    /// The first that went wrong is what it is called.
    fn blame(&mut self, ending: Ending, why: String) {
        self.verdict.get_or_insert((ending, why));
    }

    fn wind_down(&mut self, then: Then, has_stopped: bool, now: Mono, actions: &mut Vec<Action>) {
        // What is cut is healed before anything else is done.
        let standing = self.standing.iter().copied().collect();
        self.undo(standing, actions);
        if !has_stopped {
            actions.push(Action::StopTraffic);
        }
        self.state = State::Healing { then };
        self.heal_on(now, actions);
    }

    fn finish(&mut self, is_drained: bool, actions: &mut Vec<Action>) {
        self.state = State::Done;
        let (ending, why) = self.verdict.take().map_or((Ending::Held, None), |(ending, why)| (ending, Some(why)));
        actions.push(Action::Finish(Finished { ending, why, is_drained }));
    }
}

#[cfg(test)]
mod tests;
