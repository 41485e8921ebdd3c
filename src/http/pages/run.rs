//! One run, step by step, beside a good one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;

use super::{Context, page, refuse, safe, svg};
use crate::http::model::{ReportView, StepView};
use crate::http::{Shared, api, charts, run_again};
use crate::journey::report::Report;

pub(in crate::http) async fn run(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Response {
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
    page(&shared, StatusCode::OK, "run.html", move |shared| {
        let mut context = evidence(shared, &report, before.as_ref());
        let logs = shared.views.trace_url.as_ref().map(|url| url.of(report.token));
        context.push(("logs", safe(shared, &logs)));
        context
    })
    .await
}

/// A run step by step, beside a good one.
pub(super) fn evidence(shared: &Shared, report: &Report, before: Option<&Report>) -> Context {
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
