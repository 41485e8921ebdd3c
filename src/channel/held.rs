//! A connection that is made when first needed, shared by all who send, and made anew when it has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::timeout_at;

use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::channel::seen::{Notes, note_again};
use crate::journey::outcome::Cause;
use crate::journey::seen::Seen;
use crate::time::Mono;

/// Holds at most one connection. Whoever comes first makes it; the others wait for that attempt.
pub(crate) struct Held<T> {
    cell: Mutex<Cell<T>>,
}

type Cell<T> = Arc<OnceCell<Made<T>>>;

struct Made<T> {
    connection: Arc<T>,
    /// When it was begun to be made.
    at: Mono,
    /// What was met when it was made.
    seen: Vec<Seen>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Held { cell: Mutex::default() }
    }
}

impl<T> Held<T> {
    /// The connection, and whether this call made it; one that was made before `since` is given up for a new one, and ends with
    /// its last user. A failed attempt is not kept: the next call makes its own.
    ///
    /// # Errors
    /// What `connect` says, or that `limit` has passed while another's attempt was under way.
    pub(crate) async fn get<F>(
        &self,
        limit: Limit,
        since: Option<Mono>,
        connect: impl Fn() -> F,
    ) -> Result<(Arc<T>, bool), Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        loop {
            let cell = self.lock().clone();
            let mut is_new = false;
            let connecting = cell.get_or_try_init(|| async {
                is_new = true;
                let (at, notes) = (limit.now(), Notes::of_a_part());
                let connection = Arc::new(notes.over(connect()).await?);
                Ok(Made { connection, at, seen: notes.seen() })
            });
            let made = match timeout_at(limit.instant(), connecting).await {
                Ok(made) => made?,
                Err(_) => {
                    let detail = "no connection in time: another message's attempt to connect is still under way";
                    return Err(Refusal::new(Cause::Unreachable, detail));
                }
            };
            if is_new || since.is_none_or(|since| made.at >= since) {
                note_again(&made.seen);
                return Ok((made.connection.clone(), is_new));
            }
            self.forget(&made.connection);
        }
    }

    /// The next call makes a connection of its own, if `held` is still the one that is held.
    pub(crate) fn forget(&self, held: &Arc<T>) {
        let mut current = self.lock();
        if current.get().is_some_and(|made| Arc::ptr_eq(&made.connection, held)) {
            *current = Arc::default();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cell<T>> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    fn limit() -> Limit {
        Limit::new(Clock::system(), Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn one_connects_and_all_share_until_it_is_forgotten() {
        let held = Held::default();
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(7)
        };
        let (first, second) =
            tokio::join!(held.get(limit(), None, slow), held.get(limit(), None, || async { panic!("a second connection") }));
        let ((first, is_new), (second, is_second_new)) = (first.unwrap(), second.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && is_new && !is_second_new);
        held.forget(&first);
        let (third, is_new) = held.get(limit(), None, || async { Ok(8) }).await.unwrap();
        assert!(is_new && *third == 8);
        held.forget(&first);
        assert!(!held.get(limit(), None, slow).await.unwrap().1, "only what is held can be forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_too_old_is_replaced_once_and_lives_as_long_as_it_is_used() {
        let (held, clock) = (Held::default(), Clock::system());
        let soon = || Limit::new(clock, Duration::from_secs(5));
        let (old, _) = held.get(soon(), None, || async { Ok(1) }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let failed = Some(clock.now().mono);
        let connect = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(2)
        };
        let (one, other) = tokio::join!(held.get(soon(), failed, connect), held.get(soon(), failed, connect));
        let ((one, is_new), (other, is_other_new)) = (one.unwrap(), other.unwrap());
        assert!(*one == 2 && Arc::ptr_eq(&one, &other), "two that confirm need one connection");
        assert!(is_new != is_other_new);
        assert_eq!((*old, Arc::strong_count(&old)), (1, 1), "only its user has it still");
        assert!(Arc::ptr_eq(&held.get(soon(), None, connect).await.unwrap().0, &one), "it is everybody's now");
    }

    /// What was begun before the failure may have met what the failure met.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_was_under_way_already_does_not_count_as_new() {
        let (held, clock) = (Held::default(), Clock::system());
        let soon = || Limit::new(clock, Duration::from_secs(5));
        let made = |number| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(number)
        };
        let confirming = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            held.get(soon(), Some(clock.now().mono), || made(2)).await
        };
        let (first, confirming) = tokio::join!(held.get(soon(), None, || made(1)), confirming);
        assert_eq!((*first.unwrap().0, *confirming.unwrap().0), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_uses_it_has_met_what_was_met_when_it_was_made() {
        use crate::channel::seen::note;
        use crate::journey::seen::{What, find};
        let held = Held::default();
        let connect = || async {
            note(What::Peer, "10.0.0.1:1");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(7)
        };
        let (maker, waiter, later) = (Notes::default(), Notes::default(), Notes::default());
        let (made, got) =
            tokio::join!(maker.over(held.get(limit(), None, connect)), waiter.over(held.get(limit(), None, || async { Ok(8) })));
        assert!(made.unwrap().1 && !got.unwrap().1);
        assert!(later.over(held.get(limit(), None, || async { Ok(8) })).await.is_ok());
        for notes in [maker, waiter, later] {
            assert_eq!(find(&notes.seen(), What::Peer), Some("10.0.0.1:1"));
        }
        let refused: Held<u8> = Held::default();
        let notes = Notes::default();
        let refusing = || async {
            note(What::Peer, "10.0.0.1:1");
            Err(Refusal::new(Cause::Auth, "no"))
        };
        assert!(notes.over(refused.get(limit(), None, refusing)).await.is_err());
        assert_eq!(find(&notes.seen(), What::Peer), Some("10.0.0.1:1"), "also where it then refused us");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept_and_waiting_has_an_end() {
        let held: Held<u8> = Held::default();
        let refused = held.get(limit(), None, || async { Err(Refusal::new(Cause::Auth, "no")) }).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Auth);
        assert!(held.get(limit(), None, || async { Ok(1) }).await.is_ok());
        let hanging: Held<u8> = Held::default();
        let silent = hanging.get(limit(), None, std::future::pending).await.unwrap_err();
        assert_eq!(silent.cause, Cause::Unreachable);
    }
}
