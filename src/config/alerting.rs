//! `[alerting]` and `[[route]]`: who is told of what at which hour, and who when nobody looks after it.

use std::collections::BTreeMap;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::config::document::{Context, Data, Node, Section};
use crate::config::journeys::{Loaded, receivers};
use crate::config::lint;
use crate::config::notifiers::Notifier;
use crate::config::problem::{Place, Problem};
use crate::config::values::suggestion;
use crate::control::{Escalation, Hours, Matcher, Route};
use crate::incident::STORM;
use crate::incident::root::ResourceKind;
use crate::journey::Name;

pub(super) const KEYS: &[&str] = &["notify", "group_by", "digest_after"];
pub(super) const ROUTE_KEYS: &[&str] = &["match", "hours", "notify", "escalate", "continue"];
pub(super) const HOURS_KEYS: &[&str] = &["days", "from", "until", "timezone"];
pub(super) const ESCALATION_KEYS: &[&str] = &["after", "notify"];

const MATCH_HINT: &str = "as in `match = [\"tier=gold\", \"severity=critical\"]`; a word alone is a journey's name";
const DAYS_HINT: &str = "as in `days = [\"Mon\", \"Wed\"]` or `days = \"Mon-Fri\"`";
const WEEK: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];
/// What only an alert has, and no journey by itself.
const OF_ALERTS: &[&str] = &["subject", "channel", "severity", "detector"];

/// A route with what is needed to check it further.
pub(super) struct LoadedRoute {
    pub(super) route: Route,
    /// Where its conditions are.
    place: Place,
}

impl LoadedRoute {
    /// Whether it takes alerts of journeys with these labels, at some hour and of some severity.
    pub(super) fn may_take(&self, labels: &BTreeMap<String, String>) -> bool {
        let of_journey = |matcher: &&Matcher| !OF_ALERTS.contains(&matcher.label());
        let is_of_channel = self.route.matchers.iter().any(|matcher| matcher.label() == "channel");
        !is_of_channel && self.route.matchers.iter().filter(of_journey).all(|matcher| matcher.holds(labels))
    }
}

/// `[alerting]`: who is told of channels and of the daemon itself.
pub(super) fn operators(context: &Context, node: &Node, notifiers: &BTreeMap<Name, Notifier>) -> Option<Vec<Name>> {
    let section = Section::open(context, node, "alerting", KEYS)?;
    section.get("notify")?;
    Some(receivers(&section, notifiers))
}

/// `[alerting]`: what makes failing journeys members of one incident; everything, if nothing is said.
pub(super) fn group_by(context: &Context, node: Option<&Node>) -> Vec<ResourceKind> {
    let section = node.and_then(|node| Section::open(context, node, "alerting", KEYS));
    let Some(texts) = section.as_ref().and_then(|section| section.strings("group_by")) else {
        return ResourceKind::ALL.to_vec();
    };
    let known = || ResourceKind::ALL.iter().map(|kind| kind.as_str());
    let mut kinds = Vec::new();
    for (text, node) in texts {
        match text.parse() {
            Ok(kind) => kinds.push(kind),
            Err(_) => {
                let problem = Problem::error(&node.place, format!("journeys cannot be grouped by `{text}`"));
                let all = format!("by {}; `[]` is not at all", known().collect::<Vec<_>>().join(", "));
                context.add(problem.hint(suggestion(text, known()).unwrap_or(all)));
            }
        }
    }
    kinds
}

/// `[alerting]`: after how many incidents within a minute the others are told in one message.
pub(super) fn digest_after(context: &Context, node: Option<&Node>) -> usize {
    let section = node.and_then(|node| Section::open(context, node, "alerting", KEYS));
    section.and_then(|section| section.whole("digest_after", 1..=100_000)).map_or(STORM, |most| most as usize)
}

/// `[[route]]`, in their order.
pub(super) fn routes(context: &Context, node: Option<&Node>, notifiers: &BTreeMap<Name, Notifier>) -> Vec<LoadedRoute> {
    let list = node.and_then(|node| context.list(node, "route", "a list of tables: `[[route]]`"));
    let mut routes: Vec<LoadedRoute> = Vec::new();
    for node in list.unwrap_or_default() {
        let errors = context.error_count();
        let Some(loaded) = route(context, node, notifiers) else { continue };
        if let Some(before) = routes.iter().find(|before| before.route.hides(&loaded.route)) {
            let problem =
                Problem::error(&loaded.place, "this route is never asked: one before it takes all that it would");
            let problem = problem.also(&before.place, "this one");
            context.add(problem.hint("put the narrower route first, or say `continue = true` in the other one"));
        }
        // One with a mistake in it may take more than is meant.
        if context.error_count() == errors {
            routes.push(loaded);
        }
    }
    routes
}

fn route(context: &Context, node: &Node, notifiers: &BTreeMap<Name, Notifier>) -> Option<LoadedRoute> {
    let section = Section::open(context, node, "route", ROUTE_KEYS)?;
    let mut matchers = Vec::new();
    for (text, node) in section.strings("match").unwrap_or_default() {
        match Matcher::parse(text) {
            Ok(matcher) => matchers.push(matcher),
            Err(why) => context.add(Problem::error(&node.place, why).hint(MATCH_HINT)),
        }
    }
    section.require("notify", "who is told, as in `notify = [\"oncall\"]`; `[]` is nobody");
    let notify = receivers(&section, notifiers);
    let hours = section.get("hours").and_then(|node| hours(context, node));
    let mut told: Vec<(Name, Place)> =
        notify.iter().map(|name| (name.clone(), section.place_of("notify").clone())).collect();
    let what = "a list of tables: `[{ after = \"10m\", notify = [\"boss\"] }]`";
    let rungs = section.get("escalate").and_then(|node| context.list(node, "escalate", what)).unwrap_or_default();
    let is_nobody =
        section.get("notify").is_some_and(|node| matches!(&node.data, Data::List(items) if items.is_empty()));
    if let (Some(first), true) = (rungs.first(), is_nobody) {
        let problem = Problem::error(&first.place, "nobody is told at first, so nothing ever escalates");
        context.add(problem.hint("the time counts from the first notice"));
    }
    let escalate: Vec<_> = rungs.iter().filter_map(|node| escalation(context, node, notifiers, &mut told)).collect();
    if let Some((later, earlier)) =
        escalate.iter().skip(1).zip(&escalate).find(|(later, earlier)| later.after <= earlier.after)
    {
        let problem =
            format!("it escalates after {}, and then after {}", lint::told(earlier.after), lint::told(later.after));
        context.add(
            Problem::error(section.place_of("escalate"), problem).hint("each `after` counts from the first notice"),
        );
    }
    let place = section.place_of("match").clone();
    let goes_on = section.bool("continue", false);
    Some(LoadedRoute { route: Route { matchers, hours, notify, escalate, goes_on }, place })
}

fn escalation(
    context: &Context,
    node: &Node,
    notifiers: &BTreeMap<Name, Notifier>,
    told: &mut Vec<(Name, Place)>,
) -> Option<Escalation> {
    let section = Section::open(context, node, "escalate", ESCALATION_KEYS)?;
    section.require("after", "how long nobody has acknowledged, as in `after = \"10m\"`");
    section.require("notify", "who is told then, as in `notify = [\"boss\"]`");
    let notify = receivers(&section, notifiers);
    for name in &notify {
        match told.iter().find(|(other, _)| other == name) {
            Some((_, before)) => {
                let problem = format!("`{name}` has been told already when this escalates to it");
                let problem = Problem::error(section.place_of("notify"), problem).also(before, "here");
                context
                    .add(problem.hint("escalate to somebody else; `remind` of a journey tells the same people again"));
            }
            None => told.push((name.clone(), section.place_of("notify").clone())),
        }
    }
    Some(Escalation { after: section.duration("after")?, notify })
}

fn hours(context: &Context, node: &Node) -> Option<Hours> {
    let section = Section::open(context, node, "hours", HOURS_KEYS)?;
    let days = match section.get("days") {
        None => Some(WEEK.iter().map(|(_, day)| *day).collect()),
        Some(node) => days(context, node),
    };
    section.require("from", "when they begin, as in `from = \"09:00\"`");
    section.require("until", "when they end, as in `until = \"18:00\"`");
    let time = |key: &str| {
        let node = section.get(key)?;
        let text = context.text(node, key)?;
        // The end of a day is the beginning of the next.
        let parsed = if text == "24:00" { Some(Time::midnight()) } else { Time::strptime("%H:%M", text).ok() };
        if parsed.is_none() {
            let problem = Problem::error(&node.place, format!("`{text}` is not a time of day"));
            context.add(problem.hint("hours and minutes, as in \"09:00\""));
        }
        parsed
    };
    let (from, until) = (time("from"), time("until"));
    let zone = match section.text("timezone") {
        None => Some(TimeZone::UTC),
        Some(name) => {
            let zone = TimeZone::get(name).ok();
            if let (None, Some(node)) = (&zone, section.get("timezone")) {
                let problem = Problem::error(&node.place, format!("no time zone is named {name:?}"));
                context.add(problem.hint("IANA names, as in \"Europe/London\" or \"UTC\""));
            }
            zone
        }
    };
    Some(Hours { days: days?, from: from?, until: until?, zone: zone? })
}

/// Days by name, and ranges of them; a range may go over the end of the week.
fn days(context: &Context, node: &Node) -> Option<Vec<Weekday>> {
    let one = std::slice::from_ref(node);
    let items = match &node.data {
        Data::List(items) => items.as_slice(),
        Data::Text(_) => one,
        _ => {
            context
                .add(Problem::error(&node.place, format!("`days` must be days, not {}", node.kind())).hint(DAYS_HINT));
            return None;
        }
    };
    let mut days = Vec::new();
    for item in items {
        let text = context.text(item, "days")?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (day(context, item, first.trim())?, day(context, item, last.trim())?);
        let mut next = first;
        loop {
            if !days.contains(&next) {
                days.push(next);
            }
            if next == last {
                break;
            }
            next = next.next();
        }
    }
    if days.is_empty() {
        context.add(Problem::error(&node.place, "there is no day among `days`").hint(DAYS_HINT));
    }
    Some(days).filter(|days| !days.is_empty())
}

fn day(context: &Context, node: &Node, text: &str) -> Option<Weekday> {
    let found = WEEK.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, day)| *day);
    if found.is_none() {
        let problem = Problem::error(&node.place, format!("`{text}` is not a day of the week"));
        let hint = suggestion(text, WEEK.iter().map(|(name, _)| *name));
        context.add(problem.hint(hint.unwrap_or_else(|| DAYS_HINT.to_owned())));
    }
    found
}

/// Says which routes no journey will ever take.
pub(super) fn check_routes(context: &Context, routes: &[LoadedRoute], journeys: &[Loaded], location: Option<&str>) {
    let labels: Vec<_> = journeys.iter().map(|loaded| loaded.journey.alert_labels(location)).collect();
    for loaded in routes {
        let is_for_journeys =
            loaded.route.matchers.iter().all(|matcher| !["channel", "subject"].contains(&matcher.label()));
        if is_for_journeys && !labels.iter().any(|labels| loaded.may_take(labels)) {
            let problem = Problem::warning(&loaded.place, "no journey has what this route asks for");
            context.add(problem.hint("a journey has `journey`, `owner`, `location`, `critical` and its own labels"));
        }
    }
}
