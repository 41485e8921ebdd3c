//! Notifiers: where people are told. One attempt a call; retries, order and fallback are [`crate::delivery`]'s.

pub mod alertmanager;
pub mod email;
pub mod memory;
pub mod null;
pub mod pagerduty;
mod post;
pub mod slack;
pub mod template;
pub mod webhook;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::notice::Notification;
use crate::secret::Redactor;

/// Tells people, once a call.
pub trait Notifier: Send + Sync {
    /// Makes one attempt at one delivery.
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>>;

    /// Proves that the other side is there and takes our credentials, without telling anybody anything. What it proved, in
    /// words.
    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>>;

    /// What it would send for a delivery, for people to look at; nothing is sent.
    ///
    /// # Errors
    /// It cannot be put together; in words.
    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String>;

    /// The kind: `slack`, `email`, `webhook`, `pagerduty`, `alertmanager`.
    fn kind(&self) -> &'static str;

    /// How often it must be told again what stands, because it forgets. `None`: it remembers by itself.
    fn retells(&self) -> Option<Duration> {
        None
    }

    /// Tells again what stands: the last notice of each incident that it took. Nobody hears of it, unless it had forgotten.
    fn retell<'a>(&'a self, _standing: &'a [Notification]) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Something that would be sent, as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// How the file's name ends: `eml`, `json`.
    pub ending: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// One notice on its way to one notifier.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The same for every attempt, also after a crash.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// An attempt before this one may have succeeded without our learning of it: look before sending again.
    pub is_ambiguous: bool,
    /// What to tell.
    pub notification: Notification,
    /// The receipt of the message that stands for the incident at this notifier: the one to edit, the thread to reply in. The
    /// first, unless a later one took its place.
    pub root: Option<Receipt>,
    /// Another notifier for which this one stands in, and what it said.
    pub instead_of: Option<(String, String)>,
}

/// The proof that the other side took it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What identifies the message there: Slack's `ts`, the mail's Message-ID.
    pub id: String,
    /// Where it is: Slack's channel id, the server that took the mail.
    pub place: String,
    /// What the other side said, for people.
    pub said: String,
    /// This message stands for the incident from now on, in place of an earlier one: it is the one to edit and to reply to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_root: bool,
}

/// Why an attempt failed, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// Trying again will not help: go to the fallback at once.
    #[error("{0}")]
    Never(String),
    /// Try again later.
    #[error("{0}")]
    Backoff(String),
    /// The other side said when to try again, and not before.
    #[error("{detail} (asked to wait {}s)", .wait.as_secs())]
    After {
        /// How long to wait.
        wait: Duration,
        /// What it said.
        detail: String,
    },
    /// It may have been taken all the same: look before trying again.
    #[error("{0} (it may have been taken)")]
    Ambiguous(String),
}

/// A notifier's settings, by kind.
#[derive(Clone, Debug)]
pub enum Settings {
    /// `slack`
    Slack(slack::SlackSettings),
    /// `email`
    Email(email::EmailSettings),
    /// `webhook`
    Webhook(webhook::WebhookSettings),
    /// `pagerduty`
    Pagerduty(pagerduty::PagerdutySettings),
    /// `alertmanager`
    Alertmanager(alertmanager::AlertmanagerSettings),
}

impl Settings {
    /// Whether it can bring what it told up to date without calling anybody.
    pub fn is_updatable(&self) -> bool {
        match self {
            Settings::Slack(slack::SlackSettings::Bot { .. })
            | Settings::Webhook(_)
            | Settings::Pagerduty(_)
            | Settings::Alertmanager(_) => true,
            Settings::Slack(slack::SlackSettings::Webhook { .. }) | Settings::Email(_) => false,
        }
    }
}

/// Takes the secrets out of every text of a document.
fn clean(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => *text = redactor.clean(text),
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, redactor)),
        Value::Object(members) => members.values_mut().for_each(|member| clean(member, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// At most the first `most` characters, with a mark where some are missing.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}
