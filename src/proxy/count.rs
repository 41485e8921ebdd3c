//! What went through a proxy, and what was done to it.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::proxy::Direction;

/// The bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// So many came in.
    pub came: u64,
    /// So many of them went on.
    pub went: u64,
}

/// What went through, and what was done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Connections that were taken.
    pub connections: u64,
    /// Those of them that stand.
    pub open: u64,
    /// Those that were not taken.
    pub refused: u64,
    /// Those of the taken for which the server could not be reached.
    pub unreached: u64,
    /// Those that were ended without a reset.
    pub cut: u64,
    /// Those that were ended by a reset.
    pub reset: u64,
    /// Those that a `timeout` ended.
    pub timed_out: u64,
    /// Those that a `limit` ended.
    pub limited: u64,
    /// From clients to the server.
    pub to_server: Carried,
    /// From the server to clients.
    pub to_client: Carried,
}

impl Tally {
    /// The bytes of one direction.
    pub fn carried(&self, direction: Direction) -> Carried {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    /// The same, to count on.
    pub(super) fn carried_mut(&mut self, direction: Direction) -> &mut Carried {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// A tally that every connection adds to.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Tally>);

impl Counts {
    pub(super) fn note(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn now(&self) -> Tally {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection; gives its number, from 1.
    pub(super) fn begin(&self) -> u64 {
        let mut number = 0;
        self.note(|tally| {
            tally.connections += 1;
            tally.open += 1;
            number = tally.connections;
        });
        number
    }
}
