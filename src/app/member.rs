//! One of several daemons that share a store. Each runs its part of the journeys; who has the lease decides and tells besides, and
//! the others say to it what they see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::app::alone::Kit;
use crate::app::errands::Errander;
use crate::app::lead::{Counted, Ground, Lead, Ready, Shown};
use crate::app::outset::{Memory, Outset};
use crate::app::relay::{self, Flush, Relay};
use crate::app::reload::Live;
use crate::app::seat::{Shared, Tenure};
use crate::app::shards::Keeper;
use crate::app::tasks::Tasks;
use crate::app::{DRAIN_PART, alarms, open_spending, store_failure};
use crate::board::Board;
use crate::clock::Clock;
use crate::cluster::LEAD;
use crate::commands::{Command, Levers};
use crate::config::{self, Plan};
use crate::evaluator::Handover;
use crate::exit::{self, Failure};
use crate::http::Standby;
use crate::journey::Journey;
use crate::journey::message::Arrival;
use crate::journey::spend::Spending;
use crate::runner::Runner;
use crate::scheduler::{Gain, Observation, Shift, Wish};
use crate::store::Store;
use crate::store::postgres::{Fence, Turn};
use crate::store::spool::{LIMITS, Queue, Spool};

/// Shifts that wait for the scheduler at most.
const SHIFTS: usize = 4;
/// What people want is asked of the store this often, by who does not decide.
const ASK: Duration = Duration::from_secs(1);

/// What it takes.
pub(super) struct Parts {
    pub(super) shared: Shared,
    pub(super) observed: mpsc::Receiver<Observation>,
    pub(super) commanded: mpsc::Receiver<Command>,
    pub(super) shown: Shown,
    /// What the configuration that runs consists of.
    pub(super) configuration: watch::Receiver<config::Parts>,
    /// Every journey of the plan that runs.
    pub(super) journeys: watch::Receiver<Vec<Arc<Journey>>>,
    /// The plan itself.
    pub(super) plans: watch::Receiver<Arc<Plan>>,
    pub(super) runner: Arc<Runner>,
    pub(super) store: Arc<dyn Store>,
    /// Where messages go that other daemons took for us.
    pub(super) arrivals: mpsc::Sender<Arrival>,
    /// Wishes for what other daemons run.
    pub(super) elsewhere: mpsc::Receiver<Wish>,
}

/// One of several.
pub(super) struct Member {
    shared: Shared,
    /// Until we decide.
    waiting: Option<Waiting>,
    /// Until it is put to work.
    ready: Option<Box<(Ready, Parting)>>,
    keeper: Option<Keeper>,
    /// Keeps what a start without the store takes, and what this start was, if it was one.
    memory: Option<Box<(Memory, Option<Outset>)>>,
    errander: Option<Errander>,
    shifts: mpsc::Sender<Shift>,
    /// What is to be done about what a process before this one told.
    left_overs: Option<Kit>,
    tenure: Option<Tenure>,
    /// What we decided and the store did not take, while we decide.
    spool: Option<Spool>,
    won: (mpsc::Sender<Fence>, mpsc::Receiver<Fence>),
    /// Nothing is taken or given any more.
    stop: CancellationToken,
    /// Nothing is ours any more.
    end: CancellationToken,
    /// What is done only while another decides.
    stop_waiting: CancellationToken,
}

/// What a daemon has that may have to decide.
struct Waiting {
    parting: Parting,
    commanded: mpsc::Receiver<Command>,
    /// Gives what is to be seen back, once the relay has stopped.
    over: Option<oneshot::Receiver<mpsc::Receiver<Observation>>>,
    relay: Option<Box<Relay>>,
    words: Option<Words>,
    store: Arc<dyn Store>,
    holder: String,
}

/// What is said of who decides.
struct Words {
    say: watch::Sender<String>,
    said: watch::Receiver<String>,
    /// That we are cut off from that one, and why.
    cut_off: watch::Receiver<Option<String>>,
}

/// What goes on to whoever decides.
struct Parting {
    shown: Shown,
    observed: Option<mpsc::Receiver<Observation>>,
}

impl Member {
    /// Builds it; gives where the scheduler hears whose the journeys are. If the lease is ours, what decides is built, too.
    ///
    /// # Errors
    /// The store, or something that cannot be built.
    pub(super) async fn new(
        parts: Parts,
        plan: &Plan,
        ground: &Ground,
        spending: &Spending,
        tasks: &mut Tasks,
    ) -> Result<(Member, mpsc::Receiver<Shift>), Failure> {
        let Parts {
            mut shared,
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
        } = parts;
        let (shifts, shifted) = mpsc::channel(SHIFTS);
        let (flushes, flushed) = mpsc::channel::<Flush>(1);
        let keeper = Keeper {
            share: shared.share.clone(),
            shifts: shifts.clone(),
            runner,
            store: store.clone(),
            journeys,
            arrivals,
            flushes,
            board: ground.board.clone(),
            metrics: ground.metrics.share(),
            about: shared.member(String::new()),
            configuration,
            clock: ground.clock,
            inherits: shared.outset.as_ref().map(|outset| outset.began),
        };
        let without = shared.outset.as_ref().map(|outset| outset.why.clone());
        if let Some(outset) = &shared.outset {
            ground.board.update_docket(|docket| docket.silences = outset.silences());
            shared.share.held().hold(outset.held());
            // As far as we know, they are ours; slots up to now are nobody's.
            let shards = outset.held().keys().map(|shard| Gain { shard: *shard, counted: None }).collect();
            let (done, _) = oneshot::channel();
            let _ = shifts.try_send(Shift::Gain { shards, left: Vec::new(), spent: Vec::new(), done });
        }
        let memory = match (&plan.store.spool, shared.facts.take()) {
            (Some(spool), Some(facts)) => {
                let (held, board) = (shared.share.held(), ground.board.clone());
                let (directory, store, clock) = (spool.clone(), store.clone(), ground.clock);
                let memory = Memory { directory, facts, held, board, store, clock };
                Some(Box::new((memory, shared.outset.take())))
            }
            _ => None,
        };
        let errander = Errander {
            errands: shared.errands(),
            share: shared.share.clone(),
            wishes: ground.wishes.clone(),
            elsewhere,
            board: ground.board.clone(),
            clock: ground.clock,
        };
        let disk = shared.shelter.disk.clone();
        let left = std::mem::replace(&mut shared.shelter.left, Queue::new(LIMITS));
        let kit = Kit {
            ground: ground.clone(),
            plans,
            store: shared.spare(),
            held: shared.share.held(),
            name: shared.share.name().to_owned(),
        };
        let mut member = Member {
            left_overs: None,
            keeper: Some(keeper),
            memory,
            errander: Some(errander),
            waiting: None,
            ready: None,
            shifts,
            tenure: None,
            spool: None,
            won: mpsc::channel(1),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
            stop_waiting: CancellationToken::new(),
            shared,
        };
        match member.shared.turn.clone() {
            Turn::Ours(fence) => {
                member.left_overs = Some(kit);
                let parting = Parting { shown, observed: Some(observed) };
                let ready = member.lead(fence, (plan, &store), ground, spending, commanded, tasks).await?;
                member.ready = Some(Box::new((ready, parting)));
            }
            Turn::Held { by, .. } => {
                let (say, leader) = watch::channel(format!("{by} decides and tells"));
                let (cut_off, is_cut_off) = watch::channel(None);
                let relay = Relay {
                    store: store.clone(),
                    observed,
                    flushes: flushed,
                    board: ground.board.clone(),
                    metrics: ground.metrics.share(),
                    clock: ground.clock,
                    unsaid: relay::left_over(left, disk.as_ref()).await,
                    disk,
                    without,
                    kit,
                    leader: leader.clone(),
                    cut_off,
                };
                let parting = Parting { shown, observed: None };
                let words = Some(Words { say, said: leader, cut_off: is_cut_off });
                let relay = Some(Box::new(relay));
                member.waiting = Some(Waiting { parting, commanded, over: None, relay, words, store, holder: by });
            }
        }
        Ok((member, shifted))
    }

    /// Builds what decides over a store that takes what it writes while the lease is ours, and takes up what was seen
    /// before; what of it is on our disk alone goes into the store of `runs` for that.
    async fn lead(
        &mut self,
        fence: Fence,
        (plan, runs): (&Plan, &Arc<dyn Store>),
        ground: &Ground,
        spending: &Spending,
        commanded: mpsc::Receiver<Command>,
        tasks: &mut Tasks,
    ) -> Result<Ready, Failure> {
        let failed = |error| store_failure(plan, &error);
        let epoch = fence.epoch();
        let (store, tenure) = self
            .shared
            .lead(fence, tasks, (&ground.board, ground.metrics.share()), ground.clock)
            .await
            .map_err(failed)?;
        self.tenure = Some(tenure);
        if let Some(disk) = &self.shared.shelter.disk {
            // What we saw before, or a process before us, is heard before anything is decided.
            let left = relay::left_over(disk.left(LIMITS).await.map_err(failed)?, Some(disk)).await;
            relay::leave(runs, Some(disk), left, Vec::new()).await;
            self.spool = Some(Spool::new(disk.clone(), LIMITS).await.map_err(failed)?);
        }
        let kept = (store, self.spool.clone());
        // Up to when slots are counted is said by those who run them.
        let mut ready = Box::pin(Ready::build(plan, ground, kept, spending, Counted::default(), commanded)).await?;
        relay::catch_up(&self.shared.share, &mut ready.evaluator).await.map_err(failed)?;
        self.shared.share.held().lead(Some(epoch));
        Ok(ready)
    }

    /// How many crashes in a row came before this start; who does not decide does not know.
    pub(super) fn crashes(&self) -> usize {
        self.ready.as_ref().map_or(0, |ready| ready.0.crashes())
    }

    /// Puts to work what keeps our shards, and what decides, or what tells the daemon that does.
    ///
    /// # Errors
    /// The listener cannot be had twice, or a notifier that journeys ring cannot be built.
    pub(super) fn spawn(&mut self, plan: &Plan, ground: &Ground, tasks: &mut Tasks) -> Result<Option<Lead>, Failure> {
        if let Some(keeper) = self.keeper.take() {
            tasks.spawn("shards", keeper.run(self.stop.clone(), self.end.clone()));
        }
        if let Some(errander) = self.errander.take() {
            let _ = tasks.spawn_until("errands", &self.stop, errander.run(self.stop.clone()));
        }
        if let Some(memory) = self.memory.take() {
            let (memory, outset) = *memory;
            let stopped = self.stop.clone();
            let _ = tasks.spawn_until("memory", &self.stop, async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    never = memory.keep(outset) => match never {},
                }
            });
        }
        if let Some(kit) = self.left_overs.take() {
            let stop = self.stop.clone();
            let stopped = stop.clone();
            let _ = tasks.spawn_until("alone", &stop, async move {
                if let Some(leaving) = kit.leave_for_another().await {
                    leaving.end(&stopped).await;
                }
                stopped.cancelled().await;
            });
        }
        if let Some(ready) = self.ready.take() {
            let (ready, parting) = *ready;
            return Ok(self.decide(ready, parting, plan, ground, tasks));
        }
        let Some(waiting) = &mut self.waiting else { return Ok(None) };
        let (listener, other) = twice(&waiting.parting.shown.listener)
            .map_err(|error| Failure::new(exit::SOFTWARE, format!("the listener cannot be had twice: {error}")))?;
        waiting.parting.shown.listener = listener;
        tracing::info!(holder = waiting.holder, "this daemon runs its part, and another decides and tells");
        let Some(Words { say, said, cut_off }) = waiting.words.take() else { return Ok(None) };
        let standby = Standby {
            said,
            cut_off,
            metrics: ground.metrics.clone(),
            board: ground.board.clone(),
            redactor: plan.redactor.clone(),
            clock: ground.clock,
            ready: waiting.parting.shown.ready.clone(),
        };
        let (door, stop) = (waiting.parting.shown.door.clone(), self.stop_waiting.clone());
        let served = crate::http::serve_standby(other, door, standby, stop.clone());
        let _ = tasks.spawn_until("standby", &stop, async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the http listener failed");
            }
        });
        self.shared.stand_by(tasks, self.won.0.clone(), say, ground.clock, &stop);
        let mirror = mirror(waiting.store.clone(), ground.board.clone(), ground.levers.clone(), ground.clock);
        let stopped = stop.clone();
        let _ = tasks.spawn_until("standby", &stop, async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                never = mirror => match never {},
            }
        });
        // Who decides has workers for them.
        alarms::take(plan, &ground.alarms, tasks, ground.clock, &stop)?;
        if let Some(relay) = waiting.relay.take() {
            let (over, given) = oneshot::channel();
            waiting.over = Some(given);
            let pulse = ground.board.pulse("relay", ground.clock.now().mono);
            let _ = tasks.spawn_until("relay", &stop, relay.run(pulse, (stop.clone(), self.stop.clone()), over));
        }
        Ok(None)
    }

    fn decide(
        &mut self,
        ready: Ready,
        parting: Parting,
        plan: &Plan,
        ground: &Ground,
        tasks: &mut Tasks,
    ) -> Option<Lead> {
        let Parting { shown, observed } = parting;
        let observed = observed?;
        let callbacks = shown.callbacks.clone();
        if let Some(observations) = ground.observations.upgrade() {
            let stop = ground.stop_readers.clone();
            tasks.spawn("listen", relay::listen(self.shared.share.clone(), observations, ground.clock, stop));
        }
        shown.spawn(plan, ground, &ready, tasks);
        let lead = ready.spawn(ground, callbacks, observed, tasks);
        // The monitor's own journey is run by who decides.
        let (done, _) = oneshot::channel();
        let shards = vec![Gain { shard: LEAD, counted: None }];
        let _ = self.shifts.try_send(Shift::Gain { shards, left: Vec::new(), spent: Vec::new(), done });
        ground.metrics.share().set_leads(true);
        Some(lead)
    }

    /// That the lease is ours.
    pub(super) async fn won(&mut self) -> Fence {
        match self.won.1.recv().await {
            Some(fence) => fence,
            None => std::future::pending().await,
        }
    }

    /// Decides from now on. What is seen meanwhile waits.
    ///
    /// # Errors
    /// The store, or something that cannot be built.
    pub(super) async fn take_over(&mut self, fence: Fence, live: &mut Live, tasks: &mut Tasks) -> Result<(), Failure> {
        let Some(Waiting { mut parting, commanded, over, .. }) = self.waiting.take() else { return Ok(()) };
        self.stop_waiting.cancel();
        if let Some(over) = over {
            parting.observed = over.await.ok();
        }
        let spent = live.store.spent().await.map_err(|error| store_failure(&live.plan, &error))?;
        let (spending, _) = open_spending(&live.plan, spent, &live.ground.metrics);
        let ready = self.lead(fence, (&live.plan, &live.store), &live.ground, &spending, commanded, tasks).await?;
        live.lead = self.decide(ready, parting, &live.plan, &live.ground, tasks);
        tracing::info!("this daemon decides and tells now");
        Ok(())
    }

    /// Another daemon decides: what it does not know is said, and each incident that it will never speak of has a last word.
    pub(super) async fn concede(&self, handovers: mpsc::Sender<Handover>, store: &Arc<dyn Store>) {
        let said = "another daemon has taken over: if it still fails, that one tells".to_owned();
        let (done, handed) = oneshot::channel();
        if handovers.send(Handover { said, done }).await.is_err() {
            return;
        }
        if let Ok(Ok(runs)) = tokio::time::timeout(DRAIN_PART, handed).await {
            match self.spool.as_ref().map(Spool::take) {
                // All of the runs are there.
                Some((queue, disk)) => relay::leave(store, Some(&disk), queue, Vec::new()).await,
                None => relay::leave(store, None, Queue::new(LIMITS), runs).await,
            }
        }
    }

    pub(super) fn begin_to_stop(&self) {
        self.stop.cancel();
        self.stop_waiting.cancel();
    }

    /// Gives all that is ours to others, who go on with slots after these.
    pub(super) async fn leave(self, counted: Timestamp) {
        self.end.cancel();
        if let Some(tenure) = self.tenure {
            tenure.give_back().await;
        }
        self.shared.leave(counted).await;
        if let Err(error) = self.shared.shelter.store.close().await {
            tracing::debug!(%error, "the spool did not close cleanly");
        }
    }
}

/// The listener, and the same for whoever answers until it is our turn: no caller is refused in between.
fn twice(listener: &TcpListener) -> std::io::Result<(TcpListener, TcpListener)> {
    use std::os::fd::AsFd;
    let [one, other] = [listener.as_fd().try_clone_to_owned()?, listener.as_fd().try_clone_to_owned()?]
        .map(|fd| TcpListener::from_std(std::net::TcpListener::from(fd)));
    Ok((one?, other?))
}

/// Keeps to what people want, which the daemon that decides writes down: pauses, and orders to breakers.
async fn mirror(
    store: Arc<dyn Store>,
    board: Arc<Board>,
    levers: Arc<Levers>,
    clock: Clock,
) -> std::convert::Infallible {
    let mut known = levers.before().clone();
    loop {
        // That the store is away is told by who writes.
        if let Ok(silences) = store.silences().await
            && board.docket().silences != silences
        {
            board.update_docket(|docket| docket.silences = silences);
        }
        if let Ok(orders) = store.orders().await {
            let orders: BTreeMap<_, _> = orders.into_iter().collect();
            for what in known.keys().filter(|what| !orders.contains_key(*what)) {
                levers.pull(what, None);
            }
            for (what, order) in &orders {
                if known.get(what) != Some(order) {
                    levers.pull(what, Some(order.clone()));
                }
            }
            known = orders;
        }
        clock.sleep_until(clock.now().mono + ASK).await;
    }
}
