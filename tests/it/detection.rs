//! When people are called: the bench's model, less of it. The goals that must hold.

#[path = "../../benches/detection/model.rs"]
#[expect(dead_code, reason = "the bench measures more")]
mod model;

use std::time::Duration;

use model::{Ours, Schedule, detect, endure, healthy, quantiles, recover};

const MINUTELY: Schedule = Schedule { every: 60, objective: "99.9%" };
const MINUTE: Duration = Duration::from_secs(60);

fn after(loss: f64, trials: u64) -> Vec<(Duration, u64)> {
    let trial = |seed| detect(&mut Ours::new(MINUTELY, &[]), MINUTELY, loss, MINUTE * 1_440, false, seed);
    (0..trials).map(|seed| trial(seed).expect("somebody is called")).map(|found| (found.after, found.runs)).collect()
}

#[test]
fn an_outage_is_told_at_the_third_failed_run() {
    assert!(after(1.0, 8).iter().all(|(_, runs)| *runs <= 2));
}

#[test]
fn a_loss_is_told_soon() {
    let median = |loss| quantiles(after(loss, 25).into_iter().map(|found| found.0).collect()).unwrap().0;
    let (third, tenth) = (median(0.3), median(0.1));
    assert!(third <= MINUTE * 10, "{third:?}");
    assert!(tenth <= MINUTE * 35, "{tenth:?}");
}

#[test]
fn blips_call_nobody() {
    let found = healthy(&mut Ours::new(MINUTELY, &[]), MINUTELY, 0.0005, 60, 3);
    assert_eq!(found.pages.count, 0, "{found:?}");
}

#[test]
fn an_outage_is_over_when_it_is_and_a_loss_is_no_row_of_incidents() {
    let over = recover(&mut Ours::new(MINUTELY, &[]), MINUTELY, 1.0, 2, 1);
    assert_eq!(over, Some(MINUTE * 2));
    let calls = endure(&mut Ours::new(MINUTELY, &[]), MINUTELY, &|_| 0.1, 2, 1);
    assert!(calls.pages <= 6, "{calls:?}");
}
