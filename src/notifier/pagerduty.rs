//! PagerDuty: one alert for each incident, by the Events API v2. The incident's id is the `dedup_key`, so that a repetition changes
//! nothing and nothing has to be remembered.
//!
//! Limits and answers are those of PagerDuty's "Events API v2 Overview" and "Send an Alert Event".

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::detect::Severity;
use crate::incident::NotifyReason;
use crate::notifier::post::{self, Answer, Hints, Http};
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered, clean, cut};
use crate::secret::{Redactor, Secret};

/// Where events go unless `url` says otherwise.
pub const ENQUEUE: &str = "https://events.pagerduty.com/v2/enqueue";
/// The documented length of a `routing_key`.
pub const ROUTING_KEY: usize = 32;
/// The documented longest `dedup_key`, in characters.
const LONGEST_KEY: usize = 255;
/// The documented longest `payload.summary`, in characters.
const LONGEST_SUMMARY: usize = 1_024;
/// Of any other text, so that an event stays far below the documented 512 KB, however its characters are escaped.
const LONGEST_TEXT: usize = 2_000;
/// Of the waterfall, likewise.
const LONGEST_WATERFALL: usize = 16_000;
/// It says 429 without saying for how long; its documents ask for more than a moment.
const THROTTLED: Duration = Duration::from_secs(30);
/// Its answers are short.
const ANSWER: usize = 4_096;
const HINTS: Hints = Hints {
    refused: "check `routing_key`",
    wrong: Some(
        "PagerDuty takes no such event: check `routing_key`, the integration key of an \"Events API v2\" integration",
    ),
};

/// Settings of a `pagerduty` notifier.
#[derive(Clone, Debug)]
pub struct PagerdutySettings {
    /// The integration key.
    pub routing_key: Secret,
    /// Where events are posted to.
    pub url: Secret,
}

/// What an event does to the alert of its `dedup_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Opens it, or adds to it.
    Trigger,
    /// Somebody has it in hand: PagerDuty escalates no further.
    Acknowledge,
    /// Closes it.
    Resolve,
}

/// What PagerDuty is told, read from a notice.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What to do.
    pub action: Action,
    /// The incident.
    pub incident: String,
    /// The notice in one line.
    pub summary: String,
    /// What it is about.
    pub subject: String,
    /// `critical` or `warning`; `info` if it is no outage.
    pub severity: &'static str,
    /// When it was decided.
    pub at: Timestamp,
    /// The step that failed.
    pub component: Option<String>,
    /// Who owns it.
    pub group: Option<String>,
    /// What holds the incident open.
    pub class: String,
    /// What else there is to know, by name.
    pub details: Vec<(String, String)>,
    /// Both runs as text.
    pub waterfall: Option<String>,
    /// The journey's page.
    pub page: Option<String>,
    /// Where it says what to do.
    pub runbook: Option<String>,
}

impl Event {
    /// Reads a notice.
    pub fn of(delivery: &Delivery) -> Event {
        let notification = &delivery.notification;
        let incident = &notification.incident;
        let facts = notification.facts().into_iter().map(|(name, value)| (name.to_owned(), value));
        let instead =
            delivery.instead_of.as_ref().map(|(notifier, said)| ("Instead of", format!("{notifier}: {said}")));
        let detectors: Vec<_> = incident.detectors.iter().map(|detector| detector.as_str()).collect();
        Event {
            action: match notification.reason {
                NotifyReason::First | NotifyReason::Worse | NotifyReason::Repeat => Action::Trigger,
                NotifyReason::Updated if incident.acked.is_some() => Action::Acknowledge,
                NotifyReason::Updated => Action::Trigger,
                NotifyReason::Resolved => Action::Resolve,
            },
            incident: incident.id.clone(),
            summary: notification.headline(),
            subject: notification.subject.clone(),
            severity: match (notification.mark, incident.worst) {
                // Nobody is to be woken.
                (Some(_), _) => "info",
                (None, Severity::Critical) => "critical",
                (None, Severity::Warning) => "warning",
            },
            at: notification.at,
            component: notification.report.as_ref().and_then(|report| Some(report.failed_step()?.name.to_string())),
            group: notification.owner.clone(),
            class: detectors.join(", "),
            details: facts.chain(instead.map(|(name, value)| (name.to_owned(), value))).collect(),
            waterfall: notification.waterfall(24),
            page: notification.link.clone(),
            runbook: notification.runbook.clone(),
        }
    }

    /// The document that is posted, but for its `routing_key`: without secrets, and within the limits.
    fn document(&self, redactor: &Redactor) -> Value {
        let mut document = json!({});
        if self.action == Action::Trigger {
            let mut details: Map<_, _> =
                self.details.iter().map(|(name, value)| (name.clone(), json!(cut(value, LONGEST_TEXT)))).collect();
            let waterfall = self.waterfall.as_ref().map(|text| json!(cut(text, LONGEST_WATERFALL)));
            details.extend(waterfall.map(|text| ("Waterfall".to_owned(), text)));
            let links = [("Runbook", &self.runbook), ("Page", &self.page)];
            let links: Vec<_> = links
                .into_iter()
                .filter_map(|(text, href)| Some(json!({ "href": cut(href.as_ref()?, LONGEST_TEXT), "text": text })))
                .collect();
            document = json!({
                "payload": {
                    "summary": cut(&self.summary, LONGEST_SUMMARY),
                    "source": cut(&self.subject, LONGEST_TEXT),
                    "severity": self.severity,
                    "timestamp": self.at,
                    "component": self.component.as_ref().map(|name| cut(name, LONGEST_TEXT)),
                    "group": self.group.as_ref().map(|owner| cut(owner, LONGEST_TEXT)),
                    "class": self.class,
                    "custom_details": details,
                },
                "client": "Journeyman",
                "client_url": self.page.as_ref().map(|page| cut(page, LONGEST_TEXT)),
                "links": links,
            });
            drop_nulls(&mut document);
        }
        clean(&mut document, redactor);
        document["event_action"] = json!(match self.action {
            Action::Trigger => "trigger",
            Action::Acknowledge => "acknowledge",
            Action::Resolve => "resolve",
        });
        document["dedup_key"] = json!(dedup_key(&self.incident));
        document
    }
}

/// The incident's id. One that is too long is replaced by its hash, which is as stable.
fn dedup_key(incident: &str) -> String {
    if incident.chars().count() <= LONGEST_KEY {
        return incident.to_owned();
    }
    Sha256::digest(incident).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A member that is not there is left out: PagerDuty documents no `null`.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
        members.values_mut().for_each(drop_nulls);
    }
}

/// Posts events to PagerDuty, or to what takes the same.
pub struct Pagerduty {
    settings: PagerdutySettings,
    http: Http,
}

/// Makes the notifier, and checks all that can be checked without the network.
///
/// # Errors
/// A URL that cannot be used, named without its value; no usable trust store.
pub fn open(settings: PagerdutySettings, redactor: Redactor, clock: Clock) -> Result<Pagerduty, String> {
    post::address(&settings.url)?;
    Ok(Pagerduty { settings, http: Http::new(redactor, clock)? })
}

impl Pagerduty {
    /// Makes one attempt to post an event.
    ///
    /// # Errors
    /// Whatever is not PagerDuty's word that it took it, by what to do next.
    pub async fn send(&self, event: &Event) -> Result<Receipt, NotifyError> {
        let url = post::address(&self.settings.url).map_err(NotifyError::Never)?;
        let place = url.host_str().unwrap_or_default().to_owned();
        let mut headers = post::headers(&[]).map_err(NotifyError::Never)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut document = event.document(&self.http.redactor);
        document["routing_key"] = json!(self.settings.routing_key.reveal().as_str());
        let request = self.http.client.post(url).headers(headers).body(document.to_string());
        let answer = self.http.ask(request, &place, ANSWER).await?;
        judge(&answer, &place)?;
        Ok(Receipt { id: dedup_key(&event.incident), place, said: answer.said, is_root: false })
    }
}

impl Notifier for Pagerduty {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(async move { self.send(&Event::of(delivery)).await })
    }

    /// Asks `GET`, which changes nothing. There is no harmless event, so the key stays unproven, and that is said.
    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let url = post::address(&self.settings.url).map_err(NotifyError::Never)?;
            let place = url.host_str().unwrap_or_default().to_owned();
            let status = self.http.ask(self.http.client.get(url), &place, 0).await?.status;
            Ok(format!(
                "{place} is there, and answers GET with {status}; whether it takes `routing_key` only a real event can show"
            ))
        })
    }

    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        let document = Event::of(delivery).document(&self.http.redactor);
        let bytes = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
        Ok(vec![Rendered { ending: "json", bytes }])
    }

    fn kind(&self) -> &'static str {
        "pagerduty"
    }
}

/// What an answer means. Only 202, or another 2xx that says `success`, is PagerDuty's: a proxy or a portal in between says 200 to anything.
fn judge(answer: &Answer, place: &str) -> Result<(), NotifyError> {
    match answer.status.as_u16() {
        202 => Ok(()),
        200..=299 => {
            let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
            if body.is_some_and(|body| body["status"] == "success") {
                return Ok(());
            }
            let said = &answer.said;
            Err(NotifyError::Never(format!(
                "posting to {place}: answered {said}, which is not PagerDuty's 202; check `url`"
            )))
        }
        429 => Err(NotifyError::After {
            wait: answer.wait.unwrap_or(THROTTLED),
            detail: format!("posting to {place}: answered {}", answer.said),
        }),
        _ => post::judge(answer, place, &HINTS),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn an_answer_has_its_class() {
        let minute = Some(Duration::from_secs(60));
        let table = [
            (202, None, "", "ok"),
            (200, None, r#"{"status":"success"}"#, "ok"),
            (200, None, "<html>Welcome to the hotel</html>", "never"),
            (204, None, "", "never"),
            (302, None, "", "never"),
            (400, None, r#"{"status":"invalid event"}"#, "never"),
            (403, None, "", "never"),
            (404, None, "", "never"),
            (413, None, "", "never"),
            (408, None, "", "backoff"),
            (429, None, "", "after 30"),
            (429, minute, "", "after 60"),
            (500, None, "", "backoff"),
            (503, minute, "", "after 60"),
            (504, None, "", "backoff"),
        ];
        for (status, wait, body, class) in table {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, wait, said: status.to_string(), body: body.as_bytes().to_vec() };
            let found = match judge(&answer, "events.example.net") {
                Ok(()) => "ok".to_owned(),
                Err(NotifyError::Never(_)) => "never".to_owned(),
                Err(NotifyError::Backoff(_)) => "backoff".to_owned(),
                Err(NotifyError::After { wait, .. }) => format!("after {}", wait.as_secs()),
                Err(NotifyError::Ambiguous(_)) => "ambiguous".to_owned(),
            };
            assert_eq!(found, class, "{status} {body}");
        }
    }

    #[test]
    fn a_key_that_is_too_long_becomes_one_that_is_not_and_stays_itself() {
        assert_eq!(dedup_key(&"é".repeat(255)), "é".repeat(255));
        let (one, other) = (dedup_key(&"a".repeat(256)), dedup_key(&"b".repeat(256)));
        assert_eq!((one.len(), one == other), (64, false));
        assert_eq!(one, dedup_key(&"a".repeat(256)));
    }
}
