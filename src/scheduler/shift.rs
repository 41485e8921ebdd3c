//! Journeys that come and go while the scheduler runs, because several daemons share them: shard by shard, with the runs that
//! whoever had them before left.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{Entry, Hands, LEAVE_AFTER, Observation, Scheduler, due_at};
use crate::cluster::shard_of;
use crate::journey::spend::Spent;
use crate::journey::{Journey, Name};
use crate::runner::resume::{Left, waiting_slots};
use crate::time::Now;

/// Runs of a shard that is given away have so long to end before they are cut: whoever takes it waits for them.
const GIVE_WITHIN: Duration = Duration::from_secs(8);

/// What changes about whose the journeys are.
pub enum Shift {
    /// These shards are ours from now on.
    Gain {
        /// Which.
        shards: Vec<Gain>,
        /// The runs of their journeys that somebody else began and did not end.
        left: Vec<Left>,
        /// What was sent by all, of what costs something.
        spent: Vec<Spent>,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// These shards are ours no more.
    Lose {
        /// Which.
        shards: Vec<i32>,
        /// They are another daemon's already: what is under way is cut.
        at_once: bool,
        /// Told when the last of their runs has ended, or is left; up to when their slots are counted.
        done: oneshot::Sender<Timestamp>,
    },
    /// What was sent by all, of what costs something.
    Spent(Vec<Spent>),
}

/// A shard that is ours from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain {
    /// Which.
    pub shard: i32,
    /// Slots up to here were somebody else's; `None` if nobody gave it away, and those up to now are nobody's.
    pub counted: Option<Timestamp>,
}

/// The journeys of the shards that this daemon has.
pub(super) struct Shares {
    shifts: mpsc::Receiver<Shift>,
    /// Every journey of the plan.
    all: Vec<Arc<Journey>>,
    /// What the runs of each shard of ours are done with.
    ours: BTreeMap<i32, Arc<Hands>>,
}

impl Shares {
    pub(super) fn hands(&self) -> impl Iterator<Item = &Arc<Hands>> {
        self.ours.values()
    }

    /// Whether the plan has a journey of this name, whoever runs it.
    pub(super) fn knows(&self, journey: &Name) -> bool {
        self.all.iter().any(|known| known.name == *journey)
    }

    /// Of another plan's journeys, those that are ours.
    pub(super) fn ours_of(&mut self, journeys: Vec<Arc<Journey>>) -> Vec<Arc<Journey>> {
        let is_ours = |journey: &&Arc<Journey>| self.ours.contains_key(&shard_of(&journey.name));
        let ours = journeys.iter().filter(is_ours).cloned().collect();
        self.all = journeys;
        ours
    }
}

/// The next shift, where there are any.
pub(super) async fn next_shift(shares: &mut Option<Shares>) -> Option<Shift> {
    match shares {
        Some(shares) => shares.shifts.recv().await,
        None => pending().await,
    }
}

impl Scheduler {
    /// Runs only what shifts bring.
    pub fn sharing(mut self, shifts: mpsc::Receiver<Shift>) -> Scheduler {
        let all = self.entries.drain(..).map(|entry| entry.journey).collect();
        self.heap.clear();
        Scheduler { shares: Some(Shares { shifts, all, ours: BTreeMap::new() }), ..self }
    }

    /// What a journey's runs are done with.
    pub(super) fn hands_of(&self, journey: &Name) -> Arc<Hands> {
        let shared = self.shares.as_ref().and_then(|shares| shares.ours.get(&shard_of(journey)));
        shared.unwrap_or(&self.hands).clone()
    }

    pub(super) async fn shift(&mut self, shift: Shift, now: Now) {
        match shift {
            Shift::Spent(spent) => self.spending.learn(spent),
            Shift::Gain { shards, left, spent, done } => {
                self.spending.learn(spent);
                for gain in shards {
                    self.gain(gain, &left, now).await;
                }
                self.go_on_with(left);
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            Shift::Lose { shards, at_once, done } => self.lose(&shards, at_once, done, now).await,
        }
    }

    async fn gain(&mut self, Gain { shard, counted }: Gain, left: &[Left], now: Now) {
        let Some(shares) = &mut self.shares else { return };
        if shares.ours.contains_key(&shard) {
            return;
        }
        let hands = Arc::new(self.hands.apart());
        shares.ours.insert(shard, hands.clone());
        let journeys: Vec<_> = shares.all.iter().filter(|journey| shard_of(&journey.name) == shard).cloned().collect();
        let until = counted.unwrap_or(now.wall);
        let mut waiting = waiting_slots(left);
        waiting.retain(|name, _| shard_of(name) == shard);
        let names = journeys.iter().map(|journey| journey.name.clone()).collect();
        // Before anything that follows from it.
        let _ = self.hands.observations.send(Observation::TakenUp { journeys: names, until, waiting }).await;
        // What is due since is late, and was not missed.
        self.began = self.began.min(due_at(until, now));
        for journey in journeys {
            self.entries.push(Entry::new(journey, hands.clone(), until));
            self.queue(self.entries.len() - 1, now);
        }
    }

    async fn lose(&mut self, shards: &[i32], at_once: bool, done: oneshot::Sender<Timestamp>, now: Now) {
        if !at_once {
            // What is due by now is ours to run.
            self.start_due(now);
        }
        let Some(shares) = &mut self.shares else { return };
        let gone: Vec<_> = shards.iter().filter_map(|shard| shares.ours.remove(shard)).collect();
        self.entries.retain(|entry| !shards.contains(&shard_of(&entry.journey.name)));
        let queued = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_queued);
        self.heap = queued.map(|(index, entry)| Reverse((due_at(entry.slot, now), index))).collect();
        // Told after this, they would be told after those of whoever has the shards next.
        while let Some(observation) = self.untold.pop_front() {
            let _ = self.hands.observations.send(observation).await;
        }
        self.hands.runs.spawn(async move {
            let (patience, within) = if at_once { Default::default() } else { (LEAVE_AFTER, GIVE_WITHIN) };
            futures_util::future::join_all(gone.iter().map(|hands| hands.drain(patience, within))).await;
            let _ = done.send(now.wall);
        });
    }
}

impl Hands {
    /// The same for other runs, which end apart from these.
    fn apart(&self) -> Hands {
        Hands {
            runner: self.runner.clone(),
            permits: self.permits.clone(),
            observations: self.observations.clone(),
            metrics: self.metrics.clone(),
            closing: self.closing.child_token(),
            leave: self.leave.child_token(),
            cut: self.cut.child_token(),
            runs: TaskTracker::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scheduler::staging::{Staged, staged};
    use crate::time::later;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn journeys(count: usize) -> Vec<Arc<Journey>> {
        let main = "[channels.loop]\ntype = \"memory\"";
        let journey = |nth| {
            format!(
                "[[journey]]\nname = \"j-{nth}\"\nevery = \"10s\"\nmuted = true\n[[journey.step]]\nname = \"out\"\nsend = \"loop\"\ntext = \"x\"\n"
            )
        };
        let probes: String = (0..count).map(journey).collect();
        let (plan, _) =
            crate::config::load_text("main", main, &[("probe", &probes)], std::path::Path::new("/")).unwrap();
        plan.journeys
    }

    struct Stage {
        scheduler: Scheduler,
        observed: mpsc::Receiver<Observation>,
        directory: std::path::PathBuf,
    }

    impl Stage {
        fn new(name: &str, journeys: &[Arc<Journey>]) -> Stage {
            let Staged { scheduler, observed, directory } = staged(name, journeys, at(0));
            Stage { scheduler: scheduler.sharing(mpsc::channel(1).1), observed, directory }
        }

        async fn gain(&mut self, shards: &[i32], counted: Option<Timestamp>, now: Now) {
            let (done, gained) = oneshot::channel();
            let shards = shards.iter().map(|shard| Gain { shard: *shard, counted }).collect();
            self.scheduler.shift(Shift::Gain { shards, left: Vec::new(), spent: Vec::new(), done }, now).await;
            gained.await.unwrap();
        }

        fn names(&self) -> BTreeSet<Name> {
            self.scheduler.entries.iter().map(|entry| entry.journey.name.clone()).collect()
        }

        /// The heap has every entry once, when its slot is due.
        fn check_heap(&self, now: Now) {
            let mut queued: Vec<_> = self.scheduler.heap.clone().into_vec();
            queued.sort_by_key(|Reverse((_, index))| *index);
            let entries = self.scheduler.entries.iter().enumerate();
            let expected: Vec<_> = entries.map(|(index, entry)| Reverse((due_at(entry.slot, now), index))).collect();
            assert_eq!(queued, expected);
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_runs_the_journeys_of_its_shards_and_no_others() {
        let all = journeys(40);
        let mut stage = Stage::new("shift-runs", &all);
        let now = Now { wall: at(0), mono: crate::time::Mono(Duration::from_secs(100)) };
        assert!(stage.names().is_empty());
        let (some, more): (Vec<i32>, Vec<i32>) = ((1..=16).collect(), (17..=32).collect());
        let of = |shards: &[i32]| -> BTreeSet<Name> {
            let names = all.iter().map(|journey| journey.name.clone());
            names.filter(|name| shards.contains(&shard_of(name))).collect()
        };
        stage.gain(&some, None, now).await;
        assert_eq!(stage.names(), of(&some));
        stage.gain(&some, None, now).await;
        assert_eq!(stage.names(), of(&some), "they were ours already");
        let known = |journey: &Name| stage.scheduler.shares.as_ref().is_some_and(|shares| shares.knows(journey));
        assert!(known(&"j-1".into()) && !known(&"j-99".into()));
        stage.gain(&more, None, now).await;
        stage.check_heap(now);
        let mut told = BTreeSet::new();
        while let Ok(Observation::TakenUp { journeys, until, waiting }) = stage.observed.try_recv() {
            assert!(until == at(0) && waiting.is_empty());
            told.extend(journeys);
        }
        assert_eq!(told, of(&(1..=32).collect::<Vec<_>>()));

        let (done, lost) = oneshot::channel();
        let later_on = Now { wall: at(1), mono: now.mono + Duration::from_secs(1) };
        stage.scheduler.shift(Shift::Lose { shards: some.clone(), at_once: false, done }, later_on).await;
        assert_eq!(lost.await.unwrap(), at(1));
        assert_eq!(stage.names(), of(&more));
        stage.check_heap(later_on);
        // Another plan changes nothing about whose they are.
        let shares = stage.scheduler.shares.as_mut().unwrap();
        let ours: BTreeSet<_> = shares.ours_of(all.clone()).iter().map(|journey| journey.name.clone()).collect();
        assert_eq!(ours, of(&more));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_what_was_given_goes_on_after_the_last_slot() {
        let mut stage = Stage::new("shift-given", &journeys(4));
        let now = Now { wall: at(60), mono: crate::time::Mono(Duration::from_secs(100)) };
        let given = at(55);
        stage.gain(&(1..=32).collect::<Vec<_>>(), Some(given), now).await;
        for entry in &stage.scheduler.entries {
            let slot = entry.slot;
            assert!(slot > given && slot <= later(given, Duration::from_secs(10)), "{slot}");
        }
        assert!(stage.scheduler.began <= due_at(given, now), "what is due since then is late, and was not missed");
    }
}
