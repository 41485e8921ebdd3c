//! Simulated worlds by the thousand: `cargo bench --features full --bench simulation`.
//!
//! Sections: `chance` (2,000 seeds of 2 virtual hours, or `seeds=N`), `points` (20 seeds at every point of death). A seed that breaks a
//! promise is printed with it: `chance seed=N` runs that one alone. `leaks` (24 virtual hours of 1,000 journeys, or `hours=N`): what is
//! held after every hour.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[path = "../tests/it/simulation/mod.rs"]
mod simulation;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use simulation::{Point, Profile, Sum, doomed, simulate};

const TWO_HOURS: Duration = Duration::from_secs(2 * 3_600);

fn main() -> ExitCode {
    journeyman::tls::init();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    let is_wanted =
        |section: &str| words.iter().all(|word| word.contains('=')) || words.iter().any(|word| word == section);
    let mut is_well = true;
    println!("| test | what | came out |\n|---|---|---|");
    if is_wanted("chance") {
        let seeds = number("seed=").map_or(0..number("seeds=").unwrap_or(2_000), |seed| seed..seed + 1);
        let worlds =
            seeds.map(|seed| (format!("seed {seed}"), Profile::new(seed, TWO_HOURS, 10, Duration::from_secs(60))));
        is_well &= run("T2", "2 virtual hours, 10 journeys a minute each", worlds.collect());
    }
    if is_wanted("points") {
        let mut worlds = Vec::new();
        for point in Point::ALL {
            for time in [1, 4, 23] {
                let world = |seed| (format!("{point:?}, time {time}, seed {seed}"), doomed(*point, time, seed));
                worlds.extend((0..20).map(world));
            }
        }
        is_well &= run("T1", "every point of death, three times there, 20 seeds", worlds);
    }
    if is_wanted("leaks") {
        let length = Duration::from_secs(number("hours=").unwrap_or(24) * 3_600);
        is_well &= run("T18", "1,000 journeys a minute in one life", vec![("leaks".to_owned(), long(length))]);
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One long life of 1,000 journeys in which a fifth of the time something is broken, and of which no account is kept.
fn long(length: Duration) -> Profile {
    let hours = length.as_secs() / 3_600;
    let each = |from: u64, length: u64| (0..hours).map(move |hour| (hour * 3_600 + from, hour * 3_600 + from + length));
    Profile {
        lives: None,
        cuts: each(600, 420).collect(),
        away: each(900, 300).map(|(from, until)| ("chat", from, until)).collect(),
        no_disk: each(2_400, 20).collect(),
        is_counted: false,
        hourly: sample,
        ..Profile::new(1, length, 1_000, Duration::from_secs(60))
    }
}

/// What a process has after so many hours of a life.
fn sample(hour: u64) {
    let heap = ALLOCATOR.stats();
    let live = heap.bytes_allocated.saturating_sub(heap.bytes_deallocated);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    println!(
        "| T18 | after {hour} h | {:.2} MiB of heap, {tasks} tasks, {files} descriptors |",
        live as f64 / 1_048_576.0
    );
}

/// Runs these worlds on all cores; whether every promise held.
fn run(test: &str, what: &str, worlds: Vec<(String, Profile)>) -> bool {
    let (sum, next) = (Mutex::new(Sum::new()), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, profile)) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = simulate(profile);
                    sum.lock().expect("no thread panicked").add(name, told);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panicked");
    println!("| {test} | {what} | {} |", sum.say());
    sum.broken.iter().for_each(|sentence| println!("{sentence}"));
    sum.broken.is_empty()
}
