//! The file beside the store that keeps it to one process, and remembers how that process left it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::StoreError;

/// How the last process left the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// There was none: what is there may be anybody's.
    Never,
    /// In order.
    Closed,
    /// It was ended, or runs.
    Open,
    /// It could not read a part of it.
    Damaged,
}

impl Left {
    /// Of one length, so that one takes the place of another.
    fn word(self) -> &'static str {
        match self {
            Left::Never => "",
            Left::Closed => "closed \n",
            Left::Open => "open   \n",
            Left::Damaged => "damaged\n",
        }
    }
}

/// Held by the process that has the store.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    name: PathBuf,
    /// How the store was found.
    pub(super) found: Left,
    is_damaged: AtomicBool,
}

impl Lock {
    /// One process at a time: two writers would count slots twice.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be made.
    pub(super) fn take(path: &Path) -> Result<Lock, StoreError> {
        let name = PathBuf::from(format!("{}.lock", path.display()));
        let unwritable =
            |error: std::io::Error| StoreError::Unwritable(format!("cannot open {}: {error}", name.display()));
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(&name).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(name.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let mut word = [0; 8];
        // A file that is shorter says nothing.
        let _ = file.read_exact_at(&mut word, 0);
        let known = [Left::Closed, Left::Open, Left::Damaged];
        let found = known.into_iter().find(|left| left.word().as_bytes() == word).unwrap_or(Left::Never);
        Ok(Lock { file, name, found, is_damaged: AtomicBool::new(false) })
    }

    /// Remembers how the store is left. Nothing depends on it but what the next start says and looks at.
    pub(super) fn leave(&self, left: Left) {
        // Seen once, and nothing takes that back.
        if self.is_damaged.fetch_or(left == Left::Damaged, Ordering::AcqRel) {
            return;
        }
        let written = self.file.write_all_at(left.word().as_bytes(), 0).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            tracing::debug!(file = %self.name.display(), %error, "cannot note how the store is left");
        }
    }
}

impl Drop for Lock {
    /// Said, and not left to the end of the file: a child that another thread is starting has a copy of it from its fork to its
    /// exec, and would keep the store from whoever opens it next.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_let_go_of_although_a_copy_of_its_file_is_held() {
        let path = std::env::temp_dir().join(format!("journeyman-lock-{}", std::process::id()));
        let first = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(StoreError::InUse(_))));
        let held = first.file.try_clone().unwrap();
        drop(first);
        let second = Lock::take(&path);
        drop(held);
        assert!(second.is_ok(), "{second:?}");
        std::fs::remove_file(&second.unwrap().name).unwrap();
    }
}
