//! A channel that is listened on, in the hands of a test.

use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::{Channel, Listener, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::message::Arrival;
use journeyman::journey::token::{Mint, Token};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(20);

/// Everything's mint in these tests: tokens of it are ours.
pub(crate) fn mint() -> Arc<Mint> {
    static MINT: std::sync::LazyLock<Arc<Mint>> = std::sync::LazyLock::new(|| Arc::new(Mint::new([7; 32], 0)));
    MINT.clone()
}

/// A fresh token of ours.
pub(crate) fn token() -> Token {
    mint().issue(Clock::system().now().wall)
}

/// A channel that is listened on.
pub(crate) struct Watched {
    /// What it saw.
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
    reader: JoinSet<()>,
}

impl Watched {
    /// Listens on `channel`.
    pub(crate) fn on<C: Channel + 'static>(channel: &Arc<C>) -> Watched {
        Watched::with_room(channel, 64)
    }

    /// Listens on `channel`, for somebody who takes in only so many arrivals.
    pub(crate) fn with_room<C: Channel + 'static>(channel: &Arc<C>, room: usize) -> Watched {
        let ((sender, arrivals), (ready, readiness)) = (mpsc::channel(room), watch::channel(Readiness::Starting));
        let stop = CancellationToken::new();
        let listener = Listener {
            channel: "watched".into(),
            clock: Clock::system(),
            arrivals: sender,
            readiness: ready,
            mint: mint(),
            stop: stop.clone(),
        };
        let (mut reader, channel) = (JoinSet::new(), Arc::clone(channel));
        reader.spawn(async move { channel.listen(listener).await });
        Watched { arrivals, readiness, stop, reader }
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&mut self) {
        self.until(|readiness| *readiness == Readiness::Ready).await;
    }

    /// Waits until it is down; why.
    pub(crate) async fn down(&mut self) -> String {
        match self.until(|readiness| matches!(readiness, Readiness::Down { .. })).await {
            Readiness::Down { why } => why,
            other => panic!("{other:?}"),
        }
    }

    /// What it says of itself now.
    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    async fn until(&mut self, wanted: impl FnMut(&Readiness) -> bool) -> Readiness {
        let last = self.readiness.clone();
        match tokio::time::timeout(BOUND, self.readiness.wait_for(wanted)).await {
            Ok(readiness) => readiness.expect("the reader lives").clone(),
            Err(_) => panic!("still {:?} after {BOUND:?}", *last.borrow()),
        }
    }

    /// The next arrival.
    pub(crate) async fn next(&mut self) -> Arrival {
        tokio::time::timeout(BOUND, self.arrivals.recv()).await.expect("an arrival in time").expect("the reader lives")
    }

    /// Stops reading, and waits until the channel has said goodbye.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.reader.join_next()).await.expect("it heeds stop");
    }
}
