//! Starts of the daemon, and when they are a crash loop.
//!
//! A start that was not ended in order and did not live long is a crash. A few of them in a row are a loop: whatever kills the daemon
//! is there again after each start, so it starts with less to do, and says so once.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::between;

/// A daemon that lived for so long was no crash at the start, whatever ended it.
const SHORT: Duration = Duration::from_secs(120);
/// Crashes further apart than this are no loop. Orchestrators wait for five minutes at most before they start again.
const APART: Duration = Duration::from_secs(900);
/// So many crashes in a row make the next start a careful one.
pub const CRASHES: usize = 4;
/// A careful start is over when the daemon has lived for so long.
pub const CAREFUL: Duration = Duration::from_secs(600);
/// Starts that are looked through, and kept.
pub const KEPT: usize = 20;

/// One start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Counts them, from 1.
    pub id: i64,
    /// When.
    pub started: Timestamp,
    /// When it was last known to live.
    pub alive: Timestamp,
    /// Whether it was stopped, and ended in order.
    pub ended: bool,
}

impl Boot {
    /// The start after these, the newest of them first.
    pub fn next(before: &[Boot], now: Timestamp) -> Boot {
        let id = before.first().map_or(1, |last| last.id + 1);
        Boot { id, started: now, alive: now, ended: false }
    }
}

/// How many crashes in a row came before `now`; the newest start first.
pub fn crashes(before: &[Boot], now: Timestamp) -> usize {
    let mut next = now;
    let is_crash = |boot: &&Boot| {
        let is_short = between(boot.started, boot.alive) < SHORT;
        let is_near = between(boot.alive, next) < APART;
        next = boot.started;
        !boot.ended && is_short && is_near
    };
    before.iter().take_while(is_crash).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    /// Starts that each lived for so many seconds, so many seconds after the end of the one before; the newest first.
    fn starts(lives: &[(i64, i64, bool)]) -> (Vec<Boot>, Timestamp) {
        let mut now = 0;
        let mut boots = Vec::new();
        for (pause, lived, ended) in lives {
            now += pause;
            let next = Boot::next(&boots, at(now));
            boots.insert(0, Boot { alive: at(now + lived), ended: *ended, ..next });
            now += lived;
        }
        (boots, at(now + 2))
    }

    fn counted(lives: &[(i64, i64, bool)]) -> usize {
        let (boots, now) = starts(lives);
        crashes(&boots, now)
    }

    #[test]
    fn short_lives_in_a_row_count_until_one_that_was_long_ended_in_order_or_is_long_ago() {
        const CRASH: (i64, i64, bool) = (2, 5, false);
        assert_eq!(counted(&[]), 0);
        assert_eq!(counted(&[CRASH; 4]), 4);
        assert_eq!(counted(&[(2, 119, false); 10]), 10);
        assert_eq!(counted(&[CRASH, (2, 120, false)]), 0, "it lived long");
        assert_eq!(counted(&[CRASH, CRASH, (2, 5, true)]), 0, "it ended in order");
        assert_eq!(counted(&[CRASH, (2, 5, true), CRASH, CRASH]), 2, "what came before an end in order");
        assert_eq!(counted(&[(300, 5, false); 6]), 6, "orchestrators wait for five minutes");
        assert_eq!(counted(&[CRASH, CRASH, (900, 5, false)]), 1, "too far apart");
        let (boots, _) = starts(&[CRASH; 4]);
        assert_eq!(crashes(&boots, at(4_000)), 0, "long ago");
        assert_eq!(boots.iter().map(|boot| boot.id).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_start_long() {
        let boots = [Boot { id: 2, started: at(100), alive: at(40), ended: false }];
        assert_eq!(crashes(&boots, at(30)), 1);
    }
}
