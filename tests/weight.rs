//! What a run weighs while it waits for its message, and what a journey's numbers weigh. A binary of its own: it counts what the
//! whole process allocates, so its tests take turns.

use std::alloc::System;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::alert::Phase;
use journeyman::board::Board;
use journeyman::channel::{Listener, Opening, Readiness};
use journeyman::clock::Clock;
use journeyman::config;
use journeyman::journey::outcome::{Cause, Outcome, UnknownWhy};
use journeyman::journey::report::{Report, StepReport, StepStatus};
use journeyman::journey::token::{Mint, Token};
use journeyman::journey::value::Value;
use journeyman::journey::{Journey, Outgoing};
use journeyman::metrics::{JourneyMetrics, Metrics};
use journeyman::runner::open::OpenChannel;
use journeyman::runner::switchboard::{Reading, Switchboard};
use journeyman::runner::{Ends, Runner};
use journeyman::slo::{self, History};
use journeyman::store::Store;
use journeyman::store::sqlite::Sqlite;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a run that waits may have allocated, in bytes: its task, its message on the way, what the ledger has of it, and what it
/// takes to leave it to the next process. SQLite's own memory is not counted.
const MOST: usize = 2_304;

/// What a journey of two steps and two objectives may have allocated for its metrics, in bytes, once it was good, slow, failed for
/// two causes and unknown.
const MOST_METRICS: usize = 1_408;

/// Whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

const CHANNELS: &str = "[channels.loop]\ntype = \"memory\"\nmax_in_flight = 4000\n";
const JOURNEY: &str = "[[journey]]\nname = \"flight\"\nevery = \"30s\"\ndeadline = \"2h\"\n\
    [[journey.step]]\nsend = \"loop\"\njson = { id = \"{{ token }}\" }\ndelay = \"1h\"\n[[journey.step]]\nreceive = \"loop\"\n";

const JOURNEY_WITH_ALL: &str = "[[journey]]\nname = \"NAME\"\nevery = \"30s\"\nbudget = \"500ms\"\ndeadline = \"10s\"\n\
    objective = { delivered = \"99.9%\", in_budget = \"99%\", window = \"30d\" }\n\
    step = [{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }, { name = \"in\", receive = \"loop\" }]\n";

/// Bytes that are allocated now.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[tokio::test]
async fn a_run_that_waits_weighs_little() {
    let _turn = TURN.lock().await;
    let directory = std::env::temp_dir().join(format!("journeyman-weight-{}", std::process::id()));
    let clock = Clock::system();
    let (plan, _) = config::load_text("weight.toml", CHANNELS, &[("probe.toml", JOURNEY)], &directory)
        .unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&directory.join("weight.db")).expect("the store opens"));
    let (disk, mint) = (store.clone(), Arc::new(Mint::new([1; 32], 0)));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (readiness, ready) = watch::channel(Readiness::Starting);
    // Nothing arrives.
    let (arrivals, _arrivals) = mpsc::channel(1);
    let (name, planned) = plan.channels.first_key_value().expect("a channel");
    let channel = planned
        .settings
        .open(&Opening { clock, hooks: None, alarms: Default::default() })
        .expect("it opens")
        .expect("this build has it");
    let listener = Listener {
        channel: name.clone(),
        clock,
        arrivals,
        journal: Default::default(),
        since: None,
        readiness,
        mint: mint.clone(),
        nudge: Default::default(),
        awaited: Default::default(),
        stop: stop.clone(),
    };
    let reader = channel.clone();
    tasks.spawn(async move { reader.listen(listener).await });
    let policy = planned.policy.clone();
    let readings = HashMap::from([(name.clone(), Reading { policy: policy.clone() })]);
    let (board, metrics) =
        (Arc::new(Board::default()), Arc::new(Metrics::new(&plan.journeys, None)).channel(name, true));
    let open = OpenChannel::new(name.clone(), channel.clone(), policy, ready, clock, board, metrics);
    let runner = Arc::new(Runner {
        channels: BTreeMap::from([(name.clone(), Arc::new(open))]).into(),
        switchboard: Arc::new(Switchboard::new(mint.clone(), readings, [])),
        store,
        clock,
        mint,
        redactor: plan.redactor.clone(),
        observer: None,
        sieve: None,
        spare: None,
    });
    let journey = plan.journeys.first().expect("a journey");
    let under_way = async |runs: i64| {
        let question = Outgoing::empty(Duration::from_secs(1));
        let has_all = async {
            while channel.check(&question).await.expect("seen").message.expect("seen").facts["depth"]
                != Value::from(runs)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), has_all).await.expect("every message is on its way");
    };
    let mut weights = Vec::new();
    for runs in 1..=3_000 {
        let (runner, journey, stop) = (runner.clone(), journey.clone(), stop.clone());
        tasks.spawn(async move {
            runner.run(runner.order(journey, clock.now().wall), Ends { cut: &stop, leave: None }).await
        });
        if runs % 1_000 == 0 {
            under_way(runs).await;
            // What is on its way to the disk is there; the runs hear of it in their turn.
            disk.apply(Vec::new()).await.expect("the store takes commits");
            for _ in 0..runs * 2 {
                tokio::task::yield_now().await;
            }
            weights.push(allocated());
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let _ = std::fs::remove_dir_all(&directory);
    // The first thousand pay for what all share.
    let each = (weights[2] - weights[0]) / 2_000;
    assert!(each <= MOST, "{each} bytes a run; allocated at 1,000, 2,000 and 3,000 runs: {weights:?}");
}

/// Runs of it that came to everything that most journeys ever come to.
fn live(metrics: &JourneyMetrics, journey: &Journey) {
    let now = Timestamp::from_second(1_790_000_000).expect("a time");
    let latency = Duration::from_millis(40);
    let failed = |cause| Outcome::Failed { step: "in".into(), cause };
    let mut history = History::new(journey.window(), [], now);
    for outcome in [
        Outcome::Good { latency },
        Outcome::Slow { latency: latency * 20 },
        failed(Cause::NotReceived),
        failed(Cause::Unreachable),
        Outcome::Unknown { why: UnknownWhy::NotReady },
    ] {
        let is_right = outcome.latency().is_some();
        let status = if is_right { StepStatus::Passed } else { StepStatus::Failed };
        let steps = journey.steps.iter().map(|step| StepReport::new(step.name.clone(), "send", status));
        let report = Report {
            journey: journey.name.clone(),
            token: Token::from_bits(1),
            slot: now,
            started: now,
            latency,
            lateness: Duration::ZERO,
            steps: steps.collect(),
            beneath: None,
            note: None,
            configuration: String::new(),
            version: String::new(),
            outcome,
        };
        metrics.observe(&report, journey.budget, now);
        history.observe(now, report.outcome.verdict());
    }
    metrics.set_stale_after(Duration::from_secs(70));
    let objective = journey.objective.as_ref().expect("it has one");
    metrics.set_state(Phase::Suspect, Some(&slo::status(&history, objective, 86_400, now)));
}

#[tokio::test]
async fn the_metrics_of_a_journey_weigh_little() {
    let _turn = TURN.lock().await;
    let journeys = |range: std::ops::Range<usize>| -> Vec<Arc<Journey>> {
        let probes: String = range.map(|n| JOURNEY_WITH_ALL.replace("NAME", &format!("checkout-eu-{n}"))).collect();
        let (plan, _) = config::load_text("weight.toml", CHANNELS, &[("probe.toml", &probes)], "/".as_ref())
            .unwrap_or_else(|problems| panic!("{}", config::render(&problems, false)));
        plan.journeys
    };
    let (few, more) = (journeys(0..100), journeys(100..1_100));
    let metrics = Arc::new(Metrics::new(&few, Some("eu")));
    let handles = |journeys: &[Arc<Journey>]| -> Vec<JourneyMetrics> {
        let lived = |journey: &Arc<Journey>| {
            let handle = metrics.journey(journey);
            live(&handle, journey);
            handle
        };
        journeys.iter().map(lived).collect()
    };
    let _few = handles(&few);
    let before = allocated();
    let _more = handles(&more);
    let each = (allocated() - before) / more.len();
    assert!(each <= MOST_METRICS, "{each} bytes a journey");
}
