//! `type = "redis"`.

use crate::channel::Settings;
use crate::channel::redis::{Place, ReceiveSettings, RedisSettings, check_url};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::{Node, Section};
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "redis",
    keys: &["url", "stream", "topic", "max_length", "receive", "ca_file"],
    tables: &[("receive", RECEIVE_KEYS)],
    read,
};
const RECEIVE_KEYS: &[&str] = &["stream", "topic", "delete"];
const PLACES: &[&str] = &["stream", "topic"];
const ONE_PLACE: &str = "`stream` is the key of a stream, `topic` is the name of a pub/sub channel";

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let place = |section: &Section<'_>, required: bool| {
        let (key, node) = section.only_one(PLACES, required, ONE_PLACE)?;
        let name = context.text(node, key)?;
        if name.is_empty() {
            context.add(Problem::error(&node.place, format!("`{key}` is empty")));
        }
        Some(if key == "stream" { Place::Stream(name.to_owned()) } else { Place::Topic(name.to_owned()) })
    };
    let target = place(section, false);
    let receive = section.get("receive").and_then(|node| {
        let section = Section::open(context, node, "receive", RECEIVE_KEYS)?;
        let place = place(&section, true);
        let delete = section.bool("delete", false);
        if let (true, Some(Place::Topic(_))) = (delete, &place) {
            let problem = Problem::error(section.place_of("delete"), "a topic keeps nothing that could be deleted");
            context.add(problem.hint("`delete` is for streams"));
        }
        Some(ReceiveSettings { place: place?, delete })
    });
    let max_length = section.whole("max_length", 1..=u64::from(u32::MAX));
    if let (Some(_), Some(Place::Topic(_))) = (max_length, &target) {
        let problem = Problem::error(section.place_of("max_length"), "a topic has no length");
        context.add(problem.hint("`max_length` is for streams"));
    }
    let ca_file = ca_file(section);
    let url = section.require("url", "the server's address, as in \"rediss://user@host\"")?;
    let (url, parsed) = secret_url(section, url)?;
    channel.host = host(&parsed);
    if receive.is_none() {
        let hint = "say what is read: `receive = { stream = \"…\" }` or `receive = { topic = \"…\" }`";
        channel.cannot_receive = Some(("nothing to receive on", hint.to_owned()));
    }
    Some(Settings::Redis(RedisSettings { url, ca_file, target, max_length, receive }))
}

fn secret_url(section: &Section<'_>, node: &Node) -> Option<(crate::secret::Secret, url::Url)> {
    let context = section.context;
    let (url, parsed) = context.secret_url(node, "url", &["redis", "rediss"], false)?;
    if let Err((why, form)) = check_url(&url.reveal()) {
        context.add(Problem::error(&node.place, format!("`url` cannot be used: {why}")).hint(form));
        return None;
    }
    Some((url, parsed))
}
