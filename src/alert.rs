//! Alert state: from outcomes to incidents, and the decision whom to tell what.
//!
//! `ok → suspect → firing → recovering → ok`. An incident is one firing, from the first bad run to the resolution; the detectors
//! that hold it open may change, its severity is the worst of them. Everything here is a function of (state, event, now).

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::outcome::{Verdict, labelled};
use crate::journey::schedule::fnv1a;
use crate::journey::{AlertPolicy, Name};
use crate::time::{between, later};

labelled! {
    /// What can be wrong with a journey.
    Detector {
        /// So many failed runs in a row.
        Down = "down",
        /// So many slow runs in a row.
        Slow = "slow",
        /// No verdict for two intervals.
        Stale = "stale",
    }
}

labelled! {
    /// How bad an incident is.
    Severity {
        /// Look at it today.
        Warning = "warning",
        /// Get up.
        Critical = "critical",
    }
}

labelled! {
    /// Why people are told.
    NotifyReason {
        /// The incident begins.
        First = "first",
        /// It is worse than what they were told.
        Worse = "worse",
        /// It still goes on.
        Repeat = "repeat",
        /// It is over.
        Resolved = "resolved",
    }
}

impl Detector {
    /// How bad it is when this detector fires.
    pub fn severity(self) -> Severity {
        match self {
            Detector::Down => Severity::Critical,
            Detector::Slow | Detector::Stale => Severity::Warning,
        }
    }
}

/// One firing, from the first bad run to the resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable over restarts: made from the journey's name and the first bad slot.
    pub id: String,
    /// The first bad slot.
    pub since: Timestamp,
    /// What holds it open.
    pub detectors: BTreeSet<Detector>,
    /// The worst that it has been.
    pub worst: Severity,
    /// What people were told last.
    pub told: Option<Told>,
    /// How often people were told; numbers the notices.
    pub sequence: u32,
    /// Bad runs so far.
    pub bad_runs: u32,
}

/// What people were told last about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// With which severity.
    pub severity: Severity,
}

/// Where a journey's alert stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AlertPhase {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// Something was bad, not often enough to tell anyone.
    Suspect {
        /// The first bad slot.
        since: Timestamp,
    },
    /// People are to know.
    Firing {
        /// The incident.
        incident: Incident,
    },
    /// Good again, not yet often enough.
    Recovering {
        /// The incident.
        incident: Incident,
    },
}

impl AlertPhase {
    /// The state's name.
    pub fn as_str(&self) -> &'static str {
        match self {
            AlertPhase::Ok => "ok",
            AlertPhase::Suspect { .. } => "suspect",
            AlertPhase::Firing { .. } => "firing",
            AlertPhase::Recovering { .. } => "recovering",
        }
    }

    /// The open incident.
    pub fn incident(&self) -> Option<&Incident> {
        match self {
            AlertPhase::Firing { incident } | AlertPhase::Recovering { incident } => Some(incident),
            AlertPhase::Ok | AlertPhase::Suspect { .. } => None,
        }
    }
}

/// A journey's alert: plain data, saved with every change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertState {
    /// Where it stands.
    pub phase: AlertPhase,
    /// Failed runs in a row.
    pub failed: u32,
    /// Slow runs in a row.
    pub slow: u32,
    /// Delivered runs in a row, slow or not.
    pub delivered: u32,
    /// Good runs in a row.
    pub good: u32,
    /// The first bad slot of the present trouble, while nothing fires.
    pub bad_since: Option<Timestamp>,
    /// When there last was a verdict, or when we began to wait for one. Not saved: a restart begins to wait anew.
    #[serde(skip)]
    pub heard: Option<Timestamp>,
}

/// What happens to an alert.
#[derive(Clone, Copy, Debug)]
pub enum AlertEvent {
    /// A slot got its verdict.
    Verdict {
        /// The slot.
        slot: Timestamp,
        /// Its verdict.
        verdict: Verdict,
    },
    /// Time passed.
    Tick,
}

/// What an alert asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum AlertAction {
    /// Tell people.
    Notify {
        /// Why.
        reason: NotifyReason,
        /// The incident as it stands, its sequence already that of this notice.
        incident: Incident,
    },
    /// The incident is over, told or not.
    Closed {
        /// The incident as it ended.
        incident: Incident,
    },
}

/// What the alert needs to know of its journey.
#[derive(Clone, Debug)]
pub struct AlertRules {
    /// The journey, for incident ids.
    pub journey: Name,
    /// The policy.
    pub policy: AlertPolicy,
    /// No verdict for this long is *stale*.
    pub stale_after: Duration,
    /// Nobody is told that it fires.
    pub muted: bool,
}

impl AlertState {
    /// Waits for verdicts from `now` on: after a start, silence while we were not running is not the journey's.
    pub fn resume(&mut self, now: Timestamp) {
        self.heard = Some(now);
    }

    /// Takes one event; says what to do.
    pub fn step(&mut self, event: AlertEvent, rules: &AlertRules, now: Timestamp) -> Vec<AlertAction> {
        if let AlertEvent::Verdict { slot, verdict } = event {
            self.count(slot, verdict, &rules.policy, now);
        }
        if self.is_silent(rules, now) {
            (self.good, self.delivered) = (0, 0);
        }
        let active = self.detect(rules, now);
        let mut actions = Vec::new();
        self.phase = match std::mem::take(&mut self.phase) {
            AlertPhase::Ok | AlertPhase::Suspect { .. } if !active.is_empty() => {
                let since = self.bad_since.or(self.heard).unwrap_or(now);
                AlertPhase::Firing { incident: open(&rules.journey, since, active, self.failed.max(self.slow)) }
            }
            AlertPhase::Ok | AlertPhase::Suspect { .. } => match self.bad_since {
                Some(since) => AlertPhase::Suspect { since },
                None => AlertPhase::Ok,
            },
            AlertPhase::Firing { mut incident } | AlertPhase::Recovering { mut incident } => {
                if matches!(event, AlertEvent::Verdict { verdict: Verdict::Failed | Verdict::Slow, .. }) {
                    incident.bad_runs += 1;
                }
                // Delivered again, yet slow: whether that is well is for the slow detector to say.
                if !(active.is_empty() && self.slow > 0) {
                    incident.detectors = active;
                }
                incident.worst = severity(&incident.detectors).map_or(incident.worst, |now| now.max(incident.worst));
                if incident.detectors.is_empty() {
                    self.bad_since = None;
                    actions.extend(close(incident, now));
                    AlertPhase::Ok
                } else if self.good > 0 {
                    AlertPhase::Recovering { incident }
                } else {
                    AlertPhase::Firing { incident }
                }
            }
        };
        match &mut self.phase {
            AlertPhase::Firing { incident } => actions.extend(tell(incident, rules, rules.policy.remind, now)),
            // Nobody is reminded of what is getting well.
            AlertPhase::Recovering { incident } => actions.extend(tell(incident, rules, None, now)),
            AlertPhase::Ok | AlertPhase::Suspect { .. } => {}
        }
        actions
    }

    /// When [`AlertEvent::Tick`] is next due.
    pub fn deadline(&self, rules: &AlertRules) -> Option<Timestamp> {
        let is_stale = self.phase.incident().is_some_and(|incident| incident.detectors.contains(&Detector::Stale));
        let stale = self.heard.filter(|_| !is_stale).map(|heard| later(heard, rules.stale_after));
        let told = match &self.phase {
            AlertPhase::Firing { incident } => incident.told,
            AlertPhase::Ok | AlertPhase::Suspect { .. } | AlertPhase::Recovering { .. } => None,
        };
        let remind = told.zip(rules.policy.remind).map(|(told, remind)| later(told.at, remind));
        stale.into_iter().chain(remind).min()
    }

    /// Verdicts of ours (`unknown`) and slots that do not count leave the streaks as they are.
    fn count(&mut self, slot: Timestamp, verdict: Verdict, policy: &AlertPolicy, now: Timestamp) {
        // Beyond what recovery needs there is nothing to count, and a healthy journey's state stays the same.
        let enough = |runs: u32| runs.saturating_add(1).min(policy.recover_after);
        match verdict {
            Verdict::Good => {
                self.good = enough(self.good);
                self.delivered = enough(self.delivered);
                (self.failed, self.slow) = (0, 0);
            }
            Verdict::Slow => {
                self.slow = self.slow.saturating_add(1);
                self.delivered = enough(self.delivered);
                (self.failed, self.good) = (0, 0);
            }
            Verdict::Failed | Verdict::Late => {
                self.failed = self.failed.saturating_add(1);
                (self.good, self.delivered) = (0, 0);
            }
            Verdict::Unknown | Verdict::Excluded => return,
        }
        self.heard = Some(now);
        if verdict == Verdict::Good {
            if self.phase.incident().is_none() {
                self.bad_since = None;
            }
        } else {
            self.bad_since.get_or_insert(slot);
        }
    }

    fn is_silent(&self, rules: &AlertRules, now: Timestamp) -> bool {
        self.heard.is_some_and(|heard| between(heard, now) >= rules.stale_after)
    }

    /// The detectors that fire now. One that fires goes on until the journey has been well often enough.
    fn detect(&self, rules: &AlertRules, now: Timestamp) -> BTreeSet<Detector> {
        let fires = |detector| self.phase.incident().is_some_and(|incident| incident.detectors.contains(&detector));
        let policy = &rules.policy;
        let down = self.failed >= policy.down_after || (fires(Detector::Down) && self.delivered < policy.recover_after);
        let slow = self.slow >= policy.slow_after || (fires(Detector::Slow) && self.good < policy.recover_after);
        let stale = self.is_silent(rules, now)
            || (fires(Detector::Stale) && self.delivered < policy.recover_after && self.failed == 0);
        [(Detector::Down, down), (Detector::Slow, slow), (Detector::Stale, stale)]
            .into_iter()
            .filter_map(|(detector, fires)| fires.then_some(detector))
            .collect()
    }
}

fn severity(detectors: &BTreeSet<Detector>) -> Option<Severity> {
    detectors.iter().map(|detector| detector.severity()).max()
}

fn open(journey: &str, since: Timestamp, detectors: BTreeSet<Detector>, bad_runs: u32) -> Incident {
    let worst = severity(&detectors).unwrap_or(Severity::Warning);
    Incident { id: incident_id(journey, since), since, detectors, worst, told: None, sequence: 0, bad_runs }
}

/// 48 bits of FNV-1a over name and slot, in hexadecimal.
fn incident_id(journey: &str, since: Timestamp) -> String {
    let hash = fnv1a(journey.bytes().chain(since.as_millisecond().to_be_bytes()));
    format!("{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

fn tell(incident: &mut Incident, rules: &AlertRules, remind: Option<Duration>, now: Timestamp) -> Option<AlertAction> {
    let severity = severity(&incident.detectors).unwrap_or(incident.worst);
    let standing = Standing { is_firing: true, severity, remind, muted: rules.muted };
    let reason = should_notify(incident.told.as_ref(), standing, now)?;
    incident.told = Some(Told { at: now, severity });
    incident.sequence += 1;
    Some(AlertAction::Notify { reason, incident: incident.clone() })
}

fn close(mut incident: Incident, now: Timestamp) -> Vec<AlertAction> {
    let standing = Standing { is_firing: false, severity: incident.worst, remind: None, muted: false };
    let reason = should_notify(incident.told.as_ref(), standing, now);
    if reason.is_some() {
        incident.sequence += 1;
    }
    let notify = reason.map(|reason| AlertAction::Notify { reason, incident: incident.clone() });
    notify.into_iter().chain([AlertAction::Closed { incident: incident.clone() }]).collect()
}

/// How an incident stands, for [`should_notify`].
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Still firing, or just resolved.
    pub is_firing: bool,
    /// How bad it is now.
    pub severity: Severity,
    /// Told again this often.
    pub remind: Option<Duration>,
    /// Nobody is to be told that it fires.
    pub muted: bool,
}

/// Whether to tell people, and why. `told` is what they were told last about this incident.
pub fn should_notify(told: Option<&Told>, standing: Standing, now: Timestamp) -> Option<NotifyReason> {
    match (told, standing) {
        // Over, and people know of it: they must hear that it is well again, muted or not.
        (Some(_), Standing { is_firing: false, .. }) => Some(NotifyReason::Resolved),
        // Over, and nobody ever heard of it.
        (None, Standing { is_firing: false, .. }) => None,
        // Firing in silence.
        (_, Standing { muted: true, .. }) => None,
        // Firing, and nobody knows.
        (None, Standing { .. }) => Some(NotifyReason::First),
        // People know of something milder.
        (Some(told), Standing { severity, .. }) if severity > told.severity => Some(NotifyReason::Worse),
        // People know, and it is time to remind them.
        (Some(told), Standing { remind: Some(remind), .. }) if between(told.at, now) >= remind => {
            Some(NotifyReason::Repeat)
        }
        // People know.
        (Some(_), Standing { .. }) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn rules() -> AlertRules {
        AlertRules {
            journey: "sms".into(),
            policy: AlertPolicy {
                down_after: 3,
                slow_after: 3,
                recover_after: 2,
                remind: Some(Duration::from_secs(3_600)),
            },
            stale_after: Duration::from_secs(150),
            muted: false,
        }
    }

    /// Plays verdicts a minute apart; gives what was told, with the minute.
    fn play(state: &mut AlertState, rules: &AlertRules, from: i64, verdicts: &str) -> Vec<(i64, NotifyReason)> {
        let mut told = Vec::new();
        for (n, letter) in (from..).zip(verdicts.chars()) {
            let verdict = match letter {
                'g' => Verdict::Good,
                's' => Verdict::Slow,
                'f' => Verdict::Failed,
                'u' => Verdict::Unknown,
                '.' => {
                    told.extend(reasons(state.step(AlertEvent::Tick, rules, at(n * 60))).map(|reason| (n, reason)));
                    continue;
                }
                other => panic!("{other}"),
            };
            let event = AlertEvent::Verdict { slot: at(n * 60), verdict };
            told.extend(reasons(state.step(event, rules, at(n * 60 + 1))).map(|reason| (n, reason)));
        }
        told
    }

    fn reasons(actions: Vec<AlertAction>) -> impl Iterator<Item = NotifyReason> {
        actions.into_iter().filter_map(|action| match action {
            AlertAction::Notify { reason, .. } => Some(reason),
            AlertAction::Closed { .. } => None,
        })
    }

    #[test]
    fn the_decision_has_one_row_per_branch() {
        use NotifyReason::*;
        let told = |severity| Some(Told { at: at(0), severity });
        let standing =
            |is_firing, severity, muted| Standing { is_firing, severity, remind: Some(Duration::from_secs(60)), muted };
        let never = Standing { remind: None, ..standing(true, Severity::Critical, false) };
        let table = [
            (told(Severity::Critical), standing(false, Severity::Critical, false), 1, Some(Resolved)),
            (told(Severity::Critical), standing(false, Severity::Critical, true), 1, Some(Resolved)),
            (None, standing(false, Severity::Critical, false), 1, None),
            (None, standing(true, Severity::Critical, true), 1, None),
            (told(Severity::Warning), standing(true, Severity::Critical, true), 999, None),
            (None, standing(true, Severity::Warning, false), 1, Some(First)),
            (told(Severity::Warning), standing(true, Severity::Critical, false), 1, Some(Worse)),
            (told(Severity::Critical), standing(true, Severity::Critical, false), 60, Some(Repeat)),
            (told(Severity::Critical), standing(true, Severity::Warning, false), 59, None),
            (told(Severity::Critical), never, 99_999, None),
        ];
        for (told, standing, seconds, expected) in table {
            assert_eq!(should_notify(told.as_ref(), standing, at(seconds)), expected, "{told:?} {standing:?}");
        }
    }

    #[test]
    fn down_is_told_once_and_resolved_once() {
        let mut state = AlertState::default();
        let told = play(&mut state, &rules(), 0, "ggffgffffffgfggggg");
        assert_eq!(told, [(7, NotifyReason::First), (14, NotifyReason::Resolved)]);
        assert_eq!(state.phase, AlertPhase::Ok);
    }

    #[test]
    fn the_incident_counts_from_the_first_bad_run_and_keeps_its_id() {
        let mut state = AlertState::default();
        let _ = play(&mut state, &rules(), 0, "gfff");
        let incident = state.phase.incident().unwrap().clone();
        assert_eq!((incident.since, incident.bad_runs, incident.worst), (at(60), 3, Severity::Critical));
        let _ = play(&mut state, &rules(), 4, "gf");
        assert_eq!(state.phase.incident().unwrap().id, incident.id);
        let saved = serde_json::to_string(&state).unwrap();
        let restored: AlertState = serde_json::from_str(&saved).unwrap();
        assert_eq!(restored, AlertState { heard: None, ..state });
    }

    #[test]
    fn an_incident_has_the_same_id_in_every_version() {
        assert_eq!(incident_id("sms", at(60)), "2b09461e35f5", "a change here orphans every open incident's thread");
    }

    #[test]
    fn slow_then_down_is_one_incident_that_gets_worse() {
        let mut state = AlertState::default();
        let told = play(&mut state, &rules(), 0, "sssfffggg");
        let expected = [(2, NotifyReason::First), (5, NotifyReason::Worse), (7, NotifyReason::Resolved)];
        assert_eq!(told, expected);
    }

    #[test]
    fn down_that_comes_back_slow_stays_open_without_another_word() {
        let mut state = AlertState::default();
        let told = play(&mut state, &rules(), 0, "fffsssgg");
        assert_eq!(told, [(2, NotifyReason::First), (7, NotifyReason::Resolved)]);
    }

    #[test]
    fn silence_goes_stale_and_a_verdict_ends_it() {
        let mut state = AlertState::default();
        let told = play(&mut state, &rules(), 0, "g..u...gg");
        assert_eq!(told, [(3, NotifyReason::First), (8, NotifyReason::Resolved)]);
    }

    #[test]
    fn our_own_silence_is_not_the_journeys() {
        let mut state = AlertState::default();
        let _ = play(&mut state, &rules(), 0, "g");
        state.resume(at(10_000));
        assert!(state.step(AlertEvent::Tick, &rules(), at(10_100)).is_empty());
        assert!(!state.step(AlertEvent::Tick, &rules(), at(10_150)).is_empty());
    }

    #[test]
    fn reminders_come_only_after_the_interval() {
        let mut state = AlertState::default();
        let told = play(&mut state, &rules(), 0, &"f".repeat(130));
        let expected = [(2, NotifyReason::First), (62, NotifyReason::Repeat), (122, NotifyReason::Repeat)];
        assert_eq!(told, expected);
    }

    #[test]
    fn muted_tells_nothing_unless_people_already_know() {
        let muted = AlertRules { muted: true, ..rules() };
        assert_eq!(play(&mut AlertState::default(), &muted, 0, "fffffggg"), []);
        let mut state = AlertState::default();
        let _ = play(&mut state, &rules(), 0, "fff");
        assert_eq!(play(&mut state, &muted, 3, "ffgg"), [(6, NotifyReason::Resolved)]);
    }

    #[test]
    fn the_deadline_is_the_first_thing_that_time_alone_can_change() {
        let mut state = AlertState::default();
        assert_eq!(state.deadline(&rules()), None);
        let _ = play(&mut state, &rules(), 0, "fff");
        assert_eq!(state.deadline(&rules()), Some(later(at(121), Duration::from_secs(150))));
    }

    proptest! {
        #[test]
        fn told_in_order_and_never_twice_inside_the_interval(
            verdicts in "[gsfu.]{1,300}",
            down_after in 1u32..5, slow_after in 1u32..5, recover_after in 1u32..4,
        ) {
            let mut rules = rules();
            rules.policy = AlertPolicy { down_after, slow_after, recover_after, remind: Some(Duration::from_secs(600)) };
            let mut state = AlertState::default();
            let told = play(&mut state, &rules, 0, &verdicts);
            let mut open: Option<i64> = None;
            for (minute, reason) in told {
                match (reason, open) {
                    (NotifyReason::First, None) => open = Some(minute),
                    (NotifyReason::Worse, Some(_)) => open = Some(minute),
                    (NotifyReason::Repeat, Some(before)) => {
                        prop_assert!(minute - before >= 10);
                        open = Some(minute);
                    }
                    (NotifyReason::Resolved, Some(_)) => open = None,
                    other => prop_assert!(false, "{other:?} at {minute} in {verdicts}"),
                }
            }
            let calm = play(&mut state, &rules, 1_000, "gggg");
            prop_assert!(calm.len() <= usize::from(open.is_some()));
            prop_assert_eq!(state.phase, AlertPhase::Ok);
        }
    }
}
