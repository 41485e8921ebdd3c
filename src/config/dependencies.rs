//! What journeys depend on: `depends_on` of a journey, and `[dependencies.NAME]` with the share that somebody promised.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::document::{Context, Data, Node, Section};
use crate::config::journeys::Loaded;
use crate::config::problem::{Place, Problem};
use crate::config::{lint, values};
use crate::journey::{Dependency, Name};

pub(super) const KEYS: &[&str] = &["delivered", "description"];

/// A declared dependency, and where.
pub(super) struct Declared {
    pub(super) dependency: Dependency,
    place: Place,
}

/// Whether the text may be the name of a dependency: `broker:eu-1`, `mail-round-trip`, `checkout-api[eu]`.
fn is_dependency(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.:/[],".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 200 && text.chars().all(is_inner)
}

const HINT: &str = "it has up to 200 letters, digits and `-_.:/[],`, and begins with a letter or digit";

/// `[dependencies.NAME]`
pub(super) fn read(context: &Context, node: Option<&Node>) -> BTreeMap<Name, Declared> {
    let mut declared = BTreeMap::new();
    for entry in node.and_then(|node| context.table(node, "dependencies")).unwrap_or_default() {
        if !is_dependency(&entry.key) {
            let problem = Problem::error(&entry.key_place, format!("`{}` cannot be a dependency", entry.key));
            context.add(problem.hint(HINT));
        }
        let Some(section) = Section::open(context, &entry.value, &entry.key, KEYS) else { continue };
        section.require("delivered", "the share that it promises, as in `delivered = \"99.95%\"`");
        let delivered = section.share("delivered");
        if delivered == Some(0.0) {
            let problem = Problem::error(section.place_of("delivered"), "`delivered` of 0% promises nothing");
            context.add(problem.hint("a name that only groups journeys need not be declared"));
        }
        let description = section.text("description").map(str::to_owned);
        let Some(delivered) = delivered else { continue };
        let dependency = Dependency { delivered, description };
        declared.insert(entry.key.as_str().into(), Declared { dependency, place: entry.key_place.clone() });
    }
    declared
}

/// `depends_on` of a journey.
pub(super) fn of_journey(section: &Section<'_>) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for (text, node) in section.strings("depends_on").unwrap_or_default() {
        if !is_dependency(text) {
            let problem = Problem::error(&node.place, format!("`{text}` cannot be a dependency"));
            section.context.add(problem.hint(HINT));
        } else if names.iter().any(|name| &**name == text) {
            section.context.add(Problem::warning(&node.place, format!("`{text}` counts once, though named twice")));
        } else {
            names.push(text.into());
        }
    }
    names
}

/// What is only seen when all journeys are known: circles, names that are two things, and names that were meant otherwise.
pub(super) fn check(context: &Context, declared: &BTreeMap<Name, Declared>, journeys: &[Loaded]) {
    let by_name: BTreeMap<&Name, &Loaded> = journeys.iter().map(|loaded| (&loaded.journey.name, loaded)).collect();
    let mut used: BTreeMap<&Name, usize> = BTreeMap::new();
    for name in journeys.iter().flat_map(|loaded| &loaded.journey.depends_on) {
        *used.entry(name).or_default() += 1;
    }
    for (name, Declared { place, .. }) in declared {
        if let Some(journey) = by_name.get(name) {
            let problem = Problem::error(place, format!("`{name}` is a journey: what it delivers is measured"));
            context.add(problem.also(&journey.place, "the journey").hint("give the dependency another name"));
        } else if !used.contains_key(name) {
            let problem = Problem::warning(place, format!("nothing depends on `{name}`"));
            context.add(problem.hint(format!("`depends_on = [\"{name}\"]` in a journey or in [defaults]")));
        }
    }
    let is_known = |name: &Name| declared.contains_key(name) || by_name.contains_key(name);
    let known = declared.keys().chain(by_name.keys().copied());
    let groups = used.iter().filter(|(name, uses)| **uses > 1 && !is_known(name)).map(|(name, _)| *name);
    let known: BTreeSet<&Name> = known.chain(groups).collect();
    for (name, _) in used.iter().filter(|(name, uses)| **uses == 1 && !known.contains(**name)) {
        if let Some(meant) = known.iter().find(|other| is_near(name, other))
            && let Some(place) = place_of(journeys, name)
        {
            let problem = Problem::warning(place, format!("no journey and no declared dependency is named `{name}`"));
            context.add(problem.hint(format!("did you mean `{meant}`? A name that only groups journeys is fine")));
        }
    }
    circles(context, &by_name);
    for loaded in journeys {
        product(context, declared, &by_name, loaded);
    }
}

/// A chain is as good as the product of its links if they fail independently: nobody can promise more.
fn product(
    context: &Context,
    declared: &BTreeMap<Name, Declared>,
    by_name: &BTreeMap<&Name, &Loaded>,
    loaded: &Loaded,
) {
    let Some(objective) = &loaded.journey.objective else { return };
    let promised: Vec<(&Name, f64)> = loaded
        .journey
        .depends_on
        .iter()
        .filter_map(|name| {
            let journey = by_name.get(name).and_then(|other| other.journey.objective.as_ref());
            let share = journey.map(|objective| objective.delivered);
            Some((name, share.or_else(|| declared.get(name).map(|declared| declared.dependency.delivered))?))
        })
        .collect();
    let product: f64 = promised.iter().map(|(_, share)| share).product();
    // The product of two decimal shares is rarely the decimal that it stands for.
    if promised.is_empty() || objective.delivered <= product + 1e-12 {
        return;
    }
    let percent = |share: f64| format!("{}%", lint::round(share * 100.0, 6));
    let each: Vec<_> = promised.iter().map(|(name, share)| format!("`{name}` {}", percent(*share))).collect();
    let problem = format!(
        "{} delivered is more than its dependencies promise together: {} make {}",
        percent(objective.delivered),
        each.join(", "),
        percent(product)
    );
    let delivered = loaded.node.get("objective").and_then(|objective| objective.get("delivered"));
    let problem = Problem::warning(delivered.map_or(&loaded.place, |node| &node.place), problem);
    context.add(
        problem.hint("lower the objective, or depend on something better; failures that coincide only help a little"),
    );
}

/// Where the first journey that depends on `name` says so.
fn place_of<'a>(journeys: &'a [Loaded], name: &str) -> Option<&'a Place> {
    let loaded = journeys.iter().find(|loaded| loaded.journey.depends_on.iter().any(|other| &**other == name))?;
    Some(place_in(loaded, name))
}

fn place_in<'a>(loaded: &'a Loaded, name: &str) -> &'a Place {
    let list = loaded.node.get("depends_on");
    let items = list.map(|list| if let Data::List(items) = &list.data { items.as_slice() } else { &[] });
    let item = items.and_then(|items| items.iter().find(|item| item.as_text() == Some(name)));
    item.or(list).map_or(&loaded.place, |node| &node.place)
}

/// Whether `name` was probably meant to be `other`. Parts of a few letters differ on purpose: `broker:eu-1` and `broker:us-2`.
fn is_near(name: &str, other: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_lowercase).collect()
    };
    let (ours, theirs) = (parts(name), parts(other));
    if ours.len() != theirs.len() {
        return values::nearest(name, [other]).is_some();
    }
    ours.iter().zip(&theirs).all(|(ours, theirs)| {
        ours == theirs || (ours.len().min(theirs.len()) > 3 && values::nearest(ours, [theirs.as_str()]).is_some())
    })
}

/// A circle has no end to begin at: neither a product nor a root cause.
fn circles(context: &Context, by_name: &BTreeMap<&Name, &Loaded>) {
    let mut left: BTreeMap<&str, &Loaded> = by_name.iter().map(|(name, loaded)| (&***name, *loaded)).collect();
    loop {
        // What depends on nothing that is left is in no circle.
        let names: BTreeSet<&str> = left.keys().copied().collect();
        left.retain(|_, loaded| loaded.journey.depends_on.iter().any(|name| names.contains(&**name)));
        if left.len() < names.len() {
            continue;
        }
        let Some((mut name, _)) = left.first_key_value() else { return };
        let mut path: Vec<&str> = Vec::new();
        let first = loop {
            if let Some(first) = path.iter().position(|other| other == name) {
                break first;
            }
            path.push(name);
            let next = left
                .get(name)
                .and_then(|loaded| loaded.journey.depends_on.iter().find_map(|next| left.get_key_value(&**next)));
            let Some((next, _)) = next else { return };
            name = next;
        };
        let circle = &path[first..];
        if let Some(loaded) = circle.last().and_then(|last| left.get(last)) {
            let names: Vec<_> = circle.iter().chain([name]).map(|name| format!("`{name}`")).collect();
            let problem = match &names[..] {
                [one, _] => format!("{one} depends on itself"),
                [first, others @ ..] => format!("{first} depends on {}", others.join(", which depends on ")),
                [] => continue,
            };
            let hint = "`depends_on = []` puts away what [defaults] say";
            context.add(Problem::error(place_in(loaded, name), problem).hint(hint));
        }
        left.retain(|name, _| !circle.contains(name));
    }
}
