//! Grafana k6: a load generator that measures as well as any.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Processes;

/// Where `pip install --requirement benches/requirements.txt` of this environment puts it, or wherever it is.
pub(crate) fn program() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/k6");
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&paths).map(|path| path.join("k6"));
    std::iter::once(ours).chain(others).find(|path| path.is_file())
}

/// One request to each of `targets` paths below `url` a second, for so long; what it measured is written to `out`.
pub(crate) fn start(
    program: &Path,
    place: &Path,
    url: &str,
    targets: usize,
    lasts: Duration,
    is_new: bool,
    out: Option<&Path>,
) -> Processes {
    let script = format!(
        "import http from 'k6/http';\nimport exec from 'k6/execution';\n\
         export const options = {{ noConnectionReuse: {is_new}, discardResponseBodies: true, scenarios: {{ all: {{ \
         executor: 'constant-arrival-rate', rate: {targets}, timeUnit: '1s', duration: '{}s', \
         preAllocatedVUs: {}, maxVUs: 2000 }} }} }};\n\
         export default function () {{ const n = exec.scenario.iterationInTest % {targets}; \
         http.get(`{url}${{n}}`, {{ tags: {{ name: `${{n}}` }} }}); }}\n",
        lasts.as_secs(),
        (targets / 4).clamp(20, 500),
    );
    let path = place.join("k6.js");
    std::fs::write(&path, script).expect("a file");
    let mut command = Command::new(program);
    command.args(["run", "--quiet", "--no-usage-report", "--no-summary", "--address", ""]);
    if let Some(out) = out {
        command.arg("--out").arg(format!("json={}", out.display()));
    }
    command.arg(path).current_dir(place);
    Processes::start([command])
}

/// From `out` of [`start`]: what it reports of each request to a target, in seconds and in order: the wait for a connection, sending,
/// waiting, and receiving.
pub(crate) fn reported(out: &Path, target: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(out).expect("it wrote what it measured");
    let mut parts = [Vec::new(), Vec::new()];
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let at = match value["metric"].as_str() {
            Some("http_req_duration") => 0,
            Some("http_req_blocked") => 1,
            _ => continue,
        };
        if value["type"] == "Point" && value["data"]["tags"]["name"] == target {
            parts[at].push(value["data"]["value"].as_f64().expect("milliseconds") / 1e3);
        }
    }
    let [durations, waits] = parts;
    durations.into_iter().zip(waits).map(|(duration, wait)| duration + wait).collect()
}
