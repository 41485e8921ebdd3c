//! When people are called: the bench's model, less of it. The goals that must hold.

#[path = "../../benches/detection/model.rs"]
#[expect(dead_code, reason = "the bench measures more")]
mod model;

use std::time::Duration;

use model::{Ours, Schedule, detect, endure, healthy, quantiles, recover};

use crate::support::table::Table;

const MINUTELY: Schedule = Schedule { every: 60, objective: "99.9%" };
const MINUTE: Duration = Duration::from_secs(60);

fn after(loss: f64, trials: u64) -> Vec<(Duration, u64)> {
    let trial = |seed| detect(&mut Ours::new(MINUTELY, &[]), MINUTELY, loss, MINUTE * 1_440, false, seed);
    (0..trials).map(|seed| trial(seed).expect("somebody is called")).map(|found| (found.after, found.runs)).collect()
}

const HEADS: [&str; 3] = ["what happens", "found", "goal, at the most"];

fn minutes(duration: Duration) -> String {
    format!("{:.0} min", duration.as_secs_f64() / 60.0)
}

#[test]
fn an_outage_is_told_at_the_third_failed_run() {
    let runs = after(1.0, 8).into_iter().map(|(_, runs)| runs + 1).max().expect("there were trials");
    Table::new("detection", "1-outage", &HEADS).row(&[&"outage: told at failed run", &runs, &3]);
    assert!(runs <= 3, "{runs}");
}

#[test]
fn a_loss_is_told_soon() {
    let mut table = Table::new("detection", "2-loss", &HEADS);
    for (loss, goal) in [(0.3, MINUTE * 10), (0.1, MINUTE * 35)] {
        let (median, most) = quantiles(after(loss, 25).into_iter().map(|found| found.0).collect()).expect("trials");
        let found = format!("{} (9 of 10: {})", minutes(median), minutes(most));
        table.row(&[&format!("{:.0} % of runs lost: told after, median of 25", loss * 100.0), &found, &minutes(goal)]);
        assert!(median <= goal, "{median:?}");
    }
}

#[test]
fn blips_call_nobody() {
    let found = healthy(&mut Ours::new(MINUTELY, &[]), MINUTELY, 0.0005, 60, 3);
    let mut table = Table::new("detection", "3-blips", &HEADS);
    table.row(&[&"60 days with blips in 1 of 2000 runs: calls", &found.pages.count, &0]);
    assert_eq!(found.pages.count, 0, "{found:?}");
}

#[test]
fn an_outage_is_over_when_it_is_and_a_loss_is_no_row_of_incidents() {
    let mut table = Table::new("detection", "4-over", &HEADS);
    let over = recover(&mut Ours::new(MINUTELY, &[]), MINUTELY, 1.0, 2, 1).expect("it is told");
    table.row(&[&"outage of 2 h: over is told after the last bad run, in", &minutes(over), &minutes(MINUTE * 2)]);
    assert_eq!(over, MINUTE * 2);
    let calls = endure(&mut Ours::new(MINUTELY, &[]), MINUTELY, &|_| 0.1, 2, 1);
    table.row(&[&"10 % of runs lost for 2 days: calls", &calls.pages, &6]);
    assert!(calls.pages <= 6, "{calls:?}");
}
