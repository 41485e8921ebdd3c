//! Channels, as data: whether they can be used, how much at once, and by whom.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::seconds;
use crate::board::{Board, BreakerStatus, ChannelStatus};
use crate::breaker::Guarded;
use crate::channel::Readiness;
use crate::journey::{Name, own};

/// The last calls of a breaker that are shown.
const CALLS: usize = 24;

/// A channel.
#[derive(Debug, Serialize)]
pub(in crate::http) struct ChannelView {
    name: Name,
    kind: &'static str,
    /// `ready`, `starting`, `down`; null for a channel that nobody receives on.
    readiness: Option<&'static str>,
    why: Option<String>,
    last_fault: Option<String>,
    last_fault_at: Option<Timestamp>,
    last_success: Option<Timestamp>,
    /// How its breaker is, in a sentence; null where there is nothing to say of it.
    breaker: Option<String>,
    /// Where its breaker stands; null if it has none.
    breaker_state: Option<&'static str>,
    /// What came of the last calls through its breaker, the oldest first.
    calls: Vec<&'static str>,
    /// How long it waits between two calls, or before the next, because its system wants fewer.
    slowed_seconds: Option<f64>,
    /// At most this many calls a second.
    rate: Option<f64>,
    /// At most this many calls at once, and how many there are now.
    permits: usize,
    in_use: usize,
    /// The journeys that use it.
    journeys: Vec<Name>,
}

/// Which journeys use each channel.
pub(in crate::http) type Users = BTreeMap<Name, Vec<Name>>;

impl ChannelView {
    /// Every channel of people's, by name, with those of `users` that are its.
    pub(in crate::http) fn all(board: &Board, mut users: Users) -> Vec<ChannelView> {
        let breakers = board.breakers();
        let channels = board.channels().into_iter().filter(|(name, _)| !own::is_own(name));
        channels
            .map(|(name, status)| {
                let breaker = breakers.get(&Guarded::Channel(name.clone()));
                let journeys = users.remove(&name).unwrap_or_default();
                ChannelView::new(name, status, breaker.map(|breaker| &**breaker), journeys)
            })
            .collect()
    }

    /// Which journeys use each channel.
    pub(in crate::http) fn users(board: &Board) -> Users {
        let mut users = Users::new();
        for status in board.journeys() {
            for channel in status.journey.channels() {
                users.entry(channel).or_default().push(status.journey.name.clone());
            }
        }
        users
    }

    fn new(name: Name, status: ChannelStatus, breaker: Option<&BreakerStatus>, journeys: Vec<Name>) -> ChannelView {
        let (readiness, why) = match status.readiness {
            None => (None, None),
            Some(Readiness::Starting) => (Some("starting"), None),
            Some(Readiness::Ready) => (Some("ready"), None),
            Some(Readiness::Down { why }) => (Some("down"), Some(why)),
        };
        let (last_fault_at, last_fault) = status.last_fault.unzip();
        let calls = breaker.map(|breaker| breaker.calls.as_slice()).unwrap_or_default();
        ChannelView {
            name,
            kind: status.kind,
            readiness,
            why,
            last_fault,
            last_fault_at,
            last_success: status.last_success,
            breaker: breaker.filter(|breaker| breaker.is_noteworthy()).map(BreakerStatus::words),
            breaker_state: breaker.map(|breaker| breaker.state.as_str()),
            calls: calls[calls.len().saturating_sub(CALLS)..].iter().map(|call| call.came).collect(),
            slowed_seconds: status.slowed.map(seconds),
            rate: status.rate,
            permits: status.permits.most(),
            in_use: status.permits.in_use(),
            journeys,
        }
    }
}
