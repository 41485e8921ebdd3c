//! `type = "tcp"`, `type = "dns"`, `type = "tls"`: the small checks.

use std::net::{IpAddr, SocketAddr};

use regex::bytes::RegexBuilder;

use crate::channel::Settings;
use crate::channel::dns::DnsSettings;
use crate::channel::tcp::TcpSettings;
use crate::channel::tls::TlsSettings;
use crate::config::channels::{Channel, Grammar, ca_file};
use crate::config::document::{Data, Section};
use crate::config::problem::Problem;
use crate::config::values;

pub(super) const TCP: Grammar =
    Grammar { kind: "tcp", keys: &["address", "tls", "ca_file", "until", "max_answer"], tables: &[], read: tcp };
pub(super) const DNS: Grammar = Grammar { kind: "dns", keys: &["server"], tables: &[], read: dns };
pub(super) const TLS: Grammar =
    Grammar { kind: "tls", keys: &["address", "server_name", "ca_file"], tables: &[], read: tls };

const DNS_PORT: u16 = 53;
const TLS_PORT: u16 = 443;
const MAX_ANSWER: u64 = 64 << 10;
const LARGEST_ANSWER: u64 = 16 << 20;
/// As for the patterns of expectations.
const REGEX_SIZE: usize = 1 << 20;

fn tcp(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let tls = section.bool("tls", false);
    let ca_file = ca_file(section);
    if let (Some(_), false) = (&ca_file, tls) {
        let problem = Problem::warning(section.place_of("ca_file"), "`ca_file` does nothing without `tls = true`");
        context.add(problem);
    }
    let until = section.get("until").and_then(|node| {
        let text = context.text(node, "until")?;
        match RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            Ok(pattern) if pattern.is_match(b"") => {
                let problem = "this pattern occurs in an empty answer, so that nothing is ever waited for";
                context.add(Problem::error(&node.place, problem));
                None
            }
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let told = error.to_string();
                let reason = told.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
                context.add(Problem::error(&node.place, format!("not a pattern: {reason}")));
                None
            }
        }
    });
    let max_answer = section.get("max_answer").and_then(|node| {
        let bytes = match &node.data {
            Data::Integer(digits) => digits.parse().ok(),
            Data::Text(text) => values::size(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| (1..=LARGEST_ANSWER).contains(bytes));
        if bytes.is_none() {
            let problem = Problem::error(&node.place, "`max_answer` must be a size between 1 byte and 16MiB");
            context.add(problem.hint(values::SIZE_HINT));
        }
        bytes
    });
    let (host, port) = address(section, channel, None)?;
    let max_answer = max_answer.unwrap_or(MAX_ANSWER) as usize;
    Some(Settings::Tcp(TcpSettings { host, port, tls, ca_file, until, max_answer }))
}

fn tls(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let server_name = section.get("server_name").and_then(|node| {
        let text = context.text(node, "server_name")?;
        if rustls::pki_types::ServerName::try_from(text).is_err() {
            let problem = format!("`{text}` is no name that a certificate can be for");
            context.add(Problem::error(&node.place, problem).hint("a DNS name or an address, without a port"));
        }
        Some(text.to_owned())
    });
    let ca_file = ca_file(section);
    let (host, port) = address(section, channel, Some(TLS_PORT))?;
    Some(Settings::Tls(TlsSettings { host, port, server_name, ca_file }))
}

fn dns(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let server = match section.get("server") {
        None => None,
        Some(node) => {
            let text = section.context.text(node, "server")?;
            let plain = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, DNS_PORT));
            let Some(server) = text.parse().ok().or_else(plain) else {
                let problem = Problem::error(&node.place, format!("`{text}` is not the address of a server"));
                let hint = "an IP address, with a port if it is not 53: \"192.0.2.53\", \"[2001:db8::53]:5353\"";
                section.context.add(problem.hint(hint));
                return None;
            };
            channel.host = Some((server.ip().to_string(), server.port()));
            Some(server)
        }
    };
    Some(Settings::Dns(DnsSettings { server }))
}

/// `address`: host and port.
fn address(section: &Section<'_>, channel: &mut Channel, default: Option<u16>) -> Option<(String, u16)> {
    let example = if default.is_some() { "shop.example.net" } else { "mail.example.net:25" };
    let node = section.require("address", &format!("host and port, as in \"{example}\""))?;
    let text = section.context.text(node, "address")?;
    let found = host_and_port(text, default);
    if found.is_none() {
        let problem = Problem::error(&node.place, format!("`{text}` is not a host with a port"));
        let hint = format!("as in \"{example}\", \"192.0.2.7:5432\", \"[2001:db8::7]:443\"; no scheme and no path");
        section.context.add(problem.hint(hint));
    }
    channel.host = found.clone();
    found
}

fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port())).filter(|(_, port)| *port != 0);
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some((address.to_string(), default?));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default?),
    };
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let found = |text: &str, default| host_and_port(text, default).map(|(host, port)| format!("{host} {port}"));
        for (text, default, expected) in [
            ("mail.example.net:25", None, Some("mail.example.net 25")),
            ("shop", Some(443), Some("shop 443")),
            ("192.0.2.7:1", None, Some("192.0.2.7 1")),
            ("192.0.2.7", Some(443), Some("192.0.2.7 443")),
            ("[2001:db8::7]:443", None, Some("2001:db8::7 443")),
            ("2001:db8::7", Some(443), Some("2001:db8::7 443")),
            ("[2001:db8::7]", Some(443), Some("2001:db8::7 443")),
            ("shop", None, None),
            ("shop:", Some(443), None),
            ("shop:0", None, None),
            ("shop:65536", None, None),
            (":25", None, None),
            ("https://shop", Some(443), None),
            ("shop/x:1", None, None),
            ("", Some(443), None),
        ] {
            assert_eq!(found(text, default).as_deref(), expected, "{text}");
        }
    }
}
