//! The pages: rendered here, whole without script, from the board first. A store that does not answer costs its own part only.

mod channels;
mod journey;
mod lists;
mod overview;
mod report;
mod run;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use minijinja::Value;
use serde::Serialize;

use crate::http::model::shown;
use crate::http::{Shared, template};

pub(super) use channels::channels;
pub(super) use journey::journey;
pub(super) use lists::{incidents, listed, outbox};
pub(super) use overview::overview;
pub(super) use report::report;
pub(super) use run::run;

/// What a page is rendered from: named values.
pub(super) type Context = Vec<(&'static str, Value)>;

/// Builds and renders a page off the async workers, a bounded number at once.
pub(super) async fn page(
    shared: &Arc<Shared>,
    status: StatusCode,
    name: &'static str,
    build: impl FnOnce(&Shared) -> Context + Send + 'static,
) -> Response {
    let Ok(turn) = shared.renders.clone().acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let shared = shared.clone();
    let render = move || {
        let _turn = turn;
        render(&shared, name, build(&shared))
    };
    match tokio::task::spawn_blocking(render).await {
        Ok(Ok(html)) => (status, Html(html)).into_response(),
        Ok(Err(error)) => {
            tracing::error!(page = name, ?error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "This page could not be rendered; the log says why.\n").into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "This page could not be rendered.\n").into_response(),
    }
}

fn render(shared: &Shared, name: &str, mut context: Context) -> Result<String, minijinja::Error> {
    let views = &shared.views;
    let now = views.clock.now();
    let components = views.board.components(now.mono, now.wall);
    let troubles: Vec<_> = components.iter().filter(|(_, component)| !component.ok).collect();
    context.push(("location", safe(shared, &views.location)));
    context.push(("public_url", safe(shared, &views.public_url.as_ref().map(url::Url::as_str))));
    context.push(("troubles", safe(shared, &troubles)));
    context.push(("acts", Value::from(views.admin_token.is_some())));
    shared.templates.render(name, Value::from_pairs(context), now.wall)
}

/// A model as a template sees it: without secrets, to be escaped.
pub(super) fn safe(shared: &Shared, model: &impl Serialize) -> Value {
    template::value(&shown(model, &shared.views.redactor))
}

/// SVG of ours.
pub(super) fn svg(text: String) -> Value {
    Value::from_safe_string(text)
}

/// A refusal as a page.
pub(super) fn refuse(shared: &Shared, status: StatusCode, message: &str) -> Response {
    let context = vec![("code", Value::from(status.as_u16())), ("message", Value::from(message))];
    match render(shared, "error.html", context) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => (status, message.to_owned()).into_response(),
    }
}

/// A file that pages load. Its address changes with its content, so it is kept for as long as anyone likes.
pub(super) async fn file(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match template::FILES.iter().find(|file| file.name == name) {
        Some(file) => {
            let headers = [
                (header::CONTENT_TYPE, file.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, file.content).into_response()
        }
        None => refuse(&shared, StatusCode::NOT_FOUND, "There is no such file."),
    }
}
