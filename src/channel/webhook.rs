//! Inbound webhooks: routes on the hooks listener, verified before anything is read from them.

mod hooks;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use crate::channel::webhook::hooks::{CallResult, HookCounts, Hooks, Limits, serve};
use crate::channel::{Channel, Listener, Readiness, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// Settings of a `webhook` channel.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The route on the hooks listener; begins with a slash.
    pub path: String,
    /// Who may call it.
    pub verify: Verify,
    /// Larger bodies are refused with 413.
    pub max_body: usize,
    /// The status that an accepted call is answered with.
    pub respond: u16,
}

/// A body of an inbound message may have this many bytes unless configured.
pub const MAX_BODY: usize = 1 << 20;
/// What is signed with a time may be this old, and this far ahead of our clock, unless configured: what Slack recommends.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// How a caller proves itself. Where there are several secrets, each is accepted: two during a rotation.
#[derive(Clone, Debug)]
pub enum Verify {
    /// It does not. Anyone who knows the URL can call; only the token in the message tells ours from theirs.
    None,
    /// `Authorization: Bearer …`, one of these.
    Bearer {
        /// The tokens that are accepted.
        secrets: Vec<Secret>,
    },
    /// A keyed hash over the raw body in a header.
    Hmac {
        /// The keys.
        secrets: Vec<Secret>,
        /// The header.
        header: String,
        /// The hash.
        algorithm: Algorithm,
        /// How the hash is written.
        encoding: Encoding,
        /// What stands before it: `sha256=`.
        prefix: String,
    },
    /// `X-Twilio-Signature`: HMAC-SHA-1 over the URL that Twilio calls and what it posts.
    Twilio {
        /// The account's auth tokens.
        secrets: Vec<Secret>,
        /// The address as Twilio has it, without a query.
        url: String,
    },
    /// Vonage's signature, of one of its two kinds.
    Vonage {
        /// The account's signature secrets.
        secrets: Vec<Secret>,
        /// Which kind.
        method: VonageMethod,
        /// How old what is signed may be, and how far ahead of our clock.
        tolerance: Duration,
    },
    /// `X-Slack-Signature`: HMAC-SHA-256 over a time and the raw body.
    Slack {
        /// The app's signing secrets.
        secrets: Vec<Secret>,
        /// How old what is signed may be, and how far ahead of our clock.
        tolerance: Duration,
    },
}

impl Verify {
    /// `X-Hub-Signature-256`, as GitHub signs:
    /// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.
    pub fn github(secrets: Vec<Secret>) -> Verify {
        Verify::Hmac {
            secrets,
            header: "X-Hub-Signature-256".to_owned(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            prefix: "sha256=".to_owned(),
        }
    }
}

/// What Vonage signs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VonageMethod {
    /// Messages API: a JSON web token with a hash of the body.
    Jwt {
        /// The account that it must be for; `None` takes what the secret takes.
        api_key: Option<String>,
    },
    /// SMS API: a parameter `sig` beside the others.
    Sig(SigHash),
}

/// The hash of an HMAC in Vonage's parameter `sig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigHash {
    /// HMAC-SHA-1.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// How a hash is written in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, either case.
    Hex,
    /// Base64 (RFC 4648 section 4).
    Base64,
}

/// A `webhook` channel: a route on the shared hooks listener for as long as it listens.
pub struct Webhook {
    settings: Arc<WebhookSettings>,
    hooks: Hooks,
    clock: Clock,
    counts: Arc<HookCounts>,
}

impl Webhook {
    /// A channel whose calls come in through `hooks`. Its route exists from `listen` on.
    pub fn open(settings: WebhookSettings, hooks: Hooks, clock: Clock) -> Webhook {
        Webhook { settings: Arc::new(settings), hooks, clock, counts: Arc::default() }
    }

    async fn receive(&self, listener: Listener) {
        let (readiness, stop) = (listener.readiness.clone(), listener.stop.clone());
        let route = hooks::Route { settings: self.settings.clone(), listener, counts: self.counts.clone() };
        let route = Arc::new(route);
        // Held for as long as we listen: it takes the route away when it goes.
        let _registered = loop {
            // Subscribed before the attempt, so that a route that goes in between is not missed.
            let mut changed = self.hooks.changes();
            match self.hooks.register(route.clone()) {
                Ok(registered) => break registered,
                Err(holder) => {
                    let why = format!("channel `{holder}` has the path {} already", self.settings.path);
                    readiness.send_replace(Readiness::Down { why });
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = stop.cancelled() => return,
            }
        };
        readiness.send_replace(Readiness::Ready);
        stop.cancelled().await;
    }
}

impl Channel for Webhook {
    fn send<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "a webhook channel cannot send; use an `http` channel"))))
    }

    /// What became of the calls of its route. Counts from `open`.
    fn counts(&self) -> Option<Arc<HookCounts>> {
        Some(self.counts.clone())
    }

    /// Who calls while nobody is there is turned away, and may not call again.
    fn keeps(&self) -> bool {
        false
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(std::future::ready(Err(cannot(self.clock, "there is nothing to check here"))))
    }

    /// Its route is there from `listen` on, which is proven by being ready.
    fn prove<'a>(&'a self, _limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move { Ok(format!("callers reach it at {} of the hooks listener", self.settings.path)) })
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(self.receive(listener))
    }
}

/// A call that nobody signed: first a line with method and target, then header fields, an empty line and the body.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(verify: &Verify, data: &[u8]) {
    let at = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (head, body) = (String::from_utf8_lossy(&data[..at]), data.get(at + 2..).unwrap_or_default());
    let mut lines = head.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or(("POST", "/"));
    let mut request = axum::http::Request::builder().method(method).uri(target);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        request = request.header(name, value.trim());
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    assert!(verify.check(&head, body, jiff::Timestamp::UNIX_EPOCH).is_err(), "nobody has signed it");
    let _ = verify.answer(body);
}
