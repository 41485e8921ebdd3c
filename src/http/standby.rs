//! What a daemon says of itself that runs its part of the journeys and does not decide: how it is, and its own numbers. All else is
//! another daemon's to answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::Clock;
use crate::gate::{self, Door, Inside, Limits};
use crate::http::health::EXPOSITION;
use crate::http::{api, model};
use crate::metrics::Metrics;
use crate::secret::Redactor;

/// What it says.
pub struct Standby {
    /// Who decides, in words.
    pub said: watch::Receiver<String>,
    /// That this one is cut off from who decides, and why, in words.
    pub cut_off: watch::Receiver<Option<String>>,
    /// The registry behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// What the drivers say.
    pub board: Arc<Board>,
    /// Takes secrets out of everything that is shown.
    pub redactor: Redactor,
    /// The process's clock.
    pub clock: Clock,
    /// Whether everything is built and running.
    pub ready: Arc<AtomicBool>,
}

/// Serves a daemon that does not decide, until told to stop.
///
/// # Errors
/// The listener cannot accept any more.
pub async fn serve_standby(
    listener: TcpListener,
    door: Door,
    standby: Standby,
    stop: CancellationToken,
) -> std::io::Result<()> {
    gate::serve(listener, "http", Limits::default(), door, standby, stop).await
}

impl Inside for Standby {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let cut_off = self.cut_off.borrow().clone();
        let said = cut_off.unwrap_or_else(|| self.said.borrow().clone());
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let now = self.clock.now();
        match request.uri().path() {
            "/live" => {
                let stuck = self.board.stuck(now.mono);
                let status = if stuck.is_empty() { StatusCode::OK } else { unavailable };
                (status, api::json(&json!({ "live": stuck.is_empty(), "stuck": stuck }))).into_response()
            }
            // It takes what comes in, and runs what is its.
            "/ready" if self.ready.load(Ordering::Acquire) => {
                api::json(&json!({ "ready": true, "reasons": [], "decides": said }))
            }
            "/ready" => (unavailable, api::json(&json!({ "ready": false, "reasons": [said] }))).into_response(),
            "/health" | "/api/v1/health" => {
                let version = env!("CARGO_PKG_VERSION");
                let components = self.board.components(now.mono, now.wall);
                let body = json!({ "status": "standby", "version": version, "detail": said, "components": components });
                api::json(&model::shown(&body, &self.redactor))
            }
            "/metrics" => {
                let metrics = self.metrics.clone();
                match tokio::task::spawn_blocking(move || metrics.exposition(now.mono)).await {
                    Ok(packed) => {
                        let parts: Vec<_> = packed.parts().map(Ok::<_, Infallible>).collect();
                        let body = Body::from_stream(futures_util::stream::iter(parts));
                        ([(header::CONTENT_TYPE, EXPOSITION)], body).into_response()
                    }
                    Err(_) => api::refuse(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered"),
                }
            }
            path if path.starts_with("/api/") => api::refuse(unavailable, &said),
            // Whoever looks on sees when it takes over.
            _ => (unavailable, [(header::REFRESH, "5")], format!("{said}\n")).into_response(),
        }
    }
}
