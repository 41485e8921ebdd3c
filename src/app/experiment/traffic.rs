//! The traffic: each message is a run of the real engine, which waits for it until the experiment is over; and the account hears of
//! every send, every arrival and every end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::channel::Readiness;
use crate::clock::Clock;
use crate::experiment::account::{Account, Answer, Stream, Verdict};
use crate::experiment::pace::Pace;
use crate::journey::message::Arrival;
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::run::{Sight, wanted_copies};
use crate::journey::{Journey, Step, Verb};
use crate::ledger::Kind;
use crate::runner::open::{OWN_LIMIT, OpenChannel};
use crate::runner::{Ends, Order, Runner};
use crate::time::Mono;

/// A run has this much longer than the experiment can take: it is ended with the experiment, never by itself.
const SPARE: Duration = Duration::from_secs(86_400);

/// The account, shared by those who tell it something. No lock of it is held while anything waits.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Account>>);

impl Shared {
    pub(super) fn new(journey: &Journey) -> Shared {
        Shared(Arc::new(Mutex::new(Account::new(streams(journey), journey.deadline))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the journey receives, and how many copies in all.
fn streams(journey: &Journey) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for step in &journey.steps {
        let Verb::Receive(receive) = &step.verb else { continue };
        let copies = wanted_copies(step);
        match streams.iter_mut().find(|stream| stream.channel == receive.channel) {
            Some(stream) => stream.wanted += copies,
            None => streams.push(Stream { channel: receive.channel.clone(), wanted: copies }),
        }
    }
    streams
}

/// The step whose beginning is the beginning of the message: the send that the first receive belongs to, or the first that asks.
fn first_send(journey: &Journey) -> usize {
    let since = journey.steps.iter().find_map(|step| match &step.verb {
        Verb::Receive(receive) => Some(receive.since),
        _ => None,
    });
    since.or_else(|| journey.steps.iter().position(|step| step.verb.act().is_some())).unwrap_or(0)
}

/// The journey as an experiment runs it: nothing gives a message up but the end of the drain.
fn patient(journey: &Journey, longest: Duration) -> Journey {
    let deadline = longest.saturating_add(SPARE);
    let is_receive = |step: &Step| matches!(step.verb, Verb::Receive(_));
    let mut patient =
        Journey { deadline, late: Duration::ZERO, budget: None, maintenance: Vec::new(), ..journey.clone() };
    for step in patient.steps.iter_mut().filter(|step| is_receive(step)) {
        (step.timeout, step.budget) = (None, None);
    }
    patient
}

/// Sends messages and tells the account of them.
pub(super) struct Traffic {
    runner: Arc<Runner>,
    journey: Arc<Journey>,
    send: usize,
    /// What is late, where the next message waits for the one before.
    deadline: Duration,
    account: Shared,
    clock: Clock,
}

impl Traffic {
    pub(super) fn new(
        runner: Arc<Runner>,
        journey: &Journey,
        longest: Duration,
        account: Shared,
        clock: Clock,
    ) -> Traffic {
        let (send, deadline) = (first_send(journey), journey.deadline);
        Traffic { runner, journey: Arc::new(patient(journey, longest)), send, deadline, account, clock }
    }

    /// Sends from now on, at this pace, until `stop`; the runs go on until `cut`.
    pub(super) async fn flow(self: Arc<Self>, pace: Option<Pace>, stop: CancellationToken, cut: CancellationToken) {
        let mut runs = JoinSet::new();
        let began = self.clock.now().mono;
        for number in 0.. {
            let due = match pace {
                Some(pace) => began + pace.due(number),
                None => self.clock.now().mono,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = reap(&mut runs, self.clock, due) => {}
            }
            let order = self.runner.order(self.journey.clone(), self.clock.now().wall);
            let number = self.account.lock().begin(order.token, due);
            runs.spawn(self.clone().carry(order, number, cut.clone()));
            if pace.is_none() {
                // One that is late does not stop the others.
                let late = self.clock.now().mono + self.deadline;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.clock.sleep_until(late) => {}
                    _ = runs.join_next() => {}
                }
            }
        }
        while runs.join_next().await.is_some() {}
    }

    /// One message, to its end.
    async fn carry(self: Arc<Self>, order: Order, number: usize, cut: CancellationToken) {
        let seen = |sight: Sight| self.see(number, &sight);
        let report = self.runner.watched(order, Ends { cut: &cut, leave: None }, &seen).await;
        if let Some(report) = report {
            self.end(number, &report);
        }
    }

    fn see(&self, number: usize, sight: &Sight) {
        let Some(sent) = sight.sends.iter().find(|sent| sent.step == self.send) else { return };
        let mut account = self.account.lock();
        account.sending(number, sent.started);
        let Some(step) = sight.steps.get(self.send) else { return };
        if step.status != StepStatus::Skipped {
            account.answered(number, answer(step.status, sent.uncertain), sent.started + step.took);
        }
    }

    fn end(&self, number: usize, report: &Report) {
        let now = self.clock.now().mono;
        let mut account = self.account.lock();
        let steps = &report.steps;
        let send = steps.get(self.send);
        let took = send.map_or(Duration::ZERO, |send| send.took);
        let reached = |step: &&StepReport| step.status != StepStatus::Skipped;
        let (has_sent, has_failed) = (send.filter(reached).is_some(), send.is_some_and(failed));
        match &report.outcome {
            Outcome::Good { .. } | Outcome::Slow { .. } => {
                // The last of its receives is what made it whole.
                let receives = self.journey.steps.iter().zip(steps).filter_map(|(step, told)| match &step.verb {
                    Verb::Receive(receive) if receive.since == self.send => Some(told.took),
                    _ => None,
                });
                let (started, at) = match (account.entries()[number].here(), receives.max()) {
                    (Some(here), Some(longest)) => (here - longest, here),
                    (None, Some(longest)) => {
                        let started = account.entries()[number].started.unwrap_or(now - longest);
                        (started, started + longest)
                    }
                    (_, None) => (now - took, now),
                };
                account.sending(number, started);
                account.answered(number, Answer::Accepted, started + took);
                account.ended(number, Verdict::Right, at);
            }
            // Nobody but us kept it back.
            Outcome::Failed { .. } if has_failed && send.is_some_and(is_held_back) => {
                account.ended(number, Verdict::NotSent(report.verdict_line()), now);
            }
            Outcome::Failed { cause: Cause::Blocked, .. } if !has_sent || has_failed => {
                account.ended(number, Verdict::NotSent(report.verdict_line()), now);
            }
            Outcome::Failed { cause, .. } if !has_sent || has_failed => {
                account.sending(number, now - took);
                let answer = if *cause == Cause::Uncertain { Answer::Uncertain } else { Answer::Refused };
                account.answered(number, answer, now);
                account.ended(number, Verdict::Refused(report.verdict_line()), now);
            }
            Outcome::Failed { cause, .. } => account.ended(number, Verdict::Wrong(cause.to_string()), now),
            Outcome::Unknown { .. } | Outcome::Excluded { .. } if !has_sent => {
                let why = report.note.clone().unwrap_or_else(|| report.verdict_line());
                account.ended(number, Verdict::NotSent(why), now);
            }
            // It was cut short with the experiment: its arrivals say what became of it.
            Outcome::Unknown { .. } | Outcome::Excluded { .. } => {}
        }
    }
}

fn is_held_back(step: &StepReport) -> bool {
    step.detail.as_deref().is_some_and(|detail| detail.starts_with(OWN_LIMIT))
}

fn failed(step: &StepReport) -> bool {
    step.status == StepStatus::Failed
}

fn answer(status: StepStatus, uncertain: bool) -> Answer {
    match status {
        _ if uncertain => Answer::Uncertain,
        StepStatus::Failed => Answer::Refused,
        StepStatus::Passed | StepStatus::Slow | StepStatus::Warned | StepStatus::Skipped => Answer::Accepted,
    }
}

/// Waits until `due`, and lets go of runs that end meanwhile.
async fn reap(runs: &mut JoinSet<()>, clock: Clock, due: Mono) {
    loop {
        tokio::select! {
            biased;
            () = clock.sleep_until(due) => return,
            Some(_) = runs.join_next() => {}
        }
    }
}

/// Hands arrivals to the runs that wait for them, and tells the account of each, to the last copy.
pub(super) async fn count_arrivals(
    runner: Arc<Runner>,
    account: Shared,
    mut arrivals: mpsc::Receiver<Arrival>,
    last: Arc<Mutex<Mono>>,
    stop: CancellationToken,
) {
    let mut has_readers = true;
    loop {
        let arrival = tokio::select! {
            biased;
            arrival = arrivals.recv(), if has_readers => arrival,
            // Readers have stopped by now; what they left was taken first.
            () = stop.cancelled() => return,
        };
        let Some(arrival) = arrival else {
            has_readers = false;
            continue;
        };
        let (channel, at, part, lane) =
            (arrival.channel.clone(), arrival.at.mono, arrival.message.part, lane(&arrival));
        // Held over both, so that no run ends before its arrival is in the account.
        let mut account = account.lock();
        let sighting = runner.switchboard.arrive(arrival);
        match (sighting.kind, sighting.token) {
            (Kind::Expected | Kind::Late | Kind::Duplicate, Some(token)) => {
                account.arrived(&channel, token, part, lane, at);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = at;
            }
            (Kind::Orphan | Kind::Foreign | Kind::Forged, Some(token)) => {
                account.arrived(&channel, token, part, lane, at)
            }
            // Nobody's, or with a key that nobody knows yet: its run says so when it has taken it.
            _ => {}
        }
    }
}

/// What tells partitions apart, where the system has them: only within one is there an order.
fn lane(arrival: &Arrival) -> i64 {
    arrival.message.header("kafka-partition").and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Tells the account when a receiver is away and what comes meanwhile is not kept for it.
pub(super) async fn watch_receiver(open: Arc<OpenChannel>, account: Shared, clock: Clock, stop: CancellationToken) {
    let mut readiness = open.readiness.clone();
    loop {
        let is_ready = *readiness.borrow_and_update() == Readiness::Ready;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = readiness.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        if is_ready && !open.channel.keeps() {
            account.lock().blind(clock.now().mono);
        }
    }
}
