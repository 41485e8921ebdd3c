//! Journeys that come, change and go while the evaluator works. All that can fail is done first; then all of it is taken up at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::alert::{AlertState, Subject};
use crate::evaluator::watched::Watched;
use crate::evaluator::{Evaluator, Policy, Round, saved_of};
use crate::journey::{Journey, Name};
use crate::judge;
use crate::store::{Change, SavedJourney, StoreError};

/// The journeys from now on.
pub struct Adoption {
    /// All of them.
    pub journeys: Vec<Arc<Journey>>,
    /// Those that are new or not as they were.
    pub changed: BTreeSet<Name>,
    /// What else the plan says.
    pub policy: Policy,
    /// Slots of new journeys are counted up to here.
    pub counted: Timestamp,
    /// That it is done; or why nothing was.
    pub done: oneshot::Sender<Result<(), StoreError>>,
}

impl Evaluator {
    pub(super) async fn adopt(&mut self, adoption: Adoption) {
        let Adoption { journeys, changed, policy, counted, done } = adoption;
        let result = match self.saved(&changed).await {
            Ok(saved) => {
                self.take_up(&journeys, saved, policy, counted).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        // Whoever asked may be gone.
        let _ = done.send(result);
    }

    /// The saved state of those that are not as they were.
    async fn saved(&self, changed: &BTreeSet<Name>) -> Result<HashMap<Name, SavedJourney>, StoreError> {
        // What is on disk would not be what was decided.
        if !self.unwritten.is_empty() {
            return Err(StoreError::Unwritable("what was decided before still waits to be written".to_owned()));
        }
        let saved = saved_of(&*self.parts.store, changed.iter().cloned().collect());
        stream::iter(changed.iter().cloned()).zip(saved).map(|(name, saved)| Ok((name, saved?))).try_collect().await
    }

    async fn take_up(
        &mut self,
        journeys: &[Arc<Journey>],
        mut saved: HashMap<Name, SavedJourney>,
        policy: Policy,
        counted: Timestamp,
    ) {
        let now = self.parts.clock.now();
        let mut round = Round::default();
        self.desk.reroute(policy.routes.clone(), policy.updatable.clone(), policy.digest_after);
        self.parts.policy = policy;
        let there: BTreeSet<_> = journeys.iter().map(|journey| &journey.name).collect();
        let gone: BTreeSet<_> = self.journeys.keys().filter(|name| !there.contains(name)).cloned().collect();
        for name in gone {
            self.let_go(&name, &mut round);
        }
        for journey in journeys {
            if let Some(saved) = saved.remove(&journey.name) {
                self.enrol(journey, saved, counted, &mut round);
            }
        }
        self.learn_dependants();
        self.learn_places();
        let Policy { certificate_warnings, breakers, .. } = &self.parts.policy;
        self.desk.block_only(breakers);
        for name in self.channels.adopt(journeys, certificate_warnings, breakers) {
            // Nobody will ever say that a channel is well which nobody uses any more.
            self.condition(Subject::Channel(name), Vec::new(), &mut round, now.wall);
        }
        for name in self.channels.names() {
            self.look_at_channel(name, &mut round, now.wall);
        }
        // Who is told of them may be others.
        let profile =
            |(subject, alert): (&Subject, &AlertState)| (self.profile_of(subject, alert.severity()), alert.clone());
        let profiles: Vec<_> = self.conditions.iter().map(profile).collect();
        profiles.into_iter().for_each(|(profile, alert)| self.desk.enrol(profile, alert));
        round.shows_all(&self.desk);
        self.finish(round, now).await;
    }

    /// Watches a journey from its saved state on. Gives the time that nothing ran before `counted`.
    pub(super) fn enrol(
        &mut self,
        journey: &Arc<Journey>,
        saved: SavedJourney,
        counted: Timestamp,
        round: &mut Round,
    ) -> Duration {
        let now = self.parts.clock.now().wall;
        let mut watched = Watched::new(journey.clone(), saved, &self.parts, now);
        let mut blind = Duration::ZERO;
        match self.journeys.remove(&journey.name) {
            // It was there all the time: its runs are on their way.
            Some(before) => watched.remember(*before),
            None => blind = watched.count_missed(round, counted),
        }
        watched.refresh(now);
        let [health, budget] = judge::profiles(journey, self.parts.location.as_deref(), &self.parts.policy.group_by);
        // Of what one place sees nobody is told by itself.
        if !journey.is_part() {
            self.desk.enrol(health, watched.alerts.health.clone());
            self.desk.enrol(budget, watched.alerts.budget.clone());
        }
        self.journeys.insert(journey.name.clone(), Box::new(watched));
        round.touched.insert(journey.name.clone());
        blind
    }

    /// Watches a journey no more. Its history stays; its alerts are over, so that they begin anew if it ever comes back.
    fn let_go(&mut self, name: &Name, round: &mut Round) {
        if self.journeys.remove(name).is_none() {
            return;
        }
        if let Some(at) = self.deadline_of.remove(name) {
            self.deadlines.remove(&(at, name.clone()));
        }
        for subject in [Subject::Journey(name.clone()), Subject::Budget(name.clone())] {
            self.desk.withdraw(&subject);
        }
        round.changes.push(Change::Alert { journey: name.clone(), state: Box::default() });
        self.parts.board.remove_journey(name);
        self.parts.metrics.hide_journey(name);
    }

    /// Who depends on whom.
    pub(super) fn learn_dependants(&mut self) {
        self.dependants.clear();
        for watched in self.journeys.values() {
            for name in &watched.journey.depends_on {
                self.dependants.entry(name.clone()).or_default().push(watched.journey.name.clone());
            }
        }
    }
}
