//! The numbers of breakers, and of channels that were made to slow down.

use metrics::{Counter, Gauge};

use crate::breaker::{Breaker, Guarded, State};
use crate::journey::Name;
use crate::metrics::{BREAKER_STATE, BREAKER_TRANSITIONS, CHANNEL_SLOWDOWNS, CHANNEL_SLOWED, Metrics};

/// A breaker's handles.
pub struct BreakerMetrics {
    states: [Gauge; State::ALL.len()],
    transitions: [Counter; State::ALL.len()],
}

/// Why a channel slows down.
const SLOWDOWNS: [&str; 3] = ["told", "limit", "throttled"];

/// The handles of a channel's own pace.
pub struct PaceMetrics {
    slowed: Gauge,
    slowdowns: [Counter; SLOWDOWNS.len()],
}

impl Metrics {
    /// The handles of the breaker before `what`.
    pub fn breaker(&self, what: &Guarded) -> BreakerMetrics {
        let of = |label, state: State| [("kind", what.kind()), ("name", &**what.name()), (label, state.as_str())];
        let handles = BreakerMetrics {
            states: State::ALL.map(|state| self.gauge(BREAKER_STATE, &of("state", state))),
            transitions: State::ALL.map(|state| self.counter(BREAKER_TRANSITIONS, &of("to", state))),
        };
        handles.show(State::Closed, [0; State::ALL.len()]);
        handles
    }

    /// The handles of a channel's own pace.
    pub fn pace(&self, channel: &Name) -> PaceMetrics {
        let slowed = self.gauge(CHANNEL_SLOWED, &[("channel", channel)]);
        slowed.set(0.0);
        let slowdowns = SLOWDOWNS.map(|why| self.counter(CHANNEL_SLOWDOWNS, &[("channel", channel), ("reason", why)]));
        PaceMetrics { slowed, slowdowns }
    }
}

impl BreakerMetrics {
    /// The breaker as it is.
    pub fn set(&self, breaker: &Breaker) {
        self.show(breaker.state(), breaker.counts());
    }

    fn show(&self, state: State, counts: [u64; State::ALL.len()]) {
        for (gauge, of) in self.states.iter().zip(State::ALL) {
            gauge.set(f64::from(u8::from(of == state)));
        }
        for (counter, count) in self.transitions.iter().zip(counts) {
            counter.absolute(count);
        }
    }
}

impl PaceMetrics {
    /// It was made to slow down: `told`, `limit`, `throttled`.
    pub fn slowed(&self, why: &'static str) {
        if let Some(at) = SLOWDOWNS.iter().position(|known| *known == why) {
            self.slowdowns[at].increment(1);
        }
    }

    /// How long it waits between two calls, or before the next, because of that.
    pub fn set(&self, wait: std::time::Duration) {
        self.slowed.set(wait.as_secs_f64());
    }
}
