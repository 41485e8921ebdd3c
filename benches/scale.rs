//! What watching costs as journeys become more: `cargo bench --features full --bench scale`.
//!
//! A daemon of its own for each row, with so many journeys of two steps through memory, each with a budget and an objective, and a store
//! on this disk. `-- rows=1000x60,10000x10` are 1,000 journeys every 60 s, and 10,000 every 10 s; `seconds=300` measures for longer.
//!
//! `-- disk` fills a store with what 1,000 journeys a minute leave in four days, and says what a month is. `plot=FILE` draws the rows
//! with one interval as a picture.
//!
//! Nothing is asked of a daemon while its CPU time and lateness are taken. Lateness is interpolated within its bucket, as Prometheus'
//! `histogram_quantile` does. Where the machine is busy with other things, the last column says so: what its cores did beside us.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts processes itself")]

mod beside;
#[path = "beside/plot.rs"]
mod plot;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use journeyman::journey::outcome::Outcome;
use journeyman::journey::report::{Report, StepReport, StepStatus};
use journeyman::journey::token::Token;
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Change, Retention, Store};

use beside::{Counts, Daemon, Place, cpu, machine, resident, round_trips};

const ROWS: &str = "100x60,1000x60,10000x60,50000x60,10000x10";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let seconds = value("seconds=").map_or(60, |text| text.parse().expect("seconds are a number"));
    if words.iter().any(|word| word == "disk") {
        return disk();
    }
    println!(
        "| journeys, every | `check` | ready | ready again | runs/s | CPU of a run | CPU of a core | late p50 | late p99 | late p99.9 | resident | with scrapes | scrape, gzip | while: late p99 | series | skipped | others' CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut lines = ["CPU", "resident memory", "lateness, p99"].map(|name| (name, Vec::new()));
    for row in value("rows=").unwrap_or(ROWS).split(',') {
        let (journeys, every) = row.split_once('x').expect("a row is JOURNEYSxSECONDS");
        let journeys = journeys.parse().expect("a number");
        let figures = measure(journeys, every.parse().expect("seconds"), seconds);
        if every == "60" {
            lines.iter_mut().zip(figures).for_each(|((_, points), figure)| points.push((journeys as f64, figure)));
        }
    }
    if let Some(path) = value("plot=") {
        let lines: Vec<_> = lines
            .into_iter()
            .zip(["% of a core", "MiB", "ms"])
            .map(|((name, points), unit)| plot::Line { name, unit, points })
            .collect();
        std::fs::write(path, plot::draw(&lines)).expect("the picture can be written");
    }
}

/// A row: CPU in percent of a core, resident memory in MiB, and the 99th percentile of lateness in milliseconds.
fn measure(journeys: usize, every: u64, seconds: u64) -> [f64; 3] {
    let probes = round_trips(journeys, &format!("{every}s"));
    let place = Place::new(&format!("scale-{journeys}x{every}"), "[channels.loop]\ntype = \"memory\"", &probes);
    let checked = (0..3).map(|_| check(&place)).min().expect("three");
    let (daemon, ready) = Daemon::start(&place);
    // The first interval is that in which everything happens for the first time.
    std::thread::sleep(Duration::from_secs(every.max(10)));
    let before = daemon.counts();
    let (own, all, began) = (cpu(daemon.pid()), machine(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (took, own, all) = (began.elapsed().as_secs_f64(), cpu(daemon.pid()) - own, machine() - all);
    let quiet_resident = resident(daemon.pid());
    let quiet = daemon.counts();
    let mut scrapes: Vec<_> = (0..9)
        .map(|_| {
            std::thread::sleep(Duration::from_secs(2));
            scrape(&daemon)
        })
        .collect();
    scrapes.sort();
    let (took_to_scrape, bytes) = scrapes[scrapes.len() / 2];
    let last = daemon.metrics();
    let (scraped, with_scrapes) = (Counts::of(&last), resident(daemon.pid()));
    let runs = quiet.runs - before.runs;
    drop(daemon);
    let (again, ready_again) = Daemon::start(&place);
    drop(again);
    println!(
        "| {journeys}, {every} s | {:.2} s | {:.2} s | {:.2} s | {:.0} | {:.0} µs | {:.1} % | {} | {} | {} | {:.0} MiB | {:.0} MiB | {:.0} ms, {:.2} MB | {} | {} | {:.0} | {:.0} % |",
        checked.as_secs_f64(),
        ready.as_secs_f64(),
        ready_again.as_secs_f64(),
        runs / took,
        own / runs * 1e6,
        own / took * 100.0,
        quiet.late(&before, 0.5),
        quiet.late(&before, 0.99),
        quiet.late(&before, 0.999),
        quiet_resident,
        with_scrapes,
        took_to_scrape.as_secs_f64() * 1e3,
        bytes as f64 / 1e6,
        scraped.late(&quiet, 0.99),
        last.lines().filter(|line| line.contains("journey=\"")).count() / journeys,
        quiet.skipped - before.skipped,
        (all - own).max(0.0) / took * 100.0,
    );
    [own / took * 100.0, quiet_resident, quiet.late(&before, 0.99).0 * 1e3]
}

/// How long `journeyman check` takes.
fn check(place: &Place) -> Duration {
    let began = Instant::now();
    let output = place.command("check").output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed()
}

/// How long a scrape takes as Prometheus does it, and how many bytes it is.
fn scrape(daemon: &Daemon) -> (Duration, usize) {
    let began = Instant::now();
    let (head, body) = daemon.get("/metrics", "accept-encoding: gzip\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-encoding: gzip"), "{head}");
    (began.elapsed(), body.len())
}

/// What a month of 1,000 journeys a minute is on disk: four days of runs as they come, the evidence that is kept of good ones
/// forgotten in between as the daemon forgets it, each hour. A day more is runs alone.
fn disk() {
    const JOURNEYS: u64 = 1_000;
    const MINUTES: u64 = 1_440;
    const DAYS: u64 = 4;
    let root = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-{}", std::process::id()));
    let path = root.join("state.db");
    let store = Sqlite::open(&path).expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().expect("a time");
    let names: Vec<_> = (0..JOURNEYS).map(|n| format!("integration-{n:05}-round-trip").as_str().into()).collect();
    let at =
        |minute: u64, journey: u64| start + jiff::SignedDuration::from_millis((minute * 60_000 + journey * 60) as i64);
    let step = |name: &str, verb: &'static str| StepReport {
        channel: Some("loop".into()),
        took: Duration::from_micros(812),
        excerpt: Some("jm01m81sj5cd2113kv9p4353mh4m".to_owned()),
        ..StepReport::new(name, verb, StepStatus::Passed)
    };
    let mut sizes = Vec::new();
    let began = Instant::now();
    for minute in 0..DAYS * MINUTES {
        let run = |journey: u64| {
            let latency = Duration::from_micros(700 + (minute * 7_919 + journey * 104_729) % 900_000);
            let report = Report {
                journey: std::sync::Arc::clone(&names[journey as usize]),
                token: Token::from_bits(
                    u128::from(minute * JOURNEYS + journey).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
                ),
                slot: at(minute, journey),
                started: at(minute, journey),
                outcome: Outcome::Good { latency },
                latency,
                lateness: Duration::from_micros(1_006),
                steps: vec![step("send loop", "send"), step("receive loop", "receive")],
                beneath: None,
                note: None,
                configuration: "d523c0a901e1".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            Change::Run { report: Box::new(report), keep_evidence: (minute + journey).is_multiple_of(10) }
        };
        runtime.block_on(store.apply((0..JOURNEYS).map(run).collect())).expect("it takes runs");
        if minute % 60 == 59 {
            let keep = at(minute.saturating_sub(2 * MINUTES), 0);
            let retention = Retention { runs_before: start, good_evidence_before: keep, ledger_before: start };
            runtime.block_on(store.forget(retention)).expect("it forgets");
        }
        if minute % MINUTES == MINUTES - 1 {
            sizes.push(path.metadata().expect("a file").len() as f64 / f64::from(1 << 30));
        }
    }
    let rows = DAYS * MINUTES * JOURNEYS;
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    drop(store);
    let _ = std::fs::remove_dir_all(&root);
    let per_day = sizes[3] - sizes[2];
    println!(
        "| 1,000 journeys, 1 min | 1 day | 2 | 3 | 4 | 30 days | a run more | rows/s, 1,000 a commit |\n|---|---|---|---|---|---|---|---|\n\
         | on disk | {:.3} GiB | {:.3} GiB | {:.3} GiB | {:.3} GiB | {:.2} GiB | {:.1} bytes | {rate:.0} |",
        sizes[0],
        sizes[1],
        sizes[2],
        sizes[3],
        sizes[3] + 26.0 * per_day,
        per_day * f64::from(1 << 30) / (MINUTES * JOURNEYS) as f64,
    );
}
