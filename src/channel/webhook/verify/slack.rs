//! Slack: HMAC-SHA-256 over a time and the raw body. <https://docs.slack.dev/authentication/verifying-requests-from-slack>

use std::time::Duration;

use axum::http::request::Parts;
use hmac::Hmac;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{any, fresh, hex, mac, seconds, the_only};
use crate::secret::Secret;

const SIGNATURE: &str = "X-Slack-Signature";
const TIMESTAMP: &str = "X-Slack-Request-Timestamp";

/// Judges a call.
pub(super) fn check(
    secrets: &[Secret],
    tolerance: Duration,
    head: &Parts,
    body: &[u8],
    now: Timestamp,
) -> Result<(), &'static str> {
    let sent = the_only(&head.headers, SIGNATURE)?;
    let timestamp = the_only(&head.headers, TIMESTAMP)?;
    let at = seconds(timestamp).ok_or("the time is no number of seconds")?;
    let signed = [b"v0:", timestamp.as_bytes(), b":", body].concat();
    let is_right = |secret: &[u8]| {
        let expected = format!("v0={}", hex(&mac::<Hmac<Sha256>>(secret, &signed)));
        expected.as_bytes().ct_eq(sent.as_bytes())
    };
    if !any(secrets, is_right) {
        return Err("wrong signature");
    }
    fresh(at, tolerance, now)
}

/// What Slack wants to hear back when it is given an address, which it asks for once, with a signed call:
/// <https://docs.slack.dev/reference/events/url_verification>.
pub(super) fn challenge(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Question {
        r#type: String,
        challenge: String,
    }
    let question: Question = serde_json::from_slice(body).ok()?;
    (question.r#type == "url_verification").then_some(question.challenge)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Call, secrets};
    use super::*;

    /// From Slack's documentation.
    #[test]
    fn the_published_vector_and_its_window() {
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let call = Call::post("/slack", body)
            .header(SIGNATURE, "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503")
            .header(TIMESTAMP, "1531420618");
        let (head, body) = call.taken();
        let key = secrets(&["another", "8f742231b10e8888abcd99yyyzzz85a5"]);
        for (after, expected) in [
            (0, Ok(())),
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err("what is signed is too old")),
            (-301, Err("what is signed is from the future")),
        ] {
            let now = Timestamp::from_second(1_531_420_618 + after).unwrap();
            assert_eq!(check(&key, Duration::from_secs(300), &head, &body, now), expected, "{after}");
        }
        let now = Timestamp::from_second(1_531_420_618).unwrap();
        let wrong = check(&secrets(&["another"]), Duration::from_secs(300), &head, &body, now);
        assert_eq!(wrong, Err("wrong signature"));
    }

    #[test]
    fn only_the_question_has_an_answer() {
        let asked = r#"{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
        assert_eq!(challenge(asked.as_bytes()).unwrap(), "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
        for other in [
            r#"{"type":"event_callback","challenge":"x"}"#,
            r#"{"type":"url_verification"}"#,
            r#"{"type":"url_verification","challenge":7}"#,
            "challenge=x&type=url_verification",
            "",
        ] {
            assert_eq!(challenge(other.as_bytes()), None, "{other}");
        }
    }
}
