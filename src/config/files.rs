//! Which files a pattern names, and names that match a pattern.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// No set of probe files is larger, and no search for them goes deeper into directories.
const MOST: usize = 10_000;

/// What the files of a configuration were when somebody looked: with another file, size or time it is another stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<Mark>)>);

/// Length, time of the last change, and the file's number: an editor that writes a new file in place of the old changes at least that.
type Mark = (u64, SystemTime, u64);

impl Stamp {
    /// Of the daemon's file at `main` and the probe files that it names now. A file that cannot be read is part of it, too.
    pub fn of(main: &Path) -> Stamp {
        let base = main.parent().unwrap_or(Path::new(""));
        let table = std::fs::read_to_string(main).ok().and_then(|text| text.parse::<toml::Table>().ok());
        let patterns = table.as_ref().and_then(|table| table.get("probes")?.as_array());
        let patterns = patterns.into_iter().flatten().filter_map(toml::Value::as_str);
        let probes = patterns.flat_map(|pattern| expand(&base.join(pattern)).unwrap_or_default());
        let marked = |path: PathBuf| {
            let mark = |metadata: std::fs::Metadata| Some((metadata.len(), metadata.modified().ok()?, metadata.ino()));
            let mark = std::fs::metadata(&path).ok().and_then(mark);
            (path, mark)
        };
        Stamp([main.to_owned()].into_iter().chain(probes).map(marked).collect())
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any text and `?` for one character.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Where to go on if what follows the last `*` does not fit: it then takes one character more.
    let mut retry = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match &mut retry {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, seen) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// The files that match a path pattern, in the order of their names. `*` and `?` stay within one directory, `**` is any
/// depth of them. Hidden files match only a pattern that begins with a dot.
///
/// # Errors
/// A directory that cannot be read; one that is not there matches nothing.
pub(super) fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        let is_pattern = matches!(component, Component::Normal(_)) && text.contains(['*', '?']);
        let mut next = Vec::new();
        for path in found {
            match (is_pattern, text.as_ref()) {
                (false, _) => next.push(path.join(component)),
                (true, "**") => descend(path, &mut next)?,
                (true, text) => {
                    for name in names(&path)?.into_iter().filter(|name| matches(text, name)) {
                        if text.starts_with('.') || !name.starts_with('.') {
                            next.push(path.join(name));
                        }
                    }
                }
            }
            next.truncate(MOST);
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// The directory and all below it that are not hidden.
fn descend(path: PathBuf, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        let below = names(&path)?.into_iter().filter(|name| !name.starts_with('.')).map(|name| path.join(name));
        // A link may lead back up.
        open.extend(below.filter(|path| path.is_dir() && !path.is_symlink()));
        into.push(path);
        if into.len() >= MOST {
            break;
        }
    }
    into.sort();
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match std::fs::read_dir(here) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", here.display()))),
    };
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The path without `x/..`, if that leads to the same file: behind a symbolic link it may not.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        let removes =
            component == Component::ParentDir && matches!(clean.components().next_back(), Some(Component::Normal(_)));
        if removes {
            clean.pop();
        } else if component != Component::CurDir {
            clean.push(component);
        }
    }
    let resolved = |path: &Path| path.parent().map(|directory| directory.join(".").canonicalize().ok());
    if clean.as_os_str().is_empty() || resolved(path) != resolved(&clean) { path.to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        let table = [
            ("sms-*", "sms-round-trip", true),
            ("*", "", true),
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml~", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("api[eu]", "api[eu]", true),
            ("*a*b*c", "xxaxbxbxc", true),
            ("*a*b*c", "xxaxbxbx", false),
            ("", "x", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let (long, pattern) = ("a".repeat(5_000), "*a".repeat(50) + "b");
        assert!(!matches(&pattern, &long));
    }

    #[test]
    fn a_stamp_changes_with_every_file_that_the_configuration_has() {
        let root = std::env::temp_dir().join(format!("journeyman-stamp-{}", std::process::id()));
        std::fs::create_dir_all(root.join("probes")).unwrap();
        let main = root.join("main.toml");
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        write("main.toml", "probes = [\"probes/*.toml\"]");
        let mut stamps = vec![Stamp::of(&main)];
        let mut look = |is_other: bool| {
            let stamp = Stamp::of(&main);
            assert_eq!(stamps.last() != Some(&stamp), is_other, "{stamps:?}");
            stamps.push(stamp);
        };
        look(false);
        write("probes/a.toml", "x = 1");
        look(true);
        write("probes/a.toml", "x = 12");
        look(true);
        write("unrelated.toml", "");
        look(false);
        std::fs::rename(root.join("unrelated.toml"), root.join("probes/b.toml")).unwrap();
        look(true);
        write("main.toml", "probes = [");
        look(true);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn patterns_find_files_in_order_and_leave_hidden_ones() {
        let root = std::env::temp_dir().join(format!("journeyman-files-{}", std::process::id()));
        for name in ["b.toml", "a.toml", ".hidden.toml", "c.txt", "sub/d.toml", "sub/deep/e.toml"] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let files = expand(&root.join(pattern)).unwrap();
            files.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
        };
        assert_eq!(found("*.toml"), ["a.toml", "b.toml"]);
        assert_eq!(found("*/*.toml"), ["sub/d.toml"]);
        assert_eq!(found("**/*.toml"), ["a.toml", "b.toml", "sub/d.toml", "sub/deep/e.toml"]);
        assert_eq!(found("a.toml"), ["a.toml"]);
        assert_eq!(found("gone/*.toml"), [""; 0]);
        assert_eq!(clean(&root.join("sub/../a.toml")), root.join("a.toml"));
        std::os::unix::fs::symlink(root.join("sub/deep"), root.join("link")).unwrap();
        assert_eq!(clean(&root.join("link/../d.toml")), root.join("link/../d.toml"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
