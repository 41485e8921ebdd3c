//! `type = "smtp"`.

use crate::channel::Settings;
use crate::channel::smtp::SmtpSettings;
use crate::config::channels::{Channel, Grammar, mail};
use crate::config::document::{Data, Section};
use crate::config::notifiers::address;
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "smtp",
    keys: &["url", "username", "password", "plain_password", "ca_file", "from", "to"],
    tables: &[],
    read,
};

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let from = section.require("from", "the sender, as in \"probe@example.net\"");
    let from = from.and_then(|node| address(context, node, "from"));
    let to: Option<Vec<_>> = section
        .strings("to")
        .map(|items| items.into_iter().filter_map(|(_, node)| address(context, node, "to")).collect());
    if let Some(node) = section.get("to")
        && matches!(&node.data, Data::List(items) if items.is_empty())
    {
        let problem = Problem::error(&node.place, "`to` has no recipient");
        context.add(problem.hint("leave it out if every step gives its own"));
    }
    let server = mail::server(section, channel, ["smtp", "smtp+starttls", "smtps"])?;
    Some(Settings::Smtp(SmtpSettings { server, from: from?, to: to.unwrap_or_default() }))
}
