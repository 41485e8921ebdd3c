//! `[channels.NAME]`: what each kind of channel needs.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "checks")]
mod checks;
#[cfg(feature = "exec")]
pub(super) mod exec;
mod http;
#[cfg(feature = "imap")]
mod imap;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(any(feature = "imap", feature = "smtp"))]
mod mail;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
mod notifier;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "slack")]
mod slack;
#[cfg(feature = "smpp")]
mod smpp;
#[cfg(feature = "smtp")]
mod smtp;
#[cfg(feature = "sqs")]
mod sqs;
mod webhook;
#[cfg(feature = "websocket")]
mod websocket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::channel::{Availability, ChannelPolicy, KINDS, Kind, Settings, kind_of};
use crate::config::document::{Context, Entry, Node, Section};
use crate::config::expectations::Reader;
use crate::config::fingerprint::Identity;
use crate::config::problem::{Place, Problem};
use crate::config::steps::EXEC;
use crate::config::{ChannelPlan, files, secrets, spend, values};
use crate::journey::Name;
use crate::journey::expect::{Comparison, Expectation, Expected, Predicate, Query};
use crate::journey::value::Value;

pub(super) const COMMON_KEYS: &[&str] = &[
    "type",
    "rate",
    "max_in_flight",
    "timeout",
    "key",
    "filter",
    "spend",
    "certificate_warning",
    "required",
    "breaker",
];
/// What a kind of channel has to say in `[channels.NAME]`.
pub(super) struct Grammar {
    /// The value of `type`.
    pub(super) kind: &'static str,
    /// Its own keys, beside [`COMMON_KEYS`].
    pub(super) keys: &'static [&'static str],
    /// The keys of the tables among them, by the table's name: for the test that compares them with the channel's page.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test of the documentation reads it"))]
    pub(super) tables: &'static [(&'static str, &'static [&'static str])],
    /// Reads them. `None` if the channel cannot be opened, for a reason that was told.
    read: fn(&Section<'_>, &mut Channel) -> Option<Settings>,
}

/// One for each kind that this build has.
pub(super) const GRAMMARS: &[Grammar] = &[
    http::GRAMMAR,
    webhook::GRAMMAR,
    Grammar { kind: "memory", keys: &[], tables: &[], read: |_, _| Some(Settings::Memory) },
    notifier::GRAMMAR,
    #[cfg(feature = "amqp")]
    amqp::GRAMMAR,
    #[cfg(feature = "kafka")]
    kafka::GRAMMAR,
    #[cfg(feature = "mqtt")]
    mqtt::GRAMMAR,
    #[cfg(feature = "nats")]
    nats::GRAMMAR,
    #[cfg(feature = "postgres")]
    postgres::GRAMMAR,
    #[cfg(feature = "redis")]
    redis::GRAMMAR,
    #[cfg(feature = "slack")]
    slack::GRAMMAR,
    #[cfg(feature = "sqs")]
    sqs::SNS,
    #[cfg(feature = "sqs")]
    sqs::SQS,
    #[cfg(feature = "websocket")]
    websocket::GRAMMAR,
    #[cfg(feature = "imap")]
    imap::GRAMMAR,
    #[cfg(feature = "smtp")]
    smtp::GRAMMAR,
    #[cfg(feature = "smpp")]
    smpp::GRAMMAR,
    #[cfg(feature = "checks")]
    checks::DNS,
    #[cfg(feature = "checks")]
    checks::TCP,
    #[cfg(feature = "checks")]
    checks::TLS,
    #[cfg(feature = "exec")]
    exec::GRAMMAR,
];

/// The timeout of a channel whose steps have the whole deadline: the longest that a deadline can be.
const NO_TIMEOUT: Duration = Duration::from_secs(86_400);

/// A channel as journeys need to know it, also when it is not in order.
pub(super) struct Channel {
    /// Where its name is.
    pub(super) place: Place,
    /// `None` if its `type` is not known.
    pub(super) kind: Option<&'static Kind>,
    /// `None` if it cannot be opened for a reason that was told.
    pub(super) plan: Option<ChannelPlan>,
    /// What it lacks to be received on, and what to do about it.
    pub(super) cannot_receive: Option<(&'static str, String)>,
    /// Keys of steps that its kind knows and it cannot do anything with, and why.
    pub(super) cannot_take: &'static [(&'static str, &'static str)],
    /// The host and port behind it, where it is known.
    pub(super) host: Option<(String, u16)>,
    /// What limits what is sent through it.
    pub(super) spend: Option<Node>,
}

impl Channel {
    fn new(place: Place) -> Channel {
        let (kind, plan, cannot_receive, host, spend) = Default::default();
        Channel { place, kind, plan, cannot_receive, cannot_take: &[], host, spend }
    }

    /// The notifier that it rings, if it does nothing else.
    pub(super) fn rings(&self) -> Option<&Name> {
        match &self.plan.as_ref()?.settings {
            Settings::Notifier(settings) => Some(&settings.notifier),
            _ => None,
        }
    }
}

/// Reads every channel.
pub(super) fn read(context: &Context, node: Option<&Node>) -> BTreeMap<Name, Channel> {
    let mut channels = BTreeMap::new();
    let mut paths: BTreeMap<String, Place> = BTreeMap::new();
    for entry in node.and_then(|node| context.table(node, "channels")).unwrap_or_default() {
        context.check_name(&entry.key, &entry.key_place);
        context.check_own(&entry.key, &entry.key_place);
        let channel = channel(context, entry);
        if let Some(Settings::Webhook(settings)) = channel.plan.as_ref().map(|plan| &plan.settings) {
            let place = entry.value.get("path").map_or(&entry.key_place, |path| &path.place);
            if let Some(other) = paths.insert(settings.path.clone(), place.clone()) {
                let problem = Problem::error(place, format!("two channels listen at `{}`", settings.path));
                context.add(problem.also(&other, "the other one"));
            }
        }
        channels.insert(Name::from(entry.key.as_str()), channel);
    }
    channels
}

fn channel(context: &Context, entry: &Entry) -> Channel {
    let mut channel = Channel::new(entry.key_place.clone());
    let Some(node) = type_of(context, entry, "channel") else { return channel };
    let Some(text) = context.text(node, "type") else { return channel };
    let Some(kind) = kind_of(text) else {
        let problem = Problem::error(&node.place, format!("no channel is of type `{text}`"));
        context.add(problem.maybe_hint(values::suggestion(text, KINDS.iter().map(|kind| kind.name))));
        return channel;
    };
    channel.kind = Some(kind);
    match entry.value.get("spend") {
        Some(spend) if !kind.sends => {
            let problem = format!("nothing is sent through channels of type `{text}`, so there is nothing to limit");
            context.add(Problem::error(&spend.place, problem));
        }
        spend => channel.spend = spend.cloned(),
    }
    if kind.name == EXEC && entry.key != EXEC {
        let problem = "there is one channel of type `exec`, which all `exec` steps use, and it is named `exec`";
        context.add(Problem::error(&entry.key_place, problem).hint("write `[channels.exec]`"));
    }
    channel.host = entry.value.get("url").and_then(Node::as_text).and_then(|text| host(&url::Url::parse(text).ok()?));
    let (policy, settings) = match kind.available {
        Availability::Here => {
            let grammar = GRAMMARS.iter().find(|grammar| grammar.kind == kind.name);
            let Some(Grammar { keys, read, .. }) = grammar else { return channel };
            let section = Section::open(context, &entry.value, "channel", &[keys, COMMON_KEYS].concat());
            let Some(section) = section else { return channel };
            let policy = policy(&section, kind);
            (policy, read(&section, &mut channel))
        }
        Availability::Feature(feature) => {
            let problem = Problem::error(&node.place, format!("this build has no channels of type `{text}`"));
            context.add(problem.hint(format!("build with `--features {feature}`, or use a package, which has it")));
            return channel;
        }
    };
    channel.plan =
        settings.map(|settings| ChannelPlan { kind, policy, settings, identity: Identity::of([&entry.value]) });
    channel
}

/// The node of the `type` key, which decides what the other keys mean.
pub(super) fn type_of<'a>(context: &Context, entry: &'a Entry, what: &str) -> Option<&'a Node> {
    context.table(&entry.value, &entry.key)?;
    let found = entry.value.get("type");
    if found.is_none() {
        let problem = Problem::error(&entry.value.place, format!("{what} `{}` has no `type`", entry.key));
        let meant = entry.value.entries().iter().find(|other| values::nearest(&other.key, ["type"]).is_some());
        context.add(problem.maybe_hint(meant.map(|other| format!("did you mean `type` by `{}`?", other.key))));
    }
    found
}

fn policy(section: &Section<'_>, kind: &Kind) -> ChannelPolicy {
    let mut default = ChannelPolicy::default();
    if kind.name == EXEC {
        default.timeout = NO_TIMEOUT;
    }
    let reader = Reader::of_channel(section.context);
    let filter = section.get("filter").map(|node| reader.expectations(node, "filter")).unwrap_or_default();
    hide_shared(&filter, section.context);
    ChannelPolicy {
        rate: section.rate("rate"),
        max_in_flight: section.whole("max_in_flight", 1..=10_000).map_or(default.max_in_flight, |most| most as usize),
        timeout: section.duration("timeout").unwrap_or(default.timeout),
        key: section.get("key").and_then(|node| reader.query(node, "key")),
        filter,
        spend: section.get("spend").and_then(|node| spend::read(section.context, node)),
        certificate_warning: section.duration_or_never("certificate_warning", default.certificate_warning),
        required: section.flag("required"),
        breaker_observes: section.get("breaker").is_some_and(|node| breaker(section.context, node, kind)),
    }
}

/// What a breaker may do.
const BREAKERS: [&str; 2] = ["on", "observe"];

/// `breaker`: whether it only observes.
fn breaker(context: &Context, node: &Node, kind: &Kind) -> bool {
    let Some(text) = context.text(node, "breaker") else { return false };
    if !BREAKERS.contains(&text) {
        let problem = Problem::error(&node.place, format!("a breaker cannot be `{text}`"));
        context.add(problem.maybe_hint(values::suggestion(text, BREAKERS)));
    } else if !kind.breaks {
        let problem = format!("no breaker stands before channels of type `{}`", kind.name);
        context.add(Problem::warning(&node.place, problem).hint("leave `breaker` out"));
    }
    text == "observe"
}

/// What a caller without a better proof has to know stands in the filter, and in the evidence of every message that it sends.
fn hide_shared(filter: &[Expectation], context: &Context) {
    for expectation in filter {
        let (Query::Form(name) | Query::Header(name)) = &expectation.query else { continue };
        let Predicate::Compare(Comparison::Equals, Expected::Fixed(Value::Text(shared))) = &expectation.predicate
        else {
            continue;
        };
        if secrets::is_secret_name(name) {
            context.redactor.add(shared);
        }
    }
}

/// `ca_file`: certificates to trust beside the system's.
fn ca_file(section: &Section<'_>) -> Option<PathBuf> {
    let context = section.context;
    section.get("ca_file").and_then(|node| {
        let path = files::clean(&context.base.join(context.text(node, "ca_file")?));
        if let Err(error) = std::fs::File::open(&path) {
            context.add(Problem::error(&node.place, format!("cannot read {}: {error}", path.display())));
        }
        Some(path)
    })
}

/// Host and port of a URL; the port is 0 where neither it nor the scheme says one.
pub(super) fn host(url: &url::Url) -> Option<(String, u16)> {
    let default = match url.scheme() {
        "amqp" => 5_672,
        "amqps" => 5_671,
        "imap" | "imap+starttls" => 143,
        "imaps" => 993,
        "mqtt" => 1_883,
        "mqtts" => 8_883,
        "nats" => 4_222,
        "postgres" | "postgresql" => 5_432,
        "redis" | "rediss" => 6_379,
        "smpp" => 2_775,
        "smpps" => 3_550,
        "smtp" => 25,
        "smtp+starttls" => 587,
        "smtps" => 465,
        "tls" => 4_222,
        _ => 0,
    };
    Some((url.host_str()?.to_owned(), url.port_or_known_default().unwrap_or(default)))
}
