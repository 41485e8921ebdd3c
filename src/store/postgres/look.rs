//! Reading a store beside whoever has it: one moment of it, and nothing is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::link::{Endpoint, Fault, Session, Value};
use super::rows::{boot, from_json, get, incident_row, ledger_entry, outbox_row, parse, run_row, span, text};
use super::{incident, outbox, schema, text_of, whole};
use crate::control::Silence;
use crate::journey::Name;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::run::checkpoint::Checkpoint;
use crate::journey::token::Token;
use crate::slo::Span;
use crate::store::codes::{blob, millis, time, verdict_of};
use crate::store::past::{Past, Ran, Weave, has_failed, slots, without_run};
use crate::store::reading::{Backlog, Cluster, Daemon, Held, Said, ToldOf, Wanted};
use crate::store::story::{INCIDENTS, Left, NOTICES, Story};
use crate::store::{IncidentRow, OutboxRow, RunRow, StoreError};

/// All runs of a quarter are many.
const LONGEST: Duration = Duration::from_secs(600);

/// A store as it stood at one moment.
pub(in crate::store) struct Look(Session);

impl Look {
    pub(in crate::store) async fn open(endpoint: &Endpoint) -> Result<Look, StoreError> {
        let session = endpoint.connect("journeyman command", LONGEST).await.map_err(Fault::unreadable)?;
        schema::check(&session).await?;
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        session.batch(begin).await.map_err(Fault::unreadable)?;
        Ok(Look(session))
    }

    pub(in crate::store) async fn close(self) {
        self.0.close().await;
    }

    async fn all<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.0.rows(sql, values).await.map_err(Fault::unreadable)?.iter().map(read).collect()
    }

    async fn first<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.0.rows(sql, values).await.map_err(Fault::unreadable)?.first().map(read).transpose()
    }

    async fn id(&self, name: &str) -> Result<Option<i64>, StoreError> {
        self.first("SELECT id FROM journey WHERE name = $1", &[&text(name)], |row| get(row, 0)).await
    }

    /// The daemons that were seen of late, and whoever has the lease; who holds which shards, and what waits to be heard.
    pub(in crate::store) async fn cluster(&self) -> Result<Cluster, StoreError> {
        let length = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let mut daemons = self.daemons(length).await?;
        let sql = "SELECT holder, shard, epoch FROM lease WHERE shard > 0 AND holder <> ''
            AND until >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint ORDER BY shard";
        let read = |row: &Row| Ok((get::<String>(row, 0)?, get(row, 1)?, get::<i64>(row, 2)?.unsigned_abs()));
        let held = self.all(sql, &[], read).await?;
        let sql = "SELECT count(*) FROM lease WHERE shard > 0";
        let shards = self.first(sql, &[], |row| get::<i64>(row, 0)).await?.unwrap_or(0).unsigned_abs() as usize;
        let free = shards.saturating_sub(held.len());
        for (holder, shard, epoch) in held {
            if let Some(daemon) = daemons.iter_mut().find(|daemon| daemon.name == holder) {
                daemon.shards.push((shard, epoch));
            }
        }
        let sql = "SELECT count(*), (extract(epoch FROM clock_timestamp()) * 1000)::bigint - min(at) FROM relay";
        let backlog = |row: &Row| {
            let (rows, oldest) = (get::<i64>(row, 0)?.unsigned_abs(), get::<Option<i64>>(row, 1)?.map(length));
            Ok(Backlog { rows, oldest })
        };
        let relay = self.first(sql, &[], backlog).await?.unwrap_or_default();
        let parts = self.parts(&daemons).await?;
        Ok(Cluster { daemons, parts, free, relay })
    }

    /// What their configurations consist of, if there are several.
    async fn parts(&self, daemons: &[Daemon]) -> Result<BTreeMap<String, String>, StoreError> {
        let said = daemons.iter().filter_map(|daemon| Some(&*daemon.said.as_ref()?.configuration));
        let several: BTreeSet<&str> = said.collect();
        if several.len() < 2 {
            return Ok(BTreeMap::new());
        }
        let sql = "SELECT fingerprint, parts FROM configuration WHERE fingerprint = ANY($1)";
        let several: Vec<&str> = several.into_iter().collect();
        let parts = self.all(sql, &[&several], |row| Ok((get(row, 0)?, get(row, 1)?))).await?;
        Ok(parts.into_iter().collect())
    }

    async fn daemons(&self, length: impl Fn(i64) -> Duration) -> Result<Vec<Daemon>, StoreError> {
        let sql = "WITH moment AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now),
                lead AS (SELECT holder, epoch, until FROM lease WHERE shard = 0)
            SELECT coalesce(member.name, lead.holder) COLLATE \"C\" AS who, now - seen, version, configuration, listens,
                location, epoch, until - now
            FROM moment CROSS JOIN (member FULL JOIN lead ON lead.holder = member.name)
            WHERE coalesce(member.name, lead.holder) <> '' ORDER BY who";
        self.all(sql, &[], |row| {
            let said = match get::<Option<i64>>(row, 1)? {
                None => None,
                Some(ago) => Some(Said {
                    ago: length(ago),
                    version: get(row, 2)?,
                    configuration: get(row, 3)?,
                    listens: get(row, 4)?,
                    location: get(row, 5)?,
                }),
            };
            let lease = get::<Option<i64>>(row, 6)?
                .zip(get::<Option<i64>>(row, 7)?)
                .map(|(epoch, left)| Held { epoch: epoch.unsigned_abs(), left: (left > 0).then(|| length(left)) });
            Ok(Daemon { name: get(row, 0)?, said, lease, shards: Vec::new() })
        })
        .await
    }

    /// What the store has of this run; `None` if it never heard of it, or has forgotten it.
    pub(in crate::store) async fn story(&self, token: Token) -> Result<Option<Story>, StoreError> {
        let Some((journey, slot, left)) = self.left(token).await? else { return Ok(None) };
        let (id, at) = (self.id(&journey).await?, millis(slot));
        let sql = "SELECT NULL::bytea, slot, verdict, why, latency, late_by FROM run WHERE journey = $1 AND slot = $2";
        let row = self.first(sql, &[&id, &at], run_row).await?;
        let last_good = self.last_good_before(id, at).await?;
        let incidents = self.incidents(id, at, token).await?;
        Ok(Some(Story { token, journey, slot, left, row, last_good, incidents }))
    }

    /// What is left of the run itself: its evidence, else what is needed to go on with it, else its place in the ledger.
    async fn left(&self, token: Token) -> Result<Option<(Name, Timestamp, Left)>, StoreError> {
        let key = blob(token);
        let key: &[u8] = &key;
        let sql = "SELECT report, slot FROM evidence WHERE token = $1";
        let read = |row: &Row| Ok((from_json::<Report>(row, 0)?, get(row, 1)?));
        if let Some((report, slot)) = self.first(sql, &[&key], read).await? {
            return Ok(Some((report.journey.clone(), time(slot), Left::Report(Box::new(report)))));
        }
        let sql = "SELECT state FROM unfinished WHERE token = $1";
        if let Some(begun) = self.first(sql, &[&key], |row| from_json::<Checkpoint>(row, 0)).await? {
            let sql = "SELECT id, started, alive, ended FROM boot ORDER BY id DESC LIMIT 1";
            let alive = self.first(sql, &[], boot).await?.map(|boot| boot.alive);
            return Ok(Some((begun.journey, begun.slot, Left::Begun { made: begun.made, alive })));
        }
        let sql = "SELECT token, name, slot, recorded, keep_until, settled FROM ledger
            JOIN journey ON journey.id = ledger.journey WHERE token = $1";
        Ok(self.first(sql, &[&key], ledger_entry).await?.map(|(_, entry)| {
            let left = Left::Entry { recorded: entry.recorded, settled: entry.settled };
            (entry.journey, entry.slot, left)
        }))
    }

    /// The incidents that the run has to do with, each with its notices, oldest first.
    async fn incidents(
        &self,
        journey: Option<i64>,
        slot: i64,
        token: Token,
    ) -> Result<Vec<(IncidentRow, Vec<OutboxRow>)>, StoreError> {
        let sql = incident!(
            "WHERE id IN (SELECT incident FROM incident_journey WHERE journey = $1)
                AND since <= $2 AND coalesce(resolved, $2) >= $2
            OR id IN (SELECT outbox.incident FROM outbox WHERE outbox.token = $3) ORDER BY since, id LIMIT $4"
        );
        let (key, most) = (blob(token), whole(INCIDENTS));
        let rows = self.all(sql, &[&journey, &slot, &key.as_slice(), &most], incident_row).await?;
        // As in the store's own list: the key is searched, not the table.
        let sql = outbox!(
            "WHERE id > $1 || '.' AND id < $1 || '/' AND incident = $1
            ORDER BY created DESC, sequence DESC, id DESC LIMIT $2"
        );
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let mut notices = self.all(sql, &[&row.id, &whole(NOTICES)], outbox_row).await?;
            notices.reverse();
            found.push((row, notices));
        }
        Ok(found)
    }

    async fn last_good_before(&self, journey: Option<i64>, slot: i64) -> Result<Option<Report>, StoreError> {
        let sql = "SELECT report FROM evidence WHERE journey = $1 AND slot < $2 AND is_good ORDER BY slot DESC LIMIT 1";
        self.first(sql, &[&journey, &slot], |row| from_json(row, 0)).await
    }

    /// The token of the journey's newest run that was not good and has evidence.
    pub(in crate::store) async fn last_bad(&self, name: &str) -> Result<Option<Token>, StoreError> {
        let sql = "SELECT token FROM evidence JOIN journey ON journey.id = evidence.journey
            WHERE name = $1 AND NOT is_good ORDER BY slot DESC LIMIT 1";
        self.first(sql, &[&text(name)], |row| super::rows::token(get(row, 0)?)).await
    }

    /// The journey's last good run, if the store has one.
    pub(in crate::store) async fn last_good(&self, name: &str) -> Result<Option<Report>, StoreError> {
        let id = self.id(name).await?;
        self.last_good_before(id, i64::MAX).await
    }

    /// The spans of these journeys; those that the store does not know are left out.
    pub(in crate::store) async fn spans(&self, names: &[Name]) -> Result<HashMap<Name, Vec<Span>>, StoreError> {
        let mut found = HashMap::new();
        for name in names {
            let sql = "SELECT start, step, count, verdict, excluded FROM span
                JOIN journey ON journey.id = span.journey WHERE name = $1 ORDER BY start";
            let spans = self.all(sql, &[&text_of(name)], span).await?;
            if !spans.is_empty() {
                found.insert(name.clone(), spans);
            }
        }
        Ok(found)
    }

    /// What is kept of this run, and what people were told of it.
    pub(in crate::store) async fn told(&self, token: Token) -> Result<ToldOf, StoreError> {
        let key = blob(token);
        let key: &[u8] = &key;
        let sql = "SELECT notification FROM outbox WHERE token = $1 ORDER BY created, sequence, notifier";
        let notices = self.all(sql, &[&key], |row| from_json(row, 0)).await?;
        let sql = "SELECT report, journey, slot FROM evidence WHERE token = $1";
        let read = |row: &Row| Ok((from_json::<Report>(row, 0)?, get::<i64>(row, 1)?, get::<i64>(row, 2)?));
        let Some((report, journey, slot)) = self.first(sql, &[&key], read).await? else {
            return Ok(ToldOf { notices, ..ToldOf::default() });
        };
        let last_good = self.last_good_before(Some(journey), slot).await?;
        Ok(ToldOf { notices, report: Some(report), last_good })
    }

    /// A journey's runs, newest first; `None` if the store does not know the journey.
    pub(in crate::store) async fn runs(&self, name: &str, wanted: &Wanted) -> Result<Option<Vec<RunRow>>, StoreError> {
        let Some(id) = self.id(name).await? else { return Ok(None) };
        let sql = "SELECT (SELECT token FROM evidence
                    WHERE evidence.journey = run.journey AND evidence.slot = run.slot LIMIT 1),
                slot, verdict, why, latency, late_by FROM run
            WHERE journey = $1 AND slot >= $2 AND (cardinality($3::smallint[]) = 0 OR verdict = ANY($3))
            ORDER BY slot DESC LIMIT $4";
        let verdicts: Vec<i16> = wanted.verdicts.iter().copied().map(super::code).collect();
        let since = wanted.since.map_or(i64::MIN, millis);
        self.all(sql, &[&id, &since, &verdicts, &whole(wanted.limit)], run_row).await.map(Some)
    }

    /// The silences, those that are over among them.
    pub(in crate::store) async fn silences(&self) -> Result<Vec<Silence>, StoreError> {
        self.all("SELECT state FROM silence ORDER BY until, id", &[], |row| from_json(row, 0)).await
    }

    /// Gives what happened to these journeys since `from`, in the order of its ends.
    pub(in crate::store) async fn past(
        &self,
        journeys: &[Name],
        from: Timestamp,
        take: &mut dyn FnMut(Past),
    ) -> Result<(), StoreError> {
        let mut ids: HashMap<i64, Name> = HashMap::new();
        let mut without = Vec::new();
        for name in journeys {
            if let Some(id) = self.id(name).await? {
                without.extend(self.slots_without_run(id, name, from).await?);
                ids.insert(id, name.clone());
            }
        }
        let mut weave = Weave::new(without);
        let sql = "SELECT journey, slot, verdict, why, floor((slot * 1000 + latency) / 1000)::bigint AS ended, latency,
                CASE WHEN verdict IN (1, 2, 3) THEN (SELECT report FROM evidence
                    WHERE evidence.journey = run.journey AND evidence.slot = run.slot AND NOT is_good LIMIT 1) END
            FROM run WHERE journey = ANY($1) AND slot > $2 ORDER BY ended, slot";
        let known: Vec<i64> = ids.keys().copied().collect();
        let rows = self.0.stream(sql, &[&known, &millis(from)]).await.map_err(Fault::unreadable)?;
        let mut rows = std::pin::pin!(rows);
        let lost = |error: tokio_postgres::Error| Fault::of(&error).unreadable();
        while let Some(row) = rows.try_next().await.map_err(lost)? {
            let Some(name) = ids.get(&get(&row, 0)?) else { continue };
            let code = i64::from(get::<i16>(&row, 2)?);
            let verdict =
                verdict_of(code).ok_or_else(|| StoreError::Unreadable(format!("there is no verdict {code}")))?;
            let ran = Ran {
                journey: name.clone(),
                slot: get(&row, 1)?,
                verdict,
                why: get::<i16>(&row, 3)?.into(),
                ended: get(&row, 4)?,
                latency: get(&row, 5)?,
            };
            let report = get::<Option<&str>>(&row, 6)?.filter(|_| has_failed(verdict));
            let report: Option<Report> = report.map(parse).transpose()?;
            weave.run(ran, report.and_then(|report| report.failed_step()?.channel.clone()), take);
        }
        weave.end(take);
        Ok(())
    }

    async fn slots_without_run(&self, id: i64, name: &Name, from: Timestamp) -> Result<Vec<Past>, StoreError> {
        let sql = "SELECT start, step, count, verdict, excluded FROM span
            WHERE journey = $1 AND verdict IN ($2, $3) ORDER BY start";
        let [unknown, excluded] = [Verdict::Unknown, Verdict::Excluded].map(super::code);
        let spans = self.all(sql, &[&id, &unknown, &excluded], span).await?;
        let mut found: Vec<Past> = Vec::new();
        for span in &spans {
            found.extend(slots(span, from).map(|slot| without_run(name, slot, span.verdict)));
        }
        let all: Vec<i64> = found.iter().map(|past| millis(past.slot)).collect();
        let sql = "SELECT slot FROM run WHERE journey = $1 AND slot = ANY($2)";
        let ran: Vec<i64> = self.all(sql, &[&id, &all], |row| get(row, 0)).await?;
        let ran: std::collections::HashSet<i64> = ran.into_iter().collect();
        found.retain(|past| !ran.contains(&millis(past.slot)));
        Ok(found)
    }
}
