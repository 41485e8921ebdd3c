//! `journeyman once`: the runs, what is seen of them while they go, and where the result goes.

use std::io::IsTerminal;

use tokio::sync::watch;

use crate::app;
use crate::app::once::Heard;
use crate::cli::once::{print_run, print_runs, summary};
use crate::cli::{OnceArguments, RunFormat, exit_code_of_all, live};
use crate::clock::Clock;
use crate::exit::{self, Failure};
use crate::journey::report::Report;
use crate::journey::run::Sight;
use crate::program::{block_on, refused, say};
use crate::text::takes_colour;
use crate::{config, log};

/// Runs what is asked for; the exit code is that of the worst.
pub(super) fn once(asked: &OnceArguments) -> Result<u8, Failure> {
    if asked.output.is_some() && asked.format == RunFormat::Text {
        return Err(Failure::new(exit::USAGE, "`--output` is for `--format json` and `--format junit`"));
    }
    let plan = config::load(&asked.config.config);
    let (plan, warnings) = plan.map_err(|problems| refused(&problems, &asked.config.config))?;
    // Who runs a journey by hand looks for something else.
    if !warnings.is_empty() {
        let few = if warnings.len() == 1 { "1 warning".to_owned() } else { format!("{} warnings", warnings.len()) };
        eprintln!("{few}: `journeyman check` shows what is meant");
    }
    log::init("warn", false, &plan.redactor);
    let journeys = app::once::chosen(&plan, &asked.journeys, asked.all)?;
    let is_list = asked.all || asked.journeys.len() > 1;
    let is_for_people = asked.format == RunFormat::Text || asked.output.is_some();
    let alone = journeys.first().filter(|_| !is_list && is_for_people && std::io::stdout().is_terminal());
    let (clock, color) = (Clock::system(), takes_colour(&std::io::stdout()));
    let runs = block_on(async |stop| {
        let (show, sights) = watch::channel(None);
        let seen = |sight: Sight| drop(show.send_replace(Some(sight)));
        // What several runs came to is told as they end.
        let ended = |report: &Report, last_good: Option<&Report>| {
            if is_list && is_for_people {
                // That it cannot be printed is told of what comes last.
                let _ = say(&format!("{}\n", print_run(report, last_good, color)));
            }
        };
        let heard = Heard { seen: &seen, ended: &ended };
        let runs = app::once::once(plan, &journeys, clock, stop, heard);
        match alone {
            Some(journey) => live::beside(runs, sights, journey.budget.unwrap_or_default(), clock).await,
            None => runs.await,
        }
    })?;
    if is_for_people {
        match runs.as_slice() {
            [(report, last_good)] if !is_list => say(&print_run(report, last_good.as_ref(), color))?,
            _ => say(&summary(&runs))?,
        }
    }
    let document = print_runs(&runs, is_list, asked.format);
    match (document, &asked.output) {
        (Some(document), None) => say(&document)?,
        (Some(document), Some(path)) => std::fs::write(path, document)
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display())))?,
        (None, _) => {}
    }
    Ok(exit_code_of_all(&runs))
}
