//! The board: what the pages, the API and the health routes show. Written by the drivers, read by anyone, never waited on.

mod breakers;
mod parts;
mod strip;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use crate::alert::Phase;
pub use crate::board::breakers::BreakerStatus;
pub use crate::board::parts::Component;
use crate::board::parts::Parts;
pub use crate::board::strip::{STRIP_CELLS, Strip};
use crate::breaker::Guarded;
use crate::channel::Readiness;
use crate::control::{AskedRun, Silence};
use crate::detect::Finding;
use crate::incident::{Incident, Member};
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::journey::{Journey, Name, own};
use crate::slo::{Composition, SloStatus};
use crate::time::{Mono, Now};

/// A journey as people see it.
#[derive(Clone, Debug)]
pub struct JourneyStatus {
    /// The journey.
    pub journey: Arc<Journey>,
    /// Where its alert stands.
    pub phase: Phase,
    /// What its detectors find, the worst first.
    pub findings: Vec<Finding>,
    /// The incident that it is part of.
    pub incident: Option<Arc<Incident>>,
    /// The incident that its error budget is part of.
    pub budget_incident: Option<String>,
    /// Its last run.
    pub last: Option<Arc<Report>>,
    /// Its last good run.
    pub last_good: Option<Arc<Report>>,
    /// Its objective.
    pub slo: Option<Arc<SloStatus>>,
    /// Its share beside what its dependencies would make of it.
    pub composition: Option<Arc<Composition>>,
    /// The last 24 hours.
    pub strip: Strip,
    /// When this was true.
    pub at: Timestamp,
}

/// An open incident as people see it.
#[derive(Clone, Debug)]
pub struct OpenIncident {
    /// The incident.
    pub incident: Incident,
    /// Its members, those that fire first.
    pub members: Vec<Member>,
}

/// What is open, and what people have asked for.
#[derive(Clone, Debug, Default)]
pub struct Docket {
    /// The open incidents, by id.
    pub open: BTreeMap<String, Arc<OpenIncident>>,
    /// The silences; one whose time is over may still be among them.
    pub silences: Vec<Silence>,
}

impl Docket {
    /// An open incident.
    pub fn incident(&self, id: &str) -> Option<&OpenIncident> {
        self.open.get(id).map(|open| &**open)
    }
}

/// A channel as people see it.
#[derive(Clone, Debug, Default)]
pub struct ChannelStatus {
    /// Its kind: `http`, `amqp`, …
    pub kind: &'static str,
    /// Whether it can receive; `None` for a channel that nobody receives on.
    pub readiness: Option<Readiness>,
    /// The last fault of a send or request.
    pub last_fault: Option<(Timestamp, String)>,
    /// When it last worked.
    pub last_success: Option<Timestamp>,
    /// How long it waits between two calls, or before the next, because its system wants fewer.
    pub slowed: Option<Duration>,
    /// At most this many calls a second, by its configuration; `None` is without limit.
    pub rate: Option<f64>,
    /// Its calls at once.
    pub permits: Permits,
}

/// How many calls a channel has at once: at most, and now.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    most: usize,
    free: Option<Arc<Semaphore>>,
}

impl Permits {
    /// Of these, all of which are free.
    pub fn new(free: Arc<Semaphore>) -> Permits {
        Permits { most: free.available_permits(), free: Some(free) }
    }

    /// At most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Calls that go on now.
    pub fn in_use(&self) -> usize {
        self.free.as_ref().map_or(0, |free| self.most.saturating_sub(free.available_permits()))
    }
}

/// A loop that must go on: it beats, and whoever watches sees how long ago.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    limit: Duration,
    beat: AtomicU64,
}

/// A loop sleeps no longer than this without a beat.
pub const BEAT: Duration = Duration::from_secs(5);
/// A loop that has not beaten for this long is stuck. With a watchdog of 30 s the process is replaced within 45 s of that.
pub const STUCK: Duration = Duration::from_secs(15);

impl Pulse {
    /// The loop went round.
    pub fn beat(&self, now: Mono) {
        self.beat.store(now.0.as_millis() as u64, Ordering::Relaxed);
    }

    /// The loop's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How long ago it last went round.
    pub fn age(&self, now: Mono) -> Duration {
        now.since(Mono(Duration::from_millis(self.beat.load(Ordering::Relaxed))))
    }

    fn is_stuck(&self, now: Mono) -> bool {
        self.age(now) >= self.limit
    }

    fn shown(&self, now: Mono, wall: Timestamp) -> Component {
        let age = self.age(now);
        let detail = format!("last went round {:.1} s ago (limit {} s)", age.as_secs_f64(), self.limit.as_secs());
        let last = crate::time::earlier(wall, age);
        Component::new(true, true, detail, last).aged(Some(last), age, Some(self.limit))
    }
}

/// Everything that is shown.
#[derive(Debug)]
pub struct Board {
    journeys: RwLock<BTreeMap<Name, Arc<JourneyStatus>>>,
    docket: RwLock<Arc<Docket>>,
    channels: RwLock<BTreeMap<Name, ChannelStatus>>,
    breakers: RwLock<BTreeMap<Guarded, Arc<BreakerStatus>>>,
    /// At most one of each journey.
    asked: RwLock<BTreeMap<Name, AskedRun>>,
    parts: RwLock<Parts>,
    pulses: RwLock<Vec<Arc<Pulse>>>,
    version: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Board {
            journeys: RwLock::default(),
            docket: RwLock::default(),
            channels: RwLock::default(),
            breakers: RwLock::default(),
            asked: RwLock::default(),
            parts: RwLock::default(),
            pulses: RwLock::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl Board {
    /// Shows a journey.
    pub fn set_journey(&self, status: JourneyStatus) {
        let name = status.journey.name.clone();
        self.journeys.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(status));
        self.version.send_modify(|version| *version += 1);
    }

    /// Changes what is shown of a journey.
    pub fn update_journey(&self, name: &str, change: impl FnOnce(&mut JourneyStatus)) {
        if let Some(status) = self.journeys.write().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            change(Arc::make_mut(status));
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Every journey of people's, by name. The monitor's own is none of theirs: ask for it by its name.
    pub fn journeys(&self) -> Vec<Arc<JourneyStatus>> {
        let journeys = self.journeys.read().unwrap_or_else(PoisonError::into_inner);
        journeys.values().filter(|status| !own::is_own(&status.journey.name)).cloned().collect()
    }

    /// One journey.
    pub fn journey(&self, name: &str) -> Option<Arc<JourneyStatus>> {
        self.journeys.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Shows a journey no more.
    pub fn remove_journey(&self, name: &str) {
        self.journeys.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.version.send_modify(|version| *version += 1);
    }

    /// Shows a change of what is open or silenced.
    pub fn update_docket(&self, update: impl FnOnce(&mut Docket)) {
        // Copied only if somebody looks at it just now, and even then its incidents are not.
        update(Arc::make_mut(&mut self.docket.write().unwrap_or_else(PoisonError::into_inner)));
        self.version.send_modify(|version| *version += 1);
    }

    /// What is open and what is silenced.
    pub fn docket(&self) -> Arc<Docket> {
        self.docket.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a run that somebody asked for, until it has ended.
    pub fn set_asked(&self, run: AskedRun) {
        self.asked.write().unwrap_or_else(PoisonError::into_inner).insert(run.journey.clone(), run);
    }

    /// The run that somebody asked for, while it waits or goes on.
    pub fn asked(&self, token: Token) -> Option<AskedRun> {
        let asked = self.asked.read().unwrap_or_else(PoisonError::into_inner);
        asked.values().find(|run| run.token == token).cloned()
    }

    /// A run that somebody asked for has ended.
    pub fn end_asked(&self, token: Token) {
        self.asked.write().unwrap_or_else(PoisonError::into_inner).retain(|_, run| run.token != token);
        self.version.send_modify(|version| *version += 1);
    }

    /// Shows a channel.
    pub fn set_channel(&self, name: &Name, status: ChannelStatus) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), status);
    }

    /// Shows a channel no more.
    pub fn remove_channel(&self, name: &str) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.remove_breaker(&Guarded::Channel(name.into()));
        self.remove_component(&format!("channel {name}"));
    }

    /// Changes what is shown of a channel.
    pub fn update_channel(&self, name: &str, change: impl FnOnce(&mut ChannelStatus)) {
        if let Some(status) = self.channels.write().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            change(status);
        }
    }

    /// Every channel, by name.
    pub fn channels(&self) -> BTreeMap<Name, ChannelStatus> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a breaker; what is not as usual about it is shown among the parts of the daemon as well.
    pub fn set_breaker(&self, what: &Guarded, status: BreakerStatus, now: Timestamp) {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        if let Guarded::Channel(name) = what
            && !channels.contains_key(name)
        {
            // Its last runs still call, and nobody is shown it any more.
            return;
        }
        // Not critical: it is news about what is behind it.
        if status.is_noteworthy() || self.breakers().get(what).is_some_and(|before| before.is_noteworthy()) {
            self.set_component(&format!("breaker of {what}"), !status.state.refuses(), false, status.words(), now);
        }
        let status = Arc::new(status);
        self.breakers.write().unwrap_or_else(PoisonError::into_inner).insert(what.clone(), status);
        self.version.send_modify(|version| *version += 1);
    }

    /// Shows a breaker no more.
    pub fn remove_breaker(&self, what: &Guarded) {
        self.breakers.write().unwrap_or_else(PoisonError::into_inner).remove(what);
        self.remove_component(&format!("breaker of {what}"));
        self.version.send_modify(|version| *version += 1);
    }

    /// Every breaker.
    pub fn breakers(&self) -> BTreeMap<Guarded, Arc<BreakerStatus>> {
        self.breakers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how a part of the daemon is. Keeps since when, while it stays as it was.
    pub fn set_component(&self, name: &str, ok: bool, critical: bool, detail: impl Into<String>, now: Timestamp) {
        self.parts_mut().say(name, ok, critical, detail.into(), now);
    }

    /// A part of the daemon is there no more.
    pub fn remove_component(&self, name: &str) {
        self.parts_mut().remove(name);
    }

    /// A part that was set has really done its work.
    pub fn worked(&self, name: &str, now: Now) {
        self.parts_mut().worked(name, now);
    }

    /// A part that was set has to do its work at least this often, from now on; one that does not is bad.
    pub fn expect_work(&self, name: &str, limit: Duration, now: Mono) {
        self.parts_mut().expect(name, limit, now);
    }

    fn parts_mut(&self) -> RwLockWriteGuard<'_, Parts> {
        self.parts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every part of the daemon, by name; loops and channels are among them.
    pub fn components(&self, now: Mono, wall: Timestamp) -> BTreeMap<String, Component> {
        let mut components = self.parts.read().unwrap_or_else(PoisonError::into_inner).shown(now, wall);
        for (name, status) in self.channels() {
            // What a broker or a target does is news about them, not about us.
            let part = components.entry(format!("channel {name}"));
            let part = part.or_insert_with(|| Component::new(true, false, said_of_channel(&status), wall));
            part.last_success = status.last_success;
        }
        let mut loops: BTreeMap<&str, &Pulse> = BTreeMap::new();
        let pulses = self.pulses.read().unwrap_or_else(PoisonError::into_inner);
        for pulse in pulses.iter() {
            // Of several of one name the one that is furthest behind.
            let worst = loops.entry(pulse.name()).or_insert(pulse);
            if pulse.age(now) > worst.age(now) {
                *worst = pulse;
            }
        }
        components.extend(loops.iter().map(|(name, pulse)| (format!("loop {name}"), pulse.shown(now, wall))));
        components
    }

    /// A pulse for a loop of this name, watched from now on.
    pub fn pulse(&self, name: &'static str, now: Mono) -> Arc<Pulse> {
        self.pulse_within(name, STUCK, now)
    }

    /// As [`Board::pulse`], for what goes round as seldom as this.
    pub fn pulse_within(&self, name: &'static str, limit: Duration, now: Mono) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { name, limit, beat: AtomicU64::new(0) });
        pulse.beat(now);
        self.pulses.write().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// A loop has ended as it was asked to.
    pub fn end_pulse(&self, pulse: &Arc<Pulse>) {
        self.pulses.write().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, pulse));
    }

    /// The loops that are stuck.
    pub fn stuck(&self, now: Mono) -> Vec<&'static str> {
        let pulses = self.pulses.read().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().filter(|pulse| pulse.is_stuck(now)).map(|pulse| pulse.name()).collect()
    }

    /// Changes whenever a journey does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

fn said_of_channel(status: &ChannelStatus) -> String {
    match (&status.last_fault, status.last_success) {
        (Some((at, fault)), worked) if worked.is_none_or(|worked| worked < *at) => fault.clone(),
        (_, Some(_)) => "worked when it was last used".to_owned(),
        (_, None) => "not used yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever loop stops is seen within the limit, and nothing else is blamed.
    #[test]
    fn any_loop_that_stops_is_stuck_and_bad_within_its_limit() {
        const LOOPS: [&str; 4] = ["scheduler", "evaluator", "delivery", "store"];
        let at = |second| Mono(Duration::from_secs(second));
        let wall = Timestamp::from_second(1_790_000_000).unwrap();
        for broken in LOOPS {
            let board = Board::default();
            let pulses = LOOPS.map(|name| board.pulse(name, at(0)));
            // One of its kind that goes on must not hide it.
            let other = board.pulse(broken, at(0));
            for second in 1..=STUCK.as_secs() {
                pulses.iter().filter(|pulse| pulse.name() != broken).for_each(|pulse| pulse.beat(at(second)));
                other.beat(at(second));
                let expected: &[&str] = if second < STUCK.as_secs() { &[] } else { &[broken] };
                assert_eq!(board.stuck(at(second)), expected);
                let components = board.components(at(second), wall);
                let bad: Vec<_> = components.iter().filter(|(_, part)| !part.ok).map(|(name, _)| &name[5..]).collect();
                assert_eq!(bad, expected, "{second} s");
            }
            assert!(STUCK <= Duration::from_secs(15), "what /health promises");
        }
    }

    #[test]
    fn a_channel_shows_when_it_last_worked_and_never_makes_us_ill() {
        let board = Board::default();
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let status = ChannelStatus { kind: "http", ..ChannelStatus::default() };
        board.set_channel(&"web".into(), status);
        let web = || board.components(Mono::default(), at(9)).remove("channel web").unwrap();
        assert_eq!(web().detail, "not used yet");
        board.update_channel("web", |status| status.last_success = Some(at(1)));
        assert_eq!((web().last_success, &*web().detail), (Some(at(1)), "worked when it was last used"));
        board.update_channel("web", |status| status.last_fault = Some((at(2), "unreachable: refused".to_owned())));
        assert_eq!((web().ok, web().critical, &*web().detail), (true, false, "unreachable: refused"));
    }
}
