//! The store on PostgreSQL, or on an engine that speaks its protocol: one session writes, a few read.
//!
//! The writer takes every batch that waits and commits them together. What [`Store::apply`] has confirmed is as durable as the
//! server makes a commit. A daemon writes under a lease, and every transaction proves that it still has it. Nothing here needs
//! more than rows, transactions and row locks.

mod changes;
mod errand;
mod lease;
mod line;
mod link;
mod look;
mod rows;
mod schema;
mod share;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

use self::changes::code;
use self::link::{Fault, Session, Value, pause};
use self::rows::{
    arrival, boot, day, from_json, get, incident_row, ledger_entry, order, outbox_row, parse, ran, readable, run_row,
    span, spent, summary, text,
};
use self::writer::{Batch, Job, Proof, QUEUE, Writer, is_ours};
use crate::alert::{AlertState, Subject};
use crate::boots::Boot;
use crate::breaker::{Guarded, Order};
use crate::clock::Clock;
use crate::cluster::shard_of;
use crate::control::Silence;
use crate::detect::drift::Ran;
use crate::drill::Record;
use crate::incident::Incident;
use crate::journey::Name;
use crate::journey::message::Arrival;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::spend::Spent;
use crate::journey::token::Token;
use crate::ledger::Entry;
use crate::notifier::Receipt;
use crate::slo::Counts;
use crate::store::codes::{blob, millis, time};
use crate::store::{
    Change, Day, Due, IncidentRow, KEEP_SPENT, OutboxRow, OutboxStatus, OutboxSummary, Retention, RunRow, SavedJourney,
    Store, StoreError,
};
use crate::time::earlier;

pub use self::errand::{Answer, Errand, Errands, PATIENCE};
pub use self::lease::{Fence, Lease, Member, Turn};
pub(super) use self::link::place_of;
pub use self::link::{Endpoint, check_url, password_of};
pub(super) use self::look::Look;
pub use self::share::{Estate, Group, Handed, Held, Relayed, Share, Sharing, Standing, Taken};

/// Questions that are asked at once: pages must not take the sessions of others away.
const READERS: usize = 2;
/// What a page asks for is answered within this, or not at all.
const LONGEST_READ: Duration = Duration::from_secs(15);
/// All that one question takes, with the wait for a session.
const READ: Duration = Duration::from_secs(20);
/// While the server takes no commits, a question waits this long.
const AWAY: Duration = Duration::from_secs(1);
/// A question that was in another's way is asked so often.
const ATTEMPTS: u32 = 5;
/// What nobody heard of within a day is no news.
const KEEP_RELAYED: Duration = Duration::from_secs(86_400);
/// Journeys whose old runs are forgotten in one transaction: each holds the lease's row, and must be short.
const FORGET_AT_ONCE: usize = 32;
/// What transactions left behind of writers that are long gone is of no interest after this.
const KEEP_WRITTEN: Duration = Duration::from_secs(7 * 86_400);

/// The columns of an outbox row, as [`outbox_row`] reads them, and what follows.
macro_rules! outbox {
    ($rest:expr) => {
        concat!(
            "SELECT id, incident, sequence, notifier, instead_of, created, notification, status, attempt, not_before,
                error, receipt, at FROM outbox ",
            $rest
        )
    };
}
/// The columns of an incident, as [`incident_row`] reads them, and what follows.
macro_rules! incident {
    ($rest:expr) => {
        concat!(
            "SELECT id, subject, since, resolved, severity, detectors, summary, bad_runs, members FROM incident ",
            $rest
        )
    };
}
use {incident, outbox};

/// The PostgreSQL store.
pub struct Postgres {
    endpoint: Endpoint,
    fence: Option<Fence>,
    sharing: Option<Sharing>,
    jobs: mpsc::Sender<Job>,
    /// Sessions that nobody asks at the moment.
    idle: Mutex<Vec<Session>>,
    turns: Semaphore,
    /// Whether the server was away for the writer.
    is_away: watch::Receiver<bool>,
    closing: CancellationToken,
    fenced: CancellationToken,
    /// How often the outbox has changed by us.
    outbox: Arc<AtomicU64>,
    _writer: JoinSet<()>,
}

/// Makes what a lease needs, where there is nothing yet; with `all`, brings the schema up to date.
///
/// # Errors
/// The server does not answer, or has a newer schema than this build knows.
async fn prepare(endpoint: &Endpoint, all: bool) -> Result<(), StoreError> {
    // It may have to wait for another who does the same, or for a long table.
    let session = endpoint.connect("journeyman schema", Duration::from_secs(100)).await.map_err(Fault::unwritable)?;
    match all {
        true => schema::migrate(&session, fresh()?).await?,
        false => schema::begin(&session, fresh()?).await?,
    }
    session.close().await;
    Ok(())
}

/// Makes the server ready for a daemon named `heir` that has begun without it: its schema, and the shards that the
/// process before it held last, as far as nobody has had them since. They last for `ttl` from now on.
///
/// # Errors
/// The server does not answer, or has a newer schema than this build knows.
pub async fn inherit(
    endpoint: &Endpoint,
    (heir, before): (&str, &str),
    held: &BTreeMap<i32, i64>,
    ttl: Duration,
) -> Result<(), StoreError> {
    prepare(endpoint, true).await?;
    let session = endpoint.connect("journeyman share", LONGEST_READ).await.map_err(Fault::unwritable)?;
    share::inherit(&session, (heir, before), held, ttl).await.map_err(Fault::unwritable)?;
    session.close().await;
    Ok(())
}

fn fresh<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut fresh = [0u8; N];
    getrandom::fill(&mut fresh).map_err(|error| StoreError::Unwritable(format!("no randomness: {error}")))?;
    Ok(fresh)
}

/// Text as it is written; see [`text`].
fn text_of(plain: &str) -> String {
    text(plain).into_owned()
}

impl Postgres {
    /// Opens the store with a writer that rests so long after each commit, unless somebody is owed a notice by it. Behind a fence
    /// it writes only while the lease is as it was when it was taken. Where journeys are shared, what is of a run is written only
    /// while the journey's shard is ours, in the epoch in which it was handed in: otherwise that batch alone fails, with
    /// [`StoreError::Moved`]. Whoever shares and has no fence writes nothing but what is of runs. `clock` is the one that
    /// arrivals are stamped by.
    ///
    /// # Errors
    /// The server does not answer, or its state belongs to a newer version.
    pub async fn open_resting(
        endpoint: Endpoint,
        fence: Option<Fence>,
        sharing: Option<Sharing>,
        clock: Clock,
        rest: Duration,
    ) -> Result<Postgres, StoreError> {
        prepare(&endpoint, true).await?;
        Postgres::open_unasked(endpoint, fence, sharing, clock, rest)
    }

    /// As [`Postgres::open_resting`], and the server is not asked: it is away. Whoever lets it be asked has made it
    /// ready before, by [`inherit`].
    ///
    /// # Errors
    /// There is no randomness.
    pub fn open_unasked(
        endpoint: Endpoint,
        fence: Option<Fence>,
        sharing: Option<Sharing>,
        clock: Clock,
        rest: Duration,
    ) -> Result<Postgres, StoreError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (outbox, fenced) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let (away, is_away) = watch::channel(false);
        let proofs = (fence.clone(), sharing.clone());
        let writer = Writer::new(endpoint.clone(), proofs, clock, fresh()?, (outbox.clone(), away), fenced.clone());
        let mut driver = JoinSet::new();
        driver.spawn(writer.run(queue, rest));
        let (idle, turns, closing) = (Mutex::default(), Semaphore::new(READERS), CancellationToken::new());
        Ok(Postgres { endpoint, fence, sharing, jobs, idle, turns, is_away, closing, fenced, outbox, _writer: driver })
    }

    /// Cancelled once it was found that another daemon has taken over: nothing is written any more.
    pub fn fenced(&self) -> CancellationToken {
        self.fenced.clone()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of a question, asked in a session that is free, or in a new one.
    async fn ask(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut is_away = self.is_away.clone();
        // Whoever tells people without the store does not wait for what it would have said.
        let away = async {
            let _ = is_away.wait_for(|is_away| *is_away).await;
            sleep(AWAY).await;
        };
        let given_up = async {
            tokio::select! {
                () = away => AWAY,
                () = sleep(READ) => READ,
            }
        };
        let asked = async {
            let _turn = self.turns.acquire().await.map_err(|_| Fault::Refused("the store is closed".to_owned()))?;
            let mut attempt = 0;
            loop {
                let kept = self.idle().pop().filter(|session| !session.is_closed());
                let is_old = kept.is_some();
                let session = match kept {
                    Some(session) => session,
                    None => self.endpoint.connect("journeyman reader", LONGEST_READ).await?,
                };
                attempt += 1;
                match session.rows(sql, values).await {
                    // What else is kept is as old.
                    Err(Fault::Lost(_)) if is_old => self.idle().clear(),
                    Err(Fault::Again(_)) if attempt < ATTEMPTS => {
                        self.idle().push(session);
                        sleep(pause(attempt, fastrand::f64())).await;
                    }
                    Err(fault @ Fault::Lost(_)) => return Err(fault),
                    answer => {
                        self.idle().push(session);
                        return answer;
                    }
                }
            }
        };
        tokio::select! {
            answer = asked => answer.map_err(Fault::unreadable),
            longest = given_up => {
                let place = self.endpoint.place();
                Err(StoreError::Unreadable(format!("{place} gave no answer within {} s", longest.as_secs())))
            }
        }
    }

    /// All rows of a question, each read.
    async fn all<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.ask(sql, values).await?.iter().map(read).collect()
    }

    /// The first row of a question, read.
    async fn first<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.ask(sql, values).await?.first().map(read).transpose()
    }

    async fn send<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// What has to be ours for these changes, as it is now: a batch that waits until a shard has come back is of the time before.
    fn proof(&self, changes: &[Change]) -> Result<Proof, StoreError> {
        let Some(Sharing { held, .. }) = &self.sharing else {
            return if changes.iter().any(Change::is_shared) { Err(StoreError::Unshared) } else { Ok(Proof::new()) };
        };
        let prove = |journey: &Name| {
            let shard = shard_of(journey);
            let epoch = held.epoch(shard).ok_or_else(|| StoreError::Moved(journey.to_string()))?;
            Ok((shard, epoch))
        };
        changes.iter().filter_map(Change::runs).map(prove).collect()
    }

    /// Runs statements in transactions of their own, in which the lease is ours; gives how many rows they changed.
    async fn sweep(&self, session: &Session, statements: &[(&'static str, Vec<Value<'_>>)]) -> Result<u64, Fault> {
        let mut attempt = 0;
        loop {
            let swept = async {
                let nothing = async { Ok::<_, Fault>(()) };
                let (is_ours, ()) = session.begin(is_ours(session, self.fence.as_ref()), nothing).await?;
                if !is_ours {
                    return Err(Fault::Fenced(self.endpoint.place()));
                }
                let mut gone = 0;
                for (sql, values) in statements {
                    gone += session.execute(sql, values).await?;
                }
                session.batch("COMMIT").await?;
                Ok(gone)
            };
            let swept = swept.await;
            if let Err(fault) = &swept {
                let _ = session.batch("ROLLBACK").await;
                if matches!(fault, Fault::Fenced(_)) {
                    self.fenced.cancel();
                }
            }
            attempt += 1;
            match swept {
                Err(Fault::Again(_)) if attempt < ATTEMPTS => sleep(pause(attempt, fastrand::f64())).await,
                swept => return swept,
            }
        }
    }

    async fn sweep_all(&self, retention: Retention) -> Result<u64, Fault> {
        let session = self.endpoint.connect("journeyman housekeeping", LONGEST_READ).await?;
        let [runs, good] = [millis(retention.runs_before), millis(retention.good_evidence_before)];
        let ledger = millis(retention.ledger_before);
        let rows = session.rows("SELECT id FROM journey", &[]).await?;
        let ids: Vec<i64> = rows.iter().filter_map(|row| get(row, 0).ok()).collect();
        let mut gone = 0;
        for ids in ids.chunks(FORGET_AT_ONCE) {
            let old: [(&'static str, Vec<Value<'_>>); 3] = [
                ("DELETE FROM run WHERE journey = ANY($1) AND slot < $2", vec![&ids, &runs]),
                ("DELETE FROM evidence WHERE journey = ANY($1) AND slot < $2", vec![&ids, &runs]),
                ("DELETE FROM evidence WHERE journey = ANY($1) AND slot < $2 AND is_good", vec![&ids, &good]),
            ];
            gone += self.sweep(&session, &old).await?;
        }
        // Any zone's day of today is later than this.
        let day = earlier(retention.ledger_before, KEEP_SPENT).to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
        let written = i64::try_from(KEEP_WRITTEN.as_millis()).unwrap_or(i64::MAX);
        let rest: [(&'static str, Vec<Value<'_>>); 9] = [
            // A run that goes on needs its entry, however long nobody was there.
            ("DELETE FROM ledger WHERE keep_until < $1 AND token NOT IN (SELECT token FROM unfinished)", vec![&ledger]),
            ("DELETE FROM arrival WHERE token NOT IN (SELECT token FROM ledger)", vec![]),
            ("DELETE FROM incident WHERE resolved < $1", vec![&runs]),
            ("DELETE FROM silence WHERE until < $1", vec![&runs]),
            ("DELETE FROM drill WHERE ended < $1", vec![&runs]),
            ("DELETE FROM outbox WHERE status IN ('sent', 'superseded', 'dead') AND created < $1", vec![&runs]),
            (
                "DELETE FROM incident_journey WHERE NOT EXISTS
                    (SELECT 1 FROM incident WHERE incident.id = incident_journey.incident)",
                vec![],
            ),
            ("DELETE FROM spent WHERE day < $1", vec![&day]),
            (
                "DELETE FROM written WHERE at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1",
                vec![&written],
            ),
        ];
        for statement in rest {
            gone += self.sweep(&session, &[statement]).await?;
        }
        let unheard = i64::try_from(KEEP_RELAYED.as_millis()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM relay WHERE at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1";
        let unheard = self.sweep(&session, &[(sql, vec![&unheard])]).await?;
        if unheard > 0 {
            tracing::warn!(
                rows = unheard,
                "what other daemons saw a day ago, and none that led has heard, is forgotten"
            );
        }
        session.close().await;
        Ok(gone + unheard)
    }
}

impl Store for Postgres {
    fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    fn apply(&self, batch: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.closing.is_cancelled() {
                return Err(StoreError::Closed);
            }
            let proof = self.proof(&batch)?;
            self.send(|answer| Job::Apply(Batch { changes: batch, proof, answer })).await
        })
    }

    fn key(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        Box::pin(async move {
            let key = self.first("SELECT bytes FROM meta WHERE key = 'key'", &[], |row| get::<Vec<u8>>(row, 0)).await?;
            let missing = || StoreError::Unreadable("the installation's key is not there".to_owned());
            key.and_then(|key| key.try_into().ok()).ok_or_else(missing)
        })
    }

    fn journey(&self, name: Name) -> BoxFuture<'_, Result<SavedJourney, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT id, alert FROM journey WHERE name = $1";
            let read = |row: &Row| Ok((get::<i64>(row, 0)?, get::<Option<String>>(row, 1)?));
            let Some((id, alert)) = self.first(sql, &[&text_of(&name)], read).await? else {
                return Ok(SavedJourney::default());
            };
            let sql = "SELECT start, step, count, verdict, excluded FROM span WHERE journey = $1 ORDER BY start";
            let spans = self.all(sql, &[&id], span).await?;
            let alerts = alert.map(|alert| parse(&alert)).transpose()?.unwrap_or_default();
            let sql = "SELECT report FROM evidence WHERE journey = $1 AND is_good ORDER BY slot DESC LIMIT 1";
            // It is shown beside what fails; without it, nothing is.
            let last_good = self.first(sql, &[&id], |row| from_json(row, 0)).await.ok().flatten();
            Ok(SavedJourney { spans, alerts, last_good })
        })
    }

    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Subject, AlertState)>, StoreError>> {
        let condition = |row: &Row| Ok((Subject::from(get::<&str>(row, 0)?), from_json(row, 1)?));
        Box::pin(self.all("SELECT subject, state FROM condition ORDER BY subject", &[], condition))
    }

    fn open_incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        let sql = "SELECT state FROM incident WHERE resolved IS NULL AND state IS NOT NULL ORDER BY since, id";
        Box::pin(self.all(sql, &[], |row| from_json(row, 0)))
    }

    fn silences(&self) -> BoxFuture<'_, Result<Vec<Silence>, StoreError>> {
        Box::pin(self.all("SELECT state FROM silence ORDER BY until, id", &[], |row| from_json(row, 0)))
    }

    fn ledger(&self) -> BoxFuture<'_, Result<Vec<(Token, Entry)>, StoreError>> {
        let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger
            JOIN journey ON journey.id = ledger.journey";
        Box::pin(self.all(sql, &[], ledger_entry))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Checkpoint>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT state FROM unfinished ORDER BY slot, token";
            Ok(self.ask(sql, &[]).await?.iter().filter_map(|row| readable(from_json(row, 0))).collect())
        })
    }

    fn arrivals(&self) -> BoxFuture<'_, Result<Vec<Arrival>, StoreError>> {
        Box::pin(async move {
            let rows = self.ask("SELECT message FROM arrival ORDER BY id", &[]).await?;
            Ok(rows.iter().filter_map(|row| readable(arrival(row))).collect())
        })
    }

    fn boots(&self) -> BoxFuture<'_, Result<Vec<Boot>, StoreError>> {
        Box::pin(self.all("SELECT id, started, alive, ended FROM boot ORDER BY id DESC", &[], boot))
    }

    fn spent(&self) -> BoxFuture<'_, Result<Vec<Spent>, StoreError>> {
        Box::pin(async move {
            let spent = self.all("SELECT day, channel, journey, messages FROM spent", &[], spent).await?;
            Ok(spent.into_iter().flatten().collect())
        })
    }

    fn next_due(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<Due, StoreError>> {
        Box::pin(async move {
            // Only the oldest open row of an incident may go: what people are told about it stays in order.
            // The index has all that it is chosen by; the notices that it is chosen from may be thousands.
            let sql = outbox!(
                "WHERE id = (SELECT this.id FROM outbox AS this
                WHERE this.notifier = $1 AND this.status IN ('pending', 'leased', 'ambiguous')
                AND NOT EXISTS (SELECT 1 FROM outbox AS other
                    WHERE other.notifier = $1 AND other.incident = this.incident
                    AND other.status IN ('pending', 'leased', 'ambiguous') AND other.sequence < this.sequence)
                ORDER BY greatest(this.not_before, $2), this.created, this.id LIMIT 1)"
            );
            Ok(Due::of(self.first(sql, &[&text_of(&notifier), &millis(now)], outbox_row).await?, now))
        })
    }

    fn undelivered(
        &self,
        notifier: Name,
        incident: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(async move {
            let notifier = text_of(&notifier);
            match incident {
                None => {
                    let sql = outbox!(
                        "WHERE notifier = $1 AND status IN ('pending', 'leased', 'ambiguous')
                        ORDER BY created, sequence, id"
                    );
                    self.all(sql, &[&notifier], outbox_row).await
                }
                Some(incident) => {
                    let sql = outbox!(
                        "WHERE notifier = $1 AND status IN ('pending', 'leased', 'ambiguous', 'dead')
                        AND incident = $2 ORDER BY sequence, id"
                    );
                    self.all(sql, &[&notifier, &text_of(&incident)], outbox_row).await
                }
            }
        })
    }

    /// Behind a fence nobody else changes the outbox.
    fn outbox_edition(&self) -> Option<u64> {
        self.fence.as_ref().map(|_| self.outbox.load(Ordering::Acquire))
    }

    fn root_receipt(&self, incident: String, notifier: Name) -> BoxFuture<'_, Result<Option<Receipt>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT receipt FROM outbox
                WHERE incident = $1 AND notifier = $2 AND status = 'sent' AND receipt IS NOT NULL
                ORDER BY is_root DESC, sequence * CASE WHEN is_root THEN -1 ELSE 1 END LIMIT 1";
            self.first(sql, &[&text_of(&incident), &text_of(&notifier)], |row| from_json(row, 0)).await
        })
    }

    fn hold(&self, notifier: Name) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT until FROM hold WHERE notifier = $1";
            self.first(sql, &[&text_of(&notifier)], |row| Ok(time(get(row, 0)?))).await
        })
    }

    fn orders(&self) -> BoxFuture<'_, Result<Vec<(Guarded, Order)>, StoreError>> {
        Box::pin(async move {
            let orders = self.all("SELECT what, state FROM wish ORDER BY what", &[], order).await?;
            Ok(orders.into_iter().flatten().collect())
        })
    }

    fn outbox(
        &self,
        status: Option<OutboxStatus>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(async move {
            // Notices of one decision have one time: the id goes on where that ends.
            let sql = outbox!(
                "WHERE ($1::text IS NULL OR status = $1)
                AND ($3::text IS NULL OR (created, id) < (SELECT this.created, this.id FROM outbox AS this WHERE this.id = $3))
                ORDER BY created DESC, id DESC LIMIT $2"
            );
            let (status, after) = (status.map(OutboxStatus::as_str), after.as_deref().map(text_of));
            self.all(sql, &[&status, &whole(limit), &after], outbox_row).await
        })
    }

    fn outbox_summary(&self) -> BoxFuture<'_, Result<Vec<OutboxSummary>, StoreError>> {
        let sql = "SELECT notifier, count(*) FILTER (WHERE status IN ('pending', 'leased', 'ambiguous')),
            count(*) FILTER (WHERE status = 'dead'),
            min(created) FILTER (WHERE status IN ('pending', 'leased', 'ambiguous')) FROM outbox
            GROUP BY notifier ORDER BY notifier";
        Box::pin(self.all(sql, &[], summary))
    }

    fn runs(
        &self,
        journey: Name,
        before: Option<Timestamp>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RunRow>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT token, run.slot, verdict, why, latency, late_by FROM run
                JOIN journey ON journey.id = run.journey
                LEFT JOIN evidence ON evidence.journey = run.journey AND evidence.slot = run.slot
                WHERE name = $1 AND run.slot < $2 ORDER BY run.slot DESC LIMIT $3";
            let before = before.map_or(i64::MAX, millis);
            self.all(sql, &[&text_of(&journey), &before, &whole(limit)], run_row).await
        })
    }

    fn latencies(
        &self,
        journey: Name,
        windows: Vec<(Timestamp, Timestamp)>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Vec<Ran>>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT slot, verdict, latency FROM run
                WHERE journey = (SELECT id FROM journey WHERE name = $1) AND slot > $2 AND slot <= $3
                AND verdict NOT IN ($4, $5) ORDER BY slot DESC LIMIT $6";
            let [unknown, excluded] = [Verdict::Unknown, Verdict::Excluded].map(code);
            let (journey, limit) = (text_of(&journey), whole(limit));
            let mut found = Vec::with_capacity(windows.len());
            for (from, until) in windows {
                let values: [Value<'_>; 6] = [&journey, &millis(from), &millis(until), &unknown, &excluded, &limit];
                found.push(self.all(sql, &values, ran).await?);
            }
            Ok(found)
        })
    }

    fn days(&self, journey: Name, from: Timestamp, until: Timestamp) -> BoxFuture<'_, Result<Vec<Day>, StoreError>> {
        Box::pin(async move {
            // Not every engine divides whole numbers into a whole one.
            let sql = "SELECT floor(slot / 86400000)::bigint AS day, verdict, count(*) FROM run
                WHERE journey = (SELECT id FROM journey WHERE name = $1) AND slot >= $2 AND slot < $3
                GROUP BY day, verdict ORDER BY day";
            let mut days: Vec<Day> = Vec::new();
            for (day, verdict, count) in
                self.all(sql, &[&text_of(&journey), &millis(from), &millis(until)], day).await?
            {
                let start = time(day * 86_400_000);
                if days.last().is_none_or(|day| day.start != start) {
                    days.push(Day { start, counts: Counts::default() });
                }
                if let Some(day) = days.last_mut() {
                    day.counts.add(verdict, count);
                }
            }
            Ok(days)
        })
    }

    fn report(&self, token: Token) -> BoxFuture<'_, Result<Option<Report>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT report FROM evidence WHERE token = $1";
            self.first(sql, &[&blob(token).as_slice()], |row| from_json(row, 0)).await
        })
    }

    fn incidents(
        &self,
        journey: Option<Name>,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IncidentRow>, StoreError>> {
        Box::pin(async move {
            let sql = incident!(
                "WHERE ($1::text IS NULL OR id IN (SELECT incident FROM incident_journey
                    JOIN journey ON journey.id = incident_journey.journey WHERE name = $1))
                AND ($3::text IS NULL OR (since, id) < (SELECT this.since, this.id FROM incident AS this WHERE this.id = $3))
                ORDER BY since DESC, id DESC LIMIT $2"
            );
            let (journey, after) = (journey.as_deref().map(text_of), after.as_deref().map(text_of));
            self.all(sql, &[&journey, &whole(limit), &after], incident_row).await
        })
    }

    fn incident(&self, id: String) -> BoxFuture<'_, Result<Option<IncidentRow>, StoreError>> {
        Box::pin(async move { self.first(incident!("WHERE id = $1"), &[&text_of(&id)], incident_row).await })
    }

    fn drills(&self, journey: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let sql = "SELECT state FROM drill WHERE $1::text IS NULL OR journey = $1
                ORDER BY started DESC, id DESC LIMIT $2";
            let journey = journey.as_deref().map(text_of);
            self.all(sql, &[&journey, &whole(limit)], |row| from_json(row, 0)).await
        })
    }

    fn drill(&self, id: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.first("SELECT state FROM drill WHERE id = $1", &[&text_of(&id)], |row| from_json(row, 0)).await
        })
    }

    fn notices(&self, incident: String, limit: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        Box::pin(async move {
            // A delivery id begins with its incident and a dot, and the slash is the next letter: the key is searched, not the table.
            let sql = outbox!(
                "WHERE id > $1 || '.' AND id < $1 || '/' AND incident = $1
                ORDER BY created DESC, sequence DESC, id DESC LIMIT $2"
            );
            self.all(sql, &[&text_of(&incident), &whole(limit)], outbox_row).await
        })
    }

    fn forget(&self, retention: Retention) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let gone = self.sweep_all(retention).await;
            self.outbox.fetch_add(1, Ordering::Release);
            gone.map_err(Fault::unwritable)
        })
    }

    fn revive(&self, notifier: Name, now: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.send(move |answer| Job::Revive(notifier, now, answer)))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.closing.cancel();
            self.send(Job::Close).await?;
            let idle = std::mem::take(&mut *self.idle());
            futures_util::future::join_all(idle.into_iter().map(Session::close)).await;
            Ok(())
        })
    }
}

fn whole(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
