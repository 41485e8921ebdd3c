//! The Slack notifier against a fake that behaves as Slack documents, and fails in every way that Slack and networks do.

mod t7;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::alert::Subject;
use journeyman::clock::Clock;
use journeyman::detect::{Detector, Severity};
use journeyman::incident::{Incident, NotifyReason, Root};
use journeyman::journey::outcome::{Cause, Outcome};
use journeyman::journey::report::{Report, StepReport, StepStatus};
use journeyman::journey::token::Token;
use journeyman::notice::Notification;
use journeyman::notifier::slack::{Interactions, Slack, SlackSettings, open};
use journeyman::notifier::{Delivery, Notifier, NotifyError, Receipt};
use journeyman::secret::{Redactor, Secret};
use journeyman::time::later;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::fake_slack::{Answer, CHANNEL, FakeSlack, Request, TOKEN, WEBHOOK_METHOD};
use crate::support::table::Table;
use crate::support::{block_on, free_port};

const POST: &str = "chat.postMessage";
const EDIT: &str = "chat.update";
const HISTORY: &str = "conversations.history";
const REPLIES: &str = "conversations.replies";
/// What must never be seen of token and webhook.
const SECRETS: [&str; 2] = ["s3cr3tbottoken", "s3cr3twebhookpath"];

fn bot(api_url: &str) -> Slack {
    bot_with(api_url, TOKEN)
}

fn bot_with(api_url: &str, token: &str) -> Slack {
    let redactor = Redactor::new();
    let token = Secret::new(token.to_owned(), &redactor);
    let api_url = Some(api_url.parse().expect("a URL"));
    let interactions = Interactions::default();
    let settings = SlackSettings::Bot { token, channel: CHANNEL.to_owned(), api_url, interactions };
    open(settings, redactor, Clock::system(), None).expect("the notifier opens")
}

fn webhook(url: &str) -> Slack {
    let redactor = Redactor::new();
    let url = Secret::new(url.to_owned(), &redactor);
    open(SlackSettings::Webhook { url }, redactor, Clock::system(), None).expect("the notifier opens")
}

fn step(name: &str, verb: &str, channel: &str, took: Duration) -> StepReport {
    StepReport {
        channel: Some(channel.into()),
        took,
        ack: Some("202".to_owned()),
        ..StepReport::new(name, verb.to_owned(), StepStatus::Passed)
    }
}

fn report(slot: Timestamp, is_good: bool) -> Report {
    let deadline = Duration::from_secs(60);
    let took = if is_good { Duration::from_millis(3_400) } else { deadline };
    let mut arrive = step("arrive", "receive", "inbound", took);
    let mut outcome = Outcome::Good { latency: took };
    if !is_good {
        arrive.status = StepStatus::Failed;
        arrive.detail = Some("not received within 60s".to_owned());
        arrive.excerpt = Some("<html>502 & more</html>".to_owned());
        outcome = Outcome::Failed { step: "arrive".into(), cause: Cause::NotReceived };
    }
    Report {
        journey: "sms-round-trip".into(),
        token: Token::from_bits(0x019b_c0de_0000_4711_0000_0100_dead_beef),
        slot,
        started: slot,
        outcome,
        latency: took,
        lateness: Duration::ZERO,
        steps: vec![step("submit", "send", "gateway", Duration::from_micros(12_300)), arrive],
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    }
}

/// The `sequence`th notice of one incident.
fn delivery(sequence: u32, reason: NotifyReason) -> Delivery {
    let since: Timestamp = "2026-01-15T14:02:00Z".parse().expect("a time");
    let at = later(since, Duration::from_secs(120 * u64::from(sequence)));
    let incident = Incident {
        detectors: [Detector::Down].into(),
        severity: Severity::Critical,
        worst: Severity::Critical,
        sequence,
        bad_runs: 3,
        members: 1,
        firing: 1,
        ..Incident::new("7f3a00c0ffee".to_owned(), since, Root::Alone(Subject::Journey("sms".into())))
    };
    let notification = Notification {
        reason,
        incident,
        at,
        subject: "sms-round-trip".to_owned(),
        members: Vec::new(),
        news: Vec::new(),
        is_whole: false,
        handed_over: None,
        owner: Some("team messaging".to_owned()),
        runbook: Some("https://wiki.example/sms?view=full&page=2".to_owned()),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        location: Some("fra1".to_owned()),
        budget: Some(Duration::from_secs(5)),
        deadline: Some(Duration::from_secs(60)),
        decision: "3 or more failed runs in a row (down_after = 3)".to_owned(),
        report: Some(report(since, reason == NotifyReason::Resolved)),
        last_good: Some(report(since, true)),
        objective: Some("99.2% delivered of 99.5% over 30d".to_owned()),
        link: Some("https://journeyman.example/journeys/sms-round-trip".to_owned()),
        ack_link: None,
        run_link: None,
        mark: None,
    };
    let id = format!("7f3a00c0ffee.{sequence}.chat");
    Delivery { id, attempt: 1, is_ambiguous: false, notification, root: None, instead_of: None }
}

/// The same delivery, tried again after an attempt whose end nobody knows.
fn again(delivery: &Delivery) -> Delivery {
    Delivery { attempt: delivery.attempt + 1, is_ambiguous: true, ..delivery.clone() }
}

/// `never`, `backoff`, `ambiguous`, `after 30`; and that it tells no secret.
fn class(told: Result<Receipt, NotifyError>) -> String {
    let shown = format!("{told:?}");
    assert!(!SECRETS.iter().any(|secret| shown.contains(secret)), "a secret is told: {shown}");
    match told {
        Ok(_) => "ok".to_owned(),
        Err(NotifyError::Never(_)) => "never".to_owned(),
        Err(NotifyError::Backoff(_)) => "backoff".to_owned(),
        Err(NotifyError::Ambiguous(_)) => "ambiguous".to_owned(),
        Err(NotifyError::After { wait, .. }) => format!("after {}", wait.as_secs()),
    }
}

/// Compares with a file of `tests/it/golden`; `UPDATE_EXPECT=1` writes it.
fn assert_golden(name: &str, found: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    let found = serde_json::to_string_pretty(found).expect("a value is JSON") + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
        std::fs::write(&path, &found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file is there; UPDATE_EXPECT=1 makes it");
    assert_eq!(found, expected, "{name} differs; UPDATE_EXPECT=1 rewrites it");
}

#[test]
fn the_first_notice_is_one_message_that_says_everything() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let receipt = bot(&fake.url()).notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        let message = fake.wait_for_message(CHANNEL, |_| true).await;
        assert_eq!((receipt.id.as_str(), receipt.place.as_str()), (message.ts.as_str(), CHANNEL));
        assert_eq!(message.delivery(), Some("7f3a00c0ffee.1.chat"));
        assert_eq!(fake.count(POST), 1);
        assert_golden("slack_first.json", &fake.requests()[0].arguments);
    });
}

#[test]
fn later_notices_are_replies_and_the_message_is_edited_in_place() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        let later = [(2, NotifyReason::Worse), (3, NotifyReason::Repeat), (4, NotifyReason::Resolved)];
        for (sequence, reason) in later {
            let next = Delivery { root: Some(root.clone()), ..delivery(sequence, reason) };
            let receipt = slack.notify(&next).await.expect("Slack takes it");
            let reply = fake.messages(CHANNEL).pop().expect("there is a reply");
            assert_eq!((receipt.id, reply.delivery()), (reply.ts.clone(), Some(next.id.as_str())));
            assert_eq!(reply.thread_ts.as_deref(), Some(root.id.as_str()));
            assert_eq!(reply.is_broadcast, reason == NotifyReason::Repeat, "{reason}");
        }
        let messages = fake.messages(CHANNEL);
        assert_eq!(messages.len(), 4);
        let (message, reply) = (&messages[0], &messages[3]);
        assert_eq!((message.edits, message.color()), (3, Some("#2e7d32")));
        assert_eq!(message.delivery(), Some("7f3a00c0ffee.1.chat"), "an edit keeps what the message is found by");
        for part in ["WELL AGAIN sms-round-trip", r"*Lasted*\n8m", r"*Runs lost*\n3"] {
            assert!(message.shown().contains(part), "{part} is missing: {}", message.shown());
        }
        assert!(reply.shown().contains("well again after 8m, 3 bad runs"), "{}", reply.shown());
    });
}

#[test]
fn a_reply_is_enough_when_the_edit_fails() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        for answer in [Answer::Status(503, TOKEN), Answer::Refuse("fatal_error"), Answer::ResetAfterAccepting] {
            fake.script(EDIT, [answer]);
            let next = Delivery { root: Some(root.clone()), ..delivery(2, NotifyReason::Repeat) };
            let receipt = slack.notify(&next).await.expect("the reply was taken");
            assert!(receipt.said.contains("was not edited: "), "{}", receipt.said);
            assert_eq!(class(Ok(receipt)), "ok");
        }
    });
}

#[test]
fn a_message_that_is_gone_is_posted_anew() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        let next = Delivery { root: Some(root.clone()), ..delivery(2, NotifyReason::Worse) };
        fake.script(POST, [Answer::Refuse("thread_not_found")]);
        let refused = slack.notify(&next).await.expect("Slack takes it");
        fake.delete(CHANNEL, &root.id);
        let orphaned = slack.notify(&Delivery { root: Some(root), ..delivery(3, NotifyReason::Repeat) }).await;
        for receipt in [refused, orphaned.expect("Slack takes it")] {
            let message = fake.wait_for_message(CHANNEL, |message| message.ts == receipt.id).await;
            assert_eq!(message.thread_ts, None);
            assert!(message.shown().contains("*Since*"), "it says everything: {}", message.shown());
        }
        // A receipt of a webhook, from before the notifier had a token, is no message that can be replied to.
        let other = Receipt {
            id: "7f3a00c0ffee.1.chat".to_owned(),
            place: "incoming webhook".to_owned(),
            ..Receipt::default()
        };
        let receipt = slack.notify(&Delivery { root: Some(other), ..delivery(4, NotifyReason::Resolved) }).await;
        assert_eq!(receipt.expect("Slack takes it").place, CHANNEL);
    });
}

#[test]
fn an_attempt_that_may_have_been_taken_gives_exactly_one_message() {
    block_on(async {
        let answers = [Answer::ResetAfterAccepting, Answer::ResetBeforeBody, Answer::Reset, Answer::Garbage];
        for answer in answers {
            for in_thread in [false, true] {
                let fake = FakeSlack::start().await;
                let slack = bot(&fake.url());
                let mut next = delivery(2, NotifyReason::Worse);
                if in_thread {
                    next.root = Some(slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it"));
                }
                fake.script(POST, [answer.clone()]);
                assert_eq!(class(slack.notify(&next).await), "ambiguous", "{answer:?}");
                let receipt = slack.notify(&again(&next)).await.expect("the second attempt succeeds");
                let ours: Vec<_> =
                    fake.messages(CHANNEL).into_iter().filter(|m| m.delivery() == Some(&next.id)).collect();
                assert_eq!(ours.len(), 1, "{answer:?}, in a thread: {in_thread}");
                assert_eq!(ours[0].ts, receipt.id);
                let root = &fake.messages(CHANNEL)[0];
                assert_eq!(root.edits, u32::from(in_thread), "the message is brought up to date");
            }
        }
    });
}

#[test]
fn a_message_is_found_behind_pages_of_other_messages() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let first = delivery(1, NotifyReason::First);
        fake.script(POST, [Answer::ResetAfterAccepting]);
        assert_eq!(class(slack.notify(&first).await), "ambiguous");
        for serial in 0..450 {
            fake.say(CHANNEL, &format!("did you see this? {serial}"));
        }
        let receipt = slack.notify(&again(&first)).await.expect("it is found");
        assert_eq!((receipt.id, fake.count(POST), fake.count(HISTORY)), (fake.messages(CHANNEL)[0].ts.clone(), 1, 3));
        let search = &fake.requests()[1].arguments;
        assert_eq!(search["include_all_metadata"], "true");
        let ten_minutes_before = first.notification.at.as_second() - 600;
        assert_eq!(search["oldest"], format!("{ten_minutes_before}.000000"));
    });
}

#[test]
fn who_cannot_look_waits_and_who_may_not_look_sends() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let first = again(&delivery(1, NotifyReason::First));
        for answer in [Answer::RateLimited(Some("5")), Answer::Status(502, ""), Answer::Reset] {
            fake.script(HISTORY, [answer]);
            assert_eq!(class(slack.notify(&first).await), "ambiguous");
        }
        assert_eq!(fake.messages(CHANNEL).len(), 0);
        fake.script(HISTORY, [Answer::Refuse("missing_scope")]);
        let root = slack.notify(&first).await.expect("a notice twice is better than none");
        fake.script(HISTORY, [Answer::Refuse("missing_scope")]);
        fake.script(REPLIES, [Answer::Refuse("missing_scope")]);
        let next = Delivery { root: Some(root), ..again(&delivery(2, NotifyReason::Worse)) };
        assert_eq!(class(slack.notify(&next).await), "ok");
        assert_eq!(fake.messages(CHANNEL).len(), 2);
    });
}

#[test]
fn an_answer_that_the_library_cannot_read_counts_as_taken() {
    block_on(async {
        let fake = FakeSlack::start().await;
        fake.script(POST, [Answer::Unexpected]);
        let receipt = bot(&fake.url()).notify(&delivery(1, NotifyReason::First)).await.expect("it was taken");
        let messages = fake.messages(CHANNEL);
        assert_eq!((messages.len(), &messages[0].ts), (1, &receipt.id));
    });
}

#[test]
fn every_answer_has_its_class_and_is_asked_for_once() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let table = [
            (Answer::Slow(Duration::from_millis(20)), "ok"),
            (Answer::RateLimited(Some("1")), "after 1"),
            (Answer::RateLimited(Some("30")), "after 30"),
            (Answer::RateLimited(Some("0")), "after 1"),
            (Answer::RateLimited(Some("soon")), "after 30"),
            (Answer::RateLimited(Some("-1")), "after 30"),
            (Answer::RateLimited(Some("1.5")), "after 30"),
            (Answer::RateLimited(Some("86400")), "after 3600"),
            (Answer::RateLimited(None), "after 30"),
            (Answer::Status(429, "slow down"), "after 30"),
            (Answer::Status(500, TOKEN), "backoff"),
            (Answer::Status(501, ""), "backoff"),
            (Answer::Status(502, "<html>bad gateway"), "backoff"),
            (Answer::Status(503, ""), "backoff"),
            (Answer::Status(504, ""), "backoff"),
            (Answer::Status(404, ""), "backoff"),
            (Answer::Status(410, ""), "backoff"),
            (Answer::Garbage, "ambiguous"),
            (Answer::Unexpected, "ok"),
            (Answer::Reset, "ambiguous"),
            (Answer::ResetAfterAccepting, "ambiguous"),
            (Answer::ResetBeforeBody, "ambiguous"),
            (Answer::Status(403, "denied by the proxy"), "backoff"),
            (Answer::Status(200, "<html>Please log in</html>"), "ambiguous"),
            (Answer::Refuse("invalid_auth"), "never"),
            (Answer::Refuse("missing_scope"), "never"),
            (Answer::Refuse("restricted_action_thread_only_channel"), "never"),
            (Answer::Refuse("ratelimited"), "after 30"),
            (Answer::Refuse("fatal_error"), "backoff"),
            (Answer::Refuse("never_heard_of"), "backoff"),
        ];
        for (asked, (answer, expected)) in table.into_iter().enumerate() {
            fake.script(POST, [answer.clone()]);
            // Each with a notifier of its own, which has kept no pace yet.
            let told = bot(&fake.url()).notify(&delivery(1, NotifyReason::First)).await;
            assert_eq!(class(told), expected, "{answer:?}");
            assert_eq!(fake.count(POST), asked + 1, "nobody but delivery tries again: {answer:?}");
        }
        let requests = fake.requests();
        assert!(requests.windows(2).all(|pair| pair[0].at.mono <= pair[1].at.mono));
    });
}

#[test]
fn what_must_be_mended_is_said_and_secrets_are_not() {
    block_on(async {
        let fake = FakeSlack::start().await;
        fake.archive(CHANNEL);
        let first = delivery(1, NotifyReason::First);
        let archived = bot(&fake.url()).notify(&first).await.expect_err("the channel is archived");
        fake.add_channel(CHANNEL, "alerts", false);
        let outside = bot(&fake.url()).notify(&first).await.expect_err("the bot is not in the channel");
        let stranger = bot_with(&fake.url(), "xoxb-wrong-s3cr3tbottoken").notify(&first).await;
        let mangled = bot_with(&fake.url(), "xoxb\n-wrong-s3cr3tbottoken").notify(&first).await;
        for (error, advice) in [
            (archived, "the channel is archived"),
            (outside, "invite the bot with /invite @journeyman"),
            (stranger.expect_err("the token is wrong"), "the token is not one that Slack knows"),
            (mangled.expect_err("the token is no header value"), "stray characters"),
        ] {
            assert!(error.to_string().contains(advice), "{error}");
            assert_eq!(class(Err(error)), "never");
        }
        let notifiers = [bot(&fake.url()), webhook(&fake.webhook_url())];
        for notifier in notifiers {
            let shown = format!("{notifier:?}");
            assert!(shown.starts_with("Slack(") && !SECRETS.iter().any(|secret| shown.contains(secret)), "{shown}");
        }
        let redactor = Redactor::new();
        let url = Secret::new("hooks.slack.com/s3cr3twebhookpath".to_owned(), &redactor);
        let error = open(SlackSettings::Webhook { url }, redactor, Clock::system(), None).expect_err("that is no URL");
        assert!(error.contains("is not a URL") && !error.contains("s3cr3t"), "{error}");
    });
}

#[test]
fn what_slack_will_not_show_is_left_out_step_by_step() {
    block_on(async {
        let steps = [
            (0, [true, false, true, true]),
            (1, [false, true, true, true]),
            (2, [false, false, false, true]),
            (3, [false, false, false, false]),
        ];
        for (refusals, parts) in steps {
            for mode in [POST, WEBHOOK_METHOD] {
                let fake = FakeSlack::start().await;
                let slack = if mode == POST { bot(&fake.url()) } else { webhook(&fake.webhook_url()) };
                fake.script(mode, std::iter::repeat_n(Answer::Refuse("invalid_blocks"), refusals));
                assert_eq!(class(slack.notify(&delivery(1, NotifyReason::First)).await), "ok");
                let shown = fake.messages(CHANNEL)[0].shown();
                assert!(shown.contains("DOWN sms-round-trip"), "{shown}");
                let found = ["data_visualization", "▕", "What came back", "\"type\""].map(|part| shown.contains(part));
                assert_eq!(found, parts, "{mode}, {refusals} refusals");
            }
        }
        let fake = FakeSlack::start().await;
        fake.script(POST, std::iter::repeat_n(Answer::Refuse("msg_too_long"), 4));
        assert_eq!(class(bot(&fake.url()).notify(&delivery(1, NotifyReason::First)).await), "never");
        assert_eq!(fake.count(POST), 4);
    });
}

#[test]
fn no_connection_is_no_ambiguity() {
    block_on(async {
        let first = delivery(1, NotifyReason::First);
        let port = free_port();
        for scheme in ["http", "https"] {
            let root = format!("{scheme}://127.0.0.1:{port}/s3cr3twebhookpath");
            assert_eq!(class(bot(&root).notify(&first).await), "backoff");
            assert_eq!(class(webhook(&root).notify(&first).await), "backoff");
        }
        let fake = FakeSlack::start().await;
        let as_https = fake.url().replace("http:", "https:");
        assert_eq!(class(bot(&as_https).notify(&first).await), "backoff", "the TLS handshake fails");
    });
}

/// Real sockets until the request is where it is to hang; only then is the clock moved.
fn with_movable_clock(test: impl Future<Output = ()>) {
    journeyman::tls::init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(test);
}

async fn move_clock(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[test]
fn an_answer_that_does_not_come_is_ambiguous_and_then_found() {
    with_movable_clock(async {
        for (answer, posts) in [(Answer::HangAfterAccepting, 1), (Answer::Hang, 2)] {
            let fake = FakeSlack::start().await;
            let slack = bot(&fake.url());
            let first = delivery(1, NotifyReason::First);
            fake.script(POST, [answer]);
            let waiting = async {
                fake.wait_for_requests(POST, 1).await;
                move_clock(Duration::from_secs(11)).await;
            };
            let (told, ()) = tokio::join!(slack.notify(&first), waiting);
            assert_eq!(class(told), "ambiguous");
            assert_eq!(class(slack.notify(&again(&first)).await), "ok");
            assert_eq!((fake.messages(CHANNEL).len(), fake.count(POST)), (1, posts));
        }
    });
}

#[test]
fn a_tls_handshake_that_does_not_end_is_no_ambiguity() {
    with_movable_clock(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let root = format!("https://{}/api", listener.local_addr().expect("a listener has an address"));
        let slack = bot(&root);
        let first = delivery(1, NotifyReason::First);
        let waiting = async {
            let connection = listener.accept().await.expect("the notifier connects");
            move_clock(Duration::from_secs(6)).await;
            connection
        };
        let (told, _connection) = tokio::join!(slack.notify(&first), waiting);
        assert!(format!("{told:?}").contains("not connected within 5s"), "{told:?}");
        assert_eq!(class(told), "backoff");
    });
}

#[test]
fn a_webhook_takes_notices_and_tells_duplicates_apart_by_id() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = webhook(&fake.webhook_url());
        let instead_of = Some(("pager".to_owned(), "HTTP 500 <!channel>".to_owned()));
        let first = Delivery { instead_of, ..delivery(1, NotifyReason::First) };
        let receipt = slack.notify(&first).await.expect("Slack takes it");
        assert_eq!((receipt.id.as_str(), receipt.said.as_str()), ("7f3a00c0ffee.1.chat", "ok"));
        let message = fake.messages(CHANNEL).remove(0);
        assert!(message.text.starts_with("DOWN sms-round-trip · ") && message.text.ends_with(" [7f3a00c0ffee.1.chat]"));
        assert!(message.shown().contains("Told here because pager did not take it: HTTP 500 &lt;!channel&gt;"));
        let table = [
            (Answer::RateLimited(Some("9")), "after 9"),
            (Answer::RateLimited(Some("soon")), "after 30"),
            (Answer::Status(500, "rollup_error"), "backoff"),
            (Answer::Status(403, "action_prohibited"), "never"),
            (Answer::Status(404, "no_service"), "never"),
            (Answer::Status(410, "channel_is_archived"), "never"),
            (Answer::Status(200, "<html>Please log in</html>"), "backoff"),
            (Answer::Status(302, "/services/s3cr3twebhookpath"), "backoff"),
            (Answer::Reset, "ambiguous"),
            (Answer::ResetAfterAccepting, "ambiguous"),
            (Answer::ResetBeforeBody, "ambiguous"),
        ];
        for (answer, expected) in table {
            fake.script(WEBHOOK_METHOD, [answer.clone()]);
            assert_eq!(class(slack.notify(&first).await), expected, "{answer:?}");
        }
        assert_eq!(class(slack.notify(&again(&first)).await), "ok", "nothing can be looked up, so it is sent again");
    });
}

/// The times at which messages were posted or edited, as seconds from the first.
fn paces(fake: &FakeSlack) -> Vec<f64> {
    let requests = fake.requests();
    let written = |request: &&Request| request.method == POST || request.method == EDIT;
    let times: Vec<_> = requests.iter().filter(written).map(|request| request.at.mono).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect()
}

#[test]
fn a_channel_is_sent_one_message_a_second_edits_and_lesser_ones_too() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        fake.script(POST, [Answer::Refuse("invalid_blocks")]);
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        let next = |sequence| Delivery { root: Some(root.clone()), ..delivery(sequence, NotifyReason::Updated) };
        let (one, other) = (next(2), next(3));
        let (one, other) = tokio::join!(slack.notify(&one), slack.notify(&other));
        assert!(one.is_ok() && other.is_ok());
        let paces = paces(&fake);
        assert_eq!(paces.len(), 5);
        // What is measured is when they came, not when they left.
        assert!(paces.iter().all(|pace| *pace > 0.8), "{paces:?}");
        let least = paces.iter().copied().fold(f64::INFINITY, f64::min);
        let mut table = Table::new("slack", "3-pace", &["figure", "found", "goal"]);
        table.row(&[&"between two messages in a channel, at the least", &format!("{least:.2} s"), &"1 s"]);
        let replies: Vec<_> =
            fake.messages(CHANNEL).into_iter().filter(|message| message.thread_ts.is_some()).collect();
        assert!(replies.len() == 2 && replies.iter().all(|reply| !reply.is_broadcast));
    });
}

#[test]
fn when_slack_wants_fewer_edits_only_replies_are_sent() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        fake.script(EDIT, [Answer::RateLimited(Some("30"))]);
        for sequence in 2..=4 {
            let next = Delivery { root: Some(root.clone()), ..delivery(sequence, NotifyReason::Worse) };
            let receipt = slack.notify(&next).await.expect("the reply was taken");
            assert!(receipt.said.contains("was not edited") && !receipt.is_root, "{}", receipt.said);
        }
        assert_eq!((fake.count(EDIT), fake.messages(CHANNEL).len()), (1, 4));
    });
}

#[test]
fn what_takes_the_place_of_a_message_is_the_one_from_then_on() {
    block_on(async {
        for code in ["message_not_found", "edit_window_closed", "cant_update_message"] {
            let fake = FakeSlack::start().await;
            let slack = bot(&fake.url());
            let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
            assert!(root.is_root);
            fake.script(EDIT, [Answer::Refuse(code)]);
            let next = Delivery { root: Some(root.clone()), ..delivery(2, NotifyReason::Worse) };
            let moved = slack.notify(&next).await.expect("Slack takes it");
            assert!(moved.is_root && moved.id != root.id, "{moved:?}");
            let next = Delivery { root: Some(moved.clone()), ..delivery(3, NotifyReason::Resolved) };
            let reply = slack.notify(&next).await.expect("Slack takes it");
            assert!(!reply.is_root);
            let messages = fake.messages(CHANNEL);
            let new = messages.iter().find(|message| message.ts == moved.id).expect("it is there");
            assert_eq!((new.edits, new.color()), (1, Some("#2e7d32")), "{code}");
            assert_eq!(messages.last().and_then(|reply| reply.thread_ts.as_ref()), Some(&moved.id));
        }
    });
}

#[test]
fn an_edit_that_slack_refuses_costs_nothing_but_the_edit() {
    block_on(async {
        let never = ["is_archived", "missing_scope", "invalid_metadata_format"];
        let later = ["request_timeout", "service_unavailable", "update_failed", "never_heard_of"];
        for code in never.into_iter().chain(later) {
            let fake = FakeSlack::start().await;
            let slack = bot(&fake.url());
            let root = Receipt { id: fake.say(CHANNEL, "x"), place: CHANNEL.to_owned(), ..Receipt::default() };
            fake.script(EDIT, [Answer::Refuse(code)]);
            let next = Delivery { root: Some(root), ..delivery(2, NotifyReason::Worse) };
            let receipt = slack.notify(&next).await.expect("the reply was taken");
            assert!(receipt.said.contains("was not edited"), "{code}: {}", receipt.said);
        }
    });
}

#[test]
fn what_is_over_is_shown_as_over_before_it_is_told() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let slack = bot(&fake.url());
        let root = slack.notify(&delivery(1, NotifyReason::First)).await.expect("Slack takes it");
        let last = Delivery { root: Some(root), ..delivery(2, NotifyReason::Resolved) };
        let refusals = [(Answer::Status(503, ""), "backoff"), (Answer::ResetAfterAccepting, "ambiguous")];
        for (answer, expected) in refusals {
            fake.script(EDIT, [answer]);
            assert_eq!(class(slack.notify(&last).await), expected);
        }
        assert_eq!(fake.messages(CHANNEL).len(), 1, "the reply would be told twice");
        assert_eq!(class(slack.notify(&again(&last)).await), "ok");
        let messages = fake.messages(CHANNEL);
        assert_eq!((messages.len(), messages[0].color()), (2, Some("#2e7d32")));
        // In the end people are told, whatever the message shows; and at once if no attempt can help.
        fake.script(EDIT, [Answer::Status(503, "")]);
        let fourth = Delivery { attempt: 4, id: "7f3a00c0ffee.3.chat".to_owned(), ..last.clone() };
        let receipt = slack.notify(&fourth).await.expect("the reply was taken");
        assert!(receipt.said.contains("was not edited"), "{}", receipt.said);
        fake.script(EDIT, [Answer::Refuse("invalid_metadata_format")]);
        let other = Delivery { id: "7f3a00c0ffee.4.chat".to_owned(), ..last };
        let receipt = slack.notify(&other).await.expect("the reply was taken");
        assert!(receipt.said.contains("was not edited"), "{}", receipt.said);
    });
}
