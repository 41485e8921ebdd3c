//! The `redis` channel against a real Redis, and against networks that misbehave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::redis::{self, Place, ReceiveSettings, Redis, RedisSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::run::Fault;
use journeyman::journey::token::{Mint, Token};
use journeyman::journey::value::Value;

use crate::support::listening::{self, BOUND, Receiver, clock, fault, phases, secret, token};
use crate::support::met::met;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::redis::Redis as Server;
use crate::support::{block_on, free_port, wait_for};

fn settings(url: &str) -> RedisSettings {
    RedisSettings { url: secret(url), ca_file: None, target: None, max_length: None, receive: None }
}

fn opened(settings: RedisSettings) -> Arc<Redis> {
    Arc::new(redis::open(settings, clock()).expect("it opens"))
}

/// A channel that sends to a place and receives on it.
fn both_ways(url: &str, place: &Place) -> Arc<Redis> {
    let receive = Some(ReceiveSettings { place: place.clone(), delete: false });
    opened(RedisSettings { target: Some(place.clone()), receive, ..settings(url) })
}

fn stream(key: &str) -> Place {
    Place::Stream(key.to_owned())
}

fn topic(name: &str) -> Place {
    Place::Topic(name.to_owned())
}

/// As elsewhere, without headers: a topic carries none.
fn order(token: Token) -> Outgoing {
    Outgoing { headers: Vec::new(), ..listening::order(token) }
}

fn with_fields(outgoing: Outgoing, fields: &[(&str, &str)]) -> Outgoing {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Outgoing { fields: fields.collect::<BTreeMap<_, _>>(), ..outgoing }
}

/// The cause of a fault, whether it is uncertain, and its words.
fn of(fault: &Fault) -> (Cause, bool) {
    (fault.cause, fault.uncertain)
}

type Entries = Vec<(String, Vec<String>)>;

async fn entries(server: &Server, key: &str) -> Entries {
    server.ask(&["XRANGE", key, "-", "+"]).await
}

#[test]
fn an_entry_makes_the_round_trip_with_its_token_and_its_fields() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let channel = both_ways(&server.url(), &stream("orders"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let token = token();
        let headers = vec![("kind".to_owned(), "created".to_owned())];
        let (reply, seen) = met(channel.send(&Outgoing { headers, ..order(token) })).await;
        let reply = reply.unwrap();
        assert_eq!(phases(&reply.phases), ["connect", "confirm"]);
        assert_eq!(seen["peer"], server.address().to_string());
        let version: String = server.ask::<String>(&["INFO", "server"]).await;
        let version =
            version.lines().find_map(|line| line.strip_prefix("redis_version:")).expect("it tells").to_owned();
        assert_eq!((seen["server"].as_str(), seen["role"].as_str()), (format!("redis {version}").as_str(), "master"));
        let id = reply.ack.strip_prefix("entry ").expect("the ack is the entry's id").to_owned();

        let arrival = receiver.next().await;
        let message = &arrival.message;
        assert_eq!(message.text(), format!("{{\"id\":\"{token}\"}}"));
        assert_eq!(message.header("token"), Some(token.to_string().as_str()));
        assert_eq!(message.header("traceparent"), Some(token.traceparent().as_str()));
        assert_eq!(message.header("kind"), Some("created"));
        assert_eq!((message.header("stream"), message.header("entry-id")), (Some("orders"), Some(id.as_str())));
        assert_eq!(message.hops[0].name, "redis");
        assert!(message.hops[0].took < BOUND, "{:?}", message.hops);
        assert!(arrival.at.mono > reply.started.mono);

        let (_, fields) = entries(&server, "orders").await.remove(0);
        let names: Vec<_> = fields.iter().step_by(2).map(String::as_str).collect();
        assert_eq!(names, ["token", "traceparent", "kind", "body"]);

        // The connection is kept, and a step's own stream goes before the channel's.
        let elsewhere = with_fields(order(token), &[("stream", "elsewhere")]);
        let (reply, again) = met(channel.send(&elsewhere)).await;
        assert_eq!(phases(&reply.unwrap().phases), ["confirm"]);
        assert_eq!(again, seen);
        assert_eq!(entries(&server, "elsewhere").await.len(), 1);
    });
}

#[test]
fn a_topic_says_how_many_receive_and_nobody_is_unroutable() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let channel = both_ways(&server.url(), &topic("orders"));
        let nobody = fault(channel.send(&order(token())).await);
        assert_eq!(of(&nobody), (Cause::Unroutable, false), "{nobody:?}");
        assert_eq!(nobody.detail, "nobody is subscribed to topic `orders` at this server");

        let (mut first, mut second) = (Receiver::on(&channel), Receiver::on(&channel));
        first.ready().await;
        second.ready().await;
        let token = token();
        assert_eq!(channel.send(&order(token)).await.unwrap().ack, "2 receivers");
        for receiver in [&mut first, &mut second] {
            let message = receiver.next().await.message;
            assert_eq!(Token::find_all(&message.body).next(), Some(token));
            assert_eq!(message.header("topic"), Some("orders"));
        }

        let headers = vec![("kind".to_owned(), "created".to_owned())];
        let refused = fault(channel.send(&Outgoing { headers, ..order(token) }).await);
        assert_eq!(of(&refused), (Cause::Refused, false), "{refused:?}");
        assert!(refused.detail.contains("`headers` need a stream"), "{refused:?}");
        first.stop().await;
    });
}

#[test]
fn a_stream_is_trimmed_only_if_that_is_asked_for() {
    block_on(async {
        // One entry in each node, so that the approximate trimming trims at once.
        let Some(server) = Server::with(&["--stream-node-max-entries", "1"]).await else { return };
        for n in 0..50 {
            let _: String = server.ask(&["XADD", "orders", "*", "stranger", &n.to_string()]).await;
        }
        let channel = opened(RedisSettings { target: Some(stream("orders")), ..settings(&server.url()) });
        for _ in 0..5 {
            channel.send(&order(token())).await.unwrap();
        }
        assert_eq!(entries(&server, "orders").await.len(), 55);
        let trimming =
            RedisSettings { target: Some(stream("orders")), max_length: Some(10), ..settings(&server.url()) };
        opened(trimming).send(&order(token())).await.unwrap();
        assert_eq!(entries(&server, "orders").await.len(), 10);
    });
}

#[test]
fn what_is_there_before_is_nobodys_arrival_and_what_comes_while_we_are_away_is_read_after() {
    block_on(async {
        let Some(mut server) = Server::start().await else { return };
        for _ in 0..3 {
            let _: String = server.ask(&["XADD", "orders", "*", "stranger", "x"]).await;
        }
        let channel = both_ways(&server.url(), &stream("orders"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let (first, second, third) = (token(), token(), token());
        channel.send(&order(first)).await.unwrap();
        assert_eq!(receiver.next().await.message.header("token"), Some(first.to_string().as_str()));

        server.kill();
        let why = receiver.down().await;
        assert!(why.contains(&server.address().to_string()), "{why}");
        let down = fault(channel.send(&order(token())).await);
        assert_eq!(of(&down), (Cause::Unreachable, false), "{down:?}");
        server.revive().await;
        // Before the reader is back, for it waits longer than this takes.
        let missed = both_ways(&server.url(), &stream("orders"));
        missed.send(&order(second)).await.unwrap();
        assert_eq!(receiver.next().await.message.header("token"), Some(second.to_string().as_str()));
        assert_eq!(phases(&channel.send(&order(third)).await.unwrap().phases), ["connect", "confirm"]);
        assert_eq!(receiver.next().await.message.header("token"), Some(third.to_string().as_str()));
        assert_eq!(entries(&server, "orders").await.len(), 6, "nothing is consumed");
        receiver.stop().await;
    });
}

#[test]
fn a_server_that_forgets_its_streams_is_read_again_from_what_comes_next() {
    block_on(async {
        let Some(mut server) = Server::with(&["--appendonly", "no"]).await else { return };
        let channel = both_ways(&server.url(), &stream("orders"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        server.kill();
        receiver.down().await;
        server.revive().await;
        receiver.ready().await;
        assert_eq!(entries(&server, "orders").await.len(), 0, "what was in memory is gone");
        // Ids that begin anew, as after a clock that was set back.
        let _: String = server.ask(&["XADD", "orders", "5-0", "body", "young"]).await;
        assert_eq!(receiver.next().await.message.text(), "young");
        receiver.stop().await;
    });
}

#[test]
fn only_entries_with_a_token_of_ours_are_deleted_and_only_if_that_is_asked_for() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let receive = Some(ReceiveSettings { place: stream("done"), delete: true });
        let tidy = RedisSettings { target: Some(stream("done")), receive, ..settings(&server.url()) };
        let channel = opened(tidy);
        let _: String = server.ask(&["XADD", "done", "*", "stranger", "before"]).await;
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;

        let foreign = Mint::new([9; 32], 0).issue(clock().now().wall);
        let ours = token();
        let _: String = server.ask(&["XADD", "done", "*", "stranger", "x"]).await;
        let _: String = server.ask(&["XADD", "done", "*", "token", &foreign.to_string()]).await;
        let _: String = server.ask(&["XADD", "done", "*", "audit", &ours.to_string()]).await;
        channel.send(&order(ours)).await.unwrap();
        for _ in 0..4 {
            receiver.next().await;
        }
        let left = wait_for("ours to be deleted", BOUND, async || {
            let left = entries(&server, "done").await;
            (left.len() == 4).then_some(left)
        })
        .await;
        let first: Vec<_> = left.iter().map(|(_, fields)| fields[0].as_str()).collect();
        assert_eq!(first, ["stranger", "stranger", "token", "audit"]);

        // What was handed over is tidied up before we go.
        for _ in 0..20 {
            channel.send(&order(token())).await.unwrap();
        }
        for _ in 0..20 {
            receiver.next().await;
        }
        receiver.stop().await;
        assert_eq!(entries(&server, "done").await.len(), 4);
    });
}

#[test]
fn what_the_server_does_not_let_us_do_is_auth_and_shows_no_secret() {
    block_on(async {
        let reader = ["reader", "on", ">hunter2-reader", "~*", "&*", "-@all", "+@read", "+client", "+ping"];
        let acl = [&["--requirepass", "hunter2-default", "--user"][..], &reader].concat();
        let Some(server) = Server::with(&acl).await else { return };
        let address = server.address();
        let cases = [
            (format!("redis://{address}"), "NOAUTH"),
            (format!("redis://:hunter2-wrong@{address}"), "WRONGPASS"),
            (format!("redis://reader:hunter2-wrong@{address}"), "WRONGPASS"),
            (format!("redis://reader:hunter2-reader@{address}"), "NOPERM"),
        ];
        for (url, words) in cases {
            let channel = both_ways(&url, &stream("orders"));
            let refused = fault(channel.send(&order(token())).await);
            assert_eq!(of(&refused), (Cause::Auth, false), "{words}: {refused:?}");
            assert!(refused.detail.contains(words), "{refused:?}");
            assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
            let proven = channel.prove(BOUND).await;
            assert_eq!(proven.is_ok(), words == "NOPERM", "{proven:?}");
        }
        // Whoever may read a stream may not yet subscribe.
        let reader = format!("redis://reader:hunter2-reader@{address}");
        Receiver::on(&both_ways(&reader, &stream("orders"))).ready().await;
        let why = Receiver::on(&both_ways(&reader, &topic("orders"))).down().await;
        assert!(why.contains("cannot subscribe to topic `orders`") && why.contains("NOPERM"), "{why}");
        let why = Receiver::on(&both_ways(&format!("redis://:nope-hunter2@{address}"), &stream("orders"))).down().await;
        assert!(why.contains("WRONGPASS") && !why.contains("hunter2"), "{why}");
        let proven = opened(settings(&format!("redis://:hunter2-default@{address}"))).prove(BOUND).await.unwrap();
        assert_eq!(proven, format!("{address} answers, and takes our credentials"));
    });
}

#[test]
fn a_server_that_cannot_take_it_says_why() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let channel = opened(RedisSettings { target: Some(stream("orders")), ..settings(&server.url()) });
        let _: i64 = server.ask(&["RPUSH", "list", "x"]).await;
        let wrong = fault(channel.send(&with_fields(order(token()), &[("stream", "list")])).await);
        assert_eq!(of(&wrong), (Cause::Refused, false), "{wrong:?}");
        assert!(wrong.detail.contains("WRONGTYPE"), "{wrong:?}");
        let why = Receiver::on(&both_ways(&server.url(), &stream("list"))).down().await;
        assert!(why.contains("cannot read stream `list`") && why.contains("WRONGTYPE"), "{why}");

        let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
        let full = fault(channel.send(&order(token())).await);
        assert_eq!(of(&full), (Cause::Throttled, false), "{full:?}");
        assert!(full.detail.contains("OOM command not allowed"), "{full:?}");
        let _: String = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;

        let _: String = server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
        let alone = fault(channel.send(&order(token())).await);
        assert_eq!(of(&alone), (Cause::Rejected, false), "{alone:?}");
        let _: String = server.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;

        let _: String = server.ask(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
        let replica = fault(channel.send(&order(token())).await);
        assert_eq!(of(&replica), (Cause::Refused, false), "{replica:?}");
        assert!(replica.detail.contains("READONLY") && replica.detail.contains("name the master"), "{replica:?}");
        let _: String = server.ask(&["REPLICAOF", "NO", "ONE"]).await;
        channel.send(&order(token())).await.unwrap();

        // Nothing else was taken meanwhile.
        assert_eq!(entries(&server, "orders").await.len(), 1);
        let missing = fault(opened(settings(&server.url())).send(&order(token())).await);
        assert_eq!(of(&missing), (Cause::Refused, false), "{missing:?}");
    });
}

#[test]
fn a_check_tells_how_far_a_group_is_behind_and_takes_nothing_from_it() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let channel = opened(RedisSettings { target: Some(stream("orders")), ..settings(&server.url()) });
        for n in 0..5 {
            let _: String = server.ask(&["XADD", "orders", &format!("{}-0", 1_000 + n), "n", &n.to_string()]).await;
        }
        let _: String = server.ask(&["XGROUP", "CREATE", "orders", "billing", "0"]).await;
        let look = async |fields: &[(&str, &str)]| {
            channel.check(&with_fields(Outgoing::empty(BOUND), fields)).await.map(|reply| reply.message.unwrap())
        };
        let seen = look(&[("group", "billing")]).await.unwrap();
        assert_eq!((&seen.facts["depth"], &seen.facts["lag"]), (&Value::from(5), &Value::from(5)));
        assert_eq!((&seen.facts["consumers"], seen.header("pending")), (&Value::from(0), Some("0")));

        let read = ["XREADGROUP", "GROUP", "billing", "worker", "COUNT", "2", "STREAMS", "orders", ">"];
        let _: ::redis::Value = server.ask(&read).await;
        let before: ::redis::Value = server.ask(&["XINFO", "STREAM", "orders", "FULL"]).await;
        let seen = look(&[("group", "billing"), ("stream", "orders")]).await.unwrap();
        assert_eq!((&seen.facts["depth"], &seen.facts["lag"]), (&Value::from(5), &Value::from(3)));
        assert_eq!((&seen.facts["consumers"], seen.header("pending")), (&Value::from(1), Some("2")));
        // The ids say that all this happened a second after the epoch.
        let Value::Duration(age) = seen.facts["oldest_age"] else { panic!("{:?}", seen.facts) };
        let epoch = clock().now().wall.as_second() as u64;
        assert!(age.as_secs().abs_diff(epoch) < 100, "{age:?}");
        let after: ::redis::Value = server.ask(&["XINFO", "STREAM", "orders", "FULL"]).await;
        assert_eq!(before, after);

        // Delivered and acknowledged: nothing is old.
        let _: ::redis::Value = server.ask(&read).await;
        let _: ::redis::Value = server.ask(&read).await;
        let ids: Vec<_> = (0..5).map(|n| format!("{}-0", 1_000 + n)).collect();
        let ack: Vec<_> = ["XACK", "orders", "billing"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let _: i64 = server.ask(&ack).await;
        let seen = look(&[("group", "billing")]).await.unwrap();
        assert_eq!(seen.facts["oldest_age"], Value::Duration(Duration::ZERO));
        assert_eq!(seen.facts["lag"], Value::from(0));

        assert_eq!(look(&[]).await.unwrap().facts.keys().copied().collect::<Vec<_>>(), ["depth"]);
        let missing = look(&[("group", "shipping")]).await.unwrap_err();
        assert_eq!(of(&missing), (Cause::Refused, false), "{missing:?}");
        assert!(missing.detail.contains("no consumer group `shipping`"), "{missing:?}");
        assert_eq!(look(&[("stream", "nowhere"), ("group", "billing")]).await.unwrap_err().cause, Cause::Refused);
    });
}

#[test]
fn a_database_is_chosen_by_its_number() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let channel = both_ways(&format!("{}/7", server.url()), &stream("orders"));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        receiver.next().await;
        assert_eq!(entries(&server, "orders").await.len(), 0, "it is in another database");
        let beyond = fault(both_ways(&format!("{}/99", server.url()), &stream("orders")).send(&order(token())).await);
        assert_eq!(of(&beyond), (Cause::Refused, false), "{beyond:?}");
    });
}

#[test]
fn nothing_listening_is_unreachable_and_a_hanging_server_is_uncertain() {
    block_on(async {
        let port = free_port();
        let channel = both_ways(&format!("redis://127.0.0.1:{port}"), &stream("orders"));
        let absent = fault(channel.send(&order(token())).await);
        assert_eq!(of(&absent), (Cause::Unreachable, false), "{absent:?}");
        assert!(absent.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{absent:?}");

        let Some(server) = Server::start().await else { return };
        let channel = both_ways(&server.url(), &stream("orders"));
        channel.send(&order(token())).await.unwrap();
        server.signal("STOP");
        let brief = Outgoing { timeout: Duration::from_millis(300), ..order(token()) };
        let hangs = fault(channel.send(&brief).await);
        assert_eq!(of(&hangs), (Cause::Uncertain, true), "{hangs:?}");
        assert!(hangs.detail.contains("no reply from") && hangs.detail.contains("stream `orders`"), "{hangs:?}");
        // A connection is taken by the system even so, and nothing is said on it.
        let silent = fault(channel.send(&brief).await);
        assert_eq!(of(&silent), (Cause::Unreachable, false), "{silent:?}");
        server.signal("CONT");
        assert_eq!(phases(&channel.send(&order(token())).await.unwrap().phases), ["connect", "confirm"]);
    });
}

#[test]
fn sends_at_the_same_time_each_get_their_own_reply() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let _: i64 = server.ask(&["RPUSH", "list", "x"]).await;
        let channel = both_ways(&server.url(), &stream("orders"));
        let orders: Vec<_> = (0..40)
            .map(|n| match n % 4 {
                0 => with_fields(order(token()), &[("stream", "list")]),
                1 => with_fields(order(token()), &[("topic", "nobody")]),
                _ => order(token()),
            })
            .collect();
        let answers = futures_util::future::join_all(orders.iter().map(|order| channel.send(order))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            let cause = answer.map(|reply| reply.ack.starts_with("entry ")).map_err(|fault| of(&fault));
            let expected = match n % 4 {
                0 => Err((Cause::Refused, false)),
                1 => Err((Cause::Unroutable, false)),
                _ => Ok(true),
            };
            assert_eq!(cause, expected, "{n}");
        }
        assert_eq!(entries(&server, "orders").await.len(), 20);
    });
}

#[test]
fn a_connection_that_hangs_is_noticed_by_asking() {
    block_on(async {
        let Some(server) = Server::start().await else { return };
        let proxy = Proxy::start(server.address()).await;
        let url = format!("redis://{}", proxy.address());
        let mut receivers = [stream("orders"), topic("orders")].map(|place| Receiver::on(&both_ways(&url, &place)));
        for receiver in &mut receivers {
            receiver.ready().await;
        }
        proxy.set(Direction::ToClient, Flow::Hold);
        for receiver in &mut receivers {
            let why = receiver.down().await;
            assert!(why.contains("no answer from 127.0.0.1:"), "{why}");
        }
        proxy.set(Direction::ToClient, Flow::Pass);
        for mut receiver in receivers {
            receiver.ready().await;
            receiver.stop().await;
        }
    });
}

#[test]
fn without_a_place_to_receive_on_it_says_what_is_missing() {
    block_on(async {
        let mut receiver = Receiver::on(&opened(settings("redis://127.0.0.1:1")));
        assert!(receiver.down().await.contains("nothing to receive on"));
        assert!(matches!(*receiver.readiness.borrow(), Readiness::Down { .. }));
        receiver.stop().await;
    });
}

#[test]
fn the_page_and_the_example_load() {
    use crate::support::document::{adapt, loads, toml_blocks};
    let blocks = toml_blocks("docs/channels/redis.md");
    let channel = adapt(&blocks[0], &[("{ file = \"secrets/orders-redis-url\" }", "\"redis://127.0.0.1\"")]);
    loads(&format!("{channel}\n{}", blocks[1]));
    let (main, probe) = crate::support::document::example("probes/examples/redis.toml");
    loads(&format!("{main}\n{probe}"));
}
