//! What the sandbox's HTTP servers share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A callback is given up after this long, as providers do.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `routes` on a loopback port of its own until `stop`.
pub(super) async fn serve(tasks: &TaskTracker, stop: &CancellationToken, routes: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let stopped = stop.clone().cancelled_owned();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
            tracing::warn!(%address, %error, "a sandbox server ended");
        }
    });
    Ok(address)
}

/// A client for callbacks.
pub(super) fn callback_client() -> io::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(CALLBACK_TIMEOUT).no_proxy().build().map_err(io::Error::other)
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}

/// Whether the caller shows `key` as its bearer token.
pub(super) fn has_bearer(headers: &HeaderMap, key: &str) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| shown.ct_eq(key.as_bytes()).into())
}
