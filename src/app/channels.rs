//! Opens the channels of a plan. Nothing here touches the network but the listener for inbound webhooks, which is bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, ChannelStatus};
use crate::breaker::{Guarded, Settings};
use crate::channel::webhook::{HookCounts, Hooks};
use crate::channel::{Channel, Listener, Opening, Readiness};
use crate::clock::Clock;
use crate::commands::Levers;
use crate::config::{ChannelPlan, Plan};
use crate::exit::{self, Failure};
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::token::Mint;
use crate::metrics::Metrics;
use crate::runner::gate::{Gate, Users};
use crate::runner::open::OpenChannel;
use crate::runner::switchboard::Reading;

/// Arrivals that wait for the switchboard at most; a reader beyond that waits, with its stamp already taken.
const ARRIVALS: usize = 4_096;

/// The channels of a plan, open, their readers not yet started.
pub(super) struct Channels {
    pub(super) open: BTreeMap<Name, Arc<OpenChannel>>,
    pub(super) readers: Vec<Reader>,
    pub(super) readings: HashMap<Name, Reading>,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) hooks: Option<(TcpListener, Hooks)>,
    pub(super) counts: Vec<(Name, Arc<HookCounts>)>,
}

/// A channel that journeys receive on.
pub(super) struct Reader {
    pub(super) channel: Arc<dyn Channel>,
    pub(super) listener: Listener,
}

/// Opens every channel of the plan.
pub(super) async fn open(
    plan: &Plan,
    clock: Clock,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
    mint: &Arc<Mint>,
    levers: &Levers,
    stop: &CancellationToken,
) -> Result<Channels, Failure> {
    let receiving: BTreeSet<_> = plan.journeys.iter().flat_map(|journey| journey.receivers()).collect();
    let (sender, arrivals) = mpsc::channel(ARRIVALS);
    let hooks = bind_hooks(plan).await?;
    let mut channels = Channels {
        open: BTreeMap::new(),
        readers: Vec::new(),
        readings: HashMap::new(),
        arrivals,
        hooks,
        counts: Vec::new(),
    };
    let opening = Opening { clock, hooks: channels.hooks.as_ref().map(|(_, hooks)| hooks.clone()) };
    for (name, planned) in &plan.channels {
        let opened = planned.settings.open(&opening);
        let why = |why| Failure::new(exit::CONFIG, format!("channel `{name}` cannot be opened: {why}"));
        // `None` is a webhook without a listener, which the configuration refuses.
        let Some(channel) = opened.map_err(why)? else { continue };
        channels.counts.extend(channel.counts().map(|counts| (name.clone(), counts)));
        let receives = receiving.contains(name);
        let (readiness, seen) = watch::channel(Readiness::Starting);
        let status = ChannelStatus {
            kind: planned.kind.name,
            readiness: receives.then_some(Readiness::Starting),
            last_fault: None,
            last_success: None,
            slowed: None,
        };
        board.set_channel(name, status);
        let handles = metrics.channel(name, receives);
        let open = OpenChannel::new(
            name.clone(),
            channel.clone(),
            planned.policy.clone(),
            seen,
            clock,
            board.clone(),
            handles,
        )
        .with_gate(gate(plan, name, planned, clock, metrics, levers));
        let nudge = open.nudge().clone();
        channels.open.insert(name.clone(), Arc::new(open));
        if receives {
            channels.readings.insert(name.clone(), Reading { policy: planned.policy.clone() });
            let (arrivals, stop) = (sender.clone(), stop.clone());
            let mint = mint.clone();
            let listener = Listener { channel: name.clone(), clock, arrivals, readiness, mint, nudge, stop };
            channels.readers.push(Reader { channel, listener });
        }
    }
    Ok(channels)
}

/// The breaker of a channel; `None` where one call says nothing of the next.
fn gate(
    plan: &Plan,
    name: &Name,
    planned: &ChannelPlan,
    clock: Clock,
    metrics: &Arc<Metrics>,
    levers: &Levers,
) -> Option<Gate> {
    if !planned.kind.breaks || !planned.settings.has_one_target() {
        return None;
    }
    let what = Guarded::Channel(name.clone());
    let users = Users::of(name, &plan.journeys, clock.now().wall);
    let settings = Settings { observes: planned.policy.breaker_observes, ..Settings::CHANNEL };
    Some(Gate::new(name.clone(), settings, users, levers.of(&what), clock, metrics.breaker(&what)))
}

async fn bind_hooks(plan: &Plan) -> Result<Option<(TcpListener, Hooks)>, Failure> {
    let Some(hooks) = &plan.hooks else { return Ok(None) };
    let listener = super::bind(hooks.listen, "hooks.listen").await?;
    Ok(Some((listener, Hooks::default())))
}
