//! Looking at a queue: how many messages wait in it, and who consumes it. Nothing is consumed, declared or changed.

use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use tokio::time::timeout_at;

use super::AmqpSettings;
use super::link::Link;
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;

/// Asks the broker for the queue that the step names, or for our own.
pub(super) async fn check(settings: &AmqpSettings, clock: Clock, outgoing: &Outgoing) -> Result<Reply, Fault> {
    let started = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    let own = settings.queue.as_ref().map(|queue| queue.name.as_str());
    let queue = outgoing.fields.get("queue").map(String::as_str).or(own).unwrap_or_default();
    let seen = look(settings, queue, limit).await;
    let finished = clock.now();
    let phases = vec![Phase { name: "look".to_owned(), took: finished.mono.since(started.mono) }];
    match seen {
        Ok(message) => Ok(Reply { started, finished, ack: "seen".to_owned(), message: Some(message), phases }),
        Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
    }
}

/// A passive declaration asks and creates nothing (AMQP 0-9-1, `queue.declare`). A connection of its own: a queue that is not
/// there costs us the channel, and must cost nobody a message.
async fn look(settings: &AmqpSettings, queue: &str, limit: Limit) -> Result<Message, Refusal> {
    let name = ShortString::try_new(queue)
        .map_err(|_| Refusal::new(Cause::Refused, "the queue's name is longer than the 255 bytes that AMQP allows"))?;
    let link = Link::open(&settings.url, "journeyman check", limit).await?;
    let looking = async {
        let channel = link.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name, options, FieldTable::default()).await;
        declared.map_err(|error| Refusal::of(&error, &link.peer))
    };
    let seen = timeout_at(limit.instant(), looking)
        .await
        .unwrap_or_else(|_| Err(Refusal::silence("looking at the queue", &link.peer, limit.length())));
    link.close().await;
    let seen = seen?;
    let mut message = Message::new(Vec::new());
    message.facts.insert("depth", Value::from(i64::from(seen.message_count())));
    message.facts.insert("consumers", Value::from(i64::from(seen.consumer_count())));
    Ok(message)
}
