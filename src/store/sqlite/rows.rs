//! Rows as the daemon knows them.

use rusqlite::Row;

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
use crate::store::{IncidentRow, OutboxRow, OutboxState, RunRow};
use crate::time::Mono;

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?)
}

pub(super) fn verdict(code: i64) -> rusqlite::Result<Verdict> {
    verdict_of(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, code))
}

pub(super) fn span(row: &Row<'_>) -> rusqlite::Result<Span> {
    let span = Span {
        start: row.get("start")?,
        step: row.get("step")?,
        count: row.get("count")?,
        verdict: verdict(row.get("verdict")?)?,
        excluded: row.get("excluded")?,
    };
    if span.is_sound() { Ok(span) } else { Err(rusqlite::Error::IntegralValueOutOfRange(1, span.step)) }
}

pub(super) fn boot(row: &Row<'_>) -> rusqlite::Result<Boot> {
    Ok(Boot { id: row.get(0)?, started: time(row.get(1)?), alive: time(row.get(2)?), ended: row.get(3)? })
}

pub(super) fn ledger_entry(row: &Row<'_>) -> rusqlite::Result<(Token, Entry)> {
    let entry = Entry {
        journey: row.get::<_, String>(1)?.into(),
        slot: time(row.get(2)?),
        recorded: time(row.get(3)?),
        keep_until: time(row.get(4)?),
        settled: row.get::<_, Option<i64>>(5)?.map(settled_of),
    };
    Ok((Token::from_bits(u128::from_be_bytes(row.get(0)?)), entry))
}

/// An arrival that another process took: on our monotonic clock it has no time.
pub(super) fn arrival(row: &Row<'_>) -> rusqlite::Result<Arrival> {
    let mut arrival: Arrival = from_json(row, 0)?;
    arrival.at.mono = Mono::default();
    Ok(arrival)
}

/// The key of what a journey has spent through a channel on a day. Days sort as text, and names of channels have no colon.
pub(super) fn spent_key(spent: &Spent) -> String {
    format!("spent:{}:{}:{}", spent.day, spent.channel, spent.journey)
}

/// What a row of `meta` under such a key says; `None` if the key is none that we wrote.
pub(super) fn spent(row: &Row<'_>) -> rusqlite::Result<Option<Spent>> {
    let (key, messages): (String, i64) = (row.get(0)?, row.get(1)?);
    let mut parts = key.splitn(4, ':').skip(1);
    let (Some(day), Some(channel), Some(journey)) = (parts.next(), parts.next(), parts.next()) else { return Ok(None) };
    let Ok(day) = day.parse() else { return Ok(None) };
    Ok(Some(Spent { channel: channel.into(), day, journey: journey.into(), messages: messages.unsigned_abs() }))
}

/// What somebody wants of a breaker; `None` if the key is none that we wrote.
pub(super) fn order(row: &Row<'_>) -> rusqlite::Result<Option<(Guarded, Order)>> {
    let key: String = row.get(0)?;
    let Some(Ok(what)) = key.strip_prefix("order:").map(str::parse) else { return Ok(None) };
    Ok(Some((what, from_json(row, 1)?)))
}

pub(super) fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let token: Option<[u8; 16]> = row.get(0)?;
    let why: usize = row.get::<_, i64>(3)?.try_into().unwrap_or(0);
    Ok(RunRow {
        token: token.map(|bytes| Token::from_bits(u128::from_be_bytes(bytes))),
        slot: time(row.get(1)?),
        verdict: verdict(row.get(2)?)?,
        why: WHYS.get(why).copied().unwrap_or("").to_owned(),
        latency: duration(row.get(4)?),
        late_by: row.get::<_, Option<i64>>(5)?.map(duration),
    })
}

pub(super) fn ran(row: &Row<'_>) -> rusqlite::Result<Ran> {
    Ok(Ran { slot: time(row.get(0)?), verdict: verdict(row.get(1)?)?, latency: duration(row.get(2)?) })
}

pub(super) fn incident_row(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: row.get(0)?,
        subject: row.get(1)?,
        since: time(row.get(2)?),
        resolved: row.get::<_, Option<i64>>(3)?.map(time),
        severity: row.get(4)?,
        detectors: from_json(row, 5)?,
        summary: row.get(6)?,
        bad_runs: row.get(7)?,
        members: row.get(8)?,
    })
}

pub(super) fn outbox_row(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let status: String = row.get("status")?;
    Ok(OutboxRow {
        id: row.get("id")?,
        incident: row.get("incident")?,
        sequence: row.get("sequence")?,
        notifier: row.get::<_, String>("notifier")?.into(),
        instead_of: text("instead_of")?.map(|text| parse(&text)).transpose()?,
        created: time(row.get("created")?),
        notification: parse(&row.get::<_, String>("notification")?)?,
        state: OutboxState {
            status: status.parse().map_err(|error: String| rusqlite::Error::InvalidParameterName(error))?,
            attempt: row.get("attempt")?,
            not_before: time(row.get("not_before")?),
            error: text("error")?,
            receipt: text("receipt")?.map(|text| parse(&text)).transpose()?,
            at: time(row.get("at")?),
        },
    })
}

/// What a row says, as a damaged store may give it back: what can be read is what would be written again.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use crate::notifier::Receipt;
    use crate::{alert, control, incident, journey, notice, slo};
    use std::time::Duration;
    fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) {
        let Ok(value) = parse::<T>(text) else { return };
        let written = json(&value).expect("what was read can be written");
        assert_eq!(parse::<T>(&written).expect("and read again"), value);
    }
    crate::store::sqlite::evidence::fuzz(data);
    let text = String::from_utf8_lossy(data);
    same::<journey::report::Report>(&text);
    same::<alert::JourneyAlerts>(&text);
    same::<alert::AlertState>(&text);
    same::<incident::Incident>(&text);
    same::<control::Silence>(&text);
    same::<notice::Notification>(&text);
    same::<Receipt>(&text);

    let number = |bytes: &[u8]| bytes.iter().fold(0i64, |number, byte| number << 8 | i64::from(*byte));
    let span = |bytes: &[u8]| Span {
        start: number(&bytes[..8]),
        step: number(&bytes[8..14]),
        count: number(&bytes[14..18]) as u32,
        verdict: Verdict::ALL[usize::from(bytes[18]) % Verdict::ALL.len()],
        excluded: bytes[19] & 1 == 1,
    };
    let mut spans: Vec<_> = data.chunks_exact(20).map(span).filter(Span::is_sound).collect();
    spans.sort_by_key(|span| span.start);
    spans.dedup_by_key(|span| span.start);
    let now = time(1_790_000_000_000);
    let mut history = slo::History::new(Duration::from_secs(30 * 86_400), spans, now);
    history.advance(now).into_iter().for_each(drop);
    let _ = (history.last_slot(), history.observe(now, Verdict::Good));
}
