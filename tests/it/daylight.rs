//! Clocks that are set: schedules, maintenance and hours of routes over both changes a year, minute by minute, against nothing but
//! the zone's own civil time.

#![expect(clippy::unwrap_used, reason = "what cannot be computed is a failed test")]

use std::time::Duration;

use jiff::civil::{Date, Time, Weekday, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use journeyman::control::Hours;
use journeyman::journey::schedule::{Calendar, Schedule};
use journeyman::journey::{Maintenance, MaintenanceTime};

use crate::support::table::Table;

/// Half an hour on Lord Howe; Casablanca goes back for Ramadan; Cairo changes on a Thursday night; Santiago and Havana at midnight,
/// so that a day begins at one.
const ZONES: [&str; 12] = [
    "Europe/London",
    "Europe/Paris",
    "America/New_York",
    "America/Los_Angeles",
    "America/Santiago",
    "America/Havana",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Jerusalem",
    "Pacific/Auckland",
];
const FIRST: Date = date(2025, 1, 1);
const LAST: Date = date(2029, 12, 31);
const DAILY: [(&str, i8); 2] = [("30 1 * * *", 1), ("30 2 * * *", 2)];
const WEEK: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// Every change of the clock within the five years.
fn changes(zone: &TimeZone) -> Vec<Timestamp> {
    let begin = FIRST.to_zoned(zone.clone()).unwrap().timestamp();
    let end = LAST.to_zoned(zone.clone()).unwrap().timestamp();
    zone.following(begin).map(|change| change.timestamp()).take_while(|at| *at < end).collect()
}

/// The moments at which it may be this time on this day: one; both, where it comes twice; where it does not come, from when the
/// clock was set until as long after as it was set.
fn moments(zone: &TimeZone, day: Date, time: Time) -> (Timestamp, Timestamp, bool) {
    let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time));
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {
            let at = ambiguous.compatible().unwrap();
            (at, at, true)
        }
        AmbiguousOffset::Fold { .. } => (ambiguous.earlier().unwrap(), ambiguous.later().unwrap(), true),
        AmbiguousOffset::Gap { .. } => (ambiguous.earlier().unwrap(), ambiguous.later().unwrap(), false),
    }
}

#[test]
fn each_day_has_each_of_its_slots_once() {
    let mut table = Table::new("robustness", "t11-slots", &["test", "tried", "held"]);
    let (mut slots, mut odd, mut set) = (0, 0, 0);
    for name in ZONES {
        let zone = zone(name);
        set += changes(&zone).len();
        for (expression, hour) in DAILY {
            let schedule = Schedule::Cron(Box::new(Calendar::parse(expression, name).unwrap()));
            let mut after = (FIRST.to_zoned(zone.clone()).unwrap() - 1.minute()).timestamp();
            for day in FIRST.series(1.day()).take_while(|day| *day <= LAST) {
                let slot = schedule.next(after).unwrap();
                let (from, until, comes) = moments(&zone, day, Time::constant(hour, 30, 0, 0));
                assert_eq!(slot.to_zoned(zone.clone()).date(), day, "{name} {expression}: {slot}");
                assert!(
                    from <= slot && slot <= until,
                    "{name} {expression} on {day}: {slot} is not in {from}..={until}"
                );
                assert!(!comes || slot == from || slot == until, "{name} {expression} on {day}: {slot}");
                slots += 1;
                odd += u32::from(from != until);
                after = slot;
            }
        }
    }
    assert!(set >= 10 * ZONES.len() && odd > 80, "{set} changes, {odd} slots in one");
    table.row(&[
        &"T11 daily slots",
        &format!(
            "{slots} days with a slot at 01:30 and at 02:30: {} zones, 5 years, {set} changes, {odd} slots in one",
            ZONES.len()
        ),
        &"each day has each slot once, at its minute",
    ]);
}

/// Every minute of the night around a change.
fn minutes(change: Timestamp) -> impl Iterator<Item = Timestamp> {
    (-5 * 60..5 * 60).map(move |minute: i64| change + minute.minutes())
}

/// By the numbers on the wall: is it in these hours?
fn is_in(hours: &Hours, at: Timestamp) -> bool {
    let local = at.to_zoned(hours.zone.clone());
    let of_day = |time: Time| i32::from(time.hour()) * 60 + i32::from(time.minute());
    let (now, from, until) = (of_day(local.time()), of_day(hours.from), of_day(hours.until));
    let is_day = |day: Weekday| hours.days.contains(&day);
    let (today, yesterday) = (is_day(local.weekday()), is_day(local.weekday().previous()));
    if from < until {
        today && (from..until).contains(&now)
    } else {
        today && now >= from || yesterday && now < until && from != until || today && from == until
    }
}

#[test]
fn hours_and_maintenance_are_kept_to_the_minute() {
    let mut table = Table::new("robustness", "t11-windows", &["test", "tried", "held"]);
    let (mut looked, mut edges) = (0, 0);
    let time = |(hour, minute): (i8, i8)| Time::constant(hour, minute, 0, 0);
    for name in ZONES {
        let zone = zone(name);
        for change in changes(&zone) {
            let all: Vec<_> = minutes(change).collect();
            for (from, until) in [((1, 0), (2, 30)), ((22, 0), (2, 15)), ((0, 0), (0, 30))] {
                let hours = Hours { days: WEEK.to_vec(), from: time(from), until: time(until), zone: zone.clone() };
                let told: Vec<bool> = all.iter().map(|at| is_in(&hours, *at)).collect();
                let mut edge = hours.next_edge(all[0]).unwrap();
                for (n, at) in all.iter().enumerate() {
                    assert_eq!(hours.contain(*at), told[n], "{name}: {from:?}-{until:?} at {at}");
                    if n > 0 && told[n] != told[n - 1] {
                        assert_eq!(edge, *at, "{name}: {from:?}-{until:?}");
                        edge = hours.next_edge(*at).unwrap();
                        edges += 1;
                    }
                    looked += 1;
                }
                assert!(edge > all[all.len() - 1], "{name}: {from:?}-{until:?}: nothing begins or ends at {edge}");
            }
            for (expression, hour) in DAILY {
                let begins = Box::new(Calendar::parse(expression, name).unwrap());
                let lasts = Duration::from_secs(90 * 60);
                let time = MaintenanceTime::Recurring { begins, lasts };
                let window = Maintenance { name: "nightly".to_owned(), time, exclude_from_slo: true };
                let active: Vec<_> = all.iter().filter(|at| window.is_active(**at)).copied().collect();
                looked += all.len();
                // Each window that lies within these minutes has all of its own, one after another.
                let mut windows: Vec<Vec<Timestamp>> = Vec::new();
                for at in active {
                    match windows.last_mut().filter(|window| window[window.len() - 1] + 1.minute() == at) {
                        Some(window) => window.push(at),
                        None => windows.push(vec![at]),
                    }
                }
                for window in &windows {
                    let (first, last) = (window[0], window[window.len() - 1]);
                    if first == all[0] || last == all[all.len() - 1] {
                        continue;
                    }
                    assert_eq!(window.len(), 90, "{name} {expression}: {first} to {last}");
                    let day = first.to_zoned(zone.clone()).date();
                    let (from, until, _) = moments(&zone, day, Time::constant(hour, 30, 0, 0));
                    assert!(from <= first && first <= until, "{name} {expression}: {first}");
                }
                assert!(!windows.is_empty(), "{name} {expression}: no window around {change}");
            }
        }
    }
    assert!(edges > 0);
    table.row(&[
        &"T11 hours, maintenance",
        &format!("{looked} minutes around the changes of {} zones, hours of routes and nightly windows", ZONES.len()),
        &format!("every minute as on the wall, {edges} edges found to the minute, each window 90 minutes long"),
    ]);
}
