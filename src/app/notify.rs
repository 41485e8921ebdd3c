//! `journeyman notify test`: tells a notifier that nothing is wrong.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::app::open_notifier;
use crate::clock::Clock;
use crate::config::{Plan, not_there};
use crate::exit::{self, Failure};
use crate::notice::sample::test_notice;
use crate::notice::{Notification, delivery_id};
use crate::notifier::{Delivery, Notifier, Receipt};
use crate::time::Human;

/// A test waits so long for an answer: longer than any notifier of ours takes for one attempt.
const LIMIT: Duration = Duration::from_secs(120);

/// A notifier that took the test, in words that hold no secret.
#[derive(Debug, Serialize)]
pub struct Took {
    /// Its name.
    pub notifier: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it answered.
    pub said: String,
    /// What it calls the message.
    pub id: String,
    /// Where the message is.
    pub place: String,
    /// How long that took.
    #[serde(rename = "took_seconds", serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Took { notifier, kind, said, id, place, took } = self;
        writeln!(f, "ok   notifier {notifier} ({kind}, {}): {said}", Human(*took))?;
        writeln!(f, "id   {id}\nat   {place}")
    }
}

/// Tells one notifier, in one attempt, that this is a test.
///
/// # Errors
/// No such notifier, or what it said.
pub async fn test(plan: &Plan, name: &str, clock: Clock) -> Result<Took, Failure> {
    let notifier = open(plan, name, clock, None)?;
    let by = plan.location.as_ref().map(|place| format!("at {place}")).unwrap_or_else(|| "by hand".to_owned());
    let now = clock.now();
    let delivery = delivery(name, test_notice(now.wall, &by));
    let answer = tokio::time::timeout(LIMIT, notifier.notify(&delivery)).await;
    let took = clock.now().mono.since(now.mono);
    let clean = |text: &str| plan.redactor.clean(text);
    let failure = |why: String| {
        Failure::new(
            exit::UNAVAILABLE,
            format!("notifier `{name}` ({}) was not told: {}", notifier.kind(), clean(&why)),
        )
    };
    match answer {
        Ok(Ok(Receipt { id, place, said, .. })) => Ok(Took {
            notifier: name.to_owned(),
            kind: notifier.kind(),
            said: clean(&said),
            id: clean(&id),
            place: clean(&place),
            took,
        }),
        Ok(Err(error)) => Err(failure(error.to_string())),
        Err(_) => Err(failure(format!("no answer within {}", Human(LIMIT)))),
    }
}

pub(super) fn delivery(notifier: &str, notification: Notification) -> Delivery {
    let incident = &notification.incident;
    let id = delivery_id(&incident.id, incident.sequence, &notifier.into());
    let root = (incident.sequence > 1).then(|| {
        let first = delivery_id(&incident.id, 1, &notifier.into());
        let id = format!("<{first}.edc0424c5325@example.net>");
        Receipt { id, place: "sample".to_owned(), ..Receipt::default() }
    });
    Delivery { id, attempt: 1, is_ambiguous: false, notification, root, instead_of: None }
}

/// `key` signs what people may do with what they are told.
pub(super) fn open(
    plan: &Plan,
    name: &str,
    clock: Clock,
    key: Option<&Arc<[u8]>>,
) -> Result<Arc<dyn Notifier>, Failure> {
    let Some(planned) = plan.notifiers.get(name) else {
        let known = plan.notifiers.keys().map(|name| &**name);
        return Err(Failure::new(exit::USAGE, not_there("notifier", name, known)));
    };
    open_notifier(planned, &plan.redactor, clock, key)
        .map_err(|why| Failure::new(exit::CONFIG, format!("notifier `{name}` cannot be built: {why}")))
}
