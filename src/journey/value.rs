//! Values read from messages, and their exact comparison. Nothing is coerced: `"00123"` is text, and twenty-digit ids keep every digit.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Human;

/// A value that a query found, or that a predicate expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// JSON null.
    Null,
    /// True or false.
    Bool(bool),
    /// An exact decimal number.
    Number(Decimal),
    /// Text.
    Text(String),
    /// A length of time.
    Duration(#[serde(with = "crate::time::micros")] Duration),
    /// Events per second.
    Rate(f64),
    /// Several values in order.
    List(Vec<Value>),
    /// Named values, in the order of their names.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Parses a JSON document without losing digits.
    ///
    /// # Errors
    /// What the parser says of text that is not JSON.
    pub fn parse_json(body: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
        match std::str::from_utf8(body) {
            Ok(text) if has_long_number(text) => serde_json::from_str(&mark_long_numbers(text)),
            _ => serde_json::from_slice(body),
        }
    }

    /// The value of a node of a document that [`Value::parse_json`] gave.
    pub fn from_json(node: &serde_json::Value) -> Value {
        match node {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => match Decimal::parse(&n.to_string()) {
                Some(number) => Value::Number(number),
                None => Value::Text(n.to_string()),
            },
            serde_json::Value::String(s) => match s.strip_prefix(MARK).and_then(Decimal::parse) {
                Some(number) => Value::Number(number),
                None => Value::Text(s.clone()),
            },
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(members) => {
                Value::Object(members.iter().map(|(k, v)| (k.clone(), Value::from_json(v))).collect())
            }
        }
    }

    /// The value as a capture keeps it and a template prints it: text without quotes, numbers with all their digits.
    pub fn to_text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// How the two compare; `None` where an order between them has no meaning.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Rate(a), Value::Rate(b)) => a.partial_cmp(b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// A number, or a duration in seconds, as near as a metric can have it.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => number.to_string().parse().ok(),
            Value::Duration(duration) => Some(duration.as_secs_f64()),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Text(_) => "text",
            Value::Duration(_) => "duration",
            Value::Rate(_) => "rate",
            Value::List(_) => "list",
            Value::Object(_) => "object",
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(Decimal::parse(&number.to_string()).expect("an integer is a decimal"))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

/// JSON-like: text in quotes, so that `"5"` and `5` differ on the page as they do in the comparison.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Number(n) => write!(f, "{n}"),
            Value::Text(t) => write!(f, "{t:?}"),
            Value::Duration(d) => write!(f, "{}", Human(*d)),
            Value::Rate(r) => write!(f, "{:.1}/min", r * 60.0),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Object(members) => {
                f.write_str("{")?;
                for (i, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name:?}: {value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// An exact decimal number of any length: `±0.DIGITS × 10^exponent` with no leading or trailing zero in DIGITS.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
    /// As it was written, for printing.
    text: String,
}

impl Decimal {
    /// Reads a number in JSON's grammar (RFC 8259 section 6).
    pub fn parse(text: &str) -> Option<Decimal> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || mantissa.ends_with('.') {
            return None;
        }
        let joined = format!("{whole}{fraction}");
        let significant = joined.trim_start_matches('0');
        let exponent = i64::from(power) + whole.len() as i64 - (joined.len() - significant.len()) as i64;
        let digits = significant.trim_end_matches('0').to_owned();
        let zero = digits.is_empty();
        Some(Decimal {
            negative: negative && !zero,
            exponent: if zero { 0 } else { exponent },
            digits,
            text: text.to_owned(),
        })
    }
}

/// Equal by value: `1.50` is `1.5`.
impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |d: &Decimal| match (d.digits.is_empty(), d.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let magnitude = |a: &Decimal, b: &Decimal| a.exponent.cmp(&b.exponent).then_with(|| a.digits.cmp(&b.digits));
        match (sign(self), sign(other)) {
            (a, b) if a != b => a.cmp(&b),
            (0, _) => Ordering::Equal,
            (-1, _) => magnitude(other, self),
            _ => magnitude(self, other),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Decimal> for String {
    fn from(number: Decimal) -> String {
        number.text
    }
}

impl TryFrom<String> for Decimal {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Decimal::parse(&text).ok_or_else(|| format!("{text:?} is not a number"))
    }
}

/// Stands before the digits of a number that a double cannot hold, in a string that replaces it. A private-use
/// character: real text that begins with it and then reads as a number would be taken for one, and none does.
const MARK: char = '\u{F8FE}';
/// Doubles hold every decimal of up to 15 significant digits exactly (IEEE 754 binary64).
const SAFE_DIGITS: usize = 15;

fn has_long_number(text: &str) -> bool {
    let mut run = 0;
    text.bytes().any(|b| {
        run = if b.is_ascii_digit() || b == b'.' { run + 1 } else { 0 };
        run > SAFE_DIGITS
    })
}

/// Rewrites long number literals outside strings as marked strings, leaving everything else as it is.
fn mark_long_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with('"') { string_length(rest) } else { number_length(rest) };
        let (literal, tail) = rest.split_at(length);
        let digits = literal.bytes().filter(u8::is_ascii_digit).count();
        if !literal.starts_with('"') && digits > SAFE_DIGITS && Decimal::parse(literal).is_some() {
            out.extend(['"', MARK]);
            out.push_str(literal);
            out.push('"');
        } else {
            out.push_str(literal);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_length(text: &str) -> usize {
    text.bytes().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Value {
        Value::Number(Decimal::parse(text).unwrap())
    }

    #[test]
    fn twenty_digit_ids_stay_exact_and_numbers_in_strings_stay_text() {
        let body = br#"{"id": 12345678901234567890123, "s": "12345678901234567890123 \" 99999999999999999999", "n": [-1.5e3, 7]}"#;
        let json = Value::parse_json(body).unwrap();
        assert_eq!(Value::from_json(&json["id"]), number("12345678901234567890123"));
        assert_eq!(Value::from_json(&json["id"]).to_text(), "12345678901234567890123");
        assert_eq!(Value::from_json(&json["s"]).kind(), "text");
        assert_eq!(Value::from_json(&json["n"]), Value::List(vec![number("-1.5e3"), Value::from(7)]));
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for (a, b) in [("1.50", "1.5"), ("1500", "1.5e3"), ("0.001", "1e-3"), ("-0", "0.0"), ("100", "1E2")] {
            assert_eq!(number(a).compare(&number(b)), Some(Ordering::Equal), "{a} {b}");
        }
        assert_eq!(number("9007199254740993").compare(&number("9007199254740992")), Some(Ordering::Greater));
        assert_eq!(Value::from("5").compare(&Value::from(5)), None);
    }

    #[test]
    fn only_numbers_are_numbers() {
        for text in ["", "-", "1.", ".5", "1e", "abc", "1_000", "NaN", "+1", "1e99999999999"] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, scale in 0u32..6) {
            let text = |n: i64| format!("{n}e-{scale}");
            prop_assert_eq!(number(&text(a)).compare(&number(&text(b))), Some(a.cmp(&b)));
        }

        #[test]
        fn hostile_json_never_panics(text in "[\\[\\]{}\":,0-9eE.+\\-\\\\a ]{0,80}") {
            let _ = Value::parse_json(text.as_bytes());
        }
    }
}
