//! Other journeys while the scheduler runs: what stays the same keeps its phase, its turn and its run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Entry, Scheduler, due_at};
use crate::journey::spend::Spending;
use crate::journey::{Journey, Name};
use crate::metrics::SpendMetrics;
use crate::time::Now;

/// The journeys from now on.
pub struct Replan {
    /// All of them.
    pub journeys: Vec<Arc<Journey>>,
    /// Slots of journeys that were not there before are counted up to here.
    pub counted: Timestamp,
    /// What their channels may spend; what they have spent is known here best.
    pub spending: Spending,
    /// Where that is shown.
    pub spend_metrics: BTreeMap<Name, SpendMetrics>,
    /// Told when it is done.
    pub done: oneshot::Sender<()>,
}

impl Scheduler {
    pub(super) fn replan(&mut self, replan: Replan, now: Now) {
        let Replan { journeys, counted, mut spending, spend_metrics, done } = replan;
        let before = std::mem::take(&mut self.entries).into_iter();
        let mut before: HashMap<Name, Entry> = before.map(|entry| (entry.journey.name.clone(), entry)).collect();
        self.heap.clear();
        let journeys: Vec<_> = journeys.into_iter().filter(|journey| journey.is_run()).collect();
        let journeys = match &mut self.shares {
            Some(shares) => shares.ours_of(journeys),
            None => journeys,
        };
        for journey in journeys {
            let entry = match before.remove(&journey.name) {
                // Its next slot is known, and its run, if one is going, keeps the turn.
                Some(entry) if entry.journey.schedule == journey.schedule => Entry { journey, ..entry },
                Some(entry) => Entry { journey, slot: now.wall, is_queued: false, ..entry },
                None => {
                    let hands = self.hands_of(&journey.name);
                    Entry::new(journey, hands, counted)
                }
            };
            if entry.is_queued {
                self.heap.push(Reverse((due_at(entry.slot, now), self.entries.len())));
            }
            self.entries.push(entry);
        }
        spending.carry_on(std::mem::take(&mut self.spending));
        (self.spending, self.spend_metrics) = (spending, spend_metrics);
        self.show_spending(now);
        self.plan(now);
        // Whoever asked may be gone.
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scheduler::Turn;
    use crate::scheduler::staging::{Staged, staged};
    use crate::time::{Mono, later};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn journey(name: &str, every: u64) -> Arc<Journey> {
        let main = "[channels.loop]\ntype = \"memory\"";
        let probe = format!(
            "[[journey]]\nname = \"{name}\"\nevery = \"{every}s\"\nmuted = true\n[[journey.step]]\nname = \"out\"\nsend = \"loop\"\ntext = \"x\""
        );
        let (plan, _) =
            crate::config::load_text("main", main, &[("probe", &probe)], std::path::Path::new("/")).unwrap();
        plan.journeys[0].clone()
    }

    fn replan(journeys: Vec<Arc<Journey>>, counted: Timestamp) -> Replan {
        let (spending, spend_metrics, (done, _)) = (Spending::default(), BTreeMap::new(), oneshot::channel());
        Replan { journeys, counted, spending, spend_metrics, done }
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_keeps_its_next_slot_and_its_turn() {
        let Staged { mut scheduler, directory, .. } =
            staged("replan-1", &[journey("kept", 60), journey("faster", 60), journey("gone", 60)], at(0));
        let now = Now { wall: at(0), mono: Mono(Duration::from_secs(100)) };
        scheduler.plan(now);
        let slots = |scheduler: &Scheduler| -> BTreeMap<String, Timestamp> {
            scheduler.entries.iter().map(|entry| (entry.journey.name.to_string(), entry.slot)).collect()
        };
        let before = slots(&scheduler);
        assert!(scheduler.entries.iter().all(|entry| Turn::take(&entry.turn, entry.slot)));
        let later_on = Now { wall: at(7), mono: now.mono + Duration::from_secs(7) };
        let journeys = vec![journey("new", 60), journey("kept", 60), journey("faster", 5)];
        scheduler.replan(replan(journeys, later_on.wall), later_on);
        let after = slots(&scheduler);
        assert_eq!(after.keys().collect::<Vec<_>>(), ["faster", "kept", "new"]);
        assert_eq!(after["kept"], before["kept"]);
        assert!(after["faster"] > at(7) && after["faster"] <= later(at(7), Duration::from_secs(5)), "{after:?}");
        assert!(after["new"] > at(7));
        let takes = |name: &str| {
            let entry = scheduler.entries.iter().find(|entry| &*entry.journey.name == name).unwrap();
            Turn::take(&entry.turn, entry.slot)
        };
        assert!(!takes("kept") && !takes("faster"), "their runs go on, and are not overlapped");
        assert!(takes("new"));
        // Each once in the heap, due when its slot is.
        let mut queued: Vec<_> = std::mem::take(&mut scheduler.heap).into_vec();
        queued.sort_by_key(|Reverse((_, index))| *index);
        let expected: Vec<_> = scheduler
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| Reverse((due_at(entry.slot, later_on), index)))
            .collect();
        assert_eq!(queued, expected);
        let _ = std::fs::remove_dir_all(directory);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_due_at_that_moment_is_neither_lost_nor_run_twice() {
        let Staged { mut scheduler, directory, .. } = staged("replan-2", &[journey("kept", 60)], at(0));
        let now = Now { wall: at(0), mono: Mono(Duration::from_secs(100)) };
        scheduler.plan(now);
        let slot = scheduler.entries[0].slot;
        let due = Now { wall: slot, mono: due_at(slot, now) };
        for _ in 0..3 {
            scheduler.replan(replan(vec![journey("kept", 60)], due.wall), due);
            assert_eq!(scheduler.entries[0].slot, slot);
            assert_eq!(scheduler.heap.clone().into_vec(), [Reverse((due.mono, 0))]);
        }
        let _ = std::fs::remove_dir_all(directory);
    }
}
