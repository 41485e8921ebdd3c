//! One connection to a broker, in either version of the protocol, and the one task that turns its wheel.
//!
//! The library would connect again by itself and publish again what it still holds. Here it is handed a connection that was
//! made for it, once; its event loop is dropped at the first error, with everything unanswered in it.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use zeroize::Zeroizing;

use super::message::{Letter, Received};
use super::{MqttSettings, SCHEMES, Version, refusal, v4, v5};
use crate::channel::dial::{Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::server::Server;
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::time::Now;

/// Messages that the broker brings ahead of our acknowledgements, where the protocol lets us say so; as many wait for us.
pub(super) const WINDOW: u16 = 50;
/// The largest packet that we take.
pub(super) const LARGEST: u32 = 16 * 1024 * 1024;
/// Requests that wait for the event loop: as many as there are packet identifiers, so that there is always room for an
/// acknowledgement.
pub(super) const REQUESTS: usize = u16::MAX as usize;
/// A goodbye may take this long; then the connection is ended without one.
const GOODBYE: Duration = Duration::from_secs(1);
/// Every broker takes identifiers of 23 letters and digits (MQTT 3.1.1 section 3.1.3.1), so this many are left to chance.
const CHANCE: usize = 13;

/// What the library needs to say hello.
pub(super) struct Greeting {
    pub(super) client_id: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    /// In seconds.
    pub(super) keep_alive: u16,
    stream: Stream,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

impl Greeting {
    /// Gives the connection to whoever asks first, and none to anyone after.
    pub(super) fn into_connector<Options>(self) -> impl Fn(String, Options) -> Connecting + Send + Sync + 'static {
        let stream = Mutex::new(Some(self.stream));
        move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            Box::pin(std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))))
        }
    }
}

/// What a broker says that it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// The largest packet that it takes.
    pub(super) largest: u32,
    /// The highest QoS of messages that it takes.
    pub(super) qos: u8,
    /// Whether it keeps messages for those who subscribe later.
    pub(super) retains: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities { largest: u32::MAX, qos: 2, retains: true }
    }
}

/// The broker's word on a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// None is due: the bytes are with the system.
    Flushed,
    /// A reason code, with words where the broker has some.
    Word { code: u8, words: Option<String>, packet: Option<u16> },
    /// The connection had ended before the message was taken: it has not left.
    NotTaken,
    /// The connection ended before the answer.
    Lost,
}

/// The broker's word on a subscription.
pub(super) struct Granted {
    pub(super) code: u8,
    pub(super) words: Option<String>,
}

/// What a turn of an event loop brought.
pub(super) enum Step<Receipt> {
    /// A message, and what acknowledges it.
    Message(Received, Option<Receipt>),
    /// The broker has nobody for the message with this packet identifier, which it said half way through QoS 2.
    Unmatched(u16),
    /// Nothing of interest.
    Other,
}

enum Client {
    V4(rumqttc_v4::AsyncClient),
    V5(rumqttc_v5::AsyncClient),
}

enum Events {
    V4(Box<rumqttc_v4::EventLoop>),
    V5(Box<rumqttc_v5::EventLoop>),
}

/// What acknowledges a message.
pub(super) enum Receipt {
    V4(rumqttc_v4::ManualAck),
    V5(rumqttc_v5::ManualAck),
}

/// A message, stamped, and what acknowledges it.
pub(super) type Incoming = (Now, Received, Option<Receipt>);

/// A connection that stands, as far as is known. It ends with this value.
pub(super) struct Link {
    client: Client,
    /// `host:port`, for messages.
    pub(super) peer: String,
    capabilities: Capabilities,
    unmatched: Arc<Mutex<HashSet<u16>>>,
    ended: watch::Receiver<Option<Refusal>>,
    wheel: JoinSet<()>,
}

impl Link {
    /// Connects and says who we are. What the broker brings comes out of the second half, which who only publishes drops.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, credentials, or `limit` passed: each with its own words.
    pub(super) async fn open(
        settings: &MqttSettings,
        tls: Option<&Arc<ClientConfig>>,
        clock: Clock,
        limit: Limit,
    ) -> Result<(Link, mpsc::Receiver<Incoming>), Refusal> {
        let server = Server::of(&settings.url, SCHEMES)?;
        if server.is_tls && tls.is_none() {
            let detail = "the channel's `url` has become one with TLS; reload the configuration";
            return Err(Refusal::new(Cause::Tls, detail));
        }
        let tls = tls.filter(|_| server.is_tls).cloned();
        let dialed = Dialer { host: server.host, port: server.port, tls }.connect(limit).await?;
        let peer = dialed.peer;
        let greeting = Greeting {
            client_id: client_id(),
            user: settings.user.clone().or(server.user),
            password: settings.password.as_ref().map(crate::secret::Secret::reveal).or(server.password),
            keep_alive: u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX),
            stream: dialed.stream,
        };
        let (client, mut events) = match settings.version {
            Version::V311 => {
                let (client, events) = v4::start(greeting);
                (Client::V4(client), Events::V4(Box::new(events)))
            }
            Version::V5 => {
                let (client, events) = v5::start(greeting);
                (Client::V5(client), Events::V5(Box::new(events)))
            }
        };
        let capabilities = timeout_at(limit.instant(), events.greet(&peer))
            .await
            .unwrap_or_else(|_| Err(Refusal::silence("greeting it in MQTT", &peer, limit.length())))?;

        let (arrivals, incoming) = mpsc::channel(usize::from(WINDOW));
        let (ending, ended) = watch::channel(None);
        let unmatched = Arc::new(Mutex::new(HashSet::new()));
        let mut wheel = JoinSet::new();
        wheel.spawn(turn(events, clock, peer.clone(), arrivals, Arc::clone(&unmatched), ending));
        Ok((Link { client, peer, capabilities, unmatched, ended, wheel }, incoming))
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Why it has ended, once it has.
    pub(super) async fn ended(&self) -> Refusal {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| Refusal::lost(&self.peer, "it ended"))
    }

    /// What keeps the broker from taking the letter, by its own word: it would end the connection over it.
    pub(super) fn check(&self, letter: &Letter) -> Result<(), Refusal> {
        let Capabilities { largest, qos, retains } = self.capabilities;
        let wrong = match &self.client {
            Client::V5(_) if v5::size(letter) > largest as usize => {
                Some((0x95, format!("{} bytes, and it takes {largest}", v5::size(letter))))
            }
            _ if letter.qos > qos => Some((0x9b, format!("it takes QoS {qos} at most"))),
            _ if letter.is_retained && !retains => Some((0x9a, "it keeps no messages".to_owned())),
            _ => None,
        };
        wrong.map_or(Ok(()), |(code, words)| refusal::verdict(code, Some(&words), false, &letter.place()))
    }

    /// Publishes, and waits for the last packet that its QoS asks for.
    pub(super) async fn publish(&self, letter: &Letter) -> Answer {
        let answer = match &self.client {
            Client::V4(client) => v4::publish(client, letter).await,
            Client::V5(client) => v5::publish(client, letter).await,
        };
        match answer {
            Answer::Word { code: 0, words, packet: Some(packet) } => {
                let is_unmatched = self.unmatched.lock().unwrap_or_else(PoisonError::into_inner).remove(&packet);
                let code = if is_unmatched { refusal::NO_MATCHING_SUBSCRIBERS } else { 0 };
                Answer::Word { code, words, packet: Some(packet) }
            }
            other => other,
        }
    }

    /// Subscribes, and makes sure that the broker grants what was asked for.
    pub(super) async fn subscribe(&self, filter: &str, qos: u8) -> Result<(), Refusal> {
        let granted = match &self.client {
            Client::V4(client) => v4::subscribe(client, filter, qos).await,
            Client::V5(client) => v5::subscribe(client, filter, qos).await,
        };
        match granted {
            Some(Granted { code, words }) => refusal::granted(code, qos, words.as_deref(), filter),
            None => Err(self.ended().await),
        }
    }

    /// Acknowledges a message, if its QoS asks for that. Fails only with the connection, and then that tells.
    pub(super) fn acknowledge(&self, receipt: Option<Receipt>) {
        let _ = match (&self.client, receipt) {
            (Client::V4(client), Some(Receipt::V4(receipt))) => client.try_manual_ack(receipt).is_ok(),
            (Client::V5(client), Some(Receipt::V5(receipt))) => client.try_manual_ack(receipt).is_ok(),
            _ => true,
        };
    }

    /// Says goodbye, so that the broker's log shows no client that vanished.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            let _ = match &self.client {
                Client::V4(client) => client.disconnect_now().await.is_ok(),
                Client::V5(client) => client.disconnect_now().await.is_ok(),
            };
            while self.wheel.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

impl Events {
    async fn greet(&mut self, peer: &str) -> Result<Capabilities, Refusal> {
        match self {
            Events::V4(events) => v4::greet(events, peer).await,
            Events::V5(events) => v5::greet(events, peer).await,
        }
    }

    async fn next(&mut self, peer: &str) -> Result<Step<Receipt>, Refusal> {
        let step = match self {
            Events::V4(events) => v4::next(events, peer).await?.map(Receipt::V4),
            Events::V5(events) => v5::next(events, peer).await?.map(Receipt::V5),
        };
        Ok(step)
    }
}

impl<Receipt> Step<Receipt> {
    fn map<Other>(self, wrap: impl FnOnce(Receipt) -> Other) -> Step<Other> {
        match self {
            Step::Message(received, receipt) => Step::Message(received, receipt.map(wrap)),
            Step::Unmatched(packet) => Step::Unmatched(packet),
            Step::Other => Step::Other,
        }
    }
}

/// Turns the event loop until the connection ends, and stamps what it brings before anything else happens to it.
async fn turn(
    mut events: Events,
    clock: Clock,
    peer: String,
    arrivals: mpsc::Sender<Incoming>,
    unmatched: Arc<Mutex<HashSet<u16>>>,
    ending: watch::Sender<Option<Refusal>>,
) {
    let why = loop {
        match events.next(&peer).await {
            Ok(Step::Message(received, receipt)) => {
                let at = clock.now();
                // Fails only where nobody receives, and then nothing was subscribed to.
                let _ = arrivals.send((at, received, receipt)).await;
            }
            Ok(Step::Unmatched(packet)) => {
                unmatched.lock().unwrap_or_else(PoisonError::into_inner).insert(packet);
            }
            Ok(Step::Other) => {}
            Err(why) => break why,
        }
    };
    // Before the loop goes, and with it those who wait for an answer: they look here for the reason.
    ending.send_replace(Some(why));
    drop(events);
}

/// A name of our own for every connection: two of one name throw each other out (MQTT 5 section 3.1.4).
fn client_id() -> String {
    let chance = std::iter::repeat_with(fastrand::alphanumeric).take(CHANCE);
    std::iter::once("journeyman".to_owned()).chain(chance.map(String::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_name_that_every_broker_takes() {
        let names: HashSet<_> = std::iter::repeat_with(client_id).take(100).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| name.len() == 23 && name.bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}
