//! Rehearsals: makes the drills that people ask for and those of the schedule. What a drill does is decided in [`crate::drill`]; here runs of
//! a shadow are made, notices owed, and messages waited for.
//!
//! What is faulty is in memory and of the drill alone: a crash leaves nothing behind but an alert, which the next start ends.

mod channel;
mod drive;
mod side;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::commands::{AskedDrill, DrillRefusal};
use crate::control::Route;
use crate::delivery::Outbox;
use crate::drill::{DrillSettings, Fault, LONGEST, Order, Record, Verdict, notice};
use crate::journey::{Journey, Name};
use crate::metrics::Metrics;
use crate::notice::{Notification, delivery_id};
use crate::rehearsal::drive::Drive;
use crate::runner::Runner;
use crate::store::{Change, OutboxRow, OutboxState, Store, StoreError};
use crate::time::{Human, between, later};

/// Drills under way at once. Each is of another journey, and sends real messages.
const AT_ONCE: usize = 4;
/// Drills of which the last are looked through for one that a crash cut short.
const LOOKED_THROUGH: usize = 1_000;
/// Who asks for a drill if nobody does.
const SCHEDULE: &str = "schedule";

/// What of the plan drills go by; another one after a reload.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Every journey.
    pub journeys: Vec<Arc<Journey>>,
    /// Who is told instead of those that journeys name.
    pub routes: Vec<Route>,
    /// Notifiers that can bring what they told up to date.
    pub updatable: BTreeSet<Name>,
}

/// What drills work with.
#[derive(Clone)]
pub struct Props {
    /// Makes the runs; its channels are those that real runs have.
    pub runner: Arc<Runner>,
    /// Where drills and notices are kept.
    pub store: Arc<dyn Store>,
    /// Where notices go.
    pub outbox: Arc<Outbox>,
    /// Says whether something real is the matter.
    pub board: Arc<Board>,
    /// Where drills are counted.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
    /// Where we look from.
    pub location: Option<String>,
    /// The page of drills, if people can reach us.
    pub link: Option<String>,
}

/// Makes drills, one of a journey at a time.
pub struct Conductor {
    props: Props,
    scene: watch::Receiver<Arc<Scene>>,
    /// What the configuration says of drills; without it none is made.
    settings: watch::Receiver<Option<DrillSettings>>,
    asked: mpsc::Receiver<AskedDrill>,
    under_way: JoinSet<Name>,
    busy: BTreeSet<Name>,
    /// What the schedule wants and has not begun: one after the other.
    scheduled: VecDeque<Order>,
    next: Option<Timestamp>,
}

impl Conductor {
    /// Ends what a crash cut short, and takes up what was counted before.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn open(
        props: Props,
        scene: watch::Receiver<Arc<Scene>>,
        settings: watch::Receiver<Option<DrillSettings>>,
        asked: mpsc::Receiver<AskedDrill>,
    ) -> Result<Conductor, StoreError> {
        let now = props.clock.now().wall;
        let before = props.store.drills(None, LOOKED_THROUGH).await?;
        for record in &before {
            props.metrics.drilled(&record.journey);
        }
        for passed in before.iter().rev().filter(|record| record.verdict == Some(Verdict::Passed)) {
            props.metrics.drill_passed(&passed.journey, passed.ended.unwrap_or(passed.started));
        }
        let cut = before.into_iter().filter(|record| record.ended.is_none() || record.open.is_some());
        for mut record in cut {
            let why = "the daemon ended in the middle of it";
            tracing::info!(drill = record.id, journey = %record.journey, "a drill that the daemon did not outlive is ended");
            let owed = record.open.take().map(|open| props.endings(&open, &record.notifiers, why)).unwrap_or_default();
            if record.ended.is_none() {
                record.end(Verdict::Aborted, why.to_owned(), now);
            }
            props.store.apply(props.changes(&record, &owed)).await?;
        }
        let (under_way, busy, scheduled) = Default::default();
        let mut conductor = Conductor { props, scene, settings, asked, under_way, busy, scheduled, next: None };
        conductor.take_up_settings(now);
        Ok(conductor)
    }

    /// Goes by what the configuration says of drills now. Those under way go on as they began; what an earlier calendar still wanted is
    /// left out.
    fn take_up_settings(&mut self, now: Timestamp) {
        let settings = self.settings.borrow_and_update().clone();
        for name in settings.iter().flat_map(|settings| &settings.journeys) {
            self.props.metrics.drilled(name);
        }
        self.scheduled.clear();
        self.next = settings.and_then(|settings| settings.schedule?.next(now));
    }

    /// Makes drills until `stop`; those under way are then aborted, and told to be over.
    pub async fn run(mut self, pulse: Arc<Pulse>, stop: CancellationToken) {
        // What the last process owes is told now.
        self.props.outbox.wake();
        loop {
            let now = self.props.clock.now();
            pulse.beat(now.mono);
            self.keep_schedule(now.wall, &stop);
            let until = now.mono + BEAT.min(self.until_next(now.wall));
            let clock = self.props.clock;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.under_way.join_next() => self.forget(ended.ok()),
                Some(AskedDrill { order, answer }) = self.asked.recv() => {
                    let begun = self.begin(order, &stop).await;
                    // Whoever asked may be gone.
                    let _ = answer.send(begun);
                }
                Ok(()) = self.settings.changed() => self.take_up_settings(clock.now().wall),
                () = clock.sleep_until(until) => {}
            }
        }
        // Each hears of the stop by itself.
        while self.under_way.join_next().await.is_some() {}
    }

    fn until_next(&self, now: Timestamp) -> Duration {
        self.next.map_or(BEAT, |next| between(now, next).max(Duration::from_millis(50)))
    }

    /// A drill has ended; without a name it was a panic, and all that still run say who they are.
    fn forget(&mut self, ended: Option<Name>) {
        match ended {
            Some(name) => drop(self.busy.remove(&name)),
            None => tracing::error!("a drill panicked; its journey can be drilled again after a restart"),
        }
    }

    /// What is due by the calendar waits for its turn; occurrences that went by while nobody looked are not made up for.
    fn keep_schedule(&mut self, now: Timestamp, stop: &CancellationToken) {
        let settings = self.settings.borrow().clone().filter(|_| self.next.is_some_and(|next| next <= now));
        if let Some(settings) = settings {
            self.next = settings.schedule.as_ref().and_then(|calendar| calendar.next(now));
            let orders = settings.journeys.iter().flat_map(|journey| {
                settings.faults.iter().map(|fault| Order {
                    journey: journey.clone(),
                    fault: *fault,
                    within: settings.within,
                    by: SCHEDULE.to_owned(),
                })
            });
            // What was not made by now is made with what is due now.
            self.scheduled = orders.collect();
        }
        if !self.busy.is_empty() {
            return;
        }
        while let Some(order) = self.scheduled.pop_front() {
            match self.drive(order.clone()) {
                Ok(drive) => {
                    self.start(drive, stop);
                    return;
                }
                Err(why) => {
                    tracing::warn!(journey = %order.journey, fault = %order.fault, %why, "a scheduled drill was not begun")
                }
            }
        }
    }

    async fn begin(&mut self, order: Order, stop: &CancellationToken) -> Result<Record, DrillRefusal> {
        let drive = self.drive(order)?;
        let record = drive.record().clone();
        let kept = self.props.store.apply(self.props.changes(&record, &[])).await;
        kept.map_err(|error| DrillRefusal::Unavailable(error.to_string()))?;
        self.start(drive, stop);
        Ok(record)
    }

    fn start(&mut self, drive: Drive, stop: &CancellationToken) {
        let (name, stop) = (drive.record().journey.clone(), stop.clone());
        tracing::info!(drill = drive.record().id, journey = %name, fault = drive.record().fault, "a drill begins");
        self.busy.insert(name.clone());
        self.props.metrics.drilled(&name);
        self.under_way.spawn(async move {
            drive.run(stop).await;
            name
        });
    }

    /// A drill that can be made, or why it cannot.
    fn drive(&self, order: Order) -> Result<Drive, DrillRefusal> {
        let Some(settings) = self.settings.borrow().clone() else { return Err(DrillRefusal::Nowhere) };
        let scene = self.scene.borrow().clone();
        let name = &order.journey;
        let Some(journey) = scene.journeys.iter().find(|journey| journey.name == *name).cloned() else {
            return Err(DrillRefusal::Unknown(format!("no journey is named `{name}`")));
        };
        if self.busy.contains(name) {
            return Err(DrillRefusal::NotNow(format!("a drill of `{name}` is under way; it is shown on /drills")));
        }
        if self.busy.len() >= AT_ONCE {
            return Err(DrillRefusal::NotNow(format!("{AT_ONCE} drills are under way already; try again later")));
        }
        if let Some(incident) = drive::real_trouble(&self.props.board, name) {
            return Err(DrillRefusal::NotNow(incident));
        }
        suits(&journey, &order).map_err(DrillRefusal::Pointless)?;
        Drive::new(self.props.clone(), &settings, &scene, journey, order)
    }
}

/// Whether anything can come of a drill.
///
/// # Errors
/// Why not, and what to do.
fn suits(journey: &Journey, order: &Order) -> Result<(), String> {
    let name = &journey.name;
    if journey.muted {
        return Err(format!("`{name}` is muted: nobody would be told"));
    }
    if let Some(why) = &journey.unavailable {
        return Err(format!("`{name}` cannot be run by this build: {why}"));
    }
    if order.within > LONGEST {
        return Err("a drill is given an hour at most".to_owned());
    }
    let least = least(journey, order.fault);
    if order.within <= least {
        let told = |duration| Human(duration).to_string();
        return Err(format!(
            "`{}` of `{name}` shows only after {} (its deadline for each run that must fail, and what its `alert` waits), and {} were \
             granted: say a longer `within`",
            order.fault,
            told(least),
            told(order.within)
        ));
    }
    Ok(())
}

/// The least time in which this fault can be detected.
fn least(journey: &Journey, fault: Fault) -> Duration {
    let policy = &journey.alert;
    // What never comes is known to be missing at the deadline.
    let run = if fault == Fault::Drop && !journey.receivers().is_empty() { journey.deadline } else { Duration::ZERO };
    let by_confirmation = run * (policy.confirm.len() as u32 + 1) + policy.confirm.iter().sum::<Duration>();
    let by_count = run * policy.down_after;
    // Slots come again only after their confirmations.
    if policy.confirm.is_empty() || policy.down_after <= 1 { by_count } else { by_confirmation }
}

impl Props {
    /// What is written of a drill, with what is owed.
    fn changes(&self, record: &Record, owed: &[OutboxRow]) -> Vec<Change> {
        let rows = owed.iter().map(|row| Change::Owe { row: Box::new(row.clone()) });
        std::iter::once(Change::Drill { record: Box::new(record.clone()) }).chain(rows).collect()
    }

    /// That it is over, for everybody who was told that it began.
    fn endings(&self, open: &Notification, notifiers: &[Name], why: &str) -> Vec<OutboxRow> {
        let now = self.clock.now().wall;
        let ending = notice::ending(open, why, self.runner.mint.issue(now), now);
        notifiers.iter().map(|notifier| owed(notifier, &ending, now)).collect()
    }
}

/// A notice of a drill, owed to one notifier.
fn owed(notifier: &Name, notification: &Notification, now: Timestamp) -> OutboxRow {
    let incident = &notification.incident;
    OutboxRow {
        id: delivery_id(&incident.id, incident.sequence, notifier),
        incident: incident.id.clone(),
        sequence: incident.sequence,
        notifier: notifier.clone(),
        instead_of: None,
        created: now,
        notification: notification.clone(),
        state: OutboxState::pending(now),
    }
}

/// Until when a token is of interest.
fn keep_until(now: Timestamp, within: Duration) -> Timestamp {
    later(now, within * 3)
}
