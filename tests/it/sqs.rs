//! The `sqs` and `sns` channels against moto, and against networks that misbehave.

use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::Channel;
use journeyman::channel::sns::{self, Sns, SnsSettings};
use journeyman::channel::sqs::{self, Credentials, Sqs, SqsSettings};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::{Mint, Token};
use journeyman::journey::value::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::listening::{BOUND, Receiver, clock, fault, order, secret, token, token_of};
use crate::support::moto::{Moto, REGION};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{block_on, free_port, wait_for};

fn credentials(id: &str, key: &str) -> Credentials {
    Credentials { access_key_id: secret(id), secret_access_key: secret(key), session_token: None }
}

fn settings(queue: &str) -> SqsSettings {
    SqsSettings {
        queue: queue.parse().expect("it is a URL"),
        region: REGION.to_owned(),
        endpoint: None,
        credentials: credentials("AKIDEXAMPLE", "s3cr3t-of-the-access-key"),
        ca_file: None,
    }
}

fn channel(queue: &str) -> Arc<Sqs> {
    open(settings(queue))
}

fn open(settings: SqsSettings) -> Arc<Sqs> {
    Arc::new(sqs::open(settings, clock()).expect("certificates can be read"))
}

fn topic(moto: &Moto, topic: &str) -> Sns {
    let settings = SnsSettings {
        topic: topic.to_owned(),
        region: REGION.to_owned(),
        endpoint: format!("http://{}", moto.address()).parse().expect("it is a URL"),
        credentials: credentials("AKIDEXAMPLE", "s3cr3t-of-the-access-key"),
        ca_file: None,
    };
    sns::open(settings, clock()).expect("certificates can be read")
}

async fn wait_until_held(moto: &Moto, queue: &str, wanted: (u32, u32)) {
    wait_for(&format!("{wanted:?} in {queue}"), BOUND, async || (moto.held(queue).await == wanted).then_some(())).await;
}

#[test]
fn a_message_makes_the_round_trip_with_its_token_in_body_and_attributes() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let queue = moto.queue().await;
        let channel = channel(&queue);
        assert!(channel.prove(BOUND).await.unwrap().contains("the queue is there"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let first = token();
        let reply = channel.send(&order(first)).await.unwrap();
        assert!(reply.ack.starts_with("stored as "), "{}", reply.ack);
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(first));
        let message = &arrival.message;
        assert_eq!(message.header("journeyman-token"), Some(first.to_string().as_str()));
        assert_eq!(message.header("traceparent"), Some(first.traceparent().as_str()));
        assert_eq!(message.header("x-synthetic"), Some("journeyman"));
        assert_eq!(reply.ack.strip_prefix("stored as "), message.header("message-id"));
        assert_eq!(message.header("receive-count"), Some("1"));
        assert_eq!(message.facts["redelivered"], Value::Bool(false));
        assert_eq!(message.hops.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(), ["queue"]);
        assert!(arrival.at.mono > reply.started.mono, "it arrives after it was sent");
        let phases: Vec<_> = reply.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert!(phases.contains(&"connect") && phases.contains(&"first_byte"), "{phases:?}");
        let total: Duration = reply.phases.iter().map(|phase| phase.took).sum();
        assert!(reply.finished.mono.since(reply.started.mono) < total, "the connection is not part of the latency");
        wait_until_held(moto, &queue, (0, 0)).await;
        receiver.stop().await;
    });
}

#[test]
fn strangers_messages_are_told_once_and_stay_in_the_queue() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let queue = moto.queue().await;
        let theirs = Mint::new([9; 32], 0).issue(clock().now().wall);
        let forged = Token::from_bits(token().bits() ^ 1);
        for body in ["no token at all".to_owned(), theirs.to_string(), forged.to_string()] {
            moto.put(&queue, &body).await;
        }
        let channel = channel(&queue);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(receiver.next().await.message.text().into_owned());
        }
        bodies.sort();
        let mut expected = ["no token at all".to_owned(), theirs.to_string(), forged.to_string()];
        expected.sort();
        assert_eq!(bodies, expected);

        // Ours comes among them, and goes; they are given back once, come back, and are then left alone.
        let ours = token();
        channel.send(&order(ours)).await.unwrap();
        assert_eq!(token_of(&receiver.next().await), Some(ours));
        wait_until_held(moto, &queue, (0, 3)).await;
        assert!(receiver.arrivals.try_recv().is_err(), "told once");
        receiver.stop().await;
        let (visible, hidden) = moto.held(&queue).await;
        assert_eq!(visible + hidden, 3, "nothing of theirs was deleted");
    });
}

#[test]
fn what_was_not_handed_over_is_given_back_and_comes_again_as_redelivered() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let queue = moto.queue().await;
        let channel = channel(&queue);
        let mut blocked = Receiver::with_room(&channel, 1);
        blocked.ready().await;
        let sent: Vec<_> = (0..3).map(|_| token()).collect();
        for token in &sent {
            channel.send(&order(*token)).await.unwrap();
        }
        // One is handed over and deleted, two wait in the reader.
        wait_until_held(moto, &queue, (0, 2)).await;
        let first = token_of(&blocked.next().await);
        // The room that this made is taken by the second.
        wait_until_held(moto, &queue, (0, 1)).await;
        blocked.stop().await;
        wait_until_held(moto, &queue, (1, 0)).await;

        let mut receiver = Receiver::on(&channel);
        let arrival = receiver.next().await;
        assert_ne!(token_of(&arrival), first);
        assert_eq!(arrival.message.facts["redelivered"], Value::Bool(true));
        receiver.stop().await;
    });
}

#[test]
fn a_reader_that_stops_gives_back_what_waits_and_deletes_only_what_it_handed_over() {
    block_on(async {
        // Not moto: it goes on with a poll whose caller has gone, which takes at once what is given back.
        let sent = [token(), token()];
        let (called, mut calls) = mpsc::channel(8);
        let answer = async move |headers: axum::http::HeaderMap, body: String| {
            let asked: serde_json::Value = serde_json::from_str(&body).expect("the protocol is JSON");
            match headers["x-amz-target"].to_str().expect("it is text") {
                "AmazonSQS.GetQueueAttributes" => "{}".to_owned(),
                "AmazonSQS.ReceiveMessage" if asked["WaitTimeSeconds"] == 0 => {
                    let message = |n: usize| json!({ "MessageId": n.to_string(), "ReceiptHandle": n.to_string(), "Body": sent[n].to_string() });
                    json!({ "Messages": [message(0), message(1)] }).to_string()
                }
                "AmazonSQS.ReceiveMessage" => std::future::pending().await,
                other => {
                    let call = (other.to_owned(), asked["ReceiptHandle"].clone(), asked["VisibilityTimeout"].clone());
                    called.send(call).await.expect("the test reads");
                    "{}".to_owned()
                }
            }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let queue = format!("http://{}/123456789012/orders", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/", axum::routing::post(answer));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await });

        let blocked = Receiver::with_room(&channel(&queue), 1);
        let next = calls.recv().await.unwrap();
        assert_eq!(next, ("AmazonSQS.DeleteMessage".to_owned(), json!("0"), json!(null)));
        blocked.stop().await;
        let next = calls.try_recv().unwrap();
        assert_eq!(next, ("AmazonSQS.ChangeMessageVisibility".to_owned(), json!("1"), json!(0)));
        assert!(calls.try_recv().is_err());
    });
}

#[test]
fn a_message_that_came_while_nobody_read_is_there_afterwards() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let queue = moto.queue().await;
        let channel = channel(&queue);
        let early = token();
        channel.send(&order(early)).await.unwrap();
        let reply = channel.check(&Outgoing::empty(BOUND)).await.unwrap();
        let seen = reply.message.unwrap();
        assert_eq!((reply.ack.as_str(), &seen.facts["depth"]), ("seen", &Value::from(1i64)));
        assert_eq!((seen.header("not-visible"), seen.facts.get("consumers")), (Some("0"), None));
        let other = moto.queue().await;
        let elsewhere = Outgoing { fields: [("queue".to_owned(), other)].into(), ..Outgoing::empty(BOUND) };
        let seen = channel.check(&elsewhere).await.unwrap().message.unwrap();
        assert_eq!(seen.facts["depth"], Value::from(0i64));
        assert_eq!(moto.held(&queue).await, (1, 0), "looking takes nothing");

        let mut receiver = Receiver::on(&channel);
        assert_eq!(token_of(&receiver.next().await), Some(early));
        receiver.stop().await;
    });
}

#[test]
fn a_fifo_queue_takes_two_sends_of_one_run_and_keeps_their_order() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let channel = channel(&moto.fifo_queue().await);
        let run = token();
        for n in 0..2 {
            let message = Outgoing { body: format!("{n} {run}").into_bytes(), ..order(run) };
            channel.send(&message).await.unwrap();
        }
        // The same deduplication twice is one message, as the step asks for it.
        let fields = [("group", "g"), ("deduplication", "once")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let once = Outgoing { fields: fields.into(), ..order(token()) };
        for _ in 0..2 {
            channel.send(&once).await.unwrap();
        }
        let last = token();
        channel.send(&order(last)).await.unwrap();

        // All were sent before: moto holds a group back for a whole poll once a message of it is under way.
        let mut receiver = Receiver::on(&channel);
        for n in 0..2 {
            let arrival = receiver.next().await;
            assert_eq!(arrival.message.text(), format!("{n} {run}"));
            assert_eq!(arrival.message.header("message-group-id"), Some("journeyman"));
        }
        let arrival = receiver.next().await;
        assert_eq!(arrival.message.header("message-group-id"), Some("g"));
        assert_eq!(arrival.message.header("message-deduplication-id"), Some("once"));
        assert_eq!(token_of(&receiver.next().await), Some(last), "no second copy before it");
        receiver.stop().await;
    });
}

#[test]
fn a_queue_that_is_not_there_is_unroutable_and_cannot_be_received_on() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let channel = channel(&format!("http://{}/123456789012/no-such-queue", moto.address()));
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unroutable, false), "{fault:?}");
        assert!(
            fault.detail.contains("QueueDoesNotExist") && fault.detail.contains("does not exist"),
            "{}",
            fault.detail
        );
        let mut receiver = Receiver::on(&channel);
        assert!(receiver.down().await.contains("QueueDoesNotExist"));
        receiver.stop().await;
        assert_eq!(channel.prove(BOUND).await.unwrap_err().cause, Cause::Unroutable);
    });
}

#[test]
fn what_cannot_be_a_message_is_refused_before_it_is_sent() {
    block_on(async {
        // Nothing listens: only what is refused before a connection is made can be `refused`.
        let channel = channel(&format!("http://127.0.0.1:{}/1/q", free_port()));
        let many = (0..9).map(|n| (format!("x-{n}"), "v".to_owned())).collect();
        let cases = [
            (Outgoing { body: Vec::new(), ..order(token()) }, "the payload is empty"),
            (Outgoing { body: vec![0xff], ..order(token()) }, "the payload is not text"),
            (Outgoing { headers: many, ..order(token()) }, "10 attributes at most"),
        ];
        for (message, words) in cases {
            let fault = fault(channel.send(&message).await);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false), "{fault:?}");
            assert!(fault.detail.contains(words), "{}", fault.detail);
        }
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
    });
}

#[test]
fn a_signature_is_checked_and_each_way_to_fail_has_its_words() {
    block_on(async {
        let Some(moto) = Moto::private().await else { return };
        // The second for the last reader: moto goes on with a poll whose caller has gone, and would take its message.
        let (queue, last) = (moto.queue().await, moto.queue().await);
        let (id, key) = moto.user(&["sqs:*"]).await;
        let (sender, senders_key) = moto.user(&["sqs:SendMessage"]).await;
        let (reader, readers_key) =
            moto.user(&["sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"]).await;
        moto.check_signatures().await;
        let with = |id: &str, key: &str| open(SqsSettings { credentials: credentials(id, key), ..settings(&queue) });

        let good = with(&id, &key);
        let mut receiver = Receiver::on(&good);
        receiver.ready().await;
        // Spaces, quotes and letters of all sorts are in what is signed.
        let sent = token();
        let headers = vec![("x-text".to_owned(), "  two  spaces, \"ü\" and / ".to_owned())];
        good.send(&Outgoing { headers, body: format!("ä\n{sent}").into_bytes(), ..order(sent) }).await.unwrap();
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(sent));
        assert_eq!(arrival.message.header("x-text"), Some("  two  spaces, \"ü\" and / "));
        receiver.stop().await;

        for (id, key, code) in
            [(&*id, "wr0ng-s3cr3t-key", "SignatureDoesNotMatch"), ("AKIAUNKNOWN", &*key, "InvalidClientTokenId")]
        {
            let bad = with(id, key);
            let refused = fault(bad.send(&order(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
            assert!(refused.detail.contains(code), "{}", refused.detail);
            let mut receiver = Receiver::on(&bad);
            let why = receiver.down().await;
            assert!(why.contains(code), "{why}");
            assert!(!format!("{refused:?} {why}").contains(key), "{refused:?} {why}");
            receiver.stop().await;
        }
        // May send, and not read.
        let sender = with(&sender, &senders_key);
        sender.send(&order(token())).await.unwrap();
        let why = Receiver::on(&sender).down().await;
        assert!(why.contains("AccessDenied") && why.contains("GetQueueAttributes"), "{why}");
        // May read, and not delete: its messages would come again as copies that nobody sent.
        let credentials = credentials(&reader, &readers_key);
        let reader = open(SqsSettings { credentials, ..settings(&last) });
        reader.send(&order(token())).await.unwrap();
        let mut receiver = Receiver::on(&reader);
        let why = receiver.down().await;
        assert!(why.contains("grant sqs:DeleteMessage"), "{why}");
        receiver.stop().await;
    });
}

#[test]
fn everything_that_says_who_we_are_is_signed_and_answers_of_others_are_not_taken() {
    block_on(async {
        // Not moto: it looks at no session token of a user, and answers only as SQS does.
        let (seen, mut requests) = mpsc::channel(8);
        let answer = async move |headers: axum::http::HeaderMap, body: String| {
            seen.send((headers, body)).await.expect("the test reads");
            "{\"SomethingElse\": 1}"
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().route("/", axum::routing::post(answer));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await });

        let credentials = Credentials {
            session_token: Some(secret("t3mp0rary")),
            ..credentials("ASIAEXAMPLE", "s3cr3t-of-the-access-key")
        };
        let queue = format!("http://{address}/123456789012/orders");
        let channel = open(SqsSettings { credentials, ..settings(&queue) });
        let strange = fault(channel.send(&order(token())).await);
        assert_eq!((strange.cause, strange.uncertain), (Cause::Mismatch, true), "{strange:?}");
        let (headers, body) = requests.recv().await.unwrap();
        assert_eq!(headers["x-amz-security-token"], "t3mp0rary");
        assert_eq!(headers["x-amz-target"], "AmazonSQS.SendMessage");
        assert_eq!(headers["content-type"], "application/x-amz-json-1.0");
        let authorization = headers["authorization"].to_str().unwrap();
        let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,";
        assert!(authorization.contains(signed) && authorization.contains("Credential=ASIAEXAMPLE/"), "{authorization}");
        assert!(authorization.contains(&format!("/{REGION}/sqs/aws4_request")), "{authorization}");
        assert!(!authorization.contains("s3cr3t") && !body.contains("s3cr3t"));

        // No TLS where TLS is asked for: nothing was sent.
        let endpoint = Some(format!("https://localhost:{}", address.port()).parse().unwrap());
        let refused = fault(open(SqsSettings { endpoint, ..settings(&queue) }).send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Tls, false), "{refused:?}");
        assert!(requests.try_recv().is_err());
    });
}

#[test]
fn a_topic_delivers_to_a_queue_raw_and_in_an_envelope() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let arn = moto.topic().await;
        let (raw, wrapped) = (moto.queue().await, moto.queue().await);
        moto.subscribe(&arn, &raw, true).await;
        moto.subscribe(&arn, &wrapped, false).await;
        let (raw_channel, wrapped_channel) = (channel(&raw), channel(&wrapped));
        let (mut by_raw, mut by_envelope) = (Receiver::on(&raw_channel), Receiver::on(&wrapped_channel));
        by_raw.ready().await;
        by_envelope.ready().await;

        let topic = topic(moto, &arn);
        assert!(topic.prove(BOUND).await.unwrap().contains("the topic is there"));
        let sent = token();
        let subject = [("subject".to_owned(), "an order".to_owned())].into();
        let reply = topic.send(&Outgoing { fields: subject, ..order(sent) }).await.unwrap();
        assert!(reply.ack.starts_with("published as "), "{}", reply.ack);
        for (receiver, hops) in [(&mut by_raw, &["queue"][..]), (&mut by_envelope, &["topic", "queue"])] {
            let arrival = receiver.next().await;
            let message = &arrival.message;
            assert_eq!(message.text(), format!("{{\"id\":\"{sent}\"}}"));
            assert_eq!(message.header("journeyman-token"), Some(sent.to_string().as_str()));
            assert_eq!(message.header("traceparent"), Some(sent.traceparent().as_str()));
            assert_eq!(message.header("x-synthetic"), Some("journeyman"));
            assert_eq!(message.hops.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(), hops);
            let is_wrapped = hops.len() == 2;
            assert_eq!(message.header("subject"), is_wrapped.then_some("an order"));
            assert_eq!(message.header("topic-arn"), is_wrapped.then_some(arn.as_str()));
        }
        wait_until_held(moto, &raw, (0, 0)).await;
        wait_until_held(moto, &wrapped, (0, 0)).await;
        by_raw.stop().await;
        by_envelope.stop().await;

        let missing = self::topic(moto, &format!("{arn}-missing"));
        let fault = fault(missing.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unroutable, false), "{fault:?}");
        assert!(fault.detail.contains("NotFound"), "{}", fault.detail);
    });
}

#[test]
fn a_cut_says_whether_the_message_may_have_been_taken() {
    block_on(async {
        let Some(moto) = Moto::shared().await else { return };
        let queue = moto.queue().await;
        let proxy = Proxy::start(moto.address()).await;
        let endpoint = Some(format!("http://{}", proxy.address()).parse().unwrap());
        let channel = open(SqsSettings { endpoint, ..settings(&queue) });

        proxy.refuse(true);
        let before = fault(channel.send(&order(token())).await);
        assert_eq!(before.cause, Cause::Unreachable, "{before:?}");
        assert_eq!(moto.held(&queue).await, (0, 0));
        proxy.refuse(false);

        // The answer stays on the way: first until the connection is cut, then until the time is up.
        proxy.set(Direction::ToClient, Flow::Hold);
        let sent = proxy.seen(Direction::ToClient);
        let message = order(token());
        let cutting = async {
            wait_for("the answer to be held", BOUND, async || (proxy.seen(Direction::ToClient) > sent).then_some(()))
                .await;
            proxy.cut();
        };
        let (answer, ()) = tokio::join!(channel.send(&message), cutting);
        let cut = fault(answer);
        assert_eq!((cut.cause, cut.uncertain), (Cause::Unreachable, true), "{cut:?}");
        let message = Outgoing { timeout: Duration::from_millis(500), ..order(token()) };
        let silent = fault(channel.send(&message).await);
        assert!(silent.uncertain && silent.detail.contains("no response"), "{silent:?}");
        wait_until_held(moto, &queue, (2, 0)).await;
        proxy.set(Direction::ToClient, Flow::Pass);
        channel.send(&order(token())).await.unwrap();
    });
}

#[test]
fn a_reader_whose_server_dies_says_so_and_comes_back_by_itself() {
    block_on(async {
        let Some(moto) = Moto::private().await else { return };
        let queue = moto.named_queue("survivor", json!({})).await;
        let channel = channel(&queue);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let address = moto.address();
        let port = moto.kill();
        let why = receiver.down().await;
        assert!(why.contains(&address.to_string()), "{why}");
        let refused = fault(channel.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");

        let moto = Moto::at(port).await.unwrap();
        moto.named_queue("survivor", json!({})).await;
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        assert_eq!(token_of(&receiver.next().await), Some(sent));
        receiver.stop().await;
    });
}
