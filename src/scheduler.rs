//! The scheduler: sleeps until a journey is due, starts its run, and refuses overlap. One heap, one timer.
//!
//! Slots are wall-clock times; waiting is monotonic. Interval journeys stay in the heap. Calendar journeys enter it when
//! the planner's look-ahead reaches their next occurrence, so that a wall clock that steps, or a zone that changes, is heeded.

mod asked;
mod careful;
mod replan;
mod resumed;
mod shift;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::Subject;
use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::commands::Refusal;
use crate::control::AskedRun;
use crate::detect::drift::Measured;
use crate::detect::{Detector, Finding};
use crate::journey::outcome::{ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Purpose;
use crate::journey::schedule::Schedule;
use crate::journey::spend::Spending;
use crate::journey::token::Token;
use crate::journey::{Journey, Name};
use crate::metrics::{DaemonMetrics, SpendMetrics};
use crate::runner::resume::Left;
use crate::runner::{Ends, Order, Runner, not_run};
use crate::scheduler::asked::{Promised, Standing, end_turn, rule};
use crate::scheduler::careful::Careful;
use crate::scheduler::shift::{Shares, next_shift};
use crate::time::{Human, Mono, Now, between, later};

pub use asked::Wish;
pub use replan::Replan;
pub use shift::{Gain, Shift};

/// Calendar journeys enter the heap this long before they are due.
const LOOK_AHEAD: Duration = Duration::from_secs(60);
/// A wall clock that differs by this much from where the monotonic clock says it should be has stepped.
const STEP: Duration = Duration::from_secs(1);
/// People are told of a step of this much: a zone or a battery is wrong, or the machine slept.
const TELL_STEP: Duration = Duration::from_secs(30);
/// The clock is well again when it has not stepped for so long.
const STEADY: Duration = Duration::from_secs(600);
/// A slot that could not be started within this is missed, not late: the machine slept, or we were stopped.
const MISSED_AFTER: Duration = Duration::from_secs(10);

/// When we stop, a message that is on its way has so long to come before its run is left to the next process: what is pushed to us
/// finds nobody then.
const LEAVE_AFTER: Duration = Duration::from_secs(2);

/// Skipped slots that wait for the evaluator at most.
const UNTOLD: usize = 100_000;

/// What became of a slot.
///
/// What a daemon that does not decide tells the one that does is this as JSON; what is about itself, it keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// Its run ended.
    Finished(Box<Report>),
    /// Its run ended long ago, on a daemon that could not say so in time: what another counted of the slot stands, unless that was
    /// that nobody knew.
    Belated(Box<Report>),
    /// A run that was started to confirm a failed one ended. It is no slot of its own.
    Confirmed(Box<Report>),
    /// A run ended that stands in for one of which a restart left nothing to know. It is no slot of its own.
    Repeated(Box<Report>),
    /// A run that somebody asked for ended. It is no slot.
    Asked {
        /// What it came to.
        report: Box<Report>,
        /// Who asked for it.
        run: AskedRun,
    },
    /// There was no run.
    Skipped {
        /// Which journey.
        journey: Name,
        /// Which slot.
        slot: Timestamp,
        /// What the slot comes to: unknown, or excluded.
        outcome: Outcome,
    },
    /// A message came after its run had ended without it.
    Late {
        /// Whose run.
        journey: crate::journey::Name,
        /// Which slot.
        slot: Timestamp,
        /// The run's token.
        token: crate::journey::token::Token,
        /// When it came.
        at: Timestamp,
    },
    /// These journeys are run by another daemon from now on, or by this one.
    TakenUp {
        /// Which.
        journeys: Vec<Name>,
        /// Slots up to here that nobody has a verdict of, nobody will run.
        until: Timestamp,
        /// Those that somebody goes on with.
        waiting: HashMap<Name, Vec<Timestamp>>,
    },
    /// Another daemon saw it.
    #[serde(skip)]
    Elsewhere {
        /// Which.
        writer: String,
        /// Which of what it said.
        number: i64,
        /// What it saw; nothing, if it cannot be read.
        what: Option<Box<Observation>>,
    },
    /// How a journey's last runs compare with those of the days before.
    #[serde(skip)]
    Measured {
        /// Which journey.
        journey: Name,
        /// What was measured.
        measured: Measured,
    },
    /// A channel's reader can receive, or could not for too long.
    #[serde(skip)]
    Reading {
        /// Which channel.
        channel: crate::journey::Name,
        /// Why it cannot, for people; `None` if it can.
        trouble: Option<String>,
    },
    /// A channel's breaker refuses calls, or does not any more.
    #[serde(skip)]
    Breaking {
        /// Which channel.
        channel: Name,
        /// Whether it refuses them.
        is_open: bool,
        /// Why, for people, if it has done so for too long.
        trouble: Option<String>,
    },
    /// What was found about a part of the daemon; nothing, if it is well.
    #[serde(skip)]
    Condition {
        /// What it is about.
        subject: Subject,
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
}

impl Observation {
    /// Whether nobody waits for what follows from it.
    pub fn is_well(&self) -> bool {
        match self {
            Observation::Finished(report) => report.outcome.verdict() == Verdict::Good,
            Observation::Skipped { .. } => true,
            Observation::Elsewhere { what, .. } => what.as_ref().is_none_or(|what| what.is_well()),
            _ => false,
        }
    }

    /// The journey that it is about, if it is about one.
    pub fn journey(&self) -> Option<&Name> {
        match self {
            Observation::Finished(report)
            | Observation::Belated(report)
            | Observation::Confirmed(report)
            | Observation::Repeated(report)
            | Observation::Asked { report, .. } => Some(&report.journey),
            Observation::Skipped { journey, .. }
            | Observation::Late { journey, .. }
            | Observation::Measured { journey, .. } => Some(journey),
            Observation::TakenUp { .. }
            | Observation::Elsewhere { .. }
            | Observation::Reading { .. }
            | Observation::Breaking { .. }
            | Observation::Condition { .. } => None,
        }
    }
}

/// Starts runs when they are due.
pub struct Scheduler {
    entries: Vec<Entry>,
    heap: BinaryHeap<Reverse<(Mono, usize)>>,
    clock: Clock,
    hands: Arc<Hands>,
    /// Where several daemons share the journeys: those of the shards that this one has.
    shares: Option<Shares>,
    wishes: mpsc::Receiver<Wish>,
    /// Where wishes for what other daemons run are passed on.
    elsewhere: Option<mpsc::Sender<Wish>>,
    replans: mpsc::Receiver<Replan>,
    board: Arc<Board>,
    /// Where the wall clock should be: its offset from the monotonic clock.
    reference: Now,
    /// When the wall clock last stepped by so much that people are told.
    stepped: Option<Mono>,
    /// When it began to run. What was due before was not started in time by anyone.
    began: Mono,
    /// When every journey was last looked at.
    looked_over: Mono,
    /// What the evaluator, being behind, could not take yet.
    untold: VecDeque<Observation>,
    /// What may still be sent today through channels with a limit.
    spending: Spending,
    spend_metrics: BTreeMap<Name, SpendMetrics>,
    /// What the process before left behind.
    left: Vec<Left>,
    /// After a crash loop.
    careful: Option<Careful>,
}

/// What a run is done with, and where it is told.
struct Hands {
    runner: Arc<Runner>,
    permits: Permits,
    observations: mpsc::Sender<Observation>,
    metrics: Arc<DaemonMetrics>,
    /// Nothing new is begun any more.
    closing: CancellationToken,
    /// Runs that only wait are left to the next process.
    leave: CancellationToken,
    /// Cuts the runs that are still going when the drain's time is over.
    cut: CancellationToken,
    /// Those under way.
    runs: TaskTracker,
}

impl Hands {
    /// Waits until a run may begin that is put off, without keeping anything from others meanwhile.
    async fn put_off(&self, until: Mono, critical: bool, permits: Permit) -> Option<Permit> {
        drop(permits);
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = self.runner.clock.sleep_until(until) => {}
        }
        tokio::select! {
            biased;
            () = self.cut.cancelled() => None,
            permits = self.permits.wait(critical) => permits,
        }
    }
}

struct Entry {
    journey: Arc<Journey>,
    /// What its runs are done with.
    hands: Arc<Hands>,
    /// The slot in the heap, or the last that was: the next is after it.
    slot: Timestamp,
    is_queued: bool,
    turn: Arc<Mutex<Turn>>,
    /// When somebody last asked for a run, and got one.
    asked: Option<Mono>,
}

impl Entry {
    /// A journey whose slots up to `counted` are counted already.
    fn new(journey: Arc<Journey>, hands: Arc<Hands>, counted: Timestamp) -> Entry {
        Entry { journey, hands, slot: counted, is_queued: false, turn: Arc::default(), asked: None }
    }
}

/// Whose turn it is for a journey: a run's, or nobody's.
#[derive(Default)]
struct Turn {
    is_running: bool,
    /// The last run failed: what is known need not be confirmed again.
    has_failed: bool,
    /// Slots that came while the run was going. They are told after it, because slots count in their order.
    skipped: Vec<(Timestamp, Outcome)>,
    /// The run that somebody asked for, until it has ended.
    asked: Option<AskedRun>,
    /// What makes it, until it begins.
    promised: Option<Promised>,
}

impl Turn {
    /// Takes the turn for a run, unless one is going: then the slot is skipped.
    fn take(turn: &Mutex<Turn>, slot: Timestamp) -> bool {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.is_running {
            turn.skipped.push((slot, Outcome::Unknown { why: UnknownWhy::Skipped }));
            return false;
        }
        turn.is_running = true;
        true
    }

    /// Takes down how the run ended; whether the one before did not fail.
    fn note(turn: &Mutex<Turn>, has_failed: bool) -> bool {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut turn.has_failed, has_failed)
    }

    /// Ends it, unless a run is promised, which keeps it; gives the slots that came meanwhile.
    fn end(turn: &Mutex<Turn>) -> (Vec<(Timestamp, Outcome)>, Option<Promised>) {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = turn.promised.take();
        turn.is_running = promised.is_some();
        (std::mem::take(&mut turn.skipped), promised)
    }

    /// Keeps the slot for after the run; `false` if none is going.
    fn keep(turn: &Mutex<Turn>, slot: Timestamp, outcome: &Outcome) -> bool {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.is_running {
            turn.skipped.push((slot, outcome.clone()));
        }
        turn.is_running
    }
}

/// Leave for one run: of all, and of the ordinary ones.
type Permit = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Global permits; a quarter is kept for critical journeys.
#[derive(Clone)]
struct Permits {
    all: Arc<Semaphore>,
    ordinary: Arc<Semaphore>,
}

impl Permits {
    fn new(max: usize) -> Permits {
        let max = max.max(1);
        Permits { all: Arc::new(Semaphore::new(max)), ordinary: Arc::new(Semaphore::new((max - max / 4).max(1))) }
    }

    fn take(&self, critical: bool) -> Option<Permit> {
        let ordinary = if critical { None } else { Some(self.ordinary.clone().try_acquire_owned().ok()?) };
        Some((self.all.clone().try_acquire_owned().ok()?, ordinary))
    }

    /// As [`Permits::take`], once there are some.
    async fn wait(&self, critical: bool) -> Option<Permit> {
        let ordinary = if critical { None } else { Some(self.ordinary.clone().acquire_owned().await.ok()?) };
        Some((self.all.clone().acquire_owned().await.ok()?, ordinary))
    }
}

impl Scheduler {
    /// A scheduler for these journeys, whose slots up to `counted` are counted already.
    pub fn new(
        journeys: &[Arc<Journey>],
        counted: Timestamp,
        runner: Arc<Runner>,
        max_runs: usize,
        observations: mpsc::Sender<Observation>,
        metrics: Arc<DaemonMetrics>,
        clock: Clock,
    ) -> Scheduler {
        let now = clock.now();
        let hands = Arc::new(Hands {
            runner,
            permits: Permits::new(max_runs),
            observations,
            metrics,
            closing: CancellationToken::new(),
            leave: CancellationToken::new(),
            cut: CancellationToken::new(),
            runs: TaskTracker::new(),
        });
        let entry = |journey: &Arc<Journey>| Entry::new(journey.clone(), hands.clone(), counted);
        Scheduler {
            entries: journeys.iter().filter(|journey| journey.is_run()).map(entry).collect(),
            heap: BinaryHeap::with_capacity(journeys.len()),
            clock,
            hands,
            shares: None,
            // Nobody wishes for anything.
            wishes: mpsc::channel(1).1,
            elsewhere: None,
            // Nor changes anything.
            replans: mpsc::channel(1).1,
            board: Arc::default(),
            reference: now,
            // The daemon before may have told of a step: this one says when the clock is steady.
            stepped: Some(now.mono),
            began: now.mono,
            looked_over: now.mono,
            untold: VecDeque::new(),
            spending: Spending::default(),
            spend_metrics: BTreeMap::new(),
            left: Vec::new(),
            careful: None,
        }
    }

    /// Goes on with what the process before left behind.
    pub fn with_left(self, left: Vec<Left>) -> Scheduler {
        Scheduler { left, ..self }
    }

    /// Keeps to what these channels may spend, and shows it.
    pub fn with_spending(mut self, spending: Spending, metrics: BTreeMap<Name, SpendMetrics>) -> Scheduler {
        (self.spending, self.spend_metrics) = (spending, metrics);
        self.show_spending(self.clock.now());
        self
    }

    /// Runs what people ask for, too, and shows it until it has ended.
    pub fn with_wishes(self, wishes: mpsc::Receiver<Wish>, board: Arc<Board>) -> Scheduler {
        Scheduler { wishes, board, ..self }
    }

    /// Passes wishes on for what other daemons run.
    pub fn passing_on(self, elsewhere: mpsc::Sender<Wish>) -> Scheduler {
        Scheduler { elsewhere: Some(elsewhere), ..self }
    }

    /// Takes up other journeys while it runs.
    pub fn with_replans(self, replans: mpsc::Receiver<Replan>) -> Scheduler {
        Scheduler { replans, ..self }
    }

    fn show_spending(&self, now: Now) {
        for (channel, spent, limit) in self.spending.today(now.wall) {
            if let Some(metrics) = self.spend_metrics.get(channel) {
                metrics.set(spent, limit);
            }
        }
    }

    /// Runs until `stop`; then waits for the runs under way, at most `drain`: those that only wait are left to the next process
    /// before, and the rest is cut. `plan` is the calendar's tick.
    pub async fn run(
        mut self,
        mut plan: mpsc::Receiver<()>,
        pulse: Arc<Pulse>,
        stop: CancellationToken,
        drain: Duration,
    ) {
        self.began = self.clock.now().mono;
        self.take_up();
        self.plan(self.clock.now());
        loop {
            let now = self.clock.now();
            pulse.beat(now.mono);
            self.tell_untold();
            self.notice_clock_step(now);
            if self.stepped.is_some_and(|at| now.mono.since(at) >= STEADY) {
                self.stepped = None;
                self.untold.push_back(clock_condition(Vec::new()));
            }
            self.end_careful(now.mono);
            self.start_due(now);
            let due = self.heap.peek().map_or(now.mono + BEAT, |Reverse((due, _))| *due);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.clock.sleep_until(due.min(now.mono + BEAT)) => {}
                Some(replan) = self.replans.recv() => self.replan(replan, self.clock.now()),
                Some(shift) = next_shift(&mut self.shares) => self.shift(shift, self.clock.now()).await,
                Some(wish) = self.wishes.recv() => self.answer(wish, self.clock.now()),
                // Ticks come from the coarse clock. Should they fail to come, the beat plans too: see `plan_overdue`.
                Some(()) = plan.recv() => self.plan(self.clock.now()),
            }
            self.plan_overdue();
            // A new day begins without a run.
            self.show_spending(now);
        }
        self.drain(drain).await;
    }

    async fn drain(self, within: Duration) {
        let hands = std::iter::once(&self.hands).chain(self.shares.iter().flat_map(Shares::hands));
        join_all(hands.map(|hands| hands.drain(LEAVE_AFTER.min(within), within))).await;
    }

    /// Puts every journey into the heap whose next slot is near enough.
    fn plan(&mut self, now: Now) {
        for index in 0..self.entries.len() {
            self.queue(index, now);
        }
    }

    /// Calendar journeys whose turn nobody planned: the coarse clock is late or dead, and runs must not be. Every journey is looked
    /// at, so once a beat is enough.
    fn plan_overdue(&mut self) {
        let now = self.clock.now();
        if now.mono.since(self.looked_over) < BEAT {
            return;
        }
        self.looked_over = now.mono;
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if !entry.is_queued && between(entry.slot, now.wall) > LOOK_AHEAD / 2 {
                self.queue(index, now);
            }
        }
    }

    fn queue(&mut self, index: usize, now: Now) {
        let entry = &mut self.entries[index];
        if entry.is_queued {
            return;
        }
        let Some(slot) = entry.journey.schedule.next(entry.slot) else { return };
        let is_calendar = matches!(entry.journey.schedule, Schedule::Cron(_));
        if is_calendar && slot > later(now.wall, LOOK_AHEAD) {
            return;
        }
        entry.slot = slot;
        entry.is_queued = true;
        self.heap.push(Reverse((due_at(slot, now), index)));
    }

    fn start_due(&mut self, now: Now) {
        while let Some(Reverse((due, index))) = self.heap.peek().copied() {
            if due > now.mono {
                return;
            }
            self.heap.pop();
            self.entries[index].is_queued = false;
            let slot = self.entries[index].slot;
            let late = now.mono.since(due);
            if late > MISSED_AFTER || due < self.began {
                self.miss(index, late, now);
            } else {
                self.start(index, slot, late, now);
            }
            self.queue(index, now);
        }
    }

    fn start(&mut self, index: usize, slot: Timestamp, late: Duration, now: Now) {
        let entry = &self.entries[index];
        let (journey, turn, hands) = (entry.journey.clone(), entry.turn.clone(), entry.hands.clone());
        // Before anything else: a slot that is not to be run has not been missed, whatever else would have kept it.
        if self.board.docket().silences.iter().any(|silence| silence.keeps_from_running(&journey, now.wall)) {
            self.hands.metrics.skipped_paused.increment(1);
            self.skip(index, slot, Outcome::Excluded { why: ExcludedWhy::Paused });
            return;
        }
        if !self.spending.allows(&journey.name, now.wall) {
            self.hands.metrics.skipped_spend.increment(1);
            self.skip(index, slot, Outcome::Excluded { why: ExcludedWhy::Spend });
            return;
        }
        if !Turn::take(&turn, slot) {
            self.hands.metrics.skipped_overlap.increment(1);
            return;
        }
        let Some(permits) = self.hands.permits.take(journey.critical) else {
            // It has only just been taken: nothing is promised in it.
            let _ = Turn::end(&turn);
            self.hands.metrics.skipped_capacity.increment(1);
            self.skip(index, slot, Outcome::Unknown { why: UnknownWhy::Skipped });
            return;
        };
        let spent = self.spending.spend(&journey.name, now.wall);
        let is_free = spent.is_empty();
        self.show_spending(now);
        self.hands.metrics.lateness.record(late.as_secs_f64());
        self.hands.metrics.in_flight.increment(1.0);
        let put_off = hands.runner.put_off(&journey);
        let runs = hands.runs.clone();
        runs.spawn(async move {
            let permits = match put_off {
                None => Some(permits),
                // Boxed: of the thousands of runs that wait at once, next to none waits for this.
                Some(at) => Box::pin(hands.put_off(at, journey.critical, permits)).await,
            };
            let order = Order { spent, ..hands.runner.order(journey.clone(), slot) };
            // A run that is left keeps its turn: nothing is begun any more.
            let Some(mut report) = hands.make(order).await else { return };
            report.lateness = late;
            drop(permits);
            hands.metrics.in_flight.decrement(1.0);
            if hands.tell_first_failure(&turn, report, is_free, Observation::Finished).await {
                confirm(&hands, &journey, slot).await;
            }
            end_turn(&hands, &journey, &turn).await;
        });
    }

    /// Runs a journey because somebody asked for it, or says why not.
    fn answer(&mut self, wish: Wish, now: Now) {
        let Some(index) = self.entries.iter().position(|entry| entry.journey.name == wish.journey) else {
            return self.pass_on(wish);
        };
        let Wish { journey, by, answer, .. } = wish;
        let entry = &self.entries[index];
        let going = Turn::asked(&entry.turn);
        let may_spend = self.spending.allows_beside(&journey, now.wall);
        let standing = Standing { going: going.as_ref(), last: entry.asked, may_spend };
        let answered = rule(&journey, standing, now.mono).map(|going| {
            tracing::info!(%journey, by, is_going = going.is_some(), "asked for a run");
            going.unwrap_or_else(|| self.promise(index, by.clone(), now))
        });
        if let Err(why) = &answered {
            tracing::info!(%journey, by, %why, "asked for a run, in vain");
        }
        let _ = answer.send(answered);
    }

    /// Another daemon may have the journey.
    fn pass_on(&self, wish: Wish) {
        let journey = &wish.journey;
        let is_elsewhere = self.shares.as_ref().is_some_and(|shares| shares.knows(journey));
        let (wish, refusal) = match &self.elsewhere {
            _ if !is_elsewhere => {
                let refusal = Refusal::Unknown(format!("no journey is named `{journey}`"));
                (wish, refusal)
            }
            Some(elsewhere) if wish.may_pass => match elsewhere.try_send(wish) {
                Ok(()) => return,
                Err(error) => (
                    error.into_inner(),
                    Refusal::Unavailable("too many runs are asked for already; try again".to_owned()),
                ),
            },
            _ => {
                let refusal = Refusal::Unavailable(format!("another daemon has just taken `{journey}` up; try again"));
                (wish, refusal)
            }
        };
        let _ = wish.answer.send(Err(refusal));
    }

    /// One run beside the schedule, in the journey's next turn.
    fn promise(&mut self, index: usize, by: String, now: Now) -> AskedRun {
        let journey = self.entries[index].journey.clone();
        let spent = self.spending.spend(&journey.name, now.wall);
        self.show_spending(now);
        let token = self.hands.runner.mint.issue(now.wall);
        let run = AskedRun { journey: journey.name.clone(), token, by, at: now.wall };
        self.board.set_asked(run.clone());
        let entry = &mut self.entries[index];
        entry.asked = Some(now.mono);
        if Turn::promise(&entry.turn, Promised { run: run.clone(), spent }) {
            let (hands, turn) = (entry.hands.clone(), entry.turn.clone());
            let runs = hands.runs.clone();
            runs.spawn(async move { end_turn(&hands, &journey, &turn).await });
        }
        run
    }

    fn skip(&mut self, index: usize, slot: Timestamp, outcome: Outcome) {
        let entry = &self.entries[index];
        if !Turn::keep(&entry.turn, slot, &outcome) {
            self.untold.push_back(Observation::Skipped { journey: entry.journey.name.clone(), slot, outcome });
            self.tell_untold();
        }
    }

    /// Runs must not wait for the evaluator; what it cannot take now, it takes in the next round.
    fn tell_untold(&mut self) {
        while let Some(observation) = self.untold.pop_front() {
            match self.hands.observations.try_send(observation) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(observation)) if self.untold.len() < UNTOLD => {
                    self.untold.push_front(observation);
                    return;
                }
                Err(_) => tracing::warn!("the evaluator is far behind: a skipped slot was counted in the metric only"),
            }
        }
    }

    /// Slots that went by while nothing ran are not replayed.
    fn miss(&mut self, index: usize, late: Duration, now: Now) {
        let entry = &mut self.entries[index];
        let journey = entry.journey.clone();
        let first = entry.slot;
        let until = now.wall;
        let missed: Vec<_> = std::iter::once(first).chain(journey.schedule.slots(first, until, 100_000)).collect();
        entry.slot = missed.last().copied().unwrap_or(first);
        if late > MISSED_AFTER {
            tracing::warn!(journey = %journey.name, slots = missed.len(), "slots were missed: the machine slept, or was too busy");
        }
        for slot in missed {
            self.hands.metrics.skipped_missed.increment(1);
            self.skip(index, slot, Outcome::Unknown { why: UnknownWhy::Missed });
        }
    }

    /// After a step of the wall clock the slots are looked up anew; what is already due stays due.
    fn notice_clock_step(&mut self, now: Now) {
        let expected = self.reference.wall_at(now.mono);
        let difference = between(expected, now.wall).max(between(now.wall, expected));
        self.reference = now;
        if difference < STEP {
            return;
        }
        self.hands.metrics.clock_steps.increment(1);
        tracing::warn!(by_seconds = difference.as_secs_f64(), "the wall clock stepped; slots are planned anew");
        if difference >= TELL_STEP {
            let said = format!(
                "the wall clock stepped by {}; slots were planned anew, latencies are not touched by it",
                Human(difference)
            );
            self.stepped = Some(now.mono);
            self.untold.push_back(clock_condition(vec![Finding::new(Detector::Clock, said)]));
        }
        self.heap.clear();
        for entry in &mut self.entries {
            entry.is_queued = false;
            // What the clock jumped over is not made up for. What it goes through again runs again, and counts once.
            entry.slot = now.wall;
        }
        self.plan(now);
    }
}

fn clock_condition(findings: Vec<Finding>) -> Observation {
    Observation::Condition { subject: Subject::Daemon("clock".into()), findings }
}

impl Hands {
    /// Makes a run, whatever comes between. `None` if it is left to the next process.
    async fn make(&self, order: Order) -> Option<Report> {
        let (journey, token, slot) = (order.journey.clone(), order.token, order.slot);
        self.whatever_comes(journey, token, slot, self.runner.run(order, self.ends())).await
    }

    fn ends(&self) -> Ends<'_> {
        Ends { cut: &self.cut, leave: Some(&self.leave) }
    }

    /// Waits for the runs under way, at most `within`: those that only wait are left to whoever comes next after `patience`, and the
    /// rest is cut.
    async fn drain(&self, patience: Duration, within: Duration) {
        self.closing.cancel();
        self.runs.close();
        if tokio::time::timeout(patience, self.runs.wait()).await.is_ok() {
            return;
        }
        tracing::info!(runs = self.runs.len(), "runs that only wait are left to whoever goes on");
        self.leave.cancel();
        if tokio::time::timeout(within.saturating_sub(patience), self.runs.wait()).await.is_err() {
            tracing::warn!(runs = self.runs.len(), "cutting runs that did not end in time; they are unknown");
            self.cut.cancel();
            self.runs.wait().await;
        }
    }

    /// A fault of ours in one run must not end the journey: the slot is unknown, and the next one runs.
    async fn whatever_comes(
        &self,
        journey: Arc<Journey>,
        token: Token,
        slot: Timestamp,
        run: impl Future<Output = Option<Report>>,
    ) -> Option<Report> {
        AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(journey = %journey.name, run = %token, "a run panicked; it is unknown");
            let now = self.runner.clock.now();
            Some(not_run(&journey, token, slot, now, UnknownWhy::Internal, "a fault of ours; the log has it"))
        })
    }

    /// Tells how a run ended; whether it failed, and the one before did not.
    async fn tell_first_failure(
        &self,
        turn: &Mutex<Turn>,
        report: Report,
        is_free: bool,
        told: impl Fn(Box<Report>) -> Observation,
    ) -> bool {
        let has_failed = report.outcome.verdict() == Verdict::Failed;
        // What a limited channel may send is counted in slots.
        let is_first = Turn::note(turn, has_failed) && has_failed && is_free;
        // The evaluator outlives the scheduler; if it is gone, so is whoever could be told.
        let _ = self.observations.send(told(Box::new(report))).await;
        is_first
    }
}

/// Runs a journey that just failed again, as often and as long after as its policy says, until it does not fail. The journey keeps
/// its turn, so its next slot does not overlap.
async fn confirm(hands: &Hands, journey: &Arc<Journey>, slot: Timestamp) {
    let Hands { runner, permits, observations, leave, .. } = hands;
    for wait in &journey.alert.confirm {
        let failed = runner.clock.now().mono;
        let until = failed + *wait;
        tokio::select! {
            biased;
            () = leave.cancelled() => return,
            () = runner.clock.sleep_until(until) => {}
        }
        // A crowd that confirms must not take what is kept for others either.
        let permits = tokio::select! {
            biased;
            () = leave.cancelled() => return,
            permits = permits.wait(journey.critical) => permits,
        };
        let order = runner.order(journey.clone(), slot);
        let order = Order { purpose: Purpose::Confirmation, connected_since: Some(failed), ..order };
        let report = hands.make(order).await;
        drop(permits);
        let Some(report) = report else { return };
        let has_failed = report.outcome.verdict() == Verdict::Failed;
        let _ = observations.send(Observation::Confirmed(Box::new(report))).await;
        if !has_failed {
            return;
        }
    }
}

fn due_at(slot: Timestamp, now: Now) -> Mono {
    if slot >= now.wall { now.mono + between(now.wall, slot) } else { now.mono - between(slot, now.wall) }
}

/// Schedulers for tests: with a store of their own, and no channels.
#[cfg(test)]
mod staging {
    use super::*;
    use crate::journey::token::Mint;
    use crate::runner::switchboard::Switchboard;
    use crate::store::sqlite::Sqlite;

    pub(super) struct Staged {
        pub(super) scheduler: Scheduler,
        pub(super) observed: mpsc::Receiver<Observation>,
        /// To be removed after the test.
        pub(super) directory: std::path::PathBuf,
    }

    /// A scheduler at this time, whose slots are counted up to then; no other test of this process has this `name`.
    pub(super) fn staged(name: &str, journeys: &[Arc<Journey>], at: Timestamp) -> Staged {
        let directory = std::env::temp_dir().join(format!("journeyman-scheduler-{}-{name}", std::process::id()));
        let clock = Clock::derived(at);
        let mint = Arc::new(Mint::new([1; 32], 0));
        let runner = Arc::new(Runner {
            channels: BTreeMap::new().into(),
            switchboard: Arc::new(Switchboard::new(mint.clone(), Default::default(), [])),
            store: Arc::new(Sqlite::open(&directory.join("state.db")).unwrap()),
            clock,
            mint,
            redactor: crate::secret::Redactor::new(),
            observer: None,
            sieve: None,
            spare: None,
        });
        let (observations, observed) = mpsc::channel(64);
        let metrics = Arc::new(Arc::new(crate::metrics::Metrics::new(&[], None)).daemon());
        let scheduler = Scheduler::new(journeys, at, runner, 4, observations, metrics, clock);
        Staged { scheduler, observed, directory }
    }
}

#[cfg(test)]
mod tests {
    use super::staging::{Staged, staged};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    /// Told before its run, a later slot would make the run's own verdict come too late to count.
    #[test]
    fn slots_that_come_during_a_run_are_told_after_it() {
        let turn = Mutex::default();
        let [missed, skipped] = [UnknownWhy::Missed, UnknownWhy::Skipped].map(|why| Outcome::Unknown { why });
        assert!(!Turn::keep(&turn, at(0), &missed), "nobody's turn: tell it now");
        assert!(Turn::take(&turn, at(0)));
        assert!(!Turn::take(&turn, at(10)));
        assert!(Turn::keep(&turn, at(20), &missed));
        assert_eq!(Turn::end(&turn).0, [(at(10), skipped), (at(20), missed)]);
        assert!(Turn::take(&turn, at(30)));
        assert_eq!(Turn::end(&turn).0, []);
    }

    /// The daemon before may have told of a step and been killed.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_steady_after_a_start_is_told_of_once() {
        let Staged { scheduler, mut observed, directory } = staged("steady", &[], at(0));
        let clock = scheduler.clock;
        let (_plan, ticks) = mpsc::channel(1);
        let pulse = crate::board::Board::default().pulse("scheduler", clock.now().mono);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(scheduler.run(ticks, pulse, CancellationToken::new(), Duration::ZERO));
        let told = tokio::time::timeout(STEADY * 2, observed.recv()).await.unwrap().unwrap();
        let Observation::Condition { subject, findings } = told else { panic!("{told:?}") };
        assert_eq!((subject, findings), (Subject::Daemon("clock".into()), Vec::new()));
        assert!(clock.now().mono.0 >= STEADY);
        assert!(tokio::time::timeout(STEADY * 2, observed.recv()).await.is_err(), "once");
        drop(tasks);
        let _ = std::fs::remove_dir_all(directory);
    }

    #[test]
    fn a_quarter_of_the_permits_is_kept_for_critical_journeys() {
        let permits = Permits::new(8);
        let ordinary: Vec<_> = std::iter::from_fn(|| permits.take(false)).collect();
        assert_eq!(ordinary.len(), 6);
        let critical: Vec<_> = std::iter::from_fn(|| permits.take(true)).collect();
        assert_eq!(critical.len(), 2);
        drop(ordinary);
        assert!(permits.take(false).is_some());
    }

    #[test]
    fn a_slot_is_due_when_the_wall_clock_says_so() {
        let now = Now { wall: at(100), mono: Mono(Duration::from_secs(50)) };
        assert_eq!(due_at(at(107), now), Mono(Duration::from_secs(57)));
        assert_eq!(due_at(at(98), now), Mono(Duration::from_secs(48)));
    }
}
