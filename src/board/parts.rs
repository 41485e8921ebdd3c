//! The parts of the daemon as `/health` shows them: whether each works, what it last really did, and how long ago that may be.
//!
//! A part that only says that it is well proves nothing: where something has to happen again and again, the part is bad when it has
//! not happened for too long, whatever it said last.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::time::{Human, Mono, Now, earlier};

/// A part of the daemon, for `/health`.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    /// Whether it works.
    pub ok: bool,
    /// Whether the daemon can do its main work without it.
    pub critical: bool,
    /// What is wrong, or what it does.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// When it last really did its work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// How long ago that is; before the first time, how long it has been waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// It is bad when that is as long as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<f64>,
    /// What is wrong with it, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Component {
    /// A part that is well or not, since then.
    pub fn new(ok: bool, critical: bool, detail: impl Into<String>, since: Timestamp) -> Component {
        let detail = detail.into();
        let cause = (!ok).then(|| detail.clone());
        Component { ok, critical, detail, since, last_success: None, age_seconds: None, limit_seconds: None, cause }
    }

    /// With how long ago it last worked, which may be as long as `limit`.
    pub fn aged(self, last: Option<Timestamp>, age: Duration, limit: Option<Duration>) -> Component {
        let is_old = limit.is_some_and(|limit| age >= limit);
        let [for_long, most] = [age, limit.unwrap_or_default()].map(|time| Human(Duration::from_secs(time.as_secs())));
        let late = || format!("nothing for {for_long}, and {most} is the limit; {}", self.detail);
        Component {
            ok: self.ok && !is_old,
            cause: self.cause.or_else(|| is_old.then(late)),
            last_success: last,
            age_seconds: (last.is_some() || limit.is_some()).then_some(age.as_secs_f64()),
            limit_seconds: limit.map(|limit| limit.as_secs_f64()),
            ..self
        }
    }
}

/// What the drivers say of themselves.
#[derive(Debug, Default)]
pub(super) struct Parts(BTreeMap<String, Part>);

#[derive(Debug)]
struct Part {
    said: Component,
    /// When it last really did its work.
    worked: Option<Now>,
    /// How long ago that may be, and since when that counts if it never was.
    limit: Option<(Duration, Mono)>,
}

impl Parts {
    /// A part is there no more.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Takes what a part says of itself. Keeps since when, while it stays as it was.
    pub(super) fn say(&mut self, name: &str, ok: bool, critical: bool, detail: String, now: Timestamp) {
        let before = self.0.get_mut(name);
        let since = before.as_ref().filter(|before| before.said.ok == ok).map_or(now, |before| before.said.since);
        let said = Component::new(ok, critical, detail, since);
        match before {
            Some(part) => part.said = said,
            None => drop(self.0.insert(name.to_owned(), Part { said, worked: None, limit: None })),
        }
    }

    /// A part has really done its work.
    pub(super) fn worked(&mut self, name: &str, now: Now) {
        if let Some(part) = self.0.get_mut(name) {
            part.worked = Some(now);
        }
    }

    /// A part has to do its work this often, from now on.
    pub(super) fn expect(&mut self, name: &str, limit: Duration, now: Mono) {
        if let Some(part) = self.0.get_mut(name) {
            part.limit = Some((limit, now));
        }
    }

    /// What they come to now.
    pub(super) fn shown(&self, now: Mono, wall: Timestamp) -> BTreeMap<String, Component> {
        self.0.iter().map(|(name, part)| (name.clone(), part.shown(now, wall))).collect()
    }
}

impl Part {
    fn shown(&self, now: Mono, wall: Timestamp) -> Component {
        let waiting = self.limit.map(|(_, since)| since);
        let Some(since) = self.worked.map(|worked| worked.mono).into_iter().chain(waiting).max() else {
            return self.said.clone();
        };
        let (age, limit) = (now.since(since), self.limit.map(|(limit, _)| limit));
        let shown = self.said.clone().aged(self.worked.map(|worked| worked.wall), age, limit);
        // It went bad when the limit was reached, and not when it was last well.
        let over = limit.filter(|limit| self.said.ok && age >= *limit).map(|limit| age - limit);
        Component { since: over.map_or(shown.since, |over| earlier(wall, over)), ..shown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now {
            wall: Timestamp::from_second(1_790_000_000 + second as i64).unwrap(),
            mono: Mono(Duration::from_secs(second)),
        }
    }

    fn shown(parts: &Parts, second: u64) -> Component {
        parts.shown(at(second).mono, at(second).wall).remove("store").unwrap()
    }

    #[test]
    fn what_has_not_happened_for_too_long_is_bad_whatever_was_said() {
        let mut parts = Parts::default();
        parts.say("store", true, true, "takes commits".to_owned(), at(0).wall);
        let plain = shown(&parts, 1_000);
        assert!(plain.ok && plain.age_seconds.is_none() && plain.cause.is_none(), "nothing is expected of it");
        parts.expect("store", Duration::from_secs(15), at(1_000).mono);
        assert!(shown(&parts, 1_014).ok);
        let never = shown(&parts, 1_015);
        assert!(!never.ok && never.last_success.is_none(), "it never worked, and had its time");
        parts.worked("store", at(1_020));
        assert!(shown(&parts, 1_034).ok);
        let late = shown(&parts, 1_040);
        assert_eq!((late.ok, late.since), (false, at(1_035).wall), "since the limit was reached");
        assert_eq!((late.age_seconds, late.limit_seconds), (Some(20.0), Some(15.0)));
        assert_eq!(late.last_success, Some(at(1_020).wall));
        assert!(late.cause.unwrap().contains("nothing for 20s, and 15s is the limit"));
    }

    #[test]
    fn what_a_part_says_stands_and_keeps_since_when() {
        let mut parts = Parts::default();
        parts.say("store", false, true, "disk full".to_owned(), at(0).wall);
        parts.say("store", false, true, "disk still full".to_owned(), at(9).wall);
        parts.worked("store", at(5));
        let bad = shown(&parts, 10);
        assert_eq!((bad.ok, bad.since, bad.cause.as_deref()), (false, at(0).wall, Some("disk still full")));
        assert_eq!(bad.last_success, Some(at(5).wall));
        parts.say("store", true, true, "takes commits".to_owned(), at(11).wall);
        assert_eq!((shown(&parts, 12).ok, shown(&parts, 12).since), (true, at(11).wall));
    }
}
