//! Receiving: a subscription of our own, or a consumer of our own on a stream; neither takes a message from anyone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::jetstream::{self, CONTROL, ConsumerInfo, Start, StreamInfo};
use super::link::{Incoming, Link, RECEIVING};
use super::wire::{self, Delivery};
use super::{NatsSettings, message};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::handing::hand_over;
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::journey::message::Message;
use crate::time::{Human, Now};

/// From the first packet to the server's word on the subscription.
const SETUP: Duration = Duration::from_secs(10);
/// A consumer says that it is there twice in the time after which we would ask.
const HEARTBEATS: u32 = 2;
/// One that has missed this many times is gone.
const MISSED: u32 = 3;

/// Receives until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &NatsSettings, tls: Option<&Arc<ClientConfig>>, listener: Listener) {
    let Some(subject) = &settings.subscribe else {
        let why = "the channel has no subject to receive on; give it `subscribe = \"…\"`";
        return never_receives(&listener, why).await;
    };
    let position = Mutex::new(None);
    let open = || Subscription::open(settings, tls, subject, &listener, &position);
    keep_receiving(&listener, open, |subscription| subscription.read(&listener, &position)).await;
}

/// The last message of the stream that we know of: from the one after it we go on when a connection has ended.
type Position = Mutex<Option<u64>>;

/// A subscription that the server has dealt with.
struct Subscription {
    link: Link,
    incoming: mpsc::Receiver<Incoming>,
    /// The number that the consumer gave its last delivery; `None` outside JetStream.
    delivered: Option<u64>,
    /// The consumer says that it is there this often.
    heartbeat: Duration,
}

impl Subscription {
    /// Connects, subscribes, and makes sure that the server lets us; with a stream, makes a consumer on it.
    async fn open(
        settings: &NatsSettings,
        tls: Option<&Arc<ClientConfig>>,
        subject: &str,
        listener: &Listener,
        position: &Position,
    ) -> Result<Self, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let name = format!("journeyman receiver {}", listener.channel);
        let (link, incoming) =
            Link::open(settings, tls, &name, listener.clock, limit).await.map_err(|refusal| refusal.detail)?;
        let heartbeat = settings.keep_alive / HEARTBEATS;
        let setting_up = async {
            match &settings.stream {
                None => subscribe(&link, subject).await.map(|()| None),
                Some(stream) => {
                    let own = link.own_subject();
                    subscribe(&link, &own).await?;
                    let wanted = Wanted { stream, filter: subject, since: listener.since };
                    consume(&link, wanted, &own, heartbeat, position).await.map(|()| Some(0))
                }
            }
        };
        let delivered = timeout_at(limit.instant(), setting_up)
            .await
            .unwrap_or_else(|_| Err(Refusal::silence("subscribing", &link.peer, limit.length())))
            .map_err(|refusal| refusal.detail)?;
        Ok(Subscription { link, incoming, delivered, heartbeat })
    }

    /// Reads until told to stop (`Ok`), or until the connection or the consumer ends (`Err`, in words).
    async fn read(mut self, listener: &Listener, position: &Position) -> Result<(), String> {
        let feed = stream::unfold(&mut self, async |subscription| {
            let batch = subscription.next().await;
            Some((batch.map(|(at, message, sequence)| (at, vec![(message, sequence)])), subscription))
        });
        hand_over(listener, feed, |sequence| {
            if sequence.is_some() {
                *position.lock().unwrap_or_else(PoisonError::into_inner) = sequence;
            }
        })
        .await?;
        self.link.close().await;
        Ok(())
    }

    /// The next message, and its number in the stream if it has one.
    async fn next(&mut self) -> Result<(Now, Message, Option<u64>), String> {
        let silence = self.heartbeat * MISSED;
        loop {
            let incoming = match self.delivered {
                None => self.incoming.recv().await,
                Some(_) => timeout(silence, self.incoming.recv()).await.map_err(|_| {
                    let (peer, silence) = (&self.link.peer, Human(silence));
                    format!("{peer} has had no word of our consumer for {silence}: the stream or the consumer is gone")
                })?,
            };
            let Some((at, delivery)) = incoming else { return Err(self.link.ended().await.detail) };
            if self.is_message(&delivery).await? {
                let place = delivery.reply.as_deref().and_then(jetstream::place);
                let sequence = place.filter(|_| self.delivered.is_some()).map(|place| place.stream_sequence);
                return Ok((at, message::read(delivery, at), sequence));
            }
        }
    }

    /// Whether it is a message. A consumer also says that it is there, and asks for an answer before it goes on.
    async fn is_message(&mut self, delivery: &Delivery) -> Result<bool, String> {
        let Some(delivered) = &mut self.delivered else { return Ok(true) };
        if delivery.status == Some(CONTROL) {
            let stalled = delivery.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Nats-Consumer-Stalled"));
            let asked = delivery.reply.as_deref().or(stalled.map(|(_, subject)| subject.as_str()));
            if let Some(asked) = asked.filter(|asked| wire::wrong_subject(asked, false).is_none()) {
                self.link.mention(wire::publication(asked, None, &[], b"")).await;
            }
            return Ok(false);
        }
        let Some(place) = delivery.reply.as_deref().and_then(jetstream::place) else { return Ok(false) };
        if place.consumer_sequence != *delivered + 1 {
            return Err(format!(
                "delivery {} of our consumer came after delivery {delivered}: what was between is asked for again",
                place.consumer_sequence
            ));
        }
        *delivered = place.consumer_sequence;
        Ok(true)
    }
}

/// Subscribes, and waits until the server has dealt with it.
async fn subscribe(link: &Link, subject: &str) -> Result<(), Refusal> {
    let errors = link.say(wire::subscription(subject, RECEIVING)).await?;
    let place = format!("subscription to `{subject}`");
    super::refusal::of_message(&errors, &place).map_or(Ok(()), Err)
}

/// What a consumer is to read.
struct Wanted<'a> {
    stream: &'a str,
    filter: &'a str,
    since: Option<Timestamp>,
}

/// Makes a consumer that goes on where the last one ended. If there was none: from the stream's end on, or from the time since when
/// somebody waits.
async fn consume(
    link: &Link,
    Wanted { stream, filter, since }: Wanted<'_>,
    own: &str,
    heartbeat: Duration,
    position: &Position,
) -> Result<(), Refusal> {
    let place = format!("stream `{stream}`");
    let info: StreamInfo = ask(link, &jetstream::stream_info(stream), b"", &place).await?;
    // A stream that was made anew counts from one again.
    let known = *position.lock().unwrap_or_else(PoisonError::into_inner);
    let after = known.filter(|known| *known <= info.state.last_seq).unwrap_or(info.state.last_seq);
    let from = since.filter(|_| known.is_none()).map_or(Start::After(after), Start::Since);
    let (subject, request) = jetstream::consumer(stream, filter, own, from, heartbeat);
    let consumer: ConsumerInfo = ask(link, &subject, &request, &format!("a consumer of `{filter}` on {place}")).await?;
    tracing::debug!(consumer = consumer.name, stream, "has a consumer of its own");
    if let Start::After(after) = from {
        position.lock().unwrap_or_else(PoisonError::into_inner).replace(after);
    }
    Ok(())
}

/// Asks the API, and reads its answer.
pub(super) async fn ask<T: DeserializeOwned>(
    link: &Link,
    subject: &str,
    request: &[u8],
    place: &str,
) -> Result<T, Refusal> {
    let Some((inbox, answer)) = link.expect_answer() else { return Err(link.no_answers()) };
    let errors = link.say(wire::publication(subject, Some(&inbox), &[], request)).await?;
    if let Some(refusal) = super::refusal::of_message(&errors, place) {
        return Err(refusal);
    }
    jetstream::read(&link.unless_ended(answer).await?, place)
}
