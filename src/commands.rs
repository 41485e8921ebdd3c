//! What people ask of the running daemon, on its way to the sole owner of alert state, and the answer.

use tokio::sync::{mpsc, oneshot};

use crate::control::{Ack, Silence};
use crate::journey::Name;

/// Requests that wait at most.
const QUEUE: usize = 64;

/// Something that a person asks for.
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
    /// To run a journey now; the run is no slot of its own.
    RunNow {
        /// Which.
        journey: Name,
    },
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such incident, silence or journey.
    #[error("{0}")]
    Unknown(String),
    /// The daemon is stopping, or too busy; or it could not be written.
    #[error("{0}")]
    Unavailable(String),
}

/// A request with where its answer goes.
#[derive(Debug)]
pub struct Command {
    /// The request.
    pub request: Request,
    /// Where the answer goes; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<(), Refusal>>,
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
        let unavailable = |why: &str| Refusal::Unavailable(why.to_owned());
        self.0.try_send(Command { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unavailable("too many requests wait already; try again"),
            mpsc::error::TrySendError::Closed(_) => unavailable("the daemon is stopping"),
        })?;
        answered.await.map_err(|_| unavailable("the daemon is stopping"))?
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
