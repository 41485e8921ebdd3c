//! How fast a channel goes: never faster than its `rate`, and slower for a while when its system wants that.

use std::time::Duration;

use crate::time::Mono;

/// A system that throttles without a word is given twice the time between two calls, at least this,
const LEAST_GAP: Duration = Duration::from_millis(200);
/// and at most this, and so much that each journey still gets its turn.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// After so long without another word the time is halved.
const CALM: Duration = Duration::from_secs(60);
/// Nobody keeps us waiting longer than this between two looks, whatever they say: a monitor that is silent for a day is none.
const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

/// Turns at an even rate: pure but for who holds it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mono,
    /// When the last turn was, and the usual time between two.
    last: Option<Mono>,
    spacing: Duration,
    /// Between two turns, because of what the system said; halved at `eased`.
    gap: Duration,
    eased: Mono,
    /// No turn before.
    hold: Mono,
    said: String,
}

/// That a system wants fewer calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// None before that, if it said so.
    pub(super) wait: Option<Duration>,
    /// As the metric has it: `told`, `limit`, `throttled`.
    pub(super) why: &'static str,
    /// What it said.
    pub(super) said: String,
}

impl Pace {
    /// Takes the next turn, unless it is later than `latest`: who gives up waiting must not keep it. Otherwise says why it is.
    pub(super) fn take(&mut self, rate: Option<f64>, latest: Mono, now: Mono) -> Result<Mono, Option<String>> {
        self.ease(now);
        let turn = self.next.max(self.hold).max(now);
        let is_slowed = !self.gap.is_zero() || self.hold > now;
        if turn > latest {
            return Err(is_slowed.then(|| self.said.clone()));
        }
        if let Some(last) = self.last {
            self.spacing = (self.spacing * 7 + turn.since(last)) / 8;
        }
        self.last = Some(turn);
        let least = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        self.next = turn + least.max(self.gap);
        Ok(turn)
    }

    /// Goes slower from now on, unless it was told how long with at most `longest` between two turns; whether that changes anything.
    pub(super) fn slow(&mut self, hint: &Hint, longest: Duration, now: Mono) -> bool {
        self.ease(now);
        match hint.wait {
            Some(wait) => {
                let until = now + wait.min(LONGEST_HOLD);
                if until <= self.hold {
                    return false;
                }
                self.hold = until;
            }
            // Of many calls that met one moment of it, one counts.
            None if self.gap > Duration::ZERO && now + CALM < self.eased + self.gap => return false,
            None => {
                self.gap = (self.gap.max(self.spacing) * 2).max(LEAST_GAP).min(LONGEST_GAP).min(longest);
                self.eased = now + CALM;
                self.next = self.next.max(now + self.gap);
            }
        }
        self.said.clone_from(&hint.said);
        true
    }

    /// How long it waits between two calls, or before the next, because of what the system said; and when that changes.
    pub(super) fn slowness(&mut self, now: Mono) -> (Duration, Option<Mono>) {
        self.ease(now);
        let held = self.hold.since(now);
        let gap = (!self.gap.is_zero()).then_some(self.eased);
        let hold = (!held.is_zero()).then_some(self.hold);
        (held.max(self.gap), hold.into_iter().chain(gap).min())
    }

    fn ease(&mut self, now: Mono) {
        while !self.gap.is_zero() && self.eased <= now {
            self.gap = if self.gap <= LEAST_GAP { Duration::ZERO } else { self.gap / 2 };
            self.eased = self.eased + CALM;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(1_000_000 + millis))
    }

    const EVER: Mono = Mono(Duration::MAX);

    fn hint(wait: Option<u64>) -> Hint {
        Hint { wait: wait.map(Duration::from_millis), why: "told", said: "429 Too Many Requests".to_owned() }
    }

    #[test]
    fn turns_are_evenly_spaced_and_unused_ones_are_lost() {
        let mut pace = Pace::default();
        let mut take = |now| pace.take(Some(5.0), EVER, at(now)).unwrap();
        assert_eq!(take(1_000), at(1_000));
        assert_eq!(take(1_000), at(1_200));
        assert_eq!(take(1_050), at(1_400));
        assert_eq!(take(9_000), at(9_000));
    }

    /// Otherwise a channel that is asked for more than its rate lets nobody through, after a while.
    #[test]
    fn who_does_not_wait_for_a_turn_does_not_keep_it() {
        let mut pace = Pace::default();
        let taken = (0..1_000).filter(|n| pace.take(Some(1.0), at(n * 10 + 5_000), at(n * 10)).is_ok());
        assert_eq!(taken.count(), 15, "ten seconds and the five that one waits");
        assert_eq!(pace.take(Some(1.0), at(10_000), at(10_000)), Err(None), "its own rate says nothing");
    }

    #[test]
    fn nothing_goes_before_the_time_that_it_was_told_to_wait() {
        let mut pace = Pace::default();
        assert!(pace.slow(&hint(Some(30_000)), LONGEST_GAP, at(0)));
        assert!(!pace.slow(&hint(Some(20_000)), LONGEST_GAP, at(5_000)), "it is waited for already");
        assert_eq!(pace.slowness(at(10_000)), (Duration::from_secs(20), Some(at(30_000))));
        assert_eq!(pace.take(None, at(15_000), at(10_000)), Err(Some("429 Too Many Requests".to_owned())));
        assert_eq!(pace.take(None, at(31_000), at(29_000)), Ok(at(30_000)));
        assert_eq!(pace.slowness(at(30_000)), (Duration::ZERO, None));
        pace.slow(&hint(Some(86_400_000)), LONGEST_GAP, at(40_000));
        assert_eq!(pace.slowness(at(40_000)).0, LONGEST_HOLD);
    }

    #[test]
    fn a_system_that_throttles_is_called_half_as_often_and_as_before_when_it_is_calm() {
        let mut pace = Pace::default();
        for n in 0..60 {
            pace.take(None, EVER, at(n * 500)).unwrap();
        }
        assert!(pace.slow(&hint(None), LONGEST_GAP, at(30_000)));
        let (gap, changes) = pace.slowness(at(30_000));
        assert!((900..=1_000).contains(&gap.as_millis()), "{gap:?}");
        assert_eq!(changes, Some(at(90_000)));
        assert!(!pace.slow(&hint(None), LONGEST_GAP, at(30_100)), "the same moment");
        let turns: Vec<_> = (0..3).map(|_| pace.take(None, EVER, at(31_000)).unwrap()).collect();
        assert_eq!(turns[2].since(turns[1]), gap);
        for n in 0..10 {
            pace.slow(&hint(None), LONGEST_GAP, at(40_000 + n * 11_000));
        }
        assert_eq!(pace.slowness(at(139_000)).0, LONGEST_GAP);
        let calm: Vec<_> = (1..8).map(|minute| pace.slowness(at(139_000 + minute * 60_000)).0.as_millis()).collect();
        assert_eq!(calm, [5_000, 2_500, 1_250, 625, 312, 156, 0]);
        let shorter = Duration::from_millis(50);
        pace.slow(&hint(None), shorter, at(700_000));
        assert_eq!(pace.slowness(at(700_000)).0, shorter, "where many call");
        assert_eq!(pace.take(None, EVER, at(900_000)), Ok(at(900_000)));
        assert_eq!(pace.take(None, EVER, at(900_000)), Ok(at(900_000)), "as fast as ever");
    }
}
