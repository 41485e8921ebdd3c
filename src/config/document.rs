//! A file as a tree in which everything knows its place, and typed access to it that collects problems instead of stopping.

use std::cell::{OnceCell, RefCell};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::places::Places;
use crate::config::problem::{Place, Problem, Source};
use crate::config::{secrets, values};
use crate::journey::own;
use crate::secret::Redactor;
use crate::time::parse_duration;

/// What the whole load shares.
pub(super) struct Context {
    problems: RefCell<Vec<Problem>>,
    /// The directory of the daemon's file: paths are relative to it.
    pub(super) base: PathBuf,
    /// Learns every secret on the way.
    pub(super) redactor: Redactor,
    /// A file could not be read, so a name that nothing defines may be defined in it.
    pub(super) is_incomplete: bool,
    /// `public_url` of `[hooks]`, as it is written: a webhook whose caller signs the URL needs it.
    pub(super) hooks_url: OnceCell<Node>,
    /// Learns where journeys are written, if anybody wants to know.
    pub(super) places: Option<Rc<RefCell<Places>>>,
}

impl Context {
    pub(super) fn new(base: PathBuf) -> Context {
        Context {
            problems: RefCell::default(),
            base,
            redactor: Redactor::new(),
            is_incomplete: false,
            hooks_url: OnceCell::new(),
            places: None,
        }
    }

    /// With a redactor that learns what is secret in this load.
    pub(super) fn knowing(self, redactor: &Redactor) -> Context {
        Context { redactor: redactor.clone(), ..self }
    }

    pub(super) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn error_count(&self) -> usize {
        self.problems.borrow().iter().filter(|problem| problem.is_error()).count()
    }

    /// Says so if a table's key cannot be a name.
    pub(super) fn check_name(&self, name: &str, place: &Place) {
        if !is_name(name) {
            self.add(Problem::error(place, format!("`{name}` cannot be a name")).hint(NAME_HINT));
        }
    }

    /// Says so if a name is one of the monitor's own.
    pub(super) fn check_own(&self, name: &str, place: &Place) {
        if own::is_own(name) {
            let problem = Problem::error(place, format!("`{name}` is what the monitor calls a part of itself"));
            self.add(problem.hint("choose another name"));
        }
    }

    /// Says that the value of `key` should have been something else.
    pub(super) fn expected(&self, node: &Node, key: &str, what: &str) {
        self.add(Problem::error(&node.place, format!("`{key}` must be {what}, not {}", node.kind())));
    }

    pub(super) fn text<'a>(&self, node: &'a Node, key: &str) -> Option<&'a str> {
        match &node.data {
            Data::Text(text) => Some(text),
            _ => {
                self.expected(node, key, "a string");
                None
            }
        }
    }

    pub(super) fn list<'a>(&self, node: &'a Node, key: &str, what: &str) -> Option<&'a [Node]> {
        match &node.data {
            Data::List(items) => Some(items),
            _ => {
                self.expected(node, key, what);
                None
            }
        }
    }

    pub(super) fn table<'a>(&self, node: &'a Node, key: &str) -> Option<&'a [Entry]> {
        match &node.data {
            Data::Table(entries) => Some(entries),
            _ => {
                self.expected(node, key, "a table");
                None
            }
        }
    }

    /// A length of time above zero.
    pub(super) fn duration(&self, node: &Node, key: &str) -> Option<Duration> {
        let Data::Text(text) = &node.data else {
            let what = "a duration in quotes";
            let problem = format!("`{key}` must be {what}, not {}", node.kind());
            self.add(Problem::error(&node.place, problem).hint(values::DURATION_HINT));
            return None;
        };
        match parse_duration(text) {
            Ok(Duration::ZERO) => {
                self.add(Problem::error(&node.place, format!("`{key}` must be longer than nothing")));
                None
            }
            Ok(duration) => Some(duration),
            Err(reason) => {
                self.add(Problem::error(&node.place, reason).hint(values::DURATION_HINT));
                None
            }
        }
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy>(&self, node: &Node, key: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names = choices.iter().map(|(name, _)| *name);
            let problem = Problem::error(&node.place, format!("`{key}` cannot be `{text}`"));
            self.add(problem.maybe_hint(values::suggestion(text, names)));
        }
        found.map(|(_, value)| *value)
    }
}

/// A value with its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
}

#[derive(Clone)]
pub(super) enum Data {
    Text(String),
    /// Decimal digits with an optional minus: no width is assumed.
    Integer(String),
    Float(String),
    Bool(bool),
    Datetime(String),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

impl Node {
    /// Reads a file. Every line that is not TOML is a problem; `None` if there is one.
    pub(super) fn parse(context: &Context, source: &Arc<Source>) -> Option<Node> {
        secrets::hide_passwords(source);
        let (root, errors) = DeTable::parse_recoverable(source.text());
        if errors.is_empty() {
            let node = Node::table(context, source, source_start(source), root.get_ref());
            secrets::hide(&node);
            return Some(node);
        }
        // The tree is not to be trusted now, neither for what else is wrong nor for where its secrets are.
        secrets::hide_by_name(source);
        let mut lines = Vec::new();
        for error in errors {
            let place = Place::new(source, error.span().unwrap_or_default());
            // One mistake makes the parser complain again further on in the line.
            if !lines.contains(&place.line()) {
                lines.push(place.line());
                context.add(Problem::error(&place, error.message()));
            }
        }
        None
    }

    fn table(context: &Context, source: &Arc<Source>, place: Place, table: &DeTable<'_>) -> Node {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_place: Place::new(source, key.span()),
                value: Node::value(context, source, value),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_place.range().start);
        Node { place, data: Data::Table(entries) }
    }

    fn value(context: &Context, source: &Arc<Source>, value: &Spanned<DeValue<'_>>) -> Node {
        let place = Place::new(source, value.span());
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().trim_start_matches('+');
                if digits.is_empty() {
                    // The parser takes `0x` for a number.
                    context.add(Problem::error(&place, "a number has at least one digit"));
                }
                let plain = i128::from_str_radix(digits, number.radix()).map(|number| number.to_string());
                Data::Integer(plain.unwrap_or_else(|_| digits.to_owned()))
            }
            DeValue::Float(number) => Data::Float(number.as_str().trim_start_matches('+').to_owned()),
            DeValue::Boolean(value) => Data::Bool(*value),
            DeValue::Datetime(at) => Data::Datetime(at.to_string()),
            DeValue::Array(items) => Data::List(items.iter().map(|item| Node::value(context, source, item)).collect()),
            DeValue::Table(table) => return Node::table(context, source, place, table),
        };
        Node { place, data }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Data::Text(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Bool(_) => "a boolean",
            Data::Datetime(_) => "a date and time",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn source_start(source: &Arc<Source>) -> Place {
    Place::new(source, 0..0)
}

/// A table whose keys are known. Opening it reports the keys that are not.
pub(super) struct Section<'a> {
    pub(super) context: &'a Context,
    pub(super) node: &'a Node,
    known: Vec<&'static str>,
    /// Known keys that unknown ones were probably meant to be. That they are missing need not be told again.
    misspelt: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The table under `key`, if it is one.
    pub(super) fn open(context: &'a Context, node: &'a Node, key: &str, known: &[&'static str]) -> Option<Section<'a>> {
        Section::open_or(context, node, key, known, |_| None)
    }

    /// As [`Section::open`]; `explain` may know better what to do about an unknown key.
    pub(super) fn open_or(
        context: &'a Context,
        node: &'a Node,
        key: &str,
        known: &[&'static str],
        explain: impl Fn(&str) -> Option<String>,
    ) -> Option<Section<'a>> {
        for entry in context.table(node, key)? {
            if !known.contains(&entry.key.as_str()) {
                let hint = explain(&entry.key).or_else(|| values::suggestion(&entry.key, known.iter().copied()));
                let problem = Problem::error(&entry.key_place, format!("unknown key `{}`", entry.key));
                context.add(problem.maybe_hint(hint));
            }
        }
        let unknown = node.entries().iter().map(|entry| entry.key.as_str()).filter(|key| !known.contains(key));
        let misspelt = unknown.filter_map(|key| values::nearest(key, known.iter().copied())).collect();
        Some(Section { context, node, known: known.to_vec(), misspelt })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.known.contains(&key), "`{key}` is read and not known");
        self.node.get(key)
    }

    /// Whether it has a key that is not known.
    pub(super) fn has_unknown(&self) -> bool {
        self.node.entries().iter().any(|entry| !self.known.contains(&entry.key.as_str()))
    }

    /// Where the key is, or the table if it is not there.
    pub(super) fn place_of(&self, key: &str) -> &'a Place {
        self.node.entries().iter().find(|entry| entry.key == key).map_or(&self.node.place, |entry| &entry.key_place)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, hint: &str) -> Option<&'a Node> {
        let found = self.get(key);
        if found.is_none() && !self.misspelt.contains(&key) {
            self.context.add(Problem::error(&self.node.place, format!("`{key}` is missing")).hint(hint));
        }
        found
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.context.text(self.get(key)?, key)
    }

    pub(super) fn bool(&self, key: &str, default: bool) -> bool {
        self.flag(key).unwrap_or(default)
    }

    /// True or false, if it says.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Node { data: Data::Bool(value), .. } => Some(*value),
            node => {
                self.context.expected(node, key, "true or false");
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let node = self.get(key)?;
        let Data::Integer(digits) = &node.data else {
            self.context.expected(node, key, "a whole number");
            return None;
        };
        let number = digits.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = range.into_inner();
            self.context.add(Problem::error(&node.place, format!("`{key}` must be between {low} and {high}")));
        }
        number
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        self.context.duration(self.get(key)?, key)
    }

    /// A duration, or `"never"`, which is `None`.
    pub(super) fn duration_or_never(&self, key: &str, default: Option<Duration>) -> Option<Duration> {
        match self.get(key) {
            None => default,
            Some(node) if node.as_text() == Some("never") => None,
            Some(node) => self.context.duration(node, key),
        }
    }

    pub(super) fn share(&self, key: &str) -> Option<f64> {
        self.parsed(key, "a share", values::SHARE_HINT, values::share)
    }

    pub(super) fn rate(&self, key: &str) -> Option<f64> {
        self.parsed(key, "a rate above zero", values::RATE_HINT, |text| values::rate(text).filter(|rate| *rate > 0.0))
    }

    fn parsed<T>(&self, key: &str, what: &str, hint: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let node = self.get(key)?;
        let parsed = node.as_text().and_then(parse);
        if parsed.is_none() {
            let found = node.as_text().map_or_else(|| node.kind().to_owned(), |text| format!("`{text}`"));
            self.context.add(Problem::error(&node.place, format!("`{key}` must be {what}, not {found}")).hint(hint));
        }
        parsed
    }

    /// A list of strings, each with its place.
    pub(super) fn strings(&self, key: &str) -> Option<Vec<(&'a str, &'a Node)>> {
        let node = self.get(key)?;
        let items = match &node.data {
            Data::List(items) => items,
            Data::Text(text) => {
                let problem = Problem::error(&node.place, format!("`{key}` must be a list of strings, not a string"));
                self.context.add(problem.hint(format!("write `{key} = [{text:?}]`")));
                return None;
            }
            _ => {
                self.context.expected(node, key, "a list of strings");
                return None;
            }
        };
        let texts = items.iter().filter_map(|item| Some((self.context.text(item, key)?, item)));
        Some(texts.collect())
    }

    /// The only one of `keys` that is there; two are a problem, and so is none if there must be one.
    pub(super) fn only_one(
        &self,
        keys: &[&'static str],
        required: bool,
        hint: &str,
    ) -> Option<(&'static str, &'a Node)> {
        let mut found = keys.iter().filter_map(|key| Some((*key, self.get(key)?)));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => {
                let problem =
                    Problem::error(self.place_of(second), format!("`{first}` and `{second}` exclude each other"));
                self.context.add(problem.also(self.place_of(first), "the other one").hint(hint));
                None
            }
            (None, _) if required && !keys.iter().any(|key| self.misspelt.contains(key)) => {
                let names: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
                let problem = format!("one of {} is missing", names.join(", "));
                self.context.add(Problem::error(&self.node.place, problem).hint(hint));
                None
            }
            (first, _) => first,
        }
    }
}

/// Whether the text may be the name of something: it becomes a label, a part of a path and a word in a message.
pub(super) fn is_name(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 100 && text.chars().all(is_inner)
}

/// What names are made of.
pub(super) const NAME_HINT: &str =
    "a name has up to 100 letters, digits, `-`, `_` and `.`, and begins with a letter or digit";

/// Whether the text may be the name of a capture, a label or a matrix variable.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What identifiers are made of.
pub(super) const IDENTIFIER_HINT: &str = "it has up to 100 letters, digits and `_`, and begins with a letter";
