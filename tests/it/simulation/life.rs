//! One world from its beginning to its end: processes that live and die on one store, and the account that is settled at last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::config::Plan;
use journeyman::time::{between, earlier, later};

use super::account;
use super::disk::Disk;
use super::net::System;
use super::process::start;
use super::profile::{Accounts, BEGIN, Profile};
use super::world::{Point, Taken, World};

/// After the last fault, everything has to come right within this.
const CALM: Duration = Duration::from_secs(35 * 60);

/// What a world came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What finds it again.
    pub(crate) name: String,
    pub(crate) runs: usize,
    pub(crate) crashes: u32,
    pub(crate) taken: Vec<Taken>,
    /// Messages that a system was given in each second since the beginning.
    pub(crate) sends: BTreeMap<i64, u32>,
    /// What the notices in the outbox weigh, in bytes.
    pub(crate) outbox: usize,
    pub(crate) events: u64,
    pub(crate) trace: u64,
    /// Every event, if that was asked for.
    pub(crate) lines: Vec<String>,
    /// The promises that were broken, each in a sentence.
    pub(crate) broken: Vec<String>,
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
    // As it is at first, and as it is changed.
    let plans = [0, 1].map(|edition| profile.plan(edition));
    let begin = Timestamp::from_second(BEGIN).expect("a time");
    let end = later(begin, profile.length);
    let world = Arc::new(in_time(async |clock| World::new(profile.clone(), clock), begin).0);
    let systems: Systems = ["paid", "push", "queue"].map(|name| (name, System::new(&world, name))).into();
    let directory = directory();
    let file = directory.join("state.db");
    let mut now = begin;
    let mut born = 0;
    while now < end {
        born += 1;
        let life = world.profile.lives.map(|mean| mean.mul_f64(-world.chance().f64().max(1e-9).ln()));
        let until = life.map_or(end, |life| later(now, life).min(end));
        let lived = async |clock| {
            world.begin(clock);
            live(&plans, &world, &systems, &file, born, until, end).await;
            world.bury()
        };
        let way;
        (way, now) = in_time(lived, now);
        if now < end {
            let (least, most) = way.absence();
            now = later(now, world.between(least, most));
        }
    }
    // No fault any more: what is owed is delivered, what is broken comes right, and the process stops in order.
    let never = world.calm_down();
    let plan = &plans[world.edition() as usize % 2];
    let last = async |clock: Clock| {
        world.begin(clock);
        let store = Arc::new(Disk::open(&file, world.clone()));
        let process = start(plan, &world, &systems, store.clone(), born + 1).await.expect("nothing fails any more");
        tokio::time::sleep(CALM).await;
        let calm = earlier(world.now(), CALM);
        process.stop().await;
        match world.profile.accounts {
            Accounts::None => account::Settled::default(),
            _ => account::settle(&world, plan, &*store, calm).await,
        }
    };
    let (account::Settled { mut broken, outbox }, _) = in_time(last, now);
    if let Some((point, times, _)) = never {
        broken.push(format!(
            "T1: the process never came to {point:?} so often, {times} times are left: nothing was tried"
        ));
    }
    let _ = std::fs::remove_dir_all(&directory);
    let (name, trace) = (profile.name.clone(), world.trace());
    let mut account = world.account();
    let (taken, lines) = (std::mem::take(&mut account.taken), std::mem::take(&mut account.lines));
    let sends = account.sends.iter().map(|(second, count)| (second - BEGIN, *count)).collect();
    let (runs, crashes, events) = (account.verdicts.len(), account.crashes, account.events);
    Told { name, runs, crashes, taken, sends, outbox, events, trace, lines, broken }
}

type Systems = BTreeMap<&'static str, Arc<System>>;

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
    plans: &[Plan; 2],
    world: &Arc<World>,
    systems: &Systems,
    file: &Path,
    born: u32,
    until: Timestamp,
    end: Timestamp,
) {
    let store = Arc::new(Disk::open(file, world.clone()));
    let life = async {
        let of = |edition: u32| &plans[edition as usize % 2];
        let mut plan = of(world.edition());
        // One that cannot start ends by itself, as one that dies.
        let Ok(process) = start(plan, world, systems, store, born).await else { return };
        let (often, sample) = world.profile.sample;
        let samples = async {
            for nth in 1.. {
                tokio::time::sleep(often).await;
                sample(nth);
            }
        };
        let reloads = async {
            let Some(every) = world.profile.reloads else { return std::future::pending().await };
            loop {
                tokio::time::sleep(every).await;
                let changed = of(world.edit());
                if process.swap(plan, changed).await {
                    plan = changed;
                }
            }
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(between(world.now(), until)) => {}
            () = samples => {}
            () = reloads => {}
        }
        // Every third life that ends before its world does is ended in order, as by an upgrade.
        if born.is_multiple_of(3) && until < end {
            world.reach(Point::Stopping).await;
            process.stop().await;
        }
    };
    tokio::select! {
        biased;
        () = world.death.notified() => {}
        () = life => {}
    }
}
