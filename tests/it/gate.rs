//! What stands before the listeners: `web_config` with TLS, certificates, passwords and headers, and the limits that callers meet.

mod door;
mod flood;
mod tls;
