//! Slack as a path: posts a message, and sees it arrive, by asking for the channel's history or over Socket Mode.
//!
//! Telling people through Slack is the notifier's; nothing here is shared with it, because what is an answer there is a
//! measurement here.

mod answer;
mod api;
mod history;
mod message;
mod socket;
mod tidy;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use url::Url;

use crate::channel::refusal::Refusal;
use crate::channel::slack::api::{Api, Declined};
use crate::channel::slack::tidy::Posted;
use crate::channel::web::Errand;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// Settings of a `slack` channel.
#[derive(Clone, Debug)]
pub struct SlackSettings {
    /// The bot's token, `xoxb-…`: posts, deletes, and reads the history unless `user_token` does.
    pub token: Secret,
    /// The id of the conversation.
    pub channel: String,
    /// The app's token, `xapp-…`: with it messages are received over Socket Mode.
    pub app_token: Option<Secret>,
    /// Another identity's token, by which the history is read.
    pub user_token: Option<Secret>,
    /// The API's root.
    pub api_url: Url,
    /// How often the history is asked for.
    pub poll: Duration,
    /// Whether our messages stay.
    pub keep: bool,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A `slack` channel.
pub struct Slack {
    settings: SlackSettings,
    api: Api,
    /// The same with connections of its own.
    reader: Api,
    posted: Posted,
    clock: Clock,
}

/// Opens the channel. Reads certificates; touches no network.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: SlackSettings, clock: Clock) -> Result<Slack, String> {
    let api = || Api::open(settings.api_url.clone(), settings.ca_file.clone(), clock);
    let (api, reader) = (api()?, api()?);
    Ok(Slack { settings, api, reader, posted: Posted::default(), clock })
}

impl Channel for Slack {
    /// Posts, and waits for Slack's `ok`, which names the message.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let asked = message::outgoing(outgoing, &self.settings.channel).map_err(|detail| {
                let now = self.clock.now();
                Refusal::new(Cause::Refused, detail).into_fault(now, now, Vec::new())
            })?;
            let posting = self.api.post(&self.settings.token, "chat.postMessage", &asked, Errand::of(outgoing));
            let (answer, reply) = posting.await.map_err(|declined| declined.fault)?;
            let (Some(ts), Some(channel)) = (answer["ts"].as_str(), answer["channel"].as_str()) else {
                return Err(api::strange(reply));
            };
            self.posted.remember(channel, ts);
            Ok(Reply { ack: format!("posted as {ts}"), ..reply })
        })
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "a conversation holds nothing that could be checked"))))
    }

    /// Asks Slack who the tokens are.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let SlackSettings { token, user_token, app_token, .. } = &self.settings;
            let fault = |declined: Declined| Fault { uncertain: false, ..declined.fault };
            let (nothing, mut told) = (json!({}), Vec::new());
            for token in [Some(token), user_token.as_ref()].into_iter().flatten() {
                let asking = self.api.post(token, "auth.test", &nothing, Errand::own(limit));
                let (answer, _) = asking.await.map_err(fault)?;
                let name = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
                told.push(format!("Slack knows us as {} in {}", name("user"), name("team")));
            }
            if let Some(token) = app_token {
                let asking = self.api.post(token, "apps.connections.open", &nothing, Errand::own(limit));
                asking.await.map_err(fault)?;
                told.push("lets the app use Socket Mode".to_owned());
            }
            Ok(told.join(", "))
        })
    }

    /// Over Socket Mode, ready from Slack's hello; otherwise by history, ready once it was read.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let reading = async {
                match &self.settings.app_token {
                    Some(app) => socket::listen(self, app, &listener).await,
                    None => history::listen(self, &listener).await,
                }
            };
            if self.settings.keep {
                return reading.await;
            }
            // Ends only with the reading, which heeds `stop`: then what is left is deleted, within a bound.
            tokio::pin!(reading);
            tokio::select! {
                () = &mut reading => {}
                () = tidy::tidy(&self.reader, &self.settings.token, &self.posted) => {}
            }
            let rest = tidy::drain(&self.reader, &self.settings.token, &self.posted);
            let _ = tokio::time::timeout(LAST_CALLS, rest).await;
        })
    }
}

/// What is left to delete when we stop may take this long.
const LAST_CALLS: Duration = Duration::from_secs(2);
