//! The real nats-server on a free loopback port, with what a test wants in its configuration.

use std::net::SocketAddr;
use std::process::Command;

use super::{Process, Scratch, free_port, server_binary, wait_for_listener};

/// A running nats-server with JetStream; it ends with its owner.
pub(crate) struct NatsServer {
    port: u16,
    process: Option<Process>,
    scratch: Scratch,
}

impl NatsServer {
    /// Starts one that everybody may use. `None`, said loudly, without the program.
    pub(crate) async fn start() -> Option<NatsServer> {
        NatsServer::with(Scratch::new("nats"), "").await
    }

    /// Starts one with these lines in its configuration.
    pub(crate) async fn with(scratch: Scratch, lines: &str) -> Option<NatsServer> {
        server_binary("nats-server", "nats-server")?;
        let (port, store) = (free_port(), scratch.path().join("store"));
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream: {{ store_dir: \"{}\", max_mem: 64M, max_file: 64M }}\n{lines}\n",
            store.display()
        );
        scratch.write("conf", &config);
        let mut server = NatsServer { port, process: None, scratch };
        server.start_again().await;
        Some(server)
    }

    /// Starts it again where it was, with the streams that it had.
    pub(crate) async fn start_again(&mut self) {
        let program = server_binary("nats-server", "nats-server").expect("it was there");
        let mut command = Command::new(program);
        command.arg("-c").arg(self.scratch.path().join("conf"));
        self.process = Some(Process::start("nats-server", &mut command, &self.scratch.path().join("log")));
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
        format!("nats://{}", self.address())
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }
}
