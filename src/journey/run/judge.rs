//! What an answer means for its step: expectations checked, captures taken, faults classed.

use crate::journey::Step;
use crate::journey::Verb;
use crate::journey::expect::{Check, Query, View, cut_at};
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::StepStatus;
use crate::journey::run::{EXCERPT, Fault, Reply, Run};

impl Run {
    pub(super) fn judge_reply(&mut self, index: usize, step: &Step, reply: Reply) -> Result<(), (Cause, String)> {
        let evidence = self.steps[index].evidence();
        evidence.ack = Some(reply.ack);
        evidence.phases = reply.phases;
        let message = reply.message.unwrap_or_default();
        let latency = reply.finished.mono.since(reply.started.mono);
        if !message.body.is_empty() {
            evidence.excerpt = Some(cut_at(&message.text(), EXCERPT));
        }
        let view = View { latency: Some(latency), ..View::of(&message, reply.finished.wall) };
        // A status is an answer that the step may expect; one that nobody asked about and that says no is a failure.
        let asks_status = step.expect.iter().any(|expectation| matches!(expectation.query, Query::Status));
        if let (false, Some((cause, detail))) = (asks_status, no(&message)) {
            evidence.checks =
                step.expect.iter().map(|expectation| expectation.check(view, Some(&self.scope))).collect();
            return Err((cause, detail));
        }
        self.judge(index, step, view)?;
        if !asks_status {
            let warning = message.warning.as_ref().map(|warning| warning.detail.clone());
            self.steps[index].evidence().detail = warning;
        }
        Ok(())
    }

    pub(super) fn judge_fault(&mut self, index: usize, step: &Step, fault: Fault) -> Result<(), (Cause, String)> {
        self.steps[index].evidence().phases = fault.phases;
        if fault.uncertain && self.is_awaited(index) && matches!(step.verb, Verb::Send(_)) {
            // It may have been taken: the receive decides. Nothing that the answer should have held is known.
            if let Some(sent) = &mut self.steps[index].sent {
                sent.uncertain = true;
            }
            self.steps[index].status = StepStatus::Warned;
            self.steps[index].evidence().detail = Some(format!("uncertain: {}", fault.detail));
            return Ok(());
        }
        let cause = if fault.uncertain && matches!(step.verb, Verb::Send(_)) { Cause::Uncertain } else { fault.cause };
        Err((cause, fault.detail))
    }

    /// Whether a step waits for what this one sends.
    pub(super) fn is_awaited(&self, index: usize) -> bool {
        let is_its = |verb: &Verb| matches!(verb, Verb::Receive(receive) if receive.since == index);
        self.journey.steps.iter().any(|step| is_its(&step.verb))
    }

    /// As [`Run::judge`], for an arrival: one that stands for a failure is one, unless the step asks for the very thing.
    pub(super) fn judge_arrival(&mut self, index: usize, step: &Step, view: View<'_>) -> Result<(), (Cause, String)> {
        let judged = self.judge(index, step, view);
        match super::receive::trouble(step, view.message) {
            Some(trouble) => Err((trouble.cause, trouble.detail.clone())),
            None => judged,
        }
    }

    /// Checks the expectations and takes the captures.
    pub(super) fn judge(&mut self, index: usize, step: &Step, view: View<'_>) -> Result<(), (Cause, String)> {
        let checks: Vec<Check> =
            step.expect.iter().map(|expectation| expectation.check(view, Some(&self.scope))).collect();
        let failed = checks.iter().find(|check| !check.passed && !check.soft).cloned();
        self.steps[index].evidence().checks = checks;
        if let Some(failed) = failed {
            let found = failed.found.unwrap_or_default();
            let detail = format!("{}, found {found}", failed.expectation);
            return Err((failed.cause.unwrap_or(Cause::Mismatch), detail));
        }
        for (name, query) in &step.capture {
            match query.find(view) {
                Some(value) => self.scope.set(name, value.to_text()),
                None => {
                    return Err((Cause::Mismatch, format!("nothing to capture as `{name}`: {query} found nothing")));
                }
            }
        }
        Ok(())
    }
}

/// What an answer says if it says no: by what its channel makes of it, or by its HTTP status.
fn no(message: &Message) -> Option<(Cause, String)> {
    if let Some(trouble) = &message.trouble {
        return Some((trouble.cause, trouble.detail.clone()));
    }
    let status = message.status?;
    Cause::of_status(status).map(|cause| (cause, format!("answered {status}")))
}
