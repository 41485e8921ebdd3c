//! Token buckets: so many at once, and one more each so often. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::time::Mono;

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// One more each.
    pub(super) every: Duration,
    /// So many at once.
    pub(super) burst: u32,
}

/// What is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    left: f64,
    at: Mono,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Mono) -> Bucket {
        Bucket { left: f64::from(rate.burst), at: now }
    }

    /// Takes one; or how long it takes until there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Mono) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(rate.every.mul_f64(1.0 - self.left))
    }

    fn fill(&mut self, rate: Rate, now: Mono) {
        let come = now.since(self.at).as_secs_f64() / rate.every.as_secs_f64().max(f64::MIN_POSITIVE);
        *self = Bucket { left: (self.left + come).min(f64::from(rate.burst)), at: now };
    }
}

/// A bucket for each key, for a bounded number of keys.
pub(super) struct Buckets<K> {
    rate: Rate,
    most: usize,
    by_key: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, most: usize) -> Buckets<K> {
        Buckets { rate, most, by_key: HashMap::new() }
    }

    /// Takes one of this key's; or how long it takes until there is one. With too many keys at once nobody new is served.
    pub(super) fn take(&mut self, key: K, now: Mono) -> Result<(), Duration> {
        let rate = self.rate;
        if self.by_key.len() >= self.most && !self.by_key.contains_key(&key) {
            self.by_key.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.left < f64::from(rate.burst)
            });
            if self.by_key.len() >= self.most {
                return Err(rate.every);
            }
        }
        self.by_key.entry(key).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { every: Duration::from_secs(5), burst: 2 };

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_passes_and_then_one_each_so_often() {
        let mut bucket = Bucket::full(RATE, at(0));
        assert_eq!([bucket.take(RATE, at(0)), bucket.take(RATE, at(0))], [Ok(()), Ok(())]);
        assert_eq!(bucket.take(RATE, at(0)), Err(Duration::from_secs(5)));
        assert_eq!(bucket.take(RATE, at(2)), Err(Duration::from_secs(3)));
        assert_eq!(
            [bucket.take(RATE, at(5)), bucket.take(RATE, at(5)).map_err(|_| Duration::ZERO)],
            [Ok(()), Err(Duration::ZERO)]
        );
        assert_eq!(bucket.take(RATE, at(1_000)), Ok(()), "it fills up, and not beyond");
        assert_eq!([bucket.take(RATE, at(1_000)).is_ok(), bucket.take(RATE, at(1_000)).is_ok()], [true, false]);
    }

    #[test]
    fn keys_are_apart_and_bounded() {
        let mut buckets = Buckets::new(RATE, 2);
        for key in ["a", "a", "b"] {
            assert_eq!(buckets.take(key, at(0)), Ok(()));
        }
        assert!(buckets.take("a", at(0)).is_err());
        assert_eq!(buckets.take("b", at(0)), Ok(()));
        assert_eq!(buckets.take("c", at(0)), Err(RATE.every), "no room for another");
        assert_eq!(buckets.take("c", at(60)), Ok(()), "those that are full again are forgotten");
        assert_eq!(buckets.by_key.len(), 1);
    }
}
