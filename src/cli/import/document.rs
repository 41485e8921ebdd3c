//! What is written: a daemon's file with channels, notifiers and journeys, and beside it what was left out.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use url::Url;

use crate::cli::import::Note;

/// The file as it grows.
pub(super) struct Document {
    notes: Vec<Note>,
    channels: Vec<Channel>,
    notifiers: Vec<(String, String)>,
    journeys: Vec<String>,
    names: BTreeSet<String>,
}

struct Channel {
    name: String,
    body: String,
}

/// What every journey has.
pub(super) struct Heading {
    /// Where it was.
    pub(super) line: u64,
    /// What it was called.
    pub(super) name: String,
    pub(super) every: String,
    /// Further lines, each `key = value`.
    pub(super) keys: Vec<String>,
}

impl Document {
    pub(super) fn new() -> Document {
        let (notes, channels, notifiers, journeys, names) = Default::default();
        Document { notes, channels, notifiers, journeys, names }
    }

    /// Something that is not as it was: what used to be checked or told is not.
    pub(super) fn left_out(&mut self, line: u64, text: impl Into<String>) {
        self.notes.push(Note { line, text: text.into(), is_loss: true });
    }

    /// Something worth knowing.
    pub(super) fn note(&mut self, line: u64, text: impl Into<String>) {
        self.notes.push(Note { line, text: text.into(), is_loss: false });
    }

    /// The name of the channel that is like this, made if there is none.
    pub(super) fn channel(&mut self, wanted: &str, body: &str) -> String {
        if let Some(channel) = self.channels.iter().find(|channel| channel.body == body) {
            return channel.name.clone();
        }
        let wanted = name_of(wanted);
        let is_free = |name: &String| name != "http" && self.channels.iter().all(|channel| channel.name != *name);
        let name = free(&wanted, is_free);
        self.channels.push(Channel { name: name.clone(), body: body.to_owned() });
        name
    }

    /// The channel of an address, and the rest of it; why not, if that is no address of the web.
    pub(super) fn web(&mut self, address: &str, follows: bool) -> Result<(String, String), String> {
        let url = Url::parse(address).map_err(|error| format!("`{address}` is no address: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.scheme(), "http" | "https") || host.is_empty() {
            return Err(format!("`{address}` is no address of the web"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("there are a user and a password in the address".to_owned());
        }
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let origin = format!("{}://{host}{port}", url.scheme());
        let redirects = if follows { "redirects = 3\n" } else { "" };
        let channel = self.channel(host, &format!("type = \"http\"\nurl = {}\n{redirects}", quoted(&origin)));
        let query = url.query().map_or(String::new(), |query| format!("?{query}"));
        Ok((channel, format!("{}{query}", url.path())))
    }

    pub(super) fn notifier(&mut self, name: &str, body: String) {
        self.notifiers.push((name.to_owned(), body));
    }

    pub(super) fn has_notifier(&self, name: &str) -> bool {
        self.notifiers.iter().any(|(other, _)| other == name)
    }

    /// Adds a journey of one step.
    pub(super) fn journey(&mut self, heading: Heading, step: &[String]) {
        let name = free(&name_of(&heading.name), |name| !self.names.contains(name));
        self.names.insert(name.clone());
        let mut text = format!("# line {}\n[[journey]]\nname = {}\n", heading.line, quoted(&name));
        let _ = writeln!(text, "every = {}", quoted(&heading.every));
        for key in &heading.keys {
            let _ = writeln!(text, "{key}");
        }
        text.push_str("\n  [[journey.step]]\n");
        for key in step {
            let _ = writeln!(text, "  {key}");
        }
        // What was left out of it stands with it, for whoever goes on from here.
        self.journeys.push(text);
    }

    /// The file, and the notes in the order of what they are about.
    pub(super) fn finish(mut self, what: &str) -> (String, Vec<Note>) {
        self.notes.sort_by_key(|note| note.line);
        let mut text = format!(
            "# Made by `journeyman import` of {what}. `journeyman check --config FILE` says whether it is in order.\n"
        );
        if self.notes.iter().any(|note| note.is_loss) {
            text.push_str("#\n# Left out, with the lines where it was:\n");
            for note in self.notes.iter().filter(|note| note.is_loss) {
                let said = crate::text::visible_line(&note.text);
                let _ = writeln!(text, "#   {}: {said}", note.line);
            }
        }
        for channel in &self.channels {
            let _ = write!(text, "\n[channels.{}]\n{}", quoted(&channel.name), channel.body);
        }
        for (name, body) in &self.notifiers {
            let _ = write!(text, "\n[notifiers.{}]\n{body}", quoted(name));
        }
        for journey in &self.journeys {
            let _ = write!(text, "\n{journey}");
        }
        (text, self.notes)
    }
}

fn free(wanted: &str, is_free: impl Fn(&String) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| wanted.to_owned())
}

/// A name as ours are: letters, digits, `-`, `_` and `.`.
pub(in crate::cli) fn name_of(text: &str) -> String {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut name = String::new();
    for c in text.trim().chars() {
        match c {
            c if is_inner(c) => name.push(c),
            // What cannot stand in a name is a gap, however long.
            _ if !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name: String = name.trim_matches(['-', '.', '_']).chars().take(90).collect();
    match name.as_str() {
        "" => "unnamed".to_owned(),
        "journeyman" | "journeyman-call" => format!("{name}-imported"),
        _ => name,
    }
}

/// A TOML string.
pub(in crate::cli) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// A TOML string that is a template here, and was none there.
pub(super) fn plain(text: &str) -> String {
    quoted(&text.replace("{{", "{{ \"{{\" }}"))
}

/// A secret as it was: out of the environment, or as it stood there.
pub(super) fn secret(text: &str) -> String {
    let variable = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match variable
        .or_else(|| text.strip_prefix('$').filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')))
    {
        Some(name) if !name.is_empty() => format!("{{ env = {} }}", quoted(name)),
        _ => quoted(text),
    }
}

/// A length of time as ours are; `None` if it is none that we can write.
pub(super) fn duration(text: &str) -> Option<String> {
    crate::time::parse_duration(text).ok().filter(|found| !found.is_zero())?;
    Some(text.to_owned())
}

/// A table of texts within a line.
pub(super) fn inline(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{} = {value}", quoted(key))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A list over several lines.
pub(super) fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("\n    {item},")).collect();
    format!("[{items}\n  ]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_become_ours() {
        for (text, expected) in [
            ("core.web site", "core.web-site"),
            ("a / b!", "a-b"),
            ("größe", "gr-e"),
            ("  ", "unnamed"),
            ("journeyman", "journeyman-imported"),
        ] {
            assert_eq!(name_of(text), expected);
        }
        assert_eq!(quoted("a\"\\\n\u{1}"), r#""a\"\\\n\u0001""#);
        assert_eq!(plain("{{x}}"), r#""{{ \"{{\" }}x}}""#);
        assert_eq!(secret("${SLACK_URL}"), "{ env = \"SLACK_URL\" }");
        assert_eq!(secret("$TOKEN"), "{ env = \"TOKEN\" }");
        assert_eq!(secret("pa$$word"), "\"pa$$word\"");
        assert_eq!((duration("1h30m").as_deref(), duration("0.5h"), duration("0s")), (Some("1h30m"), None, None));
    }
}
