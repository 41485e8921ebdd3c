//! The steps of a run in sentences: what went where, what came back when, and what was expected of it.

use std::fmt::Write as _;

use crate::cli::explain::line;
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::seen::{What, find};
use crate::time::Human;

/// Two lengths of time differ for people from this on.
const MORE: f64 = 1.5;
/// Of what came back, so much is told.
const EXCERPT: usize = 300;

/// Every step that ran, and which were never reached.
pub(super) fn told(report: &Report) -> String {
    let mut text = String::new();
    let width = report.steps.iter().map(|step| Human(step.at).to_string().len()).max().unwrap_or(0);
    let is_left_out = |step: &&StepReport| step.status == StepStatus::Skipped;
    for step in report.steps.iter().filter(|step| !is_left_out(step)) {
        let at = format!("+{}", Human(step.at));
        line(
            &mut text,
            1,
            &format!("{at:>width$}  {} {}: {}", mark(step), step.name, sentence(step), width = width + 1),
        );
        for check in &step.checks {
            let mark = if check.passed {
                '✓'
            } else if check.soft {
                '!'
            } else {
                '✗'
            };
            let found = match (&check.found, check.passed) {
                (Some(found), false) => format!(", found {found}"),
                (None, false) => ", found nothing".to_owned(),
                (_, true) => String::new(),
            };
            line(&mut text, 4, &format!("{mark} {}{found}", check.expectation));
        }
        if let (StepStatus::Failed | StepStatus::Warned, Some(excerpt)) = (step.status, &step.excerpt) {
            line(&mut text, 4, &format!("what came back begins: {}", cut(excerpt)));
        }
    }
    for step in report.steps.iter().filter(is_left_out) {
        let why = step.detail.as_deref().unwrap_or("it was not reached");
        line(&mut text, 1, &format!("· {}: {why}", step.name));
    }
    text
}

/// What the steps did otherwise at the last good run: those that failed or were much slower.
pub(super) fn otherwise(good: &Report, report: &Report) -> Vec<String> {
    let mut sentences = Vec::new();
    for step in &report.steps {
        let Some(before) = good.steps.iter().find(|other| other.name == step.name) else { continue };
        let is_slower = step.took.as_secs_f64() > before.took.as_secs_f64() * MORE;
        let is_bad = matches!(step.status, StepStatus::Failed | StepStatus::Slow | StepStatus::Warned);
        if before.status != StepStatus::Skipped && (is_bad || is_slower && step.status != StepStatus::Skipped) {
            sentences.push(format!("{}: {}", step.name, sentence(before)));
        }
    }
    sentences
}

fn mark(step: &StepReport) -> char {
    match step.status {
        StepStatus::Passed => '✓',
        StepStatus::Slow => '◔',
        StepStatus::Warned => '!',
        StepStatus::Failed => '✗',
        StepStatus::Skipped => '·',
    }
}

/// What a step did, and what came of it.
fn sentence(step: &StepReport) -> String {
    let channel = step.channel.as_deref().unwrap_or("nothing");
    let took = Human(step.took);
    let peer = find(&step.seen, What::Peer).map_or(String::new(), |peer| format!(" at {peer}"));
    let ack = step.ack.as_deref();
    let mut text = match &*step.verb {
        "send" => format!("sent to `{channel}`{peer}"),
        "request" => format!("asked `{channel}`{peer}"),
        "check" => format!("looked at `{channel}`{peer}"),
        "receive" => format!("waited on `{channel}`"),
        "exec" => "ran its program".to_owned(),
        _ => format!("waited {took}"),
    };
    match (&*step.verb, ack) {
        ("receive", _) if is_sound(step) => {
            let _ = write!(text, "; the message came {took} after it was sent");
        }
        ("send", Some(ack)) => {
            let _ = write!(text, ", acknowledged as `{ack}` after {took}");
        }
        ("request" | "check" | "exec", Some(ack)) => {
            let _ = write!(text, ", answered `{ack}` after {took}");
        }
        _ => {}
    }
    if !step.phases.is_empty() {
        let parts: Vec<_> = step.phases.iter().map(|phase| format!("{} {}", phase.name, Human(phase.took))).collect();
        let _ = write!(text, " ({})", parts.join(", "));
    }
    if !step.hops.is_empty() {
        let hops: Vec<_> = step.hops.iter().map(|hop| format!("{} {}", hop.name, Human(hop.took))).collect();
        let _ = write!(text, "; on its way: {}", hops.join(", "));
    }
    // What an expectation found stands below.
    let is_told_below = step.checks.iter().any(|check| !check.passed);
    if let Some(detail) = step.detail.as_deref().filter(|_| !is_told_below) {
        let _ = write!(text, "; {detail}");
    }
    text
}

fn is_sound(step: &StepReport) -> bool {
    matches!(step.status, StepStatus::Passed | StepStatus::Slow)
        || !step.checks.is_empty() && step.checks.iter().any(|check| check.found.is_some())
}

fn cut(text: &str) -> String {
    crate::journey::expect::cut_at(text, EXCERPT)
}
