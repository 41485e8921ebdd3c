//! `[drill]`: where drills are read back, and which are made by the calendar.

use std::collections::BTreeMap;

use crate::config::channels::Channel;
use crate::config::document::{Context, Node, Section};
use crate::config::journeys::{Loaded, calendar};
use crate::config::no_journey;
use crate::config::notifiers::Notifier;
use crate::config::problem::Problem;
use crate::config::values;
use crate::drill::{DrillSettings, Fault, LONGEST, WITHIN};
use crate::journey::Name;
use crate::time::Human;

pub(super) const KEYS: &[&str] = &["read_back", "within", "notify", "schedule", "timezone", "journeys", "faults"];

/// Reads it. What is wrong in a list is told, and left out.
pub(super) fn read(
    context: &Context,
    node: Option<&Node>,
    channels: &BTreeMap<Name, Channel>,
    notifiers: &BTreeMap<Name, Notifier>,
    journeys: &[Loaded],
) -> Option<DrillSettings> {
    let section = Section::open(context, node?, "drill", KEYS)?;
    let hint = "the channel that sees what people are told: an `imap`, `slack` or `webhook` channel";
    let read_back = section.require("read_back", hint).and_then(|node| read_back(context, node, channels));
    let within = section.duration("within").unwrap_or(WITHIN);
    if within > LONGEST {
        let problem = Problem::error(section.place_of("within"), format!("`within` is at most {}", Human(LONGEST)));
        context.add(problem);
    }
    let schedule = section.get("schedule").and_then(|_| calendar(&section, "schedule")).map(Box::new);
    let drilled = section.strings("journeys").unwrap_or_default();
    let drilled = drilled.into_iter().filter_map(|(name, node)| journey(context, name, node, journeys)).collect();
    let faults = section.strings("faults").unwrap_or_default();
    let faults: Vec<_> = faults.into_iter().filter_map(|(text, node)| fault(context, text, node)).collect();
    if section.get("schedule").is_some() {
        section.require("journeys", "the journeys that are drilled by the calendar");
        section.require("faults", "the faults that they are drilled with, as in `[\"drop\", \"delay=10s\"]`");
    } else {
        for useless in ["timezone", "journeys", "faults"] {
            if section.get(useless).is_some() {
                let problem = format!("`{useless}` does nothing without a `schedule`");
                context.add(Problem::warning(section.place_of(useless), problem));
            }
        }
    }
    let told = section.strings("notify").unwrap_or_default();
    let notify = told.into_iter().filter_map(|(name, node)| notifier(context, name, node, notifiers)).collect();
    Some(DrillSettings { read_back: read_back?, within, notify, schedule, journeys: drilled, faults })
}

fn read_back(context: &Context, node: &Node, channels: &BTreeMap<Name, Channel>) -> Option<Name> {
    let name = context.text(node, "read_back")?;
    let Some((name, channel)) = channels.get_key_value(name) else {
        let problem = Problem::error(&node.place, format!("no channel is named `{name}`"));
        context.add(problem.maybe_hint(values::suggestion(name, channels.keys().map(|name| &**name))));
        return None;
    };
    match (channel.kind, &channel.cannot_receive) {
        (Some(kind), _) if !kind.receives => {
            let problem = format!("channel `{name}` is of type `{}`, which cannot receive", kind.name);
            context.add(Problem::error(&node.place, problem).also(&channel.place, "defined here"));
            None
        }
        (_, Some((lacks, hint))) => {
            let problem = format!("channel `{name}` cannot receive: it has no `{lacks}`");
            context.add(Problem::error(&node.place, problem).hint(hint.clone()));
            None
        }
        _ => Some(name.clone()),
    }
}

fn journey(context: &Context, name: &str, node: &Node, journeys: &[Loaded]) -> Option<Name> {
    match journeys.iter().find(|loaded| *loaded.journey.name == *name) {
        Some(loaded) => Some(loaded.journey.name.clone()),
        // What is wrong with a journey that is not there may be told already.
        None if context.is_incomplete => None,
        None => {
            let known = journeys.iter().map(|loaded| &*loaded.journey.name);
            context.add(Problem::error(&node.place, no_journey(name, known)));
            None
        }
    }
}

fn fault(context: &Context, text: &str, node: &Node) -> Option<Fault> {
    text.parse().map_err(|why| context.add(Problem::error(&node.place, why))).ok()
}

fn notifier(context: &Context, name: &str, node: &Node, notifiers: &BTreeMap<Name, Notifier>) -> Option<Name> {
    if notifiers.contains_key(name) {
        return Some(name.into());
    }
    let problem = Problem::error(&node.place, format!("no notifier is named `{name}`"));
    context.add(problem.maybe_hint(values::suggestion(name, notifiers.keys().map(|name| &**name))));
    None
}
