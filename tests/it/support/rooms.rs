//! A WebSocket server with rooms: what one connection says at a path, those that subscribed at that path hear. It greets,
//! refuses, stalls and closes as a test wants, and remembers what it was asked and told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::{free_port, wait_for};

/// The only credentials that it takes, where credentials are shown at all.
pub(crate) const CREDENTIALS: &str = "Bearer let-me-in";
/// What asks for the pushes of a room, and what says that they come.
pub(crate) const SUBSCRIBE: &str = r#"{"op":"subscribe"}"#;
const SUBSCRIBED: &str = r#"{"status":"subscribed"}"#;

/// How it treats connections that come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// What it answers to the handshake instead of `101`; an empty text is silence.
    pub(crate) answer: Option<String>,
    /// What it says first.
    pub(crate) greeting: Vec<Message>,
    /// With which code it closes after that.
    pub(crate) close: Option<u16>,
    /// It reads nothing after the handshake.
    pub(crate) stalls: bool,
}

/// What it does to all connections that there are.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Says this.
    Say(Message),
    /// Says goodbye with this code and reason.
    Close(u16, &'static str),
    /// Writes these bytes, whatever they mean.
    Write(Vec<u8>),
}

/// A handshake that came.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

struct State {
    manners: Mutex<Manners>,
    calls: Mutex<Vec<Call>>,
    heard: Mutex<Vec<Message>>,
    goodbyes: Mutex<Vec<Option<u16>>>,
    rooms: Mutex<BTreeMap<String, broadcast::Sender<(usize, Message)>>>,
    orders: broadcast::Sender<Order>,
    /// Whether those who subscribe are told so.
    tells: watch::Sender<bool>,
}

/// The server. Ends with its owner.
pub(crate) struct Rooms {
    address: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rooms {
    /// On a free port of the loopback.
    pub(crate) async fn start() -> Rooms {
        let state = State {
            manners: Mutex::default(),
            calls: Mutex::default(),
            heard: Mutex::default(),
            goodbyes: Mutex::default(),
            rooms: Mutex::default(),
            orders: broadcast::channel(1_024).0,
            tells: watch::channel(true).0,
        };
        let mut rooms =
            Rooms { address: ([127, 0, 0, 1], free_port()).into(), state: Arc::new(state), tasks: JoinSet::new() };
        rooms.open().await;
        rooms
    }

    /// Listens, at the address that it had before.
    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the address is free");
        self.address = listener.local_addr().expect("it is bound");
        self.tasks.spawn(accept(listener, self.state.clone()));
    }

    /// Ends at once, with every connection, as a process that is killed.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a room.
    pub(crate) fn url(&self, room: &str) -> String {
        format!("ws://{}/{room}", self.address)
    }

    /// Connections that come from now on are treated like this.
    pub(crate) fn set(&self, manners: Manners) {
        *lock(&self.state.manners) = manners;
    }

    /// Whether those who subscribe are told so from now on; those who wait are told at once.
    pub(crate) fn tell_subscribed(&self, tells: bool) {
        self.state.tells.send_replace(tells);
    }

    /// Does this to every connection that there is.
    pub(crate) fn order(&self, order: Order) {
        self.state.orders.send(order).expect("somebody is connected");
    }

    /// The handshakes so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.state.calls).clone()
    }

    /// What was said to it so far, subscriptions left out.
    pub(crate) fn heard(&self) -> Vec<Message> {
        lock(&self.state.heard).clone()
    }

    /// The codes of the goodbyes that clients began.
    pub(crate) fn goodbyes(&self) -> Vec<Option<u16>> {
        lock(&self.state.goodbyes).clone()
    }

    /// Waits until this many connections are beyond their handshake and not at an end.
    pub(crate) async fn until_connected(&self, count: usize) {
        wait_for(&format!("{count} connections"), Duration::from_secs(20), async || {
            (self.state.orders.receiver_count() == count).then_some(())
        })
        .await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut id = 0;
    while let Ok((stream, _)) = listener.accept().await {
        id += 1;
        connections.spawn(serve(stream, state.clone(), id));
    }
}

/// The handshake, by hand: it may be refused in any words, and come in the smallest pieces.
async fn shake(stream: &mut TcpStream, state: &State, manners: &Manners) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let call = Call { path: path.clone(), headers: headers.collect() };
    lock(&state.calls).push(call.clone());
    let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n".to_owned();
    let is_stranger = call.header("authorization").is_some_and(|shown| shown != CREDENTIALS);
    match manners.answer.clone().or(is_stranger.then_some(refused)) {
        Some(answer) if answer.is_empty() => std::future::pending().await,
        Some(answer) => {
            stream.write_all(answer.as_bytes()).await.ok()?;
            None
        }
        None => {
            let accept = derive_accept_key(call.header("sec-websocket-key")?.as_bytes());
            let protocol = call.header("sec-websocket-protocol");
            let protocol = protocol.map(|name| format!("sec-websocket-protocol: {name}\r\n")).unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n{protocol}\r\n"
            );
            stream.write_all(answer.as_bytes()).await.ok()?;
            Some(path)
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>, id: usize) {
    let manners = lock(&state.manners).clone();
    let Some(room) = shake(&mut stream, &state, &manners).await else { return };
    let room = lock(&state.rooms).entry(room).or_insert_with(|| broadcast::channel(1_024).0).clone();
    let (mut orders, mut tells) = (state.orders.subscribe(), state.tells.subscribe());
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    for message in manners.greeting {
        if socket.send(message).await.is_err() {
            return;
        }
    }
    if let Some(code) = manners.close {
        let _ = socket.close(Some(CloseFrame { code: code.into(), reason: "as told".into() })).await;
    }
    if manners.stalls {
        return std::future::pending().await;
    }
    let mut pushes: Option<broadcast::Receiver<(usize, Message)>> = None;
    let mut is_told = true;
    loop {
        let sent = tokio::select! {
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) if text.as_str() == SUBSCRIBE => {
                    pushes = Some(room.subscribe());
                    is_told = false;
                    Ok(())
                }
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    lock(&state.heard).push(message.clone());
                    // Nobody may be there to hear it.
                    let _ = room.send((id, message));
                    Ok(())
                }
                Some(Ok(Message::Close(frame))) => {
                    lock(&state.goodbyes).push(frame.map(|frame| frame.code.into()));
                    Ok(())
                }
                Some(Ok(_)) => Ok(()),
                _ => return,
            },
            () = async { drop(tells.wait_for(|tells| *tells).await) }, if !is_told => {
                is_told = true;
                socket.send(Message::text(SUBSCRIBED)).await
            }
            Ok((from, message)) = async { pushes.as_mut().expect("it is there").recv().await }, if pushes.is_some() => {
                if from == id { Ok(()) } else { socket.send(message).await }
            }
            Ok(order) = orders.recv() => match order {
                Order::Say(message) => socket.send(message).await,
                Order::Close(code, reason) => {
                    socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await
                }
                Order::Write(bytes) => socket.get_mut().write_all(&bytes).await.map_err(Into::into),
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
