//! Our side of a case: channels, runner and switchboard as the daemon has them, with proxies in front of the server and a
//! tap between reader and switchboard.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use journeyman::board::Board;
use journeyman::channel::webhook::Hooks;
use journeyman::channel::{Channel, Listener, Opening, Readiness};
use journeyman::clock::Clock;
use journeyman::config::{self, Plan};
use journeyman::journey::message::Arrival;
use journeyman::journey::outcome::Outcome;
use journeyman::journey::report::Report;
use journeyman::journey::run::checkpoint::Purpose;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::Mint;
use journeyman::journey::{Journey, Outgoing};
use journeyman::ledger::{Kind, Settled, Sighting};
use journeyman::metrics::Metrics;
use journeyman::runner::open::OpenChannel;
use journeyman::runner::switchboard::{Reading, Switchboard};
use journeyman::runner::{Ends, Order, Runner};
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::BOUND;
use super::rig::Rig;
use crate::support::proxy::Proxy;
use crate::support::wait_for;

type Tap = Arc<Mutex<Option<Box<dyn FnMut(&mut Arrival) + Send>>>>;

/// Our side of one case.
pub(crate) struct World {
    runner: Arc<Runner>,
    channels: String,
    sightings: Arc<Mutex<Vec<Sighting>>>,
    readiness: watch::Receiver<Readiness>,
    tap: Tap,
    sent: watch::Receiver<Option<Reply>>,
    nudge: Arc<Notify>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// How long the receiver took to be ready.
    pub(crate) ready_in: Option<Duration>,
    clock: Clock,
}

/// The plan of these channels and this journey.
pub(crate) fn plan(channels: &str, journey: &str) -> Plan {
    let base = std::env::temp_dir();
    match config::load_text("conformance.toml", channels, &[("probe.toml", journey)], &base) {
        Ok((plan, _)) => plan,
        Err(problems) => panic!("{}", config::render(&problems, false)),
    }
}

impl World {
    /// Opens `channels`; what must survive a restart is below `directory`.
    pub(crate) async fn start(channels: &str, directory: &Path) -> World {
        journeyman::tls::init();
        let clock = Clock::system();
        let plan = plan(channels, "");
        // A server that another test is starting holds a copy of our lock from its fork to its exec.
        let store: Arc<dyn Store> =
            wait_for("the store to be let go of", BOUND, async || match Sqlite::open(&directory.join("world.db")) {
                Ok(store) => Some(Arc::new(store) as Arc<dyn Store>),
                Err(StoreError::InUse(_)) => None,
                Err(why) => panic!("the store opens: {why}"),
            })
            .await;
        let mint = Arc::new(Mint::new(store.key().await.expect("a key"), fastrand::u32(..)));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let hooks = match &plan.hooks {
            Some(hooks) => {
                let listener = TcpListener::bind(hooks.listen).await.expect("the hooks' address is free");
                let hooks = Hooks::default();
                tasks.spawn(journeyman::channel::webhook::serve(listener, hooks.clone(), stop.clone()));
                Some(hooks)
            }
            None => None,
        };
        let known = store.ledger().await.expect("a ledger").into_iter().map(|(token, mut entry)| {
            entry.settled = entry.settled.or(Some(Settled::Missing));
            (token, entry)
        });
        let (board, metrics) = (Arc::new(Board::default()), Arc::new(Metrics::new(&[], None)));
        let opening = Opening { clock, hooks, alarms: Default::default() };
        let ((readiness, ready), (tell_sent, sent)) = (watch::channel(Readiness::Starting), watch::channel(None));
        let (sender, mut arrivals) = mpsc::channel::<Arrival>(256);
        let nudge = Arc::<Notify>::default();
        let (mut open, mut readings) = (BTreeMap::new(), HashMap::new());
        for (name, planned) in &plan.channels {
            let channel = planned.settings.open(&opening).unwrap_or_else(|why| panic!("{name}: {why}"));
            let mut channel = channel.expect("this build has it");
            if &**name == "out" {
                channel = Arc::new(Spy { channel, sent: tell_sent.clone() });
            }
            if &**name == "in" {
                readings.insert(name.clone(), Reading { policy: planned.policy.clone() });
                let (reader, mint) = (channel.clone(), mint.clone());
                let (arrivals, readiness, stop) = (sender.clone(), readiness.clone(), stop.clone());
                let nudge = nudge.clone();
                let listener = Listener {
                    channel: name.clone(),
                    clock,
                    arrivals,
                    journal: Default::default(),
                    since: None,
                    readiness,
                    mint,
                    nudge,
                    awaited: Default::default(),
                    stop,
                };
                tasks.spawn(async move { reader.listen(listener).await });
            }
            let handles = metrics.channel(name, &**name == "in");
            let opened = OpenChannel::new(
                name.clone(),
                channel,
                planned.policy.clone(),
                ready.clone(),
                clock,
                board.clone(),
                handles,
            );
            open.insert(name.clone(), Arc::new(opened));
        }
        let switchboard = Arc::new(Switchboard::new(mint.clone(), readings, known));
        let (sightings, tap): (Arc<Mutex<Vec<Sighting>>>, Tap) = Default::default();
        tasks.spawn({
            let (switchboard, sightings, tap) = (switchboard.clone(), sightings.clone(), tap.clone());
            async move {
                while let Some(mut arrival) = arrivals.recv().await {
                    if let Some(tap) = tap.lock().expect("no panic while held").as_mut() {
                        tap(&mut arrival);
                    }
                    // A run that has it must not be over before it is seen here.
                    let mut sightings = sightings.lock().expect("no panic while held");
                    sightings.push(switchboard.arrive(arrival));
                }
            }
        });
        let redactor = plan.redactor.clone();
        let runner = Arc::new(Runner {
            channels: open.into(),
            switchboard,
            store,
            clock,
            mint,
            redactor,
            observer: None,
            sieve: None,
            spare: None,
        });
        let channels = channels.to_owned();
        World { runner, channels, sightings, readiness: ready, tap, sent, nudge, stop, tasks, ready_in: None, clock }
    }

    /// As [`World::start`], for a rig's channels through proxies, and waits until the receiver is ready.
    pub(crate) async fn ready<R: Rig>(rig: &R, tag: &str, proxies: &Proxies, directory: &Path) -> World {
        let channels = rig.channels(tag, proxies.out.address(), proxies.back.address());
        let mut world = World::start(&channels, directory).await;
        let began = world.clock.now().mono;
        world.until(|readiness| *readiness == Readiness::Ready).await;
        world.ready_in = Some(world.clock.now().mono.since(began));
        world
    }

    /// Waits until the receiver is so.
    pub(crate) async fn until(&self, wanted: impl FnMut(&Readiness) -> bool) {
        let mut readiness = self.readiness.clone();
        let reached = tokio::time::timeout(BOUND, readiness.wait_for(wanted)).await.map(|_| ());
        assert!(reached.is_ok(), "the receiver is still {:?}", *self.readiness.borrow());
    }

    /// Has the receiver try again at once, if it is away.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Waits until the receiver has seen that it is away.
    pub(crate) async fn until_away(&self) {
        self.until(|readiness| matches!(readiness, Readiness::Down { .. })).await;
    }

    /// One run of `journey`.
    pub(crate) async fn run(&self, journey: &str) -> Report {
        self.run_until(journey, &CancellationToken::new()).await
    }

    /// One run of `journey`, cut short by `stop`.
    pub(crate) async fn run_until(&self, journey: &str, stop: &CancellationToken) -> Report {
        let (journey, slot) = self.planned(journey);
        self.make(self.runner.order(journey, slot), stop).await
    }

    async fn make(&self, order: Order, stop: &CancellationToken) -> Report {
        let run = self.runner.run(order, Ends { cut: stop, leave: None });
        tokio::time::timeout(BOUND * 3, run).await.expect("a run has an end").expect("nobody goes on with it")
    }

    /// One run that confirms a failure of just now.
    pub(crate) async fn confirm(&self, journey: &str) -> Report {
        let (journey, slot) = self.planned(journey);
        let connected_since = Some(self.clock.now().mono);
        let order = Order { connected_since, purpose: Purpose::Confirmation, ..self.runner.order(journey, slot) };
        self.make(order, &CancellationToken::new()).await
    }

    fn planned(&self, journey: &str) -> (Arc<Journey>, jiff::Timestamp) {
        let plan = plan(&self.channels, journey);
        let journey: Arc<Journey> = plan.journeys.first().expect("a journey").clone();
        // Slots are whole milliseconds; the store keeps no more.
        let now = self.clock.now().wall.as_millisecond();
        (journey, jiff::Timestamp::from_millisecond(now).expect("a time"))
    }

    /// Changes arrivals between the reader and the switchboard.
    pub(crate) fn tap(&self, change: impl FnMut(&mut Arrival) + Send + 'static) {
        *self.tap.lock().expect("no panic while held") = Some(Box::new(change));
    }

    /// The acknowledgements of sends from now on.
    pub(crate) fn acknowledgements(&self) -> Acknowledgements {
        let mut sent = self.sent.clone();
        sent.mark_unchanged();
        Acknowledgements(sent)
    }

    /// Waits until an arrival of this kind was seen.
    pub(crate) async fn sighted(&self, kind: Kind) -> Sighting {
        let what = format!("an arrival that is {kind}");
        wait_for(&what, BOUND, async || {
            self.sightings.lock().expect("no panic while held").iter().find(|s| s.kind == kind).cloned()
        })
        .await
    }

    /// How many arrivals of this kind were seen.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.sightings.lock().expect("no panic while held").iter().filter(|sighting| sighting.kind == kind).count()
    }

    /// Every arrival so far.
    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        self.sightings.lock().expect("no panic while held").clone()
    }

    /// The process's clock.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Stops reading and lets go of the store, as the end of the process does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(BOUND, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
        let _ = self.runner.store.close().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Tells of each acknowledgement that a send was given.
pub(crate) struct Acknowledgements(watch::Receiver<Option<Reply>>);

impl Acknowledgements {
    /// The next one.
    pub(crate) async fn next(&mut self) -> Reply {
        let next = async {
            loop {
                self.0.changed().await.expect("the channel lives");
                if let Some(reply) = &*self.0.borrow_and_update() {
                    return reply.clone();
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("an acknowledgement in time")
    }
}

/// The outcome as the table shows it.
pub(crate) fn shown(report: &Report) -> String {
    match &report.outcome {
        Outcome::Good { .. } => "good".to_owned(),
        Outcome::Slow { .. } => "slow".to_owned(),
        Outcome::Failed { cause, .. } => format!("failed({cause})"),
        Outcome::Unknown { why } => format!("unknown({why})"),
        Outcome::Excluded { why } => format!("excluded({why})"),
    }
}

/// The proxies in front of the server: one for what we send, one for what we receive.
pub(crate) struct Proxies {
    /// What we send goes through it.
    pub(crate) out: Proxy,
    /// What we receive comes through it.
    pub(crate) back: Proxy,
    /// What stands behind them, and ends with them.
    pub(crate) behind: JoinSet<()>,
}

impl Proxies {
    /// In front of the sending and the receiving side of a server.
    pub(crate) async fn before(out: SocketAddr, back: SocketAddr) -> Proxies {
        Proxies { out: Proxy::start(out).await, back: Proxy::start(back).await, behind: JoinSet::new() }
    }
}

/// A directory that goes with its owner.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(tag: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("journeyman-it-{}-{tag}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Remembers the last acknowledgement.
struct Spy {
    channel: Arc<dyn Channel>,
    sent: watch::Sender<Option<Reply>>,
}

impl Channel for Spy {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            self.sent.send_replace(None);
            let answer = self.channel.send(outgoing).await;
            if let Ok(reply) = &answer {
                self.sent.send_replace(Some(reply.clone()));
            }
            answer
        })
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        self.channel.check(outgoing)
    }

    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        self.channel.prove(limit)
    }

    fn keeps(&self) -> bool {
        self.channel.keeps()
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        self.channel.listen(listener)
    }
}
