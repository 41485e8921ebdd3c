//! Test alarms, between two notices: by the same notifier, at the same pace, and only if a notice would be sent now.

use crate::alarm::{Alarm, NotTaken, Taken, Why};
use crate::board::Pulse;
use crate::delivery::proof::Proof;
use crate::delivery::{PACE, Worker};
use crate::notice::delivery_id;
use crate::notifier::{Delivery, NotifyError, Receipt};
use crate::store::Change;
use crate::time::{Human, between, later};

impl Worker {
    /// Makes the one attempt that a test has. What it shows of the notifier is taken as of a notice; it is counted as none.
    pub(super) async fn ring(&mut self, alarm: Alarm, pulse: &Pulse) {
        let Alarm { notification, answer } = alarm;
        if answer.is_closed() {
            // It waited behind a notice, and whoever asked has a verdict by now.
            return;
        }
        if let Some(refusal) = self.cannot_ring() {
            // Whoever asked may be gone.
            let _ = answer.send(Err(refusal));
            return;
        }
        self.clock.sleep_until(self.next_turn).await;
        let ticket = self.take_ticket();
        let id = delivery_id(&notification.incident.id, notification.incident.sequence, &self.name);
        let delivery = Delivery { id, attempt: 1, is_ambiguous: false, notification, root: None, instead_of: None };
        let result = self.bounded(pulse, self.notifier.notify(&delivery)).await;
        let now = self.clock.now();
        self.next_turn = now.mono + PACE;
        let mut changes: Vec<_> = self.note_attempt(ticket, &result, &delivery.id, now).into_iter().collect();
        match &result {
            Ok(_) => {
                self.works(now.wall).await;
                self.proof = Proof::default();
            }
            Err(error) => {
                tracing::error!(notifier = %self.name, %error, delivery = delivery.id, "a test alarm was not taken");
                self.is_in_trouble(error, matches!(error, NotifyError::Never(_)), now.wall);
                if let NotifyError::After { wait, .. } = error {
                    let until = later(now.wall, *wait);
                    self.hold = Some(until);
                    changes.push(Change::Hold { notifier: self.name.clone(), until });
                }
            }
        }
        if !changes.is_empty() {
            self.record(changes).await;
        }
        let _ = answer.send(self::answer(result));
    }

    /// Why a notice would wait now, if it would.
    fn cannot_ring(&mut self) -> Option<NotTaken> {
        let now = self.clock.now().wall;
        if let Some(wait) = self.heed_breaker(now) {
            let detail = format!("its breaker is open for {} more, and notices wait", Human(wait));
            return Some(NotTaken { why: Why::Blocked, detail });
        }
        let until = self.hold.filter(|until| *until > now)?;
        let detail = format!("it asked to be left alone for {} more, and notices wait", Human(between(now, until)));
        Some(NotTaken { why: Why::Throttled, detail })
    }
}

/// What became of a test, for whoever sent it.
///
/// # Errors
/// It was not taken, or perhaps not.
pub fn answer(told: Result<Receipt, NotifyError>) -> Result<Taken, NotTaken> {
    let Receipt { id, place, said, .. } = match told {
        Ok(receipt) => receipt,
        Err(error) => return Err(NotTaken { why: why(&error), detail: error.to_string() }),
    };
    Ok(Taken { id, place, said })
}

fn why(error: &NotifyError) -> Why {
    match error {
        NotifyError::Never(_) => Why::Refused,
        NotifyError::Backoff(_) => Why::Unreachable,
        NotifyError::After { .. } => Why::Throttled,
        NotifyError::Ambiguous(_) => Why::Uncertain,
    }
}
