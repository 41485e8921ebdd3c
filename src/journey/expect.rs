//! The one grammar for reading a message: a query finds a value, a predicate judges it.
//!
//! Used by `expect`, `capture`, and a channel's `key` and `filter`. A missing value fails every predicate but `exists = false`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::query::js_path_process;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::template::{Medium, Scope, Template, TemplateError};
use crate::journey::trend::Slope;
use crate::journey::value::Value;
use crate::time::{Human, between};

/// What to look at.
#[derive(Clone)]
pub enum Query {
    /// The status code.
    Status,
    /// A header field, by name.
    Header(String),
    /// A JSONPath (RFC 9535) into the payload.
    Json(JsonPath),
    /// A field of a form-encoded payload.
    Form(String),
    /// A pattern in the payload: its first group, or all of it.
    Regex(Regex),
    /// The payload as text.
    Body,
    /// The payload's size in bytes.
    Size,
    /// The step's latency.
    Latency,
    /// How many copies arrived.
    Copies,
    /// Whether messages kept their order.
    Order,
    /// Whether the payload is as it was sent.
    Intact,
    /// Time at the hops of this name; `*` is each of them.
    Hop(String),
    /// Time until the peer's certificate expires.
    CertificateExpiresIn,
    /// What only some protocols know, by name: `redelivered`, `folder`, `depth`, `consumers`, `oldest_age`, `lag`, `value`.
    Fact(&'static str),
    /// The change of depth over a time, as a rate.
    Growth {
        /// The time it is taken over.
        over: Duration,
    },
}

/// The names of the queries that read a [`Message`]'s facts.
pub const FACTS: &[&str] = &["redelivered", "folder", "depth", "consumers", "oldest_age", "lag", "value"];

/// A parsed JSONPath with the text that it was parsed from.
#[derive(Clone)]
pub struct JsonPath {
    text: Arc<str>,
    query: Arc<JpQuery>,
}

impl JsonPath {
    /// Parses an RFC 9535 path.
    ///
    /// # Errors
    /// What the parser says, on one line.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        match jsonpath_rust::parser::parse_json_path(text) {
            Ok(query) => Ok(JsonPath { text: text.into(), query: Arc::new(query) }),
            Err(error) => {
                let told = error.to_string();
                let reason = told.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("not a JSONPath");
                Err(reason.trim_start_matches("= ").to_owned())
            }
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Status => f.write_str("status"),
            Query::Header(name) => write!(f, "header {name:?}"),
            Query::Json(path) => write!(f, "json {:?}", path.text),
            Query::Form(name) => write!(f, "form {name:?}"),
            Query::Regex(pattern) => write!(f, "regex {:?}", pattern.as_str()),
            Query::Body => f.write_str("body"),
            Query::Size => f.write_str("size"),
            Query::Latency => f.write_str("latency"),
            Query::Copies => f.write_str("copies"),
            Query::Order => f.write_str("order"),
            Query::Intact => f.write_str("intact"),
            Query::Hop(name) => write!(f, "hop {name:?}"),
            Query::CertificateExpiresIn => f.write_str("certificate_expires_in"),
            Query::Fact(name) => f.write_str(name),
            Query::Growth { over } => write!(f, "growth over {}", Human(*over)),
        }
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a query may look at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The message.
    pub message: &'a Message,
    /// The step's latency so far.
    pub latency: Option<Duration>,
    /// Copies seen so far.
    pub copies: u32,
    /// Whether it came in the order of the sends, as far as is known.
    pub is_in_order: bool,
    /// Whether the payload is what was sent; `None` where nobody knows what was.
    pub is_intact: Option<bool>,
    /// Now, for times until something.
    pub now: Timestamp,
}

impl<'a> View<'a> {
    /// A view of a message alone, as a channel's `key` and `filter` have it.
    pub fn of(message: &'a Message, now: Timestamp) -> View<'a> {
        View { message, latency: None, copies: 1, is_in_order: true, is_intact: None, now }
    }
}

impl Query {
    /// The value, or `None` if there is none.
    pub fn find(&self, view: View<'_>) -> Option<Value> {
        let message = view.message;
        match self {
            Query::Status => message.status.map(|code| Value::from(i64::from(code))),
            Query::Header(name) => message.header(name).map(Value::from),
            Query::Json(path) => {
                let found = js_path_process(&path.query, message.json()?).ok()?;
                let mut values = found.into_iter().map(|node| Value::from_json(node.val));
                match (values.next(), values.next()) {
                    (None, _) => None,
                    (Some(only), None) => Some(only),
                    (Some(first), Some(second)) => {
                        Some(Value::List([first, second].into_iter().chain(values).collect()))
                    }
                }
            }
            Query::Form(name) => message.form(name).map(Value::Text),
            Query::Regex(pattern) => {
                let text = message.text();
                let captures = pattern.captures(&text)?;
                let matched = captures.get(1).or_else(|| captures.get(0))?;
                Some(Value::from(matched.as_str()))
            }
            Query::Body => Some(Value::Text(message.text().into_owned())),
            Query::Size => Some(Value::from(message.body.len() as i64)),
            Query::Latency => view.latency.map(Value::Duration),
            Query::Copies => Some(Value::from(i64::from(view.copies))),
            Query::Order => Some(Value::Bool(view.is_in_order)),
            Query::Intact => view.is_intact.map(Value::Bool),
            Query::Hop(name) => {
                let of_name = message.hops.iter().filter(|hop| name == "*" || hop.name == *name);
                let times: Vec<_> = of_name.map(|hop| Value::Duration(hop.took)).collect();
                if times.is_empty() { None } else { Some(Value::List(times)) }
            }
            Query::CertificateExpiresIn => match message.facts.get("certificate_expires")? {
                Value::Text(at) => Some(Value::Duration(between(view.now, at.parse().ok()?))),
                _ => None,
            },
            Query::Fact(name) => message.facts.get(name).cloned(),
            Query::Growth { over } => match message.trend.as_ref()?.slope(*over) {
                Slope::Known(slope) => Some(Value::Rate(slope)),
                Slope::TooShort(_) => None,
            },
        }
    }

    /// Whether an expectation on this query says itself what is to be thought of such a trouble.
    pub fn asks_about(&self, trouble: Cause) -> bool {
        trouble == Cause::Misrouted && matches!(self, Query::Fact("folder"))
    }

    /// Whether every value found must pass, rather than the list of them.
    fn is_each(&self) -> bool {
        matches!(self, Query::Hop(_))
    }

    /// What it means for the journey that this query's expectation does not hold.
    fn cause(&self, message: &Message, found: Option<&Value>) -> Cause {
        match self {
            // Not every status is one of HTTP: a channel that has its own says what it means.
            Query::Status if let Some(said) = message.trouble.as_ref().or(message.warning.as_ref()) => said.cause,
            Query::Status => match found.and_then(|value| value.to_text().parse::<u16>().ok()) {
                Some(status) => Cause::of_status(status).unwrap_or(Cause::Mismatch),
                None => Cause::Mismatch,
            },
            Query::Copies => Cause::Duplicate,
            Query::Order => Cause::Reordered,
            Query::Intact => Cause::Altered,
            Query::CertificateExpiresIn => Cause::Tls,
            Query::Fact("folder") => Cause::Misrouted,
            Query::Fact("depth" | "consumers" | "oldest_age" | "lag") | Query::Growth { .. } => Cause::Backlog,
            _ => Cause::Mismatch,
        }
    }
}

impl Cause {
    /// What an HTTP status says went wrong; `None` for a success. (RFC 9110 section 15.)
    pub fn of_status(status: u16) -> Option<Cause> {
        match status {
            ..400 => None,
            401 | 403 | 407 => Some(Cause::Auth),
            429 => Some(Cause::Throttled),
            400..500 => Some(Cause::Refused),
            _ => Some(Cause::Rejected),
        }
    }
}

/// A value to compare with: fixed, or rendered for each run.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// Always this.
    Fixed(Value),
    /// Text with the run's values in it.
    Rendered(Template),
}

impl Expected {
    fn value(&self, scope: Option<&Scope>) -> Result<Value, TemplateError> {
        match (self, scope) {
            (Expected::Fixed(value), _) => Ok(value.clone()),
            (Expected::Rendered(template), Some(scope)) => template.render(scope, Medium::Plain).map(Value::Text),
            (Expected::Rendered(template), None) => Ok(Value::from(template.source())),
        }
    }
}

/// A comparison with one expected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same value of the same kind.
    Equals,
    /// Anything else.
    NotEquals,
    /// Text within text, a member of a list, a name of an object.
    Contains,
    /// Text at the beginning.
    StartsWith,
    /// Text at the end.
    EndsWith,
    /// Strictly less.
    LessThan,
    /// Less or equal.
    AtMost,
    /// Strictly greater.
    GreaterThan,
    /// Greater or equal.
    AtLeast,
}

impl Comparison {
    /// Every comparison with its name in a configuration.
    pub const ALL: &'static [(&'static str, Comparison)] = &[
        ("equals", Comparison::Equals),
        ("not_equals", Comparison::NotEquals),
        ("contains", Comparison::Contains),
        ("starts_with", Comparison::StartsWith),
        ("ends_with", Comparison::EndsWith),
        ("less_than", Comparison::LessThan),
        ("at_most", Comparison::AtMost),
        ("greater_than", Comparison::GreaterThan),
        ("at_least", Comparison::AtLeast),
    ];

    fn name(self) -> &'static str {
        Comparison::ALL.iter().find(|(_, comparison)| *comparison == self).map_or("", |(name, _)| name)
    }

    fn holds(self, found: &Value, expected: &Value) -> bool {
        let text = || match (found, expected) {
            (Value::Text(a), Value::Text(b)) => Some((a.as_str(), b.as_str())),
            _ => None,
        };
        let order = found.compare(expected);
        match self {
            Comparison::Equals => found == expected,
            Comparison::NotEquals => found != expected,
            Comparison::Contains => match (found, expected) {
                (Value::List(items), _) => items.iter().any(|item| item == expected),
                (Value::Object(members), Value::Text(name)) => members.iter().any(|(member, _)| member == name),
                _ => text().is_some_and(|(a, b)| a.contains(b)),
            },
            Comparison::StartsWith => text().is_some_and(|(a, b)| a.starts_with(b)),
            Comparison::EndsWith => text().is_some_and(|(a, b)| a.ends_with(b)),
            Comparison::LessThan => order == Some(Ordering::Less),
            Comparison::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::GreaterThan => order == Some(Ordering::Greater),
            Comparison::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// What must be true of a value.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// A comparison.
    Compare(Comparison, Expected),
    /// A pattern occurs in the text.
    Matches(Regex),
    /// There is a value, or there is none.
    Exists(bool),
    /// It equals one of these.
    OneOf(Vec<Expected>),
}

/// Something that a message must fulfil.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What to look at.
    pub query: Query,
    /// What must be true of it.
    pub predicate: Predicate,
    /// A name for people.
    pub message: Option<String>,
    /// Its failure is a warning.
    pub soft: bool,
}

/// How one expectation turned out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The expectation in words, or its own message.
    pub expectation: String,
    /// What was found instead, if it did not hold.
    pub found: Option<String>,
    /// Whether it held.
    pub passed: bool,
    /// Whether its failure is only a warning.
    pub soft: bool,
    /// What its failure means.
    pub cause: Option<Cause>,
}

/// Values longer than this are cut in evidence.
const SHOWN: usize = 200;

impl Expectation {
    /// Judges a message.
    pub fn check(&self, view: View<'_>, scope: Option<&Scope>) -> Check {
        let found = self.query.find(view);
        if let Some(samples) = self.too_short(view) {
            let expectation = format!("{}: not judged yet, with samples of {} only", self.query, Human(samples));
            return Check { expectation, found: None, passed: true, soft: self.soft, cause: None };
        }
        let (passed, wanted) = match self.judge(found.as_ref(), scope) {
            Ok(judged) => judged,
            Err(error) => (false, format!("could not be rendered: {error}")),
        };
        let expectation = match &self.message {
            Some(message) => format!("{message} ({} {wanted})", self.query),
            None => format!("{} {wanted}", self.query),
        };
        Check {
            expectation,
            found: (!passed)
                .then(|| found.as_ref().map_or_else(|| "nothing".to_owned(), |value| cut(&value.to_string()))),
            passed,
            soft: self.soft,
            cause: (!passed).then(|| self.query.cause(view.message, found.as_ref())),
        }
    }

    /// A growth cannot be told before there are samples of half its time. Until then it is neither right nor wrong.
    fn too_short(&self, view: View<'_>) -> Option<Duration> {
        match (&self.query, view.message.trend.as_ref().map(|trend| (trend, &self.predicate))) {
            (Query::Growth { over }, Some((trend, Predicate::Compare(..) | Predicate::OneOf(_)))) => {
                match trend.slope(*over) {
                    Slope::TooShort(samples) => Some(samples),
                    Slope::Known(_) => None,
                }
            }
            _ => None,
        }
    }

    fn judge(&self, found: Option<&Value>, scope: Option<&Scope>) -> Result<(bool, String), TemplateError> {
        let each = |holds: &dyn Fn(&Value) -> bool| match found {
            None => false,
            Some(Value::List(values)) if self.query.is_each() => values.iter().all(holds),
            Some(value) => holds(value),
        };
        Ok(match &self.predicate {
            Predicate::Compare(comparison, expected) => {
                let expected = expected.value(scope)?;
                let wanted = format!("{} {}", comparison.name(), cut(&expected.to_string()));
                (each(&|value| comparison.holds(value, &expected)), wanted)
            }
            Predicate::Matches(pattern) => {
                let holds = |value: &Value| matches!(value, Value::Text(text) if pattern.is_match(text));
                (each(&holds), format!("matches {:?}", pattern.as_str()))
            }
            Predicate::Exists(wanted) => (found.is_some() == *wanted, format!("exists {wanted}")),
            Predicate::OneOf(choices) => {
                let choices = choices.iter().map(|choice| choice.value(scope)).collect::<Result<Vec<_>, _>>()?;
                let wanted = format!("one_of {}", cut(&Value::List(choices.clone()).to_string()));
                (each(&|value| choices.iter().any(|choice| value == choice)), wanted)
            }
        })
    }
}

/// The text, or its beginning and how much is missing.
pub fn cut(text: &str) -> String {
    cut_at(text, SHOWN)
}

/// As [`cut`], at about `limit` bytes.
pub fn cut_at(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit);
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::message::Hop;

    fn message() -> Message {
        let mut message = Message::new(
            &br#"{"status":"queued","n":7,"id":12345678901234567890123,"tags":["a","b"],"none":null,"zero":"00123"}"#[..],
        );
        message.status = Some(202);
        message.headers.push(("Content-Type".into(), "application/json".into()));
        message.facts.insert("redelivered", Value::Bool(false));
        message.facts.insert("certificate_expires", Value::from("2026-12-01T00:00:00Z"));
        message.hops = vec![
            Hop { name: "relay".into(), took: Duration::from_secs(2) },
            Hop { name: "mx".into(), took: Duration::from_secs(20) },
        ];
        message
    }

    fn check(query: Query, predicate: Predicate) -> Check {
        let message = message();
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        let view = View { latency: Some(Duration::from_millis(40)), copies: 2, ..View::of(&message, now) };
        Expectation { query, predicate, message: None, soft: false }.check(view, None)
    }

    fn json(path: &str) -> Query {
        Query::Json(JsonPath::parse(path).unwrap())
    }

    fn fixed(comparison: Comparison, value: Value) -> Predicate {
        Predicate::Compare(comparison, Expected::Fixed(value))
    }

    #[test]
    fn every_predicate_judges() {
        use Comparison::*;
        let id = Value::Number(crate::journey::value::Decimal::parse("12345678901234567890123").unwrap());
        let near = Value::Number(crate::journey::value::Decimal::parse("12345678901234567890124").unwrap());
        let table = [
            (Query::Status, fixed(Equals, Value::from(202)), true),
            (Query::Status, fixed(Equals, Value::from("202")), false),
            (Query::Status, fixed(NotEquals, Value::from(202)), false),
            (Query::Header("content-type".into()), fixed(StartsWith, Value::from("application/")), true),
            (Query::Header("content-type".into()), fixed(EndsWith, Value::from("xml")), false),
            (json("$.status"), fixed(Contains, Value::from("eue")), true),
            (json("$.id"), fixed(Equals, id), true),
            (json("$.id"), fixed(Equals, near), false),
            (json("$.zero"), fixed(Equals, Value::from(123)), false),
            (json("$.n"), fixed(LessThan, Value::from(7)), false),
            (json("$.n"), fixed(AtMost, Value::from(7)), true),
            (json("$.n"), fixed(GreaterThan, Value::from(6)), true),
            (json("$.n"), fixed(AtLeast, Value::from(8)), false),
            (json("$.tags"), fixed(Contains, Value::from("b")), true),
            (json("$.tags[*]"), fixed(Contains, Value::from("c")), false),
            (json("$.none"), Predicate::Exists(true), true),
            (json("$.nope"), Predicate::Exists(false), true),
            (json("$.nope"), fixed(NotEquals, Value::from(1)), false),
            (json("$.status"), Predicate::Matches(Regex::new("^q").unwrap()), true),
            (json("$.n"), Predicate::Matches(Regex::new("7").unwrap()), false),
            (
                json("$.status"),
                Predicate::OneOf(vec![Expected::Fixed(Value::from("queued")), Expected::Fixed(Value::from("sent"))]),
                true,
            ),
            (Query::Regex(Regex::new("\"n\":(\\d+)").unwrap()), fixed(Equals, Value::from("7")), true),
            (Query::Copies, fixed(Equals, Value::from(1)), false),
            (Query::Fact("redelivered"), fixed(Equals, Value::Bool(false)), true),
            (Query::Fact("folder"), fixed(NotEquals, Value::from("Junk")), false),
            (Query::Latency, fixed(LessThan, Value::Duration(Duration::from_millis(50))), true),
            (Query::Hop("*".into()), fixed(LessThan, Value::Duration(Duration::from_secs(10))), false),
            (Query::Hop("relay".into()), fixed(LessThan, Value::Duration(Duration::from_secs(10))), true),
            (Query::Hop("nowhere".into()), fixed(LessThan, Value::Duration(Duration::from_secs(10))), false),
            (Query::CertificateExpiresIn, fixed(AtLeast, Value::Duration(Duration::from_secs(14 * 86_400))), false),
            (Query::CertificateExpiresIn, fixed(AtLeast, Value::Duration(Duration::from_secs(9 * 86_400))), true),
        ];
        for (query, predicate, passes) in table {
            let told = format!("{query} {predicate:?}");
            assert_eq!(check(query, predicate).passed, passes, "{told}");
        }
    }

    #[test]
    fn a_failed_check_says_what_was_wanted_and_found_and_what_it_means() {
        let failed = check(Query::Status, fixed(Comparison::Equals, Value::from(200)));
        assert_eq!(failed.expectation, "status equals 200");
        assert_eq!(failed.found.as_deref(), Some("202"));
        assert_eq!(failed.cause, Some(Cause::Mismatch));
        assert_eq!(check(Query::Copies, fixed(Comparison::Equals, Value::from(1))).cause, Some(Cause::Duplicate));
        let missing = check(json("$.gone"), fixed(Comparison::Equals, Value::from("x")));
        assert_eq!(missing.found.as_deref(), Some("nothing"));
    }

    #[test]
    fn a_status_says_what_went_wrong() {
        let table = [
            (200, None),
            (302, None),
            (400, Some(Cause::Refused)),
            (401, Some(Cause::Auth)),
            (429, Some(Cause::Throttled)),
            (503, Some(Cause::Rejected)),
        ];
        for (status, cause) in table {
            assert_eq!(Cause::of_status(status), cause, "{status}");
        }
    }

    #[test]
    fn a_path_that_is_none_is_explained_on_one_line() {
        let reason = JsonPath::parse("$.[").err().unwrap();
        assert!(!reason.contains('\n') && reason.len() > 5, "{reason}");
    }
}
