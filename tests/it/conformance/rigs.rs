//! A file for each protocol.

mod amqp;
mod http_webhook;
#[cfg(feature = "redis")]
mod redis;
