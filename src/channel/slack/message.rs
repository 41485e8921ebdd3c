//! Messages to and from Slack: text and metadata out, a [`Message`] in. Pure.

use serde_json::{Map, Value as Json, json};

use crate::journey::Outgoing;
use crate::journey::message::Message;

/// The type of the metadata that marks a message as a probe of Journeyman's.
const EVENT_TYPE: &str = "journeyman_probe";
/// A message that Slack changed, hid or wrote itself is not an arrival; these are.
const ARRIVES: &[&str] = &["bot_message", "file_share", "me_message", "thread_broadcast"];

/// What `chat.postMessage` is asked for: the payload as text, and the token, the trace and the step's headers as metadata.
///
/// # Errors
/// What Slack has no room for, in words.
pub(super) fn outgoing(outgoing: &Outgoing, channel: &str) -> Result<Json, String> {
    let text =
        std::str::from_utf8(&outgoing.body).map_err(|_| "the payload is not text, and a message is".to_owned())?;
    if text.trim().is_empty() {
        return Err("the payload is empty; a message has text".to_owned());
    }
    let given = outgoing.fields.get("channel").filter(|channel| !channel.is_empty());
    let mut payload = Map::new();
    payload.insert("token".to_owned(), outgoing.token.to_string().into());
    payload.insert("traceparent".to_owned(), outgoing.token.traceparent().into());
    payload.extend(outgoing.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    Ok(json!({
        "channel": given.map_or(channel, String::as_str),
        "text": text,
        "metadata": { "event_type": EVENT_TYPE, "event_payload": payload },
        // A look at what a link leads to would be a visitor to the watched system, and an edit of the message.
        "unfurl_links": false,
        "unfurl_media": false,
    }))
}

/// A message of the conversation.
pub(super) struct Seen {
    /// Its id in the conversation.
    pub(super) ts: String,
    /// The token that its metadata names as ours to take away, before anyone has looked whose it is.
    pub(super) probe: Option<String>,
    /// As a journey reads it.
    pub(super) message: Message,
}

/// Reads a message as the history has it, and as events carry it; `None` for what is no message of anybody's.
pub(super) fn read(json: &Json) -> Option<Seen> {
    let text = |key: &str| json[key].as_str();
    let is_arrival = text("subtype").is_none_or(|subtype| ARRIVES.contains(&subtype));
    let ts = text("ts").filter(|_| is_arrival && text("type") == Some("message"))?;
    let mut message = Message::new(plain(text("text").unwrap_or_default()));
    let known = ["ts", "user", "bot_id", "app_id", "thread_ts", "subtype", "team"];
    let known = known.into_iter().filter_map(|key| Some((key.replace('_', "-"), text(key)?.to_owned())));
    message.headers = known.collect();
    let metadata = &json["metadata"];
    let is_probe = metadata["event_type"].as_str() == Some(EVENT_TYPE);
    let payload = metadata["event_payload"].as_object().into_iter().flatten();
    message.headers.extend(payload.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    }));
    let probe = metadata["event_payload"]["token"].as_str().filter(|_| is_probe).map(str::to_owned);
    Some(Seen { ts: ts.to_owned(), probe, message })
}

/// The text as it was sent: Slack gives back its three control characters as entities.
/// <https://docs.slack.dev/messaging/formatting-message-text#escaping>
fn plain(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// A `ts` in microseconds; it orders messages, and is too long for a floating-point number.
pub(super) fn micros(ts: &str) -> Option<u64> {
    let (seconds, fraction) = ts.split_once('.')?;
    let fraction: u64 = (fraction.len() == 6).then(|| fraction.parse().ok())??;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// The `ts` of so many microseconds.
pub(super) fn ts(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;

    #[test]
    fn what_goes_out_comes_back_by_history() {
        let sent = Outgoing {
            token: Token::from_bits(7),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: b"order <1> & more".to_vec(),
            ..Outgoing::empty(Duration::from_secs(1))
        };
        let mut json = outgoing(&sent, "C1").unwrap();
        assert_eq!((json["channel"].as_str(), json["metadata"]["event_type"].as_str()), (Some("C1"), Some(EVENT_TYPE)));
        json["type"] = "message".into();
        json["ts"] = "1795259038.000200".into();
        json["text"] = "order &lt;1&gt; &amp; more".into();
        json["bot_id"] = "B1".into();
        let seen = read(&json).unwrap();
        assert_eq!((seen.ts.as_str(), seen.probe), ("1795259038.000200", Some(sent.token.to_string())));
        assert_eq!(seen.message.body, b"order <1> & more");
        for (name, value) in [
            ("ts", "1795259038.000200"),
            ("bot-id", "B1"),
            ("token", &sent.token.to_string()),
            ("traceparent", &sent.token.traceparent()),
            ("x-synthetic", "journeyman"),
        ] {
            assert_eq!(seen.message.header(name), Some(value), "{name}");
        }
        let elsewhere = Outgoing { fields: [("channel".to_owned(), "C2".to_owned())].into(), ..sent };
        assert_eq!(outgoing(&elsewhere, "C1").unwrap()["channel"], "C2");
        for body in [&b" \n"[..], &[0xff]] {
            assert!(outgoing(&Outgoing { body: body.to_vec(), ..elsewhere.clone() }, "C1").is_err());
        }
    }

    #[test]
    fn metadata_of_others_is_no_licence_and_edits_are_no_arrivals() {
        let message = |more: Json| {
            let mut json = json!({ "type": "message", "ts": "1.000001", "text": "hi", "user": "U1" });
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(&json)
        };
        let notice = json!({ "metadata": { "event_type": "journeyman_notice", "event_payload": { "token": "jm0" } } });
        let seen = message(notice).unwrap();
        assert_eq!((seen.probe, seen.message.header("token")), (None, Some("jm0")));
        for subtype in ["message_changed", "message_deleted", "channel_join"] {
            assert!(message(json!({ "subtype": subtype })).is_none(), "{subtype}");
        }
        assert!(message(json!({ "subtype": "bot_message" })).is_some());
        assert!(message(json!({ "type": "reaction_added" })).is_none());
        assert!(message(json!({ "ts": 7 })).is_none());
    }

    #[test]
    fn a_ts_is_exact() {
        for text in ["1795259038.000200", "0.000001"] {
            assert_eq!(ts(micros(text).unwrap()), text);
        }
        for text in
            ["", "1", "1.2", "x.000001", "1.00000x", "99999999999999999999.000001", "18446744073709551615.000001"]
        {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
