//! How many slots had each verdict.

use std::ops::{AddAssign, SubAssign};

use serde::{Deserialize, Serialize};

use crate::journey::outcome::Verdict;

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
    pub(super) fn of(verdict: Verdict, count: u64) -> Counts {
        let mut counts = Counts::default();
        *counts.field(verdict) = count;
        counts
    }

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

    /// Slots with a verdict about the watched system.
    pub fn valid(&self) -> u64 {
        self.good + self.slow + self.failed + self.late
    }

    /// Slots whose message was delivered by the deadline.
    pub fn delivered(&self) -> u64 {
        self.good + self.slow
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

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Counts) {
        self.good -= other.good;
        self.slow -= other.slow;
        self.failed -= other.failed;
        self.late -= other.late;
        self.unknown -= other.unknown;
        self.excluded -= other.excluded;
    }
}
