//! Gatus' endpoints, each a journey of one step; its providers of alerts, each a notifier.

use url::Url;

use crate::cli::import::Imported;
use crate::cli::import::conditions::{Medium, expectations};
use crate::cli::import::document::{Document, Heading, duration, inline, list, plain, quoted, secret};
use crate::cli::import::yaml::Node;

/// How often an endpoint is asked that does not say.
const EVERY: &str = "1m";
/// What Gatus has for itself, and Journeyman in another place or not at all.
const OWN: &[&str] = &[
    "web",
    "ui",
    "storage",
    "metrics",
    "debug",
    "disable-monitoring-lock",
    "concurrency",
    "skip-invalid-config-update",
    "announcements",
];

pub(super) fn import(root: &Node) -> Result<Imported, String> {
    let endpoints = root.get("endpoints").map(Node::items).unwrap_or_default();
    if endpoints.is_empty() {
        return Err("there are no `endpoints`".to_owned());
    }
    let mut document = Document::new();
    for (key, value) in root.entries() {
        match key.as_str() {
            "endpoints" | "alerting" => {}
            // What anchors stand in, by custom.
            key if key.starts_with("x-") => {}
            key if OWN.contains(&key) => document.note(value.line, format!("`{key}` is about Gatus itself")),
            key => document.left_out(value.line, format!("`{key}` is not taken over")),
        }
    }
    for (kind, provider) in root.get("alerting").map(Node::entries).unwrap_or_default() {
        notifier(&mut document, kind, provider);
    }
    for node in endpoints {
        endpoint(&mut document, root, node);
    }
    let (toml, notes) = document.finish("a Gatus configuration");
    Ok(Imported { toml, notes })
}

fn notifier(document: &mut Document, kind: &str, provider: &Node) {
    let body = match kind {
        "slack" => {
            provider.text_of("webhook-url").map(|url| format!("type = \"slack\"\nwebhook_url = {}\n", secret(&url)))
        }
        "pagerduty" => {
            let key = provider.text_of("integration-key");
            key.map(|key| format!("type = \"pagerduty\"\nrouting_key = {}\n", secret(&key)))
        }
        "email" => email(provider),
        _ => {
            document.left_out(provider.line, format!("nobody is told by `{kind}`: there is no such notifier"));
            return;
        }
    };
    match body {
        Some(body) => document.notifier(kind, body),
        None => document.left_out(provider.line, format!("`{kind}` does not say where to")),
    }
    for key in ["overrides", "client"] {
        if let Some(node) = provider.get(key) {
            document.left_out(node.line, format!("`{key}` of `{kind}` is not taken over"));
        }
    }
}

fn email(provider: &Node) -> Option<String> {
    let (from, host) = (provider.text_of("from")?, provider.text_of("host")?);
    let port = provider.text_of("port").and_then(|port| port.parse::<u16>().ok()).unwrap_or(587);
    let scheme = match port {
        465 => "smtps",
        587 => "smtp+starttls",
        _ => "smtp",
    };
    let mut url = Url::parse(&format!("{scheme}://{host}:{port}")).ok()?;
    let password = provider.text_of("password").filter(|password| !password.is_empty());
    // Gatus signs in as the sender unless it is told otherwise.
    if password.is_some() {
        url.set_username(&provider.text_of("username").unwrap_or_else(|| from.clone())).ok()?;
    }
    let to = provider.text_of("to")?;
    let to: Vec<_> = to.split(',').map(|to| quoted(to.trim())).collect();
    let password = password.map_or(String::new(), |password| format!("password = {}\n", secret(&password)));
    let (url, from) = (quoted(url.as_str()), quoted(&from));
    Some(format!("type = \"email\"\nsmtp = {url}\n{password}from = {from}\nto = [{}]\n", to.join(", ")))
}

/// What is asked, and how.
struct Asked {
    medium: Medium,
    step: Vec<String>,
    /// What holds unless a condition says otherwise.
    expect: Vec<String>,
}

fn endpoint(document: &mut Document, root: &Node, node: &Node) {
    let name = node.text_of("name").unwrap_or_default();
    let name = node.text_of("group").map_or(name.clone(), |group| format!("{group}.{name}"));
    let asked = match asked(document, node) {
        Ok(asked) => asked,
        Err(why) => return document.left_out(node.line, format!("endpoint `{name}`: {why}")),
    };
    let Asked { medium, mut step, mut expect } = asked;
    for condition in node.get("conditions").map(Node::items).unwrap_or_default() {
        let text = condition.text().unwrap_or_default();
        match expectations(&text, medium) {
            Ok(found) => expect.extend(found),
            Err(why) => document.left_out(condition.line, format!("`{name}` does not check `{text}`: {why}")),
        }
    }
    if !expect.is_empty() {
        step.push(format!("expect = {}", list(&expect)));
    }
    let mut keys = Vec::new();
    if node.is_false("enabled") {
        keys.push("enabled = false".to_owned());
    }
    if let Some(group) = node.text_of("group") {
        keys.push(format!("labels = {}", inline(&[("group".to_owned(), quoted(&group))])));
    }
    client(document, &name, node, &mut step);
    told(document, root, node, &mut keys);
    let every = node.get("interval").map(|node| (node.line, node.text().unwrap_or_default()));
    let every = every.map_or(EVERY.to_owned(), |(line, text)| {
        duration(&text).unwrap_or_else(|| {
            document
                .left_out(line, format!("`{text}` is no interval of whole numbers; `{name}` is asked every {EVERY}"));
            EVERY.to_owned()
        })
    });
    for key in ["ui", "maintenance-windows", "extra-labels", "store", "always-run"] {
        if let Some(node) = node.get(key) {
            document.note(node.line, format!("`{key}` of `{name}` is not taken over"));
        }
    }
    document.journey(Heading { line: node.line, name, every, keys }, &step);
}

fn asked(document: &mut Document, node: &Node) -> Result<Asked, String> {
    let url = node.text_of("url").ok_or("it has no `url`")?;
    if let Some(dns) = node.get("dns") {
        return of_dns(document, &url, dns);
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("`{url}` has no scheme"))?;
    match scheme {
        "http" | "https" => web(document, node, &url),
        "tcp" | "tls" => {
            if let Some(body) = node.get("body") {
                document.left_out(body.line, "what is sent over a connection is not taken over");
            }
            let address = rest.trim_end_matches('/');
            let body = format!("type = \"{scheme}\"\naddress = {}\n", quoted(address));
            let channel = document.channel(&address.replace(':', "-"), &body);
            Ok(Asked {
                medium: Medium::Connection,
                step: vec![format!("check = {}", quoted(&channel))],
                expect: Vec::new(),
            })
        }
        "ws" | "wss" => {
            Err("a websocket answers with what its protocol says: write a journey with `send` and `receive`".to_owned())
        }
        other => Err(format!("nothing here speaks `{other}`")),
    }
}

fn of_dns(document: &mut Document, server: &str, dns: &Node) -> Result<Asked, String> {
    let lookup = dns.text_of("query-name").ok_or("it has no `query-name`")?;
    let record = dns.text_of("query-type").unwrap_or_else(|| "A".to_owned());
    let server = server.rsplit_once("://").map_or(server, |(_, rest)| rest);
    let channel = document.channel(&format!("dns-{server}"), &format!("type = \"dns\"\nserver = {}\n", quoted(server)));
    let step = vec![
        format!("check = {}", quoted(&channel)),
        format!("lookup = {}", plain(lookup.trim_end_matches('.'))),
        format!("record = {}", quoted(&record.to_uppercase())),
    ];
    Ok(Asked { medium: Medium::Dns, step, expect: Vec::new() })
}

fn web(document: &mut Document, node: &Node, url: &str) -> Result<Asked, String> {
    let follows = !node.get("client").is_some_and(|client| client.is_true("ignore-redirect"));
    let (channel, path) = document.web(url, follows)?;
    let mut step = vec![format!("request = {}", quoted(&channel)), format!("path = {}", plain(&path))];
    if let Some(method) = node.text_of("method") {
        step.push(format!("method = {}", quoted(&method.to_uppercase())));
    }
    let mut headers: Vec<_> = node
        .get("headers")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), plain(&value.text()?))))
        .collect();
    if let Some(body) = node.text_of("body") {
        let is_graphql = node.is_true("graphql");
        let body = if is_graphql { serde_json::json!({ "query": body }).to_string() } else { body };
        if is_graphql && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type".to_owned(), quoted("application/json")));
        }
        step.push(format!("text = {}", plain(&body)));
    }
    if !headers.is_empty() {
        step.push(format!("headers = {}", inline(&headers)));
    }
    // Gatus takes any answer that no condition speaks of; Journeyman an answer that says no for a failure.
    let says_status = |condition: &Node| condition.text().is_some_and(|text| text.starts_with("[STATUS]"));
    let is_said = node.get("conditions").map(Node::items).unwrap_or_default().iter().any(says_status);
    let expect = if is_said { Vec::new() } else { vec!["{ status = { at_least = 100 } }".to_owned()] };
    Ok(Asked { medium: Medium::Web, step, expect })
}

fn client(document: &mut Document, name: &str, node: &Node, step: &mut Vec<String>) {
    for (key, value) in node.get("client").map(Node::entries).unwrap_or_default() {
        match (key.as_str(), value.text()) {
            ("timeout", Some(text)) => match duration(&text) {
                Some(timeout) => step.push(format!("timeout = {}", quoted(&timeout))),
                None => document.left_out(value.line, format!("`{text}` is no timeout of whole numbers")),
            },
            ("ignore-redirect", _) => {}
            ("insecure", Some(text)) if text == "false" => {}
            ("insecure", _) => {
                let why = "a certificate that is not in order fails here: trust it by the channel's `ca_file`";
                document.left_out(value.line, format!("`{name}`: {why}"));
            }
            (key, _) => document.left_out(value.line, format!("`{key}` of the client of `{name}` is not taken over")),
        }
    }
}

/// Who is told, and after how many.
fn told(document: &mut Document, root: &Node, node: &Node, keys: &mut Vec<String>) {
    let (mut notify, mut policy) = (Vec::new(), Vec::new());
    for alert in node.get("alerts").map(Node::items).unwrap_or_default() {
        let Some(kind) = alert.text_of("type") else { continue };
        let default = root.get("alerting").and_then(|alerting| alerting.get(&kind)?.get("default-alert"));
        let setting = |key: &str| alert.get(key).or_else(|| default?.get(key));
        if setting("enabled").is_some_and(|enabled| enabled.text().as_deref() == Some("false")) {
            continue;
        }
        if !document.has_notifier(&kind) {
            document.left_out(alert.line, format!("nobody is told by `{kind}`: it is not set up"));
            continue;
        }
        notify.push(quoted(&kind));
        for (theirs, ours) in [("failure-threshold", "down_after"), ("success-threshold", "recover_after")] {
            let count = setting(theirs).and_then(Node::text).and_then(|text| text.parse::<u32>().ok());
            if let Some(count) = count.filter(|_| !policy.iter().any(|(key, _)| *key == ours)) {
                policy.push((ours, count));
            }
        }
        if setting("send-on-resolved").is_some_and(|told| told.text().as_deref() == Some("false")) {
            document.note(alert.line, "that it is over is told here, whatever `send-on-resolved` says");
        }
    }
    notify.dedup();
    match notify.is_empty() {
        true => keys.push("muted = true  # nobody was told there either".to_owned()),
        false => keys.push(format!("notify = [{}]", notify.join(", "))),
    }
    if !policy.is_empty() {
        let policy: Vec<_> = policy.iter().map(|(key, count)| format!("{key} = {count}")).collect();
        keys.push(format!("alert = {{ {} }}", policy.join(", ")));
    }
}
