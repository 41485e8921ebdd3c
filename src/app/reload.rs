//! Another plan while the daemon runs. Everything that can fail is done first; what then follows cannot. So the daemon runs the old
//! plan or the new one, whole: what is the same in both keeps its connections, its phase and its state.

mod triggers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::alert::Subject;
use crate::app::channels::{Opener, readings};
use crate::app::lead::{Ground, Lead, Revision};
use crate::app::tasks::Tasks;
use crate::app::{open_spending, own, store_failure};
use crate::breaker::Guarded;
use crate::commands::{Refusal, Reload, Reloaded};
use crate::config::{self, Difference, Parts, Plan};
use crate::detect::{Detector, Finding};
use crate::journey::{Journey, Name};
use crate::metrics::ConfigMetrics;
use crate::runner::Runner;
use crate::runner::gate::Users;
use crate::scheduler::{Observation, Replan};
use crate::store::Store;

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
    pub(super) shown: ConfigMetrics,
    /// What the plan consists of, for who shows it.
    pub(super) running: watch::Sender<Parts>,
    /// Where runs are written down.
    pub(super) store: Arc<dyn Store>,
    /// What decides, if it is this daemon that does.
    pub(super) lead: Option<Lead>,
    pub(super) ground: Ground,
    /// The journeys of the plan, for who shares them.
    pub(super) planned: watch::Sender<Vec<Arc<Journey>>>,
    /// The plan, for whoever builds something of it later.
    pub(super) plans: watch::Sender<Arc<Plan>>,
    /// What stops the reader of each channel; those of channels that are gone are read until no run uses them.
    pub(super) readers: BTreeMap<Name, CancellationToken>,
    pub(super) replans: mpsc::Sender<Replan>,
    /// Where the listener for inbound webhooks is.
    pub(super) hooks: Option<SocketAddr>,
}

impl Live {
    /// Reads the configuration, and runs it if it is in order.
    pub(super) async fn reload(&mut self, asked: Reload, tasks: &mut Tasks) {
        let Reload { by, answer } = asked;
        let result = self.try_reload(tasks).await;
        let now = self.ground.clock.now().wall;
        let result = match result {
            Ok(difference) => {
                tracing::info!(by, %difference, "the configuration was read again");
                self.shown.accepted(now);
                self.running.send_replace(self.plan.parts.clone());
                self.ground.board.set_component(
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
                let detail = format!("the one before goes on, {}: {why}", self.plan.parts.fingerprint());
                self.ground.board.set_component(COMPONENT, false, false, detail, now);
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
        let now = self.ground.clock.now().wall;
        format!("{} (loaded at {}; {how})", self.plan.parts.fingerprint(), now.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }

    fn tell(&self, findings: Vec<Finding>) {
        let observation = Observation::Condition { subject: Subject::Daemon("reload".into()), findings };
        // The evaluator may be behind; the log, the metric and the page say it all the same.
        if let Some(observations) = self.ground.observations.upgrade() {
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
        own::join(&mut plan, &self.ground.key, self.hooks);
        let difference = Difference::between(&self.plan, &plan).map_err(|keys| {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            format!("{} changed, which only a restart can take up; nothing of it was", keys.join(", "))
        })?;
        match difference.is_empty() {
            false => self.run(plan, &difference, tasks).await?,
            // What is written is another, such as a journey that is put away; what runs is not.
            true => self.plan.parts = plan.parts,
        }
        Ok(difference)
    }

    /// Runs this plan instead of the one before.
    async fn run(&mut self, plan: Plan, difference: &Difference, tasks: &mut Tasks) -> Result<(), String> {
        let failed = |failure: crate::exit::Failure| failure.to_string();
        let Ground { clock, metrics, .. } = &self.ground;
        let clock = *clock;
        let Some(observations) = self.ground.observations.upgrade() else {
            return Err(Refusal::stopping().to_string());
        };
        let opened = self.opener.open(&plan, difference.channels.built()).map_err(failed)?;
        let spent = self.store.spent().await.map_err(|error| failed(store_failure(&plan, &error)))?;
        let (spending, spend_metrics) = open_spending(&plan, spent, metrics);
        let counted = clock.now().wall;
        // From its end on nothing can fail.
        if let Some(lead) = &mut self.lead {
            let revision = Revision { before: &self.plan, plan: &plan, difference, spending: &spending, counted };
            lead.change(revision, &self.ground, tasks).await?;
        }
        self.planned.send_replace(plan.journeys.clone());
        self.plans.send_replace(Arc::new(plan.clone()));
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
                self.ground.board.remove_component(&format!("channel {name}"));
            }
            self.readers.insert(name, self.opener.start(channel, tasks, &observations));
        }
        self.retire(difference, unused, tasks);
        let (done, replanned) = oneshot::channel();
        let replan = Replan { journeys: plan.journeys.clone(), counted, spending, spend_metrics, done };
        if self.replans.send(replan).await.is_ok() {
            let _ = replanned.await;
        }
        self.plan = plan;
        Ok(())
    }

    /// Stops reading channels that the plan has no more, once the last run that uses them has ended.
    fn retire(&mut self, difference: &Difference, unused: CancellationToken, tasks: &mut Tasks) {
        for name in &difference.channels.removed {
            self.ground.board.remove_channel(name);
            self.ground.metrics.show("channel", name, false);
            self.ground.metrics.show_breaker(&Guarded::Channel(name.clone()), false);
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
    let now = live.ground.clock.now().wall;
    live.shown.accepted(now);
    live.ground.board.set_component(COMPONENT, true, false, live.running("the start"), now);
}
