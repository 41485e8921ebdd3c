//! Slow drift: whether the last runs were slower than those of the same hours of the days before, long before a budget says so.
//!
//! The same hours, because load has a rhythm of a day; the day a week ago once more, because it may have one of a week. Hours are
//! those of UTC: on the days after a clock change they are an hour off. What is compared are ranks, by [`rank`].

pub mod rank;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::outcome::Verdict;
use crate::time::{Human, between, earlier, later};

/// A journey is looked at this often. What drifts has hours.
pub const EVERY: Duration = Duration::from_secs(900);
/// Of each window at most so many runs are compared, the last ones: what is asked of the store has a bound.
pub const AT_MOST: usize = 2_000;
/// The days before that are compared with.
pub const DAYS: u32 = 7;
const DAY: Duration = Duration::from_secs(86_400);
/// As many runs are the last ones, ...
const RUNS: u32 = 60;
/// ... but those of six hours at least, because queues that fill and empty within an hour are no drift, and of a day at most, because
/// the days before are no more than that apart.
const SHORTEST: Duration = Duration::from_secs(6 * 3_600);
/// Fewer runs than these, or fewer days, say nothing.
const LEAST_RUNS: usize = 20;
const LEAST_DAYS: usize = 3;
/// An hour of the days before with more bad runs than these is nothing to compare with.
const BAD_SHARE: f64 = 0.1;
/// It fires above, and ends below: two runs that are alike make a half.
const FIRES: f64 = 0.7;
const ENDS: f64 = 0.6;
/// What chance makes more often than this is none. Of sixty runs an effect of 0.7 is always rarer; this is for fewer.
const DOUBT: f64 = 0.000_1;
/// So much slower, by the median, is worth a ticket: a fifth, which is more than the noise of one release to the next, and so many
/// milliseconds, below which a scheduler or a neighbour on the machine makes as much.
const SLOWER: (f64, Duration) = (0.2, Duration::from_millis(10));
/// The last runs must stick out so many times as far as one day does from the next. The rank test takes runs for independent, and
/// they are not: what lasts for minutes, or for a day, makes many of them slow at once.
const SWINGS: f64 = 4.0;
/// Less than this is well again.
const BACK: (f64, Duration) = (0.1, Duration::from_millis(5));
/// Without a measurement for so long nothing is known any more.
const KEPT: Duration = DAY;

/// A run as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its slot.
    pub slot: Timestamp,
    /// What it came to.
    pub verdict: Verdict,
    /// How long it took.
    pub latency: Duration,
}

impl Ran {
    fn is_delivered(&self) -> bool {
        matches!(self.verdict, Verdict::Good | Verdict::Slow)
    }
}

/// Which runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    until: Timestamp,
    length: Duration,
}

impl Hours {
    /// The last ones of a journey that runs this often.
    pub fn before(now: Timestamp, interval: Duration) -> Hours {
        Hours { until: now, length: interval.saturating_mul(RUNS).clamp(SHORTEST, DAY) }
    }

    /// When they begin and end - the end is in, the beginning is not -, and after that the same of each day before.
    pub fn windows(&self) -> Vec<(Timestamp, Timestamp)> {
        let ends = (0..=DAYS).map(|day| earlier(self.until, DAY * day));
        ends.map(|end| (earlier(end, self.length), end)).collect()
    }

    /// Compares; `windows` are the runs of [`Hours::windows`]. `None` where there is too little to say anything.
    pub fn measure(&self, windows: &[Vec<Ran>]) -> Option<Measured> {
        let (recent, days) = windows.split_first()?;
        let recent: Vec<Duration> = recent.iter().filter(|ran| ran.is_delivered()).map(|ran| ran.latency).collect();
        // A day of which half is missing has other hours than the last ones.
        let days: Vec<_> =
            days.iter().map(|ran| good_hours(ran)).map(|day| (day.len() * 2 >= recent.len()).then_some(day)).collect();
        let reference: Vec<Duration> = days.iter().flatten().flatten().copied().collect();
        let compared = days.iter().flatten().count();
        if recent.len() < LEAST_RUNS || compared < LEAST_DAYS {
            return None;
        }
        let ranks = rank::compare(&recent, &reference)?;
        let median = rank::median(&recent);
        let medians: Vec<_> = days.iter().map(|day| day.as_deref().map(rank::median)).collect();
        let week_ago = medians.get(DAYS as usize - 1).copied().flatten();
        Some(Measured {
            effect: ranks.effect,
            p: ranks.p,
            median,
            before: rank::median(&reference),
            swing: swing(medians.into_iter().flatten()),
            is_weekly: week_ago.is_some_and(|week_ago| !is_slower(median, week_ago, SLOWER)),
            days: compared as u32,
            window: self.length,
        })
    }
}

/// The delivered runs of a day, without the hours in which more than a few were bad.
fn good_hours(day: &[Ran]) -> Vec<Duration> {
    let hours = day.chunk_by(|a, b| hour(a) == hour(b)).filter(|hour| {
        let bad = hour.iter().filter(|ran| ran.verdict != Verdict::Good).count();
        bad as f64 <= BAD_SHARE * hour.len() as f64
    });
    hours.flatten().filter(|ran| ran.is_delivered()).map(|ran| ran.latency).collect()
}

/// How far one day is from what days are, of the logarithm: by the mean square of successive differences (J. von Neumann and others,
/// 1941), which a trend over the days hardly touches.
fn swing(medians: impl Iterator<Item = Duration>) -> f64 {
    let logarithms: Vec<f64> = medians.map(logarithm).collect();
    let squares: Vec<f64> = logarithms.windows(2).map(|pair| (pair[0] - pair[1]).powi(2)).collect();
    (squares.iter().sum::<f64>() / (2.0 * squares.len().max(1) as f64)).sqrt()
}

fn logarithm(latency: Duration) -> f64 {
    latency.as_secs_f64().max(1e-6).ln()
}

fn hour(ran: &Ran) -> i64 {
    ran.slot.as_second().div_euclid(3_600)
}

fn is_slower(median: Duration, before: Duration, (share, least): (f64, Duration)) -> bool {
    median >= before.mul_f64(1.0 + share) && median >= before + least
}

/// How the last runs compare with those of the days before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The share of pairs in which the later run is the slower one.
    pub effect: f64,
    /// How probable that is by chance.
    pub p: f64,
    /// The median of the last runs.
    #[serde(with = "crate::time::micros")]
    pub median: Duration,
    /// The median of the runs before.
    #[serde(with = "crate::time::micros")]
    pub before: Duration,
    /// How far one day was from the next, of the logarithm of their medians.
    pub swing: f64,
    /// A week ago it was as slow.
    pub is_weekly: bool,
    /// The days that it was compared with.
    pub days: u32,
    /// How long the last runs took place.
    #[serde(with = "crate::time::micros")]
    pub window: Duration,
}

impl Measured {
    /// Whether it is enough to fire.
    pub fn is_proven(&self) -> bool {
        let sticks_out = logarithm(self.median) - logarithm(self.before) > SWINGS * self.swing;
        let is_much = is_slower(self.median, self.before, SLOWER) && !self.is_weekly;
        self.effect > FIRES && self.p < DOUBT && sticks_out && is_much
    }

    /// Whether what fired is over.
    pub fn is_over(&self) -> bool {
        self.effect < ENDS || !is_slower(self.median, self.before, BACK)
    }

    /// The arithmetic, for people.
    pub fn said(&self) -> String {
        let more = (self.median.as_secs_f64() / self.before.as_secs_f64().max(1e-6) - 1.0) * 100.0;
        let p = if self.p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {:.3}", self.p) };
        format!(
            "median {}, against {} in the same hours of {} days before ({more:.0} % slower; {:.0} % of pairs slower, {p})",
            Human(self.median),
            Human(self.before),
            self.days,
            self.effect * 100.0
        )
    }
}

/// What is known of a journey's drift. Of one that does not drift, nothing is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// What was found, while it fires.
    pub found: Option<Found>,
    /// When something else was last wrong, of which the last runs may still be full.
    pub troubled: Option<Timestamp>,
}

/// A drift that was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// When it was found.
    pub since: Timestamp,
    /// When it was last measured.
    pub at: Timestamp,
    /// What was measured then.
    pub measured: Measured,
}

impl Drift {
    /// Takes a measurement.
    pub fn take(&mut self, measured: Measured, now: Timestamp) {
        self.troubled = self.troubled.filter(|at| between(*at, now) < measured.window);
        let since = match self.found {
            Some(_) if measured.is_over() => None,
            Some(found) => Some(found.since),
            None => (measured.is_proven() && self.troubled.is_none()).then_some(now),
        };
        self.found = since.map(|since| Found { since, at: now, measured });
    }

    /// Notes that something else is wrong: what made it slow must have left the window before anything counts as drift.
    pub fn trouble(&mut self, now: Timestamp) {
        self.troubled = Some(now);
    }

    /// Waits for measurements from `now` on: there were none while nothing ran.
    pub fn resume(&mut self, now: Timestamp) {
        if let Some(found) = &mut self.found {
            found.at = now;
        }
    }

    /// Forgets what was not measured again for a day.
    pub fn expire(&mut self, now: Timestamp) {
        self.found = self.found.filter(|found| between(found.at, now) < KEPT);
    }

    /// When time alone ends it.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.found.map(|found| later(found.at, KEPT))
    }
}

#[cfg(test)]
mod tests;
