//! One process: it is started, takes up changed configurations, and is stopped, as the daemon does all that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use journeyman::board::Board;
use journeyman::breaker::Guarded;
use journeyman::channel::{ChannelPolicy, Journal, Readiness};
use journeyman::clock::Clock;
use journeyman::commands::Levers;
use journeyman::config::{ChannelPlan, Difference, Plan};
use journeyman::delivery::{self, Lender, Workplace};
use journeyman::evaluator::{Adoption, Evaluator, Parts, Policy};
use journeyman::journey::Name;
use journeyman::journey::spend::Spending;
use journeyman::journey::token::Mint;
use journeyman::ledger::{Kind, Settled};
use journeyman::metrics::Metrics;
use journeyman::runner::open::OpenChannel;
use journeyman::runner::switchboard::{Reading, Switchboard};
use journeyman::runner::{Runner, resume};
use journeyman::scheduler::{Observation, Replan, Scheduler};
use journeyman::store::{Change, Retention, Store, StoreError};
use journeyman::time::earlier;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::net::{Line, System};
use super::people::Door;
use super::world::{Point, World};

const DRAIN: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// How often metrics are summed up, the ledger forgets, and the store.
const CHORES: [u64; 3] = [5, 60, 3_600];

/// A process that runs.
pub(super) struct Process {
    world: Arc<World>,
    clock: Clock,
    store: Arc<dyn Store>,
    adoptions: mpsc::Sender<Adoption>,
    replans: mpsc::Sender<Replan>,
    _ticking: mpsc::Sender<()>,
    /// What stops its parts, in their order.
    scheduler: CancellationToken,
    readers: CancellationToken,
    workers: CancellationToken,
}

/// Starts a process as the daemon does.
#[expect(clippy::disallowed_methods, reason = "its tasks end with the runtime of its life")]
pub(super) async fn start(
    plan: &Plan,
    world: &Arc<World>,
    systems: &BTreeMap<&'static str, Arc<System>>,
    store: Arc<Disk>,
    born: u32,
) -> Result<Process, StoreError> {
    world.reach(Point::Starting).await;
    let clock = Clock::derived(world.now());
    let (board, metrics) = (Arc::new(Board::default()), Arc::new(Metrics::new(&plan.journeys, None)));
    let daemon = Arc::new(metrics.daemon());
    let key = store.key().await?;
    let mint = Arc::new(Mint::new(key, born << 16));
    let [stop, stop_readers, stop_workers] = [(); 3].map(|()| CancellationToken::new());
    let (arriving, mut arrivals) = mpsc::channel(256);
    let (observations, observed) = mpsc::channel(4_096);
    let mut channels = BTreeMap::new();
    let mut readings = HashMap::new();
    let mut lines = Vec::new();
    for (name, system) in systems {
        let (readiness, seen) = watch::channel(Readiness::Starting);
        let line = Arc::new(Line::new(system, clock));
        let policy = ChannelPolicy::default();
        let handles = metrics.channel(&(*name).into(), true);
        let open = OpenChannel::new((*name).into(), line.clone(), policy.clone(), seen, clock, board.clone(), handles);
        let nudge = open.nudge().clone();
        channels.insert((*name).into(), Arc::new(open));
        readings.insert((*name).into(), Reading { policy });
        lines.push(line.clone());
        let listener = journeyman::channel::Listener {
            channel: (*name).into(),
            clock,
            arrivals: arriving.clone(),
            journal: Journal::default(),
            since: None,
            readiness,
            mint: mint.clone(),
            nudge,
            awaited: Default::default(),
            stop: stop_readers.clone(),
        };
        tokio::spawn(async move { journeyman::channel::Channel::listen(&*line, listener).await });
    }
    // As the daemon does: what waits goes on, what nobody can go on with is settled, what was acknowledged is seen again.
    let (found, arrived, ledger) = (store.unfinished().await?, store.arrivals().await?, store.ledger().await?);
    let seen = ledger.iter().map(|(_, entry)| entry.recorded).chain(arrived.iter().map(|arrival| arrival.at.wall));
    let resume::Heritage { left, gone } = resume::sort(found, &plan.journeys, seen);
    if !gone.is_empty() {
        store.apply(gone.into_iter().map(|token| Change::Settle { token, how: Settled::Missing }).collect()).await?;
    }
    let going: BTreeSet<_> = left.iter().map(|left| left.checkpoint.token).collect();
    let known = ledger.into_iter().map(move |(token, mut entry)| {
        if !going.contains(&token) {
            entry.settled = entry.settled.or(Some(Settled::Missing));
        }
        (token, entry)
    });
    let switchboard = Arc::new(Switchboard::new(mint.clone(), readings, known));
    left.iter().for_each(|left| switchboard.take_up(left));
    tokio::spawn(keep_house(metrics.clone(), switchboard.clone(), store.clone(), clock));
    let mut before = Vec::new();
    for arrival in arrived {
        match switchboard.missed_by(&arrival) {
            Some((_, true)) => drop(switchboard.arrive(arrival)),
            _ => before.push(arrival),
        }
    }
    let store: Arc<dyn Store> = store;
    for line in lines {
        line.keep_in(switchboard.clone(), store.clone());
    }
    let runner = Arc::new(Runner {
        channels: channels.into(),
        switchboard: switchboard.clone(),
        store: store.clone(),
        clock,
        mint,
        redactor: plan.redactor.clone(),
        observer: None,
        sieve: None,
        spare: None,
    });
    let late = observations.clone();
    tokio::spawn(async move {
        let mut before = before.into_iter();
        while let Some(arrival) = match before.next() {
            Some(arrival) => Some(arrival),
            None => arrivals.recv().await,
        } {
            let at = arrival.at.wall;
            let sighting = switchboard.arrive(arrival);
            if let (Kind::Late, Some(journey), Some(slot), Some(token)) =
                (sighting.kind, sighting.journey, sighting.slot, sighting.token)
            {
                let _ = late.send(Observation::Late { journey, slot, token, at }).await;
            }
        }
    });
    let workplace = Workplace {
        spare: None,
        store: store.clone(),
        clock,
        board: board.clone(),
        observations: observations.downgrade(),
        alarms: Default::default(),
    };
    let levers = Arc::<Levers>::default();
    let lender = |(name, remembers): (&'static str, bool)| Lender {
        name: name.into(),
        notifier: Arc::new(Door { name, remembers, world: world.clone() }),
        fallback: (name == "chat").then(|| ("mail".into(), Duration::from_secs(120))),
        metrics: metrics.notifier(&name.into()),
        lever: levers.of(&Guarded::Notifier(name.into())),
        breaker: metrics.breaker(&Guarded::Notifier(name.into())),
    };
    let (outbox, workers) = delivery::build([("chat", true), ("mail", false)].map(lender).into(), &workplace);
    let (wishes, _) = mpsc::channel(1);
    let parts = Parts {
        alone: None,
        spare: None,
        spool: None,
        store: store.clone(),
        metrics,
        daemon: daemon.clone(),
        board: board.clone(),
        outbox,
        clock,
        wishes,
        location: None,
        public_url: None,
        takeover: Duration::ZERO,
        waiting: resume::waiting_slots(&left),
        own: None,
        observer: None,
        levers,
        policy: policy(plan),
    };
    let counted = clock.now().wall;
    let (_, commanded) = journeyman::commands::channel();
    let ((adoptions, adopted), (replans, replanned)) = (mpsc::channel(1), mpsc::channel(1));
    let evaluator = Evaluator::load(parts, &plan.journeys, counted, commanded).await?.with_adoptions(adopted);
    let takes_over = !left.is_empty();
    if takes_over {
        world.reach(Point::TakingOver).await;
    }
    let scheduler =
        Scheduler::new(&plan.journeys, counted, runner, world.profile.max_runs, observations, daemon, clock)
            .with_left(left)
            .with_spending(spending(plan, &*store).await?, BTreeMap::new())
            .with_replans(replanned);
    let pulse = |name| board.pulse(name, clock.now().mono);
    tokio::spawn(evaluator.run(observed, pulse("evaluator")));
    for worker in workers {
        tokio::spawn(worker.run(pulse("delivery"), stop_workers.clone(), Duration::from_secs(5)));
    }
    let (ticking, ticks) = mpsc::channel(1);
    tokio::spawn(scheduler.run(ticks, pulse("scheduler"), stop.clone(), DRAIN));
    if takes_over {
        let world = world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            world.reach(Point::TakingOver).await;
        });
    }
    Ok(Process {
        world: world.clone(),
        clock,
        store,
        adoptions,
        replans,
        _ticking: ticking,
        scheduler: stop,
        readers: stop_readers,
        workers: stop_workers,
    })
}

/// What the calendar asks for in the daemon.
async fn keep_house(metrics: Arc<Metrics>, switchboard: Arc<Switchboard>, store: Arc<Disk>, clock: Clock) {
    let [upkeep, expiry, retention] = CHORES;
    for second in (upkeep..).step_by(upkeep as usize) {
        tokio::time::sleep(Duration::from_secs(upkeep)).await;
        metrics.upkeep(clock.now().mono);
        if second.is_multiple_of(expiry) {
            switchboard.expire(clock.now());
        }
        if second.is_multiple_of(retention) {
            let now = clock.now().wall;
            let [runs_before, good_evidence_before] = [earlier(now, MONTH), earlier(now, DAY)];
            let _ = store.forget(Retention { runs_before, good_evidence_before, ledger_before: now }).await;
        }
    }
}

async fn spending(plan: &Plan, store: &dyn Store) -> Result<Spending, StoreError> {
    let limit = |(name, channel): (&Name, &ChannelPlan)| Some((name.clone(), channel.policy.spend.clone()?));
    let mut spending = Spending::new(plan.channels.iter().filter_map(limit), &plan.journeys);
    spending.restore(store.spent().await?);
    Ok(spending)
}

fn policy(plan: &Plan) -> Policy {
    Policy {
        dependencies: BTreeMap::new(),
        slowdowns: HashMap::new(),
        certificate_warnings: BTreeMap::new(),
        breakers: BTreeSet::new(),
        routes: plan.routes.clone(),
        updatable: BTreeSet::from(["chat".into()]),
        operators: plan.operators.clone(),
        notifiers: plan.notifiers.keys().cloned().collect(),
        group_by: plan.group_by.clone(),
        digest_after: plan.digest_after,
    }
}

impl Process {
    /// Takes up another plan as the daemon does: the evaluator first, which may say no, and then the scheduler. Whether it did.
    pub(super) async fn swap(&self, before: &Plan, plan: &Plan) -> bool {
        let Ok(difference) = Difference::between(before, plan) else { panic!("it takes no restart") };
        if difference.is_empty() {
            return true;
        }
        let Ok(spending) = spending(plan, &*self.store).await else { return false };
        let counted = self.clock.now().wall;
        let (done, adopted) = oneshot::channel();
        let adoption = Adoption {
            journeys: plan.journeys.clone(),
            changed: difference.journeys.built().cloned().collect(),
            policy: policy(plan),
            counted,
            done,
        };
        if self.adoptions.send(adoption).await.is_err() || !matches!(adopted.await, Ok(Ok(()))) {
            return false;
        }
        self.world.reach(Point::Swapping).await;
        let (done, replanned) = oneshot::channel();
        let (journeys, spend_metrics) = (plan.journeys.clone(), BTreeMap::new());
        let replan = Replan { journeys, counted, spending, spend_metrics, done };
        self.replans.send(replan).await.is_ok() && replanned.await.is_ok()
    }

    /// Stops it in order.
    pub(super) async fn stop(self) {
        self.scheduler.cancel();
        tokio::time::sleep(DRAIN + Duration::from_secs(1)).await;
        self.readers.cancel();
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.workers.cancel();
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
}
