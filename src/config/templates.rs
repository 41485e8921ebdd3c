//! Templates in a configuration: compiled at load, with the place of whatever is wrong in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::document::{Context, Data, Entry, Node};
use crate::config::problem::{Place, Problem};
use crate::config::values;
use crate::journey::JsonTemplate;
use crate::journey::template::{BUILT_IN, FUNCTIONS, Template, TemplateError};

impl Context {
    /// A string as a template that may use `names` beside the built-in ones.
    pub(super) fn template(&self, node: &Node, key: &str, names: &BTreeSet<String>) -> Option<Template> {
        let text = self.text(node, key)?;
        self.compile(node, text, names)
    }

    /// As [`Context::template`]; numbers and booleans are taken as they are written.
    pub(super) fn scalar(&self, node: &Node, key: &str, names: &BTreeSet<String>) -> Option<Template> {
        match &node.data {
            Data::Integer(number) | Data::Float(number) => Some(Template::literal(number)),
            Data::Bool(value) => Some(Template::literal(if *value { "true" } else { "false" })),
            Data::Text(text) => self.compile(node, text, names),
            _ => {
                self.expected(node, key, "a string, a number or a boolean");
                None
            }
        }
    }

    /// A text that is code elsewhere. It takes no templates: what they insert would be run.
    pub(super) fn sql<'a>(&self, node: &'a Node, key: &str) -> Option<&'a str> {
        let text = self.text(node, key)?;
        if text.trim().is_empty() {
            self.add(Problem::error(&node.place, format!("`{key}` is empty")));
            return None;
        }
        if text.contains("{{") {
            let problem = Problem::error(&node.place, format!("`{key}` is SQL and takes no templates"));
            self.add(
                problem.hint("a `send` gives its statement the token as $1 and the payload, which may be JSON, as $2"),
            );
            return None;
        }
        Some(text)
    }

    /// A table of templates, in the order of the file.
    pub(super) fn pairs(&self, node: &Node, key: &str, names: &BTreeSet<String>) -> Vec<(String, Template)> {
        let entries = self.table(node, key).unwrap_or_default();
        let pair = |entry: &Entry| Some((entry.key.clone(), self.scalar(&entry.value, &entry.key, names)?));
        entries.iter().filter_map(pair).collect()
    }

    /// A JSON document whose strings are templates.
    pub(super) fn document(&self, node: &Node, names: &BTreeSet<String>) -> Option<JsonTemplate> {
        let fixed = |value: serde_json::Value| Some(JsonTemplate::Fixed(value));
        match &node.data {
            Data::Text(text) => self.compile(node, text, names).map(JsonTemplate::Text),
            Data::Datetime(text) => fixed(text.as_str().into()),
            Data::Bool(value) => fixed((*value).into()),
            Data::Integer(digits) | Data::Float(digits) => {
                let number = serde_json::from_str::<serde_json::Number>(digits).ok();
                // What the number would be sent as; a difference would be a lie about what was asked for.
                let exact =
                    number.filter(|number| matches!(node.data, Data::Float(_)) || number.to_string() == *digits);
                if exact.is_none() {
                    let problem = Problem::error(&node.place, "JSON cannot carry this number exactly");
                    self.add(problem.hint("write it as a string"));
                }
                fixed(serde_json::Value::Number(exact?))
            }
            Data::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.document(item, names)).collect();
                items.into_iter().collect::<Option<_>>().map(JsonTemplate::List)
            }
            Data::Table(entries) => {
                let member = |entry: &Entry| Some((entry.key.clone(), self.document(&entry.value, names)?));
                let members: Vec<_> = entries.iter().map(member).collect();
                members.into_iter().collect::<Option<_>>().map(JsonTemplate::Object)
            }
        }
    }

    fn compile(&self, node: &Node, text: &str, names: &BTreeSet<String>) -> Option<Template> {
        let problem = match Template::parse(text, names) {
            Ok(template) => return Some(template),
            Err(TemplateError::Unclosed) => Problem::error(&node.place, "`{{` without a closing `}}`"),
            Err(TemplateError::Syntax(reason)) => {
                let problem = Problem::error(&node.place, format!("this template cannot be read: {reason}"));
                problem.hint("`{{ name }}`, `{{ digits(6) }}` or another expression stands between the braces")
            }
            Err(TemplateError::UnknownName { name }) => {
                let known = BUILT_IN.iter().copied().chain(names.iter().map(String::as_str));
                let known: Vec<_> = known.chain(FUNCTIONS.iter().copied()).collect();
                let place = narrow(&node.place, &name);
                let problem = Problem::error(&place, format!("nothing named `{name}` is known here"));
                problem.maybe_hint(values::suggestion(&name, known))
            }
        };
        self.add(problem);
        None
    }
}

/// Where `name` stands between braces within a place.
fn narrow(place: &Place, name: &str) -> Place {
    let text = place.text();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(open) = text[from..].find("{{").map(|at| from + at + 2) {
        let close = text[open..].find("}}").map_or(text.len(), |at| open + at);
        for (at, _) in text[open..close].match_indices(name) {
            let (start, end) = (open + at, open + at + name.len());
            if !text[..start].ends_with(is_part) && !text[end..].starts_with(is_part) {
                let base = place.range().start;
                return Place::new(place.source(), base + start..base + end);
            }
        }
        from = close;
    }
    place.clone()
}

/// The tree with the values of a matrix filled into the templates of every string.
pub(super) fn substitute(node: &Node, values: &BTreeMap<String, String>) -> Node {
    let data = match &node.data {
        Data::Text(text) => Data::Text(fill(text, values)),
        Data::List(items) => Data::List(items.iter().map(|item| substitute(item, values)).collect()),
        Data::Table(entries) => Data::Table(
            entries.iter().map(|entry| Entry { value: substitute(&entry.value, values), ..entry.clone() }).collect(),
        ),
        other => other.clone(),
    };
    Node { place: node.place.clone(), data }
}

/// `{{ region }}` becomes the value itself, so that it is plain text; within a longer expression the name becomes a literal.
fn fill(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((inside, tail)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        match values.get(inside.trim()) {
            Some(value) => out.push_str(value),
            None => out.push_str(&format!("{{{{{}}}}}", with_literals(inside, values))),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The expression with the names of `values` replaced by quoted values, which hold no quotes themselves.
fn with_literals(expression: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            first if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let (word, tail) = rest.split_at(length);
        match values.get(word).filter(|_| !out.trim_end().ends_with('.')) {
            Some(value) => out.push_str(&format!("\"{value}\"")),
            None => out.push_str(word),
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_nothing_else() {
        let values = BTreeMap::from([("region".to_owned(), "eu".to_owned())]);
        let filled = fill("https://{{ region }}.x/{{region}}?{{ token }}{{", &values);
        assert_eq!(filled, "https://eu.x/eu?{{ token }}{{");
        let filled = fill("{{ region | upper }} {{ 'region' ~ regions ~ a.region ~ \"é", &values);
        assert_eq!(filled, "{{ \"eu\" | upper }} {{ 'region' ~ regions ~ a.region ~ \"é");
        let filled = fill("{{ 'region' ~ regions ~ a.region ~ region }}", &values);
        assert_eq!(filled, "{{ 'region' ~ regions ~ a.region ~ \"eu\" }}");
    }

    #[test]
    fn a_name_is_found_between_its_braces() {
        use crate::config::problem::Source;
        let source = Source::new("a.toml", "text = \"sid {{ sids }} and {{ digits(sid) }}\"", 0);
        let place = Place::new(&source, 7..source.text().len());
        assert_eq!((narrow(&place, "sid").column(), narrow(&place, "sid").text()), (38, "sid"));
        assert_eq!(narrow(&place, "gone"), place);
    }
}
