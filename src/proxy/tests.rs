//! The proxy on real sockets: what each fault does to a connection that speaks to an echo.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Whatever must happen happens within this.
const BOUND: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server that says what it hears, and a proxy in front of it.
struct Stage {
    proxy: Proxy,
    clock: Clock,
    _server: JoinSet<()>,
}

impl Stage {
    async fn with(faults: &[&str]) -> Stage {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let clock = Clock::system();
        let proxy = Proxy::start(LOOPBACK, &address.to_string(), 7, clock).await.unwrap();
        proxy.impose(read(faults));
        Stage { proxy, clock, _server: server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }

    /// Waits until the proxy's tally is so.
    async fn until(&self, wanted: impl Fn(&Tally) -> bool) {
        let is_so = async {
            while !wanted(&self.proxy.tally()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let so = tokio::time::timeout(BOUND, is_so).await;
        assert!(so.is_ok(), "{:?}", self.proxy.tally());
    }

    /// How long something takes.
    async fn took<T>(&self, what: impl Future<Output = T>) -> (T, Duration) {
        let began = self.clock.now().mono;
        let it = tokio::time::timeout(BOUND, what).await.expect("it has an end");
        (it, self.clock.now().mono.since(began))
    }
}

fn read(faults: &[&str]) -> Vec<Fault> {
    faults.iter().map(|fault| fault.parse().unwrap()).collect()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn hear(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut heard = vec![0; length];
    tokio::time::timeout(BOUND, stream.read_exact(&mut heard)).await.expect("in time").expect("all of it");
    heard
}

/// What is left to hear until the other side's end.
async fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut heard = Vec::new();
    let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut heard)).await.expect("an end in time");
    read.map(|_| heard).map_err(|error| error.kind())
}

#[tokio::test]
async fn without_a_fault_everything_goes_through_and_is_counted() {
    let stage = Stage::with(&[]).await;
    let mut client = stage.connect().await;
    let said: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let (mut from, mut to) = client.split();
    let mut heard = Vec::new();
    let say = async {
        to.write_all(&said).await.unwrap();
        to.shutdown().await.unwrap();
    };
    tokio::join!(say, async { from.read_to_end(&mut heard).await.unwrap() });
    assert!(heard == said);
    stage.until(|tally| tally.open == 0).await;
    let all = Carried { came: 1_000_000, went: 1_000_000 };
    let wanted = Tally { connections: 1, to_server: all, to_client: all, ..Tally::default() };
    assert_eq!(stage.proxy.tally(), wanted);
}

#[tokio::test]
async fn a_latency_delays_each_piece_and_not_those_after_it_once_more() {
    let stage = Stage::with(&["to-server:latency=300ms"]).await;
    let mut client = stage.connect().await;
    let ((), took) = stage
        .took(async {
            for piece in [b"one", b"two", b"six"] {
                client.write_all(piece).await.unwrap();
                tokio::time::sleep(millis(20)).await;
            }
            assert_eq!(hear(&mut client, 9).await, b"onetwosix");
        })
        .await;
    assert!(took >= millis(340) && took < millis(850), "{took:?}");
}

#[tokio::test]
async fn what_waits_goes_on_as_soon_as_the_fault_is_lifted() {
    for fault in ["latency=1h", "hold", "bandwidth=1B/s", "slicer=1/1h"] {
        let stage = Stage::with(&[fault]).await;
        let mut client = stage.connect().await;
        client.write_all(&[1; 5_000]).await.unwrap();
        stage.until(|tally| tally.to_server.came == 5_000).await;
        assert!(stage.proxy.tally().to_server.went < 5_000, "{fault}");
        stage.proxy.impose(Vec::new());
        assert_eq!(hear(&mut client, 5_000).await, [1; 5_000], "{fault}");
    }
}

#[tokio::test]
async fn bytes_that_are_held_do_not_fill_memory() {
    let stage = Stage::with(&["to-server:hold"]).await;
    let mut client = stage.connect().await;
    let chunk = vec![0; 64 * 1_024];
    // Until the kernel takes no more, either.
    while tokio::time::timeout(millis(300), client.write_all(&chunk)).await.is_ok() {}
    let came = stage.proxy.seen(Direction::ToServer);
    assert!(came <= 18 * 16 * 1_024, "{came}");
    assert_eq!(stage.proxy.tally().to_server.went, 0);
}

#[tokio::test]
async fn a_bandwidth_and_a_slicer_make_it_slow_and_lose_nothing() {
    let stage = Stage::with(&["to-client:bandwidth=20kB/s", "to-server:slicer=500/10ms"]).await;
    let mut client = stage.connect().await;
    let said: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let (heard, took) = stage
        .took(async {
            client.write_all(&said).await.unwrap();
            hear(&mut client, 10_000).await
        })
        .await;
    assert!(heard == said && took >= millis(500), "{took:?}");
}

#[tokio::test]
async fn a_cut_loses_what_was_held_also_if_it_is_let_go_in_the_same_moment() {
    let stage = Stage::with(&["to-client:hold"]).await;
    let mut client = stage.connect().await;
    client.write_all(b"lost").await.unwrap();
    stage.until(|tally| tally.to_client.came == 4).await;
    stage.proxy.cut();
    stage.proxy.impose(Vec::new());
    assert_eq!(rest(&mut client).await, Ok(Vec::new()));
    stage.until(|tally| (tally.open, tally.cut) == (0, 1)).await;
    let mut next = stage.connect().await;
    next.write_all(b"next").await.unwrap();
    assert_eq!(hear(&mut next, 4).await, b"next");
}

#[tokio::test]
async fn a_reset_is_heard_as_one_by_the_side_that_it_is_for() {
    let table = [("to-client:reset", Err(ErrorKind::ConnectionReset)), ("to-server:reset", Ok(Vec::new()))];
    for (fault, heard) in table {
        let stage = Stage::with(&[]).await;
        let mut client = stage.connect().await;
        client.write_all(b"x").await.unwrap();
        hear(&mut client, 1).await;
        stage.proxy.impose(read(&[fault]));
        assert_eq!(rest(&mut client).await, heard, "{fault}");
        stage.until(|tally| tally.reset == 1).await;
    }
}

#[tokio::test]
async fn a_timeout_carries_nothing_and_then_ends_the_connection() {
    let stage = Stage::with(&["to-client:timeout=300ms"]).await;
    let mut client = stage.connect().await;
    client.write_all(b"x").await.unwrap();
    let (heard, took) = stage.took(rest(&mut client)).await;
    assert_eq!(heard, Ok(Vec::new()));
    assert!(took >= millis(250), "{took:?}");
    stage.until(|tally| tally.timed_out == 1).await;
    let tally = stage.proxy.tally();
    assert_eq!((tally.to_server.went, tally.to_client), (1, Carried { came: 1, went: 0 }));
}

#[tokio::test]
async fn a_limit_lets_so_much_through_and_then_ends_the_connection() {
    let stage = Stage::with(&["to-client:limit=10"]).await;
    let mut client = stage.connect().await;
    client.write_all(&[7; 25]).await.unwrap();
    assert_eq!(rest(&mut client).await, Ok(vec![7; 10]));
    stage.until(|tally| tally.limited == 1).await;
}

#[tokio::test]
async fn a_slow_close_passes_bytes_at_once_and_the_end_late() {
    let stage = Stage::with(&["to-client:slow_close=300ms"]).await;
    let mut client = stage.connect().await;
    client.write_all(b"x").await.unwrap();
    hear(&mut client, 1).await;
    client.shutdown().await.unwrap();
    let (heard, took) = stage.took(rest(&mut client)).await;
    assert_eq!(heard, Ok(Vec::new()));
    assert!(took >= millis(290), "{took:?}");
}

#[tokio::test]
async fn while_it_is_down_nobody_is_connected_and_afterwards_it_is_at_the_same_address() {
    let stage = Stage::with(&[]).await;
    let mut client = stage.connect().await;
    client.write_all(b"x").await.unwrap();
    hear(&mut client, 1).await;
    stage.proxy.shut().await.unwrap();
    assert_eq!(rest(&mut client).await, Ok(Vec::new()));
    let refused = TcpStream::connect(stage.proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    stage.proxy.reopen().await.unwrap();
    let mut client = stage.connect().await;
    client.write_all(b"y").await.unwrap();
    assert_eq!(hear(&mut client, 1).await, b"y");
    assert_eq!((stage.proxy.tally().connections, stage.proxy.tally().cut), (2, 1));
}

#[tokio::test]
async fn the_connections_that_a_share_strikes_are_the_seeds() {
    let stage = Stage::with(&["to-client:reset=0.5"]).await;
    for _ in 0..20 {
        let mut client = stage.connect().await;
        let _ = client.write_all(b"x").await;
        let mut byte = [0];
        let _ = tokio::time::timeout(BOUND, client.read(&mut byte)).await.expect("a byte or an end");
    }
    stage.until(|tally| (tally.open, tally.connections) == (0, 20)).await;
    let [(fault, struck)] = stage.proxy.struck()[..] else { panic!("one fault") };
    assert_eq!(fault.to_string(), "to-client:reset@0.5");
    assert_eq!(stage.proxy.tally().reset, struck);
    assert!((4..17).contains(&struck), "{struck}");
}

#[tokio::test]
async fn connections_that_stand_are_stalled_new_ones_may_be_refused_and_a_server_that_is_away_is_counted() {
    let stage = Stage::with(&[]).await;
    let mut old = stage.connect().await;
    stage.until(|tally| tally.connections == 1).await;
    stage.proxy.stall();
    old.write_all(b"x").await.unwrap();
    let mut new = stage.connect().await;
    new.write_all(b"y").await.unwrap();
    assert_eq!(hear(&mut new, 1).await, b"y");
    assert_eq!(stage.proxy.tally().to_server.went, 1);
    stage.proxy.refuse(true);
    assert!(rest(&mut stage.connect().await).await.is_ok_and(|heard| heard.is_empty()));
    assert_eq!((stage.proxy.tally().refused, stage.proxy.connections()), (1, 2));

    let nobody = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(LOOPBACK, &nobody.to_string(), 7, stage.clock).await.unwrap();
    let stage = Stage { proxy, ..stage };
    assert!(rest(&mut stage.connect().await).await.is_ok_and(|heard| heard.is_empty()));
    stage.until(|tally| tally.unreached == 1).await;
}
