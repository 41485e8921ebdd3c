//! What happened, in order, read beside a daemon that goes on: nothing is written, and nothing is locked.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Statement, params};

use crate::control::Silence;
use crate::journey::Name;
use crate::journey::report::Report;
use crate::store::codes::millis;
use crate::store::past::{Past, Ran, Weave, has_failed, slots, without_run};
use crate::store::sqlite::evidence;
use crate::store::sqlite::rows::{from_json, span, verdict};
use crate::store::sqlite::{connect, failure};
use crate::store::{StoreError, schema};

/// Gives what happened to these journeys since `from`, in the order of its ends.
///
/// # Errors
/// The store is not there, cannot be read, or has another schema than this build's.
pub fn read_past(
    path: &Path,
    journeys: &[Name],
    from: Timestamp,
    mut take: impl FnMut(Past),
) -> Result<(), StoreError> {
    read(&open(path)?, journeys, from, &mut take).map_err(failure)
}

/// The silences that the store has, those that are over among them. What was taken back, or ended with what it was for, is gone.
///
/// # Errors
/// The store is not there, cannot be read, or has another schema than this build's.
pub fn read_silences(path: &Path) -> Result<Vec<Silence>, StoreError> {
    let connection = open(path)?;
    let read = || -> rusqlite::Result<Vec<Silence>> {
        let mut silences = connection.prepare("SELECT state FROM silence ORDER BY until, id")?;
        silences.query_map([], |row| from_json(row, 0))?.collect()
    };
    read().map_err(failure)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| StoreError::Unreadable(format!("{}: {error}", path.display())))?;
    schema::prove_current(&connection)?;
    Ok(connection)
}

fn read(
    connection: &Connection,
    journeys: &[Name],
    from: Timestamp,
    take: &mut dyn FnMut(Past),
) -> rusqlite::Result<()> {
    // One state of the store, whatever the daemon writes meanwhile.
    connection.execute_batch("BEGIN")?;
    let ids: Vec<(i64, Name)> = journeys
        .iter()
        .filter_map(|name| {
            let found = connection.query_row("SELECT id FROM journey WHERE name = ?", [&**name], |row| row.get(0));
            found.optional().transpose().map(|id| Ok((id?, name.clone())))
        })
        .collect::<rusqlite::Result<_>>()?;
    let name_of = |id: i64| ids.iter().find(|(other, _)| *other == id).map(|(_, name)| name);
    let mut without = Vec::new();
    for (id, name) in &ids {
        without.extend(slots_without_run(connection, *id, name, from)?);
    }
    let mut weave = Weave::new(without);
    let mut evidence =
        connection.prepare("SELECT report FROM evidence WHERE journey = ? AND slot = ? AND NOT is_good")?;
    let mut runs = connection.prepare(
        "SELECT journey, slot, verdict, why, slot + latency / 1000 AS ended, latency FROM run WHERE slot > ? ORDER BY ended, slot",
    )?;
    let mut rows = runs.query([millis(from)])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row.get(0)?) else { continue };
        let ran = Ran {
            journey: name.clone(),
            slot: row.get(1)?,
            verdict: verdict(row.get(2)?)?,
            why: row.get(3)?,
            ended: row.get(4)?,
            latency: row.get(5)?,
        };
        let channel = if has_failed(ran.verdict) { failed_at(&mut evidence, row.get(0)?, ran.slot)? } else { None };
        weave.run(ran, channel, take);
    }
    weave.end(take);
    Ok(())
}

/// The channel at which a run failed, if its evidence is still there.
fn failed_at(evidence: &mut Statement<'_>, journey: i64, slot: i64) -> rusqlite::Result<Option<Name>> {
    let report: Option<Report> = evidence.query_row([journey, slot], |row| evidence::report(row, 0)).optional()?;
    Ok(report.and_then(|report| report.failed_step()?.channel.clone()))
}

fn slots_without_run(connection: &Connection, id: i64, name: &Name, from: Timestamp) -> rusqlite::Result<Vec<Past>> {
    let sql =
        "SELECT start, step, count, verdict, excluded FROM span WHERE journey = ? AND verdict IN (4, 5) ORDER BY start";
    let mut spans = connection.prepare_cached(sql)?;
    let mut has_run = connection.prepare_cached("SELECT 1 FROM run WHERE journey = ? AND slot = ?")?;
    let mut found = Vec::new();
    for span in spans.query_map([id], span)? {
        let span = span?;
        for slot in slots(&span, from) {
            if !has_run.exists(params![id, millis(slot)])? {
                found.push(without_run(name, slot, span.verdict));
            }
        }
    }
    Ok(found)
}
