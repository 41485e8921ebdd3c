//! Sending: one publish on one lane, and the broker's word on it.

use std::sync::Arc;
use std::time::Duration;

use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use tokio::time::timeout_at;

use super::AmqpSettings;
use super::link::Link;
use super::message::Envelope;
use crate::channel::dial::Limit;
use crate::channel::held::Held;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::time::{Human, Mono, Now};

/// Publishes over one connection, made when first needed and made anew when it has ended.
pub(super) struct Publisher {
    settings: AmqpSettings,
    clock: Clock,
    link: Held<Link>,
}

/// A lane to publish on, and whether a connection had to be made for it.
struct Ready {
    link: Arc<Link>,
    lane: lapin::Channel,
    is_new: bool,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub(super) fn new(settings: AmqpSettings, clock: Clock) -> Publisher {
        Publisher { settings, clock, link: Held::default() }
    }

    /// Publishes and waits for the confirm, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let AmqpSettings { exchange, routing_key, .. } = &self.settings;
        let envelope = Envelope::new(outgoing, exchange, routing_key, asked)
            .map_err(|detail| unsent(asked, asked, Refusal::new(Cause::Refused, detail)))?;
        let Ready { link, lane, is_new } = self
            .ready(limit, outgoing.connected_since)
            .await
            .map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;

        let place = format!("exchange `{}`, routing key `{}`", envelope.exchange, envelope.routing_key);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let started = self.clock.now();
        let publishing = async {
            let Envelope { exchange, routing_key, properties } = envelope;
            lane.basic_publish(exchange, routing_key, options, &outgoing.body, properties).await?.await
        };
        let answer = timeout_at(limit.instant(), publishing).await;
        let finished = self.clock.now();

        let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: started.mono.since(asked.mono) });
        let confirm = Phase { name: "confirm".to_owned(), took: finished.mono.since(started.mono) };
        let phases: Vec<_> = connect.into_iter().chain([confirm]).collect();
        let refusal = match answer {
            Ok(Ok(confirmation)) => {
                link.give_back(lane);
                match verdict(&confirmation, &place) {
                    Ok(ack) => return Ok(Reply { started, finished, ack: ack.to_owned(), message: None, phases }),
                    Err(refusal) => refusal,
                }
            }
            Ok(Err(error)) => Refusal::of(&error, &link.peer),
            Err(_) => match link.blocked() {
                Some(reason) => Refusal { is_verdict: false, ..blocked(&reason) },
                None => {
                    // A connection that swallows a message may be half-open: the next message gets a new one.
                    self.link.forget(&link);
                    let waited = Human(finished.mono.since(started.mono));
                    let detail = format!("no confirm from {} within {waited}: {place}", link.peer);
                    Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
                }
            },
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    /// A lane on a connection that stands: one known to have ended is replaced, before anything is sent on it, and so
    /// is one from before `since`.
    async fn ready(&self, limit: Limit, since: Option<Mono>) -> Result<Ready, Refusal> {
        let mut is_new = false;
        loop {
            let connect = || Link::open(&self.settings, "journeyman publisher", limit);
            let (link, made) = self.link.get(limit, since, connect).await?;
            is_new |= made;
            if link.is_open()
                && let Some(reason) = link.blocked()
            {
                return Err(blocked(&reason));
            }
            let refusal = match timeout_at(limit.instant(), link.lane()).await {
                Ok(Ok(lane)) => return Ok(Ready { link, lane, is_new }),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::silence("opening a channel", &link.peer, limit.length()),
            };
            self.link.forget(&link);
            if is_new || link.is_open() {
                return Err(refusal);
            }
        }
    }

    /// Connects and says who we are, on a connection of its own.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let link = Link::open(&self.settings, "journeyman check", limit)
            .await
            .map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        let told = format!("{} takes our credentials and lets us into the vhost", link.peer);
        link.close().await;
        Ok(told)
    }
}

/// The broker's word on a message. It returns what no queue takes, and confirms it all the same:
/// <https://www.rabbitmq.com/docs/confirms#when-publishes-are-confirmed>.
fn verdict(confirmation: &Confirmation, place: &str) -> Result<&'static str, Refusal> {
    match confirmation {
        Confirmation::Ack(None) => Ok("confirm"),
        Confirmation::NotRequested => Ok("socket"),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => Err(Refusal::new(
            Cause::Unroutable,
            format!("no queue takes it: {place} ({} {})", returned.reply_code, returned.reply_text),
        )),
        Confirmation::Nack(None) => Err(Refusal::new(
            Cause::Rejected,
            format!("the broker refused it (nack): {place}; a queue that it goes to is full, or cannot store it"),
        )),
    }
}

fn blocked(reason: &str) -> Refusal {
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    Refusal::new(Cause::Throttled, format!("broker blocked the connection: {reason}"))
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirm_is_a_confirm_and_a_nack_is_not() {
        assert_eq!(verdict(&Confirmation::Ack(None), "here"), Ok("confirm"));
        let refusal = verdict(&Confirmation::Nack(None), "here").unwrap_err();
        assert_eq!((refusal.cause, refusal.is_verdict), (Cause::Rejected, true));
        assert!(refusal.detail.contains("here"), "{refusal:?}");
    }
}
