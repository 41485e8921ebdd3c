//! What follows for people: who is told of an incident, why, and when it is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::alert::{Phase, Subject};
use crate::control::{Escalation, Labels, route};
use crate::detect::Severity;
use crate::incident::case::{Case, SPENT_QUIET};
use crate::incident::place::SPLIT_AFTER;
use crate::incident::{Action, Desk, LISTED, Member, NotifyReason, Profile, Root, Seen, Told, utc};
use crate::journey::Name;
use crate::time::{between, later};

/// An incident with more members than this is looked at once a second, not with every run.
const CROWD: usize = 64;
const CROWD_EVERY: Duration = Duration::from_secs(1);

impl Desk {
    pub(super) fn decide_case(&mut self, id: &str, now: Timestamp, actions: &mut Vec<Action>) {
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
                case.news.note(format!("the acknowledgement of {} has ended: {why}", ack.by));
                case.incident.acked = None;
            }
        }
        let notices = self.notices(&mut case, &view, now);
        if !notices.is_empty() {
            case.incident.sequence += 1;
            let members = self.members(&case);
            // The first notice shows how it is; what led there is no news to anybody.
            let is_first = case.incident.sequence == 1;
            let news = if is_first { Vec::new() } else { case.news.told() };
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
        let spent = self.spent_until(case, now);
        let incident = &mut case.incident;
        (incident.detectors, incident.flapping) = (BTreeSet::new(), None);
        incident.severity = Severity::Warning;
        incident.firing = case.firing.len() as u32;
        incident.bad_runs = case.past_bad;
        for subject in &case.firing {
            let Some(seen) = self.seen.get(subject) else { continue };
            let (alert, profile) = (&seen.alert, &seen.profile);
            incident.bad_runs += alert.bad_runs;
            incident.detectors.extend(alert.findings.iter().map(|finding| finding.detector));
            incident.flapping = incident.flapping.max(alert.flapping);
            let severity = alert.severity().unwrap_or(Severity::Warning);
            incident.severity = incident.severity.max(severity);
            incident.worst = incident.worst.max(severity);
            let mut labels = profile.labels();
            labels.insert("severity".to_owned(), severity.to_string());
            labels.insert(
                "detector".to_owned(),
                alert.detector().map(|detector| detector.to_string()).unwrap_or_default(),
            );
            let asked = self.why_quiet(profile, &labels, now);
            let inhibited = || spent.clone().or_else(|| self.inhibited(subject).map(|why| (why, None)));
            let is_asked = asked.is_some();
            if let Some((why, until)) = asked.or_else(inhibited) {
                view.is_inhibited |= !is_asked;
                view.quiet.get_or_insert(why);
                view.quiet_until = view.quiet_until.into_iter().chain(until).min();
                view.silenced += 1;
                continue;
            }
            let is_recovering = alert.phase == Phase::Recovering;
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

    /// Why nobody is told of what has these labels, and until when.
    fn why_quiet(&self, profile: &Profile, labels: &Labels, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
        if profile.muted {
            return Some(("muted in the configuration".to_owned(), None));
        }
        if let Some(silence) = self.silences.iter().find(|silence| silence.silences(labels, now)) {
            let said = format!("silenced by {} until {}: {}", silence.author, utc(silence.until), silence.reason);
            return Some((said, Some(silence.until)));
        }
        let (window, until) =
            profile.maintenance.iter().find_map(|window| Some((window, window.active_until(now)?)))?;
        Some((format!("in maintenance until {}: {}", utc(until), window.name), Some(until)))
    }

    /// Of a budget that burns because the journey is down, people know already.
    fn inhibited(&self, subject: &Subject) -> Option<String> {
        let Subject::Budget(name) = subject else { return None };
        let health = self.seen.get(&Subject::Journey(name.clone()))?;
        health.alert.phase.is_firing().then(|| format!("inhibited: {name} itself has an incident"))
    }

    /// Why nobody is called yet for budgets that an outage has spent of which people heard, and until when. Of one journey they are
    /// told when it is over: that its budget is gone is the news. Of many it is one more call for the same cause.
    fn spent_until(&self, case: &mut Case, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
        if !case.lead.is_budget() || !matches!(case.incident.root, Root::Shared { .. }) {
            return None;
        }
        if case.firing.iter().any(|subject| self.inhibited(subject).is_some()) {
            case.last_outage = Some(now);
        }
        let until = later(case.last_outage?, SPENT_QUIET);
        (until > now)
            .then(|| (format!("inhibited: spent by an outage; told at {} if it still is", utc(until)), Some(until)))
    }

    fn notices(&self, case: &mut Case, view: &View, now: Timestamp) -> Vec<(Name, NotifyReason)> {
        let can_update = case.is_updatable(&self.updatable);
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
        if let Some(quiet) = incident.quiet.as_ref().filter(|_| !case.was_quiet && can_update) {
            // Who sees it fire is to see why nothing more comes.
            case.news.note(quiet.clone());
            case.last_quiet = None;
        }
        let was_inhibited = std::mem::replace(&mut case.was_inhibited, view.is_inhibited && is_quiet);
        // Whoever was told before another incident said more knows of it: nobody is called once more when that is over.
        let is_released = std::mem::replace(&mut case.was_quiet, is_quiet) && !is_quiet && !was_inhibited;
        let mut notices = Vec::new();
        for (name, concern) in &audience {
            let standing = Standing {
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
                case.news.note("it was silenced until now".to_owned());
            }
        }
        let is_time = case.next_update().is_none_or(|at| at <= now);
        if !case.news.is_empty() && is_time {
            for name in case.incident.told.keys().filter(|name| self.updatable.contains(*name)) {
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
        next.extend(self.routes.iter().filter_map(|route| route.hours.as_ref()?.next_edge(now)));
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
        if !case.news.is_empty() && case.is_updatable(&self.updatable) {
            next.extend(case.next_update());
        }
        if matches!(incident.root, Root::Shared { .. }) {
            next.extend(case.cause_gone().map(|at| later(at, SPLIT_AFTER)));
        }
        next.into_iter().filter(|at| *at > now).min()
    }

    fn close(&mut self, case: Case, actions: &mut Vec<Action>) {
        let members = self.members(&case);
        let was_in: Vec<_> =
            case.ended.keys().filter_map(|subject| Some(self.seen.get(subject)?.profile.clone())).collect();
        let Case { mut incident, lead, past_bad, news, .. } = case;
        let news = news.told();
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
            let still_fires = |seen: &Seen| seen.alert.phase.is_firing() && silence.is_about(&seen.profile.labels());
            !silence.until_resolved
                || !was_in.iter().any(|profile| silence.is_about(&profile.labels()))
                || self.seen.values().any(still_fires)
        });
        actions.push(Action::Closed { incident: Box::new(incident), lead });
    }

    pub(super) fn members(&self, case: &Case) -> Vec<Member> {
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

/// What a look at an incident gives for those who may be told.
#[derive(Default)]
struct View {
    audience: BTreeMap<Name, Concern>,
    escalate: Vec<(Escalation, Severity)>,
    quiet: Option<String>,
    quiet_until: Option<Timestamp>,
    silenced: usize,
    /// What keeps people from being told is another incident.
    is_inhibited: bool,
}

/// What an incident is to one notifier.
#[derive(Clone, Copy)]
struct Concern {
    severity: Severity,
    remind: Option<Duration>,
}

/// How an incident that fires stands for one notifier, for [`should_notify`].
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// How bad it is now.
    pub severity: Severity,
    /// Told again this often.
    pub remind: Option<Duration>,
    /// Nobody is to be told that it fires.
    pub is_quiet: bool,
}

/// Whether to tell a notifier of an incident that fires, and why. `told` is what it was told last about it. That it is over, everybody hears
/// who heard of it.
pub fn should_notify(told: Option<&Told>, standing: Standing, now: Timestamp) -> Option<NotifyReason> {
    match (told, standing) {
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
