//! A TCP proxy that does to connections what networks do: delay, hold, slow down, slice, cut, reset, refuse; each direction by
//! itself, on a share of the connections, and changed while it runs. What happens is decided by [`fault`] and [`moment`], which
//! are pure; [`link`] carries the bytes.

mod count;
mod fault;
mod link;
mod moment;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::count::{Carried, Tally};
pub use self::fault::{Direction, Fault, What};

use self::count::Counts;
use self::link::Link;
use self::moment::{Moment, strikes};
use crate::clock::Clock;

/// Connections at once. Who comes beyond that waits where the kernel keeps those that nobody has accepted.
const MOST: usize = 1_024;
/// How many those may be.
const BACKLOG: u32 = 128;
/// Between two attempts to accept, when the process is out of something that it takes.
const BREATH: Duration = Duration::from_millis(50);

/// A proxy in front of one server. Ends with its owner.
pub struct Proxy {
    address: SocketAddr,
    clock: Clock,
    seed: u64,
    moment: watch::Sender<Moment>,
    counts: Arc<Counts>,
    is_down: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy that listens at `listen` and connects to `server`, a `host:port`, for each connection. `seed` decides which
    /// connections a fault strikes that strikes a share of them, and how latencies vary.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn start(listen: SocketAddr, server: &str, seed: u64, clock: Clock) -> io::Result<Proxy> {
        let port = bound(listen)?;
        let address = port.local_addr()?;
        let listener = bound(address)?.listen(BACKLOG)?;
        let (moment, watched) = watch::channel(Moment::default());
        let counts = Arc::<Counts>::default();
        let (tell_down, is_down) = watch::channel(false);
        let began = clock.now().mono;
        let link =
            Link { number: 0, began, seed, server: server.into(), clock, moment: watched, counts: counts.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = accept(listener, &port, address, link, tell_down).await {
                tracing::error!(%address, %error, "a proxy has lost its port");
            }
        });
        Ok(Proxy { address, clock, seed, moment, counts, is_down, _tasks: tasks })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on, to connections that stand as to new ones; nothing, if there is no fault.
    pub fn impose(&self, faults: Vec<Fault>) {
        self.change(|current| *current = faults);
    }

    /// Changes what it does. Limits and timeouts begin to count anew.
    pub fn change(&self, change: impl FnOnce(&mut Vec<Fault>)) {
        let now = self.clock.now().mono;
        self.moment.send_modify(|moment| moment.change(change, now));
    }

    /// From now on nothing goes through the connections that stand, and nobody is told; new ones are as they were.
    pub fn stall(&self) {
        let connections = self.connections();
        self.moment.send_modify(|moment| moment.stalled = connections);
    }

    /// Ends every connection, with whatever is held.
    pub fn cut(&self) {
        self.end(false);
    }

    /// Ends every connection with a reset, as a firewall or a crashed peer does.
    pub fn reset(&self) {
        self.end(true);
    }

    fn end(&self, by_reset: bool) {
        let connections = self.connections();
        self.moment.send_modify(|moment| (moment.ended, moment.by_reset) = (connections, by_reset));
    }

    /// Whether new connections are ended at once.
    pub fn refuse(&self, refuses: bool) {
        self.moment.send_modify(|moment| moment.refuses = refuses);
    }

    /// Ends every connection and listens no more, as a server does that is killed; returns when that is so. Its port stays its own.
    ///
    /// # Errors
    /// It has lost its port.
    pub async fn shut(&self) -> io::Result<()> {
        self.change(|faults| faults.push(Fault::new(What::Down)));
        self.settle(true).await
    }

    /// Listens again, at the same address; returns when it does.
    ///
    /// # Errors
    /// It has lost its port.
    pub async fn reopen(&self) -> io::Result<()> {
        let is_down = self.moment.borrow().is_down();
        if is_down {
            // It may still be letting go of its connections, and looks as if it listened.
            self.settle(true).await?;
        }
        self.change(|faults| faults.retain(|fault| fault.what != What::Down));
        self.settle(false).await
    }

    async fn settle(&self, is_down: bool) -> io::Result<()> {
        let mut now = self.is_down.clone();
        let settled = now.wait_for(|now| *now == is_down).await.map(drop);
        settled.map_err(|_| io::Error::other(format!("the proxy at {} has lost its port", self.address)))
    }

    /// How many connections there have been, but for those that were refused.
    pub fn connections(&self) -> u64 {
        self.tally().connections
    }

    /// How many bytes of `direction` have come in so far, held ones included.
    pub fn seen(&self, direction: Direction) -> u64 {
        self.tally().carried(direction).came
    }

    /// What went through, and what was done to it.
    pub fn tally(&self) -> Tally {
        self.counts.now()
    }

    /// Its faults, and how many of the connections that there have been each has struck, as if it had always been there.
    pub fn struck(&self) -> Vec<(Fault, u64)> {
        let connections = self.connections();
        let faults = &self.moment.borrow().faults;
        let struck =
            |place, fault| (1..=connections).filter(|number| strikes(fault, place, *number, self.seed)).count();
        faults.iter().enumerate().map(|(place, fault)| (*fault, struck(place, fault) as u64)).collect()
    }
}

/// A socket at this address, beside others of ours. One that never listens keeps the port while nobody does: connections are
/// refused, and nobody else is given it.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Takes connections for as long as the proxy lives. Each has a copy of `link` with a number of its own.
async fn accept(
    listener: TcpListener,
    _port: &TcpSocket,
    address: SocketAddr,
    link: Link,
    tell_down: watch::Sender<bool>,
) -> io::Result<()> {
    let mut moment = link.moment.clone();
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let Some(open) = &listener else {
            if moment.wait_for(|moment| !moment.is_down()).await.is_err() {
                return Ok(());
            }
            listener = Some(bound(address)?.listen(BACKLOG)?);
            tell_down.send_replace(false);
            continue;
        };
        tokio::select! {
            biased;
            lives = async { moment.wait_for(Moment::is_down).await.is_ok() } => {
                if !lives {
                    return Ok(());
                }
                drop(listener.take());
                // Nobody is connected any more when it is down.
                while connections.join_next().await.is_some() {}
                tell_down.send_replace(true);
            }
            Some(_) = connections.join_next() => {}
            accepted = open.accept(), if connections.len() < MOST => match accepted {
                Ok(_) if moment.borrow().refuses => link.counts.note(|tally| tally.refused += 1),
                Ok((client, _)) => {
                    let (number, began) = (link.counts.begin(), link.clock.now().mono);
                    let link = Link { number, began, ..link.clone() };
                    connections.spawn(link.carry(client));
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
