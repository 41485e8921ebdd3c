//! The monitor's own journey: every verdict goes on through the outbox, in the transaction that keeps it, to a notifier that tells
//! nobody.

use jiff::Timestamp;

use crate::alert::Subject;
use crate::evaluator::{Evaluator, Round};
use crate::incident::{Incident, NotifyReason, Root};
use crate::journey::own;
use crate::scheduler::Observation;
use crate::store::{Change, OutboxRow, OutboxState};

impl Evaluator {
    /// Takes note of what became of one of the own journey's slots, after it was judged.
    pub(super) fn own_slot(&mut self, observation: &Observation) {
        let (Observation::Finished(_) | Observation::Skipped { .. }) = observation else { return };
        // Whatever it came to: the scheduler and we go on. That our door is shut is no reason to be started anew.
        if let Some(pulse) = &self.parts.own {
            pulse.beat(self.parts.clock.now().mono);
        }
    }

    /// Owes the own journey's last verdict to its notifier.
    pub(super) fn pass_on_own(&self, round: &mut Round, now: Timestamp) {
        let Some(report) = self.journeys.get(own::NAME).and_then(|watched| watched.last.clone()) else { return };
        let incident =
            Incident::new(own::NAME.to_owned(), report.slot, Root::Alone(Subject::Journey(own::NAME.into())));
        let mut notification = self.bare_notification(NotifyReason::Updated, &incident, report.verdict_line(), now);
        notification.report = Some((*report).clone());
        let row = OutboxRow {
            id: own::NAME.to_owned(),
            incident: own::NAME.to_owned(),
            sequence: 1,
            notifier: own::NAME.into(),
            instead_of: None,
            created: now,
            notification,
            state: OutboxState::pending(now),
        };
        round.changes.push(Change::Own { row: Box::new(row) });
        round.is_own = true;
    }
}
