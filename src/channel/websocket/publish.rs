//! Sending: one frame at a time over one connection, which a task of its own writes to, reads from and keeps alive.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::Frames;
use super::heartbeat::{Beat, Heartbeat, SILENCE};
use super::link::{Connected, Connector, answer_goodbye, part, say};
use super::refusal;
use crate::channel::dial::Limit;
use crate::channel::held::Held;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::time::{Human, Now};

/// Frames that wait for the one that is being written; more wait with their senders.
const WAITING: usize = 16;

/// Sends over one connection, made when first needed and made anew when it has ended.
pub(super) struct Publisher {
    connector: Arc<Connector>,
    clock: Clock,
    line: Held<Line>,
}

/// A connection with the task that has it.
struct Line {
    orders: mpsc::Sender<Order>,
    peer: String,
    phases: Vec<Phase>,
    /// Why the task has ended, if it has.
    ended: Arc<OnceLock<Refusal>>,
    /// Ends with the line.
    _task: JoinSet<()>,
}

/// A frame to be written.
struct Order {
    frame: Message,
    /// Told just before its first byte leaves. A sender that has given up cannot be told, and its frame stays here.
    started: oneshot::Sender<Now>,
    /// Told when its last byte is on the socket.
    written: oneshot::Sender<Now>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub(super) fn new(connector: Arc<Connector>, clock: Clock) -> Publisher {
        Publisher { connector, clock, line: Held::default() }
    }

    /// Writes the message, within its timeout. Nothing is written twice: another connection is tried only for a frame of which
    /// no byte has left.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let unsent = |refusal: Refusal, phases| refusal.before_sending().into_fault(asked, self.clock.now(), phases);
        let frame = self.frame(outgoing).map_err(|refusal| unsent(refusal, Vec::new()))?;
        loop {
            let (line, is_new) = self
                .line
                .get(limit, outgoing.connected_since, || self.open(limit))
                .await
                .map_err(|refusal| unsent(refusal, Vec::new()))?;
            let ((started, mut was_started), (written, was_written)) = (oneshot::channel(), oneshot::channel());
            let order = Order { frame: frame.clone(), started, written };
            let writing = async {
                line.orders.send(order).await.ok()?;
                was_written.await.ok()
            };
            let written = timeout_at(limit.instant(), writing).await;
            was_started.close();
            let mut phases = if is_new { line.phases.clone() } else { Vec::new() };
            // The task tells that it begins before it does, and from here on it cannot.
            let Ok(started) = was_started.try_recv() else {
                self.line.forget(&line);
                let ended = line.ended.get().cloned();
                let refusal = match written {
                    Err(_) => Refusal::silence("waiting to send", &line.peer, limit.length()),
                    Ok(_) if is_new || limit.left().is_zero() => {
                        ended.unwrap_or_else(|| Refusal::lost(&line.peer, "it ended at once"))
                    }
                    Ok(_) => continue,
                };
                return Err(unsent(refusal, phases));
            };
            let finished = written.as_ref().ok().copied().flatten().unwrap_or_else(|| self.clock.now());
            phases.push(Phase { name: "write".to_owned(), took: finished.mono.since(started.mono) });
            let refusal = match written {
                Ok(Some(_)) => {
                    return Ok(Reply { started, finished, ack: "socket".to_owned(), message: None, phases });
                }
                Ok(None) => {
                    line.ended.get().cloned().unwrap_or_else(|| Refusal::lost(&line.peer, "it ended while we wrote"))
                }
                Err(_) => {
                    let waited = Human(finished.mono.since(started.mono));
                    let detail = format!("{} took only a part of the message within {waited}", line.peer);
                    Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
                }
            };
            self.line.forget(&line);
            return Err(Refusal { is_verdict: false, ..refusal }.into_fault(started, finished, phases));
        }
    }

    fn frame(&self, outgoing: &Outgoing) -> Result<Message, Refusal> {
        match self.connector.settings.frames {
            Frames::Binary => Ok(Message::binary(outgoing.body.clone())),
            Frames::Text => match String::from_utf8(outgoing.body.clone()) {
                Ok(text) => Ok(Message::text(text)),
                Err(_) => {
                    let detail = "the payload is not UTF-8, as a text frame has to be; set `frames = \"binary\"`";
                    Err(Refusal::new(Cause::Refused, detail))
                }
            },
        }
    }

    async fn open(&self, limit: Limit) -> Result<Line, Refusal> {
        let Connected { mut socket, peer, phases } = self.connector.connect(limit).await?;
        say(&mut socket, &self.connector.settings.hello, &peer, limit).await?;
        let (orders, mut taken) = mpsc::channel(WAITING);
        let ended = Arc::new(OnceLock::new());
        let mut task = JoinSet::new();
        let (clock, why, name) = (self.clock, ended.clone(), peer.clone());
        task.spawn(async move {
            let refusal = carry(socket, &name, clock, &mut taken).await;
            tracing::debug!(why = refusal.detail, "a WebSocket that sends has ended");
            // Before the orders go: whoever waits there asks why.
            let _ = why.set(refusal);
            drop(taken);
        });
        Ok(Line { orders, peer, phases, ended, _task: task })
    }

    /// Makes the handshake on a connection of its own, and says goodbye.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let connected = self.connector.connect(Limit::new(self.clock, within)).await;
        let Connected { socket, peer, .. } =
            connected.map_err(|refusal| refusal.before_sending().into_fault(asked, self.clock.now(), Vec::new()))?;
        part(socket).await;
        Ok(format!("{peer} speaks WebSocket and lets us in"))
    }
}

/// Writes what is ordered and keeps the connection alive, until it ends; gives why. What comes in is not for anyone: the pushes
/// that count are those on the connection that receives.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    peer: &str,
    clock: Clock,
    orders: &mut mpsc::Receiver<Order>,
) -> Refusal {
    let mut heartbeat = Heartbeat::new(clock.now().mono);
    loop {
        tokio::select! {
            // What has come in first: it may be a goodbye, and then nothing more is written.
            biased;
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Close(frame))) => {
                    answer_goodbye(&mut socket).await;
                    return refusal::closed(frame.as_ref(), peer);
                }
                Some(Ok(_)) => heartbeat.heard(),
                Some(Err(error)) => return refusal::of(&error, peer),
                None => return Refusal::lost(peer, "it ended without a goodbye (1006)"),
            },
            order = orders.recv() => {
                let Some(Order { frame, started, mut written }) = order else {
                    return Refusal::lost(peer, "we closed it");
                };
                if started.send(clock.now()).is_err() {
                    continue;
                }
                tokio::select! {
                    biased;
                    sent = socket.send(frame) => match sent {
                        // Fails only if nobody wants to know any more.
                        Ok(()) => drop(written.send(clock.now())),
                        Err(error) => return refusal::of(&error, peer),
                    },
                    // A part of a frame is on the socket, so nothing else can follow.
                    () = written.closed() => return Refusal::lost(peer, "a message was given up half-way"),
                }
            }
            () = clock.sleep_until(heartbeat.next()) => match heartbeat.due(clock.now().mono) {
                Some(Beat::Ping) => {
                    let pinging = tokio::time::timeout(SILENCE, socket.send(Message::Ping("".into()))).await;
                    match pinging {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return refusal::of(&error, peer),
                        Err(_) => return Refusal::silence("pinging it", peer, SILENCE),
                    }
                }
                Some(Beat::Dead) => return Refusal::silence("waiting for a pong", peer, SILENCE),
                None => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

    use super::*;

    async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (near, far) = tokio::io::duplex(4_096);
        let ours = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        (ours, WebSocketStream::from_raw_socket(far, Role::Server, None).await)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_silent_is_given_up_after_a_ping_and_ten_seconds() {
        let (ours, mut theirs) = pair().await;
        let clock = Clock::system();
        let (_orders, mut taken) = mpsc::channel(1);
        let refusal = carry(ours, "ws:80", clock, &mut taken).await;
        assert_eq!(refusal.detail, "no answer from ws:80 within 10s while waiting for a pong");
        assert_eq!(clock.now().mono.0.as_secs(), 30);
        assert!(matches!(theirs.next().await, Some(Ok(Message::Ping(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_is_kept_and_its_pings_are_answered() {
        let (ours, mut theirs) = pair().await;
        let clock = Clock::system();
        let (_orders, mut taken) = mpsc::channel(1);
        let peer = async {
            let (mut pings, mut pongs) = (0, 0);
            theirs.send(Message::Ping("?".into())).await.unwrap();
            // Reading answers what comes.
            while pings < 15 {
                match theirs.next().await {
                    Some(Ok(Message::Ping(_))) => pings += 1,
                    Some(Ok(Message::Pong(said))) if said == "?" => pongs += 1,
                    other => panic!("{other:?}"),
                }
            }
            theirs.close(None).await.unwrap();
            pongs
        };
        let (refusal, pongs) = tokio::join!(carry(ours, "ws:80", clock, &mut taken), peer);
        assert_eq!(refusal.detail, "ws:80 closed the connection: it gave no code (1005)");
        assert_eq!((clock.now().mono.0.as_secs(), pongs), (300, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_cannot_hold_up_a_ping_for_ever() {
        let (mut ours, _theirs) = pair().await;
        // As much as fits in between.
        let full = tokio::time::timeout(Duration::from_millis(1), ours.send(Message::binary(vec![0; 8_192]))).await;
        assert!(full.is_err());
        let clock = Clock::system();
        let (_orders, mut taken) = mpsc::channel(1);
        let refusal = carry(ours, "ws:80", clock, &mut taken).await;
        assert_eq!(refusal.detail, "no answer from ws:80 within 10s while pinging it");
    }

    /// A server that lets everybody in and throws strangers out in a message says why, and has not read anything.
    #[tokio::test(start_paused = true)]
    async fn a_goodbye_that_is_there_comes_before_what_is_to_be_written() {
        let (ours, mut theirs) = pair().await;
        let (orders, mut taken) = mpsc::channel(1);
        let ((started, was_started), (written, _was_written)) = (oneshot::channel(), oneshot::channel());
        orders.send(Order { frame: Message::text("x"), started, written }).await.unwrap();
        let goodbye = CloseFrame { code: 4_401.into(), reason: "who are you?".into() };
        theirs.close(Some(goodbye)).await.unwrap();
        let refusal = carry(ours, "ws:80", Clock::system(), &mut taken).await;
        assert_eq!(refusal.detail, "ws:80 closed the connection: for a reason of its own (4401): who are you?");
        assert!(matches!(theirs.next().await, Some(Ok(Message::Close(Some(_))))), "the goodbye is answered");
        drop(taken);
        assert!(was_started.await.is_err(), "nothing was begun");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_nobody_waits_for_any_more_is_not_written() {
        let (ours, mut theirs) = pair().await;
        let (orders, mut taken) = mpsc::channel(2);
        let order = |text: &str| {
            let ((started, was_started), (written, was_written)) = (oneshot::channel(), oneshot::channel());
            (Order { frame: Message::text(text), started, written }, was_started, was_written)
        };
        let (first, given_up, _) = order("given up");
        drop(given_up);
        let (second, _was_started, was_written) = order("wanted");
        orders.send(first).await.unwrap();
        orders.send(second).await.unwrap();
        let told = async {
            was_written.await.unwrap();
            drop(orders);
            theirs.next().await.unwrap().unwrap()
        };
        let (_, told) = tokio::join!(carry(ours, "ws:80", Clock::system(), &mut taken), told);
        assert_eq!(told, Message::text("wanted"));
    }
}
