//! The disk: the production store, answered at once in the world's time, and then as slow, as broken and as mortal as chance has it.
//!
//! A commit is on disk or it is not (what SQLite makes of torn writes is tested elsewhere); here the process may die before it, or after
//! it and before anybody hears of it. In between it is written and not synced: then it is there after a death of the process, though
//! nobody was told, and gone after a power cut. One sync brings all that was written before it to disk.
//! What is on disk gets into the store before somebody asks it something: a thousand commits of one world are as one to SQLite, which is
//! most of what a world would cost otherwise.

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use journeyman::alert::{AlertState, Subject};
use journeyman::boots::Boot;
use journeyman::breaker::{Guarded, Order};
use journeyman::control::Silence;
use journeyman::detect::drift::Ran;
use journeyman::incident::Incident;
use journeyman::journey::Name;
use journeyman::journey::message::Arrival;
use journeyman::journey::report::Report;
use journeyman::journey::run::checkpoint::Checkpoint;
use journeyman::journey::spend::Spent;
use journeyman::journey::token::Token;
use journeyman::ledger::Entry;
use journeyman::notifier::Receipt;
use journeyman::store::sqlite::Sqlite;
use journeyman::store::{
    Change, Day, Due, IncidentRow, OutboxRow, OutboxStatus, OutboxSummary, Retention, RunRow, SavedJourney, Store,
    StoreError,
};

use super::world::{Point, World};

pub(super) struct Disk {
    store: Sqlite,
    world: Arc<World>,
    /// What is on disk for good, and not in the store yet: it gets that before anybody asks it something, in one commit for all.
    synced: Mutex<Vec<Change>>,
    edition: AtomicU64,
}

/// So many changes are brought to the store at once at most.
const GROUP: usize = 1_024;

impl Disk {
    pub(super) fn open(path: &Path, world: Arc<World>) -> Disk {
        let store = Sqlite::open(path).expect("the store opens");
        let disk = Disk { store, world, synced: Mutex::default(), edition: AtomicU64::default() };
        disk.bring(disk.world.survived());
        disk
    }

    fn bring(&self, batches: Vec<Vec<Change>>) {
        let mut synced = self.synced.lock().expect("no panic while held");
        for change in batches.into_iter().flatten() {
            self.edition.fetch_add(u64::from(change.is_of_outbox()), Ordering::Relaxed);
            synced.push(change);
        }
        if synced.len() >= GROUP {
            self.settle(&mut synced);
        }
    }

    fn settle(&self, synced: &mut Vec<Change>) {
        if !synced.is_empty() {
            at_once(self.store.apply(std::mem::take(synced))).expect("only the world says no");
        }
    }

    /// The store, with all in it that is on disk.
    fn store(&self) -> &Sqlite {
        self.settle(&mut self.synced.lock().expect("no panic while held"));
        &self.store
    }

    /// The same, for somebody who changes what is owed.
    fn changing(&self) -> &Sqlite {
        self.edition.fetch_add(1, Ordering::Relaxed);
        self.store()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.store();
    }
}

/// The store has threads of its own, and the world's time must not go on while they work: it is waited for on the spot.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Where a process can die around a commit, by what is in it.
fn points(batch: &[Change]) -> (Point, Point) {
    let has = |is_it: fn(&Change) -> bool| batch.iter().any(is_it);
    if has(|change| matches!(change, Change::Spend { .. })) {
        (Point::SlotChosen, Point::AfterCommit)
    } else if has(|change| matches!(change, Change::Run { .. })) {
        (Point::BeforeVerdict, Point::AfterVerdict)
    } else if has(|change| matches!(change, Change::Expect { .. })) {
        (Point::BeforeToken, Point::AfterToken)
    } else if has(|change| matches!(change, Change::Outbox { .. } | Change::Combine { .. })) {
        (Point::BeforeMark, Point::AfterMark)
    } else {
        (Point::BeforeCommit, Point::AfterCommit)
    }
}

impl Store for Disk {
    fn apply(&self, batch: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let (before, after) = points(&batch);
            let world = &self.world;
            world.reach(before).await;
            let (wait, fails) = world.disk();
            tokio::time::sleep(wait / 2).await;
            if fails {
                return Err(StoreError::Unwritable("the simulated disk says no".to_owned()));
            }
            world.alive().await;
            world.write(batch);
            if before == Point::BeforeToken {
                world.reach(Point::Unsynced).await;
            }
            tokio::time::sleep(wait / 2).await;
            world.alive().await;
            let synced = world.sync();
            synced.iter().for_each(|batch| world.committed(batch));
            self.bring(synced);
            world.reach(after).await;
            tokio::time::sleep(Duration::from_micros(100)).await;
            Ok(())
        })
    }

    fn forget(&self, retention: Retention) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(std::future::ready(at_once(self.changing().forget(retention))))
    }

    /// The same in every world of a seed.
    fn key(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        Box::pin(std::future::ready(at_once(self.store().key()).map(|_| [7; 32])))
    }

    fn outbox_edition(&self) -> Option<u64> {
        Some(self.edition.load(Ordering::Relaxed))
    }

    fn revive(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(std::future::ready(at_once(self.changing().revive(notifier, now))))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(at_once(self.store().close())))
    }

    delegate! {
        journey(name: Name) -> SavedJourney;
        conditions() -> Vec<(Subject, AlertState)>;
        open_incidents() -> Vec<Incident>;
        silences() -> Vec<Silence>;
        ledger() -> Vec<(Token, Entry)>;
        orders() -> Vec<(Guarded, Order)>;
        boots() -> Vec<Boot>;
        drills(journey: Option<Name>, limit: usize) -> Vec<journeyman::drill::Record>;
        drill(id: String) -> Option<journeyman::drill::Record>;
        unfinished() -> Vec<Checkpoint>;
        arrivals() -> Vec<Arrival>;
        spent() -> Vec<Spent>;
        next_due(notifier: Name, now: Timestamp) -> Due;
        undelivered(notifier: Name, incident: Option<String>) -> Vec<OutboxRow>;
        root_receipt(incident: String, notifier: Name) -> Option<Receipt>;
        hold(notifier: Name) -> Option<Timestamp>;
        outbox(status: Option<OutboxStatus>, after: Option<String>, limit: usize) -> Vec<OutboxRow>;
        outbox_summary() -> Vec<OutboxSummary>;
        runs(journey: Name, before: Option<Timestamp>, limit: usize) -> Vec<RunRow>;
        latencies(journey: Name, windows: Vec<(Timestamp, Timestamp)>, limit: usize) -> Vec<Vec<Ran>>;
        days(journey: Name, from: Timestamp, until: Timestamp) -> Vec<Day>;
        report(token: Token) -> Option<Report>;
        incidents(journey: Option<Name>, after: Option<String>, limit: usize) -> Vec<IncidentRow>;
        incident(id: String) -> Option<IncidentRow>;
        notices(incident: String, limit: usize) -> Vec<OutboxRow>;
    }
}
