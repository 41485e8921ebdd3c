//! A daemon that is cut off from the store that it shares: it decides about the journeys that it runs, and tells people, for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::alert::Subject;
use crate::app::lead::{Ground, TAKEOVER};
use crate::app::{DRAIN_NOTICES, DRAIN_PART, OBSERVATIONS, lenders, policy, store_failure};
use crate::board::Board;
use crate::clock::Clock;
use crate::cluster::shard_of;
use crate::config::Plan;
use crate::delivery::{self, Workplace};
use crate::detect::{Detector, Finding};
use crate::evaluator::{self, Evaluator, Handover, Parts};
use crate::exit::Failure;
use crate::journey::Journey;
use crate::journey::spend::Spending;
use crate::metrics::Metrics;
use crate::scheduler::Observation;
use crate::store::postgres::Held;
use crate::store::{Change, Store};

/// What people are told of beside journeys.
const STORE: &str = "store";
/// Last words are looked after so often,
const LOOK: Duration = Duration::from_secs(1);
/// and for so long at most: a notifier that is down for longer is told with the next start.
const LAST_WORDS: Duration = Duration::from_secs(3_600);

/// What it takes.
#[derive(Clone)]
pub(super) struct Kit {
    pub(super) ground: Ground,
    /// The plan that runs.
    pub(super) plans: watch::Receiver<Arc<Plan>>,
    /// Where it is kept what it decides and tells.
    pub(super) store: Arc<dyn Store>,
    /// Whose journeys are ours.
    pub(super) held: Held,
    /// This process, and no other one, for people.
    pub(super) name: String,
}

/// At work.
pub(super) struct Alone {
    observations: mpsc::Sender<Observation>,
    handovers: mpsc::Sender<Handover>,
    store: Arc<dyn Store>,
    clock: Clock,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// Says its last words.
pub(super) struct Leaving {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Kit {
    /// Begins to decide and to tell, from what is kept of before; `why` is what the store says.
    ///
    /// # Errors
    /// What is kept cannot be read, or something cannot be built.
    pub(super) async fn begin(&self, why: &str) -> Result<Alone, Failure> {
        let holds = |name: &str| self.held.has(shard_of(name));
        // What several places see, this one sees alone now.
        let ours = |journey: &Journey| match journey.places() {
            Some(places) => places.parts.iter().any(|(_, part)| holds(part)),
            None => holds(&journey.name),
        };
        self.begin_with(why, &ours).await
    }

    async fn begin_with(&self, why: &str, is_watched: &(dyn Fn(&Journey) -> bool + Sync)) -> Result<Alone, Failure> {
        let Ground { clock, metrics, levers, key, observer, wishes, .. } = &self.ground;
        let (plan, clock) = (self.plans.borrow().clone(), *clock);
        let now = clock.now().wall;
        let journeys: Vec<_> = plan.journeys.iter().filter(|journey| is_watched(journey)).cloned().collect();
        let failed = |error| store_failure(&plan, &error);
        // What people wanted quiet is to stay so.
        let silences = self.ground.board.docket().silences.clone();
        let silences = silences.into_iter().map(|silence| Change::Silence { silence: Box::new(silence) });
        self.store.apply(silences.collect()).await.map_err(failed)?;
        let (observations, observed) = mpsc::channel(OBSERVATIONS);
        // Of its own: whoever decides shows how things are, and counts them.
        let (board, shown) = (Arc::new(Board::default()), Arc::new(Metrics::new(&journeys, plan.location.as_deref())));
        let workplace = Workplace {
            store: self.store.clone(),
            spare: None,
            clock,
            board: board.clone(),
            observations: observations.downgrade(),
            alarms: Alarms::default(),
        };
        let lenders = lenders(&plan, plan.notifiers.keys(), clock, metrics, key, levers)?;
        let (outbox, workers) = delivery::build(lenders, &workplace);
        let since = now.strftime("%Y-%m-%d %H:%M:%S UTC");
        let said = format!(
            "told by {}, which is cut off from the store since {since} ({why}) and tells what it sees by itself; others may tell \
             the same",
            self.name
        );
        let mut policy = policy(&plan, &Spending::new(BTreeMap::new(), &journeys), now);
        if policy.operators.is_empty() {
            // As with a disk that is full: somebody has to hear of it.
            let told: BTreeSet<_> = journeys.iter().flat_map(|journey| journey.notify.iter().cloned()).collect();
            policy.operators.extend(told);
        }
        let parts = Parts {
            store: self.store.clone(),
            daemon: Arc::new(shown.daemon()),
            metrics: shown,
            board: board.clone(),
            outbox,
            clock,
            wishes: wishes.clone(),
            location: plan.location.clone(),
            // Its incidents are on no page.
            public_url: None,
            takeover: TAKEOVER,
            waiting: HashMap::new(),
            own: None,
            observer: observer.clone(),
            levers: levers.clone(),
            policy,
            alone: Some(evaluator::Alone { name: self.name.clone(), said }),
            spare: None,
            spool: None,
        };
        let (handovers, handed) = mpsc::channel(1);
        let evaluator = Evaluator::load(parts, &journeys, Timestamp::default(), mpsc::channel(1).1)
            .await
            .map_err(failed)?
            .with_handovers(handed);
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        tasks.spawn(evaluator.run(observed, board.pulse("evaluator", clock.now().mono)));
        for worker in workers {
            let pulse = board.pulse("delivery", clock.now().mono);
            tasks.spawn(worker.run(pulse, stop.clone(), DRAIN_NOTICES));
        }
        Ok(Alone { observations, handovers, store: self.store.clone(), clock, tasks, stop })
    }

    /// Whether a process before this one has told what it has not taken back, or owes people something.
    pub(super) async fn has_left_overs(&self) -> bool {
        let open = self.store.open_incidents().await.is_ok_and(|open| !open.is_empty());
        let is_owed =
            async { self.store.outbox_summary().await.is_ok_and(|sums| sums.iter().any(|sum| sum.pending > 0)) };
        open || is_owed.await
    }

    /// Says the last words of a process that was cut off and was killed, if there was one.
    pub(super) async fn leave_for_another(&self) -> Option<Leaving> {
        if !self.has_left_overs().await {
            return None;
        }
        // Whoever's its journeys are by now: of one that is not watched nobody would know that it was not well.
        match self.begin_with("the process before it was", &|_| true).await {
            Ok(alone) => {
                let said = "the daemon that told this has ended; whoever decides tells it if it still fails";
                Some(alone.hand_over(said.to_owned()).await)
            }
            Err(error) => {
                tracing::error!(%error, "what a process before this one told while it was cut off cannot be taken back");
                None
            }
        }
    }
}

impl Alone {
    /// People are told that the daemon is cut off; or that it is not any more.
    pub(super) async fn tell_cut(&self, why: Option<String>) {
        let findings = why.into_iter().map(|why| Finding::new(Detector::Storage, why)).collect();
        self.feed(Observation::Condition { subject: Subject::Daemon(STORE.into()), findings }).await;
    }

    /// Something was seen.
    pub(super) async fn feed(&self, observation: Observation) {
        // Slots that others ran, or nobody did, are for whoever decides about all.
        if !matches!(observation, Observation::TakenUp { .. }) {
            let _ = self.observations.send(observation).await;
        }
    }

    /// Another decides from now on: each incident that was told and goes on has a last word.
    pub(super) async fn hand_over(self, said: String) -> Leaving {
        let Alone { observations, handovers, store, clock, mut tasks, stop } = self;
        let (done, handed) = oneshot::channel();
        if handovers.send(Handover { said, done }).await.is_ok() {
            let _ = tokio::time::timeout(DRAIN_PART, handed).await;
        }
        drop(observations);
        let told = stop.clone();
        tasks.spawn(async move {
            let until = clock.now().mono + LAST_WORDS;
            while clock.now().mono < until && !told.is_cancelled() {
                match store.outbox_summary().await {
                    Ok(sums) if sums.iter().all(|sum| sum.pending == 0) => break,
                    _ => {}
                }
                tokio::select! {
                    () = told.cancelled() => {}
                    () = clock.sleep_until(clock.now().mono + LOOK) => {}
                }
            }
            told.cancel();
        });
        Leaving { tasks, stop }
    }
}

impl Leaving {
    /// Until all is told, or for a moment after `stop`.
    pub(super) async fn end(mut self, stop: &CancellationToken) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let late = async {
            stop.cancelled().await;
            self.stop.cancel();
            tokio::time::sleep(DRAIN_NOTICES + DRAIN_PART).await;
        };
        tokio::select! {
            () = all => {}
            () = late => {}
        }
    }

    /// What is still to be told is whoever's who goes on with the same store.
    pub(super) async fn end_now(self) {
        let stop = CancellationToken::new();
        stop.cancel();
        self.end(&stop).await;
    }
}
