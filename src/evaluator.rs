//! The evaluator: sole owner of objective and alert state. Observations in, one transaction and a fresh board out.
//!
//! What it decides is decided by [`crate::slo`] and [`crate::alert`]; here is only who is asked, what is written, and in which
//! order: decide, commit, then metrics, board and delivery. Nobody is told what is not on disk - unless the disk is what is
//! broken: then people are told at once, and what could not be written is kept and written later.

mod adopt;
mod channels;
mod handover;
mod notices;
mod show;
mod storing;
mod tail;
mod together;
mod watched;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::alert::{AlertState, Look, Phase, Subject};
use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::commands::{Command, Levers, Refusal, Request, Which};
use crate::control::{AskedRun, Route};
use crate::delivery::Outbox;
use crate::detect::drift::Measured;
use crate::detect::{Detector, Finding, Severity};
pub use crate::evaluator::adopt::Adoption;
use crate::evaluator::channels::Channels;
pub use crate::evaluator::handover::Handover;
use crate::evaluator::storing::RETRY_STORE;
pub use crate::evaluator::storing::unsaid;
use crate::evaluator::together::Together;
use crate::evaluator::watched::{Watched, say_phase};
use crate::incident::root::{Resource, ResourceKind};
use crate::incident::{Desk, Incident, Profile};
use crate::journey::outcome::{Outcome, UnknownWhy};
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::journey::{Dependency, Journey, Name, own};
use crate::judge;
use crate::metrics::{DaemonMetrics, Metrics};
use crate::observer::Observer;
use crate::scheduler::{Observation, Wish};
use crate::slo::SpanChange;
use crate::store::spool::Spool;
use crate::store::{Change, OutboxRow, SavedJourney, Store, StoreError};
use crate::time::{Human, Mono, Now, between};

/// Observations that are decided and committed together at most.
const TOGETHER: usize = 1_024;
/// What is well waits this long for company: a commit, and all that follows a decision, costs about the same for one run as for
/// fifty. Whoever watches hundreds of journeys pays for it once instead of for each; and what a crash takes is no more than that.
const GATHER: Duration = Duration::from_millis(100);
/// What is wrong with channels or with us is told again this often: what somebody has to get up for, and what is for the day.
const REMIND_OF_US: Duration = Duration::from_secs(4 * 3_600);
const REMIND_OF_WARNING: Duration = Duration::from_secs(86_400);
/// People are told of a time in which nothing ran, if it was this long: an upgrade is shorter.
const TELL_BLIND: Duration = Duration::from_secs(300);
/// Parts of the daemon of which a start may have something to tell.
const BLIND: &str = "blind";
const STORAGE: &str = "storage";
/// The links in a notice that do something are good for so long.
const LINKS_FOR: Duration = Duration::from_secs(86_400);

/// What the evaluator works with.
pub struct Parts {
    /// Where state is kept.
    pub store: Arc<dyn Store>,
    /// The registry.
    pub metrics: Arc<Metrics>,
    /// The daemon's own handles.
    pub daemon: Arc<DaemonMetrics>,
    /// What people see.
    pub board: Arc<Board>,
    /// Where notices go.
    pub outbox: Arc<Outbox>,
    /// The process's clock.
    pub clock: Clock,
    /// Where a run that somebody asks for is asked for.
    pub wishes: mpsc::Sender<Wish>,
    /// Where we look from.
    pub location: Option<String>,
    /// How people reach the pages.
    pub public_url: Option<url::Url>,
    /// Journeys may be without verdicts for so long beyond what is usual before they are stale: another daemon that runs some of
    /// them is followed by somebody within that. Zero where there is none.
    pub takeover: Duration,
    /// Slots whose runs go on from the process before: they are no missed ones.
    pub waiting: HashMap<Name, Vec<Timestamp>>,
    /// Beats with every slot of the monitor's own journey, if there is one.
    pub own: Option<Arc<Pulse>>,
    /// Holds runs back that may have failed by our own network, if it can be told.
    pub observer: Option<Arc<Observer>>,
    /// Where people's orders to breakers go.
    pub levers: Arc<Levers>,
    /// What the plan says.
    pub policy: Policy,
    /// Why people are told although another daemon decides; nothing where that is as it should be.
    pub alone: Option<Alone>,
    /// What goes on in place of the store once that is another daemon's.
    pub spare: Option<Arc<dyn Store>>,
    /// Where runs are kept that the store does not take, for the process after this one.
    pub spool: Option<Spool>,
}

/// A daemon that decides for itself because it cannot ask whoever decides.
pub struct Alone {
    /// No other daemon has this name: its incidents are no other's.
    pub name: String,
    /// Who tells and why, in a line of each notice.
    pub said: String,
}

/// What of a plan the evaluator goes by, beside the journeys.
pub struct Policy {
    /// What others promise of the systems that journeys depend on.
    pub dependencies: BTreeMap<Name, Dependency>,
    /// How many times rarer than by its schedule each journey runs, because of what its messages cost; 1 where that is nothing.
    pub slowdowns: HashMap<Name, f64>,
    /// How long before its end people are told of a channel's certificate; of one without an entry, never.
    pub certificate_warnings: BTreeMap<Name, Duration>,
    /// Channels whose breaker refuses calls while it is open.
    pub breakers: BTreeSet<Name>,
    /// Who is told instead of those that journeys name.
    pub routes: Vec<Route>,
    /// Notifiers that can bring what they told up to date.
    pub updatable: BTreeSet<Name>,
    /// Who is told of channels and of the daemon itself.
    pub operators: Vec<Name>,
    /// Every notifier.
    pub notifiers: Vec<Name>,
    /// What makes failing journeys members of one incident.
    pub group_by: Vec<ResourceKind>,
    /// More incidents than these within a minute are told in one message.
    pub digest_after: usize,
}

/// Owns every journey's state.
pub struct Evaluator {
    parts: Parts,
    /// The installation's key, which signs links.
    key: [u8; 32],
    /// Each in a place of its own: a table that grows has twice as many.
    journeys: HashMap<Name, Box<Watched>>,
    /// Who depends on a journey, or on something else of a name.
    dependants: HashMap<Name, Vec<Name>>,
    channels: Channels,
    together: Together,
    /// The alerts of channels and of the daemon's parts.
    conditions: BTreeMap<Subject, AlertState>,
    desk: Desk,
    commands: mpsc::Receiver<Command>,
    adoptions: mpsc::Receiver<Adoption>,
    handovers: mpsc::Receiver<Handover>,
    /// Journeys whose alert time alone can change, by when.
    deadlines: BTreeSet<(Timestamp, Name)>,
    deadline_of: HashMap<Name, Timestamp>,
    /// Decided and not on disk yet, because the store says no.
    unwritten: Vec<Change>,
    /// So many of them are on the spool's disk, as far as they belong there.
    spooled: usize,
    store_failed: Option<Timestamp>,
    store_tried: Mono,
    store_told: Option<Timestamp>,
    /// What people were told of it, until they are told that it is over.
    store_story: Option<Incident>,
    /// Incidents that people know of and the store does not.
    told_alone: BTreeSet<String>,
    /// What people are told because of the time before the start: the first verdict ends that.
    told_of_before: BTreeSet<Subject>,
}

/// What the evaluator does next.
enum Next {
    Round,
    Obey(Command),
    Adopt(Adoption),
    HandOver(Handover),
    End,
}

/// What came of a request, and where that is told.
type Done = Result<(), Refusal>;
type Answer = oneshot::Sender<Done>;

/// What one round of observations leads to.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    owed: Vec<OutboxRow>,
    touched: BTreeSet<Name>,
    /// Incidents whose rows are to be written, by id: the last state of a round is enough.
    incidents: BTreeMap<String, Change>,
    /// Incidents that are to be shown anew.
    recorded: BTreeSet<String>,
    silences_changed: bool,
    /// The own journey has a verdict to pass on.
    is_own: bool,
    /// Runs that somebody asked for, and that have ended.
    asked: Vec<Token>,
    /// Requests that are done once this round is written.
    answers: Vec<(Answer, Done)>,
}

/// The saved state of these journeys, in their order. Several are asked for at once: of thousands, each would wait for the one before.
fn saved_of(store: &dyn Store, names: Vec<Name>) -> impl Stream<Item = Result<SavedJourney, StoreError>> {
    stream::iter(names).map(|name| store.journey(name)).buffered(TOGETHER)
}

impl Evaluator {
    /// Takes up the saved state of these journeys. Slots up to `counted` that went by while the daemon was not running are
    /// `unknown`.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn load(
        parts: Parts,
        journeys: &[Arc<Journey>],
        counted: Timestamp,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Evaluator, StoreError> {
        let desk = Desk::new(parts.policy.routes.clone(), parts.policy.updatable.clone())
            .with_digest_after(parts.policy.digest_after)
            .with_origin(parts.alone.as_ref().map(|alone| alone.name.clone()).unwrap_or_default());
        let key = parts.store.key().await?;
        let (warnings, breakers) = (&parts.policy.certificate_warnings, &parts.policy.breakers);
        let channels = Channels::new(journeys, warnings, breakers, parts.metrics.clone());
        let mut evaluator = Evaluator {
            parts,
            key,
            channels,
            together: Together::default(),
            journeys: HashMap::with_capacity(journeys.len()),
            dependants: HashMap::new(),
            conditions: BTreeMap::new(),
            desk,
            commands,
            // Nobody changes anything.
            adoptions: mpsc::channel(1).1,
            handovers: mpsc::channel(1).1,
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            unwritten: Vec::new(),
            spooled: 0,
            store_failed: None,
            store_tried: Mono::default(),
            store_told: None,
            store_story: None,
            told_alone: BTreeSet::new(),
            told_of_before: BTreeSet::new(),
        };
        let mut round = Round::default();
        let mut blind = Duration::ZERO;
        let store = evaluator.parts.store.clone();
        let saved = saved_of(&*store, journeys.iter().map(|journey| journey.name.clone()).collect());
        let mut known = stream::iter(journeys).zip(saved);
        while let Some((journey, saved)) = known.next().await {
            let missed = evaluator.enrol(journey, saved?, counted, &mut round);
            // What only we would have seen is no loss to anybody.
            blind = if own::is_own(&journey.name) { blind } else { blind.max(missed) };
        }
        evaluator.learn_dependants();
        evaluator.learn_places();
        // Whoever comes later waits for nothing of before.
        evaluator.parts.waiting.clear();
        let mut gone = Vec::new();
        for (subject, alert) in evaluator.parts.store.conditions().await? {
            match &subject {
                Subject::Channel(name) if evaluator.channels.knows(name) => {
                    evaluator.channels.resume(name, &alert, evaluator.parts.clock.now().wall);
                }
                Subject::Channel(_) if alert.phase.is_firing() => gone.push(subject.clone()),
                _ => {}
            }
            if is_of_before(&subject) && alert.phase.is_firing() {
                evaluator.told_of_before.insert(subject.clone());
            }
            evaluator.desk.enrol(evaluator.profile_of(&subject, alert.severity()), alert.clone());
            evaluator.conditions.insert(subject, alert);
        }
        let (incidents, silences) =
            (evaluator.parts.store.open_incidents().await?, evaluator.parts.store.silences().await?);
        evaluator.desk.restore(incidents, silences);
        // Nobody will ever say that a channel is well which nobody uses any more.
        for subject in gone {
            evaluator.condition(subject, Vec::new(), &mut round, evaluator.parts.clock.now().wall);
        }
        let at = evaluator.parts.clock.now().wall;
        if blind > Duration::ZERO {
            tracing::info!(seconds = blind.as_secs(), "the daemon was not running; slots of that time are unknown");
        }
        evaluator.tell_blind(blind, &mut round, at);
        if let Some(said) = evaluator.parts.store.mended() {
            // It goes on: nobody has to get up for what is lost.
            let finding = Finding { severity: Severity::Warning, ..Finding::new(Detector::Storage, said) };
            evaluator.tell_of_before(STORAGE, finding, &mut round, at);
        }
        let now = evaluator.parts.clock.now();
        evaluator.weigh(&mut round, now.wall);
        evaluator.decide(&mut round, now.wall);
        evaluator.parts.store.apply(round.take_changes()).await?;
        round.shows_all(&evaluator.desk);
        evaluator.show(&round, now);
        Ok(evaluator)
    }

    /// Takes up other journeys while it works.
    pub fn with_adoptions(self, adoptions: mpsc::Receiver<Adoption>) -> Evaluator {
        Evaluator { adoptions, ..self }
    }

    /// Leaves what it told to another, and ends, when it is asked to.
    pub fn with_handovers(self, handovers: mpsc::Receiver<Handover>) -> Evaluator {
        Evaluator { handovers, ..self }
    }

    /// Takes up what was seen before it begins to work.
    pub async fn catch_up(&mut self, seen: impl Iterator<Item = Observation>) {
        self.round(seen).await;
    }

    /// Works until the observations end: the scheduler has stopped, and its last runs have been decided.
    pub async fn run(mut self, mut observations: mpsc::Receiver<Observation>, pulse: Arc<Pulse>) {
        let mut batch = Vec::with_capacity(TOGETHER);
        // Until when what is in the batch waits for more.
        let mut gathers: Option<Mono> = None;
        loop {
            let now = self.parts.clock.now();
            pulse.beat(now.mono);
            let until = now.mono + self.until_next(now.wall);
            let until = gathers.map_or(until, |end| end.min(until));
            let known = batch.len();
            let next = tokio::select! {
                biased;
                received = observations.recv_many(&mut batch, TOGETHER - known) => {
                    if received > 0 && batch.len() < TOGETHER && batch[known..].iter().all(Observation::is_well) {
                        gathers.get_or_insert(now.mono + GATHER);
                        continue;
                    }
                    if received == 0 { Next::End } else { Next::Round }
                }
                Some(command) = self.commands.recv() => Next::Obey(command),
                Some(adoption) = self.adoptions.recv() => Next::Adopt(adoption),
                Some(handover) = self.handovers.recv() => Next::HandOver(handover),
                () = self.parts.clock.sleep_until(until) => Next::Round,
            };
            // Whoever asks for something asks it of what was seen before, and finds that done.
            if !batch.is_empty() || matches!(next, Next::Round) {
                gathers = None;
                self.round(batch.drain(..)).await;
            }
            match next {
                Next::Round => {}
                Next::Obey(command) => self.obey(command).await,
                Next::Adopt(adoption) => self.adopt(adoption).await,
                Next::HandOver(handover) => return self.hand_over(handover).await,
                Next::End => break,
            }
        }
        if !self.unwritten.is_empty() {
            match self.parts.store.apply(self.unwritten.clone()).await {
                Ok(()) => self.unspool().await,
                Err(_) if self.parts.spool.is_some() => {
                    self.spool().await;
                    tracing::error!("the last decisions could not be written; the next start knows of the runs alone");
                }
                Err(_) => tracing::error!("the last decisions could not be written; the next start will not know them"),
            }
        }
    }

    fn until_next(&self, now: Timestamp) -> Duration {
        let next = self.deadlines.first().map(|(at, _)| *at).into_iter().chain(self.desk.deadline()).min();
        let next = next.map_or(BEAT, |at| between(now, at).min(BEAT));
        if self.unwritten.is_empty() { next } else { next.min(RETRY_STORE) }
    }

    async fn round(&mut self, observations: impl Iterator<Item = Observation>) {
        let now = self.parts.clock.now();
        let mut round = Round::default();
        for observation in observations {
            self.observe(observation, &mut round, now.wall);
        }
        self.tick_due(&mut round, now.wall);
        self.finish(round, now).await;
    }

    /// One request of a person: what follows from it is on disk before it is answered.
    async fn obey(&mut self, command: Command) {
        let now = self.parts.clock.now();
        let mut round = Round::default();
        match command {
            Command::Change { request, answer } => {
                let result = self.take_request(request, &mut round);
                round.answers.push((answer, result));
                self.finish(round, now).await;
            }
            Command::Run { which, by, answer } => self.pass_on(which, by, answer),
        }
    }

    /// Hands a wish for a run to whoever starts runs, and does not wait for it.
    fn pass_on(&self, which: Which, by: String, answer: oneshot::Sender<Result<AskedRun, Refusal>>) {
        let refused = match self.named(which) {
            Ok(journey) => match self.parts.wishes.try_send(Wish { journey, by, may_pass: true, answer }) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(wish)) => {
                    (wish.answer, Refusal::Unavailable("too many runs are asked for already; try again".to_owned()))
                }
                Err(mpsc::error::TrySendError::Closed(wish)) => (wish.answer, Refusal::stopping()),
            },
            Err(refusal) => (answer, refusal),
        };
        let (answer, refusal) = refused;
        let _ = answer.send(Err(refusal));
    }

    fn named(&self, which: Which) -> Result<Name, Refusal> {
        match which {
            Which::Journey(name) if self.journeys.contains_key(&name) => Ok(self.run_for(name)),
            Which::Journey(name) => Err(Refusal::Unknown(format!("no journey is named `{name}`"))),
            Which::Incident(id) => match self.desk.lead(&id) {
                Some(lead) => lead.journey().map(|name| self.run_for(name.clone())).ok_or_else(|| {
                    Refusal::Unknown(format!("incident {id} is about {lead}, of which there are no runs"))
                }),
                None => Err(Refusal::Unknown(format!("no incident {id} is open"))),
            },
        }
    }

    fn take_request(&mut self, request: Request, round: &mut Round) -> Result<(), Refusal> {
        let unknown = |what: String| move |_| Refusal::Unknown(what);
        match request {
            Request::Acknowledge { incident, ack } => {
                let error = unknown(format!("no incident {incident} is open"));
                tracing::info!(
                    incident,
                    by = ack.by,
                    until = ack.until.map(tracing::field::display),
                    "asked to acknowledge"
                );
                self.desk.acknowledge(&incident, ack).map_err(error)
            }
            Request::Unacknowledge { incident, by } => {
                let error = unknown(format!("no incident {incident} is open"));
                tracing::info!(incident, by, "asked to take an acknowledgement back");
                self.desk.unacknowledge(&incident, &by).map_err(error)
            }
            Request::Silence(silence) => {
                tracing::info!(silence = silence.id, by = silence.author, until = %silence.until, "asked for silence");
                round.changes.push(Change::Silence { silence: Box::new(silence.clone()) });
                round.silences_changed = true;
                self.desk.silence(silence);
                Ok(())
            }
            Request::SilenceMembers { incident, silence } => {
                let matchers = self.desk.matchers(&incident).map_err(Refusal::Unknown)?;
                self.take_request(Request::Silence(crate::control::Silence { matchers, ..silence }), round)
            }
            Request::Order { what, order } => {
                if !self.parts.levers.pull(&what, order.clone()) {
                    return Err(Refusal::Unknown(format!("there is no breaker before {what}")));
                }
                let (to, by) = (order.as_ref().map(|order| order.to), order.as_ref().map(|order| order.by.as_str()));
                tracing::info!(breaker = %what, ?to, by, "asked to force a breaker, or to let it go by itself");
                round.changes.push(Change::Order { what, order: order.map(Box::new) });
                Ok(())
            }
            Request::Unsilence { id } => {
                self.desk.unsilence(&id).map_err(unknown(format!("there is no silence {id}")))?;
                tracing::info!(silence = id, "asked to end a silence");
                round.changes.push(Change::Unsilence { id });
                round.silences_changed = true;
                Ok(())
            }
        }
    }

    /// Decides, writes, and shows what a round came to.
    async fn finish(&mut self, mut round: Round, now: Now) {
        self.weigh(&mut round, now.wall);
        self.decide(&mut round, now.wall);
        for name in &round.touched {
            if let Some(watched) = self.journeys.get_mut(name) {
                let changes = watched.history.advance(now.wall);
                push_spans(&mut round.changes, name, changes);
                watched.refresh(now.wall);
            }
        }
        self.commit(&mut round).await;
        self.show(&round, now);
        let is_written = self.unwritten.is_empty();
        for (answer, result) in round.answers {
            let unwritten =
                || Refusal::Unavailable("done, and not on disk: the store does not take commits".to_owned());
            // Whoever asked may be gone.
            let _ = answer.send(if is_written { result } else { result.and(Err(unwritten())) });
        }
    }

    fn observe(&mut self, observation: Observation, round: &mut Round, now: Timestamp) {
        match observation {
            Observation::Elsewhere { writer, number, what } => {
                // What follows from it, and that it need not be said again, is on disk together.
                round.changes.push(Change::Heard { writer, number });
                let name = what.as_ref().and_then(|what| what.journey().cloned());
                match what.map(|what| *what) {
                    // Of what was said while the store was away nobody knows whether it was heard: it is said again.
                    Some(Observation::Finished(report)) if self.knows(&report) => self.learn(*report, round),
                    Some(what) => self.observe(what, round, now),
                    None => {}
                }
                if let Some(watched) = name.and_then(|name| self.journeys.get_mut(&name)) {
                    watched.is_elsewhere = true;
                }
            }
            Observation::Belated(report) if self.knows(&report) => self.learn(*report, round),
            Observation::Belated(report) => {
                // Nobody ran what went by before it, or says so later.
                if let Some(watched) = self.journeys.get_mut(&report.journey) {
                    watched.fill_before(report.slot, round);
                }
                self.observe_run(Observation::Finished(report), round, now);
            }
            Observation::TakenUp { journeys, until, waiting } => self.taken_up(journeys, until, waiting, round, now),
            Observation::Measured { journey, measured } => self.measured(&journey, measured, round, now),
            Observation::Condition { subject, findings } => self.condition(subject, findings, round, now),
            Observation::Reading { channel, trouble } => {
                self.channels.read(&channel, trouble);
                self.look_at_channel(channel, round, now);
            }
            // Said by one that a reload took that from, it would be taken back by nobody.
            Observation::Breaking { channel, .. } if !self.parts.policy.breakers.contains(&channel) => {}
            Observation::Breaking { channel, is_open, trouble } => {
                self.desk.block(&channel, is_open);
                self.channels.broke(&channel, trouble);
                self.look_at_channel(channel, round, now);
            }
            Observation::Finished(_)
            | Observation::Confirmed(_)
            | Observation::Repeated(_)
            | Observation::Asked { .. }
            | Observation::Skipped { .. }
            | Observation::Late { .. } => self.observe_run(observation, round, now),
        }
    }

    /// Whether the run's slot is counted already.
    fn knows(&self, report: &Report) -> bool {
        self.journeys.get(&report.journey).is_some_and(|watched| watched.has_counted(report.slot))
    }

    /// A slot that was counted as one that nobody knows of.
    fn learn(&mut self, report: Report, round: &mut Round) {
        let name = report.journey.clone();
        if let Some(watched) = self.journeys.get_mut(&name) {
            watched.learn(report, round);
            round.touched.insert(name);
        }
    }

    /// What became of a slot, or of a run beside them.
    fn observe_run(&mut self, observation: Observation, round: &mut Round, now: Timestamp) {
        let Some(name) = observation.journey().cloned() else { return };
        for subject in std::mem::take(&mut self.told_of_before) {
            self.condition(subject, Vec::new(), round, now);
        }
        let is_own = own::is_own(&name);
        if is_own {
            self.own_slot(&observation);
        }
        let is_verdict = matches!(observation, Observation::Finished(_));
        if let Observation::Finished(report)
        | Observation::Confirmed(report)
        | Observation::Repeated(report)
        | Observation::Asked { report, .. } = &observation
            && report.outcome != (Outcome::Unknown { why: UnknownWhy::Observer })
        {
            // Before the journey: what it fails of is known when it is looked where it belongs.
            for channel in self.channels.take(report, now) {
                self.look_at_channel(channel, round, now);
            }
        }
        let Some(watched) = self.journeys.get_mut(&name) else { return };
        watched.is_elsewhere = false;
        match observation {
            Observation::Finished(report) => watched.finished(*report, &mut self.desk, round, now),
            Observation::Confirmed(report) => watched.beside(*report, true, &mut self.desk, round, now),
            Observation::Repeated(report) => watched.beside(*report, false, &mut self.desk, round, now),
            Observation::Asked { report, run } => {
                round.asked.push(run.token);
                watched.asked(*report, &run.by, &mut self.desk, round, now);
            }
            Observation::Skipped { slot, outcome, .. } => watched.skipped(slot, outcome, round),
            Observation::Late { slot, token, at, .. } => watched.late(slot, token, at, round),
            Observation::Measured { .. }
            | Observation::Belated(_)
            | Observation::TakenUp { .. }
            | Observation::Elsewhere { .. }
            | Observation::Reading { .. }
            | Observation::Breaking { .. }
            | Observation::Condition { .. } => {}
        }
        if is_own && is_verdict {
            self.pass_on_own(round, now);
        }
        round.touched.insert(name);
    }

    /// Another daemon runs these journeys from now on, or this one does: slots that nobody had are unknown.
    fn taken_up(
        &mut self,
        journeys: Vec<Name>,
        until: Timestamp,
        mut waiting: HashMap<Name, Vec<Timestamp>>,
        round: &mut Round,
        now: Timestamp,
    ) {
        let mut blind = Duration::ZERO;
        for name in journeys {
            let Some(watched) = self.journeys.get_mut(&name) else { continue };
            watched.wait_for(waiting.remove(&name).unwrap_or_default());
            let missed = watched.count_missed(round, until);
            blind = if own::is_own(&name) { blind } else { blind.max(missed) };
            round.touched.insert(name);
        }
        tracing::debug!(seconds = blind.as_secs(), "nothing ran of a shard for so long; its slots are unknown");
        self.tell_blind(blind, round, now);
    }

    /// Nothing ran for so long: people are told, if that was long enough to be of interest.
    fn tell_blind(&mut self, blind: Duration, round: &mut Round, now: Timestamp) {
        if blind > Duration::ZERO {
            self.parts.daemon.blind.increment(blind.as_secs());
        }
        if blind >= TELL_BLIND {
            let said = format!("the daemon was not running for {}; nothing is known of that time", Human(blind));
            self.tell_of_before(BLIND, Finding::new(Detector::Blind, said), round, now);
        }
    }

    /// Of the time before: the first verdict ends it.
    fn tell_of_before(&mut self, part: &str, finding: Finding, round: &mut Round, now: Timestamp) {
        let subject = Subject::Daemon(part.into());
        self.condition(subject.clone(), vec![finding], round, now);
        self.told_of_before.insert(subject);
    }

    /// What was measured of runs long ended: no verdict, and no sign that anything runs.
    fn measured(&mut self, name: &Name, measured: Measured, round: &mut Round, now: Timestamp) {
        let Some(watched) = self.journeys.get_mut(name) else { return };
        watched.measured(measured, &mut self.desk, round, now);
        round.touched.insert(name.clone());
    }

    /// Looks what is wrong with a channel, by all that is known of it.
    fn look_at_channel(&mut self, name: Name, round: &mut Round, now: Timestamp) {
        if let Some(findings) = self.channels.look(&name, now) {
            self.condition(Subject::Channel(name), findings, round, now);
        }
    }

    /// What was found about a channel, or a part of the daemon.
    fn condition(&mut self, subject: Subject, findings: Vec<Finding>, round: &mut Round, now: Timestamp) {
        if let Subject::Daemon(part) = &subject
            && !part.starts_with("delivery ")
        {
            let said = findings.first().map_or("well", |finding| finding.said.as_str());
            self.parts.board.set_component(part, findings.is_empty(), false, said, now);
        }
        let known = self.conditions.get(&subject);
        let severity = findings.iter().map(|finding| finding.severity).max();
        if known.is_none() && severity.is_none() {
            return;
        }
        if severity.is_some() && severity != known.and_then(AlertState::severity) {
            // How often people are reminded depends on it.
            self.desk.enrol(self.profile_of(&subject, severity), known.cloned().unwrap_or_default());
        }
        let alert = self.conditions.entry(subject.clone()).or_default();
        let before = alert.clone();
        let is_bad = findings.iter().any(Finding::is_felt);
        let look = Look { findings, ..Look::default() };
        judge::settle(alert, &subject, look, is_bad, None, &mut self.desk, now);
        say_phase(&subject, before.phase, alert);
        if *alert != before {
            round.changes.push(Change::Condition { subject, state: Box::new(alert.clone()) });
        }
    }

    fn profile_of(&self, subject: &Subject, severity: Option<Severity>) -> Profile {
        let mut labels = BTreeMap::new();
        let mut resources = Vec::new();
        if let Subject::Channel(name) = subject {
            labels.insert("channel".to_owned(), name.to_string());
            resources.push(Resource::Channel(name.clone()));
        }
        if let Some(location) = &self.parts.location {
            labels.insert("location".to_owned(), location.clone());
        }
        let uses = |watched: &Watched| match subject {
            Subject::Channel(name) => watched.journey.channels().contains(name) && !watched.journey.muted,
            _ => false,
        };
        // Those who are told of the journeys that use it; of the daemon itself, its operators.
        let told = self
            .journeys
            .values()
            .filter(|watched| uses(watched))
            .flat_map(|watched| watched.journey.notify.iter().cloned());
        let mut notify: BTreeSet<Name> = told.collect();
        if notify.is_empty() {
            notify.extend(self.parts.policy.operators.iter().cloned());
        }
        // That a notifier does not take notices is told by another.
        let failing = match subject {
            Subject::Daemon(part) => part.strip_prefix("delivery "),
            _ => None,
        };
        notify.retain(|name| Some(&**name) != failing);
        if let (Some(failing), true) = (failing, notify.is_empty()) {
            notify.extend(self.parts.policy.notifiers.iter().filter(|name| &***name != failing).cloned());
        }
        Profile {
            subject: subject.clone(),
            labels: Arc::new(labels),
            resources,
            notify: notify.into_iter().collect(),
            remind: Some(if severity == Some(Severity::Critical) { REMIND_OF_US } else { REMIND_OF_WARNING }),
            muted: false,
            maintenance: Vec::new(),
        }
    }

    /// Lets time pass for the alerts that time alone can change.
    fn tick_due(&mut self, round: &mut Round, now: Timestamp) {
        let due: Vec<_> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect();
        for name in due {
            let is_held = self.parts.observer.as_ref().is_some_and(|observer| observer.holds(&name));
            if let Some(watched) = self.journeys.get_mut(&name) {
                if !watched.journey.is_run() {
                    // Its places are asked again at the end of the round.
                    round.touched.insert(name);
                    continue;
                }
                // What another runs is heard of through the store alone.
                if is_held || watched.is_elsewhere && self.store_failed.is_some() {
                    watched.alerts.detectors.heard = Some(now);
                }
                watched.look(false, &mut self.desk, round, now);
                round.touched.insert(name);
            }
        }
        for name in self.channels.due(now) {
            self.look_at_channel(name, round, now);
        }
        let is_calm =
            |alert: &AlertState| alert.phase == Phase::Recovering && alert.deadline().is_some_and(|calm| calm <= now);
        let calm: Vec<_> =
            self.conditions.iter().filter(|(_, alert)| is_calm(alert)).map(|(subject, _)| subject.clone()).collect();
        for subject in calm {
            self.condition(subject, Vec::new(), round, now);
        }
    }
}

impl Round {
    /// Whatever is open is to be shown anew.
    fn shows_all(&mut self, desk: &Desk) {
        self.recorded.extend(desk.open().map(|incident| incident.id.clone()));
        self.silences_changed = true;
    }

    /// What is to be written, in order.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.extend(std::mem::take(&mut self.incidents).into_values());
        changes.extend(self.owed.iter().map(|row| Change::Owe { row: Box::new(row.clone()) }));
        changes
    }
}

/// Whether it is about the time before a start.
fn is_of_before(subject: &Subject) -> bool {
    matches!(subject, Subject::Daemon(part) if matches!(&**part, BLIND | STORAGE))
}

fn push_spans(changes: &mut Vec<Change>, journey: &Name, spans: impl IntoIterator<Item = SpanChange>) {
    let spans: Vec<_> = spans.into_iter().collect();
    if !spans.is_empty() {
        changes.push(Change::Spans { journey: journey.clone(), changes: spans });
    }
}

#[cfg(test)]
mod tests;
