//! What an HTTP run costs, how many there can be, and how true what they report is, beside the bare client, k6, and blackbox_exporter
//! with Prometheus in one run: `cargo bench --features full --bench http`.
//!
//! One section alone: `-- cost` (or `sustained`, `hanging`, `truth`); `seconds=60` measures each figure for longer, and `only=memory` goes
//! up one ladder of `sustained` alone. It needs nginx, and
//! for the references beside the bare client prometheus, prometheus-blackbox-exporter and k6 (`benches/requirements.txt`): rows whose
//! reference is missing say so.
//!
//! Everything shares this machine: what is watched, who watches, and who measures.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts processes itself")]

mod beside;
mod peers;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beside::{Counts, Daemon, Place, cpu, head, machine, resident, round_trips};
use peers::targets::{Nginx, Timed, silent};
use peers::{Processes, bare, k6, quantile, stack};

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == bare::WORD) {
        return bare::run(&arguments[1..]);
    }
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let seconds = words.iter().find_map(|word| word.strip_prefix("seconds="));
    let seconds = seconds.map_or(20, |text| text.parse().expect("seconds are a number"));
    let sections: Vec<_> = words.iter().filter(|word| !word.contains('=')).collect();
    let is_wanted = |section: &str| sections.is_empty() || sections.iter().any(|word| word.as_str() == section);
    let only = words.iter().find_map(|word| word.strip_prefix("only=")).unwrap_or_default();
    let bench = Bench::new(seconds, only);
    if is_wanted("cost") {
        bench.costs();
    }
    if is_wanted("sustained") {
        bench.sustained();
    }
    if is_wanted("hanging") {
        bench.hanging();
    }
    if is_wanted("truth") {
        bench.truth();
    }
}

/// What all sections need.
struct Bench {
    seconds: u64,
    /// How the names of the ladders end that are gone up.
    only: String,
    /// Files of the references.
    root: PathBuf,
    nginx: Nginx,
    k6: Option<PathBuf>,
    has_stack: bool,
}

/// What somebody who watches cost.
struct Cost {
    /// Requests answered in a second.
    rate: f64,
    /// CPU time of a request, in microseconds.
    cpu: f64,
    /// Resident memory at the end, in MiB.
    resident: f64,
    /// Lateness, of the daemon alone.
    counts: Option<(Counts, Counts)>,
    /// What all other processes but the target used of a core.
    others: f64,
}

impl Bench {
    fn new(seconds: u64, only: &str) -> Bench {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("http-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("the target directory takes files");
        let is_there = |name: &str| Path::new("/usr/bin").join(name).is_file();
        Bench {
            seconds,
            only: only.to_owned(),
            nginx: Nginx::start(&root),
            root,
            k6: k6::program(),
            has_stack: is_there("prometheus") && is_there("prometheus-blackbox-exporter"),
        }
    }

    /// Measures processes that have been started, once they have had `warm`.
    fn measure(&self, pids: &[u32], daemon: Option<&Daemon>, warm: Duration) -> Cost {
        std::thread::sleep(warm);
        let all_cpu = || pids.iter().map(|pid| cpu(*pid)).sum::<f64>();
        let counts = || daemon.map(Daemon::counts);
        let first = counts();
        let (began, spent, machine_spent, target) = (Instant::now(), all_cpu(), machine(), cpu(self.nginx.pid()));
        let answered = self.nginx.answered();
        std::thread::sleep(SECOND * u32::try_from(self.seconds).expect("not years"));
        let answered = self.nginx.answered() - answered;
        let (took, spent) = (began.elapsed().as_secs_f64(), all_cpu() - spent);
        let others = machine() - machine_spent - spent - (cpu(self.nginx.pid()) - target);
        Cost {
            rate: answered / took,
            cpu: spent / answered * 1e6,
            resident: pids.iter().map(|pid| resident(*pid)).sum(),
            counts: first.zip(counts()),
            others: others.max(0.0) / took * 100.0,
        }
    }

    fn daemon(&self, name: &str, targets: usize, every: &str, is_new: bool) -> Cost {
        let place = Place::new(name, &channel(&self.nginx.url(), is_new), &journeys(targets, every, "web", 0));
        let (daemon, _) = Daemon::start(&place);
        self.measure(&[daemon.pid()], Some(&daemon), warm(targets))
    }

    fn peer(&self, processes: &Processes, targets: usize) -> Cost {
        self.measure(&processes.pids(), None, warm(targets))
    }

    /// What a run costs at three paces, beside the references at the same pace.
    fn costs(&self) {
        println!(
            "\n| who asks | targets, each once a second | connection | answered/s | CPU of a request | of the bare client's | resident | late p99 | others' CPU |\n\
             |---|---|---|---|---|---|---|---|---|"
        );
        for targets in [100, 500, 1_000] {
            for is_new in [false, true] {
                let connection = if is_new { "new" } else { "kept" };
                let floor = self.peer(&bare::start(&self.nginx.url(), targets, SECOND, is_new), targets);
                let show = |who: &str, cost: &Cost| {
                    let late = cost.counts.as_ref().map(|(before, after)| after.late(before, 0.99).to_string());
                    println!(
                        "| {who} | {targets} | {connection} | {:.0} | {:.0} µs | {:.2} × | {:.0} MiB | {} | {:.0} % |",
                        cost.rate,
                        cost.cpu,
                        cost.cpu / floor.cpu,
                        cost.resident,
                        late.unwrap_or_default(),
                        cost.others,
                    );
                };
                show("bare client", &floor);
                show("**journeyman**", &self.daemon(&format!("cost-{targets}"), targets, "1s", is_new));
                if let Some(program) = &self.k6 {
                    let lasts = warm(targets) + SECOND * 2 * u32::try_from(self.seconds).expect("not years");
                    let k6 = k6::start(program, &self.root, &self.nginx.url(), targets, lasts, is_new, None);
                    show("k6", &self.peer(&k6, targets));
                }
                if is_new && self.has_stack {
                    let place = self.root.join(format!("stack-{targets}"));
                    std::fs::create_dir_all(&place).expect("a directory");
                    let stack = stack::start(&place, &self.nginx.url(), targets);
                    show("blackbox_exporter + Prometheus", &self.peer(&stack, targets));
                }
            }
        }
        self.say_missing();
    }

    fn say_missing(&self) {
        if self.k6.is_none() {
            println!("\nk6 is not here: no row of it.");
        }
        if !self.has_stack {
            println!("\nprometheus or prometheus-blackbox-exporter is not here: no row of them.");
        }
    }

    /// The most that it keeps up with, and what comes of twice as much.
    fn sustained(&self) {
        println!(
            "\n| runs | wanted/s | done/s | of wanted | skipped/s | late p99 | resident | CPU of a run | others' CPU |\n|---|---|---|---|---|---|---|---|---|"
        );
        let kinds = [Kind::Kept, Kind::New, Kind::Memory];
        for kind in kinds.into_iter().filter(|kind| kind.name().ends_with(&self.only)) {
            let mut most = None;
            for thousands in kind.ladder().iter().copied() {
                let (cost, skipped) = self.runs(kind, thousands * 1_000);
                let late = show_runs(kind, thousands * 1_000, &cost, skipped);
                if cost.rate < thousands as f64 * 990.0 || late > 0.050 || skipped > 0.0 {
                    break;
                }
                most = Some((thousands, cost.rate));
            }
            let Some((thousands, rate)) = most else { continue };
            let (cost, skipped) = self.runs(kind, thousands * 2_000);
            show_runs(kind, thousands * 2_000, &cost, skipped);
            println!("| {} | at twice its most: {:.0} % of it | | | | | | | |", kind.name(), cost.rate / rate * 100.0);
        }
    }

    fn runs(&self, kind: Kind, journeys_a_second: usize) -> (Cost, f64) {
        let name = format!("sustained-{}-{journeys_a_second}", kind.name());
        let (main, probes) = match kind {
            Kind::Memory => {
                let main = "max_runs = 2000\n[channels.loop]\ntype = \"memory\"\nmax_in_flight = 1000".to_owned();
                (main, round_trips(journeys_a_second, "1s"))
            }
            Kind::Kept | Kind::New => {
                (channel(&self.nginx.url(), matches!(kind, Kind::New)), journeys(journeys_a_second, "1s", "web", 0))
            }
        };
        let place = Place::new(&name, &main, &probes);
        let (daemon, _) = Daemon::start(&place);
        let mut cost = self.measure(&[daemon.pid()], Some(&daemon), warm(journeys_a_second));
        let (before, after) = cost.counts.as_ref().expect("a daemon has counts");
        let (runs, skipped) = (after.runs - before.runs, after.skipped - before.skipped);
        let took = self.seconds as f64;
        if let Kind::Memory = kind {
            cost.cpu *= cost.rate * took / runs;
            cost.rate = runs / took;
        }
        let skipped = skipped / took;
        (cost, skipped)
    }

    /// A twentieth of all targets hang: how late the others start.
    fn hanging(&self) {
        println!(
            "\n| 10,000 HTTP journeys every 10 s | late p50 | late p99 | late p99.9 | runs/s | skipped/s | CPU of a core |\n|---|---|---|---|---|---|---|"
        );
        for share in [0, 5] {
            let hanging = 10_000 * share / 100;
            let main = format!(
                "{}\n[channels.hangs]\ntype = \"http\"\nurl = \"{}\"\n",
                channel(&self.nginx.url(), false),
                silent()
            );
            let mut probes = journeys(10_000 - hanging, "10s", "web", 0);
            probes += &journeys(hanging, "10s", "hangs", 10_000 - hanging);
            let place = Place::new("hanging", &main, &probes);
            let (daemon, _) = Daemon::start(&place);
            let cost = self.measure(&[daemon.pid()], Some(&daemon), SECOND * 20);
            let (before, after) = cost.counts.as_ref().expect("a daemon has counts");
            println!(
                "| {share} % of targets hang | {} | {} | {} | {:.0} | {:.1} | {:.0} % |",
                after.late(before, 0.5),
                after.late(before, 0.99),
                after.late(before, 0.999),
                (after.runs - before.runs) / self.seconds as f64,
                (after.skipped - before.skipped) / self.seconds as f64,
                cost.cpu * cost.rate / 1e4,
            );
        }
    }

    /// What is reported of a server that holds each request 20 ms and times itself, less what it held.
    fn truth(&self) {
        const TIMED: usize = 20;
        println!(
            "\n| reported less held | targets, each once a second | connection | p50 | p99 | requests | interval off by, p99 | drift in all, p50 |\n\
             |---|---|---|---|---|---|---|---|"
        );
        let timed = Timed::start(Duration::from_millis(20));
        let lasts = SECOND * u32::try_from(self.seconds.clamp(30, 900)).expect("it is clamped");
        let show = |who: &str, targets: usize, is_new: bool, errors: &mut [f64]| {
            let (mut off, mut drift) = timed.intervals(SECOND);
            println!(
                "| {who} | {targets} | {} | {:+.3} ms | {:+.3} ms | {} | {:.3} ms | {:.3} ms |",
                if is_new { "new" } else { "kept" },
                quantile(errors, 0.5) * 1e3,
                quantile(errors, 0.99) * 1e3,
                errors.len(),
                quantile(&mut off, 0.99) * 1e3,
                quantile(&mut drift, 0.5) * 1e3,
            );
        };
        for targets in [100, 1_000] {
            for is_new in [false, true] {
                timed.forget();
                let mut main = channel(&self.nginx.url(), is_new);
                let _ = write!(
                    main,
                    "\n[channels.timed]\ntype = \"http\"\nurl = \"{}\"\nnew_connection = {is_new}\n",
                    timed.url().trim_end_matches('/')
                );
                let cheap = targets - TIMED;
                let probes = journeys(cheap, "1s", "web", TIMED) + &journeys(TIMED, "1s", "timed", 0);
                let place = Place::new("truth", &main, &probes);
                let (daemon, _) = Daemon::start(&place);
                std::thread::sleep(lasts);
                let mut errors = Vec::new();
                for n in 0..TIMED {
                    let held = timed.held(&format!("/{n}"));
                    let (_, body) =
                        daemon.get(&format!("/api/v1/journeys/integration-{n:05}-answers/runs?limit=1000"), "");
                    let value: serde_json::Value = serde_json::from_slice(&body).expect("the API answers in JSON");
                    let rows = value.as_array().or_else(|| value["runs"].as_array()).expect("runs");
                    let reported = rows.iter().rev().filter_map(|row| row["latency_seconds"].as_f64());
                    errors.extend(reported.zip(held).map(|(reported, held)| reported - held));
                }
                drop(daemon);
                show("**journeyman**", targets, is_new, &mut errors);
                let Some(program) = &self.k6 else { continue };
                timed.forget();
                let out = self.root.join("k6.json");
                let cheap = k6::start(program, &self.root, &self.nginx.url(), cheap, lasts, is_new, None);
                let place = self.root.join("timed");
                std::fs::create_dir_all(&place).expect("a directory");
                let slow = k6::start(program, &place, &timed.url(), TIMED, lasts, is_new, Some(&out));
                slow.join();
                drop(cheap);
                let mut errors = Vec::new();
                for n in 0..TIMED {
                    let held = timed.held(&format!("/{n}"));
                    errors
                        .extend(k6::reported(&out, &n.to_string()).into_iter().zip(held).map(|(all, held)| all - held));
                }
                show("k6", targets, is_new, &mut errors);
            }
        }
        self.say_missing();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Kept,
    New,
    Memory,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Kept => "HTTP, kept",
            Kind::New => "HTTP, new",
            Kind::Memory => "memory",
        }
    }

    /// Thousands of runs a second to try, rising.
    fn ladder(self) -> &'static [usize] {
        match self {
            Kind::Kept | Kind::New => &[2, 4, 6, 8, 12, 16],
            Kind::Memory => &[5, 8, 10, 12, 15, 20],
        }
    }
}

/// A row of what was sustained; the p99 of lateness, in seconds.
fn show_runs(kind: Kind, wanted: usize, cost: &Cost, skipped: f64) -> f64 {
    let (before, after) = cost.counts.as_ref().expect("a daemon has counts");
    let late = after.late(before, 0.99);
    println!(
        "| {} | {wanted} | {:.0} | {:.1} % | {skipped:.0} | {late} | {:.0} MiB | {:.0} µs | {:.0} % |",
        kind.name(),
        cost.rate,
        cost.rate / wanted as f64 * 100.0,
        cost.resident,
        cost.cpu,
        cost.others,
    );
    late.0
}

/// Until the first slots of all have come, and what happens once has happened.
fn warm(targets: usize) -> Duration {
    SECOND * u32::try_from(5 + targets / 1_000).expect("not years")
}

fn channel(url: &str, is_new: bool) -> String {
    format!(
        "max_runs = 2000\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\nnew_connection = {is_new}\nmax_in_flight = 256\n",
        url.trim_end_matches('/')
    )
}

/// Journeys of one request each, to paths of their own, numbered from `first`.
fn journeys(count: usize, every: &str, channel: &str, first: usize) -> String {
    let mut probes = String::new();
    for n in first..first + count {
        let _ = write!(
            probes,
            "{}[[journey.step]]\nrequest = \"{channel}\"\nmethod = \"GET\"\npath = \"/{n}\"\n",
            head("answers", n, every)
        );
    }
    probes
}
