//! A connection that is made when first needed, shared by all who send, and made anew when it has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use crate::channel::refusal::Refusal;

/// Holds at most one connection. Whoever comes first makes it; the others wait for that attempt.
pub(crate) struct Held<T> {
    cell: Mutex<Arc<OnceCell<Arc<T>>>>,
}

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
            connect().await.map(Arc::new)
        });
        let held = match timeout_at(until, connecting).await {
            Ok(held) => held?.clone(),
            Err(_) => {
                let detail = "no connection in time: another message's attempt to connect is still under way";
                return Err(Refusal::new(crate::journey::outcome::Cause::Unreachable, detail));
            }
        };
        Ok((held, is_new))
    }

    /// The next call makes a connection of its own, if `held` is still the one that is held.
    pub(crate) fn forget(&self, held: &Arc<T>) {
        let mut current = self.lock();
        if current.get().is_some_and(|other| Arc::ptr_eq(other, held)) {
            *current = Arc::default();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<OnceCell<Arc<T>>>> {
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
