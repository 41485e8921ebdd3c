//! Configuration: [`load`] gives a plan, or every problem that the files have.
//!
//! Each file becomes a tree in which everything knows its place (`document`). Tables that a key tells apart (`type`, a
//! step's verb) are taken apart by hand, so that a problem points at the bytes that it is about.

mod address;
mod alerting;
mod channels;
mod daemon;
mod dependencies;
mod difference;
mod document;
mod drill;
mod expectations;
pub mod experiment;
mod files;
mod fingerprint;
mod journeys;
mod lint;
mod locations;
mod maintenance;
mod merge;
mod names;
mod notifiers;
mod parts;
pub mod places;
pub mod problem;
pub mod schema;
mod secrets;
mod spend;
mod status_page;
mod steps;
mod templates;
mod values;
pub mod watcher;
mod web;
mod wording;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::channel::{self, ChannelPolicy};
pub use crate::config::difference::{Difference, Names};
use crate::config::document::{Context, Data, Node};
pub use crate::config::files::Stamp;
pub use crate::config::fingerprint::Identity;
pub use crate::config::names::{no_journey, not_there, some_of};
pub use crate::config::parts::{Apart, Parts};
use crate::config::problem::{Place, Source};
pub use crate::config::problem::{Problem, Severity, render, sketch};
use crate::config::watcher::WatcherPlan;
use crate::control::Route;
use crate::control::status_page::StatusPage;
use crate::drill::DrillSettings;
use crate::incident::root::ResourceKind;
use crate::journey::trace_url::TraceUrl;
use crate::journey::{Dependency, Journey, Name};
use crate::notifier;
use crate::secret::{Redactor, Secret};
use crate::store::reading::Home;

/// Loads the daemon's file at `path` and the probe files that it names. Beside the plan stand the problems that are not
/// errors.
///
/// # Errors
/// Every problem of all files, in their order. Nothing is applied then.
pub fn load(path: &Path) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    reload(path, &Redactor::new())
}

/// As [`load`]; what is secret in it is known to `redactor` from then on, also if the load fails.
///
/// # Errors
/// As [`load`].
pub fn reload(path: &Path, redactor: &Redactor) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    read_and_plan(Context::new(path.parent().unwrap_or(Path::new("")).to_owned()).knowing(redactor), path)
}

/// Reads all files, and makes the plan of them.
fn read_and_plan(context: Context, path: &Path) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let main = read_file(&context, path, 0, None).and_then(|source| Node::parse(&context, &source));
    let patterns = main.as_ref().and_then(|main| main.get("probes"));
    let files = patterns.map(|node| probe_files(&context, node)).unwrap_or_default();
    let probes = files.iter().zip(1..).map(|((path, place), order)| read_file(&context, path, order, Some(place)));
    let probes = probes.collect();
    plan(context, main, probes)
}

/// As [`load`], with one probe file instead of those that the daemon's file names.
///
/// # Errors
/// As [`load`].
pub fn load_instead(path: &Path, probes: &Path) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let context = Context::new(path.parent().unwrap_or(Path::new("")).to_owned());
    let main = read_file(&context, path, 0, None).and_then(|source| Node::parse(&context, &source));
    let probes = vec![read_file(&context, probes, 1, None)];
    plan(context, main, probes)
}

/// A duration as the configuration has them: `30d`.
///
/// # Errors
/// It is none, in words.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    crate::time::parse_duration(text).map_err(|error| format!("{error}: {}", values::DURATION_HINT))
}

/// As [`load`], from texts with names to show in problems. Paths in them are relative to `base`; `probes` in the daemon's
/// text is not followed.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    name: &str,
    text: &str,
    probes: &[(&str, &str)],
    base: &Path,
) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let context = Context::new(base.to_owned());
    let main = Node::parse(&context, &Source::new(name, text, 0));
    let probes = probes.iter().zip(1..).map(|((name, text), order)| Some(Source::new(name, text, order))).collect();
    plan(context, main, probes)
}

/// The plan of all files. A file that is not there or not TOML makes the load fail, and the others are checked all the same.
fn plan(
    mut context: Context,
    main: Option<Node>,
    probes: Vec<Option<Arc<Source>>>,
) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
    let all = probes.len();
    let probes: Vec<Node> = probes.into_iter().flatten().filter_map(|source| Node::parse(&context, &source)).collect();
    context.is_incomplete = probes.len() < all;
    // Without the daemon's file nothing is known of what the journeys refer to.
    let plan = main.map(|main| daemon::plan(&context, &main, &probes));
    let failed = context.error_count() > 0;
    let problems = problem::sort(context.into_problems());
    match plan {
        Some(plan) if !failed => Ok((plan, problems)),
        _ => Err(problems),
    }
}

/// Reads a file. `named_by` is where its name stands, if another file has it.
fn read_file(context: &Context, path: &Path, order: usize, named_by: Option<&Place>) -> Option<Arc<Source>> {
    let shown = files::clean(path).display().to_string();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let nowhere = Place::new(&Source::new(&shown, "", order), 0..0);
            let problem = Problem::error(named_by.unwrap_or(&nowhere), format!("cannot read {shown}: {error}"));
            let is_first = order == 0 && error.kind() == ErrorKind::NotFound;
            context.add(problem.maybe_hint(is_first.then(|| names::elsewhere(path))));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Source::new(&shown, &text, order)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let source = Source::new(&shown, &String::from_utf8_lossy(error.as_bytes()), order);
            secrets::hide_by_name(&source);
            secrets::hide_passwords(&source);
            context.add(Problem::error(&Place::new(&source, at..at + 1), "this is not UTF-8, as TOML has to be"));
            None
        }
    }
}

/// The files that the patterns under `probes` name, each once, with where its pattern stands.
fn probe_files(context: &Context, node: &Node) -> Vec<(PathBuf, Place)> {
    let mut files: Vec<(PathBuf, Place)> = Vec::new();
    let Data::List(patterns) = &node.data else {
        context.expected(node, "probes", "a list of strings, as in `[\"../probes/*.toml\"]`");
        return files;
    };
    for node in patterns {
        let Some(pattern) = context.text(node, "probes") else { continue };
        match files::expand(&context.base.join(pattern)) {
            Ok(found) if found.is_empty() => {
                let problem = Problem::warning(&node.place, format!("no file matches `{pattern}`"));
                context.add(problem.hint("patterns are relative to this file"));
            }
            Ok(found) => {
                for path in found {
                    if !files.iter().any(|(other, _)| files::clean(other) == files::clean(&path)) {
                        files.push((path, node.place.clone()));
                    }
                }
            }
            Err(error) => context.add(Problem::error(&node.place, format!("cannot look for files: {error}"))),
        }
    }
    files
}

/// All that a process needs to know, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The journeys, in the order of their files. Disabled ones are not among them.
    pub journeys: Vec<Arc<Journey>>,
    /// The channels.
    pub channels: BTreeMap<Name, ChannelPlan>,
    /// The notifiers.
    pub notifiers: BTreeMap<Name, NotifierPlan>,
    /// What others promise of the systems that journeys depend on.
    pub dependencies: BTreeMap<Name, Dependency>,
    /// The listener for metrics, health, pages and API.
    pub http: HttpPlan,
    /// What everybody may see.
    pub status_page: Option<StatusPage>,
    /// The listener for inbound webhooks; needed only if a channel is one.
    pub hooks: Option<HooksPlan>,
    /// Where state is kept.
    pub store: StorePlan,
    /// How to log.
    pub log: LogPlan,
    /// Who is told instead of those that journeys name.
    pub routes: Vec<Route>,
    /// Who is told of channels and of the daemon itself.
    pub operators: Vec<Name>,
    /// What makes failing journeys members of one incident.
    pub group_by: Vec<ResourceKind>,
    /// More incidents than these within a minute are told in one message.
    pub digest_after: usize,
    /// Where we look from: a label on every metric, run and alert.
    pub location: Option<String>,
    /// Runs in flight at most; a quarter is kept for critical journeys.
    pub max_runs: usize,
    /// Whether the configuration is read again when its files change.
    pub reload_on_change: bool,
    /// Who watches the watcher.
    pub watcher: WatcherPlan,
    /// Drills, if there is a place where they are read back.
    pub drill: Option<DrillSettings>,
    /// What all files come to in a few digits, as a whole and part by part.
    pub parts: Parts,
    /// Knows every secret of the configuration.
    pub redactor: Redactor,
    /// What the definition of each journey is: another one is another journey.
    definitions: BTreeMap<Name, Identity>,
    /// The tables and keys of the daemon's file that are there, by name.
    sections: BTreeMap<&'static str, Identity>,
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
    /// What its definition is.
    identity: Identity,
}

impl ChannelPlan {
    /// A channel that nobody wrote down: the same in every plan that has it.
    pub fn own(kind: &'static channel::Kind, settings: channel::Settings) -> ChannelPlan {
        ChannelPlan { kind, policy: ChannelPolicy::default(), settings, identity: Identity::default() }
    }
}

/// A notifier to be built.
#[derive(Clone, Debug)]
pub struct NotifierPlan {
    /// What its kind has.
    pub settings: notifier::Settings,
    /// Texts of people's own.
    pub templates: notifier::template::Templates,
    /// Who is told instead when this one has not taken a notice for `fallback_after`, or at once if it never will.
    pub fallback: Option<Name>,
    /// How long to wait for it.
    pub fallback_after: Duration,
    /// Whether the daemon starts only if it is there: it is proven at the start. `Some(false)` is proven and only told.
    pub required: Option<bool>,
    /// What its definition is.
    identity: Identity,
}

/// The listener for metrics, health, pages and API.
#[derive(Clone, Debug)]
pub struct HttpPlan {
    /// Its address.
    pub listen: SocketAddr,
    /// How people reach it; links in notices need it.
    pub public_url: Option<Url>,
    /// Where the logs of a run are; its page links to them.
    pub trace_url: Option<TraceUrl>,
    /// Without it every mutating route answers 404.
    pub admin_token: Option<Secret>,
    /// Who may come in, and how: a `web.yml` as Prometheus has it.
    pub web_config: Option<PathBuf>,
}

/// The listener for inbound webhooks.
#[derive(Clone, Debug)]
pub struct HooksPlan {
    /// Its address.
    pub listen: SocketAddr,
    /// How callers reach it; schemes that sign the URL need it.
    pub public_url: Option<Url>,
    /// Who may come in, and how: a `web.yml` as Prometheus has it.
    pub web_config: Option<PathBuf>,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// In which file, or on which server.
    pub home: Home,
    /// How long runs are kept.
    pub keep_runs: Duration,
    /// Where a daemon that is cut off from the server keeps what it sees and tells: in which directory.
    pub spool: Option<PathBuf>,
}

/// How to log.
#[derive(Clone, Debug)]
pub struct LogPlan {
    /// As JSON, one object a line.
    pub json: bool,
    /// A `tracing` filter: `info`, `journeyman=debug`.
    pub level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that the loader knows, by the heading in `docs/configuration.md` that they stand under.
    fn known() -> Vec<(&'static str, Vec<&'static str>)> {
        let message = [steps::MESSAGE_KEYS, &["headers", "poll"]].concat();
        let (predicates, queries) = expectations::keys()
            .into_iter()
            .partition(|key| expectations::predicates().any(|name| name == *key) || ["message", "soft"].contains(key));
        vec![
            ("Secrets", secrets::SECRET_KEYS.to_vec()),
            ("The daemon's file", daemon::KEYS.to_vec()),
            ("http", daemon::HTTP_KEYS.to_vec()),
            ("hooks", daemon::HOOKS_KEYS.to_vec()),
            ("store", daemon::STORE_KEYS.to_vec()),
            ("log", daemon::LOG_KEYS.to_vec()),
            ("self_journey", watcher::OWN_KEYS.to_vec()),
            ("dead_man", watcher::DEAD_MAN_KEYS.to_vec()),
            ("observer", watcher::OBSERVER_KEYS.to_vec()),
            ("drill", drill::KEYS.to_vec()),
            ("dependencies", dependencies::KEYS.to_vec()),
            ("maintenance", maintenance::KEYS.to_vec()),
            ("alerting", alerting::KEYS.to_vec()),
            ("route", alerting::ROUTE_KEYS.to_vec()),
            ("status_page", status_page::KEYS.to_vec()),
            ("component", status_page::COMPONENT_KEYS.to_vec()),
            ("hours", alerting::HOURS_KEYS.to_vec()),
            ("escalate", alerting::ESCALATION_KEYS.to_vec()),
            ("Channels", channels::COMMON_KEYS.to_vec()),
            ("spend", spend::KEYS.to_vec()),
            ("Notifiers", notifiers::COMMON_KEYS.to_vec()),
            ("slack notifier", notifiers::SLACK_KEYS.to_vec()),
            ("email notifier", notifiers::EMAIL_KEYS.to_vec()),
            ("template", wording::EMAIL_KEYS.to_vec()),
            ("webhook notifier", notifiers::WEBHOOK_KEYS.to_vec()),
            ("pagerduty notifier", notifiers::PAGERDUTY_KEYS.to_vec()),
            ("alertmanager notifier", notifiers::ALERTMANAGER_KEYS.to_vec()),
            ("Journeys", journeys::KEYS.to_vec()),
            ("objective", journeys::OBJECTIVE_KEYS.to_vec()),
            ("alert", journeys::ALERT_KEYS.to_vec()),
            ("Steps", [steps::VERBS, steps::COMMON_KEYS].concat()),
            ("send and request", message),
            ("poll", steps::POLL_KEYS.to_vec()),
            ("receive", steps::RECEIVE_KEYS.to_vec()),
            ("check and exec", [steps::CHECK_KEYS, steps::EXEC_KEYS].concat()),
            ("Queries", queries),
            ("Predicates", predicates),
        ]
    }

    /// The keys of the tables in a page, by the heading that they stand under.
    fn documented(text: &str) -> BTreeMap<&str, Vec<&str>> {
        let mut documented: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut heading = "";
        for line in text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim();
            } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` |"))
                && rest.matches('|').count() == 3
            {
                documented.entry(heading).or_default().push(key);
            }
        }
        documented
    }

    fn assert_documented(page: &str, rows: &mut BTreeMap<&str, Vec<&str>>, heading: &str, keys: &[&str]) {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let mut rows = rows.remove(heading).unwrap_or_default();
        rows.sort_unstable();
        assert_eq!(rows, keys, "{page}, under {heading}");
    }

    #[test]
    fn the_reference_has_every_key_and_no_other() {
        let mut rows = documented(include_str!("../docs/configuration.md"));
        for (heading, keys) in known() {
            assert_documented("docs/configuration.md", &mut rows, heading, &keys);
        }
        assert!(rows.is_empty(), "{rows:?}");
    }

    #[test]
    fn every_kind_of_channel_has_a_page_with_its_keys_and_a_row_in_the_reference() {
        let reference = include_str!("../docs/configuration.md");
        for kind in channel::KINDS.iter().filter(|kind| kind.available == channel::Availability::Here) {
            let page = format!("docs/channels/{}.md", kind.name);
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&page));
            let text = text.unwrap_or_else(|error| panic!("{page}: {error}"));
            let mut rows = documented(&text);
            let grammar = channels::GRAMMARS.iter().find(|grammar| grammar.kind == kind.name);
            let grammar = grammar.unwrap_or_else(|| panic!("nobody reads the keys of `{}`", kind.name));
            assert_documented(&page, &mut rows, "Keys", grammar.keys);
            assert_documented(&page, &mut rows, "Step keys", kind.fields);
            assert_documented(&page, &mut rows, "Check keys", kind.check_fields);
            for (table, keys) in grammar.tables {
                assert_documented(&page, &mut rows, table, keys);
            }
            assert!(
                reference.contains(&format!("| [`{0}`](channels/{0}.md) |", kind.name)),
                "no row for {}",
                kind.name
            );
        }
    }
}
