//! Who watches the watcher: the start in the store, the own journey's tail, and what hangs on both.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::dead_man::DeadMan;
use crate::app::own;
use crate::app::tasks::Tasks;
use crate::board::{BEAT, Board, Pulse, STUCK};
use crate::boots::{self, Boot};
use crate::clock::Clock;
use crate::commands::Levers;
use crate::config::Plan;
use crate::delivery::Lender;
use crate::metrics::{DaemonMetrics, Metrics, seconds};
use crate::notifier::null::{Null, Tail};
use crate::store::{Change, Store, StoreError};
use crate::time::{Human, Now};

/// What `/health` calls the parts that are written here.
pub(super) const STORE: &str = "store";
pub(super) const LOOP: &str = "crash loop";
const OWN: &str = "self-journey";

/// Why nobody can watch.
pub(super) enum Unwatched {
    /// The start cannot be written down.
    Store(StoreError),
    /// Something cannot be built; in words.
    Built(String),
}

/// All that watches this daemon from within, not yet running.
pub(super) struct Watch {
    start: Start,
    /// How often the own journey runs, if there is one.
    own: Option<Duration>,
    null: Option<Null>,
    tails: watch::Receiver<Option<Tail>>,
    dead_man: Option<DeadMan>,
}

impl Watch {
    /// Takes the start down, and builds what the plan wants.
    ///
    /// # Errors
    /// The store, or something that cannot be built.
    pub(super) async fn open(
        plan: &Plan,
        store: &Arc<dyn Store>,
        metrics: &Metrics,
        board: &Arc<Board>,
        clock: Clock,
    ) -> Result<Watch, Unwatched> {
        let start = Start::record(store, clock.now().wall).await.map_err(Unwatched::Store)?;
        start.show(board, clock.now());
        let (null, tails) = Null::new(clock.now().wall);
        let dead_man = DeadMan::open(plan, tails.clone(), &start.boot, metrics, store, board, clock);
        Ok(Watch {
            start,
            own: plan.watcher.own.map(|own| own.every),
            null: plan.watcher.own.map(|_| null),
            tails,
            dead_man: dead_man.map_err(Unwatched::Built)?,
        })
    }

    /// The notifier at the end of the own journey. There is one.
    pub(super) fn lender(&mut self, metrics: &Metrics, levers: &Levers) -> Option<Lender> {
        self.null.take().map(|null| own::lender(null, metrics, levers))
    }

    /// What beats with each slot of the own journey.
    pub(super) fn pulse(&self, board: &Board, clock: Clock) -> Option<Arc<Pulse>> {
        self.own.map(|every| board.pulse_within(OWN, own::silence(every), clock.now().mono))
    }

    /// How many crashes in a row came before this start.
    pub(super) fn crashes(&self) -> usize {
        self.start.crashes
    }

    /// Starts all of it; gives this start, for its end.
    pub(super) fn spawn(self, tasks: &mut Tasks, around: &Around, stop_workers: &CancellationToken) -> Boot {
        let Around { store, board, metrics, daemon, clock } = around;
        if let Some(every) = self.own {
            let pipeline = Pipeline::new(self.tails, every, metrics, board, clock.now());
            tasks.spawn("pipeline", pipeline.watch(board.clone(), *clock, stop_workers.clone()));
        }
        if let Some(dead_man) = self.dead_man {
            tasks.spawn("dead man", dead_man.run(stop_workers.clone()));
        }
        let keeper = Keeper {
            boot: self.start.boot.clone(),
            store: store.clone(),
            board: board.clone(),
            metrics: daemon.clone(),
            pulse: board.pulse("store", clock.now().mono),
            clock: *clock,
        };
        tasks.spawn("keeper", keeper.run(stop_workers.clone()));
        self.start.boot
    }
}

/// What it works with.
pub(super) struct Around {
    pub(super) store: Arc<dyn Store>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) daemon: Arc<DaemonMetrics>,
    pub(super) clock: Clock,
}

/// This start, and how many crashes in a row came before it.
struct Start {
    boot: Boot,
    crashes: usize,
}

impl Start {
    /// Takes this start down, and how those before it went.
    ///
    /// # Errors
    /// The store cannot be read or written.
    async fn record(store: &Arc<dyn Store>, now: Timestamp) -> Result<Start, StoreError> {
        let before = store.boots().await?;
        let (boot, crashes) = (Boot::next(&before, now), boots::crashes(&before, now));
        if crashes > 0 {
            tracing::warn!(
                boot = boot.id,
                crashes,
                "the daemon before this one was not stopped in order, and did not live long"
            );
        }
        store.apply(vec![Change::Boot { boot: boot.clone() }]).await?;
        Ok(Start { boot, crashes })
    }

    /// Whether the daemon starts again and again.
    fn is_loop(&self) -> bool {
        self.crashes >= boots::CRASHES
    }

    /// Shows it.
    fn show(&self, board: &Board, now: Now) {
        let Start { boot, crashes } = self;
        let said = match crashes {
            0 => format!("start {}", boot.id),
            _ => format!("start {}; {crashes} crashes in a row came before it", boot.id),
        };
        board.set_component("boots", true, false, said.clone(), now.wall);
        board.set_component(LOOP, !self.is_loop(), false, said, now.wall);
        board.set_component("clock", true, false, "no step was noticed", now.wall);
        board.set_component(STORE, true, true, "takes commits", now.wall);
        board.worked(STORE, now);
        board.expect_work(STORE, STUCK, now.mono);
    }
}

/// Writes down that the daemon lives, so that its end can be told from a crash.
struct Keeper {
    boot: Boot,
    store: Arc<dyn Store>,
    board: Arc<Board>,
    metrics: Arc<DaemonMetrics>,
    pulse: Arc<Pulse>,
    clock: Clock,
}

impl Keeper {
    /// Until `stop`; what the disk says is said on the board.
    async fn run(mut self, stop: CancellationToken) {
        let mut is_failing = false;
        loop {
            self.boot.alive = self.clock.now().wall;
            let written = self.store.apply(vec![Change::Boot { boot: self.boot.clone() }]).await;
            let now = self.clock.now();
            // An answer is a sign of life, whatever it is: a full disk is not healed by a restart.
            self.pulse.beat(now.mono);
            match written {
                Ok(()) => {
                    self.board.worked(STORE, now);
                    // Only what was said here is taken back here: the evaluator may know of more that was not written.
                    if std::mem::take(&mut is_failing) {
                        self.board.set_component(STORE, true, true, "takes commits", now.wall);
                        self.metrics.store_up.set(1.0);
                    }
                }
                Err(error) => {
                    is_failing = true;
                    self.board.set_component(STORE, false, true, error.to_string(), now.wall);
                    self.metrics.store_up.set(0.0);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep_until(now.mono + BEAT) => {}
            }
        }
    }
}

/// The tail of the own journey: its age is the health of the pipeline.
struct Pipeline {
    tails: watch::Receiver<Option<Tail>>,
    every: Duration,
    last: metrics::Gauge,
}

impl Pipeline {
    /// With where the tails are seen. It has to be reached from now on.
    fn new(
        tails: watch::Receiver<Option<Tail>>,
        every: Duration,
        metrics: &Metrics,
        board: &Board,
        now: Now,
    ) -> Pipeline {
        board.set_component(OWN, true, true, "it has not gone round yet", now.wall);
        board.expect_work(OWN, own::limit(every), now.mono);
        Pipeline { tails, every, last: metrics.own() }
    }

    /// Shows each tail.
    async fn watch(mut self, board: Arc<Board>, clock: Clock, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.tails.changed() => if changed.is_err() {
                    stop.cancelled().await;
                    return;
                },
            }
            let Some(tail) = self.tails.borrow_and_update().clone() else { continue };
            let now = clock.now();
            let said = match tail.is_whole() {
                true => format!("goes all the way, every {}", Human(self.every)),
                false => format!("the last run did not: {} ({})", tail.outcome.verdict(), tail.outcome.label()),
            };
            // A run that fails makes it no worse than late.
            board.set_component(OWN, true, true, said, now.wall);
            if tail.is_whole() {
                board.worked(OWN, now);
                self.last.set(seconds(now.wall));
            }
        }
    }
}
