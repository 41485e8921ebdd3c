//! Receiving by asking for the conversation's history, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use super::message::{Seen, micros, read, ts};
use super::{Slack, SlackSettings};
use crate::channel::receiving::keep_receiving;
use crate::channel::seen::{note, take_back};
use crate::channel::slack::api::Declined;
use crate::channel::{Listener, Readiness};
use crate::journey::message::Arrival;
use crate::journey::seen::What;
use crate::time::Now;

/// One page of history may take this long.
const CALL: Duration = Duration::from_secs(10);
/// Messages of a page. Slack gives some apps fewer.
const PAGE: &str = "200";
/// No more pages than this are read to catch up.
const PAGES: usize = 10;
/// A message may become visible after one with a later `ts`: this far back is looked again.
const OVERLAP: u64 = 30_000_000;

/// Polls until told to stop; begins again by itself where it was.
pub(super) async fn listen(slack: &Slack, listener: &Listener) {
    let cursor = Mutex::new(None);
    let open = || open(slack, &cursor, listener);
    keep_receiving(listener, open, |()| poll(slack, &cursor, listener)).await;
}

/// From where on messages are new to us, and which of those are not.
#[derive(Debug, Default)]
struct Cursor {
    /// Nothing before it is anything to us.
    floor: u64,
    newest: u64,
    /// By `ts`, as far back as is looked again.
    seen: BTreeSet<u64>,
}

impl Cursor {
    /// Everything after this message is new.
    fn after(at: u64) -> Cursor {
        Cursor { floor: at, newest: at, seen: BTreeSet::new() }
    }

    fn oldest(&self) -> u64 {
        self.floor.max(self.newest.saturating_sub(OVERLAP))
    }

    fn is_new(&self, at: u64) -> bool {
        at > self.floor && !self.seen.contains(&at)
    }

    fn note(&mut self, at: u64) {
        self.seen.insert(at);
        self.newest = self.newest.max(at);
    }

    fn forget_old(&mut self) {
        self.floor = self.oldest();
        self.seen = self.seen.split_off(&self.floor);
    }
}

type Shared = Mutex<Option<Cursor>>;

/// Ready is who may read the history. What is in it already is not new, unless we were here before.
async fn open(slack: &Slack, cursor: &Shared, listener: &Listener) -> Result<(), String> {
    let newest = page(slack, &[("limit", "1")]).await.map_err(|declined| declined.fault.detail)?;
    let newest = messages(&newest.0).filter_map(|json| micros(json["ts"].as_str()?)).max();
    let newest = newest.unwrap_or(0);
    let since = listener.since.map_or(newest, |since| u64::try_from(since.as_microsecond()).unwrap_or(0));
    lock(cursor).get_or_insert_with(|| Cursor::after(newest.min(since)));
    Ok(())
}

async fn poll(slack: &Slack, cursor: &Shared, listener: &Listener) -> Result<(), String> {
    loop {
        let pause = tokio::select! {
            biased;
            () = listener.stop.cancelled() => return Ok(()),
            caught_up = catch_up(slack, cursor, listener) => match caught_up {
                Ok(true) => {
                    take_back(What::Throttled);
                    listener.readiness.send_if_modified(|readiness| {
                        let was = std::mem::replace(readiness, Readiness::Ready);
                        was != Readiness::Ready
                    });
                    slack.settings.poll
                }
                Ok(false) => return Ok(()),
                Err(Declined { fault, wait: Some(wait) }) => {
                    tracing::warn!(channel = %listener.channel, why = fault.detail, retry_in = ?wait, "cannot receive");
                    note(What::Throttled, &fault.detail);
                    // Until then nothing is seen, so nothing should be sent.
                    listener.readiness.send_replace(Readiness::Down { why: fault.detail });
                    wait
                }
                Err(Declined { fault, wait: None }) => return Err(fault.detail),
            },
        };
        tokio::select! {
            biased;
            () = listener.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Hands over what is new, oldest first. `false` if nobody takes arrivals any more.
async fn catch_up(slack: &Slack, cursor: &Shared, listener: &Listener) -> Result<bool, Declined> {
    let oldest = ts(lock(cursor).as_ref().map_or(0, Cursor::oldest));
    let mut found: BTreeMap<u64, (Now, Seen)> = BTreeMap::new();
    let mut next = String::new();
    for _ in 0..PAGES {
        let mut arguments = vec![("oldest", oldest.as_str()), ("limit", PAGE)];
        if !next.is_empty() {
            arguments.push(("cursor", &next));
        }
        let (answer, at) = page(slack, &arguments).await?;
        found.extend(messages(&answer).filter_map(|json| {
            let seen = read(json)?;
            Some((micros(&seen.ts)?, (at, seen)))
        }));
        next = answer["response_metadata"]["next_cursor"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    for (id, (at, seen)) in found {
        if !lock(cursor).as_ref().is_some_and(|cursor| cursor.is_new(id)) {
            continue;
        }
        let Ok(place) = listener.arrivals.reserve().await else { return Ok(false) };
        place.send(Arrival { channel: listener.channel.clone(), at, message: seen.message.clone() });
        if let Some(cursor) = lock(cursor).as_mut() {
            cursor.note(id);
        }
        slack.posted.arrived(&slack.settings.channel, &seen, &listener.mint);
    }
    if let Some(cursor) = lock(cursor).as_mut() {
        cursor.forget_old();
    }
    Ok(true)
}

/// A page of the history, and when it was here.
async fn page(slack: &Slack, arguments: &[(&str, &str)]) -> Result<(Json, Now), Declined> {
    let SlackSettings { token, user_token, channel, .. } = &slack.settings;
    let token = user_token.as_ref().unwrap_or(token);
    let own = [("channel", channel.as_str()), ("include_all_metadata", "true")];
    let (answer, _) = slack.reader.get(token, "conversations.history", &[&own, arguments].concat(), CALL).await?;
    Ok((answer, slack.clock.now()))
}

fn messages(answer: &Json) -> impl Iterator<Item = &Json> {
    answer["messages"].as_array().into_iter().flatten()
}

fn lock(cursor: &Shared) -> std::sync::MutexGuard<'_, Option<Cursor>> {
    cursor.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_message_is_new_once_also_when_it_turns_up_behind_a_later_one() {
        let mut cursor = Cursor::after(100 * SECOND);
        let mut sees = |at: u64| {
            let is_new = cursor.is_new(at);
            if is_new {
                cursor.note(at);
            }
            cursor.forget_old();
            (is_new, cursor.oldest())
        };
        assert_eq!(sees(100 * SECOND), (false, 100 * SECOND), "it was there before us");
        assert_eq!(sees(110 * SECOND), (true, 100 * SECOND));
        assert_eq!(sees(110 * SECOND), (false, 100 * SECOND));
        assert_eq!(sees(105 * SECOND), (true, 100 * SECOND), "out of order");
        assert_eq!(sees(200 * SECOND), (true, 170 * SECOND));
        assert!(!sees(169 * SECOND).0, "too far behind");
        assert!(sees(171 * SECOND).0);
        assert!(cursor.seen.len() <= 2, "{cursor:?}");
    }
}
