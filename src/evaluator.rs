//! The evaluator: sole owner of objective and alert state. Observations in, one transaction and a fresh board out.
//!
//! What it decides is decided by [`crate::slo`] and [`crate::alert`]; here is only who is asked, what is written, and in which
//! order: decide, commit, then metrics, board and delivery. Nobody is told what is not on disk - unless the disk is what is
//! broken: then people are told at once, and what could not be written is kept and written later.

mod watched;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::alert::{AlertEvent, Incident, NotifyReason, Severity};
use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::delivery::Outbox;
use crate::evaluator::watched::Watched;
use crate::journey::{Journey, Name};
use crate::metrics::{DaemonMetrics, Metrics};
use crate::notice::{Notification, delivery_id};
use crate::scheduler::Observation;
use crate::slo::SpanChange;
use crate::store::{Change, OutboxRow, OutboxState, Store};
use crate::time::{Mono, Now, between};

/// Observations that are decided and committed together at most.
const TOGETHER: usize = 256;
/// A store that said no is asked again this often.
const RETRY_STORE: Duration = Duration::from_secs(1);
/// People hear of a store that fails again and again this often at most.
const TELL_STORE_AGAIN: Duration = Duration::from_secs(3_600);
/// While the store says no, this many changes are kept in memory; the oldest evidence goes first beyond that.
const KEPT_CHANGES: usize = 100_000;

/// What the evaluator works with.
pub struct Parts {
    /// Where state is kept.
    pub store: Arc<dyn Store>,
    /// The registry.
    pub metrics: Arc<Metrics>,
    /// The daemon's own handles.
    pub daemon: Arc<DaemonMetrics>,
    /// What people see.
    pub board: Arc<Board>,
    /// Where notices go.
    pub outbox: Arc<Outbox>,
    /// The process's clock.
    pub clock: Clock,
    /// Where we look from.
    pub location: Option<String>,
    /// How people reach the pages.
    pub public_url: Option<url::Url>,
    /// How many times rarer than by its schedule each journey runs, because of what its messages cost; 1 where that is nothing.
    pub slowdowns: HashMap<Name, f64>,
}

/// Owns every journey's state.
pub struct Evaluator {
    parts: Parts,
    journeys: HashMap<Name, Watched>,
    /// Journeys whose alert time alone can change, by when.
    deadlines: BTreeSet<(Timestamp, Name)>,
    deadline_of: HashMap<Name, Timestamp>,
    /// Decided and not on disk yet, because the store says no.
    unwritten: Vec<Change>,
    store_failed: Option<Timestamp>,
    store_tried: Mono,
    store_told: Option<Timestamp>,
}

/// What one round of observations leads to.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    owed: Vec<OutboxRow>,
    touched: BTreeSet<Name>,
    incidents_changed: bool,
}

impl Evaluator {
    /// Takes up the saved state of these journeys. Slots up to `counted` that went by while the daemon was not running are
    /// `unknown`.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn load(
        parts: Parts,
        journeys: &[Arc<Journey>],
        counted: Timestamp,
    ) -> Result<Evaluator, crate::store::StoreError> {
        let mut evaluator = Evaluator {
            parts,
            journeys: HashMap::with_capacity(journeys.len()),
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            unwritten: Vec::new(),
            store_failed: None,
            store_tried: Mono::default(),
            store_told: None,
        };
        let mut round = Round::default();
        let mut blind = Duration::ZERO;
        for journey in journeys {
            let saved = evaluator.parts.store.journey(journey.name.clone()).await?;
            let now = evaluator.parts.clock.now();
            let mut watched = Watched::new(journey.clone(), saved, &evaluator.parts, now.wall);
            blind = blind.max(watched.count_missed(&mut round, counted));
            round.incidents_changed |= watched.alert.phase.incident().is_some();
            watched.refresh(now.wall);
            evaluator.journeys.insert(journey.name.clone(), watched);
            round.touched.insert(journey.name.clone());
        }
        if blind > Duration::ZERO {
            evaluator.parts.daemon.blind.increment(blind.as_secs());
            tracing::info!(seconds = blind.as_secs(), "the daemon was not running; slots of that time are unknown");
        }
        evaluator.parts.store.apply(std::mem::take(&mut round.changes)).await?;
        let now = evaluator.parts.clock.now();
        evaluator.show(&round, now);
        Ok(evaluator)
    }

    /// Works until the observations end: the scheduler has stopped, and its last runs have been decided.
    pub async fn run(mut self, mut observations: mpsc::Receiver<Observation>, pulse: Arc<Pulse>) {
        let mut batch = Vec::with_capacity(TOGETHER);
        loop {
            let now = self.parts.clock.now();
            pulse.beat(now.mono);
            let wait = self.until_next(now.wall);
            tokio::select! {
                biased;
                received = observations.recv_many(&mut batch, TOGETHER) => if received == 0 { break },
                () = self.parts.clock.sleep_until(now.mono + wait) => {}
            }
            self.round(std::mem::take(&mut batch)).await;
        }
        if !self.unwritten.is_empty() && self.parts.store.apply(std::mem::take(&mut self.unwritten)).await.is_err() {
            tracing::error!("the last decisions could not be written; the next start will not know them");
        }
    }

    fn until_next(&self, now: Timestamp) -> Duration {
        let next = self.deadlines.first().map_or(BEAT, |(at, _)| between(now, *at).min(BEAT));
        if self.unwritten.is_empty() { next } else { next.min(RETRY_STORE) }
    }

    async fn round(&mut self, observations: Vec<Observation>) {
        let now = self.parts.clock.now();
        let mut round = Round::default();
        for observation in observations {
            self.observe(observation, &mut round, now.wall);
        }
        self.tick_due(&mut round, now.wall);
        for name in &round.touched {
            if let Some(watched) = self.journeys.get_mut(name) {
                let changes = watched.history.advance(now.wall);
                push_spans(&mut round.changes, name, changes);
                watched.refresh(now.wall);
            }
        }
        self.commit(&mut round).await;
        self.show(&round, now);
    }

    fn observe(&mut self, observation: Observation, round: &mut Round, now: Timestamp) {
        let parts = &self.parts;
        let name = match &observation {
            Observation::Finished(report) => report.journey.clone(),
            Observation::Skipped { journey, .. } => journey.name.clone(),
            Observation::Late { journey, .. } => journey.clone(),
        };
        let Some(watched) = self.journeys.get_mut(&name) else { return };
        match observation {
            Observation::Finished(report) => watched.finished(*report, parts, round, now),
            Observation::Skipped { slot, outcome, .. } => {
                let outcome = watched.without_run(outcome);
                watched.metrics.without_run(&outcome, 1);
                let change = watched.history.observe(slot, outcome.verdict());
                push_spans(&mut round.changes, &name, change);
            }
            Observation::Late { slot, token, at, .. } => watched.late(slot, token, at, round),
        }
        round.touched.insert(name);
    }

    /// Lets time pass for the alerts that time alone can change.
    fn tick_due(&mut self, round: &mut Round, now: Timestamp) {
        let due: Vec<_> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect();
        for name in due {
            if let Some(watched) = self.journeys.get_mut(&name) {
                watched.step(AlertEvent::Tick, None, &self.parts, round, now);
                round.touched.insert(name);
            }
        }
    }

    async fn commit(&mut self, round: &mut Round) {
        let had_unwritten = !self.unwritten.is_empty();
        if round.changes.is_empty() && !had_unwritten {
            return;
        }
        self.unwritten.append(&mut round.changes);
        let before = self.parts.clock.now();
        // An attempt costs as much as all that is unwritten, and a disk that was full a moment ago is full.
        if self.store_failed.is_some() && before.mono.since(self.store_tried) < RETRY_STORE {
            return self.go_without_store(round);
        }
        self.store_tried = before.mono;
        let result = self.parts.store.apply(self.unwritten.clone()).await;
        let now = self.parts.clock.now();
        self.parts.daemon.store_commit.record(now.mono.since(before.mono).as_secs_f64());
        match result {
            Ok(()) => {
                self.unwritten.clear();
                self.store_works(now.wall);
                if !round.owed.is_empty() || had_unwritten {
                    self.parts.outbox.wake();
                }
            }
            Err(error) => {
                self.store_fails(&error, now.wall);
                self.go_without_store(round);
            }
        }
    }

    /// Nobody waits for a disk to hear that something is down.
    fn go_without_store(&mut self, round: &Round) {
        for row in &round.owed {
            self.parts.outbox.tell_without_store(row.clone());
        }
        self.shed();
    }

    fn store_works(&mut self, now: Timestamp) {
        if let Some(since) = self.store_failed.take() {
            tracing::info!(after_seconds = between(since, now).as_secs(), "the store takes commits again");
        }
        self.parts.daemon.store_up.set(1.0);
        self.parts.board.set_component("store", true, true, "takes commits", now);
    }

    fn store_fails(&mut self, error: &crate::store::StoreError, now: Timestamp) {
        if self.store_failed.is_none() {
            self.store_failed = Some(now);
            tracing::error!(%error, "the store does not take commits; decisions are kept in memory and people are told directly");
            // A disk that is full again and again is one story.
            if self.store_told.is_none_or(|told| between(told, now) >= TELL_STORE_AGAIN) {
                self.store_told = Some(now);
                self.tell_about_store(error, now);
            }
        }
        self.parts.daemon.store_up.set(0.0);
        self.parts.board.set_component("store", false, true, error.to_string(), now);
    }

    /// The daemon's own storage alert. It cannot go through the store, so it goes without.
    fn tell_about_store(&self, error: &crate::store::StoreError, now: Timestamp) {
        let notifiers: BTreeSet<_> =
            self.journeys.values().flat_map(|watched| watched.journey.notify.iter().cloned()).collect();
        let incident = Incident {
            id: format!("storage-{}", now.as_second()),
            since: now,
            detectors: BTreeSet::new(),
            worst: Severity::Critical,
            told: None,
            sequence: 1,
            bad_runs: 0,
        };
        let notification = Notification {
            reason: NotifyReason::First,
            incident: incident.clone(),
            at: now,
            subject: "journeyman: storage".to_owned(),
            owner: None,
            runbook: None,
            labels: Default::default(),
            location: self.parts.location.clone(),
            budget: None,
            deadline: None,
            decision: format!("{error}; runs are unknown until it can write, alerts are sent without it"),
            report: None,
            last_good: None,
            objective: None,
            link: None,
        };
        for notifier in notifiers {
            self.parts.outbox.tell_without_store(owed(&incident, notifier, &notification, now));
        }
    }

    /// Keeps memory bounded while the store says no: evidence goes, state stays.
    fn shed(&mut self) {
        if self.unwritten.len() > KEPT_CHANGES {
            self.unwritten
                .retain(|change| !matches!(change, Change::Run { .. } | Change::Expect { .. } | Change::Settle { .. }));
            let excess = self.unwritten.len().saturating_sub(KEPT_CHANGES);
            self.unwritten.drain(..excess);
            tracing::error!("too much is unwritten: evidence of runs was dropped");
        }
    }

    fn show(&mut self, round: &Round, now: Now) {
        for name in &round.touched {
            let Some(watched) = self.journeys.get(name) else { continue };
            watched.metrics.set_state(&watched.alert.phase, watched.slo.as_ref());
            self.parts.board.set_journey(watched.status(now.wall));
            let next = watched.alert.deadline(&watched.rules);
            if let Some(before) = self.deadline_of.remove(name) {
                self.deadlines.remove(&(before, name.clone()));
            }
            if let Some(next) = next {
                self.deadlines.insert((next, name.clone()));
                self.deadline_of.insert(name.clone(), next);
            }
        }
        if round.incidents_changed {
            let firing = |severity| {
                let open = self.journeys.values().filter_map(|watched| watched.alert.phase.incident());
                open.filter(|incident| incident.worst == severity).count() as f64
            };
            self.parts.daemon.firing_critical.set(firing(Severity::Critical));
            self.parts.daemon.firing_warning.set(firing(Severity::Warning));
        }
    }
}

fn owed(incident: &Incident, notifier: Name, notification: &Notification, now: Timestamp) -> OutboxRow {
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

fn push_spans(changes: &mut Vec<Change>, journey: &Name, spans: impl IntoIterator<Item = SpanChange>) {
    let spans: Vec<_> = spans.into_iter().collect();
    if !spans.is_empty() {
        changes.push(Change::Spans { journey: journey.clone(), changes: spans });
    }
}
