//! A message as it is kept on disk. What only a `check` or a response has is left behind: those are never kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::expect::FACTS;
use crate::journey::message::{Hop, Message, Part, Trouble};
use crate::journey::token::Token;
use crate::journey::value::Value;

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    body: Payload,
    /// Those that a journey can ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<(String, Value)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hops: Vec<Hop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Box<Trouble>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<Box<Trouble>>,
}

/// Most payloads are text, which costs a few escapes; of the others each byte costs two digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Payload {
    Text(String),
    Hex(String),
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::Text(String::new())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Payload {
        String::from_utf8(bytes).map_or_else(
            |error| Payload::Hex(error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()),
            Payload::Text,
        )
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Vec<u8> {
        match payload {
            Payload::Text(text) => text.into_bytes(),
            Payload::Hex(digits) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                digits.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
            }
        }
    }
}

impl From<Message> for Kept {
    fn from(message: Message) -> Kept {
        let Message { headers, body, facts, hops, stored, token, part, trouble, warning, .. } = message;
        let facts = facts.into_iter().filter(|(name, _)| FACTS.contains(name));
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).collect();
        Kept { headers, body: body.into(), facts, hops, stored, token, part, trouble, warning }
    }
}

impl From<Kept> for Message {
    fn from(kept: Kept) -> Message {
        let Kept { headers, body, facts, hops, stored, token, part, trouble, warning } = kept;
        let known = |(name, value): (String, Value)| Some((*FACTS.iter().find(|fact| **fact == name)?, value));
        let facts = facts.into_iter().filter_map(known).collect();
        Message { headers, body: body.into(), facts, hops, stored, token, part, trouble, warning, ..Message::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journey::outcome::Cause;

    #[test]
    fn what_a_receive_can_read_of_a_message_is_what_is_kept() {
        for body in [b"plain \"text\" \n \xc3\xbc".to_vec(), vec![0, 1, 0xfe, 0xff], Vec::new()] {
            let mut message = Message::new(body.clone());
            message.headers = vec![("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())];
            message.facts = [("redelivered", Value::Bool(true)), ("folder", Value::from("Junk"))].into();
            message.hops = vec![Hop { name: "mx".to_owned(), took: Duration::from_millis(7) }];
            message.stored = Some(Timestamp::from_millisecond(1_790_000_000_123).unwrap());
            message.token = Some(Token::from_bits(7));
            message.part = Some(Part { index: 1, of: 3 });
            message.trouble = Some(Box::new(Trouble { cause: Cause::Misrouted, detail: "spam".to_owned() }));
            let kept = serde_json::to_string(&message).unwrap();
            let back: Message = serde_json::from_str(&kept).unwrap();
            assert_eq!(format!("{back:?}"), format!("{message:?}"), "{kept}");
            assert_eq!(back.body, body);
        }
        let small = serde_json::to_string(&Message::new("hello")).unwrap();
        assert_eq!(small, r#"{"body":{"text":"hello"}}"#);
    }
}
