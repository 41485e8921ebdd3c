//! What people would have been told: a history through the detectors and the desk, without a clock.
//!
//! The same judgement as the evaluator's ([`crate::judge`]), on runs that are given to it one after another. What nobody recorded
//! is not replayed: alerts of channels and of the daemon, acknowledgements, silences that were taken back.

pub mod comparison;
mod drift;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::alert::{AlertState, JourneyAlerts};
use crate::control::{Route, Silence};
use crate::detect::{Detector, Rules, Sample, Severity};
use crate::incident::root::{Resource, ResourceKind};
use crate::incident::{Action, Desk, NotifyReason};
use crate::journey::outcome::Verdict;
use crate::journey::{Journey, Name};
use crate::judge;
use crate::replay::drift::Course;
use crate::slo::{self, History};

/// What happened to a journey.
#[derive(Clone, Debug)]
pub enum Happened {
    /// It ran.
    Run {
        /// What it came to.
        sample: Sample,
        /// How long it took.
        latency: Duration,
        /// Where it failed.
        blamed: Option<Resource>,
    },
    /// A slot went by without a run.
    Without {
        /// The slot.
        slot: Timestamp,
        /// What it counts as.
        verdict: Verdict,
        /// Nothing ran at all at that time: we were not there to hear of anything.
        is_missed: bool,
    },
}

/// Something that somebody would have been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub notifier: Name,
    /// Why.
    pub reason: NotifyReason,
    /// How bad it was said to be.
    pub severity: Severity,
    /// What it was about.
    pub subject: String,
    /// The journey whose runs show it.
    pub journey: Option<Name>,
    /// What fired; of what is over, nothing does.
    pub detectors: BTreeSet<Detector>,
    /// The arithmetic.
    pub said: String,
    /// The incident.
    pub incident: String,
}

impl Told {
    /// Whether it gets somebody up.
    pub fn is_page(&self) -> bool {
        matches!(self.reason, NotifyReason::First | NotifyReason::Worse) && self.severity == Severity::Critical
    }
}

/// Journeys whose past is gone through again.
pub struct Replay {
    journeys: HashMap<Name, Watch>,
    desk: Desk,
    deadlines: BTreeSet<(Timestamp, Name)>,
}

struct Watch {
    journey: Arc<Journey>,
    rules: Rules,
    slots_in_window: u64,
    history: History,
    alerts: JourneyAlerts,
    blamed: Option<Resource>,
    /// The runs that drift is measured from, unless nobody wants to hear of it.
    course: Option<Course>,
    deadline: Option<Timestamp>,
}

impl Replay {
    /// Begins at `from`, with nothing wrong and an empty history.
    pub fn new(
        journeys: &[Arc<Journey>],
        location: Option<&str>,
        routes: Vec<Route>,
        group_by: &[ResourceKind],
        from: Timestamp,
    ) -> Replay {
        let mut replay = Replay {
            journeys: HashMap::with_capacity(journeys.len()),
            // What only brings a message up to date calls nobody.
            desk: Desk::new(routes, BTreeSet::new()),
            deadlines: BTreeSet::new(),
        };
        for journey in journeys {
            for profile in judge::profiles(journey, location, group_by) {
                replay.desk.enrol(profile, AlertState::default());
            }
            let watch = Watch {
                rules: judge::rules(journey, journey.schedule.interval(from)),
                slots_in_window: journey.slots_in_window(from),
                history: History::new(journey.window(), [], from),
                alerts: JourneyAlerts::default(),
                blamed: None,
                course: journey.alert.drift.then(Course::default),
                deadline: None,
                journey: journey.clone(),
            };
            replay.journeys.insert(journey.name.clone(), watch);
        }
        replay
    }

    /// Heeds these silences, each in its time.
    pub fn silenced(mut self, silences: Vec<Silence>) -> Replay {
        self.desk.restore(Vec::new(), silences);
        self
    }

    /// Takes what happened at `now`, after all that time alone did before. Nothing may be given that is earlier than what was
    /// given last; of journeys that it does not know it takes nothing.
    pub fn take(&mut self, journey: &str, what: Happened, now: Timestamp) -> Vec<Told> {
        let mut told = self.pass(now);
        let Some(watch) = self.journeys.get_mut(journey) else { return told };
        match what {
            Happened::Run { sample, latency, blamed } => {
                if !sample.is_confirmation {
                    watch.history.observe(sample.slot, sample.verdict);
                }
                watch.alerts.detectors.take(sample, &watch.rules, now);
                let measured = watch
                    .course
                    .as_mut()
                    .and_then(|course| course.take(sample, latency, watch.journey.schedule.interval(now), now));
                if let Some(measured) = measured {
                    watch.alerts.detectors.measured(measured, now);
                }
                let is_bad = matches!(sample.verdict, Verdict::Failed | Verdict::Slow | Verdict::Late);
                watch.blamed = blamed;
                watch.look(is_bad, &mut self.desk, now);
            }
            Happened::Without { slot, verdict, is_missed } => {
                watch.history.observe(slot, verdict);
                watch.history.advance(now);
                if is_missed {
                    watch.alerts.detectors.resume(now);
                }
            }
        }
        watch.plan(&mut self.deadlines);
        told.extend(self.decide(now));
        told
    }

    /// Lets time pass.
    pub fn pass(&mut self, until: Timestamp) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            let journeys = self.deadlines.first().map(|(at, _)| *at);
            let Some(at) = journeys.into_iter().chain(self.desk.deadline()).min().filter(|at| *at <= until) else {
                return told;
            };
            while let Some((_, name)) = self.deadlines.first().filter(|(due, _)| *due <= at).cloned() {
                self.deadlines.pop_first();
                let Some(watch) = self.journeys.get_mut(&name) else { continue };
                watch.deadline = None;
                watch.look(false, &mut self.desk, at);
                watch.plan(&mut self.deadlines);
            }
            told.extend(self.decide(at));
        }
    }

    /// The alerts of a journey, as they stand.
    pub fn alerts(&self, journey: &str) -> Option<&JourneyAlerts> {
        self.journeys.get(journey).map(|watch| &watch.alerts)
    }

    fn decide(&mut self, now: Timestamp) -> Vec<Told> {
        let mut notices = Vec::new();
        for action in self.desk.decide(now) {
            match action {
                Action::Notify { notifier, reason, incident, members, lead, .. } => notices.push(Told {
                    at: now,
                    severity: incident.told.get(&notifier).map_or(incident.worst, |told| told.severity),
                    notifier,
                    reason,
                    subject: incident.title(),
                    journey: lead.journey().cloned(),
                    detectors: if reason == NotifyReason::Resolved { BTreeSet::new() } else { incident.detectors },
                    said: members.into_iter().next().map_or(String::new(), |member| member.said),
                    incident: incident.id,
                }),
                Action::Moved { subject, incident } => {
                    let Some(watch) = subject.journey().and_then(|name| self.journeys.get_mut(name)) else { continue };
                    let is_budget = subject.is_budget();
                    let alert = if is_budget { &mut watch.alerts.budget } else { &mut watch.alerts.health };
                    alert.incident = Some(incident);
                }
                Action::Changed { .. } | Action::Closed { .. } => {}
            }
        }
        notices
    }
}

impl Watch {
    fn look(&mut self, is_bad_run: bool, desk: &mut Desk, now: Timestamp) {
        let (name, blamed) = (&self.journey.name, self.blamed.clone());
        judge::look_at_health(name, &self.rules, &mut self.alerts, is_bad_run, blamed, desk, now);
        if let Some(objective) = &self.journey.objective {
            let status = slo::status(&self.history, objective, self.slots_in_window, now);
            judge::look_at_budget(name, &self.history, &status, &mut self.alerts.budget, desk, now);
        }
        self.history.advance(now);
    }

    /// Notes when time alone can change its alerts.
    fn plan(&mut self, deadlines: &mut BTreeSet<(Timestamp, Name)>) {
        let next = judge::deadline(&self.rules, &self.alerts);
        if next == self.deadline {
            return;
        }
        if let Some(before) = self.deadline.take() {
            deadlines.remove(&(before, self.journey.name.clone()));
        }
        deadlines.extend(next.map(|at| (at, self.journey.name.clone())));
        self.deadline = next;
    }
}

#[cfg(test)]
mod tests;
