//! `[channels.NAME]`: what each kind of channel needs.

use std::collections::BTreeMap;

use crate::channel::http::HttpSettings;
use crate::channel::webhook::{Algorithm, Encoding, MAX_BODY, Verify, WebhookSettings};
use crate::channel::{Availability, ChannelPolicy, KINDS, Kind, Settings, kind_of};
use crate::config::document::{Context, Data, Entry, Node, Section};
use crate::config::expectations::Reader;
use crate::config::problem::{Place, Problem};
use crate::config::{ChannelPlan, files, secrets, values};
use crate::journey::Name;
use crate::journey::expect::{Comparison, Expectation, Expected, Predicate, Query};
use crate::journey::value::Value;
use crate::secret::Secret;

pub(super) const COMMON_KEYS: &[&str] = &["type", "rate", "max_in_flight", "timeout", "key", "filter"];
pub(super) const HTTP_KEYS: &[&str] = &["url", "headers", "redirects", "new_connection", "ca_file"];
pub(super) const WEBHOOK_KEYS: &[&str] = &["path", "verify", "max_body", "respond"];
#[cfg(feature = "amqp")]
pub(super) const AMQP_KEYS: &[&str] = &["url", "exchange", "routing_key", "queue"];
#[cfg(feature = "amqp")]
pub(super) const QUEUE_KEYS: &[&str] = &["name", "bind"];
#[cfg(feature = "amqp")]
pub(super) const BINDING_KEYS: &[&str] = &["exchange", "routing_key"];
pub(super) const HMAC_KEYS: &[&str] = &["scheme", "secret", "secrets", "header", "algorithm", "encoding", "prefix"];
pub(super) const BEARER_KEYS: &[&str] = &["scheme", "secret", "secrets"];
pub(super) const NONE_KEYS: &[&str] = &["scheme"];

/// Schemes that are known and not built yet.
const PLANNED_SCHEMES: &[&str] = &["twilio", "vonage", "slack", "github"];
const SCHEMES: &[&str] = &["hmac", "bearer", "none", "twilio", "vonage", "slack", "github"];
/// No message needs more, and the body is held in memory.
const LARGEST_BODY: u64 = 64 << 20;

/// A channel as journeys need to know it, also when it is not in order.
pub(super) struct Channel {
    /// Where its name is.
    pub(super) place: Place,
    /// `None` if its `type` is not known.
    pub(super) kind: Option<&'static Kind>,
    /// `None` if it cannot be opened for a reason that was told.
    pub(super) plan: Option<ChannelPlan>,
    /// Why journeys that use it cannot run, if they cannot.
    pub(super) unavailable: Option<String>,
    /// The host and port behind it, where it is known.
    pub(super) host: Option<(String, u16)>,
}

/// Reads every channel.
pub(super) fn read(context: &Context, node: Option<&Node>) -> BTreeMap<Name, Channel> {
    let mut channels = BTreeMap::new();
    let mut paths: BTreeMap<String, Place> = BTreeMap::new();
    for entry in node.and_then(|node| context.table(node, "channels")).unwrap_or_default() {
        context.check_name(&entry.key, &entry.key_place);
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
    let mut channel = Channel { place: entry.key_place.clone(), kind: None, plan: None, unavailable: None, host: None };
    let Some(node) = type_of(context, entry, "channel") else { return channel };
    let Some(text) = context.text(node, "type") else { return channel };
    let Some(kind) = kind_of(text) else {
        let problem = Problem::error(&node.place, format!("no channel is of type `{text}`"));
        context.add(problem.maybe_hint(values::suggestion(text, KINDS.iter().map(|kind| kind.name))));
        return channel;
    };
    channel.kind = Some(kind);
    channel.host = entry.value.get("url").and_then(Node::as_text).and_then(|text| host(&url::Url::parse(text).ok()?));
    let (policy, settings) = match kind.available {
        Availability::Here => {
            let Some(section) = open(context, &entry.value, kind) else { return channel };
            let policy = policy(&section);
            (policy, settings(&section, kind, &mut channel))
        }
        Availability::Feature(feature) => {
            let problem = Problem::error(&node.place, format!("this build has no channels of type `{text}`"));
            context.add(problem.hint(format!("build with `--features {feature}`, or use a package, which has it")));
            return channel;
        }
        Availability::Planned => {
            let problem = format!("channels of type `{text}` are not in this version yet");
            let hint = "its keys are not checked, and the journeys that use it will be `unknown`";
            context.add(Problem::warning(&node.place, problem).hint(hint));
            channel.unavailable =
                Some(format!("channel `{}` is of type `{text}`, which this version does not have yet", entry.key));
            (ChannelPolicy::default(), Some(Settings::Unavailable(kind.name)))
        }
    };
    channel.plan = settings.map(|settings| ChannelPlan { kind, policy, settings });
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

fn open<'a>(context: &'a Context, node: &'a Node, kind: &Kind) -> Option<Section<'a>> {
    let own = match kind.name {
        "http" => HTTP_KEYS,
        "webhook" => WEBHOOK_KEYS,
        #[cfg(feature = "amqp")]
        "amqp" => AMQP_KEYS,
        _ => &[],
    };
    Section::open(context, node, "channel", &[own, COMMON_KEYS].concat())
}

fn policy(section: &Section<'_>) -> ChannelPolicy {
    let default = ChannelPolicy::default();
    let reader = Reader::of_channel(section.context);
    let filter = section.get("filter").map(|node| reader.expectations(node, "filter")).unwrap_or_default();
    hide_shared(&filter, section.context);
    ChannelPolicy {
        rate: section.rate("rate"),
        max_in_flight: section.whole("max_in_flight", 1..=10_000).map_or(default.max_in_flight, |most| most as usize),
        timeout: section.duration("timeout").unwrap_or(default.timeout),
        key: section.get("key").and_then(|node| reader.query(node, "key")),
        filter,
    }
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

fn settings(section: &Section<'_>, kind: &Kind, channel: &mut Channel) -> Option<Settings> {
    match kind.name {
        "http" => http(section).map(Settings::Http),
        "webhook" => {
            let settings = webhook(section)?;
            if let Verify::Unavailable(scheme) = settings.verify {
                channel.unavailable =
                    Some(format!("webhooks signed by the scheme `{scheme}` cannot be verified by this version yet"));
            }
            Some(Settings::Webhook(settings))
        }
        #[cfg(feature = "amqp")]
        "amqp" => amqp(section, channel).map(Settings::Amqp),
        _ => Some(Settings::Memory),
    }
}

fn http(section: &Section<'_>) -> Option<HttpSettings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| context.headers(node, "headers")).unwrap_or_default();
    let ca_file = section.get("ca_file").and_then(|node| {
        let path = files::clean(&context.base.join(context.text(node, "ca_file")?));
        if let Err(error) = std::fs::File::open(&path) {
            context.add(Problem::error(&node.place, format!("cannot read {}: {error}", path.display())));
        }
        Some(path)
    });
    let url = section.require("url", "the address that the paths of steps are appended to");
    Some(HttpSettings {
        url: Some(context.url(url?, "url", &["http", "https"])?),
        headers,
        redirects: section.whole("redirects", 0..=20).unwrap_or(0) as usize,
        new_connection: section.bool("new_connection", false),
        ca_file,
    })
}

fn webhook(section: &Section<'_>) -> Option<WebhookSettings> {
    let context = section.context;
    let path = section.require("path", "the route on the hooks listener, as in \"/inbound-sms\"").and_then(|node| {
        let path = context.text(node, "path")?;
        let is_path =
            path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#{}*\"<>\\^`|%".contains(&b));
        if !is_path {
            let problem = Problem::error(&node.place, "`path` is not a path");
            context.add(problem.hint("it begins with `/` and has no query, as in \"/inbound-sms\""));
        }
        is_path.then(|| path.to_owned())
    });
    let max_body = section.get("max_body").and_then(|node| {
        let bytes = match &node.data {
            Data::Integer(digits) => digits.parse().ok(),
            Data::Text(text) => values::size(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| (1..=LARGEST_BODY).contains(bytes));
        if bytes.is_none() {
            let problem = Problem::error(&node.place, "`max_body` must be a size between 1 byte and 64MiB");
            context.add(problem.hint(values::SIZE_HINT));
        }
        bytes
    });
    let respond = section.whole("respond", 200..=299);
    let hint = "who may call: `{ scheme = \"hmac\", secret = … }`, or `{ scheme = \"none\" }` if anyone may";
    let verify = section.require("verify", hint).and_then(|node| verify(context, node));
    Some(WebhookSettings {
        path: path?,
        verify: verify?,
        max_body: max_body.map_or(MAX_BODY, |bytes| bytes as usize),
        respond: respond.map_or(200, |status| status as u16),
    })
}

fn verify(context: &Context, node: &Node) -> Option<Verify> {
    let scheme_node = match context.table(node, "verify").map(|_| node.get("scheme"))? {
        Some(scheme) => scheme,
        None => {
            let problem = Problem::error(&node.place, "`scheme` is missing");
            context.add(problem.hint(format!("one of {}", SCHEMES.join(", "))));
            return None;
        }
    };
    let scheme = context.text(scheme_node, "scheme")?;
    match scheme {
        "none" => {
            Section::open(context, node, "verify", NONE_KEYS)?;
            let problem = "anyone who knows the address can call this webhook";
            let hint = "what they send is told from ours by its token alone; verify a signature if the sender can sign";
            context.add(Problem::warning(&scheme_node.place, problem).hint(hint));
            Some(Verify::None)
        }
        "bearer" => {
            let section = Section::open(context, node, "verify", BEARER_KEYS)?;
            Some(Verify::Bearer { secrets: secrets(&section)? })
        }
        "hmac" => hmac(&Section::open(context, node, "verify", HMAC_KEYS)?),
        _ => match PLANNED_SCHEMES.iter().find(|planned| **planned == scheme) {
            Some(planned) => {
                for key in ["secret", "secrets"] {
                    for secret in node.get(key).into_iter().flat_map(items) {
                        let _ = context.secret(secret, key);
                    }
                }
                let problem = format!("the scheme `{planned}` is not in this version yet");
                let hint = "calls are refused, and the journeys that receive here will be `unknown`";
                context.add(Problem::warning(&scheme_node.place, problem).hint(hint));
                Some(Verify::Unavailable(planned))
            }
            None => {
                let problem = Problem::error(&scheme_node.place, format!("no scheme is named `{scheme}`"));
                context.add(problem.maybe_hint(values::suggestion(scheme, SCHEMES.iter().copied())));
                None
            }
        },
    }
}

fn hmac(section: &Section<'_>) -> Option<Verify> {
    let context = section.context;
    let secrets = secrets(section);
    let header = section.get("header").map_or(Some("X-Signature"), |node| {
        let header = context.text(node, "header")?;
        if !super::secrets::is_header_name(header) {
            context.add(Problem::error(&node.place, format!("`{header}` is not the name of a header")));
        }
        Some(header)
    });
    const ALGORITHMS: &[(&str, Algorithm)] = &[("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
    const ENCODINGS: &[(&str, Encoding)] = &[("hex", Encoding::Hex), ("base64", Encoding::Base64)];
    let algorithm = section.get("algorithm").and_then(|node| context.choice(node, "algorithm", ALGORITHMS));
    let encoding = section.get("encoding").and_then(|node| context.choice(node, "encoding", ENCODINGS));
    Some(Verify::Hmac {
        header: header?.to_owned(),
        algorithm: algorithm.unwrap_or(Algorithm::Sha256),
        encoding: encoding.unwrap_or(Encoding::Hex),
        prefix: section.text("prefix").unwrap_or_default().to_owned(),
        secrets: secrets?,
    })
}

/// `secret`, or `secrets` during a rotation.
fn secrets(section: &Section<'_>) -> Option<Vec<Secret>> {
    let hint = "`secret` is one, `secrets` is a list of several that are accepted during a rotation";
    let (key, node) = section.only_one(&["secret", "secrets"], true, hint)?;
    let nodes = match key {
        "secret" => std::slice::from_ref(node),
        _ => section.context.list(node, key, "a list of secrets")?,
    };
    if nodes.is_empty() {
        section.context.add(Problem::error(&node.place, "there must be at least one secret"));
    }
    nodes.iter().map(|node| section.context.secret(node, key)).collect()
}

fn items(node: &Node) -> &[Node] {
    match &node.data {
        Data::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

#[cfg(feature = "amqp")]
fn amqp(section: &Section<'_>, channel: &mut Channel) -> Option<crate::channel::amqp::AmqpSettings> {
    use crate::channel::amqp::{AmqpSettings, Binding, QueueSettings};
    let context = section.context;
    let name = |section: &Section<'_>, key: &str| section.text(key).unwrap_or_default().to_owned();
    let queue = section.get("queue").and_then(|node| {
        let section = Section::open(context, node, "queue", QUEUE_KEYS)?;
        let bind = section.get("bind").and_then(|node| context.list(node, "bind", "a list of tables"));
        let bind = bind.unwrap_or_default().iter().filter_map(|node| {
            let section = Section::open(context, node, "bind", BINDING_KEYS)?;
            section.require("exchange", "the exchange that messages come from")?;
            Some(Binding { exchange: name(&section, "exchange"), routing_key: name(&section, "routing_key") })
        });
        let bind = bind.collect();
        section.require("name", "the name of a queue of our own, which no one else consumes")?;
        Some(QueueSettings { name: name(&section, "name"), bind })
    });
    let (exchange, routing_key) = (name(section, "exchange"), name(section, "routing_key"));
    let url = section.require("url", "the broker's address, as in \"amqps://user@host/vhost\"")?;
    let (url, parsed) = context.secret_url(url, "url", &["amqp", "amqps"], false)?;
    channel.host = host(&parsed);
    Some(AmqpSettings { url, exchange, routing_key, queue })
}

/// Host and port of a URL; the port is 0 where neither it nor the scheme says one.
pub(super) fn host(url: &url::Url) -> Option<(String, u16)> {
    let default = match url.scheme() {
        "amqp" => 5_672,
        "amqps" => 5_671,
        "smtp" => 25,
        "smtp+starttls" => 587,
        "smtps" => 465,
        _ => 0,
    };
    Some((url.host_str()?.to_owned(), url.port_or_known_default().unwrap_or(default)))
}
