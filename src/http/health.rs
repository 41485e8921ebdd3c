//! For machines that watch us: metrics, liveness, readiness, health.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::http::{Shared, api};
use crate::metrics::{Metrics, Packed};
use crate::time::Mono;

/// The board's component that says whether the store takes commits. Readiness needs it to be there and well.
pub const STORE_COMPONENT: &str = "store";

/// Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
pub(super) const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The rendered metrics: one render at a time, and none while the last is fresh, so that a storm of scrapes costs one a second.
pub(super) struct Exposition {
    metrics: Arc<Metrics>,
    turn: Arc<Semaphore>,
}

impl Exposition {
    pub(super) fn new(metrics: Arc<Metrics>) -> Exposition {
        Exposition { metrics, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The exposition as it was at `now` or less than a second before; `None` if rendering panicked.
    async fn at(&self, now: Mono) -> Option<Packed> {
        let turn = self.turn.clone().acquire_owned().await.ok()?;
        let metrics = self.metrics.clone();
        let render = move || {
            // Held by the work, not by the caller: one who leaves does not let a second render begin.
            let _turn = turn;
            metrics.exposition(now)
        };
        tokio::task::spawn_blocking(render).await.ok()
    }
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(packed) = shared.exposition.at(shared.views.clock.now().mono).await else {
        return api::refuse(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered");
    };
    let head = [(header::CONTENT_TYPE, EXPOSITION), (header::VARY, "accept-encoding")];
    if takes_gzip(&headers) {
        return (head, [(header::CONTENT_ENCODING, "gzip")], packed.gzip()).into_response();
    }
    let parts = futures_util::stream::iter(packed.parts().map(Ok::<_, Infallible>));
    (head, Body::from_stream(parts)).into_response()
}

/// Whether `Accept-Encoding` names gzip (RFC 9110, 12.5.3). Who would take anything (`*`) is not asked to unpack.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// Whether our own loops go round. Says nothing of the watched systems: restarting us would not heal them.
pub(super) async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let stuck = shared.views.board.stuck(shared.views.clock.now().mono);
    answer(stuck.is_empty(), json!({ "live": stuck.is_empty(), "stuck": stuck }))
}

/// No clock that is right shows a time before this version was made. By one that does, certificates are not valid yet and every
/// slot will be missed when it is set.
const MADE: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Whether we do our work: all is built, every loop goes round, what we learn can be kept, and the clock is not absurd.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let views = &shared.views;
    let now = views.clock.now();
    let mut reasons = Vec::new();
    if !views.ready.load(Ordering::Acquire) {
        reasons.push("still starting".to_owned());
    }
    reasons.extend(views.board.stuck(now.mono).iter().map(|name| format!("loop {name} is stuck")));
    match views.board.components(now.mono, now.wall).get(STORE_COMPONENT) {
        Some(store) if store.ok => {}
        Some(store) => reasons.push(format!("store: {}", views.redactor.clean(&store.detail))),
        None => reasons.push("store: not heard of yet".to_owned()),
    }
    if now.wall < MADE {
        reasons.push(format!("clock: it says that it is {}", now.wall.strftime("%Y-%m-%d")));
    }
    answer(reasons.is_empty(), json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

/// Part by part; 503 if one is bad without which we cannot do our main work.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let views = &shared.views;
    let now = views.clock.now();
    let components = views.board.components(now.mono, now.wall);
    let is_failing = components.values().any(|component| component.critical && !component.ok);
    let status = match components.values().all(|component| component.ok) {
        true => "ok",
        false if is_failing => "failing",
        false => "degraded",
    };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.mono.0.as_secs(),
        "location": views.location,
        "at": now.wall,
        "components": components,
    });
    answer(!is_failing, super::model::shown(&body, &views.redactor))
}

fn answer(is_well: bool, body: serde_json::Value) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, api::json(&body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_scrape_within_a_second_gets_the_same_bytes_and_costs_no_render() {
        let metrics = Arc::new(Metrics::new(&[], None));
        let exposition = Exposition::new(metrics.clone());
        let clock_steps = metrics.daemon().clock_steps;
        let at = |millis| Mono(Duration::from_millis(millis));
        let text = |packed: &Packed| String::from_utf8(packed.parts().flatten().collect()).unwrap();
        let first = exposition.at(at(0)).await.unwrap();
        clock_steps.increment(7);
        let within = exposition.at(at(999)).await.unwrap();
        assert_eq!(first.gzip().as_ptr(), within.gzip().as_ptr(), "the cached bytes themselves");
        let after = exposition.at(at(1_000)).await.unwrap();
        assert!(text(&after).contains("journeyman_clock_steps_total 7"));
        let after = { after }.gzip();
        metrics.upkeep(at(1_999));
        assert!(!after.is_unique(), "it may still be asked for");
        metrics.upkeep(at(2_000));
        assert!(after.is_unique(), "nobody keeps it for nothing");
    }

    #[test]
    fn who_takes_gzip_is_heard() {
        for (values, expected) in [
            (&["gzip"][..], true),
            (&["deflate, GZIP;q=0.5"], true),
            (&["br", "gzip; q=1.0"], true),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000, identity"], false),
            (&["gzip;q=x"], false),
            (&["x-gzip, *"], false),
            (&["identity"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(takes_gzip(&headers), expected, "{values:?}");
        }
    }
}
