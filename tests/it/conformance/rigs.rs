//! A file for each protocol.

mod amqp;
mod http_webhook;
