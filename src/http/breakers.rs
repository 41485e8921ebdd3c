//! Breakers: how they stand, and what people want of them.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::board::BreakerStatus;
use crate::breaker::{Force, Guarded, LONGEST_ORDER, Order};
use crate::commands::Request as Asked;
use crate::http::Shared;
use crate::http::api::{answer, refuse};
use crate::http::control::{SOMEBODY, read, refused, words};
use crate::journey::Name;
use crate::time::{Human, later, parse_duration};

/// `POST /api/v1/channels/{name}/breaker`, and the same of a notifier.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OrderRequest {
    /// `open`, `closed`, `observe`, or `auto`: by itself.
    state: String,
    reason: String,
    r#for: Option<String>,
    until: Option<Timestamp>,
    by: Option<String>,
}

/// A breaker, in a list.
#[derive(Debug, Serialize)]
pub(super) struct BreakerView {
    kind: &'static str,
    name: Name,
    /// How it is, in a sentence.
    summary: String,
    #[serde(flatten)]
    status: BreakerStatus,
}

impl BreakerView {
    pub(super) fn new(what: &Guarded, status: &BreakerStatus) -> BreakerView {
        let (kind, name, summary) = (what.kind(), what.name().clone(), status.words());
        BreakerView { kind, name, summary, status: status.clone() }
    }
}

pub(super) async fn all(State(shared): State<Arc<Shared>>) -> Response {
    let breakers = shared.views.board.breakers();
    let views: Vec<_> = breakers.iter().map(|(what, status)| BreakerView::new(what, status)).collect();
    answer(&shared, "breakers", views)
}

pub(super) async fn of_channel(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    shown(&shared, &Guarded::Channel(name.into()))
}

pub(super) async fn of_notifier(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    shown(&shared, &Guarded::Notifier(name.into()))
}

pub(super) async fn order_channel(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    order(&shared, Guarded::Channel(name.into()), request).await
}

pub(super) async fn order_notifier(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    order(&shared, Guarded::Notifier(name.into()), request).await
}

fn shown(shared: &Shared, what: &Guarded) -> Response {
    match shared.views.board.breakers().get(what) {
        Some(status) => answer(shared, "breaker", BreakerView::new(what, status)),
        None => refuse(StatusCode::NOT_FOUND, &format!("there is no breaker before {what}")),
    }
}

async fn order(shared: &Arc<Shared>, what: Guarded, request: Request) -> Response {
    let asked = match read::<OrderRequest>(request).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let order = match new_order(asked, shared.views.clock.now().wall) {
        Ok(order) => order,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    match shared.views.commands.ask(Asked::Order { what: what.clone(), order: order.clone() }).await {
        // Who holds the breaker hears of it in a moment; what was ordered is on disk.
        Ok(()) => answer(shared, "ordered", json!({ "kind": what.kind(), "name": what.name(), "order": order })),
        Err(refusal) => refused(shared, &refusal),
    }
}

fn new_order(asked: OrderRequest, now: Timestamp) -> Result<Option<Order>, String> {
    let to = match asked.state.as_str() {
        "open" => Force::Open,
        "closed" => Force::Closed,
        "observe" => Force::Observe,
        "auto" => return Ok(None),
        "" => return Err("`state` is missing: open, closed, observe or auto".to_owned()),
        other => return Err(format!("`state` is open, closed, observe or auto, and not `{}`", words(other, "state")?)),
    };
    let latest = later(now, LONGEST_ORDER);
    let until = match (asked.r#for.as_deref().map(parse_duration), asked.until) {
        (Some(Ok(lasts)), None) => later(now, lasts),
        (Some(Err(why)), None) => return Err(why),
        (None, Some(until)) => until,
        (Some(_), Some(_)) => return Err("`for` and `until` exclude each other".to_owned()),
        (None, None) => return Err("how long? say `for`, as in \"2h\", or `until`, with its offset".to_owned()),
    };
    match until {
        _ if until <= now => Err("it would be over already".to_owned()),
        _ if until > latest => Err(format!("nobody's wish holds longer than {}", Human(LONGEST_ORDER))),
        _ => Ok(Some(Order {
            to,
            by: words(asked.by.as_deref().unwrap_or(SOMEBODY), "by")?,
            reason: words(&asked.reason, "reason")?,
            until,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_ordered_row_by_row() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let request = |state: &str, lasts: Option<&str>, until: Option<&str>, reason: &str| OrderRequest {
            state: state.into(),
            reason: reason.into(),
            r#for: lasts.map(Into::into),
            until: until.map(|text| text.parse().unwrap()),
            by: Some("ada".into()),
        };
        let ordered = new_order(request("open", Some("2h"), None, "migration"), now).unwrap().unwrap();
        assert_eq!((ordered.to, ordered.until), (Force::Open, later(now, std::time::Duration::from_secs(7_200))));
        assert_eq!(new_order(request("auto", None, None, ""), now), Ok(None));
        assert!(new_order(request("observe", Some("24h"), None, "to see"), now).is_ok());
        for (state, lasts, until, reason, part) in [
            ("", Some("1h"), None, "why", "`state` is missing"),
            ("shut", Some("1h"), None, "why", "not `shut`"),
            ("open", None, None, "why", "how long?"),
            ("open", Some("1h"), Some("2026-11-21T13:00:00Z"), "why", "exclude each other"),
            ("open", Some("25h"), None, "why", "longer than 1d"),
            ("open", Some("soon"), None, "why", "`soon` is not a duration"),
            ("open", Some("0s"), None, "why", "over already"),
            ("open", None, Some("2026-11-21T11:00:00Z"), "why", "over already"),
            ("open", Some("1h"), None, " ", "`reason` is missing"),
        ] {
            let why = new_order(request(state, lasts, until, reason), now).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
