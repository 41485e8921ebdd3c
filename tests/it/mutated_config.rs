//! Configurations that nobody wrote: what TOML itself forbids, and two thousand good ones with something wrong in them. Never a
//! panic, always a place, never slow, and nothing of it becomes a plan.

#![expect(clippy::unwrap_used, reason = "what cannot be read is a failed test")]

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::config::{Problem, load_text, render};

use crate::support::is_long;
use crate::support::table::Table;

/// From the text to every problem that it has.
const BOUND: Duration = Duration::from_millis(100);
const MUTANTS: usize = 2_000;
/// A failing mutant is made again by its number.
const SEED: u64 = 20_261_121;

/// What TOML forbids: the line of the first mistake, and the text.
fn forbidden() -> Vec<(usize, String)> {
    let lines = include_str!("config/forbidden.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (number, text) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}")))
    };
    lines.map(pair).collect()
}

fn load(main: &str, probes: &str) -> Result<(), Vec<Problem>> {
    load_text("journeyman.toml", main, &[("probes.toml", probes)], Path::new("config")).map(drop)
}

#[test]
fn what_toml_forbids_is_refused_where_it_stands() {
    let forbidden = forbidden();
    // What is forbidden is told as that, not as a key that nobody knows.
    let first = |text: &str| {
        let problems = load(text, "").expect_err(text);
        let told = render(&problems, false);
        let is_of_toml = |problem: &Problem| problem.is_error() && !problem.message.contains("unknown key");
        let first = problems.into_iter().find(is_of_toml).unwrap_or_else(|| panic!("{text:?} is taken: {told}"));
        assert!(told.contains(&format!("journeyman.toml:{}:", first.place.line())), "{text:?}: {told}");
        first.place.line()
    };
    for (line, text) in &forbidden {
        assert_eq!(first(text), *line, "{text:?}");
        // In the middle of a file the same is wrong, on a later line.
        assert_eq!(first(&format!("# A comment.\n\n{text}")), line + 2, "{text:?}");
    }
    assert!(forbidden.len() >= 100);
}

/// The good configurations of this repository: a daemon's file and a probe file of each, of which one may be empty.
fn good() -> Vec<(String, String, String)> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    for directory in ["config", "probes", "probes/examples", "tests/it/config/good"] {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
        files.sort();
        assert!(!files.is_empty(), "{directory}");
        for file in files {
            let (name, text) = (file.display().to_string(), read(&file));
            let is_probe = directory.starts_with("probes");
            found.push(if is_probe { (name, String::new(), text) } else { (name, text, String::new()) });
        }
    }
    found
}

/// What people and merges put into files.
const SNIPPETS: &[&str] = &[
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "\\u12",
    "{{",
    "}}",
    "{{ tokn }}",
    "$.",
    "$[?(@",
    "-1",
    "0",
    "1e999",
    "99999999999999999999",
    "0x",
    "nan",
    "inf",
    "true",
    "1979-05-27",
    "\"1m\"",
    "\"-5s\"",
    "\"101%\"",
    "\"99.999999999999%\"",
    "[[journey]]\n",
    "[[journey.step]]\n",
    "[channels.x]\ntype = \"http\"\n",
    "[defaults]\n",
    "[notifiers.x]\n",
    "every = \"0s\"\n",
    "use = \"x\"\n",
    "matrix = { a = [] }\n",
    "name = \"\"\n",
    "é",
    "\u{202e}",
    "\u{0}",
    "<<<<<<< HEAD\n",
    "=======\n",
    "*",
    "(",
    "(?P<",
    "\\p{",
];

/// One mistake: a line twice, gone, or in another place; a piece cut out, put in or said again; a bit turned.
fn mistaken(text: &str, random: &mut fastrand::Rng) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line = random.usize(..lines.len().max(1));
    let boundary = |random: &mut fastrand::Rng| text.floor_char_boundary(random.usize(..=text.len()));
    let at = boundary(random);
    let snippet = SNIPPETS[random.usize(..SNIPPETS.len())];
    match random.u8(..8) {
        0 if !lines.is_empty() => lines.insert(line, lines[line]),
        1 if !lines.is_empty() => drop(lines.remove(line)),
        2 if !lines.is_empty() => {
            let other = random.usize(..lines.len());
            lines.swap(line, other);
        }
        3 => {
            let end = text.ceil_char_boundary((at + random.usize(1..40)).min(text.len()));
            return format!("{}{}", &text[..at], &text[end..]);
        }
        4 => {
            let from = boundary(random).min(at);
            return format!("{}{}{}", &text[..at], &text[from..at], &text[at..]);
        }
        5 => {
            let mut bytes = text.as_bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(..7);
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        6 => {
            let end = text.ceil_char_boundary((at + snippet.len()).min(text.len()));
            return format!("{}{snippet}{}", &text[..at], &text[end..]);
        }
        _ => return format!("{}{snippet}{}", &text[..at], &text[at..]),
    }
    lines.concat()
}

/// What it came to, and how long that took: of this thread's own time, should others have had the machine meanwhile.
fn timed(main: &str, probes: &str) -> (Result<(), Vec<Problem>>, Duration) {
    const TIMES: u32 = 10;
    let clock = Clock::system();
    let loaded = load(main, probes);
    let took = clock.now().mono.0;
    if took <= BOUND {
        return (loaded, took);
    }
    let before = own_time();
    (0..TIMES).for_each(|_| drop(load(main, probes)));
    (loaded, (own_time() - before) / TIMES)
}

/// How long this thread has had a processor: proc(5), fields 14 and 15, in hundredths of a second.
fn own_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

#[test]
fn two_thousand_mistakes_are_refused_in_words_and_at_once() {
    let good = good();
    let mutants = if is_long() { 50 * MUTANTS } else { MUTANTS };
    let mut table = Table::new("robustness", "t16", &["test", "tried", "held"]);
    let (mut refused, mut longest) = (0, Duration::ZERO);
    for number in 0..mutants {
        let mut random = fastrand::Rng::with_seed(SEED + number as u64);
        let (name, main, probes) = &good[number % good.len()];
        let mistakes = random.usize(1..4);
        let mutate = |text: &str, random: &mut fastrand::Rng| {
            (0..mistakes).fold(text.to_owned(), |text, _| if text.is_empty() { text } else { mistaken(&text, random) })
        };
        let (main, probes) = (mutate(main, &mut random), mutate(probes, &mut random));
        let what = format!("mutant {number} of {name}");
        let tried = std::panic::catch_unwind(AssertUnwindSafe(|| timed(&main, &probes)));
        let (loaded, took) = tried.unwrap_or_else(|_| panic!("{what} panicked:\n{main}\n{probes}"));
        assert!(took <= BOUND, "{what} took {took:?}:\n{main}\n{probes}");
        longest = longest.max(took);
        let Err(problems) = loaded else { continue };
        refused += 1;
        assert!(problems.iter().any(Problem::is_error), "{what}");
        for problem in &problems {
            let (place, text) = (&problem.place, problem.place.source().text());
            assert!(place.range().end <= text.len() && !problem.message.is_empty(), "{what}: {problem}");
            assert!(text.is_empty() || place.to_string().matches(':').count() == 2, "{what}: {problem}");
        }
    }
    assert!(refused > mutants / 2, "{refused}");
    table.row(&[
        &"T16 malformed TOML",
        &format!(
            "{} texts that TOML forbids; {mutants} mutants of {} good files (seed {SEED})",
            forbidden().len(),
            good.len()
        ),
        &format!(
            "{refused} refused, each with a place; no panic; the longest took {} ms in a debug build",
            longest.as_millis()
        ),
    ]);
}
