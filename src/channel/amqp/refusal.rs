//! Why the broker, or the way to it, said no: lapin's errors as causes and sentences. Pure.

use lapin::ErrorKind;
use lapin::protocol::{AMQPError, AMQPErrorKind};

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

impl Refusal {
    /// What lapin reports of the connection to `peer`.
    pub(super) fn of(error: &lapin::Error, peer: &str) -> Refusal {
        let lost = |why: String| Refusal::lost(peer, why);
        match error.kind() {
            ErrorKind::ProtocolError(error) => Refusal::closed(error),
            ErrorKind::IOError(error) => lost(error.to_string()),
            ErrorKind::MissingHeartbeatError => lost("no heartbeat from the broker".to_owned()),
            other => lost(format!("{error} ({})", kind_word(other))),
        }
    }

    /// The broker closed the channel (a soft error, about one command) or the connection (a hard one).
    /// Codes: AMQP 0-9-1, section 1.2 "reply-code".
    fn closed(error: &AMQPError) -> Refusal {
        let (code, words) = (error.get_id(), error.get_message().as_str());
        let is_verdict = matches!(error.kind(), AMQPErrorKind::Soft(_));
        let what = if is_verdict { "channel" } else { "connection" };
        let cause = match code {
            403 => Cause::Auth,
            // RabbitMQ closes with NOT_ALLOWED both for a missing vhost and for one that this user may not enter.
            530 if words.contains("refused for user") => Cause::Auth,
            // CONNECTION_FORCED: the broker stops, or an operator closed the connection.
            320 => Cause::Unreachable,
            // SYNTAX_ERROR to UNEXPECTED_FRAME: bytes were garbled on the way.
            501..=505 => Cause::Unreachable,
            506 | 541 => Cause::Rejected,
            _ => Cause::Refused,
        };
        Refusal { cause, detail: format!("the broker closed the {what}: {words} ({code})"), is_verdict }
    }
}

fn kind_word(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_) => "channel",
        ErrorKind::InvalidConnectionState(_) => "connection",
        ErrorKind::ParsingError(_) | ErrorKind::SerialisationError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            "protocol"
        }
        _ => "client",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn closed(code: u16, words: &str) -> Refusal {
        let error = AMQPError::from_id(code, words.into()).expect("a code of the protocol");
        Refusal::of(&ErrorKind::ProtocolError(error).into(), "mq:5672")
    }

    #[test]
    fn the_brokers_code_decides_the_cause_and_its_words_are_kept() {
        let cases = [
            (403, "ACCESS_REFUSED - Login was refused", Cause::Auth, true),
            (404, "NOT_FOUND - no exchange 'x' in vhost '/'", Cause::Refused, true),
            (406, "PRECONDITION_FAILED - message size", Cause::Refused, true),
            (320, "CONNECTION_FORCED - shutdown", Cause::Unreachable, false),
            (530, "NOT_ALLOWED - access to vhost 'v' refused for user 'guest'", Cause::Auth, false),
            (530, "NOT_ALLOWED - vhost v not found", Cause::Refused, false),
            (541, "INTERNAL_ERROR", Cause::Rejected, false),
            (501, "FRAME_ERROR", Cause::Unreachable, false),
        ];
        for (code, words, cause, is_verdict) in cases {
            let refusal = closed(code, words);
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{code} {words}");
            assert!(refusal.detail.contains(words) && refusal.detail.contains(&code.to_string()), "{refusal:?}");
        }
    }

    #[test]
    fn a_lost_connection_is_unreachable_and_no_verdict_on_the_message() {
        let error = lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let refusal = Refusal::of(&error, "mq:5672");
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Unreachable, false));
        assert_eq!(refusal.detail, "lost the connection to mq:5672: connection reset");
    }
}
