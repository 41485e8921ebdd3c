//! How daemons that share a store share its journeys: each journey belongs to a shard, and each shard to one daemon at a time.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use crate::drill;
use crate::journey::{own, vantage};

/// Journeys are spread over so many shards, numbered from one. It never changes: what was written under a number stays there.
pub const SHARDS: i32 = 32;

/// The shard of what belongs to the daemon that decides: its lease, the monitor's own journey, and what is made for drills.
pub const LEAD: i32 = 0;

/// The journeys that are run from one place are spread over so many shards of that place, numbered from [`first_at`].
pub const SHARDS_AT: i32 = 8;

/// The shard of a journey, by the first eight bytes of its name's SHA-256, big endian: modulo [`SHARDS`], plus one; of one that is
/// run from one place of several, modulo [`SHARDS_AT`], plus that place's first.
pub fn shard_of(journey: &str) -> i32 {
    if own::is_own(journey) || drill::is_shadow(journey) {
        return LEAD;
    }
    // A remainder is less than what an i32 held.
    let nth = |shards: i32| (hash(journey) % shards.unsigned_abs() as u64) as i32;
    match vantage::location_of(journey) {
        Some(location) => first_at(location) + nth(SHARDS_AT),
        None => 1 + nth(SHARDS),
    }
}

/// The first of a place's shards: by 24 bits of the SHA-256 of its name, so that who knows the name knows it. Two of a hundred
/// places share theirs with a probability of 0.03 %, for which the configuration is refused.
pub fn first_at(location: &str) -> i32 {
    // 24 bits times eight, plus what comes before, are 27 bits.
    (64 + (hash(location) >> 40) * SHARDS_AT.unsigned_abs() as u64) as i32
}

/// The shards that daemons at `location` share: with all others, and with those of their place.
pub fn groups(location: Option<&str>) -> Vec<RangeInclusive<i32>> {
    let place = location.map(first_at).map(|first| first..=first + SHARDS_AT - 1);
    [Some(1..=SHARDS), place].into_iter().flatten().collect()
}

fn hash(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte))
}

/// What a daemon should do about its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Take so many of those that are free.
    Take(usize),
    /// Give so many back, for others.
    GiveBack(usize),
    /// It has what is its due, or what it lacks is not free yet.
    Stay,
}

/// What the daemon at `who` should do, where every living daemon holds so many of `shards` as `shares` says, in an order that all of
/// them know, and `free` are nobody's.
///
/// Each is due the same number, but for a remainder of one each: that stays with those who have most, the first of those that
/// have as many. So nobody gives back what it would be due again, and all who see the same agree.
pub fn wish(who: usize, shares: &[usize], free: usize, shards: usize) -> Wish {
    let held = shares.get(who).copied().unwrap_or(0);
    let members = shares.len().max(1);
    let is_before = |nth: usize, share: usize| share > held || (share == held && nth < who);
    let before = shares.iter().enumerate().filter(|(nth, share)| is_before(*nth, **share)).count();
    let due = shards / members + usize::from(before < shards % members);
    match held.cmp(&due) {
        Ordering::Greater => Wish::GiveBack(held - due),
        Ordering::Less if free > 0 => Wish::Take(free.min(due - held)),
        _ => Wish::Stay,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_journeys_shard_is_the_same_for_ever() {
        for (journey, shard) in [("sms", 21), ("checkout", 30), ("größe", 32), ("a", 11), ("", 21)] {
            assert_eq!(shard_of(journey), shard, "{journey}");
        }
        let spread: std::collections::BTreeSet<i32> = (0..1_000).map(|nth| shard_of(&format!("j{nth}"))).collect();
        assert_eq!(spread, (1..=SHARDS).collect());
    }

    #[test]
    fn what_is_run_from_one_place_is_in_a_shard_of_that_place() {
        assert_eq!(first_at("london-1"), FIRST_OF_LONDON);
        let shards: std::collections::BTreeSet<i32> =
            (0..200).map(|nth| shard_of(&format!("j{nth}@london-1"))).collect();
        assert_eq!(shards, (FIRST_OF_LONDON..FIRST_OF_LONDON + SHARDS_AT).collect());
        assert_eq!(groups(Some("london-1")), [1..=SHARDS, FIRST_OF_LONDON..=FIRST_OF_LONDON + SHARDS_AT - 1]);
        assert_eq!(groups(None), [1..=SHARDS]);
        let firsts: std::collections::BTreeSet<i32> = (0..300).map(|nth| first_at(&format!("place-{nth}"))).collect();
        assert!(firsts.len() == 300 && firsts.iter().all(|first| *first > SHARDS && (first - 64) % SHARDS_AT == 0));
    }

    /// By `printf london-1 | sha256sum | cut -c1-6`.
    const FIRST_OF_LONDON: i32 = 64 + 8 * 0xdd23ad;

    #[test]
    fn each_takes_its_due_and_gives_back_what_is_more() {
        for (who, shares, free, expected) in [
            (0, &[0][..], 32, Wish::Take(32)),
            (0, &[32], 0, Wish::Stay),
            (0, &[32, 0], 0, Wish::GiveBack(16)),
            (1, &[32, 0], 0, Wish::Stay),
            (1, &[16, 0], 9, Wish::Take(9)),
            // Of five two have one more: those who have it.
            (0, &[6, 7, 6, 7, 6], 0, Wish::Stay),
            (1, &[6, 7, 6, 7, 6], 0, Wish::Stay),
            (0, &[6, 6, 6, 7, 6], 1, Wish::Take(1)),
            (1, &[6, 6, 6, 7, 6], 1, Wish::Stay),
            // Nobody has more than another may have, and one has too little.
            (0, &[7, 7, 7, 7, 4], 0, Wish::Stay),
            (2, &[7, 7, 7, 7, 4], 0, Wish::GiveBack(1)),
            (4, &[7, 7, 7, 7, 4], 0, Wish::Stay),
            (4, &[7, 7, 6, 6, 4], 2, Wish::Take(2)),
            // Somebody who is not there has the rest.
            (0, &[16], 0, Wish::Stay),
        ] {
            assert_eq!(wish(who, shares, free, 32), expected, "{who} of {shares:?}, {free} free");
        }
    }

    /// Shards and their holders.
    #[derive(Clone, Debug)]
    struct World {
        holders: Vec<Option<u8>>,
        /// By their names.
        living: std::collections::BTreeSet<u8>,
        /// How often each shard was taken.
        taken: Vec<usize>,
    }

    impl World {
        fn new() -> World {
            World { holders: vec![None; 32], living: [0].into(), taken: vec![0; 32] }
        }

        fn of(&self, name: u8) -> Vec<usize> {
            (0..32).filter(|shard| self.holders[*shard] == Some(name)).collect()
        }

        fn shares(&self) -> Vec<usize> {
            self.living.iter().map(|name| self.of(*name).len()).collect()
        }

        fn free(&self) -> Vec<usize> {
            (0..32).filter(|shard| self.holders[*shard].is_none()).collect()
        }

        fn look(&self, name: u8) -> Wish {
            let who = self.living.iter().position(|other| *other == name).unwrap();
            wish(who, &self.shares(), self.free().len(), 32)
        }

        /// What it does may be about what it saw before.
        fn act(&mut self, name: u8, wish: Wish) {
            match wish {
                Wish::Take(many) => {
                    for shard in self.free().into_iter().take(many) {
                        self.holders[shard] = Some(name);
                        self.taken[shard] += 1;
                    }
                }
                Wish::GiveBack(many) => {
                    for shard in self.of(name).into_iter().take(many) {
                        self.holders[shard] = None;
                    }
                }
                Wish::Stay => {}
            }
        }

        /// The time of those who died is over.
        fn expire(&mut self) {
            for holder in &mut self.holders {
                *holder = holder.filter(|name| self.living.contains(name));
            }
        }

        fn change(&mut self, step: Step, seen: &mut std::collections::BTreeMap<u8, Wish>) {
            let nth = |at: usize| *self.living.iter().nth(at % self.living.len()).unwrap();
            match step {
                Step::Join(name) => drop(self.living.insert(name)),
                Step::Leave(at) if self.living.len() > 1 => {
                    let name = nth(at);
                    self.living.remove(&name);
                    self.expire();
                }
                Step::Die(at) if self.living.len() > 1 => {
                    let name = nth(at);
                    self.living.remove(&name);
                }
                Step::Leave(_) | Step::Die(_) => {}
                Step::Expire => self.expire(),
                Step::Look(at) => drop(seen.insert(nth(at), self.look(nth(at)))),
                Step::Act(at) => {
                    let name = nth(at);
                    if let Some(wish) = seen.remove(&name) {
                        self.act(name, wish);
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join(u8),
        Leave(usize),
        Die(usize),
        Expire,
        Look(usize),
        Act(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0u8..40).prop_map(Step::Join),
            1 => any::<usize>().prop_map(Step::Leave),
            1 => any::<usize>().prop_map(Step::Die),
            1 => Just(Step::Expire),
            6 => any::<usize>().prop_map(Step::Look),
            6 => any::<usize>().prop_map(Step::Act),
        ]
    }

    /// The fewest shards that have to change hands.
    fn needed(shares: &[usize], free: usize) -> usize {
        let mut most = shares.to_vec();
        most.sort_unstable_by(|one, other| other.cmp(one));
        let due = |nth: usize| 32 / shares.len() + usize::from(nth < 32 % shares.len());
        free + most.iter().enumerate().map(|(nth, share)| share.saturating_sub(due(nth))).sum::<usize>()
    }

    proptest! {
        #[test]
        fn whatever_happened_all_have_their_due_soon_and_no_shard_moves_in_vain(
            steps in proptest::collection::vec(step(), 0..120),
            orders in proptest::collection::vec(any::<prop::sample::Index>(), 400),
            at_once: bool,
        ) {
            let (mut world, mut seen) = (World::new(), Default::default());
            steps.into_iter().for_each(|step| world.change(step, &mut seen));
            world.expire();
            world.taken = vec![0; 32];
            let needed = needed(&world.shares(), world.free().len());
            let mut orders = orders.into_iter().cycle();
            let mut rounds = 0;
            loop {
                let mut names: Vec<u8> = world.living.iter().copied().collect();
                // In any order.
                for at in (1..names.len()).rev() {
                    names.swap(at, orders.next().unwrap().index(at + 1));
                }
                let mut is_calm = true;
                if at_once {
                    let wishes: Vec<_> = names.iter().map(|name| (*name, world.look(*name))).collect();
                    for (name, wish) in wishes {
                        is_calm &= wish == Wish::Stay;
                        world.act(name, wish);
                    }
                } else {
                    for name in names {
                        let wish = world.look(name);
                        is_calm &= wish == Wish::Stay;
                        world.act(name, wish);
                    }
                }
                if is_calm {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds < 10, "no end: {:?}", world.shares());
            }
            let shares = world.shares();
            let floor = 32 / shares.len();
            prop_assert!(world.free().is_empty());
            prop_assert!(shares.iter().all(|share| (floor..=32usize.div_ceil(shares.len())).contains(share)), "{shares:?}");
            let taken: usize = world.taken.iter().sum();
            prop_assert_eq!(taken, needed, "{:?} in {} rounds", shares, rounds);
            prop_assert!(world.taken.iter().all(|times| *times <= 1), "{:?}", world.taken);
        }
    }
}
