//! Another plan while the daemon runs. Everything that can fail is done first; what then follows cannot. So the daemon runs the old
//! plan or the new one, whole: what is the same in both keeps its connections, its phase and its state.

mod triggers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::alert::Subject;
use crate::app::channels::{Opener, readings};
use crate::app::drift::{self, Course};
use crate::app::drills;
use crate::app::own;
use crate::app::tasks::Tasks;
use crate::app::{DRAIN_NOTICES, DRAIN_PART, lenders, open_buttons, open_spending, policy, slack_settings};
use crate::breaker::Guarded;
use crate::commands::{Callbacks, Commands, Levers, Refusal, Reload, Reloaded};
use crate::config::{self, Difference, Plan};
use crate::delivery::{Outbox, Worker, Workplace};
use crate::detect::{Detector, Finding};
use crate::evaluator::Adoption;
use crate::journey::Name;
use crate::metrics::{ConfigMetrics, Metrics};
use crate::notifier::slack::Buttons;
use crate::rehearsal::Scene;
use crate::runner::Runner;
use crate::runner::gate::Users;
use crate::scheduler::{Observation, Replan};

pub use triggers::Source;
pub(super) use triggers::watch;

/// The board's component that says which configuration runs.
const COMPONENT: &str = "configuration";
/// The log and the page show so much of what is wrong with a configuration, in characters.
const SHOWN: usize = 4_000;

/// What runs of the plan, and what it takes to run another.
pub(super) struct Live {
    pub(super) plan: Plan,
    pub(super) path: PathBuf,
    pub(super) opener: Opener,
    pub(super) runner: Arc<Runner>,
    pub(super) levers: Arc<Levers>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shown: ConfigMetrics,
    /// The fingerprint of the plan, for who shows it.
    pub(super) running: watch::Sender<String>,
    pub(super) workplace: Workplace,
    pub(super) outbox: Arc<Outbox>,
    pub(super) staff: Staff,
    /// What stops the reader of each channel; those of channels that are gone are read until no run uses them.
    pub(super) readers: BTreeMap<Name, CancellationToken>,
    pub(super) buttons: Switch,
    pub(super) adoptions: mpsc::Sender<Adoption>,
    pub(super) replans: mpsc::Sender<Replan>,
    pub(super) courses: watch::Sender<Arc<Vec<Course>>>,
    pub(super) scenes: watch::Sender<Arc<Scene>>,
    pub(super) key: Arc<[u8]>,
    /// Where the listener for inbound webhooks is.
    pub(super) hooks: Option<SocketAddr>,
}

/// The workers, and what ends each.
pub(super) struct Staff {
    pub(super) stop: CancellationToken,
    pub(super) lanes: BTreeMap<Name, Hired>,
}

/// One worker at work.
pub(super) struct Hired {
    stop: CancellationToken,
    ended: CancellationToken,
    task: AbortHandle,
}

/// What hears of buttons, and what ends it.
pub(super) struct Switch {
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) commands: Commands,
    pub(super) stop: CancellationToken,
    /// Of those that run now.
    pub(super) current: CancellationToken,
}

impl Switch {
    /// Hears of these buttons, and of no others.
    pub(super) fn turn(&mut self, buttons: Option<Buttons>, tasks: &mut Tasks) {
        self.current.cancel();
        self.current = self.stop.child_token();
        let mut buttons = buttons;
        self.callbacks.replace(buttons.as_mut().and_then(|buttons| buttons.callback.take()));
        if let Some(buttons) = buttons {
            tasks.spawn_until("buttons", &self.current, buttons.run(self.current.clone()));
        }
    }
}

impl Staff {
    /// Puts a worker to work.
    pub(super) fn hire(&mut self, name: Name, worker: Worker, place: &Workplace, tasks: &mut Tasks) {
        let (stop, ended) = (self.stop.child_token(), CancellationToken::new());
        let pulse = place.board.pulse("delivery", place.clock.now().mono);
        let (board, guard, until) = (place.board.clone(), ended.clone().drop_guard(), stop.clone());
        let work = async move {
            worker.run(pulse.clone(), until, DRAIN_NOTICES).await;
            board.end_pulse(&pulse);
            drop(guard);
        };
        let task = tasks.spawn_until("delivery", &stop, work);
        self.lanes.insert(name, Hired { stop, ended, task });
    }

    /// Lets these workers go. What they have in hand has a few seconds; after that it is looked up before it is tried again.
    async fn dismiss(&mut self, names: impl Iterator<Item = &Name>) {
        let gone: Vec<_> = names.filter_map(|name| self.lanes.remove(name)).collect();
        gone.iter().for_each(|hired| hired.stop.cancel());
        let all_ended = async {
            for hired in &gone {
                hired.ended.cancelled().await;
            }
        };
        if tokio::time::timeout(DRAIN_NOTICES + DRAIN_PART, all_ended).await.is_err() {
            gone.iter().for_each(|hired| hired.task.abort());
        }
    }
}

impl Live {
    /// Reads the configuration, and runs it if it is in order.
    pub(super) async fn reload(&mut self, asked: Reload, tasks: &mut Tasks) {
        let Reload { by, answer } = asked;
        let result = self.try_reload(tasks).await;
        let now = self.workplace.clock.now().wall;
        let result = match result {
            Ok(difference) => {
                tracing::info!(by, %difference, "the configuration was read again");
                self.shown.accepted(now);
                self.running.send_replace(self.plan.fingerprint.clone());
                self.workplace.board.set_component(
                    COMPONENT,
                    true,
                    false,
                    self.running(&format!("{by}: {difference}")),
                    now,
                );
                self.tell(Vec::new());
                let changes = serde_json::to_value(&difference).unwrap_or_default();
                Ok(Reloaded { said: difference.to_string(), changes })
            }
            Err(why) => {
                let why: String = self.plan.redactor.clean(&why).chars().take(SHOWN).collect();
                tracing::error!(by, why, "the configuration was not accepted; the one before goes on");
                self.shown.refused();
                let detail = format!("the one before goes on, {}: {why}", self.plan.fingerprint);
                self.workplace.board.set_component(COMPONENT, false, false, detail, now);
                let first = why.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
                let said = format!("a changed configuration was not accepted, and the one before goes on: {first}");
                self.tell(vec![Finding::new(Detector::Reload, said)]);
                Err(why)
            }
        };
        // Whoever asked may be gone.
        let _ = answer.send(result);
    }

    /// Which configuration runs, and since when.
    fn running(&self, how: &str) -> String {
        let now = self.workplace.clock.now().wall;
        format!("{} (loaded at {}; {how})", self.plan.fingerprint, now.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }

    fn tell(&self, findings: Vec<Finding>) {
        let observation = Observation::Condition { subject: Subject::Daemon("reload".into()), findings };
        // The evaluator may be behind; the log, the metric and the page say it all the same.
        if let Some(observations) = self.workplace.observations.upgrade() {
            let _ = observations.try_send(observation);
        }
    }

    async fn try_reload(&mut self, tasks: &mut Tasks) -> Result<Difference, String> {
        let (path, redactor) = (self.path.clone(), self.plan.redactor.clone());
        let loaded = tokio::task::spawn_blocking(move || config::reload(&path, &redactor)).await;
        let loaded = loaded.map_err(|error| format!("reading it failed: {error}"))?;
        let (mut plan, warnings) = loaded.map_err(|problems| config::render(&problems, false))?;
        if !warnings.is_empty() {
            tracing::warn!(warnings = config::render(&warnings, false), "the configuration has warnings");
        }
        own::join(&mut plan, &self.key, self.hooks);
        let difference = Difference::between(&self.plan, &plan).map_err(|keys| {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            format!("{} changed, which only a restart can take up; nothing of it was", keys.join(", "))
        })?;
        if !difference.is_empty() {
            self.run(plan, &difference, tasks).await?;
        }
        Ok(difference)
    }

    /// Runs this plan instead of the one before.
    async fn run(&mut self, plan: Plan, difference: &Difference, tasks: &mut Tasks) -> Result<(), String> {
        let failed = |failure: crate::exit::Failure| failure.to_string();
        let Workplace { store, clock, .. } = self.workplace.clone();
        let Some(observations) = self.workplace.observations.upgrade() else {
            return Err(Refusal::stopping().to_string());
        };
        let opened = self.opener.open(&plan, difference.channels.built()).map_err(failed)?;
        let built = difference.notifiers.built();
        let lenders = lenders(&plan, built, clock, &self.metrics, &self.key, &self.levers).map_err(failed)?;
        let has_other_buttons = slack_settings(&plan).chain(slack_settings(&self.plan)).any(|(name, _)| {
            let names = &difference.notifiers;
            names.built().chain(&names.removed).any(|other| other == name)
        });
        let buttons = match has_other_buttons {
            true => Some(open_buttons(&plan, self.key.clone(), self.buttons.commands.clone(), clock).map_err(failed)?),
            false => None,
        };
        let (spending, spend_metrics) = open_spending(&plan, &store, &self.metrics).await.map_err(failed)?;
        let courses = drift::courses(&plan.journeys, &spending);
        let counted = clock.now().wall;
        let (done, adopted) = oneshot::channel();
        let adoption = Adoption {
            journeys: plan.journeys.clone(),
            changed: difference.journeys.built().cloned().collect(),
            policy: policy(&plan, &spending, counted),
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
            self.workplace.board.remove_component(&format!("notifier {name}"));
            self.metrics.show("notifier", name, false);
            let what = Guarded::Notifier(name.clone());
            self.workplace.board.remove_breaker(&what);
            self.metrics.show_breaker(&what, false);
        }
        for lender in lenders {
            let name = lender.name.clone();
            self.metrics.show("notifier", &name, true);
            self.metrics.show_breaker(&Guarded::Notifier(name.clone()), true);
            let worker = self.outbox.employ(lender, &self.workplace);
            self.staff.hire(name, worker, &self.workplace, tasks);
        }
        // What was owed to one that is new again waits in the store.
        self.outbox.wake();
        self.runner.switchboard.regard(readings(&plan));
        let mut by_name = self.runner.channels.now().all().clone();
        by_name.retain(|name, _| plan.channels.contains_key(name));
        by_name.extend(opened.iter().map(|(name, opened)| (name.clone(), opened.open.clone())));
        for (name, open) in &by_name {
            if let Some(gate) = open.gate() {
                gate.set_users(Users::of(name, &plan.journeys, counted));
            }
        }
        let unused = self.runner.channels.replace(by_name);
        for (name, channel) in opened {
            // Of two readers on one route or one subscription the second would wait for the first.
            if let Some(before) = self.readers.remove(&name) {
                before.cancel();
                // Only a reader says how it is.
                self.workplace.board.remove_component(&format!("channel {name}"));
            }
            self.readers.insert(name, self.opener.start(channel, tasks, &observations));
        }
        self.retire(difference, unused, tasks);
        let (done, replanned) = oneshot::channel();
        let replan = Replan { journeys: plan.journeys.clone(), counted, spending, spend_metrics, done };
        if self.replans.send(replan).await.is_ok() {
            let _ = replanned.await;
        }
        self.courses.send_replace(Arc::new(courses));
        self.scenes.send_replace(Arc::new(drills::scene(&plan)));
        if let Some(buttons) = buttons {
            self.buttons.turn(buttons, tasks);
        }
        self.plan = plan;
        Ok(())
    }

    /// Stops reading channels that the plan has no more, once the last run that uses them has ended.
    fn retire(&mut self, difference: &Difference, unused: CancellationToken, tasks: &mut Tasks) {
        for name in &difference.channels.removed {
            self.workplace.board.remove_channel(name);
            self.metrics.show("channel", name, false);
            self.metrics.show_breaker(&Guarded::Channel(name.clone()), false);
            if let Some(reader) = self.readers.get(name).cloned() {
                let (unused, switchboard, name) = (unused.clone(), self.runner.switchboard.clone(), name.clone());
                tasks.spawn_until("reader", &reader.clone(), async move {
                    tokio::select! {
                        biased;
                        // Another channel has the name by now, or we are stopping.
                        () = reader.cancelled() => {}
                        () = unused.cancelled() => {
                            switchboard.disregard(&name);
                            reader.cancel();
                        }
                    }
                });
            }
        }
    }
}

/// That the configuration which the daemon was started with runs.
pub(super) fn show_start(live: &Live) {
    let now = live.workplace.clock.now().wall;
    live.shown.accepted(now);
    live.workplace.board.set_component(COMPONENT, true, false, live.running("the start"), now);
}
