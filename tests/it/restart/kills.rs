//! SIGKILL, again and again, with runs in flight over queues and calls. The system is the oracle: it knows what became of every
//! message, and each must have the one verdict that is true of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use journeyman::clock::Clock;
use tokio::task::JoinSet;

use super::system::{Caller, Fate, Fates, Place, System, Taken};
use super::{HOOK, check_slots, redis_channel, store, verdicts};
use crate::support::daemon::{Daemon, Setup};
use crate::support::rabbitmq::RabbitMq;
use crate::support::redis::Redis;
use crate::support::table::Table;
use crate::support::{block_on, kills_wanted, wait_for};

const JOURNEYS: usize = 12;
/// What the system needs at most to hand a message on.
const SLOWEST: u64 = 900;
const DEADLINE: Duration = Duration::from_secs(3);
/// Of a hundred messages the system loses so many.
const LOSES: u8 = 7;

fn configuration(system: &System, channels: &str) -> (String, String) {
    let main = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n{channels}{HOOK}", system.url());
    let mut probes = String::new();
    for part in 0..JOURNEYS {
        let channel = ["queue", "orders", "hook"][part % 3];
        let _ = writeln!(
            probes,
            "[[journey]]\nname = \"part-{part}\"\nevery = \"1s\"\ndeadline = \"3s\"\nmuted = true\n\
             step = [{{ send = \"web\", path = \"/{part}\", text = \"{{{{ token }}}}\" }}, {{ receive = \"{channel}\" }}]"
        );
    }
    (main, probes)
}

/// Hands messages on as chance will have it, and notes what became of each.
struct Carrier {
    fates: Fates,
    places: [Arc<Place>; 2],
    hook: String,
    caller: Caller,
    under_way: JoinSet<()>,
}

impl Carrier {
    fn carry(&mut self, taken: Taken, random: &mut fastrand::Rng) {
        let at = self.fates.begin(taken);
        if random.u8(0..100) < LOSES {
            return self.fates.end(at, Fate::Lost);
        }
        let delay = Duration::from_millis(random.u64(0..SLOWEST));
        let (fates, hook, caller) = (self.fates.clone(), self.hook.clone(), self.caller.clone());
        let place = self.places.get(taken.part % 3).cloned();
        self.under_way.spawn(async move {
            tokio::time::sleep(delay).await;
            let fate = match place {
                Some(place) => {
                    place.put(taken.token).await;
                    Fate::Queued
                }
                None if caller.call(&hook, &taken.token.to_string()).await => Fate::Heard,
                None => Fate::TurnedAway,
            };
            fates.end(at, fate);
        });
    }
}

#[test]
fn thirty_kills_with_runs_in_flight_give_each_run_one_verdict_and_a_true_one() {
    block_on(async {
        let (Some(redis), Some(rabbit)) = (Redis::start().await, RabbitMq::shared().await) else { return };
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let vhost = rabbit.vhost().await;
        vhost.declare_exchange("back", "topic").await;
        let amqp = format!(
            "[channels.orders]\ntype = \"amqp\"\nurl = \"{}\"\nexchange = \"back\"\nrouting_key = \"x\"\n",
            vhost.url()
        );
        let redis_channel = redis_channel(&redis);
        let places = [Place::open(&redis_channel, "queue"), Place::open(&amqp, "orders")].map(Arc::new);
        let queue = "queue = { name = \"journeyman.back\", bind = [{ exchange = \"back\", routing_key = \"#\" }] }\n";
        let mut system = System::start().await;
        let (main, probes) = configuration(&system, &format!("{redis_channel}{amqp}{queue}"));
        let setup = Setup::new("kills");
        let hook = setup.hook_url("/hook");
        let mut daemon = setup.start(&main, &probes).await;

        let fates = Fates::default();
        let caller = system.caller();
        let mut carrier = Carrier { fates: fates.clone(), places, hook, caller, under_way: JoinSet::new() };
        let clock = Clock::system();
        let (mut restarts, mut in_flight) = (Vec::new(), 0);
        for _ in 0..kills_wanted() {
            // A random moment is the point: nothing is waited for.
            let until = clock.now().mono + Duration::from_millis(random.u64(300..2_500));
            while clock.now().mono < until {
                carry_all(&mut carrier, &mut system, &mut random).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            daemon.kill().await;
            let left: i64 = store(&daemon).query_row("SELECT count(*) FROM unfinished", [], |row| row.get(0)).unwrap();
            in_flight += left;
            let killed = clock.now().mono;
            daemon.spawn_again();
            // What comes meanwhile is the point too.
            tokio::join!(daemon.wait_until_ready(), carry_all(&mut carrier, &mut system, &mut random));
            restarts.push(clock.now().mono.since(killed));
        }
        // The last ones have their time.
        let calm = clock.now().mono + DEADLINE + Duration::from_secs(6);
        while clock.now().mono < calm {
            carry_all(&mut carrier, &mut system, &mut random).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wait_for("every message to be where it goes", Duration::from_secs(30), async || {
            while carrier.under_way.try_join_next().is_some() {}
            carrier.under_way.is_empty().then_some(())
        })
        .await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());

        let slots = check_slots(&daemon, 1_000);
        let found = check_verdicts(&daemon, &fates.all());
        restarts.sort();
        let mut table = Table::new("restart", "t1-real", &["T1, the real binary", "figure"]);
        table.row(&[&"kills", &format!("{} (seed {seed})", kills_wanted())]);
        table.row(&[&"journeys", &format!("{JOURNEYS} each second: 4 by Redis stream, 4 by AMQP, 4 by webhook")]);
        table.row(&[&"slots", &format!("{slots}, each with one verdict")]);
        table.row(&[&"runs in flight when killed", &in_flight]);
        for ((fate, verdict), count) in &found {
            table.row(&[&format!("messages {fate}"), &format!("{count} × {verdict}")]);
        }
        let (median, most) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
        table.row(&[&"restart to ready", &format!("{median:.0?} median, {most:.0?} at most")]);
        assert!(in_flight as usize >= kills_wanted(), "too quiet to prove anything: {in_flight} in flight");
    });
}

async fn carry_all(carrier: &mut Carrier, system: &mut System, random: &mut fastrand::Rng) {
    while let Some(taken) = system.try_take() {
        carrier.carry(taken, random);
    }
    while carrier.under_way.try_join_next().is_some() {}
}

/// Each message's run has one verdict, which is true of what became of the message. Gives how many came to what.
fn check_verdicts(daemon: &Daemon, fates: &[(Taken, Fate)]) -> BTreeMap<(String, String), usize> {
    let store = store(daemon);
    let sql = "SELECT token FROM unfinished";
    let mut statement = store.prepare(sql).unwrap();
    let left: Vec<[u8; 16]> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut beside, mut wrong) = (0, String::new());
    for part in 0..JOURNEYS {
        let verdicts: BTreeMap<i64, String> = verdicts(daemon, &format!("part-{part}")).into_iter().collect();
        let mut told: BTreeMap<i64, journeyman::journey::token::Token> = BTreeMap::new();
        let mut own: Vec<_> = fates.iter().filter(|(taken, _)| taken.part == part).collect();
        own.sort_by_key(|(taken, _)| taken.token);
        for (Taken { token, .. }, fate) in own {
            if left.contains(&token.bits().to_be_bytes()) {
                continue;
            }
            let issued = token.issued().as_millisecond();
            let slot = verdicts.range(..=issued).next_back().filter(|(slot, _)| issued < *slot + 1_000);
            let Some((slot, verdict)) = slot.filter(|(slot, _)| !told.contains_key(slot)) else {
                // A run in the place of one that a restart left unknown has no slot.
                beside += 1;
                continue;
            };
            told.insert(*slot, *token);
            let is_here = ["good", "slow"].contains(&verdict.as_str());
            let is_true = match fate {
                Fate::Queued | Fate::Heard => is_here,
                Fate::Lost => ["failed(not_received)", "unknown(restart)"].contains(&verdict.as_str()),
                Fate::TurnedAway => is_here || verdict == "unknown(restart)",
                Fate::Coming => false,
            };
            if !is_true {
                let _ = writeln!(wrong, "part-{part} {token} of slot {slot}: {fate:?} is {verdict}");
            }
            *found.entry((format!("{fate:?}"), verdict.clone())).or_default() += 1;
        }
        // No verdict without a message, but of those that never left.
        for (slot, verdict) in verdicts.iter().filter(|(slot, _)| !told.contains_key(slot)) {
            if ["good", "slow", "failed(not_received)"].contains(&verdict.as_str()) {
                let _ = writeln!(wrong, "part-{part}: slot {slot} is {verdict}, and nothing was sent for it");
            }
        }
    }
    let repeated = daemon.log().matches("running again what a restart left unknown").count();
    assert!(wrong.is_empty() && beside <= repeated, "{beside} runs beside slots, {repeated} repeated\n{wrong}");
    found
}
