//! Webhook: the notice as JSON, signed, to a URL of the team's own. The document is described in `docs/notifiers/webhook.md`.

use std::time::Duration;

use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

use crate::clock::Clock;
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt};
use crate::secret::{HeaderText, Redactor, Secret};
use crate::time::{Human, between};

/// The version of the document; a change that could break a receiver makes it another.
const VERSION: u32 = 1;
/// From the connection to the last byte that is read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the connection alone.
const CONNECT: Duration = Duration::from_secs(5);
/// A notice that waits longer has lost its point; we ask again then.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Of an answer, this many characters are kept; four bytes each at most.
const ANSWER: usize = 200;

/// Settings of a `webhook` notifier.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where to.
    pub url: Secret,
    /// Sent with every request.
    pub headers: Vec<(String, HeaderText)>,
    /// Signs the body: HMAC-SHA-256 in `X-Journeyman-Signature: sha256=<hex>`.
    pub signing_key: Option<Secret>,
}

/// Posts each notice to a URL.
pub struct Webhook {
    settings: WebhookSettings,
    client: reqwest::Client,
    redactor: Redactor,
    clock: Clock,
}

/// Makes the notifier, and checks all that can be checked without the network.
///
/// # Errors
/// A URL or header that cannot be used, named without its value; no usable trust store.
pub fn open(settings: WebhookSettings, redactor: Redactor, clock: Clock) -> Result<Webhook, String> {
    address(&settings.url)?;
    headers(&settings)?;
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(TIMEOUT)
        // A redirected POST loses its body or its signature's meaning, and could lead anywhere.
        .redirect(reqwest::redirect::Policy::none())
        // One request in hours: a connection kept open would be dead by then.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| format!("cannot prepare HTTPS: {error}"))?;
    Ok(Webhook { settings, client, redactor, clock })
}

/// The URL as it is now; its words for what is wrong leave it out.
fn address(url: &Secret) -> Result<Url, String> {
    let parsed =
        Url::parse(&url.reveal()).map_err(|error| format!("`url` is not a URL ({error}); it is not shown here"))?;
    match parsed.scheme() {
        "http" | "https" if parsed.has_host() => Ok(parsed),
        scheme => Err(format!("`url` begins with `{scheme}:`; it must be http:// or https:// and name a host")),
    }
}

fn headers(settings: &WebhookSettings) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let key = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not the name of a header"))?;
        let mut value = HeaderValue::try_from(value.reveal().as_str())
            .map_err(|_| format!("the value of header `{name}` has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

impl Webhook {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, NotifyError> {
        // A secret file may have changed since `open`.
        let url = address(&self.settings.url).map_err(NotifyError::Never)?;
        let place = url.host_str().unwrap_or_default().to_owned();
        let mut headers = headers(&self.settings).map_err(NotifyError::Never)?;
        let id = HeaderValue::try_from(&delivery.id)
            .map_err(|_| NotifyError::Never(format!("the delivery id {:?} cannot be a header", delivery.id)))?;
        let body = document(delivery, &self.redactor).to_string();
        headers.insert("x-journeyman-delivery", id);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("journeyman/", env!("CARGO_PKG_VERSION"))));
        if let Some(key) = &self.settings.signing_key {
            let signature = HeaderValue::try_from(signature(key.reveal().as_bytes(), body.as_bytes()));
            headers.insert("x-journeyman-signature", signature.expect("hexadecimal digits are a header value"));
        }
        let mut response = match self.client.post(url).headers(headers).body(body).send().await {
            Ok(response) => response,
            Err(error) => return Err(unanswered(error, &place, &self.redactor)),
        };
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = retry_after.and_then(|value| wait(value, self.clock.now().wall));
        let answer = self.redactor.clean(&beginning(&mut response).await);
        judge(status, wait, &place, &answer)?;
        let said = format!("{status} {answer}").trim_end().to_owned();
        Ok(Receipt { id: delivery.id.clone(), place, said })
    }
}

impl Notifier for Webhook {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(self.attempt(delivery))
    }

    /// Asks `OPTIONS`, which changes nothing: any answer proves that it is there. Credentials that are refused are told.
    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let url = address(&self.settings.url).map_err(NotifyError::Never)?;
            let place = url.host_str().unwrap_or_default().to_owned();
            let headers = headers(&self.settings).map_err(NotifyError::Never)?;
            let asked = self.client.request(reqwest::Method::OPTIONS, url).headers(headers).send().await;
            let status = asked.map_err(|error| unanswered(error, &place, &self.redactor))?.status();
            match status.as_u16() {
                401 | 403 | 407 => {
                    let why = format!("{place} is there, and answers {status}: it does not take our `headers`");
                    Err(NotifyError::Never(why))
                }
                _ => Ok(format!("{place} is there, and answers OPTIONS with {status}")),
            }
        })
    }

    fn kind(&self) -> &'static str {
        "webhook"
    }
}

/// The document that is posted, without secrets.
fn document(delivery: &Delivery, redactor: &Redactor) -> Value {
    let notification = &delivery.notification;
    let incident = &notification.incident;
    let facts: Vec<_> =
        notification.facts().into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let instead_of = delivery.instead_of.as_ref().map(|(notifier, said)| json!({ "notifier": notifier, "said": said }));
    let mut document = json!({
        "version": VERSION,
        "delivery": delivery.id,
        "attempt": delivery.attempt,
        "reason": notification.reason,
        "state": notification.state_word(),
        "subject": notification.subject,
        "headline": notification.headline(),
        "at": notification.at,
        "incident": {
            "id": incident.id,
            "since": incident.since,
            "detectors": incident.detectors,
            "severity": incident.worst,
            "sequence": incident.sequence,
            "bad_runs": incident.bad_runs,
        },
        "facts": facts,
        "labels": notification.labels,
        "report": notification.report,
        "last_good": notification.last_good,
        "waterfall": notification.waterfall(24),
        "links": { "runbook": notification.runbook, "page": notification.link },
        "instead_of": instead_of,
    });
    clean(&mut document, redactor);
    document
}

fn clean(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => *text = redactor.clean(text),
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, redactor)),
        Value::Object(members) => members.values_mut().for_each(|member| clean(member, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// HMAC-SHA-256 of the raw body, as GitHub and others write it.
fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// The first characters of the answer on one line. An answer that breaks off after its status is still an answer.
async fn beginning(response: &mut reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < 4 * ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let words: String = text.trim().chars().take(ANSWER).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // The mark says that it goes on, and the redactor where half a secret may stand.
    if text.trim().chars().nth(ANSWER).is_some() { words + "…" } else { words }
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

/// What an answer means.
fn judge(status: StatusCode, wait: Option<Duration>, place: &str, answer: &str) -> Result<(), NotifyError> {
    if status.is_success() {
        return Ok(());
    }
    let text = format!("posting to {place}: answered {status} {answer}").trim_end().to_owned();
    Err(match (status.as_u16(), wait) {
        (429 | 503, Some(wait)) => NotifyError::After { wait, detail: text },
        (408 | 425 | 429 | 500..=599, _) => NotifyError::Backoff(text),
        (300..=399, _) => {
            NotifyError::Never(format!("{text}; redirects are not followed: set `url` to where it leads"))
        }
        (401 | 403, _) => NotifyError::Never(format!("{text}; check `headers` and `signing_key`")),
        (404 | 410, _) => NotifyError::Never(format!("{text}; check `url`")),
        _ => NotifyError::Never(text),
    })
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
            let judged = judge(StatusCode::from_u16(status).unwrap(), wait, "hooks.example.net", "no thanks");
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

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_the_published_one() {
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn what_cannot_work_is_refused_without_showing_it() {
        crate::tls::init();
        let refusal = |url: &str, headers: Vec<(String, HeaderText)>| {
            let redactor = Redactor::new();
            let settings = WebhookSettings { url: Secret::new(url.to_owned(), &redactor), headers, signing_key: None };
            open(settings, redactor, Clock::system()).err()
        };
        let header = |name: &str, value: &str| vec![(name.to_owned(), HeaderText::Plain(value.to_owned()))];
        let text = refusal("hooks.example.net/s3cr3t", Vec::new()).unwrap();
        assert!(text.starts_with("`url` is not a URL") && !text.contains("s3cr3t"), "{text}");
        assert!(refusal("ftp://hooks.example.net/s3cr3t", Vec::new()).unwrap().contains("http://"));
        let text = refusal("https://hooks.example.net/", header("authorization", "s3cr3t\r\nx: y")).unwrap();
        assert!(text.contains("`authorization`") && !text.contains("s3cr3t"), "{text}");
        assert!(refusal("https://hooks.example.net/", header("a b", "c")).unwrap().contains("`a b`"));
        assert_eq!(refusal("https://hooks.example.net/", header("authorization", "Bearer s3cr3t")), None);
    }
}
