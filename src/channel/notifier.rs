//! A notifier as a path: what is sent through it is a test alarm, by the very worker that tells people. What it led to is read back by
//! another channel, as any message.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::alarm::{Alarms, NotTaken, Why};
use crate::channel::refusal::Refusal;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::{Name, Outgoing};
use crate::notice::sample::test_alarm;

/// Settings of a `notifier` channel.
#[derive(Clone, Debug)]
pub struct NotifierSettings {
    /// Whom it rings.
    pub notifier: Name,
}

/// A `notifier` channel.
pub struct Notifier {
    settings: NotifierSettings,
    alarms: Alarms,
    clock: Clock,
}

impl Notifier {
    /// With where the workers take tests.
    pub fn open(settings: NotifierSettings, alarms: Alarms, clock: Clock) -> Notifier {
        Notifier { settings, alarms, clock }
    }

    async fn ring(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let name = &self.settings.notifier;
        let started = self.clock.now();
        let text = String::from_utf8_lossy(&outgoing.body);
        let notification = test_alarm(started.wall, outgoing.token, &text);
        let answer = tokio::time::timeout(outgoing.timeout, self.alarms.ring(name, notification)).await;
        let finished = self.clock.now();
        match answer {
            Ok(Ok(taken)) => {
                let place = if taken.place.is_empty() { String::new() } else { format!(" at {}", taken.place) };
                let ack = format!("{name}: {}{place}", taken.said);
                Ok(Reply { started, finished, ack, message: None, phases: Vec::new() })
            }
            Ok(Err(not_taken)) => Err(refusal(name, not_taken).into_fault(started, finished, Vec::new())),
            Err(_) => {
                let silence =
                    Refusal::silence("telling people of a test", &format!("notifier `{name}`"), outgoing.timeout);
                Err(silence.into_fault(started, finished, Vec::new()))
            }
        }
    }
}

fn refusal(name: &Name, NotTaken { why, detail }: NotTaken) -> Refusal {
    let cause = match why {
        Why::Nobody | Why::Blocked => Cause::Blocked,
        Why::Throttled => Cause::Throttled,
        Why::Refused => Cause::Refused,
        Why::Unreachable | Why::Uncertain => Cause::Unreachable,
    };
    let detail = format!("notifier `{name}` did not tell anybody: {detail}");
    Refusal { is_verdict: why != Why::Uncertain, ..Refusal::new(cause, detail) }
}

impl Channel for Notifier {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.ring(outgoing))
    }

    fn check<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async { Err(cannot(self.clock, "a notifier is only sent to")) })
    }

    fn prove<'a>(&'a self, _: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        let said = format!("it is notifier `{}`, which is proven by itself", self.settings.notifier);
        Box::pin(async { Ok(said) })
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::{Alarm, Taken};
    use crate::journey::token::Token;
    use crate::notice::Mark;

    fn outgoing(token: u128) -> Outgoing {
        Outgoing { token: Token::from_bits(token), ..Outgoing::empty(Duration::from_secs(1)) }
    }

    fn channel(alarms: &Alarms) -> Notifier {
        Notifier::open(NotifierSettings { notifier: "oncall".into() }, alarms.clone(), Clock::system())
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_says_so_and_carries_the_token_in_every_text_and_the_receipt_is_the_notifiers() {
        let alarms = Alarms::default();
        let mut lane = alarms.answer_for(&"oncall".into());
        let (channel, sent) = (channel(&alarms), outgoing(7));
        let worker = async {
            let Alarm { notification, answer } = lane.recv().await.unwrap();
            let token = sent.token.to_string();
            assert_eq!(notification.mark, Some(Mark::Test));
            assert!(notification.headline().starts_with("TEST ") && notification.headline().contains(&token));
            assert!(notification.text().contains(&token) && notification.incident.id.contains(&token));
            assert!(notification.incident.detectors.is_empty(), "nothing fires");
            let taken = Taken { id: "1".into(), place: "C1".into(), said: "posted".into() };
            answer.send(Ok(taken)).unwrap();
        };
        let (reply, ()) = tokio::join!(channel.send(&sent), worker);
        assert_eq!(reply.unwrap().ack, "oncall: posted at C1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_became_of_it_is_the_runs_cause_and_silence_is_uncertain() {
        let alarms = Alarms::default();
        let channel = channel(&alarms);
        let fault = channel.send(&outgoing(1)).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Blocked, false), "{}", fault.detail);
        let mut lane = alarms.answer_for(&"oncall".into());
        for (why, cause, uncertain) in [
            (Why::Blocked, Cause::Blocked, false),
            (Why::Throttled, Cause::Throttled, false),
            (Why::Refused, Cause::Refused, false),
            (Why::Unreachable, Cause::Unreachable, false),
            (Why::Uncertain, Cause::Unreachable, true),
        ] {
            let worker = async {
                let Alarm { answer, .. } = lane.recv().await.unwrap();
                answer.send(Err(NotTaken { why, detail: "because".into() })).unwrap();
            };
            let sent = outgoing(1);
            let (reply, ()) = tokio::join!(channel.send(&sent), worker);
            let fault = reply.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (cause, uncertain));
            assert_eq!(fault.detail, "notifier `oncall` did not tell anybody: because");
        }
        let fault = channel.send(&outgoing(1)).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, true), "{}", fault.detail);
        assert!(lane.recv().await.unwrap().answer.is_closed(), "who waits no longer is told nothing");
    }
}
