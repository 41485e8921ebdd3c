//! What everybody may see: the status page and its badges. Nothing on them is named but by the titles of the configuration.
//!
//! Whoever comes costs at most one look into the history a minute, however many come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use minijinja::Value;
use serde_json::json;

use crate::board::{Docket, JourneyStatus};
use crate::control::status_page::{Component, HISTORY, StatusPage};
use crate::detect::Detector;
use crate::http::charts::{self, Tone};
use crate::http::pages::{page, refuse, safe, svg};
use crate::http::{Shared, model};
use crate::journey::Name;
use crate::slo::Counts;
use crate::store::IncidentRow;
use crate::time::{Human, Mono, between, earlier, later};

/// The history is looked up this often.
const FRESH: Duration = Duration::from_secs(60);
/// Incidents of a journey that are looked at, and those that are shown.
const INCIDENTS: usize = 20;
const SHOWN: usize = 30;
/// What is not working, and what is slow, for those who use it.
const BROKEN: &[Detector] = &[Detector::Down, Detector::Partial, Detector::ChannelDown, Detector::Integrity];
const SLOW: &[Detector] = &[Detector::Slow, Detector::Drift];
const DAY: Duration = Duration::from_secs(86_400);
/// Runs of the last day that a badge's latency is of, at most.
const RUNS: usize = 2_000;

/// What the store last said, and when it was asked.
pub(super) type Lately = Mutex<Option<(Mono, Arc<Facts>)>>;

/// What the store says of the journeys that the page is made of.
#[derive(Default)]
pub(super) struct Facts {
    /// By journey and day.
    days: BTreeMap<Name, BTreeMap<Timestamp, Counts>>,
    incidents: Vec<Past>,
    is_whole: bool,
}

struct Past {
    id: String,
    since: Timestamp,
    resolved: Option<Timestamp>,
    is_slow: bool,
    journeys: BTreeSet<Name>,
}

/// How a part is, in a word that everybody understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Operational,
    Degraded,
    Outage,
    Maintenance,
    Unknown,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Standing::Operational => "operational",
            Standing::Degraded => "degraded",
            Standing::Outage => "outage",
            Standing::Maintenance => "maintenance",
            Standing::Unknown => "unknown",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Standing::Operational => Tone::Good,
            Standing::Degraded => Tone::Middling,
            Standing::Outage => Tone::Bad,
            Standing::Maintenance | Standing::Unknown => Tone::Unknown,
        }
    }

    /// Of the journeys of a part: what is in maintenance says nothing about the others.
    fn of(members: &[Arc<JourneyStatus>], docket: &Docket, now: Timestamp) -> Standing {
        let is_planned = |status: &&Arc<JourneyStatus>| {
            let journey = &*status.journey;
            journey.maintenance.iter().any(|window| window.is_active(now))
                || docket.silences.iter().any(|silence| silence.keeps_from_running(journey, now))
        };
        let (planned, others): (Vec<_>, Vec<_>) = members.iter().partition(is_planned);
        let states: Vec<_> = others.iter().map(|status| model::State::of(status)).collect();
        let count = |wanted: &[model::State]| states.iter().filter(|state| wanted.contains(state)).count();
        let (down, blind) = (count(&[model::State::Down]), count(&[model::State::Stale, model::State::Unknown]));
        let troubled = count(&[model::State::Slow, model::State::Recovering]);
        match states.len() {
            0 if planned.is_empty() => Standing::Unknown,
            0 => Standing::Maintenance,
            all if down == all => Standing::Outage,
            _ if down + troubled > 0 => Standing::Degraded,
            all if blind == all => Standing::Unknown,
            _ => Standing::Operational,
        }
    }
}

/// The journeys of a part.
fn members(component: &Component, statuses: &[Arc<JourneyStatus>]) -> Vec<Arc<JourneyStatus>> {
    statuses.iter().filter(|status| component.has(&status.journey)).cloned().collect()
}

impl Shared {
    /// What the store says, at most as old as it may be.
    async fn facts(&self, public: &StatusPage) -> Arc<Facts> {
        let now = self.views.clock.now();
        let known = self.lately.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, facts)) = known.filter(|(at, _)| now.mono.since(*at) < FRESH) {
            return facts;
        }
        let statuses = self.views.board.journeys();
        let is_public = |status: &&Arc<JourneyStatus>| public.components.iter().any(|one| one.has(&status.journey));
        let names = statuses.iter().filter(is_public).map(|status| status.journey.name.clone());
        let facts = Arc::new(self.look_up(names, now.wall).await);
        *self.lately.lock().unwrap_or_else(PoisonError::into_inner) = Some((now.mono, facts.clone()));
        facts
    }

    async fn look_up(&self, names: impl Iterator<Item = Name>, now: Timestamp) -> Facts {
        let mut facts = Facts { is_whole: true, ..Facts::default() };
        let mut past: BTreeMap<String, Past> = BTreeMap::new();
        for name in names {
            let store = &self.views.store;
            let days = self.ask(store.days(name.clone(), earlier(now, HISTORY), now)).await;
            let incidents = self.ask(store.incidents(Some(name.clone()), None, INCIDENTS)).await;
            // What is slow for one is slow for all: the page goes without the rest.
            let (Ok(days), Ok(incidents)) = (days, incidents) else {
                facts.is_whole = false;
                break;
            };
            facts.days.insert(name.clone(), days.into_iter().map(|day| (day.start, day.counts)).collect());
            let is_lately = |row: &IncidentRow| row.resolved.is_none_or(|at| at > earlier(now, HISTORY));
            let found_by = |row: &IncidentRow, those: &[Detector]| {
                row.detectors.iter().any(|found| those.iter().any(|detector| detector.as_str() == found))
            };
            // That a budget is spent, or that we see nothing, is no news to those who use it.
            for row in incidents.into_iter().filter(|row| is_lately(row) && found_by(row, &[BROKEN, SLOW].concat())) {
                let is_slow = !found_by(&row, BROKEN);
                let (since, resolved, journeys) = (row.since, row.resolved, BTreeSet::new());
                let one = past.entry(row.id.clone());
                one.or_insert(Past { id: row.id, since, resolved, is_slow, journeys }).journeys.insert(name.clone());
            }
        }
        facts.incidents = past.into_values().collect();
        facts.incidents.sort_by_key(|past| std::cmp::Reverse(past.since));
        facts.incidents.truncate(SHOWN);
        facts
    }
}

impl Facts {
    /// The days of a part up to today, oldest first.
    fn history(&self, members: &[Arc<JourneyStatus>], now: Timestamp) -> Vec<Counts> {
        let days = (HISTORY.as_secs() / DAY.as_secs()) as i64;
        let today = now.as_second().div_euclid(DAY.as_secs() as i64);
        let start = |day: i64| Timestamp::from_second(day * DAY.as_secs() as i64).unwrap_or(Timestamp::MIN);
        let sum = |day: i64| {
            let mut sum = Counts::default();
            for counts in members.iter().filter_map(|status| self.days.get(&status.journey.name)?.get(&start(day))) {
                sum += *counts;
            }
            sum
        };
        (today - days + 1..=today).map(sum).collect()
    }
}

fn sum(days: &[Counts]) -> Counts {
    let mut all = Counts::default();
    days.iter().for_each(|day| all += *day);
    all
}

pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let Some(public) = shared.views.status_page.clone() else { return no_page(&shared) };
    let facts = shared.facts(&public).await;
    page(&shared, StatusCode::OK, "public.html", move |shared| {
        let (now, docket, statuses) =
            (shared.views.clock.now().wall, shared.views.board.docket(), shared.views.board.journeys());
        let parts: Vec<_> = public.components.iter().map(|part| (part, members(part, &statuses))).collect();
        let standings: Vec<_> = parts.iter().map(|(_, members)| Standing::of(members, &docket, now)).collect();
        let shown = parts.iter().zip(&standings).map(|((part, members), standing)| {
            let days = facts.history(members, now);
            let share = charts::share(&sum(&days));
            let title = format!("the last {} days", days.len());
            Value::from_pairs([
                ("title", safe(shared, &part.title)),
                ("group", safe(shared, &part.group)),
                ("standing", Value::from(standing.word())),
                ("share", safe(shared, &share)),
                ("days", svg(charts::days(&days, &title))),
            ])
        });
        let titles = |past: &Past| {
            let is_part = |members: &[Arc<JourneyStatus>]| {
                members.iter().any(|status| past.journeys.contains(&status.journey.name))
            };
            parts.iter().filter(|(_, members)| is_part(members)).map(|(part, _)| part.title.as_str()).collect::<Vec<_>>()
        };
        let incident = |past: &Past| {
            let open = docket.incident(&past.id);
            // It may have ended since the store was asked.
            let note = open.and_then(|open| open.incident.acked.as_ref()?.note.clone());
            json!({
                "since": past.since, "resolved": past.resolved, "slow": past.is_slow, "parts": titles(past), "note": note,
                "lasted_seconds": between(past.since, past.resolved.unwrap_or(now)).as_secs_f64(),
            })
        };
        vec![
            ("title", safe(shared, &public.title)),
            ("about", safe(shared, &public.about)),
            ("overall", Value::from(overall(&standings).word())),
            ("parts", Value::from(shown.collect::<Vec<_>>())),
            ("incidents", safe(shared, &facts.incidents.iter().map(incident).collect::<Vec<_>>())),
            ("whole", Value::from(facts.is_whole)),
        ]
    })
    .await
}

/// Of all parts together: an outage of one is not one of all.
fn overall(standings: &[Standing]) -> Standing {
    let has = |wanted: Standing| standings.contains(&wanted);
    let all = |wanted: Standing| !standings.is_empty() && standings.iter().all(|one| *one == wanted);
    match () {
        () if all(Standing::Outage) => Standing::Outage,
        () if has(Standing::Outage) || has(Standing::Degraded) => Standing::Degraded,
        () if standings.is_empty() || all(Standing::Unknown) => Standing::Unknown,
        () if all(Standing::Maintenance) => Standing::Maintenance,
        () => Standing::Operational,
    }
}

fn no_page(shared: &Shared) -> Response {
    refuse(shared, StatusCode::NOT_FOUND, "There is no such page.")
}

pub(super) async fn badge(State(shared): State<Arc<Shared>>, Path((title, what)): Path<(String, String)>) -> Response {
    let Some(public) = shared.views.status_page.clone() else { return no_page(&shared) };
    // What is not on the page is answered as what is not there at all.
    let Some(part) = public.components.iter().find(|part| part.title == title) else { return no_page(&shared) };
    let members = members(part, &shared.views.board.journeys());
    let now = shared.views.clock.now().wall;
    let drawn = match what.as_str() {
        "state.svg" => {
            let standing = Standing::of(&members, &shared.views.board.docket(), now);
            charts::badge(&part.title, standing.word(), standing.tone())
        }
        "uptime.svg" => {
            let facts = shared.facts(&public).await;
            match charts::share(&sum(&facts.history(&members, now))) {
                // Cut, and never rounded up.
                Some(share) => {
                    let tone = if share >= 0.999 {
                        Tone::Good
                    } else if share >= 0.95 {
                        Tone::Middling
                    } else {
                        Tone::Bad
                    };
                    charts::badge(&part.title, &format!("{:.2} % in 90 d", (share * 10_000.0).floor() / 100.0), tone)
                }
                None => charts::badge(&part.title, "no runs", Tone::Unknown),
            }
        }
        "latency.svg" => match median(&shared, &members, now).await {
            Ok(Some(median)) => charts::badge(&part.title, &Human(median).to_string(), Tone::Good),
            Ok(None) => charts::badge(&part.title, "no runs", Tone::Unknown),
            Err(_) => charts::badge(&part.title, "unknown", Tone::Unknown),
        },
        _ => return no_page(&shared),
    };
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "public, max-age=60")];
    (headers, drawn).into_response()
}

/// The median latency of the last day's delivered runs of the slowest of these journeys.
async fn median(shared: &Shared, members: &[Arc<JourneyStatus>], now: Timestamp) -> Result<Option<Duration>, String> {
    let mut slowest = None;
    for status in members {
        let name = status.journey.name.clone();
        let runs = shared.ask(shared.views.store.runs(name, None, RUNS)).await?;
        let from = earlier(now, DAY);
        let lately: Vec<_> = runs.into_iter().filter(|run| run.slot > from && run.slot <= later(now, DAY)).collect();
        slowest = slowest.max(charts::Quantiles::of(&lately).map(|quantiles| quantiles.p50));
    }
    Ok(slowest)
}
