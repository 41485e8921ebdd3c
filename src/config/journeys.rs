//! `[[journey]]`: schedule, limits, objective, alert policy, receivers.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config::alerting::LoadedRoute;
use crate::config::channels::Channel;
use crate::config::document::{Context, Data, IDENTIFIER_HINT, NAME_HINT, Node, Section, is_identifier, is_name};
use crate::config::merge::{Fragments, Variant, merge, variants};
use crate::config::notifiers::Notifier;
use crate::config::problem::{Place, Problem};
use crate::config::steps::Steps;
use crate::config::{dependencies, fingerprint, lint, locations, values};
use crate::journey::objective::{Period, PeriodUnit, USUAL_START, USUAL_WINDOW, Window};
use crate::journey::schedule::{Calendar, Schedule};
use crate::journey::{AlertPolicy, Journey, Name, Objective};

pub(super) const KEYS: &[&str] = &[
    "name",
    "every",
    "cron",
    "timezone",
    "budget",
    "deadline",
    "late",
    "objective",
    "alert",
    "notify",
    "owner",
    "runbook",
    "labels",
    "depends_on",
    "muted",
    "critical",
    "enabled",
    "locations",
    "quorum",
    "matrix",
    "use",
    "step",
];
/// What makes a journey this one rather than another.
const NOT_BY_DEFAULT: &[&str] = &["name", "step", "matrix", "use"];
pub(super) const OBJECTIVE_KEYS: &[&str] =
    &["delivered", "in_budget", "window", "calendar", "timezone", "start", "late"];
pub(super) const ALERT_KEYS: &[&str] =
    &["down_after", "slow_after", "recover_after", "remind", "partial", "confirm", "flapping", "drift"];

/// A run lasts this long at most if nothing is said about it.
const DEADLINE: Duration = Duration::from_secs(30);
/// Nothing is waited or listened for longer: the ledger of tokens would grow without end.
const LONGEST: Duration = Duration::from_secs(86_400);
/// More often than this is load, not monitoring.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const PERIODS: [(&str, PeriodUnit); 3] =
    [("week", PeriodUnit::Week), ("month", PeriodUnit::Month), ("quarter", PeriodUnit::Quarter)];
const REMIND: Duration = Duration::from_secs(4 * 3_600);
/// A failed run of a journey that runs every two minutes or less often is confirmed so long after it, and again after that.
const CONFIRM: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];

/// What journeys refer to.
pub(super) struct Catalog<'a> {
    pub(super) channels: &'a BTreeMap<Name, Channel>,
    pub(super) notifiers: &'a BTreeMap<Name, Notifier>,
    pub(super) routes: &'a [LoadedRoute],
    /// Journeys that the dead man's switch requires, as they are written.
    pub(super) required: BTreeSet<String>,
    pub(super) fragments: Fragments,
    pub(super) defaults: Option<&'a Node>,
    pub(super) location: Option<&'a str>,
    /// Whether daemons share the journeys.
    pub(super) shares: bool,
    /// A step asks a whole address.
    pub(super) needs_implicit: Cell<bool>,
    /// Whether journeys may run programs.
    pub(super) allow_exec: bool,
    /// Whether one does.
    pub(super) needs_exec: Cell<bool>,
}

/// A journey with what is needed to check it further.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) journey: Journey,
    /// The definition with defaults, fragment and matrix worked in.
    pub(super) node: Node,
    /// Its steps, with their fragments.
    pub(super) steps: Vec<Node>,
    /// Where its name is.
    pub(super) place: Place,
    /// Neither disabled nor for other locations.
    pub(super) is_active: bool,
}

/// Reads the journeys of all files.
pub(super) fn read<'a>(
    context: &Context,
    catalog: &Catalog<'_>,
    tables: impl Iterator<Item = &'a Node>,
) -> Vec<Loaded> {
    let allowed: Vec<_> = KEYS.iter().copied().filter(|key| !NOT_BY_DEFAULT.contains(key)).collect();
    if let Some(defaults) = catalog.defaults {
        let _ = Section::open_or(context, defaults, "defaults", &allowed, |key| {
            KEYS.contains(&key).then(|| "every journey has its own".to_owned())
        });
    }
    let mut journeys = Vec::new();
    for node in
        tables.flat_map(|list| context.list(list, "journey", "a list of tables: `[[journey]]`").unwrap_or_default())
    {
        if context.table(node, "journey").is_none() {
            continue;
        }
        let node = catalog.fragments.apply(context, node);
        let node = catalog.defaults.map_or_else(|| node.clone(), |defaults| merge(&node, defaults));
        journeys.extend(variants(context, node).into_iter().flat_map(|variant| journey(context, catalog, variant)));
    }
    let mut seen: BTreeMap<Name, Place> = BTreeMap::new();
    for loaded in journeys.iter().filter(|loaded| !loaded.journey.name.is_empty()) {
        context.check_own(&loaded.journey.name, &loaded.place);
        if let Some(other) = seen.insert(loaded.journey.name.clone(), loaded.place.clone()) {
            let problem = Problem::error(&loaded.place, format!("two journeys are named `{}`", loaded.journey.name));
            context.add(problem.also(&other, "the other one"));
        }
    }
    journeys
}

/// The journey, and what each of its places sees of it.
fn journey(context: &Context, catalog: &Catalog<'_>, variant: Variant) -> Vec<Loaded> {
    let errors = context.error_count();
    let Some(section) = Section::open(context, &variant.node, "journey", KEYS) else { return Vec::new() };
    let name = name(&section, &variant.values);
    let place = section.get("name").map_or(&section.node.place, |node| &node.place).clone();
    let schedule = schedule(&section, &name);
    let budget = section.duration("budget");
    let default = budget.map_or(DEADLINE, |budget| budget.saturating_mul(10).max(DEADLINE)).min(LONGEST);
    let deadline = limit(&section, "deadline").unwrap_or(default);
    let late = limit(&section, "late");
    if let Some(late) = late.filter(|late| *late < deadline) {
        let problem = format!("`late` ({}) is before the deadline ({})", lint::told(late), lint::told(deadline));
        context.add(
            Problem::error(section.place_of("late"), problem).hint("it counts from the send, as the deadline does"),
        );
    }
    let objective = section.get("objective").and_then(|node| objective(context, node));
    let alert = alert(context, section.get("alert"), &schedule);
    let notify = receivers(&section, catalog.notifiers);
    let labels = labels(&section, &variant.values);
    let (is_enabled, muted) = (section.bool("enabled", true), section.bool("muted", false));
    let from = locations::read(&section, catalog, &name);
    let is_active = is_enabled && !matches!(from, locations::From::Elsewhere);
    let nodes: Vec<Node> = section
        .require("step", "what it does: one `[[journey.step]]` or more")
        .and_then(|node| context.list(node, "step", "a list of tables: `[[journey.step]]`"))
        .unwrap_or_default()
        .iter()
        .map(|node| catalog.fragments.apply(context, node))
        .collect();
    if section.get("step").is_some_and(|node| matches!(&node.data, Data::List(items) if items.is_empty())) {
        context.add(Problem::error(section.place_of("step"), "a journey has at least one step"));
    }
    let mut reader = Steps::new(context, catalog);
    let steps = reader.read(&nodes);
    let unavailable = reader.unavailable.into_iter().next();
    if let (Some(reason), true) = (&unavailable, is_enabled) {
        let problem = Problem::warning(&place, format!("journey `{name}` cannot run: {reason}"));
        context.add(
            problem.hint(
                "its slots will be `unknown`, and people are told that it is stale; `enabled = false` puts it away",
            ),
        );
    }
    let text = |key: &str| section.text(key).map(str::to_owned);
    let journey = Journey {
        schedule: schedule.unwrap_or_else(|| Schedule::every(Duration::from_secs(60), &name)),
        name: name.as_str().into(),
        budget,
        deadline,
        late: late.unwrap_or_else(|| deadline.saturating_mul(10).min(LONGEST)),
        objective,
        alert,
        notify,
        owner: text("owner"),
        runbook: text("runbook"),
        labels,
        depends_on: dependencies::of_journey(&section),
        muted,
        critical: section.bool("critical", false),
        steps,
        maintenance: Vec::new(),
        vantage: None,
        unavailable,
        defined_at: format!("{}:{}", variant.node.place.source().name(), variant.node.place.line()),
        // The steps as they come to be with their fragments.
        fingerprint: fingerprint::of(nodes.iter().chain([&variant.node])),
    };
    let is_nobody_named =
        section.get("notify").is_none_or(|node| matches!(&node.data, Data::List(items) if items.is_empty()));
    let routed = journey.alert_labels(catalog.location);
    if is_enabled && !muted && is_nobody_named && !catalog.routes.iter().any(|route| route.may_take(&routed)) {
        let problem = Problem::warning(&place, format!("nobody is told when `{name}` fails"));
        let hint =
            "`notify = [\"…\"]` in the journey or in [defaults], or a [[route]]; `muted = true` if that is meant";
        context.add(problem.hint(hint));
    }
    let loaded = Loaded { journey, steps: nodes, place, is_active, node: variant.node };
    if context.error_count() == errors {
        lint::journey(context, catalog, &loaded);
    }
    match from {
        locations::From::Here | locations::From::Elsewhere => vec![loaded],
        locations::From::Places(places, quorum) => locations::expand(loaded, &places, quorum),
    }
}

/// The name with a matrix's values: `checkout-api[eu]`.
fn name(section: &Section<'_>, values: &[(String, String)]) -> String {
    let Some(node) = section.require("name", "the name of the journey, as in `name = \"sms-round-trip\"`") else {
        return String::new();
    };
    let Some(name) = section.context.text(node, "name") else { return String::new() };
    if !is_name(name) {
        let problem = Problem::error(&node.place, format!("`{name}` cannot be a name"));
        section.context.add(problem.hint(NAME_HINT));
    }
    if values.is_empty() {
        return name.to_owned();
    }
    let values: Vec<_> = values.iter().map(|(_, value)| value.as_str()).collect();
    format!("{name}[{}]", values.join(","))
}

fn schedule(section: &Section<'_>, name: &str) -> Option<Schedule> {
    let context = section.context;
    let (key, node) = section.only_one(
        &["every", "cron"],
        true,
        "`every = \"1m\"`, or `cron = \"*/5 * * * *\"` with a `timezone`",
    )?;
    if key == "every" {
        if section.get("timezone").is_some() {
            context.add(Problem::warning(section.place_of("timezone"), "`timezone` does nothing without `cron`"));
        }
        let every = context.duration(node, key)?;
        if every < SHORTEST_INTERVAL {
            let problem = Problem::error(&node.place, format!("`every` is at least {}", lint::told(SHORTEST_INTERVAL)));
            context.add(problem);
            return None;
        }
        return Some(Schedule::every(every, name));
    }
    calendar(section, "cron").map(|calendar| Schedule::Cron(Box::new(calendar)))
}

/// The calendar of a section's `cron` and `timezone`.
pub(super) fn calendar(section: &Section<'_>, key: &str) -> Option<Calendar> {
    let context = section.context;
    let mut zone = section.text("timezone").unwrap_or("UTC");
    if let Err(reason) = Calendar::parse("* * * * *", zone) {
        let problem = Problem::error(section.get("timezone").map_or(&section.node.place, |node| &node.place), reason);
        context.add(problem.hint("IANA names, as in \"Europe/London\" or \"UTC\""));
        zone = "UTC";
    }
    let node = section.get(key)?;
    let text = context.text(node, key)?;
    match Calendar::parse(text, zone) {
        Ok(calendar) if calendar.next(lint::REFERENCE).is_none() => {
            context.add(Problem::error(&node.place, format!("`{text}` never comes")));
            None
        }
        Ok(calendar) => Some(calendar),
        Err(reason) => {
            let problem = Problem::error(&node.place, format!("`{text}` is not a cron expression: {reason}"));
            context.add(problem.hint("minute, hour, day, month, weekday, as in \"*/5 * * * *\""));
            None
        }
    }
}

/// A length of time that something is waited for.
fn limit(section: &Section<'_>, key: &str) -> Option<Duration> {
    let found = section.duration(key)?;
    if found > LONGEST {
        let place = section.get(key).map_or(&section.node.place, |node| &node.place);
        section.context.add(Problem::error(place, format!("`{key}` is at most 24h")));
    }
    Some(found)
}

fn objective(context: &Context, node: &Node) -> Option<Objective> {
    let section = Section::open(context, node, "objective", OBJECTIVE_KEYS)?;
    section.require("delivered", "the share of runs that must be delivered, as in \"99.5%\"");
    let (delivered, in_budget) = (section.share("delivered"), section.share("in_budget"));
    let late_is_good =
        section.get("late").and_then(|node| context.choice(node, "late", &[("bad", false), ("good", true)]));
    for (key, share) in [("delivered", delivered), ("in_budget", in_budget)] {
        if share == Some(0.0) {
            context.add(Problem::error(section.place_of(key), format!("`{key}` of 0% promises nothing")));
        }
    }
    let window = window(&section);
    Some(Objective { delivered: delivered?, in_budget, window, late_is_good: late_is_good.unwrap_or(false) })
}

/// The time over which an objective is promised.
fn window(section: &Section<'_>) -> Window {
    let context = section.context;
    let hint = "a rolling `window = \"30d\"`, or `calendar = \"month\"` with a `timezone`";
    let chosen = section.only_one(&["window", "calendar"], false, hint);
    let Some(("calendar", node)) = chosen else {
        for key in ["timezone", "start"].into_iter().filter(|key| section.get(key).is_some()) {
            let problem = Problem::error(section.place_of(key), format!("`{key}` says nothing without `calendar`"));
            context.add(problem.hint("a rolling window begins so long ago, whatever the day"));
        }
        return section.duration("window").unwrap_or(USUAL_WINDOW).into();
    };
    let unit = context.choice(node, "calendar", &PERIODS);
    Window::Calendar(Box::new(Period {
        unit: unit.unwrap_or(PeriodUnit::Month),
        zone: zone(section),
        start: section.get("start").and_then(|node| start(context, node)).unwrap_or(USUAL_START),
    }))
}

/// The day on which one of the periods begins: a TOML date, or the same as a string.
fn start(context: &Context, node: &Node) -> Option<Date> {
    let (Data::Text(text) | Data::Datetime(text)) = &node.data else {
        context.expected(node, "start", "a date");
        return None;
    };
    let date = text.parse().ok().filter(|_| text.len() == 10);
    if date.is_none() {
        let problem = Problem::error(&node.place, format!("`{text}` is not a date"));
        context.add(problem.hint("a day on which a period begins, as in `start = 2026-01-05`"));
    }
    date
}

/// The section's `timezone`; UTC if it has none.
fn zone(section: &Section<'_>) -> TimeZone {
    let name = section.text("timezone").unwrap_or("UTC");
    TimeZone::get(name).unwrap_or_else(|_| {
        let problem = Problem::error(section.place_of("timezone"), format!("no time zone is named {name:?}"));
        section.context.add(problem.hint("IANA names, as in \"Europe/London\" or \"UTC\""));
        TimeZone::UTC
    })
}

fn alert(context: &Context, node: Option<&Node>, schedule: &Option<Schedule>) -> AlertPolicy {
    let is_frequent =
        schedule.as_ref().is_some_and(|schedule| lint::least_interval(schedule) < Duration::from_secs(120));
    let default = AlertPolicy {
        down_after: if is_frequent { 3 } else { 2 },
        confirm: if is_frequent { Vec::new() } else { CONFIRM.to_vec() },
        partial: true,
        drift: true,
        flapping: true,
        slow_after: 3,
        recover_after: 2,
        remind: Some(REMIND),
    };
    let Some(section) = node.and_then(|node| Section::open(context, node, "alert", ALERT_KEYS)) else { return default };
    let count = |key: &str, default: u32| section.whole(key, 1..=1_000).map_or(default, |count| count as u32);
    let remind = section.duration_or_never("remind", default.remind);
    let confirm = match section.strings("confirm") {
        Some(texts) => texts.into_iter().filter_map(|(_, node)| context.duration(node, "confirm")).collect(),
        // Whoever says how many runs in a row it takes means that many.
        None if section.get("down_after").is_some() => Vec::new(),
        None => default.confirm,
    };
    AlertPolicy {
        down_after: count("down_after", default.down_after),
        confirm,
        partial: section.bool("partial", true),
        drift: section.bool("drift", true),
        flapping: section.bool("flapping", true),
        slow_after: count("slow_after", default.slow_after),
        recover_after: count("recover_after", default.recover_after),
        remind,
    }
}

/// The notifiers that `notify` names, each once.
pub(super) fn receivers(section: &Section<'_>, notifiers: &BTreeMap<Name, Notifier>) -> Vec<Name> {
    let mut notify: Vec<Name> = Vec::new();
    for (text, node) in section.strings("notify").unwrap_or_default() {
        match notifiers.get_key_value(text) {
            Some((name, _)) if notify.contains(name) => {
                section
                    .context
                    .add(Problem::warning(&node.place, format!("`{text}` is told once, though named twice")));
            }
            Some((name, _)) => notify.push(name.clone()),
            None => {
                let problem = Problem::error(&node.place, format!("no notifier is named `{text}`"));
                let hint = values::suggestion(text, notifiers.keys().map(|name| &**name));
                section.context.add(problem.hint(hint.unwrap_or_else(|| format!("define it: `[notifiers.{text}]`"))));
            }
        }
    }
    notify
}

fn labels(section: &Section<'_>, values: &[(String, String)]) -> BTreeMap<String, String> {
    let context = section.context;
    let mut labels: BTreeMap<String, String> = values.iter().cloned().collect();
    for entry in section.get("labels").and_then(|node| context.table(node, "labels")).unwrap_or_default() {
        if !is_identifier(&entry.key) {
            let problem = Problem::error(&entry.key_place, format!("`{}` cannot be the name of a label", entry.key));
            context.add(problem.hint(IDENTIFIER_HINT));
        }
        if let Some(text) = context.text(&entry.value, &entry.key) {
            labels.insert(entry.key.clone(), text.to_owned());
        }
    }
    labels
}
