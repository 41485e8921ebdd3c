//! The likely cause that failing journeys share.
//!
//! If a resource is broken, the journeys that use it fail (95 %), whatever the others do; if it is not, each fails by itself (1 %).
//! The logarithm of that ratio is what a resource gains: a user that fails speaks for it (+4.6), one that passes against it (-3.0).
//! A channel at which a failing step stood gains a little more. It takes 20 : 1.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::journey::Name;
use crate::journey::outcome::labelled;

/// Something that journeys share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A declared dependency.
    Dependency(Name),
    /// A channel.
    Channel(Name),
    /// A label's value.
    Label(String, String),
    /// The place that we look from.
    Location(String),
}

labelled! {
    /// What journeys may be grouped by.
    ResourceKind {
        /// Declared dependencies.
        Dependency = "dependency",
        /// Channels.
        Channel = "channel",
        /// Labels of one name and value.
        Label = "label",
        /// The place that we look from.
        Location = "location",
    }
}

impl Resource {
    /// What kind it is.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Resource::Dependency(_) => ResourceKind::Dependency,
            Resource::Channel(_) => ResourceKind::Channel,
            Resource::Label(..) => ResourceKind::Label,
            Resource::Location(_) => ResourceKind::Location,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Dependency(name) => write!(f, "{name}"),
            Resource::Channel(name) => write!(f, "channel {name}"),
            Resource::Label(name, value) => write!(f, "{name}={value}"),
            Resource::Location(place) => write!(f, "everything seen from {place}"),
        }
    }
}

/// How a resource's users fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Who uses it.
    pub users: u32,
    /// Who of them is bad now.
    pub bad: u32,
    /// Of how many of these it is where they failed.
    pub blamed: u32,
}

/// It takes 20 : 1.
pub const PROOF: f64 = 3.0;

impl Tally {
    /// What speaks for the resource, as the logarithm of a likelihood ratio.
    pub fn gain(self) -> f64 {
        let (bad, passing) = (f64::from(self.bad), f64::from(self.users.saturating_sub(self.bad)));
        bad * (0.95f64 / 0.01).ln() + passing * (0.05f64 / 0.99).ln() + f64::from(self.blamed).min(bad) * 0.5
    }
}

impl Resource {
    /// Fewer failing users than these are no pattern: much is alike in journeys that have nothing to do with each other.
    fn least_bad(&self) -> u32 {
        match self {
            Resource::Dependency(_) | Resource::Channel(_) => 2,
            Resource::Label(..) => 3,
            Resource::Location(_) => 5,
        }
    }

    /// Whether the tally makes it the likely cause.
    pub fn is_proven(&self, tally: Tally) -> bool {
        tally.bad >= self.least_bad() && tally.gain() >= PROOF
    }

    /// Of two equally likely causes the nearer one: what is declared, then where it failed, then what is alike.
    fn rank(&self) -> u8 {
        match self {
            Resource::Dependency(_) => 3,
            Resource::Channel(_) => 2,
            Resource::Label(..) => 1,
            Resource::Location(_) => 0,
        }
    }
}

/// The likeliest of these causes, if one is proven.
pub fn likeliest<'a>(candidates: impl Iterator<Item = (&'a Resource, Tally)>) -> Option<&'a Resource> {
    candidates
        .filter(|(resource, tally)| resource.is_proven(*tally))
        .max_by(|(a, left), (b, right)| {
            left.gain().total_cmp(&right.gain()).then(a.rank().cmp(&b.rank())).then_with(|| b.cmp(a))
        })
        .map(|(resource, _)| resource)
}

/// How likely chance alone puts `bad` or more of all `all_bad` failing journeys among the `users` of `all` (Fisher's exact test,
/// one-sided).
pub fn chance(bad: u32, users: u32, all_bad: u32, all: u32) -> f64 {
    let ln_choose =
        |n: u32, k: u32| -> f64 { (0..k.min(n - k.min(n))).map(|i| (f64::from(n - i) / f64::from(i + 1)).ln()).sum() };
    let most = users.min(all_bad);
    let least = (users + all_bad).saturating_sub(all);
    let total = ln_choose(all, all_bad);
    let term = |k: u32| (ln_choose(users, k) + ln_choose(all - users, all_bad - k) - total).exp();
    (bad.max(least)..=most).map(term).sum::<f64>().min(1.0)
}
