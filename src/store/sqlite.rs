//! The store on SQLite: one thread writes, one reads, and neither is ever held over an await.
//!
//! The writer takes every batch that waits and commits them together (group commit), in WAL mode with `synchronous=FULL`:
//! what [`Store::apply`] has confirmed survives `kill -9` and a power cut.
//! A store that is damaged all the same is mended when it is opened, and says what it has lost.

mod evidence;
mod lock;
pub mod past;
mod rescue;
mod rows;
pub mod snapshot;
pub mod story;
mod wal;
mod writer;

/// For the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    pub(crate) use super::rescue::fuzz as file;
    pub(crate) use super::rows::fuzz as rows;
}

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use tokio::sync::{mpsc, oneshot};

use crate::alert::{AlertState, Subject};
use crate::boots::Boot;
use crate::breaker::{Guarded, Order};
use crate::control::Silence;
use crate::detect::drift::Ran;
use crate::drill::Record;
use crate::incident::Incident;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::spend::Spent;
use crate::journey::token::Token;
use crate::ledger::Entry;
use crate::notifier::Receipt;
use crate::slo::Counts;
use crate::store::codes::{blob, millis, time, verdict_code};
use crate::store::sqlite::lock::{Left, Lock};
use crate::store::sqlite::rows::{
    arrival, boot, from_json, incident_row, ledger_entry, order, outbox_row, parse, ran, run_row, span, spent, verdict,
};
use crate::store::sqlite::writer::Writer;
use crate::store::{
    CROWD, Change, Day, Due, IncidentRow, OutboxRow, OutboxStatus, OutboxSummary, Retention, RunRow, SavedJourney,
    Store, StoreError, schema,
};

/// Batches that wait for the writer at most; a caller beyond that waits for its turn.
const QUEUE: usize = 4_096;
/// Batches in one commit at most, so that the first of them does not wait for long.
const GROUP: usize = 512;
/// The writer of a daemon rests this long after a commit: what comes meanwhile is committed together. One that comes alone never
/// waits, and no message is sent later than this because of it; a commit costs as much CPU as a run through memory does.
pub const REST: Duration = Duration::from_millis(10);
/// How long a statement waits for the other connection's lock.
const BUSY: Duration = Duration::from_secs(5);

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;
type Question = Box<dyn FnOnce(&Connection) + Send>;

enum Job {
    Apply(Vec<Change>, Answer<()>),
    Do(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// The SQLite store.
pub struct Sqlite {
    jobs: mpsc::Sender<Job>,
    questions: mpsc::Sender<Question>,
    threads: std::sync::Mutex<Vec<JoinHandle<()>>>,
    closing: tokio_util::sync::CancellationToken,
    lock: Arc<Lock>,
    /// How often the outbox has changed.
    outbox: Arc<AtomicU64>,
    mended: Option<String>,
}

impl Sqlite {
    /// Opens the store at `path`, making it if there is none, and brings its schema up to date. One of ours that cannot be read
    /// is set aside, and what can be read of it is taken over.
    ///
    /// # Errors
    /// It cannot be written, belongs to a newer version, is in use, or is none of ours.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        Sqlite::open_resting(path, Duration::ZERO)
    }

    /// As [`Sqlite::open`], with a writer that rests so long after each commit, unless somebody is owed a notice by it, or it was
    /// a large one.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn open_resting(path: &Path, rest: Duration) -> Result<Sqlite, StoreError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .map_err(|error| StoreError::Unwritable(format!("cannot make {}: {error}", parent.display())))?;
        }
        let lock = Arc::new(Lock::take(path)?);
        rescue::resume(path)?;
        let log = look_at_log(path, lock.found);
        let (connection, mended) = match ready(path, lock.found) {
            // Whoever gave the path of something else has not lost it.
            Err(StoreError::Unreadable(why)) if lock.found != Left::Never => {
                let mended = rescue::rescue(path, &why)?;
                (ready(path, Left::Closed)?, Some(mended))
            }
            ready => (ready?, log),
        };
        if let Some(mended) = &mended {
            tracing::error!(store = %path.display(), "{mended}");
        }
        let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        lock.leave(Left::Open);
        let (jobs, job_queue) = mpsc::channel(QUEUE);
        let (questions, question_queue) = mpsc::channel(QUEUE);
        let closing = tokio_util::sync::CancellationToken::new();
        let outbox = Arc::<AtomicU64>::default();
        let writer = Writer { connection, journeys: HashMap::new(), lock: lock.clone(), outbox: outbox.clone() };
        let log = log_of(path);
        let threads = vec![
            spawn("store-writer", move || write(writer, job_queue, rest, &log))?,
            spawn("store-reader", move || read(&reader, question_queue))?,
        ];
        Ok(Sqlite { jobs, questions, threads: threads.into(), closing, lock, outbox, mended })
    }

    /// Asks the reading connection.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let lock = self.lock.clone();
        let question: Question = Box::new(move |connection| {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = answer.send(question(connection).map_err(|error| noted(&lock, error)));
        });
        self.questions.send(question).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Has the writing connection do something in a transaction of its own.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Do(Box::new(move |writer| {
            let _ = answer.send(change(writer));
        }));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(|error| StoreError::Unwritable(format!("cannot start a thread: {error}")))
}

/// A connection to a store that this build can work with.
fn ready(path: &Path, found: Left) -> Result<Connection, StoreError> {
    if found == Left::Damaged {
        return Err(StoreError::Unreadable("a part of it could not be read when it was last used".to_owned()));
    }
    // SQLite takes it for a new one, and throws its log away.
    if found != Left::Never && path.metadata().is_ok_and(|file| file.len() == 0) {
        return Err(StoreError::Unreadable("it is empty, and was not".to_owned()));
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    restrict(path);
    schema::migrate(&mut connection, path)?;
    rescue::check(&connection)?;
    // An attempt that was under way when the process before us ended may or may not have been taken.
    let leased = "UPDATE outbox SET status = 'ambiguous' WHERE status = 'leased'";
    connection.execute(leased, []).map_err(failure)?;
    Ok(connection)
}

fn log_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

/// What is lost of the write-ahead log, in words. SQLite goes on without it, and says nothing.
fn look_at_log(path: &Path, found: Left) -> Option<String> {
    let log = std::fs::read(log_of(path));
    if found == Left::Open && path.exists() && log.is_err() {
        // No alert: whoever has opened it with another tool has written the log into the store by that.
        tracing::warn!(
            store = %path.display(),
            "the store was not closed, and has no write-ahead log: if that was lost, so is what was stored last"
        );
    }
    let log = wal::read(&log.ok()?);
    (log.lost > 0).then(|| {
        format!(
            "the store's write-ahead log is damaged after {} commits: up to {} behind that are lost",
            log.commits, log.lost
        )
    })
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let is_reader = flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failure)?;
    connection.busy_timeout(BUSY).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without this, SQLite plans a statement anew for every value of a `LIMIT ?`: a sixth of all that the store does.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failure)?;
    if !is_reader {
        let mode =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).map_err(failure)?;
        // SQLite goes on without a log where it cannot have one; the reader would then wait for the writer.
        if mode != "wal" {
            return Err(StoreError::Unwritable(format!("it takes no write-ahead log, only {mode}")));
        }
        connection.pragma_update(None, "synchronous", "FULL").map_err(failure)?;
    }
    Ok(connection)
}

/// State holds what messages said; nobody else has to read it.
pub(super) fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "cannot make the store private");
    }
}

/// An SQLite error, by what to do about it.
pub(super) fn failure(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Unreadable(error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(error.to_string()),
        Some(_) => StoreError::Unwritable(error.to_string()),
        None => StoreError::Unreadable(error.to_string()),
    }
}

/// What another version wrote down of a run that was under way may mean nothing to us: its slot is unknown then, and no more.
fn readable<T>(row: rusqlite::Result<T>) -> Option<T> {
    row.inspect_err(|error| tracing::warn!(%error, "what another version left of a run cannot be read")).ok()
}

/// The next start looks closer at a store of which a part cannot be read.
fn noted(lock: &Lock, error: rusqlite::Error) -> StoreError {
    if matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) {
        lock.leave(Left::Damaged);
    }
    failure(error)
}

fn read(connection: &Connection, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.blocking_recv() {
        question(connection);
    }
}

fn write(mut writer: Writer, mut jobs: mpsc::Receiver<Job>, rest: Duration, log: &Path) {
    let mut group: Vec<(Vec<Change>, Answer<()>)> = Vec::new();
    while let Some(first) = jobs.blocking_recv() {
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Apply(batch, answer) => group.push((batch, answer)),
                Job::Do(work) => {
                    writer.commit(&mut group);
                    work(&mut writer);
                }
            }
            next = if group.len() < GROUP { jobs.try_recv().ok() } else { None };
        }
        let is_urgent = group.iter().any(|(batch, _)| batch.iter().any(Change::is_of_outbox));
        let changes: usize = group.iter().map(|(batch, _)| batch.len()).sum();
        writer.commit(&mut group);
        if !is_urgent && changes < CROWD {
            std::thread::sleep(rest);
        }
    }
    // Leaves one tidy file behind.
    let is_tidy = writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").is_ok();
    let Writer { connection, lock, .. } = writer;
    drop(connection);
    if is_tidy || !log.exists() {
        lock.leave(Left::Closed);
    }
}

impl Store for Sqlite {
    fn mended(&self) -> Option<&str> {
        self.mended.as_deref()
    }

    fn apply(&self, batch: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.closing.is_cancelled() {
                return Err(StoreError::Closed);
            }
            if batch.iter().any(Change::is_shared) {
                return Err(StoreError::Unshared);
            }
            let (answer, answered) = oneshot::channel();
            self.jobs.send(Job::Apply(batch, answer)).await.map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)?
        })
    }

    fn key(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        Box::pin(self.change(|writer| writer.key().map_err(failure)))
    }

    fn journey(&self, name: Name) -> BoxFuture<'_, Result<SavedJourney, StoreError>> {
        Box::pin(async move {
            let saved = self.ask(move |connection| {
                let mut found = connection.prepare_cached("SELECT id, alert FROM journey WHERE name = ?")?;
                let found = found.query_row([&*name], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)));
                let found: Option<(i64, Option<String>)> = found.optional()?;
                let Some((id, alert)) = found else { return Ok(None) };
                let sql = "SELECT start, step, count, verdict, excluded FROM span WHERE journey = ? ORDER BY start";
                let spans = connection.prepare_cached(sql)?.query_map([id], span)?.collect::<Result<_, _>>()?;
                let alerts = alert.map(|text| parse(&text)).transpose()?.unwrap_or_default();
                Ok(Some((id, spans, alerts)))
            });
            let Some((id, spans, alerts)) = saved.await? else { return Ok(SavedJourney::default()) };
            let last_good = self.ask(move |connection| {
                let sql = "SELECT report FROM evidence WHERE journey = ? AND is_good ORDER BY slot DESC LIMIT 1";
                connection.prepare_cached(sql)?.query_row([id], |row| evidence::report(row, 0)).optional()
            });
            // It is shown beside what fails; without it, nothing is.
            let last_good = last_good.await.ok().flatten();
            Ok(SavedJourney { spans, alerts, last_good })
        })
    }

    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Subject, AlertState)>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let mut statement = connection.prepare_cached("SELECT subject, state FROM condition")?;
            let condition = |row: &Row<'_>| Ok((Subject::from(&*row.get::<_, String>(0)?), from_json(row, 1)?));
            statement.query_map([], condition)?.collect()
        }))
    }

    fn open_incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT state FROM incident WHERE resolved IS NULL AND state NOT NULL ORDER BY since, id";
            connection.prepare_cached(sql)?.query_map([], |row| from_json(row, 0))?.collect()
        }))
    }

    fn silences(&self) -> BoxFuture<'_, Result<Vec<Silence>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT state FROM silence ORDER BY until, id";
            connection.prepare_cached(sql)?.query_map([], |row| from_json(row, 0))?.collect()
        }))
    }

    fn ledger(&self) -> BoxFuture<'_, Result<Vec<(Token, Entry)>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger JOIN journey ON journey.id = journey";
            connection.prepare_cached(sql)?.query_map([], ledger_entry)?.collect()
        }))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Checkpoint>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT state FROM unfinished ORDER BY slot, token";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok(readable(from_json(row, 0))))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        }))
    }

    fn arrivals(&self) -> BoxFuture<'_, Result<Vec<Arrival>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT message FROM arrival ORDER BY id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok(readable(arrival(row))))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        }))
    }

    fn boots(&self) -> BoxFuture<'_, Result<Vec<Boot>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT id, started, alive, ended FROM boot ORDER BY id DESC";
            connection.prepare_cached(sql)?.query_map([], boot)?.collect()
        }))
    }

    fn spent(&self) -> BoxFuture<'_, Result<Vec<Spent>, StoreError>> {
        Box::pin(self.ask(|connection| {
            // `;` comes after `:`.
            let sql = "SELECT key, value FROM meta WHERE key >= 'spent:' AND key < 'spent;'";
            let rows = connection.prepare_cached(sql)?.query_map([], spent)?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows.into_iter().flatten().collect())
        }))
    }

    fn next_due(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<Due, StoreError>> {
        Box::pin(self.ask(move |connection| {
            // Only the oldest open row of an incident may go: what people are told about it stays in order.
            // The index has all that it is chosen by; the notices that it is chosen from may be thousands.
            let sql = "SELECT * FROM outbox WHERE id = (SELECT id FROM outbox AS this
                WHERE notifier = ?1 AND status IN ('pending', 'leased', 'ambiguous')
                AND NOT EXISTS (SELECT 1 FROM outbox AS other WHERE other.notifier = ?1 AND other.incident = this.incident
                    AND other.status IN ('pending', 'leased', 'ambiguous') AND other.sequence < this.sequence)
                ORDER BY max(not_before, ?2), created, id LIMIT 1)";
            let mut statement = connection.prepare_cached(sql)?;
            let row = statement.query_row(params![&*notifier, millis(now)], outbox_row).optional()?;
            Ok(Due::of(row, now))
        }))
    }

    fn undelivered(
        &self,
        notifier: Name,
        incident: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT * FROM outbox WHERE notifier = ?1
                AND status IN ('pending', 'leased', 'ambiguous', CASE WHEN ?2 IS NULL THEN 'pending' ELSE 'dead' END)
                AND (?2 IS NULL OR incident = ?2) ORDER BY CASE WHEN ?2 IS NULL THEN created END, sequence, id";
            connection.prepare_cached(sql)?.query_map(params![&*notifier, incident], outbox_row)?.collect()
        }))
    }

    fn outbox_edition(&self) -> Option<u64> {
        Some(self.outbox.load(Ordering::Acquire))
    }

    fn root_receipt(&self, incident: String, notifier: Name) -> BoxFuture<'_, Result<Option<Receipt>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT receipt FROM outbox WHERE incident = ? AND notifier = ? AND status = 'sent' AND receipt NOT NULL
                ORDER BY coalesce(json_extract(receipt, '$.is_root'), 0) DESC,
                    sequence * CASE WHEN json_extract(receipt, '$.is_root') THEN -1 ELSE 1 END LIMIT 1";
            connection.prepare_cached(sql)?.query_row([&incident, &*notifier], |row| from_json(row, 0)).optional()
        }))
    }

    fn hold(&self, notifier: Name) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT value FROM meta WHERE key = ?";
            let until = connection.query_row(sql, [format!("hold:{notifier}")], |row| row.get(0)).optional()?;
            Ok(until.map(time))
        }))
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(Guarded, Order)>, StoreError>> {
        Box::pin(self.ask(|connection| {
            // `;` comes after `:`.
            let sql = "SELECT key, value FROM meta WHERE key >= 'order:' AND key < 'order;'";
            let rows = connection.prepare_cached(sql)?.query_map([], order)?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows.into_iter().flatten().collect())
        }))
    }

    fn outbox(
        &self,
        status: Option<OutboxStatus>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            // Notices of one decision have one time: the id goes on where that ends.
            let sql = "SELECT * FROM outbox WHERE (?1 IS NULL OR status = ?1)
                AND (?3 IS NULL OR (created, id) < (SELECT created, id FROM outbox WHERE id = ?3))
                ORDER BY created DESC, id DESC LIMIT ?2";
            let status = status.map(OutboxStatus::as_str);
            connection.prepare_cached(sql)?.query_map(params![status, limit as i64, after], outbox_row)?.collect()
        }))
    }

    fn outbox_summary(&self) -> BoxFuture<'_, Result<Vec<OutboxSummary>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT notifier, sum(status IN ('pending', 'leased', 'ambiguous')), sum(status = 'dead'),
                min(CASE WHEN status IN ('pending', 'leased', 'ambiguous') THEN created END) FROM outbox GROUP BY notifier";
            let summary = |row: &Row<'_>| {
                Ok(OutboxSummary {
                    notifier: row.get::<_, String>(0)?.into(),
                    pending: row.get::<_, i64>(1)?.unsigned_abs(),
                    dead: row.get::<_, i64>(2)?.unsigned_abs(),
                    oldest: row.get::<_, Option<i64>>(3)?.map(time),
                })
            };
            connection.prepare_cached(sql)?.query_map([], summary)?.collect()
        }))
    }

    fn runs(
        &self,
        journey: Name,
        before: Option<Timestamp>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RunRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT token, run.slot, verdict, why, latency, late_by FROM run
                JOIN journey ON journey.id = run.journey
                LEFT JOIN evidence ON evidence.journey = run.journey AND evidence.slot = run.slot
                WHERE name = ? AND run.slot < ? ORDER BY run.slot DESC LIMIT ?";
            let before = before.map_or(i64::MAX, millis);
            connection.prepare_cached(sql)?.query_map(params![&*journey, before, limit as i64], run_row)?.collect()
        }))
    }

    fn latencies(
        &self,
        journey: Name,
        windows: Vec<(Timestamp, Timestamp)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Vec<Ran>>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT slot, verdict, latency FROM run
                WHERE journey = (SELECT id FROM journey WHERE name = ?) AND slot > ? AND slot <= ? AND verdict NOT IN (?, ?)
                ORDER BY slot DESC LIMIT ?";
            let [unknown, excluded] = [Verdict::Unknown, Verdict::Excluded].map(verdict_code);
            let mut statement = connection.prepare_cached(sql)?;
            let mut runs_in = |(from, until): (Timestamp, Timestamp)| {
                let parameters = params![&*journey, millis(from), millis(until), unknown, excluded, limit as i64];
                statement.query_map(parameters, ran)?.collect()
            };
            windows.into_iter().map(&mut runs_in).collect()
        }))
    }

    fn days(&self, journey: Name, from: Timestamp, until: Timestamp) -> BoxFuture<'_, Result<Vec<Day>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT slot / 86400000 AS day, verdict, count(*) FROM run
                WHERE journey = (SELECT id FROM journey WHERE name = ?) AND slot >= ? AND slot < ? GROUP BY day, verdict ORDER BY day";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![&*journey, millis(from), millis(until)])?;
            let mut days: Vec<Day> = Vec::new();
            while let Some(row) = rows.next()? {
                let start = time(row.get::<_, i64>(0)? * 86_400_000);
                if days.last().is_none_or(|day| day.start != start) {
                    days.push(Day { start, counts: Counts::default() });
                }
                if let Some(day) = days.last_mut() {
                    day.counts.add(verdict(row.get(1)?)?, row.get::<_, i64>(2)?.unsigned_abs());
                }
            }
            Ok(days)
        }))
    }

    fn report(&self, token: Token) -> BoxFuture<'_, Result<Option<Report>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT report FROM evidence WHERE token = ?";
            connection.prepare_cached(sql)?.query_row([blob(token)], |row| evidence::report(row, 0)).optional()
        }))
    }

    fn incidents(
        &self,
        journey: Option<Name>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IncidentRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT id, subject, since, resolved, severity, detectors, summary, bad_runs, members FROM incident
                WHERE (?1 IS NULL OR id IN (SELECT incident FROM incident_journey JOIN journey ON journey.id = journey WHERE name = ?1))
                AND (?3 IS NULL OR (since, id) < (SELECT since, id FROM incident WHERE id = ?3))
                ORDER BY since DESC, id DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(params![journey.as_deref(), limit as i64, after], incident_row)?.collect()
        }))
    }

    fn incident(&self, id: String) -> BoxFuture<'_, Result<Option<IncidentRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql =
                "SELECT id, subject, since, resolved, severity, detectors, summary, bad_runs, members FROM incident
                WHERE id = ?";
            connection.prepare_cached(sql)?.query_row([id], incident_row).optional()
        }))
    }

    fn drills(&self, journey: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql =
                "SELECT state FROM drill WHERE ?1 IS NULL OR journey = ?1 ORDER BY started DESC, id DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(params![journey.as_deref(), limit as i64], |row| from_json(row, 0))?.collect()
        }))
    }

    fn drill(&self, id: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT state FROM drill WHERE id = ?";
            connection.prepare_cached(sql)?.query_row([id], |row| from_json(row, 0)).optional()
        }))
    }

    fn notices(&self, incident: String, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            // A delivery id begins with its incident and a dot, and the slash is the next letter: the key is searched, not the table.
            let sql = "SELECT * FROM outbox WHERE id > ?1 || '.' AND id < ?1 || '/' AND incident = ?1
                ORDER BY created DESC, sequence DESC, id DESC LIMIT ?2";
            connection.prepare_cached(sql)?.query_map(params![incident, limit as i64], outbox_row)?.collect()
        }))
    }

    fn forget(&self, retention: Retention) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.change(move |writer| {
            let gone = writer.forget(retention);
            gone.map_err(|error| noted(&writer.lock, error))
        }))
    }

    fn revive(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.change(move |writer| {
            let sql = "UPDATE outbox AS this SET status = 'superseded', error = 'told by ' || other.id
                FROM outbox AS other WHERE this.notifier = ?1 AND this.status = 'dead' AND other.notifier = ?1
                AND other.incident = this.incident AND other.status = 'sent' AND other.sequence > this.sequence";
            writer.execute(sql, &[&&*notifier]).map_err(failure)?;
            let sql = "UPDATE outbox SET status = 'pending', attempt = 0, not_before = ?, at = ? WHERE notifier = ? AND status = 'dead'";
            let revived = writer.execute(sql, &[&millis(now), &millis(now), &&*notifier]);
            writer.note_outbox();
            revived.map(|rows| rows as u64).map_err(failure)
        }))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.closing.cancel();
            self.change(|writer| writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failure))
                .await
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // Both threads end when their queues do; waiting here keeps the lock until the file is at rest.
        let (jobs, _) = mpsc::channel(1);
        let (questions, _) = mpsc::channel(1);
        self.jobs = jobs;
        self.questions = questions;
        let threads = self.threads.get_mut().map(std::mem::take).unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
