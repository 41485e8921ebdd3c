//! A file for each protocol.

mod amqp;
mod http_webhook;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(all(feature = "imap", feature = "smtp"))]
mod mail;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
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
