//! What many worlds come to.

use std::time::{Duration, Instant};

use super::life::{Profile, Told};
use super::world::Point;

/// What many worlds come to.
pub(crate) struct Sum {
    began: Instant,
    worlds: u64,
    runs: usize,
    crashes: u32,
    notices: usize,
    events: u64,
    trace: u64,
    /// The promises that were broken, and in which world.
    pub(crate) broken: Vec<String>,
}

impl Sum {
    /// None yet.
    #[expect(clippy::disallowed_methods, reason = "it measures real time")]
    pub(crate) fn new() -> Sum {
        let (worlds, runs, crashes, notices, events, trace, broken) = Default::default();
        Sum { began: Instant::now(), worlds, runs, crashes, notices, events, trace, broken }
    }

    pub(crate) fn add(&mut self, what: &str, told: Told) {
        self.worlds += 1;
        self.runs += told.runs;
        self.crashes += told.crashes;
        self.notices += told.notices;
        self.events += told.events;
        // In any order: worlds are run on all cores.
        self.trace = self.trace.wrapping_add(told.trace);
        self.broken.extend(told.broken.into_iter().map(|sentence| format!("{what}: {sentence}")));
    }

    pub(crate) fn say(&self) -> String {
        format!(
            "{} worlds, {} runs, {} deaths, {} notices taken, {} events (trace {:016x}): {} promises broken; {:.0} s",
            self.worlds,
            self.runs,
            self.crashes,
            self.notices,
            self.events,
            self.trace,
            self.broken.len(),
            self.began.elapsed().as_secs_f64()
        )
    }
}

/// A world whose process dies when it comes to this point for the so-maniest time.
pub(crate) fn doomed(point: Point, time: u32, seed: u64) -> Profile {
    let mut profile = Profile::new(seed, Duration::from_secs(1_200), 6, Duration::from_secs(20));
    (profile.lives, profile.doom) = (None, Some((point, time)));
    profile.no_disk.clear();
    profile
}
