//! What stands at a notifier that forgets: told again and again while its incident is open, and for a while after it is over.
//!
//! What is told again is the last notice that the notifier took. After a restart it is read from the outbox.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Subject;
use crate::board::{BEAT, Pulse};
use crate::delivery::Worker;
use crate::incident::NotifyReason;
use crate::journey::Name;
use crate::notice::Notification;
use crate::notifier::NotifyError;
use crate::store::{IncidentRow, OutboxRow, OutboxStatus};
use crate::time::{Mono, between};

/// An end is told again for so long, as Prometheus does: an instance that was away has missed it.
const RETELL_END: Duration = Duration::from_secs(15 * 60);
/// Of the newest notices and incidents, so many are looked through.
const LOOK_BACK: usize = 1_000;

/// What one notifier was told last about each incident.
pub(super) struct Standing {
    every: Duration,
    next: Mono,
    told: BTreeMap<String, Told>,
    is_failing: bool,
}

struct Told {
    sequence: u32,
    at: Timestamp,
    notification: Notification,
}

impl Standing {
    pub(super) fn new(every: Duration) -> Standing {
        Standing { every, next: Mono::default(), told: BTreeMap::new(), is_failing: false }
    }

    /// The notifier took this at `at`.
    pub(super) fn took(&mut self, row: &OutboxRow, at: Timestamp) {
        if self.told.get(&row.incident).is_none_or(|told| told.sequence <= row.sequence) {
            let told = Told { sequence: row.sequence, at, notification: row.notification.clone() };
            self.told.insert(row.incident.clone(), told);
        }
    }

    /// Forgets what stands no longer: an end that was told often enough, an incident that is over or whose journey is gone. Of the
    /// last two the notifier learns when it expires, unless a notice of the end is on its way.
    fn keep_open(&mut self, incidents: &[IncidentRow], is_watched: impl Fn(&Subject) -> bool, now: Timestamp) {
        self.told.retain(|incident, told| {
            if told.notification.reason == NotifyReason::Resolved {
                return between(told.at, now) < RETELL_END;
            }
            let row = incidents.iter().find(|row| row.id == *incident);
            row.is_none_or(|row| row.resolved.is_none() && is_watched(&Subject::from(&*row.subject)))
        });
    }

    /// Says when telling again begins to fail, and when it works again.
    fn note(&mut self, notifier: &Name, result: Result<(), NotifyError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        match (result, was_failing) {
            (Err(error), false) => {
                tracing::error!(%notifier, %error, "cannot tell again what stands; the other side may take it for over");
            }
            (Ok(()), true) => tracing::info!(%notifier, "what stands is told again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
    }
}

impl Worker {
    /// Remembers what the notifier was told before this start.
    pub(super) async fn restore_standing(&mut self) {
        let Some(standing) = &mut self.standing else { return };
        let sent = match self.store.outbox(Some(OutboxStatus::Sent), None, LOOK_BACK).await {
            Ok(sent) => sent,
            Err(error) => {
                tracing::warn!(notifier = %self.name, %error, "cannot look up what was told; it is not told again until the next notice");
                return;
            }
        };
        for row in sent.iter().filter(|row| row.notifier == self.name) {
            standing.took(row, row.state.at);
        }
        // The evaluator has yet to say which journeys there are.
        standing.next = self.clock.now().mono + standing.every;
    }

    /// Tells again what stands, if it is time. Gives how long it is until then.
    pub(super) async fn retell(&mut self, pulse: &Pulse) -> Duration {
        let now = self.clock.now();
        if self.hold.is_some_and(|until| until > now.wall) || self.is_open() {
            return BEAT;
        }
        // Taken out, because the worker tells.
        let Some(mut standing) = self.standing.take() else { return BEAT };
        if standing.next <= now.mono {
            standing.next = now.mono + standing.every;
            // A store that cannot be read ends nothing.
            if !standing.told.is_empty()
                && let Ok(incidents) = self.store.incidents(None, None, LOOK_BACK).await
            {
                let is_watched =
                    |subject: &Subject| subject.journey().is_none_or(|journey| self.board.journey(journey).is_some());
                standing.keep_open(&incidents, is_watched, now.wall);
            }
            let told: Vec<_> = standing.told.values().map(|told| told.notification.clone()).collect();
            if !told.is_empty() {
                let result = self.bounded(pulse, self.notifier.retell(&told)).await;
                standing.note(&self.name, result);
            }
        }
        let wait = standing.next.since(now.mono);
        self.standing = Some(standing);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn what_stands_is_kept_until_it_is_over_and_its_end_for_a_quarter_of_an_hour() {
        let at = |second| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let incident = |id: &str, journey: &str, resolved: Option<i64>| IncidentRow {
            id: id.into(),
            subject: journey.into(),
            since: at(0),
            resolved: resolved.map(at),
            severity: "critical".into(),
            detectors: Vec::new(),
            summary: String::new(),
            bad_runs: 3,
            members: 1,
        };
        let incidents = [
            incident("open", "sms", None),
            incident("over", "sms", Some(50)),
            incident("gone", "deleted", None),
            incident("told", "sms", Some(50)),
        ];
        let mut standing = Standing::new(Duration::from_secs(60));
        for id in ["open", "over", "gone", "unrecorded"] {
            standing.took(&conformance::row(id, 1, "am", 0), at(0));
        }
        let mut end = conformance::row("told", 2, "am", 50);
        end.notification.reason = NotifyReason::Resolved;
        standing.took(&end, at(60));
        // As after a restart, when the outbox is read newest first.
        standing.took(&conformance::row("told", 1, "am", 0), at(0));
        for (second, expected) in [(959, vec!["open", "told", "unrecorded"]), (960, vec!["open", "unrecorded"])] {
            standing.keep_open(&incidents, |subject| subject.to_string() == "sms", at(second));
            assert_eq!(standing.told.keys().collect::<Vec<_>>(), expected);
        }
    }
}
