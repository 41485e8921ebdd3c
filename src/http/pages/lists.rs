//! The pages that are lists: incidents, and the notices that people are owed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;

use super::{page, safe, svg};
use crate::board::Docket;
use crate::detect::Severity;
use crate::http::model::{IncidentView, NoticeView, SilenceView};
use crate::http::{Shared, charts};
use crate::store::IncidentRow;
use crate::time::earlier;

/// Rows on a page.
const ROWS: usize = 200;
/// The timeline of incidents goes back so far.
const TIMELINE: Duration = Duration::from_secs(30 * 86_400);

/// An incident in a list, with what the docket knows of it.
pub(in crate::http) fn listed(row: IncidentRow, docket: &Docket, now: jiff::Timestamp) -> IncidentView {
    let open = docket.incident(&row.id);
    IncidentView::new(row, open, now)
}

pub(in crate::http) async fn incidents(State(shared): State<Arc<Shared>>) -> Response {
    let rows = shared.ask(shared.views.store.incidents(None, None, ROWS)).await;
    page(&shared, StatusCode::OK, "incidents.html", move |shared| {
        let (now, docket) = (shared.views.clock.now().wall, shared.views.board.docket());
        let error = rows.as_ref().err().cloned();
        let rows = rows.unwrap_or_default();
        let from = earlier(now, TIMELINE);
        let stretches: Vec<_> = rows.iter().map(stretch).filter(|one| one.until.is_none_or(|at| at > from)).collect();
        let rows: Vec<_> = rows.into_iter().map(|row| listed(row, &docket, now)).collect();
        vec![
            ("here", Value::from("incidents")),
            ("silences", safe(shared, &SilenceView::all(&shared.views))),
            ("timeline", svg(charts::timeline(&stretches, from, now))),
            ("lately", Value::from(stretches.len())),
            ("incidents", safe(shared, &rows)),
            ("store_error", safe(shared, &error)),
        ]
    })
    .await
}

fn stretch(row: &IncidentRow) -> charts::Stretch {
    let is_critical = row.severity == Severity::Critical.as_str();
    charts::Stretch { from: row.since, until: row.resolved, is_critical }
}

pub(in crate::http) async fn outbox(State(shared): State<Arc<Shared>>) -> Response {
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
