use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::super::escape::tests::is_safe;
use super::*;
use crate::alert::Subject;
use crate::control::Ack;
use crate::detect::Detector;
use crate::incident::root::Resource;
use crate::incident::{Incident, Member, Root};
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
        channel: Some(text.into()),
        took: Duration::from_secs(60),
        detail: Some(text.to_owned()),
        excerpt: Some(text.to_owned()),
        ..StepReport::new(text, "receive", StepStatus::Failed)
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
        severity: Severity::Critical,
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
        run_link: None,
        mark: None,
        is_whole: false,
        handed_over: None,
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

/// Makes the incident one of so many members that has everything that can be said of one.
fn crowd(delivery: &mut Delivery, text: &str, members: u32) {
    let notification = &mut delivery.notification;
    let (since, at) = (notification.incident.since, notification.at);
    let member = |serial: u32| Member {
        subject: Subject::Journey(format!("{serial}{text}").as_str().into()),
        said: text.to_owned(),
        since,
        ended: serial.is_multiple_of(3).then_some(at),
    };
    notification.members = (0..members.min(20)).map(member).collect();
    notification.news = vec![text.to_owned(); 8];
    let incident = &mut notification.incident;
    (incident.members, incident.firing) = (members.max(1), members.max(1));
    if members > 1 {
        let resource = Resource::Label(text.to_owned(), text.to_owned());
        incident.root = Root::Shared { resource, said: text.to_owned() };
        incident.acked = Some(Ack { by: text.to_owned(), at, until: Some(at), note: None });
        incident.quiet = Some(text.to_owned());
        incident.flapping = Some(members);
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
        "actions" => {
            let elements = list(&block["elements"]);
            assert!(!elements.is_empty() && elements.len() <= 25 && block["block_id"].as_str().unwrap().len() <= 255);
            for element in &elements {
                assert!(element["value"].as_str().is_none_or(|value| !value.is_empty() && value.len() <= 2_000));
                assert!(element["url"].as_str().is_none_or(|url| length(url) <= 3_000));
                assert!(element["action_id"].as_str().unwrap().len() <= 255);
            }
            elements.iter().map(|element| (text(&element["text"]), 75)).collect()
        }
        "data_visualization" => {
            let chart = &block["chart"];
            let (series, categories) = (list(&chart["series"]), list(&chart["axis_config"]["categories"]));
            assert!((1..=20).contains(&categories.len()) && (1..=6).contains(&series.len()));
            assert!(
                categories.iter().enumerate().all(|(at, label)| !categories[..at].contains(label)),
                "{categories:?}"
            );
            let word = |value: &Value| (value.as_str().expect("a label is text").to_owned(), 20);
            let mut texts = vec![(block["title"].as_str().unwrap().to_owned(), 50)];
            for one in &series {
                let points = list(&one["data"]);
                assert!(points.iter().map(|point| &point["label"]).eq(&categories), "a value for each category");
                assert!(points.iter().all(|point| point["value"].as_f64().is_some_and(|value| value >= 0.0)));
                texts.push(word(&one["name"]));
                texts.extend(points.iter().map(|point| word(&point["label"])));
            }
            texts.extend(categories.iter().map(word));
            texts
        }
        other => panic!("no limits known for {other}"),
    }
}

/// The text without what we ourselves write around data: code fences and `<https://…|Name>`.
fn data_of(text: &str) -> String {
    let links = regex::Regex::new(r"<https?://[^<>|]*\|(Runbook|Page)>").unwrap();
    links.replace_all(text, "").replace("```\n", "").replace("\n```", "")
}

const DETAILS: [Detail; 4] = [Detail::Full, Detail::NoChart, Detail::NoEvidence, Detail::TextOnly];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_notice_is_within_the_limits_and_carries_no_control_sequence(
        text in "(<!channel>|<@U1\\|x>|@here|```|&|<|>|\\*|\n|\u{202e}|😀|[a-z ]{1,400}){0,40}",
        reason in prop::sample::select(NotifyReason::ALL.to_vec()),
        part in prop::sample::select(vec![Part::Root, Part::Reply]),
        detail in prop::sample::select(DETAILS.to_vec()),
        steps in 0_usize..30,
        longest in prop::sample::select(vec![200, 3_000]),
        members in 0_u32..60,
        has_buttons in any::<bool>(),
        has_good in any::<bool>(),
    ) {
        let text: String = text.chars().cycle().take(longest).collect();
        let mut delivery = delivery(reason, &text, steps);
        crowd(&mut delivery, &text, members);
        delivery.notification.last_good = delivery.notification.report.clone().filter(|_| has_good);
        let redactor = Redactor::new();
        let key = has_buttons.then_some(&b"key"[..]);
        let content = Page { delivery: &delivery, template: None, redactor: &redactor, key }.content(part, detail);
        let content = serde_json::to_value(content).expect("content is JSON");
        let fallback = content["text"].as_str().expect("there is text");
        prop_assert!(!fallback.trim().is_empty() && length(fallback) <= limit::TEXT);
        prop_assert!(is_safe(&data_of(fallback)), "{fallback:?}");
        let own = content["blocks"].as_array().expect("there are blocks");
        let attached = content["attachments"].as_array().expect("there are attachments");
        let attached: Vec<_> = attached.iter().flat_map(|more| more["blocks"].as_array().unwrap()).collect();
        prop_assert!(own.len() + attached.len() <= BLOCKS);
        let can_press = has_buttons && part == Part::Root && detail != Detail::TextOnly;
        let can_run = can_press && steps > 0 && reason != NotifyReason::Resolved;
        let actions = own.iter().filter(|block| block["type"] == "actions").flat_map(|block| block["elements"].as_array());
        let runs = actions.flatten().filter(|button| button["action_id"] == "journeyman_run").count();
        prop_assert_eq!(runs, usize::from(can_run), "whatever else is left out");
        let mut sum = 0;
        for (text, limit) in own.iter().chain(attached).flat_map(texts) {
            prop_assert!(!text.trim().is_empty() && length(&text) <= limit, "{} > {limit}: {text:?}", length(&text));
            prop_assert!(is_safe(&data_of(&text)), "{text:?}");
            sum += length(&text);
        }
        prop_assert!(sum <= ALL_BLOCKS, "{sum} in all");
    }
}

#[test]
fn each_step_down_says_less_and_the_last_still_says_what_is_the_matter() {
    let (delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: None };
    let json = |detail| serde_json::to_string(&page.content(Part::Root, detail)).unwrap();
    let parts = ["data_visualization", "▕", "What came back", "*Since*", "DOWN sms"];
    let shown = |detail| parts.map(|part| json(detail).contains(part));
    assert_eq!(shown(Detail::Full), [true, false, true, true, true]);
    assert_eq!(shown(Detail::NoChart), [false, true, true, true, true]);
    assert_eq!(shown(Detail::NoEvidence), [false, false, false, true, true]);
    assert_eq!(shown(Detail::TextOnly), [false, false, false, false, true]);
    assert!(json(Detail::TextOnly).contains(r#""blocks":[],"attachments":[]"#));
    assert_eq!(Detail::TextOnly.less(), None);
}

#[test]
fn colour_tells_how_bad_it_is_and_the_end_tells_what_it_cost() {
    let redactor = Redactor::new();
    let json = |delivery: &Delivery| {
        let content =
            Page { delivery, template: None, redactor: &redactor, key: None }.content(Part::Root, Detail::Full);
        serde_json::to_string(&content).unwrap()
    };
    let mut firing = delivery(NotifyReason::First, "sms", 1);
    assert!(json(&firing).contains(RED));
    firing.notification.incident.severity = Severity::Warning;
    assert!(json(&firing).contains(AMBER));
    let mut acked = delivery(NotifyReason::Updated, "sms", 1);
    acked.notification.incident.acked =
        Some(Ack { by: "@ada (Slack)".to_owned(), at: acked.notification.at, until: None, note: None });
    assert!(json(&acked).contains(AMBER) && json(&acked).contains("*Acknowledged by* @ada (Slack) at 12:12 UTC"));
    acked.notification.incident.quiet = Some("silenced by ada until 13:00".to_owned());
    assert!(json(&acked).contains(GREY) && json(&acked).contains("*Quiet*: silenced by ada"));
    acked.notification.reason = NotifyReason::Resolved;
    assert!(json(&acked).contains(GREEN) && !json(&acked).contains("Acknowledged"));
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
        let content = Page { delivery: &delivery, template: None, redactor: &redactor, key: None }
            .content(Part::Root, Detail::Full);
        assert!(!serde_json::to_string(&content).unwrap().contains("s3cr3"), "with {padding} before it");
    }
}

#[test]
fn only_addresses_become_links() {
    let (delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: None };
    assert_eq!(
        page.link("Runbook", "https://wiki.example/a?b=1&c=x|y"),
        "<https://wiki.example/a?b=1&amp;c=x%7Cy|Runbook>"
    );
    assert_eq!(page.link("Runbook", "javascript:alert(1)"), "Runbook: javascript:alert(1)");
    assert_eq!(page.link("Runbook", "see <the> binder"), "Runbook: see &lt;the&gt; binder");
}

/// The `action_id`s of the buttons.
fn actions(page: Page<'_>, part: Part) -> Vec<String> {
    let content = serde_json::to_value(page.content(part, Detail::Full)).unwrap();
    let blocks = content["blocks"].as_array().cloned().unwrap_or_default();
    let buttons =
        blocks.iter().filter(|block| block["type"] == "actions").flat_map(|block| block["elements"].as_array());
    buttons.flatten().map(|button| button["action_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn buttons_are_for_what_can_still_be_done() {
    let redactor = Redactor::new();
    let mut delivery = delivery(NotifyReason::First, "sms", 1);
    delivery.notification.link = Some("https://journeyman.example/journeys/sms".to_owned());
    let links = ["journeyman_runbook", "journeyman_page"];
    let shown = |delivery: &Delivery| {
        actions(Page { delivery, template: None, redactor: &redactor, key: Some(b"key") }, Part::Root)
    };
    let run = "journeyman_run";
    assert_eq!(shown(&delivery), ["journeyman_ack", "journeyman_silence", run, links[0], links[1]]);
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: None };
    assert_eq!(actions(page, Part::Root), [""; 0], "nobody would hear that it was pressed");
    assert!(serde_json::to_string(&page.content(Part::Root, Detail::Full)).unwrap().contains("|Runbook>"));
    let page = Page { key: Some(b"key"), ..page };
    assert_eq!(actions(page, Part::Reply), [""; 0]);
    let at = delivery.notification.at;
    delivery.notification.incident.acked = Some(Ack { by: "ada".to_owned(), at, until: None, note: None });
    assert_eq!(shown(&delivery), ["journeyman_silence", run, links[0], links[1]]);
    delivery.notification.incident.quiet = Some("silenced".to_owned());
    assert_eq!(shown(&delivery), [run, links[0], links[1]]);
    let report = delivery.notification.report.take();
    assert_eq!(shown(&delivery), links, "there is no run to be run again");
    delivery.notification.report = report;
    delivery.notification.reason = NotifyReason::Resolved;
    delivery.notification.runbook = Some("the red binder".to_owned());
    assert_eq!(shown(&delivery), [links[1]]);
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: Some(b"key") };
    assert!(
        serde_json::to_string(&page.content(Part::Root, Detail::Full)).unwrap().contains("Runbook: the red binder")
    );
}

#[test]
fn a_button_is_a_grant_for_this_incident_and_a_week() {
    let (delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: Some(b"key") };
    let content = serde_json::to_value(page.content(Part::Root, Detail::Full)).unwrap();
    let buttons = content["blocks"].as_array().unwrap().iter().filter_map(|block| block["elements"].as_array());
    let values: Vec<_> = buttons.flatten().filter_map(|button| button["value"].as_str()).collect();
    let at = delivery.notification.at;
    let grants = values.into_iter().map(|value| Grant::verify(value, b"key", at).unwrap());
    let incident = "0123456789ab".to_owned();
    let wanted =
        Deed::ALL.iter().map(|deed| Grant { deed: *deed, incident: incident.clone(), until: later(at, GRANT_LIFE) });
    assert_eq!(grants.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn members_are_cut_with_how_many_more_there_are() {
    let (mut delivery, redactor) = (delivery(NotifyReason::First, "sms", 1), Redactor::new());
    crowd(&mut delivery, "-journey", 27);
    let members = |delivery: &Delivery| Page { delivery, template: None, redactor: &redactor, key: None }.members();
    let shown = members(&delivery);
    assert!(shown.starts_with("✓ 0-journey: -journey\n✗ 1-journey"), "{shown}");
    assert!(shown.ends_with("\n… and 7 more"), "{shown}");
    crowd(&mut delivery, &"x".repeat(200), 27);
    let shown = members(&delivery);
    let lines = shown.lines().count();
    assert!(lines < 20 && shown.ends_with(&format!("… and {} more", 27 - (lines - 1))), "{shown}");
    crowd(&mut delivery, "x", 1);
    assert_eq!(members(&delivery), "");
}

#[test]
fn what_is_new_is_told_in_the_thread_and_the_message_says_how_it_stands() {
    let (mut delivery, redactor) = (delivery(NotifyReason::Updated, "sms", 1), Redactor::new());
    delivery.notification.news = vec!["acknowledged by @ada (Slack)".to_owned()];
    let page = Page { delivery: &delivery, template: None, redactor: &redactor, key: None };
    let json = |part| serde_json::to_string(&page.content(part, Detail::Full)).unwrap();
    let (root, reply) = (json(Part::Root), json(Part::Reply));
    assert!(
        reply.contains(r"*DOWN sms*\nacknowledged by @ada (Slack)") && !reply.contains("What came back"),
        "{reply}"
    );
    assert!(root.contains("still, for 12m: failed (not_received)") && root.contains("*News*: acknowledged"), "{root}");
}

#[test]
fn bars_lead_up_to_the_step_that_failed_and_name_what_was_not_reached() {
    let mut delivery = delivery(NotifyReason::First, "sms", 30);
    let report = delivery.notification.report.as_mut().unwrap();
    for (at, step) in report.steps.iter_mut().enumerate() {
        step.name = format!("{}-step-{at}", "same-beginning-of-a-name").as_str().into();
        step.status = match at {
            25 => StepStatus::Failed,
            26.. => StepStatus::Skipped,
            _ => StepStatus::Passed,
        };
    }
    let block = chart::bars(report, None, escape::line).unwrap();
    let block = serde_json::to_value(block).unwrap();
    let categories = block["chart"]["axis_config"]["categories"].as_array().unwrap();
    assert_eq!(categories.len(), 20);
    assert_eq!(categories[19], "26 same-beginning-o…");
    report.steps.truncate(27);
    report.steps.drain(..20);
    report.steps[6].name = "arrive".into();
    let block = chart::bars(report, None, escape::line).unwrap();
    assert_eq!(serde_json::to_value(block).unwrap()["title"], "Seconds per step; not reached: arrive");
}
