//! `type = "mqtt"`.

use std::time::Duration;

use crate::channel::Settings;
use crate::channel::mqtt::{MqttSettings, Version, topic};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::Section;
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "mqtt",
    keys: &["url", "user", "password", "ca_file", "version", "topic", "subscribe", "qos", "keep_alive"],
    tables: &[],
    read,
};
const VERSIONS: &[(&str, Version)] = &[("5", Version::V5), ("3.1.1", Version::V311)];
const QOS: u8 = 1;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The protocol has two bytes for the seconds.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(65_535);

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let version = section.get("version").and_then(|node| context.choice(node, "version", VERSIONS));
    let version = version.unwrap_or(Version::V5);
    let topic = section.get("topic").and_then(|node| {
        let text = context.text(node, "topic")?;
        if let Some(wrong) = topic::wrong_name(text) {
            context.add(Problem::error(&node.place, format!("cannot publish to `{text}`: {wrong}")));
        }
        Some(text.to_owned())
    });
    let subscribe = section.get("subscribe").and_then(|node| {
        let text = context.text(node, "subscribe")?;
        if let Some(wrong) = topic::wrong_filter(text) {
            let problem = Problem::error(&node.place, format!("cannot receive on `{text}`: {wrong}"));
            let shared = text.starts_with("$share/").then(|| text.splitn(3, '/').nth(2)).flatten();
            context.add(problem.maybe_hint(shared.map(|filter| format!("subscribe to `{filter}` itself"))));
        }
        Some(text.to_owned())
    });
    let qos = section.whole("qos", 0..=2).map_or(QOS, |qos| qos as u8);
    let keep_alive = section.duration("keep_alive").unwrap_or(KEEP_ALIVE);
    if keep_alive.subsec_nanos() != 0 || keep_alive < Duration::from_secs(1) || keep_alive > LONGEST_KEEP_ALIVE {
        let problem = "`keep_alive` is a whole number of seconds, from 1 to 65535";
        context.add(Problem::error(section.place_of("keep_alive"), problem));
    }
    let user = section.text("user").map(str::to_owned);
    let password = section.get("password").and_then(|node| context.secret(node, "password"));
    let ca_file = ca_file(section);
    let url = section.require("url", "the broker's address, as in \"mqtts://user@host\"")?;
    let (url, parsed) = context.secret_url(url, "url", &["mqtt", "mqtts"], false)?;
    channel.host = host(&parsed);
    if version == Version::V311 {
        let has_user = user.is_some() || !parsed.username().is_empty();
        if !has_user && (password.is_some() || parsed.password().is_some()) {
            let problem = Problem::error(section.place_of("password"), "MQTT 3.1.1 has no password without a user");
            context.add(problem.hint("add `user`"));
        }
        channel.cannot_take = &[
            ("headers", "MQTT 3.1.1 has no headers"),
            ("retain", "a retained message never expires in MQTT 3.1.1, and would stay behind for ever"),
        ];
    }
    if subscribe.is_none() {
        let hint = "add a topic filter of our own: `subscribe = \"orders/done/#\"`";
        channel.cannot_receive = Some(("no topic filter to receive on", hint.to_owned()));
    }
    let topic = topic.unwrap_or_default();
    Some(Settings::Mqtt(MqttSettings { version, url, user, password, ca_file, topic, subscribe, qos, keep_alive }))
}
