//! The system under watch, and its account of what it was sent.

use std::sync::{Arc, Mutex};

use journeyman::journey::token::Token;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::conformance::BOUND;
use crate::conformance::rig::Relay;
use crate::support::wait_for;

/// What happened, as the system's task writes it down.
type Account<T> = Arc<Mutex<Vec<T>>>;

/// The system under watch: hands on what it takes, when it is to, and keeps account of it. It does not know of faults.
pub(super) struct System {
    taken: Account<Token>,
    /// Why it could not hand on.
    troubles: Account<String>,
    hands_on: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl System {
    pub(super) fn start(mut relay: Relay) -> System {
        let (taken, troubles) = (Account::<Token>::default(), Account::<String>::default());
        let (hands_on, mut may) = watch::channel(true);
        let mut tasks = JoinSet::new();
        let (account, complaints) = (taken.clone(), troubles.clone());
        tasks.spawn(async move {
            let mut under_way = JoinSet::new();
            while let Some(parcel) = relay.next().await {
                account.lock().expect("no panic while held").push(parcel.token);
                if may.wait_for(|may| *may).await.is_err() {
                    return;
                }
                let (put, complaints) = (relay.try_put(&parcel), complaints.clone());
                under_way.spawn(async move {
                    if let Err(why) = put.await {
                        complaints.lock().expect("no panic while held").push(why);
                    }
                });
            }
        });
        System { taken, troubles, hands_on, _tasks: tasks }
    }

    pub(super) fn hands_on(&self, may: bool) {
        self.hands_on.send_replace(may);
    }

    pub(super) fn count(&self) -> usize {
        self.taken.lock().expect("no panic while held").len()
    }

    pub(super) async fn until_taken(&self, before: usize) {
        wait_for("the system to take the message", BOUND, async || (self.count() > before).then_some(())).await;
    }

    /// How often it took this message.
    pub(super) fn taken(&self, token: Token) -> usize {
        self.taken.lock().expect("no panic while held").iter().filter(|taken| **taken == token).count()
    }

    /// What it took more than once; each is told once.
    pub(super) fn sent_twice(&self) -> Vec<Token> {
        let mut taken = self.taken.lock().expect("no panic while held");
        taken.sort();
        let twice = taken.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
        taken.dedup();
        twice
    }

    pub(super) fn troubles(&self) -> Vec<String> {
        std::mem::take(&mut *self.troubles.lock().expect("no panic while held"))
    }
}
