//! When a journey is due.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::time::later;

/// When a journey is due. Slots are points of wall-clock time, the same after every restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Every so often, shifted by a phase that spreads journeys of equal interval.
    Every {
        /// The interval.
        every: Duration,
        /// The shift from the Unix epoch, less than the interval.
        phase: Duration,
    },
    /// By a cron expression in a time zone.
    Cron(Box<Calendar>),
}

/// A cron expression in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Parses a cron expression (five fields, or six with seconds first) for an IANA zone.
    ///
    /// # Errors
    /// What is wrong with either, in words.
    pub fn parse(expression: &str, zone: &str) -> Result<Calendar, String> {
        // The parser takes it for a list of no values, and the search for the next one lasts minutes.
        if let Some(field) = expression.split_whitespace().find(|field| field.split(',').any(str::is_empty)) {
            return Err(format!("`{field}` lacks a value before, after or between commas"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(expression).map_err(|error| error.to_string())?;
        let zone = TimeZone::get(zone).map_err(|_| format!("no time zone is named {zone:?}"))?;
        Ok(Calendar { cron, zone })
    }

    /// The first occurrence after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok().map(|at| at.timestamp())
    }

    /// The last occurrence at or before `at`.
    pub fn last(&self, at: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&at.to_zoned(self.zone.clone()), true).ok().map(|at| at.timestamp())
    }
}

impl FromStr for Calendar {
    type Err = String;
    /// A cron expression in UTC.
    fn from_str(expression: &str) -> Result<Self, String> {
        Calendar::parse(expression, "UTC")
    }
}

impl Schedule {
    /// An interval schedule for the journey of that name. Its phase depends on the name alone.
    pub fn every(every: Duration, name: &str) -> Schedule {
        let interval = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        Schedule::Every { every, phase: Duration::from_millis(spread(name) % interval) }
    }

    /// The first slot after `after`; `None` if there will never be one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every { every, phase } => {
                let (every, phase) = (every.as_millis() as i64, phase.as_millis() as i64);
                let elapsed = after.as_millisecond().saturating_sub(phase).div_euclid(every);
                Timestamp::from_millisecond((elapsed + 1).checked_mul(every)?.checked_add(phase)?).ok()
            }
            Schedule::Cron(calendar) => calendar.next(after),
        }
    }

    /// The slots in `(after, until]`, at most `limit` of them.
    pub fn slots(&self, after: Timestamp, until: Timestamp, limit: usize) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next(after), |slot| self.next(*slot))
            .take_while(move |slot| *slot <= until)
            .take(limit)
    }

    /// The usual time between slots. For a calendar: between its next two after `around`.
    pub fn interval(&self, around: Timestamp) -> Duration {
        match self {
            Schedule::Every { every, .. } => *every,
            Schedule::Cron(calendar) => {
                let first = calendar.next(around);
                let second = first.and_then(|first| calendar.next(first));
                match (first, second) {
                    (Some(first), Some(second)) => crate::time::between(first, second),
                    _ => Duration::from_secs(86_400),
                }
            }
        }
    }

    /// How many slots `window` after `from` has: exact for an interval, counted for a calendar.
    pub fn count(&self, from: Timestamp, window: Duration) -> u64 {
        match self {
            Schedule::Every { every, .. } => (window.as_millis() / every.as_millis().max(1)) as u64,
            Schedule::Cron(_) => self.slots(from, later(from, window), 1_000_000).count() as u64,
        }
    }
}

/// A well-spread number from a name, the same in every version and on every machine:
/// FNV-1a, finished by the SplitMix64 mixer so that names that differ in their last letter land far apart.
fn spread(name: &str) -> u64 {
    let hash = fnv1a(name.bytes());
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// 64 bits of FNV-1a (draft-eastlake-fnv): the same in every version and on every machine, which std's hashers do not promise.
pub(crate) fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn phases_are_stable_and_spread() {
        let Schedule::Every { phase, .. } = Schedule::every(Duration::from_secs(60), "sms-round-trip") else {
            panic!()
        };
        assert_eq!(phase, Duration::from_millis(15_458), "a change here moves every user's schedule");
        let mut seconds = [0u32; 60];
        for n in 0..6_000 {
            let Schedule::Every { phase, .. } = Schedule::every(Duration::from_secs(60), &format!("journey-{n}"))
            else {
                panic!()
            };
            seconds[phase.as_secs() as usize] += 1;
        }
        assert!(seconds.iter().all(|n| (50..=160).contains(n)), "{seconds:?}");
    }

    #[test]
    fn calendar_slots_keep_local_time_over_both_changes_of_the_clock() {
        let schedule = Schedule::Cron(Box::new(Calendar::parse("0 4 * * *", "Europe/Paris").unwrap()));
        let autumn: Vec<_> = schedule.slots(at("2026-10-24T00:00:00Z"), at("2026-10-26T12:00:00Z"), 9).collect();
        assert_eq!(autumn, [at("2026-10-24T02:00:00Z"), at("2026-10-25T03:00:00Z"), at("2026-10-26T03:00:00Z")]);
        let spring: Vec<_> = schedule.slots(at("2026-03-28T00:00:00Z"), at("2026-03-30T12:00:00Z"), 9).collect();
        assert_eq!(spring, [at("2026-03-28T03:00:00Z"), at("2026-03-29T02:00:00Z"), at("2026-03-30T02:00:00Z")]);
    }

    /// Twelve zones, both changes a year, five years: a daily slot in the hour that is skipped or repeated is due exactly once a day.
    #[test]
    fn a_daily_slot_is_due_once_a_day_whatever_the_clock_does() {
        let zones = [
            "Europe/London",
            "Europe/Paris",
            "America/New_York",
            "America/Los_Angeles",
            "America/Sao_Paulo",
            "Australia/Lord_Howe",
            "Australia/Sydney",
            "Africa/Casablanca",
            "Asia/Tehran",
            "Asia/Kolkata",
            "Pacific/Auckland",
            "UTC",
        ];
        for zone in zones {
            for expression in ["30 1 * * *", "30 2 * * *"] {
                let calendar = Calendar::parse(expression, zone).unwrap();
                let schedule = Schedule::Cron(Box::new(calendar.clone()));
                let slots: Vec<_> =
                    schedule.slots(at("2025-01-01T12:00:00Z"), at("2030-01-01T12:00:00Z"), 9_999).collect();
                let mut days: Vec<_> = slots.iter().map(|slot| slot.to_zoned(calendar.zone.clone()).date()).collect();
                let all = days.len();
                days.dedup();
                assert_eq!((all, days.len()), (1826, 1826), "{zone} {expression}");
            }
        }
    }

    #[test]
    fn nonsense_is_explained() {
        assert!(Calendar::parse("61 * * * *", "UTC").is_err());
        for expression in [", * * * *", ", * * * * *", "1,,2 * * * *", "* 4, * * *"] {
            assert!(Calendar::parse(expression, "UTC").unwrap_err().contains("between commas"), "{expression}");
        }
        assert_eq!(Calendar::parse("* * * * *", "Mars/Base").unwrap_err(), "no time zone is named \"Mars/Base\"");
    }

    proptest! {
        #[test]
        fn slots_advance_by_the_interval(every in 1u64..10_000_000, start in 0i64..4_000_000_000_000, name in "[a-z]{1,12}") {
            let every = Duration::from_millis(every);
            let schedule = Schedule::every(every, &name);
            let start = Timestamp::from_millisecond(start).unwrap();
            let first = schedule.next(start).unwrap();
            prop_assert!(first > start && crate::time::between(start, first) <= every);
            prop_assert_eq!(crate::time::between(first, schedule.next(first).unwrap()), every);
        }
    }
}
