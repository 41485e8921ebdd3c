//! What everybody may know: parts under names of their own, each made of journeys. Names of journeys are nobody's business there.

use std::time::Duration;

use crate::control::{Labels, Matcher};
use crate::journey::Journey;

/// The history that it shows.
pub const HISTORY: Duration = Duration::from_secs(90 * 86_400);

/// The page that everybody may see.
#[derive(Clone, Debug, Default)]
pub struct StatusPage {
    /// Whose it is.
    pub title: String,
    /// A sentence for those who come there.
    pub about: Option<String>,
    /// Its parts, in order.
    pub components: Vec<Component>,
}

/// A part of the page.
#[derive(Clone, Debug)]
pub struct Component {
    /// What people call it. Also its name in the addresses of badges.
    pub title: String,
    /// The heading that it stands under.
    pub group: Option<String>,
    /// Journeys that fulfil one of these are part of it.
    pub journeys: Vec<Matcher>,
}

impl Component {
    /// Whether it is made of this journey, among others.
    pub fn has(&self, journey: &Journey) -> bool {
        let labels: Labels = journey.alert_labels(None);
        self.journeys.iter().any(|matcher| matcher.holds(&labels))
    }
}
