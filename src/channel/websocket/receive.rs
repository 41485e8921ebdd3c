//! Receiving: a connection that is held; each frame stamped before anything else happens to it.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::heartbeat::{Beat, Heartbeat, SILENCE};
use super::link::{Connected, Connector, answer_goodbye, part, say};
use super::refusal;
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::receiving::keep_receiving;
use crate::channel::refusal::Refusal;
use crate::journey::message::{Arrival, Message};
use crate::time::{Human, Now};

/// From the first packet to the frame that says that we are subscribed.
const SETUP: Duration = Duration::from_secs(10);
/// Frames that wait to be handed over; then nothing more is read, and the server is held up by TCP.
const WAITING: usize = 16;
/// Frames before the one that says that we are subscribed.
const EARLY: usize = 64;

/// Reads until told to stop; reconnects by itself.
pub(super) async fn listen(connector: &Connector, listener: Listener) {
    let open = || async {
        let limit = Limit::new(listener.clock, SETUP);
        let Connected { socket, peer, .. } = connector.connect(limit).await.map_err(|refusal| refusal.detail)?;
        Subscription::open(connector, socket, peer, &listener, limit).await
    };
    keep_receiving(&listener, open, |subscription| subscription.read(&listener)).await;
}

/// A connection that pushes come in on.
struct Subscription<S> {
    socket: WebSocketStream<S>,
    peer: String,
    /// Stamped, and not handed over yet.
    waiting: VecDeque<(Now, Message)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Subscription<S> {
    /// Says who we are and what we want, and waits to hear that we have it.
    async fn open(
        connector: &Connector,
        mut socket: WebSocketStream<S>,
        peer: String,
        listener: &Listener,
        limit: Limit,
    ) -> Result<Self, String> {
        let settings = &connector.settings;
        for texts in [&settings.hello, &settings.subscribe] {
            say(&mut socket, texts, &peer, limit).await.map_err(|refusal| refusal.detail)?;
        }
        let mut waiting = VecDeque::new();
        let Some(ready_when) = &settings.ready_when else { return Ok(Subscription { socket, peer, waiting }) };
        while waiting.len() < EARLY {
            let incoming = timeout_at(limit.instant(), socket.next()).await.map_err(|_| {
                let waited = Human(limit.length());
                format!("{peer} sent nothing that `ready_when` matches within {waited}")
            })?;
            let at = listener.clock.now();
            if let Some(message) = taken(&mut socket, incoming, &peer).await? {
                if ready_when.is_match(&message.text()) {
                    return Ok(Subscription { socket, peer, waiting });
                }
                // Of several subscriptions one may be in force, and this its first push.
                waiting.push_back((at, message));
            }
        }
        Err(format!("{peer} sent {EARLY} messages, and none that `ready_when` matches"))
    }

    /// Reads until told to stop (`Ok`), or until the server or the connection ends it (`Err`, in words).
    async fn read(mut self, listener: &Listener) -> Result<(), String> {
        let mut heartbeat = Heartbeat::new(listener.clock.now().mono);
        loop {
            let has_room = self.waiting.len() < WAITING;
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => break,
                incoming = self.socket.next(), if has_room => {
                    let at = listener.clock.now();
                    heartbeat.heard();
                    let message = taken(&mut self.socket, incoming, &self.peer).await?;
                    self.waiting.extend(message.map(|message| (at, message)));
                }
                place = listener.arrivals.reserve(), if !self.waiting.is_empty() => {
                    let (Ok(place), Some((at, message))) = (place, self.waiting.pop_front()) else { break };
                    place.send(Arrival { channel: listener.channel.clone(), at, message });
                }
                // Who does not listen cannot hear that the other side lives.
                () = listener.clock.sleep_until(heartbeat.next()), if has_room => {
                    self.beat(heartbeat.due(listener.clock.now().mono)).await?;
                }
            }
        }
        part(self.socket).await;
        Ok(())
    }

    async fn beat(&mut self, beat: Option<Beat>) -> Result<(), String> {
        let silence = |doing| Refusal::silence(doing, &self.peer, SILENCE).detail;
        match beat {
            Some(Beat::Ping) => match tokio::time::timeout(SILENCE, self.socket.send(Frame::Ping("".into()))).await {
                Ok(sent) => sent.map_err(|error| refusal::of(&error, &self.peer).detail),
                Err(_) => Err(silence("pinging it")),
            },
            Some(Beat::Dead) => Err(silence("waiting for a pong")),
            None => Ok(()),
        }
    }
}

/// What came in as a journey reads it; `None` for what only keeps the connection.
async fn taken<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    incoming: Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>,
    peer: &str,
) -> Result<Option<Message>, String> {
    let (frame, body) = match incoming {
        Some(Ok(Frame::Text(text))) => ("text", text.as_str().as_bytes().to_vec()),
        Some(Ok(Frame::Binary(bytes))) => ("binary", bytes.to_vec()),
        Some(Ok(Frame::Close(frame))) => {
            answer_goodbye(socket).await;
            return Err(refusal::closed(frame.as_ref(), peer).detail);
        }
        Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => return Ok(None),
        Some(Err(error)) => return Err(refusal::of(&error, peer).detail),
        None => return Err(Refusal::lost(peer, "it ended without a goodbye (1006)").detail),
    };
    let mut message = Message::new(body);
    message.headers = vec![("frame".to_owned(), frame.to_owned())];
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::channel::Readiness;
    use crate::clock::Clock;
    use crate::journey::token::Mint;

    fn listener(room: usize) -> (Listener, mpsc::Receiver<Arrival>) {
        let (arrivals, taken) = mpsc::channel(room);
        let listener = Listener {
            channel: "pushes".into(),
            clock: Clock::system(),
            arrivals,
            journal: Default::default(),
            since: None,
            readiness: watch::channel(Readiness::Ready).0,
            mint: Arc::new(Mint::new([1; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: CancellationToken::new(),
        };
        (listener, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_being_held_up_by_us_does_not() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut theirs = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let (listener, mut taken) = listener(1);
        let subscription = Subscription { socket, peer: "ws:80".to_owned(), waiting: VecDeque::new() };
        let story = async {
            // More than fits: nothing is read for five minutes, and nobody is given up for it.
            for n in 0..WAITING + 10 {
                theirs.send(Frame::text(n.to_string())).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(300)).await;
            for n in 0..WAITING + 10 {
                assert_eq!(taken.recv().await.unwrap().message.text(), n.to_string());
            }
        };
        let (ended, ()) = tokio::join!(subscription.read(&listener), story);
        assert_eq!(ended.unwrap_err(), "no answer from ws:80 within 10s while waiting for a pong");
        assert!((310..=330).contains(&listener.clock.now().mono.0.as_secs()), "{:?}", listener.clock.now());
    }
}
