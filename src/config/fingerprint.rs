//! What a definition comes to in a few digits, so that a run can say by which one it ran.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use crate::config::document::{Data, Node};
use crate::config::secrets::is_secret_name;

/// So many bytes tell two edits of one definition apart.
const BYTES: usize = 6;

/// The fingerprint of these tables. Where they stand, comments and the order of keys do not count; nor does what a secret says,
/// because pages show the fingerprint and a short secret could be guessed by it.
pub(super) fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> String {
    digits(hash(nodes, false))
}

/// The fingerprint of a text.
pub(super) fn of_text(text: &str) -> String {
    digits(Sha256::digest(text).into())
}

fn digits(hash: [u8; 32]) -> String {
    hash.iter().take(BYTES).fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// What a definition is, secrets included: equal for equal tables, and for no others. It is never shown and never kept, because a short
/// secret could be guessed by it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity([u8; 32]);

impl Identity {
    /// That of these tables.
    pub(super) fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Identity {
        Identity(hash(nodes, true))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

fn hash<'a>(nodes: impl IntoIterator<Item = &'a Node>, with_secrets: bool) -> [u8; 32] {
    let mut hash = Sha256::new();
    for node in nodes {
        feed(&mut hash, node, "", with_secrets);
    }
    hash.finalize().into()
}

fn feed(hash: &mut Sha256, node: &Node, key: &str, with_secrets: bool) {
    // Each value with its kind and its length before it: no two trees make one text.
    let mut value = |kind: char, text: &str| hash.update(format!("{kind}{}:{text}", text.len()));
    match &node.data {
        Data::Text(_) if !with_secrets && is_secret_name(key) => value('t', ""),
        Data::Text(text) => match node.place.without_secrets().filter(|_| !with_secrets) {
            Some(shown) => value('t', &shown),
            None => value('t', text),
        },
        Data::Integer(text) => value('i', text),
        Data::Float(text) => value('f', text),
        Data::Bool(is_so) => value('b', if *is_so { "1" } else { "0" }),
        Data::Datetime(text) => value('d', text),
        Data::List(items) => {
            value('l', &items.len().to_string());
            items.iter().for_each(|item| feed(hash, item, key, with_secrets));
        }
        Data::Table(entries) => {
            value('m', &entries.len().to_string());
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|one, other| one.key.cmp(&other.key));
            for entry in entries {
                hash.update(format!("k{}:{}", entry.key.len(), entry.key));
                feed(hash, &entry.value, &entry.key, with_secrets);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::load_text;

    fn fingerprint(defaults: &str, journey: &str) -> String {
        let main = format!("[channels.gateway]\ntype = \"http\"\nurl = \"http://127.0.0.1:1\"\n{defaults}");
        let probe = format!(
            "[[journey]]\nname = \"sms\"\nmuted = true\n{journey}\n[[journey.step]]\nname = \"submit\"\nrequest = \"gateway\"\npath = \"/\"\n"
        );
        let loaded = load_text("journeyman.toml", &main, &[("probe.toml", &probe)], Path::new("/"));
        loaded.unwrap_or_else(|problems| panic!("{problems:#?}")).0.journeys[0].fingerprint.clone()
    }

    #[test]
    fn an_edit_shows_and_how_it_is_written_does_not() {
        let one = fingerprint("", "every = \"1m\"\nbudget = \"5s\"");
        assert_eq!(one.len(), 12);
        assert_eq!(one, fingerprint("", "# a comment\nbudget = '5s'\nevery = \"1m\""));
        assert_eq!(one, fingerprint("[defaults]\nbudget = \"5s\"", "every = \"1m\""));
        for other in
            ["every = \"1m\"\nbudget = \"6s\"", "every = \"1m\"", "every = \"1m\"\nbudget = \"5s\"\nowner = \"me\""]
        {
            assert_ne!(one, fingerprint("", other), "{other}");
        }
    }

    #[test]
    fn a_secret_is_not_to_be_guessed_by_it() {
        let with = |secret: &str| {
            let main = "[channels.gateway]\ntype = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
            let probe = format!(
                "[[journey]]\nname = \"sms\"\nmuted = true\nevery = \"1m\"\n[[journey.step]]\nname = \"submit\"\nrequest = \"gateway\"\npath = \"/\"\nheaders = {{ authorization = \"{secret}\" }}\n"
            );
            let loaded = load_text("journeyman.toml", main, &[("probe.toml", &probe)], Path::new("/"));
            loaded.unwrap_or_else(|problems| panic!("{problems:#?}")).0.journeys[0].fingerprint.clone()
        };
        assert_eq!(with("1234"), with("4321"));
    }
}
