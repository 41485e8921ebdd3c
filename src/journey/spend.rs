//! What messages through a channel may cost in a day. A schedule that would spend more is thinned out, evenly over the day: rare
//! runs tell more than none from noon on.
//!
//! Each journey has a share of the channel's limit, in proportion to what its schedule asks for, so that none starves another.
//! What is counted is what a run may send, when it starts; so the limit holds whatever becomes of the run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::journey::schedule::Schedule;
use crate::journey::{Journey, Name};
use crate::time::between;

/// Calendars are counted from here, the first Monday of 2026, over this many days: the busiest is what counts.
const FIRST_DAY: Date = Date::constant(2026, 1, 5);
const DAYS: i64 = 7;
/// Days whose counts are kept: today, and those that a clock that steps may come back to.
const KEPT: usize = 3;

/// An amount of money in any one currency, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    units: u64,
    decimals: u32,
}

impl Money {
    /// Reads `10`, `10.00`, `0.045`: digits, of which at most 9 follow the point.
    pub fn parse(text: &str) -> Option<Money> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_number = !whole.is_empty() && (whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit());
        let fits = whole.len() <= 9 && part.len() <= 9 && (part.is_empty() != text.contains('.'));
        let units = format!("{whole}{part}").parse().ok().filter(|_| is_number && fits)?;
        Some(Money { units, decimals: part.len() as u32 })
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.units == 0
    }

    /// How many times `cost` fits into it, whole.
    pub fn pays_for(self, cost: Money) -> u64 {
        let scale = |money: Money, other: Money| {
            u128::from(money.units) * 10u128.pow(other.decimals.saturating_sub(money.decimals))
        };
        let times = scale(self, cost).checked_div(scale(cost, self)).unwrap_or(0);
        u64::try_from(times).unwrap_or(u64::MAX)
    }

    /// What so many cost.
    pub fn times(self, count: u64) -> Money {
        Money { units: self.units.saturating_mul(count), ..self }
    }

    /// As a number, for metrics.
    pub fn to_f64(self) -> f64 {
        self.units as f64 / 10f64.powi(self.decimals as i32)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut units, mut decimals) = (u128::from(self.units), self.decimals);
        while decimals < 2 {
            (units, decimals) = (units * 10, decimals + 1);
        }
        while decimals > 2 && units.is_multiple_of(10) {
            (units, decimals) = (units / 10, decimals - 1);
        }
        let one = 10u128.pow(decimals);
        write!(f, "{}.{:0width$}", units / one, units % one, width = decimals as usize)
    }
}

/// What a channel may spend in a day.
#[derive(Clone, Debug)]
pub struct SpendLimit {
    /// So many messages.
    pub messages: u64,
    /// What each costs, and what a day may cost, where the limit is an amount of money.
    pub money: Option<(Money, Money)>,
    /// Whose days.
    pub zone: TimeZone,
}

impl SpendLimit {
    /// So many messages as the limit's own measure has them: money, or messages.
    pub fn amount(&self, messages: u64) -> f64 {
        self.money.map_or(messages as f64, |(cost, _)| cost.times(messages).to_f64())
    }

    /// The limit itself, by the same measure.
    pub fn limit(&self) -> f64 {
        self.money.map_or(self.messages as f64, |(_, per_day)| per_day.to_f64())
    }
}

/// What one journey asks of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Messages that a run sends at most.
    pub per_run: u64,
    /// Messages on the busiest day of its schedule.
    pub per_day: u64,
    /// Whether it is held to an even pace. A calendar that fits into the limit is left alone; an interval is even by itself.
    is_paced: bool,
}

/// A run on its way that will send so many messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Through which channel.
    pub channel: Name,
    /// On which of the channel's days.
    pub day: Date,
    /// Whose run.
    pub journey: Name,
    /// How many.
    pub messages: u64,
}

/// What every channel with a limit may spend, and has.
#[derive(Debug, Default)]
pub struct Spending {
    channels: BTreeMap<Name, Account>,
}

#[derive(Debug)]
struct Account {
    limit: SpendLimit,
    demands: BTreeMap<Name, Demand>,
    demand: u64,
    days: BTreeMap<Date, Day>,
}

/// What was sent in a day.
#[derive(Debug, Default)]
struct Day {
    messages: u64,
    /// The same, for each journey: summed up for every question, it would cost a thousand journeys a thousand each.
    of: BTreeMap<Name, u64>,
}

impl Day {
    fn add(&mut self, journey: Name, messages: u64) {
        self.messages += messages;
        *self.of.entry(journey).or_default() += messages;
    }
}

/// All that the decision goes by. Messages, and how far the day has got.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// What the channel may send in a day.
    limit: u64,
    /// What it has sent today, for all journeys.
    spent: u64,
    /// What it has sent today for this journey.
    own: u64,
    demand: Demand,
    /// What all journeys ask for in a day.
    all_demand: u64,
    elapsed: Duration,
    day: Duration,
}

/// Whether a run may start: the day's limit has room for it, and the journey is not ahead of its share of the limit, which grows
/// evenly from nothing at the day's beginning. So a day's first run always starts at once.
fn may_start(at: Position) -> bool {
    let Position { limit, spent, own, demand, all_demand, elapsed, day } = at;
    if spent.saturating_add(demand.per_run) > limit {
        return false;
    }
    // own ≤ limit × demand ÷ all demand × elapsed ÷ day, in whole numbers.
    let due = [u128::from(limit), u128::from(demand.per_day), elapsed.as_millis()];
    let used = [u128::from(own), u128::from(all_demand), day.as_millis()];
    let product = |factors: [u128; 3]| factors.into_iter().fold(1u128, u128::saturating_mul);
    !demand.is_paced || product(used) <= product(due)
}

impl Spending {
    /// The accounts of these channels, from which these journeys send.
    pub fn new(limits: impl IntoIterator<Item = (Name, SpendLimit)>, journeys: &[Arc<Journey>]) -> Spending {
        let journeys: Vec<_> = journeys.iter().map(|journey| &**journey).filter(|journey| journey.is_run()).collect();
        let account = |(name, limit): (Name, SpendLimit)| {
            let demands = demands(&name, &limit, &journeys);
            let demand = demands.values().map(|demand| demand.per_day).sum();
            (name, Account { limit, demands, demand, days: BTreeMap::new() })
        };
        Spending { channels: limits.into_iter().map(account).collect() }
    }

    /// Takes up what an earlier process has spent.
    pub fn restore(&mut self, spent: impl IntoIterator<Item = Spent>) {
        for Spent { channel, day, journey, messages } in spent {
            if let Some(account) = self.channels.get_mut(&channel) {
                account.days.entry(day).or_default().add(journey, messages);
            }
        }
    }

    /// Learns what all daemons together have spent, as far as it is written down; of a journey of ours more may be known here.
    pub fn learn(&mut self, spent: impl IntoIterator<Item = Spent>) {
        for Spent { channel, day, journey, messages } in spent {
            if let Some(account) = self.channels.get_mut(&channel) {
                let day = account.days.entry(day).or_default();
                let known = day.of.get(&journey).copied().unwrap_or(0);
                day.add(journey, messages.saturating_sub(known));
            }
        }
    }

    /// Takes up what `before` has spent: more may have been counted there than is on disk.
    pub fn carry_on(&mut self, before: Spending) {
        for (channel, old) in before.channels {
            if let Some(account) = self.channels.get_mut(&channel) {
                account.days = old.days;
            }
        }
    }

    /// Whether a run of this journey may start now, as far as the limits of its channels go.
    pub fn allows(&self, journey: &Name, now: Timestamp) -> bool {
        self.may(journey, 0, now)
    }

    /// Whether a run beside the schedule may start now: within the day's limit, and one run ahead of the journey's share of it at most,
    /// which its slots then make up for.
    pub fn allows_beside(&self, journey: &Name, now: Timestamp) -> bool {
        self.may(journey, 1, now)
    }

    fn may(&self, journey: &Name, ahead: u64, now: Timestamp) -> bool {
        self.channels.values().all(|account| {
            let Some(demand) = account.demands.get(journey).copied() else { return true };
            let (day, elapsed, length) = day_of(&account.limit.zone, now);
            let today = account.days.get(&day);
            let own = today.and_then(|today| today.of.get(journey)).copied().unwrap_or(0);
            may_start(Position {
                limit: account.limit.messages,
                spent: today.map_or(0, |today| today.messages),
                own: own.saturating_sub(demand.per_run * ahead),
                demand,
                all_demand: account.demand,
                elapsed,
                day: length,
            })
        })
    }

    /// A run of this journey starts: counts what it may send, and says what has to be put on disk before it does.
    #[must_use]
    pub fn spend(&mut self, journey: &Name, now: Timestamp) -> Vec<Spent> {
        let mut spent = Vec::new();
        for (channel, account) in &mut self.channels {
            let Some(Demand { per_run: messages, .. }) = account.demands.get(journey).copied() else { continue };
            let (day, ..) = day_of(&account.limit.zone, now);
            account.days.entry(day).or_default().add(journey.clone(), messages);
            while account.days.len() > KEPT {
                account.days.pop_first();
            }
            spent.push(Spent { channel: channel.clone(), day, journey: journey.clone(), messages });
        }
        spent
    }

    /// What each channel has spent today, and what it may: money where the limit is one, messages otherwise.
    pub fn today(&self, now: Timestamp) -> impl Iterator<Item = (&Name, f64, f64)> {
        self.channels.iter().map(move |(channel, account)| {
            let (day, ..) = day_of(&account.limit.zone, now);
            let spent = account.days.get(&day).map_or(0, |today| today.messages);
            (channel, account.limit.amount(spent), account.limit.limit())
        })
    }

    /// Whether what the journey sends is limited at all.
    pub fn is_limited(&self, journey: &Name) -> bool {
        self.channels.values().any(|account| account.demands.contains_key(journey))
    }

    /// How many times rarer than by its schedule the journey runs; 1 if nothing holds it back.
    pub fn slowdown(&self, journey: &Name) -> f64 {
        let of = |account: &Account| {
            account.demands.contains_key(journey).then(|| slowdown(account.demand, account.limit.messages))
        };
        self.channels.values().filter_map(of).fold(1.0, f64::max)
    }
}

/// How a journey runs that is held back: so many times rarer than its slots come.
#[derive(Clone, Copy, Debug)]
pub struct Thinning {
    slowdown: f64,
    /// How much of a run the slots make up that nobody ran and that are not told yet.
    owed: f64,
}

impl Thinning {
    /// As [`Spending::slowdown`] says; 1 is not at all.
    pub fn new(slowdown: f64) -> Thinning {
        Thinning { slowdown: slowdown.clamp(1.0, 1e6), owed: 0.0 }
    }

    /// Whether it runs any rarer than its slots come.
    fn is_any(&self) -> bool {
        self.slowdown > 1.0
    }

    /// How long it is between two runs at most, if it is `interval` between two slots: runs are at slots, so one that has to wait
    /// waits for the next slot too.
    pub fn interval(&self, interval: Duration) -> Duration {
        if self.is_any() { interval.mul_f64(self.slowdown).saturating_add(interval) } else { interval }
    }

    /// Whether a slot that went by while nothing ran would have been run. Of many in a row, as many as the slowdown leaves.
    pub fn would_run(&mut self) -> bool {
        self.owed += 1.0 / self.slowdown;
        // Sums of shares are rarely whole: six sixths make one.
        let would_run = self.owed >= 1.0 - 1e-9;
        if would_run {
            self.owed -= 1.0;
        }
        would_run
    }
}

/// What each of these journeys asks of the channel; those that send nothing through it are not among them.
pub fn demands(channel: &Name, limit: &SpendLimit, journeys: &[&Journey]) -> BTreeMap<Name, Demand> {
    let mut demands = BTreeMap::new();
    for journey in journeys.iter().filter(|journey| journey.unavailable.is_none()) {
        let per_run = journey.sends_through(channel);
        if per_run > 0 {
            let per_day = per_run.saturating_mul(busiest_day(&journey.schedule, &limit.zone));
            let is_paced = matches!(journey.schedule, Schedule::Every { .. });
            demands.insert(journey.name.clone(), Demand { per_run, per_day, is_paced });
        }
    }
    if demands.values().map(|demand| demand.per_day).sum::<u64>() > limit.messages {
        demands.values_mut().for_each(|demand| demand.is_paced = true);
    }
    demands
}

/// How many times rarer runs come than their schedules ask for.
pub fn slowdown(demand: u64, limit: u64) -> f64 {
    (demand as f64 / limit.max(1) as f64).max(1.0)
}

/// Slots of the busiest day.
fn busiest_day(schedule: &Schedule, zone: &TimeZone) -> u64 {
    const DAY: u128 = 86_400_000;
    match schedule {
        Schedule::Every { every, .. } => DAY.div_ceil(every.as_millis().max(1)) as u64,
        Schedule::Cron(_) => {
            let bounds =
                (0..=DAYS).filter_map(|day| start_of(FIRST_DAY.saturating_add(jiff::Span::new().days(day)), zone));
            let bounds: Vec<_> = bounds.collect();
            let counts = bounds.windows(2).map(|day| {
                schedule.count(crate::time::earlier(day[0], Duration::from_millis(1)), between(day[0], day[1]))
            });
            counts.max().unwrap_or(1).max(1)
        }
    }
}

fn start_of(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_zoned(day.at(0, 0, 0, 0)).ok().map(|at| at.timestamp())
}

/// The day that it is in this zone, how much of it has gone by, and how long it is: 23 to 25 hours where clocks change.
fn day_of(zone: &TimeZone, now: Timestamp) -> (Date, Duration, Duration) {
    let day = zone.to_datetime(now).date();
    let start = start_of(day, zone).unwrap_or(now).min(now);
    let end = day.tomorrow().ok().and_then(|tomorrow| start_of(tomorrow, zone)).unwrap_or(now).max(now);
    (day, between(start, now), between(start, end).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journey::schedule::Calendar;
    use crate::journey::{AlertPolicy, Draft, Step, Verb};

    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    fn limit(messages: u64, zone: &str) -> SpendLimit {
        SpendLimit { messages, money: None, zone: TimeZone::get(zone).unwrap() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn journey(name: &str, schedule: Schedule, sends: usize) -> Arc<Journey> {
        let step = |index| Step {
            name: format!("send {index}").into(),
            verb: Verb::Send(Box::new(Draft { channel: "sms".into(), ..Draft::default() })),
            budget: None,
            timeout: None,
            always: false,
            soft: false,
            when: None,
            expect: Vec::new(),
            capture: Vec::new(),
            poll: None,
        };
        Arc::new(Journey {
            name: name.into(),
            schedule,
            budget: None,
            deadline: Duration::from_secs(30),
            late: Duration::from_secs(300),
            objective: None,
            alert: AlertPolicy {
                down_after: 3,
                confirm: Vec::new(),
                partial: true,
                drift: true,
                flapping: true,
                slow_after: 3,
                recover_after: 2,
                remind: None,
            },
            notify: Vec::new(),
            owner: None,
            runbook: None,
            labels: Default::default(),
            depends_on: Vec::new(),
            muted: false,
            critical: false,
            steps: (0..sends).map(step).collect(),
            maintenance: Vec::new(),
            unavailable: None,
            vantage: None,
            defined_at: String::new(),
            fingerprint: String::new(),
        })
    }

    fn every(name: &str, seconds: u64) -> Arc<Journey> {
        journey(name, Schedule::every(Duration::from_secs(seconds), name), 1)
    }

    fn cron(name: &str, expression: &str) -> Arc<Journey> {
        journey(name, Schedule::Cron(Box::new(expression.parse::<Calendar>().unwrap())), 1)
    }

    fn spending(limit: SpendLimit, journeys: &[Arc<Journey>]) -> Spending {
        Spending::new([("sms".into(), limit)], journeys)
    }

    /// Runs of every journey at its slots in `(from, until]`, in their order.
    fn simulate(
        spending: &mut Spending,
        journeys: &[Arc<Journey>],
        from: Timestamp,
        until: Timestamp,
    ) -> Vec<(Name, Timestamp)> {
        let slots = |journey: &Arc<Journey>| {
            journey.schedule.slots(from, until, usize::MAX).map(|slot| (slot, journey.name.clone())).collect::<Vec<_>>()
        };
        let mut slots: Vec<_> = journeys.iter().flat_map(slots).collect();
        slots.sort();
        let mut runs = Vec::new();
        for (slot, name) in slots {
            if spending.allows(&name, slot) {
                assert!(!spending.spend(&name, slot).is_empty());
                runs.push((name, slot));
            }
        }
        runs
    }

    #[test]
    fn money_is_exact() {
        for (text, shown) in [
            ("10", "10.00"),
            ("10.00", "10.00"),
            ("0.045", "0.045"),
            ("0.50", "0.50"),
            ("1.2300", "1.23"),
            ("0", "0.00"),
        ] {
            assert_eq!(money(text).to_string(), shown);
        }
        for text in ["", ".5", "5.", "-1", "1e3", "1_000", "0.0000000001", "9999999999", "1,5", "inf"] {
            assert_eq!(Money::parse(text), None, "{text}");
        }
        for (per_day, cost, times) in [
            ("10.00", "0.045", 222),
            ("0.3", "0.1", 3),
            ("0.045", "0.045", 1),
            ("0.044", "0.045", 0),
            ("999999999", "0.000000001", 999_999_999_000_000_000),
            ("1", "0", 0),
        ] {
            assert_eq!(money(per_day).pays_for(money(cost)), times, "{per_day} ÷ {cost}");
        }
        assert_eq!(money("0.045").times(1_440).to_string(), "64.80");
    }

    #[test]
    fn the_decision_row_by_row() {
        let demand = Demand { per_run: 1, per_day: 1_440, is_paced: true };
        let position = Position {
            limit: 222,
            spent: 0,
            own: 0,
            demand,
            all_demand: 1_440,
            elapsed: Duration::ZERO,
            day: Duration::from_secs(86_400),
        };
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let rows = [
            ("a day's first run", position, true),
            ("the second comes too soon", Position { spent: 1, own: 1, ..position }, false),
            ("and later is due", Position { spent: 1, own: 1, elapsed: Duration::from_secs(390), ..position }, true),
            ("just before that", Position { spent: 1, own: 1, elapsed: Duration::from_secs(389), ..position }, false),
            (
                "half of the day, half of the limit",
                Position { spent: 111, own: 111, elapsed: hours(12), ..position },
                true,
            ),
            ("one more is ahead", Position { spent: 112, own: 112, elapsed: hours(12), ..position }, false),
            ("the limit is reached", Position { spent: 222, own: 1, elapsed: hours(24), ..position }, false),
            (
                "two do not fit where one does",
                Position {
                    spent: 221,
                    own: 1,
                    elapsed: hours(23),
                    demand: Demand { per_run: 2, ..demand },
                    ..position
                },
                false,
            ),
            (
                "half of the demand has half of the pace",
                Position { spent: 10, own: 56, all_demand: 2_880, elapsed: hours(12), ..position },
                false,
            ),
            (
                "without a pace only the limit counts",
                Position { spent: 200, own: 200, demand: Demand { is_paced: false, ..demand }, ..position },
                true,
            ),
            ("no limit to speak of", Position { limit: 0, ..position }, false),
        ];
        for (row, position, starts) in rows {
            assert_eq!(may_start(position), starts, "{row}");
        }
    }

    #[test]
    fn a_busy_schedule_is_thinned_out_evenly() {
        let journeys = [every("sms", 60)];
        let mut spending = spending(limit(222, "UTC"), &journeys);
        assert!((spending.slowdown(&"sms".into()) - 6.486).abs() < 0.001);
        let runs = simulate(&mut spending, &journeys, at("2026-11-21T00:00:00Z"), at("2026-11-21T23:59:59Z"));
        assert_eq!(runs.len(), 222);
        let gaps: Vec<_> = runs.windows(2).map(|pair| between(pair[0].1, pair[1].1).as_secs()).collect();
        assert!(gaps.iter().all(|gap| (360..=420).contains(gap)), "{gaps:?}");
        assert!(between(runs[221].1, at("2026-11-22T00:00:00Z")).as_secs() <= 480);
        assert!(spending.allows(&"sms".into(), at("2026-11-22T00:00:00Z")), "a new day, a new limit");
    }

    #[test]
    fn a_schedule_that_fits_is_left_alone() {
        let fits = [every("sms", 600), cron("office", "*/5 9-16 * * 1-5")];
        let mut spending = spending(limit(144 + 96, "UTC"), &fits);
        assert_eq!(spending.slowdown(&"sms".into()), 1.0);
        let runs = simulate(&mut spending, &fits, at("2026-11-23T00:00:00Z"), at("2026-11-24T00:00:00Z"));
        assert_eq!(runs.len(), 144 + 96);
        let thinned = [cron("office", "*/5 9-16 * * 1-5")];
        let mut spending = self::spending(limit(48, "UTC"), &thinned);
        let runs = simulate(&mut spending, &thinned, at("2026-11-23T00:00:00Z"), at("2026-11-24T00:00:00Z"));
        assert!((30..=48).contains(&runs.len()), "{}", runs.len());
    }

    /// The limit's step is a whole number of both intervals, so without shares the first in the minute would take every turn.
    #[test]
    fn no_journey_starves_another() {
        let journeys = [every("a", 60), every("b", 60), every("c", 600)];
        let mut spending = spending(limit(240, "UTC"), &journeys);
        let runs = simulate(&mut spending, &journeys, at("2026-11-21T00:00:00Z"), at("2026-11-21T23:59:59Z"));
        let of = |name: &str| runs.iter().filter(|(journey, _)| &**journey == name).count();
        assert!(runs.len() <= 240);
        assert!(
            (112..=116).contains(&of("a")) && (112..=116).contains(&of("b")) && of("c") >= 11,
            "{} {} {}",
            of("a"),
            of("b"),
            of("c")
        );
    }

    #[test]
    fn what_a_thinned_journey_misses_is_thinned_too() {
        let minute = Duration::from_secs(60);
        for (slowdown, slots, missed, interval) in [
            (1.0, 1_440, 1_440, minute),
            (6.0, 1_440, 240, minute * 7),
            (1_440.0 / 222.0, 1_440, 222, Duration::from_micros(449_189_189)),
            (2.5, 9, 3, Duration::from_secs(210)),
            (1e9, 1_000, 0, minute * 1_000_001),
        ] {
            let mut thinning = Thinning::new(slowdown);
            let counted = (0..slots).filter(|_| thinning.would_run()).count();
            assert_eq!(counted, missed, "{slowdown}");
            assert_eq!(thinning.interval(minute).as_micros(), interval.as_micros(), "{slowdown}");
        }
    }

    #[test]
    fn days_are_those_of_the_zone_and_as_long_as_they_are() {
        let zone = |name: &str| TimeZone::get(name).unwrap();
        for (name, now, day, elapsed, length) in [
            ("UTC", "2026-11-21T06:00:00Z", "2026-11-21", 6, 24),
            ("Europe/Paris", "2026-11-20T23:30:00Z", "2026-11-21", 0, 24),
            ("Europe/Paris", "2026-03-29T12:00:00Z", "2026-03-29", 13, 23),
            ("Europe/Paris", "2026-10-25T12:00:00Z", "2026-10-25", 14, 25),
            // Midnight does not exist there on that day.
            ("America/Havana", "2026-03-08T16:00:00Z", "2026-03-08", 11, 23),
        ] {
            let (found, gone, long) = day_of(&zone(name), at(now));
            assert_eq!(
                (found.to_string().as_str(), gone.as_secs() / 3_600, long.as_secs() / 3_600),
                (day, elapsed, length),
                "{name} {now}"
            );
        }
    }

    #[test]
    fn who_asks_is_one_run_ahead_of_the_schedule_and_never_above_the_limit() {
        let name = Name::from("sms");
        let journeys = [every("sms", 60)];
        let mut spending = spending(limit(24, "UTC"), &journeys);
        let (midnight, one, two) = (at("2026-11-21T00:00:00Z"), at("2026-11-21T01:00:00Z"), at("2026-11-21T02:00:00Z"));
        assert_eq!(spending.spend(&name, midnight).len(), 1);
        assert!(!spending.allows(&name, midnight) && spending.allows_beside(&name, midnight));
        assert_eq!(spending.spend(&name, midnight).len(), 1);
        assert!(!spending.allows_beside(&name, midnight), "once");
        assert!(!spending.allows(&name, one), "its slots make up for it");
        assert!(spending.allows_beside(&name, one) && spending.allows(&name, two));
        let late = at("2026-11-21T23:59:59Z");
        while spending.allows_beside(&name, late) {
            let _ = spending.spend(&name, late);
        }
        assert_eq!(spending.today(late).map(|(_, spent, _)| spent).collect::<Vec<_>>(), [24.0]);
    }

    #[test]
    fn a_restart_keeps_the_count_and_other_channels_cost_nothing() {
        let journeys = [every("sms", 60)];
        let now = at("2026-11-21T12:00:00Z");
        let mut before = spending(limit(2, "UTC"), &journeys);
        let mut written = Vec::new();
        while before.allows(&"sms".into(), now) {
            written.extend(before.spend(&"sms".into(), now));
        }
        assert_eq!(written.len(), 2);
        let mut after = spending(limit(2, "UTC"), &journeys);
        after.restore(written.clone());
        assert!(!after.allows(&"sms".into(), now));
        // A journey that is not there any more has spent what it has spent.
        let mut renamed = spending(limit(2, "UTC"), &[every("other", 60)]);
        renamed.restore(written);
        assert!(!renamed.allows(&"other".into(), now));
        assert!(after.allows(&"free".into(), now) && after.spend(&"free".into(), now).is_empty());
        assert_eq!(after.today(now).map(|(_, spent, limit)| (spent, limit)).collect::<Vec<_>>(), [(2.0, 2.0)]);
    }

    /// Daemons that share a channel's limit each count what they send, and read what all have written.
    #[test]
    fn what_others_spend_counts_and_what_is_ours_does_so_once() {
        let journeys = [every("ours", 60), every("theirs", 60)];
        let now = at("2026-11-21T12:00:00Z");
        let mut spending = spending(limit(6, "UTC"), &journeys);
        let ours = spending.spend(&"ours".into(), now);
        let mut theirs = ours.clone();
        theirs[0].journey = "theirs".into();
        theirs[0].messages = 4;
        for _ in 0..3 {
            spending.learn(ours.iter().chain(&theirs).cloned());
            assert_eq!(spending.today(now).map(|(_, spent, _)| spent).collect::<Vec<_>>(), [5.0]);
        }
        let _ = spending.spend(&"ours".into(), now);
        // Ours is not written down yet.
        spending.learn(ours.iter().chain(&theirs).cloned());
        assert_eq!(spending.today(now).map(|(_, spent, _)| spent).collect::<Vec<_>>(), [6.0]);
        assert!(!spending.allows(&"ours".into(), now) && !spending.allows(&"theirs".into(), now));
    }

    proptest! {
        /// Whatever runs when, in whichever zone, with a restart at any moment: no day goes over the limit, and no journey gets
        /// ahead of its share by more than a run.
        #[test]
        fn no_day_is_ever_above_its_limit(
            most in 1u64..400,
            intervals in prop::collection::vec(30u64..4_000, 1..4),
            start in 0i64..(4 * 365 * 86_400),
            restart in 0usize..1_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Paris", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia"]),
        ) {
            let journeys: Vec<_> = intervals.iter().zip(["a", "b", "c"]).map(|(every, name)| self::every(name, *every)).collect();
            let limit = limit(most, zone);
            let mut spending = spending(limit.clone(), &journeys);
            let from = Timestamp::from_second(1_780_000_000 + start).unwrap();
            let until = crate::time::later(from, Duration::from_secs(2 * 86_400));
            let mut slots: Vec<_> = journeys.iter()
                .flat_map(|journey| journey.schedule.slots(from, until, usize::MAX).map(|slot| (slot, journey.name.clone())))
                .collect();
            slots.sort();
            let mut written: Vec<Spent> = Vec::new();
            for (index, (slot, name)) in slots.iter().enumerate() {
                if index == restart {
                    spending = self::spending(limit.clone(), &journeys);
                    spending.restore(written.clone());
                }
                if spending.allows(name, *slot) {
                    written.extend(spending.spend(name, *slot));
                    let (day, elapsed, length) = day_of(&limit.zone, *slot);
                    let today = written.iter().filter(|spent| spent.day == day);
                    let all: u64 = today.clone().map(|spent| spent.messages).sum();
                    prop_assert!(all <= most, "{all} of {most}");
                    let own: u64 = today.filter(|spent| spent.journey == *name).map(|spent| spent.messages).sum();
                    let share = elapsed.as_secs_f64() / length.as_secs_f64();
                    prop_assert!(own as f64 <= most as f64 * share + 1.0 + 1e-6, "{own} at {share}");
                }
            }
        }
    }
}
