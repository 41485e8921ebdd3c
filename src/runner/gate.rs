//! The gate of a channel: its breaker, and who goes through while that is open.
//!
//! Nobody waits here. Who is refused is `blocked`, and told by what. Somebody always tries: the canary, which is the journey that runs
//! most often, at each of its runs; and every other one before it has gone without for too long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::board::BreakerStatus;
use crate::breaker::{Breaker, Need, OK, Order, Sample, Settings, State, Ticket, Verdict};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::schedule::{Schedule, fnv1a};
use crate::journey::token::Token;
use crate::journey::{Act, Journey, Name};
use crate::metrics::BreakerMetrics;
use crate::time::{Mono, Now, between};

/// A journey that is blocked truly runs at least after so many of its intervals,
const OWED_INTERVALS: u32 = 5;
/// or after this, if that is longer.
const OWED_AFTER: Duration = Duration::from_secs(15 * 60);
/// Beyond the time that a call has, its answer may take so long to reach us.
const GRACE: Duration = Duration::from_millis(500);
/// People are told of a breaker that has been open for so long; sooner, where a journey would be known to be down before.
const TELL_AFTER: Duration = Duration::from_secs(30);
/// When a channel is well again, those that all come at one moment come back over so long at most.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// Who uses a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// How often each runs.
    intervals: HashMap<Name, Duration>,
    /// How many of them call it, and do not only receive.
    callers: usize,
    canary: Option<Name>,
}

impl Users {
    /// The users of `channel` among these journeys.
    pub fn of(channel: &Name, journeys: &[Arc<Journey>], now: Timestamp) -> Users {
        let mut users = Users::default();
        let mut best = None;
        for journey in journeys.iter().filter(|journey| journey.unavailable.is_none() && journey.is_run()) {
            let mut steps = journey.steps.iter().filter(|step| step.verb.channel() == Some(channel)).peekable();
            if steps.peek().is_none() {
                continue;
            }
            let (interval, calls) = (journey.schedule.interval(now), steps.any(|step| step.verb.act().is_some()));
            users.callers += usize::from(calls);
            users.intervals.insert(journey.name.clone(), interval);
            let rank = (!calls, interval, journey.name.clone());
            if best.as_ref().is_none_or(|best| rank < *best) {
                best = Some(rank);
            }
        }
        users.canary = best.map(|(_, _, name)| name);
        users
    }

    /// Whether a breaker may refuse them anything: what only one calls is that one's to observe, each time.
    pub fn are_several(&self) -> bool {
        self.callers > 1
    }

    /// How long a breaker may be open before people are told.
    fn patience(&self) -> Duration {
        let shortest = self.canary.as_ref().and_then(|name| self.intervals.get(name));
        shortest.map_or(TELL_AFTER, |interval| TELL_AFTER.min(*interval * 3 / 2))
    }
}

/// Whose call it is.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Which journey.
    pub journey: Name,
    /// Which run.
    pub run: Token,
}

/// The gate of one channel.
pub struct Gate {
    channel: Name,
    inner: Mutex<Inner>,
    /// For its one watcher: it has changed.
    news: Arc<Notify>,
    clock: Clock,
    metrics: BreakerMetrics,
}

struct Inner {
    breaker: Breaker,
    users: Users,
    /// The configuration wants it to refuse nothing.
    observes: bool,
    lever: watch::Receiver<Option<Order>>,
    /// When each last truly ran, by which run, and whether that has called.
    truly: HashMap<Name, Truly>,
    began: Mono,
    /// When it last closed.
    closed: Option<Mono>,
    /// What the last failure said.
    said: String,
    has_worked: bool,
}

struct Truly {
    at: Mono,
    run: Token,
    has_called: bool,
}

/// How a gate stands, for who watches it.
#[derive(Clone, Debug)]
pub struct Look {
    /// For people.
    pub status: BreakerStatus,
    /// Whether calls are refused.
    pub is_open: bool,
    /// A call has worked since the start, or it is open: it is known how it is.
    pub is_known: bool,
    /// Why it is open, if it has been for so long that people are told.
    pub trouble: Option<String>,
    /// When time alone changes any of that.
    pub next: Option<Mono>,
}

impl Gate {
    /// A gate for these users. It observes only, unless they [are several](Users::are_several) and `settings` say otherwise.
    pub fn new(
        channel: Name,
        settings: Settings,
        users: Users,
        lever: watch::Receiver<Option<Order>>,
        clock: Clock,
        metrics: BreakerMetrics,
    ) -> Gate {
        let now = clock.now();
        let observes = settings.observes;
        let inner = Inner {
            breaker: Breaker::new(Settings { observes: observes || !users.are_several(), ..settings }),
            observes,
            users,
            lever,
            truly: HashMap::new(),
            began: now.mono,
            closed: None,
            said: String::new(),
            has_worked: false,
        };
        let gate = Gate { channel, inner: Mutex::new(inner), news: Arc::default(), clock, metrics };
        // What was wanted before a restart is still wanted.
        gate.with(now, true, |_| {});
        gate
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the breaker after it has heard what people want, and says so if it changed.
    fn with<T>(&self, now: Now, heeds: bool, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let before = inner.breaker.changes();
        if heeds || inner.lever.has_changed().unwrap_or(false) {
            let order = inner.lever.borrow_and_update().clone().filter(|order| order.until > now.wall);
            let until = order.as_ref().map_or(now.mono, |order| now.mono + between(now.wall, order.until));
            inner.breaker.obey(order, until, now.mono);
        }
        inner.breaker.pass_time(now.mono, fastrand::f64());
        let done = work(&mut inner);
        if inner.breaker.changes() == before {
            return done;
        }
        self.metrics.set(&inner.breaker);
        if inner.breaker.state() == State::Closed {
            inner.closed = Some(now.mono);
        }
        for transition in inner.breaker.transitions().rev().take((inner.breaker.changes() - before) as usize) {
            let (from, to, why) = (transition.from.as_str(), transition.to.as_str(), &transition.why);
            tracing::info!(channel = %self.channel, from, to, why, "a breaker changed");
        }
        self.news.notify_one();
        done
    }

    /// Whether a call may be made that takes at most `limit`.
    ///
    /// # Errors
    /// It may not: why, for people.
    pub fn enter(&self, caller: &Caller, limit: Duration) -> Result<Pass<'_>, String> {
        let now = self.clock.now();
        self.with(now, false, |inner| {
            let need = inner.need(caller, now.mono);
            let who = fnv1a(caller.journey.bytes());
            let tag: Arc<str> = caller.run.to_string().into();
            match inner.breaker.admit(need, who, limit + GRACE, now.mono, fastrand::f64()) {
                Ok(ticket) => {
                    let truly = Truly { at: now.mono, run: caller.run, has_called: true };
                    inner.truly.insert(caller.journey.clone(), truly);
                    Ok(Pass { gate: self, ticket: Some(ticket), tag })
                }
                Err(_) => Err(self.why(inner, now)),
            }
        })
    }

    /// Whether this run is one of those that try, whatever is known of the channel.
    pub fn must_try(&self, caller: &Caller) -> bool {
        let now = self.clock.now().mono;
        let mut inner = self.lock();
        let need = inner.need(caller, now);
        if need == Need::Owed {
            let truly = Truly { at: now, run: caller.run, has_called: false };
            inner.truly.insert(caller.journey.clone(), truly);
        }
        need != Need::Usual
    }

    /// Why calls are refused, if they are.
    pub fn refusal(&self) -> Option<String> {
        let now = self.clock.now();
        self.with(now, false, |inner| inner.breaker.state().refuses().then(|| self.why(inner, now)))
    }

    fn why(&self, inner: &Inner, now: Now) -> String {
        let status = BreakerStatus::of(&inner.breaker, &inner.said, now);
        format!("nothing was sent: the breaker of channel `{}` is {}", self.channel, status.words())
    }

    /// Takes what the channel's reader met: that it receives again, or why it does not.
    pub fn witness(&self, trouble: Option<&str>) {
        let now = self.clock.now();
        let (verdict, cause) = match trouble {
            None => (Verdict::Worked, OK),
            Some(_) => (Verdict::Failed { after: None }, "not_ready"),
        };
        self.with(now, false, |inner| {
            if let Some(trouble) = trouble {
                trouble.clone_into(&mut inner.said);
            }
            inner.breaker.witness(verdict, Sample { at: now.mono, cause, tag: "the reader".into() }, fastrand::f64());
        });
    }

    /// Until when a run of this journey is put off, because the channel has only just become well again and others come at the same
    /// moment. Those that run at intervals do not: a hash of their name has spread them.
    pub fn put_off(&self, journey: &Journey) -> Option<Mono> {
        let Schedule::Cron(_) = journey.schedule else { return None };
        let now = self.clock.now();
        let inner = self.lock();
        let (closed, interval) = (inner.closed?, inner.users.intervals.get(&journey.name)?);
        let within = BACK_WITHIN.min(*interval);
        let share = (fnv1a(journey.name.bytes()) % 1_000) as f64 / 1_000.0;
        let at = closed + within.mul_f64(share);
        // Its next slot must not be skipped for it.
        let latest = now.mono + interval.saturating_sub(journey.deadline);
        (at > now.mono && !latest.since(now.mono).is_zero()).then(|| at.min(latest))
    }

    /// Who uses it from now on.
    pub fn set_users(&self, users: Users) {
        let mut inner = self.lock();
        inner.truly.retain(|journey, _| users.intervals.contains_key(journey));
        let observes = inner.observes || !users.are_several();
        inner.breaker.set_observes(observes);
        inner.users = users;
        self.metrics.set(&inner.breaker);
        self.news.notify_one();
    }

    /// Shows its numbers as they are.
    pub fn show(&self) {
        self.metrics.set(&self.lock().breaker);
    }

    /// How many journeys call through it.
    pub fn callers(&self) -> usize {
        self.lock().users.callers
    }

    /// Whether it lets everything through, and only shows what it would do.
    pub fn observes(&self) -> bool {
        self.lock().breaker.observes()
    }

    /// How it stands.
    pub fn look(&self) -> Look {
        let now = self.clock.now();
        self.with(now, false, |inner| {
            let breaker = &inner.breaker;
            let is_open = breaker.state().refuses();
            let told = breaker.left_closed().filter(|_| is_open).map(|left| left + inner.users.patience());
            let is_told = told.is_some_and(|told| told <= now.mono);
            let untold = told.filter(|_| !is_told);
            let status = BreakerStatus::of(breaker, &inner.said, now);
            Look {
                trouble: is_told.then(|| format!("its breaker is {}", status.words())),
                status,
                is_open,
                is_known: is_open || inner.has_worked,
                next: breaker.deadline().into_iter().chain(untold).min(),
            }
        })
    }

    /// What tells its one watcher that it has changed.
    pub(super) fn news(&self) -> &Arc<Notify> {
        &self.news
    }

    /// What somebody wants of it.
    pub fn lever(&self) -> watch::Receiver<Option<Order>> {
        self.lock().lever.clone()
    }
}

impl Inner {
    fn need(&self, caller: &Caller, now: Mono) -> Need {
        let truly = self.truly.get(&caller.journey);
        if self.users.canary.as_ref() == Some(&caller.journey) {
            return Need::Owed;
        }
        match truly {
            Some(truly) if truly.run == caller.run && truly.has_called => Need::Begun,
            Some(truly) if truly.run == caller.run => Need::Owed,
            _ => {
                let interval = self.users.intervals.get(&caller.journey).copied().unwrap_or_default();
                let after = (interval * OWED_INTERVALS).max(OWED_AFTER);
                let since = truly.map_or(self.began, |truly| truly.at);
                if now.since(since) >= after { Need::Owed } else { Need::Usual }
            }
        }
    }
}

/// Leave for a call. Dropped, the call was given up.
pub struct Pass<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
    tag: Arc<str>,
}

impl Pass<'_> {
    /// Why the call must not be made after all: while it waited for its turn, the breaker opened.
    pub fn is_void(&self) -> Option<String> {
        let now = self.gate.clock.now();
        self.gate.with(now, false, |inner| {
            let is_current = self.ticket.as_ref().is_some_and(|ticket| inner.breaker.is_current(ticket));
            (!is_current && inner.breaker.state().refuses()).then(|| self.gate.why(inner, now))
        })
    }

    /// The call was not made, through nobody's fault but ours.
    pub fn give_back(pass: Option<Self>) {
        if let Some(mut pass) = pass {
            pass.finish(Verdict::Ignored, "not_made", None);
        }
    }

    /// The call ended.
    pub fn end(mut self, act: Act, result: &Result<Reply, Fault>) {
        let (verdict, cause) = verdict_of(act, result);
        let said = result.as_ref().err().filter(|_| matches!(verdict, Verdict::Failed { .. }));
        self.finish(verdict, cause, said.map(|fault| format!("{}: {}", fault.cause, fault.detail)));
    }

    fn finish(&mut self, verdict: Verdict, cause: &'static str, said: Option<String>) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = self.gate.clock.now();
        let sample = Sample { at: now.mono, cause, tag: self.tag.clone() };
        self.gate.with(now, false, |inner| {
            if let Some(said) = said {
                inner.said = said;
            }
            if verdict == Verdict::Worked && !std::mem::replace(&mut inner.has_worked, true) {
                self.gate.news.notify_one();
            }
            inner.breaker.end(ticket, verdict, sample, fastrand::f64());
        });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = self.gate.clock.now();
        self.gate.with(now, false, |inner| inner.breaker.cancel(ticket, self.tag.clone(), now.mono, fastrand::f64()));
    }
}

/// What an answer says of the channel. Whatever a system says, it is there; only that it cannot be reached, trusted or signed in to is
/// the channel's failure. That it throttles us is no failure: its pace heeds that.
fn verdict_of(act: Act, result: &Result<Reply, Fault>) -> (Verdict, &'static str) {
    let fault = match result {
        Ok(reply) if reply.message.as_ref().is_some_and(|message| message.status == Some(429)) => {
            return (Verdict::Ignored, Cause::Throttled.as_str());
        }
        Ok(_) => return (Verdict::Worked, OK),
        Err(fault) => fault,
    };
    let verdict = match fault.cause {
        // It was reached, and what was asked there does not answer: that is what is watched.
        Cause::Unreachable if fault.uncertain && act == Act::Request => Verdict::Ignored,
        Cause::Unreachable | Cause::Tls | Cause::Auth => Verdict::Failed { after: None },
        Cause::Throttled | Cause::Mismatch | Cause::Exec | Cause::Blocked => Verdict::Ignored,
        Cause::Refused
        | Cause::Rejected
        | Cause::Unroutable
        | Cause::Uncertain
        | Cause::NotReceived
        | Cause::Duplicate
        | Cause::Reordered
        | Cause::Altered
        | Cause::Misrouted
        | Cause::Backlog => Verdict::Worked,
    };
    (verdict, fault.cause.as_str())
}

#[cfg(test)]
mod tests;
