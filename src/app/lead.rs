//! What only the daemon that decides has: verdicts become alerts here, and people are told. Of those that share a store one does so
//! at a time, and another takes it up when that one is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::app::drift::{self, Course};
use crate::app::drills;
use crate::app::staff::{Staff, Switch};
use crate::app::tasks::{self, Tasks};
use crate::app::watcher::{Around, Unwatched, Watch};
use crate::app::{lenders, open_buttons, policy, slack_settings, store_failure};
use crate::board::Board;
use crate::boots::Boot;
use crate::breaker::Guarded;
use crate::clock::Clock;
use crate::commands::{Callbacks, Command, Commands, Drills, Levers, Refusal, Reloads};
use crate::config::{Difference, Plan};
use crate::delivery::{self, Outbox, Worker, Workplace};
use crate::drill::DrillSettings;
use crate::evaluator::{Adoption, Evaluator, Handover, Parts};
use crate::exit::{self, Failure};
use crate::gate::Door;
use crate::http::Views;
use crate::journey::Name;
use crate::journey::spend::Spending;
use crate::metrics::{DaemonMetrics, Metrics};
use crate::notifier::slack::Buttons;
use crate::observer::Observer;
use crate::rehearsal::{Conductor, Props, Scene};
use crate::runner::Runner;
use crate::scheduler::{Observation, Wish};
use crate::store::Store;
use crate::store::spool::Spool;

/// Who runs journeys of a shared store and is gone, is followed within this: what is promised, and a start.
pub(super) const TAKEOVER: Duration = Duration::from_secs(15);

/// What every daemon has, whether it decides or not.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) daemon: Arc<DaemonMetrics>,
    pub(super) levers: Arc<Levers>,
    /// The installation's key.
    pub(super) key: Arc<[u8]>,
    /// Knows whether our own network is down.
    pub(super) observer: Option<Arc<Observer>>,
    /// Where runs are asked for.
    pub(super) wishes: mpsc::Sender<Wish>,
    /// Where commands are given.
    pub(super) commands: Commands,
    /// Where what is seen goes, for as long as anything is seen.
    pub(super) observations: mpsc::WeakSender<Observation>,
    /// Where notifiers are rung for a test.
    pub(super) alarms: Alarms,
    pub(super) runner: Arc<Runner>,
    /// What stands in for a shared store that is another daemon's, for last words.
    pub(super) spare: Option<Arc<dyn Store>>,
    pub(super) stop_scheduler: CancellationToken,
    pub(super) stop_readers: CancellationToken,
    pub(super) stop_workers: CancellationToken,
    pub(super) stop_http: CancellationToken,
}

/// Up to when slots are counted, and which of them somebody goes on with.
#[derive(Default)]
pub(super) struct Counted {
    /// Up to here. Of journeys that others run, it is they who say so.
    pub(super) until: Timestamp,
    pub(super) waiting: HashMap<Name, Vec<Timestamp>>,
}

/// Another plan than before.
#[derive(Clone, Copy)]
pub(super) struct Revision<'a> {
    pub(super) before: &'a Plan,
    pub(super) plan: &'a Plan,
    pub(super) difference: &'a Difference,
    pub(super) spending: &'a Spending,
    /// Slots of new journeys are counted up to then.
    pub(super) counted: Timestamp,
}

/// Built, and not yet at work.
pub(super) struct Ready {
    pub(super) evaluator: Evaluator,
    store: Arc<dyn Store>,
    watch: Watch,
    workplace: Workplace,
    outbox: Arc<Outbox>,
    workers: Vec<Worker>,
    buttons: Option<Buttons>,
    adoptions: mpsc::Sender<Adoption>,
    handovers: mpsc::Sender<Handover>,
    courses: watch::Sender<Arc<Vec<Course>>>,
    scenes: watch::Sender<Arc<Scene>>,
    drilled: watch::Sender<Option<DrillSettings>>,
    rehearsal: (Drills, Conductor),
}

/// At work: what it takes to change it.
pub(super) struct Lead {
    pub(super) workplace: Workplace,
    pub(super) outbox: Arc<Outbox>,
    pub(super) staff: Staff,
    pub(super) buttons: Switch,
    pub(super) adoptions: mpsc::Sender<Adoption>,
    /// Where it leaves what it told to another.
    pub(super) handovers: mpsc::Sender<Handover>,
    pub(super) courses: watch::Sender<Arc<Vec<Course>>>,
    pub(super) scenes: watch::Sender<Arc<Scene>>,
    /// What the configuration says of drills.
    pub(super) drilled: watch::Sender<Option<DrillSettings>>,
    /// This start, for its end.
    pub(super) boot: Boot,
}

impl Ready {
    /// Builds all of it over the store, and takes up what is saved there. While that takes nothing, runs are kept in
    /// the spool.
    ///
    /// # Errors
    /// The store, or something that cannot be built.
    pub(super) async fn build(
        plan: &Plan,
        ground: &Ground,
        (store, spool): (Arc<dyn Store>, Option<Spool>),
        spending: &Spending,
        Counted { until, waiting }: Counted,
        commanded: mpsc::Receiver<Command>,
    ) -> Result<Ready, Failure> {
        let Ground { clock, board, metrics, daemon, levers, key, observer, wishes, commands, .. } = ground;
        let clock = *clock;
        let mut watch = Watch::open(plan, &store, metrics, board, clock).await.map_err(|error| match error {
            Unwatched::Store(error) => store_failure(plan, &error),
            Unwatched::Built(why) => {
                Failure::new(exit::CONFIG, format!("what watches the daemon cannot be built: {why}"))
            }
        })?;
        let workplace = Workplace {
            store: store.clone(),
            spare: ground.spare.clone(),
            clock,
            board: board.clone(),
            observations: ground.observations.clone(),
            alarms: ground.alarms.clone(),
        };
        let mut lenders = lenders(plan, plan.notifiers.keys(), clock, metrics, key, levers)?;
        lenders.extend(watch.lender(metrics, levers));
        let (outbox, workers) = delivery::build(lenders, &workplace);
        let (adoptions, adopted) = mpsc::channel(1);
        let (handovers, handed) = mpsc::channel(1);
        let parts = Parts {
            store: store.clone(),
            metrics: metrics.clone(),
            daemon: daemon.clone(),
            board: board.clone(),
            outbox: outbox.clone(),
            clock,
            wishes: wishes.clone(),
            location: plan.location.clone(),
            public_url: plan.http.public_url.clone(),
            waiting,
            takeover: if store.is_shared() { TAKEOVER } else { Duration::ZERO },
            policy: policy(plan, spending, clock.now().wall),
            own: watch.pulse(board, clock),
            levers: levers.clone(),
            observer: observer.clone(),
            alone: None,
            spare: ground.spare.clone(),
            spool,
        };
        let buttons = open_buttons(plan, key.clone(), commands.clone(), clock)?;
        let evaluator = Evaluator::load(parts, &plan.journeys, until, commanded)
            .await
            .map_err(|error| store_failure(plan, &error))?
            .with_adoptions(adopted)
            .with_handovers(handed);
        let courses = watch::channel(Arc::new(drift::courses(&plan.journeys, spending))).0;
        let (scenes, scene) = watch::channel(Arc::new(drills::scene(plan)));
        let (drilled, settings) = watch::channel(plan.drill.clone());
        let props = |link| Props {
            runner: ground.runner.clone(),
            store: store.clone(),
            outbox: outbox.clone(),
            board: board.clone(),
            metrics: metrics.clone(),
            clock,
            location: plan.location.clone(),
            link,
        };
        let rehearsal =
            drills::open(plan, props, scene, settings).await.map_err(|error| store_failure(plan, &error))?;
        Ok(Ready {
            evaluator,
            store,
            watch,
            workplace,
            outbox,
            workers,
            buttons,
            adoptions,
            handovers,
            courses,
            scenes,
            drilled,
            rehearsal,
        })
    }

    /// Where drills are asked for.
    pub(super) fn drills(&self) -> Drills {
        self.rehearsal.0.clone()
    }

    /// How many crashes in a row came before this start.
    pub(super) fn crashes(&self) -> usize {
        self.watch.crashes()
    }

    /// Puts all of it to work.
    pub(super) fn spawn(
        self,
        ground: &Ground,
        callbacks: Arc<Callbacks>,
        observed: mpsc::Receiver<Observation>,
        tasks: &mut Tasks,
    ) -> Lead {
        let Ready {
            evaluator,
            store,
            watch,
            workplace,
            outbox,
            workers,
            buttons,
            adoptions,
            handovers,
            courses,
            scenes,
            drilled,
            rehearsal,
        } = self;
        let Ground { clock, board, metrics, daemon, commands, stop_readers, stop_workers, stop_http, .. } = ground;
        let clock = *clock;
        if let Some(observations) = ground.observations.upgrade() {
            let drift = drift::watch(courses.subscribe(), store.clone(), observations, clock, stop_readers.clone());
            tasks.spawn("drift", drift);
        }
        let around = Around { store, board: board.clone(), metrics: metrics.clone(), daemon: daemon.clone(), clock };
        let boot = watch.spawn(tasks, &around, stop_workers);
        let mut switch = Switch {
            callbacks,
            commands: commands.clone(),
            stop: stop_http.clone(),
            current: CancellationToken::new(),
        };
        switch.turn(buttons, tasks);
        let pulse = board.pulse("evaluator", clock.now().mono);
        tasks.spawn("evaluator", evaluator.run(observed, pulse));
        let mut staff = Staff { stop: stop_workers.clone(), lanes: BTreeMap::new() };
        for worker in workers {
            staff.hire(worker.name().clone(), worker, &workplace, tasks);
        }
        let pulse = board.pulse("drills", clock.now().mono);
        tasks.spawn("drills", rehearsal.1.run(pulse, ground.stop_scheduler.clone()));
        Lead { workplace, outbox, staff, buttons: switch, adoptions, handovers, courses, scenes, drilled, boot }
    }
}

impl Lead {
    /// Goes by another plan. All that can fail is done first.
    ///
    /// # Errors
    /// Something cannot be built, or the saved state cannot be read; nothing was changed.
    pub(super) async fn change(
        &mut self,
        revision: Revision<'_>,
        ground: &Ground,
        tasks: &mut Tasks,
    ) -> Result<(), String> {
        let Revision { before, plan, difference, spending, counted } = revision;
        let failed = |failure: Failure| failure.to_string();
        let Ground { clock, board, metrics, levers, key, .. } = ground;
        let clock = *clock;
        let lenders = lenders(plan, difference.notifiers.built(), clock, metrics, key, levers).map_err(failed)?;
        let has_other_buttons = slack_settings(plan).chain(slack_settings(before)).any(|(name, _)| {
            let names = &difference.notifiers;
            names.built().chain(&names.removed).any(|other| other == name)
        });
        let buttons = match has_other_buttons {
            true => Some(open_buttons(plan, key.clone(), self.buttons.commands.clone(), clock).map_err(failed)?),
            false => None,
        };
        let (done, adopted) = oneshot::channel();
        let adoption = Adoption {
            journeys: plan.journeys.clone(),
            changed: difference.journeys.built().cloned().collect(),
            policy: policy(plan, spending, counted),
            counted,
            done,
        };
        let stopping = || Refusal::stopping().to_string();
        self.adoptions.send(adoption).await.map_err(|_| stopping())?;
        adopted.await.map_err(|_| stopping())?.map_err(|error| format!("the saved state cannot be read: {error}"))?;

        // From here on nothing can fail.
        self.staff.dismiss(difference.notifiers.changed.iter().chain(&difference.notifiers.removed)).await;
        for name in &difference.notifiers.removed {
            self.outbox.dismiss(name);
            board.remove_component(&format!("notifier {name}"));
            metrics.show("notifier", name, false);
            let what = Guarded::Notifier(name.clone());
            board.remove_breaker(&what);
            metrics.show_breaker(&what, false);
        }
        for lender in lenders {
            let name = lender.name.clone();
            metrics.show("notifier", &name, true);
            metrics.show_breaker(&Guarded::Notifier(name.clone()), true);
            let worker = self.outbox.employ(lender, &self.workplace);
            self.staff.hire(name, worker, &self.workplace, tasks);
        }
        // What was owed to one that is new again waits in the store.
        self.outbox.wake();
        self.courses.send_replace(Arc::new(drift::courses(&plan.journeys, spending)));
        self.scenes.send_replace(Arc::new(drills::scene(plan)));
        if difference.tables.contains("drill") {
            self.drilled.send_replace(plan.drill.clone());
        }
        if let Some(buttons) = buttons {
            self.buttons.turn(buttons, tasks);
        }
        Ok(())
    }
}

/// What people and machines are shown by the daemon that decides.
pub(super) struct Shown {
    pub(super) listener: TcpListener,
    pub(super) door: Door,
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) ready: Arc<std::sync::atomic::AtomicBool>,
    pub(super) reloads: Option<Reloads>,
}

impl Shown {
    /// Shows it, as a task.
    pub(super) fn spawn(self, plan: &Plan, ground: &Ground, ready: &Ready, tasks: &mut Tasks) {
        let Shown { listener, door, callbacks, ready: is_ready, reloads } = self;
        let views = Views {
            board: ground.board.clone(),
            store: ready.store.clone(),
            metrics: ground.metrics.clone(),
            clock: ground.clock,
            door,
            redactor: plan.redactor.clone(),
            public_url: plan.http.public_url.clone(),
            trace_url: plan.http.trace_url.clone(),
            status_page: plan.status_page.clone(),
            admin_token: plan.http.admin_token.clone(),
            location: plan.location.clone(),
            ready: is_ready,
            commands: ground.commands.clone(),
            slack: callbacks,
            reloads,
            drills: Some(ready.drills()),
        };
        tasks.spawn("http", tasks::serve_apart(listener, views, ground.stop_http.clone()));
    }
}
