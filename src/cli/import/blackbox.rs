//! Modules of the blackbox exporter, each with its targets: a journey of one step for each pair.

use crate::cli::import::Imported;
use crate::cli::import::conditions::rcode;
use crate::cli::import::document::{Document, Heading, duration, inline, list, plain, quoted};
use crate::cli::import::yaml::Node;

/// How often Prometheus asks if nothing is said.
const EVERY: &str = "1m";
/// Stands for a target where none is known; its journey is put away until somebody says which.
const NOBODY: &str = "target.example.net";

/// A module asked for a target.
struct Target {
    line: u64,
    module: String,
    address: String,
    job: Option<String>,
    every: String,
}

/// A step, and what it does not check any more.
struct Probe {
    step: Vec<String>,
    expect: Vec<String>,
}

pub(super) fn import(root: &Node, prometheus: Option<&Node>) -> Result<Imported, String> {
    let modules = root.get("modules").map(Node::entries).unwrap_or_default();
    if modules.is_empty() {
        return Err("there are no `modules`".to_owned());
    }
    let mut document = Document::new();
    let targets = prometheus.map(|prometheus| targets(&mut document, prometheus)).unwrap_or_default();
    for (name, module) in modules {
        let own: Vec<_> = targets.iter().filter(|target| target.module == *name).collect();
        if prometheus.is_some() && own.is_empty() {
            document.note(module.line, format!("no target asks for module `{name}`"));
        }
        for target in &own {
            journey(&mut document, name, module, Some(target));
        }
        if own.is_empty() {
            journey(&mut document, name, module, None);
        }
    }
    let known = |target: &&Target| modules.iter().any(|(name, _)| *name == target.module);
    for target in targets.iter().filter(|target| !known(target)) {
        let Target { line, module, address, .. } = target;
        document.left_out(*line, format!("`{address}` asks for module `{module}`, which is not there"));
    }
    let (toml, notes) = document.finish("a configuration of the blackbox exporter");
    Ok(Imported { toml, notes })
}

/// The targets of all jobs that ask for `/probe`. Their lines are those of Prometheus' file.
fn targets(document: &mut Document, prometheus: &Node) -> Vec<Target> {
    let global = prometheus.get("global").and_then(|global| global.text_of("scrape_interval"));
    let mut targets = Vec::new();
    for job in prometheus.get("scrape_configs").map(Node::items).unwrap_or_default() {
        if job.text_of("metrics_path").as_deref() != Some("/probe") {
            continue;
        }
        let name = job.text_of("job_name");
        let module = job.get("params").map(|params| params.texts_of("module")).unwrap_or_default();
        let module = module.into_iter().next().unwrap_or_else(|| "http_2xx".to_owned());
        let every = job.text_of("scrape_interval").or_else(|| global.clone());
        let every = every.and_then(|text| duration(&text)).unwrap_or_else(|| EVERY.to_owned());
        for (key, node) in job.entries().iter().filter(|(key, _)| key.ends_with("_sd_configs")) {
            document.left_out(node.line, format!("targets of `{key}` are not known here (of Prometheus' file)"));
        }
        for group in job.get("static_configs").map(Node::items).unwrap_or_default() {
            for target in group.get("targets").map(Node::items).unwrap_or_default() {
                let Some(address) = target.text() else { continue };
                let (line, module, every, job) = (target.line, module.clone(), every.clone(), name.clone());
                targets.push(Target { line, module, address, job, every });
            }
        }
    }
    targets
}

fn journey(document: &mut Document, name: &str, module: &Node, target: Option<&&Target>) {
    let prober = module.text_of("prober").unwrap_or_default();
    let address = target.map(|target| target.address.as_str());
    let made = match prober.as_str() {
        "http" => http(document, name, module, address.unwrap_or(NOBODY)),
        "tcp" => tcp(document, name, module, address.unwrap_or("target.example.net:443")),
        "dns" => dns(document, name, module, address.unwrap_or("192.0.2.53")),
        other => Err(format!("nothing here probes `{other}`")),
    };
    let Probe { mut step, expect } = match made {
        Ok(probe) => probe,
        Err(why) => return document.left_out(module.line, format!("module `{name}`: {why}")),
    };
    if let Some(timeout) = module.get("timeout") {
        match timeout.text().and_then(|text| duration(&text)) {
            Some(text) => step.push(format!("timeout = {}", quoted(&text))),
            None => document.left_out(timeout.line, format!("the timeout of `{name}` is no duration of whole numbers")),
        }
    }
    if !expect.is_empty() {
        step.push(format!("expect = {}", list(&expect)));
    }
    let mut keys =
        vec!["muted = true  # Prometheus told people; name notifiers to do it from here: notify = [\"…\"]".to_owned()];
    if let Some(job) = target.and_then(|target| target.job.as_ref()) {
        keys.push(format!("labels = {}", inline(&[("job".to_owned(), quoted(job))])));
    }
    if target.is_none() {
        keys.push("enabled = false  # no target is known: put its address in".to_owned());
    }
    let short = |address: &str| address.split("://").last().unwrap_or_default().trim_end_matches('/').to_owned();
    let heading = Heading {
        line: module.line,
        name: address.map_or(name.to_owned(), |address| format!("{name}.{}", short(address))),
        every: target.map_or(EVERY, |target| &target.every).to_owned(),
        keys,
    };
    document.journey(heading, &step);
}

/// Says of every key that was not taken over that it was not.
fn unheard(document: &mut Document, name: &str, node: Option<&Node>, heard: &[&str]) {
    /// How a name is resolved and a connection is shared out: of no consequence for the verdict.
    const EASY: &[&str] =
        &["preferred_ip_protocol", "ip_protocol_fallback", "compression", "enable_http2", "valid_http_versions"];
    for (key, value) in node.map(Node::entries).unwrap_or_default() {
        match key.as_str() {
            key if heard.contains(&key) => {}
            key if EASY.contains(&key) => document.note(value.line, format!("`{key}` of `{name}` is not taken over")),
            key => document.left_out(value.line, format!("`{key}` of module `{name}` is not taken over")),
        }
    }
}

fn http(document: &mut Document, name: &str, module: &Node, target: &str) -> Result<Probe, String> {
    let own = module.get("http");
    let setting = |key: &str| own.and_then(|own| own.get(key));
    let items = |key: &str| setting(key).map(Node::items).unwrap_or_default();
    let url = if target.contains("://") { target.to_owned() } else { format!("http://{target}") };
    let follows = !own.is_some_and(|own| own.is_false("follow_redirects") || own.is_true("no_follow_redirects"));
    if url.starts_with("http://") && own.is_some_and(|own| own.is_true("fail_if_not_ssl")) {
        return Err("it fails by `fail_if_not_ssl` at an address without TLS".to_owned());
    }
    let (channel, path) = document.web(&url, follows)?;
    let mut step = vec![format!("request = {}", quoted(&channel)), format!("path = {}", plain(&path))];
    if let Some(method) = setting("method").and_then(Node::text) {
        step.push(format!("method = {}", quoted(&method.to_uppercase())));
    }
    if let Some(body) = setting("body").and_then(Node::text) {
        step.push(format!("text = {}", plain(&body)));
    }
    let headers: Vec<_> = setting("headers")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), plain(&value.text()?))))
        .collect();
    if !headers.is_empty() {
        step.push(format!("headers = {}", inline(&headers)));
    }
    let mut expect = match own.map(|own| own.texts_of("valid_status_codes")).unwrap_or_default() {
        codes if codes.is_empty() => {
            vec!["{ status = { at_least = 200 } }".to_owned(), "{ status = { less_than = 300 } }".to_owned()]
        }
        codes => vec![format!("{{ status = {{ one_of = [{}] }} }}", codes.join(", "))],
    };
    for pattern in items("fail_if_body_not_matches_regexp").iter().filter_map(Node::text) {
        expect.push(format!("{{ body = {{ matches = {} }} }}", quoted(&pattern)));
    }
    for pattern in items("fail_if_body_matches_regexp").iter().filter_map(Node::text) {
        expect.push(format!("{{ regex = {}, exists = false }}", quoted(&pattern)));
    }
    for rule in items("fail_if_header_not_matches") {
        let (Some(header), Some(pattern)) = (rule.text_of("header"), rule.text_of("regexp")) else { continue };
        if rule.is_true("allow_missing") {
            document.left_out(rule.line, format!("`{name}` does not check header `{header}`, which may be missing"));
        } else {
            expect.push(format!("{{ header = {}, matches = {} }}", quoted(&header), quoted(&pattern)));
        }
    }
    let heard = [
        "valid_status_codes",
        "method",
        "headers",
        "body",
        "fail_if_not_ssl",
        "follow_redirects",
        "no_follow_redirects",
        "fail_if_body_matches_regexp",
        "fail_if_body_not_matches_regexp",
        "fail_if_header_not_matches",
    ];
    unheard(document, name, own, &heard);
    Ok(Probe { step, expect })
}

fn tcp(document: &mut Document, name: &str, module: &Node, target: &str) -> Result<Probe, String> {
    let own = module.get("tcp");
    let has_tls = own.is_some_and(|own| own.is_true("tls"));
    let exchange = own.and_then(|own| own.get("query_response"));
    let lines = exchange.map(Node::items).unwrap_or_default();
    let tls = if has_tls { "tls = true\n" } else { "" };
    let channel =
        document.channel(&target.replace(':', "-"), &format!("type = \"tcp\"\naddress = {}\n{tls}", quoted(target)));
    unheard(document, name, own, &["tls", "query_response"]);
    let is_plain =
        lines.iter().all(|line| line.entries().iter().all(|(key, _)| ["expect", "send"].contains(&key.as_str())));
    match (lines, exchange) {
        ([], _) => Ok(Probe { step: vec![format!("check = {}", quoted(&channel))], expect: Vec::new() }),
        ([first], Some(_)) if is_plain && first.get("send").is_none() => {
            let pattern = first.text_of("expect").unwrap_or_default();
            let step = vec![format!("request = {}", quoted(&channel))];
            Ok(Probe { step, expect: vec![format!("{{ body = {{ matches = {} }} }}", quoted(&pattern))] })
        }
        ([first, second], Some(_)) if is_plain && first.get("expect").is_none() && second.get("send").is_none() => {
            let sent = format!("{}\n", first.text_of("send").unwrap_or_default());
            let pattern = second.text_of("expect").unwrap_or_default();
            let step = vec![format!("request = {}", quoted(&channel)), format!("text = {}", plain(&sent))];
            Ok(Probe { step, expect: vec![format!("{{ body = {{ matches = {} }} }}", quoted(&pattern))] })
        }
        (_, exchange) => {
            let line = exchange.map_or(module.line, |exchange| exchange.line);
            document
                .left_out(line, format!("`{name}` connects, and does not have the conversation of `query_response`"));
            Ok(Probe { step: vec![format!("check = {}", quoted(&channel))], expect: Vec::new() })
        }
    }
}

fn dns(document: &mut Document, name: &str, module: &Node, target: &str) -> Result<Probe, String> {
    let own = module.get("dns").ok_or("it has no `dns`")?;
    let lookup = own.text_of("query_name").ok_or("it has no `query_name`")?;
    let record = own.text_of("query_type").unwrap_or_else(|| "A".to_owned());
    let channel = document.channel(&format!("dns-{target}"), &format!("type = \"dns\"\nserver = {}\n", quoted(target)));
    let step = vec![
        format!("check = {}", quoted(&channel)),
        format!("lookup = {}", plain(lookup.trim_end_matches('.'))),
        format!("record = {}", quoted(&record.to_uppercase())),
    ];
    let codes = own.texts_of("valid_rcodes");
    let codes: Vec<_> = if codes.is_empty() { vec!["NOERROR".to_owned()] } else { codes };
    let known: Option<Vec<_>> = codes.iter().map(|code| rcode(code)).collect();
    let expect = match known.as_deref() {
        Some([only]) => vec![format!("{{ status = {only} }}")],
        Some(several) => {
            let several: Vec<_> = several.iter().map(usize::to_string).collect();
            vec![format!("{{ status = {{ one_of = [{}] }} }}", several.join(", "))]
        }
        None => {
            document.left_out(own.line, format!("`{name}` does not check its response code"));
            Vec::new()
        }
    };
    unheard(document, name, Some(own), &["query_name", "query_type", "valid_rcodes"]);
    Ok(Probe { step, expect })
}
