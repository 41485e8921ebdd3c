//! Breakers: the machine against a reference that remembers everything, and the real daemon with a broker that is gone, with people
//! who know better, and with journeys that hang.

mod bulkheads;
mod forced;
#[cfg(feature = "nats")]
mod outage;
mod reference;
mod sequences;
