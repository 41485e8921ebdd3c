//! A real Alertmanager that tells everything to one webhook, and as much of its API as the tests need.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Process, START, Scratch, free_port, server_binary, wait_for};

const ANSWER: Duration = Duration::from_secs(10);

/// Alertmanager with its data in a directory of its own. Ends with its owner.
pub(crate) struct Alertmanager {
    address: SocketAddr,
    client: reqwest::Client,
    program: PathBuf,
    scratch: Scratch,
    process: Option<Process>,
}

impl Alertmanager {
    /// Starts one whose only receiver is the webhook at `receiver`; `None`, loudly, where it is not installed.
    pub(crate) async fn start(receiver: &str) -> Option<Alertmanager> {
        let program = server_binary("prometheus-alertmanager", "prometheus-alertmanager")?;
        let scratch = Scratch::new("alertmanager");
        scratch.write(
            "alertmanager.yml",
            &format!(
                "route:\n  receiver: hook\n  group_by: [alertname, incident]\n  group_wait: 10ms\n  group_interval: 200ms\n  \
                 repeat_interval: 1h\nreceivers:\n  - name: hook\n    webhook_configs:\n      - url: {receiver}\n        \
                 send_resolved: true\n"
            ),
        );
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().expect("a client can be built");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut server = Alertmanager { address, client, program, scratch, process: None };
        server.start_again().await;
        Some(server)
    }

    /// Starts it on the same port with what it has on disk, which is silences and what it told, and no alerts.
    pub(crate) async fn start_again(&mut self) {
        let log = self.log();
        let mut command = Command::new(&self.program);
        command.arg(format!("--config.file={}", self.scratch.path().join("alertmanager.yml").display()));
        command.arg(format!("--storage.path={}", self.scratch.path().join("data").display()));
        command.arg(format!("--web.listen-address={}", self.address));
        // It is alone.
        command.arg("--cluster.listen-address=").env("GOMAXPROCS", "1");
        let mut process = Process::start("alertmanager", &mut command, &log);
        wait_for("Alertmanager to be ready", START, async || {
            if let Some(code) = process.exit_code() {
                panic!("Alertmanager ended with {code}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let answer = self.client.get(format!("{}/-/ready", self.url())).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        self.process = Some(process);
    }

    /// Kills it; it forgets its alerts.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    fn log(&self) -> PathBuf {
        self.directory().join("alertmanager.log")
    }

    /// The alerts that it holds for active, silenced or not.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let answer = self.client.get(format!("{}/api/v2/alerts", self.url())).send().await;
        let text = answer.expect("Alertmanager answers").text().await.expect("an answer has a body");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Waits until its alerts are such.
    pub(crate) async fn wait_for_alerts(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        wait_for(what, START, async || Some(self.alerts().await).filter(|alerts| holds(alerts))).await
    }

    /// Silences every alert with this label for an hour.
    pub(crate) async fn silence(&self, label: &str, value: &str) {
        let now = journeyman::clock::Clock::system().now().wall;
        let silence = json!({
            "matchers": [{ "name": label, "value": value, "isRegex": false, "isEqual": true }],
            "startsAt": now,
            "endsAt": journeyman::time::later(now, Duration::from_secs(3_600)),
            "createdBy": "a test",
            "comment": "hush",
        });
        let request = self.client.post(format!("{}/api/v2/silences", self.url()));
        let request = request.header("content-type", "application/json").body(silence.to_string());
        let answer = request.send().await.expect("Alertmanager answers");
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }
}
