//! The store: what must survive. One batch is one transaction.

mod codes;
#[cfg(test)]
pub(crate) mod conformance;
pub mod past;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod reading;
mod schema;
pub mod spool;
pub mod sqlite;
pub mod story;

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertState, JourneyAlerts, Subject};
use crate::boots::Boot;
use crate::breaker::{Guarded, Order};
use crate::control::Silence;
use crate::detect::drift::Ran;
use crate::drill::Record;
use crate::incident::Incident;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::outcome::{Verdict, labelled};
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::spend::Spent;
use crate::journey::token::Token;
use crate::ledger::{Entry, Settled};
use crate::notice::Notification;
use crate::notifier::Receipt;
use crate::slo::{Counts, Span, SpanChange};

/// A commit of so many changes has cost little for each of them: a writer does not rest after it, because it is behind.
const CROWD: usize = 512;
/// What was spent is of interest on its day, and no zone is more than a day from ours.
const KEEP_SPENT: Duration = Duration::from_secs(3 * 86_400);

/// Something to be made durable.
#[derive(Clone, Debug)]
pub enum Change {
    /// A token is expected.
    Expect {
        /// The token.
        token: Token,
        /// Its entry.
        entry: Entry,
    },
    /// A run is about to send what it will wait for. It is forgotten when its token is settled.
    Begun {
        /// What is needed to go on with it.
        checkpoint: Box<Checkpoint>,
    },
    /// A run that has begun stands elsewhere now. One that is settled stays so.
    Waits {
        /// What is needed to go on with it.
        checkpoint: Box<Checkpoint>,
    },
    /// A message has come, and whoever sent it is about to be told so: nobody sends it again. It is forgotten when its token
    /// is settled, and not kept where it would be a copy.
    Arrived {
        /// Whose it is.
        token: Token,
        /// The message, and when it came.
        arrival: Box<Arrival>,
    },
    /// A token's run has ended, or its message came after all.
    Settle {
        /// The token.
        token: Token,
        /// How it stands now.
        how: Settled,
    },
    /// A run ended.
    Run {
        /// The report.
        report: Box<Report>,
        /// Whether its evidence is kept beside the row.
        keep_evidence: bool,
    },
    /// A run beside the schedule ended: its evidence is kept, and no slot has it.
    Evidence {
        /// The report.
        report: Box<Report>,
    },
    /// A run's message turned up late.
    Amend {
        /// Whose run.
        journey: Name,
        /// Which slot.
        slot: Timestamp,
        /// How late, after its deadline.
        late_by: Duration,
    },
    /// A run is about to send messages that cost something: their number is added to the day's.
    Spend {
        /// The messages.
        spent: Spent,
    },
    /// Spans of a journey's history changed.
    Spans {
        /// The journey.
        journey: Name,
        /// The changes, in order.
        changes: Vec<SpanChange>,
    },
    /// A journey's alerts changed.
    Alert {
        /// The journey.
        journey: Name,
        /// The alerts as they are now.
        state: Box<JourneyAlerts>,
    },
    /// The alert of a channel, or of a part of the daemon, changed.
    Condition {
        /// What it is about.
        subject: Subject,
        /// The alert as it is now.
        state: Box<AlertState>,
    },
    /// An incident opened, changed or closed.
    Incident {
        /// The incident as people see it.
        row: IncidentRow,
        /// What is needed to go on with it, while it is open.
        open: Option<Box<Incident>>,
        /// A journey that it concerns from now on.
        journeys: Vec<Name>,
    },
    /// A silence begins or is changed.
    Silence {
        /// The silence.
        silence: Box<Silence>,
    },
    /// A silence is taken back.
    Unsilence {
        /// Its id.
        id: String,
    },
    /// A notice is owed.
    Owe {
        /// Its outbox row.
        row: Box<OutboxRow>,
    },
    /// A notifier asked us to wait, or its breaker is open, and that outlives a restart.
    Hold {
        /// Which notifier, or which breaker.
        notifier: Name,
        /// Nothing is sent to it before.
        until: Timestamp,
    },
    /// The monitor's own journey has a verdict: its only row in the outbox is owed anew, whatever became of it before.
    Own {
        /// The row.
        row: Box<OutboxRow>,
    },
    /// The daemon has started, lives, or ends in order.
    Boot {
        /// The start as it stands.
        boot: Boot,
    },
    /// Somebody forces a breaker, or lets it go by itself.
    Order {
        /// Before what it stands.
        what: Guarded,
        /// What is wanted of it.
        order: Option<Box<Order>>,
    },
    /// A drill begins, goes on or ends.
    Drill {
        /// As it is now.
        record: Box<Record>,
    },
    /// An outbox row's state changed.
    Outbox {
        /// Which row.
        id: String,
        /// Its state now.
        state: OutboxState,
    },
    /// An outbox row tells what those before it would have told.
    Combine {
        /// The row, with what it tells now.
        row: Box<OutboxRow>,
        /// The rows that it makes needless.
        superseded: Vec<String>,
    },
    /// A daemon that does not lead has seen something of a journey's run: it is kept for the one that leads until that has
    /// heard it.
    Relay {
        /// Whose run.
        journey: Name,
        /// The run, if it has ended with this: nobody goes on with it.
        ended: Option<Token>,
        /// What was seen.
        document: String,
        /// Another daemon may run the journey by now: it is kept all the same.
        is_belated: bool,
    },
    /// What another daemon saw has been taken up: in the same batch as what followed from it.
    Heard {
        /// Who saw it.
        writer: String,
        /// Its place in what that one saw.
        number: i64,
    },
}

impl Change {
    /// The journey whose run it is of, if only the daemon that runs it may say so.
    pub fn runs(&self) -> Option<&Name> {
        match self {
            Change::Expect { entry, .. } => Some(&entry.journey),
            Change::Begun { checkpoint } | Change::Waits { checkpoint } => Some(&checkpoint.journey),
            Change::Relay { journey, is_belated: false, .. } => Some(journey),
            _ => None,
        }
    }

    /// Whether only a store that several daemons share can take it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Change::Relay { .. } | Change::Heard { .. })
    }

    /// Whether what anybody is owed is another after it.
    pub fn is_of_outbox(&self) -> bool {
        matches!(self, Change::Owe { .. } | Change::Own { .. } | Change::Outbox { .. } | Change::Combine { .. })
    }
}

/// A notice owed to one notifier.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// The delivery id.
    pub id: String,
    /// The incident; rows of one incident and notifier are delivered in order.
    pub incident: String,
    /// Which notice of the incident.
    pub sequence: u32,
    /// To whom.
    pub notifier: Name,
    /// For which notifier it stands in, and why.
    pub instead_of: Option<(String, String)>,
    /// When it was decided.
    pub created: Timestamp,
    /// What to tell.
    pub notification: Notification,
    /// Where it stands.
    pub state: OutboxState,
}

labelled! {
    /// The states of an outbox row.
    OutboxStatus {
        /// Not tried yet, or to be tried again.
        Pending = "pending",
        /// An attempt is under way.
        Leased = "leased",
        /// Taken by the other side.
        Sent = "sent",
        /// An attempt may or may not have been taken.
        Ambiguous = "ambiguous",
        /// A later notice of the same incident told it too.
        Superseded = "superseded",
        /// Given up: shown, counted, and tried again when the notifier next works.
        Dead = "dead",
    }
}

/// Where an outbox row stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxState {
    /// The state.
    pub status: OutboxStatus,
    /// Attempts made.
    pub attempt: u32,
    /// Not to be tried before.
    pub not_before: Timestamp,
    /// The last attempt's error.
    pub error: Option<String>,
    /// The proof, once sent.
    pub receipt: Option<Receipt>,
    /// When the state was reached.
    pub at: Timestamp,
}

impl OutboxState {
    /// A new row's state.
    pub fn pending(now: Timestamp) -> OutboxState {
        OutboxState { status: OutboxStatus::Pending, attempt: 0, not_before: now, error: None, receipt: None, at: now }
    }

    /// Whether its time has come. It has too when the state is from a future that a clock which was set back has taken away: how
    /// long that will last, nobody knows.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.not_before <= now || now < self.at
    }
}

/// An incident as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// The incident.
    pub id: String,
    /// What it is about.
    pub subject: String,
    /// The first bad slot.
    pub since: Timestamp,
    /// When it was over.
    pub resolved: Option<Timestamp>,
    /// Its worst severity.
    pub severity: String,
    /// Its detectors at last.
    pub detectors: Vec<String>,
    /// The deciding run's verdict in a sentence.
    pub summary: String,
    /// Bad runs.
    pub bad_runs: u32,
    /// Alerts that are or were part of it.
    pub members: u32,
}

/// A run as lists show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run, if its evidence is kept: what [`Store::report`] finds it by.
    pub token: Option<Token>,
    /// Its slot.
    pub slot: Timestamp,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why, where there is a why: the cause, or the reason for not knowing.
    pub why: String,
    /// Critical-path latency, as far as it got.
    #[serde(with = "crate::time::micros")]
    pub latency: Duration,
    /// How late its message came, if it did.
    pub late_by: Option<Duration>,
}

/// What a journey's runs of a day came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its first moment, in UTC.
    pub start: Timestamp,
    /// Its runs.
    pub counts: Counts,
}

/// A journey's saved state.
#[derive(Clone, Debug, Default)]
pub struct SavedJourney {
    /// Its history, in order.
    pub spans: Vec<Span>,
    /// Its alerts.
    pub alerts: JourneyAlerts,
    /// Its last good run.
    pub last_good: Option<Report>,
}

/// What to forget.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Runs, incidents, and delivered notices before this.
    pub runs_before: Timestamp,
    /// Evidence of good runs before this.
    pub good_evidence_before: Timestamp,
    /// Ledger entries that are of no interest after this.
    pub ledger_before: Timestamp,
}

/// What the store could not do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file said no. Nothing of the batch was kept; trying again may help.
    #[error("the store cannot write: {0}")]
    Unwritable(String),
    /// What is there cannot be read as ours.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// It was written by a newer version.
    #[error(
        "the store has schema version {found}, this build knows up to {known}: run the newer build, or restore the backup from before the upgrade"
    )]
    TooNew {
        /// The schema version found.
        found: i64,
        /// The newest version that this build knows.
        known: i64,
    },
    /// It was written by an older version, and only a daemon migrates.
    #[error(
        "the store has schema version {found}, this build reads {known}: the daemon of this build migrates it when it starts"
    )]
    TooOld {
        /// The schema version found.
        found: i64,
        /// The version that this build knows.
        known: i64,
    },
    /// Another process has it.
    #[error("the store is in use by another process: {0}")]
    InUse(String),
    /// Another daemon writes in our place. Nothing of the batch was kept, and nothing will be.
    #[error("another daemon has taken over: the lease of {0} is not ours any more")]
    Fenced(String),
    /// Another daemon runs the journey. Nothing of the batch was kept, and nothing will be.
    #[error("another daemon runs journey {0} now: its shard is not ours any more")]
    Moved(String),
    /// The store is one daemon's alone.
    #[error("nothing is relayed through a store that one daemon has to itself")]
    Unshared,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Durable state. Batches of concurrent callers may share one commit; each is whole or not at all.
pub trait Store: Send + Sync {
    /// What was wrong with what it is kept in when it was opened, and what is lost of it; `None` if nothing was.
    fn mended(&self) -> Option<&str> {
        None
    }

    /// Whether other daemons may run journeys whose runs are written down here, too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Makes a batch durable: all of it or nothing. Returns when it is on disk.
    fn apply(&self, batch: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The installation's key, made at the first start.
    fn key(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;

    /// A journey's state; the default if it has none.
    fn journey(&self, name: Name) -> BoxFuture<'_, Result<SavedJourney, StoreError>>;

    /// The alerts of channels and of the daemon's parts.
    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Subject, AlertState)>, StoreError>>;

    /// The open incidents, to go on with.
    fn open_incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>>;

    /// The silences, those that are over among them.
    fn silences(&self) -> BoxFuture<'_, Result<Vec<Silence>, StoreError>>;

    /// Every token in the ledger.
    fn ledger(&self) -> BoxFuture<'_, Result<Vec<(Token, Entry)>, StoreError>>;

    /// The runs that have begun and have not ended, oldest slots first.
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Checkpoint>, StoreError>>;

    /// The arrivals that nothing has followed from yet, in order. Their monotonic times are zero: another process took them.
    fn arrivals(&self) -> BoxFuture<'_, Result<Vec<Arrival>, StoreError>>;
    /// The last starts of the daemon, the newest first; at most [`crate::boots::KEPT`].
    fn boots(&self) -> BoxFuture<'_, Result<Vec<Boot>, StoreError>>;

    /// What was spent, by channel, day and journey, of the last days.
    fn spent(&self) -> BoxFuture<'_, Result<Vec<Spent>, StoreError>>;

    /// The notifier's next row: the oldest undelivered of each incident whose time has come, the oldest of those; otherwise the
    /// earliest time at which there will be one.
    fn next_due(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<Due, StoreError>>;

    /// The undelivered notices to this notifier: the open ones of all incidents, oldest first; or those of one incident in its
    /// order, with those that were given up.
    fn undelivered(
        &self,
        notifier: Name,
        incident: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>>;

    /// A number that is another one as soon as the outbox is; nobody has to ask what it holds while this stays the same. `None`
    /// where only asking tells.
    fn outbox_edition(&self) -> Option<u64> {
        None
    }

    /// The receipt of the message that stands for the incident at this notifier: the last that took an earlier one's place, or
    /// that of the first delivered notice.
    fn root_receipt(&self, incident: String, notifier: Name) -> BoxFuture<'_, Result<Option<Receipt>, StoreError>>;

    /// Until when the notifier last asked us to wait, or until when the breaker of this name was open.
    fn hold(&self, notifier: Name) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// What people want of breakers, orders whose time is over among them.
    fn orders(&self) -> BoxFuture<'_, Result<Vec<(Guarded, Order)>, StoreError>>;

    /// Outbox rows for people to see, newest first; `None` is every status. The list goes on after this row, if one is named.
    fn outbox(
        &self,
        status: Option<OutboxStatus>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>>;

    /// How many rows each notifier has in each state, and since when the oldest undelivered waits.
    fn outbox_summary(&self) -> BoxFuture<'_, Result<Vec<OutboxSummary>, StoreError>>;

    /// A journey's runs, newest first; those with slots before this one, if one is named.
    fn runs(
        &self,
        journey: Name,
        before: Option<Timestamp>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RunRow>, StoreError>>;

    /// A journey's runs in each of these windows - after the first, up to and with the second -, newest first, of each at most
    /// `limit`. What is unknown or excluded is none.
    fn latencies(
        &self,
        journey: Name,
        windows: Vec<(Timestamp, Timestamp)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Vec<Ran>>, StoreError>>;

    /// What a journey's runs came to, by day (UTC), of the days that had any: those with slots from the first time to before the
    /// second, oldest first.
    fn days(&self, journey: Name, from: Timestamp, until: Timestamp) -> BoxFuture<'_, Result<Vec<Day>, StoreError>>;

    /// A run's evidence.
    fn report(&self, token: Token) -> BoxFuture<'_, Result<Option<Report>, StoreError>>;

    /// Incidents, newest first; of one journey or of all. The list goes on after this one, if one is named.
    fn incidents(
        &self,
        journey: Option<Name>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IncidentRow>, StoreError>>;

    /// One incident, open or over.
    fn incident(&self, id: String) -> BoxFuture<'_, Result<Option<IncidentRow>, StoreError>>;

    /// Drills, newest first; of one journey or of all.
    fn drills(&self, journey: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;

    /// One drill.
    fn drill(&self, id: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// The notices of an incident, newest first.
    fn notices(&self, incident: String, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>>;

    /// Forgets what is older than retention wants.
    fn forget(&self, retention: Retention) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Brings the dead rows of a notifier back, because it works again. Returns how many. What was told after one, of the same
    /// incident, is newer than what it would tell, and takes its place.
    fn revive(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Waits until everything is written, and closes.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What [`Store::next_due`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// This row, now.
    Row(Box<OutboxRow>),
    /// None before then.
    At(Timestamp),
    /// None at all.
    Nothing,
}

impl Due {
    /// Of the row that is the notifier's next, if there is one.
    fn of(next: Option<OutboxRow>, now: Timestamp) -> Due {
        match next {
            None => Due::Nothing,
            Some(row) if row.state.is_due(now) => Due::Row(Box::new(row)),
            Some(row) => Due::At(row.state.not_before),
        }
    }
}

/// A notifier's rows in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxSummary {
    /// The notifier.
    pub notifier: Name,
    /// Rows not delivered yet.
    pub pending: u64,
    /// Rows given up.
    pub dead: u64,
    /// When the oldest undelivered row was decided.
    pub oldest: Option<Timestamp>,
}
