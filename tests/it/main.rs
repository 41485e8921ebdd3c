//! The integration tests: the real daemon and the real servers that it talks to, started here and ended by their own pid.

mod architecture;
mod kannel;
mod http_channel;
mod email;
mod notify_webhook;
mod config;
mod slack;
mod support;
mod webhook_channel;
