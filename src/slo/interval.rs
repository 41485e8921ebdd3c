//! How sure a share is: the interval in which the true one lies, and how many failures are more than chance.

/// The 97.5 % quantile of the normal distribution: 95 % lie within.
const Z: f64 = 1.959_963_984_540_054;
/// One failure in twenty is believed too early.
const SIGNIFICANCE: f64 = 0.05;

/// The 95 % Wilson score interval for `good` of `all` (E. B. Wilson, 1927): close to the truth on average, and cheap.
pub fn wilson(good: u64, all: u64) -> Option<(f64, f64)> {
    if all == 0 {
        return None;
    }
    let n = all as f64;
    let p = good as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some((((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0)))
}

/// The 95 % Clopper-Pearson interval for `good` of `all` (C. J. Clopper and E. S. Pearson, 1934): never too narrow.
pub fn clopper_pearson(good: u64, all: u64) -> Option<(f64, f64)> {
    if all == 0 || good > all {
        return None;
    }
    let low = lower_bound(good, all, SIGNIFICANCE / 2.0);
    let high = 1.0 - lower_bound(all - good, all, SIGNIFICANCE / 2.0);
    Some((low, high))
}

/// The share below which the true one lies with a probability of at most `doubt`, when `hits` of `all` were seen.
fn lower_bound(hits: u64, all: u64, doubt: f64) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Each step halves what is left, and a double has 53 bits; the bound may be small, so some more.
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if at_least(hits, all, middle) < doubt {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Whether `bad` of `all` say with 95 % confidence that the true share is above `threshold`: whether the one-sided exact lower
/// bound is.
pub fn is_above(bad: u64, all: u64, threshold: f64) -> bool {
    bad > 0 && bad <= all && threshold < 1.0 && at_least(bad, all, threshold) < SIGNIFICANCE
}

/// The least number of failures of `all` runs that is more than chance could make of a share of `threshold`: the first for
/// which [`is_above`] holds. `None` if even `all` of them are not.
pub fn gate(all: u64, threshold: f64) -> Option<u64> {
    if !is_above(all, all, threshold) {
        return None;
    }
    // More failures are less likely by chance, so the first that convinces can be searched for.
    let (mut low, mut high) = (0, all);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_above(middle, all, threshold) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// The probability of `hits` or more of `all`, each with this probability: I_p(hits, all - hits + 1).
fn at_least(hits: u64, all: u64, probability: f64) -> f64 {
    match hits {
        0 => 1.0,
        _ if hits > all => 0.0,
        _ => incomplete_beta(hits as f64, (all - hits + 1) as f64, probability),
    }
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun 26.5.8, evaluated by Lentz's
/// method) on the side where that converges quickly.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(a, b, x) / a
    } else {
        1.0 - front * fraction(b, a, 1.0 - x) / b
    }
}

fn fraction(a: f64, b: f64, x: f64) -> f64 {
    /// Takes the place of a zero that would be divided by.
    const TINY: f64 = 1e-300;
    // It takes about as many terms as the root of the larger parameter.
    const TERMS: u32 = 100_000;
    let guarded = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guarded(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for term in 1..TERMS {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = value;
        for coefficient in [even, odd] {
            d = 1.0 / guarded(1.0 + coefficient * d);
            c = guarded(1.0 + coefficient / c);
            value *= c * d;
        }
        if (value - before).abs() <= value.abs() * 1e-15 {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function (C. Lanczos, 1964, with g = 7 and nine terms): 15 digits.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum = TERMS.iter().zip(0u8..).skip(1).fold(TERMS[0], |sum, (term, at)| sum + term / (x + f64::from(at)));
    let t = x + G + 0.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: Option<(f64, f64)>, low: f64, high: f64) -> bool {
        found.is_some_and(|(a, b)| (a - low).abs() < 5.1e-5 && (b - high).abs() < 5.1e-5)
    }

    /// Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, methods 3 and 5.
    #[test]
    fn intervals_have_the_published_values() {
        let table = [
            ((81, 263), (0.2553, 0.3662), (0.2527, 0.3676)),
            ((15, 148), (0.0624, 0.1605), (0.0578, 0.1617)),
            ((0, 20), (0.0, 0.1611), (0.0, 0.1684)),
            ((1, 29), (0.0061, 0.1718), (0.0009, 0.1776)),
        ];
        for ((good, all), score, exact) in table {
            let (by_score, by_exact) = (wilson(good, all), clopper_pearson(good, all));
            assert!(is_near(by_score, score.0, score.1), "{good}/{all}: {by_score:?}");
            assert!(is_near(by_exact, exact.0, exact.1), "{good}/{all}: {by_exact:?}");
            let (low, high) = clopper_pearson(all - good, all).unwrap();
            assert!(is_near(Some((1.0 - high, 1.0 - low)), exact.0, exact.1), "the mirror image of {good}/{all}");
        }
        assert_eq!((wilson(0, 0), clopper_pearson(0, 0)), (None, None));
        // No failure in n runs: with 97.5 % confidence the share is at least the nth root of 0.025.
        for all in [1, 12, 1_440, 43_200] {
            let (low, high) = clopper_pearson(all, all).unwrap();
            assert!((low - 0.025f64.powf(1.0 / all as f64)).abs() < 1e-12 && high == 1.0, "{all}: {low}");
        }
    }

    /// The sum of the binomial probabilities, term by term.
    fn summed(hits: u64, all: u64, p: f64) -> f64 {
        let mut term = (1.0 - p).powi(all as i32);
        let mut below = 0.0;
        for k in 0..hits {
            below += term;
            term *= (all - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        }
        1.0 - below
    }

    #[test]
    fn the_tail_of_the_binomial_is_exact() {
        for all in [1u64, 2, 5, 12, 60, 288, 1_440] {
            for hits in (0..=all.min(60)).step_by(1 + all as usize / 30) {
                for p in [0.001, 0.01, 0.05, 0.144, 0.3] {
                    let (found, expected) = (at_least(hits, all, p), summed(hits, all, p));
                    assert!((found - expected).abs() < 1e-10, "{hits} of {all} at {p}: {found} {expected}");
                }
            }
        }
        assert!((incomplete_beta(2.0, 3.0, 0.5) - 0.6875).abs() < 1e-14);
        let huge = incomplete_beta(50_000.0, 50_001.0, 0.5);
        assert!((huge - 0.5).abs() < 0.002, "{huge}");
        assert!((ln_gamma(101.0) - 363.739_375_555_563_5).abs() < 1e-10);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
    }

    /// Runs in the window, factor, first failure count above the threshold, first that is more than chance.
    type Tier = (u64, f64, u64, u64);

    /// Every cell of the table that the detectors are chosen by: interval in minutes, objective, tiers of 1 h, 6 h, 1 d, 3 d.
    #[test]
    fn the_gate_has_the_integers_of_the_table() {
        let table: [(f64, [Tier; 4]); 5] = [
            (0.99, [(60, 14.4, 9, 14), (360, 6.0, 22, 30), (1_440, 3.0, 44, 55), (4_320, 1.0, 44, 55)]),
            (0.999, [(60, 14.4, 1, 4), (360, 6.0, 3, 6), (1_440, 3.0, 5, 9), (4_320, 1.0, 5, 9)]),
            (0.9999, [(60, 14.4, 1, 2), (360, 6.0, 1, 2), (1_440, 3.0, 1, 3), (4_320, 1.0, 1, 3)]),
            (0.99, [(12, 14.4, 2, 5), (72, 6.0, 5, 9), (288, 3.0, 9, 15), (864, 1.0, 9, 15)]),
            (0.999, [(12, 14.4, 1, 2), (72, 6.0, 1, 3), (288, 3.0, 1, 4), (864, 1.0, 1, 4)]),
        ];
        for (objective, tiers) in table {
            for (runs, factor, naive, exact) in tiers {
                let threshold = (1.0 - objective) * factor;
                let first = (1..=runs).find(|bad| *bad as f64 / runs as f64 > threshold);
                assert_eq!((first, gate(runs, threshold)), (Some(naive), Some(exact)), "{objective} {runs} ×{factor}");
                assert!(is_above(exact, runs, threshold) && !is_above(exact - 1, runs, threshold));
            }
        }
        // A burn rate cannot exceed 1 ÷ (1 − objective): at 90 % a factor of 14.4 is never reached.
        assert_eq!(gate(60, 0.1 * 14.4), None);
        assert_eq!(gate(0, 0.1), None);
        assert_eq!(gate(1, 0.5), None, "one run proves nothing about a half");
    }
}
