//! The verdicts of a journey's slots, and what they sum to over its windows: exact, and the same work for each run whatever
//! a window's length.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::journey::outcome::Verdict;
use crate::slo::{Counts, Span, SpanChange};
use crate::time::{earlier, later};

/// One rolling window over the history.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) length: Duration,
    pub(super) counts: Counts,
    /// Slots at or before this have left.
    tail: i64,
}

/// Windows over which burn is reported beside the objective's own.
pub const BURN_WINDOWS: [Duration; 3] =
    [Duration::from_secs(3_600), Duration::from_secs(6 * 3_600), Duration::from_secs(3 * 86_400)];

/// The verdicts of a journey's slots, and what they sum to over its windows.
#[derive(Clone, Debug)]
pub struct History {
    pub(super) spans: VecDeque<Span>,
    /// The objective's window first, then [`BURN_WINDOWS`].
    pub(super) windows: Vec<Window>,
    keep: Duration,
}

impl History {
    /// A history from stored spans, in order of their starts, as it stands at `now`.
    pub fn new(window: Duration, spans: impl IntoIterator<Item = Span>, now: Timestamp) -> History {
        let lengths = std::iter::once(window).chain(BURN_WINDOWS);
        let windows =
            lengths.map(|length| Window { length, counts: Counts::default(), tail: tail(now, length) }).collect();
        let keep = BURN_WINDOWS.into_iter().fold(window, Duration::max);
        let mut history = History { spans: spans.into_iter().collect(), windows, keep };
        for at in 0..history.windows.len() {
            history.windows[at].counts = history.tally(history.windows[at].tail, i64::MAX);
        }
        history
    }

    /// The last slot that has a verdict.
    pub fn last_slot(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.spans.back()?.end()).ok()
    }

    /// Counts a slot. One that is not later than the last is already counted, and ignored: a slot counts once.
    pub fn observe(&mut self, slot: Timestamp, verdict: Verdict) -> Option<SpanChange> {
        let slot = slot.as_millisecond();
        if self.spans.back().is_some_and(|last| slot <= last.end()) {
            return None;
        }
        if !self.spans.back_mut().is_some_and(|last| last.extend(slot, verdict)) {
            self.spans.push_back(Span::one(slot, verdict));
        }
        for window in self.windows.iter_mut().filter(|window| slot > window.tail) {
            window.counts += Counts::of(verdict, 1);
        }
        self.spans.back().map(|span| SpanChange::Put(*span))
    }

    /// Makes a failed slot `late`: its message arrived after all. A slot with any other verdict stays as it is; one that is
    /// `unknown` through a fault of ours does not become the watched system's fault.
    pub fn amend(&mut self, slot: Timestamp) -> Vec<SpanChange> {
        let (slot, verdict) = (slot.as_millisecond(), Verdict::Late);
        let at = self.spans.partition_point(|span| span.end() < slot);
        let is_it = |span: &Span| span.count_in(slot - 1, slot) == 1 && span.verdict == Verdict::Failed;
        let Some(span) = self.spans.get(at).copied().filter(is_it) else {
            return Vec::new();
        };
        let index = if span.step == 0 { 0 } else { ((slot - span.start) / span.step) as u32 };
        let parts: Vec<_> = span.split(index, verdict).collect();
        self.spans.remove(at);
        for (offset, part) in parts.iter().enumerate() {
            self.spans.insert(at + offset, *part);
        }
        for window in self.windows.iter_mut().filter(|window| slot > window.tail) {
            window.counts -= Counts::of(span.verdict, 1);
            window.counts += Counts::of(verdict, 1);
        }
        parts.into_iter().map(SpanChange::Put).collect()
    }

    /// Lets slots leave their windows; spans that no window needs any more are to be deleted.
    pub fn advance(&mut self, now: Timestamp) -> Vec<SpanChange> {
        for at in 0..self.windows.len() {
            let Window { length, tail: old, .. } = self.windows[at];
            let new = tail(now, length).max(old);
            let gone = self.tally(old, new);
            self.windows[at].counts -= gone;
            self.windows[at].tail = new;
        }
        let keep_from = tail(now, self.keep);
        let mut changes = Vec::new();
        // The last span stays: it says which slots are already counted.
        while self.spans.len() > 1 && self.spans.front().is_some_and(|span| span.end() <= keep_from) {
            changes.extend(self.spans.pop_front().map(|span| SpanChange::Delete(span.start)));
        }
        changes
    }

    /// What the slots in `(after, until]` sum to.
    fn tally(&self, after: i64, until: i64) -> Counts {
        let first = self.spans.partition_point(|span| span.end() <= after);
        let mut counts = Counts::default();
        for span in self.spans.range(first..).take_while(|span| span.start <= until) {
            counts += Counts::of(span.verdict, span.count_in(after, until));
        }
        counts
    }

    /// What the slots in `(from, until]` sum to.
    pub fn counts(&self, from: Timestamp, until: Timestamp) -> Counts {
        self.tally(from.as_millisecond(), until.as_millisecond())
    }

    /// When the oldest slot that spends budget leaves the objective's window.
    pub(super) fn next_refund(&self, spends: fn(Verdict) -> bool) -> Option<Timestamp> {
        let window = &self.windows[0];
        let first = self.spans.partition_point(|span| span.end() <= window.tail);
        let span = self.spans.range(first..).find(|span| spends(span.verdict))?;
        let passed = span.count_in(i64::MIN / 2, window.tail) as i64;
        Some(later(Timestamp::from_millisecond(span.start + span.step * passed).ok()?, window.length))
    }
}

fn tail(now: Timestamp, length: Duration) -> i64 {
    earlier(now, length).as_millisecond()
}
