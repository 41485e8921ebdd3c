//! A store that was damaged while nobody looked: whatever is wrong with its files, the daemon starts or says why not, loses only
//! what is damaged, and says so.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Store, StoreError};

use crate::store_faults::{batch, each, parts};
use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::table::Table;
use crate::support::{Scratch, block_on, free_port, is_long, wait_for};

/// Batches that were in the store when it was last closed.
const CLOSED: u32 = 10;
/// Batches in all; the later ones are in the log.
const ALL: u32 = 20;
/// Eight bits of each of these bytes are turned, one at a time.
const STRETCH: usize = 4_096;
const PAGE: usize = 4_096;
const FRAME: usize = PAGE + 24;
const HEADER: usize = 32;

/// The files of a store, as a process left them that was killed.
struct Files {
    store: Vec<u8>,
    log: Vec<u8>,
    lock: Vec<u8>,
}

impl Files {
    fn of(place: &Path) -> Files {
        let read = |name: &str| std::fs::read(place.join(name)).unwrap_or_default();
        Files { store: read("state.db"), log: read("state.db-wal"), lock: read("state.db.lock") }
    }

    /// A store with batches in its file and in its log.
    fn left_by_a_kill() -> Files {
        let scratch = Scratch::new("damage");
        let place = scratch.path().join("state.db");
        block_on(async {
            let fill = async |store: &Sqlite, from: u32, until: u32| {
                for n in from..until {
                    store.apply(batch(n)).await.unwrap();
                }
            };
            let first = Sqlite::open(&place).unwrap();
            fill(&first, 0, CLOSED).await;
            first.close().await.unwrap();
            drop(first);
            let second = Sqlite::open(&place).unwrap();
            fill(&second, CLOSED, ALL).await;
            Files::of(scratch.path())
        })
    }

    fn write(&self, place: &Path) {
        for (name, bytes) in [("state.db", &self.store), ("state.db-wal", &self.log), ("state.db.lock", &self.lock)] {
            if !bytes.is_empty() {
                std::fs::write(place.join(name), bytes).unwrap();
            }
        }
    }
}

/// What is left of a damaged store.
struct Left {
    batches: BTreeSet<u32>,
    halves: usize,
    mended: Option<String>,
    set_aside: bool,
}

impl Left {
    /// Nothing is missing but the last of the batches.
    fn is_beginning(&self) -> bool {
        self.halves == 0 && self.batches.iter().copied().eq(0..self.batches.len() as u32)
    }
}

fn open(place: &Path) -> Result<Left, StoreError> {
    let store = Sqlite::open(&place.join("state.db"))?;
    let mut left = Left {
        batches: BTreeSet::new(),
        halves: 0,
        mended: store.mended().map(str::to_owned),
        set_aside: place.join("state.db.damaged-1").exists(),
    };
    block_on(async {
        for n in 0..ALL {
            match parts(&store, n).await {
                0 => {}
                3 => drop(left.batches.insert(n)),
                _ => left.halves += 1,
            }
        }
        // It goes on.
        store.apply(batch(ALL)).await.unwrap();
        assert_eq!(parts(&store, ALL).await, 3);
    });
    Ok(left)
}

/// The store after this damage, opened.
fn after(files: &Files, damage: impl FnOnce(&mut Files)) -> Result<Left, StoreError> {
    let scratch = Scratch::new("damage");
    let mut damaged = Files { store: files.store.clone(), log: files.log.clone(), lock: files.lock.clone() };
    damage(&mut damaged);
    damaged.write(scratch.path());
    open(scratch.path())
}

#[test]
fn a_damaged_log_loses_its_tail_and_says_how_much() {
    let files = Files::left_by_a_kill();
    let frames = (files.log.len() - HEADER) / FRAME;
    assert!(frames > (ALL - CLOSED) as usize, "{frames}");
    let whole = after(&files, |_| {}).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((whole.batches.len() as u32, &whole.mended), (ALL, &None));
    let middle = HEADER + frames / 2 * FRAME;
    let mut table = Table::new("robustness", "t4-log", &["test", "tried", "held"]);
    type Damage<'a> = Box<dyn Fn(&mut Files) + 'a>;
    let last = files.log.len();
    let kinds: [(&str, bool, Damage<'_>); 8] = [
        ("its tail cut off", false, Box::new(move |files| files.log.truncate(last - 100))),
        ("cut off in its middle", false, Box::new(move |files| files.log.truncate(middle + 100))),
        ("a bit in its header", true, Box::new(|files| files.log[17] ^= 4)),
        ("a bit in the header of a frame", true, Box::new(move |files| files.log[middle + 18] ^= 1)),
        ("a bit in a page", true, Box::new(move |files| files.log[middle + 1_000] ^= 128)),
        ("a page of zeros", true, Box::new(move |files| files.log[middle + 24..middle + FRAME].fill(0))),
        ("gone", false, Box::new(|files| files.log.clear())),
        ("empty but for garbage", false, Box::new(|files| files.log = b"not a log".repeat(50))),
    ];
    for (kind, is_told, damage) in &kinds {
        let left = after(&files, damage).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(left.is_beginning() && left.batches.len() as u32 >= CLOSED, "{kind}: {:?}", left.batches);
        assert!((left.batches.len() as u32) < ALL, "{kind}");
        assert_eq!(left.mended.is_some(), *is_told, "{kind}: {:?}", left.mended);
        let lost = ALL - left.batches.len() as u32;
        if let Some(told) = &left.mended {
            // What was in the log and is no journey's: the schema's own, and the lock's.
            assert!(told.contains(&format!("up to {lost} ")), "{kind}: {lost} lost: {told}");
        }
        table.row(&[
            &"T4 damaged log",
            kind,
            &format!("starts; {lost} of {ALL} commits lost{}", if *is_told { ", and says so" } else { "" }),
        ]);
    }
    let scratch = Scratch::new("damage-index");
    files.write(scratch.path());
    std::fs::write(scratch.path().join("state.db-shm"), [0xa5; 32 * 1024]).unwrap();
    let left = open(scratch.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((left.batches.len() as u32, left.mended), (ALL, None));
    table.row(&[&"T4 damaged log", &"its index full of garbage", &"starts; nothing is lost"]);

    // Every bit of a stretch, or some of them.
    let step = if is_long() { 1 } else { 79 };
    let bits: Vec<usize> = (0..STRETCH * 8).step_by(step).collect();
    let all = bits.len();
    each(bits, |bit| {
        let at = middle - STRETCH / 2 + bit / 8;
        let left =
            after(&files, |files| files.log[at] ^= 1 << (bit % 8)).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        assert!(left.is_beginning() && left.batches.len() as u32 >= CLOSED, "bit {bit}: {:?}", left.batches);
        assert!(left.mended.is_some(), "bit {bit} of the log is turned, and nobody is told");
    });
    table.row(&[
        &"T4 damaged log",
        &format!("one bit turned, {all} of the {} in a stretch of 4 KiB", STRETCH * 8),
        &"starts each time with what stands before it, and says how much it lost",
    ]);
}

#[test]
fn a_damaged_store_is_set_aside_and_what_can_be_read_goes_on() {
    let files = Files::left_by_a_kill();
    let mut table = Table::new("robustness", "t4-store", &["test", "tried", "held"]);
    type Damage = fn(&mut Files);
    let kinds: [(&str, Damage); 5] = [
        ("its header overwritten", |files| files.store[..100].fill(0xff)),
        ("cut in half", |files| files.store.truncate(files.store.len() / 2)),
        ("empty", |files| files.store.clear()),
        ("garbage", |files| files.store = b"no database, and long enough to be taken for one".repeat(200)),
        ("every page but the first zeroed", |files| files.store[PAGE..].fill(0)),
    ];
    for (kind, damage) in kinds {
        // All that there is lies in the store: the log is gone, as it is after an orderly stop.
        let closed = Scratch::new("damage-closed");
        files.write(closed.path());
        drop(Sqlite::open(&closed.path().join("state.db")).unwrap());
        let mut damaged = Files::of(closed.path());
        assert!(damaged.log.is_empty());
        damage(&mut damaged);
        let scratch = Scratch::new("damage");
        damaged.write(scratch.path());
        if damaged.store.is_empty() {
            std::fs::write(scratch.path().join("state.db"), []).unwrap();
        }
        let left = open(scratch.path()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let told = left.mended.unwrap_or_else(|| panic!("{kind}: nobody is told"));
        assert!(left.set_aside && told.contains("state.db.damaged-1"), "{kind}: {told}");
        let kept = left.batches.len();
        table.row(&[
            &"T4 damaged store",
            &kind,
            &format!("starts with a new one, keeps the old; {kept} of {ALL} batches taken over, says so"),
        ]);
        let again = open(scratch.path()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(again.mended, None, "{kind}: once");
    }

    // Each page in turn.
    let closed = Scratch::new("damage-closed");
    files.write(closed.path());
    drop(Sqlite::open(&closed.path().join("state.db")).unwrap());
    let sound = Files::of(closed.path());
    let pages: Vec<usize> = (1..sound.store.len() / PAGE).collect();
    let all = pages.len();
    let whole = std::sync::atomic::AtomicUsize::new(0);
    each(pages, |page| {
        let left = after(&sound, |files| files.store[page * PAGE..(page + 1) * PAGE].fill(0));
        let left = left.unwrap_or_else(|error| panic!("page {page}: {error}"));
        if left.mended.is_none() {
            assert_eq!(left.batches.len() as u32, ALL, "page {page}: something is lost, and nobody is told");
            whole.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    table.row(&[
        &"T4 damaged store",
        &format!("each of its {all} pages zeroed in turn"),
        &format!(
            "starts each time; {} times what a start needs was whole, otherwise it says what it lost",
            whole.into_inner()
        ),
    ]);
}

#[test]
fn what_was_never_ours_is_left_alone() {
    let scratch = Scratch::new("damage-foreign");
    let text = "somebody's own, and long enough to be taken for a database\n".repeat(100);
    let path = scratch.write("state.db", &text);
    for _ in 0..2 {
        assert!(matches!(Sqlite::open(&path), Err(StoreError::Unreadable(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn damaged_stores_that_were_set_aside_do_not_fill_the_disk() {
    let scratch = Scratch::new("damage-often");
    let path = scratch.path().join("state.db");
    for n in 0..6 {
        drop(Sqlite::open(&path).unwrap());
        std::fs::write(&path, format!("damage {n} ").repeat(1_000)).unwrap();
    }
    drop(Sqlite::open(&path).unwrap());
    let names = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: BTreeSet<_> =
        names.filter_map(|name| Some(name.to_str()?.split_once(".damaged-")?.1.to_owned())).collect();
    assert_eq!(aside, BTreeSet::from(["1", "2", "3"].map(str::to_owned)));
    let first = |place: u32| std::fs::read_to_string(scratch.path().join(format!("state.db.damaged-{place}"))).unwrap();
    assert!(first(1).starts_with("damage 5") && first(3).starts_with("damage 3"));
}

#[test]
fn the_daemon_starts_on_a_damaged_store_tells_people_once_and_says_what_to_do_about_a_strange_one() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let setup = Setup::new("damaged");
        setup.write("token", TOKEN);
        let main = format!(
            "[alerting]\nnotify = [\"chat\"]\n[channels.loop]\ntype = \"memory\"\n[notifiers.chat]\ntype = \"slack\"\n\
             token = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
            slack.url()
        );
        let probes = "[[journey]]\nname = \"loop\"\nevery = \"500ms\"\ndeadline = \"400ms\"\nnotify = [\"chat\"]\n\
                      step = [{ send = \"loop\", text = \"{{ token }}\" }, { receive = \"loop\" }]\n";
        let soon = Duration::from_secs(30);
        let mut daemon = setup.start(&main, probes).await;
        let good = async |daemon: &crate::support::daemon::Daemon| {
            let labels = [("journey", "loop"), ("outcome", "good")];
            daemon.metric("journeyman_runs_total", &labels).await.filter(|runs| *runs >= 3.0)
        };
        wait_for("runs", soon, async || good(&daemon).await).await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let mut bytes = std::fs::read(daemon.store_path()).unwrap();
        bytes[PAGE..].fill(0);
        std::fs::write(daemon.store_path(), bytes).unwrap();

        daemon.start_again().await;
        let told = || slack.messages(CHANNEL).into_iter().filter(|message| message.text.contains("storage")).count();
        wait_for("people to be told", soon, async || (told() >= 1).then_some(())).await;
        wait_for("runs", soon, async || good(&daemon).await).await;
        wait_for("them to be told that it is over", soon, async || (told() == 2).then_some(())).await;
        assert!(daemon.log().contains("the store was damaged"), "{}", daemon.log());
        assert!(PathBuf::from(format!("{}.damaged-1", daemon.store_path().display())).exists());
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());

        // Somebody's own file is neither taken nor moved.
        let scratch = Scratch::new("foreign-store");
        let own = scratch.write("holiday.jpg", &"picture ".repeat(1_000));
        scratch.write(
            "journeyman.toml",
            &format!(
                "[http]\nlisten = \"127.0.0.1:{}\"\n[hooks]\nlisten = \"127.0.0.1:{}\"\n[store]\nurl = \"sqlite:holiday.jpg\"\n",
                free_port(),
                free_port()
            ),
        );
        let before = std::fs::read(&own).unwrap();
        for _ in 0..2 {
            let ended = journeyman(scratch.path(), &["run", "--config", "journeyman.toml"]).await;
            assert_eq!(ended.code, 74, "{ended:#?}");
            for part in ["holiday.jpg", "not a database", "help: move it away"] {
                assert!(ended.stderr.contains(part), "{part} is not in\n{}", ended.stderr);
            }
        }
        assert_eq!(std::fs::read(&own).unwrap(), before);
    });
}
