//! The API: what the pages show, as JSON.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::Shared;
use crate::http::model::{self, Filter, JourneyDetail, JourneyView, NoticeView, ReportView, RunView, shown};
use crate::http::pages::listed;
use crate::http::run_again;
use crate::journey::Name;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::store::{OutboxStatus, RunRow};

/// Runs looked through for a last good one.
const LOOKED_THROUGH: usize = 200;
/// Rows in a list unless asked otherwise.
const ROWS: usize = 100;
/// Rows in a list at most.
const MOST_ROWS: usize = 1_000;

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    limit: Option<usize>,
    /// It goes on after this row, as the part before said in `next`.
    after: Option<String>,
}

impl Part {
    fn rows(&self) -> Result<usize, String> {
        let rows = self.limit.unwrap_or(ROWS);
        if (1..=MOST_ROWS).contains(&rows) { Ok(rows) } else { Err(format!("`limit` is 1 to {MOST_ROWS}")) }
    }
}

/// What the next part goes on after; `None` where there is none.
fn next<T>(rows: &[T], wanted: usize, name: impl Fn(&T) -> String) -> Option<String> {
    rows.last().filter(|_| rows.len() >= wanted).map(name)
}

pub(super) async fn journeys(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Response {
    let states = model::State::ALL.map(model::State::as_str);
    if filter.state.as_deref().is_some_and(|state| !states.contains(&state)) {
        return refuse(StatusCode::BAD_REQUEST, &format!("`state` is one of {}", states.join(", ")));
    }
    let now = shared.views.clock.now().wall;
    let (statuses, docket) = (shared.views.board.journeys(), shared.views.board.docket());
    let admitted = statuses.iter().filter(|status| filter.admits(status));
    let journeys: Vec<_> = admitted.map(|status| JourneyView::new(status, &docket, now)).collect();
    answer(&shared, "journeys", journeys)
}

pub(super) async fn journey(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match shared.views.board.journey(&name) {
        Some(status) => {
            let now = shared.views.clock.now().wall;
            answer(&shared, "journey", JourneyDetail::new(&status, &shared.views.board, now))
        }
        None => refuse(StatusCode::NOT_FOUND, "no journey has this name"),
    }
}

pub(super) async fn runs(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(part): Query<Part>,
) -> Response {
    if shared.views.board.journey(&name).is_none() {
        return refuse(StatusCode::NOT_FOUND, "no journey has this name");
    }
    let wanted = match part.rows() {
        Ok(wanted) => wanted,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let before = match part.after.as_deref().map(str::parse::<Timestamp>).transpose() {
        Ok(before) => before,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "`after` is a slot, as `next` of the part before said it"),
    };
    match shared.ask(shared.views.store.runs(name.into(), before, wanted)).await {
        Ok(rows) => {
            let next = next(&rows, wanted, |row| row.slot.to_string());
            listing(&shared, "runs", rows.iter().map(RunView::new).collect::<Vec<_>>(), next)
        }
        Err(error) => unavailable(&shared, &error),
    }
}

pub(super) async fn run(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Response {
    // Asked first: whoever ends it writes before.
    let going = run_again::going(&shared, &token);
    match (find_run(&shared, &token).await, going) {
        (Ok(Some(report)), _) => {
            let good = good_before(&shared, &report).await;
            answer(&shared, "run", ReportView::beside(&report, good.as_ref()))
        }
        (Ok(None), Some(run)) => run_again::accepted(&shared, &run),
        (Ok(None), None) => refuse(StatusCode::NOT_FOUND, "no evidence is kept for this token"),
        (Err(error), _) => unavailable(&shared, &error),
    }
}

pub(super) async fn incidents(State(shared): State<Arc<Shared>>, Query(part): Query<Part>) -> Response {
    let wanted = match part.rows() {
        Ok(wanted) => wanted,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let now = shared.views.clock.now().wall;
    match shared.ask(shared.views.store.incidents(None, part.after, wanted)).await {
        Ok(rows) => {
            let next = next(&rows, wanted, |row| row.id.clone());
            let docket = shared.views.board.docket();
            let views: Vec<_> = rows.into_iter().map(|row| listed(row, &docket, now)).collect();
            listing(&shared, "incidents", views, next)
        }
        Err(error) => unavailable(&shared, &error),
    }
}

/// Which notices a list shows.
#[derive(Debug, Deserialize)]
pub(super) struct OutboxQuery {
    status: Option<OutboxStatus>,
    limit: Option<usize>,
    after: Option<String>,
}

pub(super) async fn outbox(State(shared): State<Arc<Shared>>, Query(query): Query<OutboxQuery>) -> Response {
    let part = Part { limit: query.limit, after: query.after };
    let wanted = match part.rows() {
        Ok(wanted) => wanted,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let rows = shared.outbox(query.status, part.after, wanted).await;
    let summary = shared.outbox_summary().await;
    match (rows, summary) {
        (Ok(rows), Ok(summary)) => {
            let next = next(&rows, wanted, |row| row.id.clone());
            let notices: Vec<_> = rows.into_iter().map(NoticeView::new).collect();
            let view = json!({ "notifiers": summary, "notices": notices, "next": next });
            json(&shown(&view, &shared.views.redactor))
        }
        (Err(error), _) | (_, Err(error)) => unavailable(&shared, &error),
    }
}

/// Brings the dead notices of a notifier back.
pub(super) async fn retry(State(shared): State<Arc<Shared>>, Path(notifier): Path<String>) -> Response {
    let now = shared.views.clock.now().wall;
    let notifier = Name::from(notifier);
    match shared.ask(shared.views.store.revive(notifier.clone(), now)).await {
        Ok(revived) => {
            tracing::info!(%notifier, revived, "dead notices are to be tried again, as the API asked");
            json(&json!({ "revived": revived }))
        }
        Err(error) => unavailable(&shared, &error),
    }
}

/// The evidence of a run: kept in the store, or still on the board.
pub(super) async fn find_run(shared: &Shared, token: &str) -> Result<Option<Report>, String> {
    let Some(token) = Token::parse(token) else { return Ok(None) };
    let stored = shared.ask(shared.views.store.report(token)).await?;
    Ok(stored.or_else(|| {
        let statuses = shared.views.board.journeys();
        let reports = statuses.iter().flat_map(|status| [status.last.clone(), status.last_good.clone()]).flatten();
        reports.into_iter().find(|report| report.token == token).map(|report| (*report).clone())
    }))
}

/// The last good run before this one that has evidence, or else the last one at all.
pub(super) async fn good_before(shared: &Shared, report: &Report) -> Option<Report> {
    let store = &shared.views.store;
    let runs = shared.ask(store.runs(report.journey.clone(), None, LOOKED_THROUGH)).await.unwrap_or_default();
    let is_before = |run: &&RunRow| run.slot < report.slot && run.verdict == Verdict::Good && run.token.is_some();
    let found = match runs.iter().find(is_before).and_then(|run| run.token) {
        Some(token) => shared.ask(store.report(token)).await.ok().flatten(),
        None => None,
    };
    let last = || shared.views.board.journey(&report.journey)?.last_good.as_deref().cloned();
    found.or_else(last).filter(|good| good.token != report.token)
}

pub(super) fn answer(shared: &Shared, name: &str, model: impl Serialize) -> Response {
    json(&json!({ name: shown(&model, &shared.views.redactor) }))
}

/// A part of a list.
fn listing(shared: &Shared, name: &str, rows: impl Serialize, next: Option<String>) -> Response {
    json(&json!({ name: shown(&rows, &shared.views.redactor), "next": next }))
}

pub(super) fn unavailable(shared: &Shared, error: &str) -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(error))
}

/// An error in the API's form.
pub(super) fn refuse(status: StatusCode, message: &str) -> Response {
    (status, json(&json!({ "error": message }))).into_response()
}

pub(super) fn json(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
