//! A worker's breaker: open, nothing is sent and the fallback tells people; what is owed stays owed.

use std::time::Duration;

use jiff::Timestamp;

use crate::board::{BEAT, BreakerStatus};
use crate::breaker::{Breaker, Guarded, Need, OK, Sample, State, Ticket, Verdict};
use crate::delivery::{ATTEMPT, Worker};
use crate::journey::Name;
use crate::notifier::{NotifyError, Receipt};
use crate::store::Change;
use crate::time::{Mono, Now, between};

/// Beyond the time that an attempt may take, so long for us to hear of it.
const GRACE: Duration = Duration::from_secs(5);
/// A notifier whose breaker has been open for so long is given up for now: the fallback tells, whatever the configuration grants it.
const GIVEN_UP: Duration = Duration::from_secs(30);
/// There is one caller, and he is known.
const WORKER: u64 = 0;

/// The name under which the store keeps until when a notifier's breaker is open. No notifier can have it: names have no spaces.
fn key(notifier: &Name) -> Name {
    format!("breaker {notifier}").into()
}

/// Whoever forces it open does not want to wait; by itself it may be over in a moment.
fn is_given_up(breaker: &Breaker, now: Mono) -> bool {
    let has_lasted = || breaker.left_closed().is_some_and(|left| now.since(left) >= GIVEN_UP);
    breaker.state() == State::ForcedOpen || breaker.state().refuses() && has_lasted()
}

impl Worker {
    /// Is open until when it was to be before a restart, and heeds what people wanted then.
    pub(super) async fn resume_breaker(&mut self) {
        let now = self.clock.now();
        let until = self.store.hold(key(&self.name)).await.unwrap_or_default();
        if let Some(until) = until.filter(|until| *until > now.wall) {
            self.breaker.resume_open(now.mono + between(now.wall, until), now.mono);
        }
        self.lever.mark_changed();
        self.heed_breaker(now.wall);
        self.show_breaker(now);
    }

    /// Heeds what people want of the breaker. While it lets nothing through: how long there is nothing to send.
    pub(super) fn heed_breaker(&mut self, now: Timestamp) -> Option<Duration> {
        let now = Now { wall: now, ..self.clock.now() };
        let before = self.breaker.changes();
        if self.lever.has_changed().unwrap_or(false) {
            let order = self.lever.borrow_and_update().clone().filter(|order| order.until > now.wall);
            let until = order.as_ref().map_or(now.mono, |order| now.mono + between(now.wall, order.until));
            self.breaker.obey(order, until, now.mono);
        }
        self.breaker.pass_time(now.mono, fastrand::f64());
        if self.breaker.changes() != before {
            self.show_breaker(now);
        }
        if !self.is_open() {
            return None;
        }
        let until = self.breaker.open_until().filter(|until| *until > now.mono)?;
        Some(until.since(now.mono).min(BEAT))
    }

    /// Whether notices are not sent, or only to see.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.state().refuses()
    }

    /// Whether the fallback is not to wait any longer.
    pub(super) fn is_given_up(&self) -> bool {
        is_given_up(&self.breaker, self.clock.now().mono)
    }

    /// Leave for an attempt. Nobody else asks for one, and that there is one was seen before the row was chosen.
    pub(super) fn take_ticket(&mut self) -> Option<Ticket> {
        let now = self.clock.now();
        let before = self.breaker.changes();
        let ticket = self.breaker.admit(Need::Usual, WORKER, ATTEMPT + GRACE, now.mono, fastrand::f64());
        if self.breaker.changes() != before {
            self.show_breaker(now);
        }
        ticket.ok()
    }

    /// Takes what became of an attempt; gives what is to be remembered, if the breaker opened.
    pub(super) fn note_attempt(
        &mut self,
        ticket: Option<Ticket>,
        result: &Result<Receipt, NotifyError>,
        delivery: &str,
        now: Now,
    ) -> Option<Change> {
        let failed = Verdict::Failed { after: None };
        let (verdict, cause) = match result {
            Ok(_) => (Verdict::Worked, OK),
            // It was there, and said no: the next notice may well be taken.
            Err(NotifyError::Never(_)) => (Verdict::Ignored, "refused"),
            // It wants fewer, for a time: that is a hold.
            Err(NotifyError::After { .. }) => (Verdict::Ignored, "throttled"),
            Err(NotifyError::Backoff(_)) => (failed, "failed"),
            Err(NotifyError::Ambiguous(_)) => (failed, "uncertain"),
        };
        let before = self.breaker.changes();
        self.breaker.end(ticket?, verdict, Sample { at: now.mono, cause, tag: delivery.into() }, fastrand::f64());
        if self.breaker.changes() == before {
            return None;
        }
        self.show_breaker(now);
        let until = self.breaker.open_until().filter(|until| *until > now.mono)?;
        Some(Change::Hold { notifier: key(&self.name), until: now.wall_at(until) })
    }

    fn show_breaker(&self, now: Now) {
        if let Some(transition) = self.breaker.transitions().next_back() {
            let (from, to, why) = (transition.from.as_str(), transition.to.as_str(), &transition.why);
            tracing::info!(notifier = %self.name, from, to, why, "a breaker changed");
        }
        self.breaker_metrics.set(&self.breaker);
        let status = BreakerStatus::of(&self.breaker, "", now);
        self.board.set_breaker(&Guarded::Notifier(self.name.clone()), status, now.wall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{Force, Order, Settings};

    #[test]
    fn it_is_given_up_when_it_has_been_open_for_half_a_minute_or_somebody_wants_it() {
        let at = |second| Mono(Duration::from_secs(second));
        let mut breaker = Breaker::new(Settings::NOTIFIER);
        assert!(!is_given_up(&breaker, at(1_000)));
        for second in [1_000, 1_001, 1_003] {
            let ticket = breaker.admit(Need::Usual, WORKER, ATTEMPT, at(second), 0.5).unwrap();
            let sample = Sample { at: at(second), cause: "failed", tag: "i1.1.slack".into() };
            breaker.end(ticket, Verdict::Failed { after: None }, sample, 0.5);
        }
        assert!(breaker.state().refuses() && !is_given_up(&breaker, at(1_032)));
        assert!(is_given_up(&breaker, at(1_033)), "also while somebody sees whether it works");
        let until = Timestamp::UNIX_EPOCH;
        let order = |to| Some(Order { to, by: "ada".into(), reason: "why".into(), until });
        breaker.obey(order(Force::Closed), at(2_000), at(1_040));
        assert!(!is_given_up(&breaker, at(1_040)));
        breaker.obey(order(Force::Open), at(2_000), at(1_041));
        assert!(is_given_up(&breaker, at(1_041)));
    }
}
