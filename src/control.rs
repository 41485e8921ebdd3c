//! What people ask for: silences, one-off maintenance, acknowledgements, and who is told of what at which hour.
//!
//! Measuring goes on whatever is asked for here; only telling changes, and what counts for an objective.

pub mod grant;
pub mod hours;
pub mod status_page;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};

pub use crate::control::hours::Hours;
use crate::journey::token::Token;
use crate::journey::{Journey, Name};

/// The labels of an alert: `subject`, `journey`, `channel`, `severity`, `detector`, `owner`, `location`, and the journey's own.
pub type Labels = BTreeMap<String, String>;

/// One condition on one label: `tier=gold`, `journey=~"sms-.*"`, `journey!=demo`. Anchored, as in Prometheus; a label that is not
/// there is the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    is_negated: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equals(String),
    Matches(String, Regex),
}

impl Matcher {
    /// `label=value`, both as they are.
    pub fn equals(label: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { label: label.into(), is_negated: false, test: Test::Equals(value.into()) }
    }

    /// A label that has one of these values.
    ///
    /// # Errors
    /// There are none, or more than a matcher takes that is written down and read again.
    pub fn one_of(label: &str, values: &[String]) -> Result<Matcher, String> {
        match values {
            [] => Err("nothing would match".to_owned()),
            [value] => Ok(Matcher::equals(label, value)),
            values => {
                let pattern = values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|");
                Ok(Matcher { label: label.to_owned(), is_negated: false, test: regex(&pattern)? })
            }
        }
    }

    /// Reads `label=value`, `label!=value`, `label=~regex`, `label!~regex`; quotes around the value may be there. A word alone is
    /// a journey's name, in which `*` stands for anything.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Matcher, String> {
        let text = text.trim();
        let Some(at) = text.find(['=', '!']) else {
            if text.is_empty() {
                return Err(
                    "a matcher is `label=value`, `label!=value`, `label=~regex`, `label!~regex`, or a journey's name"
                        .to_owned(),
                );
            }
            return Matcher::journeys(text);
        };
        let (label, rest) = text.split_at(at);
        let label = label.trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if label.is_empty() || !label.chars().all(is_name) {
            return Err(format!("`{label}` cannot be the name of a label"));
        }
        let operators = [("=~", false, true), ("!~", true, true), ("!=", true, false), ("=", false, false)];
        let (operator, is_negated, is_regex) = operators
            .into_iter()
            .find(|(operator, ..)| rest.starts_with(operator))
            .ok_or_else(|| format!("`{text}`: after the label stands `=`, `!=`, `=~` or `!~`"))?;
        let value = rest[operator.len()..].trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let test = if is_regex { regex(value)? } else { Test::Equals(value.to_owned()) };
        Ok(Matcher { label: label.to_owned(), is_negated, test })
    }

    /// Journeys whose name is this; `*` stands for anything.
    ///
    /// # Errors
    /// Never for a name; a pattern that is too long to be one.
    pub fn journeys(pattern: &str) -> Result<Matcher, String> {
        let test = match pattern.contains('*') {
            true => regex(&pattern.split('*').map(regex::escape).collect::<Vec<_>>().join(".*"))?,
            false => Test::Equals(pattern.to_owned()),
        };
        Ok(Matcher { label: "journey".to_owned(), is_negated: false, test })
    }

    /// The label that it looks at.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether whatever fulfils `other` fulfils it as well, as far as that can be seen without trying.
    pub fn follows_from(&self, other: &Matcher) -> bool {
        match &other.test {
            Test::Equals(value) if !other.is_negated && other.label == self.label => {
                self.holds(&[(self.label.clone(), value.clone())].into())
            }
            _ => self == other,
        }
    }

    /// Whether these labels fulfil it.
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.label).map_or("", String::as_str);
        let holds = match &self.test {
            Test::Equals(wanted) => value == wanted,
            Test::Matches(_, regex) => regex.is_match(value),
        };
        holds != self.is_negated
    }
}

fn regex(pattern: &str) -> Result<Test, String> {
    let anchored = format!("^(?:{pattern})$");
    let regex = regex::RegexBuilder::new(&anchored).size_limit(100_000).build();
    let regex = regex.map_err(|error| format!("`{pattern}` is no regular expression that we take: {error}"))?;
    Ok(Test::Matches(pattern.to_owned(), regex))
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, value) = match (&self.test, self.is_negated) {
            (Test::Equals(value), false) => ("=", value),
            (Test::Equals(value), true) => ("!=", value),
            (Test::Matches(value, _), false) => ("=~", value),
            (Test::Matches(value, _), true) => ("!~", value),
        };
        write!(f, "{}{operator}\"{value}\"", self.label)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Serialize for Matcher {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Matcher, D::Error> {
        Matcher::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A time in which nobody is told of what matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Made when it was.
    pub id: String,
    /// All of these must hold.
    pub matchers: Vec<Matcher>,
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
    /// It also ends when nothing that it matches fires any more.
    pub until_resolved: bool,
    /// Slots in it do not count for the objective: one-off maintenance.
    pub exclude_from_slo: bool,
    /// Slots in it are not run at all: a pause. They do not count for the objective either.
    #[serde(default)]
    pub pauses: bool,
    /// Why, for people.
    pub reason: String,
    /// Who asked for it.
    pub author: String,
}

impl Silence {
    /// Whether it is in force.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// Whether it is about something with these labels, whatever it is that fires there: severity and detector come and go.
    pub fn is_about(&self, labels: &Labels) -> bool {
        let stays = |matcher: &&Matcher| !["severity", "detector"].contains(&matcher.label());
        self.matchers.iter().filter(stays).all(|matcher| matcher.holds(labels))
    }

    /// Whether it keeps this journey from being run. Where we look from makes no difference to that.
    pub fn keeps_from_running(&self, journey: &Journey, now: Timestamp) -> bool {
        let labels = || {
            let mut labels = journey.alert_labels(None);
            labels.insert("subject".to_owned(), journey.name.to_string());
            labels
        };
        self.pauses && self.is_active(now) && self.is_about(&labels())
    }

    /// Whether it is in force for these labels.
    pub fn silences(&self, labels: &Labels, now: Timestamp) -> bool {
        self.is_active(now) && self.matchers.iter().all(|matcher| matcher.holds(labels))
    }
}

/// That somebody looks after an incident: nobody is reminded or called after that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Until then; without, until it gets worse or is over.
    pub until: Option<Timestamp>,
    /// What they want others to know, on the public status page too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A run that somebody asked for. It is no slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRun {
    /// Whose run.
    pub journey: Name,
    /// Which run.
    pub token: Token,
    /// Who asked first.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Who is told of alerts that match, instead of those that the journey names.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// All of these must hold.
    pub matchers: Vec<Matcher>,
    /// Only in these hours.
    pub hours: Option<Hours>,
    /// Who is told.
    pub notify: Vec<Name>,
    /// Who is told as well when nobody has acknowledged for so long.
    pub escalate: Vec<Escalation>,
    /// Later routes are asked too.
    pub goes_on: bool,
}

/// One rung of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// After the first notice.
    pub after: Duration,
    /// Who is told.
    pub notify: Vec<Name>,
}

impl Route {
    /// Everybody whom it may tell, those whom it escalates to among them.
    pub fn everybody(&self) -> impl Iterator<Item = &Name> {
        self.notify.iter().chain(self.escalate.iter().flat_map(|rung| &rung.notify))
    }

    /// Whether `other`, which comes later, is never asked: whatever it takes, this one takes at every hour that it does.
    pub fn hides(&self, other: &Route) -> bool {
        !self.goes_on
            && (self.hours.is_none() || self.hours == other.hours)
            && self.matchers.iter().all(|matcher| other.matchers.iter().any(|narrower| matcher.follows_from(narrower)))
    }
}

/// Who is told at `now` of an alert with these labels, and who after that; `default` is what its journey says.
pub fn route(routes: &[Route], default: &[Name], labels: &Labels, now: Timestamp) -> (Vec<Name>, Vec<Escalation>) {
    let mut notify: Vec<Name> = Vec::new();
    let mut escalate = Vec::new();
    let mut is_routed = false;
    let applies = |route: &&Route| {
        route.matchers.iter().all(|matcher| matcher.holds(labels))
            && route.hours.as_ref().is_none_or(|hours| hours.contain(now))
    };
    for route in routes.iter().filter(applies) {
        is_routed = true;
        notify.extend(route.notify.iter().filter(|name| !notify.contains(name)).cloned().collect::<Vec<_>>());
        escalate.extend(route.escalate.iter().cloned());
        if !route.goes_on {
            break;
        }
    }
    if is_routed { (notify, escalate) } else { (default.to_vec(), escalate) }
}

#[cfg(test)]
mod tests;
