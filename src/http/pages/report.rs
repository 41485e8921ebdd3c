//! A calendar month of every journey, to be read on a screen or on paper: what was promised, what was kept, what it cost.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use minijinja::Value;
use serde::{Deserialize, Serialize};

use super::{page, refuse, safe};
use crate::board::JourneyStatus;
use crate::http::Shared;
use crate::http::model::Filter;
use crate::journey::Name;
use crate::slo::{Counts, SUFFICIENT_COVERAGE, Sli};
use crate::store::IncidentRow;
use crate::time::between;

/// Journeys in one report; more are found with a filter.
const MOST: usize = 250;
/// Incidents of a journey that are looked through for those of the month.
const INCIDENTS: usize = 200;

/// Which month.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Month {
    /// `2026-10`; this month, if nothing is said.
    month: Option<String>,
}

/// A journey in a month.
#[derive(Debug, Serialize)]
struct Row {
    name: Name,
    owner: Option<String>,
    objective: Option<f64>,
    achieved: Option<f64>,
    /// Whether the objective was kept; null where there is none, or too little is known.
    kept: Option<bool>,
    /// The share of the month's slots, up to now, that have a verdict.
    coverage: f64,
    total_runs: Option<f64>,
    left_runs: Option<f64>,
    downtime_seconds: f64,
    incidents: usize,
    longest_seconds: Option<f64>,
}

impl Row {
    fn new(
        status: &JourneyStatus,
        counts: &Counts,
        incidents: &[IncidentRow],
        (from, until): (Timestamp, Timestamp),
    ) -> Row {
        let journey = &*status.journey;
        let objective = journey.objective.as_ref();
        let bad = counts.bad(Sli::Delivered, objective.is_some_and(|objective| objective.late_is_good));
        let valid = counts.valid();
        let interval = journey.schedule.interval(until);
        let slots = between(from, until).as_secs_f64() / interval.as_secs_f64().max(1e-3);
        let expected = (slots - counts.excluded as f64).max(1.0);
        let coverage = (valid as f64 / expected).min(1.0);
        let achieved = (valid > 0).then(|| (valid - bad) as f64 / valid as f64);
        let total = objective.map(|objective| (1.0 - objective.delivered) * expected);
        let lasted = |row: &IncidentRow| between(row.since.max(from), row.resolved.unwrap_or(until).min(until));
        Row {
            name: journey.name.clone(),
            owner: journey.owner.clone(),
            objective: objective.map(|objective| objective.delivered),
            achieved,
            kept: objective
                .zip(achieved)
                .filter(|_| coverage >= SUFFICIENT_COVERAGE)
                .map(|(objective, achieved)| achieved >= objective.delivered),
            coverage,
            total_runs: total,
            left_runs: total.map(|total| total - bad as f64),
            // Each bad run claims the time until the next one.
            downtime_seconds: interval.mul_f64(bad as f64).as_secs_f64(),
            incidents: incidents.len(),
            longest_seconds: incidents.iter().map(lasted).max().as_ref().map(Duration::as_secs_f64),
        }
    }
}

/// The bounds of a month in UTC, and the months before and after it.
fn month(text: Option<&str>, now: Timestamp) -> Option<(Date, Timestamp, Timestamp)> {
    let first = match text.filter(|text| !text.is_empty()) {
        Some(text) => format!("{text}-01").parse::<Date>().ok()?,
        None => now.to_zoned(TimeZone::UTC).date().first_of_month(),
    };
    let start = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let next = first.checked_add(jiff::Span::new().months(1)).ok()?;
    Some((first, start(first)?, start(next)?))
}

pub(in crate::http) async fn report(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<Month>,
    Query(filter): Query<Filter>,
) -> Response {
    let now = shared.views.clock.now().wall;
    let Some((first, from, end)) = month(asked.month.as_deref(), now) else {
        return refuse(&shared, StatusCode::BAD_REQUEST, "A month is written as in ?month=2026-10.");
    };
    let until = end.min(now).max(from);
    let mut statuses: Vec<_> = shared.views.board.journeys();
    statuses.retain(|status| filter.admits(status));
    let matching = statuses.len();
    statuses.truncate(MOST);
    let mut rows = Vec::with_capacity(statuses.len());
    let mut error = None;
    for status in &statuses {
        match look_up(&shared, status, from, end).await {
            Ok((counts, incidents)) => rows.push(Row::new(status, &counts, &incidents, (from, until))),
            // What is slow for one is slow for all.
            Err(why) => {
                error = Some(why);
                break;
            }
        }
    }
    page(&shared, StatusCode::OK, "report.html", move |shared| {
        let kept = |wanted| rows.iter().filter(|row| row.kept == wanted).count();
        let beside = |months: i64| first.checked_add(jiff::Span::new().months(months)).ok();
        let named = |date: Option<Date>| Value::from(date.map(|date| date.strftime("%Y-%m").to_string()));
        vec![
            ("here", Value::from("report")),
            ("month", named(Some(first))),
            ("title", Value::from(first.strftime("%B %Y").to_string())),
            ("before", named(beside(-1))),
            ("after", named(beside(1).filter(|_| end <= now))),
            ("is_over", Value::from(end <= now)),
            ("kept", Value::from(kept(Some(true)))),
            ("missed", Value::from(kept(Some(false)))),
            ("matching", Value::from(matching)),
            ("rest", safe(shared, &filter.rest(crate::http::template::path))),
            ("q", safe(shared, &filter.q)),
            ("owner", safe(shared, &filter.owner)),
            ("label", safe(shared, &filter.label)),
            ("rows", safe(shared, &rows)),
            ("store_error", safe(shared, &error)),
        ]
    })
    .await
}

/// What a journey's runs of a time came to, and the incidents that were open in it.
async fn look_up(
    shared: &Shared,
    status: &JourneyStatus,
    from: Timestamp,
    until: Timestamp,
) -> Result<(Counts, Vec<IncidentRow>), String> {
    let (store, name) = (&shared.views.store, &status.journey.name);
    let mut counts = Counts::default();
    for day in shared.ask(store.days(name.clone(), from, until)).await? {
        counts += day.counts;
    }
    let mut incidents = shared.ask(store.incidents(Some(name.clone()), None, INCIDENTS)).await?;
    incidents.retain(|row| row.since < until && row.resolved.is_none_or(|at| at > from));
    Ok((counts, incidents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_a_month_of_the_calendar() {
        let now: Timestamp = "2026-11-21T07:41:03Z".parse().unwrap();
        let bounds = |text| month(text, now).map(|(_, from, until)| (from.to_string(), until.to_string()));
        let november = Some(("2026-11-01T00:00:00Z".to_owned(), "2026-12-01T00:00:00Z".to_owned()));
        assert_eq!(bounds(None), november);
        assert_eq!(bounds(Some("")), november);
        assert_eq!(bounds(Some("2024-02")).unwrap().1, "2024-03-01T00:00:00Z");
        for bad in ["2026-13", "november", "2026-11-05", "99999-01"] {
            assert_eq!(bounds(Some(bad)), None, "{bad}");
        }
    }
}
