//! When people are called, and when for nothing: `cargo bench --features full --bench detection`.
//!
//! Seeded Monte Carlo over the real detectors, alerts, budgets and desk, beside the policies that others have. One section alone:
//! `-- policies` (or `confirm`, `recovery`, `schedules`, `drift`). Chance is of other seeds with `-- seed=2`: what was chosen by the
//! figures of one seed has to hold for another.

#[path = "detection/drift.rs"]
mod drift;
#[path = "detection/model.rs"]
mod model;
#[path = "detection/reference.rs"]
mod reference;

use std::time::Duration;

use journeyman::time::Human;
use model::{Detection, Healthy, Ours, Policy, Rate, Schedule, World, detect, endure, healthy, quantiles, recover};
use reference::{Reference, burn, consecutive, cusum, of_last};

/// Trials for every quantile.
const TRIALS: u64 = 100;
/// Thirty days without anything broken, so many times.
const MONTHS: u64 = 100;
/// The same, for what looks at weeks of runs.
const MONTHS_OF_BUDGET: u64 = 4;
/// After so many good runs in a row nothing of the failures before them is left in a detector of health, and after two hours nothing in
/// an alert. More of them are counted and not run.
const CALM: u64 = 120;
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTELY: Schedule = Schedule { every: 60, objective: "99.9%" };

type Make<'a> = Box<dyn Fn() -> Box<dyn Policy> + 'a>;

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut seed = 0;
    wanted.retain(|word| match word.strip_prefix("seed=") {
        Some(number) => {
            // So far apart that no trial of one is a trial of another.
            seed = number.parse::<u64>().expect("a number") * 1_000_000;
            false
        }
        None => true,
    });
    let is_wanted = |section: &str| wanted.is_empty() || wanted.iter().any(|word| word == section);
    if is_wanted("policies") {
        policies(MINUTELY, seed);
        policies(Schedule { every: 300, ..MINUTELY }, seed);
    }
    if is_wanted("confirm") {
        confirmations(seed);
    }
    if is_wanted("recovery") {
        recovery(seed);
    }
    if is_wanted("schedules") {
        schedules(seed);
    }
    if is_wanted("drift") {
        drift::tables();
    }
}

/// Everybody's policy on one schedule.
fn policies(schedule: Schedule, seed: u64) {
    let Schedule { every, objective } = schedule;
    println!("\n### Every {}, {objective}\n", Human(Duration::from_secs(every)));
    println!(
        "| policy | pages for nothing / 30 d, blips 0.05 % | blips 0.2 % | total outage: runs after the first, time | 30 % loss: median, p90 | 10 % loss: median, p90 |"
    );
    println!("|---|---|---|---|---|---|");
    let naive = |least| -> Make<'_> { Box::new(move || Box::new(Reference::new(burn(every, 0.999, least)))) };
    let others: Vec<(&str, Make<'_>)> = vec![
        ("burn 14.4 and 6, naive", naive(1)),
        ("burn 14.4 and 6, ≥ 2 failures", naive(2)),
        ("burn 14.4 and 6, ≥ 3 failures", naive(3)),
        ("2 in a row", Box::new(|| Box::new(Reference::new(consecutive(2))))),
        ("3 in a row", Box::new(|| Box::new(Reference::new(consecutive(3))))),
        ("2 of the last 3", Box::new(|| Box::new(Reference::new(of_last(2, 3))))),
        ("3 of the last 5", Box::new(|| Box::new(Reference::new(of_last(3, 5))))),
        ("CUSUM alone (0.2 %, 10 %, h = 8)", Box::new(|| Box::new(Reference::new(cusum(0.002, 0.1, 8.0))))),
    ];
    row("**Journeyman**", schedule, CALM, seed, &|| Box::new(Ours::new(schedule, &[])));
    for (name, make) in &others {
        row(name, schedule, u64::MAX, seed, make);
    }
    for blip in [0.0005, 0.002] {
        let days = MONTHS_OF_BUDGET * 30;
        let Healthy { budget_pages, tickets, .. } =
            healthy(&mut Ours::new(schedule, &[]), schedule, blip, days, seed + 7);
        println!(
            "\nBeside these, Journeyman sends {} tickets and {} pages about the budget in 30 days at blips of {} %.",
            shown(tickets),
            shown(budget_pages),
            blip * 100.0
        );
    }
}

fn row(name: &str, schedule: Schedule, calm: u64, seed: u64, make: &dyn Fn() -> Box<dyn Policy>) {
    let [few, many] = [0.0005, 0.002].map(|blip| shown(for_nothing(&mut *make(), schedule, blip, calm, seed)));
    let total = detections(schedule, make, 1.0, HOUR, false, seed);
    let runs = quantiles(total.iter().map(|found| found.runs).collect());
    let runs = runs.map_or("never".to_owned(), |(median, _)| median.to_string());
    let [third, tenth] = [0.3, 0.1].map(|loss| times(&detections(schedule, make, loss, HOUR * 72, false, seed)));
    println!("| {name} | {few} | {many} | {runs}, {} | {third} | {tenth} |", times(&total));
}

/// Calls while nothing is broken.
fn for_nothing(policy: &mut dyn Policy, schedule: Schedule, blip: f64, calm: u64, seed: u64) -> Rate {
    let slots = MONTHS * 30 * 86_400 / schedule.every;
    let mut chance = fastrand::Rng::with_seed(seed + 11);
    let mut world = World::new(policy, schedule, seed + 1);
    let (mut slot, mut count) = (0, 0);
    while slot < slots {
        let good = (chance.f64().ln() / (1.0 - blip).ln()) as u64;
        slot += good + 1;
        for fails in std::iter::repeat_n(0.0, good.min(calm) as usize).chain([1.0]) {
            count += u64::from(world.step(fails, 0.0).1.pages);
        }
    }
    Rate { count, months: MONTHS as f64 }
}

fn detections(
    schedule: Schedule,
    make: &dyn Fn() -> Box<dyn Policy>,
    loss: f64,
    patience: Duration,
    is_ticket: bool,
    seed: u64,
) -> Vec<Detection> {
    let seeds = (0..TRIALS).map(|trial| seed + 1_000 + trial);
    seeds.filter_map(|seed| detect(&mut *make(), schedule, loss, patience, is_ticket, seed)).collect()
}

/// Median and 90th percentile; what fewer than nine tenths of the trials found has no more than a share.
fn times(found: &[Detection]) -> String {
    if (found.len() as u64) < TRIALS * 9 / 10 {
        return format!("found in {:.0} %", found.len() as f64 * 100.0 / TRIALS as f64);
    }
    let (median, most) = quantiles(found.iter().map(|found| found.after).collect()).unwrap_or_default();
    format!("{}, {}", Human(median), Human(most))
}

fn shown(rate: Rate) -> String {
    let (low, high) = rate.interval();
    format!("{:.2} ({low:.2}–{high:.2})", rate.a_month())
}

/// What runs that confirm a failure bring. A blip repeats in a fifth of them.
fn confirmations(seed: u64) {
    println!("\n### Confirmation after 10 s and 30 s; a blip repeats in 20 % of the confirmations\n");
    println!(
        "| schedule | confirmations | pages for nothing / 30 d, blips 0.05 % | blips 0.2 % | total outage | 30 % loss | 10 % loss |"
    );
    println!("|---|---|---|---|---|---|---|");
    for every in [60, 300] {
        let schedule = Schedule { every, ..MINUTELY };
        for confirm in [&[][..], &[10, 30]] {
            let make = || -> Box<dyn Policy> { Box::new(Ours::new(schedule, confirm)) };
            let [few, many] = [0.0005, 0.002].map(|blip| shown(for_nothing(&mut *make(), schedule, blip, CALM, seed)));
            let [total, third, tenth] =
                [1.0, 0.3, 0.1].map(|loss| times(&detections(schedule, &make, loss, HOUR * 72, false, seed)));
            let word = if confirm.is_empty() { "none" } else { "10 s, 30 s" };
            println!(
                "| {} | {word} | {few} | {many} | {total} | {third} | {tenth} |",
                Human(Duration::from_secs(every))
            );
        }
    }
}

/// How it ends, and what does not end well.
fn recovery(seed: u64) {
    println!("\n### The end of it, every minute, 99.9 %\n");
    println!("| after two hours of | told that it is over, after the last bad slot: median, p90 |");
    println!("|---|---|");
    for (what, loss) in [("total outage", 1.0), ("30 % loss", 0.3), ("10 % loss", 0.1)] {
        let found: Vec<_> = (seed..seed + TRIALS)
            .filter_map(|seed| recover(&mut Ours::new(MINUTELY, &[]), MINUTELY, loss, 2, seed))
            .collect();
        let (median, most) = quantiles(found).unwrap_or_default();
        println!("| {what} | {}, {} |", Human(median), Human(most));
    }
    println!("\n| for ten days | pages a day | told that it is over, a day |\n|---|---|---|");
    let half = |minutes: u64| move |slot: u64| if (slot / minutes).is_multiple_of(2) { 1.0 } else { 0.0 };
    type Pattern = Box<dyn Fn(u64) -> f64>;
    let patterns: [(&str, Pattern); 6] = [
        ("5 minutes down, 5 well", Box::new(half(5))),
        ("30 minutes down, 30 well", Box::new(half(30))),
        ("30 % loss", Box::new(|_| 0.3)),
        ("10 % loss", Box::new(|_| 0.1)),
        ("3 % loss", Box::new(|_| 0.03)),
        ("1 % loss", Box::new(|_| 0.01)),
    ];
    for (what, pattern) in &patterns {
        const EACH: u64 = 10;
        let all = (seed..seed + EACH).map(|seed| endure(&mut Ours::new(MINUTELY, &[]), MINUTELY, pattern, 10, seed));
        let (pages, resolved) = all.fold((0, 0), |sum, calls| (sum.0 + calls.pages, sum.1 + calls.resolved));
        let a_day = |count: u32| f64::from(count) / (EACH * 10) as f64;
        println!("| {what} | {:.2} | {:.2} |", a_day(pages), a_day(resolved));
    }
}

/// When will I be paged?
fn schedules(seed: u64) {
    println!("\n### When people are called: median, p90; from the first slot of what is broken\n");
    println!("| every | objective | total outage | 30 % loss | 10 % loss | 3 % loss: page | 3 % loss: any word |");
    println!("|---|---|---|---|---|---|---|");
    for every in [60, 300, 900, 3_600] {
        // An hour's runs of a month leave 99.9 % not one that may fail.
        for objective in if every < 3_600 { ["99.9%", "99%"] } else { ["99%", "95%"] } {
            let schedule = Schedule { every, objective };
            let make = || -> Box<dyn Policy> { Box::new(Ours::new(schedule, &[])) };
            let patience = HOUR * 72 * if every > 900 { 10 } else { 1 };
            let [total, third, tenth, little] =
                [1.0, 0.3, 0.1, 0.03].map(|loss| times(&detections(schedule, &make, loss, patience, false, seed)));
            let word = times(&detections(schedule, &make, 0.03, patience, true, seed));
            let every = Human(Duration::from_secs(every));
            println!("| {every} | {objective} | {total} | {third} | {tenth} | {little} | {word} |");
        }
    }
}
