//! Simulated worlds: a part of them with every run of the tests; `cargo bench --features full --bench simulation` has all of them.

use std::time::Duration;

use crate::simulation::{Point, Profile, Sum, doomed, simulate};
use crate::support::table::Table;

const HEADS: &[&str] = &["test", "what", "came out"];
const TWO_HOURS: Duration = Duration::from_secs(2 * 3_600);

/// T2: every promise holds whatever chance does, for two hours of ten journeys.
#[test]
fn every_promise_holds_whatever_chance_does() {
    journeyman::tls::init();
    let mut sum = Sum::new();
    for seed in 0..8 {
        let told = simulate(&Profile::new(seed, TWO_HOURS, 10, Duration::from_secs(60)));
        sum.add(&format!("seed {seed}"), told);
    }
    let mut table = Table::new("simulation", "chance", HEADS);
    let what = "2 virtual hours, 10 journeys a minute each; cuts, losses, absent people, a full disk, deaths";
    table.row(&[&"T2", &what, &sum.say()]);
    assert!(sum.broken.is_empty(), "{}", sum.broken.join("\n"));
}

/// T1: dead at every point: the first time that it comes there, soon after, and in the middle of things.
#[test]
fn a_death_at_any_point_costs_nothing_that_was_promised() {
    journeyman::tls::init();
    let mut sum = Sum::new();
    for point in Point::ALL {
        for time in [1, 4, 23] {
            let told = simulate(&doomed(*point, time, u64::from(time)));
            sum.add(&format!("{point:?}, time {time}"), told);
        }
    }
    let mut table = Table::new("simulation", "points", HEADS);
    let what = format!("{} points, the 1st, 4th and 23rd time there; 20 virtual minutes, 6 journeys", Point::ALL.len());
    table.row(&[&"T1", &what, &sum.say()]);
    assert!(sum.broken.is_empty(), "{}", sum.broken.join("\n"));
}
