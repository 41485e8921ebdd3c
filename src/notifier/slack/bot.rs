//! With a bot's token: one message per incident, edited in place, each transition also a reply in its thread.
//!
//! Slack takes one message a second for each channel, and an attempt may be two of them.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use slack_morphism::prelude::{SlackApiChatPostMessageRequest, SlackApiChatUpdateRequest, SlackMessageContent};
use slack_morphism::{ClientResult, SlackApiToken};
use tracing::warn;

use super::answer::{self, Refusal};
use super::message::{Detail, EVENT_TYPE, Page, Part};
use super::pace::Pace;
use super::{CALL_TIMEOUT, Client, clean};
use crate::incident::NotifyReason;
use crate::notice::Mark;
use crate::notifier::{NotifyError, Receipt};
use crate::time::earlier;

/// How far our clock may be ahead of Slack's when we look for a message of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(600);
/// Messages asked for at once, and how often we ask for more before we believe that ours is not there.
const PAGE_SIZE: usize = 200;
const PAGES: usize = 10;
/// So many attempts at the last notice of an incident begin with the edit; then people are told in any case.
const EDIT_FIRST: u32 = 3;
/// What a receipt says of a message that was there already.
const FOUND: &str = "found: an earlier attempt had been taken";

/// One attempt with a bot token.
pub(super) struct Bot<'a> {
    pub(super) client: &'a Client,
    pub(super) token: SlackApiToken,
    pub(super) channel: &'a str,
    pub(super) pace: &'a Pace,
    pub(super) page: Page<'a>,
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
    /// Makes the attempt.
    pub(super) async fn tell(&self) -> Result<Receipt, NotifyError> {
        let root = self.page.delivery.root.as_ref().and_then(Place::of);
        let found = match self.page.delivery.is_ambiguous {
            true => self.find(root.as_ref()).await?,
            false => None,
        };
        match (root, found) {
            (Some(root), Some(found)) if found.is_reply => self.edit(&root, found.place, "reply found").await,
            (Some(root), None) if self.is_last_word() => self.close(&root).await,
            (Some(root), None) => match self.post(Part::Reply, Some(&root)).await {
                Ok(reply) => self.edit(&root, reply, "replied").await,
                Err(Refusal::Gone(code)) => self.start_again(&code).await,
                Err(refusal) => Err(refusal.into_error()),
            },
            (_, Some(Found { place, is_reply: true })) => Ok(place.receipt(FOUND)),
            (_, Some(Found { place, is_reply: false })) => Ok(place.root_receipt(FOUND)),
            (None, None) => match self.post(Part::Root, None).await {
                Ok(place) => Ok(place.root_receipt("posted")),
                Err(refusal) => Err(refusal.into_error()),
            },
        }
    }

    /// Nothing comes after this notice that could mend the incident's message.
    fn is_last_word(&self) -> bool {
        let delivery = self.page.delivery;
        delivery.notification.reason == NotifyReason::Resolved && delivery.attempt <= EDIT_FIRST
    }

    /// Brings the message up to date first, and again with the next attempt, for it would show something as broken for ever.
    async fn close(&self, root: &Place) -> Result<Receipt, NotifyError> {
        let edited = match self.update(root).await {
            Ok(()) => "the incident's message was edited".to_owned(),
            Err(Refusal::Gone(code)) => return self.start_again(&code).await,
            Err(refusal) => match refusal.into_error() {
                NotifyError::Never(why) => self.not_edited(NotifyError::Never(why)),
                error => return Err(error),
            },
        };
        match self.post(Part::Reply, Some(root)).await {
            Ok(reply) => Ok(reply.receipt(&format!("replied; {edited}"))),
            Err(Refusal::Gone(code)) => self.start_again(&code).await,
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    /// Brings the message up to date after the reply. That has told people, so a failure here is only mentioned.
    async fn edit(&self, root: &Place, reply: Place, told: &str) -> Result<Receipt, NotifyError> {
        match self.update(root).await {
            Ok(()) => Ok(reply.receipt(&format!("{told}; the incident's message was edited"))),
            // Slack takes replies to a message that was deleted, in a thread that nobody sees.
            Err(Refusal::Gone(code)) => self.start_again(&code).await,
            Err(refusal) => Ok(reply.receipt(&format!("{told}; {}", self.not_edited(refusal.into_error())))),
        }
    }

    fn not_edited(&self, error: NotifyError) -> String {
        let error = clean(error, self.page.redactor);
        warn!(delivery = self.page.delivery.id, %error, "the incident's Slack message could not be edited");
        format!("the incident's message was not edited: {error}")
    }

    async fn update(&self, root: &Place) -> Result<(), Refusal> {
        if !self.pace.may_edit() {
            return Err(Refusal::Over(NotifyError::Backoff("Slack wants fewer edits".to_owned())));
        }
        let edited = self.send("chat.update", Part::Root, |content| {
            SlackApiChatUpdateRequest::new(root.channel.clone().into(), content, root.ts.clone().into())
        });
        let edited = edited.await;
        if let Err(Refusal::Over(NotifyError::After { wait, .. })) = &edited {
            self.pace.hold_edits(*wait);
        }
        edited.map(drop)
    }

    /// The incident's message is gone, so the notice becomes a message of its own.
    async fn start_again(&self, code: &str) -> Result<Receipt, NotifyError> {
        match self.post(Part::Root, None).await {
            Ok(place) => {
                Ok(place.root_receipt(&format!("posted anew, because the incident's message is gone ({code})")))
            }
            Err(refusal) => Err(refusal.into_error()),
        }
    }

    async fn post(&self, part: Part, thread: Option<&Place>) -> Result<Place, Refusal> {
        let channel = thread.map_or(self.channel, |root| &root.channel);
        // A reply notifies only those who follow the thread; a reminder is for everyone in the channel.
        // So is what a drill is over with: it is read back from the channel, which shows no thread.
        let notification = &self.page.delivery.notification;
        let is_broadcast = notification.reason == NotifyReason::Repeat || notification.mark == Some(Mark::Drill);
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
            self.pace.turn().await;
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
        Receipt { id: self.ts, place: self.channel, said: said.to_owned(), is_root: false }
    }

    /// The same for a message that stands for the incident from now on.
    fn root_receipt(self, said: &str) -> Receipt {
        Receipt { is_root: true, ..self.receipt(said) }
    }
}

/// The answer to one request, within the time that it may take.
pub(super) async fn within(request: impl Future<Output = ClientResult<Value>>) -> Result<Value, Refusal> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Ok(called) => answer::read(called),
        Err(_) => {
            let what = format!("Slack did not answer within {}s", CALL_TIMEOUT.as_secs());
            Err(Refusal::Over(NotifyError::Ambiguous(what)))
        }
    }
}

/// Who the token is, and whether it may look at the channel. Whether it may post there only a post can tell.
pub(super) async fn whoami(client: &Client, token: &SlackApiToken, channel: &str) -> Result<String, NotifyError> {
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
