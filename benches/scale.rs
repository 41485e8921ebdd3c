//! What watching costs as journeys become more: `cargo bench --features full --bench scale`.
//!
//! A daemon of its own for each row, with so many journeys of two steps through memory, each with a budget and an objective, and a store
//! on this disk. `-- rows=1000x60,10000x10` are 1,000 journeys every 60 s, and 10,000 every 10 s; `seconds=300` measures for longer.
//!
//! Nothing is asked of a daemon while its CPU time and lateness are taken. Lateness is interpolated within its bucket, as Prometheus'
//! `histogram_quantile` does. Where the machine is busy with other things, the last column says so: what its cores did beside us.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts processes itself")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_journeyman");
const ROWS: &str = "100x60,1000x60,10000x60,50000x60,10000x10";
/// A tick of `/proc`, in seconds (`getconf CLK_TCK`, 100 on every Linux that we run on).
const TICK: f64 = 0.01;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let seconds = value("seconds=").map_or(60, |text| text.parse().expect("seconds are a number"));
    println!(
        "| journeys, every | `check` | ready | ready again | runs/s | CPU of a run | CPU of a core | late p50 | late p99 | resident | with scrapes | scrape, gzip | while: late p99 | series | others' CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for row in value("rows=").unwrap_or(ROWS).split(',') {
        let (journeys, every) = row.split_once('x').expect("a row is JOURNEYSxSECONDS");
        measure(journeys.parse().expect("a number"), every.parse().expect("seconds"), seconds);
    }
}

fn measure(journeys: usize, every: u64, seconds: u64) {
    let place = Place::new(journeys, every);
    let check = (0..3).map(|_| place.check()).min().expect("three");
    let (daemon, ready) = Daemon::start(&place);
    // The first interval is that in which everything happens for the first time.
    std::thread::sleep(Duration::from_secs(every.max(10)));
    let before = Counts::of(&daemon.scrape(false).text());
    let (own, all, began) = (daemon.cpu(), machine(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (took, own, all) = (began.elapsed().as_secs_f64(), daemon.cpu() - own, machine() - all);
    let resident = daemon.resident();
    let quiet = Counts::of(&daemon.scrape(false).text());
    let scrapes: Vec<Scrape> = (0..9)
        .map(|_| {
            std::thread::sleep(Duration::from_secs(2));
            daemon.scrape(true)
        })
        .collect();
    let last = daemon.scrape(false).text();
    let (scraped, with_scrapes) = (Counts::of(&last), daemon.resident());
    let mut times: Vec<_> = scrapes.iter().map(|scrape| scrape.took).collect();
    times.sort();
    let runs = quiet.runs - before.runs;
    drop(daemon);
    let (again, ready_again) = Daemon::start(&place);
    drop(again);
    println!(
        "| {journeys}, {every} s | {:.2} s | {:.2} s | {:.2} s | {:.0} | {:.0} µs | {:.1} % | {} | {} | {:.0} MiB | {:.0} MiB | {:.0} ms, {:.2} MB | {} | {} | {:.0} % |",
        check.as_secs_f64(),
        ready.as_secs_f64(),
        ready_again.as_secs_f64(),
        runs / took,
        own / runs * 1e6,
        own / took * 100.0,
        quiet.late(&before, 0.5),
        quiet.late(&before, 0.99),
        resident,
        with_scrapes,
        times[times.len() / 2].as_secs_f64() * 1e3,
        scrapes.last().expect("nine").body.len() as f64 / 1e6,
        scraped.late(&quiet, 0.99),
        last.lines().filter(|line| line.contains("journey=\"")).count() / journeys,
        (all - own).max(0.0) / took * 100.0,
    );
}

/// A configuration, and room for its state.
struct Place(PathBuf);

impl Place {
    fn new(journeys: usize, every: u64) -> Place {
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scale-{}-{journeys}x{every}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("probes")).expect("the target directory takes files");
        let main = "probes = [\"probes/*.toml\"]\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite:state.db\"\n\
                    [channels.loop]\ntype = \"memory\"\n";
        std::fs::write(root.join("journeyman.toml"), main).expect("a file");
        let mut probes = String::new();
        for n in 0..journeys {
            let _ = write!(
                probes,
                "[[journey]]\nname = \"integration-{n:05}-round-trip\"\nevery = \"{every}s\"\nbudget = \"1s\"\ndeadline = \"5s\"\nmuted = true\n\
                 labels = {{ group = \"group-{}\" }}\nobjective = {{ delivered = \"99.5%\", window = \"30d\" }}\n\
                 [[journey.step]]\nsend = \"loop\"\ntext = \"{{{{ token }}}}\"\n[[journey.step]]\nreceive = \"loop\"\n",
                n % 20
            );
        }
        std::fs::write(root.join("probes/probes.toml"), probes).expect("a file");
        Place(root)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args([verb, "--config", "journeyman.toml"]).current_dir(&self.0).stdin(Stdio::null());
        command
    }

    fn check(&self) -> Duration {
        let began = Instant::now();
        let output = self.command("check").output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        began.elapsed()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Daemon {
    child: Child,
    address: String,
}

/// An answer to a scrape.
struct Scrape {
    took: Duration,
    body: Vec<u8>,
}

impl Daemon {
    /// Starts it; how long it took until it was ready.
    fn start(place: &Place) -> (Daemon, Duration) {
        let began = Instant::now();
        let mut command = place.command("run");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(said.read_line(&mut line).expect("text") > 0, "the daemon ended");
            if let Some((_, rest)) = line.split_once(" http=") {
                break rest.split_whitespace().next().expect("an address").to_owned();
            }
        };
        // What it says later is read, so that it never waits to say it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let daemon = Daemon { child, address };
        while !daemon.get("/ready", "").0.starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_millis(5));
        }
        (daemon, began.elapsed())
    }

    fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n{headers}\r\n").expect("it reads");
        let mut reader = BufReader::new(stream);
        let (mut head, mut body) = (String::new(), Vec::new());
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("a head") > 0 {}
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).expect("a size");
                let size = u64::from_str_radix(size.trim(), 16).expect("hexadecimal");
                reader.by_ref().take(size).read_to_end(&mut body).expect("a chunk");
                reader.read_line(&mut String::new()).expect("its end");
                if size == 0 {
                    return (head, body);
                }
            }
        }
        reader.read_to_end(&mut body).expect("a body");
        (head, body)
    }

    fn scrape(&self, is_packed: bool) -> Scrape {
        let began = Instant::now();
        let (head, body) = self.get("/metrics", if is_packed { "accept-encoding: gzip\r\n" } else { "" });
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-encoding: gzip") == is_packed, "{head}");
        Scrape { took: began.elapsed(), body }
    }

    /// CPU time, user and system, in seconds: `proc_pid_stat(5)`.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it lives");
        let (_, fields) = text.rsplit_once(')').expect("a name");
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() * TICK
    }

    /// Resident memory in MiB.
    fn resident(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is one");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1_024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // In order, so that the next start finds what every start finds.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// CPU time of the whole machine, in seconds: `proc_stat(5)`, without idle and waiting.
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("Linux");
    let fields = text.lines().next().expect("a line").split_whitespace().skip(1);
    let ticks = fields.take(8).map(|ticks| ticks.parse::<f64>().expect("ticks")).enumerate();
    ticks.filter(|(at, _)| ![3, 4].contains(at)).map(|(_, ticks)| ticks).sum::<f64>() * TICK
}

impl Scrape {
    fn text(self) -> String {
        String::from_utf8(self.body).expect("text")
    }
}

/// What has been counted so far.
struct Counts {
    runs: f64,
    /// Buckets of lateness: upper edge in seconds, and how many starts were not later.
    late: Vec<(f64, f64)>,
}

impl Counts {
    fn of(text: &str) -> Counts {
        let number =
            |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
        let runs = text.lines().filter(|line| line.starts_with("journeyman_runs_total{")).map(number).sum();
        let bucket = |line: &str| {
            let (_, edge) = line.strip_prefix("journeyman_schedule_lateness_seconds_bucket{")?.split_once("le=\"")?;
            let edge = edge.split('"').next()?;
            Some((edge.parse().unwrap_or(f64::INFINITY), number(line)))
        };
        Counts { runs, late: text.lines().filter_map(bucket).collect() }
    }

    /// How late runs started since `before`.
    fn late(&self, before: &Counts, share: f64) -> String {
        let since: Vec<_> =
            self.late.iter().zip(&before.late).map(|((edge, now), (_, then))| (*edge, now - then)).collect();
        let wanted = since.last().map_or(0.0, |(_, all)| all * share);
        let (mut lower, mut below) = (0.0, 0.0);
        for (edge, count) in since {
            if count >= wanted {
                return match edge.is_finite() {
                    true => format!(
                        "{:.2} ms",
                        (lower + (edge - lower) * (wanted - below) / (count - below).max(1.0)) * 1e3
                    ),
                    false => format!("over {lower} s"),
                };
            }
            (lower, below) = (edge, count);
        }
        "-".to_owned()
    }
}
