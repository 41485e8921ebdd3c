//! The daemon's tasks: their names, their ends, and the small ones among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::{Housekeeping, gates, journal};
use crate::board::{BEAT, Board, Pulse};
use crate::calendar::Chore;
use crate::channel::Readiness;
use crate::channel::webhook::CallResult;
use crate::clock::Clock;
use crate::http::Views;
use crate::journey::message::Arrival;
use crate::ledger::Kind;
use crate::metrics::DaemonMetrics;
use crate::observer::Observer;
use crate::runner::Runner;
use crate::runner::open::OpenChannel;
use crate::scheduler::Observation;
use crate::store::Retention;
use crate::time::{Human, earlier};

/// A channel that cannot receive for so long has an alert of its own, which people then have within the minute; until then its
/// journeys are `unknown`.
const CHANNEL_DOWN: Duration = Duration::from_secs(45);
/// Evidence of good runs is kept for this long; that of failed and slow runs as long as the runs.
const KEEP_GOOD_EVIDENCE: Duration = Duration::from_secs(2 * 86_400);

/// Messages on their way to other daemons at most; more wait to be read.
const PASSED_ON: usize = 256;

/// Tasks with names. None is lost sight of: one that ends, or panics, is known by its name.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, Named>,
}

/// A task: its name, and what was told to stop it alone, if anything can be.
struct Named {
    name: &'static str,
    stop: Option<CancellationToken>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, Named { name, stop: None });
    }

    /// One that may end before the others do: once `stop` is cancelled.
    pub(super) fn spawn_until(
        &mut self,
        name: &'static str,
        stop: &CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), Named { name, stop: Some(stop.clone()) });
        handle
    }

    /// The name of the task that ended; nothing, if it was to.
    fn ended(&mut self, result: Result<(Id, ()), JoinError>) -> Option<&'static str> {
        let id = match &result {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Named { name, stop } = self.names.remove(&id).unwrap_or(Named { name: "unnamed", stop: None });
        if let Err(error) = result
            && error.is_panic()
        {
            tracing::error!(task = name, %error, "a task panicked");
            return Some(name);
        }
        stop.is_none_or(|stop| !stop.is_cancelled()).then_some(name)
    }

    /// The name of the next task that ends and was not to.
    pub(super) async fn next_ended(&mut self) -> &'static str {
        loop {
            match self.set.join_next_with_id().await {
                Some(result) => {
                    if let Some(name) = self.ended(result) {
                        return name;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until every task of these names has ended, or says who is late.
    pub(super) async fn wait_for(&mut self, names: &[&str], within: Duration) {
        let all_ended = async {
            while self.names.values().any(|task| names.contains(&task.name)) {
                match self.set.join_next_with_id().await {
                    Some(result) => drop(self.ended(result)),
                    None => return,
                }
            }
        };
        if tokio::time::timeout(within, all_ended).await.is_err() {
            let late: Vec<_> = self.names.values().map(|task| task.name).filter(|name| names.contains(name)).collect();
            tracing::warn!(?late, seconds = within.as_secs(), "did not stop in time");
        }
    }

    pub(super) fn abort(&mut self) {
        self.set.abort_all();
    }
}

/// Serves people and machines from a thread of its own: how we are must be told also when a worker of the runtime is stuck, with
/// whatever else waited for it.
pub(super) async fn serve_apart(listener: TcpListener, views: Views, stop: CancellationToken) {
    let serve = move |listener: std::net::TcpListener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { crate::http::serve(TcpListener::from_std(listener)?, views, stop).await })
    };
    let (ended, end) = oneshot::channel();
    let served = listener.into_std().and_then(|listener| {
        let thread = std::thread::Builder::new().name("http".to_owned());
        // Nobody waits for it any more if the process is ending.
        thread.spawn(move || drop(ended.send(serve(listener))))
    });
    let result = match served {
        Ok(_) => end.await.unwrap_or_else(|_| Err(std::io::Error::other("its thread panicked"))),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!(%error, "the http listener failed");
    }
}

/// Hands arrivals to the runs that wait for them, those that came `before` us first; what came too late goes to the evaluator.
pub(super) async fn match_arrivals(
    runner: Arc<Runner>,
    before: Vec<Arrival>,
    mut arrivals: mpsc::Receiver<Arrival>,
    observations: mpsc::Sender<Observation>,
    pulse: Arc<Pulse>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut before = before.into_iter();
    // A plan in which nobody receives has no reader from the start, and that is no fault.
    let mut has_readers = true;
    let runner = &*runner;
    let mut passing_on: FuturesUnordered<BoxFuture<'_, bool>> = FuturesUnordered::new();
    loop {
        let now = clock.now().mono;
        pulse.beat(now);
        let arrival = match before.next() {
            Some(arrival) => Some(arrival),
            None => tokio::select! {
                biased;
                Some(is_passed_on) = passing_on.next(), if !passing_on.is_empty() => {
                    if !is_passed_on {
                        tracing::warn!("a message for a run of another daemon could not be passed on");
                    }
                    continue;
                }
                arrival = arrivals.recv(), if has_readers && passing_on.len() < PASSED_ON => arrival,
                // Readers have stopped by now; what they left in the channel was taken first.
                () = stop.cancelled() => return,
                () = clock.sleep_until(now + BEAT) => continue,
            },
        };
        let Some(arrival) = arrival else {
            has_readers = false;
            continue;
        };
        let (channel, at) = (arrival.channel.clone(), arrival.at.wall);
        let open = runner.channels.now().get(&channel).cloned();
        if open.as_ref().is_some_and(|open| open.channel.takes())
            && let Some(token) = journal::elsewhere(runner, &arrival)
        {
            passing_on.push(Box::pin(journal::write(runner, token, &arrival)));
        }
        let sighting = runner.switchboard.arrive(arrival);
        if let Some(open) = open {
            open.metrics().arrived(sighting.kind);
        }
        match sighting.kind {
            Kind::Late => {
                if let (Some(journey), Some(slot), Some(token)) = (sighting.journey, sighting.slot, sighting.token) {
                    let late = Observation::Late { journey, slot, token, at };
                    let _ = observations.send(late).await;
                }
            }
            Kind::Duplicate | Kind::Forged => {
                tracing::info!(%channel, kind = %sighting.kind, journey = sighting.journey.as_deref(), "unexpected arrival");
            }
            Kind::Expected | Kind::Orphan | Kind::Foreign | Kind::Unmatched | Kind::Refused => {}
        }
    }
}

/// Shows a channel's readiness on the board and in its metric, and says when it changes.
pub(super) async fn mirror_readiness(
    open: Arc<OpenChannel>,
    board: Arc<Board>,
    observations: mpsc::Sender<Observation>,
    observer: Option<Arc<Observer>>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut readiness = open.readiness.clone();
    let mut was_ready = false;
    let mut away_since = clock.now().mono;
    let (mut is_said, mut is_news) = (false, true);
    let reading = |trouble| Observation::Reading { channel: open.name.clone(), trouble };
    loop {
        let now = readiness.borrow_and_update().clone();
        if was_ready && now != Readiness::Ready {
            open.metrics().lost();
        }
        if let Some(gate) = open.gate().filter(|_| std::mem::take(&mut is_news)) {
            match &now {
                Readiness::Ready => gate.witness(None),
                Readiness::Down { why } => gate.witness(Some(why)),
                Readiness::Starting => {}
            }
        }
        if was_ready {
            away_since = clock.now().mono;
        }
        was_ready = now == Readiness::Ready;
        // Said once after a start as well: the daemon before may have told that it was down.
        if was_ready && (open.set_reader_down(false) || !std::mem::replace(&mut is_said, true)) {
            let _ = observations.send(reading(None)).await;
        }
        open.metrics().set_ready(now == Readiness::Ready);
        let (ok, detail) = match &now {
            Readiness::Ready => (true, "ready to receive".to_owned()),
            Readiness::Starting => (false, "starting".to_owned()),
            Readiness::Down { why } => {
                tracing::warn!(channel = %open.name, why, "a channel cannot receive");
                (false, why.clone())
            }
        };
        board.update_channel(&open.name, |status| status.readiness = Some(now));
        // Not critical: a broker that is down is news about the broker, not about us.
        board.set_component(&format!("channel {}", open.name), ok, false, detail.clone(), clock.now().wall);
        tokio::select! {
            () = clock.sleep_until(away_since + CHANNEL_DOWN), if !ok && !open.is_reader_down() => {
                // It may be well, and we cut off from it: that is told once, for all.
                let is_ours = async {
                    match &observer {
                        Some(observer) => observer.is_offline().await,
                        None => false,
                    }
                };
                let is_ours = tokio::select! {
                    () = stop.cancelled() => return,
                    is_ours = is_ours => is_ours,
                };
                if is_ours || readiness.has_changed().unwrap_or(false) {
                    // Told when it still cannot and we can.
                    continue;
                }
                open.set_reader_down(true);
                let said = format!("it could not receive for {}: {detail}", Human(CHANNEL_DOWN));
                let _ = observations.send(reading(Some(said))).await;
            }
            changed = readiness.changed() => {
                if changed.is_err() {
                    stop.cancelled().await;
                    return;
                }
                is_news = true;
            }
            () = stop.cancelled() => return,
        }
    }
}

impl Housekeeping {
    /// Does what the calendar asks for, until `stop`.
    pub(super) async fn run(self, mut chores: mpsc::Receiver<Chore>, clock: Clock, stop: CancellationToken) {
        loop {
            let chore = tokio::select! {
                () = stop.cancelled() => return,
                Some(chore) = chores.recv() => chore,
            };
            match chore {
                Chore::Upkeep => {
                    self.metrics.upkeep(clock.now().mono);
                    observe_process(&self.daemon);
                    for (listener, door) in &self.doors {
                        gates::count(listener, door, &self.metrics);
                    }
                    for (channel, open) in self.runner.channels.now().all() {
                        let Some(counts) = open.channel.counts() else { continue };
                        for result in CallResult::ALL {
                            self.metrics.set_webhook_requests(channel, result.as_str(), counts.of(*result));
                        }
                    }
                }
                Chore::Expire => {
                    let (expected, settled) = self.runner.switchboard.expire(clock.now());
                    self.daemon.ledger_expected.set(expected as f64);
                    self.daemon.ledger_settled.set(settled as f64);
                }
                Chore::Retain => self.retain(clock).await,
            }
        }
    }

    async fn retain(&self, clock: Clock) {
        let now = clock.now().wall;
        let retention = Retention {
            runs_before: earlier(now, self.keep_runs),
            good_evidence_before: earlier(now, KEEP_GOOD_EVIDENCE.min(self.keep_runs)),
            ledger_before: now,
        };
        let Some(store) = self.store.borrow().clone() else { return };
        match store.forget(retention).await {
            Ok(rows) => tracing::debug!(rows, "the store forgot what is old"),
            Err(error) => tracing::warn!(%error, "the store could not forget what is old"),
        }
    }
}

/// Resident memory and CPU time from procfs (proc(5)); on other systems they stay unset.
fn observe_process(metrics: &DaemonMetrics) {
    // Linux counts these in pages of 4 KiB and in ticks of 10 ms on every platform that we build for.
    const PAGE: f64 = 4_096.0;
    const TICKS: u64 = 100;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    if let Some(pages) = pages {
        metrics.memory.set(pages * PAGE);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    // The command's name stands in parentheses and may hold anything; fields are counted from behind it.
    let ticks = stat.and_then(|text| {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    });
    if let Some(ticks) = ticks {
        metrics.cpu.absolute(ticks / TICKS);
    }
}

/// Feeds the supervisor's watchdog while every loop goes round: those that start runs, match arrivals, decide, commit and tell, and
/// the own journey through all of them. One that is stuck starves it, and we are started anew. While we drain, loops end in their
/// order and within their time, which is all that is asked of them.
pub(super) async fn feed_watchdog(
    board: Arc<Board>,
    clock: Clock,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        stop.cancelled().await;
        return;
    };
    loop {
        let stuck = if draining.is_cancelled() { Vec::new() } else { board.stuck(clock.now().mono) };
        if stuck.is_empty() {
            tell_supervisor(&[sd_notify::NotifyState::Watchdog]);
        } else {
            tracing::error!(?stuck, "not feeding the watchdog: these loops do not go round");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(limit / 3) => {}
        }
    }
}

/// Asks the supervisor not to lose patience for so long, whatever its own limit is.
pub(super) fn more_time(time: Duration) -> sd_notify::NotifyState<'static> {
    sd_notify::NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// Tells systemd, if it started us.
pub(super) fn tell_supervisor(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the supervisor");
    }
}
