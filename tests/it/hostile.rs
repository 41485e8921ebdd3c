//! What a watched system says goes to people, by every medium that there is. One list of what an attacker would have it say, one test
//! over all media: none may carry it on as anything but text.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use journeyman::app::preview::preview;
use journeyman::config::load_text;
use journeyman::control::Ack;
use journeyman::incident::NotifyReason;
use journeyman::journey::expect::Check;
use journeyman::journey::message::Hop;
use journeyman::journey::outcome::Cause;
use journeyman::journey::report::Report;
use journeyman::journey::seen::{Seen, What};
use journeyman::notice::Notification;
use journeyman::text::is_hidden;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::http_pages::stage::{CALM, Stage, journey, shown};
use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::mail::Mail;
use crate::support::notices::{failed_run, notification};
use crate::support::table::Table;
use crate::support::{Scratch, block_on, wait_for};

/// What an attacker would have us say, and the words by which it is found again if it got through as what it is.
const CORPUS: [(&str, &str); 24] = [
    ("a script", "<script>alert(1)</script>"),
    ("an image with a handler", "<img src=x onerror=alert(1)>"),
    ("the end of an attribute", "\"><svg onload=alert(1)>"),
    ("the end of an attribute in single quotes", "' onmouseover='alert(1)"),
    ("the end of a style", "</style><script>alert(2)</script>"),
    ("the end of a comment", "--><script>alert(3)</script>"),
    ("an entity", "&lt;script&gt;alert(4)&lt;/script&gt;"),
    ("a template of ours", "{{ 7 * 7 }}{% for x in [1] %}x{% endfor %}"),
    ("everybody in Slack", "<!channel> wake up"),
    ("whoever is here in Slack", "<!here|here> wake up"),
    ("everyone in Slack", "<!everyone>"),
    ("one in Slack", "<@U0123456789> look"),
    ("a link in Slack", "<https://evil.example/login|https://wiki.example.net/runbook>"),
    ("a link to script in Slack", "<javascript:alert(5)|click>"),
    ("the end of a code block", "``` *bold* ```\n<!channel>"),
    ("another header", "well\r\nBcc: victim@evil.example\r\nX-Injected: yes"),
    ("another body", "well\r\n\r\n--=_boundary\r\nContent-Type: text/html\r\n\r\n<b>x</b>"),
    ("another label", "x\"} 1\njourneyman_up{evil=\"1"),
    ("another series", "\n# TYPE evil counter\nevil_total 1\n"),
    ("a terminal's command", "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[31mred"),
    ("a terminal's link", "\u{1b}]8;;https://evil.example\u{7}wiki\u{1b}]8;;\u{7}"),
    ("a command in one byte", "\u{9b}2J\u{90}x\u{9c}"),
    ("a direction that turns around", "invoice\u{202e}gpj.exe \u{2066}x\u{2069} \u{200f}y"),
    ("another line of the log", "ok\nERROR a task panicked task=\"evaluator\"\rWARN"),
];

/// A run that met a system which says nothing but this.
fn run_that_met(said: &str) -> Report {
    let mut report = failed_run();
    report.note = Some(said.to_owned());
    for step in &mut report.steps {
        step.detail = Some(said.to_owned());
        step.ack = Some(said.to_owned());
        step.excerpt = Some(said.to_owned());
        step.hops = vec![Hop { name: said.to_owned(), took: Duration::from_millis(3) }];
        step.seen = vec![Seen::new(What::Server, said), Seen::new(What::Peer, said)];
        step.checks = vec![Check {
            expectation: "json $.amount equals \"12.50\"".to_owned(),
            found: Some(said.to_owned()),
            passed: false,
            soft: false,
            cause: Some(Cause::Mismatch),
        }];
    }
    report
}

fn notice_of(said: &str, reason: NotifyReason, sequence: u32) -> Notification {
    let mut notice = notification(reason, sequence);
    notice.report = Some(run_that_met(said));
    notice.decision = said.to_owned();
    notice.news = vec![said.to_owned()];
    notice.owner = Some(said.to_owned());
    notice.incident.acked = Some(Ack { by: said.to_owned(), at: Timestamp::UNIX_EPOCH, until: None, note: None });
    notice
}

const NOTIFIERS: &str = r#"
[notifiers.slack]
type    = "slack"
token   = { file = "secret" }
channel = "C0123456789"

[notifiers.email]
type = "email"
smtp = "smtp://127.0.0.1:25"
from = "Journeyman <journeyman@example.net>"
to   = ["ops@example.net"]

[notifiers.webhook]
type = "webhook"
url  = "https://alerts.example.org/in"

[notifiers.pagerduty]
type        = "pagerduty"
routing_key = { file = "secret" }

[notifiers.alertmanager]
type = "alertmanager"
url  = "http://127.0.0.1:9093"

[channels.box]
type = "memory"

[[journey]]
name   = "one"
every  = "1h"
notify = ["slack", "email", "webhook", "pagerduty", "alertmanager"]
step   = [{ send = "box", text = "x" }]
"#;

/// What is wrong with a text for people's eyes: it is hidden, or hides something.
fn hidden_in(text: &str) -> Option<String> {
    let found = text.chars().find(|c| is_hidden(*c) && !matches!(c, '\n' | '\r' | '\t'))?;
    Some(format!("U+{:04X} gets through", u32::from(found)))
}

/// What is wrong with a page.
fn wrong_in_html(html: &str) -> Option<String> {
    let lower = html.to_lowercase();
    for tag in
        ["<script>", "<svg onload", "<img src=x", "onerror=alert(1)>", "href=\"javascript:", "href=\"data:", "<b>x</b>"]
    {
        if lower.contains(tag) {
            return Some(format!("{tag} gets through"));
        }
    }
    // An attribute that the text ended.
    if lower.contains("' onmouseover='alert") {
        return Some("an attribute was ended".to_owned());
    }
    hidden_in(html)
}

/// What is wrong with a message of Slack's: in what it reads as its markup, angle brackets are only our own.
fn wrong_in_slack(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => {
            let is_markup = |name: &str| name == "text" && members.get("type").is_none_or(|kind| kind == "mrkdwn");
            members.iter().find_map(|(name, member)| match member {
                Value::String(text) => {
                    let calls =
                        ["<!", "<@", "<#", "<javascript:", "<https://evil"].iter().find(|call| text.contains(**call));
                    let wrong = calls.filter(|_| is_markup(name)).map(|call| format!("{call} gets through in {text}"));
                    wrong.or_else(|| hidden_in(text))
                }
                other => wrong_in_slack(other),
            })
        }
        Value::Array(items) => items.iter().find_map(wrong_in_slack),
        Value::String(text) => hidden_in(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// What is wrong with a mail.
fn wrong_in_mail(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    for line in head.split("\r\n") {
        let is_folded = line.starts_with([' ', '\t']);
        let is_field = line.split_once(':').is_some_and(|(name, _)| !name.contains(' '));
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        if !is_folded && (!is_field || ["bcc", "x-injected"].contains(&name.as_str())) {
            return Some(format!("the head has the line {line:?}"));
        }
    }
    let mail = Mail::parse(text);
    let subject = mail.header("Subject").unwrap_or_default();
    if let Some(wrong) = hidden_in(head).or_else(|| subject.chars().any(is_hidden).then(|| format!("{subject:?}"))) {
        return Some(wrong);
    }
    let parts = mail.parts().len();
    wrong_in_html(&mail.part("text/html").text())
        .or_else(|| hidden_in(&mail.part("text/plain").text()))
        .or_else(|| (parts != 2 && parts != 3).then(|| format!("it has {parts} parts")))
}

/// What is wrong with a rendered notice, by its medium.
fn wrong_in(notifier: &str, ending: &str, bytes: &[u8]) -> Option<String> {
    let json = || serde_json::from_slice::<Value>(bytes);
    match (notifier, ending) {
        ("slack", "json") => match json() {
            Ok(value) => wrong_in_slack(&value),
            Err(error) => Some(error.to_string()),
        },
        ("email", "eml") => wrong_in_mail(bytes),
        (_, "html") => wrong_in_html(&String::from_utf8_lossy(bytes)),
        (_, "txt") => hidden_in(&String::from_utf8_lossy(bytes)),
        // For programs: every text is whole and in its place, and nothing of it is anything else.
        (_, "json") => json().err().map(|error| error.to_string()),
        _ => Some(format!("nobody looks at *.{ending}")),
    }
}

#[test]
fn nothing_that_a_system_says_is_more_than_text_in_any_notice() {
    journeyman::tls::init();
    let scratch = Scratch::new("hostile");
    scratch.write("secret", "0123456789abcdef0123456789abcdef");
    let (plan, _) = load_text("journeyman.toml", NOTIFIERS, &[], scratch.path()).unwrap();
    let mut table = Table::new("security", "escaping", &["medium", "texts", "renderings", "got through"]);
    let mut wrong = String::new();
    for notifier in ["slack", "email", "webhook", "pagerduty", "alertmanager"] {
        let (mut renderings, mut through) = (0, 0);
        for (what, said) in CORPUS {
            for (reason, sequence) in [(NotifyReason::First, 1), (NotifyReason::Worse, 2), (NotifyReason::Resolved, 3)]
            {
                let out = scratch.path().join("out");
                let files = preview(Some((&plan, notifier)), notice_of(said, reason, sequence), &out).unwrap();
                for file in files {
                    renderings += 1;
                    let name = file.file_name().unwrap().to_string_lossy().into_owned();
                    let ending = name.rsplit('.').next().unwrap();
                    if let Some(why) = wrong_in(notifier, ending, &std::fs::read(&file).unwrap()) {
                        through += 1;
                        wrong += &format!("{name}, {what}: {why}\n");
                    }
                }
            }
        }
        table.row(&[&notifier, &CORPUS.len(), &renderings, &through]);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_that_a_system_says_is_more_than_text_on_any_page() {
    block_on(async {
        let stage = Stage::new(None).await;
        for (number, (_, said)) in CORPUS.into_iter().enumerate() {
            let mut hostile = journey(&format!("hostile-{number}"));
            hostile.owner = Some(said.to_owned());
            hostile.runbook = Some(said.to_owned());
            let mut report = run_that_met(said);
            report.journey = hostile.name.clone();
            stage
                .board
                .set_journey(shown(hostile, CALM, Some(report), |_| journeyman::journey::outcome::Verdict::Good));
        }
        let mut wrong = String::new();
        let paths = (0..CORPUS.len()).map(|number| format!("/journeys/hostile-{number}"));
        let token = failed_run().token;
        for path in
            paths.chain(["/".to_owned(), format!("/runs/{token}"), "/?q=%3Cscript%3Ealert(1)%3C/script%3E".to_owned()])
        {
            let page = reqwest::get(format!("{}{path}", stage.url)).await.unwrap().text().await.unwrap();
            if let Some(why) = wrong_in_html(&page) {
                wrong += &format!("{path}: {why}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        stage.stop().await;
    });
}

/// A system that says all of it in every answer.
async fn hostile_target() -> (String, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(async || {
        let said: String = CORPUS.iter().map(|(_, said)| format!("{said} ")).collect();
        ([("server", "nginx <!channel> <script>"), ("x-said", "a\"} 1")], said)
    });
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (url, server)
}

#[test]
fn nothing_that_a_system_says_commands_a_terminal_forges_the_log_or_adds_a_series() {
    block_on(async {
        let (url, _server) = hostile_target().await;
        let config = format!("\n[log]\nlevel = \"trace\"\n\n[channels.target]\ntype = \"http\"\nurl = \"{url}\"\n");
        let probes = "[[journey]]\nname = \"hostile\"\nevery = \"1s\"\nmuted = true\n\
                      step = [{ request = \"target\", expect = [{ body = { contains = \"never\" } }] }]\n";
        let mut daemon = Setup::new("hostile").start(&config, probes).await;
        let failed = [("journey", "hostile"), ("outcome", "failed")];
        wait_for("a failed run", Duration::from_secs(20), async || {
            daemon.metric("journeyman_runs_total", &failed).await.filter(|runs| *runs >= 2.0)
        })
        .await;
        let metrics = daemon.metrics().await;
        for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(line.starts_with("journeyman_") || line.starts_with("process_"), "{line}");
            assert!(!line.contains("evil") && !line.contains('<'), "{line}");
        }
        let once = journeyman(daemon.directory(), &["once", "hostile", "--config", "journeyman.toml"]).await;
        assert_eq!(once.code, 2, "{}", once.stderr);
        assert!(once.stdout.contains("<script>"), "the terminal shows what was said: {}", once.stdout);
        for text in [&once.stdout, &once.stderr] {
            assert_eq!(hidden_in(text), None, "{text}");
        }
        assert_eq!(daemon.terminate().await, 0);
        let log = daemon.log();
        assert!(log.contains("hostile"), "{log}");
        // What was said of the configuration before stands before it.
        for line in log.lines().skip_while(|line| !line.starts_with("20")) {
            assert_eq!(hidden_in(line), None, "{line}");
            assert!(line.starts_with("20"), "an event is one line, and begins with its time: {line}");
        }
    });
}
