//! The store on SQLite: one thread writes, one reads, and neither is ever held over an await.
//!
//! The writer takes every batch that waits and commits them together (group commit), in WAL mode with `synchronous=FULL`:
//! what [`Store::apply`] has confirmed survives `kill -9` and a power cut.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, params};
use tokio::sync::{mpsc, oneshot};

use crate::journey::Name;
use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::ledger::{Entry, Settled};
use crate::notifier::Receipt;
use crate::slo::{Span, SpanChange};
use crate::store::{
    Change, Due, IncidentRow, OutboxRow, OutboxState, OutboxStatus, OutboxSummary, Retention, RunRow, SavedJourney,
    Store, StoreError, schema,
};

/// Batches that wait for the writer at most; a caller beyond that waits for its turn.
const QUEUE: usize = 4_096;
/// Batches in one commit at most, so that the first of them does not wait for long.
const GROUP: usize = 512;
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
}

impl Sqlite {
    /// Opens the store at `path`, making it if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// It cannot be written, belongs to a newer version, or is in use.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .map_err(|error| StoreError::Unwritable(format!("cannot make {}: {error}", parent.display())))?;
        }
        let lock = lock(path)?;
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        restrict(path);
        schema::migrate(&mut connection, path)?;
        // An attempt that was under way when the process before us ended may or may not have been taken.
        let leased = "UPDATE outbox SET status = 'ambiguous' WHERE status = 'leased'";
        connection.execute(leased, []).map_err(failure)?;
        let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let (jobs, job_queue) = mpsc::channel(QUEUE);
        let (questions, question_queue) = mpsc::channel(QUEUE);
        let closing = tokio_util::sync::CancellationToken::new();
        let writer = Writer { connection, journeys: HashMap::new(), _lock: lock };
        let threads = vec![
            spawn("store-writer", move || write(writer, job_queue))?,
            spawn("store-reader", move || read(&reader, question_queue))?,
        ];
        Ok(Sqlite { jobs, questions, threads: threads.into(), closing })
    }

    /// Asks the reading connection.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = answer.send(question(connection).map_err(failure));
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

/// One process at a time: two writers would count slots twice.
fn lock(path: &Path) -> Result<File, StoreError> {
    let name = PathBuf::from(format!("{}.lock", path.display()));
    let unwritable = |error: std::io::Error| StoreError::Unwritable(format!("cannot open {}: {error}", name.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(name.display().to_string())),
        Err(std::fs::TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let is_reader = flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failure)?;
    connection.busy_timeout(BUSY).map_err(failure)?;
    connection.set_prepared_statement_cache_capacity(64);
    if !is_reader {
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failure)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failure)?;
    }
    Ok(connection)
}

/// State holds what messages said; nobody else has to read it.
fn restrict(path: &Path) {
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

fn read(connection: &Connection, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.blocking_recv() {
        question(connection);
    }
}

fn write(mut writer: Writer, mut jobs: mpsc::Receiver<Job>) {
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
        writer.commit(&mut group);
    }
    // Leaves one tidy file behind.
    let _ = writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

struct Writer {
    connection: Connection,
    /// Journeys' row ids by name.
    journeys: HashMap<Name, i64>,
    _lock: File,
}

impl Writer {
    /// Commits every batch of the group, or none; answers each caller.
    fn commit(&mut self, group: &mut Vec<(Vec<Change>, Answer<()>)>) {
        if group.is_empty() {
            return;
        }
        let result = self.commit_all(group.iter().flat_map(|(batch, _)| batch)).map_err(failure);
        if let Err(error) = &result {
            // Ids that were given in a transaction that is no more.
            self.journeys.clear();
            tracing::error!(%error, batches = group.len(), "the store did not take a commit");
        }
        for (_, answer) in group.drain(..) {
            let _ = answer.send(result.clone());
        }
    }

    fn commit_all<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let applied = changes.into_iter().try_for_each(|change| self.apply(change));
        match applied.and_then(|()| self.connection.execute_batch("COMMIT")) {
            Ok(()) => Ok(()),
            Err(error) => {
                // SQLite may have rolled back by itself already (disk full); then there is nothing left to undo.
                let _ = self.connection.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    fn execute(&self, sql: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    fn apply(&mut self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Expect { token, entry } => {
                let journey = self.journey_id(&entry.journey)?;
                self.execute(
                    "INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, NULL)",
                    &[&blob(*token), &journey, &millis(entry.slot), &millis(entry.recorded), &millis(entry.keep_until)],
                )?;
            }
            Change::Settle { token, how } => {
                let how = settled_code(*how);
                self.execute("UPDATE ledger SET settled = ? WHERE token = ?", &[&how, &blob(*token)])?;
            }
            Change::Run { report, keep_evidence } => self.apply_run(report, *keep_evidence)?,
            Change::Amend { journey, slot, late_by } => {
                let journey = self.journey_id(journey)?;
                self.execute(
                    "UPDATE run SET verdict = ?, late_by = ? WHERE journey = ? AND slot = ?",
                    &[&verdict_code(Verdict::Late), &micros(*late_by), &journey, &millis(*slot)],
                )?;
            }
            Change::Spans { journey, changes } => {
                let journey = self.journey_id(journey)?;
                for change in changes {
                    match change {
                        SpanChange::Put(span) => self.execute(
                            "INSERT OR REPLACE INTO span VALUES (?, ?, ?, ?, ?)",
                            &[&journey, &span.start, &span.step, &span.count, &verdict_code(span.verdict)],
                        )?,
                        SpanChange::Delete(start) => {
                            self.execute("DELETE FROM span WHERE journey = ? AND start = ?", &[&journey, start])?
                        }
                    };
                }
            }
            Change::Alert { journey, state } => {
                let journey = self.journey_id(journey)?;
                self.execute("UPDATE journey SET alert = ? WHERE id = ?", &[&json(state)?, &journey])?;
            }
            Change::Incident { incident } => {
                let journey = self.journey_id(&incident.journey)?;
                self.execute(
                    // What the first bad run said is what the incident is remembered by.
                    "INSERT INTO incident VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
                        resolved = excluded.resolved, severity = excluded.severity, detectors = excluded.detectors,
                        bad_runs = excluded.bad_runs, summary = CASE summary WHEN '' THEN excluded.summary ELSE summary END",
                    &[
                        &incident.id,
                        &journey,
                        &millis(incident.since),
                        &incident.resolved.map(millis),
                        &incident.severity,
                        &json(&incident.detectors)?,
                        &incident.summary,
                        &incident.bad_runs,
                    ],
                )?;
            }
            Change::Owe { row } => self.apply_owed(row)?,
            Change::Hold { notifier, until } => {
                let key = format!("hold:{notifier}");
                self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", &[&key, &millis(*until)])?;
            }
            Change::Outbox { id, state } => {
                self.execute(
                    "UPDATE outbox SET status = ?, attempt = ?, not_before = ?, error = ?, receipt = ?, at = ? WHERE id = ?",
                    &[
                        &state.status.as_str(),
                        &state.attempt,
                        &millis(state.not_before),
                        &state.error,
                        &state.receipt.as_ref().map(json).transpose()?,
                        &millis(state.at),
                        id,
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn apply_run(&mut self, report: &Report, keep_evidence: bool) -> rusqlite::Result<()> {
        let journey = self.journey_id(&report.journey)?;
        let verdict = report.outcome.verdict();
        self.execute(
            "INSERT OR IGNORE INTO run VALUES (?, ?, ?, ?, ?, NULL)",
            &[
                &journey,
                &millis(report.slot),
                &verdict_code(verdict),
                &why_code(&report.outcome),
                &micros(report.latency),
            ],
        )?;
        if keep_evidence {
            let is_good = verdict == Verdict::Good;
            self.execute(
                "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?, ?)",
                &[&blob(report.token), &journey, &millis(report.slot), &is_good, &json(report)?],
            )?;
        }
        Ok(())
    }

    fn apply_owed(&self, row: &OutboxRow) -> rusqlite::Result<()> {
        // A notice that is owed already, by the same decision before a crash, is not owed twice.
        self.execute(
            "INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &[
                &row.id,
                &row.incident,
                &row.sequence,
                &&*row.notifier,
                &row.instead_of.as_ref().map(json).transpose()?,
                &millis(row.created),
                &json(&row.notification)?,
                &row.state.status.as_str(),
                &row.state.attempt,
                &millis(row.state.not_before),
                &row.state.error,
                &row.state.receipt.as_ref().map(json).transpose()?,
                &millis(row.state.at),
            ],
        )?;
        Ok(())
    }

    fn journey_id(&mut self, name: &Name) -> rusqlite::Result<i64> {
        if let Some(id) = self.journeys.get(name) {
            return Ok(*id);
        }
        self.execute("INSERT OR IGNORE INTO journey (name) VALUES (?)", &[&&**name])?;
        let id = self.connection.query_row("SELECT id FROM journey WHERE name = ?", [&**name], |row| row.get(0))?;
        self.journeys.insert(name.clone(), id);
        Ok(id)
    }

    fn key(&mut self) -> rusqlite::Result<[u8; 32]> {
        let mut fresh = [0u8; 32];
        getrandom::fill(&mut fresh).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.execute("INSERT OR IGNORE INTO meta VALUES ('key', ?)", &[&fresh.as_slice()])?;
        self.connection.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0))
    }

    fn forget(&mut self, retention: Retention) -> rusqlite::Result<u64> {
        let runs = millis(retention.runs_before);
        let transaction = self.connection.transaction()?;
        let mut gone = 0;
        let statements: [(&str, i64); 6] = [
            ("DELETE FROM run WHERE slot < ?", runs),
            ("DELETE FROM evidence WHERE slot < ?", runs),
            ("DELETE FROM evidence WHERE is_good AND slot < ?", millis(retention.good_evidence_before)),
            ("DELETE FROM ledger WHERE keep_until < ?", millis(retention.ledger_before)),
            ("DELETE FROM incident WHERE resolved < ?", runs),
            ("DELETE FROM outbox WHERE status = 'sent' AND created < ?", runs),
        ];
        for (sql, before) in statements {
            gone += transaction.execute(sql, [before])? as u64;
        }
        transaction.commit()?;
        Ok(gone)
    }
}

impl Store for Sqlite {
    fn apply(&self, batch: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.closing.is_cancelled() {
                return Err(StoreError::Closed);
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
        Box::pin(self.ask(move |connection| {
            let found: Option<(i64, Option<String>)> = connection
                .query_row("SELECT id, alert FROM journey WHERE name = ?", [&*name], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((id, alert)) = found else { return Ok(SavedJourney::default()) };
            let sql = "SELECT start, step, count, verdict FROM span WHERE journey = ? ORDER BY start";
            let spans = connection.prepare_cached(sql)?.query_map([id], span)?.collect::<Result<_, _>>()?;
            let sql = "SELECT report FROM evidence WHERE journey = ? AND is_good ORDER BY slot DESC LIMIT 1";
            let last_good = connection.query_row(sql, [id], |row| from_json(row, 0)).optional()?;
            let alert = alert.map(|text| parse(&text)).transpose()?.unwrap_or_default();
            Ok(SavedJourney { spans, alert, last_good })
        }))
    }

    fn ledger(&self) -> BoxFuture<'_, Result<Vec<(Token, Entry)>, StoreError>> {
        Box::pin(self.ask(|connection| {
            let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger JOIN journey ON journey.id = journey";
            connection.prepare_cached(sql)?.query_map([], ledger_entry)?.collect()
        }))
    }

    fn next_due(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<Due, StoreError>> {
        Box::pin(self.ask(move |connection| {
            // Only the oldest open row of an incident may go: what people are told about it stays in order.
            let sql = "SELECT * FROM outbox AS this WHERE notifier = ?1 AND status IN ('pending', 'leased', 'ambiguous')
                AND NOT EXISTS (SELECT 1 FROM outbox AS other WHERE other.notifier = ?1 AND other.incident = this.incident
                    AND other.status IN ('pending', 'leased', 'ambiguous') AND other.sequence < this.sequence)
                ORDER BY max(not_before, ?2), created, id LIMIT 1";
            let mut statement = connection.prepare_cached(sql)?;
            let row = statement.query_row(params![&*notifier, millis(now)], outbox_row).optional()?;
            Ok(match row {
                None => Due::Nothing,
                Some(row) if row.state.not_before <= now => Due::Row(Box::new(row)),
                Some(row) => Due::At(row.state.not_before),
            })
        }))
    }

    fn root_receipt(&self, incident: String, notifier: Name) -> BoxFuture<'_, Result<Option<Receipt>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT receipt FROM outbox WHERE incident = ? AND notifier = ? AND status = 'sent' AND receipt NOT NULL
                ORDER BY sequence LIMIT 1";
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

    fn outbox(&self, status: Option<OutboxStatus>, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT * FROM outbox WHERE ?1 IS NULL OR status = ?1 ORDER BY created DESC, id DESC LIMIT ?2";
            let status = status.map(OutboxStatus::as_str);
            connection.prepare_cached(sql)?.query_map(params![status, limit as i64], outbox_row)?.collect()
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

    fn runs(&self, journey: Name, limit: usize) -> BoxFuture<'_, Result<Vec<RunRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT token, run.slot, verdict, why, latency, late_by FROM run
                JOIN journey ON journey.id = run.journey
                LEFT JOIN evidence ON evidence.journey = run.journey AND evidence.slot = run.slot
                WHERE name = ? ORDER BY run.slot DESC LIMIT ?";
            connection.prepare_cached(sql)?.query_map(params![&*journey, limit as i64], run_row)?.collect()
        }))
    }

    fn report(&self, token: Token) -> BoxFuture<'_, Result<Option<Report>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT report FROM evidence WHERE token = ?";
            connection.prepare_cached(sql)?.query_row([blob(token)], |row| from_json(row, 0)).optional()
        }))
    }

    fn incidents(&self, journey: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<IncidentRow>, StoreError>> {
        Box::pin(self.ask(move |connection| {
            let sql = "SELECT incident.id, name, since, resolved, severity, detectors, summary, bad_runs FROM incident
                JOIN journey ON journey.id = journey WHERE ?1 IS NULL OR name = ?1 ORDER BY since DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(params![journey.as_deref(), limit as i64], incident_row)?.collect()
        }))
    }

    fn forget(&self, retention: Retention) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.change(move |writer| writer.forget(retention).map_err(failure)))
    }

    fn revive(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.change(move |writer| {
            let sql = "UPDATE outbox SET status = 'pending', attempt = 0, not_before = ?, at = ? WHERE notifier = ? AND status = 'dead'";
            let revived = writer.execute(sql, &[&millis(now), &millis(now), &&*notifier]);
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

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn blob(token: Token) -> [u8; 16] {
    token.bits().to_be_bytes()
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?)
}

/// A verdict's code in the store. Append only.
fn verdict_code(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Good => 0,
        Verdict::Slow => 1,
        Verdict::Failed => 2,
        Verdict::Late => 3,
        Verdict::Unknown => 4,
        Verdict::Excluded => 5,
    }
}

fn verdict(code: i64) -> rusqlite::Result<Verdict> {
    let found = Verdict::ALL.iter().copied().find(|verdict| verdict_code(*verdict) == code);
    found.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, code))
}

/// Why an outcome is what it is, in the store. Append only; zero is no reason.
fn why_code(outcome: &Outcome) -> i64 {
    let place = WHYS.iter().position(|why| *why == outcome.label());
    place.map_or(0, |place| place as i64)
}

const WHYS: &[&str] = &[
    "",
    "unreachable",
    "tls",
    "auth",
    "refused",
    "rejected",
    "throttled",
    "unroutable",
    "uncertain",
    "not_received",
    "mismatch",
    "duplicate",
    "reordered",
    "altered",
    "misrouted",
    "backlog",
    "exec",
    "blocked",
    "not_ready",
    "storage",
    "shutdown",
    "missed",
    "skipped",
    "unavailable",
    "internal",
    "maintenance",
    "paused",
];

fn settled_code(how: Settled) -> i64 {
    match how {
        Settled::Arrived => 1,
        Settled::Missing => 2,
    }
}

fn span(row: &Row<'_>) -> rusqlite::Result<Span> {
    Ok(Span { start: row.get(0)?, step: row.get(1)?, count: row.get(2)?, verdict: verdict(row.get(3)?)? })
}

fn ledger_entry(row: &Row<'_>) -> rusqlite::Result<(Token, Entry)> {
    let entry = Entry {
        journey: row.get::<_, String>(1)?.into(),
        slot: time(row.get(2)?),
        recorded: time(row.get(3)?),
        keep_until: time(row.get(4)?),
        settled: row.get::<_, Option<i64>>(5)?.map(|code| if code == 1 { Settled::Arrived } else { Settled::Missing }),
    };
    Ok((Token::from_bits(u128::from_be_bytes(row.get(0)?)), entry))
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let token: Option<[u8; 16]> = row.get(0)?;
    let why: usize = row.get::<_, i64>(3)?.try_into().unwrap_or(0);
    Ok(RunRow {
        token: token.map(|bytes| Token::from_bits(u128::from_be_bytes(bytes))),
        slot: time(row.get(1)?),
        verdict: verdict(row.get(2)?)?,
        why: WHYS.get(why).copied().unwrap_or("").to_owned(),
        latency: Duration::from_micros(row.get::<_, i64>(4)?.max(0) as u64),
        late_by: row.get::<_, Option<i64>>(5)?.map(|micros| Duration::from_micros(micros.max(0) as u64)),
    })
}

fn incident_row(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: row.get(0)?,
        journey: row.get::<_, String>(1)?.into(),
        since: time(row.get(2)?),
        resolved: row.get::<_, Option<i64>>(3)?.map(time),
        severity: row.get(4)?,
        detectors: from_json(row, 5)?,
        summary: row.get(6)?,
        bad_runs: row.get(7)?,
    })
}

fn outbox_row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let status: String = row.get("status")?;
    Ok(OutboxRow {
        id: row.get("id")?,
        incident: row.get("incident")?,
        sequence: row.get("sequence")?,
        notifier: row.get::<_, String>("notifier")?.into(),
        instead_of: text("instead_of")?.map(|text| parse(&text)).transpose()?,
        created: time(row.get("created")?),
        notification: parse(&row.get::<_, String>("notification")?)?,
        state: OutboxState {
            status: status.parse().map_err(|error: String| rusqlite::Error::InvalidParameterName(error))?,
            attempt: row.get("attempt")?,
            not_before: time(row.get("not_before")?),
            error: text("error")?,
            receipt: text("receipt")?.map(|text| parse(&text)).transpose()?,
            at: time(row.get("at")?),
        },
    })
}

// Every cause and reason must have a place in WHYS, or it would be forgotten.
const _: () = assert!(WHYS.len() == 1 + Cause::ALL.len() + UnknownWhy::ALL.len() + ExcludedWhy::ALL.len());

#[cfg(test)]
mod tests;
