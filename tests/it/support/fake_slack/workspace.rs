//! The workspace behind the fake: channels, messages, and what each method does with them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use journeyman::clock::Clock;
use serde_json::{Value, json};

use super::{Answer, BOT, CHANNEL, Message, Request};

/// One channel.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) is_member: bool,
    pub(super) is_archived: bool,
    pub(super) messages: Vec<Message>,
}

/// A workspace, and what was asked of it.
pub(super) struct State {
    pub(super) channels: BTreeMap<String, Channel>,
    pub(super) scripts: HashMap<String, VecDeque<Answer>>,
    pub(super) requests: Vec<Request>,
    pub(super) clock: Clock,
    #[cfg(feature = "slack")]
    pub(super) apps: BTreeMap<String, super::socket::Sockets>,
    #[cfg(feature = "slack")]
    pub(super) socket_path: &'static str,
    last_ts: i64,
}

/// What a method answers: a code for `ok: false`, or the answer's fields.
pub(super) type Outcome = Result<Value, &'static str>;

impl State {
    pub(super) fn new() -> State {
        let alerts = Channel { name: "alerts".to_owned(), is_member: true, ..Channel::default() };
        State {
            channels: [(CHANNEL.to_owned(), alerts)].into(),
            scripts: HashMap::new(),
            requests: Vec::new(),
            clock: Clock::system(),
            #[cfg(feature = "slack")]
            apps: BTreeMap::new(),
            #[cfg(feature = "slack")]
            socket_path: super::socket::PATH,
            last_ts: 0,
        }
    }

    pub(super) fn call(&mut self, method: &str, arguments: &Value) -> Outcome {
        match method {
            "auth.test" => Ok(
                json!({ "user_id": BOT, "team_id": "T0FAKE", "team": "Fake", "user": "journeyman", "bot_id": "B0FAKE" }),
            ),
            "chat.postMessage" => self.post(arguments),
            "chat.update" => self.update(arguments),
            "chat.delete" => self.remove(arguments),
            "chat.postEphemeral" => self.readable(arguments).map(|_| json!({ "message_ts": "1.000001" })),
            "conversations.history" => self.history(arguments),
            "conversations.replies" => self.replies(arguments),
            "apps.connections.open" => Err("not_allowed_token_type"),
            _ => Err("unknown_method"),
        }
    }

    /// What an app's token may: make a connection of Socket Mode, to where it has found us.
    #[cfg(feature = "slack")]
    pub(super) fn open_socket(&mut self, method: &str, app: &str, host: &str) -> Outcome {
        if method != "apps.connections.open" {
            return Err("not_allowed_token_type");
        }
        // From here on its events are kept for it.
        self.apps.entry(app.to_owned()).or_default();
        Ok(json!({ "url": format!("ws://{host}{}?ticket={app}&app_id=A0FAKE", self.socket_path) }))
    }

    /// No app's token may do anything.
    #[cfg(not(feature = "slack"))]
    pub(super) fn open_socket(&mut self, _method: &str, _app: &str, _host: &str) -> Outcome {
        Err("not_allowed_token_type")
    }

    /// The connections of the app that most tests have.
    #[cfg(feature = "slack")]
    pub(super) fn app(&mut self) -> &mut super::socket::Sockets {
        self.apps.entry(super::APP_TOKEN.to_owned()).or_default()
    }

    /// An event happens, for every app.
    #[cfg(feature = "slack")]
    pub(super) fn event(&mut self, event: &Value) {
        for sockets in self.apps.values_mut() {
            sockets.event(event.clone());
        }
    }

    fn post(&mut self, arguments: &Value) -> Outcome {
        let id = self.channel_id(arguments)?;
        let channel = &self.channels[&id];
        if !channel.is_member {
            return Err("not_in_channel");
        }
        if channel.is_archived {
            return Err("is_archived");
        }
        check(arguments, 40_000)?;
        let message = self.store(&id, BOT, arguments);
        Ok(json!({ "channel": id, "ts": message.ts, "message": message.json(false) }))
    }

    pub(super) fn store(&mut self, channel: &str, user: &str, arguments: &Value) -> Message {
        let now = self.clock.now().wall.as_microsecond();
        self.last_ts = now.max(self.last_ts + 1);
        let ts = format!("{}.{:06}", self.last_ts / 1_000_000, self.last_ts % 1_000_000);
        let list = |key: &str| arguments.get(key).cloned().unwrap_or_else(|| json!([]));
        let message = Message {
            ts,
            thread_ts: arguments["thread_ts"].as_str().map(str::to_owned),
            user: user.to_owned(),
            text: text(arguments, "text"),
            blocks: list("blocks"),
            attachments: list("attachments"),
            metadata: arguments["metadata"].clone(),
            is_broadcast: is_set(arguments, "reply_broadcast"),
            edits: 0,
        };
        #[cfg(feature = "slack")]
        let channel_id = channel;
        let channel = self.channels.get_mut(channel).expect("the channel was looked up");
        channel.messages.push(message.clone());
        #[cfg(feature = "slack")]
        {
            // An event carries no metadata unless the app asks for events about metadata.
            let mut event = message.json(false);
            event["channel"] = channel_id.into();
            self.event(&event);
        }
        message
    }

    fn update(&mut self, arguments: &Value) -> Outcome {
        // Unlike chat.postMessage, this method takes ids only.
        let id = text(arguments, "channel");
        let channel = self.channels.get_mut(&id).ok_or("channel_not_found")?;
        check(arguments, 4_000)?;
        let ts = text(arguments, "ts");
        let message = channel.messages.iter_mut().find(|message| message.ts == ts).ok_or("message_not_found")?;
        if message.user != BOT {
            return Err("cant_update_message");
        }
        // Attachments and metadata stay unless named; blocks go when there is text without them.
        if let Some(text) = arguments["text"].as_str() {
            message.text = text.to_owned();
            message.blocks = json!([]);
        }
        for (key, field) in [
            ("blocks", &mut message.blocks),
            ("attachments", &mut message.attachments),
            ("metadata", &mut message.metadata),
        ] {
            if let Some(value) = arguments.get(key) {
                *field = value.clone();
            }
        }
        message.edits += 1;
        Ok(json!({ "channel": id, "ts": ts, "text": message.text, "message": message.json(false) }))
    }

    fn remove(&mut self, arguments: &Value) -> Outcome {
        let id = text(arguments, "channel");
        let channel = self.channels.get_mut(&id).ok_or("channel_not_found")?;
        let ts = text(arguments, "ts");
        let at = channel.messages.iter().position(|message| message.ts == ts).ok_or("message_not_found")?;
        if channel.messages[at].user != BOT {
            return Err("cant_delete_message");
        }
        channel.messages.remove(at);
        Ok(json!({ "channel": id, "ts": ts }))
    }

    fn history(&self, arguments: &Value) -> Outcome {
        let channel = self.readable(arguments)?;
        let messages = channel.messages.iter().filter(|message| message.thread_ts.is_none() || message.is_broadcast);
        // Newest first.
        Ok(page(messages.rev().collect(), arguments))
    }

    fn replies(&self, arguments: &Value) -> Outcome {
        let channel = self.readable(arguments)?;
        let ts = text(arguments, "ts");
        if !channel.messages.iter().any(|message| message.ts == ts) {
            return Err("thread_not_found");
        }
        let thread = |message: &&Message| message.ts == ts || message.thread_ts.as_deref() == Some(&ts);
        Ok(page(channel.messages.iter().filter(thread).collect(), arguments))
    }

    fn readable(&self, arguments: &Value) -> Result<&Channel, &'static str> {
        let channel = self.channels.get(&text(arguments, "channel")).ok_or("channel_not_found")?;
        channel.is_member.then_some(channel).ok_or("not_in_channel")
    }

    fn channel_id(&self, arguments: &Value) -> Result<String, &'static str> {
        let wanted = text(arguments, "channel");
        let name = wanted.trim_start_matches('#');
        let found = self.channels.iter().find(|(id, channel)| **id == wanted || channel.name == name);
        found.map(|(id, _)| id.clone()).ok_or("channel_not_found")
    }
}

/// The limits that Slack documents, and the one on all blocks that it does not.
pub(super) fn check(arguments: &Value, longest_text: usize) -> Result<(), &'static str> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = text(arguments, "text");
    let attachments = list(&arguments["attachments"]);
    let mut blocks = list(&arguments["blocks"]);
    blocks.extend(attachments.iter().flat_map(|attachment| list(&attachment["blocks"])));
    if text.is_empty() && blocks.is_empty() && attachments.is_empty() {
        return Err("no_text");
    }
    if text.chars().count() > longest_text {
        return Err("msg_too_long");
    }
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    let (mut sum, mut charts) = (0, 0);
    for block in &blocks {
        let longest = match block["type"].as_str() {
            Some("header") => 150,
            Some("section" | "context") => 3_000,
            Some("actions") => {
                check_buttons(&list(&block["elements"]))?;
                continue;
            }
            Some("data_visualization") => {
                check_chart(block)?;
                charts += 1;
                continue;
            }
            _ => return Err("invalid_blocks"),
        };
        let fields = list(&block["fields"]);
        let elements = list(&block["elements"]);
        let own = block.get("text").map(|own| (own.clone(), longest));
        let parts =
            fields.iter().map(|field| (field.clone(), 2_000)).chain(elements.iter().map(|e| (e.clone(), 3_000)));
        let parts: Vec<_> = own.into_iter().chain(parts).collect();
        if parts.is_empty() || fields.len() > 10 || elements.len() > 10 {
            return Err("invalid_blocks");
        }
        for (part, longest) in parts {
            let length = part["text"].as_str().ok_or("invalid_blocks")?.chars().count();
            if length == 0 || length > longest {
                return Err("invalid_blocks");
            }
            sum += length;
        }
    }
    if charts > 2 {
        return Err("invalid_blocks");
    }
    if sum > 13_200 { Err("msg_blocks_too_long") } else { Ok(()) }
}

fn is_text(value: &Value, longest: usize) -> bool {
    value.as_str().is_some_and(|text| (1..=longest).contains(&text.chars().count()))
}

/// <https://docs.slack.dev/reference/block-kit/block-elements/button-element>
fn check_buttons(buttons: &[Value]) -> Result<(), &'static str> {
    let is_button = |button: &Value| {
        is_text(&button["text"]["text"], 75)
            && is_text(&button["action_id"], 255)
            && (button.get("value").is_none() || is_text(&button["value"], 2_000))
            && (button.get("url").is_none() || is_text(&button["url"], 3_000))
    };
    let is_right = (1..=25).contains(&buttons.len()) && buttons.iter().all(is_button);
    is_right.then_some(()).ok_or("invalid_blocks")
}

/// <https://docs.slack.dev/reference/block-kit/blocks/data-visualization-block>
fn check_chart(block: &Value) -> Result<(), &'static str> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let categories = list(&block["chart"]["axis_config"]["categories"]);
    let series = list(&block["chart"]["series"]);
    let is_series = |one: &Value| {
        let points = list(&one["data"]);
        is_text(&one["name"], 20)
            && points.iter().map(|point| &point["label"]).eq(&categories)
            && points.iter().all(|point| point["value"].is_number())
    };
    let is_right = is_text(&block["title"], 50)
        && (1..=20).contains(&categories.len())
        && categories.iter().all(|category| is_text(category, 20))
        && (1..=6).contains(&series.len())
        && series.iter().all(is_series);
    is_right.then_some(()).ok_or("invalid_blocks")
}

/// The messages after `oldest`, a page of them, with a cursor for the next.
fn page(messages: Vec<&Message>, arguments: &Value) -> Value {
    let number = |key: &str| text(arguments, key).parse::<f64>().ok();
    let oldest = number("oldest").unwrap_or(0.0);
    let limit = number("limit").map_or(100, |limit| limit as usize);
    let start: usize = text(arguments, "cursor").parse().unwrap_or(0);
    let with_metadata = is_set(arguments, "include_all_metadata");
    let wanted: Vec<_> =
        messages.into_iter().filter(|message| message.ts.parse::<f64>().is_ok_and(|ts| ts > oldest)).collect();
    let has_more = wanted.len() > start + limit;
    let shown: Vec<_> = wanted.iter().skip(start).take(limit).map(|message| message.json(with_metadata)).collect();
    let cursor = if has_more { (start + limit).to_string() } else { String::new() };
    json!({ "messages": shown, "has_more": has_more, "response_metadata": { "next_cursor": cursor } })
}

/// An argument as text; numbers come as either.
pub(super) fn text(arguments: &Value, key: &str) -> String {
    match &arguments[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn is_set(arguments: &Value, key: &str) -> bool {
    matches!(text(arguments, key).as_str(), "true" | "1")
}
