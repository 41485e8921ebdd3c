//! The small checks: `tcp`, `tls` and `dns`, against servers that answer well, badly, slowly and not at all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message as DnsMessage, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record};
use journeyman::channel::dns::{Dns, DnsSettings};
use journeyman::channel::tcp::{Tcp, TcpSettings};
use journeyman::channel::tls::{Tls, TlsSettings};
use journeyman::channel::{Channel, Opening, Settings};
use journeyman::clock::Clock;
use journeyman::config::{Plan, load_text, render};
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::value::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::support::command::journeyman;
use crate::support::document::{example, toml_blocks};
use crate::support::met::met;
use crate::support::nsd::Nsd;
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port};

const BOUND: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(400);

fn names(reply: &Reply) -> Vec<&str> {
    reply.phases.iter().map(|phase| phase.name.as_str()).collect()
}

/// Cause, whether it is uncertain, and the words.
fn fault(answer: Result<Reply, Fault>) -> (Cause, bool, String) {
    let fault = answer.expect_err("it should have failed");
    (fault.cause, fault.uncertain, fault.detail)
}

/// A server whose every connection `serve` has, on a free port of the loopback.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    });
    (address, tasks)
}

fn tcp_settings(address: SocketAddr) -> TcpSettings {
    let (host, port) = (address.ip().to_string(), address.port());
    TcpSettings { host, port, tls: false, ca_file: None, until: None, max_answer: 1_024 }
}

fn tcp(settings: TcpSettings) -> Tcp {
    Tcp::open(settings, Clock::system()).unwrap()
}

fn saying(text: &str, timeout: Duration) -> Outgoing {
    Outgoing { body: text.as_bytes().to_vec(), ..Outgoing::empty(timeout) }
}

fn until(pattern: &str) -> Option<regex::bytes::Regex> {
    Some(regex::bytes::Regex::new(pattern).unwrap())
}

#[test]
fn tcp_connects_and_tells_what_took_how_long() {
    block_on(async {
        let (address, _server) = server(async |mut stream| drop(stream.read(&mut [0; 1]).await)).await;
        let channel = tcp(tcp_settings(address));
        let (reply, seen) = met(channel.check(&Outgoing::empty(BOUND))).await;
        let reply = reply.unwrap();
        assert_eq!((reply.ack.as_str(), names(&reply)), ("connected", vec!["dns", "connect"]));
        assert_eq!(seen, [("peer", address.to_string())].into());
        assert_eq!(channel.prove(BOUND).await.unwrap(), format!("{address} takes connections"));

        let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let channel = tcp(tcp_settings(gone));
        let (cause, uncertain, detail) = fault(channel.check(&Outgoing::empty(BOUND)).await);
        assert_eq!((cause, uncertain), (Cause::Unreachable, false));
        assert!(detail.starts_with(&format!("cannot connect to {gone}: Connection refused")), "{detail}");
        let nowhere = TcpSettings { host: "no-such-name.invalid".to_owned(), ..tcp_settings(gone) };
        let (cause, _, detail) = fault(tcp(nowhere).request(&saying("x", BOUND)).await);
        assert!(cause == Cause::Unreachable && detail.contains("cannot resolve no-such-name.invalid"), "{detail}");
    });
}

#[test]
fn tcp_says_something_and_reads_until_the_answer_is_complete() {
    block_on(async {
        // Greets, and repeats what it hears in pieces, with an end that is another pattern's.
        let (address, _server) = server(async |mut stream| {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let mut heard = [0; 64];
            let length = stream.read(&mut heard).await.unwrap_or(0);
            for piece in [&b"250-"[..], &heard[..length], b"\r\n25", b"0 done", b"\r\n"] {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(stream.read(&mut heard).await);
        })
        .await;
        let channel = tcp(tcp_settings(address));
        let (greeted, seen) = met(channel.request(&saying("", BOUND))).await;
        let greeted = greeted.unwrap();
        assert_eq!(seen["banner"], "220 ready");
        let (_, asked) = met(channel.request(&saying("EHLO probe", BOUND))).await;
        assert!(!asked.contains_key("banner"), "an answer is no greeting: {asked:?}");
        assert_eq!(greeted.message.unwrap().body, b"220 ready\r\n");
        let patient = tcp(TcpSettings { until: until(r"(?m)^250 .*\r\n"), ..tcp_settings(address) });
        let reply = patient.request(&saying("EHLO probe", BOUND)).await.unwrap();
        assert_eq!(names(&reply), ["dns", "connect", "answer"]);
        assert_eq!(reply.ack, "answered 37 bytes");
        assert_eq!(reply.message.unwrap().text(), "220 ready\r\n250-EHLO probe\r\n250 done\r\n");
        // An end that never comes, with what came instead.
        let waiting = tcp(TcpSettings { until: until("^999"), ..tcp_settings(address) });
        let (cause, uncertain, detail) = fault(waiting.request(&saying("x", SOON)).await);
        assert_eq!((cause, uncertain), (Cause::Mismatch, true));
        assert!(
            detail.contains("what `until` waits for did not come within 400ms: \"220 ready\\r\\n250-x"),
            "{detail}"
        );
    });
}

#[test]
fn tcp_knows_silence_from_goodbye_and_does_not_read_for_ever() {
    block_on(async {
        let (silent, _silent) = server(async |mut stream| drop(stream.read_to_end(&mut Vec::new()).await)).await;
        let (cause, uncertain, detail) = fault(tcp(tcp_settings(silent)).request(&saying("x", SOON)).await);
        assert_eq!((cause, uncertain), (Cause::Unreachable, true));
        assert_eq!(detail, format!("no answer from {silent} within 400ms while waiting for its answer"));

        let (rude, _rude) = server(async |mut stream| drop(stream.read(&mut [0; 1]).await)).await;
        let (cause, _, detail) = fault(tcp(tcp_settings(rude)).request(&saying("x", BOUND)).await);
        assert_eq!((cause, detail), (Cause::Unreachable, format!("{rude} closed the connection without an answer")));

        let (brief, _brief) = server(async |mut stream| drop(stream.write_all(b"bye").await)).await;
        let reply = tcp(tcp_settings(brief)).request(&saying("", BOUND)).await.unwrap();
        assert_eq!(reply.message.unwrap().body, b"bye", "an answer may end with the connection");
        let cut = tcp(TcpSettings { until: until("done"), ..tcp_settings(brief) });
        let (cause, _, detail) = fault(cut.request(&saying("", BOUND)).await);
        assert_eq!(cause, Cause::Mismatch);
        assert!(detail.ends_with("closed the connection before its answer was complete: \"bye\""), "{detail}");

        let (flood, _flood) = server(async |mut stream| while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}).await;
        let message = tcp(tcp_settings(flood)).request(&saying("", BOUND)).await.unwrap().message.unwrap();
        assert_eq!((message.body.len(), &message.facts["truncated"]), (1_024, &Value::Bool(true)));
    });
}

/// TLS in front of a server that greets.
async fn front(shown: Shown, scratch: &Scratch) -> (TlsFront, JoinSet<()>) {
    let (address, tasks) = server(async |mut stream| {
        let _ = stream.write_all(b"hello\n").await;
        drop(stream.read(&mut [0; 1]).await);
    })
    .await;
    (TlsFront::start(address, shown, scratch.path()).await, tasks)
}

#[test]
fn a_handshake_tells_who_it_is_and_for_how_long() {
    block_on(async {
        let scratch = Scratch::new("checks-tls");
        let (front, _server) = front(Shown::Good, &scratch).await;
        let settings = TlsSettings {
            host: "127.0.0.1".to_owned(),
            port: front.address().port(),
            server_name: Some("localhost".to_owned()),
            ca_file: Some(front.ca_file().to_owned()),
        };
        let channel = Tls::open(settings.clone(), Clock::system()).unwrap();
        for _ in 0..2 {
            let (reply, seen) = met(channel.check(&Outgoing::empty(BOUND))).await;
            let reply = reply.unwrap();
            assert_eq!(seen["tls"], reply.ack);
            assert!(seen["certificate"].ends_with(", from ca-Good"), "{seen:?}");
            assert_eq!(names(&reply), ["dns", "connect", "tls"]);
            assert!(reply.ack.starts_with("TLSv1.3, TLS13_"), "{}", reply.ack);
            let message = reply.message.unwrap();
            let json = message.json().unwrap();
            assert_eq!((&json["version"], &json["server_name"]), (&json!("TLSv1.3"), &json!("localhost")));
            assert_eq!(json["chain"][0]["names"], json!(["localhost", "127.0.0.1"]));
            assert_eq!(json["chain"][0]["issuer"], "ca-Good");
            let Value::Text(expires) = &message.facts["certificate_expires"] else { panic!() };
            assert_eq!(json["chain"][0]["not_after"], json!(expires));
        }
        assert!(channel.prove(BOUND).await.unwrap().contains("speaks TLSv1.3 with a certificate for localhost"));

        // The same certificate as a tcp channel sees it.
        let over_tls = TcpSettings { tls: true, ca_file: settings.ca_file, ..tcp_settings(front.address()) };
        let reply = tcp(over_tls).request(&saying("", BOUND)).await.unwrap();
        assert_eq!(names(&reply), ["dns", "connect", "tls", "answer"]);
        let message = reply.message.unwrap();
        assert_eq!(message.text(), "hello\n");
        assert!(message.facts.contains_key("certificate_expires"));
    });
}

#[test]
fn a_certificate_that_is_not_right_is_a_tls_fault_in_words() {
    block_on(async {
        let scratch = Scratch::new("checks-bad-tls");
        for (shown, words) in [
            (Shown::Expired, "has expired"),
            (Shown::WrongHost, "is for another name"),
            (Shown::Unknown, "from an issuer that is not trusted; `ca_file` can name it"),
        ] {
            let (front, _server) = front(shown, &scratch).await;
            let ca_file = Some(front.ca_file().to_owned());
            let address = front.address();
            let settings = TlsSettings {
                host: "127.0.0.1".to_owned(),
                port: address.port(),
                server_name: None,
                ca_file: ca_file.clone(),
            };
            let channel = Tls::open(settings, Clock::system()).unwrap();
            let over_tls = TcpSettings { tls: true, ca_file, ..tcp_settings(address) };
            let (checked, seen) = met(channel.check(&Outgoing::empty(BOUND))).await;
            assert_eq!((&seen["peer"], seen.contains_key("tls")), (&address.to_string(), false));
            assert!(seen["certificate"].starts_with("until "), "what is not trusted is told all the same: {seen:?}");
            for answer in [checked, tcp(over_tls).check(&Outgoing::empty(BOUND)).await] {
                let (cause, uncertain, detail) = fault(answer);
                assert_eq!((cause, uncertain), (Cause::Tls, false), "{shown:?} {detail}");
                assert!(detail.contains(words) && detail.contains(&address.to_string()), "{detail}");
            }
            assert!(channel.prove(BOUND).await.is_err());
        }
        let missing = TlsSettings {
            host: "h".to_owned(),
            port: 1,
            server_name: None,
            ca_file: Some(scratch.path().join("gone.pem")),
        };
        assert!(Tls::open(missing, Clock::system()).err().unwrap().contains("gone.pem"));
        // A server that speaks no TLS, and one that says nothing.
        let (plain, _plain) = server(async |mut stream| drop(stream.write_all(b"220 no TLS here\r\n").await)).await;
        let (silent, _silent) = server(async |mut stream| drop(stream.read_to_end(&mut Vec::new()).await)).await;
        for (address, cause) in [(plain, Cause::Tls), (silent, Cause::Unreachable)] {
            let settings =
                TlsSettings { host: "127.0.0.1".to_owned(), port: address.port(), server_name: None, ca_file: None };
            let found = fault(Tls::open(settings, Clock::system()).unwrap().check(&Outgoing::empty(SOON)).await);
            assert_eq!((found.0, found.1), (cause, false), "{found:?}");
        }
    });
}

fn asking(name: &str, record: &str, timeout: Duration) -> Outgoing {
    let fields = [("lookup", name), ("record", record)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Outgoing { fields: BTreeMap::from(fields), ..Outgoing::empty(timeout) }
}

fn dns(server: SocketAddr) -> Dns {
    Dns::open(DnsSettings { server: Some(server) }, Clock::system())
}

const ZONE: &str = r#"
$ORIGIN example.net.
$TTL 300
@          SOA   ns ops 7 3600 600 86400 60
@          NS    ns
@      60  MX    20 b
@      60  MX    10 a
@          TXT   "v=spf1 " "-all"
@          CAA   0 issue "ca.example.org"
ns         A     192.0.2.53
www        A     192.0.2.8
www        A     192.0.2.7
www        AAAA  2001:db8::7
alias      CNAME www
_sip._tcp  SRV   1 2 5060 www
"#;

/// A text record that fits into no datagram.
fn large() -> String {
    (0..20).map(|number| format!("large TXT \"{number:03}{}\"\n", "x".repeat(200))).collect()
}

#[test]
fn a_real_server_is_asked_for_every_kind_of_record() {
    block_on(async {
        let Some(server) = Nsd::start(&format!("{ZONE}{}", large())).await else { return };
        let channel = dns(server.address());
        let list = |texts: &[&str]| Value::List(texts.iter().map(|text| Value::from(*text)).collect());
        let (_, seen) = met(channel.check(&asking("www.example.net", "A", BOUND))).await;
        let expected =
            [("peer", server.address().to_string()), ("name_server_answer", "192.0.2.7, 192.0.2.8".to_owned())];
        assert_eq!(seen, expected.into());
        for (name, record, expected) in [
            ("www.example.net", "A", &["192.0.2.7", "192.0.2.8"][..]),
            ("WWW.example.net.", "aaaa", &["2001:db8::7"]),
            ("example.net", "MX", &["10 a.example.net.", "20 b.example.net."]),
            ("example.net", "TXT", &["v=spf1 -all"]),
            ("example.net", "NS", &["ns.example.net."]),
            ("example.net", "SOA", &["ns.example.net. ops.example.net. 7 3600 600 86400 60"]),
            ("example.net", "CAA", &["0 issue \"ca.example.org\""]),
            ("alias.example.net", "CNAME", &["www.example.net."]),
            ("alias.example.net", "A", &["192.0.2.7", "192.0.2.8"]),
            ("_sip._tcp.example.net", "SRV", &["1 2 5060 www.example.net."]),
        ] {
            let reply = channel.check(&asking(name, record, BOUND)).await.unwrap();
            assert_eq!((reply.ack.as_str(), names(&reply)), ("NOERROR", vec!["udp"]), "{name} {record}");
            let message = reply.message.unwrap();
            assert!(message.trouble.is_none(), "{:?}", message.trouble);
            assert_eq!((message.status, &message.facts["value"]), (Some(0), &list(expected)), "{name} {record}");
            assert_eq!(message.json().unwrap()["authoritative"], true);
        }
        let mx = channel.check(&asking("example.net", "MX", BOUND)).await.unwrap().message.unwrap();
        assert_eq!(mx.json().unwrap()["ttl"], 60);

        let reply = channel.check(&asking("large.example.net", "TXT", BOUND)).await.unwrap();
        assert_eq!(names(&reply), ["udp", "tcp"], "it does not fit, and is asked for again");
        let Value::List(texts) = &reply.message.unwrap().facts["value"] else { panic!() };
        assert_eq!(texts.len(), 20);

        for (name, record, status, cause, word) in [
            ("gone.example.net", "A", 3, Cause::Refused, "there is no name gone.example.net. (NXDOMAIN)"),
            ("ns.example.net", "AAAA", 0, Cause::Refused, "ns.example.net. has no AAAA record"),
            ("www.example.org", "A", 5, Cause::Refused, "it does not answer us (REFUSED)"),
            ("192.0.2.7", "PTR", 5, Cause::Refused, "REFUSED"),
        ] {
            let message = channel.check(&asking(name, record, BOUND)).await.unwrap().message.unwrap();
            let trouble = message.trouble.clone().unwrap();
            assert_eq!((message.status, trouble.cause), (Some(status), cause), "{name} {record}");
            assert!(trouble.detail.contains(word), "{}", trouble.detail);
        }
        let (cause, _, detail) = fault(channel.check(&asking("www.example.net", "AXFR", BOUND)).await);
        assert!(cause == Cause::Refused && detail.contains("no record that can be asked for"), "{detail}");
        assert_eq!(channel.prove(BOUND).await.unwrap(), format!("{} answers (REFUSED)", server.address()));
    });
}

/// A DNS server that answers each question with the datagrams that `answers` makes of it, and over TCP with the stream.
async fn responder(
    answers: impl Fn(DnsMessage) -> Vec<Vec<u8>> + Send + 'static,
    over_tcp: impl Fn(DnsMessage) -> Vec<u8> + Send + Sync + Copy + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let (address, mut tasks) = server(move |mut stream| async move {
        let length = stream.read_u16().await.unwrap();
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        let answer = over_tcp(DnsMessage::from_vec(&question).unwrap());
        let _ = stream.write_all(&answer).await;
    })
    .await;
    let socket = UdpSocket::bind(address).await.unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for answer in answers(DnsMessage::from_vec(&buffer[..length]).unwrap()) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    (address, tasks)
}

/// An answer with this address.
fn answer(question: &DnsMessage, address: A) -> DnsMessage {
    let mut answer = DnsMessage::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(question.queries[0].clone());
    answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 30, RData::A(address)));
    answer
}

fn nothing(_: DnsMessage) -> Vec<u8> {
    Vec::new()
}

#[test]
fn answers_that_are_not_ours_are_passed_over() {
    block_on(async {
        let forged = |question: &DnsMessage| {
            let mut other_id = answer(question, A::new(6, 6, 6, 6));
            other_id.metadata.id ^= 0x5555;
            let mut other_name = answer(question, A::new(6, 6, 6, 6));
            other_name.queries[0].set_name("evil.example.net.".parse().unwrap());
            vec![other_id.to_vec().unwrap(), other_name.to_vec().unwrap(), b"garbage".to_vec(), Vec::new()]
        };
        let good = move |question: DnsMessage| {
            [forged(&question), vec![answer(&question, A::new(192, 0, 2, 7)).to_vec().unwrap()]].concat()
        };
        let (address, _server) = responder(good, nothing).await;
        let reply = dns(address).check(&asking("www.example.net", "A", BOUND)).await.unwrap();
        assert_eq!(reply.message.unwrap().facts["value"], Value::List(vec![Value::from("192.0.2.7")]));
        let (address, _server) = responder(move |question| forged(&question), nothing).await;
        let (cause, uncertain, detail) = fault(dns(address).check(&asking("www.example.net", "A", SOON)).await);
        assert_eq!((cause, uncertain), (Cause::Unreachable, false));
        let expected =
            format!("no answer from {address} within 400ms; 4 datagrams came that do not answer our question");
        assert_eq!(detail, expected);
    });
}

#[test]
fn a_truncated_answer_that_tcp_does_not_complete_is_told() {
    block_on(async {
        let truncated = |question: DnsMessage| {
            let mut answer = answer(&question, A::new(6, 6, 6, 6));
            answer.metadata.truncation = true;
            vec![answer.to_vec().unwrap()]
        };
        let (address, _server) = responder(truncated, nothing).await;
        let (cause, _, detail) = fault(dns(address).check(&asking("www.example.net", "A", BOUND)).await);
        assert_eq!(cause, Cause::Unreachable);
        let expected =
            format!("{address} closed the connection without an answer (TCP), after a truncated answer by UDP");
        assert_eq!(detail, expected);
        let wrong = |mut question: DnsMessage| {
            question.metadata.id ^= 1;
            let answer = answer(&question, A::new(6, 6, 6, 6)).to_vec().unwrap();
            [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat()
        };
        let (address, _server) = responder(truncated, wrong).await;
        let (cause, _, detail) = fault(dns(address).check(&asking("www.example.net", "A", BOUND)).await);
        assert!(cause == Cause::Mismatch && detail.contains("is no answer to our question"), "{detail}");
        let texts = |question: DnsMessage| {
            let mut answer = answer(&question, A::new(192, 0, 2, 7));
            let text = TXT::new(vec!["not what was asked for".to_owned()]);
            answer.add_answer(Record::from_rdata(question.queries[0].name().clone(), 5, RData::TXT(text)));
            answer.metadata.authentic_data = true;
            let answer = answer.to_vec().unwrap();
            [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat()
        };
        let (address, _server) = responder(truncated, texts).await;
        let message = dns(address).check(&asking("www.example.net", "A", BOUND)).await.unwrap().message.unwrap();
        assert_eq!(message.facts["value"], Value::List(vec![Value::from("192.0.2.7")]));
        let json = message.json().unwrap();
        assert_eq!(
            (&json["authentic_data"], &json["ttl"], &json["answers"][1]["type"]),
            (&json!(true), &json!(5), &json!("TXT"))
        );
    });
}

#[test]
fn a_server_that_is_not_there_or_cannot_find_out_is_told() {
    block_on(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (cause, _, detail) = fault(dns(gone).check(&asking("www.example.net", "A", BOUND)).await);
        assert_eq!((cause, detail), (Cause::Unreachable, format!("nothing listens for DNS at {gone} (UDP)")));
        let failing = |question: DnsMessage| {
            let mut answer = answer(&question, A::new(6, 6, 6, 6));
            answer.answers.clear();
            answer.metadata.response_code = ResponseCode::ServFail;
            vec![answer.to_vec().unwrap()]
        };
        let (address, _server) = responder(failing, nothing).await;
        let message = dns(address).check(&asking("www.example.net", "A", BOUND)).await.unwrap().message.unwrap();
        assert_eq!((message.status, message.trouble.unwrap().cause), (Some(2), Cause::Rejected));
        let (slow, _server) = responder(|_| Vec::new(), nothing).await;
        let started = Clock::system();
        let (_, _, detail) = fault(dns(slow).check(&asking("www.example.net", "A", SOON)).await);
        assert_eq!(detail, format!("no answer from {slow} within 400ms"));
        // A resolver's own patience would be five seconds and more.
        assert!(started.now().mono.0 < Duration::from_secs(4));
    });
}

fn plan(main: &str, journeys: &str) -> Plan {
    let main = format!("[defaults]\nmuted = true\n{main}");
    let loaded = load_text("main.toml", &main, &[("probe.toml", journeys)], Path::new("."));
    loaded.unwrap_or_else(|problems| panic!("{main}\n{}", render(&problems, false))).0
}

#[test]
fn the_pages_and_the_examples_load_and_their_channels_open() {
    for kind in ["tcp", "dns", "tls"] {
        let (main, journeys) = example(&format!("probes/examples/{kind}.toml"));
        let blocks = toml_blocks(&format!("docs/channels/{kind}.md"));
        let [shown, journey] = &blocks[..] else { panic!("{kind}: {} TOML blocks", blocks.len()) };
        for (main, journeys) in [(&main, &journeys), (shown, journey)] {
            let plan = plan(&main.replace("ca_file", "# ca_file"), journeys);
            assert!(!plan.journeys.is_empty() && plan.journeys.iter().all(|journey| journey.unavailable.is_none()));
            for planned in plan.channels.values() {
                let opened =
                    planned.settings.open(&Opening { clock: Clock::system(), hooks: None, alarms: Default::default() });
                assert!(opened.is_ok_and(|channel| channel.is_some()) || matches!(planned.settings, Settings::Tls(_)));
            }
        }
    }
}

#[test]
fn journeys_check_and_judge_what_they_find() {
    block_on(async {
        let Some(server) = Nsd::start(ZONE).await else { return };
        let scratch = Scratch::new("checks-once");
        let (front, _server) = front(Shown::Good, &scratch).await;
        let main = format!(
            "probes = [\"probe.toml\"]\n[channels.names]\ntype = \"dns\"\nserver = \"{}\"\n\
             [channels.certificate]\ntype = \"tls\"\naddress = \"127.0.0.1:{}\"\nserver_name = \"localhost\"\nca_file = \"ca-Good.pem\"\n\
             [channels.greeting]\ntype = \"tcp\"\naddress = \"127.0.0.1:{}\"\ntls = true\nca_file = \"ca-Good.pem\"\n",
            server.address(),
            front.address().port(),
            front.address().port()
        );
        scratch.write("journeyman.toml", &main);
        let journey = "[[journey]]\nname = \"checks\"\nevery = \"10m\"\ndeadline = \"9s\"\nmuted = true\n\
            [[journey.step]]\ncheck = \"names\"\nlookup = \"ADDRESSES\"\nexpect = [{ value = { contains = \"192.0.2.7\" } }, { json = \"$.ttl\", at_most = 300 }]\ncapture = { first = { json = \"$.answers[0].data\" } }\n\
            [[journey.step]]\ncheck = \"names\"\nrecord = \"MX\"\nlookup = \"NO NAME\"\nexpect = [{ status = 3 }]\n\
            [[journey.step]]\ncheck = \"certificate\"\nexpect = [{ certificate_expires_in = { at_least = \"14d\" } }, { json = \"$.version\", equals = \"TLSv1.3\" }]\n\
            [[journey.step]]\nrequest = \"greeting\"\nexpect = [{ body = \"hello\\n\" }, { certificate_expires_in = { at_least = \"14d\" } }]\n\
            [[journey.step]]\ncheck = \"greeting\"\nbudget = \"5s\"\n";
        let with_names = |first: &str, second: &str| journey.replace("ADDRESSES", first).replace("NO NAME", second);
        let once = async |journey: &str| {
            scratch.write("probe.toml", journey);
            journeyman(scratch.path(), &["once", "checks", "--config", "journeyman.toml", "--format", "json"]).await
        };
        let good = once(&with_names("www.example.net", "gone.example.net")).await;
        assert_eq!(good.code, 0, "{good:#?}");
        let bad = once(&with_names("gone.example.net", "www.example.net")).await;
        assert_eq!(bad.code, 2, "{bad:#?}");
        let report: serde_json::Value = serde_json::from_str(&bad.stdout).unwrap();
        assert_eq!((&report["outcome"]["cause"], &report["steps"][0]["status"]), (&json!("refused"), &json!("failed")));
        assert!(report["steps"][0]["detail"].as_str().unwrap().contains("NXDOMAIN"), "{report:#}");
    });
}
