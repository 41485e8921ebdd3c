//! The daemons that share a store, as the store knows them.

use crate::app::store_failure;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::store::reading::Daemon;

/// By their names.
///
/// # Errors
/// The store is a file, which one daemon has; or it does not answer.
pub fn daemons(plan: &Plan) -> Result<Vec<Daemon>, Failure> {
    let home = &plan.store.home;
    let found = home.daemons().map_err(|error| store_failure(plan, &error))?;
    found.ok_or_else(|| {
        let why = format!(
            "the store is a file, {home}, which one daemon has\n  help: with `store.url = \"postgres://…\"` a second one \
             stands by: docs/operation.md, State in PostgreSQL"
        );
        Failure::new(exit::CONFIG, why)
    })
}
