//! What share of its runs a journey promises, and over which time.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::journey::outcome::labelled;
use crate::time::{Human, between, earlier, later};

/// What share of a window's runs must be delivered, and in budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Share of valid runs that must be delivered by the deadline, in `0..=1`.
    pub delivered: f64,
    /// Share of valid runs that must be delivered within the budget, in `0..=1`.
    pub in_budget: Option<f64>,
    /// The time over which it is promised.
    pub window: Window,
    /// Whether a message that came after the deadline was delivered all the same. It is never in budget.
    pub late_is_good: bool,
}

/// The time over which something is promised.
#[derive(Clone, Debug, PartialEq)]
pub enum Window {
    /// The last so much time, up to now.
    Rolling(Duration),
    /// The calendar's present week, month or quarter.
    Calendar(Box<Period>),
}

labelled! {
    /// The periods of a calendar.
    PeriodUnit {
        /// Seven days.
        Week = "week",
        /// A month.
        Month = "month",
        /// Three months.
        Quarter = "quarter",
    }
}

/// A calendar's periods of one length, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    /// Their length.
    pub unit: PeriodUnit,
    /// Where they begin at midnight.
    pub zone: TimeZone,
    /// The first day of one of them; the others follow, before it and after it.
    pub start: Date,
}

/// Weeks begin on Mondays, months and quarters on their first day, unless a start is given: this one was a Monday and both others.
pub const USUAL_START: Date = jiff::civil::date(2024, 1, 1);

/// A window is this long unless something else is said.
pub const USUAL_WINDOW: Duration = Duration::from_secs(30 * 86_400);

impl Period {
    /// When the period that `at` lies in began, and when the next one begins.
    pub fn bounds(&self, at: Timestamp) -> (Timestamp, Timestamp) {
        let date = at.to_zoned(self.zone.clone()).date();
        let months = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month());
        let mut index = match self.unit {
            PeriodUnit::Week => {
                let days = date.since((jiff::Unit::Day, self.start)).map_or(0, |span| span.get_days());
                i64::from(days).div_euclid(7)
            }
            PeriodUnit::Month => months(date) - months(self.start),
            PeriodUnit::Quarter => (months(date) - months(self.start)).div_euclid(3),
        };
        // The day of the month may not have come yet.
        while self.begin(index) > at {
            index -= 1;
        }
        (self.begin(index), self.begin(index + 1))
    }

    /// When the period so many after the start begins: midnight, or where the clock skips it the first moment of the day.
    fn begin(&self, index: i64) -> Timestamp {
        let from_start = match self.unit {
            PeriodUnit::Week => index.checked_mul(7).and_then(|days| jiff::Span::new().try_days(days).ok()),
            PeriodUnit::Month => jiff::Span::new().try_months(index).ok(),
            PeriodUnit::Quarter => index.checked_mul(3).and_then(|months| jiff::Span::new().try_months(months).ok()),
        };
        // Counted from the start each time: a period that begins on the 31st has not moved after a February.
        let date = from_start.map(|span| self.start.saturating_add(span));
        let begin = date.and_then(|date| date.to_zoned(self.zone.clone()).ok()).map(|zoned| zoned.timestamp());
        begin.unwrap_or(if index < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }
}

impl From<Duration> for Window {
    fn from(length: Duration) -> Window {
        Window::Rolling(length)
    }
}

impl Window {
    /// Its first moment and its end, as seen at `now`. A rolling window ends now; a calendar's goes on.
    pub fn bounds(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Window::Rolling(length) => (later(earlier(now, *length), Duration::from_millis(1)), now),
            Window::Calendar(period) => period.bounds(now),
        }
    }

    /// How long it is.
    pub fn length(&self, now: Timestamp) -> Duration {
        match self {
            Window::Rolling(length) => *length,
            Window::Calendar(period) => {
                let (from, until) = period.bounds(now);
                between(from, until)
            }
        }
    }

    /// How long it is at the least.
    pub fn least_length(&self) -> Duration {
        const DAY: Duration = Duration::from_secs(86_400);
        match self {
            Window::Rolling(length) => *length,
            Window::Calendar(period) => match period.unit {
                PeriodUnit::Week => DAY * 7,
                PeriodUnit::Month => DAY * 28,
                PeriodUnit::Quarter => DAY * 89,
            },
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Rolling(length) => Human(*length).fmt(f),
            Window::Calendar(period) => {
                write!(f, "this {} ({})", period.unit, period.zone.iana_name().unwrap_or("UTC"))
            }
        }
    }
}
