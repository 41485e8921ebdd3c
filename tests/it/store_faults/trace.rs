//! What strace took down of a process that writes a store, and what a disk holds after a part of that and a power cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// A disk writes whole sectors.
const SECTOR: usize = 512;

/// One thing that the process did, in order.
pub(super) enum Op {
    /// Bytes of a file, not on disk yet.
    Write {
        /// The file's name, without its directory.
        file: String,
        /// Where.
        at: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file's length.
    Truncate {
        /// Which.
        file: String,
        /// How long it is from then on.
        length: usize,
    },
    /// What was written to a file is on disk, or never will be.
    Sync {
        /// Which.
        file: String,
        /// Whether it was.
        worked: bool,
    },
    /// A file is no more.
    Remove {
        /// Which.
        file: String,
    },
    /// A batch was confirmed.
    Confirmed(u32),
}

/// Everything that a process did.
pub(super) struct Trace {
    pub(super) ops: Vec<Op>,
}

impl Trace {
    /// Reads what `strace -f -y -xx` wrote.
    pub(super) fn read(path: &Path) -> Trace {
        let text = std::fs::read_to_string(path).unwrap();
        let mut begun: HashMap<String, String> = HashMap::new();
        let mut ops = Vec::new();
        for line in text.lines() {
            let (process, said) = line.split_once(' ').unwrap();
            let said = said.trim_start();
            if let Some(beginning) = said.strip_suffix(" <unfinished ...>") {
                begun.insert(process.to_owned(), beginning.to_owned());
                continue;
            }
            let whole = match said.strip_prefix("<... ") {
                Some(rest) => {
                    let (_, end) = rest.split_once(" resumed>").unwrap();
                    begun.remove(process).unwrap() + end
                }
                None => said.to_owned(),
            };
            ops.extend(op(&whole));
        }
        Trace { ops }
    }

    /// The batches that were confirmed by the first `count` operations.
    pub(super) fn confirmed(&self, count: usize) -> BTreeSet<u32> {
        let number = |op: &Op| if let Op::Confirmed(n) = op { Some(*n) } else { None };
        self.ops[..count].iter().filter_map(number).collect()
    }

    /// What the disk holds after the first `count` operations and a power cut. What was not synced is dropped, or by chance kept
    /// in whole or in part.
    pub(super) fn disk_after(&self, count: usize, mut random: Option<&mut fastrand::Rng>) -> Disk {
        let mut disk = Disk::default();
        let mut pending: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
        for op in &self.ops[..count] {
            match op {
                Op::Write { file, .. } | Op::Truncate { file, .. } => pending.entry(file).or_default().push(op),
                Op::Sync { file, worked } => {
                    let written = pending.remove(&**file).unwrap_or_default();
                    written.into_iter().filter(|_| *worked).for_each(|op| disk.take(op, usize::MAX));
                }
                Op::Remove { file } => {
                    pending.remove(&**file);
                    disk.0.remove(file);
                }
                Op::Confirmed(_) => {}
            }
        }
        for op in pending.into_values().flatten() {
            match random.as_mut().map_or(0, |random| random.u8(..3)) {
                0 => {}
                1 => disk.take(op, usize::MAX),
                _ => disk.take(op, random.as_mut().map_or(0, |random| random.usize(..9)) * SECTOR),
            }
        }
        disk
    }
}

/// Files with what is in them.
#[derive(Default)]
pub(super) struct Disk(BTreeMap<String, Vec<u8>>);

impl Disk {
    fn take(&mut self, op: &Op, most: usize) {
        match op {
            Op::Write { file, at, bytes } => {
                let bytes = &bytes[..bytes.len().min(most)];
                let content = self.0.entry(file.clone()).or_default();
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Op::Truncate { file, length } => self.0.entry(file.clone()).or_default().resize(*length, 0),
            Op::Sync { .. } | Op::Remove { .. } | Op::Confirmed(_) => {}
        }
    }

    /// Puts the files there. The index of a log lives in memory and is made anew.
    pub(super) fn write(&self, directory: &Path) {
        for (file, bytes) in self.0.iter().filter(|(file, _)| !file.ends_with("-shm")) {
            std::fs::write(directory.join(file), bytes).unwrap();
        }
    }
}

/// `name(3<path>, "bytes", 4096, 0) = 4096`, with paths and bytes in hexadecimal.
fn op(line: &str) -> Option<Op> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let worked = !result.starts_with('-');
    let arguments: Vec<_> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
    let file = || {
        let path = arguments[0].split_once('<')?.1.trim_end_matches('>');
        last(&unescaped(path.trim_end_matches("(deleted)").trim_end_matches('>')))
    };
    match (name, worked) {
        ("pwrite64", true) => {
            let mut bytes = unescaped(arguments[1].trim_matches('"'));
            bytes.truncate(result.split(' ').next()?.parse().ok()?);
            Some(Op::Write { file: file()?, at: arguments[3].parse().ok()?, bytes })
        }
        ("ftruncate", true) => Some(Op::Truncate { file: file()?, length: arguments[1].parse().ok()? }),
        ("fsync" | "fdatasync", _) => Some(Op::Sync { file: file()?, worked }),
        ("unlink", true) => Some(Op::Remove { file: last(&unescaped(arguments[0].trim_matches('"')))? }),
        ("mkdir", true) => {
            let path = last(&unescaped(arguments[0].trim_matches('"')))?;
            path.strip_prefix("confirmed-")?.parse().ok().map(Op::Confirmed)
        }
        _ => None,
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn last(path: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(path).rsplit('/').next()?.to_owned())
}
