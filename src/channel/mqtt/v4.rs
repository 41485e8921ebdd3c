//! MQTT 3.1.1 (protocol level 4) by its client library: what the rest of the channel asks of either version.

use rumqttc_v4::{
    AckMode, AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, ManualAck, MqttOptions, Packet,
    Publish, PublishOptions, PublishResult, QoS, StateError, SubscribeReasonCode,
};

use super::link::{Answer, Capabilities, Granted, Greeting, LARGEST, REQUESTS, Step};
use super::message::{Letter, Received};
use super::refusal::not_let_in;
use crate::channel::refusal::Refusal;

/// A client and its event loop. The loop's first turn greets the broker over the connection in `greeting`; it is given no
/// second one, so it can never connect again by itself and send what it still holds.
pub(super) fn start(greeting: Greeting) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(greeting.client_id.clone(), "unused");
    options
        .set_keep_alive(greeting.keep_alive)
        .set_clean_session(true)
        .set_ack_mode(AckMode::Manual)
        .set_max_packet_size(LARGEST as usize, LARGEST as usize);
    match (&greeting.user, &greeting.password) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.as_bytes().to_vec());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        // A password without a user is not in the protocol before 5 (3.1.1 section 3.1.2.9).
        (None, _) => {}
    }
    options.set_socket_connector(greeting.into_connector());
    AsyncClient::builder(options).capacity(REQUESTS).build()
}

/// Waits for the broker's CONNACK. It says nothing of what it can do.
pub(super) async fn greet(events: &mut EventLoop, peer: &str) -> Result<Capabilities, Refusal> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(Capabilities::default()),
            Ok(_) => {}
            Err(error) => return Err(refusal(error, peer)),
        }
    }
}

/// One turn of the event loop.
pub(super) async fn next(events: &mut EventLoop, peer: &str) -> Result<Step<ManualAck>, Refusal> {
    match events.poll().await {
        Ok(Event::Incoming(Packet::Publish(publish))) => {
            let receipt = match publish.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce => Some(ManualAck::PubAck(rumqttc_v4::PubAck::new(publish.pkid))),
                QoS::ExactlyOnce => Some(ManualAck::PubRec(rumqttc_v4::PubRec::new(publish.pkid))),
            };
            Ok(Step::Message(received(publish), receipt))
        }
        Ok(_) => Ok(Step::Other),
        Err(error) => Err(refusal(error, peer)),
    }
}

/// Publishes, and waits for the last packet that its QoS asks for. That packet can only say yes in this version.
pub(super) async fn publish(client: &AsyncClient, letter: &Letter) -> Answer {
    let options = PublishOptions::new(qos(letter.qos)).retain(letter.is_retained);
    let Ok(notice) = client.publish_tracked(letter.topic.clone(), letter.payload.clone(), options).await else {
        return Answer::NotTaken;
    };
    match notice.wait_async().await {
        Ok(PublishResult::Qos0Flushed) => Answer::Flushed,
        Ok(PublishResult::Qos1(_) | PublishResult::Qos2Completed(_)) => {
            Answer::Word { code: 0, words: None, packet: None }
        }
        Err(_) => Answer::Lost,
    }
}

/// Subscribes; the broker's word on it.
pub(super) async fn subscribe(client: &AsyncClient, filter: &str, level: u8) -> Option<Granted> {
    let notice = client.subscribe_tracked(filter, qos(level)).await.ok()?;
    let suback = notice.wait_async().await.ok()?;
    let code = suback.return_codes.first().map_or(0x80, |code| match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::Failure => 0x80,
    });
    Some(Granted { code, words: None })
}

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn received(publish: Publish) -> Received {
    Received {
        topic: publish.topic,
        qos: publish.qos as u8,
        is_retained: publish.retain,
        is_repeated: publish.dup,
        payload: publish.payload,
        properties: Vec::new(),
    }
}

fn refusal(error: ConnectionError, peer: &str) -> Refusal {
    match error {
        ConnectionError::ConnectionRefused(code) => not_let_in(connect_code(code), None, peer),
        ConnectionError::MqttState(StateError::AwaitPingResp) => Refusal::lost(peer, "no answer to our keep-alive"),
        ConnectionError::MqttState(StateError::ConnectionAborted) => Refusal::lost(peer, "it ended the connection"),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => Refusal::lost(peer, error),
        other => Refusal::lost(peer, other),
    }
}

/// The return code of a CONNACK (MQTT 3.1.1 section 3.2.2.3) as the reason code of MQTT 5 that says the same.
fn connect_code(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => 0x00,
        ConnectReturnCode::RefusedProtocolVersion => 0x84,
        ConnectReturnCode::BadClientId => 0x85,
        ConnectReturnCode::ServiceUnavailable => 0x88,
        ConnectReturnCode::BadUserNamePassword => 0x86,
        ConnectReturnCode::NotAuthorized => 0x87,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::outcome::Cause;

    #[test]
    fn what_the_library_reports_is_told_apart() {
        let cases = [
            (ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword), Cause::Auth, true),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable), Cause::Unreachable, true),
            (ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId), Cause::Refused, true),
            (ConnectionError::MqttState(StateError::AwaitPingResp), Cause::Unreachable, false),
            (ConnectionError::NetworkTimeout, Cause::Unreachable, false),
        ];
        for (error, cause, is_verdict) in cases {
            let shown = format!("{error:?}");
            let refusal = refusal(error, "mq:1883");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{shown}");
        }
    }
}
