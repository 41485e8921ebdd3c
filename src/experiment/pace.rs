//! When each message of the traffic is due. Open loop: what a message is due does not depend on what became of those before it, so
//! that a system that stalls is not spared the messages that it would have had.

use std::time::Duration;

/// How fast messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// So many a second, once the ramp is over. Above zero.
    pub rate: f64,
    /// Over this long the rate rises from nothing, evenly.
    pub ramp: Duration,
}

impl Pace {
    /// When the message of this number, from 0, is due after the first.
    pub fn due(&self, number: u64) -> Duration {
        let (number, ramp) = (number as f64, self.ramp.as_secs_f64());
        // By a time t within the ramp, rate·t²/(2·ramp) messages have been due; by its end, half of what would have been without it.
        let in_ramp = self.rate * ramp / 2.0;
        let seconds =
            if number < in_ramp { (2.0 * number * ramp / self.rate).sqrt() } else { ramp / 2.0 + number / self.rate };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_a_ramp_costs_half_of_its_messages() {
        let even = Pace { rate: 100.0, ramp: Duration::ZERO };
        assert_eq!((even.due(0), even.due(1), even.due(250)), (Duration::ZERO, millis(10), millis(2_500)));
        let ramped = Pace { rate: 100.0, ramp: Duration::from_secs(4) };
        let by = |seconds: u64| (0..).take_while(|n| ramped.due(*n) < Duration::from_secs(seconds)).count();
        assert_eq!((by(2), by(4), by(5)), (50, 200, 300));
        let all: Vec<_> = (0..500).map(|n| ramped.due(n)).collect();
        assert!(all.is_sorted(), "{all:?}");
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}
