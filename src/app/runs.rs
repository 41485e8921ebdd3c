//! `journeyman runs`: finds a journey's runs in the store.

use std::time::Duration;

use jiff::Timestamp;

use crate::app::store_failure;
use crate::config::{Plan, no_journey};
use crate::exit::{self, Failure};
use crate::journey::outcome::Verdict;
use crate::store::RunRow;
use crate::store::reading::Wanted;
use crate::time::earlier;

/// The journey's runs of these verdicts (all if none is named) within `length` before `now`, newest first, at most `limit`.
///
/// # Errors
/// The store does not know the journey, or cannot be read.
pub fn find(
    plan: &Plan,
    journey: &str,
    verdicts: Vec<Verdict>,
    length: Option<Duration>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<RunRow>, Failure> {
    let wanted = Wanted { verdicts, since: length.map(|length| earlier(now, length)), limit };
    let found = plan.store.home.runs(journey, &wanted).map_err(|error| store_failure(plan, &error))?;
    found.ok_or_else(|| {
        let known: Vec<_> = plan.journeys.iter().map(|journey| &*journey.name).collect();
        Failure::new(
            exit::USAGE,
            match known.contains(&journey) {
                true => {
                    format!("no run of `{journey}` is in the store yet: the daemon has not run it (`journeyman run`)")
                }
                false => no_journey(journey, known),
            },
        )
    })
}
