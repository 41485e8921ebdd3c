//! How two plans differ, and whether a running daemon can go from one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::fingerprint::Identity;
use crate::config::{Plan, daemon};
use crate::journey::Name;

/// What a running daemon can take up. All else is built once, when it starts: listeners, store, log, clocks.
const TAKEN_UP: &[&str] = &[
    "probes",
    "allow_exec",
    "defaults",
    "fragment",
    "channels",
    "notifiers",
    "maintenance",
    "dependencies",
    "alerting",
    "route",
    "journey",
    "drill",
];

/// How two plans differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The journeys. One is changed, too, if a channel that it uses is.
    pub journeys: Names,
    /// The channels.
    pub channels: Names,
    /// The notifiers.
    pub notifiers: Names,
    /// Tables of the daemon's file about people, dependencies and drills that are others: `route`, `alerting`, `dependencies`, `drill`.
    pub tables: BTreeSet<String>,
}

/// What of one kind is new, another, or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// In the new plan alone.
    pub added: BTreeSet<Name>,
    /// In both, and not the same.
    pub changed: BTreeSet<Name>,
    /// In the old plan alone.
    pub removed: BTreeSet<Name>,
}

impl Names {
    fn between(old: &BTreeMap<&Name, Identity>, new: &BTreeMap<&Name, Identity>) -> Names {
        let missing = |of: &BTreeMap<&Name, Identity>, from: &BTreeMap<&Name, Identity>| {
            of.keys().filter(|name| !from.contains_key(*name)).map(|name| (*name).clone()).collect()
        };
        let is_other =
            |(name, identity): &(&&Name, &Identity)| old.get(*name).is_some_and(|before| before != *identity);
        Names {
            added: missing(new, old),
            changed: new.iter().filter(is_other).map(|(name, _)| (*name).clone()).collect(),
            removed: missing(old, new),
        }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Those that have to be built: the new and the changed ones.
    pub fn built(&self) -> impl Iterator<Item = &Name> {
        self.added.iter().chain(&self.changed)
    }
}

impl Difference {
    /// How `new` differs from `old`.
    ///
    /// # Errors
    /// What of it only a restart can take up: the keys.
    pub fn between(old: &Plan, new: &Plan) -> Result<Difference, Vec<&'static str>> {
        let mut other = old.other_sections(new);
        // The listener is there because a channel needs it, whether it is written down or not.
        if old.hooks.is_some() != new.hooks.is_some() && !other.contains("hooks") {
            other.insert("hooks");
        }
        let fixed: Vec<_> = other.iter().copied().filter(|key| !TAKEN_UP.contains(key)).collect();
        if !fixed.is_empty() {
            return Err(fixed);
        }
        let mut channels = Names::between(&old.channel_identities(), &new.channel_identities());
        // Whether anybody receives on it decides whether it has a reader.
        let (before, after) = (old.received(), new.received());
        let turned = before.symmetric_difference(&after).filter(|name| old.channels.contains_key(**name));
        channels.changed.extend(turned.filter(|name| new.channels.contains_key(**name)).map(|name| (*name).clone()));
        let mut journeys = Names::between(&old.definitions(), &new.definitions());
        for journey in &new.journeys {
            let is_affected = journey.channels().iter().any(|name| channels.built().any(|other| other == name));
            if is_affected && !journeys.added.contains(&journey.name) {
                journeys.changed.insert(journey.name.clone());
            }
        }
        let is_told_of = |key: &&str| ["route", "alerting", "dependencies", "drill"].contains(key);
        Ok(Difference {
            journeys,
            channels,
            notifiers: Names::between(&old.notifier_identities(), &new.notifier_identities()),
            tables: other.into_iter().filter(is_told_of).map(str::to_owned).collect(),
        })
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.journeys.is_empty() && self.channels.is_empty() && self.notifiers.is_empty() && self.tables.is_empty()
    }
}

/// In a line, for the log and the terminal: `journeys: +new ~changed -gone; channels: ~orders`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is different");
        }
        let mut parts = Vec::new();
        let kinds = [("journeys", &self.journeys), ("channels", &self.channels), ("notifiers", &self.notifiers)];
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let marked = [('+', &names.added), ('~', &names.changed), ('-', &names.removed)];
            let marked = marked.into_iter().flat_map(|(mark, names)| names.iter().map(move |name| (mark, name)));
            let count = names.added.len() + names.changed.len() + names.removed.len();
            let mut shown: Vec<_> = marked.take(LISTED).map(|(mark, name)| format!("{mark}{name}")).collect();
            if count > LISTED {
                shown.push(format!("and {} more", count - LISTED));
            }
            parts.push(format!("{kind}: {}", shown.join(" ")));
        }
        if !self.tables.is_empty() {
            parts.push(format!("tables: {}", self.tables.iter().cloned().collect::<Vec<_>>().join(" ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// A line names so many of a kind.
const LISTED: usize = 20;

impl Plan {
    fn definitions(&self) -> BTreeMap<&Name, Identity> {
        self.definitions.iter().map(|(name, identity)| (name, *identity)).collect()
    }

    fn channel_identities(&self) -> BTreeMap<&Name, Identity> {
        self.channels.iter().map(|(name, channel)| (name, channel.identity)).collect()
    }

    fn notifier_identities(&self) -> BTreeMap<&Name, Identity> {
        self.notifiers.iter().map(|(name, notifier)| (name, notifier.identity)).collect()
    }

    /// The channels that are received on: by journeys, and by drills, which see there what people are told.
    pub fn received(&self) -> BTreeSet<&Name> {
        let read_back = self.drill.as_ref().map(|drill| drill.read_back.clone());
        self.journeys
            .iter()
            .flat_map(|journey| journey.receivers())
            .chain(read_back)
            .filter_map(|name| Some(self.channels.get_key_value(&name)?.0))
            .collect()
    }

    /// The keys of the daemon's file that are not the same in both.
    fn other_sections(&self, new: &Plan) -> BTreeSet<&'static str> {
        daemon::KEYS.iter().copied().filter(|key| self.sections.get(key) != new.sections.get(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load_text;

    const MAIN: &str = r#"
        [http]
        listen = "127.0.0.1:0"
        [channels.loop]
        type = "memory"
        [channels.gateway]
        type = "http"
        url = "http://127.0.0.1:1"
        headers = { authorization = "Bearer abcdef" }
        [notifiers.ops]
        type = "webhook"
        url = "http://127.0.0.1:1"
        [notifiers.duty]
        type = "webhook"
        url = "http://127.0.0.1:2"
        [alerting]
        notify = ["ops"]
    "#;
    const PROBE: &str = r#"
        [[journey]]
        name = "echo"
        every = "1m"
        notify = ["ops", "duty"]
        [[journey.step]]
        name = "out"
        send = "loop"
        text = "{{ token }}"
        [[journey.step]]
        name = "in"
        receive = "loop"
        [[journey]]
        name = "api"
        every = "1m"
        notify = ["ops"]
        [[journey.step]]
        name = "ask"
        request = "gateway"
        path = "/"
    "#;

    fn plan(main: &str, probe: &str) -> Plan {
        let loaded = load_text("journeyman.toml", main, &[("probe.toml", probe)], Path::new("/"));
        loaded.unwrap_or_else(|problems| panic!("{}", crate::config::render(&problems, false))).0
    }

    fn between(main: (&str, &str), probe: (&str, &str)) -> Result<String, Vec<&'static str>> {
        let (edited, edited_probe) = (MAIN.replace(main.0, main.1), PROBE.replace(probe.0, probe.1));
        assert!((main.0.is_empty() || edited != MAIN) && (probe.0.is_empty() || edited_probe != PROBE));
        Difference::between(&plan(MAIN, PROBE), &plan(&edited, &edited_probe)).map(|difference| difference.to_string())
    }

    const SAME: (&str, &str) = ("", "");

    #[test]
    fn the_table() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(between(SAME, SAME), ok("nothing is different"));
        assert_eq!(between(("\n        [http]", "# a comment\n\n        [http]"), SAME), ok("nothing is different"));
        assert_eq!(between(SAME, ("name = \"api\"", "name = \"other\"")), ok("journeys: +other -api"));
        assert_eq!(between(SAME, ("path = \"/\"", "path = \"/x\"")), ok("journeys: ~api"));
        assert_eq!(
            between((":1\"\n        headers", ":3\"\n        headers"), SAME),
            ok("journeys: ~api; channels: ~gateway")
        );
        assert_eq!(between(("abcdef", "ghijkl"), SAME), ok("journeys: ~api; channels: ~gateway"), "a secret counts");
        assert_eq!(between(("127.0.0.1:2", "127.0.0.1:3"), SAME), ok("notifiers: ~duty"));
        assert_eq!(between(("notify = [\"ops\"]", "notify = [\"duty\"]"), SAME), ok("tables: alerting"));
        let maintenance = "[[maintenance]]\nname = \"night\"\njourneys = [\"*\"]\nfrom = 2030-01-01T00:00:00Z\nuntil = 2030-01-01T01:00:00Z\n[http]";
        assert_eq!(between(("[http]", maintenance), SAME), ok("journeys: ~api ~echo"));
        assert_eq!(between(("127.0.0.1:0", "127.0.0.1:9"), SAME), Err(vec!["http"]));
        assert_eq!(between(("[http]", "location = \"b\"\n[http]"), SAME), Err(vec!["location"]));
    }

    #[test]
    fn a_channel_that_is_now_received_on_is_another() {
        let silent = PROBE.replace("[[journey.step]]\n        name = \"in\"\n        receive = \"loop\"", "");
        let difference = Difference::between(&plan(MAIN, &silent), &plan(MAIN, PROBE)).unwrap();
        assert_eq!(difference.to_string(), "journeys: ~echo; channels: ~loop");
    }

    #[test]
    fn drills_are_taken_up_and_where_they_are_read_back_has_a_reader() {
        let silent = PROBE.replace("[[journey.step]]\n        name = \"in\"\n        receive = \"loop\"", "");
        let drill = "[drill]\nread_back = \"loop\"\n[http]";
        let other = "[drill]\nwithin = \"9s\"\nread_back = \"loop\"\n[http]";
        let plan = |with: &str| plan(&MAIN.replace("[http]", with), &silent);
        let between = |old: &str, new: &str| Difference::between(&plan(old), &plan(new)).unwrap().to_string();
        let new = "journeys: ~echo; channels: ~loop; tables: drill";
        assert_eq!((between("[http]", drill).as_str(), between(drill, "[http]").as_str()), (new, new));
        assert_eq!(between(drill, other), "tables: drill");
    }

    #[test]
    fn a_listener_that_a_channel_brings_along_takes_a_restart() {
        let webhook = "[channels.inbound]\ntype = \"webhook\"\npath = \"/in\"\nverify = { scheme = \"bearer\", secret = \"abcdefgh\" }\n[http]";
        assert_eq!(between(("[http]", webhook), SAME), Err(vec!["hooks"]));
    }
}
