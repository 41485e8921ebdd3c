//! When something was wrong: bars of equal height on an axis of days.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::time::between;

/// A time in which something was wrong.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Stretch {
    pub(in crate::http) from: Timestamp,
    /// `None`: it still is.
    pub(in crate::http) until: Option<Timestamp>,
    pub(in crate::http) is_critical: bool,
}

/// The stretches between `from` and `until`; critical ones are higher. At most one path for each kind.
pub(in crate::http) fn timeline(stretches: &[Stretch], from: Timestamp, until: Timestamp) -> String {
    let length = between(from, until).as_secs_f64().max(1.0);
    let x = |at: Timestamp| between(from, at).as_secs_f64() / length * 1_000.0;
    let mut out = format!(
        "<svg class=timeline viewBox=\"0 0 1000 20\" preserveAspectRatio=none role=img><title>{} incidents</title>\
         <path class=n d=\"M0 19H1000\"/>",
        stretches.len()
    );
    for (class, is_critical, middle) in [("w", false, 13), ("f", true, 10)] {
        let mut d = String::new();
        for stretch in stretches.iter().filter(|stretch| stretch.is_critical == is_critical) {
            // A minute of thirty days is less than a pixel.
            let start = x(stretch.from).min(998.0);
            let end = x(stretch.until.unwrap_or(until).min(until)).max(start + 2.0);
            let _ = write!(d, "M{start:.1} {middle}H{end:.1}");
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
    fn every_stretch_is_seen_and_one_that_goes_on_reaches_the_end() {
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let stretch = |from, until, is_critical| Stretch { from: at(from), until, is_critical };
        let stretches =
            [stretch(900, None, true), stretch(500, Some(at(501)), true), stretch(-50, Some(at(100)), false)];
        let chart = timeline(&stretches, at(0), at(1_000));
        assert!(chart.contains("class=f d=\"M900.0 10H1000.0M500.0 10H502.0\""), "{chart}");
        assert!(chart.contains("class=w d=\"M0.0 13H100.0\""), "what began before begins at the edge: {chart}");
    }

    #[test]
    fn two_hundred_incidents_are_small() {
        let stretch = |second: i64| Stretch {
            from: Timestamp::from_second(1_790_000_000 + second * 977).unwrap(),
            until: Timestamp::from_second(1_790_000_000 + second * 977 + 300).ok(),
            is_critical: true,
        };
        let stretches: Vec<_> = (0..200).map(stretch).collect();
        let chart = timeline(&stretches, stretches[0].from, stretches[199].from);
        assert!(chart.len() < 20_000, "{}", chart.len());
    }
}
