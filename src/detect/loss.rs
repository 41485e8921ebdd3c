//! Partial loss: a sequential likelihood test (CUSUM, E. S. Page, 1954) between "it fails as often as it may" and "it loses a tenth
//! and more".
//!
//! `S ← max(0, S + ln(p1 ÷ p0))` on a failure, `S ← max(0, S + ln((1 − p1) ÷ (1 − p0)))` on a success; it fires at `S ≥ 8`. Two
//! numbers of state, and it sees a loss of a third in minutes that counting failures in a row sees in an hour.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::slo::wilson;

/// The test's threshold: at a failure rate of `p0` it is passed by chance about once in e⁸ = 2,981 starts.
pub const THRESHOLD: f64 = 8.0;
/// Nobody's failures are rarer than that for long: below it, two failures alone would be proof.
const LEAST_P0: f64 = 0.002;
/// The loss that is looked for: a tenth, or ten times what is allowed, at most half.
const LEAST_P1: f64 = 0.1;
const MOST_P1: f64 = 0.5;
/// It takes so many failures, whatever their likelihood.
const LEAST_FAILURES: u32 = 3;
/// It is over when as many successes in a row would be rarer than this at the least loss that what was seen allows. A loss that goes
/// on passes this by chance now and then: people hear that it is over and, soon after, that it is not.
const OVER: f64 = 0.002;
/// When so many of the runs from the first failure to the last have failed, it was an outage.
const OUTAGE: f64 = 0.9;

/// The evidence so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// The log-likelihood ratio since it last was zero.
    pub score: f64,
    /// Runs since then.
    pub runs: u32,
    /// Failed ones among them.
    pub failed: u32,
    /// Successes since the last failure.
    pub successes: u32,
    /// The failure rate that is looked for.
    pub rate: f64,
    /// The first failed slot since it last was zero.
    pub since: Option<Timestamp>,
}

impl Loss {
    /// Takes a run of this slot; `allowed` is the share of runs that may fail.
    pub fn take(&mut self, slot: Timestamp, failed: bool, allowed: f64) {
        let p0 = allowed.max(LEAST_P0);
        let p1 = (10.0 * p0).clamp(LEAST_P1, MOST_P1.max(p0));
        if p1 <= p0 {
            return;
        }
        if !failed && self.score <= 0.0 && self.failed == 0 {
            // A healthy journey's state stays the same.
            return;
        }
        self.rate = p1;
        self.runs = self.runs.saturating_add(1);
        if failed {
            self.since.get_or_insert(slot);
            self.failed += 1;
            self.successes = 0;
            // Beyond the threshold there is nothing to prove, and what is proven must be able to end.
            self.score = (self.score + (p1 / p0).ln()).min(THRESHOLD.max(self.score));
        } else {
            self.successes = self.successes.saturating_add(1);
            self.score = (self.score + ((1.0 - p1) / (1.0 - p0)).ln()).max(0.0);
            if self.score <= 0.0 {
                self.forget();
            }
        }
    }

    /// Whether loss is proven.
    pub fn is_proven(&self) -> bool {
        // The sum of logarithms is compared, so a hair's breadth is forgiven.
        self.score >= THRESHOLD - 1e-9 && self.failed >= LEAST_FAILURES
    }

    /// Whether what was proven is over: at the lower end of the 95 % interval of the share that was lost, so many successes in a
    /// row would be rare. The score that is back at zero ends it, too.
    pub fn is_over(&self) -> bool {
        let (failed, runs) = self.until_last_failure();
        let least = wilson(failed, runs).map_or(0.0, |(least, _)| least);
        self.failed == 0 || (1.0 - least).powi(self.successes.min(100_000) as i32) <= OVER
    }

    /// Whether it was no share that was lost, but everything.
    pub fn is_outage(&self) -> bool {
        let (failed, runs) = self.until_last_failure();
        failed as f64 >= OUTAGE * runs as f64
    }

    /// Whether nothing speaks for loss.
    pub fn is_calm(&self) -> bool {
        self.failed == 0
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        *self = Loss::default();
    }

    /// Failures and runs from the first failure to the last.
    fn until_last_failure(&self) -> (u64, u64) {
        (u64::from(self.failed), u64::from(self.runs.saturating_sub(self.successes)))
    }

    /// The arithmetic, for people.
    pub fn said(&self) -> String {
        format!(
            "{} of the last {} runs failed (score {:.1} of {THRESHOLD}; looked for: a loss of {:.0} % or more)",
            self.failed,
            self.runs,
            self.score,
            self.rate * 100.0
        )
    }
}
