//! Whether a notifier that took no notice would take one now. Otherwise only the next notice showed it, and what was given up - the end of
//! an incident, perhaps - waited for that.

use std::time::Duration;

use crate::board::{BEAT, Pulse};
use crate::delivery::Worker;
use crate::notifier::NotifyError;
use crate::time::Mono;

/// From the failure to the first proof; from then on twice as long each time.
const FIRST: Duration = Duration::from_secs(5 * 60);
/// The longest wait if nothing was given up.
const MOST: Duration = Duration::from_secs(15 * 60);
/// The longest wait if something was: a notice that is itself the reason is not sent for ever.
const MOST_FOR_DEAD: Duration = Duration::from_secs(6 * 3_600);
/// After a start, for a notifier that failed before.
const AT_START: Duration = Duration::from_secs(10);
/// A notifier of which nothing was heard for so long is asked whether it is there, before somebody needs it.
const QUIET: Duration = Duration::from_secs(86_400);

/// When it is proven next. A notice that is taken is the best proof, and begins it anew.
#[derive(Default)]
pub(super) struct Proof {
    /// How often it was proven in vain, or to no lasting effect.
    tries: u32,
    next: Option<Mono>,
}

impl Proof {
    fn wait(&self, has_dead: bool) -> Duration {
        let most = if has_dead { MOST_FOR_DEAD } else { MOST };
        FIRST.saturating_mul(2u32.saturating_pow(self.tries)).min(most)
    }
}

impl Worker {
    /// Whether the daemon before has said that this notifier fails: then it is proven soon.
    pub(super) async fn recall_failure(&mut self) {
        let subject = self.trouble();
        let conditions = self.store.conditions().await.unwrap_or_default();
        if conditions.iter().any(|(other, state)| *other == subject && state.phase.is_firing()) {
            self.is_failing_told = Some(true);
            self.proof.next = Some(self.clock.now().mono + AT_START);
        }
    }

    /// Proves the notifier if it is time, with nothing to tell. Gives how long there is nothing to do.
    pub(super) async fn prove(&mut self, pulse: &Pulse) -> Duration {
        let now = self.clock.now();
        let has_dead = matches!(self.summary().await, Ok(Some(summary)) if summary.dead > 0);
        let is_doubted = has_dead || self.is_failing_told == Some(true) || self.failing_since.is_some();
        let next = match self.proof.next {
            Some(next) if is_doubted => next,
            None if is_doubted => *self.proof.next.insert(now.mono + self.proof.wait(has_dead)),
            _ => self.next_turn.max(self.employed) + QUIET,
        };
        if now.mono < next {
            return next.since(now.mono).min(BEAT);
        }
        self.proof.tries = self.proof.tries.saturating_add(1);
        self.proof.next = None;
        let result = self.bounded(pulse, self.notifier.prove()).await;
        let now = self.clock.now();
        self.next_turn = now.mono;
        match result {
            // Whether they are taken is for them to show.
            Ok(_) if has_dead => self.revive(now.wall).await,
            Ok(_) => self.works(now.wall).await,
            Err(error) => {
                tracing::error!(notifier = %self.name, %error, "the notifier would not take a notice now");
                self.is_in_trouble(&error, matches!(error, NotifyError::Never(_)), now.wall);
            }
        }
        Duration::ZERO
    }
}
