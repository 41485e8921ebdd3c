//! Our own network: what the observer finds, told to the evaluator.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alert::Subject;
use crate::clock::Clock;
use crate::config::Plan;
use crate::detect::{Detector, Finding};
use crate::metrics::{Metrics, ObserverMetrics};
use crate::observer::{self, Observer};
use crate::scheduler::Observation;

/// What `/health` and notices call it.
pub(super) const NETWORK: &str = "network";
/// While we are offline the time is counted this often.
const COUNT: Duration = Duration::from_secs(1);

/// Our own network: says once that it is down, and once that it is there again.
pub(super) struct Network {
    pub(super) observer: Arc<Observer>,
    lookout: observer::Lookout,
    offline: watch::Receiver<bool>,
    metrics: ObserverMetrics,
}

impl Network {
    /// The observer of the plan, if it has one.
    ///
    /// # Errors
    /// In words: why nobody can be asked.
    pub(super) fn open(plan: &Plan, metrics: &Metrics, clock: Clock) -> Result<Option<Network>, String> {
        if plan.watcher.references.is_empty() {
            return Ok(None);
        }
        let (observer, lookout, offline) = observer::open(plan.watcher.references.clone(), clock)?;
        Ok(Some(Network { observer, lookout, offline, metrics: metrics.observer() }))
    }

    /// Works until `stop`, and tells the evaluator what changes.
    pub(super) async fn run(self, told: mpsc::Sender<Observation>, clock: Clock, stop: CancellationToken) {
        let Network { observer, lookout, offline, metrics } = self;
        let telling = tell(&observer, offline, &metrics, told, clock);
        tokio::select! {
            () = lookout.run(stop.clone()) => {}
            () = telling => stop.cancelled().await,
        }
    }
}

async fn tell(
    observer: &Observer,
    mut offline: watch::Receiver<bool>,
    metrics: &ObserverMetrics,
    told: mpsc::Sender<Observation>,
    clock: Clock,
) {
    // The daemon before may have told that it is down: it is, or that is over.
    observer.is_offline().await;
    loop {
        let is_offline = *offline.borrow_and_update();
        metrics.offline.set(f64::from(u8::from(is_offline)));
        let said = format!("our own network is down: {}; runs that fail by it are unknown", observer.said());
        let findings = is_offline.then(|| Finding::new(Detector::Blind, said)).into_iter().collect();
        let condition = Observation::Condition { subject: Subject::Daemon(NETWORK.into()), findings };
        if told.send(condition).await.is_err() {
            return;
        }
        loop {
            let began = clock.now().mono;
            let changed = tokio::select! {
                changed = offline.changed() => Some(changed),
                () = clock.sleep_until(began + COUNT), if is_offline => None,
            };
            if is_offline {
                metrics.seconds.increment(clock.now().mono.since(began).as_secs());
            }
            match changed {
                None => {}
                Some(Ok(())) => break,
                Some(Err(_)) => return,
            }
        }
    }
}
