//! The `mqtt` channel against a real Mosquitto, and against networks that misbehave.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use journeyman::channel::mqtt::{self, MqttSettings, Version};
use journeyman::channel::{Channel, Readiness};
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::Token;
use journeyman::journey::value::Value;
use rumqttc_v5::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use tokio::task::JoinSet;

use crate::support::certificate::Authority;
use crate::support::document::page_and_example_load;
use crate::support::listening::{
    BOUND, Receiver, assert_stamped_when_here, clock, fault, order, phases, secret, token, token_of, with_field, within,
};
use crate::support::mosquitto::{Mosquitto, password_file};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{Scratch, block_on, free_port, wait_for};

const VERSIONS: [Version; 2] = [Version::V5, Version::V311];

/// A channel that publishes to `orders/created` and receives on `orders/#`.
fn settings(url: &str) -> MqttSettings {
    MqttSettings {
        version: Version::V5,
        url: secret(url),
        user: None,
        password: None,
        ca_file: None,
        topic: "orders/created".to_owned(),
        subscribe: Some("orders/#".to_owned()),
        qos: 1,
        keep_alive: Duration::from_secs(10),
    }
}

fn open(settings: MqttSettings) -> Arc<dyn Channel> {
    Arc::new(mqtt::open(settings, clock()).expect("its certificates can be read"))
}

fn channel(url: &str, change: impl FnOnce(&mut MqttSettings)) -> Arc<dyn Channel> {
    let mut settings = settings(url);
    change(&mut settings);
    open(settings)
}

/// Somebody else at the same broker, by the client library alone.
struct Stranger {
    client: AsyncClient,
    events: EventLoop,
}

impl Stranger {
    fn new(broker: &Mosquitto, id: &str) -> Stranger {
        let mut options = MqttOptions::new(id, ("127.0.0.1", broker.address().port()));
        options.set_clean_start(false).set_session_expiry_interval(Some(600)).set_unlimited_incoming_packet_size();
        let (client, events) = AsyncClient::builder(options).capacity(64).build();
        Stranger { client, events }
    }

    async fn turn_until(&mut self, mut wanted: impl FnMut(&Packet) -> bool) {
        let turning = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await.expect("the broker is there")
                    && wanted(&packet)
                {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, turning).await.expect("it comes in time");
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.expect("the loop runs");
        self.turn_until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    async fn publish(&mut self, topic: &str, payload: &str, options: PublishOptions) {
        self.client.publish(topic, payload.to_owned(), options).await.expect("the loop runs");
        self.turn_until(|packet| matches!(packet, Packet::PubAck(_))).await;
    }

    /// The payloads of the next messages.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        self.turn_until(|packet| {
            if let Packet::Publish(publish) = packet {
                taken.push(String::from_utf8_lossy(&publish.payload).into_owned());
            }
            taken.len() == count
        })
        .await;
        taken
    }
}

#[test]
fn a_message_makes_the_round_trip_with_every_quality_of_service() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let channel = channel(&broker.url(), |settings| settings.qos = 2);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        for (qos, ack, more) in [("0", "socket", true), ("1", "puback", false), ("2", "pubcomp", false)] {
            let sent = token();
            let reply = channel.send(&with_field(order(sent), "qos", qos)).await.unwrap();
            assert_eq!(reply.ack, ack);
            let expected: &[&str] = if more { &["connect", "confirm"] } else { &["confirm"] };
            assert_eq!(phases(&reply.phases), expected);
            let arrival = receiver.next().await;
            assert_eq!(token_of(&arrival), Some(sent));
            let message = &arrival.message;
            for (name, value) in [
                ("topic", "orders/created"),
                ("qos", qos),
                ("retain", "false"),
                ("dup", "false"),
                ("traceparent", &sent.traceparent()),
                ("correlation-data", &sent.to_string()),
                ("content-type", "application/json"),
                ("message-expiry-interval", "3600"),
                ("x-synthetic", "journeyman"),
            ] {
                assert_eq!(message.header(name), Some(value), "QoS {qos}: {name}");
            }
            assert_eq!(message.facts["redelivered"], Value::Bool(false));
            assert!(arrival.at.mono > reply.started.mono, "it arrives after it was sent");
            assert!(reply.finished.mono.since(reply.started.mono) < BOUND);
        }
        let elsewhere = with_field(order(token()), "topic", "orders/cancelled");
        channel.send(&elsewhere).await.unwrap();
        assert_eq!(receiver.next().await.message.header("topic"), Some("orders/cancelled"));
    });
}

#[test]
fn the_old_version_carries_the_token_in_the_payload_alone() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let channel = channel(&broker.url(), |settings| {
            settings.version = Version::V311;
            settings.qos = 2;
        });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        for (qos, ack) in [("0", "socket"), ("1", "puback"), ("2", "pubcomp")] {
            let sent = token();
            assert_eq!(channel.send(&with_field(order(sent), "qos", qos)).await.unwrap().ack, ack);
            let arrival = receiver.next().await;
            assert_eq!(token_of(&arrival), Some(sent));
            let names: Vec<_> = arrival.message.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["topic", "qos", "retain", "dup"]);
            assert_eq!(arrival.message.header("qos"), Some(qos));
        }
        let refused = fault(channel.send(&with_field(order(token()), "retain", "true")).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
        let told = channel.prove(BOUND).await.unwrap();
        assert!(told.ends_with("takes our credentials and speaks MQTT 3.1.1"), "{told}");
    });
}

#[test]
fn sends_at_the_same_time_each_get_their_own_verdict() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let channel = channel(&broker.url(), |settings| settings.subscribe = Some("orders/created".to_owned()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        // More than the broker has in flight to or from us at once. It says of QoS 1 alone that nobody subscribes.
        let is_unwanted = |index: usize| index.is_multiple_of(6);
        let messages: Vec<_> = (0..60)
            .map(|index| {
                let message = with_field(order(token()), "qos", if index % 2 == 0 { "1" } else { "2" });
                if is_unwanted(index) { with_field(message, "topic", "nobody/wants/this") } else { message }
            })
            .collect();
        let taking = async {
            let mut taken = Vec::new();
            while taken.len() < 50 {
                taken.extend(token_of(&receiver.next().await));
            }
            taken
        };
        let (answers, mut taken) = tokio::join!(join_all(messages.iter().map(|message| channel.send(message))), taking);
        let mut sent = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            let cause = answer.map(|reply| reply.ack).map_err(|fault| (fault.cause, fault.uncertain, fault.detail));
            let unwanted = "nobody subscribes to it: topic `nobody/wants/this`, QoS 1 (no matching subscribers, 0x10)";
            let expected = match index {
                _ if is_unwanted(index) => Err((Cause::Unroutable, false, unwanted.to_owned())),
                _ if index % 2 == 0 => Ok("puback".to_owned()),
                _ => Ok("pubcomp".to_owned()),
            };
            assert_eq!(cause, expected, "{index}");
            sent.extend((!is_unwanted(index)).then_some(messages[index].token));
        }
        sent.sort();
        taken.sort();
        assert_eq!(sent, taken);
    });
}

#[test]
fn a_lower_quality_than_asked_for_is_not_ready_and_says_so() {
    block_on(async {
        let Some(broker) = Mosquitto::with(Scratch::new("mosquitto"), "allow_anonymous true\nmax_qos 0\n").await else {
            return;
        };
        for version in VERSIONS {
            let channel = channel(&broker.url(), |settings| settings.version = version);
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains("grants QoS 0 on `orders/#` and not the QoS 1 that was asked for"), "{why}");
        }
        // The new version says beforehand what it will not take; the connection stays.
        let channel = channel(&broker.url(), |_| {});
        let refused = fault(channel.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
        assert!(refused.detail.contains("it takes QoS 0 at most"), "{refused:?}");
        assert_eq!(phases(&channel.send(&with_field(order(token()), "qos", "0")).await.unwrap().phases), ["confirm"]);
    });
}

#[test]
fn what_the_broker_will_not_take_is_refused_and_the_connection_stays() {
    block_on(async {
        let lines = "allow_anonymous true\nmax_packet_size 1000\nretain_available false\n";
        let Some(broker) = Mosquitto::with(Scratch::new("mosquitto"), lines).await else { return };
        let channel = channel(&broker.url(), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        let mut large = order(token());
        large.body = vec![b'x'; 1_000];
        for (message, words) in [
            (large, "it takes 1000 (packet too large, 0x95)"),
            (with_field(order(token()), "retain", "true"), "it keeps no messages (retain not supported, 0x9a)"),
            (with_field(order(token()), "topic", "orders/#"), "no wildcards"),
        ] {
            let refused = fault(channel.send(&message).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
            assert!(refused.detail.contains(words), "{refused:?}");
        }
        assert_eq!(phases(&channel.send(&order(token())).await.unwrap().phases), ["confirm"]);
    });
}

#[test]
fn credentials_and_permissions_are_auth_and_secrets_are_not_repeated() {
    block_on(async {
        let scratch = Scratch::new("mosquitto");
        let users = [("probe", "r1ght-passw0rd"), ("reader", "r1ght-passw0rd")];
        let Some(passwords) = password_file(scratch.path(), &users) else { return };
        let acl = scratch.write("acl", "user probe\ntopic readwrite orders/#\nuser reader\ntopic read other/#\n");
        let lines =
            format!("password_file {}\nacl_file {}\nallow_anonymous false\n", passwords.display(), acl.display());
        let Some(broker) = Mosquitto::with(scratch, &lines).await else { return };
        for version in VERSIONS {
            let wrong = channel(&format!("mqtt://probe:wr0ng-passw0rd@{}", broker.address()), |settings| {
                settings.version = version
            });
            let refused = fault(wrong.send(&order(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
            let why = Receiver::on(&wrong).down().await;
            let proof = wrong.prove(BOUND).await.unwrap_err();
            assert_eq!(proof.cause, Cause::Auth);
            assert!(why.contains("did not let us in"), "{why}");
            assert!(!format!("{refused:?} {why} {proof:?}").contains("wr0ng"), "{refused:?} {why}");

            // Beside the URL goes before what is in it.
            let right = channel(&format!("mqtt://other:wr0ng@{}", broker.address()), |settings| {
                settings.version = version;
                settings.user = Some("probe".to_owned());
                settings.password = Some(secret("r1ght-passw0rd"));
            });
            let mut receiver = Receiver::on(&right);
            receiver.ready().await;
            let sent = token();
            right.send(&order(sent)).await.unwrap();
            assert_eq!(token_of(&receiver.next().await), Some(sent));
        }
        // Known, and not allowed to publish. The old version has no word for that.
        let reader = channel(&format!("mqtt://reader:r1ght-passw0rd@{}", broker.address()), |_| {});
        for qos in ["1", "2"] {
            let refused = fault(reader.send(&with_field(order(token()), "qos", qos)).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
            assert!(refused.detail.ends_with("not authorized (0x87)"), "{refused:?}");
        }
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
            let lines =
                format!("allow_anonymous true\ncertfile {}\nkeyfile {}\n", certificate.display(), key.display());
            let Some(broker) = Mosquitto::with(Scratch::new("mosquitto"), &lines).await else { return };
            let channel = channel(&format!("mqtts://localhost:{}", broker.address().port()), |settings| {
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
    });
}

#[test]
fn nothing_listening_and_a_broker_that_says_nothing_are_unreachable_for_certain() {
    use tokio::io::AsyncReadExt;
    block_on(async {
        let port = free_port();
        let closed = channel(&format!("mqtt://127.0.0.1:{port}"), |_| {});
        let refused = fault(closed.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{refused:?}");
        assert_eq!(phases(&refused.phases), ["connect"]);
        assert!(Receiver::on(&closed).down().await.contains(&format!("127.0.0.1:{port}")));

        for version in VERSIONS {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let silent = channel(&format!("mqtt://127.0.0.1:{port}"), |settings| settings.version = version);
            let message = within(order(token()), Duration::from_millis(300));
            let (answer, accepted) = tokio::join!(silent.send(&message), listener.accept());
            let fault = fault(answer);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
            assert_eq!(fault.detail, format!("no answer from 127.0.0.1:{port} within 300ms while greeting it in MQTT"));
            let mut rest = Vec::new();
            let reading = tokio::time::timeout(BOUND, accepted.unwrap().0.read_to_end(&mut rest)).await;
            assert!(reading.is_ok(), "the connection was left open");
            assert_eq!(&rest[2..8], b"\0\x04MQTT");
        }
    });
}

#[test]
fn a_connection_cut_between_publish_and_acknowledgement_is_uncertain_and_nothing_is_sent_twice() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        for (version, qos) in VERSIONS.into_iter().flat_map(|version| [(version, 1), (version, 2)]) {
            let direct = channel(&broker.url(), |settings| settings.qos = 2);
            let mut receiver = Receiver::on(&direct);
            receiver.ready().await;
            let proxy = Proxy::start(broker.address()).await;
            let channel = channel(&format!("mqtt://{}", proxy.address()), |settings| {
                settings.version = version;
                settings.qos = qos;
            });
            channel.send(&order(token())).await.unwrap();
            receiver.next().await;

            proxy.set(Direction::ToClient, Flow::Hold);
            let (second, seen) = (token(), proxy.seen(Direction::ToClient));
            let message = order(second);
            let cut_on_answer = async {
                // The broker has it, and its answer is held.
                wait_for("the broker's answer", BOUND, async || (proxy.seen(Direction::ToClient) > seen).then_some(()))
                    .await;
                proxy.cut();
            };
            let (answer, ()) = tokio::join!(channel.send(&message), cut_on_answer);
            let fault = fault(answer);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{fault:?}");
            assert!(fault.detail.contains("lost the connection"), "{}", fault.detail);

            proxy.set(Direction::ToClient, Flow::Pass);
            let third = token();
            assert_eq!(phases(&channel.send(&order(third)).await.unwrap().phases), ["connect", "confirm"]);
            // Once or not at all: QoS 2 had not been released yet.
            let mut next = receiver.next().await;
            if token_of(&next) == Some(second) {
                next = receiver.next().await;
            }
            assert_eq!(token_of(&next), Some(third), "QoS {qos}");
            assert!(receiver.arrivals.try_recv().is_err());
        }
    });
}

#[test]
fn an_acknowledgement_that_does_not_come_is_uncertain_and_the_next_message_gets_a_new_connection() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let proxy = Proxy::start(broker.address()).await;
        let url = format!("mqtt://{}", proxy.address());
        let channel = channel(&url, |settings| settings.version = Version::V311);
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
        let Some(broker) = Mosquitto::start().await else { return };
        let proxy = Proxy::start(broker.address()).await;
        let url = format!("mqtt://{}", proxy.address());
        let mut receivers: Vec<_> = VERSIONS
            .into_iter()
            .map(|version| {
                let channel = channel(&url, |settings| {
                    settings.version = version;
                    settings.keep_alive = Duration::from_secs(1);
                });
                Receiver::on(&channel)
            })
            .collect();
        for receiver in &mut receivers {
            receiver.ready().await;
        }
        proxy.set(Direction::ToClient, Flow::Hold);
        for receiver in &mut receivers {
            let why = receiver.down().await;
            assert!(why.contains("no answer to our keep-alive"), "{why}");
        }
        proxy.set(Direction::ToClient, Flow::Pass);
        for receiver in &mut receivers {
            receiver.ready().await;
        }
    });
}

#[test]
fn a_killed_broker_is_told_and_both_directions_come_back_by_themselves() {
    block_on(async {
        let Some(mut broker) = Mosquitto::start().await else { return };
        for version in VERSIONS {
            let channel = channel(&broker.url(), |settings| settings.version = version);
            let mut receiver = Receiver::on(&channel);
            receiver.ready().await;
            channel.send(&order(token())).await.unwrap();
            receiver.next().await;

            broker.kill();
            let why = receiver.down().await;
            assert!(why.contains("127.0.0.1:"), "{why}");
            // The publisher has a connection of its own, and may learn of it with the next message.
            let fault = wait_for("a verdict", BOUND, async || {
                channel.send(&order(token())).await.err().filter(|fault| !fault.uncertain)
            });
            assert_eq!(fault.await.cause, Cause::Unreachable);

            broker.start_again().await;
            receiver.ready().await;
            let sent = token();
            assert_eq!(phases(&channel.send(&order(sent)).await.unwrap().phases), ["connect", "confirm"]);
            assert_eq!(token_of(&receiver.next().await), Some(sent));
            receiver.stop().await;
        }
    });
}

/// A broker of MQTT 5 that answers each packet, by its first byte and the rest, as it is told to.
async fn scripted(answer: impl Fn(u8, &[u8]) -> Vec<u8> + Send + 'static) -> (String, JoinSet<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let url = format!("mqtt://{}", listener.local_addr().expect("it is bound"));
    let mut broker = JoinSet::new();
    broker.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            // Every packet of these tests is shorter than 128 bytes but the messages, which are shorter than 16384.
            while let Ok(first) = client.read_u8().await {
                let low = client.read_u8().await.expect("a whole packet");
                let high = if low >= 128 { client.read_u8().await.expect("a whole packet") } else { 0 };
                let mut rest = vec![0; usize::from(low & 127) + usize::from(high) * 128];
                client.read_exact(&mut rest).await.expect("a whole packet");
                let said = if first == 0x10 { b"\x20\x03\0\0\0".to_vec() } else { answer(first, &rest) };
                client.write_all(&said).await.expect("the client is there");
            }
        }
    });
    (url, broker)
}

/// The packet identifier of a message, after its topic.
fn packet_of(publish: &[u8]) -> [u8; 2] {
    let at = 2 + usize::from(publish[0]) * 256 + usize::from(publish[1]);
    [publish[at], publish[at + 1]]
}

#[test]
fn nobody_subscribes_is_heard_half_way_through_quality_of_service_2() {
    block_on(async {
        let (url, _broker) = scripted(|first, rest| match first {
            // Every second message is nobody's.
            0x34 => [&[0x50, 0x03][..], &packet_of(rest), &[if rest.ends_with(b"!") { 0x10 } else { 0x00 }]].concat(),
            0x62 => [&[0x70, 0x02], &rest[..2]].concat(),
            _ => Vec::new(),
        })
        .await;
        let channel = channel(&url, |settings| settings.qos = 2);
        let messages: Vec<_> = (0..10)
            .map(|index| {
                let mut message = order(token());
                message.body.extend(if index % 2 == 0 { b"!" } else { b"." });
                message
            })
            .collect();
        let answers = join_all(messages.iter().map(|message| channel.send(message))).await;
        for (index, answer) in answers.into_iter().enumerate() {
            match index % 2 {
                0 => assert_eq!(fault(answer).cause, Cause::Unroutable, "{index}"),
                _ => assert_eq!(answer.unwrap().ack, "pubcomp", "{index}"),
            }
        }
    });
}

#[test]
fn the_brokers_reasons_are_verdicts_and_its_goodbye_is_none() {
    block_on(async {
        for (said, cause, uncertain, words) in [
            (0x97, Cause::Throttled, false, "quota exceeded (0x97)"),
            (0x99, Cause::Refused, false, "payload format invalid (0x99)"),
            (0x83, Cause::Rejected, false, "implementation specific error (0x83)"),
            // A goodbye for the rate of messages, which may or may not have been taken.
            (0x96, Cause::Throttled, true, "ended the connection: message rate too high (0x96)"),
        ] {
            let (url, _broker) = scripted(move |first, rest| match (first, said) {
                (0x32, 0x96) => vec![0xe0, 0x02, 0x96, 0x00],
                (0x32, _) => [&[0x40, 0x03][..], &packet_of(rest), &[said]].concat(),
                _ => Vec::new(),
            })
            .await;
            let channel = channel(&url, |_| {});
            let fault = fault(channel.send(&order(token())).await);
            assert_eq!((fault.cause, fault.uncertain), (cause, uncertain), "{fault:?}");
            assert!(fault.detail.contains(words), "{fault:?}");
        }
        for (said, words) in [(0x87, "not authorized (0x87)"), (0x80, "unspecified error (0x80)")] {
            let (url, _broker) = scripted(move |first, rest| match first {
                0x82 => vec![0x90, 0x04, rest[0], rest[1], 0x00, said],
                _ => Vec::new(),
            })
            .await;
            let channel = channel(&url, |_| {});
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains("refused the subscription to `orders/#`") && why.contains(words), "{why}");
        }
    });
}

#[test]
fn a_message_that_the_broker_tries_to_bring_again_says_so() {
    block_on(async {
        let (url, _broker) = scripted(|first, rest| match first {
            0x82 => [&[0x90, 0x04, rest[0], rest[1], 0x00, 0x01][..], b"\x3a\x0f\0\x08orders/x\0\x07\0hi"].concat(),
            _ => Vec::new(),
        })
        .await;
        let channel = channel(&url, |_| {});
        let mut receiver = Receiver::on(&channel);
        let arrival = receiver.next().await;
        assert_eq!((arrival.message.text().as_ref(), arrival.message.header("dup")), ("hi", Some("true")));
        assert_eq!(arrival.message.facts["redelivered"], Value::Bool(true));
    });
}

#[test]
fn retained_messages_are_flagged_and_what_we_have_had_is_not_brought_twice() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let mut stranger = Stranger::new(&broker, "stranger");
        stranger.publish("orders/old", "theirs", PublishOptions::new(QoS::AtLeastOnce).retained()).await;

        let proxy = Proxy::start(broker.address()).await;
        let channel = channel(&format!("mqtt://{}", proxy.address()), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let theirs = receiver.next().await;
        assert_eq!((theirs.message.text().as_ref(), theirs.message.header("retain")), ("theirs", Some("true")));

        let ours = token();
        channel.send(&with_field(order(ours), "retain", "true")).await.unwrap();
        let live = receiver.next().await;
        assert_eq!((token_of(&live), live.message.header("retain")), (Some(ours), Some("false")));

        // The broker brings both from its memory when we are back; ours we have had.
        proxy.cut();
        receiver.down().await;
        receiver.ready().await;
        let last = token();
        channel.send(&with_field(order(last), "topic", "orders/last")).await.unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&Some(last)) {
            seen.push(token_of(&receiver.next().await));
        }
        assert_eq!(seen, [None, Some(last)]);

        // One that was sent while nobody listened is brought, flagged.
        receiver.stop().await;
        let missed = token();
        channel.send(&with_field(order(missed), "retain", "true")).await.unwrap();
        let mut receiver = Receiver::on(&channel);
        let mut seen = vec![receiver.next().await, receiver.next().await];
        seen.retain(|arrival| token_of(arrival) == Some(missed));
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].message.header("retain"), Some("true"));
        // It has an end: nothing of ours stays for ever.
        let expiry = seen[0].message.header("message-expiry-interval").and_then(|text| text.parse::<u32>().ok());
        assert!(expiry.is_some_and(|seconds| (3_500..=3_600).contains(&seconds)), "{expiry:?}");
    });
}

#[test]
fn strangers_lose_nothing_to_us_and_do_not_disturb() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        let mut stranger = Stranger::new(&broker, "stranger");
        stranger.subscribe("orders/#").await;
        let channel = channel(&broker.url(), |_| {});
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let sent: Vec<_> = (0..5).map(|_| token()).collect();
        for token in &sent {
            channel.send(&order(*token)).await.unwrap();
        }
        for token in &sent {
            assert_eq!(token_of(&receiver.next().await), Some(*token), "in order");
        }
        receiver.stop().await;
        let theirs = stranger.take(5).await;
        let theirs: Vec<_> = theirs.iter().filter_map(|text| Token::find_all(text.as_bytes()).next()).collect();
        assert_eq!(theirs, sent, "each of them got to the stranger too");

        // Odd ones are seen as they are, and ours still comes.
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        stranger.publish("orders/odd", "\u{1}\u{fffd}", PublishOptions::new(QoS::AtLeastOnce)).await;
        stranger.publish("orders/large", &"x".repeat(200_000), PublishOptions::new(QoS::AtLeastOnce)).await;
        assert_eq!(receiver.next().await.message.text(), "\u{1}\u{fffd}");
        assert_eq!(receiver.next().await.message.body.len(), 200_000);
        let ours = token();
        channel.send(&order(ours)).await.unwrap();
        assert_eq!(token_of(&receiver.next().await), Some(ours));
        assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);
    });
}

#[test]
fn an_arrival_is_stamped_when_it_is_here_even_if_nobody_takes_it() {
    block_on(async {
        let Some(mut broker) = Mosquitto::start().await else { return };
        let channel = channel(&broker.url(), |_| {});
        // What is here stays here, whatever becomes of the broker.
        assert_stamped_when_here(&channel, 6, || broker.kill()).await;
    });
}

#[test]
fn only_what_is_handed_over_is_acknowledged() {
    block_on(async {
        let lines = "allow_anonymous true\nmax_inflight_messages 3\n";
        let Some(broker) = Mosquitto::with(Scratch::new("mosquitto"), lines).await else { return };
        for version in VERSIONS {
            let proxy = Proxy::start(broker.address()).await;
            let receiving = channel(&format!("mqtt://{}", proxy.address()), |settings| settings.version = version);
            let sending = channel(&broker.url(), |_| {});
            let mut receiver = Receiver::with_room(&receiving, 1);
            receiver.ready().await;
            let asked = proxy.seen(Direction::ToServer);
            let sent: Vec<_> = (0..10).map(|_| token()).collect();
            for token in &sent {
                sending.send(&order(*token)).await.unwrap();
            }
            // One is handed over, so one is acknowledged (4 bytes); three more come, and no others.
            wait_for("an acknowledgement", BOUND, async || (proxy.seen(Direction::ToServer) > asked).then_some(()))
                .await;
            assert_eq!(proxy.seen(Direction::ToServer) - asked, 4);
            for token in sent {
                assert_eq!(token_of(&receiver.next().await), Some(token));
            }
        }
    });
}

#[test]
fn without_a_filter_it_says_what_is_missing_and_what_it_cannot_do_it_says_too() {
    block_on(async {
        let channel = channel("mqtt://127.0.0.1:1", |settings| settings.subscribe = None);
        let mut receiver = Receiver::on(&channel);
        assert!(receiver.down().await.contains("has no topic filter"));
        receiver.stop().await;
        for answer in [channel.check(&order(token())).await, channel.request(&order(token())).await] {
            assert_eq!(fault(answer).cause, Cause::Refused);
        }
    });
}

#[test]
fn strangers_may_come_and_go_while_many_channels_share_a_broker() {
    block_on(async {
        let Some(broker) = Mosquitto::start().await else { return };
        // Each connection has a name of its own: none throws another out.
        let channels: Vec<_> = (0..6).map(|_| channel(&broker.url(), |_| {})).collect();
        let mut receivers: Vec<_> = channels.iter().map(Receiver::on).collect();
        for receiver in &mut receivers {
            receiver.ready().await;
        }
        let sent = token();
        let mut sends = JoinSet::new();
        let first = Arc::clone(&channels[0]);
        sends.spawn(async move { first.send(&order(sent)).await.map(|reply| reply.ack) });
        assert_eq!(sends.join_next().await.unwrap().unwrap().unwrap(), "puback");
        for receiver in &mut receivers {
            assert_eq!(token_of(&receiver.next().await), Some(sent));
            assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);
        }
    });
}

#[test]
fn the_page_and_the_example_load() {
    page_and_example_load("mqtt", &["secrets/telemetry-mqtt-password"]);
}
