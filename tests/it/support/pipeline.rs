//! An event pipeline of two real processes: an HTTP API that publishes orders to RabbitMQ, and a worker that consumes them
//! and calls a webhook.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Process, START, Scratch, server_binary, wait_for};

/// The system's Python: another one in `PATH` would not see Debian's `python3-pika`.
const PYTHON: &str = "/usr/bin/python3";

/// A running pipeline. Its processes end with it.
pub(crate) struct Pipeline {
    /// Where orders are POSTed.
    pub(crate) orders_url: String,
    /// The API's process.
    pub(crate) api: Process,
    /// The worker's process; `None` while it is stopped.
    pub(crate) consumer: Option<Process>,
    amqp: String,
    webhook: String,
    more: Vec<String>,
    scratch: Scratch,
}

impl Pipeline {
    /// Starts both, and waits until both are ready. The worker gets the further arguments `more`, such as
    /// `--header "authorization: Bearer …"` or `--done-exchange orders-done`. `None`: Python's `pika` is not installed.
    pub(crate) async fn start(amqp: &str, webhook: &str, more: &[&str]) -> Option<Pipeline> {
        // Looked up under a name that does not exist where `pika` is missing, so that its absence is told like a server's.
        let has_pika = Command::new(PYTHON).args(["-c", "import pika"]).output().is_ok_and(|out| out.status.success());
        if !has_pika {
            server_binary("python3-pika", "python3-pika")?;
        }
        let scratch = Scratch::new("pipeline");
        let log = scratch.path().join("api.log");
        let mut command = script("api.py");
        let api = Process::start("api.py", command.args(["--amqp", amqp]), &log);
        let mut pipeline = Pipeline {
            orders_url: String::new(),
            api,
            consumer: None,
            amqp: amqp.to_owned(),
            webhook: webhook.to_owned(),
            more: more.iter().map(|&argument| argument.to_owned()).collect(),
            scratch,
        };
        pipeline.start_consumer().await;
        let port = ready(&log, &mut pipeline.api).await;
        pipeline.orders_url = format!("http://127.0.0.1:{port}/orders");
        Some(pipeline)
    }

    /// Starts the worker, at first and after [`stop_consumer`](Self::stop_consumer); waits until it consumes.
    pub(crate) async fn start_consumer(&mut self) {
        let log = self.scratch.path().join("consumer.log");
        // Of an earlier start.
        let _ = std::fs::remove_file(&log);
        let mut command = script("consumer.py");
        command.args(["--amqp", &self.amqp, "--webhook", &self.webhook]).args(&self.more);
        let mut consumer = Process::start("consumer.py", &mut command, &log);
        ready(&log, &mut consumer).await;
        self.consumer = Some(consumer);
    }

    /// Ends the worker with SIGTERM, as an orchestrator does: orders pile up in its queue.
    pub(crate) async fn stop_consumer(&mut self) {
        if let Some(mut consumer) = self.consumer.take() {
            consumer.signal("TERM");
            assert_eq!(consumer.wait_for_exit(Duration::from_secs(10)).await, 0);
        }
    }
}

fn script(name: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/pipeline").join(name));
    command
}

/// What follows `ready` in the log, once it is there.
async fn ready(log: &Path, process: &mut Process) -> String {
    wait_for(&format!("`ready` in {}", log.display()), START, async || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        if let Some(code) = process.exit_code() {
            panic!("it ended with {code}:\n{text}");
        }
        let line = text.lines().find_map(|line| line.strip_prefix("ready"))?;
        text.ends_with('\n').then(|| line.trim().to_owned())
    })
    .await
}
