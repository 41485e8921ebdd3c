//! The `kafka` channel against a real broker, against one that fails on request, and against networks that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::kafka::{self, Acks, Kafka, KafkaSettings, Mechanism, SaslSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::message::{Message, Part};
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::Token;
use journeyman::journey::value::Value;
use journeyman::secret::{Redactor, Secret};
use krafka::error::ErrorCode;
use krafka::testing::{ApiKey, Control, FakeBroker};
use tokio::task::JoinSet;

use crate::support::listening::{BOUND, Receiver, clock, fault, phases, token, within};
use crate::support::met::met;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::scram_listener::ScramListener;
use crate::support::tansu::{self, Tansu};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port, wait_for};

fn settings(broker: SocketAddr) -> KafkaSettings {
    KafkaSettings {
        brokers: vec![(broker.ip().to_string(), broker.port())],
        topic: "orders".to_owned(),
        receive_topic: "orders".to_owned(),
        acks: Acks::All,
        tls: false,
        ca_file: None,
        sasl: None,
        client_id: kafka::CLIENT_ID.to_owned(),
        fetch_wait: kafka::FETCH_WAIT,
    }
}

fn opened(settings: KafkaSettings) -> Arc<Kafka> {
    Arc::new(kafka::open(settings, clock()).expect("the settings are in order"))
}

fn channel(broker: SocketAddr) -> Arc<Kafka> {
    opened(settings(broker))
}

fn order(token: Token, fields: &[(&str, &str)]) -> Outgoing {
    let mut outgoing = Outgoing::empty(Duration::from_secs(10));
    outgoing.token = token;
    outgoing.headers = vec![("x-synthetic".to_owned(), "journeyman".to_owned())];
    outgoing.body = format!("{{\"id\":\"{token}\"}}").into_bytes();
    outgoing.content_type = Some("application/json");
    outgoing.fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    outgoing
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message.header(name).unwrap_or_else(|| panic!("no {name} in {:?}", message.headers))
}

/// A broker behind a proxy: its clients are told to come to the proxy, whichever of them they asked.
async fn behind_a_proxy() -> Option<(Tansu, Proxy)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let proxy = Proxy::start(address).await;
    Some((Tansu::start_at(address, proxy.address()).await?, proxy))
}

#[test]
fn a_message_makes_the_round_trip_with_its_token_in_key_and_headers() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        let channel = channel(broker.address());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let first = token();
        let (reply, seen) = met(channel.send(&order(first, &[]))).await;
        let reply = reply.unwrap();
        assert_eq!(seen["peer"], broker.address().to_string());
        assert!(seen["node"].starts_with("broker ") && seen["node"].ends_with("leads partition 0"), "{seen:?}");
        assert_eq!(reply.ack, "acks=all: partition 0, offset 0");
        assert_eq!(phases(&reply.phases), ["connect", "ack"]);
        let arrival = receiver.next().await;
        let message = &arrival.message;
        assert_eq!(Token::find_all(&message.body).next(), Some(first));
        let token_text = first.to_string();
        let traceparent = first.traceparent();
        let expected = [
            ("journeyman-token", token_text.as_str()),
            ("kafka-key", &token_text),
            ("traceparent", &traceparent),
            ("x-synthetic", "journeyman"),
            ("content-type", "application/json"),
            ("kafka-topic", "orders"),
            ("kafka-partition", "0"),
            ("kafka-offset", "0"),
            ("kafka-timestamp-type", "CreateTime"),
        ];
        for (name, value) in expected {
            assert_eq!(header(message, name), value, "{name}");
        }
        assert_eq!(message.part, None);
        assert_eq!(message.hops.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>(), ["since create"]);
        assert!(arrival.at.mono > reply.started.mono, "it arrives after it was sent");
        assert!(reply.finished.mono.since(reply.started.mono) < BOUND);

        // The connection is kept, and a step's own key goes before ours.
        let (reply, again) = met(channel.send(&order(token(), &[("key", "customer-7")]))).await;
        let reply = reply.unwrap();
        assert_eq!(again, seen);
        assert_eq!((reply.ack.as_str(), phases(&reply.phases)), ("acks=all: partition 0, offset 1", vec!["ack"]));
        assert_eq!(header(&receiver.next().await.message, "kafka-key"), "customer-7");
        receiver.stop().await;
    });
}

#[test]
fn one_message_goes_to_each_partition_and_each_says_which_part_it_is() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 3).await;
        let channel = channel(broker.address());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let reply = channel.send(&order(token(), &[("partition", "each")])).await.unwrap();
        assert_eq!(reply.ack, "acks=all: 3 partitions");
        let mut parts = Vec::new();
        for _ in 0..3 {
            let message = receiver.next().await.message;
            parts.push((
                message.part.expect("it says which part it is"),
                header(&message, "kafka-partition").to_owned(),
            ));
        }
        parts.sort();
        let part = |index| (Part { index, of: 3 }, index.to_string());
        assert_eq!(parts, [part(0), part(1), part(2)]);

        let reply = channel.send(&order(token(), &[("partition", "2")])).await.unwrap();
        assert_eq!(reply.ack, "acks=all: partition 2, offset 1");
        assert_eq!(receiver.next().await.message.part, None);
        // The same key leads to the same partition, and tokens do not all lead to one.
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            channel.send(&order(token(), &[])).await.unwrap();
            seen.insert(header(&receiver.next().await.message, "kafka-partition").to_owned());
        }
        assert!(seen.len() > 1, "{seen:?}");
    });
}

#[test]
fn a_topic_or_partition_that_is_not_there_is_unroutable_and_is_not_made_by_asking() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 2).await;
        let channel = channel(broker.address());
        for _ in 0..2 {
            let fault = fault(channel.send(&order(token(), &[("topic", "missing")])).await);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unroutable, false), "{fault:?}");
            assert!(fault.detail.contains("topic `missing`") && fault.detail.contains("create it"), "{fault:?}");
        }
        let fault = fault(channel.send(&order(token(), &[("partition", "2")])).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unroutable, false), "{fault:?}");
        assert!(fault.detail.contains("the topic has 2 partitions"), "{fault:?}");
        let told = self::fault(channel.send(&order(token(), &[("partition", "first")])).await);
        assert_eq!(told.cause, Cause::Refused);
    });
}

#[test]
fn it_is_ready_when_every_partition_has_a_position_and_not_before() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        let channel = channel(broker.address());
        let mut receiver = Receiver::on(&channel);
        let why = receiver.down().await;
        assert!(why.contains("topic `orders`") && why.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{why}");
        broker.create_topic("orders", 3).await;
        broker.write("orders", 1, "before").await;
        receiver.ready().await;
        // What was there before is not read; what comes now is, wherever it goes.
        for partition in 0..3 {
            broker.write("orders", partition, &format!("after {partition}")).await;
        }
        let mut payloads = receiver.payloads(3).await;
        payloads.sort();
        assert_eq!(payloads, ["after 0", "after 1", "after 2"]);
    });
}

#[test]
fn what_strangers_wrote_is_read_and_left_where_it_is() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        broker.write("orders", 0, "theirs, before").await;
        let channel = channel(broker.address());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        broker.write("orders", 0, "theirs").await;
        channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(receiver.payloads(1).await, ["theirs"]);
        receiver.next().await;
        channel.check(&order(token(), &[])).await.unwrap();
        receiver.stop().await;
        assert_eq!(broker.end("orders", 0).await, 3);
        // No group was joined, no offset committed: there is nothing of ours to expire or to clean up.
        let groups = broker.client().await.admin().list_consumer_groups(Default::default()).await.unwrap();
        assert!(groups.values().all(|listed| listed.as_ref().is_ok_and(Vec::is_empty)), "{groups:?}");
        // Another reader still finds all of it.
        assert_eq!(broker.payloads("orders", 0).await[..2], ["theirs, before", "theirs"]);
    });
}

#[test]
fn what_came_while_the_connection_was_away_is_read_afterwards_and_once() {
    block_on(async {
        let Some((broker, proxy)) = behind_a_proxy().await else { return };
        broker.create_topic("orders", 2).await;
        // The way in is another than the one to the leader, so that others can write while we cannot come back.
        let entrance = Proxy::start(broker.address()).await;
        let channel = channel(entrance.address());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        broker.write("orders", 0, "1").await;
        assert_eq!(receiver.payloads(1).await, ["1"]);
        entrance.refuse(true);
        proxy.cut();
        let why = receiver.down().await;
        assert!(why.contains("lost the connection") || why.contains("cannot"), "{why}");
        for (at, partition) in [(2, 0), (3, 1), (4, 0)] {
            broker.write("orders", partition, &at.to_string()).await;
        }
        entrance.refuse(false);
        receiver.ready().await;
        let mut payloads = receiver.payloads(3).await;
        payloads.sort();
        assert_eq!(payloads, ["2", "3", "4"]);
        broker.write("orders", 1, "5").await;
        assert_eq!(receiver.payloads(1).await, ["5"], "nothing comes twice");
    });
}

#[test]
fn a_slow_taker_loses_nothing_and_stamps_are_not_its_own() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        let channel = channel(broker.address());
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        let sent: Vec<_> = (0..10).map(|_| token()).collect();
        let mut finished = Clock::system().now().wall;
        for token in &sent {
            finished = channel.send(&order(*token, &[])).await.unwrap().finished.wall;
        }
        let mut arrived = Vec::new();
        for _ in &sent {
            let arrival = receiver.next().await;
            arrived.extend(Token::find_all(&arrival.message.body).next());
            assert!(arrival.at.wall < finished + Duration::from_secs(5));
        }
        assert_eq!(arrived, sent, "in order, each once");
    });
}

#[test]
fn a_broker_that_is_killed_and_comes_back_empty_is_down_and_then_ready_again() {
    block_on(async {
        let Some(mut broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        let channel = channel(broker.address());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token(), &[])).await.unwrap();
        receiver.next().await;

        broker.kill();
        receiver.down().await;
        let lost = fault(channel.send(&order(token(), &[])).await);
        assert_eq!((lost.cause, lost.uncertain), (Cause::Unreachable, false), "{lost:?}");

        broker.restart().await;
        broker.create_topic("orders", 1).await;
        let after = token();
        let sent = async || channel.send(&order(after, &[])).await.ok();
        wait_for("a send", BOUND, sent).await;
        receiver.ready().await;
        // It is another topic of the same name: all that is in it came since.
        assert_eq!(Token::find_all(&receiver.next().await.message.body).next(), Some(after));
    });
}

#[test]
fn nothing_listening_is_unreachable_and_another_broker_is_asked() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let alone = channel(nobody);
        let told = fault(alone.send(&order(token(), &[])).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Unreachable, false), "{told:?}");
        assert!(told.detail.contains(&nobody.to_string()), "{told:?}");
        let mut both = settings(nobody);
        both.brokers.push((broker.address().ip().to_string(), broker.address().port()));
        let both = opened(both);
        both.send(&order(token(), &[])).await.unwrap();
        let proved = both.prove(BOUND).await.unwrap();
        let expected = "answers; topic `orders` has 1 partition, led by 1 broker";
        assert!(proved.ends_with(expected), "{proved}");
        assert_eq!(broker.end("orders", 0).await, 1, "a proof leaves no trace");
    });
}

#[test]
fn a_name_that_does_not_resolve_and_a_server_of_another_kind_are_told_apart() {
    block_on(async {
        let mut unknown = settings(SocketAddr::from(([127, 0, 0, 1], 1)));
        unknown.brokers = vec![("broker.invalid".to_owned(), 9_092)];
        let told = fault(opened(unknown).send(&order(token(), &[])).await);
        assert_eq!(told.cause, Cause::Unreachable);
        assert!(told.detail.contains("cannot resolve broker.invalid:9092"), "{told:?}");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut servers = JoinSet::new();
        servers.spawn(async move {
            for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0x15, 3, 3, 0, 2, 2, 10]] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 512];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await;
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
            }
            // And one that never says anything.
            let held = listener.accept().await;
            std::future::pending::<()>().await;
            drop(held);
        });
        let channel = channel(address);
        let http = fault(channel.send(&order(token(), &[])).await);
        assert!(http.cause == Cause::Unreachable && http.detail.contains("does not speak Kafka"), "{http:?}");
        let tls = fault(channel.send(&order(token(), &[])).await);
        assert!(tls.cause == Cause::Tls && tls.detail.contains("write `tls = true`"), "{tls:?}");
        let silent = fault(channel.send(&within(order(token(), &[]), Duration::from_millis(300))).await);
        assert_eq!((silent.cause, silent.uncertain), (Cause::Unreachable, false), "{silent:?}");
    });
}

#[test]
fn a_connection_that_ended_between_two_messages_is_replaced_before_the_second() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let channel = channel(address);
        channel.send(&order(token(), &[])).await.unwrap();
        broker.crash(0);
        let ended = async || (broker.open_connections() == 0).then_some(());
        wait_for("the connections to end", BOUND, ended).await;
        let told = fault(channel.send(&order(token(), &[])).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Unreachable, false), "nothing was sent: {told:?}");
        broker.restart(0);
        let reply = channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(phases(&reply.phases), ["connect", "ack"]);
        assert_eq!(broker.next_offset("orders", 0), Some(2));
    });
}

#[test]
fn a_confirmation_goes_over_connections_that_were_made_for_it() {
    block_on(async {
        let Some((broker, proxy)) = behind_a_proxy().await else { return };
        broker.create_topic("orders", 1).await;
        let clock = Clock::system();
        let channel = kafka::open(settings(proxy.address()), clock).expect("the settings are in order");
        channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(phases(&channel.send(&order(token(), &[])).await.unwrap().phases), ["ack"]);
        proxy.stall();
        let since = Some(clock.now().mono);
        let confirming = |since| Outgoing { connected_since: since, ..order(token(), &[]) };
        assert_eq!(phases(&channel.send(&confirming(since)).await.unwrap().phases), ["connect", "ack"]);
        assert_eq!(phases(&channel.send(&confirming(since)).await.unwrap().phases), ["ack"], "it is new enough still");
        assert_eq!(broker.end("orders", 0).await, 4);
    });
}

#[test]
fn a_message_without_an_acknowledgement_is_uncertain_whether_it_is_there_or_not() {
    block_on(async {
        let Some((broker, proxy)) = behind_a_proxy().await else { return };
        broker.create_topic("orders", 1).await;
        let channel = channel(proxy.address());
        channel.send(&order(token(), &[])).await.unwrap();

        // The acknowledgement stays on its way: the broker has the message, and we cannot know.
        proxy.set(Direction::ToClient, Flow::Hold);
        let silent = fault(channel.send(&within(order(token(), &[]), Duration::from_millis(400))).await);
        assert_eq!((silent.cause, silent.uncertain), (Cause::Uncertain, true), "{silent:?}");
        assert!(silent.detail.contains("no acknowledgement from"), "{silent:?}");
        proxy.set(Direction::ToClient, Flow::Pass);
        channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(broker.end("orders", 0).await, 3, "nothing is sent twice");

        // The connection ends before the broker has seen anything of it.
        proxy.set(Direction::ToServer, Flow::Hold);
        let seen = proxy.seen(Direction::ToServer);
        let message = order(token(), &[]);
        let sending = channel.send(&message);
        let cutting = async {
            wait_for("the request", BOUND, async || (proxy.seen(Direction::ToServer) > seen).then_some(())).await;
            proxy.cut();
        };
        let (sent, ()) = tokio::join!(sending, cutting);
        let cut = fault(sent);
        assert_eq!((cut.cause, cut.uncertain), (Cause::Unreachable, true), "{cut:?}");
        proxy.set(Direction::ToServer, Flow::Pass);
        channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(broker.end("orders", 0).await, 4, "nothing is sent twice");
    });
}

#[test]
fn acknowledgements_are_those_that_were_asked_for() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 1).await;
        for (acks, expected) in [(Acks::Leader, "acks=leader: partition 0, offset 0"), (Acks::None, "socket")] {
            let mut settings = settings(broker.address());
            settings.acks = acks;
            let reply = opened(settings).send(&order(token(), &[])).await.unwrap();
            assert_eq!(reply.ack, expected);
        }
    });
}

#[test]
fn a_groups_lag_is_seen_without_joining_it() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        broker.create_topic("orders", 2).await;
        for (partition, count) in [(0, 3), (1, 2)] {
            for at in 0..count {
                broker.write("orders", partition, &format!("{at}")).await;
            }
        }
        let channel = channel(broker.address());
        let look = async |fields: &[(&str, &str)]| channel.check(&order(token(), fields)).await;
        let seen = look(&[]).await.unwrap().message.unwrap();
        assert_eq!(seen.facts["depth"], Value::from(5));
        assert_eq!(seen.facts.get("lag"), None);

        let unknown = fault(look(&[("group", "billing")]).await);
        assert!(unknown.cause == Cause::Refused && unknown.detail.contains("group `billing`"), "{unknown:?}");

        broker.commit("billing", "orders", 0, 1).await;
        broker.commit("billing", "orders", 1, 2).await;
        for fields in [&[("group", "billing")][..], &[("group", "billing"), ("topic", "orders")]] {
            let seen = look(fields).await.unwrap().message.unwrap();
            assert_eq!((&seen.facts["lag"], &seen.facts["depth"]), (&Value::from(2), &Value::from(2)));
            assert_eq!(seen.facts["consumers"], Value::from(0));
            let Value::Duration(age) = seen.facts["oldest_age"] else { panic!("{:?}", seen.facts) };
            assert!(age < BOUND, "{age:?}");
            let partition = &seen.json().unwrap()["topics"][0]["partitions"][0];
            let expected = serde_json::json!({"partition": 0, "first": 0, "end": 3, "committed": 1, "lag": 2});
            assert_eq!(*partition, expected);
        }
        let elsewhere = fault(look(&[("group", "billing"), ("topic", "missing")]).await);
        assert!(elsewhere.detail.contains("on topic `missing`"), "{elsewhere:?}");

        broker.commit("billing", "orders", 0, 3).await;
        let seen = look(&[("group", "billing")]).await.unwrap().message.unwrap();
        assert_eq!(seen.facts["lag"], Value::from(0));
        assert_eq!(seen.facts["oldest_age"], Value::Duration(Duration::ZERO));
        let told = fault(look(&[("topic", "missing")]).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Unroutable, false));
    });
}

/// A broker that fails on request, with the topic `orders`.
async fn fake(partitions: i32) -> (FakeBroker, SocketAddr) {
    let broker = FakeBroker::start().await.expect("loopback has a free port");
    broker.create_topic("orders", partitions);
    let address = broker.broker_addr(0).expect("it listens");
    (broker, address)
}

#[test]
fn a_brokers_no_is_told_at_once_and_nothing_is_tried_again() {
    block_on(async {
        let cases = [
            (ErrorCode::NotEnoughReplicas, Cause::Rejected, false),
            (ErrorCode::NotEnoughReplicasAfterAppend, Cause::Rejected, true),
            (ErrorCode::TopicAuthorizationFailed, Cause::Auth, false),
            (ErrorCode::MessageTooLarge, Cause::Refused, false),
            (ErrorCode::RequestTimedOut, Cause::Uncertain, true),
            (ErrorCode::NotLeaderForPartition, Cause::Rejected, false),
            (ErrorCode::KafkaStorageException, Cause::Rejected, false),
        ];
        let (broker, address) = fake(1).await;
        let channel = channel(address);
        for (code, cause, uncertain) in cases {
            broker.clear_requests();
            broker.on_once(ApiKey::Produce, move |_| Control::Error(code));
            let told = fault(channel.send(&order(token(), &[])).await);
            assert_eq!((told.cause, told.uncertain), (cause, uncertain), "{told:?}");
            assert!(told.detail.contains("partition 0 of topic `orders`"), "{told:?}");
            assert_eq!(broker.request_count(ApiKey::Produce), 1, "{code:?}");
            channel.send(&order(token(), &[])).await.unwrap();
        }
    });
}

#[test]
fn a_message_that_was_taken_before_the_connection_ended_is_uncertain_and_there_once() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let channel = channel(address);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        broker.on_once(ApiKey::Produce, |_| Control::ApplyThen(Box::new(Control::Disconnect)));
        let taken = token();
        let told = fault(channel.send(&order(taken, &[])).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Unreachable, true), "{told:?}");
        assert_eq!(Token::find_all(&receiver.next().await.message.body).next(), Some(taken));
        broker.on_once(ApiKey::Produce, |_| Control::Silence);
        let told = fault(channel.send(&within(order(token(), &[]), Duration::from_millis(300))).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Uncertain, true), "{told:?}");
        assert_eq!(broker.next_offset("orders", 0), Some(1));
        // The broker still owes an answer on that connection; the next message does not wait behind it.
        channel.send(&within(order(token(), &[]), Duration::from_secs(2))).await.unwrap();
        assert_eq!(broker.next_offset("orders", 0), Some(2));
    });
}

#[test]
fn one_partition_that_refuses_decides_over_the_others() {
    block_on(async {
        let broker = FakeBroker::start_cluster(2).await.unwrap();
        broker.create_topic("orders", 2);
        broker.set_leader("orders", 0, 0);
        broker.set_leader("orders", 1, 1);
        let channel = channel(broker.broker_addr(0).unwrap());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let reply = channel.send(&order(token(), &[("partition", "each")])).await.unwrap();
        assert_eq!(reply.ack, "acks=all: 2 partitions");
        receiver.next().await;
        receiver.next().await;
        broker.on_once(ApiKey::Produce, |_| Control::Error(ErrorCode::NotEnoughReplicas));
        let told = fault(channel.send(&order(token(), &[("partition", "each")])).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Rejected, false), "{told:?}");
        assert!(told.detail.starts_with("1 of 2 partitions: "), "{told:?}");
    });
}

#[test]
fn a_broker_that_throttles_us_is_told_and_kept_to() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let channel = channel(address);
        broker.set_throttle(ApiKey::Produce, Duration::from_millis(400));
        let reply = channel.send(&order(token(), &[])).await.unwrap();
        assert!(reply.ack.ends_with("; throttled for 400ms"), "{}", reply.ack);
        // The next one waits for as long as the broker wants quiet, and shows that.
        broker.set_throttle(ApiKey::Produce, Duration::from_secs(60));
        let reply = channel.send(&order(token(), &[])).await.unwrap();
        let took = reply.finished.mono.since(reply.started.mono);
        assert!(took > Duration::from_millis(200), "{took:?}");
        let told = fault(channel.send(&within(order(token(), &[]), Duration::from_secs(2))).await);
        assert_eq!((told.cause, told.uncertain), (Cause::Throttled, false), "{told:?}");
        assert!(told.detail.contains("our quota is used up"), "{told:?}");
    });
}

#[test]
fn credentials_that_are_not_accepted_are_auth_and_in_no_message() {
    block_on(async {
        let (broker, address) = fake(1).await;
        broker.require_sasl_plain("probe", "right-password");
        let with = |mechanism, password: &str| {
            let mut settings = settings(address);
            let password = Secret::new(password.to_owned(), &Redactor::new());
            settings.sasl = Some(SaslSettings { mechanism, user: "probe".to_owned(), password });
            opened(settings)
        };
        let right = with(Mechanism::Plain, "right-password");
        right.send(&order(token(), &[])).await.unwrap();
        let mut receiver = Receiver::on(&right);
        receiver.ready().await;
        let proved = right.prove(BOUND).await.unwrap();
        assert!(proved.contains("takes our credentials"), "{proved}");

        let wrong = with(Mechanism::Plain, "wrong-password");
        let mut receiver = Receiver::on(&wrong);
        let told = [
            fault(wrong.send(&order(token(), &[])).await),
            wrong.prove(BOUND).await.unwrap_err(),
            fault(wrong.check(&order(token(), &[])).await),
            fault(with(Mechanism::ScramSha512, "wrong-password").send(&order(token(), &[])).await),
        ];
        for told in told {
            assert_eq!((told.cause, told.uncertain), (Cause::Auth, false), "{told:?}");
            assert!(!format!("{told:?}").contains("wrong-password"), "{told:?}");
        }
        let why = receiver.down().await;
        assert!(why.contains("SASL_AUTHENTICATION_FAILED") && !why.contains("wrong-password"), "{why}");

        let nobody = fault(channel(address).send(&order(token(), &[])).await);
        assert!(nobody.cause == Cause::Unreachable && nobody.detail.contains("wants `sasl`"), "{nobody:?}");
    });
}

#[test]
fn scram_proves_that_both_sides_know_the_password() {
    block_on(async {
        let listener = ScramListener::start("probe", "right-password").await;
        let with = |password: &str| {
            let mut settings = settings(listener.address());
            let password = Secret::new(password.to_owned(), &Redactor::new());
            settings.sasl =
                Some(SaslSettings { mechanism: Mechanism::ScramSha256, user: "probe".to_owned(), password });
            opened(settings)
        };
        let told = fault(with("wrong-password").send(&order(token(), &[])).await);
        assert_eq!((told.cause, listener.let_in()), (Cause::Auth, 0), "{told:?}");
        assert!(told.detail.contains("user `probe`: SASL_AUTHENTICATION_FAILED"), "{told:?}");
        assert!(!format!("{told:?}").contains("wrong-password"), "{told:?}");
        // It lets us in, and knows no topics.
        let told = fault(with("right-password").send(&order(token(), &[])).await);
        assert_eq!((told.cause, told.uncertain, listener.let_in()), (Cause::Unreachable, false, 1), "{told:?}");
    });
}

#[test]
fn a_topic_that_we_may_see_and_not_read_is_not_ready() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let refused = Control::Error(ErrorCode::TopicAuthorizationFailed);
        broker.on(ApiKey::Fetch, move |_| Control::DelayThen(Duration::from_millis(200), Box::new(refused.clone())));
        let channel = channel(address);
        let mut receiver = Receiver::on(&channel);
        assert!(broker.wait_for_requests(ApiKey::Fetch, 1, BOUND).await);
        assert_eq!(*receiver.readiness.borrow(), Readiness::Starting, "its positions alone do not make it ready");
        let why = receiver.down().await;
        assert!(why.contains("TOPIC_AUTHORIZATION_FAILED"), "{why}");
        broker.clear_hooks();
        receiver.ready().await;
    });
}

#[test]
fn new_partitions_are_noticed_and_nothing_in_them_is_missed() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let channel = channel(address);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        broker.add_partitions("orders", 3);
        // Before we have looked again.
        let kafka = broker.kafka().connect().await.unwrap();
        tansu::write(&kafka, "orders", 2, "early").await;
        assert_eq!(receiver.payloads(1).await, ["early"]);
        assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);
    });
}

#[test]
fn a_leader_that_moves_is_followed() {
    block_on(async {
        let broker = FakeBroker::start_cluster(2).await.unwrap();
        broker.create_topic("orders", 1);
        broker.set_leader("orders", 0, 0);
        let channel = channel(broker.broker_addr(0).unwrap());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token(), &[])).await.unwrap();
        receiver.next().await;
        broker.set_leader("orders", 0, 1);
        let why = receiver.down().await;
        assert!(why.contains("partition 0 of topic `orders`"), "{why}");
        receiver.ready().await;
        let after = token();
        let sent = async || channel.send(&order(after, &[])).await.ok();
        wait_for("a send", BOUND, sent).await;
        assert_eq!(Token::find_all(&receiver.next().await.message.body).next(), Some(after));
    });
}

#[test]
fn members_of_a_group_are_counted() {
    block_on(async {
        let (broker, address) = fake(1).await;
        let kafka = broker.kafka().connect().await.unwrap();
        tansu::write(&kafka, "orders", 0, "one").await;
        tansu::write(&kafka, "orders", 0, "two").await;
        let consumer = kafka.consumer("billing").build().await.unwrap();
        consumer.subscribe(["orders"]).await.unwrap();
        consumer.poll(Duration::from_millis(100)).await.unwrap();
        let position =
            [(krafka::consumer::TopicPartition::new("orders", 0), krafka::consumer::OffsetAndMetadata::new(1))];
        consumer.commit_offsets(position).await.unwrap();
        let seen = channel(address).check(&order(token(), &[("group", "billing")])).await.unwrap().message.unwrap();
        assert_eq!((&seen.facts["lag"], &seen.facts["consumers"]), (&Value::from(1), &Value::from(1)));
    });
}

#[test]
fn tls_is_spoken_and_bad_certificates_are_told_apart() {
    block_on(async {
        let scratch = Scratch::new("kafka-tls");
        // Its clients are told to come to where TLS is spoken.
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let front = TlsFront::start(address, Shown::Good, scratch.path()).await;
        let Some(broker) = Tansu::start_at(address, front.address()).await else { return };
        let ca_file = front.ca_file().to_str().unwrap();
        let tls = krafka::auth::TlsConfig::new().with_ca_cert(ca_file);
        let security = krafka::auth::AuthConfig::ssl(tls);
        let kafka = krafka::Kafka::builder(front.address().to_string()).security(security).connect().await.unwrap();
        tansu::create_topic(&kafka, "orders", 1).await;
        let with = |address, ca_file: &std::path::Path| {
            let mut settings = settings(address);
            (settings.tls, settings.ca_file) = (true, Some(ca_file.to_owned()));
            opened(settings)
        };
        let channel = with(front.address(), front.ca_file());
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent, &[])).await.unwrap();
        assert_eq!(Token::find_all(&receiver.next().await.message.body).next(), Some(sent));
        // A lane that is kept is looked at before it is used again, also under TLS.
        let reply = channel.send(&order(token(), &[])).await.unwrap();
        assert_eq!(phases(&reply.phases), ["ack"]);

        for (shown, words) in
            [(Shown::WrongHost, "for another name"), (Shown::Expired, "has expired"), (Shown::Unknown, "not trusted")]
        {
            let front = TlsFront::start(broker.address(), shown, scratch.path()).await;
            let channel = with(front.address(), front.ca_file());
            let told = fault(channel.send(&order(token(), &[])).await);
            assert_eq!((told.cause, told.uncertain), (Cause::Tls, false), "{told:?}");
            assert!(told.detail.contains(words), "{told:?}");
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains(words), "{why}");
        }
    });
}

#[test]
fn the_page_and_the_example_load_as_they_are() {
    let page = std::fs::read_to_string("docs/channels/kafka.md").unwrap();
    let blocks: Vec<_> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).collect();
    let [(channel, _), (probe, _)] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let example = std::fs::read_to_string("probes/examples/kafka.toml").unwrap();
    let commented: String =
        example.lines().skip(3).map_while(|line| line.strip_prefix("# ")).map(|line| format!("{line}\n")).collect();
    let scratch = Scratch::new("kafka-page");
    scratch.write("secrets/kafka-password", "a password");
    for (channel, probe) in [(channel, probe), (&commented, &example)] {
        let loaded = journeyman::config::load_text("page.toml", channel, &[("probe.toml", probe)], scratch.path());
        let (plan, problems) =
            loaded.unwrap_or_else(|problems| panic!("{}", journeyman::config::render(&problems, false)));
        assert_eq!(plan.journeys.len(), 2);
        assert!(plan.journeys.iter().all(|journey| journey.unavailable.is_none()));
        assert!(problems.iter().all(|problem| !problem.is_error()));
    }
}
