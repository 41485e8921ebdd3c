//! One drill, from its first run to its verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::alert::{JourneyAlerts, Phase};
use crate::board::Board;
use crate::commands::DrillRefusal;
use crate::detect::{Rules, Sample};
use crate::drill::course::{Course, Next, Ran};
use crate::drill::notice::{Telling, notice};
use crate::drill::{DrillSettings, Order, Record, Stage, Verdict, shadow_name};
use crate::incident::root::Resource;
use crate::incident::{Action, Desk, NotifyReason};
use crate::journey::report::Report;
use crate::journey::run::Event;
use crate::journey::token::Token;
use crate::journey::{Journey, Name, outcome};
use crate::judge;
use crate::ledger::{Entry, Settled};
use crate::metrics::Metrics;
use crate::rehearsal::channel::Shadow;
use crate::rehearsal::side::Side;
use crate::rehearsal::{Props, Scene, keep_until, owed};
use crate::runner::mailbox::{Mailbox, Sieve};
use crate::runner::open::OpenChannel;
use crate::runner::{self, Ends, Runner};
use crate::store::{Change, OutboxStatus};
use crate::time::{Mono, Now};

/// A drill under way.
pub(super) struct Drive {
    props: Props,
    order: Order,
    journey: Arc<Journey>,
    record: Record,
    course: Course,
    /// The journey as it is rehearsed.
    shadow: Arc<Journey>,
    side: Arc<Side>,
    rules: Rules,
    alerts: JourneyAlerts,
    desk: Desk,
    last_good: Option<Report>,
    /// By which the alert, and its end, are known again.
    alert: Mark,
    end: Mark,
}

/// A token that a notice carries, and where it arrives.
struct Mark {
    token: Token,
    mailbox: Arc<Mailbox>,
}

/// What happened while a drill waited.
enum Happened<T> {
    What(T),
    Time,
    Trouble(String),
}

/// A real incident of the journey, which has precedence, in words.
pub(super) fn real_trouble(board: &Board, journey: &Name) -> Option<String> {
    let status = board.journey(journey)?;
    let incident = status.incident.as_ref()?;
    Some(format!("`{journey}` has a real incident, {}: that has precedence", incident.id))
}

impl Drive {
    /// A drill that can begin.
    pub(super) fn new(
        props: Props,
        settings: &DrillSettings,
        scene: &Scene,
        journey: Arc<Journey>,
        order: Order,
    ) -> Result<Drive, DrillRefusal> {
        let now = props.clock.now();
        let mut bytes = [0u8; 4];
        getrandom::fill(&mut bytes).map_err(|error| DrillRefusal::Unavailable(format!("no randomness: {error}")))?;
        let id = format!("{:08x}", u32::from_le_bytes(bytes));
        let shadow = Journey { name: shadow_name(&journey.name), maintenance: Vec::new(), ..Journey::clone(&journey) };
        let own = &settings.notify;
        let routes = if own.is_empty() { scene.routes.clone() } else { Vec::new() };
        let mut desk = Desk::new(routes, scene.updatable.clone());
        let [mut profile, _] = judge::profiles(&journey, props.location.as_deref(), &[]);
        profile.maintenance.clear();
        profile.remind = None;
        if !own.is_empty() {
            profile.notify.clone_from(own);
        }
        desk.enrol(profile, Default::default());
        let interval = journey.schedule.interval(now.wall);
        let mut alerts = JourneyAlerts::default();
        alerts.detectors.resume(now.wall);
        let mark = || Mark { token: props.runner.mint.issue(now.wall), mailbox: Arc::default() };
        Ok(Drive {
            record: Record::new(id, &order, settings.read_back.clone(), now.wall),
            course: Course::new(order.within, journey.alert.confirm.clone()),
            side: Arc::new(Side::new(props.clock)),
            rules: judge::rules(&journey, interval),
            alert: mark(),
            end: mark(),
            shadow: Arc::new(shadow),
            last_good: None,
            alerts,
            desk,
            journey,
            order,
            props,
        })
    }

    /// As it is kept.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Goes its course. Whatever happens, the fault is gone at the end, and who was told that something is wrong is told that it is over.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        for mark in [&self.alert, &self.end] {
            self.expect(mark);
        }
        let runner = self.runner();
        loop {
            let now = self.props.clock.now();
            if self.course.deadline().is_some_and(|deadline| deadline <= now.mono) {
                let trace = self.trace().await;
                self.course.expire(now.mono, &trace);
            }
            match self.course.next() {
                Next::End => break,
                Next::Run { is_faulty, is_confirmation, at } => {
                    self.make_run(&runner, is_faulty, is_confirmation, at, &stop).await;
                }
                Next::Wait { until } => self.await_notice(until, &stop).await,
            }
            self.keep(&[]).await;
        }
        self.finish().await;
    }

    /// What makes the runs: as real ones are made, but through our faulty side, past breakers and numbers that are the real runs'.
    fn runner(&self) -> Runner {
        let real = &self.props.runner;
        let clock = real.clock;
        let numbers = Arc::new(Metrics::new(&[], None));
        let board = Arc::new(Board::default());
        let opened = real.channels.now();
        let is_asked = self.shadow.receivers().is_empty();
        let shadow = |name: Name| {
            let channel = opened.get(&name)?;
            let behind = Shadow { real: channel.channel.clone(), side: self.side.clone(), clock, is_asked };
            let (policy, seen) = (channel.policy.clone(), channel.readiness.clone());
            let handles = numbers.channel(&name, false);
            let open = OpenChannel::new(name.clone(), Arc::new(behind), policy, seen, clock, board.clone(), handles);
            Some((name, Arc::new(open)))
        };
        let channels: BTreeMap<_, _> = self.shadow.channels().into_iter().filter_map(shadow).collect();
        let sieve: Arc<dyn Sieve> = self.side.clone();
        Runner {
            channels: channels.into(),
            switchboard: real.switchboard.clone(),
            store: real.store.clone(),
            clock,
            mint: real.mint.clone(),
            redactor: real.redactor.clone(),
            // What is rehearsed is no doubt of our network.
            observer: None,
            sieve: Some(sieve),
            spare: None,
        }
    }

    async fn make_run(
        &mut self,
        runner: &Runner,
        is_faulty: bool,
        is_confirmation: bool,
        at: Mono,
        stop: &CancellationToken,
    ) {
        let clock = self.props.clock;
        match self.until(clock.sleep_until(at), stop).await {
            Happened::What(()) => {}
            Happened::Time => return,
            Happened::Trouble(why) => return self.course.finish(Verdict::Aborted, why),
        }
        let slot = clock.now().wall;
        let order = runner::Order { purpose: purpose(is_confirmation), ..runner.order(self.shadow.clone(), slot) };
        self.side.set(is_faulty.then_some(self.order.fault), order.token);
        let token = order.token;
        let cut = CancellationToken::new();
        // The readers are told that something is to come: they know only of real runs.
        let opened = self.props.runner.channels.now();
        let waits = |name: Name| Some(opened.get(&name)?.awaits().begin(clock.now().mono));
        let waiting: Vec<_> = self.shadow.receivers().into_iter().filter_map(waits).collect();
        let side = self.side.clone();
        let mut run = Box::pin(runner.run(order, Ends { cut: &cut, leave: None }));
        let run = async {
            tokio::select! {
                report = &mut run => report,
                () = side.pass() => None,
            }
        };
        let happened = self.until(run, stop).await;
        drop(waiting);
        let settle = |how| Change::Settle { token, how };
        match happened {
            Happened::What(Some(report)) => {
                let is_here = matches!(report.outcome.verdict(), outcome::Verdict::Good | outcome::Verdict::Slow);
                let how = if is_here { Settled::Arrived } else { Settled::Missing };
                // It is of no journey; what cannot be written expires by itself.
                let _ = self.props.store.apply(vec![settle(how)]).await;
                self.judge(report, is_confirmation).await;
            }
            Happened::What(None) | Happened::Time => self.leave_run(token).await,
            Happened::Trouble(why) => {
                self.leave_run(token).await;
                self.course.finish(Verdict::Aborted, why);
            }
        }
    }

    /// Nobody waits for that run any more.
    async fn leave_run(&self, token: Token) {
        self.props.runner.switchboard.settle(token, Settled::Missing);
        let _ = self.props.store.apply(vec![Change::Settle { token, how: Settled::Missing }]).await;
    }

    /// Takes a run as the evaluator takes a real one, and owes what follows.
    async fn judge(&mut self, report: Report, is_confirmation: bool) {
        let now = self.props.clock.now();
        let verdict = report.outcome.verdict();
        let before = self.course.stage();
        let said = report.verdict_line();
        self.course.ran(Ran { verdict, said: &said, injected: self.side.injected(), at: now.mono });
        if matches!(before, Stage::Faulty | Stage::Healing) && self.course.stage() != Stage::Ended {
            let sample = Sample { slot: report.slot, verdict, cause: report.outcome.cause(), is_confirmation };
            self.alerts.detectors.take(sample, &self.rules, now.wall);
            let is_bad = matches!(verdict, outcome::Verdict::Failed | outcome::Verdict::Slow | outcome::Verdict::Late);
            let blamed = report.failed_step().and_then(|step| step.channel.clone()).map(Resource::Channel);
            let name = &self.journey.name;
            judge::look_at_health(name, &self.rules, &mut self.alerts, is_bad, blamed, &mut self.desk, now.wall);
            self.tell(&report, now).await;
        }
        if verdict == outcome::Verdict::Good {
            self.last_good = Some(report);
        }
    }

    /// Owes what the desk wants people to be told.
    async fn tell(&mut self, report: &Report, now: Now) {
        let actions = self.desk.decide(now.wall);
        let mut rows = Vec::new();
        let (mut is_told, mut is_over) = (false, false);
        for action in actions {
            let Action::Notify { notifier, reason, incident, .. } = action else { continue };
            let is_end = reason == NotifyReason::Resolved;
            let decision = match is_end {
                true => format!("{} good runs in a row (recover_after = {0})", self.rules.policy.recover_after),
                false => {
                    self.alerts.health.findings.iter().map(|found| found.said.as_str()).collect::<Vec<_>>().join("; ")
                }
            };
            let notification = notice(Telling {
                reason,
                incident: *incident,
                order: &self.order,
                journey: &self.journey,
                decision,
                report,
                last_good: self.last_good.as_ref(),
                token: if is_end { self.end.token } else { self.alert.token },
                location: self.props.location.clone(),
                link: self.props.link.clone(),
                at: now.wall,
            });
            rows.push(owed(&notifier, &notification, now.wall));
            if is_end {
                is_over = true;
                self.record.open = None;
            } else {
                is_told = true;
                if !self.record.notifiers.contains(&notifier) {
                    self.record.notifiers.push(notifier);
                }
                self.record.open = Some(Box::new(notification));
            }
        }
        if is_told {
            self.course.alerted(now.mono);
        } else if self.alerts.health.phase == Phase::Firing && self.course.stage() == Stage::Faulty {
            let why = "the alert was decided, and nobody is to be told of it: neither the journey nor a route names a notifier";
            self.course.finish(Verdict::Failed, why.to_owned());
        }
        if is_over {
            self.course.cleared();
        }
        if !rows.is_empty() {
            self.keep(&rows).await;
        }
    }

    /// Waits for the notice to come in where it is read back.
    async fn await_notice(&mut self, until: Mono, stop: &CancellationToken) {
        let is_alert = self.course.stage() == Stage::Telling;
        let mailbox = if is_alert { self.alert.mailbox.clone() } else { self.end.mailbox.clone() };
        let read_back = self.record.read_back.clone();
        let clock = self.props.clock;
        let opened = self.props.runner.channels.now();
        let _waiting = opened.get(&read_back).map(|channel| channel.awaits().begin(clock.now().mono));
        let seen = async {
            loop {
                if let Event::Arrived { channel, at, .. } = mailbox.next().await
                    && channel == read_back
                {
                    return at.mono;
                }
            }
        };
        let bounded = async {
            tokio::select! {
                at = seen => Some(at),
                () = clock.sleep_until(until) => None,
            }
        };
        match self.until(bounded, stop).await {
            Happened::What(Some(at)) if is_alert => self.course.saw_alert(at),
            Happened::What(Some(at)) => self.course.saw_end(at),
            Happened::What(None) | Happened::Time => {}
            Happened::Trouble(why) => self.course.finish(Verdict::Aborted, why),
        }
    }

    /// What comes first: this, the end of the time that this part of the drill has, or something that has precedence.
    async fn until<T>(&self, what: impl Future<Output = T>, stop: &CancellationToken) -> Happened<T> {
        let (board, name, clock) = (&self.props.board, &self.journey.name, self.props.clock);
        let mut changes = board.watch();
        let trouble = async {
            loop {
                if let Some(why) = real_trouble(board, name) {
                    return why;
                }
                if board.journey(name).is_none() {
                    return "the journey was taken out of the configuration".to_owned();
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let time = async {
            match self.course.deadline() {
                Some(deadline) => clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Happened::Trouble("the daemon is stopping".to_owned()),
            why = trouble => Happened::Trouble(why),
            found = what => Happened::What(found),
            () = time => Happened::Time,
        }
    }

    /// A notice that carries this token is the drill's.
    fn expect(&self, mark: &Mark) {
        let now = self.props.clock.now().wall;
        let entry = Entry {
            journey: self.shadow.name.clone(),
            slot: now,
            recorded: now,
            keep_until: keep_until(now, self.order.within),
            settled: None,
        };
        self.props.runner.switchboard.expect(mark.token, entry, mark.mailbox.clone());
    }

    /// What is known of the notices, for people who wonder why they were not seen.
    async fn trace(&self) -> String {
        let Some(open) = &self.record.open else { return "nothing was owed to anybody".to_owned() };
        let rows = match self.props.store.notices(open.incident.id.clone(), 100).await {
            Ok(rows) => rows,
            Err(error) => return format!("what became of it is not known: {error}"),
        };
        let read_back = &self.record.read_back;
        let told = rows.iter().map(|row| {
            let said = row.state.error.as_deref().unwrap_or("it has not been tried yet");
            match (row.state.status, &row.state.receipt) {
                (OutboxStatus::Sent, receipt) => {
                    let said = receipt.as_ref().map_or("", |receipt| &receipt.said);
                    format!("`{}` took it ({said}), and it did not come in at `{read_back}`", row.notifier)
                }
                (OutboxStatus::Dead, _) => format!("`{}` gave it up: {said}", row.notifier),
                (_, _) => format!("`{}`: {said}", row.notifier),
            }
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Writes how far it is, with what is owed. Nobody waits for a disk to hear of an outage, be it a rehearsed one.
    async fn keep(&mut self, rows: &[crate::store::OutboxRow]) {
        self.record.follow(&self.course);
        if let Err(error) = self.props.store.apply(self.props.changes(&self.record, rows)).await {
            tracing::warn!(drill = self.record.id, %error, "how far a drill is could not be written");
        }
        if !rows.is_empty() {
            self.props.outbox.wake();
        }
    }

    async fn finish(mut self) {
        let now = self.props.clock.now();
        self.side.set(None, self.alert.token);
        let (verdict, why) = self.course.end().unwrap_or((Verdict::Aborted, "it did not end"));
        let why = self.props.runner.redactor.clean(why);
        self.record.follow(&self.course);
        let owed = match self.record.open.take() {
            Some(open) => self.props.endings(&open, &self.record.notifiers, verdict.words()),
            None => Vec::new(),
        };
        self.record.end(verdict, why, now.wall);
        let Record { id, journey, why, .. } = &self.record;
        let (took, verdict_said) = (crate::time::between(self.record.started, now.wall), verdict.words());
        match verdict {
            Verdict::Passed => tracing::info!(drill = id, %journey, ?took, why, "a drill passed"),
            _ => tracing::warn!(drill = id, %journey, ?took, why, "a drill: {verdict_said}"),
        }
        self.props.metrics.drill_ended(journey, verdict);
        if verdict == Verdict::Passed {
            self.props.metrics.drill_passed(journey, now.wall);
        }
        let changes = self.props.changes(&self.record, &owed);
        if let Err(error) = self.props.store.apply(changes).await {
            tracing::error!(drill = id, %error, "what a drill came to could not be written");
        }
        self.props.outbox.wake();
        for mark in [&self.alert, &self.end] {
            self.props.runner.switchboard.settle(mark.token, Settled::Arrived);
        }
    }
}

fn purpose(is_confirmation: bool) -> crate::journey::run::checkpoint::Purpose {
    use crate::journey::run::checkpoint::Purpose;
    if is_confirmation { Purpose::Confirmation } else { Purpose::Slot }
}
