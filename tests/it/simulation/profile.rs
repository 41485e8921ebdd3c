//! What kind of world: how long it lasts, how many journeys it has, and what goes wrong in it. Each has a name, by which it is found again.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::config::{Plan, load_text};

use super::world::Point;

pub(super) const BEGIN: i64 = 1_790_000_000;

/// How a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Death {
    /// From outside: what it has written gets to the disk all the same, and sooner or later somebody starts it again.
    Kill,
    /// By itself: as when it is killed, but that its supervisor starts it again at once.
    Abort,
    /// With its machine: what was written and not synced is gone, and it takes a while until there is power again.
    Power,
}

impl Death {
    pub(crate) const ALL: [Death; 3] = [Death::Kill, Death::Abort, Death::Power];

    /// Between what times the next process begins.
    pub(super) fn absence(self) -> (Duration, Duration) {
        let (least, most) = match self {
            Death::Kill => (200, 90_000),
            Death::Abort => (50, 300),
            Death::Power => (20_000, 300_000),
        };
        (Duration::from_millis(least), Duration::from_millis(most))
    }
}

/// What is taken down of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Accounts {
    /// Nothing: nothing is settled, and nothing is remembered.
    None,
    /// What people heard, and how much is sent when.
    Heard,
    /// All of it.
    All,
    /// That, and every event in words.
    Trace,
}

/// What kind of world.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// What finds it again: a line of `seeds.txt`.
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) journeys: usize,
    pub(crate) every: Duration,
    pub(crate) max_runs: usize,
    /// What may be sent through `paid` in a day.
    pub(crate) spend: usize,
    /// The mean time from one death of the process to the next; none, if it dies only where it must.
    pub(crate) lives: Option<Duration>,
    /// It dies when it comes here for the so-maniest time, and so.
    pub(crate) doom: Option<(Point, u32, Death)>,
    /// From one change of the configuration to the next.
    pub(crate) reloads: Option<Duration>,
    /// When the network is cut, the systems refuse everything, people are away, the disk says no: intervals since the beginning, in
    /// seconds.
    pub(crate) cuts: Vec<(u64, u64)>,
    pub(crate) refuses: Vec<(u64, u64)>,
    pub(crate) away: Vec<(&'static str, u64, u64)>,
    pub(crate) no_disk: Vec<(u64, u64)>,
    /// Whether single messages and notices go astray.
    pub(crate) has_mishaps: bool,
    /// Whether an alert that comes and goes is told as one.
    pub(crate) flapping: bool,
    pub(crate) accounts: Accounts,
    /// Called so often in a life, with how often it was.
    pub(crate) sample: (Duration, fn(u64)),
}

fn is_in(intervals: &[(u64, u64)], at: Timestamp) -> bool {
    let now = at.as_second() - BEGIN;
    intervals.iter().any(|(from, until)| (*from as i64..*until as i64).contains(&now))
}

impl Profile {
    /// A world of that seed, with its share of everything.
    pub(crate) fn new(seed: u64, length: Duration, journeys: usize, every: Duration) -> Profile {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut interval = |most: u64| {
            let from = rng.u64(0..length.as_secs());
            (from, from + rng.u64(5..most))
        };
        let cuts = vec![interval(600), interval(120)];
        let (chat, mail) = (interval(900), interval(300));
        let no_disk = vec![interval(60)];
        let away = vec![("chat", chat.0, chat.1), ("mail", mail.0, mail.1)];
        Profile {
            name: format!("{journeys} journeys, seed {seed}"),
            seed,
            length,
            journeys,
            every,
            max_runs: 64,
            spend: 1_000_000,
            lives: Some(Duration::from_secs(1_500)),
            doom: None,
            reloads: Some(Duration::from_secs(1_000)),
            cuts,
            refuses: Vec::new(),
            away,
            no_disk,
            has_mishaps: true,
            flapping: false,
            accounts: Accounts::All,
            sample: (Duration::from_secs(3_600), |_| {}),
        }
    }

    /// T2: two hours of ten journeys a minute, of which only chance knows what happens in them.
    pub(crate) fn chance(seed: u64) -> Profile {
        let world = Profile::new(seed, Duration::from_secs(2 * 3_600), 10, Duration::from_secs(60));
        Profile { name: format!("chance {seed}"), ..world }
    }

    /// T1: the process dies when it comes to this point for the so-maniest time.
    pub(crate) fn doomed(point: Point, time: u32, death: Death, seed: u64) -> Profile {
        let name = format!("{point:?} {time} {death:?} {seed}");
        let doom = Some((point, time, death));
        let world = match point {
            // It takes many lives to come there often.
            Point::Starting | Point::TakingOver | Point::Stopping => {
                // Only a life that ends with runs under way leaves something to take over.
                let journeys = if point == Point::TakingOver { 18 } else { 6 };
                Profile {
                    lives: Some(Duration::from_secs(20)),
                    ..Profile::new(seed, Duration::from_secs(1_800), journeys, Duration::from_secs(10))
                }
            }
            _ => Profile { lives: None, ..Profile::new(seed, Duration::from_secs(1_200), 6, Duration::from_secs(20)) },
        };
        let reloads = if point == Point::Swapping { Some(Duration::from_secs(20)) } else { world.reloads };
        Profile { name, doom, reloads, no_disk: Vec::new(), ..world }
    }

    /// T1: as often there as such a world comes to it in time.
    pub(crate) fn times(point: Point) -> [u32; 3] {
        match point {
            Point::Starting | Point::TakingOver | Point::Stopping => [1, 2, 3],
            Point::BeforeTelling | Point::MidTelling | Point::AfterTelling | Point::BeforeMark | Point::AfterMark => {
                [1, 3, 5]
            }
            _ => [1, 4, 23],
        }
    }

    /// T24: everything fails together, recovers and fails again five times, and recovers for good. Nothing else goes wrong.
    pub(crate) fn storm(journeys: usize) -> Profile {
        Profile {
            name: format!("storm of {journeys}"),
            seed: 24,
            max_runs: 2_000,
            // A fourth of the journeys use it, and these run every four minutes instead of each.
            spend: journeys * 100,
            refuses: storm_fails().collect(),
            flapping: true,
            accounts: Accounts::Heard,
            ..Profile::calm(journeys, Duration::from_secs(STORM_ENDS + 600))
        }
    }

    /// T18: one long life of 1,000 journeys in which a fifth of the time something is broken, and of which no account is kept.
    pub(crate) fn long(hours: u64) -> Profile {
        let each =
            |from: u64, length: u64| (0..hours).map(move |hour| (hour * 3_600 + from, hour * 3_600 + from + length));
        Profile {
            name: format!("long {hours}"),
            lives: None,
            reloads: None,
            cuts: each(600, 420).collect(),
            away: each(900, 300).map(|(from, until)| ("chat", from, until)).collect(),
            no_disk: each(2_400, 20).collect(),
            accounts: Accounts::None,
            ..Profile::new(1, Duration::from_secs(hours * 3_600), 1_000, Duration::from_secs(60))
        }
    }

    /// So many journeys a minute in one life, in which nothing goes wrong.
    pub(crate) fn calm(journeys: usize, length: Duration) -> Profile {
        Profile {
            lives: None,
            reloads: None,
            cuts: Vec::new(),
            away: Vec::new(),
            no_disk: Vec::new(),
            has_mishaps: false,
            ..Profile::new(1, length, journeys, Duration::from_secs(60))
        }
    }

    /// The world of a line of `seeds.txt`: `chance SEED`, `POINT TIME DEATH SEED`, or `long HOURS`.
    pub(crate) fn named(name: &str) -> Option<Profile> {
        let words: Vec<_> = name.split_whitespace().collect();
        match *words {
            ["chance", seed] => Some(Profile::chance(seed.parse().ok()?)),
            ["long", hours] => Some(Profile::long(hours.parse().ok()?)),
            [point, time, death, seed] => {
                let point = Point::ALL.iter().find(|known| format!("{known:?}") == point)?;
                let death = Death::ALL.into_iter().find(|known| format!("{known:?}") == death)?;
                Some(Profile::doomed(*point, time.parse().ok()?, death, seed.parse().ok()?))
            }
            _ => None,
        }
    }

    pub(super) fn cut_until(&self, at: Timestamp) -> Option<Timestamp> {
        let now = at.as_second() - BEGIN;
        let cut = self.cuts.iter().find(|(from, until)| (*from as i64..*until as i64).contains(&now))?;
        Timestamp::from_second(BEGIN + cut.1 as i64).ok()
    }

    pub(super) fn is_cut(&self, at: Timestamp) -> bool {
        is_in(&self.cuts, at)
    }

    pub(super) fn refuses(&self, at: Timestamp) -> bool {
        is_in(&self.refuses, at)
    }

    pub(super) fn is_away(&self, who: &str, at: Timestamp) -> bool {
        self.away.iter().any(|(name, from, until)| *name == who && is_in(&[(*from, *until)], at))
    }

    pub(super) fn disk_says_no(&self, at: Timestamp) -> bool {
        is_in(&self.no_disk, at)
    }

    /// The configuration; every other time that it is changed, with one journey more and another that has a budget of its own.
    pub(super) fn plan(&self, edition: u32) -> Plan {
        let main = format!(
            "[channels.queue]\ntype = \"memory\"\n[channels.push]\ntype = \"memory\"\n\
             [channels.paid]\ntype = \"memory\"\nspend = {{ messages_per_day = {} }}\n\
             [notifiers.chat]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1\"\nfallback = \"mail\"\n\
             [notifiers.mail]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1\"\n[alerting]\nnotify = [\"chat\"]\n",
            self.spend
        );
        let is_other = !edition.is_multiple_of(2);
        let journey = |n: usize| {
            let system = ["queue", "paid", "queue", "push"][n % 4];
            let (every, flapping) = (self.every.as_secs(), self.flapping);
            let budget = if is_other && n == 0 { "3s" } else { "2s" };
            format!(
                "[[journey]]\nname = \"j{n}\"\nevery = \"{every}s\"\nbudget = \"{budget}\"\ndeadline = \"5s\"\nlate = \"2m\"\nnotify = [\"chat\"]\n\
                 objective = {{ delivered = \"99%\", window = \"1d\" }}\nalert = {{ flapping = {flapping} }}\n\
                 [[journey.step]]\nname = \"out\"\nsend = \"{system}\"\ntext = \"{{{{ token }}}}\"\n\
                 [[journey.step]]\nname = \"in\"\nreceive = \"{system}\"\n"
            )
        };
        let probes: String = (0..self.journeys + usize::from(is_other)).map(journey).collect();
        match load_text("main", &main, &[("probes", &probes)], Path::new("/")) {
            Ok((plan, _)) => plan,
            Err(problems) => panic!("{}", journeyman::config::render(&problems, false)),
        }
    }
}

/// When the last of a storm's failures is over.
pub(crate) const STORM_ENDS: u64 = 37 * 60;

/// When everything fails in a storm: for four minutes, and then five times for three.
pub(crate) fn storm_fails() -> impl Iterator<Item = (u64, u64)> {
    let again = (0..5).map(|flap| (10 + flap * 6, 13 + flap * 6));
    [(3, 7)].into_iter().chain(again).map(|(from, until)| (from * 60, until * 60))
}
