//! The hooks listener and its channels, called by raw sockets as the internet calls them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use journeyman::channel::webhook::{
    Algorithm, CallResult, Encoding, HookCounts, Hooks, Limits, Verify, Webhook, WebhookSettings, serve,
};
use journeyman::channel::{Channel, Listener, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::expect::{JsonPath, Query, View};
use journeyman::journey::message::{Arrival, Message};
use journeyman::journey::token::Mint;
use journeyman::journey::value::Value;
use journeyman::secret::{Redactor, Secret};
use sha2::{Sha256, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::block_on;

const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn secret(value: &str) -> Secret {
    Secret::new(value.to_owned(), &Redactor::new())
}

pub(crate) fn settings(path: &str, verify: Verify) -> WebhookSettings {
    WebhookSettings { path: path.to_owned(), verify, max_body: 1_000, respond: 204 }
}

fn github(secrets: &[&str]) -> Verify {
    Verify::github(secrets.iter().map(|value| secret(value)).collect())
}

/// A listening channel on a listener of its own, with everything that can be seen of it.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    pub(crate) hooks: Hooks,
    pub(crate) counts: Arc<HookCounts>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) stop: CancellationToken,
    pub(crate) clock: Clock,
}

/// Runs `test` beside the hooks listener and one channel, and sees both end.
pub(crate) async fn with_gate(
    settings: WebhookSettings,
    limits: Limits,
    capacity: usize,
    test: impl AsyncFnOnce(&mut Gate),
) {
    with_gate_for(BOUND, settings, limits, capacity, test).await;
}

/// The same, for a test that takes longer.
pub(crate) async fn with_gate_for(
    bound: Duration,
    settings: WebhookSettings,
    limits: Limits,
    capacity: usize,
    test: impl AsyncFnOnce(&mut Gate),
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (clock, hooks, stop) = (Clock::system(), Hooks::new(limits), CancellationToken::new());
    let (sender, arrivals) = mpsc::channel(capacity);
    let (readiness, mut ready) = watch::channel(Readiness::Starting);
    let channel = Webhook::open(settings, hooks.clone(), clock);
    let address = listener.local_addr().unwrap();
    let reader = Listener {
        channel: "inbound".into(),
        clock,
        arrivals: sender,
        journal: Default::default(),
        since: None,
        readiness,
        mint: Arc::new(Mint::new([1; 32], 0)),
        nudge: Default::default(),
        awaited: Default::default(),
        stop: stop.clone(),
    };
    let mut gate = Gate {
        address,
        hooks: hooks.clone(),
        counts: channel.counts().expect("it is called"),
        arrivals,
        stop: stop.clone(),
        clock,
    };
    let all = async {
        tokio::join!(serve(listener, hooks, stop.clone()), channel.listen(reader), async {
            ready.wait_for(|now| *now != Readiness::Starting).await.unwrap();
            test(&mut gate).await;
            gate.stop.cancel();
        })
    };
    tokio::time::timeout(bound, all).await.expect("all ends in time");
}

/// Sends `bytes` on a connection of its own and reads until the other side closes it or has answered once.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A refusal may come, and the connection go, before all is written.
    let _ = stream.write_all(bytes).await;
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(BOUND, stream.read(&mut buffer)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(length) => seen.extend_from_slice(&buffer[..length]),
        }
        if seen.windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8(seen).unwrap()
}

pub(crate) fn call(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: hooks\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}").into_bytes()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

pub(crate) fn find(query: Query, message: &Message) -> Option<Value> {
    query.find(View::of(message, jiff::Timestamp::UNIX_EPOCH))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(key: &str, body: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[test]
fn a_call_becomes_a_message_that_every_query_reads() {
    block_on(with_gate(settings("/inbound", Verify::None), Limits::default(), 4, async |gate| {
        let before = gate.clock.now().mono;
        let body = r#"{"id":"jm01","n":12345678901234567890}"#;
        let told = exchange(gate.address, &call("POST", "/inbound?x=1", &[("X-Trace", "abc")], body)).await;
        assert_eq!(status(&told), 204);
        let arrival = gate.arrivals.recv().await.unwrap();
        assert_eq!(&*arrival.channel, "inbound");
        assert!(arrival.at.mono >= before && arrival.at.mono <= gate.clock.now().mono);
        let message = &arrival.message;
        assert_eq!(message.text(), body, "a query string is no part of a message that has a body");
        assert_eq!(find(Query::Json(JsonPath::parse("$.id").unwrap()), message), Some(Value::from("jm01")));
        assert_eq!(find(Query::Header("x-trace".to_owned()), message), Some(Value::from("abc")));
        assert!(message.headers.iter().any(|(name, _)| name == "x-trace"), "header names are in lower case");
        assert_eq!(find(Query::Regex(regex::Regex::new(r"jm(\d+)").unwrap()), message), Some(Value::from("01")));
        assert_eq!(message.facts["method"], Value::from("POST"));
        assert_eq!(message.facts["path"], Value::from("/inbound"));
        assert_eq!(message.status, None);

        let form = call("PUT", "/inbound", &[("content-type", "application/x-www-form-urlencoded")], "To=%2B44+7&x=1");
        assert_eq!(status(&exchange(gate.address, &form).await), 204);
        let message = gate.arrivals.recv().await.unwrap().message;
        assert_eq!(find(Query::Form("To".to_owned()), &message), Some(Value::from("+44 7")));

        // Kannel: get-url = "http://…/inbound?from=%p&to=%P&text=%a"
        let kannel = b"GET /inbound?from=%2B447700900123&text=probe+jm01 HTTP/1.1\r\nhost: hooks\r\n\r\n";
        assert_eq!(status(&exchange(gate.address, kannel).await), 204);
        let message = gate.arrivals.recv().await.unwrap().message;
        assert_eq!(find(Query::Form("from".to_owned()), &message), Some(Value::from("+447700900123")));
        assert_eq!(find(Query::Form("text".to_owned()), &message), Some(Value::from("probe jm01")));
        assert_eq!(message.facts["method"], Value::from("GET"));
        assert_eq!(gate.counts.of(CallResult::Accepted), 3);
    }));
}

#[test]
fn the_answer_is_the_configured_one_and_comes_after_the_hand_over() {
    let settings = WebhookSettings { respond: 202, ..settings("/inbound", Verify::None) };
    let limits = Limits { hand_over: Duration::from_millis(50), ..Limits::default() };
    block_on(with_gate(settings, limits, 1, async |gate| {
        let told = exchange(gate.address, &call("POST", "/inbound", &[], "one")).await;
        assert_eq!(status(&told), 202);
        assert!(told.to_lowercase().contains("content-length: 0"), "{told}");
        // The switchboard takes nothing more: the caller is told to try again, and its message is not kept either.
        let told = exchange(gate.address, &call("POST", "/inbound", &[], "two")).await;
        assert_eq!(status(&told), 503);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), "one");
        assert_eq!(status(&exchange(gate.address, &call("POST", "/inbound", &[], "two again")).await), 202);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), "two again");
        assert_eq!((gate.counts.of(CallResult::Busy), gate.counts.of(CallResult::Accepted)), (1, 2));
    }));
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    block_on(with_gate(settings("/inbound", Verify::None), Limits::default(), 4, async |gate| {
        for path in ["/", "/inbound/", "/Inbound", "/inbound/x", "/%69nbound", "/inbound%00"] {
            let told = exchange(gate.address, &call("POST", path, &[], "x")).await;
            assert_eq!(status(&told), 404, "{path}");
            assert!(told.ends_with("\r\n\r\n"), "an empty body: {told}");
        }
        for method in ["DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"] {
            let told = exchange(gate.address, &call(method, "/inbound", &[], "")).await;
            assert_eq!(status(&told), 405, "{method}");
            assert!(told.to_lowercase().contains("allow: post, put, get"), "{told}");
        }
        assert_eq!(gate.hooks.strays().of(CallResult::UnknownPath), 6);
        assert_eq!(gate.counts.of(CallResult::WrongMethod), 6);
        assert!(gate.arrivals.try_recv().is_err());
    }));
}

#[test]
fn the_documented_github_signature_is_accepted_and_so_are_all_encodings() {
    let signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let key = "It's a Secret to Everybody";
    block_on(with_gate(settings("/hook", github(&["another", key])), Limits::default(), 8, async |gate| {
        for value in [signed.to_owned(), signed.to_uppercase().replace("SHA256=", "sha256=")] {
            let bytes = call("POST", "/hook", &[("X-Hub-Signature-256", &value)], "Hello, World!");
            assert_eq!(status(&exchange(gate.address, &bytes).await), 204);
            assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), "Hello, World!");
        }
    }));
    // base64 of the same MAC, computed with openssl; and SHA-512 in hexadecimal, computed here.
    let base64 = |prefix: &str| Verify::Hmac {
        secrets: vec![secret(key)],
        header: "x-signature".to_owned(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Base64,
        prefix: prefix.to_owned(),
    };
    block_on(with_gate(settings("/hook", base64("v1,")), Limits::default(), 8, async |gate| {
        let value = "v1,dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc=";
        let told = exchange(gate.address, &call("POST", "/hook", &[("x-signature", value)], "Hello, World!")).await;
        assert_eq!(status(&told), 204);
        let wrong = value.to_lowercase();
        let told = exchange(gate.address, &call("POST", "/hook", &[("x-signature", &wrong)], "Hello, World!")).await;
        assert_eq!(status(&told), 401, "base64 has case");
        assert_eq!(gate.counts.of(CallResult::Accepted), 1);
    }));
    let verify = Verify::Hmac {
        secrets: vec![secret(key)],
        header: "x-signature".to_owned(),
        algorithm: Algorithm::Sha512,
        encoding: Encoding::Hex,
        prefix: String::new(),
    };
    block_on(with_gate(settings("/hook", verify), Limits::default(), 8, async |gate| {
        let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(b"body");
        let value = hex(&mac.finalize().into_bytes());
        assert_eq!(
            status(&exchange(gate.address, &call("POST", "/hook", &[("x-signature", &value)], "body")).await),
            204
        );
    }));
}

#[test]
fn no_forged_call_is_handed_over() {
    let (key, body) = ("k3y-one", "payload jm01");
    block_on(with_gate(settings("/hook", github(&[key, "k3y-two"])), Limits::default(), 64, async |gate| {
        let good = format!("sha256={}", hex(&sha256(key, body)));
        let name = "x-hub-signature-256";
        type Call = (String, Vec<(&'static str, String)>, String);
        let mut forged: Vec<Call> = Vec::new();
        let mut add = |what: &str, headers: Vec<(&'static str, String)>, body: &str| {
            forged.push((what.to_owned(), headers, body.to_owned()));
        };
        add("no header", vec![], body);
        add("empty header", vec![(name, String::new())], body);
        add("prefix alone", vec![(name, "sha256=".to_owned())], body);
        add("no prefix", vec![(name, good[7..].to_owned())], body);
        add("prefix in capitals", vec![(name, good.replace("sha256", "SHA256"))], body);
        add("another prefix", vec![(name, good.replace("sha256", "sha512"))], body);
        add("prefix twice", vec![(name, format!("sha256={good}"))], body);
        add("the right header twice", vec![(name, good.clone()), (name, good.clone())], body);
        add("right, then wrong", vec![(name, good.clone()), (name, format!("sha256={}", "0".repeat(64)))], body);
        add("wrong, then right", vec![(name, format!("sha256={}", "0".repeat(64))), (name, good.clone())], body);
        add("both in one header", vec![(name, format!("{good}, {good}"))], body);
        add("another header", vec![("x-hub-signature", good.clone())], body);
        add("as a bearer token", vec![("authorization", format!("Bearer {good}"))], body);
        add("one digit short", vec![(name, good[..good.len() - 1].to_owned())], body);
        add("one byte short", vec![(name, good[..good.len() - 2].to_owned())], body);
        add("one digit more", vec![(name, format!("{good}0"))], body);
        add("one byte more", vec![(name, format!("{good}00"))], body);
        add("zeros", vec![(name, format!("sha256={}", "0".repeat(64)))], body);
        add("not hexadecimal", vec![(name, format!("sha256={}", "g".repeat(64)))], body);
        add("with a space", vec![(name, good.replace('=', "= "))], body);
        add("with colons", vec![(name, format!("sha256={}", good[7..].replace('a', ":")))], body);
        add("0x before it", vec![(name, format!("sha256=0x{}", &good[7..]))], body);
        add("another key", vec![(name, format!("sha256={}", hex(&sha256("k3y-three", body))))], body);
        add("an empty key", vec![(name, format!("sha256={}", hex(&sha256("", body))))], body);
        add("a key with a newline", vec![(name, format!("sha256={}", hex(&sha256("k3y-one\n", body))))], body);
        add(
            "SHA-512",
            vec![(name, {
                let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
                mac.update(body.as_bytes());
                format!("sha256={}", hex(&mac.finalize().into_bytes()))
            })],
            body,
        );
        add(
            "the hash without a key",
            vec![(name, {
                use sha2::Digest;
                format!("sha256={}", hex(&Sha256::digest(body)))
            })],
            body,
        );
        add("the secret itself", vec![(name, format!("sha256={key}"))], body);
        add("another body", vec![(name, good.clone())], "payload jm02");
        add("a longer body", vec![(name, good.clone())], "payload jm01 ");
        add("a shorter body", vec![(name, good.clone())], "payload jm0");
        add("no body", vec![(name, good.clone())], "");
        add("the body in capitals", vec![(name, good.clone())], "PAYLOAD JM01");
        add("a newline after the body", vec![(name, good.clone())], "payload jm01\n");
        add("of the empty body", vec![(name, format!("sha256={}", hex(&sha256(key, ""))))], body);
        // Every digit counts, not only the first or the last.
        for at in (7..good.len()).step_by(5) {
            let other = if &good[at..=at] == "f" { "e" } else { "f" };
            add(&format!("digit {at}"), vec![(name, format!("{}{other}{}", &good[..at], &good[at + 1..]))], body);
        }
        assert!(forged.len() >= 45, "{}", forged.len());
        for (what, headers, body) in &forged {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let told = exchange(gate.address, &call("POST", "/hook", &headers, body)).await;
            assert_eq!(status(&told), 401, "{what}");
        }
        assert!(gate.arrivals.try_recv().is_err(), "nothing was handed over");
        assert_eq!(gate.counts.of(CallResult::RefusedSignature), forged.len() as u64);

        // What is not signed is not read: a query beside the signed empty body, and a method that has no body.
        let of_nothing = format!("sha256={}", hex(&sha256(key, "")));
        let told = exchange(gate.address, &call("GET", "/hook?text=jm01", &[(name, &of_nothing)], "")).await;
        assert_eq!(status(&told), 405);
        let told = exchange(gate.address, &call("POST", "/hook?text=jm01", &[(name, &of_nothing)], "")).await;
        assert_eq!(status(&told), 204);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.text(), "");
        let told = exchange(gate.address, &call("POST", "/hook", &[(name, &good)], body)).await;
        assert_eq!(status(&told), 204, "and the real one is accepted");
    }));
}

#[test]
fn bearer_tokens_are_compared_whole() {
    let verify = Verify::Bearer { secrets: vec![secret("t0ken-a"), secret("t0ken-b")] };
    block_on(with_gate(settings("/hook", verify), Limits::default(), 8, async |gate| {
        for (value, expected) in [
            ("Bearer t0ken-a", 204),
            ("bearer t0ken-b", 204),
            ("Bearer t0ken-", 401),
            ("Bearer t0ken-ab", 401),
            ("Bearer T0KEN-A", 401),
            ("Basic t0ken-a", 401),
            ("t0ken-a", 401),
            ("Bearer", 401),
            ("Bearer t0ken-a, Bearer t0ken-b", 401),
        ] {
            let told = exchange(gate.address, &call("POST", "/hook", &[("authorization", value)], "x")).await;
            assert_eq!(status(&told), expected, "{value}");
        }
        let twice = [("authorization", "Bearer t0ken-a"), ("authorization", "Bearer t0ken-a")];
        assert_eq!(status(&exchange(gate.address, &call("POST", "/hook", &twice, "x")).await), 401);
        // The proof is in the head and covers the query too.
        let told = exchange(gate.address, &call("GET", "/hook?a=b", &[("authorization", "Bearer t0ken-a")], "")).await;
        assert_eq!(status(&told), 204);
    }));
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_is_declared() {
    block_on(with_gate(settings("/inbound", Verify::None), Limits::default(), 4, async |gate| {
        let exact = "x".repeat(1_000);
        assert_eq!(status(&exchange(gate.address, &call("POST", "/inbound", &[], &exact)).await), 204);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.body.len(), 1_000);
        for length in [1_001, 1_999, 2_001, 100_000] {
            let told = exchange(gate.address, &call("POST", "/inbound", &[], &"x".repeat(length))).await;
            assert_eq!(status(&told), 413, "{length}");
        }
        // Declared far beyond memory, and never sent.
        let huge = b"POST /inbound HTTP/1.1\r\nhost: h\r\ncontent-length: 9000000000000000000\r\n\r\nx";
        assert_eq!(status(&exchange(gate.address, huge).await), 413);
        let chunked = |count: usize| {
            let head = "POST /inbound HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            format!("{head}{}0\r\n\r\n", format!("64\r\n{}\r\n", "y".repeat(100)).repeat(count)).into_bytes()
        };
        assert_eq!(status(&exchange(gate.address, &chunked(10)).await), 204);
        assert_eq!(gate.arrivals.recv().await.unwrap().message.body.len(), 1_000);
        for count in [11, 15, 1_000] {
            assert_eq!(status(&exchange(gate.address, &chunked(count)).await), 413, "{count} chunks");
        }
        assert!(gate.arrivals.try_recv().is_err());
        assert_eq!(gate.counts.of(CallResult::TooLarge), 8);

        // One that never ends is cut off by its size, long before the time for a body is over.
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"POST /inbound HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let endless = async {
            while writing.write_all(b"5\r\nendle\r\n").await.is_ok() {}
            std::future::pending::<()>().await
        };
        let mut told = vec![0; 12];
        tokio::select! {
            read = reading.read_exact(&mut told) => assert_eq!((read.unwrap(), &told[..]), (12, &b"HTTP/1.1 413"[..])),
            () = endless => unreachable!("it never ends"),
            () = tokio::time::sleep(Limits::default().body / 2) => panic!("never cut off"),
        }
    }));
}

#[test]
fn a_caller_that_dribbles_is_cut_off() {
    let limits = Limits { header: Duration::from_millis(200), body: Duration::from_millis(200), ..Limits::default() };
    block_on(with_gate(settings("/inbound", Verify::None), limits, 4, async |gate| {
        // One byte of a head every 20 ms would take minutes; the connection goes after 200 ms.
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let cut = async {
            for byte in b"POST /inbound HTTP/1.1\r\nx-slow: ".iter().chain([b'a'; 5_000].iter()) {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                let mut buffer = [0; 256];
                if let Ok(Ok(0) | Err(_)) =
                    tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await
                {
                    return;
                }
            }
            panic!("never cut off");
        };
        tokio::time::timeout(BOUND, cut).await.expect("the head is cut off");

        // The same for a body; this caller is told.
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"POST /inbound HTTP/1.1\r\nhost: h\r\ncontent-length: 500\r\n\r\n").await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let dribble = async {
            loop {
                if writing.write_all(b"z").await.is_err() {
                    return std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut told = Vec::new();
        let told = tokio::select! {
            _ = reading.read_to_end(&mut told) => String::from_utf8(told).unwrap(),
            () = dribble => unreachable!("it dribbles on"),
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("never cut off"),
        };
        assert_eq!(status(&told), 408);

        // One that goes away in the middle leaves a count and nothing else.
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"POST /inbound HTTP/1.1\r\nhost: h\r\ncontent-length: 500\r\n\r\nhalf").await.unwrap();
        drop(stream);
        crate::support::wait_for("the broken call to be counted", BOUND, async || {
            (gate.counts.of(CallResult::BrokenOff) == 1).then_some(())
        })
        .await;
        assert_eq!(gate.counts.of(CallResult::Timeout), 1);
        assert!(gate.arrivals.try_recv().is_err());

        // An idle connection is closed too.
        let mut idle = TcpStream::connect(gate.address).await.unwrap();
        idle.write_all(&call("POST", "/inbound", &[], "x")).await.unwrap();
        assert_eq!(status(&answer(&mut idle).await), 204);
        assert_eq!(answer(&mut idle).await, "", "closed without a word");
    }));
}

#[test]
fn connections_beyond_the_limit_take_the_place_of_the_one_that_was_silent_the_longest() {
    let limits = Limits { connections: 2, ..Limits::default() };
    block_on(with_gate(settings("/inbound", Verify::None), limits, 4, async |gate| {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(gate.address).await.unwrap();
            stream.write_all(&call("POST", "/inbound", &[], "x")).await.unwrap();
            assert_eq!(status(&answer(&mut stream).await), 204);
            held.push(stream);
        }
        assert_eq!(status(&exchange(gate.address, &call("POST", "/inbound", &[], "third")).await), 204);
        let mut rest = Vec::new();
        let ended = held[0].read_to_end(&mut rest);
        let ended = tokio::time::timeout(Limits::default().header / 2, ended).await.expect("the first one was let go");
        assert!(rest.is_empty() || ended.is_err());
        held[1].write_all(&call("POST", "/inbound", &[], "again")).await.unwrap();
        assert_eq!(status(&answer(&mut held[1]).await), 204, "the second was not");
    }));
}

#[test]
fn two_channels_cannot_have_one_path_and_the_second_gets_it_when_the_first_goes() {
    block_on(async {
        let (hooks, clock) = (Hooks::default(), Clock::system());
        let open = || Webhook::open(settings("/inbound", Verify::None), hooks.clone(), clock);
        let reader = |name: &str| {
            let (arrivals, _) = mpsc::channel(1);
            let (readiness, ready) = watch::channel(Readiness::Starting);
            let stop = CancellationToken::new();
            (
                Listener {
                    channel: name.into(),
                    clock,
                    arrivals,
                    journal: Default::default(),
                    since: None,
                    readiness,
                    mint: Arc::new(Mint::new([1; 32], 0)),
                    nudge: Default::default(),
                    awaited: Default::default(),
                    stop: stop.clone(),
                },
                ready,
                stop,
            )
        };
        let (first, second) = (open(), open());
        let (first_reader, mut first_ready, first_stop) = reader("first");
        let (second_reader, mut second_ready, second_stop) = reader("second");
        let script = async {
            first_ready.wait_for(|now| *now == Readiness::Ready).await.unwrap();
            let told = second_ready.wait_for(|now| *now != Readiness::Starting).await.unwrap().clone();
            assert!(matches!(told, Readiness::Down { why } if why.contains("`first`")));
            first_stop.cancel();
            second_ready.wait_for(|now| *now == Readiness::Ready).await.unwrap();
            second_stop.cancel();
        };
        // In this order the first registers first.
        let all = async { tokio::join!(first.listen(first_reader), second.listen(second_reader), script) };
        tokio::time::timeout(BOUND, all).await.expect("both get their turn");
    });
}
