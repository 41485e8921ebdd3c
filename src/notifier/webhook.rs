//! Webhook: the notice as JSON, signed, to a URL of the team's own.

use crate::secret::{HeaderText, Secret};

/// Settings of a `webhook` notifier.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where to.
    pub url: Secret,
    /// Sent with every request.
    pub headers: Vec<(String, HeaderText)>,
    /// Signs the body: HMAC-SHA-256 in `X-Journeyman-Signature: sha256=<hex>`.
    pub signing_key: Option<Secret>,
}
