//! The daemon's own tables: listeners, store, log; and the plan of everything.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::http::HttpSettings;
use crate::channel::{self, ChannelPolicy, kind_of};
use crate::config::channels::{self, Channel};
use crate::config::document::{Context, Data, Node, Section};
use crate::config::fingerprint::Identity;
use crate::config::journeys::{self, Catalog, Loaded};
use crate::config::merge::Fragments;
use crate::config::notifiers::{self, Notifier};
use crate::config::problem::Problem;
use crate::config::{
    ChannelPlan, HooksPlan, HttpPlan, LogPlan, Parts, Plan, StorePlan, alerting, dependencies, drill, files, locations,
    maintenance, spend, status_page, steps, values, watcher, web,
};
use crate::control::Route;
use crate::journey::trace_url::TraceUrl;
use crate::journey::{Journey, Name, Verb};
#[cfg(feature = "postgres")]
use crate::secret::{Redactor, Secret};
#[cfg(feature = "postgres")]
use crate::store::postgres::{check_url, password_of};
use crate::store::reading::Home;

pub(super) const KEYS: &[&str] = &[
    "probes",
    "location",
    "max_runs",
    "reload_on_change",
    "allow_exec",
    "http",
    "hooks",
    "store",
    "log",
    "self_journey",
    "dead_man",
    "observer",
    "drill",
    "defaults",
    "fragment",
    "channels",
    "notifiers",
    "maintenance",
    "dependencies",
    "alerting",
    "route",
    "status_page",
    "journey",
];
pub(super) const PROBE_KEYS: &[&str] = &["journey", "fragment"];
pub(super) const HTTP_KEYS: &[&str] = &["listen", "public_url", "trace_url", "admin_token", "web_config"];
pub(super) const HOOKS_KEYS: &[&str] = &["listen", "public_url", "web_config"];
pub(super) const STORE_KEYS: &[&str] = &["url", "keep_runs", "spool"];
pub(super) const LOG_KEYS: &[&str] = &["format", "level"];

const HTTP_LISTEN: &str = "127.0.0.1:9464";
const HOOKS_LISTEN: &str = "127.0.0.1:9465";
const MAX_RUNS: usize = 512;
const DATABASE: &str = "journeyman.db";
const KEEP_RUNS: Duration = Duration::from_secs(90 * 86_400);

/// The plan of a daemon's file and its probe files.
pub(super) fn plan(context: &Context, main: &Node, probes: &[Node]) -> Plan {
    // The root of a document is a table, so it can always be opened.
    let root = Section::open(context, main, "file", KEYS);
    for probe in probes {
        let _ = Section::open_or(context, probe, "file", PROBE_KEYS, |key| {
            KEYS.contains(&key)
                .then(|| "this belongs in the daemon's file; probe files hold journeys and fragments".to_owned())
        });
    }
    let get = |key: &str| root.as_ref().and_then(|root| root.get(key));
    let http = http(context, get("http"));
    if let Some(node) = get("hooks").and_then(|hooks| hooks.get("public_url")) {
        context.hooks_url.get_or_init(|| node.clone());
    }
    let channels = channels::read(context, get("channels"));
    let notifiers = notifiers::read(context, get("notifiers"));
    notifiers::check_rung(context, get("channels"), &channels, &notifiers);
    let routes = alerting::routes(context, get("route"), &notifiers);
    let operators = get("alerting").and_then(|node| alerting::operators(context, node, &notifiers));
    let location = get("location").and_then(|node| locations::own(context, node));
    let location = location.as_deref();
    let store = store(context, get("store"));
    let files = || [main].into_iter().chain(probes);
    let catalog = Catalog {
        channels: &channels,
        notifiers: &notifiers,
        routes: &routes,
        required: watcher::required(get("dead_man")),
        fragments: Fragments::read(context, files().filter_map(|file| file.get("fragment"))),
        defaults: get("defaults"),
        location,
        shares: store.home.is_shared(),
        needs_implicit: Cell::new(false),
        allow_exec: root.as_ref().is_some_and(|root| root.bool("allow_exec", false)),
        needs_exec: Cell::new(false),
    };
    let mut journeys = journeys::read(context, &catalog, files().filter_map(|file| file.get("journey")));
    maintenance::read(context, get("maintenance"), &mut journeys);
    let drill = drill::read(context, get("drill"), &channels, &notifiers, &journeys);
    let declared = dependencies::read(context, get("dependencies"));
    if !context.is_incomplete {
        catalog.fragments.check_used(context);
        dependencies::check(context, &declared, &journeys);
        for (name, channel) in &channels {
            spend::check(context, name, channel, &journeys);
        }
        if !journeys.is_empty() {
            alerting::check_routes(context, &routes, &journeys, location);
            let drilled = drill.as_ref().map(|drill| drill.notify.as_slice()).unwrap_or_default();
            check_told(context, &notifiers, &journeys, &routes, operators.as_deref(), drilled);
        } else {
            let problem = Problem::warning(&main.place, "there is no journey in these files");
            context.add(problem.hint("`probes = [\"probes/*.toml\"]` names the files that have them"));
        }
    }
    let hooks = hooks(context, get("hooks"), &channels, &http);
    let watcher = watcher::read(context, get, &journeys);
    let status_page = status_page::read(context, get("status_page"), &journeys);
    let max_runs =
        root.as_ref().and_then(|root| root.whole("max_runs", 4..=100_000)).map_or(MAX_RUNS, |most| most as usize);
    let (location, needs_implicit) = (location.map(str::to_owned), catalog.needs_implicit.get());
    #[cfg(feature = "exec")]
    let needs_exec = catalog.needs_exec.get();
    if let Some(places) = &context.places {
        journeys.iter().for_each(|loaded| places.borrow_mut().add(loaded));
    }
    let active: Vec<_> = journeys.into_iter().filter(|loaded| loaded.is_active).collect();
    // In maintenance a journey is another one, too.
    let definition =
        |loaded: &Loaded| Identity::of(loaded.steps.iter().chain([&loaded.node]).chain(get("maintenance")));
    let definitions = active.iter().map(|loaded| (loaded.journey.name.clone(), definition(loaded))).collect();
    let mut opened: BTreeMap<Name, ChannelPlan> =
        channels.into_iter().filter_map(|(name, channel)| Some((name, channel.plan?))).collect();
    if let (true, Some(kind)) = (needs_implicit, kind_of(steps::IMPLICIT)) {
        let settings = channel::Settings::Http(HttpSettings::default());
        opened.insert(
            steps::IMPLICIT.into(),
            ChannelPlan { kind, policy: ChannelPolicy::default(), settings, identity: Identity::default() },
        );
    }
    #[cfg(feature = "exec")]
    if needs_exec && !opened.contains_key(steps::EXEC) {
        opened.extend(channels::exec::implicit(context).map(|plan| (steps::EXEC.into(), plan)));
    }
    let journeys = active.into_iter().map(|loaded| Arc::new(with_timeouts(loaded.journey, &opened)));
    let mut journeys: Vec<_> = journeys.collect();
    // It is collected in the place of what was read, which is fifty times as large.
    journeys.shrink_to_fit();
    let routes: Vec<_> = routes.into_iter().map(|loaded| loaded.route).collect();
    Plan {
        group_by: alerting::group_by(context, get("alerting")),
        digest_after: alerting::digest_after(context, get("alerting")),
        operators: operators.unwrap_or_else(|| everybody(&journeys, &routes)),
        routes,
        journeys,
        channels: opened,
        notifiers: notifiers.into_iter().filter_map(|(name, notifier)| Some((name, notifier.plan?))).collect(),
        dependencies: declared.into_iter().map(|(name, declared)| (name, declared.dependency)).collect(),
        http,
        status_page,
        hooks,
        store,
        log: log(context, get("log")),
        location,
        max_runs,
        reload_on_change: root.as_ref().is_none_or(|root| root.bool("reload_on_change", true)),
        watcher,
        drill,
        parts: Parts::of(main, probes),
        redactor: context.redactor.clone(),
        definitions,
        sections: KEYS.iter().filter_map(|key| Some((*key, Identity::of([get(key)?])))).collect(),
    }
}

/// Who is told of any journey, and so of the daemon itself if nothing is said about that.
fn everybody(journeys: &[Arc<Journey>], routes: &[Route]) -> Vec<Name> {
    let journeys = journeys.iter().flat_map(|journey| &journey.notify);
    let told: BTreeSet<_> = journeys.chain(routes.iter().flat_map(|route| &route.notify)).cloned().collect();
    told.into_iter().collect()
}

/// A step that sets no limit of its own has its channel's; a program's is the whole deadline unless its channel says otherwise.
fn with_timeouts(mut journey: Journey, channels: &BTreeMap<Name, ChannelPlan>) -> Journey {
    for step in &mut journey.steps {
        if let Verb::Send(draft) | Verb::Request(draft) | Verb::Check(draft) = &step.verb {
            step.timeout = step.timeout.or_else(|| channels.get(&draft.channel).map(|channel| channel.policy.timeout));
        }
        if let Verb::Exec(draft) = &step.verb {
            let limit = channels.get(&draft.channel).map(|channel| channel.policy.timeout.min(journey.deadline));
            step.timeout = step.timeout.or(limit);
        }
    }
    journey
}

/// Says which notifiers nobody is ever told by.
fn check_told(
    context: &Context,
    notifiers: &BTreeMap<Name, Notifier>,
    journeys: &[Loaded],
    routes: &[alerting::LoadedRoute],
    operators: Option<&[Name]>,
    drilled: &[Name],
) {
    let named = journeys.iter().flat_map(|loaded| &loaded.journey.notify);
    let routed = routes.iter().flat_map(|loaded| loaded.route.everybody());
    let named = named.chain(routed).chain(operators.into_iter().flatten());
    let told: BTreeSet<&Name> = named.chain(drilled).flat_map(|name| notifiers::chain(notifiers, name)).collect();
    for (name, notifier) in notifiers.iter().filter(|(name, _)| !told.contains(name)) {
        let problem = Problem::warning(&notifier.place, format!("no journey tells anybody by `{name}`"));
        context.add(problem.hint(format!("`notify = [\"{name}\"]` in a journey, in [defaults] or in a [[route]]")));
    }
}

/// `[http]`
pub(super) fn http(context: &Context, node: Option<&Node>) -> HttpPlan {
    let section = node.and_then(|node| Section::open(context, node, "http", HTTP_KEYS));
    let section = section.as_ref();
    let (listen, web) = (listen(section, HTTP_LISTEN), section.and_then(web::read));
    if let Some(section) = section {
        web::check_http(section, listen, web.as_ref().map(|(_, rules)| rules));
    }
    HttpPlan {
        listen,
        public_url: public_url(section),
        trace_url: section.and_then(trace_url),
        admin_token: section.and_then(|section| context.secret(section.get("admin_token")?, "admin_token")),
        web_config: web.map(|(path, _)| path),
    }
}

/// `[hooks]`; there if it is written down or a webhook channel needs it.
pub(super) fn hooks(
    context: &Context,
    node: Option<&Node>,
    channels: &BTreeMap<Name, Channel>,
    http: &HttpPlan,
) -> Option<HooksPlan> {
    let is_webhook = |channel: &Channel| channel.kind.is_some_and(|kind| kind.name == "webhook");
    if node.is_none() && !channels.values().any(is_webhook) {
        return None;
    }
    let section = node.and_then(|node| Section::open(context, node, "hooks", HOOKS_KEYS));
    let section = section.as_ref();
    let (listen, web) = (listen(section, HOOKS_LISTEN), section.and_then(web::read));
    if let Some((section, (_, rules))) = section.zip(web.as_ref()) {
        web::check_hooks(section, listen, rules, channels.values());
    }
    let plan = HooksPlan { listen, public_url: public_url(section), web_config: web.map(|(path, _)| path) };
    if plan.listen == http.listen && plan.listen.port() != 0 {
        let place = section.map(|section| section.get("listen").map_or(&section.node.place, |node| &node.place));
        if let Some(place) = place {
            let problem = Problem::error(place, format!("[http] listens at {} already", plan.listen));
            context.add(problem.hint("callers from outside have a listener of their own, without pages and metrics"));
        }
    }
    Some(plan)
}

fn listen(section: Option<&Section<'_>>, default: &str) -> SocketAddr {
    let found = section.and_then(|section| {
        let node = section.get("listen")?;
        let text = section.context.text(node, "listen")?;
        let address = text.parse().ok();
        if address.is_none() {
            let problem = Problem::error(&node.place, format!("`{text}` is not an address to listen at"));
            section
                .context
                .add(problem.hint("write an IP address and a port, as in \"127.0.0.1:9464\" or \"[::]:9464\""));
        }
        address
    });
    found.unwrap_or_else(|| default.parse().expect("a valid address"))
}

fn public_url(section: Option<&Section<'_>>) -> Option<url::Url> {
    let section = section?;
    section.context.url(section.get("public_url")?, "public_url", &["https", "http"])
}

fn trace_url(section: &Section<'_>) -> Option<TraceUrl> {
    let node = section.get("trace_url")?;
    let read = TraceUrl::parse(section.context.text(node, "trace_url")?);
    let hint = "as in `trace_url = \"https://logs.example.net/?q={{ trace_id }}\"`";
    read.map_err(|why| section.context.add(Problem::error(&node.place, why).hint(hint))).ok()
}

/// `[store]`
pub(super) fn store(context: &Context, node: Option<&Node>) -> StorePlan {
    let section = node.and_then(|node| Section::open(context, node, "store", STORE_KEYS));
    let home = section.as_ref().and_then(|section| home(context, section.get("url")?));
    let home = home.unwrap_or_else(|| Home::Sqlite(files::clean(&context.base.join(DATABASE))));
    StorePlan {
        spool: section.as_ref().and_then(|section| spool(section, &home)),
        home,
        keep_runs: section.and_then(|section| section.duration("keep_runs")).unwrap_or(KEEP_RUNS),
    }
}

/// `spool`: a file is never out of reach.
fn spool(section: &Section<'_>, home: &Home) -> Option<PathBuf> {
    let node = section.get("spool")?;
    let context = section.context;
    let path = files::clean(&context.base.join(context.text(node, "spool")?));
    if matches!(home, Home::Sqlite(_)) {
        let problem = Problem::error(&node.place, "`spool` is for a store on a server, and this one is a file");
        context.add(problem.hint("take it out, or write `url = \"postgres://user@host/database\"`"));
        return None;
    }
    Some(path)
}

/// `url`: a file's may stand there as it is; a server's may be elsewhere, because of the password in it.
fn home(context: &Context, node: &Node) -> Option<Home> {
    if !matches!(node.data, Data::Text(_) | Data::Table(_)) {
        context.expected(node, "url", "a place to keep state");
        return None;
    }
    if let Some(text) = node.as_text().filter(|text| !is_postgres(text)) {
        return match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() && !path.starts_with("//") => {
                Some(Home::Sqlite(files::clean(&context.base.join(path))))
            }
            _ => {
                let problem = Problem::error(&node.place, "this is not a place to keep state");
                let hint = format!(
                    "write `url = \"sqlite:{DATABASE}\"`, a path relative to this file, or \
                     `url = \"postgres://user@host/database\"`"
                );
                context.add(problem.hint(hint));
                None
            }
        };
    }
    behind_url(context, node)
}

fn is_postgres(url: &str) -> bool {
    ["postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme))
}

#[cfg(feature = "postgres")]
fn behind_url(context: &Context, node: &Node) -> Option<Home> {
    let nobody = Redactor::new();
    let url = match &node.data {
        Data::Text(text) => {
            // The redactor must not learn an address without a secret in it: it would blacken every page.
            let hidden = password_of(text).is_some();
            if hidden {
                let problem = Problem::warning(&node.place, "`url` has a literal secret in it: the password");
                context
                    .add(problem.hint("put the URL in a file that only Journeyman can read: `url = { file = \"…\" }`"));
            }
            Secret::new(text.clone(), if hidden { &context.redactor } else { &nobody })
        }
        _ => context.secret(node, "url")?,
    };
    let revealed = url.reveal();
    if let Err((why, form)) = check_url(&revealed) {
        context.add(Problem::error(&node.place, format!("`url` cannot be used: {why}")).hint(form));
        return None;
    }
    if let Some((user, password)) = password_of(&revealed) {
        context.redactor.add_password(&user, &password);
    }
    Some(Home::Postgres(url))
}

#[cfg(not(feature = "postgres"))]
fn behind_url(context: &Context, node: &Node) -> Option<Home> {
    let problem = Problem::error(&node.place, "this build keeps no state in PostgreSQL");
    let hint =
        format!("it was built without the feature `postgres`; build with it, or write `url = \"sqlite:{DATABASE}\"`");
    context.add(problem.hint(hint));
    None
}

/// `[log]`
pub(super) fn log(context: &Context, node: Option<&Node>) -> LogPlan {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    let mut plan = LogPlan { json: false, level: "info".to_owned() };
    let Some(section) = node.and_then(|node| Section::open(context, node, "log", LOG_KEYS)) else { return plan };
    if let Some(node) = section.get("format") {
        plan.json = context.choice(node, "format", &[("text", false), ("json", true)]).unwrap_or(false);
    }
    if let Some(text) = section.text("level") {
        // A lone word that is no level would be taken for the name of a module, and everything else silenced.
        let is_word = !text.contains(['=', ',', '[']);
        let is_level = LEVELS.contains(&text) || (!is_word && tracing_subscriber::EnvFilter::try_new(text).is_ok());
        if !is_level {
            let place = section.get("level").map_or(&section.node.place, |node| &node.place);
            let problem = Problem::error(place, format!("`{text}` is not a log level"));
            let hint = if is_word { values::suggestion(text, LEVELS.iter().copied()) } else { None };
            context.add(problem.hint(hint.unwrap_or_else(|| "as in \"info\" or \"info,journeyman=debug\"".to_owned())));
        }
        plan.level = text.to_owned();
    }
    plan
}
