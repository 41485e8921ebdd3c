//! `[[maintenance]]`: windows by the calendar and single ones, and the journeys that they are for.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::config::document::{Context, Data, Node, Section};
use crate::config::journeys::{Loaded, calendar};
use crate::config::problem::{Place, Problem};
use crate::config::{files, lint};
use crate::journey::{Maintenance, MaintenanceTime};
use crate::time::{between, later};

pub(super) const KEYS: &[&str] =
    &["name", "journeys", "cron", "timezone", "lasts", "from", "until", "exclude_from_slo"];

const WHEN_HINT: &str =
    "`cron = \"0 2 * * SUN\"` for windows that come again, `from = 2026-12-01T22:00:00Z` for a single one";
const TIME_HINT: &str = "with its offset, as in 2026-12-01T22:00:00Z, or as in \"2026-12-01T22:00\" with a `timezone`";

/// Gives each window to the journeys that it names.
pub(super) fn read(context: &Context, node: Option<&Node>, journeys: &mut [Loaded]) {
    let list = node.and_then(|node| context.list(node, "maintenance", "a list of tables: `[[maintenance]]`"));
    for node in list.unwrap_or_default() {
        let Some(section) = Section::open(context, node, "maintenance", KEYS) else { continue };
        section.require("name", "what it is, for people");
        section.require("journeys", "the names of journeys, or patterns as in `[\"sms-*\"]`");
        let maintenance = maintenance(&section);
        for (pattern, node) in section.strings("journeys").unwrap_or_default() {
            let mut matched =
                journeys.iter_mut().filter(|loaded| files::matches(pattern, &loaded.journey.name)).peekable();
            if matched.peek().is_none() && !context.is_incomplete {
                let problem = Problem::warning(&node.place, format!("no journey's name matches `{pattern}`"));
                context.add(problem);
            }
            let Some(maintenance) = &maintenance else { continue };
            for loaded in matched {
                let windows = &mut loaded.journey.maintenance;
                // Two patterns of one window may name the same journey.
                if windows.last().is_none_or(|last| last.name != maintenance.name) {
                    windows.push(maintenance.clone());
                }
            }
        }
    }
}

fn maintenance(section: &Section<'_>) -> Option<Maintenance> {
    let name = section.text("name");
    let exclude_from_slo = section.bool("exclude_from_slo", true);
    let time = match section.only_one(&["cron", "from"], true, WHEN_HINT) {
        Some(("cron", _)) => recurring(section),
        Some((_, from)) => once(section, from),
        None => None,
    };
    Some(Maintenance { name: name?.to_owned(), time: time?, exclude_from_slo })
}

fn recurring(section: &Section<'_>) -> Option<MaintenanceTime> {
    let context = section.context;
    section.require("lasts", "how long a window is, as in \"2h\"");
    if section.get("until").is_some() {
        let problem = Problem::error(section.place_of("until"), "`until` does nothing beside `cron`");
        context.add(problem.hint("`lasts` says how long each window is"));
    }
    let lasts = section.duration("lasts");
    let begins = calendar(section, "cron")?;
    let first = begins.next(lint::REFERENCE).unwrap_or(Timestamp::MAX);
    let second = begins.next(first).unwrap_or(Timestamp::MAX);
    if let Some(lasts) = lasts.filter(|lasts| between(first, second) <= *lasts) {
        let place: &Place = section.place_of("lasts");
        let problem = format!("a window lasts {}, and the next one begins before it ends", lint::told(lasts));
        context.add(Problem::warning(place, problem).hint("there is never a time without maintenance"));
    }
    Some(MaintenanceTime::Recurring { begins: Box::new(begins), lasts: lasts? })
}

fn once(section: &Section<'_>, from: &Node) -> Option<MaintenanceTime> {
    let zone = match section.text("timezone").map(TimeZone::get) {
        Some(Err(_)) => {
            let node = section.get("timezone")?;
            let problem = format!("no time zone is named {:?}", node.as_text().unwrap_or_default());
            let problem = Problem::error(&node.place, problem);
            section.context.add(problem.hint("IANA names, as in \"Europe/London\" or \"UTC\""));
            None
        }
        Some(Ok(zone)) => Some(zone),
        None => Some(TimeZone::UTC),
    };
    let hint = "when it ends: `until = 2026-12-02T02:00:00Z` or `lasts = \"4h\"`";
    let (key, node) = section.only_one(&["until", "lasts"], true, hint)?;
    let from = time(section.context, from, "from", zone.as_ref());
    let until = match key {
        "until" => time(section.context, node, key, zone.as_ref()),
        _ => section.duration(key).and_then(|lasts| Some(later(from?, lasts))),
    };
    let (from, until) = (from?, until?);
    if until <= from {
        let problem = Problem::error(&node.place, "it ends before it begins");
        section.context.add(problem.also(section.place_of("from"), "this is its beginning"));
        return None;
    }
    Some(MaintenanceTime::Once { from, until })
}

/// A moment, as TOML writes it or in quotes; without an offset it is read in `zone`, `None` being one that is not known.
fn time(context: &Context, node: &Node, key: &str, zone: Option<&TimeZone>) -> Option<Timestamp> {
    let (Data::Text(text) | Data::Datetime(text)) = &node.data else {
        context.expected(node, key, "a date and time");
        return None;
    };
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let Ok(local) = text.parse::<DateTime>() else {
        let problem = Problem::error(&node.place, format!("`{text}` is not a date and time"));
        context.add(problem.hint(TIME_HINT));
        return None;
    };
    local.to_zoned(zone?.clone()).ok().map(|zoned| zoned.timestamp())
}
