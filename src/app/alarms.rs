//! Tests of notifiers, where no worker tells people: without a daemon, and where another one of several does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Alarms};
use crate::app::notify;
use crate::app::tasks::Tasks;
use crate::channel::Settings;
use crate::clock::Clock;
use crate::config::{ChannelPlan, Plan};
use crate::delivery;
use crate::exit::Failure;
use crate::journey::Name;
use crate::notifier::Notifier;

/// Takes the tests of all notifiers that journeys of this plan ring, until `stop`.
///
/// # Errors
/// A notifier cannot be built.
pub(super) fn take(
    plan: &Plan,
    alarms: &Alarms,
    tasks: &mut Tasks,
    clock: Clock,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    for (name, notifier) in rung(plan, clock)? {
        let lane = alarms.answer_for(&name);
        let _ = tasks.spawn_until("alarm", stop, answer(name, notifier, lane, stop.clone()));
    }
    Ok(())
}

/// The notifiers that journeys ring: without a daemon nobody else takes their tests.
fn rung(plan: &Plan, clock: Clock) -> Result<BTreeMap<Name, Arc<dyn Notifier>>, Failure> {
    let name = |channel: &ChannelPlan| match &channel.settings {
        Settings::Notifier(settings) => Some(settings.notifier.clone()),
        _ => None,
    };
    let names: BTreeSet<_> = plan.channels.values().filter_map(name).collect();
    names.into_iter().map(|name| notify::open(plan, &name, clock, None).map(|notifier| (name, notifier))).collect()
}

/// Tells people of each test, in one attempt.
async fn answer(name: Name, notifier: Arc<dyn Notifier>, mut lane: mpsc::Receiver<Alarm>, stop: CancellationToken) {
    loop {
        let Alarm { notification, answer } = tokio::select! {
            () = stop.cancelled() => return,
            alarm = lane.recv() => match alarm {
                Some(alarm) => alarm,
                None => return,
            },
        };
        let delivery = notify::delivery(&name, notification);
        let told = notifier.notify(&delivery).await;
        // Whoever asked may be gone.
        let _ = answer.send(delivery::answer(told));
    }
}
