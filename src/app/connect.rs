//! `check --connect`: proves every channel and notifier of a plan, and starts nothing.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};

use crate::alarm::Alarms;
use crate::app::open_notifier;
use crate::channel::Opening;
use crate::channel::webhook::Hooks;
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::secret::Redactor;
use crate::time::Human;

/// How long each may take.
const LIMIT: Duration = Duration::from_secs(10);
/// This many at once: enough to be quick, few enough not to be a flood.
const AT_ONCE: usize = 8;

/// What became of one channel or notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// `channel` or `notifier`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What was proven, or why not; for people, without secrets.
    pub result: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Proof { what, name, kind, result, took } = self;
        let (mark, words) = match result {
            Ok(words) => ("ok  ", words),
            Err(words) => ("FAIL", words),
        };
        write!(f, "{mark} {what} {name} ({kind}, {}): {words}", Human(*took))
    }
}

/// Proves each, some at a time, in the order of their names: channels, then notifiers.
///
/// # Errors
/// A channel or notifier that cannot even be opened.
pub async fn connect(plan: &Plan, clock: Clock) -> Result<Vec<Proof>, Failure> {
    prove(plan, clock, |_| true).await
}

/// The same for those whose `required` is like this.
pub(super) async fn prove(
    plan: &Plan,
    clock: Clock,
    is_asked: impl Fn(Option<bool>) -> bool,
) -> Result<Vec<Proof>, Failure> {
    let opening = Opening { clock, hooks: plan.hooks.as_ref().map(|_| Hooks::default()), alarms: Alarms::default() };
    let mut proofs: Vec<BoxFuture<'_, Proof>> = Vec::new();
    for (name, planned) in plan.channels.iter().filter(|(_, planned)| is_asked(planned.policy.required)) {
        let why = |why| Failure::new(exit::CONFIG, format!("channel `{name}` cannot be opened: {why}"));
        let Some(channel) = planned.settings.open(&opening).map_err(why)? else { continue };
        proofs.push(Box::pin(async move {
            let began = clock.now().mono;
            let result = match tokio::time::timeout(LIMIT * 2, channel.prove(LIMIT)).await {
                Ok(result) => result.map_err(|fault| format!("{}: {}", fault.cause, fault.detail)),
                Err(_) => Err(format!("no answer within {}", Human(LIMIT * 2))),
            };
            let took = clock.now().mono.since(began);
            cleaned(
                Proof { what: "channel", name: name.to_string(), kind: planned.kind.name, result, took },
                &plan.redactor,
            )
        }));
    }
    for (name, planned) in plan.notifiers.iter().filter(|(_, planned)| is_asked(planned.required)) {
        let notifier = open_notifier(planned, &plan.redactor, clock, None)
            .map_err(|why| Failure::new(exit::CONFIG, format!("notifier `{name}` cannot be built: {why}")))?;
        proofs.push(Box::pin(async move {
            let began = clock.now().mono;
            let result = match tokio::time::timeout(LIMIT * 2, notifier.prove()).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {}", Human(LIMIT * 2))),
            };
            let took = clock.now().mono.since(began);
            cleaned(
                Proof { what: "notifier", name: name.to_string(), kind: notifier.kind(), result, took },
                &plan.redactor,
            )
        }));
    }
    Ok(stream::iter(proofs).buffered(AT_ONCE).collect().await)
}

/// Servers repeat what they were given, in their own words.
fn cleaned(mut proof: Proof, redactor: &Redactor) -> Proof {
    proof.result = match proof.result {
        Ok(words) => Ok(redactor.clean(&words)),
        Err(words) => Err(redactor.clean(&words)),
    };
    proof
}
