//! An incident with its members, as the desk keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Subject;
use crate::incident::Incident;
use crate::journey::Name;
use crate::time::{between, later};

/// What people need not be told at once comes at least so long after what they were told last.
pub const QUIET_EVERY: Duration = Duration::from_secs(10);
/// And at most: in between, the distance is twice as long as the incident was old at the last time, so that a crowd that joins member by
/// member costs two edits in the first minute, each with its reply in the thread, and not six.
pub const QUIET_AT_MOST: Duration = Duration::from_secs(60);
/// Whoever heard of an outage that many shared is not called for the budgets that it has spent for so long after it.
pub(super) const SPENT_QUIET: Duration = Duration::from_secs(3_600);
/// So many things that happened are remembered until they are told.
const NEWS: usize = 8;

/// An incident with its members.
pub(super) struct Case {
    pub(super) incident: Incident,
    pub(super) firing: BTreeSet<Subject>,
    pub(super) ended: BTreeMap<Subject, Timestamp>,
    pub(super) lead: Subject,
    pub(super) news: News,
    /// Bad runs of members that ended.
    pub(super) past_bad: u32,
    pub(super) last_ended: Option<Timestamp>,
    /// When the shared cause was last seen to be there.
    pub(super) last_likely: Option<Timestamp>,
    /// When a journey whose budget is a member was last seen to have an incident itself.
    pub(super) last_outage: Option<Timestamp>,
    /// When what people were told was last brought up to date, or could have been.
    pub(super) last_quiet: Option<Timestamp>,
    pub(super) looked: Option<Timestamp>,
    pub(super) deadline: Option<Timestamp>,
    pub(super) was_quiet: bool,
    /// It was quiet because of an incident that says more.
    pub(super) was_inhibited: bool,
    /// Somebody changed it since it was decided on last.
    pub(super) is_changed: bool,
}

impl Case {
    /// One without a member.
    pub(super) fn new(incident: Incident, lead: Subject) -> Case {
        Case {
            was_quiet: incident.quiet.is_some(),
            was_inhibited: false,
            incident,
            firing: BTreeSet::new(),
            ended: BTreeMap::new(),
            lead,
            news: News::default(),
            past_bad: 0,
            last_ended: None,
            last_likely: None,
            last_outage: None,
            last_quiet: None,
            looked: None,
            deadline: None,
            is_changed: false,
        }
    }

    /// Whether anybody who was told can be shown what changed without a new message.
    pub(super) fn is_updatable(&self, updatable: &BTreeSet<Name>) -> bool {
        self.incident.told.keys().any(|name| updatable.contains(name))
    }

    /// Since when the shared cause seems to be gone; `None` as long as nobody whom it had made fail is well.
    pub(super) fn cause_gone(&self) -> Option<Timestamp> {
        self.last_ended.max(self.last_likely.filter(|_| self.last_ended.is_some()))
    }

    /// When what people were told may be brought up to date; `None` is at once.
    pub(super) fn next_update(&self) -> Option<Timestamp> {
        let last = self.last_quiet?;
        let age = self.incident.first_told.map_or(Duration::ZERO, |first| between(first, last));
        Some(later(last, (age * 2).clamp(QUIET_EVERY, QUIET_AT_MOST)))
    }
}

/// What happened since people were told last; of much, the beginning and how much more.
#[derive(Default)]
pub(super) struct News {
    pub(super) said: Vec<String>,
    more: usize,
}

impl News {
    /// Remembers something that happened.
    pub(super) fn note(&mut self, what: String) {
        if self.said.len() < NEWS {
            self.said.push(what);
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing happened.
    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// All of it, for a notice.
    pub(super) fn told(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more things", self.more));
        self.said.iter().cloned().chain(more).collect()
    }

    /// People know.
    pub(super) fn clear(&mut self) {
        *self = News::default();
    }
}
