//! One journey judged: from its rules, its history and its detectors to its two alerts, and what the desk hears of them.
//!
//! The evaluator asks this of what happens, [`crate::replay`] of what happened: both decide the same.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::{AlertState, JourneyAlerts, Look, Subject};
use crate::detect::{Detector, Rules, burn, is_only_drift};
use crate::incident::root::{Resource, ResourceKind};
use crate::incident::{Desk, Profile};
use crate::journey::{Journey, Name};
use crate::slo::{History, SloStatus};

/// What the detectors must know of a journey that runs this often.
pub fn rules(journey: &Journey, interval: Duration) -> Rules {
    Rules {
        policy: journey.alert.clone(),
        stale_after: interval * 2 + journey.deadline,
        allowed: journey.objective.as_ref().map_or(0.0, |objective| 1.0 - objective.delivered),
    }
}

/// What the desk must know of a journey's two alerts, of which only what `group_by` names makes them members of one incident.
pub fn profiles(journey: &Journey, location: Option<&str>, group_by: &[ResourceKind]) -> [Profile; 2] {
    let labels = Arc::new(journey.alert_labels(location));
    let dependencies = journey.depends_on.iter().cloned().map(Resource::Dependency);
    let channels = journey.channels().into_iter().map(Resource::Channel);
    let labelled = journey.labels.iter().map(|(name, value)| Resource::Label(name.clone(), value.clone()));
    let place = journey.seen_from(location).map(|location| Resource::Location(location.to_owned()));
    let all = dependencies.chain(channels).chain(labelled).chain(place);
    let resources: Vec<_> = all.filter(|resource| group_by.contains(&resource.kind())).collect();
    let profile = |subject: Subject| Profile {
        subject,
        labels: labels.clone(),
        resources: resources.clone(),
        notify: journey.notify.clone(),
        remind: journey.alert.remind,
        muted: journey.muted,
        maintenance: journey.maintenance.clone(),
    };
    [Subject::Journey(journey.name.clone()), Subject::Budget(journey.name.clone())].map(profile)
}

/// Looks what a journey's detectors find, and tells the desk. `blamed` is where its last bad run failed.
pub fn look_at_health(
    name: &Name,
    rules: &Rules,
    alerts: &mut JourneyAlerts,
    is_bad_run: bool,
    blamed: Option<Resource>,
    desk: &mut Desk,
    now: Timestamp,
) {
    let findings = alerts.detectors.look(rules, now);
    let detectors = &alerts.detectors;
    let is_bad = detectors.is_suspicious() || !findings.is_empty() && detectors.good == 0;
    let look = Look {
        // A good run is no sign that a drift ends.
        is_good: detectors.good > 0 && !is_only_drift(&findings),
        findings,
        is_suspicious: detectors.is_suspicious(),
        since: detectors.since(),
        is_bad_run,
        is_undamped: !rules.policy.flapping,
    };
    settle(&mut alerts.health, &Subject::Journey(name.clone()), look, is_bad, blamed, desk, now);
}

/// Looks what is wrong with a journey's budget, and tells the desk.
pub fn look_at_budget(
    name: &Name,
    history: &History,
    status: &SloStatus,
    alert: &mut AlertState,
    desk: &mut Desk,
    now: Timestamp,
) {
    let was_gone = alert.findings.iter().any(|finding| finding.detector == Detector::Exhausted);
    let findings = burn::findings(history, status, was_gone, now);
    if findings.is_empty() && !alert.phase.is_firing() {
        return;
    }
    let is_bad = !findings.is_empty();
    let look = Look { findings, ..Look::default() };
    settle(alert, &Subject::Budget(name.clone()), look, is_bad, None, desk, now);
}

/// Settles what was found about a subject, and tells the desk.
pub fn settle(
    alert: &mut AlertState,
    subject: &Subject,
    look: Look,
    is_bad: bool,
    blamed: Option<Resource>,
    desk: &mut Desk,
    now: Timestamp,
) {
    let transition = alert.settle(look, now);
    alert.incident = desk.update(subject, alert, transition, is_bad, blamed, now);
}

/// When time alone can change a journey's alerts.
pub fn deadline(rules: &Rules, alerts: &JourneyAlerts) -> Option<Timestamp> {
    let flapping = [alerts.health.deadline(), alerts.budget.deadline()];
    flapping.into_iter().flatten().chain(alerts.detectors.deadline(rules)).min()
}
