//! Tokens: 128 bits that go out in every message and are recognised when they come back.
//!
//! From the most significant bit: 48 bits of milliseconds since the Unix epoch, 16 bits that name the installation,
//! 24 bits that tell tokens of one millisecond apart, 40 bits of keyed check (HMAC-SHA-256 over the first 88, truncated).
//! So a stranger's token and a forged one are told from ours, and from each other, without a look-up:
//! another installation's token carries another name (*foreign*), one that claims our name without our key fails the check (*forged*).
//!
//! In text: `jm` and 26 characters of Crockford base32 in lower case. As a trace id: the same 128 bits in hexadecimal,
//! so a token found in a log is the trace to look for.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "jm";
/// Length of the text form in bytes.
pub const TEXT_LENGTH: usize = 28;
const CHECK_BITS: u32 = 40;
const SERIAL_BITS: u32 = 24;
const INSTANCE_BITS: u32 = 16;

/// A token. Two are equal only if they are the same run's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u128);

impl Token {
    /// The token with these 128 bits, as read from storage or a trace header. Says nothing about whose it is.
    pub fn from_bits(bits: u128) -> Self {
        Token(bits)
    }

    /// The 128 bits.
    pub fn bits(self) -> u128 {
        self.0
    }

    /// When the token was issued, to the millisecond.
    pub fn issued(self) -> Timestamp {
        let millis = (self.0 >> (128 - 48)) as i64;
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The W3C trace id: 32 hexadecimal digits.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The W3C `traceparent` header value, sampled, with the run's serial as parent id.
    /// <https://www.w3.org/TR/trace-context/#traceparent-header>
    pub fn traceparent(self) -> String {
        // A parent id of zero is invalid; the low 64 bits hold serial and check, and the low bit is forced for the one bad case.
        let parent = (self.0 as u64).max(1);
        format!("00-{:032x}-{parent:016x}-01", self.0)
    }

    /// Reads exactly one token in text form; either case is accepted, because gateways fold it.
    pub fn parse(text: &str) -> Option<Token> {
        let bytes = text.as_bytes();
        if bytes.len() != TEXT_LENGTH || !bytes[..2].eq_ignore_ascii_case(PREFIX.as_bytes()) {
            return None;
        }
        // 26 characters carry 130 bits; the first may therefore only use its low three.
        let first = digit(bytes[2])?;
        if first > 7 {
            return None;
        }
        bytes[2..].iter().try_fold(0u128, |bits, byte| Some(bits << 5 | u128::from(digit(*byte)?))).map(Token)
    }

    /// Every token-shaped text in `haystack`, left to right.
    pub fn find_all(haystack: &[u8]) -> impl Iterator<Item = Token> + '_ {
        haystack
            .windows(TEXT_LENGTH)
            .filter(|window| window[..2].eq_ignore_ascii_case(PREFIX.as_bytes()))
            .filter_map(|window| Token::parse(std::str::from_utf8(window).ok()?))
    }
}

fn digit(byte: u8) -> Option<u8> {
    let lower = byte.to_ascii_lowercase();
    ALPHABET.iter().position(|symbol| *symbol == lower).map(|at| at as u8)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written in one piece: it is done several times a run.
        let symbols: [u8; 26] = std::array::from_fn(|nth| ALPHABET[(self.0 >> ((25 - nth) * 5)) as usize & 31]);
        f.write_str(PREFIX)?;
        f.write_str(std::str::from_utf8(&symbols).unwrap_or_default())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Token::parse(&text).ok_or_else(|| serde::de::Error::custom("not a token"))
    }
}

/// Whose a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Issued with our key.
    Ours,
    /// Another installation's.
    Foreign,
    /// Claims to be ours and was not issued with our key.
    Forged,
}

/// Issues tokens and tells whose a token is. One per installation; the key is kept in the store.
pub struct Mint {
    key: [u8; 32],
    instance: u16,
    serial: AtomicU32,
}

impl Mint {
    /// A mint for the installation that holds `key`. `start` seeds the serial, so that two processes of one
    /// installation that issue in the same millisecond differ.
    pub fn new(key: [u8; 32], start: u32) -> Self {
        let mut mint = Mint { key, instance: 0, serial: AtomicU32::new(start) };
        mint.instance = (mint.mac(b"instance") >> 24) as u16;
        mint
    }

    /// A fresh token. Unique within the installation for 2^24 tokens a millisecond.
    pub fn issue(&self, now: Timestamp) -> Token {
        let millis = now.as_millisecond().max(0) as u128 & ((1 << 48) - 1);
        let serial = u128::from(self.serial.fetch_add(1, Ordering::Relaxed) & ((1 << SERIAL_BITS) - 1));
        let head = (millis << INSTANCE_BITS | u128::from(self.instance)) << SERIAL_BITS | serial;
        Token(head << CHECK_BITS | u128::from(self.check(head)))
    }

    /// Whose `token` is.
    pub fn origin(&self, token: Token) -> Origin {
        let head = token.0 >> CHECK_BITS;
        if (head >> SERIAL_BITS) as u16 != self.instance {
            return Origin::Foreign;
        }
        let expected = self.check(head).to_be_bytes();
        let found = ((token.0 as u64) & ((1 << CHECK_BITS) - 1)).to_be_bytes();
        if bool::from(expected.ct_eq(&found)) { Origin::Ours } else { Origin::Forged }
    }

    fn check(&self, head: u128) -> u64 {
        self.mac(&head.to_be_bytes()[5..])
    }

    /// The first 40 bits of HMAC-SHA-256 (RFC 2104).
    fn mac(&self, data: &[u8]) -> u64 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(data);
        let digest = mac.finalize().into_bytes();
        digest[..5].iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_token_survives_text_and_says_when_it_was_issued() {
        let mint = Mint::new([7; 32], 41);
        let token = mint.issue(at(1_790_000_000_123));
        let text = token.to_string();
        assert_eq!(text.len(), TEXT_LENGTH);
        assert!(text.starts_with("jm"));
        assert_eq!(Token::parse(&text), Some(token));
        assert_eq!(Token::parse(&text.to_uppercase()), Some(token));
        assert_eq!(token.issued(), at(1_790_000_000_123));
        assert_eq!(mint.origin(token), Origin::Ours);
        assert_eq!(u128::from_str_radix(&token.trace_id(), 16), Ok(token.bits()));
        assert!(token.traceparent().starts_with(&format!("00-{}-", token.trace_id())));
    }

    #[test]
    fn foreign_and_forged_are_told_apart() {
        let (ours, theirs) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let token = theirs.issue(at(1_790_000_000_000));
        assert_eq!(ours.origin(token), Origin::Foreign);
        let genuine = ours.issue(at(1_790_000_000_000));
        assert_eq!(ours.origin(Token::from_bits(genuine.bits() ^ 1)), Origin::Forged);
        assert_eq!(ours.origin(Token::from_bits(genuine.bits() ^ (1 << CHECK_BITS))), Origin::Forged);
    }

    #[test]
    fn tokens_of_one_millisecond_differ() {
        let mint = Mint::new([3; 32], u32::MAX - 5);
        let issued: HashSet<_> = (0..10_000).map(|_| mint.issue(at(5))).collect();
        assert_eq!(issued.len(), 10_000);
    }

    #[test]
    fn tokens_are_found_wherever_they_stand() {
        let mint = Mint::new([9; 32], 0);
        let (a, b) = (mint.issue(at(1)), mint.issue(at(2)));
        let text = format!("{{\"id\":\"{a}\"}} jmjm{b}00 jm-not-a-token jm{}", "u".repeat(26));
        assert_eq!(Token::find_all(text.as_bytes()).collect::<Vec<_>>(), vec![a, b]);
        assert_eq!(Token::find_all(b"short jm").count(), 0);
    }

    proptest! {
        #[test]
        fn any_bits_survive_text(bits: u128) {
            let token = Token::from_bits(bits);
            prop_assert_eq!(Token::parse(&token.to_string()), Some(token));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = Token::parse(&text);
            let _ = Token::find_all(text.as_bytes()).count();
        }

        #[test]
        fn every_flipped_bit_is_noticed(bit in 0u32..128) {
            let mint = Mint::new([5; 32], 77);
            let token = mint.issue(at(1_790_000_000_000));
            prop_assert_ne!(mint.origin(Token::from_bits(token.bits() ^ (1 << bit))), Origin::Ours);
        }
    }
}
