//! Messages to and from MQTT: a [`Letter`] out, a [`Message`] in. Pure.

use std::time::Duration;

use bytes::Bytes;

use super::topic::wrong_name;
use super::{MqttSettings, Version};
use crate::channel::life::time_to_live;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::value::Value;

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// To which topic.
    pub(super) topic: String,
    /// At most once (0), at least once (1), exactly once (2).
    pub(super) qos: u8,
    /// Whether the broker keeps it for those who subscribe later.
    pub(super) is_retained: bool,
    /// The payload.
    pub(super) payload: Bytes,
    /// What only MQTT 5 has room for.
    pub(super) properties: Option<Properties>,
}

/// The properties of a message (MQTT 5 section 3.3.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Properties {
    /// The broker drops it after so many seconds.
    pub(super) expiry_seconds: u32,
    /// The token.
    pub(super) correlation: String,
    /// The payload's type.
    pub(super) content_type: Option<&'static str>,
    /// Header fields.
    pub(super) user: Vec<(String, String)>,
}

impl Letter {
    /// The letter of `outgoing`; its fields `topic`, `qos` and `retain` go before the channel's.
    ///
    /// # Errors
    /// A field that MQTT has no room for, in words.
    pub(super) fn new(outgoing: &Outgoing, settings: &MqttSettings) -> Result<Letter, String> {
        let field = |name: &str| outgoing.fields.get(name).map(String::as_str);
        let topic = field("topic").unwrap_or(&settings.topic);
        if let Some(wrong) = wrong_name(topic) {
            return Err(format!("cannot publish to topic `{topic}`: {wrong}"));
        }
        let qos = match field("qos") {
            None => settings.qos,
            Some("0") => 0,
            Some("1") => 1,
            Some("2") => 2,
            Some(other) => return Err(format!("`qos` is 0, 1 or 2, and not `{other}`")),
        };
        let is_retained = match field("retain") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("`retain` is `true` or `false`, and not `{other}`")),
        };
        let properties = match settings.version {
            Version::V5 => Some(properties(outgoing)?),
            Version::V311 if is_retained => {
                return Err("a retained message never expires in MQTT 3.1.1, and would stay behind for ever".to_owned());
            }
            Version::V311 => None,
        };
        let payload = Bytes::from(outgoing.body.clone());
        Ok(Letter { topic: topic.to_owned(), qos, is_retained, payload, properties })
    }

    /// The topic and the QoS, for messages to people.
    pub(super) fn place(&self) -> String {
        format!("topic `{}`, QoS {}", self.topic, self.qos)
    }
}

fn properties(outgoing: &Outgoing) -> Result<Properties, String> {
    let own = outgoing.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let trace = (!own).then(|| ("traceparent".to_owned(), outgoing.token.traceparent()));
    let user: Vec<_> = trace.into_iter().chain(outgoing.headers.iter().cloned()).collect();
    if let Some((name, value)) = user.iter().find(|(_, value)| value.len() > usize::from(u16::MAX)) {
        return Err(format!("header `{name}` has {} bytes; MQTT allows 65535", value.len()));
    }
    Ok(Properties {
        expiry_seconds: seconds(time_to_live(outgoing.timeout)),
        correlation: outgoing.token.to_string(),
        content_type: outgoing.content_type,
        user,
    })
}

fn seconds(life: Duration) -> u32 {
    u32::try_from(life.as_secs()).unwrap_or(u32::MAX)
}

/// A message that the broker brought, in either version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The topic that it was published to.
    pub(super) topic: Bytes,
    /// With which QoS it came to us.
    pub(super) qos: u8,
    /// It was kept by the broker from before we subscribed.
    pub(super) is_retained: bool,
    /// The broker has tried to bring it before.
    pub(super) is_repeated: bool,
    /// The payload.
    pub(super) payload: Bytes,
    /// What MQTT 5 has beside it, as header fields.
    pub(super) properties: Vec<(String, String)>,
}

/// The message as a journey reads it: what the protocol knows as header fields first, so that no sender's property hides it.
pub(super) fn read(received: Received) -> Message {
    let own = [
        ("topic", String::from_utf8_lossy(&received.topic).into_owned()),
        ("qos", received.qos.to_string()),
        ("retain", received.is_retained.to_string()),
        ("dup", received.is_repeated.to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let mut message = Message::new(received.payload);
    message.headers = own.chain(received.properties).collect();
    message.facts.insert("redelivered", Value::Bool(received.is_repeated));
    message
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::journey::token::Token;
    use crate::secret::{Redactor, Secret};

    fn settings(version: Version) -> MqttSettings {
        MqttSettings {
            version,
            url: Secret::new("mqtt://127.0.0.1".to_owned(), &Redactor::new()),
            user: None,
            password: None,
            ca_file: None,
            topic: "orders/created".to_owned(),
            subscribe: None,
            qos: 1,
            keep_alive: Duration::from_secs(10),
        }
    }

    fn outgoing(fields: &[(&str, &str)]) -> Outgoing {
        Outgoing {
            token: Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            url: None,
            method: None,
            path: None,
            query: Vec::new(),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: b"{}".to_vec(),
            content_type: Some("application/json"),
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            command: Vec::new(),
            timeout: Duration::from_secs(10),
            connected_since: None,
        }
    }

    #[test]
    fn a_letter_has_the_token_and_an_end_and_a_step_goes_before_the_channel() {
        let outgoing_plain = outgoing(&[]);
        let letter = Letter::new(&outgoing_plain, &settings(Version::V5)).unwrap();
        assert_eq!((letter.topic.as_str(), letter.qos, letter.is_retained), ("orders/created", 1, false));
        let properties = letter.properties.unwrap();
        assert_eq!(properties.correlation, outgoing_plain.token.to_string());
        assert_eq!((properties.expiry_seconds, properties.content_type), (3_600, Some("application/json")));
        let expected = [("traceparent", outgoing_plain.token.traceparent()), ("x-synthetic", "journeyman".to_owned())];
        assert_eq!(properties.user, expected.map(|(name, value)| (name.to_owned(), value)));

        let mut more = outgoing(&[("topic", "a/b"), ("qos", "2"), ("retain", "true")]);
        more.headers.push(("TraceParent".to_owned(), "00-mine".to_owned()));
        let letter = Letter::new(&more, &settings(Version::V5)).unwrap();
        assert_eq!((letter.topic.as_str(), letter.qos, letter.is_retained), ("a/b", 2, true));
        let traces =
            letter.properties.unwrap().user.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
        assert_eq!(traces.map(|(_, value)| value).collect::<Vec<_>>(), ["00-mine"]);
    }

    #[test]
    fn what_mqtt_has_no_room_for_is_told() {
        for (field, value, told) in [
            ("topic", "orders/+", "no wildcards"),
            ("topic", "", "at least one character"),
            ("qos", "3", "`qos` is 0, 1 or 2"),
            ("retain", "yes", "`retain` is `true` or `false`"),
        ] {
            let error = Letter::new(&outgoing(&[(field, value)]), &settings(Version::V5)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let old = settings(Version::V311);
        assert_eq!(Letter::new(&outgoing(&[]), &old).unwrap().properties, None);
        assert!(Letter::new(&outgoing(&[("retain", "true")]), &old).unwrap_err().contains("never expires"));
    }

    #[test]
    fn what_the_protocol_knows_comes_before_what_a_sender_says() {
        let received = Received {
            topic: "orders/created".into(),
            qos: 1,
            is_retained: true,
            is_repeated: true,
            payload: vec![0xff, 0x00].into(),
            properties: vec![("topic".to_owned(), "forged".to_owned()), ("x-a".to_owned(), "1".to_owned())],
        };
        let message = read(received);
        for (name, value) in
            [("topic", "orders/created"), ("qos", "1"), ("retain", "true"), ("dup", "true"), ("x-a", "1")]
        {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        assert_eq!(message.facts["redelivered"], Value::Bool(true));
        assert_eq!(message.body, [0xff, 0x00]);
    }
}
