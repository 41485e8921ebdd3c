//! How a file was when it was read, so that a change is seen.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file as it was; one that is not there is that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    path: PathBuf,
    /// Its number, its length, and when it was last written or replaced; the latter cannot be set by whoever writes it.
    state: Option<(u64, u64, i64, i64)>,
}

impl Stamped {
    /// The file as it is. To be asked before it is read: what changes while it is read is then seen later.
    pub(super) fn new(path: &Path) -> Stamped {
        let of =
            |metadata: std::fs::Metadata| (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec());
        Stamped { path: path.to_owned(), state: std::fs::metadata(path).ok().map(of) }
    }

    /// The same file as it is now.
    pub(super) fn again(&self) -> Stamped {
        Stamped::new(&self.path)
    }
}
