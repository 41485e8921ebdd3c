//! The real daemon as a child process, with its configuration and its state in a directory of its own, on free ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;

use super::network::Host;
use super::{Process, START, Scratch, free_port, wait_for};

/// The daemon promises to drain in less than 20 s.
const DRAIN: Duration = Duration::from_secs(25);
/// Any answer over loopback.
const ANSWER: Duration = Duration::from_secs(30);

/// The directory and the ports of a daemon that does not run yet, for tests whose servers must know them first.
pub struct Setup {
    scratch: Scratch,
    http: SocketAddr,
    hooks: SocketAddr,
    store: PathBuf,
    /// Where the state is, if not in a file.
    store_url: Option<String>,
    environment: Vec<(String, String)>,
    /// What asks a daemon that speaks TLS.
    tls: Option<reqwest::Client>,
    /// Where it runs, if not where the tests do.
    host: Option<Arc<Host>>,
}

impl Setup {
    /// A new directory and free ports.
    pub fn new(name: &str) -> Setup {
        journeyman::tls::init();
        let scratch = Scratch::new(name);
        let [http, hooks] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let store = scratch.path().join("journeyman.db");
        Setup { scratch, http, hooks, store, store_url: None, environment: Vec::new(), tls: None, host: None }
    }

    /// Keeps the store elsewhere.
    pub fn store(self, path: &Path) -> Setup {
        Setup { store: path.to_owned(), ..self }
    }

    /// Keeps the state behind this URL.
    pub fn store_url(self, url: &str) -> Setup {
        self.store_value(&format!("\"{url}\""))
    }

    /// Keeps the state behind the URL that this says in TOML.
    pub fn store_value(self, value: &str) -> Setup {
        Setup { store_url: Some(value.to_owned()), ..self }
    }

    /// Asks the daemon, which speaks TLS, through this client.
    pub fn behind_tls(self, client: reqwest::Client) -> Setup {
        Setup { tls: Some(client), ..self }
    }

    /// Starts it on this host, where its pages are to be asked for, too.
    pub fn on(self, host: Arc<Host>) -> Setup {
        Setup { http: SocketAddr::new(host.address(), self.http.port()), host: Some(host), ..self }
    }

    /// Gives the daemon this environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the configuration is; paths in it are relative to this. `Setup::write` puts secrets there.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes a file beside the configuration; gives its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        self.scratch.write(name, content)
    }

    /// The URL of a webhook channel's route.
    pub fn hook_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.hooks)
    }

    /// The address for metrics, health, pages and API.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The address for webhooks.
    pub fn hooks_address(&self) -> SocketAddr {
        self.hooks
    }

    /// Where the store is to be.
    pub fn store_path(&self) -> &Path {
        &self.store
    }

    /// Starts the daemon and waits until it is ready. Listeners and store are added to `config`, which holds everything else;
    /// `probes` is the text of its only probe file.
    pub async fn start(self, config: &str, probes: &str) -> Daemon {
        self.write_files(config, probes);
        self.start_as_written().await
    }

    /// Starts the daemon as [`start`](Self::start) does, and does not wait.
    pub fn begin(self, config: &str, probes: &str) -> Daemon {
        self.write_files(config, probes);
        self.begin_as_written()
    }

    fn write_files(&self, config: &str, probes: &str) {
        let file = || format!("\"sqlite:{}\"", self.store.display());
        let store = self.store_url.clone().unwrap_or_else(file);
        self.write("probes.toml", probes);
        let mut config = format!("probes = [\"probes.toml\"]\n{config}\n");
        for (section, line) in [
            ("[http]", format!("listen = \"{}\"", self.http)),
            ("[hooks]", format!("listen = \"{}\"", self.hooks)),
            ("[store]", format!("url = {store}")),
        ] {
            // A table can be opened only once.
            let (opened, ours) = (format!("\n{section}\n"), format!("\n{section}\n{line}\n"));
            config = if config.contains(&opened) { config.replacen(&opened, &ours, 1) } else { config + &ours };
        }
        // What the monitor does by itself is heard only where a test asks for it.
        if !config.contains("[self_journey]") {
            config += "\n[self_journey]\nenabled = false\n";
        }
        self.write("journeyman.toml", &config);
    }

    /// Starts the daemon on a `journeyman.toml` that the caller has written, with the addresses of this setup in it; waits until
    /// it is ready.
    pub async fn start_as_written(self) -> Daemon {
        let mut daemon = self.begin_as_written();
        daemon.wait_until_ready().await;
        daemon
    }

    fn begin_as_written(self) -> Daemon {
        let plain = || reqwest::Client::builder().no_proxy().timeout(ANSWER).build().expect("a client can be built");
        let client = self.tls.clone().unwrap_or_else(plain);
        let process = self.spawn();
        Daemon { setup: self, process, client }
    }

    fn spawn(&self) -> Process {
        const PROGRAM: &str = env!("CARGO_BIN_EXE_journeyman");
        // It must not report to a supervisor of the tests.
        let mut command = match &self.host {
            None => Command::new(PROGRAM),
            Some(host) => host.command(PROGRAM, &self.environment),
        };
        command.args(["run", "--config"]).arg(self.directory().join("journeyman.toml"));
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        if self.host.is_none() {
            command.envs(self.environment.iter().cloned());
        }
        Process::start("journeyman", &mut command, &self.log_path())
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("journeyman.log")
    }
}

/// A running daemon. Killed when its owner goes.
pub struct Daemon {
    setup: Setup,
    process: Process,
    client: reqwest::Client,
}

impl Daemon {
    /// Starts one; see [`Setup::start`].
    pub async fn start(config: &str, probes: &str) -> Daemon {
        Setup::new("daemon").start(config, probes).await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where metrics, health, pages and API are, without a slash at the end.
    pub fn http_url(&self) -> String {
        format!("{}://{}", if self.setup.tls.is_some() { "https" } else { "http" }, self.setup.http)
    }

    /// The address of metrics, health, pages and API.
    pub fn http_address(&self) -> SocketAddr {
        self.setup.http
    }

    /// The URL of a webhook channel's route.
    pub fn hook_url(&self, path: &str) -> String {
        self.setup.hook_url(path)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.setup.directory()
    }

    /// Where its state is.
    pub fn store_path(&self) -> &Path {
        &self.setup.store
    }

    /// Everything that it has logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.log_path()).unwrap_or_default()
    }

    /// Status and body of a page; an error if there was no answer.
    pub async fn try_get(&self, path: &str) -> Result<(StatusCode, String), reqwest::Error> {
        let answer = self.client.get(format!("{}{path}", self.http_url())).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        self.try_get(path).await.unwrap_or_else(|error| panic!("{path}: {error:?}\n{}", self.log()))
    }

    /// The exposition; up to a second old.
    pub async fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }

    /// The sum over the series of `name` that have all of `labels`; `None` if there is no such series.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let text = self.metrics().await;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            // Label values are names from the configuration and closed sets: no quote, brace or comma is in them.
            let (found, labels) =
                series.strip_suffix('}').and_then(|series| series.split_once('{')).unwrap_or((series, ""));
            let has = |wanted: &String| labels.split(',').any(|label| label == wanted);
            (found == name && wanted.iter().all(has)).then(|| value.parse::<f64>().expect("a sample has a value"))
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// How many runs of a journey came to this. Without a `cause`, all with that outcome.
    pub async fn runs(&self, journey: &str, outcome: &str, cause: &str) -> f64 {
        let labels = [("journey", journey), ("outcome", outcome), ("cause", cause)];
        let runs = match cause {
            "" => self.metric("journeyman_runs_total", &labels[..2]).await,
            _ => self.metric("journeyman_run_causes_total", &labels).await,
        };
        runs.unwrap_or(0.0)
    }

    /// Waits until it says that it is ready; panics with its log if it ends first.
    pub async fn wait_until_ready(&mut self) {
        wait_for("the daemon to be ready", START, async || {
            if let Some(code) = self.process.exit_code() {
                panic!("the daemon ended with {code}:\n{}", self.log());
            }
            self.try_get("/ready").await.ok().filter(|(status, _)| *status == StatusCode::OK)
        })
        .await;
    }

    /// Sends it a signal by name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Its exit code, if it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Waits until it ends by itself; its exit code.
    pub async fn wait_for_exit(&mut self) -> i32 {
        self.process.wait_for_exit(DRAIN).await
    }

    /// Stops it in order; its exit code.
    pub async fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.wait_for_exit().await
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(&mut self) {
        self.signal("KILL");
        assert_eq!(self.wait_for_exit().await, 128 + 9);
    }

    /// Starts it on the same files and ports after it has ended, and does not wait.
    pub fn spawn_again(&mut self) {
        assert!(self.process.exit_code().is_some(), "it still runs");
        self.process = self.setup.spawn();
    }

    /// Starts it on the same files and ports after it has ended, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.spawn_again();
        self.wait_until_ready().await;
    }
}
