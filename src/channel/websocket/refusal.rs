//! Why the server, or the way to it, said no: statuses, close codes and errors as causes and sentences. Pure.

use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// So much of what the server says of its goodbye is repeated: a close frame's reason may have 123 bytes.
const REASON: usize = 123;

/// Why the handshake with `peer` failed. Nothing was sent.
pub(super) fn of_handshake(error: &Error, peer: &str) -> Refusal {
    let refused = |what: &str| Refusal::new(Cause::Refused, format!("{peer} {what}"));
    match error {
        Error::Http(response) => of_status(response.status(), response.headers(), peer),
        Error::Io(_) | Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            Refusal::new(Cause::Unreachable, format!("{peer} ended the connection in the handshake"))
        }
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(error)) => refused(match error {
            SubProtocolError::NoSubProtocol => "does not speak the subprotocol that the channel asks for",
            SubProtocolError::InvalidSubProtocol => "chose a subprotocol that the channel does not ask for",
            SubProtocolError::ServerSentSubProtocolNoneRequested => {
                "chose a subprotocol, and the channel asks for none"
            }
        }),
        other => refused(&format!("does not answer as a WebSocket: {other}")),
    }
}

/// An answer other than `101 Switching Protocols`.
fn of_status(status: StatusCode, headers: &HeaderMap, peer: &str) -> Refusal {
    let (cause, advice) = match status.as_u16() {
        401 | 403 | 407 => (Cause::Auth, String::new()),
        429 => {
            let wait = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            (Cause::Throttled, wait.map(|wait| format!(", and asks to wait ({wait})")).unwrap_or_default())
        }
        200..=299 => (Cause::Refused, ": it is there, and no WebSocket".to_owned()),
        300..=399 => (Cause::Refused, ": redirects are not followed".to_owned()),
        500..=599 => (Cause::Rejected, String::new()),
        _ => (Cause::Refused, String::new()),
    };
    Refusal::new(cause, format!("{peer} answered the handshake with {status}{advice}"))
}

/// The end of a connection that stood.
pub(super) fn of(error: &Error, peer: &str) -> Refusal {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Refusal::lost(peer, "it ended without a goodbye (1006)")
        }
        Error::Io(error) => Refusal::lost(peer, error),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let detail = format!("{peer} sent a message of {size} bytes; at most {max_size} are read");
            Refusal { cause: Cause::Refused, detail, is_verdict: false }
        }
        other => {
            let detail = format!("{peer} broke the protocol: {other}");
            Refusal { cause: Cause::Refused, detail, is_verdict: false }
        }
    }
}

/// The server said goodbye. What it had read until then it may have acted on.
pub(super) fn closed(frame: Option<&CloseFrame>, peer: &str) -> Refusal {
    let code = frame.map_or(1_005, |frame| u16::from(frame.code));
    let (cause, meaning) = meaning(code);
    let reason = frame.map(|frame| words(&frame.reason)).unwrap_or_default();
    Refusal { cause, detail: format!("{peer} closed the connection: {meaning} ({code}){reason}"), is_verdict: false }
}

fn words(reason: &Utf8Bytes) -> String {
    let printable: String = reason.chars().filter(|c| !c.is_control()).take(REASON).collect();
    if printable.is_empty() { printable } else { format!(": {printable}") }
}

/// <https://www.iana.org/assignments/websocket/websocket.xhtml#close-code-number>
fn meaning(code: u16) -> (Cause, &'static str) {
    match code {
        1_000 => (Cause::Unreachable, "it is done"),
        1_001 => (Cause::Unreachable, "it is going away"),
        1_002 => (Cause::Refused, "protocol error"),
        1_003 => (Cause::Refused, "it does not take this type of data"),
        1_005 => (Cause::Unreachable, "it gave no code"),
        1_007 => (Cause::Refused, "it cannot read the data"),
        1_008 => (Cause::Auth, "against its policy"),
        1_009 => (Cause::Refused, "the message is too big for it"),
        1_010 => (Cause::Refused, "an extension is missing"),
        1_011 => (Cause::Rejected, "it failed inside"),
        1_012 => (Cause::Unreachable, "it restarts"),
        1_013 => (Cause::Throttled, "try again later"),
        1_014 => (Cause::Unreachable, "it is a gateway whose server does not answer"),
        3_000 => (Cause::Auth, "unauthorized"),
        3_003 => (Cause::Auth, "forbidden"),
        3_008 => (Cause::Unreachable, "it timed out"),
        4_000..=4_999 => (Cause::Refused, "for a reason of its own"),
        _ => (Cause::Refused, "an unknown reason"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio_tungstenite::tungstenite::http::Response;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    #[test]
    fn the_status_of_a_handshake_decides_the_cause() {
        for (status, cause, words) in [
            (401, Cause::Auth, "401 Unauthorized"),
            (403, Cause::Auth, "403 Forbidden"),
            (407, Cause::Auth, "407 Proxy Authentication Required"),
            (429, Cause::Throttled, "429 Too Many Requests, and asks to wait (30)"),
            (200, Cause::Refused, "200 OK: it is there, and no WebSocket"),
            (302, Cause::Refused, "302 Found: redirects are not followed"),
            (400, Cause::Refused, "400 Bad Request"),
            (404, Cause::Refused, "404 Not Found"),
            (426, Cause::Refused, "426 Upgrade Required"),
            (500, Cause::Rejected, "500 Internal Server Error"),
            (503, Cause::Rejected, "503 Service Unavailable"),
        ] {
            let response = Response::builder().status(status).header("retry-after", "30").body(None).unwrap();
            let refusal = of_handshake(&Error::Http(response.into()), "ws:80");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, true), "{status}");
            assert_eq!(refusal.detail, format!("ws:80 answered the handshake with {words}"));
        }
    }

    #[test]
    fn a_close_code_is_a_cause_and_words_and_never_a_verdict_on_a_message() {
        for (code, cause, words) in [
            (1_000, Cause::Unreachable, "it is done (1000)"),
            (1_001, Cause::Unreachable, "it is going away (1001)"),
            (1_008, Cause::Auth, "against its policy (1008)"),
            (1_009, Cause::Refused, "the message is too big for it (1009)"),
            (1_011, Cause::Rejected, "it failed inside (1011)"),
            (1_012, Cause::Unreachable, "it restarts (1012)"),
            (1_013, Cause::Throttled, "try again later (1013)"),
            (3_000, Cause::Auth, "unauthorized (3000)"),
            (4_401, Cause::Refused, "for a reason of its own (4401)"),
        ] {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "bye\u{7}\n".into() };
            let refusal = closed(Some(&frame), "ws:80");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, false), "{code}");
            assert_eq!(refusal.detail, format!("ws:80 closed the connection: {words}: bye"));
        }
        assert_eq!(closed(None, "ws:80").detail, "ws:80 closed the connection: it gave no code (1005)");
    }

    #[test]
    fn other_ends_say_what_they_are() {
        let error = Error::Io(io::Error::from(io::ErrorKind::ConnectionReset));
        let refusal = of(&error, "ws:80");
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Unreachable, false));
        assert_eq!(refusal.detail, "lost the connection to ws:80: connection reset");
        assert_eq!(of_handshake(&error, "ws:80").cause, Cause::Unreachable);
        let error = Error::Protocol(ProtocolError::NonZeroReservedBits);
        assert_eq!(
            of(&error, "ws:80").detail,
            "ws:80 broke the protocol: WebSocket protocol error: Reserved bits are non-zero"
        );
        let error = Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol));
        let refusal = of_handshake(&error, "ws:80");
        assert_eq!(refusal.detail, "ws:80 does not speak the subprotocol that the channel asks for");
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Refused, true));
    }
}
