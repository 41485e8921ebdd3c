//! What becomes of a notice after an attempt: a pure decision.

use std::time::Duration;

use jiff::Timestamp;

use crate::notifier::{NotifyError, Receipt};
use crate::store::{OutboxState, OutboxStatus};
use crate::time::{between, later};

/// The first wait; each further one is three times as long: 1, 3, 9, 27, 81 s.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No wait is longer, unless the other side asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A notice that nobody took for so long is given up; it is shown, counted, and tried again when the notifier next works.
pub const EXPIRES: Duration = Duration::from_secs(24 * 3_600);

/// What an attempt led to, for metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Done.
    Sent,
    /// Will be tried again.
    Retry,
    /// Will be tried again when the other side said.
    Throttled,
    /// May have been taken; will be looked up and tried again.
    Ambiguous,
    /// Given up.
    Dead,
}

/// The row's state after its attempt number `attempt` ended with `result` at `now`. `chance` in `0..1` spreads the waits.
pub fn after_attempt(
    result: &Result<Receipt, NotifyError>,
    attempt: u32,
    created: Timestamp,
    now: Timestamp,
    chance: f64,
) -> (Step, OutboxState) {
    let state = |status, not_before, error: Option<&NotifyError>, receipt| OutboxState {
        status,
        attempt,
        not_before,
        error: error.map(ToString::to_string),
        receipt,
        at: now,
    };
    let error = match result {
        Ok(receipt) => return (Step::Sent, state(OutboxStatus::Sent, now, None, Some(receipt.clone()))),
        Err(error) => error,
    };
    if matches!(error, NotifyError::Never(_)) || between(created, now) >= EXPIRES {
        return (Step::Dead, state(OutboxStatus::Dead, now, Some(error), None));
    }
    let wait = back_off(attempt, chance);
    match error {
        NotifyError::After { wait: asked, .. } => {
            (Step::Throttled, state(OutboxStatus::Pending, later(now, *asked), Some(error), None))
        }
        NotifyError::Ambiguous(_) => {
            (Step::Ambiguous, state(OutboxStatus::Ambiguous, later(now, wait), Some(error), None))
        }
        NotifyError::Backoff(_) | NotifyError::Never(_) => {
            (Step::Retry, state(OutboxStatus::Pending, later(now, wait), Some(error), None))
        }
    }
}

/// 1, 3, 9, 27, … seconds after attempt 1, 2, 3, 4, …, each between half and all of that.
pub fn back_off(attempt: u32, chance: f64) -> Duration {
    let steps = attempt.saturating_sub(1).min(10);
    let full = FIRST_WAIT.saturating_mul(3u32.saturating_pow(steps)).min(LONGEST_WAIT);
    full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn waits_grow_in_threes_with_a_cap_and_jitter() {
        let full: Vec<_> = (1..=8).map(|attempt| back_off(attempt, 1.0).as_secs()).collect();
        assert_eq!(full, [1, 3, 9, 27, 81, 243, 300, 300]);
        assert_eq!(back_off(2, 0.0), Duration::from_millis(1_500));
        assert_eq!(back_off(u32::MAX, 1.0), LONGEST_WAIT);
    }

    #[test]
    fn each_class_of_error_has_its_consequence() {
        let after = NotifyError::After { wait: Duration::from_secs(30), detail: "429".into() };
        let table = [
            (Ok(Receipt::default()), 10, Step::Sent, OutboxStatus::Sent, at(10)),
            (Err(NotifyError::Never("revoked".into())), 10, Step::Dead, OutboxStatus::Dead, at(10)),
            (Err(NotifyError::Backoff("503".into())), 10, Step::Retry, OutboxStatus::Pending, at(13)),
            (Err(after.clone()), 10, Step::Throttled, OutboxStatus::Pending, at(40)),
            (Err(NotifyError::Ambiguous("reset".into())), 10, Step::Ambiguous, OutboxStatus::Ambiguous, at(13)),
            (Err(NotifyError::Backoff("503".into())), 86_400, Step::Dead, OutboxStatus::Dead, at(86_400)),
            (Err(after), 86_400, Step::Dead, OutboxStatus::Dead, at(86_400)),
        ];
        for (result, seconds, step, status, not_before) in table {
            let (found, state) = after_attempt(&result, 2, at(0), at(seconds), 1.0);
            assert_eq!((found, state.status, state.not_before), (step, status, not_before), "{result:?}");
        }
    }
}
