//! What people want of a breaker.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Nobody's wish holds longer: a breaker that was forced and forgotten would be worse than none.
pub const LONGEST_ORDER: Duration = Duration::from_secs(86_400);

/// What somebody may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// That nothing goes through.
    Open,
    /// That everything goes through, and nothing is counted.
    Closed,
    /// That everything goes through, and is counted as if it might not.
    Observe,
}

impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Force::Open => "open",
            Force::Closed => "closed",
            Force::Observe => "observing",
        })
    }
}

/// That somebody wants a breaker to be so, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// How.
    pub to: Force,
    /// Who.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// Until then; at most [`LONGEST_ORDER`] from when it is heard.
    pub until: Timestamp,
}

/// What a breaker stands before. Its text form is stable: a key in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarded {
    /// A channel.
    Channel(Arc<str>),
    /// A notifier.
    Notifier(Arc<str>),
}

impl Guarded {
    /// The kind: `channel`, `notifier`.
    pub fn kind(&self) -> &'static str {
        match self {
            Guarded::Channel(_) => "channel",
            Guarded::Notifier(_) => "notifier",
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Guarded::Channel(name) | Guarded::Notifier(name) => name,
        }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl FromStr for Guarded {
    type Err = String;

    fn from_str(text: &str) -> Result<Guarded, String> {
        match text.split_once(' ') {
            Some(("channel", name)) => Ok(Guarded::Channel(name.into())),
            Some(("notifier", name)) => Ok(Guarded::Notifier(name.into())),
            _ => Err(format!("`{text}` is neither a channel nor a notifier")),
        }
    }
}
