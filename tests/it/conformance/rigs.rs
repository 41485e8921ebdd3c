//! A file for each protocol.

pub(crate) mod amqp;
pub(crate) mod http_webhook;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
#[cfg(all(feature = "imap", feature = "smtp"))]
pub(crate) mod mail;
#[cfg(feature = "mqtt")]
pub(crate) mod mqtt;
#[cfg(feature = "nats")]
pub(crate) mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "slack")]
mod slack;
#[cfg(feature = "smpp")]
mod smpp;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(feature = "websocket")]
mod websocket;
