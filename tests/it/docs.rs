//! The documentation as a whole: each page is in the book, each link leads somewhere, and the tutorial does what it says when it is
//! followed command by command.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::Duration;

use regex::Regex;
use tokio::process::Command;

use crate::support::command::{journeyman, run};
use crate::support::document::adapt;
use crate::support::prometheus::repository;
use crate::support::{Process, Scratch, block_on, free_port, server_binary, wait_for};

/// What waits for something that takes a few runs.
const BOUND: Duration = Duration::from_secs(60);

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// A page without what stands in its blocks of code.
fn prose(page: &Path) -> String {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let mut is_code = false;
    let keeps = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    text.lines().filter(keeps).collect::<Vec<_>>().join("\n")
}

/// What GitHub calls its headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, u32>::new();
    let headings = prose(page);
    let headings = headings.lines().filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    let anchor = |heading: &str| {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect();
        let times = seen.entry(slug.clone()).or_default();
        *times += 1;
        if *times == 1 { slug } else { format!("{slug}-{}", *times - 1) }
    };
    headings.map(anchor).collect()
}

#[test]
fn every_page_is_in_the_book_and_every_link_leads_somewhere() {
    let docs = repository("docs");
    let mut all = Vec::new();
    pages(&docs, &mut all);
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a sound pattern");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("the book has a table");
    let listed: Vec<_> = link.captures_iter(&summary).map(|found| docs.join(&found[1])).collect();
    let unlisted: Vec<_> = all.iter().filter(|page| !page.ends_with("SUMMARY.md") && !listed.contains(page)).collect();
    assert!(unlisted.is_empty(), "not in docs/SUMMARY.md: {unlisted:?}");
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a page is in docs/SUMMARY.md twice");

    all.extend(["README.md", "CHANGELOG.md"].map(repository));
    let mut dead = Vec::new();
    for page in &all {
        for found in link.captures_iter(&prose(page)) {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            let is_there = path.exists() && (anchor.is_empty() || anchors(&path).contains(anchor));
            if !is_there {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere: {dead:#?}");
}

/// The blocks of a page in this language, in order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(page)).expect("the page is there");
    let fence = format!("```{language}\n");
    let parts = text.split(&*fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_tutorial_leads_to_an_alert_and_its_end() {
    block_on(async {
        const PAGE: &str = "docs/tutorial.md";
        let Some(python) = server_binary("python3", "python3") else { return };
        let scratch = Scratch::new("tutorial");
        let [http, hooks, shop] = [(); 3].map(|()| free_port().to_string());
        let ports = [("9464", http.as_str()), ("9465", &hooks), ("8000", &shop)];
        let moved = |text: &str| ports.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let shop_py = blocks(PAGE, "python").remove(0);
        let toml = blocks(PAGE, "toml");
        let [main, probe] = &toml[..] else { panic!("{PAGE} has {} TOML blocks", toml.len()) };
        scratch.write("shop.py", &moved(&shop_py));
        scratch.write("journeyman.toml", &moved(main));
        // Nobody waits for five seconds here.
        scratch.write(
            "probes/order.toml",
            &adapt(
                probe,
                &[
                    ("every     = \"5s\"", "every     = \"1s\""),
                    ("budget    = \"1s\"", "budget    = \"900ms\""),
                    ("deadline  = \"3s\"", "deadline  = \"1s\""),
                ],
            ),
        );
        let commands: Vec<String> = blocks(PAGE, "console")
            .iter()
            .flat_map(|block| block.lines().filter_map(|line| line.strip_prefix("$ ")).map(&moved).collect::<Vec<_>>())
            .collect();

        let said = scratch.path().join("shop.log");
        let mut servers = Vec::new();
        let inbox = || std::fs::read_to_string(&said).unwrap_or_default();
        let ready = async |port: &str| {
            let address = format!("127.0.0.1:{port}");
            wait_for("it to listen", BOUND, async || tokio::net::TcpStream::connect(&address).await.ok()).await
        };
        let done = |command: &str| commands.iter().any(|other| other == &moved(command));
        assert_eq!(commands.len(), 11, "{commands:#?}");
        for command in &commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            match &words[..] {
                ["python3", script] => {
                    let mut start = Blocking::new(&python);
                    start.args(["-u", script]).current_dir(scratch.path());
                    servers.push(Process::start("the shop", &mut start, &said));
                    ready(&shop).await;
                }
                ["journeyman", "run", rest @ ..] => {
                    let mut start = Blocking::new(env!("CARGO_BIN_EXE_journeyman"));
                    start.arg("run").args(rest).current_dir(scratch.path());
                    servers.push(Process::start("journeyman", &mut start, &scratch.path().join("journeyman.log")));
                    ready(&http).await;
                    let page = format!("http://127.0.0.1:{http}/api/v1/journeys/order");
                    wait_for("a good run", BOUND, async || {
                        let text = reqwest::get(&page).await.ok()?.text().await.ok()?;
                        text.contains("\"state\":\"ok\"").then_some(())
                    })
                    .await;
                }
                ["journeyman", verb, rest @ ..] => {
                    if *verb == "incidents" {
                        wait_for("the alert", BOUND, async || inbox().contains("inbox: DOWN order").then_some(()))
                            .await;
                    }
                    let arguments: Vec<&str> = [verb].into_iter().chain(rest.iter()).copied().collect();
                    let ended = journeyman(scratch.path(), &arguments).await;
                    assert_eq!(ended.code, 0, "{command}: {ended:?}\n{}", inbox());
                    match *verb {
                        "check" => assert!(ended.stderr.ends_with("\n2 warnings\n"), "{}", ended.stderr),
                        "once" => assert!(ended.stdout.starts_with("order  good in "), "{}", ended.stdout),
                        "incidents" => assert!(ended.stdout.contains("order"), "{}", ended.stdout),
                        "slo" => assert!(ended.stdout.contains("order"), "{}", ended.stdout),
                        _ => {}
                    }
                }
                [first, ..] => {
                    assert!(["curl", "(umask"].contains(first), "{command}");
                    let mut shell = Command::new("sh");
                    shell.args(["-c", command]).current_dir(scratch.path());
                    let ended = run(shell).await;
                    assert_eq!(ended.code, 0, "{command}: {ended:?}");
                    if command.ends_with("/mend") {
                        wait_for("the end of it", BOUND, async || {
                            inbox().contains("inbox: WELL AGAIN order").then_some(())
                        })
                        .await;
                    }
                }
                [] => panic!("an empty command"),
            }
        }
        assert!(
            done("curl -s -X POST http://127.0.0.1:8000/break") && done("curl -s -X POST http://127.0.0.1:8000/mend")
        );
        let told = ["DOWN order · failed", "DOWN order · acknowledged by ada", "WELL AGAIN order"];
        for what in told {
            assert_eq!(inbox().matches(what).count(), 1, "each once:\n{}", inbox());
        }
        assert_eq!(inbox().matches("inbox: ").count(), told.len(), "{}", inbox());
        // What had waited came late, and is not lost.
        let runs = format!("http://127.0.0.1:{http}/api/v1/journeys/order/runs");
        wait_for("the late ones", BOUND, async || {
            reqwest::get(&runs).await.ok()?.text().await.ok()?.contains("\"verdict\":\"late\"").then_some(())
        })
        .await;
    });
}
