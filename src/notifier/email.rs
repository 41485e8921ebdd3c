//! Email: one multipart message per recipient, threaded by incident.

use crate::secret::Secret;

/// Settings of an `email` notifier.
#[derive(Clone, Debug)]
pub struct EmailSettings {
    /// The server's host name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// The sender, with an optional display name.
    pub from: String,
    /// The recipients; each gets a message of their own.
    pub to: Vec<String>,
}

/// How an SMTP connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: `smtp://` to a loopback relay.
    Plain,
    /// STARTTLS is required: `smtp+starttls://`.
    StartTls,
    /// TLS from the first byte: `smtps://`.
    Tls,
}
