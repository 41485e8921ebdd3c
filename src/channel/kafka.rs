//! Kafka: produce with acknowledgements, read partitions from proven end offsets, look at a group's lag.
//!
//! No consumer group: joining one takes seconds, and being assigned a partition is not yet having a position on it. Every
//! attempt is one attempt: a client that retries would show a cluster in trouble as a cluster that is a little slow.

mod cluster;
mod connection;
mod inspect;
mod message;
mod publish;
mod receive;
mod refusal;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::{Channel, Listener};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// The name that brokers know us by, unless the settings say otherwise: quotas and logs have it.
pub const CLIENT_ID: &str = "journeyman";
/// How long a broker may hold an answer while there is nothing to read. One that answers as soon as there is something makes
/// nobody wait for it; one that only looks now and then lets a message wait for up to half of it. Shorter costs us and the
/// broker requests that bring nothing.
pub const FETCH_WAIT: Duration = Duration::from_millis(50);

/// Settings of a `kafka` channel.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Host and port of brokers to ask where the others are.
    pub brokers: Vec<(String, u16)>,
    /// Where messages are produced, unless a step says otherwise.
    pub topic: String,
    /// What is received on.
    pub receive_topic: String,
    /// Who must have a message before it counts as taken.
    pub acks: Acks,
    /// Whether the brokers speak TLS.
    pub tls: bool,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who we are, for brokers that want to know.
    pub sasl: Option<SaslSettings>,
    /// The name that brokers know us by.
    pub client_id: String,
    /// How long a broker may hold an answer while there is nothing to read.
    pub fetch_wait: Duration,
}

/// Who we are, by SASL.
#[derive(Clone, Debug)]
pub struct SaslSettings {
    /// How we prove it.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The password; read again for every connection.
    pub password: Secret,
}

/// How we prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password as it is (RFC 4616).
    Plain,
    /// A proof that we know it (RFC 7677).
    ScramSha256,
    /// The same with a longer hash.
    ScramSha512,
}

impl Mechanism {
    /// All of them, by their registered names.
    pub const ALL: &'static [(&'static str, Mechanism)] = &[
        ("PLAIN", Mechanism::Plain),
        ("SCRAM-SHA-256", Mechanism::ScramSha256),
        ("SCRAM-SHA-512", Mechanism::ScramSha512),
    ];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Who must have a message before it counts as taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// All replicas that are in sync.
    #[default]
    All,
    /// The partition's leader.
    Leader,
    /// Nobody: the broker says nothing, and nothing is known.
    None,
}

impl Acks {
    /// All of them, by the words of the configuration.
    pub const ALL: &'static [(&'static str, Acks)] =
        &[("all", Acks::All), ("leader", Acks::Leader), ("none", Acks::None)];

    /// The protocol's number, and the word of the configuration.
    fn as_wire(self) -> (i16, &'static str) {
        match self {
            Acks::All => (-1, "all"),
            Acks::Leader => (1, "leader"),
            Acks::None => (0, "none"),
        }
    }
}

impl SaslSettings {
    /// For the library that speaks the mechanisms.
    fn credentials(&self) -> wire::AuthConfig {
        let (user, password) = (self.user.as_str(), self.password.reveal());
        match self.mechanism {
            Mechanism::Plain => wire::AuthConfig::sasl_plain(user, password.as_str()),
            Mechanism::ScramSha256 => wire::AuthConfig::sasl_scram_sha256(user, password.as_str()),
            Mechanism::ScramSha512 => wire::AuthConfig::sasl_scram_sha512(user, password.as_str()),
        }
    }
}

/// A `kafka` channel.
pub struct Kafka {
    settings: KafkaSettings,
    clock: Clock,
    access: cluster::Access,
    publisher: publish::Publisher,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: KafkaSettings, clock: Clock) -> Result<Kafka, String> {
    let access = cluster::Access::new(&settings, clock)?;
    let publisher = publish::Publisher::new(&settings, access.clone(), clock);
    Ok(Kafka { settings, clock, access, publisher })
}

impl Channel for Kafka {
    /// A log forgets nothing because it was read.
    fn looks_back(&self) -> bool {
        true
    }

    /// Produces, and waits for the acknowledgement of every partition that the message goes to.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    /// How much a topic holds, or how far a group is behind. Nothing is consumed or committed.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(inspect::check(&self.settings, &self.access, self.clock, outgoing))
    }

    /// Connects, says who we are, and asks where the topic lives.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(inspect::prove(&self.settings, &self.access, self.clock, limit))
    }

    /// Reads every partition; ready once each has a position that its leader has let us read from.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, &self.access, listener))
    }
}
