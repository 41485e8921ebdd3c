//! Reading a store that another process has: what the command line shows beside a running daemon.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::journey::Name;
use crate::journey::report::Report;
use crate::slo::Span;
use crate::store::sqlite::rows::{from_json, span};
use crate::store::sqlite::{connect, failure};
use crate::store::{StoreError, schema};

/// The spans of these journeys, as they stood at one moment. Those that the store does not know are left out. Nothing is written,
/// and nobody waits.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn spans(path: &Path, names: &[Name]) -> Result<HashMap<Name, Vec<Span>>, StoreError> {
    let mut connection = open(path)?;
    // One transaction is one moment.
    let transaction = connection.transaction().map_err(failure)?;
    let read = |name: &Name| -> rusqlite::Result<Vec<Span>> {
        let sql = "SELECT start, step, count, verdict, excluded FROM span
            JOIN journey ON journey.id = span.journey WHERE name = ? ORDER BY start";
        transaction.prepare_cached(sql)?.query_map([&**name], span)?.collect()
    };
    let mut found = HashMap::new();
    for name in names {
        let spans = read(name).map_err(failure)?;
        if !spans.is_empty() {
            found.insert(name.clone(), spans);
        }
    }
    Ok(found)
}

/// The journey's last good run, if the store has one.
///
/// # Errors
/// There is no store, it cannot be read, or it is of another version.
pub fn last_good(path: &Path, name: &str) -> Result<Option<Report>, StoreError> {
    let sql = "SELECT report FROM evidence JOIN journey ON journey.id = evidence.journey
        WHERE name = ? AND is_good ORDER BY slot DESC LIMIT 1";
    open(path)?.query_row(sql, [name], |row| from_json(row, 0)).optional().map_err(failure)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::Unreadable(format!("{} does not exist", path.display())));
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    schema::check(&connection)?;
    Ok(connection)
}
