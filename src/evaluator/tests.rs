//! Daemons one after the other on one store, each killed: what they tell of channels and of themselves.

use std::path::PathBuf;

use tokio::task::JoinSet;

use super::*;
use crate::alert::JourneyAlerts;
use crate::commands::Commands;
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::seen::{Seen, What, certificate};
use crate::journey::token::Token;
use crate::runner::not_run;
use crate::store::sqlite::Sqlite;
use crate::time::later;

const DAY: Duration = Duration::from_secs(86_400);
const MAIN: &str = "
    [channels.loop]
    type = \"memory\"
    [notifiers.ops]
    type = \"webhook\"
    url = \"http://127.0.0.1:1/\"
    [alerting]
    notify = [\"ops\"]";
const PROBES: &str = "
    [[journey]]
    name = \"loop\"
    every = \"1d\"
    notify = [\"ops\"]
    step = [{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }, { name = \"in\", receive = \"loop\" }]";

struct Stage {
    directory: PathBuf,
    store: Arc<dyn Store>,
    journey: Arc<Journey>,
    clock: Clock,
    runs: std::cell::Cell<u128>,
    breakers: BTreeSet<Name>,
    told: usize,
    /// Slots whose runs go on from the daemon before.
    waiting: Vec<Timestamp>,
    /// Time moves only when it is moved: paused time jumps ahead while somebody waits for the disk, but for as long as this does.
    _still: std::sync::mpsc::Sender<()>,
}

/// One daemon's evaluator. Dropped, it has been killed.
struct Life {
    observations: mpsc::Sender<Observation>,
    commands: Commands,
    adoptions: mpsc::Sender<Adoption>,
    tasks: JoinSet<()>,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let directory = std::env::temp_dir().join(format!("journeyman-evaluator-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&directory.join("state.db")).unwrap());
        let (plan, _) =
            crate::config::load_text("journeyman.toml", MAIN, &[("probes.toml", PROBES)], &directory).unwrap();
        let clock = Clock::derived("2026-11-21T12:00:00Z".parse().unwrap());
        let (still, moves) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || moves.recv());
        Stage {
            _still: still,
            directory,
            store,
            journey: plan.journeys[0].clone(),
            clock,
            runs: Default::default(),
            breakers: BTreeSet::new(),
            told: 0,
            waiting: Vec::new(),
        }
    }

    async fn start(&self) -> Life {
        let (metrics, board) = (Arc::new(Metrics::new(&[], None)), Arc::new(Board::default()));
        let (observations, observed) = mpsc::channel(64);
        let (commands, commanded) = crate::commands::channel();
        let parts = Parts {
            store: self.store.clone(),
            daemon: Arc::new(metrics.daemon()),
            metrics,
            board: board.clone(),
            outbox: Arc::default(),
            wishes: mpsc::channel(1).0,
            clock: self.clock,
            location: None,
            public_url: None,
            takeover: Duration::ZERO,
            waiting: HashMap::from([(self.journey.name.clone(), self.waiting.clone())]),
            levers: Arc::default(),
            alone: None,
            spare: None,
            spool: None,
            policy: Policy { breakers: self.breakers.clone(), ..policy() },
            own: None,
            observer: None,
        };
        let now = self.clock.now();
        let evaluator = Evaluator::load(parts, std::slice::from_ref(&self.journey), now.wall, commanded).await.unwrap();
        let (adoptions, adopted) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(evaluator.with_adoptions(adopted).run(observed, board.pulse("evaluator", now.mono)));
        Life { observations, commands, adoptions, tasks }
    }

    /// A daemon that is told this and is killed; what people hear of it: why, of what, and by what it was found.
    async fn live(&mut self, observation: Option<Observation>) -> Vec<String> {
        tokio::time::advance(Duration::from_secs(1)).await;
        let life = self.start().await;
        if let Some(observation) = observation {
            life.tell(observation).await;
        }
        life.kill().await;
        self.news().await
    }

    /// What people are told since this was asked last.
    async fn news(&mut self) -> Vec<String> {
        let mut rows = self.store.outbox(None, None, 99).await.unwrap();
        rows.sort_by_key(|row| row.created);
        let told = std::mem::replace(&mut self.told, rows.len());
        let said = |row: &OutboxRow| format!("{} {}", row.notification.reason, row.notification.subject);
        rows[told..].iter().map(said).collect()
    }

    /// A run whose first step met this.
    fn run(&self, outcome: Outcome, seen: Vec<Seen>) -> Observation {
        let now = self.clock.now();
        let status = if outcome.cause().is_some() { StepStatus::Failed } else { StepStatus::Passed };
        let step = StepReport { channel: Some("loop".into()), seen, ..StepReport::new("out", "send", status) };
        let token = Token::from_bits(self.runs.replace(self.runs.get() + 1));
        let report = not_run(&self.journey, token, now.wall, now, crate::journey::outcome::UnknownWhy::Internal, "");
        Observation::Finished(Box::new(Report { outcome, steps: vec![step], note: None, ..report }))
    }

    fn good(&self, seen: Vec<Seen>) -> Observation {
        self.run(Outcome::Good { latency: Duration::ZERO }, seen)
    }

    /// A good run that met a certificate with so many days left.
    fn certificate(&self, days: u32, serial: &str) -> Observation {
        let told = certificate(later("2026-11-21T12:00:00Z".parse().unwrap(), DAY * days), serial, "Example CA");
        self.good(vec![Seen::new(What::Peer, "192.0.2.7:993"), Seen::new(What::Certificate, &told)])
    }

    fn throttled(&self) -> Observation {
        self.run(Outcome::Failed { step: "out".into(), cause: Cause::Throttled }, Vec::new())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Life {
    /// Returns when what follows from it is on disk.
    async fn tell(&self, observation: Observation) {
        tokio::time::advance(Duration::from_secs(1)).await;
        self.observations.send(observation).await.unwrap();
        // Observations go first; what is asked for is answered after them.
        self.commands.ask(Request::Unsilence { id: "nobody's".to_owned() }).await.unwrap_err();
    }

    /// Has it watch these journeys instead, all of which are others.
    async fn adopt(&self, journeys: Vec<Arc<Journey>>, now: Timestamp) -> Result<(), crate::store::StoreError> {
        tokio::time::advance(Duration::from_secs(1)).await;
        let (done, adopted) = oneshot::channel();
        let changed = journeys.iter().map(|journey| journey.name.clone()).collect();
        let adoption = Adoption { journeys, changed, policy: policy(), counted: now, done };
        self.adoptions.send(adoption).await.unwrap_or_else(|_| panic!("the evaluator has ended"));
        adopted.await.unwrap()
    }

    async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

pub(super) fn policy() -> Policy {
    Policy {
        dependencies: BTreeMap::new(),
        slowdowns: HashMap::new(),
        certificate_warnings: [("loop".into(), 14 * DAY)].into(),
        breakers: BTreeSet::new(),
        routes: Vec::new(),
        updatable: BTreeSet::new(),
        operators: vec!["ops".into()],
        notifiers: vec!["ops".into(), "chat".into()],
        group_by: vec![ResourceKind::Channel],
        digest_after: 20,
    }
}

fn reading(trouble: Option<&str>) -> Observation {
    Observation::Reading { channel: "loop".into(), trouble: trouble.map(str::to_owned) }
}

fn daemon(part: &str, detector: Option<Detector>) -> Observation {
    let findings = detector.into_iter().map(|detector| Finding::new(detector, "as it is")).collect();
    Observation::Condition { subject: Subject::Daemon(part.into()), findings }
}

#[tokio::test(start_paused = true)]
async fn what_fires_when_the_daemon_is_killed_is_told_once_and_so_is_its_end() {
    type Told = fn(&Stage, bool) -> Observation;
    let table: [(&str, &str, Told); 5] = [
        ("down", "channel loop", |_, is_bad| reading(is_bad.then_some("refused"))),
        ("certificate", "channel: loop", |stage, is_bad| match is_bad {
            true => stage.certificate(6, "1"),
            false => stage.certificate(96, "2"),
        }),
        ("delivery", "journeyman: delivery chat", |_, is_bad| {
            daemon("delivery chat", is_bad.then_some(Detector::Delivery))
        }),
        ("clock", "journeyman: clock", |_, is_bad| daemon("clock", is_bad.then_some(Detector::Clock))),
        ("blind", "journeyman: blind", |_, is_bad| daemon("blind", is_bad.then_some(Detector::Blind))),
    ];
    for (name, title, observation) in table {
        let mut stage = Stage::new(name);
        let nothing: [String; 0] = [];
        let say = |stage: &Stage, is_bad| Some(observation(stage, is_bad));
        let well = say(&stage, false);
        assert_eq!(stage.live(well).await, nothing, "{name}: well from the beginning");
        let bad = say(&stage, true);
        assert_eq!(stage.live(bad).await, [format!("first {title}")], "{name}");
        assert_eq!(stage.live(None).await, nothing, "{name}: nothing is known yet of whether it still holds");
        let still = say(&stage, true);
        assert_eq!(stage.live(still).await, nothing, "{name}: it still holds");
        let well = say(&stage, false);
        assert_eq!(stage.live(well).await, [format!("resolved {title}")], "{name}");
        let well = say(&stage, false);
        assert_eq!(stage.live(well).await, nothing, "{name}: it was told that it is over");
        let open = stage.store.open_incidents().await.unwrap();
        assert_eq!(open, [], "{name}");
        let states = stage.store.conditions().await.unwrap();
        assert!(states.iter().all(|(_, alert)| alert.phase == Phase::Ok), "{name}: {states:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn being_throttled_is_told_once_over_a_kill_and_ends_by_calm() {
    let mut stage = Stage::new("throttled");
    let nothing: [String; 0] = [];
    let life = stage.start().await;
    for _ in 0..3 {
        life.tell(stage.throttled()).await;
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    life.kill().await;
    // The journey is down by the same runs, and before the channel is told of: one cause, one page.
    assert_eq!(stage.news().await, ["first loop"]);
    let open = stage.store.open_incidents().await.unwrap();
    assert_eq!(
        open.iter().map(|incident| (incident.title(), incident.members)).collect::<Vec<_>>(),
        [("channel loop".to_owned(), 2)]
    );
    let life = stage.start().await;
    life.tell(stage.good(Vec::new())).await;
    life.tell(stage.good(Vec::new())).await;
    tokio::time::advance(Duration::from_secs(590)).await;
    assert_eq!(stage.news().await, nothing, "it is not calm yet");
    tokio::time::advance(Duration::from_secs(20)).await;
    life.tell(reading(None)).await;
    assert_eq!(stage.news().await, ["resolved channel loop"]);
    life.kill().await;
    assert_eq!(stage.live(None).await, nothing);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_uses_or_receives_on_any_more_is_not_down() {
    let mut stage = Stage::new("unused");
    let bad = Some(reading(Some("refused")));
    assert_eq!(stage.live(bad).await, ["first channel loop"]);
    let mut journey = Journey::clone(&stage.journey);
    journey.steps.truncate(1);
    stage.journey = Arc::new(journey.clone());
    tokio::time::advance(Duration::from_secs(60)).await;
    let life = stage.start().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    life.tell(stage.good(Vec::new())).await;
    life.kill().await;
    assert_eq!(stage.news().await, ["resolved channel loop"]);

    let six_days = Some(stage.certificate(6, "1"));
    assert_eq!(stage.live(six_days).await, ["first channel: loop"]);
    journey.steps.clear();
    stage.journey = Arc::new(journey);
    assert_eq!(stage.live(None).await, ["resolved channel: loop"]);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_with_days_left_is_not_why_a_journey_fails_and_is_told_again_once_a_day() {
    let mut stage = Stage::new("not-felt");
    let life = stage.start().await;
    life.tell(stage.certificate(6, "1")).await;
    for _ in 0..3 {
        life.tell(stage.run(Outcome::Failed { step: "out".into(), cause: Cause::Refused }, Vec::new())).await;
    }
    life.kill().await;
    assert_eq!(stage.news().await, ["first channel: loop", "first loop"]);
    let life = stage.start().await;
    for _ in 0..2 {
        life.tell(stage.certificate(6, "1")).await;
    }
    assert_eq!(stage.news().await, ["resolved loop"]);
    tokio::time::advance(DAY - Duration::from_secs(60)).await;
    life.tell(reading(None)).await;
    let nothing: [String; 0] = [];
    assert_eq!(stage.news().await, nothing);
    tokio::time::advance(Duration::from_secs(120)).await;
    life.tell(reading(None)).await;
    assert_eq!(stage.news().await, ["repeat channel: loop"]);
    // The last day has come: worse, by time alone. Meanwhile the journey is stale, which is another story.
    tokio::time::advance(DAY * 4).await;
    life.tell(reading(None)).await;
    let news = stage.news().await;
    assert_eq!(news.iter().filter(|told| *told == "worse channel: loop").count(), 1, "{news:?}");
    life.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_flapping_condition_ends_by_calm_alone() {
    let mut stage = Stage::new("flapping");
    let life = stage.start().await;
    for _ in 0..4 {
        life.tell(reading(Some("refused"))).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        life.tell(reading(None)).await;
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    assert_eq!(stage.news().await.len(), 7, "the fourth does not end at once");
    tokio::time::advance(Duration::from_secs(1_810)).await;
    life.tell(daemon("clock", None)).await;
    assert_eq!(stage.news().await, ["resolved channel loop"]);
    life.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_run_on_request_meets_counts_for_its_channel() {
    let mut stage = Stage::new("asked");
    let life = stage.start().await;
    let Observation::Finished(report) = stage.certificate(6, "1") else { panic!("it is a run") };
    let run = AskedRun { journey: report.journey.clone(), token: report.token, by: "ada".to_owned(), at: report.slot };
    life.tell(Observation::Asked { report, run }).await;
    life.kill().await;
    assert_eq!(stage.news().await, ["first channel: loop"]);
}

#[tokio::test(start_paused = true)]
async fn a_journey_that_goes_takes_its_alerts_along_and_comes_back_without() {
    let mut stage = Stage::new("adopted");
    let life = stage.start().await;
    let failed = || Outcome::Failed { step: "out".into(), cause: Cause::Refused };
    for _ in 0..3 {
        life.tell(stage.run(failed(), Vec::new())).await;
    }
    life.tell(reading(Some("refused"))).await;
    assert_eq!(stage.news().await, ["first loop"], "one cause, one page");
    life.adopt(Vec::new(), stage.clock.now().wall).await.unwrap();
    life.tell(daemon("clock", None)).await;
    assert_eq!(stage.news().await, ["resolved channel loop"]);
    assert_eq!(stage.store.open_incidents().await.unwrap(), []);
    assert_eq!(stage.store.journey("loop".into()).await.unwrap().alerts, JourneyAlerts::default());
    // Its runs that were under way end, and nobody minds.
    life.tell(stage.run(failed(), Vec::new())).await;

    life.adopt(vec![stage.journey.clone()], stage.clock.now().wall).await.unwrap();
    life.tell(stage.good(Vec::new())).await;
    let nothing: [String; 0] = [];
    assert_eq!(stage.news().await, nothing);
    for _ in 0..3 {
        life.tell(stage.run(failed(), Vec::new())).await;
    }
    assert_eq!(stage.news().await, ["first loop"]);
    // Another definition, the same incident.
    life.adopt(vec![stage.journey.clone()], stage.clock.now().wall).await.unwrap();
    for _ in 0..2 {
        life.tell(stage.good(Vec::new())).await;
    }
    assert_eq!(stage.news().await, ["resolved loop"]);
    life.kill().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_up_while_what_was_decided_is_not_on_disk() {
    let stage = Stage::new("unread");
    let life = stage.start().await;
    stage.store.close().await.unwrap();
    life.tell(reading(Some("refused"))).await;
    let other = Arc::new(Journey { name: "other".into(), ..Journey::clone(&stage.journey) });
    life.adopt(vec![other], stage.clock.now().wall).await.unwrap_err();
    for (name, is_there) in [("loop", true), ("other", false)] {
        let refused = life.commands.run(Which::Journey(name.into()), "ada".to_owned()).await.unwrap_err();
        assert_eq!(!matches!(refused, Refusal::Unknown(_)), is_there, "{name}: {refused}");
    }
    life.kill().await;
}

/// A slot counts once, and in its order.
#[tokio::test(start_paused = true)]
async fn what_went_by_is_counted_around_the_runs_that_go_on() {
    let mut stage = Stage::new("order");
    let now = stage.clock.now().wall;
    let slots: Vec<_> = stage.journey.schedule.slots(now, later(now, DAY * 7), 9).collect();
    let at = |stage: &Stage, nth: usize, outcome: Outcome| match stage.run(outcome, Vec::new()) {
        Observation::Finished(report) => Observation::Finished(Box::new(Report { slot: slots[nth], ..*report })),
        other => panic!("{other:?}"),
    };
    let good = || Outcome::Good { latency: Duration::ZERO };
    let lost = || Outcome::Failed { step: "in".into(), cause: Cause::NotReceived };
    let life = stage.start().await;
    life.tell(at(&stage, 0, good())).await;
    life.kill().await;
    tokio::time::advance(between(stage.clock.now().wall, slots[5]) + Duration::from_secs(1)).await;

    stage.waiting = vec![slots[1], slots[3]];
    let counted = async |stage: &Stage| -> Vec<String> {
        let spans = stage.store.journey(stage.journey.name.clone()).await.unwrap().spans;
        spans.iter().flat_map(|span| std::iter::repeat_n(span.verdict.to_string(), span.count as usize)).collect()
    };
    // The daemon in between ends before its runs do.
    stage.start().await.kill().await;
    assert_eq!(counted(&stage).await, ["good"], "nothing is counted before what came before it");
    let life = stage.start().await;
    life.tell(at(&stage, 1, lost())).await;
    assert_eq!(counted(&stage).await, ["good", "failed"]);
    life.tell(at(&stage, 3, good())).await;
    assert_eq!(counted(&stage).await, ["good", "failed", "unknown", "good", "unknown", "unknown"]);
    life.tell(at(&stage, 6, good())).await;
    assert_eq!(counted(&stage).await.len(), 7);
    life.kill().await;
}

fn breaking(is_open: bool, trouble: Option<&str>) -> Observation {
    Observation::Breaking { channel: "loop".into(), is_open, trouble: trouble.map(str::to_owned) }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_open_is_told_once_over_kills_and_ends_when_it_says_so() {
    let mut stage = Stage::new("breaking");
    stage.breakers.insert("loop".into());
    let nothing: [String; 0] = [];
    assert_eq!(stage.live(Some(breaking(true, None))).await, nothing, "it may be a blip");
    assert_eq!(stage.live(Some(breaking(true, Some("refused")))).await, ["first channel loop"]);
    assert_eq!(stage.live(None).await, nothing);
    assert_eq!(stage.live(Some(reading(None))).await, nothing, "that is its reader, and it was its breaker");
    assert_eq!(stage.live(Some(breaking(true, Some("refused")))).await, nothing, "it still holds");
    let life = stage.start().await;
    life.tell(breaking(false, None)).await;
    assert_eq!(stage.news().await, nothing, "its reader has not spoken");
    life.tell(reading(None)).await;
    life.kill().await;
    assert_eq!(stage.news().await, ["resolved channel loop"]);
}

/// Also before people were told that the channel is down: the journey that fails of it first opens the channel's incident.
#[tokio::test(start_paused = true)]
async fn whoever_fails_of_an_open_breaker_is_a_member_of_the_channels_incident() {
    let mut stage = Stage::new("blocked");
    stage.breakers.insert("loop".into());
    let life = stage.start().await;
    life.tell(breaking(true, None)).await;
    for _ in 0..3 {
        life.tell(stage.run(Outcome::Failed { step: "out".into(), cause: Cause::Blocked }, Vec::new())).await;
    }
    life.tell(breaking(true, Some("refused"))).await;
    assert_eq!(stage.news().await.len(), 1, "one cause, one page");
    let open = stage.store.open_incidents().await.unwrap();
    let titles: Vec<_> = open.iter().map(|incident| (incident.title(), incident.members)).collect();
    assert_eq!(titles, [("channel loop".to_owned(), 2)]);
    life.tell(breaking(false, None)).await;
    for _ in 0..3 {
        life.tell(stage.good(Vec::new())).await;
    }
    assert_eq!(stage.news().await, ["resolved channel loop"]);
    life.kill().await;
}

/// Nobody would ever take back what it said.
#[tokio::test(start_paused = true)]
async fn what_a_breaker_said_is_over_when_a_reload_lets_it_only_observe() {
    let mut stage = Stage::new("observing");
    stage.breakers.insert("loop".into());
    let life = stage.start().await;
    life.tell(reading(None)).await;
    life.tell(breaking(true, Some("refused"))).await;
    assert_eq!(stage.news().await, ["first channel loop"]);
    // Of these journeys' policy no breaker refuses anything.
    life.adopt(vec![stage.journey.clone()], stage.clock.now().wall).await.unwrap();
    assert_eq!(stage.news().await, ["resolved channel loop"]);
    life.tell(breaking(true, Some("refused"))).await;
    let nothing: [String; 0] = [];
    assert_eq!(stage.news().await, nothing, "it was on its way");
    life.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_well_waits_for_company_and_nothing_else_does() {
    let stage = Stage::new("company");
    let life = stage.start().await;
    // What was handed to the store before this is written after it.
    let written = async || {
        while life.observations.capacity() < life.observations.max_capacity() {
            tokio::task::yield_now().await;
        }
        stage.store.apply(Vec::new()).await.unwrap();
        stage.store.runs(stage.journey.name.clone(), None, 9).await.unwrap().len()
    };
    let tell = async |observation| {
        tokio::time::advance(Duration::from_millis(1)).await;
        life.observations.send(observation).await.unwrap();
    };
    tell(stage.good(Vec::new())).await;
    tell(stage.good(Vec::new())).await;
    assert_eq!(written().await, 0, "there may be more of them");
    tokio::time::advance(GATHER).await;
    let mut asked = 0;
    while written().await < 2 {
        asked += 1;
        assert!(asked < 1_000, "nothing else comes, and they are not written");
        tokio::task::yield_now().await;
    }
    tell(stage.good(Vec::new())).await;
    assert_eq!(written().await, 2);
    tell(stage.throttled()).await;
    assert_eq!(written().await, 4, "what is not well waits for nothing, and takes along what does");
    tell(stage.good(Vec::new())).await;
    life.commands.ask(Request::Unsilence { id: "nobody's".to_owned() }).await.unwrap_err();
    assert_eq!(written().await, 5, "whoever is answered finds what was seen before");
    life.kill().await;
}

/// What several daemons saw of one journey, in the order in which it was said: each slot is counted once, whoever ran it.
#[tokio::test(start_paused = true)]
async fn a_journey_that_changes_hands_has_each_slot_once() {
    let mut stage = Stage::new("hands");
    let (plan, _) = crate::config::load_text(
        "journeyman.toml",
        MAIN,
        &[("probes.toml", &PROBES.replace("\"1d\"", "\"10s\""))],
        &stage.directory,
    )
    .unwrap();
    stage.journey = plan.journeys[0].clone();
    let name = stage.journey.name.clone();
    let from = stage.clock.now().wall;
    let slots: Vec<_> = stage.journey.schedule.slots(from, later(from, Duration::from_secs(200)), 12).collect();
    let life = stage.start().await;
    let finished = |slot: Timestamp, outcome: Outcome| {
        let Observation::Finished(report) = stage.run(outcome, Vec::new()) else { unreachable!() };
        Observation::Finished(Box::new(Report { slot, ..*report }))
    };
    let good = |slot| finished(slot, Outcome::Good { latency: Duration::ZERO });
    let failed = |slot| finished(slot, Outcome::Failed { step: "out".into(), cause: Cause::Refused });
    let taken_up = |until, waiting: &[Timestamp]| Observation::TakenUp {
        journeys: vec![name.clone()],
        until,
        waiting: HashMap::from([(name.clone(), waiting.to_vec())]),
    };
    for observation in [
        good(slots[0]),
        good(slots[1]),
        // Killed, with one run on its way: two slots are nobody's.
        taken_up(slots[4], &[slots[2]]),
        good(slots[2]),
        good(slots[5]),
        // What the one before said is too late.
        failed(slots[1]),
        failed(slots[5]),
        // Given away: nothing is missed.
        taken_up(slots[5], &[]),
        good(slots[6]),
    ] {
        life.tell(observation).await;
    }
    life.kill().await;
    let spans = stage.store.journey(name).await.unwrap().spans;
    let counted: Vec<(i64, crate::journey::outcome::Verdict)> = spans
        .iter()
        .flat_map(|span| (0..i64::from(span.count)).map(|nth| (span.start + nth * span.step, span.verdict)))
        .collect();
    let millis: Vec<_> = counted.iter().map(|(at, _)| *at).collect();
    let expected: Vec<_> = slots[..7].iter().map(|slot| slot.as_millisecond()).collect();
    assert_eq!(millis, expected, "{counted:?}");
    use crate::journey::outcome::Verdict::{Good, Unknown};
    let verdicts: Vec<_> = counted.iter().map(|(_, verdict)| *verdict).collect();
    assert_eq!(verdicts, [Good, Good, Good, Unknown, Unknown, Good, Good]);
}
