//! A notice as Slack shows it: pure rendering to blocks, within Slack's limits, from data alone.
//!
//! What people look for first, and the buttons, are the message's own blocks. The rest hangs in an attachment, because only
//! attachments have a colour bar, and Slack folds long ones away.
//! <https://docs.slack.dev/messaging/formatting-message-text#attachments>

mod chart;
mod facts;

use std::collections::HashMap;
use std::time::Duration;

use slack_morphism::prelude::{
    SlackActionBlockElement, SlackActionsBlock, SlackBlock, SlackBlockButtonElement, SlackBlockMarkDownText,
    SlackBlockPlainText, SlackBlockText, SlackContextBlock, SlackContextBlockElement, SlackHeaderBlock,
    SlackMessageAttachment, SlackMessageContent, SlackMessageMetadata, SlackSectionBlock,
};
use url::Url;

use super::escape::{self, length};
use crate::control::grant::{Deed, Grant};
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::journey::report::Report;
use crate::notifier::Delivery;
use crate::notifier::template::{Fault, Template};
use crate::secret::Redactor;
use crate::time::later;

/// Names our metadata among those of other apps.
pub(super) const EVENT_TYPE: &str = "journeyman_notice";
/// Begins the `action_id` of each button of ours.
pub(super) const ACTION: &str = "journeyman_";
/// A button works for so long after the notice that shows it; an incident's message is brought up to date more often than that.
const GRANT_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Slack's limits. <https://docs.slack.dev/reference/block-kit/blocks>
mod limit {
    /// Characters of a header.
    pub(super) const HEADER: usize = 150;
    /// Fields of a section.
    pub(super) const FIELDS: usize = 10;
    /// Elements of a context.
    pub(super) const CONTEXT: usize = 10;
    /// Characters of a button's URL.
    pub(super) const BUTTON_URL: usize = 3_000;
    /// Characters of a block's id.
    pub(super) const BLOCK_ID: usize = 255;
    /// Characters of `text` in `chat.update`, the stricter of the two methods.
    pub(super) const TEXT: usize = 4_000;
}

// Our own shares, so that all blocks together stay below the 13 200 characters at which Slack answers `msg_blocks_too_long`.
// That limit is not documented: https://github.com/slackapi/bolt-js/issues/2509
const HEADLINE: usize = 600;
const FIELD_NAME: usize = 20;
const FIELD_VALUE: usize = 300;
const WATERFALL: usize = 2_000;
const EVIDENCE: usize = 600;
const LINK: usize = 600;
const CONTEXT: usize = 120;
const INSTEAD: usize = 300;
const CAUSE: usize = 400;
const NEWS: usize = 600;
const STANDING: usize = 200;
const MEMBERS: usize = 1_500;
const MEMBER: usize = 150;
/// Cells of a bar; wider ones wrap in Slack's window.
const BAR: usize = 16;

const RED: &str = "#d32f2f";
const AMBER: &str = "#f9a825";
const GREEN: &str = "#2e7d32";
const GREY: &str = "#9e9e9e";

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The incident's message in the channel, which always shows how things stand.
    Root,
    /// A reply in its thread, which tells what changed.
    Reply,
}

/// How much is said; what Slack will not take is left out step by step, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything.
    Full,
    /// The bars as text: their block is new, and Slack may not take it everywhere.
    NoChart,
    /// No bars, no members, nothing of what came back.
    NoEvidence,
    /// No blocks at all.
    TextOnly,
}

impl Detail {
    /// The next step down.
    pub(super) fn less(self) -> Option<Detail> {
        match self {
            Detail::Full => Some(Detail::NoChart),
            Detail::NoChart => Some(Detail::NoEvidence),
            Detail::NoEvidence => Some(Detail::TextOnly),
            Detail::TextOnly => None,
        }
    }
}

/// One delivery, to be rendered.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    /// What to tell.
    pub(super) delivery: &'a Delivery,
    /// A headline of people's own.
    pub(super) template: Option<&'a Template>,
    /// Goes over every text before it is escaped or cut, so that no half of a secret is left.
    pub(super) redactor: &'a Redactor,
    /// Signs what buttons may do; without there are links and no buttons, for nobody would hear that one was pressed.
    pub(super) key: Option<&'a [u8]>,
}

impl Page<'_> {
    /// The message's content.
    ///
    /// Blocks and attachments are always there, if empty: an edit keeps the attachments that it does not name.
    /// <https://docs.slack.dev/reference/methods/chat.update>
    pub(super) fn content(self, part: Part, detail: Detail) -> SlackMessageContent {
        if detail == Detail::TextOnly {
            return SlackMessageContent::new().with_text(self.plain()).with_blocks(vec![]).with_attachments(vec![]);
        }
        let more =
            SlackMessageAttachment::new().with_color(self.color().to_owned()).with_blocks(self.more(part, detail));
        let top = self.top(part, detail);
        SlackMessageContent::new().with_text(self.headline()).with_blocks(top).with_attachments(vec![more])
    }

    /// By what the message is found again.
    pub(super) fn metadata(self) -> SlackMessageMetadata {
        let notification = &self.delivery.notification;
        let ids = [("incident", &notification.incident.id), ("delivery", &self.delivery.id)];
        let mut payload: HashMap<_, _> = ids.into_iter().map(|(name, id)| (name.to_owned(), id.clone())).collect();
        // The text need not say which run it is about, and who reads the channel may know it by that.
        payload.extend(notification.report.as_ref().map(|report| ("run".to_owned(), report.token.to_string())));
        SlackMessageMetadata::new(EVENT_TYPE.to_owned()).with_event_payload(payload)
    }

    /// The whole notice in one line, for push messages and screen readers.
    pub(super) fn headline(self) -> String {
        // A template that fails after all gives way to what is built in: people are told in any case.
        let own = self.template.and_then(|template| {
            let rendered = template.render(self.delivery, &[], None, self.redactor);
            let complain = |fault: &Fault| {
                tracing::warn!(delivery = %self.delivery.id, %fault, "a template failed; the built-in text is told");
            };
            rendered.inspect_err(complain).ok().filter(|text| !text.trim().is_empty())
        });
        let notification = &self.delivery.notification;
        self.line(&own.map_or_else(|| notification.headline(), |own| notification.marked(own)), HEADLINE)
    }

    /// The notice as text, for when Slack takes no blocks.
    fn plain(self) -> String {
        let mut lines = vec![format!("*{}*", self.headline())];
        lines.extend(self.instead());
        lines.extend(self.standing());
        lines.extend(self.fields().into_iter().map(|(name, value)| format!("{name}: {value}")));
        lines.extend(self.links(|_| true));
        lines.push(self.ids().join(" · "));
        let mut out = String::new();
        for line in lines {
            // Whole lines only: a cut could halve an entity or a link.
            if length(&out) + length(&line) < limit::TEXT {
                out.push_str(&line);
                out.push('\n');
            }
        }
        out
    }

    fn top(self, part: Part, detail: Detail) -> Vec<SlackBlock> {
        let notification = &self.delivery.notification;
        let title = self.line(&notification.title(), limit::HEADER);
        let mut verdict = self.line(&self.verdict(part), HEADLINE);
        if verdict.trim().is_empty() {
            // Slack takes no empty section.
            verdict = self.headline();
        }
        if part == Part::Reply {
            return vec![section(format!("*{title}*\n{verdict}"))];
        }
        let header = SlackBlockPlainText::new(title);
        let mut blocks = vec![SlackHeaderBlock::new(header.into()).into(), section(verdict)];
        if let Some(report) = notification.report.as_ref().filter(|_| detail == Detail::Full && !self.is_over()) {
            let good = notification.last_good.as_ref();
            blocks.extend(chart::bars(report, good, |text, limit| self.line(text, limit)));
        }
        blocks.extend(self.buttons());
        blocks
    }

    fn more(self, part: Part, detail: Detail) -> Vec<SlackBlock> {
        let mut blocks = Vec::new();
        let notification = &self.delivery.notification;
        if part == Part::Root {
            let fields = self.fields().into_iter().map(|(name, value)| mrkdwn(format!("*{name}*\n{value}")).into());
            let fields: Vec<SlackBlockText> = fields.take(limit::FIELDS).collect();
            blocks.push(SlackSectionBlock::new().with_fields(fields).into());
            blocks.extend(self.standing().into_iter().map(section));
        }
        let members = self.members();
        if part == Part::Root && detail != Detail::NoEvidence && !members.is_empty() {
            blocks.push(section(members));
        }
        // The message has its bars, unless they are left out.
        let is_shown = match part {
            Part::Root => detail == Detail::NoChart && !self.is_over(),
            Part::Reply => detail == Detail::Full && notification.reason != NotifyReason::Updated,
        };
        if let Some(waterfall) = notification.waterfall(BAR).filter(|_| is_shown) {
            blocks.push(section(self.code(&waterfall, WATERFALL)));
        }
        let excerpt = notification.report.as_ref().and_then(Report::failed_step).and_then(|step| step.excerpt.as_ref());
        let is_news = part == Part::Reply && notification.reason == NotifyReason::Updated;
        if let Some(excerpt) = excerpt.filter(|_| detail != Detail::NoEvidence && !is_news) {
            blocks.push(section(format!("*What came back*\n{}", self.code(excerpt, EVIDENCE))));
        }
        let links = self.links(|link| part == Part::Reply || self.button_url(link).is_none());
        if !links.is_empty() {
            blocks.push(section(links.join("  ·  ")));
        }
        blocks.extend(self.instead().map(|line| context(vec![line])));
        blocks.push(context(self.ids()));
        blocks
    }

    /// What can be done with a click. What is done already, or over, has no button.
    fn buttons(self) -> Option<SlackBlock> {
        let notification = &self.delivery.notification;
        // There is nothing to look after.
        let key = self.key.filter(|_| notification.mark.is_none())?;
        let incident = &notification.incident;
        let until = later(notification.at, GRANT_LIFE);
        let deed = |deed: Deed, label: &str| {
            let value = Grant { deed, incident: incident.id.clone(), until }.sign(key);
            button(deed.as_str(), label).with_value(value).into()
        };
        let mut buttons: Vec<SlackActionBlockElement> = Vec::new();
        if !self.is_over() && incident.acked.is_none() {
            buttons.push(deed(Deed::Acknowledge, "Acknowledge"));
        }
        if !self.is_over() && incident.quiet.is_none() {
            buttons.push(deed(Deed::Silence, "Silence 1 h"));
        }
        if !self.is_over() && notification.report.is_some() {
            buttons.push(deed(Deed::RunAgain, "Run again"));
        }
        for (name, link) in [("Runbook", &notification.runbook), ("Page", &notification.link)] {
            let url = link.as_ref().and_then(|link| self.button_url(link));
            buttons.extend(url.map(|url| button(&name.to_lowercase(), name).with_url(url).into()));
        }
        // A block that is edited is to have another id. <https://docs.slack.dev/reference/block-kit/blocks/actions-block>
        let id = escape::line(&self.delivery.id, limit::BLOCK_ID);
        (!buttons.is_empty()).then(|| SlackActionsBlock::new(buttons).with_block_id(id.into()).into())
    }

    fn color(self) -> &'static str {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        match (notification.reason, notification.severity()) {
            _ if notification.handed_over.is_some() => GREY,
            (NotifyReason::Resolved, _) => GREEN,
            _ if incident.quiet.is_some() || notification.mark.is_some() => GREY,
            _ if incident.acked.is_some() => AMBER,
            (_, Severity::Critical) => RED,
            (_, Severity::Warning) => AMBER,
        }
    }

    fn is_over(self) -> bool {
        self.delivery.notification.reason == NotifyReason::Resolved
    }

    /// For whom this notifier stands in.
    fn instead(self) -> Option<String> {
        let (other, said) = self.delivery.instead_of.as_ref()?;
        Some(self.line(&format!("Told here because {other} did not take it: {said}"), INSTEAD))
    }

    fn links(self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let notification = &self.delivery.notification;
        let links = [("Runbook", &notification.runbook), ("Page", &notification.link)];
        let links = links.into_iter().filter_map(|(name, link)| Some((name, link.as_ref()?)));
        links.filter(|(_, link)| is_wanted(link)).map(|(name, link)| self.link(name, link)).collect()
    }

    /// What a link's button opens; `None` if there are no buttons, or it is nothing that can be opened.
    fn button_url(self, link: &str) -> Option<Url> {
        self.key?;
        self.address(link).filter(|url| length(url.as_str()) <= limit::BUTTON_URL)
    }

    /// A link if it is one that people can follow, otherwise what it says.
    fn link(self, name: &str, to: &str) -> String {
        // Within `<…|…>` a bar or an angle bracket would end the address.
        let address =
            self.address(to).map(|url| url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E"));
        match address.map(|address| address.replace('&', "&amp;")).filter(|address| length(address) <= LINK) {
            Some(address) => format!("<{address}|{name}>"),
            None => format!("{name}: {}", self.line(to, LINK)),
        }
    }

    fn address(self, to: &str) -> Option<Url> {
        Url::parse(&self.redactor.clean(to)).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
    }

    fn line(self, text: &str, limit: usize) -> String {
        escape::line(&self.redactor.clean(text), limit)
    }

    fn code(self, text: &str, limit: usize) -> String {
        format!("```\n{}\n```", escape::block(&self.redactor.clean(text), limit))
    }
}

fn button(action: &str, label: &str) -> SlackBlockButtonElement {
    SlackBlockButtonElement::new(SlackBlockPlainText::new(label.to_owned()).into())
        .with_action_id(format!("{ACTION}{action}").into())
}

fn section(text: String) -> SlackBlock {
    SlackSectionBlock::new().with_text(mrkdwn(text).into()).into()
}

fn context(lines: Vec<String>) -> SlackBlock {
    let elements: Vec<SlackContextBlockElement> = lines.into_iter().map(|line| mrkdwn(line).into()).collect();
    SlackContextBlock::new(elements.into_iter().take(limit::CONTEXT).collect()).into()
}

/// Verbatim, so that Slack makes no links and mentions of names that happen to be in data.
fn mrkdwn(text: String) -> SlackBlockMarkDownText {
    SlackBlockMarkDownText::new(text).with_verbatim(true)
}

#[cfg(test)]
mod tests;
