//! `journeyman experiment`: drives the machine of an experiment. It performs what the machine asks for, and decides nothing.

mod commands;
mod drive;
mod healing;
mod journal;
mod traffic;
mod web;

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::drive::{Drive, QUIET};
use self::journal::Journal;
use self::traffic::{Shared, Traffic, count_arrivals, watch_receiver};
use crate::app::bench::{Bench, Takings, narrowed};
use crate::app::channels::Inlets;
use crate::channel::Readiness;
use crate::clock::Clock;
use crate::config::Plan;
use crate::config::experiment::ExperimentPlan;
use crate::exit::{self, Failure};
use crate::experiment::account::{Lately, Tally};
use crate::experiment::report::{Act, Ending, Report, Told, report};
use crate::experiment::undo::{Cut, typed};
use crate::journey::{Journey, Name};
use crate::proxy::Proxy;
use crate::time::Mono;

/// Receivers have so long to be ready before anything is sent.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Runs that were cut short have so long to end.
const LAST_RUNS: Duration = Duration::from_secs(10);

/// What is seen of an experiment while it goes.
pub trait Onlooker: Sync {
    /// Something happened, in a line.
    fn told(&self, line: &str);
    /// How it stands; once a second.
    fn seen(&self, standing: &Standing);
    /// Asks a person to do something; whether it is done.
    fn ask<'a>(&'a self, what: &'a str) -> BoxFuture<'a, bool>;
}

/// How an experiment stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Which part of it goes on.
    pub stage: String,
    /// How long it has gone on.
    pub since: Duration,
    /// How long that part has.
    pub in_stage: Duration,
    /// The count.
    pub tally: Tally,
    /// The last ten seconds.
    pub lately: Lately,
}

/// What is wanted beside the file.
pub struct Wanted<'a> {
    /// Where the daemon's configuration is: what is still to be undone is remembered beside its store.
    pub config: &'a Path,
    /// The experiment's file, as people call it.
    pub file: &'a Path,
    /// Against what.
    pub target: (String, Option<String>),
    /// Who looks on.
    pub onlooker: &'a dyn Onlooker,
}

/// Does the experiment, and undoes whatever it did. Gives the report.
///
/// # Errors
/// It could not begin: another one goes on, one before it cannot be undone, a port is taken, a channel cannot be opened or is not ready.
pub async fn experiment(
    plan: Plan,
    experiment: &ExperimentPlan,
    wanted: Wanted<'_>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Report, Failure> {
    let journal = undo_left(&plan, wanted.config, wanted.onlooker, clock).await?;
    refuse_beside_daemon(&plan, &experiment.journey)?;
    let proxies = start_proxies(experiment, clock).await?;
    let journey = &experiment.journey;
    let mut plan = narrowed(plan, std::slice::from_ref(journey));
    for channel in plan.channels.values_mut() {
        // Here failures are made, and each message is to meet them itself.
        channel.policy.breaker_observes = true;
    }
    let (mut bench, Takings { inlets, before, .. }) = Bench::open(&plan, "experiment", clock).await?;
    let account = Shared::new(journey);
    let last = Arc::new(Mutex::new(Mono::default()));
    let (runner, stop_readers) = (bench.runner.clone(), bench.stop_readers.clone());
    let Inlets { hooks, arrivals, noted, .. } = inlets;
    drop(before);
    if let Some((listener, hooks)) = hooks {
        bench.tasks.spawn("hooks", crate::channel::webhook::serve(listener, hooks, stop_readers.clone()));
    }
    bench.tasks.spawn("journal", super::journal::keep(runner.clone(), noted, stop_readers.clone()));
    let counting = count_arrivals(runner.clone(), account.clone(), arrivals, last.clone(), stop_readers.clone());
    bench.tasks.spawn("switchboard", counting);
    if let Err(failure) = await_receivers(&bench, experiment, clock, &stop).await {
        bench.close().await;
        return Err(failure);
    }
    for name in journey.receivers() {
        if let Some(open) = runner.channels.now().get(&name) {
            let watch = watch_receiver(open.clone(), account.clone(), clock, stop_readers.clone());
            bench.tasks.spawn_until("reader", &stop_readers, watch);
        }
    }
    let began = clock.now();
    let traffic = Arc::new(Traffic::new(runner, journey, experiment.script.longest(), account.clone(), clock));
    let mut drive = Drive::new(experiment, &wanted, journal, proxies, account.clone(), last.clone(), clock);
    let (finished, hypothesis) = drive.run(&mut bench, &traffic, stop).await;
    let is_blind = journey.receivers().iter().any(|name| !is_ready(&bench, name));
    let ended = clock.now();
    // What still comes in at the end has not had its time, however long that was: perhaps it is we who are slow.
    let is_quiet = ended.mono.since(*last.lock().unwrap_or_else(PoisonError::into_inner)) >= QUIET;
    {
        let mut account = account.lock();
        if is_blind {
            account.blind(ended.mono);
        }
        account.close(ended.mono, finished.is_drained && is_quiet);
    }
    drive.cut_runs();
    bench.tasks.wait_for(&["traffic"], LAST_RUNS).await;
    bench.close().await;
    // From here on nobody tells the account anything.
    let hypothesis = hypothesis.judge(&account.lock().tally(ended.mono));
    let (marks, acts) = drive.history();
    let told = Told {
        name: experiment.name.clone(),
        description: experiment.description.clone(),
        target: wanted.target.0.clone(),
        permission: wanted.target.1.clone(),
        journey: journey.name.to_string(),
        deadline: journey.deadline,
        began,
        ended,
        finished,
        hypothesis,
        marks,
        acts,
    };
    let report = report(&account.lock(), told);
    Ok(report)
}

/// A daemon with the same configuration reads from the same queues: what it takes would look lost.
fn refuse_beside_daemon(plan: &Plan, journey: &Journey) -> Result<(), Failure> {
    let Some(store) = plan.store.home.file() else { return Ok(()) };
    let lock = format!("{}.lock", store.display());
    let is_held = std::fs::File::open(&lock).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
    if !is_held || journey.receivers().is_empty() {
        return Ok(());
    }
    let said = format!(
        "a daemon runs on this configuration ({lock} is held) and would take messages of the experiment from the queues that both \
         read; nothing was done\n  help: give the experiment a configuration with queues and a store of its own"
    );
    Err(Failure::new(exit::TEMPORARY, said))
}

/// Undoes what an experiment before has left cut; gives the journal.
///
/// # Errors
/// Another experiment goes on, or something cannot be undone.
async fn undo_left(plan: &Plan, config: &Path, onlooker: &dyn Onlooker, clock: Clock) -> Result<Journal, Failure> {
    let (mut journal, left) = Journal::open(&journal::path(plan, config))?;
    let mut stuck = Vec::new();
    for cut in left {
        onlooker.told(&format!("{} was left cut: undoing it with {}", of(&cut), typed(&cut.undo)));
        match healing::undo(&mut journal, &cut, clock).await {
            Ok(_) => onlooker.told(&format!("{} is undone", of(&cut))),
            Err(why) => stuck.push(format!("{}: {why}\n  help: {}", of(&cut), by_hand(&cut))),
        }
    }
    if stuck.is_empty() {
        return Ok(journal);
    }
    let code = Ending::Stuck.exit_code();
    Err(Failure::new(code, format!("NOT UNDONE, and nothing else was done: {}", stuck.join("\n"))))
}

/// Undoes what an experiment has left cut, and nothing else. How much that was.
///
/// # Errors
/// As for an experiment that begins.
pub async fn undo(plan: &Plan, config: &Path, onlooker: &dyn Onlooker, clock: Clock) -> Result<usize, Failure> {
    let count = journal::left(&journal::path(plan, config)).len();
    undo_left(plan, config, onlooker, clock).await.map(|_| count)
}

/// What an experiment has left cut and nobody is at, in words.
pub fn left_cut(plan: &Plan, config: &Path) -> Vec<String> {
    let left = journal::left(&journal::path(plan, config));
    left.iter().map(|cut| format!("{}; {}", of(cut), by_hand(cut))).collect()
}

/// Notes the parts of the experiment in Grafana.
///
/// # Errors
/// Grafana does not take one.
pub async fn annotate(experiment: &ExperimentPlan, url: &Url, report: &Report) -> Result<usize, Failure> {
    let Some(token) = &experiment.grafana_token else {
        let why = "there is no token for Grafana: add `[grafana]` with `token = { file = \"…\" }` to the experiment";
        return Err(Failure::new(exit::CONFIG, why));
    };
    let noted = web::annotate(url, token, report).await;
    noted.map_err(|why| Failure::new(exit::UNAVAILABLE, format!("the experiment was not noted in {url}: {why}")))
}

fn of(cut: &Cut) -> String {
    format!("phase `{}` of {} against {}, since {:.0}", cut.phase, cut.experiment, cut.target, cut.at)
}

fn by_hand(cut: &Cut) -> String {
    format!(
        "`journeyman experiment --undo` tries again, or by hand, in {}: {}",
        cut.directory.display(),
        typed(&cut.undo)
    )
}

async fn start_proxies(experiment: &ExperimentPlan, clock: Clock) -> Result<BTreeMap<Name, Proxy>, Failure> {
    let mut proxies = BTreeMap::new();
    for (name, (listen, to)) in &experiment.proxies {
        let proxy = Proxy::start(*listen, to, fastrand::u64(..), clock).await.map_err(|error| {
            let said = format!("proxy `{name}` cannot listen on {listen}: {error}; nothing was done");
            Failure::new(exit::UNAVAILABLE, said)
        })?;
        proxies.insert(name.clone(), proxy);
    }
    Ok(proxies)
}

fn is_ready(bench: &Bench, name: &Name) -> bool {
    let channels = bench.runner.channels.now();
    channels.get(name).is_some_and(|open| *open.readiness.borrow() == Readiness::Ready)
}

/// Waits until every receiver is proven ready: what is sent before would be nobody's.
async fn await_receivers(
    bench: &Bench,
    experiment: &ExperimentPlan,
    clock: Clock,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let until = clock.now().mono + READY_WITHIN;
    for name in experiment.journey.receivers() {
        let channels = bench.runner.channels.now();
        let Some(open) = channels.get(&name) else { continue };
        let mut readiness = open.readiness.clone();
        let is_ready = tokio::select! {
            is_ready = readiness.wait_for(|now| *now == Readiness::Ready) => is_ready.is_ok(),
            () = clock.sleep_until(until) => false,
            () = stop.cancelled() => {
                return Err(Failure::new(Ending::Aborted.exit_code(), "stopped before it began; nothing was done"));
            }
        };
        if !is_ready {
            let why = match &*open.readiness.borrow() {
                Readiness::Down { why } => why.clone(),
                Readiness::Starting | Readiness::Ready => "it is still starting".to_owned(),
            };
            let said = format!("channel `{name}` is not ready to receive: {why}; nothing was sent and nothing was cut");
            return Err(Failure::new(exit::UNAVAILABLE, said));
        }
    }
    Ok(())
}

/// Something that was done, for the report.
fn act(began: Mono, from: Mono, to: Mono, phase: &str, what: String, result: &Result<String, String>) -> Act {
    let said = match result {
        Ok(said) => Some(said.clone()).filter(|said| !said.is_empty()),
        Err(why) => Some(why.clone()),
    };
    let (at, took) = (from.since(began), to.since(from));
    Act { at, took, phase: phase.to_owned(), what, result: said, is_ok: result.is_ok() }
}
