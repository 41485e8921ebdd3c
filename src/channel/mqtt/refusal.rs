//! Why the broker said no: reason codes as causes and sentences. Pure.

use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// The reason code of a message that no subscription matches.
pub(super) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// Reason codes from here on are refusals.
const FAILURE: u8 = 0x80;

/// A reason code in words and, where it is a refusal, what an operator does next about it (MQTT 5 section 2.4).
pub(super) fn reason(code: u8) -> (&'static str, Cause) {
    match code {
        0x00 => ("success", Cause::Rejected),
        NO_MATCHING_SUBSCRIBERS => ("no matching subscribers", Cause::Unroutable),
        0x80 => ("unspecified error", Cause::Rejected),
        0x81 => ("malformed packet", Cause::Refused),
        0x82 => ("protocol error", Cause::Refused),
        0x83 => ("implementation specific error", Cause::Rejected),
        0x84 => ("unsupported protocol version", Cause::Refused),
        0x85 => ("client identifier not valid", Cause::Refused),
        0x86 => ("bad user name or password", Cause::Auth),
        0x87 => ("not authorized", Cause::Auth),
        0x88 => ("server unavailable", Cause::Unreachable),
        0x89 => ("server busy", Cause::Throttled),
        0x8a => ("banned", Cause::Auth),
        0x8b => ("server shutting down", Cause::Unreachable),
        0x8c => ("bad authentication method", Cause::Auth),
        0x8d => ("keep alive timeout", Cause::Unreachable),
        0x8e => ("session taken over", Cause::Unreachable),
        0x8f => ("topic filter invalid", Cause::Refused),
        0x90 => ("topic name invalid", Cause::Refused),
        0x91 => ("packet identifier in use", Cause::Rejected),
        0x93 => ("receive maximum exceeded", Cause::Throttled),
        0x95 => ("packet too large", Cause::Refused),
        0x96 => ("message rate too high", Cause::Throttled),
        0x97 => ("quota exceeded", Cause::Throttled),
        0x98 => ("administrative action", Cause::Unreachable),
        0x99 => ("payload format invalid", Cause::Refused),
        0x9a => ("retain not supported", Cause::Refused),
        0x9b => ("QoS not supported", Cause::Refused),
        0x9c => ("use another server", Cause::Refused),
        0x9d => ("server moved", Cause::Refused),
        0x9e => ("shared subscriptions not supported", Cause::Refused),
        0x9f => ("connection rate exceeded", Cause::Throttled),
        0xa0 => ("maximum connect time", Cause::Unreachable),
        0xa1 => ("subscription identifiers not supported", Cause::Refused),
        0xa2 => ("wildcard subscriptions not supported", Cause::Refused),
        _ => ("a reason that MQTT does not know", Cause::Rejected),
    }
}

/// The broker's word on a message: its reason code, and its own words where it has some. A message that it keeps for later
/// subscribers is not lost for want of present ones.
pub(super) fn verdict(code: u8, words: Option<&str>, is_retained: bool, place: &str) -> Result<(), Refusal> {
    if code < FAILURE && (code != NO_MATCHING_SUBSCRIBERS || is_retained) {
        return Ok(());
    }
    let (name, cause) = reason(code);
    let detail = match code {
        NO_MATCHING_SUBSCRIBERS => format!("nobody subscribes to it: {place} ({name}, 0x10)"),
        _ => format!("the broker refused it: {place}: {}", told(code, words)),
    };
    Err(Refusal::new(cause, detail))
}

/// The broker's word on a connection that we asked for.
pub(super) fn not_let_in(code: u8, words: Option<&str>, peer: &str) -> Refusal {
    let hint = if code == 0x84 { "; set `version = \"3.1.1\"`" } else { "" };
    Refusal::new(reason(code).1, format!("{peer} did not let us in: {}{hint}", told(code, words)))
}

/// The broker's last word on a connection that stood. It may have been about any message of it, so it is no verdict.
pub(super) fn sent_away(code: u8, words: Option<&str>, peer: &str) -> Refusal {
    let detail = format!("{peer} ended the connection: {}", told(code, words));
    Refusal { cause: reason(code).1, detail, is_verdict: false }
}

/// The broker's word on a subscription, which is the QoS that it grants, or a refusal.
pub(super) fn granted(code: u8, asked: u8, words: Option<&str>, filter: &str) -> Result<(), Refusal> {
    match code {
        0..=2 if code >= asked => Ok(()),
        0..=2 => Err(Refusal::new(
            Cause::Refused,
            format!(
                "the broker grants QoS {code} on `{filter}` and not the QoS {asked} that was asked for: messages could get \
                 lost unseen; set `qos = {code}`, or let the broker grant more"
            ),
        )),
        // MQTT 3.1.1 knows this one code for every refusal, and 5 uses it for those without a better one.
        0x80 => Err(Refusal::new(
            Cause::Refused,
            format!("the broker refused the subscription to `{filter}`: {}; let the user read it", told(code, words)),
        )),
        _ => Err(Refusal::new(
            reason(code).1,
            format!("the broker refused the subscription to `{filter}`: {}", told(code, words)),
        )),
    }
}

fn told(code: u8, words: Option<&str>) -> String {
    let (name, _) = reason(code);
    match words.filter(|words| !words.is_empty()) {
        Some(words) => format!("{words} ({name}, 0x{code:02x})"),
        None => format!("{name} (0x{code:02x})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_code_decides_the_cause_of_a_message() {
        assert_eq!(verdict(0x00, None, false, "here"), Ok(()));
        assert_eq!(verdict(0x10, None, true, "here"), Ok(()), "kept for those who subscribe later");
        let cases = [
            (0x10, Cause::Unroutable),
            (0x80, Cause::Rejected),
            (0x83, Cause::Rejected),
            (0x87, Cause::Auth),
            (0x90, Cause::Refused),
            (0x91, Cause::Rejected),
            (0x95, Cause::Refused),
            (0x97, Cause::Throttled),
            (0x99, Cause::Refused),
            (0xff, Cause::Rejected),
        ];
        for (code, cause) in cases {
            let refusal = verdict(code, None, false, "topic `a`").unwrap_err();
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, true), "{code:#x}");
            assert!(refusal.detail.contains(&format!("0x{code:02x}")), "{refusal:?}");
            assert!(refusal.detail.contains("topic `a`"), "{refusal:?}");
        }
        let refusal = verdict(0x97, Some("five a minute"), false, "topic `a`").unwrap_err();
        assert_eq!(refusal.detail, "the broker refused it: topic `a`: five a minute (quota exceeded, 0x97)");
    }

    #[test]
    fn a_connection_is_refused_or_ended_for_a_cause() {
        for (code, cause) in [
            (0x86, Cause::Auth),
            (0x87, Cause::Auth),
            (0x88, Cause::Unreachable),
            (0x89, Cause::Throttled),
            (0x85, Cause::Refused),
        ] {
            assert_eq!(not_let_in(code, None, "mq:1883").cause, cause, "{code:#x}");
        }
        assert!(not_let_in(0x84, None, "mq:1883").detail.ends_with("(0x84); set `version = \"3.1.1\"`"));
        for (code, cause) in [(0x8b, Cause::Unreachable), (0x95, Cause::Refused), (0x96, Cause::Throttled)] {
            let refusal = sent_away(code, None, "mq:1883");
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, false), "{code:#x}");
        }
    }

    #[test]
    fn a_lower_qos_than_asked_for_is_no_subscription() {
        assert_eq!(granted(1, 1, None, "a/#"), Ok(()));
        assert_eq!(granted(2, 1, None, "a/#"), Ok(()));
        let lower = granted(0, 1, None, "a/#").unwrap_err();
        assert!(lower.detail.starts_with("the broker grants QoS 0 on `a/#` and not the QoS 1"), "{lower:?}");
        assert_eq!(granted(0x87, 1, None, "a/#").unwrap_err().cause, Cause::Auth);
        assert_eq!(granted(0x80, 1, None, "a/#").unwrap_err().cause, Cause::Refused);
    }
}
