//! Why the server, or the way to it, said no: its error replies as causes and sentences. Pure.

use redis::RedisError;

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// What came instead of a reply from `peer`.
pub(super) fn of(error: &RedisError, peer: &str) -> Refusal {
    match error.code() {
        Some(code) => answered(code, error.detail().unwrap_or_default()),
        None => Refusal::lost(peer, words(error)),
    }
}

/// An error reply: the server has not done what was asked. Its first word is the code:
/// <https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>.
fn answered(code: &str, words: &str) -> Refusal {
    let (cause, advice) = match code {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => (Cause::Auth, ""),
        "ERR" if words.contains("AUTH") || words.contains("invalid password") => (Cause::Auth, ""),
        // It has no memory, connections or time left for us.
        "OOM" | "BUSY" => (Cause::Throttled, ""),
        "ERR" if words.contains("max number of clients") => (Cause::Throttled, ""),
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "UNBLOCKED" => (Cause::Unreachable, ""),
        // It would take it and cannot keep it: no disk, or too few replicas.
        "MISCONF" | "NOREPLICAS" => (Cause::Rejected, ""),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (Cause::Refused, "; this is a cluster: name the node that holds the key in the channel's `url`")
        }
        "READONLY" => (Cause::Refused, "; name the master in the channel's `url`, or see why it is none any more"),
        _ => (Cause::Refused, ""),
    };
    let gap = if words.is_empty() { "" } else { " " };
    Refusal::new(cause, format!("the server answered: {code}{gap}{words}{advice}"))
}

/// The library's own words for a connection that ended say what it did with it, and not what happened.
fn words(error: &RedisError) -> String {
    if error.is_connection_dropped() { "the server closed it".to_owned() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_servers_code_decides_the_cause_and_its_words_are_kept() {
        let cases = [
            ("-NOAUTH Authentication required.\r\n", Cause::Auth),
            ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", Cause::Auth),
            ("-NOPERM this user has no permissions to run the 'xadd' command\r\n", Cause::Auth),
            ("-ERR Client sent AUTH, but no password is set\r\n", Cause::Auth),
            ("-ERR invalid password\r\n", Cause::Auth),
            ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", Cause::Throttled),
            ("-ERR max number of clients reached\r\n", Cause::Throttled),
            ("-BUSY Redis is busy running a script.\r\n", Cause::Throttled),
            ("-LOADING Redis is loading the dataset in memory\r\n", Cause::Unreachable),
            ("-MASTERDOWN Link with MASTER is down\r\n", Cause::Unreachable),
            ("-CLUSTERDOWN Hash slot not served\r\n", Cause::Unreachable),
            ("-MISCONF Redis is configured to save RDB snapshots\r\n", Cause::Rejected),
            ("-NOREPLICAS Not enough good replicas to write.\r\n", Cause::Rejected),
            ("-MOVED 3999 127.0.0.1:6381\r\n", Cause::Refused),
            ("-READONLY You can't write against a read only replica.\r\n", Cause::Refused),
            ("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", Cause::Refused),
            ("-NOGROUP No such consumer group\r\n", Cause::Refused),
            ("-ERR unknown command 'XADD'\r\n", Cause::Refused),
            ("-DENIED Redis is running in protected mode\r\n", Cause::Refused),
        ];
        for (reply, cause) in cases {
            let error = redis::parse_redis_value(reply.as_bytes()).and_then(redis::Value::extract_error).unwrap_err();
            let refusal = of(&error, "redis:6379");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, true), "{reply}");
            let words = reply.trim_start_matches('-').trim_end();
            assert!(refusal.detail.starts_with(&format!("the server answered: {words}")), "{refusal:?}");
        }
    }

    #[test]
    fn a_lost_connection_is_unreachable_and_no_verdict_on_the_message() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe] {
            let refusal = of(&RedisError::from(io::Error::from(kind)), "redis:6379");
            assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Unreachable, false));
            assert_eq!(refusal.detail, "lost the connection to redis:6379: the server closed it");
        }
    }
}
