//! One HTTP request of a notifier: bounded, never redirected, and told apart by what to do next.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{RequestBuilder, StatusCode};
use url::Url;

use crate::clock::Clock;
use crate::notifier::NotifyError;
use crate::secret::{HeaderText, Redactor, Secret};
use crate::time::{Human, between};

/// From the connection to the last byte that is read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the connection alone.
const CONNECT: Duration = Duration::from_secs(5);
/// A notice that waits longer has lost its point; we ask again then.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Of an answer, this many characters are shown; four bytes each at most.
const SHOWN: usize = 200;
/// As much of an answer as it takes to show it.
pub(super) const BEGINNING: usize = 4 * SHOWN;

/// Asks one server, one request a call.
pub(super) struct Http {
    pub(super) client: reqwest::Client,
    pub(super) redactor: Redactor,
    pub(super) clock: Clock,
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it asked us to wait.
    pub(super) wait: Option<Duration>,
    /// The status and the beginning of the body, for people.
    pub(super) said: String,
    /// The body, as far as it was wanted and came.
    pub(super) body: Vec<u8>,
}

/// What to look at when a server will never take what we send.
pub(super) struct Hints {
    /// After 401 and 403.
    pub(super) refused: &'static str,
    /// After any other 4xx that says that the request is wrong.
    pub(super) wrong: Option<&'static str>,
}

impl Http {
    /// Makes the client.
    ///
    /// # Errors
    /// No usable trust store.
    pub(super) fn new(redactor: Redactor, clock: Clock) -> Result<Http, String> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(TIMEOUT)
            // A redirected POST loses its body or its signature's meaning, and could lead anywhere.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy from the environment would be told what people are told, and nobody has configured it.
            .no_proxy()
            // One request in hours: a connection kept open would be dead by then.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| format!("cannot prepare HTTPS: {error}"))?;
        Ok(Http { client, redactor, clock })
    }

    /// Sends the request and reads at most about `most` bytes of the answer. An answer that breaks off after its status is still
    /// an answer.
    pub(super) async fn ask(&self, request: RequestBuilder, place: &str, most: usize) -> Result<Answer, NotifyError> {
        let sent = request.send().await;
        let mut response = sent.map_err(|error| unanswered(error, place, &self.redactor))?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = retry_after.and_then(|value| wait(value, self.clock.now().wall));
        let mut body = Vec::new();
        while body.len() < most
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        let said = format!("{status} {}", self.redactor.clean(&beginning(&body))).trim_end().to_owned();
        Ok(Answer { status, wait, said, body })
    }
}

/// The URL as it is now; the words for what is wrong leave it out.
pub(super) fn address(url: &Secret) -> Result<Url, String> {
    let parsed =
        Url::parse(&url.reveal()).map_err(|error| format!("`url` is not a URL ({error}); it is not shown here"))?;
    match parsed.scheme() {
        "http" | "https" if parsed.has_host() => Ok(parsed),
        scheme => Err(format!("`url` begins with `{scheme}:`; it must be http:// or https:// and name a host")),
    }
}

/// The configured header fields as they are now, and who we are.
pub(super) fn headers(configured: &[(String, HeaderText)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        let key = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not the name of a header"))?;
        let mut value = HeaderValue::try_from(value.reveal().as_str())
            .map_err(|_| format!("the value of header `{name}` has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    let own = HeaderValue::from_static(concat!("journeyman/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(own);
    Ok(headers)
}

/// What an answer means.
pub(super) fn judge(answer: &Answer, place: &str, hints: &Hints) -> Result<(), NotifyError> {
    if answer.status.is_success() {
        return Ok(());
    }
    let text = format!("posting to {place}: answered {}", answer.said);
    Err(match (answer.status.as_u16(), answer.wait) {
        (429 | 503, Some(wait)) => NotifyError::After { wait, detail: text },
        (408 | 425 | 429 | 500..=599, _) => NotifyError::Backoff(text),
        (300..=399, _) => {
            NotifyError::Never(format!("{text}; redirects are not followed: set `url` to where it leads"))
        }
        (401 | 403, _) => NotifyError::Never(format!("{text}; {}", hints.refused)),
        (404 | 410, _) => NotifyError::Never(format!("{text}; check `url`")),
        _ => NotifyError::Never(hints.wrong.map_or(text.clone(), |hint| format!("{text}; {hint}"))),
    })
}

/// The first characters of a body on one line.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: String = text.trim().chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // The mark says that it goes on, and the redactor where half a secret may stand.
    if text.trim().chars().nth(SHOWN).is_some() { words + "…" } else { words }
}

/// What a request without an answer means: not sent if there was no connection, otherwise perhaps.
fn unanswered(error: reqwest::Error, place: &str, redactor: &Redactor) -> NotifyError {
    // Its URL may be a credential.
    let error = error.without_url();
    let is_connect = error.is_connect();
    let is_timeout = error.is_timeout();
    let is_tls = crate::tls::error_in(&error).is_some();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = inner.source();
    }
    let words = redactor.clean(&words);
    if is_tls && is_connect {
        NotifyError::Never(format!(
            "posting to {place}: TLS failed, nothing was sent: {words}. The certificate must be valid for this name and issued by an \
             authority that this machine trusts"
        ))
    } else if is_connect {
        NotifyError::Backoff(format!("posting to {place}: no connection: {words}"))
    } else if is_timeout {
        NotifyError::Ambiguous(format!("posting to {place}: no answer within {}", Human(TIMEOUT)))
    } else {
        NotifyError::Ambiguous(format!("posting to {place}: the connection was lost: {words}"))
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn wait(value: &str, now: Timestamp) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
            between(now, at)
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_class() {
        let minute = Some(Duration::from_secs(60));
        let table = [
            (200, None, "ok"),
            (202, None, "ok"),
            (204, None, "ok"),
            (301, None, "never"),
            (400, None, "never"),
            (401, None, "never"),
            (404, None, "never"),
            (408, None, "backoff"),
            (410, None, "never"),
            (422, None, "never"),
            (425, None, "backoff"),
            (429, None, "backoff"),
            (429, minute, "after"),
            (500, None, "backoff"),
            (500, minute, "backoff"),
            (502, None, "backoff"),
            (503, None, "backoff"),
            (503, minute, "after"),
        ];
        for (status, wait, class) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, wait, said: format!("{status} no thanks"), body: Vec::new() };
            let hints = Hints { refused: "check `headers`", wrong: Some("check the labels") };
            let judged = judge(&answer, "hooks.example.net", &hints);
            let found = match &judged {
                Ok(()) => "ok",
                Err(NotifyError::Never(_)) => "never",
                Err(NotifyError::Backoff(_)) => "backoff",
                Err(NotifyError::After { .. }) => "after",
                Err(NotifyError::Ambiguous(_)) => "ambiguous",
            };
            assert_eq!(found, class, "{status} {wait:?}");
            if let Err(error) = judged {
                assert!(error.to_string().contains(&format!("answered {status}")), "{error}");
                assert!(error.to_string().contains("no thanks"), "{error}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_an_upper_bound() {
        let now: Timestamp = "2026-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(wait("120", now), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 ", now), Some(Duration::ZERO));
        assert_eq!(wait("Fri, 06 Nov 2026 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(wait("Fri, 06 Nov 2026 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait("99999999999", now), Some(LONGEST_WAIT));
        assert_eq!(wait("soon", now), None);
        assert_eq!(wait("-5", now), None);
    }

    #[test]
    fn a_refusal_says_what_to_look_at() {
        let hints = Hints { refused: "check `headers`", wrong: Some("check the labels") };
        for (status, hint) in
            [(401, "check `headers`"), (404, "check `url`"), (422, "check the labels"), (307, "redirects")]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, wait: None, said: status.to_string(), body: Vec::new() };
            let error = judge(&answer, "hooks.example.net", &hints).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
