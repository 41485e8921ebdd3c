//! Rows as the daemon knows them.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::link::Fault;
use crate::boots::Boot;
use crate::breaker::{Guarded, Order};
use crate::detect::drift::Ran;
use crate::journey::message::Arrival;
use crate::journey::outcome::Verdict;
use crate::journey::spend::Spent;
use crate::journey::token::Token;
use crate::ledger::Entry;
use crate::slo::Span;
use crate::store::codes::{WHYS, duration, settled_of, time, verdict_of};
use crate::store::{IncidentRow, OutboxRow, OutboxState, OutboxSummary, RunRow, StoreError};
use crate::time::Mono;

/// Text as a column takes it. PostgreSQL has no NUL in text; what people read has its picture in its place, and JSON spells it.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{2400}")) } else { Cow::Borrowed(text) }
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Data(error.to_string()))
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable(error.to_string())
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(unreadable)
}

/// The same, where a row that cannot be read ends what is done.
pub(super) fn read<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    get(row, column).map_err(|error| Fault::Refused(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, StoreError> {
    parse(get(row, column)?)
}

/// A document that may not be there.
fn maybe<T: DeserializeOwned>(row: &Row, column: usize) -> Result<Option<T>, StoreError> {
    get::<Option<&str>>(row, column)?.map(parse).transpose()
}

fn small(row: &Row, column: usize) -> Result<u32, StoreError> {
    get::<i64>(row, column)?.try_into().map_err(unreadable)
}

pub(super) fn token(bytes: &[u8]) -> Result<Token, StoreError> {
    Ok(Token::from_bits(u128::from_be_bytes(bytes.try_into().map_err(unreadable)?)))
}

fn verdict(row: &Row, column: usize) -> Result<Verdict, StoreError> {
    let code = get::<i16>(row, column)?.into();
    verdict_of(code).ok_or_else(|| unreadable(format!("there is no verdict {code}")))
}

/// What another version wrote down of a run that was under way may mean nothing to us: its slot is unknown then, and no more.
pub(super) fn readable<T>(row: Result<T, StoreError>) -> Option<T> {
    row.inspect_err(|error| tracing::warn!(%error, "what another version left of a run cannot be read")).ok()
}

/// `start, step, count, verdict, excluded`.
pub(super) fn span(row: &Row) -> Result<Span, StoreError> {
    let span = Span {
        start: get(row, 0)?,
        step: get(row, 1)?,
        count: small(row, 2)?,
        verdict: verdict(row, 3)?,
        excluded: get(row, 4)?,
    };
    if span.is_sound() { Ok(span) } else { Err(unreadable("there is a span that no slots make")) }
}

/// `id, started, alive, ended`.
pub(super) fn boot(row: &Row) -> Result<Boot, StoreError> {
    Ok(Boot { id: get(row, 0)?, started: time(get(row, 1)?), alive: time(get(row, 2)?), ended: get(row, 3)? })
}

/// `token, name, slot, recorded, keep_until, settled`.
pub(super) fn ledger_entry(row: &Row) -> Result<(Token, Entry), StoreError> {
    let entry = Entry {
        journey: get::<&str>(row, 1)?.into(),
        slot: time(get(row, 2)?),
        recorded: time(get(row, 3)?),
        keep_until: time(get(row, 4)?),
        settled: get::<Option<i16>>(row, 5)?.map(|code| settled_of(code.into())),
    };
    Ok((token(get(row, 0)?)?, entry))
}

/// An arrival that another process took: on our monotonic clock it has no time.
pub(super) fn arrival(row: &Row) -> Result<Arrival, StoreError> {
    let mut arrival: Arrival = from_json(row, 0)?;
    arrival.at.mono = Mono::default();
    Ok(arrival)
}

/// `day, channel, journey, messages`; `None` if it is none that we wrote.
pub(super) fn spent(row: &Row) -> Result<Option<Spent>, StoreError> {
    let Ok(day) = get::<&str>(row, 0)?.parse() else { return Ok(None) };
    let (channel, journey): (&str, &str) = (get(row, 1)?, get(row, 2)?);
    let messages = get::<i64>(row, 3)?.unsigned_abs();
    Ok(Some(Spent { channel: channel.into(), day, journey: journey.into(), messages }))
}

/// `what, state`; `None` if it is none that we wrote.
pub(super) fn order(row: &Row) -> Result<Option<(Guarded, Order)>, StoreError> {
    let Ok(what) = get::<&str>(row, 0)?.parse() else { return Ok(None) };
    Ok(Some((what, from_json(row, 1)?)))
}

/// `token, slot, verdict, why, latency, late_by`.
pub(super) fn run_row(row: &Row) -> Result<RunRow, StoreError> {
    let why = usize::try_from(get::<i16>(row, 3)?).unwrap_or(0);
    Ok(RunRow {
        token: get::<Option<&[u8]>>(row, 0)?.map(token).transpose()?,
        slot: time(get(row, 1)?),
        verdict: verdict(row, 2)?,
        why: WHYS.get(why).copied().unwrap_or("").to_owned(),
        latency: duration(get(row, 4)?),
        late_by: get::<Option<i64>>(row, 5)?.map(duration),
    })
}

/// `slot, verdict, latency`.
pub(super) fn ran(row: &Row) -> Result<Ran, StoreError> {
    Ok(Ran { slot: time(get(row, 0)?), verdict: verdict(row, 1)?, latency: duration(get(row, 2)?) })
}

/// `day, verdict, count`.
pub(super) fn day(row: &Row) -> Result<(i64, Verdict, u64), StoreError> {
    Ok((get(row, 0)?, verdict(row, 1)?, get::<i64>(row, 2)?.unsigned_abs()))
}

/// `id, subject, since, resolved, severity, detectors, summary, bad_runs, members`.
pub(super) fn incident_row(row: &Row) -> Result<IncidentRow, StoreError> {
    Ok(IncidentRow {
        id: get(row, 0)?,
        subject: get(row, 1)?,
        since: time(get(row, 2)?),
        resolved: get::<Option<i64>>(row, 3)?.map(time),
        severity: get(row, 4)?,
        detectors: from_json(row, 5)?,
        summary: get(row, 6)?,
        bad_runs: small(row, 7)?,
        members: small(row, 8)?,
    })
}

/// `id, incident, sequence, notifier, instead_of, created, notification, status, attempt, not_before, error, receipt, at`.
pub(super) fn outbox_row(row: &Row) -> Result<OutboxRow, StoreError> {
    Ok(OutboxRow {
        id: get(row, 0)?,
        incident: get(row, 1)?,
        sequence: small(row, 2)?,
        notifier: get::<&str>(row, 3)?.into(),
        instead_of: maybe(row, 4)?,
        created: time(get(row, 5)?),
        notification: from_json(row, 6)?,
        state: OutboxState {
            status: get::<&str>(row, 7)?.parse().map_err(|error: String| unreadable(error))?,
            attempt: small(row, 8)?,
            not_before: time(get(row, 9)?),
            error: get(row, 10)?,
            receipt: maybe(row, 11)?,
            at: time(get(row, 12)?),
        },
    })
}

/// `notifier, pending, dead, oldest`.
pub(super) fn summary(row: &Row) -> Result<OutboxSummary, StoreError> {
    Ok(OutboxSummary {
        notifier: get::<&str>(row, 0)?.into(),
        pending: get::<i64>(row, 1)?.unsigned_abs(),
        dead: get::<i64>(row, 2)?.unsigned_abs(),
        oldest: get::<Option<i64>>(row, 3)?.map(time),
    })
}
