//! What a closed breaker counts: failures in a row, and their share of the last calls.

use std::time::Duration;

use crate::breaker::{EVERYBODY, Settings};
use crate::time::Mono;

/// The window is counted in so many parts, and moves by one of them.
const PARTS: usize = 12;

/// Whose failures they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Callers {
    #[default]
    Nobody,
    One(u64),
    Many,
}

impl Callers {
    fn and(self, who: u64) -> Callers {
        match self {
            Callers::Nobody if who != EVERYBODY => Callers::One(who),
            Callers::One(known) if known == who => self,
            Callers::Nobody | Callers::One(_) | Callers::Many => Callers::Many,
        }
    }

    fn and_those(self, others: Callers) -> Callers {
        match others {
            Callers::Nobody => self,
            Callers::One(who) => self.and(who),
            Callers::Many => Callers::Many,
        }
    }

    fn are_enough(self, settings: &Settings) -> bool {
        !settings.needs_many || self == Callers::Many
    }
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streak {
    count: u32,
    since: Mono,
    callers: Callers,
}

impl Streak {
    pub(super) fn add(&mut self, who: u64, now: Mono) {
        if self.count == 0 {
            self.since = now;
        }
        self.count = self.count.saturating_add(1);
        self.callers = self.callers.and(who);
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn is_enough(&self, settings: &Settings, now: Mono) -> bool {
        self.count >= settings.failures && now.since(self.since) >= settings.over && self.callers.are_enough(settings)
    }
}

/// The last calls, part by part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    parts: [Part; PARTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Which part of all time it is.
    number: u128,
    calls: u32,
    failures: u32,
    /// When the first of them was.
    since: Mono,
    callers: Callers,
}

/// Which part of all time `now` lies in.
fn number(now: Mono, within: Duration) -> u128 {
    now.0.as_nanos() / (within.as_nanos() / PARTS as u128).max(1)
}

impl Window {
    pub(super) fn add(&mut self, has_failed: bool, who: u64, now: Mono, within: Duration) {
        let number = number(now, within);
        let part = &mut self.parts[(number % PARTS as u128) as usize];
        if part.number != number {
            *part = Part { number, ..Part::default() };
        }
        part.calls = part.calls.saturating_add(1);
        if has_failed {
            if part.failures == 0 {
                part.since = now;
            }
            part.failures = part.failures.saturating_add(1);
            part.callers = part.callers.and(who);
        }
    }

    fn current(&self, now: Mono, within: Duration) -> impl Iterator<Item = &Part> {
        let number = number(now, within);
        self.parts.iter().filter(move |part| part.number + PARTS as u128 > number)
    }

    /// Calls, and how many of them failed.
    pub(super) fn sum(&self, now: Mono, within: Duration) -> (u32, u32) {
        self.current(now, within).fold((0, 0), |(calls, failures), part| (calls + part.calls, failures + part.failures))
    }

    pub(super) fn is_enough(&self, settings: &Settings, now: Mono) -> bool {
        let (calls, failures) = self.sum(now, settings.within);
        let callers =
            self.current(now, settings.within).fold(Callers::Nobody, |callers, part| callers.and_those(part.callers));
        let failed = self.current(now, settings.within).filter(|part| part.failures > 0);
        let since = failed.map(|part| part.since).min().unwrap_or(now);
        calls >= settings.calls
            && now.since(since) >= settings.over
            && f64::from(failures) >= settings.share * f64::from(calls)
            && callers.are_enough(settings)
    }
}
