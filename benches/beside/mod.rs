//! A daemon that is measured from outside: what it costs is read in `/proc`, and what it did in its metrics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_journeyman");
/// A tick of `/proc`, in seconds (`getconf CLK_TCK`, 100 on every Linux that we run on).
const TICK: f64 = 0.01;

/// The head of a journey's definition, with a budget, an objective and a label.
pub(crate) fn head(what: &str, n: usize, every: &str) -> String {
    format!(
        "[[journey]]\nname = \"integration-{n:05}-{what}\"\nevery = \"{every}\"\nbudget = \"1s\"\ndeadline = \"5s\"\nmuted = true\n\
         labels = {{ group = \"group-{}\" }}\nobjective = {{ delivered = \"99.5%\", window = \"30d\" }}\n",
        n % 20
    )
}

/// Journeys of two steps through memory.
pub(crate) fn round_trips(count: usize, every: &str) -> String {
    let steps = "[[journey.step]]\nsend = \"loop\"\ntext = \"{{ token }}\"\n[[journey.step]]\nreceive = \"loop\"\n";
    (0..count).map(|n| head("round-trip", n, every) + steps).collect()
}

/// A configuration, and room for its state.
pub(crate) struct Place(PathBuf);

impl Place {
    /// A directory of its own for `name`, with a main file of `main` below what every daemon here has, and one file of probes.
    pub(crate) fn new(name: &str, main: &str, probes: &str) -> Place {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("probes")).expect("the target directory takes files");
        let main = format!(
            "probes = [\"probes/*.toml\"]\n{main}\n[http]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite:state.db\"\n"
        );
        std::fs::write(root.join("journeyman.toml"), main).expect("a file");
        std::fs::write(root.join("probes/probes.toml"), probes).expect("a file");
        Place(root)
    }

    /// The program, to do this with it.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args([verb, "--config", "journeyman.toml"]).current_dir(&self.0).stdin(Stdio::null());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon that runs, until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    /// Starts it; how long it took until it was ready.
    pub(crate) fn start(place: &Place) -> (Daemon, Duration) {
        let began = Instant::now();
        let mut command = place.command("run");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let (mut line, mut before) = (String::new(), String::new());
        let address = loop {
            before += &line;
            line.clear();
            assert!(said.read_line(&mut line).expect("text") > 0, "the daemon ended: {before}");
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

    /// The head and the body of an answer.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
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

    /// What a scrape reads, as it is counted.
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(&self.metrics())
    }

    /// What a scrape reads.
    pub(crate) fn metrics(&self) -> String {
        let (head, body) = self.get("/metrics", "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        String::from_utf8(body).expect("text")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // In order, so that the next start finds what every start finds.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// CPU time of a process, user and system, in seconds: `proc_pid_stat(5)`.
pub(crate) fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = text.rsplit_once(')').expect("a name");
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() * TICK
}

/// Resident memory of a process in MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is one");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1_024.0
}

/// CPU time of the whole machine, in seconds: `proc_stat(5)`, without idle and waiting.
pub(crate) fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("Linux");
    let fields = text.lines().next().expect("a line").split_whitespace().skip(1);
    let ticks = fields.take(8).map(|ticks| ticks.parse::<f64>().expect("ticks")).enumerate();
    ticks.filter(|(at, _)| ![3, 4].contains(at)).map(|(_, ticks)| ticks).sum::<f64>() * TICK
}

/// What has been counted so far.
pub(crate) struct Counts {
    pub(crate) runs: f64,
    /// Slots in which nothing was run, for want of room.
    pub(crate) skipped: f64,
    /// Buckets of lateness: upper edge in seconds, and how many starts were not later.
    late: Vec<(f64, f64)>,
}

impl Counts {
    /// Of what a scrape reads.
    pub(crate) fn of(text: &str) -> Counts {
        let number =
            |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
        let sum = |family: &str| text.lines().filter(|line| line.starts_with(family)).map(number).sum();
        let bucket = |line: &str| {
            let (_, edge) = line.strip_prefix("journeyman_schedule_lateness_seconds_bucket{")?.split_once("le=\"")?;
            let edge = edge.split('"').next()?;
            Some((edge.parse().unwrap_or(f64::INFINITY), number(line)))
        };
        // What was skipped is counted as a run that is not known.
        let is_run = |line: &&str| {
            line.starts_with("journeyman_runs_total{")
                && !["unknown", "excluded"].iter().any(|outcome| line.contains(&format!("outcome=\"{outcome}\"")))
        };
        Counts {
            runs: text.lines().filter(is_run).map(number).sum(),
            skipped: sum("journeyman_runs_skipped_total{"),
            late: text.lines().filter_map(bucket).collect(),
        }
    }

    /// How late runs started since `before`, as a duration for people: interpolated within its bucket, as Prometheus'
    /// `histogram_quantile` does.
    pub(crate) fn late(&self, before: &Counts, share: f64) -> Late {
        let since: Vec<_> =
            self.late.iter().zip(&before.late).map(|((edge, now), (_, then))| (*edge, now - then)).collect();
        let wanted = since.last().map_or(0.0, |(_, all)| all * share);
        let (mut lower, mut below) = (0.0, 0.0);
        for (edge, count) in since {
            if count >= wanted {
                return Late(match edge.is_finite() {
                    true => lower + (edge - lower) * (wanted - below) / (count - below).max(1.0),
                    false => f64::INFINITY,
                });
            }
            (lower, below) = (edge, count);
        }
        Late(0.0)
    }
}

/// A quantile of lateness in seconds; infinite where it is beyond the last bucket.
#[derive(Clone, Copy)]
pub(crate) struct Late(pub(crate) f64);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_finite() {
            true => write!(f, "{:.2} ms", self.0 * 1e3),
            false => f.write_str("beyond the last bucket"),
        }
    }
}
