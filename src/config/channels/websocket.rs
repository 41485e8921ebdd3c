//! `type = "websocket"`.

use regex::Regex;

use crate::channel::Settings;
use crate::channel::websocket::{Frames, WebSocketSettings};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::{Data, Node, Section};
use crate::config::problem::Problem;
use crate::secret::HeaderText;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "websocket",
    keys: &["url", "headers", "subprotocol", "ca_file", "hello", "subscribe", "ready_when", "frames"],
    tables: &[],
    read,
};

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| headers(section, node)).unwrap_or_default();
    let subprotocol = section.text("subprotocol").map(str::to_owned);
    if let (Some(name), Some(node)) = (&subprotocol, section.get("subprotocol"))
        && !crate::config::secrets::is_header_name(name)
    {
        let problem = Problem::error(&node.place, format!("`{name}` is not the name of a subprotocol"));
        context.add(problem.hint("one name, as in \"graphql-transport-ws\""));
    }
    let ca_file = ca_file(section);
    let (hello, subscribe) = (texts(section, "hello"), texts(section, "subscribe"));
    let ready_when = section.get("ready_when").and_then(|node| {
        let text = context.text(node, "ready_when")?;
        let pattern = Regex::new(text);
        if pattern.is_err() {
            let problem = Problem::error(&node.place, "`ready_when` is not a regular expression");
            context.add(problem.hint("it is looked for in each frame, as in \"\\\"status\\\": *\\\"subscribed\\\"\""));
        }
        pattern.ok()
    });
    const FRAMES: &[(&str, Frames)] = &[("text", Frames::Text), ("binary", Frames::Binary)];
    let frames = section.get("frames").map_or(Some(Frames::Text), |node| context.choice(node, "frames", FRAMES));
    let node = section.require("url", "the address, as in \"wss://push.example.net/v1\"")?;
    let (url, parsed) = context.secret_url(node, "url", &["ws", "wss"], false)?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let problem = Problem::error(&node.place, "the URL of a WebSocket has no user and no password");
        context.add(problem.hint("send them in the handshake: `headers = { authorization = { file = \"…\" } }`"));
    }
    channel.host = host(&parsed);
    Some(Settings::WebSocket(WebSocketSettings {
        url,
        headers,
        subprotocol,
        ca_file,
        hello,
        subscribe,
        ready_when,
        frames: frames?,
    }))
}

/// The handshake's own headers are not to be given.
fn headers(section: &Section<'_>, node: &Node) -> Vec<(String, HeaderText)> {
    let context = section.context;
    for entry in node.entries() {
        let name = entry.key.to_ascii_lowercase();
        if name == "sec-websocket-protocol" {
            let problem = Problem::error(&entry.key_place, "the subprotocol has a key of its own");
            context.add(problem.hint("write `subprotocol = \"…\"`"));
        } else if name.starts_with("sec-websocket-") || ["connection", "upgrade"].contains(&name.as_str()) {
            let problem = format!("the header `{}` is part of the handshake itself", entry.key);
            context.add(Problem::error(&entry.key_place, problem).hint("leave it out"));
        }
    }
    context.headers(node, "headers")
}

/// Texts to be sent when a connection begins, each plain or secret.
fn texts(section: &Section<'_>, key: &str) -> Vec<HeaderText> {
    let context = section.context;
    let Some(node) = section.get(key) else { return Vec::new() };
    let items = context.list(node, key, "a list of texts, each a string or a secret").unwrap_or_default();
    let texts = items.iter().filter_map(|item| match &item.data {
        Data::Text(text) => {
            if text.contains("{{") {
                let problem = Problem::error(&item.place, format!("templates are not filled in under `{key}`"));
                context.add(
                    problem.hint("a connection is made once for many runs; what belongs to a run is in its steps"),
                );
            }
            Some(HeaderText::Plain(text.clone()))
        }
        Data::Table(_) => context.secret(item, key).map(HeaderText::Secret),
        _ => {
            context.expected(item, key, "a list of texts, each a string or a secret");
            None
        }
    });
    texts.collect()
}
