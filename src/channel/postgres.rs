//! PostgreSQL: `NOTIFY` and `LISTEN`, statements of one's own with the token and the payload as parameters, and queries whose rows
//! are messages.
//!
//! Every statement has a `statement_timeout`, and what only looks does so in a read-only transaction. Nothing that a run knows is
//! ever written into SQL: it goes in as a parameter.

mod inspect;
mod link;
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

/// Settings of a `postgres` channel.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database`; secret because of the password.
    pub url: Secret,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How messages are sent, unless a step says otherwise.
    pub target: Option<Target>,
    /// What is received; a channel that nobody receives on needs none.
    pub source: Option<Source>,
}

/// How a message is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By `NOTIFY` on the channel of this name.
    Notify(String),
    /// By this statement, with the token as `$1` and the payload as `$2`.
    Statement(String),
}

/// What is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Notifications on the channel of this name.
    Listen(String),
    /// The rows of a query, each once.
    Poll {
        /// The query.
        query: String,
        /// The time between the end of one look and the next.
        every: Duration,
    },
}

/// A `postgres` channel.
pub struct Postgres {
    settings: PostgresSettings,
    endpoint: link::Endpoint,
    clock: Clock,
    sender: send::Sender,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read, where the URL asks for TLS.
pub fn open(settings: PostgresSettings, clock: Clock) -> Result<Postgres, String> {
    let endpoint = link::Endpoint::new(&settings.url, settings.ca_file.as_deref())?;
    let sender = send::Sender::new(settings.target.clone(), endpoint.clone(), clock);
    Ok(Postgres { settings, endpoint, clock, sender })
}

impl Channel for Postgres {
    /// Notifies, or executes the statement; acknowledged when it is committed.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.sender.send(outgoing))
    }

    /// What the first row of a query says, read in a read-only transaction.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(inspect::check(&self.endpoint, self.clock, outgoing))
    }

    /// Connects and says who we are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.sender.prove(limit))
    }

    /// A table keeps its rows; a notification is for who listens.
    fn keeps(&self) -> bool {
        !matches!(self.settings.source, Some(Source::Listen(_)))
    }

    /// Listens, or polls; ready when the session listens, or when the first look has told what is there already.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, &self.endpoint, listener))
    }
}
