//! Whether our own network is down: then what fails says nothing about whom it was sent to.
//!
//! Reference endpoints are asked only after a failure that a dead network would explain, and not more often than every ten seconds;
//! while none of them answers, as often until one does. Runs go on all the time: what is not tried is not known.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, select_ok};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::clock::Clock;
use crate::journey::Name;
use crate::journey::outcome::{Cause, Outcome, UnknownWhy};
use crate::journey::report::Report;
use crate::time::Mono;

/// References are not asked more often.
pub const APART: Duration = Duration::from_secs(10);
/// An endpoint that is near and well answers sooner.
const WITHIN: Duration = Duration::from_secs(5);
/// Runs that wait for an answer at most; those beyond are taken for what they look like.
const ASKS: usize = 1_024;
/// Two may fail together by themselves less often than one.
pub const LEAST: usize = 2;

/// An endpoint that is known to work, whoever else does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Any answer counts, whatever its status.
    Http(Url),
    /// A connection counts.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What stands behind the host may be a key.
            Reference::Http(url) => f.write_str(&url[..url::Position::BeforePath]),
            Reference::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Reference::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

struct Ask {
    /// What was found before does not do.
    is_first: bool,
    answer: oneshot::Sender<bool>,
}

/// Where runs ask. Shared.
pub struct Observer {
    asks: mpsc::Sender<Ask>,
    /// Journeys whose last run failed as it would by a dead network.
    failing: Mutex<HashSet<Name>>,
    /// Journeys whose run has ended and is not judged yet.
    held: Mutex<HashSet<Name>>,
    references: Vec<Reference>,
}

/// What is known of our network: asks the references.
pub struct Lookout {
    asks: mpsc::Receiver<Ask>,
    references: Vec<Reference>,
    client: reqwest::Client,
    clock: Clock,
    /// When the last look began, and whether nothing answered.
    last: Option<(Mono, bool)>,
    waiting: Vec<Ask>,
    offline: watch::Sender<bool>,
}

/// An observer of these references, and what works for it; with where is seen whether our network is down.
///
/// # Errors
/// No usable trust store; in words.
pub fn open(
    references: Vec<Reference>,
    clock: Clock,
) -> Result<(Arc<Observer>, Lookout, watch::Receiver<bool>), String> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("journeyman/", env!("CARGO_PKG_VERSION")))
        .timeout(WITHIN)
        // A connection that was made before proves nothing about now, and where a redirect leads is not what was chosen.
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| format!("the observer's client cannot be built: {error}"))?;
    let (asks, asked) = mpsc::channel(ASKS);
    let (offline, seen) = watch::channel(false);
    let observer = Observer { asks, failing: Mutex::default(), held: Mutex::default(), references: references.clone() };
    let lookout = Lookout { asks: asked, references, client, clock, last: None, waiting: Vec::new(), offline };
    Ok((Arc::new(observer), lookout, seen))
}

impl Observer {
    /// Whether our network is down, by a look that began after this was asked.
    pub async fn is_offline(&self) -> bool {
        self.ask(true).await
    }

    async fn ask(&self, is_first: bool) -> bool {
        let (answer, answered) = oneshot::channel();
        // Too many ask at once, or we are stopping: then a failure is what it looks like.
        self.asks.try_send(Ask { is_first, answer }).is_ok() && answered.await.unwrap_or(false)
    }

    /// Takes the blame for a run that failed while our network was down.
    pub async fn judge(&self, report: &mut Report) {
        if !is_doubtful(&report.outcome) {
            lock(&self.failing).remove(&report.journey);
            return;
        }
        // The first failure of a journey is not judged by what was found before it.
        let is_first = lock(&self.failing).insert(report.journey.clone());
        let held = Held::new(&self.held, &report.journey);
        let is_offline = self.ask(is_first).await;
        drop(held);
        if !is_offline {
            return;
        }
        let said = report.verdict_line();
        report.note = Some(format!("our own network was down: {}; it was: {said}", self.said()));
        report.outcome = Outcome::Unknown { why: UnknownWhy::Observer };
    }

    /// What it means, for people.
    pub fn said(&self) -> String {
        let names: Vec<_> = self.references.iter().map(ToString::to_string).collect();
        format!("none of {} could be reached", names.join(", "))
    }

    /// Whether a run of this journey has ended and is held back until it can be judged: that there is no verdict yet is our doing.
    pub fn holds(&self, journey: &Name) -> bool {
        lock(&self.held).contains(journey)
    }
}

fn lock(names: &Mutex<HashSet<Name>>) -> MutexGuard<'_, HashSet<Name>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run that is held back, for as long as this is: whoever waits may be cut short.
struct Held<'a> {
    names: &'a Mutex<HashSet<Name>>,
    journey: Name,
}

impl Held<'_> {
    fn new<'a>(names: &'a Mutex<HashSet<Name>>, journey: &Name) -> Held<'a> {
        lock(names).insert(journey.clone());
        Held { names, journey: journey.clone() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(self.names).remove(&self.journey);
    }
}

/// Whether a dead network of ours would look like this.
fn is_doubtful(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed { cause: Cause::Unreachable | Cause::Uncertain | Cause::NotReceived, .. } => true,
        // A receiver that lost its connection.
        Outcome::Unknown { why: UnknownWhy::NotReady } => true,
        Outcome::Good { .. }
        | Outcome::Slow { .. }
        | Outcome::Failed { .. }
        | Outcome::Unknown { .. }
        | Outcome::Excluded { .. } => false,
    }
}

impl Lookout {
    /// Answers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = self.next();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // All who ask now are answered by one look.
                Some(ask) = self.asks.recv() => self.take(ask),
                () = self.clock.sleep_until(next.unwrap_or_default()), if next.is_some() => {
                    let began = self.clock.now().mono;
                    let is_offline = tokio::select! {
                        () = stop.cancelled() => return,
                        is_offline = self.look() => is_offline,
                    };
                    self.last = Some((began, is_offline));
                    self.offline.send_if_modified(|before| std::mem::replace(before, is_offline) != is_offline);
                    for ask in self.waiting.drain(..) {
                        // Whoever asked may have been cut short.
                        let _ = ask.answer.send(is_offline);
                    }
                }
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        let now = self.clock.now().mono;
        match self.last {
            Some((at, is_offline)) if !ask.is_first && now.since(at) < APART => drop(ask.answer.send(is_offline)),
            _ => self.waiting.push(ask),
        }
    }

    /// When to look: as soon as it may be while somebody waits, and again and again while we are offline.
    fn next(&self) -> Option<Mono> {
        match self.last {
            None => (!self.waiting.is_empty()).then(Mono::default),
            Some((at, is_offline)) => (is_offline || !self.waiting.is_empty()).then_some(at + APART),
        }
    }

    /// Whether nothing answers. The first that does ends it.
    async fn look(&self) -> bool {
        let answers = self.references.iter().map(|reference| {
            let answer: BoxFuture<'_, Result<(), String>> = Box::pin(async move {
                let reached = tokio::time::timeout(WITHIN, self.reach(reference)).await;
                let reached = reached.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                if let Err(why) = &reached {
                    tracing::debug!(%reference, why, "a reference does not answer");
                }
                reached
            });
            answer
        });
        select_ok(answers).await.is_err()
    }

    async fn reach(&self, reference: &Reference) -> Result<(), String> {
        match reference {
            Reference::Http(url) => {
                let answer = self.client.get(url.clone()).send().await;
                answer.map(drop).map_err(|error| error.without_url().to_string())
            }
            Reference::Tcp { host, port } => {
                TcpStream::connect((host.as_str(), *port)).await.map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
