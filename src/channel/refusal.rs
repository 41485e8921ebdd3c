//! A no, in the shape that every channel has it: what kind, in which words, and whether it answers the very message.

use std::time::Duration;

use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::Fault;
use crate::time::{Human, Now};

/// A no, and what to tell people about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What kind of failure it is.
    pub(crate) cause: Cause,
    /// What happened, for people.
    pub(crate) detail: String,
    /// It answers this very message: the system has not taken it.
    pub(crate) is_verdict: bool,
}

impl Refusal {
    /// A no that came before anything was sent, or that answers the message.
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Refusal {
        Refusal { cause, detail: detail.into(), is_verdict: true }
    }

    /// The end of a connection that may have carried the message, or not.
    pub(crate) fn lost(peer: &str, why: impl std::fmt::Display) -> Refusal {
        let detail = format!("lost the connection to {peer}: {why}");
        Refusal { cause: Cause::Unreachable, detail, is_verdict: false }
    }

    /// The system said nothing in time.
    pub(crate) fn silence(doing: &str, peer: &str, waited: Duration) -> Refusal {
        let detail = format!("no answer from {peer} within {} while {doing}", Human(waited));
        Refusal { cause: Cause::Unreachable, detail, is_verdict: false }
    }

    /// Nothing was sent yet, so nothing is uncertain.
    pub(crate) fn before_sending(self) -> Refusal {
        Refusal { is_verdict: true, ..self }
    }

    /// The fault of a message on which there is no verdict is uncertain.
    pub(crate) fn into_fault(self, started: Now, finished: Now, phases: Vec<Phase>) -> Fault {
        let Refusal { cause, detail, is_verdict } = self;
        Fault { started, finished, cause, detail, uncertain: !is_verdict, phases }
    }
}
