//! A row of days, each by the share of its runs that were delivered.

use std::fmt::Write as _;

use crate::slo::Counts;

/// What a day shows: its class, and the height of its middle. One bad run of a thousand is not what a bad day is.
fn mark(counts: &Counts) -> (&'static str, &'static str) {
    match share(counts) {
        None => ("n", "19"),
        Some(share) if share >= 0.999 => ("g", "16"),
        Some(share) if share >= 0.95 => ("s", "13"),
        Some(_) => ("f", "10"),
    }
}

/// The share of runs with a verdict that were delivered.
pub(in crate::http) fn share(counts: &Counts) -> Option<f64> {
    (counts.valid() > 0).then(|| counts.delivered() as f64 / counts.valid() as f64)
}

/// Days of `counts`, oldest first; `title` says in words what they come to. One path for each kind of day.
pub(in crate::http) fn days(counts: &[Counts], title: &str) -> String {
    let mut out = format!(
        "<svg class=strip viewBox=\"0 0 {} 20\" preserveAspectRatio=none role=img><title>{title}</title>",
        counts.len().max(1)
    );
    for class in ["g", "s", "f", "n"] {
        let (mut d, mut at) = (String::new(), 0);
        for same in counts.chunk_by(|one, next| mark(one) == mark(next)) {
            let (found, middle) = same.first().map(mark).unwrap_or_default();
            if found == class {
                let _ = write!(d, "M{at} {middle}h{}", same.len());
            }
            at += same.len();
        }
        if !d.is_empty() {
            let _ = write!(out, "<path class={class} d=\"{d}\"/>");
        }
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_bad_as_the_share_of_its_runs() {
        let day = |good, failed| Counts { good, failed, ..Counts::default() };
        let chart =
            days(&[day(1_440, 0), day(1_439, 1), day(1_400, 40), day(100, 900), Counts::default()], "five days");
        assert!(chart.contains("class=g d=\"M0 16h2\""), "{chart}");
        assert!(chart.contains("class=s d=\"M2 13h1\"") && chart.contains("class=f d=\"M3 10h1\""), "{chart}");
        assert!(chart.contains("class=n d=\"M4 19h1\""), "a day without runs is no good day: {chart}");
        let worst: Vec<_> = (0..90).map(|at| day(3, at % 2)).collect();
        assert!(days(&worst, "").len() < 2_000);
    }
}
