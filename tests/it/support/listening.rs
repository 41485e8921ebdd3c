//! A channel of any kind, sent through and listened on as the daemon does it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use journeyman::channel::awaited::Awaits;
use journeyman::channel::seen::Notes;
use journeyman::channel::{Channel, Listener, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::message::Arrival;
use journeyman::journey::report::Phase;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::{Mint, Token};
use journeyman::secret::{Redactor, Secret};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::wait_for;

/// Long enough for everything that is expected to happen.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// The clock of everything here, so that times compare.
pub(crate) fn clock() -> Clock {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);
    *CLOCK
}

/// Everything's mint in these tests: tokens of it are ours.
pub(crate) fn mint() -> Arc<Mint> {
    static MINT: LazyLock<Arc<Mint>> = LazyLock::new(|| Arc::new(Mint::new([7; 32], 0)));
    MINT.clone()
}

/// A fresh token of ours.
pub(crate) fn token() -> Token {
    mint().issue(clock().now().wall)
}

/// A message with the token in its JSON payload, and a header.
pub(crate) fn order(token: Token) -> Outgoing {
    Outgoing {
        token,
        headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
        body: format!("{{\"id\":\"{token}\"}}").into_bytes(),
        content_type: Some("application/json"),
        ..Outgoing::empty(Duration::from_secs(10))
    }
}

/// The message with a field of its step.
pub(crate) fn with_field(mut outgoing: Outgoing, name: &str, value: &str) -> Outgoing {
    outgoing.fields.insert(name.to_owned(), value.to_owned());
    outgoing
}

/// The message with a timeout.
pub(crate) fn within(mut outgoing: Outgoing, timeout: Duration) -> Outgoing {
    outgoing.timeout = timeout;
    outgoing
}

/// The names of the phases.
pub(crate) fn phases(phases: &[Phase]) -> Vec<&str> {
    phases.iter().map(|phase| phase.name.as_str()).collect()
}

/// The failure that it must be.
pub(crate) fn fault(answer: Result<Reply, Fault>) -> Fault {
    answer.expect_err("it should have failed")
}

/// A secret that nothing else knows.
pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned(), &Redactor::new())
}

/// The token in the payload.
pub(crate) fn token_of(arrival: &Arrival) -> Option<Token> {
    Token::find_all(&arrival.message.body).next()
}

/// A channel that is listened on.
pub(crate) struct Receiver {
    /// What it handed over.
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    /// Whether it can receive.
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// What its reader met.
    pub(crate) notes: Notes,
    /// Who waits for messages of it.
    pub(crate) awaits: Awaits,
    stop: CancellationToken,
    reader: JoinSet<()>,
}

impl Receiver {
    /// Listens on `channel`.
    pub(crate) fn on<C: Channel + ?Sized + 'static>(channel: &Arc<C>) -> Receiver {
        Receiver::with_room(channel, 256)
    }

    /// Listens on `channel`, and holds so many arrivals that nobody has taken.
    pub(crate) fn with_room<C: Channel + ?Sized + 'static>(channel: &Arc<C>, room: usize) -> Receiver {
        let ((sender, arrivals), (ready, readiness)) = (mpsc::channel(room), watch::channel(Readiness::Starting));
        let (stop, awaits) = (CancellationToken::new(), Awaits::default());
        let listener = Listener {
            channel: "orders".into(),
            clock: clock(),
            arrivals: sender,
            journal: Default::default(),
            since: None,
            readiness: ready,
            mint: mint(),
            nudge: Default::default(),
            awaited: awaits.awaited(),
            stop: stop.clone(),
        };
        let (mut reader, channel) = (JoinSet::new(), Arc::clone(channel));
        let notes = Notes::default();
        let noting = notes.clone();
        reader.spawn(async move { noting.over(channel.listen(listener)).await });
        Receiver { arrivals, readiness, notes, awaits, stop, reader }
    }

    /// Waits until it can receive.
    pub(crate) async fn ready(&mut self) {
        self.readiness_in(BOUND, |readiness| *readiness == Readiness::Ready).await;
    }

    /// Waits until it cannot receive; why.
    pub(crate) async fn down(&mut self) -> String {
        match self.readiness_in(BOUND, |readiness| matches!(readiness, Readiness::Down { .. })).await {
            Readiness::Down { why } => why,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a state.
    pub(crate) async fn readiness_in(&mut self, bound: Duration, wanted: impl FnMut(&Readiness) -> bool) -> Readiness {
        let last = self.readiness.clone();
        match tokio::time::timeout(bound, self.readiness.wait_for(wanted)).await {
            Ok(readiness) => readiness.expect("the reader lives").clone(),
            Err(_) => panic!("still {:?} after {bound:?}", *last.borrow()),
        }
    }

    /// The next arrival.
    pub(crate) async fn next(&mut self) -> Arrival {
        tokio::time::timeout(BOUND, self.arrivals.recv()).await.expect("an arrival in time").expect("the reader lives")
    }

    /// The payloads of the next so many.
    pub(crate) async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        for _ in 0..count {
            payloads.push(self.next().await.message.text().into_owned());
        }
        payloads
    }

    /// Stops reading, and waits until the channel has said goodbye.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.reader.join_next()).await.expect("it heeds stop");
    }
}

/// Sends so many messages whose receiver takes one at a time: each is stamped when it is here, not when it is taken. `between` is what
/// happens once they are here.
pub(crate) async fn assert_stamped_when_here<C>(channel: &Arc<C>, count: usize, between: impl FnOnce())
where
    C: Channel + ?Sized + 'static,
{
    let mut receiver = Receiver::with_room(channel, 1);
    receiver.ready().await;
    let sent: Vec<_> = (0..count).map(|_| token()).collect();
    for token in &sent {
        channel.send(&order(*token)).await.expect("it is taken");
    }
    let here_by = clock().now().mono + Duration::from_secs(2);
    wait_for("time to pass", BOUND, async || (clock().now().mono > here_by).then_some(())).await;
    between();
    for token in sent {
        let arrival = receiver.next().await;
        assert_eq!(token_of(&arrival), Some(token), "in order");
        assert!(arrival.at.mono < here_by, "it was stamped when it was taken, not when it came");
    }
}
