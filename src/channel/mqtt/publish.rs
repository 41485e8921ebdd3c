//! Sending: one publish, and the broker's word on it.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::timeout_at;

use super::MqttSettings;
use super::link::{Answer, Link};
use super::message::Letter;
use super::refusal::verdict;
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
    settings: MqttSettings,
    tls: Option<Arc<ClientConfig>>,
    clock: Clock,
    link: Held<Link>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub(super) fn new(settings: MqttSettings, tls: Option<Arc<ClientConfig>>, clock: Clock) -> Publisher {
        Publisher { settings, tls, clock, link: Held::default() }
    }

    /// Publishes and waits for the answer that the QoS asks for, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let letter = Letter::new(outgoing, &self.settings)
            .map_err(|detail| unsent(asked, asked, Refusal::new(Cause::Refused, detail)))?;
        let ready = async {
            let (link, is_new) = self.ready(limit, outgoing.connected_since).await?;
            link.check(&letter)?;
            Ok((link, is_new))
        };
        let (link, is_new) = ready.await.map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;

        let started = self.clock.now();
        let publishing = async {
            match link.publish(&letter).await {
                Answer::Flushed => Ok("socket"),
                Answer::Word { code, words, .. } => {
                    let place = letter.place();
                    verdict(code, words.as_deref(), letter.is_retained, &place).map(|()| acknowledged(letter.qos))
                }
                Answer::NotTaken => Err(link.ended().await.before_sending()),
                Answer::Lost => Err(Refusal { is_verdict: false, ..link.ended().await }),
            }
        };
        let answer = timeout_at(limit.instant(), publishing).await;
        let finished = self.clock.now();

        let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: started.mono.since(asked.mono) });
        let confirm = Phase { name: "confirm".to_owned(), took: finished.mono.since(started.mono) };
        let phases: Vec<_> = connect.into_iter().chain([confirm]).collect();
        let refusal = match answer {
            Ok(Ok(ack)) => return Ok(Reply { started, finished, ack: ack.to_owned(), message: None, phases }),
            Ok(Err(refusal)) => refusal,
            Err(_) => {
                // A connection that swallows a message may be half-open: the next message gets a new one.
                self.link.forget(&link);
                let waited = Human(finished.mono.since(started.mono));
                let detail = format!("no acknowledgement from {} within {waited}: {}", link.peer, letter.place());
                Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
            }
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    /// A connection that stands: one known to have ended is replaced, before anything is sent on it, and so
    /// is one from before `since`.
    async fn ready(&self, limit: Limit, since: Option<Mono>) -> Result<(Arc<Link>, bool), Refusal> {
        loop {
            let connect = async || Ok(self.open(limit).await?.0);
            let (link, is_new) = self.link.get(limit, since, connect).await?;
            if link.is_open() {
                return Ok((link, is_new));
            }
            self.link.forget(&link);
            if is_new {
                return Err(link.ended().await);
            }
        }
    }

    async fn open(&self, limit: Limit) -> Result<(Link, tokio::sync::mpsc::Receiver<super::link::Incoming>), Refusal> {
        Link::open(&self.settings, self.tls.as_ref(), self.clock, limit).await
    }

    /// Connects and says who we are, on a connection of its own.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let (link, _) = self.open(limit).await.map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        let told = format!("{} takes our credentials and speaks MQTT {}", link.peer, self.settings.version.name());
        link.close().await;
        Ok(told)
    }
}

/// What the packet is called that acknowledges a message of this QoS.
fn acknowledged(qos: u8) -> &'static str {
    if qos == 2 { "pubcomp" } else { "puback" }
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}
