//! The daemons that share a store, as the store knows them.

use crate::app::store_failure;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::store::reading::Cluster;

/// How they stand.
///
/// # Errors
/// The store is a file, which one daemon has; or it does not answer.
pub fn look(plan: &Plan) -> Result<Cluster, Failure> {
    let home = &plan.store.home;
    let found = home.cluster().map_err(|error| store_failure(plan, &error))?;
    found.ok_or_else(|| {
        let why = format!(
            "the store is a file, {home}, which one daemon has\n  help: with `store.url = \"postgres://…\"` several \
             share it: docs/operation.md, State in PostgreSQL"
        );
        Failure::new(exit::CONFIG, why)
    })
}
