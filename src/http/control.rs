//! What people ask for: acknowledgements and silences. The owner of alert state does it, and it is on disk before it is answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::commands::{Refusal, Request as Asked};
use crate::control::{Ack, Matcher, Silence};
use crate::http::Shared;
use crate::http::api::{answer, json, refuse, unavailable};
use crate::http::model::{IncidentDetail, SilenceView};
use crate::time::{later, parse_duration};

/// A request is no longer than this, in bytes.
const BODY: usize = 16 * 1024;
/// It is here by then.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// A name, a reason and a matcher are no longer than this, in characters.
const TEXT: usize = 500;
/// A silence has no more matchers.
const MATCHERS: usize = 20;
/// There are no more silences at once.
const SILENCES: usize = 1_000;
/// Whoever wants more than a year of silence wants a changed configuration.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// Who asks, if nobody says so.
pub(super) const SOMEBODY: &str = "the API";

/// `POST /api/v1/incidents/{id}/ack`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AckRequest {
    /// Who looks after it.
    pub(super) by: Option<String>,
    /// For how long; without, until it gets worse or is over.
    pub(super) r#for: Option<String>,
    /// What others are to know.
    pub(super) note: Option<String>,
}

impl AckRequest {
    /// The acknowledgement that is asked for, or what is wrong with it.
    pub(super) fn ack(&self, now: Timestamp) -> Result<Ack, String> {
        let until = self.r#for.as_deref().map(|text| lasts(text, now)).transpose()?;
        let note = self.note.as_deref().map(|text| words(text, "note")).transpose()?;
        Ok(Ack { by: words(self.by.as_deref().unwrap_or(SOMEBODY), "by")?, at: now, until, note })
    }
}

/// `POST /api/v1/silences`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SilenceRequest {
    pub(super) matchers: Vec<String>,
    pub(super) r#for: Option<String>,
    pub(super) until: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) author: Option<String>,
    pub(super) until_resolved: bool,
    pub(super) exclude_from_slo: bool,
    pub(super) pauses: bool,
}

/// Who takes it back.
#[derive(Debug, Deserialize)]
pub(super) struct By {
    by: Option<String>,
}

pub(super) async fn incident(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match find_incident(&shared, &id).await {
        Ok(Some(incident)) => answer(&shared, "incident", incident),
        Ok(None) => refuse(StatusCode::NOT_FOUND, "there is and was no incident of this id"),
        Err(error) => unavailable(&shared, &error),
    }
}

pub(super) async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let asked = match read::<AckRequest>(request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    match asked.ack(shared.views.clock.now().wall) {
        Ok(ack) => incident_after(&shared, &id, Asked::Acknowledge { incident: id.clone(), ack }).await,
        Err(why) => refuse(StatusCode::BAD_REQUEST, &why),
    }
}

pub(super) async fn unacknowledge(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(By { by }): Query<By>,
) -> Response {
    match words(by.as_deref().unwrap_or(SOMEBODY), "by") {
        Ok(by) => incident_after(&shared, &id, Asked::Unacknowledge { incident: id.clone(), by }).await,
        Err(why) => refuse(StatusCode::BAD_REQUEST, &why),
    }
}

/// Asks, and answers with the incident as it is then.
async fn incident_after(shared: &Arc<Shared>, id: &str, asked: Asked) -> Response {
    if let Err(refusal) = shared.views.commands.ask(asked).await {
        return refused(shared, &refusal);
    }
    match find_incident(shared, id).await {
        Ok(incident) => answer(shared, "incident", incident),
        Err(error) => unavailable(shared, &error),
    }
}

pub(super) async fn silences(State(shared): State<Arc<Shared>>) -> Response {
    answer(&shared, "silences", SilenceView::all(&shared.views))
}

pub(super) async fn silence(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let asked = match read::<SilenceRequest>(request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    match begin(&shared, asked).await {
        Ok(silence) => answer(&shared, "silence", SilenceView::new(silence, &shared.views)),
        Err((status, why)) => refuse(status, &why),
    }
}

/// Begins the silence that is asked for, or says why not.
pub(super) async fn begin(shared: &Shared, asked: SilenceRequest) -> Result<Silence, (StatusCode, String)> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    if shared.views.board.docket().silences.len() >= SILENCES {
        return Err(bad("there are a thousand silences already; end some first".to_owned()));
    }
    let silence = new_silence(asked, shared.views.clock.now().wall).map_err(bad)?;
    let done = shared.views.commands.ask(Asked::Silence(silence.clone())).await;
    done.map(|()| silence).map_err(|refusal| told(shared, &refusal))
}

pub(super) async fn unsilence(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match shared.views.commands.ask(Asked::Unsilence { id: id.clone() }).await {
        Ok(()) => json(&json!({ "ended": id })),
        Err(refusal) => refused(&shared, &refusal),
    }
}

fn new_silence(asked: SilenceRequest, now: Timestamp) -> Result<Silence, String> {
    if asked.matchers.is_empty() {
        return Err("`matchers` is empty: say what is to be silent, as in [\"journey=sms\"] or [\"tier=gold\"]; \
                    [\"*\"] is every journey"
            .to_owned());
    }
    if asked.matchers.len() > MATCHERS {
        return Err(format!("there are more than {MATCHERS} matchers; one with a regular expression says more"));
    }
    let matcher = |text: &String| Matcher::parse(&words(text, "a matcher")?);
    let matchers = asked.matchers.iter().map(matcher).collect::<Result<Vec<_>, _>>()?;
    let until = match (asked.r#for, asked.until) {
        (Some(text), None) => lasts(&text, now)?,
        (None, Some(until)) if until <= now => return Err(format!("`until` ({until}) is over already")),
        (None, Some(until)) if until > later(now, LONGEST) => return Err("a silence is at most a year long".to_owned()),
        (None, Some(until)) => until,
        (Some(_), Some(_)) => return Err("`for` and `until` exclude each other".to_owned()),
        (None, None) => return Err("how long? say `for`, as in \"2h\", or `until`, with its offset".to_owned()),
    };
    if asked.until_resolved && (asked.exclude_from_slo || asked.pauses) {
        let other = if asked.pauses { "pauses" } else { "exclude_from_slo" };
        return Err(format!(
            "`until_resolved` and `{other}` exclude each other: runs that are left out resolve nothing"
        ));
    }
    Ok(Silence {
        id: new_id()?,
        matchers,
        from: now,
        until,
        until_resolved: asked.until_resolved,
        exclude_from_slo: asked.exclude_from_slo,
        pauses: asked.pauses,
        reason: words(&asked.reason, "reason")?,
        author: words(asked.author.as_deref().unwrap_or(SOMEBODY), "author")?,
    })
}

/// An incident, from the board while it is open, with what the store has of it.
pub(super) async fn find_incident(shared: &Shared, id: &str) -> Result<Option<IncidentDetail>, String> {
    let now = shared.views.clock.now().wall;
    let docket = shared.views.board.docket();
    let (row, notices) = tokio::join!(
        shared.ask(shared.views.store.incident(id.to_owned())),
        shared.ask(shared.views.store.notices(id.to_owned(), NOTICES))
    );
    match (docket.incident(id), row) {
        (None, Err(error)) => Err(error),
        (None, Ok(None)) => Ok(None),
        (open, row) => Ok(IncidentDetail::new(open, row.ok().flatten(), notices.unwrap_or_default(), now)),
    }
}

/// Notices of an incident that are shown.
const NOTICES: usize = 100;

pub(super) fn refused(shared: &Shared, refusal: &Refusal) -> Response {
    let (status, why) = told(shared, refusal);
    refuse(status, &why)
}

/// A refusal as a status and in words.
pub(super) fn told(shared: &Shared, refusal: &Refusal) -> (StatusCode, String) {
    let (status, why) = match refusal {
        Refusal::Unknown(why) => (StatusCode::NOT_FOUND, why),
        Refusal::NotNow(why) => (StatusCode::TOO_MANY_REQUESTS, why),
        Refusal::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    (status, shared.views.redactor.clean(why))
}

/// The request's JSON; nothing at all is an empty object.
pub(super) async fn read<T: DeserializeOwned + Default>(request: Request) -> Result<T, Response> {
    let body = body(request).await.map_err(|(status, why)| refuse(status, why))?;
    if body.is_empty() {
        return Ok(T::default());
    }
    let wrong = |error| refuse(StatusCode::BAD_REQUEST, &format!("this is not the JSON that is read here: {error}"));
    // By way of an object: a list of values without names would be taken for one.
    let object: Map<String, Value> = serde_json::from_slice(&body).map_err(wrong)?;
    serde_json::from_value(Value::Object(object)).map_err(wrong)
}

/// All that a request brings.
pub(super) async fn body(request: Request) -> Result<axum::body::Bytes, (StatusCode, &'static str)> {
    let body = axum::body::to_bytes(request.into_body(), BODY);
    match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "a request has at most 16 KiB")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request did not come to its end")),
    }
}

/// The end of what begins now.
fn lasts(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("`for` is longer than nothing".to_owned()),
        Ok(lasts) if lasts > LONGEST => Err("`for` is at most a year".to_owned()),
        Ok(lasts) => Ok(later(now, lasts)),
        Err(why) => Err(format!("{why}; write whole numbers with units, as in \"30m\" or \"2h\"")),
    }
}

/// Text of one line that people will read.
pub(super) fn words(text: &str, what: &str) -> Result<String, String> {
    let text = text.trim();
    match text {
        "" => Err(format!("`{what}` is missing: people will read it")),
        _ if text.chars().count() > TEXT => Err(format!("`{what}` has more than {TEXT} characters")),
        _ if text.chars().any(char::is_control) => Err(format!("`{what}` is one line of text")),
        _ => Ok(text.to_owned()),
    }
}

fn new_id() -> Result<String, String> {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(format!("{:08x}", u32::from_le_bytes(bytes)))
}
