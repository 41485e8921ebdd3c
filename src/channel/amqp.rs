//! AMQP 0-9-1 (RabbitMQ): publish with confirms and `mandatory`, receive on a queue of our own.
//!
//! Publishing and receiving have a connection each, because a broker that runs out of memory or disk stops reading from
//! connections that publish. lapin's own recovery is off: a connection that breaks is seen, told, and made anew here.

mod inspect;
mod link;
mod management;
mod message;
mod publish;
mod receive;
mod refusal;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::{Channel, Listener};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// Settings of an `amqp` channel.
#[derive(Clone, Debug)]
pub struct AmqpSettings {
    /// `amqp://user:password@host:port/vhost`; secret because of the password.
    pub url: Secret,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The management API, for what only it knows of a queue: `http://host:15672`. Secret, because a password may be in it.
    pub management: Option<Secret>,
    /// Where messages are published.
    pub exchange: String,
    /// With which key, unless a step says otherwise.
    pub routing_key: String,
    /// What is received on; a channel that nobody receives on needs none.
    pub queue: Option<QueueSettings>,
}

/// The queue of our own.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Its name.
    pub name: String,
    /// What is bound to it.
    pub bind: Vec<Binding>,
}

/// One binding of the queue.
#[derive(Clone, Debug)]
pub struct Binding {
    /// From which exchange.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
}

/// An `amqp` channel.
pub struct Amqp {
    settings: AmqpSettings,
    publisher: publish::Publisher,
    inspector: inspect::Inspector,
}

/// A channel with these settings. Nothing is connected before it is needed.
pub fn open(settings: AmqpSettings, clock: Clock) -> Amqp {
    let publisher = publish::Publisher::new(settings.clone(), clock);
    let inspector = inspect::Inspector::new(settings.clone(), clock);
    Amqp { settings, publisher, inspector }
}

impl Channel for Amqp {
    /// The queue keeps what nobody has acknowledged, and only what is safe is acknowledged.
    fn looks_back(&self) -> bool {
        true
    }

    /// Publishes and waits for the broker's confirm. A message that no queue takes comes back and is `unroutable`.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    /// How many messages wait in a queue, for how long, and who consumes it. Nothing is consumed.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.inspector.check(outgoing))
    }

    /// Connects and says who we are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.publisher.prove(limit))
    }

    /// Declares the queue and its bindings, and consumes; ready from the broker's consume-ok on.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, listener))
    }
}
