//! `type = "postgres"`.

use std::time::Duration;

use crate::channel::Settings;
use crate::channel::postgres::{PostgresSettings, Source, Target, check_url};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::{Context, Node, Section};
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "postgres",
    keys: &["url", "notify", "query", "listen", "poll", "ca_file"],
    tables: &[("poll", POLL_KEYS)],
    read,
};
const POLL_KEYS: &[&str] = &["query", "every"];
/// A shorter poll measures itself.
const EVERY: Duration = Duration::from_secs(1);
/// PostgreSQL cuts longer names of channels off in one place and refuses them in another (`NAMEDATALEN`).
const LONGEST_NAME: usize = 63;

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let sending = section.only_one(&["notify", "query"], false, "a message is sent once");
    let target = sending.and_then(|(key, node)| match key {
        "notify" => Some(Target::Notify(name(context, node, key)?)),
        _ => Some(Target::Statement(context.sql(node, key)?.to_owned())),
    });
    let receiving = section.only_one(&["listen", "poll"], false, "a channel receives in one way");
    let is_receiving = receiving.is_some();
    let source = receiving.and_then(|(key, node)| match key {
        "listen" => Some(Source::Listen(name(context, node, key)?)),
        _ => {
            let section = Section::open(context, node, "poll", POLL_KEYS)?;
            let query = section.require("query", "what selects the messages: each row is one, once");
            let every = section.duration("every").unwrap_or(EVERY);
            Some(Source::Poll { query: context.sql(query?, "query")?.to_owned(), every })
        }
    });
    let ca_file = ca_file(section);
    let node = section.require("url", "the server's address, as in \"postgres://user@host/database\"")?;
    let (url, parsed) = context.secret_url(node, "url", &["postgres", "postgresql"], false)?;
    if let Err((why, form)) = check_url(&url.reveal()) {
        context.add(Problem::error(&node.place, format!("`url` cannot be used: {why}")).hint(form));
        return None;
    }
    channel.host = host(&parsed);
    if !is_receiving {
        let hint = "say what is received: `listen = \"…\"` or `poll = { query = \"…\" }`";
        channel.cannot_receive = Some(("nothing to receive on", hint.to_owned()));
    }
    Some(Settings::Postgres(PostgresSettings { url, ca_file, target, source }))
}

fn name(context: &Context, node: &Node, key: &str) -> Option<String> {
    let name = context.text(node, key)?;
    if name.is_empty() || name.len() > LONGEST_NAME {
        let problem = format!("`{key}` must have between 1 and {LONGEST_NAME} bytes");
        context.add(Problem::error(&node.place, problem).hint("it is the name of a notification channel"));
    }
    Some(name.to_owned())
}
