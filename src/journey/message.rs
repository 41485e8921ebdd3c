//! A message as a journey reads it, whatever system it came from.

mod kept;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::outcome::Cause;
use crate::journey::token::Token;
use crate::journey::trend::Trend;
use crate::journey::value::Value;
use crate::time::Now;

/// What came back: the response to a request, or a message that a receiving channel saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "kept::Kept", into = "kept::Kept")]
pub struct Message {
    /// The status code, where the protocol has one.
    pub status: Option<u16>,
    /// Header fields in the order received; names are compared without case.
    pub headers: Vec<(String, String)>,
    /// The payload as it was on the wire.
    pub body: Vec<u8>,
    /// What only some protocols know, by the name of the query that reads it: `redelivered`, `folder`, `depth`, …
    pub facts: BTreeMap<&'static str, Value>,
    /// Time spent at each hop, where the protocol records it.
    pub hops: Vec<Hop>,
    /// When the system had it for us, by the system's clock, where it tells.
    pub stored: Option<Timestamp>,
    /// Whose it is, where the channel knows that by a reference that the system gave it: a receipt names a message id, not a token.
    pub token: Option<Token>,
    /// Which part it is, if one send put out several messages: one to each partition.
    pub part: Option<Part>,
    /// Its very arrival is a failure, whatever it says: a notice of non-delivery, a mail in the spam folder.
    pub trouble: Option<Box<Trouble>>,
    /// It is good, and says something that people should see all the same: a script's WARNING.
    pub warning: Option<Box<Trouble>>,
    /// What a `check` saw of this target before, with what it sees now.
    pub trend: Option<Box<Trend>>,
    json: OnceLock<Option<Arc<serde_json::Value>>>,
}

/// One of several messages that a single send put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many there are; at least 1.
    pub of: u32,
}

/// What an arrival says of the message that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What kind of failure.
    pub cause: Cause,
    /// What happened, for people.
    pub detail: String,
}

/// One hop of a message's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The hop's name.
    pub name: String,
    /// How long the message took from the hop before.
    #[serde(with = "crate::time::micros")]
    pub took: Duration,
}

impl Message {
    /// The same message with another payload.
    pub fn with_body(&self, body: Vec<u8>) -> Message {
        Message { body, json: OnceLock::new(), ..self.clone() }
    }

    /// A message with this payload.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Message { body: body.into(), ..Message::default() }
    }

    /// The first header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Applies `redact` to everything that somebody else said in it.
    pub fn redact(&mut self, redact: impl Fn(&str) -> Option<String>) {
        for (_, value) in &mut self.headers {
            if let Some(clean) = redact(value) {
                *value = clean;
            }
        }
        if let Some(clean) = redact(&self.text()) {
            self.body = clean.into_bytes();
        }
    }

    /// The payload as text; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The message with this for its payload as JSON, where the payload is not a document and still has one to be read from it.
    pub fn with_json(self, json: serde_json::Value) -> Self {
        Message { json: OnceLock::from(Some(Arc::new(json))), ..self }
    }

    /// The payload as JSON, parsed once.
    pub fn json(&self) -> Option<&serde_json::Value> {
        self.json.get_or_init(|| Value::parse_json(&self.body).ok().map(Arc::new)).as_deref()
    }

    /// The first field of that name in a form-encoded payload or in the query string that came with it.
    pub fn form(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(&self.body).find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }
}

/// A message that a receiving channel saw, stamped by its reader the moment the bytes were there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// The receiving channel's name.
    pub channel: Arc<str>,
    /// When the reader had the bytes.
    pub at: Now,
    /// The message.
    pub message: Message,
}
