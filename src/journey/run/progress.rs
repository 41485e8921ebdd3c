//! How far a run is with each of its steps. The report is made of that, and of the step itself, when the run is over: thousands of
//! runs wait at once, and what their journeys know already is not kept by each of them.

use std::time::Duration;

use crate::journey::Step;
use crate::journey::expect::Check;
use crate::journey::message::Hop;
use crate::journey::report::{Phase, StepReport, StepStatus};
use crate::journey::seen::Seen;
use crate::time::Mono;

/// What a run knows of one of its sends: arrivals are measured from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) started: Mono,
    /// On the critical path: where the clock of the journey stood when it began.
    pub(super) path: Duration,
    pub(super) uncertain: bool,
}

/// One step, as far as it is. The fields are the report's.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) at: Duration,
    pub(super) took: Duration,
    pub(super) status: StepStatus,
    /// Of a send that has begun.
    pub(super) sent: Option<Box<Sent>>,
    evidence: Option<Box<Evidence>>,
}

/// What a step has to show, if it has. The fields are the report's.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) detail: Option<String>,
    pub(super) ack: Option<String>,
    pub(super) phases: Vec<Phase>,
    pub(super) hops: Vec<Hop>,
    pub(super) checks: Vec<Check>,
    pub(super) excerpt: Option<String>,
    pub(super) seen: Vec<Seen>,
}

impl Progress {
    /// Of a step that was not reached.
    pub(super) fn none() -> Progress {
        Progress { at: Duration::ZERO, took: Duration::ZERO, status: StepStatus::Skipped, sent: None, evidence: None }
    }

    pub(super) fn evidence(&mut self) -> &mut Evidence {
        self.evidence.get_or_insert_default()
    }

    /// Whether a step that passed says something all the same: what passes has a detail only if its channel warns.
    pub(super) fn has_warning(&self) -> bool {
        let warns = |shown: &Evidence| shown.checks.iter().any(|check| !check.passed) || shown.detail.is_some();
        self.evidence.as_deref().is_some_and(warns)
    }

    pub(super) fn into_report(self, step: &Step) -> StepReport {
        let Evidence { detail, ack, phases, hops, checks, excerpt, seen } =
            self.evidence.map(|shown| *shown).unwrap_or_default();
        StepReport {
            name: step.name.clone(),
            verb: step.verb.as_str().into(),
            channel: step.verb.channel().cloned(),
            at: self.at,
            took: self.took,
            status: self.status,
            detail,
            ack,
            phases,
            hops,
            checks,
            excerpt,
            seen,
        }
    }
}
