//! A TCP proxy that does to connections what networks do: hold, delay, cut, refuse; each direction by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A direction through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They go on at once.
    #[default]
    Pass,
    /// They stay here, and nobody is told.
    Hold,
    /// Each piece goes on after this long.
    Delay(Duration),
}

#[derive(Clone, Copy, Default)]
struct Faults {
    to_server: Flow,
    to_client: Flow,
    refuses: bool,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

impl Faults {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A proxy in front of one server. Ends with its owner.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    seen: Arc<[AtomicU64; 2]>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy on a free port of the loopback, in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (faults, watched) = watch::channel(Faults::default());
        let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream, watched, Arc::clone(&seen)));
        Proxy { address, faults, seen, _tasks: tasks }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens to bytes of `direction` from now on, on every connection.
    pub(crate) fn set(&self, direction: Direction, flow: Flow) {
        self.faults.send_modify(|faults| match direction {
            Direction::ToServer => faults.to_server = flow,
            Direction::ToClient => faults.to_client = flow,
        });
    }

    /// Ends every connection, with whatever is held.
    pub(crate) fn cut(&self) {
        self.faults.send_modify(|faults| faults.generation += 1);
    }

    /// Whether new connections are ended at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.faults.send_modify(|faults| faults.refuses = refuses);
    }

    /// How many bytes of `direction` have come in so far, held ones included.
    pub(crate) fn seen(&self, direction: Direction) -> u64 {
        self.seen[direction as usize].load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    faults: watch::Receiver<Faults>,
    seen: Arc<[AtomicU64; 2]>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if faults.borrow().refuses {
            continue;
        }
        connections.spawn(carry(client, upstream, faults.clone(), Arc::clone(&seen)));
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    seen: Arc<[AtomicU64; 2]>,
) {
    let generation = faults.borrow().generation;
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = pump(from_client, to_server, Direction::ToServer, faults.clone(), &seen);
    let back = pump(from_server, to_client, Direction::ToClient, faults.clone(), &seen);
    tokio::select! {
        // Both, so that one side's goodbye still lets the other's last bytes through.
        _ = async { tokio::join!(there, back) } => {}
        _ = faults.wait_for(|faults| faults.generation != generation) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut faults: watch::Receiver<Faults>,
    seen: &[AtomicU64; 2],
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        seen[direction as usize].fetch_add(length as u64, Ordering::SeqCst);
        let flow = match faults.wait_for(|faults| faults.flow(direction) != Flow::Hold).await {
            Ok(faults) => faults.flow(direction),
            Err(_) => return,
        };
        if let Flow::Delay(delay) = flow {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
