//! What spares repetition: `[defaults]`, `[fragment.NAME]` with `use`, and `matrix`.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::config::document::{Context, Data, Entry, IDENTIFIER_HINT, Node, is_identifier, is_name};
use crate::config::problem::{Place, Problem};
use crate::config::{templates, values};
use crate::journey::template::{BUILT_IN, FUNCTIONS};

/// Tables whose keys are merged one by one; of everything else the own value replaces the other whole.
const MERGED: &[&str] = &["alert", "labels", "objective", "headers"];
/// A matrix of more is a mistake.
const MOST_COMBINATIONS: usize = 1_000;

/// `own`, with what only `under` has.
pub(super) fn merge(own: &Node, under: &Node) -> Node {
    let Data::Table(entries) = &own.data else { return own.clone() };
    let mut entries: Vec<Entry> = entries
        .iter()
        .map(|entry| match under.get(&entry.key) {
            Some(other) if MERGED.contains(&entry.key.as_str()) => {
                Entry { value: merge(&entry.value, other), ..entry.clone() }
            }
            _ => entry.clone(),
        })
        .collect();
    entries.extend(under.entries().iter().filter(|entry| !gives_way(&entry.key, own)).cloned());
    Node { place: own.place.clone(), data: Data::Table(entries) }
}

/// Whether `own` says the same thing itself, perhaps in another way.
fn gives_way(key: &str, own: &Node) -> bool {
    let has = |key: &str| own.get(key).is_some();
    has(key)
        || match key {
            "every" => has("cron"),
            "cron" => has("every"),
            // Of a journey the zone of its cron, of an objective that of its calendar.
            "timezone" => has("every") || has("window"),
            "window" => has("calendar"),
            "calendar" | "start" => has("window"),
            "json" | "form" | "text" => has("json") || has("form") || has("text"),
            _ => false,
        }
}

struct Fragment {
    place: Place,
    node: Node,
    is_used: Cell<bool>,
}

/// The fragments of all files.
pub(super) struct Fragments(BTreeMap<String, Fragment>);

impl Fragments {
    /// Reads the `fragment` tables of all files.
    pub(super) fn read<'a>(context: &Context, tables: impl Iterator<Item = &'a Node>) -> Fragments {
        let mut fragments: BTreeMap<String, Fragment> = BTreeMap::new();
        for entry in tables.flat_map(|table| context.table(table, "fragment").unwrap_or_default()) {
            context.check_name(&entry.key, &entry.key_place);
            if context.table(&entry.value, &entry.key).is_none() {
                continue;
            }
            if let Some(nested) = entry.value.get("use") {
                context.add(Problem::error(&nested.place, "a fragment cannot use another one"));
            }
            let place = entry.key_place.clone();
            if let Some(other) = fragments.get(&entry.key) {
                let problem = Problem::error(&place, format!("two fragments are named `{}`", entry.key));
                context.add(problem.also(&other.place, "the other one"));
                continue;
            }
            let fragment = Fragment { place, node: entry.value.clone(), is_used: Cell::new(false) };
            fragments.insert(entry.key.clone(), fragment);
        }
        Fragments(fragments)
    }

    /// The journey or step with what its fragment has.
    pub(super) fn apply(&self, context: &Context, node: &Node) -> Node {
        let Some(used) = node.get("use") else { return node.clone() };
        let Some(name) = context.text(used, "use") else { return node.clone() };
        match self.0.get(name) {
            Some(fragment) => {
                fragment.is_used.set(true);
                merge(node, &fragment.node)
            }
            None => {
                if !context.is_incomplete {
                    let problem = Problem::error(&used.place, format!("no fragment is named `{name}`"));
                    context.add(problem.maybe_hint(values::suggestion(name, self.0.keys().map(String::as_str))));
                }
                node.clone()
            }
        }
    }

    /// Says which fragments nothing uses.
    pub(super) fn check_used(&self, context: &Context) {
        for (name, fragment) in self.0.iter().filter(|(_, fragment)| !fragment.is_used.get()) {
            let problem = Problem::warning(&fragment.place, format!("nothing uses the fragment `{name}`"));
            context
                .add(problem.hint(format!("`use = \"{name}\"` in a journey or step, or delete it: it is not checked")));
        }
    }
}

/// One journey of a matrix.
pub(super) struct Variant {
    /// With the values filled in.
    pub(super) node: Node,
    /// Axis and value, in the order of the file.
    pub(super) values: Vec<(String, String)>,
}

/// The journeys that a definition stands for: one without a `matrix`, otherwise one for each combination.
pub(super) fn variants(context: &Context, node: Node) -> Vec<Variant> {
    let Some(matrix) = node.get("matrix") else { return vec![Variant { node, values: Vec::new() }] };
    let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for entry in context.table(matrix, "matrix").unwrap_or_default() {
        let values = axis(context, entry);
        combinations = combinations
            .iter()
            .flat_map(|chosen| {
                let with = |value: &String| [chosen.as_slice(), &[(entry.key.clone(), value.clone())]].concat();
                values.iter().map(with).collect::<Vec<_>>()
            })
            .take(MOST_COMBINATIONS + 1)
            .collect();
    }
    if combinations.len() > MOST_COMBINATIONS {
        let problem = format!("this matrix makes more than {MOST_COMBINATIONS} journeys");
        context.add(Problem::error(&matrix.place, problem));
        combinations.truncate(1);
    }
    let (kept, others): (Vec<_>, Vec<_>) = node.entries().iter().cloned().partition(|entry| entry.key == "matrix");
    let body = Node { place: node.place.clone(), data: Data::Table(others) };
    let variant = |values: Vec<(String, String)>| {
        let mut node = templates::substitute(&body, &values.iter().cloned().collect());
        if let Data::Table(entries) = &mut node.data {
            entries.extend(kept.iter().cloned());
        }
        Variant { node, values }
    };
    combinations.into_iter().map(variant).collect()
}

/// The values of one axis. A wrong one is told and stands for something, so that the rest is checked too.
fn axis(context: &Context, entry: &Entry) -> Vec<String> {
    let is_taken = BUILT_IN.contains(&entry.key.as_str()) || FUNCTIONS.contains(&entry.key.as_str());
    if is_taken || !is_identifier(&entry.key) {
        let problem = Problem::error(&entry.key_place, format!("`{}` cannot be the name of a variable", entry.key));
        let hint = if is_taken { "templates know this name already" } else { IDENTIFIER_HINT };
        context.add(problem.hint(hint));
    }
    let items = context.list(&entry.value, &entry.key, "a list of values").unwrap_or_default();
    let mut values = Vec::new();
    for item in items {
        let value = match &item.data {
            Data::Text(text) | Data::Integer(text) => text.clone(),
            Data::Bool(value) => value.to_string(),
            _ => {
                context.expected(item, &entry.key, "a list of strings, whole numbers or booleans");
                continue;
            }
        };
        if !is_name(&value) {
            let problem = Problem::error(&item.place, format!("`{value}` cannot be a part of a journey's name"));
            context.add(problem.hint(super::document::NAME_HINT));
        } else if values.contains(&value) {
            context.add(Problem::error(&item.place, format!("`{value}` is there twice")));
        } else {
            values.push(value);
        }
    }
    if items.is_empty() {
        context
            .add(Problem::error(&entry.value.place, format!("`{}` has no values, so there is no journey", entry.key)));
    }
    if values.is_empty() { vec!["x".to_owned()] } else { values }
}
