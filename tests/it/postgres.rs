//! The `postgres` channel against a real PostgreSQL, and against networks that misbehave.

use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::Channel;
use journeyman::channel::postgres::{self, Postgres, PostgresSettings, Source, Target};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::run::Fault;
use journeyman::journey::token::Token;
use journeyman::journey::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::listening::{BOUND, Receiver, clock, fault, phases, secret, token};
use crate::support::met::met;
use crate::support::postgres::Postgres as Server;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{Scratch, block_on, free_port, wait_for};

const INSERT: &str = "insert into orders (token, body) values ($1, $2)";
const TABLE: &str = "create table orders (id bigserial primary key, token text unique, body text)";

fn settings(url: &str) -> PostgresSettings {
    let url = secret(url);
    PostgresSettings { url, ca_file: None, target: None, source: None }
}

fn opened(settings: PostgresSettings) -> Arc<Postgres> {
    Arc::new(postgres::open(settings, clock()).expect("it opens"))
}

fn sending(url: &str, query: &str) -> Arc<Postgres> {
    opened(PostgresSettings { target: Some(Target::Statement(query.to_owned())), ..settings(url) })
}

fn notifying(url: &str, channel: &str) -> Arc<Postgres> {
    let (target, source) = (Target::Notify(channel.to_owned()), Source::Listen(channel.to_owned()));
    opened(PostgresSettings { target: Some(target), source: Some(source), ..settings(url) })
}

fn polling(url: &str, query: &str) -> Arc<Postgres> {
    let source = Source::Poll { query: query.to_owned(), every: Duration::from_millis(20) };
    opened(PostgresSettings { source: Some(source), ..settings(url) })
}

fn order(token: Token) -> Outgoing {
    Outgoing { token, body: format!("{{\"id\":\"{token}\"}}").into_bytes(), ..Outgoing::empty(Duration::from_secs(10)) }
}

fn looking(query: &str) -> Outgoing {
    let mut outgoing = Outgoing::empty(Duration::from_secs(10));
    outgoing.fields.insert("query".to_owned(), query.to_owned());
    outgoing
}

fn of(fault: &Fault) -> (Cause, bool) {
    (fault.cause, fault.uncertain)
}

#[test]
fn a_notification_makes_the_round_trip_once_it_is_committed() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        // A name that would be another one without its quotes, and end them.
        let channel = notifying(&database.url(), "Orders \"done\"");
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let first = token();
        let (reply, seen) = met(channel.send(&order(first))).await;
        let reply = reply.unwrap();
        assert_eq!((reply.ack.as_str(), phases(&reply.phases)), ("committed", vec!["connect", "prepare", "confirm"]));
        let row = database.client.query_one("show server_version", &[]).await.unwrap();
        assert_eq!(seen["server"], format!("PostgreSQL {}", row.get::<_, &str>(0)));
        assert!(database.url().contains(&seen["peer"]) && seen["role"] == "primary", "{seen:?}");
        let arrival = receiver.next().await;
        assert_eq!(Token::find_all(&arrival.message.body).next(), Some(first));
        assert_eq!(arrival.message.header("channel"), Some("Orders \"done\""));
        assert!(arrival.message.header("pid").is_some() && arrival.at.mono > reply.started.mono);
        let (reply, again) = met(channel.send(&order(token()))).await;
        assert_eq!(phases(&reply.unwrap().phases), ["prepare", "confirm"]);
        assert_eq!(again, seen, "in the session that is kept");
        receiver.next().await;

        // Somebody else's is seen too, and only what is committed.
        database.run("begin; select pg_notify('Orders \"done\"', 'never'); rollback").await;
        database.run("select pg_notify('Orders \"done\"', 'grüße')").await;
        assert_eq!(receiver.next().await.message.text(), "grüße");

        let long = Outgoing { body: vec![b'x'; 8_000], ..order(first) };
        let refused = fault(channel.send(&long).await);
        assert_eq!(of(&refused), (Cause::Refused, false), "{refused:?}");
        assert!(refused.detail.contains("fewer than 8000"), "{refused:?}");
        channel.send(&Outgoing { body: vec![b'x'; 7_999], ..order(first) }).await.unwrap();
        assert_eq!(receiver.next().await.message.body.len(), 7_999);
        receiver.stop().await;
    });
}

#[test]
fn a_row_is_inserted_with_token_and_payload_and_polled_once() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run(TABLE).await;
        database.run("insert into orders (token, body) select n::text, 'stranger' from generate_series(1, 5) n").await;
        let poll = polling(&database.url(), "select id, token, body from orders order by id; ");
        let mut receiver = Receiver::on(&poll);
        receiver.ready().await;

        let channel = sending(&database.url(), INSERT);
        let hostile = "'); drop table orders; -- {{ token }} \\ $1 \" grüße";
        let token = token();
        let reply = channel.send(&Outgoing { body: hostile.into(), ..order(token) }).await.unwrap();
        assert_eq!(reply.ack, "1 row");
        let arrival = receiver.next().await;
        assert_eq!(arrival.message.text(), hostile);
        assert_eq!(arrival.message.header("token"), Some(token.to_string().as_str()));
        assert_eq!(arrival.message.header("id"), Some("6"));

        // A row that changes comes again, as it is now; one like another is another.
        database.run("update orders set body = 'done' where id = 6").await;
        assert_eq!(receiver.next().await.message.text(), "done");
        assert!(receiver.arrivals.try_recv().is_err(), "strangers' rows were there before");
        assert_eq!(database.number("select count(*) from orders where body = 'stranger'").await, 5);
        receiver.stop().await;
    });
}

#[test]
fn parameters_take_the_type_that_the_statement_wants() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run("create type state as enum ('new'); create table typed (token text, total numeric, at timestamptz, state state)").await;
        let query =
            "insert into typed select $1, ($2::jsonb->>'total')::numeric, ($2::jsonb->>'at')::timestamptz, 'new'";
        let body = br#"{"total": 12345678901234567890.123, "at": "2026-03-01T12:00:00Z"}"#;
        sending(&database.url(), query).send(&Outgoing { body: body.to_vec(), ..order(token()) }).await.unwrap();
        let row =
            database.client.query_one("select total::text, at = '2026-03-01 13:00+01' from typed", &[]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("12345678901234567890.123", true));

        database.run("create table plain (token text, body jsonb, n int)").await;
        let direct = sending(&database.url(), "insert into plain (token, body) values ($1, $2)");
        direct.send(&Outgoing { body: body.to_vec(), ..order(token()) }).await.unwrap();
        let wrong = fault(direct.send(&Outgoing { body: b"no json".to_vec(), ..order(token()) }).await);
        assert_eq!(of(&wrong), (Cause::Refused, false), "{wrong:?}");
        assert!(wrong.detail.contains("invalid input syntax for type json"), "{wrong:?}");
        sending(&database.url(), "insert into plain (token) values ($1)").send(&order(token())).await.unwrap();
        assert_eq!(
            sending(&database.url(), "select pg_notify('x', $1)").send(&order(token())).await.unwrap().ack,
            "1 row"
        );
        let third =
            fault(sending(&database.url(), "insert into plain values ($1, $2, $3)").send(&order(token())).await);
        assert_eq!(of(&third), (Cause::Refused, false), "{third:?}");
        assert!(third.detail.contains("has 3 parameters"), "{third:?}");
        assert_eq!(database.number("select count(*) from plain").await, 2);
    });
}

#[test]
fn what_the_server_does_not_do_has_its_cause_and_its_words() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run(TABLE).await;
        let channel = sending(&database.url(), INSERT);
        let twice = order(token());
        channel.send(&twice).await.unwrap();
        let told = async |channel: &Postgres, outgoing: &Outgoing| {
            let fault = fault(channel.send(outgoing).await);
            assert!(!fault.uncertain, "{fault:?}");
            (fault.cause, fault.detail)
        };
        let (cause, words) = told(&channel, &twice).await;
        assert!(
            cause == Cause::Rejected && words.contains("duplicate key value") && words.contains("(23505)"),
            "{words}"
        );
        let (cause, words) = told(&sending(&database.url(), &format!("{INSERT} on conflict do nothing")), &twice).await;
        assert!(cause == Cause::Rejected && words.contains("changed no row"), "{words}");
        let (cause, words) = told(&sending(&database.url(), "insert into missing values ($1, $2)"), &twice).await;
        assert!(cause == Cause::Refused && words.contains("\"missing\" does not exist (42P01)"), "{words}");
        let (cause, words) = told(&sending(&database.url(), "insert into orders; drop table orders"), &twice).await;
        assert!(cause == Cause::Refused && words.contains("(42601)"), "{words}");
        let (cause, words) = told(&sending(&server.url("nowhere"), INSERT), &twice).await;
        assert!(cause == Cause::Refused && words.contains("database \"nowhere\" does not exist"), "{words}");
        database.run(&format!("alter database {} set default_transaction_read_only = on", database.name)).await;
        let (cause, words) = told(&sending(&database.url(), INSERT), &order(token())).await;
        assert!(cause == Cause::Refused && words.contains("read-only transaction"), "{words}");
        assert_eq!(database.number("select count(*) from orders").await, 1);
        let (cause, words) = told(&opened(settings(&database.url())), &twice).await;
        assert!(cause == Cause::Refused && words.contains("`notify` or a `query`"), "{words}");
    });
}

#[test]
fn who_is_not_let_in_is_auth_and_no_secret_is_shown() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run("do $$ begin create role probe login; exception when duplicate_object then end $$").await;
        database.run(&format!("{TABLE}; alter role probe password 'hunter2-right'")).await;
        let url = |user: &str| format!("postgres://{user}@{}/{}?sslmode=disable", server.address(), database.name);
        for (user, words) in [
            ("probe:hunter2-wrong", "password authentication failed for user \"probe\""),
            ("probe", "asks for a password"),
            ("probe:hunter2-right", "permission denied for table orders (42501)"),
            ("nobody-here", "role \"nobody-here\" does not exist"),
        ] {
            let channel = opened(PostgresSettings {
                target: Some(Target::Statement(INSERT.to_owned())),
                source: Some(Source::Poll { query: "select * from orders".to_owned(), every: BOUND }),
                ..settings(&url(user))
            });
            let refused = fault(channel.send(&order(token())).await);
            assert_eq!(of(&refused), (Cause::Auth, false), "{refused:?}");
            assert!(refused.detail.contains(words) && !format!("{refused:?}").contains("hunter2"), "{refused:?}");
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains(words) && !why.contains("hunter2"), "{why}");
        }
        let proven = opened(settings(&url("probe:hunter2-right"))).prove(BOUND).await.unwrap();
        let place = format!("as `probe` into database `{}`", database.name);
        assert_eq!(proven, format!("{} lets us in {place}", server.address()));
    });
}

#[test]
fn a_server_without_room_is_throttled() {
    block_on(async {
        // Three of them are kept for the superuser.
        let Some(server) = Server::with_connections(5).await else { return };
        server.run("postgres", "create role app login; create table t (a text)").await;
        let mut held = Vec::new();
        let url = format!("postgres://app@{}/postgres?sslmode=disable", server.address());
        let full = wait_for("the server to be full", BOUND, async || {
            match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    let mut driver = tokio::task::JoinSet::new();
                    driver.spawn(connection);
                    held.push((client, driver));
                    None
                }
                // While the session before is being ended, its place is taken too.
                Err(error) => (held.len() == 2).then_some(error),
            }
        })
        .await;
        assert_eq!(full.code().map(|code| code.code()), Some("53300"));
        let refused = fault(sending(&url, "insert into t values ($1)").send(&order(token())).await);
        assert_eq!(of(&refused), (Cause::Throttled, false), "{refused:?}");
        assert!(refused.detail.contains("(53300)"), "{refused:?}");
    });
}

#[test]
fn a_statement_that_waits_too_long_is_given_up_by_the_server_and_holds_up_no_other() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run(&format!("{TABLE}; create table free (a text)")).await;
        let channel = sending(&database.url(), INSERT);
        channel.send(&order(token())).await.unwrap();
        database.run("begin; lock table orders").await;
        let waiting = Outgoing { timeout: Duration::from_secs(2), ..order(token()) };
        let mut other = order(token());
        other.fields.insert("query".to_owned(), "insert into free values ($1)".to_owned());
        let unprepared = self::sending(&database.url(), INSERT);
        let (waited, passed, unprepared) =
            tokio::join!(channel.send(&waiting), channel.send(&other), unprepared.send(&waiting));
        passed.unwrap();
        for waited in [fault(waited), fault(unprepared)] {
            assert_eq!(of(&waited), (Cause::Rejected, false), "{waited:?}");
            assert!(waited.detail.contains("statement timeout (57014)"), "{waited:?}");
        }

        // One that an operator ends may be done already: what arrives decides.
        database.run("rollback").await;
        channel.send(&order(token())).await.unwrap();
        database.run("begin; lock table orders").await;
        let waiting = order(token());
        let sending = channel.send(&waiting);
        let ending = async {
            let (client, _driver) = server.session("postgres").await;
            wait_for("the statement to wait", BOUND, async || {
                const END: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                                   where datname = $1 and wait_event_type = 'Lock'";
                client.query_opt(END, &[&database.name]).await.unwrap()
            })
            .await;
        };
        let (ended, ()) = tokio::join!(sending, ending);
        let ended = fault(ended);
        assert_eq!(of(&ended), (Cause::Unreachable, true), "{ended:?}");
        assert!(ended.detail.contains("(57P01)"), "{ended:?}");
        database.run("rollback").await;
        assert_eq!(database.number("select count(*) from orders").await, 2);
        channel.send(&order(token())).await.unwrap();
    });
}

#[test]
fn a_check_reads_facts_exactly_and_writes_nothing() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        database.run("create sequence s; create table jobs (created timestamptz, n numeric)").await;
        let channel = opened(settings(&database.url()));
        let look = async |query: &str| channel.check(&looking(query)).await.map(|reply| reply.message.unwrap());
        let ages = "select sum(n) as total, count(*) as depth, 3 as consumers, 2 as lag, \
                    extract(epoch from now() - min(created)) as oldest_age from jobs";
        let empty = look(ages).await.unwrap();
        assert_eq!((&empty.facts["value"], &empty.facts["depth"]), (&Value::Null, &Value::from(0)));
        assert_eq!(empty.facts["oldest_age"], Value::Duration(Duration::ZERO));
        database.run("insert into jobs values (now() - interval '90 s', 12345678901234567890), (now(), 0)").await;
        let seen = look(ages).await.unwrap();
        assert_eq!(seen.facts["value"].to_text(), "12345678901234567890");
        assert_eq!((&seen.facts["depth"], &seen.facts["consumers"]), (&Value::from(2), &Value::from(3)));
        assert_eq!(seen.facts["lag"], Value::from(2));
        let Value::Duration(age) = seen.facts["oldest_age"] else { panic!("{:?}", seen.facts) };
        assert!((90..120).contains(&age.as_secs()), "{age:?}");
        assert_eq!(seen.json().unwrap()["depth"], 2);

        assert!(look("select 1 where false").await.unwrap().facts.is_empty());
        let queue = channel.check(&Outgoing::empty(BOUND)).await.unwrap().message.unwrap();
        assert_eq!(queue.facts["value"].to_text(), "0");

        for (query, words) in [
            ("select nextval('s')", "(25006)"),
            ("delete from jobs returning 1", "(42601)"),
            ("with gone as (delete from jobs returning 1) select * from gone", "(0A000)"),
            ("select 1) as x; delete from jobs; select * from (select 1", "(42601)"),
            ("select now() - created as oldest_age from jobs", "extract(epoch from"),
        ] {
            let refused = look(query).await.unwrap_err();
            assert_eq!(of(&refused), (Cause::Refused, false), "{query}: {refused:?}");
            assert!(refused.detail.contains(words), "{query}: {refused:?}");
        }
        assert_eq!(database.number("select count(*) from jobs").await, 2);
        assert_eq!(database.number("select last_value from s").await, 1);
        let brief = Outgoing { timeout: Duration::from_secs(1), ..looking("select 1 from pg_sleep(60)") };
        let slow = channel.check(&brief).await.unwrap_err();
        assert_eq!(of(&slow), (Cause::Rejected, false), "{slow:?}");
        assert!(slow.detail.contains("statement timeout"), "{slow:?}");
    });
}

#[test]
fn a_poll_that_goes_wrong_is_told_and_recovers() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let mut receiver = Receiver::on(&polling(&database.url(), "select body from orders"));
        let why = receiver.down().await;
        assert!(why.contains("cannot poll") && why.contains("(42P01)"), "{why}");
        database.run(TABLE).await;
        receiver.ready().await;
        database.run("insert into orders (body) values ('new'), ('new')").await;
        assert_eq!(
            [receiver.next().await, receiver.next().await].map(|seen| seen.message.text().into_owned()),
            ["new"; 2]
        );
        // A table that grows is not a queue: the reader says so instead of holding it all.
        database.run("insert into orders (body) select n::text from generate_series(1, 2000) n").await;
        let why = receiver.down().await;
        assert!(why.contains("more than 1000 rows"), "{why}");
        receiver.stop().await;
    });
}

#[test]
fn a_restart_is_told_and_everything_comes_back_by_itself() {
    block_on(async {
        let Some(mut server) = Server::private().await else { return };
        server.run("postgres", TABLE).await;
        let url = server.url("postgres");
        let notify = notifying(&url, "orders");
        let insert = sending(&url, INSERT);
        let (mut listener, mut poller) =
            (Receiver::on(&notify), Receiver::on(&polling(&url, "select id, body from orders")));
        listener.ready().await;
        poller.ready().await;
        insert.send(&order(token())).await.unwrap();
        poller.next().await;

        server.kill();
        let (listened, polled) = (listener.down().await, poller.down().await);
        assert!(!listened.is_empty() && !polled.is_empty());
        let down = fault(insert.send(&order(token())).await);
        assert_eq!(of(&down), (Cause::Unreachable, false), "{down:?}");
        server.start().await;
        // Before the reader is back, for it waits longer than this takes; a row stays, so it is seen all the same.
        server.run("postgres", "insert into orders (body) values ('meanwhile')").await;
        assert_eq!(poller.next().await.message.text(), "meanwhile");
        listener.ready().await;
        let token = token();
        notify.send(&order(token)).await.unwrap();
        assert_eq!(Token::find_all(&listener.next().await.message.body).next(), Some(token));
        insert.send(&order(token)).await.unwrap();
        assert_eq!(Token::find_all(&poller.next().await.message.body).next(), Some(token));
    });
}

#[test]
fn tls_is_asked_for_unless_the_url_says_otherwise_and_certificates_are_judged() {
    block_on(async {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
        let Some(mut server) = Server::private().await else { return };
        server
            .run("postgres", "create table t (a text); create role probe login superuser password 'right-horse'")
            .await;
        let scratch = Scratch::new("pg-tls");
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().unwrap();
        let ca_file = scratch.write("ca.pem", &authority.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(authority, key);
        let url = format!("postgres://probe:right-horse@localhost:{}/postgres", server.address().port());
        let channel = |ca_file: Option<&std::path::Path>| {
            let target = Some(Target::Statement("insert into t values ($1)".to_owned()));
            opened(PostgresSettings { target, ca_file: ca_file.map(Into::into), ..settings(&url) })
        };
        let unknown = fault(channel(None).send(&order(token())).await);
        assert_eq!(of(&unknown), (Cause::Tls, false), "{unknown:?}");
        let localhost = "localhost";
        for (name, until, words) in [
            (localhost, 4096, None),
            ("elsewhere.example.net", 4096, Some("is for another name")),
            (localhost, 2020, Some("has expired")),
        ] {
            let mut shown = CertificateParams::new(vec![name.to_owned()]).unwrap();
            shown.not_before = date_time_ymd(2019, 1, 1);
            shown.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            server.kill();
            server.show(shown.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem());
            server.start().await;
            let channel = channel(Some(&ca_file));
            let answer = channel.send(&order(token())).await;
            match words {
                // With a password, by SCRAM bound to this certificate.
                None => assert_eq!(answer.unwrap().ack, "1 row"),
                Some(words) => {
                    let fault = fault(answer);
                    assert_eq!(of(&fault), (Cause::Tls, false), "{fault:?}");
                    assert!(fault.detail.contains(words), "{fault:?}");
                    assert_eq!(channel.prove(BOUND).await.unwrap_err().cause, Cause::Tls);
                }
            }
        }
    });
}

#[test]
fn a_server_without_tls_and_a_silent_one_are_told_apart() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let channel = sending(&format!("postgres://probe@127.0.0.1:{port}/orders"), INSERT);
        let plain = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"N").await.unwrap();
        };
        let message = order(token());
        let (answer, ()) = tokio::join!(channel.send(&message), plain);
        let refused = fault(answer);
        assert_eq!(of(&refused), (Cause::Tls, false), "{refused:?}");
        assert!(
            refused.detail.contains("does not speak TLS") && refused.detail.contains("sslmode=disable"),
            "{refused:?}"
        );

        let brief = Outgoing { timeout: Duration::from_millis(300), ..order(token()) };
        let silent = fault(channel.send(&brief).await);
        assert_eq!(of(&silent), (Cause::Unreachable, false), "{silent:?}");
        assert!(silent.detail.contains("within 300ms while greeting it"), "{silent:?}");
        drop(listener);
        let absent = fault(sending(&format!("postgres://u@127.0.0.1:{}", free_port()), INSERT).send(&brief).await);
        assert_eq!(of(&absent), (Cause::Unreachable, false), "{absent:?}");
    });
}

#[test]
fn a_session_that_hangs_is_noticed_by_asking() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let proxy = Proxy::start(server.address()).await;
        let mut receiver = Receiver::on(&notifying(&database.url_at(proxy.address()), "orders"));
        receiver.ready().await;
        proxy.set(Direction::ToClient, Flow::Hold);
        let why = receiver.down().await;
        assert!(why.contains("no answer from 127.0.0.1:"), "{why}");
        proxy.set(Direction::ToClient, Flow::Pass);
        receiver.ready().await;
        receiver.stop().await;
    });
}

#[test]
fn without_anything_to_receive_it_says_what_is_missing() {
    block_on(async {
        let mut receiver = Receiver::on(&opened(settings("postgres://u@127.0.0.1:1/d?sslmode=disable")));
        assert!(receiver.down().await.contains("nothing to receive"));
        receiver.stop().await;
    });
}

#[test]
fn the_page_and_the_example_load() {
    use crate::support::document::{adapt, loads, toml_blocks};
    let blocks = toml_blocks("docs/channels/postgres.md");
    let url = "\"postgres://u@127.0.0.1/orders\"";
    let channel = adapt(&blocks[0], &[("{ file = \"secrets/orders-db-url\" }", url)]);
    loads(&format!("{channel}\n{}", blocks[1]));
    let (main, probe) = crate::support::document::example("probes/examples/postgres.toml");
    loads(&format!("{main}\n{probe}"));
}
