//! T25: random sequences of calls, results, orders and time, on the breaker and on its reference, which must agree after each step;
//! and from wherever that leads, a breaker of a healthy system closes in time.

use std::time::Duration;

use fastrand::Rng;
use journeyman::breaker::{Breaker, Force, Need, Order, Sample, Settings, State, Ticket, Verdict};
use journeyman::time::Mono;

use super::reference::Reference;
use crate::support::table::Table;

const HEADS: [&str; 3] = ["T25: the machine and its reference", "found", "goal"];
/// Steps of a sequence.
const STEPS: usize = 40;
/// What time goes on by, in milliseconds.
const PAUSES: [u64; 10] = [0, 0, 1, 500, 1_000, 4_000, 11_000, 20_000, 130_000, 700_000];
const NEEDS: [Need; 4] = [Need::Usual, Need::Usual, Need::Owed, Need::Begun];
const LIMITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// One sequence under way.
struct Walk {
    rng: Rng,
    breaker: Breaker,
    reference: Reference,
    now: Mono,
    /// Out of ten.
    failing: u32,
    calls: Vec<(Ticket, usize)>,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut rng = Rng::with_seed(seed);
        let base = if rng.bool() { Settings::CHANNEL } else { Settings::NOTIFIER };
        let settings = Settings { observes: rng.u8(..8) == 0, ..base };
        Walk {
            breaker: Breaker::new(settings),
            reference: Reference::new(settings),
            now: Mono(Duration::from_secs(rng.u64(..1_000))),
            failing: *rng.choice([1, 5, 8, 10].iter()).expect("there are some"),
            calls: Vec::new(),
            rng,
        }
    }

    fn sample(&self) -> Sample {
        Sample { at: self.now, cause: "unreachable", tag: "token".into() }
    }

    fn verdict(&mut self) -> Verdict {
        match self.rng.u32(..10) {
            n if n < self.failing => {
                let after = (self.rng.u8(..20) == 0).then(|| Duration::from_secs(self.rng.u64(..2_000)));
                Verdict::Failed { after }
            }
            n if n % 5 == 4 => Verdict::Ignored,
            _ => Verdict::Worked,
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(*self.rng.choice(PAUSES.iter()).expect("there are some"));
        let (now, chance) = (self.now, self.rng.f64());
        match self.rng.u32(..100) {
            0..45 => {
                let need = *self.rng.choice(NEEDS.iter()).expect("there are some");
                let limit = *self.rng.choice(LIMITS.iter()).expect("there are some");
                let who = self.rng.u64(..3);
                let found = self.breaker.admit(need, who, limit, now, chance).map_err(|refused| refused.until);
                match (found, self.reference.admit(need, who, limit, now, chance)) {
                    (Ok(ticket), Ok(number)) => self.calls.push((ticket, number)),
                    (Err(found), Err(expected)) => assert_eq!(found, expected),
                    (found, expected) => panic!("{found:?}, and not {expected:?}"),
                }
            }
            45..85 if !self.calls.is_empty() => {
                let (ticket, number) = self.calls.swap_remove(self.rng.usize(..self.calls.len()));
                let verdict = self.verdict();
                self.breaker.end(ticket, verdict, self.sample(), chance);
                self.reference.end(number, verdict, now, chance);
            }
            85..89 if !self.calls.is_empty() => {
                let (ticket, number) = self.calls.swap_remove(self.rng.usize(..self.calls.len()));
                self.breaker.cancel(ticket, "token".into(), now, chance);
                self.reference.cancel(number, now, chance);
            }
            89..95 => {
                let verdict = self.verdict();
                self.breaker.witness(verdict, self.sample(), chance);
                self.reference.witness(verdict, now, chance);
            }
            95..97 => {
                let force = *self.rng.choice([Force::Open, Force::Closed, Force::Observe].iter()).expect("one");
                let until = now + Duration::from_secs(self.rng.u64(..100_000));
                self.breaker.obey(Some(order(force)), until, now);
                self.reference.obey(Some((force, until)), now);
            }
            97..99 => {
                self.breaker.obey(None, now, now);
                self.reference.obey(None, now);
            }
            _ => {
                self.breaker.pass_time(now, chance);
                self.reference.pass_time(now, chance);
            }
        }
    }

    fn compare(&mut self) {
        let (breaker, reference) = (&self.breaker, &self.reference);
        assert_eq!(
            (breaker.state(), breaker.open_until(), breaker.left_closed(), breaker.changes()),
            (reference.state(), reference.open_until(), reference.left_closed(), reference.changes)
        );
    }

    /// From here on everything works, and somebody calls each second. Whoever was let through before never comes back.
    fn heal(mut self) {
        self.breaker.obey(None, self.now, self.now);
        self.reference.obey(None, self.now);
        // A trial that nobody answers must be over first, and costs at most the longest time that it can be open.
        let lost = self.reference.trial_deadline();
        let bound = match lost {
            Some(deadline) => {
                (deadline + Duration::from_secs(720)).max(self.reference.open_until().unwrap_or(deadline))
            }
            None => self.reference.open_until().unwrap_or(self.now).max(self.now),
        } + Duration::from_secs(3);
        while self.breaker.would_be() != State::Closed {
            assert!(self.now <= bound, "still {:?} at {:?}, and healthy", self.breaker, self.now);
            if let Ok(ticket) = self.breaker.admit(Need::Usual, 1, LIMITS[0], self.now, 1.0) {
                self.breaker.end(ticket, Verdict::Worked, self.sample(), 1.0);
            }
            self.now = self.now + Duration::from_secs(1);
        }
    }
}

fn order(to: Force) -> Order {
    let until = jiff::Timestamp::UNIX_EPOCH;
    Order { to, by: "ada".to_owned(), reason: "to see".to_owned(), until }
}

fn walk(sequences: u64, part: &str) {
    let (mut trips, mut closings) = (0, 0);
    for seed in 0..sequences {
        let mut walk = Walk::new(seed);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                walk.step();
                walk.compare();
            }
        }));
        assert!(checked.is_ok(), "with the seed {seed}");
        let counts = walk.breaker.counts();
        (trips, closings) = (trips + counts[State::Open as usize], closings + counts[State::Closed as usize]);
        walk.heal();
    }
    let mut table = Table::new("breaker", part, &HEADS);
    table.row(&[&"random sequences of 40 steps", &sequences, &100_000]);
    table.row(&[&"steps compared, all alike", &(sequences * STEPS as u64), &4_000_000]);
    table.row(&[&"times that it opened, and closed", &format!("{trips}, {closings}"), &"often"]);
    table.row(&[&"left healthy after that, and closed within its time and its trial", &sequences, &"all"]);
    assert!(trips > sequences / 2 && closings > sequences / 20, "they led nowhere: {trips}, {closings}");
}

#[test]
fn the_machine_does_what_its_reference_does() {
    walk(100_000, "t25");
}

#[test]
#[ignore = "long: a million sequences"]
fn the_machine_does_what_its_reference_does_a_million_times() {
    walk(1_000_000, "t25-long");
}
