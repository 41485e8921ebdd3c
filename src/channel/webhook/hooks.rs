//! The listener that all webhook channels share: bounded in time, bytes and connections, for it faces the internet.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::channel::Listener;
use crate::channel::webhook::WebhookSettings;
use crate::journey::Name;
use crate::journey::message::{Arrival, Message};
use crate::journey::outcome::labelled;
use crate::journey::value::Value;
use crate::time::Now;

/// What a caller may take of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's head must be here within this; an idle connection is closed after it.
    pub header: Duration,
    /// A request's body must be here within this.
    pub body: Duration,
    /// A verified message waits this long for the switchboard to take it.
    pub hand_over: Duration,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header: Duration::from_secs(5),
            body: Duration::from_secs(10),
            hand_over: Duration::from_secs(2),
            connections: 512,
        }
    }
}

labelled! {
    /// What became of a call: the `result` label of its counter.
    CallResult {
        /// It is a message now.
        Accepted = "accepted",
        /// It was a question of the caller's whether the address is ours, and was answered: 200.
        Answered = "answered",
        /// It did not prove that it is from whom it should be: 401.
        RefusedSignature = "refused_signature",
        /// Its body is larger than the channel takes: 413.
        TooLarge = "too_large",
        /// Its method is none that the channel takes: 405.
        WrongMethod = "wrong_method",
        /// No channel has its path: 404.
        UnknownPath = "unknown_path",
        /// We were too busy to take it: 503, so that the caller tries again.
        Busy = "busy",
        /// Its body was not here in time: 408.
        Timeout = "timeout",
        /// The caller broke off in the middle of its body.
        BrokenOff = "broken_off",
    }
}

/// How many calls came to what.
#[derive(Debug, Default)]
pub struct HookCounts([AtomicU64; CallResult::ALL.len()]);

impl HookCounts {
    /// How many calls came to this since the channel was opened.
    pub fn of(&self, result: CallResult) -> u64 {
        self.0[result as usize].load(Ordering::Relaxed)
    }

    fn add(&self, result: CallResult) {
        self.0[result as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The routes of the hooks listener, by path. Cheap to clone; all clones share the routes.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    limits: Limits,
    routes: RwLock<BTreeMap<String, Arc<Route>>>,
    /// Told whenever a route goes.
    changes: watch::Sender<()>,
    strays: HookCounts,
}

/// A channel's part in the listener.
pub(super) struct Route {
    pub(super) settings: Arc<WebhookSettings>,
    pub(super) listener: Listener,
    pub(super) counts: Arc<HookCounts>,
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks::new(Limits::default())
    }
}

impl Hooks {
    /// No routes yet, and these limits.
    pub fn new(limits: Limits) -> Hooks {
        let (changes, _) = watch::channel(());
        Hooks(Arc::new(Inner { limits, routes: RwLock::default(), changes, strays: HookCounts::default() }))
    }

    /// What became of the calls that no channel has a route for.
    pub fn strays(&self) -> &HookCounts {
        &self.0.strays
    }

    /// Adds a route until what it gives is dropped; or the name of the channel that has its path.
    pub(super) fn register(&self, route: Arc<Route>) -> Result<Registered, Name> {
        let path = route.settings.path.clone();
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = routes.get(&path) {
            return Err(holder.listener.channel.clone());
        }
        routes.insert(path.clone(), route);
        Ok(Registered { hooks: self.clone(), path })
    }

    /// Sees routes go from here on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn find(&self, path: &str) -> Option<Arc<Route>> {
        self.0.routes.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

/// A route that is there for as long as this is.
pub(super) struct Registered {
    hooks: Hooks,
    path: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.hooks.0.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
        self.hooks.0.changes.send_replace(());
    }
}

/// Serves `hooks` until told to stop, then lets the calls in hand end: each is bounded by the limits.
pub async fn serve(listener: TcpListener, hooks: Hooks, stop: CancellationToken) {
    let limits = hooks.0.limits;
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a connection to the hooks listener panicked");
                }
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (hooks, stop) = (hooks.clone(), stop.clone());
                connections.spawn(async move {
                    converse(stream, hooks, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file handles, most likely: they come back when calls end, not by trying harder.
                warn!(%error, "the hooks listener cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // First the permit: a connection that we cannot serve stays in the kernel's backlog.
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn converse(stream: TcpStream, hooks: Hooks, stop: CancellationToken) {
    let limits = hooks.0.limits;
    let service = service_fn(move |request| {
        let hooks = hooks.clone();
        async move { Ok::<_, Infallible>(answer(&hooks, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the hooks listener ended early");
    }
}

async fn answer(hooks: &Hooks, request: Request<Incoming>) -> Response<Body> {
    let Some(route) = hooks.find(request.uri().path()) else {
        hooks.0.strays.add(CallResult::UnknownPath);
        debug!(result = %CallResult::UnknownPath, "refused a webhook call");
        return empty(StatusCode::NOT_FOUND);
    };
    match take(&route, hooks.0.limits, request).await {
        Ok(Taken::Message) => {
            route.counts.add(CallResult::Accepted);
            empty(StatusCode::from_u16(route.settings.respond).unwrap_or(StatusCode::NO_CONTENT))
        }
        Ok(Taken::Question { answer }) => {
            route.counts.add(CallResult::Answered);
            let mut response = Response::new(Body::from(answer));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
        Err((result, reason)) => {
            route.counts.add(result);
            debug!(channel = %route.listener.channel, %result, reason, "refused a webhook call");
            refusal(result)
        }
    }
}

fn refusal(result: CallResult) -> Response<Body> {
    let mut response = empty(match result {
        CallResult::RefusedSignature => StatusCode::UNAUTHORIZED,
        CallResult::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        CallResult::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        CallResult::UnknownPath => StatusCode::NOT_FOUND,
        CallResult::Busy => StatusCode::SERVICE_UNAVAILABLE,
        CallResult::Timeout => StatusCode::REQUEST_TIMEOUT,
        CallResult::BrokenOff | CallResult::Accepted | CallResult::Answered => StatusCode::BAD_REQUEST,
    });
    if result == CallResult::WrongMethod {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, PUT, GET"));
    }
    if matches!(result, CallResult::TooLarge | CallResult::Timeout | CallResult::WrongMethod) {
        // What is left of the body is not worth reading for the sake of the connection.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

type Refused = (CallResult, &'static str);

/// What a call was.
enum Taken {
    /// A message, which was handed over.
    Message,
    /// A question, with what the caller wants to hear.
    Question { answer: String },
}

/// Reads a call, verifies it, and hands it over. A call that is refused leaves nothing behind.
async fn take(route: &Route, limits: Limits, request: Request<Incoming>) -> Result<Taken, Refused> {
    let settings = &route.settings;
    // Kannel and other SMS gateways call with GET, the message in the query. A body signature does not cover a query.
    let is_method_known = match *request.method() {
        Method::POST | Method::PUT => true,
        Method::GET => settings.verify.covers_query(),
        _ => false,
    };
    if !is_method_known {
        return Err((CallResult::WrongMethod, "a method that the channel does not take"));
    }
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(limits.body, read(body, &head.headers, settings.max_body)).await {
        Ok(read) => read?,
        Err(_) => return Err((CallResult::Timeout, "the body was not here in time")),
    };
    let at = route.listener.clock.now();
    settings.verify.check(&head, &body, at.wall).map_err(|reason| (CallResult::RefusedSignature, reason))?;
    if let Some(answer) = settings.verify.answer(&body) {
        return Ok(Taken::Question { answer });
    }
    let query = head.uri.query().filter(|_| body.is_empty() && settings.verify.covers_query());
    let mut message = Message::new(query.map_or(body, |query| query.as_bytes().to_vec()));
    message.headers = (head.headers.iter())
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    message.facts.insert("method", Value::from(head.method.as_str()));
    message.facts.insert("path", Value::from(head.uri.path()));
    hand_over(route, limits, at, message).await?;
    Ok(Taken::Message)
}

/// The message is its run's at once; its sender hears of it when it is safe, and otherwise is asked to send it again.
async fn hand_over(route: &Route, limits: Limits, at: Now, message: Message) -> Result<(), Refused> {
    let arrival = Arrival { channel: route.listener.channel.clone(), at, message };
    let place = match tokio::time::timeout(limits.hand_over, route.listener.place()).await {
        Ok(Some(place)) => place,
        Ok(None) => return Err((CallResult::Busy, "the switchboard is gone")),
        Err(_) => return Err((CallResult::Busy, "the switchboard is busy")),
    };
    match place.hand_over(arrival).told().await {
        true => Ok(()),
        false => Err((CallResult::Busy, "the store does not take it")),
    }
}

/// Reads a body of at most `max` bytes. A longer one is read, and thrown away, up to twice that: a caller that is still
/// writing when we close would be told "connection reset" instead of 413.
async fn read(body: Incoming, headers: &HeaderMap, max: usize) -> Result<Vec<u8>, Refused> {
    let too_large = (CallResult::TooLarge, "the body is larger than `max_body`");
    // What the caller declares can only speed up a refusal; what it sends is counted all the same.
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > max.saturating_mul(2)) {
        return Err(too_large);
    }
    let mut chunks = Body::new(body).into_data_stream();
    let mut kept = Vec::new();
    let mut seen = 0usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| (CallResult::BrokenOff, "the caller broke off"))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= max {
            kept.extend_from_slice(&chunk);
        } else if seen > max.saturating_mul(2) {
            break;
        } else {
            kept = Vec::new();
        }
    }
    if seen > max { Err(too_large) } else { Ok(kept) }
}

/// A request's head may have this many bytes: room for every header that gateways and proxies add.
const MAX_HEAD: usize = 32 << 10;
