//! The file that remembers what is still to be undone, and keeps experiments to one at a time.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::experiment::undo::{Cut, Line, standing};

const NAME: &str = "experiment-undo.jsonl";

/// Where it is: beside the store's file, or beside the configuration if the store is a server's.
pub(super) fn path(plan: &Plan, config: &Path) -> PathBuf {
    let beside = plan.store.home.file().unwrap_or(config);
    beside.parent().unwrap_or(Path::new("")).join(NAME)
}

/// What is still to be undone, and nobody is at it; nothing, if there is no such file or an experiment goes on just now.
pub(super) fn left(path: &Path) -> Vec<Cut> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let mut text = String::new();
    // Whoever holds it is an experiment that will undo it.
    let is_free = file.try_lock_shared().is_ok();
    let is_read = is_free && file.read_to_string(&mut text).is_ok();
    if is_read { standing(&text).0 } else { Vec::new() }
}

/// The file, ours until this goes.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    highest: u64,
}

impl Journal {
    /// Takes it; gives what a process before us has left cut, the last first.
    ///
    /// # Errors
    /// Another experiment has it, or it cannot be made.
    pub(super) fn open(path: &Path) -> Result<(Journal, Vec<Cut>), Failure> {
        let cannot = |error: std::io::Error| {
            let why = "nothing is cut that could not be remembered";
            Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}; {why}", path.display()))
        };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(cannot)?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = file.map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let said = format!("another experiment goes on: it holds {}", path.display());
                return Err(Failure::new(exit::TEMPORARY, said));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(cannot)?;
        let (cuts, highest) = standing(&text);
        let mut journal = Journal { file, path: path.to_owned(), highest };
        if cuts.is_empty() {
            journal.clear().map_err(cannot)?;
        } else if !text.ends_with('\n') {
            // What is written next must not become a part of a line that was never finished.
            journal.write(b"\n").map_err(cannot)?;
        }
        Ok((journal, cuts))
    }

    /// Puts on disk that this is about to be cut; gives its number. Only after that may it be.
    ///
    /// # Errors
    /// It cannot be written, in words.
    pub(super) fn cut(&mut self, cut: Cut) -> Result<u64, String> {
        let id = self.highest + 1;
        self.put(&Line::Cut(Cut { id, ..cut }))?;
        self.highest = id;
        Ok(id)
    }

    /// Puts on disk that undoing this begins. That it cannot be written is no reason not to.
    pub(super) fn undoing(&mut self, id: u64, at: Timestamp) {
        self.note(&Line::Undoing { id, at });
    }

    /// Puts on disk that this is undone.
    pub(super) fn undone(&mut self, id: u64, at: Timestamp) {
        self.note(&Line::Undone { id, at });
    }

    fn note(&mut self, line: &Line) {
        if let Err(why) = self.put(line) {
            tracing::error!(why, "an experiment may be undone twice");
        }
    }

    fn put(&mut self, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_string(line).map_err(|error| error.to_string())?;
        text.push('\n');
        self.write(text.as_bytes()).map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    fn clear(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }
}

impl Drop for Journal {
    /// Said, and not left to the end of the file: a child that is being started has a copy of it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}
