//! The numbers of breakers, and of channels that were made to slow down.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge};

use crate::breaker::{Breaker, Guarded, State};
use crate::journey::Name;
use crate::metrics::{BREAKER_STATE, BREAKER_TRANSITIONS, CHANNEL_SLOWDOWNS, CHANNEL_SLOWED, Metrics, labels};

/// A breaker's handles.
pub struct BreakerMetrics {
    states: [Gauge; State::ALL.len()],
    transitions: [Counter; State::ALL.len()],
    /// So many were counted: a breaker that a reload made anew begins at zero.
    counted: [AtomicU64; State::ALL.len()],
}

/// A breaker's series have two labels that say whose they are; together they are hidden under one.
fn pair_label(kind: &str) -> &'static str {
    if kind == "channel" { "breaker of channel" } else { "breaker of notifier" }
}

/// Whose breaker a line is of, as [`Metrics::show_breaker`] hides it.
pub(super) fn pair_of(line: &str) -> Option<String> {
    if !line.starts_with(BREAKER_STATE) && !line.starts_with(BREAKER_TRANSITIONS) {
        return None;
    }
    let value = |name: &str| labels(line).find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
    let (kind, name) = (value("kind")?.trim_end_matches('"'), value("name")?);
    Some(format!("{}=\"{name}", pair_label(kind)))
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
        BreakerMetrics {
            states: State::ALL.map(|state| self.gauge(BREAKER_STATE, &of("state", state))),
            transitions: State::ALL.map(|state| self.counter(BREAKER_TRANSITIONS, &of("to", state))),
            counted: Default::default(),
        }
    }

    /// Shows the series of the breaker before `what` from here on, or no longer.
    pub fn show_breaker(&self, what: &Guarded, is_there: bool) {
        self.show(pair_label(what.kind()), what.name(), is_there);
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
        for (gauge, of) in self.states.iter().zip(State::ALL) {
            gauge.set(f64::from(u8::from(of == breaker.state())));
        }
        for ((counter, counted), count) in self.transitions.iter().zip(&self.counted).zip(breaker.counts()) {
            counter.increment(count.saturating_sub(counted.fetch_max(count, Ordering::Relaxed)));
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
