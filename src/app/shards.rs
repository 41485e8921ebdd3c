//! The journeys that this daemon runs, of those that several share: keeps its shards, takes free ones, and gives back what is more
//! than its part.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::app::heritage::{Found, Heritage};
use crate::app::relay::Flush;
use crate::app::seat::RETURNED;
use crate::board::Board;
use crate::clock::Clock;
use crate::cluster::Wish;
use crate::config::Parts;
use crate::journey::Journey;
use crate::journey::message::Arrival;
use crate::metrics::ShareMetrics;
use crate::runner::Runner;
use crate::scheduler::{Gain, Shift};
use crate::store::postgres::{Group, Handed, Member, Share, Standing, Taken};
use crate::store::{Store, StoreError};
use crate::time::{Mono, Now, between, earlier};

/// Shards are renewed so often.
const RENEW: Duration = Duration::from_secs(1);
/// A daemon that has less than its part looks so often whether there is more.
const SOON: Duration = Duration::from_millis(100);
/// Slots of a shard that was given away may be run so late, by who takes it.
const HANDED_OVER: Duration = Duration::from_secs(10);
/// Messages that other daemons took for us are asked for this often.
const FETCH: Duration = Duration::from_millis(50);
/// What the others spend is learnt this often.
const LEARN: Duration = Duration::from_secs(5);
/// That this daemon's configuration still runs is said this often.
const DESCRIBE: Duration = Duration::from_secs(60);
/// The part of a daemon's board that says how many journeys are its.
const COMPONENT: &str = "shards";

/// Keeps the shards of this daemon.
pub(super) struct Keeper {
    pub(super) share: Arc<Share>,
    pub(super) shifts: mpsc::Sender<Shift>,
    pub(super) runner: Arc<Runner>,
    pub(super) store: Arc<dyn Store>,
    /// Every journey of the plan that runs.
    pub(super) journeys: watch::Receiver<Vec<Arc<Journey>>>,
    /// Where messages go that others took for us.
    pub(super) arrivals: mpsc::Sender<Arrival>,
    /// Where it is asked that all that was seen is said; nobody is there on the daemon that decides.
    pub(super) flushes: mpsc::Sender<Flush>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: ShareMetrics,
    /// What this daemon says of itself, and the configuration that runs.
    pub(super) about: Member,
    pub(super) configuration: watch::Receiver<Parts>,
    pub(super) clock: Clock,
    /// When it began without the store, with what a process before it held.
    pub(super) inherits: Option<Timestamp>,
}

impl Keeper {
    /// Keeps them until `end`; after `stop` none is taken or given any more.
    pub(super) async fn run(self, stop: CancellationToken, end: CancellationToken) {
        let others = watch::channel(false);
        let spending = others.1.clone();
        tokio::select! {
            () = end.cancelled() => {}
            never = self.keep(&others.0, &stop) => match never {},
            never = self.fetch(others.1) => match never {},
            never = self.learn(spending) => match never {},
            never = self.describe() => match never {},
        }
    }

    async fn keep(&self, others: &watch::Sender<bool>, stop: &CancellationToken) -> std::convert::Infallible {
        let (mut is_failing, mut not_before) = (false, Mono::default());
        let mut inherits = self.inherits;
        loop {
            let began = self.clock.now().mono;
            let configuration = self.configuration.borrow().fingerprint().to_owned();
            let about = Member { configuration, ..self.about.clone() };
            let mut waits = false;
            let kept = match self.share.renew(&about).await {
                Ok(standing) => {
                    // What is given to us is not to be without a daemon for longer than it takes.
                    waits = standing.groups.iter().any(Group::is_short);
                    others.send_replace(standing.members > 1);
                    self.show(&standing);
                    if is_failing {
                        not_before = began + RETURNED;
                    }
                    let held = standing.held.clone();
                    match self.settle(standing, began >= not_before, stop).await {
                        Ok(()) => self.inherit(&held, &mut inherits).await,
                        failed => failed,
                    }
                }
                Err(error) => Err(error),
            };
            match kept {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "the shards of this daemon could not be kept");
                    }
                    let now = self.clock.now().wall;
                    self.board.set_component(COMPONENT, false, false, format!("could not be kept: {error}"), now);
                }
            }
            self.clock.sleep_until(began + if waits { SOON } else { RENEW }).await;
        }
    }

    /// Leaves in the store what our configuration consists of, and says now and then that it still runs.
    async fn describe(&self) -> std::convert::Infallible {
        let mut configuration = self.configuration.clone();
        let mut is_failing = false;
        loop {
            let parts = configuration.borrow_and_update().clone();
            match self.share.describe(parts.fingerprint(), parts.text()).await {
                Ok(()) => is_failing = false,
                // Nothing but what people are shown depends on it.
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "what this configuration consists of could not be left for other daemons");
                    }
                }
            }
            let again = self.clock.now().mono + DESCRIBE;
            tokio::select! {
                () = self.clock.sleep_until(again) => {}
                // Whoever reloads is gone only when we are stopping.
                Ok(()) = configuration.changed() => {}
            }
        }
    }

    fn show(&self, Standing { members, held, groups, configurations, .. }: &Standing) {
        let beside = match members.saturating_sub(1) {
            0 => "no other daemon is there".to_owned(),
            1 => "beside one other daemon".to_owned(),
            others => format!("beside {others} other daemons"),
        };
        let of = groups.iter().map(|group| group.shards.clone().count()).sum::<usize>();
        let differ =
            if *configurations > 1 { "; their configurations differ: `journeyman cluster` says in what" } else { "" };
        let said = format!("{} of {of}, {beside}{differ}", held.len());
        self.board.set_component(COMPONENT, true, false, said, self.clock.now().wall);
        self.metrics.set(held.len(), *members, *configurations);
    }

    /// What follows from how things stand.
    async fn settle(&self, standing: Standing, may_take: bool, stop: &CancellationToken) -> Result<(), StoreError> {
        let Standing { members, held, lost, groups, .. } = standing;
        if !lost.is_empty() {
            tracing::warn!(shards = ?lost, "other daemons have taken over shards of this one");
            self.lose(lost, true).await;
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        for group in groups {
            match group.wish() {
                Wish::Stay => {}
                // Their holders may only have been away, as we were.
                Wish::Take(_) if !may_take => {}
                Wish::Take(count) => self.take(count, &group).await?,
                Wish::GiveBack(count) => {
                    let of_it = held.iter().copied().filter(|shard| group.shards.contains(shard));
                    let given: Vec<_> = of_it.rev().take(count).collect();
                    tracing::info!(shards = ?given, members, "giving shards to other daemons");
                    let counted = self.lose(given.clone(), false).await;
                    self.said().await;
                    self.share.give_back(&given, counted).await?;
                }
            }
        }
        Ok(())
    }

    /// What was begun in these shards before we began without the store, nobody goes on with.
    async fn inherit(&self, shards: &[i32], inherits: &mut Option<Timestamp>) -> Result<(), StoreError> {
        let Some(began) = *inherits else { return Ok(()) };
        let mut estate = self.share.left_in(shards).await?;
        estate.unfinished.retain(|run| run.slot < began);
        let found = Found { unfinished: estate.unfinished, arrivals: Vec::new(), known: estate.ledger };
        // No journey goes on with them.
        let (mut heritage, gone) = Heritage::of(found, &[]);
        if !gone.is_empty() {
            self.store.apply(gone).await?;
        }
        let earlier = heritage.known().filter(|(_, entry)| entry.slot < began);
        self.runner.switchboard.know(earlier);
        *inherits = None;
        Ok(())
    }

    /// Runs the journeys of these shards no more; gives up to when their slots are counted.
    async fn lose(&self, shards: Vec<i32>, at_once: bool) -> Timestamp {
        let (done, lost) = oneshot::channel();
        let _ = self.shifts.send(Shift::Lose { shards, at_once, done }).await;
        lost.await.unwrap_or_else(|_| self.clock.now().wall)
    }

    /// Waits until all that was seen is said.
    async fn said(&self) {
        let (done, said) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            let _ = said.await;
        }
    }

    async fn take(&self, count: usize, of: &Group) -> Result<(), StoreError> {
        let taken = self.share.take(count, &of.shards).await?;
        if taken.is_empty() {
            return Ok(());
        }
        let shards: Vec<_> = taken.iter().map(|taken| taken.shard).collect();
        let counted = taken.iter().filter_map(|taken| taken.counted).min();
        tracing::info!(?shards, "taking up shards");
        let taken_up = self.take_up(taken, &shards).await;
        if taken_up.is_err() {
            // They would be ours, and run by nobody.
            let _ = self.share.give_back(&shards, counted.unwrap_or_else(|| self.clock.now().wall)).await;
        }
        taken_up
    }

    /// Runs the journeys of these shards, from what whoever had them before left.
    async fn take_up(&self, taken: Vec<Taken>, shards: &[i32]) -> Result<(), StoreError> {
        let estate = self.share.left_in(shards).await?;
        let journeys = self.journeys.borrow().clone();
        let found = Found { unfinished: estate.unfinished, arrivals: estate.arrivals, known: estate.ledger };
        let (mut heritage, gone) = Heritage::of(found, &journeys);
        if !gone.is_empty() {
            self.store.apply(gone).await?;
        }
        let switchboard = &self.runner.switchboard;
        switchboard.know(heritage.known());
        let before = heritage.hand_to(switchboard, |_, _| {});
        for arrival in before {
            let _ = self.arrivals.send(arrival).await;
        }
        let spent = self.store.spent().await?;
        let (done, gained) = oneshot::channel();
        let now = self.clock.now().wall;
        // What was given away long ago was missed since, by all.
        let counted = |counted: &Timestamp| between(*counted, now) < HANDED_OVER;
        let gain = |taken: Taken| Gain { shard: taken.shard, counted: taken.counted.filter(counted) };
        let shards = taken.into_iter().map(gain).collect();
        if self.shifts.send(Shift::Gain { shards, left: heritage.left, spent, done }).await.is_ok() {
            let _ = gained.await;
        }
        Ok(())
    }

    /// Learns what the others spend, while there are others.
    async fn learn(&self, mut others: watch::Receiver<bool>) -> std::convert::Infallible {
        loop {
            if others.wait_for(|others| *others).await.is_err() {
                std::future::pending::<()>().await;
            }
            // That the store is away is told by who writes.
            if let Ok(spent) = self.store.spent().await
                && !spent.is_empty()
            {
                let _ = self.shifts.send(Shift::Spent(spent)).await;
            }
            self.clock.sleep_until(self.clock.now().mono + LEARN).await;
        }
    }

    /// Hands on the messages that other daemons took for runs of ours, while there are others.
    async fn fetch(&self, mut others: watch::Receiver<bool>) -> std::convert::Infallible {
        let mut is_failing = false;
        loop {
            if others.wait_for(|others| *others).await.is_err() {
                std::future::pending::<()>().await;
            }
            let asked = self.clock.now().mono;
            match self.share.arrivals().await {
                Ok(handed) => {
                    is_failing = false;
                    let now = self.clock.now();
                    for handed in handed {
                        let _ = self.arrivals.send(ours(handed, now)).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "messages that other daemons took for us cannot be read");
                    }
                }
            }
            self.clock.sleep_until(asked + FETCH).await;
        }
    }
}

/// A message as if it had come to us when it came to another daemon: two machines' clocks do not agree, the database's does with
/// itself.
fn ours(Handed { age, message, .. }: Handed, now: Now) -> Arrival {
    let at = Now { wall: earlier(now.wall, age), mono: Mono(now.mono.0.saturating_sub(age)) };
    Arrival { at, ..message }
}
