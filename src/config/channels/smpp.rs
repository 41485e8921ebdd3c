//! `type = "smpp"`.

use url::Url;

use crate::channel::Settings;
use crate::channel::smpp::{Account, Alphabet, Long, NumberKind, SmppSettings, Version};
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::{Node, Section};
use crate::config::problem::Problem;
use crate::config::secrets;
use crate::secret::Secret;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "smpp",
    keys: &[
        "url",
        "password",
        "bind",
        "receiver",
        "version",
        "system_type",
        "from",
        "from_ton",
        "from_npi",
        "to",
        "to_ton",
        "to_npi",
        "alphabet",
        "long",
        "ca_file",
    ],
    tables: &[("receiver", RECEIVER_KEYS)],
    read,
};
const RECEIVER_KEYS: &[&str] = &["url", "password"];

/// SMPP 3.4 sections 4.1.1 and 5.2.1 to 5.2.3, without the final zero.
const LONGEST_SYSTEM_ID: usize = 15;
const LONGEST_PASSWORD: usize = 8;
const LONGEST_SYSTEM_TYPE: usize = 12;
const LONGEST_ADDRESS: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bind {
    Transceiver,
    Separate,
}

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let bind = section.get("bind").and_then(|node| {
        context.choice(node, "bind", &[("transceiver", Bind::Transceiver), ("separate", Bind::Separate)])
    });
    let bind = bind.unwrap_or(Bind::Transceiver);
    let version = section
        .get("version")
        .and_then(|node| context.choice(node, "version", &[("3.4", Version::V34), ("5.0", Version::V50)]));
    let alphabet = section
        .get("alphabet")
        .and_then(|node| context.choice(node, "alphabet", &[("gsm", Alphabet::Gsm), ("latin1", Alphabet::Latin1)]));
    let long = section
        .get("long")
        .and_then(|node| context.choice(node, "long", &[("payload", Long::Payload), ("split", Long::Split)]));
    let kind = |ton: &str, npi: &str| NumberKind {
        ton: section.whole(ton, 0..=255).map(|value| value as u8),
        npi: section.whole(npi, 0..=255).map(|value| value as u8),
    };
    let (from_kind, to_kind) = (kind("from_ton", "from_npi"), kind("to_ton", "to_npi"));
    let (from, to) = (text(section, "from", LONGEST_ADDRESS), text(section, "to", LONGEST_ADDRESS));
    let system_type = text(section, "system_type", LONGEST_SYSTEM_TYPE);
    let ca_file = ca_file(section);

    let url =
        section.require("url", "the SMS centre's address with our name there, as in \"smpp://probe@smsc.example.net\"");
    let (account, parsed) = account(section, url?)?;
    channel.host = host(&parsed);
    let receiver = match (bind, section.get("receiver")) {
        (Bind::Transceiver, None) => None,
        (Bind::Transceiver, Some(_)) => {
            let problem = "a transceiver receives with the account that sends, so there is no `receiver`";
            let hint = "for a receiver of its own, write `bind = \"separate\"`";
            context.add(Problem::error(section.place_of("receiver"), problem).hint(hint));
            return None;
        }
        (Bind::Separate, None) => Some(account.clone()),
        (Bind::Separate, Some(node)) => {
            let receiver = Section::open(context, node, "receiver", RECEIVER_KEYS)?;
            match receiver.get("url") {
                Some(url) => Some(self::account(&receiver, url)?.0),
                None => Some(Account { password: password(&receiver).or(account.password.clone()), ..account.clone() }),
            }
        }
    };
    Some(Settings::Smpp(Box::new(SmppSettings {
        account,
        receiver,
        version: version.unwrap_or(Version::V34),
        system_type,
        from,
        to,
        from_kind,
        to_kind,
        alphabet: alphabet.unwrap_or(Alphabet::Gsm),
        long: long.unwrap_or(Long::Payload),
        ca_file,
    })))
}

/// Where to bind and as whom, from `url` and the `password` beside it.
fn account(section: &Section<'_>, node: &Node) -> Option<(Account, Url)> {
    let context = section.context;
    let password = password(section);
    let url = context.parsed_url(node, "url", context.text(node, "url")?, &["smpp", "smpps"])?;
    if url.password().is_some() {
        let problem = Problem::error(&node.place, "`url` has a password in it");
        context.add(problem.hint("leave it out there, and write `password = { file = \"…\" }`"));
        return None;
    }
    let system_id = secrets::decoded(url.username());
    if system_id.is_empty() || system_id.len() > LONGEST_SYSTEM_ID || !system_id.is_ascii() {
        let problem = match system_id.is_empty() {
            true => "`url` does not say as whom to bind".to_owned(),
            false => format!("the system id in `url` must be ASCII, of at most {LONGEST_SYSTEM_ID} bytes"),
        };
        context.add(Problem::error(&node.place, problem).hint("the system id comes first: smpp://probe@host"));
        return None;
    }
    let (host, port) = host(&url)?;
    // The URL writes an IPv6 address in brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((Account { host, port, tls: url.scheme() == "smpps", system_id, password }, url))
}

fn password(section: &Section<'_>) -> Option<Secret> {
    let node = section.get("password")?;
    let secret = section.context.secret(node, "password")?;
    let value = secret.reveal();
    if value.len() > LONGEST_PASSWORD || !value.is_ascii() {
        let problem =
            format!("SMPP has no room for this password: it can have at most {LONGEST_PASSWORD} bytes, all ASCII");
        section.context.add(Problem::error(&node.place, problem));
    }
    Some(secret)
}

fn text(section: &Section<'_>, key: &str, longest: usize) -> String {
    let Some(node) = section.get(key) else { return String::new() };
    let Some(text) = section.context.text(node, key) else { return String::new() };
    if text.trim_start_matches('+').len() > longest || !text.is_ascii() {
        let problem = format!("`{key}` has room for {longest} ASCII bytes");
        section.context.add(Problem::error(&node.place, problem));
    }
    text.to_owned()
}
