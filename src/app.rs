//! The composition root: builds every part, spawns every task, waits, and drains in order.

mod breakers;
mod channels;
pub mod connect;
pub mod demo;
mod drift;
pub mod notify;
pub mod preview;
pub mod replay;
pub mod slo;
mod tasks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::channels::Channels;
use crate::app::tasks::Tasks;
use crate::board::Board;
use crate::breaker::Guarded;
use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::commands::{Commands, Levers};
use crate::config::{ChannelPlan, NotifierPlan, Plan};
use crate::delivery::{self, Lender};
use crate::evaluator::{Evaluator, Parts};
use crate::exit::{self, Failure};
use crate::http::Views;
use crate::journey::report::Report;
use crate::journey::spend::Spending;
use crate::journey::token::Mint;
use crate::journey::{Journey, Name};
use crate::ledger::Settled;
use crate::metrics::{DaemonMetrics, Metrics, SpendMetrics, seconds};
use crate::notifier::slack::Buttons;
use crate::notifier::{self, Notifier};
use crate::runner::Runner;
use crate::runner::switchboard::Switchboard;
use crate::scheduler::{Observation, Scheduler};
use crate::secret::Redactor;
use crate::store::sqlite::{Sqlite, snapshot};
use crate::store::{Store, StoreError};

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

/// Runs the plan until `stop`, then drains. `started` is called once everything works.
///
/// # Errors
/// A part that cannot be built, or one that ended and must not; with the exit code for it.
pub async fn run(
    plan: Plan,
    clock: Clock,
    stop: CancellationToken,
    started: impl FnOnce(Started),
) -> Result<(), Failure> {
    let store = open_store(&plan).await?;
    let listener = bind(plan.http.listen, "http.listen").await?;
    let board = Arc::new(Board::default());
    let metrics = Arc::new(Metrics::new(&plan.journeys, plan.location.as_deref()));
    let daemon = Arc::new(metrics.daemon());
    daemon.started.set(seconds(clock.now().wall));
    let stop_readers = CancellationToken::new();
    let mint = open_mint(&plan, &store).await?;
    let orders = store.orders().await.map_err(|error| store_failure(&plan, &error))?;
    let levers = Arc::new(Levers::new(orders));
    let mut channels = channels::open(&plan, clock, &board, &metrics, &mint, &levers, &stop_readers).await?;
    let key: Arc<[u8]> = store.key().await.map_err(|error| store_failure(&plan, &error))?.as_slice().into();
    let runner = build_runner(&plan, clock, &store, mint, &mut channels).await?;
    let (observations, observed) = mpsc::channel(OBSERVATIONS);
    let (outbox, workers) =
        delivery::build(lenders(&plan, clock, &metrics, &key, &levers)?, &store, clock, &board, &observations);
    let (spending, spend_metrics) = open_spending(&plan, &store, &metrics).await?;
    let (wishes, wished) = mpsc::channel(WISHES);
    let parts = Parts {
        store: store.clone(),
        metrics: metrics.clone(),
        daemon: daemon.clone(),
        board: board.clone(),
        outbox,
        clock,
        wishes,
        location: plan.location.clone(),
        public_url: plan.http.public_url.clone(),
        dependencies: plan.dependencies.clone(),
        slowdowns: plan
            .journeys
            .iter()
            .map(|journey| (journey.name.clone(), spending.slowdown(&journey.name)))
            .collect(),
        certificate_warnings: plan
            .channels
            .iter()
            .filter_map(|(name, planned)| Some((name.clone(), planned.policy.certificate_warning?)))
            .collect(),
        breakers: channels.open.values().filter(|open| open.refuses()).map(|open| open.name.clone()).collect(),
        levers,
        routes: plan.routes.clone(),
        updatable: plan
            .notifiers
            .iter()
            .filter(|(_, planned)| planned.settings.is_updatable())
            .map(|(name, _)| name.clone())
            .collect(),
        operators: plan.operators.clone(),
        notifiers: plan.notifiers.keys().cloned().collect(),
        group_by: plan.group_by.clone(),
        digest_after: plan.digest_after,
    };
    let courses = drift::courses(&plan.journeys, &spending);
    let (commands, commanded) = crate::commands::channel();
    let mut buttons = open_buttons(&plan, key, commands.clone(), clock)?;
    // Slots up to here are the evaluator's to count, as missed; those after it are the scheduler's. None is nobody's.
    let counted = clock.now().wall;
    let evaluator = Evaluator::load(parts, &plan.journeys, counted, commanded)
        .await
        .map_err(|error| store_failure(&plan, &error))?;
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
    .with_wishes(wished, board.clone());
    let addresses = Started {
        http: listener.local_addr().unwrap_or(plan.http.listen),
        hooks: channels.hooks.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
        board: board.clone(),
    };
    let ready = Arc::new(AtomicBool::new(false));
    let views = Views {
        board: board.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        clock,
        redactor: plan.redactor.clone(),
        public_url: plan.http.public_url.clone(),
        admin_token: plan.http.admin_token.clone(),
        location: plan.location.clone(),
        ready: ready.clone(),
        commands,
        slack: buttons.as_mut().and_then(|buttons| buttons.callback.take()),
    };

    // Everything is built. From here on tasks run, and each has a name and an owner.
    let (stop_scheduler, stop_workers, stop_http) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (plan_tick, plan_ticks) = mpsc::channel(1);
    let (chore, chores) = mpsc::channel(8);
    let mut tasks = Tasks::default();
    tasks.spawn("http", {
        let stop = stop_http.clone();
        async move {
            if let Err(error) = crate::http::serve(listener, views, stop).await {
                tracing::error!(%error, "the http listener failed");
            }
        }
    });
    tasks.spawn("drift", drift::watch(courses, store.clone(), observations.clone(), clock, stop_readers.clone()));
    spawn_channels(&mut tasks, &mut channels, &runner, &board, observations, clock, &stop_readers);
    if let Some(buttons) = buttons {
        tasks.spawn("buttons", buttons.run(stop_http.clone()));
    }
    let pulse = board.pulse("evaluator", clock.now().mono);
    tasks.spawn("evaluator", evaluator.run(observed, pulse));
    for worker in workers {
        let pulse = board.pulse("delivery", clock.now().mono);
        tasks.spawn("delivery", worker.run(pulse, stop_workers.clone(), DRAIN_NOTICES));
    }
    let calendar = Calendar::start(plan_tick, chore)
        .await
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("the calendar cannot start: {error}")))?;
    let housekeeping = Housekeeping { runner, store: store.clone(), metrics, daemon, keep_runs: plan.store.keep_runs };
    tasks.spawn("housekeeping", housekeeping.run(chores, channels.counts, clock, stop_http.clone()));
    tasks.spawn("watchdog", tasks::feed_watchdog(board.clone(), clock, stop_http.clone()));
    let pulse = board.pulse("scheduler", clock.now().mono);
    tasks.spawn("scheduler", scheduler.run(plan_ticks, pulse, stop_scheduler.clone(), DRAIN_RUNS));

    board.set_component("store", true, true, "takes commits", clock.now().wall);
    ready.store(true, Ordering::Release);
    tasks::tell_supervisor(&[sd_notify::NotifyState::Ready]);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        journeys = plan.journeys.len(),
        channels = plan.channels.len(),
        notifiers = plan.notifiers.len(),
        http = %addresses.http,
        "started"
    );
    started(addresses);

    let ended = tokio::select! {
        () = stop.cancelled() => None,
        name = tasks.next_ended() => Some(name),
    };
    if let Some(name) = &ended {
        tracing::error!(task = name, "a task ended that must not; stopping in order");
    } else {
        tracing::info!("stopping: no new runs; those under way have {} s", DRAIN_RUNS.as_secs());
    }
    tasks::tell_supervisor(&[sd_notify::NotifyState::Stopping]);
    ready.store(false, Ordering::Release);
    stop_scheduler.cancel();
    tasks.wait_for(&["scheduler"], DRAIN_RUNS + DRAIN_PART).await;
    calendar.stop().await;
    stop_readers.cancel();
    tasks.wait_for(&["hooks", "reader", "switchboard", "drift"], DRAIN_PART).await;
    // The evaluator ends when its last observation is decided; the workers then send what that led to.
    tasks.wait_for(&["evaluator"], DRAIN_PART).await;
    stop_workers.cancel();
    tasks.wait_for(&["delivery"], DRAIN_NOTICES + DRAIN_PART).await;
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
    stop_http.cancel();
    tasks.wait_for(&["http", "buttons", "housekeeping", "watchdog"], DRAIN_PART).await;
    tasks.abort();
    match ended {
        None => {
            tracing::info!("stopped");
            Ok(())
        }
        Some(name) => Err(Failure::new(exit::SOFTWARE, format!("the {name} task ended; the log says why"))),
    }
}

/// Runs one journey once, without a schedule, alerts, or a store that outlives it. With it comes the last good run, if the daemon's
/// store is there and has one.
///
/// # Errors
/// No such journey, or a channel that cannot be opened.
pub async fn once(
    plan: Plan,
    name: &str,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(Report, Option<Report>), Failure> {
    let journey = find(&plan, name)?;
    let last_good = last_good(&plan, name);
    let plan = narrowed(plan, &journey);
    let directory = std::env::temp_dir().join(format!("journeyman-once-{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(
        Sqlite::open(&directory.join("once.db"))
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("{}: {error}", directory.display())))?,
    );
    let board = Arc::new(Board::default());
    let metrics = Arc::new(Metrics::new(&plan.journeys, plan.location.as_deref()));
    let stop_readers = CancellationToken::new();
    let mint = open_mint(&plan, &store).await?;
    let levers = Levers::default();
    let mut channels = channels::open(&plan, clock, &board, &metrics, &mint, &levers, &stop_readers).await?;
    let runner = build_runner(&plan, clock, &store, mint, &mut channels).await?;
    let (observations, _observed) = mpsc::channel(OBSERVATIONS);
    let mut tasks = Tasks::default();
    spawn_channels(&mut tasks, &mut channels, &runner, &board, observations, clock, &stop_readers);
    let report = runner.run(journey.clone(), clock.now().wall, Vec::new(), &stop).await;
    stop_readers.cancel();
    tasks.wait_for(&["hooks", "reader", "switchboard"], DRAIN_PART).await;
    tasks.abort();
    // What is left of it is of no interest, and the next run makes its own.
    let _ = store.close().await;
    let _ = std::fs::remove_dir_all(&directory);
    Ok((report, last_good))
}

fn last_good(plan: &Plan, name: &str) -> Option<Report> {
    let path = &plan.store.path;
    if !path.exists() {
        return None;
    }
    // The run is worth its while without.
    let warned =
        |error: StoreError| tracing::warn!(%error, "nothing is said of what has changed since the last good run");
    snapshot::last_good(path, name).map_err(warned).ok().flatten()
}

fn find(plan: &Plan, name: &str) -> Result<Arc<Journey>, Failure> {
    plan.journeys.iter().find(|journey| &*journey.name == name).cloned().ok_or_else(|| {
        let names: Vec<_> = plan.journeys.iter().map(|journey| &*journey.name).collect();
        Failure::new(exit::USAGE, format!("no journey is named `{name}`; there are: {}", names.join(", ")))
    })
}

/// The plan with this journey alone, and only the channels that it uses.
fn narrowed(mut plan: Plan, journey: &Arc<Journey>) -> Plan {
    let used = journey.channels();
    plan.channels.retain(|name, _| used.contains(name));
    let has_webhook = plan.channels.values().any(|channel| channel.kind.name == "webhook");
    plan.hooks = plan.hooks.filter(|_| has_webhook);
    plan.journeys = vec![journey.clone()];
    plan
}

async fn open_store(plan: &Plan) -> Result<Arc<dyn Store>, Failure> {
    let path = plan.store.path.clone();
    let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(store_failure(plan, &error)),
        Err(error) => Err(Failure::new(exit::SOFTWARE, format!("opening the store: {error}"))),
    }
}

fn store_failure(plan: &Plan, error: &StoreError) -> Failure {
    let code = match error {
        StoreError::Unwritable(_) => exit::CANNOT_CREATE,
        StoreError::Unreadable(_) | StoreError::Closed => exit::IO,
        StoreError::TooNew { .. } | StoreError::TooOld { .. } => exit::CONFIG,
        StoreError::InUse(_) => exit::TEMPORARY,
    };
    let hint = match error {
        StoreError::Unwritable(_) => {
            "is the directory there, ours to write, and not full? `store.url` says where it is"
        }
        StoreError::Unreadable(_) => "move it away to begin with an empty one, or restore a backup",
        StoreError::InUse(_) => "is another journeyman running on this store?",
        StoreError::TooNew { .. } | StoreError::TooOld { .. } | StoreError::Closed => "nothing was changed",
    };
    Failure::new(code, format!("store {}: {error}\n  help: {hint}", plan.store.path.display()))
}

/// Binds a listener, or says who needs the address for what.
pub(crate) async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            exit::UNAVAILABLE,
            format!("cannot listen on {address} (`{key}`): {error}\n  help: is another journeyman running? give another address, or stop what has it"),
        )
    })
}

fn lenders(
    plan: &Plan,
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
    plan.notifiers.iter().map(lender).collect()
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
    let slacks = plan.notifiers.iter().filter_map(|(name, planned)| match &planned.settings {
        notifier::Settings::Slack(settings) => Some((name, settings)),
        notifier::Settings::Email(_)
        | notifier::Settings::Webhook(_)
        | notifier::Settings::Pagerduty(_)
        | notifier::Settings::Alertmanager(_) => None,
    });
    notifier::slack::buttons(slacks, key, commands, plan.redactor.clone(), clock)
        .map_err(|why| Failure::new(exit::CONFIG, format!("the buttons of Slack cannot be heard of: {why}")))
}

/// Issues this installation's tokens: its key is the store's.
async fn open_mint(plan: &Plan, store: &Arc<dyn Store>) -> Result<Arc<Mint>, Failure> {
    let key = store.key().await.map_err(|error| store_failure(plan, &error))?;
    let mut start = [0u8; 4];
    getrandom::fill(&mut start).map_err(|error| Failure::new(exit::SOFTWARE, format!("no randomness: {error}")))?;
    Ok(Arc::new(Mint::new(key, u32::from_le_bytes(start))))
}

/// What the plan's channels may spend, and have spent already today: a restart is no new day.
async fn open_spending(
    plan: &Plan,
    store: &Arc<dyn Store>,
    metrics: &Metrics,
) -> Result<(Spending, BTreeMap<Name, SpendMetrics>), Failure> {
    let limit = |(name, channel): (&Name, &ChannelPlan)| Some((name.clone(), channel.policy.spend.clone()?));
    let limits: BTreeMap<_, _> = plan.channels.iter().filter_map(limit).collect();
    let handles = limits.keys().map(|name| (name.clone(), metrics.spend(name))).collect();
    let mut spending = Spending::new(limits, &plan.journeys);
    spending.restore(store.spent().await.map_err(|error| store_failure(plan, &error))?);
    Ok((spending, handles))
}

async fn build_runner(
    plan: &Plan,
    clock: Clock,
    store: &Arc<dyn Store>,
    mint: Arc<Mint>,
    channels: &mut Channels,
) -> Result<Arc<Runner>, Failure> {
    let failed = |error| store_failure(plan, &error);
    // A token whose run was cut by the end of the process before us: what comes for it now is late.
    let known = store.ledger().await.map_err(failed)?.into_iter().map(|(token, mut entry)| {
        entry.settled = entry.settled.or(Some(Settled::Missing));
        (token, entry)
    });
    let switchboard = Arc::new(Switchboard::new(mint.clone(), std::mem::take(&mut channels.readings), known));
    Ok(Arc::new(Runner {
        channels: channels.open.clone(),
        switchboard,
        store: store.clone(),
        clock,
        mint,
        redactor: plan.redactor.clone(),
    }))
}

fn spawn_channels(
    tasks: &mut Tasks,
    channels: &mut Channels,
    runner: &Arc<Runner>,
    board: &Arc<Board>,
    observations: mpsc::Sender<Observation>,
    clock: Clock,
    stop: &CancellationToken,
) {
    if let Some((listener, hooks)) = channels.hooks.take() {
        tasks.spawn("hooks", crate::channel::webhook::serve(listener, hooks, stop.clone()));
    }
    for open in channels.open.values() {
        let (told, board) = (observations.clone(), board.clone());
        tasks.spawn("reader", breakers::watch(open.clone(), board, told, clock, stop.clone()));
    }
    for reader in std::mem::take(&mut channels.readers) {
        let Some(open) = channels.open.get(&reader.listener.channel).cloned() else { continue };
        let (told, notes) = (observations.clone(), open.reading().clone());
        tasks.spawn("reader", tasks::mirror_readiness(open, board.clone(), told, clock, stop.clone()));
        tasks.spawn("reader", async move { notes.over(reader.channel.listen(reader.listener)).await });
    }
    let (_, closed) = mpsc::channel(1);
    let arrivals = std::mem::replace(&mut channels.arrivals, closed);
    tasks.spawn("switchboard", tasks::match_arrivals(runner.clone(), arrivals, observations, stop.clone()));
}

/// What the calendar's ticks ask for.
struct Housekeeping {
    runner: Arc<Runner>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    daemon: Arc<DaemonMetrics>,
    keep_runs: Duration,
}
