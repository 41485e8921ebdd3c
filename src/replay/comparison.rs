//! Two replays of one history, side by side.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::journey::Name;
use crate::replay::Told;
use crate::time::between;

/// What would have been told, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Beginnings, and turns to the worse, that get somebody up.
    pub pages: u32,
    /// Beginnings that somebody looks at that day.
    pub tickets: u32,
    /// Reminders.
    pub repeats: u32,
    /// Endings.
    pub resolved: u32,
}

impl Counts {
    fn add(&mut self, told: &Told) {
        match told.reason {
            NotifyReason::First | NotifyReason::Worse if told.severity == Severity::Critical => self.pages += 1,
            NotifyReason::First | NotifyReason::Worse => self.tickets += 1,
            NotifyReason::Repeat | NotifyReason::Updated => self.repeats += 1,
            NotifyReason::Resolved => self.resolved += 1,
        }
    }
}

/// In which of two lists something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// In both.
    Both,
    /// Only as it is configured.
    Present,
    /// Only as it was changed.
    Changed,
}

/// A stretch of time, as people would have heard of it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Runs in it.
    pub runs: u64,
    /// The journeys that were gone through.
    pub journeys: Vec<Name>,
    /// What would have been told by the present configuration.
    pub present: Vec<Told>,
    /// What would have been told by the changed one.
    pub changed: Option<Vec<Told>>,
}

impl Comparison {
    /// Each journey's numbers, present and changed; what is of no journey is under its subject.
    pub fn counts(&self) -> BTreeMap<String, [Counts; 2]> {
        let mut counts: BTreeMap<String, [Counts; 2]> =
            self.journeys.iter().map(|name| (name.to_string(), Default::default())).collect();
        for (side, told) in [&self.present, self.changed.as_ref().unwrap_or(&Vec::new())].into_iter().enumerate() {
            for told in told {
                let name = told.journey.as_ref().map_or(told.subject.clone(), ToString::to_string);
                counts.entry(name).or_default()[side].add(told);
            }
        }
        counts
    }

    /// Pages a week, present and changed.
    pub fn pages_a_week(&self) -> [f64; 2] {
        let weeks = between(self.from, self.until).as_secs_f64() / (7.0 * 86_400.0);
        [0, 1].map(|side| {
            let pages: u32 = self.counts().values().map(|counts| counts[side].pages).sum();
            if weeks > 0.0 { f64::from(pages) / weeks } else { 0.0 }
        })
    }

    /// Everything told, in order, and by which configuration. What both tell at the same time for the same reason is one line.
    pub fn lines(&self) -> Vec<(Side, &Told)> {
        let Some(changed) = &self.changed else {
            return self.present.iter().map(|told| (Side::Both, told)).collect();
        };
        let is_same = |one: &Told, other: &Told| {
            (one.at, &one.notifier, one.reason, one.severity, &one.subject)
                == (other.at, &other.notifier, other.reason, other.severity, &other.subject)
        };
        let present = self.present.iter().map(|told| {
            let is_both = changed.iter().any(|other| is_same(told, other));
            (if is_both { Side::Both } else { Side::Present }, told)
        });
        let only_changed = changed
            .iter()
            .filter(|told| !self.present.iter().any(|other| is_same(told, other)))
            .map(|told| (Side::Changed, told));
        let mut lines: Vec<_> = present.chain(only_changed).collect();
        lines.sort_by_key(|(_, told)| told.at);
        lines
    }
}
