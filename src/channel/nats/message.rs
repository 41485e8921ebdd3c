//! Messages to and from NATS: a [`Letter`] out, a [`Message`] in. Pure.

use super::NatsSettings;
use super::jetstream::{self, Place};
use super::wire::{Delivery, header_block, wrong_subject};
use crate::journey::Outgoing;
use crate::journey::message::{Hop, Message};
use crate::journey::value::Value;
use crate::time::{Now, between};

/// What a stream knows a message by, and takes only once within its window.
const ID: &str = "Nats-Msg-Id";

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// To which subject.
    pub(super) subject: String,
    /// Header fields.
    pub(super) headers: Vec<(String, String)>,
    /// The payload.
    pub(super) payload: Vec<u8>,
}

impl Letter {
    /// The letter of `outgoing`; its fields `subject` and `message_id` go before the channel's subject and the token.
    ///
    /// # Errors
    /// What NATS has no room for, in words.
    pub(super) fn new(outgoing: &Outgoing, settings: &NatsSettings) -> Result<Letter, String> {
        let subject = outgoing.fields.get("subject").unwrap_or(&settings.subject);
        if let Some(wrong) = wrong_subject(subject, false) {
            return Err(format!("cannot publish to subject `{subject}`: {wrong}"));
        }
        let id = outgoing.fields.get("message_id").cloned().unwrap_or_else(|| outgoing.token.to_string());
        let own = [
            (ID, Some(id).filter(|id| !id.is_empty())),
            // So that a subject that has moved to another stream is told, and not measured.
            ("Nats-Expected-Stream", settings.stream.clone()),
            ("traceparent", Some(outgoing.token.traceparent())),
            ("Content-Type", outgoing.content_type.map(str::to_owned)),
        ];
        let given = |name: &str| outgoing.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let own = own.into_iter().filter(|(name, _)| !given(name));
        let own = own.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let headers: Vec<_> = own.chain(outgoing.headers.iter().cloned()).collect();
        if let Some((name, _)) = headers.iter().find(|(name, value)| has_break(name) || has_break(value)) {
            return Err(format!("header `{name}` has a line break in it, which NATS headers cannot have"));
        }
        Ok(Letter { subject: subject.clone(), headers, payload: outgoing.body.clone() })
    }

    /// How large it is to the server, which has a limit for it.
    pub(super) fn size(&self) -> usize {
        header_block(&self.headers).len() + self.payload.len()
    }
}

fn has_break(text: &str) -> bool {
    text.contains(['\r', '\n'])
}

/// The message as a journey reads it: what the server knows as header fields first, so that no sender's header hides it.
pub(super) fn read(delivery: Delivery, at: Now) -> Message {
    let place = delivery.reply.as_deref().and_then(jetstream::place);
    let reply = delivery.reply.filter(|_| place.is_none());
    let mut own = vec![("nats-subject".to_owned(), delivery.subject)];
    own.extend(reply.map(|reply| ("nats-reply-to".to_owned(), reply)));
    let mut message = Message::new(delivery.payload);
    if let Some(Place { stream, delivered, stream_sequence, stored, .. }) = place {
        own.push(("nats-stream".to_owned(), stream));
        own.push(("nats-sequence".to_owned(), stream_sequence.to_string()));
        own.push(("nats-time-stamp".to_owned(), stored.to_string()));
        message.facts.insert("redelivered", Value::Bool(delivered > 1));
        message.hops.push(Hop { name: "stream".to_owned(), took: between(stored, at.wall) });
        message.stored = Some(stored);
    }
    message.headers = own.into_iter().chain(delivery.headers).collect();
    message
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;
    use crate::secret::{Redactor, Secret};
    use crate::time::Mono;

    fn settings() -> NatsSettings {
        let mut settings = NatsSettings::plain(Secret::new("nats://127.0.0.1".to_owned(), &Redactor::new()));
        settings.subject = "orders.created".to_owned();
        settings
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

    fn header<'a>(letter: &'a Letter, name: &str) -> Option<&'a str> {
        letter.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_letter_has_the_token_as_its_id_and_a_step_goes_before_it() {
        let plain = outgoing(&[]);
        let letter = Letter::new(&plain, &settings()).unwrap();
        assert_eq!(letter.subject, "orders.created");
        assert_eq!(header(&letter, "Nats-Msg-Id"), Some(plain.token.to_string().as_str()));
        assert_eq!(header(&letter, "traceparent"), Some(plain.token.traceparent().as_str()));
        assert_eq!(header(&letter, "Content-Type"), Some("application/json"));
        assert_eq!(
            (header(&letter, "x-synthetic"), header(&letter, "Nats-Expected-Stream")),
            (Some("journeyman"), None)
        );
        assert_eq!(letter.size(), header_block(&letter.headers).len() + 2);

        let mut stream = settings();
        stream.stream = Some("ORDERS".to_owned());
        let mut own = outgoing(&[("subject", "orders.other"), ("message_id", "fixed")]);
        own.headers.push(("Traceparent".to_owned(), "00-mine".to_owned()));
        let letter = Letter::new(&own, &stream).unwrap();
        assert_eq!((letter.subject.as_str(), header(&letter, "Nats-Msg-Id")), ("orders.other", Some("fixed")));
        assert_eq!(header(&letter, "Nats-Expected-Stream"), Some("ORDERS"));
        assert_eq!((header(&letter, "Traceparent"), header(&letter, "traceparent")), (Some("00-mine"), None));
        assert_eq!(header(&Letter::new(&outgoing(&[("message_id", "")]), &stream).unwrap(), "Nats-Msg-Id"), None);
    }

    #[test]
    fn what_nats_has_no_room_for_is_told() {
        for subject in ["orders.*", "", "a b"] {
            assert!(Letter::new(&outgoing(&[("subject", subject)]), &settings()).is_err(), "{subject}");
        }
        let mut broken = outgoing(&[]);
        broken.headers.push(("x".to_owned(), "a\r\nNats-Msg-Id: forged".to_owned()));
        assert!(Letter::new(&broken, &settings()).unwrap_err().contains("line break"));
    }

    #[test]
    fn a_message_of_a_stream_says_where_it_stood_and_when() {
        let at = Now { wall: "2026-01-02T03:04:05.688Z".parse().unwrap(), mono: Mono::default() };
        let delivery = Delivery {
            subject: "orders.done".to_owned(),
            reply: Some("$JS.ACK.ORDERS.c1.2.41.3.1767323045678000000.0".to_owned()),
            headers: vec![("nats-subject".to_owned(), "forged".to_owned()), ("x-a".to_owned(), "1".to_owned())],
            payload: "{}".into(),
            ..Delivery::default()
        };
        let message = read(delivery, at);
        for (name, value) in [
            ("nats-subject", "orders.done"),
            ("nats-stream", "ORDERS"),
            ("nats-sequence", "41"),
            ("nats-time-stamp", "2026-01-02T03:04:05.678Z"),
            ("x-a", "1"),
        ] {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        assert_eq!(message.header("nats-reply-to"), None);
        assert_eq!(message.facts["redelivered"], Value::Bool(true));
        assert_eq!(message.hops, [Hop { name: "stream".to_owned(), took: Duration::from_millis(10) }]);
        let core = Delivery { subject: "a".to_owned(), reply: Some("_INBOX.x".to_owned()), ..Delivery::default() };
        let core = read(core, at);
        assert_eq!((core.header("nats-reply-to"), core.facts.len(), core.hops.len()), (Some("_INBOX.x"), 0, 0));
    }
}
