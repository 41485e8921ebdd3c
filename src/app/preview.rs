//! `journeyman notify preview`: shows what people are told, of an incident that never was or of a run of the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::notify::{delivery, open};
use crate::app::store_failure;
use crate::clock::Clock;
use crate::config::Plan;
use crate::demo;
use crate::exit::{self, Failure};
use crate::incident::NotifyReason;
use crate::journey::token::Token;
use crate::notice::sample::sample;
use crate::notice::untold::{Telling, untold};
use crate::notice::{Notification, address};
use crate::notifier::email::{EmailSettings, Security};
use crate::notifier::slack::{Interactions, SlackSettings};
use crate::notifier::{Notifier, Rendered, email, slack};
use crate::secret::{Redactor, Secret};

/// Signs the buttons of previews: no daemon takes them.
const NOBODYS_KEY: [u8; 32] = [0; 32];
/// Stands in a link for the signature of the permission.
const NO_SIGNATURE: &str = "00000000000000000000000000000000";

/// The notice of that reason, the first if none is given: of a run of the plan's store, or of the sample incident.
///
/// # Errors
/// It is no token, nothing is kept of the run, or the store cannot be read.
pub fn notice(run: Option<(&Plan, &str)>, reason: Option<NotifyReason>) -> Result<Notification, Failure> {
    match run {
        Some((plan, token)) => of_run(plan, token, reason),
        None => Ok(sample(reason.unwrap_or(NotifyReason::First))),
    }
}

/// The notice of this run: the first that people were told of it, of that reason if one is given. If nobody was told, it is made of what the
/// store has of the run.
fn of_run(plan: &Plan, token: &str, reason: Option<NotifyReason>) -> Result<Notification, Failure> {
    let Some(token) = Token::parse(token) else {
        let help = "it is `jm` and 26 letters and digits, as notices and the pages have it";
        return Err(Failure::new(exit::USAGE, format!("`{token}` is no run's token\n  help: {help}")));
    };
    let found = plan.store.home.told(token).map_err(|error| store_failure(plan, &error))?;
    let is_wanted = |notice: &Notification| reason.is_none_or(|reason| notice.reason == reason);
    if let Some(notice) = found.notices.into_iter().find(is_wanted) {
        return Ok(without_grants(notice));
    }
    let Some(report) = found.report else {
        let help = "it is kept of failed and slow runs and of a sample of good ones, for a time";
        return Err(Failure::new(exit::USAGE, format!("the store has no evidence of run {token}\n  help: {help}")));
    };
    let journey = plan.journeys.iter().find(|journey| journey.name == report.journey).map(|journey| &**journey);
    let link = address(plan.http.public_url.as_ref(), &["journeys", &report.journey]);
    Ok(untold(Telling {
        reason: reason.unwrap_or(NotifyReason::First),
        report,
        last_good: found.last_good,
        journey,
        location: plan.location.clone(),
        link,
    }))
}

/// A file that lies about must not acknowledge anything.
fn without_grants(mut notice: Notification) -> Notification {
    for link in [&mut notice.ack_link, &mut notice.run_link].into_iter().flatten() {
        let claim = link.rsplit_once('.').map_or("", |(claim, _)| claim);
        *link = format!("{claim}.{NO_SIGNATURE}");
    }
    notice
}

/// Renders a notice: as the named notifier of the plan would tell it, or as Slack and mail do that have no texts of their own. Gives
/// the files written.
///
/// # Errors
/// No such notifier, or a file that cannot be written.
pub fn preview(
    plan: Option<(&Plan, &str)>,
    notification: Notification,
    directory: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let (reason, at) = (notification.reason, notification.at);
    // As told at once.
    let clock = Clock::derived(at);
    let key: Arc<[u8]> = NOBODYS_KEY.as_slice().into();
    let own = match plan {
        Some((plan, name)) => vec![(name, open(plan, name, clock, Some(&key))?)],
        None => built_in(clock, key).map_err(|why| Failure::new(exit::SOFTWARE, why))?,
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
            let page = demo::slack_page(&message, at).map_err(|why| Failure::new(exit::SOFTWARE, why))?;
            let path = directory.join(format!("{name}-{reason}.html"));
            std::fs::write(&path, page).map_err(|error| unwritable(&path, &error))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Notifiers by their names.
type Named<'a> = Vec<(&'a str, Arc<dyn Notifier>)>;

/// Slack and mail without a configuration.
fn built_in(clock: Clock, key: Arc<[u8]>) -> Result<Named<'static>, String> {
    let redactor = Redactor::new();
    let secret = |text: &str| Secret::new(text.to_owned(), &redactor);
    let bot = SlackSettings::Bot {
        token: secret("xoxb-preview"),
        channel: "C0123456789".to_owned(),
        api_url: None,
        interactions: Interactions { signing_secret: None, app_token: Some(secret("xapp-preview")) },
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
        ("slack", Arc::new(slack::open(bot, redactor.clone(), clock, Some(key))?)),
        ("email", Arc::new(email::open(mail, redactor, clock)?)),
    ])
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display()))
}
