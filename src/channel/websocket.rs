//! WebSocket (RFC 6455): messages out on one connection, pushes in on another that is held.
//!
//! Two connections, so that what receives is never held up by what sends, and a push is seen by one who did not send it.

mod heartbeat;
mod link;
mod publish;
mod receive;
mod refusal;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use regex::Regex;

use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::{HeaderText, Secret};

/// Settings of a `websocket` channel.
#[derive(Clone, Debug)]
pub struct WebSocketSettings {
    /// `ws://host/path` or, for TLS, `wss://host/path`; secret because it may hold a password or a token.
    pub url: Secret,
    /// Sent with the handshake.
    pub headers: Vec<(String, HeaderText)>,
    /// Which subprotocol to agree on.
    pub subprotocol: Option<String>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Texts that every connection begins with, as to say who we are.
    pub hello: Vec<HeaderText>,
    /// Texts that follow on the connection that receives.
    pub subscribe: Vec<HeaderText>,
    /// A frame that this matches says that a push sent now would come; `None` needs no more than the handshake.
    pub ready_when: Option<Regex>,
    /// In which frames messages are sent.
    pub frames: Frames,
}

/// The type of the frames that carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// A `websocket` channel.
pub struct WebSocket {
    link: Arc<link::Connector>,
    publisher: publish::Publisher,
    clock: Clock,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: WebSocketSettings, clock: Clock) -> Result<WebSocket, String> {
    let link = Arc::new(link::Connector::new(settings)?);
    Ok(WebSocket { publisher: publish::Publisher::new(link.clone(), clock), link, clock })
}

impl Channel for WebSocket {
    /// Writes one message. That it is on the socket is all that the protocol tells.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.publisher.send(outgoing))
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "a WebSocket has nothing that could be looked at"))))
    }

    /// Makes the handshake and says goodbye.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.publisher.prove(limit))
    }

    /// A push is made to those who are there.
    fn keeps(&self) -> bool {
        false
    }

    /// Connects, subscribes, and reads; ready from the frame that `ready_when` matches, or from the handshake.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(receive::listen(&self.link, listener))
    }
}
