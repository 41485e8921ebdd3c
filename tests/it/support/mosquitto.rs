//! The real Mosquitto on a free loopback port, with what a test wants in its configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Process, Scratch, free_port, server_binary, wait_for_listener};

/// A running Mosquitto; it ends with its owner.
pub(crate) struct Mosquitto {
    port: u16,
    process: Option<Process>,
    scratch: Scratch,
}

impl Mosquitto {
    /// Starts one that everybody may use. `None`, said loudly, without the program.
    pub(crate) async fn start() -> Option<Mosquitto> {
        Mosquitto::with(Scratch::new("mosquitto"), "allow_anonymous true\n").await
    }

    /// Starts one with these lines after those that make its listener.
    pub(crate) async fn with(scratch: Scratch, lines: &str) -> Option<Mosquitto> {
        server_binary("mosquitto", "mosquitto")?;
        let port = free_port();
        scratch.write("conf", &format!("persistence false\nlog_dest stderr\nlistener {port} 127.0.0.1\n{lines}"));
        let mut broker = Mosquitto { port, process: None, scratch };
        broker.start_again().await;
        Some(broker)
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&mut self) {
        let program = server_binary("mosquitto", "mosquitto").expect("it was there");
        let mut command = Command::new(program);
        command.arg("-c").arg(self.scratch.path().join("conf"));
        self.process = Some(Process::start("mosquitto", &mut command, &self.scratch.path().join("log")));
        wait_for_listener(self.address()).await;
    }

    /// Ends it without a goodbye.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.address())
    }
}

/// A file of users and passwords in `directory`, as Mosquitto wants it.
pub(crate) fn password_file(directory: &Path, users: &[(&str, &str)]) -> Option<std::path::PathBuf> {
    let program = server_binary("mosquitto_passwd", "mosquitto")?;
    let path = directory.join("passwords");
    std::fs::write(&path, "").expect("a file can be written");
    for (user, password) in users {
        let status = Command::new(&program).arg("-b").arg(&path).arg(user).arg(password).status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_passwd failed");
    }
    Some(path)
}
