//! Where the time of one exchange went. The HTTP client does not tell, so its parts that we supply tell instead: the
//! resolver, a layer around the connector, and the TLS session store, which is asked once at the start of each handshake.
//!
//! They learn whose exchange they work for from a task-local. What the pool finishes in the background for somebody else
//! runs outside of it, and is counted for nobody.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use tower::{Layer, Service};

use crate::channel::http::guard::Chosen;
use crate::channel::seen;
use crate::clock::Clock;
use crate::journey::report::Phase;
use crate::time::Mono;

/// What an exchange is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The name's addresses.
    Dns,
    /// A TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The request to be written, and the response's head.
    FirstByte,
    /// The rest of the response.
    Body,
}

impl Stage {
    const ALL: [Stage; 5] = [Stage::Dns, Stage::Connect, Stage::Tls, Stage::FirstByte, Stage::Body];

    fn name(self) -> &'static str {
        match self {
            Stage::Dns => "dns",
            Stage::Connect => "connect",
            Stage::Tls => "tls",
            Stage::FirstByte => "first_byte",
            Stage::Body => "body",
        }
    }
}

/// Credits every moment of an exchange to one stage, so that the phases add up to its whole time.
#[derive(Clone, Debug)]
pub(super) struct Laps {
    stage: Stage,
    since: Mono,
    spent: [Option<std::time::Duration>; 5],
    /// The attempt in hand made a connection of its own.
    has_connected: bool,
}

impl Laps {
    /// Begins. A connection that is there already has nothing to do before the first byte.
    pub(super) fn begin(at: Mono) -> Laps {
        Laps { stage: Stage::FirstByte, since: at, spent: [None; 5], has_connected: false }
    }

    /// The time since the last lap was already this stage's.
    fn turn_into(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// The stage in hand ends and the next begins.
    pub(super) fn go_on(&mut self, stage: Stage, at: Mono) {
        // The pool gave a connection that came back while one was being made: that is what it waited for.
        if stage == Stage::Body && self.stage < Stage::FirstByte {
            self.stage = Stage::FirstByte;
        }
        let spent = &mut self.spent[self.stage as usize];
        *spent = Some(spent.unwrap_or_default() + at.since(self.since));
        (self.stage, self.since) = (stage, at);
    }

    /// Another request of the same exchange begins: a redirect is followed, or a stale connection replaced.
    pub(super) fn again(&mut self, at: Mono) {
        self.go_on(Stage::FirstByte, at);
        self.has_connected = false;
    }

    /// What it waits for now.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the attempt in hand made a connection of its own.
    pub(super) fn has_connected(&self) -> bool {
        self.has_connected
    }

    /// The stages that happened, in order. The one in hand ends now.
    pub(super) fn phases(mut self, at: Mono) -> Vec<Phase> {
        self.go_on(self.stage, at);
        let phase = |stage: Stage| self.spent[stage as usize].map(|took| Phase { name: stage.name().to_owned(), took });
        Stage::ALL.into_iter().filter_map(phase).collect()
    }
}

/// The laps of one exchange, shared with the parts of the client that work for it.
#[derive(Clone)]
pub(super) struct Watch {
    clock: Clock,
    laps: Arc<Mutex<Laps>>,
}

tokio::task_local! {
    static WATCH: Watch;
}

impl Watch {
    /// A watch for an exchange that begins at `at`.
    pub(super) fn begin(clock: Clock, at: Mono) -> Watch {
        Watch { clock, laps: Arc::new(Mutex::new(Laps::begin(at))) }
    }

    /// Runs `exchange`; what the client does meanwhile is credited to this watch.
    pub(super) async fn over<T>(&self, exchange: impl Future<Output = T>) -> T {
        WATCH.scope(self.clone(), exchange).await
    }

    /// Changes the laps, at this moment.
    pub(super) fn mark<T>(&self, change: impl FnOnce(&mut Laps, Mono) -> T) -> T {
        change(&mut self.laps.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now().mono)
    }

    /// The laps so far.
    pub(super) fn laps(&self) -> Laps {
        self.laps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn mark(change: impl FnOnce(&mut Laps, Mono)) {
    // Outside an exchange there is nobody to tell.
    let _ = WATCH.try_with(|watch| watch.mark(change));
}

/// The system's resolver, timed; it gives no address where a request must not go.
pub(super) struct Resolver(pub(super) Chosen);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let chosen = self.0;
        Box::pin(async move {
            mark(|laps, _| laps.turn_into(Stage::Dns));
            // The connector puts the URL's port in place of 0.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            chosen.judge(found.iter().map(SocketAddr::ip))?;
            mark(|laps, at| laps.go_on(Stage::Connect, at));
            seen::note_addresses(name.as_str(), found.iter().map(SocketAddr::ip));
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Times connections.
#[derive(Clone, Copy)]
pub(super) struct Timing;

/// A connector that is timed.
#[derive(Clone)]
pub(super) struct Timed<S>(S);

impl<S> Layer<S> for Timing {
    type Service = Timed<S>;

    fn layer(&self, connector: S) -> Timed<S> {
        Timed(connector)
    }
}

impl<S, Target> Service<Target> for Timed<S>
where
    S: Service<Target>,
    S::Future: Send + 'static,
    S::Response: Send,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            mark(|laps, _| laps.turn_into(Stage::Connect));
            let connection = connecting.await?;
            mark(|laps, at| {
                laps.go_on(Stage::FirstByte, at);
                laps.has_connected = true;
            });
            Ok(connection)
        })
    }
}

/// Resumes nothing: a resumed session shows no certificate, and a monitor must see the one that is served today.
/// Being asked is how we learn that TCP stands and TLS begins: rustls asks when it writes the ClientHello.
#[derive(Debug)]
pub(super) struct NoSessions;

impl ClientSessionStore for NoSessions {
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, _ticket: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        mark(|laps, at| laps.go_on(Stage::Tls, at));
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    fn names(phases: &[Phase]) -> Vec<(&str, u64)> {
        phases.iter().map(|phase| (phase.name.as_str(), phase.took.as_millis() as u64)).collect()
    }

    #[test]
    fn a_new_connection_has_every_phase_and_they_add_up() {
        let mut laps = Laps::begin(at(100));
        laps.turn_into(Stage::Connect);
        laps.turn_into(Stage::Dns);
        laps.go_on(Stage::Connect, at(103));
        laps.go_on(Stage::Tls, at(110));
        laps.go_on(Stage::FirstByte, at(130));
        laps.go_on(Stage::Body, at(170));
        let phases = laps.phases(at(175));
        assert_eq!(names(&phases), [("dns", 3), ("connect", 7), ("tls", 20), ("first_byte", 40), ("body", 5)]);
    }

    #[test]
    fn what_did_not_happen_is_absent() {
        let mut reused = Laps::begin(at(0));
        reused.go_on(Stage::Body, at(9));
        assert_eq!(names(&reused.phases(at(10))), [("first_byte", 9), ("body", 1)]);

        let mut unresolved = Laps::begin(at(0));
        unresolved.turn_into(Stage::Connect);
        unresolved.turn_into(Stage::Dns);
        assert_eq!(unresolved.stage(), Stage::Dns);
        assert_eq!(names(&unresolved.phases(at(4))), [("dns", 4)]);
    }

    #[test]
    fn a_connection_that_comes_back_while_another_is_made_is_not_a_connect() {
        let mut laps = Laps::begin(at(0));
        laps.turn_into(Stage::Connect);
        laps.go_on(Stage::Body, at(8));
        assert_eq!(names(&laps.phases(at(9))), [("first_byte", 8), ("body", 1)]);
    }

    #[test]
    fn a_redirect_adds_to_the_phases() {
        let mut laps = Laps::begin(at(0));
        laps.turn_into(Stage::Connect);
        laps.go_on(Stage::FirstByte, at(5));
        laps.has_connected = true;
        laps.again(at(20));
        assert!(!laps.has_connected());
        laps.turn_into(Stage::Connect);
        laps.go_on(Stage::FirstByte, at(23));
        laps.go_on(Stage::Body, at(30));
        assert_eq!(names(&laps.phases(at(30))), [("connect", 8), ("first_byte", 22), ("body", 0)]);
    }
}
