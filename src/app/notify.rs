//! `journeyman notify test`: tells a notifier that nothing is wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::app::open_notifier;
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::notice::sample::test_notice;
use crate::notice::{Notification, delivery_id};
use crate::notifier::{Delivery, Notifier, Receipt};
use crate::time::Human;

/// A test waits so long for an answer: longer than any notifier of ours takes for one attempt.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells one notifier, in one attempt, that this is a test.
///
/// # Errors
/// No such notifier, or what it said.
pub async fn test(plan: &Plan, name: &str, clock: Clock) -> Result<String, Failure> {
    let notifier = open(plan, name, clock, None)?;
    let by = plan.location.as_ref().map(|place| format!("at {place}")).unwrap_or_else(|| "by hand".to_owned());
    let now = clock.now();
    let delivery = delivery(name, test_notice(now.wall, &by));
    let answer = tokio::time::timeout(LIMIT, notifier.notify(&delivery)).await;
    let took = Human(clock.now().mono.since(now.mono));
    let clean = |text: &str| plan.redactor.clean(text);
    let failure = |why: String| {
        Failure::new(
            exit::UNAVAILABLE,
            format!("notifier `{name}` ({}) was not told: {}", notifier.kind(), clean(&why)),
        )
    };
    match answer {
        Ok(Ok(Receipt { id, place, said, .. })) => {
            let kind = notifier.kind();
            Ok(format!(
                "ok   notifier {name} ({kind}, {took}): {}\nid   {}\nat   {}\n",
                clean(&said),
                clean(&id),
                clean(&place)
            ))
        }
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
        let known: Vec<_> = plan.notifiers.keys().map(|name| format!("`{name}`")).collect();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
        return Err(Failure::new(exit::USAGE, format!("no notifier is named `{name}`: {known}")));
    };
    open_notifier(planned, &plan.redactor, clock, key)
        .map_err(|why| Failure::new(exit::CONFIG, format!("notifier `{name}` cannot be built: {why}")))
}
