//! A notice as HTML that mail clients can show: tables and inline styles, nothing remote, no script.
//!
//! Text has the client's own colours, so that dark mode stays readable; what has a colour of its own has both, and what is less important is paler.
//! Gmail cuts messages off after 102 kB, so every part has a bound, and lists end before the page is full.

use std::fmt::Write as _;

use super::one_line;
use super::picture::Picture;
use crate::detect::Severity;
use crate::incident::{LISTED, NotifyReason};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::notice::Notification;
use crate::secret::Redactor;
use crate::time::Human;

/// No page is longer: Gmail cuts at 102 kB.
pub(super) const MOST: usize = 100_000;
/// No row is added to a list beyond this many bytes: what follows the lists is never longer than the rest.
const FULL: usize = 60_000;
/// Longer values are cut; the log and the journey's page have the whole. One character is at most six bytes.
const HEADLINE: usize = 400;
const VALUE: usize = 200;
const DECISION: usize = 400;
/// A longer address is shown in part, and leads nowhere.
const LINK: usize = 500;
const LINK_SHOWN: usize = 80;
const NEWS: usize = 8;
/// More facts have never been seen.
const FACTS: usize = 16;

const RED: &str = "#b3261e";
const AMBER: &str = "#9a5b00";
const GREEN: &str = "#1e7a34";
/// Less than the rest, in whatever colours the client has: no grey can be read on white and on black.
const QUIET: &str = "opacity:.65";

/// The waterfall, and its address within the mail.
pub(super) struct Inline<'a> {
    pub(super) picture: &'a Picture,
    pub(super) address: &'a str,
}

/// The whole document.
pub(super) fn page(
    notification: &Notification,
    notes: &[String],
    waterfall: Option<Inline<'_>>,
    redactor: &Redactor,
) -> String {
    let safe = |text: &str, most: usize| escape(&one_line(&redactor.clean(text), most));
    let mut page = Page { out: String::new(), safe: &safe };
    page.head(notification);
    for note in notes {
        page.cell("padding:10px 14px 0;font-style:italic", &safe(note, VALUE));
    }
    page.numbers(notification);
    if let Some(report) = &notification.report {
        page.run(report, notification.last_good.as_ref(), waterfall);
    }
    page.members(notification);
    if let Some(cause) = notification.likely_cause() {
        page.section("Likely cause", &safe(&cause, DECISION));
    }
    if !notification.news.is_empty() {
        let lines = notification.news.iter().take(NEWS).map(|line| format!("• {}", safe(line, VALUE)));
        page.section("What changed", &lines.collect::<Vec<_>>().join("<br>"));
    }
    let links: Vec<_> = notification.links().into_iter().map(|(name, link)| page.link(name, link)).collect();
    if !links.is_empty() {
        page.cell("padding:10px 14px 0;word-break:break-word", &links.join("<br>"));
    }
    page.section("Decided by", &safe(&notification.decision, DECISION));
    page.out.push_str("</table>\n</body></html>\n");
    page.out
}

struct Page<'a, F: Fn(&str, usize) -> String> {
    out: String,
    /// Redacts, cuts and escapes.
    safe: &'a F,
}

impl<F: Fn(&str, usize) -> String> Page<'_, F> {
    fn safe(&self, text: &str, most: usize) -> String {
        (self.safe)(text, most)
    }

    fn is_full(&self) -> bool {
        self.out.len() > FULL
    }

    fn head(&mut self, notification: &Notification) {
        let headline = self.safe(&notification.headline(), HEADLINE);
        let title = self.safe(&notification.title(), VALUE);
        let colour = match (notification.reason, notification.severity()) {
            (NotifyReason::Resolved, _) if notification.handed_over.is_some() => AMBER,
            (NotifyReason::Resolved, _) => GREEN,
            (_, Severity::Critical) => RED,
            (_, Severity::Warning) => AMBER,
        };
        let _ = write!(
            self.out,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">\
             <title>{title}</title></head>\n\
             <body style=\"margin:0;padding:12px;font-family:-apple-system,'Segoe UI',Roboto,Arial,sans-serif;font-size:15px;\
             line-height:1.4\">\n\
             <table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\" border=\"0\" width=\"100%\" style=\"max-width:680px\">\n\
             <tr><td bgcolor=\"{colour}\" style=\"background-color:{colour};color:#ffffff;padding:14px;font-size:17px;\
             font-weight:bold\">{headline}</td></tr>\n"
        );
    }

    fn cell(&mut self, style: &str, inside: &str) {
        let _ = writeln!(self.out, "<tr><td style=\"{style}\">{inside}</td></tr>");
    }

    fn section(&mut self, title: &str, inside: &str) {
        let title = format!("<span style=\"{QUIET};font-size:13px\">{title}</span>");
        self.cell("padding:12px 14px 0;word-break:break-word", &format!("{title}<br>{inside}"));
    }

    fn numbers(&mut self, notification: &Notification) {
        self.out.push_str(
            "<tr><td style=\"padding:12px 14px 0\"><table cellpadding=\"0\" cellspacing=\"0\" border=\"0\">\n",
        );
        for (name, value) in notification.numbers().into_iter().take(FACTS) {
            let value = self.safe(&value, VALUE);
            let _ = writeln!(
                self.out,
                "<tr><td style=\"padding:2px 14px 2px 0;{QUIET};white-space:nowrap;vertical-align:top\">{name}</td>\
                 <td style=\"padding:2px 0;word-break:break-word\">{value}</td></tr>",
            );
        }
        self.out.push_str("</table></td></tr>\n");
    }

    /// The picture, and its steps in words: for who sees no pictures, and to be copied.
    fn run(&mut self, report: &Report, reference: Option<&Report>, waterfall: Option<Inline<'_>>) {
        if let Some(Inline { picture, address }) = waterfall {
            let alt = self.safe(&format!("Waterfall of this run: {}", report.verdict_line()), VALUE);
            let (width, height) = (picture.width, picture.height);
            let image = format!(
                "<img src=\"cid:{address}\" width=\"{width}\" height=\"{height}\" alt=\"{alt}\" \
                 style=\"display:block;width:100%;max-width:{width}px;height:auto;border:0\">"
            );
            self.cell("padding:14px 14px 0", &image);
        }
        self.out.push_str(
            "<tr><td style=\"padding:10px 14px 0\"><table cellpadding=\"0\" cellspacing=\"0\" border=\"0\" style=\"font-size:13px\">\n",
        );
        for (at, step) in report.steps.iter().enumerate() {
            if self.is_full() {
                let _ =
                    writeln!(self.out, "<tr><td colspan=\"3\">… and {} more steps</td></tr>", report.steps.len() - at);
                break;
            }
            let before = reference.and_then(|reference| reference.steps.iter().find(|other| other.name == step.name));
            self.step(step, before.filter(|before| before.status != StepStatus::Skipped));
        }
        self.out.push_str("</table></td></tr>\n");
    }

    fn step(&mut self, step: &StepReport, before: Option<&StepReport>) {
        let mark = match step.status {
            StepStatus::Passed => "✓",
            StepStatus::Slow => "◔",
            StepStatus::Warned => "!",
            StepStatus::Failed => "✗",
            StepStatus::Skipped => "·",
        };
        let took = if step.status == StepStatus::Skipped { "-".to_owned() } else { Human(step.took).to_string() };
        let before = before.map(|before| format!(" <span style=\"{QUIET}\">last good {}</span>", Human(before.took)));
        let way = step.channel.as_ref().map_or(step.verb.to_string(), |channel| format!("{} {channel}", step.verb));
        let summary = step.summary();
        let told = if summary.is_empty() { way } else { format!("{way}: {summary}") };
        let (name, told) = (self.safe(&step.name, VALUE / 2), self.safe(&told, VALUE));
        // A failed step's mark is filled: red text is not readable on every ground.
        let mark = match step.status {
            StepStatus::Failed => {
                format!("<span style=\"background-color:{RED};color:#ffffff;padding:0 3px\">{mark}</span>")
            }
            _ => format!("<span style=\"{QUIET}\">{mark}</span>"),
        };
        let _ = writeln!(
            self.out,
            "<tr><td style=\"padding:3px 12px 3px 0;white-space:nowrap;vertical-align:top\">{mark} {name}</td>\
             <td style=\"padding:3px 12px 3px 0;white-space:nowrap;vertical-align:top\">{took}{}</td>\
             <td style=\"padding:3px 0;word-break:break-word\">{told}</td></tr>",
            before.unwrap_or_default()
        );
    }

    fn members(&mut self, notification: &Notification) {
        if notification.incident.members < 2 {
            return;
        }
        let _ = writeln!(
            self.out,
            "<tr><td style=\"padding:12px 14px 0\"><table cellpadding=\"0\" cellspacing=\"0\" border=\"0\">\n\
             <tr><td colspan=\"2\" style=\"{QUIET};font-size:13px\">{}</td></tr>",
            notification.members_title()
        );
        let mut shown = 0;
        for member in notification.members.iter().take(LISTED) {
            if self.is_full() {
                break;
            }
            let mark = if member.ended.is_some() { "✓" } else { "✗" };
            let (subject, said) = (self.safe(&member.subject.to_string(), VALUE / 2), self.safe(&member.said, VALUE));
            let _ = writeln!(
                self.out,
                "<tr><td style=\"padding:2px 14px 2px 0;vertical-align:top\"><span style=\"{QUIET}\">{mark}</span> {subject}</td>\
                 <td style=\"padding:2px 0;word-break:break-word\">{said}</td></tr>"
            );
            shown += 1;
        }
        let more = notification.unlisted(shown);
        if more > 0 {
            let _ = writeln!(self.out, "<tr><td colspan=\"2\" style=\"padding:2px 0\">… and {more} more</td></tr>");
        }
        self.out.push_str("</table></td></tr>\n");
    }

    /// A link only where it is one; what is escaped is safe in an attribute as well.
    fn link(&self, name: &str, to: &str) -> String {
        let shown = self.safe(to, LINK_SHOWN);
        let is_link = (to.starts_with("https://") || to.starts_with("http://")) && to.chars().count() <= LINK;
        let address = self.safe(to, LINK);
        match is_link {
            // Nobody reads a permission.
            true if to.chars().count() > LINK_SHOWN => format!("<a href=\"{address}\">{name}</a>"),
            true => format!("{name}: <a href=\"{address}\">{shown}</a>"),
            false => format!("{name}: {shown}"),
        }
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::incident::Member;
    use crate::incident::root::Resource;
    use crate::incident::{NotifyReason, Root};
    use crate::notice::sample::sample;
    use crate::notifier::email::picture::waterfall;

    /// The sample with `text` in every place that data comes to, `many` times where there are lists.
    fn notice(reason: NotifyReason, text: &str, many: usize) -> Notification {
        let mut notice = sample(reason);
        let member = Member { subject: text.into(), said: text.to_owned(), since: Timestamp::UNIX_EPOCH, ended: None };
        notice.subject = text.to_owned();
        notice.members = vec![member; many];
        notice.incident.members = 10_000;
        notice.incident.root = Root::Shared { resource: Resource::Channel(text.into()), said: text.to_owned() };
        notice.news = vec![text.to_owned(); many];
        for place in [&mut notice.owner, &mut notice.location, &mut notice.objective] {
            *place = Some(text.to_owned());
        }
        notice.runbook = Some(format!("https://wiki.example.net/{text}"));
        notice.link = Some(text.to_owned());
        notice.labels = [(text.to_owned(), text.to_owned())].into();
        notice.decision = text.to_owned();
        let report = notice.report.as_mut().expect("the sample has a run");
        report.steps = report.steps.iter().cycle().take(many).cloned().collect();
        for step in &mut report.steps {
            (step.name, step.verb, step.detail) = (text.into(), text.to_owned().into(), Some(text.to_owned()));
        }
        notice
    }

    const REASONS: [NotifyReason; 5] =
        [NotifyReason::First, NotifyReason::Worse, NotifyReason::Updated, NotifyReason::Repeat, NotifyReason::Resolved];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_notice_is_a_page_that_gmail_shows_whole_and_that_holds_no_markup_of_others(
            text in "(<script>|</td>|<img src=x>|\"'&|&amp;|javascript:|\u{202e}|😀|\n|\\PC{1,40}){0,60}",
            longest in prop::sample::select(vec![10_usize, 300, 5_000]),
            reason in prop::sample::select(REASONS.to_vec()),
            many in prop::sample::select(vec![0_usize, 3, 25, 600]),
        ) {
            let text: String = text.chars().cycle().take(longest).collect();
            let notice = notice(reason, &text, many);
            let report = notice.report.as_ref().expect("the sample has a run");
            let picture = waterfall(report, notice.last_good.as_ref(), str::to_owned);
            let inline = Inline { picture: &picture, address: "waterfall@example.net" };
            let notes = vec![text.clone(); 2];
            let html = page(&notice, &notes, Some(inline), &Redactor::new());
            prop_assert!(html.len() < MOST, "{} bytes", html.len());
            prop_assert!(html.trim_end().ends_with("</html>"));
            prop_assert_eq!(html.matches("<img").count(), 1);
            prop_assert!(!html.contains("<script") && !html.contains("href=\"javascript"));
            prop_assert_eq!(html.matches("<td").count(), html.matches("</td>").count());
            prop_assert_eq!(html.matches("<table").count(), html.matches("</table>").count());
        }
    }

    #[test]
    fn the_parts_come_in_order_and_the_text_has_them_too() {
        let notice = sample(NotifyReason::Worse);
        let html = page(&notice, &[], None, &Redactor::new());
        let text = notice.text();
        let parts = ["DOWN channel inbox", "Since", "mailbox was read", "3 members", "Likely cause", "What changed"];
        let parts = parts.iter().chain(["certificate of mail.shop.example", "Runbook", "Page", "Decided by"].iter());
        let (mut in_html, mut in_text) = (0, 0);
        for part in parts {
            in_html +=
                html[in_html..].find(part).unwrap_or_else(|| panic!("{part} is not there, or too early: {html}"));
            in_text +=
                text[in_text..].find(part).unwrap_or_else(|| panic!("{part} is not there, or too early: {text}"));
        }
        let more = notice_of_many();
        assert!(page(&more, &[], None, &Redactor::new()).contains("… and 9980 more"), "cut after {LISTED}");
    }

    fn notice_of_many() -> Notification {
        notice(NotifyReason::First, "x", 25)
    }
}
