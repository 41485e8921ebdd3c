//! Runs that somebody asks for of the daemon that decides, while another one has the journey: it is asked through the store, and
//! answers there.

use std::sync::Arc;
use std::time::Duration;

use super::lease::millis;
use super::line::Line;
use super::link::{Endpoint, Session};
use super::rows::get;
use super::share::Held;
use super::text_of;
use crate::cluster::shard_of;
use crate::commands::Refusal;
use crate::control::AskedRun;
use crate::journey::Name;
use crate::store::StoreError;

/// Whoever has the journey answers within this, or nobody waits for it any more.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What whoever has the journey said.
pub type Answer = Result<AskedRun, Refusal>;

/// A run that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Its row.
    pub id: i64,
    /// Of which journey.
    pub journey: Name,
    /// By whom.
    pub by: String,
}

/// Asks other daemons, and hears what they ask.
pub struct Errands {
    line: Line,
    held: Held,
}

impl Errands {
    /// Nothing is asked yet.
    pub fn new(endpoint: Endpoint, held: Held) -> Errands {
        Errands { line: Line::new(endpoint, "journeyman errands"), held }
    }

    /// Asks for a run; gives what it is to be asked after by.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn ask(&self, journey: &Name, by: &str) -> Result<i64, StoreError> {
        let (shard, journey, by) = (shard_of(journey), text_of(journey), text_of(by));
        let (journey, by) = (&journey, &by);
        let ask = |session: Arc<Session>| async move {
            // Whoever asked these is gone.
            let old = "DELETE FROM errand WHERE at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1";
            session.execute(old, &[&(10 * millis(PATIENCE))]).await?;
            let sql = "INSERT INTO errand (shard, journey, wanted, at)
                VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) RETURNING id";
            session.rows(sql, &[&shard, journey, by]).await
        };
        let rows = self.line.ask(ask).await?;
        rows.first().map_or_else(|| Err(StoreError::Unwritable("it was not asked".to_owned())), |row| get(row, 0))
    }

    /// What was answered, once it is; it is forgotten then.
    ///
    /// # Errors
    /// The server does not answer, or has what cannot be read.
    pub async fn answered(&self, id: i64) -> Result<Option<Answer>, StoreError> {
        let sql = "DELETE FROM errand WHERE id = $1 AND answer IS NOT NULL RETURNING answer";
        let rows = self.line.ask(|session| async move { session.rows(sql, &[&id]).await }).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let answer = serde_json::from_str(&get::<String>(row, 0)?);
        answer.map(Some).map_err(|error| StoreError::Unreadable(format!("what was answered: {error}")))
    }

    /// Nobody waits for the answer any more.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn take_back(&self, id: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM errand WHERE id = $1";
        self.line.ask(|session| async move { session.execute(sql, &[&id]).await }).await.map(drop)
    }

    /// What is asked of us and not answered: what somebody still waits for, of the shards that we hold.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn asked(&self) -> Result<Vec<Errand>, StoreError> {
        let held = self.held.shards();
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "SELECT id, journey, wanted FROM errand WHERE shard = ANY($1) AND answer IS NULL
            AND at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2 ORDER BY id";
        let held = &held;
        let rows = self.line.ask(|session| async move { session.rows(sql, &[held, &millis(PATIENCE)]).await }).await?;
        let errand = |row| {
            let (journey, by): (String, String) = (get(row, 1)?, get(row, 2)?);
            Ok(Errand { id: get(row, 0)?, journey: journey.into(), by })
        };
        rows.iter().map(errand).collect()
    }

    /// Answers.
    ///
    /// # Errors
    /// The server does not answer: whoever asked waits until its time is over.
    pub async fn answer(&self, id: i64, answer: &Answer) -> Result<(), StoreError> {
        let Ok(document) = serde_json::to_string(answer) else { return Ok(()) };
        let document = &document;
        let sql = "UPDATE errand SET answer = $2 WHERE id = $1 AND answer IS NULL";
        self.line.ask(|session| async move { session.execute(sql, &[&id, document]).await }).await.map(drop)
    }
}
