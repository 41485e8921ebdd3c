//! Asks the store, journey by journey, how the last runs compare with those of the days before. What follows is the evaluator's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::detect::drift::{AT_MOST, EVERY, Hours, Measured};
use crate::journey::Journey;
use crate::journey::spend::{Spending, Thinning};
use crate::scheduler::Observation;
use crate::store::{Store, StoreError};

/// A journey that may drift.
pub(super) struct Course {
    journey: Arc<Journey>,
    /// How much rarer than by its schedule it runs.
    thinning: Thinning,
}

/// The journeys whose drift somebody wants to hear of.
pub(super) fn courses(journeys: &[Arc<Journey>], spending: &Spending) -> Vec<Course> {
    let wanted =
        journeys.iter().filter(|journey| journey.alert.drift && journey.unavailable.is_none() && journey.is_run());
    let course = |journey: &Arc<Journey>| Course {
        thinning: Thinning::new(spending.slowdown(&journey.name)),
        journey: journey.clone(),
    };
    wanted.map(course).collect()
}

/// Measures one after another, each every [`EVERY`], until `stop`. Never two at a time: a store that is slow is not asked for more.
pub(super) async fn watch(
    mut courses: watch::Receiver<Arc<Vec<Course>>>,
    store: Arc<dyn Store>,
    observations: mpsc::Sender<Observation>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut due = clock.now().mono;
    let mut turn = 0;
    loop {
        let current = courses.borrow_and_update().clone();
        let Some(course) = current.get(turn % current.len().max(1)) else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = courses.changed() => if changed.is_err() {
                    return stop.cancelled().await;
                }
            }
            continue;
        };
        let pace = EVERY / u32::try_from(current.len()).unwrap_or(u32::MAX).max(1);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep_until(due) => {}
        }
        turn = (turn + 1) % current.len();
        let now = clock.now();
        // After a sleep of the machine nothing is made up for.
        due = due.max(now.mono - pace) + pace;
        match course.measure(&*store, now.wall).await {
            Ok(None) => {}
            Ok(Some(measured)) => {
                let journey = course.journey.name.clone();
                // The evaluator outlives this task; if it is gone, so is whoever could be told.
                let _ = observations.send(Observation::Measured { journey, measured }).await;
            }
            // That the store fails is told by those who write.
            Err(error) => tracing::debug!(journey = %course.journey.name, %error, "drift could not be measured"),
        }
    }
}

impl Course {
    async fn measure(&self, store: &dyn Store, now: Timestamp) -> Result<Option<Measured>, StoreError> {
        let interval: Duration = self.thinning.interval(self.journey.schedule.interval(now));
        let hours = Hours::before(now, interval);
        let windows = store.latencies(self.journey.name.clone(), hours.windows(), AT_MOST).await?;
        Ok(hours.measure(&windows))
    }
}
