//! What callers can take of a listener that faces the internet: those who dribble, those who declare the impossible, those who never
//! end, those who do not read. An honest one beside them is served all the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use journeyman::channel::webhook::{Limits, Verify, WebhookSettings};
use journeyman::gate::TurnedAway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::http_pages::stage::Stage;
use crate::support::daemon::Daemon;
use crate::support::table::Table;
use crate::support::{block_on, wait_for};
use crate::webhook_channel::{Gate, call, exchange, settings, status, with_gate, with_gate_for};

const BOUND: Duration = Duration::from_secs(20);
/// What the product promises an honest caller in the middle of it.
const HONEST_P99: Duration = Duration::from_millis(200);

/// A connection from another address of loopback, where an attacker has as many as he likes.
async fn connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Sends `head`, then a byte each `pause` until it is cut off or `done`; comes again as often as it is cut off.
async fn dribble(from: [u8; 4], to: SocketAddr, head: &'static [u8], done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        let Ok(mut stream) = connect(from, to).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if stream.write_all(head).await.is_err() {
            continue;
        }
        let mut byte = [0; 64];
        loop {
            if done.load(Ordering::Relaxed) || stream.write_all(b"a").await.is_err() {
                break;
            }
            let read = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut byte)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
        // One that is thrown out comes again, and not a thousand times a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The time of `count` honest calls, each on a connection of its own, the shortest first.
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
async fn honest(count: usize, to: SocketAddr, bytes: &[u8], expected: u16) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let began = std::time::Instant::now();
        assert_eq!(status(&exchange(to, bytes).await), expected);
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99).div_ceil(100) - 1]
}

/// T13: from one address, and from so many that they could have every place.
#[test]
fn a_thousand_who_dribble_do_not_keep_one_honest_caller_waiting() {
    let mut table = Table::new(
        "security",
        "t13",
        &["case", "attackers", "addresses", "honest p50", "honest p99", "bound", "health p99"],
    );
    for addresses in [1u8, 40] {
        let settings = WebhookSettings { max_body: 4_096, ..settings("/inbound", Verify::None) };
        block_on(with_gate_for(6 * BOUND, settings, Limits::default(), 1_024, async |gate: &mut Gate| {
            let pages = Stage::new(None).await;
            let health: SocketAddr = pages.url.trim_start_matches("http://").parse().unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let mut attackers = JoinSet::new();
            for number in 0..1_200u32 {
                let from = [127, 0, 1, 1 + (number % u32::from(addresses)) as u8];
                let head: &[u8] = match number % 6 {
                    0 => b"POST /inbound HTTP/1.1\r\nhost: h\r\ncontent-length: 4000\r\n\r\n",
                    _ => b"POST /inbound HTTP/1.1\r\nhost: h\r\nx-slow: ",
                };
                attackers.spawn(dribble(from, gate.address, head, done.clone()));
            }
            let tally = gate.hooks.door().tally.clone();
            wait_for("the attack to be in full swing", BOUND, async || {
                let away = tally.of(TurnedAway::Displaced) + tally.of(TurnedAway::NoPlace);
                (away > 500).then_some(())
            })
            .await;
            let bytes = call("POST", "/inbound", &[], "honest");
            let get = b"GET /live HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
            let (mut took, mut well) = (Vec::new(), Vec::new());
            // A machine that is busy with other tests may disturb one measurement, and not three.
            for _ in 0..3 {
                took = honest(200, gate.address, &bytes, 204).await;
                well = honest(100, health, get, 200).await;
                while gate.arrivals.try_recv().is_ok() {}
                if p99(&took).max(p99(&well)) <= HONEST_P99 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            attackers.shutdown().await;
            let millis = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1_000.0);
            table.row(&[
                &"1,000 heads and 200 bodies that dribble",
                &1_200,
                &addresses,
                &millis(took[took.len() / 2]),
                &millis(p99(&took)),
                &millis(HONEST_P99),
                &millis(p99(&well)),
            ]);
            assert!(p99(&took) <= HONEST_P99, "{:?}", p99(&took));
            assert!(p99(&well) <= HONEST_P99, "{:?}", p99(&well));
            pages.stop().await;
        }));
    }
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// A request to the hook with these fields in its head and this after it.
fn inbound(fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST /inbound HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n").as_bytes(), body].concat()
}

/// T14: what is declared costs nothing, what never ends is ended, what is packed is not unpacked.
#[test]
fn nothing_that_is_declared_packed_or_endless_takes_more_than_a_mebibyte() {
    const CONNECTIONS: u64 = 50;
    let mut table = Table::new("security", "t14", &["case", "answer", "connections", "memory each", "bound"]);
    let chunk = [b"8000\r\n".as_slice(), &[b'z'; 0x8000], b"\r\n"].concat();
    let cases = [
        ("10 GiB declared", inbound("content-length: 10737418240", b"x"), 413),
        ("4 GiB declared", inbound("content-length: 4294967296", b"x"), 413),
        ("16 EiB declared", inbound("content-length: 18446744073709551616", b"x"), 400),
        ("two lengths", inbound("content-length: 1\r\ncontent-length: 2", b"xx"), 400),
        ("chunks without end", inbound("transfer-encoding: chunked", &chunk.repeat(80)), 413),
        ("a chunk of 2^68 bytes", inbound("transfer-encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\nx"), 400),
        ("gzip", inbound("content-encoding: gzip\r\ncontent-length: 1024", &[0x1f; 1_024]), 415),
    ];
    block_on(async {
        let config = "\n[hooks]\n\n[channels.hook]\ntype = \"webhook\"\npath = \"/inbound\"\nverify = { scheme = \"none\" }\n\n\
                      [channels.box]\ntype = \"memory\"\n";
        let probes = "[[journey]]\nname = \"one\"\nevery = \"1h\"\nmuted = true\n\
                      step = [{ send = \"box\", text = \"{{ token }}\" }, { receive = \"hook\" }]\n";
        let mut daemon = Daemon::start(config, probes).await;
        let to: SocketAddr = daemon.hook_url("").trim_start_matches("http://").parse().unwrap();
        for (case, bytes, expected) in &cases {
            let before = resident(daemon.pid());
            let mut most = before;
            let mut calls = JoinSet::new();
            for _ in 0..CONNECTIONS {
                let bytes = bytes.clone();
                calls.spawn(async move { exchange(to, &bytes).await });
            }
            while let Some(told) = calls.join_next().await {
                most = most.max(resident(daemon.pid()));
                let told = told.unwrap();
                // The caller of an endless one may be cut off while it still writes, and see only that.
                if !(told.is_empty() && *case == "chunks without end") {
                    assert_eq!(status(&told), *expected, "{case}");
                }
            }
            let each = most.saturating_sub(before) / CONNECTIONS;
            table.row(&[case, expected, &CONNECTIONS, &format!("{} KiB", each >> 10), &"1024 KiB"]);
            assert!(each <= 1 << 20, "{case}: {each} bytes");
        }
        let plain = call("POST", "/inbound", &[("content-encoding", "Identity")], "plain");
        assert_eq!(status(&exchange(to, &plain).await), 200);
        let labels = [("result", "encoded")];
        wait_for("the refusals to be counted", BOUND, async || {
            (daemon.metric("journeyman_webhook_requests_total", &labels).await? == CONNECTIONS as f64).then_some(())
        })
        .await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
    block_on(async {
        let stage = Stage::new(Some("the-admin-token")).await;
        let to: SocketAddr = stage.url.trim_start_matches("http://").parse().unwrap();
        for path in ["/", "/metrics", "/api/v1/silences"] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer the-admin-token\r\n");
            let told = exchange(to, format!("{head}content-length: 10737418240\r\n\r\nx").as_bytes()).await;
            assert_eq!(status(&told), 413, "{path}");
            assert!(told.to_lowercase().contains("connection: close"), "{told}");
        }
        let mut endless = b"POST /api/v1/silences HTTP/1.1\r\nhost: h\r\nauthorization: Bearer the-admin-token\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        endless.extend(b"8000\r\n".iter().chain(&[b'z'; 0x8000]).chain(b"\r\n"));
        assert!(matches!(status(&exchange(to, &endless).await), 400 | 413));
        stage.stop().await;
    });
}

#[test]
fn a_caller_who_does_not_read_loses_its_connection() {
    block_on(async {
        let stage = Stage::new(None).await;
        crate::http_pages::stage::fill(&stage).await;
        let to: SocketAddr = stage.url.trim_start_matches("http://").parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        // Pages that fill every buffer on the way, none of which is ever read.
        let pages = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n".repeat(2_000);
        let (mut reading, mut writing) = stream.split();
        let gone = async {
            loop {
                // The kernel says that the connection is gone only to who uses it.
                if writing.write_all(&pages).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(2 * BOUND, gone).await.expect("it is cut off");
        let _ = reading.read(&mut [0; 1]).await;
        stage.stop().await;
    });
}

/// Also where there is room for all: a head has its time, whoever else comes.
#[test]
fn a_head_that_does_not_end_is_cut_off_when_its_time_is_over() {
    let limits = Limits { header: Duration::from_millis(300), ..Limits::default() };
    block_on(with_gate(settings("/inbound", Verify::None), limits, 64, async |gate: &mut Gate| {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(b"POST /inbound HTTP/1.1\r\nhost: h\r\nx-slow: ").await.unwrap();
        let ended = tokio::time::timeout(BOUND, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it is still open after {BOUND:?}");
        assert_eq!(gate.hooks.door().tally.of(TurnedAway::Displaced), 0, "there was room");
    }));
}

#[test]
fn one_address_has_its_share_and_the_door_of_another_stays_open() {
    let limits = Limits { connections: 8, per_address: 3, ..Limits::default() };
    block_on(with_gate(settings("/inbound", Verify::None), limits, 64, async |gate: &mut Gate| {
        let mut idle = Vec::new();
        for number in 0..12 {
            let mut stream = connect([127, 0, 2, 1], gate.address).await.unwrap();
            stream.write_all(&call("POST", "/inbound", &[], "x")).await.unwrap();
            let mut told = [0; 12];
            stream.read_exact(&mut told).await.unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!(&told, b"HTTP/1.1 204", "{number}: the oldest of its own makes room");
            idle.push(stream);
        }
        let tally = &gate.hooks.door().tally;
        assert_eq!((tally.of(TurnedAway::Displaced), tally.of(TurnedAway::NoPlace)), (9, 0));
        assert_eq!(status(&exchange(gate.address, &call("POST", "/inbound", &[], "y")).await), 204);
        assert_eq!(tally.of(TurnedAway::Displaced), 9, "there was room for another address");
    }));
}
