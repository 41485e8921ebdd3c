//! Puts drills to work. Without a place where they are read back none is made; a reload may bring one.

use std::sync::Arc;

use tokio::sync::watch;

use crate::commands::{self, Drills};
use crate::config::Plan;
use crate::drill::DrillSettings;
use crate::notice::address;
use crate::rehearsal::{Conductor, Props, Scene};
use crate::store::StoreError;

/// What of a plan drills go by.
pub(super) fn scene(plan: &Plan) -> Scene {
    let updatable = plan.notifiers.iter().filter(|(_, planned)| planned.settings.is_updatable());
    Scene {
        journeys: plan.journeys.clone(),
        routes: plan.routes.clone(),
        updatable: updatable.map(|(name, _)| name.clone()).collect(),
    }
}

/// Who asks for drills, and who makes them.
///
/// # Errors
/// The store cannot be read or written.
pub(super) async fn open(
    plan: &Plan,
    props: impl FnOnce(Option<String>) -> Props,
    scene: watch::Receiver<Arc<Scene>>,
    settings: watch::Receiver<Option<DrillSettings>>,
) -> Result<(Drills, Conductor), StoreError> {
    let (drills, asked) = commands::drills(settings.clone());
    let props = props(address(plan.http.public_url.as_ref(), &["drills"]));
    Ok((drills, Conductor::open(props, scene, settings, asked).await?))
}
