//! The board: what the pages, the API and the health routes show. Written by the drivers, read by anyone, never waited on.

mod breakers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::alert::Phase;
pub use crate::board::breakers::BreakerStatus;
use crate::breaker::Guarded;
use crate::channel::Readiness;
use crate::control::{AskedRun, Silence};
use crate::detect::Finding;
use crate::incident::{Incident, Member};
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::journey::{Journey, Name};
use crate::slo::{Composition, Counts, SloStatus};
use crate::time::Mono;

/// Cells of the strip that shows a journey's last 24 hours: half an hour each.
pub const STRIP_CELLS: usize = 48;

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
    pub incident: Option<Incident>,
    /// The incident that its error budget is part of.
    pub budget_incident: Option<String>,
    /// Its last run.
    pub last: Option<Arc<Report>>,
    /// Its last good run.
    pub last_good: Option<Arc<Report>>,
    /// Its objective.
    pub slo: Option<SloStatus>,
    /// Its share beside what its dependencies would make of it.
    pub composition: Option<Composition>,
    /// The last 24 hours, oldest first, half an hour a cell.
    pub strip: Vec<Counts>,
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
    pub open: BTreeMap<String, OpenIncident>,
    /// The silences; one whose time is over may still be among them.
    pub silences: Vec<Silence>,
}

/// A channel as people see it.
#[derive(Clone, Debug)]
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
}

/// A part of the daemon, for `/health`.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    /// Whether it works.
    pub ok: bool,
    /// Whether the daemon can do its main work without it.
    pub critical: bool,
    /// What is wrong, or what it does.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
}

/// A loop that must go on: it beats, and whoever watches sees how long ago.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    beat: AtomicU64,
}

/// A loop sleeps no longer than this without a beat.
pub const BEAT: Duration = Duration::from_secs(5);
/// A loop that has not beaten for this long is stuck.
pub const STUCK: Duration = Duration::from_secs(20);

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
    components: RwLock<BTreeMap<String, Component>>,
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
            components: RwLock::default(),
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

    /// Every journey, by name.
    pub fn journeys(&self) -> Vec<Arc<JourneyStatus>> {
        self.journeys.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One journey.
    pub fn journey(&self, name: &str) -> Option<Arc<JourneyStatus>> {
        self.journeys.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Shows what is open and what is silenced.
    pub fn set_docket(&self, docket: Docket) {
        *self.docket.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(docket);
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
        // Not critical: it is news about what is behind it.
        if status.is_noteworthy() || self.breakers().get(what).is_some_and(|before| before.is_noteworthy()) {
            self.set_component(&format!("breaker of {what}"), !status.state.refuses(), false, status.words(), now);
        }
        let status = Arc::new(status);
        self.breakers.write().unwrap_or_else(PoisonError::into_inner).insert(what.clone(), status);
        self.version.send_modify(|version| *version += 1);
    }

    /// Every breaker.
    pub fn breakers(&self) -> BTreeMap<Guarded, Arc<BreakerStatus>> {
        self.breakers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how a part of the daemon is. Keeps since when, while it stays as it was.
    pub fn set_component(&self, name: &str, ok: bool, critical: bool, detail: impl Into<String>, now: Timestamp) {
        let mut components = self.components.write().unwrap_or_else(PoisonError::into_inner);
        let since = components.get(name).filter(|before| before.ok == ok).map_or(now, |before| before.since);
        components.insert(name.to_owned(), Component { ok, critical, detail: detail.into(), since });
    }

    /// Every part of the daemon, by name; stuck loops are among them.
    pub fn components(&self, now: Mono, wall: Timestamp) -> BTreeMap<String, Component> {
        let mut components = self.components.read().unwrap_or_else(PoisonError::into_inner).clone();
        for pulse in self.pulses.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let age = pulse.age(now);
            let detail = format!("last went round {:.1} s ago (limit {} s)", age.as_secs_f64(), STUCK.as_secs());
            let since = crate::time::earlier(wall, age);
            components
                .insert(format!("loop {}", pulse.name()), Component { ok: age < STUCK, critical: true, detail, since });
        }
        components
    }

    /// A pulse for a loop of this name, watched from now on.
    pub fn pulse(&self, name: &'static str, now: Mono) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { name, beat: AtomicU64::new(0) });
        pulse.beat(now);
        self.pulses.write().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// The loops that are stuck.
    pub fn stuck(&self, now: Mono) -> Vec<&'static str> {
        let pulses = self.pulses.read().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().filter(|pulse| pulse.age(now) >= STUCK).map(|pulse| pulse.name()).collect()
    }

    /// Changes whenever a journey does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
