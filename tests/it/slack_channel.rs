//! Slack as a path, against a fake that behaves as Slack documents: by history and over Socket Mode.

use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::Channel;
use journeyman::channel::slack::{self, Slack, SlackSettings};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::{Mint, Token};
use serde_json::json;

use crate::support::fake_slack::{APP_TOKEN, Answer, CHANNEL, FakeSlack, TOKEN, USER_TOKEN};
use crate::support::listening::{BOUND, Receiver, clock, fault, secret, token, token_of};
use crate::support::{block_on, free_port, wait_for};

/// By history, every 20 ms.
fn settings(slack: &FakeSlack) -> SlackSettings {
    SlackSettings {
        token: secret(TOKEN),
        channel: CHANNEL.to_owned(),
        app_token: None,
        user_token: None,
        api_url: slack.url().parse().expect("it is a URL"),
        poll: Duration::from_millis(20),
        keep: false,
        ca_file: None,
    }
}

fn over_sockets(slack: &FakeSlack) -> SlackSettings {
    SlackSettings { app_token: Some(secret(APP_TOKEN)), ..settings(slack) }
}

fn open(settings: SlackSettings) -> Arc<Slack> {
    Arc::new(slack::open(settings, clock()).expect("certificates can be read"))
}

fn order(token: Token) -> Outgoing {
    Outgoing {
        token,
        headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
        body: format!("order {token}").into_bytes(),
        ..Outgoing::empty(Duration::from_secs(10))
    }
}

/// What is in the channel once this holds.
async fn wait_until_left(slack: &FakeSlack, texts: &[&str]) {
    let left = || slack.messages(CHANNEL).into_iter().map(|message| message.text).collect::<Vec<_>>();
    wait_for("the channel to hold what it should", BOUND, async || (left() == texts).then_some(())).await;
}

#[test]
fn a_message_makes_the_round_trip_by_history_and_is_deleted_and_nothing_else_is() {
    block_on(async {
        let slack = FakeSlack::start().await;
        slack.say(CHANNEL, "long before us");
        let channel = open(settings(&slack));
        assert_eq!(channel.prove(BOUND).await.unwrap(), "Slack knows us as journeyman in Fake");
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let sent = token();
        let reply = channel.send(&order(sent)).await.unwrap();
        let arrival = receiver.next().await;
        let message = &arrival.message;
        assert_eq!(message.text(), format!("order {sent}"));
        assert_eq!(Some(reply.ack.as_str()), message.header("ts").map(|ts| format!("posted as {ts}")).as_deref());
        assert_eq!(message.header("bot-id"), Some("B0FAKE"));
        assert_eq!(message.header("token"), Some(sent.to_string().as_str()));
        assert_eq!(message.header("traceparent"), Some(sent.traceparent().as_str()));
        assert_eq!(message.header("x-synthetic"), Some("journeyman"));
        assert!(arrival.at.mono > reply.started.mono);
        wait_until_left(&slack, &["long before us"]).await;

        // Strangers', also those that speak of a token of ours, are told and stay.
        let quoted = format!("what is {}?", token());
        slack.say(CHANNEL, &quoted);
        assert_eq!(receiver.next().await.message.text(), quoted);
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        wait_until_left(&slack, &["long before us", &quoted]).await;
        receiver.stop().await;
        assert_eq!(slack.count("chat.delete"), 2);
    });
}

#[test]
fn a_message_of_ours_stays_if_it_is_to_and_goes_when_a_later_life_sees_it() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let keeping = open(SlackSettings { keep: true, ..settings(&slack) });
        let mut receiver = Receiver::on(&keeping);
        receiver.ready().await;
        let sent = token();
        keeping.send(&order(sent)).await.unwrap();
        receiver.next().await;
        receiver.stop().await;
        assert_eq!((slack.messages(CHANNEL).len(), slack.count("chat.delete")), (1, 0));

        // Posted by a process that died: the metadata says whose it is. One that others posted is not ours to take.
        let (reader, dead) = (open(settings(&slack)), open(settings(&slack)));
        let mut receiver = Receiver::on(&reader);
        receiver.ready().await;
        dead.send(&order(token())).await.unwrap();
        let theirs = Mint::new([9; 32], 0).issue(clock().now().wall);
        dead.send(&order(theirs)).await.unwrap();
        receiver.next().await;
        receiver.next().await;
        wait_until_left(&slack, &[&format!("order {sent}"), &format!("order {theirs}")]).await;
        receiver.stop().await;
    });
}

#[test]
fn history_is_told_once_in_order_and_from_where_it_was() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(SlackSettings { user_token: Some(secret(USER_TOKEN)), ..settings(&slack) });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        // More than a page, while nothing is answered.
        slack.script("conversations.history", [Answer::Slow(Duration::from_millis(100))]);
        let said: Vec<_> = (0..250).map(|n| format!("message {n}")).collect();
        for text in &said {
            slack.say(CHANNEL, text);
        }
        for text in &said {
            assert_eq!(receiver.next().await.message.text(), *text);
        }
        // One that becomes visible after a later one.
        slack.say_late(CHANNEL, "late", Duration::from_secs(5));
        assert_eq!(receiver.next().await.message.text(), "late");

        // The connection breaks: what is said meanwhile is seen afterwards, and nothing twice.
        slack.script("conversations.history", [Answer::Reset, Answer::Reset, Answer::Status(503, "unwell")]);
        let why = receiver.down().await;
        assert!(why.contains("without a response"), "{why}");
        slack.say(CHANNEL, "meanwhile");
        receiver.ready().await;
        assert_eq!(receiver.next().await.message.text(), "meanwhile");
        slack.say(CHANNEL, "last");
        assert_eq!(receiver.next().await.message.text(), "last");
        receiver.stop().await;
    });
}

#[test]
fn a_limit_on_calls_is_heeded_and_told() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(settings(&slack));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        slack.script("conversations.history", [Answer::RateLimited(Some("1"))]);
        let why = receiver.down().await;
        assert!(why.contains("fewer calls of conversations.history"), "{why}");
        let limited_at = slack.requests().last().unwrap().at;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        receiver.ready().await;
        assert_eq!(token_of(&receiver.next().await), Some(sent));
        let requests = slack.requests();
        let next =
            requests.iter().find(|next| next.method == "conversations.history" && next.at.mono > limited_at.mono);
        let waited = next.unwrap().at.mono.since(limited_at.mono);
        assert!(waited >= Duration::from_secs(1), "{waited:?}");

        // A deletion that is put off is made later.
        slack.script("chat.delete", [Answer::RateLimited(Some("1"))]);
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        wait_until_left(&slack, &[]).await;
        receiver.stop().await;

        slack.script("chat.postMessage", [Answer::RateLimited(Some("30"))]);
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Throttled, false), "{fault:?}");
    });
}

#[test]
fn each_way_in_which_a_post_fails_has_its_cause() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(settings(&slack));
        slack.add_channel("C0OTHER", "other", false);
        slack.add_channel("C0OLD", "old", true);
        slack.archive("C0OLD");
        let to = |id: &str| Outgoing { fields: [("channel".to_owned(), id.to_owned())].into(), ..order(token()) };
        let long = Outgoing { body: "x".repeat(40_001).into_bytes(), ..order(token()) };
        let quick = || Outgoing { timeout: Duration::from_millis(200), ..order(token()) };
        #[rustfmt::skip]
        let cases = [
            (to("C0NONE"), None, Cause::Unroutable, false, "channel_not_found"),
            (to("C0OTHER"), None, Cause::Refused, false, "not_in_channel"),
            (to("C0OLD"), None, Cause::Unroutable, false, "is_archived"),
            (long, None, Cause::Refused, false, "msg_too_long"),
            (order(token()), Some(Answer::Refuse("fatal_error")), Cause::Rejected, true, "fatal_error"),
            (order(token()), Some(Answer::Status(503, "unwell")), Cause::Rejected, false, "HTTP 503"),
            (order(token()), Some(Answer::Garbage), Cause::Mismatch, true, "not Slack's API"),
            (order(token()), Some(Answer::Reset), Cause::Unreachable, true, "without a response"),
            (order(token()), Some(Answer::ResetBeforeBody), Cause::Unreachable, true, "without a response"),
            (quick(), Some(Answer::HangAfterAccepting), Cause::Unreachable, true, "no response"),
            (Outgoing { body: Vec::new(), ..order(token()) }, None, Cause::Refused, false, "empty"),
        ];
        for (message, script, cause, uncertain, words) in cases {
            slack.script("chat.postMessage", script);
            let fault = fault(channel.send(&message).await);
            assert_eq!((fault.cause, fault.uncertain), (cause, uncertain), "{fault:?}");
            assert!(fault.detail.contains(words), "{words}: {}", fault.detail);
            assert!(!fault.detail.contains(TOKEN));
        }
        // An odd field in an answer that says ok changes nothing.
        slack.script("chat.postMessage", [Answer::Unexpected]);
        channel.send(&order(token())).await.unwrap();

        let stranger = open(SlackSettings { token: secret("xoxb-wr0ng"), ..settings(&slack) });
        let fault = fault(stranger.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Auth, false), "{fault:?}");
        let why = Receiver::on(&stranger).down().await;
        assert!(why.contains("invalid_auth") && !why.contains("wr0ng"), "{why}");
        assert_eq!(stranger.prove(BOUND).await.unwrap_err().cause, Cause::Auth);
        let nobody = open(SlackSettings {
            api_url: format!("http://127.0.0.1:{}/api/", free_port()).parse().unwrap(),
            ..settings(&slack)
        });
        let fault = self::fault(nobody.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
    });
}

#[test]
fn a_message_makes_the_round_trip_over_socket_mode_and_is_deleted() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(over_sockets(&slack));
        assert!(channel.prove(BOUND).await.unwrap().ends_with("lets the app use Socket Mode"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(sent));
        assert_eq!(arrival.message.header("bot-id"), Some("B0FAKE"));
        wait_until_left(&slack, &[]).await;
        slack.say(CHANNEL, "hello");
        assert_eq!(receiver.next().await.message.text(), "hello");
        // Another conversation's, an edit, and no message at all: acknowledged, and no arrivals.
        slack.event(json!({ "type": "message", "channel": "C0OTHER", "ts": "1.000001", "text": "x" }));
        slack.event(json!({ "type": "message", "channel": CHANNEL, "ts": "1.000002", "subtype": "message_deleted" }));
        slack.event(json!({ "type": "reaction_added", "channel": CHANNEL }));
        slack.say(CHANNEL, "last");
        assert_eq!(receiver.next().await.message.text(), "last");
        wait_for("six acknowledgements", BOUND, async || (slack.acknowledged().len() == 6).then_some(())).await;
        assert_eq!(slack.count("conversations.history"), 0);
        receiver.stop().await;
        assert_eq!(slack.messages(CHANNEL).len(), 2);
    });
}

#[test]
fn only_what_was_handed_over_is_acknowledged_and_a_repeated_event_is_one_arrival() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(over_sockets(&slack));
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        for text in ["one", "two", "three"] {
            slack.say(CHANNEL, text);
        }
        wait_for("the first acknowledgement", BOUND, async || (slack.acknowledged().len() == 1).then_some(())).await;
        // Slack thinks that two were lost, and sends them again; each is told once, out of order as they may come.
        slack.retry_events();
        slack.event(json!({ "type": "message", "channel": CHANNEL, "ts": "1.000001", "text": "older" }));
        for text in ["one", "two", "three", "older"] {
            assert_eq!(receiver.next().await.message.text(), text);
        }
        wait_for("four acknowledgements", BOUND, async || (slack.acknowledged().len() >= 4).then_some(())).await;
        let acknowledged = slack.acknowledged().len();
        slack.event(json!({ "type": "message", "channel": CHANNEL, "ts": "1.000001", "text": "older" }));
        let again = async || (slack.acknowledged().len() > acknowledged).then_some(());
        wait_for("the repetition to be acknowledged", BOUND, again).await;
        slack.say(CHANNEL, "last");
        assert_eq!(receiver.next().await.message.text(), "last");
        receiver.stop().await;
    });
}

#[test]
fn a_connection_that_slack_ends_is_replaced_before_it_is_gone() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let channel = open(over_sockets(&slack));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        slack.tell_socket(json!({ "type": "disconnect", "reason": "warning" }));
        slack.tell_socket(json!({ "type": "disconnect", "reason": "refresh_requested" }));
        wait_for("a second connection", BOUND, async || (slack.sockets_opened() == 2).then_some(())).await;
        slack.drop_old_sockets();
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        assert_eq!(token_of(&receiver.next().await), Some(sent));
        assert!(!receiver.readiness.has_changed().unwrap(), "nobody noticed");
        assert_eq!(slack.sockets_opened(), 2);

        // One that just ends is told, and what came meanwhile comes with the next.
        slack.drop_sockets();
        slack.say(CHANNEL, "meanwhile");
        receiver.down().await;
        receiver.ready().await;
        assert_eq!(receiver.next().await.message.text(), "meanwhile");

        slack.tell_socket(json!({ "type": "disconnect", "reason": "link_disabled" }));
        assert!(receiver.down().await.contains("Socket Mode is off"));
        receiver.ready().await;
        receiver.stop().await;
    });
}

#[test]
fn a_connection_that_cannot_be_made_says_why_without_its_ticket() {
    block_on(async {
        let slack = FakeSlack::start().await;
        let wrong = SlackSettings { app_token: Some(secret(TOKEN)), ..settings(&slack) };
        let why = Receiver::on(&open(wrong)).down().await;
        assert!(why.contains("not_allowed_token_type") && !why.contains(TOKEN), "{why}");
        let address = slack.misdirect_sockets();
        let why = Receiver::on(&open(over_sockets(&slack))).down().await;
        assert!(why.contains(&address) && why.contains("HTTP 404") && !why.contains("xapp"), "{why}");
    });
}
