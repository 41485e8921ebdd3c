//! PagerDuty's Events API v2 as its documents describe it: what it takes, what it refuses, and what becomes of an alert.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::hook::{self, Answer, Hook, Request};

/// The integration key that it knows.
pub(crate) const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// What it takes, in bytes: 512 KB, whichever of the two is meant.
const LARGEST: usize = 512_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Triggered,
    Acknowledged,
    Resolved,
}

/// An alert as PagerDuty's page would show it.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub dedup_key: String,
    pub status: Status,
    /// The payload of each trigger.
    pub triggers: Vec<Value>,
}

/// The server; it ends with its owner.
pub(crate) struct FakePagerduty {
    hook: Hook,
    alerts: Arc<Mutex<Vec<Alert>>>,
}

impl FakePagerduty {
    /// Answers with these in order, then as documented.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> FakePagerduty {
        let alerts: Arc<Mutex<Vec<Alert>>> = Arc::default();
        let held = alerts.clone();
        let hook = Hook::start_with(answers, move |request| take(request, &mut held.lock().expect("no panic"))).await;
        FakePagerduty { hook, alerts }
    }

    pub(crate) fn url(&self) -> String {
        self.hook.url("/v2/enqueue")
    }

    pub(crate) fn then(&self, answer: Answer) {
        self.hook.then(answer);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.hook.requests()
    }

    /// Every alert so far, in order.
    pub(crate) fn alerts(&self) -> Vec<Alert> {
        self.alerts.lock().expect("no panic while held").clone()
    }
}

fn take(request: &Request, alerts: &mut Vec<Alert>) -> Answer {
    let line = request.head.lines().next().unwrap_or_default();
    if line != "POST /v2/enqueue HTTP/1.1" {
        return hook::status("404 Not Found");
    }
    if request.body.len() > LARGEST {
        return hook::status("413 Payload Too Large");
    }
    let errors = match serde_json::from_slice(&request.body) {
        Ok(event) => {
            let errors = faults(&event);
            if errors.is_empty() {
                apply(&event, alerts);
                let key = &event["dedup_key"];
                let answer = json!({ "status": "success", "message": "Event processed", "dedup_key": key });
                return hook::json("202 Accepted", &answer);
            }
            errors
        }
        Err(error) => vec![error.to_string()],
    };
    let answer = json!({ "status": "invalid event", "message": "Event object is invalid", "errors": errors });
    hook::json("400 Bad Request", &answer)
}

/// What is against the documents.
fn faults(event: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    let is_text = |value: &Value, most: usize| {
        value.as_str().is_some_and(|text| !text.is_empty() && text.chars().count() <= most)
    };
    let key = event["routing_key"].as_str().unwrap_or_default();
    demand(key.len() == 32, "Length of 'routing_key' is incorrect (should be 32 characters)");
    demand(key == ROUTING_KEY, "'routing_key' is not known");
    demand(is_text(&event["dedup_key"], 255), "Length of 'dedup_key' is incorrect (should be at most 255 characters)");
    let action = event["event_action"].as_str().unwrap_or_default();
    demand(["trigger", "acknowledge", "resolve"].contains(&action), "'event_action' is not included in the list");
    demand(!has_null(event), "null is documented nowhere");
    if action == "trigger" {
        let payload = &event["payload"];
        demand(is_text(&payload["summary"], 1_024), "'payload.summary' is missing, empty or too long");
        demand(is_text(&payload["source"], usize::MAX), "'payload.source' is missing or blank");
        let severities = ["critical", "error", "warning", "info"].map(Value::from);
        demand(severities.contains(&payload["severity"]), "'payload.severity' is invalid");
        let at = payload["timestamp"].as_str().map(str::parse::<jiff::Timestamp>);
        demand(matches!(at, None | Some(Ok(_))), "'payload.timestamp' is invalid");
        demand(payload["custom_details"].is_object(), "'payload.custom_details' is not an object");
        let links = event["links"].as_array();
        let is_link = |link: &Value| is_text(&link["href"], usize::MAX);
        demand(links.is_none_or(|links| links.iter().all(is_link)), "a link has no 'href'");
    }
    faults
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

/// A trigger opens an alert or adds to the open one; the others are dropped where none is open.
fn apply(event: &Value, alerts: &mut Vec<Alert>) {
    let key = event["dedup_key"].as_str().unwrap_or_default();
    let open = alerts.iter_mut().find(|alert| alert.dedup_key == key && alert.status != Status::Resolved);
    match (event["event_action"].as_str(), open) {
        (Some("trigger"), Some(alert)) => alert.triggers.push(event["payload"].clone()),
        (Some("trigger"), None) => alerts.push(Alert {
            dedup_key: key.to_owned(),
            status: Status::Triggered,
            triggers: vec![event["payload"].clone()],
        }),
        (Some("acknowledge"), Some(alert)) => alert.status = Status::Acknowledged,
        (Some("resolve"), Some(alert)) => alert.status = Status::Resolved,
        _ => {}
    }
}
