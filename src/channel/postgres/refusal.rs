//! Why the server, or the way to it, said no: its SQLSTATEs as causes and sentences. Pure.

use std::error::Error as _;

use tokio_postgres::Error;

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// What came instead of an answer from `peer`.
pub(super) fn of(error: &Error, peer: &str) -> Refusal {
    if let Some(answer) = error.as_db_error() {
        let detail = answer.detail().map(|detail| format!("; {detail}")).unwrap_or_default();
        return answered(answer.code().code(), &format!("{}{detail}", answer.message()));
    }
    if let Some(tls) = crate::tls::error_in(error) {
        return Refusal::new(Cause::Tls, crate::tls::words(tls, peer));
    }
    let source = error.source().map(ToString::to_string);
    let words = error.to_string();
    // The library tells these apart by its words alone.
    match (words.as_str(), source) {
        ("error performing TLS handshake", Some(why)) if why == "server does not support TLS" => {
            let advice = "give it a certificate, or add `?sslmode=disable` to the channel's `url` if that is meant";
            Refusal::new(Cause::Tls, format!("{peer} does not speak TLS; {advice}"))
        }
        ("error performing TLS handshake", Some(why)) => {
            Refusal::new(Cause::Tls, format!("{peer} ended the TLS handshake: {why}"))
        }
        ("invalid configuration", Some(why)) if why == "password missing" => {
            Refusal::new(Cause::Auth, format!("{peer} asks for a password, and the channel's `url` has none"))
        }
        ("authentication error" | "invalid configuration", Some(why)) => Refusal::new(Cause::Auth, why),
        ("connection closed", _) => Refusal::lost(peer, "the server closed it"),
        (_, Some(why)) => Refusal::lost(peer, why),
        (_, None) => Refusal::lost(peer, words),
    }
}

/// An answer with a SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn answered(state: &str, words: &str) -> Refusal {
    let (class, _) = state.split_at_checked(2).unwrap_or((state, ""));
    let mut advice = "";
    let (cause, is_verdict) = match (class, state) {
        ("28", _) | (_, "42501") => (Cause::Auth, true),
        ("53", _) => (Cause::Throttled, true),
        // It starts, or recovers, and took nothing.
        (_, "57P03") => (Cause::Unreachable, true),
        // It ends our session: what it was doing for us may be committed already, and wait for a replica.
        ("08", _) | (_, "57P01" | "57P02" | "57P04" | "57P05") => (Cause::Unreachable, false),
        (_, "40003") => (Cause::Uncertain, false),
        // It would do it, and could not: a constraint, a deadlock, a trigger, a lock or a time that ran out, its disk.
        ("23" | "40" | "P0" | "55" | "57" | "58" | "XX", _) => (Cause::Rejected, true),
        (_, "25006") => {
            advice = "; it is a standby, or read-only: name the primary in the channel's `url`";
            (Cause::Refused, true)
        }
        _ => (Cause::Refused, true),
    };
    Refusal { cause, detail: format!("the server answered: {words} ({state}){advice}"), is_verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_decides_the_cause_and_the_servers_words_are_kept() {
        let cases = [
            ("28P01", "password authentication failed for user \"probe\"", Cause::Auth, true),
            ("28000", "no pg_hba.conf entry for host", Cause::Auth, true),
            ("42501", "permission denied for table orders", Cause::Auth, true),
            ("42P01", "relation \"orders\" does not exist", Cause::Refused, true),
            ("42601", "syntax error at or near \"insret\"", Cause::Refused, true),
            ("3D000", "database \"orders\" does not exist", Cause::Refused, true),
            ("22P02", "invalid input syntax for type uuid", Cause::Refused, true),
            ("25006", "cannot execute INSERT in a read-only transaction", Cause::Refused, true),
            ("0A000", "cached plan must not change result type", Cause::Refused, true),
            ("23505", "duplicate key value violates unique constraint", Cause::Rejected, true),
            ("40001", "could not serialize access", Cause::Rejected, true),
            ("40P01", "deadlock detected", Cause::Rejected, true),
            ("P0001", "raised by a trigger", Cause::Rejected, true),
            ("55P03", "canceling statement due to lock timeout", Cause::Rejected, true),
            ("57014", "canceling statement due to statement timeout", Cause::Rejected, true),
            ("XX000", "internal error", Cause::Rejected, true),
            ("53300", "sorry, too many clients already", Cause::Throttled, true),
            ("53100", "could not extend file: No space left on device", Cause::Throttled, true),
            ("57P03", "the database system is starting up", Cause::Unreachable, true),
            ("57P01", "terminating connection due to administrator command", Cause::Unreachable, false),
            ("57P02", "terminating connection because of crash of another server process", Cause::Unreachable, false),
            ("08006", "connection failure", Cause::Unreachable, false),
            ("40003", "statement completion unknown", Cause::Uncertain, false),
            ("", "no state at all", Cause::Refused, true),
        ];
        for (state, words, cause, is_verdict) in cases {
            let refusal = answered(state, words);
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{state} {words}");
            assert!(refusal.detail.starts_with(&format!("the server answered: {words} ({state})")), "{refusal:?}");
        }
    }
}
