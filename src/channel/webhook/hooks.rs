//! The listener that all webhook channels share: bounded in time, bytes and connections, for it faces the internet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue,
};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::channel::Listener;
use crate::channel::webhook::WebhookSettings;
use crate::gate::{self, Door, Inside};
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
    /// Connections at once. The one that kept us waiting the longest makes room for another.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header: Duration::from_secs(5),
            body: Duration::from_secs(10),
            hand_over: Duration::from_secs(2),
            connections: 512,
            per_address: 64,
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
        /// Its body is compressed, which no message is here: 415.
        Encoded = "encoded",
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
    door: Door,
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
    /// No routes yet, and these limits, behind a door that everybody may pass.
    pub fn new(limits: Limits) -> Hooks {
        Hooks::behind(Door::default(), limits)
    }

    /// No routes yet, behind this door.
    pub fn behind(door: Door, limits: Limits) -> Hooks {
        let (changes, _) = watch::channel(());
        Hooks(Arc::new(Inner { limits, door, routes: RwLock::default(), changes, strays: HookCounts::default() }))
    }

    /// The door before it.
    pub fn door(&self) -> &Door {
        &self.0.door
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
    let of_all = gate::Limits {
        head: limits.header,
        connections: limits.connections,
        per_address: limits.per_address,
        declared: None,
        drain: limits.body + limits.hand_over,
    };
    let door = hooks.door().clone();
    if let Err(error) = gate::serve(listener, "hooks", of_all, door, hooks, stop).await {
        error!(%error, "the hooks listener failed");
    }
}

impl Inside for Hooks {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        answer(self, request).await
    }
}

async fn answer(hooks: &Hooks, request: Request<Body>) -> Response<Body> {
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
        CallResult::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        CallResult::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        CallResult::UnknownPath => StatusCode::NOT_FOUND,
        CallResult::Busy => StatusCode::SERVICE_UNAVAILABLE,
        CallResult::Timeout => StatusCode::REQUEST_TIMEOUT,
        CallResult::BrokenOff | CallResult::Accepted | CallResult::Answered => StatusCode::BAD_REQUEST,
    });
    if result == CallResult::WrongMethod {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, PUT, GET"));
    }
    if result == CallResult::Encoded {
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if matches!(result, CallResult::TooLarge | CallResult::Timeout | CallResult::WrongMethod | CallResult::Encoded) {
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
async fn take(route: &Route, limits: Limits, request: Request<Body>) -> Result<Taken, Refused> {
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
    // Unpacked, a small body can be of any size; packed, no token is found in it and nobody is told why.
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !head.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err((CallResult::Encoded, "a compressed body"));
    }
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
async fn read(body: Body, headers: &HeaderMap, max: usize) -> Result<Vec<u8>, Refused> {
    let too_large = (CallResult::TooLarge, "the body is larger than `max_body`");
    // What the caller declares can only speed up a refusal; what it sends is counted all the same.
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > max.saturating_mul(2)) {
        return Err(too_large);
    }
    let mut chunks = body.into_data_stream();
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
