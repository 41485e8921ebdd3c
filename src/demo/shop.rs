//! A sandbox order pipeline: an order is taken at once, waits in a bounded queue, is worked on, and announced to a webhook.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::server::answer;

/// The shop's entrance.
pub struct Shop {
    queue: mpsc::Sender<String>,
    done: Arc<AtomicU64>,
}

impl Shop {
    /// Opens a shop that announces each order to `hook` with `key` as its bearer token. Its worker runs in `tasks`, until `stop`.
    pub fn open(
        hook: String,
        key: String,
        client: reqwest::Client,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Shop> {
        let (queue, orders) = mpsc::channel(QUEUE);
        let done = Arc::new(AtomicU64::new(0));
        let worker = Worker { hook, key, client, done: done.clone() };
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = worker.work(orders) => {}
            }
        });
        Arc::new(Shop { queue, done })
    }

    /// Its API.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/orders", post(order))
            .route("/health/checkout", get(health))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self.clone())
    }

    /// How many orders were announced, and the webhook took the news.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many orders wait.
    pub fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

async fn order(State(shop): State<Arc<Shop>>, body: Bytes) -> Response {
    let order: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(id) = order["id"].as_str().filter(|id| (1..=MAX_ID).contains(&id.len())) else {
        return answer(
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!({ "error": "an order needs an `id` of 1 to 100 bytes" }),
        );
    };
    match shop.queue.try_send(id.to_owned()) {
        Ok(()) => answer(StatusCode::ACCEPTED, &json!({ "id": id, "status": "accepted" })),
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the order queue is full" })),
    }
}

async fn health(State(shop): State<Arc<Shop>>) -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok", "queue": { "depth": shop.depth() } }))
}

struct Worker {
    hook: String,
    key: String,
    client: reqwest::Client,
    done: Arc<AtomicU64>,
}

impl Worker {
    async fn work(&self, mut orders: mpsc::Receiver<String>) {
        while let Some(id) = orders.recv().await {
            tokio::time::sleep(FASTEST + (SLOWEST - FASTEST).mul_f64(fastrand::f64())).await;
            match self.announce(&id).await {
                Ok(()) => _ = self.done.fetch_add(1, Ordering::Relaxed),
                Err(error) => tracing::warn!(%error, "an order of the sandbox could not be announced"),
            }
        }
    }

    async fn announce(&self, id: &str) -> io::Result<()> {
        let call = self
            .client
            .post(&self.hook)
            .bearer_auth(&self.key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(json!({ "id": id, "status": "done" }).to_string());
        let taken = call.send().await.map_err(io::Error::other)?;
        taken.error_for_status().map(drop).map_err(io::Error::other)
    }
}

/// Packing an order, sped up.
const FASTEST: Duration = Duration::from_millis(80);
const SLOWEST: Duration = Duration::from_millis(250);
const QUEUE: usize = 64;
const MAX_ID: usize = 100;
const MAX_BODY: usize = 16 * 1024;
