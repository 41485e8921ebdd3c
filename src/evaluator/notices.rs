//! From what the desk decided to what is written and owed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::alert::{AlertState, Subject};
use crate::control::grant::{Deed, Grant};
use crate::detect::Detector;
use crate::evaluator::watched::objective_line;
use crate::evaluator::{Evaluator, LINKS_FOR, Round};
use crate::incident::{Action, Incident, NotifyReason, Root};
use crate::journey::Name;
use crate::notice::{Notification, address, delivery_id};
use crate::store::{Change, IncidentRow, OutboxRow, OutboxState};
use crate::time::later;

/// The journeys of a round that an incident is shown with or that are part of it, by its id. Looked up for each incident anew, a
/// round in which thousands fail for as many causes would take their product.
pub(super) type Links = HashMap<String, BTreeSet<Name>>;

impl Evaluator {
    /// Lets the desk decide, and takes down what follows.
    pub(super) fn decide(&mut self, round: &mut Round, now: Timestamp) {
        let silences: Vec<_> = self
            .desk
            .silences(now)
            .filter(|silence| silence.until_resolved)
            .map(|silence| silence.id.clone())
            .collect();
        let actions = self.desk.decide(now);
        // What ended with its incident must not be there again after a restart.
        for id in silences {
            if self.desk.silences(now).all(|silence| silence.id != id) {
                tracing::info!(silence = id, "a silence has ended with what it was for");
                round.changes.push(Change::Unsilence { id });
                round.silences_changed = true;
            }
        }
        let mut links = Links::new();
        round.touched.iter().for_each(|name| self.link(name, &mut links));
        for action in actions {
            match action {
                Action::Notify { notifier, reason, incident, members, news, lead } => {
                    let mut notification = self.notification(reason, &incident, &lead, now);
                    (notification.members, notification.news) = (members, news);
                    notification.news.extend(self.parts.alone.as_ref().map(|alone| alone.said.clone()));
                    round.owed.push(owed(&incident, notifier, &notification, now));
                }
                Action::Changed { incident, lead } => self.record(*incident, &lead, None, &mut links, round),
                Action::Closed { incident, lead } => self.record(*incident, &lead, Some(now), &mut links, round),
                Action::Moved { subject, incident } => {
                    self.moved(&subject, incident, round);
                    subject.journey().into_iter().for_each(|name| self.link(name, &mut links));
                }
            }
        }
    }

    fn link(&self, name: &Name, links: &mut Links) {
        let Some(watched) = self.journeys.get(name) else { return };
        let shown = watched.incident.as_ref().map(|shown| &shown.id);
        let ids = [shown, watched.alerts.health.incident.as_ref(), watched.alerts.budget.incident.as_ref()];
        for id in ids.into_iter().flatten() {
            links.entry(id.clone()).or_default().insert(name.clone());
        }
    }

    pub(super) fn record(
        &mut self,
        incident: Incident,
        lead: &Subject,
        resolved: Option<Timestamp>,
        links: &mut Links,
        round: &mut Round,
    ) {
        round.recorded.insert(incident.id.clone());
        let journeys = self.shown_in(&incident, lead, resolved.is_none(), links, round);
        let bad = lead.journey().and_then(|name| self.journeys.get(name)?.last_bad.clone());
        let bad = bad.filter(|_| !is_drift(&incident));
        let summary = match (resolved, &incident.root, bad) {
            (Some(_), ..) => String::new(),
            (None, Root::Alone(Subject::Journey(_)), Some(report)) => report.verdict_line(),
            (None, ..) => self.decision(&incident, lead),
        };
        let row = IncidentRow {
            id: incident.id.clone(),
            subject: incident.title(),
            since: incident.since,
            resolved,
            severity: incident.worst.to_string(),
            detectors: incident.detectors.iter().map(ToString::to_string).collect(),
            summary,
            bad_runs: incident.bad_runs,
            members: incident.members,
        };
        let open = resolved.is_none().then(|| Box::new(incident));
        let id = row.id.clone();
        let journeys = match round.incidents.get(&id) {
            Some(Change::Incident { journeys: before, .. }) => before.iter().chain(&journeys).cloned().collect(),
            _ => journeys,
        };
        round.incidents.insert(id, Change::Incident { row, open, journeys });
    }

    /// Shows the incident with the journeys of this round that are part of it, and gives their names.
    fn shown_in(
        &mut self,
        incident: &Incident,
        lead: &Subject,
        is_open: bool,
        links: &mut Links,
        round: &mut Round,
    ) -> Vec<Name> {
        let mut names = links.get(&incident.id).cloned().unwrap_or_default();
        names.extend(lead.journey().cloned());
        names.retain(|name| {
            let Some(watched) = self.journeys.get_mut(name) else { return false };
            let was_shown = watched.incident.as_ref().is_some_and(|shown| shown.id == incident.id);
            let is_member = watched.alerts.health.incident.as_deref() == Some(&incident.id);
            let is_budgets = watched.alerts.budget.incident.as_deref() == Some(&incident.id);
            if is_member && is_open {
                watched.incident = Some(Arc::new(incident.clone()));
            } else if was_shown {
                watched.incident = None;
            }
            is_member || is_budgets || was_shown
        });
        for name in &names {
            if round.touched.insert(name.clone()) {
                self.link(name, links);
            }
        }
        names.into_iter().collect()
    }

    fn moved(&mut self, subject: &Subject, incident: String, round: &mut Round) {
        match subject {
            Subject::Journey(name) | Subject::Budget(name) => {
                let Some(watched) = self.journeys.get_mut(name) else { return };
                let is_health = matches!(subject, Subject::Journey(_));
                let alert = if is_health { &mut watched.alerts.health } else { &mut watched.alerts.budget };
                alert.incident = Some(incident);
                let state = Box::new(watched.alerts.clone());
                round.changes.push(Change::Alert { journey: name.clone(), state });
                round.touched.insert(name.clone());
            }
            Subject::Channel(_) | Subject::Daemon(_) => {
                let Some(alert) = self.conditions.get_mut(subject) else { return };
                alert.incident = Some(incident);
                round.changes.push(Change::Condition { subject: subject.clone(), state: Box::new(alert.clone()) });
            }
        }
    }

    fn alert_of(&self, subject: &Subject) -> Option<&AlertState> {
        match subject {
            Subject::Journey(name) => self.journeys.get(name).map(|watched| &watched.alerts.health),
            Subject::Budget(name) => self.journeys.get(name).map(|watched| &watched.alerts.budget),
            Subject::Channel(_) | Subject::Daemon(_) => self.conditions.get(subject),
        }
    }

    /// The arithmetic of what fires, for people.
    fn decision(&self, incident: &Incident, lead: &Subject) -> String {
        if let Root::Shared { said, .. } = &incident.root
            && incident.members > 1
        {
            return said.clone();
        }
        let findings = self.alert_of(lead).map(|alert| alert.findings.as_slice()).unwrap_or_default();
        findings.iter().map(|finding| finding.said.as_str()).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn notification(
        &self,
        reason: NotifyReason,
        incident: &Incident,
        lead: &Subject,
        now: Timestamp,
    ) -> Notification {
        let decision = match reason {
            NotifyReason::Resolved => self.resolution(incident, lead),
            _ => self.decision(incident, lead),
        };
        let mut notification = self.bare_notification(reason, incident, decision, now);
        if reason != NotifyReason::Resolved {
            let link = |path: &str, deed| {
                let grant = Grant { deed, incident: incident.id.clone(), until: later(now, LINKS_FOR) };
                self.address(&[path, &grant.sign(&self.key)])
            };
            notification.ack_link = link("ack", Deed::Acknowledge);
            notification.run_link = lead.journey().and_then(|_| link("run", Deed::RunAgain));
        }
        let Some(watched) = lead.journey().and_then(|name| self.journeys.get(name)) else { return notification };
        let journey = &watched.journey;
        notification.location = journey.seen_from(self.parts.location.as_deref()).map(str::to_owned);
        notification.owner.clone_from(&journey.owner);
        notification.runbook.clone_from(&journey.runbook);
        notification.labels.clone_from(&journey.labels);
        (notification.budget, notification.deadline) = (journey.budget, Some(journey.deadline));
        notification.objective = watched.slo_status(now).as_ref().map(objective_line);
        let is_over = reason == NotifyReason::Resolved;
        // The last run before a silence is often a good one, and does not show what is wrong. Of a drift every run does.
        let shown = if is_over || is_drift(incident) {
            watched.last.as_ref()
        } else {
            watched.last.as_ref().filter(|last| last.is_bad()).or(watched.last_bad.as_ref())
        };
        notification.report = shown.map(|report| (**report).clone());
        notification.last_good = watched
            .last_good
            .as_ref()
            .map(|report| (**report).clone())
            .filter(|good| Some(good) != notification.report.as_ref());
        notification
    }

    fn resolution(&self, incident: &Incident, lead: &Subject) -> String {
        let journey = match (&incident.root, lead) {
            // Where no run was bad, it is not good ones that ended it.
            (Root::Alone(_), Subject::Journey(name)) if incident.bad_runs > 0 => {
                self.journeys.get(name).map(|watched| &watched.journey)
            }
            _ => None,
        };
        match (journey, incident.flapping) {
            (_, Some(_)) => "calm for 30 minutes".to_owned(),
            (Some(journey), None) => {
                format!("{} good runs in a row (recover_after = {0})", journey.alert.recover_after)
            }
            (None, None) => "nothing that was found holds any more".to_owned(),
        }
    }

    /// A notice without a run.
    pub(super) fn bare_notification(
        &self,
        reason: NotifyReason,
        incident: &Incident,
        decision: String,
        now: Timestamp,
    ) -> Notification {
        let page = match &incident.root {
            Root::Alone(Subject::Journey(name) | Subject::Budget(name)) => vec!["journeys", &**name],
            _ => vec!["incidents", &incident.id],
        };
        Notification {
            reason,
            incident: incident.clone(),
            at: now,
            subject: incident.title(),
            members: Vec::new(),
            news: Vec::new(),
            is_whole: false,
            handed_over: None,
            owner: None,
            runbook: None,
            labels: Default::default(),
            location: self.parts.location.clone(),
            budget: None,
            deadline: None,
            decision,
            report: None,
            last_good: None,
            objective: None,
            link: self.address(&page),
            ack_link: None,
            run_link: None,
            mark: None,
        }
    }

    /// The address of a page of ours, if people can reach us.
    pub(super) fn address(&self, page: &[&str]) -> Option<String> {
        address(self.parts.public_url.as_ref(), page)
    }
}

/// Whether no run of it has to be a bad one.
fn is_drift(incident: &Incident) -> bool {
    incident.detectors.iter().eq([&Detector::Drift])
}

pub(super) fn owed(incident: &Incident, notifier: Name, notification: &Notification, now: Timestamp) -> OutboxRow {
    OutboxRow {
        id: delivery_id(&incident.id, incident.sequence, &notifier),
        incident: incident.id.clone(),
        sequence: incident.sequence,
        notifier,
        instead_of: None,
        created: now,
        notification: notification.clone(),
        state: OutboxState::pending(now),
    }
}
