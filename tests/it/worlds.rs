//! Simulated worlds: a part of them with every run of the tests; `cargo bench --features full --bench simulation` has all of them.

use crate::simulation::{Accounts, Death, Point, Profile, Storm, Sum, simulate};
use crate::support::table::Table;

const HEADS: &[&str] = &["test", "what", "came out"];
/// Worlds in which a promise was broken once.
const SEEDS: &str = include_str!("simulation/seeds.txt");

/// T2: every promise holds whatever chance does, for two hours of ten journeys.
#[test]
fn every_promise_holds_whatever_chance_does() {
    journeyman::tls::init();
    let mut sum = Sum::new();
    (0..4).for_each(|seed| sum.add(simulate(&Profile::chance(seed))));
    let mut table = Table::new("simulation", "chance", HEADS);
    let what = "2 virtual hours, 10 journeys a minute each; cuts, losses, absent people, a full disk, changed configurations, deaths";
    table.row(&[&"T2", &what, &sum.say()]);
    assert_eq!(sum.broken(), None);
}

/// T1: dead at every point, in every way: the first time that it comes there, soon after, and in the middle of things. A way each, so
/// that they are tried at once.
fn a_death_costs_nothing_that_was_promised(way: usize, name: &str, when: &str) {
    journeyman::tls::init();
    let mut sum = Sum::new();
    for point in Point::ALL {
        let (time, death) = (Profile::times(*point)[way], Death::ALL[way]);
        sum.add(simulate(&Profile::doomed(*point, time, death, u64::from(time))));
    }
    let mut table = Table::new("simulation", name, HEADS);
    let what = format!("{} points of death, {when}; 20 virtual minutes, 6 journeys", Point::ALL.len());
    table.row(&[&"T1", &what, &sum.say()]);
    assert_eq!(sum.broken(), None);
}

#[test]
fn a_kill_at_any_point_costs_nothing_that_was_promised() {
    a_death_costs_nothing_that_was_promised(0, "points-kill", "killed the first time there");
}

#[test]
fn an_abort_at_any_point_costs_nothing_that_was_promised() {
    a_death_costs_nothing_that_was_promised(1, "points-abort", "aborted soon after the first time there");
}

#[test]
fn a_power_cut_at_any_point_costs_nothing_that_was_promised() {
    a_death_costs_nothing_that_was_promised(2, "points-power", "without power in the middle of things");
}

/// What broke a promise once does not again.
#[test]
fn worlds_that_went_wrong_once_go_well() {
    journeyman::tls::init();
    let mut sum = Sum::new();
    for name in SEEDS.lines().filter(|line| !line.starts_with('#')) {
        let profile = Profile::named(name).unwrap_or_else(|| panic!("`{name}` names no world"));
        assert_eq!(profile.name, name);
        sum.add(simulate(&profile));
    }
    let mut table = Table::new("simulation", "seeds", HEADS);
    table.row(&[&"T2", &"worlds in which a promise was broken once", &sum.say()]);
    assert_eq!(sum.broken(), None);
}

/// A seed that breaks a promise can be looked at as often as it takes.
#[test]
fn one_seed_is_one_history() {
    journeyman::tls::init();
    let traced = |seed| simulate(&Profile { accounts: Accounts::Trace, ..Profile::chance(seed) });
    let traces = [7, 11].map(|seed| {
        let [once, again] = std::thread::scope(|scope| {
            [(); 2].map(|()| scope.spawn(|| traced(seed))).map(|world| world.join().expect("a world ends"))
        });
        let pairs = || once.lines.iter().zip(&again.lines);
        if let Some(first) = pairs().position(|(once, again)| once != again) {
            let around: Vec<_> = pairs().skip(first.saturating_sub(5)).take(12).collect();
            panic!("seed {seed} has two histories; they part at event {first}: {around:#?}");
        }
        assert_eq!((once.lines.len(), once.trace), (again.lines.len(), again.trace), "seed {seed}");
        assert!(once.crashes > 1 && once.lines.len() > 5_000, "a history of its own: {}", once.lines.len());
        once.trace
    });
    assert_ne!(traces[0], traces[1]);
}

/// T24: three hundred journeys fail together, recover and fail again; `-- storm` of the bench has ten thousand.
#[test]
fn a_storm_that_comes_and_goes_is_told_in_a_few_messages() {
    journeyman::tls::init();
    let profile = Profile::storm(300);
    let storm = Storm::of(&profile, simulate(&profile));
    let mut table = Table::new("robustness", "t24", &["test", "tried", "held"]);
    let what = "300 journeys of three systems, one with a `spend` that makes runs rare, fail together for 4 minutes, recover, and fail again five times";
    table.row(&[&"T24 storm", &what, &storm.say()]);
    assert_eq!(storm.broken(), Vec::<String>::new(), "{}", storm.say());
}
