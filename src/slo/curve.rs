//! How an error budget was spent over its window.

use std::time::Duration;

use jiff::Timestamp;

use crate::slo::{Budget, Counts, History};
use crate::time::{between, earlier, later};

/// What was left of `budget` at equal distances from the first moment of a window to its last, as shares of it: all of it first, what
/// is left now last. A rolling window is taken as it lies now: what has left it is spent by nobody.
pub fn spending(
    history: &History,
    budget: &Budget,
    (from, until): (Timestamp, Timestamp),
    steps: u32,
    bad: impl Fn(&Counts) -> u64,
) -> Vec<f64> {
    if budget.total <= 0.0 {
        return Vec::new();
    }
    let before = earlier(from, Duration::from_millis(1));
    let length = between(from, until);
    let left_at = |step: u32| {
        let at = later(from, length.mul_f64(f64::from(step) / f64::from(steps.max(1))));
        let spent = if step == 0 { 0 } else { bad(&history.counts(before, at)) };
        (budget.total - spent as f64) / budget.total
    };
    (0..=steps).map(left_at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::objective::Objective;
    use crate::journey::outcome::Verdict;
    use crate::slo::{Sli, status};

    #[test]
    fn the_curve_begins_whole_ends_where_the_budget_stands_and_falls_where_it_was_spent() {
        let at = |minute: i64| Timestamp::from_second(1_790_000_000 + minute * 60).unwrap();
        let window = Duration::from_secs(1_000 * 60);
        let objective = Objective { delivered: 0.9, in_budget: None, window: window.into(), late_is_good: false };
        let mut history = History::new(window, [], at(0));
        for minute in 1..=1_000 {
            let verdict = if (500..525).contains(&minute) { Verdict::Failed } else { Verdict::Good };
            history.observe(at(minute), verdict);
        }
        history.advance(at(1_000));
        let slo = status(&history, &objective, 1_000, at(1_000));
        let curve = spending(&history, &slo.delivered, (slo.bounds.0, at(1_000)), 10, |counts| {
            counts.bad(Sli::Delivered, false)
        });
        assert_eq!(curve.len(), 11);
        assert_eq!((curve[0], curve[4]), (1.0, 1.0));
        assert!((curve[6] - 0.75).abs() < 1e-9, "25 of 100: {curve:?}");
        assert_eq!(curve.last().copied(), Some(slo.delivered.left_share()));
        assert!(curve.is_sorted_by(|a, b| a >= b), "nothing comes back within a window: {curve:?}");
        let all = Budget { total: 0.0, ..slo.delivered };
        assert!(
            spending(&history, &all, slo.bounds, 10, |_| 0).is_empty(),
            "an objective of 100 % has nothing to spend"
        );
    }
}
