//! What runs need without a daemon: channels, a runner, and a store that does not outlive them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{DRAIN_PART, OBSERVATIONS, alarms, build_runner, channels, open_mint, start_channels, store_failure};
use crate::alarm::Alarms;
use crate::app::channels::Inlets;
use crate::app::heritage::Heritage;
use crate::app::tasks::Tasks;
use crate::board::Board;
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::journey::Journey;
use crate::journey::message::Arrival;
use crate::metrics::Metrics;
use crate::runner::Runner;
use crate::scheduler::Observation;
use crate::store::Store;
use crate::store::sqlite::Sqlite;

/// Open channels and a runner over them. Nothing takes what arrives yet: that is for who has the [`Takings`].
pub(super) struct Bench {
    pub(super) runner: Arc<Runner>,
    pub(super) board: Arc<Board>,
    pub(super) tasks: Tasks,
    /// Ends what reads.
    pub(super) stop_readers: CancellationToken,
    store: Arc<dyn Store>,
    directory: PathBuf,
}

/// Where arrivals come out, and what they came to goes in.
pub(super) struct Takings {
    pub(super) inlets: Inlets,
    pub(super) before: Vec<Arrival>,
    pub(super) observations: mpsc::Sender<Observation>,
}

impl Bench {
    /// Opens the channels of this plan; `name` is for the directory of its store.
    ///
    /// # Errors
    /// The store cannot be made, or a channel cannot be opened.
    pub(super) async fn open(plan: &Plan, name: &str, clock: Clock) -> Result<(Bench, Takings), Failure> {
        let directory = std::env::temp_dir().join(format!("journeyman-{name}-{}", std::process::id()));
        let store: Arc<dyn Store> = Arc::new(
            Sqlite::open(&directory.join(format!("{name}.db")))
                .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("{}: {error}", directory.display())))?,
        );
        let board = Arc::new(Board::default());
        let metrics = Arc::new(Metrics::new(&plan.journeys, plan.location.as_deref()));
        let stop_readers = CancellationToken::new();
        let mint = open_mint(store.key().await.map_err(|error| store_failure(plan, &error))?)?;
        let hooks = channels::bind_hooks(plan, clock).await?;
        let (opener, inlets) = channels::opener(hooks, None, clock, &board, &metrics, &mint, &stop_readers);
        let alarms = Alarms::default();
        let opener = opener.with_alarms(alarms.clone());
        let mut opened = opener.open(plan, plan.channels.keys())?;
        let (runner, _, before) =
            build_runner(plan, clock, (&store, None), mint, &mut opened, None, Heritage::default());
        // Nobody decides anything by what is observed here.
        let (observations, _) = mpsc::channel(OBSERVATIONS);
        let mut tasks = Tasks::default();
        alarms::take(plan, &alarms, &mut tasks, clock, &stop_readers)?;
        start_channels(&mut tasks, &opener, opened, &observations);
        let takings = Takings { inlets, before, observations };
        Ok((Bench { runner, board, tasks, stop_readers, store, directory }, takings))
    }

    /// Ends the readers and forgets the store.
    pub(super) async fn close(mut self) {
        self.stop_readers.cancel();
        self.tasks.wait_for(&["hooks", "reader", "journal", "switchboard", "alarm"], DRAIN_PART).await;
        self.tasks.abort();
        // What is left of it is of no interest, and the next one makes its own.
        let _ = self.store.close().await;
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The plan with these journeys alone, and only the channels that they use.
pub(super) fn narrowed(mut plan: Plan, journeys: &[Arc<Journey>]) -> Plan {
    let used: BTreeSet<_> = journeys.iter().flat_map(|journey| journey.channels()).collect();
    plan.channels.retain(|name, _| used.contains(name));
    let has_webhook = plan.channels.values().any(|channel| channel.kind.name == "webhook");
    plan.hooks = plan.hooks.filter(|_| has_webhook);
    plan.journeys = journeys.to_vec();
    plan
}
