//! Strict templates: `{{ expression }}` in text. An unknown name is refused when the template is made, not when it is used,
//! and every value is escaped for the medium that it goes into.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use jiff::Timestamp;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use crate::journey::Name;
use crate::journey::token::Token;

/// Names that every template may use.
pub const BUILT_IN: &[&str] = &["token", "trace_id", "run", "journey"];
/// Functions that every template may call.
pub const FUNCTIONS: &[&str] = &["uuid", "now", "digits"];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_recursion_limit(20);
    environment.add_function("uuid", |state: &State| with_chance(state, |chance| uuid(chance.u128(..))));
    environment.add_function("now", |state: &State| {
        state.lookup("__now").ok_or_else(|| Error::new(ErrorKind::UndefinedError, "no time in this scope"))
    });
    environment.add_function("digits", |state: &State, count: usize| {
        if count == 0 || count > 64 {
            return Err(Error::new(ErrorKind::InvalidOperation, "digits takes 1 to 64"));
        }
        with_chance(state, |chance| (0..count).map(|_| char::from(b'0' + chance.u8(0..10))).collect::<String>())
    });
    environment
});

/// Where a rendered value goes, which decides how it is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Nothing to escape: a text body, or a place that a serialiser escapes by itself (JSON and form values).
    Plain,
    /// A path segment or query part of a URL: all but unreserved characters percent-encoded (RFC 3986 section 2.3).
    Url,
    /// A header value: control characters, which could start a new header, become spaces.
    Header,
}

/// A compiled template.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    parts: Arc<[Part]>,
}

enum Part {
    Literal(String),
    /// A bare name: looked up without the expression engine.
    Name(String),
    Expression(minijinja::Expression<'static, 'static>),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("`{{{{` without a closing `}}}}`")]
    Unclosed,
    /// Not an expression.
    #[error("{0}")]
    Syntax(String),
    /// Uses a name that nothing gives a value to.
    #[error("nothing named `{name}` is known here")]
    UnknownName {
        /// The name.
        name: String,
    },
}

impl Template {
    /// Compiles `source`. `known` are the captures that earlier steps make, beside [`BUILT_IN`].
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(source: &str, known: &BTreeSet<String>) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((literal, after)) = rest.split_once("{{") {
            let (inside, tail) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(expression(inside.trim(), known)?);
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Template { source: source.into(), parts: parts.into() })
    }

    /// A template that is just this text.
    pub fn literal(text: &str) -> Template {
        Template { source: text.into(), parts: [Part::Literal(text.to_owned())].into() }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is text without any expression.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// The text, with every expression's value in it.
    ///
    /// # Errors
    /// What the expression engine says: a call that cannot be made, or an operation on the wrong kind of value.
    pub fn render(&self, scope: &Scope, medium: Medium) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(self.source.len() + 32);
        for part in self.parts.iter() {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Name(name) => match scope.value(name) {
                    Some(value) => escape(&value, medium, &mut out),
                    None => return Err(TemplateError::UnknownName { name: name.clone() }),
                },
                Part::Expression(expression) => {
                    let value =
                        expression.eval(scope.context()).map_err(|error| TemplateError::Syntax(describe(&error)))?;
                    escape(&value.to_string(), medium, &mut out);
                }
            }
        }
        Ok(out)
    }

    /// Whether the rendered text is a yes: anything but empty, `false` and `0`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn holds(&self, scope: &Scope) -> Result<bool, TemplateError> {
        let text = self.render(scope, Medium::Plain)?;
        Ok(!matches!(text.trim(), "" | "false" | "False" | "0"))
    }
}

fn expression(text: &str, known: &BTreeSet<String>) -> Result<Part, TemplateError> {
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let compiled = ENVIRONMENT
        .compile_expression_owned(text.to_owned())
        .map_err(|error| TemplateError::Syntax(describe(&error)))?;
    let is_known = |name: &str| BUILT_IN.contains(&name) || known.contains(name);
    let mut names: Vec<_> = compiled.undeclared_variables(false).into_iter().collect();
    names.sort();
    if let Some(name) = names.into_iter().find(|name| !is_known(name) && !FUNCTIONS.contains(&name.as_str())) {
        return Err(TemplateError::UnknownName { name });
    }
    if is_name && is_known(text) { Ok(Part::Name(text.to_owned())) } else { Ok(Part::Expression(compiled)) }
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}

fn escape(value: &str, medium: Medium, out: &mut String) {
    match medium {
        Medium::Plain => out.push_str(value),
        Medium::Header => out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c })),
        Medium::Url => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// What the templates of one run see. It lives as long as its run, most of which is waiting: what can be made again is not kept.
#[derive(Clone)]
pub struct Scope {
    token: Token,
    journey: Name,
    captures: BTreeMap<String, String>,
    now: Timestamp,
    chance: Arc<Chance>,
}

impl Scope {
    /// The scope of `journey`'s run with this token; `seed` decides what `uuid()` and `digits()` give.
    pub fn new(token: Token, journey: Name, now: Timestamp, seed: u64) -> Scope {
        let chance = Arc::new(Chance(Mutex::new(fastrand::Rng::with_seed(seed))));
        Scope { token, journey, captures: BTreeMap::new(), now, chance }
    }

    /// The scope with these captures, as they were taken before.
    pub fn with_captures(self, captures: BTreeMap<String, String>) -> Scope {
        Scope { captures, ..self }
    }

    /// What was captured so far, by name.
    pub fn captures(&self) -> &BTreeMap<String, String> {
        &self.captures
    }

    /// When the run was made.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Gives `name` a value from here on.
    pub fn set(&mut self, name: &str, value: String) {
        self.captures.insert(name.to_owned(), value);
    }

    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(captured) = self.captures.get(name) {
            return Some(captured.into());
        }
        match name {
            "token" | "run" => Some(self.token.to_string().into()),
            "trace_id" => Some(self.token.trace_id().into()),
            "journey" => Some(Cow::Borrowed(&self.journey)),
            _ => None,
        }
    }

    fn context(&self) -> Value {
        let names = BUILT_IN.iter().copied().chain(self.captures.keys().map(String::as_str));
        let mut context: BTreeMap<String, Value> =
            names.filter_map(|name| Some((name.to_owned(), Value::from(&*self.value(name)?)))).collect();
        context.insert("__now".to_owned(), Value::from(self.now.to_string()));
        context.insert("__chance".to_owned(), Value::from_dyn_object(self.chance.clone()));
        Value::from(context)
    }
}

#[derive(Debug)]
struct Chance(Mutex<fastrand::Rng>);

impl minijinja::value::Object for Chance {}

fn with_chance<T>(state: &State, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> Result<T, Error> {
    let value =
        state.lookup("__chance").ok_or_else(|| Error::new(ErrorKind::UndefinedError, "no chance in this scope"))?;
    let chance = value.downcast_object_ref::<Chance>().ok_or_else(|| Error::from(ErrorKind::InvalidOperation))?;
    let mut random = chance.0.lock().expect("drawing a number does not panic");
    Ok(draw(&mut random))
}

/// A version 4 UUID (RFC 9562 section 5.4) with these random bits.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope::new(Token::from_bits(1), "sms".into(), "2026-11-21T07:00:00Z".parse().unwrap(), 1)
    }

    fn parse(source: &str) -> Result<Template, TemplateError> {
        Template::parse(source, &BTreeSet::from(["sid".to_owned()]))
    }

    #[test]
    fn names_expressions_and_functions_render() {
        let mut scope = scope();
        scope.set("sid", "a/b c".to_owned());
        let render = |source: &str, medium| parse(source).unwrap().render(&scope, medium).unwrap();
        assert_eq!(
            render("probe {{ token }} for {{journey}}", Medium::Plain),
            format!("probe {} for sms", Token::from_bits(1))
        );
        assert_eq!(render("/{{ sid }}?x=1", Medium::Url), "/a%2Fb%20c?x=1");
        assert_eq!(render("{{ journey | upper }}", Medium::Plain), "SMS");
        assert_eq!(render("{{ run }}", Medium::Plain), render("{{ token | lower }}", Medium::Plain));
        assert_eq!(render("{{ trace_id }}", Medium::Plain), Token::from_bits(1).trace_id());
        assert_eq!(render("{{ now() }}", Medium::Plain), "2026-11-21T07:00:00Z");
        assert_eq!(render("{{ digits(6) }}", Medium::Plain).len(), 6);
        let (first, second) = (render("{{ uuid() }}", Medium::Plain), render("{{ uuid() }}", Medium::Plain));
        assert_ne!(first, second);
        assert_eq!(&first[14..15], "4");
    }

    #[test]
    fn a_header_value_cannot_start_another_header() {
        let mut scope = scope();
        scope.set("sid", "x\r\nX-Evil: 1".to_owned());
        let text = parse("{{ sid }}").unwrap().render(&scope, Medium::Header).unwrap();
        assert_eq!(text, "x  X-Evil: 1");
    }

    #[test]
    fn what_names_nothing_is_refused_at_once() {
        assert_eq!(parse("{{ tokn }}").unwrap_err(), TemplateError::UnknownName { name: "tokn".to_owned() });
        assert_eq!(parse("{{ token ").unwrap_err(), TemplateError::Unclosed);
        assert!(matches!(parse("{{ 1 + }}").unwrap_err(), TemplateError::Syntax(_)));
        assert!(parse("{{ }}").is_err());
        assert!(parse("no braces } { at all").unwrap().is_literal());
    }

    #[test]
    fn conditions_hold_or_do_not() {
        let holds = |source: &str| parse(source).unwrap().holds(&scope()).unwrap();
        assert!(holds("{{ journey == 'sms' }}"));
        assert!(!holds("{{ journey == 'mail' }}"));
        assert!(!holds(""));
    }
}
