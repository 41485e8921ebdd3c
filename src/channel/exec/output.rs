//! What a program prints: its beginning and its end are kept, the rest is read and forgotten. Pure.

use std::collections::VecDeque;

/// The two ends of a stream of bytes, each at most half of the size that it was made with.
#[derive(Debug)]
pub(super) struct Kept {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    /// Nothing yet, and never more than `most` bytes.
    pub(super) fn new(most: usize) -> Kept {
        Kept { half: most / 2, head: Vec::new(), tail: VecDeque::new(), left_out: 0 }
    }

    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(head);
        // Of a piece longer than the tail only its end can stay.
        let (passed, rest) = rest.split_at(rest.len().saturating_sub(self.half));
        let pushed_out = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..pushed_out);
        self.tail.extend(rest);
        self.left_out += (passed.len() + pushed_out) as u64;
    }

    /// What is there so far, with a mark where something is not.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        if self.left_out > 0 {
            bytes.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.left_out).as_bytes());
        }
        bytes.extend(&self.tail);
        bytes
    }

    /// Whether something is not there.
    pub(super) fn is_cut(&self) -> bool {
        self.left_out > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_stream_keeps_its_ends_and_says_how_much_is_missing() {
        let mut kept = Kept::new(8);
        for piece in ["ab", "cdef", "", "ghijklmnop", "q"] {
            kept.push(piece.as_bytes());
        }
        assert_eq!(String::from_utf8(kept.bytes()).unwrap(), "abcd\n[… 9 bytes left out …]\nnopq");
        assert!(kept.is_cut());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut kept = Kept::new(64);
            pieces.iter().for_each(|piece| kept.push(piece));
            let all = pieces.concat();
            if all.len() <= 64 {
                prop_assert_eq!(kept.bytes(), all);
                prop_assert!(!kept.is_cut());
            } else {
                prop_assert_eq!(&kept.head[..], &all[..32]);
                prop_assert_eq!(kept.tail.make_contiguous(), &all[all.len() - 32..]);
                prop_assert_eq!(kept.left_out as usize, all.len() - 64);
            }
        }
    }
}
