//! Slack: one message per incident, edited in place, each transition also a reply in its thread.
//!
//! An edit notifies nobody, so what changed is told by a reply, and the edit keeps the channel readable. Retries and waiting
//! are not done here, and not by the library: one call of [`Notifier::notify`] is one attempt, of a few requests.

mod answer;
mod bot;
mod buttons;
mod connector;
mod escape;
mod hook;
mod message;
mod pace;
mod press;

/// For the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    pub(crate) use super::answer::fuzz as answer;
    pub(crate) use super::escape::fuzz as escape;
    pub(crate) use super::press::fuzz as press;
}
#[cfg(feature = "slack")]
mod socket;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use slack_morphism::hyper_tokio::SlackClientHyperConnector;
use slack_morphism::{SlackApiToken, SlackApiTokenValue, SlackClient};
use tracing::debug;
use url::Url;

use crate::clock::Clock;
use crate::notifier::slack::bot::{Bot, whoami};
use crate::notifier::slack::connector::Connector;
use crate::notifier::slack::hook::{post_webhook, prove_webhook, webhook_url};
use crate::notifier::slack::message::{Detail, Page, Part};
use crate::notifier::slack::pace::Pace;
use crate::notifier::template::Template;
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};
use crate::secret::{Redactor, Secret};
use crate::time::Human;

pub use buttons::{Buttons, buttons};

/// Every single request is answered within this time, or its outcome is unknown. The library itself would wait for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

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
        /// How we hear that somebody pressed a button; without either there are none.
        interactions: Interactions,
    },
    /// With an incoming webhook: one message per notice, nothing can be edited or looked up.
    Webhook {
        /// The webhook's URL, which is its own credential.
        url: Secret,
    },
}

/// How Slack tells us of a button that was pressed.
#[derive(Clone, Debug, Default)]
pub struct Interactions {
    /// It posts to our listener, and signs with this.
    pub signing_secret: Option<Secret>,
    /// `xapp-…`: over a connection that we open.
    pub app_token: Option<Secret>,
}

impl Interactions {
    /// Whether there is any way.
    pub fn is_possible(&self) -> bool {
        self.signing_secret.is_some() || self.app_token.is_some()
    }
}

/// Tells people in Slack.
pub struct Slack {
    mode: Mode,
    headline: Option<Template>,
    /// Signs what a button may do.
    key: Option<Arc<[u8]>>,
    pace: Pace,
    redactor: Redactor,
    clock: Clock,
}

enum Mode {
    Bot { client: Client, token: Secret, channel: String },
    Webhook { client: reqwest::Client, url: Secret },
}

type Client = SlackClient<SlackClientHyperConnector<Connector>>;

/// Makes a `slack` notifier; connects to nothing yet. `key` is the installation's; it signs what buttons may do, if there are any.
///
/// # Errors
/// The webhook's URL is not one, or TLS cannot be set up; in words, without secrets.
pub fn open(
    settings: SlackSettings,
    redactor: Redactor,
    clock: Clock,
    key: Option<Arc<[u8]>>,
) -> Result<Slack, String> {
    let has_buttons = matches!(&settings, SlackSettings::Bot { interactions, .. } if interactions.is_possible());
    let mode = match settings {
        SlackSettings::Bot { token, channel, api_url, .. } => {
            Mode::Bot { client: client(api_url.as_ref())?, token, channel }
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
    Ok(Slack { mode, headline: None, key: key.filter(|_| has_buttons), pace: Pace::new(clock), redactor, clock })
}

impl Slack {
    /// With a headline of people's own.
    pub fn with_headline(self, headline: Option<Template>) -> Slack {
        Slack { headline, ..self }
    }

    fn page<'a>(&'a self, delivery: &'a Delivery) -> Page<'a> {
        Page { delivery, template: self.headline.as_ref(), redactor: &self.redactor, key: self.key.as_deref() }
    }
}

/// A client of the Web API.
fn client(api_url: Option<&Url>) -> Result<Client, String> {
    let mut connector = SlackClientHyperConnector::with_connector(Connector::open()?);
    if let Some(root) = api_url {
        connector = connector.with_slack_api_url(root.as_str().trim_end_matches('/'));
    }
    Ok(SlackClient::new(connector))
}

impl Notifier for Slack {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(async move {
            let began = self.clock.now().mono;
            let page = self.page(delivery);
            let told = match &self.mode {
                Mode::Bot { client, token, channel } => {
                    let token = SlackApiToken::new(SlackApiTokenValue(token.reveal().to_string()));
                    Bot { client, token, channel, pace: &self.pace, page }.tell().await
                }
                Mode::Webhook { client, url } => post_webhook(client, url, &self.pace, page).await,
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

/// The error without secrets.
fn clean(error: NotifyError, redactor: &Redactor) -> NotifyError {
    match error {
        NotifyError::Never(text) => NotifyError::Never(redactor.clean(&text)),
        NotifyError::Backoff(text) => NotifyError::Backoff(redactor.clean(&text)),
        NotifyError::After { wait, detail } => NotifyError::After { wait, detail: redactor.clean(&detail) },
        NotifyError::Ambiguous(text) => NotifyError::Ambiguous(redactor.clean(&text)),
    }
}
