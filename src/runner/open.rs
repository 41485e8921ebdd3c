//! An open channel as runs use it: its permits, its pace, its readiness, and what it last did.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::board::Board;
use crate::channel::awaited::Awaits;
use crate::channel::seen::Notes;
use crate::channel::{Channel, ChannelPolicy, Readiness};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::trend::Trend;
use crate::journey::value::Value;
use crate::journey::{Act, Name, Outgoing};
use crate::metrics::ChannelMetrics;
use crate::runner::gate::{Caller, Gate, Pass};
use crate::runner::hint::hint;
use crate::runner::pace::Pace;
use crate::time::{Human, Mono, Now};

/// Targets of one channel whose trend is kept; a template that names a new one each run must not fill memory.
const TRENDS: usize = 256;

/// A connection that could not be made is not tried again within this: who comes meanwhile has met the same. So a dead system is
/// called twenty times a second at most, however many journeys need it.
const SAME_REFUSAL: Duration = Duration::from_millis(50);

/// What is said of a call that was not made because the channel may make no more: nobody but us refused it.
pub const OWN_LIMIT: &str = "held back by this channel's own limit";

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
    permits: Arc<Semaphore>,
    /// One run at a time waits for the reader, the others behind it.
    queue: Semaphore,
    pace: Mutex<Pace>,
    /// What its checks saw, by target.
    trends: Mutex<HashMap<String, Trend>>,
    /// Its breaker, and who goes through that; `None` where it says nothing of others what becomes of one call.
    gate: Option<Gate>,
    /// Why the last connection could not be made.
    refused: Mutex<Option<Fault>>,
    /// Its own alert has fired, because of its reader, or of its breaker: whoever needs it is blocked.
    is_reader_down: AtomicBool,
    is_breaker_down: AtomicBool,
    /// Has its reader try again at once.
    nudge: Arc<Notify>,
    /// The runs that wait for its messages.
    awaits: Awaits,
    /// For its one watcher: its breaker or its pace has changed.
    news: Arc<Notify>,
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
        let permits = Arc::new(Semaphore::new(policy.max_in_flight.max(1)));
        let (pace, trends, reading, refused) = Default::default();
        let [is_reader_down, is_breaker_down] = [false; 2].map(AtomicBool::new);
        OpenChannel {
            name,
            channel,
            policy,
            readiness,
            permits,
            queue: Semaphore::new(1),
            pace,
            trends,
            gate: None,
            refused,
            is_reader_down,
            is_breaker_down,
            nudge: Arc::default(),
            awaits: Awaits::default(),
            news: Arc::default(),
            reading,
            clock,
            board,
            metrics,
        }
    }

    /// With a breaker.
    pub fn with_gate(self, gate: Option<Gate>) -> OpenChannel {
        let news = gate.as_ref().map(|gate| gate.news().clone()).unwrap_or_default();
        OpenChannel { gate, news, ..self }
    }

    /// The runs that wait for its messages.
    pub fn awaits(&self) -> &Awaits {
        &self.awaits
    }

    /// Its calls at once: those that are free.
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// Its breaker, and who goes through that.
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Whether it may refuse calls, when its breaker is open.
    pub fn refuses(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| !gate.observes())
    }

    /// Returns when its breaker or its pace has changed; for one watcher.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Waits until it can receive; `false` if its reader has ended. Whoever came first goes on first, which a `watch` alone, that wakes
    /// those who wait in any order, would not see to.
    pub async fn ready(&self, readiness: &mut watch::Receiver<Readiness>) -> bool {
        let _first = self.queue.acquire().await;
        readiness.wait_for(|readiness| *readiness == Readiness::Ready).await.is_ok()
    }

    /// What has its reader try again at once.
    pub fn nudge(&self) -> &Arc<Notify> {
        &self.nudge
    }

    /// Where its reader notes what it meets: it runs [over](Notes::over) these.
    pub fn reading(&self) -> &Notes {
        &self.reading
    }

    /// Sends, or asks, when its breaker lets it, a permit is free, and its pace allows. That waiting is ours and counts in no latency.
    pub async fn perform(&self, outgoing: &Outgoing, act: Act, caller: &Caller) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        // A call to an address of its own says nothing of the channel's.
        let gate = self.gate.as_ref().filter(|_| outgoing.url.is_none());
        let pass = match gate.map(|gate| gate.enter(caller, outgoing.timeout)).transpose() {
            Ok(pass) => pass,
            Err(why) => return Err(self.unsent(asked, Cause::Blocked, why)),
        };
        let _permit = match self.wait_for_turn(asked, outgoing.timeout).await {
            Ok(permit) => permit,
            Err(why) => {
                Pass::give_back(pass);
                return Err(self.unsent(asked, Cause::Throttled, why));
            }
        };
        if let Some(why) = pass.as_ref().and_then(Pass::is_void) {
            return Err(self.unsent(asked, Cause::Blocked, why));
        }
        if let Some(fault) = gate.and_then(|_| self.same_refusal()) {
            Pass::give_back(pass);
            self.note(&Err(fault.clone()));
            return Err(fault);
        }
        let mut result = self.channel.perform(act, outgoing).await;
        if let (Act::Check, Ok(reply)) = (act, &mut result) {
            self.sample(outgoing, reply);
        }
        self.heed(&result);
        if result.is_ok() && *self.readiness.borrow() != Readiness::Ready {
            // The system is there: its reader need not wait until it has paused for long enough.
            self.nudge.notify_one();
        }
        if let Some(pass) = pass {
            pass.end(act, &result);
        }
        self.note(&result);
        result
    }

    /// Waits for a permit and for its turn.
    async fn wait_for_turn(&self, asked: Now, timeout: Duration) -> Result<Option<SemaphorePermit<'_>>, String> {
        // All the time that the step has must not go into waiting for ourselves: half of it is left for the system.
        let latest = asked.mono + timeout / 2;
        let permit = tokio::time::timeout_at(self.clock.instant(latest), self.permits.acquire()).await;
        let turn = permit.map_err(|_| None::<String>).and_then(|permit| {
            let turn = self.pace().take(self.policy.rate, latest, self.clock.now().mono)?;
            Ok((permit.ok(), turn))
        });
        match turn {
            Ok((permit, turn)) => {
                self.clock.sleep_until(turn).await;
                Ok(permit)
            }
            Err(Some(said)) => {
                Err(format!("held back, because the system wants fewer calls: {said}; nothing was sent"))
            }
            Err(None) => {
                let limit = match self.policy.rate {
                    Some(rate) => format!("rate = \"{rate}/s\", max_in_flight = {}", self.policy.max_in_flight),
                    None => format!("max_in_flight = {}", self.policy.max_in_flight),
                };
                Err(format!("{OWN_LIMIT} ({limit}); nothing was sent"))
            }
        }
    }

    fn unsent(&self, started: Now, cause: Cause, detail: String) -> Fault {
        Fault { started, finished: self.clock.now(), cause, detail, uncertain: false, phases: Vec::new() }
    }

    /// What the last attempt to connect came to, if it was a moment ago.
    fn same_refusal(&self) -> Option<Fault> {
        let now = self.clock.now();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = refused.as_ref()?;
        let ago = now.mono.since(fault.finished.mono);
        (ago < SAME_REFUSAL).then(|| {
            let detail = format!("{} (so it was {} ago, and it was not tried again since)", fault.detail, Human(ago));
            Fault { started: now, finished: now, detail, phases: Vec::new(), ..fault.clone() }
        })
    }

    /// Goes slower, if the answer wants that, and remembers a connection that could not be made.
    fn heed(&self, result: &Result<Reply, Fault>) {
        let unmade = result.as_ref().err().filter(|fault| fault.cause == Cause::Unreachable && !fault.uncertain);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = unmade.cloned();
        let Some(hint) = hint(result) else { return };
        let now = self.clock.now();
        // A journey has at most one run, so that each gets its turn before it gives up: slower than that, some would get none.
        let callers = self.gate.as_ref().map_or(self.policy.max_in_flight, Gate::callers);
        let longest = self.policy.timeout / 2 / u32::try_from(callers + 1).unwrap_or(u32::MAX);
        if self.pace().slow(&hint, longest, now.mono) {
            let (wait, _) = self.slowness();
            tracing::warn!(channel = %self.name, said = hint.said, wait = %Human(wait), "a system wants fewer calls");
            self.metrics.pace().slowed(hint.why);
            self.news.notify_one();
        }
    }

    /// How long it waits between two calls, or before the next, because of what its system said; and when that changes.
    pub fn slowness(&self) -> (Duration, Option<Mono>) {
        let (wait, changes) = self.pace().slowness(self.clock.now().mono);
        self.metrics.pace().set(wait);
        self.board.update_channel(&self.name, |status| status.slowed = (!wait.is_zero()).then_some(wait));
        (wait, changes)
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

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its own alert has fired.
    pub fn is_known_down(&self) -> bool {
        self.is_reader_down() || self.is_breaker_down.load(Ordering::Relaxed)
    }

    /// Whether it has because of its reader.
    pub fn is_reader_down(&self) -> bool {
        self.is_reader_down.load(Ordering::Relaxed)
    }

    /// Says whether it has because of its reader; gives what was said before.
    pub fn set_reader_down(&self, is_down: bool) -> bool {
        self.is_reader_down.swap(is_down, Ordering::Relaxed)
    }

    /// Says whether it has because of its breaker.
    pub fn set_breaker_down(&self, is_down: bool) {
        self.is_breaker_down.store(is_down, Ordering::Relaxed);
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

#[cfg(test)]
mod tests;
