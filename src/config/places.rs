//! Where the parts of a journey were written, for whoever tells what became of a run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use crate::config::document::{Context, Data, Node};
use crate::config::journeys::Loaded;
use crate::config::problem::{Place, Problem};
use crate::config::{Plan, read_and_plan};
use crate::journey::Name;

/// Where journeys were written. A daemon has no use for it, and does not keep it.
#[derive(Default)]
pub struct Places(BTreeMap<Name, Written>);

/// One journey, with defaults and fragments worked in: what comes from there points there.
struct Written {
    journey: Node,
    steps: Vec<Node>,
}

impl Places {
    /// Where this key of the journey was written.
    pub fn of_journey(&self, journey: &str, key: &str) -> Option<Place> {
        place_of(&self.0.get(journey)?.journey, key)
    }

    /// Where this key of the step was written.
    pub fn of_step(&self, journey: &str, step: usize, key: &str) -> Option<Place> {
        place_of(self.0.get(journey)?.steps.get(step)?, key)
    }

    /// Where the step's expectation of this number was written.
    pub fn of_expectation(&self, journey: &str, step: usize, number: usize) -> Option<Place> {
        let expect = self.0.get(journey)?.steps.get(step)?.get("expect")?;
        match &expect.data {
            Data::List(items) => items.get(number).map(|item| item.place.clone()),
            _ => None,
        }
    }

    pub(super) fn add(&mut self, loaded: &Loaded) {
        let written = Written { journey: loaded.node.clone(), steps: loaded.steps.clone() };
        self.0.insert(loaded.journey.name.clone(), written);
    }
}

/// From the key to the end of its value.
fn place_of(node: &Node, key: &str) -> Option<Place> {
    let entry = node.entries().iter().find(|entry| entry.key == key)?;
    let (from, to) = (entry.key_place.range().start, entry.value.place.range().end);
    Some(Place::new(entry.key_place.source(), from..to.max(from)))
}

/// As [`load`](super::load), with where journeys were written.
///
/// # Errors
/// As [`load`](super::load).
pub fn load_with_places(path: &Path) -> Result<(Plan, Places, Vec<Problem>), Vec<Problem>> {
    let mut context = Context::new(path.parent().unwrap_or(Path::new("")).to_owned());
    let places = Rc::new(RefCell::new(Places::default()));
    context.places = Some(places.clone());
    let (plan, problems) = read_and_plan(context, path)?;
    Ok((plan, places.take(), problems))
}
