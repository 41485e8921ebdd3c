//! The page of one incident, and the page behind the link that acknowledges it with one click.
//!
//! Programs follow the links in mails before people do, so the link's page changes nothing: it has a button that does.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minijinja::Value;

use crate::commands::{Refusal, Request};
use crate::control::Ack;
use crate::control::grant::{Deed, Grant, Invalid};
use crate::http::pages::{page, refuse, safe};
use crate::http::{Shared, control};

/// Who asked, when all that is known is that they had the link.
pub(super) const BY_LINK: &str = "link from a notice";
const OVER: &str = "This incident is over, or there is none any more. Nothing is left to look after.";

pub(super) async fn incident(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let detail = match control::find_incident(&shared, &id).await {
        Ok(Some(detail)) => detail,
        Ok(None) => return refuse(&shared, StatusCode::NOT_FOUND, "There is and was no incident of this id."),
        Err(error) => return refuse(&shared, StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(&error)),
    };
    page(&shared, StatusCode::OK, "incident.html", move |shared| {
        vec![
            ("here", Value::from("incidents")),
            ("incident", safe(shared, &detail)),
            ("events", safe(shared, &detail.events())),
        ]
    })
    .await
}

pub(super) async fn ask_to_acknowledge(State(shared): State<Arc<Shared>>, Path(grant): Path<String>) -> Response {
    ask(&shared, &grant, Deed::Acknowledge, "ack.html", OVER).await
}

/// The page behind a link: what it is about, and a button that does it.
pub(super) async fn ask(shared: &Arc<Shared>, text: &str, deed: Deed, template: &'static str, over: &str) -> Response {
    let grant = match granted(shared, text, deed).await {
        Ok(grant) => grant,
        Err(refusal) => return unlisted(refusal),
    };
    let docket = shared.views.board.docket();
    let Some(open) = docket.incident(&grant.incident) else {
        return unlisted(refuse(shared, StatusCode::GONE, over));
    };
    let incident = open.incident.clone();
    let shown = page(shared, StatusCode::OK, template, move |shared| {
        vec![
            ("subject", safe(shared, &incident.title())),
            ("since", safe(shared, &incident.since)),
            ("severity", safe(shared, &incident.worst)),
            ("acked", safe(shared, &incident.acked)),
            ("until", safe(shared, &grant.until)),
            ("id", Value::from(incident.id.clone())),
        ]
    });
    unlisted(shown.await)
}

pub(super) async fn acknowledge(State(shared): State<Arc<Shared>>, Path(text): Path<String>) -> Response {
    let grant = match granted(&shared, &text, Deed::Acknowledge).await {
        Ok(grant) => grant,
        Err(refusal) => return unlisted(refusal),
    };
    let ack = Ack { by: BY_LINK.to_owned(), at: shared.views.clock.now().wall, until: None, note: None };
    let asked = Request::Acknowledge { incident: grant.incident, ack };
    unlisted(match shared.views.commands.ask(asked).await {
        // A page that is fetched anew must not ask again.
        Ok(()) => (StatusCode::SEE_OTHER, [(header::LOCATION, format!("/ack/{text}"))]).into_response(),
        Err(Refusal::Unknown(_)) => refuse(&shared, StatusCode::GONE, OVER),
        Err(Refusal::NotNow(why) | Refusal::Unavailable(why)) => {
            refuse(&shared, StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(&why))
        }
    })
}

/// The permission to do this that `text` is, or why it is none.
pub(super) async fn granted(shared: &Arc<Shared>, text: &str, deed: Deed) -> Result<Grant, Response> {
    let now = shared.views.clock.now().wall;
    let key = shared.key.get_or_try_init(|| shared.ask(shared.views.store.key())).await;
    let key =
        key.map_err(|error| refuse(shared, StatusCode::SERVICE_UNAVAILABLE, &shared.views.redactor.clean(&error)))?;
    match Grant::verify(text, key, now) {
        Ok(grant) if grant.deed == deed => Ok(grant),
        Ok(_) => Err(refuse(shared, StatusCode::FORBIDDEN, "This link is for something else.")),
        Err(Invalid::Expired) => {
            let why = "This link has expired. A newer notice has a newer one; the command line needs none.";
            Err(refuse(shared, StatusCode::GONE, why))
        }
        Err(Invalid::Forged) => {
            tracing::warn!("a link that we did not make was refused");
            Err(refuse(shared, StatusCode::FORBIDDEN, "This is not a link that this Journeyman made."))
        }
    }
}

/// The address is a permission: nobody is to keep it or to find it.
pub(super) fn unlisted(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
