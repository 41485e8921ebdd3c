//! What can be put into our own side of a channel.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::parse_duration;

/// A fault. What a journey receives is touched when it arrives; a journey that only asks has its answers touched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// What arrives is not seen.
    Drop,
    /// It is seen so much later.
    Delay(Duration),
    /// It is seen twice.
    Duplicate,
    /// Every letter and digit of it but the token is another one.
    Corrupt,
    /// What arrives first is seen after what arrives next.
    Reorder,
    /// Nothing that is sent is taken.
    Refuse,
    /// So many are seen a second, the others later.
    Throttle(f64),
}

/// What people may write, in the order in which it is told.
const FORMS: &str = "`drop`, `delay=10s`, `duplicate`, `corrupt`, `reorder`, `refuse` and `throttle=1/s`";

impl Fault {
    /// Whether it is put into what we send, whatever the journey does.
    pub fn is_of_sending(self) -> bool {
        self == Fault::Refuse
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let unknown = || format!("`{text}` is no fault; there are {FORMS}");
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("drop", None) => Ok(Fault::Drop),
            ("duplicate", None) => Ok(Fault::Duplicate),
            ("corrupt", None) => Ok(Fault::Corrupt),
            ("reorder", None) => Ok(Fault::Reorder),
            ("refuse", None) => Ok(Fault::Refuse),
            ("delay", Some(value)) => match parse_duration(value) {
                Ok(Duration::ZERO) => Err("a delay is longer than nothing, as in `delay=10s`".to_owned()),
                Ok(delay) => Ok(Fault::Delay(delay)),
                Err(why) => Err(format!("{why}; write `delay=10s`")),
            },
            ("throttle", Some(value)) => {
                rate(value).ok_or_else(|| format!("`{value}` is no rate; write `throttle=1/s`"))
            }
            ("delay", None) => Err("how long? write `delay=10s`".to_owned()),
            ("throttle", None) => Err("how many? write `throttle=1/s`".to_owned()),
            _ => Err(unknown()),
        }
    }
}

/// `1/s`, `30/min`.
fn rate(text: &str) -> Option<Fault> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1.0,
        "min" => 60.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(Fault::Throttle(number / seconds))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Drop => f.write_str("drop"),
            Fault::Delay(delay) if delay.subsec_millis() == 0 => write!(f, "delay={}s", delay.as_secs()),
            Fault::Delay(delay) => write!(f, "delay={}ms", delay.as_millis()),
            Fault::Duplicate => f.write_str("duplicate"),
            Fault::Corrupt => f.write_str("corrupt"),
            Fault::Reorder => f.write_str("reorder"),
            Fault::Refuse => f.write_str("refuse"),
            Fault::Throttle(rate) if *rate >= 1.0 => write!(f, "throttle={rate}/s"),
            Fault::Throttle(rate) => write!(f, "throttle={}/min", rate * 60.0),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fault, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The same bytes with every letter and digit another one, but for those of `kept`: what is a document stays one, and says something
/// else.
pub fn corrupt(bytes: &[u8], kept: &[&str]) -> Vec<u8> {
    let mut out: Vec<u8> = bytes.iter().map(|byte| other(*byte)).collect();
    for kept in kept.iter().map(|text| text.as_bytes()).filter(|text| !text.is_empty()) {
        for (at, window) in bytes.windows(kept.len()).enumerate() {
            if window == kept {
                out[at..at + kept.len()].copy_from_slice(kept);
            }
        }
    }
    out
}

fn other(byte: u8) -> u8 {
    let turned = |first: u8, count: u8| first + (byte - first + 1) % count;
    match byte {
        b'a'..=b'z' => turned(b'a', 26),
        b'A'..=b'Z' => turned(b'A', 26),
        b'0'..=b'9' => turned(b'0', 10),
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_the_same_and_nothing_else_is() {
        for text in [
            "drop",
            "delay=10s",
            "delay=250ms",
            "duplicate",
            "corrupt",
            "reorder",
            "refuse",
            "throttle=1/s",
            "throttle=2.5/s",
            "throttle=30/min",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Drop",
            "drop=1",
            "delay",
            "delay=",
            "delay=0s",
            "delay=x",
            "throttle",
            "throttle=0/s",
            "throttle=1",
            "throttle=NaN/s",
            "throttle=-1/s",
            "throttle=1/d",
            "loss",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_corrupt_keeps_its_token_and_its_form_and_no_word() {
        let token = "jm0123456789abcdefghjkmnpqrs";
        let text = format!(r#"{{"token":"{token}","amount":42,"again":"{token}"}}"#);
        let corrupt = String::from_utf8(corrupt(text.as_bytes(), &[token])).unwrap();
        assert_eq!(corrupt, format!(r#"{{"uplfo":"{token}","bnpvou":53,"bhbjo":"{token}"}}"#));
        assert_eq!(super::corrupt(b"zZ9-", &["", "nowhere"]), b"aA0-");
    }
}
