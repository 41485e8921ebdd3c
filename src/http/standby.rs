//! What a standby says of itself: it lives, it is not ready, and all else is another daemon's to answer.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gate::{self, Door, Inside, Limits};
use crate::http::api;

/// So that a scrape succeeds: a standby that is well is no target that is down.
const EXPOSITION: &str = "# HELP journeyman_standby Whether this daemon waits for the lease of its store.\n\
                          # TYPE journeyman_standby gauge\njourneyman_standby 1\n";

/// Serves a daemon that waits for its store, until told to stop. `said` is why, in words.
///
/// # Errors
/// The listener cannot accept any more.
pub async fn serve_standby(
    listener: TcpListener,
    door: Door,
    said: watch::Receiver<String>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    gate::serve(listener, "http", Limits::default(), door, Standby { said }, stop).await
}

struct Standby {
    said: watch::Receiver<String>,
}

impl Inside for Standby {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let said = self.said.borrow().clone();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match request.uri().path() {
            "/live" => api::json(&json!({ "live": true, "stuck": [] })),
            "/ready" => (unavailable, api::json(&json!({ "ready": false, "reasons": [said] }))).into_response(),
            "/health" | "/api/v1/health" => {
                let version = env!("CARGO_PKG_VERSION");
                api::json(&json!({ "status": "standby", "version": version, "detail": said, "components": {} }))
            }
            "/metrics" => {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], EXPOSITION).into_response()
            }
            path if path.starts_with("/api/") => api::refuse(unavailable, &said),
            // Whoever looks on sees when it takes over.
            _ => (unavailable, [(header::REFRESH, "5")], format!("{said}\n")).into_response(),
        }
    }
}
