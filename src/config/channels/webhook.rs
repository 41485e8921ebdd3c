//! `type = "webhook"`, and who may call it.

use crate::channel::Settings;
use crate::channel::webhook::{
    Algorithm, Encoding, MAX_BODY, SigHash, TOLERANCE, Verify, VonageMethod, WebhookSettings,
};
use crate::config::channels::{Channel, Grammar};
use crate::config::document::{Context, Data, Node, Section};
use crate::config::problem::Problem;
use crate::config::values;
use crate::secret::Secret;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "webhook",
    keys: &["path", "verify", "max_body", "respond"],
    tables: &[("verify", VERIFY_KEYS)],
    read,
};
/// Of all schemes together.
const VERIFY_KEYS: &[&str] = &[
    "scheme",
    "secret",
    "secrets",
    "header",
    "algorithm",
    "encoding",
    "prefix",
    "url",
    "method",
    "api_key",
    "tolerance",
];
const HMAC_KEYS: &[&str] = &["scheme", "secret", "secrets", "header", "algorithm", "encoding", "prefix"];
const TWILIO_KEYS: &[&str] = &["scheme", "secret", "secrets", "url"];
const VONAGE_KEYS: &[&str] = &["scheme", "secret", "secrets", "method", "api_key", "tolerance"];
const SLACK_KEYS: &[&str] = &["scheme", "secret", "secrets", "tolerance"];
/// Of the schemes that need nothing but a secret.
const SECRET_KEYS: &[&str] = &["scheme", "secret", "secrets"];
const NONE_KEYS: &[&str] = &["scheme"];

const SCHEMES: &[&str] = &["hmac", "twilio", "vonage", "slack", "github", "bearer", "none"];
/// No message needs more, and the body is held in memory.
const LARGEST_BODY: u64 = 64 << 20;

fn read(section: &Section<'_>, _channel: &mut Channel) -> Option<Settings> {
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
    let verify = section.require("verify", hint).and_then(|node| verify(context, node, path.as_deref()));
    Some(Settings::Webhook(WebhookSettings {
        path: path?,
        verify: verify?,
        max_body: max_body.map_or(MAX_BODY, |bytes| bytes as usize),
        respond: respond.map_or(200, |status| status as u16),
    }))
}

/// `path` is the channel's, which the caller's URL ends in.
fn verify(context: &Context, node: &Node, path: Option<&str>) -> Option<Verify> {
    let scheme_node = match context.table(node, "verify").map(|_| node.get("scheme"))? {
        Some(scheme) => scheme,
        None => {
            let problem = Problem::error(&node.place, "`scheme` is missing");
            context.add(problem.hint(format!("one of {}", SCHEMES.join(", "))));
            return None;
        }
    };
    let open = |keys| Section::open(context, node, "verify", keys);
    let scheme = context.text(scheme_node, "scheme")?;
    match scheme {
        "none" => {
            open(NONE_KEYS)?;
            let problem = "anyone who knows the address can call this webhook";
            let hint = "what they send is told from ours by its token alone; verify a signature if the sender can sign";
            context.add(Problem::warning(&scheme_node.place, problem).hint(hint));
            Some(Verify::None)
        }
        "bearer" => Some(Verify::Bearer { secrets: secrets(&open(SECRET_KEYS)?)? }),
        "hmac" => hmac(&open(HMAC_KEYS)?),
        "github" => Some(Verify::github(secrets(&open(SECRET_KEYS)?)?)),
        "twilio" => twilio(&open(TWILIO_KEYS)?, path),
        "vonage" => vonage(&open(VONAGE_KEYS)?),
        "slack" => {
            let section = open(SLACK_KEYS)?;
            let (secrets, tolerance) = (secrets(&section), section.duration("tolerance").unwrap_or(TOLERANCE));
            Some(Verify::Slack { secrets: secrets?, tolerance })
        }
        _ => {
            let problem = Problem::error(&scheme_node.place, format!("no scheme is named `{scheme}`"));
            context.add(problem.maybe_hint(values::suggestion(scheme, SCHEMES.iter().copied())));
            None
        }
    }
}

/// Twilio signs the URL that it calls, which is not the one that we see behind a proxy.
fn twilio(section: &Section<'_>, path: Option<&str>) -> Option<Verify> {
    let context = section.context;
    let secrets = secrets(section);
    let url = match (section.get("url"), context.hooks_url.get()) {
        (Some(node), _) => {
            context.url(node, "url", &["https", "http"])?;
            plain_url(context, node, "url")?.to_owned()
        }
        // One that is not a URL is told where the listener is read.
        (None, Some(node)) => {
            node.as_text().and_then(|text| url::Url::parse(text).ok())?;
            format!("{}{}", plain_url(context, node, "public_url")?.trim_end_matches('/'), path?)
        }
        (None, None) => {
            let problem =
                Problem::error(&section.node.place, "Twilio signs the URL that it calls, and nothing says it");
            let hint =
                "`public_url = \"https://…\"` in [hooks] is how callers reach all webhooks; `url` here is for this one";
            context.add(problem.hint(hint));
            return None;
        }
    };
    Some(Verify::Twilio { secrets: secrets?, url })
}

/// The text of a URL that must end where its path ends: the query is the request's own.
fn plain_url<'a>(context: &Context, node: &'a Node, key: &str) -> Option<&'a str> {
    let text = context.text(node, key)?;
    if text.contains(['?', '#']) {
        let problem =
            Problem::error(&node.place, format!("`{key}` has a query or a fragment, and Twilio signs the URL"));
        context.add(problem.hint("leave it out: the query is taken from each call, and a fragment is not signed"));
        return None;
    }
    Some(text)
}

fn vonage(section: &Section<'_>) -> Option<Verify> {
    let context = section.context;
    // `None` is the token of the Messages API.
    const METHODS: &[(&str, Option<SigHash>)] = &[
        ("jwt", None),
        ("sha256", Some(SigHash::Sha256)),
        ("sha512", Some(SigHash::Sha512)),
        ("sha1", Some(SigHash::Sha1)),
    ];
    let secrets = secrets(section);
    let tolerance = section.duration("tolerance").unwrap_or(TOLERANCE);
    let api_key = section.text("api_key").map(str::to_owned);
    let sig = section.get("method").map_or(Some(None), |node| match node.as_text() {
        Some(method @ ("md5" | "md5hash")) => {
            let problem =
                Problem::error(&node.place, format!("signatures by `{method}` are not accepted: MD5 is broken"));
            let hint = "choose SHA-256 or SHA-512 HMAC as the signature method in Vonage's dashboard, and name it here";
            context.add(problem.hint(hint));
            None
        }
        _ => context.choice(node, "method", METHODS),
    });
    let method = match sig? {
        None => VonageMethod::Jwt { api_key },
        Some(hash) => {
            if api_key.is_some() {
                let place = section.place_of("api_key");
                let problem = Problem::error(place, "only a token (`method = \"jwt\"`) names its account");
                context.add(problem.hint("leave `api_key` out: each account has a secret of its own"));
            }
            VonageMethod::Sig(hash)
        }
    };
    Some(Verify::Vonage { secrets: secrets?, method, tolerance })
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
