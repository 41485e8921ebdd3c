//! A sandbox workspace: the few methods of Slack's Web API that telling people needs, with Slack's answers.
//! <https://docs.slack.dev/reference/methods>

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ring::Ring;
use super::server::{answer, has_bearer};
use crate::clock::Clock;

/// This many messages are kept, replies included.
pub const KEPT: usize = 200;
/// The id of the one channel.
pub const CHANNEL: &str = "C0SANDBOX";
/// Its name.
pub const CHANNEL_NAME: &str = "alerts";

/// A message of the channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Post {
    /// What identifies it: seconds and microseconds, unique in the channel.
    pub ts: String,
    /// The message that it replies to.
    pub thread: Option<String>,
    /// When it came.
    pub at: Timestamp,
    /// When it was last edited.
    pub edited: Option<Timestamp>,
    /// `text`, `blocks`, `attachments` and `metadata`, as they were sent.
    pub content: Map<String, Value>,
}

/// The workspace.
pub struct Workspace {
    token: String,
    clock: Clock,
    state: Mutex<Inner>,
}

struct Inner {
    posts: Ring<Post>,
    /// The last `ts`, in microseconds since the epoch.
    last: i64,
}

/// An answer of Slack's, or the value of `error`.
type Answer = Result<Value, &'static str>;

impl Workspace {
    /// An empty workspace whose one bot has `token`.
    pub fn new(token: String, clock: Clock) -> Arc<Workspace> {
        let state = Inner { posts: Ring::new(KEPT), last: 0 };
        Arc::new(Workspace { token, clock, state: Mutex::new(state) })
    }

    /// The API, to be found under `/api/METHOD`.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/api/{method}", get(call).post(call))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self.clone())
    }

    /// The messages, the oldest first.
    pub fn posts(&self) -> Vec<Post> {
        self.lock().posts.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &str, arguments: &Map<String, Value>, now: Timestamp) -> Answer {
        if method == "auth.test" {
            return Ok(json!({
                "url": "https://sandbox.invalid/", "team": "Sandbox", "team_id": "T0SANDBOX",
                "user": "journeyman", "user_id": USER, "bot_id": BOT,
            }));
        }
        let methods = ["chat.postMessage", "chat.update", "conversations.history", "conversations.replies"];
        if !methods.contains(&method) {
            return Err("unknown_method");
        }
        // Slack takes a channel's name only where a message is posted.
        match text(arguments, "channel") {
            Some(CHANNEL) => {}
            Some(name) if method == "chat.postMessage" && name.trim_start_matches('#') == CHANNEL_NAME => {}
            _ => return Err("channel_not_found"),
        }
        let mut state = self.lock();
        match method {
            "chat.postMessage" => state.post(arguments, now),
            "chat.update" => state.update(arguments, now),
            "conversations.history" => Ok(state.history(arguments)),
            _ => state.replies(arguments),
        }
    }
}

impl Inner {
    fn post(&mut self, arguments: &Map<String, Value>, now: Timestamp) -> Answer {
        let content = content(arguments)?;
        let thread = text(arguments, "thread_ts").map(str::to_owned);
        if let Some(thread) = &thread
            && !self.posts.iter().any(|post| post.ts == *thread)
        {
            return Err("thread_not_found");
        }
        self.last = now.as_microsecond().max(self.last + 1);
        let ts = format!("{}.{:06}", self.last.div_euclid(1_000_000), self.last.rem_euclid(1_000_000));
        let post = Post { ts: ts.clone(), thread, at: now, edited: None, content };
        let message = message(&post, true);
        self.posts.push(post);
        Ok(json!({ "channel": CHANNEL, "ts": ts, "message": message }))
    }

    fn update(&mut self, arguments: &Map<String, Value>, now: Timestamp) -> Answer {
        let new = content(arguments)?;
        let ts = text(arguments, "ts").unwrap_or_default();
        let post = self.posts.find_mut(|post| post.ts == ts).ok_or("message_not_found")?;
        // What an update does not name stays; an empty list takes it away.
        post.content.extend(new);
        post.edited = Some(now);
        Ok(json!({
            "channel": CHANNEL, "ts": ts, "text": post.content.get("text"), "message": message(post, true),
        }))
    }

    /// Newest first, without replies.
    fn history(&self, arguments: &Map<String, Value>) -> Value {
        let with_metadata = text(arguments, "include_all_metadata") == Some("true");
        let mut messages: Vec<_> = self
            .posts
            .iter()
            .rev()
            .filter(|post| post.thread.is_none() && is_within(post, arguments))
            .map(|post| message(post, with_metadata))
            .collect();
        let limit = limit(arguments);
        let has_more = messages.len() > limit;
        messages.truncate(limit);
        json!({ "messages": messages, "has_more": has_more, "pin_count": 0 })
    }

    /// The message with its replies, oldest first.
    fn replies(&self, arguments: &Map<String, Value>) -> Answer {
        let with_metadata = text(arguments, "include_all_metadata") == Some("true");
        let ts = text(arguments, "ts").unwrap_or_default();
        let root = self.posts.iter().find(|post| post.ts == ts).ok_or("thread_not_found")?;
        let replies = self.posts.iter().filter(|post| post.thread.as_deref() == Some(ts) && is_within(post, arguments));
        let mut messages: Vec<_> =
            std::iter::once(root).chain(replies).map(|post| message(post, with_metadata)).collect();
        let limit = limit(arguments);
        let has_more = messages.len() > limit;
        messages.truncate(limit);
        Ok(json!({ "messages": messages, "has_more": has_more }))
    }
}

/// Whether a message lies between `oldest` and `latest`, which belong to it only if the caller says so.
fn is_within(post: &Post, arguments: &Map<String, Value>) -> bool {
    let (oldest, latest) = (text(arguments, "oldest").unwrap_or("0"), text(arguments, "latest"));
    // Seconds have as many digits for centuries to come; shorter ones are small numbers.
    let key = |ts: &str| (ts.split('.').next().unwrap_or_default().len(), ts.to_owned());
    let (ts, oldest, latest) = (key(&post.ts), key(oldest), latest.map(key));
    match text(arguments, "inclusive") == Some("true") {
        true => ts >= oldest && latest.is_none_or(|latest| ts <= latest),
        false => ts > oldest && latest.is_none_or(|latest| ts < latest),
    }
}

fn limit(arguments: &Map<String, Value>) -> usize {
    text(arguments, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).clamp(1, KEPT)
}

/// A message as Slack shows it.
fn message(post: &Post, with_metadata: bool) -> Value {
    let mut message = post.content.clone();
    if !with_metadata {
        message.remove("metadata");
    }
    message.extend([
        ("type".to_owned(), "message".into()),
        ("ts".to_owned(), post.ts.as_str().into()),
        ("user".to_owned(), USER.into()),
        ("bot_id".to_owned(), BOT.into()),
    ]);
    if let Some(thread) = &post.thread {
        message.insert("thread_ts".to_owned(), thread.as_str().into());
    }
    if let Some(edited) = post.edited {
        message.insert("edited".to_owned(), json!({ "user": USER, "ts": format!("{}.000000", edited.as_second()) }));
    }
    Value::Object(message)
}

/// What a message says. Without any of it there is no message.
fn content(arguments: &Map<String, Value>) -> Result<Map<String, Value>, &'static str> {
    let keys = ["text", "blocks", "attachments", "metadata"];
    let content: Map<_, _> = arguments
        .iter()
        .filter(|(key, value)| keys.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let is_list = |key: &str| content.get(key).is_none_or(Value::is_array);
    if !is_list("blocks") {
        return Err("invalid_blocks_format");
    }
    if content.get("blocks").and_then(Value::as_array).is_some_and(|blocks| blocks.len() > MAX_BLOCKS) {
        return Err("invalid_blocks");
    }
    if !is_list("attachments") {
        return Err("invalid_attachments");
    }
    let says = |key: &str| match content.get(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        _ => false,
    };
    if says("text") || says("blocks") || says("attachments") { Ok(content) } else { Err("no_text") }
}

fn text<'a>(arguments: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    arguments.get(key).and_then(Value::as_str)
}

async fn call(
    State(workspace): State<Arc<Workspace>>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // Slack tells every mistake with 200 and `ok: false`.
    let result = match headers.contains_key(header::AUTHORIZATION) {
        false => Err("not_authed"),
        true if !has_bearer(&headers, &workspace.token) => Err("invalid_auth"),
        true => match arguments(query.as_deref().unwrap_or_default(), &headers, &body) {
            Some(arguments) => workspace.answer(&method, &arguments, workspace.clock.now().wall),
            None => Err("invalid_json"),
        },
    };
    let body = match result {
        Ok(Value::Object(mut found)) => {
            found.insert("ok".to_owned(), true.into());
            Value::Object(found)
        }
        Ok(other) => other,
        Err(error) => json!({ "ok": false, "error": error }),
    };
    answer(StatusCode::OK, &body)
}

/// The arguments, from the query and from a body of JSON or form fields.
fn arguments(query: &str, headers: &HeaderMap, body: &[u8]) -> Option<Map<String, Value>> {
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut arguments = match is_json && !body.is_empty() {
        true => serde_json::from_slice(body).ok()?,
        false => fields(body),
    };
    arguments.extend(fields(query.as_bytes()));
    Some(arguments)
}

fn fields(form: &[u8]) -> Map<String, Value> {
    url::form_urlencoded::parse(form)
        .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
        .collect()
}

const USER: &str = "U0JOURNEY";
const BOT: &str = "B0JOURNEY";
/// Slack takes 50 blocks in a message.
const MAX_BLOCKS: usize = 50;
const MAX_BODY: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Arc<Workspace> {
        Workspace::new("xoxb-1".to_owned(), Clock::derived(Timestamp::UNIX_EPOCH))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn ask(workspace: &Workspace, method: &str, seconds: i64, arguments: Value) -> Answer {
        let Value::Object(mut arguments) = arguments else { panic!("an object") };
        arguments.entry("channel").or_insert(CHANNEL.into());
        workspace.answer(method, &arguments, at(seconds))
    }

    fn ts(answer: &Answer) -> String {
        answer.as_ref().unwrap()["ts"].as_str().unwrap().to_owned()
    }

    #[test]
    fn messages_are_posted_edited_threaded_and_looked_up() {
        let workspace = workspace();
        let root = ts(&ask(
            &workspace,
            "chat.postMessage",
            0,
            json!({
                "text": "DOWN", "blocks": [{ "type": "divider" }],
                "metadata": { "event_type": "notice", "event_payload": { "id": "1" } },
            }),
        ));
        assert_eq!(root, "1790000000.000000");
        // Two in one microsecond still differ.
        let other = ts(&ask(&workspace, "chat.postMessage", 0, json!({ "text": "SLOW" })));
        assert_eq!(other, "1790000000.000001");
        ask(&workspace, "chat.postMessage", 5, json!({ "text": "reply", "thread_ts": root })).unwrap();
        let updated =
            ask(&workspace, "chat.update", 9, json!({ "ts": root, "text": "WELL AGAIN", "attachments": [] })).unwrap();
        assert_eq!(updated["message"]["edited"]["ts"], "1790000009.000000");

        let history = ask(&workspace, "conversations.history", 10, json!({ "include_all_metadata": "true" })).unwrap();
        let texts: Vec<_> = history["messages"].as_array().unwrap().iter().map(|message| &message["text"]).collect();
        assert_eq!(texts, ["SLOW", "WELL AGAIN"]);
        assert_eq!(history["messages"][1]["metadata"]["event_payload"]["id"], "1");
        assert_eq!(history["messages"][1]["blocks"][0]["type"], "divider");
        assert_eq!(history["messages"][1]["attachments"], json!([]));
        let replies = ask(&workspace, "conversations.replies", 10, json!({ "ts": root })).unwrap();
        assert_eq!(replies["messages"][1]["thread_ts"], root);
        assert_eq!(replies["messages"][0]["metadata"], Value::Null);
    }

    #[test]
    fn history_is_cut_by_time_and_number() {
        let workspace = workspace();
        let all: Vec<_> = (0..5).map(|n| ts(&ask(&workspace, "chat.postMessage", n, json!({ "text": "m" })))).collect();
        let found = |arguments: Value| {
            let history = ask(&workspace, "conversations.history", 9, arguments).unwrap();
            let found = history["messages"].as_array().unwrap().clone();
            (
                found.iter().map(|message| message["ts"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
                history["has_more"] == true,
            )
        };
        assert_eq!(found(json!({ "oldest": all[1], "latest": all[3] })), (vec![all[2].clone()], false));
        let three = vec![all[3].clone(), all[2].clone(), all[1].clone()];
        assert_eq!(found(json!({ "oldest": all[1], "latest": all[3], "inclusive": "true" })), (three, false));
        assert_eq!(found(json!({ "limit": "1" })), (vec![all[4].clone()], true));
        assert_eq!(found(json!({ "oldest": "0" })).0.len(), 5);
    }

    #[test]
    fn mistakes_are_told_in_slacks_words() {
        let workspace = workspace();
        let blocks = vec![json!({ "type": "divider" }); MAX_BLOCKS + 1];
        let cases = [
            ("chat.postMessage", json!({}), "no_text"),
            ("chat.postMessage", json!({ "text": "x", "blocks": "[]" }), "invalid_blocks_format"),
            ("chat.postMessage", json!({ "text": "x", "blocks": blocks }), "invalid_blocks"),
            ("chat.postMessage", json!({ "text": "x", "channel": "C1" }), "channel_not_found"),
            ("chat.postMessage", json!({ "text": "x", "thread_ts": "1.0" }), "thread_not_found"),
            ("chat.update", json!({ "text": "x", "ts": "1.0" }), "message_not_found"),
            ("chat.delete", json!({ "ts": "1.0" }), "unknown_method"),
        ];
        for (method, arguments, error) in cases {
            assert_eq!(ask(&workspace, method, 0, arguments), Err(error));
        }
        assert!(workspace.posts().is_empty());
    }

    #[test]
    fn the_oldest_message_goes() {
        let workspace = workspace();
        for n in 0..KEPT as i64 + 3 {
            ask(&workspace, "chat.postMessage", n, json!({ "text": n.to_string() })).unwrap();
        }
        let posts = workspace.posts();
        assert_eq!(posts.len(), KEPT);
        assert_eq!(posts[0].content["text"], "3");
    }
}
