//! Reading a store that another process has: what the command line shows beside a running daemon.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{OpenFlags, OptionalExtension, Transaction, params};

use crate::journey::Name;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::slo::Span;
use crate::store::codes::{blob, millis};
use crate::store::reading::{ToldOf, Wanted};
use crate::store::sqlite::evidence;
use crate::store::sqlite::rows::{from_json, run_row, span};
use crate::store::sqlite::{connect, failure};
use crate::store::{RunRow, StoreError, schema};

/// The spans of these journeys, as they stood at one moment. Those that the store does not know are left out. Nothing is written,
/// and nobody waits. After each journey `seen` is told.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn spans(path: &Path, names: &[Name], seen: &mut dyn FnMut()) -> Result<HashMap<Name, Vec<Span>>, StoreError> {
    at_one_moment(path, |store| {
        let mut found = HashMap::new();
        for name in names {
            let sql = "SELECT start, step, count, verdict, excluded FROM span
                JOIN journey ON journey.id = span.journey WHERE name = ? ORDER BY start";
            let spans: Vec<Span> =
                store.prepare_cached(sql)?.query_map([&**name], span)?.collect::<rusqlite::Result<_>>()?;
            if !spans.is_empty() {
                found.insert(name.clone(), spans);
            }
            seen();
        }
        Ok(found)
    })
}

/// What is kept of this run. Nothing is written, and nobody waits.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn told(path: &Path, token: Token) -> Result<ToldOf, StoreError> {
    at_one_moment(path, |store| {
        let sql = "SELECT notification FROM outbox WHERE json_extract(notification, '$.report.token') = ?
            ORDER BY created, sequence, notifier";
        let notices: Vec<_> = store
            .prepare(sql)?
            .query_map([token.to_string()], |row| from_json(row, 0))?
            .collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT report, journey, slot FROM evidence WHERE token = ?";
        let found: Option<(Report, i64, i64)> = store
            .query_row(sql, [blob(token)], |row| Ok((evidence::report(row, 0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((report, journey, slot)) = found else {
            return Ok(ToldOf { notices, ..ToldOf::default() });
        };
        let sql = "SELECT report FROM evidence WHERE journey = ? AND slot < ? AND is_good ORDER BY slot DESC LIMIT 1";
        let last_good = store.query_row(sql, params![journey, slot], |row| evidence::report(row, 0)).optional()?;
        Ok(ToldOf { notices, report: Some(report), last_good })
    })
}

/// Reads in one transaction, which is one moment.
pub(super) fn at_one_moment<T>(
    path: &Path,
    read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    if !path.exists() {
        return Err(StoreError::Unreadable(format!("{} does not exist", path.display())));
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    schema::check(&connection)?;
    let transaction = connection.transaction().map_err(failure)?;
    read(&transaction).map_err(failure)
}

/// The journey's last good run, if the store has one.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn last_good(path: &Path, name: &str) -> Result<Option<Report>, StoreError> {
    at_one_moment(path, |store| {
        let sql = "SELECT report FROM evidence JOIN journey ON journey.id = evidence.journey
            WHERE name = ? AND is_good ORDER BY slot DESC LIMIT 1";
        store.query_row(sql, [name], |row| evidence::report(row, 0)).optional()
    })
}

/// A journey's runs, newest first; `None` if the store does not know the journey.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn runs(path: &Path, name: &str, wanted: &Wanted) -> Result<Option<Vec<RunRow>>, StoreError> {
    at_one_moment(path, |store| {
        let id: Option<i64> =
            store.query_row("SELECT id FROM journey WHERE name = ?", [name], |row| row.get(0)).optional()?;
        let Some(id) = id else { return Ok(None) };
        let since = wanted.since.map_or(i64::MIN, millis);
        let sql =
            "SELECT (SELECT token FROM evidence WHERE evidence.journey = run.journey AND evidence.slot = run.slot),
                slot, verdict, why, latency, late_by FROM run WHERE journey = ? AND slot >= ? ORDER BY slot DESC";
        let mut statement = store.prepare(sql)?;
        let mut found = Vec::new();
        for row in statement.query_map(params![id, since], run_row)? {
            let row = row?;
            if wanted.verdicts.is_empty() || wanted.verdicts.contains(&row.verdict) {
                found.push(row);
            }
            if found.len() >= wanted.limit {
                break;
            }
        }
        Ok(Some(found))
    })
}
