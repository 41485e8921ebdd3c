//! Our own side of a shadow's channels, and the fault in it: between the switchboard and the run, and around what is asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::drill::Fault;
use crate::drill::fault::corrupt;
use crate::journey::message::Message;
use crate::journey::run::Event;
use crate::journey::token::Token;
use crate::runner::mailbox::{Mailbox, Sieve};
use crate::time::Mono;

/// Arrivals that are held back at most; beyond that they pass.
const HELD: usize = 64;
/// What was to be overtaken and is not passes after this.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(2);

/// Where the fault is.
pub(super) struct Side {
    clock: Clock,
    state: Mutex<State>,
    /// Something is held back that was not.
    bell: Notify,
    injected: AtomicU64,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    token: Option<Token>,
    held: VecDeque<Held>,
    /// What waits to be overtaken.
    overtaken: Option<Held>,
    /// When the next may pass, where only so many do.
    turn: Mono,
}

struct Held {
    due: Mono,
    event: Event,
    mailbox: Arc<Mailbox>,
}

impl Side {
    /// One that is well.
    pub(super) fn new(clock: Clock) -> Side {
        Side { clock, state: Mutex::default(), bell: Notify::new(), injected: AtomicU64::new(0) }
    }

    /// Puts this fault in, or takes it away, for the run of this token. What was held back of another is not seen any more.
    pub(super) fn set(&self, fault: Option<Fault>, token: Token) {
        *self.state() = State { fault, token: Some(token), ..State::default() };
        self.injected.store(0, Ordering::Relaxed);
    }

    /// How often it was put in since it was set.
    pub(super) fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// The fault that is in.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.state().fault
    }

    /// It was put in once more.
    pub(super) fn note(&self) {
        self.injected.fetch_add(1, Ordering::Relaxed);
    }

    /// The same message, corrupt.
    pub(super) fn corrupt(&self, message: &Message) -> Message {
        let token = self.state().token.map(|token| token.to_string()).unwrap_or_default();
        message.with_body(corrupt(&message.body, &[&token]))
    }

    /// How long the next answer waits for its turn at this rate.
    pub(super) fn turn(&self, rate: f64) -> Duration {
        let now = self.clock.now().mono;
        let mut state = self.state();
        let at = state.turn.max(now);
        state.turn = at + Duration::from_secs_f64(1.0 / rate);
        at.since(now)
    }

    /// Lets pass what is held back when its time has come; for as long as a run goes on.
    pub(super) async fn pass(&self) {
        loop {
            let now = self.clock.now().mono;
            let (due, next) = self.due(now);
            for Held { event, mailbox, .. } in due {
                mailbox.take(seen(event, self.clock.now()));
            }
            let sleep = async {
                match next {
                    Some(next) => self.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep => {}
            }
        }
    }

    fn due(&self, now: Mono) -> (Vec<Held>, Option<Mono>) {
        let mut state = self.state();
        let mut due = Vec::new();
        if state.overtaken.as_ref().is_some_and(|held| held.due <= now) {
            due.extend(state.overtaken.take());
        }
        while state.held.front().is_some_and(|held| held.due <= now) {
            due.extend(state.held.pop_front());
        }
        let next = state.held.front().into_iter().chain(&state.overtaken).map(|held| held.due).min();
        (due, next)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an arrival back until then; at once if too many are.
    fn hold(&self, due: Mono, event: Event, mailbox: &Arc<Mailbox>) {
        let mut state = self.state();
        if state.held.len() >= HELD {
            drop(state);
            return mailbox.take(event);
        }
        self.note();
        let at = state.held.partition_point(|held| held.due <= due);
        state.held.insert(at, Held { due, event, mailbox: mailbox.clone() });
        self.bell.notify_one();
    }
}

impl Sieve for Side {
    fn put(&self, event: Event, mailbox: &Arc<Mailbox>) {
        let now = self.clock.now().mono;
        let Event::Arrived { channel, message, at } = event else { return mailbox.take(event) };
        let again = |message: &Arc<Message>| Event::Arrived { channel: channel.clone(), message: message.clone(), at };
        match self.fault() {
            None | Some(Fault::Refuse) => mailbox.take(again(&message)),
            Some(Fault::Drop) => self.note(),
            Some(Fault::Duplicate) => {
                self.note();
                mailbox.take(again(&message));
                mailbox.take(again(&message));
            }
            Some(Fault::Corrupt) => {
                self.note();
                mailbox.take(again(&Arc::new(self.corrupt(&message))));
            }
            Some(Fault::Delay(delay)) => self.hold(at.mono + delay, again(&message), mailbox),
            Some(Fault::Throttle(rate)) => match self.turn(rate) {
                Duration::ZERO => mailbox.take(again(&message)),
                wait => self.hold(now + wait, again(&message), mailbox),
            },
            Some(Fault::Reorder) => {
                let before = self.state().overtaken.take();
                match before {
                    Some(first) => {
                        self.note();
                        mailbox.take(again(&message));
                        first.mailbox.take(seen(first.event, self.clock.now()));
                    }
                    None => {
                        let held =
                            Held { due: now + OVERTAKEN_WITHIN, event: again(&message), mailbox: mailbox.clone() };
                        self.state().overtaken = Some(held);
                        self.bell.notify_one();
                    }
                }
            }
        }
    }
}

/// An arrival that is seen only now.
fn seen(event: Event, now: crate::time::Now) -> Event {
    match event {
        Event::Arrived { channel, message, .. } => Event::Arrived { channel, message, at: now },
        other => other,
    }
}
