//! Which journeys are ours, of those that several daemons share: the shards that we hold, each a row with a holder and an epoch,
//! as the lease's is.
//!
//! Each daemon looks after itself: it makes what it holds last, takes what is free, and gives back what is more than its due.
//! What it holds it proves in every transaction of a run's. What it sees of runs it leaves for the daemon that leads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future;
use jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::Row;

use super::lease::{Member, describe, goodbye, introduce, millis};
use super::line::Line;
use super::link::{Endpoint, Fault, Session};
use super::rows::{arrival, from_json, get, ledger_entry, read, readable, token};
use super::{LONGEST_READ, READ, text_of, whole};
use crate::cluster::{self, LEAD, Wish};
use crate::journey::message::Arrival;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::token::Token;
use crate::ledger::Entry;
use crate::store::StoreError;
use crate::store::codes::{duration, millis as millis_of, time};
use crate::time::Mono;

/// The shards that are ours, with their epochs: what the writer proves in each transaction. All copies are one.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Ours>>);

#[derive(Debug, Default)]
struct Ours {
    /// Epochs by shard.
    held: BTreeMap<i32, i64>,
    /// Found to be another's since that was last said.
    lost: BTreeSet<i32>,
    /// The number of what is relayed next, whichever writer of ours relays it.
    next: i64,
}

impl Held {
    fn ours(&self) -> MutexGuard<'_, Ours> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards, in order.
    pub fn shards(&self) -> Vec<i32> {
        self.ours().held.keys().copied().collect()
    }

    /// They are ours, as far as we know: a process before this one had them. What the server says of it is heard when
    /// it answers.
    pub fn hold(&self, shards: &BTreeMap<i32, i64>) {
        self.ours().held.extend(shards);
    }

    /// What is ours, with its epochs.
    pub fn epochs(&self) -> BTreeMap<i32, i64> {
        self.ours().held.clone()
    }

    /// Whether this shard is among them.
    pub fn has(&self, shard: i32) -> bool {
        self.epoch(shard).is_some()
    }

    /// How often this shard had changed hands when it came into ours; `None` if it is not ours.
    pub fn epoch(&self, shard: i32) -> Option<i64> {
        self.ours().held.get(&shard).copied()
    }

    /// The lease of whoever decides is ours, in this epoch, or not.
    pub fn lead(&self, epoch: Option<i64>) {
        let mut ours = self.ours();
        match epoch {
            Some(epoch) => drop(ours.held.insert(LEAD, epoch)),
            None => drop(ours.held.remove(&LEAD)),
        }
    }

    /// Numbers for so many things that are relayed; gives the first. None is given twice.
    pub(super) fn number(&self, many: i64) -> i64 {
        let mut ours = self.ours();
        let first = ours.next;
        ours.next += many;
        first
    }

    /// What is ours, and what is not and nobody has heard so.
    fn settled_by_renewing(&self) -> Vec<i32> {
        let ours = self.ours();
        ours.held.keys().chain(&ours.lost).copied().collect()
    }

    fn gain(&self, taken: &[(i32, i64)]) {
        self.ours().held.extend(taken.iter().copied());
    }

    fn drop(&self, shards: &[i32]) {
        self.ours().held.retain(|shard, _| !shards.contains(shard));
    }

    /// What was found to be lost since the last time.
    fn lost(&self) -> Vec<i32> {
        std::mem::take(&mut self.ours().lost).into_iter().collect()
    }

    /// Somebody else has it now, if ours is of this epoch still.
    pub(super) fn lose(&self, shard: i32, epoch: i64) {
        let mut ours = self.ours();
        if ours.held.get(&shard) == Some(&epoch) {
            ours.held.remove(&shard);
            ours.lost.insert(shard);
        }
    }
}

/// Who shares, and what of it is theirs: what a writer needs to know.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// What is ours.
    pub held: Held,
    /// This process, and no other one: as [`Share::new`] was told.
    pub name: String,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Daemons that live, with us.
    pub members: usize,
    /// Our shards.
    pub held: Vec<i32>,
    /// Shards that are nobody's.
    pub free: usize,
    /// Shards that have become another's, or nobody's, without our giving them back, since this was last said.
    pub lost: Vec<i32>,
    /// Whether somebody has seen what nobody has heard of yet.
    pub left_over: bool,
    /// How many configurations these daemons have: one, if all is well.
    pub configurations: usize,
    /// The shards that we share with all, and with those of our place.
    pub groups: Vec<Group>,
}

/// Shards that some daemons share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub shards: RangeInclusive<i32>,
    /// How many of them are nobody's.
    free: usize,
    /// How many each of these daemons holds while it lives, in the order of their names.
    shares: Vec<usize>,
    /// Which of them is ours.
    who: usize,
}

impl Group {
    /// What to do about our part of them.
    pub fn wish(&self) -> Wish {
        cluster::wish(self.who, &self.shares, self.free, self.shards.clone().count())
    }

    /// Whether we have less than everybody is due.
    pub fn is_short(&self) -> bool {
        self.shares.get(self.who).copied().unwrap_or(0) < self.shards.clone().count() / self.shares.len().max(1)
    }
}

/// A shard that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub shard: i32,
    /// Up to when whoever gave it back had counted its slots, by that one's clock; `None` if nobody gave it back.
    pub counted: Option<Timestamp>,
}

/// What whoever held some shards before left.
#[derive(Clone, Debug, Default)]
pub struct Estate {
    /// Runs that were begun and have not ended, oldest slots first.
    pub unfinished: Vec<Checkpoint>,
    /// Messages that were acknowledged, in order, whoever took them. Their monotonic times are zero.
    pub arrivals: Vec<Arrival>,
    /// Every token of theirs that the ledger knows.
    pub ledger: Vec<(Token, Entry)>,
}

/// A message that another daemon took for a run of ours.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Whose it is.
    pub token: Token,
    /// How long ago it came, by the database's time.
    pub age: Duration,
    /// The message. Its monotonic time is zero: another process took it.
    pub message: Arrival,
}

/// What a daemon saw, for the one that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Who saw it.
    pub writer: String,
    /// Its place in what that one saw.
    pub number: i64,
    /// What was seen.
    pub document: String,
}

/// Our part of the journeys that several daemons share.
pub struct Share {
    /// For what is ours: it must not wait for long answers.
    line: Line,
    /// For what others left for us.
    post: Line,
    name: String,
    ttl: Duration,
    /// Shards that others share with us.
    groups: Vec<RangeInclusive<i32>>,
    held: Held,
    /// Rows of messages that were handed over, while they are there.
    handed: Mutex<BTreeSet<i64>>,
    /// The number that was last read of each writer. There are no more than daemons were started while this one leads.
    read: Mutex<HashMap<String, i64>>,
    is_prepared: AtomicBool,
    has_others: AtomicBool,
}

impl Share {
    /// Nothing is asked yet. `name` is this process, and no other one, also for people; what it holds lasts for `ttl` without
    /// being renewed; `location` is its place, if it has one.
    pub fn new(endpoint: Endpoint, name: String, ttl: Duration, location: Option<&str>) -> Share {
        Share {
            line: Line::new(endpoint.clone(), "journeyman share"),
            post: Line::new(endpoint, "journeyman post"),
            name: text_of(&name),
            ttl,
            groups: cluster::groups(location),
            held: Held::default(),
            handed: Mutex::default(),
            read: Mutex::default(),
            is_prepared: AtomicBool::new(false),
            has_others: AtomicBool::new(true),
        }
    }

    /// This process, and no other one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is ours, as it is at any time.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Whether other daemons lived when it was last renewed.
    pub fn has_others(&self) -> bool {
        self.has_others.load(Ordering::Acquire)
    }

    /// For [`super::Postgres::open_resting`].
    pub fn sharing(&self) -> Sharing {
        Sharing { held: self.held.clone(), name: self.name.clone() }
    }

    /// Says that we are here, and makes what we hold last from now on: one round trip, if nothing is wrong. The first tables are
    /// made where there are none.
    ///
    /// # Errors
    /// The server does not answer: whether ours is still ours is unknown.
    pub async fn renew(&self, about: &Member) -> Result<Standing, StoreError> {
        if !self.is_prepared.load(Ordering::Acquire) {
            super::prepare(self.line.endpoint(), false).await?;
            self.line.ask(|session| async move { self.found(&session).await }).await?;
            self.is_prepared.store(true, Ordering::Release);
        }
        let (members, free, left_over) =
            self.line.ask(|session| async move { self.renew_in(&session, about).await }).await?;
        let held: Vec<_> = self.held.shards().into_iter().filter(|shard| *shard != LEAD).collect();
        let who = members.iter().position(|member| member.name == self.name);
        let group = |(nth, shards): (usize, &RangeInclusive<i32>)| {
            // Who is not of our place has no part in what is shared there.
            let peers = members.iter().filter(|member| nth == 0 || member.location == about.location);
            let mut shares: Vec<usize> = peers.clone().map(|member| member.shares[nth.min(1)]).collect();
            let who = peers.clone().position(|member| member.name == self.name).unwrap_or(shares.len());
            shares.resize(shares.len().max(who + 1), 0);
            // Nobody knows better than we what we hold.
            shares[who] = held.iter().filter(|shard| shards.contains(shard)).count();
            Group { shards: shards.clone(), free: free[nth.min(1)], shares, who }
        };
        let groups: Vec<_> = self.groups.iter().enumerate().map(group).collect();
        let alive = members.len() + usize::from(who.is_none());
        let said = members.iter().map(|member| &*member.configuration);
        let configurations = said.chain([&*about.configuration]).collect::<BTreeSet<_>>().len();
        self.has_others.store(alive > 1, Ordering::Release);
        let free = groups.iter().map(|group| group.free).sum();
        Ok(Standing { members: alive, held, free, lost: self.held.lost(), left_over, configurations, groups })
    }

    /// Leaves in the store what this configuration consists of, unless it is there: what it is, by its fingerprint, so that whoever
    /// asks can be told in what those of two daemons differ. To be said at least every five minutes: what nobody has is forgotten.
    ///
    /// # Errors
    /// The server does not answer, or has not got the table yet.
    pub async fn describe(&self, configuration: &str, parts: &str) -> Result<(), StoreError> {
        self.post.ask(|session| async move { describe(&session, configuration, parts).await }).await
    }

    /// The shards of our place have rows from the first daemon there on.
    async fn found(&self, session: &Session) -> Result<(), Fault> {
        let Some((first, last)) = self.at_our_place() else { return Ok(()) };
        let sql =
            "INSERT INTO lease (shard, holder, epoch, until) SELECT generate_series($1::integer, $2::integer), '', 0, 0
            ON CONFLICT (shard) DO NOTHING";
        session.execute(sql, &[&first, &last]).await.map(drop)
    }

    fn at_our_place(&self) -> Option<(i32, i32)> {
        self.groups.get(1).map(|shards| (*shards.start(), *shards.end()))
    }

    async fn renew_in(&self, session: &Session, about: &Member) -> Result<(Vec<Other>, [usize; 2], bool), Fault> {
        let ours = self.held.epochs();
        let (shards, ttl): (Vec<i32>, i64) = (ours.keys().copied().collect(), millis(self.ttl));
        // Of nobody's place there are none.
        let (first, last) = self.at_our_place().unwrap_or((0, -1));
        // In order, so that nobody waits for somebody who waits for them.
        let renewed = async {
            let sql =
                "WITH ours AS (SELECT shard FROM lease WHERE shard = ANY($2) AND holder = $1 ORDER BY shard FOR UPDATE)
                UPDATE lease SET until = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
                FROM ours WHERE lease.shard = ours.shard RETURNING lease.shard, lease.epoch";
            session.rows(sql, &[&self.name, &shards, &ttl]).await
        };
        let members = async {
            let sql = "SELECT member.name, member.location, count(lease.shard) FILTER (WHERE lease.shard <= $4),
                    count(lease.shard) FILTER (WHERE lease.shard BETWEEN $2 AND $3), member.configuration
                FROM member LEFT JOIN lease ON lease.holder = member.name AND lease.shard > 0
                    AND lease.until >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                WHERE seen > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1
                GROUP BY member.name, member.location, member.configuration ORDER BY member.name";
            session.rows(sql, &[&ttl, &first, &last, &cluster::SHARDS]).await
        };
        let rest = async {
            let sql = "SELECT count(*) FILTER (WHERE shard <= $3), count(*) FILTER (WHERE shard BETWEEN $1 AND $2),
                    EXISTS (SELECT 1 FROM relay)
                FROM lease WHERE shard > 0
                    AND (holder = '' OR until < (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";
            session.rows(sql, &[&first, &last, &cluster::SHARDS]).await
        };
        let ((), renewed, members, rest) =
            future::try_join4(introduce(session, &self.name, about), renewed, members, rest).await?;
        let still: BTreeMap<i32, i64> = pairs(&renewed)?.into_iter().collect();
        for (shard, epoch) in ours.iter().filter(|(shard, epoch)| still.get(shard) != Some(epoch)) {
            self.held.lose(*shard, *epoch);
        }
        let other = |row| {
            let shares = [count(row, 2)?, count(row, 3)?];
            Ok(Other { name: read(row, 0)?, location: read(row, 1)?, shares, configuration: read(row, 4)? })
        };
        let members = members.iter().map(other).collect::<Result<_, Fault>>()?;
        let Some(rest) = rest.first() else { return Err(Fault::Refused("nothing was counted".to_owned())) };
        Ok((members, [count(rest, 0)?, count(rest, 1)?], read(rest, 2)?))
    }

    /// Takes free shards of these; they are in [`Share::held`] from then on, each in a new epoch.
    ///
    /// # Errors
    /// The server does not answer. What was taken all the same is free again when its time is over.
    pub async fn take(&self, at_most: usize, of: &RangeInclusive<i32>) -> Result<Vec<Taken>, StoreError> {
        let (epochs, taken) =
            self.line.ask(|session| async move { self.take_in(&session, whole(at_most), of).await }).await?;
        self.held.gain(&epochs);
        Ok(taken)
    }

    async fn take_in(
        &self,
        session: &Session,
        at_most: i64,
        of: &RangeInclusive<i32>,
    ) -> Result<(Vec<(i32, i64)>, Vec<Taken>), Fault> {
        // What is ours and was not renewed in time is not taken anew: it is renewed, or lost, and that is said before.
        let (ours, ttl) = (self.held.settled_by_renewing(), millis(self.ttl));
        let free = async {
            let sql =
                "SELECT shard, CASE WHEN holder = '' THEN counted END FROM lease WHERE shard BETWEEN $3 AND $4 AND shard <> ALL($2)
                AND (holder = '' OR until < (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
                ORDER BY shard LIMIT $1 FOR UPDATE SKIP LOCKED";
            session.rows(sql, &[&at_most, &ours, of.start(), of.end()]).await
        };
        let (free, ()) = session.begin(free, async { Ok(()) }).await?;
        let found = |row| Ok(Taken { shard: read(row, 0)?, counted: read::<Option<i64>>(row, 1)?.map(time) });
        let found: Vec<_> = free.iter().map(found).collect::<Result<_, Fault>>()?;
        let free: Vec<i32> = found.iter().map(|taken| taken.shard).collect();
        let sql = "UPDATE lease SET holder = $1, epoch = epoch + 1, counted = NULL,
                until = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3
            WHERE shard = ANY($2) RETURNING shard, epoch";
        let taken = pairs(&session.rows(sql, &[&self.name, &free, &ttl]).await?)?;
        session.batch("COMMIT").await?;
        Ok((taken, found))
    }

    /// They are free for others, who go on with slots after `counted`, and not ours even before it is asked.
    ///
    /// # Errors
    /// The server does not answer: they are free when their time is over.
    pub async fn give_back(&self, shards: &[i32], counted: Timestamp) -> Result<(), StoreError> {
        self.held.drop(shards);
        self.line.ask(|session| async move { self.free(&session, shards, counted).await }).await
    }

    async fn free(&self, session: &Session, shards: &[i32], counted: Timestamp) -> Result<(), Fault> {
        let sql =
            "WITH ours AS (SELECT shard FROM lease WHERE shard = ANY($2) AND holder = $1 ORDER BY shard FOR UPDATE)
            UPDATE lease SET holder = '', until = 0, counted = $3 FROM ours WHERE lease.shard = ours.shard";
        session.execute(sql, &[&self.name, &shards, &millis_of(counted)]).await.map(drop)
    }

    /// What whoever held these before left. To be asked once they are ours, and before [`Share::arrivals`] is: what this gives
    /// is not handed over by that.
    ///
    /// # Errors
    /// The server does not answer, or has what cannot be read.
    pub async fn left_in(&self, shards: &[i32]) -> Result<Estate, StoreError> {
        let endpoint = self.post.endpoint();
        let asked = async {
            let session = endpoint.connect("journeyman estate", LONGEST_READ).await?;
            let unfinished = async {
                let sql = "SELECT state FROM unfinished JOIN ledger ON ledger.token = unfinished.token
                    JOIN journey ON journey.id = ledger.journey WHERE shard = ANY($1)
                    ORDER BY unfinished.slot, unfinished.token";
                session.rows(sql, &[&shards]).await
            };
            let arrivals = async {
                session.rows("SELECT message, id FROM arrival WHERE shard = ANY($1) ORDER BY id", &[&shards]).await
            };
            let ledger = async {
                let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger
                    JOIN journey ON journey.id = ledger.journey WHERE shard = ANY($1)";
                session.rows(sql, &[&shards]).await
            };
            let found = future::try_join3(unfinished, arrivals, ledger).await?;
            session.close().await;
            Ok(found)
        };
        let found = timeout(READ, asked).await;
        let silent = || Fault::Lost(format!("{} gave no answer within {} s", endpoint.place(), READ.as_secs()));
        let (unfinished, arrivals, ledger) = found.unwrap_or_else(|_| Err(silent())).map_err(Fault::unreadable)?;
        for row in &arrivals {
            known(&self.handed).insert(get(row, 1)?);
        }
        Ok(Estate {
            unfinished: unfinished.iter().filter_map(|row| readable(from_json(row, 0))).collect(),
            arrivals: arrivals.iter().filter_map(|row| readable(arrival(row))).collect(),
            ledger: ledger.iter().map(ledger_entry).collect::<Result<_, StoreError>>()?,
        })
    }

    /// Messages that other daemons took for runs of the shards that we hold, each once per process.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn arrivals(&self) -> Result<Vec<Handed>, StoreError> {
        let held = self.held.shards();
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let (there, rows) = self.post.ask(|session| self.arrivals_in(session, &held)).await?;
        let mut handed = known(&self.handed);
        handed.retain(|id| there.contains(id));
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            handed.insert(get(row, 0)?);
            found.extend(readable(self::handed(row)));
        }
        Ok(found)
    }

    /// The rows that there are, and those of them that nobody has had yet.
    async fn arrivals_in(&self, session: Arc<Session>, held: &[i32]) -> Result<(BTreeSet<i64>, Vec<Row>), Fault> {
        let sql = "SELECT id FROM arrival WHERE shard = ANY($1) AND writer <> $2";
        let rows = session.rows(sql, &[&held, &self.name]).await?;
        let there: BTreeSet<i64> = rows.iter().map(|row| read(row, 0)).collect::<Result<_, Fault>>()?;
        let new: Vec<i64> = there.difference(&known(&self.handed)).copied().collect();
        if new.is_empty() {
            return Ok((there, Vec::new()));
        }
        let sql = "SELECT id, message, token, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - came
            FROM arrival WHERE id = ANY($1) ORDER BY id";
        let rows = session.rows(sql, &[&new]).await?;
        Ok((there, rows))
    }

    /// What daemons saw and nobody has heard yet, in the order in which it was said, each once per process; at most `limit`. What
    /// whoever had a shard before said comes before what the next says. What we wrote
    /// ourselves before we led is among it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn relayed(&self, limit: i64) -> Result<Vec<Relayed>, StoreError> {
        let (writers, numbers): (Vec<String>, Vec<i64>) = known(&self.read).clone().into_iter().unzip();
        let sql = "SELECT relay.writer, relay.number, document
            FROM relay LEFT JOIN unnest($1::text[], $2::bigint[]) AS known (writer, number) ON known.writer = relay.writer
            WHERE relay.number > coalesce(known.number, -1) ORDER BY relay.id LIMIT $3";
        let (writers, numbers) = (&writers, &numbers);
        let ask = |session: Arc<Session>| async move { session.rows(sql, &[writers, numbers, &limit]).await };
        let rows = self.post.ask(ask).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            found.push(Relayed { writer: get(row, 0)?, number: get(row, 1)?, document: get(row, 2)? });
        }
        known(&self.read).extend(found.iter().map(|one| (one.writer.clone(), one.number)));
        Ok(found)
    }

    /// All that we have is free at once, for others who go on with slots after `counted`, and we are seen no more.
    ///
    /// # Errors
    /// The server does not answer: it is free when its time is over.
    pub async fn leave(&self, counted: Timestamp) -> Result<(), StoreError> {
        self.held.drop(&self.held.shards());
        // Also what was taken without our hearing of it.
        let all: Vec<i32> = self.groups.iter().cloned().flatten().collect();
        let all = &all;
        let leave = |session: Arc<Session>| async move {
            future::try_join(self.free(&session, all, counted), goodbye(&session, &self.name)).await.map(drop)
        };
        let left = self.line.ask(leave).await;
        future::join(self.line.close(), self.post.close()).await;
        left
    }
}

/// A daemon that lives, as its row says.
struct Other {
    name: String,
    location: Option<String>,
    /// How many shards it holds of those that all share, and of those of our place.
    shares: [usize; 2],
    configuration: String,
}

/// What `before` held is `heir`'s, in the epochs in which it was held, unless somebody has had it since; that one
/// lives no more.
pub(super) async fn inherit(
    session: &Session,
    (heir, before): (&str, &str),
    held: &BTreeMap<i32, i64>,
    ttl: Duration,
) -> Result<(), Fault> {
    let (heir, before) = (text_of(heir), text_of(before));
    let (shards, epochs): (Vec<i32>, Vec<i64>) = held.iter().unzip();
    let sql = "WITH ours AS (SELECT lease.shard FROM lease
            JOIN unnest($3::integer[], $4::bigint[]) AS held (shard, epoch)
                ON held.shard = lease.shard AND held.epoch = lease.epoch
            WHERE holder = $2 ORDER BY lease.shard FOR UPDATE OF lease)
        UPDATE lease SET holder = $1, until = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $5
        FROM ours WHERE lease.shard = ours.shard";
    let inherited = session.execute(sql, &[&heir, &before, &shards, &epochs, &millis(ttl)]).await?;
    tracing::info!(shards = inherited, of = shards.len(), "shards of the process before are ours still");
    goodbye(session, &before).await
}

/// What one of the sets knows. Nothing is waited for while it is looked at.
fn known<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `shard, epoch`.
pub(super) fn pairs(rows: &[Row]) -> Result<Vec<(i32, i64)>, Fault> {
    rows.iter().map(|row| Ok((read(row, 0)?, read(row, 1)?))).collect()
}

fn count(row: &Row, column: usize) -> Result<usize, Fault> {
    usize::try_from(read::<i64>(row, column)?).map_err(|error| Fault::Refused(error.to_string()))
}

/// `id, message, token, age`.
fn handed(row: &Row) -> Result<Handed, StoreError> {
    let mut message: Arrival = from_json(row, 1)?;
    message.at.mono = Mono::default();
    Ok(Handed { token: token(get(row, 2)?)?, age: duration(get(row, 3)?), message })
}
