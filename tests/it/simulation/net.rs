//! The network and the systems behind it: queues that keep what nobody takes, of which one costs money, and a push that keeps nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use journeyman::channel::{Channel, Listener, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::message::{Arrival, Message};
use journeyman::journey::outcome::Cause;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::Token;
use journeyman::runner::switchboard::Switchboard;
use journeyman::store::{Change, Store};
use journeyman::time::later;
use tokio::sync::Notify;

use super::world::{Point, World};

/// By when they are there, and which was sent first.
type OnTheWay = BTreeMap<(Timestamp, u64), (Token, Vec<u8>)>;

/// A system that carries messages. Outlives the process.
pub(super) struct System {
    world: Arc<World>,
    keeps: bool,
    is_paid: bool,
    /// On their way, by when they are there.
    on_the_way: Mutex<OnTheWay>,
    /// There, and taken by nobody yet.
    waiting: Mutex<VecDeque<(Token, Vec<u8>)>>,
    serial: Mutex<u64>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl System {
    pub(super) fn new(world: &Arc<World>, name: &str) -> Arc<System> {
        let (on_the_way, waiting, serial) = Default::default();
        let (keeps, is_paid) = (name != "push", name == "paid");
        Arc::new(System { world: world.clone(), keeps, is_paid, on_the_way, waiting, serial, changed: Notify::new() })
    }

    fn carry(&self, token: Token, body: &[u8], after: Duration) {
        let at = later(self.world.now(), after);
        let mut serial = lock(&self.serial);
        *serial += 1;
        lock(&self.on_the_way).insert((at, *serial), (token, body.to_vec()));
        self.changed.notify_one();
    }

    /// Moves what is there by now; gives when the next will be.
    fn move_on(&self, is_read: bool) -> Option<Timestamp> {
        let now = self.world.now();
        let mut on_the_way = lock(&self.on_the_way);
        while let Some(entry) = on_the_way.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let at = entry.key().0;
            let message = entry.remove();
            if self.keeps || is_read {
                self.world.see(message.0, |fate| fate.there = fate.there.or(Some(at)));
                lock(&self.waiting).push_back(message);
            }
        }
        None
    }
}

/// One process's connection to a system.
pub(super) struct Line {
    system: Arc<System>,
    clock: Clock,
    /// Where it is kept what is acknowledged.
    kept: OnceLock<(Arc<Switchboard>, Arc<dyn Store>)>,
}

impl Line {
    pub(super) fn new(system: &Arc<System>, clock: Clock) -> Line {
        Line { system: system.clone(), clock, kept: OnceLock::new() }
    }

    pub(super) fn keep_in(&self, switchboard: Arc<Switchboard>, store: Arc<dyn Store>) {
        let _ = self.kept.set((switchboard, store));
    }

    /// Whether an arrival may be acknowledged: it is on disk, or nobody would miss it.
    async fn is_safe(&self, arrival: Arrival) -> bool {
        let Some((switchboard, store)) = self.kept.get() else { return false };
        match switchboard.missed_by(&arrival) {
            None => true,
            Some((token, is_waited_for)) => {
                let change = Change::Arrived { token, arrival: Box::new(arrival) };
                store.apply(vec![change]).await.is_ok() || is_waited_for
            }
        }
    }

    async fn submit(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let world = &self.system.world;
        world.reach(Point::BeforeSend).await;
        let started = self.clock.now();
        world.see(outgoing.token, |fate| fate.sent = Some(started.wall));
        world.sends(self.system.is_paid);
        let fault = |cause, detail: &str, uncertain| Fault {
            started,
            finished: self.clock.now(),
            cause,
            detail: detail.to_owned(),
            uncertain,
            phases: Vec::new(),
        };
        tokio::time::sleep(world.between(Duration::from_millis(1), Duration::from_millis(40))).await;
        if world.profile.is_cut(started.wall) && !world.is_calm() {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Err(fault(Cause::Unreachable, "no route", false));
        }
        world.alive().await;
        let refuses = world.profile.refuses(started.wall) && !world.is_calm();
        if refuses || world.happens(0.002) {
            return Err(fault(Cause::Rejected, "550 not today", false));
        }
        let (is_lost, is_doubled, is_late) = (world.happens(0.004), world.happens(0.003), world.happens(0.006));
        let delay = match is_late {
            true => world.between(Duration::from_secs(8), Duration::from_secs(60)),
            false => world.between(Duration::from_millis(20), Duration::from_millis(1_500)),
        };
        if !is_lost {
            for _ in 0..if is_doubled { 2 } else { 1 } {
                self.system.carry(outgoing.token, &outgoing.body, delay);
            }
        }
        world.reach(Point::MidSend).await;
        if world.happens(0.003) {
            return Err(fault(Cause::Unreachable, "reset after the last byte", true));
        }
        tokio::time::sleep(world.between(Duration::from_millis(1), Duration::from_millis(20))).await;
        world.reach(Point::AfterSend).await;
        let (ack, phases) = ("confirm".to_owned(), Vec::new());
        Ok(Reply { started, finished: self.clock.now(), ack, message: None, phases })
    }

    async fn read(&self, listener: Listener) {
        let world = &self.system.world;
        loop {
            let now = world.now();
            if let Some(until) = world.profile.cut_until(now).filter(|_| !world.is_calm()) {
                self.system.move_on(false);
                listener.readiness.send_replace(Readiness::Down { why: "no route".to_owned() });
                tokio::time::sleep(journeyman::time::between(now, until)).await;
                continue;
            }
            listener.readiness.send_replace(Readiness::Ready);
            let next = self.system.move_on(true);
            let message = lock(&self.system.waiting).front().cloned();
            if let Some((token, body)) = message {
                let at = self.clock.now();
                world.see(token, |fate| fate.arrived = fate.arrived.or(Some(at.wall)));
                world.note("arrived");
                world.reach(Point::Arrived).await;
                let arrival = Arrival { channel: listener.channel.clone(), at, message: Message::new(body) };
                let copy = arrival.clone();
                if listener.arrivals.send(arrival).await.is_err() {
                    return;
                }
                world.reach(Point::HandedOver).await;
                if self.is_safe(copy).await {
                    lock(&self.system.waiting).pop_front();
                } else {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                continue;
            }
            let wait = next.map_or(Duration::from_secs(5), |at| journeyman::time::between(now, at));
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => return,
                () = self.system.changed.notified() => {}
                () = tokio::time::sleep(wait.min(Duration::from_secs(5))) => {}
            }
        }
    }
}

impl Channel for Line {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.submit(outgoing))
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.submit(outgoing))
    }

    fn prove<'a>(&'a self, _limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(std::future::ready(Ok("simulated".to_owned())))
    }

    fn keeps(&self) -> bool {
        self.system.keeps
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(self.read(listener))
    }
}
