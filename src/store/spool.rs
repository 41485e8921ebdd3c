//! What a daemon saw and could not say yet: bounded in memory, and on disk beside that where it is to outlive the process.
//!
//! What has to go first is what says least: the oldest of the good runs, and only then the oldest of all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};

use crate::journey::Name;
use crate::journey::token::Token;
use crate::store::StoreError;
use crate::store::sqlite::{failure, restrict};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many observations.
    pub rows: usize,
    /// So many bytes of what was seen.
    pub bytes: usize,
}

/// What a daemon keeps of an outage of its store, unless a test wants less: some hours of a thousand journeys a minute.
pub const LIMITS: Limits = Limits { rows: 100_000, bytes: 128 << 20 };

/// Something seen, for whoever decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsaid {
    /// Whose run.
    pub journey: Name,
    /// The run, if it has ended with this.
    pub ended: Option<Token>,
    /// What was seen.
    pub document: String,
    /// Whether nothing was wrong.
    pub is_good: bool,
}

/// What is unsaid, in order. Pure: what is on disk follows it.
#[derive(Debug)]
pub struct Queue {
    rows: BTreeMap<i64, Unsaid>,
    good: BTreeSet<i64>,
    bytes: usize,
    next: i64,
    limits: Limits,
}

impl Queue {
    /// Nothing is unsaid.
    pub fn new(limits: Limits) -> Queue {
        Queue { rows: BTreeMap::new(), good: BTreeSet::new(), bytes: 0, next: 0, limits }
    }

    /// All that was in it; it goes on with numbers that nobody has had.
    fn take(&mut self) -> Queue {
        let after = Queue { next: self.next, ..Queue::new(self.limits) };
        std::mem::replace(self, after)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether all is said.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes one more; gives its number, and the numbers of those that have to go for it.
    pub fn push(&mut self, unsaid: Unsaid) -> (i64, Vec<i64>) {
        let number = self.next;
        self.insert(number, unsaid);
        let mut gone = Vec::new();
        while self.rows.len() > self.limits.rows || self.bytes > self.limits.bytes && self.rows.len() > 1 {
            let first = self.good.first().or_else(|| self.rows.keys().next()).copied();
            let Some(first) = first else { break };
            self.remove(first);
            gone.push(first);
        }
        (number, gone)
    }

    fn insert(&mut self, number: i64, unsaid: Unsaid) {
        self.next = self.next.max(number + 1);
        self.bytes += unsaid.document.len();
        if unsaid.is_good {
            self.good.insert(number);
        }
        self.rows.insert(number, unsaid);
    }

    /// It is said, or no news any more.
    pub fn remove(&mut self, number: i64) {
        if let Some(unsaid) = self.rows.remove(&number) {
            self.bytes -= unsaid.document.len();
            self.good.remove(&number);
        }
    }

    /// Has something else in the place of one that is there.
    pub fn replace(&mut self, number: i64, unsaid: Unsaid) {
        self.remove(number);
        self.insert(number, unsaid);
    }

    /// All of it, the first first, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Unsaid)> {
        self.rows.iter().map(|(number, unsaid)| (*number, unsaid))
    }
}

/// The file in which it outlives the process. All copies are one.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Connection>>);

impl Disk {
    /// Opens it, making it if there is none; gives what is in it, in order.
    ///
    /// # Errors
    /// The disk says no, or the file is none of ours.
    pub fn open(path: &Path, limits: Limits) -> Result<(Disk, Queue), StoreError> {
        let connection = Connection::open(path).map_err(failure)?;
        restrict(path);
        // What a crash of the machine takes of the last moment is no more than that; a killed process loses nothing.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failure)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failure)?;
        let sql = "CREATE TABLE IF NOT EXISTS unsaid (number INTEGER PRIMARY KEY, journey TEXT NOT NULL, ended TEXT,
            is_good INTEGER NOT NULL, document TEXT NOT NULL) STRICT";
        connection.execute(sql, []).map_err(failure)?;
        let queue = Disk::read(&connection, limits).map_err(failure)?;
        Ok((Disk(Arc::new(Mutex::new(connection))), queue))
    }

    fn read(connection: &Connection, limits: Limits) -> rusqlite::Result<Queue> {
        let mut queue = Queue::new(limits);
        let sql = "SELECT number, journey, ended, is_good, document FROM unsaid ORDER BY number";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (journey, ended): (String, Option<String>) = (row.get(1)?, row.get(2)?);
            let ended = ended.and_then(|ended| serde_json::from_str(&ended).ok());
            let unsaid =
                Unsaid { journey: journey.as_str().into(), ended, is_good: row.get(3)?, document: row.get(4)? };
            queue.insert(row.get(0)?, unsaid);
        }
        Ok(queue)
    }

    /// All that is in it, in order.
    ///
    /// # Errors
    /// The disk says no.
    pub async fn left(&self, limits: Limits) -> Result<Queue, StoreError> {
        self.with(move |connection| Disk::read(connection, limits)).await
    }

    /// Keeps these, and forgets those.
    ///
    /// # Errors
    /// The disk says no: nothing was kept or forgotten.
    pub async fn change(&self, kept: Vec<(i64, Unsaid)>, gone: Vec<i64>) -> Result<(), StoreError> {
        if kept.is_empty() && gone.is_empty() {
            return Ok(());
        }
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for (number, Unsaid { journey, ended, document, is_good }) in kept {
                let ended = ended.and_then(|ended| serde_json::to_string(&ended).ok());
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO unsaid VALUES (?, ?, ?, ?, ?)")?
                    .execute(params![number, &*journey, ended, is_good, document])?;
            }
            for number in gone {
                transaction.prepare_cached("DELETE FROM unsaid WHERE number = ?")?.execute([number])?;
            }
            transaction.commit()
        })
        .await
    }

    /// A number that is after all that are there.
    async fn next(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(number) + 1, 0) FROM unsaid";
        self.with(|connection| connection.query_row(sql, [], |row| row.get(0))).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner)));
        match done.await {
            Ok(done) => done.map_err(failure),
            Err(error) => Err(StoreError::Unwritable(error.to_string())),
        }
    }
}

/// What whoever decides has decided, and the store that is shared did not take, on disk for the process after this
/// one. All copies are one.
#[derive(Clone)]
pub struct Spool {
    disk: Disk,
    queue: Arc<Mutex<Queue>>,
}

impl Spool {
    /// Nothing is in it. What others keep on the disk stays as it is.
    ///
    /// # Errors
    /// The disk says no.
    pub async fn new(disk: Disk, limits: Limits) -> Result<Spool, StoreError> {
        let next = disk.next().await?;
        Ok(Spool { disk, queue: Arc::new(Mutex::new(Queue { next, ..Queue::new(limits) })) })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these too, as far as there is room.
    ///
    /// # Errors
    /// The disk says no: they are in memory alone.
    pub async fn keep(&self, all: impl IntoIterator<Item = Unsaid>) -> Result<(), StoreError> {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for unsaid in all {
            let (number, excess) = self.queue().push(unsaid.clone());
            kept.push((number, unsaid));
            gone.extend(excess);
        }
        self.disk.change(kept, gone).await
    }

    /// The store has all of it.
    ///
    /// # Errors
    /// The disk says no: the next process says again what the store has, which is counted once.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let gone = self.queue().take();
        self.disk.change(Vec::new(), gone.rows.into_keys().collect()).await
    }

    /// All that is in it, for somebody else to say; it stays on this disk until that one removes it.
    pub fn take(&self) -> (Queue, Disk) {
        (self.queue().take(), self.disk.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(document: &str, is_good: bool) -> Unsaid {
        Unsaid { journey: "sms".into(), ended: None, document: document.to_owned(), is_good }
    }

    #[test]
    fn the_oldest_good_run_goes_first_and_then_the_oldest() {
        let mut queue = Queue::new(Limits { rows: 3, bytes: 1_000 });
        for (is_good, gone) in
            [(false, vec![]), (true, vec![]), (true, vec![]), (false, vec![1]), (false, vec![2]), (false, vec![0])]
        {
            assert_eq!(queue.push(seen("x", is_good)).1, gone);
        }
        // A good one that comes when there are bad ones alone is the first to go.
        assert_eq!(queue.push(seen("x", true)), (6, vec![6]));
        assert_eq!(queue.iter().map(|(number, _)| number).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn bytes_are_bounded_too_and_one_that_is_larger_than_all_is_kept_alone() {
        let mut queue = Queue::new(Limits { rows: 100, bytes: 10 });
        queue.push(seen("12345", false));
        queue.push(seen("12345", true));
        assert_eq!(queue.push(seen("1", false)).1, [1]);
        assert_eq!(queue.push(seen("123456789012", false)).1, [0, 2]);
        assert_eq!(queue.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_in_order_and_within_bounds(seen_of in prop::collection::vec((0usize..9, any::<bool>()), 0..60)) {
            let mut queue = Queue::new(Limits { rows: 7, bytes: 30 });
            let mut bad = Vec::new();
            for (size, is_good) in seen_of {
                let (number, gone) = queue.push(seen(&"x".repeat(size), is_good));
                if !is_good {
                    bad.push(number);
                }
                // While a good one is there, no bad one goes.
                let lost_bad = gone.iter().any(|number| bad.contains(number));
                prop_assert!(!lost_bad || queue.iter().all(|(_, unsaid)| !unsaid.is_good));
                prop_assert!(queue.len() <= 7);
                prop_assert!(queue.iter().map(|(_, unsaid)| unsaid.document.len()).sum::<usize>() <= 30);
            }
        }
    }

    #[tokio::test]
    async fn a_killed_process_leaves_it_to_the_next() {
        let directory = tempfile();
        let path = directory.join("unsaid.db");
        let (disk, mut queue) = Disk::open(&path, LIMITS).unwrap();
        let token = Token::from_bits(7);
        for (document, ended) in [("one", None), ("two", Some(token)), ("three", None)] {
            let unsaid = Unsaid { ended, ..seen(document, document == "two") };
            let (number, gone) = queue.push(unsaid.clone());
            disk.change(vec![(number, unsaid)], gone).await.unwrap();
        }
        disk.change(Vec::new(), vec![0]).await.unwrap();
        // Nobody closed the first.
        let (_, mut left) = Disk::open(&path, LIMITS).unwrap();
        let said: Vec<_> =
            left.iter().map(|(number, unsaid)| (number, unsaid.document.clone(), unsaid.ended)).collect();
        assert_eq!(said, [(1, "two".to_owned(), Some(token)), (2, "three".to_owned(), None)]);
        assert_eq!(left.push(seen("four", true)).0, 3);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn what_is_decided_stays_until_the_store_has_it_and_beside_what_others_left() {
        let directory = tempfile();
        let path = directory.join("unsaid.db");
        let left = || Disk::open(&path, LIMITS).unwrap().1;
        let documents = |queue: &Queue| queue.iter().map(|(_, unsaid)| unsaid.document.clone()).collect::<Vec<_>>();
        let (disk, mut before) = Disk::open(&path, LIMITS).unwrap();
        let (number, _) = before.push(seen("of before", false));
        disk.change(vec![(number, seen("of before", false))], Vec::new()).await.unwrap();

        let spool = Spool::new(disk, Limits { rows: 2, bytes: 1_000 }).await.unwrap();
        spool.keep([seen("one", true), seen("two", false)]).await.unwrap();
        spool.clone().keep([seen("three", false)]).await.unwrap();
        assert_eq!(documents(&left()), ["of before", "two", "three"], "bounded, and nobody else's");
        spool.clear().await.unwrap();
        assert_eq!(documents(&left()), ["of before"]);
        spool.keep([seen("four", false)]).await.unwrap();
        let (queue, disk) = spool.take();
        assert_eq!(
            (documents(&queue), documents(&left())),
            (vec!["four".to_owned()], documents_of(&["of before", "four"]))
        );
        spool.keep([seen("five", false)]).await.unwrap();
        disk.change(Vec::new(), queue.iter().map(|(number, _)| number).collect()).await.unwrap();
        assert_eq!(documents(&left()), ["of before", "five"], "no number is given twice");
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn documents_of(documents: &[&str]) -> Vec<String> {
        documents.iter().map(|document| (*document).to_owned()).collect()
    }

    fn tempfile() -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("journeyman-spool-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }
}
