//! The file as it is written.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use crate::secret::MASK;

/// The file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Option<TlsServer>,
    pub(super) http_server_config: HttpServer,
    pub(super) basic_auth_users: BTreeMap<String, String>,
    pub(super) rate_limit: Option<RateLimit>,
}

/// `tls_server_config`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsServer {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) client_ca: String,
    pub(super) cert_file: String,
    pub(super) key_file: String,
    pub(super) client_ca_file: String,
    pub(super) client_auth_type: String,
    pub(super) client_allowed_sans: Vec<String>,
    pub(super) min_version: String,
    pub(super) max_version: String,
    pub(super) cipher_suites: Vec<String>,
    pub(super) curve_preferences: Vec<String>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

/// `http_server_config`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpServer {
    /// Taken and not heeded: we speak HTTP/1.1.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    pub(super) headers: BTreeMap<String, String>,
}

/// `rate_limit`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    pub(super) interval: String,
    #[serde(default)]
    pub(super) burst: u32,
}

/// Reads a file; what is wrong is told without any value that stands in it.
pub(super) fn read(text: &str) -> Result<File, String> {
    static VALUE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?s)"(?:[^"\\]|\\.)*""#).expect("a valid pattern"));
    let is_empty = text.lines().all(|line| matches!(line.trim_start().bytes().next(), None | Some(b'#')));
    if is_empty {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        // Its words have line and column in them; a snippet would show what stands there.
        VALUE.replace_all(&error.without_snippet().to_string(), MASK).into_owned()
    })
}
