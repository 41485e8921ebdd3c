//! Receiving: a queue of our own, consumed without end; each arrival stamped before anything else happens to it.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Consumer, ErrorKind};
use tokio::time::timeout_at;

use super::link::Link;
use super::message;
use super::{AmqpSettings, QueueSettings};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::journey::message::Arrival;
use crate::time::Now;

/// From the first packet to the broker's consume-ok.
const SETUP: Duration = Duration::from_secs(10);
/// Deliveries that the broker sends ahead of our acknowledgements; also bounds what waits here to be handed over.
const PREFETCH: u16 = 50;
/// The broker deletes the queue when we have not consumed for this long, so that nothing of ours is left behind.
const QUEUE_EXPIRES: Duration = Duration::from_secs(3_600);
/// A message that waits longer in it is dropped.
const MESSAGE_TTL: Duration = Duration::from_secs(3_600);
/// Of more messages than this, the oldest are dropped: a flood must not fill the broker through us.
const MAX_LENGTH: u32 = 10_000;
/// Acknowledgements under way may take this long when we stop.
const LAST_ACKS: Duration = Duration::from_secs(1);

/// Consumes until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &AmqpSettings, listener: Listener) {
    let Some(queue) = &settings.queue else {
        let why = "the channel has no queue to receive on; give it `queue = { name = \"…\", bind = [ … ] }`";
        return never_receives(&listener, why).await;
    };
    let open = || Subscription::open(settings, queue, &listener);
    keep_receiving(&listener, open, |subscription| subscription.read(&listener)).await;
}

/// A queue being consumed.
struct Subscription {
    link: Link,
    consumer: Consumer,
}

impl Subscription {
    /// Connects, declares, binds, consumes.
    async fn open(settings: &AmqpSettings, queue: &QueueSettings, listener: &Listener) -> Result<Self, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let name = format!("journeyman receiver {}", listener.channel);
        let link = Link::open(settings, &name, limit).await.map_err(|refusal| refusal.detail)?;
        let consumer = timeout_at(limit.instant(), consume(&link, queue, &listener.channel)).await;
        let silence = |_| Refusal::silence("setting up the queue", &link.peer, limit.length()).detail;
        let consumer = consumer.map_err(silence)??;
        Ok(Subscription { link, consumer })
    }

    /// Reads until told to stop (`Ok`), or until the broker or the connection ends it (`Err`, in words).
    async fn read(mut self, listener: &Listener) -> Result<(), String> {
        // Stamped, and not handed over yet. Never more than the prefetch, because only what is handed over is acknowledged.
        let mut waiting: VecDeque<(Now, Delivery)> = VecDeque::new();
        let mut acks = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => break,
                delivery = self.consumer.next() => match delivery {
                    Some(Ok(delivery)) => waiting.push_back((listener.clock.now(), delivery)),
                    Some(Err(error)) => return Err(Refusal::of(&error, &self.link.peer).detail),
                    None if self.link.is_open() => {
                        return Err(format!("the broker ended the subscription: queue `{}` was deleted", self.consumer.queue()));
                    }
                    None => return Err(format!("lost the connection to {}", self.link.peer)),
                },
                place = listener.place(), if !waiting.is_empty() => {
                    let (Some(place), Some((at, delivery))) = (place, waiting.pop_front()) else { break };
                    let acker = delivery.acker.clone();
                    let message = message::read(delivery);
                    let safe = place.hand_over(Arrival { channel: listener.channel.clone(), at, message });
                    acks.push(async move {
                        // A store that takes nothing must not stop the reading; its own alert tells of that.
                        safe.told().await;
                        // Fails only with the connection, and then the consumer tells.
                        acker.ack(BasicAckOptions::default()).await
                    });
                }
                Some(_) = acks.next(), if !acks.is_empty() => {}
            }
        }
        let _ = tokio::time::timeout(LAST_ACKS, async { while acks.next().await.is_some() {} }).await;
        self.link.close().await;
        Ok(())
    }
}

/// Declares the queue and its bindings, and consumes it. Deletes and purges nothing, ever.
async fn consume(link: &Link, queue: &QueueSettings, channel_name: &str) -> Result<Consumer, String> {
    let refused = |error: &lapin::Error| Refusal::of(error, &link.peer).detail;
    let short = |what: &str, text: &str| {
        ShortString::try_new(text).map_err(|_| format!("{what} has {} bytes; AMQP allows 255", text.len()))
    };
    let name = short("the queue's name", &queue.name)?;
    let mut channel = link.channel().await.map_err(|refusal| refusal.detail)?;
    // Durable, so that it outlives a restart of the broker; not exclusive, because an exclusive queue goes with its
    // connection and takes along what is in flight.
    let declared = channel.queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments()).await;
    match declared {
        Ok(_) => {}
        Err(error) if reply_code(&error) == Some(406) => {
            tracing::warn!(channel = channel_name, queue = queue.name, reason = %error, "the queue exists with other arguments and is used as it is");
            channel = link.channel().await.map_err(|refusal| refusal.detail)?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel
                .queue_declare(name.clone(), options, FieldTable::default())
                .await
                .map_err(|error| format!("cannot use queue `{}`: {}", queue.name, refused(&error)))?;
        }
        Err(error) => return Err(format!("cannot declare queue `{}`: {}", queue.name, refused(&error))),
    }
    for binding in &queue.bind {
        let exchange = short("an exchange's name in `bind`", &binding.exchange)?;
        let routing_key = short("a routing key in `bind`", &binding.routing_key)?;
        let bound = channel
            .queue_bind(name.clone(), exchange, routing_key, QueueBindOptions::default(), FieldTable::default())
            .await;
        bound.map_err(|error| {
            let advice = match reply_code(&error) {
                Some(404) => "; declare the exchange, or correct `bind`",
                Some(403) => "; let the user write the queue and read the exchange",
                _ => "",
            };
            let why = refused(&error);
            format!("cannot bind queue `{}` to exchange `{}`: {why}{advice}", queue.name, binding.exchange)
        })?;
    }
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(|error| refused(&error))?;
    channel
        .basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(|error| format!("cannot consume queue `{}`: {}", queue.name, refused(&error)))
}

/// <https://www.rabbitmq.com/docs/queues#optional-arguments>; times in milliseconds.
fn arguments() -> FieldTable {
    let millis = |duration: Duration| AMQPValue::LongLongInt(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), millis(QUEUE_EXPIRES));
    arguments.insert("x-message-ttl".into(), millis(MESSAGE_TTL));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(MAX_LENGTH)));
    arguments
}

fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}
