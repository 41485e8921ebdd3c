//! What a run can come to. A failed journey is a value of these types; an `Err` means that we could not do our work.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Declares a closed enum whose variants have a stable text form, used as metric label, in the store and in messages.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The stable text form.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                $name::ALL.iter().copied().find(|v| v.as_str() == text)
                    .ok_or_else(|| format!("`{text}` is none of {}", [$($text),+].join(", ")))
            }
        }
    };
}
pub(crate) use labelled;

labelled! {
    /// Why a run failed. Closed, because it is a metric label and people write rules on it.
    Cause {
        /// No connection: name not resolved, nothing listening, connect timed out, connection reset.
        Unreachable = "unreachable",
        /// The TLS handshake failed, or the certificate is not what the journey requires.
        Tls = "tls",
        /// Our credentials were not accepted.
        Auth = "auth",
        /// The system answered and will not do this for us (4xx that is neither auth nor throttling).
        Refused = "refused",
        /// The system took the message and then said that it will not carry it (5xx, nack, permanent SMTP error).
        Rejected = "rejected",
        /// The system told us to slow down, or blocked our connection.
        Throttled = "throttled",
        /// A broker took the message and had no queue for it.
        Unroutable = "unroutable",
        /// The send ended without a verdict (timeout or reset after the bytes left) and the message never arrived.
        Uncertain = "uncertain",
        /// Sent and acknowledged, not here by the deadline.
        NotReceived = "not_received",
        /// Something came, and it is not what the journey expects.
        Mismatch = "mismatch",
        /// More copies than expected.
        Duplicate = "duplicate",
        /// Out of order.
        Reordered = "reordered",
        /// The payload was changed on its way.
        Altered = "altered",
        /// It arrived at the wrong place.
        Misrouted = "misrouted",
        /// A queue is not drained as fast as it fills.
        Backlog = "backlog",
        /// A script said so.
        Exec = "exec",
        /// The channel that the journey needs is known to be down; the channel's own alert tells why.
        Blocked = "blocked",
    }
}

labelled! {
    /// Why a slot has no verdict. Never the watched system's fault, so it spends no error budget.
    UnknownWhy {
        /// A receiving channel was not proven ready, so nothing was sent.
        NotReady = "not_ready",
        /// The ledger could not be written, so nothing was sent.
        Storage = "storage",
        /// We were stopping.
        Shutdown = "shutdown",
        /// We were not running at that time.
        Missed = "missed",
        /// The slot was skipped: the run before was still going, or no permit was free.
        Skipped = "skipped",
        /// This build cannot run the journey.
        Unavailable = "unavailable",
        /// Our own network was down: reference endpoints could not be reached either.
        Observer = "observer",
        /// A fault of ours; the log has it.
        Internal = "internal",
        /// The process ended in the middle of the run, and what came of it cannot be known any more.
        Restart = "restart",
    }
}

labelled! {
    /// Why a slot does not count.
    ExcludedWhy {
        /// A declared maintenance window.
        Maintenance = "maintenance",
        /// The journey was paused by a person.
        Paused = "paused",
        /// A run would have spent more than a channel may by that time of the day.
        Spend = "spend",
    }
}

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Right, and within the budget.
    Good {
        /// Critical-path latency, from just before the first send.
        #[serde(with = "crate::time::micros")]
        latency: Duration,
    },
    /// Right, by the deadline, over the budget.
    Slow {
        /// Critical-path latency, from just before the first send.
        #[serde(with = "crate::time::micros")]
        latency: Duration,
    },
    /// Not right, or not here by the deadline.
    Failed {
        /// The first step that failed.
        step: Arc<str>,
        /// What kind of failure it was.
        cause: Cause,
    },
    /// We cannot tell, through a fault of our own.
    Unknown {
        /// What kept us from telling.
        why: UnknownWhy,
    },
    /// The slot does not count.
    Excluded {
        /// Why not.
        why: ExcludedWhy,
    },
}

labelled! {
    /// An outcome reduced to what the SLO window keeps. A failed run whose message turned up later is `late`.
    Verdict {
        /// Delivered, in budget.
        Good = "good",
        /// Delivered, over budget.
        Slow = "slow",
        /// Not delivered.
        Failed = "failed",
        /// Not delivered by the deadline, arrived afterwards.
        Late = "late",
        /// No verdict, through a fault of ours.
        Unknown = "unknown",
        /// Does not count.
        Excluded = "excluded",
    }
}

impl Outcome {
    /// The outcome as the SLO window keeps it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Outcome::Good { .. } => Verdict::Good,
            Outcome::Slow { .. } => Verdict::Slow,
            Outcome::Failed { .. } => Verdict::Failed,
            Outcome::Unknown { .. } => Verdict::Unknown,
            Outcome::Excluded { .. } => Verdict::Excluded,
        }
    }

    /// The cause, the reason for not knowing, or the empty string: the `cause` label of the run counter.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Good { .. } | Outcome::Slow { .. } => "",
            Outcome::Failed { cause, .. } => cause.as_str(),
            Outcome::Unknown { why } => why.as_str(),
            Outcome::Excluded { why } => why.as_str(),
        }
    }

    /// Why it failed, if it did.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Outcome::Failed { cause, .. } => Some(*cause),
            _ => None,
        }
    }

    /// The measured latency, where there is one.
    pub fn latency(&self) -> Option<Duration> {
        match self {
            Outcome::Good { latency } | Outcome::Slow { latency } => Some(*latency),
            _ => None,
        }
    }
}
