//! The verdicts of a journey's slots, and what they sum to over its windows: exact, and the same work for each run whatever
//! a window's length.
//!
//! Every slot enters each window once and leaves it once; what left is found by a search among the spans. A slot's time - how
//! long until the next one - is known only when that comes, and is added then.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::journey::objective::Window;
use crate::journey::outcome::Verdict;
use crate::slo::counts::Tally;
use crate::slo::{Counts, Span, SpanChange};
use crate::time::earlier;

/// Windows over which burn is reported beside the objective's own.
pub const BURN_WINDOWS: [Duration; 6] = [
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(86_400),
    Duration::from_secs(3 * 86_400),
];

/// What [`BURN_WINDOWS`] are called in metrics and in the API.
pub const BURN_NAMES: [&str; 6] = ["30m", "1h", "2h", "6h", "1d", "3d"];

/// What a verdict can cost budget with.
const SPENDERS: [Verdict; 3] = [Verdict::Slow, Verdict::Failed, Verdict::Late];
/// There is no such slot.
const NEVER: i64 = i64::MAX;

/// One window over the history.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) window: Window,
    pub(super) tally: Tally,
    /// Slots at or before this have left.
    pub(super) tail: i64,
    /// Until then a calendar's window stays where it is.
    until: i64,
}

impl Kept {
    fn new(window: Window, now: Timestamp) -> Kept {
        let (tail, until) = edges(&window, now);
        Kept { window, tally: Tally::default(), tail, until }
    }

    /// The tail at `now`. A clock that stepped back takes nothing in again.
    fn tail_at(&mut self, now: Timestamp) -> i64 {
        if now.as_millisecond() < self.until {
            return self.tail;
        }
        let (tail, until) = edges(&self.window, now);
        self.until = until;
        tail.max(self.tail)
    }
}

/// The last moment before the window, and until when that is so.
fn edges(window: &Window, now: Timestamp) -> (i64, i64) {
    match window {
        Window::Rolling(length) => (tail(now, *length), i64::MIN),
        Window::Calendar(period) => {
            let (from, until) = period.bounds(now);
            (from.as_millisecond() - 1, until.as_millisecond())
        }
    }
}

fn tail(now: Timestamp, length: Duration) -> i64 {
    earlier(now, length).as_millisecond()
}

/// The verdicts of a journey's slots, and what they sum to over its windows.
#[derive(Clone, Debug)]
pub struct History {
    spans: VecDeque<Span>,
    /// The objective's window first, then [`BURN_WINDOWS`].
    pub(super) windows: Vec<Kept>,
    /// The oldest slot in the objective's window of each of [`SPENDERS`], outside maintenance and in it.
    oldest: [[i64; 2]; SPENDERS.len()],
    now: Timestamp,
}

impl History {
    /// A history from stored spans, in order of their starts, as it stands at `now`.
    pub fn new(window: impl Into<Window>, spans: impl IntoIterator<Item = Span>, now: Timestamp) -> History {
        let all = std::iter::once(window.into()).chain(BURN_WINDOWS.map(Window::Rolling));
        let windows = all.map(|window| Kept::new(window, now)).collect();
        let spans = spans.into_iter().collect();
        let mut history = History { spans, windows, oldest: [[i64::MIN; 2]; SPENDERS.len()], now };
        for at in 0..history.windows.len() {
            history.windows[at].tally = history.tally(history.windows[at].tail, i64::MAX);
        }
        history.find_oldest();
        history
    }

    /// The last slot that has a verdict.
    pub fn last_slot(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.spans.back()?.end()).ok()
    }

    /// The last slot's verdict, and whether it lies in maintenance.
    pub(super) fn last(&self) -> Option<(i64, Verdict, bool)> {
        self.spans.back().map(|span| (span.end(), span.verdict, span.excluded))
    }

    /// Counts a slot. One that is not later than the last is already counted, and ignored: a slot counts once.
    pub fn observe(&mut self, slot: Timestamp, verdict: Verdict) -> Option<SpanChange> {
        self.take(slot, verdict, false)
    }

    /// As [`History::observe`], for a slot in maintenance that is left out: its verdict is kept beside that.
    pub fn observe_excluded(&mut self, slot: Timestamp, verdict: Verdict) -> Option<SpanChange> {
        self.take(slot, verdict, true)
    }

    pub(super) fn take(&mut self, slot: Timestamp, verdict: Verdict, excluded: bool) -> Option<SpanChange> {
        let slot = slot.as_millisecond();
        if let Some((before, its_verdict, its_excluded)) = self.last() {
            if slot <= before {
                return None;
            }
            for kept in self.windows.iter_mut().filter(|kept| before > kept.tail) {
                kept.tally.add(its_verdict, its_excluded, 0, slot - before);
            }
        }
        if !self.spans.back_mut().is_some_and(|last| last.extend(slot, verdict, excluded)) {
            self.spans.push_back(Span::one(slot, verdict, excluded));
        }
        for kept in self.windows.iter_mut().filter(|kept| slot > kept.tail) {
            kept.tally.add(verdict, excluded, 1, 0);
        }
        self.is_now_oldest(slot, verdict, excluded);
        self.spans.back().map(|span| SpanChange::Put(*span))
    }

    /// Makes a failed slot `late`: its message arrived after all. A slot with any other verdict stays as it is; one that is
    /// `unknown` through a fault of ours does not become the watched system's fault.
    pub fn amend(&mut self, slot: Timestamp) -> Vec<SpanChange> {
        self.replace(slot, Verdict::Failed, Verdict::Late)
    }

    /// Gives a slot that is `unknown` the verdict that somebody had all the time. A slot with any other verdict stays as it is.
    pub fn learn(&mut self, slot: Timestamp, verdict: Verdict) -> Vec<SpanChange> {
        if verdict == Verdict::Unknown { Vec::new() } else { self.replace(slot, Verdict::Unknown, verdict) }
    }

    fn replace(&mut self, slot: Timestamp, before: Verdict, verdict: Verdict) -> Vec<SpanChange> {
        let slot = slot.as_millisecond();
        let at = self.spans.partition_point(|span| span.end() < slot);
        let is_it = |span: &Span| span.count_in(slot - 1, slot) == 1 && span.verdict == before;
        let Some(span) = self.spans.get(at).copied().filter(is_it) else {
            return Vec::new();
        };
        let index = if span.step == 0 { 0 } else { ((slot - span.start) / span.step) as u32 };
        let time = self.time_of(at, slot - 1, slot);
        let parts: Vec<_> = span.split(index, verdict).collect();
        self.spans.remove(at);
        for (offset, part) in parts.iter().enumerate() {
            self.spans.insert(at + offset, *part);
        }
        for kept in self.windows.iter_mut().filter(|kept| slot > kept.tail) {
            kept.tally.remove(span.verdict, span.excluded, 1, time);
            kept.tally.add(verdict, span.excluded, 1, time);
        }
        if let Some(spender) = SPENDERS.iter().position(|spender| *spender == before)
            && self.oldest[spender][usize::from(span.excluded)] == slot
        {
            self.oldest[spender][usize::from(span.excluded)] = self.next_of(slot, before, span.excluded);
        }
        self.is_now_oldest(slot, verdict, span.excluded);
        parts.into_iter().map(SpanChange::Put).collect()
    }

    /// Lets slots leave their windows; spans that no window needs any more are to be deleted.
    pub fn advance(&mut self, now: Timestamp) -> Vec<SpanChange> {
        self.now = now;
        for at in 0..self.windows.len() {
            let old = self.windows[at].tail;
            let new = self.windows[at].tail_at(now).max(old);
            if new > old {
                let gone = self.tally(old, new);
                self.windows[at].tally.subtract(&gone);
                self.windows[at].tail = new;
            }
        }
        self.find_oldest();
        let keep_from = self.windows.iter().map(|kept| kept.tail).min().unwrap_or(i64::MIN);
        let mut changes = Vec::new();
        // The last span stays: it says which slots are already counted.
        while self.spans.len() > 1 && self.spans.front().is_some_and(|span| span.end() <= keep_from) {
            changes.extend(self.spans.pop_front().map(|span| SpanChange::Delete(span.start)));
        }
        changes
    }

    /// What the slots in `(after, until]` sum to.
    fn tally(&self, after: i64, until: i64) -> Tally {
        let first = self.spans.partition_point(|span| span.end() <= after);
        let mut tally = Tally::default();
        for (at, span) in self.spans.iter().enumerate().skip(first).take_while(|(_, span)| span.start <= until) {
            let count = span.count_in(after, until);
            tally.add(span.verdict, span.excluded, count, self.time_of(at, after, until));
        }
        tally
    }

    /// The time that the slots of a span in `(after, until]` stand for: each until the next one, the last of all none yet.
    fn time_of(&self, at: usize, after: i64, until: i64) -> i64 {
        let Some(span) = self.spans.get(at) else { return 0 };
        let count = span.count_in(after, until) as i64;
        if count == 0 || span.end() > until {
            return count * span.step;
        }
        let next = self.spans.get(at + 1).map_or(0, |next| next.start - span.end());
        (count - 1) * span.step + next
    }

    /// What the slots in `(from, until]` sum to; those in maintenance are left out.
    pub fn counts(&self, from: Timestamp, until: Timestamp) -> Counts {
        let (after, until) = (from.as_millisecond(), until.as_millisecond());
        let first = self.spans.partition_point(|span| span.end() <= after);
        let mut counts = Counts::default();
        for span in self.spans.range(first..).take_while(|span| span.start <= until) {
            let verdict = if span.excluded { Verdict::Excluded } else { span.verdict };
            counts.add(verdict, span.count_in(after, until));
        }
        counts
    }

    /// What the slots sum to in each of `many` stretches of `step` milliseconds, of which the first begins after `from`: as
    /// [`History::counts`] does for one, with one look at each span.
    pub fn stretches(&self, from: Timestamp, step: i64, many: usize) -> impl Iterator<Item = Counts> {
        let from = from.as_millisecond();
        let mut first = self.spans.partition_point(|span| span.end() <= from);
        (0..many as i64).map(move |nth| {
            let (after, until) = (from + nth * step, from + (nth + 1) * step);
            let mut counts = Counts::default();
            while let Some(span) = self.spans.get(first).filter(|span| span.start <= until) {
                let verdict = if span.excluded { Verdict::Excluded } else { span.verdict };
                counts.add(verdict, span.count_in(after, until));
                if span.end() > until {
                    break;
                }
                first += 1;
            }
            counts
        })
    }

    /// What the first slot in `(from, until]` came to, if there is one; one in maintenance is left out, whatever it came to.
    pub fn verdict_in(&self, from: Timestamp, until: Timestamp) -> Option<Verdict> {
        let (after, until) = (from.as_millisecond(), until.as_millisecond());
        let first = self.spans.partition_point(|span| span.end() <= after);
        let span = self.spans.get(first)?;
        let verdict = if span.excluded { Verdict::Excluded } else { span.verdict };
        span.first_after(after).filter(|slot| *slot <= until).map(|_| verdict)
    }

    /// What the slots of the last so much time sum to, up to the last [`History::advance`]; those in maintenance are left out. At
    /// hand for each of [`BURN_WINDOWS`]; any other length is counted.
    pub fn window(&self, length: Duration) -> Counts {
        let kept = self.windows.iter().skip(1).find(|kept| kept.window == Window::Rolling(length));
        kept.map_or_else(|| self.tally(tail(self.now, length), i64::MAX), |kept| kept.tally.clone()).counts(true)
    }

    fn is_now_oldest(&mut self, slot: i64, verdict: Verdict, excluded: bool) {
        if slot > self.windows[0].tail
            && let Some(spender) = SPENDERS.iter().position(|spender| *spender == verdict)
        {
            let oldest = &mut self.oldest[spender][usize::from(excluded)];
            *oldest = slot.min(*oldest);
        }
    }

    /// Looks for those that have left the window. They only ever go forward, so each span is passed once.
    fn find_oldest(&mut self) {
        for (spender, verdict) in SPENDERS.into_iter().enumerate() {
            for excluded in [false, true] {
                let Kept { tally, tail, .. } = &self.windows[0];
                let known = self.oldest[spender][usize::from(excluded)];
                let is_there = known > *tail;
                self.oldest[spender][usize::from(excluded)] = match tally.has(verdict, excluded) {
                    true if is_there => known,
                    true => self.next_of(known.max(*tail), verdict, excluded),
                    false => NEVER,
                };
            }
        }
    }

    /// The first slot after `after` with this verdict.
    fn next_of(&self, after: i64, verdict: Verdict, excluded: bool) -> i64 {
        let first = self.spans.partition_point(|span| span.end() <= after);
        let mut found = self.spans.range(first..).filter(|span| (span.verdict, span.excluded) == (verdict, excluded));
        found.next().and_then(|span| span.first_after(after)).unwrap_or(NEVER)
    }

    /// The oldest slot in the objective's window that spends budget.
    pub(super) fn oldest(&self, is_corrected: bool, spends: impl Fn(Verdict) -> bool) -> Option<i64> {
        let of = SPENDERS.iter().zip(&self.oldest).filter(|(verdict, _)| spends(**verdict));
        let oldest = of.flat_map(|(_, [plain, excluded])| if is_corrected { [*plain; 2] } else { [*plain, *excluded] });
        oldest.min().filter(|slot| *slot != NEVER)
    }
}
