//! What many worlds come to.

use journeyman::clock::Clock;
use journeyman::time::Mono;

use super::life::Told;

/// What many worlds come to.
pub(crate) struct Sum {
    clock: Clock,
    began: Mono,
    worlds: u64,
    runs: usize,
    crashes: u32,
    notices: usize,
    events: u64,
    trace: u64,
    /// The promises that were broken, and in which world.
    broken: Vec<(String, Vec<String>)>,
}

impl Sum {
    /// None yet.
    pub(crate) fn new() -> Sum {
        let (worlds, runs, crashes, notices, events, trace, broken) = Default::default();
        let clock = Clock::system();
        Sum { clock, began: clock.now().mono, worlds, runs, crashes, notices, events, trace, broken }
    }

    pub(crate) fn add(&mut self, told: Told) {
        self.worlds += 1;
        self.runs += told.runs;
        self.crashes += told.crashes;
        self.notices += told.taken.len();
        self.events += told.events;
        // In any order: worlds are run on all cores.
        self.trace = self.trace.wrapping_add(told.trace);
        if !told.broken.is_empty() {
            self.broken.push((told.name, told.broken));
        }
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
            self.broken.iter().map(|(_, sentences)| sentences.len()).sum::<usize>(),
            self.clock.now().mono.since(self.began).as_secs_f64()
        )
    }

    /// The promises that were broken, and what keeps the worlds in which they were; nothing, if none was.
    pub(crate) fn broken(&self) -> Option<String> {
        let (first, _) = self.broken.first()?;
        let world =
            |(name, sentences): &(String, Vec<String>)| format!("{name}: {}", sentences.join(&format!("\n{name}: ")));
        let said: Vec<_> = self.broken.iter().map(world).collect();
        Some(format!(
            "{}\nEach of these worlds, for instance `{first}`, is to become a line of tests/it/simulation/seeds.txt.",
            said.join("\n")
        ))
    }
}
