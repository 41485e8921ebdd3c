//! The schema, version by version, brought up to date by one daemon at a time. A version that has been released is never edited.

use super::link::{Fault, Session};
use super::rows::get;
use crate::store::StoreError;

/// What each version adds to the one before: the schema version is the number of these that were applied. With each, the oldest
/// version whose builds may go on with it, so that daemons are renewed one after the other.
const VERSIONS: &[(&str, i64)] =
    &[(include_str!("schema_1.sql"), 1), (include_str!("schema_2.sql"), 1), (include_str!("schema_3.sql"), 1)];

const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key text COLLATE \"C\" PRIMARY KEY, number bigint NOT NULL, bytes bytea)";
const KNOWN: i64 = VERSIONS.len() as i64;
/// Two that make the first table at once are in each other's way, each time in another.
const ATTEMPTS: u32 = 5;

/// Whether a store that is only read has the schema that this build knows.
///
/// # Errors
/// It is newer or older, there is none, or it cannot be read.
pub(super) async fn check(session: &Session) -> Result<(), StoreError> {
    match found(session).await.map_err(Fault::unreadable)? {
        None | Some((0, _)) => {
            let place = session.place();
            let why =
                format!("{place} has no state of ours: the daemon makes it at its first start (`journeyman run`)");
            Err(StoreError::Unreadable(why))
        }
        Some((found, readable_from)) if found > KNOWN && readable_from > KNOWN => {
            Err(StoreError::TooNew { found, known: KNOWN })
        }
        Some((found, _)) if found < KNOWN => Err(StoreError::TooOld { found, known: KNOWN }),
        Some(_) => Ok(()),
    }
}

/// Brings the schema up to date, and makes the installation's key.
///
/// # Errors
/// The store is newer than this build, or cannot be written.
pub(super) async fn migrate(session: &Session, key: [u8; 32]) -> Result<(), StoreError> {
    let mut attempt = 0;
    loop {
        match steps(session, key).await {
            Err(Ended::Fault(Fault::Again(_) | Fault::Data(_) | Fault::Refused(_))) if attempt < ATTEMPTS => {
                let _ = session.batch("ROLLBACK").await;
                attempt += 1;
                tokio::time::sleep(super::link::pause(attempt, fastrand::f64())).await;
            }
            Err(Ended::Fault(fault)) => return Err(fault.unwritable()),
            Err(Ended::TooNew { found }) => {
                let _ = session.batch("ROLLBACK").await;
                return Err(StoreError::TooNew { found, known: KNOWN });
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Makes the first tables where there are none; of what is there, it is the lease's holder who brings it up to date.
///
/// # Errors
/// As [`migrate`].
pub(super) async fn begin(session: &Session, key: [u8; 32]) -> Result<(), StoreError> {
    match found(session).await.map_err(Fault::unwritable)? {
        None | Some((0, _)) => migrate(session, key).await,
        Some((found, readable_from)) if found > KNOWN && readable_from > KNOWN => {
            Err(StoreError::TooNew { found, known: KNOWN })
        }
        Some(_) => Ok(()),
    }
}

enum Ended {
    Fault(Fault),
    TooNew { found: i64 },
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Fault(fault)
    }
}

async fn steps(session: &Session, key: [u8; 32]) -> Result<(), Ended> {
    // Whoever may not make tables may still use those that somebody has made for them.
    match found(session).await? {
        Some((version, _)) if version == KNOWN => return Ok(()),
        Some((version, readable_from)) if version > KNOWN => return tolerate(version, readable_from),
        Some(_) => {}
        None => session.batch(META).await?,
    }
    let none: &[u8] = &[];
    let first = "INSERT INTO meta VALUES ('schema', 0, $1) ON CONFLICT (key) DO NOTHING";
    session.execute(first, &[&none]).await?;
    // Whoever comes second waits here, and finds nothing to do.
    session.batch("BEGIN").await?;
    let rows = session.rows("SELECT number FROM meta WHERE key = 'schema' FOR UPDATE", &[]).await?;
    let version: i64 = rows.first().map(|row| get(row, 0)).transpose().map_err(unread)?.unwrap_or(0);
    if version >= KNOWN {
        session.batch("ROLLBACK").await?;
        let readable_from = found(session).await?.map_or(i64::MAX, |(_, from)| from);
        return if version == KNOWN { Ok(()) } else { tolerate(version, readable_from) };
    }
    tracing::info!(from = version, to = KNOWN, "migrating the store");
    for (sql, _) in VERSIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        session.batch(sql).await?;
    }
    let readable_from = VERSIONS.last().map_or(KNOWN, |(_, from)| *from);
    let set = "INSERT INTO meta VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE SET number = excluded.number";
    session.execute(set, &[&"schema", &KNOWN, &none]).await?;
    session.execute(set, &[&"readable_from", &readable_from, &none]).await?;
    let once = "INSERT INTO meta VALUES ('key', 0, $1) ON CONFLICT (key) DO NOTHING";
    session.execute(once, &[&key.as_slice()]).await?;
    Ok(session.batch("COMMIT").await?)
}

fn tolerate(version: i64, readable_from: i64) -> Result<(), Ended> {
    if readable_from > KNOWN {
        return Err(Ended::TooNew { found: version });
    }
    tracing::info!(schema = version, known = KNOWN, "the store has a newer schema that this build can work with");
    Ok(())
}

fn unread(error: StoreError) -> Fault {
    Fault::Refused(error.to_string())
}

/// The version that is there, and the oldest that may work with it.
async fn found(session: &Session) -> Result<Option<(i64, i64)>, Fault> {
    // Looked up by name in the current schema alone: it may not be there, and an error would end a transaction.
    let sql =
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'meta' AND table_schema = current_schema()";
    let rows = session.rows(sql, &[]).await?;
    let tables: i64 = rows.first().map(|row| get(row, 0)).transpose().map_err(unread)?.unwrap_or(0);
    if tables == 0 {
        return Ok(None);
    }
    let rows = session.rows("SELECT key, number FROM meta WHERE key IN ('schema', 'readable_from')", &[]).await?;
    let (mut version, mut readable_from) = (0, i64::MAX);
    for row in &rows {
        let key: String = get(row, 0).map_err(unread)?;
        let number: i64 = get(row, 1).map_err(unread)?;
        if key == "schema" { version = number } else { readable_from = number }
    }
    Ok(Some((version, readable_from)))
}
