//! All that the store has of one run, for whoever tells its story.

use jiff::Timestamp;

use crate::journey::Name;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::ledger::Settled;
use crate::store::{IncidentRow, OutboxRow, RunRow};

/// Notices of an incident that are told of at most: the newest.
pub(super) const NOTICES: usize = 100;
/// Incidents that are told of at most: a journey is in few at once.
pub(super) const INCIDENTS: usize = 10;

/// One run as the store knows it.
#[derive(Debug)]
pub struct Story {
    /// Which.
    pub token: Token,
    /// Whose.
    pub journey: Name,
    /// For which slot.
    pub slot: Timestamp,
    /// What is left of it.
    pub left: Left,
    /// The row of its slot, if that has one.
    pub row: Option<RunRow>,
    /// The last good run before it that has evidence.
    pub last_good: Option<Report>,
    /// The incidents of its journey that were open when it ran, and those whose notices show it.
    pub incidents: Vec<(IncidentRow, Vec<OutboxRow>)>,
}

/// What is left of a run.
#[derive(Debug)]
pub enum Left {
    /// Its evidence.
    Report(Box<Report>),
    /// It has begun and has not ended: it is under way, or its daemon was killed.
    Begun {
        /// When it was made.
        made: Timestamp,
        /// Until when the daemon that has the store, or had it, is known to have lived.
        alive: Option<Timestamp>,
    },
    /// Its place in the ledger: when it was about to send, and how it ended, if it has.
    Entry {
        /// When its token was recorded.
        recorded: Timestamp,
        /// How it ended.
        settled: Option<Settled>,
    },
}
