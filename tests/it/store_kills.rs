//! Killed at any step while a store of an older version is migrated, or a damaged one is set aside: the next start ends what was begun,
//! nothing is lost by it, and what is kept beside the store is whole.
//!
//! This program opens the store as a child process under strace, which kills it as it makes a system call: those that change files, one
//! after another.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use journeyman::journey::outcome::Verdict;
use journeyman::slo::Span;
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Store, StoreError};
use rusqlite::Connection;

use crate::store_faults::{batch, each, parts};
use crate::support::table::Table;
use crate::support::{Scratch, block_on, is_long, server_binary};

/// The directory of the store that this program is to open, as a child of itself.
const PLACE: &str = "JOURNEYMAN_TEST_STORE_OPENER";
const OPENER: &str = "store_kills::a_child_opens_the_store";
/// Whatever changes what is on the disk.
const CALLS: &str = "openat,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,chmod,fchmod";
/// More files than a program opens before its first line.
const OPENED: usize = 64;
const HEADS: &[&str] = &["test", "tried", "held"];
/// Batches in the store that is damaged.
const BATCHES: u32 = 12;
const PAGE: usize = 4_096;
/// So often a store is asked for that somebody else still has.
const LET_GO: u32 = 2_000;

#[test]
fn a_child_opens_the_store() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    // The calls of each thread are counted apart: what another does at its beginning must not be what this one is killed at.
    (0..OPENED).for_each(|_| drop(std::fs::File::open(place.join("begins"))));
    drop(Sqlite::open(&place.join("state.db")).unwrap());
}

/// Opens the store in a child, which is killed as it makes the nth call of that name; whether it came to that.
fn opens(place: &Path, kill: Option<&(String, usize)>) -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-e", "signal=none", "-o"]).arg(place.join("trace"));
    command.args(["-e", &format!("trace={CALLS}")]);
    if let Some((call, nth)) = kill {
        command.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", OPENER, "--test-threads=1"]);
    command.env(PLACE, place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap();
    let is_killed = status.signal() == Some(9);
    assert!(is_killed || status.success(), "{kill:?}: {status}");
    is_killed
}

/// The calls by which the store was opened, each with how often its thread had made it.
fn steps(place: &Path) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(place.join("trace")).unwrap();
    let is_begin = |line: &str| line.contains("/begins\"");
    let thread = text.lines().find(|line| is_begin(line)).unwrap().split(' ').next().unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut steps = Vec::new();
    for line in text.lines() {
        let Some((process, said)) = line.split_once(' ') else { continue };
        let Some((call, _)) = said.trim_start().split_once('(') else { continue };
        if process == thread && CALLS.split(',').any(|known| known == call) {
            let count = counts.entry(call).or_default();
            *count += 1;
            if !is_begin(line) && counts.get("openat").is_some_and(|opened| *opened >= OPENED) {
                steps.push((call.to_owned(), counts[call]));
            }
        }
    }
    steps
}

/// Kills the opening of what `prepare` makes at every step, or many of them, and has `check` look at what the next start makes of it.
fn killed_at_every_step(name: &str, prepare: impl Fn(&Path) + Sync, check: impl Fn(&Path, &str) + Sync) -> String {
    let scratch = Scratch::new(name);
    prepare(scratch.path());
    assert!(!opens(scratch.path(), None));
    check(scratch.path(), "without a kill");
    let steps = steps(scratch.path());
    let all = steps.len();
    let step = if is_long() { 1 } else { all.div_ceil(48) };
    // Files are renamed and removed seldom, and nothing is as delicate.
    let is_delicate = |call: &str| matches!(call, "rename" | "unlink");
    let chosen = |(n, (call, _)): &(usize, (String, usize))| n.is_multiple_of(step) || is_delicate(call);
    let cases: Vec<_> = steps.into_iter().enumerate().filter(chosen).map(|(_, case)| case).collect();
    let tried = cases.len();
    let killed = AtomicUsize::new(0);
    each(cases, |case| {
        let scratch = Scratch::new(name);
        prepare(scratch.path());
        killed.fetch_add(usize::from(opens(scratch.path(), Some(&case))), Ordering::Relaxed);
        check(scratch.path(), &format!("killed at {} {}", case.0, case.1));
    });
    let killed = killed.into_inner();
    // The last calls may be made in another order the next time.
    assert!(killed * 10 >= tried * 9 && killed > 20, "killed {killed} times of {tried}");
    format!("{killed} of the {all} system calls")
}

/// It is opened again, and works; gives what was said of it.
fn works(place: &Path, what: &str) -> (Sqlite, Option<String>) {
    // Whatever another test starts holds a copy of our lock from its fork to its exec.
    let opened = (0..LET_GO).find_map(|_| match Sqlite::open(&place.join("state.db")) {
        Err(StoreError::InUse(_)) => {
            std::thread::park_timeout(Duration::from_millis(5));
            None
        }
        opened => Some(opened),
    });
    let store = opened
        .unwrap_or_else(|| panic!("{what}: nobody lets go of it"))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    block_on(async {
        store.apply(batch(99)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(parts(&store, 99).await, 3, "{what}");
    });
    let mended = store.mended().map(str::to_owned);
    (store, mended)
}

/// T1, point 22.
#[test]
fn killed_at_any_step_of_a_migration_the_next_start_ends_it() {
    if server_binary("strace", "strace").is_none() {
        return;
    }
    // More than one page of everything, so that a copy of it takes more than one write.
    const SPANS: i64 = 500;
    let prepare = |place: &Path| {
        let old = Connection::open(place.join("state.db")).unwrap();
        old.execute_batch(include_str!("../../src/store/schema_1.sql")).unwrap();
        old.execute_batch("INSERT INTO journey VALUES (7, 'old', NULL); PRAGMA user_version = 1;").unwrap();
        old.execute_batch("BEGIN").unwrap();
        for n in 0..SPANS {
            old.execute("INSERT INTO span VALUES (7, ?, 0, 1, 2)", [n * 1_000]).unwrap();
        }
        old.execute_batch("COMMIT").unwrap();
    };
    let check = |place: &Path, what: &str| {
        let (store, mended) = works(place, what);
        assert_eq!(mended, None, "{what}");
        let spans = block_on(store.journey("old".into())).unwrap().spans;
        let expected =
            (0..SPANS).map(|n| Span { start: n * 1_000, step: 0, count: 1, verdict: Verdict::Failed, excluded: false });
        assert!(spans.iter().copied().eq(expected), "{what}: {} spans", spans.len());
        drop(store);
        // The copy of the store as it was is whole, and there is nothing else.
        let backup = Connection::open(place.join("state.v1.bak")).unwrap();
        let version: i64 = backup.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        let kept: i64 = backup.query_row("SELECT count(*) FROM span", [], |row| row.get(0)).unwrap();
        assert_eq!((version, kept), (1, SPANS), "{what}");
        drop(backup);
        let mut names: Vec<_> = std::fs::read_dir(place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("bak"))
            .collect();
        names.sort();
        assert_eq!(names, ["state.v1.bak"], "{what}");
    };
    let killed = killed_at_every_step("kill-migration", prepare, check);
    let mut table = Table::new("robustness", "t1-migration", HEADS);
    let tried = format!("killed at {killed} by which a store of the first version is migrated");
    table.row(&[
        &"T1 migration",
        &tried,
        &"the next start ends it; every row is there, and the copy of the old store is whole",
    ]);
}

/// T1, point 21.
#[test]
fn killed_at_any_step_of_a_rescue_the_next_start_ends_it() {
    if server_binary("strace", "strace").is_none() {
        return;
    }
    let prepare = |place: &Path| {
        let file = place.join("state.db");
        block_on(async {
            let store = Sqlite::open(&file).unwrap();
            for n in 0..BATCHES {
                store.apply(batch(n)).await.unwrap();
            }
            store.close().await.unwrap();
        });
        // Two that were set aside before, so that they have to move on.
        for place in 1..=2 {
            std::fs::write(format!("{}.damaged-{place}", file.display()), format!("number {place}")).unwrap();
            std::fs::write(format!("{}.damaged-{place}-wal", file.display()), format!("log {place}")).unwrap();
        }
        // What the alerts' table says is found only by its index.
        let mut bytes = std::fs::read(&file).unwrap();
        let page = root_of(&file, "condition");
        bytes[(page - 1) * PAGE..page * PAGE].fill(0);
        std::fs::write(&file, bytes).unwrap();
    };
    let check = |place: &Path, what: &str| {
        let (store, _) = works(place, what);
        block_on(async {
            for n in 0..BATCHES {
                assert_eq!(parts(&store, n).await, 3, "{what}: batch {n}");
            }
        });
        drop(store);
        // The damaged one is kept, and so are those that were set aside before.
        let aside = std::fs::read(place.join("state.db.damaged-1")).unwrap();
        assert!(aside.starts_with(b"SQLite format 3"), "{what}: the damaged one is gone");
        for (name, said) in [("damaged-2", "number 1"), ("damaged-3", "number 2"), ("damaged-3-wal", "log 2")] {
            let kept = std::fs::read(place.join(format!("state.db.{name}"))).unwrap_or_default();
            assert_eq!(kept, said.as_bytes(), "{what}: {name}");
        }
        assert!(!place.join("state.db.mending").exists(), "{what}");
        // What it was mended to is well: nothing is mended a second time.
        assert_eq!(works(place, what).1, None, "{what}");
    };
    let killed = killed_at_every_step("kill-rescue", prepare, check);
    let mut table = Table::new("robustness", "t1-rescue", HEADS);
    let tried = format!("killed at {killed} by which a damaged store is mended and set aside");
    table.row(&[
        &"T1 file renamed",
        &tried,
        &"the next start ends it; every row that could be read is there, and so is the damaged store",
    ]);
}

/// The page at which a table begins.
fn root_of(file: &Path, table: &str) -> usize {
    let connection = Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?";
    connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).unwrap() as usize
}
