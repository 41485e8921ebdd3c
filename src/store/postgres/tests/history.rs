//! Four daemons that share journeys, are stopped for longer than they hold what is theirs, killed, ended in order and cut off,
//! each at any moment: what the database has of it afterwards is one history, in which no shard was two daemons'.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;

use super::share::{GIVEN, TTL, about, journey_of, share, store_of};
use super::*;
use crate::cluster::{SHARDS, Wish};
use crate::time::Mono;

const DAEMONS: usize = 4;
const LONG: Duration = Duration::from_secs(8);
/// What a daemon writes in one go.
const BURST: usize = 6;

/// What the daemons know of what they wrote.
#[derive(Default)]
struct Told {
    confirmed: BTreeSet<String>,
    moved: BTreeSet<String>,
    unknown: usize,
    /// Holders by shard and epoch.
    taken: BTreeMap<(i32, i64), String>,
    written: usize,
    ends: usize,
}

/// Everything that happens is written down in the order in which it happens: under the row locks of what it is about.
const AUDIT: &str = "
    CREATE TABLE audit (at bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shard integer, epoch bigint, holder text,
        number bigint, document text);
    CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (shard, epoch, holder) VALUES (NEW.shard, NEW.epoch, NEW.holder); RETURN NULL; END $$;
    CREATE FUNCTION note_relay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO audit (holder, number, document) VALUES (NEW.writer, NEW.number, NEW.document); RETURN NULL; END $$;
    CREATE TRIGGER note_lease AFTER UPDATE ON lease FOR EACH ROW
        WHEN (OLD.holder <> NEW.holder OR OLD.epoch <> NEW.epoch) EXECUTE FUNCTION note_lease();
    CREATE TRIGGER note_relay AFTER INSERT ON relay FOR EACH ROW EXECUTE FUNCTION note_relay()";

#[test]
fn no_shard_is_two_daemons_whatever_becomes_of_them() {
    block_on(async {
        let Some(database) = database().await else { return };
        let url = database.url();
        open(&url, None).await.close().await.unwrap();
        database.run(AUDIT).await;
        let journeys: HashMap<i32, Name> = (1..=SHARDS).map(|shard| (shard, journey_of(shard))).collect();
        let (told, is_over, clock) = (Mutex::new(Told::default()), AtomicBool::new(false), Clock::system());
        let (ender, _driver) = Server::shared().await.unwrap().session(&database.name).await;
        let daemons = async {
            let until = clock.now().mono + LONG;
            let all = (0..DAEMONS).map(|nth| live(nth, &url, &journeys, &told, (clock, until)));
            futures_util::future::join_all(all).await;
            is_over.store(true, Ordering::Release);
        };
        let cutting = async {
            while !is_over.load(Ordering::Acquire) {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                    WHERE application_name IN ('journeyman writer', 'journeyman share')
                    AND datname = current_database() ORDER BY random() LIMIT 1) AS one";
                count(&ender, sql).await;
                sleep(Duration::from_millis(fastrand::u64(50..250))).await;
            }
        };
        let leading = async {
            let leader = share(&url, "leader", BOUND);
            let fence = taken(&url, "leader").await;
            let store = store_of(&url, &leader, Some(fence), clock).await;
            let mut heard: Vec<Relayed> = Vec::new();
            loop {
                // Asked before: what comes after it is not the last.
                let is_last = is_over.load(Ordering::Acquire);
                let found = leader.relayed(50).await.unwrap();
                let mut batch = spend(found.len() as u64);
                let hear = |one: &Relayed| Change::Heard { writer: one.writer.clone(), number: one.number };
                batch.extend(found.iter().map(hear));
                if !found.is_empty() {
                    store.apply(batch).await.unwrap();
                } else if is_last {
                    return (heard, store.spent().await.unwrap()[0].messages);
                } else {
                    sleep(Duration::from_millis(20)).await;
                }
                heard.extend(found);
            }
        };
        let ((), (), (heard, spent)) = futures_util::future::join3(daemons, cutting, leading).await;
        let told = told.into_inner().unwrap();
        let sql = "SELECT shard, epoch, holder, number, document FROM audit ORDER BY at";
        let rows = database.client.query(sql, &[]).await.unwrap();
        check(&told, &heard, &rows);
        assert_eq!(spent as usize, heard.len(), "what follows is done once");
        assert_eq!(count(&database.client, "SELECT count(*) FROM relay").await, 0);
        eprintln!(
            "{} of {} writes confirmed, {} refused, {} of which nobody knows; {} shards taken by {} processes; {} heard",
            told.confirmed.len(),
            told.written,
            told.moved.len(),
            told.unknown,
            told.taken.len(),
            told.ends + DAEMONS,
            heard.len()
        );
    });
}

/// One daemon after the other, until the time is over.
async fn live(nth: usize, url: &str, journeys: &HashMap<i32, Name>, told: &Mutex<Told>, (clock, until): (Clock, Mono)) {
    let mut process = 0;
    while clock.now().mono < until {
        let name = format!("{nth}, process {process}");
        let share = share(url, &name, TTL);
        let Ok(store) = Postgres::open_resting(endpoint(url), None, Some(share.sharing()), clock, Duration::ZERO).await
        else {
            continue;
        };
        process += 1;
        loop {
            if clock.now().mono >= until || fastrand::u32(0..60) == 0 {
                break;
            }
            // One in six rounds it does not hear what has become of what it held, as after it was stopped.
            if fastrand::u32(0..6) == 0 {
                sleep(TTL.mul_f64(1.2 + fastrand::f64())).await;
            } else if let Ok(standing) = share.renew(&about()).await {
                settle(&share, &name, &standing, told).await;
            }
            write(&share, &store, &name, journeys, told).await;
            sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        }
        told.lock().unwrap().ends += 1;
        match fastrand::u32(0..3) {
            // Killed, while it writes.
            0 => {
                let moment = Duration::from_micros(fastrand::u64(0..4_000));
                let _ = timeout(moment, write(&share, &store, &name, journeys, told)).await;
            }
            1 => drop(share.leave(GIVEN).await),
            _ => {
                let _ = futures_util::future::join(store.close(), share.leave(GIVEN)).await;
            }
        }
    }
}

/// Takes or gives back what is its due.
async fn settle(share: &Share, name: &str, standing: &Standing, told: &Mutex<Told>) {
    match standing.groups[0].wish() {
        Wish::Take(many) => {
            let taken = share.take(many, &(1..=SHARDS)).await.unwrap_or_default();
            let mut told = told.lock().unwrap();
            for Taken { shard, .. } in taken {
                let epoch = share.held().epoch(shard).unwrap();
                let before = told.taken.insert((shard, epoch), name.to_owned());
                assert_eq!(before, None, "shard {shard} has two holders in epoch {epoch}: {name} is one");
            }
        }
        Wish::GiveBack(many) => {
            let _ = share.give_back(&standing.held[..many], GIVEN).await;
        }
        Wish::Stay => {}
    }
}

/// Relays something of each of some shards at once.
async fn write(share: &Share, store: &Postgres, name: &str, journeys: &HashMap<i32, Name>, told: &Mutex<Told>) {
    let mut shards = share.held().shards();
    fastrand::shuffle(&mut shards);
    let writes = shards.into_iter().take(BURST).filter_map(|shard| {
        let epoch = share.held().epoch(shard)?;
        let mut told = told.lock().unwrap();
        told.written += 1;
        let document = format!("{shard} {epoch} {} by {name}", told.written);
        let change = Change::Relay {
            journey: journeys[&shard].clone(),
            ended: None,
            document: document.clone(),
            is_belated: false,
        };
        Some(async move { (document, store.apply(vec![change]).await) })
    });
    let written: Vec<_> = futures_util::future::join_all(writes.collect::<Vec<_>>()).await;
    let mut told = told.lock().unwrap();
    for (document, result) in written {
        match result {
            Ok(()) => drop(told.confirmed.insert(document)),
            Err(StoreError::Moved(_)) => drop(told.moved.insert(document)),
            Err(_) => told.unknown += 1,
        }
    }
}

/// Whether what was written down is one history, and what the daemons were told agrees with it.
fn check(told: &Told, heard: &[Relayed], rows: &[Row]) {
    let mut leases: HashMap<i32, (i64, String)> = HashMap::new();
    let mut holders: HashMap<(i32, i64), String> = HashMap::new();
    let mut numbers: HashMap<String, i64> = HashMap::new();
    let mut committed: BTreeSet<String> = BTreeSet::new();
    for row in rows {
        let holder: String = row.get(2);
        if let Some(shard) = row.get::<_, Option<i32>>(0) {
            let epoch: i64 = row.get(1);
            let (before, _) = leases.insert(shard, (epoch, holder.clone())).unwrap_or_default();
            assert_eq!(epoch, before + i64::from(!holder.is_empty()), "each taking of shard {shard} is an epoch");
            if !holder.is_empty() {
                assert_eq!(holders.insert((shard, epoch), holder), None, "two holders of shard {shard} in {epoch}");
            }
            continue;
        }
        let (number, document): (i64, String) = (row.get(3), row.get(4));
        let last = numbers.insert(holder.clone(), number);
        assert!(last.is_none_or(|last| last < number), "{holder}: {number} after {last:?}");
        let mut words = document.split(' ');
        let shard: i32 = words.next().unwrap().parse().unwrap();
        let epoch: i64 = words.next().unwrap().parse().unwrap();
        assert_eq!(leases.get(&shard), Some(&(epoch, holder)), "`{document}` was written when its shard was another's");
        assert!(committed.insert(document.clone()), "`{document}` was written twice");
    }
    for (taken, name) in &told.taken {
        assert_eq!(holders.get(taken), Some(name), "{taken:?}");
    }
    let lost: Vec<_> = told.confirmed.difference(&committed).collect();
    assert!(lost.is_empty(), "confirmed, and not there: {lost:?}");
    let wrong: Vec<_> = told.moved.intersection(&committed).collect();
    assert!(wrong.is_empty(), "refused, and there: {wrong:?}");
    let in_order: Vec<_> = heard.iter().map(|one| one.document.clone()).collect();
    assert_eq!(in_order.iter().cloned().collect::<BTreeSet<_>>(), committed, "what was written was heard");
    assert_eq!(in_order.len(), committed.len(), "once each");
    let mut last: HashMap<&str, i64> = HashMap::new();
    for one in heard {
        let before = last.insert(&one.writer, one.number);
        assert!(before.is_none_or(|before| before < one.number), "{one:?} after {before:?}");
    }
    // It was a test.
    assert!(told.confirmed.len() > 100 && told.moved.len() > 3 && told.taken.len() > 64, "too little happened");
}
