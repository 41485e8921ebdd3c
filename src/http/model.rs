//! What is shown, as data: the API answers with it, and the pages are rendered from it. Field names are a promise.
//!
//! Durations are seconds, times are RFC 3339 in UTC, shares lie in `0..=1`; what is not known is null.

mod channel;
mod filter;
mod incident;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::alert::Phase;
use crate::board::{Board, Docket, JourneyStatus, STRIP_CELLS};
use crate::control::Ack;
use crate::detect::{Detector, Severity};
use crate::incident::Incident;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::schedule::Schedule;
use crate::journey::{Journey, Name};
use crate::secret::Redactor;
use crate::slo::{Composition, Counts, SloView};
use crate::time::{Human, earlier, later};

pub(super) use channel::{ChannelView, Users};
pub(super) use filter::{Filter, GROUP, OWNER};
pub(super) use incident::{IncidentDetail, IncidentView, SilenceView};
pub(super) use record::{NoticeView, ReportView, RunView, StepView};

/// One cell of the strip that shows 24 hours.
const CELL: Duration = Duration::from_secs(86_400 / STRIP_CELLS as u64);

/// `model` as JSON, without secrets: the one way out for pages and API.
pub(super) fn shown(model: &impl Serialize, redactor: &Redactor) -> Value {
    let mut value = serde_json::to_value(model).expect("every model is plain data with text keys");
    redact(&mut value, redactor);
    value
}

fn redact(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => {
            if let Some(clean) = redactor.redact(text) {
                *text = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, redactor)),
        Value::Object(members) => members.values_mut().for_each(|member| redact(member, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// A journey in one word, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Firing: failed runs.
    Down,
    /// Firing: slow runs.
    Slow,
    /// Firing: no verdict.
    Stale,
    /// Something was bad, not often enough to tell anyone.
    Suspect,
    /// Good again, not yet often enough.
    Recovering,
    /// Nothing is known to be wrong, and the last slot has no verdict, or there was none yet.
    Unknown,
    /// Nothing is wrong.
    Ok,
}

impl State {
    pub(super) const ALL: [State; 7] =
        [State::Down, State::Slow, State::Stale, State::Suspect, State::Recovering, State::Unknown, State::Ok];

    pub(super) fn of(status: &JourneyStatus) -> State {
        match &status.phase {
            Phase::Firing => State::of_detector(status.findings.first().map(|finding| finding.detector)),
            Phase::Suspect => State::Suspect,
            Phase::Recovering => State::Recovering,
            Phase::Ok => match status.last.as_deref().map(|report| report.outcome.verdict()) {
                None | Some(Verdict::Unknown) => State::Unknown,
                Some(_) if status.journey.unavailable.is_some() => State::Unknown,
                Some(_) => State::Ok,
            },
        }
    }

    /// The word that the notices of the incident have.
    fn of_detector(detector: Option<Detector>) -> State {
        match detector {
            Some(Detector::Slow | Detector::Drift) => State::Slow,
            Some(Detector::Stale) => State::Stale,
            Some(_) | None => State::Down,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Slow => "slow",
            State::Stale => "stale",
            State::Suspect => "suspect",
            State::Recovering => "recovering",
            State::Unknown => "unknown",
            State::Ok => "ok",
        }
    }
}

/// A journey, in a list.
#[derive(Debug, Serialize)]
pub(super) struct JourneyView {
    name: Name,
    state: State,
    owner: Option<String>,
    runbook: Option<String>,
    labels: BTreeMap<String, String>,
    critical: bool,
    muted: bool,
    /// The name of the maintenance window that is open.
    maintenance: Option<String>,
    /// Until when somebody wants it not to be run.
    paused: Option<Timestamp>,
    unavailable: Option<String>,
    /// The place that it is run from, and the journey that it is a part of.
    location: Option<Name>,
    part_of: Option<Name>,
    /// In so many of its places it has to fail before people are told; null where it has none.
    quorum: Option<usize>,
    interval_seconds: f64,
    budget_seconds: Option<f64>,
    deadline_seconds: f64,
    incident: Option<OpenIncident>,
    /// The open incident that its error budget is part of.
    budget_incident: Option<String>,
    last_run: Option<LastRun>,
    last_good: Option<Timestamp>,
    slo: Option<SloView>,
    at: Timestamp,
}

impl JourneyView {
    pub(super) fn new(status: &JourneyStatus, docket: &Docket, now: Timestamp) -> JourneyView {
        let journey = &*status.journey;
        JourneyView {
            name: journey.name.clone(),
            state: State::of(status),
            owner: journey.owner.clone(),
            runbook: journey.runbook.clone(),
            labels: journey.labels.clone(),
            critical: journey.critical,
            muted: journey.muted,
            maintenance: journey.maintenance.iter().find(|window| window.is_active(now)).map(|open| open.name.clone()),
            paused: docket
                .silences
                .iter()
                .filter(|silence| silence.keeps_from_running(journey, now))
                .map(|pause| pause.until)
                .max(),
            unavailable: journey.unavailable.clone(),
            location: journey.seen_from(None).map(Name::from),
            part_of: journey.is_part().then(|| journey.told_as().clone()),
            quorum: journey.places().map(|places| places.quorum),
            interval_seconds: seconds(journey.schedule.interval(now)),
            budget_seconds: journey.budget.map(seconds),
            deadline_seconds: seconds(journey.deadline),
            incident: status.incident.as_deref().map(|incident| {
                // The docket is the newer one: what changes about an incident need not change all of its journeys.
                let newest = docket.incident(&incident.id).map_or(incident, |open| &open.incident);
                OpenIncident::new(newest, status)
            }),
            budget_incident: status.budget_incident.clone().filter(|id| docket.open.contains_key(id)),
            last_run: status.last.as_deref().map(LastRun::new),
            last_good: status.last_good.as_deref().map(|report| report.slot),
            slo: status.slo.as_deref().map(SloView::new),
            at: status.at,
        }
    }
}

/// The incident of a journey that fires or recovers.
#[derive(Debug, Serialize)]
pub(super) struct OpenIncident {
    id: String,
    since: Timestamp,
    state: State,
    severity: Severity,
    detectors: Vec<Detector>,
    bad_runs: u32,
    /// When people were told last; null if nobody was.
    told: Option<Timestamp>,
    /// Who looks after it.
    acked: Option<Ack>,
    /// Why nobody is told of it.
    quiet: Option<String>,
    /// The last run in a sentence.
    summary: Option<String>,
}

impl OpenIncident {
    fn new(incident: &Incident, status: &JourneyStatus) -> OpenIncident {
        OpenIncident {
            id: incident.id.clone(),
            since: incident.since,
            state: State::of(status),
            severity: incident.worst,
            detectors: incident.detectors.iter().copied().collect(),
            bad_runs: incident.bad_runs,
            told: incident.last_told(),
            acked: incident.acked.clone(),
            quiet: incident.quiet.clone(),
            summary: status.last.as_deref().map(Report::verdict_line),
        }
    }
}

/// A journey's last run, in a list.
#[derive(Debug, Serialize)]
struct LastRun {
    token: String,
    slot: Timestamp,
    ended: Timestamp,
    verdict: Verdict,
    why: &'static str,
    /// Null unless the run was delivered.
    latency_seconds: Option<f64>,
    summary: String,
}

impl LastRun {
    fn new(report: &Report) -> LastRun {
        LastRun {
            token: report.token.to_string(),
            slot: report.slot,
            ended: later(report.started, report.latency),
            verdict: report.outcome.verdict(),
            why: report.outcome.label(),
            latency_seconds: report.outcome.latency().map(seconds),
            summary: report.verdict_line(),
        }
    }
}

/// A journey, all of it.
#[derive(Debug, Serialize)]
pub(super) struct JourneyDetail {
    #[serde(flatten)]
    journey: JourneyView,
    schedule: String,
    next_slot: Option<Timestamp>,
    policy: String,
    notify: Vec<Name>,
    steps: Vec<StepPlan>,
    /// What each of its places sees of it.
    places: Vec<PlaceView>,
    /// Its share beside what its dependencies would make of it.
    composition: Option<Composition>,
    depends_on: Vec<Name>,
    last_24_hours: Vec<Cell>,
    last_report: Option<ReportView>,
    last_good_report: Option<ReportView>,
}

/// What a place sees of a journey.
#[derive(Debug, Serialize)]
pub(super) struct PlaceView {
    location: Name,
    /// The journey that is run from there.
    journey: Name,
    state: State,
    /// What is wrong, if something is.
    finding: Option<String>,
    last_run: Option<LastRun>,
}

impl PlaceView {
    /// What each place of a journey sees of it; nothing, if it is not run from several.
    pub(super) fn all(journey: &Journey, board: &Board) -> Vec<PlaceView> {
        let parts = journey.places().map(|places| places.parts.as_slice()).unwrap_or_default();
        let view = |(location, part): &(Name, Name)| {
            let status = board.journey(part)?;
            Some(PlaceView {
                location: location.clone(),
                journey: part.clone(),
                state: State::of(&status),
                finding: status.findings.first().map(|finding| finding.said.clone()),
                last_run: status.last.as_deref().map(LastRun::new),
            })
        };
        parts.iter().filter_map(view).collect()
    }
}

/// A step as it is defined.
#[derive(Debug, Serialize)]
struct StepPlan {
    name: Name,
    verb: &'static str,
    channel: Option<Name>,
    budget_seconds: Option<f64>,
    timeout_seconds: Option<f64>,
}

/// Half an hour of verdicts.
#[derive(Debug, Serialize)]
struct Cell {
    from: Timestamp,
    #[serde(flatten)]
    counts: Counts,
}

impl JourneyDetail {
    pub(super) fn new(status: &JourneyStatus, board: &Board, now: Timestamp) -> JourneyDetail {
        let (journey, docket) = (&*status.journey, &*board.docket());
        let cells = status.strip.cells().into_iter().enumerate();
        let good = |last: &Report| status.last_good.as_deref().filter(|good| good.token != last.token);
        let slo = status.slo.as_deref().map(SloView::exact);
        JourneyDetail {
            journey: JourneyView { slo, ..JourneyView::new(status, docket, now) },
            schedule: match &journey.schedule {
                Schedule::Every { every, .. } => format!("every {}", Human(*every)),
                Schedule::Cron(_) => format!("by calendar, about every {}", Human(journey.schedule.interval(now))),
            },
            next_slot: journey.schedule.next(now),
            policy: policy(journey),
            notify: journey.notify.clone(),
            composition: status.composition.as_deref().cloned(),
            depends_on: journey.depends_on.clone(),
            places: PlaceView::all(journey, board),
            steps: journey
                .steps
                .iter()
                .map(|step| StepPlan {
                    name: step.name.clone(),
                    verb: step.verb.as_str(),
                    channel: step.verb.channel().cloned(),
                    budget_seconds: step.budget.map(seconds),
                    timeout_seconds: step.timeout.map(seconds),
                })
                .collect(),
            last_24_hours: cells.map(|(at, counts)| Cell { from: cell_start(status, at), counts }).collect(),
            last_report: status.last.as_deref().map(|last| ReportView::beside(last, good(last))),
            last_good_report: status.last_good.as_deref().map(ReportView::new),
        }
    }
}

/// When the strip's cell `at` begins.
pub(super) fn cell_start(status: &JourneyStatus, at: usize) -> Timestamp {
    let back = STRIP_CELLS.saturating_sub(at);
    earlier(status.at, CELL * u32::try_from(back).unwrap_or(u32::MAX))
}

/// The alert policy in words.
fn policy(journey: &Journey) -> String {
    let policy = &journey.alert;
    let remind = match policy.remind {
        Some(remind) => format!("reminded every {}", Human(remind)),
        None => "never reminded".to_owned(),
    };
    let tells = match (journey.muted, journey.notify.is_empty()) {
        (true, _) => "Muted: tells nobody.".to_owned(),
        (false, true) => "Tells nobody: no notifier is named.".to_owned(),
        (false, false) => format!("Tells {}.", journey.notify.join(", ")),
    };
    format!(
        "Down after {} in a row, slow after {} in a row, stale after two intervals without a verdict. \
         Well again after {} in a row; {remind}. {tells}",
        plural(policy.down_after, "failed run"),
        plural(policy.slow_after, "slow run"),
        plural(policy.recover_after, "good run"),
    )
}

fn plural(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
