//! `journeyman notify`: shows what people would be told, and tells a notifier that nothing is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::app::open_notifier;
use crate::clock::Clock;
use crate::config::Plan;
use crate::demo;
use crate::exit::{self, Failure};
use crate::incident::NotifyReason;
use crate::notice::sample::{sample, test_notice};
use crate::notice::{Notification, delivery_id};
use crate::notifier::email::{EmailSettings, Security};
use crate::notifier::slack::SlackSettings;
use crate::notifier::{Delivery, Notifier, Receipt, Rendered, email, slack};
use crate::secret::{Redactor, Secret};
use crate::time::Human;

/// A test waits so long for an answer: longer than any notifier of ours takes for one attempt.
const LIMIT: Duration = Duration::from_secs(120);

/// Renders the sample incident's notice of that reason: as the named notifier of the plan would tell it, or as Slack and mail do
/// that have no texts of their own. Gives the files written.
///
/// # Errors
/// No such notifier, or a file that cannot be written.
pub fn preview(plan: Option<(&Plan, &str)>, reason: NotifyReason, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let notification = sample(reason);
    // As told at once.
    let clock = Clock::derived(notification.at);
    let own = match plan {
        Some((plan, name)) => vec![(name, open(plan, name, clock)?)],
        None => built_in(clock).map_err(|why| Failure::new(exit::SOFTWARE, why))?,
    };
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
    let mut written = Vec::new();
    for (name, notifier) in own {
        let delivery = delivery(name, notification.clone());
        let rendered = notifier.preview(&delivery).map_err(|why| Failure::new(exit::SOFTWARE, why))?;
        let is_message = |rendered: &&Rendered| notifier.kind() == "slack" && rendered.ending == "json";
        let message = rendered.iter().find(is_message).map(|rendered| rendered.bytes.clone());
        for rendered in rendered {
            let path = directory.join(format!("{name}-{reason}.{}", rendered.ending));
            std::fs::write(&path, rendered.bytes).map_err(|error| unwritable(&path, &error))?;
            written.push(path);
        }
        if let Some(message) = message {
            let page = demo::slack_page(&message, notification.at).map_err(|why| Failure::new(exit::SOFTWARE, why))?;
            let path = directory.join(format!("{name}-{reason}.html"));
            std::fs::write(&path, page).map_err(|error| unwritable(&path, &error))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Tells one notifier, in one attempt, that this is a test.
///
/// # Errors
/// No such notifier, or what it said.
pub async fn test(plan: &Plan, name: &str, clock: Clock) -> Result<String, Failure> {
    let notifier = open(plan, name, clock)?;
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

fn delivery(notifier: &str, notification: Notification) -> Delivery {
    let incident = &notification.incident;
    let id = delivery_id(&incident.id, incident.sequence, &notifier.into());
    let root = (incident.sequence > 1).then(|| {
        let first = delivery_id(&incident.id, 1, &notifier.into());
        let id = format!("<{first}.edc0424c5325@example.net>");
        Receipt { id, place: "sample".to_owned(), ..Receipt::default() }
    });
    Delivery { id, attempt: 1, is_ambiguous: false, notification, root, instead_of: None }
}

fn open(plan: &Plan, name: &str, clock: Clock) -> Result<Arc<dyn Notifier>, Failure> {
    let Some(planned) = plan.notifiers.get(name) else {
        let known: Vec<_> = plan.notifiers.keys().map(|name| format!("`{name}`")).collect();
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
        return Err(Failure::new(exit::USAGE, format!("no notifier is named `{name}`: {known}")));
    };
    open_notifier(planned, &plan.redactor, clock, None)
        .map_err(|why| Failure::new(exit::CONFIG, format!("notifier `{name}` cannot be built: {why}")))
}

/// Notifiers by their names.
type Named<'a> = Vec<(&'a str, Arc<dyn Notifier>)>;

/// Slack and mail without a configuration.
fn built_in(clock: Clock) -> Result<Named<'static>, String> {
    let redactor = Redactor::new();
    let token = Secret::new("xoxb-preview".to_owned(), &redactor);
    let bot = SlackSettings::Bot {
        token,
        channel: "C0123456789".to_owned(),
        api_url: None,
        interactions: Default::default(),
    };
    let mail = EmailSettings {
        host: "localhost".to_owned(),
        port: 25,
        security: Security::Plain,
        credentials: None,
        from: "Journeyman <journeyman@example.net>".to_owned(),
        to: vec!["ops@example.net".to_owned()],
    };
    Ok(vec![
        ("slack", Arc::new(slack::open(bot, redactor.clone(), clock, None)?)),
        ("email", Arc::new(email::open(mail, redactor, clock)?)),
    ])
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display()))
}
