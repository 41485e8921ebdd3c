//! The schemas, made of the tables of the reference. They keep to what editors know of every draft since 7.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::channel::KINDS;
use crate::config::{daemon, steps};

/// A row of a table of keys.
#[derive(Clone, Debug)]
struct Row {
    key: String,
    kind: String,
    default: String,
    meaning: String,
}

/// The tables of a page, by their headings.
struct Page(BTreeMap<String, Vec<Row>>);

impl Page {
    fn read(path: &str) -> Page {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        let mut heading = String::new();
        for line in text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` |")) {
                let cells: Vec<_> = rest.trim_end_matches('|').split('|').map(str::trim).collect();
                if let [kind, default, meaning] = cells[..] {
                    let [key, kind, default, meaning] = [key, kind, default, meaning].map(str::to_owned);
                    tables.entry(heading.clone()).or_default().push(Row { key, kind, default, meaning });
                }
            }
        }
        Page(tables)
    }

    fn rows(&self, heading: &str) -> &[Row] {
        self.0.get(heading).map_or(&[], Vec::as_slice)
    }
}

/// Where a row stands decides what some words mean there.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    /// In the daemon's own tables: what is required there must be there.
    Daemon,
    /// In a journey, which may have the rest from elsewhere.
    Journey,
    /// Among the keys of a step that only one kind of channel knows: templates may be numbers there.
    Field,
}

fn any_of(shapes: &[Value]) -> Value {
    if let [one] = shapes { one.clone() } else { json!({ "anyOf": shapes }) }
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn list_of(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn table_of(value: Value) -> Value {
    json!({ "type": "object", "additionalProperties": value })
}

/// What a value of this type looks like. A table's keys stand in `tables`, under the row's own key.
fn shape(row: &Row, at: Where, tables: &dyn Fn(&str) -> Option<Value>) -> Value {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new("`\"?([^`\"]+)\"?`").unwrap());
    let text = json!({ "type": "string" });
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    let kind = row.kind.as_str();
    if kind.starts_with('`') {
        let words: Vec<_> = WORD.captures_iter(kind).map(|word| word[1].to_owned()).collect();
        return json!({ "enum": words });
    }
    let found = |name: &str| tables(name).unwrap_or_else(|| panic!("nobody knows the keys of `{}`", row.key));
    match kind {
        "template" if at == Where::Field && !["method", "path"].contains(&row.key.as_str()) => scalar,
        "boolean" | "true or false" => json!({ "type": "boolean" }),
        "whole number" | "integer" | "status" => json!({ "type": "integer", "minimum": 0 }),
        "0, 1, 2" => json!({ "enum": [0, 1, 2] }),
        "decimal number" => json!({ "type": "number" }),
        "any value" | "value" => json!({}),
        "duration" | "share" | "rate" | "size" | "secret" => refer(kind),
        "URL or secret" | "string or secret" => refer("secret"),
        "string or variable" => any_of(&[
            text,
            json!({
                "type": "object", "additionalProperties": false, "required": ["env"],
                "properties": { "env": { "type": "string", "description": "the name of an environment variable" } },
            }),
        ]),
        "duration, or `\"never\"`" | "duration or `\"never\"`" => {
            any_of(&[refer("duration"), json!({ "const": "never" })])
        }
        "list of durations" => list_of(refer("duration")),
        "list of secrets" | "list of URLs or secrets" | "list of strings or secrets" => list_of(refer("secret")),
        "list of values" => json!({ "type": "array", "minItems": 1 }),
        "list of days, or a range" => any_of(&[list_of(text.clone()), text]),
        "list of [expectations](#expectations)" => list_of(refer("expectation")),
        "[query](#expectations)" => refer("query"),
        "table of [queries](#expectations)" => table_of(refer("query")),
        "table of strings" => table_of(text),
        "table of strings or secrets" => table_of(refer("secret")),
        "table of templates" => table_of(scalar),
        "table of lists" => table_of(list_of(json!({ "type": ["string", "integer", "boolean"] }))),
        "table" => found(&row.key),
        "list of tables" => list_of(found(&row.key)),
        "tables by name" => table_of(found(&row.key)),
        _ if kind.starts_with("[table](#") => found(kind.trim_start_matches("[table](#").trim_end_matches(')')),
        _ if kind.starts_with("list of [tables](#") => list_of(found(&row.key)),
        _ if kind == "list" || kind.starts_with("list of ") => list_of(text),
        _ => {
            const TEXTS: &[&str] = &[
                "string",
                "template",
                "path",
                "URL",
                "URL or path",
                "IP address",
                "IP address and port",
                "host and port",
                "host, with a port if it is not 443",
                "name",
                "cron expression",
                "IANA zone",
                "date and time",
                "date",
                "time of day",
                "pattern",
                "regular expression",
                "address",
                "SQL",
                "ARN",
                "text",
                "path, for Slack template",
                "name of a channel, or an `http(s)://` template",
            ];
            let is_text = TEXTS.contains(&kind) || kind.starts_with("name of a ");
            assert!(is_text, "nobody knows what a `{kind}` is (`{}`)", row.key);
            text
        }
    }
}

/// Meaning and default, as an editor shows them.
fn described(row: &Row, mut shape: Value) -> Value {
    static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[([^\]]+)\]\([^)]*\)").unwrap());
    let plain = |text: &str| LINK.replace_all(text, "$1").replace('`', "");
    let meaning = plain(&row.meaning);
    let default = match row.default.as_str() {
        "" | "none" | "required" => String::new(),
        default if default.starts_with("required") || default.starts_with("one of") => format!(" ({})", plain(default)),
        default => format!(" (default: {})", plain(default)),
    };
    shape["description"] = json!(format!("{meaning}{default}"));
    shape
}

/// A closed table of these rows.
fn table(rows: &[Row], at: Where, tables: &dyn Fn(&str) -> Option<Value>) -> Value {
    assert!(!rows.is_empty(), "a table of the reference is gone");
    let properties: Map<_, _> =
        rows.iter().map(|row| (row.key.clone(), described(row, shape(row, at, tables)))).collect();
    let required: Vec<_> =
        rows.iter().filter(|row| at == Where::Daemon && row.default == "required").map(|row| &row.key).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

fn none(_: &str) -> Option<Value> {
    None
}

/// Tables of several kinds in one place: the key `type` tells them apart. Completion needs all keys in one table.
fn by_type(kinds: &[(String, Value)]) -> Value {
    let mut union = Map::new();
    for (kind, table) in kinds {
        for (key, shape) in table["properties"].as_object().unwrap() {
            let told = shape["description"].as_str().unwrap_or_default();
            let entry = union.entry(key.clone()).or_insert_with(|| json!({ "description": "" }));
            let before = entry["description"].as_str().unwrap_or_default().to_owned();
            let is_there = before.contains(told);
            let line = if key == "type" || is_there { String::new() } else { format!("{kind}: {told}\n") };
            entry["description"] = json!(if key == "type" { told.to_owned() } else { before + &line });
        }
    }
    let names: Vec<_> = kinds.iter().map(|(kind, _)| kind).collect();
    union["type"]["enum"] = json!(names);
    let branches: Vec<_> = kinds
        .iter()
        .map(|(kind, table)| {
            let mut then = table.clone();
            // What they mean is said above.
            without_descriptions(&mut then);
            then["properties"]["type"] = json!(true);
            json!({ "if": { "required": ["type"], "properties": { "type": { "const": kind } } }, "then": then })
        })
        .collect();
    json!({ "type": "object", "required": ["type"], "properties": union, "allOf": branches })
}

fn without_descriptions(schema: &mut Value) {
    let Some(entries) = schema.as_object_mut() else { return };
    if let Some(properties) = entries.get_mut("properties").and_then(Value::as_object_mut) {
        for shape in properties.values_mut() {
            shape.as_object_mut().map(|shape| shape.remove("description"));
        }
    }
}

/// Every kind of channel with its page.
fn pages() -> Vec<(&'static str, Page)> {
    KINDS.iter().map(|kind| (kind.name, Page::read(&format!("docs/channels/{}.md", kind.name)))).collect()
}

fn channels(reference: &Page, pages: &[(&'static str, Page)]) -> Value {
    let kinds: Vec<_> = pages
        .iter()
        .map(|(name, page)| {
            let tables = |key: &str| match key {
                "bind" => Some(json!({
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["exchange"],
                    "properties": { "exchange": { "type": "string" }, "routing_key": { "type": "string" } },
                })),
                "spend" => Some(refer("spend")),
                _ => None,
            };
            let inner = |key: &str| match page.rows(key) {
                [] => tables(key),
                rows => Some(table(rows, Where::Daemon, &tables)),
            };
            let rows = [reference.rows("Channels"), page.rows("Keys")].concat();
            ((*name).to_owned(), table(&rows, Where::Daemon, &inner))
        })
        .collect();
    by_type(&kinds)
}

fn notifiers(reference: &Page) -> Value {
    let kinds: Vec<_> = ["slack", "email", "webhook", "pagerduty", "alertmanager"]
        .into_iter()
        .map(|name| {
            // A Slack message has a headline of its own, and nothing else.
            let is_its = |row: &&Row| name != "slack" || row.key == "text";
            let template: Vec<_> = reference.rows("template").iter().filter(is_its).cloned().collect();
            let inner = |_: &str| Some(table(&template, Where::Daemon, &none));
            let rows = [reference.rows("Notifiers"), reference.rows(&format!("{name} notifier"))].concat();
            (name.to_owned(), table(&rows, Where::Daemon, &inner))
        })
        .collect();
    by_type(&kinds)
}

fn expectation(reference: &Page) -> Value {
    let predicates = table(reference.rows("Predicates"), Where::Journey, &none);
    let mut properties = predicates["properties"].as_object().unwrap().clone();
    let over = |row: &&Row| row.key == "over";
    let rows = reference.rows("Queries");
    let over: Vec<_> = rows.iter().filter(over).cloned().collect();
    let over = table(&over, Where::Journey, &none)["properties"]["over"].clone();
    properties.insert("over".to_owned(), over.clone());
    for row in rows.iter().filter(|row| row.key != "over") {
        let shape = match found(&row.kind) {
            None => json!({ "type": "string" }),
            Some(value) => {
                // Nothing is coerced: what it is compared with is of the kind that it finds.
                let judge = |row: &Row| match row.kind.as_str() {
                    "value" => value.clone(),
                    "list of values" => json!({ "type": "array", "minItems": 1, "items": value }),
                    _ => shape(row, Where::Journey, &none),
                };
                let rows = reference.rows("Predicates").iter();
                let mut inner: Map<_, _> = rows.map(|row| (row.key.clone(), described(row, judge(row)))).collect();
                if row.key == "growth" {
                    inner.insert("over".to_owned(), over.clone());
                }
                let inner = json!({ "type": "object", "additionalProperties": false, "properties": inner });
                if row.key == "growth" { inner } else { any_of(&[value, inner]) }
            }
        };
        properties.insert(row.key.clone(), described(row, shape));
    }
    json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "properties": properties })
}

/// What a query finds, if it has no argument.
fn found(kind: &str) -> Option<Value> {
    Some(match kind {
        "finds a number" => json!({ "type": "number" }),
        "finds a duration" => refer("duration"),
        "finds a number or a duration" => any_of(&[json!({ "type": "number" }), refer("duration")]),
        "finds a rate" => refer("rate"),
        "finds a boolean" => json!({ "type": "boolean" }),
        "finds text" => json!({ "type": "string" }),
        "finds anything" => json!({ "type": ["string", "number", "boolean", "array"] }),
        kind => {
            assert!(!kind.starts_with("finds"), "nobody knows what `{kind}` is");
            return None;
        }
    })
}

fn query(reference: &Page) -> Value {
    let rows = reference.rows("Queries").iter().filter(|row| !["over", "growth"].contains(&row.key.as_str()));
    let properties: Map<_, _> = rows
        .map(|row| {
            let has_argument = !row.kind.starts_with("finds");
            let shape = if has_argument { json!({ "type": "string" }) } else { json!({ "const": true }) };
            (row.key.clone(), described(row, shape))
        })
        .collect();
    json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": properties })
}

/// A step. Which channel a name stands for is not known here, so the keys of all kinds pass; the verb decides which of them.
fn step(reference: &Page, pages: &[(&'static str, Page)]) -> Value {
    let inner = |key: &str| match key {
        "poll" => Some(table(reference.rows("poll"), Where::Daemon, &none)),
        _ => None,
    };
    let own = |heading: &str| table(reference.rows(heading), Where::Journey, &inner)["properties"].clone();
    let fields = |heading: &str| {
        let mut all: BTreeMap<String, Vec<(Value, String)>> = BTreeMap::new();
        for (kind, page) in pages {
            for row in page.rows(heading) {
                let shape = shape(row, Where::Field, &none);
                let told = described(row, json!({}))["description"].as_str().unwrap_or_default().to_owned();
                all.entry(row.key.clone()).or_default().push((shape, format!("{kind}: {told}")));
            }
        }
        all
    };
    let mut properties: BTreeMap<String, Vec<(Value, String)>> = BTreeMap::new();
    let mut add = |from: Value| {
        for (key, mut shape) in from.as_object().unwrap().clone() {
            let told = shape.as_object_mut().and_then(|shape| shape.remove("description"));
            let told = told.and_then(|told| told.as_str().map(str::to_owned)).unwrap_or_default();
            let entries = properties.entry(key).or_default();
            if !entries.iter().any(|(other, words)| *other == shape && *words == told) {
                entries.push((shape, told));
            }
        }
    };
    let headings = ["Steps", "send and request", "receive", "check and exec"];
    headings.into_iter().map(own).for_each(&mut add);
    let (sent, checked) = (fields("Step keys"), fields("Check keys"));
    for (key, entries) in sent.iter().chain(&checked) {
        properties.entry(key.clone()).or_default().extend(entries.iter().cloned());
    }
    let properties: Map<_, _> = properties
        .into_iter()
        .map(|(key, entries)| {
            let mut shapes: Vec<Value> = Vec::new();
            entries.iter().for_each(|(shape, _)| {
                if !shapes.contains(shape) {
                    shapes.push(shape.clone())
                }
            });
            let told: BTreeSet<_> = entries.into_iter().map(|(_, told)| told).collect();
            let mut shape = any_of(&shapes);
            shape["description"] = json!(told.into_iter().collect::<Vec<_>>().join("\n"));
            (key, shape)
        })
        .collect();
    let keys = |verb: &str| {
        let own: &[&str] = match verb {
            "send" | "request" => steps::MESSAGE_KEYS,
            "receive" => steps::RECEIVE_KEYS,
            "check" => steps::CHECK_KEYS,
            "exec" => steps::EXEC_KEYS,
            _ => &[],
        };
        let mut keys: BTreeSet<String> =
            [verb].iter().chain(own).chain(steps::COMMON_KEYS).map(|key| (*key).to_owned()).collect();
        match verb {
            "send" | "request" => {
                keys.extend(sent.keys().cloned());
                keys.insert("headers".to_owned());
                keys.extend((verb == "request").then(|| "poll".to_owned()));
            }
            "check" => keys.extend(checked.keys().cloned()),
            _ => {}
        }
        keys
    };
    let branches: Vec<_> = steps::VERBS
        .iter()
        .map(|verb| json!({ "if": { "required": [verb] }, "then": { "propertyNames": { "enum": keys(verb) } } }))
        .collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "allOf": branches })
}

/// Keys that journeys and steps share have both shapes in a fragment.
fn fragment(journey: &Value, step: &Value) -> Value {
    let mut properties = journey["properties"].as_object().unwrap().clone();
    for (key, shape) in step["properties"].as_object().unwrap() {
        let shape = match properties.get(key) {
            Some(other) if other != shape => any_of(&[other.clone(), shape.clone()]),
            _ => shape.clone(),
        };
        properties.insert(key.clone(), shape);
    }
    for nested in ["use", "name"] {
        properties.remove(nested);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn definitions(reference: &Page, pages: &[(&'static str, Page)]) -> Map<String, Value> {
    // A matrix may fill in any string of a journey.
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("{pattern}|\\{{\\{{") });
    let secret = table(reference.rows("Secrets"), Where::Journey, &none)["properties"].clone();
    let journeys = |key: &str| match key {
        "step" => Some(refer("step")),
        "objective" | "alert" => Some(table(reference.rows(key), Where::Journey, &none)),
        _ => None,
    };
    let mut journey = table(reference.rows("Journeys"), Where::Journey, &journeys);
    let step = step(reference, pages);
    let fragment = fragment(&journey, &step);
    journey["required"] = json!(["name"]);
    let definitions = [
        ("duration", text(r"^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$")),
        ("share", text(r"^[0-9][0-9.]*\s*%$")),
        ("rate", text(r"^\s*[0-9.]+\s*/\s*(s|min|h|d)\s*$")),
        ("size", any_of(&[json!({ "type": "integer", "minimum": 0 }), text(r"^[0-9]+\s*(B|kB|KiB|MB|MiB)$")])),
        (
            "secret",
            json!({ "anyOf": [
            { "type": "string" },
            { "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1, "properties": secret },
        ] }),
        ),
        ("spend", table(reference.rows("spend"), Where::Journey, &none)),
        ("expectation", expectation(reference)),
        ("query", query(reference)),
        ("step", step),
        ("journey", journey),
        ("fragment", fragment),
    ];
    definitions.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

/// A whole schema.
fn document(title: &str, root: Value, definitions: &Map<String, Value>) -> String {
    let mut schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title });
    let schema = schema.as_object_mut().unwrap();
    schema.extend(root.as_object().unwrap().clone());
    schema.insert("$defs".to_owned(), json!(definitions));
    format!("{:#}\n", json!(schema))
}

/// The schema of the daemon's file, and that of probe files.
fn generated() -> [(&'static str, String); 2] {
    let reference = Page::read("docs/configuration.md");
    let pages = pages();
    let common = definitions(&reference, &pages);
    let inner = |key: &str| {
        let nested = |key: &str| match key {
            "hours" | "escalate" | "component" => Some(table(reference.rows(key), Where::Daemon, &none)),
            _ => None,
        };
        Some(match key {
            "defaults" => {
                let mut defaults = common["journey"].clone();
                for own in ["name", "step", "matrix", "use"] {
                    defaults["properties"].as_object_mut().unwrap().remove(own);
                }
                defaults.as_object_mut().unwrap().remove("required");
                defaults
            }
            "fragment" | "journey" => refer(key),
            "channels" => refer("channel"),
            "notifiers" => refer("notifier"),
            _ => table(reference.rows(key), Where::Daemon, &nested),
        })
    };
    let root = table(reference.rows("The daemon's file"), Where::Daemon, &inner);
    let mut all = common.clone();
    all.insert("channel".to_owned(), channels(&reference, &pages));
    all.insert("notifier".to_owned(), notifiers(&reference));
    let mut probes = root.clone();
    probes["properties"].as_object_mut().unwrap().retain(|key, _| daemon::PROBE_KEYS.contains(&key.as_str()));
    let defined: Map<_, _> =
        common.into_iter().filter(|(name, _)| !["secret", "size", "spend"].contains(&name.as_str())).collect();
    [
        ("config/journeyman.schema.json", document("Journeyman: the daemon's file", root, &all)),
        ("config/probes.schema.json", document("Journeyman: a probe file", probes, &defined)),
    ]
}

#[test]
fn the_schemas_say_what_the_reference_says() {
    let mut are_same = true;
    for (path, schema) in generated() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        if written != schema && std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &schema).unwrap();
        } else {
            are_same &= written == schema;
        }
    }
    assert!(are_same, "UPDATE_EXPECT=1 writes the schemas anew");
}
