//! Which messages came out of order.

use std::collections::HashMap;

use crate::time::Mono;

/// One message that arrived, as far as its order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Only messages of one lane have an order: those of one partition, where there are partitions.
    pub lane: i64,
    /// Its send began.
    pub started: Mono,
    /// It was acknowledged: whoever waited for that has sent the next one after it.
    pub acked: Mono,
    /// Its place among the arrivals.
    pub place: u64,
}

/// Which of these were overtaken: a message that was sent only after they had been acknowledged was here before them. It is the one
/// that comes late that is out of order, as RFC 4737 (section 3.3) counts. Sends that were under way at the same time have no order.
pub fn reordered(passages: &[Passage]) -> Vec<usize> {
    let mut lanes: HashMap<i64, Vec<usize>> = HashMap::new();
    for (index, passage) in passages.iter().enumerate() {
        lanes.entry(passage.lane).or_default().push(index);
    }
    let mut found = Vec::new();
    for mut lane in lanes.into_values() {
        lane.sort_by_key(|index| passages[*index].started);
        // The earliest place among those that were sent at this one or after it.
        let mut first = vec![u64::MAX; lane.len() + 1];
        for at in (0..lane.len()).rev() {
            first[at] = first[at + 1].min(passages[lane[at]].place);
        }
        found.extend(lane.iter().copied().filter(|index| {
            let mine = passages[*index];
            let after = lane.partition_point(|other| passages[*other].started <= mine.acked);
            first[after] < mine.place
        }));
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn passage(started: u64, acked: u64, place: u64) -> Passage {
        let at = |millis| Mono(Duration::from_millis(millis));
        Passage { lane: 0, started: at(started), acked: at(acked), place }
    }

    #[test]
    fn only_what_was_surely_sent_before_can_be_overtaken() {
        let in_order = [passage(0, 5, 0), passage(10, 15, 1), passage(20, 25, 2)];
        assert_eq!(reordered(&in_order), [0; 0]);
        let swapped = [passage(0, 5, 1), passage(10, 15, 0), passage(20, 25, 2)];
        assert_eq!(reordered(&swapped), [0], "the one that was overtaken");
        let together = [passage(0, 12, 1), passage(10, 15, 0)];
        assert_eq!(reordered(&together), [0; 0], "both were on their way at once");
        let last_is_first = [passage(0, 5, 1), passage(10, 15, 2), passage(20, 25, 0)];
        assert_eq!(reordered(&last_is_first), [0, 1], "one that hurries ahead passes all of them");
        let lanes = [passage(0, 5, 1), Passage { lane: 1, ..passage(10, 15, 0) }];
        assert_eq!(reordered(&lanes), [0; 0], "partitions have no order between them");
        assert_eq!(reordered(&[passage(3, 3, 1), passage(3, 3, 0)]), [0; 0], "nor have two of one moment");
    }
}
