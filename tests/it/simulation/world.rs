//! What outlives the process: chance, the points at which it dies, and the account of what really happened.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::journey::outcome::Outcome;
use journeyman::journey::token::Token;
use journeyman::store::{Change, OutboxStatus};
use journeyman::time::earlier;
use tokio::sync::Notify;

use super::profile::{Accounts, BEGIN, Death, Profile};

/// So long after the disk works again all is on it that was told meanwhile.
const HAND_BACK: Duration = Duration::from_secs(8);

/// Moments at which a process can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Point {
    /// A slot is chosen, and what its run may spend is about to be written; nothing else is.
    SlotChosen,
    /// A run is about to make its token durable; has written it, and it is not synced; has.
    BeforeToken,
    Unsynced,
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
    /// A changed configuration is taken up by one half of the daemon, and not by the other.
    Swapping,
    /// While the daemon starts and reads what is there.
    Starting,
    /// It found runs that the one before left, and goes on with them: before the first step, and then while they wait.
    TakingOver,
    /// While it stops in order.
    Stopping,
}

impl Point {
    pub(crate) const ALL: &'static [Point] = &[
        Point::SlotChosen,
        Point::BeforeToken,
        Point::Unsynced,
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
        Point::Swapping,
        Point::Starting,
        Point::TakingOver,
        Point::Stopping,
    ];
}

/// What became of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// When the channel began to send it; the last time, should there be several.
    pub(super) sent: Option<Timestamp>,
    /// When it was first at the other end, for whoever asks there.
    pub(super) there: Option<Timestamp>,
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
pub(crate) struct Taken {
    pub(crate) at: Timestamp,
    pub(crate) id: String,
    pub(crate) notifier: String,
    pub(crate) incident: String,
    pub(crate) sequence: u32,
    pub(crate) reason: String,
    /// What the incident is of.
    pub(crate) title: String,
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
    /// Messages that a system was given in each second.
    pub(super) sends: BTreeMap<i64, u32>,
    /// Messages that cost something.
    pub(super) paid: u64,
    pub(super) crashes: u32,
    /// From each death to the life after it.
    pub(super) absences: Vec<(Timestamp, Option<Timestamp>)>,
    /// It died while the disk said no, or before it could write down what it had told meanwhile: nobody knows of that any more.
    pub(super) is_forgetful: bool,
    pub(super) refusals: u64,
    pub(super) events: u64,
    trace: DefaultHasher,
    /// Every event in words, if that is asked for.
    pub(super) lines: Vec<String>,
}

pub(crate) struct World {
    pub(super) profile: Profile,
    /// Of the life that goes on: each has its own, as each process has.
    clock: Mutex<Clock>,
    rng: Mutex<Rng>,
    account: Mutex<Account>,
    /// The process dies when it reaches this for the so-maniest time.
    doom: Mutex<Option<(Point, u32, Death)>>,
    pub(super) death: Notify,
    /// How it died, once it has: nothing that it does after that happens.
    died: Mutex<Option<Death>>,
    /// Nothing fails any more.
    is_calm: Mutex<bool>,
    /// What was written and is not synced, in its order: it outlives the process, and not the power.
    written: Mutex<Vec<Vec<Change>>>,
    /// What of that is on disk when the next process comes.
    survived: Mutex<Vec<Vec<Change>>>,
    /// How often the configuration was changed.
    edition: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            died: Mutex::default(),
            is_calm: Mutex::new(false),
            written: Mutex::default(),
            survived: Mutex::default(),
            edition: Mutex::default(),
        }
    }

    /// The time on the wall.
    pub(super) fn now(&self) -> Timestamp {
        lock(&self.clock).now().wall
    }

    /// A life begins.
    pub(super) fn begin(&self, clock: Clock) {
        *lock(&self.clock) = clock;
        *lock(&self.died) = None;
        let now = self.now();
        if let Some((_, end @ None)) = self.account().absences.last_mut() {
            *end = Some(now);
        }
    }

    pub(super) fn chance(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// The configuration as it is on disk.
    pub(super) fn edition(&self) -> u32 {
        *lock(&self.edition)
    }

    /// Somebody changes it; gives how it is then.
    pub(super) fn edit(&self) -> u32 {
        let mut edition = lock(&self.edition);
        *edition += 1;
        *edition
    }

    /// From here on nothing fails. Gives the death that never came.
    pub(super) fn calm_down(&self) -> Option<(Point, u32, Death)> {
        *lock(&self.is_calm) = true;
        lock(&self.doom).take()
    }

    pub(super) fn is_calm(&self) -> bool {
        *lock(&self.is_calm)
    }

    /// Whether a mishap of this likelihood happens.
    pub(super) fn happens(&self, likelihood: f64) -> bool {
        self.profile.has_mishaps && !self.is_calm() && self.chance().f64() < likelihood
    }

    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        let share = self.chance().f64();
        least + (most - least).mul_f64(share)
    }

    /// Takes down that something happened; two runs of one seed have the same trace.
    pub(super) fn note(&self, what: impl Hash + Debug) {
        let now = self.now().as_microsecond();
        let mut account = self.account();
        account.events += 1;
        if self.profile.accounts < Accounts::All {
            return;
        }
        if self.profile.accounts == Accounts::Trace {
            let line = format!("{:>12.6} {what:?}", (now - BEGIN * 1_000_000) as f64 / 1e6);
            account.lines.push(line);
        }
        (now, what).hash(&mut account.trace);
    }

    pub(super) fn trace(&self) -> u64 {
        self.account().trace.finish()
    }

    /// Returns if the process lives.
    pub(super) async fn alive(&self) {
        if lock(&self.died).is_some() {
            std::future::pending::<()>().await;
        }
    }

    /// The process is here. If it is to die here, nothing after this happens.
    pub(super) async fn reach(&self, point: Point) {
        self.alive().await;
        self.note(point);
        let death = {
            let mut doom = lock(&self.doom);
            match &mut *doom {
                Some((at, left, death)) if *at == point => {
                    *left = left.saturating_sub(1);
                    let death = *death;
                    if *left == 0 { doom.take().map(|_| death) } else { None }
                }
                _ => None,
            }
        };
        if let Some(death) = death {
            *lock(&self.died) = Some(death);
            self.death.notify_one();
            self.alive().await;
        }
    }

    /// How the process ended: where it was to, or in any way.
    fn way(&self) -> Death {
        let died = *lock(&self.died);
        died.unwrap_or_else(|| match self.chance().u8(0..4) {
            0 => Death::Power,
            1 => Death::Abort,
            _ => Death::Kill,
        })
    }

    /// Something is written, and not on disk yet.
    pub(super) fn write(&self, batch: Vec<Change>) {
        lock(&self.written).push(batch);
    }

    /// What is to be on disk now.
    pub(super) fn sync(&self) -> Vec<Vec<Change>> {
        std::mem::take(&mut *lock(&self.written))
    }

    /// What got to the disk after the process before had died.
    pub(super) fn survived(&self) -> Vec<Vec<Change>> {
        std::mem::take(&mut *lock(&self.survived))
    }

    /// The process has died, and so: what it had written is on disk or gone, and what it had in hand at people's doors may be told again.
    pub(super) fn bury(&self) -> Death {
        let death = self.way();
        self.note(death);
        let written = self.sync();
        if death != Death::Power {
            written.iter().for_each(|batch| self.committed(batch));
            lock(&self.survived).extend(written);
        }
        let now = self.now();
        let says_no = |before: Duration| self.profile.disk_says_no(earlier(now, before));
        let is_forgotten = says_no(Duration::ZERO) || says_no(HAND_BACK);
        let mut account = self.account();
        account.crashes += 1;
        account.absences.push((now, None));
        account.is_forgetful |= is_forgotten;
        for id in std::mem::take(&mut account.in_hand).into_values() {
            *account.excused.entry(id).or_default() += 1;
        }
        death
    }

    /// A system is given a message.
    pub(super) fn sends(&self, is_paid: bool) {
        let now = self.now().as_second();
        let mut account = self.account();
        account.paid += u64::from(is_paid);
        if self.profile.accounts >= Accounts::Heard {
            *account.sends.entry(now).or_default() += 1;
        }
    }

    /// A message leaves, or has come.
    pub(super) fn see(&self, token: Token, what: impl FnOnce(&mut Fate)) {
        if self.profile.accounts >= Accounts::All {
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
        if self.profile.accounts < Accounts::All {
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
