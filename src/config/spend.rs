//! `spend` of a channel: what its messages may cost in a day, and what the schedules make of that.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::config::channels::Channel;
use crate::config::document::{Context, Data, Node, Section};
use crate::config::journeys::Loaded;
use crate::config::lint;
use crate::config::problem::Problem;
use crate::journey::schedule::Schedule;
use crate::journey::spend::{self, Money, SpendLimit};
use crate::journey::{Journey, Name};

pub(super) const KEYS: &[&str] = &["cost", "per_day", "messages_per_day", "timezone"];

const HINT: &str =
    "`spend = { cost = 0.045, per_day = 10.00 }` in any one currency, or `spend = { messages_per_day = 200 }`";
const DAY: Duration = Duration::from_secs(86_400);

/// The limit, if it is in order.
pub(super) fn read(context: &Context, node: &Node) -> Option<SpendLimit> {
    let section = Section::open(context, node, "spend", KEYS)?;
    let zone = match section.text("timezone") {
        None => TimeZone::UTC,
        Some(name) => match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(_) => {
                context.add(Problem::error(section.place_of("timezone"), format!("no time zone is named {name:?}")));
                return None;
            }
        },
    };
    let (key, _) = section.only_one(&["per_day", "messages_per_day"], true, HINT)?;
    if key == "messages_per_day" {
        if section.get("cost").is_some() {
            let problem = Problem::error(section.place_of("cost"), "`cost` does nothing with `messages_per_day`");
            context.add(problem.hint(HINT));
            return None;
        }
        let messages = section.whole("messages_per_day", 1..=1_000_000_000)?;
        return Some(SpendLimit { messages, money: None, zone });
    }
    section.require("cost", "what one message costs, in the same currency")?;
    let (cost, per_day) = (amount(&section, "cost"), amount(&section, "per_day"));
    let (cost, per_day) = (cost?, per_day?);
    let messages = per_day.pays_for(cost);
    if messages == 0 {
        let problem = format!("{per_day} a day does not pay for one message at {cost}");
        context.add(Problem::error(section.place_of("per_day"), problem));
        return None;
    }
    Some(SpendLimit { messages, money: Some((cost, per_day)), zone })
}

fn amount(section: &Section<'_>, key: &str) -> Option<Money> {
    let node = section.get(key)?;
    let money = match &node.data {
        Data::Integer(text) | Data::Float(text) => Money::parse(text).filter(|money| !money.is_zero()),
        _ => None,
    };
    if money.is_none() {
        let problem = Problem::error(&node.place, format!("`{key}` must be an amount above zero"));
        section.context.add(problem.hint("write digits, of which at most nine follow the point, as in 0.045"));
    }
    money
}

/// What these journeys' schedules would spend through the channel, where that is more than they may.
pub(super) fn check(context: &Context, name: &Name, channel: &Channel, journeys: &[Loaded]) {
    let Some((limit, node)) =
        channel.plan.as_ref().and_then(|plan| plan.policy.spend.as_ref()).zip(channel.spend.as_ref())
    else {
        return;
    };
    let active: Vec<&Journey> =
        journeys.iter().filter(|loaded| loaded.is_active).map(|loaded| &loaded.journey).collect();
    let demands = spend::demands(name, limit, &active);
    if demands.is_empty() {
        let problem =
            Problem::warning(&node.place, format!("no journey sends through `{name}`: there is nothing to limit"));
        context.add(problem.hint("only `send` steps count; requests and checks cost nothing here"));
        return;
    }
    let least: u64 = demands.values().map(|demand| demand.per_run).sum();
    if least > limit.messages {
        let problem = format!(
            "one run of {} sends {}, and {} may go out in a day",
            all_of(demands.len()),
            messages(least),
            limit.messages
        );
        context.add(Problem::error(&node.place, problem).hint("raise the limit, or let fewer journeys send"));
        return;
    }
    let demand: u64 = demands.values().map(|demand| demand.per_day).sum();
    let slowdown = spend::slowdown(demand, limit.messages);
    if slowdown <= 1.0 {
        return;
    }
    let schedules = demands.keys().filter_map(|name| active.iter().find(|journey| journey.name == *name));
    let schedules: Vec<_> = schedules.map(|journey| pace(journey, slowdown)).collect();
    let (would, with) = match limit.money {
        Some((cost, per_day)) => {
            (format!("{} a day would cost {}", messages(demand), cost.times(demand)), format!("{per_day} a day"))
        }
        None => (format!("there would be {} a day", messages(demand)), format!("{} a day", messages(limit.messages))),
    };
    let problem = match &schedules[..] {
        [(_, usual, real)] => format!("at {usual}, {would}; with {with} it runs {real}"),
        all => {
            let all: Vec<_> = all.iter().map(|(name, _, real)| format!("`{name}` {real}")).collect();
            format!("{would}; with {with}, {}", all.join(", "))
        }
    };
    let problem = Problem::warning(&node.place, problem);
    context.add(problem.hint(
        "runs are spread evenly over the day, and what is left out is `excluded`; \
        to say so in the schedule instead, lengthen `every`",
    ));
    for loaded in journeys.iter().filter(|loaded| loaded.is_active && demands.contains_key(&loaded.journey.name)) {
        lint::objective_of_rarer_runs(context, loaded, slowdown);
    }
}

/// A journey's name, its schedule, and how often it really runs.
fn pace(journey: &Journey, slowdown: f64) -> (Name, String, String) {
    let (usual, real) = match &journey.schedule {
        Schedule::Every { every, .. } => {
            let real = Duration::from_secs_f64((every.as_secs_f64() * slowdown).min(DAY.as_secs_f64()).round());
            (format!("every {}", lint::told(*every)), format!("about every {}", lint::told(real)))
        }
        Schedule::Cron(_) => ("its busiest".to_owned(), format!("about {} times as seldom", lint::round(slowdown, 1))),
    };
    (journey.name.clone(), usual, real)
}

fn all_of(journeys: usize) -> String {
    match journeys {
        1 => "the journey".to_owned(),
        more => format!("each of the {more} journeys"),
    }
}

/// `1,440 messages`
fn messages(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
    format!("{groups} message{}", if count == 1 { "" } else { "s" })
}
