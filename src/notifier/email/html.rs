//! A notice as HTML that mail clients can show: tables and inline styles, nothing remote, no script.
//!
//! Text has the client's own colours, so that dark mode stays readable; what has a colour of its own has both, or a middle grey.
//! Gmail cuts messages off after 102 kB, so there is a bound.

use std::fmt::Write as _;
use std::time::Duration;

use super::one_line;
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::notice::Notification;
use crate::secret::Redactor;
use crate::time::Human;

/// No step is added beyond this many bytes.
const FULL: usize = 70_000;
/// Longer values are cut; the log and the journey's page have the whole.
const VALUE: usize = 600;
/// Width of the waterfall's bars in pixels.
const BAR: u32 = 200;

const RED: &str = "#b3261e";
const AMBER: &str = "#9a5b00";
const GREEN: &str = "#1e7a34";
const GREY: &str = "#767676";

/// The whole document.
pub(super) fn page(notification: &Notification, notes: &[String], redactor: &Redactor) -> String {
    let safe = |text: &str| escape(&one_line(&redactor.clean(text), VALUE));
    let headline = safe(&notification.headline());
    let colour = match (notification.reason, notification.incident.worst) {
        (NotifyReason::Resolved, _) => GREEN,
        (_, Severity::Critical) => RED,
        (_, Severity::Warning) => AMBER,
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">\
         <title>{headline}</title></head>\n\
         <body style=\"margin:0;padding:12px;font-family:-apple-system,'Segoe UI',Roboto,Arial,sans-serif;font-size:15px\">\n\
         <table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" width=\"100%\" style=\"max-width:680px\">\n\
         <tr><td bgcolor=\"{colour}\" style=\"background-color:{colour};color:#ffffff;padding:12px 14px;font-size:17px;\
         font-weight:bold\">{headline}</td></tr>\n"
    );
    for note in notes {
        let _ = writeln!(out, "<tr><td style=\"padding:10px 14px 0;font-style:italic\">{}</td></tr>", safe(note));
    }
    out.push_str("<tr><td style=\"padding:12px 14px\"><table cellpadding=\"0\" cellspacing=\"0\" border=\"0\">\n");
    for (name, value) in notification.facts() {
        let _ = writeln!(
            out,
            "<tr><td style=\"padding:2px 14px 2px 0;color:{GREY};white-space:nowrap;vertical-align:top\">{}</td>\
             <td style=\"padding:2px 0;word-break:break-word\">{}</td></tr>",
            escape(name),
            safe(&value)
        );
    }
    out.push_str("</table></td></tr>\n");
    if let Some(report) = &notification.report {
        waterfall(&mut out, report, notification.last_good.as_ref(), &safe);
    }
    let links =
        [("Runbook", &notification.runbook), ("Page", &notification.link), ("Acknowledge", &notification.ack_link)];
    for (name, link) in links {
        if let Some(link) = link {
            let _ = writeln!(out, "<tr><td style=\"padding:4px 14px\">{name}: {}</td></tr>", anchor(&safe(link)));
        }
    }
    out.push_str("</table>\n</body></html>\n");
    out
}

/// The run beside the last good one, on one scale: a row of bars for each step, and below it what the step came to.
fn waterfall(out: &mut String, report: &Report, reference: Option<&Report>, safe: &impl Fn(&str) -> String) {
    let end = |report: &Report| report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default();
    let scale = end(report).max(reference.map(end).unwrap_or_default()).max(Duration::from_micros(1));
    out.push_str(
        "<tr><td style=\"padding:6px 14px 12px\"><table cellpadding=\"0\" cellspacing=\"0\" border=\"0\" style=\"font-size:13px\">\n",
    );
    for (index, step) in report.steps.iter().enumerate() {
        if out.len() > FULL {
            let _ = writeln!(out, "<tr><td colspan=\"3\">… and {} more steps</td></tr>", report.steps.len() - index);
            break;
        }
        let (mark, colour) = match step.status {
            StepStatus::Passed => ("✓", GREEN),
            StepStatus::Slow => ("◔", AMBER),
            StepStatus::Warned => ("!", AMBER),
            StepStatus::Failed => ("✗", RED),
            StepStatus::Skipped => ("·", GREY),
        };
        row(out, &format!("{mark} {}", safe(&step.name)), step, scale, colour);
        let before = reference.and_then(|reference| reference.steps.iter().find(|other| other.name == step.name));
        if let Some(before) = before.filter(|before| before.status != StepStatus::Skipped) {
            row(out, &format!("<span style=\"color:{GREY}\">last good</span>"), before, scale, GREY);
        }
        let way = step.channel.as_ref().map_or(step.verb.to_string(), |channel| format!("{} {channel}", step.verb));
        let summary = step.summary();
        let told = if summary.is_empty() { way } else { format!("{way}: {summary}") };
        let _ = writeln!(
            out,
            "<tr><td colspan=\"3\" style=\"padding:0 0 8px;color:{GREY};word-break:break-word\">{}</td></tr>",
            safe(&told)
        );
    }
    out.push_str("</table></td></tr>\n");
}

/// One bar: blank, coloured, blank.
fn row(out: &mut String, title: &str, step: &StepReport, scale: Duration, colour: &str) {
    let pixel = |time: Duration| (time.as_secs_f64() / scale.as_secs_f64() * f64::from(BAR)).round() as u32;
    let is_skipped = step.status == StepStatus::Skipped;
    let start = pixel(step.at).min(BAR - 2);
    // Never invisible.
    let length = if is_skipped { 0 } else { pixel(step.at + step.took).saturating_sub(start).clamp(2, BAR - start) };
    let cell = |width: u32, colour: Option<&str>| {
        let fill = colour.map(|c| format!(" bgcolor=\"{c}\"")).unwrap_or_default();
        let style = colour.map(|c| format!(";background-color:{c}")).unwrap_or_default();
        match width {
            0 => String::new(),
            _ => format!(
                "<td width=\"{width}\"{fill} style=\"width:{width}px;height:10px;font-size:1px;line-height:10px{style}\">&nbsp;</td>"
            ),
        }
    };
    let took = if is_skipped { "-".to_owned() } else { Human(step.took).to_string() };
    let _ = writeln!(
        out,
        "<tr><td style=\"padding:1px 10px 1px 0;white-space:nowrap\">{title}</td><td width=\"{BAR}\" style=\"padding:1px 0\">\
         <table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" width=\"{BAR}\" style=\"border:1px solid {GREY}\">\
         <tr>{}{}{}</tr></table></td><td align=\"right\" style=\"padding:1px 0 1px 10px;white-space:nowrap\">{took}</td></tr>",
        cell(start, None),
        cell(length, Some(colour)),
        cell(BAR - start - length, None),
    );
}

/// A link only where it is one; `escaped` is safe in an attribute as well.
fn anchor(escaped: &str) -> String {
    if escaped.starts_with("https://") || escaped.starts_with("http://") {
        format!("<a href=\"{escaped}\">{escaped}</a>")
    } else {
        escaped.to_owned()
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}
