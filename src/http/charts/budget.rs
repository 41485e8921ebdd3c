//! What is left of an error budget, now and on the way here.

use std::fmt::Write as _;
use std::time::Duration;

/// A latency on its budget: the budget's mark stands at two thirds, the bar ends at one and a half budgets.
pub(in crate::http) fn budget_bar(latency: Duration, budget: Duration) -> String {
    let share = latency.as_secs_f64() / budget.as_secs_f64().max(1e-6);
    let class = if share > 1.0 { "bar over" } else { "bar" };
    let end = (share * 40.0).clamp(1.0, 60.0).round();
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 60 6\" aria-hidden=true><path d=\"M0 3H{end}\"/><path class=t d=\"M40 0V6\"/></svg>"
    )
}

/// What is left of an error budget, or how far it is overspent: an empty bar with an outline.
pub(in crate::http) fn left_bar(left_share: f64) -> String {
    let end = (left_share * 100.0).clamp(0.0, 100.0).round();
    format!(
        "<svg class=left viewBox=\"0 0 100 6\" preserveAspectRatio=none aria-hidden=true><path class=b d=\"M0 3H100\"/><path d=\"M0 3H{end}\"/></svg>"
    )
}

/// The curve of what was left at equal distances from the beginning of the window to now, as shares of the budget; the last point
/// stands at `now`, a share of the window. The scale is 100 % to nothing, and as far below as it went.
pub(in crate::http) fn left_curve(left: &[f64], now: f64) -> String {
    let (Some(last), Some(steps)) = (left.last(), left.len().checked_sub(1).filter(|steps| *steps > 0)) else {
        return String::new();
    };
    // Overspent a hundred times is not drawn a hundred times as deep.
    let least = left.iter().copied().fold(0.0, f64::min).max(-1.0);
    let y = |share: f64| (1.0 - share.clamp(least, 1.0)) / (1.0 - least) * 100.0;
    let x = |at: usize| at as f64 / steps as f64 * now.clamp(0.0, 1.0) * 1_000.0;
    let mut line = String::new();
    for (at, share) in left.iter().enumerate() {
        let _ = write!(line, "{}{:.0} {:.1}", if at == 0 { "M" } else { "L" }, x(at), y(*share));
    }
    let class = if *last < 0.0 { "curve over" } else { "curve" };
    let (zero, end) = (y(0.0), x(steps));
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 1000 100\" preserveAspectRatio=none role=img><title>Budget left over the window: {:.0} % now</title>\
         <path class=area d=\"{line}L{end:.0} {zero:.1}L0 {zero:.1}z\"/><path class=zero d=\"M0 {zero:.1}H1000\"/><path class=line d=\"{line}\"/></svg>",
        (last * 100.0).floor()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_all_to_what_is_left_and_below_nothing_where_it_is_overspent() {
        let curve = left_curve(&[1.0, 0.5, 0.25], 1.0);
        assert!(curve.contains("class=line d=\"M0 0.0L500 50.0L1000 75.0\""), "{curve}");
        assert!(curve.contains("class=zero d=\"M0 100.0H1000\"") && curve.contains(": 25 % now"), "{curve}");
        let over = left_curve(&[1.0, -1.0, -50.0], 0.5);
        assert!(over.contains("class=\"curve over\"") && over.contains("class=zero d=\"M0 50.0H1000\""), "{over}");
        assert!(over.contains("L250 100.0L500 100.0\""), "half of the window is still to come: {over}");
        assert_eq!(left_curve(&[1.0], 1.0), "");
    }

    #[test]
    fn the_worst_curve_is_still_small() {
        let curve = left_curve(&[0.123; 121], 1.0);
        assert!(curve.len() < 4_000, "{}", curve.len());
    }
}
