//! The places of a listener, and who has to leave when there are too few: whoever has kept us waiting the longest, for the rest of
//! a head, of a body, or for the next request. A caller whom we owe an answer keeps its place.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Whom a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The caller has to say something.
    Theirs,
    /// We owe an answer.
    Ours,
}

/// The places.
pub(super) struct Places {
    most: usize,
    per_address: usize,
    books: Mutex<Books>,
    /// Told when a place is free, or can be made so.
    changed: Notify,
}

/// Who has a place.
#[derive(Default)]
struct Books {
    next: u64,
    held: HashMap<u64, Held>,
    by_address: HashMap<IpAddr, usize>,
    /// Those who keep us waiting, the longest first.
    waited_for: BTreeMap<u64, u64>,
}

struct Held {
    address: IpAddr,
    /// Its key in `waited_for`.
    since: Option<u64>,
    lost: CancellationToken,
}

/// A place, given back when it goes.
pub(super) struct Seat {
    id: u64,
    places: Arc<Places>,
    lost: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize, per_address: usize) -> Arc<Places> {
        Arc::new(Places { most, per_address, books: Mutex::default(), changed: Notify::new() })
    }

    /// Waits until somebody new could have a place, his own or another's.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let books = self.books();
                if books.held.len() < self.most || !books.waited_for.is_empty() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// A place for a caller from `address`, and whether another had to go for it; an error if none can be made free.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<(Arc<Seat>, bool), ()> {
        let address = network(address);
        let mut books = self.books();
        let of_address = books.by_address.get(&address).copied().unwrap_or_default();
        let leaving = if of_address >= self.per_address {
            Some(books.longest(|held| held.address == address).ok_or(())?)
        } else if books.held.len() >= self.most {
            Some(books.longest(|_| true).ok_or(())?)
        } else {
            None
        };
        if let Some(held) = leaving.and_then(|id| books.remove(id)) {
            held.lost.cancel();
        }
        let (id, since) = (books.number(), books.number());
        let lost = CancellationToken::new();
        books.held.insert(id, Held { address, since: Some(since), lost: lost.clone() });
        books.waited_for.insert(since, id);
        *books.by_address.entry(address).or_default() += 1;
        Ok((Arc::new(Seat { id, places: self.clone(), lost }), leaving.is_some()))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn longest(&self, is_meant: impl Fn(&Held) -> bool) -> Option<u64> {
        self.waited_for.values().copied().find(|id| self.held.get(id).is_some_and(&is_meant))
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        held.since.map(|since| self.waited_for.remove(&since));
        if let Some(count) = self.by_address.get_mut(&held.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&held.address);
            }
        }
        Some(held)
    }
}

impl Seat {
    /// Whose turn it is from now on.
    pub(super) fn turn(&self, turn: Turn) {
        let mut books = self.places.books();
        let since = (turn == Turn::Theirs).then(|| books.number());
        let Some(held) = books.held.get_mut(&self.id) else { return };
        if let Some(before) = std::mem::replace(&mut held.since, since) {
            books.waited_for.remove(&before);
        }
        if let Some(since) = since {
            books.waited_for.insert(since, self.id);
            self.places.changed.notify_one();
        }
    }

    /// Waits until somebody else has the place.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.books().remove(self.id);
        self.places.changed.notify_one();
    }
}

/// What counts as one address: IPv6 is handed out in networks of 64 bits (RFC 6177), and IPv4 may be written as IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_lost(seat: &Seat) -> bool {
        seat.lost.is_cancelled()
    }

    #[test]
    fn who_kept_us_waiting_the_longest_makes_room_and_who_waits_for_us_does_not() {
        let places = Places::new(3, 3);
        let [one, two, three] = [1, 2, 3].map(|last| places.take(ip(last)).unwrap().0);
        one.turn(Turn::Ours);
        let (four, displaced) = places.take(ip(4)).unwrap();
        assert!(displaced && is_lost(&two) && !is_lost(&one) && !is_lost(&three));
        one.turn(Turn::Theirs);
        let five = places.take(ip(5)).unwrap().0;
        assert!(is_lost(&three) && !is_lost(&one), "it spoke after the third came");
        for seat in [&one, &four, &five] {
            seat.turn(Turn::Ours);
        }
        assert!(places.take(ip(6)).is_err(), "everybody waits for us");
        drop(two);
        assert!(places.take(ip(6)).is_err(), "it had lost its place already");
        drop(one);
        assert!(!places.take(ip(6)).unwrap().1);
    }

    #[test]
    fn an_address_makes_room_for_its_own_only_from_its_own() {
        let places = Places::new(100, 2);
        let other = places.take(ip(9)).unwrap().0;
        let [first, second] = [(); 2].map(|()| places.take(ip(1)).unwrap().0);
        let third = places.take(ip(1)).unwrap().0;
        assert!(is_lost(&first) && !is_lost(&second) && !is_lost(&other));
        second.turn(Turn::Ours);
        third.turn(Turn::Ours);
        assert!(places.take(ip(1)).is_err());
        assert!(places.take(ip(2)).is_ok());
    }

    #[test]
    fn a_network_of_64_bits_is_one_address_and_an_ipv4_address_is_one_however_it_is_written() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }

    proptest! {
        #[test]
        fn the_books_balance_whatever_happens(acts in proptest::collection::vec((0u8..4, 0u8..4, any::<usize>()), 0..200)) {
            let places = Places::new(6, 3);
            let mut seats = Vec::new();
            for (act, last, which) in acts {
                match act {
                    0 | 1 => seats.extend(places.take(ip(last)).map(|(seat, _)| seat)),
                    _ if seats.is_empty() => {}
                    2 => seats[which % seats.len()].turn(if last % 2 == 0 { Turn::Ours } else { Turn::Theirs }),
                    _ => drop(seats.swap_remove(which % seats.len())),
                }
                seats.retain(|seat| !is_lost(seat));
                let books = places.books();
                prop_assert_eq!(books.held.len(), seats.len());
                prop_assert!(books.held.len() <= 6 && books.by_address.values().all(|count| (1..=3).contains(count)));
                prop_assert_eq!(books.by_address.values().sum::<usize>(), books.held.len());
                let waiting = books.held.values().filter(|held| held.since.is_some()).count();
                prop_assert_eq!(books.waited_for.len(), waiting);
            }
            drop(seats);
            let books = places.books();
            prop_assert!(books.held.is_empty() && books.by_address.is_empty() && books.waited_for.is_empty());
        }
    }
}
