//! Whose the store is. One in a file belongs to whoever opened it. A shared one has a lease: who has it decides and tells, and
//! every daemon runs its part of the journeys.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::app::{bind, gates, open_file, store_failure};
use crate::breaker::{Guarded, Order};
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::Failure;
use crate::gate::Door;
use crate::journey::spend::Spent;
use crate::store::reading::Home;
use crate::store::{Store, StoreError};

#[cfg(feature = "postgres")]
pub(super) use self::shared::{RETURNED, Shared, Tenure};

/// The task that keeps the lease: it ends by itself only when another daemon has taken over.
pub(super) const LEASE: &str = "lease";

/// What a daemon has that may begin.
pub(super) struct Seat {
    /// Where runs are written down.
    pub(super) store: Arc<dyn Store>,
    pub(super) listener: TcpListener,
    pub(super) door: Door,
    /// With whom the store is shared; nobody, if it is a file.
    pub(super) shared: Option<Shared>,
    pub(super) known: Known,
}

/// What a start goes by of what is in the store.
pub(super) struct Known {
    /// The installation's key.
    pub(super) key: [u8; 32],
    /// What people want of breakers.
    pub(super) orders: Vec<(Guarded, Order)>,
    /// What was sent today, of what costs something.
    pub(super) spent: Vec<Spent>,
}

impl Known {
    async fn read(store: &dyn Store) -> Result<Known, StoreError> {
        Ok(Known { key: store.key().await?, orders: store.orders().await?, spent: store.spent().await? })
    }
}

/// A build that knows files alone shares nothing.
#[cfg(not(feature = "postgres"))]
pub(super) enum Shared {}

#[cfg(not(feature = "postgres"))]
impl Shared {
    /// What stands in for the store.
    pub(super) fn spare(&self) -> Arc<dyn Store> {
        match *self {}
    }
}

/// Opens the store and the listener.
///
/// # Errors
/// The store cannot be opened, or the address is taken.
pub(super) async fn take(plan: &Plan, clock: Clock) -> Result<Seat, Failure> {
    match &plan.store.home {
        Home::Sqlite(path) => {
            let store = open_file(plan, path).await?;
            let known = Known::read(&*store).await.map_err(|error| store_failure(plan, &error))?;
            let listener = bind(plan.http.listen, "http.listen").await?;
            let door = gates::open(plan.http.web_config.as_deref(), clock)?;
            Ok(Seat { store, listener, door, shared: None, known })
        }
        #[cfg(feature = "postgres")]
        Home::Postgres(url) => {
            let listener = bind(plan.http.listen, "http.listen").await?;
            let door = gates::open(plan.http.web_config.as_deref(), clock)?;
            shared::take(plan, url, (listener, door), clock).await
        }
    }
}

#[cfg(feature = "postgres")]
mod shared {
    use std::path::Path;
    use std::time::Duration;

    use jiff::Timestamp;
    use tokio::sync::{mpsc, watch};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::app::cut::CUT;
    use crate::app::outset::{self, Facts, Outset};
    use crate::app::shelter::Shelter;
    use crate::app::tasks::Tasks;
    use crate::board::Board;
    use crate::cluster::LEAD;
    use crate::exit;
    use crate::metrics::ShareMetrics;
    use crate::secret::Secret;
    use crate::store::postgres::{Endpoint, Errands, Fence, Lease, Member, Postgres, Share, Turn};
    use crate::store::sqlite::REST;
    use crate::time::Mono;

    /// How long a lease lasts without being renewed. A daemon that was killed is followed by another within 10 s: after this, a
    /// look, and a start.
    const TTL: Duration = Duration::from_secs(6);
    /// The lease is renewed so often.
    const RENEW: Duration = Duration::from_secs(1);
    /// Whoever has not got it looks so often whether it is free.
    const LOOK: Duration = Duration::from_millis(500);
    /// A server that was away answers all at once. Whoever had the lease renews it within this, and need not be followed.
    pub(in crate::app) const RETURNED: Duration = Duration::from_millis(1_200);
    /// Whoever decides, for people, after a start without the server.
    const NOBODY_KNOWS: &str = "nobody knows who";
    /// The lease among the board's components.
    const COMPONENT: &str = "lease";

    /// This daemon among those that share a store.
    pub(in crate::app) struct Shared {
        pub(in crate::app) share: Arc<Share>,
        lease: Arc<Lease>,
        endpoint: Endpoint,
        /// Where its pages are.
        listens: String,
        /// Where it looks from.
        location: Option<String>,
        /// What it keeps for itself.
        pub(in crate::app) shelter: Shelter,
        /// The lease, if it is ours from the start; otherwise who has it.
        pub(in crate::app) turn: Turn,
        /// What is to be kept of this start, where there is a place for it.
        pub(in crate::app) facts: Option<Facts>,
        /// That it has begun without the server.
        pub(in crate::app) outset: Option<Outset>,
    }

    /// The lease while it is ours.
    pub(in crate::app) struct Tenure {
        lease: Arc<Lease>,
        fence: Fence,
        stop: CancellationToken,
    }

    pub(super) async fn take(
        plan: &Plan,
        url: &Secret,
        (listener, door): (TcpListener, Door),
        clock: Clock,
    ) -> Result<Seat, Failure> {
        let unusable = |why| Failure::new(exit::CONFIG, format!("`store.url` cannot be used: {why}"));
        let endpoint = Endpoint::new(url).map_err(unusable)?;
        let failed = |error: StoreError| store_failure(plan, &error);
        let name = own_name()?;
        let now = clock.now().wall;
        let mut shelter = Shelter::open(plan.store.spool.as_deref(), now).await?;
        let listens = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let location = plan.location.clone();
        let outset = match &plan.store.spool {
            Some(spool) => without(plan, spool, &mut shelter, &endpoint, (&name, now)).await?,
            None => None,
        };
        let endpoint = match &outset {
            Some(outset) => endpoint.behind(outset.shut.subscribe()),
            None => endpoint,
        };
        let lease = Arc::new(Lease::new(endpoint.clone(), LEAD, name.clone(), TTL));
        let share = Arc::new(Share::new(endpoint.clone(), name.clone(), TTL, location.as_deref()));
        let place = endpoint.place();
        let (turn, store, known): (Turn, Arc<dyn Store>, Known) = match &outset {
            Some(Outset { facts, .. }) => {
                let opened = Postgres::open_unasked(endpoint.clone(), None, Some(share.sharing()), clock, REST);
                // What the process before spent without the store is in no other.
                let spent = shelter.store.spent().await.map_err(failed)?.into_iter().chain(facts.spent.clone());
                let known = Known { key: facts.key, orders: facts.orders(), spent: spent.collect() };
                let turn = Turn::Held { by: NOBODY_KNOWS.to_owned(), left: Duration::ZERO };
                (turn, Arc::new(opened.map_err(failed)?), known)
            }
            None => {
                let turn = lease.take().await.map_err(failed)?;
                let opened = Postgres::open_resting(endpoint.clone(), None, Some(share.sharing()), clock, REST);
                // To migrate a large store takes longer than the lease lasts.
                let opened = tokio::select! {
                    opened = opened => opened.map_err(failed)?,
                    never = renew(&lease, &turn, clock) => match never {},
                };
                let known = Known::read(&opened).await.map_err(failed)?;
                (turn, Arc::new(opened), known)
            }
        };
        let facts = match (&outset, &plan.store.spool) {
            (Some(Outset { facts, .. }), _) => Some(facts.clone().of(name)),
            (None, Some(_)) => Some(Facts::new((place, name), known.key, &known.orders, known.spent.clone())),
            (None, None) => None,
        };
        let shared = Shared { share, lease, endpoint, listens, location, shelter, turn, facts, outset };
        Ok(Seat { store, listener, door, shared: Some(shared), known })
    }

    /// Whether it begins without the server: nobody answers there, and what it takes was kept.
    async fn without(
        plan: &Plan,
        spool: &Path,
        shelter: &mut Shelter,
        endpoint: &Endpoint,
        (name, began): (&str, Timestamp),
    ) -> Result<Option<Outset>, Failure> {
        let Some(why) = endpoint.silence().await else { return Ok(None) };
        let serving = |facts: Facts| facts.serving(&endpoint.place(), plan.location.as_deref());
        let kept = std::mem::replace(&mut shelter.kept, Ok(None)).and_then(|kept| kept.map(serving).transpose());
        let Ok(Some(facts)) = kept else {
            let hint = outset::hint(spool, kept.err().as_deref());
            return Err(Failure::new(exit::CANNOT_CREATE, format!("store {}: {why}\n  help: {hint}", plan.store.home)));
        };
        tracing::warn!(why, "beginning without the store: it does not answer");
        let shut = watch::channel(Some(why.clone())).0;
        let outset = Outset { facts, why, began, shut, server: endpoint.clone(), heir: name.to_owned(), ttl: TTL };
        Ok(Some(outset))
    }

    /// Renews the lease, if it is ours, whatever the answer is.
    async fn renew(lease: &Lease, turn: &Turn, clock: Clock) -> std::convert::Infallible {
        loop {
            clock.sleep_until(clock.now().mono + RENEW).await;
            if let Turn::Ours(fence) = turn
                && let Err(error) = lease.renew(fence).await
            {
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

    impl Shared {
        /// What this daemon says of itself, with this configuration.
        pub(in crate::app) fn member(&self, configuration: String) -> Member {
            Member {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                configuration,
                listens: self.listens.clone(),
                location: self.location.clone(),
            }
        }

        /// What the daemons ask of each other.
        pub(in crate::app) fn errands(&self) -> Errands {
            Errands::new(self.endpoint.clone(), self.share.held())
        }

        /// What stands in for the store.
        pub(in crate::app) fn spare(&self) -> Arc<dyn Store> {
            self.shelter.store.clone()
        }

        /// Waits for the lease, as a task; says meanwhile who has it.
        pub(in crate::app) fn stand_by(
            &self,
            tasks: &mut Tasks,
            won: mpsc::Sender<Fence>,
            said: watch::Sender<String>,
            clock: Clock,
            stop: &CancellationToken,
        ) {
            let (lease, stopped) = (self.lease.clone(), stop.clone());
            let _ = tasks.spawn_until("standby", stop, async move {
                let waited = tokio::select! {
                    fence = wait(&lease, &said, clock) => Some(fence),
                    () = stopped.cancelled() => None,
                };
                if let Some(fence) = waited {
                    tracing::info!(epoch = fence.epoch(), "taking over: the lease is ours");
                    let _ = won.send(fence).await;
                    stopped.cancelled().await;
                }
            });
        }

        /// Keeps the lease, as a task, and opens the store for whoever decides.
        ///
        /// # Errors
        /// The store cannot be opened.
        pub(in crate::app) async fn lead(
            &self,
            fence: Fence,
            tasks: &mut Tasks,
            (board, metrics): (&Arc<Board>, ShareMetrics),
            clock: Clock,
        ) -> Result<(Arc<dyn Store>, Tenure), StoreError> {
            let turn = Turn::Ours(fence.clone());
            let sharing = Some(self.share.sharing());
            let opened = Postgres::open_resting(self.endpoint.clone(), Some(fence.clone()), sharing, clock, REST);
            let opened = tokio::select! {
                opened = opened => opened?,
                never = renew(&self.lease, &turn, clock) => match never {},
            };
            let stop = CancellationToken::new();
            let keeping = keep(self.lease.clone(), fence.clone(), opened.fenced(), (board.clone(), metrics), clock);
            let stopped = stop.clone();
            let _ = tasks.spawn_until(LEASE, &stop, async move {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    () = keeping => {}
                }
            });
            Ok((Arc::new(opened), Tenure { lease: self.lease.clone(), fence, stop }))
        }

        /// Gives all back that we have, so that nobody need wait for its end: others go on with slots after these.
        pub(in crate::app) async fn leave(&self, counted: Timestamp) {
            if let Err(error) = self.share.leave(counted).await {
                tracing::warn!(%error, "the shards were not given back: they are free in {} s", TTL.as_secs());
            }
        }
    }

    fn words(holder: &str) -> String {
        format!("{holder} decides and tells")
    }

    async fn wait(lease: &Lease, said: &watch::Sender<String>, clock: Clock) -> Fence {
        let (mut is_failing, mut not_before) = (false, Mono::default());
        loop {
            clock.sleep_until(clock.now().mono + LOOK).await;
            let turn = match is_failing || clock.now().mono < not_before {
                true => lease.holder().await.map(|holder| holder.unwrap_or_else(|| "nobody".to_owned())),
                false => match lease.take().await {
                    Ok(Turn::Ours(fence)) => return fence,
                    Ok(Turn::Held { by, .. }) => Ok(by),
                    Err(error) => Err(error),
                },
            };
            let now_said = match turn {
                Ok(by) => {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(holder = by, "the store answers again");
                        not_before = clock.now().mono + RETURNED;
                    }
                    words(&by)
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "who decides is not known");
                    }
                    format!("who decides is not known: {error}")
                }
            };
            said.send_if_modified(|said| {
                let is_new = *said != now_said;
                *said = now_said;
                is_new
            });
        }
    }

    impl Tenure {
        /// Gives the lease back, so that another need not wait for its end.
        pub(in crate::app) async fn give_back(self) {
            self.stop.cancel();
            match self.lease.release(&self.fence).await {
                Ok(()) => tracing::info!("the lease was given back"),
                Err(error) => tracing::warn!(%error, "the lease was not given back: it ends by itself"),
            }
        }
    }

    /// Until another daemon has taken over.
    async fn keep(
        lease: Arc<Lease>,
        fence: Fence,
        fenced: CancellationToken,
        (board, metrics): (Arc<Board>, ShareMetrics),
        clock: Clock,
    ) {
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
                    metrics.set_cut_off(false);
                    board.set_component(COMPONENT, true, false, ours.clone(), clock.now().wall);
                }
                Ok(false) => return tracing::error!("another daemon has taken over"),
                Err(error) => {
                    let since = clock.now().mono.since(renewed);
                    metrics.set_cut_off(since >= CUT);
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
