//! Secrets: a type that cannot be printed, and the redaction of every way out.
//!
//! A secret from a file is read again when the file changes, so that a rotated token needs no restart.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;

use zeroize::Zeroizing;

/// What stands in place of a secret.
pub const MASK: &str = "•••";

/// A file with more bytes than this holds something else: a device, a log, a wrong path.
const LONGEST: u64 = 64 * 1024;

/// A secret value. Cheap to clone; all clones see a changed file.
#[derive(Clone)]
pub struct Secret(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    held: Mutex<Held>,
    redactor: Option<Redactor>,
}

struct Held {
    value: Zeroizing<String>,
    modified: Option<SystemTime>,
}

impl Secret {
    /// A secret known already: a literal, or from the environment. Registered with `redactor`.
    pub fn new(value: String, redactor: &Redactor) -> Secret {
        redactor.add(&value);
        Secret::hold(value, None, None, redactor)
    }

    /// A secret in a file; a newline at its end does not belong to it. Registered with `redactor`.
    ///
    /// # Errors
    /// The file cannot be read, is empty or longer than 64 KiB; in words, without its content.
    pub fn from_file(path: &Path, redactor: &Redactor) -> Result<Secret, String> {
        let (value, modified) = read(path)?;
        redactor.add(&value);
        Ok(Secret::hold(value, Some(path.to_owned()), modified, redactor))
    }

    fn hold(value: String, path: Option<PathBuf>, modified: Option<SystemTime>, redactor: &Redactor) -> Secret {
        let held = Mutex::new(Held { value: Zeroizing::new(value), modified });
        Secret(Arc::new(Inner { path, held, redactor: Some(redactor.clone()) }))
    }

    /// The value as it is now. A file that cannot be read any more leaves the last value in force.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut held = self.0.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(path) = &self.0.path {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            if modified.is_some()
                && modified != held.modified
                && let Ok((value, modified)) = read(path)
            {
                if let Some(redactor) = &self.0.redactor {
                    redactor.add(&value);
                }
                *held = Held { value: Zeroizing::new(value), modified };
            }
        }
        held.value.clone()
    }
}

fn read(path: &Path) -> Result<(String, Option<SystemTime>), String> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let wrong = |why: &dyn fmt::Display| format!("cannot read {}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > LONGEST {
        return Err(wrong(&format_args!("it has more than {} KiB, which is no secret", LONGEST / 1024)));
    }
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok((value.to_owned(), modified))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Two secrets are equal if they are the same one; their values are never compared this way.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A header value that may be secret.
#[derive(Clone, Debug)]
pub enum HeaderText {
    /// As it is.
    Plain(String),
    /// Revealed only on the wire.
    Secret(Secret),
}

impl HeaderText {
    /// The value for the wire.
    pub fn reveal(&self) -> Zeroizing<String> {
        match self {
            HeaderText::Plain(text) => Zeroizing::new(text.clone()),
            HeaderText::Secret(secret) => secret.reveal(),
        }
    }
}

/// Knows every secret and takes it out of text. Shared by evidence, notices, pages and the log.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Vec<Zeroizing<String>>>>);

/// Shorter values occur by chance in ordinary text; masking them would hide more than it protects.
const SHORTEST: usize = 4;
/// What stands where a text was cut off.
const CUT: char = '…';

impl Redactor {
    /// A redactor that knows nothing yet.
    pub fn new() -> Redactor {
        Redactor::default()
    }

    /// Hides `value`, and the user's part of it if it is a `scheme credentials` pair, from here on; also as they are written
    /// between the quotes of JSON and of debugging output.
    pub fn add(&self, value: &str) {
        let mut known = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let parts = [Some(value), value.split_once(' ').map(|(_, credentials)| credentials)];
        for part in parts.into_iter().flatten().filter(|part| part.len() >= SHORTEST) {
            let quoted = part.replace('\\', "\\\\").replace('"', "\\\"");
            for form in [part.to_owned(), quoted].map(Zeroizing::new) {
                if !known.contains(&form) {
                    known.push(form);
                }
            }
        }
        // Longest first, so that a secret that contains another is hidden whole.
        known.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Hides a password and, from here on, what HTTP makes of it and its user (RFC 7617).
    pub fn add_password(&self, user: &str, password: &str) {
        self.add(password);
        self.add(&base64(format!("{user}:{password}").as_bytes()));
    }

    /// The text without secrets; `None` if it had none. A text that was cut may end in the middle of one: its beginning is hidden
    /// where it stands before the mark of a cut, `…`.
    pub fn redact(&self, text: &str) -> Option<String> {
        let known = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = None;
        for value in known.iter() {
            let text = out.as_deref().unwrap_or(text);
            if text.contains(value.as_str()) {
                out = Some(text.replace(value.as_str(), MASK));
            }
        }
        hide_halves(out.as_deref().unwrap_or(text), &known).or(out)
    }

    /// The text without secrets.
    pub fn clean(&self, text: &str) -> String {
        self.redact(text).unwrap_or_else(|| text.to_owned())
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

fn hide_halves(text: &str, known: &[Zeroizing<String>]) -> Option<String> {
    // A secret may have the mark in it: the half before one mark can hold that before another.
    let mut halves: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices(CUT) {
        let Some(length) = known.iter().filter_map(|value| half_at_end(&text[..at], value)).max() else { continue };
        let mut half = at - length..at;
        while let Some(before) = halves.pop_if(|before| before.end > half.start) {
            half.start = half.start.min(before.start);
        }
        halves.push(half);
    }
    if halves.is_empty() {
        return None;
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), 0);
    for half in halves {
        out.push_str(&text[rest..half.start]);
        out.push_str(MASK);
        rest = half.end;
    }
    out.push_str(&text[rest..]);
    Some(out)
}

/// How much of the beginning of `value` stands at the end of `text`.
fn half_at_end(text: &str, value: &str) -> Option<usize> {
    let ends = value.char_indices().map(|(end, _)| end).filter(|end| *end >= SHORTEST);
    ends.rev().find(|end| text.ends_with(&value[..*end]))
}

/// Base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([0; 2].iter()).take(3).fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 63];
            out.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_is_taken_out_of_text() {
        let redactor = Redactor::new();
        let secret = Secret::new("Bearer s3cr3t-token".to_owned(), &redactor);
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(redactor.clean("got Bearer s3cr3t-token!"), "got •••!");
        assert_eq!(redactor.clean("got s3cr3t-token alone"), "got ••• alone");
        assert_eq!(redactor.redact("nothing here"), None);
        assert_eq!(secret.reveal().as_str(), "Bearer s3cr3t-token");
    }

    #[test]
    fn a_file_without_end_is_no_secret() {
        let refusal = Secret::from_file(Path::new("/dev/zero"), &Redactor::new()).unwrap_err();
        assert_eq!(refusal, "cannot read /dev/zero: it has more than 64 KiB, which is no secret");
    }

    #[test]
    fn a_secret_is_hidden_in_every_form_in_which_it_gets_out() {
        let redactor = Redactor::new();
        redactor.add(r#"pa"ss\word"#);
        redactor.add_password("monitor", "hunter2");
        assert_eq!(redactor.clean(r#"{"x":"pa\"ss\\word"}"#), r#"{"x":"•••"}"#);
        assert_eq!(redactor.clean("authorization: Basic bW9uaXRvcjpodW50ZXIy"), "authorization: Basic •••");
        assert_eq!(redactor.clean("monitor:hunter2@"), "monitor:•••@");
    }

    #[test]
    fn half_a_secret_before_a_cut_is_hidden_and_half_a_word_is_not() {
        let redactor = Redactor::new();
        redactor.add("größe-4711");
        redactor.add("größer-4712-and-more");
        redactor.add("one…two…three");
        for (text, clean) in [
            ("x größe-47… (1040 bytes in all)", "x •••… (1040 bytes in all)"),
            ("größer-4712-a…, größ…", "•••…, •••…"),
            ("größe-4711…", "•••…"),
            ("x gr…", "x gr…"),
            ("one…two…th…", "•••…"),
            ("one…two… and one…tw…", "•••… and •••…"),
            ("größe and größer", "größe and größer"),
        ] {
            assert_eq!(redactor.clean(text), clean);
        }
    }

    /// RFC 4648 section 10.
    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_changed_file_is_read_again_and_its_new_value_is_hidden_too() {
        let path = std::env::temp_dir().join(format!("journeyman-secret-{}", std::process::id()));
        std::fs::write(&path, "first-value\n").unwrap();
        let redactor = Redactor::new();
        let secret = Secret::from_file(&path, &redactor).unwrap();
        assert_eq!(secret.reveal().as_str(), "first-value");
        std::fs::write(&path, "second-value\r\n").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(secret.reveal().as_str(), "second-value");
        assert_eq!(redactor.clean("first-value second-value"), "••• •••");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.reveal().as_str(), "second-value");
        assert!(Secret::from_file(&path, &redactor).unwrap_err().contains("cannot read"));
    }
}
