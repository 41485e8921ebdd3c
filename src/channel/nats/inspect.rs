//! Looking at a stream, and at a consumer of it. Nothing is consumed, acknowledged or changed.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::timeout_at;

use super::NatsSettings;
use super::jetstream::{self, ConsumerInfo, StreamInfo};
use super::link::Link;
use super::receive::ask;
use super::wire::wrong_subject;
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;
use crate::time::{Now, between};

/// Asks about the stream that the step names, or the channel's, and about a consumer of it if the step names one.
pub(super) async fn check(
    settings: &NatsSettings,
    tls: Option<&Arc<ClientConfig>>,
    clock: Clock,
    outgoing: &Outgoing,
) -> Result<Reply, Fault> {
    let started = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    let seen = look(settings, tls, clock, limit, outgoing).await;
    let finished = clock.now();
    let phases = vec![Phase { name: "look".to_owned(), took: finished.mono.since(started.mono) }];
    match seen {
        Ok((stream, consumer)) => {
            let message = Some(told(&stream, consumer.as_ref(), finished));
            Ok(Reply { started, finished, ack: "seen".to_owned(), message, phases })
        }
        Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
    }
}

async fn look(
    settings: &NatsSettings,
    tls: Option<&Arc<ClientConfig>>,
    clock: Clock,
    limit: Limit,
    outgoing: &Outgoing,
) -> Result<(StreamInfo, Option<ConsumerInfo>), Refusal> {
    let field = |name: &str| outgoing.fields.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let Some(stream) = field("stream").or(settings.stream.as_deref()) else {
        return Err(Refusal::new(Cause::Refused, "nothing to look at: give the step or the channel a `stream`"));
    };
    let consumer = field("consumer");
    for name in [Some(stream), consumer].into_iter().flatten() {
        if name.contains('.') || wrong_subject(name, false).is_some() {
            return Err(Refusal::new(Cause::Refused, format!("`{name}` is not the name of a stream or a consumer")));
        }
    }
    let (link, _) = Link::open(settings, tls, "journeyman check", clock, limit).await?;
    let looking = async {
        let place = format!("stream `{stream}`");
        let info: StreamInfo = ask(&link, &jetstream::stream_info(stream), b"", &place).await?;
        let Some(consumer) = consumer else { return Ok((info, None)) };
        let place = format!("consumer `{consumer}` of {place}");
        let consumer = ask(&link, &jetstream::consumer_info(stream, consumer), b"", &place).await?;
        Ok((info, Some(consumer)))
    };
    let seen = timeout_at(limit.instant(), looking)
        .await
        .unwrap_or_else(|_| Err(Refusal::silence("looking at the stream", &link.peer, limit.length())));
    link.close().await;
    seen
}

/// What was seen, as a journey reads it. With a consumer, its depth is what it has still to get and to acknowledge.
fn told(stream: &StreamInfo, consumer: Option<&ConsumerInfo>, now: Now) -> Message {
    let state = &stream.state;
    let number = |count: u64| Value::from(i64::try_from(count).unwrap_or(i64::MAX));
    let mut message = Message::new(Vec::new());
    let oldest = state.first_ts.filter(|_| state.messages > 0).map_or(Duration::ZERO, |first| between(first, now.wall));
    message.facts.insert("oldest_age", Value::Duration(oldest));
    message.facts.insert("consumers", number(state.consumer_count));
    match consumer {
        None => drop(message.facts.insert("depth", number(state.messages))),
        Some(consumer) => {
            message.facts.insert("depth", number(consumer.num_pending + consumer.num_ack_pending));
            message.facts.insert("lag", number(consumer.num_pending));
            message.facts.insert("redelivered", Value::Bool(consumer.num_redelivered > 0));
            message.facts.insert("value", number(consumer.num_redelivered));
            let more = [
                ("num-ack-pending", consumer.num_ack_pending.to_string()),
                ("num-waiting", consumer.num_waiting.to_string()),
                ("push-bound", consumer.push_bound.to_string()),
            ];
            message.headers = more.map(|(name, value)| (name.to_owned(), value)).into();
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    #[test]
    fn a_stream_and_a_consumer_are_told_as_facts() {
        let stream =
            r#"{"config":{},"state":{"messages":3,"last_seq":9,"consumer_count":2,"first_ts":"2026-01-02T03:04:05Z"}}"#;
        let mut stream: StreamInfo = serde_json::from_str(stream).unwrap();
        let consumer = r#"{"name":"c","num_pending":2,"num_ack_pending":1,"num_redelivered":4,"num_waiting":0}"#;
        let consumer: ConsumerInfo = serde_json::from_str(consumer).unwrap();
        let now = Now { wall: "2026-01-02T03:04:15Z".parse().unwrap(), mono: Mono::default() };
        let alone = told(&stream, None, now);
        let expected = [
            ("consumers", Value::from(2)),
            ("depth", Value::from(3)),
            ("oldest_age", Value::Duration(Duration::from_secs(10))),
        ];
        assert_eq!(alone.facts.into_iter().collect::<Vec<_>>(), expected);
        let both = told(&stream, Some(&consumer), now);
        for (name, value) in [("depth", 3), ("lag", 2), ("value", 4)] {
            assert_eq!(both.facts[name], Value::from(value), "{name}");
        }
        assert_eq!(both.facts["redelivered"], Value::Bool(true));
        assert_eq!(both.header("num-ack-pending"), Some("1"));
        // An empty stream has the time of its making there, or the year 1.
        stream.state.messages = 0;
        assert_eq!(told(&stream, None, now).facts["oldest_age"], Value::Duration(Duration::ZERO));
    }
}
