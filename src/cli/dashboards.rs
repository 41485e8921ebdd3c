//! `journeyman dashboards`: writes the files for Grafana and Prometheus that go with this version.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::dashboards::files;
use crate::exit::{self, Failure};

/// What is to be printed: the files that were written below `folder`.
///
/// # Errors
/// A file cannot be written.
pub fn dashboards(folder: &Path) -> Result<String, Failure> {
    let mut said = String::new();
    for file in files() {
        let path = folder.join(file.path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, file.text));
        written
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display())))?;
        let _ = writeln!(said, "{}", path.display());
    }
    Ok(said)
}
