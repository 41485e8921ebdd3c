//! What was decided, on disk, or told without it: people do not wait for a disk to hear that something is down.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{Evaluator, Round, STORAGE, notices};
use crate::alert::Subject;
use crate::detect::{Detector, Severity};
use crate::incident::{Incident, NotifyReason, Root};
use crate::journey::Name;
use crate::scheduler::Observation;
use crate::store::spool::Unsaid;
use crate::store::{Change, OutboxRow, StoreError};
use crate::time::between;

/// A store that said no is asked again this often.
pub(super) const RETRY_STORE: Duration = Duration::from_secs(1);
/// A commit that takes so long may never be done: what is in it is kept on disk meanwhile.
const SLOW: Duration = Duration::from_secs(1);
/// People hear of a store that fails again and again this often at most.
const TELL_STORE_AGAIN: Duration = Duration::from_secs(3_600);
/// While the store says no, this many changes are kept in memory; the oldest evidence goes first beyond that.
const KEPT_CHANGES: usize = 100_000;

impl Evaluator {
    pub(super) async fn commit(&mut self, round: &mut Round) {
        let had_unwritten = !self.unwritten.is_empty();
        let mut changes = round.take_changes();
        if changes.is_empty() && !had_unwritten {
            return;
        }
        self.unwritten.append(&mut changes);
        let before = self.parts.clock.now();
        // An attempt costs as much as all that is unwritten, and a disk that was full a moment ago is full.
        if self.store_failed.is_some() && before.mono.since(self.store_tried) < RETRY_STORE {
            return self.go_without_store(round).await;
        }
        if self.store_failed.is_some() {
            // An attempt may take seconds.
            self.spool().await;
        }
        self.store_tried = before.mono;
        let store = self.parts.store.clone();
        let mut attempt = store.apply(self.unwritten.clone());
        let result = match tokio::time::timeout(SLOW, &mut attempt).await {
            Ok(result) => result,
            Err(_) => {
                self.spool().await;
                attempt.await
            }
        };
        let now = self.parts.clock.now();
        self.parts.daemon.store_commit.record(now.mono.since(before.mono).as_secs_f64());
        match result {
            Ok(()) => {
                self.unwritten.clear();
                self.told_alone.clear();
                self.store_works(now.wall);
                self.unspool().await;
                if !round.owed.is_empty() || had_unwritten || round.is_own {
                    self.parts.outbox.wake();
                }
            }
            // Whoever has taken over decides the same, and tells of it.
            Err(StoreError::Fenced(_)) => {
                self.spool().await;
                self.shed();
            }
            Err(error) => {
                self.store_fails(&error, now.wall);
                self.go_without_store(round).await;
            }
        }
    }

    /// Nobody waits for a disk to hear that something is down.
    async fn go_without_store(&mut self, round: &Round) {
        for row in &round.owed {
            if row.sequence == 1 {
                self.told_alone.insert(row.incident.clone());
            }
            self.parts.outbox.tell_without_store(row.clone());
        }
        self.spool().await;
        self.shed();
    }

    /// Has the runs that are unwritten on the spool's disk: a process that is killed leaves them to the next.
    pub(super) async fn spool(&mut self) {
        let Some(spool) = &self.parts.spool else { return };
        let of_run = |change: &Change| match change {
            Change::Run { report, .. } => unsaid(&Observation::Finished(report.clone())),
            _ => None,
        };
        let runs: Vec<_> = self.unwritten.iter().skip(self.spooled).filter_map(of_run).collect();
        self.spooled = self.unwritten.len();
        if let Err(error) = spool.keep(runs).await {
            tracing::error!(%error, "what was decided could not be kept on disk: it is in memory alone");
        }
    }

    /// The store has all that was on the spool's disk.
    pub(super) async fn unspool(&mut self) {
        if std::mem::take(&mut self.spooled) > 0
            && let Some(spool) = &self.parts.spool
            && let Err(error) = spool.clear().await
        {
            tracing::error!(%error, "what the store has could not be removed from the disk: it is said twice");
        }
    }

    fn store_works(&mut self, now: Timestamp) {
        if let Some(since) = self.store_failed.take() {
            tracing::info!(after_seconds = between(since, now).as_secs(), "the store takes commits again");
            for row in self.end_store_story(None, now) {
                self.parts.outbox.tell_without_store(row);
            }
        }
        self.parts.daemon.store_up.set(1.0);
        self.parts.board.set_component("store", true, true, "takes commits", now);
        self.parts.board.worked("store", self.parts.clock.now());
    }

    fn store_fails(&mut self, error: &StoreError, now: Timestamp) {
        if self.store_failed.is_none() {
            self.store_failed = Some(now);
            tracing::error!(%error, "the store does not take commits; decisions are kept in memory and people are told directly");
            // A disk that is full again and again is one story.
            if self.store_told.is_none_or(|told| between(told, now) >= TELL_STORE_AGAIN) {
                self.store_told = Some(now);
                self.tell_about_store(error, now);
            }
        }
        self.parts.daemon.store_up.set(0.0);
        self.parts.board.set_component("store", false, true, error.to_string(), now);
    }

    /// The daemon's own storage alert. It cannot go through the store, so it goes without.
    fn tell_about_store(&mut self, error: &StoreError, now: Timestamp) {
        let subject = Subject::Daemon(STORAGE.into());
        let incident = Incident {
            detectors: [Detector::Storage].into(),
            severity: Severity::Critical,
            worst: Severity::Critical,
            sequence: 1,
            members: 1,
            firing: 1,
            ..Incident::new(format!("storage-{}", now.as_second()), now, Root::Alone(subject))
        };
        let decision = format!("{error}; runs are unknown until it can write, alerts are sent without it");
        let mut notification = self.bare_notification(NotifyReason::First, &incident, decision, now);
        // It is on no disk, so it has no page of its own.
        notification.link = self.address(&["incidents"]);
        for notifier in self.everyone() {
            self.parts.outbox.tell_without_store(notices::owed(&incident, notifier, &notification, now));
        }
        // Where there is a server, it is not our disk: that it is over is for others to see.
        self.store_story = Some(incident).filter(|_| self.parts.store.is_shared());
    }

    /// The notices that end the story of a store that took no commits, if it was told.
    pub(super) fn end_store_story(&mut self, handed_over: Option<&str>, now: Timestamp) -> Vec<OutboxRow> {
        let Some(mut incident) = self.store_story.take() else { return Vec::new() };
        incident.sequence += 1;
        let decision = handed_over.unwrap_or("it takes commits again").to_owned();
        let mut notification = self.bare_notification(NotifyReason::Resolved, &incident, decision, now);
        notification.handed_over = handed_over.map(str::to_owned);
        notification.link = self.address(&["incidents"]);
        let row = |notifier| notices::owed(&incident, notifier, &notification, now);
        self.everyone().into_iter().map(row).collect()
    }

    /// Everybody who is told of any journey, and the operators.
    pub(super) fn everyone(&self) -> BTreeSet<Name> {
        let told = self.journeys.values().flat_map(|watched| watched.journey.notify.iter().cloned());
        told.chain(self.parts.policy.operators.iter().cloned()).collect()
    }

    /// Keeps memory bounded while the store says no: evidence goes, state stays.
    fn shed(&mut self) {
        if self.unwritten.len() > KEPT_CHANGES {
            self.unwritten
                .retain(|change| !matches!(change, Change::Run { .. } | Change::Expect { .. } | Change::Settle { .. }));
            let excess = self.unwritten.len().saturating_sub(KEPT_CHANGES);
            self.unwritten.drain(..excess);
            // All of it has been on its way to the disk.
            self.spooled = self.unwritten.len();
            tracing::error!("too much is unwritten: evidence of runs was dropped");
        }
    }
}

/// What whoever decides has to hear of it; nothing of what is about this daemon alone.
pub fn unsaid(observation: &Observation) -> Option<Unsaid> {
    let journey = match observation {
        Observation::TakenUp { journeys, .. } => journeys.first(),
        other => other.journey(),
    };
    let ended = match observation {
        Observation::Finished(report)
        | Observation::Belated(report)
        | Observation::Confirmed(report)
        | Observation::Repeated(report)
        | Observation::Asked { report, .. } => Some(report.token),
        _ => None,
    };
    let document = serde_json::to_string(observation).ok()?;
    Some(Unsaid { journey: journey?.clone(), ended, document, is_good: observation.is_well() })
}
