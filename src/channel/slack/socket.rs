//! Receiving over Socket Mode: Slack pushes events through a WebSocket that we open. <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio::time::{sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message as Frame};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::Slack;
use super::message::{Seen, read};
use crate::channel::Listener;
use crate::channel::dial::{Dialer, Limit, Stream};
use crate::channel::receiving::keep_receiving;
use crate::channel::refusal::Refusal;
use crate::channel::web::{Errand, words};
use crate::journey::message::Arrival;
use crate::secret::Secret;
use crate::time::{Mono, Now};

/// From the first packet to Slack's hello.
const SETUP: Duration = Duration::from_secs(10);
/// We say that we are there this often, and Slack answers.
const PING: Duration = Duration::from_secs(10);
/// A connection on which nothing has come for so long is dead.
const SILENCE: Duration = Duration::from_secs(25);
/// Events that wait to be handed over; more are not read, and Slack sends them again.
const WAITING: usize = 50;
/// Events that were handed over lately: Slack repeats those whose acknowledgement it missed.
const REMEMBERED: usize = 1_000;
/// A frame that is longer is none of Slack's.
const LARGEST: usize = 1 << 20;
/// A goodbye may take this long.
const GOODBYE: Duration = Duration::from_secs(1);

/// Reads until told to stop; reconnects by itself.
pub(super) async fn listen(slack: &Slack, app: &Secret, listener: &Listener) {
    let handed_over = HandedOver::default();
    let open = || Socket::open(slack, app, listener);
    let read = |socket| Reader::new(slack, app, listener, &handed_over, socket).read();
    keep_receiving(listener, open, read).await;
}

/// A connection over which Slack has said hello.
struct Socket {
    frames: WebSocketStream<Stream>,
    peer: String,
}

impl Socket {
    async fn open(slack: &Slack, app: &Secret, listener: &Listener) -> Result<Socket, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let nothing = json!({});
        let asking = slack.reader.post(app, "apps.connections.open", &nothing, Errand::own(SETUP));
        let (answer, _) = asking.await.map_err(|declined| declined.fault.detail)?;
        let url = answer["url"].as_str().and_then(|url| Url::parse(url).ok());
        let strange = "apps.connections.open gave no address to connect to";
        let url = url.filter(|url| matches!(url.scheme(), "ws" | "wss")).ok_or(strange)?;
        let tls = match url.scheme() {
            "wss" => Some(crate::channel::seen::tls_client(slack.settings.ca_file.as_deref())?.into()),
            _ => None,
        };
        let host = match url.host().ok_or(strange)? {
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        let dialer = Dialer { host, port: url.port_or_known_default().unwrap_or(443), tls };
        let dialed = dialer.connect(limit).await.map_err(|refusal| refusal.detail)?;
        let peer = dialed.peer;
        // Its query is a ticket: it is in no word of ours.
        let request = url.as_str().into_client_request().map_err(|_| strange)?;
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let greeting = async {
            let (mut frames, _) = client_async_with_config(request, dialed.stream, Some(config))
                .await
                .map_err(|error| ended(&peer, &error))?;
            loop {
                let Some(frame) = frames.next().await else {
                    return Err(format!("{peer} closed the connection without a hello"));
                };
                if let Some(event) = json_of(&frame.map_err(|error| ended(&peer, &error))?) {
                    match event["type"].as_str() {
                        Some("hello") => return Ok(frames),
                        Some("disconnect") => return Err(told_to_go(&event)),
                        _ => {}
                    }
                }
            }
        };
        let greeted = timeout_at(limit.instant(), greeting).await;
        let frames =
            greeted.unwrap_or_else(|_| Err(Refusal::silence("waiting for its hello", &peer, limit.length()).detail))?;
        Ok(Socket { frames, peer })
    }
}

fn ended(peer: &str, error: &Error) -> String {
    match error {
        Error::Http(response) => {
            format!("{peer} does not speak WebSocket with us: HTTP {}", response.status().as_u16())
        }
        other => Refusal::lost(peer, words(&other.to_string())).detail,
    }
}

fn told_to_go(event: &Json) -> String {
    match event["reason"].as_str() {
        Some("link_disabled") => "Socket Mode is off: switch it on in the app's settings".to_owned(),
        reason => format!("Slack asked us to reconnect ({})", words(reason.unwrap_or("no reason given"))),
    }
}

fn json_of(frame: &Frame) -> Option<Json> {
    match frame {
        Frame::Text(text) => serde_json::from_str(text.as_str()).ok(),
        _ => None,
    }
}

/// The messages that were handed over lately, whichever connection brought them.
#[derive(Default)]
struct HandedOver(Mutex<VecDeque<String>>);

impl HandedOver {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, ts: String) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back(ts);
    }
}

/// An event that waits to be handed over.
struct Event {
    at: Now,
    envelope: String,
    seen: Seen,
}

struct Reader<'a> {
    slack: &'a Slack,
    app: &'a Secret,
    listener: &'a Listener,
    socket: Socket,
    /// The connection that follows this one, while it is being made.
    next: Option<BoxFuture<'a, Result<Socket, String>>>,
    waiting: VecDeque<Event>,
    handed_over: &'a HandedOver,
    heard: Mono,
}

impl<'a> Reader<'a> {
    fn new(
        slack: &'a Slack,
        app: &'a Secret,
        listener: &'a Listener,
        handed_over: &'a HandedOver,
        socket: Socket,
    ) -> Reader<'a> {
        let heard = listener.clock.now().mono;
        Reader { slack, app, listener, socket, next: None, waiting: VecDeque::new(), handed_over, heard }
    }

    /// Reads until told to stop (`Ok`), or until the connection ends with no other in its place (`Err`, in words).
    async fn read(mut self) -> Result<(), String> {
        let clock = self.listener.clock;
        let mut ping_at = self.heard + PING;
        loop {
            tokio::select! {
                biased;
                () = self.listener.stop.cancelled() => break,
                frame = self.socket.frames.next(), if self.waiting.len() < WAITING => match frame {
                    Some(Ok(frame)) => {
                        let at = clock.now();
                        self.heard = at.mono;
                        self.take(at, &frame).await?;
                    }
                    // Slack closes the old connection when it pleases; the new one is on its way.
                    _ if self.next.is_some() => self.succeed().await?,
                    Some(Err(error)) => return Err(ended(&self.socket.peer, &error)),
                    None => return Err(format!("{} closed the connection", self.socket.peer)),
                },
                socket = async { self.next.as_mut().expect("it is being made").await }, if self.next.is_some() => {
                    self.next = None;
                    self.change_to(socket?);
                }
                place = self.listener.arrivals.reserve(), if !self.waiting.is_empty() => {
                    let (Ok(place), Some(event)) = (place, self.waiting.pop_front()) else { break };
                    let Event { at, envelope, seen } = event;
                    place.send(Arrival { channel: self.listener.channel.clone(), at, message: seen.message.clone() });
                    self.slack.posted.arrived(&self.slack.settings.channel, &seen, &self.listener.mint);
                    self.handed_over.note(seen.ts);
                    self.acknowledge(&envelope).await?;
                }
                () = sleep_until(clock.instant(ping_at)) => {
                    let now = clock.now().mono;
                    // With no room for events we do not read, and so hear nothing.
                    if self.waiting.len() < WAITING && now.since(self.heard) > SILENCE {
                        return Err(format!("{} has said nothing for {}", self.socket.peer, crate::time::Human(SILENCE)));
                    }
                    ping_at = now + PING;
                    self.write(Frame::Ping(Bytes::new())).await?;
                }
            }
        }
        let _ = tokio::time::timeout(GOODBYE, self.socket.frames.close(None)).await;
        Ok(())
    }

    /// What a frame says.
    async fn take(&mut self, at: Now, frame: &Frame) -> Result<(), String> {
        let Some(event) = json_of(frame) else { return Ok(()) };
        match event["type"].as_str() {
            Some("disconnect") if event["reason"].as_str() == Some("link_disabled") => Err(told_to_go(&event)),
            Some("disconnect") => {
                if self.next.is_none() {
                    tracing::info!(channel = %self.listener.channel, why = told_to_go(&event), "connecting anew");
                    self.next = Some(Box::pin(Socket::open(self.slack, self.app, self.listener)));
                }
                Ok(())
            }
            Some("events_api") => {
                let Some(envelope) = event["envelope_id"].as_str() else { return Ok(()) };
                match self.arrival(&event["payload"]["event"]) {
                    Some(seen) => {
                        self.waiting.push_back(Event { at, envelope: envelope.to_owned(), seen });
                        Ok(())
                    }
                    None => self.acknowledge(envelope).await,
                }
            }
            _ => Ok(()),
        }
    }

    /// The message of an event, if it is one of our conversation that was not handed over before.
    fn arrival(&self, event: &Json) -> Option<Seen> {
        let seen = read(event).filter(|_| event["channel"].as_str() == Some(&self.slack.settings.channel))?;
        let is_known =
            self.handed_over.lock().contains(&seen.ts) || self.waiting.iter().any(|other| other.seen.ts == seen.ts);
        (!is_known).then_some(seen)
    }

    async fn acknowledge(&mut self, envelope: &str) -> Result<(), String> {
        self.write(Frame::text(json!({ "envelope_id": envelope }).to_string())).await
    }

    async fn write(&mut self, frame: Frame) -> Result<(), String> {
        let limit = Limit::new(self.listener.clock, SETUP);
        let peer = &self.socket.peer;
        match timeout_at(limit.instant(), self.socket.frames.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            // The next connection is told instead: Slack sends again what was not acknowledged, and we know it.
            Ok(Err(_)) | Err(_) if self.next.is_some() => Ok(()),
            Ok(Err(error)) => Err(ended(peer, &error)),
            Err(_) => Err(Refusal::silence("writing to it", peer, limit.length()).detail),
        }
    }

    /// Waits for the next connection, with the present one gone.
    async fn succeed(&mut self) -> Result<(), String> {
        let Some(next) = self.next.take() else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.listener.stop.cancelled() => Ok(()),
            socket = next => {
                self.change_to(socket?);
                Ok(())
            }
        }
    }

    fn change_to(&mut self, socket: Socket) {
        self.socket = socket;
        self.heard = self.listener.clock.now().mono;
    }
}
