//! Messages to and from AMQP: properties and headers out, a [`Message`] in. Pure.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::channel::life::time_to_live;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::value::Value;
use crate::time::Now;

/// Persistent, as production's messages are: a confirm then means what it means to them.
const PERSISTENT: u8 = 2;

/// What is published, beside the body.
#[derive(Debug)]
pub(super) struct Envelope {
    /// To which exchange.
    pub(super) exchange: ShortString,
    /// With which key.
    pub(super) routing_key: ShortString,
    /// Properties and headers.
    pub(super) properties: BasicProperties,
}

impl Envelope {
    /// The envelope of `outgoing`; its fields `exchange` and `routing_key` go before the channel's.
    ///
    /// # Errors
    /// A text that AMQP has no room for, in words.
    pub(super) fn new(outgoing: &Outgoing, exchange: &str, routing_key: &str, now: Now) -> Result<Envelope, String> {
        let field =
            |name: &str, otherwise: &str| short(name, outgoing.fields.get(name).map_or(otherwise, String::as_str));
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(outgoing.token.traceparent().into()));
        for (name, value) in &outgoing.headers {
            headers.insert(short("a header's name", name)?, AMQPValue::LongString(value.as_str().into()));
        }
        let token = outgoing.token.to_string();
        let life = time_to_live(outgoing.timeout);
        let mut properties = BasicProperties::default()
            .with_message_id(token.as_str().into())
            .with_correlation_id(token.into())
            .with_app_id("journeyman".into())
            .with_timestamp(u64::try_from(now.wall.as_second()).unwrap_or(0))
            .with_expiration(life.as_millis().to_string().into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        if let Some(content_type) = outgoing.content_type {
            properties = properties.with_content_type(content_type.into());
        }
        Ok(Envelope {
            exchange: field("exchange", exchange)?,
            routing_key: field("routing_key", routing_key)?,
            properties,
        })
    }
}

fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("{what} has {} bytes; AMQP allows 255", text.len()))
}

/// The delivery as a journey reads it: properties as header fields by their AMQP names, then the headers as text.
pub(super) fn read(delivery: Delivery) -> Message {
    let properties = &delivery.properties;
    let texts = [
        ("content-type", properties.content_type()),
        ("content-encoding", properties.content_encoding()),
        ("message-id", properties.message_id()),
        ("correlation-id", properties.correlation_id()),
        ("reply-to", properties.reply_to()),
        ("type", properties.kind()),
        ("app-id", properties.app_id()),
        ("user-id", properties.user_id()),
        ("expiration", properties.expiration()),
    ];
    let mut headers: Vec<_> = texts
        .into_iter()
        .filter_map(|(name, text)| text.as_ref().map(|text| (name.to_owned(), text.to_string())))
        .collect();
    headers.extend(properties.timestamp().map(|seconds| ("timestamp".to_owned(), seconds.to_string())));
    let table = properties.headers().as_ref().map(FieldTable::inner);
    headers.extend(table.into_iter().flatten().map(|(name, value)| (name.to_string(), text(value))));

    let mut facts = std::collections::BTreeMap::from([
        ("redelivered", Value::Bool(delivery.redelivered)),
        ("exchange", Value::from(delivery.exchange.as_str())),
        ("routing_key", Value::from(delivery.routing_key.as_str())),
    ]);
    // Set by RabbitMQ on messages that were dead-lettered: why, from where, how often.
    facts.extend(table.and_then(|table| table.get("x-death")).map(|death| ("x_death", Value::Text(text(death)))));

    let mut message = Message::new(delivery.data);
    message.headers = headers;
    message.facts = facts;
    message
}

/// A header's value as text: scalars as they are, lists and tables as JSON.
fn text(value: &AMQPValue) -> String {
    match json(value) {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(decimal) => {
            let scale = usize::from(decimal.scale);
            let digits = format!("{:0>width$}", decimal.value, width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            if part.is_empty() { whole.into() } else { format!("{whole}.{part}").into() }
        }
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => text.to_string().into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect()
        }
        AMQPValue::Void => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;
    use crate::time::Mono;

    fn outgoing() -> Outgoing {
        Outgoing {
            token: Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            url: None,
            method: None,
            path: None,
            query: Vec::new(),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: b"{}".to_vec(),
            content_type: Some("application/json"),
            fields: BTreeMap::new(),
            command: Vec::new(),
            timeout: Duration::from_secs(10),
            connected_since: None,
        }
    }

    fn now() -> Now {
        Now { wall: "2026-01-02T03:04:05.678Z".parse().unwrap(), mono: Mono::default() }
    }

    #[test]
    fn what_goes_out_comes_back_with_the_token_in_its_headers() {
        let outgoing = outgoing();
        let envelope = Envelope::new(&outgoing, "orders", "order.created", now()).unwrap();
        let mut delivery = Delivery::mock(1, envelope.exchange, envelope.routing_key, true, outgoing.body.clone());
        delivery.properties = envelope.properties;
        let message = read(delivery);

        let token = outgoing.token.to_string();
        let expected = [
            ("message-id", token.as_str()),
            ("correlation-id", token.as_str()),
            ("traceparent", &outgoing.token.traceparent()),
            ("x-synthetic", "journeyman"),
            ("content-type", "application/json"),
            ("app-id", "journeyman"),
            ("timestamp", "1767323045"),
            ("expiration", "3600000"),
        ];
        for (name, value) in expected {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        assert_eq!(message.body, b"{}");
        assert_eq!(message.facts["redelivered"], Value::Bool(true));
        assert_eq!(message.facts["exchange"], Value::from("orders"));
        assert_eq!(message.facts["routing_key"], Value::from("order.created"));
        assert_eq!(message.facts.get("x_death"), None);
    }

    #[test]
    fn a_step_goes_before_the_channel_and_a_long_timeout_lengthens_the_life() {
        let mut outgoing = outgoing();
        outgoing.fields.insert("routing_key".to_owned(), "order.cancelled".to_owned());
        outgoing.headers.push(("traceparent".to_owned(), "00-mine".to_owned()));
        outgoing.timeout = Duration::from_secs(1_000);
        let envelope = Envelope::new(&outgoing, "orders", "order.created", now()).unwrap();
        assert_eq!((envelope.exchange.as_str(), envelope.routing_key.as_str()), ("orders", "order.cancelled"));
        assert_eq!(envelope.properties.expiration().as_ref().unwrap().as_str(), "10000000");
        let headers = envelope.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers["traceparent"], AMQPValue::LongString("00-mine".into()));

        outgoing.fields.insert("exchange".to_owned(), "x".repeat(256));
        let error = Envelope::new(&outgoing, "orders", "order.created", now()).unwrap_err();
        assert_eq!(error, "exchange has 256 bytes; AMQP allows 255");
    }

    #[test]
    fn headers_of_every_type_are_readable() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), AMQPValue::LongString("rejected".into()));
        death.insert("count".into(), AMQPValue::LongLongInt(2));
        let mut table = FieldTable::default();
        table.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        table.insert("flag".into(), AMQPValue::Boolean(true));
        let price = lapin::types::DecimalValue { scale: 2, value: 5 };
        table.insert("price".into(), AMQPValue::DecimalValue(price));
        table.insert("nothing".into(), AMQPValue::Void);
        let mut delivery = Delivery::mock(1, "".into(), "q".into(), false, Vec::new());
        delivery.properties = BasicProperties::default().with_headers(table);
        let message = read(delivery);
        assert_eq!(message.header("flag"), Some("true"));
        assert_eq!(message.header("price"), Some("0.05"));
        assert_eq!(message.header("nothing"), Some(""));
        assert_eq!(message.facts["x_death"], Value::from(r#"[{"count":2,"reason":"rejected"}]"#));
    }
}
