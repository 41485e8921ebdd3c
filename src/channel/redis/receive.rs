//! Receiving: a stream read on from where it ended when we were ready, or a topic; each arrival stamped before anything else
//! happens to it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use redis::cmd;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::link::{Endpoint, Wire};
use super::message::{Entry, Id, Push, member, push, read, text};
use super::send::{Sender, read_after};
use super::{Place, ReceiveSettings, RedisSettings};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::handing::{Batch, hand_over};
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::message::Message;
use crate::journey::token::{Origin, Token};

/// From the first packet to the proof that we receive.
const SETUP: Duration = Duration::from_secs(10);
/// After this long without anything the server is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(10);
/// By then it must have answered.
const ANSWER: Duration = Duration::from_secs(5);
/// Entries taken by one read; more are taken by the next.
const BATCH: usize = 32;
/// Entries of ours that wait to be deleted. More are left where they are: clean-up must not hold up reading.
const LEFTOVERS: usize = 1_000;
/// Deletions under way may take this long when we stop.
const LAST_DELETIONS: Duration = Duration::from_secs(1);

type Feed = BoxStream<'static, Result<Batch<Option<Id>>, String>>;

/// Reads until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &RedisSettings, endpoint: &Endpoint, sender: &Sender, listener: Listener) {
    let Some(receive) = &settings.receive else {
        let why =
            "the channel has nothing to receive on; give it `receive = { stream = \"…\" }` or `{ topic = \"…\" }`";
        return never_receives(&listener, why).await;
    };
    match &receive.place {
        Place::Topic(topic) => {
            let open = || subscribe(endpoint, topic, &listener);
            keep_receiving(&listener, open, |feed| hand_over(&listener, feed, |_| {})).await;
        }
        Place::Stream(stream) => {
            // Outlives connections: what came while there was none is read by the next.
            // Entries are numbered by the server's time, unless whoever adds them numbers them.
            let since = listener.since.map(|since| u64::try_from(since.as_millisecond()).unwrap_or(0));
            let last = Mutex::new(since.map(|millis| Id { millis, number: 0 }));
            let open = || follow(endpoint, stream, &last, &listener);
            let read = |feed| read_and_tidy(feed, stream, receive, &last, sender, &listener);
            keep_receiving(&listener, open, read).await;
        }
    }
}

/// Hands over what a stream's feed brings, remembers how far it came, and deletes what is ours if that is asked for.
async fn read_and_tidy(
    feed: Feed,
    stream: &str,
    receive: &ReceiveSettings,
    last: &Mutex<Option<Id>>,
    sender: &Sender,
    listener: &Listener,
) -> Result<(), String> {
    let (leave, mut left) = mpsc::channel::<Id>(LEFTOVERS);
    let mut tidying = std::pin::pin!(async {
        let mut ids = Vec::new();
        while left.recv_many(&mut ids, LEFTOVERS).await > 0 {
            if let Err(why) = sender.delete(stream, &ids).await {
                tracing::warn!(channel = %listener.channel, stream, entries = ids.len(), %why, "entries of ours are left in the stream");
            }
            ids.clear();
        }
    });
    let feed = feed.map(|batch| batch.inspect(|(_, entries)| remember(last, entries)));
    let reading = async {
        let leave = leave;
        hand_over(listener, feed, |id| {
            if let (true, Some(id)) = (receive.delete, id) {
                let _ = leave.try_send(id);
            }
        })
        .await
    };
    let ended = tokio::select! {
        ended = reading => ended,
        () = &mut tidying => unreachable!("the reader holds the sending half"),
    };
    let _ = tokio::time::timeout(LAST_DELETIONS, tidying).await;
    ended
}

fn remember(last: &Mutex<Option<Id>>, entries: &[(Message, Option<Id>)]) {
    let newest = entries.last().and_then(|(message, _)| Id::parse(message.header("entry-id")?));
    if newest.is_some() {
        *last.lock().unwrap_or_else(PoisonError::into_inner) = newest;
    }
}

/// Connects, and finds where the stream ends: from there on every entry is seen. After a lost connection it goes on where it
/// stopped instead.
async fn follow(
    endpoint: &Endpoint,
    stream: &str,
    last: &Mutex<Option<Id>>,
    listener: &Listener,
) -> Result<Feed, String> {
    let limit = Limit::new(listener.clock, SETUP);
    let finding = async {
        let mut wire = Wire::open(endpoint, &format!("journeyman-receiver-{}", listener.channel), limit).await?;
        let end = match wire.call(cmd("XINFO").arg("STREAM").arg(stream)).await {
            Ok(redis::Value::Array(listed)) => {
                member(&listed, "last-generated-id").and_then(text).and_then(|id| Id::parse(&id)).unwrap_or_default()
            }
            Ok(_) => Id::default(),
            // The first entry makes it.
            Err(refusal) if refusal.detail.contains("no such key") => Id::default(),
            Err(refusal) => return Err(refusal),
        };
        // Proves the permission, which only a read itself can; there is nothing after the greatest id of all.
        wire.call(&read_after(stream, Id { millis: u64::MAX, number: u64::MAX }, 1, None)).await?;
        Ok((wire, end))
    };
    let (wire, end) = timeout_at(limit.instant(), finding)
        .await
        .unwrap_or_else(|_| Err(Refusal::silence("looking for the end of the stream", "the server", SETUP)))
        .map_err(|refusal| format!("cannot read stream `{stream}`: {}", refusal.detail))?;
    let from = {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // A server that lost its end, or the whole stream, in a restart begins its ids anew: nothing is to be waited for in vain.
        let from = last.map_or(end, |seen| seen.min(end));
        *last = Some(from);
        from
    };
    let reader = Reader { wire, stream: stream.to_owned(), from, listener: listener.clone() };
    Ok(try_unfold(reader, |mut reader| async move {
        let batch = reader.next().await?;
        Ok(Some((batch, reader)))
    })
    .boxed())
}

/// A stream being read.
struct Reader {
    wire: Wire,
    stream: String,
    from: Id,
    listener: Listener,
}

impl Reader {
    async fn next(&mut self) -> Result<Batch<Option<Id>>, String> {
        loop {
            let command = read_after(&self.stream, self.from, BATCH, Some(IDLE));
            // The server answers after `IDLE` at the latest: one that does not is gone.
            let reply = within(self.listener.clock, IDLE + ANSWER, &mut self.wire, &command).await?;
            let at = self.listener.clock.now();
            let entries = read(reply).ok_or("the server's reply to XREAD is none")?;
            let Some(newest) = entries.last() else { continue };
            self.from = newest.id;
            let seen = |entry: Entry| {
                let id = is_ours(&entry, &self.listener).then_some(entry.id);
                (entry.into_message(&self.stream, at), id)
            };
            return Ok((at, entries.into_iter().map(seen).collect()));
        }
    }
}

/// Whether we added this entry, or somebody who passes our token on in its own field: only such entries are ever deleted.
fn is_ours(entry: &Entry, listener: &Listener) -> bool {
    let token = entry.token().and_then(|token| std::str::from_utf8(token).ok()).and_then(Token::parse);
    token.is_some_and(|token| listener.mint.origin(token) == Origin::Ours)
}

/// Connects and subscribes: what is published from the confirmation on is seen.
async fn subscribe(endpoint: &Endpoint, topic: &str, listener: &Listener) -> Result<Feed, String> {
    let limit = Limit::new(listener.clock, SETUP);
    let subscribing = async {
        let mut wire = Wire::open(endpoint, &format!("journeyman-receiver-{}", listener.channel), limit).await?;
        wire.call(cmd("SUBSCRIBE").arg(topic)).await?;
        Ok(wire)
    };
    let wire = timeout_at(limit.instant(), subscribing)
        .await
        .unwrap_or_else(|_| Err(Refusal::silence("subscribing", "the server", SETUP)))
        .map_err(|refusal| format!("cannot subscribe to topic `{topic}`: {}", refusal.detail))?;
    let subscription = Subscription { wire, topic: topic.to_owned(), clock: listener.clock };
    Ok(try_unfold(subscription, |mut subscription| async move {
        let batch = subscription.next().await?;
        Ok(Some((batch, subscription)))
    })
    .boxed())
}

/// A topic being subscribed to.
struct Subscription {
    wire: Wire,
    topic: String,
    clock: Clock,
}

impl Subscription {
    async fn next(&mut self) -> Result<Batch<Option<Id>>, String> {
        let mut wait = IDLE;
        loop {
            let until = Limit::new(self.clock, wait).instant();
            let value = match timeout_at(until, self.wire.reply()).await {
                Ok(value) => value.map_err(|refusal| refusal.detail)?,
                Err(_) if wait == IDLE => {
                    // A subscription that is quiet and one whose connection is gone look the same.
                    self.wire.write(&cmd("PING")).await.map_err(|refusal| refusal.detail)?;
                    wait = ANSWER;
                    continue;
                }
                Err(_) => return Err(silent(&self.wire.peer, ANSWER)),
            };
            let at = self.clock.now();
            wait = IDLE;
            match push(value).ok_or("the server sent what is no message of a subscription")? {
                Push::Message(payload) => {
                    let mut message = Message::new(payload);
                    message.headers = vec![("topic".to_owned(), self.topic.clone())];
                    return Ok((at, vec![(message, None)]));
                }
                Push::Confirmed(what) if what == "unsubscribe" => {
                    return Err("the server ended the subscription".to_owned());
                }
                Push::Confirmed(_) => {}
            }
        }
    }
}

async fn within(clock: Clock, wait: Duration, wire: &mut Wire, command: &redis::Cmd) -> Result<redis::Value, String> {
    let until = Limit::new(clock, wait).instant();
    match timeout_at(until, wire.call(command)).await {
        Ok(reply) => reply.map_err(|refusal| refusal.detail),
        Err(_) => Err(silent(&wire.peer, wait)),
    }
}

fn silent(peer: &str, waited: Duration) -> String {
    Refusal::silence("asking whether it is still there", peer, waited).detail
}
