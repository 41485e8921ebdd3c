//! The loop around the machine of an experiment: what it asks for is done here, and what comes of that is told to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::app::bench::Bench;
use crate::app::experiment::commands::{self, Place};
use crate::app::experiment::journal::Journal;
use crate::app::experiment::traffic::{Shared, Traffic};
use crate::app::experiment::{Onlooker, Standing, Wanted, act, healing, web};
use crate::clock::Clock;
use crate::config::experiment::{Claims, ExperimentPlan};
use crate::experiment::account::Tally;
use crate::experiment::bounds::{Amount, Bound, Comparison, Judged, Quantity, Query, Standing as Verdict};
use crate::experiment::phases::{Action, Event, Finished, Machine, Stage};
use crate::experiment::report::Act;
use crate::experiment::undo::{Cut, typed};
use crate::journey::Name;
use crate::proxy::{Fault, Proxy};
use crate::time::Mono;

/// How often it is looked whether a bound was passed, and whether everything is here.
const TICK: Duration = Duration::from_secs(1);
/// What ends an experiment before its time is judged by the last so long.
const WINDOW: Duration = Duration::from_secs(10);
/// A share of fewer sends than these says nothing.
const ENOUGH: u64 = 10;
/// After the last arrival, a second copy has so long to come before everything counts as here.
pub(super) const QUIET: Duration = Duration::from_secs(3);

/// What somebody was asked to do, and has done.
enum Done {
    Said(Event),
    Acted { phase: usize, from: Mono, result: Result<String, String> },
    Undone { phase: usize, from: Mono, result: Result<String, String> },
}

type Job<'a> = BoxFuture<'a, Done>;

/// An experiment under way.
pub(super) struct Drive<'a> {
    experiment: &'a ExperimentPlan,
    onlooker: &'a dyn Onlooker,
    file: String,
    target: String,
    journal: Journal,
    proxies: BTreeMap<Name, Proxy>,
    account: Shared,
    last_arrival: Arc<Mutex<Mono>>,
    clock: Clock,
    machine: Machine,
    /// Phases whose proxies do what they say.
    imposed: BTreeSet<usize>,
    /// What the commands of phases have cut.
    cuts: BTreeMap<usize, Cut>,
    /// What the machine waits for; one thing at a time.
    hand: Option<Job<'a>>,
    /// A command of this phase is under way since then.
    acting: Option<(usize, Mono)>,
    /// What is being undone, and what after that.
    healing: Option<Job<'a>>,
    to_heal: VecDeque<usize>,
    /// Whoever is asked while the experiment goes on, by the place of the claim.
    asked: FuturesUnordered<BoxFuture<'a, (usize, Judged)>>,
    began: Mono,
    marks: Vec<(String, Mono)>,
    acts: Vec<Act>,
    stop_traffic: CancellationToken,
    cut: CancellationToken,
}

/// What is claimed, and what Prometheus said at the end.
pub(super) struct Hypothesis<'a> {
    claims: &'a Claims,
    answers: Vec<Judged>,
}

impl Hypothesis<'_> {
    /// Every claim, judged by this count.
    pub(super) fn judge(self, tally: &Tally) -> Vec<Judged> {
        let bounds = self.claims.bounds.iter().map(|bound| bound.judge(tally));
        bounds.chain(self.answers).collect()
    }
}

impl<'a> Drive<'a> {
    pub(super) fn new(
        experiment: &'a ExperimentPlan,
        wanted: &Wanted<'a>,
        journal: Journal,
        proxies: BTreeMap<Name, Proxy>,
        account: Shared,
        last_arrival: Arc<Mutex<Mono>>,
        clock: Clock,
    ) -> Drive<'a> {
        Drive {
            experiment,
            onlooker: wanted.onlooker,
            file: wanted.file.display().to_string(),
            target: wanted.target.0.clone(),
            journal,
            proxies,
            account,
            last_arrival,
            clock,
            machine: Machine::new(experiment.script.clone()),
            imposed: BTreeSet::new(),
            cuts: BTreeMap::new(),
            hand: None,
            acting: None,
            healing: None,
            to_heal: VecDeque::new(),
            asked: FuturesUnordered::new(),
            began: clock.now().mono,
            marks: Vec::new(),
            acts: Vec::new(),
            stop_traffic: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// To the end; gives how it ended and the claims, for which Prometheus has been asked.
    pub(super) async fn run(
        &mut self,
        bench: &mut Bench,
        traffic: &Arc<Traffic>,
        stop: CancellationToken,
    ) -> (Finished, Hypothesis<'a>) {
        self.began = self.clock.now().mono;
        let mut events = VecDeque::from([Event::Begin]);
        let (mut is_stopped, mut tick) = (false, self.began + TICK);
        let finished = loop {
            if let Some(event) = events.pop_front() {
                let actions = self.machine.step(event, self.clock.now().mono);
                if let Some(finished) = self.perform(actions, bench, traffic, &mut events) {
                    break finished;
                }
                continue;
            }
            let timer = OptionFuture::from(self.machine.deadline().map(|at| self.clock.sleep_until(at)));
            let job = tokio::select! {
                biased;
                () = stop.cancelled(), if !is_stopped => {
                    is_stopped = true;
                    events.push_back(Event::Stop);
                    continue;
                }
                Some(done) = OptionFuture::from(self.healing.as_mut()) => {
                    self.healing = None;
                    done
                }
                Some(done) = OptionFuture::from(self.hand.as_mut()) => {
                    self.hand = None;
                    done
                }
                Some((_, judged)) = self.asked.next(), if !self.asked.is_empty() => {
                    if judged.standing == Verdict::Broken {
                        events.push_back(Event::Abort(format!("{}: {}", judged.bound, judged.found)));
                    }
                    continue;
                }
                Some(()) = timer => Done::Said(Event::Timer),
                () = self.clock.sleep_until(tick) => {
                    tick = self.clock.now().mono + TICK;
                    events.extend(self.look());
                    continue;
                }
            };
            events.push_back(self.done(job));
        };
        let queries = self.experiment.hypothesis.queries.iter();
        let answers = futures_util::future::join_all(queries.map(ask)).await;
        (finished, Hypothesis { claims: &self.experiment.hypothesis, answers })
    }

    /// Ends the runs that still wait.
    pub(super) fn cut_runs(&self) {
        self.cut.cancel();
    }

    /// Its parts, and what was done.
    pub(super) fn history(self) -> (Vec<(String, Mono)>, Vec<Act>) {
        (self.marks, self.acts)
    }

    /// Does what the machine asks for; the end, if that is it.
    fn perform(
        &mut self,
        actions: Vec<Action>,
        bench: &mut Bench,
        traffic: &Arc<Traffic>,
        events: &mut VecDeque<Event>,
    ) -> Option<Finished> {
        for action in actions {
            match action {
                Action::StartTraffic => {
                    let flow = traffic.clone().flow(self.experiment.pace, self.stop_traffic.clone(), self.cut.clone());
                    bench.tasks.spawn("traffic", flow);
                }
                Action::StopTraffic => self.stop_traffic.cancel(),
                Action::Enter(stage) => self.enter(stage),
                Action::Judge => self.hand = Some(self.judge()),
                Action::Ask(phase) => {
                    let what = self.experiment.phases[phase].confirm.as_deref().unwrap_or_default();
                    let onlooker = self.onlooker;
                    self.hand = Some(async move { Done::Said(Event::Answered(onlooker.ask(what).await)) }.boxed());
                }
                Action::Act(phase) => events.extend(self.act(phase)),
                Action::Prove(phase) => {
                    let look = self.experiment.phases[phase].proof.as_ref();
                    self.hand = look.map(|look| self.look_until(phase, look, Event::Proved));
                }
                Action::Look(phase) => {
                    let look = self.experiment.phases[phase].over.as_ref();
                    self.hand = look.map(|look| self.look_until(phase, look, Event::Over));
                }
                Action::Quiet => self.quiet(),
                Action::Undo(phase) => events.extend(self.undo(phase)),
                Action::Finish(finished) => return Some(finished),
            }
        }
        None
    }

    fn enter(&mut self, stage: Stage) {
        let name = match stage {
            Stage::Steady => "steady".to_owned(),
            Stage::Phase(phase) => self.name(phase),
            Stage::Drain => "drain".to_owned(),
        };
        self.say(&name);
        self.marks.push((name, self.clock.now().mono));
    }

    fn name(&self, phase: usize) -> String {
        self.experiment.script.phases[phase].name.clone()
    }

    fn say(&self, what: &str) {
        let since = self.clock.now().mono.since(self.began);
        self.onlooker.told(&format!("{:7.1}s  {what}", since.as_secs_f64()));
    }

    /// Whether the hypothesis holds before anything is cut: what is overdue then would be lost or late.
    fn judge(&self) -> Job<'a> {
        let experiment = self.experiment;
        let mut tally = self.account.lock().tally(self.clock.now().mono);
        tally.lost += tally.overdue;
        async move {
            let claims = &experiment.hypothesis;
            let bounds = claims.bounds.iter().filter(|bound| is_of_steady(bound)).map(|bound| bound.judge(&tally));
            let mut judged: Vec<_> = bounds.collect();
            judged.extend(futures_util::future::join_all(claims.queries.iter().map(ask)).await);
            let broken = judged.into_iter().find(|judged| judged.standing != Verdict::Held);
            let result = broken.map_or(Ok(()), |judged| Err(format!("{}: {}", judged.bound, judged.found)));
            Done::Said(Event::Judged(result))
        }
        .boxed()
    }

    /// Imposes the faults of the phase and starts its command; what is known of it at once.
    fn act(&mut self, phase: usize) -> Option<Event> {
        let experiment = self.experiment;
        let plan = &experiment.phases[phase];
        let now = self.clock.now();
        if !plan.faults.is_empty() {
            self.imposed.insert(phase);
            self.impose();
            let words: Vec<_> = plan.faults.iter().map(|(proxy, fault)| format!("{proxy}: {fault}")).collect();
            self.note(phase, now.mono, words.join(", "), &Ok(String::new()));
        }
        let Some(run) = &plan.run else { return Some(Event::Acted(Ok(()))) };
        if let Some(undo) = &plan.undo {
            let cut = Cut {
                id: 0,
                experiment: self.file.clone(),
                phase: self.name(phase),
                run: run.clone(),
                undo: undo.clone(),
                // Whoever undoes it may stand elsewhere.
                directory: std::path::absolute(&experiment.directory).unwrap_or(experiment.directory.clone()),
                target: self.target.clone(),
                at: now.wall,
            };
            match self.journal.cut(cut.clone()) {
                Ok(id) => self.cuts.insert(phase, Cut { id, ..cut }),
                Err(why) => return Some(Event::Acted(Err(why))),
            };
        }
        self.say(&format!("{}: {}", self.name(phase), typed(run)));
        let (place, within, clock) = (self.place(phase), plan.timeout, self.clock);
        self.acting = Some((phase, now.mono));
        self.hand = Some(
            async move {
                let result = commands::run(run, &place, within, clock).await;
                Done::Acted { phase, from: now.mono, result }
            }
            .boxed(),
        );
        None
    }

    fn place(&self, phase: usize) -> Place {
        Place {
            directory: self.experiment.directory.clone(),
            target: self.target.clone(),
            experiment: self.experiment.name.clone(),
            phase: self.name(phase),
        }
    }

    fn look_until(&self, phase: usize, look: &'a crate::config::experiment::Look, event: Event) -> Job<'a> {
        let (place, clock) = (self.place(phase), self.clock);
        async move {
            commands::until(look, &place, clock).await;
            Done::Said(event)
        }
        .boxed()
    }

    /// Every proxy does what the phases say that stand, and nothing else.
    fn impose(&self) {
        for (name, proxy) in &self.proxies {
            let of = |phase: &usize| self.experiment.phases[*phase].faults.iter();
            let faults: Vec<Fault> =
                self.imposed.iter().flat_map(of).filter(|(other, _)| other == name).map(|(_, fault)| *fault).collect();
            proxy.impose(faults);
        }
    }

    /// Ends what is under way: a command goes with everything that it has started.
    fn quiet(&mut self) {
        self.hand = None;
        if let Some((phase, from)) = self.acting.take() {
            let what = self.experiment.phases[phase].run.as_deref().map(typed).unwrap_or_default();
            self.note(phase, from, what, &Err("ended before its time".to_owned()));
        }
    }

    fn undo(&mut self, phase: usize) -> Option<Event> {
        if self.imposed.remove(&phase) {
            self.impose();
            let now = self.clock.now().mono;
            self.note(phase, now, "proxies as before".to_owned(), &Ok(String::new()));
        }
        if !self.cuts.contains_key(&phase) {
            return Some(Event::Undone(phase, Ok(())));
        }
        self.to_heal.push_back(phase);
        self.heal_next();
        None
    }

    /// One after the other, in the order in which the machine wants it.
    fn heal_next(&mut self) {
        if self.healing.is_some() {
            return;
        }
        let Some(phase) = self.to_heal.pop_front() else { return };
        let Some(cut) = self.cuts.get(&phase).cloned() else { return };
        let (clock, now) = (self.clock, self.clock.now());
        self.journal.undoing(cut.id, now.wall);
        self.say(&format!("{}: undo: {}", cut.phase, typed(&cut.undo)));
        self.healing = Some(
            async move {
                let result = healing::attempt(&cut, clock).await;
                Done::Undone { phase, from: now.mono, result }
            }
            .boxed(),
        );
    }

    /// What the machine is told of it.
    fn done(&mut self, done: Done) -> Event {
        match done {
            Done::Said(event) => event,
            Done::Acted { phase, from, result } => {
                self.acting = None;
                let what = self.experiment.phases[phase].run.as_deref().map(typed).unwrap_or_default();
                self.note(phase, from, what, &result);
                Event::Acted(result.map(drop))
            }
            Done::Undone { phase, from, result } => {
                let Some(cut) = self.cuts.get(&phase) else { return Event::Undone(phase, Ok(())) };
                if result.is_ok() {
                    self.journal.undone(cut.id, self.clock.now().wall);
                }
                let (what, by_hand) = (format!("undo: {}", typed(&cut.undo)), super::by_hand(cut));
                self.note(phase, from, what, &result);
                self.heal_next();
                Event::Undone(phase, result.map(drop).map_err(|why| format!("{why}; {by_hand}")))
            }
        }
    }

    fn note(&mut self, phase: usize, from: Mono, what: String, result: &Result<String, String>) {
        if let Err(why) = result {
            self.say(&format!("{}: {what}: {why}", self.name(phase)));
        }
        let to = self.clock.now().mono;
        self.acts.push(act(self.began, from, to, &self.name(phase), what, result));
    }

    /// Looks how it stands: whether a bound was passed, whether everything is here; and shows it.
    fn look(&mut self) -> Option<Event> {
        let now = self.clock.now().mono;
        let (tally, lately, is_waiting) = {
            let account = self.account.lock();
            (account.tally(now), account.lately(now, WINDOW), account.is_waiting())
        };
        let (stage, entered) = self.marks.last().cloned().unwrap_or_default();
        let is_quiet = now.since(*self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner)) >= QUIET;
        let passed = |bound: &&Bound| {
            let is_enough = bound.quantity != Quantity::ErrorRate || lately.answered >= ENOUGH;
            is_enough && bound.judge_now(&tally, &lately).standing == Verdict::Broken
        };
        let event = if self.machine.is_under_way() {
            let abort = &self.experiment.abort;
            if self.asked.is_empty() {
                let queries = abort.queries.iter().enumerate();
                self.asked.extend(queries.map(|(at, query)| async move { (at, ask(query).await) }.boxed()));
            }
            abort.bounds.iter().find(passed).map(|bound| {
                let judged = bound.judge_now(&tally, &lately);
                Event::Abort(format!("{}: {}", judged.bound, judged.found))
            })
        } else if self.machine.is_draining() && !is_waiting && is_quiet {
            Some(Event::AllHere)
        } else {
            None
        };
        let (since, in_stage) = (now.since(self.began), now.since(entered));
        self.onlooker.seen(&Standing { stage, since, in_stage, tally, lately });
        event
    }
}

async fn ask(query: &Query) -> Judged {
    query.judge(web::number(&query.url, &query.query).await)
}

/// Whether a claim can be held against a part of the experiment: what must be exactly so is so at the end.
fn is_of_steady(bound: &Bound) -> bool {
    let is_whole = bound.comparison == Comparison::AtLeast && matches!(bound.amount, Amount::Count(_));
    bound.comparison != Comparison::Equals && !is_whole
}
