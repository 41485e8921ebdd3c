//! HTTP: every verb, every phase timed.

use url::Url;

use crate::secret::HeaderText;

/// Settings of an `http` channel.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// What a step's `path` is appended to. The channel behind a step that names a whole URL has none.
    pub url: Option<Url>,
    /// Sent with every request.
    pub headers: Vec<(String, HeaderText)>,
    /// How many redirects are followed; none unless configured.
    pub redirects: usize,
    /// Whether each request opens a connection of its own, so that DNS, connect and TLS are measured every time.
    pub new_connection: bool,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<std::path::PathBuf>,
}
