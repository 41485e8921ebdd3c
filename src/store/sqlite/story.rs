//! Reads the story of one run, at one moment, beside whoever has the store.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::journey::Name;
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::token::Token;
use crate::store::codes::{blob, millis, time};
use crate::store::sqlite::evidence;
use crate::store::sqlite::rows::{boot, from_json, incident_row, ledger_entry, outbox_row, run_row};
use crate::store::sqlite::snapshot::at_one_moment;
use crate::store::story::{INCIDENTS, Left, NOTICES, Story};
use crate::store::{IncidentRow, OutboxRow, StoreError};

/// What the store has of this run; `None` if it never heard of it, or has forgotten it. Nothing is written, and nobody waits.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn story(path: &Path, token: Token) -> Result<Option<Story>, StoreError> {
    at_one_moment(path, |store| {
        let Some((journey, slot, left)) = left(store, token)? else { return Ok(None) };
        let id: Option<i64> =
            store.query_row("SELECT id FROM journey WHERE name = ?", [&*journey], |row| row.get(0)).optional()?;
        let sql = "SELECT NULL, slot, verdict, why, latency, late_by FROM run WHERE journey = ? AND slot = ?";
        let row = store.query_row(sql, params![id, millis(slot)], run_row).optional()?;
        let sql = "SELECT report FROM evidence WHERE journey = ? AND slot < ? AND is_good ORDER BY slot DESC LIMIT 1";
        let last_good = store.query_row(sql, params![id, millis(slot)], |row| evidence::report(row, 0)).optional()?;
        let incidents = incidents(store, id, slot, token)?;
        Ok(Some(Story { token, journey, slot, left, row, last_good, incidents }))
    })
}

/// The token of the journey's newest run that was not good and has evidence.
///
/// # Errors
/// As [`story`].
pub fn last_bad(path: &Path, name: &str) -> Result<Option<Token>, StoreError> {
    at_one_moment(path, |store| {
        let sql = "SELECT token FROM evidence JOIN journey ON journey.id = evidence.journey
            WHERE name = ? AND NOT is_good ORDER BY slot DESC LIMIT 1";
        let found: Option<[u8; 16]> = store.query_row(sql, [name], |row| row.get(0)).optional()?;
        Ok(found.map(|bytes| Token::from_bits(u128::from_be_bytes(bytes))))
    })
}

/// What is left of the run itself: its evidence, else what is needed to go on with it, else its place in the ledger.
fn left(store: &Transaction<'_>, token: Token) -> rusqlite::Result<Option<(Name, Timestamp, Left)>> {
    let sql = "SELECT report, slot FROM evidence WHERE token = ?";
    let found: Option<(Report, i64)> =
        store.query_row(sql, [blob(token)], |row| Ok((evidence::report(row, 0)?, row.get(1)?))).optional()?;
    if let Some((report, slot)) = found {
        return Ok(Some((report.journey.clone(), time(slot), Left::Report(Box::new(report)))));
    }
    let sql = "SELECT state FROM unfinished WHERE token = ?";
    let found: Option<Checkpoint> = store.query_row(sql, [blob(token)], |row| from_json(row, 0)).optional()?;
    if let Some(checkpoint) = found {
        let sql = "SELECT id, started, alive, ended FROM boot ORDER BY id DESC LIMIT 1";
        let alive = store.query_row(sql, [], boot).optional()?.map(|boot| boot.alive);
        return Ok(Some((checkpoint.journey, checkpoint.slot, Left::Begun { made: checkpoint.made, alive })));
    }
    let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger JOIN journey ON journey.id = journey
        WHERE token = ?";
    let found = store.query_row(sql, [blob(token)], ledger_entry).optional()?;
    Ok(found.map(|(_, entry)| {
        let left = Left::Entry { recorded: entry.recorded, settled: entry.settled };
        (entry.journey, entry.slot, left)
    }))
}

/// The incidents that the run has to do with, each with its notices, oldest first.
fn incidents(
    store: &Transaction<'_>,
    journey: Option<i64>,
    slot: Timestamp,
    token: Token,
) -> rusqlite::Result<Vec<(IncidentRow, Vec<OutboxRow>)>> {
    let sql = "SELECT id, subject, since, resolved, severity, detectors, summary, bad_runs, members FROM incident
        WHERE id IN (SELECT incident FROM incident_journey WHERE journey = ?1) AND since <= ?2 AND coalesce(resolved, ?2) >= ?2
            OR id IN (SELECT incident FROM outbox WHERE json_extract(notification, '$.report.token') = ?3)
        ORDER BY since, id LIMIT ?4";
    let parameters = params![journey, millis(slot), token.to_string(), INCIDENTS as i64];
    let rows: Vec<IncidentRow> =
        store.prepare(sql)?.query_map(parameters, incident_row)?.collect::<rusqlite::Result<_>>()?;
    // As in the store's own list: the key is searched, not the table.
    let sql = "SELECT * FROM outbox WHERE id > ?1 || '.' AND id < ?1 || '/' AND incident = ?1
        ORDER BY created DESC, sequence DESC, id DESC LIMIT ?2";
    let mut statement = store.prepare(sql)?;
    let mut found = Vec::new();
    for row in rows {
        let notices = statement.query_map(params![row.id, NOTICES as i64], outbox_row)?;
        let mut notices: Vec<_> = notices.collect::<rusqlite::Result<_>>()?;
        notices.reverse();
        found.push((row, notices));
    }
    Ok(found)
}
