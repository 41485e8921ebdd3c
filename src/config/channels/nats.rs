//! `type = "nats"`.

use std::time::Duration;

use crate::channel::Settings;
use crate::channel::nats::{INBOX_PREFIX, KEEP_ALIVE, NatsSettings, wire::wrong_subject};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::{Node, Section};
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "nats",
    keys: &[
        "url",
        "user",
        "password",
        "token",
        "nkey",
        "creds",
        "ca_file",
        "subject",
        "subscribe",
        "stream",
        "inbox_prefix",
        "keep_alive",
    ],
    tables: &[],
    read,
};
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Who we are can be said in one way only.
const LOGINS: &[&str] = &["user", "token", "nkey", "creds"];

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let secret = |key: &'static str| section.get(key).and_then(|node| context.secret(node, key));
    let subject = |key: &'static str, may_have_wildcards: bool| {
        let node = section.get(key)?;
        let text = context.text(node, key)?;
        if let Some(wrong) = wrong_subject(text, may_have_wildcards) {
            let verb = if key == "subscribe" { "receive on" } else { "use" };
            let problem = Problem::error(&node.place, format!("cannot {verb} `{text}`: {wrong}"));
            context.add(problem.maybe_hint(queue_group(key, text)));
        }
        Some(text.to_owned())
    };
    let stream = section.get("stream").and_then(|node| stream_name(section, node));
    section.only_one(LOGINS, false, "a server knows us by one of them");
    let user = section.text("user").map(str::to_owned);
    if section.get("password").is_some() && user.is_none() {
        let problem = Problem::error(section.place_of("password"), "there is no `user` for this `password`");
        context.add(problem.hint("a password alone is a token: `token = { file = \"…\" }`"));
    }
    let (password, token, nkey, creds) = (secret("password"), secret("token"), secret("nkey"), secret("creds"));
    let (to, from) = (subject("subject", false), subject("subscribe", true));
    let inbox_prefix = subject("inbox_prefix", false).unwrap_or_else(|| INBOX_PREFIX.to_owned());
    let keep_alive = section.duration("keep_alive").unwrap_or(KEEP_ALIVE);
    if keep_alive < SHORTEST_KEEP_ALIVE {
        context.add(Problem::error(section.place_of("keep_alive"), "`keep_alive` is a second at least"));
    }
    let ca_file = ca_file(section);
    let url = section.require("url", "the server's address, as in \"nats://host\" or \"tls://host\"")?;
    let (url, parsed) = context.secret_url(url, "url", &["nats", "tls"], false)?;
    if parsed.password().is_none() && !parsed.username().is_empty() && user.is_none() {
        context.redactor.add(parsed.username());
    }
    channel.host = host(&parsed);
    if from.is_none() {
        let hint = "add a subject: `subscribe = \"orders.done.>\"`";
        channel.cannot_receive = Some(("no subject to receive on", hint.to_owned()));
    }
    Some(Settings::Nats(NatsSettings {
        url,
        user,
        password,
        token,
        nkey,
        creds,
        ca_file,
        subject: to.unwrap_or_default(),
        subscribe: from,
        stream,
        inbox_prefix,
        keep_alive,
    }))
}

/// Some write a queue group behind the subject, as the protocol does.
fn queue_group(key: &str, text: &str) -> Option<String> {
    let (subject, _) = text.split_once(' ').filter(|_| key == "subscribe")?;
    Some(format!(
        "a queue group gives each message to one member only: it would take messages from the others; subscribe to `{subject}` itself"
    ))
}

fn stream_name(section: &Section<'_>, node: &Node) -> Option<String> {
    let text = section.context.text(node, "stream")?;
    if text.contains(['.', '/', '\\']) || wrong_subject(text, false).is_some() {
        let problem = Problem::error(&node.place, format!("`{text}` cannot be the name of a stream"));
        section
            .context
            .add(problem.hint("subjects go to `subject` and `subscribe`; `stream` is the stream that has them"));
    }
    Some(text.to_owned())
}
