//! The SQLite schema, version by version. A version that has been released is never edited; the next one follows it.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::store::StoreError;

/// What each version adds to the one before. The schema version is the number of these that were applied.
const VERSIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
];

/// Whether a store that is only read has the schema that this build knows.
///
/// # Errors
/// It is newer or older.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    let known = VERSIONS.len() as i64;
    match version(connection)? {
        found if found > known => Err(StoreError::TooNew { found, known }),
        found if found < known => Err(StoreError::TooOld { found, known }),
        _ => Ok(()),
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(super::sqlite::failure)
}

/// Brings the schema up to date, all at once or not at all. An older store is first copied beside itself.
///
/// # Errors
/// The store is newer than this build, or cannot be written.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = VERSIONS.len() as i64;
    let found = version(connection)?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found == known {
        return Ok(());
    }
    if found > 0 {
        let backup = back_up(connection, path, found)?;
        tracing::info!(from = found, to = known, backup = %backup.display(), "migrating the store");
    }
    let transaction = connection.transaction().map_err(super::sqlite::failure)?;
    for sql in VERSIONS.iter().skip(found as usize) {
        transaction.execute_batch(sql).map_err(super::sqlite::failure)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(super::sqlite::failure)?;
    transaction.commit().map_err(super::sqlite::failure)
}

/// Copies the store beside itself. Until the copy is whole it has another name: one that was cut short is made anew.
fn back_up(connection: &Connection, path: &Path, version: i64) -> Result<PathBuf, StoreError> {
    let backup = path.with_extension(format!("v{version}.bak"));
    let begun = path.with_extension(format!("v{version}.bak-begun"));
    let unwritable = |error: std::io::Error| {
        StoreError::Unwritable(format!("cannot copy the store to {}: {error}", backup.display()))
    };
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(error)),
        _ => {}
    }
    connection.execute("VACUUM INTO ?1", [begun.to_string_lossy()]).map_err(super::sqlite::failure)?;
    std::fs::File::open(&begun).and_then(|copy| copy.sync_all()).map_err(unwritable)?;
    std::fs::rename(&begun, &backup).map_err(unwritable)?;
    Ok(backup)
}

/// Whether a store that is only read has this build's schema.
///
/// # Errors
/// It has another, or cannot be read.
pub(super) fn prove_current(connection: &Connection) -> Result<(), StoreError> {
    let known = VERSIONS.len() as i64;
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(super::sqlite::failure)?;
    match found {
        found if found > known => Err(StoreError::TooNew { found, known }),
        found if found < known => Err(StoreError::Unreadable(format!(
            "it has schema version {found}, and this build reads {known}: start the daemon of this build on it once"
        ))),
        _ => Ok(()),
    }
}
