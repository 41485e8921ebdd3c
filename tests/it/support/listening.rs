//! A channel of any kind, sent through and listened on as the daemon does it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::seen::Notes;
use journeyman::channel::{Channel, Listener, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::message::Arrival;
use journeyman::journey::report::Phase;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::{Mint, Token};
use journeyman::secret::{Redactor, Secret};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Scratch;

/// Long enough for everything that is expected to happen.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// A fresh token.
pub(crate) fn token() -> Token {
    static MINT: std::sync::LazyLock<Mint> = std::sync::LazyLock::new(|| Mint::new([7; 32], 0));
    MINT.issue(Clock::system().now().wall)
}

/// A message with the token in its JSON payload, and a header.
pub(crate) fn order(token: Token) -> Outgoing {
    Outgoing {
        token,
        url: None,
        method: None,
        path: None,
        query: Vec::new(),
        headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
        body: format!("{{\"id\":\"{token}\"}}").into_bytes(),
        content_type: Some("application/json"),
        fields: BTreeMap::new(),
        command: Vec::new(),
        timeout: Duration::from_secs(10),
        connected_since: None,
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
    stop: CancellationToken,
    reader: JoinSet<()>,
}

impl Receiver {
    /// Listens on `channel`.
    pub(crate) fn on(channel: &Arc<dyn Channel>, clock: Clock) -> Receiver {
        Receiver::with_room(channel, clock, 64)
    }

    /// Listens on `channel`, and holds so many arrivals that nobody has taken.
    pub(crate) fn with_room(channel: &Arc<dyn Channel>, clock: Clock, room: usize) -> Receiver {
        let ((sender, arrivals), (ready, readiness)) = (mpsc::channel(room), watch::channel(Readiness::Starting));
        let stop = CancellationToken::new();
        let listener = Listener {
            channel: journeyman::journey::Name::from("orders"),
            clock,
            arrivals: sender,
            readiness: ready,
            mint: Arc::new(Mint::new([7; 32], 0)),
            stop: stop.clone(),
        };
        let (mut reader, channel) = (JoinSet::new(), Arc::clone(channel));
        let notes = Notes::default();
        let noting = notes.clone();
        reader.spawn(async move { noting.over(channel.listen(listener)).await });
        Receiver { arrivals, readiness, notes, stop, reader }
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

    /// Stops reading, and waits until the channel has said goodbye.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(BOUND, self.reader.join_next()).await.expect("it heeds stop");
    }
}

/// Certificates of an issuer that only `ca_file` makes trusted.
pub(crate) struct Certificates {
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's own certificate.
    pub(crate) ca_file: PathBuf,
}

impl Certificates {
    /// An issuer whose certificate is in `scratch`.
    pub(crate) fn new(scratch: &Scratch) -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("an issuer");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Journeyman tests");
        let ca_file = scratch.write("ca.pem", &params.self_signed(&key).expect("it signs itself").pem());
        Certificates { issuer: Issuer::new(params, key), ca_file }
    }

    /// The files of a certificate for `name` and of its key; an expired one ended in 2001.
    pub(crate) fn issue(&self, scratch: &Scratch, name: &str, is_expired: bool) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        if is_expired {
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        let stem = format!("{name}-{is_expired}");
        let certificate = scratch.write(&format!("{stem}.pem"), &certificate.pem());
        (certificate, scratch.write(&format!("{stem}.key"), &key.serialize_pem()))
    }
}
