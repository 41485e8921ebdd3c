//! Two journeys, each from three places, watched for minutes at a time.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::*;
use crate::board::Board;
use crate::clock::Clock;
use crate::evaluator::tests::policy;
use crate::evaluator::{Parts, Policy};
use crate::journey::outcome::{Cause, Outcome, UnknownWhy};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::token::Token;
use crate::metrics::Metrics;
use crate::runner::not_run;
use crate::scheduler::Observation;
use crate::store::Store;
use crate::store::sqlite::Sqlite;

const MAIN: &str = "
    [store]
    url = \"postgres://nobody@127.0.0.1:1/none\"
    [channels.loop]
    type = \"memory\"
    [notifiers.people]
    type = \"webhook\"
    url = \"http://127.0.0.1:1/\"
    [alerting]
    group_by = []
    notify = [\"people\"]
    [defaults]
    every = \"10s\"
    deadline = \"2s\"
    notify = [\"people\"]
    locations = [\"a\", \"b\", \"c\"]
    quorum = 2
    alert = { down_after = 2, recover_after = 1, flapping = false, partial = false }";
const PROBES: &str = "
    [[journey]]
    name = \"buy\"
    step = [{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }]
    [[journey]]
    name = \"pay\"
    step = [{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }]";
const EVERY: i64 = 10_000;

struct Stage {
    directory: PathBuf,
    store: Arc<dyn Store>,
    journeys: Vec<Arc<Journey>>,
    clock: Clock,
    evaluator: Evaluator,
    runs: u128,
    /// Up to here slots have had their runs.
    run_until: Timestamp,
    told: usize,
    _still: std::sync::mpsc::Sender<()>,
}

async fn evaluator(store: &Arc<dyn Store>, journeys: &[Arc<Journey>], clock: Clock) -> Evaluator {
    let metrics = Arc::new(Metrics::new(&[], None));
    let parts = Parts {
        store: store.clone(),
        daemon: Arc::new(metrics.daemon()),
        metrics,
        board: Arc::new(Board::default()),
        outbox: Arc::default(),
        wishes: mpsc::channel(1).0,
        clock,
        location: Some("a".to_owned()),
        public_url: None,
        takeover: Duration::from_secs(15),
        waiting: HashMap::new(),
        levers: Arc::default(),
        policy: Policy {
            notifiers: vec!["people".into()],
            operators: vec!["people".into()],
            group_by: Vec::new(),
            ..policy()
        },
        alone: None,
        spare: None,
        spool: None,
        own: None,
        observer: None,
    };
    // Up to when slots are counted is said by those who run them.
    Evaluator::load(parts, journeys, Timestamp::default(), crate::commands::channel().1).await.unwrap()
}

impl Stage {
    async fn new(name: &str) -> Stage {
        let directory = std::env::temp_dir().join(format!("journeyman-together-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&directory.join("state.db")).unwrap());
        let loaded = crate::config::load_text("journeyman.toml", MAIN, &[("probes.toml", PROBES)], &directory);
        let (plan, problems) = loaded.unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(problems.is_empty(), "{problems:#?}");
        let clock = Clock::derived("2026-11-21T12:00:00Z".parse().unwrap());
        let (still, moves) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || moves.recv());
        let evaluator = evaluator(&store, &plan.journeys, clock).await;
        let (journeys, run_until) = (plan.journeys, clock.now().wall);
        Stage { _still: still, directory, store, journeys, clock, evaluator, runs: 0, run_until, told: 0 }
    }

    /// Another daemon decides from now on.
    async fn succeed(&mut self) {
        self.evaluator = evaluator(&self.store, &self.journeys, self.clock).await;
    }

    /// So many seconds, in which each place sees this of each journey: `None` is no run at all.
    async fn live(&mut self, seconds: u64, sees: impl Fn(&str, &str) -> Option<bool>) -> Vec<String> {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            let now = self.clock.now();
            let mut seen = Vec::new();
            for journey in self.journeys.iter().filter(|journey| journey.is_run()) {
                let (of, place) = journey.name.split_once('@').unwrap();
                for slot in journey.schedule.slots(self.run_until, now.wall, 10) {
                    let Some(is_good) = sees(of, place) else { continue };
                    self.runs += 1;
                    let token = Token::from_bits(self.runs);
                    let report = not_run(journey, token, slot, now, UnknownWhy::Internal, "");
                    let (outcome, status) = match is_good {
                        true => (Outcome::Good { latency: Duration::ZERO }, StepStatus::Passed),
                        false => {
                            (Outcome::Failed { cause: Cause::NotReceived, step: "out".into() }, StepStatus::Failed)
                        }
                    };
                    let step = StepReport { channel: Some("loop".into()), ..StepReport::new("out", "send", status) };
                    let report = Report { outcome, steps: vec![step], note: None, ..report };
                    seen.push(Observation::Finished(Box::new(report)));
                }
            }
            self.run_until = now.wall;
            self.evaluator.round(seen.into_iter()).await;
        }
        self.news().await
    }

    /// What people are told since this was asked last.
    async fn news(&mut self) -> Vec<String> {
        let mut rows = self.store.outbox(None, None, 99).await.unwrap();
        rows.sort_by_key(|row| row.created);
        let told = std::mem::replace(&mut self.told, rows.len());
        let said = |row: &crate::store::OutboxRow| {
            let notice = &row.notification;
            format!("{} {}: {}", notice.reason, notice.subject, notice.decision)
        };
        rows[told..].iter().map(said).collect()
    }

    /// What the slots of a journey came to, each once and in order.
    async fn slots(&self, name: &str) -> Vec<Verdict> {
        let spans = self.store.journey(name.into()).await.unwrap().spans;
        let mut slots: Vec<(i64, Verdict)> = Vec::new();
        for span in spans {
            slots.extend((0..span.count as i64).map(|nth| (span.start + nth * span.step, span.verdict)));
        }
        for pair in slots.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, EVERY, "{name}: a slot is missing, or there twice");
        }
        slots.into_iter().map(|(_, verdict)| verdict).collect()
    }

    fn phase(&self, name: &str) -> Phase {
        self.evaluator.journeys[name].alerts.health.phase
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn well(_: &str, _: &str) -> Option<bool> {
    Some(true)
}

#[tokio::test(start_paused = true)]
async fn people_are_told_when_so_many_places_agree_and_by_each_of_them() {
    let mut stage = Stage::new("agree").await;
    assert!(stage.live(60, well).await.is_empty());
    // One place alone, however long: nobody is told, and the pages show it.
    assert!(stage.live(120, |of, place| Some(of != "buy" || place != "a")).await.is_empty());
    assert_eq!(
        (stage.phase("buy"), stage.phase("buy@a"), stage.phase("pay")),
        (Phase::Suspect, Phase::Firing, Phase::Ok)
    );

    let told = stage.live(60, |of, place| Some(of != "buy" || place == "c")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert!(told.starts_with("first buy: seen from 2 of 3 places (quorum 2): a: "), "{told}");
    assert!(told.contains("failed runs in a row (down_after = 2); b: ") && told.ends_with("; c: well"), "{told}");

    // One of them sees it well again: they do not agree any more.
    let told = stage.live(60, |of, place| Some(of != "buy" || place != "a")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert!(told.starts_with("resolved buy: "), "{told}");
    let told = stage.live(60, well).await;
    assert!(told.is_empty(), "{told:#?}");
    assert_eq!(stage.phase("buy"), Phase::Ok);

    // What a slot came to is what so many places saw; in each place it is what that one saw.
    let slots = stage.slots("buy").await;
    let failed = slots.iter().filter(|verdict| **verdict == Verdict::Failed).count();
    assert!(
        (5..=7).contains(&failed) && slots.iter().all(|slot| matches!(slot, Verdict::Good | Verdict::Failed)),
        "{slots:?}"
    );
    assert!(slots.len() >= 33, "{}", slots.len());
    assert!(stage.slots("pay").await.iter().all(|verdict| *verdict == Verdict::Good));
    assert_eq!(stage.slots("buy@a").await.iter().filter(|verdict| **verdict == Verdict::Failed).count(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_sees_all_fail_is_the_incident_and_has_no_vote() {
    let mut stage = Stage::new("odd").await;
    stage.live(60, well).await;
    let told = stage.live(60, |_, place| Some(place != "c")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert_eq!(
        told,
        "first journeyman: place c: sees all 2 of its journeys fail that other places see well: what it sees has no vote"
    );
    // One that may vote sees it fail, and the other one does not.
    assert!(stage.live(60, |of, place| Some(place == "b" || (place, of) == ("a", "pay"))).await.is_empty());
    // Both that may vote do.
    let told = stage.live(60, |of, place| Some(place != "c" && of == "pay")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert!(told.starts_with("first buy: seen from 2 of 2 places (quorum 2): a: "), "{told}");
    assert!(told.contains("; c (no vote): "), "{told}");
    let mut told = stage.live(60, well).await;
    told.sort();
    let [place, buy] = &told[..] else { panic!("{told:#?}") };
    assert!(buy.starts_with("resolved journeyman: place c: ") && place.starts_with("resolved buy: "), "{told:#?}");
    // What it saw counts for nobody: not a slot of `pay` is bad.
    assert!(stage.slots("pay").await.iter().all(|verdict| *verdict == Verdict::Good));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_a_place_is_over_when_it_sees_again_whoever_decides_then() {
    let mut stage = Stage::new("heir").await;
    stage.live(60, well).await;
    let mut told = stage.live(60, |_, place| Some(place != "c")).await;
    stage.succeed().await;
    told.extend(stage.live(60, |_, place| Some(place != "c")).await);
    stage.succeed().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    let over = stage.live(60, well).await;
    let [over] = &over[..] else { panic!("{over:#?}") };
    assert!(over.starts_with("resolved journeyman: place c: "), "{over}");
}

#[tokio::test(start_paused = true)]
async fn a_real_outage_blames_no_place_neither_at_its_begin_nor_at_its_end() {
    let mut stage = Stage::new("outage").await;
    stage.live(60, well).await;
    let mut told = stage.live(90, |_, _| Some(false)).await;
    told.extend(stage.live(90, well).await);
    let mut subjects: Vec<_> = told.iter().map(|told| told.split(':').next().unwrap()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["first buy", "first pay", "resolved buy", "resolved pay"], "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn that_a_place_turns_out_to_be_odd_ends_nothing() {
    let mut stage = Stage::new("turns").await;
    stage.live(60, well).await;
    // `buy` fails in all places, and all fails in one: which of the two is known first is chance.
    let mut told = stage.live(90, |of, place| Some(of != "buy" && place != "c")).await;
    told.extend(stage.live(90, well).await);
    let of = |subject: &str| told.iter().filter(|told| told.starts_with(subject)).count();
    assert_eq!((of("first buy"), of("resolved buy"), of("first pay")), (1, 1, 0), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn places_that_are_away_are_not_waited_for_and_nobody_is_left_untold() {
    let mut stage = Stage::new("away").await;
    stage.live(60, well).await;
    let told = stage.live(120, |_, place| (place == "a").then_some(true)).await;
    let mut sorted = told.clone();
    sorted.sort();
    let [b, c] = &sorted[..] else { panic!("{told:#?}") };
    assert_eq!(b, "first journeyman: place b: has no verdict of all 2 of its journeys: does a daemon run there?");
    assert!(c.starts_with("first journeyman: place c: "), "{told:#?}");
    // The only one that is left is enough.
    let told = stage.live(60, |of, place| (place == "a").then_some(of != "buy")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert!(told.starts_with("first buy: seen from 1 of 1 places that can say (quorum 2): a: "), "{told}");
    let told = stage.live(60, |_, place| (place == "a").then_some(true)).await;
    assert!(told.len() == 1 && told[0].starts_with("resolved buy"), "{told:#?}");
    // And nobody at all.
    let told = stage.live(120, |_, _| None).await;
    let of = |subject: &str| told.iter().filter(|told| told.starts_with(subject)).count();
    assert_eq!(
        (of("first buy: no place has a verdict"), of("first pay: no place"), of("first journeyman: place a")),
        (1, 1, 1),
        "{told:#?}"
    );
    // Slots that nobody saw are unknown, and each is there.
    stage.live(60, well).await;
    let slots = stage.slots("pay").await;
    assert!(
        slots.contains(&Verdict::Unknown) && slots.iter().all(|slot| matches!(slot, Verdict::Good | Verdict::Unknown))
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_from_the_others_goes_by_what_it_sees_itself() {
    let mut stage = Stage::new("cut").await;
    stage.live(60, well).await;
    let places = stage.journeys[0].places().unwrap().clone();
    let able = |stage: &Stage| {
        let views = stage.evaluator.views_now(&places, stage.clock.now().wall);
        stage.evaluator.vote(&views, 2, &BTreeSet::new()).able
    };
    for (_, part) in &places.parts[1..] {
        stage.evaluator.journeys.get_mut(part).unwrap().is_elsewhere = true;
    }
    assert_eq!(able(&stage), 3);
    stage.evaluator.store_failed = Some(stage.clock.now().wall);
    assert_eq!(able(&stage), 3, "for a moment what they said stands");
    tokio::time::advance(UNHEARD).await;
    assert_eq!(able(&stage), 1);

    // One that decides alone has none but its own.
    let mut stage = Stage::new("alone").await;
    stage.journeys.retain(|journey| !journey.is_part() || journey.name.ends_with("@a"));
    stage.succeed().await;
    assert!(stage.live(60, well).await.is_empty());
    let told = stage.live(40, |of, _| Some(of != "buy")).await;
    let [told] = &told[..] else { panic!("{told:#?}") };
    assert!(told.starts_with("first buy: seen from 1 of 1 places that can say (quorum 2): a: "), "{told}");
}

#[tokio::test(start_paused = true)]
async fn whoever_decides_next_goes_on_where_the_one_before_was() {
    let mut stage = Stage::new("next").await;
    stage.live(60, well).await;
    let mut told = Vec::new();
    for seconds in [15, 15, 30] {
        told.extend(stage.live(seconds, |of, place| Some(of != "buy" || place == "c")).await);
        stage.succeed().await;
    }
    told.extend(stage.live(60, well).await);
    let subjects: Vec<_> = told.iter().map(|told| told.split(':').next().unwrap()).collect();
    assert_eq!(subjects, ["first buy", "resolved buy"], "{told:#?}");
    let slots = stage.slots("buy").await;
    assert!(slots.len() >= 16 && !slots.contains(&Verdict::Unknown), "{slots:?}");
}
