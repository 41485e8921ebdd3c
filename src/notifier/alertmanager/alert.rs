//! A notice as Alertmanager's alert: read, named and bounded. Labels are its identity there, so that none of them may change while
//! an incident goes on, except its severity.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use crate::incident::NotifyReason;
use crate::notice::Notification;
use crate::notifier::cut;
use crate::secret::Redactor;

/// The `alertname` of every incident.
pub const ALERTNAME: &str = "JourneymanIncident";
/// Nobody reads more of an annotation, and every receiver of Alertmanager has a limit of its own.
const LONGEST_TEXT: usize = 8_000;
/// Of a label, which people match by.
const LONGEST_LABEL: usize = 1_000;

/// What Alertmanager is told, read from a notice.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What identifies it.
    pub labels: BTreeMap<String, String>,
    /// What else there is to know.
    pub annotations: BTreeMap<String, String>,
    /// The first bad slot.
    pub since: Timestamp,
    /// When this was decided.
    pub at: Timestamp,
    /// It is over.
    pub is_resolved: bool,
    /// There was a notice before, perhaps with other labels.
    pub is_follow_up: bool,
    /// The journey's page.
    pub page: Option<String>,
}

impl Alert {
    /// Reads a notice, without secrets.
    pub fn of(notification: &Notification, instead_of: Option<&(String, String)>, redactor: &Redactor) -> Alert {
        let incident = &notification.incident;
        let mut labels = BTreeMap::from([
            ("alertname".to_owned(), ALERTNAME.to_owned()),
            ("incident".to_owned(), incident.id.clone()),
            ("severity".to_owned(), incident.worst.to_string()),
            ("subject".to_owned(), notification.subject.clone()),
        ]);
        let optional = [("owner", &notification.owner), ("location", &notification.location)];
        labels.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
        add_labels(&mut labels, &notification.labels);
        if let Some(mark) = notification.mark {
            // Nobody is to be woken, and routes are to know it.
            labels.insert("severity".to_owned(), "info".to_owned());
            labels.insert(mark.to_string(), "true".to_owned());
        }
        // It takes an empty label for none, and so does who compares.
        labels.retain(|_, value| !value.is_empty());
        let bounded = |value: &String, most| redactor.clean(&cut(value, most));
        labels.values_mut().for_each(|value| *value = bounded(value, LONGEST_LABEL));

        let detectors: Vec<_> = incident.detectors.iter().map(|detector| detector.as_str()).collect();
        let instead_of = instead_of.map(|(notifier, said)| format!("{notifier}: {said}"));
        let annotations = [
            ("summary", Some(notification.headline())),
            ("description", Some(notification.text())),
            ("detectors", Some(detectors.join(", "))),
            ("runbook", notification.runbook.clone()),
            ("instead_of", instead_of),
        ];
        let annotations = annotations.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Alert {
            labels,
            annotations: annotations.map(|(name, value)| (name.to_owned(), bounded(&value, LONGEST_TEXT))).collect(),
            since: incident.since,
            at: notification.at,
            is_resolved: notification.reason == NotifyReason::Resolved,
            is_follow_up: notification.reason != NotifyReason::First,
            page: notification.link.as_ref().map(|page| redactor.clean(page)),
        }
    }

    /// The document. Unless it is over, it ends at `expires`, so that Alertmanager does not set an earlier end of its own.
    pub fn document(&self, expires: Timestamp) -> Value {
        // It refuses an end before the start; a clock that was set back makes one.
        let ends = if self.is_resolved { self.at } else { expires }.max(self.since);
        let mut document = json!({
            "labels": self.labels,
            "annotations": self.annotations,
            "startsAt": self.since,
            "endsAt": ends,
        });
        // It refuses the whole alert for a URL that is none.
        if let Some(page) = self.page.as_ref().filter(|page| Url::parse(page).is_ok()) {
            document["generatorURL"] = json!(page);
        }
        document
    }

    /// The end of every alert in `known` that is an earlier face of this incident: seen from the same place, with other labels.
    pub fn earlier_faces(&self, known: &Value) -> Vec<Value> {
        let is_ours = |labels: &BTreeMap<String, String>| {
            let same = |name| labels.get(name) == self.labels.get(name);
            same("alertname") && same("incident") && same("location") && *labels != self.labels
        };
        let end = |alert: &Value| {
            let labels: BTreeMap<String, String> = serde_json::from_value(alert["labels"].clone()).ok()?;
            let since: Timestamp = alert["startsAt"].as_str()?.parse().ok()?;
            is_ours(&labels).then(|| {
                json!({ "labels": labels, "annotations": alert["annotations"], "startsAt": since, "endsAt": self.at.max(since) })
            })
        };
        known.as_array().into_iter().flatten().filter_map(end).collect()
    }
}

/// Adds the journey's labels under names that Alertmanager takes. One whose name is taken gets another.
fn add_labels(labels: &mut BTreeMap<String, String>, journey: &BTreeMap<String, String>) {
    for (name, value) in journey {
        let mut name = valid(name);
        if labels.contains_key(&name) {
            name = format!("journey_{name}");
        }
        while labels.contains_key(&name) {
            name.push('_');
        }
        labels.insert(name, value.clone());
    }
}

/// A name as `[a-zA-Z_][a-zA-Z0-9_]*`: what older versions take, and newer ones in any mode.
fn valid(name: &str) -> String {
    let mut valid: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !valid.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        valid.insert(0, '_');
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn alert() -> Alert {
        Alert {
            labels: labels(&[("alertname", ALERTNAME), ("incident", "i1"), ("severity", "critical")]),
            annotations: BTreeMap::new(),
            since: at("2026-03-14T11:57:00Z"),
            at: at("2026-03-14T12:00:00Z"),
            is_resolved: false,
            is_follow_up: true,
            page: Some("https://probes.example.net/journeys/a".to_owned()),
        }
    }

    #[test]
    fn a_name_becomes_one_that_is_taken() {
        let table = [
            ("tier", "tier"),
            ("a-b.c d", "a_b_c_d"),
            ("9lives", "_9lives"),
            ("größe", "gr__e"),
            ("", "_"),
            ("_x", "_x"),
        ];
        for (name, expected) in table {
            assert_eq!(valid(name), expected, "{name:?}");
        }
    }

    #[test]
    fn no_label_of_a_journey_takes_the_place_of_another() {
        let mut found = labels(&[("severity", "critical")]);
        add_labels(&mut found, &labels(&[("a-b", "1"), ("a.b", "2"), ("a_b", "3"), ("severity", "none")]));
        let expected = [
            ("a_b", "1"),
            ("journey_a_b", "2"),
            ("journey_a_b_", "3"),
            ("journey_severity", "none"),
            ("severity", "critical"),
        ];
        assert_eq!(found, labels(&expected));
    }

    #[test]
    fn it_ends_when_it_is_over_and_never_before_it_began() {
        let expires = at("2026-03-14T13:00:00Z");
        assert_eq!(alert().document(expires)["endsAt"], "2026-03-14T13:00:00Z");
        let resolved = Alert { is_resolved: true, ..alert() };
        assert_eq!(resolved.document(expires)["endsAt"], "2026-03-14T12:00:00Z");
        let set_back = Alert { at: at("2026-03-14T11:00:00Z"), ..resolved };
        assert_eq!(set_back.document(expires)["endsAt"], "2026-03-14T11:57:00Z");
        let unlinked = Alert { page: Some("not a URL".to_owned()), ..alert() };
        assert_eq!(unlinked.document(expires)["generatorURL"], Value::Null);
        assert_eq!(alert().document(expires)["generatorURL"], "https://probes.example.net/journeys/a");
    }

    #[test]
    fn only_other_faces_of_the_same_incident_are_ended() {
        let known =
            |labels: &[(&str, &str)]| json!({ "labels": self::labels(labels), "startsAt": "2026-03-14T11:57:00.000Z" });
        let warning = [("alertname", ALERTNAME), ("incident", "i1"), ("severity", "warning")];
        let found = alert().earlier_faces(&json!([
            known(&warning),
            known(&[("alertname", ALERTNAME), ("incident", "i1"), ("severity", "critical")]),
            known(&[("alertname", ALERTNAME), ("incident", "i2"), ("severity", "warning")]),
            known(&[("alertname", "Other"), ("incident", "i1"), ("severity", "warning")]),
            known(&[("alertname", ALERTNAME), ("incident", "i1"), ("severity", "warning"), ("location", "lagos")]),
            "nonsense",
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["labels"], json!(labels(&warning)));
        assert_eq!(found[0]["endsAt"], "2026-03-14T12:00:00Z");
        assert_eq!(alert().earlier_faces(&json!({ "error": "no list" })), [] as [Value; 0]);
    }
}
