//! One world from its beginning to its end: processes that live and die on one store, and the account that is settled at last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::board::Board;
use journeyman::breaker::Guarded;
use journeyman::channel::{ChannelPolicy, Journal, Readiness};
use journeyman::clock::Clock;
use journeyman::commands::Levers;
use journeyman::config::{Plan, load_text};
use journeyman::delivery::{self, Lender, Workplace};
use journeyman::evaluator::{Evaluator, Parts, Policy};
use journeyman::journey::token::Mint;
use journeyman::ledger::{Kind, Settled};
use journeyman::metrics::Metrics;
use journeyman::runner::open::OpenChannel;
use journeyman::runner::switchboard::{Reading, Switchboard};
use journeyman::runner::{Runner, resume};
use journeyman::scheduler::{Observation, Scheduler};
use journeyman::store::{Store, StoreError};
use journeyman::time::{between, earlier, later};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::account;
use super::disk::Disk;
use super::net::{Line, System};
use super::people::Door;
use super::world::{Point, World};

const BEGIN: i64 = 1_790_000_000;
/// After the last fault, everything has to come right within this.
const CALM: Duration = Duration::from_secs(35 * 60);
const DRAIN: Duration = Duration::from_secs(10);

/// What kind of world.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) journeys: usize,
    pub(crate) every: Duration,
    /// The mean time from one death of the process to the next; none, if it dies only where it must.
    pub(crate) lives: Option<Duration>,
    /// It dies when it comes here for the so-maniest time.
    pub(crate) doom: Option<(Point, u32)>,
    /// When the network is cut, people are away, the disk says no: intervals since the beginning, in seconds.
    pub(crate) cuts: Vec<(u64, u64)>,
    pub(crate) away: Vec<(&'static str, u64, u64)>,
    pub(crate) no_disk: Vec<(u64, u64)>,
    /// Whether account is kept of what happens; without, nothing is settled, and nothing is remembered.
    pub(crate) is_counted: bool,
    /// Called after every hour of a life.
    pub(crate) hourly: fn(u64),
}

impl Profile {
    /// A world of that seed, with its share of everything.
    pub(crate) fn new(seed: u64, length: Duration, journeys: usize, every: Duration) -> Profile {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut interval = |most: u64| {
            let from = rng.u64(0..length.as_secs());
            (from, from + rng.u64(5..most))
        };
        let cuts = vec![interval(600), interval(120)];
        let (chat, mail) = (interval(900), interval(300));
        let no_disk = vec![interval(60)];
        let away = vec![("chat", chat.0, chat.1), ("mail", mail.0, mail.1)];
        let lives = Some(Duration::from_secs(1_500));
        Profile {
            seed,
            length,
            journeys,
            every,
            lives,
            doom: None,
            cuts,
            away,
            no_disk,
            is_counted: true,
            hourly: |_| {},
        }
    }

    pub(super) fn is_cut(&self, at: Timestamp) -> bool {
        self.cut_until(at).is_some()
    }

    pub(super) fn cut_until(&self, at: Timestamp) -> Option<Timestamp> {
        let now = at.as_second() - BEGIN;
        let cut = self.cuts.iter().find(|(from, until)| (*from as i64..*until as i64).contains(&now))?;
        Timestamp::from_second(BEGIN + cut.1 as i64).ok()
    }

    pub(super) fn is_away(&self, who: &str, at: Timestamp) -> bool {
        let now = at.as_second() - BEGIN;
        self.away.iter().any(|(name, from, until)| *name == who && (*from as i64..*until as i64).contains(&now))
    }

    pub(super) fn disk_says_no(&self, at: Timestamp) -> bool {
        let now = at.as_second() - BEGIN;
        self.no_disk.iter().any(|(from, until)| (*from as i64..*until as i64).contains(&now))
    }
}

/// What a world came to.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) runs: usize,
    pub(crate) crashes: u32,
    pub(crate) notices: usize,
    pub(crate) events: u64,
    pub(crate) trace: u64,
    /// The promises that were broken, each in a sentence.
    pub(crate) broken: Vec<String>,
}

fn plan(profile: &Profile) -> Plan {
    let main = "[channels.queue]\ntype = \"memory\"\n[channels.push]\ntype = \"memory\"\n\
                [notifiers.chat]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1\"\nfallback = \"mail\"\n\
                [notifiers.mail]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1\"\n[alerting]\nnotify = [\"chat\"]\n";
    let journey = |n: usize| {
        let system = if n % 4 == 3 { "push" } else { "queue" };
        let every = profile.every.as_secs();
        format!(
            "[[journey]]\nname = \"j{n}\"\nevery = \"{every}s\"\nbudget = \"2s\"\ndeadline = \"5s\"\nlate = \"2m\"\nnotify = [\"chat\"]\n\
             objective = {{ delivered = \"99%\", window = \"1d\" }}\nalert = {{ flapping = false }}\n\
             [[journey.step]]\nname = \"out\"\nsend = \"{system}\"\ntext = \"{{{{ token }}}}\"\n\
             [[journey.step]]\nname = \"in\"\nreceive = \"{system}\"\n"
        )
    };
    let probes: String = (0..profile.journeys).map(journey).collect();
    match load_text("main", main, &[("probes", &probes)], Path::new("/")) {
        Ok((plan, _)) => plan,
        Err(problems) => panic!("{}", journeyman::config::render(&problems, false)),
    }
}

fn directory() -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Nothing of it has to outlive this process, and a disk would be waited for.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("journeyman-world-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Runs a world to its end.
pub(crate) fn simulate(profile: &Profile) -> Told {
    // Waits are spread by chance.
    fastrand::seed(profile.seed);
    let plan = plan(profile);
    let begin = Timestamp::from_second(BEGIN).expect("a time");
    let end = later(begin, profile.length);
    let world = Arc::new(in_time(async |clock| World::new(profile.clone(), clock), begin).0);
    let systems = BTreeMap::from([("queue", System::new(&world, true)), ("push", System::new(&world, false))]);
    let directory = directory();
    let file = directory.join("state.db");
    let mut now = begin;
    let mut born = 0;
    while now < end {
        born += 1;
        let life = world.profile.lives.map(|mean| mean.mul_f64(-world.chance().f64().max(1e-9).ln()));
        let until = life.map_or(end, |life| later(now, life).min(end));
        let lived = async |clock| {
            world.set_clock(clock);
            live(&plan, &world, &systems, &file, born, until, end).await;
        };
        (_, now) = in_time(lived, now);
        if now < end {
            world.died();
            now = later(now, world.between(Duration::from_millis(200), Duration::from_secs(90)));
        }
    }
    // No fault any more: what is owed is delivered, what is broken comes right, and the process stops in order.
    world.calm_down();
    let last = async |clock: Clock| {
        world.set_clock(clock);
        let store = Arc::new(Disk::open(&file, world.clone()));
        let stops = start(&plan, &world, &systems, store.clone(), born + 1).await.expect("nothing fails any more");
        tokio::time::sleep(CALM).await;
        let calm = earlier(world.now(), CALM);
        stop(stops).await;
        match world.profile.is_counted {
            true => account::settle(&world, &plan, &*store, calm).await,
            false => Vec::new(),
        }
    };
    let (broken, _) = in_time(last, now);
    let _ = std::fs::remove_dir_all(&directory);
    let (trace, account) = (world.trace(), world.account());
    Told {
        runs: account.verdicts.len(),
        crashes: account.crashes,
        notices: account.taken.len(),
        events: account.events,
        trace,
        broken,
    }
}

/// Does this in a time of its own that begins at `begin`; gives when it ended. Whatever was begun in it and still goes on ends with it, as
/// all that a process does ends with the process.
fn in_time<T>(work: impl AsyncFnOnce(Clock) -> T, begin: Timestamp) -> (T, Timestamp) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::derived(begin);
        let value = work(clock).await;
        (value, clock.now().wall)
    })
}

/// One life of the process: until it dies, or its time has come.
async fn live(
    plan: &Plan,
    world: &Arc<World>,
    systems: &BTreeMap<&'static str, Arc<System>>,
    file: &Path,
    born: u32,
    until: Timestamp,
    end: Timestamp,
) {
    let store = Arc::new(Disk::open(file, world.clone()));
    let life = async {
        // One that cannot start ends by itself, as one that dies.
        let Ok(stops) = start(plan, world, systems, store, born).await else { return };
        let hours = async {
            for hour in 1.. {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                (world.profile.hourly)(hour);
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(between(world.now(), until)) => {}
            () = hours => {}
        }
        // Every third life that ends before its world does is ended in order, as by an upgrade.
        if born.is_multiple_of(3) && until < end {
            world.reach(Point::Stopping).await;
            stop(stops).await;
        }
    };
    tokio::select! {
        biased;
        () = world.death.notified() => {}
        () = life => {}
    }
}

/// What stops the parts of a process, in their order.
struct Stops {
    scheduler: CancellationToken,
    readers: CancellationToken,
    workers: CancellationToken,
}

/// Starts a process as the daemon does.
#[expect(clippy::disallowed_methods, reason = "its tasks end with the runtime of its life")]
async fn start(
    plan: &Plan,
    world: &Arc<World>,
    systems: &BTreeMap<&'static str, Arc<System>>,
    store: Arc<Disk>,
    born: u32,
) -> Result<Stops, StoreError> {
    world.reach(Point::Starting).await;
    let clock = Clock::derived(world.now());
    let (board, metrics) = (Arc::new(Board::default()), Arc::new(Metrics::new(&plan.journeys, None)));
    let daemon = Arc::new(metrics.daemon());
    let key = store.key().await?;
    let mint = Arc::new(Mint::new(key, born << 16));
    let stops = Stops {
        scheduler: CancellationToken::new(),
        readers: CancellationToken::new(),
        workers: CancellationToken::new(),
    };
    let (arriving, mut arrivals) = mpsc::channel(256);
    let (observations, observed) = mpsc::channel(4_096);
    let mut channels = BTreeMap::new();
    let mut readings = HashMap::new();
    let mut lines = Vec::new();
    for (name, system) in systems {
        let (readiness, seen) = watch::channel(Readiness::Starting);
        let line = Arc::new(Line::new(system, clock));
        let policy = ChannelPolicy::default();
        let handles = metrics.channel(&(*name).into(), true);
        let open = OpenChannel::new((*name).into(), line.clone(), policy.clone(), seen, clock, board.clone(), handles);
        let nudge = open.nudge().clone();
        channels.insert((*name).into(), Arc::new(open));
        readings.insert((*name).into(), Reading { policy });
        lines.push(line.clone());
        let listener = journeyman::channel::Listener {
            channel: (*name).into(),
            clock,
            arrivals: arriving.clone(),
            journal: Journal::default(),
            since: None,
            readiness,
            mint: mint.clone(),
            nudge,
            stop: stops.readers.clone(),
        };
        tokio::spawn(async move { journeyman::channel::Channel::listen(&*line, listener).await });
    }
    // As the daemon does: what waits goes on, what nobody can go on with is settled, what was acknowledged is seen again.
    let (found, arrived, ledger) = (store.unfinished().await?, store.arrivals().await?, store.ledger().await?);
    let seen = ledger.iter().map(|(_, entry)| entry.recorded).chain(arrived.iter().map(|arrival| arrival.at.wall));
    let resume::Heritage { left, gone } = resume::sort(found, &plan.journeys, seen);
    assert!(gone.is_empty(), "no journey goes");
    let going: BTreeSet<_> = left.iter().map(|left| left.checkpoint.token).collect();
    let known = ledger.into_iter().map(move |(token, mut entry)| {
        if !going.contains(&token) {
            entry.settled = entry.settled.or(Some(Settled::Missing));
        }
        (token, entry)
    });
    let switchboard = Arc::new(Switchboard::new(mint.clone(), readings, known));
    left.iter().for_each(|left| switchboard.take_up(left));
    let mut before = Vec::new();
    for arrival in arrived {
        match switchboard.missed_by(&arrival) {
            Some((_, true)) => drop(switchboard.arrive(arrival)),
            _ => before.push(arrival),
        }
    }
    let store: Arc<dyn Store> = store;
    for line in lines {
        line.keep_in(switchboard.clone(), store.clone());
    }
    let runner = Arc::new(Runner {
        channels: channels.into(),
        switchboard: switchboard.clone(),
        store: store.clone(),
        clock,
        mint,
        redactor: plan.redactor.clone(),
        observer: None,
    });
    let late = observations.clone();
    tokio::spawn(async move {
        let mut before = before.into_iter();
        while let Some(arrival) = match before.next() {
            Some(arrival) => Some(arrival),
            None => arrivals.recv().await,
        } {
            let at = arrival.at.wall;
            let sighting = switchboard.arrive(arrival);
            if let (Kind::Late, Some(journey), Some(slot), Some(token)) =
                (sighting.kind, sighting.journey, sighting.slot, sighting.token)
            {
                let _ = late.send(Observation::Late { journey, slot, token, at }).await;
            }
        }
    });
    let workplace =
        Workplace { store: store.clone(), clock, board: board.clone(), observations: observations.downgrade() };
    let levers = Arc::<Levers>::default();
    let lender = |(name, remembers): (&'static str, bool)| Lender {
        name: name.into(),
        notifier: Arc::new(Door { name, remembers, world: world.clone() }),
        fallback: (name == "chat").then(|| ("mail".into(), Duration::from_secs(120))),
        metrics: metrics.notifier(&name.into()),
        lever: levers.of(&Guarded::Notifier(name.into())),
        breaker: metrics.breaker(&Guarded::Notifier(name.into())),
    };
    let (outbox, workers) = delivery::build([("chat", true), ("mail", false)].map(lender).into(), &workplace);
    let (wishes, _) = mpsc::channel(1);
    let parts = Parts {
        store,
        metrics,
        daemon: daemon.clone(),
        board: board.clone(),
        outbox,
        clock,
        wishes,
        location: None,
        public_url: None,
        waiting: resume::waiting_slots(&left),
        own: None,
        observer: None,
        levers,
        policy: Policy {
            dependencies: BTreeMap::new(),
            slowdowns: HashMap::new(),
            certificate_warnings: BTreeMap::new(),
            breakers: BTreeSet::new(),
            routes: plan.routes.clone(),
            updatable: BTreeSet::from(["chat".into()]),
            operators: plan.operators.clone(),
            notifiers: plan.notifiers.keys().cloned().collect(),
            group_by: plan.group_by.clone(),
            digest_after: plan.digest_after,
        },
    };
    let counted = clock.now().wall;
    let (_, commanded) = journeyman::commands::channel();
    let evaluator = Evaluator::load(parts, &plan.journeys, counted, commanded).await?;
    let scheduler = Scheduler::new(&plan.journeys, counted, runner, 64, observations, daemon, clock).with_left(left);
    let pulse = |name| board.pulse(name, clock.now().mono);
    tokio::spawn(evaluator.run(observed, pulse("evaluator")));
    for worker in workers {
        tokio::spawn(worker.run(pulse("delivery"), stops.workers.clone(), Duration::from_secs(5)));
    }
    let (_ticking, ticks) = mpsc::channel(1);
    tokio::spawn(scheduler.run(ticks, pulse("scheduler"), stops.scheduler.clone(), DRAIN));
    Ok(stops)
}

/// Stops a process in order.
async fn stop(stops: Stops) {
    stops.scheduler.cancel();
    tokio::time::sleep(DRAIN + Duration::from_secs(1)).await;
    stops.readers.cancel();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stops.workers.cancel();
    tokio::time::sleep(Duration::from_secs(8)).await;
}
