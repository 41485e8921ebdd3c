//! The grammar for reading a message: queries and predicates, in `expect`, `capture`, `key` and `filter`.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use crate::config::document::{Context, Data, Node, Section};
use crate::config::problem::Problem;
use crate::config::values;
use crate::journey::expect::{Comparison, Expectation, Expected, JsonPath, Predicate, Query};
use crate::journey::value::{Decimal, Value};

/// A compiled pattern may take this many bytes: what a person writes takes a few thousand.
const REGEX_SIZE: usize = 1 << 20;
/// Longer paths and patterns are not written by people.
const LONGEST: usize = 1_000;

/// What kind of value a query finds, which decides what it can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Duration,
    /// A time or a number, by protocol.
    Lag,
    Rate,
    Bool,
    Any,
}

/// A query: its name, whether it has an argument, and what it finds.
struct Word {
    name: &'static str,
    argument: Option<&'static str>,
    kind: Kind,
}

const fn word(name: &'static str, argument: Option<&'static str>, kind: Kind) -> Word {
    Word { name, argument, kind }
}

const QUERIES: &[Word] = &[
    word("status", None, Kind::Number),
    word("header", Some("the name of a header"), Kind::Text),
    word("json", Some("a JSONPath"), Kind::Any),
    word("form", Some("the name of a field"), Kind::Text),
    word("regex", Some("a pattern"), Kind::Text),
    word("body", None, Kind::Text),
    word("size", None, Kind::Number),
    word("latency", None, Kind::Duration),
    word("copies", None, Kind::Number),
    word("order", None, Kind::Bool),
    word("intact", None, Kind::Bool),
    word("redelivered", None, Kind::Bool),
    word("folder", None, Kind::Text),
    word("hop", Some("the name of a hop, or `*` for each"), Kind::Duration),
    word("certificate_expires_in", None, Kind::Duration),
    word("depth", None, Kind::Number),
    word("oldest_age", None, Kind::Duration),
    word("growth", None, Kind::Rate),
    word("consumers", None, Kind::Number),
    word("lag", None, Kind::Lag),
    word("value", None, Kind::Any),
];
/// What only a `check` can look at.
const OF_CHECKS: &[&str] = &["depth", "oldest_age", "growth", "consumers", "lag"];
/// What only a run knows, and a channel on its own does not.
const OF_RUNS: &[&str] = &["latency", "copies", "order", "intact"];
const OTHER_PREDICATES: &[&str] = &["matches", "exists", "one_of"];
const BESIDE: &[&str] = &["message", "soft"];

/// Every key of an expectation.
pub(super) fn keys() -> Vec<&'static str> {
    let queries = QUERIES.iter().map(|word| word.name);
    queries.chain(predicates()).chain(BESIDE.iter().copied()).chain(["over"]).collect()
}

/// The keys that judge a value.
pub(super) fn predicates() -> impl Iterator<Item = &'static str> {
    Comparison::ALL.iter().map(|(name, _)| *name).chain(OTHER_PREDICATES.iter().copied())
}

/// Reads expectations and queries for one place in which they may stand.
pub(super) struct Reader<'a> {
    context: &'a Context,
    /// Names that templates may use; `None` where there is no run to give them values.
    names: Option<&'a BTreeSet<String>>,
    /// The step's verb; `None` in a channel.
    verb: Option<&'static str>,
}

impl<'a> Reader<'a> {
    /// For a channel's `key` and `filter`.
    pub(super) fn of_channel(context: &'a Context) -> Reader<'a> {
        Reader { context, names: None, verb: None }
    }

    /// For a step with this verb, after steps that captured `names`.
    pub(super) fn of_step(context: &'a Context, verb: &'static str, names: &'a BTreeSet<String>) -> Reader<'a> {
        Reader { context, names: Some(names), verb: Some(verb) }
    }

    /// A list of expectations.
    pub(super) fn expectations(&self, node: &Node, key: &str) -> Vec<Expectation> {
        let items = match &node.data {
            Data::List(items) => items,
            Data::Table(_) => {
                let problem = Problem::error(&node.place, format!("`{key}` must be a list of tables, not a table"));
                self.context.add(problem.hint(format!("write `{key} = [{{ … }}]`")));
                return Vec::new();
            }
            _ => {
                self.context.expected(node, key, "a list of tables");
                return Vec::new();
            }
        };
        items.iter().filter_map(|item| self.expectation(item, key)).collect()
    }

    fn expectation(&self, node: &Node, key: &str) -> Option<Expectation> {
        let section = Section::open(self.context, node, key, &keys())?;
        let (word, argument) = self.word(&section)?;
        // `{ depth = { less_than = 10 } }`: the predicate stands in a table of its own.
        let inner = match (&argument.data, word.argument) {
            (Data::Table(_), None) => {
                let allowed: Vec<_> = predicates()
                    .chain(BESIDE.iter().copied())
                    .chain((word.name == "growth").then_some("over"))
                    .collect();
                Some(Section::open(self.context, argument, word.name, &allowed)?)
            }
            _ => None,
        };
        if inner.is_none() && section.get("over").is_some() {
            let problem = Problem::error(section.place_of("over"), "`over` belongs to `growth`");
            self.context.add(problem.hint("write `{ growth = { over = \"10m\", less_than = \"50/min\" } }`"));
        }
        let query = self.build(word, argument, inner.as_ref());
        let predicate = self.predicate(&section, inner.as_ref(), word, argument);
        let of_either = |key| inner.as_ref().filter(|inner| inner.get(key).is_some()).unwrap_or(&section);
        let message = of_either("message").text("message").map(str::to_owned);
        let soft = of_either("soft").bool("soft", false);
        Some(Expectation { query: query?, predicate: predicate?, message, soft })
    }

    /// A query on its own, as `capture` and `key` have it.
    pub(super) fn query(&self, node: &Node, key: &str) -> Option<Query> {
        let queries: Vec<_> = QUERIES.iter().map(|word| word.name).collect();
        let section = Section::open_or(self.context, node, key, &queries, |unknown| {
            let is_predicate = predicates().any(|name| name == unknown);
            is_predicate.then(|| format!("`{key}` takes a value as it is; only `expect` and `filter` judge it"))
        })?;
        let (word, argument) = self.word(&section)?;
        if word.argument.is_none() && word.name != "growth" && !matches!(argument.data, Data::Bool(true)) {
            let problem = Problem::error(&argument.place, format!("`{}` has no argument", word.name));
            self.context.add(problem.hint(format!("write `{{ {} = true }}`", word.name)));
            return None;
        }
        if word.name == "growth" {
            self.context.add(Problem::error(&argument.place, "`growth` can be judged, not captured"));
            return None;
        }
        self.build(word, argument, None)
    }

    /// The one query of a table.
    fn word<'n>(&self, section: &Section<'n>) -> Option<(&'static Word, &'n Node)> {
        let mut found = QUERIES.iter().filter_map(|word| Some((word, section.get(word.name)?)));
        let Some((word, argument)) = found.next() else {
            // An unknown key is probably the query, and has been told already.
            if !section.has_unknown() {
                let names: Vec<_> = QUERIES.iter().map(|word| format!("`{}`", word.name)).collect();
                let problem = Problem::error(&section.node.place, "nothing says what to look at");
                self.context.add(problem.hint(format!("one of {}", names.join(", "))));
            }
            return None;
        };
        if let Some((second, _)) = found.next() {
            let problem = format!("`{}` and `{}` look at two things", word.name, second.name);
            let problem = Problem::error(section.place_of(second.name), problem);
            self.context.add(problem.hint("split it: one table for each"));
            return None;
        }
        let place = section.place_of(word.name);
        match self.verb {
            None if OF_RUNS.contains(&word.name) => {
                let problem = format!("`{}` is known to a run's step only, not to a channel", word.name);
                self.context.add(Problem::error(place, problem));
            }
            verb if OF_CHECKS.contains(&word.name) && !matches!(verb, Some("check" | "exec")) => {
                let problem = Problem::error(place, format!("only a `check` step can look at `{}`", word.name));
                self.context.add(problem);
            }
            Some(verb) if word.name == "copies" && verb != "receive" => {
                self.context.add(Problem::error(place, "only a `receive` step can count `copies`"));
            }
            _ => {}
        }
        Some((word, argument))
    }

    fn build(&self, word: &Word, argument: &Node, inner: Option<&Section<'_>>) -> Option<Query> {
        let text = match word.argument {
            None => "",
            Some(what) => match argument.as_text() {
                Some(text) if !text.is_empty() && text.len() <= LONGEST => text,
                _ => {
                    self.context.expected(argument, word.name, &format!("{what} in at most {LONGEST} bytes"));
                    return None;
                }
            },
        };
        Some(match word.name {
            "status" => Query::Status,
            "header" => Query::Header(text.to_owned()),
            "json" => match JsonPath::parse(text) {
                Ok(path) => Query::Json(path),
                Err(reason) => {
                    let problem = Problem::error(&argument.place, format!("`{text}` is not a JSONPath: {reason}"));
                    self.context.add(problem.hint("RFC 9535, as in \"$.status\" or \"$.items[0].id\""));
                    return None;
                }
            },
            "form" => Query::Form(text.to_owned()),
            "regex" => Query::Regex(self.regex(argument, text)?),
            "body" => Query::Body,
            "size" => Query::Size,
            "latency" => Query::Latency,
            "copies" => Query::Copies,
            "order" => Query::Order,
            "intact" => Query::Intact,
            "hop" => Query::Hop(text.to_owned()),
            "certificate_expires_in" => Query::CertificateExpiresIn,
            "growth" => {
                let section = match inner {
                    Some(section) => section,
                    None => {
                        self.context.expected(argument, "growth", "a table");
                        return None;
                    }
                };
                section.require("over", "the time that the rate is taken over, as in \"10m\"")?;
                Query::Growth { over: section.duration("over")? }
            }
            fact => Query::Fact(crate::journey::expect::FACTS.iter().find(|name| **name == fact)?),
        })
    }

    fn regex(&self, node: &Node, text: &str) -> Option<Regex> {
        match RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let told = error.to_string();
                let reason = told.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
                self.context.add(Problem::error(&node.place, format!("not a pattern: {reason}")));
                None
            }
        }
    }

    fn predicate(
        &self,
        section: &Section<'_>,
        inner: Option<&Section<'_>>,
        word: &Word,
        argument: &Node,
    ) -> Option<Predicate> {
        let mut found: Vec<_> = [Some(section), inner]
            .into_iter()
            .flatten()
            .flat_map(|section| {
                predicates().filter_map(|name| Some((name, section.get(name)?, section.place_of(name))))
            })
            .collect();
        // `{ status = 200 }` is short for equals.
        if word.argument.is_none() && inner.is_none() {
            found.insert(0, ("equals", argument, section.place_of(word.name)));
        }
        match found.as_slice() {
            // An unknown key is probably the predicate.
            [] if section.has_unknown() || inner.is_some_and(Section::has_unknown) => None,
            [] => {
                let problem = Problem::error(&section.node.place, format!("nothing says what `{}` must be", word.name));
                self.context.add(problem.hint("add a predicate: `equals = …`, `contains = …`, `exists = true`"));
                None
            }
            [(name, node, _)] => self.judge(word, name, node),
            [.., (_, _, place)] => {
                let problem = Problem::error(place, "an expectation has one predicate");
                self.context.add(problem.hint(
                    "split it: one table for each, as in `[{ size = { at_least = 1 } }, { size = { at_most = 9 } }]`",
                ));
                None
            }
        }
    }

    fn judge(&self, word: &Word, name: &str, node: &Node) -> Option<Predicate> {
        match name {
            "exists" => match node.data {
                Data::Bool(exists) => Some(Predicate::Exists(exists)),
                _ => {
                    self.context.expected(node, name, "true or false");
                    None
                }
            },
            "matches" => {
                self.has_text(word, name, node)?;
                let text = self.context.text(node, name)?;
                self.regex(node, text).map(Predicate::Matches)
            }
            "one_of" => {
                let items = self.context.list(node, name, "a list of values")?;
                if items.is_empty() {
                    self.context.add(Problem::error(&node.place, "nothing is one of none"));
                }
                let choices: Vec<_> = items.iter().map(|item| self.expected(word, name, item)).collect();
                choices.into_iter().collect::<Option<_>>().map(Predicate::OneOf)
            }
            _ => {
                let comparison = Comparison::ALL.iter().find(|(other, _)| *other == name).map(|(_, found)| *found)?;
                match comparison {
                    Comparison::StartsWith | Comparison::EndsWith | Comparison::Contains => {
                        self.has_text(word, name, node)?;
                    }
                    Comparison::LessThan | Comparison::AtMost | Comparison::GreaterThan | Comparison::AtLeast
                        if word.kind == Kind::Bool =>
                    {
                        let problem = format!("`{}` is true or false, which has no order", word.name);
                        self.context.add(Problem::error(&node.place, problem));
                        return None;
                    }
                    _ => {}
                }
                Some(Predicate::Compare(comparison, self.expected(word, name, node)?))
            }
        }
    }

    fn has_text(&self, word: &Word, name: &str, node: &Node) -> Option<()> {
        if matches!(word.kind, Kind::Text | Kind::Any) {
            return Some(());
        }
        self.context.add(Problem::error(&node.place, format!("`{name}` is for text, and `{}` is none", word.name)));
        None
    }

    /// The value to compare with. Nothing is coerced later, so a value that the query can never equal is refused here.
    fn expected(&self, word: &Word, name: &str, node: &Node) -> Option<Expected> {
        let fixed = |value: Value| Some(Expected::Fixed(value));
        let wrong = |what: &str, hint: Option<String>| {
            let problem = format!("`{}` is {what}, which {} never is", word.name, node.kind());
            self.context.add(Problem::error(&node.place, problem).maybe_hint(hint));
            None
        };
        match (word.kind, &node.data) {
            (Kind::Duration, Data::Text(_)) => self.context.duration(node, name).map(Value::Duration).and_then(fixed),
            (Kind::Duration, _) => wrong("a duration", Some(values::DURATION_HINT.to_owned())),
            (Kind::Rate, data) => {
                let rate = if let Data::Text(text) = data { values::rate(text) } else { None };
                match rate {
                    Some(rate) => fixed(Value::Rate(rate)),
                    None => {
                        let problem = Problem::error(&node.place, format!("`{name}` must be a rate"));
                        self.context.add(problem.hint(values::RATE_HINT));
                        None
                    }
                }
            }
            (Kind::Lag, Data::Text(_)) => self.context.duration(node, name).map(Value::Duration).and_then(fixed),
            (Kind::Lag | Kind::Number | Kind::Any, Data::Integer(_) | Data::Float(_)) => {
                self.plain(node).and_then(fixed)
            }
            (Kind::Number, _) => wrong(
                "a number",
                node.as_text()
                    .filter(|text| Decimal::parse(text).is_some())
                    .map(|text| format!("write it without quotes: {text}")),
            ),
            (Kind::Lag, _) => wrong("a duration or a number", None),
            (Kind::Bool, Data::Bool(value)) => fixed(Value::Bool(*value)),
            (Kind::Bool, _) => wrong("true or false", None),
            (Kind::Text | Kind::Any, Data::Text(text)) if text.contains("{{") => match self.names {
                Some(names) => self.context.template(node, name, names).map(Expected::Rendered),
                None => {
                    self.context
                        .add(Problem::error(&node.place, "a channel has no run, so there is nothing to fill in"));
                    None
                }
            },
            (Kind::Text, Data::Text(text)) => fixed(Value::Text(text.clone())),
            (Kind::Text, data) => {
                let number = if let Data::Integer(number) = data { Some(format!("write \"{number}\"")) } else { None };
                wrong("text", number)
            }
            (Kind::Any, _) => self.plain(node).and_then(fixed),
        }
    }

    /// Any TOML value as it is.
    fn plain(&self, node: &Node) -> Option<Value> {
        Some(match &node.data {
            Data::Text(text) | Data::Datetime(text) => Value::Text(text.clone()),
            Data::Bool(value) => Value::Bool(*value),
            Data::Integer(digits) | Data::Float(digits) => match Decimal::parse(digits) {
                Some(number) => Value::Number(number),
                None => {
                    self.context.add(Problem::error(&node.place, "only finite numbers can be compared"));
                    return None;
                }
            },
            Data::List(items) => Value::List(items.iter().map(|item| self.plain(item)).collect::<Option<_>>()?),
            Data::Table(entries) => {
                let members = entries.iter().map(|entry| Some((entry.key.clone(), self.plain(&entry.value)?)));
                let mut members = members.collect::<Option<Vec<_>>>()?;
                // As values from messages have them, or the two would never be equal.
                members.sort_by(|a: &(String, Value), b| a.0.cmp(&b.0));
                Value::Object(members)
            }
        })
    }
}
