//! The `amqp` channel against a real RabbitMQ, and against networks that misbehave.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use journeyman::channel::amqp::{self, Amqp, AmqpSettings, Binding, QueueSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::clock::Clock;
use journeyman::config::{load_text, render};
use journeyman::journey::Outgoing;
use journeyman::journey::message::Arrival;
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::Token;
use journeyman::journey::value::Value;
use journeyman::secret::{Redactor, Secret};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::document::{adapt, toml_blocks};
use crate::support::listening::{
    BOUND, Receiver, assert_stamped_when_here, clock, fault, order, phases, secret, token, with_field, within,
};
use crate::support::met::met;
use crate::support::pipeline::Pipeline;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::rabbitmq::{RabbitMq, Vhost};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port, wait_for};

/// A channel that publishes to `orders` and receives what `bind` brings to `journeyman.orders`.
fn settings(url: &str, bind: &[(&str, &str)]) -> AmqpSettings {
    let bind = bind
        .iter()
        .map(|(exchange, key)| Binding { exchange: (*exchange).to_owned(), routing_key: (*key).to_owned() })
        .collect();
    AmqpSettings {
        url: secret(url),
        ca_file: None,
        management: None,
        exchange: "orders".to_owned(),
        routing_key: "order.created".to_owned(),
        queue: Some(QueueSettings { name: "journeyman.orders".to_owned(), bind }),
    }
}

/// The message's token as both the body and the headers tell it.
fn tokens(arrival: &Arrival) -> (Option<Token>, Vec<Token>) {
    let message = &arrival.message;
    let in_headers = ["message-id", "correlation-id"].iter().filter_map(|name| message.header(name));
    (Token::find_all(&message.body).next(), in_headers.filter_map(Token::parse).collect())
}

/// A vhost with the topic exchange `orders`, and a channel on it.
async fn orders(broker: &'static RabbitMq) -> (Vhost<'static>, Arc<Amqp>) {
    let vhost = broker.vhost().await;
    vhost.declare_exchange("orders", "topic").await;
    let channel = Arc::new(amqp::open(settings(&vhost.url(), &[("orders", "#")]), clock()));
    (vhost, channel)
}

#[test]
fn a_message_makes_the_round_trip_with_its_token_in_body_and_headers() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let first = token();
        let (reply, seen) = met(channel.send(&order(first))).await;
        let reply = reply.unwrap();
        assert!(vhost.url().contains(&seen["peer"]), "{seen:?}");
        assert_eq!(reply.ack, "confirm");
        assert_eq!(phases(&reply.phases), ["connect", "confirm"]);
        let arrival = receiver.next().await;
        assert_eq!(tokens(&arrival), (Some(first), vec![first, first]));
        let message = &arrival.message;
        assert_eq!(message.header("traceparent"), Some(first.traceparent().as_str()));
        assert_eq!(message.header("x-synthetic"), Some("journeyman"));
        assert_eq!(message.header("content-type"), Some("application/json"));
        assert_eq!(message.header("expiration"), Some("3600000"));
        assert_eq!(message.facts["redelivered"], Value::Bool(false));
        assert_eq!(message.facts["exchange"], Value::from("orders"));
        assert_eq!(message.facts["routing_key"], Value::from("order.created"));
        assert!(arrival.at.mono > reply.started.mono, "it arrives after it was sent");
        assert!(reply.finished.mono.since(reply.started.mono) < BOUND);

        // The connection is kept, and a step's own key goes before the channel's.
        let second = token();
        let (reply, again) = met(channel.send(&with_field(order(second), "routing_key", "order.cancelled"))).await;
        assert_eq!(phases(&reply.unwrap().phases), ["confirm"]);
        assert_eq!(again, seen, "over the connection that is kept");
        let arrival = receiver.next().await;
        assert_eq!(tokens(&arrival).0, Some(second));
        assert_eq!(arrival.message.facts["routing_key"], Value::from("order.cancelled"));
    });
}

#[test]
fn sends_at_the_same_time_each_get_their_own_verdict() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        vhost.declare_queue("taken", json!({})).await;
        vhost.bind("orders", "taken", "order.created").await;
        // A first one, so that there is a lane which they could wrongly share.
        channel.send(&order(token())).await.unwrap();
        let messages: Vec<_> = (0..40)
            .map(|index| match index % 4 {
                0 => with_field(order(token()), "routing_key", "nobody.wants.this"),
                1 => with_field(order(token()), "exchange", "missing"),
                _ => order(token()),
            })
            .collect();
        let answers = join_all(messages.iter().map(|message| channel.send(message))).await;
        for (index, answer) in answers.into_iter().enumerate() {
            let cause = answer.map(|reply| reply.ack).map_err(|fault| (fault.cause, fault.uncertain));
            let expected = match index % 4 {
                0 => Err((Cause::Unroutable, false)),
                1 => Err((Cause::Refused, false)),
                _ => Ok("confirm".to_owned()),
            };
            assert_eq!(cause, expected, "{index}");
        }
    });
}

#[test]
fn a_message_that_no_queue_takes_is_unroutable() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (_vhost, channel) = orders(broker).await;
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unroutable, false), "{fault:?}");
        let expected = "no queue takes it: exchange `orders`, routing key `order.created` (312 NO_ROUTE)";
        assert_eq!(fault.detail, expected);
    });
}

#[test]
fn a_missing_exchange_is_refused_in_the_brokers_words() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        vhost.declare_queue("taken", json!({})).await;
        let fault = fault(channel.send(&with_field(order(token()), "exchange", "missing")).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false), "{fault:?}");
        assert!(fault.detail.contains("NOT_FOUND - no exchange 'missing'"), "{}", fault.detail);
        // Only that lane was closed.
        let direct = with_field(with_field(order(token()), "exchange", ""), "routing_key", "taken");
        assert_eq!(phases(&channel.send(&direct).await.unwrap().phases), ["confirm"]);
    });
}

#[test]
fn a_full_queue_rejects() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        vhost.declare_queue("full", json!({"x-max-length": 1, "x-overflow": "reject-publish"})).await;
        vhost.bind("orders", "full", "#").await;
        channel.send(&order(token())).await.unwrap();
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Rejected, false), "{fault:?}");
        assert!(fault.detail.contains("nack"), "{}", fault.detail);
    });
}

#[test]
fn credentials_that_are_not_accepted_are_auth_and_not_repeated() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, _) = orders(broker).await;
        let url = format!("amqp://guest:wr0ng-passw0rd@{}/{}", broker.address(), vhost.name);
        let channel = Arc::new(amqp::open(settings(&url, &[("orders", "#")]), clock()));
        let refused = fault(channel.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("ACCESS_REFUSED"), "{}", refused.detail);
        let why = Receiver::on(&channel).down().await;
        assert!(why.contains("ACCESS_REFUSED"), "{why}");
        assert!(!format!("{refused:?} {why}").contains("wr0ng"), "{refused:?} {why}");

        // Known, and not allowed to write.
        vhost.add_user("reader", "reader", json!({"configure": "", "write": "", "read": ".*"})).await;
        let url = format!("amqp://reader:reader@{}/{}", broker.address(), vhost.name);
        let refused = fault(amqp::open(settings(&url, &[]), clock()).send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("access to exchange 'orders'"), "{}", refused.detail);

        let url = format!("amqp://guest:guest@{}/no-such-vhost", broker.address());
        let refused = fault(amqp::open(settings(&url, &[]), clock()).send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
        assert!(refused.detail.contains("vhost no-such-vhost not found"), "{}", refused.detail);
    });
}

#[test]
fn a_certificate_that_nobody_signed_is_a_tls_fault() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        for address in [broker.tls_address(), broker.address()] {
            let url = format!("amqps://guest:guest@localhost:{}/%2f", address.port());
            let fault = fault(amqp::open(settings(&url, &[]), Clock::system()).send(&order(token())).await);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
            let words =
                if address == broker.tls_address() { "`ca_file` can name it" } else { "ended the TLS handshake" };
            let is_told = fault.detail.contains(words) || fault.detail.contains("TLS with localhost:");
            assert!(is_told && fault.detail.contains("localhost:"), "{}", fault.detail);
        }
    });
}

#[test]
fn a_certificate_is_trusted_by_its_file_and_must_be_for_the_host_and_in_its_time() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, _) = orders(broker).await;
        let scratch = Scratch::new("amqp-tls");
        let ca_file = scratch.write("broker.pem", broker.certificate());
        let over_tls = |host: &str, port: u16, ca_file: &Path| {
            let url = format!("amqps://guest:guest@{host}:{port}/{}", vhost.name);
            AmqpSettings { ca_file: Some(ca_file.to_owned()), ..settings(&url, &[("orders", "#")]) }
        };
        // The broker's own TLS, for both directions.
        let port = broker.tls_address().port();
        let channel = Arc::new(amqp::open(over_tls("localhost", port, &ca_file), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        assert_eq!(tokens(&receiver.next().await).0, Some(sent));
        assert!(channel.prove(BOUND).await.is_ok());
        let wrong_host = amqp::open(over_tls("127.0.0.1", port, &ca_file), clock());
        let refused = fault(wrong_host.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Tls, false), "{refused:?}");
        assert!(refused.detail.contains("is for another name"), "{}", refused.detail);

        for (shown, words) in [
            (Shown::Expired, "has expired"),
            (Shown::WrongHost, "is for another name"),
            (Shown::Unknown, "from an issuer that is not trusted"),
        ] {
            let front = TlsFront::start(broker.address(), shown, scratch.path()).await;
            let channel = Arc::new(amqp::open(over_tls("127.0.0.1", front.address().port(), front.ca_file()), clock()));
            let refused = fault(channel.send(&order(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Tls, false), "{refused:?}");
            assert!(refused.detail.contains(words), "{}", refused.detail);
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains(words), "{why}");
        }
        let gone = amqp::open(over_tls("localhost", port, &scratch.path().join("gone.pem")), clock());
        let refused = fault(gone.send(&order(token())).await);
        assert!(refused.cause == Cause::Tls && refused.detail.contains("gone.pem"), "{refused:?}");
    });
}

/// A check of `queue`.
fn look(queue: &str) -> Outgoing {
    with_field(Outgoing::empty(BOUND), "queue", queue)
}

#[test]
fn a_check_counts_what_waits_over_a_connection_that_is_kept() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        vhost.declare_queue("backlog", json!({})).await;
        vhost.bind("orders", "backlog", "order.created").await;
        for _ in 0..3 {
            channel.send(&order(token())).await.unwrap();
        }
        let reply = channel.check(&look("backlog")).await.unwrap();
        assert_eq!((reply.ack.as_str(), phases(&reply.phases)), ("seen", vec!["connect", "look"]));
        let message = reply.message.unwrap();
        assert_eq!((&message.facts["depth"], &message.facts["consumers"]), (&Value::from(3), &Value::from(0)));
        assert_eq!(message.json().unwrap(), &json!({"queue": "backlog", "depth": 3, "consumers": 0}));

        // A queue that is not there costs the next check nothing, and is not made.
        let missing = fault(channel.check(&look("missing")).await);
        assert_eq!((missing.cause, phases(&missing.phases)), (Cause::Refused, vec!["look"]), "{missing:?}");
        assert!(missing.detail.contains("NOT_FOUND - no queue 'missing'"), "{}", missing.detail);
        let both = futures_util::future::join(channel.check(&look("backlog")), channel.check(&look("missing"))).await;
        assert_eq!(phases(&both.0.unwrap().phases), ["look"]);
        assert_eq!(fault(both.1).cause, Cause::Refused);
        let too_long = fault(channel.check(&look(&"q".repeat(256))).await);
        assert_eq!(too_long.cause, Cause::Refused);

        // Our own queue, when a step names none; and nothing was taken from the other.
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let own = channel.check(&Outgoing::empty(BOUND)).await.unwrap().message.unwrap();
        assert_eq!((&own.facts["depth"], &own.facts["consumers"]), (&Value::from(0), &Value::from(1)));
        let depth = async || channel.check(&look("backlog")).await.unwrap().message.unwrap().facts["depth"].clone();
        assert_eq!(depth().await, Value::from(3));

        // Cut while idle: the next check knows, and makes a new connection.
        let proxy = Proxy::start(broker.address()).await;
        let through = amqp::open(settings(&vhost.url_at(proxy.address()), &[]), clock());
        through.check(&look("backlog")).await.unwrap();
        proxy.cut();
        let again = wait_for("a new connection", BOUND, async || {
            let reply = through.check(&look("backlog")).await.ok()?;
            phases(&reply.phases).contains(&"connect").then_some(reply)
        })
        .await;
        assert_eq!(again.message.unwrap().facts["depth"], Value::from(3));
        // One that swallows the question is given up.
        proxy.set(Direction::ToClient, Flow::Hold);
        let silent = fault(through.check(&within(look("backlog"), Duration::from_millis(300))).await);
        assert_eq!(silent.cause, Cause::Unreachable, "{silent:?}");
        assert!(silent.detail.contains("while looking at the queue"), "{}", silent.detail);
        proxy.set(Direction::ToClient, Flow::Pass);
        assert_eq!(phases(&through.check(&look("backlog")).await.unwrap().phases), ["connect", "look"]);
    });
}

#[test]
fn the_management_api_tells_ages_and_rates() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, plain) = orders(broker).await;
        // A name that would be two segments of a path.
        let queue = "back/log.1";
        let management = broker.management_url().trim_end_matches("/api").to_owned();
        let with = |management: &str| AmqpSettings {
            management: Some(Secret::new(management.to_owned(), &Redactor::new())),
            ..settings(&vhost.url(), &[])
        };
        let channel = amqp::open(with(&management), clock());
        let connection =
            lapin::Connection::connect(&vhost.url(), lapin::ConnectionProperties::default()).await.unwrap();
        let raw = connection.create_channel().await.unwrap();
        raw.queue_declare(queue.into(), lapin::options::QueueDeclareOptions::durable(), Default::default())
            .await
            .unwrap();
        let empty = wait_for("the API to know the queue", BOUND, async || {
            let message = channel.check(&look(queue)).await.unwrap().message.unwrap();
            message.facts.contains_key("oldest_age").then_some(message)
        })
        .await;
        assert_eq!(empty.facts["oldest_age"], Value::Duration(Duration::ZERO), "nothing waits");

        // Ten minutes old by its own word.
        let options = lapin::options::BasicPublishOptions::default();
        let sent = clock().now().wall.as_second() - 600;
        let old = lapin::BasicProperties::default().with_timestamp(sent as u64);
        raw.basic_publish("".into(), queue.into(), options, b"old", old).await.unwrap();
        let direct = || with_field(with_field(order(token()), "exchange", ""), "routing_key", queue);
        plain.send(&direct()).await.unwrap();
        let message = wait_for("the API to have counted", BOUND, async || {
            let message = channel.check(&look(queue)).await.unwrap().message.unwrap();
            let rate = message.json().unwrap()["publish_rate"].as_f64();
            (message.facts.contains_key("oldest_age") && rate.is_some()).then_some(message)
        })
        .await;
        let Value::Duration(age) = &message.facts["oldest_age"] else { panic!("{:?}", message.facts) };
        assert!((600..700).contains(&age.as_secs()), "{age:?}");
        let json = message.json().unwrap();
        assert_eq!((&json["queue"], &json["depth"], &json["ready"]), (&json!(queue), &json!(2), &json!(2)), "{json:#}");
        assert_eq!((&json["type"], &json["state"]), (&json!("classic"), &json!("running")));
        assert!(json["memory"].as_u64().is_some_and(|bytes| bytes > 0), "{json:#}");

        let reply = channel.check(&look(queue)).await.unwrap();
        assert_eq!(phases(&reply.phases), ["look", "management"]);

        // A user of its own, which it may not take; a port where nothing listens; something else that answers.
        let wrong = management.replace("//", "//guest:wr0ng-passw0rd@");
        let refused = fault(amqp::open(with(&wrong), clock()).check(&look(queue)).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("the tag `monitoring`"), "{}", refused.detail);
        assert!(!format!("{refused:?}").contains("wr0ng"));
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let refused = fault(amqp::open(with(&nobody), clock()).check(&look(queue)).await);
        assert_eq!(refused.cause, Cause::Unreachable, "{refused:?}");
        assert!(refused.detail.starts_with("the management API: "), "{}", refused.detail);
        // One that does not know the queue (yet) is no failure of the queue.
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let elsewhere = format!("http://{}/rabbit", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let other = amqp::open(with(&elsewhere), clock()).check(&look(queue)).await.unwrap().message.unwrap();
        assert_eq!(other.json().unwrap()["management"], "not available");
        assert!(!other.facts.contains_key("oldest_age") && other.facts["depth"] == Value::from(2));
    });
}

#[test]
fn a_dead_lettered_message_brings_its_story() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, _) = orders(broker).await;
        vhost.declare_exchange("graveyard", "fanout").await;
        let dying = json!({"x-message-ttl": 0, "x-dead-letter-exchange": "graveyard"});
        vhost.declare_queue("work", dying).await;
        vhost.bind("orders", "work", "order.created").await;
        let channel = Arc::new(amqp::open(settings(&vhost.url(), &[("graveyard", "")]), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let sent = token();
        channel.send(&order(sent)).await.unwrap();
        let arrival = receiver.next().await;
        assert_eq!(tokens(&arrival).0, Some(sent));
        let story: serde_json::Value = serde_json::from_str(arrival.message.header("x-death").unwrap()).unwrap();
        assert_eq!((&story[0]["reason"], &story[0]["queue"]), (&json!("expired"), &json!("work")), "{story:#}");
        assert_eq!((&story[0]["exchange"], &story[0]["count"]), (&json!("orders"), &json!(1)));
        assert_eq!(story[0]["routing-keys"], json!(["order.created"]));
    });
}

#[test]
fn nothing_listening_is_unreachable_for_certain() {
    block_on(async {
        let port = free_port();
        let channel = Arc::new(amqp::open(settings(&format!("amqp://127.0.0.1:{port}/%2f"), &[]), clock()));
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
        assert!(fault.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{}", fault.detail);
        assert_eq!(phases(&fault.phases), ["connect"]);
        let why = Receiver::on(&channel).down().await;
        assert!(why.contains(&format!("127.0.0.1:{port}")), "{why}");
    });
}

#[test]
fn a_broker_that_accepts_and_says_nothing_costs_a_bounded_time_and_no_connection() {
    use tokio::io::AsyncReadExt;
    block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let channel = amqp::open(settings(&format!("amqp://127.0.0.1:{port}/%2f"), &[]), Clock::system());
        let message = within(order(token()), Duration::from_millis(300));
        let (answer, accepted) = tokio::join!(channel.send(&message), listener.accept());
        let fault = fault(answer);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
        assert_eq!(fault.detail, format!("no answer from 127.0.0.1:{port} within 300ms while greeting it in AMQP"));
        // lapin's thread ends with the socket: the other side must see the end of it.
        let mut rest = Vec::new();
        let reading = tokio::time::timeout(BOUND, accepted.unwrap().0.read_to_end(&mut rest)).await;
        assert!(reading.is_ok(), "the connection was left open");
        assert_eq!(rest, b"AMQP\0\0\x09\x01");
    });
}

#[test]
fn a_connection_cut_between_publish_and_confirm_is_uncertain_and_nothing_is_sent_twice() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, direct) = orders(broker).await;
        let mut receiver = Receiver::on(&direct);
        receiver.ready().await;
        let proxy = Proxy::start(broker.address()).await;
        let channel = amqp::open(settings(&vhost.url_at(proxy.address()), &[]), clock());
        let first = token();
        channel.send(&order(first)).await.unwrap();
        assert_eq!(tokens(&receiver.next().await).0, Some(first));

        proxy.set(Direction::ToClient, Flow::Hold);
        let second = token();
        let message = order(second);
        let cut_on_arrival = async {
            // The broker has it: it is confirmed, and the confirm is held.
            assert_eq!(tokens(&receiver.next().await).0, Some(second));
            proxy.cut();
        };
        let (answer, ()) = tokio::join!(channel.send(&message), cut_on_arrival);
        let fault = fault(answer);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{fault:?}");
        assert!(fault.detail.contains("lost the connection"), "{}", fault.detail);

        proxy.set(Direction::ToClient, Flow::Pass);
        let third = token();
        assert_eq!(phases(&channel.send(&order(third)).await.unwrap().phases), ["connect", "confirm"]);
        assert_eq!(tokens(&receiver.next().await).0, Some(third));
    });
}

#[test]
fn a_confirm_that_does_not_come_is_uncertain_and_the_next_message_gets_a_new_connection() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, direct) = orders(broker).await;
        let mut receiver = Receiver::on(&direct);
        receiver.ready().await;
        let proxy = Proxy::start(broker.address()).await;
        let channel = amqp::open(settings(&vhost.url_at(proxy.address()), &[]), clock());
        channel.send(&order(token())).await.unwrap();
        proxy.set(Direction::ToClient, Flow::Hold);
        let fault = fault(channel.send(&within(order(token()), Duration::from_millis(300))).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Uncertain, true), "{fault:?}");
        assert!(fault.detail.starts_with("no confirm from 127.0.0.1:"), "{}", fault.detail);
        proxy.set(Direction::ToClient, Flow::Pass);
        assert_eq!(phases(&channel.send(&order(token())).await.unwrap().phases), ["connect", "confirm"]);
    });
}

#[test]
fn latency_counts_the_network_and_not_the_connecting() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, direct) = orders(broker).await;
        Receiver::on(&direct).ready().await;
        let proxy = Proxy::start(broker.address()).await;
        let delay = Duration::from_millis(100);
        proxy.set(Direction::ToServer, Flow::Delay(delay));
        let channel = amqp::open(settings(&vhost.url_at(proxy.address()), &[]), clock());
        let reply = channel.send(&order(token())).await.unwrap();
        let took = reply.finished.mono.since(reply.started.mono);
        let connect = reply.phases[0].took;
        // Protocol header, start-ok, tune-ok and open, channel.open, confirm.select: each waits for the answer before it.
        assert!(connect >= delay * 5, "{connect:?}");
        assert!(took >= delay && took < connect, "{took:?}, {connect:?}");
    });
}

#[test]
fn a_connection_that_hangs_is_noticed_by_its_heartbeat() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, _) = orders(broker).await;
        let proxy = Proxy::start(broker.address()).await;
        let url = format!("{}?heartbeat=1", vhost.url_at(proxy.address()));
        let channel = Arc::new(amqp::open(settings(&url, &[("orders", "#")]), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        proxy.set(Direction::ToClient, Flow::Hold);
        let why = receiver.down().await;
        assert!(why.contains("no heartbeat"), "{why}");
        proxy.set(Direction::ToClient, Flow::Pass);
        receiver.ready().await;
    });
}

#[test]
fn a_deleted_queue_is_told_and_declared_again() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        vhost.delete_queue("journeyman.orders").await;
        let why = receiver.down().await;
        assert!(why.contains("queue `journeyman.orders` was deleted"), "{why}");
        receiver.ready().await;
        let token = token();
        channel.send(&order(token)).await.unwrap();
        assert_eq!(tokens(&receiver.next().await).0, Some(token));
    });
}

#[test]
fn a_binding_to_a_missing_exchange_says_what_to_do_and_recovers_when_it_is_there() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let vhost = broker.vhost().await;
        let channel = Arc::new(amqp::open(settings(&vhost.url(), &[("orders", "#")]), clock()));
        let mut receiver = Receiver::on(&channel);
        let why = receiver.down().await;
        assert!(why.contains("NOT_FOUND - no exchange 'orders'"), "{why}");
        assert!(why.contains("declare the exchange, or correct `bind`"), "{why}");
        vhost.declare_exchange("orders", "topic").await;
        receiver.ready().await;
    });
}

#[test]
fn a_queue_with_other_arguments_is_used_as_it_is() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        vhost.declare_queue("journeyman.orders", json!({"x-max-length": 5})).await;
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let token = token();
        channel.send(&order(token)).await.unwrap();
        assert_eq!(tokens(&receiver.next().await).0, Some(token));
        assert_eq!(vhost.queue("journeyman.orders").await["arguments"], json!({"x-max-length": 5}));
    });
}

#[test]
fn the_queue_of_our_own_cleans_up_after_itself() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let queue = vhost.queue("journeyman.orders").await;
        let expected = json!({"x-expires": 3_600_000, "x-message-ttl": 3_600_000, "x-max-length": 10_000});
        assert_eq!(queue["arguments"], expected);
        assert_eq!((&queue["durable"], &queue["exclusive"]), (&json!(true), &json!(false)));

        // What was handed over is acknowledged before we go, so a restart sees no second copy.
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        receiver.stop().await;
        let connection =
            lapin::Connection::connect(&vhost.url(), lapin::ConnectionProperties::default()).await.unwrap();
        let raw = connection.create_channel().await.unwrap();
        let left = raw.basic_get("journeyman.orders".into(), lapin::options::BasicGetOptions::default()).await.unwrap();
        assert_eq!(left, None);
    });
}

#[test]
fn a_redelivered_message_says_so_and_strangers_do_not_disturb() {
    block_on(async {
        use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicPublishOptions};
        let Some(broker) = RabbitMq::shared().await else { return };
        let (vhost, channel) = orders(broker).await;
        // Our queue exists already, and somebody took a message from it and gave it back.
        Receiver::on(&channel).ready().await;
        let connection =
            lapin::Connection::connect(&vhost.url(), lapin::ConnectionProperties::default()).await.unwrap();
        let raw = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        let mut consumer =
            raw.basic_consume("journeyman.orders".into(), "".into(), options, Default::default()).await.unwrap();
        let ours = token();
        channel.send(&order(ours)).await.unwrap();
        let delivery = tokio::time::timeout(BOUND, consumer.next()).await.unwrap().unwrap().unwrap();
        raw.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
        delivery.acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();

        let mut receiver = Receiver::on(&channel);
        let arrival = receiver.next().await;
        assert_eq!(tokens(&arrival).0, Some(ours));
        assert_eq!(arrival.message.facts["redelivered"], Value::Bool(true));

        // Bytes that are no text, no properties, headers of odd types: seen as they are, and ours still comes.
        let mut headers = lapin::types::FieldTable::default();
        headers.insert("odd".into(), lapin::types::AMQPValue::FieldArray(vec![true.into(), 7i32.into()].into()));
        let odd = lapin::BasicProperties::default().with_headers(headers);
        for properties in [lapin::BasicProperties::default(), odd] {
            let options = BasicPublishOptions::default();
            let payload: &[u8] = &[0xff, 0x00, 0xfe];
            raw.basic_publish("orders".into(), "x".into(), options, payload, properties).await.unwrap().await.unwrap();
        }
        let (plain, odd) = (receiver.next().await, receiver.next().await);
        assert_eq!((plain.message.body.as_slice(), plain.message.headers.len()), (&[0xff, 0x00, 0xfe][..], 0));
        assert_eq!(odd.message.header("odd"), Some("[true,7]"));
        let ours = token();
        channel.send(&order(ours)).await.unwrap();
        assert_eq!(tokens(&receiver.next().await).0, Some(ours));
    });
}

#[test]
fn an_arrival_is_stamped_when_it_is_here_even_if_nobody_takes_it() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let (_vhost, channel) = orders(broker).await;
        assert_stamped_when_here(&channel, 6, || {}).await;
    });
}

#[test]
fn a_broker_short_of_memory_is_throttled() {
    block_on(async {
        let Some(broker) = RabbitMq::private().await else { return };
        let vhost = broker.vhost().await;
        vhost.declare_exchange("orders", "topic").await;
        let channel = Arc::new(amqp::open(settings(&vhost.url(), &[("orders", "#")]), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;

        broker.set_memory_alarm(true);
        // The broker blocks a connection at its first publish in the alarm; that one is still taken, or left without a verdict.
        let outcome = wait_for("a block", BOUND, async || {
            let answer = channel.send(&within(order(token()), Duration::from_secs(1))).await;
            answer.err().filter(|fault| !fault.uncertain)
        })
        .await;
        assert_eq!(outcome.cause, Cause::Throttled, "{outcome:?}");
        assert_eq!(outcome.detail, "broker blocked the connection: low on memory");
        // Looking and consuming go on, on connections of their own.
        let seen = channel.check(&Outgoing::empty(BOUND)).await.unwrap().message.unwrap();
        assert_eq!(seen.facts["consumers"], Value::from(1));
        assert_eq!(*receiver.readiness.borrow(), Readiness::Ready);

        broker.set_memory_alarm(false);
        wait_for("the block to end", BOUND, async || channel.send(&order(token())).await.ok()).await;
    });
}

#[test]
fn a_killed_broker_is_told_and_both_directions_come_back_by_themselves() {
    block_on(async {
        let Some(mut broker) = RabbitMq::private().await else { return };
        let vhost = broker.vhost().await;
        vhost.declare_exchange("orders", "topic").await;
        let url = vhost.url();
        let channel = Arc::new(amqp::open(settings(&url, &[("orders", "#")]), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        channel.check(&Outgoing::empty(BOUND)).await.unwrap();

        broker.kill();
        let why = receiver.down().await;
        assert_eq!(self::fault(channel.check(&Outgoing::empty(BOUND)).await).cause, Cause::Unreachable);
        assert!(why.contains("127.0.0.1:"), "{why}");
        let fault = fault(channel.send(&order(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");

        broker.start().await;
        // The longest pause that the attempts during the restart can have led to.
        receiver.readiness_in(Duration::from_secs(90), |readiness| *readiness == Readiness::Ready).await;
        let token = token();
        let reply = channel.send(&order(token)).await.unwrap();
        assert_eq!(phases(&reply.phases), ["connect", "confirm"]);
        let looked = channel.check(&Outgoing::empty(BOUND)).await.unwrap();
        assert_eq!(phases(&looked.phases), ["connect", "look"]);
        // A broker that dies forgets acknowledgements: an earlier message may come once more, and says so.
        let mut arrival = receiver.next().await;
        while arrival.message.facts["redelivered"] == Value::Bool(true) {
            arrival = receiver.next().await;
        }
        assert_eq!(tokens(&arrival).0, Some(token));
    });
}

#[test]
fn without_a_queue_it_says_what_is_missing() {
    block_on(async {
        let mut settings = settings("amqp://127.0.0.1:1/%2f", &[]);
        settings.queue = None;
        let channel = Arc::new(amqp::open(settings, clock()));
        let mut receiver = Receiver::on(&channel);
        assert!(receiver.down().await.contains("has no queue"));
        receiver.stop().await;
    });
}

#[test]
fn an_order_goes_through_an_api_a_queue_and_a_worker_to_a_webhook_and_back_to_us() {
    block_on(async {
        let Some(broker) = RabbitMq::shared().await else { return };
        let vhost = broker.vhost().await;
        let (seen, mut webhooks) = mpsc::channel(8);
        let hook = async move |headers: axum::http::HeaderMap, body: String| {
            seen.send((headers, body)).await.expect("the test reads");
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/done", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/done", axum::routing::post(hook));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await });

        let more = ["--header", "authorization: Bearer let-me-in", "--done-exchange", "orders-done"];
        let Some(mut pipeline) = Pipeline::start(&vhost.url(), &url, &more).await else { return };
        let channel = Arc::new(amqp::open(settings(&vhost.url(), &[("orders-done", "#")]), clock()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        // Through the API …
        let first = token();
        let post = async |body: String| {
            let request = reqwest::Client::new().post(&pipeline.orders_url).header("traceparent", first.traceparent());
            request.body(body).send().await.unwrap().status().as_u16()
        };
        assert_eq!(post("no order".to_owned()).await, 400);
        assert_eq!(post(format!("{{\"id\":\"{first}\"}}")).await, 202);
        let (headers, body) = tokio::time::timeout(BOUND, webhooks.recv()).await.unwrap().unwrap();
        assert_eq!(headers["authorization"], "Bearer let-me-in");
        assert_eq!(headers["traceparent"], first.traceparent());
        let done: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(done, json!({"id": first.to_string(), "status": "done"}));
        assert_eq!(tokens(&receiver.next().await).0, Some(first));

        // … and past it, with the worker stopped for a while.
        pipeline.stop_consumer().await;
        let second = token();
        channel.send(&order(second)).await.unwrap();
        assert!(webhooks.try_recv().is_err() && receiver.arrivals.try_recv().is_err());
        pipeline.start_consumer().await;
        let arrival = receiver.next().await;
        assert_eq!(tokens(&arrival), (Some(second), vec![second, second]));
        assert_eq!(arrival.message.header("x-synthetic"), Some("journeyman"));
        assert!(arrival.message.text().contains("\"status\": \"done\""));
    });
}

#[test]
fn what_the_page_shows_loads() {
    let blocks = toml_blocks("docs/channels/amqp.md");
    let [orders, journey, production, check] = &blocks[..] else { panic!("{} TOML blocks", blocks.len()) };
    let url = ("{ file = \"secrets/orders-amqp-url\" }", "\"amqp://mq.example.net/%2f\"");
    let main = adapt(&format!("[defaults]\nmuted = true\nevery = \"1m\"\n{orders}\n{production}"), &[url]);
    let probes = [("one.toml", journey), ("two.toml", check)]
        .map(|(name, steps)| (name, format!("[[journey]]\nname = \"{name}\"\ndeadline = \"30s\"\n{steps}")));
    let probes: Vec<_> = probes.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (plan, problems) = load_text("main.toml", &main, &probes, Path::new("."))
        .unwrap_or_else(|problems| panic!("{}", render(&problems, false)));
    assert!(problems.is_empty(), "{}", render(&problems, false));
    assert!(plan.journeys.iter().all(|journey| journey.unavailable.is_none()));

    // Without the management API nobody knows an age, and a check that wants one would always fail.
    let management = "management = \"http://mq.example.net:15672\"";
    let without = adapt(&main, &[(management, "")]);
    let (_, problems) = load_text("main.toml", &without, &probes, Path::new(".")).expect("a warning stops nothing");
    let told = render(&problems, false);
    assert!(problems.len() == 1 && told.contains("only the management API knows `oldest_age`"), "{told}");
}
