//! The composition root: builds every part, spawns every task, waits, and drains in order.

mod alarms;
#[cfg(feature = "postgres")]
mod alone;
mod bench;
mod breakers;
mod channels;
pub mod cluster;
pub mod connect;
#[cfg(feature = "postgres")]
mod cut;
mod dead_man;
pub mod demo;
mod drift;
mod drills;
#[cfg(feature = "postgres")]
mod errands;
pub mod experiment;
pub mod explain;
mod gates;
mod heritage;
mod journal;
mod lead;
#[cfg(feature = "postgres")]
mod member;
mod network;
pub mod notify;
pub mod once;
#[cfg(feature = "postgres")]
mod outset;
mod own;
mod place;
mod preflight;
pub mod preview;
#[cfg(feature = "postgres")]
mod relay;
mod reload;
pub mod replay;
pub mod runs;
mod seat;
#[cfg(feature = "postgres")]
mod shards;
#[cfg(feature = "postgres")]
mod shelter;
pub mod slo;
mod staff;
mod tasks;
mod watcher;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::app::channels::{Inlets, Opened, Opener, readings};
use crate::app::heritage::Heritage;
use crate::app::lead::{Counted, Ground, Ready, Shown};
#[cfg(feature = "postgres")]
use crate::app::member::{Member, Parts};
use crate::app::network::Network;
use crate::app::place::{Place, Whole};
use crate::app::reload::Live;
use crate::app::seat::{LEASE, Seat};
use crate::app::tasks::Tasks;
use crate::board::{Board, Pulse};
use crate::boots::Boot;
use crate::breaker::Guarded;
use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::cluster::SHARDS;
use crate::commands::{Callbacks, Commands, Levers};
use crate::config::{ChannelPlan, NotifierPlan, Plan};
use crate::delivery::Lender;
use crate::evaluator::Policy;
use crate::exit::{self, Failure};
use crate::gate::Door;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::spend::{Spending, Spent};
use crate::journey::token::Mint;
use crate::metrics::{DaemonMetrics, Metrics, SpendMetrics, seconds};
use crate::notifier::slack::{Buttons, SlackSettings};
use crate::notifier::{self, Notifier};
use crate::observer::Observer;
use crate::runner::Runner;
use crate::runner::resume::{self, Left};
use crate::runner::spare::Spare;
use crate::runner::switchboard::Switchboard;
use crate::scheduler::{Observation, Scheduler, Shift, Wish};
use crate::secret::Redactor;
use crate::store::reading::Home;
use crate::store::sqlite::{REST, Sqlite};
use crate::store::{Change, Store, StoreError};

pub use crate::app::reload::Source;

/// Observations that wait for the evaluator at most; a run beyond that waits to report.
const OBSERVATIONS: usize = 4_096;
/// Runs that people asked for and that the scheduler has not heard of at most.
const WISHES: usize = 64;
/// How long runs under way may take to end when we stop. The whole drain stays below 20 s, which supervisors allow.
const DRAIN_RUNS: Duration = Duration::from_secs(10);
/// How long notices that are due may take to be sent when we stop. What is left is kept.
const DRAIN_NOTICES: Duration = Duration::from_secs(5);
/// How long any other part may take to end.
const DRAIN_PART: Duration = Duration::from_secs(2);
/// All of it. The supervisor is asked for so long: its own limit may be shorter.
const DRAIN: Duration = Duration::from_secs(25);
/// To prove what is required, and to migrate a store.
const PREFLIGHT: Duration = Duration::from_secs(120);

/// A started daemon, as whoever started it sees it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Metrics, health, pages and API.
    pub http: SocketAddr,
    /// Inbound webhooks.
    pub hooks: Option<SocketAddr>,
    /// What the pages show.
    pub board: Arc<Board>,
}

/// Runs the plan until `stop`, then drains. `started` is called once everything works. The configuration is read again from `source`,
/// if it is in files.
///
/// # Errors
/// A part that cannot be built, or one that ended and must not; with the exit code for it.
pub async fn run(
    mut plan: Plan,
    source: Option<Source>,
    clock: Clock,
    stop: CancellationToken,
    started: impl FnOnce(Started),
) -> Result<(), Failure> {
    tasks::tell_supervisor(&[tasks::more_time(PREFLIGHT)]);
    let missing = preflight::prove(&plan, clock).await?;
    let Seat { store, listener, door, shared, known } = Box::pin(seat::take(&plan, clock)).await?;
    let board = Arc::new(Board::default());
    let mut tasks = Tasks::default();
    let running = watch::channel(plan.parts.clone()).0;
    let hooks = channels::bind_hooks(&plan, clock).await?;
    let key: Arc<[u8]> = known.key.as_slice().into();
    let journeys = plan.journeys.len();
    let hooks_address = hooks.address();
    own::join(&mut plan, &key, hooks_address);
    let metrics = Arc::new(Metrics::new(&plan.journeys, plan.location.as_deref()));
    let daemon = Arc::new(metrics.daemon());
    daemon.started.set(seconds(clock.now().wall));
    let (stop_scheduler, stop_readers) = (CancellationToken::new(), CancellationToken::new());
    let (stop_workers, stop_http) = (CancellationToken::new(), CancellationToken::new());
    let mint = open_mint(known.key)?;
    let levers = Arc::new(Levers::new(known.orders));
    let network = Network::open(&plan, &metrics, clock)
        .map_err(|why| Failure::new(exit::CONFIG, format!("what watches the network cannot be built: {why}")))?;
    let observer = network.as_ref().map(|network| network.observer.clone());
    let (opener, inlets) = channels::opener(hooks, observer.clone(), clock, &board, &metrics, &mint, &stop_readers);
    let alarms = Alarms::default();
    let opener = opener.with_levers(levers.clone()).with_alarms(alarms.clone());
    let mut opened = opener.open(&plan, plan.channels.keys())?;
    let heritage = match &shared {
        None => Heritage::read(&plan, &store).await?,
        // It comes with the shards.
        Some(_) => Heritage::default(),
    };
    let spare = shared.as_ref().map(|shared| shared.spare());
    let stores = (&store, spare.as_ref());
    let (runner, left, before) = build_runner(&plan, clock, stores, mint, &mut opened, observer.clone(), heritage);
    let (observations, observed) = mpsc::channel(OBSERVATIONS);
    let (spending, spend_metrics) = open_spending(&plan, known.spent, &metrics);
    let (wishes, wished) = mpsc::channel(WISHES);
    let (commands, commanded) = crate::commands::channel();
    let (replans, replanned) = mpsc::channel(1);
    let (reloads, mut reloaded) = crate::commands::reloads();
    let ground = Ground {
        clock,
        board: board.clone(),
        metrics: metrics.clone(),
        daemon: daemon.clone(),
        levers: levers.clone(),
        key: key.clone(),
        observer,
        wishes,
        commands,
        observations: observations.downgrade(),
        alarms,
        runner: runner.clone(),
        spare,
        stop_scheduler: stop_scheduler.clone(),
        stop_readers: stop_readers.clone(),
        stop_workers: stop_workers.clone(),
        stop_http: stop_http.clone(),
    };
    preflight::show(&missing, &board, clock);
    // Slots up to here are the evaluator's to count, as missed; those after it are the scheduler's. None is nobody's.
    let counted = clock.now().wall;
    let addresses = Started {
        http: listener.local_addr().unwrap_or(plan.http.listen),
        hooks: inlets.hooks.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
        board: board.clone(),
    };
    let callbacks = Arc::<Callbacks>::default();
    let ready = Arc::new(AtomicBool::new(false));
    let shown = Shown {
        listener,
        door: door.clone(),
        callbacks: callbacks.clone(),
        ready: ready.clone(),
        reloads: source.is_some().then(|| reloads.clone()),
    };
    #[cfg_attr(not(feature = "postgres"), expect(unused_mut, reason = "nobody shares"))]
    let mut shifts: Option<(mpsc::Receiver<Shift>, mpsc::Sender<Wish>)> = None;
    let planned = watch::channel(plan.journeys.clone()).0;
    let plans = watch::channel(Arc::new(plan.clone())).0;
    let mut place = match shared {
        None => {
            let share = metrics.share();
            share.set(SHARDS.unsigned_abs() as usize, 1, 1);
            share.set_leads(true);
            let before = Counted { until: counted, waiting: resume::waiting_slots(&left) };
            let ready =
                Box::pin(Ready::build(&plan, &ground, (store.clone(), None), &spending, before, commanded)).await?;
            Place::Alone(Some(Box::new(Whole { ready, observed, shown })))
        }
        #[cfg(feature = "postgres")]
        Some(shared) => {
            let (runner, store, arrivals) = (runner.clone(), store.clone(), inlets.noted.1.clone());
            let (journeys, configuration, plans) = (planned.subscribe(), running.subscribe(), plans.subscribe());
            let (passed, elsewhere) = mpsc::channel(WISHES);
            let parts = Parts {
                shared,
                observed,
                commanded,
                shown,
                configuration,
                journeys,
                plans,
                runner,
                store,
                arrivals,
                elsewhere,
            };
            let (member, shifted) = Box::pin(Member::new(parts, &plan, &ground, &spending, &mut tasks)).await?;
            shifts = Some((shifted, passed));
            Place::Shared(Box::new(member))
        }
        #[cfg(not(feature = "postgres"))]
        Some(shared) => match shared {},
    };
    let scheduler = Scheduler::new(
        &plan.journeys,
        counted,
        runner.clone(),
        plan.max_runs,
        observations.clone(),
        daemon.clone(),
        clock,
    )
    .with_spending(spending, spend_metrics)
    .with_wishes(wished, board.clone())
    .with_replans(replanned)
    .with_left(left)
    .after_crashes(place.crashes());
    let scheduler = match shifts {
        Some((shifts, elsewhere)) => scheduler.sharing(shifts).passing_on(elsewhere),
        None => scheduler,
    };

    // Everything is built. From here on tasks run, and each has a name and an owner.
    let (plan_tick, plan_ticks) = mpsc::channel(1);
    let (chore, chores) = mpsc::channel(8);
    if let Some(network) = network {
        tasks.spawn("network", network.run(observations.clone(), clock, stop_readers.clone()));
    }
    let readers = start_channels(&mut tasks, &opener, opened, &observations);
    let hooks_door = inlets.hooks_door.clone();
    let pulse = board.pulse("switchboard", clock.now().mono);
    take_arrivals(&mut tasks, inlets, before, &runner, observations, (pulse, clock), &stop_readers);
    let lead = place.spawn(&plan, &ground, callbacks, &mut tasks)?;
    let calendar = Calendar::start(plan_tick, chore)
        .await
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("the calendar cannot start: {error}")))?;
    let doors = vec![("http", door), ("hooks", hooks_door)];
    for (listener, door) in doors.clone() {
        let (board, metrics) = (board.clone(), metrics.clone());
        tasks.spawn("web_config", gates::mirror(listener, door, board, metrics, clock, stop_http.clone()));
    }
    // Who decides, forgets.
    let retained = watch::channel(lead.as_ref().map(|lead| lead.workplace.store.clone())).0;
    let housekeeping = Housekeeping {
        runner: runner.clone(),
        store: retained.subscribe(),
        metrics: metrics.clone(),
        daemon,
        keep_runs: plan.store.keep_runs,
        doors,
    };
    tasks.spawn("housekeeping", housekeeping.run(chores, clock, stop_http.clone()));
    let draining = CancellationToken::new();
    tasks.spawn("watchdog", tasks::feed_watchdog(board.clone(), clock, draining.clone(), stop_http.clone()));
    let pulse = board.pulse("scheduler", clock.now().mono);
    tasks.spawn("scheduler", scheduler.run(plan_ticks, pulse, stop_scheduler.clone(), DRAIN_RUNS));

    ready.store(true, Ordering::Release);
    tasks::tell_supervisor(&[sd_notify::NotifyState::Ready]);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        journeys,
        channels = plan.channels.len(),
        notifiers = plan.notifiers.len(),
        http = %addresses.http,
        decides = lead.is_some(),
        "started"
    );
    let mut live = Live {
        path: source.as_ref().map(|source| source.path.clone()).unwrap_or_default(),
        plan,
        opener,
        runner,
        shown: metrics.configuration(),
        running,
        store,
        lead,
        ground,
        planned,
        plans,
        readers,
        replans,
        hooks: hooks_address,
    };
    reload::show_start(&live);
    if let Some(source) = source {
        tasks.spawn("configuration", reload::watch(source, reloads, clock, stop.clone()));
    }
    started(addresses);

    let ended = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break None,
            name = tasks.next_ended() => break Some(name),
            Some(asked) = reloaded.recv() => live.reload(asked, &mut tasks).await,
            won = place.won() => {
                Box::pin(place.take_over(won, &mut live, &mut tasks)).await?;
                retained.send_replace(live.lead.as_ref().map(|lead| lead.workplace.store.clone()));
            }
        }
    };
    let handovers = live.lead.as_ref().map(|lead| lead.handovers.clone());
    // Nothing is taken up any more.
    let (store, decided) =
        (live.store.clone(), live.lead.as_ref().map(|lead| (lead.workplace.store.clone(), lead.boot.clone())));
    drop(live);
    if ended == Some(LEASE) {
        // What is still to be done is the other's, but for what that one does not know.
        if let Some(handovers) = handovers {
            place.concede(handovers, &store).await;
            stop_workers.cancel();
            tasks.wait_for(&["delivery"], DRAIN_NOTICES + DRAIN_PART).await;
        }
        tasks.abort();
        let why = "another daemon has taken over the lease of the store: this one ends, and runs beside it when it is started again";
        return Err(Failure::new(exit::TEMPORARY, why));
    }
    if let Some(name) = &ended {
        tracing::error!(task = name, "a task ended that must not; stopping in order");
    } else {
        tracing::info!("stopping: no new runs; those under way have {} s", DRAIN_RUNS.as_secs());
    }
    // However short the supervisor's patience is set, the drain has its time.
    draining.cancel();
    tasks::tell_supervisor(&[sd_notify::NotifyState::Stopping, tasks::more_time(DRAIN)]);
    ready.store(false, Ordering::Release);
    place.begin_to_stop();
    let counted = clock.now().wall;
    stop_scheduler.cancel();
    tasks.wait_for(&["scheduler", "drills"], DRAIN_RUNS + DRAIN_PART).await;
    calendar.stop().await;
    stop_readers.cancel();
    tasks.wait_for(&["hooks", "reader", "journal", "switchboard", "drift", "network", "listen"], DRAIN_PART).await;
    // The evaluator ends when its last observation is decided; the workers then send what that led to. Who does not decide has told
    // the one who does by then.
    tasks.wait_for(&["evaluator", "relay"], DRAIN_PART).await;
    stop_workers.cancel();
    tasks.wait_for(&["delivery", "pipeline", "dead man", "keeper", "relay", "alone"], DRAIN_NOTICES + DRAIN_PART).await;
    if let Some((decided, boot)) = decided {
        if ended.is_none() {
            // Not a crash, however short it lived. If that cannot be written, it looks like one.
            let _ = decided.apply(vec![Change::Boot { boot: Boot { ended: true, ..boot } }]).await;
        }
        close(&*decided).await;
    }
    close(&*store).await;
    place.leave(counted).await;
    stop_http.cancel();
    tasks.wait_for(&["http", "buttons", "housekeeping", "watchdog", "web_config", "shards"], DRAIN_PART).await;
    tasks.abort();
    match ended {
        None => {
            tracing::info!("stopped");
            Ok(())
        }
        Some(name) => Err(Failure::new(exit::SOFTWARE, format!("the {name} task ended; the log says why"))),
    }
}

async fn close(store: &dyn Store) {
    match store.close().await {
        // One that decides and runs over the same file has closed it already.
        Ok(()) | Err(StoreError::Closed) => {}
        Err(error) => tracing::warn!(%error, "the store did not close cleanly"),
    }
}

async fn open_file(plan: &Plan, path: &Path) -> Result<Arc<dyn Store>, Failure> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Sqlite::open_resting(&path, REST)).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(store_failure(plan, &error)),
        Err(error) => Err(Failure::new(exit::SOFTWARE, format!("opening the store: {error}"))),
    }
}

fn store_failure(plan: &Plan, error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unwritable(_) => exit::CANNOT_CREATE,
        StoreError::Unreadable(_) | StoreError::Unshared | StoreError::Closed => exit::IO,
        StoreError::TooNew { .. } | StoreError::TooOld { .. } => exit::CONFIG,
        StoreError::InUse(_) | StoreError::Fenced(_) | StoreError::Moved(_) => exit::TEMPORARY,
    };
    let is_file = matches!(plan.store.home, Home::Sqlite(_));
    let hint = match error {
        StoreError::Unwritable(_) | StoreError::Unreadable(_) if !is_file => {
            "does the server run, does it know the user and the database of `store.url`, and may that user make tables there?"
        }
        StoreError::Unwritable(_) => {
            "is the directory there, ours to write, and not full? `store.url` says where it is"
        }
        StoreError::Unreadable(_) => "move it away to begin with an empty one, or restore a backup",
        StoreError::Fenced(_) | StoreError::Moved(_) => {
            "two daemons have one store: the one that has the lease goes on"
        }
        StoreError::InUse(_) => "is another journeyman running on this store?",
        StoreError::TooNew { .. } | StoreError::TooOld { .. } | StoreError::Unshared | StoreError::Closed => {
            "nothing was changed"
        }
    };
    Failure::new(code, format!("store {}: {error}\n  help: {hint}", plan.store.home))
}

/// Binds a listener, or says who needs the address for what.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            exit::UNAVAILABLE,
            format!("cannot listen on {address} (`{key}`): {error}\n  help: is another journeyman running? `journeyman rerun` has it run a journey now; or give another address, or stop what has it"),
        )
    })
}

/// What the evaluator goes by.
fn policy(plan: &Plan, spending: &Spending, now: Timestamp) -> Policy {
    let warning = |(name, planned): (&Name, &ChannelPlan)| Some((name.clone(), planned.policy.certificate_warning?));
    let updatable = plan.notifiers.iter().filter(|(_, planned)| planned.settings.is_updatable());
    Policy {
        dependencies: plan.dependencies.clone(),
        slowdowns: plan
            .journeys
            .iter()
            .map(|journey| (journey.name.clone(), spending.slowdown(&journey.name)))
            .collect(),
        certificate_warnings: plan.channels.iter().filter_map(warning).collect(),
        breakers: channels::refusing(plan, now),
        routes: plan.routes.clone(),
        updatable: updatable.map(|(name, _)| name.clone()).collect(),
        operators: plan.operators.clone(),
        notifiers: plan.notifiers.keys().cloned().collect(),
        group_by: plan.group_by.clone(),
        digest_after: plan.digest_after,
    }
}

/// What workers tell people through, for these notifiers of the plan.
fn lenders<'a>(
    plan: &'a Plan,
    names: impl Iterator<Item = &'a Name>,
    clock: Clock,
    metrics: &Metrics,
    key: &Arc<[u8]>,
    levers: &Levers,
) -> Result<Vec<Lender>, Failure> {
    let lender = |(name, planned): (&Name, &NotifierPlan)| {
        let notifier = open_notifier(planned, &plan.redactor, clock, Some(key))
            .map_err(|why| Failure::new(exit::CONFIG, format!("notifier `{name}` cannot be built: {why}")))?;
        let fallback = planned.fallback.clone().map(|fallback| (fallback, planned.fallback_after));
        let what = Guarded::Notifier(name.clone());
        let (lever, breaker) = (levers.of(&what), metrics.breaker(&what));
        Ok(Lender { name: name.clone(), notifier, fallback, metrics: metrics.notifier(name), lever, breaker })
    };
    names.filter_map(|name| plan.notifiers.get_key_value(name)).map(lender).collect()
}

/// `key` signs what people may do with what they are told.
fn open_notifier(
    planned: &NotifierPlan,
    redactor: &Redactor,
    clock: Clock,
    key: Option<&Arc<[u8]>>,
) -> Result<Arc<dyn Notifier>, String> {
    let redactor = redactor.clone();
    let templates = planned.templates.clone();
    Ok(match planned.settings.clone() {
        notifier::Settings::Slack(settings) => {
            Arc::new(notifier::slack::open(settings, redactor, clock, key.cloned())?.with_headline(templates.text))
        }
        notifier::Settings::Email(settings) => {
            Arc::new(notifier::email::open(settings, redactor, clock)?.with_templates(templates))
        }
        notifier::Settings::Webhook(settings) => Arc::new(notifier::webhook::open(settings, redactor, clock)?),
        notifier::Settings::Pagerduty(settings) => Arc::new(notifier::pagerduty::open(settings, redactor, clock)?),
        notifier::Settings::Alertmanager(settings) => {
            Arc::new(notifier::alertmanager::open(settings, redactor, clock)?)
        }
    })
}

/// What hears of buttons that people press in Slack.
fn open_buttons(plan: &Plan, key: Arc<[u8]>, commands: Commands, clock: Clock) -> Result<Option<Buttons>, Failure> {
    notifier::slack::buttons(slack_settings(plan), key, commands, plan.redactor.clone(), clock)
        .map_err(|why| Failure::new(exit::CONFIG, format!("the buttons of Slack cannot be heard of: {why}")))
}

/// The notifiers that are Slack's.
fn slack_settings(plan: &Plan) -> impl Iterator<Item = (&Name, &SlackSettings)> {
    plan.notifiers.iter().filter_map(|(name, planned)| match &planned.settings {
        notifier::Settings::Slack(settings) => Some((name, settings)),
        notifier::Settings::Email(_)
        | notifier::Settings::Webhook(_)
        | notifier::Settings::Pagerduty(_)
        | notifier::Settings::Alertmanager(_) => None,
    })
}

/// Issues this installation's tokens: its key is the store's.
fn open_mint(key: [u8; 32]) -> Result<Arc<Mint>, Failure> {
    let mut start = [0u8; 4];
    getrandom::fill(&mut start).map_err(|error| Failure::new(exit::SOFTWARE, format!("no randomness: {error}")))?;
    Ok(Arc::new(Mint::new(key, u32::from_le_bytes(start))))
}

/// What the plan's channels may spend, and have spent already today: a restart is no new day.
fn open_spending(plan: &Plan, spent: Vec<Spent>, metrics: &Metrics) -> (Spending, BTreeMap<Name, SpendMetrics>) {
    let limit = |(name, channel): (&Name, &ChannelPlan)| Some((name.clone(), channel.policy.spend.clone()?));
    let limits: BTreeMap<_, _> = plan.channels.iter().filter_map(limit).collect();
    let handles = limits.keys().map(|name| (name.clone(), metrics.spend(name))).collect();
    let mut spending = Spending::new(limits, &plan.journeys);
    spending.restore(spent);
    (spending, handles)
}

/// What runs are made with, the runs to go on with, and what came before that nobody waits for.
fn build_runner(
    plan: &Plan,
    clock: Clock,
    (store, spare): (&Arc<dyn Store>, Option<&Arc<dyn Store>>),
    mint: Arc<Mint>,
    opened: &mut BTreeMap<Name, Opened>,
    observer: Option<Arc<Observer>>,
    mut heritage: Heritage,
) -> (Arc<Runner>, Vec<Left>, Vec<Arrival>) {
    let switchboard = Arc::new(Switchboard::new(mint.clone(), readings(plan), heritage.known()));
    let before = heritage.hand_to(&switchboard, |name, since| {
        if let Some(channel) = opened.get_mut(name) {
            channel.look_back(since);
        }
    });
    let channels: BTreeMap<_, _> = opened.iter().map(|(name, opened)| (name.clone(), opened.open.clone())).collect();
    let runner = Arc::new(Runner {
        channels: channels.into(),
        switchboard,
        store: store.clone(),
        clock,
        mint,
        redactor: plan.redactor.clone(),
        observer,
        sieve: None,
        spare: spare.map(|spare| Spare::new(spare.clone(), clock)),
    });
    (runner, heritage.left, before)
}

/// Starts the readers of these channels; gives what stops each.
fn start_channels(
    tasks: &mut Tasks,
    opener: &Opener,
    opened: BTreeMap<Name, Opened>,
    observations: &mpsc::Sender<Observation>,
) -> BTreeMap<Name, CancellationToken> {
    opened.into_iter().map(|(name, channel)| (name, opener.start(channel, tasks, observations))).collect()
}

/// Takes what arrives: puts on disk what must not be lost, and hands it to the runs that wait for it. `before` came to the process before us.
fn take_arrivals(
    tasks: &mut Tasks,
    inlets: Inlets,
    before: Vec<Arrival>,
    runner: &Arc<Runner>,
    observations: mpsc::Sender<Observation>,
    (pulse, clock): (Arc<Pulse>, Clock),
    stop: &CancellationToken,
) {
    let Inlets { hooks, arrivals, noted, .. } = inlets;
    if let Some((listener, hooks)) = hooks {
        tasks.spawn("hooks", crate::channel::webhook::serve(listener, hooks, stop.clone()));
    }
    tasks.spawn("journal", journal::keep(runner.clone(), noted, stop.clone()));
    tasks.spawn(
        "switchboard",
        tasks::match_arrivals(runner.clone(), before, arrivals, observations, pulse, clock, stop.clone()),
    );
}

/// What the calendar's ticks ask for.
struct Housekeeping {
    runner: Arc<Runner>,
    /// Where what is old is to be forgotten, by who decides.
    store: watch::Receiver<Option<Arc<dyn Store>>>,
    metrics: Arc<Metrics>,
    daemon: Arc<DaemonMetrics>,
    keep_runs: Duration,
    /// Of each listener.
    doors: Vec<(&'static str, Door)>,
}
