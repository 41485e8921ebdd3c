//! Where objectives stand, read from the store beside a running daemon or without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Plan, no_journey, some_of};
use crate::exit::{self, Failure};
use crate::journey::outcome::Verdict;
use crate::journey::{Journey, Name};
use crate::slo::{self, History, Hop, JourneySlo};
use crate::time::earlier;

/// A run that was due this long ago beyond its deadline is written; one that is not was never run.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// Slots that are looked up at most when the daemon has been away for long.
const MISSED_SLOTS: usize = 100_000;

/// Where the objectives of these journeys stand at `now`. `seen` is told which share of the work is done.
///
/// # Errors
/// There is no store, or it cannot be read.
pub fn read(
    plan: &Plan,
    chosen: &[&Arc<Journey>],
    now: Timestamp,
    seen: &mut dyn FnMut(f64),
) -> Result<Vec<JourneySlo>, Failure> {
    if !plan.store.home.may_be_there() {
        let home = &plan.store.home;
        let message = format!("there is no store at {home}: the daemon makes it at its first start (`journeyman run`)");
        return Err(Failure::new(exit::IO, message));
    }
    let all: Vec<Name> = plan.journeys.iter().map(|journey| journey.name.clone()).collect();
    // Each is read, made a history, and, if it is chosen, judged.
    let (mut done, work) = (0, 2 * all.len() + chosen.len());
    let mut step = || {
        done += 1;
        seen(f64::from(done) / work as f64);
    };
    let spans = plan.store.home.spans(&all, &mut step);
    let mut spans = spans.map_err(|error| super::store_failure(plan, &error))?;
    let histories: BTreeMap<Name, (Arc<Journey>, History)> = plan
        .journeys
        .iter()
        .map(|journey| {
            step();
            let spans = spans.remove(&journey.name).unwrap_or_default();
            (journey.name.clone(), (journey.clone(), history(journey, spans, now)))
        })
        .collect();
    let stand = |journey: &&Arc<Journey>| {
        step();
        stands(plan, journey, &histories, now)
    };
    Ok(chosen.iter().filter_map(stand).collect())
}

/// The journeys of these names; all that have an objective if none is named.
///
/// # Errors
/// A name that no journey with an objective has.
pub fn chosen<'a>(plan: &'a Plan, names: &[String]) -> Result<Vec<&'a Arc<Journey>>, Failure> {
    let promising = || plan.journeys.iter().filter(|journey| journey.objective.is_some());
    if names.is_empty() {
        return match promising().next() {
            Some(_) => Ok(promising().collect()),
            None => {
                Err(Failure::new(exit::USAGE, "no journey has an objective: `objective = { delivered = \"99%\" }`"))
            }
        };
    }
    let find = |name: &String| {
        let found = plan.journeys.iter().find(|journey| *journey.name == **name);
        let with: Vec<_> = promising().map(|journey| &*journey.name).collect();
        let problem = match found {
            Some(journey) if journey.objective.is_some() => return Ok(journey),
            Some(_) => format!("journey `{name}` has no objective; these have: {}", some_of(&with)),
            None => no_journey(name, plan.journeys.iter().map(|journey| &*journey.name)),
        };
        Err(Failure::new(exit::USAGE, problem))
    };
    names.iter().map(find).collect()
}

/// What the store has, and what was not run since: those slots are unknown, as they will be when the daemon comes back.
fn history(journey: &Journey, spans: Vec<slo::Span>, now: Timestamp) -> History {
    let mut history = History::new(journey.window(), spans, now);
    if let Some(last) = history.last_slot() {
        let until = earlier(now, journey.deadline + journey.schedule.interval(now) + WRITTEN_WITHIN);
        for slot in journey.schedule.slots(last, until, MISSED_SLOTS) {
            if journey.is_excluded(slot) {
                history.observe_excluded(slot, Verdict::Unknown);
            } else {
                history.observe(slot, Verdict::Unknown);
            }
        }
    }
    history.advance(now);
    history
}

fn stands(
    plan: &Plan,
    journey: &Arc<Journey>,
    histories: &BTreeMap<Name, (Arc<Journey>, History)>,
    now: Timestamp,
) -> Option<JourneySlo> {
    let objective = journey.objective.as_ref()?;
    let (_, history) = histories.get(&journey.name)?;
    let hops = journey.depends_on.iter().filter_map(|name| {
        let measured = histories.get(name).map(|(journey, history)| Hop::measured(journey, history));
        let promised = plan.dependencies.get(name);
        measured.or_else(|| promised.map(|dependency| Hop::promised(name.clone(), dependency)))
    });
    Some(JourneySlo {
        composition: slo::compose(slo::delivered(journey, history), hops.collect()),
        status: slo::status(history, objective, journey.slots_in_window(now), now),
        journey: journey.clone(),
    })
}
