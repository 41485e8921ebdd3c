//! AMQP 0-9-1 (RabbitMQ): publish with confirms and `mandatory`, receive on a queue of our own.
//!
//! Publishing and receiving have a connection each, because a broker that runs out of memory or disk stops reading from
//! connections that publish. lapin's own recovery is off: a connection that breaks is seen, told, and made anew here.

mod inspect;
mod link;
mod message;
mod publish;
mod receive;
mod refusal;

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
    clock: Clock,
    publisher: publish::Publisher,
}

/// A channel with these settings. Nothing is connected before it is needed.
pub fn open(settings: AmqpSettings, clock: Clock) -> Amqp {
    Amqp { publisher: publish::Publisher::new(settings.clone(), clock), settings, clock }
}

impl Channel for Amqp {
    /// Publishes and waits for the broker's confirm. A message that no queue takes comes back and is `unroutable`.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    /// How many messages wait in a queue, and who consumes it. Nothing is consumed.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(inspect::check(&self.settings, self.clock, outgoing))
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
