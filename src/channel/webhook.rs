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

/// How a caller proves itself.
#[derive(Clone, Debug)]
pub enum Verify {
    /// It does not. Anyone who knows the URL can call; only the token in the message tells ours from theirs.
    None,
    /// `Authorization: Bearer …`, one of these.
    Bearer {
        /// The tokens that are accepted; two during a rotation.
        secrets: Vec<Secret>,
    },
    /// A keyed hash over the raw body in a header.
    Hmac {
        /// The keys that are accepted; two during a rotation.
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
    /// A scheme that this build does not have; calls are refused.
    Unavailable(&'static str),
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
        let Listener { channel, clock, arrivals, readiness, stop, .. } = listener;
        let route =
            hooks::Route { channel, settings: self.settings.clone(), clock, arrivals, counts: self.counts.clone() };
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
        readiness.send_replace(match &self.settings.verify {
            Verify::Unavailable(scheme) => {
                Readiness::Down { why: format!("this build cannot verify calls by `{scheme}`, so it refuses them all") }
            }
            Verify::None | Verify::Bearer { .. } | Verify::Hmac { .. } => Readiness::Ready,
        });
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
