//! Undoing: bounded in time, tried again a bounded number of times, and written down before and after.

use std::time::Duration;

use crate::app::experiment::commands::{Place, run};
use crate::app::experiment::journal::Journal;
use crate::clock::Clock;
use crate::experiment::undo::Cut;

/// Undoing something is tried so often.
const TRIES: u32 = 3;
/// And has so long each time.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Undoes it, and strikes it off if it is.
///
/// # Errors
/// It could not be undone, in words.
pub(super) async fn undo(journal: &mut Journal, cut: &Cut, clock: Clock) -> Result<String, String> {
    journal.undoing(cut.id, clock.now().wall);
    let undone = attempt(cut, clock).await;
    if undone.is_ok() {
        journal.undone(cut.id, clock.now().wall);
    }
    undone
}

/// Tries to undo it.
///
/// # Errors
/// As [`undo`].
pub(super) async fn attempt(cut: &Cut, clock: Clock) -> Result<String, String> {
    let place = Place {
        directory: cut.directory.clone(),
        target: cut.target.clone(),
        experiment: cut.experiment.clone(),
        phase: cut.phase.clone(),
    };
    let mut tried = 0;
    loop {
        tried += 1;
        match run(&cut.undo, &place, WITHIN, clock).await {
            Err(_) if tried < TRIES => clock.sleep_until(clock.now().mono + PAUSE).await,
            Err(why) => return Err(format!("{why} (tried {tried} times)")),
            Ok(said) => return Ok(said),
        }
    }
}
