//! Who may import whom. The table below is the house's plan; a `use`, or a path in code, that goes against it fails here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Pure decisions: no runtime, no clock, no files, no sockets.
const CORE: &[&str] = &[
    "time",
    "journey",
    "slo",
    "detect",
    "alert",
    "control",
    "incident",
    "judge",
    "replay",
    "ledger",
    "notice",
    "breaker",
    "boots",
    "cluster",
    "drill",
    "experiment",
    "quorum",
];
/// What every room above the core may rely on.
const GROUND: &[&str] = &["time", "secret", "clock", "tls", "exit", "commands", "gate", "text", "alarm"];
/// What the drivers write their numbers and their state to.
const SHOWN: &[&str] = &["metrics", "board"];

/// Each room (`src/ROOM.rs` and `src/ROOM/`) and what it may import beside itself: rooms, or one item of a room.
/// Nobody imports `app`, `cli` or `program` but the rooms after them, `demo` is for `app` alone, and nobody but those imports `config`.
#[rustfmt::skip]
const HOUSE: &[(&str, &[&[&str]])] = &[
    // Core. Arrows go one way: notice → incident → alert → detect → slo → journey → time.
    ("time",      &[]),
    ("journey",   &[&["time"]]),
    ("slo",       &[&["journey", "time"]]),
    ("detect",    &[&["journey", "time", "slo"]]),
    ("alert",     &[&["journey", "time", "detect"]]),
    ("control",   &[&["journey", "time"]]),
    ("incident",  &[&["journey", "time", "detect", "alert", "control"]]),
    ("judge",     &[&["journey", "time", "slo", "detect", "alert", "incident"]]),
    ("replay",    &[&["journey", "time", "slo", "detect", "alert", "control", "incident", "judge"]]),
    ("ledger",    &[&["journey", "time"]]),
    ("notice",    &[&["incident", "alert", "control", "detect", "journey", "time"]]),
    ("breaker",   &[&["time"]]),
    ("boots",     &[&["time"]]),
    ("cluster",   &[&["journey", "drill"]]),
    ("drill",     &[&["journey", "time", "incident", "notice"]]),
    ("experiment", &[&["journey", "time"]]),
    ("quorum",    &[&["journey", "detect"]]),
    // Ground.
    ("secret",    &[]),
    ("tls",       &[]),
    ("exit",      &[]),
    ("clock",     &[&["time"]]),
    ("commands",  &[CORE]),
    ("alarm",     &[CORE]),
    ("text",      &[]),
    ("gate",      &[&["time", "clock", "secret", "tls"]]),
    ("log",       &[&["secret", "text"]]),
    ("health",    &[&["gate", "secret"]]),
    // Edges: never each other, but for one type that is a fact of both.
    ("channel",   &[CORE, GROUND]),
    ("notifier",  &[CORE, GROUND]),
    ("metrics",   &[CORE, GROUND]),
    ("dead_man",  &[CORE, GROUND]),
    ("observer",  &[CORE, GROUND]),
    ("proxy",     &[GROUND]),
    ("store",     &[CORE, GROUND, &["notifier::Receipt"]]),
    ("board",     &[CORE, GROUND, &["channel::Readiness"]]),
    ("http",      &[CORE, GROUND, SHOWN, &["store", "channel::Readiness", "notifier::Receipt"]]),
    ("config",    &[CORE, GROUND, &["channel", "notifier", "dead_man", "observer", "proxy::Fault", "store::postgres", "store::reading::Home"]]),
    // Drivers: they talk by channels of tokio, and know of each other at most what is said there.
    ("runner",    &[CORE, GROUND, SHOWN, &["channel", "store", "observer"]]),
    ("scheduler", &[CORE, GROUND, SHOWN, &["runner"]]),
    ("evaluator", &[CORE, GROUND, SHOWN, &["store", "observer", "scheduler::Observation", "scheduler::Wish", "delivery::Outbox"]]),
    ("delivery",  &[CORE, GROUND, SHOWN, &["store", "notifier", "scheduler::Observation"]]),
    ("calendar",  &[CORE, GROUND, SHOWN]),
    ("rehearsal", &[CORE, GROUND, SHOWN, &["channel", "store", "runner", "delivery::Outbox"]]),
    // The top.
    ("app",       &[CORE, GROUND, SHOWN, EDGES, DRIVERS, &["config", "demo", "health", "log", "proxy"]]),
    ("dashboards", &[]),
    ("cli",       &[CORE, GROUND, &["config", "dashboards", "health", "proxy", "store::reading", "store::story", "store::RunRow"]]),
    ("demo",      &[GROUND, &["config"]]),
    ("program",   &[GROUND, &["app", "cli", "config", "demo", "experiment::report", "health", "journey", "log"]]),
    ("main",      &[&["program"]]),
    // What the fuzzer and the tests alone compile.
    ("fuzz",      &[CORE, GROUND, SHOWN, EDGES, &["config"]]),
    // The list of rooms.
    ("lib",       &[]),
];
const EDGES: &[&str] = &["channel", "notifier", "store", "http", "dead_man", "observer"];
const DRIVERS: &[&str] = &["runner", "scheduler", "evaluator", "delivery", "calendar", "rehearsal"];

/// What the core may use that is not ours. Of these only the standard library can reach the world: not by the modules that follow.
const CORE_CRATES: &[&str] = &[
    "std",
    "core",
    "alloc",
    "serde",
    "serde_json",
    "jiff",
    "croner",
    "regex",
    "jsonpath_rust",
    "minijinja",
    "url",
    "thiserror",
    "hmac",
    "sha2",
    "subtle",
    "fastrand",
];
const WORLDLY: &[&str] = &["fs", "net", "env", "process", "thread", "os"];

#[test]
fn every_room_imports_only_what_the_plan_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dependencies = dependencies(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap());
    assert!(dependencies.contains("tokio") && dependencies.contains("futures_util"), "{dependencies:?}");

    let files = sources(&root.join("src"));
    let seen = |name: &str| files.iter().any(|file| file.ends_with(name));
    assert!(files.len() > 20 && seen("src/journey/run.rs") && seen("src/main.rs"), "the walk found only {files:?}");

    let mut faults = String::new();
    for file in &files {
        let source = std::fs::read_to_string(file).unwrap();
        let file = file.strip_prefix(root.join("src")).unwrap().to_str().unwrap();
        for fault in check(file, &source, &dependencies) {
            writeln!(faults, "{fault}").unwrap();
        }
    }
    assert!(faults.is_empty(), "against the plan of the house (tests/it/architecture.rs):\n{faults}");
}

/// Every Rust file below `directory` but those that hold a module's tests.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the sources can be read") {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The names by which code knows the crates that Cargo.toml brings in.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let tables = ["dependencies", "dev-dependencies"].into_iter().filter_map(|name| manifest.get(name)?.as_table());
    tables.flat_map(|table| table.keys()).map(|name| name.replace('-', "_")).collect()
}

/// What `source`, which is `src/<file>`, imports against the plan; a sentence each.
fn check(file: &str, source: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let room = file.trim_end_matches(".rs").split('/').next().expect("a path has a first part");
    let Some((_, allowed)) = HOUSE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("src/{file}: the room `{room}` is not in the plan: add it, with what it may import")];
    };
    let is_core = CORE.contains(&room);
    let mut faults = Vec::new();
    for (line, path) in imports(file, source) {
        let written = path.join("::");
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["crate", other, ..] if other == room => {}
            ["crate", ref rest @ ..] => {
                let is_allowed = |item: &&str| item.split("::").eq(rest.iter().copied().take(item.split("::").count()));
                if !allowed.iter().copied().flatten().any(is_allowed) {
                    faults.push(format!("src/{file}:{line}: `{room}` may not import {written}"));
                }
            }
            ["std", module, ..] if is_core && WORLDLY.contains(&module) => {
                faults.push(format!("src/{file}:{line}: `{room}` is core, and may not reach the world by {written}"));
            }
            [name, ..] if is_core && dependencies.contains(name) && !CORE_CRATES.contains(&name) => {
                faults.push(format!("src/{file}:{line}: `{room}` is core, and may not use the crate {name}"));
            }
            _ => {}
        }
    }
    faults
}

/// Every path of two parts and more in a file, with its line, groups taken apart; those into our crate begin with `crate`.
/// What is compiled only for tests is left out.
fn imports(file: &str, source: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = without_tests(&tokens(source, 1));
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let mut inline = Vec::new();
    let mut depth = 0;
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_module = text(at) == "mod" && text(at + 2) == "{";
        let is_path = is_name(text(at)) && (text(at + 1) == "::" || at > 0 && text(at - 1) == "use");
        if is_module {
            module.push(text(at + 1).to_owned());
            inline.push(depth);
            depth += 1;
            at += 3;
        } else if is_path {
            let mut paths = Vec::new();
            let line = tokens[at].0;
            at = take_tree(&tokens, at, Vec::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (line, resolve(path, &module))));
        } else {
            match text(at) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        module.pop();
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
    found
}

/// Reads `a::b`, `a::*` or `a::{b, c::d}` from `at`; gives where it ends.
fn take_tree(tokens: &[Token], mut at: usize, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    if text(at) == "{" {
        at += 1;
        while !matches!(text(at), "}" | "") {
            at = if text(at) == "," { at + 1 } else { take_tree(tokens, at, path.clone(), paths) };
        }
        return at + 1;
    }
    path.push(text(at).to_owned());
    if text(at + 1) == "::" && (is_name(text(at + 2)) || matches!(text(at + 2), "{" | "*")) {
        return take_tree(tokens, at + 2, path, paths);
    }
    paths.push(path);
    if text(at + 1) == "as" { at + 3 } else { at + 1 }
}

/// A path as seen from the crate's root, where it leads into the crate.
fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match path[0].as_str() {
        "super" => (&module[..module.len().saturating_sub(ups)], &path[ups..]),
        "self" => (module, &path[1..]),
        // The program is a crate of its own, and calls ours by its name.
        "crate" | "journeyman" => (&[][..], &path[1..]),
        _ => return path,
    };
    std::iter::once("crate").chain(base.iter().chain(rest).map(String::as_str)).map(str::to_owned).collect()
}

/// A line's number and a word, `::`, or a single sign.
type Token = (usize, String);

/// Comments and literals, or a word. Nested comments and raw strings with three signs are not written in this house.
static LEXEME: LazyLock<Regex> = LazyLock::new(|| {
    let expression = r####"(?xs)
        (?: //[^\n]* | /\*.*?\*/ )
        | (?: b?r\#\#".*?"\#\# | b?r\#".*?"\# | b?r"[^"]*" | b?" (?: [^"\\] | \\. )* " )
        | b?' (?: [^'\\] | \\u\{\w+\} | \\x\w\w | \\. ) '
        | (?<word> \w+ | :: | \S )
        "####;
    Regex::new(expression).expect("the expression is right")
});

/// The tokens of a source without comments and literals. A literal that is a path of ours, as serde's `with` takes it, counts as one.
fn tokens(source: &str, first_line: usize) -> Vec<Token> {
    let (mut line, mut from) = (first_line, 0);
    let mut tokens = Vec::new();
    for captures in LEXEME.captures_iter(source) {
        let whole = captures.get(0).expect("a match has a whole");
        line += source[from..whole.start()].matches('\n').count();
        from = whole.start();
        if let Some(word) = captures.name("word") {
            tokens.push((line, word.as_str().to_owned()));
        } else if let Some(path) = whole.as_str().strip_prefix("\"crate::") {
            let path = format!("crate::{}", path.trim_end_matches('"'));
            tokens.extend(self::tokens(&path, line));
        }
    }
    tokens
}

/// Leaves out each item that follows `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_mark = tokens[at..].iter().map(|token| token.1.as_str()).take(MARK.len()).eq(MARK);
        if !is_mark {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        for (_, word) in &tokens[at..] {
            at += 1;
            match word.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(word.as_str(), "}" | ";") {
                break;
            }
        }
    }
    kept
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_') && word != "use"
}

fn faults(file: &str, source: &str) -> Vec<String> {
    check(file, source, &["tokio", "serde", "proptest", "reqwest"].map(str::to_owned).into())
}

#[test]
fn an_import_against_the_plan_is_seen_however_it_is_written() {
    let one = |source: &str, fault: &str| assert_eq!(faults("slo.rs", source), [fault], "{source}");
    one("use crate::store::Store;", "src/slo.rs:1: `slo` may not import crate::store::Store");
    one("//! Text.\n\nuse crate::{journey, channel::http};", "src/slo.rs:3: `slo` may not import crate::channel::http");
    one("use crate::{journey::{self, Name}, a::{b as c}, time};", "src/slo.rs:1: `slo` may not import crate::a::b");
    one("use crate::metrics::*;", "src/slo.rs:1: `slo` may not import crate::metrics::*");
    one("use super::clock::Clock;", "src/slo.rs:1: `slo` may not import crate::clock::Clock");
    one("fn f() {\n  g(crate::app::run::<u8>(1));\n}", "src/slo.rs:2: `slo` may not import crate::app::run");
    one("mod m {\n  use super::super::tls;\n}", "src/slo.rs:2: `slo` may not import crate::tls");
    one("mod m { fn f() {} }\nuse super::tls;", "src/slo.rs:2: `slo` may not import crate::tls");
    one("#[serde(with = \"crate::store::micros\")]", "src/slo.rs:1: `slo` may not import crate::store::micros");
    assert_eq!(
        faults("app/tasks.rs", "use super::super::cli;"),
        ["src/app/tasks.rs:1: `app` may not import crate::cli"]
    );
    assert_eq!(
        faults("program.rs", "use crate::{tls, slo};"),
        ["src/program.rs:1: `program` may not import crate::slo"]
    );
}

#[test]
fn what_is_allowed_or_only_looks_like_an_import_passes() {
    let none = |file: &str, source: &str| assert_eq!(faults(file, source), [""; 0], "{source}");
    none("slo.rs", "use crate::journey::{Name, outcome::Verdict as V}; use crate::slo::Span; use self::inner::X;");
    none(
        "slo.rs",
        "mod m { use super::Span; } fn f() {} use self::Span; use serde::Serialize; fn f() { std::fmt::format(x); journey::g() }",
    );
    none("slo.rs", "/// [`crate::app`]\n// use crate::app;\n/* crate::app::x */ const A: &str = \"use crate::app;\";");
    none(
        "slo.rs",
        "const A: &str = r#\"say \"crate::app::x\" \"#; const Q: char = '\"'; fn f<'a>(_: &'a str) {} // crate::app::x",
    );
    none("slo.rs", "#[cfg(test)]\nmod tests { use crate::app::X; mod m { use tokio::time; } }");
    none("slo.rs", "#[cfg(test)] #[derive(Debug)] use crate::app::{X}; use crate::time::Now;");
    none("store/sqlite.rs", "use super::Store; use tokio::time; use crate::notifier::Receipt; use std::fs;");
}

#[test]
fn an_exception_is_for_one_item_and_tests_end_where_they_end() {
    let fault = "src/store.rs:1: `store` may not import crate::notifier::Notifier";
    assert_eq!(faults("store.rs", "use crate::notifier::{Notifier, Receipt};"), [fault]);
    let fault = "src/slo.rs:2: `slo` may not import crate::app::Y";
    assert_eq!(faults("slo.rs", "#[cfg(test)] mod tests { use crate::app::X; }\nuse crate::app::Y;"), [fault]);
}

#[test]
fn the_core_reaches_nothing_outside() {
    let fault = "src/journey/run.rs:1: `journey` is core, and may not use the crate tokio";
    assert_eq!(faults("journey/run.rs", "use tokio::time::sleep;"), [fault]);
    assert_eq!(faults("journey/run.rs", "fn f() { tokio::spawn(g()); }"), [fault]);
    assert_eq!(faults("journey/run.rs", "use tokio;"), [fault]);
    let fault = "src/alert.rs:1: `alert` is core, and may not reach the world by std::env::var";
    assert_eq!(faults("alert.rs", "fn f() { std::env::var(\"A\"); }"), [fault]);
    let fault = "src/alert.rs:1: `alert` is core, and may not reach the world by std::fs";
    assert_eq!(faults("alert.rs", "use std::{fmt, fs};"), [fault]);
}

#[test]
fn a_new_room_must_be_put_in_the_plan() {
    let fault = "src/utils/misc.rs: the room `utils` is not in the plan: add it, with what it may import";
    assert_eq!(faults("utils/misc.rs", ""), [fault]);
}
