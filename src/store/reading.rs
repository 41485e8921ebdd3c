//! Reading a store beside whoever has it: what the command line shows. Nothing is written, and no daemon waits.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::control::Silence;
use crate::journey::Name;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::notice::Notification;
#[cfg(feature = "postgres")]
use crate::secret::Secret;
use crate::slo::Span;
use crate::store::past::Past;
use crate::store::sqlite::{past, snapshot, story};
use crate::store::story::Story;
use crate::store::{RunRow, StoreError};

/// Where state is kept.
#[derive(Clone, Debug)]
pub enum Home {
    /// In this file.
    Sqlite(PathBuf),
    /// Behind this URL; secret because of the password.
    #[cfg(feature = "postgres")]
    Postgres(Secret),
}

impl Home {
    /// Whether several daemons may have it.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Home::Sqlite(_))
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Home::Sqlite(path) => path.display().fmt(f),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => f.write_str(&crate::store::postgres::place_of(&url.reveal())),
        }
    }
}

/// What is kept of a run, and what people were told of it.
#[derive(Debug, Default)]
pub struct ToldOf {
    /// The notices that showed it, oldest first.
    pub notices: Vec<Notification>,
    /// Its evidence.
    pub report: Option<Report>,
    /// The last good run before it that has evidence.
    pub last_good: Option<Report>,
}

/// The daemons that share a store, and what they have still to tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// By their names.
    pub daemons: Vec<Daemon>,
    /// If they have several configurations, what these consist of, by their fingerprints, as far as that is known.
    pub parts: BTreeMap<String, String>,
    /// Shards of journeys that nobody holds.
    pub free: usize,
    /// What some have seen, and the one that leads has not heard.
    pub relay: Backlog,
}

/// What waits to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How much it is.
    pub rows: u64,
    /// How long the oldest has waited, if there is any.
    pub oldest: Option<Duration>,
}

/// A daemon of those that share a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its machine and process.
    pub name: String,
    /// What it last said of itself, and how long ago; nothing, if it has the lease and has not said anything yet.
    pub said: Option<Said>,
    /// The lease, if it has that.
    pub lease: Option<Held>,
    /// The shards of journeys that it holds, in their order, each with how often it has changed hands.
    pub shards: Vec<(i32, u64)>,
}

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How long ago.
    pub ago: Duration,
    /// Its version.
    pub version: String,
    /// The fingerprint of the configuration that it runs, or would run.
    pub configuration: String,
    /// Where its pages are.
    pub listens: String,
    /// Where it looks from.
    pub location: Option<String>,
}

/// A lease that somebody has, or had last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How often it has changed hands.
    pub epoch: u64,
    /// How much longer it lasts if it is not renewed; nothing, if it has ended and nobody has taken over.
    pub left: Option<Duration>,
}

/// Which runs a list has.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only those with one of these verdicts; all if none is named.
    pub verdicts: Vec<Verdict>,
    /// Only those of slots from then on.
    pub since: Option<Timestamp>,
    /// So many at most.
    pub limit: usize,
}

/// Each question reads one moment.
///
/// # Errors
/// Of all: there is no store, it cannot be read, or it is of another version.
#[expect(clippy::missing_errors_doc, reason = "said once for all of them")]
impl Home {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Home::Sqlite(path) => Some(path),
            #[cfg(feature = "postgres")]
            Home::Postgres(_) => None,
        }
    }

    /// Whether there may be a store. What is behind a network is known only once it is asked.
    pub fn may_be_there(&self) -> bool {
        match self {
            Home::Sqlite(path) => path.exists(),
            #[cfg(feature = "postgres")]
            Home::Postgres(_) => true,
        }
    }

    /// The daemons that share the store; `None` of a file, which one daemon has.
    pub fn cluster(&self) -> Result<Option<Cluster>, StoreError> {
        match self {
            Home::Sqlite(_) => Ok(None),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.cluster().await).map(Some),
        }
    }

    /// What the store has of this run; `None` if it never heard of it, or has forgotten it.
    pub fn story(&self, token: Token) -> Result<Option<Story>, StoreError> {
        match self {
            Home::Sqlite(path) => story::story(path, token),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.story(token).await),
        }
    }

    /// The token of the journey's newest run that was not good and has evidence.
    pub fn last_bad(&self, name: &str) -> Result<Option<Token>, StoreError> {
        match self {
            Home::Sqlite(path) => story::last_bad(path, name),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.last_bad(name).await),
        }
    }

    /// The journey's last good run, if the store has one.
    pub fn last_good(&self, name: &str) -> Result<Option<Report>, StoreError> {
        match self {
            Home::Sqlite(path) => snapshot::last_good(path, name),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.last_good(name).await),
        }
    }

    /// The spans of these journeys. Those that the store does not know are left out. After each journey `seen` is told.
    pub fn spans(&self, names: &[Name], seen: &mut dyn FnMut()) -> Result<HashMap<Name, Vec<Span>>, StoreError> {
        match self {
            Home::Sqlite(path) => snapshot::spans(path, names, seen),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => {
                let found = apart::ask(url, async |look| look.spans(names).await)?;
                names.iter().for_each(|_| seen());
                Ok(found)
            }
        }
    }

    /// What is kept of this run.
    pub fn told(&self, token: Token) -> Result<ToldOf, StoreError> {
        match self {
            Home::Sqlite(path) => snapshot::told(path, token),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.told(token).await),
        }
    }

    /// A journey's runs, newest first; `None` if the store does not know the journey.
    pub fn runs(&self, name: &str, wanted: &Wanted) -> Result<Option<Vec<RunRow>>, StoreError> {
        match self {
            Home::Sqlite(path) => snapshot::runs(path, name, wanted),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.runs(name, wanted).await),
        }
    }

    /// The silences that the store has, those that are over among them. What was taken back, or ended with what it was for, is
    /// gone.
    pub fn silences(&self) -> Result<Vec<Silence>, StoreError> {
        match self {
            Home::Sqlite(path) => past::read_silences(path),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::ask(url, async |look| look.silences().await),
        }
    }

    /// Gives what happened to these journeys since `from`, in the order of its ends.
    pub fn past(&self, journeys: &[Name], from: Timestamp, take: impl FnMut(Past)) -> Result<(), StoreError> {
        match self {
            Home::Sqlite(path) => past::read_past(path, journeys, from, take),
            #[cfg(feature = "postgres")]
            Home::Postgres(url) => apart::past(url, journeys, from, take),
        }
    }
}

/// The command line asks as it would ask a file; the server is asked from a thread with a runtime of its own.
#[cfg(feature = "postgres")]
mod apart {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::store::postgres::{Endpoint, Look};

    /// What is on its way to whoever reads the past at most.
    const AHEAD: usize = 1_024;

    pub(super) fn ask<T: Send>(
        url: &Secret,
        question: impl AsyncFnOnce(&Look) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| StoreError::Unreadable(error.to_string()))?;
                runtime.block_on(async {
                    let look = Look::open(&Endpoint::new(url).map_err(StoreError::Unreadable)?).await?;
                    let answer = question(&look).await;
                    look.close().await;
                    answer
                })
            });
            asked.join().unwrap_or_else(|_| Err(StoreError::Unreadable("its thread panicked".to_owned())))
        })
    }

    pub(super) fn past(
        url: &Secret,
        journeys: &[Name],
        from: Timestamp,
        take: impl FnMut(Past),
    ) -> Result<(), StoreError> {
        thread::scope(|scope| {
            let (give, given) = sync_channel(AHEAD);
            let read = scope.spawn(move || {
                ask(url, async |look| {
                    // Whoever reads it may have gone.
                    look.past(journeys, from, &mut |past| drop(give.send(past))).await
                })
            });
            given.iter().for_each(take);
            read.join().unwrap_or_else(|_| Err(StoreError::Unreadable("its thread panicked".to_owned())))
        })
    }
}
