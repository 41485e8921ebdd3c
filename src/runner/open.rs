//! An open channel as runs use it: its permits, its pace, its readiness, and what it last did.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::board::Board;
use crate::channel::seen::Notes;
use crate::channel::{Channel, ChannelPolicy, Readiness};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::trend::Trend;
use crate::journey::value::Value;
use crate::journey::{Act, Name, Outgoing};
use crate::metrics::ChannelMetrics;
use crate::time::Mono;

/// Targets of one channel whose trend is kept; a template that names a new one each run must not fill memory.
const TRENDS: usize = 256;

/// The phases of making a connection, by the names that channels give them.
const CONNECTING: &[&str] = &["dns", "connect", "tls", "starttls", "greeting", "login", "bind", "handshake"];

/// An open channel.
pub struct OpenChannel {
    /// Its name.
    pub name: Name,
    /// The connection.
    pub channel: Arc<dyn Channel>,
    /// What the configuration says of it.
    pub policy: ChannelPolicy,
    /// Whether it can receive; only receiving channels ever say so.
    pub readiness: watch::Receiver<Readiness>,
    /// Sends and requests at once.
    permits: Semaphore,
    pace: Mutex<Pace>,
    /// What its checks saw, by target.
    trends: Mutex<HashMap<String, Trend>>,
    /// Its own alert has fired: whoever needs it is blocked.
    is_known_down: AtomicBool,
    /// What its reader met when it last connected.
    reading: Notes,
    clock: Clock,
    board: Arc<Board>,
    metrics: ChannelMetrics,
}

impl OpenChannel {
    /// Puts `channel` to use.
    pub fn new(
        name: Name,
        channel: Arc<dyn Channel>,
        policy: ChannelPolicy,
        readiness: watch::Receiver<Readiness>,
        clock: Clock,
        board: Arc<Board>,
        metrics: ChannelMetrics,
    ) -> OpenChannel {
        let permits = Semaphore::new(policy.max_in_flight.max(1));
        let (pace, trends, reading) = Default::default();
        let is_known_down = AtomicBool::new(false);
        OpenChannel {
            name,
            channel,
            policy,
            readiness,
            permits,
            pace,
            trends,
            is_known_down,
            reading,
            clock,
            board,
            metrics,
        }
    }

    /// Where its reader notes what it meets: it runs [over](Notes::over) these.
    pub fn reading(&self) -> &Notes {
        &self.reading
    }

    /// Sends, or asks, when a permit is free and the rate allows. That waiting is ours and counts in no latency.
    pub async fn perform(&self, outgoing: &Outgoing, act: Act) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let held_back = async {
            let permit = self.permits.acquire().await;
            let turn = self.policy.rate.map(|rate| self.take_turn(rate));
            if let Some(turn) = turn {
                self.clock.sleep_until(turn).await;
            }
            permit
        };
        // All the time that the step has must not go into waiting for ourselves: half of it is left for the system.
        let Ok(permit) = tokio::time::timeout(outgoing.timeout / 2, held_back).await else {
            let limit = match self.policy.rate {
                Some(rate) => format!("rate = \"{rate}/s\", max_in_flight = {}", self.policy.max_in_flight),
                None => format!("max_in_flight = {}", self.policy.max_in_flight),
            };
            let detail = format!("held back by this channel's own limit ({limit}); nothing was sent");
            let finished = self.clock.now();
            return Err(Fault {
                started: asked,
                finished,
                cause: Cause::Throttled,
                detail,
                uncertain: false,
                phases: Vec::new(),
            });
        };
        let _permit = permit;
        let mut result = self.channel.perform(act, outgoing).await;
        if let (Act::Check, Ok(reply)) = (act, &mut result) {
            self.sample(outgoing, reply);
        }
        self.note(&result);
        result
    }

    /// What a check saw of its target joins what it saw before, so that it can say how that has changed.
    fn sample(&self, outgoing: &Outgoing, reply: &mut Reply) {
        let Some(message) = &mut reply.message else { return };
        let mut target = outgoing.fields.values().map(String::as_str).collect::<Vec<_>>().join(" ");
        if target.is_empty() {
            target.push_str(&self.name);
        }
        let mut trends = self.trends.lock().unwrap_or_else(PoisonError::into_inner);
        if trends.len() >= TRENDS && !trends.contains_key(&target) {
            return;
        }
        self.metrics.checked(&target, &message.facts);
        let trend = trends.entry(target).or_default();
        if let Some(waiting) = message.facts.get("depth").or_else(|| message.facts.get("lag")).and_then(Value::as_f64) {
            trend.push(reply.finished.mono, waiting);
            message.trend = Some(Box::new(trend.clone()));
        }
    }

    fn note(&self, result: &Result<Reply, Fault>) {
        match result {
            Ok(reply) => {
                let at = reply.finished.wall;
                let connecting = reply.phases.iter().filter(|phase| CONNECTING.contains(&phase.name.as_str()));
                let connected = connecting.map(|phase| phase.took).reduce(|sum, took| sum + took);
                self.metrics.acknowledged(reply.finished.mono.since(reply.started.mono), connected);
                self.board.update_channel(&self.name, |status| status.last_success = Some(at));
            }
            Err(fault) => {
                self.metrics.fault(fault.cause);
                let told = (fault.finished.wall, format!("{}: {}", fault.cause, fault.detail));
                self.board.update_channel(&self.name, |status| status.last_fault = Some(told));
            }
        }
    }

    fn take_turn(&self, rate: f64) -> Mono {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(rate, self.clock.now().mono)
    }

    /// Whether its own alert has fired.
    pub fn is_known_down(&self) -> bool {
        self.is_known_down.load(Ordering::Relaxed)
    }

    /// Says whether its own alert has fired; gives what was said before.
    pub fn set_known_down(&self, is_down: bool) -> bool {
        self.is_known_down.swap(is_down, Ordering::Relaxed)
    }

    /// Its handles.
    pub fn metrics(&self) -> &ChannelMetrics {
        &self.metrics
    }
}

/// The channels that runs begin with.
pub struct Channels(RwLock<Arc<Opened>>);

/// The channels of one plan.
pub struct Opened {
    by_name: BTreeMap<Name, Arc<OpenChannel>>,
    /// Cancelled when nobody has these any more.
    unused: CancellationToken,
    _guard: DropGuard,
}

impl Opened {
    fn new(by_name: BTreeMap<Name, Arc<OpenChannel>>) -> Opened {
        let unused = CancellationToken::new();
        Opened { by_name, _guard: unused.clone().drop_guard(), unused }
    }

    /// The channel of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<OpenChannel>> {
        self.by_name.get(name)
    }

    /// Every channel, by name.
    pub fn all(&self) -> &BTreeMap<Name, Arc<OpenChannel>> {
        &self.by_name
    }
}

impl From<BTreeMap<Name, Arc<OpenChannel>>> for Channels {
    fn from(by_name: BTreeMap<Name, Arc<OpenChannel>>) -> Channels {
        Channels(RwLock::new(Arc::new(Opened::new(by_name))))
    }
}

impl Channels {
    /// Those that a run begins with now.
    pub fn now(&self) -> Arc<Opened> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs begin with these from here on. What it gives is cancelled when the last run that began with others has ended.
    pub fn replace(&self, by_name: BTreeMap<Name, Arc<OpenChannel>>) -> CancellationToken {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let unused = current.unused.clone();
        *current = Arc::new(Opened::new(by_name));
        unused
    }
}

/// Turns at an even rate: pure but for who holds it.
#[derive(Debug, Default)]
struct Pace {
    next: Mono,
}

impl Pace {
    /// Takes the next turn; says when it is.
    fn take(&mut self, rate: f64, now: Mono) -> Mono {
        let turn = self.next.max(now);
        self.next = turn + Duration::from_secs_f64(1.0 / rate);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_spaced_and_unused_ones_are_lost() {
        let at = |millis| Mono(Duration::from_millis(millis));
        let mut pace = Pace::default();
        assert_eq!(pace.take(5.0, at(1_000)), at(1_000));
        assert_eq!(pace.take(5.0, at(1_000)), at(1_200));
        assert_eq!(pace.take(5.0, at(1_050)), at(1_400));
        assert_eq!(pace.take(5.0, at(9_000)), at(9_000));
    }
}
