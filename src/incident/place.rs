//! To which incident an alert belongs: the one with the same likely cause, the digest of a storm, or its own.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::Subject;
use crate::incident::case::Case;
use crate::incident::root::{Resource, Tally, chance, likeliest};
use crate::incident::{Action, Desk, Incident, Root, Seen};
use crate::journey::Name;
use crate::journey::schedule::fnv1a;
use crate::time::between;

/// How far back incidents are counted.
pub const STORM_WINDOW: Duration = Duration::from_secs(60);
/// A member that still fails so long after the shared cause has gone is broken for another reason.
pub const SPLIT_AFTER: Duration = Duration::from_secs(300);

impl Desk {
    pub(super) fn tally(&mut self, seen: &Seen, by: i32) {
        let class = seen.profile.subject.is_budget();
        if !matches!(seen.profile.subject, Subject::Journey(_) | Subject::Budget(_)) {
            return;
        }
        let add = |tally: &mut Tally, blamed: bool| {
            tally.users = tally.users.saturating_add_signed(by);
            if seen.is_bad {
                tally.bad = tally.bad.saturating_add_signed(by);
            }
            if seen.is_bad && blamed {
                tally.blamed = tally.blamed.saturating_add_signed(by);
            }
        };
        add(&mut self.totals[usize::from(class)], false);
        for resource in &seen.profile.resources {
            let is_blamed = seen.blamed.as_ref() == Some(resource);
            add(self.tallies.entry((class, resource.clone())).or_default(), is_blamed);
        }
    }

    fn tally_of(&self, class: bool, resource: &Resource) -> Tally {
        self.tallies.get(&(class, resource.clone())).copied().unwrap_or_default()
    }

    /// The incident for an alert that begins to fire: one with the same likely cause, or its own.
    pub(super) fn place(&mut self, subject: &Subject, now: Timestamp) -> String {
        let Some(seen) = self.seen.get(subject) else { return String::new() };
        let (profile, since) = (seen.profile.clone(), seen.alert.since.unwrap_or(now));
        let class = subject.is_budget();
        let shared = match subject {
            Subject::Budget(name) if let Some(resource) = self.cause_of(name) => Some(resource.clone()),
            // What nobody feels yet is nobody's cause.
            Subject::Channel(name) => Some(Resource::Channel(name.clone())).filter(|_| seen.is_bad),
            Subject::Daemon(_) => None,
            Subject::Journey(_) | Subject::Budget(_) => {
                let known = |resource: &&Resource| match resource {
                    Resource::Channel(name) => {
                        let channel = self.seen.get(&Subject::Channel(name.clone()));
                        self.blocked.contains(name)
                            || channel.is_some_and(|channel| channel.is_bad && channel.alert.phase.is_firing())
                    }
                    _ => false,
                };
                let down = profile.resources.iter().find(known).filter(|_| !class);
                down.or_else(|| {
                    likeliest(profile.resources.iter().map(|resource| (resource, self.tally_of(class, resource))))
                })
                .cloned()
            }
        };
        let home = shared.as_ref().and_then(|resource| self.home_of(resource, class));
        let id = match home {
            Some(id) => id,
            None => match self.storm(now) {
                Some(id) => id,
                None => self.open_case(subject, since, now),
            },
        };
        self.join(&id, subject);
        if let Some(resource) = shared {
            self.set_root(&id, resource, class);
        }
        id
    }

    /// The likely cause of what the journey suffers now: what its budget is being spent by.
    fn cause_of(&self, name: &Name) -> Option<&Resource> {
        let alert = &self.seen.get(&Subject::Journey(name.clone()))?.alert;
        let case = self.cases.get(alert.incident.as_ref()?).filter(|_| alert.phase.is_firing())?;
        match &case.incident.root {
            Root::Shared { resource, .. } => Some(resource),
            Root::Alone(_) | Root::Storm => None,
        }
    }

    /// The open incident that has this cause already, or that of one journey which uses it and is bad.
    fn home_of(&self, resource: &Resource, class: bool) -> Option<String> {
        let of_class = |subject: &Subject| subject.is_budget() == class;
        let rooted = self.cases.values().find(|case| {
            matches!(&case.incident.root, Root::Shared { resource: root, .. } if root == resource)
                && of_class(&case.lead)
        });
        let uses = |subject: &Subject| {
            let seen = self.seen.get(subject);
            of_class(subject) && seen.is_some_and(|seen| seen.is_bad && seen.profile.resources.contains(resource))
        };
        let alone = || {
            let mut cases = self.cases.values();
            cases.find(|case| matches!(&case.incident.root, Root::Alone(subject) if uses(subject)))
        };
        rooted.or_else(alone).map(|case| case.incident.id.clone())
    }

    fn set_root(&mut self, id: &str, resource: Resource, class: bool) {
        let tally = self.tally_of(class, &resource);
        let said = evidence(tally, self.totals[usize::from(class)]);
        let Some(case) = self.cases.get_mut(id) else { return };
        if case.incident.root == Root::Storm {
            return;
        }
        let is_new = !matches!(&case.incident.root, Root::Shared { resource: root, .. } if *root == resource);
        if is_new && case.incident.members > 1 {
            case.news.note(format!("likely cause: {resource}, {said}"));
        }
        case.incident.root = Root::Shared { resource, said };
    }

    /// The digest, once too many incidents were opened in too short a time.
    fn storm(&mut self, now: Timestamp) -> Option<String> {
        while self.opened.front().is_some_and(|at| between(*at, now) >= STORM_WINDOW) {
            self.opened.pop_front();
        }
        if self.opened.len() < self.digest_after {
            return None;
        }
        self.opened.push_back(now);
        if let Some(case) = self.cases.values().find(|case| case.incident.root == Root::Storm) {
            return Some(case.incident.id.clone());
        }
        let id = self.open_case(&Subject::Daemon("storm".into()), now, now);
        if let Some(case) = self.cases.get_mut(&id) {
            case.incident.root = Root::Storm;
        }
        Some(id)
    }

    fn open_case(&mut self, lead: &Subject, since: Timestamp, now: Timestamp) -> String {
        let mut id = incident_id(&format!("{}{lead}", self.origin), since);
        while self.cases.contains_key(&id) {
            id = incident_id(&id, since);
        }
        let incident = Incident::new(id.clone(), since, Root::Alone(lead.clone()));
        let case = Case::new(incident, lead.clone());
        self.cases.insert(id.clone(), case);
        self.opened.push_back(now);
        id
    }

    fn join(&mut self, id: &str, subject: &Subject) {
        let Some(case) = self.cases.get_mut(id) else { return };
        let is_back = case.ended.remove(subject).is_some();
        if case.firing.is_empty() && case.incident.members == 0 && case.incident.root != Root::Storm {
            case.lead = subject.clone();
        } else {
            let word = if is_back { "is bad again" } else { "joined" };
            case.news.note(format!("{subject} {word}"));
            if let Some(ack) = case.incident.acked.take() {
                case.news.note(format!("the acknowledgement of {} has ended: {subject} {word}", ack.by));
            }
        }
        case.incident.members += u32::from(!is_back);
        case.firing.insert(subject.clone());
        self.dirty.insert(id.to_owned());
    }

    /// Members that fail long after the shared cause has gone fail for another reason: each becomes its own incident, but for those
    /// that are too many to be told one by one. Who only waits for calm stays, or has not run since; and so do budgets: what the cause
    /// has spent comes back with the window, not with it.
    pub(super) fn split(&mut self, case: &mut Case, now: Timestamp, actions: &mut Vec<Action>) {
        let Root::Shared { resource, .. } = &case.incident.root else { return };
        let resource = resource.clone();
        let is_itself =
            matches!(&resource, Resource::Channel(name) if case.firing.contains(&Subject::Channel(name.clone())));
        if is_itself || resource.is_proven(self.tally_of(false, &resource)) {
            case.last_likely = Some(now);
            return;
        }
        let Some(gone) = case.cause_gone().filter(|at| !case.lead.is_budget() && between(*at, now) >= SPLIT_AFTER)
        else {
            return;
        };
        let has_failed = |seen: &Seen| seen.is_bad && seen.failed.is_some_and(|at| at > gone);
        let fails = |subject: &Subject| self.seen.get(subject).is_some_and(has_failed);
        let (failing, mut staying): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut case.firing).into_iter().partition(fails);
        let mut failing = failing.into_iter();
        if staying.is_empty()
            && let Some(stays) = failing.next()
        {
            case.news.note(format!("{resource} is well; {stays} is not, for another reason"));
            case.incident.root = Root::Alone(stays.clone());
            case.lead = stays.clone();
            staying.insert(stays);
        }
        if let Some(first) = staying.first().filter(|_| !staying.contains(&case.lead)) {
            case.lead = first.clone();
        }
        case.firing = staying;
        for subject in failing {
            let since = self.seen.get(&subject).and_then(|seen| seen.alert.since).unwrap_or(now);
            case.news.note(format!("{subject} has an incident of its own now"));
            let id = self.storm(now).unwrap_or_else(|| self.open_case(&subject, since, now));
            self.join(&id, &subject);
            if let Some(seen) = self.seen.get_mut(&subject) {
                seen.alert.incident = Some(id.clone());
            }
            actions.push(Action::Moved { subject, incident: id });
        }
    }
}

/// Why a resource is the likely cause, in numbers.
fn evidence(tally: Tally, total: Tally) -> String {
    let (others, passing) = (total.users - tally.users, total.users - tally.users - (total.bad - tally.bad));
    let mut said = format!("{} of {} journeys that use it fail", tally.bad, tally.users);
    if others > 0 {
        said.push_str(&format!(", {passing} of {others} others do not"));
        if total.users <= 1_000 {
            let chance = chance(tally.bad, tally.users, total.bad, total.users);
            said.push_str(&match chance {
                chance if chance < 1e-6 => " (by chance: p < 0.000001)".to_owned(),
                chance => format!(" (by chance: p = {chance:.2})"),
            });
        }
    }
    said
}

/// 48 bits of FNV-1a over name and slot, in hexadecimal.
pub(super) fn incident_id(subject: &str, since: Timestamp) -> String {
    let hash = fnv1a(subject.bytes().chain(since.as_millisecond().to_be_bytes()));
    format!("{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}
