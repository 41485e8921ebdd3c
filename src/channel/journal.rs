//! What comes, and is acknowledged, is on disk before: nobody sends it again.
//!
//! An arrival is handed on at once, so that no run waits for a disk; only the acknowledgement does.

use std::future::pending;

use tokio::sync::{mpsc, oneshot};

use crate::channel::Listener;
use crate::journey::message::Arrival;

/// Where arrivals go whose sender waits to hear that we have them. The default keeps nothing, and hands on.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<mpsc::Sender<Noted>>);

/// An arrival, and where it is told that it may be acknowledged.
#[derive(Debug)]
pub struct Noted {
    /// The arrival.
    pub arrival: Arrival,
    /// `true`: it is safe, or nobody would miss it. `false`: it would be lost if we ended now.
    pub safe: oneshot::Sender<bool>,
}

impl Journal {
    /// One with room for so many, and what it is given.
    pub fn new(room: usize) -> (Journal, mpsc::Receiver<Noted>) {
        let (sender, noted) = mpsc::channel(room);
        (Journal(Some(sender)), noted)
    }
}

/// Room for one arrival.
pub(crate) enum Place<'a> {
    Noted(mpsc::Permit<'a, Noted>),
    Straight(mpsc::Permit<'a, Arrival>),
}

/// Tells whether what was handed over may be acknowledged.
pub(crate) struct Safe(Option<oneshot::Receiver<bool>>);

impl Listener {
    /// Waits for room; `None` if nobody takes arrivals any more.
    pub(crate) async fn place(&self) -> Option<Place<'_>> {
        match &self.journal.0 {
            Some(journal) => journal.reserve().await.ok().map(Place::Noted),
            None => self.arrivals.reserve().await.ok().map(Place::Straight),
        }
    }
}

impl Place<'_> {
    /// Hands `arrival` over.
    pub(crate) fn hand_over(self, arrival: Arrival) -> Safe {
        match self {
            Place::Noted(place) => {
                let (safe, is_safe) = oneshot::channel();
                place.send(Noted { arrival, safe });
                Safe(Some(is_safe))
            }
            Place::Straight(place) => {
                place.send(arrival);
                Safe(None)
            }
        }
    }
}

impl Safe {
    /// Whether it is; never, if we end before that is known.
    pub(crate) async fn told(self) -> bool {
        match self.0 {
            Some(is_safe) => match is_safe.await {
                Ok(is_safe) => is_safe,
                Err(_) => pending().await,
            },
            None => true,
        }
    }
}
