//! What comes to the desk, and what it is asked: alerts, silences, acknowledgements.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::{AlertState, Phase, Subject, Transition};
use crate::control::{Ack, Matcher, Route, Silence};
use crate::detect::Finding;
use crate::incident::case::Case;
use crate::incident::root::Resource;
use crate::incident::{Action, Desk, Incident, Member, Profile, Root, STORM, Seen, utc};
use crate::journey::Name;
use crate::time::later;

/// No run ends later after its slot.
const LONGEST_RUN: Duration = Duration::from_secs(86_400);

impl Desk {
    /// An empty desk.
    pub fn new(routes: Vec<Route>, updatable: BTreeSet<Name>) -> Desk {
        Desk { routes, updatable, digest_after: STORM, ..Desk::default() }
    }

    /// Tells incidents in one message after this many within a minute.
    pub fn with_digest_after(self, incidents: usize) -> Desk {
        Desk { digest_after: incidents, ..self }
    }

    /// Gives its incidents ids that no other desk gives, whatever they are about.
    pub fn with_origin(self, origin: String) -> Desk {
        Desk { origin, ..self }
    }

    /// Makes a subject known, as it was left. Its membership is taken up by [`Desk::restore`].
    pub fn enrol(&mut self, profile: Profile, alert: AlertState) {
        let subject = profile.subject.clone();
        if let Some(before) = self.seen.remove(&subject) {
            self.tally(&before, -1);
        }
        let is_felt = alert.findings.is_empty() || alert.findings.iter().any(Finding::is_felt);
        let is_bad = alert.phase != Phase::Ok && is_felt;
        let seen = Seen { profile: Arc::new(profile), alert, is_bad, failed: None, blamed: None };
        self.tally(&seen, 1);
        self.seen.insert(subject, seen);
    }

    /// Goes by these routes and limits from here on.
    pub fn reroute(&mut self, routes: Vec<Route>, updatable: BTreeSet<Name>, digest_after: usize) {
        (self.routes, self.updatable, self.digest_after) = (routes, updatable, digest_after);
        self.dirty.extend(self.cases.keys().cloned());
    }

    /// Nobody watches the subject any more: it takes part in nothing. An incident of which nothing else fires is over.
    pub fn withdraw(&mut self, subject: &Subject) {
        let Some(seen) = self.seen.remove(subject) else { return };
        self.tally(&seen, -1);
        let Some(case) = seen.alert.incident.as_ref().and_then(|id| self.cases.get_mut(id)) else { return };
        if !case.firing.remove(subject) {
            return;
        }
        case.past_bad += seen.alert.bad_runs;
        case.news.note(format!("{subject} was taken out of the configuration"));
        if let (true, Some(other)) = (case.lead == *subject, case.firing.first()) {
            case.lead = other.clone();
        }
        self.dirty.insert(case.incident.id.clone());
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
            let mut case = Case::new(incident, lead);
            case.past_bad = case.incident.bad_runs.saturating_sub(known);
            case.firing = firing;
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
        if alert.bad_runs > before.bad_runs {
            seen.failed = Some(now);
        }
        if before.phase.is_firing() && !alert.phase.is_firing() {
            self.reconsider_budget(subject, before.incident.as_deref());
        }
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
                        case.news.note(format!("{subject} is well again"));
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
                        case.news.note(format!("{subject}: {}", finding.said));
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

    /// Whether people are told that a journey's budget burns depends on whether they are told of the journey itself. Of many that
    /// failed for one cause they have heard together, and are not told of each budget when that is over.
    fn reconsider_budget(&mut self, subject: &Subject, incident: Option<&str>) {
        let Subject::Journey(name) = subject else { return };
        let case = incident.and_then(|id| self.cases.get(id));
        if case.is_some_and(|case| !matches!(case.incident.root, Root::Alone(_))) {
            return;
        }
        let budget = self.seen.get(&Subject::Budget(name.clone()));
        self.dirty.extend(budget.and_then(|budget| budget.alert.incident.clone()));
    }

    /// Calls through all other channels are not refused any more.
    pub fn block_only(&mut self, channels: &BTreeSet<Name>) {
        self.blocked.retain(|channel| channels.contains(channel));
    }

    /// Calls through a channel are refused from now on, or are not any more: until it is well, whoever fails of it is a member of its
    /// incident, also before anybody was told that it is down.
    pub fn block(&mut self, channel: &Name, is_blocked: bool) {
        if is_blocked {
            self.blocked.insert(channel.clone());
        } else {
            self.blocked.remove(channel);
        }
    }

    /// Somebody looks after an incident.
    ///
    /// # Errors
    /// No such incident is open.
    pub fn acknowledge(&mut self, id: &str, ack: Ack) -> Result<(), NotOpen> {
        let case = self.cases.get_mut(id).ok_or(NotOpen)?;
        let until = ack.until.map_or(String::new(), |until| format!(" until {}", utc(until)));
        case.news.note(format!("acknowledged by {}{until}", ack.by));
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
            case.news.note(format!("{by} took the acknowledgement back"));
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
        let labels = self.seen.get(subject)?.profile.labels();
        excluding.find(|silence| silence.is_about(&labels))
    }

    /// Every open incident.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.cases.values().map(|case| &case.incident)
    }

    /// An open incident and who is in it.
    pub fn incident(&self, id: &str) -> Option<(&Incident, Vec<Member>)> {
        self.cases.get(id).map(|case| (&case.incident, self.members(case)))
    }

    /// Whose runs show what an open incident is about.
    pub fn lead(&self, id: &str) -> Option<&Subject> {
        self.cases.get(id).map(|case| &case.lead)
    }

    /// Something happened that people of an open incident want to hear, and that nobody is called for.
    pub fn remark(&mut self, id: &str, what: String) {
        if let Some(case) = self.cases.get_mut(id) {
            case.news.note(what);
            self.dirty.insert(id.to_owned());
        }
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
}

/// There is no such incident, or no such silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing open has this id")]
pub struct NotOpen;
