//! The SQLite schema, version by version. A version that has been released is never edited; the next one follows it.

use std::path::Path;

use rusqlite::Connection;

use crate::store::StoreError;

/// What each version adds to the one before. The schema version is the number of these that were applied.
const VERSIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
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

/// Brings the schema up to date. An older store is first copied beside itself.
///
/// # Errors
/// The store is newer than this build, or cannot be written.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = VERSIONS.len() as i64;
    let found = version(connection)?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found > 0 && found < known {
        let backup = path.with_extension(format!("v{found}.bak"));
        let target = backup.to_string_lossy().into_owned();
        connection.execute("VACUUM INTO ?1", [target]).map_err(super::sqlite::failure)?;
        tracing::info!(from = found, to = known, backup = %backup.display(), "migrating the store");
    }
    for (version, sql) in (1i64..).zip(VERSIONS).skip(found as usize) {
        let transaction = connection.transaction().map_err(super::sqlite::failure)?;
        transaction.execute_batch(sql).map_err(super::sqlite::failure)?;
        transaction.pragma_update(None, "user_version", version).map_err(super::sqlite::failure)?;
        transaction.commit().map_err(super::sqlite::failure)?;
    }
    Ok(())
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
