//! Socket Mode: connections that an app opens, and events that are pushed through them until they are acknowledged.
//! <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::workspace::State;

/// Where connections are made.
pub(super) const PATH: &str = "/link/";

/// What is known of an app's connections.
#[derive(Default)]
pub(super) struct Sockets {
    /// Those that are open, the newest last. Gone with the other end.
    open: Vec<mpsc::UnboundedSender<Order>>,
    /// How many there ever were.
    pub(super) opened: usize,
    /// Envelopes that nobody has acknowledged, in order.
    pending: Vec<Value>,
    /// Those that were.
    pub(super) acknowledged: Vec<String>,
    serial: u32,
}

/// What a connection is to do.
enum Order {
    Say(Value),
    Drop,
}

impl Sockets {
    /// An event happens: pushed to the newest connection, and kept until it is acknowledged.
    pub(super) fn event(&mut self, event: Value) {
        self.serial += 1;
        let envelope = json!({
            "envelope_id": format!("envelope-{}", self.serial),
            "type": "events_api",
            "accepts_response_payload": false,
            "retry_attempt": 0,
            "payload": { "type": "event_callback", "event_id": format!("Ev{}", self.serial), "event": event },
        });
        self.say(envelope.clone());
        self.pending.push(envelope);
    }

    /// Sends everything once more that was not acknowledged.
    pub(super) fn retry(&mut self) {
        for envelope in &mut self.pending {
            envelope["retry_attempt"] = 1.into();
            envelope["retry_reason"] = "timeout".into();
        }
        for envelope in self.pending.clone() {
            self.say(envelope);
        }
    }

    pub(super) fn say(&mut self, message: Value) {
        self.open.retain(|socket| !socket.is_closed());
        if let Some(socket) = self.open.last() {
            let _ = socket.send(Order::Say(message));
        }
    }

    /// Ends every connection without a goodbye.
    pub(super) fn drop_all(&mut self) {
        for socket in self.open.drain(..) {
            let _ = socket.send(Order::Drop);
        }
    }

    /// Ends every connection but the newest.
    pub(super) fn drop_old(&mut self) {
        let newest = self.open.pop();
        self.drop_all();
        self.open.extend(newest);
    }

    fn acknowledge(&mut self, envelope: &str) {
        self.pending.retain(|other| other["envelope_id"] != envelope);
        self.acknowledged.push(envelope.to_owned());
    }
}

/// The key of the answer that makes a WebSocket of a request, and the app whose ticket it has; `None` if it wants none.
pub(super) fn wanted(request: &hyper::Request<Incoming>) -> Option<(String, String)> {
    let key = request.headers().get("sec-websocket-key").filter(|_| request.uri().path() == PATH)?;
    let query = url::form_urlencoded::parse(request.uri().query()?.as_bytes()).into_owned();
    let (_, app) = query.into_iter().find(|(name, _)| name == "ticket")?;
    Some((derive_accept_key(key.as_bytes()), app))
}

/// Serves a connection of this app until either side ends it.
pub(super) async fn serve(upgraded: Upgraded, app: String, state: Arc<Mutex<State>>) {
    let mut frames = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    // Known before it says hello: what a test says to an app that is ready has a connection to go to.
    let (orders, mut ordered) = mpsc::unbounded_channel();
    {
        let mut state = state.lock().expect("no panic while held");
        let sockets = state.apps.entry(app.clone()).or_default();
        sockets.open.push(orders);
        sockets.opened += 1;
        sockets.retry();
    }
    let hello = json!({ "type": "hello", "num_connections": 1, "connection_info": { "app_id": "A0FAKE" } });
    if frames.send(Frame::text(hello.to_string())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            order = ordered.recv() => match order {
                Some(Order::Say(message)) => {
                    if frames.send(Frame::text(message.to_string())).await.is_err() {
                        return;
                    }
                }
                Some(Order::Drop) | None => return,
            },
            frame = frames.next() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    let said: Value = serde_json::from_str(text.as_str()).expect("an acknowledgement is JSON");
                    if let Some(envelope) = said["envelope_id"].as_str() {
                        let mut state = state.lock().expect("no panic while held");
                        state.apps.entry(app.clone()).or_default().acknowledge(envelope);
                    }
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}
