//! Alertmanager: one alert for each incident, by its API v2. It forgets what it is not told again: at the end that an alert names,
//! and when it is restarted. So what fires is posted again and again, with an end far enough away for us to be restarted.

pub mod alert;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use url::Url;

use crate::clock::Clock;
use crate::notice::Notification;
use crate::notifier::alertmanager::alert::{ALERTNAME, Alert};
use crate::notifier::post::{self, Answer, BEGINNING, Hints, Http};
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};
use crate::secret::{HeaderText, Redactor, Secret};
use crate::time::{between, later};

/// Of its status and of its list of one incident's alerts, which are long.
const LIST: usize = 4 << 20;
const HINTS: Hints = Hints { refused: "check `headers`, or the user and password in `url`", wrong: None };

/// Settings of an `alertmanager` notifier.
#[derive(Clone, Debug)]
pub struct AlertmanagerSettings {
    /// Where its API begins; every instance of a cluster, because alerts are not passed on between them.
    pub urls: Vec<Secret>,
    /// Sent with every request.
    pub headers: Vec<(String, HeaderText)>,
    /// How often what fires is posted again.
    pub resend_every: Duration,
    /// When Alertmanager takes what fires for over, if it is not posted again.
    pub expires_after: Duration,
}

/// Posts alerts to every instance.
pub struct Alertmanager {
    settings: AlertmanagerSettings,
    instances: Vec<Instance>,
    http: Http,
}

struct Instance {
    url: Secret,
    /// It asked not to be asked before.
    hold: Mutex<Option<Timestamp>>,
}

impl Instance {
    /// The address of a part of its API, and its name for people.
    fn endpoint(&self, part: &str) -> Result<(Url, String), String> {
        let mut url = post::address(&self.url)?;
        url.set_query(None);
        url.path_segments_mut().map_err(|()| "`url` has no path")?.pop_if_empty().extend(["api", "v2", part]);
        let host = url.host_str().unwrap_or_default();
        let place = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        Ok((url, place))
    }

    fn held(&self, now: Timestamp) -> Option<Duration> {
        let hold = *self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        hold.filter(|until| *until > now).map(|until| between(now, until))
    }
}

/// Makes the notifier, and checks all that can be checked without the network.
///
/// # Errors
/// A URL or header that cannot be used, named without its value; no usable trust store.
pub fn open(settings: AlertmanagerSettings, redactor: Redactor, clock: Clock) -> Result<Alertmanager, String> {
    let instance = |url: &Secret| Instance { url: url.clone(), hold: Mutex::default() };
    let instances: Vec<_> = settings.urls.iter().map(instance).collect();
    instances.iter().try_for_each(|instance| instance.endpoint("alerts").map(drop))?;
    post::headers(&settings.headers)?;
    Ok(Alertmanager { settings, instances, http: Http::new(redactor, clock)? })
}

impl Alertmanager {
    async fn get(
        &self,
        instance: &Instance,
        part: &str,
        query: &[(&str, &str)],
    ) -> Result<(Answer, String), NotifyError> {
        let (mut url, place) = instance.endpoint(part).map_err(NotifyError::Never)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let headers = post::headers(&self.settings.headers).map_err(NotifyError::Never)?;
        let answer = self.http.ask(self.http.client.get(url).headers(headers), &place, LIST).await?;
        post::judge(&answer, &place, &HINTS)?;
        Ok((answer, place))
    }

    async fn post(&self, instance: &Instance, alerts: &[Value]) -> Result<(Answer, String), NotifyError> {
        let (url, place) = instance.endpoint("alerts").map_err(NotifyError::Never)?;
        let mut headers = post::headers(&self.settings.headers).map_err(NotifyError::Never)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let now = self.http.clock.now().wall;
        if let Some(wait) = instance.held(now) {
            return Err(NotifyError::After { wait, detail: format!("not posting to {place} yet") });
        }
        let request = self.http.client.post(url).headers(headers).body(json!(alerts).to_string());
        let answer = self.http.ask(request, &place, BEGINNING).await?;
        let judged = post::judge(&answer, &place, &HINTS);
        if let Err(NotifyError::After { wait, .. }) = &judged {
            *instance.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(later(now, *wait));
        }
        judged.map(|()| (answer, place))
    }

    /// Posts the alert, and ends what the instance has of the same incident under other labels: a severity that has become worse, a
    /// journey whose labels were edited. If it does not say what it has, that ends when it expires.
    async fn tell(&self, instance: &Instance, alert: &Alert) -> Result<(Answer, String), NotifyError> {
        let expires = later(self.http.clock.now().wall, self.settings.expires_after);
        let mut alerts = vec![alert.document(expires)];
        if let (true, Some(incident)) = (alert.is_follow_up, alert.labels.get("incident")) {
            let filter = format!("incident={incident:?}");
            let filters = [("filter", filter.as_str()), ("filter", &format!("alertname={ALERTNAME:?}"))];
            match self.get(instance, "alerts", &filters).await {
                Ok((answer, _)) => {
                    alerts.extend(alert.earlier_faces(&serde_json::from_slice(&answer.body).unwrap_or_default()));
                }
                Err(error) => tracing::debug!(%error, "Alertmanager does not say what it has of an incident"),
            }
        }
        self.post(instance, &alerts).await
    }
}

impl Notifier for Alertmanager {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(async move {
            let notification = &delivery.notification;
            let alert = Alert::of(notification, delivery.instead_of.as_ref(), &self.http.redactor);
            let (took, failed) = split(join_all(self.instances.iter().map(|one| self.tell(one, &alert))).await);
            let Some((first, _)) = took.first() else { return Err(combined(failed)) };
            let mut said = first.said.clone();
            for error in failed {
                tracing::warn!(%error, "an instance of Alertmanager has not taken an alert; another one has");
                said = format!("{said}; {error}");
            }
            let places: Vec<_> = took.iter().map(|(_, place)| place.as_str()).collect();
            Ok(Receipt { id: notification.incident.id.clone(), place: places.join(", "), said, is_root: false })
        })
    }

    /// Asks each instance for its status. Every one must be there: an alert is not passed on between them.
    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async move {
            let asked = self.instances.iter().map(|instance| self.get(instance, "status", &[]));
            let (answers, failed) = split(join_all(asked).await);
            let mut words = Vec::new();
            for (answer, place) in answers {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let Some(version) = body["versionInfo"]["version"].as_str() else {
                    let why =
                        format!("{place} is there, and is no Alertmanager: its status has no version; check `url`");
                    return Err(NotifyError::Never(why));
                };
                let cluster = body["cluster"]["status"].as_str().unwrap_or("unknown");
                words.push(format!("{place} is Alertmanager {version}, its cluster {cluster}"));
            }
            if failed.is_empty() { Ok(words.join("; ")) } else { Err(combined(failed)) }
        })
    }

    fn preview(&self, delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        let alert = Alert::of(&delivery.notification, delivery.instead_of.as_ref(), &self.http.redactor);
        let expires = later(delivery.notification.at, self.settings.expires_after);
        let bytes = serde_json::to_vec_pretty(&[alert.document(expires)]).map_err(|error| error.to_string())?;
        Ok(vec![Rendered { ending: "json", bytes }])
    }

    fn kind(&self) -> &'static str {
        "alertmanager"
    }

    fn retells(&self) -> Option<Duration> {
        Some(self.settings.resend_every)
    }

    fn retell<'a>(&'a self, standing: &'a [Notification]) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let expires = later(self.http.clock.now().wall, self.settings.expires_after);
            let read = |notification| Alert::of(notification, None, &self.http.redactor).document(expires);
            let alerts: Vec<_> = standing.iter().map(read).collect();
            let (took, failed) = split(join_all(self.instances.iter().map(|one| self.post(one, &alerts))).await);
            if took.is_empty() { Err(combined(failed)) } else { Ok(()) }
        })
    }
}

type Told = Result<(Answer, String), NotifyError>;

fn split(told: Vec<Told>) -> (Vec<(Answer, String)>, Vec<NotifyError>) {
    let (took, failed): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
    (took.into_iter().filter_map(Result::ok).collect(), failed.into_iter().filter_map(Result::err).collect())
}

/// What several failures mean together: the one that lets us try again soonest. An instance that asked us to wait is passed over
/// until then, whatever the others say.
fn combined(errors: Vec<NotifyError>) -> NotifyError {
    let is_ambiguous = errors.iter().any(|error| matches!(error, NotifyError::Ambiguous(_)));
    let is_backoff = errors.iter().any(|error| matches!(error, NotifyError::Backoff(_)));
    let shortest = errors
        .iter()
        .filter_map(|error| if let NotifyError::After { wait, .. } = error { Some(*wait) } else { None })
        .min();
    let texts = errors.into_iter().map(|error| match error {
        NotifyError::Never(text) | NotifyError::Backoff(text) | NotifyError::Ambiguous(text) => text,
        NotifyError::After { detail, .. } => detail,
    });
    let text = texts.collect::<Vec<_>>().join("; ");
    match shortest {
        _ if is_ambiguous => NotifyError::Ambiguous(text),
        _ if is_backoff => NotifyError::Backoff(text),
        Some(wait) => NotifyError::After { wait, detail: text },
        None => NotifyError::Never(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_failures_are_the_one_that_lets_us_try_again_soonest() {
        let never = NotifyError::Never("404".into());
        let backoff = NotifyError::Backoff("500".into());
        let ambiguous = NotifyError::Ambiguous("reset".into());
        let after = |seconds| NotifyError::After { wait: Duration::from_secs(seconds), detail: "429".into() };
        let table = [
            (vec![never.clone()], never.clone()),
            (vec![never.clone(), backoff.clone()], NotifyError::Backoff("404; 500".into())),
            (vec![after(9), backoff], NotifyError::Backoff("429; 500".into())),
            (
                vec![after(9), never, after(5)],
                NotifyError::After { wait: Duration::from_secs(5), detail: "429; 404; 429".into() },
            ),
            (vec![after(9), ambiguous], NotifyError::Ambiguous("429; reset".into())),
        ];
        for (errors, expected) in table {
            assert_eq!(combined(errors), expected);
        }
    }

    #[test]
    fn the_api_is_below_the_url() {
        let redactor = Redactor::new();
        for (url, expected) in [
            ("http://am:9093", "http://am:9093/api/v2/alerts"),
            ("http://am:9093/", "http://am:9093/api/v2/alerts"),
            ("https://am.example.net/alertmanager/", "https://am.example.net/alertmanager/api/v2/alerts"),
        ] {
            let instance = Instance { url: Secret::new(url.to_owned(), &redactor), hold: Mutex::default() };
            assert_eq!(instance.endpoint("alerts").unwrap().0.as_str(), expected);
        }
    }
}
