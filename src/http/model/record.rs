//! What is on record, as data: runs, evidence, incidents, notices, and the channels' last words.

use jiff::Timestamp;
use serde::Serialize;

use super::incident::EventView;
use super::seconds;
use crate::journey::Name;
use crate::journey::compare::{Change, changes, healthy};
use crate::journey::expect::{Check, cut_at};
use crate::journey::outcome::{Outcome, Verdict};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::seen::Seen;
use crate::notifier::Receipt;
use crate::store::{OutboxRow, OutboxStatus, RunRow};

/// What came back is shown up to this many bytes.
const EXCERPT: usize = 1_024;
/// A notice's headline is shown up to this many bytes.
const HEADLINE: usize = 300;

/// A run, in a list.
#[derive(Debug, Serialize)]
pub(in crate::http) struct RunView {
    /// Null where no evidence is kept.
    token: Option<String>,
    slot: Timestamp,
    verdict: Verdict,
    why: String,
    /// As far as the run got.
    latency_seconds: f64,
    late_by_seconds: Option<f64>,
}

impl RunView {
    pub(in crate::http) fn new(row: &RunRow) -> RunView {
        RunView {
            token: row.token.map(|token| token.to_string()),
            slot: row.slot,
            verdict: row.verdict,
            why: row.why.clone(),
            latency_seconds: seconds(row.latency),
            late_by_seconds: row.late_by.map(seconds),
        }
    }
}

/// A run's evidence.
#[derive(Debug, Serialize)]
pub(in crate::http) struct ReportView {
    journey: Name,
    token: String,
    trace_id: String,
    slot: Timestamp,
    started: Timestamp,
    verdict: Verdict,
    why: &'static str,
    failed_step: Option<Name>,
    summary: String,
    note: Option<String>,
    latency_seconds: f64,
    lateness_seconds: f64,
    /// The fingerprint of the journey's definition; null where it was not kept yet.
    configuration: Option<String>,
    /// The version of the monitor; null where it was not kept yet.
    version: Option<String>,
    steps: Vec<StepView>,
    /// What was checked and found healthy, up to the failed step, and what was never reached.
    healthy: Vec<String>,
    /// What differs from the last good run before; null where there is none to compare with.
    changes: Option<Vec<ChangeView>>,
}

/// A difference from the last good run.
#[derive(Debug, Serialize)]
struct ChangeView {
    #[serde(flatten)]
    change: Change,
    /// What changed, in words.
    words: &'static str,
}

impl ReportView {
    pub(in crate::http) fn new(report: &Report) -> ReportView {
        ReportView::beside(report, None)
    }

    /// As [`ReportView::new`], with what has changed since `good`.
    pub(in crate::http) fn beside(report: &Report, good: Option<&Report>) -> ReportView {
        let view = |change: Change| ChangeView { words: change.what.words(), change };
        ReportView {
            journey: report.journey.clone(),
            token: report.token.to_string(),
            trace_id: report.token.trace_id(),
            slot: report.slot,
            started: report.started,
            verdict: report.outcome.verdict(),
            why: report.outcome.label(),
            failed_step: match &report.outcome {
                Outcome::Failed { step, .. } => Some(step.clone()),
                _ => None,
            },
            summary: report.verdict_line(),
            note: report.note.clone(),
            latency_seconds: seconds(report.latency),
            lateness_seconds: seconds(report.lateness),
            configuration: Some(report.configuration.clone()).filter(|text| !text.is_empty()),
            version: Some(report.version.clone()).filter(|text| !text.is_empty()),
            steps: report.steps.iter().map(StepView::new).collect(),
            healthy: healthy(report),
            changes: good.map(|good| changes(good, report).into_iter().map(view).collect()),
        }
    }
}

/// A step's evidence.
#[derive(Debug, Serialize)]
pub(in crate::http) struct StepView {
    name: Name,
    verb: String,
    channel: Option<Name>,
    at_seconds: f64,
    took_seconds: f64,
    status: StepStatus,
    summary: String,
    detail: Option<String>,
    ack: Option<String>,
    phases: Vec<PartView>,
    hops: Vec<PartView>,
    checks: Vec<Check>,
    excerpt: Option<String>,
    seen: Vec<Seen>,
}

/// A part of a step, or a hop of its message.
#[derive(Debug, Serialize)]
struct PartView {
    name: String,
    took_seconds: f64,
}

impl StepView {
    pub(in crate::http) fn new(step: &StepReport) -> StepView {
        let part = |name: &str, took| PartView { name: name.to_owned(), took_seconds: seconds(took) };
        StepView {
            name: step.name.clone(),
            verb: step.verb.to_string(),
            channel: step.channel.clone(),
            at_seconds: seconds(step.at),
            took_seconds: seconds(step.took),
            status: step.status,
            summary: step.summary(),
            detail: step.detail.clone(),
            ack: step.ack.clone(),
            phases: step.phases.iter().map(|phase| part(&phase.name, phase.took)).collect(),
            hops: step.hops.iter().map(|hop| part(&hop.name, hop.took)).collect(),
            checks: step.checks.clone(),
            excerpt: step.excerpt.as_deref().map(|text| cut_at(text, EXCERPT)),
            seen: step.seen.clone(),
        }
    }
}

/// A notice owed or given.
#[derive(Debug, Serialize)]
pub(in crate::http) struct NoticeView {
    id: String,
    incident: String,
    sequence: u32,
    notifier: Name,
    /// The notifier for which this one stands in, and what it said.
    instead_of: Option<(String, String)>,
    subject: String,
    reason: &'static str,
    headline: String,
    created: Timestamp,
    status: OutboxStatus,
    attempts: u32,
    /// Null once nothing more will be tried.
    next_try: Option<Timestamp>,
    error: Option<String>,
    receipt: Option<Receipt>,
    at: Timestamp,
}

impl NoticeView {
    pub(in crate::http) fn new(row: OutboxRow) -> NoticeView {
        let is_over = matches!(row.state.status, OutboxStatus::Sent | OutboxStatus::Superseded | OutboxStatus::Dead);
        NoticeView {
            headline: cut_at(&row.notification.headline(), HEADLINE),
            id: row.id,
            incident: row.incident,
            sequence: row.sequence,
            notifier: row.notifier,
            instead_of: row.instead_of,
            subject: row.notification.subject,
            reason: row.notification.reason.as_str(),
            created: row.created,
            status: row.state.status,
            attempts: row.state.attempt,
            next_try: (!is_over).then_some(row.state.not_before),
            error: row.state.error,
            receipt: row.state.receipt,
            at: row.state.at,
        }
    }

    /// As something that happened in its incident.
    pub(super) fn event(&self) -> EventView {
        let whom = match &self.instead_of {
            Some((other, why)) => format!("{} instead of {other} ({why})", self.notifier),
            None => self.notifier.to_string(),
        };
        let reason = self.reason;
        let error = self.error.as_deref().unwrap_or("no reason is known");
        let (at, said) = match self.status {
            OutboxStatus::Sent => (self.at, format!("{whom} was told ({reason})")),
            OutboxStatus::Superseded => {
                (self.at, format!("what {whom} was to be told ({reason}) was told with a later notice"))
            }
            OutboxStatus::Dead => (self.at, format!("{whom} could not be told ({reason}): {error}")),
            OutboxStatus::Pending | OutboxStatus::Leased | OutboxStatus::Ambiguous if self.attempts > 0 => {
                (self.created, format!("{whom} is to be told ({reason}); attempt {} said: {error}", self.attempts))
            }
            OutboxStatus::Pending | OutboxStatus::Leased | OutboxStatus::Ambiguous => {
                (self.created, format!("{whom} is to be told ({reason})"))
            }
        };
        EventView::new(at, self.status.as_str(), said, self.receipt.clone())
    }

    pub(in crate::http) fn incident(&self) -> &str {
        &self.incident
    }
}
