//! Drills: those that were made, and one that somebody asks for.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;
use serde::Deserialize;

use crate::commands::DrillRefusal;
use crate::drill::{Order, Record};
use crate::http::Shared;
use crate::http::api::{answer, refuse, unavailable};
use crate::http::control::{SOMEBODY, read, words};
use crate::http::pages::{page, safe};
use crate::time::parse_duration;

/// Drills in a list.
const ROWS: usize = 200;

/// `POST /api/v1/drills`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DrillRequest {
    journey: String,
    fault: String,
    within: Option<String>,
    by: Option<String>,
}

/// Of which journey.
#[derive(Debug, Deserialize)]
pub(super) struct Of {
    journey: Option<String>,
}

/// Without what is only for who comes after a crash.
fn shown(record: Record) -> Record {
    Record { open: None, ..record }
}

pub(super) async fn all(State(shared): State<Arc<Shared>>, Query(Of { journey }): Query<Of>) -> Response {
    match shared.ask(shared.views.store.drills(journey.map(Into::into), ROWS)).await {
        Ok(drills) => answer(&shared, "drills", drills.into_iter().map(shown).collect::<Vec<_>>()),
        Err(error) => unavailable(&shared, &error),
    }
}

pub(super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match shared.ask(shared.views.store.drill(id)).await {
        Ok(Some(drill)) => answer(&shared, "drill", shown(drill)),
        Ok(None) => refuse(StatusCode::NOT_FOUND, "there is and was no drill of this id"),
        Err(error) => unavailable(&shared, &error),
    }
}

pub(super) async fn begin(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let asked = match read::<DrillRequest>(request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let drills = shared.views.drills.as_ref();
    let Some((drills, within)) = drills.and_then(|drills| Some((drills, drills.within()?))) else {
        return refuse(StatusCode::BAD_REQUEST, &DrillRefusal::Nowhere.to_string());
    };
    let begun = match order(asked, within) {
        Ok(order) => drills.ask(order).await,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    match begun {
        Ok(drill) => answer(&shared, "drill", shown(drill)),
        Err(refusal) => {
            let status = match refusal {
                DrillRefusal::Unknown(_) => StatusCode::NOT_FOUND,
                DrillRefusal::NotNow(_) => StatusCode::TOO_MANY_REQUESTS,
                DrillRefusal::Pointless(_) | DrillRefusal::Nowhere => StatusCode::BAD_REQUEST,
                DrillRefusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(status, &shared.views.redactor.clean(&refusal.to_string()))
        }
    }
}

fn order(asked: DrillRequest, usual: std::time::Duration) -> Result<Order, String> {
    let within = asked
        .within
        .as_deref()
        .map(|text| parse_duration(text).map_err(|why| format!("{why}; write `within` as in \"2m\"")));
    Ok(Order {
        journey: words(&asked.journey, "journey")?.into(),
        fault: words(&asked.fault, "fault")?.parse()?,
        within: within.transpose()?.unwrap_or(usual),
        by: words(asked.by.as_deref().unwrap_or(SOMEBODY), "by")?,
    })
}

/// The page of drills.
pub(super) async fn drills(State(shared): State<Arc<Shared>>) -> Response {
    let rows = shared.ask(shared.views.store.drills(None, ROWS)).await;
    let is_possible = shared.views.drills.as_ref().is_some_and(|drills| drills.within().is_some());
    page(&shared, StatusCode::OK, "drills.html", move |shared| {
        let error = rows.as_ref().err().cloned();
        let rows: Vec<_> = rows.unwrap_or_default().into_iter().map(shown).collect();
        vec![
            ("here", Value::from("drills")),
            ("drills", safe(shared, &rows)),
            ("is_possible", Value::from(is_possible)),
            ("store_error", safe(shared, &error)),
        ]
    })
    .await
}
