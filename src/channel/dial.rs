//! A TCP connection, with or without TLS, made step by step within a limit, so that each failure has its own cause and each
//! step its own time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::channel::refusal::Refusal;
use crate::channel::seen;
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::time::Mono;

/// By when something must be done, and on which clock.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    clock: Clock,
    began: Mono,
    until: Mono,
}

impl Limit {
    /// From now on, this long.
    pub(crate) fn new(clock: Clock, within: Duration) -> Limit {
        let began = clock.now().mono;
        Limit { clock, began, until: began + within }
    }

    /// The time, on the same clock.
    pub(crate) fn now(&self) -> Mono {
        self.clock.now().mono
    }

    /// The moment itself, for timers.
    pub(crate) fn instant(&self) -> Instant {
        self.clock.instant(self.until)
    }

    /// How long it is altogether.
    pub(crate) fn length(&self) -> Duration {
        self.until.since(self.began)
    }

    /// How much of it is left.
    pub(crate) fn left(&self) -> Duration {
        self.until.since(self.now())
    }

    /// An equal share of what is left, for one of `attempts`.
    pub(crate) fn share(&self, attempts: usize) -> Instant {
        let now = self.now();
        let share = self.until.since(now) / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX);
        self.clock.instant(now + share)
    }
}

/// Where to connect, and how.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// A name or an address.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The client's side of TLS that begins at once; `None` speaks plain TCP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection that stands.
pub(crate) struct Dialed {
    /// The connection.
    pub(crate) stream: Stream,
    /// `host:port`, for messages.
    pub(crate) peer: String,
    /// What took how long: `dns`, `connect`, `tls`.
    pub(crate) phases: Vec<Phase>,
}

impl Dialer {
    /// `host:port`, for messages; an IPv6 address in brackets.
    pub(crate) fn peer(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Resolves, connects, and agrees on TLS if it is to.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, no TLS, or `limit` passed: each with its own words. Nothing was sent.
    pub(crate) async fn connect(&self, limit: Limit) -> Result<Dialed, Refusal> {
        let peer = self.peer();
        let mut laps = Laps { clock: limit.clock, last: limit.clock.now().mono, phases: Vec::new() };
        let tcp = self.connect_tcp(&peer, limit, &mut laps).await?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let tls = agree_on_tls(tcp, &self.host, &peer, config.clone(), limit).await?;
                laps.end("tls");
                Stream::Tls(Box::new(tls))
            }
        };
        Ok(Dialed { stream, peer, phases: laps.phases })
    }

    async fn connect_tcp(&self, peer: &str, limit: Limit, laps: &mut Laps) -> Result<TcpStream, Refusal> {
        let silence = |doing: &str| Refusal::silence(doing, peer, limit.length()).before_sending();
        let unreachable =
            |doing: &str, error: io::Error| Refusal::new(Cause::Unreachable, format!("cannot {doing} {peer}: {error}"));
        let resolving = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<_> = timeout_at(limit.instant(), resolving)
            .await
            .map_err(|_| silence("resolving its name"))?
            .map_err(|error| unreachable("resolve", error))?
            .collect();
        seen::note_addresses(&self.host, addresses.iter().map(std::net::SocketAddr::ip));
        laps.end("dns");
        let mut outcome = Err(unreachable("resolve", io::Error::other("the name has no address")));
        for (index, address) in addresses.iter().enumerate() {
            // A share each: one address that swallows packets must not use up the time of those that answer.
            let share = limit.share(addresses.len() - index);
            outcome = match timeout_at(share, TcpStream::connect(*address)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(unreachable("connect to", error)),
                Err(_) => Err(silence("connecting")),
            };
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome?;
        seen::note_peer(stream.peer_addr());
        // Otherwise a message waits for the acknowledgement of the one before it, and we would measure our own Nagle.
        stream.set_nodelay(true).map_err(|error| unreachable("connect to", error))?;
        laps.end("connect");
        Ok(stream)
    }
}

/// Agrees on TLS over a connection that stands: at once, or after a STARTTLS.
///
/// # Errors
/// A handshake that fails, or `limit` passed.
pub(crate) async fn agree_on_tls<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    peer: &str,
    config: Arc<ClientConfig>,
    limit: Limit,
) -> Result<TlsStream<S>, Refusal> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Refusal::new(Cause::Tls, format!("`{host}` is no name that a certificate can be for")))?;
    let handshake = TlsConnector::from(config).connect(name, stream);
    match timeout_at(limit.instant(), handshake).await {
        Ok(Ok(stream)) => {
            seen::note_tls(stream.get_ref().1);
            Ok(stream)
        }
        Ok(Err(error)) => Err(match crate::tls::error_in(&error) {
            Some(tls) => Refusal::new(Cause::Tls, crate::tls::words(tls, peer)),
            None => Refusal::new(Cause::Tls, format!("{peer} ended the TLS handshake: {error}")),
        }),
        Err(_) => Err(Refusal::silence("agreeing on TLS", peer, limit.length()).before_sending()),
    }
}

/// What took how long.
struct Laps {
    clock: Clock,
    last: Mono,
    phases: Vec<Phase>,
}

impl Laps {
    fn end(&mut self, name: &str) {
        let now = self.clock.now().mono;
        self.phases.push(Phase { name: name.to_owned(), took: now.since(self.last) });
        self.last = now;
    }
}

/// A connection, with or without TLS.
pub(crate) enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The certificate that the other side showed, in DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stream::Plain(_) => "Plain(..)",
            Stream::Tls(_) => "Tls(..)",
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
