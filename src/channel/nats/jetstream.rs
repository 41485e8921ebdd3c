//! JetStream's answers, and what is asked of it. Pure.
//! <https://docs.nats.io/reference/reference-protocols/nats_api_reference>

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::refusal::{ApiError, of_api};
use super::wire::Delivery;
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// The status of a message that only says that, or asks for an answer before it goes on.
pub(super) const CONTROL: u16 = 100;
/// The status of an answer in the name of a service that is not there.
pub(super) const NO_RESPONDERS: u16 = 503;

/// What a stream says to a message: it is stored, under this number.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Stored {
    pub(super) stream: String,
    pub(super) seq: u64,
    pub(super) duplicate: bool,
}

impl Stored {
    /// The acknowledgement in words.
    pub(super) fn ack(&self) -> String {
        let again = if self.duplicate { ", a duplicate that was not stored again" } else { "" };
        format!("stream {}, sequence {}{again}", self.stream, self.seq)
    }
}

/// What a stream is like.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) state: StreamState,
}

/// What a stream holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) last_seq: u64,
    pub(super) first_ts: Option<Timestamp>,
    pub(super) consumer_count: u64,
}

/// What a consumer is like.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConsumerInfo {
    pub(super) name: String,
    pub(super) num_pending: u64,
    pub(super) num_ack_pending: u64,
    pub(super) num_redelivered: u64,
    pub(super) num_waiting: u64,
    pub(super) push_bound: bool,
}

/// Reads an answer.
///
/// # Errors
/// An error of JetStream, or that there is no JetStream to answer.
pub(super) fn read<T: DeserializeOwned>(answer: &Delivery, place: &str) -> Result<T, Refusal> {
    #[derive(Deserialize)]
    struct Failed {
        error: ApiError,
    }
    if answer.status == Some(NO_RESPONDERS) {
        let detail = format!("nobody answers for {place}: no such stream, or no JetStream in this account (503)");
        return Err(Refusal::new(Cause::Unroutable, detail));
    }
    if let Ok(Failed { error }) = serde_json::from_slice(&answer.payload) {
        return Err(of_api(&error, place));
    }
    serde_json::from_slice(&answer.payload)
        .map_err(|error| Refusal::new(Cause::Refused, format!("the answer for {place} cannot be read: {error}")))
}

/// Where the API is asked about a stream.
pub(super) fn stream_info(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Where the API is asked about a consumer.
pub(super) fn consumer_info(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")
}

/// Where the API is asked for a consumer of our own, and how: ephemeral, in memory, in order, without acknowledgements, so
/// that it takes nothing from anyone and goes by itself when we do. It begins where it is told, and says that it is there when it
/// has had nothing for us for as long as `heartbeat`.
pub(super) fn consumer(stream: &str, filter: &str, to: &str, from: Start, heartbeat: Duration) -> (String, Vec<u8>) {
    let mut config = json!({
        "deliver_subject": to,
        "filter_subject": filter,
        "ack_policy": "none",
        "replay_policy": "instant",
        "max_deliver": 1,
        "flow_control": true,
        "idle_heartbeat": u64::try_from(heartbeat.as_nanos()).unwrap_or(u64::MAX),
        "mem_storage": true,
        "num_replicas": 1,
    });
    match from {
        Start::After(number) => {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (number + 1).into();
        }
        Start::Since(time) => {
            config["deliver_policy"] = "by_start_time".into();
            config["opt_start_time"] = time.to_string().into();
        }
    }
    let ask = json!({"stream_name": stream, "config": config});
    (format!("$JS.API.CONSUMER.CREATE.{stream}"), ask.to_string().into_bytes())
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the message after this number.
    After(u64),
    /// With the first message that is no older.
    Since(Timestamp),
}

/// Where a message stands, as its reply subject tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: String,
    /// How often it was delivered to this consumer, this time included.
    pub(super) delivered: u64,
    /// Its number in the stream.
    pub(super) stream_sequence: u64,
    /// Its number among the deliveries of the consumer: one more each time.
    pub(super) consumer_sequence: u64,
    /// When the stream had it.
    pub(super) stored: Timestamp,
}

/// `$JS.ACK.stream.consumer.delivered.sseq.cseq.time.pending`, or with `domain.account-hash` after `ACK` and a random part at
/// the end (ADR-15).
pub(super) fn place(reply: &str) -> Option<Place> {
    let parts: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let parts = match parts.len() {
        7 => &parts[..],
        9.. => &parts[2..],
        _ => return None,
    };
    let number = |at: usize| parts.get(at)?.parse::<u64>().ok();
    let nanos = parts.get(5)?.parse::<i128>().ok()?;
    Some(Place {
        stream: (*parts.first()?).to_owned(),
        delivered: number(2)?,
        stream_sequence: number(3)?,
        consumer_sequence: number(4)?,
        stored: Timestamp::from_nanosecond(nanos).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(payload: &'static str) -> Delivery {
        Delivery { payload: payload.into(), ..Delivery::default() }
    }

    #[test]
    fn a_stored_message_has_its_number_and_a_copy_is_named() {
        let stored: Stored = read(&answer(r#"{"stream":"ORDERS","seq":7}"#), "subject `a`").unwrap();
        assert_eq!(stored.ack(), "stream ORDERS, sequence 7");
        let again: Stored = read(&answer(r#"{"stream":"ORDERS","seq":7,"duplicate":true}"#), "subject `a`").unwrap();
        assert_eq!(again.ack(), "stream ORDERS, sequence 7, a duplicate that was not stored again");
    }

    #[test]
    fn no_stream_is_unroutable_and_an_error_is_told() {
        let nobody = Delivery { status: Some(503), ..Delivery::default() };
        let refusal = read::<Stored>(&nobody, "subject `a`").unwrap_err();
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Unroutable, true));
        let error =
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#;
        let refusal = read::<Stored>(&answer(error), "subject `a`").unwrap_err();
        assert_eq!(refusal.cause, Cause::Rejected);
        assert!(refusal.detail.contains("maximum messages exceeded"), "{refusal:?}");
        assert!(read::<Stored>(&answer("no json"), "subject `a`").unwrap_err().detail.contains("cannot be read"));
    }

    #[test]
    fn a_consumer_of_our_own_takes_nothing_from_anyone() {
        let (subject, ask) = consumer("ORDERS", "orders.>", "_INBOX.x", Start::After(41), Duration::from_secs(5));
        let ask: serde_json::Value = serde_json::from_slice(&ask).unwrap();
        assert_eq!((subject.as_str(), &ask["stream_name"]), ("$JS.API.CONSUMER.CREATE.ORDERS", &json!("ORDERS")));
        let config = &ask["config"];
        assert_eq!((&config["ack_policy"], config.get("durable_name")), (&json!("none"), None));
        assert_eq!((&config["deliver_policy"], &config["opt_start_seq"]), (&json!("by_start_sequence"), &json!(42)));
        assert_eq!(
            (&config["idle_heartbeat"], &config["deliver_subject"]),
            (&json!(5_000_000_000u64), &json!("_INBOX.x"))
        );
        let since = Start::Since("2026-01-02T03:04:05.678Z".parse().unwrap());
        let (_, ask) = consumer("ORDERS", "orders.>", "_INBOX.x", since, Duration::from_secs(5));
        let ask: serde_json::Value = serde_json::from_slice(&ask).unwrap();
        assert_eq!(
            (&ask["config"]["deliver_policy"], &ask["config"]["opt_start_time"], ask["config"].get("opt_start_seq")),
            (&json!("by_start_time"), &json!("2026-01-02T03:04:05.678Z"), None)
        );
    }

    #[test]
    fn a_reply_subject_tells_where_a_message_stands() {
        let expected = Place {
            stream: "ORDERS".to_owned(),
            delivered: 1,
            stream_sequence: 41,
            consumer_sequence: 3,
            stored: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        };
        for reply in [
            "$JS.ACK.ORDERS.c1.1.41.3.1767323045678000000.0",
            "$JS.ACK.hub.ACCHASH.ORDERS.c1.1.41.3.1767323045678000000.0",
            "$JS.ACK._.ACCHASH.ORDERS.c1.1.41.3.1767323045678000000.0.rAnDoM",
        ] {
            assert_eq!(place(reply).as_ref(), Some(&expected), "{reply}");
        }
        for reply in ["_INBOX.x", "$JS.ACK.S.c.1.2.3.4", "$JS.ACK.S.c.1.2.x.4.5", "$JS.ACK.S.c.1.2.3.4.5.6"] {
            assert_eq!(place(reply), None, "{reply}");
        }
    }
}
