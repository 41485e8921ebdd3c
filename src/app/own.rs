//! Puts the monitor's own journey into a plan: its channels, its secret, its door.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::Url;

use crate::board::STUCK;
use crate::breaker::Guarded;
use crate::channel::http::HttpSettings;
use crate::channel::webhook::{Verify, WebhookSettings};
use crate::channel::{Settings, kind_of};
use crate::commands::Levers;
use crate::config::watcher::Door;
use crate::config::{ChannelPlan, Plan};
use crate::delivery::Lender;
use crate::gate::{Rules, reach};
use crate::journey::Name;
pub(super) use crate::journey::own::limit;
use crate::journey::own::{self, CALL, Call, NAME};
use crate::metrics::Metrics;
use crate::notifier::null::Null;
use crate::secret::{HeaderText, Redactor, Secret};

/// The route on the hooks listener.
const PATH: &str = "/.journeyman/own";
/// A token and what stands around it.
const MAX_BODY: usize = 4 << 10;

/// Adds the journey, if the plan has one; `hooks` is where the hooks listener listens, `key` is the installation's.
pub(super) fn join(plan: &mut Plan, key: &[u8], hooks: Option<SocketAddr>) {
    let Some(own) = plan.watcher.own else { return };
    let door = hooks.and_then(|address| url(plan, own.door, address));
    let call = match door {
        Some(url) => {
            let secret = secret(key, &plan.redactor);
            let door = WebhookSettings {
                path: PATH.to_owned(),
                verify: Verify::Bearer { secrets: vec![secret.0] },
                max_body: MAX_BODY,
                respond: 200,
            };
            let call = HttpSettings {
                url: Some(url),
                headers: vec![("authorization".to_owned(), HeaderText::Secret(secret.1))],
                // The whole way each time: name, connection, TLS.
                new_connection: true,
                ..HttpSettings::default()
            };
            open(plan, NAME, "webhook", Settings::Webhook(door));
            open(plan, CALL, "http", Settings::Http(call));
            Call { channel: CALL, is_answered: true }
        }
        None => {
            open(plan, NAME, "memory", Settings::Memory);
            Call { channel: NAME, is_answered: false }
        }
    };
    plan.journeys.push(Arc::new(own::journey(own.every, call, plan.operators.clone())));
}

fn open(plan: &mut Plan, name: &str, kind: &str, settings: Settings) {
    if let Some(kind) = kind_of(kind) {
        plan.channels.insert(name.into(), ChannelPlan::own(kind, settings));
    }
}

/// Where it knocks.
fn url(plan: &Plan, door: Door, listener: SocketAddr) -> Option<Url> {
    let hooks = plan.hooks.as_ref()?;
    // What wants a password is no door for it, and what shows a certificate is known by its public name.
    let wants_password = |file: &PathBuf| Rules::load(file).is_ok_and(|rules| rules.has_users());
    if hooks.web_config.as_ref().is_some_and(wants_password) {
        return None;
    }
    let near = || {
        let is_plain = hooks.web_config.is_none();
        is_plain.then(|| Url::parse(&format!("http://{}", reach(listener))).ok()).flatten()
    };
    let mut url = match door {
        Door::Public => hooks.public_url.clone().or_else(near)?,
        Door::Listener => near()?,
    };
    let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

/// How long its slots may stay without anything being known of them, before a loop of ours must be stuck.
pub(super) fn silence(every: Duration) -> Duration {
    every * 3 + own::DEADLINE + STUCK
}

/// Its notifier, which tells nobody.
pub(super) fn lender(null: Null, metrics: &Metrics, levers: &Levers) -> Lender {
    let name = Name::from(NAME);
    let what = Guarded::Notifier(name.clone());
    let (lever, breaker) = (levers.of(&what), metrics.breaker(&what));
    Lender { notifier: Arc::new(null), fallback: None, metrics: metrics.notifier(&name), name, lever, breaker }
}

/// What the door asks for, and the header that says it: made of the installation's key, so that it is nobody's to configure.
fn secret(key: &[u8], redactor: &Redactor) -> (Secret, Secret) {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(b"journeyman: the own journey's door");
    let secret: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    (Secret::new(secret.clone(), redactor), Secret::new(format!("Bearer {secret}"), redactor))
}
