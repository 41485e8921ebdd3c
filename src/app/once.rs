//! `journeyman once`: runs journeys once, without a schedule, alerts, or a store that outlives them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{DRAIN_PART, OBSERVATIONS, build_runner, channels, open_mint, start_channels, take_arrivals};
use crate::alarm::{Alarm, Alarms};
use crate::app::heritage::Heritage;
use crate::app::notify;
use crate::app::tasks::Tasks;
use crate::board::Board;
use crate::channel::Settings;
use crate::clock::Clock;
use crate::config::{ChannelPlan, Plan, no_journey, some_of};
use crate::delivery;
use crate::exit::{self, Failure};
use crate::journey::report::Report;
use crate::journey::run::Sight;
use crate::journey::{Journey, Name};
use crate::metrics::Metrics;
use crate::notifier::Notifier;
use crate::runner::{Ends, Runner};
use crate::store::sqlite::Sqlite;
use crate::store::{Store, StoreError};

/// Journeys under way at once at most.
const AT_ONCE: usize = 8;

/// Who hears of the runs while they go.
pub struct Heard<'a> {
    /// How far a run is, after everything that happens to it.
    pub seen: &'a (dyn Fn(Sight) + Sync),
    /// A run has ended, and all before it; the last good one before it, if the daemon's store is there and has one.
    pub ended: &'a (dyn Fn(&Report, Option<&Report>) + Sync),
}

/// The journeys of these names, each once; all of them if `all`.
///
/// # Errors
/// A name that no journey has, or no name at all.
pub fn chosen(plan: &Plan, names: &[String], all: bool) -> Result<Vec<Arc<Journey>>, Failure> {
    if all {
        return Ok(plan.journeys.clone());
    }
    let known: Vec<_> = plan.journeys.iter().map(|journey| &*journey.name).collect();
    if names.is_empty() {
        let message = format!("name a journey, or say --all; there are: {}", some_of(&known));
        return Err(Failure::new(exit::USAGE, message));
    }
    let find = |name: &String| {
        let found = plan.journeys.iter().find(|journey| *journey.name == **name).cloned();
        found.ok_or_else(|| Failure::new(exit::USAGE, no_journey(name, known.iter().copied())))
    };
    let mut taken = BTreeSet::new();
    names.iter().filter(|name| taken.insert(*name)).map(find).collect()
}

/// Runs these journeys, some at a time. The reports are in their order, each with the last good run before it.
///
/// # Errors
/// A channel that cannot be opened.
pub async fn once(
    plan: Plan,
    journeys: &[Arc<Journey>],
    clock: Clock,
    stop: CancellationToken,
    heard: Heard<'_>,
) -> Result<Vec<(Report, Option<Report>)>, Failure> {
    let last_good: Vec<_> = journeys.iter().map(|journey| last_good(&plan, &journey.name)).collect();
    let plan = narrowed(plan, journeys);
    let directory = std::env::temp_dir().join(format!("journeyman-once-{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(
        Sqlite::open(&directory.join("once.db"))
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("{}: {error}", directory.display())))?,
    );
    let board = Arc::new(Board::default());
    let metrics = Arc::new(Metrics::new(&plan.journeys, plan.location.as_deref()));
    let stop_readers = CancellationToken::new();
    let mint = open_mint(&plan, &store).await?;
    let hooks = channels::bind_hooks(&plan, clock).await?;
    let (opener, inlets) = channels::opener(hooks, None, clock, &board, &metrics, &mint, &stop_readers);
    let alarms = Alarms::default();
    let opener = opener.with_alarms(alarms.clone());
    let mut opened = opener.open(&plan, plan.channels.keys())?;
    let heritage = Heritage::default();
    let (runner, _, before) = build_runner(&plan, clock, &store, mint, &mut opened, None, heritage);
    let (observations, _observed) = mpsc::channel(OBSERVATIONS);
    let mut tasks = Tasks::default();
    for (name, notifier) in rung(&plan, clock)? {
        let lane = alarms.answer_for(&name);
        tasks.spawn("alarm", answer_alarms(name, notifier, lane, stop_readers.clone()));
    }
    start_channels(&mut tasks, &opener, opened, &observations);
    let pulse = board.pulse("switchboard", clock.now().mono);
    take_arrivals(&mut tasks, inlets, before, &runner, observations, (pulse, clock), &stop_readers);
    let runs =
        journeys.iter().zip(last_good).map(|(journey, last_good)| run(&runner, journey, last_good, &stop, &heard));
    let mut runs = stream::iter(runs).buffered(AT_ONCE);
    let mut reports = Vec::new();
    // They are told in their order, whichever ends first.
    while let Some(run) = runs.next().await {
        if let Ok((report, last_good)) = &run {
            (heard.ended)(report, last_good.as_ref());
        }
        reports.push(run);
    }
    stop_readers.cancel();
    tasks.wait_for(&["hooks", "reader", "journal", "switchboard", "alarm"], DRAIN_PART).await;
    tasks.abort();
    // What is left of it is of no interest, and the next run makes its own.
    let _ = store.close().await;
    let _ = std::fs::remove_dir_all(&directory);
    reports.into_iter().collect()
}

/// The notifiers that journeys ring: without a daemon nobody else takes their tests.
pub(super) fn rung(plan: &Plan, clock: Clock) -> Result<BTreeMap<Name, Arc<dyn Notifier>>, Failure> {
    let name = |channel: &ChannelPlan| match &channel.settings {
        Settings::Notifier(settings) => Some(settings.notifier.clone()),
        _ => None,
    };
    let names: BTreeSet<_> = plan.channels.values().filter_map(name).collect();
    names.into_iter().map(|name| notify::open(plan, &name, clock, None).map(|notifier| (name, notifier))).collect()
}

/// Tells people of each test, in one attempt.
pub(super) async fn answer_alarms(
    name: Name,
    notifier: Arc<dyn Notifier>,
    mut lane: mpsc::Receiver<Alarm>,
    stop: CancellationToken,
) {
    loop {
        let Alarm { notification, answer } = tokio::select! {
            () = stop.cancelled() => return,
            alarm = lane.recv() => match alarm {
                Some(alarm) => alarm,
                None => return,
            },
        };
        let delivery = notify::delivery(&name, notification);
        let told = notifier.notify(&delivery).await;
        // Whoever asked may be gone.
        let _ = answer.send(delivery::answer(told));
    }
}

async fn run(
    runner: &Runner,
    journey: &Arc<Journey>,
    last_good: Option<Report>,
    stop: &CancellationToken,
    heard: &Heard<'_>,
) -> Result<(Report, Option<Report>), Failure> {
    let order = runner.order(journey.clone(), runner.clock.now().wall);
    match runner.watched(order, Ends { cut: stop, leave: None }, heard.seen).await {
        Some(report) => Ok((report, last_good)),
        None => {
            let why = format!("the run of `{}` was left to a process that never comes", journey.name);
            Err(Failure::new(exit::SOFTWARE, why))
        }
    }
}

fn last_good(plan: &Plan, name: &str) -> Option<Report> {
    let home = &plan.store.home;
    if !home.may_be_there() {
        return None;
    }
    // The run is worth its while without.
    let warned =
        |error: StoreError| tracing::warn!(%error, "nothing is said of what has changed since the last good run");
    home.last_good(name).map_err(warned).ok().flatten()
}

/// The plan with these journeys alone, and only the channels that they use.
fn narrowed(mut plan: Plan, journeys: &[Arc<Journey>]) -> Plan {
    let used: BTreeSet<_> = journeys.iter().flat_map(|journey| journey.channels()).collect();
    plan.channels.retain(|name, _| used.contains(name));
    let has_webhook = plan.channels.values().any(|channel| channel.kind.name == "webhook");
    plan.hooks = plan.hooks.filter(|_| has_webhook);
    plan.journeys = journeys.to_vec();
    plan
}
