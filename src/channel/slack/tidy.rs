//! Taking our own messages away again: those that this process posted, or whose metadata carries a token of ours.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;

use super::api::{Api, Declined};
use super::message::Seen;
use crate::channel::web::Errand;
use crate::journey::token::{Mint, Origin, Token};
use crate::secret::Secret;

/// So many messages are remembered, and so many deletions wait at most. What is more than that stays.
const REMEMBERED: usize = 1_000;
/// A deletion may take this long.
const CALL: Duration = Duration::from_secs(10);

/// A message: its conversation and its `ts` there.
type Place = (String, String);

/// What was posted, what was seen, and what is to be deleted.
#[derive(Default)]
pub(super) struct Posted {
    inner: Mutex<Inner>,
    due: Notify,
}

#[derive(Default)]
struct Inner {
    /// Posted, and not seen yet.
    posted: VecDeque<Place>,
    /// Seen, and perhaps ours: an event can be faster than the answer that names the message.
    seen: VecDeque<Place>,
    /// Both.
    due: VecDeque<Place>,
}

impl Posted {
    /// Slack says that it has a message of ours.
    pub(super) fn remember(&self, channel: &str, ts: &str) {
        let place = (channel.to_owned(), ts.to_owned());
        self.change(|inner| match take(&mut inner.seen, &place) {
            true => push(&mut inner.due, place),
            false => push(&mut inner.posted, place),
        });
    }

    /// A message was handed over; it is deleted if it is ours.
    pub(super) fn arrived(&self, channel: &str, seen: &Seen, mint: &Mint) {
        let place = (channel.to_owned(), seen.ts.clone());
        let token = seen.probe.as_deref().and_then(Token::parse);
        let is_ours = token.is_some_and(|token| mint.origin(token) == Origin::Ours);
        self.change(|inner| match take(&mut inner.posted, &place) || is_ours {
            true => push(&mut inner.due, place),
            false => push(&mut inner.seen, place),
        });
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.due.notify_one();
    }

    fn first_due(&self) -> Option<Place> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).due.front().cloned()
    }

    fn is_done(&self, place: &Place) {
        take(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).due, place);
    }
}

fn take(places: &mut VecDeque<Place>, place: &Place) -> bool {
    let at = places.iter().position(|other| other == place);
    at.and_then(|at| places.remove(at)).is_some()
}

fn push(places: &mut VecDeque<Place>, place: Place) {
    if places.len() >= REMEMBERED {
        places.pop_front();
    }
    places.push_back(place);
}

/// Deletes what is due, one after the other, for ever.
pub(super) async fn tidy(api: &Api, token: &Secret, posted: &Posted) {
    loop {
        let due = posted.due.notified();
        drain(api, token, posted).await;
        due.await;
    }
}

/// Deletes what is due.
pub(super) async fn drain(api: &Api, token: &Secret, posted: &Posted) {
    // Due until it is done: a deletion that is cut short is made again.
    while let Some(place) = posted.first_due() {
        let (channel, ts) = &place;
        let asked = json!({ "channel": channel, "ts": ts });
        match api.post(token, "chat.delete", &asked, Errand::own(CALL)).await {
            Err(Declined { wait: Some(wait), .. }) => {
                tokio::time::sleep(wait).await;
                continue;
            }
            // Not there is what we want.
            Err(Declined { fault, .. }) if !fault.detail.contains("message_not_found") => {
                tracing::warn!(ts, why = fault.detail, "a message of ours stays in the conversation");
            }
            _ => {}
        }
        posted.is_done(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::message::Message;

    fn seen(ts: &str, probe: Option<Token>) -> Seen {
        Seen { ts: ts.to_owned(), probe: probe.map(|token| token.to_string()), message: Message::default() }
    }

    #[test]
    fn only_what_we_posted_or_marked_is_deleted_and_only_once_it_was_seen() {
        let (mint, other) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let (ours, foreign) = (mint.issue(at), other.issue(at));
        let next = |posted: &Posted| posted.first_due().inspect(|place| posted.is_done(place));
        let due = |posted: &Posted| std::iter::from_fn(|| next(posted)).map(|(_, ts)| ts).collect::<Vec<_>>();
        let posted = Posted::default();
        posted.remember("C1", "1");
        assert!(due(&posted).is_empty(), "nobody has seen it");
        posted.arrived("C1", &seen("1", None), &mint);
        assert_eq!(due(&posted), ["1"]);
        posted.arrived("C1", &seen("2", None), &mint);
        posted.arrived("C1", &seen("3", Some(foreign)), &mint);
        posted.arrived("C2", &seen("4", None), &mint);
        assert!(due(&posted).is_empty(), "strangers'");
        posted.remember("C1", "2");
        posted.remember("C1", "4");
        assert_eq!(
            due(&posted),
            ["2"],
            "the event was faster than the answer; another conversation's `ts` is another message"
        );
        posted.arrived("C1", &seen("5", Some(ours)), &mint);
        assert_eq!(due(&posted), ["5"], "of an earlier life");
    }
}
