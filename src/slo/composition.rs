//! A journey's measured share beside what its dependencies, one after the other, would make of it.

use serde::{Deserialize, Serialize};

use crate::journey::outcome::labelled;
use crate::journey::{Dependency, Journey, Name};
use crate::slo::{History, Sli, wilson};

labelled! {
    /// What the two shares say about each other.
    Reading {
        /// The product of the dependencies lies within the measured share's interval.
        Agrees = "agrees",
        /// More is lost than the dependencies account for: something between them fails, too.
        Gap = "gap",
        /// Less is lost: their failures coincide, or they do better than was promised.
        Coincide = "coincide",
        /// The journey or one of its dependencies has no verdict yet.
        Unknown = "unknown",
    }
}

/// A dependency with a share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Its name.
    pub name: Name,
    /// The share, in `0..=1`; `None` for a journey without a run.
    pub share: Option<f64>,
    /// Whether it was measured, by a journey of that name, or promised.
    pub is_measured: bool,
}

/// Measured and composed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// The journey's own delivered share.
    pub measured: Option<f64>,
    /// The dependencies.
    pub hops: Vec<Hop>,
    /// Their product: what is delivered if they fail independently of each other.
    pub product: Option<f64>,
    /// What is delivered whatever their failures have to do with each other: between 1 − ΣU, if no two ever coincide, and the
    /// worst one's share, if all do.
    pub range: Option<(f64, f64)>,
    /// What this says.
    pub reading: Reading,
}

impl Hop {
    /// A journey, with what it delivered over its own window.
    pub fn measured(journey: &Journey, history: &History) -> Hop {
        Hop {
            name: journey.name.clone(),
            share: delivered(journey, history).map(|(share, _)| share),
            is_measured: true,
        }
    }

    /// A declared dependency.
    pub fn promised(name: Name, dependency: &Dependency) -> Hop {
        Hop { name, share: Some(dependency.delivered), is_measured: false }
    }
}

/// What a journey delivered over its window, with a 95 % interval. Maintenance is left out.
pub fn delivered(journey: &Journey, history: &History) -> Option<(f64, (f64, f64))> {
    let counts = history.windows[0].tally.counts(true);
    let late_is_good = journey.objective.as_ref().is_some_and(|objective| objective.late_is_good);
    let good = counts.valid() - counts.bad(Sli::Delivered, late_is_good);
    let interval = wilson(good, counts.valid())?;
    Some((good as f64 / counts.valid() as f64, interval))
}

/// Composes; `None` without a dependency that has a share. `measured` is the journey's delivered share with its interval.
pub fn compose(measured: Option<(f64, (f64, f64))>, hops: Vec<Hop>) -> Option<Composition> {
    if hops.is_empty() {
        return None;
    }
    let shares: Option<Vec<f64>> = hops.iter().map(|hop| hop.share).collect();
    let product = shares.as_ref().map(|shares| shares.iter().product::<f64>());
    let range = shares.as_ref().map(|shares| {
        let unavailable: f64 = shares.iter().map(|share| 1.0 - share).sum();
        ((1.0 - unavailable).max(0.0), shares.iter().copied().fold(1.0, f64::min))
    });
    let reading = match (measured, product) {
        (Some((_, (_, high))), Some(product)) if high < product => Reading::Gap,
        (Some((_, (low, _))), Some(product)) if low > product => Reading::Coincide,
        (Some(_), Some(_)) => Reading::Agrees,
        _ => Reading::Unknown,
    };
    Some(Composition { measured: measured.map(|(share, _)| share), hops, product, range, reading })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hop(share: f64) -> Hop {
        Hop { name: "hop".into(), share: Some(share), is_measured: false }
    }

    fn composed(count: usize, share: f64) -> Composition {
        compose(None, vec![hop(share); count]).unwrap()
    }

    #[test]
    fn a_series_has_the_published_downtimes() {
        // Minutes in 30 days of hops of 99.9 % and 99.99 % in series.
        let table = [(1, 0.999, 43.2), (5, 0.999, 216.0), (10, 0.999, 430.0), (30, 0.999, 1_277.0), (10, 0.9999, 43.2)];
        for (count, share, minutes) in table {
            let down = (1.0 - composed(count, share).product.unwrap()) * 43_200.0;
            assert!((down - minutes).abs() < 1.0, "{count} of {share}: {down}");
        }
        let ten = composed(10, 0.999);
        assert!((ten.range.unwrap().0 - 0.99).abs() < 1e-12 && ten.range.unwrap().1 == 0.999);
        assert_eq!(composed(3, 0.5).range.unwrap().0, 0.0, "more than everything cannot be lost");
        assert_eq!(compose(Some((1.0, (0.9, 1.0))), Vec::new()), None);
    }

    #[test]
    fn the_reading_says_where_the_loss_is() {
        let read = |low: f64, high: f64| {
            compose(Some((0.5 * (low + high), (low, high))), vec![hop(0.99), hop(0.99)]).unwrap().reading
        };
        assert_eq!(read(0.97, 0.975), Reading::Gap);
        assert_eq!(read(0.97, 0.99), Reading::Agrees);
        assert_eq!(read(0.985, 0.99), Reading::Coincide);
        let unknown = compose(Some((1.0, (0.9, 1.0))), vec![hop(0.99), Hop { share: None, ..hop(0.0) }]).unwrap();
        assert_eq!((unknown.reading, unknown.product, unknown.range), (Reading::Unknown, None, None));
    }

    proptest! {
        /// Slots in which each of three hops is up or down: what all of them pass lies in the range, whatever the correlation.
        #[test]
        fn the_truth_lies_in_the_range(slots in prop::collection::vec(0u8..8, 1..200)) {
            let share = |mask: u8| slots.iter().filter(|slot| **slot & mask == mask).count() as f64 / slots.len() as f64;
            let hops = [1, 2, 4].map(|mask| hop(share(mask))).to_vec();
            let (low, high) = compose(None, hops).unwrap().range.unwrap();
            prop_assert!((low - 1e-12..=high + 1e-12).contains(&share(7)));
        }
    }
}
