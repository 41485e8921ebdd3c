//! Which journeys a list shows.

use serde::Deserialize;

use super::State;
use crate::board::JourneyStatus;
use crate::journey::Journey;

/// Which journeys a list shows, and in which groups. What is empty says nothing: forms send that.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct Filter {
    /// Only those in this state.
    pub(in crate::http) state: Option<String>,
    /// Only those whose name, owner or a label contains this, in either case.
    pub(in crate::http) q: Option<String>,
    /// Only those of this owner.
    pub(in crate::http) owner: Option<String>,
    /// Only those with this label, `name=value`; a name alone is any value of it.
    pub(in crate::http) label: Option<String>,
    /// The label that makes groups; `owner` is the owner's, `-` is no groups.
    pub(in crate::http) group: Option<String>,
}

impl Filter {
    pub(in crate::http) fn admits(&self, status: &JourneyStatus) -> bool {
        said(&self.state).is_none_or(|state| state == State::of(status).as_str()) && self.finds(&status.journey)
    }

    /// Whether it is looked for, whatever the state.
    pub(in crate::http) fn finds(&self, journey: &Journey) -> bool {
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((name, value)) => journey.labels.get(name.trim()).is_some_and(|found| found == value.trim()),
            None => journey.labels.contains_key(wanted.trim()),
        };
        said(&self.owner).is_none_or(|owner| journey.owner.as_deref() == Some(owner))
            && said(&self.label).is_none_or(has_label)
            && said(&self.q).is_none_or(|wanted| contains(journey, &wanted.trim().to_lowercase()))
    }

    /// The label by which these journeys are grouped: the one that was asked for, or `group` where a journey has it.
    pub(in crate::http) fn group_by<'a>(&'a self, mut journeys: impl Iterator<Item = &'a Journey>) -> Option<&'a str> {
        match said(&self.group) {
            Some("-") => None,
            Some(label) => Some(label),
            None => journeys.any(|journey| journey.labels.contains_key(GROUP)).then_some(GROUP),
        }
    }

    /// The rest of a query that keeps all of it but the state.
    pub(in crate::http) fn rest(&self, encode: impl Fn(&str) -> String) -> String {
        let kept = [("q", &self.q), ("owner", &self.owner), ("label", &self.label), ("group", &self.group)];
        let kept = kept.into_iter().filter_map(|(name, value)| Some((name, said(value)?)));
        kept.map(|(name, value)| format!("&{name}={}", encode(value))).collect()
    }
}

/// The label that makes groups where nobody asks for another.
pub(in crate::http) const GROUP: &str = "group";
/// The owner, where a label is asked for.
pub(in crate::http) const OWNER: &str = "owner";

fn said(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn contains(journey: &Journey, wanted: &str) -> bool {
    let labels = journey.labels.values().map(String::as_str);
    let mut texts = [&*journey.name].into_iter().chain(journey.owner.as_deref()).chain(labels);
    texts.any(|text| text.to_lowercase().contains(wanted))
}
