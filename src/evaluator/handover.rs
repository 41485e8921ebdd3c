//! Leaving what was told to another daemon: one last word about each incident that no other will ever speak of.

use tokio::sync::oneshot;

use crate::alert::Subject;
use crate::evaluator::notices::{self, Links};
use crate::evaluator::{Evaluator, Round};
use crate::incident::{Incident, NotifyReason};
use crate::journey::report::Report;
use crate::store::Change;

/// Another decides from now on.
pub struct Handover {
    /// Who does and why, for people.
    pub said: String,
    /// That people are owed it; with the runs that were decided on here, and are in no store. They are in the spool,
    /// if there is one.
    pub done: oneshot::Sender<Vec<Report>>,
}

impl Evaluator {
    /// Writes a last word about each incident that was told and is in no store but the one at hand. What is told by it is no end:
    /// whether it is over, nobody here knows any more.
    pub(super) async fn hand_over(&mut self, Handover { said, done }: Handover) {
        let now = self.parts.clock.now().wall;
        self.spool().await;
        let runs = self.unwritten.drain(..).filter_map(|change| match change {
            Change::Run { report, .. } => Some(*report),
            _ => None,
        });
        let runs: Vec<_> = runs.collect();
        if let (None, Some(spare)) = (&self.parts.alone, &self.parts.spare) {
            // What is in the store is another's by now.
            self.parts.store = spare.clone();
            self.parts.outbox.concede();
        }
        let is_ours = |incident: &&Incident| self.parts.alone.is_some() || self.told_alone.contains(&incident.id);
        let open: Vec<_> = self.desk.open().filter(is_ours).cloned().collect();
        let (mut round, mut links) = (Round::default(), Links::new());
        for mut incident in open {
            let Some(lead) = self.desk.lead(&incident.id).cloned() else { continue };
            incident.sequence += 1;
            for notifier in incident.told.keys().cloned() {
                let mut notification = self.notification(NotifyReason::Resolved, &incident, &lead, now);
                (notification.decision, notification.handed_over) = (said.clone(), Some(said.clone()));
                round.owed.push(notices::owed(&incident, notifier, &notification, now));
            }
            tracing::info!(incident = incident.id, subject = incident.title(), said, "an incident is another's now");
            self.record(incident, &lead, Some(now), &mut links, &mut round);
        }
        round.owed.extend(self.end_store_story(Some(&said), now));
        if self.parts.alone.is_some() {
            // Whoever is on its own again begins anew.
            round.changes.extend(self.forgotten());
        }
        let changes = round.take_changes();
        if let Err(error) = self.parts.store.apply(changes).await {
            tracing::error!(%error, "last words could not be stored; people are told directly");
            round.owed.into_iter().for_each(|row| self.parts.outbox.tell_without_store(row));
        }
        self.parts.outbox.wake();
        // Whoever asked may be gone.
        let _ = done.send(runs);
    }

    /// That no alert fires.
    fn forgotten(&self) -> impl Iterator<Item = Change> {
        let alert = |journey: &crate::journey::Name| Change::Alert { journey: journey.clone(), state: Box::default() };
        let condition = |subject: &Subject| Change::Condition { subject: subject.clone(), state: Box::default() };
        self.journeys.keys().map(alert).chain(self.conditions.keys().map(condition))
    }
}
