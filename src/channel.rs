//! Channels: one named, long-lived connection to one system each, shared by journeys.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod awaited;
#[cfg(feature = "sqs")]
mod aws;
mod certificate;
#[cfg(feature = "checks")]
pub mod dns;
#[cfg(feature = "exec")]
pub mod exec;
pub mod http;
#[cfg(feature = "imap")]
pub mod imap;
pub mod journal;
#[cfg(any(feature = "imap", feature = "smtp"))]
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg_attr(
    not(feature = "full"),
    allow(
        dead_code,
        clippy::allow_attributes,
        reason = "a build without some channels does not use all that they share"
    )
)]
pub mod mail;
pub mod memory;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "nats")]
pub mod nats;
pub mod notifier;
#[cfg(any(feature = "slack", feature = "sqs"))]
mod own;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "mqtt", feature = "nats"))]
mod server;
#[cfg(feature = "slack")]
pub mod slack;
#[cfg(feature = "smpp")]
pub mod smpp;
#[cfg(feature = "smtp")]
pub mod smtp;
#[cfg(feature = "sqs")]
pub mod sns;
#[cfg(feature = "sqs")]
pub mod sqs;
#[cfg(feature = "checks")]
pub mod tcp;
#[cfg(feature = "checks")]
pub mod tls;
#[cfg(any(feature = "slack", feature = "sqs"))]
mod web;
pub mod webhook;
#[cfg(feature = "websocket")]
pub mod websocket;

/// What channels share. A build without some of them does not use all of it.
macro_rules! shared {
    ($($name:ident)+) => {
        $(
            #[cfg_attr(
                not(feature = "full"),
                allow(dead_code, clippy::allow_attributes, reason = "some channels are not in this build")
            )]
            mod $name;
        )+
    };
}
#[cfg_attr(
    not(feature = "full"),
    allow(dead_code, clippy::allow_attributes, reason = "some channels are not in this build")
)]
pub mod seen;
shared! { address dial handing held life receiving refusal }

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::channel::awaited::Awaited;
pub use crate::channel::journal::Journal;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::detect::channel::CERTIFICATE_WARNING;
use crate::journey::expect::{Expectation, Query};
use crate::journey::message::Arrival;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::spend::SpendLimit;
use crate::journey::token::Mint;
use crate::journey::{Act, Name, Outgoing};

/// One live connection to one system. No retry inside: a monitor that retries hides what it is there to see.
pub trait Channel: Send + Sync {
    /// Sends a message that will arrive elsewhere. The reply says which acknowledgement was given.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>>;

    /// Sends a request and reads the response.
    fn request<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        self.send(outgoing)
    }

    /// Looks at the system: takes nothing, leaves nothing. The reply's message has what it saw as facts.
    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>>;

    /// Proves that the system is there and takes our credentials, without sending a message or leaving a trace, within
    /// `limit`. What it proved, in words.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>>;

    /// Whether what arrives while the reader is away is there when it is back: a queue keeps it, a subscription does not.
    fn keeps(&self) -> bool {
        true
    }

    /// Whether a reader of the next process finds what came before it, also what this one has taken and not put to use: then a
    /// message that is not there never came. Only what is never taken away, or kept by [`Journal`] before it is, is there.
    fn looks_back(&self) -> bool {
        false
    }

    /// Whether a message that this reader has taken comes to no other one. What is kept by [`Journal`] before it is taken is not
    /// meant.
    fn takes(&self) -> bool {
        false
    }

    /// What became of the calls that came in, for a channel that is called.
    fn counts(&self) -> Option<Arc<webhook::HookCounts>> {
        None
    }

    /// Reads until told to stop: stamps each arrival the moment its bytes are there, keeps its readiness up to date,
    /// reconnects by itself. Called once, and only for channels that journeys receive on.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()>;
}

impl dyn Channel {
    /// Does what a step asks for.
    pub fn perform<'a>(&'a self, act: Act, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        match act {
            Act::Send => self.send(outgoing),
            Act::Request => self.request(outgoing),
            Act::Check => self.check(outgoing),
        }
    }
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
    /// Where they go instead if taking them away, or telling their sender, has to wait until they are safe.
    pub journal: Journal,
    /// What came after this is of interest too: runs of the process before wait for it.
    pub since: Option<Timestamp>,
    /// Which tokens are ours: nothing else is ever removed.
    pub mint: Arc<Mint>,
    /// To try again at once, instead of when the pause after a failure is over.
    pub nudge: Arc<Notify>,
    /// Whether a run waits for a message of it.
    pub awaited: Awaited,
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
    /// What may be sent through it in a day.
    pub spend: Option<SpendLimit>,
    /// A certificate that expires within this is told of; `None` is never.
    pub certificate_warning: Option<Duration>,
    /// Whether the daemon starts only if it is there: it is proven at the start. `Some(false)` is proven and only told.
    pub required: Option<bool>,
    /// Its breaker refuses nothing, and only shows what it would do.
    pub breaker_observes: bool,
}

impl Default for ChannelPolicy {
    fn default() -> Self {
        ChannelPolicy {
            rate: None,
            max_in_flight: 64,
            timeout: crate::journey::run::STEP_TIMEOUT,
            key: None,
            filter: Vec::new(),
            spend: None,
            certificate_warning: Some(CERTIFICATE_WARNING),
            required: None,
            breaker_observes: false,
        }
    }
}

/// Why a channel cannot do something: what its kind is not made for.
pub(crate) fn cannot(clock: Clock, detail: &str) -> Fault {
    let now = clock.now();
    Refusal::new(Cause::Refused, detail).into_fault(now, now, Vec::new())
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
    /// Whether journeys may check it.
    pub checks: bool,
    /// Keys of a `send` or `request` step that only this kind knows.
    pub fields: &'static [&'static str],
    /// Keys of a `check` step that only this kind knows.
    pub check_fields: &'static [&'static str],
    /// Whether steps may give headers.
    pub headers: bool,
    /// Whether a breaker stands before it. Not where each call has a target of its own, or nothing is called at all.
    pub breaks: bool,
    /// Those of its keys in steps that are taken as they are written: a template in them would let data become code.
    pub literal: &'static [&'static str],
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
}

impl Kind {
    const fn new(name: &'static str, available: Availability) -> Kind {
        Kind {
            name,
            sends: false,
            requests: false,
            receives: false,
            checks: false,
            fields: &[],
            check_fields: &[],
            headers: true,
            breaks: true,
            literal: &[],
            available,
        }
    }

    const fn sends(mut self, fields: &'static [&'static str]) -> Kind {
        self.sends = true;
        self.fields = fields;
        self
    }

    const fn requests(mut self, fields: &'static [&'static str]) -> Kind {
        self.requests = true;
        self.fields = fields;
        self
    }

    const fn receives(mut self) -> Kind {
        self.receives = true;
        self
    }

    const fn checks(mut self, fields: &'static [&'static str]) -> Kind {
        self.checks = true;
        self.check_fields = fields;
        self
    }

    const fn literal(mut self, keys: &'static [&'static str]) -> Kind {
        self.literal = keys;
        self
    }

    const fn without_breaker(mut self) -> Kind {
        self.breaks = false;
        self
    }

    const fn without_headers(mut self) -> Kind {
        self.headers = false;
        self
    }
}

/// `Here` if the Cargo feature of that name is on.
macro_rules! feature {
    ($name:literal) => {
        if cfg!(feature = $name) { Availability::Here } else { Availability::Feature($name) }
    };
}

/// Every kind that a configuration may name.
pub const KINDS: &[Kind] = &[
    Kind::new("http", Availability::Here)
        .sends(&["method", "path", "query", "form"])
        .requests(&["method", "path", "query", "form"]),
    Kind::new("webhook", Availability::Here).receives().without_breaker(),
    Kind::new("memory", Availability::Here).sends(&["delay", "copies"]).receives().checks(&[]).without_breaker(),
    Kind::new("notifier", Availability::Here).sends(&[]).without_headers().without_breaker(),
    Kind::new("amqp", feature!("amqp")).sends(&["exchange", "routing_key"]).receives().checks(&["queue"]),
    Kind::new("smtp", feature!("smtp")).sends(&["subject", "to"]),
    Kind::new("imap", feature!("imap")).receives(),
    Kind::new("kafka", feature!("kafka")).sends(&["topic", "key", "partition"]).receives().checks(&["topic", "group"]),
    Kind::new("mqtt", feature!("mqtt")).sends(&["topic", "qos", "retain"]).receives(),
    Kind::new("nats", feature!("nats")).sends(&["subject", "message_id"]).receives().checks(&["stream", "consumer"]),
    Kind::new("redis", feature!("redis")).sends(&["stream", "topic"]).receives().checks(&["stream", "group"]),
    Kind::new("websocket", feature!("websocket")).sends(&[]).receives().without_headers(),
    Kind::new("sqs", feature!("sqs")).sends(&["group", "deduplication"]).receives().checks(&["queue"]),
    Kind::new("sns", feature!("sqs")).sends(&["subject", "group", "deduplication"]),
    Kind::new("smpp", feature!("smpp")).sends(&["to", "from"]).receives().without_headers(),
    Kind::new("slack", feature!("slack")).sends(&["channel"]).receives(),
    Kind::new("postgres", feature!("postgres"))
        .sends(&["notify", "query"])
        .receives()
        .checks(&["query"])
        .without_headers()
        .literal(&["query"]),
    Kind::new("exec", feature!("exec")).without_headers().without_breaker(),
    Kind::new("tcp", feature!("checks")).requests(&[]).checks(&[]).without_headers().without_breaker(),
    Kind::new("dns", feature!("checks")).checks(&["lookup", "record"]).without_breaker(),
    Kind::new("tls", feature!("checks")).checks(&[]).without_breaker(),
];

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
    /// `memory`
    Memory,
    /// `notifier`
    Notifier(notifier::NotifierSettings),
    /// `amqp`
    #[cfg(feature = "amqp")]
    Amqp(amqp::AmqpSettings),
    /// `kafka`
    #[cfg(feature = "kafka")]
    Kafka(kafka::KafkaSettings),
    /// `mqtt`
    #[cfg(feature = "mqtt")]
    Mqtt(mqtt::MqttSettings),
    /// `nats`
    #[cfg(feature = "nats")]
    Nats(nats::NatsSettings),
    /// `postgres`
    #[cfg(feature = "postgres")]
    Postgres(postgres::PostgresSettings),
    /// `redis`
    #[cfg(feature = "redis")]
    Redis(redis::RedisSettings),
    /// `slack`
    #[cfg(feature = "slack")]
    Slack(slack::SlackSettings),
    /// `sns`
    #[cfg(feature = "sqs")]
    Sns(sns::SnsSettings),
    /// `sqs`
    #[cfg(feature = "sqs")]
    Sqs(sqs::SqsSettings),
    /// `websocket`
    #[cfg(feature = "websocket")]
    WebSocket(websocket::WebSocketSettings),
    /// `imap`
    #[cfg(feature = "imap")]
    Imap(imap::ImapSettings),
    /// `smtp`
    #[cfg(feature = "smtp")]
    Smtp(smtp::SmtpSettings),
    /// `smpp`
    #[cfg(feature = "smpp")]
    Smpp(Box<smpp::SmppSettings>),
    /// `dns`
    #[cfg(feature = "checks")]
    Dns(dns::DnsSettings),
    /// `tcp`
    #[cfg(feature = "checks")]
    Tcp(tcp::TcpSettings),
    /// `tls`
    #[cfg(feature = "checks")]
    Tls(tls::TlsSettings),
    /// `exec`
    #[cfg(feature = "exec")]
    Exec(exec::ExecSettings),
}

impl Settings {
    /// Whether what one call meets is what the others would meet: not where each has an address of its own.
    pub fn has_one_target(&self) -> bool {
        !matches!(self, Settings::Http(settings) if settings.url.is_none())
    }

    /// The channel that they describe; `None` for a webhook where there is no listener for it. Reads certificates; touches no network.
    ///
    /// # Errors
    /// In words: what cannot be read.
    pub fn open(&self, opening: &Opening) -> Result<Option<Arc<dyn Channel>>, String> {
        let clock = opening.clock;
        Ok(Some(match self {
            Settings::Http(settings) => Arc::new(http::Http::open(settings.clone(), clock)?),
            Settings::Webhook(settings) => match &opening.hooks {
                Some(hooks) => Arc::new(webhook::Webhook::open(settings.clone(), hooks.clone(), clock)),
                None => return Ok(None),
            },
            Settings::Memory => Arc::new(memory::Memory::open(clock)),
            Settings::Notifier(settings) => {
                Arc::new(notifier::Notifier::open(settings.clone(), opening.alarms.clone(), clock))
            }
            #[cfg(feature = "amqp")]
            Settings::Amqp(settings) => Arc::new(amqp::open(settings.clone(), clock)),
            #[cfg(feature = "kafka")]
            Settings::Kafka(settings) => Arc::new(kafka::open(settings.clone(), clock)?),
            #[cfg(feature = "mqtt")]
            Settings::Mqtt(settings) => Arc::new(mqtt::open(settings.clone(), clock)?),
            #[cfg(feature = "nats")]
            Settings::Nats(settings) => Arc::new(nats::open(settings.clone(), clock)?),
            #[cfg(feature = "postgres")]
            Settings::Postgres(settings) => Arc::new(postgres::open(settings.clone(), clock)?),
            #[cfg(feature = "redis")]
            Settings::Redis(settings) => Arc::new(redis::open(settings.clone(), clock)?),
            #[cfg(feature = "slack")]
            Settings::Slack(settings) => Arc::new(slack::open(settings.clone(), clock)?),
            #[cfg(feature = "sqs")]
            Settings::Sns(settings) => Arc::new(sns::open(settings.clone(), clock)?),
            #[cfg(feature = "sqs")]
            Settings::Sqs(settings) => Arc::new(sqs::open(settings.clone(), clock)?),
            #[cfg(feature = "websocket")]
            Settings::WebSocket(settings) => Arc::new(websocket::open(settings.clone(), clock)?),
            #[cfg(feature = "imap")]
            Settings::Imap(settings) => Arc::new(imap::open(settings.clone(), clock)?),
            #[cfg(feature = "smtp")]
            Settings::Smtp(settings) => Arc::new(smtp::open(settings.clone(), clock)?),
            #[cfg(feature = "smpp")]
            Settings::Smpp(settings) => Arc::new(smpp::open(settings.as_ref().clone(), clock)?),
            #[cfg(feature = "checks")]
            Settings::Dns(settings) => Arc::new(dns::Dns::open(settings.clone(), clock)),
            #[cfg(feature = "checks")]
            Settings::Tcp(settings) => Arc::new(tcp::Tcp::open(settings.clone(), clock)?),
            #[cfg(feature = "checks")]
            Settings::Tls(settings) => Arc::new(tls::Tls::open(settings.clone(), clock)?),
            #[cfg(feature = "exec")]
            Settings::Exec(settings) => Arc::new(exec::Exec::open(settings.clone(), clock)),
        }))
    }
}

/// What channels need to be opened.
#[derive(Clone)]
pub struct Opening {
    /// The process's clock.
    pub clock: Clock,
    /// The listener for inbound webhooks, where there is one.
    pub hooks: Option<webhook::Hooks>,
    /// Where those who tell people take tests.
    pub alarms: Alarms,
}
