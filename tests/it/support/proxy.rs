//! A TCP proxy that does to connections what networks do: hold, delay, cut, refuse; each direction by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a client may take to hear that its connection has ended.
const HEARD: Duration = Duration::from_millis(500);

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
    /// They go on in pieces of so many bytes, with this long between two.
    Slices(usize, Duration),
}

#[derive(Clone, Copy, Default)]
struct Faults {
    to_server: Flow,
    to_client: Flow,
    refuses: bool,
    /// Connections of an earlier generation are cut.
    generation: u64,
    /// On so many connections, the first ones, everything stays here.
    stalled: u64,
    /// Whether nothing listens.
    is_shut: bool,
    /// Whether they are cut by a reset.
    resets: bool,
}

impl Faults {
    fn flow(&self, connection: u64, direction: Direction) -> Flow {
        match direction {
            _ if connection <= self.stalled => Flow::Hold,
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// What went through.
#[derive(Default)]
struct Counts {
    bytes: [AtomicU64; 2],
    connections: AtomicU64,
}

/// A proxy in front of one server. Ends with its owner.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    counts: Arc<Counts>,
    is_shut: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy on a free port of the loopback, in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (faults, watched) = watch::channel(Faults::default());
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        let (tell_shut, is_shut) = watch::channel(false);
        tasks.spawn(accept(listener, upstream, watched, Arc::clone(&counts), tell_shut));
        Proxy { address, faults, counts, is_shut, _tasks: tasks }
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

    /// From now on nothing goes through the connections that stand, and nobody is told; new ones are as they were.
    pub(crate) fn stall(&self) {
        let connections = self.connections();
        self.faults.send_modify(|faults| faults.stalled = connections);
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Ends every connection, with whatever is held.
    pub(crate) fn cut(&self) {
        self.end(false);
    }

    /// Ends every connection with a reset, as a firewall or a crashed peer does.
    pub(crate) fn reset(&self) {
        self.end(true);
    }

    fn end(&self, resets: bool) {
        self.faults.send_modify(|faults| {
            faults.generation += 1;
            faults.resets = resets;
        });
    }

    /// Whether new connections are ended at once.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.faults.send_modify(|faults| faults.refuses = refuses);
    }

    /// Ends every connection and listens no more, as a server does that is killed; returns when that is so.
    pub(crate) async fn shut(&self) {
        self.set_shut(true).await;
    }

    /// Listens again, at the same address.
    pub(crate) async fn reopen(&self) {
        self.set_shut(false).await;
    }

    async fn set_shut(&self, is_shut: bool) {
        self.faults.send_modify(|faults| faults.is_shut = is_shut);
        if is_shut {
            self.cut();
        }
        let mut now = self.is_shut.clone();
        now.wait_for(|now| *now == is_shut).await.expect("the proxy lives");
    }

    /// How many bytes of `direction` have come in so far, held ones included.
    pub(crate) fn seen(&self, direction: Direction) -> u64 {
        self.counts.bytes[direction as usize].load(Ordering::SeqCst)
    }
}

/// Keeps a port while nobody listens on it: connections are refused, and no other test is given it.
fn hold(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.expect("a socket");
    socket.set_reuseaddr(true).expect("a socket has options");
    socket.bind(address).expect("the port was ours a moment ago");
    socket
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    counts: Arc<Counts>,
    tell_shut: watch::Sender<bool>,
) {
    let address = listener.local_addr().expect("it is bound");
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    let mut kept = None;
    loop {
        let Some(open) = &listener else {
            if faults.wait_for(|faults| !faults.is_shut).await.is_err() {
                return;
            }
            let kept = kept.take().unwrap_or_else(|| hold(address));
            listener = Some(kept.listen(128).expect("the port was kept"));
            tell_shut.send_replace(false);
            continue;
        };
        let accepted = tokio::select! {
            biased;
            shut = async { faults.wait_for(|faults| faults.is_shut).await.is_ok() } => {
                if !shut {
                    return;
                }
                None
            }
            accepted = open.accept() => Some(accepted),
        };
        match accepted {
            None => {
                drop(listener.take());
                kept = Some(hold(address));
                // Nobody is connected any more when `shut` returns.
                while connections.join_next().await.is_some() {}
                tell_shut.send_replace(true);
            }
            Some(Ok((client, _))) if !faults.borrow().refuses => {
                let number = counts.connections.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(carry(client, number, upstream, faults.clone(), Arc::clone(&counts)));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) => return,
        }
    }
}

async fn carry(
    mut client: TcpStream,
    number: u64,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    counts: Arc<Counts>,
) {
    let generation = faults.borrow().generation;
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
    let there = (number, Direction::ToServer);
    let there = pump(&mut from_client, &mut to_server, there, faults.clone(), &counts);
    let back = (number, Direction::ToClient);
    let back = pump(&mut from_server, &mut to_client, back, faults.clone(), &counts);
    tokio::select! {
        // First: what was held when the connection was cut is lost, also if it is let go in the same moment.
        biased;
        _ = faults.wait_for(|faults| faults.generation != generation) => {}
        // Both, so that one side's goodbye still lets the other's last bytes through.
        _ = async { tokio::join!(there, back) } => {}
    }
    let (is_shut, resets) = (faults.borrow().is_shut, faults.borrow().resets);
    if is_shut {
        drop(server);
        let _ = client.shutdown().await;
        // A client that hears it closes its side; one that does not listen hears it when it next writes.
        let mut rest = [0; 1_024];
        let heard = async { while client.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
        let _ = tokio::time::timeout(HEARD, heard).await;
    } else if resets && faults.borrow().generation != generation {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    (number, direction): (u64, Direction),
    mut faults: watch::Receiver<Faults>,
    counts: &Counts,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        counts.bytes[direction as usize].fetch_add(length as u64, Ordering::SeqCst);
        let flow = match faults.wait_for(|faults| faults.flow(number, direction) != Flow::Hold).await {
            Ok(faults) => faults.flow(number, direction),
            Err(_) => return,
        };
        let (size, pause) = match flow {
            Flow::Delay(delay) => {
                tokio::time::sleep(delay).await;
                (length, Duration::ZERO)
            }
            Flow::Slices(size, pause) => (size, pause),
            Flow::Pass | Flow::Hold => (length, Duration::ZERO),
        };
        for piece in buffer[..length].chunks(size) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }
    // The one side's goodbye is passed on; the other may still speak.
    let _ = to.shutdown().await;
}
