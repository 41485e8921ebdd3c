//! How many slots of a window had each verdict, and how much time they stand for.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journey::outcome::{Verdict, labelled};

labelled! {
    /// What is promised of a journey's runs.
    Sli {
        /// Right, by the deadline.
        Delivered = "delivered",
        /// Right, within the budget. Of all valid runs, so that loss cannot flatter it.
        InBudget = "in_budget",
    }
}

impl Sli {
    /// Whether a run with this verdict spends error budget.
    pub fn is_bad(self, verdict: Verdict, late_is_good: bool) -> bool {
        match verdict {
            Verdict::Good | Verdict::Unknown | Verdict::Excluded => false,
            Verdict::Slow => self == Sli::InBudget,
            Verdict::Late => self == Sli::InBudget || !late_is_good,
            Verdict::Failed => true,
        }
    }
}

/// How many slots had each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Delivered, in budget.
    pub good: u64,
    /// Delivered, over budget.
    pub slow: u64,
    /// Not delivered.
    pub failed: u64,
    /// Arrived after the deadline.
    pub late: u64,
    /// No verdict, through a fault of ours.
    pub unknown: u64,
    /// Left out.
    pub excluded: u64,
}

impl Counts {
    pub(super) fn field(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Good => &mut self.good,
            Verdict::Slow => &mut self.slow,
            Verdict::Failed => &mut self.failed,
            Verdict::Late => &mut self.late,
            Verdict::Unknown => &mut self.unknown,
            Verdict::Excluded => &mut self.excluded,
        }
    }

    /// Slots with this verdict.
    pub fn of(&self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Good => self.good,
            Verdict::Slow => self.slow,
            Verdict::Failed => self.failed,
            Verdict::Late => self.late,
            Verdict::Unknown => self.unknown,
            Verdict::Excluded => self.excluded,
        }
    }

    /// With so many more of this verdict.
    pub fn add(&mut self, verdict: Verdict, count: u64) {
        *self.field(verdict) += count;
    }

    /// Slots with a verdict about the watched system.
    pub fn valid(&self) -> u64 {
        self.good + self.slow + self.failed + self.late
    }

    /// Slots whose message was delivered by the deadline.
    pub fn delivered(&self) -> u64 {
        self.good + self.slow
    }

    /// Slots that spend error budget.
    pub fn bad(&self, sli: Sli, late_is_good: bool) -> u64 {
        let each = [(Verdict::Slow, self.slow), (Verdict::Failed, self.failed), (Verdict::Late, self.late)].into_iter();
        each.filter(|(verdict, _)| sli.is_bad(*verdict, late_is_good)).map(|(_, count)| count).sum()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.good += other.good;
        self.slow += other.slow;
        self.failed += other.failed;
        self.late += other.late;
        self.unknown += other.unknown;
        self.excluded += other.excluded;
    }
}

/// Slots of one kind: how many, and the time until the slot after each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    count: u64,
    millis: i64,
}

/// Of each verdict, outside maintenance and in it.
type Cells = [[Cell; 2]; Verdict::ALL.len()];

/// A window's slots by verdict, in maintenance and not: what both views of it, with maintenance left out and without, come from.
///
/// Thousands of journeys have seven of these each, and in most of them every slot is good: the rest has a place only where there is
/// any.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    good: Cell,
    /// All others; that of good ones outside maintenance stays zero.
    rest: Option<Box<Cells>>,
}

impl Tally {
    fn cell(&self, verdict: Verdict, excluded: bool) -> Cell {
        match (verdict, excluded) {
            (Verdict::Good, false) => self.good,
            _ => self.rest.as_ref().map_or_else(Cell::default, |rest| rest[verdict as usize][usize::from(excluded)]),
        }
    }

    fn cell_mut(&mut self, verdict: Verdict, excluded: bool) -> &mut Cell {
        match (verdict, excluded) {
            (Verdict::Good, false) => &mut self.good,
            _ => &mut self.rest.get_or_insert_default()[verdict as usize][usize::from(excluded)],
        }
    }

    pub(super) fn add(&mut self, verdict: Verdict, excluded: bool, count: u64, millis: i64) {
        let cell = self.cell_mut(verdict, excluded);
        cell.count += count;
        cell.millis += millis;
    }

    pub(super) fn remove(&mut self, verdict: Verdict, excluded: bool, count: u64, millis: i64) {
        let cell = self.cell_mut(verdict, excluded);
        cell.count -= count;
        cell.millis -= millis;
        self.tidy();
    }

    pub(super) fn subtract(&mut self, other: &Tally) {
        self.good.count -= other.good.count;
        self.good.millis -= other.good.millis;
        let Some(theirs) = &other.rest else { return };
        let ours = self.rest.get_or_insert_default();
        for (ours, theirs) in ours.iter_mut().flatten().zip(theirs.iter().flatten()) {
            ours.count -= theirs.count;
            ours.millis -= theirs.millis;
        }
        self.tidy();
    }

    /// What has become nothing takes no place.
    fn tidy(&mut self) {
        self.rest.take_if(|rest| **rest == Cells::default());
    }

    pub(super) fn has(&self, verdict: Verdict, excluded: bool) -> bool {
        self.cell(verdict, excluded).count > 0
    }

    /// Whether leaving maintenance out makes any difference.
    pub(super) fn is_corrected(&self) -> bool {
        Verdict::ALL.iter().any(|verdict| *verdict != Verdict::Excluded && self.has(*verdict, true))
    }

    /// With slots in maintenance as `excluded`, or as what they were.
    pub(super) fn counts(&self, is_corrected: bool) -> Counts {
        let mut counts = Counts::default();
        for verdict in Verdict::ALL {
            let [plain, excluded] = [false, true].map(|excluded| self.cell(*verdict, excluded).count);
            *counts.field(*verdict) += plain;
            *counts.field(if is_corrected { Verdict::Excluded } else { *verdict }) += excluded;
        }
        counts
    }

    /// The time that slots stand for: each until the next one.
    pub(super) fn time(&self, is_corrected: bool, which: impl Fn(Verdict) -> bool) -> Duration {
        let mut millis = 0;
        for verdict in Verdict::ALL {
            let [plain, excluded] = [false, true].map(|excluded| self.cell(*verdict, excluded).millis);
            millis += if which(*verdict) { plain } else { 0 };
            millis += if which(if is_corrected { Verdict::Excluded } else { *verdict }) { excluded } else { 0 };
        }
        Duration::from_millis(millis.max(0) as u64)
    }
}
