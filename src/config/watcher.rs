//! `[self_journey]`, `[dead_man]`, `[observer]`: who watches the watcher.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::document::{Context, Data, Node, Section};
use crate::config::journeys::Loaded;
use crate::config::no_journey;
use crate::config::problem::Problem;
use crate::dead_man::DeadManSettings;
use crate::observer::{LEAST, Reference};
use crate::time::Human;

pub(super) const OWN_KEYS: &[&str] = &["enabled", "every", "through"];
pub(super) const DEAD_MAN_KEYS: &[&str] = &["url", "urls", "every", "requires"];
pub(super) const OBSERVER_KEYS: &[&str] = &["reference"];

/// Often enough that two minutes without one are news.
const OWN_EVERY: Duration = Duration::from_secs(30);
/// Below this it would be load instead of a sign of life.
const OWN_LEAST: Duration = Duration::from_secs(1);
const DEAD_MAN_EVERY: Duration = Duration::from_secs(60);

const REFERENCE_HINT: &str =
    "as in `reference = [\"https://one.example.net\", \"tcp://192.0.2.1:53\"]`, of two providers";

/// Who watches the watcher.
#[derive(Clone, Debug, Default)]
pub struct WatcherPlan {
    /// The monitor's own journey, unless it is turned off.
    pub own: Option<OwnPlan>,
    /// The switches that are called from its tail.
    pub dead_man: Option<DeadManSettings>,
    /// Endpoints that tell whether our own network is down; none, or two and more.
    pub references: Vec<Reference>,
}

/// The monitor's own journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPlan {
    /// How often.
    pub every: Duration,
    /// Where it knocks.
    pub door: Door,
}

/// Where the monitor's own journey knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// At `public_url` of `[hooks]`, as callers from outside; at the listener, if there is none.
    Public,
    /// At the listener itself.
    Listener,
}

pub(super) fn read<'a>(context: &Context, get: impl Fn(&str) -> Option<&'a Node>, journeys: &[Loaded]) -> WatcherPlan {
    let own = own(context, get("self_journey"));
    let dead_man = dead_man(context, get("dead_man"), own, journeys);
    WatcherPlan { own, dead_man, references: references(context, get("observer")) }
}

fn own(context: &Context, node: Option<&Node>) -> Option<OwnPlan> {
    let usual = OwnPlan { every: OWN_EVERY, door: Door::Public };
    let Some(node) = node else { return Some(usual) };
    let section = Section::open(context, node, "self_journey", OWN_KEYS)?;
    let every = section.duration("every").unwrap_or(OWN_EVERY);
    if every < OWN_LEAST {
        let problem = format!("`every` is less than {}", Human(OWN_LEAST));
        context.add(Problem::error(section.place_of("every"), problem));
    }
    let doors = &[("public", Door::Public), ("listener", Door::Listener)];
    let door = section.get("through").and_then(|node| context.choice(node, "through", doors));
    section.bool("enabled", true).then_some(OwnPlan { every, door: door.unwrap_or(Door::Public) })
}

/// The journeys without which no switch is told that all is well, as they are written.
pub(super) fn required(dead_man: Option<&Node>) -> BTreeSet<String> {
    match dead_man.and_then(|node| node.get("requires")).map(|node| &node.data) {
        Some(Data::List(names)) => names.iter().filter_map(Node::as_text).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    }
}

fn dead_man(
    context: &Context,
    node: Option<&Node>,
    own: Option<OwnPlan>,
    journeys: &[Loaded],
) -> Option<DeadManSettings> {
    let node = node?;
    let section = Section::open(context, node, "dead_man", DEAD_MAN_KEYS)?;
    let every = section.duration("every").unwrap_or(DEAD_MAN_EVERY);
    match own {
        None => {
            let problem = Problem::error(&node.place, "nothing would ever call it: the self-journey is turned off");
            context.add(problem.hint("it is called from the end of that journey, and from nowhere else"));
        }
        Some(own) if own.every > every => {
            let problem = format!("the self-journey, which calls it, runs every {}", Human(own.every));
            context.add(Problem::warning(section.place_of("every"), problem).hint("make `every` of this one longer"));
        }
        Some(_) => {}
    }
    let mut requires = Vec::new();
    for (name, node) in section.strings("requires").unwrap_or_default() {
        match journeys.iter().find(|loaded| *loaded.journey.name == *name) {
            Some(loaded) if loaded.is_active => requires.push(loaded.journey.name.clone()),
            Some(_) => {
                let problem = Problem::error(&node.place, format!("`{name}` is not run, so it never passes"));
                context.add(problem.hint("enable it, or do not require it"));
            }
            // What is wrong with a journey that is not there may be told already.
            None if context.is_incomplete => {}
            None => {
                let known = journeys.iter().map(|loaded| &*loaded.journey.name);
                context.add(Problem::error(&node.place, no_journey(name, known)));
            }
        }
    }
    let hint = "the address that is called, as a secret; `urls` for several services";
    let (key, node) = section.only_one(&["url", "urls"], true, hint)?;
    let nodes = match key {
        "url" => vec![node],
        _ => context.list(node, key, "a list of URLs or secrets")?.iter().collect(),
    };
    if nodes.is_empty() {
        context.add(Problem::error(&node.place, "`urls` has no URL"));
    }
    let read = nodes.into_iter().map(|node| context.secret_url(node, key, &["https", "http"], is_key(node)));
    let read: Vec<_> = read.collect();
    let switches = read.into_iter().map(|read| Some(read?.0)).collect::<Option<Vec<_>>>()?;
    (!switches.is_empty()).then_some(DeadManSettings { switches, every, requires })
}

/// Whether an address that is written out has a key in it: whoever knows it can call in our place.
fn is_key(node: &Node) -> bool {
    let path = |text: &str| url::Url::parse(text).map(|url| url.path().to_owned()).unwrap_or_default();
    node.as_text().is_some_and(|text| path(text).split('/').any(|part| part.len() >= 16))
}

fn references(context: &Context, node: Option<&Node>) -> Vec<Reference> {
    let Some(section) = node.and_then(|node| Section::open(context, node, "observer", OBSERVER_KEYS)) else {
        return Vec::new();
    };
    section.require("reference", REFERENCE_HINT);
    let Some(texts) = section.strings("reference") else { return Vec::new() };
    let read: Vec<_> = texts.iter().filter_map(|(text, node)| reference(context, text, node)).collect();
    let mut hosts: Vec<_> = read.iter().map(ToString::to_string).collect();
    hosts.sort();
    hosts.dedup();
    if read.len() == texts.len() && hosts.len() < LEAST {
        let problem = format!("one endpoint alone says nothing about our network: name at least {LEAST}");
        context.add(Problem::error(section.place_of("reference"), problem).hint(REFERENCE_HINT));
    }
    read
}

fn reference(context: &Context, text: &str, node: &Node) -> Option<Reference> {
    let url = context.parsed_url(node, "reference", text, &["https", "http", "tcp"])?;
    if url.scheme() != "tcp" {
        return Some(Reference::Http(url));
    }
    let (host, port) = (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port());
    if port.is_none() {
        let problem = Problem::error(&node.place, format!("`{text}` has no port"));
        context.add(problem.hint(REFERENCE_HINT));
    }
    Some(Reference::Tcp { host, port: port? })
}
