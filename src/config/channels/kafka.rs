//! `type = "kafka"`.

use crate::channel::Settings;
use crate::channel::kafka::{Acks, CLIENT_ID, FETCH_WAIT, KafkaSettings, Mechanism, SaslSettings};
use crate::config::channels::{Channel, Grammar, ca_file};
use crate::config::document::Section;
use crate::config::problem::Problem;
use crate::config::secrets::hide_text;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "kafka",
    keys: &["brokers", "topic", "receive_topic", "acks", "tls", "ca_file", "sasl", "client_id", "fetch_wait"],
    tables: &[("sasl", SASL_KEYS)],
    read,
};
const SASL_KEYS: &[&str] = &["mechanism", "user", "password"];
/// The port of a broker that says no other.
const PORT: u16 = 9_092;
/// The longest name of a topic, and what it is made of: Kafka's `Topic.validate`.
const TOPIC_LENGTH: usize = 249;

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    section.require("brokers", "one or more of the cluster's brokers, as in [\"kafka-1.example.net:9092\"]");
    let brokers = brokers(section);
    channel.host = brokers.as_ref().and_then(|brokers| brokers.first().cloned());
    let topic = topic(section, "topic").unwrap_or_default();
    let receive_topic = self::topic(section, "receive_topic").unwrap_or_else(|| topic.clone());
    if receive_topic.is_empty() {
        channel.cannot_receive = Some(("no topic to receive on", "add `topic` or `receive_topic`".to_owned()));
    }
    let acks = section.get("acks").and_then(|node| context.choice(node, "acks", Acks::ALL)).unwrap_or_default();
    let (tls, ca_file) = (section.bool("tls", false), ca_file(section));
    if let (Some(node), false) = (section.get("ca_file"), tls) {
        let problem = Problem::error(&node.place, "`ca_file` is for TLS, and the channel speaks none");
        context.add(problem.hint("add `tls = true`"));
    }
    let sasl = match section.get("sasl") {
        None => None,
        Some(node) => {
            let section = Section::open(context, node, "sasl", SASL_KEYS)?;
            let names: Vec<_> = Mechanism::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let mechanism = section.require("mechanism", &format!("one of {}", names.join(", ")));
            let mechanism = mechanism.and_then(|node| context.choice(node, "mechanism", Mechanism::ALL));
            section.require("user", "the user that the brokers know us by");
            let user = section.text("user");
            let password = section.require("password", "the user's password: `{ file = \"…\" }`");
            let password = password.and_then(|node| context.secret(node, "password"));
            if mechanism == Some(Mechanism::Plain) && !tls {
                let problem = Problem::warning(&node.place, "the password goes over the network as it is");
                context.add(problem.hint("add `tls = true`, or use a SCRAM mechanism"));
            }
            Some(SaslSettings { mechanism: mechanism?, user: user?.to_owned(), password: password? })
        }
    };
    let client_id = section.text("client_id").unwrap_or(CLIENT_ID).to_owned();
    let fetch_wait = section.duration("fetch_wait").unwrap_or(FETCH_WAIT);
    let settings =
        KafkaSettings { brokers: brokers?, topic, receive_topic, acks, tls, ca_file, sasl, client_id, fetch_wait };
    Some(Settings::Kafka(settings))
}

/// `host` or `host:port`, an IPv6 address in brackets.
fn brokers(section: &Section<'_>) -> Option<Vec<(String, u16)>> {
    let context = section.context;
    let texts = section.strings("brokers")?;
    let mut brokers = Vec::new();
    for (text, node) in &texts {
        if text.contains('@') {
            hide_text(node);
            let problem = Problem::error(&node.place, "the address of a broker has no user and no password in it");
            context.add(problem.hint("say who we are by `sasl = { mechanism = …, user = …, password = … }`"));
            continue;
        }
        // The authority of a URL has the same form; a scheme without a port of its own leaves every port as it is.
        let url = url::Url::parse(&format!("kafka://{text}")).ok();
        let url = url.filter(|url| url.path().is_empty() && url.query().is_none());
        let host = url.as_ref().and_then(|url| url.host_str()).filter(|host| !host.is_empty());
        match host {
            Some(host) if !text.contains("//") => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                brokers.push((host, url.as_ref().and_then(url::Url::port).unwrap_or(PORT)));
            }
            _ => {
                let problem = Problem::error(&node.place, format!("`{text}` is not the address of a broker"));
                context.add(problem.hint("write host and port, as in \"kafka-1.example.net:9092\""));
            }
        }
    }
    if texts.is_empty() {
        let problem = Problem::error(section.place_of("brokers"), "`brokers` is empty");
        context.add(problem.hint("name one or more of the cluster's brokers"));
    }
    (!texts.is_empty() && brokers.len() == texts.len()).then_some(brokers)
}

fn topic(section: &Section<'_>, key: &str) -> Option<String> {
    let node = section.get(key)?;
    let text = section.context.text(node, key)?;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > TOPIC_LENGTH || !text.bytes().all(is_legal) || matches!(text, "." | "..") {
        let problem = Problem::error(&node.place, format!("`{text}` cannot be the name of a topic"));
        let hint = format!("letters, digits, `.`, `_` and `-`, at most {TOPIC_LENGTH} of them");
        section.context.add(problem.hint(hint));
    }
    Some(text.to_owned())
}
