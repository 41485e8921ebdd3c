//! One connection to a broker: made within a deadline, step by step, so that each failure has its own cause.
//!
//! We make the socket ourselves and keep a handle on it. lapin gives every connection a thread that lives until its socket
//! ends, so a broker that accepts and then says nothing would cost us a thread for every attempt; ending the socket ends it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, Event};
use tokio::time::timeout_at;

use super::AmqpSettings;
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::channel::seen;
use crate::journey::outcome::Cause;

/// Seconds without a frame after which either side takes the other for dead; lapin grants twice that.
const HEARTBEAT: u16 = 10;
/// lapin holds buffers of 32 frames per direction: 1 MiB with this, 4 MiB with the broker's default of 128 KiB.
const FRAME_MAX: u32 = 32 * 1024;
/// A goodbye may take this long; then the socket is ended without one.
const GOODBYE: Duration = Duration::from_secs(1);
/// Lanes kept open between publishes. More are opened on demand, and closed after use.
const IDLE_LANES: usize = 16;

/// A connection. Its socket ends with it.
pub(super) struct Link {
    connection: Connection,
    /// `host:port`, for messages.
    pub(super) peer: String,
    flow: Mutex<Flow>,
    /// AMQP channels in confirm mode with nothing in flight.
    lanes: Mutex<Vec<lapin::Channel>>,
    _socket: Socket,
}

/// Whether the broker takes what we publish.
struct Flow {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    reason: String,
}

/// Ends its socket when dropped, whoever else holds a handle on it.
struct Socket(TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails only if the socket has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Link {
    /// Connects, and says who we are under `name`.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, credentials, vhost, or `limit` passed: each with its own words.
    pub(super) async fn open(settings: &AmqpSettings, name: &str, limit: Limit) -> Result<Link, Refusal> {
        let uri = parse(&settings.url.reveal())?;
        let host = uri.authority.host.clone();
        let peer = format!("{host}:{}", uri.authority.port);
        let silence = |doing: &str| Refusal::silence(doing, &peer, limit.length());
        let unreachable =
            |doing: &str, error: io::Error| Refusal::new(Cause::Unreachable, format!("cannot {doing} {peer}: {error}"));

        let resolving = tokio::net::lookup_host((host.as_str(), uri.authority.port));
        let addresses: Vec<_> = timeout_at(limit.instant(), resolving)
            .await
            .map_err(|_| silence("resolving its name"))?
            .map_err(|error| unreachable("resolve", error))?
            .collect();
        seen::note_addresses(&host, addresses.iter().map(std::net::SocketAddr::ip));

        let runtime = lapin::runtime::default_runtime().map_err(|error| Refusal::of(&error, &peer))?;
        let mut outcome = Err(unreachable("resolve", io::Error::other("the name has no address")));
        for (index, address) in addresses.iter().enumerate() {
            // A share each: one address that swallows packets must not use up the time of those that answer.
            let share = limit.share(addresses.len() - index);
            outcome = match timeout_at(share, AsyncTcpStream::connect(&runtime, *address)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(unreachable("connect to", error)),
                Err(_) => Err(silence("connecting")),
            };
            if outcome.is_ok() {
                break;
            }
        }
        let mut stream = outcome?;
        let socket = match &stream {
            AsyncTcpStream::Plain(plain) => {
                seen::note_peer(plain.get_ref().peer_addr());
                hold(plain.get_ref()).map_err(|error| unreachable("connect to", error))?
            }
            _ => return Err(unreachable("connect to", io::Error::other("not a plain socket"))),
        };

        if uri.scheme == AMQPScheme::AMQPS {
            let config = crate::channel::seen::tls_client(settings.ca_file.as_deref());
            let connector = RustlsConnector::from(config.map_err(|why| Refusal::new(Cause::Tls, why))?);
            stream = timeout_at(limit.instant(), stream.into_rustls(&connector, &host))
                .await
                .map_err(|_| silence("agreeing on TLS"))?
                .map_err(|error| no_tls(&error, &peer))?;
        }

        let stream = Mutex::new(Some(stream));
        let connect = async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            // lapin asks once; a second time would be a reconnect, and those are ours.
            stream.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
        };
        let connecting = Connection::connector(uri, runtime, connect, properties(name));
        let connection = timeout_at(limit.instant(), connecting)
            .await
            .map_err(|_| silence("greeting it in AMQP"))?
            .map_err(|error| Refusal::of(&error, &peer))?;
        let flow = Flow { events: Box::pin(connection.events_listener()), reason: String::new() };
        Ok(Link { connection, peer, flow: Mutex::new(flow), lanes: Mutex::default(), _socket: socket })
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// Why the broker takes nothing from this connection, if so. It blocks connections that publish while it is short of
    /// memory or disk: <https://www.rabbitmq.com/docs/connection-blocked>.
    pub(super) fn blocked(&self) -> Option<String> {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Some(event)) = flow.events.next().now_or_never() {
            if let Event::ConnectionBlocked(reason) = event {
                flow.reason = reason;
            }
        }
        self.connection.status().blocked().then(|| flow.reason.clone())
    }

    /// A new AMQP channel.
    pub(super) async fn channel(&self) -> Result<lapin::Channel, Refusal> {
        self.connection.create_channel().await.map_err(|error| Refusal::of(&error, &self.peer))
    }

    /// An AMQP channel in confirm mode, with nothing in flight. One publish at a time on each: then a returned message and
    /// a closed channel can only be about that publish. lapin attributes returns by order alone, and a broker that closes
    /// a channel takes every other unconfirmed publish on it along.
    pub(super) async fn lane(&self) -> Result<lapin::Channel, Refusal> {
        while let Some(lane) = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            if lane.status().connected() {
                return Ok(lane);
            }
        }
        let lane = self.channel().await?;
        lane.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| Refusal::of(&error, &self.peer))?;
        Ok(lane)
    }

    /// Takes a lane back whose publish was answered.
    pub(super) fn give_back(&self, lane: lapin::Channel) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() < IDLE_LANES {
            lanes.push(lane);
        }
    }

    /// Says goodbye, so that the broker's log shows no client that vanished.
    pub(super) async fn close(self) {
        let goodbye = self.connection.close(200, "OK".into());
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

fn no_tls(error: &io::Error, peer: &str) -> Refusal {
    let detail = match crate::tls::error_in(error) {
        Some(tls) => crate::tls::words(tls, peer),
        None => format!("{peer} ended the TLS handshake: {error}"),
    };
    Refusal::new(Cause::Tls, detail)
}

/// The parts of an AMQP URL. Nothing of it is repeated in an error: it holds the password.
pub(super) fn parse(url: &str) -> Result<AMQPUri, Refusal> {
    let wrong = || {
        Refusal::new(
            Cause::Unreachable,
            "the channel's `url` is not an AMQP URL; write amqp://user:password@host:port/vhost, with amqps:// for TLS, \
             and special characters percent-encoded (the vhost `/` is %2f)",
        )
    };
    let mut uri: AMQPUri = url.parse().map_err(|_| wrong())?;
    match url::Url::parse(url).map_err(|_| wrong())?.host() {
        Some(url::Host::Domain(_)) => {}
        // The URI parser takes only names for hosts, and falls back to localhost in silence.
        Some(url::Host::Ipv6(address)) => uri.authority.host = address.to_string(),
        Some(url::Host::Ipv4(address)) => uri.authority.host = address.to_string(),
        None => return Err(wrong()),
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    Ok(uri)
}

/// A second handle on a socket, to end it by.
fn hold(stream: &tokio::net::TcpStream) -> io::Result<Socket> {
    // Otherwise a message waits for the acknowledgement of the one before it, and we would measure our own Nagle.
    stream.set_nodelay(true)?;
    Ok(Socket(TcpStream::from(stream.as_fd().try_clone_to_owned()?)))
}

fn properties(name: &str) -> ConnectionProperties {
    ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "Journeyman".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_given_our_heartbeat() {
        let uri = parse("amqp://probe:p%40ss@mq.example.net/%2forders").unwrap();
        assert_eq!(uri.authority.host, "mq.example.net");
        assert_eq!((uri.authority.port, uri.vhost.as_str()), (5672, "/orders"));
        assert_eq!(uri.authority.userinfo.password, "p@ss");
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT));
        assert_eq!(parse("amqp://mq/?heartbeat=30").unwrap().query.heartbeat, Some(30));
        assert_eq!(parse("amqp://127.0.0.1:1/").unwrap().authority.host, "127.0.0.1");
        assert_eq!(parse("amqps://[2001:db8::1]/").unwrap().authority.host, "2001:db8::1");
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in ["amqp:guest:s3cr3t", "http://guest:s3cr3t@mq/", "s3cr3t", "amqp:///vhost"] {
            let refusal = parse(url).unwrap_err();
            assert!(refusal.detail.contains("not an AMQP URL") && !refusal.detail.contains("s3cr3t"), "{refusal:?}");
        }
    }
}
