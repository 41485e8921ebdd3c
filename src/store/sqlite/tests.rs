//! The conformance suite on SQLite, and what only SQLite can get wrong.

use std::sync::Arc;

use super::*;
use crate::journey::outcome::Verdict;
use crate::slo::{Span, SpanChange};
use crate::store::codes::WHYS;
use crate::store::conformance::{self, at, row};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("journeyman-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn owe(sequence: u32) -> Vec<Change> {
    vec![Change::Owe { row: Box::new(row("i1", sequence, "slack", 0)) }]
}

#[tokio::test]
async fn conforms() {
    let place = Place::new("conforms");
    conformance::all(async || Arc::new(Sqlite::open(&place.file()).unwrap()) as Arc<dyn Store>).await;
}

#[tokio::test]
async fn what_good_runs_leave_is_deflated_and_what_they_left_before_is_read() {
    let place = Place::new("deflated");
    let store = Sqlite::open(&place.file()).unwrap();
    let runs = [conformance::good(1_000), conformance::failed(1_060)];
    let changes = runs.iter().map(|report| Change::Run { report: Box::new(report.clone()), keep_evidence: true });
    store.apply(changes.collect()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let file = Connection::open(place.file()).unwrap();
    let of_type = |is_good: bool| -> String {
        file.query_row("SELECT typeof(report) FROM evidence WHERE is_good = ?", [is_good], |row| row.get(0)).unwrap()
    };
    assert_eq!((of_type(true), of_type(false)), ("blob".to_owned(), "text".to_owned()));
    file.execute("UPDATE evidence SET report = ? WHERE is_good", [rows::json(&runs[0]).unwrap()]).unwrap();
    drop(file);
    let store = Sqlite::open(&place.file()).unwrap();
    for run in runs {
        assert_eq!(store.report(run.token).await.unwrap(), Some(run));
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn one_process_at_a_time_and_nobody_else_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("lock");
    let first = Sqlite::open(&place.file()).unwrap();
    assert!(matches!(Sqlite::open(&place.file()), Err(StoreError::InUse(_))));
    let mode = std::fs::metadata(place.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    Sqlite::open(&place.file()).unwrap();
}

#[tokio::test]
async fn a_newer_schema_and_garbage_are_refused_in_words() {
    let place = Place::new("newer");
    drop(Sqlite::open(&place.file()).unwrap());
    Connection::open(place.file()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&place.file()).err().unwrap();
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 7 }), "{error}");
    assert!(error.to_string().contains("run the newer build"));
    std::fs::write(place.file(), "not a database, but long enough to be taken for one".repeat(100)).unwrap();
    let strange = place.0.join("strange.db");
    std::fs::copy(place.file(), &strange).unwrap();
    assert!(matches!(Sqlite::open(&strange), Err(StoreError::Unreadable(_))), "it was never ours");
    let store = Sqlite::open(&place.file()).unwrap();
    assert!(store.mended().unwrap().contains("nothing of it could be read"), "{:?}", store.mended());
}

#[tokio::test]
async fn the_first_schema_is_migrated_with_a_backup_and_nothing_is_lost() {
    let place = Place::new("migrate");
    std::fs::create_dir_all(&place.0).unwrap();
    let old = Connection::open(place.file()).unwrap();
    old.execute_batch(include_str!("../schema_1.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO journey VALUES (7, 'sms', NULL);
         INSERT INTO span VALUES (7, 1000, 60000, 5, 0), (7, 301000, 0, 1, 5), (7, 361000, 60000, 2, 2);
         INSERT INTO run VALUES (7, 1000, 0, 0, 1, NULL), (7, 61000, 3, 9, 250000, 5000000);
         INSERT INTO evidence VALUES (x'01', 7, 1000, 0, '{}'), (x'02', 7, 61000, 0, '{}');
         INSERT INTO incident VALUES ('i', 7, 1000, NULL, 'critical', '[]', 'summary', 3);
         INSERT INTO outbox VALUES ('i.1.slack', 'i', 1, 'slack', NULL, 1000, '{}', 'sent', 1, 0, NULL, NULL, 0);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    assert!(matches!(
        snapshot::spans(&place.file(), &["sms".into()], &mut || {}),
        Err(StoreError::TooOld { found: 1, known: 7 })
    ));
    let store = Sqlite::open(&place.file()).unwrap();
    let span = |start, step, count, verdict| Span { start, step, count, verdict, excluded: false };
    let expected = [
        span(1_000, 60_000, 5, Verdict::Good),
        span(301_000, 0, 1, Verdict::Excluded),
        span(361_000, 60_000, 2, Verdict::Failed),
    ];
    assert_eq!(store.journey("sms".into()).await.unwrap().spans, expected);
    let backup = Connection::open(place.0.join("state.v1.bak")).unwrap();
    let version: i64 = backup.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let kept: i64 = backup.query_row("SELECT count(*) FROM span", [], |row| row.get(0)).unwrap();
    assert_eq!((version, kept), (1, 3));
    store.close().await.unwrap();
    drop(store);
    let new = Connection::open(place.file()).unwrap();
    let rows = |sql: &str| new.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(rows("SELECT count(*) FROM run WHERE (slot, outcome, verdict, why) = (1000, 0, 0, 0)"), 1);
    assert_eq!(
        rows("SELECT count(*) FROM run WHERE (slot, verdict, why, latency, late_by) = (61000, 3, 9, 250000, 5000000)"),
        1
    );
    assert_eq!(rows("SELECT count(*) FROM evidence WHERE (token, is_good) IN (VALUES (x'01', 0), (x'02', 0))"), 2);
    assert_eq!(rows("SELECT count(*) FROM incident WHERE (id, subject, members, bad_runs) = ('i', 'sms', 1, 3)"), 1);
    assert_eq!(
        rows("SELECT count(*) FROM outbox WHERE (id, notifier, status, at) = ('i.1.slack', 'slack', 'sent', 0)"),
        1
    );
}

#[tokio::test]
async fn what_another_version_left_of_a_run_is_no_reason_not_to_start() {
    let place = Place::new("strange");
    drop(Sqlite::open(&place.file()).unwrap());
    let other = Connection::open(place.file()).unwrap();
    other
        .execute_batch(
            "INSERT INTO unfinished VALUES (x'00', 5, '{\"place\":\"elsewhere\"}');
             INSERT INTO arrival VALUES (1, x'00', 'no JSON at all');",
        )
        .unwrap();
    drop(other);
    let store = Sqlite::open(&place.file()).unwrap();
    assert_eq!((store.unfinished().await.unwrap().len(), store.arrivals().await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_snapshot_reads_beside_the_process_that_has_the_store_and_without_one() {
    let place = Place::new("snapshot");
    let missing = snapshot::spans(&place.file(), &["sms".into()], &mut || {}).unwrap_err();
    assert!(matches!(&missing, StoreError::Unreadable(why) if why.contains("does not exist")), "{missing}");
    assert!(!place.file().exists(), "who only reads makes nothing");
    let store = Sqlite::open(&place.file()).unwrap();
    let span = Span { start: 1_000, step: 0, count: 1, verdict: Verdict::Late, excluded: true };
    store.apply(vec![Change::Spans { journey: "sms".into(), changes: vec![SpanChange::Put(span)] }]).await.unwrap();
    let read = || snapshot::spans(&place.file(), &["sms".into(), "other".into()], &mut || {}).unwrap();
    assert_eq!(read(), HashMap::from([("sms".into(), vec![span])]));
    store.close().await.unwrap();
    drop(store);
    assert_eq!(read(), HashMap::from([("sms".into(), vec![span])]));
    Sqlite::open(&place.file()).unwrap();
}

#[tokio::test]
async fn a_batch_is_whole_or_not_at_all_and_a_full_disk_is_survived() {
    let place = Place::new("full");
    let store = Sqlite::open(&place.file()).unwrap();
    store.apply(owe(1)).await.unwrap();
    let pages = store.change(|writer| {
        let pages: i64 = writer.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(failure)?;
        writer.connection.pragma_update(None, "max_page_count", pages).map_err(failure)?;
        Ok(pages)
    });
    assert!(pages.await.unwrap() > 0);
    let batch: Vec<_> = (2..2_000).flat_map(owe).collect();
    assert!(matches!(store.apply(batch.clone()).await, Err(StoreError::Unwritable(_))));
    assert_eq!(store.outbox(None, None, 9_999).await.unwrap().len(), 1);
    store
        .change(|writer| writer.connection.pragma_update(None, "max_page_count", 1_000_000).map_err(failure))
        .await
        .unwrap();
    store.apply(batch).await.unwrap();
    assert_eq!(store.outbox(None, None, 9_999).await.unwrap().len(), 1_999);
}

#[tokio::test]
async fn concurrent_batches_share_commits_and_all_are_there() {
    let place = Place::new("group");
    let store = Arc::new(Sqlite::open(&place.file()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for sequence in 1..=500 {
        let store = store.clone();
        tasks.spawn(async move { store.apply(owe(sequence)).await.unwrap() });
    }
    tasks.join_all().await;
    assert_eq!(store.outbox(None, None, 9_999).await.unwrap().len(), 500);
    store.close().await.unwrap();
    assert!(matches!(store.apply(owe(501)).await, Err(StoreError::Closed)));
    assert_eq!(at(0).as_second(), 1_790_000_000);
}

#[test]
fn every_reason_has_a_code_of_its_own() {
    use crate::journey::outcome::{Cause, ExcludedWhy, UnknownWhy};
    let causes = Cause::ALL.iter().map(|cause| cause.as_str());
    let unknown = UnknownWhy::ALL.iter().map(|why| why.as_str());
    let excluded = ExcludedWhy::ALL.iter().map(|why| why.as_str());
    for label in causes.chain(unknown).chain(excluded) {
        assert!(WHYS.contains(&label), "{label} has no code in the store");
    }
}

/// A store that its process has not closed, and its log.
async fn left_open(place: &Place) -> Vec<u8> {
    let store = Sqlite::open(&place.file()).unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = Sqlite::open(&place.file()).unwrap();
    for sequence in 1..=8 {
        store.apply(owe(sequence)).await.unwrap();
    }
    std::fs::read(log_of(&place.file())).unwrap()
}

#[tokio::test]
async fn every_bit_of_a_log_that_is_turned_is_noticed_and_what_stands_before_it_is_used() {
    let place = Place::new("log");
    let log = left_open(&place).await;
    let whole = wal::read(&log);
    assert_eq!((whole.commits, whole.lost), (8, 0));
    const FRAME: usize = 4_096 + 24;
    // The frames at which commits end.
    let ends: Vec<_> = log[32..].chunks_exact(FRAME).enumerate().filter(|(_, frame)| frame[4..8] != [0; 4]).collect();
    let ends: Vec<usize> = ends.into_iter().map(|(at, _)| at).collect();
    assert_eq!(ends.len(), 8, "{ends:?}");
    // All of the headers, and every seventh byte of the pages.
    let is_looked_at = |at: &usize| *at < 32 || (at - 32) % FRAME < 24 || at.is_multiple_of(7);
    let last = ends[7];
    for at in (0..32 + (last + 1) * FRAME).filter(is_looked_at) {
        let mut damaged = log.clone();
        damaged[at] ^= 1 << (at % 8);
        let found = wal::read(&damaged);
        let frame = at.checked_sub(32).map(|at| at / FRAME);
        let before = frame.map_or(0, |frame| ends.iter().filter(|end| **end < frame).count() as u64);
        assert_eq!(found.commits, before, "byte {at}");
        // Of a commit whose own last frame is damaged it cannot be said whether it ever was one.
        // So it is if the sum is damaged that it goes on from.
        let is_sum = frame.is_some_and(|frame| (16..24).contains(&(at - 32 - frame * FRAME)));
        let is_an_end =
            frame.is_none_or(|frame| ends.contains(&(frame + usize::from(is_sum))) || ends.contains(&frame));
        // And a frame can be made to look like the last of a commit.
        let is_made_one = frame.is_some_and(|frame| (4..8).contains(&(at - 32 - frame * FRAME)));
        let (lost, found) = (8 - before, found.lost);
        assert!(
            found == lost || is_an_end && found + 1 == lost || is_made_one && found == lost + 1,
            "byte {at}: {found}"
        );
    }
}

#[tokio::test]
async fn what_is_cut_short_is_no_commit_and_what_is_no_log_is_none() {
    let place = Place::new("cut");
    let log = left_open(&place).await;
    for length in (0..log.len()).step_by(61) {
        let found = wal::read(&log[..length]);
        assert!(found.commits <= 8 && found.lost == 0, "{length}: {found:?}");
    }
    assert_eq!(wal::read(b"not a log, whatever its length".repeat(400).as_slice()), wal::Log::default());
}

#[tokio::test]
async fn a_row_that_makes_no_sense_costs_itself_and_no_start() {
    let place = Place::new("rows");
    drop(Sqlite::open(&place.file()).unwrap());
    Connection::open(place.file())
        .unwrap()
        .execute_batch(
            "INSERT INTO journey VALUES (1, 'sms', NULL);
             INSERT INTO span VALUES (1, 1000, 60000, 5, 0, 0), (1, 9000000, 0, 0, 0, 0), (1, 9000001, 9223372036854775807, 9, 0, 0);
             INSERT INTO condition VALUES ('channel: a', '{}'), ('channel: b', '{\"phase\":');",
        )
        .unwrap();
    let store = Sqlite::open(&place.file()).unwrap();
    let told = store.mended().unwrap();
    assert!(told.contains("2 rows of table span") && told.contains("1 rows of table condition"), "{told}");
    let spans = store.journey("sms".into()).await.unwrap().spans;
    assert_eq!(spans.iter().map(|span| span.start).collect::<Vec<_>>(), [1_000]);
    assert_eq!(store.conditions().await.unwrap().len(), 1);
    assert!(place.0.join("state.db.damaged-1").exists());
    drop(store);
    assert_eq!(Sqlite::open(&place.file()).unwrap().mended(), None, "once");
}

#[tokio::test]
async fn a_rescue_that_was_cut_short_is_ended_by_the_next_start() {
    let place = Place::new("short-rescue");
    let log = left_open(&place).await;
    // The damaged one has its new name, its log has not, and the new one waits.
    std::fs::rename(place.file(), place.0.join("state.db.mending")).unwrap();
    std::fs::write(log_of(&place.file()), &log).unwrap();
    let store = Sqlite::open(&place.file()).unwrap();
    assert_eq!(store.outbox(None, None, 99).await.unwrap().len(), 8);
    assert!(place.0.join("state.db.damaged-1-wal").exists(), "its log never meets the new one");
}

#[tokio::test]
async fn a_page_that_cannot_be_read_later_is_looked_at_by_the_next_start() {
    let place = Place::new("later");
    let file = place.file();
    drop(Sqlite::open(&file).unwrap());
    let run = "WITH RECURSIVE nth(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM nth WHERE n < 2000)
        INSERT INTO run SELECT 1, n * 60000, 0, 0, NULL FROM nth; INSERT INTO journey VALUES (1, 'sms', NULL);";
    let connection = Connection::open(&file).unwrap();
    connection.execute_batch(run).unwrap();
    let sql = "SELECT max(pageno) FROM dbstat WHERE name = 'run' AND pagetype = 'leaf'";
    let page = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    connection.close().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(page - 1) * 4_096..page * 4_096].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let store = Sqlite::open(&file).unwrap();
    assert_eq!(store.mended(), None, "a start does not read every run");
    assert!(matches!(store.runs("sms".into(), None, 9_999).await, Err(StoreError::Unreadable(_))));
    drop(store);
    let store = Sqlite::open(&file).unwrap();
    assert!(store.mended().unwrap().contains("part of table run"), "{:?}", store.mended());
    let runs = store.runs("sms".into(), None, 9_999).await.unwrap().len();
    assert!((1_000..2_001).contains(&runs), "{runs}");
}

#[tokio::test]
async fn what_somebody_is_owed_is_followed_without_a_rest() {
    let place = Place::new("rest");
    let store = Sqlite::open_resting(&place.file(), Duration::from_secs(3_600)).unwrap();
    let all = async {
        for sequence in 0..3 {
            store.apply(owe(sequence)).await.unwrap();
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), all).await;
    if done.is_err() {
        // Its thread would be waited for.
        std::mem::forget(store);
    }
    done.expect("the writer rests");
}
