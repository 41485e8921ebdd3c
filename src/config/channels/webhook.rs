//! `type = "webhook"`, and who may call it.

use crate::channel::Settings;
use crate::channel::webhook::{Algorithm, Encoding, MAX_BODY, Verify, WebhookSettings};
use crate::config::channels::{Channel, Grammar};
use crate::config::document::{Context, Data, Node, Section};
use crate::config::problem::Problem;
use crate::config::values;
use crate::secret::Secret;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "webhook",
    keys: &["path", "verify", "max_body", "respond"],
    tables: &[("verify", HMAC_KEYS)],
    read,
};
const HMAC_KEYS: &[&str] = &["scheme", "secret", "secrets", "header", "algorithm", "encoding", "prefix"];
const BEARER_KEYS: &[&str] = &["scheme", "secret", "secrets"];
const NONE_KEYS: &[&str] = &["scheme"];

/// Schemes that are known and not built yet.
const PLANNED_SCHEMES: &[&str] = &["twilio", "vonage", "slack", "github"];
const SCHEMES: &[&str] = &["hmac", "bearer", "none", "twilio", "vonage", "slack", "github"];
/// No message needs more, and the body is held in memory.
const LARGEST_BODY: u64 = 64 << 20;

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
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
    let verify = verify?;
    if let Verify::Unavailable(scheme) = verify {
        channel.unavailable =
            Some(format!("webhooks signed by the scheme `{scheme}` cannot be verified by this version yet"));
    }
    Some(Settings::Webhook(WebhookSettings {
        path: path?,
        verify,
        max_body: max_body.map_or(MAX_BODY, |bytes| bytes as usize),
        respond: respond.map_or(200, |status| status as u16),
    }))
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
        if !crate::config::secrets::is_header_name(header) {
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
