//! With an incoming webhook: a message per notice, which can neither be edited nor looked up.

use tracing::warn;
use url::Url;

use super::answer::{self, Refusal};
use super::message::{Detail, Page, Part};
use super::{escape, pace::Pace};
use crate::notifier::{NotifyError, Receipt};
use crate::secret::{Redactor, Secret};

/// More than this of a webhook's answer is not read.
const ANSWER_SIZE: usize = 4_096;
/// The last part of a webhook's path is its key, of 24 characters at Slack; a shorter one is a word.
const WEBHOOK_KEY: usize = 16;
/// The place of a message that has no address.
const WEBHOOK_PLACE: &str = "incoming webhook";

/// An incoming webhook can be asked nothing. An empty message is refused, and in which words depends on the URL: Slack says
/// `no_text`, `invalid_payload` or the like to a good one, and `no_service`, `no_team` or 404 to one that is gone.
pub(super) async fn prove_webhook(
    client: &reqwest::Client,
    url: &Secret,
    redactor: &Redactor,
) -> Result<String, NotifyError> {
    let address = webhook_url(url, redactor).map_err(NotifyError::Never)?;
    let request = client.post(address).header("content-type", "application/json; charset=utf-8").body("{}");
    let answered = request.send().await.map_err(|error| {
        let is_connect = error.is_connect();
        answer::broken(is_connect, &answer::chain(&error.without_url()))
    })?;
    let status = answered.status();
    let said: String = answered.text().await.unwrap_or_default().chars().take(100).collect();
    match (status.as_u16(), said.trim()) {
        (400, words @ ("no_text" | "missing_text_or_fallback_or_attachments" | "invalid_payload")) => {
            Ok(format!("the webhook is there, and refuses an empty message ({words})"))
        }
        (200, _) => Err(NotifyError::Never("it takes an empty message, which Slack never does".to_owned())),
        (code, words) => Err(NotifyError::Never(format!("the webhook answers {code} {words}"))),
    }
}

/// Posts to an incoming webhook, with less and less detail while Slack finds it too much.
///
/// Not through the library, which takes every 200 for success without a look at the body: a login page in between would
/// swallow the alert.
pub(super) async fn post_webhook(
    client: &reqwest::Client,
    url: &Secret,
    pace: &Pace,
    page: Page<'_>,
) -> Result<Receipt, NotifyError> {
    let id = &page.delivery.id;
    let mut detail = Detail::Full;
    loop {
        let mut content = page.content(Part::Root, detail);
        // Nothing can be looked up here, so a notice that was sent twice must be recognisable by people.
        content.text = content.text.map(|text| format!("{} [{}]", text.trim_end(), escape::line(id, 60)));
        let body = serde_json::to_vec(&content).map_err(|error| NotifyError::Never(format!("no JSON: {error}")))?;
        pace.turn().await;
        match post(client, webhook_url(url, page.redactor).map_err(NotifyError::Never)?, body).await {
            Ok(()) => {
                let (place, said) = (WEBHOOK_PLACE.to_owned(), "ok".to_owned());
                return Ok(Receipt { id: id.clone(), place, said, is_root: false });
            }
            Err(Refusal::TooMuch(code)) if detail.less().is_some() => {
                warn!(delivery = id, code, "Slack finds the notice too much");
                detail = detail.less().unwrap_or(Detail::TextOnly);
            }
            Err(refusal) => return Err(refusal.into_error()),
        }
    }
}

async fn post(client: &reqwest::Client, url: Url, body: Vec<u8>) -> Result<(), Refusal> {
    let broken = |error: reqwest::Error| {
        let is_connect = error.is_connect();
        // The URL is the credential, and the library's errors carry it.
        Refusal::Over(answer::broken(is_connect, &answer::chain(&error.without_url())))
    };
    let request = client.post(url).header("content-type", "application/json; charset=utf-8").body(body);
    let mut response = request.send().await.map_err(broken)?;
    let mut body = Vec::new();
    while body.len() < ANSWER_SIZE
        && let Some(chunk) = response.chunk().await.map_err(broken)?
    {
        body.extend_from_slice(&chunk);
    }
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    answer::webhook(response.status().as_u16(), retry_after, &String::from_utf8_lossy(&body))
}

/// The webhook's address. What of it is secret is hidden from here on, should an answer repeat it without the host.
pub(super) fn webhook_url(url: &Secret, redactor: &Redactor) -> Result<Url, String> {
    match Url::parse(&url.reveal()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            redactor.add(url.path());
            let key = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
            if key.len() >= WEBHOOK_KEY {
                redactor.add(key);
            }
            Ok(url)
        }
        _ => Err("the Slack webhook is not a URL: it looks like https://hooks.slack.com/services/…".to_owned()),
    }
}
