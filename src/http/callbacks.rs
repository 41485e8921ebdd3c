//! Calls of other services through which people ask for something. Whoever takes them knows them by their signature.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::commands::Denial;
use crate::http::{Shared, api};

/// A call is no longer than this, in bytes: a message of Slack's comes back whole in it.
const LARGEST: usize = 256 * 1024;
/// The call must be here by then: Slack gives up after three seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Somebody pressed a button in Slack. <https://docs.slack.dev/interactivity/handling-user-interaction>
pub(super) async fn slack(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(callback) = shared.views.slack.now() else { return api::refuse(StatusCode::NOT_FOUND, "no such route") };
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, LARGEST)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return api::refuse(StatusCode::PAYLOAD_TOO_LARGE, "the call is too long, or broke off"),
        Err(_) => return api::refuse(StatusCode::REQUEST_TIMEOUT, "the call took too long"),
    };
    // A header that is there twice is no header: nobody could say which one was signed.
    let header = |name: &str| {
        let mut values = head.headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok().map(str::to_owned)
    };
    match callback.called(&header, &body) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(denial) => {
            tracing::warn!(%denial, "a call to /slack/interactions was refused");
            let status = match denial {
                Denial::Forged(_) => StatusCode::UNAUTHORIZED,
                Denial::Unreadable(_) => StatusCode::BAD_REQUEST,
                Denial::Busy => StatusCode::SERVICE_UNAVAILABLE,
            };
            api::refuse(status, &denial.to_string())
        }
    }
}
