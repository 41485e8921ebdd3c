//! The listener for people and machines: status pages, API, health and metrics.
//!
//! Shows what the board and the store hold and changes nothing, but for the few routes that need the admin token. A slow
//! or hostile client costs one of a bounded number of connections, and nothing that journeys need.

mod api;
mod breakers;
mod callbacks;
mod charts;
mod control;
mod events;
mod health;
mod incident_pages;
mod model;
mod pages;
mod routes;
mod run_again;
mod template;

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::board::Board;
use crate::clock::Clock;
use crate::commands::{Callback, Commands};
use crate::metrics::Metrics;
use crate::secret::{Redactor, Secret};
use crate::store::{Store, StoreError};

pub use health::STORE_COMPONENT;
pub use routes::{RouteInfo, Visibility, table};

/// Connections at once; the next caller waits to be let in.
const CONNECTIONS: usize = 512;
/// Event streams at once. Each holds a connection for as long as a page is open, and scrapes must still get in.
const STREAMS: usize = 128;
/// Pages rendered at once; they take CPU time that journeys need more.
const RENDERS: usize = 2;
/// A request's head must be here by then; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A request's head is no longer than this, in bytes.
const HEADER_LIMIT: usize = 32 * 1024;
/// Answers under way get this long when we stop.
const DRAIN: Duration = Duration::from_secs(5);
/// The store is asked for this long; a page then says that it did not answer, and shows the rest.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before accepting again when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_secs(1);

/// What the listener shows.
pub struct Views {
    /// What the drivers say.
    pub board: Arc<Board>,
    /// Runs, incidents and notices.
    pub store: Arc<dyn Store>,
    /// The registry behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The process's clock.
    pub clock: Clock,
    /// Takes secrets out of everything that is shown.
    pub redactor: Redactor,
    /// How people reach us; the pages name it.
    pub public_url: Option<Url>,
    /// Who may change something; `None` is nobody.
    pub admin_token: Option<Secret>,
    /// Where we look from.
    pub location: Option<String>,
    /// Whether everything is built and running.
    pub ready: Arc<AtomicBool>,
    /// Asks the owner of alert state.
    pub commands: Commands,
    /// Takes Slack's calls when somebody pressed a button; `None` if nothing is set up that could know them.
    pub slack: Option<Arc<dyn Callback>>,
}

/// What every handler has.
struct Shared {
    views: Views,
    templates: template::Templates,
    exposition: health::Exposition,
    streams: Arc<Semaphore>,
    renders: Arc<Semaphore>,
    /// The installation's key, once it was needed.
    key: OnceCell<[u8; 32]>,
    stop: CancellationToken,
}

/// Serves until told to stop; then event streams end, and answers under way have a few seconds.
///
/// # Errors
/// The listener cannot accept any more.
pub async fn serve(listener: TcpListener, views: Views, stop: CancellationToken) -> std::io::Result<()> {
    let shared = Arc::new(Shared {
        templates: template::Templates::new(),
        exposition: health::Exposition::new(views.metrics.clone()),
        views,
        streams: Arc::new(Semaphore::new(STREAMS)),
        renders: Arc::new(Semaphore::new(RENDERS)),
        key: OnceCell::new(),
        stop: stop.clone(),
    });
    let router = routes::router(shared);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), stop.clone()));
            }
            // The caller has gone again; the listener is well.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            // EMFILE, ENFILE: connections that end give some back.
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                tracing::warn!(%error, "no file descriptor is left for another connection to the pages");
                tokio::time::sleep(EXHAUSTED).await;
            }
            Err(error) => return Err(error),
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections to the pages were cut");
    }
    Ok(())
}

async fn connection(stream: TcpStream, router: axum::Router, stop: CancellationToken) {
    // Without it a small answer may wait for the caller's acknowledgement. Worth no more than a try.
    let _ = stream.set_nodelay(true);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the pages ended early");
    }
}

impl Shared {
    /// Asks the store, and not for ever; a fault in words.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
        match tokio::time::timeout(STORE_PATIENCE, question).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_PATIENCE.as_secs())),
        }
    }
}
