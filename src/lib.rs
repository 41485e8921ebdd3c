//! Journeyman sends real messages through real systems, waits for them at the far end, and tells people once, soon and with
//! proof when a journey fails or is too slow, and when it is well again.
//!
//! One run, from schedule to alert, in twelve stops:
//!
//! 1. [`config`] reads TOML and gives a plan, or every problem with file, line and hint.
//! 2. `app` builds channels, notifiers, metrics and store, and spawns nothing before all are built.
//! 3. `scheduler` sleeps until a journey is due; a run still going means *skipped*, counted.
//! 4. `runner` takes a permit and starts a [`journey::run::Run`].
//! 5. The receiving channels are proven ready; the token is put in the [`ledger`], on disk.
//! 6. A [`channel`] sends; the receipt says which acknowledgement was given.
//! 7. The switchboard matches arrivals by token or key; latency is one monotonic clock, from the send to the reader's stamp.
//! 8. The run yields an [`journey::outcome::Outcome`] and its evidence, redacted.
//! 9. `evaluator` takes the outcome with one [`time::Now`] and asks [`slo`], [`detect`], [`alert`] and [`incident`], pure functions.
//! 10. One transaction of the [`store`] commits outcome, window, alert and the notices owed.
//! 11. `delivery` takes the oldest notice owed, retries by the error's class, records the receipt.
//! 12. A [`notifier`] renders it and tells people.

pub mod alarm;
pub mod alert;
pub mod app;
pub mod board;
pub mod boots;
pub mod breaker;
pub mod calendar;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod control;
pub mod dashboards;
pub mod dead_man;
pub mod delivery;
pub mod demo;
pub mod detect;
pub mod drill;
pub mod evaluator;
pub mod exit;
pub mod experiment;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gate;
pub mod health;
pub mod http;
pub mod incident;
pub mod journey;
pub mod judge;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod notice;
pub mod notifier;
pub mod observer;
pub mod program;
pub mod proxy;
pub mod quorum;
pub mod rehearsal;
pub mod replay;
pub mod runner;
pub mod scheduler;
pub mod secret;
pub mod slo;
pub mod store;
pub mod text;
pub mod time;
pub mod tls;
