//! `journeyman dashboards`: writes the files for Grafana and Prometheus that go with this version.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dashboards::files;
use crate::exit::{self, Failure};

/// Writes the files below `folder`; gives where they are.
///
/// # Errors
/// A file cannot be written.
pub fn dashboards(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for file in files() {
        let path = folder.join(file.path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, file.text));
        written
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display())))?;
        all.push(path);
    }
    Ok(all)
}
