//! Drift in what is replayed: the daemon asks its store, and here the runs of a week are kept.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::detect::Sample;
use crate::detect::drift::{AT_MOST, EVERY, Hours, Measured, Ran};
use crate::journey::outcome::Verdict;
use crate::time::between;

/// The runs of one journey that are still of interest, by their slots.
#[derive(Default)]
pub(super) struct Course {
    runs: VecDeque<Ran>,
    measured: Option<Timestamp>,
}

impl Course {
    /// Takes a run, and measures if it is time to.
    pub(super) fn take(
        &mut self,
        sample: Sample,
        latency: Duration,
        interval: Duration,
        now: Timestamp,
    ) -> Option<Measured> {
        let Sample { slot, verdict, is_confirmation, .. } = sample;
        if !is_confirmation && !matches!(verdict, Verdict::Unknown | Verdict::Excluded) {
            // Runs are given in the order of their ends.
            let place = self.up_to(slot);
            self.runs.insert(place, Ran { slot, verdict, latency });
        }
        if self.measured.is_some_and(|at| between(at, now) < EVERY) {
            return None;
        }
        self.measured = Some(now);
        let hours = Hours::before(now, interval);
        let windows = hours.windows();
        if let Some((first, _)) = windows.last() {
            self.runs.drain(..self.up_to(*first));
        }
        let runs_in = |(from, until): &(Timestamp, Timestamp)| {
            let (from, until) = (self.up_to(*from), self.up_to(*until));
            self.runs.range(from.min(until)..until).rev().take(AT_MOST).copied().collect()
        };
        hours.measure(&windows.iter().map(runs_in).collect::<Vec<Vec<Ran>>>())
    }

    /// How many runs have a slot up to this one.
    fn up_to(&self, slot: Timestamp) -> usize {
        self.runs.partition_point(|ran| ran.slot <= slot)
    }
}
