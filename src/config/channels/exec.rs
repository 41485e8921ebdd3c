//! `type = "exec"`: the one channel of all `exec` steps, there without being written down.

use std::path::Path;
use std::time::Duration;

use crate::channel::exec::ExecSettings;
use crate::channel::{ChannelPolicy, Settings, kind_of};
use crate::config::channels::{Channel, Grammar, NO_TIMEOUT};
use crate::config::document::{Context, Data, Section};
use crate::config::fingerprint::Identity;
use crate::config::problem::Problem;
use crate::config::secrets::{environment, is_secret_name};
use crate::config::{ChannelPlan, files, steps, values};
use crate::secret::HeaderText;

pub(super) const GRAMMAR: Grammar =
    Grammar { kind: steps::EXEC, keys: &["directory", "env", "max_output", "grace"], tables: &[], read };

/// What a program has of our environment: it finds programs, its home, and writes times and texts as everybody else here.
const INHERITED: &[&str] = &["PATH", "HOME", "LANG", "TZ"];
/// Variables of this beginning are ours to set.
const OURS: &str = "JOURNEYMAN_";
const MAX_OUTPUT: u64 = 64 << 10;
const LARGEST_OUTPUT: u64 = 16 << 20;
const GRACE: Duration = Duration::from_secs(5);
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// The channel as it is if nobody writes it down.
pub(in crate::config) fn implicit(context: &Context) -> Option<ChannelPlan> {
    let settings = Settings::Exec(ExecSettings {
        directory: directory(&context.base),
        env: inherited(),
        max_output: MAX_OUTPUT as usize,
        grace: GRACE,
    });
    let policy = ChannelPolicy { timeout: NO_TIMEOUT, ..ChannelPolicy::default() };
    Some(ChannelPlan { kind: kind_of(steps::EXEC)?, policy, settings, identity: Identity::default() })
}

fn read(section: &Section<'_>, _channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let found = section.get("directory").and_then(|node| {
        let path = files::clean(&context.base.join(context.text(node, "directory")?));
        if !path.is_dir() {
            let problem = Problem::error(&node.place, format!("{} is not a directory", path.display()));
            context.add(problem.hint("paths are relative to the daemon's file"));
        }
        Some(path)
    });
    let max_output = section.get("max_output").and_then(|node| {
        let bytes = match &node.data {
            Data::Integer(digits) => digits.parse().ok(),
            Data::Text(text) => values::size(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| (1_024..=LARGEST_OUTPUT).contains(bytes));
        if bytes.is_none() {
            let problem = Problem::error(&node.place, "`max_output` must be a size between 1KiB and 16MiB");
            context.add(problem.hint(values::SIZE_HINT));
        }
        bytes
    });
    let grace = section.duration("grace");
    if grace.is_some_and(|grace| grace > LONGEST_GRACE) {
        let problem = Problem::error(section.place_of("grace"), "`grace` is a minute at most");
        context.add(problem.hint("a program that needs longer to end can be given a longer `timeout`"));
    }
    let mut env = inherited();
    env.extend(own_environment(section));
    Some(Settings::Exec(ExecSettings {
        directory: found.unwrap_or_else(|| directory(&context.base)),
        env,
        max_output: max_output.unwrap_or(MAX_OUTPUT) as usize,
        grace: grace.unwrap_or(GRACE),
    }))
}

/// The directory of the daemon's file.
fn directory(base: &Path) -> std::path::PathBuf {
    if base.as_os_str().is_empty() { ".".into() } else { base.to_owned() }
}

fn inherited() -> Vec<(String, HeaderText)> {
    let found = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), environment(name)?)));
    found.map(|(name, value)| (name, HeaderText::Plain(value))).collect()
}

/// `env`: each variable plain or secret.
fn own_environment(section: &Section<'_>) -> Vec<(String, HeaderText)> {
    let context = section.context;
    let mut variables = Vec::new();
    let entries = section.get("env").and_then(|node| context.table(node, "env")).unwrap_or_default();
    for entry in entries {
        let is_name = !entry.key.is_empty() && !entry.key.contains(['=', '\0']);
        if !is_name || entry.key.starts_with(OURS) {
            let problem = Problem::error(&entry.key_place, format!("`{}` cannot be set", entry.key));
            let hint = if is_name { "Journeyman sets the variables of this beginning" } else { "it is no name" };
            context.add(problem.hint(hint));
            continue;
        }
        let value = match &entry.value.data {
            Data::Text(text) if !is_secret_name(&entry.key) => {
                if text.contains('\0') {
                    context.add(Problem::error(&entry.value.place, "a variable has no NUL in it"));
                }
                Some(HeaderText::Plain(text.clone()))
            }
            _ => context.secret(&entry.value, &entry.key).map(HeaderText::Secret),
        };
        variables.extend(value.map(|value| (entry.key.clone(), value)));
    }
    variables
}
