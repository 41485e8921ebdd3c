//! Opens the channels of a plan. Nothing here touches the network but the listener for inbound webhooks, which is bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::app::gates;
use crate::app::tasks::{self, Tasks};
use crate::board::{Board, ChannelStatus};
use crate::channel::journal::Noted;
use crate::channel::webhook::{Hooks, Limits};
use crate::channel::{Channel, Journal, Listener, Opening, Readiness};
use crate::clock::Clock;
use crate::config::{ChannelPlan, Plan};
use crate::exit::{self, Failure};
use crate::gate::Door;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::token::Mint;
use crate::metrics::Metrics;
use crate::observer::Observer;
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
    observer: Option<Arc<Observer>>,
    arrivals: mpsc::Sender<Arrival>,
    journal: Journal,
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
        observer,
        arrivals: sender.clone(),
        journal,
        stop: stop.clone(),
    };
    (opener, Inlets { hooks, hooks_door: door, arrivals, noted: (noted, sender) })
}

impl Opener {
    /// Opens these channels of the plan.
    pub(super) fn open<'a>(
        &self,
        plan: &'a Plan,
        names: impl IntoIterator<Item = &'a Name>,
    ) -> Result<BTreeMap<Name, Opened>, Failure> {
        let receiving: BTreeSet<_> = plan.journeys.iter().flat_map(|journey| journey.receivers()).collect();
        let mut opened = BTreeMap::new();
        for name in names {
            let Some(planned) = plan.channels.get(name) else { continue };
            if let Some(channel) = self.open_one(name, planned, receiving.contains(name))? {
                opened.insert(name.clone(), channel);
            }
        }
        Ok(opened)
    }

    /// `None` is a webhook without a listener, which the configuration refuses.
    fn open_one(&self, name: &Name, planned: &ChannelPlan, receives: bool) -> Result<Option<Opened>, Failure> {
        let clock = self.clock;
        let opening = Opening { clock, hooks: self.hooks.clone() };
        let why = |why| Failure::new(exit::CONFIG, format!("channel `{name}` cannot be opened: {why}"));
        let Some(channel) = planned.settings.open(&opening).map_err(why)? else { return Ok(None) };
        let (readiness, seen) = watch::channel(Readiness::Starting);
        let handles = self.metrics.channel(name, receives);
        let open = OpenChannel::new(
            name.clone(),
            channel.clone(),
            planned.policy.clone(),
            seen,
            clock,
            self.board.clone(),
            handles,
        );
        let reader = receives.then(|| {
            let (arrivals, journal) = (self.arrivals.clone(), self.journal.clone());
            let (stop, mint, since) = (self.stop.child_token(), self.mint.clone(), None);
            let listener = Listener { channel: name.clone(), clock, arrivals, journal, since, readiness, mint, stop };
            Reader { channel, listener }
        });
        Ok(Some(Opened { open: Arc::new(open), kind: planned.kind.name, reader }))
    }

    /// Shows a channel and starts its reader, if it has one. Gives what stops that.
    pub(super) fn start(
        &self,
        opened: Opened,
        tasks: &mut Tasks,
        observations: &mpsc::Sender<Observation>,
    ) -> CancellationToken {
        let Opened { open, kind, reader } = opened;
        let readiness = reader.is_some().then_some(Readiness::Starting);
        self.board.set_channel(&open.name, ChannelStatus { kind, readiness, last_fault: None, last_success: None });
        self.metrics.show("channel", &open.name, true);
        let Some(Reader { channel, listener }) = reader else { return self.stop.child_token() };
        let stop = listener.stop.clone();
        let notes = open.reading().clone();
        let (board, told, observer) = (self.board.clone(), observations.clone(), self.observer.clone());
        let mirror = tasks::mirror_readiness(open, board, told, observer, self.clock, stop.clone());
        tasks.spawn_until("reader", &stop, mirror);
        tasks.spawn_until("reader", &stop, async move { notes.over(channel.listen(listener)).await });
        stop
    }
}

/// How the switchboard recognises what arrives at this plan's channels.
pub(super) fn readings(plan: &Plan) -> HashMap<Name, Reading> {
    let receiving: BTreeSet<_> = plan.journeys.iter().flat_map(|journey| journey.receivers()).collect();
    let reading = |name: Name| Some((name.clone(), Reading { policy: plan.channels.get(&name)?.policy.clone() }));
    receiving.into_iter().filter_map(reading).collect()
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
