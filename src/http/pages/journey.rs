//! One journey: where it stands, what it promises and keeps, how long it takes, and what its runs came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;
use serde::Deserialize;
use serde_json::json;

use super::run::evidence;
use super::{Context, listed, page, refuse, safe, svg};
use crate::board::JourneyStatus;
use crate::http::model::{JourneyDetail, RunView, SilenceView, cell_start};
use crate::http::{Shared, charts};
use crate::journey::objective::Objective;
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::slo::{Budget, History, Sli, SloStatus, spending};
use crate::store::{RunRow, SavedJourney};
use crate::time::between;

/// Runs in the latency chart.
const CHART_RUNS: usize = 200;
/// Runs in a page of the table.
const TABLE_RUNS: usize = 50;
/// The table goes back so many pages.
const PAGES: usize = 100;
/// Incidents on a journey's page.
const PAST_INCIDENTS: usize = 20;
/// Points of the curve of what is left of a budget.
const POINTS: u32 = 120;

/// Which page of the runs.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Paged {
    page: Option<usize>,
}

pub(in crate::http) async fn journey(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(paged): Query<Paged>,
) -> Response {
    let Some(status) = shared.views.board.journey(&name) else {
        return refuse(
            &shared,
            StatusCode::NOT_FOUND,
            "No journey has this name. It may have been renamed or removed.",
        );
    };
    let number = paged.page.unwrap_or(1).clamp(1, PAGES);
    let store = &shared.views.store;
    let name = status.journey.name.clone();
    // One more than is shown: whether there is a next page.
    let wanted = CHART_RUNS.max(number * TABLE_RUNS + 1);
    let (runs, past, saved) = tokio::join!(
        shared.ask(store.runs(name.clone(), None, wanted)),
        shared.ask(store.incidents(Some(name.clone()), None, PAST_INCIDENTS)),
        shared.ask(store.journey(name))
    );
    page(&shared, StatusCode::OK, "journey.html", move |shared| {
        let (now, docket) = (shared.views.clock.now().wall, shared.views.board.docket());
        let error = [runs.as_ref().err(), past.as_ref().err(), saved.as_ref().err()].into_iter().flatten().next();
        let error = error.cloned();
        let runs = runs.unwrap_or_default();
        let past: Vec<_> = past.unwrap_or_default().into_iter().map(|row| listed(row, &docket, now)).collect();
        let charted = &runs[..runs.len().min(CHART_RUNS)];
        let table: Vec<_> = runs.iter().skip((number - 1) * TABLE_RUNS).take(TABLE_RUNS).map(RunView::new).collect();
        let has_more = runs.len() > number * TABLE_RUNS && number < PAGES;
        let mut context = vec![
            ("journey", safe(shared, &JourneyDetail::new(&status, &shared.views.board, now))),
            ("strip", svg(charts::strip(&status.strip.cells(), |cell| cell_start(&status, cell), true))),
            ("chart", svg(charts::latency(charted, status.journey.budget, status.journey.deadline))),
            ("quantiles", quantiles(shared, charted)),
            ("came", safe(shared, &came(charted))),
            ("way", way(shared, &status)),
            ("silences", safe(shared, &SilenceView::of(&status.journey.name, &shared.views))),
            ("runs", safe(shared, &table)),
            ("number", Value::from(number)),
            ("earlier", Value::from(has_more)),
            ("charted", Value::from(charted.len())),
            ("past", safe(shared, &past)),
            ("store_error", safe(shared, &error)),
        ];
        context.extend(budgets(&status, saved.unwrap_or_default(), now));
        if let Some(last) = status.last.as_deref() {
            let before = status.last_good.as_deref().filter(|good| good.token != last.token);
            context.extend(evidence(shared, last, before));
        }
        context
    })
    .await
}

fn quantiles(shared: &Shared, runs: &[RunRow]) -> Value {
    let seconds = |quantiles: charts::Quantiles| json!({ "p50": quantiles.p50.as_secs_f64(), "p95": quantiles.p95.as_secs_f64() });
    safe(shared, &charts::Quantiles::of(runs).map(seconds))
}

/// What runs came to, the most frequent first.
fn came(runs: &[RunRow]) -> Vec<serde_json::Value> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for run in runs {
        *counts.entry((run.verdict, run.why.as_str())).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let share = |count: usize| count as f64 / runs.len().max(1) as f64;
    let entry =
        |((verdict, why), count)| json!({ "verdict": verdict, "why": why, "count": count, "share": share(count) });
    counts.into_iter().map(entry).collect()
}

/// The bar of what is left of each budget, and the curve of how it came to that.
fn budgets(status: &JourneyStatus, saved: SavedJourney, now: jiff::Timestamp) -> Context {
    let Some((slo, objective)) = status.slo.as_ref().zip(status.journey.objective.as_ref()) else { return Vec::new() };
    let history = History::new(objective.window.clone(), saved.spans, now);
    let curve = |sli, budget: &Budget| svg(curve(&history, slo, objective, sli, budget, now));
    let bar = |budget: &Budget| svg(charts::left_bar(budget.left_share()));
    vec![
        ("delivered_bar", bar(&slo.delivered)),
        ("delivered_curve", curve(Sli::Delivered, &slo.delivered)),
        ("in_budget_bar", Value::from(slo.in_budget.as_ref().map(bar))),
        ("in_budget_curve", Value::from(slo.in_budget.as_ref().map(|budget| curve(Sli::InBudget, budget)))),
    ]
}

fn curve(
    history: &History,
    slo: &SloStatus,
    objective: &Objective,
    sli: Sli,
    budget: &Budget,
    now: jiff::Timestamp,
) -> String {
    let (from, until) = slo.bounds;
    let is_bad = |counts: &crate::slo::Counts| counts.bad(sli, objective.late_is_good);
    let left = spending(history, budget, (from, now.min(until)), POINTS, is_bad);
    let gone = between(from, now).as_secs_f64() / between(from, until).as_secs_f64().max(1e-3);
    charts::left_curve(&left, gone)
}

/// Where the time of the last delivered run went: the steps that have parts, each with what the part took in the good run before.
fn way(shared: &Shared, status: &JourneyStatus) -> Value {
    let is_delivered = |report: &&Report| report.outcome.latency().is_some();
    let good = status.last_good.as_deref();
    let Some(run) = status.last.as_deref().filter(is_delivered).or(good) else { return Value::from(()) };
    let before = good.filter(|good| good.token != run.token);
    let steps = run.steps.iter().filter(|step| step.status != StepStatus::Skipped).filter_map(|step| {
        let parts = parts(step);
        (parts.len() > 1).then(|| {
            let other = before.and_then(|before| before.steps.iter().find(|other| other.name == step.name));
            let was: BTreeMap<_, _> = other.map(self::parts).unwrap_or_default().into_iter().collect();
            let whole = parts.iter().map(|(_, took)| *took).sum::<std::time::Duration>().as_secs_f64().max(1e-9);
            let part = |(name, took): &(&str, std::time::Duration)| {
                json!({
                    "name": name, "took": took.as_secs_f64(), "share": took.as_secs_f64() / whole,
                    "was": was.get(name).map(std::time::Duration::as_secs_f64),
                })
            };
            let bar = charts::parts_bar(&parts.iter().map(|(_, took)| *took).collect::<Vec<_>>());
            Value::from_pairs([
                ("step", safe(shared, &step.name)),
                ("hops", Value::from(!step.hops.is_empty())),
                ("parts", safe(shared, &parts.iter().map(part).collect::<Vec<_>>())),
                ("bar", svg(bar)),
            ])
        })
    });
    Value::from_pairs([
        ("slot", safe(shared, &run.slot)),
        ("token", safe(shared, &run.token.to_string())),
        ("steps", Value::from(steps.collect::<Vec<_>>())),
    ])
}

/// The hops of a message where its protocol tells, or else the phases of a call. What is left of the step's time is its own part.
fn parts(step: &StepReport) -> Vec<(&str, std::time::Duration)> {
    let hops = step.hops.iter().map(|hop| (hop.name.as_str(), hop.took));
    let phases = step.phases.iter().map(|phase| (phase.name.as_str(), phase.took));
    let mut parts: Vec<_> = if step.hops.is_empty() { phases.collect() } else { hops.collect() };
    let known = parts.iter().map(|(_, took)| *took).sum();
    let rest = step.took.saturating_sub(known);
    if !parts.is_empty() && rest > step.took / 50 {
        parts.push(("the rest", rest));
    }
    parts
}
