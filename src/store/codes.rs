//! Values as columns hold them, in every store.

use std::time::Duration;

use jiff::Timestamp;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::ledger::Settled;

pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

pub(super) fn blob(token: Token) -> [u8; 16] {
    token.bits().to_be_bytes()
}

/// A report as it is kept. Most are of good runs, which have little to tell: what a step has none of is left out.
pub(super) struct Kept<'a>(pub(super) &'a Report);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut kept = serde_json::to_value(self.0).map_err(S::Error::custom)?;
        let steps = kept.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
        for step in steps.filter_map(Value::as_object_mut) {
            step.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        }
        kept.serialize(serializer)
    }
}

/// A verdict's code in the store. Append only.
pub(super) fn verdict_code(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Good => 0,
        Verdict::Slow => 1,
        Verdict::Failed => 2,
        Verdict::Late => 3,
        Verdict::Unknown => 4,
        Verdict::Excluded => 5,
    }
}

/// The verdict of this code, if there is one.
pub(super) fn verdict_of(code: i64) -> Option<Verdict> {
    Verdict::ALL.iter().copied().find(|verdict| verdict_code(*verdict) == code)
}

/// Why an outcome is what it is, in the store. Append only; zero is no reason.
pub(super) fn why_code(outcome: &Outcome) -> i64 {
    let place = WHYS.iter().position(|why| *why == outcome.label());
    place.map_or(0, |place| place as i64)
}

pub(super) const WHYS: &[&str] = &[
    "",
    "unreachable",
    "tls",
    "auth",
    "refused",
    "rejected",
    "throttled",
    "unroutable",
    "uncertain",
    "not_received",
    "mismatch",
    "duplicate",
    "reordered",
    "altered",
    "misrouted",
    "backlog",
    "exec",
    "blocked",
    "not_ready",
    "storage",
    "shutdown",
    "missed",
    "skipped",
    "unavailable",
    "internal",
    "maintenance",
    "paused",
    "spend",
    "restart",
    "observer",
];

pub(super) fn settled_code(how: Settled) -> i64 {
    match how {
        Settled::Arrived => 1,
        Settled::Missing => 2,
    }
}

pub(super) fn settled_of(code: i64) -> Settled {
    if code == 1 { Settled::Arrived } else { Settled::Missing }
}

// Every cause and reason must have a place in WHYS, or it would be forgotten.
const _: () = assert!(WHYS.len() == 1 + Cause::ALL.len() + UnknownWhy::ALL.len() + ExcludedWhy::ALL.len());
