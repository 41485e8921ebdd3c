//! `replay`: the stored runs through the present configuration, and through a changed one. What was stored before goes through
//! first, so that budgets and detectors begin as they were.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::app::store_failure;
use crate::config::{Plan, no_journey};
use crate::detect::Sample;
use crate::exit::{self, Failure};
use crate::incident::root::Resource;
use crate::journey::{Journey, Name};
use crate::replay::comparison::Comparison;
use crate::replay::{Happened, Replay, Told};
use crate::store::past::{How, Past};
use crate::time::{between, earlier};

/// Replays the last `length` of these journeys, or of all; `changed` are journeys that stand in for those of their names. `seen` is
/// told which share of the time has been gone through.
///
/// # Errors
/// No such journey, or a store that cannot be read.
pub fn replay(
    plan: &Plan,
    changed: Option<&[Arc<Journey>]>,
    names: &[String],
    length: Duration,
    now: Timestamp,
    seen: &mut dyn FnMut(f64),
) -> Result<Comparison, Failure> {
    let known = |name: &str| plan.journeys.iter().any(|journey| &*journey.name == name);
    for name in names.iter().map(String::as_str).chain(changed.into_iter().flatten().map(|journey| &*journey.name)) {
        if !known(name) {
            let known = plan.journeys.iter().map(|journey| &*journey.name);
            return Err(Failure::new(exit::USAGE, no_journey(name, known)));
        }
    }
    let is_wanted = |journey: &&Arc<Journey>| names.is_empty() || names.iter().any(|name| **name == *journey.name);
    let present: Vec<_> = plan.journeys.iter().filter(is_wanted).cloned().collect();
    let from = earlier(now, length);
    let other: Option<Vec<_>> =
        changed.map(|changed| present.iter().map(|journey| with_policy(journey, changed)).collect());
    let windows = present.iter().chain(other.iter().flatten()).map(|journey| journey.window().bounds(from).0);
    let warm = windows.min().unwrap_or(from).min(from);
    let silences = plan.store.home.silences().map_err(|error| store_failure(plan, &error))?;
    let begin = |journeys: &[Arc<Journey>]| {
        let replay = Replay::new(journeys, plan.location.as_deref(), plan.routes.clone(), &plan.group_by, warm);
        (replay.silenced(silences.clone()), Vec::new())
    };
    let mut replays: Vec<(Replay, Vec<Told>)> = vec![begin(&present)];
    replays.extend(other.map(|journeys| begin(&journeys)));
    let journeys: Vec<Name> = present.iter().map(|journey| journey.name.clone()).collect();
    let mut runs = 0;
    let all = between(warm, now).as_secs_f64();
    let taken = plan.store.home.past(&journeys, warm, |past| {
        seen(between(warm, past.ended).as_secs_f64() / all);
        runs += u64::from(past.how == How::Ran && past.ended >= from);
        for (replay, told) in &mut replays {
            told.extend(replay.take(&past.journey, happened(&past), past.ended));
        }
    });
    taken.map_err(|error| store_failure(plan, &error))?;
    let mut told = replays.into_iter().map(|(mut replay, mut told)| {
        told.extend(replay.pass(now));
        told.retain(|told| told.at >= from);
        told
    });
    Ok(Comparison { from, until: now, runs, journeys, present: told.next().unwrap_or_default(), changed: told.next() })
}

/// The journey as it ran, judged as the changed one of its name says.
fn with_policy(journey: &Arc<Journey>, changed: &[Arc<Journey>]) -> Arc<Journey> {
    let Some(other) = changed.iter().find(|other| other.name == journey.name) else { return journey.clone() };
    // What was recorded was run on the present schedule, by the present steps.
    let ran = Journey::clone(journey);
    Arc::new(Journey { schedule: ran.schedule, steps: ran.steps, deadline: ran.deadline, ..Journey::clone(other) })
}

fn happened(past: &Past) -> Happened {
    let Past { slot, verdict, cause, .. } = *past;
    match past.how {
        How::Ran => Happened::Run {
            sample: Sample { slot, verdict, cause, is_confirmation: false },
            latency: past.latency,
            blamed: past.channel.clone().map(Resource::Channel),
        },
        how => Happened::Without { slot, verdict, is_missed: how == How::Missed },
    }
}
