//! Webhook: the notice as JSON, signed, to a URL of the team's own. The document is described in `docs/notifiers/webhook.md`.

use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::clock::Clock;
use crate::notifier::post::{self, BEGINNING, Hints, Http};
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered, clean};
use crate::secret::{HeaderText, Redactor, Secret};

/// The version of the document; a change that could break a receiver makes it another.
const VERSION: u32 = 1;
const HINTS: Hints = Hints { refused: "check `headers` and `signing_key`", wrong: None };

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
    http: Http,
}

/// Makes the notifier, and checks all that can be checked without the network.
///
/// # Errors
/// A URL or header that cannot be used, named without its value; no usable trust store.
pub fn open(settings: WebhookSettings, redactor: Redactor, clock: Clock) -> Result<Webhook, String> {
    post::address(&settings.url)?;
    post::headers(&settings.headers)?;
    Ok(Webhook { settings, http: Http::new(redactor, clock)? })
}

impl Webhook {
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, NotifyError> {
        // A secret file may have changed since `open`.
        let url = post::address(&self.settings.url).map_err(NotifyError::Never)?;
        let place = url.host_str().unwrap_or_default().to_owned();
        let mut headers = post::headers(&self.settings.headers).map_err(NotifyError::Never)?;
        let id = HeaderValue::try_from(&delivery.id)
            .map_err(|_| NotifyError::Never(format!("the delivery id {:?} cannot be a header", delivery.id)))?;
        let body = document(delivery, &self.http.redactor).to_string();
        headers.insert("x-journeyman-delivery", id);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.settings.signing_key {
            let signature = HeaderValue::try_from(signature(key.reveal().as_bytes(), body.as_bytes()));
            headers.insert("x-journeyman-signature", signature.expect("hexadecimal digits are a header value"));
        }
        let request = self.http.client.post(url).headers(headers).body(body);
        let answer = self.http.ask(request, &place, BEGINNING).await?;
        post::judge(&answer, &place, &HINTS)?;
        Ok(Receipt { id: delivery.id.clone(), place, said: answer.said, is_root: false })
    }
}

impl Notifier for Webhook {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(self.attempt(delivery))
    }

    /// Asks `OPTIONS`, which changes nothing: any answer proves that it is there. Credentials that are refused are told.
    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let url = post::address(&self.settings.url).map_err(NotifyError::Never)?;
            let place = url.host_str().unwrap_or_default().to_owned();
            let headers = post::headers(&self.settings.headers).map_err(NotifyError::Never)?;
            let request = self.http.client.request(reqwest::Method::OPTIONS, url).headers(headers);
            let status = self.http.ask(request, &place, 0).await?.status;
            match status.as_u16() {
                401 | 403 | 407 => {
                    let why = format!("{place} is there, and answers {status}: it does not take our `headers`");
                    Err(NotifyError::Never(why))
                }
                _ => Ok(format!("{place} is there, and answers OPTIONS with {status}")),
            }
        })
    }

    /// The document.
    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        let document =
            serde_json::to_vec_pretty(&document(delivery, &self.http.redactor)).map_err(|error| error.to_string())?;
        Ok(vec![Rendered { ending: "json", bytes: document }])
    }

    fn kind(&self) -> &'static str {
        "webhook"
    }
}

/// The document that is posted, without secrets.
fn document(delivery: &Delivery, redactor: &Redactor) -> Value {
    let notification = &delivery.notification;
    let incident = &notification.incident;
    let changes = match (&notification.last_good, &notification.report) {
        (Some(good), Some(report)) => crate::journey::compare::changes(good, report),
        _ => Vec::new(),
    };
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
        "changes": changes,
        "waterfall": notification.waterfall(24),
        "links": { "runbook": notification.runbook, "page": notification.link, "acknowledge": notification.ack_link, "run_again": notification.run_link },
        "instead_of": instead_of,
    });
    if let Some(mark) = notification.mark {
        document[mark.as_str()] = json!(true);
    }
    clean(&mut document, redactor);
    document
}

/// HMAC-SHA-256 of the raw body, as GitHub and others write it.
fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
