//! Incidents: which alerts belong together, and whom to tell what about them.
//!
//! An incident is one firing, from the first bad run to the resolution. Alerts that share a likely cause are members of one
//! incident; whoever is concerned by a member is told of it once, and hears of its end if told of its beginning. Everything here
//! is a function of (state, event, now): the desk keeps its state in memory, gives what has to be written, and can be filled
//! again from that.

pub mod root;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertState, Subject, Transition};
use crate::control::{Ack, Escalation, Labels, Matcher, Route, Silence, route};
use crate::detect::{Detector, Severity};
use crate::incident::root::{Resource, Tally, chance, likeliest};
use crate::journey::outcome::labelled;
use crate::journey::schedule::fnv1a;
use crate::journey::{Maintenance, Name};
use crate::time::{between, later};

/// This many incidents within [`STORM_WINDOW`], unless the configuration says otherwise; those after them are told in one message.
pub const STORM: usize = 20;
/// How far back incidents are counted.
pub const STORM_WINDOW: Duration = Duration::from_secs(60);
/// What people need not be told at once is told this often at most.
pub const QUIET_EVERY: Duration = Duration::from_secs(10);
/// A member that still fires so long after the last other one ended is broken for another reason.
pub const SPLIT_AFTER: Duration = Duration::from_secs(300);
/// An incident with more members than this is looked at once a second, not with every run.
const CROWD: usize = 64;
const CROWD_EVERY: Duration = Duration::from_secs(1);
/// A notice lists so many members.
pub const LISTED: usize = 20;
/// No run ends later after its slot.
const LONGEST_RUN: Duration = Duration::from_secs(86_400);
/// So many things that happened are remembered until they are told.
const NEWS: usize = 8;

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
    /// What matchers see; `severity` and `detector` are added.
    pub labels: Labels,
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
    blamed: Option<Resource>,
}

/// An incident with its members.
struct Case {
    incident: Incident,
    firing: BTreeSet<Subject>,
    ended: BTreeMap<Subject, Timestamp>,
    lead: Subject,
    news: Vec<String>,
    /// Bad runs of members that ended.
    past_bad: u32,
    last_ended: Option<Timestamp>,
    last_quiet: Option<Timestamp>,
    looked: Option<Timestamp>,
    deadline: Option<Timestamp>,
    was_quiet: bool,
    /// Somebody changed it since it was decided on last.
    is_changed: bool,
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
    opened: VecDeque<Timestamp>,
    digest_after: usize,
    dirty: BTreeSet<String>,
    deadlines: BTreeSet<(Timestamp, String)>,
}

impl Desk {
    /// An empty desk.
    pub fn new(routes: Vec<Route>, updatable: BTreeSet<Name>) -> Desk {
        Desk { routes, updatable, digest_after: STORM, ..Desk::default() }
    }

    /// Tells incidents in one message after this many within a minute.
    pub fn with_digest_after(self, incidents: usize) -> Desk {
        Desk { digest_after: incidents, ..self }
    }

    /// Makes a subject known, as it was left. Its membership is taken up by [`Desk::restore`].
    pub fn enrol(&mut self, mut profile: Profile, alert: AlertState) {
        let subject = profile.subject.clone();
        profile.labels.insert("subject".to_owned(), subject.to_string());
        if let Some(before) = self.seen.remove(&subject) {
            self.tally(&before, -1);
        }
        let is_bad = alert.phase != crate::alert::Phase::Ok;
        let seen = Seen { profile: Arc::new(profile), alert, is_bad, blamed: None };
        self.tally(&seen, 1);
        self.seen.insert(subject, seen);
    }

    /// Takes up open incidents; the subjects are enrolled before. What is open and has no member any more is over.
    pub fn restore(&mut self, incidents: Vec<Incident>, silences: Vec<Silence>) {
        self.silences = silences;
        for incident in incidents {
            let of =
                |seen: &&Seen| seen.alert.incident.as_deref() == Some(&incident.id) && seen.alert.phase.is_firing();
            let firing: BTreeSet<_> = self.seen.values().filter(of).map(|seen| seen.profile.subject.clone()).collect();
            let lead = match (&incident.root, firing.first()) {
                (Root::Alone(subject), _) => subject.clone(),
                (_, Some(first)) => first.clone(),
                (_, None) => Subject::Daemon("restart".into()),
            };
            let known: u32 = firing.iter().map(|subject| self.seen[subject].alert.bad_runs).sum();
            let case = Case {
                past_bad: incident.bad_runs.saturating_sub(known),
                was_quiet: incident.quiet.is_some(),
                lead,
                firing,
                ended: BTreeMap::new(),
                news: Vec::new(),
                last_ended: None,
                last_quiet: None,
                looked: None,
                deadline: None,
                is_changed: false,
                incident,
            };
            self.dirty.insert(case.incident.id.clone());
            self.cases.insert(case.incident.id.clone(), case);
        }
    }

    /// Takes what became of an alert; gives the incident that it is a member of from now on. `blamed` is where its last bad run
    /// failed.
    pub fn update(
        &mut self,
        subject: &Subject,
        alert: &AlertState,
        transition: Transition,
        is_bad: bool,
        blamed: Option<Resource>,
        now: Timestamp,
    ) -> Option<String> {
        let mut seen = self.seen.remove(subject)?;
        if seen.is_bad != is_bad || seen.blamed != blamed {
            self.tally(&seen, -1);
            (seen.is_bad, seen.blamed) = (is_bad, blamed);
            self.tally(&seen, 1);
        }
        let before = std::mem::replace(&mut seen.alert, alert.clone());
        let mut id = alert.incident.clone();
        if transition == Transition::Ended {
            // What it was counts for the notice that it is over.
            seen.alert.since = before.since;
        }
        self.seen.insert(subject.clone(), seen);
        match transition {
            Transition::Fired => id = Some(self.place(subject, now)),
            Transition::Ended => {
                if let Some(case) = id.as_ref().and_then(|id| self.cases.get_mut(id)) {
                    case.firing.remove(subject);
                    case.ended.insert(subject.clone(), now);
                    case.past_bad += before.bad_runs;
                    case.last_ended = Some(now);
                    if !case.firing.is_empty() {
                        note(&mut case.news, format!("{subject} is well again"));
                    }
                    self.dirty.insert(case.incident.id.clone());
                }
                return None;
            }
            Transition::Changed | Transition::None => {
                if let Some(case) = id.as_ref().and_then(|id| self.cases.get_mut(id)) {
                    if transition == Transition::Changed
                        && let Some(finding) = alert.findings.first()
                        && before.detector() != alert.detector()
                    {
                        note(&mut case.news, format!("{subject}: {}", finding.said));
                    }
                    let changed = before.bad_runs != alert.bad_runs || before.phase != alert.phase;
                    if changed || transition == Transition::Changed {
                        self.dirty.insert(case.incident.id.clone());
                    }
                }
            }
        }
        if let (Some(id), Some(seen)) = (&id, self.seen.get_mut(subject)) {
            seen.alert.incident = Some(id.clone());
        }
        id
    }

    /// Somebody looks after an incident.
    ///
    /// # Errors
    /// No such incident is open.
    pub fn acknowledge(&mut self, id: &str, ack: Ack) -> Result<(), NotOpen> {
        let case = self.cases.get_mut(id).ok_or(NotOpen)?;
        let until = ack.until.map_or(String::new(), |until| format!(" until {}", utc(until)));
        note(&mut case.news, format!("acknowledged by {}{until}", ack.by));
        case.last_quiet = None;
        case.incident.acked = Some(ack);
        case.is_changed = true;
        self.dirty.insert(id.to_owned());
        Ok(())
    }

    /// Nobody looks after it any more.
    ///
    /// # Errors
    /// No such incident is open.
    pub fn unacknowledge(&mut self, id: &str, by: &str) -> Result<(), NotOpen> {
        let case = self.cases.get_mut(id).ok_or(NotOpen)?;
        if case.incident.acked.take().is_some() {
            note(&mut case.news, format!("{by} took the acknowledgement back"));
            case.last_quiet = None;
            case.is_changed = true;
            self.dirty.insert(id.to_owned());
        }
        Ok(())
    }

    /// A silence begins, or is changed.
    pub fn silence(&mut self, silence: Silence) {
        self.silences.retain(|other| other.id != silence.id);
        self.silences.push(silence);
        self.dirty.extend(self.cases.keys().cloned());
    }

    /// What matches all that fires in an incident, and nothing else.
    ///
    /// # Errors
    /// No such incident is open, or too much fires in it; in words.
    pub fn matchers(&self, id: &str) -> Result<Vec<Matcher>, String> {
        let case = self.cases.get(id).ok_or_else(|| format!("no incident {id} is open"))?;
        let subjects: Vec<_> = case.firing.iter().map(ToString::to_string).collect();
        let too_many = |_| format!("{} members are too many for one silence: silence what they share", subjects.len());
        Ok(vec![Matcher::one_of("subject", &subjects).map_err(too_many)?])
    }

    /// A silence is taken back.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn unsilence(&mut self, id: &str) -> Result<Silence, NotOpen> {
        let at = self.silences.iter().position(|silence| silence.id == id).ok_or(NotOpen)?;
        self.dirty.extend(self.cases.keys().cloned());
        Ok(self.silences.remove(at))
    }

    /// The silences that are not over.
    pub fn silences(&self, now: Timestamp) -> impl Iterator<Item = &Silence> {
        self.silences.iter().filter(move |silence| silence.until > now)
    }

    /// The silence that leaves the subject's slot at `slot` out of its objective, if there is one.
    pub fn excluded_by(&self, subject: &Subject, slot: Timestamp) -> Option<&Silence> {
        let mut excluding =
            self.silences.iter().filter(|silence| silence.exclude_from_slo && silence.is_active(slot)).peekable();
        excluding.peek()?;
        let labels = &self.seen.get(subject)?.profile.labels;
        excluding.find(|silence| silence.is_about(labels))
    }

    /// Every open incident.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.cases.values().map(|case| &case.incident)
    }

    /// An open incident and who is in it.
    pub fn incident(&self, id: &str) -> Option<(&Incident, Vec<Member>)> {
        self.cases.get(id).map(|case| (&case.incident, self.members(case)))
    }

    /// When time alone asks for a decision.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Decides what follows from everything since the last call.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Action> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone());
        let ids: BTreeSet<_> = due.chain(std::mem::take(&mut self.dirty)).collect();
        let mut actions = Vec::new();
        for id in ids {
            self.decide_case(&id, now, &mut actions);
        }
        // A split makes new cases.
        for id in std::mem::take(&mut self.dirty) {
            self.decide_case(&id, now, &mut actions);
        }
        // A run whose slot lay in one may end after it.
        let kept = |silence: &Silence| if silence.exclude_from_slo { LONGEST_RUN } else { Duration::ZERO };
        self.silences.retain(|silence| later(silence.until, kept(silence)) > now);
        actions
    }

    fn tally(&mut self, seen: &Seen, by: i32) {
        let class = matches!(seen.profile.subject, Subject::Budget(_));
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

    /// The incident for an alert that begins to fire: one with the same likely cause, or its own.
    fn place(&mut self, subject: &Subject, now: Timestamp) -> String {
        let Some(seen) = self.seen.get(subject) else { return String::new() };
        let (profile, since) = (seen.profile.clone(), seen.alert.since.unwrap_or(now));
        let class = matches!(subject, Subject::Budget(_));
        let shared = match subject {
            Subject::Channel(name) => Some(Resource::Channel(name.clone())),
            Subject::Daemon(_) => None,
            Subject::Journey(_) | Subject::Budget(_) => {
                let tally =
                    |resource: &'_ Resource| self.tallies.get(&(class, resource.clone())).copied().unwrap_or_default();
                let known = |resource: &&Resource| match resource {
                    Resource::Channel(name) => {
                        let channel = self.seen.get(&Subject::Channel(name.clone()));
                        channel.is_some_and(|channel| channel.alert.phase.is_firing())
                    }
                    _ => false,
                };
                let down = profile.resources.iter().find(known).filter(|_| !class);
                down.or_else(|| likeliest(profile.resources.iter().map(|resource| (resource, tally(resource)))))
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

    /// The open incident that has this cause already, or that of one journey which uses it and is bad.
    fn home_of(&self, resource: &Resource, class: bool) -> Option<String> {
        let of_class = |subject: &Subject| matches!(subject, Subject::Budget(_)) == class;
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
        let tally = self.tallies.get(&(class, resource.clone())).copied().unwrap_or_default();
        let said = evidence(tally, self.totals[usize::from(class)]);
        let Some(case) = self.cases.get_mut(id) else { return };
        if case.incident.root == Root::Storm {
            return;
        }
        let is_new = !matches!(&case.incident.root, Root::Shared { resource: root, .. } if *root == resource);
        if is_new && case.incident.members > 1 {
            note(&mut case.news, format!("likely cause: {resource}, {said}"));
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
        let mut id = incident_id(&lead.to_string(), since);
        while self.cases.contains_key(&id) {
            id = incident_id(&id, since);
        }
        let incident = Incident::new(id.clone(), since, Root::Alone(lead.clone()));
        let case = Case {
            incident,
            firing: BTreeSet::new(),
            ended: BTreeMap::new(),
            lead: lead.clone(),
            news: Vec::new(),
            past_bad: 0,
            last_ended: None,
            last_quiet: None,
            looked: None,
            deadline: None,
            was_quiet: false,
            is_changed: false,
        };
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
            note(&mut case.news, format!("{subject} {word}"));
            if let Some(ack) = case.incident.acked.take() {
                note(&mut case.news, format!("the acknowledgement of {} has ended: {subject} {word}", ack.by));
            }
        }
        case.incident.members += u32::from(!is_back);
        case.firing.insert(subject.clone());
        self.dirty.insert(id.to_owned());
    }

    fn decide_case(&mut self, id: &str, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(mut case) = self.cases.remove(id) else { return };
        if let Some(at) = case.deadline.take() {
            self.deadlines.remove(&(at, id.to_owned()));
        }
        let is_crowd = case.firing.len() > CROWD && case.looked.is_some_and(|at| between(at, now) < CROWD_EVERY);
        if is_crowd {
            let next = case.looked.map(|at| later(at, CROWD_EVERY));
            self.wait(&mut case, next);
            self.cases.insert(id.to_owned(), case);
            return;
        }
        case.looked = Some(now);
        if case.firing.is_empty() {
            self.close(case, actions);
            return;
        }
        self.split(&mut case, now, actions);
        let before = case.incident.clone();
        let view = self.survey(&mut case, now);
        if let Some(ack) = &case.incident.acked {
            let is_worse = view
                .audience
                .iter()
                .any(|(name, one)| case.incident.told.get(name).is_some_and(|told| one.severity > told.severity));
            if is_worse || ack.until.is_some_and(|until| until <= now) {
                let why = if is_worse { "it got worse" } else { "its time is over" };
                note(&mut case.news, format!("the acknowledgement of {} has ended: {why}", ack.by));
                case.incident.acked = None;
            }
        }
        let notices = self.notices(&mut case, &view, now);
        if !notices.is_empty() {
            case.incident.sequence += 1;
            let members = self.members(&case);
            let news = if notices.iter().all(|(_, reason)| *reason == NotifyReason::First) {
                case.news.iter().filter(|_| case.incident.sequence > 1).cloned().collect()
            } else {
                case.news.clone()
            };
            case.news.clear();
            case.last_quiet = Some(now);
            for (notifier, reason) in notices {
                let incident = Box::new(case.incident.clone());
                let (members, news, lead) = (members.clone(), news.clone(), case.lead.clone());
                actions.push(Action::Notify { notifier, reason, incident, members, news, lead });
            }
        }
        if case.incident != before || std::mem::take(&mut case.is_changed) {
            actions.push(Action::Changed { incident: Box::new(case.incident.clone()), lead: case.lead.clone() });
        }
        let next = self.next_look(&case, &view, now);
        self.wait(&mut case, next);
        self.cases.insert(id.to_owned(), case);
    }

    fn wait(&mut self, case: &mut Case, next: Option<Timestamp>) {
        case.deadline = next;
        if let Some(at) = next {
            self.deadlines.insert((at, case.incident.id.clone()));
        }
    }

    /// Who is concerned, how bad it is for them, and what keeps people from being told.
    fn survey(&self, case: &mut Case, now: Timestamp) -> View {
        let mut view = View::default();
        let incident = &mut case.incident;
        (incident.detectors, incident.flapping) = (BTreeSet::new(), None);
        incident.firing = case.firing.len() as u32;
        incident.bad_runs = case.past_bad;
        for subject in &case.firing {
            let Some(seen) = self.seen.get(subject) else { continue };
            let (alert, profile) = (&seen.alert, &seen.profile);
            incident.bad_runs += alert.bad_runs;
            incident.detectors.extend(alert.findings.iter().map(|finding| finding.detector));
            incident.flapping = incident.flapping.max(alert.flapping);
            let severity = alert.severity().unwrap_or(Severity::Warning);
            incident.worst = incident.worst.max(severity);
            let mut labels = profile.labels.clone();
            labels.insert("severity".to_owned(), severity.to_string());
            labels.insert(
                "detector".to_owned(),
                alert.detector().map(|detector| detector.to_string()).unwrap_or_default(),
            );
            if let Some((why, until)) = self.why_quiet(subject, profile, &labels, now) {
                view.quiet.get_or_insert(why);
                view.quiet_until = view.quiet_until.into_iter().chain(until).min();
                view.silenced += 1;
                continue;
            }
            let is_recovering = alert.phase == crate::alert::Phase::Recovering;
            let (notify, escalate) = route(&self.routes, &profile.notify, &labels, now);
            for name in notify {
                let one = view.audience.entry(name).or_insert(Concern { severity, remind: None });
                one.severity = one.severity.max(severity);
                if !is_recovering {
                    one.remind = one.remind.into_iter().chain(profile.remind).min();
                }
            }
            if !is_recovering {
                view.escalate.extend(escalate.into_iter().map(|rung| (rung, severity)));
            }
        }
        let all_quiet = view.silenced > 0 && view.silenced == case.firing.len();
        incident.quiet = view.quiet.take().filter(|_| all_quiet);
        view
    }

    /// Why nobody is told of a subject, and until when.
    fn why_quiet(
        &self,
        subject: &Subject,
        profile: &Profile,
        labels: &Labels,
        now: Timestamp,
    ) -> Option<(String, Option<Timestamp>)> {
        if profile.muted {
            return Some(("muted in the configuration".to_owned(), None));
        }
        if let Some(silence) = self.silences.iter().find(|silence| silence.silences(labels, now)) {
            let said = format!("silenced by {} until {}: {}", silence.author, utc(silence.until), silence.reason);
            return Some((said, Some(silence.until)));
        }
        let open = profile.maintenance.iter().find_map(|window| Some((window, window.active_until(now)?)));
        if let Some((window, until)) = open {
            return Some((format!("in maintenance until {}: {}", utc(until), window.name), Some(until)));
        }
        // Of a budget that burns because the journey is down, people know already.
        let Subject::Budget(name) = subject else { return None };
        let health = self.seen.get(&Subject::Journey(name.clone()))?;
        health.alert.phase.is_firing().then(|| (format!("inhibited: {name} itself has an incident"), None))
    }

    fn notices(&self, case: &mut Case, view: &View, now: Timestamp) -> Vec<(Name, NotifyReason)> {
        let incident = &mut case.incident;
        let mut audience = view.audience.clone();
        if let (Some(first), None) = (incident.first_told, &incident.acked) {
            for (rung, severity) in &view.escalate {
                if between(first, now) >= rung.after {
                    for name in &rung.notify {
                        audience.entry(name.clone()).or_insert(Concern { severity: *severity, remind: None });
                    }
                }
            }
        }
        let is_quiet = incident.quiet.is_some();
        let can_update = incident.told.keys().any(|name| self.updatable.contains(name));
        if let Some(quiet) = incident.quiet.as_ref().filter(|_| !case.was_quiet && can_update) {
            // Who sees it fire is to see why nothing more comes.
            note(&mut case.news, quiet.clone());
            case.last_quiet = None;
        }
        let is_released = std::mem::replace(&mut case.was_quiet, is_quiet) && !is_quiet;
        let mut notices = Vec::new();
        for (name, concern) in &audience {
            let standing = Standing {
                is_firing: true,
                severity: concern.severity,
                remind: concern.remind.filter(|_| incident.acked.is_none() && incident.flapping.is_none()),
                is_quiet,
            };
            let told = incident.told.get(name);
            let mut reason = should_notify(told, standing, now);
            if is_released && reason.is_none() {
                reason = Some(NotifyReason::Repeat);
            }
            if let Some(reason) = reason {
                incident.told.insert(name.clone(), Told { at: now, severity: concern.severity });
                notices.push((name.clone(), reason));
            }
        }
        if !notices.is_empty() {
            incident.first_told.get_or_insert(now);
            if is_released {
                note(&mut case.news, "it was silenced until now".to_owned());
            }
        }
        let is_time = case.last_quiet.is_none_or(|at| between(at, now) >= QUIET_EVERY);
        if !case.news.is_empty() && is_time {
            for name in incident.told.keys().filter(|name| self.updatable.contains(*name)) {
                if notices.iter().all(|(other, _)| other != name) {
                    notices.push((name.clone(), NotifyReason::Updated));
                }
            }
            // Whoever cannot be updated hears of it with the next notice.
            if notices.is_empty() {
                case.last_quiet = Some(now);
            }
        }
        notices
    }

    fn next_look(&self, case: &Case, view: &View, now: Timestamp) -> Option<Timestamp> {
        let incident = &case.incident;
        let mut next: Vec<Timestamp> = Vec::new();
        next.extend(view.quiet_until);
        if incident.quiet.is_none() {
            if incident.acked.is_none() && incident.flapping.is_none() {
                let reminders = view
                    .audience
                    .iter()
                    .filter_map(|(name, concern)| Some(later(incident.told.get(name)?.at, concern.remind?)));
                next.extend(reminders);
            }
            if let (Some(first), None) = (incident.first_told, &incident.acked) {
                let untold = |rung: &Escalation| rung.notify.iter().any(|name| !incident.told.contains_key(name));
                next.extend(
                    view.escalate.iter().filter(|(rung, _)| untold(rung)).map(|(rung, _)| later(first, rung.after)),
                );
            }
        }
        next.extend(incident.acked.as_ref().and_then(|ack| ack.until));
        let can_update = incident.told.keys().any(|name| self.updatable.contains(name));
        if !case.news.is_empty() && can_update {
            next.extend(case.last_quiet.map(|at| later(at, QUIET_EVERY)));
        }
        if matches!(incident.root, Root::Shared { .. }) {
            next.extend(case.last_ended.map(|at| later(at, SPLIT_AFTER)));
        }
        next.into_iter().filter(|at| *at > now).min()
    }

    /// Members that go on long after the shared cause has gone are broken for another reason: each becomes its own incident.
    fn split(&mut self, case: &mut Case, now: Timestamp, actions: &mut Vec<Action>) {
        let Root::Shared { resource, .. } = &case.incident.root else { return };
        if case.last_ended.is_none_or(|at| between(at, now) < SPLIT_AFTER) {
            return;
        }
        let resource = resource.clone();
        let class = matches!(case.lead, Subject::Budget(_));
        let tally = self.tallies.get(&(class, resource.clone())).copied().unwrap_or_default();
        let is_itself =
            matches!(&resource, Resource::Channel(name) if case.firing.contains(&Subject::Channel(name.clone())));
        if is_itself || resource.is_proven(tally) {
            return;
        }
        let mut remaining = std::mem::take(&mut case.firing).into_iter();
        if let Some(stays) = remaining.next() {
            note(&mut case.news, format!("{resource} is well; {stays} is not, for another reason"));
            case.incident.root = Root::Alone(stays.clone());
            case.lead = stays.clone();
            case.firing.insert(stays);
        }
        for subject in remaining {
            let since = self.seen.get(&subject).and_then(|seen| seen.alert.since).unwrap_or(now);
            note(&mut case.news, format!("{subject} has an incident of its own now"));
            let id = self.open_case(&subject, since, now);
            self.join(&id, &subject);
            if let Some(seen) = self.seen.get_mut(&subject) {
                seen.alert.incident = Some(id.clone());
            }
            actions.push(Action::Moved { subject, incident: id });
        }
    }

    fn close(&mut self, case: Case, actions: &mut Vec<Action>) {
        let members = self.members(&case);
        let was_in: Vec<_> =
            case.ended.keys().filter_map(|subject| Some(self.seen.get(subject)?.profile.clone())).collect();
        let Case { mut incident, lead, past_bad, news, .. } = case;
        (incident.firing, incident.bad_runs, incident.quiet) = (0, past_bad, None);
        // They must hear that it is well again, silenced or not, if they heard of it at all.
        if !incident.told.is_empty() {
            incident.sequence += 1;
            for notifier in incident.told.keys() {
                actions.push(Action::Notify {
                    notifier: notifier.clone(),
                    reason: NotifyReason::Resolved,
                    incident: Box::new(incident.clone()),
                    members: members.clone(),
                    news: news.clone(),
                    lead: lead.clone(),
                });
            }
        }
        // One that waits for the end of something else, or of what has not begun yet, stays.
        self.silences.retain(|silence| {
            let still_fires = |seen: &Seen| seen.alert.phase.is_firing() && silence.is_about(&seen.profile.labels);
            !silence.until_resolved
                || !was_in.iter().any(|profile| silence.is_about(&profile.labels))
                || self.seen.values().any(still_fires)
        });
        actions.push(Action::Closed { incident: Box::new(incident), lead });
    }

    fn members(&self, case: &Case) -> Vec<Member> {
        let firing = case.firing.iter().filter_map(|subject| {
            let alert = &self.seen.get(subject)?.alert;
            let said = alert.findings.first().map_or(String::new(), |finding| finding.said.clone());
            Some(Member {
                subject: subject.clone(),
                said,
                since: alert.since.unwrap_or(case.incident.since),
                ended: None,
            })
        });
        let ended = case.ended.iter().map(|(subject, at)| Member {
            subject: subject.clone(),
            said: "well again".to_owned(),
            since: self.seen.get(subject).and_then(|seen| seen.alert.since).unwrap_or(case.incident.since),
            ended: Some(*at),
        });
        firing.chain(ended).take(LISTED).collect()
    }
}

/// There is no such incident, or no such silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing open has this id")]
pub struct NotOpen;

/// What a look at an incident gives for those who may be told.
#[derive(Default)]
struct View {
    audience: BTreeMap<Name, Concern>,
    escalate: Vec<(Escalation, Severity)>,
    quiet: Option<String>,
    quiet_until: Option<Timestamp>,
    silenced: usize,
}

/// What an incident is to one notifier.
#[derive(Clone, Copy)]
struct Concern {
    severity: Severity,
    remind: Option<Duration>,
}

/// How an incident stands for one notifier, for [`should_notify`].
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Still firing, or just resolved.
    pub is_firing: bool,
    /// How bad it is now.
    pub severity: Severity,
    /// Told again this often.
    pub remind: Option<Duration>,
    /// Nobody is to be told that it fires.
    pub is_quiet: bool,
}

/// Whether to tell a notifier, and why. `told` is what it was told last about this incident.
pub fn should_notify(told: Option<&Told>, standing: Standing, now: Timestamp) -> Option<NotifyReason> {
    match (told, standing) {
        // Over, and people know of it: they must hear that it is well again, silenced or not.
        (Some(_), Standing { is_firing: false, .. }) => Some(NotifyReason::Resolved),
        // Over, and nobody ever heard of it.
        (None, Standing { is_firing: false, .. }) => None,
        // Firing in silence.
        (_, Standing { is_quiet: true, .. }) => None,
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

fn note(news: &mut Vec<String>, what: String) {
    match news.len() {
        len if len < NEWS => news.push(what),
        _ => {
            let more =
                news.pop().and_then(|last| last.strip_prefix("and ")?.split(' ').next()?.parse().ok()).unwrap_or(1u32);
            news.push(format!("and {} more things", more + 1));
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
fn incident_id(subject: &str, since: Timestamp) -> String {
    let hash = fnv1a(subject.bytes().chain(since.as_millisecond().to_be_bytes()));
    format!("{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests;
