//! Values as columns hold them, in every store.

use std::time::Duration;

use jiff::Timestamp;

use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy, Verdict};
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
