//! A run's steps one after the other, and the parts that a step is made of.

use std::fmt::Write as _;
use std::time::Duration;

use crate::journey::report::{Report, StepReport, StepStatus};

/// When the last step of either run ended: the end of the waterfall's axis.
pub(in crate::http) fn waterfall_end(report: &Report, reference: Option<&Report>) -> Duration {
    let end = |report: &Report| report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default();
    end(report).max(reference.map(end).unwrap_or_default()).max(Duration::from_micros(1))
}

/// A step's line of the waterfall: its bar, its phases in it, and below it the same step of the last good run.
pub(in crate::http) fn waterfall_bar(step: &StepReport, before: Option<&StepReport>, end: Duration) -> String {
    let percent = |time: Duration| (time.as_secs_f64() / end.as_secs_f64() * 100.0).clamp(0.0, 100.0);
    let rect = |class: &str, at: Duration, took: Duration, (y, height): (u8, u8)| {
        // Never invisible, and never beyond the end.
        let width = percent(took).max(0.4);
        let x = percent(at).min(100.0 - width);
        format!("<rect class=\"{class}\" x=\"{x:.2}%\" y={y} width=\"{width:.2}%\" height={height} />")
    };
    let mut out = "<svg class=wf width=\"100%\" height=22 aria-hidden=true>".to_owned();
    if step.status != StepStatus::Skipped {
        out += &rect(step.status.as_str(), step.at, step.took, (3, 9));
        let mut at = step.at;
        for (place, phase) in step.phases.iter().enumerate() {
            if place % 2 == 1 {
                out += &rect("phase", at, phase.took, (3, 9));
            }
            at += phase.took;
        }
    }
    if let Some(before) = before.filter(|before| before.status != StepStatus::Skipped) {
        out += &rect("before", before.at, before.took, (14, 5));
    }
    out + "</svg>"
}

/// The parts of a whole on one bar, each next to the one before.
pub(in crate::http) fn parts_bar(parts: &[Duration]) -> String {
    let whole = parts.iter().sum::<Duration>().as_secs_f64().max(1e-9);
    let mut out = "<svg class=\"wf parts-bar\" width=\"100%\" height=14 aria-hidden=true>".to_owned();
    let mut at = 0.0;
    for (place, part) in parts.iter().enumerate() {
        let width = part.as_secs_f64() / whole * 100.0;
        let class = if place % 2 == 0 { "passed" } else { "other" };
        let _ = write!(out, "<rect class={class} x=\"{at:.2}%\" y=1 width=\"{width:.2}%\" height=12 />");
        at += width;
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_invisible_nor_beyond_the_end() {
        let step = StepReport { at: Duration::from_secs(10), ..StepReport::new("s", "send", StepStatus::Failed) };
        let bar = waterfall_bar(&step, None, Duration::from_secs(10));
        assert!(bar.contains("class=\"failed\" x=\"99.60%\" y=3 width=\"0.40%\""), "{bar}");
    }

    #[test]
    fn parts_fill_the_whole_bar() {
        let bar = parts_bar(&[Duration::from_secs(1), Duration::from_secs(3)]);
        assert!(bar.contains("class=passed x=\"0.00%\" y=1 width=\"25.00%\""), "{bar}");
        assert!(bar.contains("class=other x=\"25.00%\" y=1 width=\"75.00%\""), "{bar}");
        assert!(!parts_bar(&[Duration::ZERO]).contains("NaN"));
    }
}
