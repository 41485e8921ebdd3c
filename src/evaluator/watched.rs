//! One journey's state: its history and its alert, and what each observation changes about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::{AlertState, JourneyAlerts, Phase, Subject};
use crate::board::{JourneyStatus, STRIP_CELLS, Strip};
use crate::detect::drift::Measured;
use crate::detect::{Rules, Sample};
use crate::evaluator::{Parts, Round, push_spans};
use crate::incident::root::Resource;
use crate::incident::{Desk, Incident};
use crate::journey::Journey;
use crate::journey::objective::Window;
use crate::journey::outcome::{ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::spend::Thinning;
use crate::journey::token::Token;
use crate::judge;
use crate::ledger::Settled;
use crate::metrics::JourneyMetrics;
use crate::quorum::Streak;
use crate::slo::{self, Composition, History, SloStatus, SpanChange};
use crate::store::{Change, SavedJourney};
use crate::time::{Human, between, later};

/// Evidence of a good run is kept this often; failed and slow runs always have theirs.
const GOOD_EVIDENCE_EVERY: Duration = Duration::from_secs(600);
/// Slots of a calendar journey that are looked up at most when the daemon comes back after a long time.
const MISSED_SLOTS: usize = 100_000;

/// One journey's state.
pub(super) struct Watched {
    pub(super) journey: Arc<Journey>,
    pub(super) rules: Rules,
    pub(super) history: History,
    /// How many slots the objective's window has, and until when that is so.
    slots_in_window: (u64, Timestamp),
    pub(super) alerts: JourneyAlerts,
    pub(super) metrics: JourneyMetrics,
    pub(super) last: Option<Arc<Report>>,
    /// The last run that was not good.
    pub(super) last_bad: Option<Arc<Report>>,
    pub(super) last_good: Option<Arc<Report>>,
    /// The incident that its health is part of, as people see it.
    pub(super) incident: Option<Arc<Incident>>,
    good_evidence: Option<Timestamp>,
    /// Another daemon runs it, as far as was heard.
    pub(super) is_elsewhere: bool,
    /// Slots whose runs another process began, and whose verdicts are still to come.
    waiting: BTreeSet<Timestamp>,
    /// Until then what went by without a run is counted after them.
    missed_until: Timestamp,
    pub(super) slo: Option<Arc<SloStatus>>,
    pub(super) composition: Option<Arc<Composition>>,
    /// How much rarer than by its schedule it runs, because of what its messages cost.
    thinning: Thinning,
    /// Its last runs that came to the same.
    pub(super) streak: Option<Streak>,
    /// Since when it is watched.
    pub(super) began: Timestamp,
    /// When what several places see together can be told at last.
    pub(super) due: Option<Timestamp>,
}

impl Watched {
    pub(super) fn new(journey: Arc<Journey>, saved: SavedJourney, parts: &Parts, now: Timestamp) -> Watched {
        let mut alerts = saved.alerts;
        alerts.detectors.resume(now);
        let thinning = Thinning::new(parts.policy.slowdowns.get(&journey.name).copied().unwrap_or(1.0));
        let mut rules = judge::rules(&journey, thinning.interval(journey.schedule.interval(now)));
        rules.stale_after += parts.takeover;
        let metrics = parts.metrics.journey(&journey);
        metrics.set_stale_after(rules.stale_after);
        Watched {
            metrics,
            slots_in_window: slots_in_window(&journey, now),
            history: History::new(journey.window(), saved.spans, now),
            alerts,
            rules,
            last: None,
            last_bad: None,
            incident: None,
            good_evidence: saved.last_good.as_ref().map(|report| report.slot),
            last_good: saved.last_good.map(Arc::new),
            waiting: parts.waiting.get(&journey.name).into_iter().flatten().copied().collect(),
            missed_until: Timestamp::MIN,
            is_elsewhere: false,
            slo: None,
            composition: None,
            thinning,
            streak: None,
            began: now,
            due: None,
            journey,
        }
    }

    /// Takes over what was seen before its definition changed.
    pub(super) fn remember(&mut self, before: Watched) {
        let Watched {
            last,
            last_bad,
            last_good,
            good_evidence,
            incident,
            waiting,
            missed_until,
            streak,
            began,
            is_elsewhere,
            ..
        } = before;
        self.is_elsewhere = is_elsewhere;
        (self.waiting, self.missed_until) = (waiting, missed_until);
        (self.streak, self.began) = (streak, began);
        (self.last, self.last_bad, self.incident) = (last, last_bad, incident);
        (self.last_good, self.good_evidence) = (last_good.or(self.last_good.take()), good_evidence);
    }

    /// Somebody goes on with the runs of these slots.
    pub(super) fn wait_for(&mut self, slots: Vec<Timestamp>) {
        // What another had in hand, and is not among them, has its verdict by now, or never will.
        self.waiting = slots.into_iter().collect();
    }

    /// Whether this slot is counted, and nobody goes on with it.
    pub(super) fn has_counted(&self, slot: Timestamp) -> bool {
        self.history.last_slot().is_some_and(|last| slot <= last) && !self.waiting.contains(&slot)
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

    /// Counts the slots since the last that was counted as `unknown`: nothing ran. Gives the time that they cover. While runs go
    /// on that another process began, that waits for their verdicts, because slots count in their order.
    pub(super) fn count_missed(&mut self, round: &mut Round, until: Timestamp) -> Duration {
        self.missed_until = until;
        let Some(last) = self.history.last_slot() else { return Duration::ZERO };
        let slots: Vec<_> = self.journey.schedule.slots(last, until, MISSED_SLOTS).collect();
        let Some(final_slot) = slots.last().copied() else { return Duration::ZERO };
        if self.waiting.is_empty() {
            self.fill(&slots, round);
        }
        between(last, final_slot)
    }

    /// A run that another process began is about to have its verdict: what went by before it is counted first, and after the last
    /// one all that went by while nothing ran.
    pub(super) fn fill_before(&mut self, slot: Timestamp, round: &mut Round) {
        let earlier = Timestamp::from_millisecond(slot.as_millisecond() - 1).unwrap_or(slot);
        self.fill_until(earlier, round);
    }

    fn fill_until(&mut self, until: Timestamp, round: &mut Round) {
        let Some(last) = self.history.last_slot() else { return };
        let slots: Vec<_> = self.journey.schedule.slots(last, until, MISSED_SLOTS).collect();
        self.fill(&slots, round);
    }

    /// Nothing ran for these slots.
    fn fill(&mut self, slots: &[Timestamp], round: &mut Round) {
        // The changes to one growing span: only its last state has to be written.
        let mut changes = Vec::new();
        let mut excluded = (false, Timestamp::MIN);
        for slot in slots {
            let outcome = self.without_run(Outcome::Unknown { why: UnknownWhy::Missed });
            self.metrics.without_run(&outcome, 1);
            if *slot >= excluded.1 {
                excluded = self.journey.excluded_until(*slot);
            }
            changes.extend(self.observe(*slot, outcome.verdict(), excluded.0));
        }
        let mut written: BTreeMap<i64, SpanChange> = BTreeMap::new();
        for change in changes {
            if let SpanChange::Put(span) = change {
                written.insert(span.start, change);
            }
        }
        push_spans(&mut round.changes, &self.journey.name, written.into_values());
    }

    pub(super) fn finished(&mut self, mut report: Report, desk: &mut Desk, round: &mut Round, now: Timestamp) {
        self.leave_out(&mut report, desk);
        let verdict = report.outcome.verdict();
        self.metrics.observe(&report, self.journey.budget, now);
        let real = report.beneath.unwrap_or(verdict);
        let is_resumed = self.waiting.remove(&report.slot);
        if is_resumed {
            self.fill_before(report.slot, round);
        }
        let change = self.observe(report.slot, real, report.beneath.is_some());
        push_spans(&mut round.changes, &self.journey.name, change);
        if is_resumed && self.waiting.is_empty() {
            self.fill_until(self.missed_until, round);
        }
        settle(report.token, real, round);
        let report = Arc::new(report);
        let keep_evidence = self.keeps_evidence(&report);
        round.changes.push(Change::Run { report: Box::new((*report).clone()), keep_evidence });
        self.last = Some(report.clone());
        match verdict {
            Verdict::Good => self.last_good = Some(report.clone()),
            Verdict::Slow | Verdict::Failed | Verdict::Late => self.last_bad = Some(report.clone()),
            Verdict::Unknown | Verdict::Excluded => {}
        }
        let sample = Sample { slot: report.slot, verdict, cause: report.outcome.cause(), is_confirmation: false };
        self.alerts.detectors.take(sample, &self.rules, now);
        if report.outcome == (Outcome::Unknown { why: UnknownWhy::Observer }) {
            // Why there is no verdict is known, and told once for all journeys.
            self.alerts.detectors.heard = Some(now);
        }
        let is_bad_run = matches!(verdict, Verdict::Failed | Verdict::Slow | Verdict::Late);
        if is_bad_run || verdict == Verdict::Good {
            self.streak = Some(Streak::with(self.streak, is_bad_run, report.slot));
        }
        self.look(is_bad_run, desk, round, now);
    }

    /// A run in a silence that is maintenance is excluded, whatever it came to.
    fn leave_out(&self, report: &mut Report, desk: &Desk) {
        let silence = desk.excluded_by(&Subject::Journey(self.journey.told_as().clone()), report.slot);
        if let Some(silence) = silence.filter(|_| report.outcome.verdict() != Verdict::Excluded) {
            report.note = Some(format!("in maintenance ({}); it was: {}", silence.reason, report.verdict_line()));
            report.outcome = Outcome::Excluded { why: ExcludedWhy::Maintenance };
        }
    }

    /// A run that somebody asked for: no slot. While something is wrong it counts as a confirmation does, so that it can show that
    /// it is over; while nothing is, nothing follows from it, and nobody opens an incident by asking.
    pub(super) fn asked(&mut self, mut report: Report, by: &str, desk: &mut Desk, round: &mut Round, now: Timestamp) {
        self.leave_out(&mut report, desk);
        let said = report.verdict_line();
        tracing::info!(journey = %self.journey.name, run = %report.token, by, said, "a run that was asked for has ended");
        round.changes.push(Change::Evidence { report: Box::new(report.clone()) });
        if let Some(incident) = &self.alerts.health.incident {
            desk.remark(incident, format!("run again, asked by {by}: {said}"));
        }
        if report.outcome.verdict() == Verdict::Good {
            self.last_good = Some(Arc::new(report.clone()));
        }
        if self.alerts.detectors.has_trouble() {
            self.beside(report, true, desk, round, now);
        } else {
            settle(report.token, report.outcome.verdict(), round);
        }
    }

    /// A run beside the slots, that confirms a failed one or stands in for one: evidence for the detectors.
    pub(super) fn beside(
        &mut self,
        report: Report,
        is_confirmation: bool,
        desk: &mut Desk,
        round: &mut Round,
        now: Timestamp,
    ) {
        let verdict = report.outcome.verdict();
        settle(report.token, verdict, round);
        let sample = Sample { slot: report.slot, verdict, cause: report.outcome.cause(), is_confirmation };
        if report.is_bad() {
            self.last_bad = Some(Arc::new(report));
        }
        self.alerts.detectors.take(sample, &self.rules, now);
        self.look(false, desk, round, now);
    }

    /// What became of a slot of which nobody knew, long after: its place in the history, and nothing that anybody is told.
    pub(super) fn learn(&mut self, report: Report, round: &mut Round) {
        let verdict = report.beneath.unwrap_or(report.outcome.verdict());
        let changes = self.history.learn(report.slot, verdict);
        settle(report.token, verdict, round);
        if changes.is_empty() {
            return;
        }
        push_spans(&mut round.changes, &self.journey.name, changes);
        let keep_evidence = self.keeps_evidence(&report);
        round.changes.push(Change::Run { report: Box::new(report), keep_evidence });
    }

    /// A slot without a run.
    pub(super) fn skipped(&mut self, slot: Timestamp, outcome: Outcome, round: &mut Round) {
        let outcome = self.without_run(outcome);
        self.metrics.without_run(&outcome, 1);
        if outcome == (Outcome::Excluded { why: ExcludedWhy::Paused }) {
            // Somebody wants it so: that there is no verdict is news to nobody.
            self.alerts.detectors.heard = Some(slot);
        }
        let excluded = self.journey.is_excluded(slot);
        let change = self.observe(slot, outcome.verdict(), excluded);
        push_spans(&mut round.changes, &self.journey.name, change);
    }

    fn observe(&mut self, slot: Timestamp, verdict: Verdict, excluded: bool) -> Option<SpanChange> {
        if excluded { self.history.observe_excluded(slot, verdict) } else { self.history.observe(slot, verdict) }
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
        round.changes.push(Change::Settle { token, how: Settled::Arrived });
        if changes.is_empty() {
            return;
        }
        let due = later(slot, self.journey.deadline);
        tracing::info!(journey = %self.journey.name, run = %token, late = %Human(between(due, at)), "a message arrived late");
        push_spans(&mut round.changes, &self.journey.name, changes);
        round.changes.push(Change::Amend { journey: self.journey.name.clone(), slot, late_by: between(due, at) });
    }

    /// How the last runs compare with those of the days before.
    pub(super) fn measured(&mut self, measured: Measured, desk: &mut Desk, round: &mut Round, now: Timestamp) {
        self.alerts.detectors.measured(measured, now);
        self.look(false, desk, round, now);
    }

    /// Looks what the detectors find, and tells the desk.
    pub(super) fn look(&mut self, is_bad_run: bool, desk: &mut Desk, round: &mut Round, now: Timestamp) {
        let before = self.alerts.clone();
        let name = &self.journey.name;
        let blamed = self.last.as_ref().and_then(|report| report.failed_step()?.channel.clone()).map(Resource::Channel);
        judge::look_at_health(name, &self.rules, &mut self.alerts, is_bad_run, blamed, desk, now);
        self.judge_budget(before, desk, round, now);
    }

    /// Looks at the budget, too, and takes down what has changed since `before`.
    pub(super) fn judge_budget(
        &mut self,
        mut before: JourneyAlerts,
        desk: &mut Desk,
        round: &mut Round,
        now: Timestamp,
    ) {
        let name = &self.journey.name;
        if let Some(status) = self.slo_status(now) {
            judge::look_at_budget(name, &self.history, &status, &mut self.alerts.budget, desk, now);
        }
        say_phase(&Subject::Journey(name.clone()), before.health.phase, &self.alerts.health);
        say_phase(&Subject::Budget(name.clone()), before.budget.phase, &self.alerts.budget);
        // When we last heard is not saved.
        before.detectors.heard = self.alerts.detectors.heard;
        if self.alerts != before {
            let state = Box::new(self.alerts.clone());
            round.changes.push(Change::Alert { journey: self.journey.name.clone(), state });
        }
    }

    /// When time alone can change its alerts.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if !self.journey.is_run() {
            let flapping = [self.alerts.health.deadline(), self.alerts.budget.deadline(), self.due];
            return flapping.into_iter().flatten().min();
        }
        judge::deadline(&self.rules, &self.alerts)
    }

    /// What a slot came to that several places saw.
    pub(super) fn see_together(&mut self, slot: Timestamp, verdict: Verdict) -> Option<SpanChange> {
        let excluded = self.journey.is_excluded(slot);
        self.observe(slot, verdict, excluded)
    }

    pub(super) fn refresh(&mut self, now: Timestamp) {
        if now >= self.slots_in_window.1 {
            self.slots_in_window = slots_in_window(&self.journey, now);
        }
        self.slo = self.slo_status(now).map(Arc::new);
    }

    pub(super) fn slo_status(&self, now: Timestamp) -> Option<SloStatus> {
        let objective = self.journey.objective.as_ref()?;
        Some(slo::status(&self.history, objective, self.slots_in_window.0, now))
    }

    pub(super) fn status(&self, now: Timestamp) -> JourneyStatus {
        JourneyStatus {
            journey: self.journey.clone(),
            phase: self.alerts.health.phase,
            findings: self.alerts.health.findings.clone(),
            incident: self.incident.clone(),
            budget_incident: self.alerts.budget.incident.clone(),
            last: self.last.clone(),
            last_good: self.last_good.clone(),
            slo: self.slo.clone(),
            composition: self.composition.clone(),
            strip: strip(&self.history, now),
            at: now,
        }
    }
}

/// Logs that an alert is in another phase than before.
pub(super) fn say_phase(subject: &Subject, from: Phase, alert: &AlertState) {
    if alert.phase != from {
        let why = alert.findings.first().map(|finding| finding.said.as_str());
        tracing::info!(%subject, from = from.as_str(), to = alert.phase.as_str(), why, "alert state changed");
    }
}

/// How many slots the journey's window has, and until when that is so.
fn slots_in_window(journey: &Journey, now: Timestamp) -> (u64, Timestamp) {
    let until = match journey.window() {
        Window::Rolling(_) => Timestamp::MAX,
        calendar @ Window::Calendar(_) => calendar.bounds(now).1,
    };
    (journey.slots_in_window(now), until)
}

/// The last 24 hours, half an hour a cell, oldest first; cells end on half hours so that they do not flicker.
fn strip(history: &History, now: Timestamp) -> Strip {
    const CELL: i64 = 86_400_000 / STRIP_CELLS as i64;
    let end = (now.as_millisecond().div_euclid(CELL) + 1) * CELL;
    let from = Timestamp::from_millisecond(end - STRIP_CELLS as i64 * CELL - 1).unwrap_or(now);
    Strip::new(history.stretches(from, CELL, STRIP_CELLS))
}

/// Where the objective stands, in a sentence.
pub(super) fn objective_line(status: &SloStatus) -> String {
    let budget = &status.delivered;
    let achieved =
        budget.achieved.map_or("no runs yet".to_owned(), |achieved| format!("{:.3} % delivered", achieved * 100.0));
    format!(
        "{achieved} of {} % over {}, {:.1} of {:.1} bad runs left ({})",
        percent(budget.objective),
        status.window_name,
        budget.left(),
        budget.total,
        Human(status.left_time(budget)),
    )
}

fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a run leaves in the ledger.
fn settle(token: Token, verdict: Verdict, round: &mut Round) {
    let how = if matches!(verdict, Verdict::Good | Verdict::Slow) { Settled::Arrived } else { Settled::Missing };
    round.changes.push(Change::Settle { token, how });
}
