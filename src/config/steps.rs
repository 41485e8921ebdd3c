//! `[[journey.step]]`: one verb and what belongs to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::{Availability, KINDS, Kind, kind_of};
use crate::config::document::{Context, IDENTIFIER_HINT, Node, Section, is_identifier};
use crate::config::expectations::Reader;
use crate::config::journeys::Catalog;
use crate::config::problem::{Place, Problem};
use crate::config::secrets::{is_header_name, is_secret_name};
use crate::config::{address, values};
use crate::journey::expect::{Expectation, Query};
use crate::journey::template::{BUILT_IN, FUNCTIONS, Template};
use crate::journey::{Draft, Name, Payload, Poll, Receive, Step, Verb};

pub(super) const VERBS: &[&str] = &["send", "receive", "request", "pause", "check", "exec"];
pub(super) const COMMON_KEYS: &[&str] = &["name", "always", "soft", "when", "timeout", "use"];
pub(super) const MESSAGE_KEYS: &[&str] = &["json", "text", "budget", "expect", "capture"];
pub(super) const RECEIVE_KEYS: &[&str] = &["since", "filter", "key", "budget", "expect", "capture"];
pub(super) const CHECK_KEYS: &[&str] = &["poll", "budget", "expect", "capture"];
pub(super) const EXEC_KEYS: &[&str] = &["budget", "expect", "capture"];
pub(super) const POLL_KEYS: &[&str] = &["every", "within"];
/// Fields of a kind that a draft has a place of its own for.
const OWN_PLACE: &[&str] = &["method", "path", "query", "form"];
/// The channel behind a request to a whole address.
pub(super) const IMPLICIT: &str = "http";
/// The channel behind every `exec`.
pub(super) const EXEC: &str = "exec";

/// Reads the steps of one journey, in order.
pub(super) struct Steps<'a> {
    context: &'a Context,
    catalog: &'a Catalog<'a>,
    /// What templates may use: the captures of the steps so far.
    names: BTreeSet<String>,
    /// The sends so far, with their indices.
    sends: Vec<(Name, usize)>,
    /// Every step's name that was given or made up so far.
    taken: BTreeMap<String, Option<Place>>,
    /// Why this version cannot run the journey.
    pub(super) unavailable: Vec<String>,
}

/// What a step works on: a channel by name, or the implicit one with a whole address.
struct Target {
    name: Name,
    /// `None` if the channel is not defined or of no known kind, which was told.
    kind: Option<&'static Kind>,
    url: Option<Template>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(context: &'a Context, catalog: &'a Catalog<'a>) -> Steps<'a> {
        let (names, sends, taken, unavailable) = Default::default();
        Steps { context, catalog, names, sends, taken, unavailable }
    }

    /// All steps. `nodes` have their fragments merged in.
    pub(super) fn read(&mut self, nodes: &[Node]) -> Vec<Step> {
        for name in nodes.iter().filter_map(|node| node.get("name")) {
            let Some(text) = name.as_text() else { continue };
            if let Some(Some(other)) = self.taken.insert(text.to_owned(), Some(name.place.clone())) {
                let problem = Problem::error(&name.place, format!("two steps are named `{text}`"));
                self.context.add(problem.also(&other, "the other one"));
            }
        }
        let mut steps = Vec::with_capacity(nodes.len());
        for node in nodes {
            steps.extend(self.step(node, steps.len()));
        }
        steps
    }

    fn step(&mut self, node: &Node, index: usize) -> Option<Step> {
        let context = self.context;
        let (verb, object) = self.verb(node)?;
        let target = match verb {
            "pause" | "exec" => None,
            _ => self.target(verb, object),
        };
        let kind = target.as_ref().and_then(|target| target.kind);
        let known = known(verb, kind);
        let section = Section::open_or(context, node, "step", &known, |key| explain(key, verb, kind))?;
        let name = self.name(&section, verb, target.as_ref());
        let when = section.get("when").and_then(|node| context.template(node, "when", &self.names));
        let reader_names = self.names.clone();
        let reader = Reader::of_step(context, verb, &reader_names);
        let has = |key: &str| known.contains(&key);
        let list = |key: &str| if has(key) { section.get(key) } else { None };
        let expect = list("expect").map(|node| reader.expectations(node, "expect")).unwrap_or_default();
        let capture = list("capture").map(|node| self.capture(&reader, node)).unwrap_or_default();
        let poll = list("poll").and_then(|node| poll(context, node));
        let budget = if has("budget") { section.duration("budget") } else { None };
        let timeout = section.duration("timeout");
        let verb = match verb {
            "send" | "request" => {
                let draft = target.map(|target| self.draft(&section, target));
                if verb == "send" {
                    self.sends.push((name.clone(), index));
                    draft.map(|draft| Verb::Send(Box::new(draft)))
                } else {
                    draft.map(|draft| Verb::Request(Box::new(draft)))
                }
            }
            "receive" => self.receive(&section, &reader, target, object),
            "pause" => context.duration(object, "pause").map(Verb::Pause),
            "check" => target.map(|target| Verb::Check(Box::new(self.inspection(&section, target)))),
            _ => self.exec(object).map(|draft| Verb::Exec(Box::new(draft))),
        };
        self.names.extend(capture.iter().map(|(name, _)| name.clone()));
        let (always, soft) = (section.bool("always", false), section.bool("soft", false));
        let capture = capture.into_iter().filter_map(|(name, query)| Some((name, query?))).collect();
        Some(Step { name, verb: verb?, budget, timeout, always, soft, when, expect, capture, poll })
    }

    /// The one verb of a step, with its value.
    fn verb<'n>(&self, node: &'n Node) -> Option<(&'static str, &'n Node)> {
        let entries = self.context.table(node, "step")?;
        let mut found = entries
            .iter()
            .filter_map(|entry| Some((VERBS.iter().find(|verb| **verb == entry.key)?, &entry.key_place, &entry.value)));
        match (found.next(), found.next()) {
            (Some((verb, _, value)), None) => Some((verb, value)),
            (Some((first, place, _)), Some((second, other, _))) => {
                let problem = Problem::error(other, format!("a step does one thing: `{first}` or `{second}`"));
                self.context.add(problem.also(place, "the other one").hint("make two steps of it"));
                None
            }
            (None, _) => {
                let meant =
                    entries.iter().find_map(|entry| Some((entry, values::nearest(&entry.key, VERBS.iter().copied())?)));
                self.context.add(match meant {
                    Some((entry, verb)) => Problem::error(&entry.key_place, format!("unknown key `{}`", entry.key))
                        .hint(format!("did you mean `{verb}`?")),
                    None => Problem::error(&node.place, "this step does nothing")
                        .hint(format!("it needs one of {}", VERBS.join(", "))),
                });
                None
            }
        }
    }

    fn target(&mut self, verb: &'static str, object: &Node) -> Option<Target> {
        let context = self.context;
        let text = context.text(object, verb)?;
        if text.contains("://") || text.starts_with("{{") {
            return self.whole_address(verb, object, text);
        }
        let target = Target { name: text.into(), kind: None, url: None };
        let Some(channel) = self.catalog.channels.get(text) else {
            let problem = Problem::error(&object.place, format!("no channel is named `{text}`"));
            let hint = values::suggestion(text, self.catalog.channels.keys().map(|name| &**name));
            context.add(problem.hint(hint.unwrap_or_else(|| format!("define it: `[channels.{text}]`"))));
            return Some(target);
        };
        let Some(kind) = channel.kind else { return Some(target) };
        let abilities =
            [("send", kind.sends), ("request", kind.requests), ("receive", kind.receives), ("check", kind.checks)];
        if abilities.contains(&(verb, false)) {
            let able: Vec<_> =
                abilities.iter().filter(|(_, able)| *able).map(|(verb, _)| format!("`{verb}`")).collect();
            let problem = format!("channel `{text}` is of type `{}`, which cannot {verb}", kind.name);
            let problem = Problem::error(&object.place, problem).also(&channel.place, "defined here");
            let hint = match kind.name {
                EXEC => "a step runs a program with `exec = [\"program\", \"argument\"]`".to_owned(),
                _ => format!("it can {}", able.join(" and ")),
            };
            context.add(problem.hint(hint));
        }
        Some(Target { kind: Some(kind), ..target })
    }

    /// A request to a whole address uses a channel that nobody has to define.
    fn whole_address(&self, verb: &str, object: &Node, text: &str) -> Option<Target> {
        let context = self.context;
        if verb != "request" {
            let problem = Problem::error(&object.place, format!("`{verb}` needs the name of a channel"));
            context.add(problem.hint("only `request` takes a whole address"));
            return None;
        }
        if let Some(channel) = self.catalog.channels.get(IMPLICIT) {
            let problem = "requests to a whole address use a channel named `http`, and this name is taken";
            let problem = Problem::error(&object.place, problem).also(&channel.place, "defined here");
            context.add(problem.hint("give that channel another name"));
        }
        self.catalog.needs_implicit.set(true);
        let is_http = ["http://", "https://"].iter().any(|begin| text.starts_with(begin));
        if !is_http {
            let problem = Problem::error(&object.place, "this is neither a channel nor an HTTP address");
            context.add(problem.hint("an address begins with `https://` or `http://`"));
            return None;
        }
        if !text.contains("{{") {
            context.url(object, verb, &["http", "https"])?;
        } else if !address::is_host_written_out(text) {
            let problem = Problem::error(&object.place, "the host of an address cannot come out of a message");
            context.add(problem.hint("a system that is watched must not choose whom we call: write the host out"));
            return None;
        }
        let url = context.template(object, verb, &self.names);
        Some(Target { name: IMPLICIT.into(), kind: kind_of("http"), url })
    }

    /// The name that was given, or one made of verb and channel.
    fn name(&mut self, section: &Section<'_>, verb: &str, target: Option<&Target>) -> Name {
        if let Some(text) = section.text("name") {
            if text.trim().is_empty() || text.len() > 100 || text.chars().any(char::is_control) {
                let problem =
                    Problem::error(section.place_of("name"), "a step's name has 1 to 100 printable characters");
                self.context.add(problem);
            }
            return text.into();
        }
        let base = match target {
            Some(target) => format!("{verb} {}", target.name),
            None => verb.to_owned(),
        };
        let numbered = (2..).map(|n| format!("{base} #{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|name| !self.taken.contains_key(name));
        let name = free.unwrap_or(base);
        self.taken.insert(name.clone(), None);
        name.into()
    }

    fn capture(&self, reader: &Reader<'_>, node: &Node) -> Vec<(String, Option<Query>)> {
        let mut captures = Vec::new();
        for entry in self.context.table(node, "capture").unwrap_or_default() {
            let is_taken = BUILT_IN.contains(&entry.key.as_str()) || FUNCTIONS.contains(&entry.key.as_str());
            if is_taken || !is_identifier(&entry.key) {
                let problem =
                    Problem::error(&entry.key_place, format!("`{}` cannot be the name of a capture", entry.key));
                let hint = if is_taken { "templates know this name already" } else { IDENTIFIER_HINT };
                self.context.add(problem.hint(hint));
            }
            captures.push((entry.key.clone(), reader.query(&entry.value, &entry.key)));
        }
        captures
    }

    fn draft(&self, section: &Section<'_>, target: Target) -> Draft {
        let context = self.context;
        let names = &self.names;
        for (key, why) in self.catalog.channels.get(&target.name).map_or(&[][..], |channel| channel.cannot_take) {
            if section.get(key).is_some() {
                let problem = format!("channel `{}` cannot take `{key}`: {why}", target.name);
                context.add(Problem::error(section.place_of(key), problem));
            }
        }
        let fields = target.kind.map_or(&[] as &[&str], |kind| kind.fields);
        let literal = target.kind.map_or(&[] as &[&str], |kind| kind.literal);
        let field = |key: &str| if fields.contains(&key) && !literal.contains(&key) { section.get(key) } else { None };
        let method = field("method").and_then(|node| {
            let method = context.text(node, "method")?;
            if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
                let problem = Problem::error(&node.place, format!("`{method}` is not an HTTP method"));
                context.add(problem.hint(format!("write it in capitals, as in \"{}\"", method.to_uppercase())));
            }
            Some(method.to_owned())
        });
        let path = field("path").and_then(|node| {
            let path = context.text(node, "path")?;
            if target.url.is_some() {
                let problem = Problem::error(section.place_of("path"), "`path` is for channels; this address is whole");
                context.add(problem.hint("append it to the address"));
            } else if !["/", "?", "{{"].iter().any(|begin| path.starts_with(begin)) {
                let problem = Problem::error(&node.place, "`path` begins with `/`");
                context.add(problem.hint("it is appended to the channel's `url` as it is"));
            }
            context.template(node, "path", names)
        });
        let pairs =
            |node: Option<&Node>, key: &str| node.map(|node| context.pairs(node, key, names)).unwrap_or_default();
        let headers = if target.kind.is_some_and(|kind| kind.headers) { section.get("headers") } else { None };
        for entry in headers.map(Node::entries).unwrap_or_default() {
            if !is_header_name(&entry.key) {
                context.add(Problem::error(&entry.key_place, format!("`{}` is not the name of a header", entry.key)));
            }
            if let Some(text) = entry.value.as_text().filter(|text| !text.contains("{{") && is_secret_name(&entry.key))
            {
                context.redactor.add(text);
                let problem = Problem::warning(&entry.value.place, format!("`{}` is a literal secret", entry.key));
                context.add(problem.hint("put it among the `headers` of the channel, which may be kept elsewhere"));
            }
        }
        let payloads: &[&'static str] =
            if fields.contains(&"form") { &["json", "form", "text"] } else { &["json", "text"] };
        let payload = match section.only_one(payloads, false, "a message has one payload") {
            Some(("json", node)) => context.document(node, names).map(Payload::Json),
            Some(("form", node)) => Some(Payload::Form(context.pairs(node, "form", names))),
            Some((key, node)) => context.template(node, key, names).map(Payload::Text),
            None => None,
        };
        let rest = fields.iter().filter(|key| literal.contains(key) || !OWN_PLACE.contains(key));
        let rest = rest.filter_map(|key| Some(((*key).to_owned(), self.field(section.get(key)?, key, literal)?)));
        Draft {
            channel: target.name.clone(),
            method,
            path,
            query: pairs(field("query"), "query"),
            headers: pairs(headers, "headers"),
            payload: payload.unwrap_or_default(),
            fields: rest.collect(),
            url: target.url,
            command: Vec::new(),
        }
    }

    /// What a `check` looks at.
    fn inspection(&self, section: &Section<'_>, target: Target) -> Draft {
        let fields = target.kind.map_or(&[][..], |kind| kind.check_fields);
        if fields.contains(&"lookup") {
            section.require("lookup", "the name to ask for, as in \"www.example.net\"");
        }
        let literal = target.kind.map_or(&[][..], |kind| kind.literal);
        let fields =
            fields.iter().filter_map(|key| Some(((*key).to_owned(), self.field(section.get(key)?, key, literal)?)));
        Draft { channel: target.name, fields: fields.collect(), ..Draft::default() }
    }

    /// What only one kind of channel knows: a template, unless it is code there.
    fn field(&self, node: &Node, key: &str, literal: &[&str]) -> Option<Template> {
        if literal.contains(&key) {
            return self.context.sql(node, key).map(Template::literal);
        }
        self.context.scalar(node, key, &self.names)
    }

    /// A program and its arguments.
    fn exec(&mut self, object: &Node) -> Option<Draft> {
        let context = self.context;
        let words = context.list(object, "exec", "a list of strings: a program and its arguments")?;
        let command: Vec<_> = words.iter().map(|word| context.template(word, "exec", &self.names)).collect();
        if words.is_empty() {
            context.add(Problem::error(&object.place, "`exec` names no program"));
        }
        if let Some(channel) = self.catalog.channels.get(EXEC)
            && channel.kind.is_some_and(|kind| kind.name != EXEC)
        {
            let problem = "`exec` steps use a channel named `exec`, and this name is taken";
            let problem = Problem::error(&object.place, problem).also(&channel.place, "defined here");
            context.add(problem.hint("give that channel another name"));
        }
        let is_built_in = kind_of(EXEC).is_some_and(|kind| kind.available == Availability::Here);
        if self.catalog.allow_exec && !is_built_in {
            let problem = Problem::warning(&object.place, "this build cannot run programs");
            context.add(problem.hint("build with `--features exec`, or use a package, which has it"));
            self.unavailable.push("it runs a program, which this build cannot".to_owned());
        } else if self.catalog.allow_exec {
            self.catalog.needs_exec.set(true);
        } else {
            let problem = Problem::warning(&object.place, "programs are not run unless the daemon allows it");
            let hint = "set `allow_exec = true` in the daemon's file; until then the journey will be `unknown`";
            context.add(problem.hint(hint));
            self.unavailable.push("it runs a program, and the daemon does not allow that (`allow_exec`)".to_owned());
        }
        Some(Draft { channel: EXEC.into(), command: command.into_iter().collect::<Option<_>>()?, ..Draft::default() })
    }

    fn receive(
        &mut self,
        section: &Section<'_>,
        reader: &Reader<'_>,
        target: Option<Target>,
        object: &Node,
    ) -> Option<Verb> {
        let context = self.context;
        let filter: Vec<Expectation> =
            section.get("filter").map(|node| reader.expectations(node, "filter")).unwrap_or_default();
        let key = section.get("key").and_then(|node| context.template(node, "key", &self.names));
        let since = match section.get("since") {
            None if self.sends.is_empty() => {
                let problem = Problem::error(&object.place, "there is no `send` before this `receive`");
                context.add(problem.hint("a `receive` waits for what an earlier step of the same journey sent"));
                None
            }
            None => self.sends.last().map(|(_, index)| *index),
            Some(node) => context.text(node, "since").and_then(|name| {
                let found = self.sends.iter().find(|(other, _)| **other == *name);
                if found.is_none() {
                    let problem = Problem::error(&node.place, format!("no earlier `send` is named `{name}`"));
                    let hint = values::suggestion(name, self.sends.iter().map(|(name, _)| &**name));
                    context.add(problem.maybe_hint(hint));
                }
                found.map(|(_, index)| *index)
            }),
        };
        let channel = target?.name;
        let plan = self.catalog.channels.get(&channel).and_then(|found| found.plan.as_ref());
        if let Some(plan) = plan
            && let (Some(node), None) = (section.get("key"), &plan.policy.key)
        {
            let problem = Problem::error(&node.place, format!("channel `{channel}` has no `key` to compare this with"));
            context
                .add(problem.hint(format!("say where it is: `key = {{ json = \"$.id\" }}` in [channels.{channel}]")));
        }
        if let Some((lack, hint)) = self.catalog.channels.get(&channel).and_then(|found| found.cannot_receive.as_ref())
        {
            let problem = Problem::error(&object.place, format!("channel `{channel}` has {lack}"));
            context.add(problem.hint(format!("{hint} in [channels.{channel}]")));
        }
        Some(Verb::Receive(Receive { channel, since: since?, filter, key }))
    }
}

/// The keys that a step with this verb may have.
fn known(verb: &'static str, kind: Option<&Kind>) -> Vec<&'static str> {
    let own = match verb {
        "send" | "request" => MESSAGE_KEYS,
        "receive" => RECEIVE_KEYS,
        "check" => CHECK_KEYS,
        "exec" => EXEC_KEYS,
        _ => &[],
    };
    let mut known = [&[verb], own, COMMON_KEYS].concat();
    if matches!(verb, "send" | "request") {
        if verb == "request" {
            known.push("poll");
        }
        match kind {
            Some(kind) => {
                known.extend(kind.fields);
                known.extend(kind.headers.then_some("headers"));
            }
            // Nobody knows which keys a channel has that is not there: all of them pass.
            None => {
                known.extend(KINDS.iter().flat_map(|kind| kind.fields));
                known.push("headers");
            }
        }
    }
    if verb == "check" {
        match kind {
            Some(kind) => known.extend(kind.check_fields),
            None => known.extend(KINDS.iter().flat_map(|kind| kind.check_fields)),
        }
    }
    known
}

/// What to do about a key that other steps know.
fn explain(key: &str, verb: &str, kind: Option<&Kind>) -> Option<String> {
    let of = |keys: &[&str]| keys.contains(&key);
    if key == "poll" || (of(MESSAGE_KEYS) && !matches!(verb, "send" | "request") && key != "budget") {
        let verbs = if key == "poll" { "`request`" } else { "`send` and `request`" };
        return Some(format!("{verbs} steps have it"));
    }
    if of(RECEIVE_KEYS) && verb != "pause" {
        return Some("`receive` steps have it".to_owned());
    }
    let fields = |kind: &Kind| if verb == "check" { kind.check_fields } else { kind.fields };
    let kinds: Vec<_> = KINDS.iter().filter(|kind| fields(kind).contains(&key)).map(|kind| kind.name).collect();
    match kind {
        Some(kind)
            if !kinds.is_empty() && !fields(kind).contains(&key) && matches!(verb, "send" | "request" | "check") =>
        {
            Some(format!("the channel is of type `{}`; this key is for {}", kind.name, kinds.join(", ")))
        }
        _ => None,
    }
}

fn poll(context: &Context, node: &Node) -> Option<Poll> {
    let section = Section::open(context, node, "poll", POLL_KEYS)?;
    section.require("every", "the time between attempts, as in \"500ms\"");
    section.require("within", "the time for all attempts, as in \"10s\"");
    let poll = Poll { every: section.duration("every")?, within: section.duration("within")? };
    if poll.every > poll.within {
        let problem =
            Problem::error(section.place_of("every"), "`every` is longer than `within`, so nothing is repeated");
        context.add(problem);
    }
    Some(poll)
}
