//! The writing side: one transaction for every batch that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::tz::TimeZone;
use rusqlite::{Connection, ToSql};

use crate::boots::KEPT;
use crate::journey::Name;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::ledger::Settled;
use crate::slo::SpanChange;
use crate::store::codes::{blob, micros, millis, settled_code, verdict_code, why_code};
use crate::store::sqlite::evidence;
use crate::store::sqlite::lock::Lock;
use crate::store::sqlite::rows::{json, spent_key};
use crate::store::sqlite::{Answer, noted};
use crate::store::{Change, KEEP_SPENT, OutboxRow, Retention};
use crate::time::earlier;

/// The writing connection.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Journeys' row ids by name.
    pub(super) journeys: HashMap<Name, i64>,
    pub(super) lock: Arc<Lock>,
    /// How often the outbox has changed.
    pub(super) outbox: Arc<AtomicU64>,
}

impl Writer {
    /// Commits every batch of the group, or none; answers each caller.
    pub(super) fn commit(&mut self, group: &mut Vec<(Vec<Change>, Answer<()>)>) {
        if group.is_empty() {
            return;
        }
        let result =
            self.commit_all(group.iter().flat_map(|(batch, _)| batch)).map_err(|error| noted(&self.lock, error));
        if let Err(error) = &result {
            // Ids that were given in a transaction that is no more.
            self.journeys.clear();
            // Whoever asked for it says what follows from that, and does not say it with every attempt.
            tracing::debug!(%error, batches = group.len(), "the store did not take a commit");
        }
        if group.iter().any(|(batch, _)| batch.iter().any(Change::is_of_outbox)) {
            self.note_outbox();
        }
        for (_, answer) in group.drain(..) {
            let _ = answer.send(result.clone());
        }
    }

    /// Whoever remembers what was in the outbox has to ask again.
    pub(super) fn note_outbox(&self) {
        self.outbox.fetch_add(1, Ordering::Release);
    }

    fn commit_all<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE", &[])?;
        let applied = changes.into_iter().try_for_each(|change| self.apply(change));
        match applied.and_then(|()| self.execute("COMMIT", &[])) {
            Ok(_) => Ok(()),
            Err(error) => {
                // SQLite may have rolled back by itself already (disk full); then there is nothing left to undo.
                let _ = self.connection.execute_batch("ROLLBACK");
                Err(error)
            }
        }
    }

    pub(super) fn execute(&self, sql: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    fn apply(&mut self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Expect { token, entry } => {
                let journey = self.journey_id(&entry.journey)?;
                self.execute(
                    "INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, NULL)",
                    &[&blob(*token), &journey, &millis(entry.slot), &millis(entry.recorded), &millis(entry.keep_until)],
                )?;
            }
            Change::Begun { checkpoint } => {
                let row: [&dyn ToSql; 3] = [&blob(checkpoint.token), &millis(checkpoint.slot), &json(checkpoint)?];
                self.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?)", &row)?;
            }
            Change::Waits { checkpoint } => {
                let sql = "UPDATE unfinished SET state = ? WHERE token = ?";
                self.execute(sql, &[&json(checkpoint)?, &blob(checkpoint.token)])?;
            }
            Change::Arrived { token, arrival } => {
                // The run may have had it, and ended, before this.
                let sql = "INSERT INTO arrival (token, message) SELECT token, ?2 FROM ledger
                    WHERE token = ?1 AND settled IS NOT ?3";
                self.execute(sql, &[&blob(*token), &json(arrival)?, &settled_code(Settled::Arrived)])?;
            }
            Change::Settle { token, how } => {
                let (how, token) = (settled_code(*how), blob(*token));
                self.execute("UPDATE ledger SET settled = ? WHERE token = ?", &[&how, &token])?;
                self.execute("DELETE FROM unfinished WHERE token = ?", &[&token])?;
                self.execute("DELETE FROM arrival WHERE token = ?", &[&token])?;
            }
            Change::Run { report, keep_evidence } => self.apply_run(report, *keep_evidence)?,
            Change::Evidence { report } => self.apply_evidence(report)?,
            Change::Amend { journey, slot, late_by } => {
                let journey = self.journey_id(journey)?;
                self.execute(
                    // A run in maintenance stays excluded.
                    "UPDATE run SET outcome = CASE verdict WHEN ? THEN outcome ELSE (outcome & ~7) | ? END, late_by = ?
                        WHERE journey = ? AND slot = ?",
                    &[
                        &verdict_code(Verdict::Excluded),
                        &verdict_code(Verdict::Late),
                        &micros(*late_by),
                        &journey,
                        &millis(*slot),
                    ],
                )?;
            }
            Change::Spend { spent } => {
                self.execute(
                    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value",
                    &[&spent_key(spent), &i64::try_from(spent.messages).unwrap_or(i64::MAX)],
                )?;
            }
            Change::Spans { journey, changes } => {
                let journey = self.journey_id(journey)?;
                for change in changes {
                    match change {
                        SpanChange::Put(span) => self.execute(
                            "INSERT OR REPLACE INTO span VALUES (?, ?, ?, ?, ?, ?)",
                            &[
                                &journey,
                                &span.start,
                                &span.step,
                                &span.count,
                                &verdict_code(span.verdict),
                                &span.excluded,
                            ],
                        )?,
                        SpanChange::Delete(start) => {
                            self.execute("DELETE FROM span WHERE journey = ? AND start = ?", &[&journey, start])?
                        }
                    };
                }
            }
            Change::Alert { journey, state } => {
                let journey = self.journey_id(journey)?;
                self.execute("UPDATE journey SET alert = ? WHERE id = ?", &[&json(state)?, &journey])?;
            }
            Change::Condition { subject, state } => {
                self.execute("INSERT OR REPLACE INTO condition VALUES (?, ?)", &[&subject.to_string(), &json(state)?])?;
            }
            Change::Incident { row, open, journeys } => {
                self.execute(
                    // What the first bad run said is what the incident is remembered by.
                    "INSERT INTO incident VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
                        subject = excluded.subject, resolved = excluded.resolved, severity = excluded.severity,
                        detectors = excluded.detectors, bad_runs = excluded.bad_runs, members = excluded.members,
                        state = excluded.state, summary = CASE summary WHEN '' THEN excluded.summary ELSE summary END",
                    &[
                        &row.id,
                        &row.subject,
                        &millis(row.since),
                        &row.resolved.map(millis),
                        &row.severity,
                        &json(&row.detectors)?,
                        &row.summary,
                        &row.bad_runs,
                        &row.members,
                        &open.as_ref().map(json).transpose()?,
                    ],
                )?;
                for journey in journeys {
                    let journey = self.journey_id(journey)?;
                    self.execute("INSERT OR IGNORE INTO incident_journey VALUES (?, ?)", &[&row.id, &journey])?;
                }
            }
            Change::Combine { row, superseded } => {
                self.execute(
                    "UPDATE outbox SET notification = ?, created = ?, instead_of = ?, status = ?, attempt = ?, not_before = ? WHERE id = ?",
                    &[
                        &json(&row.notification)?,
                        &millis(row.created),
                        &row.instead_of.as_ref().map(json).transpose()?,
                        &row.state.status.as_str(),
                        &row.state.attempt,
                        &millis(row.state.not_before),
                        &row.id,
                    ],
                )?;
                for id in superseded {
                    let error = format!("told by {}", row.id);
                    self.execute("UPDATE outbox SET status = 'superseded', error = ? WHERE id = ?", &[&error, id])?;
                }
            }
            Change::Silence { silence } => {
                let row: [&dyn rusqlite::ToSql; 3] = [&silence.id, &millis(silence.until), &json(silence)?];
                self.execute("INSERT OR REPLACE INTO silence VALUES (?, ?, ?)", &row)?;
            }
            Change::Unsilence { id } => {
                self.execute("DELETE FROM silence WHERE id = ?", &[id])?;
            }
            Change::Drill { record } => {
                self.execute(
                    "INSERT OR REPLACE INTO drill VALUES (?, ?, ?, ?, ?)",
                    &[
                        &record.id,
                        &&*record.journey,
                        &millis(record.started),
                        &record.ended.map(millis),
                        &json(record)?,
                    ],
                )?;
            }
            Change::Owe { row } => self.apply_owed(row)?,
            Change::Own { row } => {
                self.execute("DELETE FROM outbox WHERE id = ?", &[&row.id])?;
                self.apply_owed(row)?;
            }
            Change::Boot { boot } => {
                self.execute(
                    "INSERT OR REPLACE INTO boot VALUES (?, ?, ?, ?)",
                    &[&boot.id, &millis(boot.started), &millis(boot.alive), &boot.ended],
                )?;
                self.execute("DELETE FROM boot WHERE id <= ? - ?", &[&boot.id, &(KEPT as i64)])?;
            }
            Change::Hold { notifier, until } => {
                let key = format!("hold:{notifier}");
                self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", &[&key, &millis(*until)])?;
            }
            Change::Order { what, order: Some(order) } => {
                self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", &[&format!("order:{what}"), &json(order)?])?;
            }
            Change::Order { what, order: None } => {
                self.execute("DELETE FROM meta WHERE key = ?", &[&format!("order:{what}")])?;
            }
            Change::Relay { .. } | Change::Heard { .. } => debug_assert!(false, "refused before it is queued"),
            Change::Outbox { id, state } => {
                self.execute(
                    "UPDATE outbox SET status = ?, attempt = ?, not_before = ?, error = ?, receipt = ?, at = ? WHERE id = ?",
                    &[
                        &state.status.as_str(),
                        &state.attempt,
                        &millis(state.not_before),
                        &state.error,
                        &state.receipt.as_ref().map(json).transpose()?,
                        &millis(state.at),
                        id,
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn apply_run(&mut self, report: &Report, keep_evidence: bool) -> rusqlite::Result<()> {
        let journey = self.journey_id(&report.journey)?;
        let outcome = verdict_code(report.outcome.verdict()) + 8 * why_code(&report.outcome);
        self.execute(
            "INSERT OR IGNORE INTO run VALUES (?, ?, ?, ?, NULL)",
            &[&journey, &millis(report.slot), &outcome, &micros(report.latency)],
        )?;
        if keep_evidence { self.apply_evidence(report) } else { Ok(()) }
    }

    fn apply_evidence(&mut self, report: &Report) -> rusqlite::Result<()> {
        let journey = self.journey_id(&report.journey)?;
        let is_good = report.outcome.verdict() == Verdict::Good;
        self.execute(
            "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?, ?)",
            &[&blob(report.token), &journey, &millis(report.slot), &is_good, &evidence::kept(report)?],
        )?;
        Ok(())
    }

    fn apply_owed(&self, row: &OutboxRow) -> rusqlite::Result<()> {
        // A notice that is owed already, by the same decision before a crash, is not owed twice.
        let added = self.execute(
            "INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &[
                &row.id,
                &row.incident,
                &row.sequence,
                &&*row.notifier,
                &row.instead_of.as_ref().map(json).transpose()?,
                &millis(row.created),
                &json(&row.notification)?,
                &row.state.status.as_str(),
                &row.state.attempt,
                &millis(row.state.not_before),
                &row.state.error,
                &row.state.receipt.as_ref().map(json).transpose()?,
                &millis(row.state.at),
            ],
        )?;
        if added > 0 {
            // What was given up of the same incident gets another chance before this, so that the order is kept.
            self.execute(
                "UPDATE outbox SET status = 'pending', attempt = 0, not_before = ?1, at = ?1
                    WHERE notifier = ?2 AND incident = ?3 AND sequence < ?4 AND status = 'dead'",
                &[&millis(row.created), &&*row.notifier, &row.incident, &row.sequence],
            )?;
        }
        Ok(())
    }

    fn journey_id(&mut self, name: &Name) -> rusqlite::Result<i64> {
        if let Some(id) = self.journeys.get(name) {
            return Ok(*id);
        }
        self.execute("INSERT OR IGNORE INTO journey (name) VALUES (?)", &[&&**name])?;
        let id = self.connection.query_row("SELECT id FROM journey WHERE name = ?", [&**name], |row| row.get(0))?;
        self.journeys.insert(name.clone(), id);
        Ok(id)
    }

    pub(super) fn key(&mut self) -> rusqlite::Result<[u8; 32]> {
        let mut fresh = [0u8; 32];
        getrandom::fill(&mut fresh).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.execute("INSERT OR IGNORE INTO meta VALUES ('key', ?)", &[&fresh.as_slice()])?;
        self.connection.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0))
    }

    pub(super) fn forget(&mut self, retention: Retention) -> rusqlite::Result<u64> {
        let runs = millis(retention.runs_before);
        let transaction = self.connection.transaction()?;
        let mut gone = 0;
        let statements: [(&str, i64); 9] = [
            ("DELETE FROM run WHERE slot < ?", runs),
            ("DELETE FROM evidence WHERE slot < ?", runs),
            ("DELETE FROM evidence WHERE is_good AND slot < ?", millis(retention.good_evidence_before)),
            // A run that goes on needs its entry, however long nobody was there.
            (
                "DELETE FROM ledger WHERE keep_until < ? AND token NOT IN (SELECT token FROM unfinished)",
                millis(retention.ledger_before),
            ),
            ("DELETE FROM arrival WHERE ?1 NOTNULL AND token NOT IN (SELECT token FROM ledger)", runs),
            ("DELETE FROM incident WHERE resolved < ?", runs),
            ("DELETE FROM silence WHERE until < ?", runs),
            ("DELETE FROM drill WHERE ended < ?", runs),
            ("DELETE FROM outbox WHERE status IN ('sent', 'superseded', 'dead') AND created < ?", runs),
        ];
        for (sql, before) in statements {
            gone += transaction.execute(sql, [before])? as u64;
        }
        gone += transaction.execute(
            "DELETE FROM incident_journey WHERE NOT EXISTS (SELECT 1 FROM incident WHERE incident.id = incident)",
            [],
        )? as u64;
        // Any zone's day of today is later than this.
        let day = earlier(retention.ledger_before, KEEP_SPENT).to_zoned(TimeZone::UTC).date();
        let sql = "DELETE FROM meta WHERE key >= 'spent:' AND key < ?";
        gone += transaction.execute(sql, [format!("spent:{day}")])? as u64;
        transaction.commit()?;
        self.note_outbox();
        Ok(gone)
    }
}
