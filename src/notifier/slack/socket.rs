//! Hearing of buttons over Socket Mode: Slack pushes what was pressed through a WebSocket that we open.
//! <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use slack_morphism::{SlackApiToken, SlackApiTokenValue};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;
use tower::Service;
use url::Url;

use super::bot::within;
use super::buttons::{Door, Pressed, Taken};
use super::connector::{Connector, Stream};
use super::press;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::time::Mono;

/// From the WebSocket's first byte to Slack's hello.
const GREETING: Duration = Duration::from_secs(10);
/// We say that we are there this often, and Slack answers.
const PING: Duration = Duration::from_secs(10);
/// A connection on which nothing has come for so long is dead.
const SILENCE: Duration = Duration::from_secs(25);
/// A frame that is longer is none of Slack's.
const LARGEST: usize = 1 << 20;
/// Writing takes no longer.
const WRITING: Duration = Duration::from_secs(5);
/// The first wait before connecting anew, doubled each time that it comes to nothing; then the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

type Frames = WebSocketStream<TokioIo<Stream>>;

/// A connection of Socket Mode, kept up.
pub(super) struct Socket {
    door: Arc<Door>,
    app_token: Secret,
    inbox: mpsc::Sender<Pressed>,
    clock: Clock,
    /// Slack sends again what it thinks we missed.
    taken: Taken,
}

impl Socket {
    pub(super) fn new(door: Arc<Door>, app_token: Secret, inbox: mpsc::Sender<Pressed>, clock: Clock) -> Socket {
        Socket { door, app_token, inbox, clock, taken: Taken::default() }
    }

    /// Reads until `stop`; connects anew by itself, ever more slowly while that does not work.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let began = self.clock.now().mono;
            let session = async {
                let frames = self.open().await?;
                self.read(frames).await
            };
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ended = session => ended,
            };
            let has_lasted = self.clock.now().mono.since(began) > LONGEST_WAIT;
            if has_lasted {
                wait = FIRST_WAIT;
            }
            match ended {
                // Every hour or so Slack wants another connection, and what is pressed meanwhile is lost.
                Ok(()) if has_lasted => continue,
                Ok(()) => tracing::info!(notifier = %self.door.name, "Slack wants another connection already"),
                Err(why) => {
                    tracing::warn!(notifier = %self.door.name, why, "buttons in Slack are not heard; connecting anew");
                }
            }
            let until = self.clock.now().mono + wait.mul_f64(0.5 + fastrand::f64() / 2.0);
            wait = (wait * 2).min(LONGEST_WAIT);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    async fn open(&self) -> Result<Frames, String> {
        let token = SlackApiToken::new(SlackApiTokenValue(self.app_token.reveal().to_string()));
        let session = self.door.client.open_session(&token);
        let answer = within(session.http_session_api.http_post("apps.connections.open", &json!({}), None)).await;
        let answer = answer.map_err(|refusal| refusal.into_error().to_string())?;
        let strange = || "apps.connections.open gave no address to connect to".to_owned();
        let mut url = answer["url"].as_str().and_then(|url| Url::parse(url).ok()).ok_or_else(strange)?;
        // Its query is a ticket: it is in no word of ours.
        let request = url.as_str().into_client_request().map_err(|_| strange())?;
        let scheme = match url.scheme() {
            "wss" => "https",
            "ws" => "http",
            _ => return Err(strange()),
        };
        url = Url::parse(&url.as_str().replacen(url.scheme(), scheme, 1)).map_err(|_| strange())?;
        let uri: Uri = url.as_str().parse().map_err(|_| strange())?;
        let stream = Connector::open()?.call(uri).await.map_err(|error| format!("no connection: {error}"))?;
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let greeting = async {
            let connected = client_async_with_config(request, TokioIo::new(stream), Some(config)).await;
            let (mut frames, _) =
                connected.map_err(|error| format!("Slack does not speak WebSocket with us: {error}"))?;
            loop {
                let frame = frames.next().await.ok_or("Slack closed the connection without a hello")?;
                let event = json_of(&frame.map_err(|error| format!("the connection broke: {error}"))?);
                match event["type"].as_str() {
                    Some("hello") => return Ok(frames),
                    Some("disconnect") => return Err(told_to_go(&event)),
                    _ => {}
                }
            }
        };
        let greeted = tokio::time::timeout(GREETING, greeting).await;
        greeted.unwrap_or_else(|_| Err(format!("no hello within {} s", GREETING.as_secs())))
    }

    /// Reads until Slack wants another connection (`Ok`), or this one ends (`Err`, in words).
    async fn read(&mut self, mut frames: Frames) -> Result<(), String> {
        let mut heard: Mono = self.clock.now().mono;
        let mut ping_at = heard + PING;
        loop {
            tokio::select! {
                biased;
                frame = frames.next() => {
                    let frame = frame.ok_or("Slack closed the connection")?;
                    let event = json_of(&frame.map_err(|error| format!("the connection broke: {error}"))?);
                    heard = self.clock.now().mono;
                    match event["type"].as_str() {
                        Some("disconnect") if event["reason"] == "link_disabled" => return Err(told_to_go(&event)),
                        Some("disconnect") => return Ok(()),
                        _ => {}
                    }
                    if let Some(envelope) = event["envelope_id"].as_str()
                        && self.take(envelope, &event)
                    {
                        write(&mut frames, Frame::text(json!({ "envelope_id": envelope }).to_string())).await?;
                    }
                }
                () = self.clock.sleep_until(ping_at) => {
                    let now = self.clock.now().mono;
                    if now.since(heard) > SILENCE {
                        return Err(format!("Slack has said nothing for {} s", SILENCE.as_secs()));
                    }
                    ping_at = now + PING;
                    write(&mut frames, Frame::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// Takes an envelope on; whether it is to be acknowledged. What is not, Slack shows as failed to who pressed.
    fn take(&mut self, envelope: &str, event: &Value) -> bool {
        if event["type"] != "interactive" {
            // A channel may receive with the same app: what is for it is not ours to acknowledge, and Slack sends it again.
            return false;
        }
        let Some(press) = press::read(&event["payload"]).filter(|_| self.taken.is_new(envelope)) else { return true };
        if self.inbox.try_send((self.door.clone(), press)).is_err() {
            return false;
        }
        self.taken.note(envelope);
        true
    }
}

async fn write(frames: &mut Frames, frame: Frame) -> Result<(), String> {
    match tokio::time::timeout(WRITING, frames.send(frame)).await {
        Ok(sent) => sent.map_err(|error| format!("the connection broke: {error}")),
        Err(_) => Err("Slack does not read what we write".to_owned()),
    }
}

fn json_of(frame: &Frame) -> Value {
    match frame {
        Frame::Text(text) => serde_json::from_str(text.as_str()).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn told_to_go(event: &Value) -> String {
    match event["reason"].as_str() {
        Some("link_disabled") => "Socket Mode is off: switch it on in the app's settings".to_owned(),
        _ => "Slack asked us to connect anew before it said hello".to_owned(),
    }
}
