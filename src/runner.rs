//! The runner: drives one [`Run`] over its channels until it has an outcome. It performs what the run asks for, and decides nothing.

pub mod gate;
mod hint;
pub mod mailbox;
pub mod open;
mod pace;
pub mod resume;
pub mod spare;
pub mod switchboard;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::channel::Readiness;
use crate::channel::awaited::Waiting;
use crate::channel::seen::Notes;
use crate::clock::Clock;
use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy};
use crate::journey::report::Report;
use crate::journey::run::checkpoint::{Checkpoint, Purpose};
use crate::journey::run::{Action, Event, Fault, Reply, Run, Sight};
use crate::journey::spend::Spent;
use crate::journey::token::{Mint, Token};
use crate::journey::{Act, Journey, Name};
use crate::ledger::{Entry, Settled};
use crate::observer::Observer;
use crate::runner::gate::{Caller, Gate};
use crate::runner::mailbox::{Mailbox, Sieve};
use crate::runner::open::{Channels, OpenChannel, Opened};
use crate::runner::resume::{KEPT_FOR, Left};
use crate::runner::spare::Spare;
use crate::runner::switchboard::Switchboard;
use crate::secret::Redactor;
use crate::store::{Change, Store};
use crate::time::{Mono, Now, between, later};

/// How long a run waits for its receivers to be ready. Longer is an outage of the receiver, which is `unknown`, not `failed`.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// What every run needs.
pub struct Runner {
    /// Every channel of the plan. A run goes on with those that were there when it began.
    pub channels: Channels,
    /// Matches arrivals with runs.
    pub switchboard: Arc<Switchboard>,
    /// Where tokens are made durable before a send.
    pub store: Arc<dyn Store>,
    /// The process's clock.
    pub clock: Clock,
    /// Issues tokens.
    pub mint: Arc<Mint>,
    /// Takes secrets out of evidence.
    pub redactor: Redactor,
    /// Knows whether our own network is down, where references are configured.
    pub observer: Option<Arc<Observer>>,
    /// Stands between the switchboard and these runs; nothing does but in a rehearsal.
    pub sieve: Option<Arc<dyn Sieve>>,
    /// Where tokens are made durable while a shared store is out of reach; nothing beside a file.
    pub spare: Option<Spare>,
}

/// A run that is to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// What it is known by.
    pub token: Token,
    /// What it runs.
    pub journey: Arc<Journey>,
    /// For which slot.
    pub slot: Timestamp,
    /// What for.
    pub purpose: Purpose,
    /// What it may spend. It is on disk before anything is sent, so that no crash makes it forgotten.
    pub spent: Vec<Spent>,
    /// Only connections that were made since will do: one that is broken and looks whole must not confirm its own failure.
    pub connected_since: Option<Mono>,
}

/// What ends a run from outside.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// It is cut short, and is `unknown`.
    pub cut: &'a CancellationToken,
    /// From then on a run that only waits is left to the next process.
    pub leave: Option<&'a CancellationToken>,
}

impl Runner {
    /// A run of a slot, with a token of its own.
    pub fn order(&self, journey: Arc<Journey>, slot: Timestamp) -> Order {
        let token = self.mint.issue(self.clock.now().wall);
        Order { token, journey, slot, purpose: Purpose::Slot, spent: Vec::new(), connected_since: None }
    }

    /// Makes a run. `None` if it is left to the next process.
    pub fn run<'a>(&'a self, order: Order, ends: Ends<'a>) -> impl Future<Output = Option<Report>> + Send + 'a {
        self.drive(Box::pin(self.begin(order)), ends, None)
    }

    /// As [`Runner::run`]; `seen` is told how far it is, after everything that happens to it.
    pub fn watched<'a>(
        &'a self,
        order: Order,
        ends: Ends<'a>,
        seen: &'a (dyn Fn(Sight) + Sync),
    ) -> impl Future<Output = Option<Report>> + Send + 'a {
        self.drive(Box::pin(self.begin(order)), ends, Some(seen))
    }

    /// Goes on with a run of another process. `None` if it is left to the next.
    pub fn resume<'a>(&'a self, left: Left, ends: Ends<'a>) -> impl Future<Output = Option<Report>> + Send + 'a {
        self.drive(Box::pin(async move { self.wake(left) }), ends, None)
    }

    /// Thousands of runs wait at once, and most of a run's life is waiting for its message. What it takes to get there, here and
    /// in [`Drive::take`], is boxed, and gone by then.
    async fn drive<'a>(
        &'a self,
        begun: BoxFuture<'a, Result<Drive<'a>, Box<Report>>>,
        ends: Ends<'a>,
        seen: Option<&'a (dyn Fn(Sight) + Sync)>,
    ) -> Option<Report> {
        let mut drive = match begun.await {
            Ok(drive) => drive,
            Err(report) => return Some(*report),
        };
        let mut happened = (Event::Begin, None);
        loop {
            if let Some(report) = drive.take(happened, ends.cut).await {
                let report = self.end(*report, drive.run.journey());
                return Some(Box::pin(self.doubt(report, ends.cut)).await);
            }
            if let Some(seen) = seen {
                seen(drive.run.sight());
            }
            happened = drive.next(ends).await?;
        }
    }

    /// A run that nothing keeps from beginning, or the report of why it cannot.
    async fn begin(&self, order: Order) -> Result<Drive<'_>, Box<Report>> {
        let now = self.clock.now();
        let Order { token, journey, slot, purpose, spent, connected_since } = order;
        if let Some(why) = &journey.unavailable {
            return Err(Box::new(not_run(&journey, token, slot, now, UnknownWhy::Unavailable, why)));
        }
        if !spent.is_empty()
            && let Err(error) = self.write(spent.into_iter().map(|spent| Change::Spend { spent }).collect()).await
        {
            let why = format!("what it would spend could not be stored, so nothing was sent: {error}");
            return Err(Box::new(not_run(&journey, token, slot, now, UnknownWhy::Storage, &why)));
        }
        let run = Run::new(journey, token, slot, now, token.bits() as u64);
        Ok(Drive { connected_since, ..Drive::new(self, run, purpose, Arc::default()) })
    }

    /// A run that somebody can go on with, or the report of why nobody can.
    fn wake(&self, left: Left) -> Result<Drive<'_>, Box<Report>> {
        let now = self.clock.now();
        let Left { journey, checkpoint, mailbox, alive } = left;
        let Checkpoint { token, slot, .. } = checkpoint;
        if let Some(why) = &journey.unavailable {
            return Err(Box::new(not_run(&journey, token, slot, now, UnknownWhy::Unavailable, why)));
        }
        if !checkpoint.fits(&journey) {
            let why = "the daemon was restarted while it waited, with another definition of the journey";
            return Err(Box::new(not_run(&journey, token, slot, now, UnknownWhy::Restart, why)));
        }
        let purpose = checkpoint.purpose.clone();
        let mut run = Run::resume(journey, checkpoint, alive, now, !token.bits() as u64);
        let channels = self.channels.now();
        for channel in run.journey().receivers() {
            let looks_back = channels.get(&channel).is_some_and(|channel| channel.channel.looks_back());
            if !looks_back || between(alive, now.wall) > KEPT_FOR {
                let (fault, why) = (UnknownWhy::Restart, "the daemon was restarted".to_owned());
                // It has not begun: there is nothing to do about it yet.
                let _ = run.step(Event::Gap { channel, fault, why }, now);
            }
        }
        Ok(Drive { is_safe: true, ..Drive::new(self, run, purpose, mailbox) })
    }

    /// Until when a run of this journey is put off, because a channel that it needs has only just become well again.
    pub fn put_off(&self, journey: &Journey) -> Option<Mono> {
        let channels = self.channels.now();
        journey.steps.iter().filter_map(|step| channels.get(step.verb.channel()?)?.gate()?.put_off(journey)).max()
    }

    fn end(&self, mut report: Report, journey: &Journey) -> Report {
        let has_arrived = matches!(report.outcome, Outcome::Good { .. } | Outcome::Slow { .. });
        self.switchboard.settle(report.token, if has_arrived { Settled::Arrived } else { Settled::Missing });
        if journey.is_excluded(report.slot) {
            report.note = Some(format!("in maintenance; it was: {}", report.verdict_line()));
            report.beneath = Some(report.outcome.verdict());
            report.outcome = Outcome::Excluded { why: ExcludedWhy::Maintenance };
        }
        report.redact(|text| self.redactor.redact(text));
        report
    }

    /// A run that failed as it would have by our own network is looked at again, if that can be told.
    async fn doubt(&self, mut report: Report, stop: &CancellationToken) -> Report {
        if let Some(observer) = &self.observer {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = observer.judge(&mut report) => {}
            }
        }
        report
    }

    /// Waits until every receiver is ready; from then on, each of `watched` tells whether it was away.
    async fn await_ready(
        &self,
        channels: &Opened,
        names: &[Name],
        watched: &mut Vec<Watched>,
        caller: &Caller,
    ) -> Event {
        let until = self.clock.now().mono + READY_WITHIN;
        for name in names {
            let Some(channel) = channels.get(name) else {
                return not_ready(name, "it is not open".to_owned(), false);
            };
            let mut readiness = channel.readiness.clone();
            if let (false, Some(gate)) = (*readiness.borrow() == Readiness::Ready, channel.gate()) {
                match blocked(channel, gate, caller) {
                    Some(why) => return not_ready(name, why, true),
                    None => channel.nudge().notify_one(),
                }
            }
            tokio::select! {
                biased;
                is_ready = channel.ready(&mut readiness) => if !is_ready {
                    return not_ready(name, "its reader has ended".to_owned(), false);
                },
                () = self.clock.sleep_until(until) => {
                    let why = match &*channel.readiness.borrow() {
                        Readiness::Down { why } => why.clone(),
                        Readiness::Starting | Readiness::Ready => "it is still starting".to_owned(),
                    };
                    return not_ready(name, why, channel.is_known_down());
                }
            }
            let _waiting = channel.awaits().begin(self.clock.now().mono);
            watched.push(Watched { channel: channel.clone(), readiness, _waiting });
        }
        Event::Ready
    }

    /// The token is known to the switchboard first, so that no arrival can be quicker, and on disk before anything is sent.
    async fn record(&self, run: &Run, purpose: Purpose, mailbox: Arc<Mailbox>) -> Event {
        let (journey, token) = (run.journey(), run.token());
        let now = self.clock.now();
        let keep_until = later(now.wall, journey.deadline + journey.late);
        let entry =
            Entry { journey: journey.name.clone(), slot: run.slot(), recorded: now.wall, keep_until, settled: None };
        let inbox = match &self.sieve {
            Some(sieve) => Arc::new(Mailbox::behind(sieve.clone(), mailbox)),
            None => mailbox,
        };
        self.switchboard.expect(token, entry.clone(), inbox);
        let begun = run.checkpoint(purpose, now).map(|checkpoint| Change::Begun { checkpoint: Box::new(checkpoint) });
        match self.write([Change::Expect { token, entry }].into_iter().chain(begun).collect()).await {
            Ok(()) => Event::Recorded,
            Err(error) => Event::NotRecorded { why: error.to_string() },
        }
    }

    /// Whether what somebody would need to go on with the run is on disk.
    fn keep(&self, run: &Run, purpose: &Purpose) -> Option<BoxFuture<'_, bool>> {
        let checkpoint = run.checkpoint(purpose.clone(), self.clock.now())?;
        let checkpoint = Box::new(checkpoint.redacted(|text| self.redactor.redact(text))?);
        let kept = self.write(vec![Change::Waits { checkpoint }]);
        // That the store takes nothing is told by others.
        Some(Box::pin(kept.map(|kept| kept.is_ok())))
    }
}

/// Why a run need not wait for a receiver that is away: that is known, and others try.
fn blocked(channel: &OpenChannel, gate: &Gate, caller: &Caller) -> Option<String> {
    let refusal = gate.refusal();
    if refusal.is_none() && !channel.is_known_down() || gate.must_try(caller) {
        return None;
    }
    let down = || match &*channel.readiness.borrow() {
        Readiness::Down { why } => why.clone(),
        Readiness::Starting | Readiness::Ready => "it begins anew".to_owned(),
    };
    Some(refusal.unwrap_or_else(down))
}

async fn unless_stopped(stop: &CancellationToken, event: impl Future<Output = Event>) -> Event {
    tokio::select! {
        biased;
        () = stop.cancelled() => Event::Cancelled,
        event = event => event,
    }
}

fn not_ready(channel: &Name, why: String, is_known_down: bool) -> Event {
    Event::NotReady { channel: channel.clone(), why, is_known_down }
}

/// A report for a slot whose run could not begin.
pub fn not_run(journey: &Journey, token: Token, slot: Timestamp, now: Now, why: UnknownWhy, note: &str) -> Report {
    Report {
        journey: journey.name.clone(),
        token,
        slot,
        started: now.wall,
        outcome: Outcome::Unknown { why },
        latency: Duration::ZERO,
        lateness: crate::time::between(slot, now.wall),
        steps: Vec::new(),
        beneath: None,
        note: Some(note.to_owned()),
        configuration: journey.fingerprint.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A receiver, watched since it was ready.
struct Watched {
    channel: Arc<OpenChannel>,
    readiness: watch::Receiver<Readiness>,
    /// The reader knows that something is to come.
    _waiting: Waiting,
}

impl Watched {
    /// That it was away since, if what came meanwhile may have passed unseen.
    fn gap(&self) -> Option<Event> {
        if !self.readiness.has_changed().unwrap_or(true) {
            return None;
        }
        let why = match &*self.readiness.borrow() {
            Readiness::Down { why } => why.clone(),
            Readiness::Starting => "it began anew".to_owned(),
            Readiness::Ready if self.channel.channel.keeps() => return None,
            Readiness::Ready => {
                "its connection was lost and made anew, and nothing is kept for it meanwhile".to_owned()
            }
        };
        Some(Event::Gap { channel: self.channel.name.clone(), fault: UnknownWhy::NotReady, why })
    }
}

/// A call under way, and what it met so far.
struct InHand<'a> {
    channel: Name,
    notes: Notes,
    answer: BoxFuture<'a, Result<Reply, Fault>>,
}

impl InHand<'_> {
    fn met(&self) -> Event {
        Event::Met { channel: self.channel.clone(), seen: self.notes.seen() }
    }
}

/// One run under way.
struct Drive<'a> {
    runner: &'a Runner,
    channels: Arc<Opened>,
    run: Run,
    mailbox: Arc<Mailbox>,
    purpose: Purpose,
    in_hand: Option<InHand<'a>>,
    receivers: Vec<Watched>,
    /// What it would take to go on is on its way to the disk.
    saving: Option<BoxFuture<'a, bool>>,
    /// It is there.
    is_safe: bool,
    connected_since: Option<Mono>,
}

impl<'a> Drive<'a> {
    fn new(runner: &'a Runner, run: Run, purpose: Purpose, mailbox: Arc<Mailbox>) -> Drive<'a> {
        Drive {
            runner,
            channels: runner.channels.now(),
            run,
            mailbox,
            purpose,
            in_hand: None,
            receivers: Vec::new(),
            saving: None,
            is_safe: false,
            connected_since: None,
        }
    }

    /// Gives the run what happened and does what it asks for, until it only waits, or has its report.
    fn take<'b>(
        &'b mut self,
        (event, met): (Event, Option<Event>),
        stop: &'b CancellationToken,
    ) -> BoxFuture<'b, Option<Box<Report>>> {
        Box::pin(async move {
            let mut actions = VecDeque::new();
            if let Some(met) = met {
                actions.extend(self.run.step(met, self.runner.clock.now()));
            }
            if matches!(event, Event::Timer) {
                for gap in self.receivers.iter().filter_map(Watched::gap) {
                    actions.extend(self.run.step(gap, self.runner.clock.now()));
                }
            }
            actions.extend(self.run.step(event, self.runner.clock.now()));
            while let Some(action) = actions.pop_front() {
                let event = match action {
                    Action::Finish(report) => return Some(report),
                    Action::AwaitReady(names) => {
                        self.receivers.reserve_exact(names.len());
                        let caller = self.caller();
                        let ready = self.runner.await_ready(&self.channels, &names, &mut self.receivers, &caller);
                        let ready = unless_stopped(stop, ready).await;
                        for channel in names.iter().filter_map(|name| self.channels.get(name)) {
                            let (channel, seen) = (channel.name.clone(), channel.reading().seen());
                            actions.extend(self.run.step(Event::Met { channel, seen }, self.runner.clock.now()));
                        }
                        Some(ready)
                    }
                    Action::Record => {
                        let record = self.runner.record(&self.run, self.purpose.clone(), self.mailbox.clone());
                        Some(unless_stopped(stop, record).await)
                    }
                    Action::Perform { channel, mut outgoing, act } => {
                        outgoing.connected_since = self.connected_since;
                        let notes = Notes::default();
                        let answer = self.perform(&channel, *outgoing, act, notes.clone());
                        self.in_hand = Some(InHand { channel, notes, answer });
                        None
                    }
                    Action::Abandon => {
                        self.in_hand = None;
                        None
                    }
                    Action::Keep => {
                        self.is_safe = false;
                        self.saving = self.runner.keep(&self.run, &self.purpose);
                        None
                    }
                    Action::Expect { channel, key } => {
                        self.runner.switchboard.expect_key(&channel, key, self.run.token());
                        None
                    }
                };
                if let Some(event) = event {
                    actions.extend(self.run.step(event, self.runner.clock.now()));
                }
            }
            None
        })
    }

    /// What happens next; `None` if it is left to the next process. Arrivals come first: one that was here in time must not lose
    /// to the timer that says it was not. What the call in hand has met goes before what may end it.
    async fn next(&mut self, ends: Ends<'_>) -> Option<(Event, Option<Event>)> {
        loop {
            let leave = ends.leave.filter(|leave| !leave.is_cancelled());
            let is_to_leave = ends.leave.is_some() && leave.is_none() && self.run.is_waiting();
            if is_to_leave && self.is_safe && self.mailbox.is_empty() {
                return None;
            }
            let timer = OptionFuture::from(self.run.deadline().map(|at| self.runner.clock.sleep_until(at)));
            let in_hand = OptionFuture::from(self.in_hand.as_mut().map(|call| &mut call.answer));
            let event = tokio::select! {
                biased;
                // There is no hurry but to look again whether it waits.
                () = leave.unwrap_or(ends.cut).cancelled() => match leave {
                    Some(_) => continue,
                    None => Event::Cancelled,
                },
                event = self.mailbox.next() => return Some((event, None)),
                Some(answer) = in_hand => Event::Answered(Box::new(answer)),
                Some(is_safe) = OptionFuture::from(self.saving.as_mut()) => {
                    (self.saving, self.is_safe) = (None, is_safe);
                    continue;
                }
                Some(()) = timer => Event::Timer,
            };
            let met = self.in_hand.as_ref().map(InHand::met);
            if matches!(event, Event::Answered(_)) {
                self.in_hand = None;
            }
            return Some((event, met));
        }
    }

    fn caller(&self) -> Caller {
        Caller { journey: self.run.journey().name.clone(), run: self.run.token() }
    }

    fn perform<'b>(
        &self,
        channel: &Name,
        outgoing: crate::journey::Outgoing,
        act: Act,
        notes: Notes,
    ) -> BoxFuture<'b, Result<Reply, Fault>> {
        match self.channels.get(channel) {
            Some(channel) => {
                let (channel, caller) = (channel.clone(), self.caller());
                Box::pin(async move { notes.over(channel.perform(&outgoing, act, &caller)).await })
            }
            None => {
                let now = self.runner.clock.now();
                let detail = format!("channel `{channel}` is not open");
                Box::pin(std::future::ready(Err(Fault {
                    started: now,
                    finished: now,
                    cause: Cause::Blocked,
                    detail,
                    uncertain: false,
                    phases: Vec::new(),
                })))
            }
        }
    }
}
