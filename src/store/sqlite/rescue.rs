//! A store that cannot be read: what can be is taken over into a new one, and the old one is set aside. A monitor that does not
//! start because its memory is damaged leaves people in the dark; one that has forgotten something and says so does not.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use crate::alert::{AlertState, JourneyAlerts};
use crate::breaker::Order;
use crate::control::Silence;
use crate::incident::Incident;
use crate::store::sqlite::evidence;
use crate::store::sqlite::rows::{outbox_row, parse, span, verdict};
use crate::store::sqlite::{connect, failure, restrict};
use crate::store::{StoreError, schema};

/// Damaged stores that are kept for a look; the oldest goes first.
const KEPT: u32 = 3;

/// A table, in the order of its key.
struct Table {
    name: &'static str,
    key: &'static [&'static str],
    /// Which of its rows a start cannot do without; `None` is none of them.
    at_start: Option<&'static str>,
    /// Whether a row says anything.
    check: fn(&Row<'_>) -> rusqlite::Result<()>,
}

const TABLES: [Table; 11] = [
    Table { name: "meta", key: &["key"], at_start: Some("TRUE"), check: meta },
    Table { name: "journey", key: &["id"], at_start: Some("TRUE"), check: |row| json::<JourneyAlerts>(row, "alert") },
    Table { name: "span", key: &["journey", "start"], at_start: Some("TRUE"), check: |row| span(row).map(drop) },
    Table { name: "ledger", key: &["token"], at_start: Some("TRUE"), check: ledger },
    Table {
        name: "condition",
        key: &["subject"],
        at_start: Some("TRUE"),
        check: |row| json::<AlertState>(row, "state"),
    },
    Table {
        name: "incident",
        key: &["id"],
        at_start: Some("resolved IS NULL"),
        check: |row| json::<Incident>(row, "state").and_then(|()| json::<Vec<String>>(row, "detectors")),
    },
    Table { name: "incident_journey", key: &["incident", "journey"], at_start: None, check: |_| Ok(()) },
    Table { name: "silence", key: &["id"], at_start: Some("TRUE"), check: |row| json::<Silence>(row, "state") },
    Table {
        name: "outbox",
        key: &["id"],
        at_start: Some("status IN ('pending', 'leased', 'ambiguous')"),
        check: |row| outbox_row(row).map(drop),
    },
    Table {
        name: "run",
        key: &["journey", "slot"],
        at_start: None,
        check: |row| verdict(row.get::<_, i64>("outcome")? & 7).map(drop),
    },
    Table { name: "evidence", key: &["token"], at_start: None, check: |row| evidence::report(row, "report").map(drop) },
];

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<()> {
    row.get::<_, Option<String>>(column)?.map_or(Ok(()), |text| parse::<T>(&text).map(drop))
}

fn meta(row: &Row<'_>) -> rusqlite::Result<()> {
    match &*row.get::<_, String>("key")? {
        "key" => row.get::<_, [u8; 32]>("value").map(drop),
        key if key.starts_with("order:") => json::<Order>(row, "value"),
        _ => row.get::<_, i64>("value").map(drop),
    }
}

fn ledger(row: &Row<'_>) -> rusqlite::Result<()> {
    row.get::<_, [u8; 16]>("token")?;
    ["slot", "recorded", "keep_until"].into_iter().try_for_each(|column| row.get::<_, i64>(column).map(drop))
}

/// Whether everything can be read that a start cannot do without.
///
/// # Errors
/// What cannot.
pub(super) fn check(connection: &Connection) -> Result<(), StoreError> {
    for Table { name, at_start, check, .. } in &TABLES {
        let Some(condition) = at_start else { continue };
        // Its indexes too, by which its rows are found.
        let sql = format!("PRAGMA integrity_check({name})");
        let said: String = connection.query_row(&sql, [], |row| row.get(0)).map_err(failure)?;
        if said != "ok" {
            return Err(StoreError::Unreadable(said));
        }
        let read = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare(&format!("SELECT * FROM {name} WHERE {condition}"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                check(row)?;
            }
            Ok(())
        };
        read().map_err(failure)?;
    }
    Ok(())
}

/// Makes a new store of what can be read of the one at `path`, and sets that aside. Gives what became of it, in words.
///
/// # Errors
/// The new one cannot be written.
pub(super) fn rescue(path: &Path, why: &str) -> Result<String, StoreError> {
    let new = beside(path, ".mending");
    remove(&new)?;
    let mut fresh = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    restrict(&new);
    schema::migrate(&mut fresh, &new)?;
    let taken = take_over(path, &mut fresh).map_err(failure)?;
    fresh.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failure)?;
    fresh.close().map_err(|(_, error)| failure(error))?;
    let aside = set_aside(path)?;
    rename(&new, path)?;
    let aside = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("the store was damaged ({why}); {taken}, and the damaged one is kept beside it as {aside}"))
}

/// Ends what a rescue that was cut short had begun: between its last two steps there is no store under the right name.
///
/// # Errors
/// The directory cannot be written.
pub(super) fn resume(path: &Path) -> Result<(), StoreError> {
    let new = beside(path, ".mending");
    if !new.exists() || path.exists() {
        return Ok(());
    }
    set_log_aside(path)?;
    rename(&new, path)
}

/// Copies every row that can be read; says what could not.
fn take_over(path: &Path, fresh: &mut Connection) -> rusqlite::Result<String> {
    let old = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let Some(old) = old.ok().filter(|old| schema::check(old).is_ok()) else {
        return Ok("nothing of it could be read, and a new one was begun".to_owned());
    };
    let transaction = fresh.transaction()?;
    let (mut rows, mut lost) = (0, Vec::new());
    for table in &TABLES {
        let copied = table.copy(&old, &transaction)?;
        rows += copied.rows;
        if copied.has_gap {
            lost.push(format!("part of table {}", table.name));
        }
        if copied.unreadable > 0 {
            lost.push(format!("{} rows of table {}", copied.unreadable, table.name));
        }
    }
    transaction.commit()?;
    let lost = if lost.is_empty() { "no row that anybody would miss".to_owned() } else { lost.join(", ") };
    Ok(format!("{rows} rows were taken over into a new one, lost is {lost}"))
}

/// What came of copying a table.
#[derive(Default)]
struct Copied {
    rows: u64,
    /// Rows that say nothing any more.
    unreadable: u64,
    /// A page of it cannot be read.
    has_gap: bool,
}

impl Table {
    /// From its beginning, and if it breaks off, from its end too.
    fn copy(&self, old: &Connection, new: &Connection) -> rusqlite::Result<Copied> {
        let mut copied = Copied::default();
        for direction in ["ASC", "DESC"] {
            copied.has_gap = self.copy_until_it_breaks_off(old, new, direction, &mut copied)?.is_err();
            if !copied.has_gap {
                return Ok(copied);
            }
        }
        Ok(copied)
    }

    /// The inner error is the old store's, the outer one the new store's.
    fn copy_until_it_breaks_off(
        &self,
        old: &Connection,
        new: &Connection,
        direction: &str,
        copied: &mut Copied,
    ) -> rusqlite::Result<Result<(), ()>> {
        let order: Vec<_> = self.key.iter().map(|column| format!("{column} {direction}")).collect();
        // What is reckoned from other columns is in no such list, and cannot be written.
        let names = new
            .prepare("SELECT group_concat(name) FROM pragma_table_info(?)")?
            .query_row([self.name], |row| row.get::<_, String>(0))?;
        let sql = format!("SELECT {names} FROM {} ORDER BY {}", self.name, order.join(", "));
        let Ok(mut statement) = old.prepare(&sql) else { return Ok(Err(())) };
        let columns = statement.column_count();
        let places = vec!["?"; columns].join(", ");
        let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {} ({names}) VALUES ({places})", self.name))?;
        let Ok(mut rows) = statement.query([]) else { return Ok(Err(())) };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Ok(())),
                Err(_) => return Ok(Err(())),
            };
            let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| row.get(column)).collect();
            match values.and_then(|values| (self.check)(row).map(|()| values)) {
                Ok(values) => copied.rows += insert.execute(params_from_iter(values))? as u64,
                Err(_) => copied.unreadable += 1,
            }
        }
    }
}

/// Gives the store and its log another name. Those that were set aside before move on as far as it takes, and no further: whoever is
/// killed in the middle of that leaves a gap, which the next fills. The last goes if there is no room for it.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let name = |place: u32| beside(path, &format!(".damaged-{place}"));
    let room = (1..=KEPT).find(|place| !name(*place).exists());
    if room.is_none() {
        remove(&name(KEPT))?;
    }
    let room = room.unwrap_or(KEPT);
    for place in (1..room).rev() {
        // The log first: without its store it has no place of its own.
        for ending in ["-wal", ""] {
            let from = beside(&name(place), ending);
            if from.exists() {
                rename(&from, &beside(&name(place + 1), ending))?;
            }
        }
    }
    rename(path, &name(1))?;
    set_log_aside(path)?;
    Ok(name(1))
}

/// A log of the damaged store must never meet the new one.
fn set_log_aside(path: &Path) -> Result<(), StoreError> {
    // SQLite makes the index of a log anew where there is none.
    remove_file(&beside(path, "-shm"))?;
    let log = beside(path, "-wal");
    if log.exists() { rename(&log, &beside(path, ".damaged-1-wal")) } else { Ok(()) }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    ["", "-wal", "-shm"].into_iter().try_for_each(|ending| remove_file(&beside(path, ending)))
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Unwritable(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|error| {
        StoreError::Unwritable(format!("cannot rename {} to {}: {error}", from.display(), to.display()))
    })
}

/// A store of which some bytes are not as they were written: it is read, or mended, or refused because it seems to be a newer
/// build's; and once mended it is well. Three bytes say where, the fourth what stands there instead.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use std::sync::LazyLock;

    use crate::store::sqlite::lock::Left;
    use crate::store::sqlite::ready;

    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = std::env::temp_dir().join(format!("journeyman-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        path
    });
    static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let path = DIRECTORY.join("sound.db");
        let connection = ready(&path, Left::Never).expect("a store can be made");
        connection.execute_batch(include_str!("../../../fuzz/store.sql")).expect("and filled");
        drop(connection);
        std::fs::read(path).expect("and read")
    });
    let mut bytes = SOUND.clone();
    for patch in data.chunks_exact(4) {
        let at = patch[..3].iter().fold(0, |at, byte| at << 8 | usize::from(*byte)) % bytes.len();
        bytes[at] = patch[3];
    }
    let path = DIRECTORY.join("damaged.db");
    remove(&path).expect("what was there goes");
    std::fs::write(&path, bytes).expect("a store can be written");
    let opened = ready(&path, Left::Closed).map(drop);
    if let Err(StoreError::Unreadable(why)) = &opened {
        rescue(&path, why).expect("it is mended");
        ready(&path, Left::Closed).expect("and is well then");
    }
    assert!(
        !matches!(opened, Err(StoreError::Closed | StoreError::InUse(_) | StoreError::TooOld { .. })),
        "{opened:?}"
    );
}
