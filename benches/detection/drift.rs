//! Latencies as they come, and when somebody hears that they became slower.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use journeyman::detect::drift::{Drift, EVERY, Hours, Ran};
use journeyman::journey::outcome::Verdict;
use journeyman::time::{Human, later};

use super::model::{Rate, quantiles, start};

/// Thirty days in which nothing changes, so many times.
const MONTHS: u64 = 20;
const TRIALS: u64 = 20;
const DAY: u64 = 86_400;
/// Days before anything changes: what is compared with.
const BEFORE: u64 = 8;
/// Nobody waits longer to hear of it.
const PATIENCE: u64 = 14;

/// How latencies are spread: log-normal about a median that is half as high again by day as by night.
#[derive(Clone, Copy)]
struct Spread {
    name: &'static str,
    /// Of the logarithm.
    sigma: f64,
    /// How long what one run has in common with the next lasts, in seconds: queues fill and empty.
    lasting: f64,
    /// By how much one day is another, of the logarithm.
    daily: f64,
}

const SPREADS: [Spread; 5] = [
    Spread { name: "0.2", sigma: 0.2, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.3", sigma: 0.3, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.5", sigma: 0.5, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.3, all of which lasts 10 min", sigma: 0.3, lasting: 600.0, daily: 0.0 },
    Spread { name: "0.3, and days that differ by 0.1", sigma: 0.3, lasting: 0.0, daily: 0.1 },
];

/// One journey's life.
struct Life {
    drift: Drift,
    rng: Rng,
    spread: Spread,
    every: u64,
    second: u64,
    noise: f64,
    today: f64,
    /// The newest first.
    runs: VecDeque<Ran>,
}

impl Life {
    /// After the days before.
    fn new(every: u64, spread: Spread, seed: u64) -> Life {
        let runs = VecDeque::new();
        let rng = Rng::with_seed(seed);
        let mut life = Life { drift: Drift::default(), rng, spread, every, second: 0, noise: 0.0, today: 0.0, runs };
        for _ in 0..BEFORE * DAY / every {
            life.run(1.0);
        }
        life
    }

    /// A normal variable (G. E. P. Box and M. E. Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.rng.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.rng.f64()).cos()
    }

    /// The next run, so many times slower than it would be.
    fn run(&mut self, slower: f64) -> Timestamp {
        if self.second.is_multiple_of(DAY) {
            self.today = self.spread.daily * self.normal();
        }
        self.second += self.every;
        let Spread { sigma, lasting, .. } = self.spread;
        let kept = if lasting > 0.0 { (-(self.every as f64) / lasting).exp() } else { 0.0 };
        self.noise = kept * self.noise + (1.0 - kept * kept).sqrt() * self.normal();
        let of_day = std::f64::consts::TAU * (self.second % DAY) as f64 / DAY as f64;
        let median = 0.2 * (0.2 * of_day.sin()).exp();
        let latency = Duration::from_secs_f64(median * slower * (sigma * self.noise + self.today).exp());
        let slot = later(start(), Duration::from_secs(self.second));
        self.runs.push_front(Ran { slot, verdict: Verdict::Good, latency });
        self.runs.truncate((BEFORE * DAY / self.every) as usize);
        slot
    }

    /// The next run; gives whether it is told that it drifts from now on, and whether that it is over.
    fn step(&mut self, slower: f64) -> (bool, bool) {
        let now = self.run(slower);
        if !self.second.is_multiple_of(EVERY.as_secs().max(self.every)) {
            return (false, false);
        }
        let hours = Hours::before(now, Duration::from_secs(self.every));
        let runs_in = |(from, until): (Timestamp, Timestamp)| {
            let newest = self.runs.partition_point(|ran| ran.slot > until);
            let oldest = self.runs.partition_point(|ran| ran.slot > from);
            self.runs.range(newest..oldest).copied().collect()
        };
        let windows: Vec<Vec<Ran>> = hours.windows().into_iter().map(runs_in).collect();
        let before = self.drift.found.is_some();
        if let Some(measured) = hours.measure(&windows) {
            self.drift.take(measured, now);
        }
        let is_found = self.drift.found.is_some();
        (is_found && !before, before && !is_found)
    }

    /// How often somebody is told in so many days.
    fn tickets(&mut self, days: u64) -> u64 {
        (0..days * DAY / self.every).map(|_| u64::from(self.step(1.0).0)).sum()
    }

    /// From when it becomes slower, by so much after so many days, to when somebody is told.
    fn detect(&mut self, slower: impl Fn(f64) -> f64) -> Option<Duration> {
        let slots = PATIENCE * DAY / self.every;
        let found = (1..=slots).find(|slot| self.step(slower((slot * self.every) as f64 / DAY as f64)).0)?;
        Some(Duration::from_secs(found * self.every))
    }

    /// From when it becomes twice as slow, and stays so, to when it is told for the last time that it is over.
    fn accept(&mut self) -> Option<Duration> {
        let last = (1..=PATIENCE * DAY / self.every).filter(|_| self.step(2.0).1).last()?;
        Some(Duration::from_secs(last * self.every))
    }
}

/// Tickets for nothing, and the time to a ticket.
pub(crate) fn tables() {
    println!("\n### Slow drift: log-normal latencies of 200 ms, half as slow again by day as by night\n");
    println!(
        "| every | sigma | tickets for nothing / 30 d | +20 % | +50 % | twice | +5 % a day | +10 % a day | twice for good: over after |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    type Change = fn(f64) -> f64;
    let changes: [Change; 5] = [|_| 1.2, |_| 1.5, |_| 2.0, |days| 1.05f64.powf(days), |days| 1.1f64.powf(days)];
    for every in [60, 300, 1_800] {
        for spread in SPREADS {
            let count = (0..MONTHS).map(|seed| Life::new(every, spread, seed).tickets(30)).sum();
            let rate = Rate { count, months: MONTHS as f64 };
            let (low, high) = rate.interval();
            let trials = || (0..TRIALS).map(|seed| Life::new(every, spread, 1_000 + seed));
            let found = changes.map(|change| shown(trials().filter_map(|mut life| life.detect(change)).collect()));
            println!(
                "| {} | {} | {:.2} ({low:.2}–{high:.2}) | {} | {} |",
                Human(Duration::from_secs(every)),
                spread.name,
                rate.a_month(),
                found.join(" | "),
                shown(trials().filter_map(|mut life| life.accept()).collect())
            );
        }
    }
}

/// Median and 90th percentile; what fewer than nine tenths of the trials found has no more than a share.
fn shown(found: Vec<Duration>) -> String {
    if (found.len() as u64) < TRIALS * 9 / 10 {
        return format!("found in {:.0} %", found.len() as f64 * 100.0 / TRIALS as f64);
    }
    let (median, most) = quantiles(found).unwrap_or_default();
    format!("{}, {}", Human(median), Human(most))
}
