//! Incidents: which alerts belong together, and whom to tell what about them.
//!
//! An incident is one firing, from the first bad run to the resolution. Alerts that share a likely cause are members of one
//! incident; whoever is concerned by a member is told of it once, and hears of its end if told of its beginning. Everything here
//! is a function of (state, event, now): the desk keeps its state in memory, gives what has to be written, and can be filled
//! again from that.

mod case;
mod decide;
mod desk;
mod place;
pub mod root;

pub use case::{QUIET_AT_MOST, QUIET_EVERY};
pub use decide::{Standing, should_notify};
pub use desk::NotOpen;
pub use place::{SPLIT_AFTER, STORM_WINDOW};

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertState, Subject};
use crate::control::{Ack, Labels, Route, Silence};
use crate::detect::{Detector, Severity};
use crate::incident::case::Case;
use crate::incident::root::{Resource, Tally};
use crate::journey::outcome::labelled;
use crate::journey::{Maintenance, Name};

/// This many incidents within [`STORM_WINDOW`], unless the configuration says otherwise; those after them are told in one message.
pub const STORM: usize = 20;
/// A notice lists so many members.
pub const LISTED: usize = 20;

labelled! {
    /// Why people are told.
    NotifyReason {
        /// The incident begins, for them.
        First = "first",
        /// It is worse than what they were told.
        Worse = "worse",
        /// It still goes on.
        Repeat = "repeat",
        /// Something about it changed that nobody has to be called for: what was told is brought up to date.
        Updated = "updated",
        /// It is over.
        Resolved = "resolved",
    }
}

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// One alert.
    Alone(Subject),
    /// Something that its members share.
    Shared {
        /// What.
        resource: Resource,
        /// Why we think so: `7 of 7 journeys through it fail, 31 of 31 others do not (p < 0.001)`.
        said: String,
    },
    /// Too many incidents at once.
    Storm,
}

/// An incident. Plain data: saved while it is open, and told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable over restarts and changes of thresholds: made from the first member's subject and its first bad slot.
    pub id: String,
    /// The first bad slot.
    pub since: Timestamp,
    /// What it is about.
    pub root: Root,
    /// What fires in it, of all members.
    pub detectors: BTreeSet<Detector>,
    /// How bad it is now.
    pub severity: Severity,
    /// The worst that it has been.
    pub worst: Severity,
    /// What each notifier was told last.
    pub told: BTreeMap<Name, Told>,
    /// How often anybody was told; numbers the notices.
    pub sequence: u32,
    /// Bad runs so far, of all members.
    pub bad_runs: u32,
    /// Alerts that are or were part of it.
    pub members: u32,
    /// Of these, how many fire.
    pub firing: u32,
    /// Who looks after it.
    pub acked: Option<Ack>,
    /// So many cycles of firing and ending came before it; it ends only with calm.
    pub flapping: Option<u32>,
    /// Nobody is told because of this.
    pub quiet: Option<String>,
    /// When the first notice was decided: escalation counts from then.
    pub first_told: Option<Timestamp>,
}

/// What a notifier was told last about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// With which severity.
    pub severity: Severity,
}

impl Incident {
    /// One that nobody was told of yet and that has no member.
    pub fn new(id: String, since: Timestamp, root: Root) -> Incident {
        Incident {
            id,
            since,
            root,
            detectors: BTreeSet::new(),
            severity: Severity::Warning,
            worst: Severity::Warning,
            told: BTreeMap::new(),
            sequence: 0,
            bad_runs: 0,
            members: 0,
            firing: 0,
            acked: None,
            flapping: None,
            quiet: None,
            first_told: None,
        }
    }

    /// What it is about, for people: `sms`, `channel orders`, `27 incidents at once`.
    pub fn title(&self) -> String {
        match &self.root {
            Root::Alone(subject) => subject.to_string(),
            Root::Shared { resource, .. } => resource.to_string(),
            Root::Storm => format!("{} more incidents at once", self.members),
        }
    }

    /// When people were told last.
    pub fn last_told(&self) -> Option<Timestamp> {
        self.told.values().map(|told| told.at).max()
    }

    /// The detector that names it.
    pub fn detector(&self) -> Option<Detector> {
        self.detectors.iter().next().copied()
    }
}

/// What the desk must know of a subject.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The subject.
    pub subject: Subject,
    /// What matchers see, beside what [`Profile::labels`] adds.
    pub labels: Arc<Labels>,
    /// What it shares with others.
    pub resources: Vec<Resource>,
    /// Who is told, if no route says otherwise.
    pub notify: Vec<Name>,
    /// Told again this often; `None` is never.
    pub remind: Option<Duration>,
    /// Nobody is told that it fires.
    pub muted: bool,
    /// In these times nobody is told.
    pub maintenance: Vec<Maintenance>,
}

impl Profile {
    /// What matchers see of it; `severity` and `detector` are added to it while it fires.
    pub fn labels(&self) -> Labels {
        let mut labels = Labels::clone(&self.labels);
        labels.insert("subject".to_owned(), self.subject.to_string());
        labels
    }
}

/// A member in a notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The subject.
    pub subject: Subject,
    /// What fires, the arithmetic of the worst finding; `well again` once it ended.
    pub said: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// What the desk asks for.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Action {
    /// Tell a notifier.
    Notify {
        /// Whom.
        notifier: Name,
        /// Why.
        reason: NotifyReason,
        /// The incident as it stands, its sequence already that of this notice.
        incident: Box<Incident>,
        /// Its members, those that fire first, at most [`LISTED`].
        members: Vec<Member>,
        /// What happened since people were told last.
        news: Vec<String>,
        /// Whose runs show what is wrong.
        lead: Subject,
    },
    /// An open incident is to be written.
    Changed {
        /// As it stands.
        incident: Box<Incident>,
        /// Whose runs show what is wrong.
        lead: Subject,
    },
    /// An incident is over, told or not.
    Closed {
        /// As it ended.
        incident: Box<Incident>,
        /// Whose it was.
        lead: Subject,
    },
    /// An alert is a member of another incident now.
    Moved {
        /// Which.
        subject: Subject,
        /// Of which.
        incident: String,
    },
}

/// A subject as the desk sees it.
struct Seen {
    profile: Arc<Profile>,
    alert: AlertState,
    is_bad: bool,
    /// When its last bad run was judged, as far as this process knows.
    failed: Option<Timestamp>,
    blamed: Option<Resource>,
}

/// Sole owner of what is open.
#[derive(Default)]
pub struct Desk {
    seen: HashMap<Subject, Seen>,
    tallies: HashMap<(bool, Resource), Tally>,
    totals: [Tally; 2],
    cases: BTreeMap<String, Case>,
    silences: Vec<Silence>,
    routes: Vec<Route>,
    /// Notifiers that can bring a message up to date: others are spared what nobody has to be called for.
    updatable: BTreeSet<Name>,
    /// Channels through which nothing goes.
    blocked: BTreeSet<Name>,
    opened: VecDeque<Timestamp>,
    digest_after: usize,
    /// Distinguishes its incidents from those of another desk about the same; nothing where there is no other.
    origin: String,
    dirty: BTreeSet<String>,
    deadlines: BTreeSet<(Timestamp, String)>,
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests;
