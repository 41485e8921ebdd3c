//! Who tells people, and who hears of their buttons: tasks that come and go with the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::app::tasks::Tasks;
use crate::app::{DRAIN_NOTICES, DRAIN_PART};
use crate::commands::{Callbacks, Commands};
use crate::delivery::{Worker, Workplace};
use crate::journey::Name;
use crate::notifier::slack::Buttons;

/// The workers, and what ends each.
pub(super) struct Staff {
    pub(super) stop: CancellationToken,
    pub(super) lanes: BTreeMap<Name, Hired>,
}

/// One worker at work.
pub(super) struct Hired {
    stop: CancellationToken,
    ended: CancellationToken,
    task: AbortHandle,
}

/// What hears of buttons, and what ends it.
pub(super) struct Switch {
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) commands: Commands,
    pub(super) stop: CancellationToken,
    /// Of those that run now.
    pub(super) current: CancellationToken,
}

impl Switch {
    /// Hears of these buttons, and of no others.
    pub(super) fn turn(&mut self, buttons: Option<Buttons>, tasks: &mut Tasks) {
        self.current.cancel();
        self.current = self.stop.child_token();
        let mut buttons = buttons;
        self.callbacks.replace(buttons.as_mut().and_then(|buttons| buttons.callback.take()));
        if let Some(buttons) = buttons {
            tasks.spawn_until("buttons", &self.current, buttons.run(self.current.clone()));
        }
    }
}

impl Staff {
    /// Puts a worker to work.
    pub(super) fn hire(&mut self, name: Name, worker: Worker, place: &Workplace, tasks: &mut Tasks) {
        let (stop, ended) = (self.stop.child_token(), CancellationToken::new());
        let pulse = place.board.pulse("delivery", place.clock.now().mono);
        let (board, guard, until) = (place.board.clone(), ended.clone().drop_guard(), stop.clone());
        let work = async move {
            worker.run(pulse.clone(), until, DRAIN_NOTICES).await;
            board.end_pulse(&pulse);
            drop(guard);
        };
        let task = tasks.spawn_until("delivery", &stop, work);
        self.lanes.insert(name, Hired { stop, ended, task });
    }

    /// Lets these workers go. What they have in hand has a few seconds; after that it is looked up before it is tried again.
    pub(super) async fn dismiss(&mut self, names: impl Iterator<Item = &Name>) {
        let gone: Vec<_> = names.filter_map(|name| self.lanes.remove(name)).collect();
        gone.iter().for_each(|hired| hired.stop.cancel());
        let all_ended = async {
            for hired in &gone {
                hired.ended.cancelled().await;
            }
        };
        if tokio::time::timeout(DRAIN_NOTICES + DRAIN_PART, all_ended).await.is_err() {
            gone.iter().for_each(|hired| hired.task.abort());
        }
    }
}
