//! The doors of the listeners: opened here, and shown on the board and in the metrics.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::Clock;
use crate::exit::{self, Failure};
use crate::gate::{Door, TurnedAway, Web};
use crate::metrics::Metrics;

/// The door of a listener with this `web_config`.
pub(super) fn open(web_config: Option<&Path>, clock: Clock) -> Result<Door, Failure> {
    let web = web_config.map(|path| Web::open(path, clock)).transpose();
    let web = web.map_err(|why| Failure::new(exit::CONFIG, format!("`web_config`: {why}")))?;
    Ok(Door { web: web.map(Arc::new), ..Door::default() })
}

/// Says whether the `web_config` of a listener, as its file is now, is in force; until `stop`.
pub(super) async fn mirror(
    listener: &'static str,
    door: Door,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    clock: Clock,
    stop: CancellationToken,
) {
    let Some(mut wrong) = door.web.as_ref().map(|web| web.wrong()) else {
        metrics.set_web_config(listener, true);
        return stop.cancelled().await;
    };
    loop {
        show(listener, &mut wrong, &board, &metrics, clock);
        tokio::select! {
            _ = wrong.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}

fn show(
    listener: &'static str,
    wrong: &mut watch::Receiver<Option<String>>,
    board: &Board,
    metrics: &Metrics,
    clock: Clock,
) {
    let wrong = wrong.borrow_and_update().clone();
    metrics.set_web_config(listener, wrong.is_none());
    let (ok, detail) = match wrong {
        None => (true, "in force".to_owned()),
        Some(why) => (false, format!("{why}; the last good one stays in force")),
    };
    // Not critical: who was let in before still is.
    board.set_component(&format!("web_config of {listener}"), ok, false, detail, clock.now().wall);
}

/// Counts who was turned away at a door.
pub(super) fn count(listener: &'static str, door: &Door, metrics: &Metrics) {
    for why in TurnedAway::ALL {
        metrics.set_turned_away(listener, why.as_str(), door.tally.of(why));
    }
}
