//! The routes: one table says which there are and who may call them, and nothing else makes any.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::{
    Shared, acts, api, breakers, callbacks, control, drills, etag, events, health, incident_pages, openapi, pages,
    public, reload, run_again,
};
use crate::secret::Secret;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Whoever reaches the listener.
    Public,
    /// Whoever has the admin token; nobody if none is configured.
    Admin,
    /// Whoever reaches the listener, with a password of `web_config` or without; nobody unless `[status_page]` is configured.
    Published,
    /// Whoever puts the admin token into the form that comes here, or has it as for [`Visibility::Admin`]; nobody if none is configured.
    Form,
    /// Whoever has an address that we signed, for what it was signed for.
    Signed,
    /// A service whose calls are signed, which their receiver checks; nobody if there is none. The one kind of route that no
    /// password of `web_config` is asked for.
    Called,
}

/// A route as the table declares it.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    /// Its method; a route for `GET` answers `HEAD` as well.
    pub method: Method,
    /// Its path, parameters in braces.
    pub path: &'static str,
    /// Who may call it.
    pub visibility: Visibility,
}

struct Route {
    info: RouteInfo,
    handler: MethodRouter<Arc<Shared>>,
}

fn routes() -> Vec<Route> {
    vec![
        get("/", pages::overview),
        get("/journeys/{name}", pages::journey),
        form("/journeys/{name}/run", acts::run),
        form("/journeys/{name}/pause", acts::pause),
        form("/journeys/{name}/silence", acts::silence),
        get("/runs/{token}", pages::run),
        get("/channels", pages::channels),
        get("/incidents", pages::incidents),
        get("/incidents/{id}", incident_pages::incident),
        form("/incidents/{id}/ack", acts::acknowledge),
        form("/silences/{id}/end", acts::end_silence),
        route(Method::GET, Visibility::Signed, "/ack/{grant}", incident_pages::ask_to_acknowledge),
        route(Method::POST, Visibility::Signed, "/ack/{grant}", incident_pages::acknowledge),
        route(Method::GET, Visibility::Signed, "/run/{grant}", run_again::ask_to_run),
        route(Method::POST, Visibility::Signed, "/run/{grant}", run_again::run_by_link),
        get("/alerts/outbox", pages::outbox),
        get("/report", pages::report),
        get("/drills", drills::drills),
        published("/status", public::status),
        published("/badge/{title}/{what}", public::badge),
        get("/api/v1/journeys", api::journeys),
        get("/api/v1/journeys/{name}", api::journey),
        get("/api/v1/journeys/{name}/runs", api::runs),
        admin_post("/api/v1/journeys/{name}/run", run_again::run),
        get("/api/v1/runs/{token}", api::run),
        get("/api/v1/incidents", api::incidents),
        get("/api/v1/incidents/{id}", control::incident),
        admin_post("/api/v1/incidents/{id}/ack", control::acknowledge),
        admin_delete("/api/v1/incidents/{id}/ack", control::unacknowledge),
        get("/api/v1/silences", control::silences),
        admin_post("/api/v1/silences", control::silence),
        admin_delete("/api/v1/silences/{id}", control::unsilence),
        get("/api/v1/drills", drills::all),
        admin_post("/api/v1/drills", drills::begin),
        get("/api/v1/drills/{id}", drills::one),
        get("/api/v1/breakers", breakers::all),
        get("/api/v1/channels/{name}/breaker", breakers::of_channel),
        admin_post("/api/v1/channels/{name}/breaker", breakers::order_channel),
        get("/api/v1/notifiers/{name}/breaker", breakers::of_notifier),
        admin_post("/api/v1/notifiers/{name}/breaker", breakers::order_notifier),
        get("/api/v1/outbox", api::outbox),
        get("/api/v1/health", health::health),
        get("/api/v1/openapi.json", openapi::document),
        admin_post("/api/v1/outbox/{notifier}/retry", api::retry),
        admin_post("/api/v1/reload", reload::reload),
        route(Method::POST, Visibility::Called, "/slack/interactions", callbacks::slack),
        get("/events", events::events),
        get("/metrics", health::metrics),
        get("/live", health::live),
        get("/ready", health::ready),
        get("/health", health::health),
        get("/static/{file}", pages::file),
    ]
}

fn route<H: Handler<T, Arc<Shared>>, T: 'static>(
    method: Method,
    visibility: Visibility,
    path: &'static str,
    handler: H,
) -> Route {
    let filter = match method {
        Method::POST => MethodFilter::POST,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    Route { info: RouteInfo { method, path, visibility }, handler: on(filter, handler) }
}

fn get<H: Handler<T, Arc<Shared>>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::GET, Visibility::Public, path, handler)
}

fn admin_post<H: Handler<T, Arc<Shared>>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::POST, Visibility::Admin, path, handler)
}

fn admin_delete<H: Handler<T, Arc<Shared>>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::DELETE, Visibility::Admin, path, handler)
}

fn published<H: Handler<T, Arc<Shared>>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::GET, Visibility::Published, path, handler)
}

fn form<H: Handler<T, Arc<Shared>>, T: 'static>(path: &'static str, handler: H) -> Route {
    route(Method::POST, Visibility::Form, path, handler)
}

/// Every route that there is.
pub fn table() -> Vec<RouteInfo> {
    routes().into_iter().map(|route| route.info).collect()
}

/// The routes that other services call.
pub(super) fn called() -> Vec<RouteInfo> {
    table().into_iter().filter(|route| route.visibility == Visibility::Called).collect()
}

/// Whether this asks for what [`Visibility::Published`] has, or for the style that it has.
pub(super) fn is_published(head: &Parts) -> bool {
    let path = head.uri.path();
    let is_read = [Method::GET, Method::HEAD].contains(&head.method);
    is_read && (path == "/status" || path.starts_with("/badge/") || path.starts_with("/static/"))
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for Route { info, handler } in routes() {
        let handler = match info.visibility {
            Visibility::Public | Visibility::Signed | Visibility::Called | Visibility::Form | Visibility::Published => {
                handler
            }
            Visibility::Admin => handler.layer(middleware::from_fn_with_state(shared.clone(), guard)),
        };
        router = router.route(info.path, handler);
    }
    router
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(etag::tag))
        .layer(middleware::from_fn(finish))
        .with_state(shared)
}

/// Lets the holder of the admin token pass. Without a configured token the route is not there.
async fn guard(State(shared): State<Arc<Shared>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    if shared.views.admin_token.is_none() {
        return api::refuse(StatusCode::NOT_FOUND, "no such route");
    }
    if is_admin(&shared, &headers) {
        return next.run(request).await;
    }
    tracing::warn!(path = request.uri().path(), "a call without the admin token was refused");
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, api::refuse(StatusCode::UNAUTHORIZED, "this needs `Authorization: Bearer` with the admin token"))
        .into_response()
}

/// Whether the admin token comes with these headers.
pub(super) fn is_admin(shared: &Shared, headers: &HeaderMap) -> bool {
    let Some(token) = &shared.views.admin_token else { return false };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    // Of two, a proxy and we might each believe another.
    let given = given.next().filter(|_| given.next().is_none()).and_then(|value| value.to_str().ok());
    is_token(token, given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default())
}

/// Whether this is the admin token.
pub(super) fn is_token(token: &Secret, given: &str) -> bool {
    // Hashed, so that not even the length of the token shows in the time that the comparison takes.
    Sha256::digest(given).ct_eq(&Sha256::digest(token.reveal().as_bytes())).into()
}

async fn nothing(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    refuse(&shared, &request, StatusCode::NOT_FOUND, "There is no such page.")
}

async fn wrong_method(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    refuse(&shared, &request, StatusCode::METHOD_NOT_ALLOWED, "This address does not take that method.")
}

/// In the form that the caller of that path reads.
fn refuse(shared: &Shared, request: &Request, status: StatusCode, message: &str) -> Response {
    if request.uri().path().starts_with("/api/") {
        api::refuse(status, message)
    } else {
        pages::refuse(shared, status, message)
    }
}

/// What a page may do: load our style, our one script and our data; be in no frame, and tell no other site where it was.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// An extractor's refusal says no more than this, in bytes.
const REFUSAL: usize = 4_096;

async fn finish(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let is_text =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
    if is_api && is_text && response.status().is_client_error() {
        // A path or query that cannot be read is refused in plain text before a handler sees it.
        let status = response.status();
        let text = axum::body::to_bytes(response.into_body(), REFUSAL).await.unwrap_or_default();
        response = api::refuse(status, &String::from_utf8_lossy(&text));
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
