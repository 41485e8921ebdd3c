//! What was sent, by the id that the SMS centre gave it: a receipt names nothing else. Bounded, and gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::journey::message::Part;
use crate::journey::token::Token;

/// Ids that are remembered: more than two days of one message every 20 s, in some 2 MB.
const REMEMBERED: usize = 10_000;

/// Whose a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The run's token.
    pub(super) token: Token,
    /// Which part of its text it is, if we divided it.
    pub(super) part: Option<Part>,
    /// To which number it went.
    pub(super) to: String,
}

/// The messages of one channel, whatever session they went out by.
#[derive(Default)]
pub(super) struct Sent {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    owners: HashMap<String, Owner>,
    order: VecDeque<String>,
    unanswered: usize,
}

/// A message that the SMS centre has not answered yet; dropped when it has, or never will.
pub(super) struct Unanswered(Arc<Sent>);

impl Sent {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message goes out.
    pub(super) fn begin(self: &Arc<Sent>) -> Unanswered {
        self.lock().unanswered += 1;
        Unanswered(self.clone())
    }

    /// The SMS centre took a message under this id.
    pub(super) fn taken(&self, id: &str, owner: Owner) {
        let mut inner = self.lock();
        let id = plain(id);
        // Ids come round again: the last one is meant.
        if inner.owners.insert(id.clone(), owner).is_none() {
            inner.order.push_back(id);
        }
        if inner.order.len() > REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.owners.remove(&oldest);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Whether a message is under way whose id is not known yet.
    pub(super) fn has_unanswered(&self) -> bool {
        self.lock().unanswered > 0
    }

    /// Waits until an id becomes known, or a message is answered.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whose message this id names, exactly.
    pub(super) fn owner(&self, id: &str) -> Option<Owner> {
        self.lock().owners.get(&plain(id)).cloned()
    }

    /// Whose message this id names, also if it is in decimal and was given in hexadecimal, or the other way round. A guess like
    /// that must agree with one of the receipt's `numbers`: on a busy account some stranger's id would fit.
    pub(super) fn owner_in_words(&self, id: &str, numbers: [&str; 2]) -> Option<Owner> {
        let inner = self.lock();
        let id = plain(id);
        let guess = || {
            let hexadecimal = id.parse::<u128>().ok().map(|number| format!("{number:x}"));
            let decimal = u128::from_str_radix(&id, 16).ok().map(|number| number.to_string());
            let owners = [hexadecimal, decimal].into_iter().flatten().filter_map(|id| inner.owners.get(&id));
            owners.into_iter().find(|owner| numbers.iter().any(|number| is_same_number(number, &owner.to)))
        };
        inner.owners.get(&id).or_else(guess).cloned()
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.unanswered = inner.unanswered.saturating_sub(1);
        drop(inner);
        self.0.changed.notify_one();
    }
}

/// Ids are compared without case and leading zeros: some SMS centres fill them up, in one place and not in the other.
fn plain(id: &str) -> String {
    let id = id.trim().to_ascii_lowercase();
    let trimmed = id.trim_start_matches('0');
    if trimmed.is_empty() { id } else { trimmed.to_owned() }
}

fn is_same_number(one: &str, other: &str) -> bool {
    let digits = |number: &str| number.trim_start_matches('+').trim_start_matches('0').to_owned();
    !digits(one).is_empty() && digits(one) == digits(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(token: u128) -> Owner {
        Owner { token: Token::from_bits(token), part: None, to: "+4915112345678".to_owned() }
    }

    #[test]
    fn ids_are_found_in_every_form_that_vendors_write() {
        let to = "004915112345678".trim_start_matches("00");
        let cases = [
            ("1A2B", "1a2b", to, true),
            ("00001A2B", "1A2B", "", true),
            ("1A2B", "6699", to, true),
            ("6699", "1a2b", to, true),
            ("0000006699", "00001A2B", to, true),
            // Somebody else's number, so somebody else's message.
            ("1A2B", "6699", "4915199999999", false),
            ("1A2B", "6699", "", false),
            ("1A2B", "1A2C", to, false),
            ("0", "0", "", true),
            ("7e0c-41", "7E0C-41", "", true),
        ];
        for (given, receipted, number, is_found) in cases {
            let sent = Sent::default();
            sent.taken(given, owner(1));
            assert_eq!(sent.owner_in_words(receipted, ["Shop", number]).is_some(), is_found, "{given} {receipted}");
        }
        let sent = Sent::default();
        sent.taken("1A2B", owner(1));
        assert_eq!((sent.owner("01a2b"), sent.owner("6699")), (Some(owner(1)), None));
    }

    #[test]
    fn an_id_that_comes_round_names_the_last_and_old_ones_are_forgotten() {
        let sent = Sent::default();
        sent.taken("a", owner(1));
        sent.taken("a", owner(2));
        assert_eq!(sent.owner("a"), Some(owner(2)));
        for id in 0..REMEMBERED {
            sent.taken(&format!("x{id}"), owner(3));
        }
        assert_eq!(sent.owner("a"), None);
        assert_eq!(sent.owner("x0"), Some(owner(3)));
        assert_eq!(sent.lock().owners.len(), REMEMBERED);
    }

    #[test]
    fn what_is_unanswered_is_known_until_it_is_dropped() {
        let sent = Arc::new(Sent::default());
        let (first, second) = (sent.begin(), sent.begin());
        drop(first);
        assert!(sent.has_unanswered());
        drop(second);
        assert!(!sent.has_unanswered());
    }
}
