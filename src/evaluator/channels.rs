//! The channels that journeys use: what their runs and their readers say of them, and when that is found to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::AlertState;
use crate::detect::Finding;
use crate::detect::channel::{ChannelDetectors, Sides};
use crate::journey::report::Report;
use crate::journey::{Journey, Name};
use crate::metrics::Metrics;

/// Owns the state of every channel's detectors.
pub(super) struct Channels {
    of: BTreeMap<Name, Watched>,
    metrics: Arc<Metrics>,
}

struct Watched {
    detectors: ChannelDetectors,
    /// Who may say that it is down.
    sides: Sides,
    /// How long before its end a certificate is told of, if at all.
    warning: Option<Duration>,
    /// What was told last.
    findings: Vec<Finding>,
    /// When time alone changes that.
    deadline: Option<Timestamp>,
}

impl Channels {
    /// Those that these journeys use; without an entry in `warnings` a certificate is not told of, and `breakers` are the channels
    /// whose breaker refuses calls.
    pub(super) fn new(
        journeys: &[Arc<Journey>],
        warnings: &BTreeMap<Name, Duration>,
        breakers: &BTreeSet<Name>,
        metrics: Arc<Metrics>,
    ) -> Channels {
        let mut channels = Channels { of: BTreeMap::new(), metrics };
        channels.adopt(journeys, warnings, breakers);
        channels
    }

    /// Those that these journeys use from here on: what is known of one that stays is kept. Gives those that nobody uses any more and of
    /// which something was told.
    pub(super) fn adopt(
        &mut self,
        journeys: &[Arc<Journey>],
        warnings: &BTreeMap<Name, Duration>,
        breakers: &BTreeSet<Name>,
    ) -> Vec<Name> {
        let received: BTreeSet<_> = journeys.iter().flat_map(|journey| journey.receivers()).collect();
        let mut before = std::mem::take(&mut self.of);
        let used: BTreeSet<_> = journeys.iter().flat_map(|journey| journey.channels()).collect();
        for name in used {
            let sides = Sides { reader: received.contains(&name), breaker: breakers.contains(&name) };
            let warning = warnings.get(&name).copied();
            let (mut detectors, findings, deadline) =
                before.remove(&name).map(|old| (old.detectors, old.findings, old.deadline)).unwrap_or_default();
            detectors.hear_only(sides);
            self.of.insert(name, Watched { detectors, sides, warning, findings, deadline });
        }
        before.retain(|_, old| !old.findings.is_empty());
        before.into_keys().collect()
    }

    /// Those that journeys use.
    pub(super) fn names(&self) -> Vec<Name> {
        self.of.keys().cloned().collect()
    }

    /// Whether any journey uses it.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.of.contains_key(name)
    }

    /// Takes up what was found before a restart.
    pub(super) fn resume(&mut self, name: &Name, alert: &AlertState, now: Timestamp) {
        if let Some(watched) = self.of.get_mut(name).filter(|_| alert.phase.is_firing()) {
            watched.detectors.resume(&alert.findings, watched.sides, now);
            watched.findings.clone_from(&alert.findings);
            watched.deadline = Some(now);
        }
    }

    /// Takes what its reader says.
    pub(super) fn read(&mut self, name: &Name, trouble: Option<String>) {
        if let Some(watched) = self.of.get_mut(name) {
            watched.detectors.read(trouble);
        }
    }

    /// Takes what its breaker says.
    pub(super) fn broke(&mut self, name: &Name, trouble: Option<String>) {
        if let Some(watched) = self.of.get_mut(name) {
            watched.detectors.broke(trouble);
        }
    }

    /// Takes what a run met; gives the channels that are to be looked at.
    pub(super) fn take(&mut self, report: &Report, now: Timestamp) -> BTreeSet<Name> {
        let mut touched = BTreeSet::new();
        for step in &report.steps {
            let Some(name) = &step.channel else { continue };
            if self.of.get_mut(name).is_some_and(|watched| watched.detectors.take(report, step, now)) {
                touched.insert(name.clone());
            }
        }
        touched
    }

    /// Those that time alone has changed.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Name> {
        let is_due = |watched: &Watched| watched.deadline.is_some_and(|at| at <= now);
        self.of.iter().filter(|(_, watched)| is_due(watched)).map(|(name, _)| name.clone()).collect()
    }

    /// What is wrong with it, if that is not what was told last.
    pub(super) fn look(&mut self, name: &Name, now: Timestamp) -> Option<Vec<Finding>> {
        let watched = self.of.get_mut(name)?;
        let findings = watched.detectors.look(watched.warning, now);
        watched.deadline = watched.detectors.deadline(watched.warning, now);
        if let Some(until) = watched.detectors.certificate_until() {
            self.metrics.set_certificate(name, until);
        }
        if findings == watched.findings {
            return None;
        }
        watched.findings.clone_from(&findings);
        Some(findings)
    }
}
