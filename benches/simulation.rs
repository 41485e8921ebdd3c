//! Simulated worlds by the thousand: `cargo bench --features full --bench simulation`.
//!
//! Sections: `chance` (2,000 seeds of 2 virtual hours, or `seeds=N`), `points` (20 seeds, or `seeds=N`, at every point of death and in
//! every way), `leaks` (24 virtual hours of 1,000 journeys, or `hours=N`: what is held after each), `storm` (10,000 journeys, or
//! `journeys=N`, that fail together, recover, and fail again). A world that breaks a promise is printed by its name, and
//! `world="chance 1234"` runs that one alone; with `trace`, event by event.

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

use simulation::{Accounts, Death, Point, Profile, Storm, Sum, simulate};

fn main() -> ExitCode {
    journeyman::tls::init();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    let is_wanted =
        |section: &str| words.iter().all(|word| word.contains('=')) || words.iter().any(|word| word == section);
    let mut is_well = true;
    println!("| test | what | came out |\n|---|---|---|");
    if let Some(name) = words.iter().find_map(|word| word.strip_prefix("world=")) {
        let Some(world) = Profile::named(name) else {
            eprintln!("`{name}` names no world");
            return ExitCode::FAILURE;
        };
        if words.iter().any(|word| word == "trace") {
            simulate(&Profile { accounts: Accounts::Trace, ..world.clone() })
                .lines
                .iter()
                .for_each(|line| println!("{line}"));
        }
        return if run("T2", name, vec![world]) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if is_wanted("chance") {
        let seeds = 0..number("seeds=").unwrap_or(2_000);
        is_well &= run("T2", "2 virtual hours, 10 journeys a minute each", seeds.map(Profile::chance).collect());
    }
    if is_wanted("points") {
        let mut worlds = Vec::new();
        for point in Point::ALL {
            for death in Death::ALL {
                let time = |seed: u64| Profile::times(*point)[seed as usize % 3];
                let seeds = 0..number("seeds=").unwrap_or(20);
                worlds.extend(seeds.map(|seed| Profile::doomed(*point, time(seed), death, seed)));
            }
        }
        let what = format!("{} points of death, in {} ways", Point::ALL.len(), Death::ALL.len());
        is_well &= run("T1", &what, worlds);
    }
    if is_wanted("leaks") {
        let world = Profile::long(number("hours=").unwrap_or(24));
        let sampled: fn(u64) = |hour| sample("T18", hour, "h");
        let world = Profile { sample: (Duration::from_secs(3_600), sampled), ..world };
        is_well &= run("T18", "1,000 journeys a minute in one life", vec![world]);
        is_well &= is_flat();
    }
    if is_wanted("storm") {
        is_well &= storm(number("journeys=").unwrap_or(10_000) as usize);
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All of them fail together, recover, and fail again; whether every promise held.
fn storm(journeys: usize) -> bool {
    let sampled: fn(u64) = |nth| sample("T24", nth * 5, "min");
    let profile = Profile { sample: (Duration::from_secs(300), sampled), ..Profile::storm(journeys) };
    let storm = Storm::of(&profile, simulate(&profile));
    println!("| T24 | {journeys} journeys fail together, and five times again | {} |", storm.say());
    let broken = storm.broken();
    broken.iter().for_each(|sentence| println!("{sentence}"));
    broken.is_empty()
}

/// What a process holds: bytes of heap, tasks, descriptors.
#[derive(Clone, Copy, Default)]
struct Held {
    heap: usize,
    tasks: usize,
    files: usize,
}

/// What was held at each look.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

/// Whether as much is held in the last quarter of a life as in the quarter before the half: what grows with time has grown by then.
fn is_flat() -> bool {
    let held = HELD.lock().expect("nobody panicked");
    let most = |from: usize, until: usize| {
        held[held.len() * from / 4..held.len() * until / 4].iter().fold(Held::default(), |most, held| Held {
            heap: most.heap.max(held.heap),
            tasks: most.tasks.max(held.tasks),
            files: most.files.max(held.files),
        })
    };
    let (before, after) = (most(1, 2), most(3, 4));
    let is_flat = after.heap <= before.heap + before.heap / 20
        && after.tasks <= before.tasks + before.tasks / 2
        && after.files <= before.files;
    println!(
        "| T18 | the most of the last quarter against that of the second | heap {:+.1} %, tasks {} and {}, descriptors {} and {}: {} |",
        (after.heap as f64 / before.heap.max(1) as f64 - 1.0) * 100.0,
        before.tasks,
        after.tasks,
        before.files,
        after.files,
        if is_flat { "flat" } else { "it grows" }
    );
    is_flat
}

/// What a process has after so much of a life.
fn sample(test: &str, time: u64, unit: &str) {
    let heap = ALLOCATOR.stats();
    let heap = heap.bytes_allocated.saturating_sub(heap.bytes_deallocated);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    HELD.lock().expect("nobody panicked").push(Held { heap, tasks, files });
    println!(
        "| {test} | after {time} {unit} | {:.2} MiB of heap, {tasks} tasks, {files} descriptors |",
        heap as f64 / 1_048_576.0
    );
}

/// Runs these worlds on all cores; whether every promise held.
fn run(test: &str, what: &str, worlds: Vec<Profile>) -> bool {
    let (sum, next) = (Mutex::new(Sum::new()), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(profile) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = simulate(profile);
                    sum.lock().expect("no thread panicked").add(told);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panicked");
    println!("| {test} | {what} | {}, {} s of a core |", sum.say(), busy());
    let broken = sum.broken();
    broken.iter().for_each(|said| println!("{said}"));
    broken.is_none()
}

/// Seconds of a core that this process has used so far.
fn busy() -> u64 {
    // In hundredths of a second, for user and kernel: fields 14 and 15, counted from behind the name.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() / 100
}
