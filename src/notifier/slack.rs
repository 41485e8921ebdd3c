//! Slack: one message per incident, edited in place, each transition also a reply in its thread.
//!
//! An edit notifies nobody, so what changed is told by a reply, and the edit keeps the channel readable. Retries and waiting
//! are not done here, and not by the library: one call of [`Notifier::notify`] is one attempt, of a few requests.

mod answer;
mod connector;
mod escape;
mod message;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use slack_morphism::hyper_tokio::SlackClientHyperConnector;
use slack_morphism::prelude::{SlackApiChatPostMessageRequest, SlackApiChatUpdateRequest, SlackMessageContent};
use slack_morphism::{ClientResult, SlackApiToken, SlackApiTokenValue, SlackClient};
use tracing::{debug, warn};
use url::Url;

use crate::clock::Clock;
use crate::incident::NotifyReason;
use crate::notifier::slack::answer::Refusal;
use crate::notifier::slack::connector::Connector;
use crate::notifier::slack::message::{Detail, EVENT_TYPE, Page, Part};
use crate::notifier::template::Template;
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};
use crate::secret::{Redactor, Secret};
use crate::time::{Human, earlier};

/// Every single request is answered within this time, or its outcome is unknown. The library itself would wait for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How far our clock may be ahead of Slack's when we look for a message of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(600);
/// Messages asked for at once, and how often we ask for more before we believe that ours is not there.
const PAGE_SIZE: usize = 200;
const PAGES: usize = 10;
/// More than this of a webhook's answer is not read.
const ANSWER_SIZE: usize = 4_096;
/// The last part of a webhook's path is its key, of 24 characters at Slack; a shorter one is a word.
const WEBHOOK_KEY: usize = 16;
/// The place of a message that has no address.
const WEBHOOK_PLACE: &str = "incoming webhook";

/// Settings of a `slack` notifier.
#[derive(Clone, Debug)]
pub enum SlackSettings {
    /// With a bot token: messages can be edited, threaded and looked up.
    Bot {
        /// `xoxb-…`
        token: Secret,
        /// The channel's id.
        channel: String,
        /// Another API root than Slack's, for proxies and tests.
        api_url: Option<Url>,
    },
    /// With an incoming webhook: one message per notice, nothing can be edited or looked up.
    Webhook {
        /// The webhook's URL, which is its own credential.
        url: Secret,
    },
}

/// Tells people in Slack.
pub struct Slack {
    mode: Mode,
    headline: Option<Template>,
    redactor: Redactor,
    clock: Clock,
}

enum Mode {
    Bot { client: Client, token: Secret, channel: String },
    Webhook { client: reqwest::Client, url: Secret },
}

type Client = SlackClient<SlackClientHyperConnector<Connector>>;

/// Makes a `slack` notifier; connects to nothing yet.
///
/// # Errors
/// The webhook's URL is not one, or TLS cannot be set up; in words, without secrets.
pub fn open(settings: SlackSettings, redactor: Redactor, clock: Clock) -> Result<Slack, String> {
    let mode = match settings {
        SlackSettings::Bot { token, channel, api_url } => {
            let mut connector = SlackClientHyperConnector::with_connector(Connector::open()?);
            if let Some(root) = &api_url {
                connector = connector.with_slack_api_url(root.as_str().trim_end_matches('/'));
            }
            Mode::Bot { client: SlackClient::new(connector), token, channel }
        }
        SlackSettings::Webhook { url } => {
            webhook_url(&url, &redactor)?;
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CALL_TIMEOUT / 2)
                .timeout(CALL_TIMEOUT)
                .build()
                .map_err(|error| format!("no HTTP client for Slack: {}", answer::chain(&error.without_url())))?;
            Mode::Webhook { client, url }
        }
    };
    Ok(Slack { mode, headline: None, redactor, clock })
}

impl Slack {
    /// With a headline of people's own.
    pub fn with_headline(self, headline: Option<Template>) -> Slack {
        Slack { headline, ..self }
    }

    fn page<'a>(&'a self, delivery: &'a Delivery) -> Page<'a> {
        Page { delivery, template: self.headline.as_ref(), redactor: &self.redactor }
    }
}

impl Notifier for Slack {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(async move {
            let began = self.clock.now().mono;
            let page = self.page(delivery);
            let told = match &self.mode {
                Mode::Bot { client, token, channel } => {
                    let token = SlackApiToken::new(SlackApiTokenValue(token.reveal().to_string()));
                    Bot { client, token, channel, page }.tell().await
                }
                Mode::Webhook { client, url } => post_webhook(client, url, page).await,
            };
            debug!(delivery = delivery.id, took = %Human(self.clock.now().mono.since(began)), "attempt at Slack ended");
            told.map_err(|error| clean(error, &self.redactor))
        })
    }

    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let proven = match &self.mode {
                Mode::Bot { client, token, channel } => {
                    let token = SlackApiToken::new(SlackApiTokenValue(token.reveal().to_string()));
                    whoami(client, &token, channel).await
                }
                Mode::Webhook { client, url } => prove_webhook(client, url, &self.redactor).await,
            };
            proven.map_err(|error| clean(error, &self.redactor))
        })
    }

    /// The incident's message, and for every notice but the first the reply that tells people.
    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        let is_first = delivery.root.is_none();
        let parts = [("json", Part::Root), ("reply.json", Part::Reply)].into_iter().take(if is_first { 1 } else { 2 });
        let rendered = parts.map(|(ending, part)| {
            let content = self.page(delivery).content(part, Detail::Full);
            let bytes = serde_json::to_vec_pretty(&content).map_err(|error| error.to_string())?;
            Ok(Rendered { ending, bytes })
        });
        rendered.collect()
    }

    fn kind(&self) -> &'static str {
        "slack"
    }
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            Mode::Bot { channel, .. } => write!(f, "Slack(bot in {channel})"),
            Mode::Webhook { .. } => f.write_str("Slack(webhook)"),
        }
    }
}

/// One attempt with a bot token.
struct Bot<'a> {
    client: &'a Client,
    token: SlackApiToken,
    channel: &'a str,
    page: Page<'a>,
}

/// A message in Slack: where, and its `ts`, which is its id there.
#[derive(Clone, Debug)]
struct Place {
    channel: String,
    ts: String,
}

/// A message of ours that an earlier attempt had left.
struct Found {
    place: Place,
    is_reply: bool,
}

impl Bot<'_> {
    async fn tell(&self) -> Result<Receipt, NotifyError> {
        let root = self.page.delivery.root.as_ref().and_then(Place::of);
        let found = match self.page.delivery.is_ambiguous {
            true => self.find(root.as_ref()).await?,
            false => None,
        };
        match (root, found) {
            (Some(root), Some(found)) if found.is_reply => self.edit(&root, found.place, "reply found").await,
            (Some(root), None) => match self.post(Part::Reply, Some(&root)).await {
                Ok(reply) => self.edit(&root, reply, "replied").await,
                Err(Refusal::Gone(code)) => self.start_again(&code).await,
                Err(refusal) => Err(refusal.into_error()),
            },
            (_, Some(found)) => Ok(found.place.receipt("found: an earlier attempt had been taken")),
            (None, None) => match self.post(Part::Root, None).await {
                Ok(place) => Ok(place.receipt("posted")),
                Err(refusal) => Err(refusal.into_error()),
            },
        }
    }

    /// Brings the incident's message up to date. The reply has told people, so a failure here is only mentioned.
    async fn edit(&self, root: &Place, reply: Place, told: &str) -> Result<Receipt, NotifyError> {
        let edited = self.send("chat.update", Part::Root, |content| {
            SlackApiChatUpdateRequest::new(root.channel.clone().into(), content, root.ts.clone().into())
        });
        match edited.await {
            Ok(_) => Ok(reply.receipt(&format!("{told}; the incident's message was edited"))),
            // Slack takes replies to a message that was deleted, in a thread that nobody sees.
            Err(Refusal::Gone(code)) => self.start_again(&code).await,
            Err(refusal) => {
                let error = clean(refusal.into_error(), self.page.redactor);
                warn!(delivery = self.page.delivery.id, %error, "the incident's Slack message could not be edited");
                Ok(reply.receipt(&format!("{told}; the incident's message was not edited: {error}")))
            }
        }
    }

    /// The incident's message is gone, so the notice becomes a message of its own.
    async fn start_again(&self, code: &str) -> Result<Receipt, NotifyError> {
        match self.post(Part::Root, None).await {
            Ok(place) => Ok(place.receipt(&format!("posted anew, because the incident's message is gone ({code})"))),
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    async fn post(&self, part: Part, thread: Option<&Place>) -> Result<Place, Refusal> {
        let channel = thread.map_or(self.channel, |root| &root.channel);
        // A reply notifies only those who follow the thread; a reminder is for everyone in the channel.
        let is_broadcast = self.page.delivery.notification.reason == NotifyReason::Repeat;
        let answer = self.send("chat.postMessage", part, |content| {
            SlackApiChatPostMessageRequest::new(channel.into(), content.with_metadata(self.page.metadata()))
                .with_unfurl_links(false)
                .with_unfurl_media(false)
                .opt_thread_ts(thread.map(|root| root.ts.clone().into()))
                .opt_reply_broadcast(thread.map(|_| is_broadcast))
        });
        let answer = answer.await?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        match text("ts") {
            Some(ts) => Ok(Place { ts, channel: text("channel").unwrap_or_else(|| channel.to_owned()) }),
            None => {
                Err(Refusal::Over(NotifyError::Ambiguous("Slack's answer does not say which message it is".to_owned())))
            }
        }
    }

    /// Sends what `request` makes of the content, with less and less detail while Slack finds it too much.
    async fn send<R: Serialize + Send + Sync>(
        &self,
        method: &str,
        part: Part,
        request: impl Fn(SlackMessageContent) -> R,
    ) -> Result<Value, Refusal> {
        let mut detail = Detail::Full;
        loop {
            let request = request(self.page.content(part, detail));
            // The library's own types for answers are strict; a new field in the echoed message would look like a failure.
            let session = self.client.open_session(&self.token);
            let answer = within(session.http_session_api.http_post(method, &request, None)).await;
            match (answer, detail.less()) {
                (Err(Refusal::TooMuch(code)), Some(less)) => {
                    warn!(delivery = self.page.delivery.id, method, code, ?less, "Slack finds the notice too much");
                    detail = less;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Looks whether an earlier attempt at this delivery was taken.
    ///
    /// # Errors
    /// We could not look, and may be able to later. If we never can, the notice is rather sent twice than not at all.
    async fn find(&self, root: Option<&Place>) -> Result<Option<Found>, NotifyError> {
        let channel = root.map_or(self.channel, |root| &root.channel);
        let searches = [("conversations.history", None), ("conversations.replies", root)];
        for (method, thread) in
            searches.into_iter().filter(|(method, thread)| thread.is_some() || method.ends_with("history"))
        {
            match self.search(method, channel, thread).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) | Err(Refusal::Gone(_) | Refusal::TooMuch(_)) => {}
                Err(Refusal::Over(NotifyError::Never(why))) => {
                    let why = self.page.redactor.clean(&why);
                    warn!(
                        delivery = self.page.delivery.id,
                        why, "cannot look whether Slack has the notice; sending it again"
                    );
                }
                Err(Refusal::Over(error)) => {
                    return Err(NotifyError::Ambiguous(format!("could not look for an earlier attempt: {error}")));
                }
            }
        }
        Ok(None)
    }

    async fn search(&self, method: &str, channel: &str, thread: Option<&Place>) -> Result<Option<Found>, Refusal> {
        let oldest = earlier(self.page.delivery.notification.at, CLOCK_SKEW).as_second();
        let mut parameters = vec![
            ("channel", Some(channel.to_owned())),
            ("oldest", Some(format!("{oldest}.000000"))),
            ("limit", Some(PAGE_SIZE.to_string())),
            // The library has no such parameter for replies, hence the generic call.
            ("include_all_metadata", Some("true".to_owned())),
            ("ts", thread.map(|root| root.ts.clone())),
        ];
        for _ in 0..PAGES {
            let session = self.client.open_session(&self.token);
            let answer: Value = within(session.http_session_api.http_get(method, &parameters, None)).await?;
            let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(found) = messages.iter().find_map(|message| self.recognise(message, channel)) {
                return Ok(Some(found));
            }
            match answer["response_metadata"]["next_cursor"].as_str() {
                Some(cursor) if !cursor.is_empty() => {
                    parameters.retain(|(name, _)| *name != "cursor");
                    parameters.push(("cursor", Some(cursor.to_owned())));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn recognise(&self, message: &Value, channel: &str) -> Option<Found> {
        let metadata = &message["metadata"];
        let is_ours = metadata["event_type"] == EVENT_TYPE
            && metadata["event_payload"]["delivery"] == self.page.delivery.id.as_str();
        let ts = message["ts"].as_str().filter(|_| is_ours)?;
        // The first message of a thread names itself as its thread.
        let is_reply = message["thread_ts"].as_str().is_some_and(|thread| thread != ts);
        Some(Found { place: Place { channel: channel.to_owned(), ts: ts.to_owned() }, is_reply })
    }
}

impl Place {
    /// The place that a receipt names; `None` if it is another notifier's, or a webhook's, under the same name.
    fn of(receipt: &Receipt) -> Option<Place> {
        let (seconds, micros) = receipt.id.split_once('.')?;
        let is_ts = [seconds, micros].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        is_ts.then(|| Place { channel: receipt.place.clone(), ts: receipt.id.clone() })
    }

    fn receipt(self, said: &str) -> Receipt {
        Receipt { id: self.ts, place: self.channel, said: said.to_owned() }
    }
}

/// The answer to one request, within the time that it may take.
async fn within(request: impl Future<Output = ClientResult<Value>>) -> Result<Value, Refusal> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(called) => answer::read(called),
        Err(_) => {
            let what = format!("Slack did not answer within {}s", CALL_TIMEOUT.as_secs());
            Err(Refusal::Over(NotifyError::Ambiguous(what)))
        }
    }
}

/// Who the token is, and whether it may look at the channel. Whether it may post there only a post can tell.
async fn whoami(client: &Client, token: &SlackApiToken, channel: &str) -> Result<String, NotifyError> {
    let session = client.open_session(token);
    let nothing: Vec<(&str, Option<String>)> = Vec::new();
    let who = within(session.http_session_api.http_get("auth.test", &nothing, None)).await;
    let who = who.map_err(Refusal::into_error)?;
    let text = |key: &str| who[key].as_str().unwrap_or("?").to_owned();
    let (user, team) = (text("user"), text("team"));
    let parameters = vec![("channel", Some(channel.to_owned())), ("limit", Some("1".to_owned()))];
    match within(session.http_session_api.http_get("conversations.history", &parameters, None)).await {
        Ok(_) => Ok(format!("the token is `{user}` of `{team}`, and it sees channel {channel}")),
        // History is asked for only to find an earlier attempt: a bot may well post without it.
        Err(refusal) => match refusal.into_error() {
            NotifyError::Never(why) if why.contains("missing_scope") => {
                Ok(format!("the token is `{user}` of `{team}`; it may not look into channel {channel}: {why}"))
            }
            error => Err(error),
        },
    }
}

/// An incoming webhook can be asked nothing. An empty message is refused, and in which words depends on the URL: Slack says
/// `no_text`, `invalid_payload` or the like to a good one, and `no_service`, `no_team` or 404 to one that is gone.
async fn prove_webhook(client: &reqwest::Client, url: &Secret, redactor: &Redactor) -> Result<String, NotifyError> {
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
async fn post_webhook(client: &reqwest::Client, url: &Secret, page: Page<'_>) -> Result<Receipt, NotifyError> {
    let id = &page.delivery.id;
    let mut detail = Detail::Full;
    loop {
        let mut content = page.content(Part::Root, detail);
        // Nothing can be looked up here, so a notice that was sent twice must be recognisable by people.
        content.text = content.text.map(|text| format!("{} [{}]", text.trim_end(), escape::line(id, 60)));
        let body = serde_json::to_vec(&content).map_err(|error| NotifyError::Never(format!("no JSON: {error}")))?;
        match post(client, webhook_url(url, page.redactor).map_err(NotifyError::Never)?, body).await {
            Ok(()) => {
                return Ok(Receipt { id: id.clone(), place: WEBHOOK_PLACE.to_owned(), said: "ok".to_owned() });
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
fn webhook_url(url: &Secret, redactor: &Redactor) -> Result<Url, String> {
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

/// The error without secrets.
fn clean(error: NotifyError, redactor: &Redactor) -> NotifyError {
    match error {
        NotifyError::Never(text) => NotifyError::Never(redactor.clean(&text)),
        NotifyError::Backoff(text) => NotifyError::Backoff(redactor.clean(&text)),
        NotifyError::After { wait, detail } => NotifyError::After { wait, detail: redactor.clean(&detail) },
        NotifyError::Ambiguous(text) => NotifyError::Ambiguous(redactor.clean(&text)),
    }
}
