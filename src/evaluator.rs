//! The evaluator: sole owner of objective and alert state. Observations in, one transaction and a fresh board out.
//!
//! What it decides is decided by [`crate::slo`] and [`crate::alert`]; here is only who is asked, what is written, and in which
//! order: decide, commit, then metrics, board and delivery. Nobody is told what is not on disk - unless the disk is what is
//! broken: then people are told at once, and what could not be written is kept and written later.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::alert::{AlertAction, AlertEvent, AlertRules, AlertState, Incident, NotifyReason, Severity};
use crate::board::{BEAT, Board, JourneyStatus, Pulse, STRIP_CELLS};
use crate::clock::Clock;
use crate::delivery::Outbox;
use crate::journey::outcome::{UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::{Journey, Name};
use crate::ledger::Settled;
use crate::metrics::{DaemonMetrics, JourneyMetrics, Metrics};
use crate::notice::{Notification, decision, delivery_id};
use crate::scheduler::Observation;
use crate::slo::{self, Counts, History, SloStatus, SpanChange};
use crate::store::{Change, IncidentRow, OutboxRow, OutboxState, SavedJourney, Store};
use crate::time::{Human, Now, between, earlier, later};

/// Observations that are decided and committed together at most.
const TOGETHER: usize = 256;
/// Evidence of a good run is kept this often; failed and slow runs always have theirs.
const GOOD_EVIDENCE_EVERY: Duration = Duration::from_secs(600);
/// A journey without objective has its history over this window.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30 * 86_400);
/// A store that said no is asked again this often.
const RETRY_STORE: Duration = Duration::from_secs(1);
/// While the store says no, this many changes are kept in memory; the oldest evidence goes first beyond that.
const KEPT_CHANGES: usize = 100_000;
/// Slots of a calendar journey that are looked up at most when the daemon comes back after a long time.
const MISSED_SLOTS: usize = 100_000;

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
}

/// One journey's state.
struct Watched {
    journey: Arc<Journey>,
    rules: AlertRules,
    history: History,
    slots_in_window: u64,
    alert: AlertState,
    metrics: JourneyMetrics,
    last: Option<Arc<Report>>,
    last_good: Option<Arc<Report>>,
    good_evidence: Option<Timestamp>,
    slo: Option<SloStatus>,
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
            Observation::Skipped { slot, why, .. } => {
                watched.metrics.unknown(why, 1);
                let change = watched.history.observe(slot, Verdict::Unknown);
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
                // Nobody waits for a disk to hear that something is down.
                for row in &round.owed {
                    self.parts.outbox.tell_without_store(row.clone());
                }
                self.shed();
            }
        }
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
            self.tell_about_store(error, now);
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

impl Watched {
    fn new(journey: Arc<Journey>, saved: SavedJourney, parts: &Parts, now: Timestamp) -> Watched {
        let window = journey.objective.as_ref().map_or(DEFAULT_WINDOW, |objective| objective.window);
        let mut alert = saved.alert;
        alert.resume(now);
        let rules = AlertRules {
            journey: journey.name.clone(),
            policy: journey.alert.clone(),
            stale_after: journey.schedule.interval(now) * 2 + journey.deadline,
            muted: journey.muted,
        };
        Watched {
            metrics: parts.metrics.journey(&journey),
            history: History::new(window, saved.spans, now),
            slots_in_window: journey.schedule.count(earlier(now, window), window),
            alert,
            rules,
            last: None,
            good_evidence: saved.last_good.as_ref().map(|report| report.slot),
            last_good: saved.last_good.map(Arc::new),
            slo: None,
            journey,
        }
    }

    /// Counts the slots since the last that was counted as `unknown`: nothing ran. Gives the time that they cover.
    fn count_missed(&mut self, round: &mut Round, now: Timestamp) -> Duration {
        let Some(last) = self.history.last_slot() else { return Duration::ZERO };
        let slots: Vec<_> = self.journey.schedule.slots(last, now, MISSED_SLOTS).collect();
        let Some(final_slot) = slots.last().copied() else { return Duration::ZERO };
        // The changes to one growing span: only its last state has to be written.
        let changes: Vec<_> = slots.iter().filter_map(|slot| self.history.observe(*slot, Verdict::Unknown)).collect();
        let mut written: HashMap<i64, SpanChange> = HashMap::new();
        for change in changes {
            if let SpanChange::Put(span) = change {
                written.insert(span.start, change);
            }
        }
        push_spans(&mut round.changes, &self.journey.name, written.into_values());
        self.metrics.unknown(UnknownWhy::Missed, slots.len() as u64);
        between(last, final_slot)
    }

    fn finished(&mut self, report: Report, parts: &Parts, round: &mut Round, now: Timestamp) {
        let verdict = report.outcome.verdict();
        self.metrics.observe(&report, self.journey.budget, now);
        let change = self.history.observe(report.slot, verdict);
        push_spans(&mut round.changes, &self.journey.name, change);
        let how = if matches!(verdict, Verdict::Good | Verdict::Slow) { Settled::Arrived } else { Settled::Missing };
        round.changes.push(Change::Settle { token: report.token, how });
        let report = Arc::new(report);
        let keep_evidence = self.keeps_evidence(&report);
        round.changes.push(Change::Run { report: Box::new((*report).clone()), keep_evidence });
        let event = AlertEvent::Verdict { slot: report.slot, verdict };
        self.last = Some(report.clone());
        self.step(event, Some(&report), parts, round, now);
        if verdict == Verdict::Good {
            self.last_good = Some(report);
        }
    }

    fn keeps_evidence(&mut self, report: &Report) -> bool {
        match report.outcome.verdict() {
            Verdict::Good => {
                let is_due = self.good_evidence.is_none_or(|last| between(last, report.slot) >= GOOD_EVIDENCE_EVERY);
                if is_due {
                    self.good_evidence = Some(report.slot);
                }
                is_due
            }
            Verdict::Slow | Verdict::Failed | Verdict::Late => true,
            Verdict::Unknown | Verdict::Excluded => !report.steps.is_empty(),
        }
    }

    /// A failed run's message came after all: the run stays failed for people, and is `late` for the objective.
    fn late(&mut self, slot: Timestamp, token: crate::journey::token::Token, at: Timestamp, round: &mut Round) {
        let changes = self.history.amend(slot);
        if changes.is_empty() {
            return;
        }
        let due = later(slot, self.journey.deadline);
        tracing::info!(journey = %self.journey.name, run = %token, late = %Human(between(due, at)), "a message arrived late");
        push_spans(&mut round.changes, &self.journey.name, changes);
        round.changes.push(Change::Settle { token, how: Settled::Arrived });
        round.changes.push(Change::Amend { journey: self.journey.name.clone(), slot, late_by: between(due, at) });
    }

    /// One step of the alert, and what follows from it.
    fn step(
        &mut self,
        event: AlertEvent,
        report: Option<&Arc<Report>>,
        parts: &Parts,
        round: &mut Round,
        now: Timestamp,
    ) {
        let before = self.alert.clone();
        let actions = self.alert.step(event, &self.rules, now);
        if self.alert.phase.as_str() != before.phase.as_str() {
            tracing::info!(
                journey = %self.journey.name,
                from = before.phase.as_str(),
                to = self.alert.phase.as_str(),
                why = report.map(|report| report.verdict_line()),
                "alert state changed"
            );
        }
        for action in actions {
            match action {
                AlertAction::Notify { reason, incident } => self.owe(reason, &incident, report, parts, round, now),
                AlertAction::Closed { incident } => {
                    round.incidents_changed = true;
                    round.changes.push(self.incident_change(&incident, Some(now), report));
                }
            }
        }
        if let Some(incident) = self.alert.phase.incident()
            && Some(incident) != before.phase.incident()
        {
            round.incidents_changed = true;
            round.changes.push(self.incident_change(incident, None, report));
        }
        if (AlertState { heard: None, ..self.alert.clone() }) != (AlertState { heard: None, ..before }) {
            let state = Box::new(self.alert.clone());
            round.changes.push(Change::Alert { journey: self.journey.name.clone(), state });
        }
    }

    fn owe(
        &self,
        reason: NotifyReason,
        incident: &Incident,
        report: Option<&Arc<Report>>,
        parts: &Parts,
        round: &mut Round,
        now: Timestamp,
    ) {
        let notification = self.notification(reason, incident, report, parts, now);
        for notifier in &self.journey.notify {
            let row = owed(incident, notifier.clone(), &notification, now);
            round.changes.push(Change::Owe { row: Box::new(row.clone()) });
            round.owed.push(row);
        }
    }

    fn notification(
        &self,
        reason: NotifyReason,
        incident: &Incident,
        report: Option<&Arc<Report>>,
        parts: &Parts,
        now: Timestamp,
    ) -> Notification {
        let journey = &self.journey;
        let link = parts.public_url.as_ref().and_then(|url| {
            let mut url = url.clone();
            url.path_segments_mut().ok()?.pop_if_empty().extend(["journeys", &*journey.name]);
            Some(url.to_string())
        });
        let shown = report.or(self.last.as_ref()).map(|report| (**report).clone());
        Notification {
            reason,
            incident: incident.clone(),
            at: now,
            subject: journey.name.to_string(),
            owner: journey.owner.clone(),
            runbook: journey.runbook.clone(),
            labels: journey.labels.clone(),
            location: parts.location.clone(),
            budget: journey.budget,
            deadline: Some(journey.deadline),
            decision: decision(journey, incident, reason),
            last_good: self
                .last_good
                .as_ref()
                .map(|report| (**report).clone())
                .filter(|good| Some(good) != shown.as_ref()),
            report: shown,
            objective: self.slo_status(now).as_ref().map(objective_line),
            link,
        }
    }

    fn incident_change(
        &self,
        incident: &Incident,
        resolved: Option<Timestamp>,
        report: Option<&Arc<Report>>,
    ) -> Change {
        let summary = report.or(self.last.as_ref()).filter(|_| resolved.is_none()).map(|report| report.verdict_line());
        let detectors = incident.detectors.iter().map(|detector| detector.to_string()).collect();
        Change::Incident {
            incident: IncidentRow {
                id: incident.id.clone(),
                journey: self.journey.name.clone(),
                since: incident.since,
                resolved,
                severity: incident.worst.to_string(),
                detectors,
                summary: summary.unwrap_or_default(),
                bad_runs: incident.bad_runs,
            },
        }
    }

    fn refresh(&mut self, now: Timestamp) {
        self.slo = self.slo_status(now);
    }

    fn slo_status(&self, now: Timestamp) -> Option<SloStatus> {
        let objective = self.journey.objective.as_ref()?;
        Some(slo::status(&self.history, objective, self.slots_in_window, now))
    }

    fn status(&self, now: Timestamp) -> JourneyStatus {
        JourneyStatus {
            journey: self.journey.clone(),
            phase: self.alert.phase.clone(),
            last: self.last.clone(),
            last_good: self.last_good.clone(),
            slo: self.slo.clone(),
            strip: strip(&self.history, now),
            at: now,
        }
    }
}

/// The last 24 hours, half an hour a cell, oldest first; cells end on half hours so that they do not flicker.
fn strip(history: &History, now: Timestamp) -> Vec<Counts> {
    const CELL: i64 = 86_400_000 / STRIP_CELLS as i64;
    let end = (now.as_millisecond().div_euclid(CELL) + 1) * CELL;
    let at = |cell: usize| {
        let millis = end - (STRIP_CELLS - cell) as i64 * CELL - 1;
        Timestamp::from_millisecond(millis).unwrap_or(now)
    };
    (0..STRIP_CELLS).map(|cell| history.counts(at(cell), at(cell + 1))).collect()
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

/// Where the objective stands, in a sentence.
fn objective_line(status: &SloStatus) -> String {
    let budget = &status.delivered;
    let achieved =
        budget.achieved.map_or("no runs yet".to_owned(), |achieved| format!("{:.3} % delivered", achieved * 100.0));
    format!(
        "{achieved} of {} % over {}, {:.1} of {:.1} bad runs left ({})",
        percent(budget.objective),
        Human(status.window),
        budget.left(),
        budget.total,
        Human(status.left_time(budget)),
    )
}

fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
