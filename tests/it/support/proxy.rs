//! The product's proxy in front of a server of the tests, changed by direction.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::time::Duration;

use journeyman::clock::Clock;
pub(crate) use journeyman::proxy::Direction;
use journeyman::proxy::{Fault, What};

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flow {
    /// They go on at once.
    Pass,
    /// They stay here, and nobody is told.
    Hold,
    /// They go on this long after they came.
    Delay(Duration),
    /// They go on in pieces of so many bytes, this long after each other.
    Slices(usize, Duration),
}

impl Flow {
    fn what(self) -> Option<What> {
        match self {
            Flow::Pass => None,
            Flow::Hold => Some(What::Hold),
            Flow::Delay(delay) => Some(What::Latency { delay, jitter: Duration::ZERO }),
            Flow::Slices(size, pause) => {
                Some(What::Slicer { size: NonZeroUsize::new(size).expect("pieces have a size"), pause })
            }
        }
    }
}

/// A proxy in front of one server. Ends with its owner.
pub(crate) struct Proxy(journeyman::proxy::Proxy);

impl Deref for Proxy {
    type Target = journeyman::proxy::Proxy;

    fn deref(&self) -> &journeyman::proxy::Proxy {
        &self.0
    }
}

impl Proxy {
    /// A proxy on a free port of the loopback, in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Proxy {
        let (listen, upstream) = (SocketAddr::from(([127, 0, 0, 1], 0)), upstream.to_string());
        let proxy = journeyman::proxy::Proxy::start(listen, &upstream, 0, Clock::system()).await;
        Proxy(proxy.expect("loopback has a free port"))
    }

    /// What happens to bytes of `direction` from now on, on every connection.
    pub(crate) fn set(&self, direction: Direction, flow: Flow) {
        self.change(|faults| {
            faults.retain(|fault| fault.direction != Some(direction));
            faults.extend(flow.what().map(|what| Fault::new(what).on(direction)));
        });
    }

    /// Ends every connection and listens no more, as a server does that is killed; returns when that is so.
    pub(crate) async fn shut(&self) {
        self.0.shut().await.expect("the port was ours a moment ago");
    }

    /// Listens again, at the same address.
    pub(crate) async fn reopen(&self) {
        self.0.reopen().await.expect("the port was kept");
    }
}
