//! What the faults of the moment mean for one connection: what happens to bytes of a direction, and when it ends. Pure.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::proxy::fault::{Direction, Fault, What};
use crate::time::Mono;

/// With a limited bandwidth, bytes go on so often.
const TICK: Duration = Duration::from_millis(100);

/// What the proxy does just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment {
    /// The faults; a fault's place decides, with the seed, which connections it strikes.
    pub(super) faults: Vec<Fault>,
    /// Since when they are these, and how often they were changed before.
    since: Mono,
    changes: u64,
    /// Nothing goes through connections up to this one.
    pub(super) stalled: u64,
    /// Connections up to this one are ended.
    pub(super) ended: u64,
    /// By a reset.
    pub(super) by_reset: bool,
    /// New connections are ended at once.
    pub(super) refuses: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have left.
    Left,
    /// The server was not there.
    Unreached,
    /// It was ended, with whatever was held.
    Cut,
    /// The same, and nobody listens any more.
    Down,
    /// It was reset, for whoever is named.
    Reset { client: bool, server: bool },
    /// A `timeout` has passed.
    TimedOut,
    /// A `limit` is reached.
    Limited,
}

/// What happens to bytes of one direction of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Effect {
    /// They stay here.
    pub(super) holds: bool,
    delay: Duration,
    jitter: Duration,
    rate: Option<NonZeroU64>,
    size: Option<NonZeroUsize>,
    pause: Duration,
    /// Its end is passed on after this long.
    pub(super) close: Duration,
    /// So many may go on since the faults were changed for the last time, which was this one.
    limit: Option<u64>,
    change: u64,
}

/// Bytes that went on since the faults were last changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    change: u64,
    bytes: u64,
}

impl Moment {
    /// Changes the faults, at `now`.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Vec<Fault>), now: Mono) {
        change(&mut self.faults);
        self.since = now;
        self.changes += 1;
    }

    /// Whether nobody listens.
    pub(super) fn is_down(&self) -> bool {
        self.faults.iter().any(|fault| fault.what == What::Down)
    }

    /// What happens to bytes of `direction` on the connection of this number.
    pub(super) fn effect(&self, connection: u64, seed: u64, direction: Direction) -> Effect {
        let none = Effect { holds: connection <= self.stalled, change: self.changes, ..Effect::default() };
        let struck = self.striking(connection, seed).filter(|fault| fault.is_on(direction));
        struck.fold(none, |effect, fault| effect.with(fault.what))
    }

    /// When the connection of this number, which began at `began`, is ended, and how.
    pub(super) fn end(&self, connection: u64, seed: u64, began: Mono) -> Option<(Mono, End)> {
        if self.is_down() {
            return Some((began, End::Down));
        }
        if connection <= self.ended {
            let reset = End::Reset { client: true, server: true };
            return Some((began, if self.by_reset { reset } else { End::Cut }));
        }
        let from = began.max(self.since);
        let ends = self.striking(connection, seed).filter_map(|fault| {
            let is_on = |direction| fault.is_on(direction);
            let (client, server) = (is_on(Direction::ToClient), is_on(Direction::ToServer));
            match fault.what {
                What::Reset { after } => Some((from + after, End::Reset { client, server })),
                What::Timeout(after) => Some((from + after, End::TimedOut)),
                What::Latency { .. }
                | What::Bandwidth(_)
                | What::Slicer { .. }
                | What::SlowClose(_)
                | What::Limit(_)
                | What::Hold
                | What::Down => None,
            }
        });
        ends.min_by_key(|(at, _)| *at)
    }

    fn striking(&self, connection: u64, seed: u64) -> impl Iterator<Item = &Fault> {
        let strikes = move |(place, fault): &(usize, &Fault)| strikes(fault, *place, connection, seed);
        self.faults.iter().enumerate().filter(strikes).map(|(_, fault)| fault)
    }
}

/// Whether a fault strikes the connection of this number. Faults strike independently of each other, each by its place.
pub(super) fn strikes(fault: &Fault, place: usize, connection: u64, seed: u64) -> bool {
    fault.share >= 1.0 || chance(seed, connection, place as u64).f64() < fault.share
}

/// Chance that is the same each time for the same seed, connection and use.
pub(super) fn chance(seed: u64, connection: u64, uses: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed([connection, uses].iter().fold(mixed(seed), |mix, more| mixed(mix ^ more)))
}

/// One step of SplitMix64: neighbours have nothing in common afterwards, as the seeds of neighbours must not.
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Effect {
    /// With one more fault. Of two that want the same thing the stricter counts; latencies and pauses add up.
    fn with(mut self, what: What) -> Effect {
        match what {
            What::Latency { delay, jitter } => {
                (self.delay, self.jitter) = (self.delay.saturating_add(delay), self.jitter.saturating_add(jitter));
            }
            What::Bandwidth(rate) => self.rate = Some(self.rate.map_or(rate, |mine| mine.min(rate))),
            What::Slicer { size, pause } => {
                self.size = Some(self.size.map_or(size, |mine| mine.min(size)));
                self.pause = self.pause.saturating_add(pause);
            }
            What::SlowClose(close) => self.close = self.close.max(close),
            What::Timeout(_) | What::Hold => self.holds = true,
            What::Limit(bytes) => self.limit = Some(self.limit.map_or(bytes, |mine| mine.min(bytes))),
            // They happen to the connection.
            What::Reset { .. } | What::Down => {}
        }
        self
    }

    /// How many of so many bytes that wait go on next, at once.
    pub(super) fn size(&self, waiting: usize) -> usize {
        let tick = self.rate.map(|rate| u128::from(rate.get()) * TICK.as_millis() / 1_000);
        let by_rate = tick.map_or(waiting, |bytes| usize::try_from(bytes).unwrap_or(waiting));
        waiting.min(by_rate).min(self.size.map_or(waiting, NonZeroUsize::get)).max(1)
    }

    /// When they go on, if they came at `came`, `luck` between 0 and 1 is theirs, and those before them went on at `before`.
    pub(super) fn due(&self, came: Mono, before: Mono, luck: f64, waiting: usize) -> Mono {
        let (more, less) = ((luck - 0.5).max(0.0) * 2.0, (0.5 - luck).max(0.0) * 2.0);
        let delay = self.delay + self.jitter.mul_f64(more);
        let arrives = came + delay.saturating_sub(self.jitter.mul_f64(less));
        let takes = |rate: NonZeroU64| Duration::from_secs_f64(self.size(waiting) as f64 / rate.get() as f64);
        arrives.max(before) + self.pause + self.rate.map_or(Duration::ZERO, takes)
    }

    /// How many of `wanted` bytes may go on before the limit is reached.
    pub(super) fn allows(&self, wanted: usize, passed: &Passed) -> usize {
        let bytes = if passed.change == self.change { passed.bytes } else { 0 };
        let left = self.limit.map(|limit| usize::try_from(limit.saturating_sub(bytes)).unwrap_or(wanted));
        left.map_or(wanted, |left| left.min(wanted))
    }

    /// Counts bytes that went on; whether the limit is reached.
    pub(super) fn pass(&self, bytes: usize, passed: &mut Passed) -> bool {
        if passed.change != self.change {
            *passed = Passed { change: self.change, bytes: 0 };
        }
        passed.bytes = passed.bytes.saturating_add(bytes as u64);
        self.limit.is_some_and(|limit| passed.bytes >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    fn moment(faults: &[&str], since: Mono) -> Moment {
        let mut moment = Moment::default();
        moment.change(|all| all.extend(faults.iter().map(|fault| fault.parse::<Fault>().unwrap())), since);
        moment
    }

    fn effect(faults: &[&str], direction: Direction) -> Effect {
        moment(faults, at(0)).effect(1, 7, direction)
    }

    #[test]
    fn a_latency_counts_from_when_bytes_came_varies_by_its_jitter_and_keeps_their_order() {
        let late = effect(&["latency=200ms±50ms"], Direction::ToServer);
        for (luck, due) in [(0.0, 1_150), (0.5, 1_200), (1.0, 1_250)] {
            assert_eq!(late.due(at(1_000), at(0), luck, 10), at(due), "{luck}");
        }
        assert_eq!(late.due(at(1_000), at(1_300), 0.0, 10), at(1_300), "never before those before them");
        let twice = effect(&["latency=200ms", "latency=100ms"], Direction::ToServer);
        assert_eq!(twice.due(at(0), at(0), 0.5, 10), at(300));
        let early = effect(&["latency=10ms±50ms"], Direction::ToServer);
        assert_eq!(early.due(at(1_000), at(0), 0.0, 10), at(1_000), "not before they came");
    }

    #[test]
    fn a_bandwidth_gives_each_tick_its_bytes_and_a_slicer_cuts_them() {
        let slow = effect(&["bandwidth=10kB/s", "bandwidth=20kB/s"], Direction::ToServer);
        assert_eq!((slow.size(50_000), slow.size(10)), (1_000, 10));
        assert_eq!(slow.due(at(0), at(500), 0.5, 50_000), at(600));
        assert_eq!(effect(&["bandwidth=1B/s"], Direction::ToServer).size(10), 1, "it goes on, however slowly");
        let sliced = effect(&["slicer=64/2ms", "bandwidth=10kB/s"], Direction::ToServer);
        assert_eq!(sliced.size(5_000), 64);
        assert_eq!(sliced.due(at(0), at(0), 0.5, 100), at(2) + Duration::from_micros(6_400));
    }

    #[test]
    fn a_limit_counts_from_the_last_change_and_is_reached_by_its_last_byte() {
        let mut moment = moment(&["limit=10"], at(0));
        let (mut passed, limited) = (Passed::default(), moment.effect(1, 7, Direction::ToClient));
        assert_eq!(limited.allows(4, &passed), 4);
        assert!(!limited.pass(4, &mut passed));
        assert_eq!(limited.allows(100, &passed), 6);
        assert!(limited.pass(6, &mut passed));
        assert_eq!(limited.allows(1, &passed), 0);
        moment.change(|_| {}, at(1));
        assert_eq!(moment.effect(1, 7, Direction::ToClient).allows(100, &passed), 10);
    }

    #[test]
    fn each_direction_has_its_own_faults() {
        let faults = ["to-client:hold", "to-server:latency=1s", "slow_close=2s"];
        let (there, back) = (effect(&faults, Direction::ToServer), effect(&faults, Direction::ToClient));
        assert!(!there.holds && back.holds);
        assert_eq!((there.delay, back.delay), (Duration::from_secs(1), Duration::ZERO));
        assert_eq!((there.close, back.close), (Duration::from_secs(2), Duration::from_secs(2)));
    }

    #[test]
    fn a_connection_ends_by_what_comes_first_from_when_both_it_and_the_fault_were_there() {
        let both = End::Reset { client: true, server: true };
        let table = [
            (&["timeout=5s"][..], 0, Some((at(7_000), End::TimedOut))),
            (&["timeout=5s"], 9_000, Some((at(14_000), End::TimedOut))),
            (&["timeout=5s", "reset=1s"], 0, Some((at(3_000), both))),
            (&["to-client:reset"], 0, Some((at(2_000), End::Reset { client: true, server: false }))),
            (&["to-server:reset"], 0, Some((at(2_000), End::Reset { client: false, server: true }))),
            (&["down", "reset"], 0, Some((at(0), End::Down))),
            (&["hold", "latency=1s", "limit=1"], 0, None),
        ];
        for (faults, began, end) in table {
            assert_eq!(moment(faults, at(2_000)).end(1, 7, at(began)), end, "{faults:?} {began}");
        }
    }

    #[test]
    fn what_stood_is_stalled_or_ended_and_what_comes_after_is_not() {
        let moment = Moment { stalled: 2, ended: 1, ..Moment::default() };
        let holds = |connection| moment.effect(connection, 7, Direction::ToServer).holds;
        assert_eq!([1, 2, 3].map(holds), [true, true, false]);
        let is_ended = |connection| moment.end(connection, 7, at(0)).is_some();
        assert_eq!([1, 2].map(is_ended), [true, false]);
    }

    #[test]
    fn a_share_of_the_connections_is_struck_the_same_ones_each_time_and_faults_independently() {
        let tenth: Fault = "reset=0.1".parse().unwrap();
        let struck = |place, seed| (1..=10_000).filter(|n| strikes(&tenth, place, *n, seed)).collect::<Vec<u64>>();
        let first = struck(0, 7);
        assert!((900..1_100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, struck(0, 7));
        for other in [struck(0, 8), struck(1, 7)] {
            let both = other.iter().filter(|number| first.contains(number)).count();
            assert!((60..150).contains(&both), "{both} of {}", other.len());
        }
        assert!((1..=100).all(|n| strikes(&"hold".parse().unwrap(), 0, n, 7)));
    }
}
