//! Hours of the week, as people write them: by the clock on a wall.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Hours of the week in a zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    /// On these days; the day on which a night begins counts for all of it.
    pub days: Vec<Weekday>,
    /// From then.
    pub from: Time,
    /// Until then; before `from` is the next morning, equal to it the whole day.
    pub until: Time,
    /// Where.
    pub zone: TimeZone,
}

impl Hours {
    /// Whether `at` lies in them.
    pub fn contain(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone());
        let (day, time) = (local.weekday(), local.time());
        let on = |day: Weekday| self.days.contains(&day);
        match self.from.cmp(&self.until) {
            std::cmp::Ordering::Less => on(day) && self.from <= time && time < self.until,
            std::cmp::Ordering::Equal => on(day),
            std::cmp::Ordering::Greater => (on(day) && self.from <= time) || (on(day.previous()) && time < self.until),
        }
    }

    /// When they next begin or end after `now`; `None` if they never do.
    pub fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        let is_inside = self.contain(now);
        let mut day = now.to_zoned(self.zone.clone()).date();
        // Hours of one day a week begin again on its eighth.
        for _ in 0..=8 {
            let mut turns = self.turns(day);
            turns.sort_unstable();
            if let Some(edge) = turns.into_iter().find(|at| *at > now && self.contain(*at) != is_inside) {
                return Some(edge);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// Every moment of `day` at which they may begin or end: the times that are written down, midnight, and where the clock is
    /// set. One that it goes through twice counts twice, and one that it leaves out is where it was set.
    fn turns(&self, day: Date) -> Vec<Timestamp> {
        let at = |day: Date, time: Time| self.zone.to_ambiguous_timestamp(day.to_datetime(time));
        let times = [Time::midnight(), self.from, self.until];
        let written = times.into_iter().flat_map(|time| [at(day, time).earlier(), at(day, time).later()]);
        let mut turns: Vec<_> = written.flatten().collect();
        let midnight = |day: Date| at(day, Time::midnight()).compatible().ok();
        if let (Some(begin), Some(end)) = (midnight(day), day.tomorrow().ok().and_then(midnight)) {
            let set = self.zone.following(begin - 1.second()).map(|set| set.timestamp());
            turns.extend(set.take_while(|at| *at <= end));
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hours(days: &[Weekday], from: i8, until: i8) -> Hours {
        let [from, until] = [from, until].map(|hour| Time::constant(hour, 0, 0, 0));
        Hours { days: days.to_vec(), from, until, zone: TimeZone::get("Europe/Zurich").unwrap() }
    }

    const WEEK: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];

    #[test]
    fn hours_of_the_week_know_nights_and_zones() {
        let nights = hours(&[Weekday::Friday], 22, 6);
        assert!(nights.contain(at("2026-11-20T21:30:00Z")), "Friday, half past ten in the evening");
        assert!(nights.contain(at("2026-11-21T04:59:00Z")), "the morning after");
        assert!(!nights.contain(at("2026-11-21T05:00:00Z")));
        assert!(!nights.contain(at("2026-11-21T22:00:00Z")), "Saturday");
    }

    #[test]
    fn the_next_edge_is_where_they_begin_or_end() {
        let (office, friday) = (hours(&WEEK[..5], 9, 18), hours(&[Weekday::Friday], 9, 18));
        let (nights, sundays) = (hours(&[Weekday::Friday], 22, 6), hours(&[Weekday::Sunday], 0, 0));
        let table = [
            (&office, "2026-11-20T07:59:00Z", "2026-11-20T08:00:00Z"),
            (&office, "2026-11-20T08:00:00Z", "2026-11-20T17:00:00Z"),
            (&office, "2026-11-20T17:00:00Z", "2026-11-23T08:00:00Z"),
            (&friday, "2026-11-20T17:00:00Z", "2026-11-27T08:00:00Z"),
            (&nights, "2026-11-20T20:00:00Z", "2026-11-20T21:00:00Z"),
            (&nights, "2026-11-20T21:30:00Z", "2026-11-21T05:00:00Z"),
            (&sundays, "2026-11-20T12:00:00Z", "2026-11-21T23:00:00Z"),
            (&sundays, "2026-11-22T12:00:00Z", "2026-11-22T23:00:00Z"),
        ];
        for (hours, now, edge) in table {
            assert_eq!(hours.next_edge(at(now)), Some(at(edge)), "{now}");
        }
        assert_eq!(hours(&WEEK, 0, 0).next_edge(at("2026-11-20T12:00:00Z")), None, "always");
        assert_eq!(hours(&[], 9, 18).next_edge(at("2026-11-20T12:00:00Z")), None, "never");
    }

    /// In Zurich two o'clock did not come on 29 March 2026, and came twice on 25 October.
    #[test]
    fn an_edge_that_the_clock_leaves_out_or_goes_through_twice_is_found() {
        let (early, late) = (hours(&WEEK, 2, 5), hours(&WEEK, 1, 2));
        assert_eq!(early.next_edge(at("2026-03-28T12:00:00Z")), Some(at("2026-03-29T01:00:00Z")), "at three, then");
        assert_eq!(early.next_edge(at("2026-03-29T01:00:00Z")), Some(at("2026-03-29T03:00:00Z")));
        assert_eq!(early.next_edge(at("2026-10-24T22:00:00Z")), Some(at("2026-10-25T00:00:00Z")), "the first two");
        let half = Hours { from: Time::constant(2, 30, 0, 0), until: Time::constant(2, 45, 0, 0), ..late.clone() };
        let edges = std::iter::successors(Some(at("2026-10-24T22:00:00Z")), |now| half.next_edge(*now));
        let told: Vec<_> = edges.skip(1).take(4).map(|at| at.strftime("%H:%M").to_string()).collect();
        assert_eq!(told, ["00:30", "00:45", "01:30", "01:45"], "both times");
        assert_eq!(half.next_edge(at("2026-03-28T12:00:00Z")), Some(at("2026-03-30T00:30:00Z")), "not on that day");
        let half_past = Time::constant(2, 30, 0, 0);
        let left_out = Hours { from: half_past, ..early };
        assert_eq!(left_out.next_edge(at("2026-03-28T12:00:00Z")), Some(at("2026-03-29T01:00:00Z")), "at three, too");
        let twice = Hours { until: half_past, ..late };
        let again = twice.next_edge(at("2026-10-25T00:30:00Z"));
        assert_eq!(again, Some(at("2026-10-25T01:00:00Z")), "set back to two, they begin again");
    }

    /// Between two edges they neither begin nor end, whatever the zone does.
    #[test]
    fn no_edge_is_passed_over() {
        let zones = ["Europe/Zurich", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo", "UTC"];
        for (zone, (from, until)) in
            zones.into_iter().flat_map(|zone| [(zone, (23, 1)), (zone, (0, 2)), (zone, (2, 3))])
        {
            let zone = TimeZone::get(zone).unwrap();
            let hours = Hours { zone, ..hours(&[Weekday::Saturday, Weekday::Sunday, Weekday::Friday], from, until) };
            // A year in which Samoa had no 30 December.
            let mut edge = at("2011-01-01T00:00:00Z");
            let end = at("2012-01-10T00:00:00Z");
            let mut now = edge;
            while now < end {
                if now >= edge {
                    edge = hours.next_edge(now).unwrap();
                }
                let next = now + 15.minutes();
                if next < edge {
                    assert_eq!(hours.contain(now), hours.contain(next), "{now} {hours:?}, edge {edge}");
                }
                now = next;
            }
        }
    }
}
