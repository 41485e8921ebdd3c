//! Messages to and from SQS: attributes out, a [`Message`] in, whether it came by itself or in an envelope of SNS. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::channel::aws;
use crate::journey::Outgoing;
use crate::journey::message::{Hop, Message};
use crate::journey::value::Value;
use crate::time::between;

/// The group of what goes to a FIFO queue, unless the step says otherwise.
const GROUP: &str = "journeyman";

/// What `SendMessage` is asked for. `chance` tells several messages of one run apart.
///
/// # Errors
/// What SQS has no room for, in words.
pub(super) fn outgoing(outgoing: &Outgoing, queue: &str, chance: u64) -> Result<Json, String> {
    let attributes = aws::attributes(outgoing.token, &outgoing.headers)?;
    let attributes: Map<_, _> = attributes
        .into_iter()
        .map(|(name, value)| (name, json!({ "DataType": "String", "StringValue": value })))
        .collect();
    let mut asked = json!({
        "QueueUrl": queue,
        "MessageBody": aws::text(&outgoing.body)?,
        "MessageAttributes": attributes,
    });
    let Order { group, deduplication } = order(outgoing, queue, chance);
    if let Some(group) = group {
        asked["MessageGroupId"] = group.into();
    }
    if let Some(deduplication) = deduplication {
        asked["MessageDeduplicationId"] = deduplication.into();
    }
    Ok(asked)
}

/// What only FIFO queues and topics must have.
pub(in crate::channel) struct Order {
    /// Messages of one group stay in order.
    pub(in crate::channel) group: Option<String>,
    /// A second message with the same one is taken and thrown away, for five minutes.
    pub(in crate::channel) deduplication: Option<String>,
}

/// The order of a message to `place`, whose name ends with `.fifo` if it keeps one.
pub(in crate::channel) fn order(outgoing: &Outgoing, place: &str, chance: u64) -> Order {
    let is_fifo = place.ends_with(".fifo");
    let field = |name: &str, otherwise: &dyn Fn() -> String| {
        let given = outgoing.fields.get(name).filter(|text| !text.is_empty()).cloned();
        given.or_else(|| is_fifo.then(otherwise))
    };
    let group = field("group", &|| GROUP.to_owned());
    // Nothing is sent twice by us, and two sends of one run are two messages: the token alone would lose the second.
    let deduplication = field("deduplication", &|| format!("{}-{chance:016x}", outgoing.token));
    Order { group, deduplication }
}

/// One message as `ReceiveMessage` gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Received {
    pub(super) message_id: String,
    /// What it is deleted by.
    pub(super) receipt_handle: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    string_value: Option<String>,
    /// In base64.
    binary_value: Option<String>,
}

/// What SNS puts around a message where raw delivery is off.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    r#type: String,
    topic_arn: String,
    message: String,
    message_id: String,
    subject: Option<String>,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    message_attributes: BTreeMap<String, EnvelopeAttribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnvelopeAttribute {
    value: String,
}

/// The message as a journey reads it: attributes as header fields under their names, what SQS knows under names with a dash.
pub(super) fn read(received: &Received) -> Message {
    let Received { message_id, body, attributes, message_attributes, .. } = received;
    let mut headers = vec![("message-id".to_owned(), message_id.clone())];
    let known = SYSTEM.iter().filter_map(|(theirs, ours)| Some(((*ours).to_owned(), attributes.get(*theirs)?.clone())));
    headers.extend(known);
    let own = message_attributes.iter().filter_map(|(name, attribute)| {
        Some((name.clone(), attribute.string_value.as_ref().or(attribute.binary_value.as_ref())?.clone()))
    });
    headers.extend(own);

    let millis = |name: &str| {
        let millis = attributes.get(name).and_then(|text| text.parse().ok())?;
        Timestamp::from_millisecond(millis).ok()
    };
    let (sent, first) = (millis("SentTimestamp"), millis("ApproximateFirstReceiveTimestamp"));
    let mut hops = Vec::new();
    let mut payload = body.as_str();
    let envelope = serde_json::from_str::<Envelope>(body).ok().filter(|envelope| envelope.r#type == "Notification");
    if let Some(envelope) = &envelope {
        payload = &envelope.message;
        headers.push(("topic-arn".to_owned(), envelope.topic_arn.clone()));
        headers.push(("sns-message-id".to_owned(), envelope.message_id.clone()));
        headers.extend(envelope.subject.iter().map(|subject| ("subject".to_owned(), subject.clone())));
        headers.extend(envelope.message_attributes.iter().map(|(name, held)| (name.clone(), held.value.clone())));
        hops.extend(hop("topic", envelope.timestamp, sent));
    }
    hops.extend(hop("queue", sent, first));

    let mut message = Message::new(payload);
    if let Some(count) = attributes.get("ApproximateReceiveCount").and_then(|text| text.parse::<u64>().ok()) {
        message.facts.insert("redelivered", Value::Bool(count > 1));
    }
    message.headers = headers;
    message.hops = hops;
    message
}

fn hop(name: &str, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Hop> {
    let took: Duration = between(from?, to?);
    Some(Hop { name: name.to_owned(), took })
}

/// What SQS knows of a message, and the header fields that tell it.
const SYSTEM: &[(&str, &str)] = &[
    ("ApproximateReceiveCount", "receive-count"),
    ("SentTimestamp", "sent-timestamp"),
    ("ApproximateFirstReceiveTimestamp", "first-receive-timestamp"),
    ("SenderId", "sender-id"),
    ("MessageGroupId", "message-group-id"),
    ("MessageDeduplicationId", "message-deduplication-id"),
    ("SequenceNumber", "sequence-number"),
    ("AWSTraceHeader", "aws-trace-header"),
    ("DeadLetterQueueSourceArn", "dead-letter-queue-source-arn"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::token::Token;

    const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders";

    fn sent() -> Outgoing {
        Outgoing {
            token: Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            headers: vec![("x-synthetic".to_owned(), "journeyman".to_owned())],
            body: b"{\"n\":1}".to_vec(),
            ..Outgoing::empty(Duration::from_secs(1))
        }
    }

    fn received(more: Json) -> Received {
        let mut json = json!({ "MessageId": "id-1", "ReceiptHandle": "handle", "Body": "hello" });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_goes_out_has_the_token_the_trace_and_the_headers() {
        let outgoing = sent();
        let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let asked = super::outgoing(&outgoing, QUEUE, 7).unwrap();
        let expected = json!({
            "QueueUrl": QUEUE,
            "MessageBody": "{\"n\":1}",
            "MessageAttributes": {
                "journeyman-token": text(&outgoing.token.to_string()),
                "traceparent": text(&outgoing.token.traceparent()),
                "x-synthetic": text("journeyman"),
            },
        });
        assert_eq!(asked, expected);
        let empty = Outgoing { body: Vec::new(), ..sent() };
        assert!(super::outgoing(&empty, QUEUE, 7).unwrap_err().contains("empty"));
    }

    #[test]
    fn a_fifo_queue_gets_a_group_and_two_sends_of_a_run_are_two_messages() {
        let fifo = format!("{QUEUE}.fifo");
        let asked = |outgoing: &Outgoing, chance| super::outgoing(outgoing, &fifo, chance).unwrap();
        let (first, second) = (asked(&sent(), 1), asked(&sent(), 2));
        assert_eq!(first["MessageGroupId"], "journeyman");
        assert_ne!(first["MessageDeduplicationId"], second["MessageDeduplicationId"]);
        let fields = [("group", "g"), ("deduplication", "d")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let given = Outgoing { fields: fields.into(), ..sent() };
        let given = asked(&given, 1);
        assert_eq!((&given["MessageGroupId"], &given["MessageDeduplicationId"]), (&json!("g"), &json!("d")));
    }

    #[test]
    fn attributes_and_what_sqs_knows_are_headers_facts_and_hops() {
        let message = read(&received(json!({
            "Attributes": {
                "SentTimestamp": "1795259038887", "ApproximateFirstReceiveTimestamp": "1795259038892",
                "ApproximateReceiveCount": "2", "SenderId": "AIDA",
            },
            "MessageAttributes": {
                "x-synthetic": { "DataType": "String", "StringValue": "journeyman" },
                "blob": { "DataType": "Binary", "BinaryValue": "/wD+" },
            },
        })));
        let expected = [
            ("message-id", "id-1"),
            ("receive-count", "2"),
            ("sent-timestamp", "1795259038887"),
            ("sender-id", "AIDA"),
            ("x-synthetic", "journeyman"),
            ("blob", "/wD+"),
        ];
        for (name, value) in expected {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        assert_eq!(message.body, b"hello");
        assert_eq!(message.facts["redelivered"], Value::Bool(true));
        assert_eq!(message.hops, [Hop { name: "queue".to_owned(), took: Duration::from_millis(5) }]);
    }

    #[test]
    fn an_envelope_of_sns_is_opened_and_nothing_else_is() {
        let envelope = json!({
            "Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Subject": "s",
            "Message": "inside", "Timestamp": "2026-11-21T11:03:59.014Z", "SignatureVersion": "2",
            "MessageAttributes": { "traceparent": { "Type": "String", "Value": "00-a-b-01" } },
        });
        let at = json!({ "SentTimestamp": "1795259039015", "ApproximateFirstReceiveTimestamp": "1795259039021" });
        let message = read(&received(json!({ "Body": envelope.to_string(), "Attributes": at })));
        assert_eq!(message.body, b"inside");
        let expected = [
            ("topic-arn", "arn:aws:sns:eu-west-1:1:t"),
            ("sns-message-id", "sns-1"),
            ("subject", "s"),
            ("traceparent", "00-a-b-01"),
        ];
        for (name, value) in expected {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        let hops: Vec<_> = message.hops.iter().map(|hop| (hop.name.as_str(), hop.took.as_millis())).collect();
        assert_eq!(hops, [("topic", 1), ("queue", 6)]);

        let mut other = envelope;
        other["Type"] = "SubscriptionConfirmation".into();
        for body in [other.to_string(), "{\"Type\":\"Notification\"}".to_owned(), "{".to_owned(), String::new()] {
            assert_eq!(read(&received(json!({ "Body": body }))).body, body.as_bytes());
        }
    }
}
