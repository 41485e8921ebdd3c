//! What Slack's answers mean: pure classification, by what to do next.

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy;
use serde_json::Value;
use slack_morphism::ClientResult;
use slack_morphism::errors::SlackClientError;

use crate::notifier::NotifyError;

/// How long to wait when Slack says "slow down" and not for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Nobody is kept waiting longer for an alert because of one header field.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// This much of an answer that we do not understand is shown.
const SHOWN: usize = 120;

/// Why a call did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The attempt is over.
    Over(NotifyError),
    /// The message is more than Slack will show: say less. Holds Slack's code.
    TooMuch(String),
    /// The message to edit or to reply to is not there any more. Holds Slack's code.
    Gone(String),
}

impl Refusal {
    /// The error for a caller that has no other way left.
    pub(super) fn into_error(self) -> NotifyError {
        match self {
            Refusal::Over(error) => error,
            Refusal::TooMuch(code) => NotifyError::Never(format!(
                "Slack refused the notice even as plain text ({code}): please report this with the incident's id"
            )),
            Refusal::Gone(code) => NotifyError::Never(format!("Slack has lost the incident's message ({code})")),
        }
    }
}

/// What came of a call: Slack's answer if it is `ok`.
///
/// The library is strict: one field of an unexpected type fails the call, after the message was posted. Taking that for a
/// failure would post it twice, so what counts is what the body says.
pub(super) fn read(called: ClientResult<Value>) -> Result<Value, Refusal> {
    let unclear = || Refusal::Over(NotifyError::Ambiguous("Slack's answer is not its API's JSON".to_owned()));
    match called {
        Ok(answer) => judge(answer).unwrap_or_else(|| Err(unclear())),
        Err(SlackClientError::ProtocolError(error)) => {
            let answer = error.json_body.as_deref().and_then(|body| serde_json::from_str(body).ok());
            answer.and_then(judge).unwrap_or_else(|| Err(unclear()))
        }
        Err(error) => Err(classify(&error)),
    }
}

/// Whether an answer is `ok`; `None` if it is not an answer of Slack's.
fn judge(answer: Value) -> Option<Result<Value, Refusal>> {
    match answer.get("ok")?.as_bool()? {
        true => Some(Ok(answer)),
        false => Some(Err(refused(answer["error"].as_str().unwrap_or("no error code"), &answer))),
    }
}

/// What an error of the library means, where the body does not say.
fn classify(error: &SlackClientError) -> Refusal {
    match error {
        SlackClientError::ApiError(error) => {
            let body = error.http_response_body.as_deref().and_then(|body| serde_json::from_str(body).ok());
            refused(&error.code, &body.unwrap_or(Value::Null))
        }
        SlackClientError::RateLimitError(error) => Refusal::Over(slow_down(error.retry_after, "HTTP 429")),
        SlackClientError::HttpError(error) => Refusal::Over(status(
            error.status_code.as_u16(),
            None,
            error.http_response_body.as_deref().unwrap_or_default(),
        )),
        SlackClientError::HttpProtocolError(error) => {
            let cause = error.cause.as_deref();
            match cause.and_then(|cause| cause.downcast_ref::<legacy::Error>()) {
                Some(error) => Refusal::Over(broken(error.is_connect(), &chain(error))),
                None => Refusal::Over(NotifyError::Never(
                    "the request to Slack cannot be built: check token and `api_url` for stray characters".to_owned(),
                )),
            }
        }
        SlackClientError::SystemError(_)
        | SlackClientError::ProtocolError(_)
        | SlackClientError::EndOfStream(_)
        | SlackClientError::SocketModeProtocolError(_) => {
            Refusal::Over(NotifyError::Ambiguous("the connection broke while Slack answered".to_owned()))
        }
    }
}

/// What a broken connection means; `is_connect` if it never stood.
pub(super) fn broken(is_connect: bool, detail: &str) -> NotifyError {
    if is_connect {
        NotifyError::Backoff(format!("no connection to Slack: {detail}"))
    } else {
        NotifyError::Ambiguous(format!("the connection to Slack broke: {detail}"))
    }
}

/// The error's own words and those of its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        out.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    out
}

/// What a status other than 200 means, with the answer's `Retry-After` and text where they are known.
pub(super) fn status(status: u16, retry_after: Option<&str>, body: &str) -> NotifyError {
    let said = aside(body);
    match status {
        429 => slow_down(retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs), "HTTP 429"),
        500..=599 => NotifyError::Backoff(format!("Slack is unwell: HTTP {status}{said}")),
        _ => {
            NotifyError::Backoff(format!("Slack answered HTTP {status}{said}: is there a proxy, or a wrong `api_url`?"))
        }
    }
}

/// What an incoming webhook's answer means. <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
pub(super) fn webhook(code: u16, retry_after: Option<&str>, body: &str) -> Result<(), Refusal> {
    let said = body.trim();
    match code {
        200 if said == "ok" => Ok(()),
        200 => Err(Refusal::Over(NotifyError::Backoff(format!(
            "the webhook's answer is not Slack's `ok`{}: is there a proxy in between?",
            aside(body)
        )))),
        // 400 is Slack's word for a payload that it does not like; with fewer blocks it may.
        400 => Err(Refusal::TooMuch(shown(said))),
        403 | 404 | 410 => Err(Refusal::Over(NotifyError::Never(format!(
            "Slack will not take notices at this webhook any more (HTTP {code}){}: make a new incoming webhook, in a \
             channel that is not archived, and put its URL into the configuration",
            aside(body)
        )))),
        _ => Err(Refusal::Over(status(code, retry_after, body))),
    }
}

/// What an `ok: false` with this code means. <https://docs.slack.dev/reference/methods/chat.postMessage#errors>
fn refused(code: &str, answer: &Value) -> Refusal {
    let never = |advice: &str| {
        Refusal::Over(NotifyError::Never(format!("Slack refused the notice ({}): {advice}", shown(code))))
    };
    match code {
        "invalid_auth" | "not_authed" => never("the token is not one that Slack knows; check the notifier's `token`"),
        "token_revoked" => never("the token was revoked: install the app again and put the new token in place"),
        "token_expired" => never("the token has expired: make a new one, without token rotation"),
        "account_inactive" => never("the bot's account was deactivated: install the app again"),
        "not_allowed_token_type" | "is_bot" => never("`token` is to be a bot's, which begins with xoxb-"),
        "deprecated_endpoint" | "method_deprecated" => never("Slack has taken this method away: update Journeyman"),
        "no_permission" | "access_denied" | "enterprise_is_restricted" | "two_factor_setup_required" => {
            never("the app may not do this in the workspace: ask its administrators")
        }
        "missing_scope" => {
            let needed = answer["needed"].as_str().map_or_else(|| "chat:write".to_owned(), shown);
            never(&format!("add the scope {needed} to the app and install it again"))
        }
        "channel_not_found" => never(
            "there is no such channel, or it is private and the bot is not in it: check `channel` (an id such as \
             C0123456789) and invite the bot with /invite @journeyman",
        ),
        "not_in_channel" => never("invite the bot with /invite @journeyman in the channel"),
        "is_archived" | "is_inactive" => never("the channel is archived: restore it, or name another `channel`"),
        "org_login_required" | "ekm_access_denied" | "team_access_not_granted" | "team_not_found" => {
            never("the workspace's administrators do not let the app in: ask them")
        }
        "messages_tab_disabled" => never("`channel` is the app's own home, where messages are switched off"),
        code if code.starts_with("slack_connect_") => never(
            "the channel is shared with another company, which does not let such links in: name another `channel`",
        ),
        code if is_our_fault(code) => never("please report this with the incident's id"),
        // A thread that takes no replies, or a message that takes no edits: it is as good as gone.
        "message_not_found"
        | "thread_not_found"
        | "cannot_reply_to_message"
        | "cant_update_message"
        | "edit_window_closed"
        | "restricted_action_thread_locked"
        | "restricted_action_non_threadable_channel" => Refusal::Gone(code.to_owned()),
        code if code.starts_with("restricted_action") => {
            never("the channel's or the workspace's rules do not let the app post: ask its administrators")
        }
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => Refusal::Over(slow_down(None, code)),
        "invalid_blocks"
        | "invalid_blocks_format"
        | "invalid_arguments"
        | "block_mismatch"
        | "msg_blocks_too_long"
        | "msg_too_long"
        | "no_text"
        | "invalid_attachments"
        | "attachment_payload_limit_exceeded"
        | "too_many_attachments" => Refusal::TooMuch(code.to_owned()),
        code => Refusal::Over(NotifyError::Backoff(format!("Slack could not take the notice ({})", shown(code)))),
    }
}

/// Codes for a request that is not as Slack wants it, whatever it says; once more would be as wrong.
fn is_our_fault(code: &str) -> bool {
    const FORM: [&str; 6] = [
        "invalid_arg_name",
        "invalid_array_arg",
        "invalid_charset",
        "invalid_form_data",
        "invalid_post_type",
        "missing_post_type",
    ];
    const CONTENT: [&str; 8] = [
        "invalid_metadata_format",
        "invalid_metadata_schema",
        "metadata_must_be_sent_from_app",
        "metadata_too_large",
        "markdown_text_conflict",
        "as_user_not_supported",
        "too_many_contact_cards",
        "cant_broadcast_message",
    ];
    const SEARCH: [&str; 4] = ["invalid_cursor", "invalid_ts_oldest", "invalid_ts_latest", "invalid_limit"];
    FORM.contains(&code) || CONTENT.contains(&code) || SEARCH.contains(&code)
}

fn slow_down(wait: Option<Duration>, what: &str) -> NotifyError {
    let wait = wait.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT);
    NotifyError::After { wait, detail: format!("Slack wants fewer messages ({what})") }
}

/// The beginning of a text that is not ours, on one line.
fn shown(text: &str) -> String {
    let words: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    // The mark says that it goes on, and the redactor where half a secret may stand.
    if text.trim().chars().nth(SHOWN).is_some() { words + "…" } else { words }
}

/// The same in brackets; nothing if there is none.
fn aside(text: &str) -> String {
    let shown = shown(text);
    if shown.is_empty() { shown } else { format!(" ({shown})") }
}

/// Answers of Slack's, or of whatever stands between.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (field, body) = text.split_once('\n').unwrap_or(("", &text));
    for code in [200, 302, 400, 403, 404, 410, 429, 500, 503] {
        if let Err(Refusal::Over(NotifyError::After { wait, .. })) = webhook(code, Some(field), body) {
            assert!(wait <= LONGEST_WAIT, "{field:?}");
        }
    }
    if let Ok(answer) = serde_json::from_str(body)
        && let Err(refusal) = read(Ok(answer))
    {
        let _ = refusal.into_error();
    }
}

#[cfg(test)]
mod tests {
    use slack_morphism::errors::{
        SlackClientApiError, SlackClientHttpError, SlackClientHttpProtocolError, SlackClientProtocolError,
        SlackRateLimitError, map_serde_error,
    };

    use super::*;

    /// The class alone: `never`, `backoff`, `ambiguous`, `after 30`, `less`, `gone`.
    fn class(refusal: &Refusal) -> String {
        match refusal {
            Refusal::Over(NotifyError::Never(_)) => "never".to_owned(),
            Refusal::Over(NotifyError::Backoff(_)) => "backoff".to_owned(),
            Refusal::Over(NotifyError::Ambiguous(_)) => "ambiguous".to_owned(),
            Refusal::Over(NotifyError::After { wait, .. }) => format!("after {}", wait.as_secs()),
            Refusal::TooMuch(_) => "less".to_owned(),
            Refusal::Gone(_) => "gone".to_owned(),
        }
    }

    fn api(code: &str, body: &str) -> SlackClientError {
        SlackClientError::ApiError(SlackClientApiError::new(code.to_owned()).with_http_response_body(body.to_owned()))
    }

    #[test]
    fn every_answer_has_a_class() {
        let http = |status: u16| {
            let status = hyper::StatusCode::from_u16(status).unwrap();
            SlackClientError::HttpError(SlackClientHttpError::new(status))
        };
        let limited = |wait: Option<u64>| {
            SlackClientError::RateLimitError(SlackRateLimitError::new().opt_retry_after(wait.map(Duration::from_secs)))
        };
        let unreadable = |body: &str| {
            let error = serde_json::from_str::<Value>("").unwrap_err();
            SlackClientError::ProtocolError(SlackClientProtocolError::new(error).with_json_body(body.to_owned()))
        };
        let unbuilt = hyper::http::Error::from(hyper::header::HeaderValue::from_str("\n").unwrap_err());
        let unbuilt = SlackClientHttpProtocolError::new().with_cause(Box::new(unbuilt));
        let mut table = vec![
            (limited(Some(7)), "after 7"),
            (limited(None), "after 30"),
            (limited(Some(0)), "after 1"),
            (limited(Some(u64::MAX)), "after 3600"),
            (http(500), "backoff"),
            (http(503), "backoff"),
            (http(418), "backoff"),
            (unreadable("<html>"), "ambiguous"),
            (unreadable(r#"{"ok":true,"ts":"1.2","warnings":{}}"#), "ok"),
            (unreadable(r#"{"ok":false,"error":"invalid_auth","errors":7}"#), "never"),
            (map_serde_error(serde_json::from_str::<Value>("").unwrap_err(), None), "ambiguous"),
            (SlackClientError::HttpProtocolError(unbuilt), "never"),
            (SlackClientError::from(Box::<dyn Error + Send + Sync>::from("body cut")), "ambiguous"),
        ];
        let codes = [
            (
                "never",
                "invalid_auth not_authed account_inactive token_revoked token_expired no_permission missing_scope",
            ),
            (
                "never",
                "channel_not_found not_in_channel is_archived restricted_action restricted_action_read_only_channel",
            ),
            ("never", "org_login_required ekm_access_denied team_access_not_granted team_not_found access_denied"),
            ("never", "is_inactive not_allowed_token_type is_bot deprecated_endpoint method_deprecated"),
            ("never", "enterprise_is_restricted two_factor_setup_required messages_tab_disabled"),
            ("never", "slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked"),
            ("never", "slack_connect_lists_sharing_blocked restricted_action_thread_only_channel"),
            ("never", "invalid_arg_name invalid_array_arg invalid_charset invalid_form_data invalid_post_type"),
            ("never", "missing_post_type invalid_metadata_format invalid_metadata_schema metadata_too_large"),
            ("never", "metadata_must_be_sent_from_app markdown_text_conflict as_user_not_supported"),
            ("never", "too_many_contact_cards cant_broadcast_message"),
            ("never", "invalid_cursor invalid_ts_oldest invalid_ts_latest invalid_limit"),
            ("after 30", "ratelimited rate_limited message_limit_exceeded"),
            ("backoff", "internal_error fatal_error service_unavailable request_timeout accesslimited something_new"),
            ("backoff", "team_added_to_org external_channel_migrating update_failed streaming_state_conflict"),
            ("less", "invalid_blocks invalid_blocks_format msg_blocks_too_long msg_too_long invalid_attachments"),
            ("less", "invalid_arguments block_mismatch no_text too_many_attachments attachment_payload_limit_exceeded"),
            ("gone", "message_not_found thread_not_found cannot_reply_to_message cant_update_message"),
            ("gone", "edit_window_closed restricted_action_thread_locked restricted_action_non_threadable_channel"),
        ];
        for (class, codes) in codes {
            table.extend(codes.split(' ').map(|code| (api(code, ""), class)));
        }
        for (error, expected) in table {
            let shown = format!("{error:?}");
            let found = read(Err(error)).map_or_else(|refusal| class(&refusal), |_| "ok".to_owned());
            assert_eq!(found, expected, "{shown}");
        }
        let odd = [(serde_json::json!({}), "ambiguous"), (serde_json::json!({"ok": false}), "backoff")];
        for (answer, expected) in odd {
            assert_eq!(class(&read(Ok(answer)).unwrap_err()), expected);
        }
    }

    #[test]
    fn a_webhook_is_believed_only_when_it_says_ok() {
        let table = [
            (200, None, "ok", "ok"),
            (200, None, "<html>Please log in</html>", "backoff"),
            (400, None, "invalid_blocks", "less"),
            (403, None, "action_prohibited", "never"),
            (404, None, "no_service", "never"),
            (410, None, "channel_is_archived", "never"),
            (429, Some("12"), "", "after 12"),
            (429, Some("soon"), "", "after 30"),
            (429, None, "", "after 30"),
            (500, None, "rollup_error", "backoff"),
            (302, None, "", "backoff"),
        ];
        for (code, retry_after, body, expected) in table {
            let found = webhook(code, retry_after, body).map_or_else(|refusal| class(&refusal), |()| "ok".to_owned());
            assert_eq!(found, expected, "{code} {body}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = |code: &str, body: &str| read(Err(api(code, body))).unwrap_err().into_error().to_string();
        assert!(text("not_in_channel", "").contains("/invite @journeyman"));
        assert!(text("token_revoked", "").contains("the token was revoked: "));
        assert!(text("missing_scope", r#"{"needed":"channels:history"}"#).contains("add the scope channels:history"));
        assert!(text("something_new", "").contains("something_new"));
    }
}
