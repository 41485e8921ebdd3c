//! Objectives over rolling windows, exact to the run.
//!
//! Every slot has one verdict. Equal verdicts at equal spacing are kept as one [`Span`], so a healthy month is one row, a window
//! is exact, and observing a run costs the same whatever the window's length. Formulas: an SLI is good ÷ valid, the budget is
//! (1 − objective) × slots of the window, burn is (bad ÷ valid) ÷ (1 − objective) (Google SRE workbook, "Alerting on SLOs").

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::Objective;
use crate::journey::outcome::Verdict;
use crate::time::{earlier, later};

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
}

impl Span {
    fn one(slot: i64, verdict: Verdict) -> Span {
        Span { start: slot, step: 0, count: 1, verdict }
    }

    fn end(&self) -> i64 {
        self.start + self.step * i64::from(self.count - 1)
    }

    /// How many of its slots lie in `(after, until]`.
    fn count_in(&self, after: i64, until: i64) -> u64 {
        let up_to = |at: i64| match (at < self.start, self.step) {
            (true, _) => 0,
            (false, 0) => 1,
            (false, step) => ((at - self.start) / step + 1).min(i64::from(self.count)),
        };
        (up_to(until) - up_to(after)).max(0) as u64
    }

    /// Takes the next slot in, if it continues the span.
    fn extend(&mut self, slot: i64, verdict: Verdict) -> bool {
        let continues =
            verdict == self.verdict && (self.count == 1 || slot == self.end() + self.step) && self.count < u32::MAX;
        if continues {
            self.step = slot - self.end();
            self.count += 1;
        }
        continues
    }

    /// The slots before, at and after the `index`th, as spans of their own.
    fn split(&self, index: u32, verdict: Verdict) -> impl Iterator<Item = Span> {
        let part = |first: u32, count: u32, verdict| Span {
            start: self.start + self.step * i64::from(first),
            step: if count > 1 { self.step } else { 0 },
            count,
            verdict,
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

/// How many slots had each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Delivered, in budget.
    pub good: u64,
    /// Delivered, over budget.
    pub slow: u64,
    /// Not delivered.
    pub failed: u64,
    /// Arrived after the deadline.
    pub late: u64,
    /// No verdict, through a fault of ours.
    pub unknown: u64,
    /// Left out.
    pub excluded: u64,
}

impl Counts {
    fn of(verdict: Verdict, count: u64) -> Counts {
        let mut counts = Counts::default();
        *counts.field(verdict) = count;
        counts
    }

    fn field(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Good => &mut self.good,
            Verdict::Slow => &mut self.slow,
            Verdict::Failed => &mut self.failed,
            Verdict::Late => &mut self.late,
            Verdict::Unknown => &mut self.unknown,
            Verdict::Excluded => &mut self.excluded,
        }
    }

    /// Slots with a verdict about the watched system.
    pub fn valid(&self) -> u64 {
        self.good + self.slow + self.failed + self.late
    }

    /// Slots whose message was delivered by the deadline.
    pub fn delivered(&self) -> u64 {
        self.good + self.slow
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.good += other.good;
        self.slow += other.slow;
        self.failed += other.failed;
        self.late += other.late;
        self.unknown += other.unknown;
        self.excluded += other.excluded;
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Counts) {
        self.good -= other.good;
        self.slow -= other.slow;
        self.failed -= other.failed;
        self.late -= other.late;
        self.unknown -= other.unknown;
        self.excluded -= other.excluded;
    }
}

/// One rolling window over the history.
#[derive(Clone, Debug)]
struct Window {
    length: Duration,
    counts: Counts,
    /// Slots at or before this have left.
    tail: i64,
}

/// Windows over which burn is reported beside the objective's own.
pub const BURN_WINDOWS: [Duration; 3] =
    [Duration::from_secs(3_600), Duration::from_secs(6 * 3_600), Duration::from_secs(3 * 86_400)];

/// Windows that the burn detectors look at beside these.
const DETECTOR_WINDOWS: [Duration; 3] =
    [Duration::from_secs(1_800), Duration::from_secs(2 * 3_600), Duration::from_secs(86_400)];

/// The verdicts of a journey's slots, and what they sum to over its windows.
#[derive(Clone, Debug)]
pub struct History {
    spans: VecDeque<Span>,
    /// The objective's window first, then [`BURN_WINDOWS`].
    windows: Vec<Window>,
    keep: Duration,
}

impl History {
    /// A history from stored spans, in order of their starts, as it stands at `now`.
    pub fn new(window: Duration, spans: impl IntoIterator<Item = Span>, now: Timestamp) -> History {
        let lengths = std::iter::once(window).chain(BURN_WINDOWS).chain(DETECTOR_WINDOWS);
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

    /// What the rolling window of this length holds; nothing, if none of that length is kept.
    pub fn window(&self, length: Duration) -> Counts {
        self.windows.iter().find(|window| window.length == length).map_or(Counts::default(), |window| window.counts)
    }

    /// What the slots in `(from, until]` sum to.
    pub fn counts(&self, from: Timestamp, until: Timestamp) -> Counts {
        self.tally(from.as_millisecond(), until.as_millisecond())
    }

    /// When the oldest slot that spends budget leaves the objective's window.
    fn next_refund(&self, spends: fn(Verdict) -> bool) -> Option<Timestamp> {
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

/// An error budget, in runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// The objective, in `0..=1`.
    pub objective: f64,
    /// The share achieved, in `0..=1`; `None` before the first valid run.
    pub achieved: Option<f64>,
    /// A 95 % Wilson score interval around it.
    pub interval: Option<(f64, f64)>,
    /// What a whole window's budget is.
    pub total: f64,
    /// Spent so far.
    pub spent: u64,
    /// Burn over the objective's window and over each of [`BURN_WINDOWS`]; 1 spends exactly the budget.
    pub burn: [f64; 4],
    /// When spent budget next comes back.
    pub next_refund: Option<Timestamp>,
    /// When the budget is used up if the last three days go on.
    pub exhausted_at: Option<Timestamp>,
}

impl Budget {
    /// What is left, in runs; negative when overspent.
    pub fn left(&self) -> f64 {
        self.total - self.spent as f64
    }

    /// What is left as a share of the budget; negative when overspent.
    pub fn left_share(&self) -> f64 {
        if self.total > 0.0 { self.left() / self.total } else { 0.0 }
    }
}

/// Where an objective stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloStatus {
    /// The window.
    #[serde(with = "crate::time::micros")]
    pub window: Duration,
    /// What its slots sum to.
    pub counts: Counts,
    /// Share of slots that should have a verdict and have one, in `0..=1`.
    pub coverage: f64,
    /// The mean time between slots of the window, to put runs into minutes.
    #[serde(with = "crate::time::micros")]
    pub interval: Duration,
    /// The *delivered* objective.
    pub delivered: Budget,
    /// The *in budget* objective.
    pub in_budget: Option<Budget>,
}

/// Below this coverage a status says nothing.
pub const SUFFICIENT_COVERAGE: f64 = 0.9;

impl SloStatus {
    /// Whether enough slots have a verdict to judge.
    pub fn is_sufficient(&self) -> bool {
        self.coverage >= SUFFICIENT_COVERAGE && self.counts.valid() > 0
    }

    /// What is left of a budget as time: each run stands for one interval.
    pub fn left_time(&self, budget: &Budget) -> Duration {
        self.interval.mul_f64(budget.left().max(0.0))
    }
}

/// Where `objective` stands at `now`, for a schedule that has `slots` slots a window. [`History::advance`] must have been
/// called for `now`.
pub fn status(history: &History, objective: &Objective, slots: u64, now: Timestamp) -> SloStatus {
    let counts = history.windows[0].counts;
    let slots = slots.max(1);
    let total_slots = slots.saturating_sub(counts.excluded);
    let seen = counts.valid() + counts.unknown;
    let budget = |share: f64, good: fn(&Counts) -> u64, spends: fn(Verdict) -> bool| {
        let bad = |counts: &Counts| counts.valid() - good(counts);
        let mut burn = [0.0; 4];
        for (burn, window) in burn.iter_mut().zip(&history.windows) {
            *burn = burn_rate(bad(&window.counts), window.counts.valid(), share);
        }
        let total = (1.0 - share) * total_slots as f64;
        let left = total - bad(&counts) as f64;
        let spent_a_second = burn[3] * total / objective.window.as_secs_f64();
        let seconds_left = if left > 0.0 && spent_a_second > 0.0 { Some(left / spent_a_second) } else { None };
        Budget {
            objective: share,
            achieved: (counts.valid() > 0).then(|| good(&counts) as f64 / counts.valid() as f64),
            interval: wilson(good(&counts), counts.valid()),
            total,
            spent: bad(&counts),
            burn,
            next_refund: history.next_refund(spends),
            exhausted_at: seconds_left
                .filter(|seconds| *seconds < objective.window.as_secs_f64())
                .map(|seconds| later(now, Duration::from_secs_f64(seconds))),
        }
    };
    SloStatus {
        window: objective.window,
        counts,
        coverage: if seen > 0 { counts.valid() as f64 / seen as f64 } else { 0.0 },
        interval: objective.window / u32::try_from(slots).unwrap_or(u32::MAX),
        delivered: budget(objective.delivered, Counts::delivered, |verdict| {
            matches!(verdict, Verdict::Failed | Verdict::Late)
        }),
        in_budget: objective.in_budget.map(|share| {
            budget(
                share,
                |counts| counts.good,
                |verdict| matches!(verdict, Verdict::Slow | Verdict::Failed | Verdict::Late),
            )
        }),
    }
}

/// (bad ÷ valid) ÷ (1 − objective); zero before the first valid run.
fn burn_rate(bad: u64, valid: u64, objective: f64) -> f64 {
    match (valid, bad) {
        (0, _) | (_, 0) => 0.0,
        // An objective of 100 % has no budget: any failure burns without bound, capped so that it can be drawn.
        _ if objective >= 1.0 => f64::MAX,
        _ => bad as f64 / valid as f64 / (1.0 - objective),
    }
}

/// The 95 % Wilson score interval for `good` of `all` (E. B. Wilson, 1927).
pub fn wilson(good: u64, all: u64) -> Option<(f64, f64)> {
    const Z: f64 = 1.959_963_984_540_054;
    if all == 0 {
        return None;
    }
    let n = all as f64;
    let p = good as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some((((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn minute(n: i64) -> Timestamp {
        at(n * 60)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    fn observe(history: &mut History, minutes: std::ops::Range<i64>, verdict: Verdict) {
        for n in minutes {
            history.observe(minute(n), verdict).unwrap();
        }
    }

    #[test]
    fn a_healthy_month_is_one_span() {
        let mut history = History::new(30 * DAY, [], minute(0));
        observe(&mut history, 0..43_200, Verdict::Good);
        assert_eq!(history.spans.len(), 1);
        assert_eq!(history.windows[0].counts.good, 43_200);
    }

    #[test]
    fn budget_burn_and_coverage_are_exact() {
        let objective = Objective { delivered: 0.99, in_budget: Some(0.9), window: DAY };
        let mut history = History::new(DAY, [], minute(0));
        observe(&mut history, 0..1_400, Verdict::Good);
        observe(&mut history, 1_400..1_410, Verdict::Failed);
        observe(&mut history, 1_410..1_420, Verdict::Slow);
        observe(&mut history, 1_420..1_439, Verdict::Unknown);
        history.advance(minute(1_439));
        let status = status(&history, &objective, 1_440, minute(1_439));
        assert_eq!(status.counts, Counts { good: 1_400, slow: 10, failed: 10, unknown: 19, ..Counts::default() });
        assert!((status.delivered.total - 14.4).abs() < 1e-9);
        assert!((status.delivered.left() - 4.4).abs() < 1e-9);
        assert!((status.coverage - 1_420.0 / 1_439.0).abs() < 1e-12);
        assert!((status.delivered.burn[0] - (10.0 / 1_420.0) / 0.01).abs() < 1e-9);
        assert!(
            (status.delivered.burn[1] - (10.0 / 40.0) / 0.01).abs() < 1e-9,
            "the last hour has 40 valid runs, ten bad"
        );
        assert_eq!(status.in_budget.unwrap().spent, 20);
        assert_eq!(status.delivered.next_refund, Some(later(minute(1_400), DAY)));
        assert!(status.is_sufficient());
        let left = status.left_time(&status.delivered);
        assert_eq!(left.as_secs(), 264);
    }

    #[test]
    fn a_late_arrival_amends_the_slot_that_it_belongs_to() {
        let mut history = History::new(DAY, [], minute(0));
        observe(&mut history, 0..10, Verdict::Failed);
        let changes = history.amend(minute(4));
        assert_eq!(changes.len(), 3);
        assert_eq!(history.windows[0].counts, Counts { failed: 9, late: 1, ..Counts::default() });
        assert!(history.amend(minute(4)).is_empty());
        assert!(history.amend(minute(11)).is_empty());
        assert!(history.amend(at(30)).is_empty());
        let rebuilt = History::new(DAY, history.spans.clone(), minute(0));
        assert_eq!(rebuilt.windows[0].counts, history.windows[0].counts);
        observe(&mut history, 10..12, Verdict::Unknown);
        assert!(history.amend(minute(11)).is_empty(), "our own fault stays ours");
    }

    #[test]
    fn a_slot_counts_once() {
        let mut history = History::new(DAY, [], minute(0));
        observe(&mut history, 0..3, Verdict::Good);
        assert_eq!(history.observe(minute(2), Verdict::Failed), None);
        assert_eq!(history.observe(minute(1), Verdict::Failed), None);
        assert_eq!(history.windows[0].counts, Counts { good: 3, ..Counts::default() });
    }

    #[test]
    fn wilson_gives_the_published_values() {
        // Newcombe 1998, table I, method 3: 81/263 and 15/148.
        let (low, high) = wilson(81, 263).unwrap();
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        let (low, high) = wilson(15, 148).unwrap();
        assert!((low - 0.0624).abs() < 5e-5 && (high - 0.1605).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson(0, 0), None);
    }

    proptest! {
        /// Against the plain way: a list of every slot.
        #[test]
        fn windows_equal_a_recount(
            runs in prop::collection::vec((1i64..400, 0usize..6, prop::bool::weighted(0.1)), 1..200),
            window in 1u64..20_000,
        ) {
            let window = Duration::from_secs(window);
            let mut history = History::new(window, [], at(0));
            let mut plain: Vec<(i64, Verdict)> = Vec::new();
            let mut stored: std::collections::BTreeMap<i64, Span> = Default::default();
            let mut now = 0;
            for (gap, verdict, amends) in runs {
                // Mostly on a grid, so that spans form.
                now += if gap < 300 { 60 } else { gap };
                let verdict = Verdict::ALL[verdict];
                let mut changes: Vec<_> = history.observe(at(now), verdict).into_iter().collect();
                plain.push((now, verdict));
                if amends {
                    let target = plain.len() / 2;
                    changes.extend(history.amend(at(plain[target].0)));
                    if plain[target].1 == Verdict::Failed {
                        plain[target].1 = Verdict::Late;
                    }
                }
                changes.extend(history.advance(at(now)));
                for change in changes {
                    match change {
                        SpanChange::Put(span) => { stored.insert(span.start, span); }
                        SpanChange::Delete(start) => { stored.remove(&start); }
                    }
                }
                let mut counts = Counts::default();
                for (_, verdict) in plain.iter().filter(|(slot, _)| at(*slot) > earlier(at(now), window)) {
                    *counts.field(*verdict) += 1;
                }
                prop_assert_eq!(history.windows[0].counts, counts);
                let rebuilt = History::new(window, stored.values().copied(), at(now));
                prop_assert_eq!(rebuilt.windows[0].counts, counts, "the store must hold what memory holds");
            }
        }
    }
}
