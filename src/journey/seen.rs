//! What a run met: who really answered, by which certificate, under which banner. Kept with the evidence of every run, so that
//! a run that failed can be held against the last good one.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::outcome::labelled;

/// A value is kept up to this many characters.
pub const LONGEST: usize = 200;

labelled! {
    /// What can be met. Closed, so that two runs speak of the same thing by the same name.
    What {
        /// The monitor's own version.
        Version = "version",
        /// The journey's definition, by its fingerprint.
        Configuration = "configuration",
        /// What the host's name stands for, in order of the addresses.
        Addresses = "addresses",
        /// The address and port that the connection is really with.
        Peer = "peer",
        /// The protocol's version, and the cipher where it is known.
        Tls = "tls",
        /// The certificate that was shown, whether or not it was taken: until when, which, and whose.
        Certificate = "certificate",
        /// The words with which the server greets.
        Banner = "banner",
        /// What it says that it is: product and version.
        Server = "server",
        /// Which one of several it is.
        Node = "node",
        /// What it belongs to.
        Cluster = "cluster",
        /// What it is there: a primary, a replica.
        Role = "role",
        /// What a name server answered.
        NameServerAnswer = "name_server_answer",
        /// That it makes us slow down, in its words or for how long.
        Throttled = "throttled",
    }
}

impl What {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            What::Version => "Journeyman's version",
            What::Configuration => "the journey's definition",
            What::NameServerAnswer => "the name server's answer",
            other => other.as_str(),
        }
    }
}

/// One thing that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What it is.
    pub what: What,
    /// As what it showed itself. Shared by all runs over one connection.
    pub is: Arc<str>,
}

impl Seen {
    /// `is`, on one line of at most [`LONGEST`] characters: what servers say ends up in notices.
    pub fn new(what: What, is: &str) -> Seen {
        let clean: String = is.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = line.char_indices().nth(LONGEST) {
            // The mark tells the redactor that a secret may be cut in two here.
            line.truncate(end);
            line.push('…');
        }
        Seen { what, is: line.into() }
    }
}

/// Adds `seen`; of each kind the last stays, and all stand in the order of [`What`].
pub fn keep(all: &mut Vec<Seen>, seen: Seen) {
    match all.binary_search_by_key(&seen.what, |other| other.what) {
        Ok(at) => all[at] = seen,
        Err(at) => all.insert(at, seen),
    }
}

/// The thing of this kind among `all`.
pub fn find(all: &[Seen], what: What) -> Option<&str> {
    all.iter().find(|seen| seen.what == what).map(|seen| &*seen.is)
}

/// How a certificate is told. [`valid_until`] reads it.
pub fn certificate(until: Timestamp, serial: &str, issuer: &str) -> String {
    let issuer = if issuer.is_empty() { "an issuer without a name" } else { issuer };
    format!("{UNTIL}{}, serial {serial}, from {issuer}", until.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

/// Until when the certificate that is told so is valid.
pub fn valid_until(told: &str) -> Option<Timestamp> {
    told.strip_prefix(UNTIL)?.split(',').next()?.parse().ok()
}

const UNTIL: &str = "until ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_and_has_an_end() {
        let seen = Seen::new(What::Banner, "220 mx\r\n\tready \u{7f} ");
        assert_eq!(&*seen.is, "220 mx ready");
        let seen = Seen::new(What::Banner, &"ü".repeat(LONGEST + 1));
        assert_eq!(seen.is.chars().count(), LONGEST + 1);
        assert!(seen.is.ends_with('…'));
        assert_eq!(Seen::new(What::Banner, &"x".repeat(LONGEST)).is.len(), LONGEST);
    }

    #[test]
    fn of_each_kind_the_last_stays_in_one_order() {
        let mut all = Vec::new();
        for (what, is) in [(What::Server, "a"), (What::Peer, "b"), (What::Server, "c"), (What::Tls, "d")] {
            keep(&mut all, Seen::new(what, is));
        }
        let shown: Vec<_> = all.iter().map(|seen| (seen.what, &*seen.is)).collect();
        assert_eq!(shown, [(What::Peer, "b"), (What::Tls, "d"), (What::Server, "c")]);
        assert_eq!(find(&all, What::Server), Some("c"));
        assert_eq!(find(&all, What::Banner), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_read_as_it_is_told() {
        let until: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        let told = certificate(until, "0a1b", "Example CA, Inc.");
        assert_eq!(told, "until 2026-12-01T10:00:00Z, serial 0a1b, from Example CA, Inc.");
        assert_eq!(valid_until(&told), Some(until));
        assert!(valid_until(&certificate(Timestamp::MAX, "1", "")).is_some());
        assert_eq!(valid_until("•••"), None);
    }
}
