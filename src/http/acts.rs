//! What people ask for on the pages: a form, its button, and the admin token as one of its fields.
//!
//! Nothing of it is kept in the browser, so another site that has it send a form has no token to put in.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::commands::{Request as Asked, Which};
use crate::http::control::{AckRequest, SilenceRequest, begin, body, told, words};
use crate::http::pages::refuse;
use crate::http::template::path;
use crate::http::{Shared, routes};

/// What a form brought, but for the token, and but for what was left empty.
struct Form {
    /// Who asks.
    by: String,
    fields: BTreeMap<String, String>,
}

/// A page of ours either way: where what was done shows, or why it was not.
type Answer = Result<Response, Response>;

impl Form {
    /// Reads it, and lets only the holder of the admin token go on, with a name.
    async fn read(shared: &Shared, request: Request) -> Result<Form, Response> {
        let Some(token) = &shared.views.admin_token else {
            let why = "Nothing can be changed here: no `admin_token` is configured.";
            return Err(refuse(shared, StatusCode::NOT_FOUND, why));
        };
        let is_admin = routes::is_admin(shared, request.headers());
        let place = request.uri().path().to_owned();
        let body = body(request).await.map_err(|(status, why)| refuse(shared, status, why))?;
        let mut fields: BTreeMap<_, _> = url::form_urlencoded::parse(&body).into_owned().collect();
        let given = fields.remove("token").unwrap_or_default();
        if !is_admin && !routes::is_token(token, given.trim()) {
            tracing::warn!(path = place, "a form without the admin token was refused");
            let why = "This is not the admin token. Nothing was changed; go back to try again.";
            return Err(refuse(shared, StatusCode::FORBIDDEN, why));
        }
        fields.retain(|_, value| !value.trim().is_empty());
        let by = words(&fields.remove("by").unwrap_or_default(), "by");
        let by = by.map_err(|why| refuse(shared, StatusCode::BAD_REQUEST, &why))?;
        Ok(Form { by, fields })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.fields.remove(name)
    }
}

/// What was done, as the page where it shows: one that is fetched anew must not ask again. Or why not.
fn done(shared: &Shared, result: Result<String, (StatusCode, String)>) -> Response {
    match result {
        Ok(place) => (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response(),
        Err((status, why)) => refuse(shared, status, &why),
    }
}

pub(super) async fn run(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Answer {
    let form = Form::read(&shared, request).await?;
    let asked = shared.views.commands.run(Which::Journey(name.into()), form.by).await;
    Ok(done(&shared, asked.map(|run| format!("/runs/{}", run.token)).map_err(|refusal| told(&shared, &refusal))))
}

pub(super) async fn pause(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Answer {
    silence_journey(&shared, name, request, true).await
}

pub(super) async fn silence(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Answer {
    silence_journey(&shared, name, request, false).await
}

async fn silence_journey(shared: &Shared, name: String, request: Request, pauses: bool) -> Answer {
    let mut form = Form::read(shared, request).await?;
    if shared.views.board.journey(&name).is_none() {
        return Err(refuse(shared, StatusCode::NOT_FOUND, "No journey has this name."));
    }
    let asked = SilenceRequest {
        matchers: vec![format!("journey={name}")],
        r#for: form.take("for"),
        reason: form.take("reason").unwrap_or_default(),
        author: Some(form.by),
        pauses,
        ..SilenceRequest::default()
    };
    let begun = begin(shared, asked).await;
    Ok(done(shared, begun.map(|_| format!("/journeys/{}", path(&name)))))
}

pub(super) async fn acknowledge(State(shared): State<Arc<Shared>>, Path(id): Path<String>, request: Request) -> Answer {
    let mut form = Form::read(&shared, request).await?;
    let (r#for, note) = (form.take("for"), form.take("note"));
    let ack = AckRequest { by: Some(form.by), r#for, note }.ack(shared.views.clock.now().wall);
    let ack = ack.map_err(|why| refuse(&shared, StatusCode::BAD_REQUEST, &why))?;
    let asked = shared.views.commands.ask(Asked::Acknowledge { incident: id.clone(), ack }).await;
    Ok(done(&shared, asked.map(|()| format!("/incidents/{}", path(&id))).map_err(|refusal| told(&shared, &refusal))))
}

pub(super) async fn end_silence(State(shared): State<Arc<Shared>>, Path(id): Path<String>, request: Request) -> Answer {
    let form = Form::read(&shared, request).await?;
    tracing::info!(silence = id, by = form.by, "asked on a page to end a silence");
    let asked = shared.views.commands.ask(Asked::Unsilence { id }).await;
    Ok(done(&shared, asked.map(|()| "/incidents".to_owned()).map_err(|refusal| told(&shared, &refusal))))
}
