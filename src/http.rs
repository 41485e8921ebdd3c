//! The listener for people and machines: status pages, API, health and metrics.
//!
//! Shows what the board and the store hold and changes nothing, but for the few routes that need the admin token. A slow
//! or hostile client costs one of a bounded number of connections, and nothing that journeys need.

mod acts;
mod api;
mod breakers;
mod callbacks;
mod charts;
mod control;
mod drills;
mod etag;
mod events;
mod health;
mod incident_pages;
mod model;
mod openapi;
mod pages;
mod public;
mod reload;
mod routes;
mod run_again;
mod standby;
mod template;

#[cfg(any(test, fuzzing))]
pub(crate) use template::fuzz;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;
use url::Url;

use crate::board::Board;
use crate::clock::Clock;
use crate::commands::{Callbacks, Commands, Drills, Reloads};
use crate::control::status_page::StatusPage;
use crate::gate::{self, Door, Inside, Limits};
use crate::journey::own;
use crate::journey::trace_url::TraceUrl;
use crate::metrics::Metrics;
use crate::secret::{Redactor, Secret};
use crate::store::{OutboxRow, OutboxStatus, OutboxSummary, Store, StoreError};

pub use health::STORE_COMPONENT;
pub use openapi::DOCUMENT as OPENAPI;
pub use routes::{RouteInfo, Visibility, table};

/// Event streams at once. Each holds a connection for as long as a page is open, and scrapes must still get in, also through a proxy
/// that is the one address they all come from.
const STREAMS: usize = 48;
/// Pages rendered at once; they take CPU time that journeys need more.
const RENDERS: usize = 2;
/// The store is asked for this long; a page then says that it did not answer, and shows the rest.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

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
    /// Who comes in, and how.
    pub door: Door,
    /// Takes secrets out of everything that is shown.
    pub redactor: Redactor,
    /// How people reach us; the pages name it.
    pub public_url: Option<Url>,
    /// Who may change something; `None` is nobody.
    pub admin_token: Option<Secret>,
    /// Where the logs of a run are.
    pub trace_url: Option<TraceUrl>,
    /// What everybody may see.
    pub status_page: Option<StatusPage>,
    /// Where we look from.
    pub location: Option<String>,
    /// Whether everything is built and running.
    pub ready: Arc<AtomicBool>,
    /// Asks the owner of alert state.
    pub commands: Commands,
    /// Takes Slack's calls when somebody pressed a button.
    pub slack: Arc<Callbacks>,
    /// Has the configuration read again; `None` where it is not in files.
    pub reloads: Option<Reloads>,
    /// Has outages rehearsed; `None` where nothing says where they are read back.
    pub drills: Option<Drills>,
}

/// What every handler has.
struct Shared {
    views: Views,
    templates: template::Templates,
    exposition: health::Exposition,
    lately: public::Lately,
    streams: Arc<Semaphore>,
    renders: Arc<Semaphore>,
    /// The installation's key, once it was needed.
    key: OnceCell<[u8; 32]>,
    stop: CancellationToken,
}

pub use crate::http::standby::{Standby, serve_standby};

/// Serves until told to stop; then event streams end, and answers under way have a few seconds.
///
/// # Errors
/// The listener cannot accept any more.
pub async fn serve(listener: TcpListener, views: Views, stop: CancellationToken) -> std::io::Result<()> {
    let door = views.door.clone();
    let shared = Arc::new(Shared {
        templates: template::Templates::new(),
        exposition: health::Exposition::new(views.metrics.clone()),
        views,
        lately: public::Lately::default(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        renders: Arc::new(Semaphore::new(RENDERS)),
        key: OnceCell::new(),
        stop: stop.clone(),
    });
    let pages = Pages { router: routes::router(shared.clone()), called: routes::called(), shared };
    gate::serve(listener, "http", Limits::default(), door, pages, stop).await
}

/// What is behind the gate.
struct Pages {
    router: Router,
    /// The routes that other services call, who prove who they are.
    called: Vec<RouteInfo>,
    shared: Arc<Shared>,
}

impl Inside for Pages {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let mut router = self.router.clone();
        router.call(request).await.unwrap_or_else(|never| match never {})
    }

    /// A service that signs its calls cannot have a password as well, nor can the holder of the admin token: both stand in one
    /// header. What they ask for is checked where it is done.
    /// What everybody may see asks for none.
    fn knows(&self, head: &Parts) -> bool {
        if self.shared.views.status_page.is_some() && routes::is_published(head) {
            return true;
        }
        let is_called = |route: &RouteInfo| route.method == head.method && route.path == head.uri.path();
        self.called.iter().any(is_called) || routes::is_admin(&self.shared, &head.headers)
    }
}

impl Shared {
    /// What people are owed, newest first. The monitor's own round trip is nobody's notice.
    async fn outbox(
        &self,
        status: Option<OutboxStatus>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, String> {
        let mut rows = self.ask(self.views.store.outbox(status, after, limit + 1)).await?;
        rows.retain(|row| !own::is_own(&row.notifier));
        rows.truncate(limit);
        Ok(rows)
    }

    /// The same in numbers.
    async fn outbox_summary(&self) -> Result<Vec<OutboxSummary>, String> {
        let mut summary = self.ask(self.views.store.outbox_summary()).await?;
        summary.retain(|notifier| !own::is_own(&notifier.notifier));
        Ok(summary)
    }

    /// Asks the store, and not for ever; a fault in words.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
        match tokio::time::timeout(STORE_PATIENCE, question).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_PATIENCE.as_secs())),
        }
    }
}
