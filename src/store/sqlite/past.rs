//! What happened, in order, read beside a daemon that goes on: nothing is written, and nothing is locked.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Statement, params};

use crate::control::Silence;
use crate::journey::Name;
use crate::journey::outcome::{Cause, Verdict};
use crate::journey::report::Report;
use crate::store::codes::{WHYS, millis, time};
use crate::store::sqlite::rows::{from_json, span, verdict};
use crate::store::sqlite::{connect, failure};
use crate::store::{StoreError, schema};
use crate::time::later;

/// A run, or a slot that none ran for.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Whose.
    pub journey: Name,
    /// Its slot.
    pub slot: Timestamp,
    /// When the run ended, by its slot and its latency; the slot itself if there was none.
    pub ended: Timestamp,
    /// How long the run took.
    pub latency: Duration,
    /// What it counts as.
    pub verdict: Verdict,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// The channel at which it failed.
    pub channel: Option<Name>,
    /// How it happened.
    pub how: How,
}

/// Whether there was a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There was.
    Ran,
    /// There was none, while others ran.
    Skipped,
    /// Nothing ran.
    Missed,
}

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
    without.sort_by_key(|past| past.slot);
    let mut without = without.into_iter().peekable();
    let mut evidence =
        connection.prepare("SELECT report FROM evidence WHERE journey = ? AND slot = ? AND NOT is_good")?;
    let mut runs = connection.prepare(
        "SELECT journey, slot, verdict, why, slot + latency / 1000 AS ended, latency FROM run WHERE slot > ? ORDER BY ended, slot",
    )?;
    let mut rows = runs.query([millis(from)])?;
    while let Some(row) = rows.next()? {
        let Some(name) = name_of(row.get(0)?) else { continue };
        let (slot, verdict, why): (i64, Verdict, usize) =
            (row.get(1)?, verdict(row.get(2)?)?, row.get::<_, i64>(3)?.try_into().unwrap_or(0));
        let ended = time(row.get(4)?);
        while let Some(past) = without.next_if(|past| past.slot <= ended) {
            // The next run to end began before: something ran at that time.
            let how = if time(slot) <= past.slot { How::Skipped } else { How::Missed };
            take(Past { how, ..past });
        }
        let is_bad = matches!(verdict, Verdict::Failed | Verdict::Late | Verdict::Slow);
        let channel = if is_bad { failed_at(&mut evidence, row.get(0)?, slot)? } else { None };
        take(Past {
            journey: name.clone(),
            slot: time(slot),
            ended,
            latency: Duration::from_micros(row.get::<_, i64>(5)?.max(0) as u64),
            verdict,
            cause: WHYS.get(why).and_then(|why| why.parse().ok()),
            channel,
            how: How::Ran,
        });
    }
    without.for_each(take);
    Ok(())
}

/// The channel at which a run failed, if its evidence is still there.
fn failed_at(evidence: &mut Statement<'_>, journey: i64, slot: i64) -> rusqlite::Result<Option<Name>> {
    let report: Option<Report> = evidence.query_row([journey, slot], |row| from_json(row, 0)).optional()?;
    Ok(report.and_then(|report| report.failed_step()?.channel.clone()))
}

fn slots_without_run(connection: &Connection, id: i64, name: &Name, from: Timestamp) -> rusqlite::Result<Vec<Past>> {
    let sql =
        "SELECT start, step, count, verdict, excluded FROM span WHERE journey = ? AND verdict IN (4, 5) ORDER BY start";
    let mut spans = connection.prepare_cached(sql)?;
    let mut has_run = connection.prepare_cached("SELECT 1 FROM run WHERE journey = ? AND slot = ?")?;
    let mut slots = Vec::new();
    for span in spans.query_map([id], span)? {
        let span = span?;
        let step = Duration::from_millis(span.step.unsigned_abs());
        for slot in (0..span.count).map(|nth| later(time(span.start), step * nth)).filter(|slot| *slot > from) {
            if !has_run.exists(params![id, millis(slot)])? {
                slots.push(Past {
                    journey: name.clone(),
                    slot,
                    ended: slot,
                    latency: Duration::ZERO,
                    verdict: span.verdict,
                    cause: None,
                    channel: None,
                    how: How::Missed,
                });
            }
        }
    }
    Ok(slots)
}
