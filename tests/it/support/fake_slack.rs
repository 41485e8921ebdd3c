//! A Slack for tests, from its documented behaviour: channels, threads, metadata, edits, an incoming webhook, and every way to fail.
//!
//! <https://docs.slack.dev/reference/methods/chat.postMessage> and its neighbours. Answers can be scripted per method; a method
//! without a script answers as Slack would.

#[cfg(feature = "slack")]
mod socket;
mod workspace;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use journeyman::time::Now;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::workspace::{Channel, Outcome, State, check, text};
use super::wait_for;

/// The token that the fake accepts.
pub(crate) const TOKEN: &str = "xoxb-fake-4711-s3cr3tbottoken";
/// The app's token, for Socket Mode and nothing else. Every token that begins with it is another app's.
pub(crate) const APP_TOKEN: &str = "xapp-fake-4711-s3cr3tapptoken";
/// A person's token, which may read.
pub(crate) const USER_TOKEN: &str = "xoxp-fake-4711-s3cr3tusertoken";
/// A channel that exists, with the bot in it; its name is `#alerts`.
pub(crate) const CHANNEL: &str = "C0ALERTS";
/// The webhook's path, its credential; posts to [`CHANNEL`].
const WEBHOOK: &str = "/services/T0FAKE/B0FAKE/s3cr3twebhookpath";
/// The name under which the webhook's answers are scripted and its requests logged.
pub(crate) const WEBHOOK_METHOD: &str = "webhook";
/// The bot's own user.
const BOT: &str = "U0BOT";
/// The longest that anything is waited for.
const BOUND: Duration = Duration::from_secs(30);
/// The largest request that is read.
const LARGEST: usize = 1 << 20;

/// How one request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// As Slack would.
    Ok,
    /// `ok: false` with this code; for the webhook, status 400 with it as text.
    Refuse(&'static str),
    /// HTTP 429 with this `Retry-After`, or none.
    RateLimited(Option<&'static str>),
    /// This status and this text, not JSON.
    Status(u16, &'static str),
    /// As Slack would, after so long.
    Slow(Duration),
    /// The message is stored at once, and the answer comes after so long.
    SlowAfterAccepting(Duration),
    /// Never; nothing is stored.
    Hang,
    /// Never; but the message is stored.
    HangAfterAccepting,
    /// The connection is dropped before a byte of the answer; nothing is stored.
    Reset,
    /// The connection is dropped before a byte of the answer; but the message is stored.
    ResetAfterAccepting,
    /// Status and header fields, then the connection is dropped; the message is stored.
    ResetBeforeBody,
    /// Status 200 and JSON that is not; nothing is stored.
    Garbage,
    /// As Slack would, with a field of a type that strict clients choke on; the message is stored.
    Unexpected,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `chat.postMessage`, …, or [`WEBHOOK_METHOD`].
    pub(crate) method: String,
    /// Its arguments, from query, form or JSON.
    pub(crate) arguments: Value,
    /// When it was read whole.
    pub(crate) at: Now,
    /// Who asked.
    pub(crate) from: IpAddr,
}

/// One message in a channel.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Its id.
    pub(crate) ts: String,
    /// The message whose thread it is in.
    pub(crate) thread_ts: Option<String>,
    /// Who wrote it.
    pub(crate) user: String,
    /// The fallback text.
    pub(crate) text: String,
    /// Its blocks.
    pub(crate) blocks: Value,
    /// Its attachments.
    pub(crate) attachments: Value,
    /// Its metadata.
    pub(crate) metadata: Value,
    /// A reply that is also shown in the channel.
    pub(crate) is_broadcast: bool,
    /// How often it was edited.
    pub(crate) edits: u32,
}

impl Message {
    /// The delivery that its metadata names.
    pub(crate) fn delivery(&self) -> Option<&str> {
        self.metadata["event_payload"]["delivery"].as_str()
    }

    /// Everything that it shows, as JSON, for a look at what people read.
    pub(crate) fn shown(&self) -> String {
        format!("{} {} {}", self.text, self.blocks, self.attachments)
    }

    /// The colour of its bar.
    pub(crate) fn color(&self) -> Option<&str> {
        self.attachments[0]["color"].as_str()
    }

    fn json(&self, with_metadata: bool) -> Value {
        let mut json = json!({
            "type": "message", "ts": self.ts, "user": self.user, "text": self.text,
            "blocks": self.blocks, "attachments": self.attachments,
        });
        if let Some(thread) = &self.thread_ts {
            json["thread_ts"] = thread.clone().into();
        }
        if self.user == BOT {
            json["bot_id"] = "B0FAKE".into();
        }
        if self.is_broadcast {
            json["subtype"] = "thread_broadcast".into();
        }
        if with_metadata && !self.metadata.is_null() {
            json["metadata"] = self.metadata.clone();
        }
        json
    }
}

/// A running fake; it ends with its owner.
pub(crate) struct FakeSlack {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

impl FakeSlack {
    /// Starts one on a free loopback port.
    pub(crate) async fn start() -> FakeSlack {
        FakeSlack::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// Starts one at this address of this machine.
    pub(crate) async fn start_at(address: IpAddr) -> FakeSlack {
        let listener = TcpListener::bind((address, 0)).await.expect("it has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(Mutex::new(State::new()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&state)));
        FakeSlack { address, state, _server: server }
    }

    /// The API's root, for `api_url`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/", self.address)
    }

    /// The incoming webhook's URL.
    pub(crate) fn webhook_url(&self) -> String {
        format!("http://{}{WEBHOOK}", self.address)
    }

    /// Answers the next requests for `method` with these, in order; then as Slack would again.
    pub(crate) fn script(&self, method: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state().scripts.entry(method.to_owned()).or_default().extend(answers);
    }

    /// Every message in a channel and in its threads, in the order in which they were taken.
    pub(crate) fn messages(&self, channel: &str) -> Vec<Message> {
        self.state().channels.get(channel).map(|channel| channel.messages.clone()).unwrap_or_default()
    }

    /// Every request so far, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How many requests there were for `method`.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.state().requests.iter().filter(|request| request.method == method).count()
    }

    /// Waits for a message that fulfils `condition`; panics when none comes.
    pub(crate) async fn wait_for_message(&self, channel: &str, condition: impl Fn(&Message) -> bool) -> Message {
        wait_for("a Slack message", BOUND, async || self.messages(channel).into_iter().find(&condition)).await
    }

    /// Waits until there were `count` requests for `method`.
    pub(crate) async fn wait_for_requests(&self, method: &str, count: usize) {
        let what = format!("{count} requests for {method}");
        wait_for(&what, BOUND, async || (self.count(method) >= count).then_some(())).await;
    }

    /// Makes a channel; the bot is in it if `is_member`.
    pub(crate) fn add_channel(&self, id: &str, name: &str, is_member: bool) {
        let channel = Channel { name: name.to_owned(), is_member, ..Channel::default() };
        self.state().channels.insert(id.to_owned(), channel);
    }

    /// Archives a channel.
    pub(crate) fn archive(&self, channel: &str) {
        self.state().channels.get_mut(channel).expect("the channel exists").is_archived = true;
    }

    /// A person deletes a message.
    pub(crate) fn delete(&self, channel: &str, ts: &str) {
        let mut state = self.state();
        let channel = state.channels.get_mut(channel).expect("the channel exists");
        channel.messages.retain(|message| message.ts != ts);
    }

    /// A person says something; gives its `ts`.
    pub(crate) fn say(&self, channel: &str, text: &str) -> String {
        let mut state = self.state();
        let arguments = json!({ "text": text });
        state.store(channel, "U0PERSON", &arguments).ts
    }

    /// A message that was said so long before now becomes visible only now; gives its `ts`.
    pub(crate) fn say_late(&self, channel: &str, text: &str, before: Duration) -> String {
        let ts = self.say(channel, text);
        let mut state = self.state();
        let messages = &mut state.channels.get_mut(channel).expect("the channel exists").messages;
        let mut message = messages.pop().expect("it was said");
        let earlier = ts.replace('.', "").parse::<u128>().expect("a ts is digits") - before.as_micros();
        message.ts = format!("{}.{:06}", earlier / 1_000_000, earlier % 1_000_000);
        let at = messages.partition_point(|other| other.ts < message.ts);
        messages.insert(at, message.clone());
        message.ts
    }

    /// Sends apps that want a WebSocket where there is none; gives the address.
    #[cfg(feature = "slack")]
    pub(crate) fn misdirect_sockets(&self) -> String {
        self.state().socket_path = "/nowhere/";
        self.address.to_string()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections of Socket Mode there ever were.
    #[cfg(feature = "slack")]
    pub(crate) fn sockets_opened(&self) -> usize {
        self.state().app().opened
    }

    /// The envelopes that were acknowledged, in order.
    #[cfg(feature = "slack")]
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        self.state().app().acknowledged.clone()
    }

    /// An event that no method of ours brought about.
    #[cfg(feature = "slack")]
    pub(crate) fn event(&self, event: Value) {
        self.state().event(&event);
    }

    /// Sends once more what was not acknowledged.
    #[cfg(feature = "slack")]
    pub(crate) fn retry_events(&self) {
        self.state().app().retry();
    }

    /// Says something over the newest connection.
    #[cfg(feature = "slack")]
    pub(crate) fn tell_socket(&self, message: Value) {
        self.state().app().say(message);
    }

    /// Ends every connection of Socket Mode without a goodbye.
    #[cfg(feature = "slack")]
    pub(crate) fn drop_sockets(&self) {
        self.state().app().drop_all();
    }

    /// Ends those but the newest.
    #[cfg(feature = "slack")]
    pub(crate) fn drop_old_sockets(&self) {
        self.state().app().drop_old();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // A connection that becomes a WebSocket is one until its end.
            let socket: Upgrading = Mutex::new(None);
            let service = service_fn(|request| answer(request, from.ip(), Arc::clone(&state), &socket));
            // An error is a connection that was dropped on purpose, or by the client.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            #[cfg(feature = "slack")]
            if let Some((upgrade, app)) = socket.into_inner().expect("no panic while held")
                && let Ok(upgraded) = upgrade.await
            {
                socket::serve(upgraded, app, state).await;
            }
        });
    }
}

/// A connection that is to become a WebSocket, and the app that it is for.
type Upgrading = Mutex<Option<(hyper::upgrade::OnUpgrade, String)>>;

/// The connection is to be dropped.
fn dropped() -> std::io::Error {
    std::io::Error::other("dropped on purpose")
}

async fn answer(
    mut request: hyper::Request<Incoming>,
    from: IpAddr,
    state: Arc<Mutex<State>>,
    socket: &Upgrading,
) -> Result<hyper::Response<Body>, std::io::Error> {
    #[cfg(feature = "slack")]
    if let Some((key, app)) = socket::wanted(&request) {
        *socket.lock().expect("no panic while held") = Some((hyper::upgrade::on(&mut request), app));
        let response = hyper::Response::builder().status(101).header("connection", "upgrade");
        let response = response.header("upgrade", "websocket").header("sec-websocket-accept", key);
        return Ok(response.body(Body::empty()).expect("its parts are valid"));
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), LARGEST).await.map_err(std::io::Error::other)?;
    let field = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let arguments = arguments(head.uri.query().unwrap_or_default(), &field(CONTENT_TYPE), &body);
    let path = head.uri.path();
    let method = match path.strip_prefix("/api/") {
        Some(method) => method.to_owned(),
        None if path == WEBHOOK => WEBHOOK_METHOD.to_owned(),
        None => return Ok(plain(404, "no_service")),
    };
    let scripted = {
        let mut state = state.lock().expect("no panic while held");
        let at = state.clock.now();
        state.requests.push(Request { method: method.clone(), arguments: arguments.clone(), at, from });
        state.scripts.get_mut(&method).and_then(VecDeque::pop_front).unwrap_or(Answer::Ok)
    };
    let token = field(AUTHORIZATION).strip_prefix("Bearer ").map_or_else(|| text(&arguments, "token"), str::to_owned);
    let act = || {
        let mut state = state.lock().expect("no panic while held");
        match token.as_str() {
            _ if method == WEBHOOK_METHOD => post_webhook(&mut state, &arguments),
            "" => api(Err("not_authed")),
            app if app.starts_with(APP_TOKEN) => api(state.open_socket(&method, app, &field(HOST))),
            USER_TOKEN if method.starts_with("conversations.") || method == "auth.test" => {
                api(state.call(&method, &arguments))
            }
            TOKEN => api(state.call(&method, &arguments)),
            _ => api(Err("invalid_auth")),
        }
    };
    match scripted {
        Answer::Ok => Ok(act()),
        Answer::Refuse(code) if method == WEBHOOK_METHOD => Ok(plain(400, code)),
        Answer::Refuse(code) => Ok(api(Err(code))),
        Answer::RateLimited(retry_after) => {
            let mut response = json_response(429, json!({ "ok": false, "error": "ratelimited" }));
            if let Some(value) = retry_after {
                response.headers_mut().insert("retry-after", value.parse().expect("a header value"));
            }
            Ok(response)
        }
        Answer::Status(status, text) => Ok(plain(status, text)),
        Answer::Slow(time) => {
            tokio::time::sleep(time).await;
            Ok(act())
        }
        Answer::SlowAfterAccepting(time) => {
            let answer = act();
            tokio::time::sleep(time).await;
            Ok(answer)
        }
        Answer::Hang => std::future::pending().await,
        Answer::HangAfterAccepting => {
            act();
            std::future::pending().await
        }
        Answer::Reset => Err(dropped()),
        Answer::ResetAfterAccepting => {
            act();
            Err(dropped())
        }
        Answer::ResetBeforeBody => {
            let (head, _) = act().into_parts();
            let cut = futures_util::stream::once(async { Err::<Bytes, _>(dropped()) });
            Ok(hyper::Response::from_parts(head, Body::from_stream(cut)))
        }
        Answer::Garbage => Ok(response(200, "application/json; charset=utf-8", "{\"ok\":tru".to_owned())),
        Answer::Unexpected => {
            let body = axum::body::to_bytes(act().into_body(), LARGEST).await.map_err(std::io::Error::other)?;
            let mut answer: Value = serde_json::from_slice(&body).expect("the API answers JSON");
            answer["warnings"] = json!({ "code": 7 });
            Ok(json_response(200, answer))
        }
    }
}

/// Arguments from wherever Slack takes them. In a form, structured ones are JSON in text.
fn arguments(query: &str, content_type: &str, body: &[u8]) -> Value {
    let pairs = |text: &[u8]| -> Map<String, Value> {
        let pairs = url::form_urlencoded::parse(text).into_owned();
        pairs
            .map(|(key, value)| {
                let is_structured = matches!(key.as_str(), "blocks" | "attachments" | "metadata");
                let structure = serde_json::from_str(&value).ok().filter(|_| is_structured);
                (key, structure.unwrap_or(Value::String(value)))
            })
            .collect()
    };
    let mut arguments = pairs(query.as_bytes());
    if content_type.starts_with("application/json") {
        if let Ok(Value::Object(body)) = serde_json::from_slice(body) {
            arguments.extend(body);
        }
    } else {
        arguments.extend(pairs(body));
    }
    Value::Object(arguments)
}

fn post_webhook(state: &mut State, arguments: &Value) -> hyper::Response<Body> {
    if state.channels[CHANNEL].is_archived {
        return plain(410, "channel_is_archived");
    }
    match check(arguments, 40_000) {
        Ok(()) => {
            state.store(CHANNEL, "U0WEBHOOK", arguments);
            plain(200, "ok")
        }
        Err(code) => plain(400, code),
    }
}

fn api(outcome: Outcome) -> hyper::Response<Body> {
    match outcome {
        Ok(mut fields) => {
            fields["ok"] = true.into();
            json_response(200, fields)
        }
        Err(code) => json_response(200, json!({ "ok": false, "error": code })),
    }
}

fn json_response(status: u16, body: Value) -> hyper::Response<Body> {
    response(status, "application/json; charset=utf-8", body.to_string())
}

fn plain(status: u16, text: &str) -> hyper::Response<Body> {
    response(status, "text/html", text.to_owned())
}

fn response(status: u16, content_type: &str, body: String) -> hyper::Response<Body> {
    let response = hyper::Response::builder().status(status).header(CONTENT_TYPE, content_type);
    response.body(Body::from(body)).expect("status and content type are valid")
}
