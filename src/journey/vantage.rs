//! From where a journey is run.

use crate::journey::Name;

/// From where a journey of daemons that share a store is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vantage {
    /// From one place of several: a part of another journey, which people are told of.
    Place {
        /// That journey.
        of: Name,
        /// The place: the `location` of the daemons that may run it.
        location: Name,
    },
    /// From several places. It is not run itself: what it comes to follows from its parts.
    Together(Box<Places>),
}

/// The places that a journey is run from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Each with the journey that is run from there.
    pub parts: Vec<(Name, Name)>,
    /// In so many places it has to fail before people are told.
    pub quorum: usize,
}

/// What the journey is named that is run from one place of another's.
pub fn part(of: &str, location: &str) -> Name {
    format!("{of}{AT}{location}").into()
}

/// The place in a journey's name, if it is run from one place of several.
pub fn location_of(journey: &str) -> Option<&str> {
    journey.rsplit_once(AT).map(|(_, location)| location)
}

/// No name that people give has it.
const AT: char = '@';
