//! What outlives the process: chance, the points at which it dies, and the account of what really happened.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::journey::outcome::Outcome;
use journeyman::journey::token::Token;
use journeyman::store::{Change, OutboxStatus};
use tokio::sync::Notify;

use super::life::Profile;

/// Moments at which a process can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Point {
    /// A run is about to make its token durable; and has.
    BeforeToken,
    AfterToken,
    /// The message has not left; it has, and nothing was acknowledged; it was.
    BeforeSend,
    MidSend,
    AfterSend,
    /// The reader has a message that nobody else has heard of; it has handed it over, and not said so to the broker.
    Arrived,
    HandedOver,
    /// The commit of a verdict, with what follows from it.
    BeforeVerdict,
    AfterVerdict,
    /// Any other commit.
    BeforeCommit,
    AfterCommit,
    /// Telling people: before a byte left, after it was taken and before we heard of that, after.
    BeforeTelling,
    MidTelling,
    AfterTelling,
    /// What became of a notice is about to be written; and has been.
    BeforeMark,
    AfterMark,
    /// While the daemon starts and reads what is there.
    Starting,
    /// While it stops in order.
    Stopping,
}

impl Point {
    pub(crate) const ALL: &'static [Point] = &[
        Point::BeforeToken,
        Point::AfterToken,
        Point::BeforeSend,
        Point::MidSend,
        Point::AfterSend,
        Point::Arrived,
        Point::HandedOver,
        Point::BeforeVerdict,
        Point::AfterVerdict,
        Point::BeforeCommit,
        Point::AfterCommit,
        Point::BeforeTelling,
        Point::MidTelling,
        Point::AfterTelling,
        Point::BeforeMark,
        Point::AfterMark,
        Point::Starting,
        Point::Stopping,
    ];
}

/// What became of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// When the channel began to send it; the last time, should there be several.
    pub(super) sent: Option<Timestamp>,
    /// When a reader first had it.
    pub(super) arrived: Option<Timestamp>,
}

/// A verdict that was made durable.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) journey: String,
    pub(super) slot: Timestamp,
    pub(super) token: Token,
    pub(super) outcome: Outcome,
}

/// A notice that somebody took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) notifier: String,
    pub(super) incident: String,
    pub(super) sequence: u32,
    pub(super) reason: String,
}

#[derive(Default)]
pub(super) struct Account {
    pub(super) fates: HashMap<Token, Fate>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) taken: Vec<Taken>,
    /// How often each notice may rightly have been taken once more: a crash in the moment of sending, an answer that was lost.
    pub(super) excused: HashMap<String, u32>,
    /// Telling under way, by notifier.
    pub(super) in_hand: BTreeMap<String, String>,
    pub(super) owed: u64,
    pub(super) sent: u64,
    pub(super) crashes: u32,
    pub(super) refusals: u64,
    pub(super) events: u64,
    trace: DefaultHasher,
}

pub(crate) struct World {
    pub(super) profile: Profile,
    /// Of the life that goes on: each has its own, as each process has.
    clock: Mutex<Clock>,
    rng: Mutex<Rng>,
    account: Mutex<Account>,
    /// The process dies when it reaches this for the so-maniest time.
    doom: Mutex<Option<(Point, u32)>>,
    pub(super) death: Notify,
    /// Nothing fails any more.
    is_calm: Mutex<bool>,
}

impl World {
    pub(super) fn new(profile: Profile, clock: Clock) -> World {
        World {
            rng: Mutex::new(Rng::with_seed(profile.seed)),
            doom: Mutex::new(profile.doom),
            profile,
            clock: Mutex::new(clock),
            account: Mutex::default(),
            death: Notify::new(),
            is_calm: Mutex::new(false),
        }
    }

    /// The time on the wall.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).now().wall
    }

    /// A life begins.
    pub(super) fn set_clock(&self, clock: Clock) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn calm_down(&self) {
        *self.is_calm.lock().unwrap_or_else(PoisonError::into_inner) = true;
        *self.doom.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn is_calm(&self) -> bool {
        *self.is_calm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of this likelihood happens.
    pub(super) fn happens(&self, likelihood: f64) -> bool {
        !self.is_calm() && self.chance().f64() < likelihood
    }

    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        let share = self.chance().f64();
        least + (most - least).mul_f64(share)
    }

    /// Takes down that something happened; two runs of one seed have the same trace.
    pub(super) fn note(&self, what: impl Hash) {
        let now = self.now().as_microsecond();
        let mut account = self.account();
        account.events += 1;
        if !self.profile.is_counted {
            return;
        }
        (now, what).hash(&mut account.trace);
    }

    pub(super) fn trace(&self) -> u64 {
        self.account().trace.finish()
    }

    /// The process is here. If it is to die here, nothing after this happens.
    pub(super) async fn reach(&self, point: Point) {
        self.note(point);
        let dies = {
            let mut doom = self.doom.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *doom {
                Some((at, left)) if *at == point => {
                    *left = left.saturating_sub(1);
                    let dies = *left == 0;
                    if dies {
                        *doom = None;
                    }
                    dies
                }
                _ => false,
            }
        };
        if dies {
            self.death.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// The process has died: what it had in hand at people's doors may be told again.
    pub(super) fn died(&self) {
        let mut account = self.account();
        account.crashes += 1;
        for id in std::mem::take(&mut account.in_hand).into_values() {
            *account.excused.entry(id).or_default() += 1;
        }
    }

    /// A message leaves, or has come.
    pub(super) fn see(&self, token: Token, what: impl FnOnce(&mut Fate)) {
        if self.profile.is_counted {
            what(self.account().fates.entry(token).or_default());
        }
    }

    /// How long a commit takes, and whether it fails.
    pub(super) fn disk(&self) -> (Duration, bool) {
        let is_slow = self.happens(0.01);
        let most = if is_slow { Duration::from_millis(900) } else { Duration::from_millis(8) };
        let wait = self.between(Duration::from_micros(200), most);
        let fails = self.profile.disk_says_no(self.now()) && !self.is_calm();
        if fails {
            self.account().refusals += 1;
        }
        (wait, fails)
    }

    pub(super) fn committed(&self, batch: &[Change]) {
        if !self.profile.is_counted {
            return;
        }
        for change in batch {
            match change {
                Change::Run { report, .. } => {
                    self.note((&*report.journey, report.slot.as_millisecond(), report.outcome.label()));
                    let (journey, slot) = (report.journey.to_string(), report.slot);
                    let (token, outcome) = (report.token, report.outcome.clone());
                    self.account().verdicts.push(Verdict { journey, slot, token, outcome });
                }
                Change::Owe { row } => {
                    self.note(&row.id);
                    self.account().owed += 1;
                }
                Change::Outbox { id, state } => {
                    self.note((id, state.status.as_str()));
                    let mut account = self.account();
                    account.sent += u64::from(state.status == OutboxStatus::Sent);
                    if state.status != OutboxStatus::Leased {
                        account.in_hand.retain(|_, other| other != id);
                    }
                }
                _ => {}
            }
        }
    }
}
