//! Has the configuration read again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::commands::ReloadError;
use crate::http::api::{json, refuse};
use crate::http::control::SOMEBODY;
use crate::http::{Shared, api};

/// `POST /api/v1/reload`
pub(super) async fn reload(State(shared): State<Arc<Shared>>) -> Response {
    let Some(reloads) = &shared.views.reloads else {
        return refuse(StatusCode::NOT_FOUND, "this daemon's configuration is in no files");
    };
    let clean = |text: String| shared.views.redactor.clean(&text);
    match reloads.ask(SOMEBODY.to_owned()).await {
        Ok(reloaded) => json(&json!({ "reloaded": reloaded.changes, "said": reloaded.said })),
        Err(ReloadError::NotAccepted(why)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &clean(why)),
        Err(ReloadError::Unavailable(why)) => api::unavailable(&shared, &why.to_string()),
    }
}
