//! A breaker as people see it.

use jiff::Timestamp;
use serde::Serialize;

use crate::breaker::{Breaker, Order, Sample, State, Transition};
use crate::time::Now;

/// A breaker as people see it. Field names are a promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakerStatus {
    /// Where it stands.
    #[serde(serialize_with = "text")]
    pub state: State,
    /// Where it would stand, if it only observes.
    #[serde(serialize_with = "text")]
    pub would_be: State,
    /// When it last ceased to be closed; null while it is.
    pub since: Option<Timestamp>,
    /// It is not tried before, unless somebody has to.
    pub open_until: Option<Timestamp>,
    /// What the last failure said, while it is open; empty if nothing is known.
    pub failing: String,
    /// What somebody wants of it.
    pub order: Option<Order>,
    /// Its last changes, oldest first.
    pub changes: Vec<ChangeStatus>,
    /// The last calls, oldest first.
    pub calls: Vec<CallStatus>,
}

/// A change of a breaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeStatus {
    /// When.
    pub at: Timestamp,
    /// From what.
    #[serde(serialize_with = "text")]
    pub from: State,
    /// To what.
    #[serde(serialize_with = "text")]
    pub to: State,
    /// Why.
    pub why: String,
    /// The last calls before.
    pub calls: Vec<CallStatus>,
}

/// A call through a breaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallStatus {
    /// When it ended.
    pub at: Timestamp,
    /// What came of it: `ok`, or a cause.
    pub came: &'static str,
    /// A run's token, or a delivery's id.
    pub tag: String,
}

fn text<S: serde::Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

impl BreakerStatus {
    /// The breaker as it is; `said` is what the last failure said.
    pub fn of(breaker: &Breaker, said: &str, now: Now) -> BreakerStatus {
        let call = |sample: &Sample| CallStatus {
            at: now.wall_at(sample.at),
            came: sample.cause,
            tag: sample.tag.to_string(),
        };
        let change = |transition: &Transition| ChangeStatus {
            at: now.wall_at(transition.at),
            from: transition.from,
            to: transition.to,
            why: transition.why.clone(),
            calls: transition.samples.iter().map(call).collect(),
        };
        BreakerStatus {
            state: breaker.state(),
            would_be: breaker.would_be(),
            since: breaker.left_closed().map(|at| now.wall_at(at)),
            open_until: breaker.open_until().map(|at| now.wall_at(at)),
            failing: if breaker.state().refuses() { said.to_owned() } else { String::new() },
            order: breaker.order().map(|(order, until)| Order { until: now.wall_at(until), ..order.clone() }),
            changes: breaker.transitions().map(change).collect(),
            calls: breaker.samples().map(call).collect(),
        }
    }

    /// Whether there is anything to say of it.
    pub fn is_noteworthy(&self) -> bool {
        self.state.refuses() || self.order.is_some()
    }

    /// How it is, in a sentence.
    pub fn words(&self) -> String {
        let utc = |at: &Timestamp| at.strftime("%H:%M:%S UTC").to_string();
        match (&self.order, &self.since, &self.open_until) {
            (Some(order), ..) => {
                format!(
                    "{}: {} wants it so until {}: {}",
                    self.state.words(),
                    order.by,
                    utc(&order.until),
                    order.reason
                )
            }
            (None, Some(since), Some(until)) => {
                let opened = self.changes.iter().rev().find(|change| change.from == State::Closed);
                let why = opened.map_or("what opened it was long ago", |change| change.why.as_str());
                let state = self.state.words();
                let said = if self.failing.is_empty() { String::new() } else { format!("; it said: {}", self.failing) };
                format!("{state} since {} ({why}); tried again at {}{said}", utc(since), utc(until))
            }
            (None, ..) => self.state.words().to_owned(),
        }
    }
}
