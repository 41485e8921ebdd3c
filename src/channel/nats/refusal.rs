//! Why a server said no: its errors as causes and sentences. Pure.

use serde::Deserialize;

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// What an operator does next about an error that a server sends by itself (`-ERR`).
/// <https://docs.nats.io/reference/reference-protocols/nats-protocol#ok-err>
pub(super) fn cause(words: &str) -> Cause {
    let words = words.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["authorization", "authentication", "permissions violation", "revoked", "expired", "credentials"]) {
        Cause::Auth
    } else if has(&["tls"]) {
        Cause::Tls
    } else if has(&["maximum connections", "maximum account", "maximum subscriptions", "slow consumer", "throttl"]) {
        Cause::Throttled
    } else if has(&["maximum payload", "invalid subject", "invalid publish", "control line", "parser", "protocol"]) {
        Cause::Refused
    } else {
        Cause::Unreachable
    }
}

/// The server's errors about one message: it has dropped the message, and goes on.
pub(super) fn of_message(errors: &[String], place: &str) -> Option<Refusal> {
    let words = errors.first()?;
    Some(Refusal::new(cause(words), format!("the server refused it: {place}: {words}")))
}

/// The end of a connection, with the server's last error if it sent one.
pub(super) fn ended(peer: &str, why: &str, last_error: Option<&str>) -> Refusal {
    match last_error {
        Some(words) => {
            Refusal { cause: cause(words), detail: format!("{peer} ended the connection: {words}"), is_verdict: false }
        }
        None => Refusal::lost(peer, why),
    }
}

/// An error of JetStream: <https://docs.nats.io/reference/reference-protocols/nats_api_reference#error-codes>.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct ApiError {
    /// In the manner of HTTP.
    code: u16,
    /// Exactly.
    err_code: u16,
    /// In words.
    description: String,
}

/// Insufficient resources: the account's or the server's limit is reached.
const INSUFFICIENT: &[u16] = &[10_023, 10_028, 10_047];

/// JetStream's word on what was asked of `place`.
pub(super) fn of_api(error: &ApiError, place: &str) -> Refusal {
    let ApiError { code, err_code, description } = error;
    let cause = match (code, err_code) {
        (_, exact) if INSUFFICIENT.contains(exact) => Cause::Throttled,
        (401 | 403, _) => Cause::Auth,
        (400..=499, _) => Cause::Refused,
        // A stream that is full, and the rest of what it cannot store.
        _ => Cause::Rejected,
    };
    Refusal::new(cause, format!("JetStream refused it: {place}: {description} ({code}, {err_code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_has_a_cause() {
        for (words, expected) in [
            ("Authorization Violation", Cause::Auth),
            ("User Authentication Expired", Cause::Auth),
            ("Authentication Timeout", Cause::Auth),
            ("Permissions Violation for Publish to \"a\"", Cause::Auth),
            ("Secure Connection - TLS Required", Cause::Tls),
            ("maximum connections exceeded", Cause::Throttled),
            ("Slow Consumer", Cause::Throttled),
            ("Maximum Payload Violation", Cause::Refused),
            ("Unknown Protocol Operation", Cause::Refused),
            ("Server Shutdown", Cause::Unreachable),
            ("Stale Connection", Cause::Unreachable),
        ] {
            assert_eq!(cause(words), expected, "{words}");
        }
    }

    #[test]
    fn a_message_is_refused_and_a_connection_is_only_ended() {
        let refusal = of_message(&["Permissions Violation for Publish to \"a\"".to_owned()], "subject `a`").unwrap();
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Auth, true));
        assert_eq!(refusal.detail, "the server refused it: subject `a`: Permissions Violation for Publish to \"a\"");
        assert_eq!(of_message(&[], "subject `a`"), None);
        let ended_by_error = ended("nats:4222", "eof", Some("Slow Consumer"));
        assert_eq!((ended_by_error.cause, ended_by_error.is_verdict), (Cause::Throttled, false));
        assert_eq!(ended("nats:4222", "eof", None).detail, "lost the connection to nats:4222: eof");
    }

    #[test]
    fn jetstreams_code_decides_the_cause() {
        for (code, err_code, expected) in [
            (404, 10_059, Cause::Refused),
            (400, 10_060, Cause::Refused),
            (400, 10_054, Cause::Refused),
            (503, 10_077, Cause::Rejected),
            (503, 10_023, Cause::Throttled),
            (500, 10_047, Cause::Throttled),
            (401, 10_000, Cause::Auth),
        ] {
            let error = ApiError { code, err_code, description: "words".to_owned() };
            let refusal = of_api(&error, "stream `S`");
            assert_eq!((refusal.cause, refusal.is_verdict), (expected, true), "{code} {err_code}");
            assert!(refusal.detail.contains("words") && refusal.detail.contains(&err_code.to_string()), "{refusal:?}");
        }
    }
}
