//! Points in time as the core sees them: a wall clock for people, a monotonic clock for measuring.
//!
//! The core never reads a clock. The edge takes one [`Now`] per event from [`crate::clock::Clock`] and passes it in.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Time since the process started, from a clock that never steps. Every latency is a difference of two of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mono(pub Duration);

impl Mono {
    /// The time from `earlier` to `self`; zero if `earlier` is in fact later.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, rhs: Duration) -> Mono {
        Mono(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, rhs: Duration) -> Mono {
        Mono(self.0.saturating_sub(rhs))
    }
}

/// One reading of both clocks, taken together at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Wall-clock time: for slots, windows and people. It may step.
    pub wall: Timestamp,
    /// Monotonic time: for latencies and deadlines. It never steps.
    pub mono: Mono,
}

impl Now {
    /// The wall-clock time at which monotonic `at` is, was, or will be reached, as far as this reading can tell.
    pub fn wall_at(&self, at: Mono) -> Timestamp {
        if at >= self.mono { later(self.wall, at.since(self.mono)) } else { earlier(self.wall, self.mono.since(at)) }
    }
}

/// `at + by`, saturating at the end of representable time.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// `at - by`, saturating at the beginning of representable time.
pub fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

/// The time from `from` to `to`; zero if the clock stepped back in between.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// No length of time that people write is longer.
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `"250ms" "5s" "1m30s" "6h" "30d"`: whole numbers with units, the larger unit first.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let not_one = || format!("`{text}` is not a duration");
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut larger = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let size = UNITS.iter().find(|(name, _)| *name == &rest[digits..digits + unit]).map(|(_, size)| *size);
        let (Ok(number), Some(size)) = (rest[..digits].parse::<u64>(), size) else { return Err(not_one()) };
        if size >= larger {
            return Err(not_one());
        }
        larger = size;
        millis = number.checked_mul(size).and_then(|part| part.checked_add(millis)).ok_or_else(not_one)?;
        rest = &rest[digits + unit..];
    }
    let total = Duration::from_millis(millis);
    match total {
        _ if text.is_empty() => Err(not_one()),
        _ if total > LONGEST => Err(format!("`{text}` is longer than ten years")),
        _ => Ok(total),
    }
}

/// A duration as people write it: three significant figures under a minute, whole units above.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let seconds = self.0.as_secs_f64();
        match micros {
            0 => f.write_str("0s"),
            1..=999 => write!(f, "{micros}µs"),
            1_000..=9_999 => figures(f, seconds * 1e3, 2, "ms"),
            10_000..=99_999 => figures(f, seconds * 1e3, 1, "ms"),
            100_000..=999_499 => figures(f, seconds * 1e3, 0, "ms"),
            999_500..=9_994_999 => figures(f, seconds, 2, "s"),
            9_995_000..=59_949_999 => figures(f, seconds, 1, "s"),
            _ => whole_units(f, seconds.round() as u64),
        }
    }
}

/// With so many decimals, of which those that say nothing are left out.
fn figures(f: &mut fmt::Formatter<'_>, value: f64, decimals: usize, unit: &str) -> fmt::Result {
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    write!(f, "{text}{unit}")
}

fn whole_units(f: &mut fmt::Formatter<'_>, seconds: u64) -> fmt::Result {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(3);
    let (size, unit) = units[first];
    write!(f, "{}{unit}", seconds / size)?;
    match units.get(first + 1) {
        Some((next, name)) if (seconds % size) / next > 0 => write!(f, "{}{name}", (seconds % size) / next),
        _ => Ok(()),
    }
}

/// Serde for durations as integer microseconds: exact enough for any latency here, and never a float in stored state.
pub mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes whole microseconds.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_micros()).unwrap_or(u64::MAX).serialize(to)
    }

    /// Reads whole microseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(7), "7µs"),
            (Duration::from_micros(1_234), "1.23ms"),
            (Duration::from_micros(45_678), "45.7ms"),
            (Duration::from_millis(412), "412ms"),
            (Duration::from_millis(999), "999ms"),
            (Duration::from_micros(999_600), "1s"),
            (Duration::from_millis(1_800), "1.8s"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_millis(1_234), "1.23s"),
            (Duration::from_millis(12_345), "12.3s"),
            (Duration::from_secs(60), "1m"),
            (Duration::from_secs(192), "3m12s"),
            (Duration::from_secs(7_260), "2h1m"),
            (Duration::from_secs(90_000), "1d1h"),
        ];
        for (duration, text) in cases {
            assert_eq!(Human(duration).to_string(), text);
        }
    }

    #[test]
    fn a_clock_that_stepped_back_gives_zero_not_a_negative() {
        let noon: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(between(noon, earlier(noon, Duration::from_secs(5))), Duration::ZERO);
        assert_eq!(Mono(Duration::from_secs(1)).since(Mono(Duration::from_secs(2))), Duration::ZERO);
    }

    #[test]
    fn durations_are_read() {
        let table = [
            ("250ms", 250),
            ("5s", 5_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("6h", 21_600_000),
            ("30d", 2_592_000_000),
            ("1h1m1s1ms", 3_661_001),
            ("0s", 0),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad =
            ["", "5", "s", "5 s", "1.5s", "-1s", "30s1m", "1m1m", "5sec", "4000d", "99999999999999999999s", "5µs"];
        for text in bad {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
