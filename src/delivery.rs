//! Delivery: one worker a notifier takes the oldest notice owed, makes one attempt at a time, and records what came of it.
//!
//! Promise: at least once, in order for each incident and notifier; at most one repetition for each crash or unclear answer
//! inside the moment of sending, and that one is recognisable by its delivery id.

mod breaking;
mod clock_step;
pub mod combine;
mod heard;
pub mod policy;
mod proof;
mod ring;
mod standing;
mod unstored;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Alarms};
use crate::alert::Subject;
use crate::board::{BEAT, Board, Pulse};
use crate::breaker::{Breaker, Order, Settings};
use crate::clock::Clock;
use crate::delivery::combine::{Combined, combine};
use crate::delivery::heard::Heard;
use crate::delivery::policy::{Step, after_attempt};
use crate::delivery::proof::Proof;
pub use crate::delivery::ring::answer;
use crate::delivery::standing::Standing;
use crate::detect::{Detector, Finding};
use crate::incident::NotifyReason;
use crate::journey::Name;
use crate::metrics::{BreakerMetrics, NotifierMetrics};
use crate::notice::{Notification, delivery_id};
use crate::notifier::{Delivery, Notifier, NotifyError};
use crate::scheduler::Observation;
use crate::store::{Change, Due, OutboxRow, OutboxState, OutboxStatus, Store, StoreError};
use crate::time::{Mono, Now, between, later};

/// An attempt may take this long before we stop waiting for it.
const ATTEMPT: Duration = Duration::from_secs(120);
/// Between two messages to one notifier: Slack takes one a second for each channel, and people read no faster.
const PACE: Duration = Duration::from_secs(1);
/// A store that cannot be read or written is asked again this often.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Notices that wait for a worker when there is no store to keep them.
const DIRECT: usize = 256;
/// A notifier that has failed for this long makes the daemon unhealthy.
const TROUBLED: Duration = Duration::from_secs(120);

/// Wakes the workers.
#[derive(Default)]
pub struct Outbox {
    lanes: RwLock<BTreeMap<Name, Lane>>,
    /// Where tests come to the workers.
    alarms: Alarms,
    /// The store is another daemon's: from then on workers have what stands in for it, and nothing else.
    conceded: CancellationToken,
}

struct Lane {
    wake: Arc<Notify>,
    direct: mpsc::Sender<OutboxRow>,
}

impl Outbox {
    /// There are new rows.
    pub fn wake(&self) {
        for lane in self.lanes.read().unwrap_or_else(PoisonError::into_inner).values() {
            lane.wake.notify_one();
        }
    }

    /// What is owed in the store is another daemon's to tell.
    pub fn concede(&self) {
        self.conceded.cancel();
    }

    /// Tells people although the row could not be stored. Best effort: it is lost if the process ends now.
    pub fn tell_without_store(&self, row: OutboxRow) {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = lanes.get(&row.notifier) else { return };
        if let Err(error) = lane.direct.try_send(row) {
            tracing::error!(%error, "a notice could neither be stored nor handed over");
        }
    }
}

/// Tells people through one notifier.
pub struct Worker {
    name: Name,
    notifier: Arc<dyn Notifier>,
    fallback: Option<(Name, Duration)>,
    store: Arc<dyn Store>,
    /// What stands in for it once it is another daemon's.
    spare: Option<Arc<dyn Store>>,
    clock: Clock,
    board: Arc<Board>,
    metrics: NotifierMetrics,
    outbox: Arc<Outbox>,
    wake: Arc<Notify>,
    direct: mpsc::Receiver<OutboxRow>,
    /// Tests that journeys send.
    alarms: mpsc::Receiver<Alarm>,
    /// What the store could not take, or does not know of: to be told from memory.
    in_memory: VecDeque<OutboxRow>,
    /// What became of notices while the store could not write it. When it can, it is told this, and people nothing.
    unrecorded: HashMap<String, OutboxRow>,
    is_store_failing: bool,
    /// The store is not told what it missed before.
    hand_back_at: Mono,
    /// Handed to the fallback already.
    handed_over: HashSet<String>,
    /// Nothing is sent before: the notifier asked us to wait.
    hold: Option<Timestamp>,
    /// Where the wall clock should be: its offset from the monotonic clock.
    reference: Now,
    /// Whether anything is sent at all, after what became of the last attempts.
    breaker: Breaker,
    lever: watch::Receiver<Option<Order>>,
    breaker_metrics: BreakerMetrics,
    /// Nothing is sent before: we keep a pace.
    next_turn: Mono,
    /// When it began.
    employed: Mono,
    failing_since: Option<Timestamp>,
    /// Where it says that it cannot tell people, so that another does. Weak: the evaluator ends when nobody observes any more, and
    /// the workers end after it.
    observations: mpsc::WeakSender<Observation>,
    /// What was said last; nothing yet after a start, when the daemon before may have said that it fails.
    is_failing_told: Option<bool>,
    /// What it was told, if it has to be told that again.
    standing: Option<Standing>,
    heard: Heard,
    proof: Proof,
}

/// One notifier, ready to be given a worker.
pub struct Lender {
    /// Its name.
    pub name: Name,
    /// Itself.
    pub notifier: Arc<dyn Notifier>,
    /// Who is told instead, and after how long.
    pub fallback: Option<(Name, Duration)>,
    /// Its handles.
    pub metrics: NotifierMetrics,
    /// What somebody wants of its breaker.
    pub lever: watch::Receiver<Option<Order>>,
    /// The handles of that.
    pub breaker: BreakerMetrics,
}

/// What workers share.
#[derive(Clone)]
pub struct Workplace {
    /// Where notices are kept.
    pub store: Arc<dyn Store>,
    /// Where they are once the store is another daemon's: if nowhere, nobody is told any more.
    pub spare: Option<Arc<dyn Store>>,
    /// The process's clock.
    pub clock: Clock,
    /// Where it is shown how they do.
    pub board: Arc<Board>,
    /// Where a worker says that it cannot tell people.
    pub observations: mpsc::WeakSender<Observation>,
    /// Where tests come to the workers.
    pub alarms: Alarms,
}

/// Makes the outbox and a worker for each notifier.
pub fn build(notifiers: Vec<Lender>, place: &Workplace) -> (Arc<Outbox>, Vec<Worker>) {
    let outbox = Arc::new(Outbox { alarms: place.alarms.clone(), ..Outbox::default() });
    let workers = notifiers.into_iter().map(|lender| outbox.employ(lender, place)).collect();
    (outbox, workers)
}

impl Outbox {
    /// A worker for one more notifier, or instead of the one that it had.
    pub fn employ(self: &Arc<Self>, lender: Lender, place: &Workplace) -> Worker {
        let (direct, inbox) = mpsc::channel(DIRECT);
        let wake = Arc::<Notify>::default();
        let lane = Lane { wake: wake.clone(), direct };
        let alarms = place.alarms.answer_for(&lender.name);
        let now = place.clock.now().wall;
        place.board.set_component(&component(&lender.name), true, true, "no notice yet", now);
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).insert(lender.name.clone(), lane);
        Worker {
            wake,
            direct: inbox,
            alarms,
            standing: lender.notifier.retells().map(Standing::new),
            name: lender.name,
            notifier: lender.notifier,
            fallback: lender.fallback,
            metrics: lender.metrics,
            store: place.store.clone(),
            spare: place.spare.clone(),
            clock: place.clock,
            board: place.board.clone(),
            outbox: self.clone(),
            in_memory: VecDeque::new(),
            unrecorded: HashMap::new(),
            is_store_failing: false,
            hand_back_at: Mono::default(),
            handed_over: HashSet::new(),
            hold: None,
            reference: place.clock.now(),
            breaker: Breaker::new(Settings::NOTIFIER),
            lever: lender.lever,
            breaker_metrics: lender.breaker,
            next_turn: Mono::default(),
            employed: place.clock.now().mono,
            failing_since: None,
            observations: place.observations.clone(),
            is_failing_told: None,
            heard: Heard::default(),
            proof: Proof::default(),
        }
    }

    /// Nobody is told through this notifier any more. What was owed to it stays in the store.
    pub fn dismiss(&self, notifier: &Name) {
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).remove(notifier);
        self.alarms.dismiss(notifier);
    }
}

impl Worker {
    /// Whom it tells.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Works until `stop`; then makes one more round of what is due, at most for `drain`, and leaves the rest to the next start.
    pub async fn run(mut self, pulse: Arc<Pulse>, stop: CancellationToken, drain: Duration) {
        self.hold = self.store.hold(self.name.clone()).await.unwrap_or_default();
        self.resume_breaker().await;
        self.restore_standing().await;
        self.recall_failure().await;
        loop {
            let now = self.clock.now();
            pulse.beat(now.mono);
            self.notice_clock_step(now);
            let wait = self.round(&pulse, now.wall).await;
            let wait = wait.min(self.retell(&pulse).await);
            self.show().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(row) = self.direct.recv() => {
                    // What it has of the same incident was decided before.
                    self.take_over().await;
                    self.remember(row);
                }
                Some(alarm) = self.alarms.recv() => Box::pin(self.ring(alarm, &pulse)).await,
                () = self.wake.notified(), if wait > Duration::ZERO => {}
                // Heard in the next round.
                Ok(()) = self.lever.changed() => self.lever.mark_changed(),
                () = tokio::time::sleep(wait.min(BEAT)) => {}
            }
        }
        let last_round = async { while self.round(&pulse, self.clock.now().wall).await == Duration::ZERO {} };
        if tokio::time::timeout(drain, last_round).await.is_err() {
            tracing::warn!(notifier = %self.name, "stopped with notices undelivered; they are kept and sent at the next start");
        }
    }

    /// Makes an attempt at the row that is due, if any. Gives how long there is nothing to do.
    async fn round(&mut self, pulse: &Pulse, now: Timestamp) -> Duration {
        if self.outbox.conceded.is_cancelled() {
            self.go_with_spare();
        }
        self.hand_back().await;
        let refusal = self.heed_breaker(now);
        if self.failing_since.is_some() || refusal.is_some() || self.hold.is_some_and(|until| until > now) {
            self.hand_over_overdue(now).await;
        }
        if let Some(until) = self.hold.filter(|until| *until > now) {
            return between(now, until);
        }
        if let Some(wait) = refusal {
            return wait;
        }
        if let Some(row) = self.due_in_memory(now) {
            return Box::pin(self.attempt(row, true, pulse)).await;
        }
        let next = self.first_in_memory().map(|row| row.state.not_before).min();
        let next = next.map_or(BEAT, |at| between(now, at));
        match self.next_due(now).await {
            Ok(Due::Row(row)) if self.is_known_better(&row.id) => STORE_RETRY.min(next),
            Ok(Due::Row(row)) => match self.combined(*row).await {
                Some(row) => Box::pin(self.attempt(row, false, pulse)).await,
                None => STORE_RETRY.min(next),
            },
            Ok(Due::At(at)) => {
                self.hand_over_overdue(now).await;
                between(now, at).min(next)
            }
            Ok(Due::Nothing) => Box::pin(self.prove(pulse)).await.min(next),
            Err(error) => {
                tracing::warn!(notifier = %self.name, %error, "cannot look for notices");
                STORE_RETRY.min(next)
            }
        }
    }

    /// The row as it is to be told now: if people have not been told what came before, in one with that. Nothing, if the store
    /// does not take that down.
    async fn combined(&mut self, row: OutboxRow) -> Option<OutboxRow> {
        let Ok(rows) = self.store.undelivered(self.name.clone(), Some(row.incident.clone())).await else {
            return Some(row);
        };
        let Some(Combined { mut row, superseded }) = combine(&rows) else { return Some(row) };
        if row.notification.is_whole {
            let why = rows.iter().rev().find_map(|row| row.state.error.clone());
            row.notification.news.extend(why.map(|why| format!("told late, because {} said: {why}", self.name)));
        }
        let change = Change::Combine { row: Box::new(row.clone()), superseded };
        (self.record(vec![change]).await == Duration::ZERO).then_some(row)
    }

    async fn attempt(&mut self, row: OutboxRow, from_memory: bool, pulse: &Pulse) -> Duration {
        self.clock.sleep_until(self.next_turn).await;
        let ticket = self.take_ticket();
        let attempt = row.state.attempt + 1;
        // On disk before the first byte leaves: after a crash, a row that says `leased` may have been taken.
        let leased =
            OutboxState { status: OutboxStatus::Leased, attempt, at: self.clock.now().wall, ..row.state.clone() };
        // Nobody waits for a disk to hear that something is down: what cannot be recorded is told all the same.
        let had_spare = self.spare.is_some();
        if self.record(vec![Change::Outbox { id: row.id.clone(), state: leased }]).await > Duration::ZERO {
            if had_spare && self.spare.is_none() {
                // It was in the other daemon's store.
                return Duration::ZERO;
            }
            self.in_memory.push_front(row.clone());
            self.take_over().await;
            self.in_memory.retain(|kept| kept.id != row.id);
        }
        // A row that is still `leased` is one whose last attempt we could not record.
        let is_ambiguous = matches!(row.state.status, OutboxStatus::Ambiguous | OutboxStatus::Leased);
        let result = self.notify(&row, attempt, is_ambiguous, pulse).await;
        let now = self.clock.now();
        self.next_turn = now.mono + PACE;
        let opened = self.note_attempt(ticket, &result, &row.id, now);
        let (step, state) = after_attempt(&result, attempt, row.created, now.wall, fastrand::f64());
        self.count(step, &row, now.wall);
        let left = OutboxRow { state, ..row.clone() };
        let mut changes = match from_memory {
            true => unstored::whole(&left).to_vec(),
            false => vec![Change::Outbox { id: left.id.clone(), state: left.state.clone() }],
        };
        changes.extend(opened);
        let mut instead = None;
        match &result {
            Ok(_) => {
                self.works(now.wall).await;
                self.proof = Proof::default();
                instead = self.end_for_fallback(&row, now.wall).await;
                changes.extend(instead.clone().map(|row| Change::Owe { row: Box::new(row) }));
                if let Some(standing) = &mut self.standing {
                    standing.took(&row, now.wall);
                }
            }
            Err(error) => {
                self.fails(error, &row, step, now.wall);
                if let NotifyError::After { wait, .. } = error {
                    let until = later(now.wall, *wait);
                    self.hold = Some(until);
                    changes.push(Change::Hold { notifier: self.name.clone(), until });
                }
                if step == Step::Dead || self.is_overdue(&row, now.wall) {
                    instead = self.hand_over(&row, &error.to_string(), now.wall);
                    changes.extend(instead.clone().map(|row| Change::Owe { row: Box::new(row) }));
                }
            }
        }
        let is_recorded = self.record(changes).await == Duration::ZERO;
        if let Some(row) = instead.filter(|_| !is_recorded) {
            self.outbox.tell_without_store(row);
        }
        if !is_recorded {
            match left.state.status {
                OutboxStatus::Sent | OutboxStatus::Superseded | OutboxStatus::Dead => {
                    drop(self.unrecorded.insert(left.id.clone(), left))
                }
                OutboxStatus::Pending | OutboxStatus::Leased | OutboxStatus::Ambiguous => {
                    self.in_memory.push_front(left)
                }
            }
        }
        self.outbox.wake();
        Duration::ZERO
    }

    async fn notify(
        &self,
        row: &OutboxRow,
        attempt: u32,
        is_ambiguous: bool,
        pulse: &Pulse,
    ) -> Result<crate::notifier::Receipt, NotifyError> {
        let root = if row.sequence > 1 {
            // Without the store the thread is not found; then the message stands alone, which is better than none.
            self.store.root_receipt(row.incident.clone(), self.name.clone()).await.unwrap_or_default()
        } else {
            None
        };
        let delivery = Delivery {
            id: row.id.clone(),
            attempt,
            is_ambiguous,
            notification: row.notification.clone(),
            root,
            instead_of: row.instead_of.clone(),
        };
        self.bounded(pulse, self.notifier.notify(&delivery)).await
    }

    /// What the other side says within the time that an attempt may take. It may be slow; the loop is not stuck.
    async fn bounded<T>(
        &self,
        pulse: &Pulse,
        attempt: impl Future<Output = Result<T, NotifyError>>,
    ) -> Result<T, NotifyError> {
        let beat = async {
            loop {
                pulse.beat(self.clock.now().mono);
                tokio::time::sleep(BEAT).await;
            }
        };
        tokio::select! {
            result = tokio::time::timeout(ATTEMPT, attempt) => result.unwrap_or_else(|_| {
                Err(NotifyError::Ambiguous(format!("no answer within {} s", ATTEMPT.as_secs())))
            }),
            never = beat => never,
        }
    }

    /// Writes; gives zero, or how long to wait before anything else if that failed.
    async fn record(&mut self, changes: Vec<Change>) -> Duration {
        match self.store.apply(changes).await {
            Ok(()) => {
                self.is_store_failing = false;
                Duration::ZERO
            }
            // Whoever has taken over tells what is to be told; this process is about to end, with a last word.
            Err(StoreError::Fenced(_)) => {
                if self.spare.is_none() {
                    return std::future::pending().await;
                }
                self.outbox.conceded.cancelled().await;
                self.go_with_spare();
                STORE_RETRY
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_store_failing, true) {
                    tracing::error!(notifier = %self.name, %error, "cannot record what becomes of notices; they are told all the same");
                }
                STORE_RETRY
            }
        }
    }

    fn count(&self, step: Step, row: &OutboxRow, now: Timestamp) {
        match step {
            Step::Sent => {
                self.metrics.sent.increment(1);
                self.metrics.duration.record(between(row.created, now).as_secs_f64());
            }
            Step::Retry => self.metrics.retried.increment(1),
            Step::Throttled => self.metrics.throttled.increment(1),
            Step::Ambiguous => self.metrics.ambiguous.increment(1),
            Step::Dead => self.metrics.dead.increment(1),
        }
    }

    async fn works(&mut self, now: Timestamp) {
        if let Some(since) = self.failing_since.take() {
            tracing::info!(notifier = %self.name, after_seconds = between(since, now).as_secs(), "notices are taken again");
        }
        self.handed_over.clear();
        self.observe(None);
        self.board.set_component(&component(&self.name), true, true, "takes notices", now);
        self.board.worked(&component(&self.name), self.clock.now());
        self.revive(now).await;
    }

    /// What was given up is owed again.
    async fn revive(&mut self, now: Timestamp) {
        match self.store.revive(self.name.clone(), now).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(notifier = %self.name, rows, "notices that were given up are tried again"),
            Err(error) => tracing::warn!(notifier = %self.name, %error, "cannot look for notices that were given up"),
        }
    }

    fn fails(&mut self, error: &NotifyError, row: &OutboxRow, step: Step, now: Timestamp) {
        let subject = &row.notification.subject;
        match step {
            Step::Dead => {
                tracing::error!(notifier = %self.name, %error, journey = subject, delivery = row.id, "a notice was given up")
            }
            _ => {
                tracing::error!(notifier = %self.name, %error, journey = subject, delivery = row.id, "a notice was not taken; it will be tried again")
            }
        }
        self.is_in_trouble(error, step == Step::Dead, now);
    }

    /// It did not work; whether that calls for somebody, time tells if nothing else does.
    fn is_in_trouble(&mut self, error: &NotifyError, is_final: bool, now: Timestamp) {
        let since = *self.failing_since.get_or_insert(now);
        let is_bad = is_final || between(since, now) >= TROUBLED;
        if is_bad {
            self.observe(Some(format!("{} does not take notices: {error}", self.name)));
        }
        self.board.set_component(&component(&self.name), !is_bad, true, error.to_string(), now);
    }

    /// What the alert is about that it cannot tell people.
    fn trouble(&self) -> Subject {
        Subject::Daemon(format!("delivery {}", self.name).into())
    }

    /// Says that it cannot tell people, or can again, once each.
    fn observe(&mut self, trouble: Option<String>) {
        let is_failing = trouble.is_some();
        if self.is_failing_told == Some(is_failing) {
            return;
        }
        let findings = trouble.into_iter().map(|said| Finding::new(Detector::Delivery, said)).collect();
        let subject = self.trouble();
        // What cannot be said now is said with the next attempt.
        let observation = Observation::Condition { subject, findings };
        if self.observations.upgrade().is_some_and(|sender| sender.try_send(observation).is_ok()) {
            self.is_failing_told = Some(is_failing);
        }
    }

    /// Whether the fallback is to tell it.
    fn is_overdue(&self, row: &OutboxRow, now: Timestamp) -> bool {
        self.fallback.as_ref().is_some_and(|(_, after)| between(row.created, now) >= *after || self.is_given_up())
    }

    /// While nothing can be sent, what waits too long goes to the fallback.
    async fn hand_over_overdue(&mut self, now: Timestamp) {
        if self.fallback.is_none() {
            return;
        }
        let owed = self.owed_by_store().await;
        let stored = owed.iter().filter(|row| !self.is_known_better(&row.id));
        let all = stored.chain(&self.in_memory);
        let rows: Vec<_> =
            all.filter(|row| self.is_overdue(row, now) && !self.handed_over.contains(&row.id)).cloned().collect();
        for row in rows {
            let error = row.state.error.clone().unwrap_or_else(|| "it has not taken the notice in time".to_owned());
            let Some(instead) = self.hand_over(&row, &error, now) else { continue };
            let change = Change::Owe { row: Box::new(instead.clone()) };
            match self.record(vec![change]).await {
                Duration::ZERO => self.outbox.wake(),
                _ => self.outbox.tell_without_store(instead),
            }
        }
    }

    /// The same notice for the fallback. If that is told anyway, or was told already, its delivery id is there and nothing is added.
    fn hand_over(&mut self, row: &OutboxRow, error: &str, now: Timestamp) -> Option<OutboxRow> {
        let (fallback, _) = self.fallback.as_ref()?;
        if !self.handed_over.insert(row.id.clone()) {
            return None;
        }
        self.metrics.fallback.increment(1);
        tracing::warn!(notifier = %self.name, to = %fallback, delivery = row.id, "handing a notice to the fallback");
        Some(OutboxRow {
            id: delivery_id(&row.incident, row.sequence, fallback),
            notifier: fallback.clone(),
            instead_of: Some((self.name.to_string(), error.to_owned())),
            created: row.created,
            state: OutboxState::pending(now),
            ..row.clone()
        })
    }

    /// Whoever was told instead that it began, or is yet to be, is told that it is over, also if the end came through here.
    async fn end_for_fallback(&self, row: &OutboxRow, now: Timestamp) -> Option<OutboxRow> {
        let (fallback, _) = self.fallback.as_ref().filter(|_| row.notification.reason == NotifyReason::Resolved)?;
        let told = self.store.root_receipt(row.incident.clone(), fallback.clone()).await.ok()?;
        if told.is_none() && self.store.undelivered(fallback.clone(), Some(row.incident.clone())).await.ok()?.is_empty()
        {
            return None;
        }
        // That it began, these have heard.
        let notification = Notification { is_whole: false, ..row.notification.clone() };
        Some(OutboxRow {
            notification,
            id: delivery_id(&row.incident, row.sequence, fallback),
            notifier: fallback.clone(),
            instead_of: None,
            created: now,
            state: OutboxState::pending(now),
            ..row.clone()
        })
    }

    async fn show(&mut self) {
        let Ok(mine) = self.summary().await else { return };
        let now = self.clock.now().wall;
        self.metrics.pending.set(mine.as_ref().map_or(0.0, |summary| summary.pending as f64));
        self.metrics.dead_rows.set(mine.as_ref().map_or(0.0, |summary| summary.dead as f64));
        let oldest = mine.and_then(|summary| summary.oldest).map_or(0.0, |oldest| between(oldest, now).as_secs_f64());
        self.metrics.oldest.set(oldest);
    }
}

/// What `/health` calls a notifier.
pub fn component(notifier: &str) -> String {
    format!("notifier {notifier}")
}

#[cfg(test)]
mod tests;
