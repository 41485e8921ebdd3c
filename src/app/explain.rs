//! `journeyman explain`: finds a run in the store, by its token or as the last bad one of a journey.

use crate::app::store_failure;
use crate::config::{Plan, not_there};
use crate::exit::{self, Failure};
use crate::journey::token::Token;
use crate::store::story::Story;

/// What the store has of the run that is named.
///
/// # Errors
/// Nothing is kept of it, it is neither a token nor a journey, or the store cannot be read.
pub fn find(plan: &Plan, named: &str) -> Result<Story, Failure> {
    let unreadable = |error| store_failure(plan, &error);
    let home = &plan.store.home;
    let token = match Token::parse(named) {
        Some(token) => token,
        None if plan.journeys.iter().any(|journey| &*journey.name == named) => {
            let found = home.last_bad(named).map_err(unreadable)?;
            found.ok_or_else(|| {
                let help = "`journeyman runs` lists what there is";
                Failure::new(exit::USAGE, format!("no run of `{named}` is kept that was not good\n  help: {help}"))
            })?
        }
        None => {
            let help = "a run is `jm` and 26 letters and digits, as notices, pages and `journeyman runs` have it";
            let names = plan.journeys.iter().map(|journey| &*journey.name);
            let said = not_there("run and no journey", named, names);
            return Err(Failure::new(exit::USAGE, format!("{said}\n  help: {help}")));
        }
    };
    home.story(token).map_err(unreadable)?.ok_or_else(|| {
        let help = "evidence is kept of failed and slow runs and of a sample of good ones, for a time";
        Failure::new(exit::USAGE, format!("the store knows nothing of run {token}\n  help: {help}"))
    })
}
