//! Secrets in a configuration: where they are kept, and keeping literal ones out of what problems show.

use std::sync::{Arc, LazyLock};

use regex::Regex;
use url::Url;

use crate::config::document::{Context, Data, Node, Section};
use crate::config::problem::{Problem, Source};
use crate::config::{files, values};
use crate::secret::{HeaderText, Secret};

pub(super) const SECRET_KEYS: &[&str] = &["file", "credential", "env"];

/// A part of a secret URL that is as long as this is a key and not a word.
const URL_KEY: usize = 16;

const WHERE: &str = "write `{ file = \"…\" }`, `{ credential = \"…\" }` (systemd) or `{ env = \"…\" }`";

impl Context {
    /// A secret. A literal one is accepted, with a warning.
    pub(super) fn secret(&self, node: &Node, key: &str) -> Option<Secret> {
        match &node.data {
            Data::Text(text) => {
                hide_text(node);
                if text.is_empty() {
                    self.add(Problem::error(&node.place, format!("`{key}` is empty")));
                    return None;
                }
                let problem = Problem::warning(&node.place, format!("`{key}` is a literal secret"));
                self.add(problem.hint(format!("put it in a file that only Journeyman can read, and {WHERE}")));
                Some(Secret::new(text.clone(), &self.redactor))
            }
            Data::Table(_) => self.secret_elsewhere(node, key),
            _ => {
                self.expected(node, key, "a secret");
                None
            }
        }
    }

    fn secret_elsewhere(&self, node: &Node, key: &str) -> Option<Secret> {
        let section = Section::open(self, node, key, SECRET_KEYS)?;
        let (place, value) = section.only_one(SECRET_KEYS, true, WHERE)?;
        let text = self.text(value, place)?;
        let path = match place {
            "env" => {
                let found = environment(text).filter(|value| !value.is_empty());
                if found.is_none() {
                    let problem = format!("the environment has no variable `{text}`, or it is empty");
                    self.add(Problem::error(&value.place, problem));
                }
                return found.map(|value| Secret::new(value, &self.redactor));
            }
            "credential" => {
                if text.is_empty() || text.contains('/') || text == ".." {
                    self.add(Problem::error(&value.place, "a credential is named without a path"));
                    return None;
                }
                let Some(directory) = environment("CREDENTIALS_DIRECTORY") else {
                    let problem = "there are no credentials: `CREDENTIALS_DIRECTORY` is not set";
                    let hint = format!("the service manager sets it: `LoadCredential={text}:/path` in the unit");
                    self.add(Problem::error(&value.place, problem).hint(hint));
                    return None;
                };
                std::path::Path::new(&directory).join(text)
            }
            _ => files::clean(&self.base.join(text)),
        };
        match Secret::from_file(&path, &self.redactor) {
            Ok(secret) => Some(secret),
            Err(reason) => {
                let problem = Problem::error(&value.place, format!("the secret of `{key}` is not there: {reason}"));
                self.add(
                    problem.maybe_hint((place == "file").then(|| "paths are relative to the daemon's file".into())),
                );
                None
            }
        }
    }

    /// A URL that may hold a password, which is then a secret.
    pub(super) fn url(&self, node: &Node, key: &str, schemes: &[&str]) -> Option<Url> {
        let text = self.text(node, key)?;
        let url = self.parsed_url(node, key, text, schemes)?;
        if url.password().is_some() {
            let problem = Problem::warning(&node.place, format!("`{key}` has a literal secret in it: the password"));
            self.add(problem.hint("put it in a file that only Journeyman can read, if the key takes one"));
        }
        Some(url)
    }

    /// A URL that is kept as a secret: written out, or elsewhere as a whole. `is_secret` if even the address is one.
    pub(super) fn secret_url(
        &self,
        node: &Node,
        key: &str,
        schemes: &[&str],
        is_secret: bool,
    ) -> Option<(Secret, Url)> {
        if let (Data::Text(text), false) = (&node.data, is_secret) {
            let url = self.url(node, key, schemes)?;
            // The redactor must not learn an address without a secret in it: it would blacken every page.
            let hidden = url.password().is_some();
            let redactor = if hidden { self.redactor.clone() } else { crate::secret::Redactor::new() };
            return Some((Secret::new(text.clone(), &redactor), url));
        }
        let secret = self.secret(node, key)?;
        let url = self.parsed_url(node, key, &secret.reveal(), schemes)?;
        if matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            // A server that refuses a call often repeats the path, and not the host.
            let segments = url.path().split('/').map(str::to_owned);
            let keys = segments.chain(url.query_pairs().map(|(_, value)| value.into_owned()));
            keys.filter(|key| key.len() >= URL_KEY).for_each(|key| self.redactor.add(&key));
        }
        Some((secret, url))
    }

    pub(super) fn parsed_url(&self, node: &Node, key: &str, text: &str, schemes: &[&str]) -> Option<Url> {
        let begins: Vec<_> = schemes.iter().map(|scheme| format!("`{scheme}://`")).collect();
        let begins = begins.join(" or ");
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(reason) => {
                let problem = Problem::error(&node.place, format!("`{key}` is not a URL: {reason}"));
                self.add(problem.hint(format!("it begins with {begins}")));
                return None;
            }
        };
        if !schemes.contains(&url.scheme()) || !url.has_host() {
            self.add(Problem::error(&node.place, format!("`{key}` must be a URL that begins with {begins}")));
            return None;
        }
        if let Some(password) = url.password() {
            self.redactor.add(password);
            self.redactor.add_password(&decoded(url.username()), &decoded(password));
        }
        Some(url)
    }

    /// Header fields, each plain or secret.
    pub(super) fn headers(&self, node: &Node, key: &str) -> Vec<(String, HeaderText)> {
        let mut headers = Vec::new();
        for entry in self.table(node, key).unwrap_or_default() {
            if !is_header_name(&entry.key) {
                self.add(Problem::error(&entry.key_place, format!("`{}` is not the name of a header", entry.key)));
            }
            let value = match &entry.value.data {
                Data::Text(text) if !is_secret_name(&entry.key) => {
                    if text.chars().any(char::is_control) {
                        self.add(Problem::error(&entry.value.place, "a header has no control characters in it"));
                    }
                    Some(HeaderText::Plain(text.clone()))
                }
                _ => self.secret(&entry.value, &entry.key).map(HeaderText::Secret),
            };
            headers.extend(value.map(|value| (entry.key.clone(), value)));
        }
        headers
    }
}

/// RFC 9110 section 5.6.2: a token.
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Percent-decoded text, as user names and passwords are written in URLs (RFC 3986 section 2.1).
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A variable of the environment.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn environment(name: &str) -> Option<String> {
    // A name with `=` or NUL in it names nothing, and older platforms panic on it.
    if name.is_empty() || name.contains(['=', '\0']) { None } else { std::env::var(name).ok() }
}

/// Whether a key of that name, or one that is probably meant to be, holds a secret.
pub(super) fn is_secret_name(key: &str) -> bool {
    const PARTS: &[&str] = &["token", "secret", "passw", "auth", "cookie", "api-key", "api_key", "apikey", "signing"];
    const NAMES: &[&str] = &["token", "secret", "secrets", "password", "webhook_url", "admin_token", "signing_key"];
    let key = key.to_lowercase();
    PARTS.iter().any(|part| key.contains(part)) || values::nearest(&key, NAMES.iter().copied()).is_some()
}

/// Whether a key is `routing_key`, or probably meant to be.
fn is_routing_key(key: &str) -> bool {
    values::nearest(&key.to_lowercase(), ["routing_key"]).is_some()
}

/// Hides what stands between the quotes of a string.
pub(super) fn hide_text(node: &Node) {
    let (range, text) = (node.place.range(), node.place.text());
    let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| text.starts_with(quotes)).map_or(0, str::len);
    node.place.source().hide(range.start + quotes..range.end.saturating_sub(quotes).max(range.start + quotes));
}

/// Hides the literal secrets of a file: the strings under a key that holds secrets, or is a misspelling of one.
pub(super) fn hide(root: &Node) {
    for entry in root.entries() {
        let part = match entry.key.as_str() {
            "journey" | "fragment" | "defaults" => Part::Journey,
            "notifiers" => Part::Notifier,
            _ => Part::Other,
        };
        hide_below(&entry.value, &entry.key, part);
    }
}

/// What a key means depends on where it stands.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// Only headers hold secrets: a payload's `token` is not one.
    Journey,
    /// PagerDuty's `routing_key` is a secret, and a broker's is not.
    Notifier,
    Other,
}

fn hide_below(node: &Node, key: &str, part: Part) {
    let is_secret = match part {
        Part::Journey => false,
        Part::Notifier => is_secret_name(key) || is_routing_key(key),
        Part::Other => is_secret_name(key),
    };
    match &node.data {
        Data::Text(_) if is_secret => hide_text(node),
        Data::List(items) => items.iter().for_each(|item| hide_below(item, key, part)),
        Data::Table(entries) => {
            let part = if part == Part::Journey && key == "headers" { Part::Other } else { part };
            entries.iter().for_each(|entry| hide_below(&entry.value, &entry.key, part));
        }
        _ => {}
    }
}

/// Hides the passwords in URLs, also in one that breaks off before its host.
pub(super) fn hide_passwords(source: &Arc<Source>) {
    static PASSWORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"://[^/\s:@"'\[]*:([^\s"']+)"#).expect("a valid pattern"));
    for found in PASSWORD.captures_iter(source.text()).filter_map(|found| found.get(1)) {
        let is_port =
            found.as_str().split(['/', '?']).next().is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
        match found.as_str().rfind('@') {
            Some(end) => source.hide(found.start()..found.start() + end),
            None if is_port => {}
            None => source.hide(found.range()),
        }
    }
}

/// Hides what stands behind the name of a secret in a file that is not TOML.
pub(super) fn hide_by_name(source: &Arc<Source>) {
    static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"([A-Za-z0-9_-]+)["']?[ \t]*=[ \t]*("""|'''|"|'|\[|\{)?"#).expect("a valid pattern")
    });
    let text = source.text();
    for found in ASSIGNED.captures_iter(text).filter(|found| is_secret_name(&found[1]) || is_routing_key(&found[1])) {
        let start = found.get(0).map_or(0, |all| all.end());
        let rest = &text[start..];
        let line = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let length = match found.get(2).map(|quotes| quotes.as_str()) {
            // Where the secret is kept, not the secret.
            Some("{") => 0,
            Some("[") => rest.find(']').unwrap_or(rest.len()),
            Some(quotes) if quotes.len() == 3 => rest.find(quotes).unwrap_or(rest.len()),
            Some(quotes) => rest[..line].find(quotes).unwrap_or(line),
            None => line,
        };
        source.hide(start..start + length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::{Place, render};

    fn shown(text: &str, prepare: impl Fn(&Arc<Source>)) -> String {
        let source = Source::new("a.toml", text, 0);
        prepare(&source);
        let lines = text.lines().scan(0, |at, line| {
            let start = *at;
            *at += line.len() + 1;
            Some(start)
        });
        lines.map(|start| render(&[Problem::error(&Place::new(&source, start..start), "x")], false)).collect()
    }

    #[test]
    fn no_literal_secret_is_shown_whatever_else_is_wrong() {
        let cases = [
            "[notifiers.a]\ntoken = \"CANARY\"",
            "[notifiers.a]\ntokn = 'CANARY'",
            "[notifiers.a]\nrouting_key = \"CANARY\"",
            "[notifiers.a]\nrouting_kye = 'CANARY'",
            "[channels.a]\nverify = { secrets = [\"CANARY\", 'CANARY'] }",
            "[channels.a]\nheaders = { Authorization = \"Bearer CANARY\", \"X-Api-Key\" = \"CANARY\" }",
            "[[journey]]\n[[journey.step]]\nheaders = { authorization = \"CANARY\" }",
            "[channels.a]\nurl = \"amqp://user:CANARY@host\"",
            "admin_token = \"\"\"CANARY\nCANARY\"\"\"",
        ];
        for case in cases {
            let parsed = shown(case, |source| {
                assert!(Node::parse(&Context::new(".".into()), source).is_some(), "{case}");
            });
            assert!(!parsed.contains("CANARY") && parsed.contains("•••"), "{case}\n{parsed}");
            for cut in (0..case.len()).filter(|at| !case[..*at].ends_with("CANARY")) {
                let broken = format!("{}\n= broken", &case[..cut]);
                let told = shown(&broken, |source| {
                    let _ = Node::parse(&Context::new(".".into()), source);
                });
                assert!(!told.contains("CANAR"), "{broken}\n{told}");
            }
        }
    }

    #[test]
    fn unquoted_secrets_and_those_without_an_end_are_hidden() {
        for case in
            ["token = CANARY", "token = \"CANARY", "secrets = [\"CANARY\", \"CANARY", "password = '''CANARY\nCANARY"]
        {
            let told = shown(case, |source| {
                assert!(Node::parse(&Context::new(".".into()), source).is_none(), "{case}");
            });
            assert!(!told.contains("CANARY"), "{told}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        let text = "[[journey]]\nname = 'sms'\n[[journey.step]]\njson = { token = '{{ token }}' }\n[channels.a]\nrouting_key = 'a'";
        let told = shown(text, |source| {
            assert!(Node::parse(&Context::new(".".into()), source).is_some());
        });
        assert!(!told.contains("•••"), "{told}");
    }

    #[test]
    fn users_and_passwords_are_decoded() {
        assert_eq!(decoded("user%40example.net"), "user@example.net");
        assert_eq!(decoded("a+b%3d&%zz%"), "a+b=&%zz%");
    }
}
