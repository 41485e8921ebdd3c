//! The JSON Schemas, held against the parser: what the parser takes they take, and what is wrong by its structure they refuse.

use std::path::{Path, PathBuf};

use journeyman::config::{load_text, schema};
use serde_json::{Value, json};

use crate::support::document::toml_blocks;
use crate::support::python_server;

/// Reads `{schemas, documents: [[schema, document], …]}` and prints for each document what is wrong with it.
const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator
asked = json.load(sys.stdin)
validators = {}
for name, schema in asked['schemas'].items():
    Draft202012Validator.check_schema(schema)
    validators[name] = Draft202012Validator(schema)
def first(name, document):
    error = next(validators[name].iter_errors(document), None)
    return error and '/'.join(map(str, error.absolute_path)) + ': ' + error.message[:300]
json.dump([first(*pair) for pair in asked['documents']], sys.stdout)
";

/// What is wrong with each of these documents, by a validator that is not ours; `None` without one.
fn validated(documents: &[(&str, Value)]) -> Option<Vec<Option<String>>> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let python = python_server("python3")?;
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("a schema is JSON");
    let schemas = json!({ "daemon": parse(schema::DAEMON), "probes": parse(schema::PROBES) });
    let mut child = Command::new(python)
        .args(["-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let asked = json!({ "schemas": schemas, "documents": documents }).to_string();
    child.stdin.take().expect("it is piped").write_all(asked.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).expect("Python answers"))
}

fn files(directory: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(root.join(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    assert!(!files.is_empty(), "{directory}");
    files
}

fn read(path: &Path) -> Option<toml::Table> {
    String::from_utf8(std::fs::read(path).expect("it is there")).ok()?.parse().ok()
}

fn as_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(value) => json!(value),
        toml::Value::Datetime(at) => json!(at.to_string()),
        toml::Value::Array(items) => items.iter().map(as_json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.clone(), as_json(value))).collect())
        }
    }
}

fn document(table: &toml::Table) -> Value {
    as_json(&toml::Value::Table(table.clone()))
}

#[test]
fn what_the_parser_takes_the_schemas_take() {
    let mut documents = Vec::new();
    let mut names = Vec::new();
    let directories = [
        ("daemon", "tests/it/config/good"),
        ("daemon", "config"),
        ("probes", "probes"),
        ("probes", "probes/examples"),
        ("probes", "src/demo"),
    ];
    for (kind, directory) in directories {
        for path in files(directory) {
            documents.push((kind, document(&read(&path).expect("it is TOML"))));
            names.push(path.display().to_string());
        }
    }
    // What the examples say of the daemon's file, in the comment at their top.
    for path in files("probes/examples") {
        let text = std::fs::read_to_string(&path).expect("it is there");
        let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim_start);
        let channels: String =
            comment.skip_while(|line| !line.starts_with("[channels.")).map(|line| format!("{line}\n")).collect();
        assert!(!channels.is_empty(), "{} names no channel at its top", path.display());
        let channels = channels.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        documents.push(("daemon", document(&channels)));
        names.push(format!("the comment of {}", path.display()));
    }
    let Some(found) = validated(&documents) else { return };
    let refused: Vec<_> = names.iter().zip(found).filter_map(|(name, why)| Some((name, why?))).collect();
    assert!(refused.is_empty() && names.len() > 40, "{} documents: {refused:#?}", names.len());
}

/// Pages show parts, too: steps without their journey, and what is left out because the page has just shown it.
#[test]
fn what_the_pages_show_the_schema_takes() {
    let (mut documents, mut names) = (Vec::new(), Vec::new());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in pages_with_toml(root) {
        for (at, block) in toml_blocks(&page).iter().enumerate() {
            let mut table: toml::Table = block.parse().unwrap_or_else(|error| panic!("{page}, block {at}: {error}"));
            if let Some(part) = table.remove("expect").or_else(|| table.remove("capture")) {
                // Expectations stand in a step.
                assert!(matches!(part, toml::Value::Array(_) | toml::Value::Table(_)), "{page}, block {at}");
                continue;
            }
            if let Some(journey @ toml::Value::Table(_)) = table.get_mut("journey") {
                *journey = toml::Value::Array(vec![journey.clone()]);
            }
            documents.push(("daemon", document(&table)));
            names.push(format!("{page}, block {at}"));
        }
    }
    let Some(found) = validated(&documents) else { return };
    let refused: Vec<_> = names
        .iter()
        .zip(found)
        .filter_map(|(name, why)| Some((name, why?)))
        .filter(|(_, why)| !why.ends_with("is a required property"))
        .collect();
    assert!(refused.is_empty() && names.len() > 60, "{} blocks: {refused:#?}", names.len());
}

/// README.md and all pages below docs/ that have a block of TOML, relative to the root.
fn pages_with_toml(root: &Path) -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/channels", "docs/examples", "docs/notifiers"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            pages.push(format!("{folder}/{}", entry.expect("an entry").file_name().to_str().expect("a name")));
        }
    }
    pages.retain(|page| {
        // An experiment's file has a grammar of its own; its page is loaded with the other tests of it.
        let is_ours = page != "docs/experiments.md";
        is_ours
            && page.ends_with(".md")
            && std::fs::read_to_string(root.join(page)).is_ok_and(|text| text.contains("```toml"))
    });
    pages.sort();
    pages
}

#[test]
fn what_is_wrong_by_its_structure_the_schema_refuses_too() {
    let mut documents = Vec::new();
    let mut names = Vec::new();
    for path in files("tests/it/config/bad") {
        let Some(table) = read(&path) else { continue };
        let told = std::fs::read_to_string(path.with_extension("stderr")).expect("it is explained");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let mut lines = told.lines().peekable();
        let mut is_structural = false;
        while let Some(line) = lines.next() {
            let is_here = lines.peek().is_some_and(|place| place.contains(&name));
            let is_kind = line.contains(" must be ") && [", not a", ", not an"].iter().any(|word| line.contains(word));
            is_structural |= is_here && (line.starts_with("error: unknown key") || is_kind);
        }
        if is_structural {
            documents.push(("daemon", document(&table)));
            names.push(name);
        }
    }
    assert!(names.len() > 15, "{names:?}");
    let Some(found) = validated(&documents) else { return };
    let taken: Vec<_> = names.iter().zip(found).filter(|(_, why)| why.is_none()).map(|(name, _)| name).collect();
    assert!(taken.is_empty(), "the schema takes {taken:?}");
}

/// A value as it may stand within a line of TOML.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => json!(text).to_string(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => format!("{number:?}"),
        toml::Value::Boolean(value) => value.to_string(),
        toml::Value::Datetime(at) => at.to_string(),
        toml::Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| format!("{} = {}", json!(key), inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn text_of(table: &toml::Table) -> String {
    table.iter().map(|(key, value)| format!("{} = {}\n", json!(key), inline(value))).collect()
}

/// How a document is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// A table gets a key that nobody knows.
    Sibling,
    /// A value becomes what hardly anything takes.
    Kind,
}

/// Every document with one change, and where that is.
fn changed(table: &toml::Table) -> Vec<(Change, String, toml::Table)> {
    let root = toml::Value::Table(table.clone());
    let mut places = Vec::new();
    walk(&root, &mut Vec::new(), &mut places);
    let make = |(change, path): (Change, Vec<Step>)| {
        let mut root = root.clone();
        let place = path.iter().try_fold(&mut root, |at, step| match (at, step) {
            (toml::Value::Table(table), Step::Key(key)) => table.get_mut(key),
            (toml::Value::Array(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        });
        match (change, place) {
            (Change::Sibling, Some(toml::Value::Table(table))) => {
                table.insert("zzz_nobody".to_owned(), toml::Value::Boolean(true));
            }
            (Change::Kind, Some(value)) => {
                *value = toml::Value::Array(vec![toml::Value::Array(vec![toml::Value::Boolean(true)])]);
            }
            _ => unreachable!("the place is there"),
        }
        let toml::Value::Table(table) = root else { unreachable!("a document is a table") };
        let words: Vec<_> = path.iter().map(|step| format!("{step:?}")).collect();
        (change, words.join(" "), table)
    };
    places.into_iter().map(make).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

fn walk(value: &toml::Value, path: &mut Vec<Step>, places: &mut Vec<(Change, Vec<Step>)>) {
    match value {
        toml::Value::Table(table) => {
            places.push((Change::Sibling, path.clone()));
            for (key, value) in table {
                path.push(Step::Key(key.clone()));
                places.push((Change::Kind, path.clone()));
                walk(value, path, places);
                path.pop();
            }
        }
        toml::Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                path.push(Step::Index(index));
                walk(value, path, places);
                path.pop();
            }
        }
        _ => {}
    }
}

/// What these are compared with depends on what stands beside them, which a schema cannot say.
const PREDICATES: &[&str] = &["equals", "not_equals", "one_of", "less_than", "at_most", "greater_than", "at_least"];

/// The parser puts away what a fragment has if the journey has it too, whatever it is.
const PUT_AWAY: &str = "Key(\"fragment\") Key(\"often\") Key(\"labels\")";

/// Wherever a key is added or a value is of another kind, the parser and the schema are of one mind: what the schema refuses the
/// parser refuses, and an unknown key is refused by both or by none.
#[test]
fn a_changed_document_is_refused_by_both_or_by_none() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config/good");
    let table = read(&base.join("everything.toml")).expect("it is TOML");
    let accepts = |table: &toml::Table| load_text("test.toml", &text_of(table), &[], &base).is_ok();
    assert!(accepts(&table), "written anew it is the same");
    let cases = changed(&table);
    assert!(cases.len() > 300, "{}", cases.len());
    let documents: Vec<_> = cases.iter().map(|(_, _, table)| ("daemon", document(table))).collect();
    let Some(found) = validated(&documents) else { return };
    let (mut caught, mut wrong) = (0, Vec::new());
    for ((change, place, table), why) in cases.iter().zip(found) {
        let is_taken = accepts(table);
        match (change, why) {
            (Change::Kind, Some(_)) if is_taken && place == PUT_AWAY => {}
            (_, Some(why)) if is_taken => wrong.push(format!("only the schema refuses {change:?} at {place}: {why}")),
            (Change::Sibling, None) if !is_taken => {
                wrong.push(format!("only the parser refuses {change:?} at {place}"))
            }
            (Change::Kind, None)
                if !is_taken && !PREDICATES.iter().any(|name| place.ends_with(&format!("Key({name:?})"))) =>
            {
                wrong.push(format!("only the parser refuses another kind at {place}"));
            }
            (_, Some(_)) => caught += 1,
            _ => {}
        }
    }
    assert!(wrong.is_empty() && caught > 250, "{caught} caught of {}\n{}", cases.len(), wrong.join("\n"));
}
