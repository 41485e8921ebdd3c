//! The overview: what is wrong first, then every journey, in groups if people want them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use minijinja::Value;
use serde_json::json;

use super::{page, safe, svg};
use crate::board::{Docket, JourneyStatus};
use crate::http::model::{
    self, ChannelView, Filter, GROUP, JourneyView, NoticeView, OWNER, PlaceView, SilenceView, Users, cell_start,
};
use crate::http::template::path;
use crate::http::{Shared, charts};
use crate::journey::own;

/// Notices looked through for those of open incidents.
const RECENT_NOTICES: usize = 60;
/// Owners and labels that are offered to choose from; beyond that they are typed.
const OFFERED: usize = 200;

pub(in crate::http) async fn overview(State(shared): State<Arc<Shared>>, Query(filter): Query<Filter>) -> Response {
    let (notifiers, notices) = tokio::join!(shared.outbox_summary(), shared.outbox(None, None, RECENT_NOTICES));
    page(&shared, StatusCode::OK, "status.html", move |shared| {
        let now = shared.views.clock.now().wall;
        let (mut statuses, docket) = (shared.views.board.journeys(), shared.views.board.docket());
        // What one place sees is on the page of what all of them see.
        statuses.retain(|status| !status.journey.is_part());
        let found: Vec<_> = statuses.iter().filter(|status| filter.finds(&status.journey)).collect();
        let counts = counts(&found);
        let matching = found.len();
        let mut rows: Vec<_> = found.into_iter().filter(|status| filter.admits(status)).collect();
        rows.sort_by(|a, b| (model::State::of(a), &a.journey.name).cmp(&(model::State::of(b), &b.journey.name)));
        let is_any = !rows.is_empty();
        let group_by = filter.group_by(statuses.iter().map(|status| &*status.journey)).map(str::to_owned);
        let groups: Vec<_> = groups(rows, group_by.as_deref())
            .into_iter()
            .map(|(name, members)| group(shared, name, &members, &docket, now))
            .collect();
        let notices_error = notifiers.as_ref().err().or(notices.as_ref().err()).cloned();
        let notices: Vec<_> = notices.unwrap_or_default().into_iter().map(NoticeView::new).collect();
        let mut open: Vec<_> = statuses.iter().filter(|status| status.phase.is_firing()).collect();
        open.sort_by_key(|status| (model::State::of(status), status.incident.as_ref().map(|incident| incident.since)));
        let open: Vec<_> = open.iter().map(|status| incident(shared, status, &docket, &notices, now)).collect();
        let own = shared.views.board.journey(own::NAME).map(|own| JourneyView::new(&own, &docket, now));
        vec![
            ("here", Value::from("status")),
            ("total", Value::from(statuses.len())),
            ("matching", Value::from(matching)),
            ("counts", safe(shared, &counts)),
            ("groups", Value::from(groups)),
            ("any", Value::from(is_any)),
            ("open", Value::from(open)),
            ("silences", safe(shared, &SilenceView::all(&shared.views))),
            ("channels", safe(shared, &ChannelView::all(&shared.views.board, Users::new()))),
            ("own", safe(shared, &own)),
            ("notifiers", safe(shared, &notifiers.unwrap_or_default())),
            ("notices_error", safe(shared, &notices_error)),
            ("offered", safe(shared, &offered(&statuses))),
            ("group_by", safe(shared, &group_by)),
            ("rest", safe(shared, &filter.rest(path))),
            ("state", safe(shared, &filter.state)),
            ("owner", safe(shared, &filter.owner)),
            ("label", safe(shared, &filter.label)),
            ("q", safe(shared, &filter.q)),
        ]
    })
    .await
}

/// How many are in each state.
fn counts(statuses: &[&Arc<JourneyStatus>]) -> Vec<serde_json::Value> {
    let mut counts: BTreeMap<model::State, usize> = BTreeMap::new();
    for status in statuses {
        *counts.entry(model::State::of(status)).or_default() += 1;
    }
    let count = |state: &model::State| counts.get(state).copied().unwrap_or(0);
    model::State::ALL.iter().map(|state| json!({ "state": state.as_str(), "count": count(state) })).collect()
}

/// Journeys by their value of `label`, the group with the most urgent first; one group without a name where there is no label. Those
/// that have no such label come last.
fn groups<'a>(
    rows: Vec<&'a Arc<JourneyStatus>>,
    label: Option<&str>,
) -> Vec<(Option<&'a str>, Vec<&'a Arc<JourneyStatus>>)> {
    let value = |status: &'a Arc<JourneyStatus>| match label? {
        OWNER => status.journey.owner.as_deref(),
        label => status.journey.labels.get(label).map(String::as_str),
    };
    let mut by_value: BTreeMap<Option<&str>, Vec<_>> = BTreeMap::new();
    for status in rows {
        by_value.entry(value(status)).or_default().push(status);
    }
    let mut groups: Vec<_> = by_value.into_iter().collect();
    // Within a group the most urgent is the first.
    groups.sort_by_key(|(name, members)| (name.is_none(), members.first().map(|first| model::State::of(first)), *name));
    groups
}

fn group(
    shared: &Shared,
    name: Option<&str>,
    members: &[&Arc<JourneyStatus>],
    docket: &Docket,
    now: jiff::Timestamp,
) -> Value {
    let mut counts = counts(members);
    counts.retain(|entry| entry["count"] != 0);
    Value::from_pairs([
        ("name", safe(shared, &name)),
        ("counts", safe(shared, &counts)),
        ("rows", Value::from(members.iter().map(|status| row(shared, status, docket, now)).collect::<Vec<_>>())),
    ])
}

/// What the filter offers to choose from.
fn offered(statuses: &[Arc<JourneyStatus>]) -> serde_json::Value {
    let journeys = || statuses.iter().map(|status| &status.journey);
    let owners: BTreeSet<_> = journeys().filter_map(|journey| journey.owner.as_deref()).collect();
    let names: BTreeSet<_> = journeys().flat_map(|journey| journey.labels.keys()).collect();
    let labels: BTreeSet<_> =
        journeys().flat_map(|journey| &journey.labels).map(|(name, value)| format!("{name}={value}")).collect();
    let few = |set: BTreeSet<&str>| set.into_iter().take(OFFERED).map(str::to_owned).collect::<Vec<_>>();
    json!({
        "owners": few(owners),
        "names": few(names.into_iter().map(String::as_str).filter(|name| *name != OWNER).collect()),
        "labels": labels.into_iter().take(OFFERED).collect::<Vec<_>>(),
        "usual": GROUP,
    })
}

/// A journey's row: its model, and its charts beside it.
fn row(shared: &Shared, status: &JourneyStatus, docket: &Docket, now: jiff::Timestamp) -> Value {
    let latency = status.last.as_deref().and_then(|report| report.outcome.latency());
    let bar = latency.zip(status.journey.budget).map(|(latency, budget)| svg(charts::budget_bar(latency, budget)));
    Value::from_pairs([
        ("journey", safe(shared, &JourneyView::new(status, docket, now))),
        ("places", safe(shared, &PlaceView::all(&status.journey, &shared.views.board))),
        ("strip", svg(charts::strip(&status.strip.cells(), |cell| cell_start(status, cell), false))),
        ("bar", Value::from(bar)),
    ])
}

/// An open incident, with the notices that told of it.
fn incident(
    shared: &Shared,
    status: &JourneyStatus,
    docket: &Docket,
    notices: &[NoticeView],
    now: jiff::Timestamp,
) -> Value {
    let id = status.incident.as_ref().map_or("", |incident| &incident.id);
    let told: Vec<_> = notices.iter().filter(|notice| notice.incident() == id).collect();
    Value::from_pairs([
        ("journey", safe(shared, &JourneyView::new(status, docket, now))),
        ("notices", safe(shared, &told)),
    ])
}
