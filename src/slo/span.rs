//! Slots of one verdict at equal distances, and what changes about them: the shape in which a history is kept and stored.

use serde::{Deserialize, Serialize};

use crate::journey::outcome::Verdict;

/// Slots of one verdict at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first slot, in milliseconds since the Unix epoch. Identifies the span.
    pub start: i64,
    /// The distance between slots in milliseconds; zero while there is only one.
    pub step: i64,
    /// How many slots.
    pub count: u32,
    /// Their verdict.
    pub verdict: Verdict,
    /// Whether they lie in maintenance that is left out of the objective. The verdict is what they were all the same.
    pub excluded: bool,
}

impl Span {
    pub(super) fn one(slot: i64, verdict: Verdict, excluded: bool) -> Span {
        Span { start: slot, step: 0, count: 1, verdict, excluded }
    }

    /// Whether there can be such slots: what was read from a store that is damaged may be anything.
    pub fn is_sound(&self) -> bool {
        let is_a_time = |millis: i64| jiff::Timestamp::from_millisecond(millis).is_ok();
        let last = self.step.checked_mul(i64::from(self.count) - 1).and_then(|length| self.start.checked_add(length));
        let is_spaced = self.step > 0 || self.step == 0 && self.count == 1;
        self.count > 0 && is_spaced && is_a_time(self.start) && last.is_some_and(is_a_time)
    }

    pub(super) fn end(&self) -> i64 {
        self.start + self.step * i64::from(self.count - 1)
    }

    /// How many of its slots lie in `(after, until]`.
    pub(super) fn count_in(&self, after: i64, until: i64) -> u64 {
        let up_to = |at: i64| match (at < self.start, self.step) {
            (true, _) => 0,
            (false, 0) => 1,
            (false, step) => (at.saturating_sub(self.start) / step).saturating_add(1).min(i64::from(self.count)),
        };
        (up_to(until) - up_to(after)).max(0) as u64
    }

    /// Its first slot after `after`.
    pub(super) fn first_after(&self, after: i64) -> Option<i64> {
        let passed = self.count_in(i64::MIN / 2, after);
        (passed < u64::from(self.count)).then(|| self.start + self.step * passed as i64)
    }

    /// Takes the next slot in, if it continues the span.
    pub(super) fn extend(&mut self, slot: i64, verdict: Verdict, excluded: bool) -> bool {
        let continues = (verdict, excluded) == (self.verdict, self.excluded)
            && (self.count == 1 || slot == self.end() + self.step)
            && self.count < u32::MAX;
        if continues {
            self.step = slot - self.end();
            self.count += 1;
        }
        continues
    }

    /// The slots before, at and after the `index`th, as spans of their own; the `index`th with this verdict.
    pub(super) fn split(&self, index: u32, verdict: Verdict) -> impl Iterator<Item = Span> {
        let part = |first: u32, count: u32, verdict| Span {
            start: self.start + self.step * i64::from(first),
            step: if count > 1 { self.step } else { 0 },
            count,
            verdict,
            excluded: self.excluded,
        };
        let parts = [
            part(0, index, self.verdict),
            part(index, 1, verdict),
            part(index + 1, self.count - index - 1, self.verdict),
        ];
        parts.into_iter().filter(|part| part.count > 0)
    }
}

/// A change to the kept spans, for the store to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanChange {
    /// Write the span, in place of the one with the same start.
    Put(Span),
    /// Forget the span with this start.
    Delete(i64),
}
