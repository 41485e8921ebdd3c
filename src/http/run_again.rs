//! Running a journey again, beside its schedule: by the API, and behind the link of a notice. As with every such link, opening it
//! changes nothing.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::commands::{Refusal, Which};
use crate::control::AskedRun;
use crate::control::grant::Deed;
use crate::http::control::{SOMEBODY, read, refused, words};
use crate::http::incident_pages::{BY_LINK, ask, granted, unlisted};
use crate::http::model::shown;
use crate::http::pages::{page, refuse, safe};
use crate::http::{Shared, api};
use crate::journey::token::Token;
use crate::notice::address;

const OVER: &str = "This incident is over, or there is none any more. `journeyman rerun` runs a journey at any time.";

/// `POST /api/v1/journeys/{name}/run`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunRequest {
    /// Who asks.
    by: Option<String>,
}

pub(super) async fn run(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response {
    let asked = match read::<RunRequest>(request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let by = match words(asked.by.as_deref().unwrap_or(SOMEBODY), "by") {
        Ok(by) => by,
        Err(why) => return api::refuse(StatusCode::BAD_REQUEST, &why),
    };
    match shared.views.commands.run(Which::Journey(name.into()), by).await {
        Ok(run) => accepted(&shared, &run),
        Err(refusal) => refused(&shared, &refusal),
    }
}

/// The run waits, or goes on; its evidence will be under its token.
pub(super) fn accepted(shared: &Shared, run: &AskedRun) -> Response {
    let page = address(shared.views.public_url.as_ref(), &["runs", &run.token.to_string()]);
    let view = json!({ "journey": run.journey, "token": run.token, "by": run.by, "at": run.at, "page": page });
    (StatusCode::ACCEPTED, api::json(&json!({ "asked": shown(&view, &shared.views.redactor) }))).into_response()
}

/// The run that somebody asked for, while it waits or goes on.
pub(super) fn going(shared: &Shared, token: &str) -> Option<AskedRun> {
    shared.views.board.asked(Token::parse(token)?)
}

/// The page of a run that somebody asked for and that has not ended.
pub(super) async fn waiting(shared: &Arc<Shared>, run: AskedRun) -> Response {
    page(shared, StatusCode::ACCEPTED, "asked.html", move |shared| vec![("run", safe(shared, &run))]).await
}

pub(super) async fn ask_to_run(State(shared): State<Arc<Shared>>, Path(grant): Path<String>) -> Response {
    ask(&shared, &grant, Deed::RunAgain, "run_again.html", OVER).await
}

pub(super) async fn run_by_link(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Response {
    let grant = match granted(&shared, &text, Deed::RunAgain).await {
        Ok(grant) => grant,
        Err(refusal) => return unlisted(refusal),
    };
    let answer = shared.views.commands.run(Which::Incident(grant.incident), BY_LINK.to_owned()).await;
    unlisted(match answer {
        // A page that is fetched anew must not ask again.
        Ok(run) => (StatusCode::SEE_OTHER, [(header::LOCATION, format!("/runs/{}", run.token))]).into_response(),
        Err(Refusal::Unknown(_)) => refuse(&shared, StatusCode::GONE, OVER),
        Err(Refusal::NotNow(why)) => refuse(&shared, StatusCode::TOO_MANY_REQUESTS, &shared.views.redactor.clean(&why)),
        Err(Refusal::Unavailable(why)) => {
            refuse(&shared, StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(&why))
        }
    })
}
