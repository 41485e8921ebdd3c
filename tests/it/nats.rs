//! The `nats` channel against a real nats-server, and against networks that misbehave.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use futures_util::future::join_all;
use journeyman::channel::nats::{self, NatsSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::value::Value;

use crate::support::certificate::Authority;
use crate::support::document::page_and_example_load;
use crate::support::listening::{
    BOUND, Receiver, assert_stamped_when_here, clock, fault, order, phases, secret, token, token_of, with_field, within,
};
use crate::support::met::{by_name, met};
use crate::support::nats::NatsServer;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{Scratch, block_on, free_port, wait_for};

const STREAM: &str = "ORDERS";

/// A channel that publishes to `orders.created` and receives on `orders.>`.
fn channel(url: &str, change: impl FnOnce(&mut NatsSettings)) -> Arc<dyn Channel> {
    let mut settings = NatsSettings::plain(secret(url));
    settings.subject = "orders.created".to_owned();
    settings.subscribe = Some("orders.>".to_owned());
    change(&mut settings);
    Arc::new(nats::open(settings, clock()).expect("its certificates can be read"))
}

fn with_stream(settings: &mut NatsSettings) {
    settings.stream = Some(STREAM.to_owned());
}

/// Somebody else at the same server, by a client library.
async fn stranger(server: &NatsServer) -> (async_nats::Client, jetstream::Context) {
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    (client.clone(), jetstream::new(client))
}

/// A stream of `orders.>`, made by somebody else.
async fn make_stream(context: &jetstream::Context, change: impl FnOnce(&mut stream::Config)) -> stream::Stream {
    let mut config =
        stream::Config { name: STREAM.to_owned(), subjects: vec!["orders.>".to_owned()], ..stream::Config::default() };
    change(&mut config);
    context.create_stream(config).await.expect("a stream can be made")
}

#[test]
fn a_message_makes_the_round_trip_with_its_headers() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let channel = channel(&server.url(), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let first = token();
        let (reply, seen) = met(channel.send(&order(first))).await;
        let reply = reply.unwrap();
        assert_eq!((reply.ack.as_str(), phases(&reply.phases)), ("socket", vec!["connect", "confirm"]));
        assert!(server.url().ends_with(&seen["peer"]) && seen["server"].starts_with("nats-server 2."), "{seen:?}");
        assert!(seen["node"].len() >= 56, "the server's id: {seen:?}");
        assert_eq!(by_name(&receiver.notes.seen()), seen, "its reader met the same");
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(first));
        for (name, value) in [
            ("nats-subject", "orders.created"),
            ("Nats-Msg-Id", &first.to_string()),
            ("traceparent", &first.traceparent()),
            ("Content-Type", "application/json"),
            ("x-synthetic", "journeyman"),
        ] {
            assert_eq!(arrival.message.header(name), Some(value), "{name}");
        }
        assert!(arrival.at.mono > reply.started.mono, "it arrives after it was sent");
        assert!(arrival.message.facts.is_empty() && arrival.message.hops.is_empty());

        let second = token();
        let (reply, again) = met(channel.send(&with_field(order(second), "subject", "orders.cancelled"))).await;
        assert_eq!(phases(&reply.unwrap().phases), ["confirm"]);
        assert_eq!(again, seen, "over the connection that is kept");
        let arrival = receiver.next().await;
        assert_eq!(
            (token_of(&arrival), arrival.message.header("nats-subject")),
            (Some(second), Some("orders.cancelled"))
        );
        receiver.stop().await;
        let told = channel.prove(BOUND).await.unwrap();
        assert!(told.contains("takes our credentials (nats-server 2."), "{told}");
    });
}

#[test]
fn a_stream_says_where_the_message_is_and_takes_the_same_one_only_once() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (_, context) = stranger(&server).await;
        let mut theirs = make_stream(&context, |_| {}).await;
        context.publish("orders.old", "theirs".into()).await.unwrap().await.unwrap();
        let channel = channel(&server.url(), with_stream);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let first = token();
        assert_eq!(channel.send(&order(first)).await.unwrap().ack, "stream ORDERS, sequence 2");
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(first), "from now on, and nothing older");
        let message = &arrival.message;
        assert_eq!((message.header("nats-stream"), message.header("nats-sequence")), (Some(STREAM), Some("2")));
        assert_eq!(message.facts["redelivered"], Value::Bool(false));
        assert_eq!((message.hops[0].name.as_str(), message.hops.len()), ("stream", 1));
        assert!(message.hops[0].took < BOUND, "{:?}", message.hops);

        // The same again is not stored again, and one with an id of its own or without one is.
        let again = channel.send(&order(first)).await.unwrap();
        assert_eq!(again.ack, "stream ORDERS, sequence 2, a duplicate that was not stored again");
        for (id, ack) in [("mine", "stream ORDERS, sequence 3"), ("", "stream ORDERS, sequence 4")] {
            assert_eq!(channel.send(&with_field(order(first), "message_id", id)).await.unwrap().ack, ack);
            assert_eq!(token_of(&receiver.next().await), Some(first));
        }

        // Nothing was taken from the stream, and our consumer goes with us.
        let info = theirs.info().await.unwrap();
        assert_eq!((info.state.messages, info.state.consumer_count), (4, 1));
        receiver.stop().await;
        wait_for("our consumer to go", BOUND, async || {
            (theirs.info().await.unwrap().state.consumer_count == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn nobody_there_and_no_stream_are_unroutable() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let core = channel(&server.url(), |_| {});
        let nobody = fault(core.send(&order(token())).await);
        assert_eq!((nobody.cause, nobody.uncertain), (Cause::Unroutable, false), "{nobody:?}");
        assert_eq!(nobody.detail, "nobody subscribes to it: subject `orders.created` (no responders, 503)");

        let jet = channel(&server.url(), with_stream);
        let nobody = fault(jet.send(&order(token())).await);
        assert_eq!((nobody.cause, nobody.uncertain), (Cause::Unroutable, false), "{nobody:?}");
        assert!(nobody.detail.starts_with("nobody answers for subject `orders.created`: no such stream"), "{nobody:?}");
        let mut receiver = Receiver::on(&jet);
        let why = receiver.down().await;
        assert!(why.contains("stream `ORDERS`: stream not found"), "{why}");

        let (_, context) = stranger(&server).await;
        make_stream(&context, |_| {}).await;
        receiver.ready().await;
        jet.send(&order(token())).await.unwrap();
    });
}

#[test]
fn sends_at_the_same_time_each_get_their_own_verdict() {
    block_on(async {
        let permissions = "authorization { users = [ { user: probe, password: pass, permissions: { \
             publish: [\"orders.>\", \"nobody.>\"], subscribe: [\"orders.>\", \"_INBOX.>\"] } } ] }";
        let Some(server) = NatsServer::with(Scratch::new("nats"), permissions).await else { return };
        let channel = channel(&format!("nats://probe:pass@{}", server.address()), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let subjects = ["orders.created", "nobody.there", "forbidden.here"];
        let messages: Vec<_> =
            (0..60).map(|index| with_field(order(token()), "subject", subjects[index % 3])).collect();
        let answers = join_all(messages.iter().map(|message| channel.send(message))).await;
        for (index, answer) in answers.into_iter().enumerate() {
            let cause = answer.map(|reply| reply.ack).map_err(|fault| (fault.cause, fault.uncertain));
            let expected = match index % 3 {
                0 => Ok("socket".to_owned()),
                1 => Err((Cause::Unroutable, false)),
                _ => Err((Cause::Auth, false)),
            };
            assert_eq!(cause, expected, "{index}");
        }
        for message in messages.iter().step_by(3) {
            assert_eq!(token_of(&receiver.next().await), Some(message.token), "in order");
        }
    });
}

#[test]
fn what_a_server_or_a_stream_will_not_take_is_told_apart() {
    block_on(async {
        let Some(server) = NatsServer::with(Scratch::new("nats"), "max_payload: 2000").await else { return };
        let (_, context) = stranger(&server).await;
        make_stream(&context, |config| {
            config.max_messages = 1;
            config.max_message_size = 1_000;
            config.discard = stream::DiscardPolicy::New;
        })
        .await;
        let jet = channel(&server.url(), with_stream);
        jet.send(&order(token())).await.unwrap();
        let large = |size: usize| Outgoing { body: vec![b'x'; size], ..order(token()) };
        let mut header = order(token());
        header.headers.push(("x".to_owned(), "a\nb".to_owned()));
        for (message, cause, words) in [
            (order(token()), Cause::Rejected, "maximum messages exceeded"),
            (large(1_000), Cause::Refused, "message size exceeds maximum allowed"),
            (large(2_000), Cause::Refused, "takes 2000 (`max_payload`)"),
            (header, Cause::Refused, "line break"),
            (with_field(order(token()), "subject", "orders.*"), Cause::Refused, "no wildcards"),
        ] {
            let fault = fault(jet.send(&message).await);
            assert_eq!((fault.cause, fault.uncertain), (cause, false), "{fault:?}");
            assert!(fault.detail.contains(words), "{fault:?}");
        }
        // The connection is the first one still, and a subject of another stream is told.
        let other =
            stream::Config { name: "OTHER".into(), subjects: vec!["other".into()], ..stream::Config::default() };
        context.create_stream(other).await.unwrap();
        let wrong = fault(jet.send(&with_field(order(token()), "subject", "other")).await);
        assert_eq!((wrong.cause, phases(&wrong.phases)), (Cause::Refused, vec!["confirm"]), "{wrong:?}");
        assert!(wrong.detail.contains("expected stream does not match"), "{wrong:?}");
    });
}

#[test]
fn credentials_and_permissions_are_auth_and_secrets_are_not_repeated() {
    block_on(async {
        let key = nkeys::KeyPair::new_user();
        let users = format!(
            "authorization {{ users = [ {{ user: probe, password: r1ght-passw0rd }}, {{ nkey: {} }}, \
             {{ user: locked, password: pass, permissions: {{ publish: \"orders.created\", subscribe: \"orders.done\" }} }} ] }}",
            key.public_key()
        );
        let Some(server) = NatsServer::with(Scratch::new("nats"), &users).await else { return };
        let wrong_seed = nkeys::KeyPair::new_user().seed().unwrap();
        let right_seed = key.seed().unwrap();
        let wrongs: [&dyn Fn(&mut NatsSettings); 5] = [
            &|settings| settings.user = Some("probe".to_owned()),
            &|settings| {
                settings.user = Some("probe".to_owned());
                settings.password = Some(secret("wr0ng-passw0rd"));
            },
            &|settings| settings.token = Some(secret("wr0ng-passw0rd")),
            &|settings| settings.nkey = Some(secret(&wrong_seed)),
            &|settings| settings.creds = Some(secret("wr0ng-passw0rd")),
        ];
        for change in wrongs {
            let wrong = channel(&server.url(), change);
            let refused = fault(wrong.send(&order(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
            let why = Receiver::on(&wrong).down().await;
            let proof = wrong.prove(BOUND).await.unwrap_err();
            let told = format!("{refused:?} {why} {proof:?}");
            assert!(!told.contains("wr0ng") && !told.contains(&wrong_seed), "{told}");
        }
        let rights: [&dyn Fn(&mut NatsSettings); 2] = [
            &|settings| {
                settings.user = Some("probe".to_owned());
                settings.password = Some(secret("r1ght-passw0rd"));
            },
            &|settings| settings.nkey = Some(secret(&right_seed)),
        ];
        for change in rights {
            let right = channel(&server.url(), change);
            let mut receiver = Receiver::on(&right);
            receiver.ready().await;
            let sent = token();
            right.send(&order(sent)).await.unwrap();
            assert_eq!(token_of(&receiver.next().await), Some(sent));
        }

        // Allowed one subject each way and nothing else: no inbox, and so no word on nobody being there.
        let locked = format!("nats://locked:pass@{}", server.address());
        let narrow = channel(&locked, |settings| settings.subscribe = Some("orders.done".to_owned()));
        let mut receiver = Receiver::on(&narrow);
        receiver.ready().await;
        assert_eq!(narrow.send(&order(token())).await.unwrap().ack, "socket");
        let refused = fault(narrow.send(&with_field(order(token()), "subject", "orders.done")).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("Permissions Violation for Publish to \"orders.done\""), "{refused:?}");
        let wide = channel(&locked, |_| {});
        let why = Receiver::on(&wide).down().await;
        assert!(why.contains("Permissions Violation for Subscription to \"orders.>\""), "{why}");
        let jet = channel(&locked, with_stream);
        let refused = fault(jet.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("let the user subscribe to `_INBOX.>`, or set `inbox_prefix`"), "{refused:?}");
    });
}

#[test]
fn certificates_are_checked_against_the_name_the_date_and_the_issuer() {
    block_on(async {
        let scratch = Scratch::new("certificates");
        let authority = Authority::new("ca", scratch.path());
        let cases = [
            ("localhost", false, true, None),
            ("localhost", false, false, Some("is from an issuer that is not trusted")),
            ("elsewhere.test", false, true, Some("is for another name")),
            ("localhost", true, true, Some("has expired")),
        ];
        for (name, is_expired, is_trusted, problem) in cases {
            let (certificate, key) = authority.issue_files(&scratch, name, is_expired);
            let lines = format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate.display(), key.display());
            let Some(server) = NatsServer::with(Scratch::new("nats"), &lines).await else { return };
            // Whether we ask for TLS, or the server does.
            for scheme in ["tls", "nats"] {
                let channel = channel(&format!("{scheme}://localhost:{}", server.address().port()), |settings| {
                    settings.ca_file = is_trusted.then(|| authority.ca_file.clone());
                });
                let mut receiver = Receiver::on(&channel);
                match problem {
                    None => {
                        receiver.ready().await;
                        let sent = token();
                        channel.send(&order(sent)).await.unwrap();
                        assert_eq!(token_of(&receiver.next().await), Some(sent));
                    }
                    Some(words) => {
                        let fault = fault(channel.send(&order(token())).await);
                        assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
                        assert!(fault.detail.contains(words), "{fault:?}");
                        let why = receiver.down().await;
                        assert!(why.contains(words), "{why}");
                    }
                }
            }
        }
        // No password is said to a server that offers no TLS where it was asked for.
        let Some(server) = NatsServer::start().await else { return };
        let channel = channel(&format!("tls://probe:pass@{}", server.address()), |settings| {
            settings.ca_file = Some(authority.ca_file.clone());
        });
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
        assert!(fault.detail.contains("offers no TLS"), "{fault:?}");
    });
}

#[test]
fn nothing_listening_and_a_server_that_says_nothing_are_unreachable_for_certain() {
    use tokio::io::AsyncReadExt;
    block_on(async {
        let port = free_port();
        let closed = channel(&format!("nats://127.0.0.1:{port}"), |_| {});
        let refused = fault(closed.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{refused:?}");
        assert!(Receiver::on(&closed).down().await.contains(&format!("127.0.0.1:{port}")));

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = channel(&format!("nats://127.0.0.1:{port}"), |_| {});
        let message = within(order(token()), Duration::from_millis(300));
        let (answer, accepted) = tokio::join!(silent.send(&message), listener.accept());
        let fault = fault(answer);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
        assert_eq!(fault.detail, format!("no answer from 127.0.0.1:{port} within 300ms while waiting for its INFO"));
        let mut rest = Vec::new();
        let reading = tokio::time::timeout(BOUND, accepted.unwrap().0.read_to_end(&mut rest)).await;
        assert!(reading.is_ok() && rest.is_empty(), "the connection was left open, or something was said");
    });
}

#[test]
fn a_connection_cut_between_publish_and_acknowledgement_is_uncertain_and_nothing_is_sent_twice() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (_, context) = stranger(&server).await;
        let mut stored = make_stream(&context, |_| {}).await;
        for change in [with_stream, |_: &mut NatsSettings| {}] {
            let direct = channel(&server.url(), |_| {});
            let mut receiver = Receiver::on(&direct);
            receiver.ready().await;
            let proxy = Proxy::start(server.address()).await;
            let channel = channel(&format!("nats://{}", proxy.address()), change);
            channel.send(&order(token())).await.unwrap();
            receiver.next().await;

            proxy.set(Direction::ToClient, Flow::Hold);
            let second = token();
            let message = order(second);
            let cut_on_arrival = async {
                assert_eq!(token_of(&receiver.next().await), Some(second));
                proxy.cut();
            };
            let (answer, ()) = tokio::join!(channel.send(&message), cut_on_arrival);
            let fault = fault(answer);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{fault:?}");
            assert!(fault.detail.contains("lost the connection"), "{}", fault.detail);

            proxy.set(Direction::ToClient, Flow::Pass);
            let third = token();
            assert_eq!(phases(&channel.send(&order(third)).await.unwrap().phases), ["connect", "confirm"]);
            assert_eq!(token_of(&receiver.next().await), Some(third));
            assert!(receiver.arrivals.try_recv().is_err());
        }
        assert_eq!(stored.info().await.unwrap().state.messages, 6, "three a round");
    });
}

#[test]
fn an_acknowledgement_that_does_not_come_is_uncertain_and_the_next_message_gets_a_new_connection() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let proxy = Proxy::start(server.address()).await;
        let channel = channel(&format!("nats://{}", proxy.address()), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        proxy.set(Direction::ToClient, Flow::Hold);
        let fault = fault(channel.send(&within(order(token()), Duration::from_millis(300))).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Uncertain, true), "{fault:?}");
        assert!(fault.detail.starts_with("no acknowledgement from 127.0.0.1:"), "{}", fault.detail);
        proxy.set(Direction::ToClient, Flow::Pass);
        assert_eq!(phases(&channel.send(&order(token())).await.unwrap().phases), ["connect", "confirm"]);
    });
}

#[test]
fn a_connection_that_hangs_is_noticed_by_its_keep_alive() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let proxy = Proxy::start(server.address()).await;
        let channel = channel(&format!("nats://{}", proxy.address()), |settings| {
            settings.keep_alive = Duration::from_secs(1);
        });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        // A quiet one is not a dead one.
        let later = clock().now().mono + Duration::from_secs(3);
        wait_for("time to pass", BOUND, async || (clock().now().mono > later).then_some(())).await;
        assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);
        proxy.set(Direction::ToClient, Flow::Hold);
        let why = receiver.down().await;
        assert!(why.contains("no answer to our PING"), "{why}");
        proxy.set(Direction::ToClient, Flow::Pass);
        receiver.ready().await;
    });
}

#[test]
fn a_killed_server_is_told_and_both_directions_come_back_by_themselves() {
    block_on(async {
        let Some(mut server) = NatsServer::start().await else { return };
        let channel = channel(&server.url(), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;

        server.kill();
        let why = receiver.down().await;
        assert!(why.contains("127.0.0.1:"), "{why}");
        // The publisher has a connection of its own, and may learn of it with the next message.
        let fault = wait_for("a verdict", BOUND, async || {
            channel.send(&order(token())).await.err().filter(|fault| !fault.uncertain)
        });
        assert_eq!(fault.await.cause, Cause::Unreachable);

        server.start_again().await;
        receiver.ready().await;
        let sent = token();
        assert_eq!(phases(&channel.send(&order(sent)).await.unwrap().phases), ["connect", "confirm"]);
        assert_eq!(token_of(&receiver.next().await), Some(sent));
    });
}

#[test]
fn a_stream_brings_what_came_while_the_reader_was_away_and_nothing_twice() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (_, context) = stranger(&server).await;
        make_stream(&context, |_| {}).await;
        let proxy = Proxy::start(server.address()).await;
        let receiving = channel(&format!("nats://{}", proxy.address()), with_stream);
        let sending = channel(&server.url(), with_stream);
        let mut receiver = Receiver::on(&receiving);
        receiver.ready().await;
        let sent: Vec<_> = (0..6).map(|_| token()).collect();
        for (index, token) in sent.iter().enumerate() {
            match index {
                2 => {
                    proxy.refuse(true);
                    proxy.cut();
                    receiver.down().await;
                }
                4 => {
                    proxy.refuse(false);
                    receiver.ready().await;
                }
                _ => {}
            }
            sending.send(&order(*token)).await.unwrap();
        }
        for token in &sent {
            assert_eq!(token_of(&receiver.next().await), Some(*token), "in order");
        }

        // A stream that is made anew counts from one: the reader begins with it.
        context.delete_stream(STREAM).await.unwrap();
        make_stream(&context, |_| {}).await;
        proxy.cut();
        receiver.down().await;
        receiver.ready().await;
        let last = token();
        assert_eq!(sending.send(&order(last)).await.unwrap().ack, "stream ORDERS, sequence 1");
        assert_eq!(token_of(&receiver.next().await), Some(last));
        assert!(receiver.arrivals.try_recv().is_err());
    });
}

#[test]
fn a_consumer_that_is_gone_is_missed() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (_, context) = stranger(&server).await;
        make_stream(&context, |_| {}).await;
        let channel = channel(&server.url(), |settings| {
            with_stream(settings);
            settings.keep_alive = Duration::from_secs(1);
        });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        context.delete_stream(STREAM).await.unwrap();
        let why = receiver.down().await;
        assert!(why.contains("has had no word of our consumer for 1.5"), "{why}");
        make_stream(&context, |_| {}).await;
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        assert_eq!(token_of(&receiver.next().await), Some(sent));
    });
}

#[test]
fn strangers_lose_nothing_to_us_and_do_not_disturb() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (client, context) = stranger(&server).await;
        let mut theirs = make_stream(&context, |_| {}).await;
        let durable =
            consumer::pull::Config { durable_name: Some("worker".into()), ..consumer::pull::Config::default() };
        let mut worker = theirs.create_consumer(durable).await.unwrap();
        let mut group = client.queue_subscribe("orders.>", "workers".into()).await.unwrap();
        client.flush().await.unwrap();
        context.publish("orders.old", "theirs".into()).await.unwrap().await.unwrap();

        for change in [with_stream, |_: &mut NatsSettings| {}] {
            let channel = channel(&server.url(), change);
            let mut receiver = Receiver::on(&channel);
            receiver.ready().await;
            // Headers of a kind that nobody needs, and a payload that is no text.
            let mut headers = async_nats::HeaderMap::new();
            headers.append("X-Twice", "1");
            headers.append("X-Twice", "2");
            client.publish_with_headers("orders.odd", headers, vec![0xff, 0x00, 0xfe].into()).await.unwrap();
            client.publish("orders.large", vec![b'x'; 200_000].into()).await.unwrap();
            client.flush().await.unwrap();
            let odd = receiver.next().await;
            let twice: Vec<_> = odd
                .message
                .headers
                .iter()
                .filter(|(name, _)| name == "X-Twice")
                .map(|(_, value)| value.as_str())
                .collect();
            assert_eq!((odd.message.body.as_slice(), twice), (&[0xff, 0x00, 0xfe][..], vec!["1", "2"]));
            assert_eq!(receiver.next().await.message.body.len(), 200_000);
            let ours = token();
            channel.send(&order(ours)).await.unwrap();
            assert_eq!(token_of(&receiver.next().await), Some(ours));
            assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);
            receiver.stop().await;
        }
        assert_eq!(theirs.info().await.unwrap().state.messages, 7);
        assert_eq!(worker.info().await.unwrap().num_pending, 7, "nothing was taken from the worker");
        for _ in 0..7 {
            tokio::time::timeout(BOUND, group.next()).await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_stream_and_a_consumer_can_be_looked_at_without_taking_anything() {
    block_on(async {
        let Some(server) = NatsServer::start().await else { return };
        let (_, context) = stranger(&server).await;
        let theirs = make_stream(&context, |_| {}).await;
        let durable =
            consumer::pull::Config { durable_name: Some("worker".into()), ..consumer::pull::Config::default() };
        let worker = theirs.create_consumer(durable).await.unwrap();
        for _ in 0..5 {
            context.publish("orders.created", "x".into()).await.unwrap().await.unwrap();
        }
        // Two are out with the worker, and one of them is done.
        let mut batch = worker.fetch().max_messages(2).messages().await.unwrap();
        let first = batch.next().await.unwrap().unwrap();
        batch.next().await.unwrap().unwrap();
        first.double_ack().await.unwrap();

        let channel = channel(&server.url(), with_stream);
        let seen = channel.check(&order(token())).await.unwrap().message.unwrap();
        assert_eq!((&seen.facts["depth"], &seen.facts["consumers"]), (&Value::from(5), &Value::from(1)));
        assert!(matches!(seen.facts["oldest_age"], Value::Duration(age) if age < BOUND), "{:?}", seen.facts);
        for _ in 0..2 {
            let seen = channel.check(&with_field(order(token()), "consumer", "worker")).await.unwrap().message.unwrap();
            let facts = ["depth", "lag", "value", "consumers"].map(|name| seen.facts[name].clone());
            assert_eq!(facts, [4, 3, 0, 1].map(Value::from));
            assert_eq!(seen.header("num-ack-pending"), Some("1"));
        }
        for (field, name, words) in [
            ("stream", "MISSING", "stream not found"),
            ("consumer", "missing", "consumer not found"),
            ("stream", "a.b", "`a.b` is not the name of a stream"),
        ] {
            let fault = fault(channel.check(&with_field(order(token()), field, name)).await);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false), "{fault:?}");
            assert!(fault.detail.contains(words), "{fault:?}");
        }
    });
}

#[test]
fn an_arrival_is_stamped_when_it_is_here_even_if_nobody_takes_it() {
    block_on(async {
        for change in [with_stream, |_: &mut NatsSettings| {}] {
            let Some(mut server) = NatsServer::start().await else { return };
            let (_, context) = stranger(&server).await;
            make_stream(&context, |_| {}).await;
            let channel = channel(&server.url(), change);
            // What is here stays here, whatever becomes of the server.
            assert_stamped_when_here(&channel, 300, || server.kill()).await;
        }
    });
}

#[test]
fn without_a_subject_it_says_what_is_missing_and_what_it_cannot_do_it_says_too() {
    block_on(async {
        let channel = channel("nats://127.0.0.1:1", |settings| settings.subscribe = None);
        let mut receiver = Receiver::on(&channel);
        assert!(receiver.down().await.contains("has no subject to receive on"));
        receiver.stop().await;
        assert_eq!(fault(channel.request(&order(token())).await).cause, Cause::Refused);
        let nothing = fault(channel.check(&order(token())).await);
        assert!(nothing.detail.contains("give the step or the channel a `stream`"), "{nothing:?}");
    });
}

#[test]
fn the_page_and_the_example_load() {
    page_and_example_load("nats", &["secrets/events-nats.creds"]);
}
