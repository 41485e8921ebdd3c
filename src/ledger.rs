//! The ledger: tokens still expected, and those settled lately. It says what an arrival is to us.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::Name;
use crate::journey::outcome::labelled;
use crate::journey::token::{Mint, Origin, Token};

labelled! {
    /// What an arrival is to the ledger. The `kind` label of `journeyman_arrivals_total`.
    Kind {
        /// Its run still waits for it.
        Expected = "expected",
        /// Its run has ended without it.
        Late = "late",
        /// Its run has it already.
        Duplicate = "duplicate",
        /// Ours by its check, and no longer, or never, in the ledger.
        Orphan = "orphan",
        /// Another installation's.
        Foreign = "foreign",
        /// Claims to be ours and is not.
        Forged = "forged",
        /// Carries no token, nor a key that anyone waits for.
        Unmatched = "unmatched",
        /// Not let in: wrong signature, too large, or filtered out.
        Refused = "refused",
    }
}

/// One token in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose run.
    pub journey: Name,
    /// Which slot.
    pub slot: Timestamp,
    /// When it was recorded, just before its send.
    pub recorded: Timestamp,
    /// Until when an arrival is still of interest.
    pub keep_until: Timestamp,
    /// How its run ended, once it has.
    pub settled: Option<Settled>,
}

/// What became of a token's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The message had arrived.
    Arrived,
    /// The message had not arrived.
    Missing,
}

/// What an arrival turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its kind.
    pub kind: Kind,
    /// The token, if it had one.
    pub token: Option<Token>,
    /// The journey, where it is known.
    pub journey: Option<Name>,
    /// The slot of the run, where it is known.
    pub slot: Option<Timestamp>,
}

/// Tokens by what we know of them. Plain data: the edge makes it durable.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<Token, Entry>,
}

impl Ledger {
    /// Expects `token` from here on.
    pub fn expect(&mut self, token: Token, entry: Entry) {
        self.entries.insert(token, entry);
    }

    /// What is known of `token`.
    pub fn entry(&self, token: Token) -> Option<&Entry> {
        self.entries.get(&token)
    }

    /// Its run has ended; later arrivals are late or duplicates.
    pub fn settle(&mut self, token: Token, how: Settled) {
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.settled = Some(how);
        }
    }

    /// Says what an arrival with this token is, and remembers that it came.
    pub fn sight(&mut self, token: Token, mint: &Mint) -> Sighting {
        let kind = match (self.entries.get_mut(&token), mint.origin(token)) {
            (Some(Entry { settled: None, .. }), _) => Kind::Expected,
            (Some(entry @ Entry { settled: Some(Settled::Missing), .. }), _) => {
                entry.settled = Some(Settled::Arrived);
                Kind::Late
            }
            (Some(Entry { settled: Some(Settled::Arrived), .. }), _) => Kind::Duplicate,
            (None, Origin::Ours) => Kind::Orphan,
            (None, Origin::Foreign) => Kind::Foreign,
            (None, Origin::Forged) => Kind::Forged,
        };
        let entry = self.entries.get(&token);
        Sighting {
            kind,
            token: Some(token),
            journey: entry.map(|entry| entry.journey.clone()),
            slot: entry.map(|entry| entry.slot),
        }
    }

    /// Forgets what is no longer of interest at `now`.
    pub fn expire(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| entry.settled.is_none() || entry.keep_until > now);
    }

    /// How many tokens are expected, and how many are remembered.
    pub fn size(&self) -> (usize, usize) {
        let expected = self.entries.values().filter(|entry| entry.settled.is_none()).count();
        (expected, self.entries.len() - expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn entry() -> Entry {
        Entry { journey: "sms".into(), slot: at(0), recorded: at(1), keep_until: at(600), settled: None }
    }

    #[test]
    fn every_kind_of_arrival_is_told_apart() {
        let (ours, theirs) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let mut ledger = Ledger::default();
        let token = ours.issue(at(0));
        ledger.expect(token, entry());
        assert_eq!(ledger.sight(token, &ours).kind, Kind::Expected);
        ledger.settle(token, Settled::Arrived);
        assert_eq!(ledger.sight(token, &ours).kind, Kind::Duplicate);

        let lost = ours.issue(at(1));
        ledger.expect(lost, entry());
        ledger.settle(lost, Settled::Missing);
        let late = ledger.sight(lost, &ours);
        assert_eq!((late.kind, late.journey.as_deref(), late.slot), (Kind::Late, Some("sms"), Some(at(0))));
        assert_eq!(ledger.sight(lost, &ours).kind, Kind::Duplicate, "the second late copy is a duplicate");

        assert_eq!(ledger.sight(ours.issue(at(2)), &ours).kind, Kind::Orphan);
        assert_eq!(ledger.sight(theirs.issue(at(2)), &ours).kind, Kind::Foreign);
        assert_eq!(ledger.sight(Token::from_bits(ours.issue(at(2)).bits() ^ 1), &ours).kind, Kind::Forged);
    }

    #[test]
    fn what_is_expected_is_never_forgotten_and_what_is_settled_is_in_time() {
        let mint = Mint::new([1; 32], 0);
        let (waiting, settled) = (mint.issue(at(0)), mint.issue(at(1)));
        let mut ledger = Ledger::default();
        ledger.expect(waiting, entry());
        ledger.expect(settled, entry());
        ledger.settle(settled, Settled::Arrived);
        ledger.expire(at(599));
        assert_eq!(ledger.size(), (1, 1));
        ledger.expire(at(600));
        assert_eq!(ledger.size(), (1, 0));
        assert_eq!(ledger.sight(settled, &mint).kind, Kind::Orphan);
    }
}
