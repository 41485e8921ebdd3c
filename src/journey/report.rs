//! What a run leaves behind: its outcome and its evidence, a timeline of every step.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::Name;
use crate::journey::expect::Check;
use crate::journey::message::Hop;
use crate::journey::outcome::{Outcome, Verdict, labelled};
use crate::journey::seen::Seen;
use crate::journey::token::Token;
use crate::time::Human;

/// One run, told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The journey.
    pub journey: Name,
    /// The run's token, which is also its id and its trace id.
    pub token: Token,
    /// The slot that it ran for.
    pub slot: Timestamp,
    /// When its first step began.
    pub started: Timestamp,
    /// What it came to.
    pub outcome: Outcome,
    /// Critical-path latency, as far as the run got.
    #[serde(with = "crate::time::micros")]
    pub latency: Duration,
    /// How long after its slot it started; never part of the latency.
    #[serde(with = "crate::time::micros")]
    pub lateness: Duration,
    /// Every step, in order.
    pub steps: Vec<StepReport>,
    /// What an excluded run was all the same.
    #[serde(default)]
    pub beneath: Option<Verdict>,
    /// Why the outcome is `unknown`, in words.
    pub note: Option<String>,
    /// The fingerprint of the journey's definition. Empty where that was not kept yet.
    #[serde(default)]
    pub configuration: String,
    /// The version of the monitor that ran it. Empty where that was not kept yet.
    #[serde(default)]
    pub version: String,
}

labelled! {
    /// How a step ended.
    StepStatus {
        /// As it should.
        Passed = "passed",
        /// As it should, over its budget.
        Slow = "slow",
        /// Not as it should, and that does not matter for the outcome.
        Warned = "warned",
        /// Not as it should.
        Failed = "failed",
        /// Not reached, or its `when` did not hold.
        Skipped = "skipped",
    }
}

/// One step, told. Where it is kept, what there is none of is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's name.
    pub name: Name,
    /// Its verb.
    pub verb: Cow<'static, str>,
    /// Its channel.
    pub channel: Option<Name>,
    /// From the run's first step to this one's beginning. For a `receive`: to the send that it belongs to.
    #[serde(with = "crate::time::micros")]
    pub at: Duration,
    /// How long it took. For a `receive`: from just before the send to the reader's stamp.
    #[serde(with = "crate::time::micros")]
    pub took: Duration,
    /// How it ended.
    pub status: StepStatus,
    /// What happened, in a sentence.
    pub detail: Option<String>,
    /// Which acknowledgement was given.
    pub ack: Option<String>,
    /// Its parts, in order: DNS, connect, first byte, …
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// The message's way, where the protocol tells.
    #[serde(default)]
    pub hops: Vec<Hop>,
    /// Its expectations.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// The beginning of what came back.
    pub excerpt: Option<String>,
    /// Whom and what it met, in the order of [`What`](crate::journey::seen::What). For a `receive`: what its reader did.
    #[serde(default)]
    pub seen: Vec<Seen>,
}

impl StepReport {
    /// A step that met nothing and took no time.
    pub fn new(name: impl Into<Name>, verb: impl Into<Cow<'static, str>>, status: StepStatus) -> StepReport {
        StepReport {
            name: name.into(),
            verb: verb.into(),
            channel: None,
            at: Duration::ZERO,
            took: Duration::ZERO,
            status,
            detail: None,
            ack: None,
            phases: Vec::new(),
            hops: Vec::new(),
            checks: Vec::new(),
            excerpt: None,
            seen: Vec::new(),
        }
    }
}

/// One part of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `dns`, `connect`, `tls`, `first_byte`, `body`, `confirm`, …
    pub name: String,
    /// How long it took.
    #[serde(with = "crate::time::micros")]
    pub took: Duration,
}

impl StepReport {
    /// The step's result in a few words, for a line of a waterfall.
    pub fn summary(&self) -> String {
        let failed = self.checks.iter().find(|check| !check.passed && !check.soft);
        match (failed, &self.detail, &self.ack) {
            (Some(check), ..) => {
                format!("{}, found {}", check.expectation, check.found.as_deref().unwrap_or("nothing"))
            }
            (None, Some(detail), _) => detail.clone(),
            (None, None, Some(ack)) => ack.clone(),
            (None, None, None) => String::new(),
        }
    }
}

impl Report {
    /// The first step that failed.
    pub fn failed_step(&self) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.status == StepStatus::Failed)
    }

    /// Whether it shows that something is wrong.
    pub fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Slow { .. } | Outcome::Failed { .. })
    }

    /// The outcome in a sentence: what failed, where and why; or how long it took.
    pub fn verdict_line(&self) -> String {
        match &self.outcome {
            Outcome::Good { latency } => format!("good in {}", Human(*latency)),
            Outcome::Slow { latency } => format!("slow: took {}", Human(*latency)),
            Outcome::Failed { step, cause } => {
                let why = self.failed_step().map(StepReport::summary).filter(|why| !why.is_empty());
                match why {
                    Some(why) => format!("failed ({cause}) at step `{step}`: {why}"),
                    None => format!("failed ({cause}) at step `{step}`"),
                }
            }
            Outcome::Unknown { why } => match &self.note {
                Some(note) => format!("unknown ({why}): {note}"),
                None => format!("unknown ({why})"),
            },
            Outcome::Excluded { why } => format!("excluded ({why})"),
        }
    }

    /// Applies `redact` to every text that came from outside.
    pub fn redact(&mut self, redact: impl Fn(&str) -> Option<String>) {
        let apply = |text: &mut String| {
            if let Some(clean) = redact(text) {
                *text = clean;
            }
        };
        self.note.as_mut().map(apply);
        for step in &mut self.steps {
            step.detail.as_mut().map(apply);
            step.ack.as_mut().map(apply);
            step.excerpt.as_mut().map(apply);
            for check in &mut step.checks {
                apply(&mut check.expectation);
                check.found.as_mut().map(apply);
            }
            for seen in &mut step.seen {
                if let Some(clean) = redact(&seen.is) {
                    seen.is = clean.into();
                }
            }
        }
    }
}

/// A run as text, one line a step, its bars on one scale with those of `reference` (the last good run), if given.
///
/// ```text
/// ✓ submit   send gateway     ▕█                   ▏   12.3ms  202
/// ✗ arrive   receive inbound  ▕ ███████████████████▏    60.0s  not received within 60s
/// ```
pub fn waterfall(report: &Report, reference: Option<&Report>, bar: usize) -> String {
    let end = |report: &Report| report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default();
    let scale = end(report).max(reference.map(end).unwrap_or_default());
    draw(&report.steps, reference, scale, bar)
}

/// The same of a run that has not ended: `reach` is what the bars are drawn to.
pub fn draw_steps(steps: &[StepReport], reach: Duration, bar: usize) -> String {
    draw(steps, None, reach, bar)
}

fn draw(steps: &[StepReport], reference: Option<&Report>, scale: Duration, bar: usize) -> String {
    let scale = scale.max(Duration::from_micros(1));
    // A step that nobody named is called by what it does: it is not said twice.
    let title = |step: &StepReport| match &step.channel {
        Some(channel) => format!("{} {channel}", step.verb),
        None => step.verb.to_string(),
    };
    let title = |step: &StepReport| Some(title(step)).filter(|title| **title != *step.name).unwrap_or_default();
    // A name that fills the line is not padded for.
    let width = |text: &dyn Fn(&StepReport) -> usize| steps.iter().map(text).max().unwrap_or(0).min(40);
    let names = width(&|step| step.name.chars().count());
    let titles = width(&|step| title(step).chars().count());
    let gap = if titles == 0 { "" } else { "  " };
    let mut out = String::new();
    for step in steps {
        let mark = match step.status {
            StepStatus::Passed => '✓',
            StepStatus::Slow => '◔',
            StepStatus::Warned => '!',
            StepStatus::Failed => '✗',
            StepStatus::Skipped => '·',
        };
        let took = if step.status == StepStatus::Skipped { "-".to_owned() } else { Human(step.took).to_string() };
        let line = format!(
            "{mark} {:names$}{gap}{:titles$}  ▕{}▏ {took:>8}  {}",
            step.name,
            title(step),
            bar_text(step.at, step.took, scale, bar, step.status == StepStatus::Skipped),
            step.summary(),
        );
        out.push_str(line.trim_end());
        out.push('\n');
        let before = reference.and_then(|reference| reference.steps.iter().find(|other| other.name == step.name));
        if let Some(before) = before.filter(|before| before.status != StepStatus::Skipped) {
            let drawn = bar_text(before.at, before.took, scale, bar, false).replace('█', "░");
            let took = Human(before.took).to_string();
            let _ = writeln!(out, "  {:names$}{gap}{:titles$}  ▕{drawn}▏ {took:>8}  last good", "", "");
        }
    }
    out
}

/// A bar of `width` cells for `at..at + took` on `0..scale`; never invisible.
fn bar_text(at: Duration, took: Duration, scale: Duration, width: usize, empty: bool) -> String {
    let cell = |time: Duration| (time.as_secs_f64() / scale.as_secs_f64() * width as f64).round() as usize;
    let start = cell(at).min(width.saturating_sub(1));
    let length = if empty { 0 } else { cell(at + took).saturating_sub(start).clamp(1, width - start) };
    format!("{}{}{}", " ".repeat(start), "█".repeat(length), " ".repeat(width - start - length))
}
