//! `journeyman once`: runs journeys once, without a schedule, alerts, or a store that outlives them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::take_arrivals;
use crate::app::bench::{Bench, Takings, narrowed};
use crate::clock::Clock;
use crate::config::{Plan, no_journey, some_of};
use crate::exit::{self, Failure};
use crate::journey::Journey;
use crate::journey::report::Report;
use crate::journey::run::Sight;
use crate::runner::{Ends, Runner};
use crate::store::StoreError;

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
    let (mut bench, takings) = Bench::open(&plan, "once", clock).await?;
    let Takings { inlets, before, observations } = takings;
    let pulse = bench.board.pulse("switchboard", clock.now().mono);
    let (runner, stop_readers) = (bench.runner.clone(), bench.stop_readers.clone());
    take_arrivals(&mut bench.tasks, inlets, before, &runner, observations, (pulse, clock), &stop_readers);
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
    bench.close().await;
    reports.into_iter().collect()
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
