//! A bounded memory of the newest things.

use std::collections::VecDeque;

/// Keeps the newest `limit` items; an older one goes for every one that comes.
pub(super) struct Ring<T> {
    items: VecDeque<T>,
    limit: usize,
}

impl<T> Ring<T> {
    pub(super) fn new(limit: usize) -> Self {
        Ring { items: VecDeque::new(), limit }
    }

    pub(super) fn push(&mut self, item: T) {
        while self.items.len() >= self.limit {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    pub(super) fn find_mut(&mut self, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.items.iter_mut().find(|item| is_it(item))
    }

    /// Takes out what `is_it` holds for; whether there was any.
    pub(super) fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> bool {
        let before = self.items.len();
        self.items.retain(|item| !is_it(item));
        self.items.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut ring = Ring::new(3);
        (0..10).for_each(|item| ring.push(item));
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [7, 8, 9]);
        assert!(ring.remove(|item| *item == 8));
        assert!(!ring.remove(|item| *item == 8));
        ring.push(10);
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [7, 9, 10]);
    }
}
