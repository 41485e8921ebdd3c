//! Whose the store is. One in a file belongs to whoever opened it; a shared one has a lease, and who has not got it stands by:
//! live, not ready, running nothing and telling nobody.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "postgres")]
pub(super) use self::shared::Tenure;
use crate::app::{bind, gates, open_file};
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::Failure;
use crate::gate::Door;
use crate::store::Store;
use crate::store::reading::Home;

/// The task that keeps the lease: it ends by itself only when another daemon has taken over.
pub(super) const LEASE: &str = "lease";

/// What a daemon has that may begin.
pub(super) struct Seat {
    pub(super) store: Arc<dyn Store>,
    pub(super) listener: TcpListener,
    pub(super) door: Door,
    /// The lease, if the store is shared.
    pub(super) tenure: Option<Tenure>,
}

/// A build that knows files alone has no lease.
#[cfg(not(feature = "postgres"))]
pub(super) enum Tenure {}

#[cfg(not(feature = "postgres"))]
impl Tenure {
    pub(super) fn spawn(
        &self,
        _: &mut crate::app::tasks::Tasks,
        _: &Arc<crate::board::Board>,
        _: tokio::sync::watch::Receiver<String>,
        _: Clock,
    ) {
        match *self {}
    }

    pub(super) async fn give_back(self) {
        match self {}
    }
}

/// Opens the store and the listener, once it is our turn; nothing if we were told to stop before.
///
/// # Errors
/// The store cannot be opened, or the address is taken.
#[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "nobody waits for a file"))]
pub(super) async fn take_seat(plan: &Plan, clock: Clock, stop: &CancellationToken) -> Result<Option<Seat>, Failure> {
    match &plan.store.home {
        Home::Sqlite(path) => {
            let store = open_file(plan, path).await?;
            let listener = bind(plan.http.listen, "http.listen").await?;
            let door = gates::open(plan.http.web_config.as_deref(), clock)?;
            Ok(Some(Seat { store, listener, door, tenure: None }))
        }
        #[cfg(feature = "postgres")]
        Home::Postgres(url) => {
            let listener = bind(plan.http.listen, "http.listen").await?;
            let door = gates::open(plan.http.web_config.as_deref(), clock)?;
            shared::take_seat(plan, url, (listener, door), clock, stop).await
        }
    }
}

#[cfg(feature = "postgres")]
mod shared {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::task::JoinSet;

    use super::*;
    use crate::app::tasks::{Tasks, more_time, tell_supervisor};
    use crate::app::{PREFLIGHT, store_failure};
    use crate::board::Board;
    use crate::exit;
    use crate::secret::Secret;
    use crate::store::StoreError;
    use crate::store::postgres::{Endpoint, Fence, Lease, Member, Postgres, Turn};
    use crate::store::sqlite::REST;

    /// One daemon has all journeys.
    const SHARD: i32 = 0;
    /// How long the lease lasts without being renewed. A daemon that was killed is followed by another within 10 s: after this,
    /// a look, and a start.
    const TTL: Duration = Duration::from_secs(6);
    /// The lease is renewed so often.
    const RENEW: Duration = Duration::from_secs(1);
    /// Each daemon says so often that it is there.
    const INTRODUCE: Duration = Duration::from_secs(5);
    /// A standby looks so often whether the lease is free.
    const LOOK: Duration = Duration::from_millis(500);
    /// Answers under way when a standby's turn comes may take this long.
    const LAST_WORDS: Duration = Duration::from_millis(200);
    /// The lease among the board's components.
    const COMPONENT: &str = "lease";

    /// The lease while it is ours.
    pub(in crate::app) struct Tenure {
        lease: Arc<Lease>,
        fence: Fence,
        fenced: CancellationToken,
        stop: CancellationToken,
        listens: String,
    }

    pub(super) async fn take_seat(
        plan: &Plan,
        url: &Secret,
        (listener, door): (TcpListener, Door),
        clock: Clock,
        stop: &CancellationToken,
    ) -> Result<Option<Seat>, Failure> {
        let unusable = |why| Failure::new(exit::CONFIG, format!("`store.url` cannot be used: {why}"));
        let endpoint = Endpoint::new(url).map_err(unusable)?;
        let lease = Arc::new(Lease::new(endpoint.clone(), SHARD, own_name()?, TTL));
        let failed = |error: StoreError| store_failure(plan, &error);
        let listens = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let (fence, listener) = match lease.take().await.map_err(failed)? {
            Turn::Ours(fence) => (fence, listener),
            Turn::Held { by, .. } => {
                let (listener, other) = twice(listener).map_err(|error| {
                    Failure::new(exit::SOFTWARE, format!("the listener cannot be had twice: {error}"))
                })?;
                let member = member(plan.fingerprint.clone(), &listens);
                let taken = tokio::select! {
                    fence = stand_by(&lease, by, &member, (other, door.clone()), clock) => Some(fence),
                    () = stop.cancelled() => None,
                };
                let Some(fence) = taken else {
                    let _ = lease.leave().await;
                    return Ok(None);
                };
                (fence, listener)
            }
        };
        // To migrate a large store takes longer than the lease lasts.
        let opened = tokio::select! {
            opened = Postgres::open_resting(endpoint, Some(fence.clone()), REST) => opened.map_err(failed)?,
            never = renew(&lease, &fence, clock) => match never {},
        };
        let tenure = Tenure { lease, fence, fenced: opened.fenced(), stop: CancellationToken::new(), listens };
        Ok(Some(Seat { store: Arc::new(opened), listener, door, tenure: Some(tenure) }))
    }

    /// Renews the lease, whatever the answer is.
    async fn renew(lease: &Lease, fence: &Fence, clock: Clock) -> std::convert::Infallible {
        loop {
            clock.sleep_until(clock.now().mono + RENEW).await;
            if let Err(error) = lease.renew(fence).await {
                tracing::debug!(%error, "the lease could not be renewed");
            }
        }
    }

    /// This process, and no other one, for people and for the lease.
    fn own_name() -> Result<String, Failure> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "a host without a name" } else { host.trim() };
        let mut chance = [0u8; 4];
        getrandom::fill(&mut chance)
            .map_err(|error| Failure::new(exit::SOFTWARE, format!("no randomness: {error}")))?;
        Ok(format!("{host}, process {}-{:08x}", std::process::id(), u32::from_be_bytes(chance)))
    }

    fn member(configuration: String, listens: &str) -> Member {
        Member { version: env!("CARGO_PKG_VERSION").to_owned(), configuration, listens: listens.to_owned() }
    }

    /// The listener, and the same for whoever answers until it is our turn: no caller is refused in between.
    fn twice(listener: TcpListener) -> std::io::Result<(TcpListener, TcpListener)> {
        let listener = listener.into_std()?;
        let other = listener.try_clone()?;
        Ok((TcpListener::from_std(listener)?, TcpListener::from_std(other)?))
    }

    fn words(holder: &str) -> String {
        format!("standby: {holder} holds the lease")
    }

    /// Waits until the lease is ours, and says who has it.
    async fn stand_by(
        lease: &Lease,
        holder: String,
        member: &Member,
        (listener, door): (TcpListener, Door),
        clock: Clock,
    ) -> Fence {
        tracing::info!(holder, "standing by: another daemon holds the lease");
        let (say, said) = watch::channel(words(&holder));
        let leave = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(crate::http::serve_standby(listener, door, said, leave.clone()));
        tell_supervisor(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&words(&holder))]);
        let mut is_failing = false;
        let mut introduce_at = clock.now().mono;
        let fence = loop {
            let now = clock.now().mono;
            if now >= introduce_at {
                // Whether the server answers is said below.
                let _ = lease.introduce(member).await;
                introduce_at = now + INTRODUCE;
            }
            clock.sleep_until(clock.now().mono + LOOK).await;
            tell_supervisor(&[sd_notify::NotifyState::Watchdog]);
            let now_said = match lease.take().await {
                Ok(Turn::Ours(fence)) => break fence,
                Ok(Turn::Held { by, .. }) => {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(holder = by, "the store answers again");
                    }
                    words(&by)
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "standing by: whether the lease is free is not known");
                    }
                    format!("standby: whether the lease is free is not known: {error}")
                }
            };
            say.send_if_modified(|said| {
                let is_new = *said != now_said;
                *said = now_said;
                is_new
            });
        };
        tracing::info!(epoch = fence.epoch(), "taking over: the lease is ours");
        tell_supervisor(&[more_time(PREFLIGHT), sd_notify::NotifyState::Status("taking over")]);
        leave.cancel();
        let _ = tokio::time::timeout(LAST_WORDS, serving.join_next()).await;
        fence
    }

    impl Tenure {
        /// Keeps the lease, as a task.
        pub(in crate::app) fn spawn(
            &self,
            tasks: &mut Tasks,
            board: &Arc<Board>,
            configuration: watch::Receiver<String>,
            clock: Clock,
        ) {
            let Tenure { lease, fence, fenced, stop, listens } = self;
            let keeping = keep(lease.clone(), fence.clone(), fenced.clone(), board.clone(), clock);
            let saying = say(lease.clone(), listens.clone(), configuration, clock);
            let stopped = stop.clone();
            let _ = tasks.spawn_until(LEASE, stop, async move {
                tokio::select! {
                    biased;
                    // After this, nothing is said any more.
                    () = stopped.cancelled() => {}
                    () = keeping => {}
                    never = saying => match never {},
                }
            });
        }

        /// Gives the lease back, so that a standby need not wait for its end.
        pub(in crate::app) async fn give_back(self) {
            self.stop.cancel();
            let _ = self.lease.leave().await;
            match self.lease.release(&self.fence).await {
                Ok(()) => tracing::info!("the lease was given back"),
                Err(error) => tracing::warn!(%error, "the lease was not given back: it ends by itself"),
            }
        }
    }

    /// Says now and then that this daemon is there, and at once if it has another configuration.
    async fn say(
        lease: Arc<Lease>,
        listens: String,
        mut configuration: watch::Receiver<String>,
        clock: Clock,
    ) -> std::convert::Infallible {
        loop {
            let member = member(configuration.borrow_and_update().clone(), &listens);
            // A server that is away is what keeping the lease tells of.
            let _ = lease.introduce(&member).await;
            tokio::select! {
                Ok(()) = configuration.changed() => {}
                () = clock.sleep_until(clock.now().mono + INTRODUCE) => {}
            }
        }
    }

    /// Until another daemon has taken over.
    async fn keep(lease: Arc<Lease>, fence: Fence, fenced: CancellationToken, board: Arc<Board>, clock: Clock) {
        let mut renewed = clock.now().mono;
        let ours = format!("ours, epoch {}", fence.epoch());
        board.set_component(COMPONENT, true, false, ours.clone(), clock.now().wall);
        loop {
            // Asked before the answer is known: the lease lasts from then on at least.
            let asked = clock.now().mono;
            match lease.renew(&fence).await {
                Ok(true) => {
                    if asked.since(renewed) > TTL {
                        tracing::info!("the lease is renewed again");
                    }
                    renewed = asked;
                    board.set_component(COMPONENT, true, false, ours.clone(), clock.now().wall);
                }
                Ok(false) => return tracing::error!("another daemon has taken over"),
                Err(error) => {
                    let since = clock.now().mono.since(renewed);
                    let said = match since > TTL {
                        true => format!("not renewed for {} s, another daemon may have it: {error}", since.as_secs()),
                        false => format!("could not be renewed: {error}"),
                    };
                    board.set_component(COMPONENT, false, false, said, clock.now().wall);
                }
            }
            tokio::select! {
                () = fenced.cancelled() => return tracing::error!("another daemon has taken over"),
                () = clock.sleep_until(asked + RENEW) => {}
            }
        }
    }
}
