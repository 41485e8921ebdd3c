//! Latencies as they come, and when somebody hears that they became slower.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use journeyman::config;
use journeyman::detect::{Detector, Sample};
use journeyman::incident::NotifyReason;
use journeyman::incident::root::ResourceKind;
use journeyman::journey::outcome::Verdict;
use journeyman::replay::{Happened, Replay};
use journeyman::time::{Human, later};

use super::model::{Rate, quantiles, start};

/// Thirty days in which nothing changes, so many times.
const MONTHS: u64 = 10;
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
    /// Of it, what one run has in common with the one before: queues fill and empty.
    lasting: f64,
    /// By how much one day is another, of the logarithm.
    daily: f64,
}

const SPREADS: [Spread; 5] = [
    Spread { name: "0.2", sigma: 0.2, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.3", sigma: 0.3, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.5", sigma: 0.5, lasting: 0.0, daily: 0.0 },
    Spread { name: "0.3, of which one run hands 0.9 to the next", sigma: 0.3, lasting: 0.9, daily: 0.0 },
    Spread { name: "0.3, and days that differ by 0.1", sigma: 0.3, lasting: 0.0, daily: 0.1 },
];

/// One journey's life.
struct Life {
    replay: Replay,
    rng: Rng,
    spread: Spread,
    every: u64,
    second: u64,
    noise: f64,
    today: f64,
}

impl Life {
    fn new(every: u64, spread: Spread, seed: u64) -> Life {
        let text = format!(
            "[notifiers.people]\ntype = \"webhook\"\nurl = \"https://alerts.example.org/\"\n\
             [[journey]]\nname = \"j\"\nevery = \"{every}s\"\nnotify = [\"people\"]\n\
             [[journey.step]]\nrequest = \"https://www.example.org/\"\n"
        );
        let (plan, _) = config::load_text("bench.toml", &text, &[], std::path::Path::new("."))
            .unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
        let journeys: Vec<Arc<_>> = plan.journeys;
        let replay = Replay::new(&journeys, None, Vec::new(), ResourceKind::ALL, start());
        Life { replay, rng: Rng::with_seed(seed), spread, every, second: 0, noise: 0.0, today: 0.0 }
    }

    /// A normal variable (G. E. P. Box and M. E. Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.rng.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.rng.f64()).cos()
    }

    /// The next run, `slower` times slower than it would be. Gives how often somebody is told that it drifts, and that it is over.
    fn run(&mut self, slower: f64) -> (u64, u64) {
        if self.second.is_multiple_of(DAY) {
            self.today = self.spread.daily * self.normal();
        }
        self.second += self.every;
        let Spread { sigma, lasting, .. } = self.spread;
        self.noise = lasting * self.noise + (1.0 - lasting * lasting).sqrt() * self.normal();
        let of_day = std::f64::consts::TAU * (self.second % DAY) as f64 / DAY as f64;
        let median = 0.2 * (0.2 * of_day.sin()).exp();
        let latency = Duration::from_secs_f64(median * slower * (sigma * self.noise + self.today).exp());
        let slot: Timestamp = later(start(), Duration::from_secs(self.second));
        let sample = Sample { slot, verdict: Verdict::Good, cause: None, is_confirmation: false };
        let mut calls = (0, 0);
        for told in self.replay.take("j", Happened::Run { sample, latency, blamed: None }, slot) {
            let is_drift = told.reason == NotifyReason::First && told.detectors.contains(&Detector::Drift);
            calls.0 += u64::from(is_drift);
            calls.1 += u64::from(told.reason == NotifyReason::Resolved);
        }
        calls
    }

    fn days(&mut self, days: u64, slower: f64) -> u64 {
        (0..days * DAY / self.every).map(|_| self.run(slower).0).sum()
    }

    /// From when it becomes slower, each day by so much of the day before or at once, to when somebody is told.
    fn detect(&mut self, slower: impl Fn(f64) -> f64) -> Option<Duration> {
        self.days(BEFORE, 1.0);
        let slots = PATIENCE * DAY / self.every;
        let found = (1..=slots).find(|slot| self.run(slower((slot * self.every) as f64 / DAY as f64)).0 > 0)?;
        Some(Duration::from_secs(found * self.every))
    }
}

/// Tickets for nothing, and the time to a ticket.
pub(crate) fn tables() {
    println!("\n### Slow drift: log-normal latencies of 200 ms, half as slow again by day as by night\n");
    println!(
        "| every | spread | tickets for nothing / 30 d | +20 % | +50 % | twice | +5 % a day | +10 % a day |\n|---|---|---|---|---|---|---|---|"
    );
    type Change = fn(f64) -> f64;
    let changes: [Change; 5] = [|_| 1.2, |_| 1.5, |_| 2.0, |days| 1.05f64.powf(days), |days| 1.1f64.powf(days)];
    for every in [60, 300, 1_800] {
        for spread in SPREADS {
            let tickets = (0..MONTHS).map(|seed| {
                let mut life = Life::new(every, spread, seed);
                life.days(BEFORE, 1.0);
                life.days(30, 1.0)
            });
            let rate = Rate { count: tickets.sum(), months: MONTHS as f64 };
            let (low, high) = rate.interval();
            let found = changes.map(|change| {
                (0..TRIALS).filter_map(|seed| Life::new(every, spread, 1_000 + seed).detect(change)).collect()
            });
            println!(
                "| {} | {} | {:.2} ({low:.2}–{high:.2}) | {} |",
                Human(Duration::from_secs(every)),
                spread.name,
                rate.a_month(),
                found.map(shown).join(" | ")
            );
        }
    }
    println!("\nOnce twice as slow and left so, it ends by itself, and is never said again, after:\n");
    for every in [60, 300, 1_800] {
        println!(
            "- every {}: {}",
            Human(Duration::from_secs(every)),
            shown((0..TRIALS).filter_map(|seed| ends(every, seed)).collect())
        );
    }
}

/// From when it becomes twice as slow to when that is over.
fn ends(every: u64, seed: u64) -> Option<Duration> {
    let mut life = Life::new(every, SPREADS[1], 2_000 + seed);
    life.days(BEFORE, 1.0);
    let last = (1..=PATIENCE * DAY / every).filter(|_| life.run(2.0).1 > 0).last()?;
    Some(Duration::from_secs(last * every))
}

/// Median and 90th percentile; what fewer than nine tenths of the trials found has no more than a share.
fn shown(found: Vec<Duration>) -> String {
    if (found.len() as u64) < TRIALS * 9 / 10 {
        return format!("found in {:.0} %", found.len() as f64 * 100.0 / TRIALS as f64);
    }
    let (median, most) = quantiles(found).unwrap_or_default();
    format!("{}, {}", Human(median), Human(most))
}
