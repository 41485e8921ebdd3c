//! MQTT 5 by its client library: what the rest of the channel asks of either version.

use std::time::Duration;

use rumqttc_v5::{
    AckMode, AsyncClient, ConnAckProperties, ConnectReturnCode, ConnectionError, Event, EventLoop,
    IncomingPacketSizeLimit, ManualAck, MqttOptions, Packet, PubRecReason, Publish, PublishNoticeError, PublishOptions,
    PublishProperties, PublishResult, QoS, StateError, SubscribeReasonCode,
};

use super::link::{Answer, Capabilities, Granted, Greeting, LARGEST, REQUESTS, Step, WINDOW};
use super::message::{Letter, Received};
use super::refusal::{not_let_in, sent_away};
use crate::channel::refusal::Refusal;

/// A client and its event loop. The loop's first turn greets the broker over the connection in `greeting`; it is given no
/// second one, so it can never connect again by itself and send what it still holds.
pub(super) fn start(greeting: Greeting) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(greeting.client_id.clone(), "unused");
    options
        .set_keep_alive(greeting.keep_alive)
        .set_clean_start(true)
        .set_ack_mode(AckMode::Manual)
        .set_connect_timeout(Duration::MAX)
        .set_receive_maximum(Some(WINDOW))
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(LARGEST));
    match (&greeting.user, &greeting.password) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.as_bytes().to_vec());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, Some(password)) => {
            options.set_password(password.as_bytes().to_vec());
        }
        (None, None) => {}
    }
    options.set_socket_connector(greeting.into_connector());
    AsyncClient::builder(options).capacity(REQUESTS).build()
}

/// Waits for the broker's CONNACK; what it says that it can do.
pub(super) async fn greet(events: &mut EventLoop, peer: &str) -> Result<Capabilities, Refusal> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => return Ok(capabilities(connack.properties.as_ref())),
            Ok(_) => {}
            Err(error) => return Err(refusal(error, peer)),
        }
    }
}

fn capabilities(properties: Option<&ConnAckProperties>) -> Capabilities {
    let all = Capabilities::default();
    let Some(properties) = properties else { return all };
    Capabilities {
        largest: properties.max_packet_size.unwrap_or(all.largest),
        qos: properties.max_qos.unwrap_or(all.qos),
        retains: properties.retain_available.is_none_or(|available| available == 1),
    }
}

/// One turn of the event loop.
pub(super) async fn next(events: &mut EventLoop, peer: &str) -> Result<Step<ManualAck>, Refusal> {
    match events.poll().await {
        Ok(Event::Incoming(Packet::Publish(publish))) => {
            // Only its QoS and packet identifier are in it.
            let receipt = match publish.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce => Some(ManualAck::PubAck(rumqttc_v5::PubAck::new(publish.pkid, None))),
                QoS::ExactlyOnce => Some(ManualAck::PubRec(rumqttc_v5::PubRec::new(publish.pkid, None))),
            };
            Ok(Step::Message(received(publish), receipt))
        }
        Ok(Event::Incoming(Packet::PubRec(pubrec))) if pubrec.reason == PubRecReason::NoMatchingSubscribers => {
            Ok(Step::Unmatched(pubrec.pkid))
        }
        Ok(_) => Ok(Step::Other),
        Err(error) => Err(refusal(error, peer)),
    }
}

/// Publishes, and waits for the last packet that its QoS asks for.
pub(super) async fn publish(client: &AsyncClient, letter: &Letter) -> Answer {
    let mut options = PublishOptions::new(qos(letter.qos)).retain(letter.is_retained);
    options = options.properties(properties(letter));
    let Ok(notice) = client.publish_tracked(letter.topic.clone(), letter.payload.clone(), options).await else {
        return Answer::NotTaken;
    };
    let answer = |code: u8, words: Option<String>| Answer::Word { code, words, packet: None };
    match notice.wait_async().await {
        Ok(PublishResult::Qos0Flushed) => Answer::Flushed,
        Ok(PublishResult::Qos1(ack)) => answer(ack.reason as u8, ack.properties.and_then(|more| more.reason_string)),
        Ok(PublishResult::Qos2PubRecRejected(rec)) => {
            answer(rec.reason as u8, rec.properties.and_then(|more| more.reason_string))
        }
        Ok(PublishResult::Qos2Completed(comp)) => {
            let words = comp.properties.and_then(|more| more.reason_string);
            Answer::Word { code: comp.reason as u8, words, packet: Some(comp.pkid) }
        }
        Err(PublishNoticeError::RetainNotSupported) => answer(0x9a, None),
        Err(_) => Answer::Lost,
    }
}

/// How large the letter is on the wire: a broker ends the connection over one that is too large for it.
pub(super) fn size(letter: &Letter) -> usize {
    let mut publish =
        Publish::new(letter.topic.clone(), qos(letter.qos), letter.payload.clone(), Some(properties(letter)));
    publish.pkid = 1;
    publish.size()
}

/// Subscribes; the broker's word on it.
pub(super) async fn subscribe(client: &AsyncClient, filter: &str, level: u8) -> Option<Granted> {
    let notice = client.subscribe_tracked(filter, qos(level)).await.ok()?;
    let suback = notice.wait_async().await.ok()?;
    let code = suback.return_codes.first().map_or(0x80, |code| match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8f,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9e,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xa1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xa2,
    });
    Some(Granted { code, words: suback.properties.and_then(|more| more.reason_string) })
}

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn properties(letter: &Letter) -> PublishProperties {
    let Some(properties) = &letter.properties else { return PublishProperties::default() };
    PublishProperties {
        message_expiry_interval: Some(properties.expiry_seconds),
        correlation_data: Some(properties.correlation.clone().into()),
        content_type: properties.content_type.map(str::to_owned),
        user_properties: properties.user.clone(),
        ..PublishProperties::default()
    }
}

fn received(publish: Publish) -> Received {
    let properties = publish.properties.unwrap_or_default();
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let own = [
        ("content-type", properties.content_type),
        ("correlation-data", properties.correlation_data.map(text)),
        ("response-topic", properties.response_topic),
        ("message-expiry-interval", properties.message_expiry_interval.map(|seconds| seconds.to_string())),
        ("payload-format-indicator", properties.payload_format_indicator.map(|indicator| indicator.to_string())),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Received {
        topic: publish.topic,
        qos: publish.qos as u8,
        is_retained: publish.retain,
        is_repeated: publish.dup,
        payload: publish.payload,
        properties: own.chain(properties.user_properties).collect(),
    }
}

fn refusal(error: ConnectionError, peer: &str) -> Refusal {
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            not_let_in(connect_code(code), None, peer)
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            sent_away(reason_code as u8, reason_string.as_deref(), peer)
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => Refusal::lost(peer, "no answer to our keep-alive"),
        ConnectionError::MqttState(StateError::ConnectionAborted) => Refusal::lost(peer, "it ended the connection"),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => Refusal::lost(peer, error),
        other => Refusal::lost(peer, other),
    }
}

/// The reason code of a CONNACK (MQTT 5 section 3.2.2.2), and of the CONNACK of 3.1.1 that an older broker answers with.
fn connect_code(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => 0x00,
        ConnectReturnCode::UnspecifiedError => 0x80,
        ConnectReturnCode::MalformedPacket => 0x81,
        ConnectReturnCode::ProtocolError => 0x82,
        ConnectReturnCode::ImplementationSpecificError => 0x83,
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => 0x84,
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => 0x85,
        ConnectReturnCode::BadUserNamePassword => 0x86,
        ConnectReturnCode::NotAuthorized => 0x87,
        ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServiceUnavailable => 0x88,
        ConnectReturnCode::ServerBusy => 0x89,
        ConnectReturnCode::Banned => 0x8a,
        ConnectReturnCode::BadAuthenticationMethod => 0x8c,
        ConnectReturnCode::TopicNameInvalid => 0x90,
        ConnectReturnCode::PacketTooLarge => 0x95,
        ConnectReturnCode::QuotaExceeded => 0x97,
        ConnectReturnCode::PayloadFormatInvalid => 0x99,
        ConnectReturnCode::RetainNotSupported => 0x9a,
        ConnectReturnCode::QoSNotSupported => 0x9b,
        ConnectReturnCode::UseAnotherServer => 0x9c,
        ConnectReturnCode::ServerMoved => 0x9d,
        ConnectReturnCode::ConnectionRateExceeded => 0x9f,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::outcome::Cause;

    #[test]
    fn what_the_library_reports_is_told_apart() {
        use std::io::{Error, ErrorKind};
        let io = || Error::from(ErrorKind::ConnectionReset);
        let cases = [
            (ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized), Cause::Auth, true),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::ServerBusy), Cause::Throttled, true),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion), Cause::Refused, true),
            (ConnectionError::Io(io()), Cause::Unreachable, false),
            (ConnectionError::MqttState(StateError::Io(io())), Cause::Unreachable, false),
            (ConnectionError::MqttState(StateError::AwaitPingResp), Cause::Unreachable, false),
            (ConnectionError::RequestsDone, Cause::Unreachable, false),
        ];
        for (error, cause, is_verdict) in cases {
            let shown = format!("{error:?}");
            let refusal = refusal(error, "mq:1883");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{shown}");
            assert!(refusal.detail.contains("mq:1883"), "{refusal:?}");
        }
    }

    #[test]
    fn a_letter_comes_back_with_its_properties_as_headers() {
        let letter = Letter {
            topic: "a/b".to_owned(),
            qos: 1,
            is_retained: false,
            payload: "{}".into(),
            properties: Some(super::super::message::Properties {
                expiry_seconds: 3_600,
                correlation: "jm0".to_owned(),
                content_type: Some("application/json"),
                user: vec![("x-a".to_owned(), "1".to_owned())],
            }),
        };
        let mut publish = Publish::new("a/b", QoS::AtLeastOnce, "{}", Some(properties(&letter)));
        (publish.dup, publish.retain) = (true, true);
        let received = received(publish);
        assert!(received.is_repeated && received.is_retained && received.qos == 1);
        let expected = [
            ("content-type", "application/json"),
            ("correlation-data", "jm0"),
            ("message-expiry-interval", "3600"),
            ("x-a", "1"),
        ];
        assert_eq!(received.properties, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(size(&letter) > letter.payload.len() + letter.topic.len());
    }
}
