//! A shadow's channel: the real one, with the fault around what is sent and asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::{Channel, Listener};
use crate::clock::Clock;
use crate::drill::Fault;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::run::{self, Reply};
use crate::rehearsal::side::Side;

/// The real channel behind our faulty side.
pub(super) struct Shadow {
    pub(super) real: Arc<dyn Channel>,
    pub(super) side: Arc<Side>,
    pub(super) clock: Clock,
    /// The journey receives nothing: its answers are what is touched.
    pub(super) is_asked: bool,
}

impl Shadow {
    fn refused(&self) -> Option<run::Fault> {
        (self.side.fault() == Some(Fault::Refuse)).then(|| {
            self.side.note();
            self.fault(Cause::Refused, "a drill refused it: nothing was sent".to_owned())
        })
    }

    fn fault(&self, cause: Cause, detail: String) -> run::Fault {
        let now = self.clock.now();
        run::Fault { started: now, finished: now, cause, detail, uncertain: false, phases: Vec::new() }
    }

    /// An answer on its way back to a journey that receives nothing.
    async fn back(&self, answer: Result<Reply, run::Fault>, timeout: Duration) -> Result<Reply, run::Fault> {
        let fault = self.side.fault().filter(|_| self.is_asked);
        let mut reply = answer?;
        let wait = match fault {
            None | Some(Fault::Refuse | Fault::Duplicate | Fault::Reorder) => return Ok(reply),
            Some(Fault::Drop) => {
                self.side.note();
                let why = "no answer: a drill dropped it".to_owned();
                return Err(run::Fault { uncertain: true, ..self.fault(Cause::Unreachable, why) });
            }
            Some(Fault::Corrupt) => {
                if let Some(message) = &mut reply.message {
                    self.side.note();
                    *message = self.side.corrupt(message);
                }
                return Ok(reply);
            }
            Some(Fault::Delay(delay)) => delay,
            Some(Fault::Throttle(rate)) => self.side.turn(rate),
        };
        if wait > Duration::ZERO {
            self.side.note();
            let left = timeout.saturating_sub(reply.finished.mono.since(reply.started.mono));
            self.clock.sleep_until(reply.finished.mono + wait.min(left)).await;
            if wait >= left {
                let why = format!("no answer within {}: a drill held it back", crate::time::Human(timeout));
                let fault = self.fault(Cause::Unreachable, why);
                return Err(run::Fault { started: reply.started, uncertain: true, ..fault });
            }
            reply.finished = self.clock.now();
        }
        Ok(reply)
    }
}

impl Channel for Shadow {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, run::Fault>> {
        Box::pin(async move {
            match self.refused() {
                Some(fault) => Err(fault),
                None => self.real.send(outgoing).await,
            }
        })
    }

    fn request<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, run::Fault>> {
        Box::pin(async move {
            match self.refused() {
                Some(fault) => Err(fault),
                None => self.back(self.real.request(outgoing).await, outgoing.timeout).await,
            }
        })
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, run::Fault>> {
        Box::pin(async move {
            match self.refused() {
                Some(fault) => Err(fault),
                None => self.back(self.real.check(outgoing).await, outgoing.timeout).await,
            }
        })
    }

    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, run::Fault>> {
        self.real.prove(limit)
    }

    fn keeps(&self) -> bool {
        self.real.keeps()
    }

    fn looks_back(&self) -> bool {
        self.real.looks_back()
    }

    /// The real one is listened to already.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}
