//! What is measured beside the daemon: the bare HTTP client, k6, and blackbox_exporter with Prometheus; and what all of them ask.

pub(crate) mod bare;
pub(crate) mod k6;
pub(crate) mod stack;
pub(crate) mod targets;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Processes that are ended when this is dropped.
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    pub(crate) fn start(commands: impl IntoIterator<Item = Command>) -> Processes {
        let start = |mut command: Command| {
            let name = command.get_program().to_string_lossy().into_owned();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        Processes(commands.into_iter().map(start).collect())
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }

    /// Waits until all have ended by themselves.
    pub(crate) fn join(mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// A port that was free just now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Waits until something listens on a port of this machine.
pub(crate) fn wait_for_port(port: u16) {
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing listens on port {port} after 30 s");
}

/// The value at a share of all, in order; 0 of none.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len() as f64 * share).ceil() as usize).max(1) - 1;
    values.get(place).copied().unwrap_or(0.0)
}
