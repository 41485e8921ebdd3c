//! Opens the channels of a plan. Nothing here touches the network but the listener for inbound webhooks, which is bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::app::tasks::{self, Tasks};
use crate::app::{breakers, gates};
use crate::board::{Board, ChannelStatus, Permits};
use crate::breaker::{Guarded, Settings};
use crate::channel::journal::Noted;
use crate::channel::webhook::{Hooks, Limits};
use crate::channel::{Channel, Journal, Listener, Opening, Readiness};
use crate::clock::Clock;
use crate::commands::Levers;
use crate::config::{ChannelPlan, Plan};
use crate::exit::{self, Failure};
use crate::gate::Door;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::token::Mint;
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::runner::gate::{Gate, Users};
use crate::runner::open::OpenChannel;
use crate::runner::switchboard::Reading;
use crate::scheduler::Observation;

/// Arrivals that wait for the switchboard at most; a reader beyond that waits, with its stamp already taken.
const ARRIVALS: usize = 4_096;

/// What it takes to open a channel.
pub(super) struct Opener {
    clock: Clock,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    mint: Arc<Mint>,
    hooks: Option<Hooks>,
    alarms: Alarms,
    observer: Option<Arc<Observer>>,
    arrivals: mpsc::Sender<Arrival>,
    journal: Journal,
    levers: Arc<Levers>,
    stop: CancellationToken,
}

/// A channel that is open, its reader not yet started.
pub(super) struct Opened {
    pub(super) open: Arc<OpenChannel>,
    kind: &'static str,
    reader: Option<Reader>,
}

/// What reads a channel that journeys receive on.
struct Reader {
    channel: Arc<dyn Channel>,
    listener: Listener,
}

impl Opened {
    /// Its reader, if it has one, looks back until then.
    pub(super) fn look_back(&mut self, since: Timestamp) {
        if let Some(Reader { listener, .. }) = &mut self.reader {
            listener.since = Some(listener.since.map_or(since, |before| before.min(since)));
        }
    }
}

/// Where arrivals come from.
pub(super) struct Inlets {
    /// The listener that all webhooks share, bound.
    pub(super) hooks: Option<(TcpListener, Hooks)>,
    /// The door of `hooks`.
    pub(super) hooks_door: Door,
    /// What readers hand over.
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    /// What is to be on disk before it is acknowledged, and where it goes then.
    pub(super) noted: (mpsc::Receiver<Noted>, mpsc::Sender<Arrival>),
}

/// Makes what opens channels, and gives where arrivals come out.
pub(super) fn opener(
    hooks: BoundHooks,
    observer: Option<Arc<Observer>>,
    clock: Clock,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
    mint: &Arc<Mint>,
    stop: &CancellationToken,
) -> (Opener, Inlets) {
    let BoundHooks { hooks, door } = hooks;
    let (sender, arrivals) = mpsc::channel(ARRIVALS);
    let (journal, noted) = Journal::new(ARRIVALS);
    let opener = Opener {
        clock,
        board: board.clone(),
        metrics: metrics.clone(),
        mint: mint.clone(),
        hooks: hooks.as_ref().map(|(_, hooks)| hooks.clone()),
        alarms: Alarms::default(),
        observer,
        arrivals: sender.clone(),
        journal,
        // Nobody wants anything of a breaker.
        levers: Arc::default(),
        stop: stop.clone(),
    };
    (opener, Inlets { hooks, hooks_door: door, arrivals, noted: (noted, sender) })
}

impl Opener {
    /// People's orders to breakers come from these.
    pub(super) fn with_levers(self, levers: Arc<Levers>) -> Opener {
        Opener { levers, ..self }
    }

    /// Test alarms go there.
    pub(super) fn with_alarms(self, alarms: Alarms) -> Opener {
        Opener { alarms, ..self }
    }

    /// Opens these channels of the plan.
    pub(super) fn open<'a>(
        &self,
        plan: &'a Plan,
        names: impl IntoIterator<Item = &'a Name>,
    ) -> Result<BTreeMap<Name, Opened>, Failure> {
        let receiving = plan.received();
        let mut opened = BTreeMap::new();
        for name in names {
            let Some(planned) = plan.channels.get(name) else { continue };
            if let Some(channel) = self.open_one(plan, name, planned, receiving.contains(name))? {
                opened.insert(name.clone(), channel);
            }
        }
        Ok(opened)
    }

    /// `None` is a webhook without a listener, which the configuration refuses.
    fn open_one(
        &self,
        plan: &Plan,
        name: &Name,
        planned: &ChannelPlan,
        receives: bool,
    ) -> Result<Option<Opened>, Failure> {
        let clock = self.clock;
        let opening = Opening { clock, hooks: self.hooks.clone(), alarms: self.alarms.clone() };
        let why = |why| Failure::new(exit::CONFIG, format!("channel `{name}` cannot be opened: {why}"));
        let Some(connection) = planned.settings.open(&opening).map_err(why)? else { return Ok(None) };
        let (readiness, seen) = watch::channel(Readiness::Starting);
        let handles = self.metrics.channel(name, receives);
        let open = OpenChannel::new(
            name.clone(),
            connection.clone(),
            planned.policy.clone(),
            seen,
            clock,
            self.board.clone(),
            handles,
        )
        .with_gate(self.gate(plan, name, planned));
        let nudge = open.nudge().clone();
        let reader = receives.then(|| {
            let (channel, arrivals, journal) = (name.clone(), self.arrivals.clone(), self.journal.clone());
            let (stop, mint, since) = (self.stop.child_token(), self.mint.clone(), None);
            let awaited = open.awaits().awaited();
            let listener = Listener { channel, clock, arrivals, journal, since, readiness, mint, nudge, awaited, stop };
            Reader { channel: connection, listener }
        });
        Ok(Some(Opened { open: Arc::new(open), kind: planned.kind.name, reader }))
    }

    /// The breaker of a channel; `None` where one call says nothing of the next.
    fn gate(&self, plan: &Plan, name: &Name, planned: &ChannelPlan) -> Option<Gate> {
        if !has_gate(planned) {
            return None;
        }
        let what = Guarded::Channel(name.clone());
        let users = Users::of(name, &plan.journeys, self.clock.now().wall);
        let settings = Settings { observes: planned.policy.breaker_observes, ..Settings::CHANNEL };
        let (lever, metrics) = (self.levers.of(&what), self.metrics.breaker(&what));
        Some(Gate::new(name.clone(), settings, users, lever, self.clock, metrics))
    }

    /// Shows a channel and starts what watches its breaker, and its reader, if it has one. Gives what stops these.
    pub(super) fn start(
        &self,
        opened: Opened,
        tasks: &mut Tasks,
        observations: &mpsc::Sender<Observation>,
    ) -> CancellationToken {
        let Opened { open, kind, reader } = opened;
        let readiness = reader.is_some().then_some(Readiness::Starting);
        let (rate, permits) = (open.policy.rate, Permits::new(open.permits().clone()));
        let status = ChannelStatus { kind, readiness, rate, permits, ..ChannelStatus::default() };
        self.board.set_channel(&open.name, status);
        self.metrics.show("channel", &open.name, true);
        let what = Guarded::Channel(open.name.clone());
        self.metrics.show_breaker(&what, open.gate().is_some());
        if open.gate().is_none() {
            self.board.remove_breaker(&what);
        }
        let stop = reader.as_ref().map_or_else(|| self.stop.child_token(), |reader| reader.listener.stop.clone());
        let (board, told, observer) = (self.board.clone(), observations.clone(), self.observer.clone());
        let watch = breakers::watch(open.clone(), board.clone(), told.clone(), self.clock, stop.clone());
        tasks.spawn_until("reader", &stop, watch);
        let Some(Reader { channel, listener }) = reader else { return stop };
        let notes = open.reading().clone();
        let mirror = tasks::mirror_readiness(open, board, told, observer, self.clock, stop.clone());
        tasks.spawn_until("reader", &stop, mirror);
        tasks.spawn_until("reader", &stop, async move { notes.over(channel.listen(listener)).await });
        stop
    }
}

/// How the switchboard recognises what arrives at this plan's channels.
pub(super) fn readings(plan: &Plan) -> HashMap<Name, Reading> {
    let reading = |name: &Name| Some((name.clone(), Reading { policy: plan.channels.get(name)?.policy.clone() }));
    plan.received().into_iter().filter_map(reading).collect()
}

/// Whether one call through the channel says anything of the next.
fn has_gate(planned: &ChannelPlan) -> bool {
    planned.kind.breaks && planned.settings.has_one_target()
}

/// This plan's channels whose breaker refuses calls while it is open.
pub(super) fn refusing(plan: &Plan, now: Timestamp) -> BTreeSet<Name> {
    let refuses = |(name, planned): &(&Name, &ChannelPlan)| {
        let users = || Users::of(name, &plan.journeys, now);
        has_gate(planned) && !planned.policy.breaker_observes && users().are_several()
    };
    plan.channels.iter().filter(refuses).map(|(name, _)| name.clone()).collect()
}

/// The listener for inbound webhooks, if the plan has one, and its door.
pub(super) struct BoundHooks {
    hooks: Option<(TcpListener, Hooks)>,
    door: Door,
}

impl BoundHooks {
    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.hooks.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }
}

/// Binds the listener for inbound webhooks, if the plan has one.
pub(super) async fn bind_hooks(plan: &Plan, clock: Clock) -> Result<BoundHooks, Failure> {
    let door = gates::open(plan.hooks.as_ref().and_then(|hooks| hooks.web_config.as_deref()), clock)?;
    let hooks = match &plan.hooks {
        Some(hooks) => {
            let listener = super::bind(hooks.listen, "hooks.listen").await?;
            Some((listener, Hooks::behind(door.clone(), Limits::default())))
        }
        None => None,
    };
    Ok(BoundHooks { hooks, door })
}
