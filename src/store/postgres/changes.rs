//! Changes as statements. Each may be said again, once it is known that it was not heard.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;

use super::link::Fault;
use super::rows::{json, text};
use crate::boots::KEPT;
use crate::journey::Name;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::ledger::Settled;
use crate::notice::Notification;
use crate::slo::SpanChange;
use crate::store::codes::{Kept, blob, micros, millis, settled_code, verdict_code, why_code};
use crate::store::{Change, OutboxRow};
use crate::time::Mono;

/// A statement with its values.
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Box<dyn ToSql + Send + Sync>>,
}

macro_rules! say {
    ($out:expr, $sql:expr $(, $value:expr)* $(,)?) => {
        $out.push(Statement { sql: $sql, values: vec![$(Box::new($value)),*] })
    };
}

/// The journeys that a change names: each needs its row id.
pub(super) fn journeys(change: &Change) -> Vec<&Name> {
    match change {
        Change::Expect { entry, .. } => vec![&entry.journey],
        Change::Run { report, .. } | Change::Evidence { report } => vec![&report.journey],
        Change::Amend { journey, .. }
        | Change::Spans { journey, .. }
        | Change::Alert { journey, .. }
        | Change::Relay { journey, .. } => vec![journey],
        Change::Incident { journeys, .. } => journeys.iter().collect(),
        Change::Begun { .. }
        | Change::Waits { .. }
        | Change::Arrived { .. }
        | Change::Settle { .. }
        | Change::Spend { .. }
        | Change::Condition { .. }
        | Change::Silence { .. }
        | Change::Unsilence { .. }
        | Change::Drill { .. }
        | Change::Owe { .. }
        | Change::Hold { .. }
        | Change::Own { .. }
        | Change::Boot { .. }
        | Change::Order { .. }
        | Change::Outbox { .. }
        | Change::Combine { .. }
        | Change::Heard { .. } => Vec::new(),
    }
}

/// What there is to know when changes are said.
pub(super) struct Saying<'a> {
    /// The row ids of their journeys.
    pub(super) ids: &'a HashMap<Name, i64>,
    /// Who writes, for whom it matters; empty where nobody else does.
    pub(super) writer: &'a str,
    /// The number of what is relayed next.
    pub(super) number: i64,
    /// It is now on the clock that arrivals are stamped by.
    pub(super) now: Mono,
}

/// Says `change` in SQL.
pub(super) fn say(change: &Change, saying: &mut Saying<'_>, out: &mut Vec<Statement>) -> Result<(), Fault> {
    let ids = saying.ids;
    let id = |name: &Name| ids.get(name).copied().ok_or_else(|| Fault::Refused(format!("journey {name} has no row")));
    match change {
        Change::Expect { token, entry } => say!(
            out,
            "INSERT INTO ledger (token, journey, slot, recorded, keep_until, settled) VALUES ($1, $2, $3, $4, $5, NULL)
                ON CONFLICT (token) DO UPDATE SET journey = excluded.journey, slot = excluded.slot,
                recorded = excluded.recorded, keep_until = excluded.keep_until, settled = NULL",
            bytes(*token),
            id(&entry.journey)?,
            millis(entry.slot),
            millis(entry.recorded),
            millis(entry.keep_until),
        ),
        Change::Begun { checkpoint } => say!(
            out,
            "INSERT INTO unfinished (token, slot, state) VALUES ($1, $2, $3)
                ON CONFLICT (token) DO UPDATE SET slot = excluded.slot, state = excluded.state",
            bytes(checkpoint.token),
            millis(checkpoint.slot),
            json(checkpoint)?,
        ),
        Change::Waits { checkpoint } => {
            say!(out, "UPDATE unfinished SET state = $2 WHERE token = $1", bytes(checkpoint.token), json(checkpoint)?,)
        }
        Change::Arrived { token, arrival } => {
            let message = json(arrival)?;
            let digest = Sha256::new().chain_update(blob(*token)).chain_update(&message).finalize().to_vec();
            say!(
                out,
                // The run may have had it, and ended, before this; and what another session says of its end waits for this.
                "INSERT INTO arrival (token, digest, message, shard, writer, came)
                    SELECT token, $2, $3, shard, $5, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $6
                    FROM ledger JOIN journey ON journey.id = ledger.journey
                    WHERE token = $1 AND settled IS DISTINCT FROM $4 FOR SHARE OF ledger ON CONFLICT (digest) DO NOTHING",
                bytes(*token),
                digest,
                message,
                settled_code(Settled::Arrived) as i16,
                owned(saying.writer),
                micros(saying.now.since(arrival.at.mono)),
            );
        }
        Change::Relay { journey, ended, document, is_belated: _ } => {
            say!(
                out,
                "INSERT INTO relay (writer, number, at, journey, document)
                    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $3, $4)",
                owned(saying.writer),
                saying.number,
                id(journey)?,
                owned(document),
            );
            saying.number += 1;
            if let Some(token) = ended {
                say!(out, "DELETE FROM unfinished WHERE token = $1", bytes(*token));
            }
        }
        Change::Heard { writer, number } => {
            say!(out, "DELETE FROM relay WHERE writer = $1 AND number = $2", owned(writer), *number);
        }
        Change::Settle { token, how } => {
            let how = settled_code(*how) as i16;
            say!(out, "UPDATE ledger SET settled = $2 WHERE token = $1", bytes(*token), how);
            say!(out, "DELETE FROM unfinished WHERE token = $1", bytes(*token));
            say!(out, "DELETE FROM arrival WHERE token = $1", bytes(*token));
        }
        Change::Run { report, keep_evidence } => {
            say!(
                out,
                "INSERT INTO run (journey, slot, verdict, why, latency, late_by) VALUES ($1, $2, $3, $4, $5, NULL)
                    ON CONFLICT (journey, slot) DO NOTHING",
                id(&report.journey)?,
                millis(report.slot),
                code(report.outcome.verdict()),
                why_code(&report.outcome) as i16,
                micros(report.latency),
            );
            if *keep_evidence {
                evidence(report, id(&report.journey)?, out)?;
            }
        }
        Change::Evidence { report } => evidence(report, id(&report.journey)?, out)?,
        Change::Amend { journey, slot, late_by } => say!(
            out,
            // A run in maintenance stays excluded.
            "UPDATE run SET verdict = CASE verdict WHEN $4 THEN verdict ELSE $5 END, late_by = $3
                WHERE journey = $1 AND slot = $2",
            id(journey)?,
            millis(*slot),
            micros(*late_by),
            code(Verdict::Excluded),
            code(Verdict::Late),
        ),
        Change::Spend { spent } => say!(
            out,
            "INSERT INTO spent (day, channel, journey, messages) VALUES ($1, $2, $3, $4)
                ON CONFLICT (day, channel, journey) DO UPDATE SET messages = spent.messages + excluded.messages",
            spent.day.to_string(),
            owned(&spent.channel),
            owned(&spent.journey),
            i64::try_from(spent.messages).unwrap_or(i64::MAX),
        ),
        Change::Spans { journey, changes } => {
            let journey = id(journey)?;
            for change in changes {
                match change {
                    SpanChange::Put(span) => say!(
                        out,
                        "INSERT INTO span (journey, start, step, count, verdict, excluded) VALUES ($1, $2, $3, $4, $5, $6)
                            ON CONFLICT (journey, start) DO UPDATE SET step = excluded.step, count = excluded.count,
                            verdict = excluded.verdict, excluded = excluded.excluded",
                        journey,
                        span.start,
                        span.step,
                        i64::from(span.count),
                        code(span.verdict),
                        span.excluded,
                    ),
                    SpanChange::Delete(start) => {
                        say!(out, "DELETE FROM span WHERE journey = $1 AND start = $2", journey, *start);
                    }
                }
            }
        }
        Change::Alert { journey, state } => {
            say!(out, "UPDATE journey SET alert = $2 WHERE id = $1", id(journey)?, json(state)?);
        }
        Change::Condition { subject, state } => say!(
            out,
            "INSERT INTO condition (subject, state) VALUES ($1, $2)
                ON CONFLICT (subject) DO UPDATE SET state = excluded.state",
            owned(&subject.to_string()),
            json(state)?,
        ),
        Change::Incident { row, open, journeys } => {
            say!(
                out,
                // What the first bad run said is what the incident is remembered by.
                "INSERT INTO incident
                    (id, subject, since, resolved, severity, detectors, summary, bad_runs, members, state)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET
                    subject = excluded.subject, resolved = excluded.resolved, severity = excluded.severity,
                    detectors = excluded.detectors, bad_runs = excluded.bad_runs, members = excluded.members,
                    state = excluded.state,
                    summary = CASE incident.summary WHEN '' THEN excluded.summary ELSE incident.summary END",
                owned(&row.id),
                owned(&row.subject),
                millis(row.since),
                row.resolved.map(millis),
                owned(&row.severity),
                json(&row.detectors)?,
                owned(&row.summary),
                i64::from(row.bad_runs),
                i64::from(row.members),
                open.as_ref().map(json).transpose()?,
            );
            for journey in journeys {
                say!(
                    out,
                    "INSERT INTO incident_journey (incident, journey) VALUES ($1, $2)
                        ON CONFLICT (incident, journey) DO NOTHING",
                    owned(&row.id),
                    id(journey)?,
                );
            }
        }
        Change::Combine { row, superseded } => {
            say!(
                out,
                "UPDATE outbox SET notification = $2, token = $3, created = $4, instead_of = $5, status = $6,
                    attempt = $7, not_before = $8 WHERE id = $1",
                owned(&row.id),
                json(&row.notification)?,
                shown(&row.notification),
                millis(row.created),
                row.instead_of.as_ref().map(json).transpose()?,
                row.state.status.as_str(),
                i64::from(row.state.attempt),
                millis(row.state.not_before),
            );
            let superseded: Vec<_> = superseded.iter().map(|id| owned(id)).collect();
            let error = format!("told by {}", text(&row.id));
            let sql = "UPDATE outbox SET status = 'superseded', error = $2 WHERE id = ANY($1)";
            say!(out, sql, superseded, error);
        }
        Change::Silence { silence } => say!(
            out,
            "INSERT INTO silence (id, until, state) VALUES ($1, $2, $3)
                ON CONFLICT (id) DO UPDATE SET until = excluded.until, state = excluded.state",
            owned(&silence.id),
            millis(silence.until),
            json(silence)?,
        ),
        Change::Unsilence { id } => say!(out, "DELETE FROM silence WHERE id = $1", owned(id)),
        Change::Drill { record } => say!(
            out,
            "INSERT INTO drill (id, journey, started, ended, state) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, state = excluded.state",
            owned(&record.id),
            owned(&record.journey),
            millis(record.started),
            record.ended.map(millis),
            json(record)?,
        ),
        Change::Owe { row } => owe(row, out)?,
        Change::Own { row } => {
            say!(out, "DELETE FROM outbox WHERE id = $1", owned(&row.id));
            owe(row, out)?;
        }
        Change::Boot { boot } => {
            say!(
                out,
                "INSERT INTO boot (id, started, alive, ended) VALUES ($1, $2, $3, $4) ON CONFLICT (id)
                    DO UPDATE SET started = excluded.started, alive = excluded.alive, ended = excluded.ended",
                boot.id,
                millis(boot.started),
                millis(boot.alive),
                boot.ended,
            );
            say!(out, "DELETE FROM boot WHERE id <= $1", boot.id - KEPT as i64);
        }
        Change::Hold { notifier, until } => say!(
            out,
            "INSERT INTO hold (notifier, until) VALUES ($1, $2)
                ON CONFLICT (notifier) DO UPDATE SET until = excluded.until",
            owned(notifier),
            millis(*until),
        ),
        Change::Order { what, order: Some(order) } => say!(
            out,
            "INSERT INTO wish (what, state) VALUES ($1, $2) ON CONFLICT (what) DO UPDATE SET state = excluded.state",
            owned(&what.to_string()),
            json(order)?,
        ),
        Change::Order { what, order: None } => {
            say!(out, "DELETE FROM wish WHERE what = $1", owned(&what.to_string()));
        }
        Change::Outbox { id, state } => say!(
            out,
            "UPDATE outbox SET status = $2, attempt = $3, not_before = $4, error = $5, receipt = $6, is_root = $7,
                at = $8 WHERE id = $1",
            owned(id),
            state.status.as_str(),
            i64::from(state.attempt),
            millis(state.not_before),
            state.error.as_deref().map(owned),
            state.receipt.as_ref().map(json).transpose()?,
            state.receipt.as_ref().is_some_and(|receipt| receipt.is_root),
            millis(state.at),
        ),
    }
    Ok(())
}

fn evidence(report: &Report, journey: i64, out: &mut Vec<Statement>) -> Result<(), Fault> {
    say!(
        out,
        "INSERT INTO evidence (token, journey, slot, is_good, report) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (token) DO UPDATE SET journey = excluded.journey, slot = excluded.slot,
            is_good = excluded.is_good, report = excluded.report",
        bytes(report.token),
        journey,
        millis(report.slot),
        report.outcome.verdict() == Verdict::Good,
        json(&Kept(report))?,
    );
    Ok(())
}

fn owe(row: &OutboxRow, out: &mut Vec<Statement>) -> Result<(), Fault> {
    say!(
        out,
        // What was given up of the same incident gets another chance before this, so that the order is kept: once, when this is
        // new.
        "UPDATE outbox SET status = 'pending', attempt = 0, not_before = $5, at = $5
            WHERE notifier = $2 AND incident = $3 AND sequence < $4 AND status = 'dead'
            AND NOT EXISTS (SELECT 1 FROM outbox AS this WHERE this.id = $1)",
        owned(&row.id),
        owned(&row.notifier),
        owned(&row.incident),
        i64::from(row.sequence),
        millis(row.created),
    );
    say!(
        out,
        // A notice that is owed already, by the same decision before a crash, is not owed twice.
        "INSERT INTO outbox (id, incident, sequence, notifier, instead_of, created, notification, token, status, attempt,
            not_before, error, receipt, is_root, at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (id) DO NOTHING",
        owned(&row.id),
        owned(&row.incident),
        i64::from(row.sequence),
        owned(&row.notifier),
        row.instead_of.as_ref().map(json).transpose()?,
        millis(row.created),
        json(&row.notification)?,
        shown(&row.notification),
        row.state.status.as_str(),
        i64::from(row.state.attempt),
        millis(row.state.not_before),
        row.state.error.as_deref().map(owned),
        row.state.receipt.as_ref().map(json).transpose()?,
        row.state.receipt.as_ref().is_some_and(|receipt| receipt.is_root),
        millis(row.state.at),
    );
    Ok(())
}

/// The run that a notice shows.
fn shown(notification: &Notification) -> Option<Vec<u8>> {
    notification.report.as_ref().map(|report| bytes(report.token))
}

fn owned(plain: &str) -> String {
    text(plain).into_owned()
}

fn bytes(token: Token) -> Vec<u8> {
    blob(token).to_vec()
}

/// A verdict as its column has it.
pub(super) fn code(verdict: Verdict) -> i16 {
    verdict_code(verdict) as i16
}
