//! Alerts: one condition of one subject, from what the detectors find to when it fires and when it is over.
//!
//! `ok → suspect → firing → recovering → ok`. A journey has two: its health, and its budget, which may stay spent for weeks after
//! the journey is well. Channels and the daemon's own parts have one. People are told of incidents ([`crate::incident`]), which
//! alerts are members of.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::detect::{Detector, Detectors, Finding, Severity};
use crate::journey::Name;
use crate::time::{between, later};

/// This many endings within [`FLAP_WINDOW`] make the next firing a flapping one.
pub const FLAP_CYCLES: usize = 3;
/// How long an ending is remembered.
pub const FLAP_WINDOW: Duration = Duration::from_secs(2 * 3_600);
/// A flapping alert is over when it has been calm for this long.
pub const FLAP_CALM: Duration = Duration::from_secs(1_800);

/// What an alert is about. Its text form is stable: it is a key in the store, and what silences match as `subject`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Whether a journey works.
    Journey(Name),
    /// Whether a journey keeps its objective.
    Budget(Name),
    /// A channel.
    Channel(Name),
    /// A part of the daemon: `storage`, `clock`, `delivery ops-mail`.
    Daemon(Name),
}

impl Subject {
    /// The journey that it is about.
    pub fn journey(&self) -> Option<&Name> {
        match self {
            Subject::Journey(name) | Subject::Budget(name) => Some(name),
            Subject::Channel(_) | Subject::Daemon(_) => None,
        }
    }

    /// Whether it is the error budget of a journey.
    pub fn is_budget(&self) -> bool {
        matches!(self, Subject::Budget(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Journey(name) => write!(f, "{name}"),
            Subject::Budget(name) => write!(f, "{name}: error budget"),
            Subject::Channel(name) => write!(f, "channel: {name}"),
            Subject::Daemon(part) => write!(f, "journeyman: {part}"),
        }
    }
}

impl From<&str> for Subject {
    fn from(text: &str) -> Subject {
        if let Some(name) = text.strip_prefix("channel: ") {
            return Subject::Channel(name.into());
        }
        if let Some(part) = text.strip_prefix("journeyman: ") {
            return Subject::Daemon(part.into());
        }
        match text.strip_suffix(": error budget") {
            Some(name) => Subject::Budget(name.into()),
            None => Subject::Journey(text.into()),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Subject, D::Error> {
        String::deserialize(deserializer).map(|text| Subject::from(&*text))
    }
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// Something was bad, not often enough for any detector.
    Suspect,
    /// A detector fires.
    Firing,
    /// It still fires, and the last runs were good.
    Recovering,
}

impl Phase {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Ok => "ok",
            Phase::Suspect => "suspect",
            Phase::Firing => "firing",
            Phase::Recovering => "recovering",
        }
    }

    /// Whether it fires, getting well or not.
    pub fn is_firing(self) -> bool {
        matches!(self, Phase::Firing | Phase::Recovering)
    }
}

/// An alert: plain data, saved with every change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertState {
    /// Where it stands.
    pub phase: Phase,
    /// The first bad slot of the present trouble.
    pub since: Option<Timestamp>,
    /// What fires, the worst first.
    pub findings: Vec<Finding>,
    /// Bad runs since `since`.
    pub bad_runs: u32,
    /// The incident that it is a member of, while it fires.
    pub incident: Option<String>,
    /// It fired and ended so many times lately that only calm ends it.
    pub flapping: Option<u32>,
    /// When it last stopped to be calm, while it flaps.
    pub restless: Option<Timestamp>,
    /// When it ended, lately.
    pub ended: Vec<Timestamp>,
}

/// What a look at a subject gave.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What fires.
    pub findings: Vec<Finding>,
    /// Something is bad, and no detector fires.
    pub is_suspicious: bool,
    /// Bad since this slot.
    pub since: Option<Timestamp>,
    /// The last run was good.
    pub is_good: bool,
    /// A bad run was taken.
    pub is_bad_run: bool,
    /// However often it fires and ends, each is an incident of its own.
    pub is_undamped: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing that anybody acts on.
    None,
    /// It begins to fire.
    Fired,
    /// It goes on, and what fires or how bad it is has changed.
    Changed,
    /// It is over.
    Ended,
}

impl AlertState {
    /// Takes what was found.
    pub fn settle(&mut self, look: Look, now: Timestamp) -> Transition {
        let Look { mut findings, is_suspicious, since, is_good, is_bad_run, is_undamped } = look;
        findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.detector));
        self.bad_runs += u32::from(is_bad_run);
        let was_firing = self.phase.is_firing();
        if !was_firing {
            if findings.is_empty() {
                self.phase = if is_suspicious { Phase::Suspect } else { Phase::Ok };
                self.since = since.filter(|_| is_suspicious);
                if !is_suspicious {
                    self.bad_runs = 0;
                }
                return Transition::None;
            }
            // Evidence may be older than the last incident, which had its own beginning: the two must not have one identity.
            let since = since.filter(|since| self.ended.last().is_none_or(|ended| since > ended));
            self.ended.retain(|at| between(*at, now) < FLAP_WINDOW);
            self.flapping = (self.ended.len() >= FLAP_CYCLES && !is_undamped).then_some(self.ended.len() as u32 + 1);
            self.restless = self.flapping.map(|_| now);
            self.since = since.or(Some(now));
            (self.phase, self.findings) = (Phase::Firing, findings);
            return Transition::Fired;
        }
        if self.flapping.is_some() && (!findings.is_empty() || is_suspicious) {
            self.restless = Some(now);
        }
        if findings.is_empty() && !self.is_restless(now) {
            self.ended.push(now);
            *self = AlertState {
                ended: std::mem::take(&mut self.ended),
                incident: self.incident.take(),
                ..AlertState::default()
            };
            return Transition::Ended;
        }
        self.phase = if is_good || findings.is_empty() { Phase::Recovering } else { Phase::Firing };
        if findings.is_empty() {
            // Calm, not yet for long enough: what was found stands.
            return Transition::None;
        }
        let is_new = |finding: &Finding| (finding.detector, finding.severity);
        let changed = self.findings.iter().map(is_new).ne(findings.iter().map(is_new));
        self.findings = findings;
        if changed { Transition::Changed } else { Transition::None }
    }

    /// When time alone ends it.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.restless.filter(|_| self.flapping.is_some()).map(|at| later(at, FLAP_CALM))
    }

    /// How bad it is.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// What names it: the worst finding's detector.
    pub fn detector(&self) -> Option<Detector> {
        self.findings.first().map(|finding| finding.detector)
    }

    fn is_restless(&self, now: Timestamp) -> bool {
        self.flapping.is_some() && self.restless.is_some_and(|at| between(at, now) < FLAP_CALM)
    }
}

/// A journey's alerts and the state of its detectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JourneyAlerts {
    /// The detectors.
    pub detectors: Detectors,
    /// Whether it works.
    pub health: AlertState,
    /// Whether it keeps its objective.
    pub budget: AlertState,
}

#[cfg(test)]
mod tests;
