//! Looking at a queue: how many messages wait in it, for how long, and who consumes it. Nothing is consumed, declared or changed.

use std::sync::Arc;

use lapin::options::QueueDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use serde_json::json;
use tokio::time::timeout_at;

use super::AmqpSettings;
use super::link::Link;
use super::management::{self, Management};
use crate::channel::dial::Limit;
use crate::channel::held::Held;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;
use crate::time::Mono;

/// Looks over a connection of its own, kept between checks: a broker in an alarm reads nothing from those that publish.
pub(super) struct Inspector {
    settings: AmqpSettings,
    clock: Clock,
    link: Held<Link>,
    management: Option<Management>,
}

impl Inspector {
    /// An inspector that is not connected yet.
    pub(super) fn new(settings: AmqpSettings, clock: Clock) -> Inspector {
        Inspector { management: Management::new(&settings, clock), settings, clock, link: Held::default() }
    }

    /// Asks for the queue that the step names, or for our own.
    pub(super) async fn check(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let own = self.settings.queue.as_ref().map(|queue| queue.name.as_str());
        let queue = outgoing.fields.get("queue").map(String::as_str).or(own).unwrap_or_default();
        let mut phases = Vec::new();
        let mut last = asked.mono;
        let mut lap = |name: &str, now: Mono| {
            phases.push(Phase { name: name.to_owned(), took: now.since(last) });
            last = now;
        };
        let mut started = asked;
        let looking = async {
            let (link, is_new) = self.connected(limit, outgoing.connected_since).await?;
            started = self.clock.now();
            if is_new {
                lap("connect", started.mono);
            }
            let seen = self.look(&link, queue, limit).await;
            lap("look", self.clock.now().mono);
            let (mut message, mut document) = seen?;
            if let Some(management) = &self.management {
                let seen = management.queue(queue, limit.left()).await;
                lap("management", self.clock.now().mono);
                management::add(&mut message, &mut document, seen?);
            }
            message.body = serde_json::Value::from(document).to_string().into_bytes();
            Ok::<_, Refusal>(message)
        };
        let seen = looking.await;
        let finished = self.clock.now();
        match seen {
            Ok(message) => Ok(Reply { started, finished, ack: "seen".to_owned(), message: Some(message), phases }),
            Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
        }
    }

    /// A connection that stands, as far as is known, and whether it was made for this.
    async fn connected(&self, limit: Limit, since: Option<Mono>) -> Result<(Arc<Link>, bool), Refusal> {
        loop {
            let connect = || Link::open(&self.settings, "journeyman check", limit);
            let (link, is_new) = self.link.get(limit, since, connect).await?;
            if is_new || link.is_open() {
                return Ok((link, is_new));
            }
            self.link.forget(&link);
        }
    }

    /// A passive declaration asks and creates nothing (AMQP 0-9-1, `queue.declare`). On an AMQP channel of its own: a queue
    /// that is not there costs us the channel, and must cost nobody else's check.
    async fn look(
        &self,
        link: &Arc<Link>,
        queue: &str,
        limit: Limit,
    ) -> Result<(Message, serde_json::Map<String, serde_json::Value>), Refusal> {
        let name = ShortString::try_new(queue).map_err(|_| {
            Refusal::new(Cause::Refused, "the queue's name is longer than the 255 bytes that AMQP allows")
        })?;
        let looking = async {
            let channel = link.channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(name, options, FieldTable::default()).await;
            let declared = declared.map_err(|error| Refusal::of(&error, &link.peer))?;
            // Fails only with the connection, and then the next check tells.
            let _ = channel.close(200, "OK".into()).await;
            Ok(declared)
        };
        let seen = timeout_at(limit.instant(), looking).await.unwrap_or_else(|_| {
            // It may be half-open: the next check gets a new one.
            self.link.forget(link);
            Err(Refusal::silence("looking at the queue", &link.peer, limit.length()))
        })?;
        let (depth, consumers) = (i64::from(seen.message_count()), i64::from(seen.consumer_count()));
        let mut message = Message::new(Vec::new());
        message.facts.insert("depth", Value::from(depth));
        message.facts.insert("consumers", Value::from(consumers));
        let members = [("queue", json!(queue)), ("depth", json!(depth)), ("consumers", json!(consumers))];
        Ok((message, members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
    }
}
