//! The rank-sum test of H. B. Mann and D. R. Whitney (1947): which of two samples is the slower one, and whether that may be chance.
//!
//! Every run of the one sample is compared with every run of the other. The share of pairs in which the first is slower - a tie is
//! half a pair - is the effect, also known as the probability of superiority. Only the order counts: nothing is assumed of how
//! latencies are distributed, and one outlier weighs as one run.

use std::time::Duration;

/// How one sample compares with another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranks {
    /// The share of pairs in which the first is slower: U ÷ (n·m). A half where they are alike.
    pub effect: f64,
    /// How probable it is that chance makes the first sample look as slow as this, or slower: one-sided.
    pub p: f64,
}

/// Compares two samples; `None` if one of them is empty.
///
/// U by midranks, its variance corrected for ties (E. L. Lehmann, Nonparametrics, 1975, section 1.4), and the normal approximation
/// with a correction for continuity. It is close from eight on either side; nobody asks for fewer here.
pub fn compare(first: &[Duration], second: &[Duration]) -> Option<Ranks> {
    let (n, m) = (first.len() as f64, second.len() as f64);
    let mut all: Vec<(Duration, bool)> = first.iter().map(|latency| (*latency, true)).collect();
    all.extend(second.iter().map(|latency| (*latency, false)));
    all.sort_unstable();
    // The sum of the ranks of the first sample, and of t³ − t over ties of t.
    let (mut rank_sum, mut tied) = (0.0, 0.0);
    let mut ranked = 0.0;
    for tie in all.chunk_by(|a, b| a.0 == b.0) {
        let t = tie.len() as f64;
        let firsts = tie.iter().filter(|(_, is_first)| *is_first).count() as f64;
        rank_sum += firsts * (ranked + (t + 1.0) / 2.0);
        tied += t * t * t - t;
        ranked += t;
    }
    if n * m == 0.0 {
        return None;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)));
    let p = if variance > 0.0 { upper_tail((u - n * m / 2.0 - 0.5) / variance.sqrt()) } else { 1.0 };
    Some(Ranks { effect: u / (n * m), p })
}

/// The middle of a sample; of two in the middle, half way. Zero of none.
pub fn median(sample: &[Duration]) -> Duration {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        at(sorted.len() / 2)
    } else {
        (at((sorted.len() / 2).saturating_sub(1)) + at(sorted.len() / 2)) / 2
    }
}

/// The probability that a normal variable is above `z`: M. Abramowitz and I. A. Stegun, 26.2.17, off by less than 7.5·10⁻⁸.
fn upper_tail(z: f64) -> f64 {
    const B: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    density * B.iter().rev().fold(0.0, |sum, b| (sum + b) * t)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|value| Duration::from_millis(*value)).collect()
    }

    /// U as it is defined: pair by pair.
    fn pairs(first: &[Duration], second: &[Duration]) -> f64 {
        let half_wins = first.iter().flat_map(|a| second.iter().map(move |b| 1 + a.cmp(b) as i32));
        f64::from(half_wins.sum::<i32>()) / 2.0
    }

    /// The distribution of U if both samples are one: every choice of `n` of all, whatever is tied.
    fn exact_p(first: &[Duration], second: &[Duration]) -> f64 {
        let all: Vec<_> = first.iter().chain(second).copied().collect();
        let seen = pairs(first, second);
        let (mut as_slow, mut choices) = (0, 0);
        for choice in 0..1u32 << all.len() {
            if choice.count_ones() as usize != first.len() {
                continue;
            }
            let part = |wanted| {
                let is_chosen = |place: &usize| (choice >> place & 1 == 1) == wanted;
                (0..all.len()).filter(is_chosen).map(|place| all[place]).collect::<Vec<_>>()
            };
            choices += 1;
            as_slow += u32::from(pairs(&part(true), &part(false)) >= seen);
        }
        f64::from(as_slow) / f64::from(choices)
    }

    #[track_caller]
    fn close(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() <= within, "{a} is not {b}");
    }

    #[test]
    fn the_published_examples() {
        // Aesop's race by the rule of Mann and Whitney, six tortoises and six hares, T H H H H H T T T T T H: U is 25 for the hares
        // and 11 for the tortoises, where a high rank is an early place.
        let (tortoises, hares) = (millis(&[12, 6, 5, 4, 3, 2]), millis(&[11, 10, 9, 8, 7, 1]));
        close(compare(&hares, &tortoises).unwrap().effect, 25.0 / 36.0, 1e-12);
        close(compare(&tortoises, &hares).unwrap().effect, 11.0 / 36.0, 1e-12);
        // The ages of SciPy's `mannwhitneyu`: U is 17; two-sided p 0.11134688653314041 by the approximation.
        let ranks = compare(&millis(&[19, 22, 16, 29, 24]), &millis(&[20, 11, 17, 12])).unwrap();
        close(ranks.effect, 17.0 / 20.0, 1e-12);
        close(ranks.p * 2.0, 0.111_346_886_533_140_41, 1e-6);
        // M. Hollander and D. A. Wolfe (1973), page 69, as in R's `wilcox.test`: W is 35, exact one-sided p 0.1272.
        let at_term = millis(&[80, 83, 189, 104, 145, 138, 191, 164, 73, 146]);
        let earlier = millis(&[115, 88, 90, 74, 121]);
        let ranks = compare(&at_term, &earlier).unwrap();
        close(ranks.effect, 35.0 / 50.0, 1e-12);
        close(exact_p(&at_term, &earlier), 0.1272, 5e-5);
        close(ranks.p, 0.1272, 0.005);
    }

    #[test]
    fn ties_by_hand() {
        // 1 2 2 against 2 3: pairs 0 0, ½ 0, ½ 0. Three twos: t³ − t = 24. Variance 6 ÷ 12 · (6 − 24 ÷ 20) = 2.4.
        let ranks = compare(&millis(&[1, 2, 2]), &millis(&[2, 3])).unwrap();
        close(ranks.effect, 1.0 / 6.0, 1e-12);
        close(ranks.p, upper_tail((1.0 - 3.0 - 0.5) / 2.4f64.sqrt()), 1e-12);
        let alike = compare(&millis(&[5; 30]), &millis(&[5; 90])).unwrap();
        assert_eq!((alike.effect, alike.p), (0.5, 1.0));
        assert_eq!(compare(&[], &millis(&[1])), None);
        assert_eq!(compare(&millis(&[1]), &[]), None);
    }

    /// Every choice of 8 of 16: tied values among them.
    #[test]
    fn the_approximation_is_close_to_the_exact_distribution() {
        for first in [[1, 3, 5, 7, 9, 11, 13, 15], [2, 2, 6, 8, 8, 12, 14, 16], [9, 10, 11, 12, 13, 14, 15, 16]] {
            let (first, second) = (millis(&first), millis(&[1, 2, 4, 6, 8, 8, 10, 12]));
            close(compare(&first, &second).unwrap().p, exact_p(&first, &second), 0.006);
        }
    }

    #[test]
    fn the_tail_is_the_tables() {
        let table = [
            (0.0, 0.5),
            (1.0, 0.158_655),
            (1.644_854, 0.05),
            (1.959_964, 0.025),
            (3.090_232, 0.001),
            (3.719_016, 0.000_1),
        ];
        for (z, p) in table {
            close(upper_tail(z), p, 1e-6);
            close(upper_tail(-z), 1.0 - p, 1e-6);
        }
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&millis(&[3, 1, 2])), Duration::from_millis(2));
        assert_eq!(median(&millis(&[4, 1, 2, 3])), Duration::from_micros(2_500));
        assert_eq!(median(&millis(&[7])), Duration::from_millis(7));
        assert_eq!(median(&[]), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn it_is_what_pairs_say_and_sides_are_mirrored(
            first in prop::collection::vec(0u64..40, 1..40),
            second in prop::collection::vec(0u64..40, 1..40),
        ) {
            let (first, second) = (millis(&first), millis(&second));
            let ranks = compare(&first, &second).unwrap();
            let mirrored = compare(&second, &first).unwrap();
            let count = (first.len() * second.len()) as f64;
            prop_assert!((ranks.effect - pairs(&first, &second) / count).abs() < 1e-9);
            prop_assert!((ranks.effect + mirrored.effect - 1.0).abs() < 1e-9);
            // What is as slow by chance and what is as fast by chance share nothing but the seen value itself.
            prop_assert!(ranks.p + mirrored.p >= 1.0 - 1e-6);
            // Only the order counts.
            let stretched = |sample: &[Duration]| sample.iter().map(|value| *value * value.as_millis() as u32 + *value).collect::<Vec<_>>();
            prop_assert_eq!(compare(&stretched(&first), &stretched(&second)), Some(ranks));
        }
    }
}
