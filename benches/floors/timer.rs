//! The floor under the scheduler: one heap, one timer, nothing to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How late each firing was, for `timers` timers of one period with their phases spread, over `seconds`.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(timers: u32, period: Duration, seconds: u64) -> Vec<Duration> {
    let start = Instant::now();
    let mut heap: BinaryHeap<_> = (0..timers).map(|n| Reverse(start + period * n / timers)).collect();
    let mut lateness = Vec::new();
    while let Some(Reverse(due)) = heap.pop() {
        if due > start + Duration::from_secs(seconds) {
            break;
        }
        sleep_until(due).await;
        lateness.push(Instant::now().duration_since(due));
        heap.push(Reverse(due + period));
    }
    lateness
}
