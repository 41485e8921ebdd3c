//! Who may write: a row with a holder and an epoch. Its time is the database's, because no two machines' clocks agree.
//!
//! Whoever takes it over counts the epoch up, and every transaction of a writer holds the row as it was when it was opened: one
//! that was stopped and comes back writes nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::line::{ATTEMPTS, Line};
use super::link::{Endpoint, Fault, Session, pause};
use super::rows::read;
use super::text_of;
use crate::store::StoreError;

/// A daemon that was not seen for so long is forgotten.
const FORGET: Duration = Duration::from_secs(3_600);
/// Whoever runs a configuration says so in less: that one is new there, or comes back, is no reason to forget it.
const FORGET_CONFIGURATION: Duration = Duration::from_secs(300);

/// What came of the wish to have the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is ours; the fence proves it to the writer.
    Ours(Fence),
    /// Somebody else has it.
    Held {
        /// Who.
        by: String,
        /// How much longer, if nobody renews it.
        left: Duration,
    },
}

/// The lease as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub(super) shard: i32,
    pub(super) holder: String,
    pub(super) epoch: i64,
}

impl Fence {
    /// How often the lease has changed hands.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its version.
    pub version: String,
    /// The fingerprint of the configuration that it runs, or would run.
    pub configuration: String,
    /// Where its pages are.
    pub listens: String,
    /// Where it looks from.
    pub location: Option<String>,
}

/// The lease of a shard, as somebody sees it who wants it.
pub struct Lease {
    line: Line,
    shard: i32,
    holder: String,
    ttl: Duration,
    is_prepared: AtomicBool,
}

impl Lease {
    /// Nothing is asked yet. `holder` is this process, and no other one, also for people.
    pub fn new(endpoint: Endpoint, shard: i32, holder: String, ttl: Duration) -> Lease {
        let (line, holder) = (Line::new(endpoint, "journeyman lease"), text_of(&holder));
        Lease { line, shard, holder, ttl, is_prepared: AtomicBool::new(false) }
    }

    /// Takes it, if it is free or ours. The first tables are made where there are none.
    ///
    /// # Errors
    /// The server does not answer, or its state is not ours to use.
    pub async fn take(&self) -> Result<Turn, StoreError> {
        if !self.is_prepared.load(Ordering::Acquire) {
            super::prepare(self.line.endpoint(), false).await?;
            self.is_prepared.store(true, Ordering::Release);
        }
        self.line.ask(|session| async move { self.take_in(&session).await }).await
    }

    async fn take_in(&self, session: &Session) -> Result<Turn, Fault> {
        // A look holds up nobody.
        if let Some(row) =
            session.rows("SELECT holder, epoch, until FROM lease WHERE shard = $1", &[&self.shard]).await?.first()
        {
            let held = (read::<String>(row, 0)?, read::<i64>(row, 1)?, read::<i64>(row, 2)?);
            if let Decision::Wait(left) = decide(&self.holder, now(session).await?, (&held.0, held.1, held.2)) {
                return Ok(Turn::Held { by: held.0, left });
            }
        }
        let mut attempt = 0;
        loop {
            match self.try_take(session).await {
                Err(Fault::Again(_)) if attempt < ATTEMPTS => {
                    session.batch("ROLLBACK").await?;
                    attempt += 1;
                    tokio::time::sleep(pause(attempt, fastrand::f64())).await;
                }
                taken => return taken,
            }
        }
    }

    async fn try_take(&self, session: &Session) -> Result<Turn, Fault> {
        let first =
            "INSERT INTO lease (shard, holder, epoch, until) VALUES ($1, '', 0, 0) ON CONFLICT (shard) DO NOTHING";
        session.execute(first, &[&self.shard]).await?;
        let held = "SELECT holder, epoch, until FROM lease WHERE shard = $1 FOR UPDATE";
        session.batch("BEGIN").await?;
        let rows = session.rows(held, &[&self.shard]).await?;
        // The clock is read when the row is ours to look at.
        let now = now(session).await?;
        let Some(row) = rows.first() else { return Err(Fault::Again("the lease's row has gone".to_owned())) };
        let (holder, epoch, until) = (read::<String>(row, 0)?, read::<i64>(row, 1)?, read::<i64>(row, 2)?);
        let is_new = match decide(&self.holder, now, (&holder, epoch, until)) {
            Decision::Keep => false,
            Decision::Next => true,
            Decision::Wait(left) => {
                session.batch("ROLLBACK").await?;
                return Ok(Turn::Held { by: holder, left });
            }
        };
        let epoch = epoch + i64::from(is_new);
        let taken = "UPDATE lease SET holder = $2, epoch = $3, until = $4 WHERE shard = $1";
        session.execute(taken, &[&self.shard, &self.holder, &epoch, &(now + millis(self.ttl))]).await?;
        if is_new {
            // An attempt that was under way when the holder before us ended may or may not have been taken.
            session.execute("UPDATE outbox SET status = 'ambiguous' WHERE status = 'leased'", &[]).await?;
        }
        session.batch("COMMIT").await?;
        Ok(Turn::Ours(Fence { shard: self.shard, holder: self.holder.clone(), epoch }))
    }

    /// Makes it last from now on; says whether it is ours still.
    ///
    /// # Errors
    /// The server does not answer: whether it is, is unknown.
    pub async fn renew(&self, fence: &Fence) -> Result<bool, StoreError> {
        let Fence { shard, holder, epoch } = fence;
        let sql = "UPDATE lease SET until = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $4
            WHERE shard = $1 AND holder = $2 AND epoch = $3";
        let renew = |session: Arc<Session>| async move {
            session.execute(sql, &[shard, holder, epoch, &millis(self.ttl)]).await
        };
        Ok(self.line.ask(renew).await? > 0)
    }

    /// Gives it back, if it is ours still, so that the next need not wait.
    ///
    /// # Errors
    /// The server does not answer: the lease ends by itself.
    pub async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        let Fence { shard, holder, epoch } = fence;
        let sql = "UPDATE lease SET until = 0 WHERE shard = $1 AND holder = $2 AND epoch = $3";
        self.line.ask(|session| async move { session.execute(sql, &[shard, holder, epoch]).await }).await?;
        self.line.close().await;
        Ok(())
    }

    /// Who has it, if anybody does. Nothing is changed.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn holder(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT holder, until FROM lease WHERE shard = $1";
        let asked = |session: Arc<Session>| async move {
            let rows = session.rows(sql, &[&self.shard]).await?;
            let now = now(&session).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            Ok((read::<i64>(row, 1)? > now).then_some(read::<String>(row, 0)?))
        };
        self.line.ask(asked).await
    }
}

/// Says that this daemon is there; forgets those that were not seen for long.
pub(super) async fn introduce(session: &Session, name: &str, member: &Member) -> Result<(), Fault> {
    let Member { version, configuration, listens, location } = member;
    let sql = "INSERT INTO member (name, seen, version, configuration, listens, location)
        VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $2, $3, $4, $5)
        ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, version = excluded.version,
        configuration = excluded.configuration, listens = excluded.listens, location = excluded.location";
    let gone = "DELETE FROM member WHERE seen < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1";
    let (name, forget) = (&name, millis(FORGET));
    let said = async { session.execute(sql, &[name, version, configuration, listens, location]).await };
    futures_util::future::try_join(said, async { session.execute(gone, &[&forget]).await }).await.map(drop)
}

/// Leaves what a configuration consists of, if nobody has; forgets those that no daemon names any more.
pub(super) async fn describe(session: &Session, configuration: &str, parts: &str) -> Result<(), Fault> {
    let said =
        "UPDATE configuration SET seen = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE fingerprint = $1";
    let gone = "DELETE FROM configuration WHERE seen < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1
        AND fingerprint NOT IN (SELECT configuration FROM member)";
    let forget = millis(FORGET_CONFIGURATION);
    let said = async { session.execute(said, &[&configuration]).await };
    let gone = async { session.execute(gone, &[&forget]).await };
    let (said, _) = futures_util::future::try_join(said, gone).await?;
    if said == 0 {
        let new = "INSERT INTO configuration (fingerprint, parts, seen)
            VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) ON CONFLICT (fingerprint) DO NOTHING";
        session.execute(new, &[&configuration, &parts]).await?;
    }
    Ok(())
}

/// Says that it is there no longer.
pub(super) async fn goodbye(session: &Session, name: &str) -> Result<(), Fault> {
    session.execute("DELETE FROM member WHERE name = $1", &[&name]).await.map(drop)
}

/// The database's time.
async fn now(session: &Session) -> Result<i64, Fault> {
    let rows = session.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", &[]).await?;
    rows.first().map_or_else(|| Err(Fault::Refused("no time".to_owned())), |row| read(row, 0))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is ours.
    Keep,
    /// It is free: whatever was written under it before is another's.
    Next,
    /// It is somebody else's for so long.
    Wait(Duration),
}

/// Whether `wanted_by` may have at `now` what somebody has until then.
fn decide(wanted_by: &str, now: i64, (holder, _, until): (&str, i64, i64)) -> Decision {
    let left = until.saturating_sub(now);
    match holder == wanted_by {
        _ if left <= 0 => Decision::Next,
        true => Decision::Keep,
        false => Decision::Wait(Duration::from_millis(left.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_after_its_time_is_another() {
        for (wanted_by, now, held, expected) in [
            ("a", 100, ("", 0, 0), Decision::Next),
            ("a", 100, ("a", 1, 101), Decision::Keep),
            ("a", 101, ("a", 1, 101), Decision::Next),
            ("b", 100, ("a", 1, 101), Decision::Wait(Duration::from_millis(1))),
            ("b", 101, ("a", 1, 101), Decision::Next),
            ("b", 100, ("a", 1, 0), Decision::Next),
        ] {
            assert_eq!(decide(wanted_by, now, held), expected, "{wanted_by} at {now}, {held:?}");
        }
    }
}
