//! What people ask of the running daemon, on its way to the sole owner of alert state, and the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::breaker::{Guarded, Order};
use crate::control::{Ack, AskedRun, Silence};
use crate::drill::{DrillSettings, Order as DrillOrder, Record};
use crate::journey::Name;

/// Requests that wait at most.
const QUEUE: usize = 64;

/// A change that a person asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// To look after an incident.
    Acknowledge {
        /// Which.
        incident: String,
        /// Who, and until when.
        ack: Ack,
    },
    /// To take that back.
    Unacknowledge {
        /// Which.
        incident: String,
        /// Who asks.
        by: String,
    },
    /// To be told nothing of what matches.
    Silence(Silence),
    /// To be told nothing of what fires in an incident.
    SilenceMembers {
        /// Which.
        incident: String,
        /// For how long, why, and who asks; it says nothing yet of what it matches.
        silence: Silence,
    },
    /// To end a silence early.
    Unsilence {
        /// Which.
        id: String,
    },
    /// To force a breaker, or to let it go by itself.
    Order {
        /// Before what it stands.
        what: Guarded,
        /// What is wanted of it; `None` is that it goes by itself.
        order: Option<Order>,
    },
}

/// Which journey is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this name.
    Journey(Name),
    /// The one whose runs show what this incident is about.
    Incident(String),
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such incident, silence or journey.
    #[error("{0}")]
    Unknown(String),
    /// It may be asked for again later.
    #[error("{0}")]
    NotNow(String),
    /// The daemon is stopping, or too busy; or it could not be written.
    #[error("{0}")]
    Unavailable(String),
}

/// A request with where its answer goes; whoever asked may be gone.
#[derive(Debug)]
pub enum Command {
    /// To change something.
    Change {
        /// What.
        request: Request,
        /// That it is done and written.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// To run a journey once, beside its schedule.
    Run {
        /// Which.
        which: Which,
        /// Who asks.
        by: String,
        /// The run that is about to begin.
        answer: oneshot::Sender<Result<AskedRun, Refusal>>,
    },
}

/// Asks.
#[derive(Clone, Debug)]
pub struct Commands(mpsc::Sender<Command>);

/// A way to ask, and its other end.
pub fn channel() -> (Commands, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Commands(sender), receiver)
}

impl Commands {
    /// Asks, and waits until it is done and written.
    ///
    /// # Errors
    /// It was refused, in words.
    pub async fn ask(&self, request: Request) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.answer(Command::Change { request, answer }, answered).await
    }

    /// Asks for a run of a journey, beside its schedule, and gives it as soon as it is sure to begin.
    ///
    /// # Errors
    /// It was refused, in words.
    pub async fn run(&self, which: Which, by: String) -> Result<AskedRun, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.answer(Command::Run { which, by, answer }, answered).await
    }

    async fn answer<T>(&self, command: Command, answered: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
        self.0.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::Unavailable("too many requests wait already; try again".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => Refusal::stopping(),
        })?;
        answered.await.map_err(|_| Refusal::stopping())?
    }
}

impl Refusal {
    /// Nobody takes requests any more.
    pub fn stopping() -> Refusal {
        Refusal::Unavailable("the daemon is stopping".to_owned())
    }
}

/// A drill that somebody asks for.
#[derive(Debug)]
pub struct AskedDrill {
    /// Which.
    pub order: DrillOrder,
    /// The drill that has begun; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<Record, DrillRefusal>>,
}

/// Why a drill is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillRefusal {
    /// There is no such journey.
    #[error("{0}")]
    Unknown(String),
    /// Something has precedence; it may be asked for again later.
    #[error("{0}")]
    NotNow(String),
    /// Nothing could come of it.
    #[error("{0}")]
    Pointless(String),
    /// Nobody would see the alert come in.
    #[error("drills are read back, and the configuration does not say where: `[drill] read_back = \"…\"`")]
    Nowhere,
    /// The daemon is stopping, or too busy; or it could not be written.
    #[error("{0}")]
    Unavailable(String),
}

/// Asks for drills.
#[derive(Clone, Debug)]
pub struct Drills {
    asked: mpsc::Sender<AskedDrill>,
    settings: watch::Receiver<Option<DrillSettings>>,
}

/// A way to ask for drills as the configuration has them, and its other end.
pub fn drills(settings: watch::Receiver<Option<DrillSettings>>) -> (Drills, mpsc::Receiver<AskedDrill>) {
    let (asked, receiver) = mpsc::channel(QUEUE);
    (Drills { asked, settings }, receiver)
}

impl Drills {
    /// How long a drill is given if nobody says otherwise; `None` while the configuration has no place where drills are read back.
    pub fn within(&self) -> Option<std::time::Duration> {
        self.settings.borrow().as_ref().map(|settings| settings.within)
    }

    /// Asks for a drill, and gives it as soon as it has begun.
    ///
    /// # Errors
    /// It was refused, in words.
    pub async fn ask(&self, order: DrillOrder) -> Result<Record, DrillRefusal> {
        let stopping = || DrillRefusal::Unavailable(Refusal::stopping().to_string());
        let (answer, answered) = oneshot::channel();
        self.asked.try_send(AskedDrill { order, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                DrillRefusal::Unavailable("too many requests wait already; try again".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answered.await.map_err(|_| stopping())?
    }
}

/// A wish for the configuration to be read again.
#[derive(Debug)]
pub struct Reload {
    /// Who, or what, asks.
    pub by: String,
    /// What came of it; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<Reloaded, String>>,
}

/// What a reload changed.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// In a line, for people.
    pub said: String,
    /// The same for programs.
    pub changes: serde_json::Value,
}

/// Asks for the configuration to be read again.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Reload>);

/// A way to ask for a reload, and its other end.
pub fn reloads() -> (Reloads, mpsc::Receiver<Reload>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Reloads(sender), receiver)
}

impl Reloads {
    /// Asks, and waits until it is done.
    ///
    /// # Errors
    /// Why nothing was changed: every problem of the files, in words; or that the daemon is too busy, or stopping.
    pub async fn ask(&self, by: String) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Reload { by, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ReloadError::Unavailable(Refusal::Unavailable("too many reloads wait already; try again".to_owned()))
            }
            mpsc::error::TrySendError::Closed(_) => ReloadError::Unavailable(Refusal::stopping()),
        })?;
        let result = answered.await.map_err(|_| ReloadError::Unavailable(Refusal::stopping()))?;
        result.map_err(ReloadError::NotAccepted)
    }
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The configuration has problems, or what it wants cannot be done: in words.
    #[error("{0}")]
    NotAccepted(String),
    /// Nobody looked at it.
    #[error("{0}")]
    Unavailable(Refusal),
}

/// The one that takes the calls of another service, if there is one; another one after a reload.
#[derive(Default)]
pub struct Callbacks(RwLock<Option<Arc<dyn Callback>>>);

impl Callbacks {
    /// Who takes calls now.
    pub fn now(&self) -> Option<Arc<dyn Callback>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls go there from here on.
    pub fn replace(&self, callback: Option<Arc<dyn Callback>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = callback;
    }
}

/// What people want of each breaker, on its way to who holds it. Only the owner of alert state pulls one, because it also writes
/// that down.
#[derive(Debug, Default)]
pub struct Levers {
    /// What was wanted before a restart.
    before: BTreeMap<Guarded, Order>,
    levers: RwLock<BTreeMap<Guarded, watch::Sender<Option<Order>>>>,
}

impl Levers {
    /// Levers for those who still want what they wanted before a restart.
    pub fn new(before: impl IntoIterator<Item = (Guarded, Order)>) -> Levers {
        Levers { before: before.into_iter().collect(), ..Levers::default() }
    }

    /// What was wanted before a restart.
    pub fn before(&self) -> &BTreeMap<Guarded, Order> {
        &self.before
    }

    /// What somebody wants of the breaker before `what`, from now on.
    pub fn of(&self, what: &Guarded) -> watch::Receiver<Option<Order>> {
        let mut levers = self.levers.write().unwrap_or_else(PoisonError::into_inner);
        let before = || watch::Sender::new(self.before.get(what).cloned());
        levers.entry(what.clone()).or_insert_with(before).subscribe()
    }

    /// Has it heard; `false` if there is no such breaker, or not any more.
    pub fn pull(&self, what: &Guarded, order: Option<Order>) -> bool {
        let levers = self.levers.read().unwrap_or_else(PoisonError::into_inner);
        let held = levers.get(what).filter(|lever| !lever.is_closed());
        held.inspect(|lever| drop(lever.send_replace(order))).is_some()
    }
}

/// Takes the calls of another service through which people ask; the http listener hands them over as they came.
pub trait Callback: Send + Sync {
    /// Judges a call and takes it on; what follows from it comes later. `header` gives a header that is there once.
    ///
    /// # Errors
    /// It was not taken.
    fn called(&self, header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Result<(), Denial>;
}

/// Why a call was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Whoever called is not who they say, or says it too late. Holds nothing of what they sent.
    #[error("{0}")]
    Forged(&'static str),
    /// It is signed, and makes no sense.
    #[error("{0}")]
    Unreadable(&'static str),
    /// Too many calls wait already.
    #[error("too many calls wait already; try again")]
    Busy,
}
