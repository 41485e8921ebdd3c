//! AMQP 0-9-1: publish with confirms and `mandatory`, receive on a queue of our own.

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
