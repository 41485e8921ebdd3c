//! MQTT 3.1.1 and 5: publish with the QoS's acknowledgement, receive on a subscription of our own.
//!
//! Publishing and receiving have a connection each, so that what one of them suffers is told of that one alone. The client
//! library's own recovery is cut off: a connection that breaks is seen, told, and made anew here.

mod link;
mod message;
mod publish;
mod receive;
mod refusal;
pub(crate) mod topic;
mod v4;
mod v5;

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

/// The schemes of a broker's URL, with their ports.
const SCHEMES: &[Scheme] = &[("mqtt", 1_883, false), ("mqtts", 8_883, true)];

/// Settings of an `mqtt` channel.
#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// Which version of the protocol is spoken.
    pub version: Version,
    /// `mqtt://user:password@host:port`; secret because of the password.
    pub url: Secret,
    /// The user, if the URL does not say it.
    pub user: Option<String>,
    /// The password, if the URL does not say it.
    pub password: Option<Secret>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Where messages are published, unless a step says otherwise; empty for a channel that only receives.
    pub topic: String,
    /// The topic filter that is received on; a channel that nobody receives on needs none.
    pub subscribe: Option<String>,
    /// 0, 1 or 2, for messages out and for the subscription.
    pub qos: u8,
    /// After so long without a packet we ask the broker whether it is there. Whole seconds.
    pub keep_alive: Duration,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1: no headers, and no reason for a refusal.
    V311,
    /// 5.
    V5,
}

impl Version {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        }
    }
}

/// An `mqtt` channel.
pub struct Mqtt {
    settings: MqttSettings,
    tls: Option<Arc<ClientConfig>>,
    clock: Clock,
    publisher: publish::Publisher,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: MqttSettings, clock: Clock) -> Result<Mqtt, String> {
    let is_tls = settings.url.reveal().starts_with("mqtts:");
    let tls = match is_tls || settings.ca_file.is_some() {
        true => Some(Arc::new(crate::channel::seen::tls_client(settings.ca_file.as_deref())?)),
        false => None,
    };
    Ok(Mqtt { publisher: publish::Publisher::new(settings.clone(), tls.clone(), clock), settings, tls, clock })
}

impl Channel for Mqtt {
    /// Publishes, and waits for the acknowledgement that the QoS asks for.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    fn request<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let fault = cannot(self.clock, "an `mqtt` channel cannot ask: send, and receive the answer");
        Box::pin(std::future::ready(Err(fault)))
    }

    fn check<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let fault = cannot(self.clock, "an `mqtt` channel has nothing to check: MQTT has no queues to look at");
        Box::pin(std::future::ready(Err(fault)))
    }

    /// Connects and says who we are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.publisher.prove(limit))
    }

    /// A session ends with its connection, and with it what the broker would have kept for us.
    fn keeps(&self) -> bool {
        false
    }

    /// Subscribes; ready once the broker has granted the QoS that was asked for.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.settings, self.tls.as_ref(), listener))
    }
}
