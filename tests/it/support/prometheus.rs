//! A real Prometheus, and as much of its query language as it takes to find the series that an expression names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{Process, START, free_port, server_binary, wait_for};

const ANSWER: Duration = Duration::from_secs(10);

/// Prometheus with its storage beside its configuration. Ends with its owner.
pub struct Prometheus {
    address: SocketAddr,
    client: reqwest::Client,
    _process: Process,
}

impl Prometheus {
    /// Starts it with the configuration file at `config` and waits until it is ready; `None`, loudly, where it is not installed.
    pub async fn start(config: &Path) -> Option<Prometheus> {
        let program = server_binary("prometheus", "prometheus")?;
        let directory = config.parent().expect("a file is in a directory");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = directory.join("prometheus.log");
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        // It does not need more of a machine that other tests share.
        command.env("GOMAXPROCS", "1");
        let mut process = Process::start("prometheus", &mut command, &log);
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().expect("a client can be built");
        wait_for("Prometheus to be ready", START, async || {
            if let Some(code) = process.exit_code() {
                panic!("Prometheus ended with {code}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let answer = client.get(format!("http://{address}/-/ready")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        Some(Prometheus { address, client, _process: process })
    }

    /// The series that `expression` gives now, with their labels and last values.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.get("query", &[("query", expression)]).await;
        let series = data["result"].as_array().expect("an instant query gives a list of series");
        let sample = |series: &Value| {
            let value = series["value"][1].as_str().and_then(|text| text.parse().ok());
            (series["metric"].clone(), value.unwrap_or_else(|| panic!("{expression}: no number in {series}")))
        };
        series.iter().map(sample).collect()
    }

    /// The rules as they were loaded, and how their last evaluation went.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("rules", &[]).await;
        let groups = data["groups"].as_array().expect("there are groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("a group has rules")).cloned().collect()
    }

    async fn get(&self, what: &str, query: &[(&str, &str)]) -> Value {
        let mut url = Url::parse(&format!("http://{}/api/v1/{what}", self.address)).expect("an address makes a URL");
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.client.get(url).send().await.unwrap_or_else(|error| panic!("{query:?}: {error:?}"));
        let text = answer.text().await.expect("an answer has a body");
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(answer["status"], "success", "{query:?}: {text}");
        answer["data"].clone()
    }
}

/// Runs `promtool` with `arguments` and `input`. An error is what it printed, if it complained in any way.
pub fn promtool(arguments: &[&str], input: &str) -> Option<Result<(), String>> {
    use std::io::Write as _;
    let mut child = Command::new(server_binary("promtool", "prometheus")?)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool starts");
    // It reads its input whole before it writes more than a pipe takes. One that reads none may have closed it already.
    let _ = child.stdin.take().expect("its input is ours").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    // `check metrics` ends well after mere complaints in some versions; then it has printed them.
    let is_silent = said.is_empty() || arguments[1] != "metrics";
    Some(if output.status.success() && is_silent { Ok(()) } else { Err(said) })
}

/// The vector selectors in an expression, such as `up{job="journeyman"}`, without their ranges.
/// Knows names, strings, numbers, label lists of aggregations and matchings, and that what stands before `(` is a function.
pub fn selectors(expression: &str) -> Vec<String> {
    const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '\'' | '`' => string_end(rest),
            '[' => rest.find(']').map_or(rest.len(), |at| at + 1),
            digit if digit.is_ascii_digit() => word_end(rest, &['.']),
            letter if letter.is_ascii_alphabetic() || letter == '_' => {
                let name = &rest[..word_end(rest, &[':'])];
                let after = rest[name.len()..].trim_start();
                let gap = rest.len() - after.len();
                if LISTS.contains(&name) && after.starts_with('(') {
                    gap + after.find(')').map_or(after.len(), |at| at + 1)
                } else if LISTS.contains(&name)
                    || WORDS.contains(&name)
                    || after.starts_with('(')
                    || is_aggregation(after)
                {
                    name.len()
                } else {
                    let end = if after.starts_with('{') { gap + matchers_end(after) } else { name.len() };
                    found.push(rest[..end].to_owned());
                    end
                }
            }
            other => other.len_utf8(),
        };
        rest = &rest[end..];
    }
    found
}

/// Whether what stands before is an aggregation, as in `sum by (journey) (…)`.
fn is_aggregation(after: &str) -> bool {
    ["by", "without"]
        .iter()
        .any(|word| after.strip_prefix(word).is_some_and(|after| after.trim_start().starts_with('(')))
}

fn word_end(text: &str, others: &[char]) -> usize {
    text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && !others.contains(&letter))
        .unwrap_or(text.len())
}

/// Behind the string that `text` begins with.
fn string_end(text: &str) -> usize {
    let mut letters = text.char_indices();
    let quote = letters.next().map(|(_, quote)| quote);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            letter if Some(letter) == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Behind the braces that `text` begins with.
fn matchers_end(text: &str) -> usize {
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'}' => return at + 1,
            b'"' | b'\'' | b'`' => at += string_end(&text[at..]),
            _ => at += 1,
        }
    }
    text.len()
}

/// Where the repository's files are.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
