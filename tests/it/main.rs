//! The integration tests: the real daemon and the real servers that it talks to, started here and ended by their own pid.

mod alarm;
#[cfg(feature = "amqp")]
mod amqp;
mod architecture;
mod breaker;
mod browser;
#[cfg(feature = "smtp")]
mod changed;
#[cfg(feature = "checks")]
mod checks;
mod clock_steps;
mod cluster;
mod command_line;
#[cfg(feature = "amqp")] // the example has a channel of this type
mod conditions;
mod config;
mod conformance;
mod connect;
mod control;
mod crash;
mod cut;
mod cut_off;
mod daemon;
mod daylight;
mod delivery;
mod demo;
mod demo_sandbox;
mod detection;
mod disk_full;
mod docs;
mod drift;
mod drill;
mod email;
#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "exec")]
mod experiment;
mod gate;
mod hostile;
mod http_channel;
mod http_pages;
#[cfg(feature = "imap")]
mod imap;
mod instructions;
#[cfg(feature = "kafka")]
mod kafka;
mod kannel;
#[cfg(feature = "mqtt")]
mod mqtt;
mod mutated_config;
#[cfg(feature = "nats")]
mod nats;
mod notices;
mod notify_alertmanager;
mod notify_pagerduty;
mod notify_webhook;
mod openapi;
mod packages;
#[cfg(feature = "postgres")]
mod partition;
#[cfg(feature = "postgres")]
mod places;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_store;
mod prometheus;
mod proxy;
#[cfg(feature = "redis")]
mod redis;
mod reload;
mod replay;
#[cfg(all(feature = "amqp", feature = "redis"))]
mod restart;
mod simulation;
mod slack;
#[cfg(feature = "slack")]
mod slack_buttons;
#[cfg(feature = "slack")]
mod slack_channel;
mod slo;
#[cfg(feature = "smpp")]
mod smpp;
#[cfg(feature = "smtp")]
mod smtp;
mod spend;
#[cfg(feature = "sqs")]
mod sqs;
mod store_damage;
mod store_faults;
mod store_kills;
mod story_bad_input;
mod story_newcomer;
#[cfg(feature = "amqp")]
mod story_pipeline;
#[cfg(feature = "amqp")] // one of the secrets is in a channel of this type
mod story_secrets;
mod story_sms;
mod support;
mod terminal;
mod watch;
mod webhook_channel;
mod webhook_schemes;
#[cfg(feature = "websocket")]
mod websocket;
mod worlds;
