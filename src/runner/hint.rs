//! What an answer says of how often a system wants to be called: `Retry-After`, limits that are used up, a 429.

use std::time::Duration;

use jiff::Timestamp;

use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::runner::pace::Hint;
use crate::time::between;

/// What says how many calls are left, and what says until when; the older names before the ones of the coming standard.
const LIMITS: [(&str, &str); 2] =
    [("x-ratelimit-remaining", "x-ratelimit-reset"), ("ratelimit-remaining", "ratelimit-reset")];
/// A number that is larger counts seconds since 1970, not from now.
const EPOCH: u64 = 1_000_000_000;

/// What an answer says, if it says that there should be fewer calls.
pub(super) fn hint(result: &Result<Reply, Fault>) -> Option<Hint> {
    match result {
        Err(fault) => (fault.cause == Cause::Throttled).then(|| throttled(fault.detail.clone())),
        Ok(reply) => {
            let message = reply.message.as_ref()?;
            let now = reply.finished.wall;
            let is_refused = matches!(message.status, Some(429));
            let told = header(message, "retry-after").and_then(|text| wait(text, now));
            match told.filter(|_| is_refused || message.status == Some(503)) {
                Some(wait) => {
                    let said = format!("{} and `Retry-After: {}`", reply.ack, wait.as_secs());
                    Some(Hint { wait: Some(wait), why: "told", said })
                }
                None => limit(message, &reply.ack, now).or_else(|| is_refused.then(|| throttled(reply.ack.clone()))),
            }
        }
    }
}

fn throttled(said: String) -> Hint {
    Hint { wait: None, why: "throttled", said }
}

fn limit(message: &Message, ack: &str, now: Timestamp) -> Option<Hint> {
    let used_up = |(left, reset): (&str, &str)| {
        let is_used_up = header(message, left)?.trim() == "0";
        is_used_up.then(|| wait(header(message, reset)?, now)).flatten().map(|wait| (left.to_owned(), wait))
    };
    let (name, wait) = LIMITS.into_iter().find_map(used_up)?;
    Some(Hint { wait: Some(wait), why: "limit", said: format!("{ack} and `{name}: 0`, for {} s", wait.as_secs()) })
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Seconds from now, seconds since 1970, or a date as HTTP writes it (RFC 9110 section 5.6.7).
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let until = match text.parse::<u64>() {
        Ok(seconds) if seconds < EPOCH => return Some(Duration::from_secs(seconds)),
        Ok(since) => Timestamp::from_second(i64::try_from(since).ok()?).ok()?,
        Err(_) => jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?,
    };
    Some(between(now, until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, Now};

    fn now() -> Now {
        Now { wall: "2026-11-21T12:00:00Z".parse().unwrap(), mono: Mono::default() }
    }

    fn answer(status: u16, headers: &[(&str, &str)]) -> Result<Reply, Fault> {
        let mut message = Message::new("");
        message.status = Some(status);
        message.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ack = status.to_string();
        Ok(Reply { started: now(), finished: now(), ack, message: Some(message), phases: Vec::new() })
    }

    #[test]
    fn what_an_answer_says_row_by_row() {
        type Row<'a> = (u16, &'a [(&'a str, &'a str)], Option<(&'static str, Option<u64>)>);
        let table: [Row<'_>; 13] = [
            (200, &[], None),
            (429, &[], Some(("throttled", None))),
            (429, &[("Retry-After", "30")], Some(("told", Some(30)))),
            (503, &[("Retry-After", "30")], Some(("told", Some(30)))),
            (503, &[], None),
            (200, &[("Retry-After", "30")], None),
            (429, &[("retry-after", "Sat, 21 Nov 2026 12:02:00 GMT")], Some(("told", Some(120)))),
            (429, &[("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT")], Some(("told", Some(0)))),
            (429, &[("retry-after", "soon")], Some(("throttled", None))),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "7")], Some(("limit", Some(7)))),
            (200, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1795262460")], Some(("limit", Some(60)))),
            (200, &[("RateLimit-Remaining", "0"), ("RateLimit-Reset", "7")], Some(("limit", Some(7)))),
            (200, &[("RateLimit-Remaining", "1"), ("RateLimit-Reset", "7")], None),
        ];
        for (status, headers, expected) in table {
            let found = hint(&answer(status, headers)).map(|hint| (hint.why, hint.wait.map(|wait| wait.as_secs())));
            assert_eq!(found, expected, "{status} {headers:?}");
        }
        let fault = |cause| {
            let (started, finished, phases) = (now(), now(), Vec::new());
            Err(Fault { started, finished, cause, detail: "421 slow down".into(), uncertain: false, phases })
        };
        assert_eq!(hint(&fault(Cause::Throttled)).map(|hint| hint.said).as_deref(), Some("421 slow down"));
        assert_eq!(hint(&fault(Cause::Unreachable)), None);
    }
}
