//! Histograms of our own: a sample is counted where it falls at once, so nothing has to be folded later.

/// The upper ends of buckets, in order, each as a number and as its `le` label says it.
pub(super) struct Edges(Box<[(f64, Box<str>)]>);

impl Edges {
    pub(super) fn new(edges: &[f64]) -> Edges {
        Edges(edges.iter().map(|edge| (*edge, edge.to_string().into())).collect())
    }

    /// Which bucket a sample is in; the last one has no upper end. A bucket holds its upper end, as Prometheus' `le` says.
    fn bucket_of(&self, sample: f64) -> usize {
        self.0.partition_point(|(edge, _)| *edge < sample)
    }

    /// The `le` labels, without that of the last bucket.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, label)| &**label)
    }
}

/// How many samples are in each bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// No longer than the highest bucket that has a sample: most journeys are far from the last edge, and new ones have none.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn record(&mut self, sample: f64, edges: &Edges) {
        let bucket = edges.bucket_of(sample);
        if bucket >= self.counts.len() {
            self.counts.reserve_exact(bucket + 1 - self.counts.len());
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.sum += sample;
    }

    /// Copies it to `other`, whose memory it uses.
    pub(super) fn copy_to(&self, other: &mut Histogram) {
        other.counts.clone_from(&self.counts);
        other.sum = self.sum;
    }

    /// How many samples are in the bucket and those below it, bucket by bucket; then always all.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = u64> {
        let counts = self.counts.iter().copied().chain(std::iter::repeat(0));
        counts.scan(0, |below, count| {
            *below += count;
            Some(*below)
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_upper_end_and_all_that_is_below() {
        let edges = Edges::new(&[0.1, 0.25, 1.0]);
        let mut histogram = Histogram::default();
        let counts = |histogram: &Histogram| histogram.cumulative().take(4).collect::<Vec<_>>();
        assert_eq!(
            (counts(&histogram), histogram.counts.capacity()),
            (vec![0; 4], 0),
            "it needs nothing before the first"
        );
        for (sample, expected) in [
            (0.1, [1, 1, 1, 1]),
            (0.100_000_1, [1, 2, 2, 2]),
            (0.0, [2, 3, 3, 3]),
            (1.0, [2, 3, 4, 4]),
            (1.000_000_1, [2, 3, 4, 5]),
            (0.25, [2, 4, 5, 6]),
        ] {
            histogram.record(sample, &edges);
            assert_eq!(counts(&histogram), expected, "{sample}");
            assert_eq!(histogram.count(), expected[3]);
        }
        assert!((histogram.sum() - 2.450_000_2).abs() < 1e-9, "{}", histogram.sum());
    }

    #[test]
    fn labels_say_edges_as_prometheus_reads_them() {
        let edges = Edges::new(&[0.005, 1.0, 2.5, 300.0]);
        assert_eq!(edges.labels().collect::<Vec<_>>(), ["0.005", "1", "2.5", "300"]);
    }
}
