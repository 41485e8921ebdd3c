//! Windows, budgets and intervals against plain counting and published numbers.

use proptest::prelude::*;

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::journey::Objective;
use crate::journey::outcome::Verdict;
use crate::time::{earlier, later};

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
    assert!((status.delivered.burn[1] - (10.0 / 40.0) / 0.01).abs() < 1e-9, "the last hour has 40 valid runs, ten bad");
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
