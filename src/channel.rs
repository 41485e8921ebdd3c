//! Channels: one named, long-lived connection to one system each, shared by journeys.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod http;
pub mod memory;
pub mod webhook;

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::journey::expect::{Expectation, Query};
use crate::journey::message::Arrival;
use crate::journey::run::{Fault, Reply};
use crate::journey::{Name, Outgoing};

/// One live connection to one system. No retry inside: a monitor that retries hides what it is there to see.
pub trait Channel: Send + Sync {
    /// Sends a message that will arrive elsewhere. The reply says which acknowledgement was given.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>>;

    /// Sends a request and reads the response.
    fn request<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        self.send(outgoing)
    }

    /// Reads until told to stop: stamps each arrival the moment its bytes are there, keeps its readiness up to date,
    /// reconnects by itself. Called once, and only for channels that journeys receive on.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()>;
}

/// What a reader needs to do its work.
#[derive(Clone)]
pub struct Listener {
    /// The channel's name, for its arrivals.
    pub channel: Name,
    /// The process's clock.
    pub clock: Clock,
    /// Where arrivals go. Bounded: a reader that is faster than we are waits, and its stamp is already taken.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Whether it can receive now.
    pub readiness: watch::Sender<Readiness>,
    /// When to stop.
    pub stop: CancellationToken,
}

/// Whether a channel is proven able to receive. Proven, not hoped: a subscription confirmed, a queue consumed, a route bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Not tried yet.
    #[default]
    Starting,
    /// A message sent now would be seen.
    Ready,
    /// It would not.
    Down {
        /// Why, for people.
        why: String,
    },
}

/// What every channel has, whatever its kind.
#[derive(Clone, Debug)]
pub struct ChannelPolicy {
    /// At most this many messages a second; `None` is without limit.
    pub rate: Option<f64>,
    /// At most this many sends and requests at once.
    pub max_in_flight: usize,
    /// A send or request may take this long unless its step says otherwise.
    pub timeout: Duration,
    /// What identifies an arrival instead of a token.
    pub key: Option<Query>,
    /// Arrivals that do not fulfil these are not ours.
    pub filter: Vec<Expectation>,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        ChannelPolicy {
            rate: None,
            max_in_flight: 64,
            timeout: crate::journey::run::STEP_TIMEOUT,
            key: None,
            filter: Vec::new(),
        }
    }
}

/// A kind of channel, as the configuration knows it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The value of `type`.
    pub name: &'static str,
    /// Whether journeys may send through it.
    pub sends: bool,
    /// Whether journeys may ask through it.
    pub requests: bool,
    /// Whether journeys may receive on it.
    pub receives: bool,
    /// Keys of a `send` or `request` step that only this kind knows.
    pub fields: &'static [&'static str],
    /// Whether steps may give headers.
    pub headers: bool,
    /// Whether this build can open it: the Cargo feature that it needs otherwise.
    pub available: Availability,
}

/// Whether a build has a kind of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It has.
    Here,
    /// Another build has: with this Cargo feature.
    Feature(&'static str),
    /// No build has it yet: journeys that need it load, and are `unknown`.
    Planned,
}

const AMQP: Availability = if cfg!(feature = "amqp") { Availability::Here } else { Availability::Feature("amqp") };

/// Every kind that a configuration may name.
pub const KINDS: &[Kind] = &[
    kind("http", [true, true, false], &["method", "path", "query", "form"], Availability::Here),
    kind("webhook", [false, false, true], &[], Availability::Here),
    kind("amqp", [true, false, true], &["exchange", "routing_key"], AMQP),
    kind("memory", [true, false, true], &["delay", "copies"], Availability::Here),
    kind("smtp", [true, false, false], &["subject", "to"], Availability::Planned),
    kind("imap", [false, false, true], &[], Availability::Planned),
    kind("kafka", [true, false, true], &["topic", "key", "partition"], Availability::Planned),
    kind("mqtt", [true, false, true], &["topic", "qos", "retain"], Availability::Planned),
    kind("nats", [true, false, true], &["subject"], Availability::Planned),
    kind("redis", [true, false, true], &["stream", "topic"], Availability::Planned),
    kind("websocket", [true, false, true], &[], Availability::Planned),
    kind("sqs", [true, false, true], &[], Availability::Planned),
    kind("sns", [true, false, false], &["subject"], Availability::Planned),
    kind("smpp", [true, false, true], &["to", "from"], Availability::Planned),
    kind("slack", [true, false, true], &["channel"], Availability::Planned),
    kind("postgres", [true, false, true], &["query"], Availability::Planned),
    kind("exec", [true, false, false], &[], Availability::Planned),
    kind("tcp", [false, true, false], &[], Availability::Planned),
    kind("dns", [false, true, false], &["name", "record"], Availability::Planned),
    kind("tls", [false, true, false], &[], Availability::Planned),
];

const fn kind(
    name: &'static str,
    [sends, requests, receives]: [bool; 3],
    fields: &'static [&'static str],
    available: Availability,
) -> Kind {
    Kind { name, sends, requests, receives, fields, headers: true, available }
}

/// The kind of that name.
pub fn kind_of(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// A channel's settings, by kind.
#[derive(Clone, Debug)]
pub enum Settings {
    /// `http`
    Http(http::HttpSettings),
    /// `webhook`
    Webhook(webhook::WebhookSettings),
    /// `amqp`
    #[cfg(feature = "amqp")]
    Amqp(amqp::AmqpSettings),
    /// `memory`
    Memory,
    /// A kind that this build cannot open.
    Unavailable(&'static str),
}
