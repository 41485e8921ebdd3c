//! One connection: dialled, upgraded, and greeted.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{
    CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SERVER, UPGRADE,
    USER_AGENT,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::{Host, Url};

use super::WebSocketSettings;
use super::refusal;
use super::whole::Whole;
use crate::channel::dial::{Dialed, Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::seen::What;
use crate::secret::HeaderText;

/// A larger message ends the connection: it would be held in memory as often as messages wait.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes read and written at once. The library's 128 KiB are for throughput, and each connection would hold them.
const BUFFER: usize = 16 << 10;
/// The other side may take this long to answer our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Makes connections.
pub(super) struct Connector {
    pub(super) settings: WebSocketSettings,
    /// `None` if the URL was without TLS when the channel was opened.
    tls: Option<Arc<ClientConfig>>,
}

/// A connection on which the handshake is done, and nothing said.
pub(super) struct Connected {
    pub(super) socket: WebSocketStream<Whole<Stream>>,
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// What took how long: `dns`, `connect`, `tls`, `upgrade`.
    pub(super) phases: Vec<Phase>,
}

impl Connector {
    /// Reads the certificates; connects nothing.
    pub(super) fn new(settings: WebSocketSettings) -> Result<Connector, String> {
        let is_tls = parse(&settings).is_ok_and(|url| url.scheme() == "wss");
        let tls =
            is_tls.then(|| crate::channel::seen::tls_client(settings.ca_file.as_deref())).transpose()?.map(Arc::new);
        Ok(Connector { settings, tls })
    }

    /// Dials and makes the handshake.
    ///
    /// # Errors
    /// The way there, TLS, or what the server answers: each with its own words. No message was sent.
    pub(super) async fn connect(&self, limit: Limit) -> Result<Connected, Refusal> {
        let url = parse(&self.settings)?;
        let tls = match (url.scheme(), &self.tls) {
            ("wss", None) => {
                let detail = "the URL speaks TLS now, and did not when Journeyman was started: start it again";
                return Err(Refusal::new(Cause::Tls, detail));
            }
            ("wss", tls) => tls.clone(),
            _ => None,
        };
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(Refusal::new(Cause::Refused, "the URL has no host")),
        };
        let request = self.request(&url)?;
        let dialer = Dialer { host, port: url.port_or_known_default().unwrap_or(80), tls };
        let Dialed { stream, peer, mut phases } = dialer.connect(limit).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let left = limit.left();
        let upgrading = client_async_with_config(request, Whole::new(stream), Some(config));
        let (socket, response) = timeout_at(limit.instant(), upgrading)
            .await
            .map_err(|_| Refusal::silence("making the handshake", &peer, limit.length()).before_sending())?
            .map_err(|error| refusal::of_handshake(&error, &peer))?;
        note(What::Server, response.headers().get(SERVER).and_then(|value| value.to_str().ok()).unwrap_or_default());
        phases.push(Phase { name: "upgrade".to_owned(), took: left.saturating_sub(limit.left()) });
        Ok(Connected { socket, peer, phases })
    }

    fn request(&self, url: &Url) -> Result<Request, Refusal> {
        let unfit = |what: &str| Refusal::new(Cause::Refused, format!("{what} cannot be sent in a handshake"));
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let mut request = Request::get(&url[..url::Position::AfterQuery]).body(()).map_err(|_| unfit("the URL"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| unfit("the host"))?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("journeyman/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&generate_key()).map_err(|_| unfit("the key"))?);
        if let Some(name) = &self.settings.subprotocol {
            let name = HeaderValue::from_str(name).map_err(|_| unfit("the subprotocol"))?;
            headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
        }
        for (name, value) in &self.settings.headers {
            let mut value = HeaderValue::from_str(&value.reveal()).map_err(|_| unfit(&format!("header `{name}`")))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).map_err(|_| unfit(&format!("header `{name}`")))?, value);
        }
        Ok(request)
    }
}

/// The URL as it is now: one from a file is read again.
fn parse(settings: &WebSocketSettings) -> Result<Url, Refusal> {
    let url = Url::parse(&settings.url.reveal()).ok().filter(|url| matches!(url.scheme(), "ws" | "wss"));
    url.ok_or_else(|| Refusal::new(Cause::Refused, "`url` is not the URL of a WebSocket any more"))
}

/// Says these texts, each in a frame.
pub(super) async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    texts: &[HeaderText],
    peer: &str,
    limit: Limit,
) -> Result<(), Refusal> {
    for text in texts {
        let saying = socket.send(Message::text(text.reveal().as_str()));
        timeout_at(limit.instant(), saying)
            .await
            .map_err(|_| Refusal::silence("greeting it", peer, limit.length()).before_sending())?
            .map_err(|error| refusal::of(&error, peer).before_sending())?;
    }
    Ok(())
}

/// Answers the other side's goodbye: the answer is ready, and has not left yet.
pub(super) async fn answer_goodbye<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    // Whether it gets there or not, the connection has ended.
    let _ = tokio::time::timeout(GOODBYE, socket.flush()).await;
}

/// Says goodbye, and waits a moment for the other side's.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    let goodbye = async {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // It is over either way.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}
