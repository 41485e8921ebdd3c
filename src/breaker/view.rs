//! What can be asked of a breaker.

use crate::breaker::{Breaker, Force, Order, Phase, Sample, State, Ticket, Transition};
use crate::time::Mono;

impl Breaker {
    /// Where it stands.
    pub fn state(&self) -> State {
        match self.force() {
            Some(Force::Open) => State::ForcedOpen,
            Some(Force::Closed) => State::ForcedClosed,
            Some(Force::Observe) => State::ObserveOnly,
            None => self.would_be(),
        }
    }

    /// Where it would stand if it refused anything.
    pub fn would_be(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Whether it refuses nothing, unless somebody wants it to.
    pub fn observes(&self) -> bool {
        self.settings.observes
    }

    /// Until when it is open, if it is.
    pub fn open_until(&self) -> Option<Mono> {
        match (self.force(), self.phase) {
            (Some(Force::Open), _) => self.forced.as_ref().map(|(_, until)| *until),
            (Some(Force::Closed), _) | (_, Phase::Closed) => None,
            (_, Phase::Open { until } | Phase::HalfOpen { until, .. }) => Some(until),
        }
    }

    /// When it last ceased to be closed, if it has not closed since.
    pub fn left_closed(&self) -> Option<Mono> {
        self.left
    }

    /// What somebody wants of it, and until when.
    pub fn order(&self) -> Option<(&Order, Mono)> {
        self.forced.as_ref().map(|(order, until)| (order, *until))
    }

    /// Whether the call that got this leave still decides anything; if not, the breaker has changed since.
    pub fn is_current(&self, ticket: &Ticket) -> bool {
        ticket.epoch == self.epoch
    }

    /// When time alone changes something.
    pub fn deadline(&self) -> Option<Mono> {
        let trial = match self.phase {
            Phase::HalfOpen { trial: Some(trial), .. } => Some(trial.deadline),
            _ => None,
        };
        trial.into_iter().chain(self.forced.as_ref().map(|(_, until)| *until)).min()
    }

    /// The last changes, oldest first.
    pub fn transitions(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.transitions.iter()
    }

    /// The last calls, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// How often it came to each state, in the order of [`State::ALL`].
    pub fn counts(&self) -> [u64; State::ALL.len()] {
        self.counts
    }

    /// How often it changed.
    pub fn changes(&self) -> u64 {
        self.counts.iter().sum()
    }
}
