//! A notice as Slack shows it: pure rendering to blocks, within Slack's limits, from data alone.
//!
//! The header and the verdict are the message's own blocks. The rest hangs in an attachment, because only attachments have a
//! colour bar, and Slack folds long ones away. <https://docs.slack.dev/messaging/formatting-message-text#attachments>

use std::collections::HashMap;

use slack_morphism::prelude::{
    SlackBlock, SlackBlockMarkDownText, SlackBlockPlainText, SlackBlockText, SlackContextBlock,
    SlackContextBlockElement, SlackHeaderBlock, SlackMessageAttachment, SlackMessageContent, SlackMessageMetadata,
    SlackSectionBlock,
};
use url::Url;

use super::escape::{self, length};
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::journey::report::Report;
use crate::notifier::Delivery;
use crate::notifier::template::{Fault, Template};
use crate::secret::Redactor;
use crate::time::{Human, between};

/// Names our metadata among those of other apps.
pub(super) const EVENT_TYPE: &str = "journeyman_notice";

/// Slack's limits. <https://docs.slack.dev/reference/block-kit/blocks>
mod limit {
    /// Characters of a header.
    pub(super) const HEADER: usize = 150;
    /// Fields of a section.
    pub(super) const FIELDS: usize = 10;
    /// Elements of a context.
    pub(super) const CONTEXT: usize = 10;
    /// Characters of `text` in `chat.update`, the stricter of the two methods.
    pub(super) const TEXT: usize = 4_000;
}

// Our own shares, so that all blocks together stay below the 13 200 characters at which Slack answers `msg_blocks_too_long`.
// That limit is not documented: https://github.com/slackapi/bolt-js/issues/2509
const HEADLINE: usize = 600;
const FIELD_NAME: usize = 20;
const FIELD_VALUE: usize = 400;
const WATERFALL: usize = 2_900;
const EVIDENCE: usize = 600;
const LINK: usize = 600;
const CONTEXT: usize = 120;
const INSTEAD: usize = 300;
/// Cells of a bar; wider ones wrap in Slack's window.
const BAR: usize = 16;

const RED: &str = "#d32f2f";
const AMBER: &str = "#f9a825";
const GREEN: &str = "#2e7d32";

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
    /// All but the waterfall.
    NoWaterfall,
    /// All but the waterfall and what came back.
    NoEvidence,
    /// No blocks at all.
    TextOnly,
}

impl Detail {
    /// The next step down.
    pub(super) fn less(self) -> Option<Detail> {
        match self {
            Detail::Full => Some(Detail::NoWaterfall),
            Detail::NoWaterfall => Some(Detail::NoEvidence),
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
        SlackMessageContent::new().with_text(self.headline()).with_blocks(self.top(part)).with_attachments(vec![more])
    }

    /// By what the message is found again.
    pub(super) fn metadata(self) -> SlackMessageMetadata {
        let ids = [("incident", &self.delivery.notification.incident.id), ("delivery", &self.delivery.id)];
        let payload: HashMap<_, _> = ids.into_iter().map(|(name, id)| (name.to_owned(), id.clone())).collect();
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
        self.line(&own.unwrap_or_else(|| self.delivery.notification.headline()), HEADLINE)
    }

    /// The notice as text, for when Slack takes no blocks.
    fn plain(self) -> String {
        let mut lines = vec![format!("*{}*", self.headline())];
        lines.extend(self.instead());
        lines.extend(self.facts().into_iter().map(|(name, value)| format!("{name}: {value}")));
        lines.extend(self.links());
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

    fn top(self, part: Part) -> Vec<SlackBlock> {
        let notification = &self.delivery.notification;
        let title = format!("{} {}", notification.state_word(), notification.subject);
        match part {
            Part::Root => {
                let header = SlackBlockPlainText::new(self.line(&title, limit::HEADER));
                vec![SlackHeaderBlock::new(header.into()).into(), section(self.line(&self.verdict(), HEADLINE))]
            }
            Part::Reply => {
                let title = self.line(&title, limit::HEADER);
                vec![section(format!("*{title}*\n{}", self.line(&self.verdict(), HEADLINE)))]
            }
        }
    }

    fn more(self, part: Part, detail: Detail) -> Vec<SlackBlock> {
        let mut blocks = Vec::new();
        if part == Part::Root {
            let fields = self.facts().into_iter().map(|(name, value)| mrkdwn(format!("*{name}*\n{value}")).into());
            let fields: Vec<SlackBlockText> = fields.take(limit::FIELDS).collect();
            blocks.push(SlackSectionBlock::new().with_fields(fields).into());
        }
        let notification = &self.delivery.notification;
        if let Some(waterfall) = notification.waterfall(BAR).filter(|_| detail == Detail::Full) {
            blocks.push(section(self.code(&waterfall, WATERFALL)));
        }
        let excerpt = notification.report.as_ref().and_then(Report::failed_step).and_then(|step| step.excerpt.as_ref());
        if let Some(excerpt) = excerpt.filter(|_| detail != Detail::NoEvidence) {
            blocks.push(section(format!("*What came back*\n{}", self.code(excerpt, EVIDENCE))));
        }
        let links = self.links();
        if !links.is_empty() {
            blocks.push(section(links.join("  ·  ")));
        }
        blocks.extend(self.instead().map(|line| context(vec![line])));
        blocks.push(context(self.ids()));
        blocks
    }

    fn color(self) -> &'static str {
        let notification = &self.delivery.notification;
        let now = notification.incident.detectors.iter().map(|detector| detector.severity()).max();
        match (notification.reason, now.unwrap_or(notification.incident.worst)) {
            (NotifyReason::Resolved, _) => GREEN,
            (_, Severity::Critical) => RED,
            (_, Severity::Warning) => AMBER,
        }
    }

    /// What is the matter, without the name, which stands above it.
    fn verdict(self) -> String {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        let lasted = Human(between(incident.since, notification.at));
        let verdict = notification.report.as_ref().map_or_else(|| notification.decision.clone(), Report::verdict_line);
        match notification.reason {
            NotifyReason::Resolved => format!("well again after {lasted}, {} bad runs", incident.bad_runs),
            NotifyReason::Repeat => format!("still, for {lasted}: {verdict}"),
            NotifyReason::Updated => notification.news.join("; "),
            NotifyReason::First | NotifyReason::Worse => verdict,
        }
    }

    /// Facts for fields: those that are not in the context line, escaped.
    fn facts(self) -> Vec<(String, String)> {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        let mut facts = Vec::new();
        if notification.reason == NotifyReason::Resolved {
            facts.push(("Lasted", Human(between(incident.since, notification.at)).to_string()));
            facts.push(("Runs lost", incident.bad_runs.to_string()));
        }
        let in_context = ["Run", "Trace", "Seen from", "Incident"];
        facts.extend(notification.facts().into_iter().filter(|(name, _)| !in_context.contains(name)));
        facts.into_iter().map(|(name, value)| (self.line(name, FIELD_NAME), self.line(&value, FIELD_VALUE))).collect()
    }

    /// What identifies the notice, for whoever looks into logs and traces.
    fn ids(self) -> Vec<String> {
        let notification = &self.delivery.notification;
        let mut ids = Vec::new();
        if let Some(report) = &notification.report {
            ids.push(("run", report.token.to_string()));
            ids.push(("trace", report.token.trace_id()));
        }
        ids.extend(notification.location.clone().map(|location| ("seen from", location)));
        ids.push(("delivery", self.delivery.id.clone()));
        ids.into_iter().map(|(name, id)| format!("{name} {}", self.line(&id, CONTEXT))).collect()
    }

    /// For whom this notifier stands in.
    fn instead(self) -> Option<String> {
        let (other, said) = self.delivery.instead_of.as_ref()?;
        Some(self.line(&format!("Told here because {other} did not take it: {said}"), INSTEAD))
    }

    fn links(self) -> Vec<String> {
        let notification = &self.delivery.notification;
        let links = [("Runbook", &notification.runbook), ("Page", &notification.link)];
        links.into_iter().filter_map(|(name, link)| Some(self.link(name, link.as_ref()?))).collect()
    }

    /// A link if it is one that people can follow, otherwise what it says.
    fn link(self, name: &str, to: &str) -> String {
        let clean = self.redactor.clean(to);
        let url = Url::parse(&clean).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // Within `<…|…>` a bar or an angle bracket would end the address.
        let address = url.map(|url| url.as_str().replace('|', "%7C").replace('<', "%3C").replace('>', "%3E"));
        match address.map(|address| address.replace('&', "&amp;")).filter(|address| length(address) <= LINK) {
            Some(address) => format!("<{address}|{name}>"),
            None => format!("{name}: {}", self.line(to, LINK)),
        }
    }

    fn line(self, text: &str, limit: usize) -> String {
        escape::line(&self.redactor.clean(text), limit)
    }

    fn code(self, text: &str, limit: usize) -> String {
        format!("```\n{}\n```", escape::block(&self.redactor.clean(text), limit))
    }
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
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::escape::tests::is_safe;
    use super::*;
    use crate::alert::Subject;
    use crate::detect::Detector;
    use crate::incident::{Incident, Root};
    use crate::journey::outcome::{Cause, Outcome};
    use crate::journey::report::{StepReport, StepStatus};
    use crate::journey::token::Token;
    use crate::notice::Notification;

    /// <https://docs.slack.dev/reference/block-kit/blocks>
    const SECTION: usize = 3_000;
    const FIELD: usize = 2_000;
    const BLOCKS: usize = 50;
    const ALL_BLOCKS: usize = 13_200;

    fn step(text: &str) -> StepReport {
        StepReport {
            name: text.into(),
            verb: "receive".into(),
            channel: Some(text.into()),
            at: Duration::ZERO,
            took: Duration::from_secs(60),
            status: StepStatus::Failed,
            detail: Some(text.to_owned()),
            ack: None,
            phases: vec![],
            hops: vec![],
            checks: vec![],
            excerpt: Some(text.to_owned()),
            seen: Vec::new(),
        }
    }

    fn delivery(reason: NotifyReason, text: &str, steps: usize) -> Delivery {
        let since: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
        let report = Report {
            journey: text.into(),
            token: Token::from_bits(7),
            slot: since,
            started: since,
            outcome: Outcome::Failed { step: text.into(), cause: Cause::NotReceived },
            latency: Duration::from_secs(60),
            lateness: Duration::ZERO,
            steps: vec![step(text); steps],
            beneath: None,
            note: None,
            configuration: String::new(),
            version: String::new(),
        };
        let incident = Incident {
            detectors: [Detector::Down].into(),
            worst: Severity::Critical,
            sequence: 1,
            bad_runs: 7,
            members: 1,
            firing: 1,
            ..Incident::new("0123456789ab".to_owned(), since, Root::Alone(Subject::Journey("sms".into())))
        };
        let notification = Notification {
            reason,
            incident,
            at: crate::time::later(since, Duration::from_secs(720)),
            subject: text.to_owned(),
            members: Vec::new(),
            news: Vec::new(),
            is_whole: false,
            owner: Some(text.to_owned()),
            runbook: Some(format!("https://wiki.example/{text}?a=1&b=<2>|3")),
            labels: [(text.to_owned(), text.to_owned())].into(),
            location: Some(text.to_owned()),
            budget: Some(Duration::from_secs(5)),
            deadline: Some(Duration::from_secs(60)),
            decision: text.to_owned(),
            report: (steps > 0).then_some(report),
            last_good: None,
            objective: Some(text.to_owned()),
            link: Some(text.to_owned()),
            ack_link: None,
        };
        Delivery {
            id: "0123456789ab.1.chat".to_owned(),
            attempt: 1,
            is_ambiguous: false,
            notification,
            root: None,
            instead_of: Some((text.to_owned(), text.to_owned())),
        }
    }

    /// Every `text` of a block, with the length that Slack allows it.
    fn texts(block: &Value) -> Vec<(String, usize)> {
        let text = |value: &Value| value["text"].as_str().expect("a text object has text").to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        match block["type"].as_str().expect("a block has a type") {
            "header" => vec![(text(&block["text"]), limit::HEADER)],
            "section" => {
                let fields = list(&block["fields"]);
                assert!(fields.len() <= limit::FIELDS);
                let own = block.get("text").map(|own| (text(own), SECTION));
                own.into_iter().chain(fields.iter().map(|field| (text(field), FIELD))).collect()
            }
            "context" => {
                let elements = list(&block["elements"]);
                assert!(!elements.is_empty() && elements.len() <= limit::CONTEXT);
                elements.iter().map(|element| (text(element), FIELD)).collect()
            }
            other => panic!("no limits known for {other}"),
        }
    }

    /// The text without what we ourselves write around data: code fences and `<https://…|Name>`.
    fn data_of(text: &str) -> String {
        let links = regex::Regex::new(r"<https?://[^<>|]*\|(Runbook|Page)>").unwrap();
        links.replace_all(text, "").replace("```\n", "").replace("\n```", "")
    }

    const REASONS: [NotifyReason; 4] =
        [NotifyReason::First, NotifyReason::Worse, NotifyReason::Repeat, NotifyReason::Resolved];
    const DETAILS: [Detail; 4] = [Detail::Full, Detail::NoWaterfall, Detail::NoEvidence, Detail::TextOnly];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_notice_is_within_the_limits_and_carries_no_control_sequence(
            text in "(<!channel>|<@U1\\|x>|@here|```|&|<|>|\\*|\n|\u{202e}|😀|[a-z ]{1,400}){0,40}",
            reason in prop::sample::select(REASONS.to_vec()),
            part in prop::sample::select(vec![Part::Root, Part::Reply]),
            detail in prop::sample::select(DETAILS.to_vec()),
            steps in 0_usize..30,
            longest in prop::sample::select(vec![200, 3_000]),
        ) {
            let text: String = text.chars().cycle().take(longest).collect();
            let delivery = delivery(reason, &text, steps);
            let redactor = Redactor::new();
            let content = Page { delivery: &delivery, template: None, redactor: &redactor }.content(part, detail);
            let content = serde_json::to_value(content).expect("content is JSON");
            let fallback = content["text"].as_str().expect("there is text");
            prop_assert!(!fallback.trim().is_empty() && length(fallback) <= limit::TEXT);
            prop_assert!(is_safe(&data_of(fallback)), "{fallback:?}");
            let own = content["blocks"].as_array().expect("there are blocks");
            let attached = content["attachments"].as_array().expect("there are attachments");
            let attached: Vec<_> = attached.iter().flat_map(|more| more["blocks"].as_array().unwrap()).collect();
            prop_assert!(own.len() + attached.len() <= BLOCKS);
            let mut sum = 0;
            for (text, limit) in own.iter().chain(attached).flat_map(texts) {
                prop_assert!(!text.is_empty() && length(&text) <= limit, "{} > {limit}: {text:?}", length(&text));
                prop_assert!(is_safe(&data_of(&text)), "{text:?}");
                sum += length(&text);
            }
            prop_assert!(sum <= ALL_BLOCKS, "{sum} in all");
        }
    }

    #[test]
    fn each_step_down_says_less_and_the_last_still_says_what_is_the_matter() {
        let (delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
        let page = Page { delivery: &delivery, template: None, redactor: &redactor };
        let json = |detail| serde_json::to_string(&page.content(Part::Root, detail)).unwrap();
        let parts = ["▕", "What came back", "*Since*", "DOWN sms"];
        let shown = |detail| parts.map(|part| json(detail).contains(part));
        assert_eq!(shown(Detail::Full), [true, true, true, true]);
        assert_eq!(shown(Detail::NoWaterfall), [false, true, true, true]);
        assert_eq!(shown(Detail::NoEvidence), [false, false, true, true]);
        assert_eq!(shown(Detail::TextOnly), [false, false, false, true]);
        assert!(json(Detail::TextOnly).contains(r#""blocks":[],"attachments":[]"#));
        assert_eq!(Detail::TextOnly.less(), None);
    }

    #[test]
    fn colour_tells_how_bad_it_is_and_the_end_tells_what_it_cost() {
        let redactor = Redactor::new();
        let json = |delivery: &Delivery| {
            let content = Page { delivery, template: None, redactor: &redactor }.content(Part::Root, Detail::Full);
            serde_json::to_string(&content).unwrap()
        };
        let mut firing = delivery(NotifyReason::First, "sms", 1);
        assert!(json(&firing).contains(RED));
        firing.notification.incident.detectors = [Detector::Slow].into();
        assert!(json(&firing).contains(AMBER));
        let resolved = json(&delivery(NotifyReason::Resolved, "sms", 1));
        for part in [GREEN, "WELL AGAIN sms", r"*Lasted*\n12m", r"*Runs lost*\n7"] {
            assert!(resolved.contains(part), "{part} is missing: {resolved}");
        }
    }

    #[test]
    fn a_secret_is_taken_out_before_anything_is_cut() {
        let redactor = Redactor::new();
        let secret = "s3cr3t".repeat(40);
        redactor.add(&secret);
        // The secret begins just before the limit of whatever shows it.
        for padding in 0..620 {
            let delivery = delivery(NotifyReason::First, &format!("{}{secret}", "x".repeat(padding)), 1);
            let content =
                Page { delivery: &delivery, template: None, redactor: &redactor }.content(Part::Root, Detail::Full);
            assert!(!serde_json::to_string(&content).unwrap().contains("s3cr3"), "with {padding} before it");
        }
    }

    #[test]
    fn only_addresses_become_links() {
        let (delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
        let page = Page { delivery: &delivery, template: None, redactor: &redactor };
        assert_eq!(
            page.link("Runbook", "https://wiki.example/a?b=1&c=x|y"),
            "<https://wiki.example/a?b=1&amp;c=x%7Cy|Runbook>"
        );
        assert_eq!(page.link("Runbook", "javascript:alert(1)"), "Runbook: javascript:alert(1)");
        assert_eq!(page.link("Runbook", "see <the> binder"), "Runbook: see &lt;the&gt; binder");
    }
}
