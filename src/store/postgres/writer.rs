//! The writing side: one transaction for every batch that waits, and an answer only when it is known what became of it.
//!
//! A transaction has a number, and leaves it behind: one whose answer was lost is tried again under the same, and does nothing if
//! it had been done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::changes::{Saying, Statement, journeys, say};
use super::lease::Fence;
use super::link::{Endpoint, Fault, Session, Value, pause};
use super::rows::read;
use super::share::{Sharing, pairs};
use super::text_of;
use crate::clock::Clock;
use crate::cluster::shard_of;
use crate::journey::Name;
use crate::store::codes::millis;
use crate::store::{CROWD, Change, StoreError};
use crate::time::Mono;

/// Batches that wait for the writer at most; a caller beyond that waits for its turn.
pub(super) const QUEUE: usize = 4_096;
/// Batches in one commit at most, so that the first of them does not wait for long.
const GROUP: usize = 512;
/// A statement of ours takes at most this long.
const LONGEST: Duration = Duration::from_secs(5);
/// Nobody waits longer than this for an answer, whatever it is.
const LIMIT: Duration = Duration::from_secs(10);
/// The same for a server that was away the last time: people are told without it, and wait for each no.
const LIMIT_AWAY: Duration = Duration::from_secs(3);
/// A server that took so long to say no may say nothing at all,
const SILENT: Duration = Duration::from_secs(1);
/// and is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(2);
/// A transaction in another's way is tried so often.
const CONFLICTS: u32 = 10;
/// A server that was there a moment ago is tried so often: a standby that is promoted needs a moment.
const RECONNECTS: u32 = 6;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is durable as a whole or not at all, and whoever waits for that.
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// What has to be ours for it, as it was when it was handed in.
    pub(super) proof: Proof,
    pub(super) answer: Answer<()>,
}

/// Shards, with the epochs in which they are ours.
pub(super) type Proof = BTreeSet<(i32, i64)>;

pub(super) enum Job {
    Apply(Batch),
    Revive(Name, Timestamp, Answer<u64>),
    /// Everything before it is written.
    Close(Answer<()>),
}

/// The writing session.
pub(super) struct Writer {
    endpoint: Endpoint,
    fence: Option<Fence>,
    sharing: Option<Sharing>,
    clock: Clock,
    /// Who writes: no other writer has this name.
    name: [u8; 16],
    /// The transaction in hand.
    number: i64,
    /// The first number of what it relays.
    relayed: i64,
    session: Option<Session>,
    /// Journeys' row ids by name.
    journeys: HashMap<Name, i64>,
    /// Whether the server was away the last time.
    away: watch::Sender<bool>,
    /// It said nothing at all: until then nobody waits for it again, and hears this instead.
    silent: Option<(Mono, String)>,
    /// How often the outbox has changed.
    outbox: Arc<AtomicU64>,
    /// Another daemon has taken over.
    fenced: CancellationToken,
}

impl Writer {
    pub(super) fn new(
        endpoint: Endpoint,
        (fence, sharing): (Option<Fence>, Option<Sharing>),
        clock: Clock,
        name: [u8; 16],
        (outbox, away): (Arc<AtomicU64>, watch::Sender<bool>),
        fenced: CancellationToken,
    ) -> Writer {
        let (number, relayed, session, journeys) = (0, 0, None, HashMap::new());
        let silent = None;
        Writer {
            endpoint,
            fence,
            sharing,
            clock,
            name,
            number,
            relayed,
            session,
            journeys,
            away,
            silent,
            outbox,
            fenced,
        }
    }

    /// Writes until nobody is left who could ask.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, rest: Duration) {
        let mut group: Vec<Batch> = Vec::new();
        while let Some(first) = jobs.recv().await {
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Apply(batch) => group.push(batch),
                    Job::Revive(notifier, now, answer) => {
                        self.commit(&mut group).await;
                        let _ = answer.send(self.revive(&notifier, now).await);
                    }
                    Job::Close(answer) => {
                        self.commit(&mut group).await;
                        if let Some(session) = self.session.take() {
                            session.close().await;
                        }
                        let _ = answer.send(Ok(()));
                    }
                }
                next = if group.len() < GROUP { jobs.try_recv().ok() } else { None };
            }
            let is_urgent = group.iter().flat_map(|batch| &batch.changes).any(Change::is_of_outbox);
            let changes: usize = group.iter().map(|batch| batch.changes.len()).sum();
            self.commit(&mut group).await;
            if !is_urgent && changes < CROWD {
                sleep(rest).await;
            }
        }
    }

    /// Commits every batch of the group together; if one of them is not to be, each by itself. Answers each caller.
    async fn commit(&mut self, group: &mut Vec<Batch>) {
        let is_of_outbox = group.iter().flat_map(|batch| &batch.changes).any(Change::is_of_outbox);
        while !group.is_empty() {
            let together = self.write(&Work::of(group)).await;
            match together {
                // Whoever is not concerned goes on without those who are.
                Err(Fault::Moved(shards)) => {
                    let (gone, left) = group.drain(..).partition(|batch| batch.concerns(&shards));
                    *group = left;
                    gone.into_iter().for_each(|batch: Batch| batch.say_moved(&shards));
                }
                Err(Fault::Data(_)) if group.len() > 1 => {
                    for batch in group.drain(..) {
                        let alone = self.write(&Work::of(std::slice::from_ref(&batch))).await;
                        match alone {
                            Err(Fault::Moved(shards)) => batch.say_moved(&shards),
                            alone => drop(batch.answer.send(alone.map(drop).map_err(Fault::unwritable))),
                        }
                    }
                }
                result => {
                    let result = result.map(drop).map_err(Fault::unwritable);
                    if let Err(error) = &result {
                        // Whoever asked for it says what follows from that, and does not say it with every attempt.
                        tracing::debug!(%error, batches = group.len(), "the store did not take a commit");
                    }
                    if is_of_outbox {
                        self.note_outbox();
                    }
                    for batch in group.drain(..) {
                        let _ = batch.answer.send(result.clone());
                    }
                    return;
                }
            }
        }
        if is_of_outbox {
            self.note_outbox();
        }
    }

    async fn revive(&mut self, notifier: &Name, now: Timestamp) -> Result<u64, StoreError> {
        let revived = self.write(&Work::Revive(notifier, now)).await;
        self.note_outbox();
        revived.map_err(Fault::unwritable)
    }

    /// Whoever remembers what was in the outbox has to ask again.
    fn note_outbox(&self) {
        self.outbox.fetch_add(1, Ordering::Release);
    }

    /// Does it in one transaction, once; tries again while that may help.
    async fn write(&mut self, work: &Work<'_>) -> Result<u64, Fault> {
        if self.fenced.is_cancelled() {
            return Err(Fault::Fenced(self.endpoint.place()));
        }
        let began = self.clock.now().mono;
        if let Some((_, why)) = self.silent.as_ref().filter(|(until, _)| began < *until) {
            return Err(Fault::Lost(why.clone()));
        }
        let written = self.write_in_time(work).await;
        let now = self.clock.now().mono;
        self.silent = match &written {
            Err(Fault::Lost(why)) if now.since(began) >= SILENT => Some((now + LEFT_ALONE, why.clone())),
            _ => None,
        };
        written
    }

    async fn write_in_time(&mut self, work: &Work<'_>) -> Result<u64, Fault> {
        self.number += 1;
        // Also if it fails: what became of it may be unknown, and a number stands for one thing.
        self.relayed = self.sharing.as_ref().map_or(0, |sharing| sharing.held.number(work.relayed()));
        let limit = if *self.away.borrow() { LIMIT_AWAY } else { LIMIT };
        match timeout(limit, self.write_until_known(work)).await {
            Ok(written) => written,
            Err(_) => {
                self.lose_session();
                self.away.send_replace(true);
                let place = self.endpoint.place();
                Err(Fault::Lost(format!("{place} gave no answer within {} s", limit.as_secs())))
            }
        }
    }

    async fn write_until_known(&mut self, work: &Work<'_>) -> Result<u64, Fault> {
        let mut attempt = 0;
        loop {
            let fault = match self.transact(work).await {
                Ok(rows) => {
                    self.away.send_replace(false);
                    return Ok(rows);
                }
                Err(fault) => fault,
            };
            // Ids that were given in a transaction that is no more.
            self.journeys.clear();
            attempt += 1;
            let is_last = match &fault {
                Fault::Lost(_) => {
                    self.lose_session();
                    let was_away = self.away.send_replace(true);
                    (was_away && attempt == 1) || attempt >= RECONNECTS
                }
                Fault::Again(_) => attempt >= CONFLICTS,
                Fault::Refused(_) | Fault::Data(_) => true,
                Fault::Moved(shards) => {
                    if let Some(Sharing { held, .. }) = &self.sharing {
                        shards.iter().for_each(|(shard, epoch)| held.lose(*shard, *epoch));
                    }
                    true
                }
                Fault::Fenced(_) => {
                    self.fenced.cancel();
                    true
                }
            };
            if !matches!(fault, Fault::Lost(_))
                && let Some(session) = &self.session
                && session.batch("ROLLBACK").await.is_err()
            {
                self.lose_session();
            }
            if is_last {
                return Err(fault);
            }
            tracing::debug!(?fault, attempt, "the store is asked again");
            sleep(pause(attempt, fastrand::f64())).await;
        }
    }

    /// What was prepared in it, and the ids that it gave, may be another server's.
    fn lose_session(&mut self) {
        self.session = None;
        self.journeys.clear();
    }

    async fn transact(&mut self, work: &Work<'_>) -> Result<u64, Fault> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.lose_session();
            self.session = Some(self.endpoint.connect("journeyman writer", LONGEST).await?);
        }
        let Some(session) = &self.session else { return Err(Fault::Lost("no session".to_owned())) };
        let mark = "INSERT INTO written (writer, number, at)
            VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
            ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = excluded.at
            WHERE written.number < excluded.number";
        let name = self.name.as_slice();
        // A transaction of ours whose session was lost may go on where the server has not noticed: its mark is waited for.
        let marked = async { session.execute(mark, &[&name, &self.number]).await };
        let proven = async {
            let (is_ours, marked) = futures_util::future::join(is_ours(session, self.fence.as_ref()), marked).await;
            Ok((is_ours?, marked?))
        };
        let proof = work.proof();
        let ((is_ours, marked), moved) = session.begin(proven, moved(session, self.sharing.as_ref(), proof)).await?;
        if !is_ours {
            return Err(Fault::Fenced(self.endpoint.place()));
        }
        if marked == 0 {
            session.batch("ROLLBACK").await?;
            return Ok(0);
        }
        if !moved.is_empty() {
            return Err(Fault::Moved(moved));
        }
        let statements = match work {
            Work::Changes(changes, _) => {
                identify(session, changes, &mut self.journeys).await?;
                let writer = self.sharing.as_ref().map_or("", |sharing| &sharing.name);
                let (number, now) = (self.relayed, self.clock.now().mono);
                let mut saying = Saying { ids: &self.journeys, writer, number, now };
                let mut statements = Vec::with_capacity(changes.len());
                for change in changes {
                    say(change, &mut saying, &mut statements)?;
                }
                statements
            }
            Work::Revive(notifier, now) => revival(notifier, *now),
        };
        all(session, &statements).await
    }
}

/// What is to be done in one transaction.
enum Work<'a> {
    /// With what has to be ours for it.
    Changes(Vec<&'a Change>, Proof),
    Revive(&'a Name, Timestamp),
}

impl<'a> Work<'a> {
    fn of(group: &'a [Batch]) -> Work<'a> {
        let changes = group.iter().flat_map(|batch| &batch.changes).collect();
        Work::Changes(changes, group.iter().flat_map(|batch| &batch.proof).copied().collect())
    }

    fn proof(&self) -> &Proof {
        const NONE: &Proof = &Proof::new();
        match self {
            Work::Changes(_, proof) => proof,
            Work::Revive(..) => NONE,
        }
    }

    /// How many changes are relayed.
    fn relayed(&self) -> i64 {
        match self {
            Work::Changes(changes, _) => {
                changes.iter().map(|change| i64::from(matches!(change, Change::Relay { .. }))).sum()
            }
            Work::Revive(..) => 0,
        }
    }
}

impl Batch {
    fn concerns(&self, shards: &[(i32, i64)]) -> bool {
        shards.iter().any(|shard| self.proof.contains(shard))
    }

    fn say_moved(self, shards: &[(i32, i64)]) {
        let is_gone = |name: &&Name| shards.iter().any(|(shard, _)| *shard == shard_of(name));
        let name = self.changes.iter().filter_map(Change::runs).find(is_gone);
        let _ = self.answer.send(Err(StoreError::Moved(name.map(|name| name.to_string()).unwrap_or_default())));
    }
}

/// Which of these are not ours; those that are stay so until the transaction ends.
async fn moved(session: &Session, sharing: Option<&Sharing>, proof: &Proof) -> Result<Vec<(i32, i64)>, Fault> {
    let Some(Sharing { name, .. }) = sharing.filter(|_| !proof.is_empty()) else { return Ok(Vec::new()) };
    let shards: Vec<i32> = proof.iter().map(|(shard, _)| *shard).collect();
    // In the order in which they are renewed, so that nobody waits for somebody who waits for them.
    let sql = "SELECT shard, epoch FROM lease WHERE shard = ANY($1) AND holder = $2 ORDER BY shard FOR SHARE";
    let rows = session.rows(sql, &[&shards, name]).await?;
    let found: Proof = pairs(&rows)?.into_iter().collect();
    Ok(proof.difference(&found).copied().collect())
}

/// Whether the lease is as it was when the store was opened; it stays so until the transaction ends.
pub(super) async fn is_ours(session: &Session, fence: Option<&Fence>) -> Result<bool, Fault> {
    let Some(Fence { shard, holder, epoch }) = fence else { return Ok(true) };
    let sql = "SELECT 1 FROM lease WHERE shard = $1 AND holder = $2 AND epoch = $3 FOR SHARE";
    Ok(!session.rows(sql, &[shard, holder, epoch]).await?.is_empty())
}

/// Learns the row ids of the journeys that changes name, and makes those rows that are missing.
async fn identify(session: &Session, changes: &[&Change], known: &mut HashMap<Name, i64>) -> Result<(), Fault> {
    let named = changes.iter().flat_map(|change| journeys(change)).filter(|name| !known.contains_key(*name));
    let names: BTreeSet<&Name> = named.collect();
    if names.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = names.iter().map(|name| text_of(name)).collect();
    let shards: Vec<i32> = names.iter().map(|name| shard_of(name)).collect();
    let sql = "INSERT INTO journey (name, shard) SELECT * FROM unnest($1::text[], $2::integer[])
        ON CONFLICT (name) DO NOTHING";
    session.execute(sql, &[&texts, &shards]).await?;
    let rows = session.rows("SELECT name, id FROM journey WHERE name = ANY($1)", &[&texts]).await?;
    let mut ids: HashMap<String, i64> = HashMap::new();
    for row in &rows {
        ids.insert(read(row, 0)?, read(row, 1)?);
    }
    known.extend(names.into_iter().filter_map(|name| Some((name.clone(), *ids.get(&*text_of(name))?))));
    Ok(())
}

/// What was told after a dead notice, of the same incident, is newer than what it would tell, and takes its place.
fn revival(notifier: &Name, now: Timestamp) -> Vec<Statement> {
    let notifier = || Box::new(text_of(notifier));
    vec![
        Statement {
            sql: "UPDATE outbox AS this SET status = 'superseded', error = 'told by ' || other.id
                FROM outbox AS other WHERE this.notifier = $1 AND this.status = 'dead' AND other.notifier = $1
                AND other.incident = this.incident AND other.status = 'sent' AND other.sequence > this.sequence",
            values: vec![notifier()],
        },
        Statement {
            sql: "UPDATE outbox SET status = 'pending', attempt = 0, not_before = $2, at = $2
                WHERE notifier = $1 AND status = 'dead'",
            values: vec![notifier(), Box::new(millis(now))],
        },
    ]
}

/// Says all of them and the end of the transaction in one breath; gives the rows that the last changed. If one fails, the end
/// undoes all.
async fn all(session: &Session, statements: &[Statement]) -> Result<u64, Fault> {
    for statement in statements {
        session.prepare(statement.sql).await?;
    }
    type Said<'a> = futures_util::future::BoxFuture<'a, Result<u64, Fault>>;
    let mut said: FuturesOrdered<Said<'_>> = FuturesOrdered::new();
    for Statement { sql, values } in statements {
        said.push_back(Box::pin(async move {
            let values: Vec<Value<'_>> = values.iter().map(|value| &**value as Value<'_>).collect();
            session.execute(sql, &values).await
        }));
    }
    said.push_back(Box::pin(async { session.batch("COMMIT").await.map(|()| 0) }));
    let (mut changed, mut before) = (0, 0);
    // The first that failed is the reason why the others did.
    while let Some(rows) = said.next().await {
        (before, changed) = (changed, rows?);
    }
    debug_assert_eq!(changed, 0, "the end changes nothing");
    Ok(before)
}
