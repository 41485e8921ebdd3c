//! How a figure that is sampled at irregular times has changed: the growth of a queue.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Mono;

/// Samples are kept this long: longer than the longest time that a growth is taken over.
pub const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// And at most this many: one each 20 s for a day. More frequent ones replace the newest.
const KEPT: usize = 4_320;
/// Samples closer together than this are one.
const APART: Duration = Duration::from_secs(1);

/// Samples of one figure, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend {
    samples: VecDeque<(Mono, f64)>,
}

/// What a trend says over a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slope {
    /// The change per second: the least-squares line through the samples of that time.
    Known(f64),
    /// There are samples of this long only, less than half of the time that was asked for.
    TooShort(Duration),
}

impl Trend {
    /// Adds a sample.
    pub fn push(&mut self, at: Mono, value: f64) {
        // The newest stays where it was, so that a quick succession of samples does not drag it along for ever.
        let is_alone = self.samples.len() <= 1;
        match self.samples.back_mut() {
            Some((newest, known)) if at.since(*newest) < APART && !is_alone => *known = value,
            _ => self.samples.push_back((at, value)),
        }
        while self.samples.len() > KEPT || self.samples.front().is_some_and(|(old, _)| at.since(*old) > LONGEST) {
            self.samples.pop_front();
        }
    }

    /// The change per second over the last `over`, up to the newest sample.
    pub fn slope(&self, over: Duration) -> Slope {
        let Some((newest, _)) = self.samples.back() else { return Slope::TooShort(Duration::ZERO) };
        let within: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|(at, _)| newest.since(*at) <= over)
            .map(|(at, value)| (-newest.since(*at).as_secs_f64(), *value))
            .collect();
        let span = within.first().map_or(0.0, |(at, _)| -at);
        if span * 2.0 < over.as_secs_f64() || within.len() < 2 {
            return Slope::TooShort(Duration::from_secs_f64(span));
        }
        let n = within.len() as f64;
        let (mean_at, mean) =
            (within.iter().map(|(at, _)| at).sum::<f64>() / n, within.iter().map(|(_, value)| value).sum::<f64>() / n);
        let (mut covariance, mut variance) = (0.0, 0.0);
        for (at, value) in within {
            covariance += (at - mean_at) * (value - mean);
            variance += (at - mean_at).powi(2);
        }
        Slope::Known(covariance / variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(samples: impl IntoIterator<Item = (u64, f64)>) -> Trend {
        let mut trend = Trend::default();
        for (seconds, value) in samples {
            trend.push(Mono(Duration::from_secs(seconds)), value);
        }
        trend
    }

    const MINUTES: fn(u64) -> Duration = |minutes| Duration::from_secs(minutes * 60);

    #[test]
    fn a_steady_rise_is_its_rate_and_a_flat_line_is_none() {
        let rising = trend((0..=20).map(|n| (n * 30, 100.0 + n as f64 * 25.0)));
        let Slope::Known(slope) = rising.slope(MINUTES(10)) else { panic!("ten minutes of samples") };
        assert!((slope * 60.0 - 50.0).abs() < 1e-9, "{slope}");
        assert_eq!(trend((0..=20).map(|n| (n * 30, 7.0))).slope(MINUTES(10)), Slope::Known(0.0));
    }

    #[test]
    fn only_the_time_that_was_asked_for_counts() {
        let filled_then_steady = trend((0..=60).map(|n| (n * 30, if n < 30 { n as f64 * 100.0 } else { 3_000.0 })));
        assert_eq!(filled_then_steady.slope(MINUTES(10)), Slope::Known(0.0));
        assert!(matches!(filled_then_steady.slope(MINUTES(30)), Slope::Known(slope) if slope > 1.0));
    }

    #[test]
    fn less_than_half_of_the_time_says_nothing_yet() {
        let young = trend((0..=9).map(|n| (n * 30, n as f64)));
        assert_eq!(young.slope(MINUTES(10)), Slope::TooShort(Duration::from_secs(270)));
        assert!(matches!(young.slope(MINUTES(9)), Slope::Known(_)));
        assert_eq!(Trend::default().slope(MINUTES(1)), Slope::TooShort(Duration::ZERO));
        assert_eq!(trend([(5, 1.0)]).slope(Duration::ZERO), Slope::TooShort(Duration::ZERO));
    }

    #[test]
    fn samples_are_bounded_in_number_and_age() {
        let mut long = Trend::default();
        for second in 0..100_000 {
            long.push(Mono(Duration::from_secs(second * 2)), 0.0);
        }
        assert!(long.samples.len() <= KEPT);
        let mut quick = Trend::default();
        for milli in 0..5_000 {
            quick.push(Mono(Duration::from_millis(milli)), milli as f64);
        }
        assert!(quick.samples.len() <= 7, "{}", quick.samples.len());
        long.push(Mono(Duration::from_secs(10_000_000)), 1.0);
        assert_eq!(long.samples.len(), 1);
    }
}
