//! Inbound webhooks: routes on the hooks listener, verified before anything is read from them.

use crate::secret::Secret;

/// Settings of a `webhook` channel.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The route on the hooks listener; begins with a slash.
    pub path: String,
    /// Who may call it.
    pub verify: Verify,
    /// Larger bodies are refused with 413.
    pub max_body: usize,
    /// The status that an accepted call is answered with.
    pub respond: u16,
}

/// A body of an inbound message may have this many bytes unless configured.
pub const MAX_BODY: usize = 1 << 20;

/// How a caller proves itself.
#[derive(Clone, Debug)]
pub enum Verify {
    /// It does not. Anyone who knows the URL can call; only the token in the message tells ours from theirs.
    None,
    /// `Authorization: Bearer …`, one of these.
    Bearer {
        /// The tokens that are accepted; two during a rotation.
        secrets: Vec<Secret>,
    },
    /// A keyed hash over the raw body in a header.
    Hmac {
        /// The keys that are accepted; two during a rotation.
        secrets: Vec<Secret>,
        /// The header.
        header: String,
        /// The hash.
        algorithm: Algorithm,
        /// How the hash is written.
        encoding: Encoding,
        /// What stands before it: `sha256=`.
        prefix: String,
    },
    /// A scheme that this build does not have; calls are refused.
    Unavailable(&'static str),
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// How a hash is written in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, either case.
    Hex,
    /// Base64 (RFC 4648 section 4).
    Base64,
}
