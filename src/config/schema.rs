//! JSON Schemas of the daemon's file and of probe files, for editors: what they complete, explain and check.
//!
//! The parser takes tables apart by hand, so there is nothing to derive a schema from but what the reference says in
//! `docs/configuration.md` and `docs/channels/`: each key with its type, default and meaning. A test holds the reference against the
//! parser's keys, and this file's test holds the schemas against the reference; `UPDATE_EXPECT=1` writes them anew.

/// Of the daemon's file.
pub const DAEMON: &str = include_str!("../../config/journeyman.schema.json");
/// Of a probe file.
pub const PROBES: &str = include_str!("../../config/probes.schema.json");

#[cfg(test)]
mod generate;
