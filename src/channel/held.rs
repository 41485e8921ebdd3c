//! A connection that is made when first needed, shared by all who send, and made anew when it has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::channel::refusal::Refusal;
use crate::channel::seen::{Notes, note_again};
use crate::journey::seen::Seen;

/// Holds at most one connection. Whoever comes first makes it; the others wait for that attempt.
pub(crate) struct Held<T> {
    cell: Mutex<Cell<T>>,
}

/// The connection, and what was met when it was made.
type Cell<T> = Arc<OnceCell<(Arc<T>, Vec<Seen>)>>;

impl<T> Default for Held<T> {
    fn default() -> Self {
        Held { cell: Mutex::default() }
    }
}

impl<T> Held<T> {
    /// The connection, and whether this call made it. A failed attempt is not kept: the next call makes its own.
    ///
    /// # Errors
    /// What `connect` says, or that `until` has passed while another's attempt was under way.
    pub(crate) async fn get<F>(&self, until: Instant, connect: impl FnOnce() -> F) -> Result<(Arc<T>, bool), Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let cell = self.lock().clone();
        let mut is_new = false;
        let connecting = cell.get_or_try_init(|| async {
            is_new = true;
            let notes = Notes::of_a_part();
            notes.over(connect()).await.map(|made| (Arc::new(made), notes.seen()))
        });
        let held = match timeout_at(until, connecting).await {
            Ok(held) => held?,
            Err(_) => {
                let detail = "no connection in time: another message's attempt to connect is still under way";
                return Err(Refusal::new(crate::journey::outcome::Cause::Unreachable, detail));
            }
        };
        note_again(&held.1);
        Ok((held.0.clone(), is_new))
    }

    /// The next call makes a connection of its own, if `held` is still the one that is held.
    pub(crate) fn forget(&self, held: &Arc<T>) {
        let mut current = self.lock();
        if current.get().is_some_and(|(other, _)| Arc::ptr_eq(other, held)) {
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
    use crate::journey::outcome::Cause;

    #[expect(clippy::disallowed_methods, reason = "a limit that no test reaches, on the paused clock")]
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn one_connects_and_all_share_until_it_is_forgotten() {
        let held = Held::default();
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(7)
        };
        let (first, second) =
            tokio::join!(held.get(soon(), slow), held.get(soon(), || async { panic!("a second connection") }));
        let ((first, is_new), (second, is_second_new)) = (first.unwrap(), second.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && is_new && !is_second_new);
        held.forget(&first);
        let (third, is_new) = held.get(soon(), || async { Ok(8) }).await.unwrap();
        assert!(is_new && *third == 8);
        held.forget(&first);
        assert!(!held.get(soon(), slow).await.unwrap().1, "only what is held can be forgotten");
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
            tokio::join!(maker.over(held.get(soon(), connect)), waiter.over(held.get(soon(), || async { Ok(8) })));
        assert!(made.unwrap().1 && !got.unwrap().1);
        assert!(later.over(held.get(soon(), || async { Ok(8) })).await.is_ok());
        for notes in [maker, waiter, later] {
            assert_eq!(find(&notes.seen(), What::Peer), Some("10.0.0.1:1"));
        }
        let refused: Held<u8> = Held::default();
        let notes = Notes::default();
        let refusing = || async {
            note(What::Peer, "10.0.0.1:1");
            Err(Refusal::new(Cause::Auth, "no"))
        };
        assert!(notes.over(refused.get(soon(), refusing)).await.is_err());
        assert_eq!(find(&notes.seen(), What::Peer), Some("10.0.0.1:1"), "also where it then refused us");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept_and_waiting_has_an_end() {
        let held: Held<u8> = Held::default();
        let refused = held.get(soon(), || async { Err(Refusal::new(Cause::Auth, "no")) }).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Auth);
        assert!(held.get(soon(), || async { Ok(1) }).await.is_ok());
        let hanging: Held<u8> = Held::default();
        let silent = hanging.get(soon(), std::future::pending).await.unwrap_err();
        assert_eq!(silent.cause, Cause::Unreachable);
    }
}
