//! Who goes through a gate, on paused time.

use super::*;
use crate::metrics::Metrics;
use crate::time::Now;

const SECOND: Duration = Duration::from_secs(1);
const PROBES: &str = "
    [[journey]]
    name = \"often\"
    every = \"1m\"
    step = [{ request = \"web\", path = \"/\" }]
    [[journey]]
    name = \"rarely\"
    every = \"1h\"
    step = [{ send = \"web\", path = \"/\" }]
    [[journey]]
    name = \"usual\"
    every = \"2m\"
    step = [{ request = \"web\", path = \"/\" }]
    [[journey]]
    name = \"cron\"
    cron = \"* * * * *\"
    deadline = \"10s\"
    step = [{ request = \"web\", path = \"/\" }]
    [[journey]]
    name = \"elsewhere\"
    every = \"10s\"
    step = [{ request = \"other\", path = \"/\" }]";
const MAIN: &str = "
    [channels.web]
    type = \"http\"
    url = \"http://127.0.0.1:1/\"
    [channels.other]
    type = \"http\"
    url = \"http://127.0.0.1:1/\"";

fn journeys() -> Vec<Arc<Journey>> {
    let directory = std::env::temp_dir();
    let loaded = crate::config::load_text("journeyman.toml", MAIN, &[("probes.toml", PROBES)], &directory);
    let (plan, _) = loaded.unwrap_or_else(|problems| panic!("{}", crate::config::render(&problems, false)));
    plan.journeys
}

struct Stage {
    gate: Gate,
    clock: Clock,
    journeys: Vec<Arc<Journey>>,
    lever: watch::Sender<Option<Order>>,
    runs: std::cell::Cell<u128>,
}

impl Stage {
    fn new() -> Stage {
        Stage::of(&["often", "rarely", "usual", "cron"])
    }

    fn of(names: &[&str]) -> Stage {
        let clock = Clock::derived("2026-11-21T12:00:00Z".parse().unwrap());
        let mut journeys = journeys();
        journeys.retain(|journey| names.contains(&&*journey.name));
        let channel = Name::from("web");
        let users = Users::of(&channel, &journeys, clock.now().wall);
        let (lever, orders) = watch::channel(None);
        let metrics = Arc::new(Metrics::new(&[], None));
        let metrics = metrics.breaker(&crate::breaker::Guarded::Channel(channel.clone()));
        let gate = Gate::new(channel, Settings::CHANNEL, users, orders, clock, metrics);
        Stage { gate, clock, journeys, lever, runs: Default::default() }
    }

    /// A new run.
    fn run(&self, journey: &str) -> Caller {
        let run = Token::from_bits(self.runs.replace(self.runs.get() + 1));
        Caller { journey: journey.into(), run }
    }

    fn enter(&self, caller: &Caller) -> Result<Pass<'_>, String> {
        self.gate.enter(caller, SECOND * 10)
    }

    /// A run with one call that comes to this.
    fn call(&self, journey: &str, result: &Result<Reply, Fault>) -> Result<(), String> {
        self.enter(&self.run(journey)).map(|pass| pass.end(Act::Request, result))
    }

    /// Open, by two that failed over five seconds.
    async fn opened() -> Stage {
        let stage = Stage::new();
        for journey in ["often", "usual", "often"] {
            stage.call(journey, &stage.fault(Cause::Unreachable)).unwrap();
            tokio::time::advance(SECOND * 2).await;
        }
        assert!(!stage.gate.look().is_open, "not before it has lasted");
        stage.call("usual", &stage.fault(Cause::Unreachable)).unwrap();
        assert!(stage.gate.look().is_open);
        stage
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn fault(&self, cause: Cause) -> Result<Reply, Fault> {
        let (started, finished) = (self.now(), self.now());
        Err(Fault { started, finished, cause, detail: "nothing listens".into(), uncertain: false, phases: Vec::new() })
    }

    fn works(&self) -> Result<Reply, Fault> {
        let (started, finished) = (self.now(), self.now());
        Ok(Reply { started, finished, ack: "204".into(), message: None, phases: Vec::new() })
    }
}

#[test]
fn the_canary_is_who_calls_most_often() {
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let users = Users::of(&"web".into(), &journeys(), now);
    assert_eq!(
        (users.callers, users.canary.as_deref()),
        (4, Some("cron")),
        "as often as another, and before it by name"
    );
    assert!(users.are_several());
    let alone = Users::of(&"other".into(), &journeys(), now);
    assert_eq!((alone.callers, alone.are_several()), (1, false));
    assert_eq!(Users::of(&"third".into(), &journeys(), now), Users::default());
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_that_the_system_cannot_be_reached_and_not_what_it_says() {
    let stage = Stage::new();
    let fault = |cause, uncertain| stage.fault(cause).map_err(|fault| Fault { uncertain, ..fault });
    let failed = Verdict::Failed { after: None };
    let table = [
        (Act::Send, stage.works(), Verdict::Worked),
        (Act::Send, fault(Cause::Unreachable, false), failed),
        (Act::Send, fault(Cause::Unreachable, true), failed),
        (Act::Request, fault(Cause::Unreachable, false), failed),
        (Act::Request, fault(Cause::Unreachable, true), Verdict::Ignored),
        (Act::Request, fault(Cause::Tls, false), failed),
        (Act::Request, fault(Cause::Auth, false), failed),
        (Act::Send, fault(Cause::Throttled, false), Verdict::Ignored),
        (Act::Send, fault(Cause::Rejected, false), Verdict::Worked),
        (Act::Send, fault(Cause::Refused, false), Verdict::Worked),
        (Act::Send, fault(Cause::Unroutable, false), Verdict::Worked),
        (Act::Send, fault(Cause::Mismatch, false), Verdict::Ignored),
        (Act::Send, fault(Cause::Blocked, false), Verdict::Ignored),
    ];
    for (act, result, expected) in table {
        assert_eq!(verdict_of(act, &result).0, expected, "{act:?} {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_the_canary_tries_and_others_are_blocked_with_the_root() {
    let stage = Stage::opened().await;
    for journey in ["often", "usual", "rarely"] {
        let why = stage.call(journey, &stage.works()).unwrap_err();
        let said = "nothing was sent: the breaker of channel `web` is open since 12:00:06 UTC (4 failures in a row, \
                    the last: unreachable); tried again at ";
        assert!(why.starts_with(said) && why.ends_with("; it said: unreachable: nothing listens"), "{why}");
    }
    stage.call("cron", &stage.fault(Cause::Unreachable)).unwrap();
    assert!(stage.call("often", &stage.works()).is_err());
    stage.call("cron", &stage.works()).unwrap();
    stage.call("often", &stage.works()).unwrap();
    assert!(!stage.gate.look().is_open);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_begun_is_not_left_half_done() {
    let stage = Stage::new();
    let run = stage.run("often");
    stage.enter(&run).unwrap().end(Act::Request, &stage.works());
    for _ in 0..4 {
        for journey in ["often", "usual"] {
            // The last is refused already.
            let _ = stage.call(journey, &stage.fault(Cause::Unreachable));
        }
        tokio::time::advance(SECOND * 2).await;
    }
    // Another run of the journey came in between, and the first one is its own no more.
    assert!(stage.enter(&run).is_err());
    let stage = Stage::new();
    let run = stage.run("often");
    stage.enter(&run).unwrap().end(Act::Request, &stage.works());
    for _ in 0..4 {
        for journey in ["rarely", "usual"] {
            // The last is refused already.
            let _ = stage.call(journey, &stage.fault(Cause::Unreachable));
        }
        tokio::time::advance(SECOND * 2).await;
    }
    assert!(stage.gate.look().is_open);
    stage.enter(&run).unwrap().end(Act::Request, &stage.works());
    assert!(stage.gate.look().is_open, "it is no trial");
    assert!(stage.call("often", &stage.works()).is_err(), "its next run is as any other");
}

/// Five of its intervals, or a quarter of an hour if that is longer.
#[tokio::test(start_paused = true)]
async fn everybody_truly_runs_now_and_then() {
    let stage = Stage::opened().await;
    stage.call("rarely", &stage.works()).unwrap_err();
    let mut ran: HashMap<&str, Vec<u64>> = HashMap::new();
    for minute in 1..=301u64 {
        tokio::time::advance(SECOND * 60).await;
        // The trial fails each time, as soon as it may be made.
        stage.call("cron", &stage.fault(Cause::Unreachable)).unwrap();
        for journey in ["often", "rarely"] {
            let caller = stage.run(journey);
            if stage.gate.must_try(&caller) {
                let pass = stage.enter(&caller).unwrap();
                pass.end(Act::Request, &stage.fault(Cause::Unreachable));
                ran.entry(journey).or_default().push(minute);
            }
        }
    }
    assert_eq!(ran["often"].len(), 20, "{ran:?}");
    assert!(ran["often"].windows(2).all(|pair| pair[1] - pair[0] == 15), "{ran:?}");
    assert_eq!(ran["rarely"].len(), 1, "{ran:?}");
    assert!((299..=301).contains(&ran["rarely"][0]), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn people_are_told_when_it_has_lasted_and_not_of_one_that_only_observes() {
    let stage = Stage::opened().await;
    let look = stage.gate.look();
    assert_eq!((look.trouble, look.next.map(|at| at.since(stage.now().mono))), (None, Some(SECOND * 30)));
    tokio::time::advance(SECOND * 30).await;
    let said = stage.gate.look().trouble.unwrap();
    assert!(said.starts_with("its breaker is open since 12:00:06 UTC"), "{said}");

    let stage = Stage::of(&["often"]);
    for _ in 0..10 {
        stage.call("often", &stage.fault(Cause::Unreachable)).unwrap();
        tokio::time::advance(SECOND * 60).await;
    }
    let look = stage.gate.look();
    assert_eq!((look.is_open, look.trouble, look.status.state), (false, None, State::ObserveOnly));
}

#[tokio::test(start_paused = true)]
async fn a_fast_journey_is_not_known_to_be_down_before_its_channel() {
    let users = |interval| {
        let intervals = HashMap::from([(Name::from("one"), interval), (Name::from("two"), interval)]);
        Users { intervals, callers: 2, canary: Some("one".into()) }
    };
    assert_eq!(users(SECOND * 60).patience(), SECOND * 30);
    assert_eq!(users(SECOND * 10).patience(), SECOND * 15);
    assert_eq!(users(SECOND).patience(), SECOND * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn those_that_come_at_one_moment_come_back_one_after_another() {
    let stage = Stage::opened().await;
    let journey = |name: &str| stage.journeys.iter().find(|journey| &*journey.name == name).unwrap().clone();
    let named = |name: String| Journey { name: name.into(), ..(*journey("cron")).clone() };
    let crowd: Vec<_> = (0..200).map(|n| Arc::new(named(format!("cron-{n}")))).collect();
    stage.gate.set_users(Users::of(&"web".into(), &crowd, stage.now().wall));
    assert!(crowd.iter().all(|one| stage.gate.put_off(one).is_none()), "it is not well again");
    for _ in 0..2 {
        stage.call("cron-0", &stage.works()).unwrap();
    }
    let back: Vec<_> = crowd.iter().map(|one| stage.gate.put_off(one)).collect();
    let waits: Vec<_> = back.into_iter().flatten().map(|at| at.since(stage.now().mono)).collect();
    assert!(waits.iter().all(|wait| *wait <= SECOND * 50), "its own next slot is not skipped for it");
    let early = waits.iter().filter(|wait| **wait < SECOND * 25).count();
    assert!((60..110).contains(&early), "{early} of 200 within 25 of 60 s");
    assert_eq!(stage.gate.put_off(&journey("often")), None, "its name has spread it already");
    tokio::time::advance(SECOND * 60).await;
    assert!(crowd.iter().all(|one| stage.gate.put_off(one).is_none()));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_wants_is_heeded_and_ends() {
    let stage = Stage::new();
    let until = crate::time::later(stage.now().wall, SECOND * 60);
    let order = Order { to: crate::breaker::Force::Open, by: "ada".into(), reason: "migration".into(), until };
    stage.lever.send_replace(Some(order));
    let why = stage.call("cron", &stage.works()).unwrap_err();
    let said =
        "nothing was sent: the breaker of channel `web` is forced open: ada wants it so until 12:01:00 UTC: migration";
    assert_eq!(why, said);
    tokio::time::advance(SECOND * 60).await;
    stage.call("often", &stage.works()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_away_opens_it_and_one_that_is_back_lets_somebody_try() {
    let stage = Stage::new();
    for pause in [0, 500, 1_500, 4_500] {
        tokio::time::advance(Duration::from_millis(pause)).await;
        assert!(!stage.gate.look().is_open);
        stage.gate.witness(Some("connection refused"));
    }
    assert!(stage.gate.look().is_open);
    assert!(stage.gate.refusal().unwrap().ends_with("it said: connection refused"));
    assert!(stage.call("often", &stage.works()).is_err());
    stage.gate.witness(None);
    stage.call("often", &stage.works()).unwrap();
    stage.call("usual", &stage.works()).unwrap();
    assert!(!stage.gate.look().is_open);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_or_waited_too_long_says_nothing_of_the_system() {
    let stage = Stage::new();
    for _ in 0..20 {
        drop(stage.enter(&stage.run("often")).unwrap());
        Pass::give_back(stage.enter(&stage.run("usual")).ok());
        tokio::time::advance(SECOND).await;
    }
    assert!(!stage.gate.look().is_open);
    let (often, usual) = (stage.run("often"), stage.run("usual"));
    let waiting = stage.enter(&often).unwrap();
    assert_eq!(waiting.is_void(), None);
    for _ in 0..4 {
        for caller in [&stage.run("rarely"), &usual] {
            stage.enter(caller).unwrap().end(Act::Send, &stage.fault(Cause::Unreachable));
        }
        tokio::time::advance(SECOND * 2).await;
    }
    assert!(waiting.is_void().is_some(), "it opened while this one waited for its turn");
}
