//! `type = "amqp"`.

use crate::channel::Settings;
use crate::channel::amqp::{AmqpSettings, Binding, QueueSettings};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::Section;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "amqp",
    keys: &["url", "ca_file", "exchange", "routing_key", "queue", "management"],
    tables: &[("queue", QUEUE_KEYS)],
    read,
};
const QUEUE_KEYS: &[&str] = &["name", "bind"];
const BINDING_KEYS: &[&str] = &["exchange", "routing_key"];

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
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
    let ca_file = ca_file(section);
    let management = section.get("management").and_then(|node| {
        let (url, _) = context.secret_url(node, "management", &["http", "https"], false)?;
        Some(url)
    });
    let (exchange, routing_key) = (name(section, "exchange"), name(section, "routing_key"));
    let url = section.require("url", "the broker's address, as in \"amqps://user@host/vhost\"")?;
    let (url, parsed) = context.secret_url(url, "url", &["amqp", "amqps"], false)?;
    channel.host = host(&parsed);
    if queue.is_none() {
        let hint = "`queue = { name = \"…\", bind = [{ exchange = \"…\", routing_key = \"#\" }] }`";
        channel.cannot_receive = Some(("no queue to receive on", format!("add a queue of our own: {hint}")));
    }
    Some(Settings::Amqp(AmqpSettings { url, ca_file, management, exchange, routing_key, queue }))
}
