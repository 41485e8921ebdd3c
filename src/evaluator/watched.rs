//! One journey's state: its history and its alert, and what each observation changes about them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::{AlertAction, AlertEvent, AlertRules, AlertState, Incident, NotifyReason};
use crate::board::{JourneyStatus, STRIP_CELLS};
use crate::evaluator::{Parts, Round, owed, push_spans};
use crate::journey::Journey;
use crate::journey::outcome::{ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::spend::Thinning;
use crate::journey::token::Token;
use crate::ledger::Settled;
use crate::metrics::JourneyMetrics;
use crate::notice::{Notification, decision};
use crate::slo::{self, Counts, History, SloStatus, SpanChange};
use crate::store::{Change, IncidentRow, SavedJourney};
use crate::time::{Human, between, earlier, later};

/// Evidence of a good run is kept this often; failed and slow runs always have theirs.
const GOOD_EVIDENCE_EVERY: Duration = Duration::from_secs(600);
/// A journey without objective has its history over this window.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30 * 86_400);
/// Slots of a calendar journey that are looked up at most when the daemon comes back after a long time.
const MISSED_SLOTS: usize = 100_000;

/// One journey's state.
pub(super) struct Watched {
    pub(super) journey: Arc<Journey>,
    pub(super) rules: AlertRules,
    pub(super) history: History,
    slots_in_window: u64,
    pub(super) alert: AlertState,
    pub(super) metrics: JourneyMetrics,
    last: Option<Arc<Report>>,
    last_good: Option<Arc<Report>>,
    good_evidence: Option<Timestamp>,
    pub(super) slo: Option<SloStatus>,
    /// How much rarer than by its schedule it runs, because of what its messages cost.
    thinning: Thinning,
}

impl Watched {
    pub(super) fn new(journey: Arc<Journey>, saved: SavedJourney, parts: &Parts, now: Timestamp) -> Watched {
        let window = journey.objective.as_ref().map_or(DEFAULT_WINDOW, |objective| objective.window);
        let mut alert = saved.alert;
        alert.resume(now);
        let thinning = Thinning::new(parts.slowdowns.get(&journey.name).copied().unwrap_or(1.0));
        let rules = AlertRules {
            journey: journey.name.clone(),
            policy: journey.alert.clone(),
            stale_after: thinning.interval(journey.schedule.interval(now)) * 2 + journey.deadline,
            muted: journey.muted,
        };
        let metrics = parts.metrics.journey(&journey);
        if thinning.is_any() {
            metrics.without_run(&Outcome::Excluded { why: ExcludedWhy::Spend }, 0);
        }
        metrics.set_stale_after(rules.stale_after);
        Watched {
            metrics,
            history: History::new(window, saved.spans, now),
            slots_in_window: journey.schedule.count(earlier(now, window), window),
            alert,
            rules,
            last: None,
            good_evidence: saved.last_good.as_ref().map(|report| report.slot),
            last_good: saved.last_good.map(Arc::new),
            slo: None,
            thinning,
            journey,
        }
    }

    /// What a slot without a run comes to. Of those that went by while nothing ran, only as many are unknown as would have been
    /// run: had the daemon been there, it would have left the others out.
    pub(super) fn without_run(&mut self, outcome: Outcome) -> Outcome {
        let is_missed = outcome == Outcome::Unknown { why: UnknownWhy::Missed };
        if is_missed && !self.thinning.would_run() {
            return Outcome::Excluded { why: ExcludedWhy::Spend };
        }
        outcome
    }

    /// Counts the slots since the last that was counted as `unknown`: nothing ran. Gives the time that they cover.
    pub(super) fn count_missed(&mut self, round: &mut Round, now: Timestamp) -> Duration {
        let Some(last) = self.history.last_slot() else { return Duration::ZERO };
        let slots: Vec<_> = self.journey.schedule.slots(last, now, MISSED_SLOTS).collect();
        let Some(final_slot) = slots.last().copied() else { return Duration::ZERO };
        // The changes to one growing span: only its last state has to be written.
        let mut changes = Vec::new();
        for slot in &slots {
            let outcome = self.without_run(Outcome::Unknown { why: UnknownWhy::Missed });
            self.metrics.without_run(&outcome, 1);
            changes.extend(self.history.observe(*slot, outcome.verdict()));
        }
        let mut written: HashMap<i64, SpanChange> = HashMap::new();
        for change in changes {
            if let SpanChange::Put(span) = change {
                written.insert(span.start, change);
            }
        }
        push_spans(&mut round.changes, &self.journey.name, written.into_values());
        between(last, final_slot)
    }

    pub(super) fn finished(&mut self, report: Report, parts: &Parts, round: &mut Round, now: Timestamp) {
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
    pub(super) fn late(&mut self, slot: Timestamp, token: Token, at: Timestamp, round: &mut Round) {
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
    pub(super) fn step(
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
        let is_over = reason == NotifyReason::Resolved;
        let shown = report.or(self.last.as_ref()).filter(|report| is_over || is_bad(report));
        let shown = shown.map(|report| (**report).clone());
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
        let bad = report.or(self.last.as_ref()).filter(|report| is_bad(report));
        let summary = match (resolved, bad) {
            (Some(_), _) => String::new(),
            (None, Some(report)) => report.verdict_line(),
            (None, None) => decision(&self.journey, incident, NotifyReason::First),
        };
        let detectors = incident.detectors.iter().map(|detector| detector.to_string()).collect();
        Change::Incident {
            incident: IncidentRow {
                id: incident.id.clone(),
                journey: self.journey.name.clone(),
                since: incident.since,
                resolved,
                severity: incident.worst.to_string(),
                detectors,
                summary,
                bad_runs: incident.bad_runs,
            },
        }
    }

    pub(super) fn refresh(&mut self, now: Timestamp) {
        self.slo = self.slo_status(now);
    }

    fn slo_status(&self, now: Timestamp) -> Option<SloStatus> {
        let objective = self.journey.objective.as_ref()?;
        Some(slo::status(&self.history, objective, self.slots_in_window, now))
    }

    pub(super) fn status(&self, now: Timestamp) -> JourneyStatus {
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

/// Whether a run shows what is wrong. The last run before a silence is often a good one, and does not.
fn is_bad(report: &Report) -> bool {
    report.outcome.verdict() != Verdict::Good
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
