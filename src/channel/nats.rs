//! NATS: core, where a message goes to who is there, and JetStream, where a stream keeps it.
//!
//! Publishing and receiving have a connection each. A connection that breaks is seen, told, and made anew here; nothing waits
//! inside for a better connection, to be sent when nobody expects it any more.

mod inspect;
mod jetstream;
mod link;
mod login;
mod message;
mod publish;
mod receive;
mod refusal;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;

use crate::channel::server::Scheme;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// The schemes of a server's URL. Both begin without TLS: a server says whether it wants it (`nats`), or must (`tls`).
const SCHEMES: &[Scheme] = &[("nats", 4_222, false), ("tls", 4_222, true)];

/// Settings of a `nats` channel.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// `nats://user:password@host:port`, or `tls://`; secret because of the password.
    pub url: Secret,
    /// The user, if the URL does not say it.
    pub user: Option<String>,
    /// The password, if the URL does not say it.
    pub password: Option<Secret>,
    /// A token instead of a user.
    pub token: Option<Secret>,
    /// The seed of a key instead of a user.
    pub nkey: Option<Secret>,
    /// The content of a credentials file instead of a user.
    pub creds: Option<Secret>,
    /// Certificates to trust beside the system's; with them nothing is said without TLS.
    pub ca_file: Option<PathBuf>,
    /// Where messages are published, unless a step says otherwise; empty for a channel that only receives.
    pub subject: String,
    /// What is received on; a channel that nobody receives on needs none.
    pub subscribe: Option<String>,
    /// The stream that has the messages; `None` is core NATS.
    pub stream: Option<String>,
    /// What our own subjects for answers begin with.
    pub inbox_prefix: String,
    /// After so long without a word we ask the server whether it is there; at least a second.
    pub keep_alive: Duration,
}

impl NatsSettings {
    /// Settings that say nothing but where the server is.
    pub fn plain(url: Secret) -> NatsSettings {
        NatsSettings {
            url,
            user: None,
            password: None,
            token: None,
            nkey: None,
            creds: None,
            ca_file: None,
            subject: String::new(),
            subscribe: None,
            stream: None,
            inbox_prefix: INBOX_PREFIX.to_owned(),
            keep_alive: KEEP_ALIVE,
        }
    }
}

/// What subjects for answers begin with unless somebody says otherwise.
pub const INBOX_PREFIX: &str = "_INBOX";
/// After how long without a word we ask, unless somebody says otherwise.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A `nats` channel.
pub struct Nats {
    settings: NatsSettings,
    tls: Option<Arc<ClientConfig>>,
    clock: Clock,
    publisher: publish::Publisher,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: NatsSettings, clock: Clock) -> Result<Nats, String> {
    let tls = match settings.url.reveal().starts_with("tls:") || settings.ca_file.is_some() {
        true => Some(Arc::new(crate::channel::seen::tls_client(settings.ca_file.as_deref())?)),
        false => None,
    };
    Ok(Nats { publisher: publish::Publisher::new(settings.clone(), tls.clone(), clock), settings, tls, clock })
}

impl Channel for Nats {
    /// Publishes, and waits until the server has dealt with it, or the stream has stored it.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    fn request<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let fault = cannot(self.clock, "a `nats` channel cannot ask: send, and receive the answer");
        Box::pin(std::future::ready(Err(fault)))
    }

    /// What a stream holds, and how far a consumer is behind. Nothing is consumed.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(inspect::check(&self.settings, self.tls.as_ref(), self.clock, outgoing))
    }

    /// Connects and says who we are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.publisher.prove(limit))
    }

    /// A stream does; without one a message goes to who is there.
    fn keeps(&self) -> bool {
        self.settings.stream.is_some()
    }

    /// A stream forgets nothing because it was read.
    fn looks_back(&self) -> bool {
        self.settings.stream.is_some()
    }

    /// Subscribes; ready once the server has dealt with that, and with a stream once there is a consumer on it.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, self.tls.as_ref(), listener))
    }
}
