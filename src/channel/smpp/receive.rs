//! Receiving: each delivery stamped, matched with what was sent if it is a receipt, handed over, and only then acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Smpp;
use super::message::{self, Delivered};
use super::receipt::{Progress, Receipt};
use super::sent::Owner;
use super::session::{Delivery, Role, Session};
use crate::channel::dial::Limit;
use crate::channel::receiving::keep_receiving;
use crate::channel::{Listener, held::Held};
use crate::journey::message::{Arrival, Message};
use crate::time::{Human, Mono, Now};

/// From the first packet to the answer to the bind.
const SETUP: Duration = Duration::from_secs(10);
/// A receipt may be here before the answer that tells the message's id: it is kept back this long while an answer is awaited.
const EARLY: Duration = Duration::from_secs(5);
/// And at most so many of them; the oldest goes on as nobody's.
const EARLY_KEPT: usize = 64;
/// Arrivals that wait to be handed over; further ones stay with the session, and then with the SMS centre.
const WAITING: usize = 64;

/// Reads until told to stop; binds anew by itself.
pub(super) async fn listen(channel: &Smpp, listener: Listener) {
    channel.is_received_on.store(true, Ordering::Release);
    let own = Held::default();
    let open = || Reader::open(channel, &own, &listener);
    keep_receiving(&listener, open, |reader| reader.read(&listener)).await;
}

/// A session that is read.
struct Reader<'a> {
    channel: &'a Smpp,
    held: &'a Held<Session>,
    session: Arc<Session>,
    deliveries: mpsc::Receiver<Delivery>,
}

/// What is to become of a delivery.
enum Sorted {
    /// It is handed over.
    Arrived(Message),
    /// It waits for the answer that says whose it is.
    Early(Receipt, Message),
    /// It says that another will follow, and nothing else.
    Underway,
}

/// A receipt whose message is not known yet.
struct Early {
    at: Now,
    until: Mono,
    sequence: u32,
    receipt: Receipt,
    message: Message,
}

impl<'a> Reader<'a> {
    /// Binds: the session that sends too, or one that only receives.
    async fn open(channel: &'a Smpp, own: &'a Held<Session>, listener: &Listener) -> Result<Reader<'a>, String> {
        let limit = Limit::new(listener.clock, SETUP);
        let (held, role) = match channel.is_shared() {
            true => (&channel.transceiver, Role::Transceiver),
            false => (own, Role::Receiver),
        };
        if role == Role::Transceiver {
            channel.retire_transmitter(limit).await;
        }
        loop {
            let connect = || Session::open(&channel.receiving, role, channel.sent.clone(), channel.clock, limit);
            let (session, _) = held.get(limit, None, connect).await.map_err(|refusal| refusal.detail)?;
            match session.deliveries() {
                Some(deliveries) if session.is_open() => return Ok(Reader { channel, held, session, deliveries }),
                // Ended, or read before: that reader is no more, and neither is what it had not acknowledged.
                _ => held.forget(&session),
            }
        }
    }

    /// Reads until told to stop (`Ok`), or until the session ends (`Err`, in words).
    async fn read(mut self, listener: &Listener) -> Result<(), String> {
        let mut early: VecDeque<Early> = VecDeque::new();
        let mut waiting: VecDeque<(Arrival, u32)> = VecDeque::new();
        let ended = loop {
            let next_timer = early.front().map(|early| listener.clock.instant(early.until));
            tokio::select! {
                biased;
                () = listener.stop.cancelled() => break Ok(()),
                why = self.session.ended() => break Err(why),
                place = listener.arrivals.reserve(), if !waiting.is_empty() => {
                    let (Ok(place), Some((arrival, sequence))) = (place, waiting.pop_front()) else { break Ok(()) };
                    place.send(arrival);
                    tokio::select! {
                        () = self.session.acknowledge(sequence) => {}
                        () = listener.stop.cancelled() => {}
                    }
                }
                Some(delivery) = self.deliveries.recv(), if waiting.len() < WAITING => {
                    let (at, sequence) = (delivery.at, delivery.sequence);
                    match self.sort(&delivery) {
                        Sorted::Arrived(message) => waiting.push_back((self.arrival(listener, at, message), sequence)),
                        Sorted::Early(receipt, message) => {
                            early.push_back(Early { at, until: at.mono + EARLY, sequence, receipt, message });
                        }
                        Sorted::Underway => self.session.acknowledge(sequence).await,
                    }
                }
                () = self.channel.sent.changed(), if !early.is_empty() => {}
                () = sleep_until(next_timer), if next_timer.is_some() => {}
            }
            let now = listener.clock.now().mono;
            for Early { at, sequence, message, .. } in self.due(&mut early, now) {
                waiting.push_back((self.arrival(listener, at, message), sequence));
            }
        };
        self.held.forget(&self.session);
        if ended.is_ok() {
            self.session.close().await;
        }
        ended
    }

    fn arrival(&self, listener: &Listener, at: Now, mut message: Message) -> Arrival {
        if let Some(took) = self.session.round_trip() {
            message.headers.push(("link-round-trip".to_owned(), Human(took).to_string()));
        }
        Arrival { channel: listener.channel.clone(), at, message }
    }

    fn sort(&self, delivery: &Delivery) -> Sorted {
        let Delivered { mut message, receipt } = message::read(&delivery.pdu, self.channel.settings.alphabet);
        let Some(receipt) = receipt else { return Sorted::Arrived(message) };
        if receipt.progress() == Progress::Underway {
            tracing::debug!(id = message.header("message-id"), stat = receipt.stat, "under way");
            return Sorted::Underway;
        }
        match self.owner(&receipt, &message) {
            Some(owner) => claim(&mut message, owner),
            None if self.channel.sent.has_unanswered() => return Sorted::Early(receipt, message),
            None => {}
        }
        Sorted::Arrived(message)
    }

    fn owner(&self, receipt: &Receipt, message: &Message) -> Option<Owner> {
        let sent = &self.channel.sent;
        let numbers = ["from", "to"].map(|name| message.header(name).unwrap_or_default());
        let exact = receipt.id.as_deref().and_then(|id| sent.owner(id));
        exact.or_else(|| sent.owner_in_words(receipt.id_in_text.as_deref()?, numbers))
    }

    /// The early receipts whose message is known now, and those that need not wait any longer.
    fn due(&self, early: &mut VecDeque<Early>, now: Mono) -> Vec<Early> {
        let is_over = !self.channel.sent.has_unanswered();
        let surplus = early.len().saturating_sub(EARLY_KEPT);
        let mut due = Vec::new();
        for (index, mut each) in std::mem::take(early).into_iter().enumerate() {
            let owner = self.owner(&each.receipt, &each.message);
            let is_due = owner.is_some() || is_over || index < surplus || now >= each.until;
            if let Some(owner) = owner {
                claim(&mut each.message, owner);
            }
            if is_due { due.push(each) } else { early.push_back(each) }
        }
        due
    }
}

/// The receipt is for a message of ours.
fn claim(message: &mut Message, owner: Owner) {
    message.token = Some(owner.token);
    message.part = owner.part;
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
