//! The store on a disk that fails: the nth write, the nth sync, no room any more, power cut at any moment. What was confirmed is
//! there afterwards; what was refused is not there by half.
//!
//! This program writes as a child process under strace, which makes system calls fail and takes down what was written.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

mod trace;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use journeyman::journey::outcome::Verdict;
use journeyman::journey::token::Token;
use journeyman::ledger::Entry;
use journeyman::slo::{Span, SpanChange};
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Change, Store};

use crate::store_faults::trace::{Op, Trace};
use crate::support::table::Table;
use crate::support::{Scratch, block_on, is_long, server_binary};

/// The directory in which this program is to write, as a child of itself.
const PLACE: &str = "JOURNEYMAN_TEST_STORE_WRITER";
const WRITER: &str = "store_faults::a_child_writes_and_notes_what_was_confirmed";
/// The child opens, writes and closes so often.
const TURNS: u32 = 2;
/// Batches of each turn.
const BATCHES: u32 = 5;

fn at(minute: u32) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + i64::from(minute) * 60).unwrap()
}

/// A batch in three tables, so that it can be there by half.
pub(crate) fn batch(n: u32) -> Vec<Change> {
    let journey = "sms".into();
    let entry = Entry { journey, slot: at(n), recorded: at(n), keep_until: at(n + 1_000), settled: None };
    // Apart from each other, so that each is a span of its own.
    let span = Span { start: at(2 * n).as_millisecond(), step: 0, count: 1, verdict: Verdict::Good, excluded: false };
    vec![
        Change::Expect { token: Token::from_bits(u128::from(n)), entry },
        Change::Spans { journey: "sms".into(), changes: vec![SpanChange::Put(span)] },
        Change::Hold { notifier: format!("n{n}").into(), until: at(n) },
    ]
}

/// What of each batch is in the store: the number of its three parts.
pub(crate) async fn parts(store: &Sqlite, n: u32) -> usize {
    let ledger = store.ledger().await.unwrap();
    let saved = store.journey("sms".into()).await.unwrap();
    let start = at(2 * n).as_millisecond();
    let has = [
        ledger.iter().any(|(token, _)| token.bits() == u128::from(n)),
        saved.spans.iter().any(|span| span.start == start),
        store.hold(format!("n{n}").into()).await.unwrap() == Some(at(n)),
    ];
    has.into_iter().filter(|has| *has).count()
}

#[test]
fn a_child_writes_and_notes_what_was_confirmed() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    // A directory is made at once and by one call, which no fault of these tests meets.
    let note = |word: &str, n: u32| std::fs::create_dir(place.join(format!("{word}-{n}"))).unwrap();
    block_on(async {
        for turn in 0..TURNS {
            let Ok(store) = Sqlite::open(&place.join("state.db")) else { continue };
            for n in turn * BATCHES..(turn + 1) * BATCHES {
                match store.apply(batch(n)).await {
                    Ok(()) => note("confirmed", n),
                    Err(_) => note("refused", n),
                }
            }
            let _ = store.close().await;
        }
    });
}

/// The child, to be run by `command`, whose last argument comes before the program.
fn child(mut command: Command, place: &Path) -> bool {
    command.arg(std::env::current_exe().unwrap()).args(["--exact", WRITER, "--test-threads=1"]);
    command.env(PLACE, place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// The child under strace, with these faults; what it did is in `place`.
fn traced(place: &Path, inject: &[String], with_data: bool) -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "--seccomp-bpf", "-y", "-xx", "-e", "signal=none", "-o"]).arg(place.join("trace"));
    command.args(["-s", if with_data { "1000000" } else { "0" }]);
    command.args(["-e", "trace=pwrite64,fsync,fdatasync,ftruncate,unlink,mkdir"]);
    for fault in inject {
        command.args(["-e", fault]);
    }
    child(command, place)
}

fn confirmed(place: &Path) -> BTreeSet<u32> {
    let names = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("confirmed-")?.parse().ok()).collect()
}

/// Everything confirmed is there, and nothing by half.
fn check(place: &Path, confirmed: &BTreeSet<u32>, what: &str) -> Option<String> {
    block_on(async {
        let store = Sqlite::open(&place.join("state.db")).unwrap_or_else(|error| panic!("{what}: {error}"));
        for n in 0..TURNS * BATCHES {
            let parts = parts(&store, n).await;
            assert!(parts == 0 || parts == 3, "{what}: batch {n} is there by half: {parts} of 3");
            assert!(parts == 3 || !confirmed.contains(&n), "{what}: batch {n} was confirmed, and is not there");
        }
        store.mended().map(str::to_owned)
    })
}

/// Runs `work` for each of `cases`, as many at once as there are cores.
pub(crate) fn each<T: Send>(cases: Vec<T>, work: impl Fn(T) + Sync) {
    let cases: Vec<_> = cases.into_iter().map(|case| std::sync::Mutex::new(Some(case))).collect();
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    work(case.lock().unwrap().take().unwrap());
                }
            });
        }
    });
}

const KINDS: [(&str, &str); 4] = [
    ("write", "pwrite64:error=EIO"),
    ("room", "pwrite64:error=ENOSPC"),
    ("sync", "fsync,fdatasync:error=EIO"),
    ("truncate", "ftruncate:error=EIO"),
];

#[test]
fn the_nth_operation_fails_and_nothing_confirmed_is_lost() {
    if server_binary("strace", "strace").is_none() {
        return;
    }
    let mut table = Table::new("robustness", "t3-operations", &["test", "tried", "held"]);
    // How often each call is made, so that each of them can fail.
    let scratch = Scratch::new("store-faults");
    assert!(traced(scratch.path(), &[], false), "without a fault");
    let calls = std::fs::read_to_string(scratch.path().join("trace")).unwrap();
    let count = |kind: &str| {
        let names: Vec<_> = kind.split(':').next().unwrap().split(',').map(|name| format!(" {name}(")).collect();
        calls.lines().filter(|line| names.iter().any(|name| line.contains(name))).count()
    };
    let mut cases = Vec::new();
    for (kind, fault) in KINDS {
        let all = count(fault);
        assert!(all > 0, "no {kind}");
        // Each, or so many of them.
        let step = if is_long() { 1 } else { all.div_ceil(14) };
        for nth in (1..=all).step_by(step) {
            cases.extend(["", "+"].map(|sticky| (kind, fault, nth, sticky)));
        }
    }
    let all = cases.len();
    let refused = AtomicU32::new(0);
    each(cases, |(kind, fault, nth, sticky)| {
        let what = format!("{kind} {nth}{sticky}");
        let scratch = Scratch::new("store-faults");
        let is_sync = kind == "sync";
        assert!(
            traced(scratch.path(), &[format!("inject={fault}:when={nth}{sticky}")], is_sync),
            "{what}: it panicked"
        );
        let confirmed = confirmed(scratch.path());
        refused.fetch_add(TURNS * BATCHES - confirmed.len() as u32, Ordering::Relaxed);
        if is_sync {
            // What was to be synced and was not is gone from the disk, although it can still be read: power is cut in the end.
            let trace = Trace::read(&scratch.path().join("trace"));
            let after = Scratch::new("store-faults");
            trace.disk_after(trace.ops.len(), None).write(after.path());
            check(after.path(), &confirmed, &format!("{what}, and a power cut"));
        }
        let mended = check(scratch.path(), &confirmed, &what);
        assert!(is_sync || mended.is_none(), "{what}: {mended:?}");
    });
    let refused = refused.into_inner();
    assert!(refused > 0, "no fault was felt");
    table.row(&[
        &"T3 failing I/O",
        &format!("the nth of each call fails, once and for good ({all} runs: EIO, ENOSPC, fsync, ftruncate)"),
        &format!(
            "no panic; {refused} batches refused, every confirmed one there, none by half; none after a failed fsync"
        ),
    ]);
}

#[test]
fn a_write_that_is_cut_short_is_no_commit() {
    let mut table = Table::new("robustness", "t3-short-writes", &["test", "tried", "held"]);
    let scratch = Scratch::new("store-short");
    assert!(child(Command::new("env"), scratch.path()), "without a limit");
    // The largest that a file becomes: the log, before it is closed.
    let largest = 400 * 1024;
    let step = if is_long() { 509 } else { 17_011 };
    let sizes: Vec<u64> = (1..largest).step_by(step).collect();
    let all = sizes.len();
    each(sizes, |size| {
        let scratch = Scratch::new("store-short");
        let mut command = Command::new("env");
        command.args(["--ignore-signal=XFSZ", "prlimit", &format!("--fsize={size}"), "--"]);
        assert!(child(command, scratch.path()), "{size}: it panicked");
        check(scratch.path(), &confirmed(scratch.path()), &format!("no file above {size} bytes"));
    });
    table.row(&[
        &"T3 short writes",
        &format!("files may not grow beyond {all} sizes: the write that crosses it is cut short, later ones fail"),
        &"no panic; every confirmed batch there, none by half",
    ]);
}

#[test]
fn power_cut_at_any_moment_takes_nothing_that_was_confirmed() {
    if server_binary("strace", "strace").is_none() {
        return;
    }
    let mut table = Table::new("robustness", "t3-power", &["test", "tried", "held"]);
    let scratch = Scratch::new("store-power");
    assert!(traced(scratch.path(), &[], true));
    let trace = Trace::read(&scratch.path().join("trace"));
    let syncs = trace.ops.iter().filter(|op| matches!(op, Op::Sync { .. })).count();
    assert_eq!(trace.confirmed(trace.ops.len()).len() as u32, TURNS * BATCHES, "{syncs} syncs");
    let (step, seeds) = if is_long() { (1, 20) } else { (3, 1) };
    let cases: Vec<_> =
        (0..=trace.ops.len()).step_by(step).flat_map(|n| (0..seeds).map(move |seed| (n, seed))).collect();
    let all = cases.len();
    each(cases, |(nth, seed)| {
        let after = Scratch::new("store-power");
        let mut random = fastrand::Rng::with_seed(seed * 1_000_003 + nth as u64);
        trace.disk_after(nth, Some(&mut random)).write(after.path());
        check(after.path(), &trace.confirmed(nth), &format!("power cut after operation {nth}, seed {seed}"));
    });
    table.row(&[
        &"T3 power loss",
        &format!(
            "power cut after {all} points of {} operations; what was not synced is kept, torn or dropped at random",
            trace.ops.len()
        ),
        &"the store opens; every confirmed batch is there, none by half",
    ]);
}
