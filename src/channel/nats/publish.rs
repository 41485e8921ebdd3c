//! Sending: one publish, and the server's word on it.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::timeout_at;

use super::NatsSettings;
use super::jetstream::{self, NO_RESPONDERS, Stored};
use super::link::Link;
use super::message::Letter;
use super::{refusal, wire};
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
    settings: NatsSettings,
    tls: Option<Arc<ClientConfig>>,
    clock: Clock,
    link: Held<Link>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub(super) fn new(settings: NatsSettings, tls: Option<Arc<ClientConfig>>, clock: Clock) -> Publisher {
        Publisher { settings, tls, clock, link: Held::default() }
    }

    /// Publishes and waits for the server, or the stream, to have it, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let letter = Letter::new(outgoing, &self.settings)
            .map_err(|detail| unsent(asked, asked, Refusal::new(Cause::Refused, detail)))?;
        let ready = async {
            let (link, is_new) = self.ready(limit, outgoing.connected_since).await?;
            self.check(&link, &letter)?;
            Ok((link, is_new))
        };
        let (link, is_new) = ready.await.map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;

        let started = self.clock.now();
        let publishing = publish(&link, &letter, self.settings.stream.as_deref());
        let answer = timeout_at(limit.instant(), publishing).await;
        let finished = self.clock.now();

        let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: started.mono.since(asked.mono) });
        let confirm = Phase { name: "confirm".to_owned(), took: finished.mono.since(started.mono) };
        let phases: Vec<_> = connect.into_iter().chain([confirm]).collect();
        let refusal = match answer {
            Ok(Ok(ack)) => return Ok(Reply { started, finished, ack, message: None, phases }),
            Ok(Err(refusal)) => refusal,
            Err(_) => {
                // A connection that swallows a message may be half-open: the next message gets a new one.
                self.link.forget(&link);
                let waited = Human(finished.mono.since(started.mono));
                let detail =
                    format!("no acknowledgement from {} within {waited}: subject `{}`", link.peer, letter.subject);
                Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
            }
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    /// What keeps the server from taking the letter, by its own word: it would end the connection over it.
    fn check(&self, link: &Link, letter: &Letter) -> Result<(), Refusal> {
        let (size, most) = (letter.size(), link.info.max_payload);
        if size > most {
            let detail = format!("the message has {size} bytes, and {} takes {most} (`max_payload`)", link.peer);
            return Err(Refusal::new(Cause::Refused, detail));
        }
        if !link.info.headers {
            let detail = format!("{} is version {}, which knows no headers; 2.2 does", link.peer, link.info.version);
            return Err(Refusal::new(Cause::Refused, detail));
        }
        Ok(())
    }

    /// A connection that stands: one known to have ended is replaced, before anything is sent on it, and so
    /// is one from before `since`.
    async fn ready(&self, limit: Limit, since: Option<Mono>) -> Result<(Arc<Link>, bool), Refusal> {
        loop {
            let connect = async || self.open("journeyman publisher", limit).await;
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

    async fn open(&self, name: &str, limit: Limit) -> Result<Link, Refusal> {
        Ok(Link::open(&self.settings, self.tls.as_ref(), name, self.clock, limit).await?.0)
    }

    /// Connects and says who we are, on a connection of its own.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let opened = self.open("journeyman check", limit).await;
        let link = opened.map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        let told = format!("{} takes our credentials (nats-server {})", link.peer, link.info.version);
        link.close().await;
        Ok(told)
    }
}

/// Publishes, with a PING behind it. The server deals with both in order: what it has against the message, and that nobody is
/// there for it, comes before the PONG.
async fn publish(link: &Link, letter: &Letter, stream: Option<&str>) -> Result<String, Refusal> {
    let Letter { subject, headers, payload } = letter;
    let place = format!("subject `{subject}`");
    let (inbox, mut answer) = match link.expect_answer() {
        Some((inbox, answer)) => (Some(inbox), Some(answer)),
        None if stream.is_some() => return Err(link.no_answers()),
        None => (None, None),
    };
    let errors = link.say(wire::publication(subject, inbox.as_deref(), headers, payload)).await?;
    if let Some(refusal) = refusal::of_message(&errors, &place) {
        return Err(refusal);
    }
    match (stream, answer.take()) {
        (Some(_), Some(answer)) => {
            let answer = link.unless_ended(answer).await?;
            let stored: Stored = jetstream::read(&answer, &place)?;
            Ok(stored.ack())
        }
        (_, Some(mut answer)) => match answer.try_recv() {
            Ok(nobody) if nobody.status == Some(NO_RESPONDERS) && nobody.payload.is_empty() => {
                Err(Refusal::new(Cause::Unroutable, format!("nobody subscribes to it: {place} (no responders, 503)")))
            }
            _ => Ok("socket".to_owned()),
        },
        (_, None) => Ok("socket".to_owned()),
    }
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}
