//! Why a run was not good, and the very line of the configuration that says so.

use crate::cli::explain::{Telling, line};
use crate::config::problem::Place;
use crate::config::{Problem, sketch};
use crate::journey::outcome::{Cause, Outcome};
use crate::journey::report::{Report, StepReport, StepStatus};

/// What failed, with its line; nothing of a good run.
pub(super) fn why(text: &mut String, report: &Report, telling: &Telling<'_>) {
    if matches!(report.outcome, Outcome::Good { .. }) {
        return;
    }
    let Some((said, place)) = place(report, telling) else { return };
    text.push_str("\nWhere that is written\n");
    let journey = telling.plan.journeys.iter().find(|journey| journey.name == report.journey);
    let is_other = |now: &&str| !report.configuration.is_empty() && *now != report.configuration;
    if let Some(now) = journey.map(|journey| &*journey.fingerprint).filter(is_other) {
        line(text, 1, &format!("the definition is another one by now ({now}); as it is, it says"));
    }
    let drawn = sketch(&Problem::note(&place, said), telling.color);
    text.extend(drawn.lines().map(|line| format!("  {line}\n")));
}

/// What decided, in words, and where it is written.
pub(super) fn place(report: &Report, telling: &Telling<'_>) -> Option<(String, Place)> {
    let places = telling.places;
    let name = &*report.journey;
    let journey = telling.plan.journeys.iter().find(|journey| &*journey.name == name)?;
    let index = |step: &StepReport| journey.steps.iter().position(|other| other.name == step.name);
    match &report.outcome {
        Outcome::Failed { cause, .. } => {
            let step = report.failed_step()?;
            let at = index(step)?;
            let number = step.checks.iter().position(|check| !check.passed && !check.soft);
            if let Some(number) = number {
                let place = places.of_expectation(name, at, number)?;
                return Some(("this was expected".to_owned(), place));
            }
            let limit = || match cause {
                Cause::NotReceived | Cause::Uncertain => {
                    let own = places.of_step(name, at, "timeout");
                    let place = own.or_else(|| places.of_journey(name, "deadline"))?;
                    Some(("so long it was waited for".to_owned(), place))
                }
                _ => None,
            };
            limit().or_else(|| Some(("this step failed".to_owned(), places.of_step(name, at, &step.verb)?)))
        }
        Outcome::Slow { .. } => {
            let slow = report.steps.iter().find(|step| step.status == StepStatus::Slow).and_then(index);
            let own = slow.and_then(|at| places.of_step(name, at, "budget"));
            let place = own.or_else(|| places.of_journey(name, "budget"))?;
            Some(("it took longer than this".to_owned(), place))
        }
        Outcome::Good { .. } | Outcome::Unknown { .. } | Outcome::Excluded { .. } => None,
    }
}
