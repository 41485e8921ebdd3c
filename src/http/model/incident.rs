//! Incidents and silences, as data: who looks after what, what is quiet, until when and why.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::seconds;
use crate::alert::Subject;
use crate::board::OpenIncident;
use crate::control::{Ack, Labels, Silence};
use crate::http::Views;
use crate::http::model::NoticeView;
use crate::incident::{Incident, Member, Root};
use crate::journey::{Journey, Name};
use crate::notifier::Receipt;
use crate::store::{IncidentRow, OutboxRow};
use crate::time::between;

/// An incident, in a list.
#[derive(Debug, Serialize)]
pub(in crate::http) struct IncidentView {
    #[serde(flatten)]
    row: IncidentRow,
    /// The journey, if it is of one alone.
    journey: Option<Name>,
    open: bool,
    lasted_seconds: f64,
    /// Who looks after it.
    acked: Option<Ack>,
    /// Why nobody is told of it.
    quiet: Option<String>,
}

impl IncidentView {
    pub(in crate::http) fn new(row: IncidentRow, open: Option<&OpenIncident>, now: Timestamp) -> IncidentView {
        let lasted_seconds = seconds(between(row.since, row.resolved.unwrap_or(now)));
        let journey = Subject::from(&*row.subject).journey().filter(|_| row.members == 1).cloned();
        IncidentView {
            open: row.resolved.is_none(),
            lasted_seconds,
            journey,
            acked: open.and_then(|open| open.incident.acked.clone()),
            quiet: open.and_then(|open| open.incident.quiet.clone()),
            row,
        }
    }
}

/// An incident, all of it.
#[derive(Debug, Serialize)]
pub(in crate::http) struct IncidentDetail {
    #[serde(flatten)]
    incident: IncidentView,
    /// The likely cause that its members share, and why we think so.
    cause: Option<String>,
    /// Members that fire now.
    firing: u32,
    /// So many cycles of firing and ending came before it.
    flapping: Option<u32>,
    /// When each notifier was told last.
    told: BTreeMap<Name, Timestamp>,
    /// Those that fire first; a long list is cut.
    member_list: Vec<MemberView>,
    /// Newest first.
    notices: Vec<NoticeView>,
}

/// A member of an incident.
#[derive(Debug, Serialize)]
struct MemberView {
    subject: String,
    journey: Option<Name>,
    said: String,
    since: Timestamp,
    ended: Option<Timestamp>,
}

impl MemberView {
    fn new(member: &Member) -> MemberView {
        MemberView {
            subject: member.subject.to_string(),
            journey: member.subject.journey().cloned(),
            said: member.said.clone(),
            since: member.since,
            ended: member.ended,
        }
    }
}

impl IncidentDetail {
    /// From what the board and the store have of it; `None` if neither has anything. Once it is over, its members are those of
    /// its last notice.
    pub(in crate::http) fn new(
        open: Option<&OpenIncident>,
        row: Option<IncidentRow>,
        notices: Vec<OutboxRow>,
        now: Timestamp,
    ) -> Option<IncidentDetail> {
        let row = row.or_else(|| open.map(|open| row_of(&open.incident)))?;
        let told_members = notices.first().map(|notice| notice.notification.members.as_slice()).unwrap_or_default();
        let members = open.map_or(told_members, |open| open.members.as_slice());
        let incident = open.map(|open| &open.incident);
        let cause = incident.and_then(|incident| match &incident.root {
            Root::Shared { resource, said } => Some(format!("{resource}: {said}")),
            Root::Alone(_) | Root::Storm => None,
        });
        Some(IncidentDetail {
            cause,
            firing: incident.map_or(0, |incident| incident.firing),
            flapping: incident.and_then(|incident| incident.flapping),
            told: incident.into_iter().flat_map(|one| &one.told).map(|(name, told)| (name.clone(), told.at)).collect(),
            member_list: members.iter().map(MemberView::new).collect(),
            notices: notices.into_iter().map(NoticeView::new).collect(),
            incident: IncidentView::new(row, open, now),
        })
    }
}

/// Something that happened in an incident.
#[derive(Debug, Serialize)]
pub(in crate::http) struct EventView {
    at: Timestamp,
    /// The state that it led to, in a word.
    state: &'static str,
    /// What happened, in words.
    said: String,
    /// What the other side gave for the notice.
    receipt: Option<Receipt>,
}

impl IncidentDetail {
    /// What happened in it, in order: what failed, who was told and who took it, who looked after it, and its end.
    pub(in crate::http) fn events(&self) -> Vec<EventView> {
        let event = |at, state, said| EventView { at, state, said, receipt: None };
        let row = &self.incident.row;
        let mut events = vec![event(row.since, "firing", "the first bad slot".to_owned())];
        for member in self.member_list.iter().take(MEMBERS) {
            events.push(event(member.since, "firing", format!("{}: {}", member.subject, member.said)));
            events.extend(member.ended.map(|at| event(at, "recovering", format!("{} is well again", member.subject))));
        }
        events.extend(self.notices.iter().map(NoticeView::event));
        if let Some(ack) = &self.incident.acked {
            let note = ack.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            events.push(event(ack.at, "acked", format!("{} looks after it{note}", ack.by)));
        }
        events.extend(row.resolved.map(|at| event(at, "resolved", "it is over".to_owned())));
        events.sort_by_key(|event| event.at);
        events
    }
}

impl EventView {
    pub(super) fn new(at: Timestamp, state: &'static str, said: String, receipt: Option<Receipt>) -> EventView {
        EventView { at, state, said, receipt }
    }
}

/// Members whose beginning and end are among the events; the others are in their own list.
const MEMBERS: usize = 20;

/// What the store would have of an open incident.
fn row_of(incident: &Incident) -> IncidentRow {
    IncidentRow {
        id: incident.id.clone(),
        subject: incident.title(),
        since: incident.since,
        resolved: None,
        severity: incident.worst.to_string(),
        detectors: incident.detectors.iter().map(ToString::to_string).collect(),
        summary: String::new(),
        bad_runs: incident.bad_runs,
        members: incident.members,
    }
}

/// A silence.
#[derive(Debug, Serialize)]
pub(in crate::http) struct SilenceView {
    #[serde(flatten)]
    silence: Silence,
    /// The journeys that it is about now.
    journeys: Vec<Name>,
}

impl SilenceView {
    pub(in crate::http) fn new(silence: Silence, views: &Views) -> SilenceView {
        SilenceView::among(silence, &labelled(views))
    }

    /// Those that are about a journey, and not over.
    pub(in crate::http) fn of(journey: &Name, views: &Views) -> Vec<SilenceView> {
        let mut silences = SilenceView::all(views);
        silences.retain(|silence| silence.journeys.contains(journey));
        silences
    }

    /// Those that are not over.
    pub(in crate::http) fn all(views: &Views) -> Vec<SilenceView> {
        let now = views.clock.now().wall;
        let docket = views.board.docket();
        let mut silences = docket.silences.iter().filter(|silence| silence.until > now).peekable();
        let journeys = silences.peek().map(|_| labelled(views)).unwrap_or_default();
        silences.map(|silence| SilenceView::among(silence.clone(), &journeys)).collect()
    }

    fn among(silence: Silence, journeys: &[(Name, Labels)]) -> SilenceView {
        let about = journeys.iter().filter(|(_, labels)| silence.is_about(labels));
        SilenceView { journeys: about.map(|(name, _)| name.clone()).collect(), silence }
    }
}

/// Every journey with what matchers see of it.
fn labelled(views: &Views) -> Vec<(Name, Labels)> {
    let labelled = |journey: &Journey| {
        let mut labels = journey.alert_labels(views.location.as_deref());
        labels.insert("subject".to_owned(), journey.name.to_string());
        (journey.name.clone(), labels)
    };
    views.board.journeys().iter().map(|status| labelled(&status.journey)).collect()
}
