//! How far a run is with each of its steps. The report is made of that, and of the step itself, when the run is over: thousands of
//! runs wait at once, and what their journeys know already is not kept by each of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journey::Step;
use crate::journey::expect::Check;
use crate::journey::message::Hop;
use crate::journey::report::{Phase, StepReport, StepStatus};
use crate::journey::seen::Seen;
use crate::time::Mono;

/// What a run knows of one of its sends: arrivals are measured from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) started: Mono,
    /// On the critical path: where the clock of the journey stood when it began.
    #[serde(with = "crate::time::micros")]
    pub(super) path: Duration,
    pub(super) uncertain: bool,
}

/// One step, as far as it is. The fields are the report's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    #[serde(with = "crate::time::micros")]
    pub(super) at: Duration,
    #[serde(with = "crate::time::micros")]
    pub(super) took: Duration,
    pub(super) status: StepStatus,
    /// Of a send that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent: Option<Box<Sent>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evidence: Option<Box<Evidence>>,
}

/// What a step has to show, if it has. The fields are the report's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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

    /// Applies `redact` to every text that came from outside.
    pub(super) fn redact(&mut self, redact: &impl Fn(&str) -> Option<String>) {
        let Some(shown) = &mut self.evidence else { return };
        let apply = |text: &mut String| {
            if let Some(clean) = redact(text) {
                *text = clean;
            }
        };
        let texts = [&mut shown.detail, &mut shown.ack, &mut shown.excerpt];
        texts.into_iter().flatten().for_each(apply);
        for check in &mut shown.checks {
            apply(&mut check.expectation);
            check.found.as_mut().map(apply);
        }
        for seen in &mut shown.seen {
            if let Some(clean) = redact(&seen.is) {
                seen.is = clean.into();
            }
        }
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
