//! What Slack means by its answers: error codes as causes, with what to do. Pure.
//!
//! <https://docs.slack.dev/reference/methods/chat.postMessage#errors>

use std::time::Duration;

use serde_json::Value;

use crate::channel::refusal::Refusal;
use crate::channel::web::words;
use crate::journey::outcome::Cause;

/// How long to wait when Slack says "slow down" and not for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Longer than this we do not wait before we ask again, whatever a header says.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What an answer says: its fields if it is `ok`.
pub(super) fn read(method: &str, status: u16, body: &[u8]) -> Result<Value, Refusal> {
    if status == 429 {
        return Err(limited(method, "HTTP 429"));
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(answer) if answer["ok"] == Value::Bool(true) => Ok(answer),
        Ok(answer) if answer["ok"] == Value::Bool(false) => {
            Err(refused(method, answer["error"].as_str().unwrap_or("no error code"), &answer))
        }
        _ => Err(strange(method, status, body)),
    }
}

/// How long a `Retry-After` asks us to wait.
pub(super) fn wait(retry_after: Option<&str>) -> Duration {
    let asked = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    asked.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT)
}

fn limited(method: &str, code: &str) -> Refusal {
    Refusal::new(Cause::Throttled, format!("Slack wants fewer calls of {method} ({code})"))
}

/// An answer that is not one of Slack's API: of its front, or of a proxy.
fn strange(method: &str, status: u16, body: &[u8]) -> Refusal {
    let said = words(&String::from_utf8_lossy(body));
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let (cause, is_verdict) = match status {
        503 => (Cause::Rejected, true),
        500.. => (Cause::Rejected, false),
        200..300 => (Cause::Mismatch, false),
        _ => (Cause::of_status(status).unwrap_or(Cause::Refused), true),
    };
    let hint = if cause == Cause::Rejected { "" } else { "; is there a proxy, or a wrong `api_url`?" };
    let detail = format!("what answered {method} with HTTP {status} is not Slack's API{said}{hint}");
    Refusal { cause, detail, is_verdict }
}

/// What an `ok: false` with this code means.
fn refused(method: &str, code: &str, answer: &Value) -> Refusal {
    let (cause, advice) = match code {
        "invalid_auth" | "not_authed" => (Cause::Auth, "the token is not one that Slack knows"),
        "token_revoked" => (Cause::Auth, "the token was revoked: install the app again and put the new one in place"),
        "token_expired" => (Cause::Auth, "the token has expired: make a new one, without token rotation"),
        "account_inactive" => (Cause::Auth, "the account was deactivated: install the app again"),
        "not_allowed_token_type" => {
            (Cause::Auth, "this kind of token may not call it: `token` is xoxb-…, `app_token` xapp-…")
        }
        "missing_scope" => {
            let needed = answer["needed"].as_str().map(words).unwrap_or_default();
            let detail = format!(
                "Slack refused {method} (missing_scope): add the scope {needed} to the app and install it again"
            );
            return Refusal::new(Cause::Auth, detail);
        }
        "no_permission" | "org_login_required" | "ekm_access_denied" | "team_access_not_granted" | "access_denied" => {
            (Cause::Auth, "the workspace does not let the app do this: ask its administrators")
        }
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => return limited(method, code),
        "channel_not_found" => (
            Cause::Unroutable,
            "there is no such channel, or it is private and the bot is not in it: `channel` is an id such as C0123456789",
        ),
        "is_archived" => (Cause::Unroutable, "the channel is archived"),
        "not_in_channel" => (Cause::Refused, "invite the bot: /invite @its-name in the channel"),
        "msg_too_long" => (Cause::Refused, "a message has at most 40 000 characters"),
        "no_text" => (Cause::Refused, "a message has text"),
        "metadata_too_large" => (Cause::Refused, "the step's headers are too much for Slack's metadata"),
        // Their fault, in the middle of the work: the message may be there.
        "fatal_error" | "internal_error" | "request_timeout" => {
            return Refusal { is_verdict: false, ..told(method, Cause::Rejected, code, "its own fault") };
        }
        "service_unavailable" | "team_added_to_org" | "accesslimited" => (Cause::Rejected, "it is not available"),
        _ => (Cause::Refused, ""),
    };
    told(method, cause, code, advice)
}

fn told(method: &str, cause: Cause, code: &str, advice: &str) -> Refusal {
    let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
    Refusal::new(cause, format!("Slack refused {method} ({}){advice}", words(code)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_answer_has_a_cause() {
        let no = |code: &str| json!({ "ok": false, "error": code }).to_string();
        let cases = [
            (200, no("invalid_auth"), Cause::Auth, true),
            (200, no("missing_scope"), Cause::Auth, true),
            (200, no("token_revoked"), Cause::Auth, true),
            (200, no("channel_not_found"), Cause::Unroutable, true),
            (200, no("is_archived"), Cause::Unroutable, true),
            (200, no("not_in_channel"), Cause::Refused, true),
            (200, no("msg_too_long"), Cause::Refused, true),
            (200, no("something_new"), Cause::Refused, true),
            (200, no("ratelimited"), Cause::Throttled, true),
            (429, no("ratelimited"), Cause::Throttled, true),
            (429, String::new(), Cause::Throttled, true),
            (200, no("fatal_error"), Cause::Rejected, false),
            (500, no("internal_error"), Cause::Rejected, false),
            (200, no("service_unavailable"), Cause::Rejected, true),
            (503, "<html>".to_owned(), Cause::Rejected, true),
            (502, "Bad Gateway".to_owned(), Cause::Rejected, false),
            (403, "<html>".to_owned(), Cause::Auth, true),
            (302, String::new(), Cause::Refused, true),
            (200, "{\"ok\":tru".to_owned(), Cause::Mismatch, false),
            (200, "[]".to_owned(), Cause::Mismatch, false),
        ];
        for (status, body, cause, is_verdict) in cases {
            let refusal = read("chat.postMessage", status, body.as_bytes()).unwrap_err();
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{status} {body} {refusal:?}");
            assert!(refusal.detail.contains("chat.postMessage"), "{refusal:?}");
        }
        let answer = read("chat.postMessage", 200, br#"{"ok":true,"ts":"1.2","warnings":{}}"#).unwrap();
        assert_eq!(answer["ts"], "1.2");
    }

    #[test]
    fn errors_say_what_to_do() {
        let told = |body: Value| read("m", 200, body.to_string().as_bytes()).unwrap_err().detail;
        let scope = json!({ "ok": false, "error": "missing_scope", "needed": "channels:history" });
        assert!(told(scope).contains("add the scope channels:history"));
        assert!(told(json!({ "ok": false, "error": "not_in_channel" })).contains("/invite"));
        assert!(told(json!({ "ok": false })).contains("no error code"));
    }

    #[test]
    fn a_wait_is_what_slack_says_within_reason() {
        let seconds = |text| wait(text).as_secs();
        assert_eq!([Some("7"), Some("0"), Some("99999"), Some("soon"), None].map(seconds), [7, 1, 600, 30, 30]);
    }
}
