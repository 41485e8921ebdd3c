//! The file of an experiment: traffic, hypothesis, phases, and what ends it. [`load`] gives all of it, or every problem that it has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::document::{Context, Data, Node, Section};
use crate::config::problem::{self, Problem};
use crate::config::{Plan, read_file, values};
use crate::experiment::bounds::{Amount, Bound, Comparison, Quantity, Query};
use crate::experiment::pace::Pace;
use crate::experiment::phases::{Phase, Script};
use crate::journey::{Journey, Name};
use crate::proxy::Fault;
use crate::secret::Secret;
use crate::time::{Human, parse_duration};

const KEYS: &[&str] =
    &["experiment", "target", "steady", "traffic", "hypothesis", "abort", "phase", "proxy", "grafana"];
const EXPERIMENT_KEYS: &[&str] = &["name", "description", "targets"];
const TARGET_KEYS: &[&str] = &["permission"];
const STEADY_KEYS: &[&str] = &["for"];
const TRAFFIC_KEYS: &[&str] = &["journey", "rate", "ramp", "drain"];
const PHASE_KEYS: &[&str] =
    &["name", "confirm", "run", "undo", "timeout", "faults", "proof", "over", "least", "longest", "until"];
const PROXY_KEYS: &[&str] = &["listen", "to"];
const FAULT_KEYS: &[&str] = &["proxy", "fault"];
const PROOF_KEYS: &[&str] = &["run", "http", "tcp", "fails", "within"];
const OVER_KEYS: &[&str] = &["run", "http", "tcp", "fails"];
const LOOKS: &[&str] = &["run", "http", "tcp"];
const COMPARISONS: &[&str] = &["at_most", "at_least", "equals"];
const QUERY_KEYS: &[&str] = &["url", "query", "at_most", "at_least", "equals"];
const GRAFANA_KEYS: &[&str] = &["token"];
const BOUND_KEYS: &[&str] = &[
    "delivered",
    "lost",
    "duplicate",
    "reordered",
    "late",
    "wrong",
    "refused",
    "uncertain",
    "overdue",
    "error_rate",
    "p50",
    "p90",
    "p99",
    "max",
    "prometheus",
];

/// Nobody hurts production by mistake: it needs the name of who allowed it.
const PRODUCTION: &[&str] = &["production", "prod", "live"];
/// More than this a second is a load test, which this is not.
const FASTEST: f64 = 1_000.0;
const DRAIN: Duration = Duration::from_secs(60);
const LEAST: Duration = Duration::from_secs(10);
const PROOF_WITHIN: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_HINT: &str = "write `[\"program\", \"argument\"]`, or a line for the shell in quotes";
const LOOK_HINT: &str = "a look is one of `run` (a command that exits 0), `http` (an address that answers 2xx) and `tcp` (a \
                         port that takes a connection); `fails = true` turns it around";

/// An experiment, checked.
#[derive(Debug)]
pub struct ExperimentPlan {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Against what it may run, and who allowed that.
    pub targets: Vec<(String, Option<String>)>,
    /// The journey that its messages go.
    pub journey: Arc<Journey>,
    /// How fast; `None` is one after the other.
    pub pace: Option<Pace>,
    /// The order of things.
    pub script: Script,
    /// What each of its phases does, in the order of the script.
    pub phases: Vec<PhasePlan>,
    /// The proxies that run in its process: where each listens, and before what.
    pub proxies: BTreeMap<Name, (SocketAddr, String)>,
    /// What is claimed.
    pub hypothesis: Claims,
    /// What must hold while it goes on, or it ends at once.
    pub abort: Claims,
    /// What commands are relative to: the file's directory.
    pub directory: PathBuf,
    /// Lets annotations be written to Grafana.
    pub grafana_token: Option<Secret>,
}

/// What is claimed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// Of the messages.
    pub bounds: Vec<Bound>,
    /// Of what Prometheus says.
    pub queries: Vec<Query>,
}

/// What a phase does.
#[derive(Clone, Debug, PartialEq)]
pub struct PhasePlan {
    /// What a person is asked to do before it.
    pub confirm: Option<String>,
    /// A command that makes the fault.
    pub run: Option<Vec<String>>,
    /// A command that undoes it; `None` if there is nothing to undo.
    pub undo: Option<Vec<String>>,
    /// How long each of these may take.
    pub timeout: Duration,
    /// What proxies do meanwhile.
    pub faults: Vec<(Name, Fault)>,
    /// What shows that it took effect.
    pub proof: Option<Look>,
    /// What shows that it may be over.
    pub over: Option<Look>,
}

/// A look at the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// At what.
    pub at: LookAt,
    /// It is to fail.
    pub fails: bool,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookAt {
    /// A command, which exits 0.
    Run(Vec<String>),
    /// An address, which answers 2xx.
    Http(String),
    /// A `host:port`, which takes a connection.
    Tcp(String),
}

/// Loads the experiment at `path`, whose journey is one of the plan. Beside it stand the problems that are not errors.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: &Path, plan: &Plan) -> Result<(ExperimentPlan, Vec<Problem>), Vec<Problem>> {
    let context = Context::new(path.parent().unwrap_or(Path::new("")).to_owned()).knowing(&plan.redactor);
    let root = read_file(&context, path, 0, None).and_then(|source| Node::parse(&context, &source));
    finish(context, root, plan)
}

/// As [`load`], from a text.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    name: &str,
    text: &str,
    plan: &Plan,
    base: &Path,
) -> Result<(ExperimentPlan, Vec<Problem>), Vec<Problem>> {
    let context = Context::new(base.to_owned()).knowing(&plan.redactor);
    let root = Node::parse(&context, &problem::Source::new(name, text, 0));
    finish(context, root, plan)
}

fn finish(context: Context, root: Option<Node>, plan: &Plan) -> Result<(ExperimentPlan, Vec<Problem>), Vec<Problem>> {
    let experiment = root.and_then(|root| read(&context, &root, plan));
    let failed = context.error_count() > 0;
    let problems = problem::sort(context.into_problems());
    match experiment {
        Some(experiment) if !failed => Ok((experiment, problems)),
        _ => Err(problems),
    }
}

fn read(context: &Context, node: &Node, plan: &Plan) -> Option<ExperimentPlan> {
    let root = Section::open(context, node, "file", KEYS)?;
    let about = root.require("experiment", "it begins with `[experiment]`, and a `name` in it");
    let about = about.and_then(|node| Section::open(context, node, "experiment", EXPERIMENT_KEYS));
    let name = about.as_ref().and_then(|about| {
        let node = about.require("name", "reports are known by it")?;
        let name = context.text(node, "name")?;
        context.check_name(name, &node.place);
        Some(name.to_owned())
    });
    let description = about.as_ref().and_then(|about| about.text("description")).map(str::to_owned);
    let targets = about.as_ref().map(|about| targets(about, &root)).unwrap_or_default();
    let steady = root.get("steady").and_then(|node| Section::open(context, node, "steady", STEADY_KEYS));
    let steady = steady.and_then(|steady| {
        steady.require("for", "as in `for = \"10s\"`");
        steady.duration("for")
    });
    let traffic = root.require("traffic", "as in `[traffic]` and `journey = \"order\"`");
    let traffic = traffic.and_then(|node| Section::open(context, node, "traffic", TRAFFIC_KEYS));
    let journey = traffic.as_ref().and_then(|traffic| journey(traffic, plan));
    let pace = traffic.as_ref().and_then(pace);
    let drain = traffic.as_ref().and_then(|traffic| traffic.duration("drain")).unwrap_or(DRAIN);
    let claims = |key: &'static str, is_abort| {
        root.get(key).map(|node| claims(context, node, key, is_abort)).unwrap_or_default()
    };
    let (hypothesis, abort) = (claims("hypothesis", false), claims("abort", true));
    let is_empty = root.get("hypothesis").is_none_or(|node| node.entries().is_empty());
    if is_empty && !root.has_unknown() {
        let problem = Problem::error(root.place_of("hypothesis"), "there is no hypothesis: nothing could fail");
        context.add(problem.hint("add `[hypothesis]`, as in `delivered = \"100%\"` and `p99 = \"2s\"`"));
    }
    let proxies = root.get("proxy").map(|node| proxies(context, node)).unwrap_or_default();
    let nodes = root.get("phase").and_then(|node| context.list(node, "phase", "a list of tables: `[[phase]]`"));
    let (script, phases) = phases(context, nodes.unwrap_or_default(), &proxies);
    if script.is_empty() && root.get("steady").is_none() && !root.has_unknown() {
        let problem = Problem::error(&node.place, "there is neither a phase nor `[steady]`: nothing would be sent");
        context.add(problem.hint("add `[[phase]]` with a `name`, and what it does; or only how long it lasts"));
    }
    let grafana = root.get("grafana").and_then(|node| Section::open(context, node, "grafana", GRAFANA_KEYS));
    let grafana_token = grafana.and_then(|grafana| context.secret(grafana.get("token")?, "token"));
    Some(ExperimentPlan {
        name: name?,
        description,
        targets,
        journey: journey?,
        pace,
        script: Script { steady, drain, phases: script },
        phases,
        proxies,
        hypothesis,
        abort,
        directory: if context.base.as_os_str().is_empty() { ".".into() } else { context.base.clone() },
        grafana_token,
    })
}

/// Each target that may be used is named; production needs the name of who allowed it.
fn targets(about: &Section<'_>, root: &Section<'_>) -> Vec<(String, Option<String>)> {
    let context = about.context;
    if about.require("targets", "name what it may run against, as in `targets = [\"staging\"]`").is_none() {
        return Vec::new();
    }
    let tables = root.get("target").and_then(|node| context.table(node, "target")).unwrap_or_default();
    let mut permissions = BTreeMap::new();
    for entry in tables {
        let section = Section::open(context, &entry.value, &entry.key, TARGET_KEYS);
        let permission = section.and_then(|section| section.text("permission").map(str::to_owned));
        permissions.insert(&*entry.key, (permission.filter(|text| !text.trim().is_empty()), &entry.key_place));
    }
    let named = about.strings("targets").unwrap_or_default();
    if named.is_empty() {
        context.add(Problem::error(about.place_of("targets"), "`targets` is empty: it could run against nothing"));
    }
    for (name, (_, place)) in &permissions {
        if named.iter().all(|(other, _)| other != name) {
            let problem = Problem::error(place, format!("`{name}` is none of its `targets`"));
            context.add(problem.maybe_hint(values::suggestion(name, named.iter().map(|(name, _)| *name))));
        }
    }
    let mut targets = Vec::new();
    for (name, node) in named {
        context.check_name(name, &node.place);
        let permission = permissions.get(name).and_then(|(permission, _)| permission.clone());
        if permission.is_none() && PRODUCTION.contains(&name.to_lowercase().as_str()) {
            let problem = Problem::error(&node.place, format!("nobody has allowed this to run against `{name}`"));
            let hint = format!("add `[target.{name}]` with `permission = \"who said so, and when\"`");
            context.add(problem.hint(hint));
        }
        targets.push((name.to_owned(), permission));
    }
    targets
}

fn journey(traffic: &Section<'_>, plan: &Plan) -> Option<Arc<Journey>> {
    let node = traffic.require("journey", "name a journey of the configuration")?;
    let name = traffic.context.text(node, "journey")?;
    let found = plan.journeys.iter().find(|journey| *journey.name == *name);
    if found.is_none() {
        let problem = Problem::error(&node.place, format!("the configuration has no journey `{name}`"));
        let names = plan.journeys.iter().map(|journey| &*journey.name);
        traffic.context.add(problem.maybe_hint(values::suggestion(name, names)));
    }
    if let Some(why) = found.and_then(|journey| journey.unavailable.as_ref()) {
        traffic.context.add(Problem::error(&node.place, format!("this build cannot run `{name}`: {why}")));
    }
    let costs = |channel: &Name| plan.channels.get(channel).is_some_and(|channel| channel.policy.spend.is_some());
    if let Some(channel) = found.and_then(|journey| journey.channels().into_iter().find(costs)) {
        let problem = format!("`{name}` uses channel `{channel}`, whose messages cost something: it has a `spend`");
        traffic.context.add(Problem::error(&node.place, problem).hint("use a journey whose messages cost nothing"));
    }
    found.cloned()
}

fn pace(traffic: &Section<'_>) -> Option<Pace> {
    let rate = traffic.rate("rate");
    if let Some(rate) = rate.filter(|rate| *rate > FASTEST) {
        let problem = Problem::error(traffic.place_of("rate"), format!("{rate} a second is more than {FASTEST}"));
        traffic.context.add(problem.hint("this counts messages under a known load; it is no load generator"));
    }
    let ramp = traffic.duration("ramp");
    if let (None, Some(_), None) = (rate, ramp, traffic.get("rate")) {
        let problem = Problem::error(traffic.place_of("ramp"), "a `ramp` leads to a `rate`, and there is none");
        traffic.context.add(problem.hint("without a rate, messages are sent one after the other"));
    }
    Some(Pace { rate: rate?, ramp: ramp.unwrap_or_default() })
}

fn claims(context: &Context, node: &Node, key: &'static str, is_abort: bool) -> Claims {
    let mut claims = Claims::default();
    let Some(section) = Section::open(context, node, key, BOUND_KEYS) else { return claims };
    for entry in section.node.entries() {
        if entry.key == "prometheus" {
            let what = "a list of tables, as in `[{ url = \"…\", query = \"…\", at_most = 5 }]`";
            let queries = context.list(&entry.value, "prometheus", what).unwrap_or_default();
            claims.queries.extend(queries.iter().filter_map(|node| query(context, node)));
            continue;
        }
        let Ok(quantity) = entry.key.parse::<Quantity>() else { continue };
        let misplaced = match (quantity, is_abort) {
            (Quantity::Lost | Quantity::Delivered, true) => Some("what is lost is known at the end; write `overdue`"),
            (Quantity::Overdue, false) => Some("at the end, what is overdue is `late` or `lost`"),
            _ => None,
        };
        if let Some(hint) = misplaced {
            let problem = Problem::error(&entry.key_place, format!("`{}` cannot be in [{key}]", entry.key));
            context.add(problem.hint(hint));
            continue;
        }
        claims.bounds.extend(bound(context, &entry.value, quantity));
    }
    claims
}

/// A number, a share or a length of time: what it may be at most, or at least if it is what was delivered; or a table that says which.
fn bound(context: &Context, node: &Node, quantity: Quantity) -> Option<Bound> {
    let key = quantity.as_str();
    if let Data::Table(_) = node.data {
        let section = Section::open(context, node, key, COMPARISONS)?;
        let (comparison, node) = section.only_one(COMPARISONS, true, "as in `{ at_most = 5 }`")?;
        let amount = amount(context, node, quantity)?;
        return Some(Bound { quantity, comparison: comparison_of(comparison), amount });
    }
    let comparison = if quantity == Quantity::Delivered { Comparison::AtLeast } else { Comparison::AtMost };
    Some(Bound { quantity, comparison, amount: amount(context, node, quantity)? })
}

fn comparison_of(key: &str) -> Comparison {
    match key {
        "at_least" => Comparison::AtLeast,
        "equals" => Comparison::Equals,
        _ => Comparison::AtMost,
    }
}

fn amount(context: &Context, node: &Node, quantity: Quantity) -> Option<Amount> {
    let (found, hint) = match (&node.data, quantity.is_time()) {
        (Data::Text(text), true) => (parse_duration(text).ok().map(Amount::Time), values::DURATION_HINT),
        (_, true) => (None, values::DURATION_HINT),
        (Data::Text(text), false) => (values::share(text).map(Amount::Share), values::SHARE_HINT),
        (Data::Integer(digits), false) if quantity != Quantity::ErrorRate => {
            (digits.parse().ok().map(Amount::Count), "write a whole number, or a share as in \"0.1%\"")
        }
        (_, false) => (None, values::SHARE_HINT),
    };
    if found.is_none() {
        let what = match quantity {
            _ if quantity.is_time() => "a length of time",
            Quantity::ErrorRate => "a share",
            _ => "a number or a share",
        };
        let problem = Problem::error(&node.place, format!("`{quantity}` must be {what}"));
        context.add(problem.hint(hint));
    }
    found
}

fn query(context: &Context, node: &Node) -> Option<Query> {
    let section = Section::open(context, node, "prometheus", QUERY_KEYS)?;
    let address = section.require("url", "where Prometheus is, as in \"http://prometheus.example.net:9090\"");
    let url = address.and_then(|node| context.url(node, "url", &["http", "https"]));
    let query = section.require("query", "what is asked: its answer is one number");
    let query = query.and_then(|node| context.text(node, "query"));
    let (key, node) = section.only_one(COMPARISONS, true, "as in `at_most = 5`")?;
    let amount: Option<f64> = match &node.data {
        Data::Integer(digits) | Data::Float(digits) => digits.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    if amount.is_none() {
        context.expected(node, key, "a number");
    }
    let comparison = comparison_of(key);
    Some(Query { url: url?.to_string(), query: query?.to_owned(), comparison, amount: amount? })
}

fn proxies(context: &Context, node: &Node) -> BTreeMap<Name, (SocketAddr, String)> {
    let mut proxies = BTreeMap::new();
    for entry in context.table(node, "proxy").unwrap_or_default() {
        context.check_name(&entry.key, &entry.key_place);
        let Some(section) = Section::open(context, &entry.value, &entry.key, PROXY_KEYS) else { continue };
        let hint = "an address of this machine, as in \"127.0.0.1:7001\"";
        let listen = section.require("listen", hint).and_then(|node| {
            let text = context.text(node, "listen")?;
            let parsed = text.parse::<SocketAddr>().ok();
            if parsed.is_none() {
                context.add(Problem::error(&node.place, format!("`{text}` is no address with a port")).hint(hint));
            }
            parsed
        });
        let to = section.require("to", "the server that it stands before, as in \"broker.example.net:5672\"");
        let to = to.and_then(|node| place(context, node, "to"));
        if let (Some(listen), Some(to)) = (listen, to) {
            proxies.insert(Name::from(&*entry.key), (listen, to));
        }
    }
    proxies
}

/// `host:port`.
fn place(context: &Context, node: &Node, key: &str) -> Option<String> {
    let text = context.text(node, key)?;
    let is_place = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !is_place {
        let problem = Problem::error(&node.place, format!("`{text}` is no host with a port"));
        context.add(problem.hint("write both, as in \"broker.example.net:5672\""));
    }
    is_place.then(|| text.to_owned())
}

fn phases(
    context: &Context,
    nodes: &[Node],
    proxies: &BTreeMap<Name, (SocketAddr, String)>,
) -> (Vec<Phase>, Vec<PhasePlan>) {
    let name_of = |node: &Node| node.get("name").and_then(Node::as_text).map(str::to_owned);
    let names: Vec<_> = nodes.iter().map(name_of).collect();
    let (mut script, mut plans) = (Vec::new(), Vec::new());
    for (at, node) in nodes.iter().enumerate() {
        let Some(section) = Section::open(context, node, "phase", PHASE_KEYS) else { continue };
        let name = section.require("name", "reports and charts show it").and_then(|node| context.text(node, "name"));
        if let Some(name) = name {
            let place = section.place_of("name");
            context.check_name(name, place);
            if names[..at].iter().flatten().any(|other| other == name) || matches!(name, "steady" | "drain") {
                context.add(Problem::error(place, format!("there is a phase `{name}` already")));
            }
        }
        let plan = phase_plan(&section, proxies);
        let least = section.duration("least");
        let longest = section.duration("longest");
        let (least, longest) = times(&section, least, longest, plan.over.is_some());
        let until = section.text("until").map_or(at, |wanted| {
            let found = names.iter().position(|name| name.as_deref() == Some(wanted));
            if found.is_none_or(|found| found < at) {
                let problem = Problem::error(section.place_of("until"), format!("no later phase is called `{wanted}`"));
                let later = names[at..].iter().flatten().map(String::as_str);
                context.add(problem.maybe_hint(values::suggestion(wanted, later)));
            }
            found.unwrap_or(at).max(at)
        });
        script.push(Phase {
            name: name.unwrap_or_default().to_owned(),
            asks: plan.confirm.is_some(),
            acts: plan.run.is_some() || !plan.faults.is_empty(),
            proof: plan.proof.as_ref().map(|_| proof_within(&section)),
            least,
            looks: plan.over.is_some(),
            longest,
            until,
        });
        plans.push(plan);
    }
    (script, plans)
}

fn proof_within(section: &Section<'_>) -> Duration {
    let within = section.get("proof").and_then(|node| node.get("within"));
    within.and_then(Node::as_text).and_then(|text| parse_duration(text).ok()).unwrap_or(PROOF_WITHIN)
}

fn times(
    section: &Section<'_>,
    least: Option<Duration>,
    longest: Option<Duration>,
    looks: bool,
) -> (Duration, Duration) {
    let context = section.context;
    let least = least.unwrap_or(LEAST);
    match longest {
        Some(longest) if longest < least => {
            let problem = format!("`longest` is shorter than `least`, which is {}", Human(least));
            context.add(Problem::error(section.place_of("longest"), problem));
        }
        Some(_) if !looks => {
            let problem = Problem::error(section.place_of("longest"), "nothing says when the phase may be over");
            context.add(problem.hint("add `over`, or leave `longest` away: then it lasts as long as `least`"));
        }
        None if looks => {
            let problem = Problem::error(section.place_of("over"), "`longest` is missing: it might never be over");
            context.add(problem.hint("as in `longest = \"2m\"`"));
        }
        Some(_) | None => {}
    }
    (least, longest.unwrap_or(least))
}

fn phase_plan(section: &Section<'_>, proxies: &BTreeMap<Name, (SocketAddr, String)>) -> PhasePlan {
    let context = section.context;
    let run = section.get("run").and_then(|node| command(context, node, "run"));
    let undo = match section.get("undo") {
        Some(Node { data: Data::Bool(false), .. }) => None,
        Some(node) => command(context, node, "undo"),
        None => {
            if section.get("run").is_some() {
                let problem = Problem::error(section.place_of("run"), "`undo` is missing: what is cut must be healed");
                context.add(
                    problem.hint("write the command that undoes it, or `undo = false` if there is nothing to undo"),
                );
            }
            None
        }
    };
    if let (Some(_), None) = (section.get("undo"), section.get("run")) {
        context.add(Problem::error(section.place_of("undo"), "there is no `run` that this would undo"));
    }
    let mut faults = Vec::new();
    let what = "a list of tables, as in `[{ proxy = \"broker\", fault = \"down\" }]`";
    let nodes = section.get("faults").and_then(|node| context.list(node, "faults", what)).unwrap_or_default();
    for node in nodes {
        faults.extend(fault(context, node, proxies));
    }
    PhasePlan {
        confirm: section.text("confirm").map(str::to_owned),
        run,
        undo,
        timeout: section.duration("timeout").unwrap_or(TIMEOUT),
        faults,
        proof: section.get("proof").and_then(|node| look(context, node, "proof", PROOF_KEYS)),
        over: section.get("over").and_then(|node| look(context, node, "over", OVER_KEYS)),
    }
}

fn fault(context: &Context, node: &Node, proxies: &BTreeMap<Name, (SocketAddr, String)>) -> Option<(Name, Fault)> {
    let section = Section::open(context, node, "faults", FAULT_KEYS)?;
    let proxy = section.require("proxy", "name one of the `[proxy.NAME]` of this file").and_then(|node| {
        let name = context.text(node, "proxy")?;
        let found = proxies.keys().find(|other| ***other == *name).cloned();
        if found.is_none() {
            let problem = Problem::error(&node.place, format!("there is no `[proxy.{name}]` in this file"));
            context.add(problem.maybe_hint(values::suggestion(name, proxies.keys().map(|name| &**name))));
        }
        found
    });
    let fault = section.require("fault", "as in `latency=200ms`, `hold` or `down`").and_then(|node| {
        let parsed = context.text(node, "fault")?.parse::<Fault>();
        parsed.map_err(|why| context.add(Problem::error(&node.place, why))).ok()
    });
    Some((proxy?, fault?))
}

fn look(context: &Context, node: &Node, key: &str, known: &[&'static str]) -> Option<Look> {
    let section = Section::open(context, node, key, known)?;
    if known.contains(&"within") {
        section.duration("within");
    }
    let (kind, value) = section.only_one(LOOKS, true, LOOK_HINT)?;
    let at = match kind {
        "run" => LookAt::Run(command(context, value, "run")?),
        "http" => LookAt::Http(context.url(value, "http", &["http", "https"])?.to_string()),
        _ => LookAt::Tcp(place(context, value, "tcp")?),
    };
    Some(Look { at, fails: section.bool("fails", false) })
}

/// Words, or a line for the shell.
fn command(context: &Context, node: &Node, key: &str) -> Option<Vec<String>> {
    match &node.data {
        Data::Text(line) if !line.trim().is_empty() => Some(vec!["sh".to_owned(), "-c".to_owned(), line.clone()]),
        Data::List(words) if !words.is_empty() => {
            words.iter().map(|word| context.text(word, key).map(str::to_owned)).collect()
        }
        _ => {
            let problem = Problem::error(&node.place, format!("`{key}` must be a command"));
            context.add(problem.hint(COMMAND_HINT));
            None
        }
    }
}

impl ExperimentPlan {
    /// The target that is meant, and who allowed it. Without a word it is the only one there is.
    ///
    /// # Errors
    /// It is not named in the file, or several are and none was said; in words.
    pub fn target(&self, wanted: Option<&str>) -> Result<(String, Option<String>), String> {
        let names = || self.targets.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match (wanted, &self.targets[..]) {
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err(format!("say against which target, with --target: {}", names())),
            (Some(wanted), all) => all.iter().find(|(name, _)| name == wanted).cloned().ok_or_else(|| {
                format!(
                    "this experiment may not run against `{wanted}`: its `targets` are {}; nothing was done",
                    names()
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests;
