//! What stands before a listener: how many may come in, how long they may take, over TLS or not, and with which password.
//!
//! Whoever keeps us waiting the longest loses his place first, so that callers who dribble cost only each other.

mod body;
mod bucket;
mod local;
mod pace;
mod places;
mod rules;
mod stamp;
mod users;
mod web;

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::gate::body::Turned;
use crate::gate::pace::Paced;
use crate::gate::places::{Places, Seat, Turn};

pub use local::{Local, reach, why_silent};
pub use rules::Rules;
pub use web::Web;

/// A request's head is no longer than this, in bytes: room for every header that gateways and proxies add.
const HEAD: usize = 32 << 10;
/// A caller who has not taken a byte of our answer for so long has gone, or wants us to hold it for ever.
const UNREAD: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// What callers may take of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TLS must be agreed on within this, and a request's head be here; an idle connection is closed after it.
    pub head: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address; IPv6 networks of 64 bits count as one.
    pub per_address: usize,
    /// A body that says it is longer than this, in bytes, is refused unread; `None` leaves that to what is inside.
    pub declared: Option<u64>,
    /// Answers under way get this long when we stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head: Duration::from_secs(5),
            connections: 512,
            per_address: 64,
            declared: Some(1 << 20),
            drain: Duration::from_secs(5),
        }
    }
}

/// What is behind a gate.
pub trait Inside: Send + Sync + 'static {
    /// Answers a request that was let in.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// Whether a call proves by itself who makes it, so that it needs no password of `basic_auth_users`.
    fn knows(&self, _head: &Parts) -> bool {
        false
    }
}

/// The door of one listener: its `web_config`, and the count of those who were turned away.
#[derive(Clone, Default)]
pub struct Door {
    /// TLS, passwords and headers; `None` is plain HTTP for everybody.
    pub web: Option<Arc<Web>>,
    /// Who was turned away.
    pub tally: Arc<Tally>,
}

/// Connections that were turned away or cut, by why.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; TurnedAway::ALL.len()]);

/// Why a connection was turned away or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// There are as many as may be, of its address or of all, and we owe an answer on each.
    NoPlace,
    /// It kept us waiting the longest when somebody else wanted its place.
    Displaced,
    /// No TLS came about, or its certificate is none that we take.
    Tls,
}

impl TurnedAway {
    /// All of them.
    pub const ALL: [TurnedAway; 3] = [TurnedAway::NoPlace, TurnedAway::Displaced, TurnedAway::Tls];

    /// The `reason` label of its counter.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnedAway::NoPlace => "no_place",
            TurnedAway::Displaced => "displaced",
            TurnedAway::Tls => "tls",
        }
    }
}

impl Tally {
    /// How many connections were turned away for this.
    pub fn of(&self, why: TurnedAway) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }

    fn add(&self, why: TurnedAway) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves what is inside until told to stop; then answers under way have a few seconds. `name` is the listener's, for the log.
///
/// # Errors
/// The listener cannot accept any more.
pub async fn serve(
    listener: TcpListener,
    name: &'static str,
    limits: Limits,
    door: Door,
    inside: impl Inside,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let hall =
        Arc::new(Hall { name, limits, door, inside, places: Places::new(limits.connections, limits.per_address) });
    match hall.door.web.clone() {
        None => accept(listener, &hall, &stop).await,
        Some(web) => tokio::select! {
            ended = accept(listener, &hall, &stop) => ended,
            never = web.watch(name) => match never {},
        },
    }
}

async fn accept<I: Inside>(
    listener: TcpListener,
    hall: &Arc<Hall<I>>,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(listener = hall.name, %error, "a connection panicked");
                }
                continue;
            }
            accepted = newcomer(&listener, &hall.places) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match hall.places.take(peer.ip()) {
                Ok((seat, displaced)) => {
                    if displaced {
                        hall.door.tally.add(TurnedAway::Displaced);
                    }
                    connections.spawn(connection(hall.clone(), stream, peer, seat, stop.clone()));
                }
                Err(()) => hall.door.tally.add(TurnedAway::NoPlace),
            },
            // The caller has gone again; the listener is well.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            // EMFILE, ENFILE: connections that end give some back.
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                tracing::warn!(listener = hall.name, %error, "no file descriptor is left for another connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(hall.limits.drain, drained).await.is_err() {
        tracing::warn!(listener = hall.name, connections = connections.len(), "connections were cut");
    }
    Ok(())
}

/// The next caller, once he could have a place; more wait in the kernel.
async fn newcomer(listener: &TcpListener, places: &Places) -> std::io::Result<(TcpStream, SocketAddr)> {
    places.wait_for_room().await;
    listener.accept().await
}

/// All that the connections of a listener share.
struct Hall<I> {
    name: &'static str,
    limits: Limits,
    door: Door,
    inside: I,
    places: Arc<Places>,
}

async fn connection<I: Inside>(
    hall: Arc<Hall<I>>,
    stream: TcpStream,
    peer: SocketAddr,
    seat: Arc<Seat>,
    stop: CancellationToken,
) {
    // Without it a small answer may wait for the caller's acknowledgement. Worth no more than a try.
    let _ = stream.set_nodelay(true);
    let stream = Paced::new(stream, UNREAD);
    let served = async {
        let Some((config, rules)) = hall.tls() else {
            return converse(&hall, stream, peer.ip(), &seat, &stop).await;
        };
        let agreed = tokio::time::timeout(hall.limits.head, TlsAcceptor::from(config).accept(stream)).await;
        let refused = match agreed {
            Ok(Ok(stream)) => match rules.admits(stream.get_ref().1.peer_certificates()) {
                true => return converse(&hall, stream, peer.ip(), &seat, &stop).await,
                false => "the certificate has none of the names of `client_allowed_sans`".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        hall.door.tally.add(TurnedAway::Tls);
        tracing::debug!(listener = hall.name, %peer, why = refused, "no TLS with a caller");
    };
    tokio::select! {
        biased;
        () = seat.lost() => tracing::debug!(listener = hall.name, %peer, "a connection that kept us waiting made room"),
        () = served => {}
    }
}

async fn converse<I: Inside>(
    hall: &Arc<Hall<I>>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    seat: &Arc<Seat>,
    stop: &CancellationToken,
) {
    let service =
        service_fn(
            move |request| async move { Ok::<_, std::convert::Infallible>(hall.answer(request, peer, seat).await) },
        );
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(hall.limits.head)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(listener = hall.name, %error, "a connection ended early");
    }
}

impl<I: Inside> Hall<I> {
    fn tls(&self) -> Option<(Arc<rustls::ServerConfig>, Arc<Rules>)> {
        let rules = self.door.web.as_ref()?.rules();
        Some((rules.tls()?, rules))
    }

    async fn answer(&self, request: Request<Incoming>, peer: IpAddr, seat: &Arc<Seat>) -> Response<Body> {
        let (head, body) = request.into_parts();
        seat.turn(if body.is_end_stream() { Turn::Ours } else { Turn::Theirs });
        let mut response = match self.judge(&head, peer).await {
            Ok(()) => {
                let body = Body::new(Turned::new(body, seat.clone(), Turn::Ours));
                self.inside.answer(Request::from_parts(head, body)).await
            }
            Err(refusal) => refusal.into_response(),
        };
        if let Some(web) = &self.door.web {
            web.rules().decorate(response.headers_mut());
        }
        response.map(|body| Body::new(Turned::new(body, seat.clone(), Turn::Theirs)))
    }

    async fn judge(&self, head: &Parts, peer: IpAddr) -> Result<(), Refusal> {
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.zip(self.limits.declared).is_some_and(|(length, most)| length > most) {
            return Err(Refusal::TooLong);
        }
        match &self.door.web {
            None => Ok(()),
            Some(web) => web.admit(&head.headers, peer, || self.inside.knows(head)).await,
        }
    }
}

/// Why a request goes no further than the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Its body is longer than any that is taken here.
    TooLong,
    /// It has no password, or a wrong one.
    Unknown,
    /// There were too many of its kind; it may come again after this.
    TooMany(Duration),
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let (status, name, value, words) = match self {
            Refusal::TooLong => {
                let close = HeaderValue::from_static("close");
                (StatusCode::PAYLOAD_TOO_LARGE, CONNECTION, close, "the body is longer than any that is taken here")
            }
            Refusal::Unknown => {
                let challenge = HeaderValue::from_static("Basic realm=\"journeyman\", charset=\"UTF-8\"");
                (StatusCode::UNAUTHORIZED, WWW_AUTHENTICATE, challenge, "this needs a user and a password")
            }
            Refusal::TooMany(wait) => {
                let wait = HeaderValue::from(wait.as_secs().max(1));
                (StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER, wait, "too many requests; try again later")
            }
        };
        let mut response = Response::new(Body::from(format!("{{\"error\":\"{words}\"}}\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(name, value);
        response
    }
}
