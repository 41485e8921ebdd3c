//! Redis: streams (`XADD`, `XREAD`) and topics (`PUBLISH`, `SUBSCRIBE`), over RESP2, which every version speaks.
//!
//! Sends share one connection, and each reader has its own: a blocked `XREAD` and a subscription let nothing else through.
//! Sockets are ours, so that each part of connecting has its own cause; the library's own reconnecting is not used.

mod inspect;
mod link;
mod message;
mod receive;
mod refusal;
mod send;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::{Channel, Listener};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

pub use link::check_url;

/// Settings of a `redis` channel.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS; secret because of the password.
    pub url: Secret,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Where messages go, unless a step says otherwise.
    pub target: Option<Place>,
    /// About how many entries a stream that we add to may keep. Without it nothing is ever trimmed.
    pub max_length: Option<u64>,
    /// What is received on; a channel that nobody receives on needs none.
    pub receive: Option<ReceiveSettings>,
}

/// A place in Redis that holds or passes on messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A stream, by its key.
    Stream(String),
    /// A pub/sub channel, by its name.
    Topic(String),
}

/// What is received on.
#[derive(Clone, Debug)]
pub struct ReceiveSettings {
    /// Where.
    pub place: Place,
    /// Whether entries with a token of ours are deleted from the stream once they were seen.
    pub delete: bool,
}

/// A `redis` channel.
pub struct Redis {
    settings: RedisSettings,
    endpoint: link::Endpoint,
    clock: Clock,
    sender: send::Sender,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read, where the URL asks for TLS.
pub fn open(settings: RedisSettings, clock: Clock) -> Result<Redis, String> {
    let endpoint = link::Endpoint::new(&settings.url, settings.ca_file.as_deref())?;
    let sender = send::Sender::new(settings.clone(), endpoint.clone(), clock);
    Ok(Redis { settings, endpoint, clock, sender })
}

impl Channel for Redis {
    /// Adds an entry to a stream, or publishes to a topic. A topic that nobody is subscribed to is `unroutable`.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.sender.send(outgoing))
    }

    /// How long a stream is, and how far a consumer group is behind. Nothing is read from the group.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(inspect::check(&self.settings, &self.endpoint, self.clock, outgoing))
    }

    /// Connects and says who we are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.sender.prove(limit))
    }

    /// A stream keeps its entries, a topic nothing.
    fn keeps(&self) -> bool {
        !matches!(&self.settings.receive, Some(ReceiveSettings { place: Place::Topic(_), .. }))
    }

    /// A stream forgets nothing because it was read; what we delete may be gone before anything has followed from it.
    fn looks_back(&self) -> bool {
        matches!(&self.settings.receive, Some(ReceiveSettings { place: Place::Stream(_), delete: false, .. }))
    }

    /// What is deleted is there for nobody else.
    fn takes(&self) -> bool {
        matches!(&self.settings.receive, Some(ReceiveSettings { place: Place::Stream(_), delete: true, .. }))
    }

    /// Reads a stream from its end on, or subscribes to a topic; ready when the server has told where the end is, or has
    /// confirmed the subscription.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, &self.endpoint, &self.sender, listener))
    }
}
