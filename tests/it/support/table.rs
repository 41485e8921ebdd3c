//! Tables of what the tests found. `tests/run` prints them all with `tests/tables`; any test can write a part of one.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// One part of a table, below `target/tables`. It is written when it goes, so that also a test that fails leaves what it found.
pub(crate) struct Table {
    file: PathBuf,
    text: String,
}

impl Table {
    /// The part `part` of the table `name`, with the heads of its columns. Parts are shown in the order of their names; those with the
    /// same heads, one after another, as one.
    pub(crate) fn new(name: &str, part: &str, heads: &[&str]) -> Table {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tables").join(name);
        let mut table = Table { file: directory.join(format!("{part}.tsv")), text: String::new() };
        table.line(heads);
        table
    }

    /// A row: the case, and what came of it.
    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        self.line(&cells.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    fn line<T: AsRef<str>>(&mut self, cells: &[T]) {
        let cells: Vec<_> = cells.iter().map(|cell| cell.as_ref().replace(['\t', '\n', '\r'], " ")).collect();
        self.text += &cells.join("\t");
        self.text.push('\n');
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let written = std::fs::create_dir_all(self.file.parent().expect("a file has a folder"))
            .and_then(|()| std::fs::write(&self.file, &self.text));
        if let Err(error) = written {
            eprintln!("{} cannot be written: {error}", self.file.display());
        }
    }
}
