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
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::changes::{Statement, journeys, say};
use super::lease::Fence;
use super::link::{Endpoint, Fault, Session, Value, pause};
use super::rows::get;
use super::text_of;
use crate::journey::Name;
use crate::store::codes::millis;
use crate::store::{CROWD, Change, StoreError};

/// Batches that wait for the writer at most; a caller beyond that waits for its turn.
pub(super) const QUEUE: usize = 4_096;
/// Batches in one commit at most, so that the first of them does not wait for long.
const GROUP: usize = 512;
/// A statement of ours takes at most this long.
const LONGEST: Duration = Duration::from_secs(5);
/// Nobody waits longer than this for an answer, whatever it is.
const LIMIT: Duration = Duration::from_secs(10);
/// A transaction in another's way is tried so often.
const CONFLICTS: u32 = 10;
/// A server that was there a moment ago is tried so often: a standby that is promoted needs a moment.
const RECONNECTS: u32 = 6;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Job {
    Apply(Vec<Change>, Answer<()>),
    Revive(Name, Timestamp, Answer<u64>),
    /// Everything before it is written.
    Close(Answer<()>),
}

/// The writing session.
pub(super) struct Writer {
    endpoint: Endpoint,
    fence: Option<Fence>,
    /// Who writes: no other writer has this name.
    name: [u8; 16],
    /// The transaction in hand.
    number: i64,
    session: Option<Session>,
    /// Journeys' row ids by name.
    journeys: HashMap<Name, i64>,
    /// Whether the server was away the last time.
    is_away: bool,
    /// How often the outbox has changed.
    outbox: Arc<AtomicU64>,
    /// Another daemon has taken over.
    fenced: CancellationToken,
}

impl Writer {
    pub(super) fn new(
        endpoint: Endpoint,
        fence: Option<Fence>,
        name: [u8; 16],
        outbox: Arc<AtomicU64>,
        fenced: CancellationToken,
    ) -> Writer {
        let (number, session, journeys, is_away) = (0, None, HashMap::new(), false);
        Writer { endpoint, fence, name, number, session, journeys, is_away, outbox, fenced }
    }

    /// Writes until nobody is left who could ask.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, rest: Duration) {
        let mut group: Vec<(Vec<Change>, Answer<()>)> = Vec::new();
        while let Some(first) = jobs.recv().await {
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Apply(batch, answer) => group.push((batch, answer)),
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
            let is_urgent = group.iter().any(|(batch, _)| batch.iter().any(Change::is_of_outbox));
            let changes: usize = group.iter().map(|(batch, _)| batch.len()).sum();
            self.commit(&mut group).await;
            if !is_urgent && changes < CROWD {
                sleep(rest).await;
            }
        }
    }

    /// Commits every batch of the group together; if one of them is not to be, each by itself. Answers each caller.
    async fn commit(&mut self, group: &mut Vec<(Vec<Change>, Answer<()>)>) {
        if group.is_empty() {
            return;
        }
        let is_of_outbox = group.iter().any(|(batch, _)| batch.iter().any(Change::is_of_outbox));
        let together = self.write(&Work::Changes(group.iter().flat_map(|(batch, _)| batch).collect())).await;
        match together {
            Err(Fault::Data(_)) if group.len() > 1 => {
                for (batch, answer) in group.drain(..) {
                    let alone = self.write(&Work::Changes(batch.iter().collect())).await;
                    let _ = answer.send(alone.map(drop).map_err(Fault::unwritable));
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
                for (_, answer) in group.drain(..) {
                    let _ = answer.send(result.clone());
                }
                return;
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
        self.number += 1;
        match timeout(LIMIT, self.write_until_known(work)).await {
            Ok(written) => written,
            Err(_) => {
                self.lose_session();
                self.is_away = true;
                let place = self.endpoint.place();
                Err(Fault::Lost(format!("{place} gave no answer within {} s", LIMIT.as_secs())))
            }
        }
    }

    async fn write_until_known(&mut self, work: &Work<'_>) -> Result<u64, Fault> {
        let mut attempt = 0;
        loop {
            let fault = match self.transact(work).await {
                Ok(rows) => {
                    self.is_away = false;
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
                    let was_away = std::mem::replace(&mut self.is_away, true);
                    (was_away && attempt == 1) || attempt >= RECONNECTS
                }
                Fault::Again(_) => attempt >= CONFLICTS,
                Fault::Refused(_) | Fault::Data(_) => true,
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
        let (is_ours, marked) = session.begin(is_ours(session, self.fence.as_ref()), marked).await?;
        if !is_ours {
            return Err(Fault::Fenced(self.endpoint.place()));
        }
        if marked == 0 {
            session.batch("ROLLBACK").await?;
            return Ok(0);
        }
        let statements = match work {
            Work::Changes(changes) => {
                identify(session, changes, &mut self.journeys).await?;
                let mut statements = Vec::with_capacity(changes.len());
                for change in changes {
                    say(change, &self.journeys, &mut statements)?;
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
    Changes(Vec<&'a Change>),
    Revive(&'a Name, Timestamp),
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
    let sql = "INSERT INTO journey (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING";
    session.execute(sql, &[&texts]).await?;
    let rows = session.rows("SELECT name, id FROM journey WHERE name = ANY($1)", &[&texts]).await?;
    let unread = |error: StoreError| Fault::Refused(error.to_string());
    let mut ids: HashMap<String, i64> = HashMap::new();
    for row in &rows {
        ids.insert(get(row, 0).map_err(unread)?, get(row, 1).map_err(unread)?);
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
