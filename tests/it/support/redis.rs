//! Redis from Debian's package, unprivileged, on free ports of the loopback.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use redis::{AsyncConnectionConfig, FromRedisValue, cmd};

use super::{Process, START, Scratch, free_port, server_binary, wait_for};

/// `nobody`, as whom a server runs that root starts.
const NOBODY: u32 = 65_534;

/// A server. Ends with its owner.
pub(crate) struct Redis {
    program: PathBuf,
    port: u16,
    arguments: Vec<String>,
    scratch: Scratch,
    process: Option<Process>,
}

impl Redis {
    /// A server that writes down what it has, so that a restart brings it back. `None`: not installed.
    pub(crate) async fn start() -> Option<Redis> {
        Redis::with(&["--appendonly", "yes"]).await
    }

    /// A server with these arguments. `None`: not installed.
    pub(crate) async fn with(arguments: &[&str]) -> Option<Redis> {
        let program = server_binary("redis-server", "redis-server")?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let scratch = Scratch::new("redis");
        let mut server = Redis { program, port: free_port(), arguments, scratch, process: None };
        server.revive().await;
        Some(server)
    }

    /// Starts it, again after [`kill`](Self::kill), with the same port and data; returns when it answers.
    pub(crate) async fn revive(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--dir"])
            .arg(self.scratch.path())
            .args(&self.arguments)
            .current_dir("/");
        if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            command.uid(NOBODY).gid(NOBODY);
        }
        let log = self.scratch.path().join("log");
        self.process = Some(Process::start("redis-server", &mut command, &log));
        wait_for("Redis to answer", START, async || {
            // Any answer will do: one that asks for a password is there too.
            let client = redis::Client::open(format!("redis://{}", self.address())).expect("a URL");
            let answer = match client.get_multiplexed_async_connection().await {
                Ok(mut connection) => cmd("PING").query_async::<String>(&mut connection).await.err(),
                Err(error) => Some(error),
            };
            match answer {
                None => Some(()),
                Some(error) => error.code().is_some_and(|code| code != "LOADING").then_some(()),
            }
        })
        .await;
    }

    /// Kills it with SIGKILL; what it wrote down stays.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Sends it a signal by name: `STOP` makes it hang with its sockets open, `CONT` goes on.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// What it answers to a command, to an ordinary client.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("a URL");
        // The client's own patience is a second for the connection and half of one for an answer.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(START)).set_response_timeout(Some(START));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.expect("it takes connections");
        let (name, arguments) = words.split_first().expect("a command");
        cmd(name).arg(arguments).query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}
