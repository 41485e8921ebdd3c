//! The conformance suite on SQLite, and what only SQLite can get wrong.

use std::sync::Arc;

use super::rows::WHYS;
use super::*;
use crate::journey::outcome::Verdict;
use crate::slo::{Span, SpanChange};
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
    conformance::all(|| Arc::new(Sqlite::open(&place.file()).unwrap())).await;
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
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 3 }), "{error}");
    assert!(error.to_string().contains("run the newer build"));
    std::fs::write(place.file(), "not a database, but long enough to be taken for one".repeat(100)).unwrap();
    assert!(matches!(Sqlite::open(&place.file()), Err(StoreError::Unreadable(_))));
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
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    assert!(matches!(snapshot::spans(&place.file(), &["sms".into()]), Err(StoreError::TooOld { found: 1, known: 3 })));
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
}

#[tokio::test]
async fn a_snapshot_reads_beside_the_process_that_has_the_store_and_without_one() {
    let place = Place::new("snapshot");
    let missing = snapshot::spans(&place.file(), &["sms".into()]).unwrap_err();
    assert!(matches!(&missing, StoreError::Unreadable(why) if why.contains("does not exist")), "{missing}");
    assert!(!place.file().exists(), "who only reads makes nothing");
    let store = Sqlite::open(&place.file()).unwrap();
    let span = Span { start: 1_000, step: 0, count: 1, verdict: Verdict::Late, excluded: true };
    store.apply(vec![Change::Spans { journey: "sms".into(), changes: vec![SpanChange::Put(span)] }]).await.unwrap();
    let read = || snapshot::spans(&place.file(), &["sms".into(), "other".into()]).unwrap();
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
    assert_eq!(store.outbox(None, 9_999).await.unwrap().len(), 1);
    store
        .change(|writer| writer.connection.pragma_update(None, "max_page_count", 1_000_000).map_err(failure))
        .await
        .unwrap();
    store.apply(batch).await.unwrap();
    assert_eq!(store.outbox(None, 9_999).await.unwrap().len(), 1_999);
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
    assert_eq!(store.outbox(None, 9_999).await.unwrap().len(), 500);
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
