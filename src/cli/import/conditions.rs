//! Gatus' conditions as expectations: `[BODY].status == any(UP, OK)` (<https://github.com/TwiN/gatus#conditions>).
//!
//! Gatus compares what looks alike, Journeyman only what is of one kind: where a value may be either, both are accepted.

use crate::cli::import::document::{duration, plain, quoted};

/// What the endpoint is, which decides what `[BODY]` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Web,
    Connection,
    Dns,
}

/// The response codes of DNS that people write (RFC 1035, 2136).
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// The code of a name.
pub(super) fn rcode(name: &str) -> Option<usize> {
    RCODES.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// The expectations that say the same; none for what every run proves by itself.
///
/// # Errors
/// Why it cannot be said.
pub(super) fn expectations(condition: &str, medium: Medium) -> Result<Vec<String>, String> {
    const SIGNS: [(&str, &str); 6] = [
        ("==", "equals"),
        ("!=", "not_equals"),
        ("<=", "at_most"),
        (">=", "at_least"),
        ("<", "less_than"),
        (">", "greater_than"),
    ];
    let found = SIGNS.iter().find_map(|(sign, name)| {
        let (left, right) = condition.split_once(&format!(" {sign} "))?;
        Some((left.trim(), *name, right.trim()))
    });
    let Some((left, predicate, right)) = found else {
        return Err("it compares nothing that is known".to_owned());
    };
    match left {
        "[CONNECTED]" if (predicate, right) == ("equals", "true") => Ok(Vec::new()),
        "[STATUS]" if medium == Medium::Web => number("status", predicate, right),
        "[RESPONSE_TIME]" => {
            let time = duration(&format!("{right}ms")).ok_or("the time is no whole number of milliseconds")?;
            Ok(vec![format!("{{ latency = {{ {predicate} = {} }} }}", quoted(&time))])
        }
        "[CERTIFICATE_EXPIRATION]" => {
            let time = duration(right).ok_or_else(|| format!("`{right}` is no duration of whole numbers"))?;
            Ok(vec![format!("{{ certificate_expires_in = {{ {predicate} = {} }} }}", quoted(&time))])
        }
        "[DNS_RCODE]" if matches!(predicate, "equals" | "not_equals") => {
            let code = rcode(right).ok_or_else(|| format!("`{right}` is no known response code"))?;
            Ok(vec![format!("{{ status = {{ {predicate} = {code} }} }}")])
        }
        "[BODY]" if medium == Medium::Dns => match predicate {
            "equals" if !right.contains('(') => Ok(vec![format!("{{ value = {{ contains = {} }} }}", plain(right))]),
            _ => Err("of an answer only a record that must be in it can be expected".to_owned()),
        },
        _ if medium != Medium::Web => Err("there is no such thing at this kind of endpoint".to_owned()),
        "[BODY]" => value("{ body = {", " } }", predicate, right, true),
        _ => of_json(left, predicate, right),
    }
}

fn of_json(left: &str, predicate: &str, right: &str) -> Result<Vec<String>, String> {
    let argument = |function: &str| left.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(inner) = argument("has") {
        let is_there = match (predicate, right) {
            ("equals", "true") | ("not_equals", "false") => true,
            ("equals", "false") | ("not_equals", "true") => false,
            _ => return Err("`has` is compared with true or false".to_owned()),
        };
        return Ok(vec![format!("{{ json = {}, exists = {is_there} }}", quoted(&path(inner)?))]);
    }
    if let Some(inner) = argument("len") {
        return length(&path(inner)?, predicate, right);
    }
    let begin = format!("{{ json = {},", quoted(&path(left)?));
    value(&begin, " }", predicate, right, false)
}

/// How long a list is, by whether its members are there.
fn length(path: &str, predicate: &str, right: &str) -> Result<Vec<String>, String> {
    let length: usize = right.parse().map_err(|_| "a length is a whole number".to_owned())?;
    let member = |index: usize, is_there: bool| {
        format!("{{ json = {}, exists = {is_there} }}", quoted(&format!("{path}[{index}]")))
    };
    Ok(match (predicate, length) {
        ("equals", 0) => vec![member(0, false)],
        ("equals", length) => vec![member(length - 1, true), member(length, false)],
        ("greater_than", length) => vec![member(length, true)],
        ("at_least", 1..) => vec![member(length - 1, true)],
        ("less_than", 1..) => vec![member(length - 1, false)],
        ("at_most", length) => vec![member(length, false)],
        _ => return Err("a list is never as long as that says".to_owned()),
    })
}

/// `[BODY].a.b[0]` as a JSONPath.
fn path(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("[BODY]").ok_or_else(|| format!("`{text}` cannot be looked at"))?;
    let mut path = String::from("$");
    for part in rest.split('.').filter(|part| !part.is_empty()) {
        let (name, index) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        let is_word =
            name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
        match (name, is_word) {
            ("", _) => {}
            (name, true) => path += &format!(".{name}"),
            (name, false) => path += &format!("['{}']", name.replace('\\', "\\\\").replace('\'', "\\'")),
        }
        path += index;
    }
    Ok(path)
}

fn number(query: &str, predicate: &str, right: &str) -> Result<Vec<String>, String> {
    if let Some(choices) = any(right) {
        let are_numbers = choices.iter().all(|choice| choice.parse::<u32>().is_ok());
        return match predicate {
            "equals" if are_numbers => Ok(vec![format!("{{ {query} = {{ one_of = [{}] }} }}", choices.join(", "))]),
            _ => Err("only numbers that it equals can be chosen among".to_owned()),
        };
    }
    right.parse::<u32>().map_err(|_| format!("`{right}` is no number"))?;
    Ok(vec![format!("{{ {query} = {{ {predicate} = {right} }} }}")])
}

/// A comparison with a value, a pattern, or several. Text alone is `is_text`; the rest may be a number as well.
fn value(begin: &str, end: &str, predicate: &str, right: &str, is_text: bool) -> Result<Vec<String>, String> {
    let one =
        |text: &str| if is_text || !is_bare(text) { vec![plain(text)] } else { vec![text.to_owned(), plain(text)] };
    if let Some(pattern) = right.strip_prefix("pat(").and_then(|rest| rest.strip_suffix(')')) {
        return match predicate {
            "equals" => Ok(vec![format!("{begin} matches = {}{end}", quoted(&glob(pattern)))]),
            _ => Err("that a pattern does not occur cannot be expected of this".to_owned()),
        };
    }
    let choices = match any(right) {
        Some(choices) if choices.iter().any(|choice| choice.starts_with("pat(")) => {
            return Err("a choice among patterns cannot be expected".to_owned());
        }
        Some(choices) => choices.iter().flat_map(|choice| one(choice)).collect(),
        None => one(right),
    };
    match (predicate, choices.as_slice()) {
        ("equals" | "not_equals", [only]) => Ok(vec![format!("{begin} {predicate} = {only}{end}")]),
        ("equals", several) => Ok(vec![format!("{begin} one_of = [{}]{end}", several.join(", "))]),
        ("not_equals", several) => {
            Ok(several.iter().map(|other| format!("{begin} not_equals = {other}{end}")).collect())
        }
        (_, [number, _]) if !is_text => Ok(vec![format!("{begin} {predicate} = {number}{end}")]),
        _ => Err("only numbers have an order".to_owned()),
    }
}

fn any(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix("any(")?.strip_suffix(')')?;
    Some(inner.split(',').map(|choice| choice.trim().to_owned()).collect())
}

/// Whether TOML has it without quotes.
fn is_bare(text: &str) -> bool {
    matches!(text, "true" | "false")
        || text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
        || text.contains('.') && text.parse::<f64>().is_ok_and(|number| number.to_string() == text)
}

/// A glob as a regular expression for all of the text.
fn glob(pattern: &str) -> String {
    let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
    format!("(?s)^{}$", parts.join(".*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_expectations() {
        let one = |condition: &str, medium| expectations(condition, medium).unwrap().join(", ");
        for (condition, expected) in [
            ("[STATUS] == 200", "{ status = { equals = 200 } }"),
            ("[STATUS] < 300", "{ status = { less_than = 300 } }"),
            ("[STATUS] == any(200, 429)", "{ status = { one_of = [200, 429] } }"),
            ("[CONNECTED] == true", ""),
            ("[RESPONSE_TIME] < 500", "{ latency = { less_than = \"500ms\" } }"),
            ("[CERTIFICATE_EXPIRATION] > 48h", "{ certificate_expires_in = { greater_than = \"48h\" } }"),
            ("[BODY].status == UP", "{ json = \"$.status\", equals = \"UP\" }"),
            ("[BODY].n == 5", "{ json = \"$.n\", one_of = [5, \"5\"] }"),
            ("[BODY].n != 5", "{ json = \"$.n\", not_equals = 5 }, { json = \"$.n\", not_equals = \"5\" }"),
            ("[BODY].n >= 1.5", "{ json = \"$.n\", at_least = 1.5 }"),
            ("[BODY].a-b[0].id == any(x, 007)", "{ json = \"$['a-b'][0].id\", one_of = [\"x\", \"007\"] }"),
            ("[BODY].name == pat(john*)", "{ json = \"$.name\", matches = \"(?s)^john.*$\" }"),
            ("[BODY] == pat(*a.b*)", "{ body = { matches = \"(?s)^.*a\\\\.b.*$\" } }"),
            ("[BODY] == 5", "{ body = { equals = \"5\" } }"),
            ("has([BODY].errors) == false", "{ json = \"$.errors\", exists = false }"),
            ("len([BODY].x) == 2", "{ json = \"$.x[1]\", exists = true }, { json = \"$.x[2]\", exists = false }"),
            ("len([BODY]) > 0", "{ json = \"$[0]\", exists = true }"),
            ("len([BODY].x) == 0", "{ json = \"$.x[0]\", exists = false }"),
        ] {
            assert_eq!(one(condition, Medium::Web), expected, "{condition}");
        }
        assert_eq!(one("[DNS_RCODE] == NXDOMAIN", Medium::Dns), "{ status = { equals = 3 } }");
        assert_eq!(one("[BODY] == 192.0.2.1", Medium::Dns), "{ value = { contains = \"192.0.2.1\" } }");
    }

    #[test]
    fn what_cannot_be_said_is_not_said_otherwise() {
        for (condition, medium) in [
            ("[IP] == 127.0.0.1", Medium::Web),
            ("[DOMAIN_EXPIRATION] > 720h", Medium::Web),
            ("[CONNECTED] == false", Medium::Web),
            ("[STATUS] == 200", Medium::Connection),
            ("[STATUS] == ok", Medium::Web),
            ("[BODY].name != pat(x*)", Medium::Web),
            ("[BODY].name > abc", Medium::Web),
            ("[BODY].name == any(pat(a*), b)", Medium::Web),
            ("[CERTIFICATE_EXPIRATION] > 0.5h", Medium::Web),
            ("[STATUS]", Medium::Web),
            ("len([BODY].x) < 0", Medium::Web),
            ("[BODY] != 192.0.2.1", Medium::Dns),
        ] {
            assert!(expectations(condition, medium).is_err(), "{condition}");
        }
    }
}
