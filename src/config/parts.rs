//! What a configuration consists of, part by part: by these people are shown in what those of two daemons differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::document::{Data, Node};
use crate::config::{fingerprint, locations};

/// Keys whose entries have names of their own, and what one of these is.
const NAMED: &[(&str, &str)] =
    &[("channels", "channel"), ("notifiers", "notifier"), ("dependencies", "dependency"), ("fragment", "fragment")];

/// The fingerprint of each part of a configuration, by a name that a person knows: `journey checkout`, `channel orders`, `[http]`,
/// `[[route]]`, `max_runs`; and of them all together. As in any fingerprint no secret is in them, and neither is what a daemon has
/// of its own. In which file a journey stands, and in which order, does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    fingerprint: Arc<str>,
    text: Arc<str>,
}

impl Parts {
    /// Those of the daemon's file and its probe files.
    pub(super) fn of(main: &Node, probes: &[Node]) -> Parts {
        let main = locations::without_own(main);
        let mut nodes: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
        for entry in [&main].into_iter().chain(probes).flat_map(Node::entries) {
            let kind = NAMED.iter().find(|(key, _)| *key == entry.key).map(|(_, kind)| *kind);
            match (&*entry.key, kind, &entry.value.data) {
                (_, Some(kind), Data::Table(named)) => {
                    named
                        .iter()
                        .for_each(|one| nodes.entry(format!("{kind} {}", one.key)).or_default().push(&one.value));
                }
                ("journey", _, Data::List(journeys)) => journeys.iter().for_each(|journey| {
                    let name = journey.get("name").and_then(Node::as_text).unwrap_or("without a name");
                    nodes.entry(format!("journey {name}")).or_default().push(journey);
                }),
                (key, ..) => nodes.entry(titled(key, &entry.value)).or_default().push(&entry.value),
            }
        }
        let parts: BTreeMap<_, _> = nodes.into_iter().map(|(name, nodes)| (name, fingerprint::of(nodes))).collect();
        // Strings by strings are JSON. Where they are the same, so is the text.
        let text = serde_json::to_string(&parts).unwrap_or_default();
        Parts { fingerprint: fingerprint::of_text(&text).into(), text: text.into() }
    }

    /// That of the whole: two configurations with the same one are the same in every part.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// For other daemons, as [`Apart::between`] reads it: a JSON object of fingerprints by names.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// As it is opened in the file.
fn titled(key: &str, value: &Node) -> String {
    match &value.data {
        Data::Table(_) => format!("[{key}]"),
        Data::List(items) if items.iter().any(|item| matches!(item.data, Data::Table(_))) => format!("[[{key}]]"),
        _ => key.to_owned(),
    }
}

/// In what another configuration differs, by the names of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// In both, and not the same.
    pub other: BTreeSet<String>,
    /// In the other one alone.
    pub only_there: BTreeSet<String>,
    /// Not in the other one.
    pub missing_there: BTreeSet<String>,
}

impl Apart {
    /// In what `there` differs from `here`, each as [`Parts::text`] gave it. `None`: one of them is none.
    pub fn between(here: &str, there: &str) -> Option<Apart> {
        let read = |text| serde_json::from_str::<BTreeMap<String, String>>(text).ok();
        let (here, there) = (read(here)?, read(there)?);
        let without = |some: &BTreeMap<String, String>, others: &BTreeMap<String, String>| {
            some.keys().filter(|name| !others.contains_key(*name)).cloned().collect()
        };
        let is_other = |(name, part): &(&String, &String)| here.get(*name).is_some_and(|before| before != *part);
        Some(Apart {
            other: there.iter().filter(is_other).map(|(name, _)| name.clone()).collect(),
            only_there: without(&there, &here),
            missing_there: without(&here, &there),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::document::Context;
    use crate::config::load_text;
    use crate::config::problem::Source;
    use crate::config::secrets::is_secret_name;

    const MAIN: &str = r#"
        max_runs = 8
        location = "a"
        [http]
        listen = "127.0.0.1:0"
        public_url = "https://monitor.example.net"
        [channels.orders]
        type = "memory"
        [channels.shop]
        type = "http"
        url = "https://robot:hunter22@shop.example.net/api"
        headers = { accept = "application/json", authorization = "Bearer hunter22" }
        [notifiers.duty]
        type = "pagerduty"
        routing_key = "0123456789abcdef0123456789abcdef"
        [notifiers.chat]
        type = "slack"
        webhook_url = "https://hooks.slack.example.net/services/T0/B0/hunter22hunter22"
        [dependencies.hosting]
        delivered = "99.9%"
        [defaults]
        every = "1m"
        [fragment.main]
        accept = "text/plain"
        [alerting]
        notify = ["chat"]
        [[route]]
        match = ["team=shop"]
        notify = ["duty"]
    "#;
    const PROBE: &str = r#"
        [[journey]]
        name = "checkout"
        notify = ["chat"]
        [[journey.step]]
        request = "shop"
        path = "/checkout"
        headers = { cookie = "hunter22" }
        [[journey]]
        name = "echo"
        budget = "5s"
        notify = ["chat"]
        step = [{ send = "orders", text = "{{ token }}" }, { receive = "orders" }]
    "#;

    fn parts(main: &str, probes: &[&str]) -> Parts {
        let names: Vec<_> = (0..probes.len()).map(|nth| format!("{nth}.toml")).collect();
        let probes: Vec<_> = names.iter().map(|name| &**name).zip(probes.iter().copied()).collect();
        let loaded = load_text("journeyman.toml", main, &probes, Path::new("/"));
        loaded.unwrap_or_else(|problems| panic!("{}", crate::config::render(&problems, false))).0.parts
    }

    /// What is other, only there and missing there once this is written instead of that.
    fn edited(from: &str, to: &str) -> [Vec<String>; 3] {
        let (main, probe) = (MAIN.replace(from, to), PROBE.replace(from, to));
        assert!(main != MAIN || probe != PROBE, "{from} is nowhere");
        let (here, there) = (parts(MAIN, &[PROBE]), parts(&main, &[&probe]));
        let Apart { other, only_there, missing_there } = Apart::between(here.text(), there.text()).unwrap();
        let found = [other, only_there, missing_there].map(|names| names.into_iter().collect::<Vec<_>>());
        assert_eq!(here.fingerprint() == there.fingerprint(), found.iter().all(Vec::is_empty), "{from} -> {to}");
        found
    }

    #[test]
    fn each_part_has_the_name_that_it_has_for_people() {
        let parts: BTreeMap<String, String> = serde_json::from_str(parts(MAIN, &[PROBE]).text()).unwrap();
        let names: Vec<_> = parts.keys().map(String::as_str).collect();
        let expected = [
            "[[route]]",
            "[alerting]",
            "[defaults]",
            "[http]",
            "channel orders",
            "channel shop",
            "dependency hosting",
            "fragment main",
            "journey checkout",
            "journey echo",
            "max_runs",
            "notifier chat",
            "notifier duty",
        ];
        assert_eq!(names, expected);
        assert!(parts.values().all(|part| part.len() == 12));
    }

    #[test]
    fn an_edit_shows_in_the_part_that_it_is_in() {
        let none = Vec::<String>::new;
        let other = |name: &str| [vec![name.to_owned()], none(), none()];
        assert_eq!(edited("\"/checkout\"", "\"/cart\""), other("journey checkout"));
        assert_eq!(edited("budget = \"5s\"", "budget = \"6s\""), other("journey echo"));
        assert_eq!(edited("shop.example.net/api", "shop.example.net/"), other("channel shop"));
        assert_eq!(edited("robot:", "human:"), other("channel shop"));
        assert_eq!(edited("max_runs = 8", "max_runs = 9"), other("max_runs"));
        assert_eq!(edited("every = \"1m\"", "every = \"2m\""), other("[defaults]"));
        assert_eq!(edited("team=shop", "team=web"), other("[[route]]"));
        assert_eq!(edited("text/plain", "text/html"), other("fragment main"));
        assert_eq!(edited("max_runs = 8", ""), [none(), none(), vec!["max_runs".to_owned()]]);
        let renamed = [none(), vec!["journey sms".to_owned()], vec!["journey echo".to_owned()]];
        assert_eq!(edited("name = \"echo\"", "name = \"sms\""), renamed);
    }

    #[test]
    fn what_is_a_daemons_own_how_it_is_written_and_where_it_stands_are_in_no_part() {
        let same = || [(); 3].map(|()| Vec::<String>::new());
        assert_eq!(edited("location = \"a\"", "location = \"b\""), same());
        assert_eq!(edited("127.0.0.1:0", "127.0.0.1:9"), same());
        assert_eq!(edited("max_runs = 8", "# so many\nmax_runs = 0x8"), same());
        let [one, other] = [PROBE.split_at(PROBE.rfind("[[journey]]").unwrap())].map(|(one, other)| [one, other])[0];
        assert_eq!(parts(MAIN, &[PROBE]), parts(MAIN, &[other, one]));
    }

    #[test]
    fn no_secret_is_to_be_guessed_by_a_part() {
        let same = || [(); 3].map(|()| Vec::<String>::new());
        assert_eq!(edited("hunter22", "12345678"), same(), "in a URL, under a header's name, an address that is one");
        assert_eq!(edited("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"), same());
    }

    /// Makes the value another one that has so many before it; gives whether that may not be seen.
    fn change(node: &mut Node, key: &str, before: &mut usize) -> Option<bool> {
        let is_secret = is_secret_name(key) || node.place.without_secrets().is_some();
        match &mut node.data {
            Data::List(items) => return items.iter_mut().find_map(|item| change(item, key, before)),
            Data::Table(entries) => {
                return entries.iter_mut().find_map(|entry| change(&mut entry.value, &entry.key, before));
            }
            _ if *before > 0 => {
                *before -= 1;
                return None;
            }
            Data::Bool(is_so) => *is_so = !*is_so,
            Data::Integer(text) | Data::Float(text) | Data::Datetime(text) => text.push('7'),
            Data::Text(text) => {
                text.push('x');
                return Some(is_secret || ["location", "listen", "spool"].contains(&key));
            }
        }
        Some(false)
    }

    #[test]
    fn whatever_is_changed_in_the_files_that_we_ship_some_part_is_another() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = std::fs::read_dir(root.join("probes")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = shipped.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        files.insert(0, root.join("config/journeyman.toml"));
        assert!(files.len() > 2, "{files:?}");
        let context = Context::new(root.to_owned());
        let read = |path: &std::path::PathBuf| {
            let source = Source::new(&path.display().to_string(), &std::fs::read_to_string(path).unwrap(), 0);
            Node::parse(&context, &source).unwrap()
        };
        let nodes: Vec<_> = files.iter().map(read).collect();
        let before = Parts::of(&nodes[0], &nodes[1..]);
        let (mut seen, mut unseen) = (0, 0);
        for nth in 0..nodes.len() {
            for value in 0.. {
                let (mut nodes, mut left) = (nodes.clone(), value);
                let Some(is_hidden) = change(&mut nodes[nth], "", &mut left) else { break };
                let after = Parts::of(&nodes[0], &nodes[1..]);
                assert_eq!(after == before, is_hidden, "value {value} of {}", files[nth].display());
                assert_eq!(after.text() == before.text(), after.fingerprint() == before.fingerprint());
                *(if is_hidden { &mut unseen } else { &mut seen }) += 1;
            }
        }
        assert!(seen > 100 && unseen > 0, "{seen} seen, {unseen} not");
    }

    #[test]
    fn what_is_no_list_of_parts_is_compared_with_nothing() {
        assert_eq!(Apart::between("{}", "{}"), Some(Apart::default()));
        assert_eq!(Apart::between("", "{}"), None);
        assert_eq!(Apart::between("{}", "[1]"), None);
    }
}
