//! Connections to Slack: TCP and TLS with a limit on the time until they stand.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::CryptoProvider;
use tower::Service;

/// A connection that does not stand by then never carried a byte of ours, so the attempt can be repeated without a look.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects by HTTPS, or by HTTP where an `api_url` says so. Bounds name resolution, TCP and TLS together.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector>);

impl Connector {
    /// A connector that trusts the system's certificates.
    ///
    /// # Errors
    /// There are no certificates to trust, or no cryptography provider; in words.
    pub(super) fn open() -> Result<Connector, String> {
        let provider = CryptoProvider::get_default().ok_or("TLS was not initialised before the notifiers")?;
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(Arc::clone(provider))
            .map_err(|error| format!("no certificates to trust Slack by ({error}): install `ca-certificates`"))?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Connector(https))
    }
}

/// A connection.
pub(super) type Stream = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("not connected within {}s", CONNECT_TIMEOUT.as_secs()).into()),
            }
        })
    }
}
