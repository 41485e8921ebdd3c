//! The pages: rendered here, whole without script, from the board first. A store that does not answer costs its own part only.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use minijinja::Value;
use serde::Serialize;
use serde_json::json;

use crate::board::{Docket, JourneyStatus};
use crate::http::model::{
    self, ChannelView, Filter, IncidentView, JourneyDetail, JourneyView, NoticeView, ReportView, RunView, SilenceView,
    StepView, cell_start, shown,
};
use crate::http::{Shared, api, charts, run_again, template};
use crate::journey::own;
use crate::journey::report::Report;
use crate::store::IncidentRow;

/// Runs in the latency chart.
const CHART_RUNS: usize = 200;
/// Runs in a journey's table.
const TABLE_RUNS: usize = 50;
/// Incidents on a journey's page.
const PAST_INCIDENTS: usize = 20;
/// Rows on the pages that are lists.
const ROWS: usize = 200;
/// Notices looked through for those of open incidents.
const RECENT_NOTICES: usize = 60;

/// What a page is rendered from: named values.
pub(super) type Context = Vec<(&'static str, Value)>;

/// Builds and renders a page off the async workers, a bounded number at once.
pub(super) async fn page(
    shared: &Arc<Shared>,
    status: StatusCode,
    name: &'static str,
    build: impl FnOnce(&Shared) -> Context + Send + 'static,
) -> Response {
    let Ok(turn) = shared.renders.clone().acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let shared = shared.clone();
    let render = move || {
        let _turn = turn;
        render(&shared, name, build(&shared))
    };
    match tokio::task::spawn_blocking(render).await {
        Ok(Ok(html)) => (status, Html(html)).into_response(),
        Ok(Err(error)) => {
            tracing::error!(page = name, ?error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "This page could not be rendered; the log says why.\n").into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "This page could not be rendered.\n").into_response(),
    }
}

fn render(shared: &Shared, name: &str, mut context: Context) -> Result<String, minijinja::Error> {
    let views = &shared.views;
    let now = views.clock.now();
    let components = views.board.components(now.mono, now.wall);
    let troubles: Vec<_> = components.iter().filter(|(_, component)| !component.ok).collect();
    context.push(("location", safe(shared, &views.location)));
    context.push(("public_url", safe(shared, &views.public_url.as_ref().map(url::Url::as_str))));
    context.push(("troubles", safe(shared, &troubles)));
    shared.templates.render(name, Value::from_pairs(context), now.wall)
}

/// A model as a template sees it: without secrets, to be escaped.
pub(super) fn safe(shared: &Shared, model: &impl Serialize) -> Value {
    template::value(&shown(model, &shared.views.redactor))
}

/// SVG of ours.
fn svg(text: String) -> Value {
    Value::from_safe_string(text)
}

/// A refusal as a page.
pub(super) fn refuse(shared: &Shared, status: StatusCode, message: &str) -> Response {
    let context = vec![("code", Value::from(status.as_u16())), ("message", Value::from(message))];
    match render(shared, "error.html", context) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => (status, message.to_owned()).into_response(),
    }
}

pub(super) async fn status(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Response {
    let (notifiers, notices) = tokio::join!(shared.outbox_summary(), shared.outbox(None, None, RECENT_NOTICES));
    page(&shared, StatusCode::OK, "status.html", move |shared| {
        let now = shared.views.clock.now().wall;
        let (statuses, docket) = (shared.views.board.journeys(), shared.views.board.docket());
        let mut counts: BTreeMap<model::State, usize> = BTreeMap::new();
        for status in statuses.iter().filter(|status| filter.finds(&status.journey)) {
            *counts.entry(model::State::of(status)).or_default() += 1;
        }
        let matching: usize = counts.values().sum();
        let counts: Vec<_> = model::State::ALL
            .iter()
            .map(|state| json!({ "state": state.as_str(), "count": counts.get(state).copied().unwrap_or(0) }))
            .collect();
        let mut rows: Vec<_> = statuses.iter().filter(|status| filter.admits(status)).collect();
        rows.sort_by(|a, b| (model::State::of(a), &a.journey.name).cmp(&(model::State::of(b), &b.journey.name)));
        let notices_error = notifiers.as_ref().err().or(notices.as_ref().err()).cloned();
        let notices: Vec<_> = notices.unwrap_or_default().into_iter().map(NoticeView::new).collect();
        let mut open: Vec<_> = statuses.iter().filter(|status| status.phase.is_firing()).collect();
        open.sort_by_key(|status| (model::State::of(status), status.incident.as_ref().map(|incident| incident.since)));
        let channels = shared.views.board.channels().into_iter().filter(|(name, _)| !own::is_own(name));
        let own = shared.views.board.journey(own::NAME).map(|own| JourneyView::new(&own, &docket, now));
        let breakers = shared.views.board.breakers();
        let channels: Vec<_> = channels.map(|(name, status)| ChannelView::new(name, status, &breakers)).collect();
        vec![
            ("here", Value::from("status")),
            ("total", Value::from(statuses.len())),
            ("matching", Value::from(matching)),
            ("counts", safe(shared, &counts)),
            ("rows", Value::from(rows.iter().map(|status| row(shared, status, &docket, now)).collect::<Vec<_>>())),
            (
                "open",
                Value::from(
                    open.iter().map(|status| incident(shared, status, &docket, &notices, now)).collect::<Vec<_>>(),
                ),
            ),
            ("silences", safe(shared, &SilenceView::all(&shared.views))),
            ("channels", safe(shared, &channels)),
            ("own", safe(shared, &own)),
            ("notifiers", safe(shared, &notifiers.unwrap_or_default())),
            ("notices_error", safe(shared, &notices_error)),
            ("state", safe(shared, &filter.state)),
            ("q", safe(shared, &filter.q)),
        ]
    })
    .await
}

/// A journey's row: its model, and its charts beside it.
fn row(shared: &Shared, status: &JourneyStatus, docket: &Docket, now: jiff::Timestamp) -> Value {
    let latency = status.last.as_deref().and_then(|report| report.outcome.latency());
    let bar = latency.zip(status.journey.budget).map(|(latency, budget)| svg(charts::budget_bar(latency, budget)));
    Value::from_pairs([
        ("journey", safe(shared, &JourneyView::new(status, docket, now))),
        ("strip", svg(charts::strip(&status.strip, |cell| cell_start(status, cell), false))),
        ("bar", Value::from(bar)),
    ])
}

/// An open incident, with the notices that told of it.
fn incident(
    shared: &Shared,
    status: &JourneyStatus,
    docket: &Docket,
    notices: &[NoticeView],
    now: jiff::Timestamp,
) -> Value {
    let id = status.incident.as_ref().map_or("", |incident| &incident.id);
    let told: Vec<_> = notices.iter().filter(|notice| notice.incident() == id).collect();
    Value::from_pairs([
        ("journey", safe(shared, &JourneyView::new(status, docket, now))),
        ("notices", safe(shared, &told)),
    ])
}

pub(super) async fn journey(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let Some(status) = shared.views.board.journey(&name) else {
        return refuse(
            &shared,
            StatusCode::NOT_FOUND,
            "No journey has this name. It may have been renamed or removed.",
        );
    };
    let store = &shared.views.store;
    let name = status.journey.name.clone();
    let (runs, past) = tokio::join!(
        shared.ask(store.runs(name.clone(), None, CHART_RUNS)),
        shared.ask(store.incidents(Some(name), None, PAST_INCIDENTS))
    );
    page(&shared, StatusCode::OK, "journey.html", move |shared| {
        let (now, docket) = (shared.views.clock.now().wall, shared.views.board.docket());
        let error = runs.as_ref().err().or(past.as_ref().err()).cloned();
        let runs = runs.unwrap_or_default();
        let past: Vec<_> = past.unwrap_or_default().into_iter().map(|row| listed(row, &docket, now)).collect();
        let table: Vec<_> = runs.iter().take(TABLE_RUNS).map(RunView::new).collect();
        let left =
            |budget: Option<&crate::slo::Budget>| budget.map(|budget| svg(charts::left_bar(budget.left_share())));
        let slo = status.slo.as_ref();
        let mut context = vec![
            ("journey", safe(shared, &JourneyDetail::new(&status, &docket, now))),
            ("strip", svg(charts::strip(&status.strip, |cell| cell_start(&status, cell), true))),
            ("chart", svg(charts::latency(&runs, status.journey.budget, status.journey.deadline))),
            ("delivered_bar", Value::from(left(slo.map(|slo| &slo.delivered)))),
            ("in_budget_bar", Value::from(left(slo.and_then(|slo| slo.in_budget.as_ref())))),
            ("silences", safe(shared, &SilenceView::of(&status.journey.name, &shared.views))),
            ("runs", safe(shared, &table)),
            ("charted", Value::from(runs.len())),
            ("past", safe(shared, &past)),
            ("store_error", safe(shared, &error)),
        ];
        if let Some(last) = status.last.as_deref() {
            let before = status.last_good.as_deref().filter(|good| good.token != last.token);
            context.extend(evidence(shared, last, before));
        }
        context
    })
    .await
}

pub(super) async fn run(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Response {
    let going = run_again::going(&shared, &token);
    let report = match (api::find_run(&shared, &token).await, going) {
        (Ok(Some(report)), _) => report,
        (Ok(None), Some(run)) => return run_again::waiting(&shared, run).await,
        (Ok(None), None) => {
            let why = "No evidence is kept for this run. It is kept for failed and slow runs and a sample of good ones, for a time.";
            return refuse(&shared, StatusCode::NOT_FOUND, why);
        }
        (Err(error), _) => {
            return refuse(&shared, StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(&error));
        }
    };
    let before = api::good_before(&shared, &report).await;
    page(&shared, StatusCode::OK, "run.html", move |shared| evidence(shared, &report, before.as_ref())).await
}

/// A run step by step, beside a good one.
fn evidence(shared: &Shared, report: &Report, before: Option<&Report>) -> Context {
    let end = charts::waterfall_end(report, before);
    let steps: Vec<_> = report
        .steps
        .iter()
        .map(|step| {
            let other = before.and_then(|before| before.steps.iter().find(|other| other.name == step.name));
            Value::from_pairs([
                ("step", safe(shared, &StepView::new(step))),
                ("before", safe(shared, &other.map(StepView::new))),
                ("bar", svg(charts::waterfall_bar(step, other, end))),
            ])
        })
        .collect();
    vec![
        ("run", safe(shared, &ReportView::beside(report, before))),
        ("reference", safe(shared, &before.map(ReportView::new))),
        ("steps", Value::from(steps)),
        ("end_seconds", Value::from(end.as_secs_f64())),
    ]
}

/// An incident in a list, with what the docket knows of it.
pub(super) fn listed(row: IncidentRow, docket: &Docket, now: jiff::Timestamp) -> IncidentView {
    let open = docket.open.get(&row.id);
    IncidentView::new(row, open, now)
}

pub(super) async fn incidents(State(shared): State<Arc<Shared>>) -> Response {
    let rows = shared.ask(shared.views.store.incidents(None, None, ROWS)).await;
    page(&shared, StatusCode::OK, "incidents.html", move |shared| {
        let (now, docket) = (shared.views.clock.now().wall, shared.views.board.docket());
        let error = rows.as_ref().err().cloned();
        let rows: Vec<_> = rows.unwrap_or_default().into_iter().map(|row| listed(row, &docket, now)).collect();
        vec![
            ("here", Value::from("incidents")),
            ("silences", safe(shared, &SilenceView::all(&shared.views))),
            ("incidents", safe(shared, &rows)),
            ("store_error", safe(shared, &error)),
        ]
    })
    .await
}

pub(super) async fn outbox(State(shared): State<Arc<Shared>>) -> Response {
    let (rows, notifiers) = tokio::join!(shared.outbox(None, None, ROWS), shared.outbox_summary());
    page(&shared, StatusCode::OK, "outbox.html", move |shared| {
        let error = rows.as_ref().err().or(notifiers.as_ref().err()).cloned();
        let rows: Vec<_> = rows.unwrap_or_default().into_iter().map(NoticeView::new).collect();
        vec![
            ("here", Value::from("outbox")),
            ("notices", safe(shared, &rows)),
            ("notifiers", safe(shared, &notifiers.unwrap_or_default())),
            ("store_error", safe(shared, &error)),
        ]
    })
    .await
}

/// A file that pages load. Its address changes with its content, so it is kept for as long as anyone likes.
pub(super) async fn file(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match template::FILES.iter().find(|file| file.name == name) {
        Some(file) => {
            let headers = [
                (header::CONTENT_TYPE, file.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, file.content).into_response()
        }
        None => refuse(&shared, StatusCode::NOT_FOUND, "There is no such file."),
    }
}
