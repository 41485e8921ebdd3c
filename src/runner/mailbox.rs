//! A run's mailbox. It is empty for nearly all of a run's life, and thousands of runs wait at once: so it has no room but for what
//! is in it, where a channel of tokio's begins with room for 32.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::journey::run::Event;

/// Events that a mailbox holds; more copies than that are counted and not kept.
const MAILBOX: usize = 64;

/// Where the switchboard puts what is a run's, and the run takes it, in that order.
#[derive(Default)]
pub struct Mailbox(Mutex<Inner>);

/// Stands before a mailbox: what comes may be held back, be another, or not be seen at all.
pub trait Sieve: Send + Sync {
    /// Something has come for this mailbox, which [takes](Mailbox::take) what is let through.
    fn put(&self, event: Event, mailbox: &Arc<Mailbox>);
}

/// As large as what it is nearly always: the other one finds room in it.
enum Inner {
    Here {
        events: VecDeque<Event>,
        /// Of the run, while it waits.
        waker: Option<Waker>,
    },
    /// What comes goes through this instead, and to another mailbox.
    Behind(Box<Behind>),
}

#[derive(Clone)]
struct Behind {
    sieve: Arc<dyn Sieve>,
    mailbox: Arc<Mailbox>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner::Here { events: VecDeque::new(), waker: None }
    }
}

impl Mailbox {
    /// One whose mail goes through `sieve` to `mailbox`.
    pub fn behind(sieve: Arc<dyn Sieve>, mailbox: Arc<Mailbox>) -> Mailbox {
        Mailbox(Mutex::new(Inner::Behind(Box::new(Behind { sieve, mailbox }))))
    }

    /// Puts `event` in, and wakes the run; if the mailbox is full, the event is lost.
    pub fn put(&self, event: Event) {
        let behind = match &*self.lock() {
            Inner::Behind(behind) => Some(behind.clone()),
            Inner::Here { .. } => None,
        };
        match behind {
            Some(behind) => behind.sieve.put(event, &behind.mailbox),
            None => self.take(event),
        }
    }

    /// As [`Mailbox::put`], where nothing stands before it.
    pub fn take(&self, event: Event) {
        let waker = match &mut *self.lock() {
            Inner::Here { events, waker } if events.len() < MAILBOX => {
                events.push_back(event);
                waker.take()
            }
            Inner::Here { .. } | Inner::Behind(_) => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next event, as soon as there is one. Nothing is lost if the future is dropped before. For one reader at a time.
    pub async fn next(&self) -> Event {
        poll_fn(|context| {
            let Inner::Here { events, waker } = &mut *self.lock() else { return Poll::Pending };
            match events.pop_front() {
                Some(event) => Poll::Ready(event),
                None => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether nothing waits in it.
    pub fn is_empty(&self) -> bool {
        matches!(&*self.lock(), Inner::Here { events, .. } if events.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

    use futures_util::FutureExt;

    use super::*;
    use crate::journey::outcome::UnknownWhy;

    fn gap(n: usize) -> Event {
        Event::Gap { channel: "inbound".into(), fault: UnknownWhy::NotReady, why: n.to_string() }
    }

    fn why(event: Option<Event>) -> Option<String> {
        match event? {
            Event::Gap { why, .. } => Some(why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_stand_before_it_costs_it_nothing() {
        assert_eq!(size_of::<Inner>(), size_of::<(VecDeque<Event>, Option<Waker>)>());
    }

    #[test]
    fn it_gives_what_it_was_given_in_order_and_holds_no_more_than_its_bound() {
        let mailbox = Mailbox::default();
        assert!(mailbox.next().now_or_never().is_none());
        for n in 0..MAILBOX + 10 {
            mailbox.put(gap(n));
        }
        for n in 0..MAILBOX {
            assert_eq!(why(mailbox.next().now_or_never()), Some(n.to_string()));
        }
        assert!(mailbox.next().now_or_never().is_none());
    }

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_is_woken_also_where_another_waited_before() {
        let mailbox = Mailbox::default();
        assert!(mailbox.next().now_or_never().is_none());
        let bell = Arc::new(Bell::default());
        let mut waiting = pin!(mailbox.next());
        let waker = bell.clone().into();
        let mut context = Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(!bell.0.load(Ordering::Relaxed));
        mailbox.put(gap(1));
        assert!(bell.0.load(Ordering::Relaxed));
        assert!(waiting.as_mut().poll(&mut context).is_ready());
    }
}
