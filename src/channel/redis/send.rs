//! Sending: one command on a connection that all sends share, and the server's reply to it.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::timeout_at;

use super::link::{Endpoint, Link};
use super::message::{Id, command, place, text};
use super::{Place, RedisSettings};
use crate::channel::dial::Limit;
use crate::channel::held::Held;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::time::{Human, Mono, Now};

/// Deleting a batch of entries may take this long.
const DELETING: Duration = Duration::from_secs(5);

/// Sends over one connection, made when first needed and made anew when it has ended.
pub(super) struct Sender {
    settings: RedisSettings,
    endpoint: Endpoint,
    clock: Clock,
    link: Held<Link>,
}

impl Sender {
    /// A sender that is not connected yet.
    pub(super) fn new(settings: RedisSettings, endpoint: Endpoint, clock: Clock) -> Sender {
        Sender { settings, endpoint, clock, link: Held::default() }
    }

    /// Sends and waits for the reply, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let written = place(outgoing, self.settings.target.as_ref())
            .and_then(|place| Ok((command(outgoing, &place, self.settings.max_length)?, place)));
        let (command, place) = written.map_err(|why| unsent(asked, asked, Refusal::new(Cause::Refused, why)))?;
        let (link, is_new) = self
            .ready(limit, outgoing.connected_since)
            .await
            .map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;

        let started = self.clock.now();
        let answer = timeout_at(limit.instant(), link.call(&command)).await;
        let finished = self.clock.now();

        let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: started.mono.since(asked.mono) });
        let confirm = Phase { name: "confirm".to_owned(), took: finished.mono.since(started.mono) };
        let phases: Vec<_> = connect.into_iter().chain([confirm]).collect();
        let refusal = match answer {
            Ok(Ok(reply)) => match verdict(reply, &place) {
                Ok(ack) => return Ok(Reply { started, finished, ack, message: None, phases }),
                Err(refusal) => refusal,
            },
            Ok(Err(refusal)) => {
                // The name in the URL may lead to another server by now: a master that failed over, or one that is up.
                if refusal.cause != Cause::Auth {
                    self.link.forget(&link);
                }
                refusal
            }
            Err(_) => {
                // A connection that swallows a message may be half-open: the next message gets a new one.
                self.link.forget(&link);
                let waited = Human(finished.mono.since(started.mono));
                let detail = format!("no reply from {} within {waited}: {place}", link.peer);
                Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
            }
        };
        Err(refusal.into_fault(started, finished, phases))
    }

    /// Deletes these entries of ours from a stream.
    pub(super) async fn delete(&self, stream: &str, ids: &[Id]) -> Result<(), String> {
        let limit = Limit::new(self.clock, DELETING);
        let mut command = cmd("XDEL");
        command.arg(stream);
        for id in ids {
            command.arg(id.to_string());
        }
        let deleting = async { self.ready(limit, None).await?.0.call(&command).await };
        match timeout_at(limit.instant(), deleting).await {
            Ok(answer) => answer.map(drop).map_err(|refusal| refusal.detail),
            Err(_) => Err("no reply in time".to_owned()),
        }
    }

    /// Connects and says who we are, on a connection of its own.
    pub(super) async fn prove(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, within);
        let proving = async {
            let link = Link::open(&self.endpoint, "journeyman-check", limit).await?;
            match timeout_at(limit.instant(), link.call(&cmd("PING"))).await {
                Ok(Ok(_)) => Ok(link.peer.clone()),
                // Who is not allowed to ask even that has been let in all the same.
                Ok(Err(refusal)) if refusal.detail.contains("NOPERM") => Ok(link.peer.clone()),
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::silence("asking whether it is there", &link.peer, within)),
            }
        };
        let peer = proving.await.map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;
        Ok(format!("{peer} answers, and takes our credentials"))
    }

    /// A connection that stands, and whether it had to be made: one known to have ended is replaced, before anything is sent,
    /// and so is one from before `since`.
    async fn ready(&self, limit: Limit, since: Option<Mono>) -> Result<(Arc<Link>, bool), Refusal> {
        let mut is_new = false;
        loop {
            let connect = || Link::open(&self.endpoint, "journeyman-sender", limit);
            let (link, made) = self.link.get(limit, since, connect).await?;
            is_new |= made;
            if link.is_open() {
                return Ok((link, is_new));
            }
            self.link.forget(&link);
            if is_new {
                return Err(Refusal::lost(&link.peer, "the server closed it"));
            }
        }
    }
}

/// The server's word on a message: the id of the entry that it made, or to how many it was passed on.
fn verdict(reply: Value, place: &Place) -> Result<String, Refusal> {
    match (place, reply) {
        (Place::Topic(_), Value::Int(0)) => {
            Err(Refusal::new(Cause::Unroutable, format!("nobody is subscribed to {place} at this server")))
        }
        (Place::Topic(_), Value::Int(1)) => Ok("1 receiver".to_owned()),
        (Place::Topic(_), Value::Int(receivers)) => Ok(format!("{receivers} receivers")),
        (_, other) => match text(other) {
            Some(id) => Ok(format!("entry {id}")),
            None => Err(Refusal {
                cause: Cause::Uncertain,
                detail: format!("the server's reply is not one to what it was sent: {place}"),
                is_verdict: false,
            }),
        },
    }
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}

/// The command that asks for what was added to `stream` after `last`, waiting up to `wait` for something.
pub(super) fn read_after(stream: &str, last: Id, most: usize, wait: Option<Duration>) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(most);
    if let Some(wait) = wait {
        command.arg("BLOCK").arg(wait.as_millis() as u64);
    }
    command.arg("STREAMS").arg(stream).arg(last.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_id_and_a_topic_tells_its_receivers() {
        let (stream, topic) = (Place::Stream("s".to_owned()), Place::Topic("t".to_owned()));
        assert_eq!(verdict(Value::BulkString(b"15-0".to_vec()), &stream), Ok("entry 15-0".to_owned()));
        assert_eq!(verdict(Value::Int(1), &topic), Ok("1 receiver".to_owned()));
        assert_eq!(verdict(Value::Int(3), &topic), Ok("3 receivers".to_owned()));
        let nobody = verdict(Value::Int(0), &topic).unwrap_err();
        assert_eq!((nobody.cause, nobody.is_verdict), (Cause::Unroutable, true));
        let odd = verdict(Value::Nil, &stream).unwrap_err();
        assert_eq!((odd.cause, odd.is_verdict), (Cause::Uncertain, false));
    }
}
