//! Configuration: `load` gives a plan, or every problem that the files have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::channel::{self, ChannelPolicy};
use crate::journey::{Journey, Name};
use crate::notifier;
use crate::secret::{Redactor, Secret};

/// All that a process needs to know, checked.
#[derive(Debug)]
pub struct Plan {
    /// The journeys, in the order of their files. Disabled ones are not among them.
    pub journeys: Vec<Arc<Journey>>,
    /// The channels.
    pub channels: BTreeMap<Name, ChannelPlan>,
    /// The notifiers.
    pub notifiers: BTreeMap<Name, NotifierPlan>,
    /// The listener for metrics, health, pages and API.
    pub http: HttpPlan,
    /// The listener for inbound webhooks; needed only if a channel is one.
    pub hooks: Option<HooksPlan>,
    /// Where state is kept.
    pub store: StorePlan,
    /// How to log.
    pub log: LogPlan,
    /// Where we look from: a label on every metric, run and alert.
    pub location: Option<String>,
    /// Runs in flight at most; a quarter is kept for critical journeys.
    pub max_runs: usize,
    /// Knows every secret of the configuration.
    pub redactor: Redactor,
}

/// A channel to be opened.
#[derive(Clone, Debug)]
pub struct ChannelPlan {
    /// The value of `type`.
    pub kind: &'static channel::Kind,
    /// What every channel has.
    pub policy: ChannelPolicy,
    /// What its kind has.
    pub settings: channel::Settings,
}

/// A notifier to be built.
#[derive(Clone, Debug)]
pub struct NotifierPlan {
    /// What its kind has.
    pub settings: notifier::Settings,
    /// Who is told instead when this one has not taken a notice for `fallback_after`, or at once if it never will.
    pub fallback: Option<Name>,
    /// How long to wait for it.
    pub fallback_after: Duration,
}

/// The listener for metrics, health, pages and API.
#[derive(Clone, Debug)]
pub struct HttpPlan {
    /// Its address.
    pub listen: SocketAddr,
    /// How people reach it; links in notices need it.
    pub public_url: Option<Url>,
    /// Without it every mutating route answers 404.
    pub admin_token: Option<Secret>,
}

/// The listener for inbound webhooks.
#[derive(Clone, Debug)]
pub struct HooksPlan {
    /// Its address.
    pub listen: SocketAddr,
    /// How callers reach it; schemes that sign the URL need it.
    pub public_url: Option<Url>,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long runs are kept.
    pub keep_runs: Duration,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct LogPlan {
    /// As JSON, one object a line.
    pub json: bool,
    /// A `tracing` filter: `info`, `journeyman=debug`.
    pub level: String,
}
