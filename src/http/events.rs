//! Server-sent events: tells open pages that something changed, so that they fetch themselves anew.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use crate::http::{Shared, api};

/// Changes within this time of the last event are told together.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// A comment this often shows both sides that the connection stands, and finds those that went without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A page whose stream broke asks again after this.
const RETRY: Duration = Duration::from_secs(2);

/// `hello` at once, for a page that may have missed something while it was away; then `change` for every change.
pub(super) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(place) = shared.streams.clone().try_acquire_owned() else {
        return api::refuse(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open: reload by hand");
    };
    let clock = shared.views.clock;
    let mut changes = shared.views.board.watch();
    let version = *changes.borrow_and_update();
    let hello = Event::default().event("hello").retry(RETRY).data(version.to_string());
    let following = stream::unfold((changes, clock.now().mono, place), move |(mut changes, next, place)| async move {
        changes.changed().await.ok()?;
        clock.sleep_until(next).await;
        let version = *changes.borrow_and_update();
        let event = Event::default().event("change").data(version.to_string());
        Some((event, (changes, clock.now().mono + AT_MOST_EVERY, place)))
    });
    let all = stream::once(std::future::ready(hello)).chain(following).map(Ok::<_, Infallible>);
    // The one end of it all: a stream that outlived the stop would hold up the process.
    let until_stop = all.take_until(shared.stop.clone().cancelled_owned());
    Sse::new(until_stop).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
